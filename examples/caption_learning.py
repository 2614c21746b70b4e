"""How the models of caption.py learn: cross entropy, a wish to look everywhere, and REINFORCE."""

import numpy as np
from caption_models import Captioner
from training import Course, learn

import attnc
from attnc.data import Vocabulary
from attnc.estimators import MovingAverageBaseline, reinforce
from attnc.losses import softmax_cross_entropy

COURSE = Course(4000, 32, 0.003, decay=0.02)
KINDS = ["soft", "hard", "none"]  # in this order they are numbered, for the seeds
ENTROPY = 0.002  # weight of the wish for a choice that is not sure of itself, lambda_H
REWARD = 0.2  # weight of the rewards, lambda_r
SOFT, FALL = 0.2, 0.75  # a coin for means falls from 1 to this in this share of the training


def train(kind, source, course, seed, everywhere=0.0, check=None, checks=10, **how):
    """Train a captioner of one kind on the batches of ``source.draw(rng, count, share)``.

    Share is that of the training which is done. Returns the model, and a list of `training.Check`.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    model = Captioner(kind, len(source.vocabulary), source.channels, rng=rng, **how)
    rewards = Rewards()

    def loss(step):
        share = step / course.steps
        if kind == "hard":
            model.decoder.soft = max(SOFT, 1 - share / FALL)
        images, _, tokens, _ = source.draw(rng, course.batch, share)
        before, targets = tokens[:, :-1], tokens[:, 1:]
        real = targets != Vocabulary.padding
        written, pullback = attnc.vjp(model, images, before, train=True, rng=rng)
        mean, mean_back = attnc.vjp(
            softmax_cross_entropy, written.logits, targets, ignore_index=Vocabulary.padding
        )
        others = []
        if kind == "hard":
            others = rewards.gradients(written, targets, real)
        elif kind == "soft" and everywhere:
            others = [everywhere * doubly_stochastic(written.weights, real)[1]]
        pullback(mean_back()[0], *others)
        return mean

    return model, learn(model, loss, course, check and (lambda: check(model)), checks, kind)


def doubly_stochastic(weights, real):
    """How far the weights (B, T, N) of regions are from 1 in sum over real words, and its gradient.

    ``sum_i (1 - sum_t weights_ti)^2`` of each caption (Xu et al. 2015, eq. 14), over the number of
    all words, as the cross entropy is a mean over words.
    """
    missing = 1 - (weights * real[..., None]).sum(axis=1, keepdims=True)
    count = real.sum()
    return (missing**2).sum() / count, -2 * missing * real[..., None].astype(weights.dtype) / count


class Rewards:
    """What makes choices of regions likelier: REINFORCE, with a moving baseline for each step.

    A choice is rewarded with the log-probabilities of the words from there on (in the paper: of
    all, which is the same on average, and noisier).
    """

    def __init__(self):
        self.baselines = []

    def gradients(self, written, targets, real):
        """Gradients of the log-probabilities and entropies of the choices of a batch, (B, T)."""
        reward = to_go(written.logits, targets, real)
        count, steps = reward.shape
        self.baselines += [MovingAverageBaseline() for _ in range(len(self.baselines), steps)]
        expected = np.tile([each.value for each in self.baselines[:steps]], (count, 1))
        weights = {"reward_weight": REWARD, "entropy_weight": ENTROPY, "count": real.sum()}
        found = reinforce(written.choices, reward, expected, **weights)
        for baseline, rewards, counted in zip(self.baselines, reward.T, real.T, strict=False):
            baseline.update(rewards[counted])
        return [d * real for d in found]


def to_go(logits, targets, real):
    """The log-probabilities of the targets from each step to the end, (B, T)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    of_targets = np.take_along_axis(logs, targets[..., None], axis=-1)[..., 0] * real
    return of_targets[:, ::-1].cumsum(axis=1)[:, ::-1]

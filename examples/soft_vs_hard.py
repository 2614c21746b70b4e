"""Soft attention against hard: what each looks at, how it trains, what it costs, side by side.

    python soft_vs_hard.py                   under a minute; the picture is soft-vs-hard.png

Soft attention takes the mean of all cards and is trained by its gradient. Hard attention looks at
one card, which it draws, and the gradient of that draw has to be estimated (Xu et al. 2015, "Show,
attend and tell", section 4). The same network learns the same questions (cards.py) by each of the
estimators of `attnc.estimators`; then all of them estimate the gradient of one half-trained
network, where the exact one is a sum over the eight cards.
"""

import sys
import time

try:
    import numpy as np
    import soft_vs_hard_results as results
    from cards import Deck, Reader
    from command import Parser, check_numbers, errors_in_a_line

    import attnc
    from attnc import estimators
except ImportError as error:
    sys.exit(f"soft_vs_hard.py: {error}; install it with: pip install {error.name}")

BATCH, RATE, ENTROPY, DRAWS = 64, 0.003, 0.02, 4


# ---- Ways to look at cards -----------------------------------------------------------------------
# way(scores, value, rng) is the context (draws, count, 1, PIXELS), and the way back to the gradient
# of the scores from the losses (draws, count) and the gradient of the context.


class Soft:
    """The mean of all cards by their weights; an ordinary gradient."""

    draws, hard, differentiable = 1, False, "yes"

    def __call__(self, scores, value, rng):
        context, pullback = attnc.vjp(attnc.attend, scores[None], value[None])
        return context, lambda losses, dcontext: pullback(dcontext).scores[0]


class Reinforce:
    """One card by draw; the gradient of its log-probability times what it was worth."""

    hard, differentiable = True, "no"

    def __init__(self, baseline, entropy=ENTROPY):
        self.baseline, self.entropy = baseline, entropy
        self.draws = DRAWS if baseline == "others" else 1
        self.mean = estimators.MovingAverageBaseline()

    def __call__(self, scores, value, rng):
        many = (np.broadcast_to(x, (self.draws, *x.shape)) for x in (scores, value))
        result, pullback = attnc.vjp(attnc.hard_attention, *many, rng=rng)

        def back(losses, dcontext):
            reward = -losses[..., None]
            baseline = np.array(self.mean.value if self.baseline == "moving" else 0.0)
            if self.baseline == "others":
                baseline = estimators.leave_one_out(reward)
            gradients = estimators.reinforce(result, reward, baseline, entropy_weight=self.entropy)
            self.mean.update(reward)
            return pullback(None, *gradients).scores.sum(axis=0)

        return result.context, back


class Through:
    """One card, or nearly so; the gradient of the context goes on to the scores."""

    draws, hard, differentiable = 1, True, "taken for it"

    def __init__(self, function, **how):
        self.function, self.how = function, how

    def __call__(self, scores, value, rng):
        result, pullback = attnc.vjp(self.function, scores[None], value[None], rng=rng, **self.how)
        return result.context, lambda losses, dcontext: pullback(dcontext).scores[0]


WAYS = {
    "soft": Soft,
    "REINFORCE": lambda: Reinforce("none"),
    "  moving average": lambda: Reinforce("moving"),
    "  leave-one-out": lambda: Reinforce("others"),
    "straight-through": lambda: Through(estimators.straight_through),
    "Gumbel-softmax": lambda: Through(estimators.gumbel_softmax, temperature=0.5),
}


# ---- Training and measuring ----------------------------------------------------------------------


def step(way, model, question, rng):
    """Gradients of all parameters from one batch; returns its mean loss."""
    left, right, names, _, numbers = question
    scores, scores_back = model.scores(left, names)
    context, back = way(scores, right, rng)
    losses, losses_back = model.losses(context, np.broadcast_to(numbers, context.shape[:2]))
    dcontext = losses_back(np.full_like(losses, 1 / losses.size))
    scores_back(back(losses, dcontext).astype(scores.dtype))
    return losses.mean()


def answers(model, question, hard):
    """Which cards are looked at most, and whether that and the answers are right."""
    left, right, names, place, numbers = question
    scores, _ = model.scores(left, names)
    result = attnc.hard_attention(scores, right, sample=False)
    context = result.context if hard else attnc.attend(scores, right)
    got = model.reader(context[:, 0]).argmax(axis=-1)
    return np.mean(got == numbers), np.mean(result.index[:, 0] == place)


def train(make, deck, test, steps, seed):
    """Train a network one way; returns it, its curve, and the median time of a step.

    A row of the curve: steps, answers that are right, questions in which the card that is looked at
    most is the right one.
    """
    way, rng = make(), np.random.default_rng(seed)
    model, curve, times = Reader(rng), [], []
    optimizers = [attnc.optim.Adam(layer, RATE) for layer in model.layers]
    for k in range(steps):
        question = deck.deal(rng, BATCH)
        start = time.perf_counter()
        for layer in model.layers:
            layer.zero_grad()
        step(way, model, question, rng)
        for optimizer in optimizers:
            optimizer.step()
        times.append(time.perf_counter() - start)
        if (k + 1) % max(1, steps // 40) == 0:
            curve.append((k + 1, *answers(model, test, way.hard)))
    return model, np.array(curve), np.median(times)


def gradient_errors(model, question, samples, seed):
    """Hold every way's gradient of the scores of one batch against the exact one.

    That is of the mean loss over draws: sum_k w_k loss_k, with all the cards read.
    """
    left, right, names, _, numbers = question
    scores, _ = model.scores(left, names)
    scores, right = scores.astype(float), right.astype(float)
    cards = right.swapaxes(0, 1)[:, :, None]  # (CARDS, count, 1, PIXELS)
    losses, _ = model.losses(cards, np.broadcast_to(numbers, cards.shape[:2]))
    (_, weights), pullback = attnc.vjp(attnc.attend, scores, right, return_weights=True)
    exact = pullback(dweights=losses.T[:, None].astype(float) / len(numbers)).scores

    def estimate(way):
        def one(rng):
            context, back = way(scores, right, rng)
            losses, losses_back = model.losses(context, np.broadcast_to(numbers, context.shape[:2]))
            return back(losses, losses_back(np.full_like(losses, 1 / losses.size)).astype(float))

        return one

    found = {}
    for name, make in WAYS.items():
        way = make()
        if isinstance(way, Reinforce):  # its wish for entropy is no part of the exact gradient
            way.entropy = 0.0
            way.mean.value = -float((weights.T[:, 0] * losses).sum(axis=0).mean())
        count = 2 if name == "soft" else samples
        found[name] = estimators.gradient_error(estimate(way), exact, count, rng=seed)
    return found


def main():
    parser = Parser(prog="soft_vs_hard.py", description="Soft attention against hard attention.")
    add = parser.add_argument
    output = "soft-vs-hard.png"
    add("--output", metavar="FILE", default=output, help=f"the picture (default: {output})")
    add("--steps", type=int, default=1200, help="of training, each way (default: 1200)")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--quick", action="store_true", help="few steps, for tests")
    args = parser.parse_args()
    check_numbers(parser, vars(args), {"steps": 1, "seed": 0})
    steps, samples = (40, 20) if args.quick else (args.steps, 1000)

    deck, rng = Deck(True, args.seed), np.random.default_rng([args.seed, 1])
    test = Deck(False, args.seed).deal(rng, 100 if args.quick else 1000)
    print(f"{steps} steps of {BATCH} questions; {len(test[-1])} to test, of other digits\n")
    trained = {}
    for name, make in WAYS.items():
        print(f"training: {name.strip()}", file=sys.stderr)
        trained[name] = train(make, deck, test, steps, args.seed)
    half, _, _ = train(Soft, deck, test, max(1, steps // 4), args.seed)
    errors = gradient_errors(half, deck.deal(rng, 16), samples, args.seed)
    ways = {name: make() for name, make in WAYS.items()}
    results.report(trained, errors, ways)
    results.draw(trained, errors, test, args.output)
    print(f"\n{args.output}")


if __name__ == "__main__":
    with errors_in_a_line("soft_vs_hard.py"):
        main()

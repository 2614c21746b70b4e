"""How the models of glimpse.py learn: by gradients what they see, by REINFORCE where to look.

Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning"; Mnih et al. 2014, "Recurrent models of visual attention", section 3. A place l is drawn
from a normal distribution around a mean m, and an advantage A (the reward, less what was to be
expected) makes it likelier or less likely by the gradient of -A log p(l)::

    log p(l) = -|l - m|^2 / (2 s^2) + constant,    -A d log p / dm = -A (l - m) / s^2
"""

import numpy as np

import attnc
from attnc.losses import softmax_cross_entropy


def log_probability(places, means, deviation):
    """Of places (..., 2) drawn around means with this deviation: (...)."""
    squares = np.square((places - means) / deviation).sum(axis=-1)
    return -squares / 2 - np.log(2 * np.pi * deviation**2)


def aim_gradient(places, means, deviation, advantage):
    """The gradient of the mean over the batch of ``-advantage * log_probability`` by the means."""
    return -advantage[..., None] * (places - means) / (deviation**2 * len(places))


def probabilities(logits):
    """Softmax of the last axis."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def sigmoid(x):
    return (1 + np.tanh(x / 2)) / 2


def confidences(logits, targets):
    """What is given to the right class after each look, (B, T)."""
    return np.take_along_axis(probabilities(logits), targets[..., None], axis=-1)[..., 0]


def rewards(kind, logits, targets, digits):
    """What each look after the first is worth, (B, T - 1).

    "confidence": how much more is given to the right class after the look than before it. "class":
    1 if the class is right at the end of the looks that are made at this digit, 0 if not.
    """
    if kind == "class":
        right = (logits.argmax(axis=-1) == targets).astype(logits.dtype)
        last = right.reshape(len(right), digits, -1)[:, :, -1:]  # (B, digits, 1)
        return np.repeat(last, right.shape[1] // digits, axis=2).reshape(right.shape)[:, 1:]
    after = confidences(logits[:, 1:], targets[:, 1:])
    return after - confidences(logits[:, :-1], targets[:, 1:])


def last_looks(rng, stops):
    """Draw at which look each image is left: the first at which the network has seen enough."""
    enough = rng.random(stops.shape) < sigmoid(stops)
    return np.where(enough.any(axis=1), enough.argmax(axis=1), stops.shape[1])


def stop_gradient(stops, last, advantage):
    """The gradient by the stops of the mean of ``-advantage * log p`` of leaving at `last`.

    A choice to go on, or to stop, was made at each look up to that one; advantage is (B, T - 1).
    """
    numbers = np.arange(stops.shape[1])
    made = numbers <= last[:, None]
    chosen = numbers == last[:, None]  # to stop; the last look of all is no choice
    return made * -advantage * (chosen - sigmoid(stops)) / len(stops)


def learn_hard(model, images, targets, choose, deviation, settings, rng):
    """Add the gradients of one batch to the model's.

    ``choose(number, means)`` gives the places; where they are not drawn around the means, deviation
    is None and nothing is learnt of where to look.
    """
    looks, pullback = attnc.vjp(model, images, choose)
    _, loss_back = attnc.vjp(softmax_cross_entropy, looks.logits, targets)
    (dlogits,) = loss_back()
    dmeans = dstops = None
    if deviation is not None:
        reward = rewards(settings.reward, looks.logits, targets, settings.digits)
        before = looks.states[:, :-1]
        advantage = reward - model.baseline(before)
        dmeans = aim_gradient(looks.places[:, 1:], looks.means, deviation, advantage)
        model.baseline.fit(before, reward)
    if settings.stop is not None:
        last = last_looks(rng, looks.stops)
        right = looks.logits.argmax(axis=-1) == targets
        worth = np.take_along_axis(right, last[:, None], 1) - settings.stop * last[:, None]
        worth = np.broadcast_to(worth, looks.stops.shape).astype(model.dtype)
        advantage = worth - model.stop_baseline(looks.states[:, :-1])
        dstops = stop_gradient(looks.stops, last, advantage).astype(model.dtype)
        model.stop_baseline.fit(looks.states[:, :-1], worth)
    pullback(dlogits, dmeans, dstops)


def learn(model, images, targets):
    """The same for a model that learns by the gradient of its logits alone."""
    found, pullback = attnc.vjp(model, images)
    logits = getattr(found, "logits", found)
    _, loss_back = attnc.vjp(softmax_cross_entropy, logits, targets)
    pullback(*loss_back())

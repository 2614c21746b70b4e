"""The task of soft_vs_hard.py: cards with two handwritten digits, and who reads one of them.

On the left of a card stands its name, on the right its number; the question is the number of the
card with a given name. So one has to find the card by its left digit, and to read its right one.
The digits are those of scikit-learn, 8 x 8 pixels.
"""

import numpy as np
from sklearn.datasets import load_digits

import attnc

CARDS, PIXELS, TEST = 8, 64, 360  # of a question; of a digit; digits that are kept for testing


class Deck:
    """Questions of digits that others do not have: `training`, or those for the test."""

    def __init__(self, training, seed):
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(labels))
        part = order[TEST:] if training else order[:TEST]
        self.images = (images[part] / 16).astype(np.float32)
        self.of_label = [np.flatnonzero(labels[part] == label) for label in range(10)]
        self.labels = labels[part]

    def deal(self, rng, count):
        """Deal questions: lefts and rights (count, CARDS, PIXELS), names, places and numbers."""
        names = rng.permuted(np.tile(np.arange(10), (count, 1)), axis=1)[:, :CARDS]
        left = np.array([rng.choice(places, names.shape) for places in self.of_label])
        left = np.take_along_axis(left, names[None], 0)[0]
        right = rng.integers(0, len(self.labels), names.shape)
        place = rng.integers(0, CARDS, count)
        rows = np.arange(count)
        numbers = self.labels[right[rows, place]]
        return self.images[left], self.images[right], names[rows, place], place, numbers


class Reader:
    """Scores of the cards for a name, and the number on what was looked at."""

    def __init__(self, rng, size=32, hidden=64, dtype="float32"):
        self.size, more = size, {"rng": rng, "dtype": dtype}
        self.name, self.card = attnc.Embedding(10, size, **more), attnc.Linear(PIXELS, size, **more)
        self.reader = attnc.Sequential(
            attnc.Linear(PIXELS, hidden, **more),
            attnc.FeedForward(hidden, hidden, activation="relu", **more),
            attnc.Linear(hidden, 10, **more),
        )
        self.layers = self.name, self.card, self.reader

    def scores(self, left, names):
        """Score the cards, (count, 1, CARDS); and the way back to the parameters."""
        query, query_back = attnc.vjp(self.name, names[:, None])
        key, key_back = attnc.vjp(self.card, left)
        factor = key.dtype.type(self.size**-0.5)

        def back(dscores):
            query_back(factor * dscores @ key)
            key_back(factor * dscores.swapaxes(1, 2) @ query)

        return factor * query @ key.swapaxes(1, 2), back

    def losses(self, context, numbers):
        """Give -log p of the right number for each context (..., 1, PIXELS), and the way back."""
        logits, logits_back = attnc.vjp(self.reader, context[..., 0, :])
        top = logits.max(axis=-1, keepdims=True)
        logs = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
        right = np.arange(10) == numbers[..., None]

        def back(dlosses):
            (dcontext,) = logits_back(dlosses[..., None] * (np.exp(logs) - right))
            return dcontext[..., None, :]

        return -(logs * right).sum(axis=-1), back

    def multiply_adds(self, reads):
        """Count the multiply-adds of an answer where so many cards are read."""
        hidden = self.reader.parameters
        network = sum(x.size for name, x in hidden.items() if x.ndim == 2)
        return CARDS * (PIXELS + 1) * self.size + (reads * PIXELS if reads > 1 else 0) + network

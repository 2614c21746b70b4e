"""Digits somewhere on a larger canvas, among pieces of other digits: what glimpse.py looks at.

The digits are those of scikit-learn, 8 x 8 (Alpaydin and Kaynak 1998, "Optical recognition of
handwritten digits"). They are split before any canvas is made: no canvas for training shows a piece
of a digit of the test. The clutter is like that of Mnih et al. 2014 ("Recurrent models of visual
attention", section 4.1): there 4 pieces of 8 x 8 pixels, of digits of 28 x 28. Defines: `split`,
`Canvases`.
"""

import numpy as np

SIDE = 8  # of a digit
PIECE = 3  # side of the clutter
CLASSES = 10
NAMES = "zero one two three four five six seven eight nine".split()


def split(seed=0, test=400, validation=200):
    """{part: (images (N, 8, 8) in 0..1, labels (N,))} of "training", "validation" and "test"."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.images.astype(np.float32) / 16, digits.target
    order = np.random.default_rng(seed).permutation(len(labels))
    bounds = np.split(order, [test, test + validation])
    names = "test", "validation", "training"
    return {name: (images[rows], labels[rows]) for name, rows in zip(names, bounds, strict=True)}


class Canvases:
    """Makes canvases from the digits of one part; the same seed makes the same canvases.

    Parameters
    ----------
    images, labels : ndarray
        As from `split`.
    size : int
        Side of a canvas.
    digits : int
        Whole digits on each; they do not overlap.
    pieces : int
        Of other digits: squares of 3 x 3 pixels.
    """

    def __init__(self, images, labels, size=32, digits=1, pieces=4):
        self.images, self.labels = images, labels
        self.size, self.digits, self.pieces = size, digits, pieces

    def draw(self, rng, count):
        """Return canvases (count, size, size), labels (count, digits) and places.

        Places (count, digits, 2) are the rows and columns of the middles of the digits, which are
        numbered from left to right.
        """
        canvases = np.zeros((count, self.size, self.size), np.float32)
        for _ in range(self.pieces):
            which = rng.integers(len(self.labels), size=count)
            inside = rng.integers(SIDE - PIECE + 1, size=(count, 2))
            onto = rng.integers(self.size - PIECE + 1, size=(count, 2))
            paste(canvases, onto, cut(self.images[which], inside, PIECE))
        corners = self._corners(rng, count)
        which = rng.integers(len(self.labels), size=(count, self.digits))
        for n in range(self.digits):
            paste(canvases, corners[:, n], self.images[which[:, n]])
        return canvases, self.labels[which], corners + SIDE / 2

    def _corners(self, rng, count):
        """Top left corners of the digits (count, digits, 2), from left to right."""
        corners = rng.integers(self.size - SIDE + 1, size=(count, self.digits, 2))
        while True:  # until no two overlap
            apart = np.abs(corners[:, :, None] - corners[:, None]).max(axis=-1) >= SIDE
            bad = ~(apart | np.eye(self.digits, dtype=bool)).all(axis=(1, 2))
            if not bad.any():
                break
            corners[bad] = rng.integers(self.size - SIDE + 1, size=(bad.sum(), self.digits, 2))
        order = corners[:, :, 1].argsort(axis=1, kind="stable")
        return np.take_along_axis(corners, order[:, :, None], axis=1)


def cut(images, corners, side):
    """Squares (B, side, side) of images (B, H, W), whose top left corners (B, 2) are given."""
    return images[at(corners, side)]


def paste(canvases, corners, patches):
    """Lay patches (B, side, side) on canvases, in place: the brighter of two pixels is seen."""
    where = at(corners, patches.shape[1])
    canvases[where] = np.maximum(canvases[where], patches)


def at(corners, side):
    """The index of one square in each of B images."""
    rows, columns = (corners[:, axis, None] + np.arange(side) for axis in (0, 1))
    return np.arange(len(corners))[:, None, None], rows[:, :, None], columns[:, None]

"""Scenes of one to four digits, and what is to be said of each: what caption.py learns from.

A caption names the digits clockwise around the middle of the canvas, from twelve o'clock on, and
says where each is as seen from the next: "an eight left of a three above a one". So the picture
alone determines the caption, and no place is drawn that would leave a doubt: digits do not overlap,
none is near the middle or the line up to twelve o'clock, their directions from the middle differ by
15 degrees and more, and where a relation is named, one of the two distances, of rows and of
columns, is longer than the other by 3 pixels and more.

The digits are those of canvases.py, split before any scene is made.
"""

from typing import NamedTuple

import numpy as np
from canvases import NAMES, SIDE, paste

from attnc.data import Vocabulary, pad

SIZE = 32  # side of a canvas
MOST = 4  # digits
EASY = 0.4  # the share of training after which there may be as many
NEAR, APART, LONGER = 5, np.deg2rad(15), 3  # the least of distances and angles, as above
RELATIONS = ["left of", "right of", "above", "below"]  # a word each
WORDS = Vocabulary(["a", "an", *NAMES, *RELATIONS])


class Batch(NamedTuple):
    """Scenes, and their captions as words and as numbers."""

    images: np.ndarray  # (B, 1, SIZE, SIZE) in 0..1
    captions: list  # of lists of words
    tokens: np.ndarray  # (B, T): start, words, end, padding
    places: list | None  # of arrays (digits, 2): the middle of each digit, as named; None: unknown


class Scenes:
    """Draws scenes of the digits of one part; the same seed draws the same scenes."""

    vocabulary, channels, longest = WORDS, 1, 3 * MOST
    text = staticmethod(" ".join)

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def draw(self, rng, count, share=1.0):
        """Return a `Batch` of scenes as they are learnt from when this share of training is done.

        At first they have one digit, later one to four by chance: what digits look like has to be
        learnt before there is anything to say of their places.
        """
        most = min(MOST, 1 + int(share * MOST / EASY))
        return self.make(rng, np.sort(rng.integers(1, most + 1, count)))

    def make(self, rng, numbers):
        """Return a `Batch` of scenes with so many digits each, in rising order."""
        canvases, captions, places = [], [], []  # type: list, list, list
        for number, many in zip(*np.unique(numbers, return_counts=True), strict=True):
            middles = layouts(rng, number, many)
            which = rng.integers(len(self.labels), size=(many, number))
            scene = np.zeros((many, SIZE, SIZE), np.float32)
            for n in range(number):
                corners = (middles[:, n] - SIDE / 2).astype(int)
                paste(scene, corners, self.images[which[:, n]])
            canvases.append(scene)
            captions += map(caption, self.labels[which], middles)
            places += list(middles)
        tokens = pad([WORDS.encode(words, start=True, end=True) for words in captions])[0]
        return Batch(np.concatenate(canvases)[:, None], captions, tokens, places)


def caption(labels, places):
    """The words for digits in the order of their naming, whose middles are at these places."""
    words = []
    for n, label in enumerate(labels):
        if n:
            words.append(relation(*places[n] - places[n - 1]))
        words += ["an" if NAMES[label] == "eight" else "a", NAMES[label]]
    return words


def relation(down, right):
    """Where something is as seen from what is so many rows further down and columns further right.

    The longer of the two distances decides.
    """
    if abs(right) > abs(down):
        return "left of" if right > 0 else "right of"
    return "above" if down > 0 else "below"


def angles(places):
    """Directions of places (..., 2) from the middle, clockwise from twelve o'clock, 0 to 2 pi."""
    rows, columns = np.moveaxis(places - SIZE / 2, -1, 0)
    return np.arctan2(columns, -rows) % (2 * np.pi)


def layouts(rng, digits, count):
    """Draw middles of digits (count, digits, 2) in the order of their naming."""
    found = np.zeros((0, digits, 2))
    while len(found) < count:
        tried = rng.integers(SIZE - SIDE + 1, size=(4096, digits, 2)) + SIDE / 2
        order = angles(tried).argsort(axis=1, kind="stable")
        tried = np.take_along_axis(tried, order[:, :, None], axis=1)
        found = np.concatenate([found, tried[is_clear(tried)]])
    return found[:count]


def is_clear(places):
    """Whether places (N, digits, 2), in the order of their naming, leave no doubt: (N,)."""
    distances = np.abs(places[:, :, None] - places[:, None]).max(axis=-1)
    distances += SIDE * np.eye(places.shape[1])  # none overlaps itself
    turns = np.diff(angles(places), axis=1, prepend=0, append=2 * np.pi)
    down, right = np.moveaxis(np.abs(np.diff(places, axis=1)), -1, 0)
    clear = (distances >= SIDE).all(axis=(1, 2)) & (turns >= APART).all(axis=1)
    clear &= (np.linalg.norm(places - SIZE / 2, axis=-1) >= NEAR).all(axis=1)
    return clear & (np.abs(down - right) >= LONGER).all(axis=1)

"""Short clips of a handwritten digit that moves one way and then another, and what they are called.

"a five moves up, then left": a real digit of scikit-learn's moves two pixels from each frame to the
next, in one direction up to some frame and in another one from there on; or it stays where it is
for one of the two. A second digit lies still all the time, and the caption does not speak of it.
Digits are split before any clip is made, by `canvases.split`: no digit of the test was seen in
training. Defines: `Clips`, `Batch`, `caption`, `text`, `slots`, `cells`.
"""

from typing import NamedTuple

import numpy as np
from canvases import CLASSES, NAMES, SIDE, paste

SIZE = 24  # side of a frame
FRAMES = 9
MOVES = FRAMES - 1  # from each frame to the next
SHORTEST = 2  # moves in one direction
STEP = 2  # pixels
GRID = 6  # regions a side, for `cells`

DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1), "stays": (0, 0)}
WORDS = ["<end>", "a", "an", *NAMES, "moves", *DIRECTIONS, "then"]
END = 0  # the number of the word that ends a caption, and begins it
LENGTH = 6  # words of a caption, without the end


def caption(digit, first, second):
    """Return the words for a digit that does one thing, then the other; all are equally many."""
    said = ["stays", "then", "moves"] if first == "stays" else ["moves", first, "then"]
    return ["an" if digit == 8 else "a", NAMES[digit], *said, second]


def text(numbers):
    """Write words as a sentence, up to the end."""
    words = [WORDS[number] for number in numbers]
    words = words[: words.index("<end>")] if "<end>" in words else words
    return " ".join(words).replace(" then", ", then")


# The numbers of the words for each digit and pair of directions, (10, 5, 5, LENGTH + 1).
NUMBERS = np.array(
    [
        [[[*map(WORDS.index, caption(n, a, b)), END] for b in DIRECTIONS] for a in DIRECTIONS]
        for n in range(CLASSES)
    ]
)


class Batch(NamedTuple):
    """Some clips, and what is known of them."""

    frames: np.ndarray  # (B, FRAMES, SIZE, SIZE), in 0..1
    words: np.ndarray  # (B, LENGTH + 1), numbers of WORDS
    turn: np.ndarray  # (B,) moves before the digit turns
    moving: np.ndarray  # (B, FRAMES, 2) top left corners of the digit that moves
    still: np.ndarray  # (B, 2) of the one that does not


class Clips:
    """Makes clips from the digits of one part of `canvases.split`, (images, labels)."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def draw(self, rng, count):
        """Return a `Batch`; the same generator makes the same clips."""
        first = rng.integers(len(DIRECTIONS), size=count)
        second = (first + rng.integers(1, len(DIRECTIONS), count)) % len(DIRECTIONS)
        turn = rng.integers(SHORTEST, MOVES - SHORTEST + 1, count)
        before = np.arange(MOVES) < turn[:, None]
        moves = np.array([*DIRECTIONS.values()])[np.where(before, first[:, None], second[:, None])]
        path = np.zeros((count, FRAMES, 2), int)
        path[:, 1:] = STEP * moves.cumsum(axis=1)
        moving, still = _places(rng, path)
        which = rng.integers(len(self.labels), size=(2, count))
        frames = np.zeros((count, FRAMES, SIZE, SIZE), np.float32)
        for n in range(FRAMES):
            paste(frames[:, n], moving[:, n], self.images[which[0]])
            paste(frames[:, n], still, self.images[which[1]])
        return Batch(frames, NUMBERS[self.labels[which[0]], first, second], turn, moving, still)


def _places(rng, path):
    """Corners of both digits, inside of the frame, so that they never overlap."""
    room = SIZE - SIDE
    moving, still = np.zeros_like(path), np.zeros((len(path), 2), int)
    bad = np.ones(len(path), bool)
    while bad.any():
        some = path[bad]
        start = rng.integers(-some.min(axis=1), room - some.max(axis=1) + 1)
        moving[bad] = some + start[:, None]
        still[bad] = rng.integers(room + 1, size=start.shape)
        bad = (np.abs(moving - still[:, None]).max(axis=2) < SIDE).any(axis=1)
    return moving, still


def slots(words):
    """Where the digit, the first direction, "then" and the second direction stand, (B, 4)."""
    then = (words == WORDS.index("then")).argmax(axis=1)
    return np.stack([np.ones_like(then), then - 1, then, np.full_like(then, LENGTH - 1)], axis=1)


def cells(corners):
    """Which regions of GRID x GRID have a part of the digit at these corners (..., 2), row by row.

    Returns a bool array (..., GRID * GRID).
    """
    width = SIZE // GRID
    edges = width * np.arange(GRID)
    inside = (corners[..., None] < edges + width) & (edges < corners[..., None] + SIDE)
    rows, columns = inside[..., 0, :, None], inside[..., 1, None, :]
    return (rows & columns).reshape(*corners.shape[:-1], -1)

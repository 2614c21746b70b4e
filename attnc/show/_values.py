"""The numbers of a map: made fewer where there are too many, shaded, and written.

One rule of colours for all pictures: a hue whose strength is the number, over whatever is behind
it. Black and white letters are as readable on both hues at full strength (a luminance of 0.18), so
that the same picture does on light and dark pages.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from attnc.typing import Array

__all__ = ["Reduced", "Scale", "amount", "exact", "hue", "reduced", "short"]

ABOVE, BELOW, OTHER = (33, 122, 188), (194, 84, 10), (128, 128, 128)  # blue, orange, grey
FAINT = 0.06  # the strength of zero: a cell is seen to be there


class Reduced(NamedTuple):
    """A map of at most so many rows and columns."""

    values: Array  # in the dtype given, or float64 where numbers were put together
    rows: int  # how many queries are one row
    columns: int  # how many keys are one column


def reduced(values: Array, most_rows: int, most_columns: int, how: str) -> Reduced:
    """The means (or maxima) of equal blocks; the last row and column may be of smaller ones.

    What is not finite in a block is, as usual, in its mean.
    """
    sizes = [-(-n // most) for n, most in zip(values.shape, (most_rows, most_columns), strict=True)]
    if sizes == [1, 1]:
        return Reduced(values, 1, 1)
    with np.errstate(all="ignore"):
        result = values.astype(np.float64)
        # A sum of finite numbers may be beyond all, where their mean is not.
        power = 64 if np.fmax.reduce(np.abs(result), axis=None) > 1e280 else 0
        result = np.ldexp(result, -power)
        for axis, (n, size) in enumerate(zip(values.shape, sizes, strict=True)):
            starts = np.arange(0, n, size)
            if how == "max":
                result = np.maximum.reduceat(result, starts, axis=axis)
            else:
                counts = np.minimum(size, n - starts)
                result = np.add.reduceat(result, starts, axis=axis)
                result /= counts[:, None] if axis == 0 else counts
        result = np.ldexp(result, power)
    return Reduced(result, sizes[0], sizes[1])


class Scale:
    """Which number has which colour.

    Parameters
    ----------
    values : ndarray
    scores : bool or None
        Two hues, up to the largest absolute value; None for those where a number is outside 0..1.
    top : float, optional
        The number of full strength; 1 for weights unless given.
    """

    def __init__(self, values: Array, scores: bool | None, top: float | None = None) -> None:
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        finite = finite.astype(np.float64)
        largest = float(np.abs(finite).max(initial=0))
        if scores is None:
            scores = bool(finite.size) and bool(finite.min() < 0 or finite.max() > 1)
        self.scores = scores
        self.top = (largest or 1.0) if scores or top is None and largest > 1 else top or 1.0
        self.below = bool((finite < 0).any())

    @np.errstate(all="ignore")
    def strengths(self, values: Array) -> Array:
        """How much of its hue each number has: in -1..1, NaN for what is not finite."""
        values = values.astype(np.float64)
        values = np.where(np.isfinite(values), values, np.nan)
        return np.clip(values / self.top, -1, 1)

    def says(self) -> str:
        """What the colours mean, in words."""
        if not self.scores:
            return f"colours from 0 to {amount(self.top)}"
        below = ", orange below" if self.below else ""
        return f"colours to ±{amount(self.top)}: blue above 0{below}"


def hue(strength: float) -> tuple[tuple[int, int, int], float]:
    """The colour of a strength, and how opaque it is."""
    if strength != strength:
        return OTHER, 0.35
    opaque = FAINT + (1 - FAINT) * abs(strength)
    return (BELOW if strength < 0 else ABOVE), round(opaque, 3)


def exact(value: np.generic) -> str:
    """The number in full: what reads back as the same one in its own dtype."""
    return str(value) if isinstance(value, np.generic) else repr(value)


def short(value: float) -> str:
    """The number for a cell: two digits after the point, powers of ten where it is large."""
    value = float(value)
    if not np.isfinite(value):
        return "NaN" if value != value else "∞" if value > 0 else "−∞"
    if abs(value) >= 1e4:
        return f"{value:.0e}".replace("e+0", "e+")
    return f"{value:.2f}" if value != int(value) else f"{int(value)}"


def amount(value: float) -> str:
    """The number for a sentence, in three figures."""
    return f"{value:.3g}"

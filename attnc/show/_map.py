"""A map as it is drawn: few enough cells, the words beside them, and what has to be said of it."""

from __future__ import annotations

import numpy as np

from attnc.show import _words
from attnc.show._values import Scale, exact, reduced
from attnc.typing import Array

__all__ = ["Map", "common_scale"]


class Map:
    """The cells of one map.

    Parameters
    ----------
    values : ndarray, shape (Tq, Tk)
    queries, keys : list of str or None
    names : tuple of str
        What rows and columns are: (query_name, key_name).
    title : str
    scores : bool or None
    most : tuple of int
        How many rows and columns there may be.
    how : str
        "mean" or "max".
    scale : Scale, optional
        That of other maps beside it.
    """

    def __init__(
        self,
        values: Array,
        queries: list[str] | None,
        keys: list[str] | None,
        names: tuple[str, str],
        title: str,
        scores: bool | None,
        most: tuple[int, int],
        how: str,
        scale: Scale | None = None,
    ) -> None:
        self.whole = values.shape
        self.values, self.rows, self.columns = reduced(values, *most, how)
        self.how, self.names, self.title = how, names, title
        self.queries = _labels(queries, values.shape[0], self.rows)
        self.keys = _labels(keys, values.shape[1], self.columns)
        self.named = keys is not None
        self.scale = scale = scale or common_scale(values, [self], scores)
        self.strengths: Array = scale.strengths(self.values)

    @property
    def is_reduced(self) -> bool:
        """Whether a cell is more than one pair."""
        return (self.rows, self.columns) != (1, 1)

    def notes(self) -> list[str]:
        """What is to be said below it."""
        notes = [self.scale.says()]
        if self.is_reduced:
            what = {"mean": "mean", "max": "largest"}[self.how]
            notes.append(
                f"reduced from {self.whole[0]} x {self.whole[1]}: each cell is the {what} of "
                f"{self.rows} x {self.columns} weights"
            )
        return notes

    def hover(self, i: int, j: int) -> str:
        """Which pair a cell is, and its number in full."""
        what = {"mean": "mean ", "max": "largest "}[self.how] if self.is_reduced else ""
        return f"{self.queries[i]} → {self.keys[j]}: {what}{exact(self.values[i, j])}"

    def summary(self) -> str:
        """What it is, for those who do not see it."""
        title = f"{self.title}: " if self.title else ""
        kind = "scores" if self.scale.scores else "attention weights"
        names = f"{self.names[0]} (rows), {self.names[1]} (columns)"
        return f"{title}{kind}, {self.whole[0]} x {self.whole[1]}, {names}"


def common_scale(values: Array, maps: list[Map], scores: bool | None) -> Scale:
    """One scale for maps of these values: of means up to the largest, or all would be pale."""
    scores = Scale(values, scores).scores
    if not any(each.is_reduced for each in maps):
        return Scale(values, scores)
    shown = np.concatenate([each.values.ravel() for each in maps])
    finite = np.abs(shown[np.isfinite(shown)])
    return Scale(shown, scores, None if scores else float(finite.max(initial=0)) or 1.0)


def _labels(given: list[str] | None, count: int, size: int) -> list[str]:
    """What is written beside each row: its label, or the first and the last of a block."""
    words = list(map(_words.visible, range(count) if given is None else given))
    starts = range(0, count, size)
    return [_ends(words[n], words[min(n + size, count) - 1]) for n in starts]


def _ends(first: str, last: str) -> str:
    if first == last:
        return first
    return f"{first}–{last}" if first.isdecimal() and last.isdecimal() else f"{first} … {last}"

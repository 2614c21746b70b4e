"""Data for training and data held out, with nothing of the one in the other."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from attnc.arrays import generator, integer, number
from attnc.data.checks import iterable, short
from attnc.typing import Seed

__all__ = ["Split", "split"]


class Split(NamedTuple):
    """What `split` makes of sentence pairs.

    Parameters
    ----------
    training, validation, test : list of (str, str)
        The three parts; together each pair once.
    moved : int
        How many held-out pairs were not drawn, but had to follow a near-copy of theirs.
    """

    training: list[tuple[str, str]]
    validation: list[tuple[str, str]]
    test: list[tuple[str, str]]
    moved: int


def split(
    pairs: Iterable[tuple[str, str]],
    *,
    validation: float = 0.05,
    test: float = 0.05,
    rng: Seed = 0,
) -> Split:
    """Split sentence pairs into training, validation and test, without near-copies across.

    Two texts are near-copies if they are equal but for case, Unicode form, punctuation,
    digits and white space ("Error 5." and "error: 17"); two pairs, if their sources are or their
    targets are. What is linked by near-copies, also through others, is a group and stays together:
    a model cannot be right on held-out text by having seen it. Groups are drawn at random until
    each held-out part is full. No pair is dropped; ``list(dict.fromkeys(pairs))`` drops repeats.

    Parameters
    ----------
    pairs : iterable of (str, str)
        Sources and targets.
    validation, test : float or int
        A share of the pairs below 1, or a number of pairs; 0 for none. It is not exceeded; what is
        missing, because a group was too large for the room left, is a few pairs at most where most
        groups are one pair.
    rng : None, int or numpy.random.Generator
        What is drawn. Unlike elsewhere always the same unless told: a model that is trained on
        later must not meet the pairs that were held out.

    Returns
    -------
    Split
        ``(training, validation, test, moved)``, each part in the order of `pairs`.

    Raises
    ------
    TypeError
        If `pairs` are no pairs of strings, or another argument is of a wrong kind.
    ValueError
        If a part is negative or leaves nothing to train on, or if the groups are so few or so large
        that a part gets none.

    Examples
    --------
    >>> pairs = [("Go.", "Va !"), ("go!", "Vas-y !"), ("Hi.", "Salut !"), ("Oh?", "Ah ?")]
    >>> parts = split(pairs, validation=1, test=1)
    >>> len(parts.training), len(parts.validation), len(parts.test)
    (2, 1, 1)
    """
    items = _pairs(pairs)
    sizes = {
        name: _size(name, value, len(items))
        for name, value in (("validation", validation), ("test", test))
    }
    if items and sum(sizes.values()) >= len(items):
        raise ValueError(
            f"split: validation and test must leave pairs to train on, got {sizes['validation']} "
            f"and {sizes['test']} of {len(items)}"
        )
    groups = _groups(items)
    order = generator("split", rng).permutation(len(groups))
    part = ["training"] * len(items)
    moved = 0
    for name in ("test", "validation"):
        room = sizes[name]
        for group in (groups[i] for i in order):
            if len(group) <= room and part[group[0]] == "training":
                room -= len(group)
                moved += len(group) - 1
                for row in group:
                    part[row] = name
        if room == sizes[name] > 0:
            raise ValueError(
                f"split: {name} must be larger or the pairs more different, got {sizes[name]} of "
                f"{len(items)} pairs, which are {len(groups)} groups of near-copies"
            )
    if items and "training" not in part:
        raise ValueError(
            f"split: pairs must be more different, got {len(items)} in {len(groups)} groups of "
            "near-copies, all of which are held out"
        )
    parts: dict[str, list[tuple[str, str]]] = {"training": [], "validation": [], "test": []}
    for name, pair in zip(part, items, strict=True):
        parts[name].append(pair)
    return Split(**parts, moved=moved)


def _pairs(pairs):
    """`pairs` as a list, each of two strings."""
    items = list(iterable("split", "pairs", pairs, "pairs of strings"))
    for item in items:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise TypeError(f"split: pairs must be (source, target), got {short(item)}")
        if not all(isinstance(text, str) for text in item):
            raise TypeError(f"split: pairs must be of strings, got {short(item)}")
    return items


def _size(name: str, value: Any, count: int) -> int:
    """How many pairs a part is to have: a share of them, or a number."""
    if isinstance(value, (float, np.floating)):
        share = number("split", name, value, "lie in 0 <= share < 1", lambda x: 0 <= x < 1)
        return round(share * count)
    return integer("split", name, value, least=0)


def _groups(items):
    """Rows that are linked by near-copies, as lists of rows."""
    roots = list(range(len(items)))

    def root(row):
        while roots[row] != row:
            roots[row] = roots[roots[row]]
            row = roots[row]
        return row

    first: dict[tuple[int, str], int] = {}
    for row, pair in enumerate(items):
        for side, text in enumerate(pair):
            # The smaller row is the root, so that a group has the place of its first pair.
            low, high = sorted((root(row), root(first.setdefault((side, _letters(text)), row))))
            roots[high] = low
    groups: dict[int, list[int]] = {}
    for row in range(len(items)):
        groups.setdefault(root(row), []).append(row)
    return list(groups.values())


def _letters(text):
    """What near-copies have in common: letters and their marks; all of a text that has none."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c for c in text if unicodedata.category(c)[0] in "LM") or "".join(text.split())

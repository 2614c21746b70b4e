"""Alignments: which word of a translation belongs to which word of its source.

An alignment is an array of bool with a row for each word of the target and a column for each of the
source: a link where it is true. Here are the ways to make one of weights, such as those of an
attention, and to put two together that were made in opposite directions; and how good it is beside
one that is known.
"""

from typing import NamedTuple

import numpy as np

from attnc.data import tokenise


class Pair(NamedTuple):
    """A sentence and its translation, in words or in characters, of known alignment.

    Links are *sure* or *possible* (Och and Ney 2003, "A systematic comparison of various
    statistical alignment models"). All that are sure are among the possible.
    """

    source: list[str] | str
    target: list[str] | str
    sure: np.ndarray
    possible: np.ndarray


def in_words(pair):
    """Turn a pair in characters into one in words, as `tokenise` cuts them.

    A link of words is sure or possible where one of their characters is; and sure where each of the
    two words has no other possible link. Words without any are signs that both sides put between
    what they say, and may go with each other.
    """
    sides = [tokenise(text) for text in (pair.source, pair.target)]
    columns, rows = (
        # The space before the first word is none of the text.
        np.maximum(np.cumsum([0] + [len(word) for word in words[:-1]]) - 1, 0)
        for words in sides
    )
    sure, possible = (
        np.logical_or.reduceat(np.logical_or.reduceat(each, rows, axis=0), columns, axis=1)
        for each in (pair.sure, pair.possible)
    )
    alone = (possible.sum(axis=1, keepdims=True) == 1) & (possible.sum(axis=0) == 1)
    signs = ~possible.any(axis=1, keepdims=True) & ~possible.any(axis=0)
    return Pair(sides[0], sides[1], sure | possible & alone, possible | signs)


# ---- Links ---------------------------------------------------------------------------------------


def links(weights, threshold=None):
    """Make an alignment of weights, which have one more column, that stands for no word.

    Each word of the target has a link to the word of largest weight, or to none; with a threshold,
    to all words of so much weight.
    """
    words = weights.shape[1] - 1
    if threshold is not None:
        return weights[:, :words] >= threshold
    return weights.argmax(axis=1)[:, None] == np.arange(words)


HOW = ("intersection", "union", "grow-diag-final")


def symmetrise(there, back, how):
    """Make one alignment of two, from both directions of translation.

    The intersection has few links, and mostly right ones, the union many. Between them lies
    grow-diag-final (Koehn et al. 2005, "Edinburgh system description for the 2005 IWSLT speech
    translation evaluation"): from the intersection it grows into the union, from link to
    neighbouring link, diagonal ones as well, as long as a word is reached that had no link; in the
    end each word without a link gets those of either direction.
    """
    if how == "intersection":
        return there & back
    if how == "union":
        return there | back
    found, union = there & back, there | back
    rows, columns = found.any(axis=1), found.any(axis=0)  # the words that have links

    def add(t, s):
        found[t, s] = rows[t] = columns[s] = True

    grows = True
    while grows:
        grows = False
        for t, s in np.argwhere(union):  # in the order of the text, new links among them
            if found[t, s]:
                for down, right in NEIGHBOURS:
                    y, x = t + down, s + right
                    if not (0 <= y < len(rows) and 0 <= x < len(columns)):
                        continue
                    if union[y, x] and not (rows[y] and columns[x]):
                        add(y, x)
                        grows = True
    for either in (there, back):
        for t, s in np.argwhere(either):
            if not (rows[t] and columns[s]):
                add(t, s)
    return found


NEIGHBOURS = [(-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)]


# ---- How good it is ------------------------------------------------------------------------------


class Rates(NamedTuple):
    """How good alignments are; all but the error are best at 1."""

    precision: float  # of all links found, the share that is possible
    recall: float  # of all sure links, the share that is found
    crossed: float  # the same of those that cross another
    error: float  # the alignment error rate: 0 is best


def rates(found, pairs):
    """Hold alignments against the known ones of many pairs.

    The alignment error rate of Och and Ney (2003), eq. 14, of links A, sure S and possible P, is
    ``1 - (|A and S| + |A and P|) / (|A| + |S|)``.
    """
    links = sure = possible = known = crossed = crossing = 0
    for each, pair in zip(found, pairs, strict=True):
        links, known = links + each.sum(), known + pair.sure.sum()
        sure += (each & pair.sure).sum()
        possible += (each & pair.possible).sum()
        swapped = crosses(pair.sure)
        crossing, crossed = crossing + swapped.sum(), crossed + (each & swapped).sum()
    return Rates(
        float(possible / max(links, 1)),
        float(sure / max(known, 1)),
        float(crossed / max(crossing, 1)),
        float(1 - (sure + possible) / max(links + known, 1)),
    )


def crosses(links):
    """The links that cross another: of two words in the one order here, in the other there."""
    rows, columns = links.nonzero()
    order = (rows[:, None] - rows) * (columns[:, None] - columns)
    found = np.zeros_like(links)
    found[rows, columns] = (order < 0).any(axis=1)
    return found

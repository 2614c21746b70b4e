"""Matrices as text: numbers aligned at the decimal point, words aligned by the columns they take.

`aligned` makes the numbers, `lines` a matrix with words at its rows and columns, as wide as NumPy
prints arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnc.show import _words
from attnc.typing import Array

LARGE = 1e7  # from here on, numbers have an exponent
MOST_ROWS = 12  # that are printed
LONGEST = 20  # columns of a word
GAP = "  "


def aligned(matrix: Array, digits: int) -> list[list[str]]:
    """The numbers of a matrix as strings of one length, the decimal points below each other.

    As many digits are behind the point as tell the numbers apart, `digits` at most.

    Parameters
    ----------
    matrix : ndarray, shape (m, n)
    digits : int

    Returns
    -------
    list of list of str

    Examples
    --------
    >>> import numpy as np
    >>> from attnc.teaching.numbers import aligned
    >>> aligned(np.array([[0.25, -1.0, 0.00001], [10, np.nan, -np.inf]]), 4)
    [[' 0.25', '-1.00', ' 0.00'], ['10.00', '  nan', ' -inf']]
    """
    numbers = np.asarray(matrix, np.float64)
    finite = numbers[np.isfinite(numbers)]
    top = np.abs(finite).max(initial=0)
    if top < LARGE and (top == 0 or top >= 0.5 * 10.0**-digits):
        finite, code = np.round(finite, digits) + 0.0, "f"  # there is no -0
    else:
        code = "e"
    behind = digits
    texts = [f"{x:.{behind}{code}}" for x in finite]
    while behind and all(text.partition("e")[0][-1] == "0" for text in texts):
        behind -= 1
        texts = [f"{x:.{behind}{code}}" for x in finite]
    rest = iter(texts)
    every = [next(rest) if np.isfinite(x) else f"{x:g}" for x in numbers.flat]
    width = max(map(len, every), default=0)
    every = [text.rjust(width) for text in every]
    n = numbers.shape[1]
    return [every[k * n : (k + 1) * n] for k in range(len(numbers))]


def label(word: str) -> str:
    """A word in one line, and no longer than a column of a table should be."""
    return _words.shorten(_words.visible(word), LONGEST)


def picked(count: int, most: int) -> list[int | None]:
    """The numbers 0..count-1; of more than `most`, the first and the last, and None between."""
    if count <= most:
        return list(range(count))
    first = (most + 1) // 2
    return [*range(first), None, *range(count - (most - first), count)]


def lines(
    matrix: Array,
    digits: int,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    indent: int = 4,
) -> list[str]:
    """A matrix as lines of text, with words at its rows and above its columns.

    Parameters
    ----------
    matrix : ndarray, shape (m, n)
    digits : int
        As in `aligned`.
    rows, columns : sequence of str, optional
        The words, m and n of them.
    indent : int
        Spaces before each line.

    Returns
    -------
    list of str
        Rows and columns for which there is no room are left out between the first and the last.

    Examples
    --------
    >>> import numpy as np
    >>> from attnc.teaching.numbers import lines
    >>> print(*lines(np.eye(2), 4, ["the", "cat"], ["le", "chat"]), sep="\\n")
             le  chat
        the   1     0
        cat   0     1
    """
    m, n = matrix.shape
    start = " " * indent
    if not matrix.size:
        return [start + "no numbers"]
    numbers = aligned(matrix, digits)
    heads = [""] * n if columns is None else [label(word) for word in columns]
    sides = [""] * m if rows is None else [label(word) for word in rows]
    side = max(map(_words.width, sides), default=0)
    widths = [max(len(numbers[0][j]), _words.width(head)) for j, head in enumerate(heads)]
    room = int(np.get_printoptions()["linewidth"]) - indent - (side + len(GAP) if side else 0)
    most = n
    while most > 1 and _taken(widths, picked(n, most)) > room:
        most -= 1
    shown = picked(n, most)

    def line(word: str, cells: Sequence[str]) -> str:
        texts = [_words.pad(word, side)] if side else []
        for j in shown:
            texts.append("..." if j is None else _words.pad(cells[j], widths[j], "right"))
        return (start + GAP.join(texts)).rstrip()

    out: list[str] = [] if columns is None else [line("", heads)]
    for i in picked(m, MOST_ROWS):
        out.append(start + "..." if i is None else line(sides[i], numbers[i]))
    return out


def _taken(widths: list[int], shown: list[Any]) -> int:
    """The columns of a line."""
    return sum(3 if j is None else widths[j] for j in shown) + len(GAP) * (len(shown) - 1)

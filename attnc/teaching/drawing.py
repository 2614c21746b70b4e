"""The chain of matrices of a call as a picture: `Table.svg`.

Each stage is a grid of coloured cells below its name and formula; an arrow leads to the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

from attnc.show._drawing import Drawing, measure
from attnc.show._text import wrapped
from attnc.show._values import Scale, exact, hue
from attnc.teaching.numbers import aligned, label
from attnc.teaching.table import MOST, Matrix

SIDE = 22.0  # pixels of a cell
LETTERS = 11.0
SMALL = 10.0
ROOM = 1100.0  # pixels of a row of grids
GAP = 40.0  # between two of them, for the arrow
TURNED = 60  # degrees of words that are wider than their column


def draw_chain(
    title: str, entries: Sequence[tuple[str, str, Matrix]], numbers: bool, digits: int
) -> Drawing:
    """The grids of all entries, from left to right, in as many rows as they need.

    Parameters
    ----------
    title : str
    entries : sequence of (name, formula, Matrix)
    numbers : bool
        Whether numbers are written into the cells.
    digits : int
        At most so many, and two, behind the point.

    Returns
    -------
    Drawing
    """
    picture = Drawing(f"{title}: {', '.join(name for name, _, _ in entries)}")
    picture.word(2, 16, title, 14, bold=True)
    grids = [draw_stage(*entry, numbers, digits) for entry in entries]
    x, y, high = 2.0, 28.0, 0.0
    for k, grid in enumerate(grids):
        if k and x + grid.width > ROOM:
            x, y, high = 2.0, y + high + 24, 0.0
        picture.place(grid, x, y)
        high = max(high, grid.height)
        x += grid.width
        if k + 1 < len(grids):
            picture.word(x + GAP / 2, y + 15, "→", 16, anchor="middle")
        x += GAP
    return picture


def draw_stage(name: str, formula: str, matrix: Matrix, numbers: bool, digits: int) -> Drawing:
    """The grid of one stage, below its name and formula.

    Parameters
    ----------
    name, formula : str
    matrix : Matrix
    numbers : bool
    digits : int

    Returns
    -------
    Drawing
    """
    values, rows, columns, which = matrix
    shown = values[:MOST, :MOST]
    texts = [[text.strip() for text in row] for row in aligned(shown, min(digits, 2))]
    side = SIDE
    if numbers and shown.size:
        side = max(side, max(measure(text, SMALL) for row in texts for text in row) + 6)
    picture = Drawing(name)
    sides = [] if rows is None else [label(word) for word in rows[:MOST]]
    heads = [] if columns is None else [label(word) for word in columns[:MOST]]
    left = max((measure(word, LETTERS) for word in sides), default=0) + 6 * bool(sides)
    widths = [measure(word, LETTERS) for word in heads]
    if numbers and widths and max(widths) <= 64:
        side = max(side, max(widths) + 4)
    level = not widths or max(widths) <= side
    picture.word(0, 12, name, 13, bold=True)
    y = 12.0
    for line in wrapped(formula, max(int((left + side * shown.shape[1]) / 6.2), 30)):
        y += SMALL + 4
        picture.word(0, y, line, SMALL, opacity=0.85)
    if which:
        y += SMALL + 4
        picture.word(0, y, which, SMALL, opacity=0.6)
    y += 8
    if heads:
        y += LETTERS + 4 if level else 0.87 * max(widths) + 8
        for j, word in enumerate(heads):
            middle = left + (j + 0.5) * side
            if level:
                picture.word(middle, y - 4, word, LETTERS, anchor="middle")
            else:
                picture.word(middle + 3, y - 4, word, LETTERS, angle=-TURNED)
                picture.reach(middle + widths[j] / 2 + LETTERS, y)
    strengths = Scale(shown, True).strengths(shown)
    for i, cells in enumerate(texts):
        top = y + i * SIDE
        if sides:
            picture.word(left - 6, top + 0.65 * SIDE, sides[i], LETTERS, anchor="end")
        for j, text in enumerate(cells):
            strength = float(strengths[i, j])
            colour, opaque = hue(strength)
            picture.rectangle(
                left + j * side, top, side - 1, SIDE - 1, colour, opaque, hover=exact(shown[i, j])
            )
            if numbers or strength != strength:
                size = SMALL if numbers else SMALL - 3
                middle = left + (j + 0.5) * side
                picture.word(middle, top + 0.65 * SIDE, text, size, anchor="middle")
    if not shown.size:
        picture.word(0, y + LETTERS, "no numbers", SMALL, opacity=0.6)
    elif shown.shape != values.shape:
        note = f"the first {shown.shape} of {values.shape}"
        picture.word(0, y + SIDE * len(shown) + LETTERS + 2, note, SMALL, opacity=0.6)
    return picture

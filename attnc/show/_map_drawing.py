"""Maps drawn: cells, with the words beside and above them."""

from __future__ import annotations

import math

from attnc.show import _words
from attnc.show._drawing import Drawing, measure
from attnc.show._map import Map
from attnc.show._text import wrapped
from attnc.show._values import hue, short

__all__ = ["add_notes", "draw_map"]

LETTERS = 12
SMALL = 10
LONGEST = 24  # columns of a word
WIDEST = 700  # pixels of columns as wide as their words
TURNED = 60  # degrees of words that are wider than their column


def draw_map(
    drawn: Map, numbers: bool, beside: bool = True, above: bool = True, heading: float = 14
) -> Drawing:
    """A map with its title; `beside` and `above` say whether its words are written."""
    picture = Drawing(drawn.summary())
    rows, columns = drawn.values.shape
    queries = [_words.shorten(each, LONGEST) for each in drawn.queries]
    keys = [_words.shorten(each, LONGEST) for each in drawn.keys]
    count = max(rows, columns)
    side = 28.0 if count <= 16 else 20.0 if count <= 32 else 14.0
    letters = min(LETTERS, side - 3)
    cells = [[short(float(x)) for x in row] for row in drawn.values] if numbers else None
    if cells:
        widest = max(measure(text, SMALL) for row in cells for text in row)
        side = max(side, widest + 6)
    widths = [measure(key, letters) for key in keys]
    across = max(side, max(widths) + 4)
    level = across <= 64 and columns * across <= max(columns * side, WIDEST)

    across = across if level else side

    query_name, key_name = map(_words.visible, drawn.names)
    left = 2.0
    if beside:
        left = 8 + max(measure(query_name + " ↓", SMALL), *(measure(q, letters) for q in queries))
    top = 22.0 if drawn.title else 2.0
    if above:
        sine, cosine = math.sin(math.radians(TURNED)), math.cos(math.radians(TURNED))
        top += 15
        picture.word(left, top - 3, key_name + " →", SMALL, opacity=0.75)
        top += letters + 4 if level else sine * max(widths) + 4 + letters / 2
        for j, key in enumerate(keys):
            x = left + (j + 0.5) * across
            if level:
                picture.word(x, top - 4, key, letters, anchor="middle")
            else:
                picture.word(x + letters / 4, top - 4, key, letters, angle=-TURNED)
                picture.reach(x + cosine * widths[j] + letters, top)
        if beside:
            name = query_name + " ↓"
            picture.word(left - 8, top - 4, name, SMALL, anchor="end", opacity=0.75)
    if drawn.title:
        picture.word(2, 18, drawn.title, heading, bold=True)
    for i in range(rows):
        y = top + i * side
        if beside:
            picture.word(left - 6, y + side / 2 + 0.36 * letters, queries[i], letters, anchor="end")
        for j in range(columns):
            x, strength = left + j * across, float(drawn.strengths[i, j])
            colour, opaque = hue(strength)
            picture.rectangle(x, y, across - 1, side - 1, colour, opaque, hover=drawn.hover(i, j))
            odd = strength != strength
            if cells or odd:
                text = cells[i][j] if cells else short(float(drawn.values[i, j]))
                size = SMALL if cells else min(SMALL, side / 3)
                picture.word(
                    x + across / 2, y + side / 2 + 0.36 * size, text, size, anchor="middle"
                )
    return picture


def add_notes(picture: Drawing, notes: list[str]) -> Drawing:
    """Write notes below a picture, broken where they are wider than it."""
    most = max(picture.width, 240.0)
    y = picture.height + 4
    for note in notes:
        for line in wrapped(note, max(int(most / (0.62 * SMALL)), 20)):
            y += SMALL + 4
            picture.word(2, y, line, SMALL, opacity=0.75)
    return picture

"""Maps as text, for terminals and for paper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attnc.show import _words
from attnc.show._map import Map
from attnc.show._values import Scale
from attnc.typing import Array

__all__ = ["beside", "legend", "map_text", "numbers_of", "wrapped"]

BLOCKS, ASCII = " ░▒▓█", " .+x#"
LEAST = 3  # columns of a shortened key: a letter, what is left out, and one to tell from others


def map_text(
    of_size: Callable[[int, int], Map],
    width: int,
    ascii: bool,
    numbers: bool,
    most: int,
    told: bool = True,
) -> str:
    """A map in so many columns; `of_size` makes it of at most so many rows and columns.

    `told`: with what the shades are.
    """
    drawn = of_size(most, most)
    layout = _Layout(drawn, width, ascii, numbers)
    while layout.room < drawn.values.shape[1]:  # not even cells without words have room
        drawn = of_size(most, layout.room)  # means may be longer numbers, and have less room again
        layout = _Layout(drawn, width, ascii, numbers)
        told = True  # not what others beside it are
    return layout.text(told)


class _Layout:
    """Where everything stands: columns as wide as their words, less wide, or numbered."""

    def __init__(self, drawn: Map, width: int, ascii: bool, numbers: bool) -> None:
        self.drawn, self.width, self.ascii, self.numbers = drawn, width, ascii, numbers
        self.dot = "~" if ascii else "…"
        self.queries, self.keys = drawn.queries, drawn.keys
        if ascii and drawn.is_reduced:
            self.queries, self.keys = (
                [word.replace("–", "-").replace("…", "..") for word in words]
                for words in (self.queries, self.keys)
            )
        self.signed = drawn.scale.below
        self.cells = numbers_of(drawn.values, ascii) if numbers else None
        # Two columns of a terminal are about as wide as a line is high.
        self.fill = max(map(len, sum(self.cells, []))) if self.cells else 2
        self.beside = min(max(map(_words.width, self.queries)), max(width // 3, 4))
        available = width - self.beside - 1
        natural = [max(self.fill, _words.width(key)) for key in self.keys]
        self.gap, self.numbered, self.room = 1, False, len(natural)
        for most in range(max(natural), max(self.fill, min(LEAST, max(natural))) - 1, -1):
            self.widths = [min(each, most) for each in natural]
            if sum(self.widths) + len(self.widths) - 1 <= available:
                return
        # Keys are numbered, and told below; cells of one colour need no gap.
        self.numbered = True
        self.gap = int(numbers)
        self.room = max((available + self.gap) // (self.fill + self.gap), 1)
        if self.room < len(natural) and not numbers and not self.signed:
            self.fill, self.room = 1, available
        self.widths = [self.fill] * len(natural)

    def text(self, told: bool) -> str:
        drawn = self.drawn
        lines = [*self._title(), *self._header()]
        for i, query in enumerate(self.queries):
            cells = [self._cell(i, j) for j in range(len(self.keys))]
            word = _words.shorten(query, self.beside, self.dot)
            lines.append(f"{_words.pad(word, self.beside)} {(' ' * self.gap).join(cells)}")
        if self.numbered and (drawn.named or drawn.columns > 1):
            keys = ", ".join(f"{j} {key}" for j, key in enumerate(self.keys))
            lines += wrapped(f"{drawn.names[1]}: {keys}", self.width)
        if told:
            shades = legend(drawn.scale, drawn.values, self.ascii)
            lines += wrapped(shades, self.width) if not self.numbers else []
            for note in drawn.notes()[1:]:
                lines += wrapped(note, self.width)
        marked = (
            _words.MARK + line if _words.MARK in line and line[0] != _words.MARK else line
            for line in lines
        )  # the first letter of a line decides where a terminal begins it
        return "\n".join(line.rstrip() for line in marked)

    def _title(self) -> list[str]:
        title = self.drawn.title
        return wrapped(title, self.width) if title else []

    def _header(self) -> list[str]:
        before = " " * (self.beside + 1)
        gap = " " * self.gap
        if not self.numbered:
            side = "right" if self.numbers else "left"
            words = [
                _words.pad(_words.shorten(key, columns, self.dot), columns, side)
                for key, columns in zip(self.keys, self.widths, strict=True)
            ]
            return [before + gap.join(words)]
        # The digits of each number from top to bottom.
        digits = len(str(len(self.widths) - 1))
        rows = zip(*(str(j).rjust(digits) for j in range(len(self.widths))), strict=True)
        return [
            before + gap.join(d.rjust(w) for d, w in zip(row, self.widths, strict=True))
            for row in rows
        ]

    def _cell(self, i: int, j: int) -> str:
        columns = self.widths[j]
        if self.cells:
            return self.cells[i][j].rjust(columns)
        # float: comparing a float16 that is NaN warns.
        strength, value = float(self.drawn.strengths[i, j]), float(self.drawn.values[i, j])
        if strength != strength:
            name = "?" if value != value else "i" if self.ascii else "∞"
            drawn = "-" + name if value < 0 and self.fill > 1 else name
        else:
            shade = (ASCII if self.ascii else BLOCKS)[int(abs(strength) * 4 + 0.5)]
            minus = strength < 0 and shade != " "
            drawn = ("-" if minus else "") + shade * (self.fill - minus)
        return drawn.ljust(columns)


def legend(scale: Scale, values: Array, ascii: bool) -> str:
    """What the shades are."""
    shades = ASCII if ascii else BLOCKS
    ends = [f"{scale.top * (2 * k + 1) / 8:.3g}" for k in range(4)] + [f"{scale.top:.3g}"]
    parts = [f"{shades[k] if k else 'blank'} to {end}" for k, end in enumerate(ends)]
    if scale.below:
        parts.append("- where negative")
    if not np.isfinite(values).all():
        parts.append("? is NaN, " + ("i infinite" if ascii else "∞ infinite"))
    return ", ".join(parts)


def numbers_of(values: Array, ascii: bool) -> list[list[str]]:
    """All numbers with as many digits after the point, so that the points are aligned."""
    finite = values[np.isfinite(values)].astype(np.float64)
    whole = bool((finite == np.trunc(finite)).all())
    largest = float(np.abs(finite).max(initial=0))
    form = ".2f" if largest < 1e5 else ".2e"
    if whole and largest < 1e5:
        form = ".0f"

    def write(value: float) -> str:
        if value != value:
            return "nan" if ascii else "NaN"
        if not np.isfinite(value):
            return ("-" if value < 0 else "") + ("inf" if ascii else "∞")
        text = format(value, form)
        return text.lstrip("-") if not float(text) else text  # no negative zero

    return [[write(float(value)) for value in row] for row in values]


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most so many columns; words that are longer are broken."""
    lines, line = [], ""
    for word in text.split(" "):
        while _words.width(word) > width:
            head = _words.shorten(word, width, "")
            if not head:  # a letter wider than the line
                break
            lines += [line, head] if line else [head]
            word, line = word[len(head) :], ""
        longer = f"{line} {word}" if line else word
        if line and _words.width(longer) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line]


def beside(blocks: list[str], width: int) -> str:
    """Texts beside each other, as many as fit, and the others below."""
    split = [block.split("\n") for block in blocks]
    sizes = [max(map(_words.width, lines)) for lines in split]
    rows: list[list[int]] = []
    end = width + 1
    for n, size in enumerate(sizes):
        if end + 2 + size > width:
            rows.append([])
            end = -2
        rows[-1].append(n)
        end += 2 + size
    result = []
    for row in rows:
        for k in range(max(len(split[n]) for n in row)):
            parts = [split[n][k] if k < len(split[n]) else "" for n in row]
            line = "  ".join(
                part + " " * (sizes[n] - _words.width(part))
                for n, part in zip(row, parts, strict=True)
            )
            result.append(line.rstrip())
        result.append("")
    return "\n".join(result[:-1])

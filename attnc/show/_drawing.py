"""Drawings of rectangles, bands and words: laid out once, written as SVG or drawn by matplotlib.

Widths of words are estimates from above, because the font is the reader's; they are those of
DejaVu Sans, a wide one.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Any, NamedTuple

from attnc.show import _words

__all__ = ["Drawing", "measure"]

Colour = tuple[int, int, int]
HAIR = 0.5  # the width of the lines of rectangles


class _Shape(NamedTuple):
    """A polygon; (x, y) from the upper left."""

    points: tuple[tuple[float, float], ...]
    fill: Colour | None  # of letters where None and `line`
    opacity: float
    line: bool
    hover: str


class _Word(NamedTuple):
    x: float
    y: float  # of the line that letters stand on
    text: str
    size: float
    anchor: str  # start, middle or end
    angle: float  # downwards from the right
    bold: bool
    opacity: float


_NARROW, _WIDE = set("ijl.,:;'|!()[]{}/ I`"), set("mwMW@%—…+=<>~^#→↓")


def measure(text: str, size: float) -> float:
    """How wide a text is at most, in letters of this size."""
    return size * sum(map(_advance, text))


def _advance(c: str) -> float:
    if c in _NARROW:
        return 0.4
    if c in _WIDE:
        return 1.0
    if _words.width(c) == 2:
        return 1.25 if ord(c) > 0x1F000 else 1.0
    if unicodedata.category(c) in ("Mn", "Me", "Cf"):
        return 0.0
    return 0.78 if c.isupper() else 0.65


class Drawing:
    """A picture of so many pixels; larger ones when they are drawn larger.

    Parameters
    ----------
    label : str
        What it shows, for those who do not see it.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.width = self.height = 0.0
        self.items: list[_Shape | _Word] = []

    def reach(self, x: float, y: float) -> None:
        """Be at least so wide and high."""
        self.width, self.height = max(self.width, x), max(self.height, y)

    def rectangle(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colour: Colour | None,
        opacity: float = 1.0,
        *,
        line: bool = False,
        hover: str = "",
    ) -> None:
        """Fill a rectangle, or draw its edge."""
        corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
        self.polygon(corners, colour, opacity, line=line, hover=hover)

    def polygon(
        self,
        points: tuple[tuple[float, float], ...],
        colour: Colour | None,
        opacity: float = 1.0,
        *,
        line: bool = False,
        hover: str = "",
    ) -> None:
        """Fill a polygon; `line` draws its edge in the colour of letters."""
        for x, y in points:
            self.reach(x, y)
        self.items.append(_Shape(points, colour, opacity, line, hover))

    def word(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 12,
        *,
        anchor: str = "start",
        angle: float = 0,
        bold: bool = False,
        opacity: float = 1.0,
    ) -> None:
        """Write a text of one line."""
        if not angle:
            share = {"start": 1.0, "middle": 0.5, "end": 0.0}[anchor]
            self.reach(x + share * measure(text, size), y + 0.3 * size)
        self.items.append(_Word(x, y, text, size, anchor, angle, bold, opacity))

    def place(self, other: Drawing, x: float, y: float) -> None:
        """Put another drawing into this one."""
        for item in other.items:
            if isinstance(item, _Word):
                self.items.append(item._replace(x=item.x + x, y=item.y + y))
            else:
                moved = tuple((px + x, py + y) for px, py in item.points)
                self.items.append(item._replace(points=moved))
        self.reach(x + other.width, y + other.height)

    # ---- SVG ----

    def svg(self, least: float = 0.0) -> str:
        """The drawing as one SVG element; letters have the colour of the page's.

        It shrinks where the page is narrower, to no less than `least` of its width.
        """
        room = f";min-width:{_number(least * self.width)}px" if least else ""
        w, h = _number(self.width + 4), _number(self.height + 4)
        label = _words.escape(self.label)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" '
            f'viewBox="0 0 {w} {h}" role="img" aria-label="{label}" font-family="sans-serif" '
            f'style="max-width:100%;height:auto{room}"><title>{label}</title>'
        ]
        parts += [
            _svg_word(item) if isinstance(item, _Word) else _svg_shape(item) for item in self.items
        ]
        parts.append("</svg>")
        return "\n".join(parts)

    # ---- matplotlib ----

    def figure(self, heading: str = "") -> Any:
        """The same as a figure of matplotlib, black on white; `heading` stands above it."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.patches import Polygon

        from attnc import _pictures

        if heading:
            whole = Drawing(self.label)
            whole.word(2, 14, heading, 11)
            whole.place(self, 0, 20)
            return whole.figure()
        right, bottom = self.width + 4, self.height + 4
        words = [item for item in self.items if isinstance(item, _Word)]
        write = _pictures.Writer([item.text for item in words])
        # What no font has is written as code points, which take more room.
        left = top = 0.0
        for word in words:
            text = write.label(word.text)
            if text != word.text:
                begin, high, end = _extent(word, text)
                left, top, right = min(left, begin - 2), min(top, high), max(right, end)
        figure = Figure(figsize=((right - left) / 72, (bottom - top) / 72), dpi=100)
        FigureCanvasAgg(figure)
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(left, right), ylim=(bottom, top))
        ax.set_axis_off()
        for item in self.items:
            if isinstance(item, _Word):
                ax.text(
                    item.x,
                    item.y,
                    write.label(item.text),
                    fontsize=item.size,
                    ha={"start": "left", "middle": "center", "end": "right"}[item.anchor],
                    va="baseline",
                    rotation=-item.angle,
                    rotation_mode="anchor",
                    weight="bold" if item.bold else "normal",
                    alpha=item.opacity,
                    **write.font,
                )
            else:
                colour = item.fill and tuple(part / 255 for part in item.fill)
                ax.add_patch(
                    Polygon(
                        item.points,
                        facecolor=(*colour, item.opacity) if colour else "none",
                        edgecolor="black" if item.line else "none",
                        linewidth=HAIR,
                    )
                )
        return figure


def _extent(item: _Word, text: str) -> tuple[float, float, float]:
    """Where a word begins, how high it reaches and where it ends; if turned, then upwards."""
    long = measure(text, item.size)
    if item.angle:
        turn = math.radians(-item.angle)
        return item.x, item.y - math.sin(turn) * long - item.size, item.x + math.cos(turn) * long
    begin = item.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[item.anchor] * long
    return begin, item.y - item.size, begin + long


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _svg_shape(item: _Shape) -> str:
    (x, y), *_, (_, bottom) = item.points
    right = item.points[1][0]
    fill = "none" if item.fill is None else "rgb({},{},{})".format(*item.fill)
    style = f'fill="{fill}"'
    if item.fill is not None and item.opacity < 1:
        style += f' fill-opacity="{item.opacity:g}"'
    if item.line:
        style += f' stroke="currentColor" stroke-width="{HAIR}" stroke-opacity="0.6"'
    if item.points == ((x, y), (right, y), (right, bottom), (x, bottom)):
        place = (
            f'rect x="{_number(x)}" y="{_number(y)}" width="{_number(right - x)}" '
            f'height="{_number(bottom - y)}"'
        )
    else:
        points = " ".join(f"{_number(px)},{_number(py)}" for px, py in item.points)
        place = f'polygon points="{points}"'
    if not item.hover:
        return f"<{place} {style}/>"
    name = place.partition(" ")[0]
    return f"<{place} {style}><title>{_words.escape(item.hover)}</title></{name}>"


def _svg_word(item: _Word) -> str:
    x, y = _number(item.x), _number(item.y)
    style = f'x="{x}" y="{y}" font-size="{_number(item.size)}" fill="currentColor"'
    if item.anchor != "start":
        style += f' text-anchor="{item.anchor}"'
    if item.angle:
        style += f' transform="rotate({_number(item.angle)} {x} {y})"'
    if item.bold:
        style += ' font-weight="bold"'
    if item.opacity < 1:
        style += f' fill-opacity="{item.opacity:g}"'
    direction = ";unicode-bidi:plaintext" if _words.leftwards(item.text) else ""
    return f'<text {style} style="white-space:pre{direction}">{_words.escape(item.text)}</text>'

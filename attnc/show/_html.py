"""Maps as HTML: a table with its style in each element, so that none of it leaks out.

It holds neither scripts nor anything from elsewhere, and what notebooks leave of it before they
trust their author (JupyterLab's list of properties) still shows the colours.
"""

from __future__ import annotations

from attnc.show import _words
from attnc.show._map import Map
from attnc.show._values import hue, short

__all__ = ["document", "group", "map_table", "rgba", "said"]

LONGEST = 24  # columns of a word beside its row
ROOM = 900  # pixels for words above columns, side by side
_PLAIN = "background:transparent;border:none;color:inherit"


def rgba(strength: float) -> str:
    """The colour of a strength."""
    (red, green, blue), opaque = hue(strength)
    return f"rgba({red},{green},{blue},{opaque:g})"


def map_table(drawn: Map, numbers: bool, notes: bool = True) -> str:
    """A map as one table, and what is to be said of it."""
    count = max(drawn.values.shape)
    side, letters = (26, 13) if count <= 16 else (18, 11) if count <= 32 else (11, 9)
    if numbers:
        side, letters = max(side, 18), 11
    keys = [_words.shorten(key, LONGEST) for key in drawn.keys]
    sizes = [max(0.62 * letters * _words.width(key) + 6, side) for key in keys]
    upright = max(sizes) <= max(4 * side, 90) and sum(sizes) <= ROOM
    query_name, key_name = drawn.names
    plain = f"{_PLAIN};font-weight:normal;font-size:{letters}px;line-height:1.15"
    corner = _words.escape(f"{query_name} ↓ {key_name} →")
    rows = [
        f'<tr style="{_PLAIN}"><td style="{plain};padding:0 6px 2px 0;text-align:right;'
        f'vertical-align:bottom;opacity:0.75">{corner}</td>'
        + "".join(
            _above(key, full, upright, plain) for key, full in zip(keys, drawn.keys, strict=True)
        )
        + "</tr>"
    ]
    for i, query in enumerate(drawn.queries):
        word = _words.escape(_words.shorten(query, LONGEST))
        cells = "".join(_cell(drawn, i, j, numbers) for j in range(len(keys)))
        rows.append(
            f'<tr style="{_PLAIN}"><th scope="row" dir="auto" title="{_words.escape(query)}" '
            f'style="{plain};padding:0 6px 0 0;text-align:right;white-space:pre;height:{side}px">'
            f"{word}</th>{cells}</tr>"
        )
    columns = f'<col><col span="{len(keys)}" style="width:{side}px">'
    title = _words.escape(drawn.title)
    caption = (
        '<caption dir="auto" style="caption-side:top;text-align:left;color:inherit;'
        f'font-weight:bold;padding:0 0 4px 0">{title}</caption>'
    )
    return (
        '<div style="overflow-x:auto;color:inherit">'
        f'<table aria-label="{_words.escape(drawn.summary())}" '
        'style="border-collapse:separate;border-spacing:1px;border:none;margin:4px 0;'
        f"width:auto;table-layout:auto;background:transparent;color:inherit;font-family:sans-serif;"
        f'font-size:{letters}px">'
        f"{caption if title else ''}"
        f"<colgroup>{columns}</colgroup><tbody>{''.join(rows)}</tbody></table>"
        f"{said(drawn.notes()) if notes else ''}</div>"
    )


def said(notes: list[str]) -> str:
    """What is to be said below a picture."""
    lines = "<br>".join(map(_words.escape, notes))
    style = "font-family:sans-serif;font-size:11px;opacity:0.75;margin:0 0 6px 0"
    return f'<div style="{style}">{lines}</div>'


def _above(key: str, full: str, upright: bool, plain: str) -> str:
    """The word above a column: level where there is room, or else from bottom to top."""
    word, title = _words.escape(key), _words.escape(full)
    style = f"{plain};padding:0 2px 2px 2px;text-align:center;vertical-align:bottom;white-space:pre"
    pieces = list(_words.clusters(key))
    if not upright and len(pieces) > 1:  # what is one letter has room in its column
        # Chinese words are written downwards, others are turned, with the emoji in them.
        wide = sum(_words.width(piece) > 1 for piece in pieces)
        turn = "text-orientation:sideways;transform:rotate(180deg);" * (2 * wide <= len(pieces))
        inner = f"writing-mode:vertical-rl;{turn}display:inline-block"
        word = f'<span dir="auto" style="{inner}">{word}</span>'
    return f'<th scope="col" dir="auto" title="{title}" style="{style}">{word}</th>'


def _cell(drawn: Map, i: int, j: int, numbers: bool) -> str:
    strength = float(drawn.strengths[i, j])
    title = _words.escape(drawn.hover(i, j))
    odd = strength != strength
    text = _words.escape(short(float(drawn.values[i, j]))) if numbers or odd else ""
    style = f"background:{rgba(strength)};padding:0"
    if text:
        style += ";text-align:center;color:inherit;padding:0 3px;white-space:nowrap;font-size:" + (
            "11px" if numbers else "8px"
        )
    return f'<td title="{title}" style="{style};border:none">{text}</td>'


def group(parts: list[str], title: str, label: str, notes: list[str]) -> str:
    """Several maps side by side, below each other where there is no room."""
    head = f'<div style="font-weight:bold" dir="auto">{_words.escape(title)}</div>' if title else ""
    cells = "".join(
        f'<div style="display:inline-block;vertical-align:top;margin:0 16px 8px 0;max-width:100%">'
        f"{part}</div>"
        for part in parts
    )
    return (
        f'<div role="group" aria-label="{_words.escape(label)}" '
        f'style="font-family:sans-serif;color:inherit">{head}{cells}{said(notes)}</div>'
    )


def document(body: str, title: str, style: str = "") -> str:
    """A whole page, in light or dark as the reader has it."""
    return (
        '<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_words.escape(title)}</title>\n"
        f"<style>:root {{ color-scheme: light dark; }} body {{ font-family: sans-serif; }}{style}"
        f"</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )

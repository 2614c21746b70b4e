"""How a puzzle draws its arrays: small grids of numbers, as text and as HTML without a script."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from attnc.typing import Array

__all__ = ["inline", "markup", "text"]


def _number(x: Any) -> str:
    """One entry in few characters."""
    if isinstance(x, (bool, np.bool_)):
        return "#" if x else "."
    if isinstance(x, (int, np.integer)):
        return str(x)
    if not np.isfinite(x):
        return str(float(x))
    shown = f"{float(x) + 0:.2f}".replace("-0.00", "0.00")
    return shown.rstrip("0").rstrip(".") if shown.endswith("0") else shown


def inline(x: Any) -> str:
    """A value in one line.

    Parameters
    ----------
    x : object

    Returns
    -------
    str
        Such as ``[[1 0.5] [0 -inf]]``; long arrays are cut.
    """
    if not isinstance(x, np.ndarray):
        return f"{x:.6g}" if isinstance(x, float) else str(x)
    if x.dtype.kind not in "biuf":
        return f"an array of {x.dtype}"
    if x.size > 60:
        return f"array {x.shape}"
    with np.errstate(all="ignore"):
        if x.dtype.kind == "f":
            x = np.where(np.abs(x) < 5e-5, 0, x)  # no -0
        shown = np.array2string(
            x,
            precision=4,
            suppress_small=True,
            max_line_width=10**6,
            formatter={"bool": lambda b: "True" if b else "False"},
        )
    return " ".join(shown.split()).replace("[ ", "[")


def _panels(name: str, x: Any) -> list[tuple[str, Array]]:
    """Matrices to draw, each with a caption."""
    x = np.asarray(x)
    if x.ndim <= 2:
        return [(f"{name} {x.shape}" if x.ndim else name, np.atleast_2d(x))]
    flat = x.reshape(-1, *x.shape[-2:])
    indices = [", ".join(map(str, i)) for i in np.ndindex(*x.shape[:-2])]
    panels = [(f"{name}[{i}]", m) for i, m in zip(indices, flat, strict=True)]
    return [
        (f"{caption} {x.shape}" * (not k) or caption, m) for k, (caption, m) in enumerate(panels)
    ]


def text(arrays: dict[str, Any]) -> str:
    """Arrays as lines of text; ``#`` is True and ``.`` is False.

    Parameters
    ----------
    arrays : dict

    Returns
    -------
    str
    """
    lines = []
    for name, value in arrays.items():
        for caption, matrix in _panels(name, value):
            cells = [[_number(x) for x in row] for row in matrix]
            width = max((len(c) for row in cells for c in row), default=0)
            rows = ["  ".join(c.rjust(width) for c in row) for row in cells]
            key = ", # is True" if matrix.dtype == bool else ""
            lines += [f"    {caption}{key}", *[f"        {row}".rstrip() for row in rows]]
    return "\n".join(lines)


def _colour(x: Any, largest: float) -> str:
    """Blue above 0, orange below, paler towards 0; grey what is not finite. Of True dark blue."""
    if isinstance(x, (bool, np.bool_)):
        return "background:#2b6cb0;color:#fff" if x else "background:#eef1f5;color:#555"
    if not np.isfinite(x):
        return "background:#bbb;color:#222"
    part = min(abs(float(x)) / largest, 1.0) if largest else 0.0
    r, g, b = (43, 108, 176) if x >= 0 else (221, 107, 32)
    mixed = [round(255 + (c - 255) * part) for c in (r, g, b)]
    ink = "#fff" if part > 0.6 else "#222"
    return f"background:rgb({mixed[0]},{mixed[1]},{mixed[2]});color:{ink}"


def markup(arrays: dict[str, Any]) -> str:
    """Arrays as coloured tables side by side; the exact numbers are in titles.

    Parameters
    ----------
    arrays : dict

    Returns
    -------
    str
        HTML without a script, and with all of its style inline.
    """
    parts = []
    for name, value in arrays.items():
        numbers = np.asarray(value)
        finite = numbers[np.isfinite(numbers)] if numbers.dtype.kind in "fiu" else np.array([])
        largest = float(np.abs(finite).max(initial=0))
        for caption, matrix in _panels(name, value):
            rows = "".join(
                "<tr>" + "".join(_cell(x, largest) for x in row) + "</tr>" for row in matrix
            )
            parts.append(
                "<table style='display:inline-table;border-collapse:collapse;margin:0 1em 1em 0;"
                "vertical-align:middle'><caption style='white-space:nowrap'>"
                f"{html.escape(caption)}</caption>{rows}</table>"
            )
    return "".join(parts)


def _cell(x: Any, largest: float) -> str:
    style = "border:1px solid #fff;padding:2px 5px;min-width:1.6em;text-align:center;font-size:85%;"
    shown = ("1" if x else "0") if isinstance(x, np.bool_) else _number(x)
    return f"<td style='{style}{_colour(x, largest)}' title='{x}'>{shown}</td>"

"""Windows that slide over images: what convolution and pooling read.

One of (kh, kw) pixels begins at every stride-th row and column, as long as it lies within the
image. The pixels that have the same place in all windows are a strided view of the image: nothing
is copied to read them, and what is added to the view goes back to the image.
Defines: `sides`, `pair`, `count_windows`, `window_views`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from ..arrays import integer
from ..typing import Array
from .base import Layer

# One number for rows and columns, or one for each.
Sides: TypeAlias = int | tuple[int, int]


def sides(layer: Layer, name: str, value: Sides, least: int) -> Sides:
    """`value` as an int or a pair of ints, each at least `least`."""
    where = type(layer).__name__
    given = value if isinstance(value, tuple | list) else (value, value)
    try:
        rows, columns = (integer(where, name, side, least) for side in given)
    except (TypeError, ValueError):
        raise layer._error(
            f"{name} must be an integer of at least {least} or a pair of them, got {value!r}"
        ) from None
    return (rows, columns) if given is value else rows


def pair(value: Sides) -> tuple[int, int]:
    """(of rows, of columns)."""
    return value if isinstance(value, tuple) else (value, value)


def count_windows(
    layer: Layer,
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int] = (0, 0),
) -> tuple[int, int]:
    """How many windows there are from top to bottom and from left to right."""
    free = [n + 2 * p - k for n, p, k in zip(image, padding, kernel, strict=True)]
    if min(free) < 0:
        padded = f" padded by {padding}" if any(padding) else ""
        raise layer._error(f"x must have images of at least {kernel} pixels, got {image}{padded}")
    rows, columns = (n // step + 1 for n, step in zip(free, stride, strict=True))
    return rows, columns


def window_views(
    x: Array, kernel: tuple[int, int], stride: tuple[int, int], count: tuple[int, int]
) -> Iterator[Array]:
    """For each pixel of a window, row by row, that pixel of all windows: (..., rows, columns)."""
    last = [step * (n - 1) + 1 for step, n in zip(stride, count, strict=True)]
    for row, column in np.ndindex(*kernel):
        yield x[..., row : row + last[0] : stride[0], column : column + last[1] : stride[1]]

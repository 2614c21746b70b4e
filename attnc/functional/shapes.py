"""What functions return, from the shapes of what they take: the arithmetic of `Record.outputs`.

Sizes may be symbols, as compilers have them: nothing here compares two sizes, or asks whether one
is 0. Of two that have to be equal either will do, and the number 1 is known by its type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc.registry import Output

__all__ = ["broadcast", "number_alone", "same_shape", "shape_of"]


def shape_of(array: Any) -> tuple[Any, ...]:
    """The shape of an array, of which nothing else is asked, or of nested lists.

    Parameters
    ----------
    array : array_like

    Returns
    -------
    tuple
    """
    shape = getattr(array, "shape", None)
    return np.shape(array) if shape is None else tuple(shape)


def broadcast(*shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """What shapes of one length broadcast to, where each axis has one size or 1.

    Parameters
    ----------
    *shapes : tuple

    Returns
    -------
    tuple
    """
    return tuple(
        next((size for size in sizes if not (isinstance(size, int) and size == 1)), 1)
        for sizes in zip(*shapes, strict=False)  # that they have one length is checked elsewhere
    )


def same_shape(array: Any, *others: Any, **options: Any) -> Output:
    """The outputs of a function whose result has the shape of its first array.

    Parameters
    ----------
    array : array_like
    *others, **options
        Of no importance.

    Returns
    -------
    Output
    """
    return Output(shape_of(array))


def number_alone(*arrays: Any, **options: Any) -> Output:
    """The outputs of a function that returns one number.

    Parameters
    ----------
    *arrays, **options
        Of no importance.

    Returns
    -------
    Output
    """
    return Output((), "computed")

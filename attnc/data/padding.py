"""Sequences of different lengths in one array."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from attnc.arrays import flag, integer, number, plain_array, real_array
from attnc.data.checks import listed, ordered, short
from attnc.typing import Array, DType, Real

__all__ = ["pad"]


def pad(
    sequences: Iterable[Real], *, padding: float = 0, dtype: DType | None = None
) -> tuple[Array, Array]:
    """Put sequences of different lengths into one array.

    Parameters
    ----------
    sequences : iterable of array_like, shapes (T_i, ...)
        At least one; axes after the first must be equal, so lists of numbers and of feature vectors
        both work. Real, or all boolean.
    padding : number or bool
        What fills the rest of a short sequence; one that `dtype` can hold.
    dtype : dtype, optional
        Of the array; the common dtype of the sequences unless given. Integers must fit it
        unchanged; floats may be rounded to it.

    Returns
    -------
    array : ndarray, shape (N, max T_i, ...)
        Sequence i is in ``array[i, :lengths[i]]``.
    lengths : ndarray of intp, shape (N,)
        What the layers take as ``lengths=`` and the attention functions as ``key_lengths=``.

    Raises
    ------
    TypeError
        If a sequence is neither real nor boolean, or is masked, ragged or a tensor of another
        library; if the sequences have no common dtype that holds them; or if `padding` or `dtype`
        is of another kind than the sequences, as floats are among integers.
    ValueError
        If there is no sequence, if one has no axis or the axes after the first differ, or if a
        number does not fit `dtype`.

    Examples
    --------
    >>> array, lengths = pad([[5, 6, 7], [8]])
    >>> array
    array([[5, 6, 7],
           [8, 0, 0]])
    >>> lengths
    array([3, 1])
    """
    items = ordered("pad", "sequences", sequences)
    rows = [_row(f"sequences[{i}]", item) for i, item in enumerate(items)]
    if not rows:
        raise ValueError("pad: sequences must hold at least one sequence, got none")
    # An empty list says nothing of the axes after the first.
    shapes = {row.shape[1:] for row in rows if row.shape != (0,)} or {()}
    if len(shapes) > 1:
        listed = ", ".join(str(row.shape) for row in rows[:5]) + ", ..." * (len(rows) > 5)
        raise ValueError(f"pad: sequences must have equal axes after the first, got {listed}")
    lengths = np.array([len(row) for row in rows], dtype=np.intp)
    if dtype is None:
        dtype = _common_dtype(items, rows)
    else:
        dtype = _checked_dtype(dtype)
    padding = _padding(padding, dtype)
    array = np.full((len(rows), lengths.max(), *shapes.pop()), padding, dtype=dtype)
    for i, row in enumerate(rows):
        if row.size:
            array[i, : len(row)] = _converted(f"sequences[{i}]", row, dtype)
    return array, lengths


def _row(name, item):
    """One sequence as an array of numbers or of bools."""
    item = listed(item)
    row = plain_array("pad", name, item)
    if row.dtype.kind != "b":
        row = real_array("pad", name, item)
    if row.ndim == 0:
        raise ValueError(
            f"pad: {name} must have an axis (T, ...), got {short(item)} "
            "(one sequence alone is [sequence])"
        )
    return row


def _common_dtype(items, rows):
    """The dtype that holds the numbers of all rows."""
    # An empty list has no type of its own, and would make integers into floats.
    dtypes = {row.dtype for row in rows if row.size}
    dtypes = dtypes or {item.dtype for item in items if isinstance(item, np.ndarray)}
    if not dtypes:
        return np.dtype(np.intp)
    kinds = {dtype.kind for dtype in dtypes}
    try:
        common = np.result_type(*dtypes)
    except TypeError:  # bfloat16 and float16, for one
        common = None
    mixed = "b" in kinds and len(kinds) > 1
    if common is None or mixed or kinds <= set("iu") and common.kind not in "iu":
        listed = ", ".join(sorted(map(str, dtypes)))
        raise TypeError(
            f"pad: sequences must have a common dtype, got {listed} (convert them, or pass dtype=)"
        )
    return common.newbyteorder("=")


def _checked_dtype(dtype):
    """`dtype`, of numbers or bools."""
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"pad: dtype must be a dtype, got {dtype!r}") from None
    if dtype.kind != "b":
        real_array("pad", "dtype", np.empty(0, dtype))
    return dtype


def _padding(padding, dtype):
    """`padding` as a number that `dtype` holds."""
    if dtype.kind == "b":
        return False if type(padding) is int and padding == 0 else flag("pad", "padding", padding)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return integer("pad", "padding", padding, int(limits.min), int(limits.max))
    value = number("pad", "padding", padding, "be a number", lambda value: True)
    with np.errstate(all="ignore"):
        held = float(np.asarray(value).astype(dtype))
    whole = isinstance(padding, int) or getattr(padding, "dtype", dtype).kind in "iu"
    if np.isinf(held) and (whole or not np.isinf(value)) or whole and int(held) != int(padding):
        raise ValueError(f"pad: padding must fit dtype {dtype}, got {padding}")
    return value


# How many binary digits a float has: it holds every integer of no more.
DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}


def _converted(name, array, dtype):
    """`array` in `dtype`, where that loses nothing but digits of a float."""
    if array.dtype == dtype:
        return array
    was, to = array.dtype.kind, dtype.kind
    if (was == "b") != (to == "b") or to in "iu" and was not in "iu":
        raise TypeError(f"pad: {name} must fit dtype {dtype}, got {array.dtype} (use .astype())")
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
        if to in "iu":
            limits = np.iinfo(dtype)
            lost = [x for x in (array.min(), array.max()) if not limits.min <= int(x) <= limits.max]
        elif was in "iu":
            lowest_bit = np.where(array == 0, 1, array & (~array + 1))
            odd = array // lowest_bit.astype(
                array.dtype
            )  # all its digits, without zeros at the end
            held = (odd < 2 ** DIGITS[dtype.name]) & (odd > -(2 ** DIGITS[dtype.name]))
            lost = array[~(held & np.isfinite(converted))]
        else:
            lost = array[np.isinf(converted) & ~np.isinf(array)]
    if len(lost):
        raise ValueError(f"pad: {name} must fit dtype {dtype}, got {lost[0]}")
    return converted

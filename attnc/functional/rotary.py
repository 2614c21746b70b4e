"""Rotary positions: queries and keys turned by angles that grow with their positions, so that their
dot products know of positions by differences alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attnc import _core
from attnc.arrays import (
    broadcasts,
    computing_dtype,
    flag,
    integer,
    integer_array,
    like,
    number,
    quiet,
    real_array,
)
from attnc.functional.shapes import same_shape
from attnc.registry import register
from attnc.typing import Array, Integers, Real

__all__ = ["rotary"]


def rotary(
    x: Real,
    position: Real | None = None,
    *,
    base: float = 10000.0,
    interleaved: bool = False,
    offset: Integers = 0,
) -> Array:
    """Turn pairs of channels by angles that grow with the position: rotary position embedding.

    Parameters
    ----------
    x : array_like
        ``(..., T, D)`` with an even D: queries or keys, before their dot product.
    position : array of int or float, optional
        ``(T,)``, or ``(..., T)`` with every axis of `x` but the last, where axes of size 1
        broadcast; default ``0 .. T - 1``. Has no gradient.
    base : float, default 10000.0
        The wave lengths of the pairs lie between 2 pi and ``2 pi base``.
    interleaved : bool, default False
        Pair channels ``2 k`` and ``2 k + 1``, as the paper does; else ``k`` and ``D / 2 + k``, as
        the weights of LLaMA and GPT-NeoX in the layout of Hugging Face need it.
    offset : int or array of int, default 0
        Added to the positions: how many tokens there are before these, as in a cache. ``(...,)``,
        with every axis of `x` but the last two, where axes of size 1 broadcast.

    Returns
    -------
    ndarray
        ``(..., T, D)`` in the dtype of `x`; of integers and lists float64.

    Raises
    ------
    TypeError
        If `x` or `position` is not real, `offset` not of integers.
    ValueError
        If D is odd, shapes do not fit, or `base` is not a finite number above 0.

    See Also
    --------
    attnc.vjp : the gradient: the rotation back

    Notes
    -----
    Pair k at position p turns by the angle ``p * base ** (-2 k / D)``: Su et al. 2021, "RoFormer:
    enhanced transformer with rotary position embedding", eq. 34. The dot product of a query at p
    and a key at r depends on p - r alone. Angles are computed in float64, also those of float32
    arrays: at position 10^6 one of float32 would be off by 0.03. float16 and bfloat16 are computed
    in float32.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.rotary([[1.0, 0.0], [1.0, 0.0]]).round(4)
    array([[1.    , 0.    ],
           [0.5403, 0.8415]])
    """
    return _forward(x, position, base=base, interleaved=interleaved, offset=offset)[0]


def _forward(x, position=None, *, base=10000.0, interleaved=False, offset=0):
    x = real_array("rotary", "x", x)
    if x.ndim < 2 or x.shape[-1] % 2:
        raise ValueError(
            "rotary: x must have at least 2 axes (time, feature) and an even number of features, "
            f"got shape {x.shape}"
        )
    if x.dtype.kind in "iu":
        x = x.astype(np.float64)
    base = number("rotary", "base", base, "be a finite number above 0", _is_base)
    interleaved = flag("rotary", "interleaved", interleaved)
    angles = base, x.shape[-1], computing_dtype((x,))
    if position is None and not isinstance(offset, np.ndarray | list | tuple):
        first = integer("rotary", "offset", offset, -MOST_OFFSET, MOST_OFFSET)
        table = _consecutive(*angles, first, x.shape[-2])
    else:
        table = _scattered(*angles, _positions(x.shape, position, offset))
    return _core.rotary(x, table, interleaved, False), (table,), (interleaved, x.shape, x.dtype)


def _backward(saved, static, dy):
    # In the forward pass pairs were turned by an angle, so their gradients are turned back by it.
    (table,), (interleaved, shape, dtype) = saved, static
    dy = real_array("rotary", "dy", dy)
    if dy.dtype.kind in "iu":
        raise TypeError(f"rotary: dy must have a float dtype, got dtype {dy.dtype}")
    if dy.shape != shape:
        raise ValueError(f"rotary: dy must have the shape of its output, {shape}, got {dy.shape}")
    if dy.dtype != dtype:
        dy = _cast(dy, table.dtype)
    return (like(_core.rotary(dy, table, interleaved, True), np.empty(0, dtype)),)


@quiet
def _cast(x, dtype):
    return x.astype(dtype)


def _is_base(base):
    return 0 < base < math.inf


def _jvp(tangents, x, *arrays, **options):
    """It is linear in x."""
    y, *_ = _forward(x, *arrays, **options)
    if tangents.get("x") is None:
        return y, np.zeros_like(y)
    return y, like(_forward(tangents["x"], *arrays, **options)[0], y)


def _jvp_jvp(tangents, others, x, *arrays, **options):
    return np.zeros_like(_forward(x, *arrays, **options)[0])


def _backward_jvp(tangents, incoming, dincoming, *arrays, **options):
    """Gradients do not depend on x: their change is that of the incoming gradient, turned back."""
    y, *kept = _forward(*arrays, **options)
    if dincoming[0] is None:
        return (np.zeros_like(y),)
    return _backward(*kept, dincoming[0])


register(
    rotary,
    required=("x",),
    incoming=("dy",),
    forward=_forward,
    backward=_backward,
    outputs=same_shape,
    fixed=("position", "offset"),
    leading=("x", "position", "offset"),
    jvp=_jvp,
    backward_jvp=_backward_jvp,
    jvp_jvp=_jvp_jvp,
)

# ---- positions and their angles ------------------------------------------------------------------

MOST_OFFSET = 2**53  # up to here every integer is a float64


def _positions(shape, position, offset):
    """position + offset, (T,) or with as many axes as x has but for the last."""
    lead, T = shape[:-2], shape[-2]
    offset = integer_array("rotary", "offset", offset)
    if offset.ndim and not broadcasts(offset.shape, lead):
        raise ValueError(
            f"rotary: offset must be an integer or have shape {lead}, one axis for each leading "
            f"axis of x, equal or 1, got {offset.shape}"
        )
    if position is None:
        position = np.arange(T)
    else:
        position = real_array("rotary", "position", position)
        if position.shape != (T,) and not broadcasts(position.shape, (*lead, T)):
            raise ValueError(
                f"rotary: position must have shape ({T},) or {(*lead, T)}, one axis for each axis "
                f"of x but the last, equal or 1, got {position.shape}"
            )
    return position.astype(np.float64) + offset.astype(np.float64)[..., None]


# Cosines and sines of the positions from 0 on, by base, D and dtype. An array, once here, is never
# written to, and a longer one takes its place, so threads may read and add at any time.
_tables: dict[tuple[Any, ...], Array] = {}
KEPT_TABLES = 8
KEPT_BYTES = 1 << 24  # of a table at most: 65,536 positions of 64 channels in float32
FIRST_POSITIONS = 512


def _consecutive(base, D, dtype, first, T):
    """The rows of positions first .. first + T - 1."""
    key, end = (base, D, dtype), first + T
    known = _tables.get(key)
    if known is None or first < 0 or end > len(known):
        longest = KEPT_BYTES // (max(D, 1) * dtype.itemsize)
        if first < 0 or end > longest:
            return _table(base, D, dtype, np.arange(T) + float(first))
        length = min(max(FIRST_POSITIONS, 1 << (end - 1).bit_length()), longest)
        known = _table(base, D, dtype, np.arange(length, dtype=np.float64))
        if len(_tables) >= KEPT_TABLES:
            _tables.clear()
        _tables[key] = known
    return known[first:end]


def _scattered(base, D, dtype, position):
    """The rows of any positions: taken from those that are kept, where these are in use."""
    most = position.max(initial=0)
    if position.min(initial=0) < 0 or not most < len(_tables.get((base, D, dtype), ())):
        return _table(base, D, dtype, position)
    index = position.astype(np.intp)
    if (index != position).any():
        return _table(base, D, dtype, position)
    return _consecutive(base, D, dtype, 0, int(most) + 1)[index]


@quiet
def _table(base, D, dtype, position):
    """(..., D): the cosines of the D / 2 angles of each position, and their sines."""
    frequency = base ** (np.arange(0, D, 2) / -max(D, 1))
    angle = position[..., None] * frequency
    table = np.empty((*position.shape, D), dtype)
    table[..., : D // 2] = np.cos(angle)
    table[..., D // 2 :] = np.sin(angle)
    return table

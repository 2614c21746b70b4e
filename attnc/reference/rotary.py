"""Rotary positions in plain NumPy: the formula of the paper, and its gradient.

Pair k of the channels of a row at position p, as a complex number, is multiplied by exp(i p w_k):

    z_k  = a_k + i b_k              w_k = base ** (-2 k / D)
    z'_k = exp(i p w_k) z_k
    dz_k = exp(-i p w_k) dz'_k      the rotation back

Su et al. 2021, "RoFormer: enhanced transformer with rotary position embedding", eq. 13 and 15.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc.reference.attention import Gradients, differentiable
from attnc.typing import Integers, Real

__all__ = ["rotary"]


@differentiable
def rotary(
    x: Real,
    position: Real | None = None,
    *,
    base: float = 10000.0,
    interleaved: bool = False,
    offset: Integers = 0,
    dtype: Any = np.float64,
) -> Any:
    """Turn pairs of channels by angles that grow with the position: Su et al. 2021.

    Parameters
    ----------
    x : array (..., T, D)
        D is even.
    position : array (T,) or (..., T), optional
        0 .. T - 1 unless given.
    base : float
    interleaved : bool
        Channels 2 k and 2 k + 1 are a pair, else k and D / 2 + k.
    offset : int or array (...)
        Added to the positions.
    dtype : type
        What to compute in; angles are float64 at least.

    Returns
    -------
    array (..., T, D)
    """
    x = np.asarray(x, dtype)
    T, D = x.shape[-2:]
    p = np.arange(T) if position is None else np.asarray(position)
    p = p + np.asarray(offset, np.float64)[..., None]
    w = float(base) ** (-np.arange(0, D, 2) / max(D, 1))
    angle = p[..., None] * w  # (..., T, D / 2)
    turn = (np.cos(angle).astype(dtype), np.sin(angle).astype(dtype))
    first = np.arange(D // 2) * 2 if interleaved else np.arange(D // 2)
    second = first + 1 if interleaved else first + D // 2

    def turned(x, sign):
        a, b, (c, s) = x[..., first], x[..., second], turn
        y = np.empty(x.shape, dtype)
        y[..., first] = a * c - sign * b * s
        y[..., second] = b * c + sign * a * s
        return y

    def pullback(dy):
        return Gradients({"x": turned(np.asarray(dy, dtype), -1)}, {"x": x})

    return turned(x, 1), pullback

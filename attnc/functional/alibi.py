"""Slopes for attention with a linear bias of distance, the option ``slope``."""

from __future__ import annotations

import numpy as np

from attnc.arrays import integer
from attnc.typing import Array

__all__ = ["alibi_slopes"]


def alibi_slopes(num_heads: int) -> Array:
    """The slopes of the heads in attention with linear biases (ALiBi).

    Parameters
    ----------
    num_heads : int
        H.

    Returns
    -------
    ndarray
        ``(H,)`` in float64, for the option `slope` of the attention functions. That has all leading
        axes: with arrays ``(B, H, T, D)`` it is ``slope=alibi_slopes(H)[None]``.

    Raises
    ------
    TypeError
        If `num_heads` is not an integer.
    ValueError
        If it is below 1.

    Notes
    -----
    For H a power of two the slopes are ``2 ** (-8 k / H)`` for k = 1 .. H: Press et al. 2022,
    "Train short, test long: attention with linear biases enables input length extrapolation",
    section 3.
    For other H the authors' code takes those of n heads, n the power of two below H, and then every
    second one of 2 n heads, from the first on.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.alibi_slopes(4)
    array([0.25      , 0.0625    , 0.015625  , 0.00390625])
    >>> x = np.ones((1, 4, 5, 8))
    >>> attnc.dot_product_attention(x, x, x, causal=True, slope=attnc.alibi_slopes(4)[None]).shape
    (1, 4, 5, 8)
    """
    H = integer("alibi_slopes", "num_heads", num_heads, 1)
    n = 1 << (H.bit_length() - 1)  # the power of two at or below H
    first, between = np.arange(1, n + 1), np.arange(H - n) + 0.5
    return 2.0 ** (-8 * np.concatenate([first, between]) / n)

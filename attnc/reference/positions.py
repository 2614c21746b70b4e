"""Encodings of positions in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc.typing import Array, Integers

__all__ = ["sinusoids"]


def sinusoids(
    positions: Integers, size: int, *, base: float = 10000.0, dtype: Any = np.float64
) -> Array:
    """Sines and cosines of positions: Vaswani et al. 2017, "Attention is all you need", sec. 3.5.

        e_p,2i = sin(p / base^(2i / size))        e_p,2i+1 = cos(p / base^(2i / size))

    They are added to what is at the position, so its gradient is the incoming one.

    Parameters
    ----------
    positions : array of int (...)
    size : int
    base : float
    dtype : type
        What to compute in.

    Returns
    -------
    e (..., size)
    """
    p = np.asarray(positions, dtype)[..., None]
    e = np.empty((*p.shape[:-1], size), dtype)
    for channel in range(size):
        angle = p[..., 0] / dtype(base) ** (dtype(channel // 2 * 2) / size)
        e[..., channel] = np.cos(angle) if channel % 2 else np.sin(angle)
    return e

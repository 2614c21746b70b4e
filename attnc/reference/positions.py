"""Encodings of positions in plain NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attnc.reference.attention import Gradients, differentiable
from attnc.typing import Array, Integers, Real

__all__ = ["relative_bias", "sinusoids"]


def sinusoids(
    positions: Integers, size: int, *, base: float = 10000.0, dtype: Any = np.float64
) -> Array:
    """Sines and cosines of positions: Vaswani et al. 2017, "Attention is all you need", sec. 3.5::

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


@differentiable
def relative_bias(
    weight: Real,
    ahead: Integers,
    *,
    max_distance: int = 128,
    bidirectional: bool = True,
    dtype: Any = np.float64,
) -> Any:
    """The bias of pairs by distance, from a learned table: Raffel et al. 2020 (T5), section 2.1::

        bias_hij = W[bucket(j - p_i), h]

    p_i is the position of query i.

    Parameters
    ----------
    weight : array (buckets, H)
    ahead : array of int (Tq, Tk)
        j - p, how far key j is ahead of query i.
    max_distance : int
        From here on all share a bucket.
    bidirectional : bool
        Half of the buckets are for keys ahead; else these share that of distance 0.
    dtype : type
        What to compute in.

    Returns
    -------
    bias (H, Tq, Tk)
    """
    weight, ahead = np.asarray(weight, dtype), np.asarray(ahead)
    count = len(weight) // 2 if bidirectional else len(weight)
    near = count // 2  # of these, a bucket for each distance

    def bucket(ahead):
        distance = abs(ahead) if bidirectional else max(-ahead, 0)
        row = distance
        if distance >= near:
            part = math.log(distance / near) / math.log(max_distance / near)
            row = min(near + int(part * (count - near) + 1e-9), count - 1)
        return row + count * (bidirectional and ahead > 0)

    rows = np.array([bucket(n) for n in ahead.reshape(-1).tolist()], int).reshape(ahead.shape)

    def pullback(dbias):
        dweight = np.zeros_like(weight)
        np.add.at(dweight, rows, np.moveaxis(np.asarray(dbias, dtype), 0, -1))
        return Gradients({"weight": dweight}, {"weight": weight})

    return np.moveaxis(weight[rows], -1, 0), pullback

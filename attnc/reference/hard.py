"""Hard attention in plain NumPy: one key a query instead of the mean of all.

With the weights w of `attention.attend`:

    index            k_i ~ w_i, or the largest, or given
    context          c_i = v_k
    log_probability  log w_ik
    entropy          h_i = -sum_j w_ij log w_ij        0 log 0 = 0
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from attnc.dual import asarray
from attnc.reference.attention import (
    Gradients,
    _dropout_key,
    _sum_to,
    attend,
    differentiable,
    philox4x32,
)
from attnc.typing import Array, Integers, Real

__all__ = ["hard_attention"]


class Hard(NamedTuple):
    """What `hard_attention` returns."""

    context: Array
    index: Array  # type: ignore[assignment]  # in the place of tuple's own
    log_probability: Array
    entropy: Array


@differentiable
def hard_attention(
    scores: Real,
    value: Real,
    *,
    rng: Any = None,
    sample: bool = True,
    index: Integers | None = None,
    dtype: Any = np.float64,
    **common: Any,
) -> Any:
    """Attention to one key a query: Xu et al. 2015, "Show, attend and tell", section 4.1.

    The gradients are those of sum(dcontext * context) + sum(dlog_probability * log_probability)
    + sum(dentropy * entropy) for the choice at hand; that of the choice itself is not there.

    Parameters
    ----------
    scores, value : arrays (..., Tq, Tk), (..., Tk, Dv)
    rng, sample, index
        How to choose: by draws, of the largest weight, or as given.
    dtype
        What to compute in.
    **common
        The options of `attend` but sink, dropout and the ``return_`` flags.

    Returns
    -------
    (context (..., Tq, Dv), index, log_probability, entropy (..., Tq))
    """
    if (
        common.get("center") is not None
    ):  # a key is drawn in proportion to what soft attention multiplies
        common["renormalize"] = True
    soft, soft_pullback = attend.with_pullback(  # type: ignore[attr-defined]
        scores, value, **common, return_weights=True, return_lse=True, dtype=dtype
    )
    weights, value = soft.weights, asarray(value, dtype)
    logits, lse = soft_pullback.stages["masked"], soft.lse[..., None]
    some, broken = np.isfinite(lse[..., 0]), np.isnan(lse[..., 0])

    if index is None:
        index = _drawn(weights, rng) if sample else weights.argmax(axis=-1)
        index = np.where(some, index, -1)
    index = np.broadcast_to(np.asarray(index), lse.shape[:-1])
    chosen = np.arange(weights.shape[-1]) == index[..., None]  # (..., Tq, Tk)
    none = chosen.sum(axis=-1) == 0

    values = np.broadcast_to(value, (*weights.shape[:-2], *value.shape[-2:]))
    context = np.take_along_axis(values, np.maximum(index, 0)[..., None], -2) if values.size else 0
    context = np.where(none[..., None], np.where(broken, dtype(np.nan), 0)[..., None], context)
    logs = np.where(weights > 0, np.log(weights), 0)
    log_probability = np.where(chosen, logits - lse, 0).sum(axis=-1)
    log_probability = np.where(broken, dtype(np.nan), log_probability)
    entropy = -(weights * logs).sum(axis=-1)

    @np.errstate(all="ignore")
    def pullback(dcontext=None, dlog_probability=None, dentropy=None):
        shape = lse.shape[:-1]
        dlog = np.zeros(shape, dtype) if dlog_probability is None else dlog_probability
        dent = np.zeros(shape, dtype) if dentropy is None else dentropy
        # d log w_k = dw_k / w_k, and d h = -sum_j dw_j (log w_j + 1)
        dweights = np.where(chosen, np.asarray(dlog, dtype)[..., None] / weights, 0)
        dweights = dweights - np.asarray(dent, dtype)[..., None] * (logs + 1)
        gradients = vars(soft_pullback(dweights=np.where(weights == 0, 0, dweights))).copy()
        dvalue = np.zeros(values.shape, dtype)
        if dcontext is not None:
            for place in zip(*np.nonzero(~none), strict=True):
                dvalue[(*place[:-1], index[place])] += np.asarray(dcontext, dtype)[place]
        gradients["value"] = _sum_to(dvalue, value.shape)
        return Gradients(gradients, ("scores", "value"))

    return Hard(context, index, log_probability, entropy), pullback


def _drawn(weights, rng):
    """The first key at which the sum of the weights is above a random number in [0, 1)."""
    lead, Tq = weights.shape[:-2], weights.shape[-2]
    key = int(_dropout_key(rng))
    words = philox4x32([np.uint64(2**32 - 1)] * 4, (key & 0xFFFFFFFF, key >> 32))
    n = np.arange(math.prod(lead), dtype=np.uint64).reshape(*lead, 1)
    counter = np.broadcast_arrays(0, np.arange(Tq), n & 0xFFFFFFFF, n >> np.uint64(32))
    words = philox4x32(counter, words[:2])
    u = ((words[..., 0] >> 5) * 2.0**26 + (words[..., 1] >> 6)) / 2.0**53
    sums = weights.cumsum(axis=-1)
    return (
        (sums > u[..., None] * sums[..., -1:]).argmax(axis=-1) if sums.size else np.zeros(u.shape)
    )

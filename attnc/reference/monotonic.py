"""Monotonic attention in plain NumPy: the recurrence and the chunks of the papers, key by key.

Raffel et al. 2017, "Online and linear-time attention by enforcing monotonic alignments", and Chiu
and Raffel 2018, "Monotonic chunkwise attention".
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from attnc.dual import asarray, value_of
from attnc.reference.attention import Gradients, differentiable
from attnc.typing import Bools, Integers, Real

__all__ = ["chunkwise_attention", "monotonic_alignment"]

_Alignment = namedtuple("_Alignment", "alignment missing")
_Output = namedtuple("_Output", "context weights")


def _allowed(keys, key_mask, key_lengths):
    """(..., Tk): which keys may be attended to."""
    allowed = np.ones(keys, bool)
    if key_mask is not None:
        allowed = allowed & np.asarray(key_mask)
    if key_lengths is not None:
        allowed &= np.arange(keys[-1]) < np.asarray(key_lengths)[..., None]
    return allowed


def _sum_to(gradient, shape):
    """The gradient of an array of that shape that was broadcast."""
    axes = tuple(d for d, n in enumerate(shape) if n == 1)
    return gradient.sum(axis=axes, keepdims=True)


@differentiable
def monotonic_alignment(
    probability: Real,
    previous: Real | None = None,
    *,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
    dtype: Any = np.float64,
) -> Any:
    """Where queries stop that go over keys from left to right: Raffel et al. 2017, eq. 8 to 10::

        q_ij = (1 - p_i,j-1) q_i,j-1 + a_i-1,j        a_ij = p_ij q_ij

    a_ij is the probability that query i stops at key j, a_i-1,j that of the query before.

    Parameters
    ----------
    probability : array (..., Tq, Tk)
    previous : array (..., Tk), optional
        All at the first key unless given.
    key_mask : array of bool (..., Tk), optional
    key_lengths : int or array (...), optional
    dtype : type
        What to compute in.

    Returns
    -------
    (alignment, missing) : arrays (..., Tq, Tk) and (..., Tq)
    """
    probability = asarray(probability, dtype)
    *lead, Tq, Tk = probability.shape
    allowed = _allowed((*lead, Tk), key_mask, key_lengths)
    p = np.where(allowed[..., None, :], probability, dtype(0))
    a, q = np.zeros_like(p), np.zeros_like(p)
    missing = np.zeros_like(p.sum(axis=-1))
    walk, lost = np.ones(lead, dtype), np.zeros(lead, dtype)
    before = np.zeros((*lead, Tk), dtype)
    if previous is not None:
        before = np.broadcast_to(asarray(previous, dtype), before.shape)
        walk, lost = np.zeros(lead, dtype), 1 - before.sum(-1)
    for i in range(Tq):
        for j in range(Tk):
            q[..., i, j] = walk + before[..., j]
            a[..., i, j] = p[..., i, j] * q[..., i, j]
            walk = (1 - p[..., i, j]) * q[..., i, j]
        lost = lost + walk  # what walks past the last key is missing from now on
        missing[..., i] = lost
        before, walk = a[..., i, :], np.zeros(lead, dtype)

    def pullback(dalignment=None, dmissing=None):
        da = np.zeros_like(p) if dalignment is None else asarray(dalignment, dtype)
        dm = np.zeros_like(missing) if dmissing is None else asarray(dmissing, dtype)
        dp, dlost = np.zeros_like(p), np.zeros(lead, dtype)
        dbefore = np.zeros_like(p.sum(axis=-2))
        for i in reversed(range(Tq)):
            dlost = dlost + dm[..., i]
            dwalk = dlost
            for j in reversed(range(Tk)):
                stops = np.where(allowed[..., j], da[..., i, j] + dbefore[..., j], dtype(0))
                dp[..., i, j] = (stops - dwalk) * q[..., i, j]
                dwalk = p[..., i, j] * stops + (1 - p[..., i, j]) * dwalk  # dq
                dbefore[..., j] = dwalk
        dp = np.where(allowed[..., None, :], dp, dtype(0))
        gradients = {"probability": dp}
        if previous is not None:
            dprevious = dbefore - dlost[..., None]
            gradients["previous"] = _sum_to(dprevious, np.shape(previous)[:-1] + (0,))
        return Gradients(gradients, ["probability"])

    return _Alignment(a, missing), pullback


@differentiable
def chunkwise_attention(
    alignment: Real,
    scores: Real,
    value: Real,
    width: int,
    *,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
    return_weights: bool = False,
    dtype: Any = np.float64,
) -> Any:
    """Softmax attention to the chunk that ends where a query stops: Chiu and Raffel 2018, eq. 22::

        b_il = sum_{k=l}^{l+w-1} a_ik exp(u_il) / sum_{m=k-w+1}^{k} exp(u_im)        c_i = b_i V

    w is the width of a chunk, a the alignment, u the scores.

    Parameters
    ----------
    alignment, scores : arrays (..., Tq, Tk)
    value : array (..., Tk, Dv)
    width : int
    key_mask : array of bool (..., Tk), optional
    key_lengths : int or array (...), optional
    return_weights : bool
    dtype : type
        What to compute in.

    Returns
    -------
    context, or (context, weights) : arrays (..., Tq, Dv) and (..., Tq, Tk)
    """
    given = alignment, scores, value
    a, u, v = (asarray(x, dtype) for x in given)
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in (a, u, v)))
    a, u, v = (np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, u, v))
    Tk = a.shape[-1]
    allowed = _allowed((*lead, Tk), key_mask, key_lengths)
    v = np.where(allowed[..., None], v, dtype(0))
    pair = np.broadcast_to(allowed[..., None, :], a.shape)
    a = np.where(pair, a, dtype(0))
    u = np.where(pair, u, dtype(-np.inf))

    def chunk(k):
        """The keys of the chunk that ends at key k, and their softmax."""
        keys = slice(max(0, k - width + 1), k + 1)
        top = value_of(u[..., keys]).max(-1, keepdims=True, initial=-np.inf)
        e = np.exp(u[..., keys] - np.where(top == -np.inf, dtype(0), top))
        total = e.sum(-1, keepdims=True)
        return keys, e / np.where(total == 0, dtype(1), total)  # no key: all 0

    b = np.zeros_like(a)
    for k in range(Tk):
        keys, p = chunk(k)
        b[..., keys] += a[..., k, None] * p
    context = b @ v

    def pullback(dcontext=None, dweights=None):
        db = np.zeros(a.shape, dtype)
        dv = np.zeros(v.shape, dtype)
        if dcontext is not None:
            db = db + asarray(dcontext, dtype) @ v.swapaxes(-1, -2)
            dv = np.where(allowed[..., None], b.swapaxes(-1, -2) @ asarray(dcontext, dtype), 0)
        if dweights is not None:
            db = db + asarray(dweights, dtype)
        db = np.where(pair & (u != -np.inf), db, dtype(0))
        da, du = np.zeros_like(a), np.zeros_like(a)
        for k in range(Tk):
            keys, p = chunk(k)
            mean = (p * db[..., keys]).sum(-1, keepdims=True)
            da[..., k] = mean[..., 0]
            du[..., keys] += a[..., k, None] * p * (db[..., keys] - mean)
        da = np.where(pair, da, dtype(0))
        named = zip(("alignment", "scores", "value"), given, (da, du, dv), strict=True)
        gradients = {name: _sum_to(g, np.shape(x)[:-2] + (0, 0)) for name, x, g in named}
        return Gradients(gradients, list(gradients))

    return (_Output(context, b) if return_weights else context), pullback

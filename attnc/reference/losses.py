"""Losses in plain NumPy: the formulas and their derivatives by hand.

Every loss of `attnc.losses` stands here once more, under the same name and with the same options;
`vjp` gives the gradients. With targets t_r, for the rows r whose target is not ignored:

    probability   p_rv = exp(x_rv) / sum_u exp(x_ru)
    wanted        q_rv = e / V + (1 - e where v = t_r)          e: label_smoothing, of V classes
    loss          L = 1/n sum_r sum_v -q_rv log p_rv            n: number of these rows
    and back      dx_rv = dL (p_rv - q_rv) / n

A row whose target is ignored is not read and has gradient 0. Every function also takes `dtype`,
what to compute in: float64 unless given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc.reference.attention import Gradients, differentiable
from attnc.typing import Integers, Real

__all__ = ["linear_cross_entropy", "softmax_cross_entropy"]


def cross_entropy(x, targets, label_smoothing):
    """The loss of rows x (n, V) that all count: returns (L, pullback from dL to dx)."""
    n, V = max(len(x), 1), x.shape[1]
    e = x.dtype.type(label_smoothing)
    q = np.full(x.shape, e / V)
    q[np.arange(len(x)), targets] += 1 - e

    top = x.max(axis=1, keepdims=True, initial=-np.inf)
    powers = np.exp(x - top)  # of numbers <= 0: cannot overflow
    total = powers.sum(axis=1, keepdims=True)
    minus_log_p = top - x + np.log(total)
    # An unwanted class of probability 0 costs nothing; 0 * inf would be NaN.
    loss = np.where(q == 0, 0, q * minus_log_p).sum() / n

    def pullback(dloss):
        return (powers / total - q) * (x.dtype.type(dloss) / n)

    return loss, pullback


@differentiable
def softmax_cross_entropy(
    logits: Real,
    targets: Integers,
    *,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    dtype: Any = np.float64,
) -> Any:
    """Mean over the targets of ``-log softmax(logits)[target]``.

    Parameters
    ----------
    logits : array (..., V)
    targets : array of int (...)
    ignore_index : int, optional
        A target that does not count.
    label_smoothing : float
        e: Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision",
        section 7.
    dtype : type
        What to compute in.

    Returns
    -------
    loss, a number
    """
    logits, targets = np.asarray(logits, dtype), np.asarray(targets)
    counted = _counted(targets, ignore_index)
    loss, back = cross_entropy(logits[counted], targets[counted], label_smoothing)

    @np.errstate(all="ignore")
    def pullback(dloss=1.0):
        dlogits = np.zeros_like(logits)
        dlogits[counted] = back(dloss)
        return Gradients({"logits": dlogits}, ["logits"])

    return loss, pullback


@differentiable
def linear_cross_entropy(
    x: Real,
    weight: Real,
    targets: Integers,
    *,
    bias: Real | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    dtype: Any = np.float64,
) -> Any:
    """The `softmax_cross_entropy` of logits ``x @ weight + bias``.

    Parameters
    ----------
    x : array (..., D)
    weight : array (D, V)
    targets : array of int (...)
    bias : array (V,), optional
    ignore_index, label_smoothing, dtype
        As in `softmax_cross_entropy`.

    Returns
    -------
    loss, a number
    """
    x, weight, targets = np.asarray(x, dtype), np.asarray(weight, dtype), np.asarray(targets)
    counted = _counted(targets, ignore_index)
    rows = x[counted]
    logits = rows @ weight
    if bias is not None:
        logits = logits + np.asarray(bias, dtype)
    loss, back = cross_entropy(logits, targets[counted], label_smoothing)

    @np.errstate(all="ignore")
    def pullback(dloss=1.0):
        dlogits, dx = back(dloss), np.zeros_like(x)
        dx[counted] = dlogits @ weight.T
        gradients = {"x": dx, "weight": rows.T @ dlogits}
        if bias is not None:
            gradients["bias"] = dlogits.sum(axis=0)
        return Gradients(gradients, ["x", "weight"])

    return loss, pullback


def _counted(targets, ignore_index):
    """Which targets count, bool (...)."""
    return np.ones(targets.shape, bool) if ignore_index is None else targets != ignore_index

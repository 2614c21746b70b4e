"""Losses in plain NumPy: the formulas and their derivatives by hand.

Every loss of `attnc.losses` stands here once more, under the same name and with the same options;
`vjp` gives the gradients. With targets t_r, for the rows r whose target is not ignored:

    probability   p_rv = exp(x_rv) / sum_u exp(x_ru)
    wanted        q_rv = e / V + (1 - e where v = t_r)          e: label_smoothing, of V classes
    loss          L = 1/n sum_r sum_v -q_rv log p_rv            n: number of these rows
    and back      dx_rv = dL (p_rv - q_rv) / n

A row whose target is ignored is not read and has gradient 0. Of numbers one by one, with weights
w_i, 1 unless given, for those that the mask lets count:

    loss          L = sum_i w_i l_i / W                         W: sum_i w_i
    and back      dx_i = dL w_i l'(x_i) / W                     dw_i = dL (l_i - L) / W

Every function also takes `dtype`, what to compute in: float64 unless given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc.dual import asarray, value_of
from attnc.reference.attention import Gradients, differentiable
from attnc.typing import Bools, Integers, Real

__all__ = [
    "binary_cross_entropy",
    "coverage_loss",
    "linear_cross_entropy",
    "mean_squared_error",
    "softmax_cross_entropy",
]


def cross_entropy(x, targets, label_smoothing):
    """The loss of rows x (n, V) that all count: returns (L, pullback from dL to dx)."""
    n, V = max(len(x), 1), x.shape[1]
    e = x.dtype.type(label_smoothing)
    q = np.full(x.shape, e / V)
    q[np.arange(len(x)), targets] += 1 - e

    top = value_of(x).max(axis=1, keepdims=True, initial=-np.inf)
    powers = np.exp(x - top)  # of numbers <= 0: cannot overflow
    total = powers.sum(axis=1, keepdims=True)
    minus_log_p = top - x + np.log(total)
    # An unwanted class of probability 0 costs nothing; 0 * inf would be NaN.
    loss = np.where(q == 0, 0, q * minus_log_p).sum() / n

    def pullback(dloss):
        return (powers / total - q) * (asarray(dloss, x.dtype) / n)

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
    logits, targets = asarray(logits, dtype), np.asarray(targets)
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
    x, weight, targets = asarray(x, dtype), asarray(weight, dtype), np.asarray(targets)
    counted = _counted(targets, ignore_index)
    rows = x[counted]
    logits = rows @ weight
    if bias is not None:
        logits = logits + asarray(bias, dtype)
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


def mean(names, x, t, weights, mask, dtype, loss):
    """The weighted mean of losses of single numbers: returns (L, pullback).

    `loss` takes x and t, and returns the losses and their gradients with respect to x and t.
    """
    x, t = asarray(x, dtype), asarray(t, dtype)
    w = np.broadcast_to(asarray(1 if weights is None else weights, dtype), x.shape)
    counted = np.broadcast_to(True if mask is None else mask, x.shape)
    losses, dx, dt = loss(x[counted], t[counted])
    total = w[counted].sum()
    L = (w[counted] * losses).sum() / (total or dtype(1))

    @np.errstate(all="ignore")
    def pullback(dloss=1.0):
        gradients = {}
        dw = np.zeros_like(losses) if not total else (losses - L) / total
        for name, d in zip(names, (dx, dt), strict=True):
            gradients[name] = np.zeros_like(x)
            gradients[name][counted] = asarray(dloss, dtype) * w[counted] * d / (total or dtype(1))
        if weights is not None:
            gradients["weights"] = np.zeros_like(x)
            gradients["weights"][counted] = asarray(dloss, dtype) * dw
            axes = tuple(k for k, size in enumerate(np.shape(weights)) if size == 1)
            if np.shape(weights) != x.shape:
                gradients["weights"] = gradients["weights"].sum(axis=axes, keepdims=True)
        return Gradients(gradients, list(names))

    return L, pullback


@differentiable
def mean_squared_error(
    prediction: Real,
    target: Real,
    *,
    weights: Real | None = None,
    mask: Bools | None = None,
    dtype: Any = np.float64,
) -> Any:
    """Mean of ``(prediction - target)^2``.

    Parameters
    ----------
    prediction, target : array (...)
    weights : array (...), optional
        How much each number counts; axes of size 1 broadcast.
    mask : array of bool (...), optional
        Which numbers count.
    dtype : type
        What to compute in.

    Returns
    -------
    loss, a number
    """

    def squares(p, t):
        return (p - t) ** 2, 2 * (p - t), 2 * (t - p)

    return mean(("prediction", "target"), prediction, target, weights, mask, dtype, squares)


@differentiable
def binary_cross_entropy(
    logits: Real,
    targets: Real,
    *,
    weights: Real | None = None,
    mask: Bools | None = None,
    dtype: Any = np.float64,
) -> Any:
    """Mean of ``-t log p - (1 - t) log(1 - p)`` with ``p = 1 / (1 + exp(-logit))``.

    Parameters
    ----------
    logits, targets : array (...)
    weights, mask, dtype
        As in `mean_squared_error`.

    Returns
    -------
    loss, a number
    """

    @np.errstate(over="ignore")
    def binary(x, t):
        minus_log_p, minus_log_rest = np.logaddexp(0, -x), np.logaddexp(0, x)
        p = np.exp(-minus_log_p)
        return t * minus_log_p + (1 - t) * minus_log_rest, p - t, -x

    return mean(("logits", "targets"), logits, targets, weights, mask, dtype, binary)


@differentiable
def coverage_loss(weights: Real, *, mask: Bools | None = None, dtype: Any = np.float64) -> Any:
    """Mean over the steps t that count of ``sum_j min(a_tj, c_tj)``, c_t: the sum of those before.

    Parameters
    ----------
    weights : array (..., T, Tk)
    mask : array of bool (..., T), optional
        Which steps count.
    dtype : type
        What to compute in.

    Returns
    -------
    loss, a number
    """
    a = asarray(weights, dtype)
    counted = np.broadcast_to(True if mask is None else mask, a.shape[:-1])[..., None]
    n = dtype(max(counted.sum(), 1))
    covered, loss, steps = np.zeros_like(a[..., 0, :]), dtype(0), range(a.shape[-2])
    again = np.zeros(a.shape, bool)
    for t in steps:
        a_t = np.where(counted[..., t, :], a[..., t, :], 0)
        again[..., t, :] = a_t >= covered
        loss = loss + np.minimum(covered, a_t).sum()
        covered = covered + a_t

    def pullback(dloss=1.0):
        d = np.zeros_like(a)
        for t in steps:
            d[..., t, :] += ~again[..., t, :]
            d[..., :t, :] += again[..., t, :][..., None, :]
        return Gradients(
            {"weights": np.where(counted, d * (asarray(dloss, dtype) / n), 0)}, ["weights"]
        )

    return loss / n, pullback

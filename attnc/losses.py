"""Losses: functions that `attnc.vjp` knows.

A loss is one number, so its pullback needs no argument: ``pullback()`` is ``pullback(1.0)``.
"""

from __future__ import annotations

import math

import numpy as np

from . import _core
from .arrays import (
    computing_dtype,
    contiguous,
    integer,
    integer_array,
    like,
    number,
    real_array,
    sum_rows,
)
from .registry import register
from .typing import Integers, Real

__all__ = ["linear_cross_entropy", "softmax_cross_entropy"]


def softmax_cross_entropy(
    logits: Real,
    targets: Integers,
    *,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> float:
    """Mean over the targets of ``-log softmax(logits)[target]``, in nats.

    Computed without an array of probabilities: what is kept for the gradient are two numbers a
    target.

    Parameters
    ----------
    logits : array_like, shape (..., V)
        Scores of the V classes. Real.
    targets : array_like of int, shape (...)
        Class of each, in 0..V-1, or ignore_index.
    ignore_index : int, optional
        A target that does not count, such as the padding token. Its logits are not read.
    label_smoothing : float, default 0.0
        ``e`` in 0 <= e < 1: the loss is the cross-entropy with ``1 - e`` at the target and ``e /
        V`` at every class (Szegedy et al. 2016, "Rethinking the Inception architecture for computer
        vision", section 7).

    Returns
    -------
    float
        Of the logits' dtype. 0 where no target counts.

    Raises
    ------
    TypeError
        If logits are not real, targets or ignore_index are not integers, label_smoothing is not a
        number, or an array is masked or of another library.
    ValueError
        If the shapes do not match, or a target or label_smoothing is out of range.

    See Also
    --------
    linear_cross_entropy : the same of ``x @ weight + bias``, with less memory

    Notes
    -----
    A logit of -inf forbids a class: its probability is 0. Where it is the target, or where labels
    are smoothed over it, the loss is inf; the gradient, ``softmax(logits)`` less the wanted
    probabilities, is finite all the same. A row with a logit of +inf or NaN, or with nothing but
    -inf, is NaN.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> logits, targets = np.zeros((2, 4)), [3, 0]  # 0 is padding
    >>> loss, pullback = attnc.vjp(
    ...     attnc.losses.softmax_cross_entropy, logits, targets, ignore_index=0
    ... )
    >>> (dlogits,) = pullback()  # d loss / d logits; pullback(dloss) scales it
    >>> dlogits
    array([[ 0.25,  0.25,  0.25, -0.75],
           [ 0.  ,  0.  ,  0.  ,  0.  ]])
    """
    return _softmax_forward(
        logits, targets, ignore_index=ignore_index, label_smoothing=label_smoothing
    )[0]


def _softmax_forward(logits, targets, *, ignore_index=None, label_smoothing=0.0):
    where = "softmax_cross_entropy"
    logits = real_array(where, "logits", logits)
    targets = integer_array(where, "targets", targets)
    if logits.ndim < 1 or targets.shape != logits.shape[:-1] or not logits.shape[-1]:
        raise ValueError(
            f"{where}: targets must have the shape of logits without its last axis, "
            f"got logits {logits.shape} and targets {targets.shape}"
        )
    smoothing = _smoothing(where, label_smoothing)
    counted = _counted(where, targets, logits.shape[-1], ignore_index)
    rows = contiguous(logits, computing_dtype([logits])).reshape(targets.size, logits.shape[-1])
    wanted, count = targets.astype(np.int64).reshape(-1), targets.size
    if counted is not None:
        counted = counted.reshape(-1)
        wanted[~counted] = -1  # such a row is not read
        count = np.count_nonzero(counted)
    losses, stats = _core.cross_entropy(rows, wanted, smoothing)
    loss = _mean(losses, rows, wanted, smoothing, count)
    return loss, (logits, rows, wanted, stats), (smoothing, count)


def _softmax_backward(saved, static, dloss):
    logits, rows, wanted, stats = saved
    smoothing, count = static
    dloss, dtype = _incoming("softmax_cross_entropy", dloss), rows.dtype
    if _leaves_range(dloss, dtype):
        rows = rows.astype(np.float64)
        stats = _core.cross_entropy(rows, wanted, smoothing)[1]
    finite = math.isfinite(dloss)
    factor = (dloss if finite else 1.0) / max(count, 1)
    dlogits = _core.cross_entropy_backward(rows, wanted, smoothing, stats, factor, False)
    if not finite:
        with np.errstate(all="ignore"):
            dlogits[wanted >= 0] *= dloss
    return (like(_narrowed(dlogits, dtype).reshape(logits.shape), logits),)


def linear_cross_entropy(
    x: Real,
    weight: Real,
    targets: Integers,
    *,
    bias: Real | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> float:
    """The `softmax_cross_entropy` of logits ``x @ weight + bias``: output layer and loss in one.

    There are logits only of the targets that count, and their gradient takes their place: with
    padding in the batch less is computed, and always half of the memory is enough.

    Parameters
    ----------
    x : array_like, shape (..., D)
        Real. Not read where the target is ignored.
    weight : array_like, shape (D, V)
        Real.
    targets : array_like of int, shape (...)
        Class of each, in 0..V-1, or ignore_index.
    bias : array_like, shape (V,), optional
        Real.
    ignore_index : int, optional
        A target that does not count, such as the padding token.
    label_smoothing : float, default 0.0
        As in `softmax_cross_entropy`.

    Returns
    -------
    float
        Of the dtype in which all arrays are computed. 0 where no target counts.

    Raises
    ------
    TypeError
        If x, weight or bias is not real, targets or ignore_index are not integers, label_smoothing
        is not a number, or an array is masked or of another library.
    ValueError
        If the shapes do not match, or a target or label_smoothing is out of range.

    See Also
    --------
    softmax_cross_entropy : of logits that are there already

    Examples
    --------
    >>> import numpy as np, attnc
    >>> x, weight, targets = np.ones((2, 3)), np.zeros((3, 4)), [3, 0]  # 0 is padding
    >>> loss, pullback = attnc.vjp(
    ...     attnc.losses.linear_cross_entropy, x, weight, targets, ignore_index=0
    ... )
    >>> dx, dweight = pullback()  # pullback(dloss) scales them
    >>> dweight[0]
    array([ 0.25,  0.25,  0.25, -0.75])
    """
    problem, *_, smoothing = _linear_problem(
        x, weight, targets, bias, ignore_index, label_smoothing
    )
    return _linear_loss(problem, smoothing, differentiate=False)[0]


def _linear_problem(x, weight, targets, bias, ignore_index, label_smoothing):
    """The checked arguments: as given, and in the dtype in which it is computed.

    Returns the problem, which is (rows of x whose targets count, weight, bias or None, targets that
    count); x, weight and bias or None as given; the places of those rows, None for all; smoothing.
    """
    where = "linear_cross_entropy"
    arrays = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    arrays = {name: real_array(where, name, array) for name, array in arrays.items()}
    targets = integer_array(where, "targets", targets)
    _check_linear(where, arrays, targets)
    smoothing = _smoothing(where, label_smoothing)
    dtype = computing_dtype(arrays.values())
    x, weight, bias = (
        None if array is None else contiguous(array, dtype)
        for array in map(arrays.get, ("x", "weight", "bias"))
    )
    places = counted = _counted(where, targets, weight.shape[1], ignore_index)
    rows = x.reshape(targets.size, len(weight))
    targets = targets.astype(np.int64).reshape(-1)
    if counted is not None:
        places = np.flatnonzero(counted)
        rows, targets = rows[places], targets[places]
    given = arrays["x"], arrays["weight"], arrays.get("bias")
    return (rows, weight, bias, targets), given, places, smoothing


def _linear_loss(problem, smoothing, differentiate):
    """The loss and, to differentiate, the gradient of the logits, which takes their memory."""
    rows, weight, bias, targets = problem
    logits = _core.product(rows, weight)
    if bias is not None:
        with np.errstate(all="ignore"):
            logits += bias
    losses, stats = _core.cross_entropy(logits, targets, smoothing)
    loss = _mean(losses, logits, targets, smoothing, len(targets))
    if not differentiate:
        return loss, None
    factor = 1 / max(len(targets), 1)
    return loss, _core.cross_entropy_backward(logits, targets, smoothing, stats, factor, True)


def _linear_forward(x, weight, targets, *, bias=None, ignore_index=None, label_smoothing=0.0):
    problem, given, places, smoothing = _linear_problem(
        x, weight, targets, bias, ignore_index, label_smoothing
    )
    loss, dlogits = _linear_loss(problem, smoothing, True)
    return loss, (*given, *problem, places, dlogits), smoothing


def _linear_backward(saved, smoothing, dloss):
    x, *others, rows, weight, bias, targets, places, dlogits = saved
    dloss, dtype = _incoming("linear_cross_entropy", dloss), weight.dtype
    if _leaves_range(dloss, dtype):
        rows, weight, bias = (
            None if array is None else array.astype(np.float64) for array in (rows, weight, bias)
        )
        dlogits = _linear_loss((rows, weight, bias, targets), smoothing, True)[1]
    dx, dweight = _core.product(dlogits, weight.T), _core.product(rows.T, dlogits)
    dbias = None if bias is None else sum_rows(dlogits)
    if dloss != 1 and len(rows):  # without rows all are 0, also where dloss is not finite
        with np.errstate(all="ignore"):
            for d in (dx, dweight) if dbias is None else (dx, dweight, dbias):
                d *= d.dtype.type(dloss)
    if places is not None:
        dcounted, dx = dx, np.zeros((math.prod(x.shape[:-1]), x.shape[-1]), dx.dtype)
        dx[places] = dcounted
    return tuple(
        None if d is None else like(_narrowed(d, dtype), given)
        for d, given in zip((dx.reshape(x.shape), dweight, dbias), (x, *others), strict=True)
    )


def _narrowed(gradient, dtype):
    """A gradient that was computed in float64 where dloss was beyond this dtype."""
    if gradient.dtype == dtype:
        return gradient
    with np.errstate(all="ignore"):
        return gradient.astype(dtype)


def _smoothing(where, label_smoothing):
    rule = "lie in 0 <= label_smoothing < 1"
    return number(where, "label_smoothing", label_smoothing, rule, lambda e: 0 <= e < 1)


def _incoming(where, dloss):
    """The gradient that comes to a loss, as a float: 1 where none is given."""
    if dloss is None:
        return 1.0
    array = real_array(where, "dloss", dloss)
    if array.ndim:
        raise ValueError(f"{where}: dloss must have shape (), got {array.shape}")
    return float(array)


def _leaves_range(dloss, dtype):
    """Whether a factor is one that float64 holds and `dtype` does not.

    As inf it would make NaN of probabilities of 0.
    """
    if dtype == np.float64 or dloss == 0:
        return False
    held = np.finfo(dtype)
    return not float(held.tiny) <= abs(dloss) <= float(held.max)


def _mean(losses, rows, wanted, smoothing, count):
    """The sum of the losses of all rows by their count, in the dtype of the logits `rows`."""
    count = max(count, 1)
    with np.errstate(all="ignore"):
        total = losses.sum()
        if math.isinf(total):
            for r in np.flatnonzero(np.isinf(losses)):
                losses[r] = _far_loss(rows[r], wanted[r], smoothing)
                if np.isinf(losses[r]):
                    break
            losses /= count  # before the sum, which may be too large
            total, count = losses.sum(), 1
        return rows.dtype.type(total / count)


def _far_loss(x, target, smoothing):
    """The loss of one row, without an overflow on the way: log sum_v exp(x_v - m) + q . (m - x)."""
    x = x.astype(np.float64)
    top = x.max()
    q = np.full(x.shape, smoothing / x.size)
    q[target] += 1 - smoothing
    apart = 2 * (q / 2 * top - q / 2 * x)  # the halves cannot overflow, as m - x can
    return np.log(np.exp(x - top).sum()) + apart[q > 0].sum()


def _check_linear(where, arrays, targets):
    x, weight, bias = (arrays.get(name) for name in ("x", "weight", "bias"))
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    if x.ndim < 1 or weight.ndim != 2 or x.shape[-1] != len(weight) or not weight.shape[1]:
        raise ValueError(
            f"{where}: weight must have shape (D, V) with the D of x (..., D), got {shapes}"
        )
    if bias is not None and bias.shape != weight.shape[1:]:
        raise ValueError(f"{where}: bias must have shape (V,), got {shapes}")
    if targets.shape != x.shape[:-1]:
        raise ValueError(
            f"{where}: targets must have the shape of x without its last axis, "
            f"got x {x.shape} and targets {targets.shape}"
        )


def _counted(where, targets, classes, ignore_index):
    """Which targets count, or None for all, once those that do are known to be classes."""
    counted, found = None, targets
    if ignore_index is not None:
        ignore_index, held = integer(where, "ignore_index", ignore_index), np.iinfo(targets.dtype)
        if held.min <= ignore_index <= held.max:  # beyond its dtype no target equals it
            counted = targets != targets.dtype.type(ignore_index)
            found = targets[counted]
    if found.size and not 0 <= found.min() <= found.max() < classes:
        raise ValueError(
            f"{where}: targets must lie in 0..{classes - 1}, got {found.min()}..{found.max()}"
            + ("" if ignore_index is not None else " (padding? pass ignore_index=)")
        )
    return counted


register(
    softmax_cross_entropy,
    required=("logits",),
    incoming=("dloss",),
    forward=_softmax_forward,
    backward=_softmax_backward,
)
register(
    linear_cross_entropy,
    required=("x", "weight"),
    optional=("bias",),
    incoming=("dloss",),
    forward=_linear_forward,
    backward=_linear_backward,
)

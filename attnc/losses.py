"""Losses: functions that `attnc.vjp` knows.

A loss is one number, so its pullback needs no argument: ``pullback()`` is ``pullback(1.0)``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _core
from .arrays import (
    computing_dtype,
    contiguous,
    integer,
    integer_array,
    like,
    number,
    plain_array,
    quiet,
    real_array,
    sum_rows,
)
from .functional.plain import by_formula
from .functional.shapes import number_alone
from .registry import record_of, register
from .typing import Bools, Integers, Real

__all__ = [
    "binary_cross_entropy",
    "coverage_loss",
    "linear_cross_entropy",
    "mean_squared_error",
    "softmax_cross_entropy",
]


# ---- Classes -------------------------------------------------------------------------------------


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


# ---- Numbers -------------------------------------------------------------------------------------


def mean_squared_error(
    prediction: Real, target: Real, *, weights: Real | None = None, mask: Bools | None = None
) -> float:
    """Mean of ``(prediction - target)^2``, over all axes.

    With weights it is ``sum_i w_i (p_i - t_i)^2 / sum_i w_i``, as `numpy.average` has it.

    Parameters
    ----------
    prediction, target : array_like
        Of equal shape, any. Real.
    weights : array_like, optional
        How much each number counts: 0 or more, finite, with every axis of prediction; an axis of
        size 1 broadcasts.
    mask : array_like of bool, optional
        Which numbers count, True for those that do, likewise. The others are not read: a NaN there
        does no harm.

    Returns
    -------
    float
        Of the dtype in which all arrays are computed. 0 where nothing counts.

    Raises
    ------
    TypeError
        If an array is not real, mask not boolean, or an array masked or of another library.
    ValueError
        If the shapes do not match (prediction and target do not broadcast), or a weight that counts
        is negative or not finite.

    Notes
    -----
    Its pullback returns the gradients of both, ``dprediction, dtarget = pullback()``, and by name
    that of weights.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> prediction, target = np.array([1.0, 2.0, 9.0]), np.array([0.0, 4.0, 0.0])
    >>> loss, pullback = attnc.vjp(
    ...     attnc.losses.mean_squared_error, prediction, target, mask=[True, True, False]
    ... )
    >>> loss
    np.float64(2.5)
    >>> pullback().prediction  # 2 (p - t) / 2
    array([ 1., -2.,  0.])
    """
    return _squares_forward(prediction, target, weights=weights, mask=mask)[0]


def binary_cross_entropy(
    logits: Real, targets: Real, *, weights: Real | None = None, mask: Bools | None = None
) -> float:
    """Mean of ``-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x))``, over all axes, in nats.

    x are the logits, not probabilities, so that it is exact for numbers of any size: of x and t it
    computes ``|x| q + log(1 + exp(-|x|))`` with q = 1 - t for x > 0 and q = t else. With weights it
    is their mean as in `mean_squared_error`.

    Parameters
    ----------
    logits : array_like
        Any shape. Real.
    targets : array_like
        Probability of the class, in 0..1; or whether it is there, bool. Of the shape of logits.
    weights : array_like, optional
        How much each number counts: 0 or more, finite, with every axis of logits; an axis of size 1
        broadcasts. For a class that is seldom there, ``np.where(targets, 9, 1)``.
    mask : array_like of bool, optional
        Which numbers count, True for those that do, likewise. The others are not read.

    Returns
    -------
    float
        Of the dtype in which all arrays are computed. 0 where nothing counts.

    Raises
    ------
    TypeError
        If an array is not real, mask not boolean, or an array masked or of another library.
    ValueError
        If the shapes do not match, a target that counts is outside 0..1, or a weight that counts is
        negative or not finite.

    Notes
    -----
    Its pullback returns the gradients of both, ``dlogits, dtargets = pullback()``, and by name that
    of weights. An infinite logit that its target agrees with costs nothing.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> logits, targets = np.array([0.0, 1e4, -1e4]), [True, True, False]
    >>> loss, pullback = attnc.vjp(attnc.losses.binary_cross_entropy, logits, targets)
    >>> 3 * loss  # log 2: the last two are right, and sure
    np.float64(0.6931471805599453)
    >>> pullback().logits
    array([-0.16666667,  0.        ,  0.        ])
    """
    return _binary_forward(logits, targets, weights=weights, mask=mask)[0]


def _squares(p, t):
    """(p - t)^2."""
    d = p - t
    return d * d


def _squares_backward(p, t):
    """The gradients of (p - t)^2."""
    d = 2 * (p - t)
    return d, -d


def _binary(x, t):
    """|x| q + log(1 + exp(-|x|)), whose terms are 0 or more; 0 |x| is 0, also where x is not."""
    q = np.where(x > 0, 1 - t, t)
    return np.where(q == 0, 0, abs(x) * q) + np.log1p(np.exp(-abs(x)))


def _binary_backward(x, t):
    """The gradients: sigmoid(x) - t, as q - sigmoid(-|x|) with the sign of x; and -x."""
    q, e = np.where(x > 0, 1 - t, t), np.exp(-abs(x))
    s = e / (1 + e)
    return np.where(x > 0, q - s, s - q), -x


# The loss of each number, and its gradients, by the name of the mean.
_MEANS = {
    "mean_squared_error": (_squares, _squares_backward),
    "binary_cross_entropy": (_binary, _binary_backward),
}


def _squares_forward(prediction, target, *, weights=None, mask=None):
    where = "mean_squared_error"
    arrays = {
        "prediction": real_array(where, "prediction", prediction),
        "target": real_array(where, "target", target),
    }
    return _mean_forward(where, arrays, weights, mask)


def _binary_forward(logits, targets, *, weights=None, mask=None):
    where = "binary_cross_entropy"
    arrays = {
        "logits": real_array(where, "logits", logits),
        "targets": plain_array(where, "targets", targets),
    }
    if arrays["targets"].dtype != bool:
        arrays["targets"] = real_array(where, "targets", targets)
    loss, saved, static = _mean_forward(where, arrays, weights, mask)
    t = saved[4]
    wrong = t[~((t >= 0) & (t <= 1))]
    if wrong.size:
        raise ValueError(f"{where}: targets must lie in 0..1, got {wrong[0]}")
    return loss, saved, static


@quiet
def _mean_forward(where, arrays, weights, mask):
    """The mean over the numbers that count; what backward needs."""
    (name, x), (other, t) = arrays.items()
    if x.shape != t.shape:
        raise ValueError(
            f"{where}: {other} must have the shape of {name}, got {name} {x.shape} and "
            f"{other} {t.shape}"
        )
    counted = None
    if mask is not None:
        mask = plain_array(where, "mask", mask)
        if mask.dtype != bool:
            raise TypeError(
                f"{where}: mask must be boolean (True: counts), got {mask.dtype} (write "
                "mask.astype(bool), or pass weights=)"
            )
        counted = _of_each(where, "mask", mask, x.shape)
    given = [x, t]
    if weights is not None:
        weights = real_array(where, "weights", weights)
        given.append(_of_each(where, "weights", weights, x.shape))
    dtype = computing_dtype([array for array in given if array.dtype != bool])
    given = [contiguous(a if counted is None else a[counted], dtype) for a in given]
    w, total = (given[2] if len(given) == 3 else None), given[0].size
    if w is not None:
        wrong = w[~((w >= 0) & (w < np.inf))]
        if wrong.size:
            raise ValueError(f"{where}: weights must be finite and 0 or more, got {wrong[0]}")
        total = float(w.sum(dtype=np.float64))
    loss = _mean_of(_MEANS[where][0], given, total)
    if math.isinf(loss):  # perhaps on the way alone
        loss = _mean_of(_MEANS[where][0], [a.astype(np.longdouble) for a in given], total)
    return dtype.type(loss), (x, t, weights, *given[:2], w, counted), (where, total)


def _of_each(where, name, array, shape):
    """An array with all axes, some perhaps of size 1, in this shape."""

    def fits(own):
        pairs = zip(own, shape, strict=False)
        return len(own) == len(shape) and all(n in (1, size) for n, size in pairs)

    if fits(array.shape):
        return np.broadcast_to(array, shape)
    more, fix = (1,) * (len(shape) - array.ndim), ""
    if fits((*array.shape, *more)):
        fix = f"; write {name}[..., {', '.join(['None'] * len(more))}]"
    elif fits((*more, *array.shape)):
        fix = f"; write {name}[{', '.join(['None'] * len(more))}]"
    raise ValueError(
        f"{where}: {name} must have shape {shape}, each axis of that size or 1, got "
        f"{array.shape}{fix}"
    )


def _mean_of(loss, given, total):
    """The mean of a loss, a sum in at least float64."""
    x, t, *weights = given
    losses = loss(x, t)
    for w in weights:
        losses = losses * w
    return losses.sum(dtype=np.result_type(losses, np.float64)) / (total or 1)


@quiet
def _mean_backward(saved, static, dloss):
    x, t, weights, *given, w, counted = saved
    (where, total), dloss, dtype = static, _incoming(static[0], dloss), given[0].dtype
    loss, backward = _MEANS[where]
    if _leaves_range(dloss / (total or 1), dtype):
        given, w = [a.astype(np.float64) for a in given], w if w is None else w.astype(np.float64)
    factor = given[0].dtype.type(dloss / (total or 1))
    gradients = [d * factor if w is None else d * (factor * w) for d in backward(*given)]
    if w is not None:  # of sum w l / sum w: (l_i - L) / sum w
        losses = loss(*given)
        gradients.append((losses - _mean_of(loss, [*given, w], total)) * (factor if total else 0))
    found: list[Any] = []
    for d, argument in zip(map(np.asarray, gradients), (x, t, weights), strict=False):
        if counted is not None:
            d, d[counted] = np.zeros(x.shape, d.dtype), d
        if argument.shape != x.shape:  # weights that were broadcast
            axes = tuple(k for k, size in enumerate(argument.shape) if size == 1)
            d = d.sum(axis=axes, keepdims=True, dtype=np.float64).astype(d.dtype)
        kept = argument.dtype != bool
        found.append(like(_narrowed(d, dtype), argument) if kept else None)
    return (*found, None)[:3]


# ---- Attention -----------------------------------------------------------------------------------


def coverage_loss(weights: Real, *, mask: Bools | None = None) -> float:
    """How much attention goes where it has been: mean over steps t of ``sum_j min(a_tj, c_tj)``.

    a_t are the weights of step t, c_t the sum of those of the steps before. See, Liu and Manning
    2017, "Get to the point: summarization with pointer-generator networks", eq. 12; they add it to
    the loss of the words, times 1, in a last phase of the training.

    Parameters
    ----------
    weights : array_like, shape (..., T, Tk)
        Of an `AttentionDecoder` (B, T, Tk). Real.
    mask : array_like of bool, shape (..., T), optional
        Which steps count, True for those that do, with every axis; an axis of size 1 broadcasts.
        The others, such as those behind the end of a sentence, are not read and cover nothing.

    Returns
    -------
    float
        Of the dtype in which weights are computed; 0..1 for weights that sum to 1. 0 where no step
        counts.

    Raises
    ------
    TypeError
        If weights are not real, mask not boolean, or an array masked or of another library.
    ValueError
        If weights have fewer than 2 axes, or the shape of mask does not fit.

    Notes
    -----
    Where both are equal the gradient goes to the steps before, so that of a first step there is
    none. `AttentionDecoder` and `Seq2Seq` take it as that
    of their weights: ``pullback(dloss, dweights=dweights)``.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> weights = np.array([[0.75, 0.25, 0.0], [0.5, 0.0, 0.5]])
    >>> loss, pullback = attnc.vjp(attnc.losses.coverage_loss, weights)
    >>> loss  # (0 + 0.5) / 2: nothing is covered before the first step
    np.float64(0.25)
    >>> pullback().weights
    array([[0. , 0. , 0.5],
           [0.5, 0.5, 0. ]])
    """
    return _coverage_forward(weights, mask=mask)[0]


@quiet
def _coverage_forward(weights, *, mask=None):
    where = "coverage_loss"
    given = real_array(where, "weights", weights)
    if given.ndim < 2:
        raise ValueError(f"{where}: weights must have shape (..., T, Tk), got {given.shape}")
    counted = np.ones(given.shape[:-1], bool)
    if mask is not None:
        mask = plain_array(where, "mask", mask)
        if mask.dtype != bool:
            raise TypeError(
                f"{where}: mask must be boolean (True: counts), got {mask.dtype} (write "
                "mask.astype(bool))"
            )
        counted = _of_each(where, "mask", mask, given.shape[:-1])
    a = np.where(counted[..., None], given, 0).astype(np.float64)
    before = np.cumsum(a, axis=-2) - a
    steps = int(counted.sum())
    loss = np.minimum(a, before).sum() / (steps or 1)
    return computing_dtype([given]).type(loss), (weights, a, before, counted), steps


@quiet
def _coverage_backward(saved, steps, dloss):
    weights, a, before, counted = saved
    factor = _incoming("coverage_loss", dloss) / (steps or 1)
    again = a >= before  # min = before, the sum of the steps before
    later = np.cumsum(again[..., ::-1, :], axis=-2)[..., ::-1, :] - again
    d = np.where(counted[..., None], factor * (later + ~again), 0)
    return (like(_narrowed(d, computing_dtype([np.asarray(weights)])), weights),)


# ---- forward mode and second order ---------------------------------------------------------------


def _derivatives(function: Any) -> dict[str, Any]:
    """A loss is one number: its tangent is the product of its gradients with the tangents."""

    @quiet
    def jvp(tangents, *arrays, **options):
        record: Any = record_of(function)
        loss, *kept = record.forward(*arrays, **options)
        gradients = dict(zip(record.arrays, record.backward(*kept, None), strict=True))
        return loss, loss.dtype.type(_along(tangents, gradients))

    @quiet
    def jvp_jvp(tangents, others, *arrays, **options):
        record: Any = record_of(function)
        loss, *_ = record.forward(*arrays, **options)
        incoming = (loss.dtype.type(1),), (None,)
        moved = record.backward_jvp(tangents, *incoming, *arrays, **options)
        return loss.dtype.type(_along(others, dict(zip(record.arrays, moved, strict=True))))

    return by_formula(function) | {"jvp": jvp, "jvp_jvp": jvp_jvp}


def _along(tangents: dict[str, Any], gradients: dict[str, Any]) -> Any:
    """The product of gradients, or of their tangents, with the tangents of the arrays."""
    total = 0.0
    for name, tangent in tangents.items():
        if tangent is not None:  # what is not read has gradient 0, and 0 times NaN is NaN
            d = gradients[name].astype(np.float64)
            total += np.where(d == 0, 0, d * np.asarray(tangent, np.float64)).sum()
    return total


register(
    softmax_cross_entropy,
    required=("logits",),
    incoming=("dloss",),
    forward=_softmax_forward,
    backward=_softmax_backward,
    outputs=number_alone,
    fixed=("targets",),
    **_derivatives(softmax_cross_entropy),
)
register(
    linear_cross_entropy,
    required=("x", "weight"),
    optional=("bias",),
    incoming=("dloss",),
    forward=_linear_forward,
    backward=_linear_backward,
    outputs=number_alone,
    fixed=("targets",),
    **_derivatives(linear_cross_entropy),
)
register(
    mean_squared_error,
    required=("prediction", "target"),
    optional=("weights",),
    incoming=("dloss",),
    forward=_squares_forward,
    backward=_mean_backward,
    outputs=number_alone,
    fixed=("mask",),
    **_derivatives(mean_squared_error),
)
register(
    binary_cross_entropy,
    required=("logits", "targets"),
    optional=("weights",),
    incoming=("dloss",),
    forward=_binary_forward,
    backward=_mean_backward,
    outputs=number_alone,
    fixed=("mask",),
    **_derivatives(binary_cross_entropy),
)
register(
    coverage_loss,
    required=("weights",),
    incoming=("dloss",),
    forward=_coverage_forward,
    backward=_coverage_backward,
    outputs=number_alone,
    fixed=("mask",),
    **_derivatives(coverage_loss),
)

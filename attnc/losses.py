"""Losses: functions that `attnc.vjp` knows.

A loss is one number, so its pullback needs no argument: ``pullback()`` is ``pullback(1.0)``.
"""

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
from .gradients import Gradients, register_vjp

__all__ = ["linear_cross_entropy", "softmax_cross_entropy"]


def softmax_cross_entropy(logits, targets, *, ignore_index=None, label_smoothing=0.0):
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
    return _softmax_cross_entropy_vjp(
        logits, targets, ignore_index=ignore_index, label_smoothing=label_smoothing
    )[0]


def _softmax_cross_entropy_vjp(logits, targets, *, ignore_index=None, label_smoothing=0.0):
    where = "softmax_cross_entropy"
    logits = real_array(where, "logits", logits)
    targets = integer_array(where, "targets", targets)
    if logits.ndim < 1 or targets.shape != logits.shape[:-1] or not logits.shape[-1]:
        raise ValueError(
            f"{where}: targets must have the shape of logits without its last axis, "
            f"got logits {logits.shape} and targets {targets.shape}"
        )
    smoothing = _smoothing(where, label_smoothing)
    shape, classes = logits.shape, logits.shape[-1]
    counted = _counted(where, targets, classes, ignore_index)
    dtype = computing_dtype([logits])
    rows = contiguous(logits, dtype).reshape(targets.size, classes)
    wanted = np.where(counted, targets.astype(np.int64), -1).reshape(-1)
    count = max(np.count_nonzero(counted), 1)
    losses, saved = _core.cross_entropy(rows, wanted, smoothing)

    def pullback(dloss=None):
        dloss = _incoming(where, dloss)
        if _leaves_range(dloss, dtype):
            _, wide = _softmax_cross_entropy_vjp(
                rows.astype(np.float64).reshape(shape),
                targets,
                ignore_index=ignore_index,
                label_smoothing=smoothing,
            )
            return Gradients({"logits": like(wide(dloss).logits, logits)})
        factor = (dloss if np.isfinite(dloss) else 1.0) / count
        dlogits = _core.cross_entropy_backward(rows, wanted, smoothing, saved, factor, False)
        if not np.isfinite(dloss):
            with np.errstate(all="ignore"):
                dlogits[wanted >= 0] *= dloss
        return Gradients({"logits": like(dlogits.reshape(shape), logits)})

    return _mean(losses, rows, wanted, smoothing, count), pullback


def linear_cross_entropy(x, weight, targets, *, bias=None, ignore_index=None, label_smoothing=0.0):
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
    return _linear_cross_entropy(x, weight, targets, bias, ignore_index, label_smoothing, False)[0]


def _linear_cross_entropy_vjp(
    x, weight, targets, *, bias=None, ignore_index=None, label_smoothing=0.0
):
    return _linear_cross_entropy(x, weight, targets, bias, ignore_index, label_smoothing, True)


def _linear_cross_entropy(x, weight, targets, bias, ignore_index, label_smoothing, differentiate):
    """The loss and, with `differentiate`, the pullback."""
    where = "linear_cross_entropy"
    arrays = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    arrays = {name: real_array(where, name, array) for name, array in arrays.items()}
    targets = integer_array(where, "targets", targets)
    _check_linear(where, arrays, targets)
    smoothing = _smoothing(where, label_smoothing)
    dtype = computing_dtype(arrays.values())
    x, weight, *biases = (contiguous(array, dtype) for array in arrays.values())
    counted = _counted(where, targets, weight.shape[1], ignore_index)
    places = np.flatnonzero(counted)
    count = max(places.size, 1)
    rows = x.reshape(targets.size, len(weight))[places]
    wanted = targets.reshape(-1)[places].astype(np.int64)

    logits = _core.product(rows, weight)
    with np.errstate(all="ignore"):
        for bias in biases:
            logits += bias
    losses, saved = _core.cross_entropy(logits, wanted, smoothing)
    loss = _mean(losses, logits, wanted, smoothing, count)
    if not differentiate:
        return loss, None
    dlogits = _core.cross_entropy_backward(logits, wanted, smoothing, saved, 1 / count, True)

    def pullback(dloss=None):
        dloss = _incoming(where, dloss)
        if _leaves_range(dloss, dtype):
            wide = [array.astype(np.float64) for array in (x, weight, *biases)]
            _, back = _linear_cross_entropy(
                *wide[:2], targets, *(wide[2:] or [None]), ignore_index, smoothing, True
            )
            gradients = vars(back(dloss)).values()
        else:
            dx = np.zeros((targets.size, len(weight)), dtype)
            parts = [_core.product(dlogits, weight.T), _core.product(rows.T, dlogits)]
            parts += [sum_rows(dlogits) for _ in biases]
            if dloss != 1 and places.size:  # else they are 0, also where dloss is not finite
                with np.errstate(all="ignore"):
                    for part in parts:
                        part *= dtype.type(dloss)
            dx[places] = parts[0]
            gradients = [dx.reshape(x.shape), *parts[1:]]
        named = {
            name: like(gradient, array)
            for (name, array), gradient in zip(arrays.items(), gradients, strict=True)
        }
        return Gradients({name: named.pop(name) for name in ("x", "weight")}, named)

    return loss, pullback


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
    least, most = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    return dtype != np.float64 and dloss != 0 and not least <= abs(dloss) <= most


def _mean(losses, rows, wanted, smoothing, count):
    """The sum of the losses of all rows by their count, in the dtype of the logits `rows`."""
    with np.errstate(all="ignore"):
        if np.isinf(losses.sum()):
            for r in np.flatnonzero(np.isinf(losses)):
                losses[r] = _far_loss(rows[r], wanted[r], smoothing)
                if np.isinf(losses[r]):
                    break
            losses /= count  # before they are summed: the sum may be too large
            count = 1
        return rows.dtype.type(losses.sum() / count)


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
    """Which targets count, once those that do are known to be classes."""
    counted = np.ones(targets.shape, bool)
    if ignore_index is not None:
        ignore_index, held = integer(where, "ignore_index", ignore_index), np.iinfo(targets.dtype)
        if held.min <= ignore_index <= held.max:  # else none is equal to it
            counted = targets != targets.dtype.type(ignore_index)
    found = targets[counted]
    if found.size and not 0 <= found.min() <= found.max() < classes:
        raise ValueError(
            f"{where}: targets must lie in 0..{classes - 1}, got {found.min()}..{found.max()}"
            + ("" if ignore_index is not None else " (padding? pass ignore_index=)")
        )
    return counted


register_vjp(softmax_cross_entropy, _softmax_cross_entropy_vjp)
register_vjp(linear_cross_entropy, _linear_cross_entropy_vjp)

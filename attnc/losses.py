"""Losses: functions that `attnc.vjp` knows."""

import numpy as np

from . import _core
from .arrays import computing_dtype, contiguous, like, real_array
from .gradients import Gradients, register_vjp

__all__ = ["softmax_cross_entropy"]


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
        If logits are not real or targets are not integers.
    ValueError
        If the shapes do not match, or a target or label_smoothing is out of range.

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
    given, logits = logits, real_array("softmax_cross_entropy", "logits", logits)
    targets = np.asarray(targets)
    _check(logits, targets, label_smoothing)
    classes = logits.shape[-1]
    counted = np.ones(targets.shape, bool) if ignore_index is None else targets != ignore_index
    found = targets[counted]
    if found.size and not 0 <= found.min() <= found.max() < classes:
        raise ValueError(
            f"softmax_cross_entropy: targets must lie in 0..{classes - 1}, "
            f"got {found.min()}..{found.max()}"
            + ("" if ignore_index is not None else " (padding? pass ignore_index=)")
        )
    dtype = computing_dtype([logits])
    shape = logits.shape
    rows = contiguous(logits, dtype).reshape(targets.size, classes)
    wanted = np.where(counted, targets.astype(np.int64), -1).reshape(-1)
    count = max(found.size, 1)
    losses, saved = _core.cross_entropy(rows, wanted, label_smoothing)

    def pullback(dloss=1.0):
        factor = float(dloss) / count
        dlogits = _core.cross_entropy_backward(rows, wanted, label_smoothing, saved, factor)
        return Gradients({"logits": like(dlogits.reshape(shape), given)})

    return dtype.type(losses.sum() / count), pullback


def _check(logits, targets, label_smoothing):
    if targets.dtype.kind not in "iu":
        raise TypeError(f"softmax_cross_entropy: targets must be integers, got {targets.dtype}")
    if logits.ndim < 1 or targets.shape != logits.shape[:-1] or not logits.shape[-1]:
        raise ValueError(
            "softmax_cross_entropy: targets must have the shape of logits without its "
            f"last axis, got logits {logits.shape} and targets {targets.shape}"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            "softmax_cross_entropy: label_smoothing must lie in 0 <= label_smoothing < 1, "
            f"got {label_smoothing}"
        )


register_vjp(softmax_cross_entropy, _softmax_cross_entropy_vjp)

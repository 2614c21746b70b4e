"""Losses: functions that `attnc.vjp` knows."""

import numpy as np

from .gradients import Gradients, register_vjp

__all__ = ["softmax_cross_entropy"]


def softmax_cross_entropy(logits, targets, *, ignore_index=None):
    """Mean over the targets of ``-log softmax(logits)[target]``, in nats.

    Parameters
    ----------
    logits : array_like, shape (..., V)
        Scores of the V classes. Real.
    targets : array_like of int, shape (...)
        Class of each, in 0..V-1, or ignore_index.
    ignore_index : int, optional
        A target that does not count, such as the padding token. Its logits are not read.

    Returns
    -------
    float
        Of the logits' dtype. 0 where no target counts.

    Raises
    ------
    TypeError
        If logits are not real or targets are not integers.
    ValueError
        If the shapes do not match or a target is out of range.

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
    return _softmax_cross_entropy_vjp(logits, targets, ignore_index=ignore_index)[0]


def _softmax_cross_entropy_vjp(logits, targets, *, ignore_index=None):
    logits, targets = np.asarray(logits), np.asarray(targets)
    _check(logits, targets)
    floating = logits.dtype.kind == "f"
    dtype = np.result_type(logits, np.float32) if floating else np.dtype(np.float64)
    classes = logits.shape[-1]
    counted = targets != ignore_index if ignore_index is not None else np.ones(targets.shape, bool)
    target = targets[counted]
    if target.size and not 0 <= target.min() <= target.max() < classes:
        raise ValueError(
            f"softmax_cross_entropy: targets must lie in 0..{classes - 1}, "
            f"got {target.min()}..{target.max()}"
            + ("" if ignore_index is not None else " (padding? pass ignore_index=)")
        )

    # log softmax(x)[i] = x_i - m - log sum_j exp(x_j - m) with m = max(x), over counted rows alone
    rows = logits[counted].astype(dtype, copy=False)
    rows -= rows.max(axis=-1, keepdims=True) if target.size else 0
    index = np.arange(target.size), target
    picked = rows[index]
    np.exp(rows, out=rows)
    total = rows.sum(axis=-1)
    losses = np.log(total) - picked
    loss = losses.sum(dtype=np.float64) / max(target.size, 1)
    rows /= total[:, None]  # now the probabilities

    def pullback(dloss=1.0):
        # in the forward pass: loss = mean of -log softmax; its gradient is softmax - one_hot
        drows = rows.copy()
        drows[index] -= 1
        drows *= dtype.type(float(dloss) / max(target.size, 1))
        dlogits = np.zeros(logits.shape, logits.dtype.newbyteorder("=") if floating else dtype)
        dlogits[counted] = drows.astype(dlogits.dtype)
        return Gradients({"logits": dlogits})

    return dtype.type(loss), pullback


def _check(logits, targets):
    if logits.dtype.kind not in "fiu" or logits.dtype.itemsize > 8:
        raise TypeError(f"softmax_cross_entropy: logits must be real, got {logits.dtype}")
    if targets.dtype.kind not in "iu":
        raise TypeError(f"softmax_cross_entropy: targets must be integers, got {targets.dtype}")
    if logits.ndim < 1 or targets.shape != logits.shape[:-1]:
        raise ValueError(
            "softmax_cross_entropy: targets must have the shape of logits without its "
            f"last axis, got logits {logits.shape} and targets {targets.shape}"
        )


register_vjp(softmax_cross_entropy, _softmax_cross_entropy_vjp)

"""Monotonic attention: expected alignments that go from left to right, forward and backward in C.

A query begins where the query before it stopped, looks at key after key, and stops at each with a
probability; the one that it stops at is the one it attends to. `monotonic_alignment` turns these
probabilities into the distribution of where every query stops, without sampling.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from attnc import _core
from attnc.arrays import (
    boolean_mask,
    broadcasts,
    computing_dtype,
    contiguous,
    integer_array,
    like,
    quiet,
    real_array,
    result_dtype,
    sum_to,
)
from attnc.functional.shapes import shape_of
from attnc.gradients import shows_shapes
from attnc.registry import Output, register
from attnc.typing import Array, Bools, Integers, Real

__all__ = ["monotonic_alignment"]


@shows_shapes
class MonotonicAlignment(NamedTuple):
    """What `monotonic_alignment` returns."""

    alignment: Array
    missing: Array


def monotonic_alignment(
    probability: Real,
    previous: Real | None = None,
    *,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
) -> MonotonicAlignment:
    """Where queries stop that go over the keys from left to right: exact, and differentiable.

    Parameters
    ----------
    probability : array_like
        ``(..., Tq, Tk)``, in 0..1: that query ``i``, once at key ``j``, stops there. Mostly
        ``sigmoid(energy)``, to which noise is added in training so that it learns to be 0 or 1.
    previous : array_like, optional
        ``(..., Tk)``: where the query before the first one stopped, the last row of an earlier
        alignment; axes of size 1 broadcast. All at the first key unless given.
    key_mask : array of bool, optional
        ``(..., Tk)``, True: a query may stop at this key. It has every axis, and axes of size 1
        broadcast. At other keys the probability counts as 0, and is not read.
    key_lengths : int or array of int, optional
        ``(...,)``, in ``0..Tk``: queries may stop at keys ``j < length``.

    Returns
    -------
    alignment : ndarray
        ``(..., Tq, Tk)``: the probability that query ``i`` stops at key ``j``. Each row sums to
        ``1 - missing``, to rounding.
    missing : ndarray
        ``(..., Tq)``: the probability that query ``i`` stops nowhere. A query that walks past the
        last key leaves nothing for those after it to begin at, so it never falls from a query to
        the next. Where `previous` is given, what that lacks of 1 is missing from the beginning,
        rounded like the sum of a row; else it is never below 0, and exact however small.

    Raises
    ------
    TypeError
        If an array is not real, or masked or of another library, or a mask is not boolean.
    ValueError
        If shapes do not fit, or a probability that is read lies outside 0..1. NaN passes: it makes
        all that is computed from it NaN.

    See Also
    --------
    attnc.chunkwise_attention : attention to some keys up to the one where a query stops
    attnc.MonotonicAttention : the layer, from energies to contexts
    attnc.vjp : the gradients, ``pullback(dalignment, dmissing)``: ``.probability``, ``.previous``

    Notes
    -----
    With ``q_ij`` the probability that query i reaches key j, it is the recurrence::

        q_ij = (1 - p_i,j-1) q_i,j-1 + a_i-1,j        a_ij = p_ij q_ij

    of Raffel et al. 2017, "Online and linear-time attention by enforcing monotonic alignments",
    eq. 8 to 10, in O(Tk) for each query, forward and backward. There is no quotient in it, so
    probabilities of 0 and 1 are like any others, where the parallel form of the paper divides by a
    product that vanishes. ``context = alignment @ value``.

    To decode is the same with probabilities of 0 and 1:
    ``monotonic_alignment((probability >= 0.5).astype(float), previous)`` has a single 1 in a row,
    or none, after which all rows are 0.

    Computed in float32 or float64, whatever `numpy.result_type` of the arrays says; float16 and
    bfloat16 are computed in float32, integers and lists in float64. Same bits for any number of
    threads; and the alignment of rows one at a time has the bits of all at once (but for halves,
    which are rounded between).

    Examples
    --------
    >>> import numpy as np, attnc
    >>> alignment, missing = attnc.monotonic_alignment([[0.5, 0.5, 0.5], [0.0, 1.0, 0.0]])
    >>> alignment
    array([[0.5  , 0.25 , 0.125],
           [0.   , 0.75 , 0.   ]])
    >>> missing
    array([0.125, 0.25 ])
    """
    return _run(probability, previous, key_mask, key_lengths, save=False)[0]


WHERE = "monotonic_alignment"


def _forward(probability, previous=None, *, key_mask=None, key_lengths=None):
    return _run(probability, previous, key_mask, key_lengths, save=True)


def _run(probability, previous, key_mask, key_lengths, save):
    probability = real_array(WHERE, "probability", probability)
    shape = probability.shape
    if len(shape) < 2:
        raise ValueError(
            f"{WHERE}: probability must have at least 2 axes (query, key), got shape {shape}"
        )
    keys = shape[:-2] + shape[-1:]
    given = [probability]
    if previous is not None:
        previous = real_array(WHERE, "previous", previous)
        # The axis of keys is no axis to broadcast: that would be another distribution.
        if previous.shape[-1:] != keys[-1:] or not broadcasts(previous.shape, keys):
            raise ValueError(
                f"{WHERE}: previous must have shape {keys}, one axis for each axis of probability "
                f"but that of queries, leading ones equal or 1, got {previous.shape}"
            )
        given.append(previous)
    allowed = allowed_keys(WHERE, keys, key_mask, key_lengths)
    dtype = computing_dtype(given)
    p = contiguous(probability, dtype)
    before = previous
    if before is not None:
        before = np.ascontiguousarray(np.broadcast_to(contiguous(before, dtype), keys))
    reach, least, most = None, 0.0, 0.0
    if p.size:
        alignment, missing, reach, least, most = _core.monotonic(p, before, allowed, save)
    else:  # of no keys all is missing
        alignment, missing = np.empty(shape, dtype), np.ones(shape[:-1], dtype)
    if least < 0 or most > 1:
        raise ValueError(
            f"{WHERE}: probability must lie in 0..1 where a key may be attended to, got "
            f"{least if least < 0 else most:.9g}; of an energy it is 1 / (1 + exp(-energy))"
        )
    result = np.empty(0, result_dtype(given))
    output = MonotonicAlignment(like(alignment, result), like(missing, result))
    dtypes = [None if x is None else np.empty(0, x.dtype) for x in (probability, previous)]
    back = None if previous is None else previous.shape
    return output, (p, reach, allowed), (dtypes, back)


@quiet
def _backward(saved, static, dalignment, dmissing):
    (p, reach, allowed), (dtypes, previous) = saved, static
    if dalignment is not None:
        dalignment = incoming(WHERE, "dalignment", dalignment, p.shape, p.dtype)
    if dmissing is not None:
        dmissing = incoming(WHERE, "dmissing", dmissing, p.shape[:-1], p.dtype)
    keys = p.shape[:-2] + p.shape[-1:]
    if p.size:
        dp, dbefore = _core.monotonic_backward(
            dalignment, dmissing, p, reach, allowed, previous is not None
        )
    else:
        dp, dbefore = np.zeros_like(p), np.zeros(keys, p.dtype)
        if dmissing is not None:  # no query: nothing comes; no key: there is nothing to come to
            dbefore -= dmissing.sum(-1)[..., None]
    if previous is not None:
        dbefore = like(sum_to(dbefore, previous), dtypes[1])
    return like(dp, dtypes[0]), dbefore if previous is not None else None


def _outputs(probability, previous=None, **masks):
    shape = shape_of(probability)
    return MonotonicAlignment(Output(shape), Output(shape[:-1]))


register(
    monotonic_alignment,
    required=("probability",),
    optional=("previous",),
    incoming=("dalignment", "dmissing"),
    forward=_forward,
    backward=_backward,
    outputs=_outputs,
    fixed=("key_mask", "key_lengths"),
    leading=("probability", "previous", "key_mask", "key_lengths"),
)

# ---- what chunkwise attention shares -------------------------------------------------------------


def allowed_keys(
    where: str, keys: tuple[int, ...], key_mask: Bools | None, key_lengths: Integers | None
) -> Array | None:
    """The keys that may be attended to, by mask and lengths: bools of shape `keys`; None: all."""
    allowed = None
    if key_mask is not None:
        allowed = boolean_mask(where, "key_mask", key_mask, keys, "(..., Tk)")
    if key_lengths is not None:
        lengths, most = integer_array(where, "key_lengths", key_lengths), keys[-1]
        if lengths.ndim and not broadcasts(lengths.shape, keys[:-1]):
            raise ValueError(
                f"{where}: key_lengths must be an integer or have shape {keys[:-1]}, one axis for "
                f"each leading axis, equal or 1, got {lengths.shape}"
            )
        if lengths.size and not 0 <= lengths.min() <= lengths.max() <= most:
            wrong = lengths.min() if lengths.min() < 0 else lengths.max()
            raise ValueError(
                f"{where}: key_lengths must lie in 0..{most}, the number of keys, got {wrong}"
            )
        within = np.arange(most) < lengths[..., None]
        allowed = within if allowed is None else allowed & within
    return None if allowed is None else np.ascontiguousarray(np.broadcast_to(allowed, keys))


def incoming(
    where: str, name: str, gradient: Real, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """An incoming gradient as C takes it: of floats, of exactly the shape of its output."""
    array = real_array(where, name, gradient)
    if array.dtype.kind in "iu":
        raise TypeError(f"{where}: {name} must have a float dtype, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(
            f"{where}: {name} must have the shape of its output, {shape}, got {array.shape}"
        )
    return contiguous(array, dtype)

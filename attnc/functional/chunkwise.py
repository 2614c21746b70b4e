"""Monotonic chunkwise attention: soft attention to the keys just before where a query stops.

`attnc.monotonic_alignment` says where that is; the weights of the keys in a chunk come from scores
of their own.
"""

from __future__ import annotations

from typing import Literal, overload

import numpy as np

from attnc import _core
from attnc.arrays import (
    computing_dtype,
    contiguous,
    flag,
    integer,
    like,
    quiet,
    real_array,
    result_dtype,
    sum_to,
)
from attnc.functional.attention import WeightsResult
from attnc.functional.monotonic import allowed_keys, incoming
from attnc.functional.shapes import broadcast, shape_of
from attnc.registry import Output, register
from attnc.typing import Array, Bools, Integers, Real

__all__ = ["chunkwise_attention"]


@overload
def chunkwise_attention(
    alignment: Real,
    scores: Real,
    value: Real,
    width: int,
    *,
    key_mask: Bools | None = ...,
    key_lengths: Integers | None = ...,
    return_weights: Literal[False] = ...,
) -> Array: ...
@overload
def chunkwise_attention(
    alignment: Real,
    scores: Real,
    value: Real,
    width: int,
    *,
    key_mask: Bools | None = ...,
    key_lengths: Integers | None = ...,
    return_weights: Literal[True],
) -> WeightsResult: ...
def chunkwise_attention(
    alignment: Real,
    scores: Real,
    value: Real,
    width: int,
    *,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
    return_weights: bool = False,
) -> Array | WeightsResult:
    """Attention by softmax to the chunk of keys that ends where a query stops, in expectation.

    Parameters
    ----------
    alignment : array_like
        ``(..., Tq, Tk)``: the probability that query ``i`` stops at key ``k``, from
        `attnc.monotonic_alignment`. Leading axes are those of the other arrays or 1.
    scores : array_like
        ``(..., Tq, Tk)``: the scores of the softmax within a chunk.
    value : array_like
        ``(..., Tk, Dv)``; any Dv.
    width : int
        Keys of a chunk, 1 or more: key ``k`` and those before it. With 1 the context is
        ``alignment @ value``; with ``Tk`` or more every chunk begins at the first key.
    key_mask : array of bool, optional
        ``(..., Tk)``, True: this key may be attended to. It has every axis, and axes of size 1
        broadcast. What other keys have is not read; a chunk counts them as not there.
    key_lengths : int or array of int, optional
        ``(...,)``, in ``0..Tk``: keys ``j < length`` may be attended to.
    return_weights : bool, default False
        Return the weights ``(..., Tq, Tk)`` as well.

    Returns
    -------
    context : ndarray
        ``(..., Tq, Dv)``; with `return_weights` a named tuple ``(context, weights)``. The weights
        of a query sum to the sum of its alignment, less what stops at keys that are masked, or in
        chunks without a key to attend to: that passes nothing.

    Raises
    ------
    TypeError
        If an array is not real, or masked or of another library, or a mask is not boolean.
    ValueError
        If shapes do not fit, or the width is below 1.

    See Also
    --------
    attnc.monotonic_alignment : where queries stop
    attnc.ChunkwiseAttention : the layer
    attnc.vjp : the gradients, ``pullback(dcontext, dweights=None)``

    Notes
    -----
    With alignment a, scores u and width w the weight of key l is ::

        b_il = sum_{k=l}^{l+w-1} a_ik exp(u_il) / sum_{m=k-w+1}^{k} exp(u_im)

    Chiu and Raffel 2018, "Monotonic chunkwise attention", eq. 22 and 23; with chunks that begin at
    the first key it is the infinite lookback of Arivazhagan et al. 2019. Each chunk is taken
    relative to its own largest score, so that nothing has to be clipped: scores of any size give
    the softmax to rounding. Time grows with the logarithm of the width; besides arrays
    ``(..., Tq, Tk)`` nothing is stored. A score of ``-inf`` excludes like a mask, of that pair
    alone; ``+inf`` and NaN make what their chunks reach NaN.

    Computed in float32 or float64, whatever `numpy.result_type` of the arrays says; float16 and
    bfloat16 are computed in float32, integers and lists in float64. The context has the same bits
    with and without the weights, and for any number of threads.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> alignment = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    >>> scores, value = np.log([[1.0, 3.0, 9.0]] * 2), [[8.0], [16.0], [32.0]]
    >>> attnc.chunkwise_attention(alignment, scores, value, 2).round(4)
    array([[14.],
           [28.]])
    """
    output, _, _ = _forward(
        alignment,
        scores,
        value,
        width,
        key_mask=key_mask,
        key_lengths=key_lengths,
        return_weights=return_weights,
    )
    return output


WHERE = "chunkwise_attention"


@quiet
def _forward(
    alignment, scores, value, width, *, key_mask=None, key_lengths=None, return_weights=False
):
    names = "alignment", "scores", "value"
    given = [
        real_array(WHERE, name, x)
        for name, x in zip(names, (alignment, scores, value), strict=True)
    ]
    width = integer(WHERE, "width", width, 1)
    return_weights = flag(WHERE, "return_weights", return_weights)
    pairs, rows = _shapes(*given)
    width = min(width, max(pairs[-1], 1))  # all of them; in C it has to be a size
    allowed = allowed_keys(WHERE, rows[:-1], key_mask, key_lengths)
    dtype = computing_dtype(given)
    a, u, v = (
        np.ascontiguousarray(np.broadcast_to(contiguous(x, dtype), shape))
        for x, shape in zip(given, (pairs, pairs, rows), strict=True)
    )
    if allowed is not None:  # 0 times what is behind a mask would be NaN, where that is
        v = np.where(allowed[..., None], v, dtype.type(0))
    weights = _core.chunkwise(a, u, allowed, width) if a.size else np.empty(pairs, dtype)
    context = _products(weights, v)
    result = np.empty(0, result_dtype(given))
    output = like(context, result)
    if return_weights:  # their own copy: backward needs these as they are
        shown = like(weights, result)
        output = WeightsResult(output, shown.copy() if shown is weights else shown)
    arrays = [(np.empty(0, x.dtype), x.shape) for x in given]
    return output, (a, u, v, weights, allowed), (width, arrays, return_weights)


@quiet
def _backward(saved, static, dcontext, dweights):
    (a, u, v, weights, allowed), (width, arrays, return_weights) = saved, static
    if dweights is not None and not return_weights:
        raise ValueError(f"{WHERE}: dweights must be None unless return_weights=True was asked for")
    if dweights is not None:
        dweights = incoming(WHERE, "dweights", dweights, a.shape, a.dtype)
    if dcontext is None:
        dv = np.zeros_like(v)
    else:
        dcontext = incoming(WHERE, "dcontext", dcontext, (*a.shape[:-1], v.shape[-1]), a.dtype)
        # In the forward pass this was: context = weights @ v.
        dv = _products(weights.swapaxes(-1, -2), dcontext)
        if allowed is not None:
            dv[~allowed] = 0
        through = _products(dcontext, v.swapaxes(-1, -2))
        dweights = through if dweights is None else through + dweights
    if a.size:
        da, du = _core.chunkwise_backward(a, u, allowed, width, dweights)
    else:
        da, du = np.zeros_like(a), np.zeros_like(u)
    return tuple(
        like(sum_to(gradient, shape), x)
        for gradient, (x, shape) in zip((da, du, dv), arrays, strict=True)
    )


def _shapes(alignment, scores, value):
    """Of pairs and of values, with the leading axes of all."""
    shapes = alignment.shape, scores.shape, value.shape
    shown = f"alignment {shapes[0]}, scores {shapes[1]}, value {shapes[2]}"
    for name, shape in zip(("alignment", "scores", "value"), shapes, strict=True):
        if len(shape) < 2 or len(shape) != len(shapes[0]):
            raise ValueError(
                f"{WHERE}: {name} must have 2 axes or more, as many as the others, got {shown}"
            )
    if shapes[1][-2:] != shapes[0][-2:]:
        raise ValueError(
            f"{WHERE}: scores must have a row for each query and a column for each key of "
            f"alignment, {shapes[0][-2:]}, got {shown}"
        )
    if shapes[2][-2] != shapes[0][-1]:
        raise ValueError(
            f"{WHERE}: value must have one row for each column of alignment, {shapes[0][-1]}, got "
            f"{shown}"
        )
    try:
        lead = np.broadcast_shapes(*(shape[:-2] for shape in shapes))
    except ValueError:
        raise ValueError(
            f"{WHERE}: value must have the leading axes (batch, heads) of the other arrays, equal "
            f"or 1, got {shown}"
        ) from None
    return (*lead, *shapes[0][-2:]), (*lead, *shapes[2][-2:])


def _products(a, b):
    """a @ b, by the product whose bits do not depend on the number of threads."""
    lead = a.shape[:-2]
    flat = [
        x.reshape(-1, *x.shape[-2:]) if x.size else np.empty((0, *x.shape[-2:]), x.dtype)
        for x in (a, b)
    ]
    if not a.size or not b.size:
        return np.zeros((*lead, a.shape[-2], b.shape[-1]), a.dtype)
    return _core.products(*flat).reshape(*lead, a.shape[-2], b.shape[-1])


def _outputs(alignment, scores, value, width, *, return_weights=False, **masks):
    shapes = [shape_of(x) for x in (alignment, scores, value)]
    lead = broadcast(*(shape[:-2] for shape in shapes))
    context = Output((*lead, shapes[0][-2], shapes[2][-1]))
    return WeightsResult(context, Output(lead + shapes[0][-2:])) if return_weights else context


register(
    chunkwise_attention,
    required=("alignment", "scores", "value"),
    incoming=("dcontext", "dweights"),
    positional=1,
    forward=_forward,
    backward=_backward,
    outputs=_outputs,
    fixed=("key_mask", "key_lengths"),
    leading=("alignment", "scores", "value", "key_mask", "key_lengths"),
)

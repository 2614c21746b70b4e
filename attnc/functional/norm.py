"""Normalisation of the last axis: layer norm and RMS norm.

Both divide a row by a measure of its size and then scale each feature:

    layer norm   y = (x - mean) / sqrt(var + epsilon) * weight + bias
    RMS norm     y = x / sqrt(mean of x^2 + epsilon) * weight

`normalize` and `normalize_backward` are what the layers call, on arrays that are checked already.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attnc import _core
from attnc.arrays import (
    computing_dtype,
    contiguous,
    like,
    number,
    real_array,
    result_dtype,
    sum_rows,
)
from attnc.functional.plain import by_formula
from attnc.functional.shapes import same_shape
from attnc.mode import mode
from attnc.registry import register
from attnc.typing import Array, Real

__all__ = ["layer_norm", "rms_norm"]


def layer_norm(
    x: Real, weight: Real | None = None, bias: Real | None = None, *, epsilon: float = 1e-5
) -> Array:
    """Layer normalisation: each row has mean 0 and variance 1, then a scale and a shift.

    ``y = (x - mean) / sqrt(var + epsilon) * weight + bias``, with the mean and the variance (of n
    numbers, divided by n) of the last axis: Ba, Kiros and Hinton 2016, "Layer normalization".

    Parameters
    ----------
    x : array_like, shape (..., n)
        Real; n is at least 1.
    weight, bias : array_like, shape (n,), optional
        The scale and the shift of each feature; 1 and 0 unless given.
    epsilon : float, default 1e-5
        Above 0: what a row without variance is divided by is its root.

    Returns
    -------
    ndarray, shape (..., n)
        Of the dtype of the arrays; float16 and bfloat16 are computed in float32.

    Raises
    ------
    TypeError
        If an array is not real, or masked or of another library, or epsilon is not a number.
    ValueError
        If a shape does not fit or epsilon is not above 0.

    See Also
    --------
    rms_norm : without the mean and the shift
    attnc.LayerNorm : the layer
    attnc.vjp : the gradients, ``pullback(dy)``: ``.x``, ``.weight``, ``.bias``

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.functional.layer_norm(np.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]])
    """
    return _forward("layer_norm", x, weight, bias, epsilon, center=True)[0]


def rms_norm(x: Real, weight: Real | None = None, *, epsilon: float = 1e-6) -> Array:
    """Root mean square normalisation: each row has a mean square of 1, then a scale.

    ``y = x / sqrt(mean of x^2 + epsilon) * weight`` over the last axis: Zhang and Sennrich 2019,
    "Root mean square layer normalization".

    Parameters
    ----------
    x : array_like, shape (..., n)
        Real; n is at least 1.
    weight : array_like, shape (n,), optional
        The scale of each feature; 1 unless given.
    epsilon : float, default 1e-6
        Above 0: what a row of zeros is divided by is its root.

    Returns
    -------
    ndarray, shape (..., n)
        Of the dtype of the arrays; float16 and bfloat16 are computed in float32.

    Raises
    ------
    TypeError
        If an array is not real, or masked or of another library, or epsilon is not a number.
    ValueError
        If a shape does not fit or epsilon is not above 0.

    See Also
    --------
    layer_norm : with the mean taken away first
    attnc.RMSNorm : the layer
    attnc.vjp : the gradients, ``pullback(dy)``: ``.x``, ``.weight``

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.functional.rms_norm(np.array([[3.0, 4.0]])).round(3)
    array([[0.849, 1.131]])
    """
    return _forward("rms_norm", x, weight, None, epsilon, center=False)[0]


def check_epsilon(where: str, epsilon: Any) -> float:
    """What is added to the variance, as a float above 0."""
    return number(where, "epsilon", epsilon, "be above 0", lambda e: 0 < e < math.inf)


def _forward(where, x, weight, bias, epsilon, center):
    given = {"x": x, "weight": weight, "bias": bias}
    given = {
        name: None if array is None and name != "x" else real_array(where, name, array)
        for name, array in given.items()
    }
    arrays = [array for array in given.values() if array is not None]
    x = given["x"]
    if x.ndim < 1 or not x.shape[-1]:
        raise ValueError(f"{where}: x must have a last axis of at least 1 feature, got {x.shape}")
    for name in ("weight", "bias"):
        array = given[name]
        if array is not None and array.shape != x.shape[-1:]:
            raise ValueError(
                f"{where}: {name} must have shape {x.shape[-1:]}, as x has {x.shape}, got "
                f"{array.shape}"
            )
    dtype = computing_dtype(arrays)
    ready = [None if array is None else contiguous(array, dtype) for array in given.values()]
    y, saved = normalize(*ready, check_epsilon(where, epsilon), center)
    static = where, result_dtype(arrays), tuple(given.values())
    return like(y, np.empty(0, static[1])), saved, static


def _backward(saved, static, dy):
    where, _, given = static
    x = given[0]
    dy = real_array(where, "dy", dy)
    if dy.shape != x.shape:
        raise ValueError(f"{where}: dy must have shape {x.shape}, got {dy.shape}")
    learned = any(argument is not None for argument in given[1:])
    found = normalize_backward(saved, contiguous(dy, saved[0].dtype), sums=learned)
    return tuple(
        None if argument is None else like(gradient, argument)
        for gradient, argument in zip(found, given, strict=True)
    )


def normalize(x, weight, bias, epsilon, center):
    """y, and what `normalize_backward` needs: arrays of one dtype, C-contiguous."""
    if mode.dual is not None:
        return mode.dual.normalize(x, weight, bias, epsilon, center)
    y, stats = _core.norm(x, weight, bias, epsilon, center)
    return y, (x, weight, stats, center)


def normalize_backward(saved, dy, sums=True):
    """The gradients of x, weight and bias; without `sums` that of x alone."""
    if callable(saved):  # of dual numbers: a pullback
        found = vars(saved(dy))
        return found["x"], found.get("weight"), found.get("bias")
    x, weight, stats, center = saved
    dx, parts = _core.norm_backward(dy, x, weight, stats, center, sums)
    return (dx, *sum_rows(parts)) if sums else (dx, None, None)


register(
    layer_norm,
    required=["x"],
    optional=["weight", "bias"],
    incoming=["dy"],
    forward=lambda x, weight=None, bias=None, *, epsilon=1e-5: _forward(
        "layer_norm", x, weight, bias, epsilon, center=True
    ),
    backward=_backward,
    outputs=same_shape,
    leading=["x"],
    **by_formula(layer_norm),
)
register(
    rms_norm,
    required=["x"],
    optional=["weight"],
    incoming=["dy"],
    forward=lambda x, weight=None, *, epsilon=1e-6: _forward(
        "rms_norm", x, weight, None, epsilon, center=False
    ),
    backward=lambda saved, static, dy: _backward(saved, static, dy)[:2],
    outputs=same_shape,
    leading=["x"],
    **by_formula(rms_norm),
)

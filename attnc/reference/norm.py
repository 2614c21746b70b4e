"""Layer norm and RMS norm in plain NumPy: the formulas and their derivatives by hand.

With c = x - mean for the layer norm and c = x for the RMS norm, both divide c by its own size:

    size      r = sqrt(mean of c^2 + epsilon)          means over the last axis, of n numbers
    unit      u = c / r
    output    y = u * weight + bias
    and back  du = dy * weight
              dc = (du - u * (mean of du * u)) / r     r grows with c in the direction of u
              dx = dc - (mean of dc)                   layer norm: x moves the mean; else dx = dc

Every function also takes `dtype`, what to compute in: float64 unless given. `vjp` gives the
gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc.dual import asarray
from attnc.reference.attention import Gradients, differentiable
from attnc.typing import Real

__all__ = ["layer_norm", "rms_norm"]


@differentiable
def layer_norm(
    x: Real,
    weight: Real | None = None,
    bias: Real | None = None,
    *,
    epsilon: float = 1e-5,
    dtype: Any = np.float64,
) -> Any:
    """Layer normalisation::

        y = (x - mean) / sqrt(var + epsilon) * weight + bias

    Ba, Kiros and Hinton 2016, "Layer normalization".

    Parameters
    ----------
    x : array (..., n)
    weight, bias : array (n,), optional
    epsilon : float
    dtype : type
        What to compute in.

    Returns
    -------
    y (..., n)
    """
    x = asarray(x, dtype)
    y, back = scaled(x - x.mean(axis=-1, keepdims=True), weight, epsilon, dtype)
    if bias is not None:
        y = y + asarray(bias, dtype)

    @np.errstate(all="ignore")
    def pullback(dy):
        dy = asarray(dy, dtype)
        gradients = back(dy)
        gradients["x"] = gradients["x"] - gradients["x"].mean(axis=-1, keepdims=True)
        if bias is not None:
            gradients["bias"] = over_rows(dy)
        return Gradients(gradients, ["x"])

    return y, pullback


@differentiable
def rms_norm(
    x: Real, weight: Real | None = None, *, epsilon: float = 1e-6, dtype: Any = np.float64
) -> Any:
    """Root mean square normalisation::

        y = x / sqrt(mean of x^2 + epsilon) * weight

    Zhang and Sennrich 2019, "Root mean square layer normalization".

    Parameters
    ----------
    x : array (..., n)
    weight : array (n,), optional
    epsilon : float
    dtype : type
        What to compute in.

    Returns
    -------
    y (..., n)
    """
    y, back = scaled(asarray(x, dtype), weight, epsilon, dtype)

    @np.errstate(all="ignore")
    def pullback(dy):
        return Gradients(back(asarray(dy, dtype)), ["x"])

    return y, pullback


def scaled(c, weight, epsilon, dtype):
    """u * weight of the module's formulas, and the way back to the gradients of c and weight."""
    r = np.sqrt((c * c).mean(axis=-1, keepdims=True) + dtype(epsilon))
    u = c / r
    factor = dtype(1) if weight is None else asarray(weight, dtype)

    def back(dy):
        du = dy * factor
        gradients = {"x": (du - u * (du * u).mean(axis=-1, keepdims=True)) / r}
        if weight is not None:
            gradients["weight"] = over_rows(dy * u)
        return gradients

    return u * factor, back


def over_rows(x):
    """The sum over all axes but the last."""
    return x.sum(axis=tuple(range(x.ndim - 1)))

"""Activations and the feed-forward network in plain NumPy: formulas and derivatives by hand.

    relu    max(x, 0)                       1 where x > 0, else 0
    gelu    x P(x)                          P(x) + x p(x)
    silu    x s(x)                          s(x) + x s(x) (1 - s(x))
    swiglu  silu(gate) up                   to gate: silu'(gate) up;  to up: silu(gate)

with s(x) = 1 / (1 + exp(-x)), and P and p the distribution function and the density of the normal.

Every function also takes `dtype`, what to compute in: float64 unless given. `vjp` gives the
gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc.reference.attention import Gradients, differentiable
from attnc.typing import Array, Real

__all__ = ["feed_forward", "gelu", "relu", "silu", "swiglu"]


# ---- each with its derivative: (f(x), f'(x)) -----------------------------------------------------


def relu_slope(x):
    return np.where(x < 0, 0, x), np.where(x > 0, x.dtype.type(1), x.dtype.type(0))


def erf(x):
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    ``2 / sqrt(pi) exp(-x^2) (x + 2/3 x^3 + 4/15 x^5 + ...)``: all terms have one sign. It is 1 to
    19 digits from 6.5 on, where 200 terms are enough.
    """
    wide = np.result_type(x, np.float64)
    z = np.clip(np.asarray(x, wide), -6.5, 6.5)
    term = total = z
    for k in range(1, 200):
        term = term * z * z / (k + wide.type(0.5))
        total = total + term
    pi = 4 * np.arctan(wide.type(1))
    return (2 / np.sqrt(pi) * np.exp(-z * z) * total).astype(x.dtype)


def gelu_slope(x):
    one = x.dtype.type(1)
    P = (1 + erf(x / np.sqrt(2 * one))) / 2
    p = np.exp(-x * x / 2) / np.sqrt(8 * np.arctan(one))
    return x * P, P + x * p


def gelu_tanh_slope(x):
    """P(x) = (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    root, cubic = np.sqrt(1 / (2 * np.arctan(x.dtype.type(1)))), x.dtype.type(0.044715)
    P = sigmoid(2 * root * (x + cubic * x**3))
    du = root * (1 + 3 * cubic * x * x)
    return x * P, P + x * (2 * P * (1 - P)) * du


def silu_slope(x):
    s = sigmoid(x)
    return x * s, s + x * s * (1 - s)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ---- the functions -------------------------------------------------------------------------------


def _alone(slope, x, dtype):
    y, derivative = slope(np.asarray(x, dtype))

    @np.errstate(all="ignore")
    def pullback(dy):
        return Gradients({"x": np.asarray(dy, dtype) * derivative}, ["x"])

    return y, pullback


@differentiable
def relu(x: Real, *, dtype: Any = np.float64) -> Any:
    """Rectified linear unit.

    Parameters
    ----------
    x : array
    dtype : type
        What to compute in.

    Returns
    -------
    y
    """
    return _alone(relu_slope, x, dtype)


@differentiable
def gelu(x: Real, *, approximate: bool = False, dtype: Any = np.float64) -> Any:
    """Gaussian error linear unit::

        x P(x)      P(x) = (1 + erf(x / sqrt(2))) / 2, or approximately with a tanh

    Hendrycks and Gimpel 2016, "Gaussian error linear units (GELUs)".

    Parameters
    ----------
    x : array
    approximate : bool
        Whether P is the one by tanh.
    dtype : type
        What to compute in.

    Returns
    -------
    y
    """
    return _alone(gelu_tanh_slope if approximate else gelu_slope, x, dtype)


@differentiable
def silu(x: Real, *, dtype: Any = np.float64) -> Any:
    """Sigmoid linear unit::

        x sigmoid(x)

    Hendrycks and Gimpel 2016; Ramachandran, Zoph and Le 2017, "Searching for activation functions".

    Parameters
    ----------
    x : array
    dtype : type
        What to compute in.

    Returns
    -------
    y
    """
    return _alone(silu_slope, x, dtype)


@differentiable
def swiglu(gate: Real, up: Real, *, dtype: Any = np.float64) -> Any:
    """Gated linear unit with the swish::

        silu(gate) * up

    Shazeer 2020, "GLU variants improve Transformer".

    Parameters
    ----------
    gate, up : array
        Of one shape.
    dtype : type
        What to compute in.

    Returns
    -------
    y
    """
    gate, up = np.asarray(gate, dtype), np.asarray(up, dtype)
    y, derivative = silu_slope(gate)

    @np.errstate(all="ignore")
    def pullback(dy):
        dy = np.asarray(dy, dtype)
        return Gradients({"gate": dy * derivative * up, "up": dy * y}, ["gate", "up"])

    return y * up, pullback


SLOPES = {
    "relu": relu_slope,
    "gelu": gelu_slope,
    "gelu_tanh": gelu_tanh_slope,
    "swiglu": silu_slope,
}


@differentiable
def feed_forward(
    x: Real,
    parameters: dict[str, Array],
    *,
    activation: str = "relu",
    kept: Real = 1.0,
    dtype: Any = np.float64,
) -> Any:
    """The position-wise feed-forward network: Vaswani et al. 2017, section 3.3::

        h = x W1 + b1      a = act(h) * kept      y = a W2 + b2

    and of swiglu ``a = silu(h) * (x Wu + bu) * kept``.

    Parameters
    ----------
    x : array (..., n)
    parameters : dict of str to array
        By the names of `attnc.FeedForward`: ``hidden.weight`` is W1, ``up.weight`` Wu,
        ``output.weight`` W2, and the biases where there are some.
    activation : str
        "relu", "gelu", "gelu_tanh" or "swiglu".
    kept : array (..., h)
        What dropout multiplies by: 0 or 1 / (1 - rate).
    dtype : type
        What to compute in.

    Returns
    -------
    y (..., m); back: the gradients of x and, by name, of the parameters
    """
    x, kept = np.asarray(x, dtype), np.asarray(kept, dtype)
    p = {name: np.asarray(array, dtype) for name, array in parameters.items()}

    def affine(x, name):
        return x @ p[f"{name}.weight"] + p.get(f"{name}.bias", dtype(0))

    def affine_back(gradients, x, name, dy):
        x_rows, rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        gradients[f"{name}.weight"] = x_rows.T @ rows
        if f"{name}.bias" in p:
            gradients[f"{name}.bias"] = rows.sum(axis=0)
        return dy @ p[f"{name}.weight"].T

    f, slope = SLOPES[activation](affine(x, "hidden"))
    up = affine(x, "up") if activation == "swiglu" else dtype(1)
    a = f * up * kept

    @np.errstate(all="ignore")
    def pullback(dy):
        gradients = {}
        da = affine_back(gradients, a, "output", np.asarray(dy, dtype)) * kept
        dx = affine_back(gradients, x, "hidden", da * up * slope)
        if activation == "swiglu":
            dx = dx + affine_back(gradients, x, "up", da * f)
        return Gradients({"x": dx, **gradients}, ["x"])

    return affine(a, "output"), pullback

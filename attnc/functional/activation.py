"""Activations: relu, gelu, silu, and swiglu, which multiplies one by a second array.

`activate` and `activate_backward` are what the layers call, on arrays that are checked already.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from attnc import _core
from attnc.arrays import (
    computing_dtype,
    contiguous,
    flag,
    like,
    quiet,
    real_array,
    result_dtype,
    sum_rows,
)
from attnc.functional.shapes import same_shape
from attnc.mode import mode
from attnc.registry import register
from attnc.typing import Array, Real

__all__ = ["gelu", "relu", "silu", "swiglu"]


def relu(x: Real) -> Array:
    """Rectified linear unit: ``max(x, 0)``, with derivative 0 at 0.

    Nair and Hinton 2010, "Rectified linear units improve restricted Boltzmann machines".

    Parameters
    ----------
    x : array_like, any shape
        Real.

    Returns
    -------
    ndarray, of the shape and dtype of x

    Raises
    ------
    TypeError
        If x is not real, or masked or of another library.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.functional.relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return _forward("relu", "relu", x=x)[0]


def gelu(x: Real, *, approximate: bool = False) -> Array:
    """Gaussian error linear unit: ``x P(x)``, with P the distribution function of the normal.

    ``P(x) = (1 + erf(x / sqrt(2))) / 2``, or approximately ``(1 + tanh(sqrt(2 / pi) (x + 0.044715
    x^3))) / 2``: Hendrycks and Gimpel 2016, "Gaussian error linear units (GELUs)".

    Parameters
    ----------
    x : array_like, any shape
        Real.
    approximate : bool, default False
        Whether P is the one by tanh, as in GPT-2 and BERT's first code; it differs by up to 5e-4.

    Returns
    -------
    ndarray, of the shape and dtype of x

    Raises
    ------
    TypeError
        If x is not real, or masked or of another library, or approximate not a bool.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.functional.gelu(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.1587,  0.    ,  1.9545])
    """
    return _gelu_forward(x, approximate=approximate)[0]


def silu(x: Real) -> Array:
    """Sigmoid linear unit, also called swish: ``x sigmoid(x)``.

    Hendrycks and Gimpel 2016; Ramachandran, Zoph and Le 2017, "Searching for activation functions".

    Parameters
    ----------
    x : array_like, any shape
        Real.

    Returns
    -------
    ndarray, of the shape and dtype of x

    Raises
    ------
    TypeError
        If x is not real, or masked or of another library.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.functional.silu(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.2689,  0.    ,  1.7616])
    """
    return _forward("silu", "silu", x=x)[0]


def swiglu(gate: Real, up: Real) -> Array:
    """Gated linear unit with the swish: ``silu(gate) * up``.

    Shazeer 2020, "GLU variants improve Transformer": `gate` and `up` are two products of one input.

    Parameters
    ----------
    gate, up : array_like
        Real, of one shape.

    Returns
    -------
    ndarray, of the shape and dtype of the arrays

    Raises
    ------
    TypeError
        If an array is not real, or masked or of another library.
    ValueError
        If the shapes differ.

    See Also
    --------
    attnc.FeedForward : with the products

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.functional.swiglu(np.array([-1.0, 2.0]), np.array([10.0, 10.0])).round(3)
    array([-2.689, 17.616])
    """
    return _forward("swiglu", "silu", gate=gate, up=up)[0]


def _gelu_forward(x, *, approximate=False):
    kind = "gelu_tanh" if flag("gelu", "approximate", approximate) else "gelu"
    return _forward("gelu", kind, x=x)


def _forward(where, kind, **given):
    given = {name: real_array(where, name, array) for name, array in given.items()}
    arrays = tuple(given.values())
    first = next(iter(given))
    for name, array in given.items():
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"{where}: {name} must have the shape of {first}, {arrays[0].shape}, got "
                f"{array.shape}"
            )
    dtype = computing_dtype(arrays)
    ready = tuple(contiguous(array, dtype) for array in arrays)
    y = like(activate(kind, *ready), np.empty(0, result_dtype(arrays)))
    return y, ready, (where, kind, arrays)


def _backward(saved, static, dy):
    where, kind, given = static
    dy = real_array(where, "dy", dy)
    if dy.shape != given[0].shape:
        raise ValueError(f"{where}: dy must have shape {given[0].shape}, got {dy.shape}")
    found = activate_backward(kind, contiguous(dy, saved[0].dtype), *saved)
    return tuple(like(gradient, argument) for gradient, argument in zip(found, given, strict=False))


# ---- on checked arrays ---------------------------------------------------------------------------


def activate(
    kind: str,
    x: Array,
    up: Array | None = None,
    bias: Array | None = None,
    up_bias: Array | None = None,
    dropout: float = 0.0,
    key: int = 0,
) -> Array:
    """The activation of this kind, ``f(x + bias) * (up + up_bias)``, and dropout by a key.

    The sums take the place of x and up: what backward needs.
    """
    if mode.dual is not None:
        return mode.dual.activate(kind, x, up, bias, up_bias, dropout, key)
    return _core.activation(kind, x, up, bias, up_bias, dropout, key)


def activate_backward(
    kind: str,
    dy: Array,
    x: Array,
    up: Array | None = None,
    dropout: float = 0.0,
    key: int = 0,
    *,
    sums: bool = False,
) -> tuple[Array | None, ...]:
    """The gradients of x and `up` and, where sums are asked for, of the two biases."""
    if mode.dual is not None:
        return mode.dual.activate_backward(kind, dy, x, up, dropout, key, sums)
    dx, dup, *parts = _core.activation_backward(kind, dy, x, up, dropout, key, sums)
    return dx, dup, *(None if part is None else sum_rows(part) for part in parts)


# ---- forward mode and second order ---------------------------------------------------------------
#
# The derivative of one number by one is the same in both directions: with f'(x) of the backward
# pass, the tangent of f(x) is that of x times it, and that of its gradient dy f'(x) takes f''(x).


def _second_slope(kind, x):
    """f''(x), which is 0 of relu."""
    if kind == "relu":
        return np.zeros_like(x)
    if kind == "silu":  # f' = s + x s (1 - s) with s = sigmoid(x)
        s = (1 + np.tanh(x / 2)) / 2
        return s * (1 - s) * (2 + x * (1 - 2 * s))
    if kind == "gelu":  # f' = P(x) + x p(x), and p' = -x p
        density = np.exp(-x * x / 2) / x.dtype.type(math.sqrt(2 * math.pi))
        return np.where(density == 0, 0, density * (2 - x * x))
    # f = x (1 + t) / 2 with t = tanh(u): f'' = (1 - t^2) (u' + x (u'' / 2 - t u'^2))
    root, cubic = x.dtype.type(math.sqrt(2 / math.pi)), x.dtype.type(0.044715)
    t = np.tanh(root * (x + cubic * x * x * x))
    du, ddu = root * (1 + 3 * cubic * x * x), 6 * root * cubic * x
    return np.where(t * t == 1, 0, (1 - t * t) * (du + x * (ddu / 2 - t * du * du)))


@quiet
def _jvp(forward, tangents, *arrays, **options):
    y, ready, (_, kind, given) = forward(*arrays, **options)
    slopes = activate_backward(kind, np.ones_like(ready[0]), *ready)
    changes = [d * s for d, s in zip(_tangents(tangents, ready), slopes, strict=False)]
    return y, like(sum(changes[1:], start=changes[0]), y)


@quiet
def _jvp_jvp(forward, tangents, others, *arrays, **options):
    y, ready, (_, kind, given) = forward(*arrays, **options)
    x, *up = ready
    (dx, *dup), (ex, *eup) = (_tangents(each, ready) for each in (tangents, others))
    change = _second_slope(kind, x) * dx * ex
    if up:  # of f'(x) dx up and f(x) dup
        slope = activate_backward(kind, np.ones_like(x), x, np.ones_like(x))[0]
        change = change * up[0] + slope * (dx * eup[0] + ex * dup[0])
    return like(np.asarray(change), y)


@quiet
def _backward_jvp(forward, tangents, incoming, dincoming, *arrays, **options):
    _, ready, (_, kind, given) = forward(*arrays, **options)
    x, *up = ready
    dy, ddy = (
        np.zeros_like(x) if d[0] is None else contiguous(d[0], x.dtype)
        for d in (incoming, dincoming)
    )
    dx, *dup = _tangents(tangents, ready)
    changes = [dy * _second_slope(kind, x) * dx]
    if up:  # of dy f'(x) up and dy f(x)
        slope = activate_backward(kind, np.ones_like(x), x, np.ones_like(x))[0]
        changes = [changes[0] * up[0] + dy * slope * dup[0], dy * slope * dx]
    found = zip(activate_backward(kind, ddy, *ready), changes, given, strict=False)
    return tuple(like(d + change, argument) for d, change, argument in found)


def _tangents(tangents, ready):
    """In the order of the arrays, in their dtype; 0 for one that is not there."""
    names = ("gate", "up") if len(ready) == 2 else ("x",)
    return [
        np.zeros_like(x) if tangents.get(name) is None else contiguous(tangents[name], x.dtype)
        for name, x in zip(names, ready, strict=True)
    ]


for function, forward in (
    (relu, lambda x: _forward("relu", "relu", x=x)),
    (gelu, _gelu_forward),
    (silu, lambda x: _forward("silu", "silu", x=x)),
):
    register(
        function,
        required=["x"],
        incoming=["dy"],
        forward=forward,
        jvp=functools.partial(_jvp, forward),
        backward_jvp=functools.partial(_backward_jvp, forward),
        jvp_jvp=functools.partial(_jvp_jvp, forward),
        backward=lambda saved, static, dy: _backward(saved, static, dy)[:1],
        outputs=same_shape,
        leading=["x"],
    )


def _swiglu_forward(gate, up):
    return _forward("swiglu", "silu", gate=gate, up=up)


register(
    swiglu,
    required=["gate", "up"],
    incoming=["dy"],
    forward=_swiglu_forward,
    jvp=functools.partial(_jvp, _swiglu_forward),
    backward_jvp=functools.partial(_backward_jvp, _swiglu_forward),
    jvp_jvp=functools.partial(_jvp_jvp, _swiglu_forward),
    backward=_backward,
    outputs=same_shape,
    leading=["gate", "up"],
)

"""Dual numbers: arrays that carry a tangent along, for forward mode over formulas in plain NumPy.

A dual number is ``x + e u`` with ``e^2 = 0``: so every formula of x gives, in one go, its value and
its derivative in the direction u (Clifford 1873; Wengert 1964, "A simple automatic derivative
evaluation program")::

    (x + e u) (y + e v) = x y + e (u y + x v)          f(x + e u) = f(x) + e f'(x) u

`Dual` speaks NumPy: the operators, and those functions of it that the formulas of `attnc.reference`
are written in. One that it does not know raises, by name: nothing is ever differentiated as if it
were constant. Run on a function it is the function's `jvp`; run on a pullback it is its second
order. Derivatives are of the formulas as they stand, and arrays keep their dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from attnc.typing import Array

__all__ = ["Dual", "asarray", "tangent_of", "value_of"]


class NoTangent(TypeError):
    """Raised where a dual number would lose its tangent: by what has no rule for it."""


class Dual(NDArrayOperatorsMixin):
    """An array and its tangent.

    Parameters
    ----------
    value : ndarray
    tangent : ndarray
        Of the same shape.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from attnc.dual import Dual
    >>> x = Dual(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    >>> (x**2).sum()
    Dual(5.0, tangent=2.0)
    """

    __slots__ = ("tangent", "value")

    def __init__(self, value: Any, tangent: Any) -> None:
        if np.shape(value) != np.shape(tangent):
            raise ValueError(
                f"Dual: tangent must have the shape of value, {np.shape(value)}, got "
                f"{np.shape(tangent)}"
            )
        self.value, self.tangent = value, tangent

    # ---- as an array ----

    @property
    def shape(self) -> tuple[int, ...]:
        """tuple of int: of both."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """int: the number of axes."""
        return self.value.ndim

    @property
    def size(self) -> int:
        """int: how many numbers there are."""
        return self.value.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype: of the value."""
        return self.value.dtype

    @property
    def T(self) -> Dual:
        """Dual: with the axes in the opposite order."""
        return Dual(self.value.T, self.tangent.T)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Dual]:
        return map(Dual, self.value, self.tangent)

    def __getitem__(self, index: Any) -> Dual:
        return Dual(self.value[index], self.tangent[index])

    def __setitem__(self, index: Any, x: Any) -> None:
        if isinstance(x, list):
            x = np.stack(x)
        self.value[index], self.tangent[index] = value_of(x), tangent_of(x)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __repr__(self) -> str:
        return f"Dual({self.value}, tangent={self.tangent})"

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise NoTangent(
            "Dual: an array of numbers would lose the tangent; take asarray, value_of, or to write "
            "into np.zeros_like(x, shape=...)"
        )

    def astype(self, dtype: Any) -> Dual:
        """Both in another dtype.

        Parameters
        ----------
        dtype : dtype

        Returns
        -------
        Dual
        """
        return Dual(self.value.astype(dtype), self.tangent.astype(dtype))

    def copy(self) -> Dual:
        """Both copied.

        Returns
        -------
        Dual
        """
        return Dual(self.value.copy(), self.tangent.copy())

    def reshape(self, *shape: Any) -> Dual:
        """Both in another shape.

        Parameters
        ----------
        *shape : int

        Returns
        -------
        Dual
        """
        return Dual(self.value.reshape(*shape), self.tangent.reshape(*shape))

    def swapaxes(self, *axes: int) -> Dual:
        """Both with two axes swapped.

        Parameters
        ----------
        *axes : int

        Returns
        -------
        Dual
        """
        return Dual(self.value.swapaxes(*axes), self.tangent.swapaxes(*axes))

    def transpose(self, *axes: Any) -> Dual:
        """Both with their axes in another order.

        Parameters
        ----------
        *axes : int

        Returns
        -------
        Dual
        """
        return Dual(self.value.transpose(*axes), self.tangent.transpose(*axes))

    def take(self, indices: Any, axis: int | None = None) -> Dual:
        """Of both what is at some places.

        Parameters
        ----------
        indices : array_like of int
        axis : int, optional

        Returns
        -------
        Dual
        """
        return Dual(self.value.take(indices, axis), self.tangent.take(indices, axis))

    def any(self, axis: Any = None, keepdims: bool = False) -> Any:
        """Whether one is there that is not 0, or has a tangent that is not.

        Parameters
        ----------
        axis : int or tuple of int, optional
        keepdims : bool

        Returns
        -------
        ndarray of bool
        """
        return ((self.value != 0) | (self.tangent != 0)).any(axis=axis, keepdims=keepdims)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Dual:
        """The sums of both.

        Parameters
        ----------
        axis : int or tuple of int, optional
        keepdims : bool

        Returns
        -------
        Dual
        """
        return np.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Dual:
        """The means of both.

        Parameters
        ----------
        axis : int or tuple of int, optional
        keepdims : bool

        Returns
        -------
        Dual
        """
        return np.mean(self, axis=axis, keepdims=keepdims)

    # ---- functions of NumPy ----

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *arrays: Any, out: Any = None, **options: Any
    ) -> Any:
        if (ufunc, method) == (np.add, "at"):
            return _add_at(*arrays)
        rule = _UFUNCS.get(ufunc)
        if rule is None or method != "__call__" or options:
            called = ufunc.__name__ + ("" if method == "__call__" else f".{method}")
            called += "".join(f", {name}=" for name in options)
            raise NoTangent(f"Dual: numpy.{called} has no rule for tangents")
        result = rule(ufunc, *arrays)
        if out is None:
            return result
        if not isinstance(out[0], Dual):
            raise NoTangent(f"Dual: numpy.{ufunc.__name__} into an array would lose the tangent")
        out[0][...] = result
        return out[0]

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        rule = _FUNCTIONS.get(function)
        if rule is None:
            raise NoTangent(f"Dual: numpy.{function.__name__} has no rule for tangents")
        return rule(function, *args, **kwargs)


def value_of(x: Any) -> Any:
    """The value of a Dual; what is none is its own.

    Parameters
    ----------
    x : Dual or array_like

    Returns
    -------
    array_like
    """
    return x.value if isinstance(x, Dual) else x


def tangent_of(x: Any) -> Any:
    """The tangent of a Dual, or 0.

    Parameters
    ----------
    x : Dual or array_like

    Returns
    -------
    array_like
    """
    return x.tangent if isinstance(x, Dual) else 0


def asarray(x: Any, dtype: Any = None) -> Array:
    """As `numpy.asarray`, but a Dual stays one.

    Parameters
    ----------
    x : Dual or array_like
    dtype : dtype, optional

    Returns
    -------
    Dual or ndarray
    """
    if isinstance(x, Dual):
        same: Any = x if dtype is None or x.dtype == dtype else x.astype(dtype)
        return same  # to checkers an array, as which it is used
    return np.asarray(x, dtype)


# ---- rules of ufuncs -----------------------------------------------------------------------------


def _spread(tangent: Any, value: Any) -> Any:
    """A tangent in the shape and dtype of its value."""
    if np.shape(tangent) != np.shape(value):
        tangent = np.broadcast_to(tangent, np.shape(value)).copy()
    return tangent if tangent.dtype == value.dtype else tangent.astype(value.dtype)


def _sum(ufunc: np.ufunc, x: Any, y: Any) -> Dual:
    """x + y and x - y."""
    value = ufunc(value_of(x), value_of(y))
    return Dual(value, _spread(ufunc(tangent_of(x), tangent_of(y)), value))


def _product(ufunc: np.ufunc, x: Any, y: Any) -> Dual:
    """x * y and x @ y: u y + x v."""
    value = ufunc(value_of(x), value_of(y))
    terms = []
    if isinstance(x, Dual):
        terms.append(ufunc(x.tangent, value_of(y)))
    if isinstance(y, Dual):
        terms.append(ufunc(value_of(x), y.tangent))
    return Dual(value, _spread(sum(terms[1:], start=terms[0]), value))


def _quotient(ufunc: np.ufunc, x: Any, y: Any) -> Dual:
    """q = x / y: (u - q v) / y."""
    value = ufunc(value_of(x), value_of(y))
    change = tangent_of(x)
    if isinstance(y, Dual):
        change = change - value * y.tangent
    return Dual(value, _spread(change / value_of(y), value))


def _power(ufunc: np.ufunc, x: Any, n: Any) -> Dual:
    """x^n with a constant n: n x^(n - 1) u."""
    if isinstance(n, Dual) or np.ndim(n):
        raise NoTangent("Dual: numpy.power has no rule for tangents of an exponent")
    return Dual(x.value**n, n * x.value ** (n - 1) * x.tangent)


def _extreme(ufunc: np.ufunc, x: Any, y: Any) -> Dual:
    """The smaller or larger of two: its tangent, that of x where they are equal."""
    value = ufunc(value_of(x), value_of(y))
    return Dual(value, _spread(np.where(value_of(x) == value, tangent_of(x), tangent_of(y)), value))


def _logaddexp(ufunc: np.ufunc, x: Any, y: Any) -> Dual:
    """l = log(exp(x) + exp(y)): exp(x - l) u + exp(y - l) v."""
    value = ufunc(value_of(x), value_of(y))
    terms = (np.exp(value_of(z) - value) * tangent_of(z) for z in (x, y))
    return Dual(value, _spread(sum(terms), value))


def _of_one(slope: Callable[[Any, Any], Any]) -> Callable[..., Dual]:
    """The rule of y = f(x) from its slope, of x and y."""

    def rule(ufunc: np.ufunc, x: Dual) -> Dual:
        value = ufunc(x.value)
        return Dual(value, slope(x.value, value) * x.tangent)

    return rule


def _add_at(x: Any, index: Any, y: Any) -> None:
    """x[index] += y, with all that comes to one place."""
    if not isinstance(x, Dual):
        raise NoTangent("Dual: numpy.add.at into an array would lose the tangent")
    np.add.at(x.value, index, value_of(y))
    np.add.at(x.tangent, index, tangent_of(y))


def _of_values(ufunc: np.ufunc, *arrays: Any) -> Any:
    """What is a constant wherever it is smooth: of the values alone."""
    return ufunc(*map(value_of, arrays))


def _finite(ufunc: np.ufunc, x: Dual) -> Any:
    """Whether both are finite: formulas ask before they multiply by 0."""
    return ufunc(x.value) & ufunc(x.tangent)


_UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: _sum,
    np.subtract: _sum,
    np.multiply: _product,
    np.matmul: _product,
    np.true_divide: _quotient,
    np.power: _power,
    np.minimum: _extreme,
    np.maximum: _extreme,
    np.logaddexp: _logaddexp,
    np.negative: _of_one(lambda x, y: -1),
    np.absolute: _of_one(lambda x, y: np.where(x < 0, -1, 1).astype(x.dtype)),
    np.square: _of_one(lambda x, y: 2 * x),
    np.sqrt: _of_one(lambda x, y: 1 / (2 * y)),
    np.exp: _of_one(lambda x, y: y),
    np.log: _of_one(lambda x, y: 1 / x),
    np.tanh: _of_one(lambda x, y: 1 - y * y),
    np.isfinite: _finite,
    **dict.fromkeys((np.equal, np.not_equal, np.less, np.less_equal), _of_values),
    **dict.fromkeys((np.greater, np.greater_equal, np.isnan, np.floor, np.sign), _of_values),
}


# ---- rules of other functions --------------------------------------------------------------------


def _linear(function: Callable[..., Any], arrays: Any, *args: Any, **options: Any) -> Any:
    """A function that is linear in its first argument, an array or a sequence of them."""
    if isinstance(arrays, Dual):
        found = (function(part, *args, **options) for part in (arrays.value, arrays.tangent))
    else:
        values = [value_of(x) for x in arrays]
        tangents = [x.tangent if isinstance(x, Dual) else np.zeros_like(x) for x in arrays]
        found = (function(part, *args, **options) for part in (values, tangents))
    value, tangent = found
    if isinstance(value, list | tuple):
        return list(map(Dual, value, tangent))
    return Dual(value, tangent)


def _where(function: Callable[..., Any], condition: Any, x: Any, y: Any) -> Any:
    """By a condition of values."""
    condition = value_of(condition)
    value = function(condition, value_of(x), value_of(y))
    if not isinstance(x, Dual) and not isinstance(y, Dual):
        return value
    return Dual(value, _spread(function(condition, tangent_of(x), tangent_of(y)), value))


def _einsum(function: Callable[..., Any], subscripts: str, *arrays: Any) -> Dual:
    """A product of several: the sum over its factors, each with its tangent in its place."""
    values = [value_of(x) for x in arrays]
    terms = [
        function(subscripts, *values[:k], x.tangent, *values[k + 1 :])
        for k, x in enumerate(arrays)
        if isinstance(x, Dual)
    ]
    return Dual(function(subscripts, *values), sum(terms[1:], start=terms[0]))


def _of_value(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What has no tangent: of the values alone."""
    return function(*map(value_of, args), **options)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.where: _where,
    np.einsum: _einsum,
    np.shape: _of_value,
    np.ndim: _of_value,
    np.may_share_memory: _of_value,
    **dict.fromkeys((np.sum, np.mean, np.cumsum, np.concatenate, np.stack, np.split), _linear),
    **dict.fromkeys((np.reshape, np.swapaxes, np.transpose, np.broadcast_to), _linear),
    **dict.fromkeys((np.zeros_like, np.empty_like, np.take_along_axis), _linear),
}

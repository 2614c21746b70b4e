"""Dual numbers: arrays that carry a tangent along, for forward mode over formulas in plain NumPy.

A dual number is ``x + e u`` with ``e^2 = 0``: so every formula of x gives, in one go, its value and
its derivative in the direction u (Clifford 1873; Wengert 1964, "A simple automatic derivative
evaluation program")::

    (x + e u) (y + e v) = x y + e (u y + x v)          f(x + e u) = f(x) + e f'(x) u

`Dual` speaks NumPy: the operators, and those functions of it that the formulas of `attnc.reference`
are written in. One that it does not know raises, by name: nothing is ever differentiated as if it
were constant. Run on a function it is the function's `jvp`; run on a pullback it is its second
order. Derivatives are of the formulas as they stand, and arrays keep their dtype.

Formulas write through views. So a tangent lies in memory as its value does: what is a view of the
one is a view of the other.

Both parts may be dual numbers themselves. ``(x + e v) + d (u + e w)`` has four parts, and that of
``d e`` of a formula of it is ``f''(x)[u, v] + f'(x) w``: forward mode of forward mode. No rule
confuses the two, if every array that has a tangent has all four parts: a rule sees one level, and
NumPy hands the parts to the other.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from attnc.typing import Array

__all__ = ["Dual", "all_finite", "asarray", "laid_out", "paired", "tangent_of", "value_of"]


class NoTangent(TypeError):
    """Raised where a dual number would lose its tangent: by what has no rule for it."""


class Dual(NDArrayOperatorsMixin):
    """An array and its tangent.

    Parameters
    ----------
    value : ndarray or Dual
    tangent : ndarray or Dual
        Of the same shape; a Dual, of arrays that lie alike, where the value is one.

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
        if isinstance(x, list | tuple):
            x = np.stack(x)
        self.value[index], self.tangent[index] = _own_value(x), tangent_of(x)

    def __getattr__(self, name: str) -> Any:
        # Python calls this only where there is no such attribute.
        if hasattr(np.ndarray, name) and not name.startswith("_"):
            raise NoTangent(f"Dual: numpy.ndarray.{name} has no rule for tangents")
        raise AttributeError(f"'Dual' object has no attribute {name!r}")

    def __bool__(self) -> bool:
        return bool(self.value)

    def _number(self) -> Any:
        raise NoTangent("Dual: a number of Python would lose the tangent; go on with the array")

    __float__ = __int__ = __index__ = __complex__ = _number

    def __repr__(self) -> str:
        return f"Dual({self.value}, tangent={self.tangent})"

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise NoTangent(
            "Dual: an array of numbers would lose the tangent; take asarray, value_of, or to write "
            "into np.zeros_like(x, shape=...)"
        )

    def astype(
        self,
        dtype: Any,
        order: Any = "K",
        casting: Any = "unsafe",
        subok: bool = True,
        copy: bool = True,
    ) -> Any:
        """Both in another dtype; of integers and bools the value alone, a constant.

        Parameters
        ----------
        dtype : dtype
        order : {'K', 'C', 'F', 'A'}
        casting : str
        subok, copy : bool
            As of `numpy.ndarray.astype`.

        Returns
        -------
        Dual or ndarray
        """
        value = self.value.astype(dtype, order, casting, subok, copy)
        if value.dtype.kind in "biu":
            return value
        return paired("astype", self, value, self.tangent.astype(dtype, order, copy=copy))

    def copy(self, order: Any = "C") -> Dual:
        """Both copied.

        Parameters
        ----------
        order : {'C', 'F', 'A', 'K'}

        Returns
        -------
        Dual
        """
        value = self.value.copy(order)
        return Dual(value, laid_out(self.tangent.copy(), value))

    def reshape(self, *shape: Any, **options: Any) -> Dual:
        """Both in another shape.

        Parameters
        ----------
        *shape : int
        **options
            ``order``, "C" or "F".

        Returns
        -------
        Dual
        """
        result: Any = np.reshape(self, shape[0] if len(shape) == 1 else shape, **options)
        return result

    def ravel(self, *options: Any, **named: Any) -> Dual:
        """Both with one axis.

        Parameters
        ----------
        *options, **named
            As of `numpy.ravel`: ``order``, "C" or "F".

        Returns
        -------
        Dual
        """
        result: Any = np.ravel(self, *options, **named)
        return result

    def swapaxes(self, *axes: int) -> Dual:
        """Both with two axes swapped.

        Parameters
        ----------
        *axes : int

        Returns
        -------
        Dual
        """
        result: Any = np.swapaxes(self, *axes)
        return result

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

    def dot(self, other: Any) -> Dual:
        """As `numpy.dot`.

        Parameters
        ----------
        other : Dual or array_like

        Returns
        -------
        Dual
        """
        return np.dot(self, other)

    def take(self, *options: Any, **named: Any) -> Dual:
        """Of both what is at some places.

        Parameters
        ----------
        *options, **named
            As of `numpy.take`: ``indices`` and ``axis``.

        Returns
        -------
        Dual
        """
        return np.take(self, *options, **named)

    def any(self, *options: Any, **named: Any) -> Any:
        """Whether one is there that is not 0, of the value alone.

        Parameters
        ----------
        *options, **named
            As of `numpy.any`.

        Returns
        -------
        ndarray of bool
        """
        return np.any(self, *options, **named)

    def sum(self, *options: Any, **named: Any) -> Dual:
        """The sums of both.

        Parameters
        ----------
        *options, **named
            As of `numpy.sum`: ``axis`` and ``keepdims``.

        Returns
        -------
        Dual
        """
        return np.sum(self, *options, **named)

    def mean(self, *options: Any, **named: Any) -> Dual:
        """The means of both.

        Parameters
        ----------
        *options, **named
            As of `numpy.mean`: ``axis`` and ``keepdims``.

        Returns
        -------
        Dual
        """
        return np.mean(self, *options, **named)

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
        with np.errstate(all="ignore"):  # tangents meet infinities where values do not
            result = rule(ufunc, *arrays)
        if out is None:
            return result
        if not isinstance(out[0], Dual):
            raise NoTangent(f"Dual: numpy.{ufunc.__name__} into an array would lose the tangent")
        if not isinstance(value_of(out[0]), np.ndarray):  # `s += x` makes a new number of a number
            return result
        out[0][...] = result
        return out[0]

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        rule = _FUNCTIONS.get(function)
        if rule is None:
            raise NoTangent(f"Dual: numpy.{function.__name__} has no rule for tangents")
        try:
            _signature(rule).bind(function, *args, **kwargs)
        except TypeError as error:
            raise NoTangent(
                f"Dual: numpy.{function.__name__} has no rule for tangents with these arguments: "
                f"{error}"
            ) from None
        return rule(function, *args, **kwargs)


@functools.cache
def _signature(rule: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(rule)


def laid_out(tangent: Any, value: Any) -> Any:
    """A tangent in the shape, dtype and memory layout of its value.

    Parameters
    ----------
    tangent, value : ndarray, Dual or number

    Returns
    -------
    ndarray, Dual or number
        The tangent itself where it is so.
    """
    if isinstance(value, Dual):
        parts = (_own_value(tangent), value.value), (tangent_of(tangent), value.tangent)
        return Dual(*(laid_out(*pair) for pair in parts))
    if not isinstance(value, np.ndarray):
        return value.dtype.type(tangent)
    if isinstance(tangent, np.ndarray) and _layout(tangent) == _layout(value):
        return tangent
    laid = np.empty_like(value, subok=False)
    laid[...] = tangent
    return laid


def _layout(x: Any) -> tuple[Any, ...]:
    return x.shape, x.strides, x.dtype


def paired(name: str, x: Dual, value: Any, tangent: Any) -> Dual:
    """What NumPy made of both parts of x, each a view of it or a copy: both views, or both copies.

    Parameters
    ----------
    name : str
        Of the function.
    x : Dual
    value, tangent : ndarray

    Returns
    -------
    Dual

    Raises
    ------
    NoTangent
        If only the value is a view: what is written through it would not reach the tangent.
    """
    if not np.may_share_memory(value, x.value):
        return Dual(value, tangent.copy() if np.may_share_memory(tangent, x.tangent) else tangent)
    if not np.may_share_memory(tangent, x.tangent):
        raise NoTangent(
            f"Dual: numpy.{name} has no rule for a view of an array that lies otherwise than its "
            "tangent; take that of its copy()"
        )
    return Dual(value, tangent)


def value_of(x: Any) -> Any:
    """The value of a Dual, without any tangent; what is none is its own.

    Parameters
    ----------
    x : Dual or array_like

    Returns
    -------
    array_like
    """
    while isinstance(x, Dual):
        x = x.value
    return x


def tangent_of(x: Any) -> Any:
    """The tangent of a Dual, which may be a Dual itself, or 0.

    Parameters
    ----------
    x : Dual or array_like

    Returns
    -------
    array_like
    """
    return x.tangent if isinstance(x, Dual) else 0


def all_finite(x: Any) -> bool:
    """Whether all numbers are finite, those of tangents too.

    Parameters
    ----------
    x : Dual or array_like

    Returns
    -------
    bool
    """
    if isinstance(x, Dual):
        return all_finite(x.value) and all_finite(x.tangent)
    return bool(np.isfinite(x).all())


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


def _own_value(x: Any) -> Any:
    """The value of a Dual, with the tangents that it has of the other level."""
    return x.value if isinstance(x, Dual) else x


def _felt(moved: Any, tangent: Any) -> Any:
    """What moves with this tangent, 0 where that is: an infinite slope is not felt there."""
    return moved if all_finite(moved) else np.where(_is_zero(tangent), 0, moved)


def _is_zero(x: Any) -> Any:
    """Where all parts are 0."""
    return _is_zero(x.value) & _is_zero(x.tangent) if isinstance(x, Dual) else x == 0


def _sum(ufunc: np.ufunc, x: Any, y: Any) -> Dual:
    """x + y and x - y."""
    value = ufunc(_own_value(x), _own_value(y))
    return Dual(value, laid_out(ufunc(tangent_of(x), tangent_of(y)), value))


def _product(ufunc: Callable[..., Any], x: Any, y: Any) -> Dual:
    """x * y, x @ y and their like: u y + x v."""
    value = ufunc(_own_value(x), _own_value(y))
    terms = []
    if isinstance(x, Dual):
        terms.append(ufunc(x.tangent, _own_value(y)))
    if isinstance(y, Dual):
        terms.append(ufunc(_own_value(x), y.tangent))
    if ufunc is np.multiply:
        moving = [z.tangent for z in (x, y) if isinstance(z, Dual)]
        terms = [_felt(term, tangent) for term, tangent in zip(terms, moving, strict=True)]
    return Dual(value, laid_out(sum(terms[1:], start=terms[0]), value))


def _quotient(ufunc: np.ufunc, x: Any, y: Any) -> Dual:
    """q = x / y: (u - q v) / y."""
    value = ufunc(_own_value(x), _own_value(y))
    change = tangent_of(x)
    if isinstance(y, Dual):
        change = change - _felt(value * y.tangent, y.tangent)
    return Dual(value, laid_out(_felt(change / _own_value(y), change), value))


def _power(ufunc: np.ufunc, x: Any, n: Any) -> Dual:
    """x^n with a constant n: n x^(n - 1) u."""
    if isinstance(n, Dual) or np.ndim(n):
        raise NoTangent("Dual: numpy.power has no rule for tangents of an exponent")
    value = x.value**n
    slope = n * x.value ** (n - 1) if n != 0 else np.zeros_like(value)
    return Dual(value, laid_out(_felt(slope * x.tangent, x.tangent), value))


def _extreme(ufunc: np.ufunc, x: Any, y: Any) -> Dual:
    """The smaller or larger of two: its tangent, that of x where they are equal."""
    value = ufunc(_own_value(x), _own_value(y))
    tangent = np.where(_own_value(x) == value, tangent_of(x), tangent_of(y))
    return Dual(value, laid_out(tangent, value))


def _logaddexp(ufunc: np.ufunc, x: Any, y: Any) -> Dual:
    """l = log(exp(x) + exp(y)): exp(x - l) u + exp(y - l) v."""
    value = ufunc(_own_value(x), _own_value(y))
    terms = (
        _felt(np.exp(_own_value(z) - value) * z.tangent, z.tangent)
        for z in (x, y)
        if isinstance(z, Dual)
    )
    return Dual(value, laid_out(sum(terms), value))


def _of_one(slope: Callable[[Any, Any], Any]) -> Callable[..., Dual]:
    """The rule of y = f(x) from its slope, of x and y."""

    def rule(ufunc: np.ufunc, x: Dual) -> Dual:
        value = ufunc(x.value)
        return Dual(value, laid_out(_felt(slope(x.value, value) * x.tangent, x.tangent), value))

    return rule


def _add_at(x: Any, index: Any, y: Any) -> None:
    """x[index] += y, with all that comes to one place."""
    if not isinstance(x, Dual):
        raise NoTangent("Dual: numpy.add.at into an array would lose the tangent")
    np.add.at(x.value, index, _own_value(y))
    np.add.at(x.tangent, index, tangent_of(y))


def _of_values(ufunc: np.ufunc, *arrays: Any) -> Any:
    """What is a constant wherever it is smooth: of the values alone."""
    return ufunc(*map(value_of, arrays))


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
    **dict.fromkeys((np.equal, np.not_equal, np.less, np.less_equal, np.isfinite), _of_values),
    **dict.fromkeys((np.greater, np.greater_equal, np.isnan, np.floor, np.sign), _of_values),
}


# ---- rules of other functions --------------------------------------------------------------------
#
# A rule takes the arguments of its function under their names, those that it is right for: with
# others, such as `out`, the function raises.


def _linear(function: Callable[..., Any], arrays: Any, *args: Any, **options: Any) -> Any:
    """A function that is linear in its first argument, an array or a sequence of them."""
    if isinstance(arrays, Dual):
        found = (function(part, *args, **options) for part in (arrays.value, arrays.tangent))
    else:
        values = [_own_value(x) for x in arrays]
        tangents = [x.tangent if isinstance(x, Dual) else np.zeros_like(x) for x in arrays]
        found = (function(part, *args, **options) for part in (values, tangents))
    value, tangent = found
    return Dual(value, laid_out(tangent, value))


def _reduced(
    function: Callable[..., Any], a: Any, axis: Any = None, *, keepdims: bool = False
) -> Any:
    return _linear(function, a, axis=axis, keepdims=keepdims)


def _cumulated(function: Callable[..., Any], a: Any, axis: Any = None) -> Any:
    return _linear(function, a, axis)


def _joined(function: Callable[..., Any], arrays: Any, axis: Any = 0) -> Any:
    return _linear(function, arrays, axis)


def _taken(function: Callable[..., Any], a: Any, indices: Any, axis: Any = None) -> Any:
    return _linear(function, a, indices, axis)


def _taken_along(function: Callable[..., Any], arr: Any, indices: Any, axis: int = -1) -> Any:
    return _linear(function, arr, indices, axis)


def _made_like(
    function: Callable[..., Any], a: Any, dtype: Any = None, order: Any = "K", *, shape: Any = None
) -> Any:
    value = function(a.value, dtype, order, shape=shape)
    return value if value.dtype.kind in "biu" else Dual(value, np.zeros_like(value))


def _split(
    function: Callable[..., Any], ary: Any, indices_or_sections: Any, axis: int = 0
) -> list[Dual]:
    parts = (function(part, indices_or_sections, axis) for part in (ary.value, ary.tangent))
    return list(map(Dual, *parts))


def _swapped(function: Callable[..., Any], a: Any, axis1: int, axis2: int) -> Dual:
    return Dual(function(a.value, axis1, axis2), function(a.tangent, axis1, axis2))


def _transposed(function: Callable[..., Any], a: Any, axes: Any = None) -> Dual:
    return Dual(function(a.value, axes), function(a.tangent, axes))


def _broadcast(function: Callable[..., Any], array: Any, shape: Any) -> Dual:
    return Dual(function(array.value, shape), function(array.tangent, shape))


def _reshaped(function: Callable[..., Any], a: Any, shape: Any, order: str = "C") -> Dual:
    _require_order(function, order)
    parts = (part.reshape(shape, order=order) for part in (a.value, a.tangent))
    return paired("reshape", a, *parts)


def _raveled(function: Callable[..., Any], a: Any, order: str = "C") -> Dual:
    _require_order(function, order)
    return paired("ravel", a, *(part.ravel(order) for part in (a.value, a.tangent)))


def _require_order(function: Callable[..., Any], order: str) -> None:
    """Refuse orders that depend on how an array lies."""
    if order not in ("C", "F"):
        raise NoTangent(
            f"Dual: numpy.{function.__name__} has no rule for tangents in order {order!r}; take "
            '"C" or "F"'
        )


def _where(function: Callable[..., Any], condition: Any, *branches: Any) -> Any:
    """By a condition of values."""
    condition = value_of(condition)
    value = function(condition, *map(_own_value, branches))
    if not any(isinstance(x, Dual) for x in branches):
        return value
    return Dual(value, laid_out(function(condition, *map(tangent_of, branches)), value))


def _einsum(
    function: Callable[..., Any], subscripts: str, *operands: Any, optimize: Any = False
) -> Dual:
    """A product of several: the sum over its factors, each with its tangent in its place."""
    if not isinstance(subscripts, str):
        raise NoTangent("Dual: numpy.einsum has no rule for tangents but with subscripts in a str")
    function = functools.partial(function, subscripts, optimize=optimize)
    values = [_own_value(x) for x in operands]
    terms = [
        function(*values[:k], x.tangent, *values[k + 1 :])
        for k, x in enumerate(operands)
        if isinstance(x, Dual)
    ]
    value = function(*values)
    return Dual(value, laid_out(sum(terms[1:], start=terms[0]), value))


def _dot(function: Callable[..., Any], a: Any, b: Any) -> Dual:
    return _product(function, a, b)


def _of_value(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What has no tangent: of the values alone."""
    return function(*map(value_of, args), **options)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.where: _where,
    np.einsum: _einsum,
    np.dot: _dot,
    np.split: _split,
    np.cumsum: _cumulated,
    np.take: _taken,
    np.take_along_axis: _taken_along,
    np.reshape: _reshaped,
    np.ravel: _raveled,
    np.swapaxes: _swapped,
    np.transpose: _transposed,
    np.broadcast_to: _broadcast,
    **dict.fromkeys((np.sum, np.mean), _reduced),
    **dict.fromkeys((np.concatenate, np.stack), _joined),
    **dict.fromkeys((np.zeros_like, np.empty_like), _made_like),
    **dict.fromkeys((np.shape, np.ndim, np.may_share_memory, np.any), _of_value),
}

"""Calls on dual numbers of what is in C, for layers in forward mode.

The record of a function has its forward mode and second order. With them `vjp` runs it on dual
numbers (`attnc.dual`): the output is one, and so are the gradients that its pullback returns. What
layers call besides has its rule here, too. Values are those of the plain calls, to the bit.

In forward mode all arrays of a layer are dual numbers, also those whose tangent is 0: none can lose
a tangent that is added to it in place. A tangent of 0 costs no more than to find that it is.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from attnc import _core, gradients
from attnc.directions import arguments
from attnc.dual import Dual, laid_out, paired, tangent_of, value_of
from attnc.functional.dropout import dropout_key
from attnc.gradients import Gradients, Pullback
from attnc.mode import mode
from attnc.registry import Record

__all__ = [
    "Dual",
    "activate",
    "activate_backward",
    "add_dropout",
    "built_like",
    "carried",
    "contiguous",
    "dual",
    "normalize",
    "parts",
    "product",
    "recurrence",
    "value_of",
    "vjp",
]


@contextlib.contextmanager
def carried(on: bool = True) -> Iterator[None]:
    """Forward mode in this thread, or none of it.

    Parameters
    ----------
    on : bool
        False: what runs inside is called with plain arrays.
    """
    before, mode.dual = mode.dual, _this() if on else None
    try:
        yield
    finally:
        mode.dual = before


def _this() -> Any:
    import sys

    return sys.modules[__name__]


# ---- values and tangents, of arrays within tuples ------------------------------------------------


def dual(value: Any, tangent: Any = None) -> Any:
    """Dual numbers of real arrays, alone or in tuples; what is not real stays as it is.

    Parameters
    ----------
    value : ndarray, or a tuple or list
    tangent : ndarray or tuple, optional
        Built like the value; None is 0.

    Returns
    -------
    Dual, or a tuple or list
        Of the kind of the value.
    """
    if isinstance(value, tuple | list):
        tangents = [None] * len(value) if tangent is None else tangent
        return built_like(value, [dual(*pair) for pair in zip(value, tangents, strict=True)])
    dtype = getattr(value, "dtype", None)
    if dtype is None or dtype.kind in "biuO":
        return value
    if tangent is None:
        tangent = np.zeros_like(value, subok=False)
    return Dual(value, laid_out(tangent, value))


def parts(x: Any) -> tuple[Any, Any]:
    """The values of dual numbers, and their tangents; None for what has none or is all 0.

    Parameters
    ----------
    x : object
        A Dual, anything else, or a tuple or list of these.

    Returns
    -------
    value : object
        Of the kind of x.
    tangent : ndarray, tuple or None
    """
    if isinstance(x, Dual):
        tangent = np.asarray(x.tangent)
        return np.asarray(x.value), tangent if tangent.any() else None
    if isinstance(x, tuple | list):
        found = [parts(item) for item in x]
        if not any(tangent is not None for _, tangent in found) and not _has_duals(x):
            return x, None
        tangents = tuple(tangent for _, tangent in found)
        moves = any(tangent is not None for tangent in tangents)
        return built_like(x, [value for value, _ in found]), tangents if moves else None
    return x, None


def _has_duals(x: Any) -> bool:
    if isinstance(x, tuple | list):
        return any(map(_has_duals, x))
    return isinstance(x, Dual)


def built_like(several: Any, items: list[Any]) -> Any:
    """Items in a tuple or list of the kind of this one.

    Parameters
    ----------
    several : tuple or list
    items : list

    Returns
    -------
    tuple or list
    """
    kind: Any = type(several)
    return kind(*items) if hasattr(several, "_fields") else kind(items)


# ---- functions that have a record ----------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _takes_rng(function: Callable[..., Any]) -> bool:
    return "rng" in inspect.signature(function).parameters


def vjp(record: Record, arrays: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Pullback]:
    """What `attnc.vjp` does with a function that has a record, on dual numbers.

    Parameters
    ----------
    record : registry.Record
    arrays : tuple
    options : dict
        The arguments of a call.

    Returns
    -------
    output
        As of the function, of dual numbers where it is real.
    pullback : callable
        As of the function, from and to dual numbers or arrays.

    Raises
    ------
    NotImplementedError
        If the function was registered without forward mode; from the pullback, without second
        order.
    TypeError
        If something has a tangent that is no real array to the function.
    """
    call = _Call(record, arrays, options)
    return call.output, Pullback(_gradients_of, record, call)


class _Call:
    """A call of a function on dual numbers."""

    def __init__(self, record, arrays, options):
        self.record = record
        self.tangents = {}
        given = arguments(record.name, record.function, arrays, options)
        for name, x in given.items():
            _, tangent = parts(x)
            if tangent is not None:
                if name not in record.arrays:
                    raise TypeError(
                        f"{record.name}: {name} must be a constant, got one with a tangent"
                    )
                self.tangents[name] = tangent
        self.arrays = [parts(x)[0] for x in arrays]
        self.options = {name: parts(x)[0] for name, x in options.items()}
        if self.tangents:
            self.require("jvp", "forward mode")
        # What is drawn in this pass is drawn again on the way back.
        if self.options.get("rng") is None and _takes_rng(record.function):
            self.options["rng"] = np.random.default_rng()
        again = copy.deepcopy(self.options.get("rng"))
        with carried(False):
            self.saved = None
            if self.tangents:
                output, moved = record.jvp(self.tangents, *self.arrays, **self.options)
            else:
                output, *self.saved = record.forward(*self.arrays, **self.options)
                moved = None
        self.output = dual(output, moved)
        if "rng" in self.options:
            self.options["rng"] = again
        first = output[0] if isinstance(output, tuple) else output
        self.scalar = getattr(first, "ndim", 1) == 0

    def require(self, name, what):
        if getattr(self.record, name) is None:
            raise NotImplementedError(
                f"{self.record.name}: must have {what} in a layer that jvp or hvp run, but was "
                f"registered without {name}="
            )

    def again(self):
        """The options of one more pass, which draws what the first one drew."""
        return {name: copy.deepcopy(x) if name == "rng" else x for name, x in self.options.items()}

    def backward(self, incoming):
        """The gradients in the order of the record, and their tangents."""
        record = self.record
        pairs = [parts(d) for d in incoming]
        values, changes = [value for value, _ in pairs], [change for _, change in pairs]
        with carried(False):
            if self.saved is None:
                _, *self.saved = record.forward(*self.arrays, **self.again())
            found = record.backward(*self.saved, *values)
            if self.tangents:
                self.require("backward_jvp", "second order")
                moved = record.backward_jvp(
                    self.tangents, tuple(values), tuple(changes), *self.arrays, **self.again()
                )
            elif any(change is not None for change in changes):  # backward is linear in these
                moved = record.backward(*self.saved, *changes)
            else:
                moved = [None] * len(found)
        return [None if d is None else dual(d, t) for d, t in zip(found, moved, strict=True)]


def _gradients_of(record: Record, call: _Call, /, *given: Any, **named: Any) -> Gradients:
    """What the pullback of a call on dual numbers runs."""
    found = call.backward(gradients._incoming(record, call.scalar, given, named))
    by_name = dict(zip(record.arrays, found, strict=True))
    required = {name: by_name.pop(name) for name in record.required}
    return Gradients(required, {name: d for name, d in by_name.items() if d is not None})


# ---- what else layers call -----------------------------------------------------------------------


def contiguous(x: Any, dtype: Any) -> Dual:
    """As `attnc.arrays.contiguous`, the value; the tangent in that dtype.

    Parameters
    ----------
    x : Dual
    dtype : dtype

    Returns
    -------
    Dual
    """
    parts = (np.require(part, dtype, ("C_CONTIGUOUS", "ALIGNED")) for part in (x.value, x.tangent))
    return paired("require", x, *parts)


def _both(function: Callable[..., Any], *arrays: Any) -> Dual:
    """A function that is linear in all arrays together, which are None or as C takes them."""
    given: list[Any] = [x for x in arrays if x is not None]
    dtype = given[0].dtype
    tangents = [
        None
        if x is None
        else np.require(np.broadcast_to(tangent_of(x), x.shape), dtype, ("C_CONTIGUOUS", "ALIGNED"))
        for x in arrays
    ]
    return Dual(function(*map(value_of, arrays)), function(*tangents))


def product(x: Any, y: Any) -> Any:
    """The matrix product x y.

    Parameters
    ----------
    x, y : Dual or ndarray

    Returns
    -------
    Dual
    """
    (x, u), (y, v) = parts(x), parts(y)
    value = _core.product(x, y)
    terms = [] if u is None else [_core.product(_matrix(u), y)]
    terms += [] if v is None else [_core.product(x, _matrix(v))]
    return dual(value, sum(terms[1:], start=terms[0]) if terms else None)


def _matrix(x: Any) -> Any:
    """A matrix whose rows or columns C can read."""
    return x if x.flags.c_contiguous or x.flags.f_contiguous else np.ascontiguousarray(x)


def normalize(x: Any, weight: Any, bias: Any, epsilon: float, center: bool) -> tuple[Any, Any]:
    """As of `attnc.functional.norm`.

    Parameters
    ----------
    x, weight, bias : Dual, ndarray or None
    epsilon : float
    center : bool

    Returns
    -------
    y : Dual
    saved : callable
        A pullback.
    """
    from attnc.functional import layer_norm, rms_norm

    arrays = (x, weight, bias)[: 2 + center]
    function: Any = layer_norm if center else rms_norm
    return gradients.vjp(function, *arrays, epsilon=epsilon)


def _function(kind: str, up: Any) -> tuple[Any, dict[str, Any]]:
    """The function of this kind of activation, and its options."""
    from attnc import functional

    if up is not None:
        return functional.swiglu, {}
    name = kind.removesuffix("_tanh")
    return getattr(functional, name), {"approximate": True} if name != kind else {}


def activate(kind: str, x: Any, up: Any, bias: Any, up_bias: Any, dropout: float, key: int) -> Any:
    """As of `attnc.functional.activation`.

    Parameters
    ----------
    kind : str
    x, up, bias, up_bias : Dual, ndarray or None
        The sums of x and its bias take the place of x, as there.
    dropout : float
    key : int

    Returns
    -------
    Dual
    """
    for rows, added in ((x, bias), (up, up_bias)):
        if added is not None:
            rows += added
    function, options = _function(kind, up)
    y, _ = gradients.vjp(function, *(x,) if up is None else (x, up), **options)
    return _both(lambda y: _core.add_dropout(None, y, dropout, key), y)


def activate_backward(
    kind: str, dy: Any, x: Any, up: Any, dropout: float, key: int, sums: bool
) -> tuple[Any, ...]:
    """As of `attnc.functional.activation`.

    Parameters
    ----------
    kind : str
    dy, x, up : Dual, ndarray or None
    dropout : float
    key : int
    sums : bool

    Returns
    -------
    tuple of Dual or None
    """
    from attnc.arrays import sum_rows

    dy = _both(lambda dy: _core.add_dropout(None, dy, dropout, key), dy)
    function, options = _function(kind, up)
    _, pullback = gradients.vjp(function, *(x,) if up is None else (x, up), **options)
    dx, dup = (*pullback(dy.reshape(x.shape)), None)[:2]
    biases = [
        None if d is None or not sums else sum_rows(d.reshape(-1, d.shape[-1])) for d in (dx, dup)
    ]
    return dx, dup, *biases


def add_dropout(residual: Any, y: Any, rate: float, rng: Any) -> tuple[Any, Callable[[Any], Any]]:
    """As of `attnc.functional.dropout`.

    Parameters
    ----------
    residual : Dual, ndarray or None
    y : Dual or ndarray
    rate : float
    rng : numpy.random.Generator or None

    Returns
    -------
    out : Dual
    back : callable
    """
    drops = bool(rate) and rng is not None
    key = dropout_key(rng) if drops else 0
    rate = rate if drops else 0.0

    def back(dout):
        if not drops:
            return dout
        return _both(lambda d: _core.add_dropout(None, d, rate, key), dout)

    return _both(lambda x, y: _core.add_dropout(x, y, rate, key), residual, y), back


def recurrence(
    function: Callable[..., Any], x: Any, parameters: Any, state: Any, dtype: Any, options: Any
) -> tuple[Any, Callable[..., Any]]:
    """What `attnc.functional.recurrent.run` does, by the record of the function.

    Parameters
    ----------
    function : callable
    x, parameters, state : Dual, ndarray or None, alone or in tuples
    dtype : dtype
        In which all is computed.
    options : dict

    Returns
    -------
    output
    back : callable
        ``back(doutputs, dstate) -> (dx, dparameters, dstate)``.
    """
    cast = functools.partial(_cast, dtype=dtype)
    output, pullback = gradients.vjp(function, cast(x), parameters, cast(state), **options)

    def back(doutputs, dstate):
        from attnc.arrays import like

        found = pullback(doutputs, dstate)
        first = vars(found).get("state")
        return like(found.x, x), found.parameters, _liked(first, state)

    return output, back


def _cast(x: Any, dtype: Any) -> Any:
    if isinstance(x, tuple | list):
        return built_like(x, [_cast(item, dtype) for item in x])
    return x.astype(dtype) if getattr(x, "dtype", dtype) != dtype else x


def _liked(gradient: Any, argument: Any) -> Any:
    from attnc.arrays import like

    if isinstance(gradient, tuple):
        return tuple(map(_liked, gradient, argument))
    return gradient if gradient is None else like(gradient, argument)

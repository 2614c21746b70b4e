"""One record a function: what `attnc.vjp`, the layers, the tests and every bridge know of it.

A record names the arrays of a function and holds its forward and backward passes as plain
functions: forward returns, beside the output, what backward needs, as a flat tuple of arrays and
a static rest. Nothing is kept in closures, so that whatever differentiates can keep the arrays in
its own way. A function of one's own takes part after `register`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

__all__ = ["Output", "Record", "parted", "record_of", "records", "register", "together"]


class Output(NamedTuple):
    """What an output of a function will be.

    Parameters
    ----------
    shape : tuple of int
        Or of symbols, where the shapes of the arrays hold some.
    kind : {'real', 'computed', 'integer'}
        Its dtype: that of the real arrays together, the one that these are computed in (float32 for
        halves), or int64.
    of : tuple of str, optional
        The arrays whose dtypes count for that; unless given all real ones.
    """

    shape: tuple[Any, ...]
    kind: Literal["real", "computed", "integer"] = "real"
    of: tuple[str, ...] | None = None


class Record(NamedTuple):
    """What is known of one function.

    Parameters
    ----------
    function, required, optional, incoming, positional, forward, backward
        As in `register`.
    arrays : tuple of str
        The required arrays and then the optional ones.
    others : tuple of None
        What stands for all incoming gradients but the first where they are not given.
    jvp, backward_jvp, jvp_jvp, outputs, fixed, leading, batch_axes
        As in `register`.
    """

    function: Callable[..., Any]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    incoming: tuple[str, ...]
    positional: int
    forward: Callable[..., tuple[Any, tuple[Any, ...], Any]]
    backward: Callable[..., tuple[Any, ...]]
    arrays: tuple[str, ...]
    others: tuple[None, ...]
    jvp: Callable[..., tuple[Any, Any]] | None = None
    backward_jvp: Callable[..., tuple[Any, ...]] | None = None
    jvp_jvp: Callable[..., Any] | None = None
    outputs: Callable[..., Any] | None = None
    fixed: tuple[str, ...] = ()
    leading: tuple[str, ...] = ()
    batch_axes: Mapping[str, int] = MappingProxyType({})

    @property
    def name(self) -> str:
        """str: the name of the function, with which error texts begin."""
        return self.function.__name__


_records: dict[Callable[..., Any], Record] = {}


def register(
    function: Callable[..., Any],
    *,
    required: Iterable[str],
    optional: Iterable[str] = (),
    incoming: Iterable[str],
    forward: Callable[..., tuple[Any, tuple[Any, ...], Any]],
    backward: Callable[..., tuple[Any, ...]],
    positional: int | None = None,
    jvp: Callable[..., tuple[Any, Any]] | None = None,
    backward_jvp: Callable[..., tuple[Any, ...]] | None = None,
    jvp_jvp: Callable[..., Any] | None = None,
    outputs: Callable[..., Any] | None = None,
    fixed: Iterable[str] = (),
    leading: Iterable[str] = (),
    batch_axes: Mapping[str, int] | None = None,
) -> Record:
    """Make a function known to `attnc.vjp`, and to all that stands on records.

    Parameters
    ----------
    function : callable
        What the user calls and passes to `vjp`.
    required : iterable of str
        The real arrays that it always takes, in the order of its signature. An argument may be a
        sequence of arrays; its gradient is then a tuple of them.
    optional : iterable of str, optional
        The real arrays that it takes by option.
    incoming : iterable of str
        The gradients of its outputs, in their order, by the names that the pullback takes:
        ``"d"`` and the name of the output.
    forward : callable
        ``forward(*arrays, **options) -> (output, saved, static)``, with the arguments of
        `function`: what that returns; a flat tuple of arrays that backward needs, None among them
        where there is none; and the rest that it needs, of any kind.
    backward : callable
        ``backward(saved, static, *incoming) -> gradients``: one gradient for each of `required`
        and then of `optional`; None for one that was not passed as a real array. An incoming
        gradient that was not given is None, but never all of them.
    positional : int, optional
        How many of the incoming gradients a pullback takes by position; all unless given.
    jvp : callable, optional
        Forward mode: ``jvp(tangents, *arrays, **options) -> (output, tangent)`` with the arguments
        of `function` and a dict of tangents by the name of their array; one that is not there is 0.
        The tangent is built like the output, with None for what is not real.
    backward_jvp : callable, optional
        Second order: ``backward_jvp(tangents, incoming, dincoming, *arrays, **options)`` returns
        the tangents of what `backward` returns, from those of the arrays and of the incoming
        gradients; `incoming` and `dincoming` are in the order of the names above, None for 0. As
        second derivatives are symmetric, this and `jvp` are the gradients of `backward` too.
    jvp_jvp : callable, optional
        Forward mode of forward mode: ``jvp_jvp(tangents, others, *arrays, **options)`` returns the
        tangent of what `jvp` returns for `tangents`, when the arrays alone move, along `others`:
        the second derivative of the function in these two directions, built like the output, with
        None for what is not real. Either is a dict as that of `jvp`, and both may be empty.
    outputs : callable, optional
        ``outputs(*arrays, **options)`` returns an `Output` for each output, built like the output
        of `function`, from arrays of which only ``shape`` is known; sizes may be symbols, with
        which it does arithmetic alone.
    fixed : iterable of str, optional
        The options that may be arrays, but have no gradient: masks, lengths.
    leading : iterable of str, optional
        The arrays, real and fixed, that take any number of leading axes, over which they broadcast;
        or have one shape, where the function asks for that.
    batch_axes : mapping of str to int, optional
        Where there is one batch axis instead: its place in the arrays, real and fixed, and in the
        outputs, by name. From the end, and below 0, in a state of arrays with more axes and fewer.

    Returns
    -------
    Record

    Raises
    ------
    TypeError
        If a function is not callable.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> def power(x, exponent=2):
    ...     return x**exponent
    >>> def forward(x, exponent=2):
    ...     return power(x, exponent), (x,), exponent
    >>> def backward(saved, exponent, dy):
    ...     (x,) = saved
    ...     return (dy * exponent * x ** (exponent - 1),)
    >>> record = attnc.registry.register(
    ...     power, required=["x"], incoming=["dy"], forward=forward, backward=backward
    ... )
    >>> y, pullback = attnc.vjp(power, np.array([1.0, 2.0]), exponent=3)
    >>> pullback(np.ones(2)).x
    array([ 3., 12.])
    """
    for name, value in (("function", function), ("forward", forward), ("backward", backward)):
        if not callable(value):
            raise TypeError(f"register: {name} must be callable, got {type(value).__name__}")
    required, optional, incoming = tuple(required), tuple(optional), tuple(incoming)
    record = Record(
        function,
        required,
        optional,
        incoming,
        len(incoming) if positional is None else positional,
        forward,
        backward,
        (*required, *optional),
        (None,) * (len(incoming) - 1),
        jvp,
        backward_jvp,
        jvp_jvp,
        outputs,
        tuple(fixed),
        tuple(leading),
        MappingProxyType(dict(batch_axes or {})),
    )
    _records[function] = record
    for run in (forward, jvp, backward_jvp, jvp_jvp):
        own = inspect.unwrap(run) if callable(run) else None
        if isinstance(own, FunctionType) and own.__module__.startswith("attnc."):
            own.__qualname__ = record.name  # with which Python's own errors begin: a wrong keyword
    return record


def record_of(function: Any) -> Record | None:
    """The record of a function, or None.

    Parameters
    ----------
    function : object

    Returns
    -------
    Record or None
    """
    try:
        return _records.get(function)
    except TypeError:  # not hashable
        return None


def records() -> tuple[Record, ...]:
    """All records, in the order in which they were registered.

    Returns
    -------
    tuple of Record
    """
    return tuple(_records.values())


# ---- what a pass keeps, as arrays and a rest -----------------------------------------------------


class _Place(int):
    """The index of the array that was here."""


def parted(state: Any) -> tuple[tuple[Any, ...], Any]:
    """The arrays within some state, each once, and the state with their places in it.

    For functions whose forward pass keeps objects: their records save ``parted(state)``, and
    backward begins with ``together(saved, static)``.

    Parameters
    ----------
    state : object
        Arrays, lists, tuples, dicts and objects of this package, within each other.

    Returns
    -------
    saved : tuple of ndarray
    static : object
        A copy of the state without its arrays.
    """
    arrays: list[Any] = []

    def place(array: Any) -> _Place:
        arrays.append(array)
        return _Place(len(arrays) - 1)

    static = _replaced(state, np.ndarray, place, {})
    return tuple(arrays), static


def together(saved: tuple[Any, ...], static: Any) -> Any:
    """The state that `parted` took apart, a copy of it with these arrays.

    Parameters
    ----------
    saved : tuple of ndarray
    static : object

    Returns
    -------
    object
    """
    return _replaced(static, _Place, saved.__getitem__, {})


def _replaced(x: Any, kind: type, replace: Callable[[Any], Any], done: dict[int, Any]) -> Any:
    """A copy of x in which everything of this kind is replaced; the same thing, by one thing."""
    if isinstance(x, kind):
        if id(x) not in done:
            done[id(x)] = replace(x), x  # x lives as long as its id is a key
        return done[id(x)][0]
    if type(x) is tuple:
        return tuple([_replaced(item, kind, replace, done) for item in x])
    if type(x) is list:
        return [_replaced(item, kind, replace, done) for item in x]
    if type(x) is dict:
        return {key: _replaced(item, kind, replace, done) for key, item in x.items()}
    if type(x).__module__.startswith("attnc.") and hasattr(x, "__dict__"):
        if id(x) not in done:
            twin = copy.copy(x)
            done[id(x)] = twin, x
            for name, item in vars(x).items():
                vars(twin)[name] = _replaced(item, kind, replace, done)
        return done[id(x)][0]
    return x

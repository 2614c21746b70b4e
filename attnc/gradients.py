"""Gradients: one mechanism for the functions, the layers and every bridge.

``vjp(f, *arrays, **options)`` runs the forward pass of ``f`` once and returns what ``f`` returns
together with its *pullback*, the map from gradients of the outputs to gradients of the inputs.
There is no tape: a function takes part by its record (`attnc.registry`), a layer by its method
``_vjp``.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections import namedtuple
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from attnc.mode import mode
from attnc.registry import Output, Record, record_of, records

__all__ = [
    "Gradients",
    "Pullback",
    "gradients_of",
    "register_vjp",
    "require_incoming",
    "result_type",
    "shows_shapes",
    "unknown",
    "vjp",
]

P = ParamSpec("P")
T = TypeVar("T")

_Rule = Callable[..., tuple[Any, Callable[..., Any]]]  # from arguments to output and pullback
_rules: dict[Callable[..., Any], _Rule] = {}  # by function: `register_vjp`


class Gradients(tuple[Any, ...]):
    """The gradients that a pullback returns.

    Iterating gives the gradients of the required arrays in the order of the function's signature,
    so that ``dquery, dkey, dvalue = pullback(dcontext)`` works. Every real array that was passed is
    also there under its argument's name: ``grads.bias``, or ``grads["bias"]`` in a loop over names.

    Parameters
    ----------
    required : dict of str to ndarray
        Gradients of the required arrays, in signature order.
    optional : dict of str to ndarray, optional
        Gradients of the arrays that were passed by option.
    """

    def __new__(cls, required: dict[str, Any], optional: dict[str, Any] | None = None) -> Gradients:
        self = super().__new__(cls, required.values())
        self.__dict__ = required | (optional or {})
        return self

    def __getattr__(self, name: str) -> Any:
        # Only reached when there is no such gradient.
        raise AttributeError(
            f"no gradient of {name!r}: it was not passed as a real array; "
            f"there are {', '.join(self.__dict__)}"
        )

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else super().__getitem__(key)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}: {_describe(g)}" for name, g in self.__dict__.items())
        return f"Gradients({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (tuple(self), self.__dict__)


def _unpickled(required: Iterable[Any], by_name: dict[str, Any]) -> Gradients:
    """A `Gradients` that was pickled, with all its arrays by name."""
    self = tuple.__new__(Gradients, required)
    self.__dict__ = by_name
    return self


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, Output):
        return repr(value)
    if isinstance(value, tuple):
        return "(" + ", ".join(_describe(v) for v in value) + ")"
    if not hasattr(value, "dtype"):  # what `jax.tree.map` may put there
        return repr(value)
    return f"{value.dtype} {value.shape}"


def result_type(name: str, fields: str) -> Any:
    """A named tuple whose repr shows shapes, not numbers.

    Parameters
    ----------
    name : str
    fields : str
        The names of the fields, separated by spaces.

    Returns
    -------
    type
    """
    module = sys._getframe(1).f_globals["__name__"]  # as namedtuple does: for pickle
    return shows_shapes(namedtuple(name, fields, module=module))


def shows_shapes(kind: type[T]) -> type[T]:
    """Let the repr of a named tuple show shapes, not numbers.

    A class with its fields' types, of `typing.NamedTuple`, tells checkers what is in it;
    `result_type` makes one without.

    Parameters
    ----------
    kind : type
        Changed in place.

    Returns
    -------
    type
    """

    def __repr__(self: Any) -> str:
        shown = ", ".join(f"{field}={_describe(getattr(self, field))}" for field in self._fields)
        return f"{type(self).__name__}({shown})"

    type.__setattr__(kind, "__repr__", __repr__)
    return kind


def require_incoming(where: str, **incoming: Any) -> None:
    """Refuse a pullback that is called with nothing: its gradients would be zero in silence.

    Parameters
    ----------
    where : str
        The function or layer whose pullback it is.
    **incoming
        The incoming gradients by name, None where not given.

    Raises
    ------
    TypeError
        If all are None.
    """
    if all(gradient is None for gradient in incoming.values()):
        raise TypeError(
            f"{where}: pullback must get {' or '.join(incoming)}, the gradient of the loss with "
            "respect to that output, got none"
        )


def register_vjp(function: Callable[..., Any], rule: _Rule) -> None:
    """Teach `vjp` a function by one rule.

    `attnc.registry.register` does more: what a record says reaches the bridges too.

    Parameters
    ----------
    function : callable
        What the user passes to `vjp`.
    rule : callable
        ``rule(*arrays, **options) -> (output, pullback)``.
    """
    _rules[function] = rule


class _Signature:
    """The signature of a pullback, for help() and completion: the names that its record has."""

    def __get__(self, pullback: Pullback | None, owner: Any = None) -> inspect.Signature:
        if pullback is None:  # the class
            return inspect.signature(lambda func, /, *args, **keywords: None)
        kinds, record = inspect.Parameter, pullback.args[0]
        parameters = [
            kinds(
                name,
                kinds.POSITIONAL_OR_KEYWORD if k < record.positional else kinds.KEYWORD_ONLY,
                default=None,
            )
            for k, name in enumerate(record.incoming)
        ]
        return inspect.Signature(parameters)


class Pullback(functools.partial[Gradients]):
    """The map from gradients of the outputs of one call to gradients of its inputs.

    Called with the gradients of the outputs by name, as `registry.Record.incoming` lists them, or
    the first ones by position, it returns `Gradients`. It is `gradients_of` with its first
    arguments, and may be called more than once.

    Parameters
    ----------
    func : callable
        `gradients_of`.
    *args
        The record of the function, what the forward pass left, and whether its output is a number.
    **keywords
        None.
    """

    __slots__ = ()
    __signature__ = _Signature()

    def __reduce__(self) -> tuple[Any, ...]:
        record, *kept = self.args
        return _pullback_of, (record.function, *kept)

    def __repr__(self) -> str:
        return f"<pullback of {self.args[0].name}{self.__signature__}>"


def _pullback_of(function: Callable[..., Any], *kept: Any) -> Pullback:
    """A pullback that was pickled."""
    return Pullback(gradients_of, record_of(function), *kept)


def gradients_of(
    record: Record,
    saved: tuple[Any, ...],
    static: Any,
    scalar: bool,
    first: Any = None,
    /,
    *others: Any,
    **named: Any,
) -> Gradients:
    """The gradients of the inputs of a call: what its pullback runs.

    Parameters
    ----------
    record : registry.Record
    saved : tuple of ndarray or None
    static : object
        What the forward pass left, both.
    scalar : bool
        Whether the first output is one number: its gradient is 1 unless given.
    first, *others, **named
        Gradients of the outputs, the first by position, all by name. None: not given.

    Returns
    -------
    Gradients

    Raises
    ------
    TypeError, ValueError
        If none is given and the first output is not a number; if one is of a wrong kind, or has not
        the shape of its output.
    """
    if first is None or others or named:
        by_position = (first, *others) if others or first is not None else ()
        found = record.backward(saved, static, *_incoming(record, scalar, by_position, named))
    else:  # the same, in less time
        found = record.backward(saved, static, first, *record.others)
    gradients = tuple.__new__(Gradients, found[: len(record.required)])
    by_name = gradients.__dict__
    # Without strict=: to parse that keyword takes longer than all the rest here.
    for name, gradient in zip(record.arrays, found):  # noqa: B905
        if gradient is not None:  # it was passed as a real array
            by_name[name] = gradient
    return gradients


def _incoming(
    record: Record, scalar: bool, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Any, ...]:
    """All incoming gradients, in the order of their names; that of a number is 1."""
    names, most = record.incoming, record.positional
    if len(given) > most:
        raise TypeError(
            f"{record.name}: pullback takes {most} gradient{'s' * (most != 1)} by "
            f"position, got {len(given)}; the others by name: {', '.join(names[most:])}"
        )
    for name in named:
        if name not in names:
            raise TypeError(f"{record.name}: pullback takes {', '.join(names)}, got {name!r}")
        if name in names[: len(given)]:
            raise TypeError(f"{record.name}: pullback got {name} by position and by name")
    given = (*given, *(named.get(name) for name in names[len(given) :]))
    if any(gradient is not None for gradient in given):
        return given
    if not scalar:
        require_incoming(record.name, **dict.fromkeys(names))
    return (1.0, *record.others)


def vjp(
    f: Callable[P, T], /, *arrays: P.args, **options: P.kwargs
) -> tuple[T, Callable[..., Gradients]]:
    """Run ``f`` and return its output with the pullback of gradients.

    Parameters
    ----------
    f : function or Layer
        One of the package's functions (`attnc.dot_product_attention`, ...) or a layer.
    *arrays
        The arrays of ``f``, as in a call of ``f``.
    **options
        The options of ``f``, as in a call of ``f``.

    Returns
    -------
    output
        What ``f(*arrays, **options)`` returns.
    pullback : callable
        For the attention functions ``pullback(dcontext=None, *, dweights=None, dlse=None)``; it
        returns `Gradients`. An incoming gradient has exactly the shape of its output. The pullback
        may be called more than once. It refers to the inputs without copying them: do not write to
        them before its last call.

    Raises
    ------
    TypeError
        If ``f`` is neither a function of this package nor a layer.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> x = np.ones((2, 3, 4))
    >>> context, pullback = attnc.vjp(attnc.dot_product_attention, x, x, x)
    >>> dquery, dkey, dvalue = pullback(np.ones_like(context))
    >>> dvalue.shape
    (2, 3, 4)
    """
    record = record_of(f)
    if record is not None:
        if mode.dual is not None:
            return mode.dual.vjp(record, arrays, options)
        output, saved, static = record.forward(*arrays, **options)
        first = output[0] if isinstance(output, tuple) else output
        scalar = getattr(first, "ndim", 1) == 0
        return output, Pullback(gradients_of, record, saved, static, scalar)
    rule: _Rule | None
    try:
        rule = _rules[f]
    except (KeyError, TypeError):  # TypeError: not hashable
        rule = getattr(f, "_vjp", None)
        if rule is None or isinstance(f, type):
            raise TypeError(unknown("vjp", f, "a function of attnc or a layer")) from None
    return rule(*arrays, **options)


def unknown(where: str, f: Any, kinds: str) -> str:
    """The error text for what is no function of these kinds.

    Parameters
    ----------
    where : str
        What was called with it.
    f : object
    kinds : str
        What it must be.

    Returns
    -------
    str
    """
    name = getattr(f, "__name__", None) or type(f).__name__
    if isinstance(f, type) and hasattr(f, "_vjp"):
        return f"{where}: f must be {kinds}, got the class {name}; make one first: {name}(...)"
    known = {record.name: record.function for record in records()}
    known |= {function.__name__: function for function in _rules}
    if name in known and f is not known[name]:
        name = f"{name} of {getattr(f, '__module__', None)}; attnc has its own of that name"
    return (
        f"{where}: f must be {kinds}, got {name}; the functions are "
        f"{', '.join(sorted(known))}; for a function of your own: attnc.registry.register"
    )

"""`attnc.jvp` and `attnc.hvp` of layers: their own passes, run on dual numbers.

A layer is NumPy and functions of this package. So its forward pass on dual numbers is its `jvp`,
and its pullback on them its second order; nothing is written twice. It runs on a twin, which has
dual numbers in the place of the parameters and arrays of its own for gradients. So threads do not
meet, and the layer itself is only read. What else it holds the twin shares: a generator that the
layer draws from moves on as in a call of the layer.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from attnc.arrays import is_array, plain_array
from attnc.directions import arguments, named_gradients, named_tangents
from attnc.dual import Dual, NoTangent
from attnc.dual_calls import built_like, carried, dual
from attnc.gradients import Gradients
from attnc.layers.base import Layer
from attnc.layers.named import in_memory_order, place
from attnc.twins import twin_of

__all__ = ["hvp_of_layer", "jvp_of_layer"]


def jvp_of_layer(
    layer: Any, arrays: Sequence[Any], tangents: Any, options: dict[str, Any]
) -> tuple[Any, Any]:
    """As `attnc.jvp`.

    Parameters
    ----------
    layer : Layer
    arrays : sequence
    tangents : sequence or mapping
    options : dict

    Returns
    -------
    output
    tangent
    """
    inputs, keywords, moved = _on_dual_numbers(layer, arrays, tangents, options)
    with _running(layer):
        output, _ = _twin(layer, moved, own_gradients=False)._vjp(*inputs, **keywords)
    return _value(output), _tangent(output)


def hvp_of_layer(
    layer: Any, arrays: Sequence[Any], tangents: Any, dcontext: Any, options: dict[str, Any]
) -> Gradients:
    """As `attnc.hvp`.

    Parameters
    ----------
    layer : Layer
    arrays : sequence
    tangents : sequence or mapping
    dcontext
    options : dict

    Returns
    -------
    Gradients
    """
    inputs, keywords, moved = _on_dual_numbers(layer, arrays, tangents, options)
    twin = _twin(layer, moved, own_gradients=True)
    with _running(layer):
        output, pullback = twin._vjp(*inputs, **keywords)
        incoming = _incoming(type(layer).__name__, output, pullback, dcontext)
        found = pullback(**incoming)
    by_name = {name: _tangent(gradient) for name, gradient in vars(found).items()}
    required = {name: by_name.pop(name) for name in list(by_name)[: len(found)]}
    for name, (home, own) in twin._owners().items():
        if not home._frozen[own].value:
            by_name[name] = _tangent(home._gradients[own])
    return Gradients(required, by_name)


@contextlib.contextmanager
def _running(layer: Layer) -> Iterator[None]:
    """Forward mode; what cannot be in it is said of the layer."""
    try:
        with carried():
            yield
    except (TypeError, ValueError) as error:
        # Where one number is put into an array, NumPy says what it makes of the error.
        cause = error if isinstance(error, NoTangent) else error.__cause__
        if not isinstance(cause, NoTangent):
            raise
        raise TypeError(
            f"{type(layer).__name__}: for jvp and hvp its _vjp must compute with what has a rule "
            f"for tangents, or by attnc.vjp; got {str(cause).removeprefix('Dual: ')}"
        ) from error


# ---- the call ------------------------------------------------------------------------------------


def _on_dual_numbers(
    layer: Layer, arrays: Sequence[Any], tangents: Any, options: dict[str, Any]
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """The arguments of a call with their tangents, and the tangents of parameters by name."""
    where = type(layer).__name__
    if not isinstance(layer, Layer):
        raise TypeError(
            f"{where}: for jvp and hvp f must be an attnc.layers.Layer, got one without"
        )
    parameters = layer.parameters
    given = arguments(where, layer._vjp, arrays, options)
    try:
        inspect.signature(layer._vjp).bind(*arrays, **options)
    except TypeError:  # the layer says it by name
        layer(*arrays, **options)
        raise
    for name in parameters:
        if given.get(name) is not None:
            raise ValueError(
                f"{where}: parameters must differ in names from arguments, got two called {name}"
            )
    passed = [name for name, value in given.items() if value is not None]
    all_named = given | parameters
    moved = named_tangents(where, all_named, [*passed, *parameters], passed, arrays, tangents)
    inputs = [_input(layer, x, moved.get(name)) for name, x in zip(given, arrays, strict=False)]
    keywords = {name: _input(layer, x, moved.get(name)) for name, x in options.items()}
    return inputs, keywords, {name: t for name, t in moved.items() if name in parameters}


def _input(layer: Layer, value: Any, tangent: Any) -> Any:
    """An argument as dual numbers, where it is an array or has a tangent."""
    if tangent is None:
        if isinstance(value, tuple | list) and any(type(x) is np.ndarray for x in value):
            return built_like(value, [_input(layer, x, None) for x in value])
        return dual(value) if type(value) is np.ndarray else value
    if isinstance(tangent, tuple):
        return tuple(_input(layer, *pair) for pair in zip(value, tangent, strict=True))
    if not isinstance(value, np.ndarray):  # lists come without a dtype: the layer's is theirs
        value = plain_array(type(layer).__name__, "x", value).astype(layer.dtype)
    return dual(value, tangent)


def _twin(layer: Layer, tangents: Mapping[str, Any], *, own_gradients: bool) -> Layer:
    """A copy of a layer with dual numbers for its parameters; what is tied remains so."""
    owners = layer._owners()
    moved: dict[Any, str] = {}  # by place the name whose tangent counts
    for name in tangents:
        array = owners[name][0]._parameters[owners[name][1]]
        first = moved.setdefault(place(array), name)
        if first != name:
            _require_equal(layer, first, name, tangents)
    replaced: dict[int, Any] = {}  # what stands for an array in the copy
    made: dict[Any, tuple[Any, ...]] = {}  # by place: an array, its dual numbers, its gradient
    for name in sorted(owners, key=lambda name: name not in moved.values()):  # these first
        home, own = owners[name]
        array, gradient = home._parameters[own], home._gradients[own]
        new = dual(array, tangents.get(name)), _zeros(gradient) if own_gradients else gradient
        first, *stand_ins = made.setdefault(place(array), (array, *new))
        turned = (first.shape, first.strides) != (array.shape, array.strides)
        for each, stand_in in zip((array, gradient), stand_ins, strict=True):
            replaced[id(each)] = stand_in.T if turned else stand_in
    return twin_of(layer, replaced)


def _zeros(array: Any) -> Dual:
    return Dual(np.zeros_like(array), np.zeros_like(array))


def _require_equal(layer: Layer, first: str, name: str, tangents: Mapping[str, Any]) -> None:
    """Refuse two tangents of one array."""
    parameters = layer.parameters
    x, y = (in_memory_order(parameters[each], tangents[each]) for each in (first, name))
    if not np.array_equal(x, y, equal_nan=True):
        raise ValueError(
            f"{type(layer).__name__}: tangents of {first} and {name} must be equal, as they are "
            "one array, got different values"
        )


# ---- incoming gradients --------------------------------------------------------------------------


def _incoming(where: str, output: Any, pullback: Any, dcontext: Any) -> dict[str, Any]:
    """All incoming gradients that were given, as dual numbers, by the names of the pullback."""
    kinds = inspect.Parameter
    parameters = inspect.signature(pullback).parameters.values()
    names = [p.name for p in parameters if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    further = any(p.kind == kinds.VAR_KEYWORD for p in parameters)
    if not names:
        raise TypeError(f"{where}: for hvp its pullback must name the gradients that it takes")
    if isinstance(output, tuple):
        fields = getattr(output, "_fields", None)
        outputs = names if fields is None else ["d" + field for field in fields]
        said = dict(zip(outputs, output, strict=False))
        said = {name: x for name, x in said.items() if name in names or further}
        names += [name for name in said if name not in names]
    else:
        said = {names[0]: output if is_array(output) or isinstance(output, float) else None}
    given = named_gradients(where, names, said, dcontext)
    # The gradient of a loss is a number, which layers check as one.
    return {
        name: float(gradient) if getattr(said[name], "shape", None) == () else dual(gradient)
        for name, gradient in given.items()
    }


# ---- values and tangents -------------------------------------------------------------------------


def _value(x: Any) -> Any:
    """An output without its tangents."""
    if isinstance(x, tuple | list):
        return built_like(x, [_value(item) for item in x])
    if isinstance(x, dict):
        return {name: _value(item) for name, item in x.items()}
    return x.value if isinstance(x, Dual) else x


def _tangent(x: Any) -> Any:
    """The tangents of an output, arrays of their own; None of what is not real."""
    if isinstance(x, tuple | list):
        return built_like(x, [_tangent(item) for item in x])
    if isinstance(x, dict):
        return {name: _tangent(item) for name, item in x.items()}
    if isinstance(x, Dual):
        tangent = np.array(x.tangent, x.dtype, order="C")
        return tangent if isinstance(x.value, np.ndarray) else tangent[()]
    if isinstance(x, float):
        return type(x)(0)
    if isinstance(x, np.ndarray) and x.dtype.kind not in "biu":  # a constant
        return np.zeros_like(x, order="C")
    return None

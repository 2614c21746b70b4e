"""Derivatives along a direction: `jvp` of a function or layer, and `hvp` of its gradients.

A direction gives every array a tangent, the rate at which it changes. Forward mode carries these
along with the numbers, through the function (`jvp`) or through its pullback (`hvp`, which is
forward over reverse); what both stand on are the records of `attnc.registry`, and for layers
`attnc.layer_directions`. Here the tangents of a call are checked and named.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from attnc.arrays import plain_array, real_array
from attnc.functional.options import nearest
from attnc.functional.shapes import holds_arrays, shape_of
from attnc.gradients import Gradients, unknown
from attnc.registry import Output, Record, record_of

__all__ = ["arguments", "hvp", "jvp", "named_gradients", "named_tangents"]


def jvp(
    f: Callable[..., Any],
    arrays: Sequence[Any],
    tangents: Sequence[Any] | Mapping[str, Any],
    **options: Any,
) -> tuple[Any, Any]:
    """Run ``f`` and, along with it, its derivative in one direction: forward mode.

    For a function of arrays x and a direction u it is the product of the Jacobian with u, ``d/dr
    f(x + r u)`` at r = 0, at about the cost of ``f`` once for each array with a tangent; nothing is
    kept for a way back. A layer is a function of its parameters, too, frozen ones among them.

    Parameters
    ----------
    f : function or Layer
        One of the package's functions, `attnc.dot_product_attention`, ..., or a layer. One of your
        own takes part if its ``_vjp`` computes in NumPy and by `attnc.vjp`.
    arrays : sequence
        The arguments that ``f`` takes by position.
    tangents : sequence or dict
        In the order of `arrays`, each built and shaped like its array, of any float dtype; None is
        0, and all there is for arguments that are not real. Or a dict by the names of arguments,
        those in `options` included: ``{"query": ..., "bias": ...}``; and of parameters of a layer,
        as ``layer.parameters`` has them: ``{"x": ..., "layers.0.weight": ...}``. Those that are
        tied are one array, with one tangent: under any of its names, or the same under all.
    **options
        The options of ``f``, as in a call of ``f``.

    Returns
    -------
    output
        What ``f(*arrays, **options)`` returns.
    tangent
        That of the output, built like it; None of what is not real.

    Raises
    ------
    TypeError
        If ``f`` is neither a function of this package nor a layer, `tangents` are not as many as
        `arrays` or name what has none, or one is not of floats. If a layer computes with what has
        no tangents.
    ValueError
        If a tangent has not the shape of its array. If a layer is asked for decisions, which have
        no derivative: ``hard=True``, a cache, ``sampling``.
    NotImplementedError
        If ``f``, or a function that a layer calls, was registered without forward mode.

    See Also
    --------
    vjp : the gradients, for all directions at once
    hvp : the tangents of the gradients

    Examples
    --------
    >>> import numpy as np, attnc
    >>> x, u = np.array([1.0, 2.0, 4.0]), np.array([1.0, 0.0, 0.0])
    >>> y, tangent = attnc.jvp(attnc.functional.rms_norm, [x], [u])
    >>> tangent.round(3)
    array([ 0.36 , -0.036, -0.072])
    >>> y, tangent = attnc.jvp(attnc.functional.rms_norm, [x], {"weight": x}, weight=np.ones(3))
    >>> np.allclose(tangent, y * x)
    True
    >>> layer, weight = attnc.Linear(3, 2, rng=0, dtype="float64"), np.ones((3, 2))
    >>> y, tangent = attnc.jvp(layer, [x], {"weight": weight})
    >>> tangent
    array([7., 7.])
    """
    record = _record("jvp", f)
    if record is None:
        from attnc.layer_directions import jvp_of_layer

        return jvp_of_layer(f, arrays, tangents, options)
    _require("jvp", record, "jvp", "forward mode")
    named = _of_record(record, arrays, tangents, options)
    return record.jvp(named, *arrays, **options)  # type: ignore[misc]


def hvp(
    f: Callable[..., Any],
    arrays: Sequence[Any],
    tangents: Sequence[Any] | Mapping[str, Any],
    dcontext: Any = None,
    **options: Any,
) -> Gradients:
    """The derivative of the gradients of ``f`` in one direction: second order.

    With the loss ``L(x) = <dcontext, f(x)>`` and a direction u it is the product of the Hessian of
    L with u, ``d/dr`` at r = 0 of the gradients at ``x + r u``, at a few times their cost:
    Pearlmutter 1994, "Fast exact multiplication by the Hessian".

    Parameters
    ----------
    f : function or Layer
        As in `jvp`.
    arrays : sequence
        The arguments that ``f`` takes by position.
    tangents : sequence or dict
        As in `jvp`.
    dcontext : array_like, sequence or dict, optional
        The incoming gradient, a constant, as the pullback of ``f`` takes it. Of a function with
        several outputs that of the first; or a sequence in the order of its outputs, None for 0; or
        a dict by the names that its pullback takes: ``{"dlse": ...}``. May be left out where the
        output is one number: then it is 1.
    **options
        The options of ``f``, as in a call of ``f``.

    Returns
    -------
    Gradients
        What the pullback of ``f`` returns, but the tangents of that: of the required arrays in the
        order of the signature, and all by name. Of a layer those of the gradients of its parameters
        are there by their names too, but for frozen ones, which have none:
        ``found["layers.0.weight"]``. Nothing is added to ``layer.gradients``.

    Raises
    ------
    TypeError
        As `jvp`; and if no incoming gradient is given and the output is not one number, or one is
        given for an output that there is not.
    ValueError
        If a tangent has not the shape of its array, or an incoming gradient not that of its output.
    NotImplementedError
        If ``f``, or a function that a layer calls, was registered without second order.

    See Also
    --------
    jvp : the tangent of the output
    vjp : the gradients themselves

    Examples
    --------
    >>> import numpy as np, attnc
    >>> logits, u = np.zeros(4), np.array([1.0, 0.0, 0.0, 0.0])
    >>> found = attnc.hvp(attnc.losses.softmax_cross_entropy, [logits, 2], [u, None])
    >>> found.logits  # (diag(p) - p p^T) u
    array([ 0.1875, -0.0625, -0.0625, -0.0625])
    >>> model = attnc.LanguageModel(vocabulary_size=9, size=4, num_heads=2, layers=1, rng=0)
    >>> tokens, direction = np.array([[1, 2, 3]]), model.state_dict()
    >>> found = attnc.hvp(model, [tokens[:, :-1]], direction, labels=tokens[:, 1:])
    >>> found["output.bias"].shape
    (9,)
    """
    record = _record("hvp", f)
    if record is None:
        from attnc.layer_directions import hvp_of_layer

        return hvp_of_layer(f, arrays, tangents, dcontext, options)
    _require("hvp", record, "backward_jvp", "second order")
    named = _of_record(record, arrays, tangents, options)
    said = _said(record, arrays, options)
    given = named_gradients(record.name, record.incoming, said, dcontext)
    incoming = tuple(given.get(name) for name in record.incoming)
    constant = (None, *record.others)
    found = record.backward_jvp(named, incoming, constant, *arrays, **options)  # type: ignore[misc]
    by_name = dict(zip(record.arrays, found, strict=True))
    required = {name: by_name.pop(name) for name in record.required}
    return Gradients(required, {name: d for name, d in by_name.items() if d is not None})


def _record(where: str, f: Any) -> Record | None:
    """The record of a function; None of a layer."""
    record = record_of(f)
    if record is None and (isinstance(f, type) or not hasattr(f, "_vjp")):
        raise TypeError(unknown(where, f, "a function of attnc or a layer"))
    return record


def _require(where: str, record: Record, name: str, what: str) -> None:
    if getattr(record, name) is None:
        raise NotImplementedError(
            f"{where}: f must be a function with {what}, got {record.name}, which was registered "
            f"without {name}="
        )


def _of_record(
    record: Record, arrays: Sequence[Any], tangents: Any, options: dict[str, Any]
) -> dict[str, Any]:
    """The tangents of a call of a function, by name."""
    given = arguments(record.name, record.function, arrays, options)
    return named_tangents(record.name, given, record.arrays, record.optional, arrays, tangents)


# ---- the arguments of a call, by name ------------------------------------------------------------


def arguments(
    where: str, function: Callable[..., Any], arrays: Any, options: dict[str, Any]
) -> dict[str, Any]:
    """All that a call passes, by the names of arguments.

    Parameters
    ----------
    where : str
        What the error text begins with.
    function : callable
        Whose names they are.
    arrays : sequence
        What is passed by position.
    options : dict

    Returns
    -------
    dict

    Raises
    ------
    TypeError
        If `arrays` is no sequence.
    """
    if not isinstance(arrays, tuple | list):
        raise TypeError(
            f"{where}: arrays must be a sequence, the arguments by position, got "
            f"{type(arrays).__name__}; one alone is [x]"
        )
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(function).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in kinds]
    for parameter in parameters:
        if parameter.kind == parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}[{k}]" for k in range(len(arrays) - len(names))]
    return dict(zip(names, arrays, strict=False)) | options  # too many: the function says so


def named_tangents(
    where: str,
    given: Mapping[str, Any],
    known: Sequence[str],
    numbers: Sequence[str],
    arrays: Sequence[Any],
    tangents: Any,
) -> dict[str, Any]:
    """The tangents that are not 0, checked, by the names of their arrays.

    Parameters
    ----------
    where : str
        What error texts begin with.
    given : mapping
        All that may be named, first what was passed by position.
    known : sequence of str
        The names of what may have a tangent.
    numbers : sequence of str
        Of these the names of what is a constant where it is a number of Python's or NumPy's.
    arrays : sequence
        What was passed by position.
    tangents : sequence or mapping

    Returns
    -------
    dict

    Raises
    ------
    TypeError, ValueError
        As `jvp` does.
    """
    if not isinstance(tangents, Mapping):
        if not isinstance(tangents, tuple | list):
            raise TypeError(
                f"{where}: tangents must be a sequence in the order of arrays or a dict by name, "
                f"got {type(tangents).__name__}; one alone is [tangent]"
            )
        if len(tangents) != len(arrays):
            raise TypeError(
                f"{where}: tangents must be as many as arrays, {len(arrays)}, None for 0, got "
                f"{len(tangents)}; those of options by name: {{'name': tangent}}"
            )
        tangents = dict(zip(given, tangents, strict=False))
    found = {}
    for name, tangent in tangents.items():
        if tangent is None:
            continue
        if name not in known:
            if name in given:
                raise TypeError(
                    f"{where}: tangent of {name} must be None, as it is no array of real numbers "
                    f"to {where}, got {_shown(tangent)}"
                )
            raise TypeError(
                f"{where}: tangents must be of its arrays, {', '.join(known)}, got "
                f"{name!r}" + nearest(str(name), known)
            )
        value = given.get(name)
        if value is None:
            raise TypeError(
                f"{where}: tangent of {name} must be None, as no {name} was passed, got "
                f"{_shown(tangent)}"
            )
        if name in numbers and np.isscalar(value):
            raise TypeError(
                f"{where}: tangent of {name} must be None, as a number is a constant, got "
                f"{_shown(tangent)}; pass np.array({value!r})"
            )
        tangent = _like(where, name, value, tangent, _tangent, "tangent of ")
        if tangent is not None:
            found[name] = tangent
    return found


def _like(
    where: str,
    name: str,
    value: Any,
    given: Any,
    check: Callable[[str, str, Any, Any], Any],
    prefix: str = "",
) -> Any:
    """What goes with a value, as arrays and built like it; None for what is all 0.

    ``check(where, name, value, given)`` returns what goes with one array. Error texts call it by
    the name, after the prefix.
    """
    if given is None:
        return None
    if not holds_arrays(value) or isinstance(value, Output):
        return check(where, name, value, given)
    if not isinstance(given, tuple | list) or len(given) != len(value):
        raise TypeError(
            f"{where}: {prefix}{name} must be a sequence of {len(value)}, as "
            f"{name if prefix else 'its output'} is, got {_shown(given)}"
        )
    items = [
        _like(where, f"{name}[{k}]", *pair, check, prefix)
        for k, pair in enumerate(zip(value, given, strict=True))
    ]
    return None if all(item is None for item in items) else tuple(items)


def _tangent(where: str, name: str, value: Any, tangent: Any) -> Any:
    """The tangent of one array, checked."""
    if value is None:
        raise TypeError(
            f"{where}: tangent of {name} must be None, as {name} is, got {_shown(tangent)}"
        )
    try:
        dtype = value.dtype if type(value) is np.ndarray else plain_array(where, name, value).dtype
    except TypeError as error:
        library = type(value).__module__.partition(".")[0]
        raise TypeError(f"{error}{_TRANSFORMS.get(library, '')}") from None
    if dtype.kind in "biu":
        raise TypeError(
            f"{where}: tangent of {name} must be None, as {name} has dtype {dtype}, got "
            f"{_shown(tangent)}; pass {name}.astype(float)"
        )
    return _checked(where, f"tangent of {name}", tangent, shape_of(value), name)


# What to call for arrays of other libraries.
_TRANSFORMS = {
    "torch": ", with torch.func.jvp",
    "jaxlib": ", with jax.jvp",
    "jax": ", with jax.jvp",
    "autograd": ", with autograd.make_jvp",
}


def _checked(where: str, name: str, value: Any, shape: tuple[Any, ...], of: str) -> Any:
    """A tangent or incoming gradient as an array of floats of exactly this shape."""
    array = real_array(where, name, value)
    if array.dtype.kind in "iu":
        raise TypeError(f"{where}: {name} must have a float dtype, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{where}: {name} must have the shape of {of}, {shape}, got {array.shape}")
    return array


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"shape {value.shape}" if hasattr(value, "shape") else repr(value)


# ---- incoming gradients --------------------------------------------------------------------------


def named_gradients(
    where: str, names: Sequence[str], said: Mapping[str, Any], dcontext: Any
) -> dict[str, Any]:
    """The incoming gradients that are not 0, checked, by the names that the pullback takes.

    Parameters
    ----------
    where : str
        What error texts begin with.
    names : sequence of str
        All that the pullback of such calls takes.
    said : mapping
        For each gradient that there may be its output, or what is said of it; None where that is
        not known: then the gradient is not checked here.
    dcontext
        As in `hvp`.

    Returns
    -------
    dict
        Not empty: where the first output is one number, its gradient is 1 unless given.

    Raises
    ------
    TypeError, ValueError
        As `hvp` does.
    """
    if isinstance(dcontext, Mapping):
        given = dict(dcontext)
    elif len(names) > 1 and holds_arrays(dcontext):
        if len(dcontext) > len(said):
            raise TypeError(
                f"{where}: dcontext must be of its outputs, {', '.join(said)}, got {len(dcontext)}"
            )
        given = dict(zip(said, dcontext, strict=False))
    else:
        given = {names[0]: dcontext}
    for name in given:
        if name not in said:
            missing = "" if name not in names else ", which was not asked for"
            raise TypeError(
                f"{where}: dcontext must be of its outputs, {', '.join(said)}, got {name!r}"
                + missing
            )
    checked = {name: _like(where, name, said[name], d, _gradient) for name, d in given.items()}
    checked = {name: gradient for name, gradient in checked.items() if gradient is not None}
    if not checked:
        if getattr(said[names[0]], "shape", None) != ():
            raise TypeError(
                f"{where}: hvp must get dcontext, the gradient of the loss with respect to an "
                f"output ({', '.join(said)}), got none"
            )
        checked = {names[0]: np.array(1.0)}
    return checked


def _gradient(where: str, name: str, output: Any, gradient: Any) -> Any:
    """The gradient of one output, checked where that is known."""
    if output is None:
        return gradient  # the function checks it
    return _checked(where, name, gradient, output.shape, "its output")


def _said(record: Record, arrays: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
    """What the record says of each output, by the name of its gradient."""
    names = record.incoming
    if record.outputs is None:
        return dict.fromkeys(names)
    try:
        outputs = record.outputs(*arrays, **options)
    except Exception:  # of arguments that do not fit: the function itself says so by name
        record.function(*arrays, **options)
        raise
    if isinstance(outputs, Output):
        return {names[0]: outputs}
    fields = getattr(outputs, "_fields", [name[1:] for name in names])
    said = {"d" + name: output for name, output in zip(fields, outputs, strict=False)}
    return {name: output for name, output in said.items() if name in names}

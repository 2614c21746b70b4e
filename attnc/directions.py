"""Derivatives along a direction: `jvp` of a function, and `hvp` of its gradients.

A direction gives every array a tangent, the rate at which it changes. Forward mode carries these
along with the numbers, through the function (`jvp`) or through its pullback (`hvp`, which is
forward over reverse); what both stand on are the records of `attnc.registry`. Here the tangents of
a call are checked and named.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from attnc.arrays import real_array
from attnc.functional.options import nearest
from attnc.functional.shapes import holds_arrays, shape_of
from attnc.gradients import Gradients, require_incoming, unknown
from attnc.registry import Output, Record, record_of

__all__ = ["hvp", "jvp"]


def jvp(
    f: Callable[..., Any],
    arrays: Sequence[Any],
    tangents: Sequence[Any] | Mapping[str, Any],
    **options: Any,
) -> tuple[Any, Any]:
    """Run ``f`` and, along with it, its derivative in one direction: forward mode.

    For a function of arrays x and a direction u it is the product of the Jacobian with u, ``d/dr
    f(x + r u)`` at r = 0, at about the cost of ``f`` once for each array with a tangent; nothing is
    kept for a way back.

    Parameters
    ----------
    f : function
        One of the package's functions: `attnc.dot_product_attention`, ...
    arrays : sequence
        The arguments that ``f`` takes by position.
    tangents : sequence or dict
        In the order of `arrays`, each built and shaped like its array, of any float dtype; None is
        0, and all there is for arguments that are not real. Or a dict by the names of arguments,
        those in `options` included: ``{"query": ..., "bias": ...}``.
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
        If ``f`` is not a function of this package, `tangents` are not as many as `arrays` or name
        what has none, or one is not of floats.
    ValueError
        If a tangent has not the shape of its array.
    NotImplementedError
        If ``f`` was registered without forward mode.

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
    """
    record = _record("jvp", f)
    if record.jvp is None:
        raise NotImplementedError(
            f"jvp: f must be a function with forward mode, got {record.name}, which was registered "
            "without jvp="
        )
    given = _arguments(record, arrays, options)
    return record.jvp(_named_tangents(record, given, arrays, tangents), *arrays, **options)


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
    f : function
        One of the package's functions: `attnc.dot_product_attention`, ...
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
        order of the signature, and all by name.

    Raises
    ------
    TypeError
        As `jvp`; and if no incoming gradient is given and the output is not one number, or one is
        given for an output that there is not.
    ValueError
        If a tangent has not the shape of its array, or an incoming gradient not that of its output.
    NotImplementedError
        If ``f`` was registered without second order.

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
    """
    record = _record("hvp", f)
    if record.backward_jvp is None:
        raise NotImplementedError(
            f"hvp: f must be a function with second order, got {record.name}, which was registered "
            "without backward_jvp="
        )
    given = _arguments(record, arrays, options)
    named = _named_tangents(record, given, arrays, tangents)
    incoming = _incoming(record, arrays, options, dcontext)
    constant = (None, *record.others)
    found = record.backward_jvp(named, incoming, constant, *arrays, **options)
    by_name = dict(zip(record.arrays, found, strict=True))
    required = {name: by_name.pop(name) for name in record.required}
    return Gradients(required, {name: d for name, d in by_name.items() if d is not None})


def _record(where: str, f: Any) -> Record:
    record = record_of(f)
    if record is not None:
        return record
    kinds = "a function of attnc"
    if hasattr(f, "_vjp") and not isinstance(f, type):
        raise TypeError(
            f"{where}: f must be {kinds}, got a layer, {type(f).__name__}; take the function that "
            "it calls, with its parameters among the arrays"
        )
    raise TypeError(unknown(where, f, kinds))


# ---- the arguments of a call, by name ------------------------------------------------------------


def _arguments(record: Record, arrays: Any, options: dict[str, Any]) -> dict[str, Any]:
    """All that a call passes, by the names of arguments."""
    if not isinstance(arrays, tuple | list):
        raise TypeError(
            f"{record.name}: arrays must be a sequence, the arguments by position, got "
            f"{type(arrays).__name__}; one alone is [x]"
        )
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(record.function).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in kinds]
    return dict(zip(names, arrays, strict=False)) | options  # too many: the function says so


def _named_tangents(
    record: Record, given: dict[str, Any], arrays: Sequence[Any], tangents: Any
) -> dict[str, Any]:
    """The tangents that are not 0, checked, by the names of their arrays."""
    where = record.name
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
        if name not in record.arrays:
            if name in given:
                raise TypeError(
                    f"{where}: tangent of {name} must be None, as it is no array of real numbers "
                    f"to {where}, got {_shown(tangent)}"
                )
            raise TypeError(
                f"{where}: tangents must be of its arrays, {', '.join(record.arrays)}, got "
                f"{name!r}" + nearest(str(name), record.arrays)
            )
        value = given.get(name)
        if value is None:
            raise TypeError(
                f"{where}: tangent of {name} must be None, as no {name} was passed, got "
                f"{_shown(tangent)}"
            )
        if name in record.optional and np.isscalar(value):
            raise TypeError(
                f"{where}: tangent of {name} must be None, as a number is a constant, got "
                f"{_shown(tangent)}; pass np.array({value!r})"
            )
        tangent = _tangent(where, name, value, tangent)
        if tangent is not None:
            found[name] = tangent
    return found


def _tangent(where: str, name: str, value: Any, tangent: Any) -> Any:
    """A tangent as arrays, built like the value; None for one that is all 0."""
    if tangent is None:
        return None
    if value is None:
        raise TypeError(
            f"{where}: tangent of {name} must be None, as {name} is, got {_shown(tangent)}"
        )
    if holds_arrays(value):
        if not isinstance(tangent, tuple | list) or len(tangent) != len(value):
            raise TypeError(
                f"{where}: tangent of {name} must be a sequence of {len(value)}, as {name} is, "
                f"got {_shown(tangent)}"
            )
        items = [
            _tangent(where, f"{name}[{k}]", *pair)
            for k, pair in enumerate(zip(value, tangent, strict=True))
        ]
        return None if all(item is None for item in items) else tuple(items)
    dtype = getattr(value, "dtype", None)
    if dtype is not None and np.dtype(dtype).kind in "biu":
        raise TypeError(
            f"{where}: tangent of {name} must be None, as {name} has dtype {dtype}, got "
            f"{_shown(tangent)}; pass {name}.astype(float)"
        )
    return _checked(where, f"tangent of {name}", tangent, shape_of(value), name)


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


def _incoming(
    record: Record, arrays: Sequence[Any], options: dict[str, Any], dcontext: Any
) -> tuple[Any, ...]:
    """All incoming gradients, checked, in the order of their names."""
    where, names = record.name, record.incoming
    outputs = None if record.outputs is None else _outputs(record, arrays, options)
    said: dict[str, Any] = dict.fromkeys(names)
    if isinstance(outputs, Output):
        said = {names[0]: outputs}
    elif outputs is not None:
        fields = getattr(outputs, "_fields", [name[1:] for name in names])
        said = {"d" + name: output for name, output in zip(fields, outputs, strict=False)}
        said = {name: output for name, output in said.items() if name in names}
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
    checked = {name: _gradient(where, name, said[name], d) for name, d in given.items()}
    if all(gradient is None for gradient in checked.values()):
        first = said[names[0]]
        if not (isinstance(first, Output) and first.shape == ()):
            require_incoming(where, **dict.fromkeys(said))
        checked = {names[0]: 1.0}
    return tuple(checked.get(name) for name in names)


def _outputs(record: Record, arrays: Sequence[Any], options: dict[str, Any]) -> Any:
    assert record.outputs is not None
    try:
        return record.outputs(*arrays, **options)
    except Exception:  # of arguments that do not fit: the function itself says so by name
        record.function(*arrays, **options)
        raise


def _gradient(where: str, name: str, output: Any, gradient: Any) -> Any:
    """An incoming gradient as arrays, built like its output; None for 0."""
    if gradient is None or output is None:
        return gradient  # of what is not known the function checks it
    if isinstance(output, Output):
        return _checked(where, name, gradient, output.shape, "its output")
    if not isinstance(gradient, tuple | list) or len(gradient) != len(output):
        raise TypeError(
            f"{where}: {name} must be a tuple of {len(output)}, as its output is, got "
            f"{_shown(gradient)}"
        )
    items = [
        _gradient(where, f"{name}[{k}]", *pair)
        for k, pair in enumerate(zip(output, gradient, strict=True))
    ]
    return None if all(item is None for item in items) else tuple(items)

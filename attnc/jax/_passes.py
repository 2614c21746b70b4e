"""The passes of a call on arrays of JAX, without any rule of differentiation or batching.

Each is in C alone where the function is one of attention, and else the one of its record, in
Python. Forward mode of forward mode is always that of the record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from attnc.jax._calls import Call, leaves
from attnc.jax._foreign import call_in_c, call_in_python, zeros_where_none

__all__ = [
    "backward",
    "backward_jvp",
    "forward",
    "jvp",
    "jvp_jvp",
    "keeps",
    "kept_outputs",
    "saved_arrays",
]


def saved_arrays(call: Call) -> tuple[jax.ShapeDtypeStruct, ...]:
    """What forward leaves for backward beside its outputs.

    In C what the kernels need; what a record in Python saves is known only when it has run, so that
    its backward pass runs the forward one again.

    Parameters
    ----------
    call : Call

    Returns
    -------
    tuple of jax.ShapeDtypeStruct
    """
    return call.attention.saved if call.attention else ()


def kept_outputs(call: Call) -> tuple[int, ...]:
    """The outputs that backward needs, by their number.

    Parameters
    ----------
    call : Call

    Returns
    -------
    tuple of int
    """
    return (0,) if call.attention and call.attention.context_is_kept else ()


def keeps(call: Call) -> bool:
    """Whether backward needs anything of a forward pass.

    Parameters
    ----------
    call : Call

    Returns
    -------
    bool
    """
    return bool(kept_outputs(call) or saved_arrays(call))


def forward(call: Call, operands: Sequence[Any], save: bool) -> list[Any]:
    """The outputs, flat, and what is saved where that is asked for.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array
    save : bool

    Returns
    -------
    list of jax.Array
    """
    if call.attention:
        return call.attention.forward(call_in_c, operands, save)

    def run(*arrays):
        args, options = call.filled(arrays)
        return leaves(call.record.function(*args, **call.run_options(options)))

    return call_in_python(call, "forward", run, call.outputs, operands)


def backward(
    call: Call,
    operands: Sequence[Any],
    incoming: dict[int, Any],
    kept: Sequence[Any],
    wanted: tuple[int, ...],
) -> list[Any]:
    """The gradients of some operands.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array
    incoming : dict
        Gradients of outputs, by their number, at least one.
    kept : sequence of jax.Array
        Of what `forward` returned the `kept_outputs`, and all that was saved.
    wanted : tuple of int
        The numbers of the operands.

    Returns
    -------
    list of jax.Array
    """
    if call.attention:
        return call.attention.backward(call_in_c, operands, incoming, kept, wanted)
    numbers = tuple(sorted(incoming))
    results = [call.arrays[k] for k in wanted]
    count = len(operands)

    def run(*arrays):
        args, options = call.filled(arrays[:count])
        _, kept, static = call.record.forward(*args, **call.run_options(options))
        given = dict(zip(numbers, arrays[count:], strict=True))
        found = call.of_real(call.record.backward(kept, static, *call.incoming(given)))
        return zeros_where_none([found[k] for k in wanted], results)

    what = f"backward from {numbers} to {wanted}"
    given = [incoming[k] for k in numbers]
    return call_in_python(call, what, run, results, [*operands, *given])


def jvp(call: Call, operands: Sequence[Any], tangents: dict[int, Any]) -> list[Any]:
    """The tangents of the real outputs.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array
    tangents : dict
        By the number of the operand; the others are 0.

    Returns
    -------
    list of jax.Array
    """
    if call.attention:
        return call.attention.jvp(call_in_c, operands, tangents)
    of_record = _required(call, "jvp", "forward mode")
    numbers = tuple(sorted(tangents))
    results = [call.outputs[k] for k in call.real_outputs]
    count = len(operands)

    def run(*arrays):
        args, options = call.filled(arrays[:count])
        moving = call.by_argument(dict(zip(numbers, arrays[count:], strict=True)))
        found = of_record(moving, *args, **call.run_options(options))
        tangent = leaves(found[1])
        return zeros_where_none([tangent[k] for k in call.real_outputs], results)

    given = [tangents[k] for k in numbers]
    return call_in_python(call, f"jvp of {numbers}", run, results, [*operands, *given])


def jvp_jvp(
    call: Call, operands: Sequence[Any], tangents: dict[int, Any], others: dict[int, Any]
) -> list[Any]:
    """The tangents of what `jvp` returns, when the operands move along others.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array
    tangents, others : dict
        By the number of the operand; the others are 0.

    Returns
    -------
    list of jax.Array
    """
    of_record = _required(call, "jvp_jvp", "forward mode over forward mode")
    groups = tuple(tuple(sorted(group)) for group in (tangents, others))
    given = [group[k] for group in (tangents, others) for k in sorted(group)]
    results = [call.outputs[k] for k in call.real_outputs]
    count = len(operands)

    def run(*arrays):
        args, options = call.filled(arrays[:count])
        rest = iter(arrays[count:])
        moving = (call.by_argument({k: next(rest) for k in group}) for group in groups)
        found = leaves(of_record(*moving, *args, **call.run_options(options)))
        return zeros_where_none([found[k] for k in call.real_outputs], results)

    return call_in_python(call, f"jvp_jvp of {groups}", run, results, [*operands, *given])


def backward_jvp(
    call: Call,
    operands: Sequence[Any],
    incoming: dict[int, Any],
    tangents: dict[int, Any],
    dincoming: dict[int, Any],
    wanted: tuple[int, ...],
) -> list[Any]:
    """The tangents of the gradients of some operands.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array
    incoming, dincoming : dict
        Gradients of outputs and their tangents, by the number of the output.
    tangents : dict
        By the number of the operand; the others are 0.
    wanted : tuple of int
        The numbers of operands.

    Returns
    -------
    list of jax.Array
    """
    if call.attention:
        return call.attention.backward_jvp(
            call_in_c, operands, incoming, tangents, dincoming, wanted
        )
    of_record = _required(call, "backward_jvp", "second derivatives")
    groups = tuple(tuple(sorted(group)) for group in (incoming, tangents, dincoming))
    given = [group[k] for group in (incoming, tangents, dincoming) for k in sorted(group)]
    results = [call.arrays[k] for k in wanted]
    count = len(operands)

    def run(*arrays):
        args, options = call.filled(arrays[:count])
        rest = iter(arrays[count:])
        from_outputs, moving, moved = ({k: next(rest) for k in group} for group in groups)
        found = of_record(
            call.by_argument(moving),
            call.incoming(from_outputs),
            call.incoming(moved),
            *args,
            **call.run_options(options),
        )
        of_real = call.of_real(found)
        return zeros_where_none([of_real[k] for k in wanted], results)

    what = f"backward_jvp of {groups} to {wanted}"
    return call_in_python(call, what, run, results, [*operands, *given])


def _required(call: Call, what: str, why: str) -> Callable[..., Any]:
    # Asked here, where the pass runs: what is transposed for reverse mode never does.
    found: Callable[..., Any] | None = getattr(call.record, what)
    if found is None:
        raise NotImplementedError(
            f"{call.record.name}: there is no `{what}` in its record, for {why} of JAX; "
            "attnc.registry.register takes one"
        )
    return found

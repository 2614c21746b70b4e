"""How JAX differentiates and batches a call: its passes as primitives, with their rules.

Four passes make all derivatives of first and second order. With ``phi(x, g) = <g, f(x)>``, of which
`Backward` is the gradient by x, second derivatives are symmetric: the gradient of ``<u,
Backward(x, g)>`` is ``Jvp(x; u)`` by g and ``BackwardJvp(x, g; u)`` by x. So reverse over reverse
needs no pass of its own.

============== ============================= ================================================
primitive      forward mode                  reverse mode
============== ============================= ================================================
`Forward`      `Jvp`                         `Backward`
`Backward`     `BackwardJvp`                 `Jvp`, `BackwardJvp`
`Jvp`          by tangents alone             `Backward`, `BackwardJvp`
`BackwardJvp`  by tangents alone             raises: these would be third derivatives
============== ============================= ================================================

The last three are linear in gradients and tangents, and are transposed in them by each other.

Under `vmap` the new axis becomes a leading axis, or part of the batch axis, as the record says;
where it can be neither, a loop goes over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.hijax import ShapedArray, VJPHiPrimitive, Zero

from attnc.jax import _foreign as foreign
from attnc.jax import _passes as passes
from attnc.jax._calls import Array, Call

__all__ = ["run"]


def run(call: Call, operands: Sequence[Any]) -> Sequence[Any]:
    """The outputs of a call, flat: what is differentiated and batched by the rules here.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array

    Returns
    -------
    sequence of jax.Array
    """
    operands = _varying_alike(operands)
    return Forward(call, operands)(*operands)


def _varying_alike(operands: Sequence[Any]) -> list[Any]:
    """Under `shard_map`: all of them differ over the same axes of devices.

    What is the same on all devices is marked as if it were not, by an operation whose gradient is
    the sum over devices.
    """
    axes: list[frozenset[str]] = [
        getattr(getattr(jax.typeof(x), "mat", None), "varying", frozenset()) for x in operands
    ]
    union = frozenset().union(*axes)
    return [
        jax.lax.pcast(x, tuple(sorted(union - own)), to="varying") if union - own else x
        for x, own in zip(operands, axes, strict=True)
    ]


@jax.tree_util.register_static
class Static(tuple[Any, ...]):
    """What is known while tracing, among arrays that are not."""


class Tag(NamedTuple):
    """What an argument or a result of a primitive is shaped like.

    Parameters
    ----------
    like : {'operand', 'output', 'saved'}
    number : int
        Of it.
    """

    like: str
    number: int


class Pass(VJPHiPrimitive):
    """A pass of a call. What subclasses share: shapes, and batching.

    Parameters
    ----------
    call : Call
    args : sequence of jax.Array
        To be called on; operands come first.
    **how
        What else the pass is made of.
    """

    call: Call

    def __init__(self, call: Call, args: Sequence[Any], **how: Any) -> None:
        self.call = call
        self.__dict__.update(how)
        self.in_avals = tuple(jax.typeof(x).strip_weak_type() for x in args)
        like = foreign.axes_of(args)
        self.out_aval = tuple(
            ShapedArray(x.shape, x.dtype, **like) for x in map(self._shape_of, self.results())
        )
        self.params = {"call": call, "in_avals_": self.in_avals, **how}
        super().__init__()

    def arguments(self) -> list[Tag]:
        """What the arguments are."""
        raise NotImplementedError

    def results(self) -> list[Tag]:
        """What the results are."""
        raise NotImplementedError

    def again(self, call: Call, args: Sequence[Any]) -> Pass:
        """The same pass of another call."""
        how = {k: v for k, v in self.params.items() if k not in ("call", "in_avals_")}
        return type(self)(call, args, **how)

    def _shape_of(self, tag: Tag) -> Array:
        if tag.like == "operand":
            return self.call.arrays[tag.number]
        if tag.like == "output":
            return self.call.outputs[tag.number]
        return passes.saved_arrays(self.call)[tag.number]

    @property
    def _operands(self) -> list[Tag]:
        return [Tag("operand", k) for k in range(len(self.call.arrays))]

    @property
    def _outputs(self) -> list[Tag]:
        return [Tag("output", k) for k in range(len(self.call.outputs))]

    @property
    def _saved(self) -> list[Tag]:
        return [Tag("saved", k) for k in range(len(passes.saved_arrays(self.call)))]

    @property
    def _kept(self) -> list[Tag]:
        return [Tag("output", k) for k in passes.kept_outputs(self.call)] + self._saved

    # ---- batching ----

    def batch(self, axis_data: Any, args: Sequence[Any], dims: Sequence[Any]) -> Any:
        """The pass over a new axis of some arguments."""
        if all(dim is None for dim in dims):
            found = self(*args)
            return found, (None,) * len(found)
        results = self._folded(axis_data.size, args, dims)
        if results is None:
            results = self._looped(args, dims)
            return results, (0,) * len(results)
        return results

    def _looped(self, args: Sequence[Any], dims: Sequence[Any]) -> Any:
        mapped = [k for k, dim in enumerate(dims) if dim is not None]

        def one(slices: Any) -> Any:
            filled = list(args)
            for k, x in zip(mapped, slices, strict=True):
                filled[k] = x
            return self.again(self.call, filled)(*filled)

        return jax.lax.map(one, [jnp.moveaxis(args[k], dims[k], 0) for k in mapped])

    def _folded(self, size: int, args: Sequence[Any], dims: Sequence[Any]) -> Any:
        """Without a loop: results and their batch axes; None where that cannot be."""
        call, tags = self.call, self.arguments()
        if call.draws:  # one key draws the same for every element
            return None
        axes = [self._axis_of(tag) for tag in self._operands]
        batched = {
            tag.number
            for tag, dim in zip(tags, dims, strict=True)
            if tag.like == "operand" and dim is not None
        }
        # What has a gradient of its own for every element is there for every element.
        whole = batched | {tag.number for tag in self.results() if tag.like == "operand"}
        if any(axes[k] is None for k in whole):
            return None
        of_results = [self._axis_of(tag) for tag in self.results()]
        if any(axis is None for axis in of_results):
            return None
        leads = bool(call.record.leading)
        first = next((k for k, axis in enumerate(axes) if axis is not None), None)
        if first is None:
            return None
        whole.add(first)
        if not leads:
            whole |= {k for k, axis in enumerate(axes) if axis is not None}
        folded = []
        for tag, x, dim in zip(tags, args, dims, strict=True):
            axis = self._axis_of(tag)
            if axis is None:
                folded.append(x)
            elif tag.like == "operand" and tag.number not in whole:
                folded.append(jnp.expand_dims(x, 0))
            else:
                folded.append(self._with_axis(x, dim, size, axis, leads))
        arrays = tuple(Array(x.shape, x.dtype) for x in folded[: len(call.arrays)])
        again = self._again_if_it_fits(call, arrays, folded)
        if again is None:
            return None
        found = again(*folded)
        if leads:
            return found, (0,) * len(found)
        pairs = [
            self._without_axis(x, size, axis)
            for x, axis in zip(found, of_results, strict=True)
            if axis is not None
        ]
        return tuple(x for x, _ in pairs), tuple(axis for _, axis in pairs)

    def _axis_of(self, tag: Tag) -> int | None:
        """Where the batch axis of an array is, or would be; None: it has none."""
        record = self.call.record
        if tag.like == "operand":
            name = self.call.operands[tag.number].name
        elif tag.like == "output":
            name = self.call.output_names[tag.number]
        else:
            name = record.required[0]  # what is saved has the axes of the call
        if record.leading:
            return 0 if tag.like != "operand" or name in record.leading else None
        return record.batch_axes.get(name)

    @staticmethod
    def _with_axis(x: Any, dim: int | None, size: int, axis: int, leads: bool) -> Any:
        """The array with a leading axis, or with a longer batch axis."""
        if leads:
            return jnp.broadcast_to(x, (size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)
        if dim is None:
            x = jnp.broadcast_to(x, (size, *x.shape))
        else:
            x = jnp.moveaxis(x, dim, 0)
        at = axis if axis >= 0 else x.ndim - 1 + axis
        x = jnp.moveaxis(x, 0, at)
        return x.reshape(*x.shape[:at], size * x.shape[at + 1], *x.shape[at + 2 :])

    @staticmethod
    def _without_axis(x: Any, size: int, axis: int) -> tuple[Any, int]:
        at = axis if axis >= 0 else x.ndim + axis
        return x.reshape(*x.shape[:at], size, x.shape[at] // size, *x.shape[at + 1 :]), at

    def _again_if_it_fits(self, call: Call, arrays: Any, folded: Sequence[Any]) -> Pass | None:
        """The pass of the call with more axes, where the function takes it."""
        try:
            other = call.with_arrays(arrays)
            other.probe()
        except (TypeError, ValueError, NotImplementedError):
            return None
        return self.again(other, folded)

    # ---- for rules ----

    def _no_third(self, *_: Any) -> Any:
        raise NotImplementedError(
            f"{self.call.record.name}: there are derivatives of first and second order, but no "
            "third ones and no forward mode over forward mode; take reverse mode for one of them"
        )


def _is_zero(x: Any) -> bool:
    return isinstance(x, Zero) or getattr(x, "dtype", None) == jax.dtypes.float0


def _zeros(avals: Sequence[Any]) -> list[Any]:
    return [Zero(aval.to_tangent_aval()) for aval in avals]


class Forward(Pass):
    """The outputs; with `save` also what backward needs."""

    save: bool

    def __init__(self, call: Call, args: Sequence[Any], save: bool = False) -> None:
        super().__init__(call, args, save=save)

    def arguments(self) -> list[Tag]:
        """The operands."""
        return self._operands

    def results(self) -> list[Tag]:
        """The outputs and what is saved."""
        return [*self._outputs, *(self._saved if self.save else [])]

    def expand(self, *operands: Any) -> Any:
        """The pass itself."""
        return tuple(passes.forward(self.call, operands, self.save))

    def vjp_fwd(self, perturbed: Any, *operands: Any) -> Any:
        """Forward, which saves."""
        call = self.call
        wanted = Static(k for k in call.real if perturbed[k])
        found = Forward(call, operands, save=True)(*operands)
        kept = _kept_of(call, found)
        return (found if self.save else found[: len(call.outputs)]), (operands, kept, wanted)

    def vjp_bwd_retval(self, residuals: Any, cotangents: Any) -> Any:
        """Backward."""
        operands, kept, wanted = residuals
        incoming = _given(self.call, cotangents)
        found = gradients(self.call, operands, incoming, tuple(wanted), kept)
        return _filled(self.in_avals, found)

    def jvp(self, primals: Any, tangents: Any) -> Any:
        """By two passes: who cuts a program in what is linear in tangents and what is not, as
        `jax.checkpoint` does, needs outputs that no tangent enters. What is saved has none."""
        call = self.call
        moving = {k: tangents[k] for k in call.real if not _is_zero(tangents[k])}
        moved = tangents_of(call, primals, moving)
        return self(*primals), tuple(
            moved.get(k, Zero(aval.to_tangent_aval())) for k, aval in enumerate(self.out_aval)
        )

    def lin(self, perturbed: Any, *operands: Any) -> Any:
        """For `jax.linearize`: the tangents come later."""
        return self(*operands), operands

    def linearized(self, operands: Any, *tangents: Any) -> Any:
        """The tangents, when they are there."""
        return self.jvp(operands, tangents)[1]


def _given(call: Call, cotangents: Sequence[Any]) -> dict[int, Any]:
    """Gradients of the real outputs that are not 0."""
    return {k: cotangents[k] for k in call.real_outputs if not _is_zero(cotangents[k])}


def _filled(avals: Sequence[Any], found: dict[int, Any]) -> tuple[Any, ...]:
    """Cotangents of all arguments: those that were found, and zeros."""
    return tuple(found.get(k, Zero(aval.to_ct_aval())) for k, aval in enumerate(avals))


def _kept_of(call: Call, found: Sequence[Any]) -> tuple[Any, ...]:
    """What backward takes of what a `Forward` that saves returned."""
    outputs = [found[k] for k in passes.kept_outputs(call)]
    return (*outputs, *found[len(call.outputs) :])


def gradients(
    call: Call,
    operands: Sequence[Any],
    incoming: dict[int, Any],
    wanted: tuple[int, ...],
    kept: Sequence[Any] | None = None,
) -> dict[int, Any]:
    """Gradients by the number of the operand, through `Backward`.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array
    incoming : dict
        By the number of the output.
    wanted : tuple of int
    kept : sequence of jax.Array, optional
        What a `Forward` that saves left; unless given, one runs.

    Returns
    -------
    dict
    """
    if not incoming or not wanted:
        return {}
    if kept is None and not passes.keeps(call):
        kept = ()
    elif kept is None:
        kept = _kept_of(call, Forward(call, operands, save=True)(*operands))
    numbers = tuple(sorted(incoming))
    args = [*operands, *(incoming[k] for k in numbers), *kept]
    return dict(zip(wanted, Backward(call, args, numbers, wanted)(*args), strict=True))


def tangents_of(call: Call, operands: Sequence[Any], tangents: dict[int, Any]) -> dict[int, Any]:
    """Tangents by the number of the output, through `Jvp`.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array
    tangents : dict
        By the number of the operand; the others are 0.

    Returns
    -------
    dict
    """
    if not tangents:
        return {}
    numbers = tuple(sorted(tangents))
    args = [*operands, *(tangents[k] for k in numbers)]
    return dict(zip(call.real_outputs, Jvp(call, args, numbers)(*args), strict=True))


def moved_gradients(
    call: Call,
    operands: Sequence[Any],
    incoming: dict[int, Any],
    tangents: dict[int, Any],
    dincoming: dict[int, Any],
    wanted: tuple[int, ...],
) -> dict[int, Any]:
    """Tangents of gradients by the number of the operand, through `BackwardJvp`.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array
    incoming, tangents, dincoming : dict
    wanted : tuple of int

    Returns
    -------
    dict
    """
    if not wanted or not (incoming and tangents):
        return gradients(call, operands, dincoming, wanted)
    groups = tuple(tuple(sorted(group)) for group in (incoming, tangents, dincoming))
    parts = [group[k] for group in (incoming, tangents, dincoming) for k in sorted(group)]
    args = [*operands, *parts]
    found = BackwardJvp(call, args, groups, wanted)(*args)
    return dict(zip(wanted, found, strict=True))


class Backward(Pass):
    """The gradients of the operands `wanted`, from those of the outputs `numbers`."""

    numbers: tuple[int, ...]
    wanted: tuple[int, ...]

    def __init__(
        self, call: Call, args: Sequence[Any], numbers: tuple[int, ...], wanted: tuple[int, ...]
    ) -> None:
        super().__init__(call, args, numbers=numbers, wanted=wanted)

    def arguments(self) -> list[Tag]:
        """Operands, gradients of outputs, and what forward left."""
        return [*self._operands, *(Tag("output", k) for k in self.numbers), *self._kept]

    def results(self) -> list[Tag]:
        """Gradients of operands."""
        return [Tag("operand", k) for k in self.wanted]

    def _parts(self, args: Sequence[Any]) -> Any:
        count, end = len(self.call.arrays), len(self.call.arrays) + len(self.numbers)
        return args[:count], dict(zip(self.numbers, args[count:end], strict=True)), args[end:]

    def expand(self, *args: Any) -> Any:
        """The pass itself."""
        operands, incoming, kept = self._parts(args)
        return tuple(passes.backward(self.call, operands, incoming, kept, self.wanted))

    def jvp(self, primals: Any, tangents: Any) -> Any:
        """By operands and incoming gradients; what forward left follows from these."""
        operands, incoming, _ = self._parts(primals)
        of_operands, of_incoming, _ = self._parts(tangents)
        moving = {k: of_operands[k] for k in self.call.real if not _is_zero(of_operands[k])}
        moved = {k: x for k, x in of_incoming.items() if not _is_zero(x)}
        found = moved_gradients(self.call, operands, incoming, moving, moved, self.wanted)
        zeros = _zeros(self.out_aval)
        return self(*primals), tuple(
            found.get(k, zero) for k, zero in zip(self.wanted, zeros, strict=True)
        )

    def lin(self, perturbed: Any, *args: Any) -> Any:
        """For `jax.linearize`."""
        return self(*args), args

    def linearized(self, args: Any, *tangents: Any) -> Any:
        """The tangents, when they are there."""
        return self.jvp(args, tangents)[1]

    def vjp_fwd(self, perturbed: Any, *args: Any) -> Any:
        """Backward, which leaves what it was called on."""
        return self(*args), (args, Static(perturbed))

    def vjp_bwd_retval(self, residuals: Any, cotangents: Any) -> Any:
        """By the symmetry of second derivatives."""
        args, perturbed = residuals
        call, count = self.call, len(self.call.arrays)
        operands, incoming, _ = self._parts(args)
        along = _along(self.wanted, cotangents)
        found: dict[int, Any] = {}
        if along and any(perturbed[count : count + len(self.numbers)]):
            moved = tangents_of(call, operands, along)
            found |= {count + at: moved[k] for at, k in enumerate(self.numbers)}
        by_operands = tuple(k for k in call.real if perturbed[k])
        if along and by_operands:
            found |= moved_gradients(call, operands, incoming, along, {}, by_operands)
        return _filled(self.in_avals, found)

    def transpose(self, cotangents: Any, *args: Any) -> None:
        """It is linear in the incoming gradients."""
        operands, incoming, _ = self._parts(args)
        along = _along(self.wanted, cotangents)
        _accumulate(incoming, tangents_of(self.call, operands, along))


def _along(numbers: Sequence[int], cotangents: Sequence[Any]) -> dict[int, Any]:
    """Those that are not 0, by these numbers."""
    return {k: x for k, x in zip(numbers, cotangents, strict=True) if not _is_zero(x)}


def _accumulate(to: dict[int, Any], found: dict[int, Any]) -> None:
    """Hand what was found to the accumulators that ask for it."""
    for k, accumulator in to.items():
        if k in found and hasattr(accumulator, "accum"):
            accumulator.accum(found[k])


def _asking(arguments: dict[int, Any]) -> tuple[int, ...]:
    """The arguments in which a primitive is transposed."""
    return tuple(k for k, x in arguments.items() if hasattr(x, "accum"))


class Jvp(Pass):
    """The tangents of the real outputs from those of the operands `numbers`."""

    numbers: tuple[int, ...]

    def __init__(self, call: Call, args: Sequence[Any], numbers: tuple[int, ...]) -> None:
        super().__init__(call, args, numbers=numbers)

    def arguments(self) -> list[Tag]:
        """Operands and tangents."""
        return [*self._operands, *(Tag("operand", k) for k in self.numbers)]

    def results(self) -> list[Tag]:
        """Tangents."""
        return [Tag("output", k) for k in self.call.real_outputs]

    def _parts(self, args: Sequence[Any]) -> Any:
        count = len(self.call.arrays)
        return args[:count], dict(zip(self.numbers, args[count:], strict=True))

    def expand(self, *args: Any) -> Any:
        """The pass itself."""
        return tuple(passes.jvp(self.call, *self._parts(args)))

    def jvp(self, primals: Any, tangents: Any) -> Any:
        """It is linear in the tangents; by the operands there is none."""
        operands, _ = self._parts(primals)
        of_operands, of_tangents = self._parts(tangents)
        if any(not _is_zero(of_operands[k]) for k in self.call.real):
            self._no_third()
        moving = {k: x for k, x in of_tangents.items() if not _is_zero(x)}
        moved = tangents_of(self.call, operands, moving)
        zeros = _zeros(self.out_aval)
        return self(*primals), tuple(
            moved.get(k, zero) for k, zero in zip(self.call.real_outputs, zeros, strict=True)
        )

    def lin(self, perturbed: Any, *args: Any) -> Any:
        """For `jax.linearize`."""
        return self(*args), args

    def linearized(self, args: Any, *tangents: Any) -> Any:
        """The tangents, when they are there."""
        return self.jvp(args, tangents)[1]

    def vjp_fwd(self, perturbed: Any, *args: Any) -> Any:
        """Jvp, which leaves what it was called on."""
        return self(*args), (args, Static(perturbed))

    def vjp_bwd_retval(self, residuals: Any, cotangents: Any) -> Any:
        """By tangents, backward; by operands, the jvp of backward."""
        args, perturbed = residuals
        call, count = self.call, len(self.call.arrays)
        operands, tangents = self._parts(args)
        along = _along(call.real_outputs, cotangents)
        by_tangents = tuple(k for at, k in enumerate(self.numbers) if perturbed[count + at])
        by_operands = tuple(k for k in call.real if perturbed[k])
        found: dict[int, Any] = {}
        if along and by_operands:
            found |= moved_gradients(call, operands, along, tangents, {}, by_operands)
        of_tangents = gradients(call, operands, along, by_tangents)
        found |= {count + self.numbers.index(k): x for k, x in of_tangents.items()}
        return _filled(self.in_avals, found)

    def transpose(self, cotangents: Any, *args: Any) -> None:
        """It is linear in the tangents."""
        operands, tangents = self._parts(args)
        along = _along(self.call.real_outputs, cotangents)
        _accumulate(tangents, gradients(self.call, operands, along, _asking(tangents)))


class BackwardJvp(Pass):
    """The tangents of the gradients of the operands `wanted`.

    `groups` are the numbers of the outputs whose gradients are given, of the operands that move,
    and of the outputs whose gradients do.
    """

    groups: tuple[tuple[int, ...], ...]
    wanted: tuple[int, ...]

    def __init__(self, call: Call, args: Sequence[Any], groups: Any, wanted: tuple[int, ...]):
        super().__init__(call, args, groups=groups, wanted=wanted)

    def arguments(self) -> list[Tag]:
        """Operands, incoming gradients, tangents of both."""
        incoming, moving, moved = self.groups
        return [
            *self._operands,
            *(Tag("output", k) for k in incoming),
            *(Tag("operand", k) for k in moving),
            *(Tag("output", k) for k in moved),
        ]

    def results(self) -> list[Tag]:
        """Tangents of gradients of operands."""
        return [Tag("operand", k) for k in self.wanted]

    def _parts(self, args: Sequence[Any]) -> Any:
        count = len(self.call.arrays)
        rest = iter(args[count:])
        return args[:count], *({k: next(rest) for k in group} for group in self.groups)

    def expand(self, *args: Any) -> Any:
        """The pass itself."""
        operands, *groups = self._parts(args)
        incoming, moving, moved = groups
        found = passes.backward_jvp(self.call, operands, incoming, moving, moved, self.wanted)
        return tuple(found)

    def jvp(self, primals: Any, tangents: Any) -> Any:
        """It is linear in the tangents; by operands and incoming gradients there is none."""
        operands, incoming, _, _ = self._parts(primals)
        of_operands, of_incoming, *of_tangents = self._parts(tangents)
        still = [*(of_operands[k] for k in self.call.real), *of_incoming.values()]
        if not all(map(_is_zero, still)):
            self._no_third()
        moving, moved = ({k: x for k, x in t.items() if not _is_zero(x)} for t in of_tangents)
        found = moved_gradients(self.call, operands, incoming, moving, moved, self.wanted)
        zeros = _zeros(self.out_aval)
        return self(*primals), tuple(
            found.get(k, zero) for k, zero in zip(self.wanted, zeros, strict=True)
        )

    def vjp_fwd(self, perturbed: Any, *args: Any) -> Any:
        """There is none."""
        return self._no_third()

    def transpose(self, cotangents: Any, *args: Any) -> None:
        """It is linear in the tangents of operands and of incoming gradients."""
        operands, incoming, moving, moved = self._parts(args)
        along = _along(self.wanted, cotangents)
        by_operands = _asking(moving)
        if along and by_operands:
            found = moved_gradients(self.call, operands, incoming, along, {}, by_operands)
            _accumulate(moving, found)
        if _asking(moved):
            _accumulate(moved, tangents_of(self.call, operands, along))

"""How JAX differentiates and batches a call: its passes as a primitive, with their rules.

Five passes make all derivatives of first and second order. With ``phi(x, g) = <g, f(x)>``, of which
`Backward` is the gradient by x, second derivatives are symmetric: the gradient of ``<u,
Backward(x, g)>`` is ``Jvp(x; u)`` by g and ``BackwardJvp(x, g; u)`` by x. So reverse over reverse
needs no pass of its own.

============== ====================================== ========================================
pass           its tangents                           transposed in what it is linear in
============== ====================================== ========================================
`Forward`      `Jvp`
`Backward`     `BackwardJvp`                          gradients of outputs: `Jvp`
`Jvp`          `Jvp`; by operands `JvpJvp`            tangents: `Backward`
`BackwardJvp`  `BackwardJvp`; by others none          tangents of operands: `BackwardJvp`, and
                                                      of gradients: `Jvp`
`JvpJvp`       `JvpJvp`; by operands none             both tangents: `BackwardJvp`
============== ====================================== ========================================

JAX makes reverse mode of these: it takes tangents and transposes what is linear in them. Reverse
over forward mode transposes `JvpJvp`; forward over forward mode runs it.

Under `vmap` the new axis becomes a leading axis, or part of the batch axis, as the record says;
where it can be neither, a loop goes over it.

The primitive is one of `jax.extend`. Those of `jax.experimental.hijax` have rules for reverse mode,
too; but what `jax.jit` of JAX 0.10 returns goes through Python, for 300 us at each call, where one
is in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

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
    return Forward(call)(*_varying_alike(operands))


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


class Tag(NamedTuple):
    """What an argument or a result of a pass is shaped like.

    Parameters
    ----------
    like : {'operand', 'output', 'saved'}
    number : int
        Of it.
    """

    like: str
    number: int


@dataclasses.dataclass(frozen=True)
class Pass:
    """A pass of a call. What subclasses share: how JAX comes to them, shapes, and batching.

    Parameters
    ----------
    call : Call
        Its operands are the first arguments.
    """

    call: Call

    def __call__(self, *args: Any) -> list[Any]:
        found: list[Any] = _primitive.bind(*args, what=self)
        return found

    def arguments(self) -> list[Tag]:
        """What the arguments are."""
        raise NotImplementedError

    def results(self) -> list[Tag]:
        """What the results are."""
        raise NotImplementedError

    def expand(self, *args: Any) -> list[Any]:
        """The pass itself."""
        raise NotImplementedError

    def jvp(self, primals: Any, tangents: Any) -> Any:
        """The results, and their tangents."""
        raise NotImplementedError

    def transpose(self, cotangents: Any, *args: Any) -> Any:
        """Cotangents of the arguments that are not there, in which it is linear."""
        raise NotImplementedError

    def shaped(self, *args: Any) -> list[Any]:
        """The types of the results from those of the arguments."""
        like = foreign.axes_of(args)
        return [ShapedArray(x.shape, x.dtype, **like) for x in map(self._shape_of, self.results())]

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

    def batch(self, args: Sequence[Any], dims: Sequence[Any]) -> Any:
        """The pass over a new axis of some arguments."""
        size = next(x.shape[dim] for x, dim in zip(args, dims, strict=True) if dim is not None)
        results = self._folded(size, args, dims)
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
            return self(*filled)

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
        again = self._again_if_it_fits(arrays)
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

    def _again_if_it_fits(self, arrays: Any) -> Pass | None:
        """The pass of the call on arrays with more axes, where the function takes it."""
        try:
            other = self.call.with_arrays(arrays)
            _ = other.outputs
        except (TypeError, ValueError, NotImplementedError):
            return None
        return dataclasses.replace(self, call=other)

    # ---- for rules ----

    def _no_third(self) -> Any:
        raise NotImplementedError(
            f"{self.call.record.name}: there are derivatives of first and second order, but no "
            "third ones"
        )


_primitive = Primitive("attnc")
_primitive.multiple_results = True
_primitive.def_impl(lambda *args, what: what.expand(*args))
_primitive.def_abstract_eval(lambda *args, what: what.shaped(*args))
mlir.register_lowering(
    _primitive, mlir.lower_fun(lambda *args, what: what.expand(*args), multiple_results=True)
)
ad.primitive_jvps[_primitive] = lambda primals, tangents, what: what.jvp(primals, tangents)
ad.primitive_transposes[_primitive] = lambda cotangents, *args, what: what.transpose(
    cotangents, *args
)
batching.primitive_batchers[_primitive] = lambda args, dims, what: what.batch(args, dims)


# ---- what rules have in common ----


def _is_zero(x: Any) -> bool:
    return isinstance(x, ad.Zero) or getattr(x, "dtype", None) == jax.dtypes.float0


def _with_tangents(
    results: Sequence[Any], numbers: Sequence[int], found: dict[int, Any]
) -> tuple[Sequence[Any], list[Any]]:
    """Results, which have these numbers, and their tangents, of which some were found."""
    types = [jax.typeof(x).to_tangent_aval() for x in results]
    return results, [
        found[k] if k in found else ad.Zero(t) for k, t in zip(numbers, types, strict=True)
    ]


def _moving(numbers: Sequence[int], values: Sequence[Any]) -> dict[int, Any]:
    """Those that are not 0, by these numbers."""
    return {k: x for k, x in zip(numbers, values, strict=True) if not _is_zero(x)}


def _sum(first: dict[int, Any], second: dict[int, Any]) -> dict[int, Any]:
    """Of both what there is, added."""
    return first | {k: first[k] + x if k in first else x for k, x in second.items()}


def _asking(arguments: dict[int, Any]) -> tuple[int, ...]:
    """The arguments by which a pass is transposed."""
    return tuple(k for k, x in arguments.items() if ad.is_undefined_primal(x))


def _answers(arguments: dict[int, Any], found: dict[int, Any]) -> list[Any]:
    """Cotangents of arguments: None for those that do not ask, or get 0."""
    asking = _asking(arguments)
    return [found.get(k) if k in asking else None for k in arguments]


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
    if kept is None:
        _, kept = _forward_that_saves(call, operands)
    numbers = tuple(sorted(incoming))
    given = [incoming[k] for k in numbers]
    return dict(zip(wanted, Backward(call, numbers, wanted)(*operands, *given, *kept), strict=True))


def _forward_that_saves(call: Call, operands: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """All that it returns, and what backward takes of that."""
    if not passes.keeps(call):
        return Forward(call)(*operands), []
    found = Forward(call, save=True)(*operands)
    return found, [found[k] for k in passes.kept_outputs(call)] + found[len(call.outputs) :]


def tangents_of(
    call: Call,
    operands: Sequence[Any],
    tangents: dict[int, Any],
    kept: Sequence[Any] = (),
) -> dict[int, Any]:
    """Tangents by the number of the output, through `Jvp`.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array
    tangents : dict
        By the number of the operand; the others are 0.
    kept : sequence of jax.Array, optional
        What a `Forward` that saves left, for whom it may be transposed to.

    Returns
    -------
    dict
    """
    if not tangents:
        return {}
    numbers = tuple(sorted(tangents))
    given = [tangents[k] for k in numbers]
    found = Jvp(call, numbers, bool(kept))(*operands, *given, *kept)
    return dict(zip(call.real_outputs, found, strict=True))


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
    found = BackwardJvp(call, groups, wanted)(*operands, *parts)
    return dict(zip(wanted, found, strict=True))


def moved_tangents(
    call: Call, operands: Sequence[Any], tangents: dict[int, Any], others: dict[int, Any]
) -> dict[int, Any]:
    """Tangents of tangents by the number of the output, through `JvpJvp`.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array
    tangents, others : dict
        By the number of the operand; the others are 0.

    Returns
    -------
    dict
    """
    if not tangents or not others:
        return {}
    groups = tuple(sorted(tangents)), tuple(sorted(others))
    parts = [group[k] for group in (tangents, others) for k in sorted(group)]
    found = JvpJvp(call, groups)(*operands, *parts)
    return dict(zip(call.real_outputs, found, strict=True))


# ---- the passes ----


@dataclasses.dataclass(frozen=True)
class Forward(Pass):
    """The outputs; with `save` also what backward needs."""

    save: bool = False

    def arguments(self) -> list[Tag]:
        """The operands."""
        return self._operands

    def results(self) -> list[Tag]:
        """The outputs and what is saved."""
        return [*self._outputs, *(self._saved if self.save else [])]

    def expand(self, *args: Any) -> list[Any]:
        """The pass itself."""
        return passes.forward(self.call, args, self.save)

    def jvp(self, primals: Any, tangents: Any) -> Any:
        """By two passes: who cuts a program in what is linear in tangents and what is not, as
        reverse mode does, needs outputs that no tangent enters. What is saved has none."""
        found, kept = _forward_that_saves(self.call, primals)
        moving = _moving(range(len(primals)), tangents)
        moved = tangents_of(self.call, primals, moving, kept)
        count = len(self.results())
        return _with_tangents(found[:count], range(count), moved)


@dataclasses.dataclass(frozen=True)
class Backward(Pass):
    """The gradients of the operands `wanted`, from those of the outputs `numbers`."""

    numbers: tuple[int, ...]
    wanted: tuple[int, ...]

    def arguments(self) -> list[Tag]:
        """Operands, gradients of outputs, and what forward left."""
        return [*self._operands, *(Tag("output", k) for k in self.numbers), *self._kept]

    def results(self) -> list[Tag]:
        """Gradients of operands."""
        return [Tag("operand", k) for k in self.wanted]

    def _parts(self, args: Sequence[Any]) -> Any:
        count = len(self.call.arrays)
        end = count + len(self.numbers)
        return args[:count], args[count:end], args[end:]

    def expand(self, *args: Any) -> list[Any]:
        """The pass itself."""
        operands, incoming, kept = self._parts(args)
        by_number = dict(zip(self.numbers, incoming, strict=True))
        return passes.backward(self.call, operands, by_number, kept, self.wanted)

    def jvp(self, primals: Any, tangents: Any) -> Any:
        """By operands and incoming gradients; what forward left follows from these."""
        operands, incoming, kept = self._parts(primals)
        of_operands, of_incoming, _ = self._parts(tangents)
        moving = _moving(range(len(operands)), of_operands)
        moved = _moving(self.numbers, of_incoming)
        if moving:
            by_number = dict(zip(self.numbers, incoming, strict=True))
            found = moved_gradients(self.call, operands, by_number, moving, moved, self.wanted)
        else:
            found = gradients(self.call, operands, moved, self.wanted, kept)
        return _with_tangents(self(*primals), self.wanted, found)

    def transpose(self, cotangents: Any, *args: Any) -> Any:
        """It is linear in the incoming gradients."""
        operands, incoming, kept = self._parts(args)
        along = _moving(self.wanted, cotangents)
        found = tangents_of(self.call, operands, along, kept)
        by_number = dict(zip(self.numbers, incoming, strict=True))
        return [*[None] * len(operands), *_answers(by_number, found), *[None] * len(kept)]


@dataclasses.dataclass(frozen=True)
class Jvp(Pass):
    """The tangents of the real outputs from those of the operands `numbers`.

    With `keeps` what forward left is there too: `Backward` needs it, to which this is transposed.
    """

    numbers: tuple[int, ...]
    keeps: bool

    def arguments(self) -> list[Tag]:
        """Operands, tangents, and what forward left."""
        kept = self._kept if self.keeps else []
        return [*self._operands, *(Tag("operand", k) for k in self.numbers), *kept]

    def results(self) -> list[Tag]:
        """Tangents."""
        return [Tag("output", k) for k in self.call.real_outputs]

    def _parts(self, args: Sequence[Any]) -> Any:
        count = len(self.call.arrays)
        end = count + len(self.numbers)
        return args[:count], args[count:end], args[end:]

    def expand(self, *args: Any) -> list[Any]:
        """The pass itself."""
        operands, along, _ = self._parts(args)
        return passes.jvp(self.call, operands, dict(zip(self.numbers, along, strict=True)))

    def jvp(self, primals: Any, tangents: Any) -> Any:
        """By the tangents, in which it is linear, and by the operands."""
        operands, along, kept = self._parts(primals)
        of_operands, of_along, _ = self._parts(tangents)
        found = tangents_of(self.call, operands, _moving(self.numbers, of_along), kept)
        moving = _moving(range(len(operands)), of_operands)
        if moving:
            by_number = dict(zip(self.numbers, along, strict=True))
            found = _sum(found, moved_tangents(self.call, operands, by_number, moving))
        return _with_tangents(self(*primals), self.call.real_outputs, found)

    def transpose(self, cotangents: Any, *args: Any) -> Any:
        """It is linear in the tangents."""
        operands, along, kept = self._parts(args)
        by_number = dict(zip(self.numbers, along, strict=True))
        incoming = _moving(self.call.real_outputs, cotangents)
        left = kept if self.keeps else None
        found = gradients(self.call, operands, incoming, _asking(by_number), left)
        return [*[None] * len(operands), *_answers(by_number, found), *[None] * len(kept)]


@dataclasses.dataclass(frozen=True)
class JvpJvp(Pass):
    """The tangents of `Jvp` by the operands: linear in both groups of tangents of operands."""

    groups: tuple[tuple[int, ...], tuple[int, ...]]

    def arguments(self) -> list[Tag]:
        """Operands, and both tangents."""
        return [*self._operands, *(Tag("operand", k) for group in self.groups for k in group)]

    def results(self) -> list[Tag]:
        """Tangents."""
        return [Tag("output", k) for k in self.call.real_outputs]

    def _parts(self, args: Sequence[Any]) -> Any:
        count = len(self.call.arrays)
        rest = iter(args[count:])
        return args[:count], *({k: next(rest) for k in group} for group in self.groups)

    def expand(self, *args: Any) -> list[Any]:
        """The pass itself."""
        return passes.jvp_jvp(self.call, *self._parts(args))

    def jvp(self, primals: Any, tangents: Any) -> Any:
        """It is linear in either group of tangents; by operands there is none."""
        operands, first, second = self._parts(primals)
        of_operands, *of_tangents = self._parts(tangents)
        if not all(map(_is_zero, of_operands)):
            self._no_third()
        dfirst, dsecond = (_moving(tuple(t), tuple(t.values())) for t in of_tangents)
        found = _sum(
            moved_tangents(self.call, operands, dfirst, second),
            moved_tangents(self.call, operands, first, dsecond),
        )
        return _with_tangents(self(*primals), self.call.real_outputs, found)

    def transpose(self, cotangents: Any, *args: Any) -> Any:
        """By one of the tangents, where the other is there."""
        operands, first, second = self._parts(args)
        incoming = _moving(self.call.real_outputs, cotangents)

        def answers(asked: dict[int, Any], there: dict[int, Any]) -> list[Any]:
            asking = _asking(asked)
            if not asking or not incoming:
                return [None] * len(asked)
            found = moved_gradients(self.call, operands, incoming, there, {}, asking)
            return _answers(asked, found)

        return [*[None] * len(operands), *answers(first, second), *answers(second, first)]


@dataclasses.dataclass(frozen=True)
class BackwardJvp(Pass):
    """The tangents of the gradients of the operands `wanted`.

    `groups` are the numbers of the outputs whose gradients are given, of the operands that move,
    and of the outputs whose gradients do.
    """

    groups: tuple[tuple[int, ...], ...]
    wanted: tuple[int, ...]

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

    def expand(self, *args: Any) -> list[Any]:
        """The pass itself."""
        operands, *groups = self._parts(args)
        incoming, moving, moved = groups
        return passes.backward_jvp(self.call, operands, incoming, moving, moved, self.wanted)

    def jvp(self, primals: Any, tangents: Any) -> Any:
        """It is linear in the tangents; by operands and incoming gradients there is none."""
        operands, incoming, _, _ = self._parts(primals)
        of_operands, of_incoming, *of_tangents = self._parts(tangents)
        if not all(map(_is_zero, (*of_operands, *of_incoming.values()))):
            self._no_third()
        moving, moved = (_moving(tuple(t), tuple(t.values())) for t in of_tangents)
        found = moved_gradients(self.call, operands, incoming, moving, moved, self.wanted)
        return _with_tangents(self(*primals), self.wanted, found)

    def transpose(self, cotangents: Any, *args: Any) -> Any:
        """It is linear in the tangents of operands and of incoming gradients."""
        operands, incoming, moving, moved = self._parts(args)
        along = _moving(self.wanted, cotangents)
        by_operands: dict[int, Any] = {}
        by_gradients: dict[int, Any] = {}
        if along and _asking(moving):
            wanted = _asking(moving)
            by_operands = moved_gradients(self.call, operands, incoming, along, {}, wanted)
        if _asking(moved):
            by_gradients = tangents_of(self.call, operands, along)
        return [
            *[None] * (len(operands) + len(incoming)),
            *_answers(moving, by_operands),
            *_answers(moved, by_gradients),
        ]

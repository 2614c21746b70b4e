"""Differentiable functions for PyTorch's autograd, over the records.

Of one function f of some arrays x there are four: its value; its *gradients*, those of <g, f(x)>;
its *tangent*, f'(x) u; and the *second* derivative, the change of the gradients when x moves along u
and g along h. Second derivatives are symmetric, so these are the derivatives of each other: with
phi(x, g) = <g, f(x)> the gradient of <u, gradients(x, g)> is tangent(x, u) for g and second(x, u, g)
for x, and that of <g, tangent(x, u)> is gradients(x, g) for u and second(x, u, g) for x. Further it
does not go: a third derivative is refused by name.

Each takes the tensors of a call in a row, then rows of as many tangents or of incoming gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch.autograd import Function, forward_ad

from attnc.torch.arrays import array_of, shared_tensor_of, tensor_of
from attnc.torch.batching import batched
from attnc.torch.calls import Call, Slot, flat, limited

__all__ = ["Gradients", "Second", "Tangent", "Value", "gradients", "value"]

Row = Sequence[torch.Tensor | None]


class _Differentiable(Function):
    """What the four have in common."""

    @classmethod
    def run(cls, *args: Any) -> tuple[Any, ...]:
        """As `apply`, in less time where no transform of torch.func is active."""
        if torch._C._are_functorch_transforms_active():
            return cls.apply(*args)
        # What `apply` does beside this is for those transforms, and takes longer than the call.
        return super(Function, cls).apply(*args)  # type: ignore[misc]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call, ctx.needs, *row = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*row)
        ctx.save_for_forward(*row)

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return batched(cls.run, cls.rows, info, in_dims, *args)  # type: ignore[attr-defined]


class Value(_Differentiable):
    """``value(call, None, *tensors)``: the outputs in a row."""

    rows = ("tensors",), "outputs"

    @staticmethod
    def forward(call: Call, _: None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arrays = call.arrays_of(tensors)
        arguments, options = call.bound(arrays)
        output, saved, static = limited(call.record.forward, *arguments, **options)
        outputs, call.skeleton = flat(output)
        if call.keeps:
            call.kept = saved, static, arrays, outputs
        return tuple(map(tensor_of, outputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        call, _, *tensors = inputs
        ctx.call = call
        ctx.set_materialize_grads(False)
        if call.skeleton is not None:
            ctx.mark_non_differentiable(
                *[y for y, real in zip(output, call.real(), strict=True) if not real]
            )
        if not call.keeps:
            ctx.kept = None
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)
            return
        # All arrays go to autograd as tensors, so that it sees who writes to them, and may put them
        # elsewhere until backward. An array in the memory of an argument is also one of its own.
        saved, static, arrays, outputs = call.kept
        call.kept = None
        known = {id(array): k for k, array in enumerate(arrays)}
        known |= {id(array): len(arrays) + k for k, array in enumerate(outputs)}
        row, plan = [*tensors, *output], []
        for array in saved:
            place = known.get(id(array))
            if place is None:
                tensor = shared_tensor_of(array)
                if tensor is None:
                    plan.append(array)
                    continue
                place = known[id(array)] = len(row)
                row.append(tensor)
            plan.append(Slot(place))
        used = {x for x in plan if type(x) is Slot}
        last = len(tensors)
        row[last : last + len(output)] = [
            y if last + k in used else None for k, y in enumerate(output)
        ]
        ctx.kept = plan, static
        ctx.save_for_backward(*row)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
        call, needs = ctx.call, ctx.needs_input_grad[2:]
        if all(g is None for g in gradients):
            return None, None, *[None] * len(needs)
        saved = ctx.saved_tensors
        incoming = [g for g, real in zip(gradients, call.real(), strict=True) if real]
        if ctx.kept is None or torch.is_grad_enabled():
            found = Gradients.run(call, needs, *saved[: len(needs)], *incoming)
        else:
            found = gradients_of(call, needs, *ctx.kept, saved, incoming)
        return None, None, *_spread(needs, found)

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *tangents: torch.Tensor | None) -> tuple[Any, ...]:
        call = ctx.call
        tensors = ctx.saved_tensors[: len(tangents)]
        found = iter(Tangent.run(call, None, *tensors, *tangents))
        return tuple(next(found) if real else None for real in call.real())


class Gradients(_Differentiable):
    """``gradients(call, needs, *tensors, *incoming)``: those of the tensors that are needed."""

    rows = ("tensors", "outputs"), "gradients"

    @staticmethod
    def forward(call: Call, needs: tuple[bool, ...], *row: Any) -> tuple[Any, ...]:
        tensors, incoming = _rows(call, row, 1)
        arguments, options = call.bound(call.arrays_of(tensors))
        output, saved, static = limited(call.record.forward, *arguments, **options)
        _, call.skeleton = flat(output)
        return gradients_of(call, needs, saved, static, (), incoming)

    @staticmethod
    def backward(ctx: Any, *u: torch.Tensor | None) -> tuple[Any, ...]:
        call, needs, row = ctx.call, ctx.needs, ctx.saved_tensors
        tensors, incoming = _rows(call, row, 1)
        of_tensors, of_incoming = _rows(call, ctx.needs_input_grad[2:], 1)
        tangents = _spread(needs, u)
        dtensors = dincoming = [None]
        dtensors, dincoming = [None] * len(tensors), [None] * len(incoming)
        if any(x is not None for x in u):
            if any(of_incoming):
                found = Tangent.run(call, None, *tensors, *tangents)
                dincoming = [x if n else None for x, n in zip(found, of_incoming, strict=True)]
            if any(of_tensors):
                zeros = [None] * len(incoming)
                found = Second.run(call, of_tensors, *tensors, *tangents, *incoming, *zeros)
                dtensors = _spread(of_tensors, found)
        return None, None, *dtensors, *dincoming

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *moves: torch.Tensor | None) -> tuple[Any, ...]:
        call = ctx.call
        tensors, incoming = _rows(call, ctx.saved_tensors, 1)
        tangents, dincoming = _rows(call, moves, 1)
        return Second.run(call, ctx.needs, *tensors, *tangents, *incoming, *dincoming)


class Tangent(_Differentiable):
    """``tangent(call, None, *tensors, *tangents)``: those of the real outputs in a row."""

    rows = ("tensors", "tensors"), "real outputs"

    @staticmethod
    def forward(call: Call, _: None, *row: Any) -> tuple[Any, ...]:
        record = call.record
        if record.jvp is None:
            raise NotImplementedError(
                f"{record.name}: there is no forward mode, nor a second derivative by it"
            )
        tensors, tangents = _halves(row)
        arguments, options = call.bound(call.arrays_of(tensors))
        moves = call.tangents(call.arrays_of(tangents))
        output, tangent = limited(record.jvp, moves, *arguments, **options)
        outputs, call.skeleton = flat(output)
        found = _row_of_tangents(call.skeleton, tangent)
        return tuple(
            tensor_of(y * 0 if x is None else x)
            for x, y, real in zip(found, outputs, call.real(), strict=True)
            if real
        )

    @staticmethod
    def backward(ctx: Any, *g: torch.Tensor | None) -> tuple[Any, ...]:
        call = ctx.call
        tensors, tangents = _halves(ctx.saved_tensors)
        of_tensors, of_tangents = _halves(ctx.needs_input_grad[2:])
        dtensors, dtangents = [None] * len(tensors), [None] * len(tensors)
        if any(x is not None for x in g):
            if any(of_tangents):
                found = Gradients.run(call, tuple(of_tangents), *tensors, *g)
                dtangents = _spread(of_tangents, found)
            if any(of_tensors):
                zeros = [None] * len(g)
                found = Second.run(call, tuple(of_tensors), *tensors, *tangents, *g, *zeros)
                dtensors = _spread(of_tensors, found)
        return None, None, *dtensors, *dtangents

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> NoReturn:
        raise NotImplementedError(
            f"{ctx.call.record.name}: forward mode within forward mode is not there; "
            "torch.func.hessian goes forward over reverse"
        )


class Second(_Differentiable):
    """``second(call, needs, *tensors, *tangents, *incoming, *dincoming)``: tangents of gradients."""

    rows = ("tensors", "tensors", "outputs", "outputs"), "gradients"

    @staticmethod
    def forward(call: Call, needs: tuple[bool, ...], *row: Any) -> tuple[Any, ...]:
        record = call.record
        if record.backward_jvp is None:
            raise NotImplementedError(f"{record.name}: there is no second derivative")
        tensors, tangents, incoming, dincoming = _rows(call, row, 2)
        arguments, options = call.bound(call.arrays_of(tensors))
        found = limited(
            record.backward_jvp,
            call.tangents(call.arrays_of(tangents)),
            _incoming(call, incoming),
            _incoming(call, dincoming),
            *arguments,
            **options,
        )
        return tuple(
            torch.zeros_like(tensor) if x is None else tensor_of(x)
            for x, tensor in zip(
                call.gradients(found, needs),
                [t for t, needed in zip(tensors, needs, strict=True) if needed],
                strict=True,
            )
        )

    @staticmethod
    def backward(ctx: Any, *_: Any) -> NoReturn:
        raise NotImplementedError(f"{ctx.call.record.name}: there is no third derivative")

    jvp = backward


def gradients_of(
    call: Call, needs: Sequence[bool], saved: Any, static: Any, kept: Any, incoming: Row
) -> tuple[torch.Tensor, ...]:
    """What a record's backward returns, from what its forward pass left.

    Parameters
    ----------
    call : Call
    needs : sequence of bool
        Which of the tensors need a gradient.
    saved, static
        What the forward pass left. A `Slot` is a place in `kept`.
    kept : sequence of Tensor
    incoming : sequence of Tensor or None
        The gradients of the real outputs in a row, not all None.

    Returns
    -------
    tuple of Tensor
    """
    record = call.record
    arrays = tuple(
        [array_of(record.name, "saved", kept[x]) if type(x) is Slot else x for x in saved]
    )
    found = limited(record.backward, arrays, static, *_incoming(call, incoming))
    return tuple(map(tensor_of, call.gradients(found, needs)))


def _incoming(call: Call, row: Row) -> tuple[Any, ...]:
    where = call.record.name
    return call.incoming([None if g is None else array_of(where, "gradient", g) for g in row])


def _row_of_tangents(skeleton: Any, tangent: Any) -> list[Any]:
    """The tangents of the outputs in a row: None for one that is not there, nor what is in it."""
    if skeleton is None:
        return [tangent]
    kind, parts = skeleton
    tangent = [None] * len(parts) if tangent is None else tangent
    return [x for part, t in zip(parts, tangent, strict=True) for x in _row_of_tangents(part, t)]


def _halves(row: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    half = len(row) // 2
    return row[:half], row[half:]


def _rows(call: Call, row: Sequence[Any], of_tensors: int) -> list[Sequence[Any]]:
    """The rows: that many, each, that belong to the tensors, and to the outputs."""
    count = len(call.names)
    outputs = (len(row) - of_tensors * count) // of_tensors
    ends = [count] * of_tensors + [outputs] * of_tensors
    result, start = [], 0
    for size in ends:
        result.append(row[start : start + size])
        start += size
    return result


def _spread(needs: Sequence[bool], found: Sequence[Any]) -> list[Any]:
    """What was found, in the places where it was needed; None elsewhere."""
    each = iter(found)
    return [next(each) if needed else None for needed in needs]

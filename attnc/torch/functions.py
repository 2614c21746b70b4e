"""Differentiable functions for PyTorch's autograd, over the records.

Of one function f of some arrays x there are five: its value; its *gradients*, those of <g, f(x)>;
its *tangent*, f'(x) u; the *second* derivative, the change of the gradients when x moves along u
and g along h; and the *second tangent*, f''(x)[u, v], the change of the tangent when x moves along
v. Second derivatives are symmetric, so these are the derivatives of each other: with
phi(x, g) = <g, f(x)> the gradient of <u, gradients(x, g)> is tangent(x, u) for g and
second(x, u, g) for x, that of <g, tangent(x, u)> is gradients(x, g) for u and second(x, u, g)
for x, and that of <g, second tangent(x, u, v)> is second(x, v, g) for u. Further it does not go: a
third derivative is refused by name.

Each takes the tensors of a call in a row, then rows of as many tangents or of incoming gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch.autograd import Function, forward_ad

from attnc.torch.arrays import array_of, shared_tensor_of, tensor_of
from attnc.torch.batching import batched
from attnc.torch.calls import Call, flat, limited

__all__: list[str] = []

Row = Sequence[torch.Tensor | None]


class _Differentiable(Function):
    """What the five have in common."""

    @classmethod
    def run(cls, *args: Any) -> tuple[Any, ...]:
        """As `apply`, in less time where no transform of torch.func is active."""
        if torch._C._are_functorch_transforms_active():
            return cls.apply(*args)
        # What `apply` does beside this is for those transforms, and takes longer than the call.
        return super(Function, cls).apply(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call, ctx.needs, *row = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*row)
        ctx.save_for_forward(*row)

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return batched(cls.run, cls.rows, info, in_dims, *args)


class Value(_Differentiable):
    """``value(call, None, *tensors)``: the outputs in a row, for the transforms of torch.func."""

    rows = ("tensors",), "outputs"

    @staticmethod
    def forward(call: Call, _: None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arguments, options = call.bound(call.arrays_of(tensors))
        outputs, call.skeleton = flat(limited(call.record.function, arguments, options))
        return tuple(map(tensor_of, outputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        _Differentiable.setup_context(ctx, inputs, output)
        _mark(ctx, ctx.call, output)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad[2:]
        return None, None, *_pulled(ctx.call, needs, ctx.saved_tensors, gradients)

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *tangents: torch.Tensor | None) -> tuple[Any, ...]:
        return _pushed(ctx.call, ctx.saved_tensors, tangents)


class Eager(Function):
    """``eager(call, *tensors)``: the same without transforms, in less time.

    It keeps for backward what the forward pass left, all arrays as tensors: so autograd sees who
    writes to them, and may put them elsewhere until then.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: torch.Tensor) -> Any:
        arrays = call.arrays_of(tensors)
        arguments, options = call.bound(arrays)
        output, saved, static = limited(call.record.forward, arguments, options)
        if type(output) is np.ndarray:
            outputs, result = [output], (tensor_of(output),)
            shared = output.base is not None  # whether an output may lie in another array
        else:
            outputs, call.skeleton = flat(output)
            result = tuple(map(tensor_of, outputs))
            shared = True
            _mark(ctx, call, result)
        # Where each saved array is among the tensors that autograd keeps, or, from the end, among
        # constants, the last of which is None.
        place_of = dict(zip(map(id, arrays), range(len(arrays))))  # noqa: B905
        row: list[torch.Tensor] = [*tensors]
        places, constants, parts = [], [], []
        for array in saved:
            place = -1 if array is None else place_of.get(id(array))
            if place is None:
                tensor = _tensor_among(array, outputs, result)
                if tensor is None:
                    constants.append(array)
                    place = -1 - len(constants)
                else:
                    place = len(row)
                    row.append(tensor)
                    if shared or array.base is not None:
                        parts.append(array)
                place_of[id(array)] = place
            places.append(place)
        # What shares memory with an output is watched by watching that; with an argument, it is
        # already.
        if parts:
            owners = dict(zip(map(_owner, outputs), result, strict=True))
            row += [owners[owner] for owner in map(_owner, parts) if owner in owners]
        ctx.kept = call, places, constants, static
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*row)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(*tensors)
        return result[0] if call.skeleton is None else result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
        call, places, constants, static = ctx.kept
        needs, saved = ctx.needs_input_grad[1:], ctx.saved_tensors
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:
            return None, *_pulled(call, needs, saved[: len(needs)], gradients)
        if call.skeleton is not None:
            gradients = tuple([g for g, real in zip(gradients, call.real(), strict=True) if real])
        for g in gradients:
            if g is not None:
                break
        else:
            return None, *[None] * len(needs)
        arrays = call.arrays_of(saved) + constants[::-1] + [None]
        kept = tuple([arrays[place] for place in places])
        return None, *_spread(needs, gradients_of(call, needs, kept, static, gradients))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: torch.Tensor | None) -> Any:
        call = ctx.kept[0]
        found = _pushed(call, ctx.saved_tensors[: len(tangents)], tangents)
        return found[0] if call.skeleton is None else found


eager = super(Function, Eager).apply  # see `_Differentiable.run`


def _tensor_among(
    array: Any, outputs: Sequence[Any], result: Sequence[torch.Tensor]
) -> torch.Tensor | None:
    """The tensor of a saved array, the result itself if it is that; None where there is none."""
    for y, tensor in zip(outputs, result):  # noqa: B905
        if y is array:
            return tensor
    return shared_tensor_of(array)


def _owner(array: Any) -> int:
    """Whose memory an array is in, as a number."""
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return id(array)


def _mark(ctx: Any, call: Call, outputs: Sequence[torch.Tensor]) -> None:
    """Tell autograd which outputs have no gradient."""
    whole = [y for y, real in zip(outputs, call.real(), strict=True) if not real]
    if whole:
        ctx.mark_non_differentiable(*whole)


def _pulled(call: Call, needs: Sequence[bool], tensors: Row, gradients: Row) -> list[Any]:
    """The gradients of the tensors, differentiable, from those of the outputs in a row."""
    if all(g is None for g in gradients):
        return [None] * len(needs)
    incoming = [g for g, real in zip(gradients, call.real(), strict=True) if real]
    return _spread(needs, Gradients.run(call, tuple(needs), *tensors, *incoming))


def _pushed(call: Call, tensors: Row, tangents: Row) -> tuple[Any, ...]:
    """The tangents of the outputs in a row, differentiable, from those of the tensors."""
    found = iter(Tangent.run(call, None, *tensors, *tangents))
    return tuple([next(found) if real else None for real in call.real()])


class Gradients(_Differentiable):
    """``gradients(call, needs, *tensors, *incoming)``: those of the tensors that are needed."""

    rows = ("tensors", "outputs"), "gradients"

    @staticmethod
    def forward(call: Call, needs: Sequence[bool], *row: Any) -> tuple[Any, ...]:
        tensors, incoming = _rows(call, row, 1)
        arguments, options = call.bound(call.arrays_of(tensors))
        output, saved, static = limited(call.record.forward, arguments, options)
        _, call.skeleton = flat(output)
        return gradients_of(call, needs, saved, static, incoming)

    @staticmethod
    def backward(ctx: Any, *u: torch.Tensor | None) -> tuple[Any, ...]:
        call, needs, row = ctx.call, ctx.needs, ctx.saved_tensors
        tensors, incoming = _rows(call, row, 1)
        of_tensors, of_incoming = _rows(call, ctx.needs_input_grad[2:], 1)
        tangents = _spread(needs, u)
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
        tensors, tangents = _parts(row, 2)
        arguments, options = call.bound(call.arrays_of(tensors))
        moves = call.tangents(call.arrays_of(tangents))
        output, tangent = limited(record.jvp, (moves, *arguments), options)
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
        tensors, tangents = _parts(ctx.saved_tensors, 2)
        of_tensors, of_tangents = _parts(ctx.needs_input_grad[2:], 2)
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
    def jvp(ctx: Any, _: None, __: None, *moves: torch.Tensor | None) -> tuple[Any, ...]:
        call = ctx.call
        tensors, tangents = _parts(ctx.saved_tensors, 2)
        others, dtangents = _parts(moves, 2)
        terms = []
        if any(x is not None for x in dtangents):
            terms.append(Tangent.run(call, None, *tensors, *dtangents))
        if any(x is not None for x in others):
            terms.append(SecondTangent.run(call, None, *tensors, *tangents, *others))
        return _sums(terms)


class SecondTangent(_Differentiable):
    """``second_tangent(call, None, *tensors, *tangents, *others)``: those of tangents."""

    rows = ("tensors", "tensors", "tensors"), "real outputs"

    @staticmethod
    def forward(call: Call, _: None, *row: Any) -> tuple[Any, ...]:
        record = call.record
        if record.jvp_jvp is None:
            raise NotImplementedError(
                f"{record.name}: there is no forward mode within forward mode; torch.func.hessian "
                "goes forward over reverse"
            )
        tensors, *pair = _parts(row, 3)
        arguments, options = call.bound(call.arrays_of(tensors))
        moves = (call.tangents(call.arrays_of(tangents)) for tangents in pair)
        found, call.skeleton = flat(limited(record.jvp_jvp, (*moves, *arguments), options))
        return tuple(tensor_of(x) for x, real in zip(found, call.real(), strict=True) if real)

    @staticmethod
    def backward(ctx: Any, *g: torch.Tensor | None) -> tuple[Any, ...]:
        call, (tensors, *pair) = ctx.call, _parts(ctx.saved_tensors, 3)
        of_tensors, *of_pair = _parts(ctx.needs_input_grad[2:], 3)
        if any(of_tensors):
            _no_third(call)
        found = []
        for needs, tangents in zip(of_pair, reversed(pair), strict=True):
            if any(needs) and any(x is not None for x in g):
                zeros = [None] * len(g)
                second = Second.run(call, tuple(needs), *tensors, *tangents, *g, *zeros)
                found += _spread(needs, second)
            else:
                found += [None] * len(needs)
        return None, None, *[None] * len(tensors), *found

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *moves: torch.Tensor | None) -> tuple[Any, ...]:
        call, (tensors, first, second) = ctx.call, _parts(ctx.saved_tensors, 3)
        dtensors, dfirst, dsecond = _parts(moves, 3)
        if any(x is not None for x in dtensors):
            _no_third(call)
        terms = []
        if any(x is not None for x in dfirst):
            terms.append(SecondTangent.run(call, None, *tensors, *dfirst, *second))
        if any(x is not None for x in dsecond):
            terms.append(SecondTangent.run(call, None, *tensors, *first, *dsecond))
        return _sums(terms)


class Second(_Differentiable):
    """``second(call, needs, *tensors, *tangents, *incoming, *dincoming)``: of the gradients."""

    rows = ("tensors", "tensors", "outputs", "outputs"), "gradients"

    @staticmethod
    def forward(call: Call, needs: Sequence[bool], *row: Any) -> tuple[Any, ...]:
        record = call.record
        if record.backward_jvp is None:
            raise NotImplementedError(f"{record.name}: there is no second derivative")
        tensors, tangents, incoming, dincoming = _rows(call, row, 2)
        arguments, options = call.bound(call.arrays_of(tensors))
        moves = call.tangents(call.arrays_of(tangents))
        rows = _incoming(call, incoming), _incoming(call, dincoming)
        found = limited(record.backward_jvp, (moves, *rows, *arguments), options)
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
        _no_third(ctx.call)

    jvp = backward


def _no_third(call: Call) -> NoReturn:
    raise NotImplementedError(f"{call.record.name}: there is no third derivative")


def gradients_of(
    call: Call, needs: Sequence[bool], saved: Any, static: Any, incoming: Row
) -> tuple[torch.Tensor, ...]:
    """What a record's backward returns, from what its forward pass left.

    Parameters
    ----------
    call : Call
    needs : sequence of bool
        Which of the tensors need a gradient.
    saved, static
        What the forward pass left.
    incoming : sequence of Tensor or None
        The gradients of the real outputs in a row, not all None.

    Returns
    -------
    tuple of Tensor
    """
    arguments = (saved, static, *_incoming(call, incoming))
    found = limited(call.record.backward, arguments, {})
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


def _parts(row: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """The rows, that many, of one size each."""
    size = len(row) // count
    return [row[k * size : (k + 1) * size] for k in range(count)]


def _sums(terms: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The sum of one or two, tensor by tensor."""
    return terms[0] if len(terms) == 1 else tuple(map(torch.add, *terms))


def _rows(call: Call, row: Sequence[Any], of_tensors: int) -> list[Sequence[Any]]:
    """The rows: that many, each, that belong to the tensors, and to the outputs."""
    count = len(call.slots())
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

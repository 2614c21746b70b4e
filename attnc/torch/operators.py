"""Operators for what traces a program instead of running it: torch.compile and torch.export.

Every function has two, its value and its gradients, of a list of tensors and a text that says what
the rest of the call is. Both are defined once, by machine. A compiler asks for shapes beforehand,
and the record tells it. The gradients start from the arguments alone and run the forward pass
again: what that leaves has no shape that is known beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from attnc.registry import Output, Record
from attnc.torch.batching import batched
from attnc.torch.calls import Call, Slot, numbered
from attnc.torch.functions import Gradients, Value

__all__ = ["Operators", "skeleton_of", "text_of"]


class Operators:
    """The operators of one function.

    Parameters
    ----------
    record : registry.Record

    Attributes
    ----------
    value : torch._ops.OpOverload
        ``(Tensor[] tensors, str call) -> Tensor[]``: the outputs in a row.
    gradients : torch._ops.OpOverload
        ``(Tensor[] tensors, Tensor?[] incoming, bool[] needs, str call) -> Tensor[]``
    """

    _known: dict[str, Operators] = {}  # by name, as a library has one operator of a name

    def __init__(self, record: Record) -> None:
        self.record = record
        function = record.function
        name = record.name
        if not (function.__module__ or "").startswith("attnc."):
            name = f"{function.__module__}.{function.__qualname__}"
            name = "".join(c if c.isalnum() else "_" for c in name)
        defined = name in self._known
        self._known[name] = self  # the latest of a name: a cell of a notebook may run again
        if not defined:
            _define(name)
        self.name = name
        self.value = getattr(torch.ops.attnc, name).default
        self.gradients = getattr(torch.ops.attnc, name + "_gradients").default

    def call(self, text: str) -> Call:
        """The call that a text stands for."""
        names, options = json.loads(text)
        arguments = [_decoded(x) for x in names]
        options = {name: _decoded(x) for name, x in options.items()}
        call = Call(self.record, arguments, options, [], [])
        return numbered(call)

    def outputs(self, tensors: Sequence[torch.Tensor], call: Call) -> tuple[list[Any], Any]:
        """Empty tensors like the outputs in a row, and how they are nested."""
        arguments, options = call.bound(list(tensors))
        row, skeleton = _described(self.record.outputs(*arguments, **options))
        return [self._empty(output, tensors, call) for output in row], skeleton

    def skeleton(self, text: str, ranks: tuple[int, ...]) -> Any:
        """How the outputs are nested; the sizes of the tensors do not matter."""
        call = self.call(text)
        arguments, options = call.bound([_Shaped((1,) * rank) for rank in ranks])
        return _described(self.record.outputs(*arguments, **options))[1]

    def _empty(self, output: Output, tensors: Sequence[torch.Tensor], call: Call) -> torch.Tensor:
        counting = self.record.arrays if output.of is None else output.of
        dtypes = {t.dtype for t, name in zip(tensors, call.names, strict=True) if name in counting}
        wide = any(not d.is_floating_point or d.itemsize > 4 for d in dtypes)
        dtype = torch.float64 if wide else torch.float32
        if output.kind == "integer":
            dtype = torch.int64
        elif output.kind == "real" and len(dtypes) == 1 and not wide:
            dtype = next(iter(dtypes))
        return tensors[0].new_empty(output.shape, dtype=dtype)


class _Shaped(NamedTuple):
    """What has a shape alone."""

    shape: tuple[int, ...]


def _described(output: Any) -> tuple[list[Output], Any]:
    """The descriptions of the outputs in a row, and how they are nested."""
    if isinstance(output, Output):
        return [output], None
    row: list[Output] = []
    parts = []
    for item in output:
        items, part = _described(item)
        row += items
        parts.append(part)
    return row, (type(output), tuple(parts))


def _define(name: str) -> None:
    """Define the operators of this name, which ask `Operators._known` for their record."""

    def of(text: str) -> tuple[Operators, Call]:
        operators = Operators._known[name]
        return operators, operators.call(text)

    def nested_of(tensors: Sequence[torch.Tensor], text: str) -> tuple[Operators, Call]:
        operators, call = of(text)
        call.skeleton = operators.skeleton(text, tuple(x.ndim for x in tensors))
        return operators, call

    def value(tensors: list[torch.Tensor], text: str) -> list[torch.Tensor]:
        _, call = of(text)
        return _own(Value.forward(call, None, *tensors), tensors)

    def value_shapes(tensors: list[torch.Tensor], text: str) -> list[torch.Tensor]:
        operators, call = of(text)
        return operators.outputs(tensors, call)[0]

    def gradients(
        tensors: list[torch.Tensor], incoming: list[Any], needs: list[bool], text: str
    ) -> list[torch.Tensor]:
        _, call = of(text)
        return _own(Gradients.forward(call, needs, *tensors, *incoming), tensors + incoming)

    def gradient_shapes(
        tensors: list[torch.Tensor], incoming: list[Any], needs: list[bool], text: str
    ) -> list[torch.Tensor]:
        return [x.new_empty(x.shape) for x, needed in zip(tensors, needs, strict=True) if needed]

    def save(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
        tensors, text = inputs
        operators, call = nested_of(tensors, text)
        ctx.text, ctx.set = text, operators
        ctx.call = call
        ctx.mark_non_differentiable(
            *[y for y, real in zip(output, call.real(), strict=True) if not real]
        )
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    def backward(ctx: Any, incoming: list[Any]) -> tuple[list[Any], None]:
        tensors, needs = ctx.saved_tensors, ctx.needs_input_grad[0]
        incoming = [g for g, real in zip(incoming, ctx.call.real(), strict=True) if real]
        if all(g is None for g in incoming):
            return [None] * len(tensors), None
        found = iter(ctx.set.gradients(tensors, incoming, needs, ctx.text))
        return [next(found) if needed else None for needed in needs], None

    def value_batched(info: Any, in_dims: Any, tensors: Any, text: str) -> tuple[Any, Any]:
        operators, call = nested_of(tensors, text)

        def run(call: Call, needs: None, *row: torch.Tensor) -> tuple[Any, ...]:
            return tuple(operators.value(list(row), text))

        found, dims = batched(run, Value.rows, info, (None, None, *in_dims[0]), call, None, *tensors)
        return list(found), list(dims)

    def gradients_batched(
        info: Any, in_dims: Any, tensors: Any, incoming: Any, needs: Any, text: str
    ) -> tuple[Any, Any]:
        operators, call = nested_of(tensors, text)
        count = len(tensors)

        def run(call: Call, needs: Any, *row: torch.Tensor) -> tuple[Any, ...]:
            return tuple(operators.gradients(list(row[:count]), list(row[count:]), needs, text))

        dims = (None, None, *in_dims[0], *(in_dims[1] or [None] * len(incoming)))
        found, dims = batched(run, Gradients.rows, info, dims, call, needs, *tensors, *incoming)
        return list(found), list(dims)

    library = "attnc::" + name
    tags = (torch.Tag.pt2_compliant_tag,)
    torch.library.define(library, "(Tensor[] tensors, str call) -> Tensor[]", tags=tags)
    torch.library.impl(library, "default", value)
    torch.library.register_fake(library, value_shapes)
    torch.library.register_autograd(library, backward, setup_context=save)
    torch.library.register_vmap(library, value_batched)
    library += "_gradients"
    torch.library.define(
        library,
        "(Tensor[] tensors, Tensor?[] incoming, bool[] needs, str call) -> Tensor[]",
        tags=tags,
    )
    torch.library.impl(library, "default", gradients)
    torch.library.register_fake(library, gradient_shapes)
    torch.library.register_vmap(library, gradients_batched)


def _own(outputs: Sequence[torch.Tensor], inputs: Sequence[Any]) -> list[torch.Tensor]:
    """The outputs in rows of their own: an operator may not return an input, nor a part of one."""
    memory = {x.untyped_storage().data_ptr() for x in inputs if x is not None and x.numel()}
    return [
        x.clone(memory_format=torch.contiguous_format)
        if x.untyped_storage().data_ptr() in memory
        else x.contiguous()
        for x in outputs
    ]


# ---- a call as a text, and back ------------------------------------------------------------------


def text_of(arguments: list[Any], options: dict[str, Any]) -> str:
    """The arguments of a call, without its tensors, as JSON.

    Written so that a compiler can run it.

    Parameters
    ----------
    arguments : list
    options : dict

    Returns
    -------
    str
    """
    by_name = [f'"{name}": {_encoded(x)}' for name, x in options.items()]
    return f"[{_encoded(arguments)}, {{{', '.join(by_name)}}}]"


_FLOATS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}  # as JSON has them


def _encoded(x: Any) -> str:
    if type(x) is Slot:
        return '{"tensor": ' + str(int(x)) + "}"
    if x is None:
        return "null"
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, int):
        return str(int(x))
    if isinstance(x, float):
        return _FLOATS.get(str(x), str(x))
    if isinstance(x, str):
        return f'"{x}"' if x.isidentifier() else json.dumps(x)
    if isinstance(x, (list, tuple)):
        return "[" + ", ".join([_encoded(item) for item in x]) + "]"
    raise TypeError(
        f"attnc.torch: options must be tensors, numbers, strings or sequences of them where a "
        f"program is traced, got {type(x).__name__}"
    )


def _decoded(x: Any) -> Any:
    if isinstance(x, dict):
        return Slot(x["tensor"])
    if isinstance(x, list):
        return [_decoded(item) for item in x]
    return x


@torch.compiler.assume_constant_result
def skeleton_of(name: str, text: str, ranks: tuple[int, ...]) -> Any:
    """How the outputs of a call are nested: a constant to a compiler.

    Parameters
    ----------
    name : str
        Of the operator.
    text : str
        What `text_of` gave.
    ranks : tuple of int
        How many axes each tensor has.

    Returns
    -------
    object
    """
    return Operators._known[name].skeleton(text, ranks)

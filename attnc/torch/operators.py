"""Operators for what traces a program instead of running it: torch.compile and torch.export.

Every function has two, its value and its gradients, of a list of tensors, lists of integers and of
floats, which may be symbols, and a text that says what the rest of the call is. Both are defined
once, by machine. A compiler asks for shapes beforehand, and the record tells it. The gradients
start from the arguments alone and run the forward pass again: what that leaves has no shape that is
known beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad

from attnc.registry import Output, Record
from attnc.torch.batching import batched
from attnc.torch.calls import Call, Slot, flat
from attnc.torch.functions import Gradients, Value

__all__: list[str] = []


class Operators:
    """The operators of one function.

    Parameters
    ----------
    record : registry.Record

    Attributes
    ----------
    value : torch._ops.OpOverload
        ``(Tensor[] tensors, SymInt[] integers, float[] floats, str call) -> Tensor[]``: the outputs
        in a row.
    gradients : torch._ops.OpOverload
        ``(Tensor[] tensors, Tensor?[] incoming, bool[] needs, SymInt[] integers, float[] floats,
        str call) -> Tensor[]``: those that are needed.
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

    @classmethod
    def known(cls, name: str) -> Operators:
        """The operators of this name.

        Parameters
        ----------
        name : str

        Returns
        -------
        Operators
        """
        return cls._known[name]

    def call(self, integers: Any, floats: Any, text: str) -> Call:
        """The call that a text stands for."""
        arguments, options = json.loads(text)
        arguments = _decoded(arguments, integers, floats)
        options = {name: _decoded(x, integers, floats) for name, x in options.items()}
        return Call(self.record, arguments, options)

    def outputs(self, tensors: Sequence[torch.Tensor], call: Call) -> tuple[list[Any], Any]:
        """Empty tensors like the outputs in a row, and how they are nested."""
        arguments, options = call.bound(list(tensors))
        row, skeleton = flat(self.described_by(*arguments, **options))
        return [self._empty(output, tensors, call) for output in row], skeleton

    def described_by(self, *arguments: Any, **options: Any) -> Any:
        """What the record says of the outputs, if it does.

        Parameters
        ----------
        *arguments, **options
            Of the function, of which shapes are asked alone.

        Returns
        -------
        Output or named tuple of them

        Raises
        ------
        NotImplementedError
            If the record has no ``outputs``.
        """
        if self.record.outputs is None:
            raise NotImplementedError(
                f"{self.record.name}: there is no tracing, for its record has no outputs=; see "
                "attnc.registry.register"
            )
        return self.record.outputs(*arguments, **options)

    def skeleton(self, text: str, ranks: Sequence[int]) -> Any:
        """How the outputs are nested, for which sizes do not matter."""
        call = self.call(_Ones(), _Ones(), text)
        arguments, options = call.bound([_Shaped((1,) * rank) for rank in ranks])
        return flat(self.described_by(*arguments, **options))[1]

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


class _Ones:
    """Any number of numbers."""

    def __getitem__(self, index: int) -> int:
        return 1


class _Shaped(NamedTuple):
    """What has a shape alone."""

    shape: tuple[int, ...]


def _define(name: str) -> None:
    """Define the operators of this name, which ask `Operators._known` for their record."""

    def of(integers: Any, floats: Any, text: str) -> tuple[Operators, Call]:
        operators = Operators.known(name)
        return operators, operators.call(integers, floats, text)

    def nested_of(tensors: Any, integers: Any, floats: Any, text: str) -> tuple[Operators, Call]:
        operators, call = of(integers, floats, text)
        call.skeleton = operators.skeleton(text, tuple(x.ndim for x in tensors))
        return operators, call

    def value(
        tensors: list[torch.Tensor], integers: Any, floats: Any, text: str
    ) -> list[torch.Tensor]:
        _, call = of(integers, floats, text)
        return _own(Value.forward(call, None, *tensors), tensors)

    def value_shapes(
        tensors: list[torch.Tensor], integers: Any, floats: Any, text: str
    ) -> list[torch.Tensor]:
        operators, call = of(integers, floats, text)
        return operators.outputs(tensors, call)[0]

    def gradients(
        tensors: list[torch.Tensor],
        incoming: list[Any],
        needs: list[bool],
        integers: Any,
        floats: Any,
        text: str,
    ) -> list[torch.Tensor]:
        _, call = of(integers, floats, text)
        return _own(Gradients.forward(call, needs, *tensors, *incoming), tensors + incoming)

    def gradient_shapes(
        tensors: list[torch.Tensor],
        incoming: list[Any],
        needs: list[bool],
        integers: Any,
        floats: Any,
        text: str,
    ) -> list[torch.Tensor]:
        return [x.new_empty(x.shape) for x, needed in zip(tensors, needs, strict=True) if needed]

    def save(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
        tensors, integers, floats, text = inputs
        operators, call = nested_of(tensors, integers, floats, text)
        ctx.rest, ctx.gradients = (integers, floats, text), operators.gradients
        ctx.call = call
        ctx.mark_non_differentiable(
            *[y for y, real in zip(output, call.real(), strict=True) if not real]
        )
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    def backward(ctx: Any, incoming: list[Any]) -> tuple[Any, ...]:
        # PyTorch takes a list without numbers for one of tensors, which has a list of gradients.
        of_rest: tuple[Any, ...] = *[None if numbers else [] for numbers in ctx.rest[:2]], None
        tensors, needs = ctx.saved_tensors, ctx.needs_input_grad[0]
        incoming = [g for g, real in zip(incoming, ctx.call.real(), strict=True) if real]
        if all(g is None for g in incoming):
            return [None] * len(tensors), *of_rest
        found = iter(ctx.gradients(tensors, incoming, needs, *ctx.rest))
        return [next(found) if needed else None for needed in needs], *of_rest

    def value_batched(
        info: Any, in_dims: Any, tensors: Any, integers: Any, floats: Any, text: str
    ) -> tuple[Any, Any]:
        operators, call = nested_of(tensors, integers, floats, text)

        def run(call: Call, needs: None, *row: torch.Tensor) -> tuple[Any, ...]:
            return tuple(operators.value(list(row), integers, floats, text))

        found, dims = batched(
            run, Value.rows, info, (None, None, *in_dims[0]), call, None, *tensors
        )
        return list(found), list(dims)

    def gradients_batched(
        info: Any,
        in_dims: Any,
        tensors: Any,
        incoming: Any,
        needs: Any,
        integers: Any,
        floats: Any,
        text: str,
    ) -> tuple[Any, Any]:
        operators, call = nested_of(tensors, integers, floats, text)
        count = len(tensors)

        def run(call: Call, needs: Any, *row: torch.Tensor) -> tuple[Any, ...]:
            return tuple(
                operators.gradients(
                    list(row[:count]), list(row[count:]), needs, integers, floats, text
                )
            )

        dims = (None, None, *in_dims[0], *(in_dims[1] or [None] * len(incoming)))
        found, dims = batched(run, Gradients.rows, info, dims, call, needs, *tensors, *incoming)
        return list(found), list(dims)

    library = "attnc::" + name
    tags = (torch.Tag.pt2_compliant_tag,)
    torch.library.define(
        library,
        "(Tensor[] tensors, SymInt[] integers, float[] floats, str call) -> Tensor[]",
        tags=tags,
    )
    torch.library.impl(library, "default", value)
    torch.library.register_fake(library, value_shapes)
    torch.library.register_autograd(library, backward, setup_context=save)
    torch.library.register_vmap(library, value_batched)
    library += "_gradients"
    torch.library.define(
        library,
        "(Tensor[] tensors, Tensor?[] incoming, bool[] needs, SymInt[] integers, float[] floats, "
        "str call) -> Tensor[]",
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


def text_of(arguments: list[Any], options: dict[str, Any]) -> tuple[list[int], list[float], str]:
    """The arguments of a call, without its tensors, as numbers and as JSON for the rest.

    Written so that a compiler can run it, to which numbers may be symbols.

    Parameters
    ----------
    arguments : list
    options : dict

    Returns
    -------
    integers : list of int
    floats : list of float
    text : str
    """
    integers: list[int] = []
    floats: list[float] = []
    by_position = _encoded(arguments, integers, floats)
    by_name = [f'"{name}": {_encoded(x, integers, floats)}' for name, x in options.items()]
    return integers, floats, f"[{by_position}, {{{', '.join(by_name)}}}]"


def _encoded(x: Any, integers: list[Any], floats: list[Any]) -> str:
    if type(x) is Slot:
        return '{"tensor": ' + str(int(x)) + "}"
    if x is None:
        return "null"
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, (int, torch.SymInt)):
        if x >= 2**63:  # a key
            return str(x)
        integers.append(x)
        return '{"integer": ' + str(len(integers) - 1) + "}"
    if isinstance(x, (float, torch.SymFloat)):
        floats.append(x)
        return '{"float": ' + str(len(floats) - 1) + "}"
    if isinstance(x, str):
        return f'"{x}"' if x.isidentifier() else json.dumps(x)
    if isinstance(x, (list, tuple)):
        return "[" + ", ".join([_encoded(item, integers, floats) for item in x]) + "]"
    raise TypeError(
        "attnc.torch: options must be tensors, numbers, strings or sequences of them where a "
        f"program is traced, got {type(x).__name__}"
    )


def _decoded(x: Any, integers: Any, floats: Any) -> Any:
    if isinstance(x, dict):
        ((kind, index),) = x.items()
        return (
            Slot(index) if kind == "tensor" else (integers if kind == "integer" else floats)[index]
        )
    if isinstance(x, list):
        return [_decoded(item, integers, floats) for item in x]
    return x


# ---- the nest of the outputs, which a compiler has to make ---------------------------------------

_kinds: dict[str, Any] = {}  # named tuples by their names: no class can be a constant of a compiler


@torch.compiler.assume_constant_result
def _skeleton(name: str, text: str, ranks: tuple[int, ...]) -> Any:
    """How the outputs of a call are nested, with names in the place of classes."""

    def named(skeleton: Any) -> Any:
        if skeleton is None:
            return None
        kind, parts = skeleton
        known = "" if kind is None else f"{kind.__module__}.{kind.__qualname__}"
        _kinds.setdefault(known, kind)
        return known, tuple(map(named, parts))

    return named(Operators.known(name).skeleton(text, ranks))


@torch.compiler.assume_constant_result
def _require_no_forward_mode(name: str) -> bool:
    """Raise where tangents would be lost: PyTorch takes those of an operator for 0."""
    if forward_ad._current_level >= 0:
        raise NotImplementedError(
            f"{name}: has no forward mode where a program is traced (torch.compile, make_fx); "
            "call torch.func.jvp outside of what is compiled"
        )
    return True  # a compiler keeps no None


def run(operators: Operators, arguments: list[Any], options: dict[str, Any], tensors: Any) -> Any:
    """Call a function by its operator, in a way that a compiler can follow.

    Parameters
    ----------
    operators : Operators
    arguments : list
    options : dict
        Of a `Call`.
    tensors : list of Tensor

    Returns
    -------
    Tensor or named tuple of them

    Raises
    ------
    NotImplementedError
        In forward mode, of which operators have none.
    """
    _require_no_forward_mode(operators.name)
    integers, floats, text = text_of(arguments, options)
    outputs = operators.value(tensors, integers, floats, text)
    skeleton = _skeleton(operators.name, text, tuple([x.ndim for x in tensors]))
    return _nested(skeleton, iter(outputs))


def _nested(skeleton: Any, row: Any) -> Any:
    if skeleton is None:
        return next(row)
    name, parts = skeleton
    items = [_nested(part, row) for part in parts]
    return _kinds[name](*items) if name else tuple(items)

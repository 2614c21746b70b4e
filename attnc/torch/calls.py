"""One call of a function: its tensors in a row, and what stands around them.

PyTorch differentiates functions of tensors in a row. So a call is taken apart into its tensors and
a `Call`, which holds everything else and knows of each tensor which argument it is, or is in.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from attnc import _core
from attnc.registry import Record
from attnc.torch.arrays import array_of

__all__ = ["Call", "Slot", "filled", "flat", "limited", "nested", "split"]


class Slot(int):
    """The place of the tensor of this number."""


class Call:
    """A call without its tensors.

    Parameters
    ----------
    record : registry.Record
    arguments : list
        What was passed by position, a `Slot` for every tensor.
    options : dict
        What was passed by name, likewise.
    names : list of str
        The argument that each tensor is, or is in.
    paths : list of tuple of int
        Where in this argument it is.
    """

    __slots__ = (
        "arguments",
        "keeps",
        "kept",
        "key",
        "names",
        "options",
        "paths",
        "record",
        "skeleton",
    )

    def __init__(
        self,
        record: Record,
        arguments: list[Any],
        options: dict[str, Any],
        names: list[str],
        paths: list[tuple[int, ...]],
    ) -> None:
        self.record, self.arguments, self.options = record, arguments, options
        self.names, self.paths = names, paths
        self.skeleton: Any = None  # how the outputs are nested, once they are known
        self.keeps = False  # whether the forward pass shall leave what backward needs
        self.kept: Any = None  # that
        self.key = "none"  # of the random numbers: "none", "given" or "drawn"

    def arrays_of(self, tensors: Sequence[torch.Tensor | None]) -> list[Any]:
        """The arrays of the tensors, or of as many others that belong to them, None for None."""
        where = self.record.name
        return [
            None if tensor is None else array_of(where, name, tensor)
            for name, tensor in zip(self.names, tensors, strict=True)
        ]

    def bound(self, arrays: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the function, by position and by name."""
        arguments = [
            arrays[x] if type(x) is Slot else filled(x, arrays) for x in self.arguments
        ]
        if not self.options:
            return arguments, {}
        # A number in a tensor is a number: a length that is the size of another tensor.
        options = {
            name: _number(arrays[x]) if type(x) is Slot else filled(x, arrays)
            for name, x in self.options.items()
        }
        return arguments, options

    def tangents(self, arrays: list[Any]) -> dict[str, Any]:
        """The tangents by argument, nested like it, from those of the tensors in a row."""
        arguments = {**dict(zip(names_of(self.record.function), self.arguments)), **self.options}  # noqa: B905
        real = set(self.record.arrays)
        return {
            name: _only(x, arrays) for name, x in arguments.items() if name in real and any_slot(x)
        }

    def gradients(self, found: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
        """Those gradients of what a record's backward returned that are needed, in a row."""
        by_name = dict(zip(self.record.arrays, found))  # noqa: B905
        result = []
        for name, path, needed in zip(self.names, self.paths, needs, strict=True):
            if needed:
                gradient = by_name.get(name)
                for index in path:
                    gradient = None if gradient is None else gradient[index]
                result.append(gradient)
        return result

    def with_key(self, more: int) -> Call:
        """The same call with a key that is more by this; the call itself if it is not."""
        if not more:
            return self
        options = {**self.options, "rng": (self.options["rng"] + more) % 2**63}
        other = Call(self.record, self.arguments, options, self.names, self.paths)
        other.key, other.skeleton = self.key, self.skeleton
        return other

    # ---- outputs ----

    def leaf_names(self) -> list[str]:
        """The output that each array of the outputs in a row is, or is in."""
        if self.skeleton is None:
            return [self.record.incoming[0][1:]]
        return [
            name
            for name, part in zip(self.fields(), self.skeleton[1], strict=True)
            for _ in range(leaves(part))
        ]

    def fields(self) -> tuple[str, ...]:
        """The names of the outputs, where there are several."""
        kind, parts = self.skeleton
        names = getattr(kind, "_fields", None)
        return names or tuple(name[1:] for name in self.record.incoming[: len(parts)])

    def real_names(self) -> list[str]:
        """The names of those that have a gradient."""
        return [name for name in self.leaf_names() if "d" + name in self.record.incoming]

    def real(self) -> list[bool]:
        """Which of the outputs in a row have a gradient."""
        return ["d" + name in self.record.incoming for name in self.leaf_names()]

    def incoming(self, gradients: Sequence[Any]) -> tuple[Any, ...]:
        """What a record's backward takes, from the gradients of the real outputs in a row."""
        if self.skeleton is None:
            return (gradients[0], *self.record.others)
        names, each = self.leaf_names(), iter(gradients)
        real = ["d" + name in self.record.incoming for name in names]
        row = iter([next(each) if r else None for r in real])
        by_name = {}
        for name, part in zip(self.fields(), self.skeleton[1], strict=True):
            of_part = [next(row) for _ in range(leaves(part))]
            if any(x is not None for x in of_part):
                by_name["d" + name] = nested(part, iter(of_part))
        return tuple(by_name.get(name) for name in self.record.incoming)


def _number(array: Any) -> Any:
    """An integer of an array without axes; all else as it is."""
    if getattr(array, "ndim", 1) == 0 and array.dtype.kind in "iu":
        return int(array)
    return array


@functools.cache
def names_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the arguments of a function in their order."""
    return tuple(inspect.signature(function).parameters)


@functools.cache
def default_of(function: Callable[..., Any], name: str) -> Any:
    return inspect.signature(function).parameters[name].default


# ---- taking a call apart -------------------------------------------------------------------------


def split(
    record: Record, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Call, list[torch.Tensor]]:
    """A call and its tensors.

    Parameters
    ----------
    record : registry.Record
    args, options
        The arguments, by position and by name.

    Returns
    -------
    call : Call
    tensors : list of Tensor

    Raises
    ------
    TypeError
        If an array that has a gradient is given, but is no tensor; if a tensor wants a gradient
        where there is none.
    """
    tensors: list[torch.Tensor] = []
    names: list[str] = []
    paths: list[tuple[int, ...]] = []
    arguments = []
    for name, x in zip(names_of(record.function), args):  # noqa: B905
        if isinstance(x, torch.Tensor):
            arguments.append(Slot(len(tensors)))
            tensors.append(x)
            names.append(name)
            paths.append(())
        else:
            arguments.append(_taken(record, name, x, (), tensors, names, paths))
    arguments.extend(args[len(arguments) :])  # too many: the function says so
    if options:
        options = {
            name: _taken(record, name, x, (), tensors, names, paths) for name, x in options.items()
        }
    return Call(record, arguments, options, names, paths), tensors


def _taken(
    record: Record,
    name: str,
    x: Any,
    path: tuple[int, ...],
    tensors: list[torch.Tensor],
    names: list[str],
    paths: list[tuple[int, ...]],
) -> Any:
    """An argument, or a part of one, with its tensors taken out."""
    if isinstance(x, torch.Tensor):
        tensors.append(x)
        names.append(name)
        paths.append(path)
        if x.requires_grad and name not in record.arrays:
            raise TypeError(
                f"{record.name}: {name} must not require a gradient, for it has none; pass "
                f"{name}.detach()"
            )
        return Slot(len(tensors) - 1)
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    if isinstance(x, (list, tuple)):
        if name in record.arrays:
            return [
                _taken(record, name, item, (*path, k), tensors, names, paths)
                for k, item in enumerate(x)
            ]
        return x
    if name in record.arrays and isinstance(x, np.ndarray):
        shown = name + "".join(f"[{k}]" for k in path)
        raise TypeError(
            f"{record.name}: {shown} must be a tensor, got a NumPy array; torch.from_numpy makes "
            "one in its memory"
        )
    return x


# ---- nests of lists and tuples -------------------------------------------------------------------


def any_slot(x: Any) -> bool:
    """Whether there is a tensor in an argument."""
    return type(x) is Slot or isinstance(x, list) and any(map(any_slot, x))


def filled(x: Any, values: list[Any]) -> Any:
    """An argument with the values in the places of its tensors."""
    if type(x) is Slot:
        return values[x]
    if type(x) is list:
        return [filled(item, values) for item in x]
    return x


def _only(x: Any, values: list[Any]) -> Any:
    """The same, but None for what is no tensor; None where all is None."""
    if type(x) is Slot:
        return values[x]
    if type(x) is list:
        items = [_only(item, values) for item in x]
        return None if all(item is None for item in items) else items
    return None


def flat(output: Any) -> tuple[list[Any], Any]:
    """The outputs of a function in a row, and how they are nested."""
    if not isinstance(output, (tuple, list)):
        return [output], None
    row: list[Any] = []
    parts = []
    for item in output:
        items, part = flat(item)
        row += items
        parts.append(part)
    return row, (type(output), tuple(parts))


def leaves(skeleton: Any) -> int:
    """How many outputs there are in this nest."""
    return 1 if skeleton is None else sum(map(leaves, skeleton[1]))


def nested(skeleton: Any, row: Iterator[Any]) -> Any:
    """What `flat` took apart, with these outputs."""
    if skeleton is None:
        return next(row)
    kind, parts = skeleton
    items = [nested(part, row) for part in parts]
    return kind._make(items) if hasattr(kind, "_make") else kind(items)


# ---- running it ----------------------------------------------------------------------------------


def limited(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function on no more threads than PyTorch is allowed."""
    threads = torch.get_num_threads()
    if threads >= _core.get_num_threads():
        return function(*args, **options)
    before = _core.set_thread_limit(threads)
    try:
        return function(*args, **options)
    finally:
        _core.set_thread_limit(before)

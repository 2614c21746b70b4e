"""One call of a function: its tensors in a row, and what stands around them.

PyTorch differentiates functions of tensors in a row. So a call is taken apart into its tensors and
a `Call`, which holds everything else and knows of each tensor which argument it is, or is in.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from attnc import _core
from attnc.registry import Output, Record
from attnc.torch.arrays import array_of, require_dense

__all__: list[str] = []


class Slot(int):
    """The place of the tensor of this number."""


_slots = [Slot(k) for k in range(32)]  # of tensors by position, to have them at hand
_Tensor = torch.Tensor
CONSTANTS = frozenset((type(None), bool, int, float, str))


class Call:
    """A call without its tensors.

    Parameters
    ----------
    record : registry.Record
    arguments : list
        What was passed by position, a `Slot` for every tensor; a tensor may be in nested lists.
    options : dict
        What was passed by name, likewise.
    """

    # What most calls leave as it is belongs to the class: a call in PyTorch makes one of these.
    places: list[tuple[str, tuple[int, ...]]] | None = None
    simple = False  # whether its tensors are known to be all its arguments, constants its options
    plain = True  # whether no tensor is of a class that has operators of its own
    key = "none"  # of the random numbers: "none", "given" or "drawn"
    skeleton: Any = None  # how the outputs are nested, once they are known

    def __init__(self, record: Record, arguments: list[Any], options: dict[str, Any]) -> None:
        self.record, self.arguments, self.options = record, arguments, options

    # ---- arguments ----

    def slots(self) -> list[tuple[str, tuple[int, ...]]]:
        """Of each tensor the argument that it is, or is in, and where in this it is."""
        if self.places is None:
            self.places = []
            by_position = zip(names_of(self.record), self.arguments)  # noqa: B905
            for name, x in [*by_position, *self.options.items()]:
                self.places += [(name, path) for path in _paths(x, ())]
        return self.places

    @property
    def names(self) -> list[str]:
        """list of str: of each tensor the argument that it is, or is in."""
        return [name for name, _ in self.slots()]

    def arrays_of(self, tensors: Sequence[torch.Tensor | None]) -> list[Any]:
        """The arrays of the tensors, or of as many others that belong to them, None for None."""
        try:
            return [tensor.numpy() for tensor in tensors]  # type: ignore[union-attr]
        except (AttributeError, TypeError, RuntimeError):  # some are not as simple
            where, names = self.record.name, itertools.chain(self.names, itertools.repeat("saved"))
            return [
                None if tensor is None else array_of(where, name, tensor)
                for name, tensor in zip(names, tensors)  # noqa: B905
            ]

    def bound(self, arrays: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the function, by position and by name."""
        if self.simple:
            return arrays, self.options
        arguments = [filled(x, arrays) for x in self.arguments]
        # A number in a tensor is a number: a length that is the size of another tensor.
        options = {
            name: _number(arrays[x]) if type(x) is Slot else filled(x, arrays)
            for name, x in self.options.items()
        }
        return arguments, options

    def tangents(self, arrays: list[Any]) -> dict[str, Any]:
        """The tangents by argument, nested like it, from those of the tensors in a row."""
        named = [*zip(names_of(self.record), self.arguments), *self.options.items()]  # noqa: B905
        return {name: _only(x, arrays) for name, x in named if name in self.record.arrays}

    def gradients(self, found: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
        """Those gradients of what a record's backward returned that are needed, in a row."""
        by_name = dict(zip(self.record.arrays, found))  # noqa: B905
        if self.simple:
            each = zip(names_of(self.record), needs)  # noqa: B905
            return [by_name.get(name) for name, needed in each if needed]
        result = []
        for (name, path), needed in zip(self.slots(), needs, strict=True):
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
        other = Call(self.record, self.arguments, options)
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
    if type(array) is np.ndarray and array.ndim == 0 and array.dtype.kind in "iu":
        return int(array)
    return array


_names: dict[Callable[..., Any], tuple[str, ...]] = {}
_leading: dict[Callable[..., Any], int] = {}  # how many of the first ones have a gradient


def names_of(record: Record) -> tuple[str, ...]:
    """The names of the arguments of a function in their order.

    Parameters
    ----------
    record : registry.Record

    Returns
    -------
    tuple of str
    """
    names = _names.get(record.function)
    if names is None:
        names = _names[record.function] = tuple(inspect.signature(record.function).parameters)
        own = [name in record.arrays for name in names]
        _leading[record.function] = (*own, False).index(False)
    return names


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
    names = names_of(record)
    tensors = [x for x in args if type(x) is _Tensor]
    if len(tensors) == len(args) <= min(_leading[record.function], len(_slots)):  # in less time
        call = Call(record, _slots[: len(args)], options)
        call.simple = True
    else:
        tensors = []
        call = Call(record, [], options)
        for name, x in zip(names, args):  # noqa: B905
            call.arguments.append(_taken(call, name, x, (), tensors))
        call.arguments += args[len(names) :]  # too many: the function says so
    for x in options.values():
        if type(x) not in CONSTANTS:
            call.simple = False
            call.options = {name: _taken(call, name, x, (), tensors) for name, x in options.items()}
            break
    return call, tensors


def _taken(
    call: Call, name: str, x: Any, path: tuple[int, ...], tensors: list[torch.Tensor]
) -> Any:
    """An argument, or a part of one, with its tensors taken out."""
    if isinstance(x, torch.Tensor):
        if x.requires_grad and name not in call.record.arrays:
            raise TypeError(
                f"{call.record.name}: {name} must not require a gradient, for it has none; pass "
                f"{name}.detach()"
            )
        if type(x).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
            require_dense(call.record.name, name, x)
            call.plain = False
        tensors.append(x)
        return Slot(len(tensors) - 1)
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    if name not in call.record.arrays:
        return x
    if isinstance(x, (list, tuple)):
        return [_taken(call, name, item, (*path, k), tensors) for k, item in enumerate(x)]
    shown = name + "".join(f"[{k}]" for k in path)
    if isinstance(x, np.ndarray):
        raise TypeError(
            f"{call.record.name}: {shown} must be a tensor, got a NumPy array; torch.from_numpy "
            "makes one in its memory"
        )
    if isinstance(x, (Mapping, torch.nn.ParameterDict)):
        raise TypeError(
            f"{call.record.name}: {shown} must be a sequence of tensors, got {type(x).__name__}; "
            f"pass {shown}.values()"
        )
    if isinstance(x, Iterable) and not hasattr(x, "dtype"):  # a ParameterList, model.parameters()
        return _taken(call, name, list(x), path, tensors)
    return x


# ---- nests of lists and tuples -------------------------------------------------------------------


def _paths(x: Any, path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Where the tensors in an argument are."""
    if type(x) is Slot:
        yield path
    elif type(x) is list:
        for k, item in enumerate(x):
            yield from _paths(item, (*path, k))


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
    """The outputs of a function, or what describes them, in a row, and how they are nested."""
    if not isinstance(output, (tuple, list)) or isinstance(output, Output):
        return [output], None
    row: list[Any] = []
    parts = []
    for item in output:
        items, part = flat(item)
        row += items
        parts.append(part)
    kind = type(output) if hasattr(output, "_fields") else None
    return row, (kind, tuple(parts))


def leaves(skeleton: Any) -> int:
    """How many outputs there are in this nest."""
    return 1 if skeleton is None else sum(map(leaves, skeleton[1]))


def nested(skeleton: Any, row: Iterator[Any]) -> Any:
    """What `flat` took apart, with these outputs."""
    if skeleton is None:
        return next(row)
    kind, parts = skeleton
    items = [nested(part, row) for part in parts]
    return tuple(items) if kind is None else kind(*items)


# ---- running it ----------------------------------------------------------------------------------


_threads, _own_threads = torch.get_num_threads, _core.get_num_threads


def limited(function: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]) -> Any:
    """Call a function on no more threads than PyTorch is allowed.

    Parameters
    ----------
    function : callable
    arguments : sequence
    options : dict

    Returns
    -------
    object
        What the function returns.
    """
    threads = _threads()
    if threads >= _own_threads():
        return function(*arguments, **options)
    before = _core.set_thread_limit(threads)
    try:
        return function(*arguments, **options)
    finally:
        _core.set_thread_limit(before)

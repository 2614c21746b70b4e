"""vmap: a batched axis becomes one of the function's own axes, and no loop runs.

A function whose arrays broadcast over leading axes gets one more in front of all of them. Where
there is one batch axis instead, the batched axis is folded into it. A parameter has neither and is
the same for all examples; if it is batched, or each example wants its own gradient of it, the
examples are computed one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from attnc.torch.calls import Call

__all__: list[str] = []


class _Entry(NamedTuple):
    """One of the tensors that are batched, or not."""

    tensor: torch.Tensor | None
    dim: int | None  # where its examples are
    name: str  # of the argument or output that it belongs to
    slot: int | None  # the number of the tensor of the call that it belongs to; None: an output's
    primal: bool  # whether it is that tensor itself


def batched(
    run: Callable[..., tuple[Any, ...]],
    rows: tuple[tuple[str, ...], str],
    info: Any,
    in_dims: tuple[Any, ...],
    call: Call,
    needs: Sequence[bool] | None,
    *row: torch.Tensor | None,
) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """The results of all examples, and where their axis is in them.

    Parameters
    ----------
    run : callable
        ``run(call, needs, *row)`` for tensors that are not batched.
    rows : tuple
        What each row belongs to, "tensors" or "outputs", and what is returned.
    info : object
        Of torch.func.vmap: batch_size and randomness.
    in_dims : tuple of (int or None)
        Of all arguments that follow.
    call : Call
    needs : sequence of bool or None
        Which gradients are returned.
    *row : Tensor or None

    Returns
    -------
    results : tuple of Tensor
    out_dims : tuple of int

    Raises
    ------
    RuntimeError
        If random numbers are drawn, and vmap was not told how.
    """
    size, kinds, returned = info.batch_size, *rows
    entries = list(_entries(call, kinds, row, in_dims[2:]))
    wanted = {k for k, need in enumerate(needs or ()) if need} if returned == "gradients" else set()
    moving = wanted | {e.slot for e in entries if e.slot is not None and e.dim is not None}
    keys, one_by_one = _keys(call, info, entries)
    place = _places(call)
    if one_by_one or any(place(name) is None for name in (call.names[slot] for slot in moving)):
        return _one_by_one(run, keys, entries, call, needs)
    if call.record.leading:
        first = entries[0].tensor
        leading = first.ndim - (entries[0].dim is not None) - 2  # then come time and feature
        moving |= {k for k, name in enumerate(call.names) if name in call.record.required}
        moved = [_in_front(size, e, e.slot in moving, leading, place(e.name)) for e in entries]
    else:
        if any(e.dim is not None and e.tensor.ndim == 1 for e in entries):  # a number for each
            return _one_by_one(run, keys, entries, call, needs)
        moved = [_folded(size, e, place(e.name)) for e in entries]
    results = run(call, needs, *moved)
    names = {
        "outputs": call.leaf_names,
        "real outputs": call.real_names,
        "gradients": lambda: [call.names[k] for k in sorted(wanted)],
    }[returned]()
    if call.record.leading:
        # What had no axes was given those of all, of size 1.
        examples = {e.slot: e for e in entries if e.primal}
        for k, slot in enumerate(sorted(wanted)):
            if examples[slot].tensor.ndim == (examples[slot].dim is not None):
                results = (*results[:k], results[k].reshape(size), *results[k + 1 :])
        return results, (0,) * len(results)
    axes = [place(name) % x.ndim for name, x in zip(names, results, strict=True)]
    unfolded = [
        x.unflatten(axis, (size, x.shape[axis] // size))
        for x, axis in zip(results, axes, strict=True)
    ]
    return tuple(unfolded), tuple(axes)


def _entries(call: Call, kinds: Sequence[str], row: Sequence[Any], dims: Sequence[Any]) -> Any:
    """All tensors, with what they belong to."""
    at, first = 0, True
    slots: list[int | None]
    for kind in kinds:
        if kind == "tensors":
            names = call.names
            slots = [*range(len(names))]
        else:
            names = call.real_names()
            slots = [None] * len(names)
        for name, slot in zip(names, slots, strict=True):
            x, dim = row[at], dims[at]
            yield _Entry(x, None if x is None else dim, name, slot, first)
            at += 1
        first = False


def _keys(call: Call, info: Any, entries: list[_Entry]) -> tuple[list[int], bool]:
    """What is added to the key of each example, and whether they must be computed one by one.

    A key that was given is that of every example. One that was drawn is one for each, if the call
    itself is in the vmap, and not its derivatives alone.
    """
    same = [0] * info.batch_size
    if call.key == "none":
        return same, False
    inside = any(e.primal and e.dim is not None for e in entries)
    if inside and call.key == "drawn":
        if info.randomness == "error":
            raise RuntimeError(
                f"vmap: {call.record.name} draws random numbers; call vmap with "
                "randomness='different' or randomness='same'"
            )
        if info.randomness == "different":
            return list(range(info.batch_size)), not set(call.names) <= set(call.record.leading)
    return same, True


def _places(call: Call) -> Callable[[str], int | None]:
    """Where the examples go, by the name of an argument or output; None where they cannot."""
    record = call.record
    if not record.leading:
        return record.batch_axes.get
    return lambda name: None if name in call.names and name not in record.leading else 0


def _in_front(
    size: int, e: _Entry, moves: bool, leading: int, axis: int | None
) -> torch.Tensor | None:
    """The tensor with the examples, each the same if it is not batched, in front."""
    if e.tensor is None or axis is None:
        return e.tensor
    x, batched = e.tensor, e.dim is not None
    short = x.ndim - batched == 0 or e.name == "position" and x.ndim - batched == 1
    if short and not batched and e.slot is not None and not moves:
        return x  # a number, or the positions of rotary, is that of all
    x = x.movedim(e.dim, 0) if e.dim is not None else x.expand(size, *x.shape)
    return x.reshape(size, *[1] * leading, *x.shape[1:]) if short and leading > 0 else x


def _folded(size: int, e: _Entry, axis: int | None) -> torch.Tensor | None:
    """The tensor with the examples folded into its batch axis."""
    if e.tensor is None or axis is None or e.dim is None and e.tensor.ndim == 0:
        return e.tensor
    shape = e.tensor.shape
    if axis < 0:
        axis += len(shape) - (e.dim is not None)
    if e.dim is None:
        x = e.tensor.unsqueeze(axis).expand(*shape[:axis], size, *shape[axis:])
    else:
        x = e.tensor.movedim(e.dim, axis)
    return x.flatten(axis, axis + 1)


def _example(e: _Entry, k: int) -> torch.Tensor | None:
    return e.tensor if e.tensor is None or e.dim is None else e.tensor.select(e.dim, k)


def _one_by_one(
    run: Any, keys: list[int], entries: list[_Entry], call: Call, needs: Any
) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """Every example for itself."""
    if not keys:
        raise ValueError(
            f"vmap: {call.record.name} must get at least one example here, where they are computed "
            "one by one, got none"
        )
    each = [
        run(
            call.with_key(key),
            needs,
            *[_example(e, k) for e in entries],
        )
        for k, key in enumerate(keys)
    ]
    return tuple(torch.stack(x) for x in zip(*each, strict=True)), (0,) * len(each[0])

"""A function of tensors from the record of a function of arrays, by the shortest way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from attnc.gradients import result_type
from attnc.registry import Record, record_of
from attnc.torch.arrays import tensor_of
from attnc.torch.calls import Call, default_of, flat, limited, names_of, nested, split
from attnc.torch.functions import Value

__all__ = ["wrap"]

_PLAIN = {torch.Tensor, torch.nn.Parameter}


def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of tensors that belongs to a function of arrays.

    Parameters
    ----------
    function : callable
        A function of attnc, or one of your own after `attnc.registry.register`.

    Returns
    -------
    callable
        It takes the same arguments.

    Raises
    ------
    TypeError
        If there is no record of it.
    """
    record = record_of(function)
    if record is None:
        name = getattr(function, "__name__", None) or type(function).__name__
        raise TypeError(
            f"wrap: function must be one of attnc's, or one of your own after "
            f"attnc.registry.register, got {name}"
        )

    @functools.wraps(function)
    def on_tensors(*args: Any, **options: Any) -> Any:
        return _run(record, args, options)

    on_tensors.__module__ = "attnc.torch"
    return on_tensors


def _run(record: Record, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    call, tensors = split(record, args, options)
    if "rng" in names_of(record.function):
        _draw(call)
    transformed = torch._C._are_functorch_transforms_active()
    if transformed or _differentiates(tensors):
        call.keeps = not transformed
        row = iter(Value.run(call, None, *tensors))
        return nested(call.skeleton, row)
    arguments, options = call.bound(call.arrays_of(tensors))
    output = limited(record.function, *arguments, **options)
    if type(output) is np.ndarray:
        return tensor_of(output)
    outputs, skeleton = flat(output)
    return nested(skeleton, map(tensor_of, outputs))


def _differentiates(tensors: list[torch.Tensor]) -> bool:
    """Whether PyTorch will ask for a derivative."""
    if forward_ad._current_level >= 0:
        return True
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return True
    return False


def _draw(call: Call) -> None:
    """Let the key of the random numbers, if there will be any, be a number from here on.

    PyTorch's generator draws it, once, so that `torch.manual_seed` and checkpoints know it.
    """
    names, options = names_of(call.record.function), call.options
    if "dropout" in names:
        draws = options.get("dropout", 0.0)
    else:
        draws = options.get("sample", True) is True and options.get("index") is None
    if not isinstance(draws, (bool, int, float)) or not draws:
        return
    rng = options.get("rng", default_of(call.record.function, "rng"))
    if rng is None or isinstance(rng, torch.Generator):
        call.options = {**options, "rng": _key(rng)}
        call.key = "drawn"
    elif isinstance(rng, np.random.Generator):
        call.options = {**options, "rng": int(rng.integers(2**64, dtype=np.uint64))}
        call.key = "drawn"
    else:
        call.key = "given"


def _key(generator: torch.Generator | None) -> int:
    """63 random bits."""
    if torch._C._are_functorch_transforms_active():
        with torch._C._DisableFuncTorch():  # one number, whatever vmap makes of it: see batching
            return _key_of(generator)
    return _key_of(generator)


def _key_of(generator: torch.Generator | None) -> int:
    return int(torch.randint(2**63 - 1, (), generator=generator))

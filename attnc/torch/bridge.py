"""A function of tensors from the record of a function of arrays, by the shortest way."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from attnc.arrays import plain_array
from attnc.registry import Record, record_of
from attnc.torch.arrays import require_dense, tensor_of
from attnc.torch.calls import CONSTANTS, Call, flat, limited, names_of, nested, split
from attnc.torch.functions import Value, eager
from attnc.torch.operators import Operators, run

__all__ = ["wrap"]

_DOC = """`attnc.{name}` on PyTorch tensors: where that says array, it is a tensor here.

{doc}"""

_Tensor = torch.Tensor
_grad_enabled = torch.is_grad_enabled
_trace = torch._C._get_tracing_state
_dispatch_modes = torch._C._len_torch_dispatch_stack
_transforms_active = torch._C._are_functorch_transforms_active


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
            "wrap: function must be one of attnc's, or one of your own after "
            f"attnc.registry.register, got {name}"
        )
    operators = Operators(record)
    name, draws = record.name, "rng" in names_of(record)
    always = draws and _will_draw(record, {})  # unless an option says otherwise

    def on_tensors(*args: Any, **options: Any) -> Any:
        # torch.jit.trace would take what is no operator for a constant.
        if is_compiling() or _dispatch_modes() or _trace() is not None:
            return _traced(operators, draws, args, options)
        # The same as below, in less time.
        if not (always or _transforms_active()) and (not options or _are_constant(options)):
            wanted = _grad_enabled()
            for x in args:
                if type(x) is not _Tensor or wanted and x.requires_grad:
                    break
            else:
                try:
                    arrays = [x.numpy() for x in args]
                except (TypeError, RuntimeError):
                    arrays = []
                if arrays and forward_ad._current_level < 0:
                    return _on_arrays(record, arrays, options)
        active = _transforms_active()
        if active:
            args, options = _as_tensors(record, args, options, _copied)
        call, tensors = split(record, args, options)
        if not call.plain:
            arguments, options = call.bound(tensors)  # what was given may be an iterator
            return _traced(operators, draws, tuple(arguments), options)
        if draws and (options or always):
            _draw(call)
        if active:
            for argument, tensor in zip(call.names, tensors, strict=True):
                require_dense(name, argument, tensor)
            outputs = Value.run(call, None, *tensors)
            return nested(call.skeleton, iter(outputs))
        if not _differentiates(tensors):
            arguments, options = call.bound(call.arrays_of(tensors))
            return _on_arrays(record, arguments, options)
        outputs = eager(call, *tensors)
        return outputs if call.skeleton is None else nested(call.skeleton, iter(outputs))

    functools.update_wrapper(on_tensors, function)
    on_tensors.__module__ = "attnc.torch"
    if function.__doc__:  # there is none under python -OO
        on_tensors.__doc__ = _DOC.format(name=name, doc=inspect.cleandoc(function.__doc__))
    return on_tensors


def _are_constant(options: dict[str, Any]) -> bool:
    """Whether options have nothing to be taken out, and nothing is drawn by them."""
    for name, x in options.items():
        if type(x) not in CONSTANTS or name == "dropout":
            return False
    return True


def _differentiates(tensors: list[torch.Tensor]) -> bool:
    """Whether PyTorch may ask for a derivative."""
    if _grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return True
    return forward_ad._current_level >= 0


def _on_arrays(record: Record, arguments: list[Any], options: dict[str, Any]) -> Any:
    """The call for its own sake."""
    output = limited(record.function, arguments, options)
    if type(output) is np.ndarray:
        return tensor_of(output)
    outputs, skeleton = flat(output)
    return nested(skeleton, map(tensor_of, outputs))


# ---- where a program is transformed ------------------------------------------------------------


def _as_tensors(
    record: Record,
    args: tuple[Any, ...],
    options: dict[str, Any],
    make: Callable[[str, str, Any], Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with tensors, made by `make`, for masks, lengths and other arrays of numbers.

    vmap has an axis to give to tensors, and to nothing else.
    """

    def made(name: str, x: Any) -> Any:
        if name in record.fixed:
            numbers = isinstance(x, (np.ndarray, list, tuple))
        else:  # a real array is a tensor, or a list, of numbers or of tensors
            lists = make is _copied and name in record.arrays and isinstance(x, (list, tuple))
            numbers = lists and _are_numbers(x)
        return make(record.name, name, x) if numbers else x

    given = [made(name, x) for name, x in zip(names_of(record), args)]  # noqa: B905
    named = {name: made(name, x) for name, x in options.items()}
    return (*given, *args[len(given) :]), named


def _are_numbers(x: Any) -> bool:
    """Whether lists within each other hold numbers alone."""
    if isinstance(x, (list, tuple)):
        return all(map(_are_numbers, x))
    return isinstance(x, (bool, int, float, np.generic))


def _copied(where: str, name: str, x: Any) -> Any:
    """A tensor of an array in any layout, or of lists; x itself if it is not of numbers."""
    if isinstance(x, (list, tuple)) and any(isinstance(item, _Tensor) for item in x):
        raise TypeError(
            f"{where}: {name} must be a tensor or numbers, got a list of tensors; torch.stack "
            "makes one of them"
        )
    array = plain_array(where, name, x)
    if array.dtype.kind not in "biuf":  # the function says so by name
        return x
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))


def _followed(where: str, name: str, x: Any) -> torch.Tensor:
    """The same, in a way that a compiler can follow."""
    return torch.as_tensor(x)


# ---- where a program is traced -------------------------------------------------------------------


def _traced(
    operators: Operators, draws: bool, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """The call by operators, in a way that a compiler can follow."""
    if draws and _will_draw(operators.record, options):
        # Drawn by an operator of PyTorch: compilers and checkpoints know how to repeat that.
        rng = options.get("rng")
        if rng is None or isinstance(rng, torch.Generator):
            options = {**options, "rng": torch.randint(_KEYS, (), generator=rng)}
        elif isinstance(rng, np.random.Generator):
            options = {**options, "rng": int(rng.integers(_KEYS))}
    args, options = _as_tensors(operators.record, args, options, _followed)
    options = {name: _constant(x) for name, x in options.items()}
    call, tensors = split(operators.record, args, options)
    return run(operators, call.arguments, call.options, tensors)


def _constant(x: Any) -> Any:
    """An option of NumPy's as a tensor or as a number."""
    if isinstance(x, np.ndarray):
        return torch.as_tensor(x)
    return x.item() if isinstance(x, np.generic) else x


# ---- the key of random numbers -------------------------------------------------------------------

_KEYS = 2**63 - 1  # there are so many of them


def _will_draw(record: Record, options: dict[str, Any]) -> bool:
    """Whether a call with these options draws random numbers."""
    if "dropout" in names_of(record):
        rate = options.get("dropout", 0.0)
        return isinstance(rate, (int, float)) and rate != 0
    return options.get("sample", True) is True and options.get("index") is None


def _draw(call: Call) -> None:
    """Let the key of a call that draws random numbers be known from here on.

    PyTorch's generator draws it, so that `torch.manual_seed` and checkpoints know it; and once, for
    all derivatives.
    """
    if not _will_draw(call.record, call.options):
        return
    rng = call.options.get("rng")
    call.key = "drawn"
    if rng is None or isinstance(rng, torch.Generator):
        call.options = {**call.options, "rng": _key(rng)}
    elif isinstance(rng, np.random.Generator):
        call.options = {**call.options, "rng": int(rng.integers(_KEYS))}
    else:
        call.key = "given"


def _key(generator: torch.Generator | None) -> int:
    if _transforms_active():
        with torch._C._DisableFuncTorch():  # one key; `batching` makes of it what vmap was told
            return int(torch.randint(_KEYS, (), generator=generator))
    return int(torch.randint(_KEYS, (), generator=generator))

"""How a program reaches attnc: calls of its handlers, and the function that one of them calls.

Attention functions run in C alone (`attnc.jax._attention`), but for forward mode over forward mode.
All others run in Python, under the GIL, on NumPy arrays that are views of XLA's buffers: that costs
about 40 us more a call, and calls of one process run one after the other as far as they are Python.
JAX is never called from there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from attnc import _core
from attnc.jax._calls import Call

__all__ = ["axes_of", "call_in_c", "call_in_python", "register_handlers", "zeros_where_none"]

_lock = threading.Lock()
_registered = False


def register_handlers() -> None:
    """Tell XLA of the handlers, once; and them of what to run in Python."""
    global _registered
    with _lock:
        if _registered:
            return
        for name, capsule in _core.jax_handlers().items():
            jax.ffi.register_ffi_target(name, capsule, platform="cpu")
        _core.jax_callback(_run)
        _registered = True


def call_in_c(target: str, results: Sequence[Any], arguments: Sequence[Any], **how: Any) -> Any:
    """Let a handler compute arrays.

    Parameters
    ----------
    target : str
        Its name.
    results : sequence of jax.ShapeDtypeStruct
    arguments : sequence of jax.Array
    **how
        Attributes: strings, NumPy scalars and arrays.

    Returns
    -------
    list of jax.Array
    """
    like = axes_of(map(jax.typeof, arguments))
    wanted = [jax.ShapeDtypeStruct(x.shape, x.dtype, **like) for x in results]
    return list(jax.ffi.ffi_call(target, wanted, vmap_method="sequential")(*arguments, **how))


def axes_of(types: Iterable[Any]) -> dict[str, Any]:
    """Under `shard_map`, how results differ over devices: as the arguments do, which are alike."""
    for of_argument in types:
        axes = getattr(of_argument, "mat", None)
        if axes is not None and not axes.empty:
            mesh, every = jax.sharding.get_abstract_mesh(), jax.sharding.PartitionSpec()
            sharding = jax.sharding.NamedSharding(mesh, every)
            return {"sharding": sharding, "manual_axis_type": axes}
    return {}


# ---- in Python ----

_jobs: dict[str, tuple[Callable[..., Any], tuple[np.dtype[Any], ...]]] = {}


def call_in_python(
    call: Call,
    what: str,
    function: Callable[..., Any],
    results: Sequence[Any],
    arguments: Sequence[Any],
) -> Any:
    """Let a function of NumPy arrays compute arrays.

    Parameters
    ----------
    call : Call
    what : str
        What of the call it does: with that and the call's digest the program finds it, today and
        from a program that was kept on disk.
    function : callable
        ``function(*arguments)`` returns a sequence of arrays.
    results : sequence of jax.ShapeDtypeStruct
    arguments : sequence of jax.Array

    Returns
    -------
    list of jax.Array
    """
    name = f"{call.record.name} {what} {call.digest}"
    dtypes = tuple(np.dtype(x.dtype) for x in (*arguments, *results))
    _jobs[name] = function, dtypes
    return call_in_c("attnc_python", results, arguments, call=name)


def _run(name: str, arguments: tuple[np.ndarray, ...], results: tuple[np.ndarray, ...]) -> None:
    """What the handler calls; an exception becomes an error of JAX with its text."""
    try:
        function, dtypes = _jobs[name]
    except KeyError:
        raise RuntimeError(
            f"{name.partition(' ')[0]}: the program must be traced in the process that runs it"
        ) from None
    if len(dtypes) != len(arguments) + len(results):
        raise RuntimeError(f"{name.partition(' ')[0]}: the program must have its own arrays")
    # bfloat16 comes as its bits
    views = [
        x if x.dtype == dtype else x.view(dtype)
        for x, dtype in zip((*arguments, *results), dtypes, strict=True)
    ]
    found = function(*views[: len(arguments)])
    for result, value in zip(views[len(arguments) :], found, strict=True):
        value = np.asarray(value)
        if value.shape != result.shape:
            raise RuntimeError(
                f"{name.partition(' ')[0]}: its record must say what it returns, got "
                f"{value.shape} for {result.shape}"
            )
        np.copyto(result, value, casting="same_kind")


def zeros_where_none(values: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """The values, with an array of zeros where one is None.

    Parameters
    ----------
    values : sequence of ndarray or None
    like : sequence of jax.ShapeDtypeStruct

    Returns
    -------
    list of ndarray
    """
    return [
        np.zeros(x.shape, x.dtype) if value is None else value
        for value, x in zip(values, like, strict=True)
    ]

"""The functions of attnc on arrays of JAX, as JAX's own.

Every function that has a record (`attnc.registry`) is here under its name, with its arguments; it
takes and returns arrays of JAX and goes under `jit`, `grad`, `jvp`, `vmap`, `jax.hessian`, inside
`lax.scan`, `jax.checkpoint` and `jax.shard_map`, on the CPU:

>>> import jax, attnc.jax
>>> query = key = value = jax.numpy.ones((2, 3, 4))
>>> context = jax.jit(attnc.jax.dot_product_attention)(query, key, value)
>>> context.shape
(2, 3, 4)

Arrays, masks, lengths and keys of random numbers are operands, which may be traced; every other
option is part of the program. `rng` is a key of JAX or an integer in 0..2**64-1, attnc's own key;
nothing is drawn without one. All arrays of a call have one dtype: float32; float64 where JAX has
it on (``jax_enable_x64``); float16 or bfloat16, computed in float32. Errors are attnc's: those of
shapes and options come while JAX traces, those of values, such as a length, as errors of JAX when
the program runs.

The attention functions and their scores run without Python's GIL, on XLA's threads, in all
derivatives but those by forward over forward mode. All others run in Python, on NumPy arrays, with
some 40 us more a call, and run their forward pass again in the backward one.

Under `vmap` the new axis becomes one more leading axis, or part of the batch; a loop goes over it
where that would not be the same: over parameters, over keys of dropout, and for gradients of
parameters for each element. Derivatives are of first and second order, in any order of forward and
reverse mode; forward over forward mode is by plain formulas in Python, of attention too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from attnc import registry

try:
    import jax
except ImportError as error:
    raise ImportError(
        "attnc.jax: JAX must be installed, got no module of that name; pip install jax"
    ) from error

from attnc.jax import _foreign as foreign
from attnc.jax._calls import bind
from attnc.jax._primitives import run

__all__ = ["of"]

foreign.register_handlers()


def of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function on arrays of JAX.

    Parameters
    ----------
    function : callable
        A function of attnc, or one of your own after `attnc.registry.register`, with `outputs`.

    Returns
    -------
    callable
        It takes the same arguments.

    Raises
    ------
    TypeError
        If the function is not registered.

    Examples
    --------
    >>> import attnc, attnc.jax
    >>> attnc.jax.of(attnc.attend) is attnc.jax.attend
    True
    """
    if registry.record_of(function) is None:
        name = getattr(function, "__name__", type(function).__name__)
        raise TypeError(
            f"of: function must be one of attnc or registered, got {name}; see "
            "attnc.registry.register"
        )
    return _bridged(function)


@functools.cache
def _bridged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def bridged(*args: Any, **options: Any) -> Any:
        record = registry.record_of(function)
        assert record is not None  # nobody is forgotten
        call, operands = bind(record, args, options)
        _require_cpu(record.name, operands)
        return jax.tree.unflatten(call.output_tree, run(call, operands))

    bridged.__module__ = __name__
    return bridged


def _require_cpu(name: str, operands: list[Any]) -> None:
    """Refuse arrays that lie elsewhere; XLA itself refuses a program for another platform."""
    for operand in operands:
        if not isinstance(operand, jax.core.Tracer):
            platforms = {device.platform for device in operand.devices()}
            if platforms != {"cpu"}:
                raise TypeError(
                    f"{name}: arrays must be on the CPU, got one on {', '.join(platforms)}; "
                    "jax.device_put(x, jax.devices('cpu')[0]) takes it there"
                )


def __getattr__(name: str) -> Any:
    for record in registry.records():
        if record.name == name:
            return of(record.function)
    raise AttributeError(f"module 'attnc.jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(record.name for record in registry.records())})

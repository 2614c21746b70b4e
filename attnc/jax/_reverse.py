"""The same without hijax: reverse mode alone, by `jax.custom_vjp`, and loops under `vmap`.

For a JAX that has no `jax.experimental.hijax.VJPHiPrimitive`. Forward mode, and with it
`jax.hessian`, raise by name.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from attnc.jax import _passes as passes
from attnc.jax._calls import Call

__all__ = ["run"]


def run(call: Call, operands: Sequence[Any]) -> Sequence[Any]:
    """The outputs of a call, flat.

    Parameters
    ----------
    call : Call
    operands : sequence of jax.Array

    Returns
    -------
    sequence of jax.Array
    """
    try:
        return _run(call, *operands)
    except (TypeError, ValueError) as error:  # whichever of its rules JAX comes to first
        if "forward-mode" not in str(error) and "cannot be differentiated" not in str(error):
            raise
        raise NotImplementedError(
            f"{call.record.name}: forward mode and second derivatives need a JAX with "
            f"jax.experimental.hijax, 0.10.2 or later, got {jax.__version__}"
        ) from error


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(call: Call, *operands: Any) -> tuple[Any, ...]:
    return tuple(passes.forward(call, operands, save=False))


def _forward(call: Call, *operands: Any) -> tuple[tuple[Any, ...], Any]:
    found = passes.forward(call, operands, save=True)
    outputs, saved = found[: len(call.outputs)], found[len(call.outputs) :]
    kept = [outputs[k] for k in passes.kept_outputs(call)] + saved
    return tuple(outputs), (operands, kept)


def _backward(call: Call, residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    operands, kept = residuals
    incoming = {k: cotangents[k] for k in call.real_outputs}
    found = passes.backward(call, operands, incoming, kept, call.real)
    by_number = dict(zip(call.real, found, strict=True))
    return tuple(
        by_number[k] if k in by_number else np.zeros(x.shape, jax.dtypes.float0)
        for k, x in enumerate(operands)
    )


_run.defvjp(_forward, _backward)

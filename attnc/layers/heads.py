"""Head axes: between the arrays of a layer, which have none, and those of attention, which do.

With H heads, x (..., T, H * D) of a layer is (..., H, T, D) to the functions of `attnc.functional`,
where heads are leading axes like the batch. If G heads of queries share one head of keys (Ainslie
et al. 2023, "GQA: training generalized multi-query transformer models from multi-head
checkpoints"), the head axes of queries are (H / G, G) and those of keys (H / G, 1), which
broadcast. Masks and similar options have the rank of the layer's own inputs; or one more axis, of
heads, before those of time.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ..arrays import plain_array
from ..typing import Array, Shape

# AXES lists the options that go by query or key, and which axes each has after the leading ones.
AXES: dict[str, tuple[str, ...]] = {
    "mask": ("Tq", "Tk"),
    "bias": ("Tq", "Tk"),
    "key_mask": ("Tk",),
    "key_lengths": (),
    "query_lengths": (),
    "causal_offset": (),
    "slope": (),
    "sink": (),
    "center": ("Tq",),
}

# Those of them that may be one number for all.
NUMBERS = {"key_lengths", "query_lengths", "causal_offset", "slope", "sink", "center"}


def split_heads(x: Array, heads: Shape) -> Array:
    """x (..., T, H * D) as (..., *heads, T, D), a view; H is the product of `heads`."""
    *lead, T, size = x.shape
    x = x.reshape(*lead, T, *heads, size // math.prod(heads))
    return x.transpose(_axes(len(lead), len(lead) + len(heads)))


def merge_heads(x: Array, heads: Shape) -> Array:
    """x (..., *heads, T, D) as (..., T, H * D): undoes `split_heads`, also for its gradients."""
    lead = x.ndim - 2 - len(heads)
    *shape, T, size = x.shape
    if T != 1:  # else the order of the numbers is the same
        x = x.transpose(_axes(x.ndim - 2, lead))
    return x.reshape(*shape[:lead], T, math.prod(shape[lead:]) * size)


@functools.lru_cache(maxsize=32)
def _axes(time: int, to: int) -> tuple[int, ...]:
    """The axes of an array of to + 2 or time + 2 axes in the order that moves `time` to `to`."""
    axes = list(range(max(time, to) + 2))
    axes.insert(to, axes.pop(time))
    return tuple(axes)


def lift_options(
    where: str, options: dict[str, Any], lead: Shape, Tq: int, Tk: int, heads: Shape
) -> dict[str, Any]:
    """The options of a layer, (*lead, ...) or by head (*lead, H, ...), as (*lead, *heads, ...).

    Every axis may be 1. What is lifted has the same numbers in the same order, so that a gradient
    only needs the shape of what was given. `where` begins the error texts.
    """
    sizes, lifted = {"Tq": Tq, "Tk": Tk}, dict(options)
    for name, axes in AXES.items():
        if options.get(name) is not None:
            own = tuple(sizes[axis] for axis in axes)
            lifted[name] = _lift(where, name, options[name], axes, (*lead, *own), heads)
    return lifted


def _lift(where, name, value, axes, shape, heads):
    """`value` with the axes `heads` before the last `axes`, where it may have one of all heads."""
    array = plain_array(where, name, value)
    lead = len(shape) - len(axes)
    if array.ndim == 0 and name in NUMBERS and (lead or not isinstance(value, np.ndarray)):
        return value  # a number holds for all sequences and heads
    by_head = (*shape[:lead], math.prod(heads), *shape[lead:])
    if _broadcasts(array.shape, shape):
        inside = (1,) * len(heads)
        return array.reshape(*array.shape[:lead], *inside, *array.shape[lead:])
    if _broadcasts(array.shape, by_head):
        inside = (1,) * len(heads) if array.shape[lead] == 1 else heads
        return array.reshape(*array.shape[:lead], *inside, *array.shape[lead + 1 :])
    fix, missing = "", len(shape) - array.ndim
    if missing > 0 and _broadcasts((1,) * missing + array.shape, shape):
        fix = f"; write {name}[{'None, ' * missing}...]"
    if name == "mask" and array.ndim == 2 and missing > 0:
        fix += "; a mask of keys alone goes to key_mask="
    raise ValueError(
        f"{where}: {name} must have {len(shape)} axes ({', '.join(('...', *axes))}) = {shape}, or "
        f"with heads {len(by_head)} axes ({', '.join(('...', 'H', *axes))}) = {by_head}, each of "
        f"that size or 1, got {array.shape}{fix}"
    )


def _broadcasts(got, shape):
    """Whether an array of this rank broadcasts to `shape`, without new axes."""
    return len(got) == len(shape) and all(
        n in (1, size) for n, size in zip(got, shape, strict=True)
    )

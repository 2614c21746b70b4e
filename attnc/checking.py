"""Gradients against differences: for backward passes that one writes oneself."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from attnc.arrays import integer, quiet, real_array
from attnc.gradients import vjp
from attnc.layers.base import Layer

__all__ = ["check_gradients"]


@quiet
def check_gradients(
    f: Callable[..., Any],
    pullback: Callable[..., Any] | None,
    *arrays: Any,
    entries: int = 200,
    **options: Any,
) -> float:
    """Hold the gradients of a function or layer against central differences, in float64.

    First one random direction through all entries of each array, ``(L(x + h t) - L(x - h t)) / 2h =
    gradient . t``, where L is the sum of the outputs times random incoming gradients. Where that
    fails, single entries are asked, and the error says which argument and entry are wrong, and by
    what factor: 2, a sign, one over the batch, a sum over the batch that is missing.

    Parameters
    ----------
    f : callable or Layer
        ``f(*arrays, **options)`` returns an array or a tuple of them, the same at every call. Of a
        layer, which must be of dtype float64, the parameters are checked too.
    pullback : callable or None
        From the gradients of the outputs, at these arrays, to those of the arrays: one array, or a
        sequence in their order; None among them is not checked. Outputs of a named tuple go by
        name, ``pullback(dcontext=..., dweights=...)``, those of a tuple by position. None: the one
        of `attnc.vjp`.
    *arrays : array_like
        Where to check, in float64. An argument may be a sequence of arrays. Integers are passed on
        as they are, and have no gradient.
    entries : int, default 200
        How many single entries of a wrong gradient are asked at most.
    **options
        Passed on to `f`; with dropout an integer `rng`, so that all calls drop the same.

    Returns
    -------
    float
        The largest disagreement of a directional difference, relative to the size of its terms.
        Central differences of a smooth function agree to about 1e-9.

    Raises
    ------
    AssertionError
        If a gradient is wrong.
    TypeError
        If an array is not real, or a layer not of dtype float64.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> x, w = np.ones((4, 3)), np.arange(6.0).reshape(3, 2)
    >>> attnc.check_gradients(np.matmul, lambda dy: (dy @ w.T, x.T @ dy), x, w) < 1e-6
    True
    >>> attnc.check_gradients(np.matmul, lambda dy: (dy @ w.T, 2 * x.T @ dy), x, w)
    Traceback (most recent call last):
        ...
    AssertionError: check_gradients: the gradient of x2 is 2 times the right one
    """
    entries = integer("check_gradients", "entries", entries, 1)
    # Philox, because a caller may have the numbers that default_rng(0) gives: an incoming gradient
    # equal to an input would hide a transposed product.
    rng = np.random.Generator(np.random.Philox(0))
    if isinstance(f, Layer) and f.dtype != np.float64:
        raise TypeError(
            f"check_gradients: f must be of dtype float64, got a layer of {f.dtype} "
            "(differences of float32 show little)"
        )
    arrays = tuple([_in_float64(f"arrays[{k}]", array) for k, array in enumerate(arrays)])
    output = f(*arrays, **options)
    if pullback is None:
        output, pullback = vjp(f, *arrays, **options)
    d = [rng.standard_normal(x.shape) for x in _outputs(output)]

    def loss():
        """L, without what is not finite: the lse of a row without keys is -inf."""
        terms = zip(_outputs(f(*arrays, **options)), d, strict=True)
        return sum(float((np.where(np.isfinite(x), x, 0) * dx).sum()) for x, dx in terms)

    terms = sum(float(np.abs(dx).sum()) for dx in d)  # what differences of the loss are made of
    worst = 0.0
    for name, array, gradient in _gradients(f, pullback, arrays, output, d):
        if gradient.shape != array.shape:
            raise AssertionError(_of_wrong_shape(name, array, gradient, loss, rng))
        worst = max(worst, _check(name, array, gradient, loss, terms, entries, rng))
    return worst


def _in_float64(name, array):
    """A copy that may be moved; the same of a sequence of arrays; integers as they are."""
    if isinstance(array, (list, tuple)) and any(isinstance(item, np.ndarray) for item in array):
        return type(array)(_in_float64(f"{name}[{k}]", item) for k, item in enumerate(array))
    real = real_array("check_gradients", name, array)
    return np.array(array) if real.dtype.kind in "iu" else np.array(real, np.float64)


def _outputs(output):
    """The arrays of an output: of an array, a number, or nested tuples of them."""
    if isinstance(output, (tuple, list)):
        return [array for item in output for array in _outputs(item)]
    return [np.asarray(output, np.float64)]


def _gradients(f, pullback, arrays, output, d):
    """(name, array, gradient) of every array that has one, those of a layer's parameters last."""
    before = {name: g.copy() for name, g in f.gradients.items()} if isinstance(f, Layer) else {}
    d = _like(output, iter(d))
    if hasattr(output, "_fields"):
        found = pullback(**{f"d{field}": x for field, x in zip(output._fields, d, strict=True)})
    else:
        found = pullback(*d) if isinstance(output, tuple) else pullback(d)
    found = [found] if isinstance(found, np.ndarray) else list(found)
    names = _names(f, len(arrays))
    real = [
        (name, array)
        for name, array in zip(names, arrays, strict=True)
        if isinstance(array, (list, tuple)) or array.dtype == np.float64
    ]
    if len(found) not in (len(arrays), len(real)):
        raise AssertionError(
            f"check_gradients: pullback must return a gradient for each of {', '.join(names)}, "
            f"got {len(found)}"
        )
    asked = zip(names, arrays, strict=True) if len(found) == len(arrays) else real
    for (name, array), gradient in zip(asked, found, strict=True):
        parts = isinstance(array, (list, tuple))
        for k, part in enumerate(array if parts else [array]):
            own = gradient[k] if parts and gradient is not None else gradient
            if own is not None and part.dtype == np.float64:
                yield f"{name}[{k}]" if parts else name, part, np.asarray(own, np.float64)
    for name, start in before.items():
        yield name, f.parameters[name], f.gradients[name] - start


def _like(output, d):
    """Incoming gradients in the shape of an output."""
    if isinstance(output, (tuple, list)):
        return tuple(_like(item, d) for item in output)
    return next(d)


def _names(f, count):
    """What f calls its first arguments."""
    try:
        names = [name for name in inspect.signature(f).parameters if name != "self"]
    except (TypeError, ValueError):
        names = []
    return [names[k] if k < len(names) and names[k] not in ("args", "kwargs", "inputs", "options")
            else f"arrays[{k}]" for k in range(count)]  # fmt: skip


def _difference(array, direction, loss, h):
    """The central difference of the loss along a direction; the array is left as it was."""
    kept = array.copy()
    array += h * direction
    ahead = loss()
    array[...] = kept - h * direction
    behind = loss()
    array[...] = kept
    return (ahead - behind) / (2 * h)


def _step(array):
    """Where the errors of a central difference, h^2 and eps / h, are about equal."""
    largest = float(np.abs(array[np.isfinite(array)]).max(initial=0))  # a bias may hold -inf
    return float(np.finfo(np.float64).eps ** (1 / 3) * max(1.0, largest))


def _agree(numeric, finer, analytic, size):
    """Whether a gradient is a difference, as far as two steps tell how well that is known."""
    unknown = 4 * abs(numeric - finer) + 1e-7 * size
    return abs(finer - analytic) <= unknown and math.isfinite(analytic) == math.isfinite(finer)


def _check(name, array, gradient, loss, terms, entries, rng):
    """The relative disagreement in a random direction; raises where it is too large."""
    if not array.size:
        return 0.0
    t, h = rng.standard_normal(array.shape), _step(array)
    numeric, finer = (_difference(array, t, loss, step) for step in (h, h / 2))
    analytic = float((gradient * t).sum())
    size = terms + float(np.abs(gradient * t).sum()) + abs(finer)
    if not _agree(numeric, finer, analytic, size):
        raise AssertionError(_diagnosis(name, array, gradient, loss, entries, rng))
    return float(abs(finer - analytic) / size) if size else 0.0


def _entries(array, loss, entries, rng):
    """Differences along single entries: their flat indices and values."""
    places = np.arange(array.size)
    if array.size > entries:
        places = np.sort(rng.choice(array.size, entries, replace=False))
    h, found = _step(array), []
    for place in places:
        direction = np.zeros(array.size)
        direction[place] = 1
        found.append(_difference(array, direction.reshape(array.shape), loss, h))
    return places, np.array(found)


def _diagnosis(name, array, gradient, loss, entries, rng):
    """What is wrong with a gradient."""
    places, right = _entries(array, loss, entries, rng)
    got = gradient.reshape(-1)[places]
    start = f"check_gradients: the gradient of {name}"
    scale = np.abs(right).max()
    clear = np.abs(right) > 1e-3 * scale
    factors = got[clear] / right[clear]
    if scale and clear.any() and np.ptp(factors) <= 1e-4 * np.abs(factors).max():
        return f"{start} is {_factor(float(np.median(factors)), array)} the right one"
    if gradient.ndim == 2 and gradient.shape[0] == gradient.shape[1]:
        turned = gradient.T.reshape(-1)[places]
        if np.abs(turned - right).max() <= 1e-5 * scale:
            return f"{start} is the transpose of the right one"
    worst = int(np.nanargmax(np.where(np.isfinite(got), np.abs(got - right), np.inf)))
    index = tuple(int(i) for i in np.unravel_index(places[worst], array.shape))
    wrong = int((~(np.abs(got - right) <= 1e-5 * scale)).sum())
    return (
        f"{start} is wrong in {wrong} of {len(places)} entries: at {list(index)} it is "
        f"{got[worst]:.6g}, differences give {right[worst]:.6g}"
    )


def _factor(factor, array):
    """A factor in words."""
    if abs(factor + 1) < 1e-3:
        return "-1 times"
    for size in sorted(set(array.shape)):
        if size > 1 and abs(factor * size - 1) < 1e-3:
            return f"1 / {size} of"
    if 0 < abs(factor) < 0.4 and abs(1 / factor - round(1 / factor)) < 1e-3:
        return f"1 / {round(1 / factor)} of"
    if abs(factor - round(factor)) < 1e-3:
        return f"{round(factor)} times"
    return f"{factor:.4g} times"


def _of_wrong_shape(name, array, gradient, loss, rng):
    """What is wrong with a gradient that has not the shape of its array."""
    text = (
        f"check_gradients: the gradient of {name} must have its shape, {array.shape}, got "
        f"{gradient.shape}"
    )
    more = gradient.ndim - array.ndim
    if more > 0 and gradient.shape[more:] == array.shape:
        _, right = _entries(array, loss, array.size, rng)
        summed = gradient.sum(axis=tuple(range(more))).reshape(-1)
        if np.abs(summed - right).max(initial=0) <= 1e-5 * np.abs(right).max(initial=0):
            text += ": a sum over the batch is missing"
    elif gradient.shape == array.shape[::-1]:
        text += ": it is transposed"
    return text

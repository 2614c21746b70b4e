"""Forward mode and second order by plain formulas, for functions that no kernel does this for.

Each function stands once more in `attnc.reference`, with a pullback by hand. Run on dual numbers
(`attnc.dual`) the function is its `jvp`, and its pullback its `backward_jvp`: no derivative is
written twice. Outputs are those of the function itself, to the bit. On dual numbers of dual numbers
the function is its `jvp_jvp`, forward mode of forward mode, which attention has by its formula too.

The formulas are NumPy's, in the dtype of the call, and have Python's loops where the papers have
recurrences: one round for each step of a recurrent network or a decoder, for each query and key of
a monotonic alignment, for each key of chunkwise attention. Such a round takes some tens of
microseconds besides its products, of which there are up to three for one of the formula; and every
array on the way of a pullback is kept.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from attnc.arrays import computing_dtype, generator, like, quiet, real_array
from attnc.registry import record_of

__all__ = ["by_formula", "twice_by_formula"]


def by_formula(function: Callable[..., Any]) -> dict[str, Any]:
    """What `register` takes for a function that `attnc.reference` has: jvp, backward_jvp, jvp_jvp.

    Parameters
    ----------
    function : callable
        Registered since: its record is looked for when it is called.

    Returns
    -------
    dict
        Of the keywords of `register`.
    """

    @quiet
    def jvp(tangents, *arrays, **options):
        call = _Call(function, tangents, arrays, options)
        output, _ = call.run()
        return call.output, _built_like(call.output, output)

    @quiet
    def backward_jvp(tangents, incoming, dincoming, *arrays, **options):
        call = _Call(function, tangents, arrays, options)
        output, pullback = call.run()
        given = _dual_gradients(call, output, incoming, dincoming)
        found = vars(pullback(**given))
        return tuple(
            None if name not in call.real else _built_like(call.real[name], found[name])
            for name in call.record.arrays
        )

    return {"jvp": jvp, "backward_jvp": backward_jvp, "jvp_jvp": twice_by_formula(function)}


def twice_by_formula(
    function: Callable[..., Any], chosen: Callable[[Any], dict[str, Any]] | None = None
) -> Callable[..., Any]:
    """What `register` takes for jvp_jvp, from the formula in `attnc.reference` alone.

    All four parts of the dual numbers are computed, the output among them, and nothing is fused:
    attention has an array of all pairs of queries and keys for each part of each step.

    Parameters
    ----------
    function : callable
        As in `by_formula`.
    chosen : callable, optional
        The options that say what was drawn, from the output of the function.

    Returns
    -------
    callable
        The jvp_jvp, which leaves the shapes of tangents to its callers.
    """

    @quiet
    def jvp_jvp(tangents, others, *arrays, **options):
        call = _Call(function, tangents, arrays, options, others)
        call.named |= chosen(call.output) if chosen else {}
        output, _ = call.run()
        return _built_like(call.output, output, order=2)

    return jvp_jvp


class _Call:
    """A call of a function, and the same of its plain formula on dual numbers.

    With `others`, a second direction, the parts of these numbers are dual numbers themselves.
    """

    def __init__(self, function, tangents, arrays, options, others=None):
        self.record = record = record_of(function)
        rng = options.get("rng")
        if options.get("dropout") and (rng is None or isinstance(rng, np.random.Generator)):
            rng = generator(record.name, rng)
            options = options | {"rng": copy.deepcopy(rng)}  # what is drawn here is drawn for both
            self.output, *_ = record.forward(*arrays, **options | {"rng": rng})
        else:  # a number is the key of both; the function has all the checks
            self.output, *_ = record.forward(*arrays, **options)
        named = inspect.signature(function).bind(*arrays, **options).arguments
        named = {name: value for name, value in named.items() if value is not None}
        self.real = {
            name: self.arrays(name, value)
            for name, value in named.items()
            if name in record.arrays and getattr(getattr(value, "dtype", None), "kind", "f") != "b"
        }
        # That of the first output: a center in float64 beside rows in float32 widens no call.
        self.dtype = computing_dtype(_leaves(self.output)[:1])
        moves = [tangents.get] if others is None else [tangents.get, others.get]
        self.named = named | {
            name: self.dual(value, *(along(name) for along in moves))
            for name, value in self.real.items()
        }

    def arrays(self, name, value):
        """An argument as an array, or as a tuple of them, None among them."""
        from attnc.functional.decoder_run import is_one_array  # which imports this

        several = name in ("parameters", "cells") or name == "state" and not is_one_array(value)
        if not several:
            return real_array(self.record.name, name, value)
        return tuple(None if x is None else real_array(self.record.name, name, x) for x in value)

    def run(self):
        """The output of the plain formula, and its pullback."""
        from attnc import reference  # here, because most calls need neither

        options = dict(self.named)
        arrays = [options.pop(name) for name in self.record.required]
        function = getattr(reference, self.record.name)
        return reference.vjp(function, *arrays, **options, dtype=self.dtype.type)

    def dual(self, value, *tangents):
        """Dual numbers of a value, in the dtype of the call; None is a tangent of 0.

        With two tangents u and v they are ``Dual(Dual(x, v), Dual(u, 0))``.
        """
        from attnc.dual import Dual

        if value is None:
            return None
        if isinstance(value, tuple):
            each = ([None] * len(value) if tangent is None else tangent for tangent in tangents)
            return tuple(self.dual(*parts) for parts in zip(value, *each, strict=True))
        value = value.astype(self.dtype)
        first, *other = (self.tangent(value, tangent) for tangent in tangents)
        if not other:
            return Dual(value, first)
        return Dual(Dual(value, *other), Dual(first, np.zeros_like(value)))

    @staticmethod
    def tangent(value, given):
        """A tangent that lies as its value does."""
        from attnc.dual import laid_out

        return np.zeros_like(value) if given is None else laid_out(np.asarray(given), value)


def _dual_gradients(call, output, incoming, dincoming):
    """Incoming gradients by name, of those outputs that have one."""
    names = call.record.incoming
    outputs = output if isinstance(output, tuple) else (output,)
    if len(outputs) < len(names):
        names = [name for name in names if hasattr(output, name[1:])] or names[:1]
    given = {}
    for name, like_this in zip(names, outputs, strict=True):
        at = call.record.incoming.index(name)
        if incoming[at] is not None or dincoming[at] is not None:
            given[name] = _dual_gradient(call, like_this, incoming[at], dincoming[at])
    return given


def _dual_gradient(call, output, gradient, change):
    """An incoming gradient, built like its output; None is 0."""
    if isinstance(output, tuple):
        none = [None] * len(output)
        parts = output, none if gradient is None else gradient, none if change is None else change
        return tuple(_dual_gradient(call, *part) for part in zip(*parts, strict=True))
    if gradient is None:
        gradient = np.zeros(np.shape(output), call.dtype)
    return call.dual(np.asarray(gradient), change)


def _built_like(given, found, order=1):
    """The tangents of what was found, or the tangents of these, in the dtypes of what was given."""
    from attnc.dual import tangent_of

    if isinstance(given, tuple):
        found = found if isinstance(found, tuple | list) else (found,)  # of a state of one array
        parts = [_built_like(*pair, order) for pair in zip(given, found, strict=True)]
        return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
    shape = np.shape(found)
    for _ in range(order):
        found = tangent_of(found)
    tangent = np.broadcast_to(found, shape)
    tangent = like(np.array(tangent, order="C"), given)
    return tangent[()] if isinstance(given, np.generic) else tangent  # a loss is a number


def _leaves(value):
    if isinstance(value, tuple | list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [] if value is None else [value]

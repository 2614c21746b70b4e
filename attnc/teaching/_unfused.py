"""Attention as a student writes it: one method for each step, to be replaced by a wrong one.

`Unfused` is right. A mistake is a class on it that overrides one step, and two mistakes are a class
on both. What pairs are allowed, and all of the scores, come from `attnc.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnc import reference
from attnc.reference.attention import _allowed, _sum_over_pairs
from attnc.typing import Array

__all__ = ["Unfused", "turned"]


def turned(x: Array) -> Array:
    """The array with its last two axes exchanged.

    Parameters
    ----------
    x : ndarray

    Returns
    -------
    ndarray
    """
    return np.swapaxes(x, -1, -2)


class Unfused:
    """One call, step by step; the docstring of a class on it says what the mistake is.

    Attributes
    ----------
    of : tuple of str
        The functions in which the mistake can be made; empty: in all.
    needs : tuple of str
        Options, and traits of the inputs, without which it cannot be made.
    """

    of: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def __init__(self, name: str, arrays: Sequence[Array], options: dict[str, Any]) -> None:
        self.name, self.dtype = name, np.result_type(*arrays)
        self.arrays = self.taken(list(arrays))
        self.options = self.read(dict(options))
        self.value = self.arrays[1 if name == "attend" else 2]

    def taken(self, arrays: list[Array]) -> list[Array]:
        """The `arrays`, as the function takes them."""
        return arrays

    def read(self, options: dict[str, Any]) -> dict[str, Any]:
        """The `options`, as the function reads them."""
        return options

    def option(self, name: str) -> Any:
        """The option called `name`, None where it was not given."""
        return self.options.get(name)

    def sizes(self) -> tuple[int, int]:
        """The numbers of queries and keys."""
        Tq, last = self.arrays[0].shape[-2:]
        return Tq, last if self.name == "attend" else self.arrays[1].shape[-2]

    # ---- scores

    def products(self) -> Array:
        """What a query and a key give, without the scale: the match of the mechanism."""
        if self.name == "attend":
            return self.arrays[0]
        query, key, _, *parameters = self.arrays
        function = getattr(reference, self.name.replace("_attention", "_scores"))
        own = ("query_weight", "key_weight", "score_bias")
        options = {name: self.options[name] for name in own if name in self.options}
        if self.name in ("dot_product_attention", "cosine_attention"):
            options["scale"] = 1
        return function(query, key, *parameters, **options, dtype=self.dtype.type)

    def usual_factor(self) -> float:
        """The scale where none is given."""
        return float(self.arrays[0].shape[-1]) ** -0.5 if "dot" in self.name else 1.0

    def factor(self) -> Any:
        """The scale."""
        scale = self.option("scale")
        return self.dtype.type(self.usual_factor() if scale is None else scale)

    def scores(self) -> Array:
        """The scores."""
        return self.factor() * self.products()

    def capped(self, scores: Array) -> Array:
        """The `scores` after the softcap."""
        cap = self.option("softcap")
        return scores if cap is None else cap * np.tanh(scores / cap)

    def biased(self, capped: Array) -> Array:
        """What is `capped`, with the slope and the bias."""
        slope, bias = self.option("slope"), self.option("bias")
        if slope is not None:
            Tq, Tk = capped.shape[-2:]
            offset = (
                Tk - Tq if self.option("causal_offset") is None else self.options["causal_offset"]
            )
            distance = np.abs(np.arange(Tk) - np.arange(Tq)[:, None] - offset)
            capped = capped - self.dtype.type(slope) * distance.astype(self.dtype)
        return capped if bias is None else capped + bias

    def logits(self) -> Array:
        """What the masks come to."""
        return self.biased(self.capped(self.scores()))

    # ---- masks

    def allowed(self) -> Array:
        """Which query may attend to which key."""
        names = "mask key_mask key_lengths query_lengths bias causal causal_offset window center"
        rows = self.arrays[0].shape
        shape = rows if self.name == "attend" else (*rows[:-1], self.arrays[1].shape[-2])
        return _allowed(shape, *map(self.option, names.split()))

    def masked(self) -> Array:
        """The logits, and -inf where a query may not attend."""
        return np.where(self.allowed(), self.logits(), -np.inf)

    # ---- weights and context

    def total(self, powers: Array, top: Array) -> Array:
        """The sum of the `powers` of a row, whose largest logit is `top`."""
        total = powers.sum(axis=-1, keepdims=True)
        sink = self.option("sink")
        return total if sink is None else total + np.exp(self.dtype.type(sink) - top)

    def softmax(self, x: Array) -> Array:
        """The weights of masked logits `x`."""
        top = x.max(axis=-1, keepdims=True, initial=-np.inf)
        top = np.where(top == -np.inf, 0, top)
        powers = np.exp(x - top)
        total = self.total(powers, top)
        return np.where(total == 0, 0, powers / total).astype(self.dtype)

    def weights(self) -> Array:
        """The weights."""
        return self.softmax(self.masked())

    def context(self) -> Array:
        """The context."""
        return _sum_over_pairs(self.weights(), self.value, self.allowed())

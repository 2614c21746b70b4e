"""Usual mistakes in masks: what is allowed, and what is done to the pairs that are not."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc.teaching._unfused import Unfused


def _otherwise(text, needs, change):
    """A mistake that is another value of an option: `change(self, value)` of the first needed."""

    def read(self, options):
        options = super(mistake, self).read(options)
        if needs[0] in options:
            options[needs[0]] = change(self, options[needs[0]])
        return options

    mistake: Any = type("Otherwise", (Unfused,), {"__doc__": text, "needs": needs, "read": read})
    return mistake


def _longest(self):
    return self.arrays[0].shape[-1] if self.name == "attend" else self.arrays[1].shape[-2]


_IGNORED = (
    "mask key_mask key_lengths query_lengths causal causal_offset window bias softcap slope sink"
)
_IGNORED += " query_weight key_weight"

READ_OTHERWISE = [
    _otherwise(
        "the mask is inverted: True means that the query may attend", ("mask",), lambda _, m: ~m
    ),
    _otherwise(
        "key_mask is inverted: True means that the key may be attended to",
        ("key_mask",),
        lambda _, m: ~m,
    ),
    *[_otherwise(f"{name} is ignored", (name,), lambda _, x: None) for name in _IGNORED.split()],
    _otherwise(
        "score_bias is ignored, or added after the tanh, where it is the same for all keys: add it "
        "inside",
        ("score_bias",),
        lambda _, x: None,
    ),
    _otherwise(
        "one key beyond key_lengths is attended to: keys j < length are valid",
        ("key_lengths",),
        lambda self, n: np.minimum(np.asarray(n) + 1, _longest(self)),
    ),
    _otherwise(
        "the last key of key_lengths is left out: keys j < length are valid",
        ("key_lengths",),
        lambda _, n: np.maximum(np.asarray(n) - 1, 0),
    ),
    _otherwise("left and right of the window are exchanged", ("window",), lambda _, w: w[::-1]),
    _otherwise(
        "the left end of the window is left out: keys p - left <= j are seen",
        ("window",),
        lambda _, w: (None if w[0] is None else w[0] - 1, w[1]),
    ),
    _otherwise(
        "the right end of the window is left out: keys j <= p + right are seen",
        ("window",),
        lambda _, w: (w[0], None if w[1] is None else w[1] - 1),
    ),
]


class _Causal(Unfused):
    needs = ("causal",)
    moved = 0

    def read(self, options):
        options = super().read(options)
        if options.get("causal"):
            offset = options.get("causal_offset")
            if offset is None:
                offset = _longest(self) - self.arrays[0].shape[-2]
            options["causal_offset"] = offset + self.moved
        return options


class CausalWithoutItself(_Causal):
    """causal is off by one: a query must also see the key of its own position, j <= p not j < p"""

    moved = -1


class CausalSeesNext(_Causal):
    """causal is off by one: a query sees the key after its own position, j <= p + 1 not j <= p"""

    moved = 1


class CausalTopLeft(Unfused):
    """causal is aligned at the first query and key (top left): align it at the last of both \
(bottom right), query i at position i + Tk - Tq"""

    needs = ("causal",)

    def read(self, options):
        options = super().read(options)
        if options.get("causal") and options.get("causal_offset") is None:
            options["causal_offset"] = 0
        return options


class _OtherTriangle(Unfused):
    needs = ("causal",)
    strict = False

    def allowed(self):
        if not self.option("causal"):
            return super().allowed()
        Tq, Tk = self.products().shape[-2:]
        offset = Tk - Tq if self.option("causal_offset") is None else self.option("causal_offset")
        behind = np.arange(Tk) - np.arange(Tq)[:, None] - np.asarray(offset)[..., None, None]
        self.options["causal"] = False
        allowed = super().allowed() & (behind > 0 if self.strict else behind >= 0)
        self.options["causal"] = True
        return allowed


class CausalInverted(_OtherTriangle):
    """causal is inverted: each query sees the later keys, it must see the earlier ones"""


class OnlyLaterKeys(_OtherTriangle):
    """causal is inverted: each query sees the keys after its position alone, the triangle of what \
must be hidden"""

    strict = True


class CausalTransposed(Unfused):
    """causal is transposed: query i is the row, key j the column, and j <= i"""

    needs = ("causal",)

    def allowed(self):
        if not self.option("causal"):
            return super().allowed()
        Tq, Tk = self.products().shape[-2:]
        self.options["causal"] = False
        allowed = super().allowed() & (np.arange(Tq)[:, None] <= np.arange(Tk))
        self.options["causal"] = True
        return allowed


# ---- what is done to the pairs that are not allowed


class ZeroForInf(Unfused):
    """masked scores are set to 0, or multiplied by it, which still has weight exp(0) = 1: set them\
 to -inf"""

    def masked(self):
        return np.where(self.allowed(), self.logits(), 0)


class MaskAfterSoftmax(Unfused):
    """the mask is applied after the softmax, so that weights do not sum to 1: set the masked \
scores to -inf before it"""

    def masked(self):
        return self.logits()

    def weights(self):
        return super().weights() * self.allowed()


class MaskAfterSoftmaxNormalised(Unfused):
    """the mask is applied after the softmax, and the rest normalised again: a row without keys is \
0 / 0, and what is masked is read; set the masked scores to -inf before it"""

    def masked(self):
        return self.logits()

    def weights(self):
        weights = super().weights() * self.allowed()
        return weights / weights.sum(axis=-1, keepdims=True)


class MinusBillion(Unfused):
    """a large negative number stands in the place of -inf: a query that may attend to nothing \
gets uniform weights, they must be 0"""

    def masked(self):
        return np.where(self.allowed(), self.logits(), self.dtype.type(-1e9))


class MinusBillionAdded(Unfused):
    """a large negative number is added to the masked scores: NaN stays NaN, and a query that may \
attend to nothing gets weights; set the scores to -inf with np.where"""

    def masked(self):
        return self.logits() + ~self.allowed() * self.dtype.type(-1e9)


class InfAdded(Unfused):
    """-inf is added to the masked scores, and NaN + -inf is NaN: set them to -inf with np.where"""

    def masked(self):
        masked = self.logits() + np.where(self.allowed(), 0, -np.inf)
        return masked.astype(self.dtype)


class EmptyRowIsNaN(Unfused):
    """a query that may attend to nothing gets NaN, for -inf - -inf is NaN: its weights and its \
context must be 0"""

    def softmax(self, x):
        top = x.max(axis=-1, keepdims=True, initial=-np.inf)
        powers = np.exp(x - top)
        return powers / self.total(powers, top)


MISTAKES: list[type[Unfused]] = [
    *READ_OTHERWISE,
    CausalTopLeft,
    CausalWithoutItself,
    CausalSeesNext,
    CausalInverted,
    OnlyLaterKeys,
    CausalTransposed,
    ZeroForInf,
    MaskAfterSoftmax,
    MaskAfterSoftmaxNormalised,
    MinusBillion,
    EmptyRowIsNaN,
    InfAdded,
    MinusBillionAdded,
]

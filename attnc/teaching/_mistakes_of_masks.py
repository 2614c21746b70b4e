"""Usual mistakes in masks: what is allowed, and what is done to the pairs that are not."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from attnc.teaching import _mistakes_of_causal
from attnc.teaching._cases import MASKS
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


def _first(self, value):
    """That of the first batch element."""
    value = np.asarray(value)
    lead = self.arrays[0].ndim - 2
    return np.broadcast_to(value[(slice(0, 1),) * lead], value.shape)


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
    *[
        _otherwise(f"{name} of the first batch element is used for all of them", (name,), _first)
        for name in ("mask", "key_mask", "key_lengths")
    ],
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
        lambda self, n: np.minimum(np.asarray(n) + 1, self.sizes()[1]),
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


# ---- two masks at once


def _given(self, name):
    return self.option(name) is not None and self.option(name) is not False


def _instead(ignored, by):
    """One mask, or the bias, takes the place of another."""

    def read(self, options):
        options = super(mistake, self).read(options)
        self.options = options
        return {**options, ignored: None} if _given(self, by) else options

    text = f"{ignored} is ignored where {by} is given, too: both must count"
    names = {"__doc__": text, "needs": (ignored, by), "read": read}
    mistake: Any = type("Instead", (Unfused,), names)
    return mistake


def _either(one, other):
    """What one of two masks allows is allowed."""

    def allowed(self):
        whole, both = self.options, super(mistake, self).allowed
        if not (_given(self, one) and _given(self, other)):
            return both()
        parts = []
        for left_out in (one, other):
            self.options = {**whole, left_out: None}
            parts.append(both())
        self.options = whole
        return parts[0] | parts[1]

    text = f"{one} and {other} are joined by or: a key must be allowed by both"
    names = {"__doc__": text, "needs": (one, other), "allowed": allowed}
    mistake: Any = type("Either", (Unfused,), names)
    return mistake


TWO_MASKS = [
    *[_instead(*two) for two in itertools.permutations((*MASKS, "bias"), 2)],
    *[_either(*two) for two in itertools.combinations(MASKS, 2)],
]


# ---- what is done to the pairs that are not allowed


class ZeroForInf(Unfused):
    """masked scores are set to 0, or multiplied by it, which still has weight exp(0) = 1: set them\
 to -inf"""

    def masked(self):
        return np.where(self.allowed(), self.logits(), 0)


class MaskAdded(Unfused):
    """the mask is added to the scores as 0 and 1: set the scores to -inf where it is False"""

    needs = ("mask",)

    def read(self, options):
        options = super().read(options)
        self.added = options.pop("mask", None)
        return options

    def logits(self):
        return super().logits() + (0 if self.added is None else self.added)


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
    *_mistakes_of_causal.MISTAKES,
    ZeroForInf,
    MaskAdded,
    MaskAfterSoftmax,
    EmptyRowIsNaN,  # before the next, which looks the same where no masked key is NaN
    MaskAfterSoftmaxNormalised,
    MinusBillion,
    InfAdded,
    MinusBillionAdded,
    *TWO_MASKS,
]

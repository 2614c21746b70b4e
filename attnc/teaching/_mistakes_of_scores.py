"""Usual mistakes before the softmax: the scale, the bias, and the score of each mechanism."""

from __future__ import annotations

import numpy as np

from attnc.teaching._unfused import Unfused, turned

_DOT, _ADDITIVE = ("dot_product_attention",), ("additive_attention",)
_COSINE, _BILINEAR = ("cosine_attention",), ("multiplicative_attention",)
_OF_KEYS = (*_DOT, *_BILINEAR, *_ADDITIVE, *_COSINE)


def _wrong_factor(text, of, factor, needs=()):
    """A mistake in the scale."""
    names = {"__doc__": text, "of": of, "needs": needs, "factor": factor}
    return type("WrongFactor", (Unfused,), names)


def _features(self, which=0):
    return self.arrays[which].shape[-1]


def _given(self, usual):
    return usual if self.option("scale") is None else self.option("scale")


def _root_of_shape(which, axis):
    """The root of another axis of query (0) or key (1): right for some shapes alone."""
    name = ("query", "key")[which]
    return _wrong_factor(
        f"the products are divided by the square root of {name}.shape[{axis}]: it must be that of "
        "shape[-1], the size of a key",
        _DOT,
        lambda self: _given(self, self.arrays[which].shape[axis] ** -0.5),
    )


FACTORS = [
    _wrong_factor("the scale is forgotten: divide the products by sqrt(D)", _DOT, lambda self: 1),
    _wrong_factor(
        "the scale is forgotten unless it is given: it must be 1 / sqrt(D) by default",
        _DOT,
        lambda self: _given(self, 1),
    ),
    _wrong_factor(
        "the products are divided by D: divide them by sqrt(D)",
        _DOT,
        lambda self: _given(self, 1 / _features(self)),
    ),
    _wrong_factor(
        "the products are multiplied by sqrt(D): divide them by it",
        _DOT,
        lambda self: _given(self, _features(self) ** 0.5),
    ),
    _wrong_factor(
        "the products are divided by the square root of the number of keys: divide them by "
        "sqrt(D), D the size of a key",
        _DOT,
        lambda self: _given(self, self.arrays[1].shape[-2] ** -0.5),
    ),
    _wrong_factor(
        "the products are divided by sqrt(Dv), the size of a value: divide them by sqrt(D), the "
        "size of a key",
        _DOT,
        lambda self: _given(self, self.value.shape[-1] ** -0.5),
    ),
    *[_root_of_shape(which, axis) for which in (0, 1) for axis in (0, 1)],
    _root_of_shape(0, -2),
    *[
        _wrong_factor(
            "the scores are divided by sqrt(D): this mechanism has no such scale",
            of,
            lambda self, which=which: _given(self, 1) * _features(self, which) ** -0.5,
        )
        for which, of in ((0, (*_BILINEAR, *_COSINE)), (1, _BILINEAR))
    ],
    _wrong_factor(
        "the scores are divided by the root of the size of the hidden layer: additive attention "
        "has no scale",
        _ADDITIVE,
        lambda self: self.arrays[3].shape[-1] ** -0.5,
    ),
    _wrong_factor(
        "the scores are divided by sqrt(Dq), the root of the size of a query: additive attention "
        "has no scale",
        _ADDITIVE,
        lambda self: _features(self) ** -0.5,
    ),
    _wrong_factor(
        "the given scale is ignored",
        (*_DOT, *_COSINE),
        lambda self: self.usual_factor(),
        ("scale",),
    ),
    _wrong_factor(
        "the products are divided by the given scale: multiply them by it",
        (*_DOT, *_COSINE),
        lambda self: (
            self.usual_factor() if self.option("scale") is None else 1 / self.option("scale")
        ),
        ("scale",),
    ),
    _wrong_factor(
        "the given scale comes on top of 1 / sqrt(D): it must stand in its place",
        _DOT,
        lambda self: _given(self, 1) * self.usual_factor(),
        ("scale",),
    ),
]


class BiasBeforeScale(Unfused):
    """the bias is added before the scale: scale the products first, then add the bias"""

    of, needs = (*_DOT, *_COSINE), ("bias",)

    def logits(self):
        return self.capped(self.factor() * self.biased(self.products()))


class BiasSubtracted(Unfused):
    """the bias is subtracted: add it to the scores"""

    needs = ("bias",)

    def biased(self, capped):
        return 2 * capped - super().biased(capped)


class CapAfterBias(Unfused):
    """the softcap comes after the bias: cap the scores first, then add the bias"""

    needs = ("softcap", "bias")

    def logits(self):
        return self.capped(self.biased(self.scores()))


class CapNotMultiplied(Unfused):
    """the softcap is tanh(s / c) alone: multiply that by c"""

    needs = ("softcap",)

    def capped(self, scores):
        cap = self.option("softcap")
        return scores if cap is None else np.tanh(scores / cap)


class SlopeAdded(Unfused):
    """the slope times the distance is added: subtract it"""

    needs = ("slope",)

    def biased(self, capped):
        bias = 0 if self.option("bias") is None else self.option("bias")
        return 2 * (capped + bias) - super().biased(capped)


class QueryAndKeySwapped(Unfused):
    """query and key are exchanged: row i of the scores must belong to query i"""

    of = _OF_KEYS

    def taken(self, arrays):
        query, key, *rest = super().taken(arrays)
        return [key, query, *rest]


class ScoresTransposed(Unfused):
    """the scores are transposed: query i must be the row, key j the column"""

    of = ("attend",)

    def taken(self, arrays):
        scores, value = super().taken(arrays)
        return [turned(scores), value]


class KeyReshaped(Unfused):
    """the key is reshaped to (..., D, Tk), which mixes its rows: exchange its last two axes"""

    of = _DOT

    def products(self):
        query, key = self.arrays[:2]
        return query @ key.reshape(*key.shape[:-2], key.shape[-1], key.shape[-2])


class KeyNotTransposed(Unfused):
    """the key is not transposed: the products are query @ np.swapaxes(key, -1, -2)"""

    of = (*_DOT, *_COSINE, *_BILINEAR)

    def taken(self, arrays):
        query, key, *rest = super().taken(arrays)
        return [query, turned(key), *rest]


class KeyAndValueExchanged(Unfused):
    """key and value are exchanged: score the keys, and sum the values"""

    of = _OF_KEYS

    def taken(self, arrays):
        query, key, value, *rest = super().taken(arrays)
        return [query, value, key, *rest]


class KeyWithItself(Unfused):
    """the query is not used: the scores are of the keys with themselves"""

    of = _OF_KEYS

    def taken(self, arrays):
        _, key, *rest = super().taken(arrays)
        return [key, key, *rest]


class QueryWithItself(Unfused):
    """the key is not used: the scores are of the queries with themselves"""

    of = _OF_KEYS

    def taken(self, arrays):
        query, _, *rest = super().taken(arrays)
        return [query, query, *rest]


class BatchSummed(Unfused):
    """the scores are summed over the batch axes: each element must have scores of its own"""

    def products(self):
        products = super().products()
        return products.sum(axis=tuple(range(products.ndim - 2)), keepdims=True) + 0 * products


# ---- multiplicative


class WeightTransposed(Unfused):
    """the weight is transposed: the score is q W k, with W of shape (Dq, Dk)"""

    of = _BILINEAR

    def products(self):
        query, key, _, weight = self.arrays  # einsum stretches axes of 1, where `@` raises
        return np.einsum("...id,ed,...je->...ij", query, weight, key)


class WeightNotUsed(Unfused):
    """the weight is not used: the score is q W k"""

    of = _BILINEAR

    def products(self):
        return self.arrays[0] @ turned(self.arrays[1])


# ---- additive


class _Additive(Unfused):
    of = _ADDITIVE

    def parts(self):
        """What is added: of the query, of the key, and the bias."""
        query, key = self.arrays[:2]
        Wq, Wk, b = (self.option(f"{x}") for x in ("query_weight", "key_weight", "score_bias"))
        q = query if Wq is None else query @ Wq
        k = key if Wk is None else key @ Wk
        return q[..., :, None, :], k[..., None, :, :], self.dtype.type(0) if b is None else b

    def products(self):
        return self.hidden(*self.parts()) @ self.arrays[3]

    def hidden(self, q, k, b):
        return np.tanh(q + k + b)


class TanhForgotten(_Additive):
    """the tanh is forgotten: the score is v . tanh(q Wq + k Wk)"""

    def hidden(self, q, k, b):
        return q + k + b


class TanhBeforeSum(_Additive):
    """the tanh comes before the sum: add the projected query and key first"""

    def hidden(self, q, k, b):
        return np.tanh(q + b) + np.tanh(k)


class TanhAtTheEnd(_Additive):
    """the tanh is taken of the whole score: take it before the product with v"""

    def products(self):
        q, k, b = self.parts()
        return np.tanh((q + k + b) @ self.arrays[3])


class SigmoidForTanh(_Additive):
    """a sigmoid stands in the place of the tanh"""

    def hidden(self, q, k, b):
        return 1 / (1 + np.exp(-(q + k + b)))


class ReluForTanh(_Additive):
    """a ReLU stands in the place of the tanh"""

    def hidden(self, q, k, b):
        return np.maximum(q + k + b, 0)


class Subtracted(_Additive):
    """the projected key is subtracted from the query: add it"""

    def hidden(self, q, k, b):
        return np.tanh(q - k + b)


class Multiplied(_Additive):
    """the projected query and key are multiplied: add them"""

    def hidden(self, q, k, b):
        return np.tanh(q * k + b)


class VectorNotUsed(_Additive):
    """the score vector is not used: the hidden units are summed without their weights"""

    def products(self):
        return self.hidden(*self.parts()).sum(axis=-1)


class BiasTwice(_Additive):
    """score_bias is added twice, to the query and to the key: add it once"""

    needs = ("score_bias",)

    def hidden(self, q, k, b):
        return np.tanh(q + k + 2 * b)


class WeightsExchanged(_Additive):
    """query_weight and key_weight are exchanged"""

    needs = ("query_weight", "key_weight")

    def read(self, options):
        options = super().read(options)
        pair = {"query_weight": "key_weight", "key_weight": "query_weight"}
        return {pair.get(name, name): value for name, value in options.items()}


# ---- cosine


class _Cosine(Unfused):
    of = _COSINE

    def products(self):
        query, key = self.arrays[:2]
        return self.norm(query, "query") @ turned(self.norm(key, "key"))

    def norm(self, x, which):
        size = np.sqrt((x * x).sum(axis=-1, keepdims=True))
        return np.where(size == 0, 0, x / size)


class NotNormalised(_Cosine):
    """the vectors are not divided by their lengths: this is the plain product"""

    def norm(self, x, which):
        return x


class OnlyQueryNormalised(_Cosine):
    """only the query is divided by its length: divide by that of the key, too"""

    def norm(self, x, which):
        return x if which == "key" else super().norm(x, which)


class OnlyKeyNormalised(_Cosine):
    """only the key is divided by its length: divide by that of the query, too"""

    def norm(self, x, which):
        return x if which == "query" else super().norm(x, which)


class SquaredLength(_Cosine):
    """the vectors are divided by the squares of their lengths: the square root is missing"""

    def norm(self, x, which):
        return super().norm(x, which) / np.sqrt((x * x).sum(axis=-1, keepdims=True))


class LengthOverTime(_Cosine):
    """the lengths are taken over time (axis -2): take them over the features, the last axis"""

    def norm(self, x, which):
        return x / np.sqrt((x * x).sum(axis=-2, keepdims=True))


class LengthOfAll(_Cosine):
    """the length is taken of the whole array: take that of each row, axis=-1"""

    def norm(self, x, which):
        return x / np.sqrt((x * x).sum())


class LengthsWithoutAxis(_Cosine):
    """the lengths have lost their axis, and those of the queries divide the columns: use \
keepdims=True"""

    def products(self):
        query, key = self.arrays[:2]
        lengths = [np.sqrt((x * x).sum(axis=-1)) for x in (query, key)]
        return query @ turned(key) / (lengths[0] * lengths[1])


def _longer(size):
    """A small number in the lengths, against 0 / 0."""

    class Longer(_Cosine):
        def norm(self, x, which):
            return x / (np.sqrt((x * x).sum(axis=-1, keepdims=True)) + self.dtype.type(size))

    Longer.__doc__ = (
        f"{size:g} is added to the lengths: divide by the lengths themselves, or by the larger one "
        "of them and a tiny number"
    )
    return Longer


class ZeroVectorIsNaN(_Cosine):
    """a vector of zeros gives 0 / 0, NaN: its score must be 0"""

    def norm(self, x, which):
        return x / np.sqrt((x * x).sum(axis=-1, keepdims=True))


MISTAKES: list[type[Unfused]] = [
    *FACTORS,
    BiasBeforeScale,
    BiasSubtracted,
    CapAfterBias,
    CapNotMultiplied,
    SlopeAdded,
    QueryAndKeySwapped,
    KeyNotTransposed,
    KeyAndValueExchanged,
    ScoresTransposed,
    KeyReshaped,
    KeyWithItself,
    QueryWithItself,
    BatchSummed,
    WeightTransposed,
    WeightNotUsed,
    TanhForgotten,
    TanhBeforeSum,
    TanhAtTheEnd,
    SigmoidForTanh,
    ReluForTanh,
    Subtracted,
    Multiplied,
    VectorNotUsed,
    BiasTwice,
    WeightsExchanged,
    NotNormalised,
    OnlyQueryNormalised,
    OnlyKeyNormalised,
    SquaredLength,
    LengthOverTime,
    LengthOfAll,
    LengthsWithoutAxis,
    *[_longer(size) for size in (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)],
    ZeroVectorIsNaN,
]

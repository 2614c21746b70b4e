"""The usual mistakes in attention, each as the formula with one step done wrong.

`check` runs each on the inputs on which a student's function is wrong; the one that gives the same
numbers is what the student did. The softmax and the context are here, the scores and the masks in
files of their own. `usual` lists them all, those that are made most often first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from attnc.teaching import _mistakes_of_masks, _mistakes_of_scores
from attnc.teaching._unfused import Unfused, turned

__all__ = ["pairs", "usual"]


class _OverAxis(Unfused):
    axis: int | None = -1
    safe = False  # no 0 / 0 where nothing is allowed along that axis

    def softmax(self, x):
        top = x.max(axis=self.axis, keepdims=True)
        powers = np.exp(x - (np.where(top == -np.inf, 0, top) if self.safe else top))
        total = powers.sum(axis=self.axis, keepdims=True)
        return powers / (np.where(total == 0, 1, total) if self.safe else total)


class OverQueries(_OverAxis):
    """the softmax runs over the queries (axis -2): it must run over the keys, axis -1"""

    axis = -2


class OverFirstAxis(_OverAxis):
    """the softmax runs over the first axis (axis 0): it must run over the keys, axis -1"""

    axis = 0


class OverSecondAxis(_OverAxis):
    """the softmax runs over axis 1, which is that of the keys without batch axes alone: it must \
run over the last one, axis -1"""

    axis = 1


class OverAll(_OverAxis):
    """the softmax runs over all axes at once: it must run over the keys of each query, axis -1"""

    axis = None


def _safe(over):
    """The same mistake of a student who thought of rows without keys."""
    return type(f"Safe{over.__name__}", (over,), {"__doc__": over.__doc__, "safe": True})


class SumOverQueries(Unfused):
    """the exponentials are divided by their sum over the queries (axis -2): it must be the sum \
over the keys, axis -1"""

    def softmax(self, x):
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-2, keepdims=True)


# Without large scores they would be taken for another one, where rows without keys are NaN.
_LARGE = ("large scores",)


class NoMaximum(Unfused):
    """the softmax does not subtract the maximum, and exp overflows at large scores: inf / inf"""

    needs = _LARGE

    def softmax(self, x):
        powers = np.exp(x)
        return powers / self.total(powers, self.dtype.type(0))


class NoMaximumButSafe(Unfused):
    """the softmax does not subtract the maximum: exp is inf at large scores, and 0 in rows of \
very negative ones"""

    needs = _LARGE

    def softmax(self, x):
        powers = np.exp(x)
        total = self.total(powers, self.dtype.type(0))
        return np.where(total == 0, 0, powers / total)


class MaximumOfAll(Unfused):
    """the softmax subtracts the maximum of all scores, and rows far below it are 0 / 0: subtract \
that of each row"""

    needs = _LARGE

    def softmax(self, x):
        top = x.max()
        powers = np.exp(x - top)
        return powers / self.total(powers, top)


class NotNormalised(Unfused):
    """the weights are exp(s) alone: divide them by their sum over the keys"""

    def softmax(self, x):
        return np.exp(x)


class NotNormalisedButShifted(Unfused):
    """the weights are exp(s - max) alone: divide them by their sum over the keys"""

    def softmax(self, x):
        return np.exp(x - x.max(axis=-1, keepdims=True))


class NoKeepdims(Unfused):
    """the sum over the keys has lost its axis, and the rows are divided by each other's sums: use \
keepdims=True"""

    def softmax(self, x):
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1)


class NoKeepdimsAtAll(Unfused):
    """the maximum and the sum over the keys have lost their axis, and are those of other rows: \
use keepdims=True"""

    def softmax(self, x):
        powers = np.exp(x - x.max(axis=-1))
        return powers / powers.sum(axis=-1)


class NoKeepdimsInMaximum(Unfused):
    """the maximum over the keys has lost its axis, and each key is shifted by that of another \
row: use keepdims=True"""

    def softmax(self, x):
        powers = np.exp(x - x.max(axis=-1))
        return powers / powers.sum(axis=-1, keepdims=True)


class Linear(Unfused):
    """the exp is forgotten: the scores are divided by their sum"""

    def softmax(self, x):
        x = np.where(x == -np.inf, 0, x)
        return x / x.sum(axis=-1, keepdims=True)


class NoSoftmax(Unfused):
    """the softmax is forgotten: the scores themselves are the weights"""

    def softmax(self, x):
        return np.where(x == -np.inf, 0, x)


class Logarithm(Unfused):
    """the weights are the logarithm of the softmax"""

    def softmax(self, x):
        return np.log(super().softmax(x))


class Twice(Unfused):
    """the softmax is taken twice"""

    def softmax(self, x):
        once = super().softmax(x)
        return super().softmax(np.where(x == -np.inf, x, once))


class Largest(Unfused):
    """each query takes the key of its largest score alone: the softmax weighs all"""

    def softmax(self, x):
        return (np.arange(x.shape[-1]) == x.argmax(axis=-1)[..., None]).astype(self.dtype)


class Sigmoid(Unfused):
    """a sigmoid stands in the place of the softmax: weights must sum to 1"""

    def softmax(self, x):
        return 1 / (1 + np.exp(-x))


class Uniform(Unfused):
    """all keys get the same weight: the context is a mean of the values"""

    def softmax(self, x):
        seen = (x != -np.inf).astype(self.dtype)
        total = seen.sum(axis=-1, keepdims=True)
        return np.where(total == 0, 0, seen / total)


def _added(size):
    """A small number in the sum."""

    class Added(Unfused):
        def total(self, powers, top):
            return super().total(powers, top) + self.dtype.type(size)

    Added.__doc__ = (
        f"{size:g} is added to the sum of the softmax, so that weights do not sum to 1: subtract "
        "the maximum, and no sum is 0 but that of a row without keys"
    )
    return Added


class TimesKey(Unfused):
    """the values are not used: the weights are multiplied with the keys"""

    of = tuple(f"{x}_attention" for x in ("dot_product", "multiplicative", "additive", "cosine"))

    def context(self):
        return self.weights() @ self.arrays[1]


class WeightsTransposed(Unfused):
    """the weights are transposed in the product with the values: c_i = sum_j w_ij v_j"""

    def context(self):
        return turned(self.weights()) @ self.value


class EntryByEntry(Unfused):
    """the weights and the values are multiplied entry by entry (*): it must be a matrix \
product (@)"""

    def context(self):
        return self.weights() * self.value


class NoContext(Unfused):
    """the weights are returned in the place of the context: multiply them with the values"""

    def context(self):
        return self.weights()


class ScaledTooLate(Unfused):
    """the scale comes after the softmax: scale the products before it"""

    of = ("dot_product_attention",)

    def scores(self):
        return self.products()

    def weights(self):
        return self.factor() * super().weights()


class FirstOfBatch(Unfused):
    """the weights of the first batch element are used for all of them"""

    def weights(self):
        weights = super().weights()
        first = weights[(slice(0, 1),) * (weights.ndim - 2)]
        return np.broadcast_to(first, weights.shape)


class MeanOverQueries(Unfused):
    """the context is averaged over the queries: each query has a context of its own"""

    def context(self):
        context = super().context()
        return np.broadcast_to(context.mean(axis=-2, keepdims=True), context.shape)


class ValuesNotWeighted(Unfused):
    """the weights are not used: the context is the sum of all values"""

    def weights(self):
        return np.ones_like(super().weights())


_SOFTMAX: list[type[Unfused]] = [
    OverQueries,
    OverFirstAxis,
    OverSecondAxis,
    OverAll,
    *[_safe(over) for over in (OverQueries, OverFirstAxis, OverSecondAxis, OverAll)],
    SumOverQueries,
    NoMaximum,
    NoMaximumButSafe,
    MaximumOfAll,
    NotNormalised,
    NotNormalisedButShifted,
    NoKeepdims,
    NoKeepdimsAtAll,
    NoKeepdimsInMaximum,
    Linear,
    NoSoftmax,
    Logarithm,
    Twice,
    Largest,
    Sigmoid,
    Uniform,
]
_CONTEXT: list[type[Unfused]] = [
    TimesKey,
    WeightsTransposed,
    EntryByEntry,
    NoContext,
    ScaledTooLate,
    FirstOfBatch,
    MeanOverQueries,
    ValuesNotWeighted,
    *[_added(size) for size in (1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)],
]
_ALL = [*_SOFTMAX, *_mistakes_of_scores.MISTAKES, *_mistakes_of_masks.MISTAKES, *_CONTEXT]
_STEPS = {name for name in vars(Unfused) if not name.startswith("_")} - {"of", "needs"}


def usual(name: str, given: Iterable[str]) -> list[type[Unfused]]:
    """The usual mistakes in an attention function.

    Parameters
    ----------
    name : str
        Of the function.
    given : iterable of str
        The options that are given, and the traits of the inputs: without a mask none is inverted.

    Returns
    -------
    list of type
        Classes on `Unfused`; the docstring of each says what is wrong.
    """
    given = set(given)
    return [m for m in _ALL if (not m.of or name in m.of) and given >= set(m.needs)]


def _steps(mistake):
    """The steps that a mistake does itself."""
    own = [base for base in mistake.__mro__ if base not in (Unfused, object)]
    return {name for base in own for name in vars(base)} & _STEPS


def pairs(mistakes: Iterable[type[Unfused]]) -> Iterator[type[Unfused]]:
    """Two mistakes at once.

    Parameters
    ----------
    mistakes : iterable of type

    Yields
    ------
    type
        A class on two that do not override the same step, but for how options are read.
    """
    for one, other in itertools.combinations(mistakes, 2):
        akin = issubclass(one, other) or issubclass(other, one)
        if not akin and not (_steps(one) & _steps(other)) - {"read"}:
            text = f"{one.__doc__}; and {other.__doc__}"
            yield type("Two", (one, other), {"__doc__": text, "needs": one.needs + other.needs})

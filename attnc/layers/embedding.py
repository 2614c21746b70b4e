"""Embedding: a learned vector for each token."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import SUM_BLOCK, generator, integer, integer_array, quiet, sum_rows
from ..gradients import Gradients, require_incoming
from ..typing import Array, DType, Integers, Seed
from .base import positive
from .torch_weights import TorchArray, TorchWeights


class Embedding(TorchWeights):
    """A row of a learned table for each token: ``y = W[token]``.

    Parameters
    ----------
    vocabulary_size : int
        Number of tokens; tokens are integers in 0..vocabulary_size - 1.
    embedding_size : int
        Size of a token's vector.
    padding_index : int, optional
        A token whose vector starts at zero and stays there: it gets no gradient.
    rng : None, int or numpy.random.Generator
        Initial W, normal with variance 1 / embedding_size.
    dtype : float32 or float64
        Of the table and the output.

    Attributes
    ----------
    parameters : dict
        ``weight (vocabulary_size, embedding_size)``.

    Raises
    ------
    ValueError
        If a size is not a positive integer or padding_index is outside the vocabulary.
    TypeError
        If dtype is neither float32 nor float64, or padding_index is not an integer.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        padding_index: int | None = None,
        *,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        shape = positive(self, vocabulary_size=vocabulary_size, embedding_size=embedding_size)
        self.vocabulary_size, self.embedding_size = vocabulary_size, embedding_size = shape
        self.padding_index = padding_index = token_index(
            type(self).__name__, "padding_index", padding_index, vocabulary_size
        )
        weight = generator(type(self).__name__, rng).normal(0, embedding_size**-0.5, shape)
        if padding_index is not None:
            weight[padding_index] = 0
        self.add_parameter("weight", weight)

    def __call__(self, tokens: Integers, *, train: bool = False) -> Array:
        """Look the tokens up.

        Parameters
        ----------
        tokens : array_like of int, any shape
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (..., embedding_size)
            One row a token.

        Raises
        ------
        TypeError
            If tokens are not integers.
        ValueError
            If a token is outside the vocabulary.
        """
        return self._vjp(tokens)[0]

    def _vjp(self, tokens, *, train=False):
        where = type(self).__name__
        tokens = integer_array(where, "tokens", tokens)
        check_tokens(where, "tokens", tokens, self.vocabulary_size)
        tokens = tokens.astype(np.intp)  # a copy, which the caller cannot change
        y = self._parameters["weight"].take(tokens, axis=0)

        @quiet
        def pullback(dy=None):
            require_incoming(where, dy=dy)
            dy = self._real("dy", dy, *y.shape).reshape(-1, self.embedding_size)
            if self._frozen["weight"].value:
                return Gradients({})
            words, sums = sum_by_token(tokens.reshape(-1), dy)
            if self.padding_index is not None:
                learned = words != self.padding_index
                words, sums = words[learned], sums[learned]
            self.add_gradient("weight", sums, rows=words)
            return Gradients({})  # tokens are integers: no gradient

        return y, pullback

    def _torch_arrays(self) -> dict[str, TorchArray]:
        weight = self._parameters["weight"]
        return {"weight": TorchArray(weight.shape, (weight,))}


def token_index(where: str, name: str, value: Any, vocabulary_size: int) -> int | None:
    """`value` as an int that is a token of the vocabulary, or None."""
    if value is None:
        return None
    index = integer(where, name, value)
    if not 0 <= index < vocabulary_size:
        raise ValueError(f"{where}: {name} must lie in 0..{vocabulary_size - 1}, got {index}")
    return index


def check_tokens(where: str, name: str, tokens: Array, vocabulary_size: int) -> None:
    """Raise unless all of an array of integers are tokens of the vocabulary."""
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < vocabulary_size:
        raise ValueError(
            f"{where}: {name} must lie in 0..{vocabulary_size - 1}, "
            f"got {tokens.min()}..{tokens.max()}"
        )


def sum_by_token(tokens, rows):
    """The distinct tokens, and the sum of the rows of each.

    Most tokens are there a few times: in the order of their counts, the first rows of all are
    taken, then the second ones are added to those that have two, and so on. A token that is there
    often is summed on its own, in blocks. This is faster than np.add.at and np.add.reduceat.
    """
    order = np.argsort(tokens, kind="stable")
    in_order = tokens[order]
    starts = np.flatnonzero(np.diff(in_order, prepend=-1))
    counts = np.diff(starts, append=len(tokens))
    by_count = np.argsort(-counts, kind="stable")
    starts, counts = starts[by_count], counts[by_count]
    sums = rows.take(order[starts], axis=0)
    often = np.count_nonzero(counts > SUM_BLOCK)
    for k in range(often):
        sums[k] = sum_rows(rows[order[starts[k] : starts[k] + counts[k]]])
    for n in range(1, counts[often] if often < len(counts) else 0):
        more = slice(often, np.count_nonzero(counts > n))
        sums[more] += rows[order[starts[more] + n]]
    return in_order[starts], sums

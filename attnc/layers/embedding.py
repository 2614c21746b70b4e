"""Embedding: a learned vector for each token."""

import numpy as np

from ..gradients import Gradients
from .base import Layer, positive


class Embedding(Layer):
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
        If dtype is neither float32 nor float64.
    """

    def __init__(
        self, vocabulary_size, embedding_size, padding_index=None, *, rng=None, dtype="float32"
    ):
        super().__init__(dtype)
        positive(self, vocabulary_size=vocabulary_size, embedding_size=embedding_size)
        if padding_index is not None and not 0 <= padding_index < vocabulary_size:
            raise self._error(
                f"padding_index must lie in 0..{vocabulary_size - 1}, got {padding_index}"
            )
        self.vocabulary_size = vocabulary_size
        self.embedding_size = embedding_size
        self.padding_index = padding_index
        shape = (vocabulary_size, embedding_size)
        weight = np.random.default_rng(rng).normal(0, embedding_size**-0.5, shape)
        if padding_index is not None:
            weight[padding_index] = 0
        self.add_parameter("weight", weight)

    def __call__(self, tokens, *, train=False):
        """Look the tokens up.

        Parameters
        ----------
        tokens : array_like of int, any shape
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (*tokens.shape, embedding_size)

        Raises
        ------
        TypeError
            If tokens are not integers.
        ValueError
            If a token is outside the vocabulary.
        """
        return self._vjp(tokens)[0]

    def _vjp(self, tokens, *, train=False):
        tokens = np.asarray(tokens)
        if tokens.dtype.kind not in "iu" and tokens.size:
            raise self._error(
                f"tokens must be integers, got {tokens.dtype} (use .astype(int))", TypeError
            )
        tokens = tokens.astype(np.intp)  # a copy: the pullback outlives the caller's
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary_size:
            raise self._error(
                f"tokens must lie in 0..{self.vocabulary_size - 1}, "
                f"got {tokens.min()}..{tokens.max()}"
            )
        y = self._parameters["weight"].take(tokens, axis=0)

        def pullback(dy):
            dy = self._real("dy", dy, *y.shape).reshape(-1, self.embedding_size)
            # Most tokens are there once or a few times: this is faster than np.add.at, and than
            # sorting them for np.add.reduceat.
            sums = {}
            for token, row in zip(tokens.reshape(-1).tolist(), dy, strict=True):
                sums[token] = sums[token] + row if token in sums else row
            sums.pop(self.padding_index, None)
            for token, row in sums.items():
                self._gradients["weight"][token] += row
            return Gradients({})  # tokens are integers: no gradient

        return y, pullback

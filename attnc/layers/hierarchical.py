"""HierarchicalAttention: from the words of sentences to sentences, from these to a document."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, overload

import numpy as np

from ..arrays import flag, generator, integer_array, integer_lengths, like, quiet
from ..gradients import Gradients, require_incoming, shows_shapes, vjp
from ..typing import Array, DType, Integers, Real, Seed
from .base import Layer, positive
from .pooling import AttentionPooling
from .recurrent import GRU


@shows_shapes
class HierarchicalResult(NamedTuple):
    """What `HierarchicalAttention` returns with its weights."""

    context: Array
    word_weights: Array
    sentence_weights: Array


class HierarchicalAttention(Layer):
    """A document as one vector: attention over the words of each sentence, then over sentences.

    ::

        h_it = GRU of words, both directions      s_i = sum_t a_it h_it     attention over words t
        h_i  = GRU of the s_i, both directions    v   = sum_i a_i h_i       attention over sentences

    Yang et al. (2016), "Hierarchical attention networks for document classification", section 2.2.
    Each attention is an `AttentionPooling`: ``u = tanh(h W + b), a = softmax(u . u_w)``, eq. 5-10.

    Parameters
    ----------
    input_size : int
        Size of a word's vector.
    state_size : int, optional
        Size of the state of each direction of both GRUs; the paper has 50. None: without them, the
        attention is over the words as they are, and over the vectors s_i as they are.
    hidden_size : int, optional
        Size of u at both levels; that of h unless given. The paper has 100.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping a weight when called with ``train=True``.
    rng : None, int or numpy.random.Generator
        Initial parameters; see `GRU` and `AttentionPooling`.
    dtype : float32 or float64
        Of the parameters; the input is cast to it.

    Attributes
    ----------
    word_encoder, sentence_encoder : GRU or None
    word_attention, sentence_attention : AttentionPooling
    output_size : int
        Size of the document's vector: ``2 * state_size``, or input_size without GRUs.

    Raises
    ------
    ValueError
        If a size is not a positive integer or dropout is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.HierarchicalAttention(input_size=4, state_size=8, rng=0)
    >>> x = np.ones((2, 3, 5, 4))  # 2 documents of up to 3 sentences of up to 5 words
    >>> lengths = [[5, 2, 0], [4, 4, 1]]  # the first document has 2 sentences
    >>> output, pullback = attnc.vjp(layer, x, lengths, return_weights=True)
    >>> output.context.shape, output.sentence_weights.round(2)[0, 2]
    ((2, 16), np.float32(0.0))
    >>> (dx,) = pullback(np.ones_like(output.context))  # and adds into layer.gradients
    """

    def __init__(
        self,
        input_size: int,
        state_size: int | None = None,
        hidden_size: int | None = None,
        *,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        self.input_size = self.output_size = positive(self, input_size=input_size)[0]
        self.state_size = self.hidden_size = None
        rng = generator(type(self).__name__, rng)
        made: dict[str, Any] = {"rng": rng, "dtype": dtype}
        self.word_encoder = self.sentence_encoder = None
        if state_size is not None:
            (self.state_size,) = positive(self, state_size=state_size)
            self.output_size = 2 * self.state_size
            self.word_encoder = GRU(self.input_size, self.state_size, 1, True, **made)
            self.sentence_encoder = GRU(self.output_size, self.state_size, 1, True, **made)
        if hidden_size is not None:
            (self.hidden_size,) = positive(self, hidden_size=hidden_size)
        sizes = self.output_size, self.hidden_size
        self.word_attention = AttentionPooling(*sizes, dropout=dropout, **made)
        self.sentence_attention = AttentionPooling(*sizes, dropout=dropout, **made)
        self.dropout = self.word_attention.dropout

    @overload
    def __call__(
        self,
        x: Real,
        word_lengths: Integers | None = ...,
        sentence_lengths: Integers | None = ...,
        *,
        return_weights: Literal[False] = ...,
        train: bool = ...,
        rng: Seed = ...,
    ) -> Array: ...
    @overload
    def __call__(
        self,
        x: Real,
        word_lengths: Integers | None = ...,
        sentence_lengths: Integers | None = ...,
        *,
        return_weights: bool = ...,
        train: bool = ...,
        rng: Seed = ...,
    ) -> Any: ...
    def __call__(
        self,
        x: Real,
        word_lengths: Integers | None = None,
        sentence_lengths: Integers | None = None,
        *,
        return_weights: bool = False,
        train: bool = False,
        rng: Seed = None,
    ) -> Any:
        """The vectors of documents: compute, and remember nothing.

        Parameters
        ----------
        x : array_like, shape (B, S, T, input_size)
            B documents of up to S sentences of up to T words.
        word_lengths : int or array_like of int, shape (B, S), optional
            Words of each sentence, 0..T; what follows is padding and not read. A sentence without
            words is not attended to.
        sentence_lengths : int or array_like of int, shape (B,), optional
            Sentences of each document, 0..S. Unless given, a document ends with its last sentence
            that has a word. A document without words is 0.
        return_weights : bool
            Return a named tuple (context, word_weights, sentence_weights), weights (B, S, T) of the
            words in their sentence and (B, S) of the sentences.
        train : bool
            Whether to apply the layer's dropout to the weights.
        rng : None, int or numpy.random.Generator
            For the dropout.

        Returns
        -------
        ndarray, shape (B, output_size), or a named tuple

        Raises
        ------
        TypeError
            If x is not real, lengths are not integers, or an option is of a wrong kind.
        ValueError
            If a shape does not fit or a length is out of range.
        """
        return self._vjp(
            x, word_lengths, sentence_lengths, return_weights=return_weights, train=train, rng=rng
        )[0]

    @quiet
    def _vjp(
        self,
        x,
        word_lengths=None,
        sentence_lengths=None,
        *,
        return_weights=False,
        train=False,
        rng=None,
    ):
        where, given = type(self).__name__, x
        x = self._real("x", x, "B", "S", "T", self.input_size)
        words, sentences = self._lengths(x.shape, word_lengths, sentence_lengths)
        B, S, T, _ = x.shape
        weighted = flag(where, "return_weights", return_weights)
        options: dict[str, Any] = {"train": flag(where, "train", train), "return_weights": weighted}
        if train:
            options["rng"] = generator(where, rng)

        # The words of all sentences are one batch, (B * S, T, ...).
        h, back_to_words = _encoded(
            self.word_encoder, x.reshape(B * S, T, x.shape[3]), words.reshape(-1)
        )
        over_words: Any = self.word_attention
        pooled, back_to_h = vjp(over_words, h, key_lengths=words.reshape(-1), **options)
        vectors = (pooled.context if weighted else pooled).reshape(B, S, self.output_size)
        h, back_to_vectors = _encoded(self.sentence_encoder, vectors, sentences)
        over_sentences: Any = self.sentence_attention
        found, back_to_sentences = vjp(over_sentences, h, key_mask=words > 0, **options)
        output = found
        if weighted:
            word_weights = pooled.weights.reshape(B, S, T)
            output = HierarchicalResult(found.context, word_weights, found.weights)

        @quiet
        def pullback(dcontext=None, *, dword_weights=None, dsentence_weights=None):
            incoming = {"dword_weights": dword_weights, "dsentence_weights": dsentence_weights}
            require_incoming(where, dcontext=dcontext, **incoming)
            for name, gradient in incoming.items():
                if gradient is not None and not weighted:
                    raise self._error(f"{name} must be None without return_weights, got a gradient")
            dcontext = self._incoming("dcontext", dcontext, (B, self.output_size))
            dword_weights = self._incoming("dword_weights", dword_weights, (B, S, T))
            dsentence_weights = self._incoming("dsentence_weights", dsentence_weights, (B, S))
            dvectors = None
            if dcontext is not None or dsentence_weights is not None:
                dvectors = back_to_vectors(
                    back_to_sentences(dcontext, dweights=dsentence_weights).x
                )
                dvectors = dvectors.reshape(B * S, self.output_size)
            if dword_weights is not None:
                dword_weights = dword_weights.reshape(B * S, T)
            dx = back_to_words(back_to_h(dvectors, dweights=dword_weights).x)
            return Gradients({"x": like(dx.reshape(x.shape), given)})

        return output, pullback

    def _lengths(self, shape, words, sentences):
        """Words of every sentence (B, S), 0 of those that are padding, and sentences (B,)."""
        where, (B, S, T, _) = type(self).__name__, shape
        given = words is not None
        words = integer_array(where, "word_lengths", words if given else T)
        if words.ndim and words.shape != (B, S):
            raise self._error(f"word_lengths must have shape {(B, S)}, got {words.shape}")
        words = np.broadcast_to(words, (B, S)).reshape(-1)
        words = integer_lengths(where, "word_lengths", words, B * S, T).reshape(B, S)
        if sentences is None:
            sentences = ((words > 0) * np.arange(1, S + 1)).max(axis=1, initial=0) if given else S
        sentences = integer_lengths(where, "sentence_lengths", sentences, B, S)
        return np.where(np.arange(S) < sentences[:, None], words, 0), sentences


def _encoded(encoder, x, lengths):
    """The outputs of an encoder, or x itself without one; and the way back to x."""
    if encoder is None:
        return x, lambda dx: dx
    (outputs, _), back = vjp(encoder, x, lengths=lengths)
    return outputs, lambda doutputs: back(doutputs).x

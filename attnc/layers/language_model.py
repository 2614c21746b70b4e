"""LanguageModel: layers of causal self-attention, from tokens to scores of the next one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import flag, generator, integer_lengths, probability, quiet
from ..gradients import shows_shapes
from ..typing import Array, DType, Integers, Seed
from .base import positive
from .embedding import check_tokens, token_index
from .feedforward import Activation
from .token_model import after_last
from .transformer_model import TransformerModel
from .transformer_stack import TransformerEncoder


@shows_shapes
class LanguageModelOutput(NamedTuple):
    """What `LanguageModel` returns with ``return_weights=True`` and without labels."""

    logits: Array
    weights: Array


@shows_shapes
class LanguageModelLoss(NamedTuple):
    """What `LanguageModel` returns with ``return_weights=True`` and labels."""

    loss: float
    weights: Array


class LanguageModel(TransformerModel):
    """Transformer without an encoder: from tokens to scores of the token that follows each.

    ::

        tokens -> embedding + positions -> layers, each token attends to itself and those before it
               -> output -> logits

    Radford et al. (2019), "Language models are unsupervised multitask learners" (GPT-2), is this
    with ``positions="learned"``. Embeddings are multiplied by sqrt(size) before positions are added
    to them, as in `Transformer`.

    Parameters
    ----------
    vocabulary_size : int
        Size of the vocabulary.
    size : int
        Size of a token's vector, and of every step in the layers.
    num_heads : int
        How many heads each attention has: a divisor of size.
    layers : int
        How many layers.
    feedforward_size : int, optional
        Hidden units of the feed-forward networks; 4 size unless given.
    positions : {'sinusoidal', 'learned', 'rotary', 'alibi', None}
        What tells the order of tokens: see `Transformer`. With None only the causal mask does.
    max_length : int, optional
        Tokens of a sequence at most; needed for 'learned'. Longer ones raise.
    tied : bool
        Whether the output layer has the transposed table of `embedding` for its weight (Press and
        Wolf 2017, "Using the output embedding to improve language models").
    padding_index : int, optional
        The token that fills up short sequences; its vector is 0 and not learned. As a label it does
        not count.
    norm : {'pre', 'post'}
        As in `TransformerEncoderLayer`; here 'pre' unless given, as in GPT-2.
    activation : {'relu', 'gelu', 'gelu_tanh', 'swiglu'}
        As in `FeedForward`; here 'gelu' unless given, as in GPT-2.
    normalization, bias, num_kv_heads
        As in `TransformerEncoderLayer`. The bias of the output layer is among those.
    final_norm : bool, optional
        Whether a norm follows the last layer. By default there is one for ``norm="pre"`` and none
        for ``norm="post"``: see `TransformerEncoder`.
    dropout : float
        Probability, in training, of dropping a number: of the sum of embeddings and positions, and
        within the layers where `TransformerEncoderLayer` says.
    rng : None, int or numpy.random.Generator
        Initial weights, as in `Transformer`.
    dtype : float32 or float64

    Attributes
    ----------
    embedding : Embedding
    position_layer : SinusoidalPositions or LearnedPositions or None
    decoder : TransformerEncoder
        The layers; called with ``causal=True``.
    output : Linear

    Raises
    ------
    ValueError
        If a size does not fit, or options contradict each other.
    TypeError
        If an option is of the wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> model = attnc.LanguageModel(50, 16, num_heads=2, layers=3, rng=0)
    >>> tokens = np.array([[5, 7, 9, 4], [4, 2, 3, 1]])
    >>> model(tokens).shape
    (2, 4, 50)
    >>> loss, pullback = attnc.vjp(model, tokens[:, :-1], labels=tokens[:, 1:])
    >>> gradients = pullback()  # of the loss: adds into model.gradients; tokens have none
    """

    def __init__(
        self,
        vocabulary_size: int,
        size: int,
        num_heads: int,
        layers: int,
        *,
        feedforward_size: int | None = None,
        positions: str | None = "sinusoidal",
        max_length: int | None = None,
        tied: bool = True,
        padding_index: int | None = None,
        norm: str = "pre",
        activation: Activation = "gelu",
        normalization: str = "layer",
        final_norm: bool | None = None,
        bias: bool = True,
        num_kv_heads: int | None = None,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        where = type(self).__name__
        self.vocabulary_size, self.size, self.num_heads, self.layers = positive(
            self, vocabulary_size=vocabulary_size, size=size, num_heads=num_heads, layers=layers
        )
        self.padding_index = token_index(
            where, "padding_index", padding_index, self.vocabulary_size
        )
        self.tied = flag(where, "tied", tied)
        self.dropout = probability(where, "dropout", dropout)
        self._set_positions(positions, max_length)
        rng = generator(where, rng)
        self.position_layer = self._position_layer(rng)
        self.embedding = self._embedding(self.vocabulary_size, rng)
        self.feedforward_size = 4 * self.size if feedforward_size is None else feedforward_size
        shared: dict[str, Any] = {
            "num_heads": self.num_heads,
            "feedforward_size": self.feedforward_size,
            "norm": norm,
            "activation": activation,
            "normalization": normalization,
            "bias": bias,
            "num_kv_heads": num_kv_heads,
            "final_norm": final_norm,
        }
        inside = {"rotary": positions == "rotary", "dropout": self.dropout, "dtype": self.dtype}
        self.decoder = TransformerEncoder(self.layers, self.size, **shared, **inside, rng=rng)
        for name in shared:
            setattr(self, name, getattr(self.decoder, name))
        self.output = self._output(self.embedding, self.bias, rng)

    def __call__(
        self,
        tokens: Integers,
        lengths: Integers | None = None,
        *,
        labels: Integers | None = None,
        label_smoothing: float = 0.0,
        return_weights: bool = False,
        train: bool = False,
        rng: Seed = None,
    ) -> Any:
        """Logits of the token that follows each token: compute, and remember nothing.

        Parameters
        ----------
        tokens : array_like of int, shape (B, T)
        lengths : int or array_like of int, shape (B,), optional
            Valid tokens of each sequence; the rest is padding and not read. Without them every
            token is read, also padding_index: it comes after the others and changes none of their
            scores.
        labels : array_like of int, shape (B, T), optional
            The tokens to be predicted, ``tokens`` one later. Given, the loss is returned in place
            of the logits, which are then computed only where a label is not padding:
            `losses.linear_cross_entropy`.
        label_smoothing : float
            Of that loss.
        return_weights : bool
            Whether to return the weights of self-attention too.
        train : bool
            Whether to apply dropout.
        rng : None, int or numpy.random.Generator
            For the dropout: one generator, from which all places draw in turn.

        Returns
        -------
        logits : ndarray, shape (B, T, vocabulary_size)
            Alone unless return_weights asks for a named tuple. With labels ``loss``, a float. Its
            pullback takes ``dloss``, 1 if called with nothing, where that of logits takes
            ``dlogits``.
        weights : ndarray, shape (B, layers, num_heads, T, T)

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, or a number is out of range, naming it.
        """
        return self._vjp(
            tokens,
            lengths,
            labels=labels,
            label_smoothing=label_smoothing,
            return_weights=return_weights,
            train=train,
            rng=rng,
        )[0]

    @quiet
    def _vjp(
        self,
        tokens,
        lengths=None,
        *,
        labels=None,
        label_smoothing=0.0,
        return_weights=False,
        train=False,
        rng=None,
    ):
        where = type(self).__name__
        rng = generator(where, rng) if flag(where, "train", train) else None
        return_weights = flag(where, "return_weights", return_weights)
        label_smoothing = self._smoothing(label_smoothing, labels)
        tokens, lengths = self._read(tokens, lengths)
        ignored = self.padding_index
        if labels is not None:
            labels = self._labels(labels, "tokens", tokens, self.vocabulary_size)
            labels, lengths, ignored = self._counting(labels, lengths)
        x, back_to_tokens = self._embedded(self.embedding, self.position_layer, tokens, rng)
        options = {"causal": True, "return_weights": return_weights, **self._slopes()}
        if lengths is not None:
            options |= {"key_lengths": lengths, "query_lengths": lengths}
        read, weights, back_to_x = self.decoder._forward(x, rng, options)

        def back_to_parameters(dread, dweights):
            dweights = self._weights_gradient("dweights", dweights, weights)
            dx, _ = back_to_x(np.zeros_like(read) if dread is None else dread, dweights)
            back_to_tokens(dx)

        scored, pullback = self._scored(
            read, labels, label_smoothing, back_to_parameters, ignore_index=ignored
        )
        if return_weights:
            kind = LanguageModelOutput if labels is None else LanguageModelLoss
            scored = kind(scored, weights)
        return scored, pullback

    def _read(self, tokens, lengths):
        """The tokens, checked, with tokens of the vocabulary for padding; and their lengths."""
        where = type(self).__name__
        tokens = self._tokens("tokens", tokens)
        B, T = tokens.shape
        self._check_length("tokens", T)
        if lengths is not None:
            lengths = integer_lengths(where, "lengths", lengths, B, T)
            valid = np.arange(T) < lengths[:, None]
            tokens = np.where(valid, tokens, tokens.dtype.type(0))  # padding is not read
        check_tokens(where, "tokens", tokens, self.vocabulary_size)
        return tokens, lengths

    def _counting(self, labels, lengths):
        """Labels, how much of each sequence the loss reads, and the label that does not count."""
        ignored = self.padding_index
        if lengths is not None:  # what follows a sequence does not count, whatever its label
            ignored = -1 if ignored is None else ignored
            valid = np.arange(labels.shape[1]) < lengths[:, None]
            labels = np.where(valid, labels.astype(np.int64), ignored)
        if ignored is not None:
            counted = labels != ignored
            if not counted[:, -1:].all():
                lengths = after_last(counted)
        return labels, lengths, ignored

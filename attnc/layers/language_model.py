"""LanguageModel: layers of causal self-attention, from tokens to scores of the next one."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypedDict, Unpack, overload

import numpy as np

from ..arrays import (
    flag,
    generator,
    integer_array,
    integer_lengths,
    number,
    probability,
    quiet,
)
from ..gradients import shows_shapes
from ..typing import Array, DType, Integers, Seed
from .base import positive
from .cache import ModelCache, refuse_cache
from .decoding import Hook, greedy_decode, sample_decode, sampling_options
from .embedding import check_tokens, token_index
from .feedforward import Activation
from .token_model import after_last
from .transformer_decoding import TokenState
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


class LanguageModelOptions(TypedDict, total=False):
    """Options by keyword of calls, whatever they return."""

    label_smoothing: float
    cache: ModelCache | None
    train: bool
    rng: Seed


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
        inside: dict[str, Any] = {"rotary": positions == "rotary", "dropout": self.dropout}
        inside |= {"dtype": self.dtype, "rng": rng}
        self.decoder = TransformerEncoder(self.layers, self.size, **shared, **inside)
        for name in shared:
            setattr(self, name, getattr(self.decoder, name))
        self.output = self._output(self.embedding, self.bias, rng)

    @overload
    def __call__(
        self,
        tokens: Integers,
        lengths: Integers | None = ...,
        *,
        labels: None = ...,
        return_weights: Literal[False] = ...,
        **options: Unpack[LanguageModelOptions],
    ) -> Array: ...
    @overload
    def __call__(
        self,
        tokens: Integers,
        lengths: Integers | None = ...,
        *,
        labels: Integers,
        return_weights: Literal[False] = ...,
        **options: Unpack[LanguageModelOptions],
    ) -> float: ...
    @overload
    def __call__(
        self,
        tokens: Integers,
        lengths: Integers | None = ...,
        *,
        labels: None = ...,
        return_weights: Literal[True],
        **options: Unpack[LanguageModelOptions],
    ) -> LanguageModelOutput: ...
    @overload
    def __call__(
        self,
        tokens: Integers,
        lengths: Integers | None = ...,
        *,
        labels: Integers,
        return_weights: Literal[True],
        **options: Unpack[LanguageModelOptions],
    ) -> LanguageModelLoss: ...
    def __call__(
        self,
        tokens: Integers,
        lengths: Integers | None = None,
        *,
        labels: Integers | None = None,
        label_smoothing: float = 0.0,
        cache: ModelCache | None = None,
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
            `losses.linear_cross_entropy`. What comes after the last label that counts is padding of
            the tokens too.
        label_smoothing : float
            Of that loss.
        cache : ModelCache, optional
            What `new_cache` returned: the tokens are those that follow the ones in it, and are then
            in it, too. So T calls with one token each give the logits of one call with T tokens.
            There are no gradients through it.
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
            With a cache, the last axis has the tokens in it before these.

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, or a number is out of range, naming it.
        """
        options: dict[str, Any] = {
            "labels": labels,
            "label_smoothing": label_smoothing,
            "train": train,
        }
        options |= {"return_weights": return_weights, "rng": rng}
        if cache is None:
            return self._vjp(tokens, lengths, **options)[0]
        with self.decoder._through(cache):
            return self._computed(tokens, lengths, cache=cache, **options)[0]

    def _vjp(self, tokens, lengths=None, *, train=False, rng=None, cache=None, **options):
        refuse_cache(self, cache)
        return self._computed(tokens, lengths, train=train, rng=rng, **options)

    @quiet
    def _computed(
        self,
        tokens,
        lengths=None,
        *,
        labels=None,
        label_smoothing=0.0,
        cache=None,
        return_weights=False,
        train=False,
        rng=None,
    ):
        """What a call returns, and the pullback, which is of no use with a cache."""
        where = type(self).__name__
        rng = generator(where, rng) if flag(where, "train", train) else None
        return_weights = flag(where, "return_weights", return_weights)
        label_smoothing = self._smoothing(label_smoothing, labels)
        seen = cache.lengths if cache is not None and len(cache) else 0
        tokens, lengths = self._read(tokens, lengths, seen)
        ignored = self.padding_index
        if labels is not None:
            labels = self._labels(labels, "tokens", tokens, self.vocabulary_size)
            labels, needed, ignored = self._counting(labels, lengths)
            lengths = needed if cache is None else lengths
        x, back_to_tokens = self._embedded(self.embedding, self.position_layer, tokens, rng, seen)
        options = {"causal": True, "return_weights": return_weights, **self._slopes()}
        if lengths is not None:
            options |= {"key_lengths": lengths, "query_lengths": lengths}
        read, weights, back_to_x = self.decoder._forward(x, rng, options, cache)

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

    def _read(self, tokens, lengths, seen=0):
        """The tokens, checked, with tokens of the vocabulary for padding; and their lengths."""
        where = type(self).__name__
        tokens = self._tokens("tokens", tokens)
        B, T = tokens.shape
        if B and np.ndim(seen) and np.shape(seen) != (B,):
            raise self._error(f"tokens must have the batch of cache, {len(seen)}, got {B}")
        self._check_length("tokens", int(np.max(seen, initial=0)) + T)
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

    # ---- Generation ------------------------------------------------------------------------------

    def new_cache(
        self,
        max_length: int | None = None,
        *,
        window: int | None = None,
        keep: int = 0,
        dtype: Any = None,
    ) -> ModelCache:
        """An empty cache for calls of this model: the keys and values of every layer.

        Parameters
        ----------
        max_length, window, keep, dtype
            As in `KVCache`.

        Returns
        -------
        ModelCache
            To be given to calls of this model alone.

        Raises
        ------
        TypeError, ValueError
            As `KVCache` does.
        """
        return self.decoder.new_cache(max_length, window=window, keep=keep, dtype=dtype)

    def prepare(self, memory: None = None, key_mask: None = None, key_lengths: None = None) -> None:
        """There is no `memory`, nor its `key_mask` and `key_lengths`: for decoding functions.

        Returns
        -------
        None
        """
        given = {"memory": memory, "key_mask": key_mask, "key_lengths": key_lengths}
        for name, value in given.items():
            if value is not None:
                raise self._error(f"{name} must be None, as there is no memory, got {value!r}")

    @quiet
    def step(
        self, input: Integers, memory: None = None, state: TokenState | None = None
    ) -> tuple[Array, None, TokenState]:
        """One step of decoding: ``logits, _, state = model.step(tokens, None, state)``.

        Parameters
        ----------
        input : array_like of int, shape (B,)
            The last token of each sequence.
        memory : None
        state : TokenState, optional
            What the step before returned; None before the first. It does not change.

        Returns
        -------
        logits : ndarray, shape (B, vocabulary_size)
            Of the token that follows.
        weights : None
        state : TokenState
            For the next step.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type or shape, naming it.
        """
        self.prepare(memory)
        tokens = integer_array(type(self).__name__, "input", input)
        if tokens.ndim != 1:
            raise self._error(f"input must have shape (B,), got {tokens.shape}")
        state = TokenState.of(self.decoder, state, len(tokens))
        x = self._embedded_step(self.embedding, self.position_layer, tokens, state)
        read, state = self._grown(x[:, None], state, 1)
        return self.output._forward(read[:, 0])[0], None, state

    def _grown(self, x, state, counts):
        """What the output layer reads after the vectors x of new tokens, and the new state."""
        options = {"causal": True, "return_weights": False, **self._slopes()}
        if not isinstance(counts, int):
            options |= {"key_lengths": counts, "query_lengths": counts}
        with state.grown(counts) as (cache, after):
            return self.decoder._forward(x, None, options, cache)[0], after

    def reorder(self, state: TokenState, indices: Integers) -> TokenState:
        """The state of some sequences of a batch, in this order: what a search goes on with.

        Parameters
        ----------
        state : TokenState
            What a step returned. It does not change.
        indices : array_like of int, shape (N,)
            Sequences of the batch; one may be there several times.

        Returns
        -------
        TokenState
            Of a batch of N.

        Raises
        ------
        TypeError, ValueError
            If state is none of a step, or indices are not sequences of its batch.
        """
        return TokenState.reordered(self, state, indices)

    @quiet
    def generate(
        self,
        tokens: Integers,
        lengths: Integers | None = None,
        *,
        max_length: Integers,
        end: Integers = (),
        min_length: int = 0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        rng: Seed = None,
        logits_hook: Hook | None = None,
        cache: ModelCache | None = None,
    ) -> Array:
        """Go on with sequences: draw one token after the other, or take the most probable ones.

        The keys and values of what was seen are kept, so that a step reads one token.

        Parameters
        ----------
        tokens : array_like of int, shape (B, T)
            What each sequence begins with, at least one token: a prompt, or a start token.
        lengths : int or array_like of int, shape (B,), optional
            Valid tokens of each, 1 or more; the rest is padding and not read.
        max_length : int or array_like of int, shape (B,)
            New tokens at most.
        end : int or array_like of int
            Tokens that end a sequence; none unless given.
        min_length : int
            New tokens at least.
        temperature : float
            Above 0 as in `sample_decode`; 0 takes the most probable token, as `greedy_decode`.
        top_k, top_p, rng, logits_hook
            As in `sample_decode`.
        cache : ModelCache, optional
            A new one of `new_cache`, to say where keys and values are kept: with a `window` the
            memory of a long text does not grow, in float16 it is half. It serves this call alone.

        Returns
        -------
        ndarray of int, shape (B, steps)
            The new tokens: with the end token, where one was reached, and after it only the first
            of `end`.

        Raises
        ------
        TypeError, ValueError
            As `sample_decode`; if a sequence begins with nothing, or the cache is not a new one of
            this model.

        Examples
        --------
        >>> import numpy as np, attnc
        >>> model = attnc.LanguageModel(50, 16, num_heads=2, layers=3, rng=0)
        >>> new = model.generate([[5, 7, 9], [4, 2, 0]], [3, 2], max_length=8, top_k=10, rng=0)
        >>> new.shape
        (2, 8)
        """
        prompt, valid = self._read(tokens, lengths)
        B, T = prompt.shape
        counts = np.full(B, T) if valid is None else valid
        if not T or counts.min(initial=1) < 1:
            raise self._error("tokens must begin with a token at least, got a sequence of none")
        if not B:  # a decoding function could not know how many sequences there are
            return np.zeros((0, 0), int)
        state = TokenState.of(self.decoder, None, B, cache)
        if T > 1:
            x, _ = self._embedded(self.embedding, self.position_layer, prompt[:, :-1], None)
            _, state = self._grown(x, state, T - 1 if valid is None else counts - 1)
        greedy = _is_zero(type(self).__name__, temperature)
        if greedy:  # the most probable token is among those that top_k and top_p leave
            sampling_options(type(self).__name__, top_k, top_p, rng)
        options: dict[str, Any] = {"start": prompt[np.arange(B), counts - 1], "end": end}
        options |= {"max_length": max_length, "min_length": min_length, "logits_hook": logits_hook}
        if greedy:
            return greedy_decode(self, None, None, None, state, **options).tokens
        options |= {"temperature": temperature, "top_k": top_k, "top_p": top_p, "rng": rng}
        return sample_decode(self, None, None, None, state, **options).tokens


def _is_zero(where, temperature):
    """Whether a temperature says that nothing is drawn; `sample_decode` checks the others."""
    rule = "be 0 (the most probable token) or above"
    return number(where, "temperature", temperature, rule, lambda t: 0 <= t < np.inf) == 0

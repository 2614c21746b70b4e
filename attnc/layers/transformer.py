"""Transformer: embeddings, encoder, decoder and output layer as one layer."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack, overload

import numpy as np

from ..arrays import flag, generator, probability, quiet
from ..functional.decoder_run import DecoderOutput
from ..gradients import shows_shapes
from ..typing import Array, Bools, DType, Integers, Real, Seed
from .base import positive
from .cache import ModelCache, refuse_cache
from .decoding import Beams, Decoded, Hook, best_sequences
from .embedding import check_tokens, token_index
from .feedforward import Activation
from .token_model import after_last
from .torch_weights import TorchArray, TorchWeights, prefixed
from .transformer_decoding import TokenState, TransformerMemory
from .transformer_model import ModelOptions, TransformerModel
from .transformer_stack import TransformerDecoder, TransformerEncoder


@shows_shapes
class TransformerOutput(NamedTuple):
    """What `Transformer` returns without labels. Weights are None unless asked for."""

    logits: Array
    weights: Array | None
    self_weights: Array | None
    source_weights: Array | None


@shows_shapes
class TransformerLoss(NamedTuple):
    """What `Transformer` returns with labels. Weights are None unless asked for."""

    loss: float
    weights: Array | None
    self_weights: Array | None
    source_weights: Array | None


class Transformer(TransformerModel, TorchWeights):
    """Encoder and decoder of attention alone: from the tokens of one sequence to those of another.

    ::

        source tokens -> source_embedding + positions -> encoder -> memory, a vector for each token
        target tokens so far -> target_embedding + positions -> decoder, looks at the memory
                             -> output -> logits

    Vaswani et al. (2017), "Attention is all you need". Embeddings are multiplied by sqrt(size)
    before positions are added to them (section 3.4). Its calls are those of `Seq2Seq`.

    `load_torch_state_dict` and `torch_state_dict` are about encoder and decoder, which with
    ``final_norm=True`` are `torch.nn.Transformer`; that has neither embeddings nor an output layer.

    Parameters
    ----------
    source_vocabulary_size, target_vocabulary_size : int
        Sizes of the two vocabularies.
    size : int
        Size of a token's vector, and of every step in encoder and decoder.
    num_heads : int
        How many heads each attention has: a divisor of size.
    encoder_layers, decoder_layers : int
        How many layers, each.
    feedforward_size : int, optional
        Hidden units of the feed-forward networks; 4 size unless given.
    positions : {'sinusoidal', 'learned', 'rotary', 'alibi', None}
        What tells the order of tokens: `SinusoidalPositions` or `LearnedPositions`, added to the
        embeddings of each side; `attnc.rotary`, or the slopes of ALiBi (Press et al. 2022), in
        self-attention. None: nothing does in the encoder.
    max_length : int, optional
        Tokens of a source or target at most; needed for 'learned'. Longer ones raise.
    tied : bool
        Whether the output layer has the transposed table of target_embedding for its weight (Press
        and Wolf 2017, "Using the output embedding to improve language models"). Where both sides
        have one vocabulary, shared_vocabulary says so; equal sizes alone mean nothing.
    shared_vocabulary : bool
        Whether source and target have one vocabulary and one table of vectors, as in section 3.4 of
        the paper: for languages with words or pieces of words in common. The sizes must be equal.
    padding_index : int, optional
        The token that fills up short sequences; its vectors are 0 and not learned. It is in both
        vocabularies. In a source without lengths it is padding: see `encode`.
    norm, activation, normalization, bias, num_kv_heads
        As in `TransformerEncoderLayer`. The bias of the output layer is among those.
    final_norm : bool, optional
        Whether a norm follows the last layer of encoder and decoder. By default there is one for
        ``norm="pre"`` and none for ``norm="post"``: see `TransformerEncoder`.
    dropout : float
        Probability, in training, of dropping a number: of the sums of embeddings and positions, on
        both sides, and within the layers where `TransformerEncoderLayer` says.
    rng : None, int or numpy.random.Generator
        Initial weights: those of the layers as these have them; tables of vectors normal, with
        variance 1 / size, or where tied with standard deviation 0.02, so that the first loss is
        about that of a uniform choice. So is an output layer that is not tied.
    dtype : float32 or float64

    Attributes
    ----------
    source_embedding, target_embedding : Embedding
    source_positions, target_positions : SinusoidalPositions or LearnedPositions or None
    encoder : TransformerEncoder
    decoder : TransformerDecoder
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
    >>> model = attnc.Transformer(
    ...     50, 60, 16, num_heads=2, encoder_layers=2, decoder_layers=2, padding_index=0, rng=0
    ... )
    >>> source, target = np.array([[5, 7, 9], [4, 2, 0]]), np.array([[1, 8, 2], [1, 2, 0]])
    >>> output, pullback = attnc.vjp(
    ...     model, source, target[:, :-1], [3, 2], labels=target[:, 1:], label_smoothing=0.1
    ... )
    >>> gradients = pullback()  # of output.loss: adds into model.gradients; tokens have none
    >>> tokens, weights = model.translate(source, [3, 2], start=1, end=2, max_length=4)
    >>> tokens.shape[0], weights.shape[:3], weights.shape[4]
    (2, (2, 2, 2), 3)
    """

    def __init__(
        self,
        source_vocabulary_size: int,
        target_vocabulary_size: int,
        size: int,
        num_heads: int,
        *,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        feedforward_size: int | None = None,
        positions: str | None = "sinusoidal",
        max_length: int | None = None,
        tied: bool = True,
        shared_vocabulary: bool = False,
        padding_index: int | None = None,
        norm: str = "post",
        activation: Activation = "relu",
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
        self.source_vocabulary_size, self.target_vocabulary_size, self.size = positive(
            self,
            source_vocabulary_size=source_vocabulary_size,
            target_vocabulary_size=target_vocabulary_size,
            size=size,
        )
        self.encoder_layers, self.decoder_layers, self.num_heads = positive(
            self, encoder_layers=encoder_layers, decoder_layers=decoder_layers, num_heads=num_heads
        )
        self.padding_index = token_index(
            where, "padding_index", padding_index,
            min(self.source_vocabulary_size, self.target_vocabulary_size),
        )  # fmt: skip
        self.tied = flag(where, "tied", tied)
        self.shared_vocabulary = flag(where, "shared_vocabulary", shared_vocabulary)
        if shared_vocabulary and source_vocabulary_size != target_vocabulary_size:
            raise self._error(
                "target_vocabulary_size must equal source_vocabulary_size for "
                f"shared_vocabulary=True, got {target_vocabulary_size} and {source_vocabulary_size}"
            )
        self.dropout = probability(where, "dropout", dropout)
        rng = generator(where, rng)
        self._set_positions(positions, max_length)
        self.source_positions = self._position_layer(rng)
        self.target_positions = self._position_layer(rng)
        self.source_embedding = self._embedding(self.source_vocabulary_size, rng)
        self.target_embedding = self.source_embedding
        if not shared_vocabulary:
            self.target_embedding = self._embedding(self.target_vocabulary_size, rng)
        self.feedforward_size = 4 * self.size if feedforward_size is None else feedforward_size
        shared: dict[str, Any] = {
            "size": self.size,
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
        self.encoder = TransformerEncoder(self.encoder_layers, **shared, **inside)
        self.decoder = TransformerDecoder(self.decoder_layers, **shared, **inside)
        for name in shared:
            setattr(self, name, getattr(self.encoder, name))
        self.output = self._output(self.target_embedding, self.bias, rng)

    def _torch_arrays(self) -> dict[str, TorchArray]:
        """Those of `torch.nn.Transformer`, which has no embeddings and no output layer."""
        return prefixed("encoder", self.encoder._torch_arrays()) | prefixed(
            "decoder", self.decoder._torch_arrays()
        )

    # ---- The encoder -----------------------------------------------------------------------------

    @quiet
    def encode(
        self,
        source: Integers,
        source_lengths: Integers | None = None,
        *,
        train: bool = False,
        rng: Seed = None,
    ) -> tuple[TransformerMemory, TokenState]:
        """Memory and first state of the decoder, for a batch of source sequences.

        Parameters
        ----------
        source : array_like of int, shape (B, Ts)
        source_lengths : int or array_like of int, shape (B,), optional
            Valid tokens of each; the rest is padding and not read, whatever tokens it is of.
            Where they are not given and there is a padding_index, a source ends after its last
            token that is not padding; padding inside it is not attended to. Lengths that are given
            count alone.
        train : bool
            Whether to apply dropout.
        rng : None, int or numpy.random.Generator
            For the dropout.

        Returns
        -------
        memory : TransformerMemory
            For `step`.
        state : TokenState
            Of a decoder that has seen nothing yet.

        Raises
        ------
        TypeError
            If source or source_lengths are not integers, or train is not a bool.
        ValueError
            If a shape does not fit, a token is not in the vocabulary or a length is outside 0..Ts.
        """
        where = type(self).__name__
        rng = generator(where, rng) if flag(where, "train", train) else None
        (memory, _, masks), _ = self._encode(source, source_lengths, rng)
        return self.decoder.prepare(memory, **masks), TokenState.of(self.decoder, None, len(memory))

    def _encode(self, source, lengths, rng, return_weights=False):
        """(memory, weights, masks of the attention to it), and the way back from the first two."""
        source, lengths, mask = self._known_tokens(
            "source", source, "source_lengths", lengths, self.source_vocabulary_size
        )
        B, Ts = source.shape
        self._check_length("source", Ts)
        if mask is not None and (mask == (np.arange(Ts) < lengths[:, None])).all():
            mask = None  # the lengths say the same
        x, back_to_tokens = self._embedded(
            self.source_embedding, self.source_positions, source, rng
        )
        options = {"return_weights": return_weights, **self._slopes()}
        if lengths is not None:
            options |= {"key_lengths": lengths, "query_lengths": lengths}
        if mask is not None:
            options["key_mask"] = mask
        memory, weights, back_to_x = self.encoder._forward(x, rng, options)
        masks: dict[str, Array] = {}
        if mask is not None:
            masks["key_mask"] = mask
        elif lengths is not None:
            masks["key_lengths"] = lengths

        def back(dmemory, dweights=None):
            back_to_tokens(back_to_x(dmemory, dweights)[0])

        return (memory, weights, masks), back

    # ---- Training --------------------------------------------------------------------------------

    @overload
    def __call__(
        self,
        source: Integers | None,
        target: Integers,
        source_lengths: Integers | None = ...,
        *,
        labels: None = ...,
        **options: Unpack[ModelOptions],
    ) -> TransformerOutput: ...
    @overload
    def __call__(
        self,
        source: Integers | None,
        target: Integers,
        source_lengths: Integers | None = ...,
        *,
        labels: Integers,
        **options: Unpack[ModelOptions],
    ) -> TransformerLoss: ...
    def __call__(
        self,
        source: Integers | None,
        target: Integers,
        source_lengths: Integers | None = None,
        *,
        labels: Integers | None = None,
        label_smoothing: float = 0.0,
        cache: ModelCache | None = None,
        return_weights: bool = False,
        train: bool = False,
        rng: Seed = None,
    ) -> TransformerOutput | TransformerLoss:
        """Logits of the token that follows each target token: compute, and remember nothing.

        Parameters
        ----------
        source : array_like of int, shape (B, Ts)
        target : array_like of int, shape (B, T)
            The tokens before those to be predicted: the start token, then the first ones. Padding
            after the end must be of the vocabulary too; it changes nothing of what comes before.
        source_lengths : int or array_like of int, shape (B,), optional
            Valid tokens of each source; the rest is padding and not read. Without them the tokens
            that are padding_index are padding: see `encode`.
        labels : array_like of int, shape (B, T), optional
            The tokens to be predicted. Given, the loss is returned in place of the logits, which
            are then computed only where a label is not padding: `losses.linear_cross_entropy`. What
            comes after the last label that counts is padding of the target: attention does no work
            for it, and has weights 0 there.
        label_smoothing : float
            Of that loss.
        cache : ModelCache, optional
            What `new_cache` returned: target are the tokens that follow those in it, and are then
            in it, too. The first call encodes the source, and later ones may leave it out: None.
            Padding within a source is not kept in it. There are no gradients through it.
        return_weights : bool
            Whether to return the weights of all attentions; else they are None.
        train : bool
            Whether to apply dropout.
        rng : None, int or numpy.random.Generator
            For the dropout: one generator, from which all places draw in turn.

        Returns
        -------
        logits : ndarray, shape (B, T, target_vocabulary_size)
            Or with labels ``loss``, a float. Its pullback takes ``dloss``, 1 if called with
            nothing, where that of logits takes ``dlogits``.
        weights : ndarray, shape (B, decoder_layers, num_heads, T, Ts), or None
            Of the attention to the source.
        self_weights : ndarray, shape (B, decoder_layers, num_heads, T, T), or None
            Of the decoder's self-attention.
        source_weights : ndarray, shape (B, encoder_layers, num_heads, Ts, Ts), or None
            Of the encoder's self-attention.

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, or a number is out of range, naming it.
        """
        options: dict[str, Any] = {"labels": labels, "label_smoothing": label_smoothing}
        options |= {"return_weights": return_weights, "train": train, "rng": rng}
        if cache is None:
            return self._vjp(source, target, source_lengths, **options)[0]
        with self.decoder._through(cache):
            return self._computed(source, target, source_lengths, cache=cache, **options)[0]

    def _vjp(
        self, source, target, source_lengths=None, *, train=False, rng=None, cache=None, **options
    ):
        refuse_cache(self, cache)
        return self._computed(source, target, source_lengths, train=train, rng=rng, **options)

    @quiet
    def _computed(
        self,
        source,
        target,
        source_lengths=None,
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
        target = self._tokens("target", target)
        check_tokens(where, "target", target, self.target_vocabulary_size)
        seen = cache.lengths if cache is not None and len(cache) else 0
        self._check_length("target", int(np.max(seen, initial=0)) + target.shape[1])
        options = {"causal": True, "return_weights": return_weights, **self._slopes()}
        lengths = {}
        if labels is not None:
            labels = self._labels(labels, "target", target, self.target_vocabulary_size)
            counted = self._counted(labels)
            if cache is None and not counted[:, -1:].all():
                lengths = {"query_lengths": after_last(counted)}
                options |= {"key_lengths": lengths["query_lengths"], **lengths}
        memory, source_weights, masks = None, None, {}
        if source is not None:
            batch = len(self._tokens("source", source))
            if len(target) != batch:
                raise self._error(
                    f"target must have the batch of source, {batch}, got {target.shape}"
                )
            (memory, source_weights, masks), back_to_source = self._encode(
                source, source_lengths, rng, return_weights
            )
            if cache is not None and "key_mask" in masks:
                raise self._error("source must have no padding within, or lengths, with a cache")
        elif cache is None or not cache.memories[0]._holds_memory:
            raise self._error("source must be an array of tokens, got None", TypeError)
        x, back_to_target = self._embedded(
            self.target_embedding, self.target_positions, target, rng, seen
        )
        cross = {"return_weights": return_weights, **masks, **lengths}
        read, weights, back_to_x = self.decoder._forward(x, memory, rng, options, cross, cache)
        weights = (*weights, source_weights)

        def back_to_parameters(dread, dweights, dself_weights=None, dsource_weights=None):
            names = ("dweights", "dself_weights", "dsource_weights")
            given = zip(names, (dweights, dself_weights, dsource_weights), weights, strict=True)
            *ours, dsource = (self._weights_gradient(*each) for each in given)
            dread = np.zeros_like(read) if dread is None else dread
            dx, others = back_to_x(dread, ours)
            back_to_target(dx)
            back_to_source(others["memory"], dsource)

        scored, pullback = self._scored(
            read,
            labels,
            label_smoothing,
            back_to_parameters,
            ("dself_weights", "dsource_weights"),
            ignore_index=self.padding_index,
        )
        kind = TransformerOutput if labels is None else TransformerLoss
        return kind(scored, *weights), pullback

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
            As in `KVCache`, for the target; `dtype` for the source too.

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

    # ---- Translation -----------------------------------------------------------------------------

    def prepare(
        self,
        memory: Real | TransformerMemory,
        key_mask: Bools | None = None,
        key_lengths: Integers | None = None,
    ) -> TransformerMemory:
        """`TransformerDecoder.prepare` of the decoder, with `memory`, `key_mask`, `key_lengths`.

        Returns
        -------
        TransformerMemory
        """
        return self.decoder.prepare(memory, key_mask, key_lengths)

    @quiet
    def step(
        self, input: Integers, memory: Real | TransformerMemory, state: TokenState | None = None
    ) -> DecoderOutput:
        """One step of decoding: ``logits, weights, state = model.step(tokens, memory, state)``.

        Parameters
        ----------
        input : array_like of int, shape (B,)
            The last token of each target.
        memory
            What `encode` or `prepare` returned.
        state : TokenState, optional
            What `encode` or the step before returned; None before the first. It does not change.

        Returns
        -------
        outputs : ndarray, shape (B, target_vocabulary_size)
            Logits of the token that follows.
        weights : ndarray, shape (B, decoder_layers, num_heads, Ts)
        state : TokenState
            For the next step.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type or shape, naming it.
        """
        memory = self.decoder.prepare(memory)
        state = TokenState.of(self.decoder, state, len(memory))
        x = self._embedded_step(self.target_embedding, self.target_positions, input, state)
        y, weights, state = self.decoder._step(x, memory, state, self._slopes())
        return DecoderOutput(self.output._forward(y)[0], weights, state)

    def reorder(self, state: TokenState, indices: Integers) -> TokenState:
        """`TransformerDecoder.reorder` of the decoder, with this `state` and these `indices`.

        Returns
        -------
        TokenState
        """
        return TokenState.reordered(self, state, indices)

    @overload
    def translate(
        self,
        source: Integers,
        source_lengths: Integers | None = ...,
        *,
        start: Integers,
        end: Integers,
        max_length: Integers,
        min_length: int = ...,
        beam_width: int = ...,
        n_best: None = ...,
        length_penalty: float = ...,
        logits_hook: Hook | None = ...,
    ) -> Decoded: ...
    @overload
    def translate(
        self,
        source: Integers,
        source_lengths: Integers | None = ...,
        *,
        start: Integers,
        end: Integers,
        max_length: Integers,
        min_length: int = ...,
        beam_width: int = ...,
        n_best: int,
        length_penalty: float = ...,
        logits_hook: Hook | None = ...,
    ) -> Beams: ...
    def translate(
        self,
        source: Integers,
        source_lengths: Integers | None = None,
        *,
        start: Integers,
        end: Integers,
        max_length: Integers,
        min_length: int = 0,
        beam_width: int = 1,
        n_best: int | None = None,
        length_penalty: float = 0.6,
        logits_hook: Hook | None = None,
    ) -> Decoded | Beams:
        """Target sequences for a batch of sources.

        Parameters
        ----------
        source, source_lengths
            As in `encode`.
        start, end, max_length, min_length, logits_hook
            As in `greedy_decode`.
        beam_width, length_penalty
            As in `beam_search`. Width 1 is `greedy_decode`.
        n_best : int, optional
            Return the so many best hypotheses with their scores, as `beam_search` does; else the
            best one alone.

        Returns
        -------
        tokens : ndarray of int, shape (B, steps)
            As of `greedy_decode`.
        weights : ndarray, shape (B, decoder_layers, num_heads, steps, Ts)
            Weights of the attention to the source; 0 after the end.

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, or a number is out of range.
        """
        memory, state = self.encode(source, source_lengths)
        return best_sequences(
            (self, None, None, memory, state),
            start=start,
            end=end,
            max_length=max_length,
            min_length=min_length,
            beam_width=beam_width,
            n_best=n_best,
            length_penalty=length_penalty,
            logits_hook=logits_hook,
        )

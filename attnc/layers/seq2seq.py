"""Seq2Seq: encoder, bridge, attention decoder and output layer as one layer."""

from __future__ import annotations

from typing import Any, NamedTuple, overload

import numpy as np

from ..arrays import flag, generator, number, probability, quiet
from ..functional.decoder import check_alignment, check_local
from ..functional.decoder_run import PreparedMemory
from ..gradients import shows_shapes, vjp
from ..mode import mode
from ..typing import Array, DType, Integers, Seed
from .base import positive
from .decoder import AttentionDecoder, check_coverage
from .decoding import Beams, Decoded, Hook, best_sequences, scheduled_inputs
from .embedding import Embedding, check_tokens, token_index
from .linear import Linear
from .recurrent import GRU, LSTM, RNN
from .token_model import TokenModel


@shows_shapes
class Seq2SeqOutput(NamedTuple):
    """What `Seq2Seq` returns without labels."""

    logits: Array
    weights: Array


@shows_shapes
class Seq2SeqLoss(NamedTuple):
    """What `Seq2Seq` returns with labels."""

    loss: float
    weights: Array


ENCODERS = {"gru": GRU, "lstm": LSTM, "rnn": RNN}


class Seq2Seq(TokenModel):
    """Encoder and attentional decoder: from the tokens of one sequence to those of another.

    ::

        source tokens -> source_embedding -> encoder -> memory, a vector for each source token
        encoder's final state -> bridge -> decoder's first state
        target tokens so far -> target_embedding -> decoder, looks at the memory -> output -> logits

    Bahdanau, Cho and Bengio 2015, "Neural machine translation by jointly learning to align and
    translate": the first state of the decoder is tanh of a linear map of the encoder's final state
    (appendix A.2.2).

    Parameters
    ----------
    source_vocabulary_size, target_vocabulary_size : int
        Sizes of the two vocabularies.
    embedding_size : int
        Size of a token's vector.
    state_size : int
        Size of the decoder's state. The encoder's is half of it in each direction, so that both
        together, a step of the memory, have state_size: an even number.
    bidirectional : bool
        Whether the encoder also reads backwards; if not, its one direction has state_size.
    attention, attention_size, cell, layers, order, input_feeding, coverage, max_fertility, \
    window, position, position_size, renormalize, alignment, chunk_width, energy_offset, \
    energy_noise
        As in `AttentionDecoder`; cell and layers are those of the encoder too. With the attention
        'none' the decoder gets the encoder's final state in place of every context: the baseline
        that attention is compared with.
    dropout : float
        Probability, in training, of dropping a number of the vectors of tokens (of both sides), of
        the outputs of the encoder's layers, and of what the output layer reads. Without attention
        it drops numbers of the one vector that takes the memory's place.
    tied : bool
        Whether both sides have one vocabulary and one table of vectors, which is also the weight of
        the output layer (Press and Wolf 2017, "Using the output embedding to improve language
        models"): for languages with words or pieces of words in common, and for little data. The
        sizes of the vocabularies must be equal, and so must embedding_size and state_size.
    padding_index : int, optional
        The token that fills up short sequences; its vectors are 0 and not learned. It is in both
        vocabularies. In a source without lengths it is padding: see `encode`.
    rng : None, int or numpy.random.Generator
        Initial weights.
    dtype : float32 or float64

    Attributes
    ----------
    source_embedding, encoder, bridge, target_embedding, decoder, output : Layer

    Raises
    ------
    ValueError
        If a size does not fit, or options contradict each other.
    TypeError
        If an option is of the wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> model = attnc.Seq2Seq(50, 60, embedding_size=8, state_size=16, padding_index=0, rng=0)
    >>> source, target = np.array([[5, 7, 9], [4, 2, 0]]), np.array([[1, 8, 2], [1, 2, 0]])
    >>> output, pullback = attnc.vjp(
    ...     model, source, target[:, :-1], [3, 2], labels=target[:, 1:], label_smoothing=0.1
    ... )
    >>> gradients = pullback()  # of output.loss: adds into model.gradients; tokens have none
    >>> tokens, weights = model.translate(source, [3, 2], start=1, end=2, max_length=4)
    >>> tokens.shape[0], weights.shape[2]
    (2, 3)
    """

    def __init__(
        self,
        source_vocabulary_size: int,
        target_vocabulary_size: int,
        embedding_size: int,
        state_size: int,
        *,
        bidirectional: bool = True,
        attention: str = "additive",
        attention_size: int | None = None,
        cell: str = "gru",
        layers: int = 1,
        order: str = "bahdanau",
        input_feeding: bool = False,
        coverage: bool | str = False,
        max_fertility: float | None = None,
        window: int | None = None,
        position: str = "monotonic",
        position_size: int | None = None,
        renormalize: bool = False,
        alignment: str = "soft",
        chunk_width: int | None = None,
        energy_offset: float | None = None,
        energy_noise: float | None = None,
        dropout: float = 0.0,
        tied: bool = False,
        padding_index: int | None = None,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        where = type(self).__name__
        source_vocabulary_size, target_vocabulary_size = positive(
            self,
            source_vocabulary_size=source_vocabulary_size,
            target_vocabulary_size=target_vocabulary_size,
        )
        embedding_size, state_size, layers = positive(
            self, embedding_size=embedding_size, state_size=state_size, layers=layers
        )
        bidirectional = flag(where, "bidirectional", bidirectional)
        input_feeding = flag(where, "input_feeding", input_feeding)
        coverage = check_coverage(where, coverage, attention)
        check_alignment(where, alignment, chunk_width, attention, window)
        local = check_local(where, window, position, renormalize, attention)
        tied = flag(where, "tied", tied)
        dropout = probability(where, "dropout", dropout)
        padding_index = token_index(
            where, "padding_index", padding_index,
            min(source_vocabulary_size, target_vocabulary_size),
        )  # fmt: skip
        if attention_size is not None:
            (attention_size,) = positive(self, attention_size=attention_size)
        if position_size is not None:
            (position_size,) = positive(self, position_size=position_size)
        if bidirectional and state_size % 2:
            raise self._error(f"state_size must be even for both directions, got {state_size}")
        if tied and source_vocabulary_size != target_vocabulary_size:
            raise self._error(
                "target_vocabulary_size must equal source_vocabulary_size for tied=True, got "
                f"{target_vocabulary_size} and {source_vocabulary_size}"
            )
        if tied and embedding_size != state_size:
            raise self._error(
                "embedding_size must equal state_size for tied=True, got "
                f"{embedding_size} and {state_size}"
            )
        rng = generator(where, rng)
        self.source_vocabulary_size = source_vocabulary_size
        self.target_vocabulary_size = target_vocabulary_size
        self.embedding_size, self.state_size = embedding_size, state_size
        self.bidirectional, self.attention = bidirectional, attention
        self.attention_size, self.cell, self.layers = attention_size, cell, layers
        self.order, self.input_feeding = order, input_feeding
        self.coverage, self.max_fertility, self.dropout = coverage, max_fertility, dropout
        self.tied, self.padding_index = tied, padding_index
        self.window, self.position = local["window"], position
        self.position_size, self.renormalize = position_size, local["renormalize"]
        self.alignment, self.chunk_width = alignment, chunk_width
        self.energy_offset, self.energy_noise = energy_offset, energy_noise
        shared: dict[str, Any] = {"rng": rng, "dtype": dtype}
        self.source_embedding = Embedding(
            source_vocabulary_size, embedding_size, padding_index=padding_index, **shared
        )
        self.target_embedding = Embedding(
            target_vocabulary_size, embedding_size, padding_index=padding_index, **shared
        )
        self.decoder = AttentionDecoder(
            embedding_size,
            state_size,
            state_size,
            attention=attention,
            attention_size=attention_size,
            cell=cell,
            layers=layers,
            order=order,
            input_feeding=input_feeding,
            coverage=coverage,
            max_fertility=max_fertility,
            window=window,
            position=position,
            position_size=position_size,
            renormalize=renormalize,
            alignment=alignment,
            chunk_width=chunk_width,
            energy_offset=energy_offset,
            energy_noise=energy_noise,
            **shared,
        )
        self.encoder = ENCODERS[cell](
            embedding_size,
            state_size // (1 + self.bidirectional),
            layers,
            bidirectional,
            dropout=dropout,
            **shared,
        )
        # Each array of the state (of an LSTM: h, then c) has a map, to that array of every layer.
        self.bridge = [
            Linear(state_size, layers * state_size, **shared) for _ in self.decoder.state_names
        ]
        self.output = Linear(state_size, target_vocabulary_size, **shared)
        if tied:
            self.target_embedding = self.source_embedding
            self.output.tie("weight", self.source_embedding, "weight", transpose=True)

    # ---- The encoder and the bridge --------------------------------------------------------------

    @quiet
    def encode(
        self,
        source: Integers,
        source_lengths: Integers | None = None,
        *,
        hard: bool = False,
        train: bool = False,
        rng: Seed = None,
    ) -> tuple[PreparedMemory, Any]:
        """Memory and first state of the decoder, for a batch of source sequences.

        Parameters
        ----------
        source : array_like of int, shape (B, Ts)
        source_lengths : int or array_like of int, shape (B,), optional
            Valid tokens of each; the rest is padding and not read, whatever tokens it is of.
            Where they are not given and there is a padding_index, a source ends after its last
            token that is not padding; padding inside it is not attended to, and is a step of zeros
            for the encoder. Lengths that are given count alone.
        hard : bool
            To decode, for an alignment that is not soft: see `AttentionDecoder.prepare`.
        train : bool
            Whether to apply dropout, to the vectors of tokens and to the memory.
        rng : None, int or numpy.random.Generator
            For the dropout.

        Returns
        -------
        memory : PreparedMemory
            For the decoder.
        state : ndarray, shape (layers, B, state_size)
            For the LSTM a pair (h, c).

        Raises
        ------
        TypeError
            If source or source_lengths are not integers, or train is not a bool.
        ValueError
            If a shape does not fit, a token is not in the vocabulary or a length is outside 0..Ts.
        """
        where = type(self).__name__
        train = flag(where, "train", train)
        rng = generator(where, rng) if train else None
        (memory, state, masks), _ = self._encode(source, source_lengths, train, rng)
        return self.decoder.prepare(memory, **masks, hard=hard), state

    def _encode(self, source, lengths, train, rng):
        source, lengths, mask = self._known_tokens(
            "source", source, "source_lengths", lengths, self.source_vocabulary_size
        )
        embedded, back_to_tokens = vjp(self.source_embedding, source)
        embedded, back_to_vectors = self._drop(embedded, train, rng)
        (memory, final), back_to_embedded = vjp(
            self.encoder, embedded, lengths=lengths, train=train, rng=rng
        )
        tops, back_to_final = self._top_layer(final)
        state, back_to_tops = self._bridged(tops)
        fixed = self.attention == "none"
        masks: dict[str, Any] = {}
        if fixed:
            memory = tops[0][:, None]
        else:
            masks = {"key_lengths": lengths} if mask is None else {"key_mask": mask}
        memory, back_to_memory = self._drop(memory, train, rng)

        def back(dmemory, dstate):
            dtops = back_to_tops(dstate)
            dmemory = back_to_memory(dmemory)
            if fixed:
                dtops[0] = dtops[0] + dmemory[:, 0]
                dmemory = None
            back_to_tokens(back_to_vectors(back_to_embedded(dmemory, back_to_final(dtops)).x))

        return (memory, state, masks), back

    def _top_layer(self, final):
        """The final state of the encoder's top layer, arrays (B, state_size); and the way back."""
        arrays, directions = _arrays(final), 1 + self.bidirectional
        tops = [np.concatenate(array[-directions:], axis=-1) for array in arrays]

        def back(dtops):
            darrays = [np.zeros_like(array) for array in arrays]
            for array, dtop in zip(darrays, dtops, strict=True):
                array[-directions:] = np.split(dtop, directions, axis=-1)
            return _state(darrays)

        return tops, back

    def _bridged(self, tops):
        """The decoder's first state, arrays (layers, B, state_size); and the way back."""
        steps = [vjp(linear, top) for linear, top in zip(self.bridge, tops, strict=True)]
        B, shape = len(tops[0]), (len(tops[0]), self.layers, self.state_size)
        first = [y.reshape(shape).swapaxes(0, 1) for y, _ in steps]
        first[0] = np.tanh(first[0])  # h lies in -1..1, the c of an LSTM anywhere

        def back(dstate):
            dfirst = list(_arrays(dstate))
            dfirst[0] = dfirst[0] * (1 - first[0] * first[0])
            return [
                backward(d.swapaxes(0, 1).reshape(B, -1)).x
                for (_, backward), d in zip(steps, dfirst, strict=True)
            ]

        return _state(first), back

    # ---- Training --------------------------------------------------------------------------------

    @overload
    def __call__(
        self,
        source: Integers,
        target: Integers,
        source_lengths: Integers | None = ...,
        *,
        labels: None = ...,
        label_smoothing: float = ...,
        sampling: float = ...,
        train: bool = ...,
        rng: Seed = ...,
    ) -> Seq2SeqOutput: ...
    @overload
    def __call__(
        self,
        source: Integers,
        target: Integers,
        source_lengths: Integers | None = ...,
        *,
        labels: Integers,
        label_smoothing: float = ...,
        sampling: float = ...,
        train: bool = ...,
        rng: Seed = ...,
    ) -> Seq2SeqLoss: ...
    def __call__(
        self,
        source: Integers,
        target: Integers,
        source_lengths: Integers | None = None,
        *,
        labels: Integers | None = None,
        label_smoothing: float = 0.0,
        sampling: float = 0.0,
        train: bool = False,
        rng: Seed = None,
    ) -> Seq2SeqOutput | Seq2SeqLoss:
        """Logits of the token that follows each target token: compute, and remember nothing.

        Parameters
        ----------
        source : array_like of int, shape (B, Ts)
        target : array_like of int, shape (B, T)
            The tokens before those to be predicted: the start token, then the first ones. All of
            them are read, so padding after the end must be of the vocabulary too; it changes
            nothing of what comes before.
        source_lengths : int or array_like of int, shape (B,), optional
            Valid tokens of each source; the rest is padding and not read. Without them the tokens
            that are padding_index are padding: see `encode`.
        labels : array_like of int, shape (B, T), optional
            The tokens to be predicted. Given, the loss is returned in place of the logits, which
            are then computed only where a label is not padding: `losses.linear_cross_entropy`.
        label_smoothing : float
            Of that loss.
        sampling : float
            Probability of replacing a target token, but for the first, by the model's own choice:
            see `scheduled_inputs`.
        train : bool
            Whether to apply dropout, and noise to the energies of an alignment that is not soft.
        rng : None, int or numpy.random.Generator
            For dropout, noise and sampling.

        Returns
        -------
        logits : ndarray, shape (B, T, target_vocabulary_size)
            Or with labels ``loss``, a float. Its pullback takes ``dloss``, 1 if called with
            nothing, where that of logits takes ``dlogits``.
        weights : ndarray, shape (B, T, Ts)
            Attention weights; for the attention 'none' (B, T, 1).

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, or a number is out of range, naming it.
        """
        return self._vjp(
            source,
            target,
            source_lengths,
            labels=labels,
            label_smoothing=label_smoothing,
            sampling=sampling,
            train=train,
            rng=rng,
        )[0]

    @quiet
    def _vjp(
        self,
        source,
        target,
        source_lengths=None,
        *,
        labels=None,
        label_smoothing=0.0,
        sampling=0.0,
        train=False,
        rng=None,
    ):
        where = type(self).__name__
        train = flag(where, "train", train)
        sampling = number(where, "sampling", sampling, "lie in 0..1", lambda p: 0 <= p <= 1)
        label_smoothing = self._smoothing(label_smoothing, labels)
        source, target = self._tokens("source", source), self._tokens("target", target)
        if len(target) != len(source):
            raise self._error(
                f"target must have the batch of source, {len(source)}, got {target.shape}"
            )
        check_tokens(where, "target", target, self.target_vocabulary_size)
        if labels is not None:
            labels = self._labels(labels, "target", target, self.target_vocabulary_size)
        rng = generator(where, rng) if sampling or train else None
        (memory, state, masks), back_to_source = self._encode(source, source_lengths, train, rng)
        if sampling and mode.dual is not None:
            raise self._error(
                f"sampling must be 0 for jvp and hvp, got {sampling} (the model's own choices are "
                "decisions; pass those that scheduled_inputs has made as target)"
            )
        if sampling:
            target = scheduled_inputs(
                self.decoder,
                self.target_embedding,
                self.output,
                target,
                memory,
                state,
                probability=sampling,
                rng=rng,
                **masks,
            )
        words, back_to_target = vjp(self.target_embedding, target)
        words, back_to_words = self._drop(words, train, rng)
        decoded, back_to_decoder = vjp(
            self.decoder, words, memory, state, **masks, train=train, rng=rng
        )
        read, back_to_decoded = self._drop(decoded.outputs, train, rng)

        def back_to_parameters(doutputs, dweights):
            dweights = self._incoming("dweights", dweights, decoded.weights.shape)
            if doutputs is None and self.attention == "none":
                return  # weights without attention are constants
            if doutputs is not None:
                doutputs = back_to_decoded(doutputs)
            gradients = back_to_decoder(doutputs, dweights)
            back_to_target(back_to_words(gradients.inputs))
            back_to_source(gradients.memory, gradients.state)

        scored, pullback = self._scored(
            read, labels, label_smoothing, back_to_parameters, ignore_index=self.padding_index
        )
        kind = Seq2SeqOutput if labels is None else Seq2SeqLoss
        return kind(scored, decoded.weights), pullback

    # ---- Translation -----------------------------------------------------------------------------

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
        hard: bool = ...,
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
        hard: bool = ...,
    ) -> Beams: ...
    @quiet
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
        hard: bool = False,
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
        hard : bool
            As in `encode`.

        Returns
        -------
        tokens : ndarray of int, shape (B, steps)
            As of `greedy_decode`.
        weights : ndarray, shape (B, steps, Ts)
            Attention weights; 0 after the end.

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, or a number is out of range.
        """
        memory, state = self.encode(source, source_lengths, hard=hard)
        return best_sequences(
            (self.decoder, self.target_embedding, self.output, memory, state),
            start=start,
            end=end,
            max_length=max_length,
            min_length=min_length,
            beam_width=beam_width,
            n_best=n_best,
            length_penalty=length_penalty,
            logits_hook=logits_hook,
        )


def _arrays(state):
    """The arrays of a state: of an LSTM two, h and c."""
    return state if isinstance(state, tuple) else (state,)


def _state(arrays):
    """The state that has these arrays."""
    return tuple(arrays) if len(arrays) > 1 else arrays[0]

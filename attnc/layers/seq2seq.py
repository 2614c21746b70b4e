"""Seq2Seq: encoder, bridge, attention decoder and output layer as one layer."""

import numpy as np

from ..gradients import Gradients, result_type, vjp
from ..losses import linear_cross_entropy
from .base import Layer, positive
from .decoder import AttentionDecoder
from .decoding import Decoded, beam_search, greedy_decode, scheduled_inputs
from .embedding import Embedding
from .linear import Linear
from .recurrent import GRU, LSTM, RNN

Seq2SeqOutput = result_type("Seq2SeqOutput", "logits weights")
Seq2SeqLoss = result_type("Seq2SeqLoss", "loss weights")

ENCODERS = {"gru": GRU, "lstm": LSTM, "rnn": RNN}


class Seq2Seq(Layer):
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
    attention, attention_size, cell, layers, order, input_feeding, coverage
        As in `AttentionDecoder`; cell and layers are those of the encoder too. With the attention
        'none' the decoder gets the encoder's final state in place of every context: the baseline
        that attention is compared with.
    dropout : float
        Between the layers of the encoder, in training.
    padding_index : int, optional
        The token that fills up short sequences; its vectors are 0 and not learned.
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
        source_vocabulary_size,
        target_vocabulary_size,
        embedding_size,
        state_size,
        *,
        bidirectional=True,
        attention="additive",
        attention_size=None,
        cell="gru",
        layers=1,
        order="bahdanau",
        input_feeding=False,
        coverage=False,
        dropout=0.0,
        padding_index=None,
        rng=None,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(self, state_size=state_size)
        if bidirectional and state_size % 2:
            raise self._error(f"state_size must be even for both directions, got {state_size}")
        rng = np.random.default_rng(rng)
        self.source_vocabulary_size = source_vocabulary_size
        self.target_vocabulary_size = target_vocabulary_size
        self.embedding_size, self.state_size = embedding_size, state_size
        self.bidirectional, self.attention = bool(bidirectional), attention
        self.attention_size, self.cell, self.layers = attention_size, cell, layers
        self.order, self.input_feeding = order, bool(input_feeding)
        self.coverage, self.dropout = bool(coverage), dropout
        self.padding_index = padding_index
        shared = {"rng": rng, "dtype": dtype}
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
        # One map for each array of the state (of an LSTM: h, then c), to that of every layer.
        self.bridge = [
            Linear(state_size, layers * state_size, **shared) for _ in self.decoder.state_names
        ]
        self.output = Linear(state_size, target_vocabulary_size, **shared)

    # ---- The encoder and the bridge --------------------------------------------------------------

    def encode(self, source, source_lengths=None, *, train=False, rng=None):
        """Memory and first state of the decoder, for a batch of source sequences.

        Parameters
        ----------
        source : array_like of int, shape (B, Ts)
        source_lengths : int or array_like of int, shape (B,), optional
            Valid tokens of each; the rest is padding and not read.
        train : bool
            Whether to apply the encoder's dropout.
        rng : None, int or numpy.random.Generator
            For the dropout.

        Returns
        -------
        memory : PreparedMemory
            For the decoder.
        state : ndarray, shape (layers, B, state_size)
            For the LSTM a pair (h, c).
        """
        (memory, state, lengths), _ = self._encode(source, source_lengths, train, rng)
        return self.decoder.prepare(memory, key_lengths=lengths), state

    def _encode(self, source, lengths, train, rng):
        embedded, back_to_tokens = vjp(self.source_embedding, source)
        if embedded.ndim != 3:
            raise self._error(f"source must have shape (B, Ts), got {np.shape(source)}")
        (memory, final), back_to_embedded = vjp(
            self.encoder, embedded, lengths=lengths, train=train, rng=rng
        )
        directions = 1 + self.bidirectional
        arrays = final if isinstance(final, tuple) else (final,)
        # (directions, B, H) of the top layer, side by side
        tops = [np.concatenate(array[-directions:], axis=-1) for array in arrays]
        steps = [vjp(linear, top) for linear, top in zip(self.bridge, tops, strict=True)]
        B, shape = len(embedded), (len(embedded), self.layers, self.state_size)
        first = [y.reshape(shape).swapaxes(0, 1) for y, _ in steps]
        first[0] = np.tanh(first[0])  # h lies in -1..1, the c of an LSTM anywhere
        fixed = self.attention == "none"
        if fixed:
            memory, lengths = tops[0][:, None], None

        def back(dmemory, dfirst):
            dfirst = list(dfirst) if isinstance(dfirst, tuple) else [dfirst]
            dfirst[0] = dfirst[0] * (1 - first[0] * first[0])
            dtops = [
                backward(d.swapaxes(0, 1).reshape(B, -1)).x
                for (_, backward), d in zip(steps, dfirst, strict=True)
            ]
            if fixed:
                dtops[0] = dtops[0] + dmemory[:, 0]
                dmemory = None
            dfinal = [np.zeros_like(array) for array in arrays]
            for array, dtop in zip(dfinal, dtops, strict=True):
                array[-directions:] = np.split(dtop, directions, axis=-1)
            dfinal = tuple(dfinal) if isinstance(final, tuple) else dfinal[0]
            back_to_tokens(back_to_embedded(dmemory, dfinal).x)

        return (memory, tuple(first) if len(first) > 1 else first[0], lengths), back

    # ---- Training --------------------------------------------------------------------------------

    def __call__(
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
        """Logits of the token that follows each target token: compute, and remember nothing.

        Parameters
        ----------
        source : array_like of int, shape (B, Ts)
        target : array_like of int, shape (B, T)
            The tokens before those to be predicted: the start token, then the first ones.
        source_lengths : int or array_like of int, shape (B,), optional
            Valid tokens of each source; the rest is padding and not read.
        labels : array_like of int, shape (B, T), optional
            The tokens to be predicted. Given, the loss is returned in place of the logits, which
            are then computed only where a label is not padding: `losses.linear_cross_entropy`.
        label_smoothing : float
            Of that loss.
        sampling : float
            Probability of replacing a target token, but for the first, by the model's own choice:
            see `scheduled_inputs`.
        train : bool
            Whether to apply the encoder's dropout.
        rng : None, int or numpy.random.Generator
            For dropout and sampling.

        Returns
        -------
        logits : ndarray, shape (B, T, target_vocabulary_size)
            Or with labels ``loss``, a float. Its pullback takes ``dloss``, 1 unless given, where
            that of logits takes ``dlogits``.
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
        if labels is None and label_smoothing:
            raise self._error("label_smoothing must go with labels=, got none")
        rng = np.random.default_rng(rng) if sampling or train else None
        (memory, state, lengths), back_to_source = self._encode(source, source_lengths, train, rng)
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
                key_lengths=lengths,
            )
        words, back_to_target = vjp(self.target_embedding, target)
        decoded, back_to_decoder = vjp(self.decoder, words, memory, state, key_lengths=lengths)

        def back_to_parameters(doutputs, dweights):
            gradients = back_to_decoder(doutputs, dweights)
            back_to_target(gradients.inputs)
            back_to_source(gradients.memory, gradients.state)
            return Gradients({})  # tokens are integers: no gradient

        if labels is not None:
            loss, back_to_outputs = self._loss(decoded.outputs, labels, label_smoothing)

            def pullback(dloss=1.0, dweights=None):
                return back_to_parameters(back_to_outputs(dloss), dweights)

            return Seq2SeqLoss(loss, decoded.weights), pullback

        logits, back_to_outputs = vjp(self.output, decoded.outputs)

        def pullback(dlogits=None, dweights=None):
            doutputs = None if dlogits is None else back_to_outputs(dlogits).x
            return back_to_parameters(doutputs, dweights)

        return Seq2SeqOutput(logits, decoded.weights), pullback

    def _loss(self, outputs, labels, label_smoothing):
        """The loss, and the way back to outputs: output layer and loss in one."""
        parameters, gradients = self.output.parameters, self.output.gradients
        loss, pullback = vjp(
            linear_cross_entropy,
            outputs,
            parameters["weight"],
            labels,
            bias=parameters["bias"],
            ignore_index=self.padding_index,
            label_smoothing=label_smoothing,
        )

        def back(dloss):
            if dloss is None:
                return None
            d = pullback(dloss)
            gradients["weight"] += d.weight
            gradients["bias"] += d.bias
            return d.x

        return loss, back

    # ---- Translation -----------------------------------------------------------------------------

    def translate(
        self,
        source,
        source_lengths=None,
        *,
        start,
        end,
        max_length,
        beam_width=1,
        n_best=None,
        length_penalty=0.6,
    ):
        """Target sequences for a batch of sources.

        Parameters
        ----------
        source, source_lengths
            As in a call.
        start, end, max_length
            As in `greedy_decode`.
        beam_width, length_penalty
            As in `beam_search`. Width 1 is `greedy_decode`.
        n_best : int, optional
            Return the so many best hypotheses with their scores, as `beam_search` does; else the
            best one alone.

        Returns
        -------
        tokens : ndarray of int, shape (B, steps)
            With the end token, where it was reached, and after it only end tokens.
        weights : ndarray, shape (B, steps, Ts)
            Attention weights; 0 after the end.

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, or a number is out of range.
        """
        memory, state = self.encode(source, source_lengths)
        arguments = self.decoder, self.target_embedding, self.output, memory, state
        options = {"start": start, "end": end, "max_length": max_length}
        if beam_width == 1 and n_best is None:
            return greedy_decode(*arguments, **options)
        beams = beam_search(
            *arguments,
            **options,
            beam_width=beam_width,
            n_best=1 if n_best is None else n_best,
            length_penalty=length_penalty,
        )
        return beams if n_best is not None else Decoded(beams.tokens[:, 0], beams.weights[:, 0])

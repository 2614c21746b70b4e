"""A pointer-generator with coverage: it writes words of a vocabulary, or copies by attention.

See, Liu and Manning (2017), "Get to the point: summarization with pointer-generator networks". Of
a step with the attention weights a_i over the source words w_i, the probability of a word is

    P(w) = p_gen P_vocab(w) + (1 - p_gen) sum_{i: w_i = w} a_i        p_gen = sigmoid(switch)

Coverage, the sum of the weights of earlier steps, stands inside the tanh of the score, as theirs
does; its vector is 0, and not trained, until a last phase, which also punishes looking twice.
Theirs makes the switch of context, state and input: here of Luong's output, which is made of
context and state, and the input.
"""

from typing import Any, NamedTuple

import numpy as np
from pointing import mixture, sigmoid, softmax

import attnc
from attnc.data import Vocabulary
from attnc.gradients import Gradients
from attnc.losses import coverage_loss

PADDING, UNKNOWN = Vocabulary.padding, Vocabulary.unknown
NEVER = [PADDING, Vocabulary.start, UNKNOWN]  # are not written


class Reading(NamedTuple):
    """What a model finds for summaries that are given: B of them, T words with padding."""

    loss: Any  # nats a word, and what coverage adds
    weights: Any  # (B, T, Tk), of attention
    p_gen: Any  # (B, T); 1 at padding, as if it had been written
    written: Any  # (B, T): the share of P(label) that is not copied


class PointerGenerator(attnc.Layer):
    """Bidirectional GRU, decoder with additive attention, and the switch between both ways.

    Without `copies` p_gen is 1, and what is not in the vocabulary is unknown. The layer is a
    `StepDecoder` too: `attnc.beam_search` drives it.
    """

    def __init__(
        self, vocabulary, size=128, embedding=64, copies=True, dropout=0.0, rng=None,
        dtype="float32",
    ):  # fmt: skip
        super().__init__(dtype)
        made = {"rng": np.random.default_rng(rng), "dtype": dtype}
        self.vocabulary, self.copies, self.dropout = vocabulary, copies, dropout
        self.words = attnc.Embedding(vocabulary, embedding, PADDING, **made)
        self.encoder = attnc.GRU(embedding, size // 2, bidirectional=True, **made)
        self.first = attnc.Linear(size, size, **made)
        self.decoder = attnc.AttentionDecoder(
            embedding, size, size, order="luong", input_feeding=True, coverage="tanh", **made
        )
        self.output = attnc.Linear(size, vocabulary, **made)
        self.switch = attnc.Linear(size + embedding, 1, **made)
        self.decoder.freeze("coverage_vector")

    def known(self, numbers):
        """The numbers of words in the vocabulary: of others, which a source has, unknown."""
        return np.where(numbers < self.vocabulary, numbers, UNKNOWN)

    def _dropped(self, x, rng):
        """x, in training (with an rng) with dropout, and the way back."""
        if rng is None:
            return x, lambda dx: dx
        dropout = attnc.Dropout(self.dropout, dtype=self.dtype)
        y, back = attnc.vjp(dropout, x, train=True, rng=rng)
        return y, lambda dy: back(dy).x

    def encode(self, source, lengths, rng=None):
        """Memory (B, Tk, size), first state (1, B, size), and the way back from both."""
        x, back_to_words = attnc.vjp(self.words, self.known(source))
        x, back_to_x = self._dropped(x, rng)
        (memory, ends), back_to_source = attnc.vjp(self.encoder, x, lengths=lengths)
        B = len(memory)
        y, back_to_ends = attnc.vjp(self.first, ends.swapaxes(0, 1).reshape(B, -1))
        state = np.tanh(y)[None]

        def back(dmemory, dstate):
            dends = back_to_ends(dstate[0] * (1 - state[0] * state[0])).x
            dends = dends.reshape(B, 2, -1).swapaxes(0, 1)
            back_to_words(back_to_x(back_to_source(dmemory, dends).x))

        return memory, state, back

    def _vjp(self, source, lengths, before, labels, coverage=0.0, rng=None):
        """The loss of `labels` (B, T), each after the words up to that of `before`.

        Words have the numbers of an `ExtendedVocabulary`, padding is 0; `coverage` is the factor of
        the coverage loss. The pullback takes no gradient but that of the loss, which is 1.
        """
        memory, state, back_to_source = self.encode(source, lengths, rng)
        x, back_to_words = attnc.vjp(self.words, self.known(before))
        x, back_to_x = self._dropped(x, rng)
        found, back_to_decoder = attnc.vjp(self.decoder, x, memory, state, key_lengths=lengths)
        outputs, back_to_outputs = self._dropped(found.outputs, rng)
        # Of what is padding there is nothing to compute: the places of words, one after the other.
        counted = labels > 0
        places = np.nonzero(counted)
        logits, back_to_read = attnc.vjp(self.output, outputs[places])
        read = np.concatenate([outputs[places], x[places]], axis=-1)
        switch, back_to_both = attnc.vjp(self.switch, read)
        switch = switch[:, 0] if self.copies else np.full(len(read), np.inf, self.dtype)
        labels = labels[places] if self.copies else self.known(labels[places])
        (losses, p_gen, written), back_to_mixture = mixture(
            logits, switch, found.weights[places], labels, source[places[0]]
        )
        again, back_to_weights = attnc.vjp(coverage_loss, found.weights, mask=counted)
        whole = np.ones((2, *counted.shape), self.dtype)
        whole[0][places], whole[1][places] = p_gen, written

        def pullback():
            dlosses = np.full_like(losses, 1 / len(losses))
            dlogits, dswitch, dcopied = back_to_mixture(dlosses)
            doutputs, dx = np.zeros_like(outputs), np.zeros_like(x)
            doutputs[places] = back_to_read(dlogits).x
            if self.copies:
                dread = back_to_both(dswitch[:, None]).x
                doutputs[places] += dread[:, : outputs.shape[-1]]
                dx[places] = dread[:, outputs.shape[-1] :]
            dweights = back_to_weights(coverage).weights
            dweights[places] += dcopied
            back = back_to_decoder(back_to_outputs(doutputs), dweights)
            back_to_words(back_to_x(back.inputs + dx))
            back_to_source(back.memory, back.state)
            return Gradients({})

        loss = losses.mean() + coverage * again
        return Reading(loss, found.weights, *whole), pullback

    # ---- As a StepDecoder ------------------------------------------------------------------------

    def prepare_source(self, source, lengths, size):
        """Memory and state that a search begins with; `size`: how many numbers words have."""
        memory, state, _ = self.encode(source, lengths)
        memory = self.decoder.prepare(memory, key_lengths=lengths)
        return Prepared(memory, source, size), state

    def prepare(self, memory, key_mask=None, key_lengths=None):
        return memory

    def step(self, tokens, memory, state):
        x = self.words(self.known(tokens))
        outputs, weights, state = self.decoder.step(x, memory.memory, state)
        words = softmax(self.output(outputs))
        p_gen = np.ones_like(words[:, :1])
        if self.copies:
            p_gen = sigmoid(self.switch(np.concatenate([outputs, x], axis=-1)))
        P = np.zeros((len(words), max(memory.size, self.vocabulary)), self.dtype)
        P[:, : self.vocabulary] = p_gen * words
        np.add.at(P, (np.arange(len(P))[:, None], memory.source), (1 - p_gen) * weights)
        P[:, NEVER] = 0
        with np.errstate(divide="ignore"):
            return np.log(P), weights, state

    def reorder(self, state, indices):
        return self.decoder.reorder(state, indices)


class Prepared:
    """Memories of a batch, with the numbers of their words: what `attnc.beam_search` hands on."""

    def __init__(self, memory, source, size):
        self.memory, self.source, self.size = memory, source, size

    def __len__(self):
        return len(self.source)

    def take(self, rows):
        return Prepared(self.memory.take(rows), self.source[rows], self.size)

"""Listen, attend and spell: a pyramid of LSTMs hears, a decoder with attention spells.

    sound -> Pyramid -> memory, a vector for each 80 ms
    characters so far -> Embedding -> AttentionDecoder, looks at the memory -> Linear -> the next

Chan, Jaitly, Le and Vinyals (2016), "Listen, attend and spell", section 3. A frame is of 10 ms, and
a letter takes 30 of them: without the pyramid a decoder would have to choose among hundreds.

Defines: `Pyramid`, `Speller`, `shortened`.
"""

from typing import Any, ClassVar, NamedTuple

import numpy as np

import attnc
from attnc.data import Vocabulary
from attnc.gradients import Gradients
from attnc.losses import softmax_cross_entropy


class Heard(NamedTuple):
    """The memory (B, T / 2^layers, 2 size), and the last states of the top layer (B, 2 size)."""

    memory: np.ndarray
    summary: np.ndarray


def shortened(lengths, layers):
    """Return how many steps are left of these after so many layers, each of which halves them."""
    return -(-np.asarray(lengths) // 2**layers)


class Pyramid(attnc.Layer):
    """LSTMs in both directions, on top of each other; each reads two steps of that below as one.

    What is behind the end of a sequence is zeros, whatever is given: so the last step of an odd
    number has a partner, the same one in any batch.
    """

    def __init__(self, input_size, size, layers=3, *, rng=None, dtype="float32"):
        super().__init__(dtype)
        self.input_size, self.size, self.layers = input_size, size, layers
        rng = np.random.default_rng(rng)
        sizes = [2 * input_size] + (layers - 1) * [4 * size]
        self.lstms = [attnc.LSTM(n, size, bidirectional=True, rng=rng, dtype=dtype) for n in sizes]

    def _vjp(self, x, lengths):
        x, lengths = np.asarray(x, self.dtype), np.asarray(lengths)
        valid = np.arange(x.shape[1])[:, None] < lengths[:, None, None]
        x, back = np.where(valid, x, 0), []
        for lstm in self.lstms:
            B, T, _ = x.shape
            pairs = np.concatenate([x, np.zeros_like(x[:, : T % 2])], axis=1)
            pairs, lengths = pairs.reshape(B, (T + 1) // 2, -1), shortened(lengths, 1)
            (x, (h, c)), back_to_pairs = attnc.vjp(lstm, pairs, lengths=lengths)  # padding: zeros
            back.append((back_to_pairs, T))
        memory, summary = x, np.concatenate(list(h), axis=-1)

        def pullback(dmemory=None, dsummary=None):
            dx = np.zeros_like(memory) if dmemory is None else dmemory
            dstate = None
            if dsummary is not None:  # of both directions of the top layer; none of its cells
                dstate = np.stack(np.split(dsummary, 2, axis=-1)), np.zeros_like(c)
            for back_to_pairs, T in reversed(back):
                dpairs = back_to_pairs(dx, dstate).x
                dx, dstate = dpairs.reshape(B, 2 * dpairs.shape[1], -1)[:, :T], None
            return Gradients({"x": np.where(valid, dx, 0)})

        return Heard(memory, summary), pullback


class Speller(attnc.Layer):
    """Pyramid and decoder; `kind` says how the decoder attends to what was heard.

    "soft": to all of it. "monotonic": from left to right (Raffel et al. 2017); where it transcribes
    it decides, and then looks at nothing behind. "none": not at all, it has the last states alone.
    """

    KINDS: ClassVar[dict[str, dict[str, Any]]] = {
        "soft": {},
        "monotonic": {"alignment": "monotonic"},
        "none": {"attention": "none"},
    }

    def __init__(self, kind, characters, bands=40, size=64, layers=3, *, rng=None, dtype="float32"):
        super().__init__(dtype)
        made: dict[str, Any] = {"rng": np.random.default_rng(rng), "dtype": dtype}
        self.kind, self.characters, self.bands = kind, characters, bands
        self.size, self.layers = size, layers
        self.listener = Pyramid(bands, size, layers, **made)
        self.embedding = attnc.Embedding(characters, size // 2, padding_index=0, **made)
        self.decoder = attnc.AttentionDecoder(
            size // 2, 2 * size, 2 * size, cell="lstm", order="luong", input_feeding=True,
            **self.KINDS[kind], **made,
        )  # fmt: skip
        self.output = attnc.Linear(2 * size, characters, **made)

    def remember(self, heard, lengths):
        """What the decoder looks at, and which of it is there."""
        if self.kind == "none":
            return heard.summary[:, None], {}
        return heard.memory, {"key_lengths": shortened(lengths, self.layers)}

    def _vjp(self, sounds, lengths, before, labels, *, sampling=0.0, train=False, rng=None):
        heard, back_to_sounds = attnc.vjp(self.listener, sounds, lengths)
        memory, there = self.remember(heard, lengths)
        if sampling:  # some characters before are the model's own, section 3.3
            before = attnc.scheduled_inputs(
                self.decoder, self.embedding, self.output, before, memory,
                probability=sampling, rng=rng, **there,
            )  # fmt: skip
        x, back_to_before = attnc.vjp(self.embedding, before)
        found, back_to_x = attnc.vjp(self.decoder, x, memory, **there, train=train, rng=rng)
        logits, back_to_found = attnc.vjp(self.output, found.outputs)
        loss, back_to_logits = attnc.vjp(
            softmax_cross_entropy, logits, labels, ignore_index=Vocabulary.padding
        )

        def pullback():
            down = back_to_x(back_to_found(*back_to_logits()).x)
            back_to_before(down.inputs)
            if self.kind == "none":
                back_to_sounds(dsummary=down.memory[:, 0])
            else:
                back_to_sounds(down.memory)
            return Gradients({})

        return (loss, found.weights), pullback

    def transcribe(self, sounds, lengths, longest=48):
        """Always the most probable next character: (tokens, weights)."""
        memory, there = self.remember(self.listener(sounds, lengths), lengths)
        return attnc.greedy_decode(
            self.decoder, self.embedding, self.output,
            self.decoder.prepare(memory, **there, hard=self.kind == "monotonic"),
            start=Vocabulary.start, end=Vocabulary.end, max_length=longest,
        )  # fmt: skip

"""One small model for each way to combine attentions, with it and without.

Each is a layer: called with the inputs of its task in combined_tasks.py it returns scores of the
answers and the weights of its attention, and its pullback goes on from the gradient of the scores.
"""

import numpy as np
from combined_tasks import ANSWERS

import attnc
from attnc.gradients import Gradients

SIZE = 32  # of all vectors


class Model(attnc.Layer):
    """What the models share: tables of vectors, and a linear map from vectors to scores."""

    def __init__(self, words, rng, classes=ANSWERS, read=SIZE, dtype="float32"):
        super().__init__(dtype)
        self.made = {"rng": rng, "dtype": dtype}
        self.words = attnc.Embedding(words, SIZE, **self.made)
        self.answers = attnc.Embedding(ANSWERS + 1, SIZE, **self.made)
        self.output = attnc.Linear(read, classes, **self.made)

    def memory(self, names, answers):
        """Vectors of (name, answer), and the way back."""
        x, back_to_names = attnc.vjp(self.words, names)
        y, back_to_answers = attnc.vjp(self.answers, answers)

        def back(d):
            back_to_names(d)
            back_to_answers(d)

        return x + y, back


class Documents(Model):
    """Hierarchical attention, words to sentences to the document; or over all words at once."""

    def __init__(self, combined, rng, **made):
        super().__init__(16, rng, **made)
        kind = attnc.HierarchicalAttention if combined else attnc.AttentionPooling
        self.attention = kind(SIZE, **self.made)

    def _vjp(self, words, lengths):
        x, back_to_words = attnc.vjp(self.words, words)
        if isinstance(self.attention, attnc.HierarchicalAttention):
            found, back_to_x = attnc.vjp(self.attention, x, lengths, return_weights=True)
            weights = found.word_weights * found.sentence_weights[..., None]
        else:
            flat, mask = x.reshape(len(x), -1, SIZE), (words > 0).reshape(len(x), -1)
            found, back_to_x = attnc.vjp(self.attention, flat, key_mask=mask, return_weights=True)
            weights = found.weights.reshape(words.shape)
        logits, back_to_found = attnc.vjp(self.output, found.context)

        def pullback(dlogits):
            back_to_words(back_to_x(back_to_found(dlogits).x).x.reshape(x.shape))
            return Gradients({})

        return (logits, weights), pullback


class Claims(Model):
    """Attention on attention: claim and context meet in a gate; or side by side in a linear map."""

    def __init__(self, combined, rng, **made):
        super().__init__(8, rng, 2, **made)
        self.attention = attnc.MultiplicativeAttention(SIZE, SIZE, **self.made)
        self.pair = None if combined else attnc.Linear(2 * SIZE, SIZE, **self.made)
        if combined:
            self.attention = attnc.AttentionOnAttention(self.attention, SIZE, rng=rng)

    def _vjp(self, name, claimed, names, answers):
        query, back_to_claim = self.memory(name, claimed)
        memory, back_to_memory = self.memory(names, answers)
        found, back_to_query = attnc.vjp(self.attention, query, memory, return_weights=True)
        read, back_to_pair = found.context, None
        if self.pair:
            read = np.concatenate([query, read], axis=-1)
            read, back_to_pair = attnc.vjp(self.pair, read)
        logits, back_to_read = attnc.vjp(self.output, read)

        def pullback(dlogits):
            (dcontext,), of_query = back_to_read(dlogits), 0
            if back_to_pair:
                of_query, dcontext = np.split(back_to_pair(dcontext).x, 2, axis=-1)
            dquery, dmemory = back_to_query(dcontext)
            back_to_claim(dquery + of_query)
            back_to_memory(dmemory)
            return Gradients({})

        return (logits, found.weights), pullback


class Clozes(Model):
    """Attention over attention points at the answer; or what all words of a question look at.

    The probability of a word is the sum of the weights at its places, of which the scores are the
    logarithms.
    """

    def __init__(self, combined, rng, **made):
        super().__init__(25, rng, **made)
        self.attention = attnc.AttentionOverAttention(dtype=self.dtype)
        self.plain = None if combined else attnc.DotProductAttention(scale=1.0, dtype=self.dtype)

    def _vjp(self, question, document):
        q, back_to_question = attnc.vjp(self.words, question)
        k, back_to_document = attnc.vjp(self.words, document)
        layer = self.plain or self.attention
        found, back_to_vectors = attnc.vjp(layer, q, k, return_weights=True)
        weights = found.weights if self.plain is None else found.weights.mean(axis=1)
        share = np.zeros((len(weights), len(self.words.parameters["weight"])), weights.dtype)
        rows = np.arange(len(weights))[:, None]
        np.add.at(share, (rows, document), weights)
        share += 1e-6

        def pullback(dlogits):
            dweights = (dlogits / share)[rows, document]
            if self.plain is not None:
                dweights = np.broadcast_to(dweights[:, None], found.weights.shape) / q.shape[1]
            dq, dk = back_to_vectors(dweights=dweights)
            back_to_question(dq)
            back_to_document(dk)
            return Gradients({})

        shown = weights if self.plain else found.query_weights
        return (np.log(share), shown[:, None]), pullback


class Partners(Model):
    """Self-attention inside the encoder that a recurrent decoder attends to; or no encoder."""

    def __init__(self, combined, rng, **made):
        super().__init__(4, rng, **made)
        self.positions = attnc.SinusoidalPositions(SIZE, dtype=self.dtype)
        self.encoder = None
        if combined:
            self.encoder = attnc.Residual(attnc.SelfAttention(SIZE, **self.made))
        self.decoder = attnc.AttentionDecoder(SIZE, SIZE, SIZE, **self.made)

    def _vjp(self, tags, answers):
        x, back_to_words = self.memory(tags, answers)
        x = self.positions(x)
        memory, back_to_x = attnc.vjp(self.encoder, x) if self.encoder else (x, None)
        steps = self.positions(np.zeros_like(x))  # the number of the word to be written
        found, back_to_memory = attnc.vjp(self.decoder, steps, memory)
        logits, back_to_found = attnc.vjp(self.output, found.outputs)

        def pullback(dlogits):
            dmemory = back_to_memory(back_to_found(dlogits).x).memory
            back_to_words(back_to_x(dmemory).x if back_to_x else dmemory)
            return Gradients({})

        return (logits, found.weights), pullback


class Repeats(Model):
    """A look forward, then a second look back over what the first one saw; or the first alone.

    Both looks attend to the list; the second reads the outputs of the first from the last step to
    the first, as the second decoder of Zhang et al. (2018), "Asynchronous bidirectional decoding
    for neural machine translation", reads those of the first in the other direction.
    """

    def __init__(self, combined, rng, **made):
        super().__init__(8, rng, 2 * ANSWERS, SIZE * (1 + combined), **made)
        self.forward = attnc.AttentionDecoder(SIZE, SIZE, SIZE, order="luong", **self.made)
        self.back = None
        if combined:
            self.back = attnc.AttentionDecoder(SIZE, SIZE, SIZE, order="luong", **self.made)

    def _vjp(self, asked, names, answers):
        x, back_to_asked = attnc.vjp(self.words, asked)
        memory, back_to_memory = self.memory(names, answers)
        found, back_to_x = attnc.vjp(self.forward, x, memory)
        read, weights = found.outputs, found.weights
        if self.back:
            second, back_to_first = attnc.vjp(self.back, found.outputs[:, ::-1], memory)
            read = np.concatenate([read, second.outputs[:, ::-1]], axis=-1)
        logits, back_to_read = attnc.vjp(self.output, read)

        def pullback(dlogits):
            (dread,) = back_to_read(dlogits)
            doutputs, dmemory = dread[..., :SIZE], 0
            if self.back:
                dfirst, dmemory = back_to_first(dread[:, ::-1, SIZE:])
                doutputs = doutputs + dfirst[:, ::-1]
            dx, of_first = back_to_x(doutputs)
            back_to_asked(dx)
            back_to_memory(of_first + dmemory)
            return Gradients({})

        return (logits, weights), pullback

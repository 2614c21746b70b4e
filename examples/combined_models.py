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
        plain = attnc.MultiplicativeAttention(SIZE, SIZE, **self.made)
        self.pair = None if combined else attnc.Linear(2 * SIZE, SIZE, **self.made)
        on = attnc.AttentionOnAttention(plain, SIZE, rng=rng) if combined else None
        self.attention = on or plain

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
            (dread,) = back_to_read(dlogits)
            if back_to_pair:
                of_query, dread = np.split(back_to_pair(dread).x, 2, axis=-1)
            dquery, dmemory = back_to_query(dread)
            back_to_claim(dquery + of_query if back_to_pair else dquery)
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

        looks = attnc.dot_product_attention(q, k, k, scale=1.0, return_weights=True).weights
        counts = found.query_weights if self.plain is None else np.full(q.shape[:2], 1 / q.shape[1])
        return (np.log(share), counts[..., None] * looks), pullback


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

        weights = found.weights
        if self.encoder:  # of which word each finds its partner with, not in which order it writes
            weights = self.encoder.layer(x, return_weights=True).weights
        return (logits, weights), pullback


class Repeats(Model):
    """A look forward, then a second look back from where the first one ended; or the first alone.

    Both are decoders that attend to the list for each name. The second begins with the last state
    of the first, and reads the names from the last to the first; what is answered at a step is
    made of what both saw. So do the two decoders of Zhang et al. (2018), "Asynchronous
    bidirectional decoding for neural machine translation", in the opposite order.
    """

    def __init__(self, combined, rng, **made):
        super().__init__(6, rng, 2 * ANSWERS, SIZE * (1 + combined), **made)
        self.forward = attnc.AttentionDecoder(SIZE, SIZE, SIZE, order="luong", **self.made)
        self.back = None
        if combined:
            self.back = attnc.AttentionDecoder(SIZE, SIZE, SIZE, order="luong", **self.made)

    def _vjp(self, asked, names, answers):
        x, back_to_asked = attnc.vjp(self.words, asked)
        memory, back_to_memory = self.memory(names, answers)
        first, back_to_first = attnc.vjp(self.forward, x, memory)
        read, weights = first.outputs, first.weights
        if self.back:
            second, back_to_second = attnc.vjp(self.back, x[:, ::-1], memory, first.state)
            read = np.concatenate([read, second.outputs[:, ::-1]], axis=-1)
            weights = np.concatenate([weights, second.weights[:, ::-1]], axis=1)
        logits, back_to_read = attnc.vjp(self.output, read)

        def pullback(dlogits):
            (dread,) = back_to_read(dlogits)
            dx, dmemory, dstate = 0, 0, None
            if self.back:
                found = back_to_second(dread[:, ::-1, SIZE:])
                dx, dmemory, dstate = found.inputs[:, ::-1], found.memory, found.state
            found = back_to_first(dread[..., :SIZE], dstate=dstate)
            back_to_asked(dx + found.inputs)
            back_to_memory(dmemory + found.memory)
            return Gradients({})

        return (logits, weights), pullback


class NearAndFar(Model):
    """Local and global attention with a gate; or one of the two alone."""

    def __init__(self, combined, rng, alone="global", **made):
        super().__init__(16, rng, **made)
        both = {
            "global": attnc.MultiplicativeAttention(SIZE, SIZE, **self.made),
            "local": attnc.LocalAttention(
                SIZE, SIZE, score="multiplicative", position="monotonic", width=1, **self.made
            ),
        }
        gated = attnc.GatedAttention(both["local"], both["global"], SIZE, rng=rng)
        self.attention = gated if combined else both[alone]

    def _vjp(self, asked, names, answers):
        query, back_to_asked = attnc.vjp(self.words, asked)
        memory, back_to_memory = self.memory(names, answers)
        found, back_to_query = attnc.vjp(self.attention, query, memory, return_weights=True)
        logits, back_to_found = attnc.vjp(self.output, found.context)

        def pullback(dlogits):
            dquery, dmemory = back_to_query(back_to_found(dlogits).x)
            back_to_asked(dquery)
            back_to_memory(dmemory)
            return Gradients({})

        return (logits, found.weights), pullback


class Regions(Model):
    """Soft attention within one region, which hard attention draws; or within a random one.

    A region is drawn by how the question fits the mean of its places, and REINFORCE (Xu et al.
    2015) trains the choice: the reward is the log-probability of the right answer, the baseline its
    moving average. Of 16 places, the 4 of the region are looked at, beside 4 means.
    """

    PLACES = 4  # in a region
    hard = True  # the pullback takes a reward

    def __init__(self, combined, rng, **made):
        super().__init__(4, rng, **made)
        self.topics = attnc.Embedding(4, SIZE, **self.made)
        self.attention = attnc.MultiplicativeAttention(SIZE, SIZE, **self.made)
        self.choice = attnc.HardAttention(
            SIZE, SIZE, score="multiplicative", soft_probability=0, **self.made
        )
        self.combined, self.rng = combined, rng
        self.baseline = attnc.estimators.MovingAverageBaseline(initial=-np.log(ANSWERS))

    def _vjp(self, topic, name, topics, names, answers, train=False):
        y, back_to_topic = attnc.vjp(self.topics, topic)
        z, back_to_name = attnc.vjp(self.words, name)
        t, back_to_topics = attnc.vjp(self.topics, topics)
        x, back_to_memory = self.memory(names, answers)
        query, memory = y + z, t + x
        regions = memory.reshape(len(x), -1, self.PLACES, SIZE).mean(axis=2)
        options = {"train": train, "rng": self.rng}
        if not self.combined:
            options["index"] = self.rng.integers(regions.shape[1], size=(len(x), 1))
        chosen, back_to_choice = attnc.vjp(self.choice, query, regions, **options)
        # The window begins at the first place of the region.
        found, back_to_places = attnc.vjp(
            self.attention, query, memory, return_weights=True, sigma=np.inf,
            center=chosen.index * float(self.PLACES), window=(0, self.PLACES - 1),
        )  # fmt: skip
        logits, back_to_found = attnc.vjp(self.output, found.context)

        def pullback(dlogits, reward):
            dquery, dmemory = back_to_places(back_to_found(dlogits).x)
            if self.combined:
                by_choice = attnc.estimators.reinforce(chosen, reward, self.baseline.value)
                self.baseline.update(reward)
                of_query, dregions = back_to_choice(None, *by_choice)
                dquery = dquery + of_query
                dmemory = dmemory + np.repeat(dregions / self.PLACES, self.PLACES, axis=1)
            back_to_topic(dquery)
            back_to_name(dquery)
            back_to_topics(dmemory)
            back_to_memory(dmemory)
            return Gradients({})

        return (logits, found.weights), pullback


class Sortings(Model):
    """A decoder that writes the words of a list once each, with coverage in its score; or without.

    Equal words have equal weights, and nothing but their sum so far tells what is left of them. It
    stands inside the tanh of the score (See et al. 2017, eq. 11).
    """

    coverage = "tanh"

    def __init__(self, combined, rng, **made):
        super().__init__(4, rng, 4, **made)
        coverage = self.coverage if combined else False
        self.decoder = attnc.AttentionDecoder(SIZE, SIZE, SIZE, coverage=coverage, **self.made)

    def _vjp(self, words, lengths, before):
        memory, back_to_words = attnc.vjp(self.words, words)
        x, back_to_before = attnc.vjp(self.words, before)
        found, back_to_x = attnc.vjp(self.decoder, x, memory, key_lengths=lengths)
        logits, back_to_found = attnc.vjp(self.output, found.outputs)

        def pullback(dlogits):
            dx, dmemory = back_to_x(back_to_found(dlogits).x)
            back_to_before(dx)
            back_to_words(dmemory)
            return Gradients({})

        return (logits, found.weights), pullback


class Fertilities(Sortings):
    """The same with coverage by fertility, how often a word is to be looked at (Tu et al. 2016)."""

    coverage = "fertility"

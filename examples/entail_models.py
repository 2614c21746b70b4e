"""Readers of two sentences, without attention and with it, for entail.py.

Each is a layer: called with the numbers of words of the premises and their lengths, and those of
the hypotheses, it returns scores (B, 3) of the labels; with ``return_weights=True`` also the
weights (B, hypothesis, premise) of its attention, None where it has none. `Alone` and `Bag` are to
compare with; `Conditional` and `WordByWord` are those of Rocktäschel et al. 2016, "Reasoning about
entailment with neural attention", `Decomposable` is that of Parikh et al. 2016, "A decomposable
attention model for natural language inference".
"""

import numpy as np

import attnc
from attnc.gradients import Gradients

SIZE = 64  # of a word's vector
CLASSES = 3


class Reader(attnc.Layer):
    """What the models share: vectors of words. A model says what it makes of them, by `read`.

    ``read(a, a_lengths, b, b_lengths)``, of vectors (B, T, SIZE) of the premises and the
    hypotheses, returns scores, weights, and the way back from the gradient of the scores to those
    of a and b.
    """

    def __init__(self, words, rng, dtype="float32"):
        super().__init__(dtype)
        self.made = {"rng": rng, "dtype": dtype}
        self.words = attnc.Embedding(words + 1, SIZE, padding_index=0, **self.made)

    def _vjp(self, premise, premise_lengths, hypothesis, lengths, *, return_weights=False):
        a, back_to_premise = attnc.vjp(self.words, premise)
        b, back_to_hypothesis = attnc.vjp(self.words, hypothesis)
        logits, weights, back = self.read(a, premise_lengths, b, lengths)

        def pullback(dlogits):
            da, db = back(dlogits)
            back_to_premise(da)
            back_to_hypothesis(db)
            return Gradients({})

        return ((logits, weights) if return_weights else logits), pullback


# ---- Without attention ---------------------------------------------------------------------------


class Alone(Reader):
    """An LSTM that reads the hypothesis and never the premise: what the label is guessed by."""

    def __init__(self, words, rng, state=122, **made):
        super().__init__(words, rng, **made)
        self.hypothesis = attnc.LSTM(SIZE, state, **self.made)
        self.output = attnc.Linear(state, CLASSES, **self.made)

    def read(self, a, a_lengths, b, b_lengths):
        (_, (h, _)), back_to_b = attnc.vjp(self.hypothesis, b, None, b_lengths)
        logits, back_to_h = attnc.vjp(self.output, h[0])

        def back(dlogits):
            (dh,) = back_to_h(dlogits)
            return np.zeros_like(a), back_to_b(dstate=(dh[None], None)).x

        return logits, None, back


class Bag(Reader):
    """The sums of the words of both sentences, side by side, go through a network."""

    def __init__(self, words, rng, hidden=704, **made):
        super().__init__(words, rng, **made)
        self.output = attnc.FeedForward(2 * SIZE, hidden, output_size=CLASSES, **self.made)

    def read(self, a, a_lengths, b, b_lengths):
        u, back_to_a = total(a, a_lengths)
        v, back_to_b = total(b, b_lengths)
        logits, back_to_sums = attnc.vjp(self.output, np.concatenate([u, v], axis=1))

        def back(dlogits):
            du, dv = np.split(back_to_sums(dlogits).x, 2, axis=1)
            return back_to_a(du), back_to_b(dv)

        return logits, None, back


class Conditional(Reader):
    """Two LSTMs, of which the second goes on from the last state of the first (section 2.2).

    Its own last state is all that the scores are made of: h_N, which `decide` may add to.
    """

    def __init__(self, words, rng, state=80, **made):
        super().__init__(words, rng, **made)
        self.premise = attnc.LSTM(SIZE, state, **self.made)
        self.hypothesis = attnc.LSTM(SIZE, state, **self.made)
        self.output = attnc.Linear(state, CLASSES, **self.made)

    def read(self, a, a_lengths, b, b_lengths):
        (y, state), back_to_a = attnc.vjp(self.premise, a, None, a_lengths)
        (z, (h, _)), back_to_b = attnc.vjp(self.hypothesis, b, state, b_lengths)
        last, weights, back_to_states = self.decide(y, a_lengths, z, b_lengths, h[0])
        logits, back_to_last = attnc.vjp(self.output, last)

        def back(dlogits):
            dy, dz, dh = back_to_states(back_to_last(dlogits).x)
            found = back_to_b(dz, (dh[None], None))
            return back_to_a(dy, found.state).x, found.x

        return logits, weights, back

    def decide(self, y, y_lengths, z, z_lengths, h):
        """From the states of both sentences and the last: what the scores are made of."""
        return h, None, lambda dlast: (None, None, dlast)


# ---- With attention ------------------------------------------------------------------------------


class WordByWord(Conditional):
    """At each word of the hypothesis a look at the states of the premise (section 2.4)::

        M_t = tanh(W_y Y + (W_h h_t + W_r r_(t-1)) 1^T)
        a_t = softmax(w . M_t)
        r_t = Y a_t + tanh(W_t r_(t-1))
        h* = tanh(W_p r_N + W_x h_N)

    W_t starts orthogonal: r keeps its length from word to word, and so do gradients.
    """

    def __init__(self, words, rng, state=64, **made):
        super().__init__(words, rng, state, **made)
        for name in ("key", "query", "again", "carry"):  # W_y, W_h, W_r, W_t
            setattr(self, name, attnc.Linear(state, state, bias=False, **self.made))
        self.carry.parameters["weight"] = np.linalg.qr(rng.standard_normal((state, state)))[0]
        self.add_parameter("score_vector", rng.normal(0, state**-0.5, state))  # w
        self.join = attnc.Linear(2 * state, state, bias=False, **self.made)  # W_p and W_x

    def decide(self, y, y_lengths, z, z_lengths, h):
        keys, back_to_y = attnc.vjp(self.key, y)
        queries, back_to_z = attnc.vjp(self.query, z)
        r, steps, weights = np.zeros_like(h), [], []
        for t in range(z.shape[1]):
            read = (t < np.asarray(z_lengths))[:, None]  # r stays as it is in padding
            r, found, back = self.look(r, queries[:, t], keys, y, y_lengths, read)
            steps.append(back)
            weights.append(found)
        joined, back_to_both = attnc.vjp(self.join, np.concatenate([r, h], axis=1))
        last = np.tanh(joined)

        def back_to_states(dlast):
            dr, dh = np.split(back_to_both(dlast * (1 - last**2)).x, 2, axis=1)
            dqueries, dkeys, dy = np.empty_like(queries), np.zeros_like(keys), np.zeros_like(y)
            for t in reversed(range(len(steps))):
                dr, found = steps[t](dr)
                dqueries[:, t] = found.query[:, 0]
                dkeys += found.key
                dy += found.value
            return dy + back_to_y(dkeys).x, back_to_z(dqueries).x, dh

        return last, np.concatenate(weights, axis=1), back_to_states

    def look(self, r, query, keys, y, lengths, read):
        """One word: r_t where it is read, the weights, the way back."""
        of_r, back_to_again = attnc.vjp(self.again, r)
        carried, back_to_carry = attnc.vjp(self.carry, r)
        kept = np.tanh(carried)
        (context, weights), back_to_look = attnc.vjp(
            attnc.additive_attention,
            (query + of_r)[:, None],
            keys,
            y,
            self.parameters["score_vector"],
            key_lengths=lengths,
            return_weights=True,
        )

        def back(d):
            """Gradients of r_(t-1), and those of the attention."""
            dread = np.where(read, d, 0)
            found = back_to_look(dread[:, None])
            self.add_gradient("score_vector", found.score_vector)
            dr = np.where(read, 0, d) + back_to_again(found.query[:, 0]).x
            return dr + back_to_carry(dread * (1 - kept**2)).x, found

        return np.where(read, context[:, 0] + kept, r), weights, back


class Decomposable(Reader):
    """Attend, compare, aggregate: words against words, in whatever order (sections 3.1 to 3.3).

    ::

        e_ij = F(a_i) . F(b_j);  beta_i = sum_j softmax_j(e_ij) b_j;  alpha_j the other way
        v_1 = sum_i G([a_i, beta_i]);  v_2 = sum_j G([b_j, alpha_j])
        scores = H([v_1, v_2])
    """

    def __init__(self, words, rng, hidden=128, **made):
        super().__init__(words, rng, **made)
        self.attend = attnc.FeedForward(SIZE, SIZE, **self.made)  # F
        self.compare = attnc.FeedForward(2 * SIZE, 2 * hidden, output_size=hidden, **self.made)  # G
        self.aggregate = attnc.FeedForward(
            2 * hidden, hidden // 2, output_size=CLASSES, **self.made
        )  # H

    def read(self, a, a_lengths, b, b_lengths):
        f, back_to_a = attnc.vjp(self.attend, a)
        g, back_to_b = attnc.vjp(self.attend, b)
        both = {"query_lengths": a_lengths, "key_lengths": b_lengths}
        scores, back_to_f = attnc.vjp(attnc.dot_product_scores, f, g, scale=1.0, **both)
        beta, back_to_beta = attnc.vjp(attnc.attend, scores, b, key_lengths=b_lengths)
        (alpha, weights), back_to_alpha = attnc.vjp(
            attnc.attend, scores.swapaxes(1, 2), a, key_lengths=a_lengths, return_weights=True
        )
        v1, back_to_v1 = self.compared(a, beta, a_lengths)
        v2, back_to_v2 = self.compared(b, alpha, b_lengths)
        logits, back_to_both = attnc.vjp(self.aggregate, np.concatenate([v1, v2], axis=1))

        def back(dlogits):
            dv1, dv2 = np.split(back_to_both(dlogits).x, 2, axis=1)
            da, dbeta = back_to_v1(dv1)
            db, dalpha = back_to_v2(dv2)
            of_beta, of_alpha = back_to_beta(dbeta), back_to_alpha(dalpha)
            df, dg = back_to_f(of_beta.scores + of_alpha.scores.swapaxes(1, 2))
            da = da + of_alpha.value + back_to_a(df).x
            return da, db + of_beta.value + back_to_b(dg).x

        return logits, weights, back

    def compared(self, x, found, lengths):
        """The sum over words of what each and what was found for it come to."""
        each, back_to_each = attnc.vjp(self.compare, np.concatenate([x, found], axis=2))
        v, back_to_v = total(each, lengths)

        def back(dv):
            return np.split(back_to_each(back_to_v(dv)).x, 2, axis=2)

        return v, back


def total(x, lengths):
    """The sum (B, D) over the words of each sentence, without padding; and the way back."""
    real = (np.arange(x.shape[1]) < np.asarray(lengths)[:, None])[..., None]
    return (x * real).sum(axis=1), lambda d: d[:, None] * real

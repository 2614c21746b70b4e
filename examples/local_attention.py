"""Luong's local attention as a layer, of the options that all attention layers have.

Luong, Pham and Manning (2015), section 3.2: query t sees the D keys to both sides of a place p_t,
which is t itself (local-m) or predicted (local-p), for a memory of S real steps::

    p_t = (S - 1) sigmoid(v . tanh(q_t W))      weights * exp(-(j - p_t)^2 / (2 (D / 2)^2))
"""

import numpy as np

import attnc
from attnc.gradients import Gradients


class LocalAttention(attnc.Layer):
    """Local attention with the score "dot" or "multiplicative"; `width` is D."""

    def __init__(self, query_size, key_size, *, score, position, width, rng=None, dtype="float32"):
        super().__init__(dtype)
        rng = np.random.default_rng(rng)
        self.position, self.width = position, width
        if score == "dot":
            self.score = attnc.DotProductAttention(scale=1.0, dtype=dtype)
        else:
            self.score = attnc.MultiplicativeAttention(query_size, key_size, rng=rng, dtype=dtype)
        if position == "predictive":
            self.hidden = attnc.Linear(query_size, query_size, bias=False, rng=rng, dtype=dtype)
            self.place = attnc.Linear(query_size, 1, bias=False, rng=rng, dtype=dtype)

    def _vjp(self, query, memory, *, key_lengths=None, return_weights=False):
        options = {"key_lengths": key_lengths, "return_weights": return_weights}
        window = {"window": (self.width, self.width)}
        if self.position == "monotonic":
            options |= window | {"causal_offset": 0}
            return attnc.vjp(self.score, query, memory, **options)
        lengths = memory.shape[-2] if key_lengths is None else np.asarray(key_lengths)[..., None]
        a, back_to_query = attnc.vjp(self.hidden, query)
        b, back_to_a = attnc.vjp(self.place, np.tanh(a))
        p = 0.5 + 0.5 * np.tanh(0.5 * b[..., 0])  # the sigmoid
        center = ((lengths - 1) * p).astype(self.dtype)
        output, back = attnc.vjp(self.score, query, memory, center=center, **window, **options)

        def pullback(dcontext=None, *, dweights=None):
            found = back(dcontext, **({} if dweights is None else {"dweights": dweights}))
            db = (found.center * (lengths - 1) * p * (1 - p)).astype(self.dtype)
            da = back_to_a(db[..., None]).x * (1 - np.tanh(a) ** 2)
            return Gradients({"query": found.query + back_to_query(da).x, "memory": found.key})

        return output, pullback

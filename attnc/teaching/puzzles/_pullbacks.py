"""Puzzles of gradients: the way back through the softmax, and through all of attention."""

from __future__ import annotations

import math

import numpy as np

from attnc.teaching.puzzles._puzzle import puzzle


def _softmaxes(rng):
    for Tq, Tk in ((2, 3), (1, 1), (1, 2), (2, 2), (3, 5)):
        weights = rng.random((Tq, Tk)) + 0.1
        weights = (weights / weights.sum(axis=1, keepdims=True)).round(2)
        yield weights, rng.standard_normal((Tq, Tk)).round(1)


@puzzle(_softmaxes, "weights, dweights (Tq, Tk); returns (Tq, Tk)", "dscores")
def softmax_pullback(weights, dweights):
    """Go back through a softmax: from its weights and the gradient of a loss with respect to them
    to the gradient with respect to the scores. The weight j of a row changes with its score k by
    w_j (1 - w_k) if j = k, and else by -w_j w_k. Make no array of shape (Tq, Tk, Tk)."""
    dscores = np.zeros(weights.shape)
    for i, w in enumerate(weights):
        for j in range(len(w)):
            for k in range(len(w)):
                dscores[i, k] += dweights[i, j] * w[j] * ((j == k) - w[k])
    return dscores


def _calls(rng):
    for Tq, Tk, D, Dv in ((2, 3, 2, 2), (1, 1, 1, 1), (1, 2, 1, 1), (2, 2, 2, 1), (3, 4, 4, 2)):
        shapes = (Tq, D), (Tk, D), (Tk, Dv), (Tq, Dv)
        yield tuple(rng.standard_normal(shape).round(1) for shape in shapes)


@puzzle(
    _calls,
    "query (Tq, D); key (Tk, D); value (Tk, Dv); dcontext (Tq, Dv); returns three like the first",
    "dquery dkey dvalue",
)
def dot_product_pullback(query, key, value, dcontext):
    """Go back through softmax(query key^T / sqrt(D)) value: from the gradient with respect to the
    context to those with respect to query, key and value. `attnc.check_gradients` finds what is
    wrong in one, too."""
    scale = 1 / math.sqrt(query.shape[1])
    dquery, dkey, dvalue = (np.zeros(x.shape) for x in (query, key, value))
    for i, q in enumerate(query):
        powers = [math.exp(scale * sum(q * k)) for k in key]
        w = [power / sum(powers) for power in powers]
        dw = [sum(dcontext[i] * v) for v in value]
        mean = sum(w[j] * dw[j] for j in range(len(key)))
        for j, k in enumerate(key):
            dvalue[j] += w[j] * dcontext[i]
            dscore = w[j] * (dw[j] - mean)
            dquery[i] += scale * dscore * k
            dkey[j] += scale * dscore * q
    return dquery, dkey, dvalue

"""A solution of each of the puzzles in `attnc.teaching.puzzles`, by its name.

Looked at after one's own.
"""

from __future__ import annotations

import numpy as np

from attnc.typing import Array

# They are for reading, and documented by their puzzles.
__all__: list[str] = []


def mask(scores: Array, allowed: Array) -> Array:
    return np.where(allowed, scores, -np.inf)


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def causal(Tq: int, Tk: int) -> Array:
    return np.arange(Tk) <= np.arange(Tq)[:, None] + Tk - Tq


def one_query(query: Array, key: Array, value: Array) -> Array:
    powers = np.exp(key @ query / np.sqrt(len(query)))
    return powers @ value / powers.sum()


def additive_weights(query: Array, key: Array, score_vector: Array) -> Array:
    return softmax(np.tanh(query[:, None] + key) @ score_vector)


def grouped_heads(query: Array, key: Array) -> Array:
    (H, Tq, D), (G, Tk, _) = query.shape, key.shape
    scores = query.reshape(G, H // G, Tq, D) @ key[:, None].swapaxes(-1, -2)
    return scores.reshape(H, Tq, Tk)


def split_heads(x: Array, heads: int) -> Array:
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def padding(rows: Array, lengths: Array) -> Array:
    padded = np.zeros((len(lengths), lengths.max(), rows.shape[1]))
    padded[np.arange(lengths.max()) < lengths[:, None]] = rows
    return padded


def online_softmax(
    top: Array, total: Array, sums: Array, scores: Array, value: Array
) -> tuple[Array, Array, Array]:
    higher = np.maximum(top, scores.max(axis=1))
    shrink, powers = np.exp(top - higher), np.exp(scores - higher[:, None])
    return higher, total * shrink + powers.sum(axis=1), sums * shrink[:, None] + powers @ value


def merge(context_a: Array, lse_a: Array, context_b: Array, lse_b: Array) -> tuple[Array, Array]:
    lse = np.logaddexp(lse_a, lse_b)
    a, b = (np.exp(part - np.where(lse == -np.inf, 0, lse))[:, None] for part in (lse_a, lse_b))
    return a * context_a + b * context_b, lse


def coverage(weights: Array) -> Array:
    return weights.cumsum(axis=0) - weights


def monotonic(p: Array, previous: Array) -> Array:
    passed = np.cumprod(np.append(1, 1 - p))[:-1]
    return p * passed * np.cumsum(previous / passed)


def relative_shift(by_distance: Array) -> Array:
    i = np.arange(len(by_distance))
    return by_distance[i[:, None], i - i[:, None] + len(i) - 1]


def softmax_pullback(weights: Array, dweights: Array) -> Array:
    return weights * (dweights - (weights * dweights).sum(axis=-1, keepdims=True))


def dot_product_pullback(
    query: Array, key: Array, value: Array, dcontext: Array
) -> tuple[Array, Array, Array]:
    scale = query.shape[1] ** -0.5
    weights = softmax(scale * query @ key.T)
    dscores = scale * softmax_pullback(weights, dcontext @ value.T)
    return dscores @ key, dscores.T @ query, weights.T @ dcontext

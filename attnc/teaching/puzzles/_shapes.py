"""Puzzles of axes: heads, padding, and positions relative to each other."""

from __future__ import annotations

import numpy as np

from attnc.teaching.puzzles._puzzle import puzzle


def _grouped(rng):
    sizes = (4, 2, 2, 3, 1), (1, 1, 1, 1, 1), (2, 1, 1, 2, 1), (2, 2, 2, 1, 2), (6, 3, 2, 3, 2)
    for H, G, Tq, Tk, D in sizes:
        yield tuple(rng.standard_normal(shape).round(1) for shape in ((H, Tq, D), (G, Tk, D)))


@puzzle(
    _grouped, "query (H, Tq, D); key (G, Tk, D), H a multiple of G; returns (H, Tq, Tk)", "scores"
)
def grouped_heads(query, key):
    """Score heads of queries against fewer heads of keys, without a scale: the first H / G heads of
    queries share the first head of keys, the next ones the second. Copy no key: broadcast."""
    H, G = len(query), len(key)
    scores = np.zeros((H, query.shape[1], key.shape[1]))
    for h in range(H):
        for i, q in enumerate(query[h]):
            for j, k in enumerate(key[h * G // H]):
                scores[h, i, j] = sum(q * k)
    return scores


def _heads(rng):
    for T, H, D in ((3, 2, 2), (1, 1, 1), (2, 2, 1), (2, 1, 2), (2, 2, 2), (4, 3, 2)):
        yield np.arange(1.0, T * H * D + 1).reshape(T, H * D), H


@puzzle(_heads, "x (T, H * D); heads = H; returns (H, T, D)", "parts")
def split_heads(x, heads):
    """Split the features of each position among the heads: the first D features are those of the
    first head."""
    T, D = len(x), x.shape[1] // heads
    parts = np.zeros((heads, T, D))
    for h in range(heads):
        for t in range(T):
            for d in range(D):
                parts[h, t, d] = x[t, h * D + d]
    return parts


def _packed(rng):
    for lengths in ((2, 1, 3), (1,), (1, 1), (1, 2), (2, 1), (0, 2, 1), (3, 0, 4)):
        yield np.arange(1.0, 2 * sum(lengths) + 1).reshape(-1, 2), np.array(lengths)


@puzzle(
    _packed, "rows (sum of lengths, D); lengths (B,) int; returns (B, largest length, D)", "padded"
)
def padding(rows, lengths):
    """Give each sequence of a packed batch, one after the other in `rows`, a place of its own, and
    fill up the shorter ones with 0."""
    padded = np.zeros((len(lengths), max(lengths), rows.shape[1]))
    start = 0
    for b, length in enumerate(lengths):
        for t in range(length):
            padded[b, t] = rows[start + t]
        start += length
    return padded


def _relative(rng):
    for T in (3, 1, 2, 4, 5):
        yield (np.arange(T)[:, None] * 10.0 + np.arange(1 - T, T),)


@puzzle(_relative, "by_distance (T, 2 T - 1); returns (T, T)", "scores")
def relative_shift(by_distance):
    """Turn scores by distance into scores by position. Row i has the scores of query i for the keys
    at distances -(T - 1) to T - 1; give those of the keys 0 to T - 1, of which key j is at the
    distance j - i."""
    T = len(by_distance)
    scores = np.zeros((T, T))
    for i in range(T):
        for j in range(T):
            scores[i, j] = by_distance[i, j - i + T - 1]
    return scores

"""Puzzles of the way to the weights: masks, the softmax, scores."""

from __future__ import annotations

import math

import numpy as np

from attnc.teaching.puzzles._puzzle import puzzle


def _masks(rng):
    for Tq, Tk in ((3, 4), (1, 1), (1, 3), (2, 2), (4, 2), (5, 6)):
        yield rng.standard_normal((Tq, Tk)).round(1), rng.random((Tq, Tk)) < 0.6
    yield np.full((1, 2), np.nan), np.array([[False, False]])


@puzzle(_masks, "scores (Tq, Tk); allowed (Tq, Tk) bool; returns (Tq, Tk)", "masked")
def mask(scores, allowed):
    """Keep the scores that are allowed and put -inf in the place of the others, whatever they are:
    a softmax gives those the weight 0."""
    masked = np.zeros(scores.shape)
    for i in range(len(scores)):
        for j in range(scores.shape[1]):
            masked[i, j] = scores[i, j] if allowed[i, j] else -math.inf
    return masked


def _rows(rng):
    yield (rng.standard_normal((3, 4)).round(1),)
    yield (np.zeros((1, 1)),)
    yield (np.array([[1.0, 2.0]]),)
    yield (np.array([[1000.0, 1001.0]]),)
    yield (np.array([[-1000.0, -1001.0], [1.0, 2.0]]),)
    yield (np.array([[0.0, -np.inf], [1.0, 1.0]]),)
    yield (rng.standard_normal((5, 5)) * 3,)


@puzzle(_rows, "scores (Tq, Tk); returns (Tq, Tk)", "weights")
def softmax(scores):
    """Turn each row of scores into weights exp(s) that are divided by their sum. Scores of 1000
    must not overflow: what is subtracted from a whole row changes nothing."""
    weights = np.zeros(scores.shape)
    for i in range(len(scores)):
        top = max(scores[i])
        total = sum(math.exp(s - top) for s in scores[i])
        for j in range(scores.shape[1]):
            weights[i, j] = math.exp(scores[i, j] - top) / total
    return weights


def _lengths(rng):
    yield from ((3, 5), (1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (5, 3), (4, 4))


@puzzle(_lengths, "Tq, Tk int; returns (Tq, Tk) bool", "allowed")
def causal(Tq, Tk):
    """Say which key a query may look at: none after its own position. The last query stands at the
    last key, however many of each there are."""
    allowed = np.zeros((Tq, Tk), bool)
    for i in range(Tq):
        for j in range(Tk):
            allowed[i, j] = j <= i + Tk - Tq
    return allowed


def _one(rng):
    for Tk, D, Dv in ((4, 2, 3), (1, 1, 1), (2, 1, 1), (2, 4, 1), (3, 3, 3), (5, 4, 2)):
        yield tuple(rng.standard_normal(shape).round(1) for shape in ((D,), (Tk, D), (Tk, Dv)))


@puzzle(_one, "query (D,); key (Tk, D); value (Tk, Dv); returns (Dv,)", "context")
def one_query(query, key, value):
    """Let one query attend: score each key by its product with the query over sqrt(D), take the
    softmax of the scores, and sum the values by these weights."""
    scores = [sum(query * k) / math.sqrt(len(query)) for k in key]
    total = sum(math.exp(s) for s in scores)
    context = np.zeros(value.shape[1])
    for j in range(len(key)):
        context += math.exp(scores[j]) / total * value[j]
    return context


def _additive(rng):
    for Tq, Tk, H in ((2, 3, 2), (1, 1, 1), (1, 2, 1), (2, 2, 2), (3, 2, 4), (4, 4, 4)):
        yield tuple(rng.standard_normal(shape).round(1) for shape in ((Tq, H), (Tk, H), (H,)))


@puzzle(_additive, "query (Tq, H); key (Tk, H); score_vector (H,); returns (Tq, Tk)", "weights")
def additive_weights(query, key, score_vector):
    """Give the weights of additive attention, where query and key are projected already: the score
    of a pair is v . tanh(query + key), and a softmax over the keys makes weights of them."""
    weights = np.zeros((len(query), len(key)))
    for i, q in enumerate(query):
        for j, k in enumerate(key):
            score = 0.0
            for h, v in enumerate(score_vector):
                score += v * math.tanh(q[h] + k[h])
            weights[i, j] = math.exp(score)
        weights[i] /= sum(weights[i])
    return weights

"""Puzzles of attention in steps: block by block, part by part, word by word."""

from __future__ import annotations

import math

import numpy as np

from attnc.teaching.puzzles._puzzle import puzzle


def _blocks(rng):
    for Tq, n, Dv in ((2, 3, 2), (1, 1, 1), (1, 2, 1), (2, 2, 3), (4, 5, 2)):
        scores, value = rng.standard_normal((Tq, n)).round(1), rng.standard_normal((n, Dv)).round(1)
        top = rng.standard_normal(Tq).round(1)
        total, sums = 1 + rng.random(Tq).round(1), rng.standard_normal((Tq, Dv)).round(1)
        yield top, total, sums, scores, value
        yield top + 800, total, sums, scores - 800, value
        yield top - 800, total, sums, scores + 800, value
        yield np.full(Tq, -np.inf), 0 * total, 0 * sums, scores, value


@puzzle(
    _blocks,
    "top, total (Tq,); sums (Tq, Dv); scores (Tq, n); value (n, Dv); "
    "returns the new top, total and sums",
    "top total sums",
)
def online_softmax(top, total, sums, scores, value):
    """Take in a block of n more keys. A softmax that sees its scores block by block keeps three
    things of each row: the largest score so far, the sum of exp(score - largest), and the sum of
    exp(score - largest) times the value. Where the largest grows, the sums so far shrink. At first
    the largest is -inf."""
    top, total, sums = top.copy(), total.copy(), sums.copy()
    for i in range(len(scores)):
        for j in range(len(value)):
            higher = max(top[i], scores[i, j])
            shrink, power = math.exp(top[i] - higher), math.exp(scores[i, j] - higher)
            total[i] = total[i] * shrink + power
            sums[i] = sums[i] * shrink + power * value[j]
            top[i] = higher
    return top, total, sums


def _parts(rng):
    for T, Dv in ((3, 2), (1, 1), (1, 2), (2, 1), (4, 3)):
        a, b = rng.standard_normal((2, T, Dv)).round(1)
        lse_a, lse_b = rng.standard_normal((2, T)).round(1)
        yield a, lse_a, b, lse_b
        yield a, lse_a + 1000, b, lse_b + 1000
        empty = np.full(T, -np.inf)
        yield a, lse_a, 0 * b, empty
        yield 0 * a, empty, 0 * b, empty


@puzzle(
    _parts,
    "context_a, context_b (T, Dv); lse_a, lse_b (T,); returns the context and lse of both",
    "context lse",
)
def merge(context_a, lse_a, context_b, lse_b):
    """Merge attention over two sets of keys into attention over all of them. The lse of a row is
    the logarithm of its sum of exp(score): each part counts as much as its sum. A part without keys
    has lse -inf; two of them give context 0 and lse -inf."""
    context, lse = np.zeros(context_a.shape), np.full(len(lse_a), -math.inf)
    for i in range(len(lse)):
        top = max(lse_a[i], lse_b[i])
        if top == -math.inf:
            continue
        a, b = math.exp(lse_a[i] - top), math.exp(lse_b[i] - top)
        context[i] = (a * context_a[i] + b * context_b[i]) / (a + b)
        lse[i] = top + math.log(a + b)
    return context, lse


def _alignments(rng):
    for Tq, Tk in ((4, 3), (1, 1), (2, 1), (2, 2), (1, 3), (5, 4)):
        weights = rng.random((Tq, Tk)) + 0.1
        yield ((weights / weights.sum(axis=1, keepdims=True)).round(2),)


@puzzle(_alignments, "weights (Tq, Tk); returns (Tq, Tk)", "coverage")
def coverage(weights):
    """Say how much each word of the source was looked at before each step: the sum of its weights
    in the steps before, 0 at the first. (See et al. 2017, eq. 10)"""
    coverage = np.zeros(weights.shape)
    for t in range(len(weights)):
        for before in range(t):
            coverage[t] += weights[before]
    return coverage


def _choices(rng):
    for Tk in (4, 1, 2, 3, 6):
        previous = rng.random(Tk) + 0.1
        yield (0.1 + 0.8 * rng.random(Tk)).round(2), (previous / previous.sum()).round(2)
        yield np.full(Tk, 0.5), np.eye(Tk)[0]


@puzzle(_choices, "p, previous (Tk,), p between 0 and 1; returns (Tk,)", "alignment")
def monotonic(p, previous):
    """Give the expected place of a reader that only moves forward. It starts where it stood before,
    at key k with the probability previous_k, stops at a key j with probability p_j, and else goes
    on to the next. (Raffel et al. 2017, eq. 9: p_j times the sum over k <= j of previous_k times
    the product of 1 - p_l, l from k to j - 1.) Without a loop it is a cumprod and a cumsum."""
    alignment = np.zeros(len(p))
    for j in range(len(p)):
        for k in range(j + 1):
            arrives = previous[k]
            for passed in range(k, j):
                arrives *= 1 - p[passed]
            alignment[j] += p[j] * arrives
    return alignment

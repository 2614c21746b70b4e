"""Additive attention, s_ij = v . tanh(q_i Wq + k_j Wk + b) (Bahdanau et al. 2015).

Sizes and broadcasting are in test_shapes.py, masks in test_masks.py.
"""

import itertools
import math
import sys

import numpy as np
import pytest
from arrays import inputs
from checks import EVERYTHING, check, check_vjp, python

import attnc

NAME = "additive_attention"
WEIGHTS = ("query_weight", "key_weight", "score_bias")
SOME_WEIGHTS = [c for n in range(4) for c in itertools.combinations(WEIGHTS, n)]


def some_of(given, rng, dtype, H=11, **sizes):
    """Arguments with only these weights; what has no weight is projected already."""
    (query, key, value, score_vector), own = inputs(NAME, rng, dtype, D=H, **sizes)
    query = query if "query_weight" in given else query[..., :H]
    key = key if "key_weight" in given else key[..., :H]
    return (query, key, value, score_vector), {name: own[name] for name in given}


def test_by_hand(dtype, isa):
    """tanh(log 2) = 0.6: scores 1.2 and -1.2 with v = 2, of keys log 2 and -log 2 and query 0."""
    arrays = [[0.0]], [[math.log(2)], [-math.log(2)]], [[1.0], [-1.0]], [2.0]
    arrays = [np.array(x, dtype) for x in arrays]
    output, pullback = attnc.vjp(attnc.additive_attention, *arrays, **EVERYTHING)
    dquery, dkey, dvalue, dscore_vector = pullback(np.array([[1.0]], dtype))
    w = 1 / (1 + math.exp(-2.4))
    dscore = 2 * w * (1 - w)
    for got, expected in [
        (output.context, [[2 * w - 1]]),
        (output.weights, [[w, 1 - w]]),
        (output.lse, [math.log(2 * math.cosh(1.2))]),
        (dvalue, [[w], [1 - w]]),
        (dkey, [[dscore * 2 * 0.64], [-dscore * 2 * 0.64]]),
        (dquery, [[0]]),
        (dscore_vector, [2 * dscore * 0.6]),
    ]:
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(got, expected, rtol=16 * eps, atol=4 * eps)


@pytest.mark.parametrize("given", SOME_WEIGHTS, ids=lambda given: "+".join(given) or "projected")
def test_weights_are_optional(given, dtype, isa, rng):
    arrays, own = some_of(given, rng, dtype)
    _, gradients = check(NAME, arrays, own, rng)
    assert {name for name in WEIGHTS if hasattr(gradients, name)} == set(given)


@pytest.mark.parametrize("H", [0, 1, 3, 16, 17, 130])
@pytest.mark.parametrize("given", [(), WEIGHTS], ids=["projected", "weights"])
def test_hidden_sizes(given, H, dtype, isa, rng):
    arrays, own = some_of(given, rng, dtype, H=H, Tq=9, Tk=33)
    check(NAME, arrays, own, rng)


@pytest.mark.parametrize("size", [1e-30, 0.01, 1, 2, 3, 5, 10, 100, 1e30])
def test_hidden_sums_of_any_size(size, dtype, isa, rng):
    """From where tanh is the identity to where it is a sign."""
    (query, key, *rest), own = some_of((), rng, dtype, Tq=33, Tk=70)
    check(NAME, ((size * query).astype(dtype), (size * key).astype(dtype), *rest), own, rng)


def test_large_scores(dtype, isa, rng):
    (*arrays, score_vector), own = some_of(WEIGHTS, rng, dtype, Tq=50, Tk=70)
    check(NAME, (*arrays, 30 * score_vector), own, rng)


def test_differences(isa, rng):
    arrays, own = inputs(NAME, rng)
    check_vjp(attnc.vjp, attnc.additive_attention, arrays, {**own, "causal": True})


@pytest.mark.parametrize("size", [1, 4])  # two forms of the tanh
def test_huge_score_vector(size, isa, rng):
    """One key of each query has all the weight; nothing on the way there may overflow."""
    query, key, value, score_vector = [
        (scale * rng.standard_normal(shape)).astype(np.float32)
        for scale, shape in [(size, (9, 64)), (size, (9, 64)), (1, (9, 3)), (1e30, 64)]
    ]
    got = attnc.additive_attention(query, key, value, score_vector)
    exact = attnc.reference.additive_attention(
        *(x.astype(np.float64) for x in (query, key, value, score_vector))
    )
    np.testing.assert_allclose(got, exact, rtol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_never_forms_the_hidden_array():
    """(Tq, Tk, H) would take 512 MB here, forward and backward; the process may grow by 64."""
    grown = python(
        """
        import resource
        import numpy as np
        import attnc
        x = np.ones((1000, 128), np.float32)
        v = np.ones(128, np.float32)
        attnc.vjp(attnc.additive_attention, x[:9], x[:9], x[:9], v)[1](x[:9])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        attnc.vjp(attnc.additive_attention, x, x, x, v)[1](x)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    assert int(grown) < 64 * 1024  # in KB

"""Multiplicative attention, s_ij = q_i W k_j (Luong et al. 2015).

Sizes and broadcasting are in test_shapes.py, masks in test_masks.py.
"""

import math

import numpy as np
import pytest
from arrays import inputs
from checks import EVERYTHING, assert_agree, check, check_vjp, evaluate, incoming

import attnc

NAME = "multiplicative_attention"


def test_by_hand(dtype, isa):
    """(2, 1) W = (log 3, 0), so that the scores are log 3 and 0."""
    query, weight = [[2.0, 1.0]], [[0.0, 0.0], [math.log(3), 0.0]]
    key, value = [[1.0, 5.0], [0.0, 7.0]], [[8.0], [0.0]]
    arrays = [np.array(x, dtype) for x in (query, key, value, weight)]
    output, pullback = attnc.vjp(attnc.multiplicative_attention, *arrays, **EVERYTHING)
    dquery, dkey, dvalue, dweight = pullback(np.array([[1.0]], dtype))
    for got, expected in [
        (output.context, [[6]]),
        (output.weights, [[0.75, 0.25]]),
        (output.lse, [math.log(4)]),
        # dscores = (3/4 (8 - 6), 1/4 (0 - 6)) = (1.5, -1.5); the difference of the keys is (1, -2)
        (dvalue, [[0.75], [0.25]]),
        (dkey, [[1.5 * math.log(3), 0], [-1.5 * math.log(3), 0]]),
        (dquery, [[0, 1.5 * math.log(3)]]),
        (dweight, [[3, -6], [1.5, -3]]),
    ]:
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(got, expected, rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize(("Dq", "Dk"), [(1, 1), (1, 40), (40, 1), (3, 65), (65, 3), (0, 4), (4, 0)])
def test_weight_of_any_shape(Dq, Dk, dtype, isa, rng):
    (_, _, value, _), _ = inputs(NAME, rng, dtype)
    query, key, weight = (
        rng.standard_normal(shape).astype(dtype) for shape in [(2, 5, Dq), (2, 7, Dk), (Dq, Dk)]
    )
    weight *= max(Dq * Dk, 1) ** -0.5  # scores of about 1
    check(NAME, (query, key, value, weight), {}, rng)


@pytest.mark.parametrize("size", [0, 1e-6, 1e3])
def test_weight_of_any_size(size, dtype, isa, rng):
    (*arrays, weight), _ = inputs(NAME, rng, Tq=50, Tk=70)
    arrays = [x.astype(dtype) for x in (*arrays, size * weight)]
    check(NAME, arrays, {}, rng)


def test_identity_is_the_dot_product(isa, rng):
    arrays, _ = inputs("dot_product_attention", rng, D=11)
    d = incoming(rng, attnc.dot_product_attention(*arrays, **EVERYTHING))
    expected, expected_gradients = evaluate("dot_product_attention", arrays, {"scale": 1}, d)
    got, gradients = evaluate(NAME, (*arrays, np.eye(11)), {}, d)
    for x, y in zip(got, expected, strict=True):
        assert_agree(x, y)
    for name, gradient in expected_gradients.items():
        assert_agree(gradients[name], gradient)


def test_differences(isa, rng):
    arrays, _ = inputs(NAME, rng)
    check_vjp(attnc.vjp, attnc.multiplicative_attention, arrays, {"causal": True})

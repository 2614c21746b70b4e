"""Dot-product attention: scaled (Vaswani et al. 2017) and plain (Luong et al. 2015).

Sizes and broadcasting are in test_shapes.py, masks in test_masks.py.
"""

import math

import numpy as np
import pytest
from arrays import inputs
from checks import EVERYTHING, check, check_vjp

import attnc

NAME = "dot_product_attention"


def test_by_hand(dtype, isa):
    """Scores 0 and log 3: weights 1/4 and 3/4 of the values (0, 4) and (8, 0), lse log(1 + 3)."""
    query = np.array([[1.0]], dtype)
    key = np.array([[0.0], [math.log(3)]], dtype)
    value = np.array([[0.0, 4.0], [8.0, 0.0]], dtype)
    output, pullback = attnc.vjp(attnc.dot_product_attention, query, key, value, **EVERYTHING)
    dquery, dkey, dvalue = pullback(np.array([[1.0, 0.0]], dtype))
    for got, expected in [
        (output.context, [[6, 1]]),
        (output.weights, [[0.25, 0.75]]),
        (output.lse, [math.log(4)]),
        # dscores = w (dw - w . dw) with dw = (0, 8)
        (dquery, [[1.5 * math.log(3)]]),
        (dkey, [[-1.5], [1.5]]),
        (dvalue, [[0.25, 0], [0.75, 0]]),
    ]:
        np.testing.assert_allclose(got, expected, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("scale", [None, 1, 0, -0.7, 3.5, np.float32(0.1), np.float64(2)], ids=repr)
def test_scale(scale, dtype, isa, rng):
    """A constant: it does not promote, and there is no gradient of it."""
    arrays, _ = inputs(NAME, rng, dtype)
    _, gradients = check(NAME, arrays, {"scale": scale}, rng)
    assert not hasattr(gradients, "scale")


@pytest.mark.parametrize("scale", [0.0, 0.3, -1.0])
def test_scale_with_a_gradient(scale, dtype, isa, rng):
    arrays, _ = inputs(NAME, rng, dtype)
    _, gradients = check(NAME, arrays, {"scale": np.array(scale, dtype)}, rng)
    assert gradients.scale.shape == ()


def test_default_scale(dtype, isa, rng):
    """1 / sqrt(D): of a pair of equal vectors of ones the score is sqrt(D)."""
    ones = np.ones((1, 9), dtype)
    output = attnc.dot_product_attention(ones, ones, ones, return_lse=True)
    np.testing.assert_allclose(output.lse, [3], rtol=4 * np.finfo(dtype).eps)


def test_no_features(dtype, isa):
    """D = 0: every score is 0, whatever the default scale of it may be."""
    value = np.array([[1.0], [2.0], [6.0]], dtype)
    output = attnc.dot_product_attention(
        np.empty((2, 0), dtype), np.empty((3, 0), dtype), value, **EVERYTHING
    )
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(output.context, np.full((2, 1), 3), rtol=4 * eps)
    np.testing.assert_allclose(output.lse, np.full(2, math.log(3)), rtol=4 * eps)


HARD = {
    "scores of 1e4": lambda q, k: (1e2 * q, 1e2 * k),
    "scores of 1e-8": lambda q, k: (1e-4 * q, 1e-4 * k),
    "all scores negative": lambda q, k: (np.abs(q) + 10, -np.abs(k) - 10),
    "keys that differ by 1e-6": lambda q, k: (q, k[:, :1] + 1e-6 * k),
    "large keys that differ by 1e-4": lambda q, k: (q, 100 + 1e-4 * k),
    "one key far ahead": lambda q, k: (np.abs(q), k + 1000 * np.eye(70)[:, 40:41]),
    "keys in rising order": lambda q, k: (np.abs(q), k + np.arange(70)[:, None]),
}


@pytest.mark.parametrize("how", HARD)
def test_hard_scores(how, dtype, isa, rng):
    (query, key, value), _ = inputs(NAME, rng, Tq=50, Tk=70)
    query, key = HARD[how](query, key)
    arrays = [x.astype(dtype) for x in (query, key, value)]
    check(NAME, arrays, {"scale": 1}, rng)


@pytest.mark.parametrize("sign", [1, -1])
def test_overflow_makes_its_row_nan(sign, dtype, isa, rng):
    """q . k beyond the largest number is inf, and a row with an allowed score of inf is NaN."""
    (query, key, value), _ = inputs(NAME, rng, dtype)
    query[0, 2] = key[0, 3] = np.sqrt(np.finfo(dtype).max)
    query[0, 2] *= sign
    output = attnc.dot_product_attention(query, key, value, scale=1, **EVERYTHING)
    nan = np.zeros((2, 5), bool)
    nan[0, 2] = sign > 0
    for x in (output.lse[..., None], output.weights, output.context):
        np.testing.assert_array_equal(np.isnan(x), np.broadcast_to(nan[..., None], x.shape))
    if sign < 0:  # -inf is only a very small score
        assert output.weights[0, 2, 3] == 0


def test_differences(isa, rng):
    arrays, _ = inputs(NAME, rng)
    options = {"scale": np.array(0.5), "causal": True}
    check_vjp(attnc.vjp, attnc.dot_product_attention, arrays, options)

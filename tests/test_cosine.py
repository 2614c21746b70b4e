"""Cosine attention, s_ij = scale * q_i . k_j / (|q_i| |k_j|) (Graves et al. 2014).

Sizes and broadcasting are in test_shapes.py, masks in test_masks.py.
"""

import math

import numpy as np
import pytest
from arrays import inputs
from checks import EVERYTHING, check, check_vjp, incoming

import attnc

NAME = "cosine_attention"


def test_by_hand(dtype, isa):
    """Cosines 0 and 1, times log 3: weights 1/4 and 3/4."""
    arrays = [[3.0, 4.0]], [[-4.0, 3.0], [6.0, 8.0]], [[0.0], [8.0]]
    arrays = [np.array(x, dtype) for x in arrays]
    scale = np.array(math.log(3), dtype)
    output, pullback = attnc.vjp(attnc.cosine_attention, *arrays, scale=scale, **EVERYTHING)
    gradients = pullback(np.array([[1.0]], dtype))
    turn = 1.5 * math.log(3)
    for got, expected in [
        (output.context, [[6]]),
        (output.weights, [[0.25, 0.75]]),
        (output.lse, [math.log(4)]),
        # dscores = (-1.5, 1.5); only the first key stands off the query, and turns towards it
        (gradients.value, [[0.25], [0.75]]),
        (gradients.key, [[-turn * 0.6 / 5, -turn * 0.8 / 5], [0, 0]]),
        (gradients.query, [[turn * 0.8 / 5, -turn * 0.6 / 5]]),
        (gradients.scale, 1.5),
    ]:
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(got, expected, rtol=16 * eps, atol=8 * eps)


@pytest.mark.parametrize("scale", [1.0, 0, -2, 50, np.array(10.0), np.array(0.0)], ids=repr)
def test_scale(scale, dtype, isa, rng):
    if isinstance(scale, np.ndarray):
        scale = scale.astype(dtype)
    arrays, _ = inputs(NAME, rng, dtype, Tq=33, Tk=70)
    _, gradients = check(NAME, arrays, {"scale": scale}, rng)
    assert hasattr(gradients, "scale") == isinstance(scale, np.ndarray)


def test_length_does_not_matter(dtype, isa, rng):
    """Vectors of length 1e-12 to 1e12, whose squares are still numbers in float32."""
    (query, key, value), own = inputs(NAME, rng, dtype, Tq=33, Tk=70)
    query *= 10 ** rng.uniform(-12, 12, (2, 33, 1)).astype(dtype)
    key *= 10 ** rng.uniform(-12, 12, (2, 70, 1)).astype(dtype)
    check(NAME, (query, key, value), own, rng)


def test_zero_vectors(dtype, isa, rng):
    """Score 0 and gradient 0."""
    (query, key, value), own = inputs(NAME, rng, dtype)
    query[0, 1] = key[0, 3] = key[1, 0] = 0
    output, gradients = check(NAME, (query, key, value), own, rng)
    np.testing.assert_allclose(output.weights[0, 1], 1 / 7, rtol=4 * np.finfo(dtype).eps)
    for x in (gradients.query[0, 1], gradients.key[0, 3], gradients.key[1, 0]):
        np.testing.assert_array_equal(x, 0)


def test_one_feature(dtype, isa, rng):
    """The cosines are signs. A vector on a line cannot turn: its gradient is 0 but for rounding."""
    arrays, own = inputs(NAME, rng, dtype, D=1)
    output, pullback = attnc.vjp(attnc.cosine_attention, *arrays, **own, **EVERYTHING)
    signs = np.sign(arrays[0]) * np.sign(arrays[1]).swapaxes(-1, -2)
    expected = np.exp(3 * signs)
    expected /= expected.sum(-1, keepdims=True)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(output.weights, expected, rtol=16 * eps)
    dquery, dkey, _ = pullback(**incoming(rng, output, dtype))
    for gradient, x in [(dquery, arrays[0]), (dkey, arrays[1])]:
        assert np.abs(gradient * x).max() < 100 * eps


def test_differences(isa, rng):
    arrays, own = inputs(NAME, rng)
    check_vjp(attnc.vjp, attnc.cosine_attention, arrays, {**own, "causal": True})

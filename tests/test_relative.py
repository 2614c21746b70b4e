"""RelativePositionBias: the buckets of T5, the table's gradient, and attention with it."""

import math

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import check_house, randomize

import attnc
from attnc import reference


def bucket_of_t5(relative_position, bidirectional, num_buckets, max_distance):
    """The rule as the authors' code has it, one number at a time; a float32 logarithm in it."""
    result, n = 0, -relative_position
    if bidirectional:
        num_buckets //= 2
        result += num_buckets * (n < 0)
        n = abs(n)
    else:
        n = max(n, 0)
    max_exact = num_buckets // 2
    if n < max_exact:
        return result + n
    large = np.log(np.float32(n) / np.float32(max_exact)) / np.float32(
        math.log(max_distance / max_exact)
    )
    large = max_exact + int(large * np.float32(num_buckets - max_exact))
    return result + min(large, num_buckets - 1)


CASES = [(True, 32, 128), (False, 32, 128), (True, 8, 20), (False, 6, 50), (True, 4, 3)]
CASES += [(False, 2, 9), (True, 64, 1000)]


@pytest.mark.parametrize("bidirectional, buckets, max_distance", CASES)
def test_buckets_are_those_of_t5(bidirectional, buckets, max_distance):
    layer = attnc.RelativePositionBias(
        1, buckets=buckets, max_distance=max_distance, bidirectional=bidirectional
    )
    layer.parameters["weight"] = np.arange(buckets)[:, None]
    length = 2 * max_distance + 20
    got = layer(1, 2 * length + 1, offset=length)[0, 0, 0]
    expected = [
        bucket_of_t5(position, bidirectional, buckets, max_distance)
        for position in range(-length, length + 1)
    ]
    assert_same(got, np.array(expected, np.float32))
    one_way = buckets // 2 if bidirectional else buckets
    assert set(got) >= set(range(one_way)), "a bucket is empty"


@pytest.mark.parametrize("offset", [None, 0, 3, -8, 10**9])
@pytest.mark.parametrize("Tq, Tk", [(5, 7), (7, 5), (1, 1), (1, 300), (200, 3), (0, 4), (4, 0)])
def test_every_pair_by_its_distance(Tq, Tk, offset, rng):
    layer = randomize(attnc.RelativePositionBias(3, dtype="float64"), rng)
    weight = layer.parameters["weight"]
    bias, pullback = attnc.vjp(layer, Tq, Tk, offset=offset)
    p = np.arange(Tq)[:, None] + (Tk - Tq if offset is None else offset)
    ahead = np.arange(Tk) - p
    rows = np.array([bucket_of_t5(n, True, 32, 128) for n in ahead.reshape(-1).tolist()], int)
    expected = weight[rows].reshape(Tq, Tk, 3).transpose(2, 0, 1)[None]
    assert_same(bias, expected)
    assert bias.flags.c_contiguous and bias.flags.writeable

    dbias = rng.standard_normal(bias.shape)
    assert len(pullback(dbias)) == 0
    dweight = np.zeros((32, 3))
    np.add.at(dweight, rows, dbias[0].transpose(1, 2, 0).reshape(-1, 3))
    assert_agree(layer.gradients["weight"], dweight)
    pullback(dbias)
    assert_agree(layer.gradients["weight"], 2 * dweight)


@pytest.mark.parametrize("bidirectional, buckets, max_distance", CASES)
def test_reference(bidirectional, buckets, max_distance, rng):
    how = {"max_distance": max_distance, "bidirectional": bidirectional}
    layer = attnc.RelativePositionBias(3, buckets=buckets, **how, dtype="float64")
    weight = randomize(layer, rng).parameters["weight"]
    Tq, Tk = 20, max_distance + 30
    bias, pullback = attnc.vjp(layer, Tq, Tk, offset=9)
    ahead = np.arange(Tk) - np.arange(Tq)[:, None] - 9
    expected, back = reference.vjp(reference.relative_bias, weight, ahead, **how)
    assert_same(bias[0], expected)
    dbias = rng.standard_normal(bias.shape)
    pullback(dbias)
    assert_agree(layer.gradients["weight"], back(dbias[0]).weight)


def test_a_token_at_a_time_is_the_sequence(rng):
    layer = randomize(attnc.RelativePositionBias(2, bidirectional=False), rng)
    whole = layer(40, 40)
    for t in range(40):
        assert_same(layer(1, t + 1), whole[:, :, t : t + 1, : t + 1])


def test_learns_through_attention(rng):
    """The table's gradient against central differences of a loss behind attention."""
    layer = randomize(attnc.RelativePositionBias(2, buckets=8, dtype="float64"), rng)
    query, key, value = rng.standard_normal((3, 3, 2, 9, 4))
    d = rng.standard_normal((3, 2, 9, 4))

    def loss():
        return (attnc.dot_product_attention(query, key, value, bias=layer(9, 9)) * d).sum()

    bias, back_to_table = attnc.vjp(layer, 9, 9)
    _, pullback = attnc.vjp(attnc.dot_product_attention, query, key, value, bias=bias)
    back_to_table(pullback(d).bias)
    weight, direction, h = layer.parameters["weight"], rng.standard_normal((8, 2)), 1e-5
    before = weight.copy()
    layer.parameters["weight"] = before + h * direction
    above = loss()
    layer.parameters["weight"] = before - h * direction
    numeric = (above - loss()) / (2 * h)
    assert abs(numeric - (layer.gradients["weight"] * direction).sum()) < 1e-8


def test_with_a_layer_of_heads(rng):
    attention = attnc.MultiHeadAttention(8, 2, rng=0)
    relative = attnc.RelativePositionBias(2, rng=0)
    x = rng.standard_normal((3, 5, 8)).astype(np.float32)
    bias, back = attnc.vjp(relative, 5, 5)
    y, pullback = attnc.vjp(attention, x, bias=bias)
    back(pullback(y).bias)
    assert relative.gradients["weight"].any()


def test_house(tmp_path):
    layer = attnc.RelativePositionBias(
        2, buckets=6, max_distance=9, bidirectional=False, dtype="float64"
    )
    check_house(layer, tmp_path)
    assert layer.freeze().frozen_parameters == ("weight",)


@pytest.mark.parametrize(
    "arguments, kind, text",
    [
        ({"num_heads": 0}, ValueError, "num_heads must"),
        ({"buckets": 7}, ValueError, "buckets must be even and at least 4, got 7"),
        ({"buckets": 2}, ValueError, "buckets must be even and at least 4, got 2"),
        ({"buckets": 1, "bidirectional": False}, ValueError, "buckets must be at least 2, got 1"),
        ({"max_distance": 8}, ValueError, "max_distance must be above 8, "),
        ({"bidirectional": 1}, TypeError, "bidirectional must be True or False"),
        ({"buckets": 32.0}, ValueError, "buckets must be a positive integer, got 32.0"),
    ],
)
def test_wrong_constructors(arguments, kind, text):
    with pytest.raises(kind, match=f"^RelativePositionBias: {text}"):
        attnc.RelativePositionBias(**{"num_heads": 2, **arguments})


def test_wrong_calls():
    layer = attnc.RelativePositionBias(2)
    for sizes, offset in (((-1, 2), None), ((2, 2), 2**70)):
        with pytest.raises(ValueError, match="^RelativePositionBias: (Tq|offset) must"):
            layer(*sizes, offset=offset)
    with pytest.raises(TypeError, match="^RelativePositionBias: Tk must be an integer"):
        layer(2, 2.0)
    _, pullback = attnc.vjp(layer, 2, 3)
    with pytest.raises(ValueError, match="dbias"):
        pullback(np.ones((2, 2, 3)))

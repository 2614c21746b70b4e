"""SinusoidalPositions and LearnedPositions: values, offsets, gradients, what they refuse."""

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import check_float32, check_house, check_layer, randomize

import attnc
from attnc import reference

F64 = {"dtype": "float64"}
LAYERS = {
    "sinusoidal": lambda **how: attnc.SinusoidalPositions(6, **how),
    "odd": lambda **how: attnc.SinusoidalPositions(5, base=100.0, **how),
    "one": lambda **how: attnc.SinusoidalPositions(1, **how),
    "learned": lambda **how: attnc.LearnedPositions(20, 4, rng=0, **how),
}
ALL = pytest.mark.parametrize("kind", LAYERS)
OFFSETS = [0, 3, np.array([4, 0, 9]), [2, 2, 2]]


@pytest.mark.parametrize("offset", OFFSETS, ids=str)
@ALL
def test_gradients(kind, offset, rng):
    layer = randomize(LAYERS[kind](**F64), rng)
    x = rng.standard_normal((3, 5, layer.size))
    check_layer(layer, (x,), {"offset": offset}, rng)


@ALL
def test_house(kind, tmp_path, rng):
    check_house(LAYERS[kind](**F64), tmp_path)
    layer = LAYERS[kind]()
    check_float32(layer, (rng.standard_normal((2, 7, layer.size)),), {"offset": 2})


@pytest.mark.parametrize("size", [1, 2, 5, 64])
@pytest.mark.parametrize("start", [0, 17, 63, 1000, 1 << 25, -4])
def test_sinusoids_are_those_of_the_paper(size, start):
    layer = attnc.SinusoidalPositions(size, **F64)
    got = layer(np.zeros((1, 6, size)), offset=start)[0]
    expected = reference.sinusoids(np.arange(start, start + 6), size)
    # An angle of p radians is rounded by eps p.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-15 + 1e-15 * abs(start))


def test_sinusoids_by_hand():
    y = attnc.SinusoidalPositions(4, base=100.0, **F64)(np.ones((3, 4)))
    p = np.arange(3)
    expected = 1 + np.stack([np.sin(p), np.cos(p), np.sin(p / 10), np.cos(p / 10)], axis=1)
    np.testing.assert_allclose(y, expected, rtol=1e-15)


def test_a_distance_is_a_rotation():
    """The encoding of p + 3 is one linear map of that of p, for all p: section 3.5."""
    e = attnc.SinusoidalPositions(8, **F64)(np.zeros((40, 8)))
    turn, *_ = np.linalg.lstsq(e[:-3], e[3:], rcond=None)
    assert_agree(e[:-3] @ turn, e[3:])


@ALL
def test_steps_go_on_where_others_ended(kind, rng):
    """One call over all steps and a call for each give the same bits."""
    layer = randomize(LAYERS[kind](), rng) if kind == "learned" else LAYERS[kind]()
    x = rng.standard_normal((3, 8, layer.size)).astype(np.float32)
    whole = layer(x)
    for step in range(8):
        assert_same(layer(x[:, step : step + 1], offset=step), whole[:, step : step + 1])
    ragged = np.array([5, 0, 3])
    got = layer(x[:, :3], offset=ragged)
    for b, offset in enumerate(ragged):
        assert_same(got[b], layer(x[b, :3], offset=int(offset)))


@ALL
def test_leading_axes(kind, rng):
    layer = LAYERS[kind]()
    x = rng.standard_normal((2, 3, 4, layer.size)).astype(np.float32)
    assert_same(layer(x)[1, 2], layer(x[1, 2]))
    assert layer(x[:, :, :0]).shape == (2, 3, 0, layer.size)
    assert layer(x[:0]).shape == (0, 3, 4, layer.size)
    assert layer(x[0, :0], offset=np.zeros(0, int)).shape == (0, 4, layer.size)


@ALL
def test_the_gradient_is_a_new_array(kind, rng):
    layer = LAYERS[kind]()
    x = rng.standard_normal((2, 3, layer.size)).astype(np.float32)
    y, pullback = attnc.vjp(layer, x)
    assert_same(pullback(y).x, y)
    assert not np.shares_memory(pullback(y).x, y)


def test_frozen_positions_get_no_gradient(rng):
    layer = attnc.LearnedPositions(8, 4, rng=0).freeze()
    y, pullback = attnc.vjp(layer, rng.standard_normal((2, 3, 4)))
    pullback(y)
    assert not layer.gradients["weight"].any()


def test_one_table_serves_all_layers_and_cannot_be_written_to():
    one, two = attnc.SinusoidalPositions(6), attnc.SinusoidalPositions(6)
    y = one(np.zeros((4, 6)))
    y[...] = 7  # the caller's own
    assert_same(two(np.zeros((1, 6))), np.array([[0, 1] * 3], np.float32))


X = np.ones((2, 5, 4))
REFUSED = [
    (lambda: attnc.SinusoidalPositions(0), ValueError, "size must be a positive integer"),
    (lambda: attnc.SinusoidalPositions(4, base=1), ValueError, "base must be above 1, got 1"),
    (lambda: attnc.SinusoidalPositions(4)(np.ones(4)), ValueError, r"x must have shape .*T, 4\)"),
    (lambda: attnc.SinusoidalPositions(4)(X, offset=1.0), TypeError, "offset must .*float64"),
    (
        lambda: attnc.SinusoidalPositions(4)(X, offset=[1]),
        ValueError,
        r"offset must have shape \(2,\)",
    ),
    (
        lambda: attnc.SinusoidalPositions(4)(X[0], offset=[1, 2]),
        ValueError,
        r"offset must have shape \(\), as x has \(5, 4\), got \(2,\)",
    ),
    (
        lambda: attnc.LearnedPositions(4, 4, rng=0)(X),
        ValueError,
        r"x must have positions in 0..3, got 0..4 \(make the layer with max_length=5",
    ),
    (
        lambda: attnc.LearnedPositions(8, 4, rng=0)(X, offset=[0, 4]),
        ValueError,
        r"x must have positions in 0..7, got 0..8",
    ),
    (
        lambda: attnc.LearnedPositions(8, 4, rng=0)(X, offset=-1),
        ValueError,
        "offset must be 0 or more, got -1",
    ),
    (lambda: attnc.vjp(attnc.LearnedPositions(8, 4), X)[1](), TypeError, "pullback must get dy"),
]


@pytest.mark.parametrize(("call", "kind", "said"), REFUSED)
def test_refused(call, kind, said):
    with pytest.raises(kind, match=said):
        call()

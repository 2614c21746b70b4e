"""FeedForward: values, gradients, dropout, what it refuses."""

import numpy as np
import pytest
from checks import assert_agree, assert_close_like_naive, assert_same
from layer_checks import check_float32, check_house, check_layer, randomize

import attnc
from attnc import reference

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "swiglu")
ALL = pytest.mark.parametrize("activation", ACTIVATIONS)
F64 = {"dtype": "float64"}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("train", [True, False])
@ALL
def test_gradients(activation, train, bias, isa, rng):
    layer = attnc.FeedForward(
        5, 7, activation=activation, bias=bias, dropout=0.3, output_size=3, rng=0, **F64
    )
    x = rng.standard_normal((2, 4, 5))
    check_layer(randomize(layer, rng), (x,), {"train": train, "rng": 3}, rng)


@pytest.mark.parametrize("shape", [(5,), (0, 5), (40, 5), (2, 3, 5)])
@ALL
def test_equal_to_the_reference(activation, shape, dtype, isa, rng):
    layer = attnc.FeedForward(5, 70, activation=activation, rng=0, dtype=dtype)
    randomize(layer, rng)
    x = rng.standard_normal(shape).astype(dtype)
    y, pullback = attnc.vjp(layer, x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    gradients = {"x": pullback(dy).x, **layer.gradients}
    found = []
    for kind in (np.longdouble if dtype == np.float64 else np.float64, dtype):
        plain, back = reference.vjp(
            reference.feed_forward, x, layer.parameters, activation=activation, dtype=kind
        )
        found.append({"y": plain, **vars(back(dy))})
    exact, naive = found
    for name, got in {"y": y, **gradients}.items():
        # sums of products of 70 numbers of about 1
        assert_close_like_naive(got, exact[name], naive[name], 30.0, what=name)


@ALL
def test_house(activation, tmp_path, rng):
    layer = attnc.FeedForward(3, 5, activation=activation, dropout=0.1, rng=0, **F64)
    check_house(layer, tmp_path)
    check_float32(
        attnc.FeedForward(3, 5, activation=activation, rng=0), (rng.standard_normal((2, 3)),), {}
    )


def test_dropout_is_between_the_maps(rng):
    """Hidden numbers are dropped, not those of the output, and only in training."""
    layer = attnc.FeedForward(1, 4000, dropout=0.25, rng=0, **F64)
    layer.parameters["hidden.weight"][...] = 1
    layer.parameters["output.weight"][...] = 1
    x = np.ones((1, 1))
    assert_same(layer(x), np.full((1, 1), 4000.0))
    y = layer(x, train=True, rng=5)
    kept = y[0, 0] * 0.75
    assert abs(kept - round(kept)) < 1e-6 and abs(kept - 3000) < 5 * np.sqrt(4000 * 0.25 * 0.75)
    assert_same(layer(x, train=True, rng=5), y)
    assert layer(x, train=True, rng=6) != y


@ALL
def test_frozen_maps_get_no_gradient(activation, rng):
    layer = attnc.FeedForward(3, 5, activation=activation, rng=0, **F64)
    x = rng.standard_normal((4, 3))
    y, pullback = attnc.vjp(layer, x)
    expected = pullback(y).x
    layer.zero_grad()
    layer.freeze("hidden.*")
    assert_same(pullback(y).x, expected)
    for name, gradient in layer.gradients.items():
        assert gradient.any() == (not name.startswith("hidden.")), name


@pytest.mark.parametrize("rows", [1, 5, 64, 65, 700])
@ALL
def test_bits_for_any_number_of_threads(activation, rows, threads, isa, rng):
    layer = attnc.FeedForward(40, 160, activation=activation, dropout=0.1, rng=0)
    randomize(layer, rng)
    x = rng.standard_normal((rows, 40)).astype(np.float32)

    def run():
        layer.zero_grad()
        y, pullback = attnc.vjp(layer, x, train=True, rng=0)
        return y, pullback(y).x, {name: g.copy() for name, g in layer.gradients.items()}

    got = run()
    attnc.set_num_threads(1)
    assert_same(got, run())


def test_nan_stays_in_its_row(rng):
    layer, x = attnc.FeedForward(4, 9, activation="gelu", rng=0, **F64), rng.standard_normal((5, 4))
    y, pullback = attnc.vjp(layer, x)
    dx = pullback(y).x
    bad = x.copy()
    bad[2] = np.nan
    bad_y, bad_pullback = attnc.vjp(layer, bad)
    others = np.arange(5) != 2
    assert np.isnan(bad_y[2]).all()
    assert_same(bad_y[others], y[others])
    assert_same(bad_pullback(y).x[others], dx[others])


@ALL
def test_equal_to_torch(activation, rng):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    layer = randomize(attnc.FeedForward(4, 6, activation=activation, rng=0, **F64), rng)
    p = {n: torch.tensor(v, requires_grad=True) for n, v in layer.parameters.items()}
    x = rng.standard_normal((3, 2, 4))
    tensor = torch.tensor(x, requires_grad=True)
    h = tensor @ p["hidden.weight"] + p["hidden.bias"]
    a = {
        "relu": F.relu,
        "gelu": F.gelu,
        "gelu_tanh": lambda h: F.gelu(h, approximate="tanh"),
        "swiglu": lambda h: F.silu(h) * (tensor @ p["up.weight"] + p["up.bias"]),
    }[activation](h)
    expected = a @ p["output.weight"] + p["output.bias"]
    dy = rng.standard_normal(expected.shape)
    expected.backward(torch.tensor(dy))
    y, pullback = attnc.vjp(layer, x)
    assert_agree(y, expected.detach().numpy())
    assert_agree(pullback(dy).x, tensor.grad.numpy())
    for name, gradient in layer.gradients.items():
        assert_agree(gradient, p[name].grad.numpy(), name)


REFUSED = [
    ((3, 0), {}, ValueError, "hidden_size must be a positive integer, got 0"),
    ((3, 4), {"output_size": 1.5}, ValueError, "output_size must be a positive integer, got 1.5"),
    (
        (3, 4),
        {"activation": "gelu_tan"},
        ValueError,
        "activation must be one of 'relu', .*gelu_tanh",
    ),
    ((3, 4), {"activation": None}, ValueError, "activation must be one of .*, got None"),
    ((3, 4), {"dropout": 1}, ValueError, "dropout must lie in 0 <= dropout < 1, got 1"),
    ((3, 4), {"bias": "no"}, TypeError, "bias must be True or False, got 'no'"),
]


@pytest.mark.parametrize(("sizes", "options", "kind", "said"), REFUSED)
def test_refused(sizes, options, kind, said):
    with pytest.raises(kind, match=f"FeedForward: {said}"):
        attnc.FeedForward(*sizes, **options)


def test_refused_calls():
    layer = attnc.FeedForward(3, 4, rng=0)
    with pytest.raises(ValueError, match=r"FeedForward: x must have shape \(..., 3\)"):
        layer(np.ones((2, 4)))
    with pytest.raises(TypeError, match="FeedForward: train must be True or False"):
        layer(np.ones((2, 3)), train=1)
    with pytest.raises(TypeError, match="pullback must get dy"):
        attnc.vjp(layer, np.ones((2, 3)))[1]()

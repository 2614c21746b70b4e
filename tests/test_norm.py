"""layer_norm, rms_norm and their layers: values, gradients, hard inputs, what they refuse."""

import numpy as np
import pytest
from checks import assert_agree, assert_same, check_simple
from layer_checks import check_float32, check_house, check_layer, randomize

import attnc
from attnc import reference
from attnc.functional import layer_norm, rms_norm

NORMS = {"layer_norm": layer_norm, "rms_norm": rms_norm}
BOTH = pytest.mark.parametrize("name", NORMS)
LAYERS = {
    "layer": lambda **how: attnc.LayerNorm(5, **how),
    "without bias": lambda **how: attnc.LayerNorm(5, epsilon=0.1, bias=False, **how),
    "rms": lambda **how: attnc.RMSNorm(5, **how),
}
ALL_LAYERS = pytest.mark.parametrize("kind", LAYERS)

# Around every vector width, and beyond the stretches in which long rows are added up.
SIZES = [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 127, 250, 1000, 5000]


def parameters(name, size, rng, dtype=np.float64):
    names = ("weight", "bias") if name == "layer_norm" else ("weight",)
    return {each: rng.standard_normal(size).astype(dtype) for each in names}


def check(name, x, own, rng, **more):
    """Against the reference; the terms of a gradient of x are those of the formula."""
    c = x.astype(np.float64)
    if name == "layer_norm":
        c = c - c.mean(axis=-1, keepdims=True)
    r = np.sqrt((c * c).mean(axis=-1) + more.get("epsilon", 1e-5))
    largest = 4 * np.abs(own.get("weight", np.ones(1))).max() / r.min(initial=np.inf)
    return check_simple(name, (x,), {**own, **more}, rng, {"x": largest})


@BOTH
def test_by_hand(name):
    x, dy = np.array([[1.0, 3.0], [-2.0, -2.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    y, pullback = attnc.vjp(NORMS[name], x, np.array([2.0, 4.0]), epsilon=3.0)
    if name == "layer_norm":  # centred: (-1, 1) by sqrt(1 + 3), and (0, 0) by sqrt(3)
        np.testing.assert_allclose(y, [[-1, 2], [0, 0]], rtol=1e-15)
        # du = (2, 0): less its part along u = (-1/2, 1/2), 1/2 u, by 2; less the mean
        np.testing.assert_allclose(pullback(dy).x[0], [3 / 8, -3 / 8], rtol=1e-14)
    else:  # mean squares 5 and 4, plus 3
        np.testing.assert_allclose(y[0], [2 / 8**0.5, 12 / 8**0.5], rtol=1e-15)
        np.testing.assert_allclose(y[1], [-4 / 7**0.5, -8 / 7**0.5], rtol=1e-15)
        np.testing.assert_allclose(pullback(dy).weight[1], -2 / 7**0.5, rtol=1e-14)


@pytest.mark.parametrize("size", SIZES)
@BOTH
def test_sizes(name, size, dtype, isa, rng):
    x = (3 * rng.standard_normal((7, size)) + 1).astype(dtype)
    check(name, x, parameters(name, size, rng, dtype), rng)
    check(name, x, {}, rng)


@pytest.mark.parametrize(
    "shape", [(4,), (0, 4), (2, 0, 4), (1, 1, 4), (70, 4), (300, 4), (5, 3, 4)]
)
@BOTH
def test_shapes(name, shape, dtype, isa, rng):
    x = rng.standard_normal(shape).astype(dtype)
    y, gradients = check(name, x, parameters(name, 4, rng, dtype), rng)
    assert y.shape == gradients.x.shape == shape and gradients.weight.shape == (4,)


@BOTH
def test_differences(name, rng):
    x, own = rng.standard_normal((2, 3, 5)), parameters(name, 5, rng)
    y, pullback = attnc.vjp(NORMS[name], x, **own)

    def backward(dy):
        gradients = pullback(dy)
        return [gradients.x, *(gradients[each] for each in own)]

    attnc.check_gradients(NORMS[name], backward, x, *own.values())


@BOTH
def test_offset_larger_than_the_spread(name, dtype, isa, rng):
    """The mean is taken away before anything is squared."""
    x = (1000 + rng.standard_normal((5, 200))).astype(dtype)
    check(name, x, parameters(name, 200, rng, dtype), rng)


@pytest.mark.parametrize("power", [-30, -20, 18, 30, 37])
@BOTH
def test_squares_beyond_the_range(name, power, isa, rng):
    """Numbers whose squares float32 does not hold, by the size of numbers that it does."""
    x = rng.standard_normal((6, 40)).astype(np.float32)
    large = x * np.float32(10.0**power)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    how = {"epsilon": 1e-75 if power < 0 else 1e-5}
    y, pullback = attnc.vjp(NORMS[name], large, **how)
    exact, back = reference.vjp(getattr(reference, name), large.astype(float), **how)
    np.testing.assert_allclose(y, exact, rtol=0, atol=1e-5)
    expected = back(dy.astype(float)).x
    got = pullback(dy).x
    largest = np.abs(expected).max()
    np.testing.assert_allclose(got / largest, expected / largest, rtol=0, atol=1e-5)


@BOTH
def test_float64_beyond_the_range(name, isa, rng):
    x = rng.standard_normal((6, 40))
    expected = NORMS[name](x, epsilon=1e-300)
    for power in (500, 1000, -400):
        got = NORMS[name](np.ldexp(x, power), epsilon=5e-324 if power < 0 else 1e-300)
        np.testing.assert_allclose(got, expected, rtol=1e-13)


@BOTH
def test_rows_of_equal_numbers(name, dtype, isa):
    x = np.zeros((2, 9), dtype)
    x[1] = 3
    y, pullback = attnc.vjp(NORMS[name], x)
    expected = np.zeros_like(x)
    if name == "rms_norm":
        expected[1] = 3 / np.sqrt(9 + 1e-6)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert np.isfinite(pullback(np.ones_like(x)).x).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@BOTH
def test_what_is_not_finite_stays_in_its_row(name, bad, dtype, isa, rng):
    x, own = rng.standard_normal((5, 37)).astype(dtype), parameters(name, 37, rng, dtype)
    dy = rng.standard_normal(x.shape).astype(dtype)
    y, pullback = attnc.vjp(NORMS[name], x, **own)
    dx = pullback(dy).x
    x = x.copy()
    x[2, 11] = bad
    bad_y, bad_pullback = attnc.vjp(NORMS[name], x, **own)
    with np.errstate(invalid="ignore"):
        expected = getattr(reference, name)(x, **own)
    np.testing.assert_array_equal(np.isnan(bad_y), np.isnan(expected))
    others = np.arange(5) != 2
    assert_same(bad_y[others], y[others])
    assert_same(bad_pullback(dy).x[others], dx[others])


@BOTH
def test_layouts(name, dtype, isa, rng):
    """Strides, byte orders and read-only memory make no difference, and nothing is written to."""
    x, own = rng.standard_normal((6, 10)).astype(dtype), parameters(name, 10, rng, dtype)
    expected, pullback = attnc.vjp(NORMS[name], x, **own)
    gradients = vars(pullback(expected))
    twice = np.repeat(np.repeat(x, 2, axis=0), 2, axis=1)
    for same in (
        twice[::2, ::2],
        np.asfortranarray(x),
        x[::-1][::-1],
        x.astype(x.dtype.newbyteorder()),
    ):
        same.flags.writeable = False
        y, pullback = attnc.vjp(NORMS[name], same, **own)
        assert_same(y, expected)
        assert_same(vars(pullback(expected[:, ::-1][:, ::-1])), gradients)


@BOTH
def test_bits_for_any_number_of_threads(name, dtype, threads, isa, rng):
    x = rng.standard_normal((333, 600)).astype(dtype)
    own = parameters(name, 600, rng, dtype)
    y, pullback = attnc.vjp(NORMS[name], x, **own)
    gradients = vars(pullback(x))
    attnc.set_num_threads(1)
    expected, pullback = attnc.vjp(NORMS[name], x, **own)
    assert_same(y, expected)
    assert_same(gradients, vars(pullback(x)))


@BOTH
def test_many_rows(name, isa, rng):
    """Gradients of the parameters are sums over all rows, exact to a few roundings."""
    x = (1 + rng.random((100_000, 3))).astype(np.float32)
    own = parameters(name, 3, rng, np.float32)
    dy = np.ones_like(x)
    _, pullback = attnc.vjp(NORMS[name], x, **own)
    _, back = reference.vjp(getattr(reference, name), x, **own)
    gradients, expected = pullback(dy), back(dy)
    np.testing.assert_allclose(gradients.weight, expected.weight, atol=2e-6 * len(x))
    if "bias" in own:
        np.testing.assert_allclose(gradients.bias, len(x), rtol=1e-6)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@BOTH
def test_halves(name, half, rng):
    """Stored in halves, computed in float32."""
    half = (
        np.dtype(half) if half == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    )
    x = rng.standard_normal((4, 20)).astype(half)
    own = {each: array.astype(half) for each, array in parameters(name, 20, rng).items()}
    wide = {each: array.astype(np.float32) for each, array in own.items()}
    y, pullback = attnc.vjp(NORMS[name], x, **own)
    expected, back = attnc.vjp(NORMS[name], x.astype(np.float32), **wide)
    assert_same(y, expected.astype(half))
    for each, gradient in vars(back(y.astype(np.float32))).items():
        assert_same(pullback(y)[each], gradient.astype(half), each)
    assert NORMS[name](x, wide["weight"]).dtype == np.float32


def test_float64_and_integers_are_computed_in_float64(rng):
    x = rng.integers(-5, 5, (3, 4))
    assert_same(layer_norm(x), layer_norm(x.astype(float)))
    assert layer_norm(x.astype(np.float32), np.ones(4)).dtype == np.float64


REFUSED = [
    (lambda: layer_norm(np.ones((2, 0))), ValueError, "layer_norm: x must have a last axis of at"),
    (lambda: rms_norm(3.0), ValueError, r"rms_norm: x must have a last axis of at .* got \(\)"),
    (
        lambda: layer_norm(np.ones(3), np.ones(2)),
        ValueError,
        r"weight must have shape \(3,\), .*\(2,\)",
    ),
    (lambda: layer_norm(np.ones(3), bias=np.ones((1, 3))), ValueError, r"bias must .*got \(1, 3\)"),
    (lambda: layer_norm(np.ones(3), epsilon=0), ValueError, "epsilon must be above 0, got 0"),
    (lambda: rms_norm(np.ones(3), epsilon=np.nan), ValueError, "epsilon must be above 0, got nan"),
    (lambda: rms_norm(np.ones(3), epsilon="1"), TypeError, "epsilon must be above 0, got '1'"),
    (lambda: rms_norm(np.ones(3, complex)), TypeError, "rms_norm: x must .*complex"),
    (lambda: attnc.vjp(rms_norm, np.ones(3))[1](), TypeError, "pullback must get dy"),
    (
        lambda: attnc.vjp(rms_norm, np.ones(3))[1](np.ones(4)),
        ValueError,
        r"dy must .*\(3,\), got \(4,\)",
    ),
    (lambda: attnc.LayerNorm(0), ValueError, "LayerNorm: size must be a positive integer, got 0"),
    (lambda: attnc.LayerNorm(3, epsilon=-1), ValueError, "LayerNorm: epsilon must be above 0"),
    (lambda: attnc.LayerNorm(3, bias=1), TypeError, "LayerNorm: bias must be True or False"),
    (lambda: attnc.RMSNorm(3)(np.ones((2, 4))), ValueError, r"x must have shape \(..., 3\)"),
    (lambda: attnc.RMSNorm(3, dtype="float16"), TypeError, "dtype must be float32 or float64"),
    (
        lambda: attnc.RMSNorm(3).load_torch_state_dict({"bias": np.ones(3)}),
        ValueError,
        "RMSNorm.load_torch_state_dict",
    ),
]


@pytest.mark.parametrize(("call", "kind", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_refused(call, kind, said):
    with pytest.raises(kind, match=said):
        call()


# ---- The layers ----------------------------------------------------------------------------------


@ALL_LAYERS
def test_layer(kind, tmp_path, rng):
    layer = randomize(LAYERS[kind](dtype="float64"), rng)
    x = rng.standard_normal((2, 3, 5))
    y, _ = check_layer(layer, (x,), {"train": True}, rng)
    function = rms_norm if kind == "rms" else layer_norm
    assert_same(y, function(x, **layer.parameters, epsilon=layer.epsilon))
    check_house(layer, tmp_path)
    check_float32(LAYERS[kind](), (x,), {})


@ALL_LAYERS
def test_frozen_parameters_get_no_gradient(kind, rng):
    layer, x = randomize(LAYERS[kind](dtype="float64"), rng), rng.standard_normal((4, 5))
    _, pullback = attnc.vjp(layer, x)
    expected = pullback(x).x
    layer.zero_grad()
    layer.freeze("weight")
    assert_same(pullback(x).x, expected)
    assert not layer.gradients["weight"].any()
    assert all(g.any() for name, g in layer.gradients.items() if name != "weight")
    layer.freeze()
    layer.zero_grad()
    assert_same(pullback(x).x, expected)
    assert not any(g.any() for g in layer.gradients.values())


@ALL_LAYERS
def test_equal_to_torch(kind, rng):
    torch = pytest.importorskip("torch")
    layer, x = randomize(LAYERS[kind](dtype="float64"), rng), rng.standard_normal((3, 4, 5))
    if kind == "rms":
        theirs = torch.nn.RMSNorm(5, eps=layer.epsilon, dtype=torch.float64)
    else:
        theirs = torch.nn.LayerNorm(5, eps=layer.epsilon, bias=layer.bias, dtype=torch.float64)
    theirs.load_state_dict({n: torch.tensor(p) for n, p in layer.torch_state_dict().items()})
    tensor = torch.tensor(x, requires_grad=True)
    expected = theirs(tensor)
    dy = rng.standard_normal(x.shape)
    expected.backward(torch.tensor(dy))
    y, pullback = attnc.vjp(layer, x)
    assert_agree(y, expected.detach().numpy())
    assert_agree(pullback(dy).x, tensor.grad.numpy())
    for name, parameter in theirs.named_parameters():
        assert_agree(layer.gradients[name], parameter.grad.numpy(), name)
    other = LAYERS[kind](dtype="float64")
    other.load_torch_state_dict({n: p.numpy() for n, p in theirs.state_dict().items()})
    assert_same(other.state_dict(), layer.state_dict())


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_nothing_to_normalise(name):
    with pytest.raises(TypeError, match=f"{name}: x must be real, got"):
        getattr(attnc.functional, name)(None)

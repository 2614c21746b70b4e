"""relu, gelu, silu, swiglu: values, gradients, hard inputs, what they refuse."""

import math

import numpy as np
import pytest
from checks import assert_agree, assert_same, assert_unchanged, check_simple

import attnc
from attnc import reference
from attnc.functional import gelu, relu, silu, swiglu

FUNCTIONS = {
    "relu": (relu, {}),
    "gelu": (gelu, {}),
    "gelu_tanh": (gelu, {"approximate": True}),
    "silu": (silu, {}),
    "swiglu": (swiglu, {}),
}
ALL = pytest.mark.parametrize("kind", FUNCTIONS)


def inputs(kind, shape, rng, dtype=np.float64, spread=2):
    count = 2 if kind == "swiglu" else 1
    return tuple((spread * rng.standard_normal(shape)).astype(dtype) for _ in range(count))


def check(kind, arrays, rng):
    function, options = FUNCTIONS[kind]
    return check_simple(function.__name__, arrays, options, rng)


@pytest.mark.parametrize("x", [-3.0, -1.0, -0.1, 0.0, 0.5, 2.0, 6.0])
def test_by_hand(x):
    """Against the functions of the math module, one number at a time."""
    s, P = 1 / (1 + math.exp(-x)), (1 + math.erf(x / math.sqrt(2))) / 2
    p = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    P_tanh = (1 + math.tanh(u)) / 2
    slope = 2 * P_tanh * (1 - P_tanh) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    expected = {
        "relu": (max(x, 0), float(x > 0)),
        "gelu": (x * P, P + x * p),
        "gelu_tanh": (x * P_tanh, P_tanh + x * slope),
        "silu": (x * s, s + x * s * (1 - s)),
    }
    for kind, (y, dx) in expected.items():
        function, options = FUNCTIONS[kind]
        got, pullback = attnc.vjp(function, np.array([x]), **options)
        np.testing.assert_allclose(got, [y], rtol=1e-13, atol=1e-16)
        np.testing.assert_allclose(pullback(np.array([2.0])).x, [2 * dx], rtol=1e-13, atol=1e-16)
    got, pullback = attnc.vjp(swiglu, np.array([x]), np.array([3.0]))
    np.testing.assert_allclose(got, [3 * x * s], rtol=1e-13, atol=1e-16)
    dgate, dup = pullback(np.array([2.0]))
    np.testing.assert_allclose(dgate, [6 * expected["silu"][1]], rtol=1e-13)
    np.testing.assert_allclose(dup, [2 * x * s], rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (7,), (16,), (17,), (3, 65), (2, 0, 3), (5000,), (4, 3, 999)]
)
@ALL
def test_shapes(kind, shape, dtype, isa, rng):
    y, gradients = check(kind, inputs(kind, shape, rng, dtype), rng)
    assert y.shape == shape and all(gradient.shape == shape for gradient in gradients)


@pytest.mark.parametrize("spread", [1e-30, 1e-3, 0.3, 5, 30, 1e4])
@ALL
def test_magnitudes(kind, spread, dtype, isa, rng):
    check(kind, inputs(kind, (3000,), rng, dtype, spread), rng)


@ALL
def test_tails(kind, dtype, isa):
    """Far out on the left, where 1 + erf and 1 + tanh leave nothing, digits remain."""
    if kind == "swiglu":
        return
    function, options = FUNCTIONS[kind]
    x = np.linspace(-12, 0, 4001).astype(dtype)
    y, pullback = attnc.vjp(function, x, **options)
    wide = np.longdouble
    P = {
        "relu": lambda z: 0 * z,
        "silu": lambda z: 1 / (1 + np.exp(-z)),
        "gelu_tanh": lambda z: (
            1 / (1 + np.exp(-np.sqrt(wide(8) / wide(np.pi)) * (z + wide(0.044715) * z**3)))
        ),
        "gelu": lambda z: np.array([math.erfc(-float(v) / math.sqrt(2)) / 2 for v in z]),
    }[kind](x.astype(wide))
    # Rounding x^2 / 2 or u costs that much of the exponential.
    relative = 40 * np.finfo(dtype).eps * (1 + x.astype(float) ** 2 + abs(x.astype(float) ** 3) / 8)
    tiny = np.finfo(dtype).tiny * 40
    assert (np.abs(y - x * P) <= relative * np.abs(x * P) + tiny).all()


@ALL
def test_limits(kind, dtype, isa):
    """Infinities and NaN as the formula has them; huge numbers stay what they are."""
    function, options = FUNCTIONS[kind]
    far = np.finfo(dtype).max
    x = np.array([far, 1e30, 1000, -0.0, -1000, -1e30, -far, np.inf], dtype)
    ones = np.ones_like(x)
    y, pullback = attnc.vjp(function, x, *([ones] if kind == "swiglu" else []), **options)
    assert_same(y, np.where(x > 0, x, 0).astype(dtype))
    dx = pullback(ones)[0]
    assert_same(dx[:3], ones[:3])
    assert_same(dx[4:7], 0 * ones[4:7])
    nan = np.full(40, np.nan, dtype)
    assert np.isnan(function(*([nan] * (1 + (kind == "swiglu"))), **options)).all()
    mixed = np.where(np.arange(40) % 3 == 0, np.nan, 1).astype(dtype)
    got = function(*([mixed] * (1 + (kind == "swiglu"))), **options)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(mixed))


@ALL
def test_differences(kind, rng):
    function, options = FUNCTIONS[kind]
    attnc.check_gradients(function, None, *inputs(kind, (3, 20), rng), **options)


@ALL
def test_layouts(kind, dtype, isa, rng):
    function, options = FUNCTIONS[kind]
    arrays = inputs(kind, (6, 10), rng, dtype)
    expected, pullback = attnc.vjp(function, *arrays, **options)
    gradients = tuple(pullback(expected))
    for change in (
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.astype(x.dtype.newbyteorder()),
    ):
        same = [change(x) for x in arrays]
        for x in same:
            x.flags.writeable = False
        with assert_unchanged(same):
            y, pullback = attnc.vjp(function, *same, **options)
            assert_same(y, expected)
            assert_same(tuple(pullback(change(expected))), gradients)


@ALL
def test_bits_for_any_number_of_threads(kind, dtype, threads, isa, rng):
    function, options = FUNCTIONS[kind]
    arrays = inputs(kind, (300, 701), rng, dtype)
    y, pullback = attnc.vjp(function, *arrays, **options)
    gradients = tuple(pullback(y))
    attnc.set_num_threads(1)
    expected, pullback = attnc.vjp(function, *arrays, **options)
    assert_same(y, expected)
    assert_same(gradients, tuple(pullback(y)))
    # and wherever a number stands
    np.testing.assert_array_equal(function(*[x[1:, 3:] for x in arrays], **options), y[1:, 3:])


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@ALL
def test_halves(kind, half, rng):
    half = (
        np.dtype(half) if half == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    )
    function, options = FUNCTIONS[kind]
    arrays = [x.astype(half) for x in inputs(kind, (4, 20), rng)]
    y, pullback = attnc.vjp(function, *arrays, **options)
    expected, back = attnc.vjp(function, *[x.astype(np.float32) for x in arrays], **options)
    assert_same(y, expected.astype(half))
    for gradient, exact in zip(pullback(y), back(y.astype(np.float32)), strict=True):
        assert_same(gradient, exact.astype(half))


@ALL
def test_equal_to_torch(kind, rng):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    theirs = {
        "relu": F.relu,
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
        "swiglu": lambda gate, up: F.silu(gate) * up,
    }[kind]
    arrays = inputs(kind, (5, 40), rng)
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
    expected, dy = theirs(*tensors), rng.standard_normal((5, 40))
    expected.backward(torch.tensor(dy))
    function, options = FUNCTIONS[kind]
    for module, f in ((attnc, function), (reference, getattr(reference, function.__name__))):
        y, pullback = module.vjp(f, *arrays, **options)
        assert_agree(y, expected.detach().numpy())
        for gradient, tensor in zip(pullback(dy), tensors, strict=True):
            assert_agree(gradient, tensor.grad.numpy())


REFUSED = [
    (lambda: relu(np.ones(3, complex)), TypeError, "relu: x must .*complex"),
    (lambda: silu("x"), TypeError, "silu: x must "),
    (
        lambda: gelu(np.ones(3), approximate="tanh"),
        TypeError,
        "gelu: approximate must be True or Fal",
    ),
    (
        lambda: swiglu(np.ones(3), np.ones(1)),
        ValueError,
        r"swiglu: up must have the shape of gate, \(3,\), got \(1,\)",
    ),
    (lambda: attnc.vjp(silu, np.ones(3))[1](), TypeError, "silu: pullback must get dy"),
    (
        lambda: attnc.vjp(relu, np.ones(3))[1](1.0),
        ValueError,
        r"relu: dy must have shape \(3,\), got \(\)",
    ),
]


@pytest.mark.parametrize(("call", "kind", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_refused(call, kind, said):
    with pytest.raises(kind, match=said):
        call()

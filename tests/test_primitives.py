"""exp, expm1 and tanh of the kernels on every instruction set: errors in ulp, and the edges; and
long sums of the matrix product."""

import numpy as np
import pytest
from checks import assert_close_like_naive, assert_same

import attnc
from attnc import _core

# An ulp is the distance of the floats around the exact value; half of one is unavoidable. Measured
# on the points below, over the instruction sets: 1.0, 1.9 and 2.6.
LIMITS = {"exp": 1.0, "expm1": 2.0, "tanh": 3.0}

# Where the exact values come from; see checks.py on machines whose long double is no wider.
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
SLACK = 0.0 if np.finfo(np.longdouble).eps < np.finfo(np.float64).eps else 1.0

# The largest argument that exp and expm1 are made for: scores are taken relative to their maximum.
LARGEST = {np.float32: 88.0, np.float64: 709.0}


def lowest(dtype):
    """The smallest x whose exp is a normal number."""
    smallest = WIDER[dtype](np.finfo(dtype).smallest_normal)
    x = dtype(np.log(smallest))
    return x if np.exp(WIDER[dtype](x)) >= smallest else np.nextafter(x, dtype(0))


def points(dtype, rng):
    """All magnitudes, the whole range, and the neighbours of multiples of ln(2)/2."""
    low, high = lowest(dtype), LARGEST[dtype]
    exponents = rng.uniform(np.log10(np.finfo(dtype).smallest_normal) + 1, 0, 20000)
    halves = np.arange(2 * low / np.log(2), 2 * high / np.log(2)) * (np.log(2) / 2)
    x = np.concatenate(
        [
            rng.uniform(low, high, 50000),
            rng.uniform(-1, 1, 50000),
            10**exponents * rng.choice([-1, 1], exponents.size),
            halves,
            [low, high, 0.0],
        ]
    ).astype(dtype)
    x = np.concatenate([x, np.nextafter(x, dtype(0))])
    return x[(low <= x) & (x <= high)]


def error_in_ulp(got, exact, dtype):
    ulp = np.spacing(np.maximum(np.abs(exact), np.finfo(dtype).smallest_normal).astype(dtype))
    return np.abs(got.astype(exact.dtype) - exact) / ulp


@pytest.mark.parametrize("name", LIMITS)
def test_error(name, dtype, isa, rng):
    x = points(dtype, rng)
    error = error_in_ulp(_core.map_real(name, x), getattr(np, name)(x.astype(WIDER[dtype])), dtype)
    worst = np.argmax(error)
    assert error[worst] <= LIMITS[name] + SLACK, f"{error[worst]:.3f} ulp at {x[worst]!r}"


def test_error_of_the_softmax_exp(dtype, isa, rng):
    """exp_negative rounds x log2(e), and a half ulp of the product is up to 1.25 |x| of exp(x)."""
    x = -np.abs(points(dtype, rng))
    x = x[x >= lowest(dtype) * 0.999]
    error = error_in_ulp(_core.map_real("exp_negative", x), np.exp(x.astype(WIDER[dtype])), dtype)
    excess = error - (3 + SLACK + 1.25 * np.abs(x))
    assert excess.max() <= 0, f"{error[excess.argmax()]:.3f} ulp at {x[excess.argmax()]!r}"
    edges = np.array([0, lowest(dtype) * 1.001, -1e30, -np.inf, np.nan], dtype)
    np.testing.assert_array_equal(_core.map_real("exp_negative", edges), [1, 0, 0, 0, np.nan])


@pytest.mark.parametrize("name", LIMITS)
def test_no_bit_depends_on_the_place(name, dtype, isa, rng):
    # Whole vectors and the rest behind them, at any address.
    x = rng.standard_normal(70).astype(dtype)
    whole = _core.map_real(name, x)
    for start in range(4):
        for size in range(67):
            part = _core.map_real(name, x[start : start + size])
            np.testing.assert_array_equal(part, whole[start : start + size], strict=True)


def one(name, x, dtype):
    return _core.map_real(name, np.array([x], dtype))[0]


def test_exp_below_the_normal_numbers_is_exactly_0(dtype, isa):
    # So no subnormal number comes about, which would slow down what follows.
    low = lowest(dtype)
    assert one("exp", low, dtype) >= np.finfo(dtype).smallest_normal
    for x in (np.nextafter(low, -dtype(np.inf)), -1e4, -1e30, np.finfo(dtype).min, -np.inf):
        assert one("exp", x, dtype) == 0
        assert one("expm1", x, dtype) == -1


def test_exact_values(dtype, isa):
    assert one("exp", 0.0, dtype) == 1
    for name in ("expm1", "tanh"):
        for zero in (0.0, -0.0):
            assert one(name, zero, dtype) == 0
    assert np.signbit(one("tanh", -0.0, dtype))
    for x in (20.0, 1e30, np.inf):
        assert one("tanh", x, dtype) == 1
        assert one("tanh", -x, dtype) == -1


@pytest.mark.parametrize("name", LIMITS)
def test_nan_stays_nan(name, dtype, isa):
    for size in (1, 5, 33):
        x = np.zeros(size, dtype)
        x[-1] = np.nan
        got = _core.map_real(name, x)
        assert np.isnan(got[-1]) and np.isfinite(got[:-1]).all()


def test_tanh_is_odd(dtype, isa, rng):
    x = points(dtype, rng)
    np.testing.assert_array_equal(_core.map_real("tanh", -x), -_core.map_real("tanh", x))


def test_tanh_stays_within_one(dtype, isa, rng):
    assert np.abs(_core.map_real("tanh", points(dtype, rng))).max() <= 1


def test_wrong_calls():
    x = np.zeros(3)
    for wrong in (x[::2], x.astype(int), x.astype(np.longdouble), [0.0]):
        with pytest.raises(TypeError, match="map_real"):
            _core.map_real("exp", wrong)
    with pytest.raises(ValueError, match="cosh"):
        _core.map_real("cosh", x)


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (3, 70)], ids=str)
def test_products_over_a_million_rows(shape, isa):
    """The gradient of a weight is a sum over rows: equal ones must not lose digits one by one."""
    K, (M, N) = 1_000_000, shape
    a, b = np.ones((K, M), np.float32), np.full((K, N), 0.1, np.float32)
    got = _core.product(a.T, b)
    assert abs(got / (K * float(np.float32(0.1))) - 1).max() < 1e-5


@pytest.mark.parametrize("K", [8191, 8192, 8193, 20_000])
def test_products_over_runs(K, dtype, isa, threads, rng):
    a, b = rng.standard_normal((5, K)).astype(dtype), rng.standard_normal((K, 3)).astype(dtype)
    exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
    got = _core.product(a, b)
    assert_close_like_naive(got, exact, a @ b)
    with attnc.set_num_threads(1):
        assert_same(_core.product(a, b), got)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("K", [0, 1, 3, 128, 131, 300])
@pytest.mark.parametrize("N", [1, 17, 256, 1000, 4100])
def test_a_few_rows_have_the_bits_of_many(dtype, K, N, isa, rng):
    """Though they are computed on another way, along the rows of b."""
    a, b = rng.standard_normal((9, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)
    expected = _core.product(a, b)
    wide = np.full((K, N + 3), np.nan, dtype)
    wide[:, 1 : N + 1] = b
    for M in range(1, 7):
        for right in (b, wide[:, 1 : N + 1], np.asfortranarray(b)):
            assert_same(_core.product(a[:M], right), expected[:M])
            assert_same(_core.product(np.asfortranarray(a)[:M], right), expected[:M])

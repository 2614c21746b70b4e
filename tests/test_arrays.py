"""What the Python part shares of arrays and numbers (attnc/arrays.py)."""

import numpy as np
import pytest
from checks import assert_same, assert_unchanged, wider

from attnc.arrays import contiguous, generator, integer, integer_array, like, real_array, sum_rows

# ---- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bools",
    [
        *([True, 2], [[1, 2], [3, False]], (1, np.True_), [np.array([True, False]), [1, 2]]),
        [[[0]], [[np.array(True)]]],
    ],
    ids=repr,
)
def test_bools_among_integers_are_refused(bools):
    for check in (integer_array, real_array):
        with pytest.raises(TypeError, match="^f: x must be numbers, got bools among them"):
            check("f", "x", bools)


def test_bools_among_floats_are_refused():
    with pytest.raises(TypeError, match="^f: x must be numbers, got bools among them"):
        real_array("f", "x", [0.5, True])


def test_conversions_do_not_heed_the_settings_for_errors():
    wide = np.array([1e30, 1e-300, np.nan, -np.inf])
    with np.errstate(all="raise"):
        narrow = contiguous(wide, np.dtype(np.float32))
        half = like(narrow, np.ones(4, np.float16))
    assert_same(narrow, np.float32([1e30, 0, np.nan, -np.inf]))
    assert_same(half, np.float16([np.inf, 0, np.nan, -np.inf]))


def test_an_input_that_overflows_is_said_as_numpy_says_it():
    """Infinite in the layer's dtype, it would make NaN later: numpy.errstate decides about it."""
    with pytest.warns(RuntimeWarning, match="overflow"):
        contiguous(np.array([1e300]), np.dtype(np.float32))
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        contiguous(np.array([1e300]), np.dtype(np.float32))


@pytest.mark.parametrize("wrong", [np.ma.array(1), np.ma.masked, True, np.True_, 1.0, "1", [1]])
def test_integer_refuses(wrong):
    with pytest.raises(TypeError, match="^f: n must be an integer, got "):
        integer("f", "n", wrong)


# ---- sum_rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 3, 64, 65, 128, 1000, 64 * 64, 64 * 64 + 63, 20_011])
@pytest.mark.parametrize("size", [0, 1, 3, 17, 1025])
def test_sum_rows_adds_each_row_once(rows, size, rng):
    x = rng.integers(-800, 800, (rows, size)).astype(np.float32)  # sums below 2^24 are exact
    with assert_unchanged(x):
        total = sum_rows(x)
    assert_same(total, x.sum(axis=0, dtype=np.float64).astype(np.float32))
    assert total.flags.writeable and not np.shares_memory(total, x)


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (70, 3, 2), (5,), (0,)])
def test_sum_rows_of_any_axes(shape, rng):
    x = rng.integers(-9, 9, shape).astype(float)
    assert_same(sum_rows(x), x.sum(axis=0) if len(shape) > 1 else np.asarray(x.sum()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows, size", [(1_000_000, 4), (1_000_000, 1), (300_000, 64)])
def test_sum_rows_of_very_many(rows, size, dtype):
    x = np.full((rows, size), 0.1, dtype)
    exact = rows * wider(dtype)(x[0, 0])
    error = np.abs(sum_rows(x) / exact - 1).max()
    # Adding 64 numbers rounds 63 times by at most eps / 2 of a sum that is half of the whole on
    # average; 64^3 < 1e6 < 64^4 takes four levels.
    assert error <= 4 * 63 / 4 * np.finfo(dtype).eps


def test_sum_rows_takes_any_layout_and_number(rng):
    x = rng.standard_normal((1000, 6)).astype(np.float32)
    assert_same(sum_rows(np.asfortranarray(x)), sum_rows(x))
    assert_same(sum_rows(np.repeat(x, 2, axis=0)[::2]), sum_rows(x))
    x[500] = np.nan, np.inf, -np.inf, 1e38, 0, 0
    x[501] = 0, 0, np.inf, 3e38, 0, 0
    with np.errstate(all="raise"):
        total = sum_rows(x)
    assert_same(total[:4], np.float32([np.nan, np.inf, np.nan, np.inf]))


# ---- generator -----------------------------------------------------------------------------------


def draw(rng):
    return generator("f", rng).integers(2**60)


def test_generator():
    own = np.random.default_rng(3)
    assert generator("f", own) is own
    assert draw(None) != draw(None)
    for seed in (3, np.int8(3), np.uint64(3), np.array(3)):
        assert draw(seed) == np.random.default_rng(3).integers(2**60)
    assert draw(2**70) == np.random.default_rng(2**70).integers(2**60)


@pytest.mark.parametrize(
    "wrong",
    [
        *(True, np.True_, 1.0, np.float32(1), "1", [1, 2], np.array([1, 2]), {}, 1j),
        *(np.ma.array(1), np.ma.masked, np.random.RandomState(1), np.random.PCG64(1), np.random),
    ],
    ids=lambda wrong: type(wrong).__name__,
)
def test_generator_refuses(wrong):
    with pytest.raises(TypeError, match="^f: rng must be None, an integer or a numpy.random.Gen"):
        generator("f", wrong)


@pytest.mark.parametrize("seed", [-1, np.int64(-1)])
def test_generator_refuses_a_negative_seed(seed):
    with pytest.raises(ValueError, match="^f: rng must not be negative, got -1"):
        generator("f", seed)

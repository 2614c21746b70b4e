"""float16 and bfloat16, which the kernels read and write where they lie and compute in float32.

So a call on them is the call on the same numbers in float32, its results rounded, to the last bit:
that is the reference here. test_layouts.py and test_properties.py hold small random calls against
it; here are the conversions themselves, layouts, and sizes that reach every way of reading.
"""

import itertools

import numpy as np
import pytest
from arrays import FUNCTIONS, LAYOUTS, inputs, lay_out, options
from checks import EVERYTHING, assert_same, assert_unchanged, evaluate, incoming

import attnc

HALVES = ["float16", "bfloat16"]


@pytest.fixture(params=HALVES)
def half(request):
    if request.param == "float16":
        return np.dtype(np.float16)
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)


def narrowed(x, dtype):
    """x rounded to the dtype, whatever becomes infinite or 0 by it."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return x.astype(dtype)


def to(dtype, x):
    return narrowed(x, dtype) if isinstance(x, np.ndarray) and x.dtype.kind in "fV" else x


def widened(x):
    is_half = isinstance(x, np.ndarray) and x.dtype.itemsize == 2 and x.dtype.kind in "fV"
    return x.astype(np.float32) if is_half else x


def assert_rounded(name, arrays, own, d):
    """Outputs and gradients are those of the same numbers in float32, rounded; lse is not."""
    with assert_unchanged(arrays, own, d):
        output, gradients = evaluate(name, arrays, own, d)
    wide = [widened(x) for x in arrays], {key: widened(x) for key, x in own.items()}
    expected, expected_gradients = evaluate(name, *wide, {k: widened(x) for k, x in d.items()})
    fields = dict(zip(expected_gradients, [*arrays, *own.values()], strict=False))
    dtype = np.result_type(*(x for x in (*arrays, *own.values()) if to(np.float16, x) is not x))
    assert_same(tuple(output[:2]), tuple(narrowed(x, dtype) for x in expected[:2]))
    assert_same(output.lse, expected.lse)
    for field, gradient in gradients.items():
        argument = own[field] if field in own else fields[field]
        rounded = narrowed(expected_gradients[field], argument.dtype.newbyteorder("="))
        assert_same(gradient, rounded, field)
        assert gradient.flags.c_contiguous and gradient.flags.writeable


def same_numbers(got, expected):
    """Some comparisons warn of a signalling NaN."""
    np.testing.assert_array_equal(narrowed(got, np.float32), narrowed(expected, np.float32))


# ---- the conversions -----------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("ragged", [0, 3])
def test_every_number_is_read_and_written(half, rows, ragged, isa):
    """The context of one key is its value: all 65536 of them, in whole vectors and not."""
    value = np.arange(1 << 16, dtype=np.uint16).view(half)[None, : 2**16 - ragged]
    context = attnc.attend(np.zeros((rows, 1), half), value)
    assert context.dtype == half
    same_numbers(context, np.broadcast_to(value, context.shape))


@pytest.mark.parametrize("rows", [1, 5])
def test_every_number_is_rounded_to_the_nearest(half, rows, isa):
    """The gradient of the only key's value is dcontext: ties, overflow, subnormal numbers, NaN."""
    ends = np.uint32([0, 1, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    bits = (np.arange(1 << 16, dtype=np.uint32)[:, None] << 16 | ends).reshape(1, -1)
    dcontext = np.zeros((rows, bits.size), np.float32)
    dcontext[0] = bits.view(np.float32)
    value = np.zeros((1, bits.size), half)
    _, pullback = attnc.vjp(attnc.attend, np.zeros((rows, 1), np.float32), value)
    dvalue = pullback(dcontext).value
    assert dvalue.dtype == half
    same_numbers(dvalue[0], narrowed(dcontext[0], half))


def test_a_nan_is_the_quiet_one(half, isa):
    """Whatever bits it had, so that no instruction set shows."""
    infinity = int(np.array(np.inf, half).view(np.uint16))
    value = np.uint16([[infinity + 1, infinity | 0x7F, 0xFFFF]]).view(half)
    quiet = 0x7E00 if half == np.float16 else 0x7FC0
    got = attnc.attend(np.zeros((1, 1), half), value).view(np.uint16)
    assert set((got & 0x7FFF).ravel()) == {quiet}


# ---- calls ---------------------------------------------------------------------------------------

# In place, where one or two queries meet the keys, and packed; whole vectors and not; segments.
SHAPES = [
    {"Tq": 1, "Tk": 1300, "D": 64, "Dv": 128},
    {"Tq": 2, "Tk": 1030, "D": 33, "Dv": 48},
    {"Tq": 1, "Tk": 300, "D": 130, "Dv": 21},
    {"Tq": 70, "Tk": 230, "D": 32, "Dv": 16},
    {"Tq": 9, "Tk": 65, "D": 21, "Dv": 35},
]


def problem(name, rng, half, **shape):
    arrays, own = inputs(name, rng, np.float32, **shape)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), np.float32)
    own = {key: to(half, x) for key, x in own.items()}
    return [to(half, x) for x in arrays], own, {key: to(half, x) for key, x in d.items()}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "{Tq},{Tk},{D},{Dv}".format(**shape))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_calls(name, half, shape, isa, rng):
    assert_rounded(name, *problem(name, rng, half, **shape))


@pytest.mark.parametrize("option", ["mask", "bias", "bias by key", "bias for all", "everything"])
@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[4]], ids=["in place", "packed"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_options(name, half, shape, option, isa, rng):
    arrays, own, d = problem(name, rng, half, **shape)
    own |= {key: to(half, x) for key, x in options(option, rng, np.float32, **shape).items()}
    assert_rounded(name, arrays, own, d)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_layouts(name, half, layout, isa, rng):
    """What cannot be read in place is converted: unaligned, or of another byte order."""
    if layout == "byte-swapped" and half != np.float16:
        pytest.skip("bfloat16 has one byte order")
    shape = {"Tq": 9, "Tk": 33, "leads": ((2, 1), (1, 3), (2, 3))}
    arrays, own, d = problem(name, rng, half, **shape)
    own["bias"] = to(half, rng.standard_normal((2, 1, 9, 33)).astype(np.float32))
    expected = evaluate(name, *([x.copy() for x in arrays], own, d))
    if layout == "repeated":
        arrays = [lay_out(layout, x) for x in arrays]
        return assert_rounded(name, arrays, own, d)
    arrays = [lay_out(layout, x) for x in arrays]
    own, d = ({key: lay_out(layout, x) for key, x in xs.items()} for xs in (own, d))
    assert_same(evaluate(name, arrays, own, d), expected)


@pytest.mark.parametrize("stored", [*itertools.product([0, 1], repeat=3)])
@pytest.mark.parametrize("Tq", [1, 20])
def test_some_of_the_arrays(half, stored, Tq, isa, rng):
    """Together with float32 they are computed in it, and each gradient is rounded as its argument
    is; with float64 they are converted."""
    shape = {"Tq": Tq, "Tk": 70, "D": 32, "Dv": 32}
    arrays, _, d = problem("dot_product_attention", rng, np.float32, **shape)
    arrays = [to(half, x) if yes else x for x, yes in zip(arrays, stored, strict=True)]
    assert_rounded("dot_product_attention", arrays, {}, d)
    arrays[0] = arrays[0].astype(np.float64)
    output, gradients = evaluate("dot_product_attention", arrays, {}, d)
    assert output.context.dtype == np.float64
    assert [x.dtype for x in gradients.values()] == [x.dtype for x in arrays]


@pytest.mark.parametrize("Tq", [1, 2, 40])
@pytest.mark.parametrize("Dv", [64, 13])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_masked_is_not_read(half, Tq, Dv, poison, isa, rng):
    arrays, own, d = problem("dot_product_attention", rng, half, Tq=Tq, Tk=300, D=32, Dv=Dv)
    allowed = rng.random((2, 300)) < 0.7
    own["key_mask"] = allowed
    own["bias"] = to(half, np.where(allowed, 0.5, -np.inf).astype(np.float32)[:, None])
    expected = evaluate("dot_product_attention", arrays, own, d)
    poisoned = [arrays[0], *(x.copy() for x in arrays[1:])]
    for x in poisoned[1:]:
        x[~allowed] = poison
    assert_same(evaluate("dot_product_attention", poisoned, own, d), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_threads_change_no_bit(name, half, threads, rng):
    arrays, own, d = problem(name, rng, half, Tq=2, Tk=2000, D=64, Dv=64)
    got = evaluate(name, arrays, own, d)
    attnc.set_num_threads(1)
    assert_same(got, evaluate(name, arrays, own, d))


def test_rounding_is_silent(half, isa):
    """What a half cannot hold becomes 0 or infinity in silence, as in every call."""
    with np.errstate(all="raise"):
        value = np.full((1, 64), 1, half)
        _, pullback = attnc.vjp(attnc.attend, np.zeros((1, 1), half), value)
        dcontext = np.float32([[1e-30, 3e38] * 32])
        np.testing.assert_array_equal(pullback(dcontext).value, narrowed(dcontext, half))


def test_no_type_holds_both():
    """NumPy has no common type of float16 and bfloat16, and neither is chosen in silence."""
    x = np.ones((2, 3), np.float16)
    y = x.astype(pytest.importorskip("ml_dtypes").bfloat16)
    for arrays in ((x, y, y), (y, y, x)):
        with pytest.raises(TypeError, match="^dot_product_attention: arrays must have dtypes with"):
            attnc.dot_product_attention(*arrays)
    with pytest.raises(TypeError, match=r"got float16 with bfloat16; .* \.astype\(np\.float32\)"):
        attnc.attend(x, y[:1].repeat(3, axis=0), bias=x)

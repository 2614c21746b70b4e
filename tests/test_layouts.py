"""Arrays as they come: any memory layout, any dtype that fits, lists and integers."""

import numpy as np
import pytest
from arrays import FUNCTIONS, LAYOUTS, inputs, lay_out, options
from checks import EVERYTHING, assert_same, assert_unchanged, evaluate, incoming

import attnc


def plain(x):
    """The same numbers as NumPy lays them out by itself."""
    if not isinstance(x, np.ndarray):
        return x
    return np.array(x, dtype=x.dtype.newbyteorder("="), order="C", copy=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_layouts(name, layout, dtype, isa, rng):
    """Of arguments, masks and incoming gradients: the bits are those of plain arrays."""
    sizes = {"Tq": 9, "Tk": 33, "leads": ((2, 1), (1, 3), (2, 3))}
    arrays, own = inputs(name, rng, dtype, **sizes)
    own |= options("everything", rng, dtype, **sizes)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)

    arrays = [lay_out(layout, x) for x in arrays]
    own, d = ({k: lay_out(layout, x) for k, x in xs.items()} for xs in (own, d))
    with assert_unchanged(arrays, own, d):
        got = evaluate(name, arrays, own, d)
    own, d_plain = ({k: plain(x) for k, x in xs.items()} for xs in (own, d))
    assert_same(got, evaluate(name, [plain(x) for x in arrays], own, d_plain))
    for x in (*got[0], *got[1].values()):
        assert x.dtype == dtype and x.dtype.isnative
        assert x.flags.c_contiguous and x.flags.writeable and x.flags.aligned


@pytest.mark.parametrize("name", FUNCTIONS)
def test_broadcast_arrays(name, dtype, isa, rng):
    """np.broadcast_to along leading axes gives the bits of axes of size 1, and of copies."""
    arrays, own = inputs(name, rng, dtype, leads=((1,), (1,), (1,)))
    function = getattr(attnc, name)
    leading = 2 if name == "attend" else 3
    wide = [np.broadcast_to(x, (4, *x.shape[1:])) for x in arrays[:leading]]
    expected = function(*arrays, **own, **EVERYTHING)
    output = function(*wide, *arrays[leading:], **own, **EVERYTHING)
    for x, y in zip(output, expected, strict=True):
        np.testing.assert_array_equal(x, np.broadcast_to(y, x.shape))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_at_odd_distances(name, dtype, isa, rng):
    """An axis of size 1 may have any stride, also one that is no whole number of elements."""
    arrays, own = inputs(name, rng, dtype, Tq=1, Tk=1, leads=((1,), (1,), (1,)))
    leading = 2 if name == "attend" else 3

    def in_records(x):
        records = np.zeros(1, np.dtype([("x", dtype, x.shape[-1:]), ("between", np.int8)]))
        records["x"] = x.reshape(1, -1)
        assert records["x"].strides[0] % x.itemsize
        return records["x"][None]

    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    expected = evaluate(name, arrays, own, d)
    arrays = [in_records(x) for x in arrays[:leading]] + list(arrays[leading:])
    assert_same(evaluate(name, arrays, own, {**d, "dcontext": in_records(d["dcontext"])}), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_outputs_are_fresh(name, rng):
    """Not a view of an input, nor of the output of another call, nor of what a pullback needs."""
    arrays, own = inputs(name, rng)
    function = getattr(attnc, name)
    output, pullback = attnc.vjp(function, *arrays, **own, **EVERYTHING)
    d = incoming(rng, output)
    gradients = pullback(**d)
    results = [*output, *vars(gradients).values()]
    for i, x in enumerate(results):
        assert not any(np.shares_memory(x, y) for y in (*arrays, *d.values(), *results[:i]))
    expected = {field: x.copy() for field, x in vars(gradients).items()}
    for x in results:
        x[...] = np.nan
    assert_same(vars(pullback(**d)), expected)


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lists_and_integers_are_float64(name, isa, rng):
    arrays, own = inputs(name, rng)
    own.pop("scale", None)  # a number there is a constant
    arrays = [np.round(4 * x) for x in arrays]
    own = {field: np.round(4 * x) for field, x in own.items()}
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING))
    expected = evaluate(name, arrays, own, d)
    for form in (lambda x: x.astype(np.int32), lambda x: x.tolist()):
        options = {field: form(x) for field, x in own.items()}
        assert_same(evaluate(name, [form(x) for x in arrays], options, d), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_mixed_dtypes_compute_in_the_widest(name, isa, rng):
    """One float64 among float32 is enough. Each gradient has the dtype of its argument."""
    arrays, own = inputs(name, rng, np.float32)
    own["bias"] = rng.standard_normal((2, 5, 7)).astype(np.float32)
    fields = [*range(len(arrays)), *own]
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING))
    widened = [x.astype(np.float64) for x in arrays], {k: x.astype(float) for k, x in own.items()}
    expected, expected_gradients = evaluate(name, *widened, d)
    for wide in (field for field in fields if field != "scale"):  # NumPy 1 does not promote 0-d
        mixed, options = list(arrays), dict(own)
        place = mixed if isinstance(wide, int) else options
        place[wide] = place[wide].astype(np.float64)
        output, gradients = evaluate(name, mixed, options, d)
        assert_same(output, expected)
        for (field, got), x in zip(gradients.items(), [*mixed, *options.values()], strict=True):
            assert_same(got, expected_gradients[field].astype(x.dtype))


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_half_precision_is_computed_in_float32(name, half, isa, rng):
    """And rounded once, at the end; but the lse, which may be merged, not at all."""
    half = np.dtype(getattr(pytest.importorskip("ml_dtypes"), half) if half[0] == "b" else half)
    arrays, own = inputs(name, rng, np.float32)
    arrays, own = [x.astype(half) for x in arrays], {k: x.astype(half) for k, x in own.items()}
    single = [x.astype(np.float32) for x in arrays], {k: x.astype("f4") for k, x in own.items()}
    d = incoming(rng, getattr(attnc, name)(*single[0], **single[1], **EVERYTHING), np.float32)
    output, gradients = evaluate(name, arrays, own, d)
    expected, expected_gradients = evaluate(name, *single, d)
    assert_same(tuple(output[:2]), tuple(x.astype(half) for x in expected[:2]))
    assert_same(output.lse, expected.lse)
    assert_same(gradients, {field: x.astype(half) for field, x in expected_gradients.items()})


@pytest.mark.parametrize("other", [np.float16, np.float32, np.float64, ">f4"], ids=str)
def test_incoming_gradients_of_any_float_dtype(other, dtype, rng):
    """They are converted to the computing dtype; they do not change it."""
    arrays, _ = inputs("dot_product_attention", rng, dtype)
    output, pullback = attnc.vjp(attnc.dot_product_attention, *arrays, **EVERYTHING)
    d = {field: x.astype(other) for field, x in incoming(rng, output).items()}
    converted = {field: x.astype(dtype) for field, x in d.items()}
    assert_same(pullback(**d), pullback(**converted))

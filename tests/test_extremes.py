"""Numbers at the ends of their range: the mathematically right answer, never an accident."""

import numpy as np
import pytest
from arrays import FUNCTIONS, inputs
from checks import EVERYTHING, check, error, evaluate, incoming

import attnc
from attnc.registry import record_of

SCALED = [name for name in FUNCTIONS if "scale" in record_of(getattr(attnc, name)).optional]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_subnormal_values(name, dtype, isa, rng):
    """They are numbers: the context of equal values is that value."""
    arrays, own = inputs(name, rng, dtype)
    value = 1 if name == "attend" else 2
    arrays = list(arrays)
    tiny = np.finfo(dtype).smallest_subnormal
    arrays[value] = np.full_like(arrays[value], 64 * tiny)
    context = getattr(attnc, name)(*arrays, **own)
    assert (abs(context / tiny - 64) <= 4).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_subnormal_everything(name, dtype, isa, rng):
    """Scores of about 0, so weights of about 1 / Tk; the cosine does not see the size at all."""
    arrays, own = inputs(name, rng, dtype)
    small = np.finfo(dtype).smallest_normal / 8
    count = 1 if name == "attend" else 2
    arrays = [x * small if k < count else x for k, x in enumerate(arrays)]
    if name == "cosine_attention":  # |q|^2 would be 0 in this dtype: a zero vector has score 0
        assert np.isfinite(attnc.cosine_attention(*arrays, **own)).all()
        return
    if name == "additive_attention":
        own = {key: x for key, x in own.items() if key != "score_bias"}
    check(name, arrays, own, rng)


@pytest.mark.parametrize("size", [1e3, 1e10, 1e30])
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_beyond_the_exponential(size, sign, dtype, isa, rng):
    scores, value = inputs("attend", rng, dtype)[0]
    check("attend", (sign * dtype(size) * scores, value), {}, rng)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("scale", [0, -0.0, -3.0])
def test_scale_of_any_sign(name, scale, dtype, isa, rng):
    (query, key, value), _ = inputs(name, rng, dtype)
    output, gradients = check(name, (query, key, value), {"scale": scale}, rng)
    if scale == 0:
        np.testing.assert_allclose(output.weights, 1 / 7, rtol=4 * np.finfo(dtype).eps)
        assert not gradients.query.any() and not gradients.key.any()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_negative_zero_is_zero(name, dtype, isa, rng):
    """In a bias, a score, an incoming gradient."""
    arrays, own = inputs(name, rng, dtype)
    zero = {"bias": np.zeros((2, 5, 7), dtype)}
    output = getattr(attnc, name)(*arrays, **own, **zero, **EVERYTHING)
    d = incoming(rng, output, dtype)
    d["dlse"] = np.zeros_like(d["dlse"])
    expected = evaluate(name, arrays, {**own, **zero}, d)
    negative = {"bias": -zero["bias"]}
    got = evaluate(name, arrays, {**own, **negative}, d | {"dlse": -d["dlse"]})
    for x, y in zip(got[0], expected[0], strict=True):
        np.testing.assert_array_equal(x, y)
    for field, gradient in expected[1].items():
        np.testing.assert_array_equal(got[1][field], gradient, err_msg=field)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_score_far_above(name, dtype, isa, rng):
    """All the weight goes to one key, exactly; the others get exactly nothing."""
    arrays, own = inputs(name, rng, dtype)
    bias = np.zeros((2, 5, 7), dtype)
    bias[..., 3] = 1e6
    output, gradients = evaluate(
        name,
        arrays,
        {**own, "bias": bias},
        incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype),
    )
    np.testing.assert_array_equal(output.weights, np.broadcast_to(np.arange(7) == 3, (2, 5, 7)))
    value = arrays[1 if name == "attend" else 2]
    np.testing.assert_array_equal(output.context, np.broadcast_to(value[:, 3:4], (2, 5, 13)))
    assert not np.delete(gradients["value"], 3, axis=1).any()


def test_no_overflow_on_the_way(dtype, isa):
    """Scores of almost the largest number: their differences still are what counts."""
    most = np.finfo(dtype).max / 2
    scores = np.array([[most, -most, most]], dtype)
    output = attnc.attend(scores, np.eye(3, dtype=dtype), **EVERYTHING)
    np.testing.assert_array_equal(output.weights, [[0.5, 0, 0.5]])
    np.testing.assert_array_equal(output.lse, [most])


# ---- Options at the ends of the range ------------------------------------------------------------

LEAST = {np.float32: 1.2e-38, np.float64: 2.3e-308}
MOST = {np.float32: 8.5e37, np.float64: 4.4e307}


@pytest.mark.parametrize("ends", [LEAST, MOST], ids=["least", "most"])
def test_softcap_at_the_ends_of_the_range(ends, dtype, isa, rng):
    check("attend", inputs("attend", rng, dtype)[0], {"softcap": ends[dtype]}, rng)


@pytest.mark.parametrize("softcap", [1e-39, 1e38, 1e39, 1e300, 5e-324, 1e308])
def test_softcap_beyond_the_range(softcap, dtype, isa):
    """In float32 it would be infinite, or its inverse would: refused, where it would give NaN."""
    arrays = np.ones((2, 3), dtype), np.ones((3, 4), dtype)
    if LEAST[dtype] <= softcap <= MOST[dtype]:
        np.testing.assert_array_equal(attnc.attend(*arrays, softcap=softcap), 1)
        return
    name = np.dtype(dtype).name
    with pytest.raises(ValueError, match=f"^attend: softcap must be .* computed in {name}, got"):
        attnc.attend(*arrays, softcap=softcap)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("sign", [1, -1])
def test_scale_at_the_ends_of_the_range(name, sign, dtype, isa, rng):
    least, most = (1e-30, 1e30) if dtype == np.float32 else (1e-300, 1e300)
    (query, key, value), _ = inputs(name, rng, dtype)
    keys = key if name == "cosine_attention" else key / dtype(most)
    check(name, (query, keys, value), {"scale": sign * most}, rng)
    check(name, (query, key, value), {"scale": sign * least}, rng)
    for scale in (1.1 * most, 0.9 * least, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"^{name}: scale must .* got"):
            getattr(attnc, name)(query, key, value, scale=sign * scale)


# ---- Cosines of vectors whose squares are beyond the range ---------------------------------------


@pytest.mark.parametrize("exponent", [-146, -140, -126, -70, 70, 124, 125, -1070, -600, 600, 1021])
def test_cosine_sees_no_size(exponent, dtype, isa, rng):
    """Times a power of 2 the scores stay the same to the last bit, and gradients are divided by it.

    Close to 0 numbers lose bits, so the vectors have few.
    """
    info = np.finfo(dtype)
    if not info.minexp - info.nmant + 3 <= exponent <= info.maxexp - 3:
        pytest.skip("beyond this dtype")
    query, key = rng.integers(-3, 4, (2, 5, 8)).astype(dtype)
    value = rng.standard_normal((5, 2)).astype(dtype)
    expected, pullback = attnc.vjp(attnc.cosine_attention, query, key, value)
    power = dtype(2.0) ** exponent
    got, pullback_of_scaled = attnc.vjp(attnc.cosine_attention, query * power, key, value)
    np.testing.assert_array_equal(got, expected)
    small = dtype(2.0) ** min(0, exponent + info.maxexp - 8)  # so that no gradient overflows
    dcontext = small * rng.standard_normal(got.shape).astype(dtype)
    wanted, found = pullback(dcontext).query, pullback_of_scaled(dcontext).query
    with np.errstate(under="ignore"):
        assert error(found, wanted / power) <= 4 * info.eps * abs(wanted / power).max() + (
            info.smallest_subnormal
        )

"""The option slope: a bias of -slope |j - p| that is never there as an array; and alibi_slopes."""

import numpy as np
import pytest
from arrays import FUNCTIONS, inputs
from checks import EVERYTHING, assert_agree, assert_same, check_vjp, evaluate, incoming

import attnc

SLOPES = {
    "by lead": lambda rng: rng.standard_normal((2, 3)),
    "by head": lambda rng: rng.standard_normal((1, 3)),
    "for all": lambda rng: rng.standard_normal((1, 1)),
    "without axes": lambda rng: np.array(0.3),
    "a number": lambda rng: 0.3,
    "a list": lambda rng: [[0.1, 0.2, -0.3]],
}
# The options, and those of them that go on without a slope.
POSITIONS = {
    "default": ({}, {}),
    "causal": ({"causal": True}, {"causal": True}),
    "from key 0": ({"causal_offset": 0}, {}),
    "far": ({"causal_offset": 1000}, {}),
    "window": ({"window": (2, 1)}, {"window": (2, 1)}),
    "by lead": ({"causal_offset": np.array([[-3, 0, 4], [2, 9, -1]])}, {}),
}
HEADS = ((2, 3), (2, 3), (2, 1))


def distances(options, Tq, Tk):
    """|j - p|, (2, 3, Tq, Tk)."""
    offset = np.broadcast_to(options.get("causal_offset", Tk - Tq), (2, 3))
    return np.abs(np.arange(Tk) - np.arange(Tq)[:, None] - offset[..., None, None])


@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
@pytest.mark.parametrize("slope", SLOPES.values(), ids=SLOPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_is_a_bias_of_distances(name, slope, positions, rng):
    arrays, own = inputs(name, rng, leads=HEADS)
    slope, (options, others) = slope(rng), positions
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING))
    output, gradients = evaluate(name, arrays, own | options | {"slope": slope}, d)

    steps = distances(options, 5, 7)
    bias = -np.broadcast_to(slope, (2, 3))[..., None, None] * steps
    expected, by_bias = evaluate(name, arrays, own | others | {"bias": bias}, d)
    for x, y in zip(output, expected, strict=True):
        assert_agree(x, y)
    if not isinstance(slope, float):  # else it is a constant
        shape = np.shape(slope)
        axes = tuple(axis for axis in range(2) if not shape or shape[axis] == 1)
        dslope = -(by_bias["bias"] * steps).sum((-2, -1)).sum(axes, keepdims=bool(shape))
        np.testing.assert_allclose(
            gradients.pop("slope"), dslope, rtol=1e-9, atol=1e-12 * steps.max(), strict=True
        )
    by_bias.pop("bias")
    assert gradients.keys() == by_bias.keys()
    for field, gradient in by_bias.items():
        assert_agree(gradients[field], gradient, field)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients(name, lead, rng):
    arrays, own = inputs(name, rng, leads=(lead, lead, lead))
    slope = np.array(rng.standard_normal(lead[-1:] and (*(1 for _ in lead[:-1]), lead[-1])))
    own |= {"slope": slope, "softcap": 2.0, "bias": rng.standard_normal((*lead, 5, 7))}
    check_vjp(attnc.vjp, getattr(attnc, name), arrays, own | {"dropout": 0.2, "rng": 1})


def test_comes_after_the_softcap(rng):
    (scores, value), _ = inputs("attend", rng)
    capped = 2 * np.tanh(scores / 2)
    got = attnc.attend(scores, value, softcap=2.0, slope=0.5)
    assert_agree(got, attnc.attend(capped, value, slope=0.5))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slope_0_has_the_bits_of_none(name, dtype, rng):
    arrays, own = inputs(name, rng, dtype, Tq=20, Tk=300)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    output, gradients = evaluate(name, arrays, own | {"slope": np.zeros(2)}, d)
    plain, plain_gradients = evaluate(name, arrays, own, d)
    assert_same(tuple(output), tuple(plain))
    assert gradients.pop("slope").any()
    assert_same(gradients, plain_gradients)


def test_takes_no_part_in_the_dtype(rng):
    arrays, _ = inputs("dot_product_attention", rng, np.float32)
    for kind in (np.float16, np.float32, np.float64):
        slope = np.array([0.25, 0.5], kind)
        context, pullback = attnc.vjp(attnc.dot_product_attention, *arrays, slope=slope)
        gradients = pullback(context)
        assert context.dtype == np.float32 and gradients.slope.dtype == kind
        assert_same(context, attnc.dot_product_attention(*arrays, slope=[0.25, 0.5]))
    _, pullback = attnc.vjp(attnc.dot_product_attention, *arrays, slope=np.array([1, 2]))
    assert pullback(context).slope.dtype == np.float32  # of integers: what is computed in


def test_far_beyond_float32(rng):
    """A finite slope stays finite, and distances of 2^60 do no harm."""
    arrays, _ = inputs("dot_product_attention", rng, np.float32)
    steep = attnc.dot_product_attention(*arrays, slope=1e300, causal_offset=0)
    assert_same(steep, arrays[2][:, :5])  # every query sees its own key alone
    for offset in (2**62, -(2**62)):
        flat = attnc.dot_product_attention(*arrays, slope=1e-30, causal_offset=offset)
        assert np.isfinite(flat).all()


def test_not_a_number(rng):
    arrays, _ = inputs("dot_product_attention", rng)
    context = attnc.dot_product_attention(*arrays, slope=[np.nan, 1.0])
    assert np.isnan(context[0]).all() and np.isfinite(context[1]).all()


# ---- alibi_slopes --------------------------------------------------------------------------------


def slopes_of_the_authors(n):
    """As their code has it, by recursion."""
    if np.log2(n).is_integer():
        start = 2.0 ** -(2.0 ** -(np.log2(n) - 3))
        return [start * start**i for i in range(n)]
    below = 2 ** int(np.log2(n))
    return slopes_of_the_authors(below) + slopes_of_the_authors(2 * below)[0::2][: n - below]


@pytest.mark.parametrize("heads", [*range(1, 34), 40, 64, 96])
def test_alibi_slopes(heads):
    slopes = attnc.alibi_slopes(heads)
    assert slopes.shape == (heads,) and slopes.dtype == np.float64
    np.testing.assert_allclose(slopes, slopes_of_the_authors(heads), rtol=1e-13)


@pytest.mark.parametrize("wrong, kind", [(0, ValueError), (2.0, TypeError), (None, TypeError)])
def test_alibi_slopes_of_no_heads(wrong, kind):
    with pytest.raises(kind, match=r"^alibi_slopes: num_heads must be an integer of at least 1"):
        attnc.alibi_slopes(wrong)

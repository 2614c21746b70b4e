"""The option sink: one more logit in the softmax of every query, without a value."""

import numpy as np
import pytest
from arrays import FUNCTIONS, inputs
from checks import EVERYTHING, assert_agree, assert_same, check_vjp, evaluate, incoming

import attnc

SINKS = {
    "by lead": lambda rng: rng.standard_normal((2, 3)),
    "by head": lambda rng: rng.standard_normal((1, 3)),
    "without axes": lambda rng: np.array(0.3),
}
HEADS = ((2, 3), (2, 3), (2, 1))
# One tile, several of them, and splits of the keys.
SIZES = {"one tile": (5, 7), "long rows": (5, 600), "one query": (1, 1100)}


def masked(rng, Tq, Tk):
    """A mask in which the last query of the first element may attend to nothing."""
    mask = rng.random((2, 3, Tq, Tk)) < 0.7
    mask[0, 0, -1] = False
    return mask


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_is_merging_with_an_empty_part(name, sink, sizes, rng):
    """Forward, and backward through both."""
    Tq, Tk = sizes
    arrays, own = inputs(name, rng, Tq=Tq, Tk=Tk, leads=HEADS)
    own["mask"] = masked(rng, Tq, Tk)
    sink, function = sink(rng), getattr(attnc, name)
    got, pullback = attnc.vjp(function, *arrays, **own, sink=sink, return_lse=True)

    some, part_pullback = attnc.vjp(function, *arrays, **own, return_lse=True)
    empty = np.zeros(some.context.shape)
    logits = np.broadcast_to(np.broadcast_to(sink, (2, 3))[..., None], some.lse.shape)
    merged, merge_pullback = attnc.vjp(
        attnc.merge_attention, [some.context, empty], [some.lse, logits], return_lse=True
    )
    assert_agree(got.context, merged.context)
    assert_agree(got.lse, merged.lse)

    d = incoming(rng, got)
    dcontexts, dlses = merge_pullback(**d)
    expected = vars(part_pullback(dcontexts[0], dlse=dlses[0]))
    gradients = vars(pullback(**d))
    axes = tuple(axis for axis in range(2) if not sink.shape or sink.shape[axis] == 1)
    dsink = dlses[1].sum(-1).sum(axes, keepdims=bool(sink.shape))
    np.testing.assert_allclose(gradients.pop("sink"), dsink, rtol=1e-9, atol=1e-12, strict=True)
    assert gradients.keys() == expected.keys()
    for field, gradient in expected.items():
        assert_agree(gradients[field], gradient, field)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients(name, lead, rng):
    arrays, own = inputs(name, rng, leads=(lead, lead, lead))
    mask = rng.random((*lead, 5, 7)) < 0.7
    mask[..., 2, :] = False
    own |= {"sink": np.array(rng.standard_normal(lead)), "mask": mask, "softcap": 2.0}
    check_vjp(attnc.vjp, getattr(attnc, name), arrays, own | {"dropout": 0.2, "rng": 1})


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_weights_sum_to_less_than_1(name, sizes, dtype, rng):
    Tq, Tk = sizes
    arrays, own = inputs(name, rng, dtype, Tq=Tq, Tk=Tk, leads=HEADS)
    sink = rng.standard_normal((1, 3))
    got = getattr(attnc, name)(*arrays, **own, sink=sink, **EVERYTHING)
    left = np.exp(sink[..., None] - got.lse)
    np.testing.assert_allclose(got.weights.sum(-1), 1 - left, rtol=30 * np.finfo(dtype).eps)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_query_that_may_attend_to_nothing(name, sizes, dtype, isa, rng):
    """Its lse is the sink, which gets that gradient whole; whatever else comes in is not read."""
    Tq, Tk = sizes
    arrays, own = inputs(name, rng, dtype, Tq=Tq, Tk=Tk)
    own |= {"mask": np.zeros((1, 1, 1), bool), "sink": np.array([0.7, -30.0], dtype)}
    output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own, **EVERYTHING)
    assert not output.context.any() and not output.weights.any()
    assert_same(output.lse, np.broadcast_to(own["sink"][:, None], (2, Tq)))
    d = incoming(rng, output, dtype)
    d["dcontext"][:] = d["dweights"][:] = np.nan
    gradients = vars(pullback(**d))
    exact = d["dlse"].astype(np.float64).sum(-1).astype(dtype)
    np.testing.assert_allclose(gradients.pop("sink"), exact, rtol=2 * np.finfo(dtype).eps)
    assert not any(x.any() for x in gradients.values())


def test_padding_has_no_sink(rng):
    arrays, _ = inputs("dot_product_attention", rng)
    sink = np.array([1.0, 2.0])
    output, pullback = attnc.vjp(
        attnc.dot_product_attention, *arrays, sink=sink, query_lengths=[5, 2], return_lse=True
    )
    assert (output.lse[1, 2:] == -np.inf).all() and not output.context[1, 2:].any()
    dlse = rng.standard_normal(output.lse.shape)
    dlse[1, 2:] = np.nan
    live = np.arange(5) < [[5], [2]]
    weights = np.exp(sink[:, None] - np.where(live, output.lse, 0))  # of the sink
    assert_agree(pullback(dlse=dlse).sink, np.where(live, weights * dlse, 0).sum(-1))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_minus_infinity_is_no_sink(name, sizes, dtype, rng):
    """Bit by bit; a query that may attend to nothing among them."""
    Tq, Tk = sizes
    arrays, own = inputs(name, rng, dtype, Tq=Tq, Tk=Tk, leads=HEADS)
    own["mask"] = masked(rng, Tq, Tk)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    expected = evaluate(name, arrays, own, d)
    for sink in (-np.inf, np.full((2, 1), -np.inf)):
        output, gradients = evaluate(name, arrays, own | {"sink": sink}, d)
        assert_same(tuple(output), tuple(expected[0]))
        assert not np.any(gradients.pop("sink", 0))
        assert_same(gradients, expected[1])


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_broken_sink_breaks_its_rows(name, sizes, broken, dtype, isa, rng):
    """As a score of infinity or NaN does; what is not allowed keeps the weight 0."""
    Tq, Tk = sizes
    arrays, own = inputs(name, rng, dtype, Tq=Tq, Tk=Tk)
    mask = rng.random((2, Tq, Tk)) < 0.7
    whole = getattr(attnc, name)(*arrays, **own, mask=mask, sink=[9.0, 0.5], **EVERYTHING)
    output = getattr(attnc, name)(*arrays, **own, mask=mask, sink=[broken, 0.5], **EVERYTHING)
    assert np.isnan(output.context[0]).all() and np.isnan(output.lse[0]).all()
    assert_same(np.isnan(output.weights[0]), mask[0])
    assert_same(tuple(x[1] for x in output), tuple(x[1] for x in whole))


@pytest.mark.parametrize("size", [3.4e38, 1e39, 1e300])
def test_a_finite_sink_stays_finite(size, rng):
    """float32, where some of these are beyond the range."""
    arrays, _ = inputs("dot_product_attention", rng, np.float32)
    above = attnc.dot_product_attention(*arrays, sink=size, **EVERYTHING)
    assert not above.context.any() and not above.weights.any() and np.isfinite(above.lse).all()
    below = attnc.dot_product_attention(*arrays, sink=-size, **EVERYTHING)
    assert_same(tuple(below), tuple(attnc.dot_product_attention(*arrays, **EVERYTHING)))


def test_takes_no_part_in_the_dtype(rng):
    arrays, _ = inputs("dot_product_attention", rng, np.float32)
    for kind in (np.float16, np.float32, np.float64):
        sink = np.array([0.25, -0.5], kind)
        context, pullback = attnc.vjp(attnc.dot_product_attention, *arrays, sink=sink)
        gradients = pullback(context)
        assert context.dtype == np.float32 and gradients.sink.dtype == kind
        assert_same(context, attnc.dot_product_attention(*arrays, sink=[0.25, -0.5]))
    _, pullback = attnc.vjp(attnc.dot_product_attention, *arrays, sink=0.25)
    with pytest.raises(AttributeError, match="no gradient of 'sink'"):  # a number is a constant
        _ = pullback(context).sink


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_same_bits_for_any_number_of_threads(sizes, threads, isa, rng):
    Tq, Tk = sizes
    arrays, own = inputs(
        "dot_product_attention", rng, np.float32, Tq=60 * Tq, Tk=Tk, D=40, Dv=40, leads=HEADS
    )
    own |= {"sink": np.float32(rng.standard_normal((1, 3))), "slope": np.float32([[1, 0.5, 0]])}
    d = incoming(rng, attnc.dot_product_attention(*arrays, **own, **EVERYTHING), np.float32)
    got = evaluate("dot_product_attention", arrays, own, d)
    with attnc.set_num_threads(1):
        assert_same(got, evaluate("dot_product_attention", arrays, own, d))
    plain = attnc.dot_product_attention(*arrays, **own)
    assert_same(plain, got[0].context)

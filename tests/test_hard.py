"""hard_attention: one key a query, and the gradient of its log-probability and entropy."""

import itertools
import pickle

import ml_dtypes
import numpy as np
import pytest
from arrays import LAYOUTS, OPTIONS, lay_out, options
from checks import (
    assert_agree,
    assert_agree_together,
    assert_close_like_naive,
    assert_same,
    assert_unchanged,
    run_out_of_memory,
    wider,
)

import attnc
from attnc import _core, reference

# One tile and several, of queries and of keys; odd and even widths.
SIZES = [(5, 7, 3), (1, 1, 1), (3, 64, 16), (17, 65, 5), (40, 700, 8), (2, 1300, 33)]
KINDS = [name for name in OPTIONS if "sink" not in name and name != "dropout"]


def inputs(rng, dtype=np.float64, Tq=5, Tk=7, Dv=3, lead=(2,), scale=2.0):
    scores, value = rng.standard_normal((*lead, Tq, Tk)), rng.standard_normal((*lead, Tk, Dv))
    return (scale * scores).astype(dtype), value.astype(dtype)


def of_kind(name, rng, dtype=np.float64, Tq=5, Tk=7, lead=(2,)):
    found = options(name, rng, dtype, Tq=Tq, Tk=Tk, leads=(lead, lead))
    return {key: x for key, x in found.items() if key not in ("sink", "dropout", "rng")}


def incoming(rng, result, dtype=np.float64):
    arrays = result.context, result.log_probability, result.entropy
    return [rng.standard_normal(x.shape).astype(dtype) for x in arrays]


# ---- forward and backward against the reference --------------------------------------------------


@pytest.mark.parametrize("how", [{"rng": 2**63 + 5}, {"sample": False}], ids=["sampled", "largest"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_option(kind, how, rng):
    scores, value = inputs(rng)
    own = of_kind(kind, rng)
    with assert_unchanged(scores, value, own):
        got, pullback = attnc.vjp(attnc.hard_attention, scores, value, **how, **own)
    exact, exact_pullback = reference.vjp(reference.hard_attention, scores, value, **how, **own)
    np.testing.assert_array_equal(got.index, exact.index)
    for field in ("context", "log_probability", "entropy"):
        assert_agree(getattr(got, field), getattr(exact, field), field)
    assert_same(tuple(attnc.hard_attention(scores, value, **how, **own)), tuple(got))
    d = incoming(rng, got)
    for given in itertools.product(*[(x, None) for x in d]):
        if any(x is not None for x in given):
            assert_agree_together(vars(pullback(*given)), vars(exact_pullback(*given)), kind)


@pytest.mark.parametrize("Tq, Tk, Dv", SIZES)
def test_sizes_and_dtypes(Tq, Tk, Dv, dtype, isa, rng):
    """Within twice the error of the plain formula in the same dtype."""
    scores, value = inputs(rng, dtype, Tq, Tk, Dv)
    mask = rng.random((2, Tq, Tk)) < 0.8
    result, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=3, mask=mask)
    d = incoming(rng, result, dtype)
    got = {**result._asdict(), **vars(pullback(*d))}
    how = {"index": result.index, "mask": mask}
    plain = {}
    for name, kind in (("naive", dtype), ("exact", wider(dtype))):
        output, back = reference.vjp(
            reference.hard_attention, scores, value, **how, dtype=np.dtype(kind).type
        )
        plain[name] = {**output._asdict(), **vars(back(*d))}
    for field, x in got.items():
        if field == "index":
            continue
        assert x.dtype == dtype and x.flags.c_contiguous and x.flags.writeable, field
        terms = np.abs(d[1]).max() + np.abs(d[2]).max() if field == "scores" else 10.0
        exact, naive = plain["exact"][field], plain["naive"][field]
        assert_close_like_naive(x, exact, naive, terms, what=field)
    assert result.index.dtype == np.int64


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_halves(half, rng):
    """Stored as they are, computed in float32; the context is a value, bit for bit."""
    scores, value = inputs(rng, half, Tk=70)
    result, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=1)
    wide = attnc.hard_attention(scores.astype(np.float32), value.astype(np.float32), rng=1)
    assert result.context.dtype == half and result.log_probability.dtype == np.float32
    assert_same(result.context, np.take_along_axis(value, result.index[..., None], 1))
    for field in ("index", "log_probability", "entropy"):
        assert_same(getattr(result, field), getattr(wide, field), field)
    dscores, dvalue = pullback(*incoming(rng, result, half))
    assert dscores.dtype == dvalue.dtype == half


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, rng):
    scores, value = inputs(rng)
    index = rng.integers(0, 7, (2, 5))
    d = incoming(rng, attnc.hard_attention(scores, value))
    arrays = scores, value, rng.standard_normal((2, 5, 7)), index, *d
    if layout == "repeated":
        arrays = [x if x is index else lay_out(layout, x) for x in arrays]
    plain = [np.array(x) for x in arrays]
    laid_out = [x if x is index else lay_out(layout, x) for x in arrays]
    laid_out[3] = lay_out("sliced" if layout == "repeated" else layout, index)
    found = []
    for scores, value, bias, index, *d in (plain, laid_out):
        result, pullback = attnc.vjp(attnc.hard_attention, scores, value, index=index, bias=bias)
        found.append((tuple(result), vars(pullback(*d))))
    assert_same(*found)


def test_leading_axes_broadcast(rng):
    scores, value = rng.standard_normal((2, 1, 5, 7)), rng.standard_normal((1, 3, 7, 4))
    bias, slope = rng.standard_normal((1, 3, 1, 7)), rng.standard_normal((2, 1))
    own = {"bias": bias, "slope": slope, "softcap": 1.5, "rng": 4}
    result, pullback = attnc.vjp(attnc.hard_attention, scores, value, **own)
    exact, exact_pullback = reference.vjp(reference.hard_attention, scores, value, **own)
    assert result.index.shape == (2, 3, 5)
    np.testing.assert_array_equal(result.index, exact.index)
    d = incoming(rng, result)
    for field, gradient in vars(pullback(*d)).items():
        assert_agree(gradient, getattr(exact_pullback(*d), field), field)


def test_gradients_by_differences(rng):
    scores, value = inputs(rng)
    own = {"softcap": 2.0, "mask": rng.random((2, 5, 7)) < 0.8}
    index = attnc.hard_attention(scores, value, rng=0, **own).index
    arrays = scores, value, rng.standard_normal((2, 1, 7)), rng.standard_normal(2)

    def f(scores, value, bias, slope):
        result = attnc.hard_attention(scores, value, bias=bias, slope=slope, index=index, **own)
        return result.context, result.log_probability, result.entropy

    _, pullback = attnc.vjp(
        attnc.hard_attention, *arrays[:2], bias=arrays[2], slope=arrays[3], index=index, **own
    )

    def backward(*d):
        gradients = pullback(*d)
        return [gradients[name] for name in ("scores", "value", "bias", "slope")]

    attnc.check_gradients(f, backward, *arrays)


# ---- the choice ----------------------------------------------------------------------------------


def test_by_hand():
    """Weights 1/2, 1/4, 1/4: entropy 3/2 log 2."""
    scores, value = np.log([[0.5, 0.25, 0.25]]) + 3, np.array([[1.0], [2.0], [4.0]])
    result, pullback = attnc.vjp(attnc.hard_attention, scores, value, index=[1])
    assert result.context == 2 and result.index == 1
    np.testing.assert_allclose(result.log_probability, -2 * np.log(2), rtol=1e-15)
    np.testing.assert_allclose(result.entropy, 1.5 * np.log(2), rtol=1e-15)
    dscores, dvalue = pullback(np.ones((1, 1)), np.ones(1), np.zeros(1))
    np.testing.assert_allclose(dscores, [[-0.5, 0.75, -0.25]], rtol=1e-15)
    np.testing.assert_array_equal(dvalue, [[0], [1], [0]])
    # dH/ds_j = -w_j (log w_j + H)
    expected = -np.array([0.5, 0.25, 0.25]) * (np.log([0.5, 0.25, 0.25]) + 1.5 * np.log(2))
    np.testing.assert_allclose(pullback(dentropy=np.ones(1)).scores, [expected], rtol=1e-14)


def test_draws_come_as_often_as_their_weights(dtype):
    """Pearson's chi-squared over 40000 draws of 9 keys: at most its 0.999 quantile, 26.12."""
    count, scores = 40000, np.linspace(-2, 1, 9)
    rows = np.broadcast_to(scores.astype(dtype), (4, count // 4, 9))
    index = attnc.hard_attention(rows, np.zeros((4, 9, 1), dtype), rng=11).index
    expected = count * np.exp(scores) / np.exp(scores).sum()
    got = np.bincount(index.reshape(-1), minlength=9)
    assert ((got - expected) ** 2 / expected).sum() < 26.12
    # and neighbours are independent: pairs of draws, 81 cells, 80 degrees of freedom
    first, second = index.reshape(-1, 2).T
    pairs = np.bincount(9 * first + second, minlength=81)
    expected = np.outer(expected, expected).reshape(-1) / (2 * count)
    assert ((pairs - expected) ** 2 / expected).sum() < 124.84


def test_seeds(rng):
    scores, value = inputs(rng, Tq=50, Tk=20)

    def index(rng):
        return attnc.hard_attention(scores, value, rng=rng).index

    assert_same(index(5), index(5))
    assert (index(5) != index(6)).any() and (index(None) != index(None)).any()
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    assert_same(index(one), index(other))
    assert (index(one) != index(np.random.default_rng(3))).any(), "a generator goes on"
    assert_same(index(np.uint64(2**64 - 1)), index(2**64 - 1))
    before = one.bit_generator.state
    attnc.hard_attention(scores, value, rng=one, sample=False)
    attnc.hard_attention(scores, value, rng=one, index=index(1))
    assert one.bit_generator.state == before, "nothing was drawn"


def test_the_key_is_not_that_of_dropout(rng):
    """The same rng= for dropout elsewhere: draws do not follow what is dropped."""
    rows = np.zeros((4000, 1, 2))
    second = attnc.hard_attention(rows, np.zeros((4000, 2, 1)), rng=8).index[:, 0]
    kept = attnc.attend(rows, np.ones((4000, 2, 1)) * [[0.0], [1.0]], dropout=0.5, rng=8)[:, 0, 0]
    assert abs(np.corrcoef(second, kept)[0, 1]) < 4 / np.sqrt(4000)


def test_same_choice_in_both_dtypes(rng):
    scores, value = inputs(rng, np.float32, Tq=100, Tk=300)
    narrow = attnc.hard_attention(scores, value, rng=0).index
    wide = attnc.hard_attention(scores.astype(np.float64), value.astype(np.float64), rng=0).index
    assert (narrow == wide).mean() >= 0.99


@pytest.mark.parametrize("kind", ["none", "everything", "window"])
def test_same_bits_for_any_number_of_threads(kind, threads, rng):
    sizes = {"Tq": 130, "Tk": 700, "lead": (3,)}
    scores, value = inputs(rng, np.float32, Dv=20, **sizes)
    own = of_kind(kind, rng, np.float32, **sizes)
    result, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=9, **own)
    d = incoming(rng, result, np.float32)
    got = tuple(result), vars(pullback(*d))
    with attnc.set_num_threads(1):
        result, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=9, **own)
        assert_same(got, (tuple(result), vars(pullback(*d))))


@pytest.mark.parametrize("Tk", [1, 5, 63, 64, 65, 200, 900])
def test_what_has_no_weight_is_never_drawn(Tk, dtype, isa, rng):
    """Masked keys, scores of -inf, and weights that are 0 because they are too small."""
    scores = np.full((1, 500, Tk), -1e4, dtype)
    some = rng.random((1, 500, Tk)) < min(1, 3 / Tk)
    scores[some] = rng.standard_normal(some.sum())
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    mask = rng.random(scores.shape) < 0.7
    top = np.where(mask, scores, -np.inf).max(-1)
    index = attnc.hard_attention(scores, np.zeros((1, Tk, 1), dtype), rng=5, mask=mask).index
    chosen = np.take_along_axis(scores, np.maximum(index, 0)[..., None], -1)[..., 0]
    assert (
        np.take_along_axis(mask, np.maximum(index, 0)[..., None], -1)[..., 0] | (index < 0)
    ).all()
    np.testing.assert_array_equal(index == -1, top == -np.inf)
    assert (chosen[index >= 0] > top[index >= 0] - 100).all()


def test_the_largest_is_the_first_of_equals(rng):
    scores = rng.integers(0, 3, (2, 40, 70)).astype(float)
    mask = rng.random(scores.shape) < 0.5
    result = attnc.hard_attention(scores, np.zeros((2, 70, 1)), sample=False, mask=mask)
    np.testing.assert_array_equal(result.index, np.where(mask, scores, -1).argmax(-1))


def test_log_probability_of_a_weight_that_underflows(dtype):
    scores, value = np.array([[0.0, -2000.0, 1.0]], dtype), np.eye(3, dtype=dtype)
    result, pullback = attnc.vjp(attnc.hard_attention, scores, value, index=[1])
    expected = -2000 - np.log(1 + np.exp(1))
    np.testing.assert_allclose(result.log_probability, expected, rtol=1e-6)
    np.testing.assert_allclose(result.entropy, 0.582203, rtol=1e-5)
    dscores, _ = pullback(dlog_probability=np.ones(1), dentropy=np.ones(1))
    assert np.isfinite(dscores).all() and dscores[0, 1] == 1


def test_forced_choices(rng):
    scores, value = inputs(rng)
    mask = rng.random((2, 5, 7)) < 0.6
    mask[1, 2] = False
    drawn, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=2, mask=mask)
    replayed, again = attnc.vjp(attnc.hard_attention, scores, value, index=drawn.index, mask=mask)
    assert_same(tuple(replayed), tuple(drawn))
    d = incoming(rng, drawn)
    assert_same(vars(again(*d)), vars(pullback(*d)))
    by_query = attnc.hard_attention(scores, value, index=[[0, 1, 2, 3, 4]])
    assert_same(by_query.index, np.broadcast_to(np.arange(5), (2, 5)).copy())
    assert_same(by_query.context, value[:, :5].copy())
    total = sum(
        np.exp(attnc.hard_attention(scores, value, index=[[k]]).log_probability) for k in range(7)
    )
    np.testing.assert_allclose(total, 1, rtol=1e-14)


# ---- local: in proportion to softmax times Gaussian ----------------------------------------------


def windows(center, Tk, left, right, sigma):
    """The mask and the bias that say what a center says."""
    ahead = np.arange(Tk) - np.floor(center)[..., None]
    distance = np.arange(Tk) - center[..., None]
    return (-left <= ahead) & (ahead <= right), -(distance**2) / (2 * sigma**2)


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("Tk", [9, 700])
def test_center(Tk, renormalize, rng):
    """One distribution, renormalised or not; as a mask and a bias say it, forward and backward."""
    scores, value = inputs(rng, Tq=20, Tk=Tk)
    center = rng.uniform(-8, Tk + 8, (2, 20))
    center[0, :2] = -20, Tk + 20
    mask, bias = windows(center, Tk, 4, 3, 2.0)
    own = {"center": center, "window": (4, 3), "sigma": 2.0, "renormalize": renormalize}
    got, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=1, **own)
    same, same_pullback = attnc.vjp(
        attnc.hard_attention, scores, value, rng=1, mask=mask, bias=bias
    )
    assert_same(got.index, same.index)
    assert_same(got.context, same.context)
    assert (got.index == -1).any() and (got.index >= 0).any()
    for field in ("log_probability", "entropy"):
        assert_agree(getattr(got, field), getattr(same, field), field)
    d = incoming(rng, got)
    gradients, expected = pullback(*d), same_pullback(*d)
    assert_agree(gradients.scores, expected.scores)
    assert_same(gradients.value, expected.value)
    distance = np.arange(Tk) - center[..., None]
    assert_agree(gradients.center, (expected.bias * distance).sum(-1) / 2.0**2)


def test_a_center_that_is_nan(rng):
    """Its row has no probabilities, unless nothing else is allowed."""
    scores, value = inputs(rng)
    center = np.array([[0.0, np.nan, 3.0, np.inf, np.nan]])
    mask = np.ones((1, 5, 1), bool)
    mask[0, 4] = False
    result = attnc.hard_attention(scores, value, center=center, window=(2, 2), mask=mask, rng=0)
    np.testing.assert_array_equal(result.index[:, [1, 3, 4]], -1)
    assert np.isnan(result.log_probability[:, 1]).all() and np.isnan(result.context[:, 1]).all()
    assert not result.entropy[:, 3:].any() and not result.context[:, 3:].any()
    assert (result.index[:, [0, 2]] >= 0).all()


# ---- rows without a choice, and what is not finite -----------------------------------------------


@pytest.mark.parametrize("how", [{"rng": 0}, {"sample": False}, {"index": -np.ones((1, 1), int)}])
def test_nothing_allowed(how, dtype, rng):
    """By a mask, by scores of -inf, as padding, without keys."""
    scores, value = inputs(rng, dtype)
    cases = [
        (scores, value, {"mask": np.zeros((1, 1, 1), bool)}),
        (scores, value, {"key_lengths": 0}),
        (scores, value, {"query_lengths": 0}),
        (np.full_like(scores, -np.inf), value, {}),
        (scores[..., :0], value[:, :0], {}),
    ]
    for scores, value, own in cases:
        result, pullback = attnc.vjp(attnc.hard_attention, scores, value, **how, **own)
        assert (result.index == -1).all()
        assert not any(x.any() for x in (result.context, result.log_probability, result.entropy))
        d = incoming(rng, result, dtype)
        assert not any(x.any() for x in pullback(*d))


def test_empty_arrays():
    for lead, Tq, Tk, Dv in [((0,), 3, 4, 2), ((2,), 0, 4, 2), ((2,), 3, 4, 0), ((), 0, 0, 0)]:
        scores, value = np.zeros((*lead, Tq, Tk)), np.zeros((*lead, Tk, Dv))
        result, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=0)
        assert result.context.shape == (*lead, Tq, Dv) and result.index.shape == (*lead, Tq)
        if Tk:
            np.testing.assert_allclose(result.entropy, np.log(4))
        dscores, dvalue = pullback(result.context, np.ones(result.index.shape))
        assert dscores.shape == scores.shape and dvalue.shape == value.shape


@pytest.mark.parametrize("poison", [np.nan, np.inf], ids=str)
def test_a_row_that_is_not_finite(poison, dtype, isa, rng):
    """It has no probabilities, and the others know nothing of it."""
    scores, value = inputs(rng, dtype, Tk=70)
    clean, clean_pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=1)
    scores = scores.copy()
    scores[0, 2, 66] = poison
    result, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=1)
    assert result.index[0, 2] == -1
    for x in (result.context, result.log_probability, result.entropy):
        assert np.isnan(x[0, 2]).all()
    rest = np.ones((2, 5), bool)
    rest[0, 2] = False
    for x, y in zip(result, clean, strict=True):
        assert_same(x[rest], y[rest])
    replayed = attnc.hard_attention(scores, value, index=result.index)
    assert_same(tuple(replayed), tuple(result))
    d = incoming(rng, result, dtype)
    gradients, clean_gradients = pullback(*d), clean_pullback(*d)
    assert np.isnan(gradients.scores[0, 2]).all()
    assert_same(gradients.scores[rest], clean_gradients.scores[rest])
    assert np.isfinite(gradients.value).all()
    assert not np.isnan(pullback(d[0]).scores).any(), "the scores have no part in it"
    forced = attnc.hard_attention(scores, value, index=[[3]])
    assert_same(forced.context[0, 2], value[0, 3])
    assert np.isnan(forced.log_probability[0, 2])
    assert not attnc.hard_attention(scores, value, sample=False).index[0, 2] >= 0


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf], ids=str)
def test_what_is_masked_is_not_read(poison, dtype, isa, rng):
    """Scores, values, bias and incoming gradients of what is excluded."""
    scores, value = inputs(rng, dtype, Tq=20, Tk=70)
    bias = rng.standard_normal((2, 20, 70)).astype(dtype)
    mask = rng.random((2, 20, 70)) < 0.7
    mask[:, :, 5] = False
    own = {"mask": mask, "rng": 3, "query_lengths": [20, 11], "softcap": 3.0}
    result, pullback = attnc.vjp(attnc.hard_attention, scores, value, bias=bias, **own)
    d = incoming(rng, result, dtype)
    clean = tuple(result), vars(pullback(*d))
    allowed = mask.copy()
    allowed[1, 11:] = False
    scores, bias = (np.where(allowed, x, dtype(poison)) for x in (scores, bias))
    value = value.copy()
    value[:, 5] = poison
    for x in d:
        x[1, 11:] = poison
    result, pullback = attnc.vjp(attnc.hard_attention, scores, value, bias=bias, **own)
    assert_same((tuple(result), vars(pullback(*d))), clean)


def test_a_value_that_was_not_chosen_is_not_read(rng):
    scores, value = inputs(rng)
    result = attnc.hard_attention(scores, value, rng=1)
    chosen = np.zeros((2, 7), bool)
    np.put_along_axis(chosen, result.index, True, 1)
    value[~chosen] = np.nan
    assert_same(attnc.hard_attention(scores, value, rng=1).context, result.context)
    dcontext = np.full((2, 5, 3), np.nan)
    _, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=1)
    dscores, dvalue = pullback(dcontext)
    assert not dscores.any()
    np.testing.assert_array_equal(np.isnan(dvalue).any(-1), chosen)


# ---- REINFORCE: the mean over all choices is the exact gradient ----------------------------------


def reward_of(context):
    """A number for each batch element that no sum over queries gives."""
    return np.sin(context).prod(axis=(-2, -1)) + (context[..., 0, :] * context[..., -1, :]).sum(-1)


def dreward_of(context, step=1e-6):
    """By central differences: the reward knows nothing of attention."""
    d = np.zeros_like(context)
    for place in np.ndindex(context.shape[1:]):
        moved = np.zeros(context.shape[1:])
        moved[place] = step
        d[(slice(None), *place)] = (reward_of(context + moved) - reward_of(context - moved)) / (
            2 * step
        )
    return d


@pytest.mark.parametrize("baseline", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["none", "mask", "bias", "slope", "softcap", "causal from key 0"])
def test_the_estimator_is_exact_on_average(kind, baseline, rng):
    """Three queries at once, 4^3 choices, each with its probability; two batch elements."""
    Tq, Tk = 3, 4
    scores, value = inputs(rng, Tq=Tq, Tk=Tk, Dv=2)
    own = of_kind(kind, rng, Tq=Tq, Tk=Tk)
    if "mask" in own:
        own["mask"][..., 1] = True
    allowed = attnc.attend(scores, value, return_weights=True, **own).weights[:] > 0
    estimate, mean_reward, rewards = {}, np.zeros(2), {}
    for choice in itertools.product(range(Tk), repeat=Tq):
        possible = allowed[:, range(Tq), choice].all(-1)
        if not possible.any():
            continue
        index = np.where(possible[:, None], choice, allowed.argmax(-1))
        result, pullback = attnc.vjp(attnc.hard_attention, scores, value, index=index, **own)
        reward = reward_of(result.context)
        probability = possible * np.exp(result.log_probability.sum(-1))
        mean_reward += probability * reward
        rewards[choice] = np.where(possible, reward, 0)
        dlog = np.broadcast_to((probability * (reward - baseline))[:, None], (2, Tq))
        dcontext = probability[:, None, None] * dreward_of(result.context)
        for name, gradient in vars(pullback(dcontext, dlog)).items():
            estimate[name] = estimate.get(name, 0) + gradient

    def expected_reward(scores, **moved):
        """sum over choices of the product of weights times the reward, by other means."""
        weights = attnc.attend(scores, value, return_weights=True, **own | moved).weights
        return sum(
            (weights[:, range(Tq), choice].prod(-1) * reward).sum()
            for choice, reward in rewards.items()
        )

    np.testing.assert_allclose(expected_reward(scores), mean_reward.sum(), rtol=1e-13)
    # the exact gradient of sum_c prod_i w_i,c_i r_c, through the backward pass of soft attention
    output, back = attnc.vjp(attnc.attend, scores, value, return_weights=True, **own)
    dweights = np.zeros_like(output.weights)
    for choice, reward in rewards.items():
        for i in range(Tq):
            others = [k for k in range(Tq) if k != i]
            product = output.weights[:, others, [choice[k] for k in others]].prod(-1)
            dweights[:, i, choice[i]] += product * reward
    exact = vars(back(dweights=dweights))
    for name in estimate.keys() - {"value"}:
        assert_agree(estimate[name], exact[name], name)

    def moved_value(step):
        moved, total = value + step, 0.0
        for choice in rewards:
            context = np.take_along_axis(moved, np.tile(choice, (2, 1))[..., None], 1)
            total += output.weights[:, range(Tq), choice].prod(-1) @ reward_of(context)
        return total

    for place in np.ndindex(value.shape):
        step = np.zeros_like(value)
        step[place] = 1e-6
        difference = (moved_value(step) - moved_value(-step)) / 2e-6
        np.testing.assert_allclose(estimate["value"][place], difference, rtol=1e-6, atol=1e-8)


# ---- the pullback, and wrong calls ---------------------------------------------------------------


def test_pullback(rng):
    scores, value = inputs(rng)
    result, pullback = attnc.vjp(attnc.hard_attention, value=value, scores=scores, rng=0)
    d = incoming(rng, result)
    before = vars(pullback(*d))
    for x in result:  # the caller may write to what it got
        x[...] = 0
    assert_same(vars(pullback(*d)), before, "second")
    assert_same(vars(pickle.loads(pickle.dumps(pullback))(*d)), before, "pickled")
    assert_same(vars(pullback(dentropy=d[2], dcontext=d[0], dlog_probability=d[1])), before)
    with pytest.raises(TypeError, match="pullback must get dcontext or dlog_probability or dent"):
        pullback()
    with pytest.raises(ValueError, match=r"dlog_probability must have the shape of log_prob.* \(5"):
        pullback(d[0], d[1][0])
    with pytest.raises(TypeError, match="dentropy must have a float dtype"):
        pullback(dentropy=np.ones((2, 5), int))


WRONG = {
    "rng of a float": ({"rng": 0.5}, TypeError, "rng must be None, a numpy.random.Generator or"),
    "rng below 0": ({"rng": -1}, ValueError, "rng must be .*, got -1"),
    "rng of a bool": ({"rng": True}, TypeError, "rng must be"),
    "sample": ({"sample": 1}, TypeError, "sample must be True or False, got 1"),
    "sink": ({"sink": 0.0}, TypeError, "there are no arguments dropout, sink"),
    "dropout": ({"dropout": 0.5}, TypeError, "there are no arguments dropout, sink"),
    "return_lse": ({"return_lse": True}, TypeError, "there are no arguments dropout, sink"),
    "unknown": ({"indices": [0]}, TypeError, "there is no argument 'indices'"),
    "offsets": ({"query_offsets": [0, 5]}, ValueError, "query_offsets must be None, for scores"),
    "floats": ({"index": np.zeros((2, 5))}, TypeError, "index must be None or an array of integ"),
    "bools": ({"index": np.zeros((2, 5), bool)}, TypeError, "got dtype bool"),
    "rank": ({"index": np.zeros(5, int)}, ValueError, r"index must have 2 axes .*index\[None, :\]"),
    "an int": ({"index": 0}, ValueError, r"index must have 2 axes \(..., Tq\) = \(2, 5\)"),
    "too large": ({"index": [[0, 7, 0, 0, 0]]}, ValueError, r"in 0..6, .*, got 7 at \(0, 1\)"),
    "huge": ({"index": np.full((1, 1), 2**64 - 1, np.uint64)}, ValueError, "must lie in 0..6"),
    "below -1": ({"index": np.full((1, 1), -2)}, ValueError, r"got -2 at \(0, 0\)"),
    "-1 with keys": ({"index": [[-1]]}, ValueError, r"or -1 where there is none, got -1 at \(0, 0"),
    "masked": ({"index": [[3]], "key_lengths": [4, 3]}, ValueError, r"attend.* got 3 at \(1, 0"),
    "center": ({"center": 1.0}, ValueError, "center must go with window="),
    "padding": ({"index": [[3]], "query_lengths": [5, 3]}, ValueError, r"got 3 at \(1, 3\)"),
    "masked array": ({"index": np.ma.zeros((2, 5), int)}, TypeError, "index"),
}  # fmt: skip


@pytest.mark.parametrize("wrong, kind, message", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize(
    "call", [attnc.hard_attention, lambda *a, **o: attnc.vjp(a[0], *a[1:], **o)]
)
def test_wrong_calls(call, wrong, kind, message, rng):
    arrays = inputs(rng)
    with pytest.raises(kind, match=f"^hard_attention: .*{message}"):
        if call is attnc.hard_attention:
            call(*arrays, **wrong)
        else:
            call(attnc.hard_attention, *arrays, **wrong)


def test_wrong_arrays(rng):
    scores, value = inputs(rng)
    for arrays, kind in [
        ((scores, value[0]), ValueError),
        ((scores, value[:, :3]), ValueError),
        ((scores[0, 0], value), ValueError),
        ((scores.astype(complex), value), TypeError),
        ((np.ma.masked_array(scores), value), TypeError),
        ((None, value), TypeError),
        ((scores.astype(object), value), TypeError),
    ]:
        with pytest.raises(kind, match="^hard_attention: "):
            attnc.hard_attention(*arrays)
    assert_same(
        attnc.hard_attention(scores.tolist(), value.tolist(), rng=0).index,
        attnc.hard_attention(scores, value, rng=0).index,
    )


def test_c_takes_nothing_on_trust(rng):
    """What backward gets in place of what was saved is looked at."""
    scores, value = inputs(rng)
    *_, saved = _core.hard_attention_saving(scores, value, True, None, 0)
    d = np.ones((2, 5, 3)), None, None
    own = scores, value, False, None, 0
    for k, wrong in itertools.product(range(3), (None, np.zeros(3), [1])):
        kept = [*saved]
        kept[k] = wrong
        with pytest.raises(ValueError, match="saved must be what the forward call saved"):
            _core.hard_attention_backward(*d, *kept, *own)
    far = np.full((2, 5), 2**62)
    assert not any(x.any() for x in _core.hard_attention_backward(*d, far, *saved[1:], *own)[:2]), (
        "out of range: nobody's key"
    )


def test_memory_runs_out_anywhere(rng):
    """At the first allocation, at the second, ...: MemoryError, and the next call is right."""
    scores, value = inputs(rng, np.float32, Tq=600, Tk=260, Dv=40, lead=(2,))
    bias = rng.standard_normal((1, 1, 260)).astype(np.float32)
    d = incoming(rng, attnc.hard_attention(scores, value), np.float32)

    def run():
        result, pullback = attnc.vjp(attnc.hard_attention, scores, value, bias=bias, rng=0)
        return tuple(result), vars(pullback(*d))

    expected = run()
    # contexts, scratch and both gradients
    got = run_out_of_memory(run, least=4)
    assert_same(got, expected)

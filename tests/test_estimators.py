"""attnc.estimators: baselines, REINFORCE, straight-through, Gumbel-softmax, and their errors."""

import copy
import pickle

import numpy as np
import pytest
from arrays import OPTIONS, options
from checks import assert_agree, assert_same, assert_unchanged, python

import attnc
from attnc import estimators
from attnc.functional.relaxed import gumbel_noise

KINDS = [name for name in OPTIONS if "sink" not in name and name != "dropout"]


def inputs(rng, dtype=np.float64, Tq=5, Tk=7, Dv=3, lead=(2,)):
    scores, value = rng.standard_normal((*lead, Tq, Tk)), rng.standard_normal((*lead, Tk, Dv))
    return (2 * scores).astype(dtype), value.astype(dtype)


def of_kind(name, rng, dtype=np.float64, Tq=5, Tk=7, lead=(2,)):
    found = options(name, rng, dtype, Tq=Tq, Tk=Tk, leads=(lead, lead))
    return {key: x for key, x in found.items() if key not in ("sink", "dropout", "rng")}


# ---- REINFORCE and its baselines -----------------------------------------------------------------


def test_reinforce_by_hand():
    scores, value = np.zeros((2, 2, 3)), np.zeros((2, 3, 1))
    mask = np.ones((2, 2, 3), bool)
    mask[1, 1] = False
    result = attnc.hard_attention(scores, value, rng=0, mask=mask)
    reward = np.array([[2.0], [4.0]])
    got = estimators.reinforce(result, reward, 1.0, reward_weight=0.5, entropy_weight=0.1)
    np.testing.assert_allclose(got.dlog_probability, [[-0.25, -0.25], [-0.75, 0]])
    np.testing.assert_allclose(got.dentropy, [[-0.05, -0.05], [-0.05, 0]])
    by_choice = np.array([[1.0, 2.0], [3.0, 4.0]])
    got = estimators.reinforce(result, by_choice, [[1.0], [2.0]], count=2)
    np.testing.assert_allclose(got.dlog_probability, [[0, -0.5], [-0.5, 0]])
    assert not got.dentropy.any()
    narrow = attnc.hard_attention(scores.astype(np.float32), value.astype(np.float32), rng=0)
    assert estimators.reinforce(narrow, reward).dlog_probability.dtype == np.float32


def test_entropy_is_pulled_up(rng):
    """Steps along dentropy alone make the weights even."""
    scores, value = inputs(rng, lead=())
    for _ in range(300):
        result, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=rng)
        zero = np.zeros((1,))
        gradients = estimators.reinforce(result, zero, entropy_weight=1.0, count=1)
        scores = scores - pullback(None, *gradients).scores
    np.testing.assert_allclose(result.entropy, np.log(7), atol=1e-3)


def test_moving_average():
    baseline = estimators.MovingAverageBaseline(0.75, initial=2)
    assert (
        baseline.value == 2 and repr(baseline) == "MovingAverageBaseline(decay=0.75, initial=2.0)"
    )
    assert baseline.update([4.0, 8.0]) == 3.0 == baseline.value
    assert baseline.update(np.float32(3)) == 3.0
    for wrong in ([], [np.nan], [np.inf, 1.0]):
        with pytest.raises(
            ValueError, match="MovingAverageBaseline.update: rewards must be finite"
        ):
            baseline.update(wrong)
    assert baseline.value == 3.0
    for decay in (1, -0.1, np.nan):
        with pytest.raises(ValueError, match="decay must lie in 0 <= decay < 1"):
            estimators.MovingAverageBaseline(decay)
    with pytest.raises(TypeError, match="decay must"):
        estimators.MovingAverageBaseline("0.9")


def test_leave_one_out(rng):
    rewards = rng.standard_normal((2, 5, 3))
    got = estimators.leave_one_out(rewards, axis=1)
    for m in range(5):
        np.testing.assert_allclose(got[:, m], np.delete(rewards, m, axis=1).mean(1), rtol=1e-12)
    assert estimators.leave_one_out(rewards.astype(np.float16)).dtype == np.float32
    assert_same(estimators.leave_one_out([1, 2]), np.array([2.0, 1.0]))
    for wrong, axis in (
        (rewards[:1], 0),
        (rewards, 3),
        (rewards, 0.5),
        (rewards, False),
        (np.float64(1), 0),
    ):
        with pytest.raises(ValueError, match="leave_one_out: "):
            estimators.leave_one_out(wrong, axis)


def test_learned_baseline(dtype, rng):
    """Its gradient by differences, and that regression finds the line."""
    baseline = estimators.LearnedBaseline(3, dtype=dtype)
    features, slope = rng.standard_normal((8, 4, 3)), np.array([1.0, -2.0, 0.5])
    rewards = features @ slope + 3
    optimizer = attnc.optim.Adam(baseline, 0.05)
    for _ in range(800):
        baseline.zero_grad()
        loss = baseline.fit(features, rewards)
        optimizer.step()
    assert loss < 1e-4
    np.testing.assert_allclose(baseline.parameters["weight"], slope, atol=0.02)
    np.testing.assert_allclose(baseline.parameters["bias"], 3, atol=0.02)
    assert baseline(features).shape == (8, 4) and baseline(features).dtype == dtype
    assert repr(baseline).startswith("LearnedBaseline(3") or "size=3" in repr(baseline)
    assert_same(copy.deepcopy(baseline)(features), baseline(features))
    for call in (lambda: baseline(features[..., :2]), lambda: baseline.fit(features, rewards[0])):
        with pytest.raises(ValueError, match="^LearnedBaseline: "):
            call()
    assert baseline.fit(features[0, 0], rewards[0, 0]) < 1e-3
    with pytest.raises(ValueError, match="^LearnedBaseline: rewards must have shape"):
        baseline.fit(features[0, 0], rewards[0])
    with pytest.raises(ValueError, match="size must be"):
        estimators.LearnedBaseline(0)


def test_gradients_of_a_learned_baseline(rng):
    baseline = estimators.LearnedBaseline(3, dtype="float64")
    for x in baseline.parameters.values():
        x[...] = rng.standard_normal(x.shape)
    features, rewards = rng.standard_normal((5, 3)), rng.standard_normal(5)
    baseline.fit(features, rewards)
    for name, x in baseline.parameters.items():
        for place in np.ndindex(x.shape):
            found = []
            for step in (1e-6, -2e-6):
                x[place] += step
                found.append(((baseline(features) - rewards) ** 2).mean() / 2)
            x[place] += 1e-6
            difference = (found[0] - found[1]) / 2e-6
            np.testing.assert_allclose(baseline.gradients[name][place], difference, rtol=1e-7)
    _, pullback = attnc.vjp(baseline, features)
    attnc.check_gradients(baseline, lambda d: [pullback(d).features], features)


ONE = np.ones((2, 1))
# What is passed behind the result, None: no result.
WRONG_REINFORCE = {
    "no result": (None, {}, TypeError, "result must be what hard_attention returned"),
    "rank": ([np.ones(2)], {}, ValueError, r"reward must have 2 axes .*; write reward\[:, None\]"),
    "size": ([np.ones((2, 4))], {}, ValueError, r"= \(2, 5\), .*, got \(2, 4\)"),
    "baseline": ([ONE, np.ones(2)], {}, ValueError, "baseline must have"),
    "kind": ([ONE.astype(complex)], {}, TypeError, "reward must"),
    "weight": ([ONE], {"reward_weight": np.inf}, ValueError, "reward_weight must"),
    "entropy": ([ONE], {"entropy_weight": "1"}, TypeError, "entropy_weight must"),
    "count": ([ONE], {"count": 0}, ValueError, "count must be a number > 0"),
}


@pytest.mark.parametrize(
    "rest, keywords, kind, message", WRONG_REINFORCE.values(), ids=WRONG_REINFORCE
)
def test_wrong_calls_of_reinforce(rest, keywords, kind, message, rng):
    result = attnc.hard_attention(*inputs(rng), rng=0)
    arguments = [result.context, ONE] if rest is None else [result, *rest]
    with pytest.raises(kind, match=f"^reinforce: .*{message}"):
        estimators.reinforce(*arguments, **keywords)


# ---- straight-through ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_straight_through_is_its_surrogate(kind, rng):
    """What is computed is hard; the scores' gradient is soft attention's, the values' is hard's."""
    scores, value = inputs(rng)
    own = of_kind(kind, rng)
    with assert_unchanged(scores, value, own):
        got, pullback = attnc.vjp(estimators.straight_through, scores, value, rng=4, **own)
    hard, hard_back = attnc.vjp(attnc.hard_attention, scores, value, rng=4, **own)
    inside = {"renormalize": True} if "center" in own else {}
    context, soft_back = attnc.vjp(attnc.attend, scores, value, **own | inside)
    assert_same((got.context, got.index), (hard.context, hard.index))
    assert_same(tuple(estimators.straight_through(scores, value, rng=4, **own)), tuple(got))
    dcontext = rng.standard_normal(context.shape)
    expected = vars(soft_back(dcontext)) | {"value": hard_back(dcontext).value}
    assert_same(vars(pullback(dcontext)), expected)
    assert_same(vars(pickle.loads(pickle.dumps(pullback))(dcontext)), expected)


def test_straight_through_is_exact_where_the_loss_is_linear(rng):
    """Every draw gives the gradient of the mean loss: no bias and no variance."""
    scores, value = inputs(rng)
    dcontext = rng.standard_normal((2, 5, 3))
    _, back = attnc.vjp(attnc.attend, scores, value)
    for seed in range(5):
        _, pullback = attnc.vjp(estimators.straight_through, scores, value, rng=seed)
        assert_same(pullback(dcontext).scores, back(dcontext).scores)


# ---- Gumbel-softmax ------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "center" not in kind])
def test_gumbel_softmax_is_attention_over_noisy_logits(kind, hard, rng):
    """The same by `attend` over what comes before its softmax, with the noise, over temperature."""
    scores, value = inputs(rng)
    own, temperature = of_kind(kind, rng), 0.6
    how = {"temperature": temperature, "hard": hard, "rng": 12}
    with assert_unchanged(scores, value, own):
        got, pullback = attnc.vjp(estimators.gumbel_softmax, scores, value, **how, **own)
    logits = attnc.stages(attnc.attend, scores, value, **own).masked
    noisy = (logits + gumbel_noise(12, scores.shape)) / temperature
    masks = {name: own[name] for name in ("query_lengths",) if name in own}
    soft = attnc.attend(noisy, value, return_weights=True, **masks)
    if hard:
        some = soft.weights.any(-1, keepdims=True)
        one = (np.arange(7) == soft.weights.argmax(-1)[..., None]) & some
        assert_same(got.weights, one.astype(float))
        assert_agree(got.context, one @ value)
    else:
        assert_agree(got.weights, soft.weights)
        assert_agree(got.context, soft.context)
    assert_same(tuple(estimators.gumbel_softmax(scores, value, **how, **own)), tuple(got))
    # the gradient of the scores does not know `hard`; that of the values is of what is computed
    d = rng.standard_normal(got.context.shape), rng.standard_normal(got.weights.shape)
    gradients = pullback(d[0], dweights=d[1])
    _, relaxed = attnc.vjp(estimators.gumbel_softmax, scores, value, **how | {"hard": False}, **own)
    expected = vars(relaxed(d[0], dweights=d[1]))
    assert_same({k: x for k, x in vars(gradients).items() if k != "value"},
                {k: x for k, x in expected.items() if k != "value"})  # fmt: skip
    assert_agree(gradients.value, np.swapaxes(got.weights, -1, -2) @ d[0])


@pytest.mark.parametrize("sigma", [None, 1.5, np.inf], ids=str)
def test_center(sigma, rng):
    """The Gaussian is part of what is drawn from, at any temperature; centers have gradients."""
    scores, value = inputs(rng, Tk=9)
    center = rng.uniform(1, 8, (2, 5))
    ahead, distance = (np.arange(9) - x[..., None] for x in (np.floor(center), center))
    own = {"center": center, "window": (2, 3), "sigma": sigma}
    variance = (1.0 if sigma is None else sigma) ** 2
    same = {"mask": (ahead >= -2) & (ahead <= 3), "bias": -(distance**2) / (2 * variance)}
    how = {"temperature": 0.4, "rng": 3}
    got, pullback = attnc.vjp(estimators.gumbel_softmax, scores, value, **how, **own)
    expected, expected_pullback = attnc.vjp(estimators.gumbel_softmax, scores, value, **how, **same)
    assert_agree(got.weights, expected.weights)
    d = rng.standard_normal(got.context.shape)
    gradients, dbias = pullback(d), expected_pullback(d).bias
    dcenter = (dbias * distance).sum(-1) / variance
    np.testing.assert_allclose(gradients.center, dcenter, rtol=1e-9, atol=1e-14)

    got, pullback = attnc.vjp(estimators.straight_through, scores, value, rng=1, **own)
    expected, expected_pullback = attnc.vjp(
        estimators.straight_through, scores, value, rng=1, **same
    )
    assert_same(tuple(got), tuple(expected))
    dcenter = (expected_pullback(d).bias * distance).sum(-1) / variance
    np.testing.assert_allclose(pullback(d).center, dcenter, rtol=1e-9, atol=1e-14)


def test_gradients_of_gumbel_softmax_by_differences(rng):
    scores, value = rng.standard_normal((2, 1, 5, 7)), rng.standard_normal((1, 3, 7, 4))
    arrays = scores, value, rng.standard_normal((1, 3, 1, 7)), rng.standard_normal((2, 1))
    own = {"softcap": 2.0, "causal": True, "causal_offset": 1, "temperature": 0.7, "rng": 3}

    def f(scores, value, bias, slope):
        return tuple(estimators.gumbel_softmax(scores, value, bias=bias, slope=slope, **own))

    _, pullback = attnc.vjp(
        estimators.gumbel_softmax, *arrays[:2], bias=arrays[2], slope=arrays[3], **own
    )

    def backward(dcontext, dweights):
        gradients = pullback(dcontext, dweights=dweights)
        return [gradients[name] for name in ("scores", "value", "bias", "slope")]

    attnc.check_gradients(f, backward, *arrays)


def test_gumbel_draws_come_as_often_as_their_weights():
    """At any temperature the largest is a draw: chi-squared, 8 degrees of freedom, 0.999."""
    scores, count = np.linspace(-2, 1, 9), 20000
    rows = np.broadcast_to(scores, (count, 1, 9))
    got = estimators.gumbel_softmax(rows, np.zeros((count, 9, 1)), temperature=3, hard=True, rng=5)
    expected = count * np.exp(scores) / np.exp(scores).sum()
    assert ((got.weights.sum((0, 1)) - expected) ** 2 / expected).sum() < 26.12


def test_the_noise_depends_on_seed_and_place_alone(threads, dtype, rng):
    scores, value = inputs(rng, dtype, Tq=60, Tk=90)
    got = estimators.gumbel_softmax(scores, value, rng=7)
    with attnc.set_num_threads(1):
        assert_same(tuple(estimators.gumbel_softmax(scores, value, rng=7)), tuple(got))
    assert got.weights.dtype == dtype
    assert (estimators.gumbel_softmax(scores, value, rng=8).weights != got.weights).any()
    wide = estimators.gumbel_softmax(scores.astype(float), value.astype(float), rng=7)
    np.testing.assert_allclose(got.weights, wide.weights, atol=1e-5)
    one, other = np.random.default_rng(2), np.random.default_rng(2)
    assert_same(
        estimators.gumbel_softmax(scores, value, rng=one).weights,
        estimators.gumbel_softmax(scores, value, rng=other).weights,
    )
    assert one.bit_generator.state == other.bit_generator.state


def test_halves(rng):
    scores, value = inputs(rng, np.float16)
    bias = rng.standard_normal((2, 1, 7)).astype(np.float16)
    got, pullback = attnc.vjp(estimators.gumbel_softmax, scores, value, rng=1, bias=bias)
    assert got.context.dtype == got.weights.dtype == np.float16
    gradients = pullback(got.context)
    assert {x.dtype for x in vars(gradients).values()} == {np.dtype(np.float16)}
    got, pullback = attnc.vjp(estimators.straight_through, scores, value, rng=1, bias=bias)
    assert got.context.dtype == np.float16 and pullback(got.context).bias.dtype == np.float16


@pytest.mark.parametrize("function", [estimators.straight_through, estimators.gumbel_softmax])
def test_what_is_masked_is_not_read(function, rng):
    scores, value = inputs(rng)
    mask = rng.random((2, 5, 7)) < 0.6
    mask[:, 1] = False
    mask[:, :, 2] = False
    got, pullback = attnc.vjp(function, scores, value, mask=mask, rng=1)
    d = rng.standard_normal(got.context.shape)
    clean = got.context, vars(pullback(d))
    assert not got.context[:, 1].any()
    scores, value = np.where(mask, scores, np.nan), value.copy()
    value[:, 2] = np.nan
    d[:, 1] = np.nan
    got, pullback = attnc.vjp(function, scores, value, mask=mask, rng=1)
    assert_same((got.context, vars(pullback(d))), clean)


@pytest.mark.parametrize("function", [estimators.straight_through, estimators.gumbel_softmax])
@pytest.mark.parametrize("wrong", [
    {"sink": 1.0}, {"dropout": 0.1}, {"bias": np.zeros(7)}, {"mask": np.ones((5, 7), bool)},
    {"rng": -1}, {"rng": "1"}, {"rng": True}, {"query_offsets": [0, 5]}, {"causal": 1},
    {"return_weights": True}, {"unknown": 1}, {"bias": np.zeros((2, 5, 7), complex)},
], ids=str)  # fmt: skip
def test_wrong_calls(function, wrong, rng):
    arrays = inputs(rng)
    for call in (function, lambda *a, **o: attnc.vjp(function, *a, **o)):
        with pytest.raises((TypeError, ValueError), match=f"^{function.__name__}: "):
            call(*arrays, **wrong)
    with pytest.raises(ValueError, match=f"^{function.__name__}: value must have"):
        function(arrays[0], arrays[1][:, :3])
    _, pullback = attnc.vjp(function, *arrays)
    with pytest.raises(ValueError, match=f"^{function.__name__}: dcontext must have the shape"):
        pullback(np.ones(3))


def test_wrong_temperatures(rng):
    for temperature in (0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="gumbel_softmax: temperature must be a number in"):
            estimators.gumbel_softmax(*inputs(rng), temperature=temperature)
    with pytest.raises(TypeError, match="gumbel_softmax: temperature must"):
        estimators.gumbel_softmax(*inputs(rng), temperature=None)
    with pytest.raises(TypeError, match="gumbel_softmax: hard must be True or False"):
        estimators.gumbel_softmax(*inputs(rng), hard=1)


def test_empty_arrays():
    for lead, Tq, Tk, Dv in [((0,), 3, 4, 2), ((2,), 0, 4, 2), ((2,), 3, 0, 2), ((), 3, 4, 0)]:
        scores, value = np.zeros((*lead, Tq, Tk)), np.zeros((*lead, Tk, Dv))
        for function in (estimators.straight_through, estimators.gumbel_softmax):
            got, pullback = attnc.vjp(function, scores, value)
            assert got.context.shape == (*lead, Tq, Dv) and not got.context.any()
            assert pullback(got.context).scores.shape == scores.shape


def test_imported_when_first_used():
    assert python("import attnc, sys; print('attnc.estimators' in sys.modules)") == "False"
    assert python("import attnc; print(attnc.estimators.reinforce.__name__)") == "reinforce"


# ---- bias and variance ---------------------------------------------------------------------------

SCORES = np.array([[0.3, -0.8, 1.1, 0.0, 0.5]])
VALUE = np.array([[0.0, 1.0], [1.5, 0.2], [-1.0, 0.4], [0.3, -1.2], [2.0, 2.0]])
TARGET = np.array([[0.4, 0.3]])


def loss_of(context):
    """Not linear in the context, and some way from 0."""
    return 4 + ((context - TARGET) ** 2).sum(-1, keepdims=True)


def dloss_of(context):
    return 2 * (context - TARGET)


def exact_gradient():
    """sum_k w_k loss_k over all five keys, through the weights of soft attention."""
    _, pullback = attnc.vjp(attnc.attend, SCORES, VALUE, return_weights=True)
    return pullback(dweights=loss_of(VALUE)[:, 0][None]).scores


def reinforced(baseline):
    def estimate(rng):
        result, pullback = attnc.vjp(attnc.hard_attention, SCORES, VALUE, rng=rng)
        reward = -loss_of(result.context)[:, 0]
        return pullback(None, *estimators.reinforce(result, reward, baseline)).scores

    return estimate


def left_out(rng, draws=4):
    """The mean over several draws, each with the mean of the others for baseline."""
    scores, value = (np.broadcast_to(x, (draws, *x.shape)) for x in (SCORES, VALUE))
    result, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=rng)
    reward = -loss_of(result.context)[..., 0]
    gradients = estimators.reinforce(result, reward, estimators.leave_one_out(reward))
    return pullback(None, *gradients).scores.sum(0)


def through(function, **how):
    def estimate(rng):
        result, pullback = attnc.vjp(function, SCORES, VALUE, rng=rng, **how)
        return pullback(dloss_of(result.context)).scores

    return estimate


def test_bias_and_variance_of_every_estimator():
    exact, mean = exact_gradient(), -attnc.attend(SCORES, loss_of(VALUE))[0, 0]
    estimates = {
        "plain": reinforced(0.0),
        "mean": reinforced(mean),
        "left out": left_out,
        "straight": through(estimators.straight_through),
        "Gumbel, 1": through(estimators.gumbel_softmax, temperature=1.0),
        "Gumbel, 0.1": through(estimators.gumbel_softmax, temperature=0.1),
        "Gumbel, hard": through(estimators.gumbel_softmax, temperature=1.0, hard=True),
    }
    error = {
        name: estimators.gradient_error(estimate, exact, 2000, rng=1)
        for name, estimate in estimates.items()
    }
    for name in ("plain", "mean", "left out"):  # 3.2: chi-squared, four directions, 0.9999
        assert error[name].bias < 3.2 * error[name].standard_error, name
    for name in ("straight", "Gumbel, 1", "Gumbel, hard"):
        assert error[name].bias > 5 * error[name].standard_error, name
    assert error["mean"].variance < error["plain"].variance / 5
    assert error["left out"].variance < error["plain"].variance / 5
    assert error["straight"].variance < error["plain"].variance
    assert error["Gumbel, 0.1"].bias < error["Gumbel, 1"].bias / 2
    assert error["Gumbel, 0.1"].variance > 2 * error["Gumbel, 1"].variance
    np.testing.assert_allclose(error["plain"].length, np.sqrt((exact**2).sum()))


@pytest.mark.parametrize("baseline", [0.0, -6.0])
def test_variance_is_that_of_enumeration(baseline):
    """sum_k w_k |g_k - g|^2 over the five keys, against 4000 draws."""
    gradients, weights = [], []
    for k in range(5):
        result, pullback = attnc.vjp(attnc.hard_attention, SCORES, VALUE, index=[k])
        reward = -loss_of(result.context)[:, 0]
        gradients.append(pullback(None, *estimators.reinforce(result, reward, baseline)).scores)
        weights.append(np.exp(result.log_probability[0]))
    mean = np.einsum("k,kij->ij", weights, gradients)
    np.testing.assert_allclose(mean, exact_gradient(), rtol=1e-13)
    variance = np.einsum("k,kij->", weights, (np.array(gradients) - mean) ** 2)
    got = estimators.gradient_error(reinforced(baseline), mean, 4000, rng=0)
    np.testing.assert_allclose(got.variance, variance, rtol=0.1)


def test_wrong_calls_of_gradient_error():
    def right(rng):
        return np.zeros(2)

    for samples in (1, 2.0, True, None):
        with pytest.raises(ValueError, match="gradient_error: samples must be an integer >= 2"):
            estimators.gradient_error(right, np.zeros(2), samples)
    with pytest.raises(ValueError, match="gradient_error: an estimate must have the shape"):
        estimators.gradient_error(right, np.zeros(3), 2)
    with pytest.raises(TypeError, match="gradient_error: exact"):
        estimators.gradient_error(right, None, 2)

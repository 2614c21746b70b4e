"""The layer HardAttention: hard_attention over the scores of the attention layers."""

import copy

import numpy as np
import pytest
from checks import assert_agree, assert_same, assert_unchanged
from layer_checks import check_house, randomize

import attnc
from attnc import estimators

B, TQ, TK, DQ, DK, DV = 2, 3, 5, 7, 11, 13
SCORES = ("additive", "multiplicative", "dot", "cosine")
scores = pytest.mark.parametrize("score", SCORES)


def make(score, dtype="float64", **how):
    size = DQ if score in ("dot", "cosine") else DK
    return attnc.HardAttention(DQ, size, score=score, rng=0, dtype=dtype, **how)


def arrays(score, rng, lead=(B,)):
    size = DQ if score in ("dot", "cosine") else DK
    shapes = (*lead, TQ, DQ), (*lead, TK, size), (*lead, TK, DV)
    return [rng.standard_normal(shape) for shape in shapes]


def scores_of(layer, query, key):
    p = layer.attention.parameters
    if layer.score == "additive":
        weights = {name: p[name] for name in p if name != "score_vector"}
        return attnc.additive_scores(query, key, p["score_vector"], **weights)
    if layer.score == "multiplicative":
        return attnc.multiplicative_scores(query, key, p["weight"])
    if layer.score == "dot":
        return attnc.dot_product_scores(query, key, scale=1.0)
    return attnc.cosine_scores(query, key, scale=p["scale"])


def options(rng):
    return {
        "mask": rng.random((B, TQ, TK)) < 0.7,
        "bias": rng.standard_normal((B, 1, TK)),
        "slope": rng.standard_normal(B),
        "softcap": 2.0,
        "key_lengths": [5, 3],
    }


@scores
def test_is_the_function(score, rng):
    layer, own = randomize(make(score, soft_probability=0), rng), options(rng)
    query, key, value = arrays(score, rng)
    s = scores_of(layer, query, key)
    drawn = layer(query, key, value, train=True, rng=np.random.default_rng(4), **own)
    same = attnc.hard_attention(s, value, rng=np.random.default_rng(4), **own)
    assert_same(tuple(drawn), tuple(same))
    largest = layer(query, key, value, **own)
    assert_same(tuple(largest), tuple(attnc.hard_attention(s, value, sample=False, **own)))
    forced = layer(query, key, value, index=largest.index, train=True, **own)
    assert_same(tuple(forced), tuple(largest))


@pytest.mark.parametrize("soft", [False, True], ids=["drawn", "soft"])
@scores
def test_gradients(score, soft, rng):
    """Of all inputs, options and parameters by differences; a second pullback adds the same."""
    layer, own = randomize(make(score, soft_probability=1.0), rng), options(rng)
    inputs = arrays(score, rng)
    bias, slope = own.pop("bias"), own.pop("slope")
    own |= {"train": True}
    if not soft:
        own["index"] = layer(*inputs, bias=bias, slope=slope, mask=own["mask"], softcap=2.0,
                             key_lengths=[5, 3]).index  # fmt: skip
    names = list(layer.parameters)

    def f(query, key, value, bias, slope, *parameters):
        twin = copy.deepcopy(layer)
        for name, x in zip(names, parameters, strict=True):
            twin.parameters[name] = x
        result = twin(query, key, value, bias=bias, slope=slope, **own)
        return result.context, result.log_probability, result.entropy

    with assert_unchanged(inputs, own, layer.state_dict()):
        result, pullback = attnc.vjp(layer, *inputs, bias=bias, slope=slope, **own)
    assert (result.index == -1).all() == soft

    def backward(*d):
        layer.zero_grad()
        grads = pullback(*d)
        of_inputs = [grads[name] for name in ("query", "key", "value", "bias", "slope")]
        return of_inputs + [layer.gradients[name].copy() for name in names]

    given = [*inputs, bias, slope, *[layer.parameters[name].copy() for name in names]]
    attnc.check_gradients(f, backward, *given)
    d = [rng.standard_normal(x.shape) for x in (result[0], *result[2:])]
    once = backward(*d)[5:]
    pullback(*d)
    for name, x in zip(names, once, strict=True):
        assert_same(layer.gradients[name], 2 * x)


@scores
def test_soft_is_attention(score, rng):
    """By the coin in training, or by choice at evaluation; keys serve for values."""
    query, key, _ = arrays(score, rng)
    trained = make(score, soft_probability=1)
    asked = make(score, evaluation="soft")
    s = scores_of(trained, query, key)
    context, back = attnc.vjp(attnc.attend, s, key, key_lengths=[4, 0])
    for layer, how in ((trained, {"train": True}), (asked, {})):
        result, pullback = attnc.vjp(layer, query, key, key_lengths=[4, 0], **how)
        assert_same(result.context, context)
        assert (result.index == -1).all() and not result.log_probability.any()
        assert not result.entropy[1].any() and result.entropy[0].all()
        d = rng.standard_normal(context.shape)
        dquery, dkey = pullback(d, np.ones((B, TQ)))
        only, _ = pullback(d)
        assert_same(dquery, only)
        dvalue = back(d).value
        assert dkey.shape == key.shape and not np.array_equal(dkey, dvalue)
        zero, _ = pullback(None, np.ones((B, TQ)))
        assert not zero.any(), "nothing was drawn"


def test_one_coin_a_call(rng):
    """All of a batch, or nothing of it; as often as asked for: 400 calls, four deviations."""
    query, key, value = arrays("dot", rng, lead=(20,))
    layer = make("dot", soft_probability=0.3)
    coins = rng.spawn(1)[0]
    soft = [layer(query, key, value, train=True, rng=coins).index == -1 for _ in range(400)]
    assert all(x.all() or not x.any() for x in soft)
    share = np.mean([x.all() for x in soft])
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 400)
    assert_same(tuple(layer(query, key, value, train=True, rng=5)),
                tuple(layer(query, key, value, train=True, rng=5)))  # fmt: skip
    default = attnc.HardAttention(3, 3)
    assert default.soft_probability == 0.5 and default.evaluation == "largest"


@pytest.mark.parametrize("kind", ["lengths", "mask", "bias", "queries", "causal", "center", "both"])
@scores
def test_what_is_masked_is_not_read(score, kind, rng):
    """NaN in queries, keys and values of what is excluded."""
    layer = make(score)
    query, key, value = arrays(score, rng)
    mask = np.ones((B, TQ, TK), bool)
    mask[:, :, 3:] = False
    center = np.full((B, TQ), 1.5)
    own = {
        "lengths": {"key_lengths": 3},
        "mask": {"mask": mask},
        "bias": {"bias": np.where(mask, 0.5, -np.inf)},
        "queries": {"query_lengths": 2, "key_lengths": 3},
        "causal": {"causal": True, "causal_offset": 0},
        "center": {"center": center, "window": (1, 1), "sigma": 1.0},
        "both": {"center": 1.5, "window": (None, 1), "sigma": 1.0, "bias": np.zeros((1, 1, 1))},
    }[kind]

    def run(query, key, value):
        layer.zero_grad()
        result, pullback = attnc.vjp(layer, query, key, value, train=True, index=index, **own)
        d = [np.ones(x.shape) for x in (result[0], *result[2:])]
        return tuple(result), vars(pullback(*d)), dict(layer.gradients)

    index = layer(query, key, value, **own).index
    clean = copy.deepcopy(run(query, key, value))
    key[:, 3:] = value[:, 3:] = np.nan
    if kind == "queries":
        query[:, 2:] = np.nan
    assert_same(run(query, key, value), clean)


def test_leading_axes_broadcast(rng):
    layer = randomize(make("additive", soft_probability=0), rng)
    query, key = rng.standard_normal((1, 3, TQ, DQ)), rng.standard_normal((2, 1, TK, DK))
    value = rng.standard_normal((2, 3, TK, DV))
    mask = rng.random((2, 3, TQ, TK)) < 0.8
    result, pullback = attnc.vjp(layer, query, key, value, mask=mask, train=True, rng=3)
    assert result.index.shape == (2, 3, TQ)
    d = [rng.standard_normal(x.shape) for x in (result[0], *result[2:])]
    whole = [np.broadcast_to(x, (2, 3, *x.shape[2:])) for x in (query, key, value)]
    same, same_pullback = attnc.vjp(layer, *whole, mask=mask, train=True, index=result.index)
    assert_same(same.index, result.index)
    dquery, dkey, dvalue = pullback(*d)
    wide = same_pullback(*d)
    assert_agree(dquery, wide.query.sum(0, keepdims=True))
    assert_agree(dkey, wide.key.sum(1, keepdims=True))
    assert_agree(dvalue, wide.value)


@scores
def test_house(score, tmp_path, rng):
    check_house(make(score, dtype="float32", soft_probability=0.25, evaluation="soft"), tmp_path)
    layer = make(score, dtype="float32")
    inputs = [x.astype(np.float16) for x in arrays(score, rng)]
    result, pullback = attnc.vjp(layer, *inputs, train=True, rng=0)
    assert result.context.dtype == result.entropy.dtype == np.float32
    gradients = pullback(result.context, result.log_probability)
    assert {x.dtype for x in gradients} == {np.dtype(np.float16)}
    attnc.save(tmp_path / "model.npz", layer)
    assert_same(attnc.load(tmp_path / "model.npz").layer.state_dict(), layer.state_dict())


def test_reinforce_trains_it(rng):
    """Learns by rewards alone which key a query means."""
    size, keys = 8, 5
    layer = attnc.HardAttention(size, size, score="multiplicative", soft_probability=0, rng=1)
    optimizer, baseline = attnc.optim.Adam(layer, 0.02), estimators.MovingAverageBaseline()
    meaning = rng.standard_normal((size, size)).astype(np.float32)
    for _ in range(300):
        key = rng.standard_normal((64, keys, size)).astype(np.float32)
        wanted = rng.integers(0, keys, 64)
        query = (key[np.arange(64), wanted] @ meaning)[:, None]
        layer.zero_grad()
        result, pullback = attnc.vjp(layer, query, key, train=True, rng=rng)
        reward = (result.index[:, 0] == wanted).astype(np.float32)[:, None]
        pullback(None, *estimators.reinforce(result, reward, baseline.value))
        baseline.update(reward)
        optimizer.step()
    assert np.mean(layer(query, key).index[:, 0] == wanted) > 0.8 and baseline.value > 0.7


WRONG = {
    "score": ({"score": "general"}, ValueError, "score must be one of 'additive', 'multipl"),
    "score of None": ({"score": None}, TypeError, "score must be one of"),
    "score of numbers": ({"score": np.zeros(2)}, TypeError, "score must be one of"),
    "evaluation": ({"evaluation": "mean"}, ValueError, "evaluation must be one of 'largest', 's"),
    "coin": ({"soft_probability": 1.5}, ValueError, "soft_probability must lie in 0 <= soft"),
    "coin of a str": ({"soft_probability": "0"}, TypeError, "soft_probability must lie"),
    "hidden": ({"score": "dot", "hidden_size": 3}, ValueError, "hidden_size must be None with"),
    "sizes": ({"score": "cosine"}, ValueError, "key_size must be query_size with score='cosine'"),
    "no size": ({"hidden_size": -1}, ValueError, "hidden_size must be"),
    "dtype": ({"dtype": int}, TypeError, "dtype must be float32 or float64"),
}


@pytest.mark.parametrize("wrong, kind, message", WRONG.values(), ids=WRONG)
def test_wrong_constructors(wrong, kind, message):
    with pytest.raises(kind, match=f"^HardAttention: {message}"):
        attnc.HardAttention(3, 4, **wrong)


WRONG_CALLS = {
    "sink": ({"sink": 1.0}, TypeError, "HardAttention: there is no argument 'sink'"),
    "weights": ({"return_weights": True}, TypeError, "HardAttention: there is no argument"),
    "unknown": ({"lengths": 3}, TypeError, "HardAttention: there is no argument 'lengths'"),
    "center": ({"center": np.ones((3, 2)), "window": (1, 1)}, ValueError, "center must have"),
    "causal": ({"causal": np.zeros((2, 0))}, TypeError, "causal must be True or False"),
    "train": ({"train": 1}, TypeError, "HardAttention: train must be True or False"),
    "rng": ({"train": True, "rng": "x"}, TypeError, "HardAttention: rng must"),
    "offsets": ({"query_offsets": [0, 3]}, ValueError, "query_offsets must be None"),
    "mask": ({"mask": np.ones((TQ, TK), bool)}, ValueError, "mask must have 3 axes"),
    "mask of ints": ({"mask": np.ones((1, 1, 1), int)}, TypeError, "mask must be boolean"),
    "window": ({"center": 1.0, "window": 3}, TypeError, "window must be None or a pair"),
    "index": ({"index": np.full((B, TQ), TK)}, ValueError, "index must lie in 0..4"),
}


@pytest.mark.parametrize("wrong, kind, message", WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_wrong_calls(wrong, kind, message, rng):
    layer, inputs = make("additive"), arrays("additive", rng)
    with pytest.raises(kind, match=message):
        layer(*inputs, **wrong)
    with pytest.raises(ValueError, match="HardAttention: key must have shape"):
        layer(inputs[0], inputs[0])
    _, pullback = attnc.vjp(layer, *inputs)
    with pytest.raises(TypeError, match="HardAttention: pullback must get"):
        pullback()

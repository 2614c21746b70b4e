"""stages: the same attention unfused, every array of it by name, with its gradient."""

import copy
import functools
import pickle

import numpy as np
import pytest
from arrays import FUNCTIONS, OPTIONS, inputs, options
from checks import assert_agree, assert_same, assert_unchanged, incoming

import attnc

# STAGES are those that every function has.
STAGES = ("scores", "capped", "masked", "weights", "context")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_agrees_with_the_function(name, option, rng):
    arrays, own = inputs(name, rng)
    own |= options(option, rng)
    function = getattr(attnc, name)
    output, pullback = attnc.vjp(function, *arrays, **own, return_weights=True, return_lse=True)
    stages = attnc.stages(function, *arrays, **own)
    assert_agree(stages.context, output.context)
    assert_agree(stages.weights, output.weights)

    d = incoming(rng, output)
    expected, got = pullback(**d), stages.gradients(**d)
    for field, gradient in vars(expected).items():
        if not (name == "attend" and field == "scores"):
            assert_agree(getattr(got, field), gradient, field)


def test_what_each_stage_is(rng):
    arrays, _ = inputs("dot_product_attention", rng)
    bias = rng.standard_normal((2, 5, 7))
    s = attnc.stages(
        attnc.dot_product_attention, *arrays, scale=2, bias=bias, softcap=1.5, causal=True
    )
    query, key, value = arrays
    np.testing.assert_allclose(s.scores, 2 * query @ key.swapaxes(1, 2))
    np.testing.assert_allclose(s.capped, 1.5 * np.tanh(s.scores / 1.5))
    allowed = np.tri(5, 7, 2, bool)
    np.testing.assert_array_equal(s.masked, np.where(allowed, s.capped + bias, -np.inf))
    np.testing.assert_allclose(s.weights.sum(-1), 1)
    np.testing.assert_allclose(s.context, s.weights @ value)


def test_slope_and_sink(rng):
    (scores, value), _ = inputs("attend", rng)
    s = attnc.stages(attnc.attend, scores, value, slope=0.5, sink=1.0, bias=np.ones((1, 1, 1)))
    distance = np.abs(np.arange(7) - np.arange(5)[:, None] - 2)
    np.testing.assert_allclose(s.masked, scores - 0.5 * distance + 1)
    powers = np.exp(s.masked)
    np.testing.assert_allclose(s.weights, powers / (np.e + powers.sum(-1, keepdims=True)))
    assert s.formulas["masked"] == "l_ij = t_ij - slope |j - i - 2| + bias_ij: nothing is masked"
    assert "w_ij = exp(l_ij) / (exp(sink) + sum_j exp(l_ij))" in repr(s)


@pytest.mark.parametrize("stage", ["scores", "capped", "masked", "weights"])
def test_gradient_at_a_stage_by_differences(stage, rng):
    """Computed on from that stage, in a random direction of it."""
    arrays, _ = inputs("dot_product_attention", rng)
    s = attnc.stages(attnc.dot_product_attention, *arrays, softcap=1.5, causal=True)
    dcontext, t, h = rng.standard_normal((2, 5, 13)), rng.standard_normal((2, 5, 7)), 1e-6
    allowed = np.tri(5, 7, 2, bool)

    def on_from(step):
        x = {name: getattr(s, name) for name in STAGES}
        x[stage] = x[stage] + step * t
        if stage == "scores":
            x["capped"] = 1.5 * np.tanh(x["scores"] / 1.5)
        if stage in ("scores", "capped"):
            x["masked"] = np.where(allowed, x["capped"], -np.inf)
        if stage != "weights":
            powers = np.exp(x["masked"])
            x["weights"] = powers / powers.sum(-1, keepdims=True)
        return (dcontext * (np.where(allowed, x["weights"], 0) @ arrays[2])).sum()

    numeric = (on_from(h) - on_from(-h)) / (2 * h)
    analytic = (getattr(s.gradients(dcontext), stage) * t).sum()
    assert abs(numeric - analytic) < 1e-6


def test_dropout_is_that_of_the_function(rng):
    arrays, _ = inputs("attend", rng)
    given = {"dropout": 0.5, "rng": 7}
    s = attnc.stages(attnc.attend, *arrays, **given)
    assert_agree(s.context, attnc.attend(*arrays, **given))
    drawn = attnc.stages(attnc.attend, *arrays, dropout=0.5, rng=np.random.default_rng(1))
    same = attnc.attend(*arrays, dropout=0.5, rng=np.random.default_rng(1))
    assert_agree(drawn.context, same)
    assert "c_i = sum_j m_ij w_ij v_j" in repr(s)
    assert_agree(s.context, (s.kept * s.weights) @ arrays[1])


@pytest.mark.parametrize(
    ("dtype", "computed"),
    [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)],
)
def test_dtypes(dtype, computed, rng):
    arrays, _ = inputs("attend", rng, dtype)
    s = attnc.stages(attnc.attend, *arrays)
    for stage in STAGES:
        assert getattr(s, stage).dtype == computed, stage
        assert getattr(s.gradients(s.context), stage).dtype == computed, stage


@pytest.mark.parametrize("wrong", [attnc.vjp, attnc.merge_attention, np.tanh, 3, attnc.Linear])
def test_refuses_other_functions(wrong):
    with pytest.raises(TypeError, match="^stages: function must be one of dot_product_attention"):
        attnc.stages(wrong, np.eye(2), np.eye(2))


def test_errors_are_those_of_the_function():
    with pytest.raises(ValueError, match="^attend: value must have one row"):
        attnc.stages(attnc.attend, np.eye(2), np.eye(3))
    s = attnc.stages(attnc.attend, np.eye(2), np.eye(2))
    with pytest.raises(ValueError, match=r"gradients: dcontext must have shape \(2, 2\), got \(3"):
        s.gradients(np.eye(3))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_says_which_function_is_meant(name):
    plain = getattr(attnc.reference, name)
    partial = functools.partial(getattr(attnc, name), causal=True)
    for wrong in (plain, partial, name):
        with pytest.raises(TypeError, match=rf"^stages: .* got .*{name}.* \(pass attnc.{name}\b"):
            attnc.stages(wrong, np.eye(2), np.eye(2), np.eye(2))


LAYERS = {
    attnc.DotProductAttention: (),
    attnc.MultiplicativeAttention: (2, 2),
    attnc.AdditiveAttention: (2, 2, 2),
    attnc.CosineAttention: (),
    attnc.Linear: (2, 2),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_says_which_function_a_layer_calls(kind):
    layer = kind(*LAYERS[kind])
    meant = "the attention function that it calls, if any"
    if kind is not attnc.Linear:
        meant = f"attnc.{kind._function.__name__}"
    for wrong in (layer, kind, layer.__call__):
        with pytest.raises(TypeError, match=rf"got the layer {kind.__name__} \(pass {meant}, with"):
            attnc.stages(wrong, np.eye(2), np.eye(2), np.eye(2))


def stages_of_every_kind(rng):
    arrays, _ = inputs("dot_product_attention", rng)
    key_mask = rng.random((2, 7)) < 0.8
    given = {
        "scale": np.array(0.7),
        "key_mask": key_mask,
        "softcap": 2.0,
        "dropout": 0.3,
        "rng": rng,
    }
    return arrays, key_mask, attnc.stages(attnc.dot_product_attention, *arrays, **given)


def test_copies_and_pickles(rng):
    _, _, s = stages_of_every_kind(rng)
    gradients = s.gradients(s.context)
    for duplicate in (copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        again, dagain = duplicate(s), duplicate(gradients)
        assert type(again) is type(s) and repr(again) == repr(s)
        assert repr(dagain) == repr(gradients) == repr(again.gradients(again.context))
        for name in STAGES:
            assert_same(getattr(again, name), getattr(s, name))
            assert_same(getattr(dagain, name), getattr(gradients, name))


def test_nothing_that_is_written_changes_the_gradients(rng):
    arrays, key_mask, s = stages_of_every_kind(rng)
    dcontext = rng.standard_normal(s.context.shape)
    expected, shown = s.gradients(dcontext), repr(s)
    with assert_unchanged(arrays, key_mask, dcontext):
        again = s.gradients(dcontext)
        again.context[...] = again.masked[...] = 7
        assert_same(again.capped, expected.capped)
    for array in (*arrays, key_mask):
        array[...] = 0
    assert repr(s) == shown
    for name in STAGES:
        getattr(s, name)[...] = 0
        with pytest.raises(
            AttributeError, match=f"{name} of Stages of dot_product_attention cannot"
        ):
            setattr(s, name, dcontext)
        with pytest.raises(AttributeError, match=f"{name} of Gradients of dot_product_attention c"):
            setattr(expected, name, dcontext)
    again = s.gradients(dcontext)
    for name in (*STAGES, "query", "key", "value", "scale"):
        assert_same(getattr(again, name), getattr(expected, name))


def test_gradients_of_nothing():
    s = attnc.stages(attnc.attend, np.eye(2), np.eye(2))
    with pytest.raises(
        TypeError, match="^gradients: pullback must get dcontext or dweights or dlse"
    ):
        s.gradients()
    assert not s.gradients(dlse=np.zeros(2)).scores.any()


def test_formulas_say_which_gradients_were_given(rng):
    arrays, _ = inputs("attend", rng)
    s = attnc.stages(attnc.attend, *arrays)
    d = incoming(rng, attnc.attend(*arrays, return_weights=True, return_lse=True))
    said = {
        ("dcontext",): ("dc_i: given", "dw_ij = dc_i . v_j"),
        ("dweights",): ("dc_i = 0", "dw_ij = given"),
        ("dlse",): ("dc_i = 0", "dw_ij = 0"),
        ("dcontext", "dweights"): ("dc_i: given", "dw_ij = dc_i . v_j + given"),
    }
    for names, (context, weights) in said.items():
        formulas = s.gradients(**{name: d[name] for name in names}).formulas
        assert (formulas["context"], formulas["weights"]) == (context, weights)
        assert formulas["masked"].endswith("+ dlse_i)") == ("dlse" in names)
    sparse = attnc.stages(attnc.attend, *arrays, normalizer="sparsemax")
    with pytest.raises(ValueError, match="^gradients: dlse must be None with normalizer='sparsem"):
        sparse.gradients(dlse=d["dlse"])


@pytest.mark.parametrize(
    "name, shape", [("dcontext", (2, 3)), ("dweights", (2, 2)), ("dlse", (2,))]
)
def test_gradients_are_real_arrays(name, shape):
    s = attnc.stages(attnc.attend, np.eye(2), np.ones((2, 3)))
    x = np.ones(shape)
    for wrong in (np.ma.array(x), x > 0, 1j * x, x.astype(object), x.astype(str), "x", x == 1):
        with pytest.raises(TypeError, match=f"^gradients: {name} must be "):
            s.gradients(**{name: wrong})
    with pytest.raises(
        ValueError, match=rf"^gradients: {name} must have shape \({shape[0]}, ?.*got"
    ):
        s.gradients(**{name: x[:1]})
    expected = s.gradients(**{name: x})
    for same in (x.tolist(), x.astype(np.float16), x.astype(int), x.astype(">f4")):
        assert repr(s.gradients(**{name: same})) == repr(expected)


# ---- A layer with heads --------------------------------------------------------------------------

HEADS = {
    "plain": {},
    "groups": {"num_kv_heads": 2, "projection_bias": True, "normalize_qk": True},
    "rotary": {"num_kv_heads": 1, "rotary": True, "head_size": 2, "output_size": 5, "dropout": 0.3},
}


def layer_with_heads(kind, rng):
    layer = attnc.MultiHeadAttention(8, 4, dtype="float64", **HEADS[kind])
    for name, parameter in layer.parameters.items():
        layer.parameters[name] = parameter + 0.4 * rng.standard_normal(parameter.shape)
    return layer


@pytest.mark.parametrize("arrays", ["self", "memory", "three"])
@pytest.mark.parametrize("kind", HEADS)
def test_heads_agree_with_the_layer(kind, arrays, rng):
    layer = layer_with_heads(kind, rng)
    x, key, value = (rng.standard_normal((2, n, 8)) for n in (5, 7, 7))
    given = {"self": (x,), "memory": (x, key), "three": (x, key, value)}[arrays]
    Tk = 5 if arrays == "self" else 7
    own = {
        "causal": True,
        "softcap": 2.0,
        "bias": rng.standard_normal((2, 4, 5, Tk)),
        "key_lengths": [3, 5],
        "train": True,
        "rng": 3,
    }
    with assert_unchanged(given, own, layer.state_dict()):
        output, pullback = attnc.vjp(layer, *given, **own, return_weights=True, return_lse=True)
        s = attnc.stages(layer, *given, **own)
        assert_agree(s.output, output.context)
        assert_agree(s.weights, output.weights)
        d = {f"d{n}": rng.standard_normal(getattr(output, n).shape) for n in output._fields}
        expected = pullback(**d)
        got = s.gradients(d.pop("dcontext"), **d)
    of_inputs = {"query": got.query, "key": got.key, "value": got.value}
    if arrays != "three":
        of_inputs["key"] = of_inputs["key"] + of_inputs.pop("value")
    if arrays == "self":
        of_inputs["query"] = of_inputs["query"] + of_inputs.pop("key")
    for name, gradient in of_inputs.items():
        assert_agree(gradient, expected[name], name)
    assert_agree(got.bias, expected.bias)
    for name, gradient in layer.gradients.items():
        assert_agree(getattr(got, name), gradient, name)


def test_what_each_stage_of_heads_is(rng):
    layer = layer_with_heads("groups", rng)
    x, p = rng.standard_normal((2, 5, 8)), layer.parameters
    s = attnc.stages(layer, x, causal=True)
    q, k, v = (
        np.stack([x @ p[f"{n}_weight"][:, h] + p[f"{n}_bias"][h] for h in range(heads)], 1)
        for n, heads in (("query", 4), ("key", 2), ("value", 2))
    )
    q, k = (
        y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * p[f"{n}_scale"]
        for n, y in (("query", q), ("key", k))
    )
    assert_agree(s.queries, q)
    assert_agree(s.keys, k)
    assert_agree(s.values, v)
    k, v = (np.repeat(y, 2, axis=1) for y in (k, v))
    assert_agree(s.scores, q @ k.swapaxes(-1, -2) / np.sqrt(2))
    assert_same(s.masked == -np.inf, np.broadcast_to(~np.tri(5, dtype=bool), (2, 4, 5, 5)))
    assert_agree(s.contexts, s.weights @ v)
    for h in range(4):
        assert_same(s.merged[..., 2 * h : 2 * h + 2], s.contexts[:, h])
    assert_agree(s.output, s.merged @ p["output_weight"].reshape(8, 8) + p["output_bias"])

    doutput, h = rng.standard_normal(s.output.shape), 1e-6
    for stage in ("merged", "contexts", "weights", "values"):
        t = rng.standard_normal(getattr(s, stage).shape)

        def on_from(step, stage=stage, t=t):
            y = {n: getattr(s, n) for n in ("values", "weights", "contexts", "merged")}
            y[stage] = y[stage] + step * t
            if stage in ("values", "weights"):
                allowed = np.tri(5) * y["weights"]
                y["contexts"] = allowed @ np.repeat(y["values"], 2, axis=1)
            if stage != "merged":
                y["merged"] = np.moveaxis(y["contexts"], 1, 2).reshape(2, 5, 8)
            return (doutput * (y["merged"] @ p["output_weight"].reshape(8, 8))).sum()

        numeric = (on_from(h) - on_from(-h)) / (2 * h)
        analytic = (getattr(s.gradients(doutput), stage) * t).sum()
        assert abs(numeric - analytic) < 1e-6, stage


def test_stages_of_heads_are_a_table_of_their_own(rng):
    layer = layer_with_heads("groups", rng)
    x = rng.standard_normal((2, 5, 8))
    s = attnc.stages(layer, x)
    kept = {name: array.copy() for name, array in vars(s).items() if isinstance(array, np.ndarray)}
    for name in layer.parameters:
        layer.parameters[name] *= 0
    x[:] = 0
    for twin in (s, copy.deepcopy(s), pickle.loads(pickle.dumps(s))):
        assert_same({name: getattr(twin, name) for name in kept}, kept)
        assert twin.gradients(np.ones((2, 5, 8))).query.any()
    assert repr(s).startswith(
        "Stages of MultiHeadAttention\nprojected_queries  (2, 4, 5, 2)  x_hi = query_i W_"
    )
    assert "o_i = sum_h c_hi W_h^O + b" in s._repr_html_()
    with pytest.raises(AttributeError, match="output of Stages of MultiHeadAttention cannot be"):
        s.output = 0


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda layer, x: attnc.stages(layer, x[..., 1:]), ValueError, "query must have shape"),
        (lambda layer, x: attnc.stages(layer, x, masks=1), TypeError, "no argument 'masks'"),
        (
            lambda layer, x: attnc.stages(layer, x, cache=attnc.KVCache()),
            ValueError,
            "stages: cache must be None, got one",
        ),
        (lambda layer, x: attnc.stages(layer, x).gradients(), TypeError, "must get doutput or dwe"),
        (
            lambda layer, x: attnc.stages(layer, x).gradients(x[:1]),
            ValueError,
            r"gradients: doutput must have shape \(2, 5, 8\), got \(1, 5, 8\)",
        ),
    ],
)
def test_wrong_stages_of_heads(call, error, message, rng):
    with pytest.raises(error, match=message):
        call(layer_with_heads("plain", rng), rng.standard_normal((2, 5, 8)))

"""Attention layers: the functions of attnc.functional with parameters of their own."""

import copy

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import check_float32, check_house, check_layer, randomize

import attnc

B, TQ, TK, DQ, DK, DV, A = 2, 3, 5, 7, 11, 13, 17


def make(name, dtype="float64"):
    return {
        "dot": lambda: attnc.DotProductAttention(dtype=dtype),
        "plain dot": lambda: attnc.DotProductAttention(scale=1.0, dtype=dtype),
        "multiplicative": lambda: attnc.MultiplicativeAttention(DQ, DK, rng=0, dtype=dtype),
        "additive": lambda: attnc.AdditiveAttention(DQ, DK, A, rng=0, dtype=dtype),
        "additive with bias": lambda: attnc.AdditiveAttention(
            DQ, DK, A, score_bias=True, rng=0, dtype=dtype
        ),
        "cosine": lambda: attnc.CosineAttention(dtype=dtype),
    }[name]()


def function(layer):
    """The same attention by the function: a call of (query, key, value, **options)."""
    p = layer.parameters
    if isinstance(layer, attnc.DotProductAttention):
        return lambda *qkv, **o: attnc.dot_product_attention(*qkv, scale=layer.scale, **o)
    if isinstance(layer, attnc.MultiplicativeAttention):
        return lambda *qkv, **o: attnc.multiplicative_attention(*qkv, p["weight"], **o)
    if isinstance(layer, attnc.CosineAttention):
        return lambda *qkv, **o: attnc.cosine_attention(*qkv, scale=p["scale"], **o)
    weights = {name: p[name] for name in p if name != "score_vector"}
    return lambda *qkv, **o: attnc.additive_attention(*qkv, p["score_vector"], **weights, **o)


ALL = ["dot", "plain dot", "multiplicative", "additive", "additive with bias", "cosine"]
layers = pytest.mark.parametrize("name", ALL)


def arrays(name, rng, lead=(B,)):
    dk = DK if "tive" in name else DQ
    shapes = (*lead, TQ, DQ), (*lead, TK, dk), (*lead, TK, DV)
    return tuple(rng.standard_normal(shape) for shape in shapes)


OPTIONS = {
    "none": lambda rng: {},
    "lengths": lambda rng: {"key_lengths": [3, 0]},
    "key mask": lambda rng: {"key_mask": rng.random((B, TK)) < 0.6},
    "mask and bias": lambda rng: {
        "mask": rng.random((B, TQ, TK)) < 0.7,
        "bias": rng.standard_normal((B, TQ, TK)),
    },
    "causal": lambda rng: {"causal": True, "causal_offset": 1},
    "slope and sink": lambda rng: {
        "slope": rng.standard_normal(B),
        "sink": rng.standard_normal(1),
    },
    "numbers": lambda rng: {"slope": 0.5, "sink": -0.5},
    "queries": lambda rng: {"query_lengths": [0, 1]},
}


@layers
@pytest.mark.parametrize("options", OPTIONS)
def test_layer_is_the_function(name, options, rng):
    layer = randomize(make(name), rng)
    options = {**OPTIONS[options](rng), "return_weights": True, "return_lse": True}
    qkv = arrays(name, rng)
    output, gradients = check_layer(layer, qkv, options, rng)
    assert_same(output, function(layer)(*qkv, **options))
    with_gradient = {n for n in ("bias", "slope", "sink") if isinstance(options.get(n), np.ndarray)}
    assert len(gradients) == 3 and vars(gradients).keys() >= with_gradient
    assert len(vars(gradients)) == 3 + len(with_gradient)


@layers
def test_the_memory_is_keys_and_values(name, rng):
    layer = randomize(make(name), rng)
    state, memory, _ = arrays(name, rng)
    options = {"key_lengths": [3, 5], "return_weights": True}
    output, (dstate, dmemory) = check_layer(layer, (state, memory), options, rng)
    assert_same(output, layer(state, memory, memory, **options))
    assert dstate.shape == state.shape and dmemory.shape == memory.shape


@layers
@pytest.mark.parametrize("lead", [(), (2, 3), (0,)])
def test_leading_axes(name, lead, rng):
    check_layer(randomize(make(name), rng), arrays(name, rng, lead), {}, rng)


@layers
def test_house(name, rng, tmp_path):
    layer = make(name)
    check_house(layer, tmp_path)
    check_float32(make(name, "float32"), arrays(name, rng), {"key_lengths": [3, 5]})


@layers
def test_masked_memory_is_not_read(name, rng):
    layer = make(name)
    state, memory, _ = arrays(name, rng)
    expected, pullback = attnc.vjp(layer, state, memory, key_lengths=[2, 4])
    expected_gradients = pullback(np.ones_like(expected))
    memory[0, 2:] = np.nan
    memory[1, 4:] = np.inf
    context, pullback = attnc.vjp(layer, state, memory, key_lengths=[2, 4])
    assert_agree(context, expected)
    for got, want in zip(pullback(np.ones_like(context)), expected_gradients, strict=True):
        assert_agree(got, want)


@layers
def test_dropout_is_for_training(name, rng):
    layer = randomize(make(name), rng)
    qkv = arrays(name, rng)
    calm = layer(*qkv)
    layer.dropout = 0.5
    assert_same(layer(*qkv), calm)
    context, _ = check_layer(layer, qkv, {"train": True, "rng": 3}, rng)
    assert_same(context, function(layer)(*qkv, dropout=0.5, rng=3))
    assert (context != calm).any()
    assert (layer(*qkv, train=True, rng=4) != context).any()


@layers
def test_softcap_and_window(name, rng):
    layer = randomize(make(name), rng)
    options = {"softcap": 2.0, "window": (1, 0), "return_weights": True}
    qkv = arrays(name, rng)
    output, _ = check_layer(layer, qkv, options, rng)
    assert_same(output, function(layer)(*qkv, **options))


def test_output_of_float32_layer_stays_float32_with_float64_bias(rng):
    layer = attnc.DotProductAttention()
    q, k, v = arrays("dot", rng)
    bias = rng.standard_normal((1, TQ, TK))
    context, pullback = attnc.vjp(layer, q, k, v, bias=bias)
    assert context.dtype == np.float32
    gradients = pullback(context)
    assert gradients.bias.dtype == np.float64 and gradients.bias.shape == bias.shape


def test_gradients_of_weights_and_lse_alone(rng):
    layer = randomize(make("additive"), rng)
    _, pullback = attnc.vjp(layer, *arrays("additive", rng), return_weights=True, return_lse=True)
    dvalue = pullback(dweights=np.ones((B, TQ, TK)), dlse=np.ones((B, TQ))).value
    assert not dvalue.any() and layer.gradients["key_weight"].any()


def test_the_learned_scale_starts_at_ten():
    layer = attnc.CosineAttention()
    assert layer.parameters["scale"].shape == () and layer.parameters["scale"] == 10
    assert repr(layer) == "CosineAttention()"
    assert attnc.CosineAttention(scale=3).parameters["scale"] == 3


def test_errors(rng):
    q, k, v = arrays("additive", rng)
    layer = make("additive")
    with pytest.raises(
        ValueError,
        match=r"^AdditiveAttention: query must have shape "
        r"\(..., Tq, 7\), got \(2, 5, 11\)$",
    ):
        layer(k, q)
    with pytest.raises(
        ValueError,
        match=r"^AdditiveAttention: key must have shape "
        r"\(..., Tk, 11\), got \(2, 3, 7\)$",
    ):
        layer(q, q)
    with pytest.raises(TypeError, match="DotProductAttention: query must be a plain array"):
        make("dot")(np.ma.ones((2, 3, 4)), q)
    with pytest.raises(ValueError, match="dropout must lie in 0 <= dropout < 1, got 1"):
        attnc.DotProductAttention(dropout=1)
    with pytest.raises(ValueError, match="hidden_size must be a positive integer, got 0"):
        attnc.AdditiveAttention(2, 3, 0)
    with pytest.raises(TypeError, match="masks"):
        attnc.vjp(layer, q, k, v, masks=None)


@layers
def test_pullback_of_nothing(name, rng):
    layer = make(name)
    _, pullback = attnc.vjp(layer, *arrays(name, rng), return_weights=True)
    with pytest.raises(TypeError, match=rf"^{type(layer).__name__}: pullback must get dcontext or"):
        pullback()
    assert not any(g.any() for g in layer.gradients.values())
    pullback(dweights=np.ones((B, TQ, TK)))


@layers
def test_whatever_the_settings_of_numpy(name, rng):
    layer = make(name, "float32")
    query, key, _ = (x.astype(np.float32) for x in arrays(name, rng))
    key[0] *= np.float32(1e-38)
    key[1, 0] = 3e38

    def run():
        layer.zero_grad()
        context, pullback = attnc.vjp(layer, query, key)
        dcontext = np.full_like(context, 1e38)
        dcontext[0] = 1e-38
        gradients = pullback(dcontext)
        return context, layer(query, key), *gradients, copy.deepcopy(dict(layer.gradients))

    expected = run()
    with np.errstate(all="raise"):
        assert_same(run(), expected)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: attnc.CosineAttention(scale="10"),
            TypeError,
            "Cosine.*: scale must be a finite nu",
        ),
        (
            lambda: attnc.CosineAttention(scale=True),
            TypeError,
            "scale must be a finite number, got T",
        ),
        (lambda: attnc.CosineAttention(scale=[1.0]), TypeError, "scale must be a finite number"),
        (lambda: attnc.CosineAttention(scale=np.nan), ValueError, "scale must be a finite number"),
        (
            lambda: attnc.CosineAttention(scale=1e300),
            ValueError,
            "scale must lie in the range of fl",
        ),
        (lambda: attnc.DotProductAttention(scale="1"), TypeError, "scale must be a finite number"),
        (
            lambda: attnc.DotProductAttention(dropout="0.1"),
            TypeError,
            "dropout must lie in 0 <= dro",
        ),
        (lambda: attnc.DotProductAttention(dropout=np.nan), ValueError, "dropout must lie in 0 <="),
        (
            lambda: attnc.SelfAttention(3, dropout=1.0),
            ValueError,
            "SelfAttention: dropout must lie",
        ),
        (
            lambda: attnc.SelfAttention(3, rng="0"),
            TypeError,
            "SelfAttention: rng must be None, an in",
        ),
        (
            lambda: attnc.SelfAttention(3.0),
            ValueError,
            "SelfAttention: input_size must be a positive",
        ),
        (
            lambda: attnc.AdditiveAttention(2, 3, 4, score_bias="False"),
            TypeError,
            "AdditiveAttention: score_bias must be True or False, got 'False'",
        ),
        (
            lambda: attnc.SelfAttention(3)(np.ones((2, 3)), train="False"),
            TypeError,
            "SelfAttention: train must be True or False, got 'False'",
        ),
        (
            lambda: attnc.CosineAttention()(np.ones((2, 3)), np.ones((2, 3)), train=1),
            TypeError,
            "CosineAttention: train must be True or False, got 1",
        ),
    ],
)
def test_arguments_of_a_wrong_kind(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_narrow_sizes():
    layer = attnc.AdditiveAttention(np.int8(100), np.uint8(200), np.int8(120), rng=0)
    assert repr(layer) == "AdditiveAttention(query_size=100, key_size=200, hidden_size=120)"
    assert_same(layer.state_dict(), attnc.AdditiveAttention(100, 200, 120, rng=0).state_dict())


# ---- Self-attention ------------------------------------------------------------------------------


def test_dropout_of_self_attention_is_its_attribute(rng):
    layer = attnc.SelfAttention(DQ, rng=0)
    x = rng.standard_normal((B, TK, DQ))
    calm = layer(x, train=True)
    layer.dropout = 0.5
    assert (layer(x, train=True, rng=0) != calm).any()
    assert_same(layer(x), calm)


def test_self_attention_of_nothing_and_whatever_the_settings_of_numpy(rng):
    layer = attnc.SelfAttention(DQ, rng=0)
    x = rng.standard_normal((B, TK, DQ)).astype(np.float32)
    x[0] *= np.float32(1e-38)
    x[1] *= np.float32(1e25)

    def run():
        layer.zero_grad()
        context, pullback = attnc.vjp(layer, x)
        gradients = pullback(context)
        return context, layer(x), *gradients, copy.deepcopy(dict(layer.gradients))

    expected = run()
    with np.errstate(all="raise"):
        assert_same(run(), expected)
    with pytest.raises(
        TypeError, match="^SelfAttention: pullback must get dcontext or dweights or"
    ):
        attnc.vjp(layer, x)[1]()


@pytest.mark.parametrize("options", OPTIONS)
def test_self_attention(options, rng):
    layer = randomize(attnc.SelfAttention(DQ, key_size=3, value_size=2, dtype="float64"), rng)
    x = rng.standard_normal((B, TK, DQ))
    options = {
        name: value[:, :1] if name in ("mask", "bias") else value
        for name, value in OPTIONS[options](rng).items()
    }
    options["return_weights"] = True
    (context, weights), (dx,) = check_layer(layer, (x,), options, rng)
    q, k, v = (x @ layer.parameters[f"{name}_weight"] for name in ("query", "key", "value"))
    expected = attnc.dot_product_attention(q, k, v, **options)
    assert_agree(context, expected.context)
    assert_agree(weights, expected.weights)
    assert dx.shape == x.shape


@pytest.mark.parametrize(
    "sizes, shapes",
    [
        ({}, (7, 7)),
        ({"key_size": 3}, (3, 3)),
        ({"value_size": 2}, (7, 2)),
    ],
)
def test_self_attention_sizes(sizes, shapes, rng, tmp_path):
    layer = attnc.SelfAttention(DQ, **sizes, rng=0)
    assert layer.parameters["key_weight"].shape == (DQ, shapes[0])
    assert layer(np.ones((4, DQ))).shape == (4, shapes[1])
    assert layer(np.ones((2, 0, DQ))).shape == (2, 0, shapes[1])
    check_house(layer, tmp_path)
    check_float32(attnc.SelfAttention(DQ, **sizes), (rng.standard_normal((2, 3, DQ)),), {})


def test_self_attention_error():
    with pytest.raises(ValueError, match=r"^SelfAttention: x must have shape \(..., T, 7\), got "):
        attnc.SelfAttention(DQ)(np.ones((2, 3, 4)))


def test_the_projections_of_self_attention_are_linear_layers(rng):
    layer = attnc.SelfAttention(DQ, 3, 2, rng=0, dtype="float64")
    names = ["query_weight", "key_weight", "value_weight"]
    assert list(layer.parameters) == list(layer.gradients) == list(layer.state_dict()) == names
    assert layer.value.parameters["weight"] is layer.parameters["value_weight"]
    x = rng.standard_normal((B, TK, DQ))
    expected = attnc.dot_product_attention(layer.query(x), layer.key(x), layer.value(x))
    assert_same(layer(x), expected)
    # Their names are used up: neither is an attribute.
    with pytest.raises(AttributeError, match=r"the parameter is layer.parameters\['key_weight'\]"):
        layer.key_weight  # noqa: B018
    with pytest.raises(AttributeError, match=r"must be set by layer.parameters\['key_weight'\]"):
        layer.key_weight = np.zeros((DQ, 3))
    twin = copy.deepcopy(layer)
    twin.key.parameters["weight"] = 0 * twin.parameters["key_weight"]
    assert not twin.parameters["key_weight"].any() and layer.parameters["key_weight"].any()
    layer.tie("key_weight", layer, "query_weight")
    assert layer.key.parameters["weight"] is layer.query.parameters["weight"]
    assert list(attnc.Sequential(layer).parameters)[0] == "layers.0.query_weight"


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_padding_reaches_no_gradient_of_self_attention(poison, rng):
    """A padded step is a query too."""
    layer = attnc.SelfAttention(DQ, 3, 2, rng=0, dtype="float64")
    x = rng.standard_normal((2, 5, DQ))
    lengths = {"key_lengths": [3, 0], "query_lengths": [3, 0]}
    padded = np.arange(5) >= np.array([3, 0])[:, None]
    y, pullback = attnc.vjp(layer, x, **lengths)
    dx = pullback(np.ones_like(y)).x
    expected = {name: gradient.copy() for name, gradient in layer.gradients.items()}
    layer.zero_grad()
    x[padded] = poison
    got, pullback = attnc.vjp(layer, x, **lengths)
    dy = np.ones_like(y)
    dy[padded] = poison
    assert_same(got, y)
    assert_same(pullback(dy).x, dx)
    for name, gradient in layer.gradients.items():
        assert_agree(gradient, expected[name])

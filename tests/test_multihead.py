"""Multi-head attention: against its formula head by head, differences, and PyTorch."""

import concurrent.futures
import copy

import numpy as np
import pytest
from checks import assert_agree, assert_close_like_naive, assert_same
from layer_checks import check_float32, check_house, check_layer, randomize

import attnc
from attnc import reference

B, TQ, TK, E, EK, EV, EO, H, D = 2, 3, 5, 12, 7, 11, 9, 6, 4

SIZES = {
    "plain": {},
    "biases": {"projection_bias": True},
    "sizes": {"key_size": EK, "value_size": EV, "output_size": EO, "head_size": D},
    "key size": {"key_size": EK},  # the size of values, too
    "groups": {"num_kv_heads": 2, "projection_bias": True},
    "one key head": {"num_kv_heads": 1, "head_size": D, "scale": 0.3},
    "normalised": {"num_kv_heads": 3, "normalize_qk": True, "projection_bias": True},
    "rotary": {"num_kv_heads": 2, "rotary": True, "head_size": D},
    "both": {"rotary": True, "normalize_qk": True, "head_size": D, "key_size": EK},
}
sizes = pytest.mark.parametrize("kind", SIZES)


def make(kind, rng=None, dtype="float64", **more):
    layer = attnc.MultiHeadAttention(E, H, rng=0, dtype=dtype, **(SIZES[kind] | more))
    return layer if rng is None else randomize(layer, rng)


def arrays(layer, rng, lead=(B,)):
    shapes = (TQ, layer.query_size), (TK, layer.key_size), (TK, layer.value_size)
    return tuple(rng.standard_normal((*lead, *shape)) for shape in shapes)


def by_formula(layer, query, key, value, **options):
    """sum_h attention(query W_h^Q, key W_h^K, value W_h^V) W_h^O, a head after the other.

    Of options by head, (B, H, ...), each head gets its own; those without are for all of them.
    """
    p, output, weights, lse = layer.parameters, 0, [], []
    whole = {"mask": 4, "bias": 4, "key_mask": 3}
    whole |= dict.fromkeys(("key_lengths", "causal_offset", "sink", "slope"), 2)
    for h in range(layer.num_heads):
        k = h // (layer.num_heads // layer.num_kv_heads)

        def project(x, name, head, offset):
            y = x @ p[f"{name}_weight"][:, head]
            if layer.projection_bias:
                y = y + p[f"{name}_bias"][head]
            if layer.normalize_qk and name != "value":
                y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * p[f"{name}_scale"]
            if layer.rotary and name != "value":
                y = attnc.rotary(y, offset=offset)
            return y

        one = {
            name: option[:, h] if np.ndim(option) == whole.get(name, -1) else option
            for name, option in options.items()
        }
        offset = one.get("causal_offset", key.shape[-2] - query.shape[-2])
        attended = attnc.dot_product_attention(
            project(query, "query", h, offset),
            project(key, "key", k, 0),
            project(value, "value", k, 0),
            scale=layer.scale,
            **one,
            return_weights=True,
            return_lse=True,
        )
        output = output + attended.context @ p["output_weight"][h]
        weights.append(attended.weights)
        lse.append(attended.lse)
    if layer.projection_bias:
        output = output + p["output_bias"]
    return output, np.stack(weights, 1), np.stack(lse, 1)


OPTIONS = {
    "none": lambda rng, lead: {},
    "lengths": lambda rng, lead: {"key_lengths": rng.integers(0, TK + 1, lead)},
    "key mask": lambda rng, lead: {"key_mask": rng.random((*lead, TK)) < 0.6},
    "mask and bias": lambda rng, lead: {
        "mask": rng.random((*lead, TQ, TK)) < 0.7,
        "bias": rng.standard_normal((*lead, TQ, TK)),
    },
    "causal": lambda rng, lead: {"causal": True, "causal_offset": rng.integers(0, TK, lead)},
    "window": lambda rng, lead: {"window": (1, 1), "softcap": 2.0},
}


@sizes
@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_every_head_is_one_attention(kind, by_head, options, rng):
    layer = make(kind, rng)
    options = OPTIONS[options](rng, (B, H) if by_head else (B,))
    qkv = arrays(layer, rng)
    shown = {"return_weights": True, "return_lse": True}
    output, gradients = check_layer(layer, qkv, options | shown, rng)
    assert output.weights.shape == (B, H, TQ, TK)
    for got, expected in zip(output, by_formula(layer, *qkv, **options), strict=True):
        assert_agree(got, expected)
    assert len(gradients) == 3 and ("bias" in vars(gradients)) == ("bias" in options)
    assert_same(layer(*qkv, **options), output.context)


@pytest.mark.parametrize("kind", sorted(SIZES.keys() - {"sizes"}))
def test_the_memory_is_keys_and_values(kind, rng):
    layer = make(kind, rng)
    query, memory, _ = arrays(layer, rng)
    options = {"key_lengths": [3, 5], "return_weights": True}
    output, (dquery, dmemory) = check_layer(layer, (query, memory), options, rng)
    assert_same(output, layer(query, memory, memory, **options))
    assert dquery.shape == query.shape and dmemory.shape == memory.shape


@pytest.mark.parametrize("kind", sorted(SIZES.keys() - {"sizes", "key size", "both"}))
def test_a_sequence_attends_to_itself(kind, rng):
    layer = make(kind, rng)
    x, _, _ = arrays(layer, rng)
    options = {"causal": True, "bias": rng.standard_normal((B, H, TQ, 1)), "return_weights": True}
    output, gradients = check_layer(layer, (x,), options, rng)
    assert_same(output, layer(x, x, x, **options))
    assert len(gradients) == 1 and gradients.bias.shape == options["bias"].shape


@sizes
@pytest.mark.parametrize("lead", [(), (2, 3), (0,)])
def test_leading_axes(kind, lead, rng):
    layer = make(kind, rng)
    check_layer(layer, arrays(layer, rng, lead), {}, rng)


def test_leading_axes_broadcast(rng):
    layer = make("groups", rng)
    query, key, value = arrays(layer, rng)
    for one in ((query[:1], key, value), (query, key[:1], value), (query, key, value[:1])):
        output, gradients = check_layer(layer, one, {}, rng)
        assert_agree(output, by_formula(layer, *one)[0])
        assert [g.shape for g in gradients] == [x.shape for x in one]


@pytest.mark.parametrize("shape", [(B, 0, E), (B, TQ, E)])
def test_nothing_to_attend_to(shape, rng):
    layer = make("biases", rng)
    output, _ = check_layer(layer, (rng.standard_normal(shape), np.ones((B, 0, E))), {}, rng)
    assert_same(output, np.broadcast_to(layer.parameters["output_bias"], shape))


@sizes
def test_house(kind, rng, tmp_path):
    check_house(make(kind), tmp_path)
    layer = make(kind, dtype="float32")
    check_float32(layer, arrays(layer, rng), {"key_lengths": [3, 5]})
    twin = copy.deepcopy(layer)
    qkv = arrays(layer, rng)
    assert_same(twin(*qkv), layer(*qkv))


def test_the_start_of_one_head_is_that_of_self_attention():
    one, many = attnc.SelfAttention(E, rng=3), attnc.MultiHeadAttention(E, 1, rng=3)
    for name, weight in one.parameters.items():
        assert_same(many.parameters[name][:, 0], weight)
    bound = np.sqrt(6 / (2 * E))
    for name, weight in attnc.MultiHeadAttention(E, H, rng=3).parameters.items():
        assert 0.8 * bound < np.abs(weight).max() <= bound, name


def test_one_head_is_self_attention(rng):
    """With the identity as its output."""
    one = attnc.SelfAttention(E, rng=0, dtype="float64")
    many = attnc.MultiHeadAttention(E, 1, dtype="float64")
    for name, weight in one.parameters.items():
        many.parameters[name] = weight[:, None]
    many.parameters["output_weight"] = np.eye(E)[None]
    x = rng.standard_normal((B, TK, E))
    options = {
        "mask": rng.random((B, TK, TK)) < 0.8,
        "key_lengths": [4, 3],
        "window": (2, 2),
        "bias": rng.standard_normal((B, TK, TK)),
    }
    expected, theirs = attnc.vjp(one, x, **options)
    got, ours = attnc.vjp(many, x, **options)
    d = rng.standard_normal(got.shape)
    assert_agree(got, expected)
    for name in ("query", "bias"):
        assert_agree(ours(d)[name], theirs(d)["x" if name == "query" else name])
    for name, gradient in one.gradients.items():
        assert_agree(many.gradients[name][:, 0], gradient)


@pytest.mark.parametrize("kind", ["plain", "biases", "groups", "normalised", "rotary"])
def test_masked_memory_is_not_read(kind, rng):
    layer = make(kind, rng)
    query, memory, _ = arrays(layer, rng)
    d = rng.standard_normal(query.shape)

    def run():
        layer.zero_grad()
        context, pullback = attnc.vjp(layer, query, memory, key_lengths=[2, 4])
        return (context, *pullback(d), *(g.copy() for g in layer.gradients.values()))

    expected = run()
    memory[0, 2:] = np.nan
    memory[1, 4:] = np.inf
    for got, want in zip(run(), expected, strict=True):
        assert_agree(got, want)


def test_dropout_is_for_training(rng):
    layer = make("groups", rng)
    qkv = arrays(layer, rng)
    calm = layer(*qkv)
    layer.dropout = 0.5
    assert_same(layer(*qkv), calm)
    context, _ = check_layer(layer, qkv, {"train": True, "rng": 3}, rng)
    assert (context != calm).any()
    assert (layer(*qkv, train=True, rng=4) != context).any()


def test_rotary_positions_depend_on_differences_alone(rng):
    layer, x = make("rotary", rng), rng.standard_normal((B, TK, E))
    assert_agree(layer(x, x, causal_offset=0), layer(x))
    assert np.abs(layer(x, x, causal_offset=5) - layer(x)).max() > 0.1
    # A query at position 4 sees the keys at 0 .. 4 as the last one of a longer call does.
    assert_agree(layer(x[:, -1:], x), layer(x)[:, -1:])


def test_normalised_scores_stay_small(rng):
    layer, x = make("normalised"), rng.standard_normal((B, TK, E))
    _, weights = layer(x, return_weights=True)
    np.testing.assert_allclose(layer(1e4 * x, return_weights=True).weights, weights, atol=1e-4)
    layer.freeze("query_scale")
    context, pullback = attnc.vjp(layer, x)
    pullback(x)
    assert not layer.gradients["query_scale"].any() and layer.gradients["key_scale"].any()


def test_frozen_parameters_get_no_gradient(rng):
    layer = make("biases", rng).freeze("key_*", "output_weight")
    context, pullback = attnc.vjp(layer, *arrays(layer, rng))
    pullback(np.ones_like(context))
    moved = {name for name, gradient in layer.gradients.items() if gradient.any()}
    assert moved == {"query_weight", "query_bias", "value_weight", "value_bias", "output_bias"}


def test_tied_projections_share_a_gradient(rng):
    layer = make("plain", rng)
    layer.parameters["key_weight"] = layer.parameters["query_weight"]
    tied = copy.deepcopy(layer)
    tied.tie("key_weight", tied, "query_weight")
    x, _, _ = arrays(layer, rng)
    for each in (layer, tied):
        context, pullback = attnc.vjp(each, x)
        pullback(x)
    assert_same(tied(x), layer(x))
    both = layer.gradients["query_weight"] + layer.gradients["key_weight"]
    assert_agree(tied.gradients["key_weight"], both)


def test_threads_share_a_layer(rng):
    """Pullbacks add up, and calls with a cache each do not disturb each other."""
    layer, x = make("groups", rng), rng.standard_normal((4, TK, E))
    expected = layer(x, causal=True)
    for b in range(4):
        _, pullback = attnc.vjp(layer, x[b], causal=True)
        pullback(x[b])
    wanted = {name: gradient.copy() for name, gradient in layer.gradients.items()}
    layer.zero_grad()

    def work(b):
        _, pullback = attnc.vjp(layer, x[b], causal=True)
        pullback(x[b])
        cache = attnc.KVCache()
        return [layer(x[b, t : t + 1], causal=True, cache=cache) for t in range(TK)]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for b, steps in enumerate(pool.map(work, range(4))):
            assert_agree(np.concatenate(steps), expected[b])
    for name, gradient in layer.gradients.items():
        assert_agree(gradient, wanted[name], name)


def test_whatever_the_settings_of_numpy(rng):
    layer = make("biases", dtype="float32")
    query, key, _ = (x.astype(np.float32) for x in arrays(layer, rng))
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


Q, K, V = np.ones((B, TQ, E)), np.ones((B, TK, E)), np.ones((B, TK, E))

WRONG = [
    (
        lambda: attnc.MultiHeadAttention(10, 4),
        "num_heads must divide query_size 10, got 4; or give",
    ),
    (lambda: attnc.MultiHeadAttention(8, 0), "num_heads must be a positive integer, got 0"),
    (
        lambda: attnc.MultiHeadAttention(8, 4, num_kv_heads=3),
        "num_kv_heads must divide num_heads 4",
    ),
    (
        lambda: attnc.MultiHeadAttention(8, 4, num_kv_heads=8),
        "num_kv_heads must divide num_heads 4",
    ),
    (lambda: attnc.MultiHeadAttention(8, 4, head_size=2.0), "head_size must be a positive integer"),
    (lambda: attnc.MultiHeadAttention(8, 4, scale="1"), "scale must be None or a finite number"),
    (lambda: attnc.MultiHeadAttention(8, 4, scale=np.inf), "scale must be None or a finite number"),
    (lambda: attnc.MultiHeadAttention(8, 4, projection_bias=1), "projection_bias must be True or"),
    (lambda: attnc.MultiHeadAttention(8, 4, dropout=1), "dropout must lie in 0 <= dropout < 1"),
    (lambda: attnc.MultiHeadAttention(8, 4, rng="0"), "rng must be None, an integer or a numpy"),
    (
        lambda: attnc.MultiHeadAttention(6, 2, rotary=True),
        "head_size must be even with rotary, got 3",
    ),
    (lambda: attnc.MultiHeadAttention(8, 2, rotary=1), "rotary must be True or False, got 1"),
    (lambda: attnc.MultiHeadAttention(8, 2, normalize_qk=None), "normalize_qk must be True or Fal"),
    (lambda: make("plain")(Q, causal_offset=1), "causal_offset must go with causal=True"),
    (lambda: make("plain")(Q, None, V), "key must be given with value, got None"),
    (lambda: make("sizes")(Q), "key must be given, as key_size 7 is not query_size 12, got None"),
    (
        lambda: make("sizes")(Q, np.ones((B, TK, EK))),
        "value must be given, as value_size 11 is not key_size 7, got None",
    ),
    (lambda: make("plain")(Q[..., :5]), r"query must have shape \(..., Tq, 12\), got \(2, 3, 5\)"),
    (lambda: make("plain")(Q, K[..., :5]), r"key must have shape \(..., Tk, 12\), got \(2, 5, 5\)"),
    (lambda: make("plain")(Q, K[0]), r"key must have the leading axes of query \(2, 3, 12\), each"),
    (
        lambda: make("plain")(np.ones((3, TQ, E)), K),
        r"key must have the leading axes of query \(3, 3, 12\), each equal or 1, got \(2, 5, 12\)",
    ),
    (
        lambda: make("plain")(Q, K, V[:, :4]),
        r"value must have as many steps as key \(2, 5, 12\), got \(2, 4, 12\)",
    ),
    (
        lambda: make("plain")(Q, K, mask=np.ones((TQ, TK), bool)),
        r"mask must have 3 axes .* = \(2, 3, 5\), or with heads 4 axes .* got \(3, 5\); write",
    ),
    (lambda: make("plain")(Q, K, mask=np.ones((B, TQ, TK))), "mask must be boolean"),
    (lambda: make("plain")(Q, K, key_lengths=[6, 1]), "key_lengths must lie in 0..5"),
    (lambda: make("plain")(Q, K, masks=None), "there is no argument 'masks'; did you mean 'mask'"),
    (lambda: make("plain")(Q, K, dropout=0.5), "there is no argument 'dropout'"),
    (lambda: make("plain")(Q, K, train=1), "train must be True or False, got 1"),
    (lambda: make("plain")(np.ma.ones((B, TQ, E))), "query must be a plain array"),
    (lambda: attnc.vjp(make("plain"), Q)[1](), "pullback must get dcontext or dweights or dlse"),
    (
        lambda: attnc.vjp(make("plain"), Q)[1](Q, dweights=np.ones((B, H, TQ, TQ))),
        "dweights must be None without return_weights, got a gradient",
    ),
    (lambda: attnc.vjp(make("plain"), Q)[1](Q[:1]), r"dcontext must have shape \(2, 3, 12\)"),
]


@pytest.mark.parametrize("call, message", WRONG, ids=[str(k) for k in range(len(WRONG))])
def test_errors(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_random_configurations(rng):
    """Any sizes, heads, options: each head is one attention, and gradients are right."""
    for _ in range(40):
        D, kv, group = (int(n) for n in rng.integers(1, 5, 3))
        H, lead = kv * group, tuple(rng.integers(1, 4, rng.integers(0, 3)))
        E, EK, EV, EO, Tq, Tk = (int(n) for n in rng.integers(1, 8, 6))
        layer = attnc.MultiHeadAttention(
            E, H, key_size=EK, value_size=EV, output_size=EO, head_size=D, num_kv_heads=kv,
            projection_bias=bool(rng.integers(2)), normalize_qk=bool(rng.integers(2)),
            rotary=bool(D % 2 == 0 and rng.integers(2)), dtype="float64", rng=rng,
        )  # fmt: skip
        randomize(layer, rng)
        some = (*lead, H) if rng.integers(2) else lead
        options = {
            "mask": rng.random((*some, Tq, Tk)) < 0.8,
            "bias": rng.standard_normal((*some, Tq, 1)),
            "key_mask": rng.random((*some, Tk)) < 0.9,
            "key_lengths": rng.integers(0, Tk + 1, some),
            "causal": bool(rng.integers(2)),
            "softcap": 3.0,
        }
        chosen = {name: option for name, option in options.items() if rng.integers(2)}
        qkv = [rng.standard_normal((*lead, *n)) for n in ((Tq, E), (Tk, EK), (Tk, EV))]
        check_layer(layer, qkv, chosen, rng)


@sizes
@pytest.mark.parametrize("causal", [False, True])
def test_packed_sequences_are_calls_of_their_own(kind, causal, rng):
    """Rows of all sequences one after the other, without padding; positions count in each."""
    layer = make(kind, rng)
    lengths, memories = (3, 0, 5, 1), (2, 4, 5, 1)
    queries, keys, values = (
        [rng.standard_normal((n, size)) for n in each]
        for each, size in (
            (lengths, layer.query_size),
            (memories, layer.key_size),
            (memories, layer.value_size),
        )
    )
    offsets = {
        "query_offsets": np.cumsum((0, *lengths)),
        "key_offsets": np.cumsum((0, *memories)),
    }
    packed = [np.concatenate(parts) for parts in (queries, keys, values)]
    output, gradients = check_layer(layer, packed, offsets | {"causal": causal}, rng)
    expected = [layer(*parts, causal=causal) for parts in zip(queries, keys, values, strict=True)]
    assert_agree(output, np.concatenate(expected))
    if layer.key_size == layer.value_size == layer.query_size:
        alone = {"query_offsets": offsets["query_offsets"]}
        output, _ = check_layer(layer, packed[:1], alone | {"causal": causal}, rng)
        assert_agree(output, np.concatenate([layer(x, causal=causal) for x in queries]))


@pytest.mark.parametrize(
    "offsets",
    [
        {"query_offsets": [0, 2]},
        {"query_offsets": [0, 4, 2, 5]},
        {"query_offsets": [0.0, 5.0]},
        {"query_offsets": []},
        {"query_offsets": [[0, 5]]},
        {"query_offsets": [0, 5], "key_offsets": [0, 2, 5]},
        {"query_offsets": [0, 5], "causal": True, "causal_offset": np.ones(3, int)},
        {"key_offsets": [1, 5]},
    ],
)
def test_wrong_offsets_are_refused_by_attention(offsets, rng):
    x = rng.standard_normal((5, E))
    with pytest.raises((TypeError, ValueError)) as expected:
        make("plain", rng)(x, **offsets)
    with pytest.raises(type(expected.value)) as got:
        make("rotary", rng)(x, **offsets)
    assert "offset" in str(got.value) and ": " in str(got.value)


# ---- Sinks and slopes ----------------------------------------------------------------------------


@sizes
@pytest.mark.parametrize("shape", [(1, H), (B, H), (B,), (1,)])
def test_sinks_and_slopes_have_gradients(kind, shape, rng):
    layer = make(kind, rng)
    options = {
        "sink": rng.standard_normal(shape),
        "slope": rng.uniform(0.1, 1, shape),
        "return_weights": True,
    }
    qkv = arrays(layer, rng)
    output, gradients = check_layer(layer, qkv, options, rng)
    assert gradients.sink.shape == gradients.slope.shape == shape
    every = {
        name: np.broadcast_to(x if x.ndim == 2 else x[:, None], (B, H))
        for name, x in options.items()
        if name != "return_weights"
    }
    expected = by_formula(layer, *qkv, **every)
    assert_agree(output.context, expected[0])
    assert_agree(output.weights, expected[1])


# ---- PyTorch -------------------------------------------------------------------------------------


def torch_gradients(torch, twin):
    return {name: p.grad.numpy() for name, p in twin.named_parameters()}


def as_torch(layer, arrays):
    """`arrays`, by the names of the layer's parameters, as the module of PyTorch has them."""
    twin = copy.deepcopy(layer)
    twin.parameters |= arrays
    return twin.torch_state_dict()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"key_size": EK, "value_size": EV}])
@pytest.mark.parametrize("options", ["none", "key mask", "mask", "mask by head", "bias", "causal"])
def test_equal_to_torch(bias, sizes, options, rng):
    torch = pytest.importorskip("torch")
    layer = attnc.MultiHeadAttention(E, H, projection_bias=bias, dtype="float64", **sizes)
    layer = randomize(layer, rng)
    twin = torch.nn.MultiheadAttention(
        E, H, bias=bias, kdim=layer.key_size, vdim=layer.value_size, batch_first=True,
        dtype=torch.float64,
    )  # fmt: skip
    state = {name: torch.from_numpy(array) for name, array in layer.torch_state_dict().items()}
    twin.load_state_dict(state)
    qkv = arrays(layer, rng)
    # At least one key a query: PyTorch makes NaN of a query that may attend to nothing.
    ours, theirs = {}, {}
    if options == "key mask":
        ours["key_mask"] = rng.random((B, TK)) < 0.6
        ours["key_mask"][:, 0] = True
        theirs["key_padding_mask"] = torch.from_numpy(~ours["key_mask"])
    elif options.startswith("mask"):
        mask = rng.random((B, H if "head" in options else 1, TQ, TK)) < 0.6
        mask[..., 0] = True
        ours["mask"] = mask
        full = np.broadcast_to(mask, (B, H, TQ, TK)).reshape(B * H, TQ, TK)
        theirs["attn_mask"] = torch.from_numpy(~full)
    elif options == "bias":
        ours["bias"] = rng.standard_normal((B, H, TQ, TK))
        theirs["attn_mask"] = torch.tensor(ours["bias"].reshape(-1, TQ, TK), requires_grad=True)
    elif options == "causal":
        ours.update(causal=True, causal_offset=0)
        theirs["attn_mask"] = torch.ones(TQ, TK, dtype=torch.bool).triu(1)
    tensors = [torch.tensor(x, requires_grad=True) for x in qkv]
    expected, expected_weights = twin(*tensors, average_attn_weights=False, **theirs)
    output, pullback = attnc.vjp(layer, *qkv, return_weights=True, **ours)
    d, dweights = (rng.standard_normal(x.shape) for x in output)
    torch.autograd.backward(
        [expected, expected_weights], [torch.from_numpy(d), torch.from_numpy(dweights)]
    )
    gradients = pullback(d, dweights=dweights)
    assert_agree(output.context, expected.detach().numpy())
    assert_agree(output.weights, expected_weights.detach().numpy())
    for got, tensor in zip(gradients, tensors, strict=True):
        assert_agree(got, tensor.grad.numpy())
    if options == "bias":
        assert_agree(gradients.bias.reshape(-1, TQ, TK), theirs["attn_mask"].grad.numpy())
    found = as_torch(layer, layer.gradients)
    for name, gradient in torch_gradients(torch, twin).items():
        assert_agree(found[name], gradient, name)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"key_size": EK, "value_size": EV}])
def test_weights_of_torch(bias, sizes, rng):
    torch = pytest.importorskip("torch")
    layer = attnc.MultiHeadAttention(E, H, projection_bias=bias, **sizes)
    twin = torch.nn.MultiheadAttention(
        E, H, bias=bias, kdim=layer.key_size, vdim=layer.value_size, batch_first=True
    )
    state = {name: array.numpy() for name, array in twin.state_dict().items()}
    layer.load_torch_state_dict(state)
    assert_same(layer.torch_state_dict(), state)
    other = attnc.MultiHeadAttention(E, H, projection_bias=bias, **sizes)
    other.load_torch_state_dict(twin.state_dict())  # tensors, as they are
    assert_same(other.torch_state_dict(), state)
    halves = {name: tensor.bfloat16() for name, tensor in twin.state_dict().items()}
    other.load_torch_state_dict(halves)
    rounded = {name: tensor.float().numpy() for name, tensor in halves.items()}
    assert_same(other.torch_state_dict(), rounded)
    before = layer.state_dict()
    del state["out_proj.weight"]
    state["bias_k"] = np.zeros((1, 1, E))
    with pytest.raises(ValueError, match=r"missing: out_proj.weight; unexpected: bias_k"):
        layer.load_torch_state_dict(state)
    assert_same(layer.state_dict(), before)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"output_size": 5}, "output_size must be 12, as in torch.nn.MultiheadAttention, got 5"),
        ({"head_size": 5}, r"num_heads \* head_size must be 12, as in torch.nn.Mult"),
        ({"num_kv_heads": 2}, "num_kv_heads must be 6, as in torch.nn.MultiheadAttention, got 2"),
        ({"rotary": True}, "rotary must be False, as in torch.nn.MultiheadAttention, got True"),
        ({"normalize_qk": True}, "normalize_qk must be False, as in torch.nn.MultiheadAttention"),
        ({"scale": 1.0}, "scale must be None, as in torch.nn.MultiheadAttention, got 1.0"),
    ],
)
def test_what_torch_has_not(more, message):
    layer = attnc.MultiHeadAttention(E, H, **more)
    for call in (layer.torch_state_dict, lambda: layer.load_torch_state_dict({})):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_recurrent_layers_give_their_weights_to_torch(kind, rng):
    torch = pytest.importorskip("torch")
    layer = randomize(getattr(attnc, kind)(3, 4, 2, True, dtype="float64"), rng)
    twin = getattr(torch.nn, kind)(3, 4, 2, bidirectional=True, batch_first=True).double()
    state = layer.torch_state_dict()
    assert list(state) == list(twin.state_dict())
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    x = rng.standard_normal((B, TK, 3))
    assert_agree(layer(x)[0], twin(torch.from_numpy(x))[0].detach().numpy())
    other = getattr(attnc, kind)(3, 4, 2, True, dtype="float64")
    other.load_torch_state_dict(state)
    assert_same(other.state_dict(), layer.state_dict())


@pytest.mark.parametrize(
    "layer, module",
    [
        (lambda: attnc.Linear(3, 5), lambda nn: nn.Linear(3, 5)),
        (lambda: attnc.Linear(3, 5, bias=False), lambda nn: nn.Linear(3, 5, bias=False)),
        (lambda: attnc.Embedding(5, 3), lambda nn: nn.Embedding(5, 3)),
    ],
)
def test_other_layers_take_the_weights_of_torch(layer, module):
    torch = pytest.importorskip("torch")
    layer, twin = layer(), module(torch.nn)
    state = {name: array.numpy() for name, array in twin.state_dict().items()}
    layer.load_torch_state_dict(state)
    assert_same(layer.torch_state_dict(), state)


# ---- The formulas of `attnc.reference` -----------------------------------------------------------


def twin(layer, query, key, value, dtype=np.float64, **options):
    """`reference.multi_head_attention` with the parameters of a layer: output and pullback."""
    p = dict(layer.parameters)
    weights = [p.pop(f"{name}_weight") for name in ("query", "key", "value", "output")]
    more = {"scale": layer.scale, "rotary": layer.rotary, "dtype": dtype}
    return reference.vjp(
        reference.multi_head_attention, query, key, value, *weights, **p, **more, **options
    )


@sizes
@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_float32_errs_no_more_than_plain_numpy(kind, by_head, options, rng):
    layer = make(kind, rng, "float32")
    options = OPTIONS[options](rng, (B, H) if by_head else (B,))
    if "bias" in options:
        options["bias"] = options["bias"].astype(np.float32)
    qkv = [x.astype(np.float32) for x in arrays(layer, rng)]
    shown = {"return_weights": True, "return_lse": True}
    output, pullback = attnc.vjp(layer, *qkv, **options, **shown)
    exact, exact_back = twin(layer, *qkv, **options, **shown)
    naive, naive_back = twin(layer, *qkv, dtype=np.float32, **options, **shown)
    for got, wanted, plain in zip(output, exact, naive, strict=True):
        assert_close_like_naive(got, wanted, plain, np.abs(qkv[0]).max())
    d = [rng.standard_normal(x.shape).astype(np.float32) for x in output]
    gradients = pullback(d[0], dweights=d[1], dlse=d[2])
    exact, naive = (back(d[0], dweights=d[1], dlse=d[2]) for back in (exact_back, naive_back))
    found = vars(gradients) | dict(layer.gradients)
    assert found.keys() == vars(exact).keys()
    for name, got in found.items():
        wanted, plain = vars(exact)[name], vars(naive)[name]
        size = max(np.abs(x).max() for x in (*d, *qkv)) * np.sqrt(got.size)
        assert_close_like_naive(got, wanted, plain, size, what=name)


def test_reference_by_differences(rng):
    layer = make("both", rng)
    qkv = arrays(layer, rng)
    bias = rng.standard_normal((B, TQ, TK))

    def run(*arrays):
        p = dict(layer.parameters)
        names = [*(f"{name}_weight" for name in ("query", "key", "value", "output")), *p]
        p = dict(zip(dict.fromkeys(names), arrays[4:], strict=True))
        weights = [p.pop(f"{name}_weight") for name in ("query", "key", "value", "output")]
        return reference.multi_head_attention(
            *arrays[:3], *weights, **p, rotary=True, bias=arrays[3]
        )

    output, pullback = twin(layer, *qkv, bias=bias)
    p = layer.parameters
    names = [f"{name}_weight" for name in ("query", "key", "value", "output")]
    names = list(dict.fromkeys([*names, *p]))
    given = *qkv, bias, *(p[name] for name in names)

    def gradients(d):
        found = vars(pullback(d))
        return [found[name] for name in ("query", "key", "value", "bias", *names)]

    attnc.check_gradients(run, gradients, *given)


@sizes
def test_reference_does_not_read_padding(kind, rng):
    layer = make(kind, rng)
    query, key, value = arrays(layer, rng)
    d = rng.standard_normal((B, TQ, layer.output_size))
    clean = vars(twin(layer, query, key, value, key_lengths=np.array([2, 4]))[1](d))
    key[0, 2:] = value[0, 2:] = np.nan
    got = vars(twin(layer, query, key, value, key_lengths=np.array([2, 4]))[1](d))
    for name, gradient in got.items():
        assert_agree(gradient, clean[name], name)

"""Layers made of attention: pooling, hierarchies, gates, attention over attention."""

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import check_float32, check_house, check_layer, randomize

import attnc

B, S, TQ, TK, D, A = 2, 3, 4, 5, 7, 6


def softmax(scores, axis=-1):
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def close(got, wanted):
    """In float64 both are sums of a few products."""
    for x, y in zip(got, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14)


# ---- The formulas in plain NumPy, one sequence at a time -----------------------------------------


def pooled(x, p):
    """Yang et al. 2016, eq. 5-7: (vector, weights)."""
    a = softmax(np.tanh(x @ p["weight"] + p["bias"]) @ p["query"])
    return a @ x, a


def on_attention(q, c, p):
    """Huang et al. 2019, with the two weights of each map apart: [q; c] W = q W_q + c W_v."""
    maps = []
    for name in ("information", "gate"):
        W_q, W_v = np.split(p[f"{name}.weight"], [q.shape[-1]])
        maps.append(q @ W_q + c @ W_v + p[f"{name}.bias"])
    return sigmoid(maps[1]) * maps[0]


def over_attention(q, k, v):
    """Cui et al. 2017, with M (document, query) as there: (context, s, beta)."""
    M = k @ q.T
    alpha, beta = softmax(M, axis=0), softmax(M, axis=1).mean(axis=0)
    s = alpha @ beta
    return s @ v, s, beta


# ---- One of everything ---------------------------------------------------------------------------


def additive(dtype="float64", rng=0):
    return attnc.AdditiveAttention(D, D, A, rng=rng, dtype=dtype)


LAYERS = {
    "pooling": lambda dtype="float64": attnc.AttentionPooling(D, A, rng=0, dtype=dtype),
    "hierarchical": lambda dtype="float64": attnc.HierarchicalAttention(
        D, 3, A, rng=0, dtype=dtype
    ),
    "hierarchical, no GRU": lambda dtype="float64": attnc.HierarchicalAttention(
        D, rng=0, dtype=dtype
    ),
    "on": lambda dtype="float64": attnc.AttentionOnAttention(
        additive(dtype), D, output_size=3, rng=1
    ),
    "on itself": lambda dtype="float64": attnc.AttentionOnAttention(
        attnc.SelfAttention(D, 6, 5, rng=0, dtype=dtype), D, 5, rng=1
    ),
    "gated": lambda dtype="float64": attnc.GatedAttention(
        additive(dtype), attnc.DotProductAttention(dtype=dtype), D, rng=1
    ),
    "over": lambda dtype="float64": attnc.AttentionOverAttention(dtype=dtype),
}


def inputs(name, rng):
    if "hierarchical" in name:
        return (rng.standard_normal((B, S, TK, D)),)
    if name in ("pooling", "on itself"):
        return (rng.standard_normal((B, TK, D)),)
    return rng.standard_normal((B, TQ, D)), rng.standard_normal((B, TK, D))


MASKS = {
    "pooling": {"key_lengths": [3, 0]},
    "hierarchical": {"word_lengths": [[3, 5, 1], [2, 0, 0]], "sentence_lengths": [2, 3]},
    "hierarchical, no GRU": {"word_lengths": [[3, 5, 0], [0, 0, 0]]},
    "on": {"key_lengths": [3, 0], "query_lengths": [2, 4]},
    "on itself": {"key_lengths": [3, 5], "query_lengths": [3, 5], "causal": True},
    "gated": {"key_lengths": [3, 0], "query_lengths": [2, 4]},
    "over": {"key_lengths": [3, 5], "query_lengths": [2, 0]},
}

every = pytest.mark.parametrize("name", LAYERS)


@every
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weights", [False, True])
def test_gradients(name, masked, weights, rng):
    layer = randomize(LAYERS[name](), rng)
    options = dict(MASKS[name]) if masked else {}
    if weights:
        options["return_weights"] = True
    check_layer(layer, inputs(name, rng), options, rng)


@every
def test_house(name, rng, tmp_path):
    check_house(LAYERS[name](), tmp_path)
    check_float32(LAYERS[name]("float32"), inputs(name, rng), MASKS[name])


@every
def test_gradients_in_the_dtype_of_the_inputs(name, rng):
    layer = LAYERS[name]("float32")
    arrays = [x.astype(np.float16) for x in inputs(name, rng)]
    y, pullback = attnc.vjp(layer, *arrays)
    wide, back = attnc.vjp(layer, *(x.astype(np.float32) for x in arrays))
    assert_same(y, wide)
    for got, wanted in zip(pullback(y), back(wide), strict=True):
        assert got.dtype == np.float16
        assert_same(got, wanted.astype(np.float16))


def padded(name, arrays, value):
    """Copies in which `value` stands wherever MASKS say padding."""
    arrays, masks = [x.copy() for x in arrays], MASKS[name]
    if "hierarchical" in name:
        x, words = arrays[0], np.array(masks["word_lengths"])
        sentences = masks.get("sentence_lengths", [S] * B)
        for b, s in np.ndindex(B, S):
            x[b, s, words[b, s] if s < sentences[b] else 0 :] = value
        return arrays
    for row, length in enumerate(masks["key_lengths"]):
        arrays[-1][row, length:] = value
    for row, length in enumerate(masks.get("query_lengths", ())):
        arrays[0][row, length:] = value
    return arrays


@every
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_padding_is_not_read(name, value, rng):
    layer = randomize(LAYERS[name](), rng)
    arrays, options = inputs(name, rng), {**MASKS[name], "return_weights": True}
    found = []
    for some in (padded(name, arrays, 0.0), padded(name, arrays, value)):
        layer.zero_grad()
        output, pullback = attnc.vjp(layer, *some, **options)
        gradients = pullback(np.ones_like(output[0]))
        assert all(np.isfinite(x).all() for x in (*output, *gradients))
        found.append([*output, *gradients, *(g.copy() for g in layer.gradients.values())])
        # Padding moves nothing, and nothing moves it.
        for d, mark in zip(gradients, padded(name, [0 * x for x in arrays], 1.0), strict=True):
            assert not d[mark == 1].any()
    for one, other in zip(*found, strict=True):
        assert_agree(one, other)


@every
def test_empty(name, rng):
    """No batch, no words, no sentences: all is 0 or empty."""
    layer = LAYERS[name]()
    for axis in range(-2, -2 - (3 if "hier" in name else 2), -1):
        arrays = inputs(name, rng)
        shape = list(arrays[-1].shape)
        shape[axis] = 0
        arrays = [*arrays[:-1], np.zeros(shape)]
        if axis == -3 and len(arrays) == 2:
            arrays[0] = arrays[0][:0]
        output, pullback = attnc.vjp(layer, *arrays, return_weights=True)
        gradients = pullback(np.ones_like(output[0]))
        assert all(np.isfinite(x).all() for x in (*output, *gradients))
        assert [g.shape for g in gradients] == [x.shape for x in arrays]
        if "on" not in name.split() and axis == -2:  # a gate on nothing has a bias
            assert not output[0].any()


@every
def test_a_nan_that_counts_reaches_the_result(name, rng):
    arrays = list(inputs(name, rng))
    arrays[-1][0, 0] = np.nan
    y = LAYERS[name]()(*arrays)
    assert np.isnan(y[0]).any() and np.isfinite(y[1]).all()


@every
def test_pullback_of_nothing_and_of_what_was_not_asked_for(name, rng):
    layer = LAYERS[name]()
    y, pullback = attnc.vjp(layer, *inputs(name, rng))
    with pytest.raises(TypeError, match=rf"^{type(layer).__name__}: pullback must get dcontext"):
        pullback()
    with pytest.raises(ValueError, match=rf"^{type(layer).__name__}: dcontext must have shape"):
        pullback(np.ones((1, *y.shape)))
    weights = "dword_weights" if "hier" in name else "dweights"
    with pytest.raises((ValueError, TypeError), match=weights):
        pullback(**{weights: np.ones(3)})
    assert not any(g.any() for g in layer.gradients.values())


@every
def test_several_threads_of_python_may_call_a_pullback(name, rng):
    from concurrent.futures import ThreadPoolExecutor

    layer = LAYERS[name]()
    y, pullback = attnc.vjp(layer, *inputs(name, rng))
    once = pullback(y)
    alone = {n: g.copy() for n, g in layer.gradients.items()}
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: pullback(y), range(7)):
            assert_same(tuple(found), tuple(once))
    for n, g in layer.gradients.items():
        np.testing.assert_allclose(g, 8 * alone[n], rtol=1e-12, atol=1e-13)


# ---- AttentionPooling ----------------------------------------------------------------------------


def test_pooling_is_the_formula(rng):
    layer = randomize(LAYERS["pooling"](), rng)
    (x,) = inputs("pooling", rng)
    output = layer(x, key_lengths=[5, 2], return_weights=True)
    close((output.context[0], output.weights[0]), pooled(x[0], layer.parameters))
    vector, weights = pooled(x[1, :2], layer.parameters)
    close((output.context[1], output.weights[1]), (vector, [*weights, 0, 0, 0]))


@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_pooling_of_any_leading_axes(lead, rng):
    layer = randomize(LAYERS["pooling"](), rng)
    x = rng.standard_normal((*lead, TK, D))
    output, _ = check_layer(layer, (x,), {"return_weights": True}, rng)
    for index in np.ndindex(lead):
        close((output.context[index], output.weights[index]), pooled(x[index], layer.parameters))


def test_pooling_is_additive_attention_with_a_constant_query(rng):
    layer = randomize(LAYERS["pooling"](), rng)
    (x,) = inputs("pooling", rng)
    p = layer.parameters
    mask = np.array([[True, False, True, True, False]] * B)
    wanted = attnc.additive_attention(
        np.zeros((1, 1, A)), x, x, p["query"], key_weight=p["weight"], score_bias=p["bias"],
        key_mask=mask,
    )  # fmt: skip
    close(layer(x, key_mask=mask), wanted[:, 0])


def test_pooling_drops_weights_in_training(rng):
    layer = attnc.AttentionPooling(D, dropout=0.5, rng=0, dtype="float64")
    (x,) = inputs("pooling", rng)
    calm = layer(x)
    assert_same(layer(x, rng=1), calm)
    dropped, _ = check_layer(layer, (x,), {"train": True, "rng": 1}, rng)
    assert (dropped != calm).any() and (layer(x, train=True, rng=2) != dropped).any()


# ---- HierarchicalAttention -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hierarchical", "hierarchical, no GRU"])
def test_a_hierarchy_is_the_formula(name, rng):
    """Each document by itself, without padding."""
    layer = randomize(LAYERS[name](), rng)
    p = {level: getattr(layer, f"{level}_attention").parameters for level in ("word", "sentence")}
    (x,) = inputs(name, rng)
    words, sentences = [[3, 5, 1], [2, 4, 0]], [3, 2]
    output = layer(x, words, sentences, return_weights=True)
    for b in range(B):
        vectors = []
        for s in range(sentences[b]):
            h = x[b, s, : words[b][s]]
            if layer.word_encoder is not None:
                h = layer.word_encoder(h[None]).outputs[0]
            vector, weights = pooled(h, p["word"])
            close(output.word_weights[b, s], [*weights, *[0] * (TK - len(weights))])
            vectors.append(vector)
        h = np.array(vectors)
        if layer.sentence_encoder is not None:
            h = layer.sentence_encoder(h[None]).outputs[0]
        vector, weights = pooled(h, p["sentence"])
        close(output.sentence_weights[b], [*weights, *[0] * (S - len(weights))])
        close(output.context[b], vector)


def test_a_document_ends_with_its_last_sentence_that_has_a_word(rng):
    layer = randomize(LAYERS["hierarchical"](), rng)
    (x,) = inputs("hierarchical", rng)
    words = [[2, 3, 0], [0, 4, 0]]
    output = layer(x, words, return_weights=True)
    assert_same(output, layer(x, words, [2, 2], return_weights=True))
    assert (output.sentence_weights[1] == [0, 1, 0]).all()
    assert_same(layer(x), layer(x, TK, S))
    assert not layer(x, 0).any()


def test_shorter_padding_changes_nothing(rng):
    layer = randomize(LAYERS["hierarchical"](), rng)
    (x,) = inputs("hierarchical", rng)
    words = np.array([[3, 2, 0], [1, 3, 0]])
    assert_agree(layer(x, words), layer(x[:, :2, :3], words[:, :2]))


def test_weights_of_both_levels_have_gradients_alone(rng):
    layer = randomize(LAYERS["hierarchical"](), rng)
    x = inputs("hierarchical", rng)
    output, pullback = attnc.vjp(layer, *x, return_weights=True)
    (dx,) = pullback(dword_weights=rng.standard_normal(output.word_weights.shape))
    assert dx.any() and not layer.gradients["sentence_attention.weight"].any()
    pullback(dsentence_weights=rng.standard_normal(output.sentence_weights.shape))
    assert layer.gradients["sentence_attention.weight"].any()


# ---- AttentionOnAttention ------------------------------------------------------------------------


def test_attention_on_attention_is_the_formula(rng):
    layer = randomize(LAYERS["on"](), rng)
    q, k = inputs("on", rng)
    context, weights = layer.attention(q, k, key_lengths=[3, 5], return_weights=True)
    output = layer(q, k, key_lengths=[3, 5], return_weights=True)
    close(output, (on_attention(q, context, layer.parameters), weights))


def test_attention_on_several_heads_with_a_cache(rng):
    heads = attnc.MultiHeadAttention(8, 2, rng=0, dtype="float64")
    layer = attnc.AttentionOnAttention(heads, 8, rng=1)
    x = rng.standard_normal((B, 6, 8))
    whole, _ = check_layer(layer, (x,), {"causal": True, "return_weights": True}, rng)
    cache = attnc.KVCache()
    steps = [layer(x[:, t : t + 1], causal=True, cache=cache) for t in range(6)]
    assert_agree(np.concatenate(steps, axis=1), whole.context)


def test_options_with_gradients_pass_through(rng):
    q, k = inputs("on", rng)
    bias = rng.standard_normal((B, TQ, TK))
    for name in ("on", "gated"):
        check_layer(randomize(LAYERS[name](), rng), (q, k), {"bias": bias, "sink": np.ones(B)}, rng)


def test_a_query_that_attends_to_nothing_answers_for_itself(rng):
    layer = randomize(LAYERS["on"](), rng)
    q, k = inputs("on", rng)
    y = layer(q, k, key_lengths=[0, 5])
    close(y[0], on_attention(q[0], np.zeros((TQ, D)), layer.parameters))


# ---- GatedAttention ------------------------------------------------------------------------------


def test_gated_attention_is_the_formula(rng):
    layer = randomize(LAYERS["gated"](), rng)
    q, k = inputs("gated", rng)
    c, u = layer.first(q, k, return_weights=True)
    d, w = layer.second(q, k, return_weights=True)
    p = layer.parameters
    g = sigmoid(q @ p["gate.weight"] + p["gate.bias"])
    wanted = g * c + (1 - g) * d, g * u + (1 - g) * w, g[..., 0]
    output = layer(q, k, return_weights=True)
    close(output, wanted)
    # The mixed weights are the weights of the mixed context.
    close(output.weights @ k, output.context)


def test_gates_of_several_heads(rng):
    made = [attnc.MultiHeadAttention(8, 2, rng=n, dtype="float64") for n in range(2)]
    layer = attnc.GatedAttention(*made, 8, rng=2)
    x = rng.standard_normal((B, TK, 8))
    output, _ = check_layer(layer, (x, x), {"return_weights": True, "causal": True}, rng)
    assert output.weights.shape == (B, 2, TK, TK) and output.gate.shape == (B, TK)


def test_both_drop_different_weights(rng):
    layer = attnc.GatedAttention(
        *(attnc.DotProductAttention(dropout=0.5, dtype="float64") for _ in range(2)), D, rng=0
    )
    q, k = inputs("gated", rng)
    options = {"train": True, "return_weights": True}
    output, _ = check_layer(layer, (q, k), {**options, "rng": 3}, rng)
    drawn, g = np.random.default_rng(3), output.gate[..., None]
    c, d = (each(q, k, train=True, rng=drawn) for each in (layer.first, layer.second))
    assert (c != d).any()
    close(output.context, g * c + (1 - g) * d)


# ---- AttentionOverAttention ----------------------------------------------------------------------


def test_attention_over_attention_is_the_formula(rng):
    layer = LAYERS["over"]()
    q, k = inputs("over", rng)
    v = rng.standard_normal((B, TK, 3))
    output, _ = check_layer(layer, (q, k, v), {"return_weights": True}, rng)
    for b in range(B):
        close([x[b] for x in output], over_attention(q[b], k[b], v[b]))
    np.testing.assert_allclose(output.weights.sum(axis=-1), 1)
    np.testing.assert_allclose(output.query_weights.sum(axis=-1), 1)


def test_attention_over_attention_of_what_is_not_masked(rng):
    layer = LAYERS["over"]()
    q, k = inputs("over", rng)
    mask = np.array([[True, False, True, True, False], [True] * 5])
    options = {"key_mask": mask, "query_lengths": [2, 4], "return_weights": True}
    output, _ = check_layer(layer, (q, k), options, rng)
    context, s, beta = over_attention(q[0, :2], k[0, mask[0]], k[0, mask[0]])
    close((output.context[0], output.weights[0, mask[0]]), (context, s))
    close(output.query_weights[0], [*beta, 0, 0])
    assert not output.weights[0, ~mask[0]].any()
    close(layer(q, k, key_lengths=[3, 5]), layer(q, k, key_mask=np.arange(TK) < [[3], [5]]))


def test_one_question_for_many_documents(rng):
    q, k = rng.standard_normal((1, TQ, D)), rng.standard_normal((B, TK, D))
    output, (dq, _) = check_layer(LAYERS["over"](), (q, k), {"return_weights": True}, rng)
    assert dq.shape == q.shape
    for b in range(B):
        close([x[b] for x in output], over_attention(q[0], k[b], k[b]))


# ---- What is refused -----------------------------------------------------------------------------

X, Q = np.ones((B, TK, D)), np.ones((B, TQ, D))
DOCUMENTS = np.ones((B, S, TK, D))
DOT = attnc.DotProductAttention()

REFUSED = [
    (lambda: attnc.AttentionPooling(0), ValueError, "AttentionPooling: input_size must be a posi"),
    (lambda: attnc.AttentionPooling(3, True), ValueError, "hidden_size must be a positive integer"),
    (lambda: attnc.AttentionPooling(3, dropout=1), ValueError, "dropout must lie in 0 <= dropout"),
    (lambda: attnc.AttentionPooling(D)(X[..., :3]), ValueError, r"x must have shape \(..., T, 7\)"),
    (lambda: attnc.AttentionPooling(D)(X[0, 0]), ValueError, "x must have shape"),
    (lambda: attnc.AttentionPooling(D)("x"), TypeError, "AttentionPooling: x must be"),
    (lambda: attnc.AttentionPooling(D)(np.ma.ones((2, D))), TypeError, "x must be a plain array"),
    (lambda: attnc.AttentionPooling(D)(X, key_mask=np.ones((B, TK))), TypeError, "key_mask must"),
    (lambda: attnc.AttentionPooling(D)(X, key_lengths=[9, 1]), ValueError, "key_lengths must"),
    (lambda: attnc.AttentionPooling(D)(X, train=1), TypeError, "train must be True"),
    (lambda: attnc.AttentionPooling(D)(X, return_weights=1), TypeError, "return_weights must"),
    (lambda: attnc.AttentionPooling(D)(X, causal=True), TypeError, "causal"),
    (lambda: attnc.vjp(attnc.AttentionPooling(D), X, causal=True), TypeError, "causal"),
    (lambda: attnc.HierarchicalAttention(3, 0), ValueError, "Hier.*: state_size must be a posit"),
    (lambda: attnc.HierarchicalAttention(3, 2, 0), ValueError, "hidden_size must be a positive"),
    (lambda: attnc.HierarchicalAttention(D)(X), ValueError, r"x must have shape \(B, S, T, 7\)"),
    (lambda: attnc.HierarchicalAttention(D)(DOCUMENTS, [1, 2]), ValueError, "word_lengths must ha"),
    (lambda: attnc.HierarchicalAttention(D)(DOCUMENTS, 6), ValueError, "word_lengths must lie"),
    (lambda: attnc.HierarchicalAttention(D)(DOCUMENTS, 1.0), TypeError, "word_lengths must"),
    (lambda: attnc.HierarchicalAttention(D)(DOCUMENTS, 2, 4), ValueError, "sentence_lengths must"),
    (lambda: attnc.HierarchicalAttention(D)(DOCUMENTS, 2, [1] * 3), ValueError, "sentence_lengths"),
    (lambda: attnc.HierarchicalAttention(D)(DOCUMENTS, train=1), TypeError, "train must be True"),
    (lambda: attnc.AttentionOnAttention(3, 4), TypeError, "Atten.*: attention must be a layer"),
    (lambda: attnc.AttentionOnAttention(DOT, 0), ValueError, "query_size must be a positive integ"),
    (lambda: attnc.AttentionOnAttention(DOT, D)(X[..., :3], X), ValueError, "query must have sha"),
    (lambda: attnc.AttentionOnAttention(DOT, D, 3)(Q, X), ValueError, r"context must have"),
    (lambda: attnc.AttentionOnAttention(DOT, D)(Q, X, causl=True), TypeError, "mean 'causal'"),
    (lambda: attnc.AttentionOnAttention(DOT, D)(Q), TypeError, "key"),
    (
        lambda: attnc.AttentionOnAttention(attnc.GRU(D, 3), D)(X),
        TypeError,
        "attention must return a context, or a named tuple that begins with it, got Recurrent",
    ),
    (lambda: attnc.GatedAttention(DOT, None, 3), TypeError, "Gated.*: second must be a layer, got"),
    (
        lambda: attnc.GatedAttention(DOT, attnc.DotProductAttention(dtype="float64"), 3),
        TypeError,
        "second must have the dtype of first, float32, got float64",
    ),
    (lambda: attnc.GatedAttention(DOT, DOT, True), ValueError, "query_size must be a positive int"),
    (lambda: attnc.GatedAttention(DOT, DOT, D)(Q, X, return_lse=True), ValueError, "return_lse"),
    (lambda: attnc.GatedAttention(DOT, DOT, D)(Q, [[True]]), TypeError, "GatedAttention: key must"),
    (
        lambda: attnc.GatedAttention(DOT, attnc.SelfAttention(D, 3), D)(X),
        TypeError,
        None,
    ),
    (lambda: attnc.AttentionOverAttention(dtype="int64"), TypeError, "dtype must be float32 or fl"),
    (lambda: attnc.AttentionOverAttention()(Q, X[..., :3]), ValueError, r"key must have shape"),
    (lambda: attnc.AttentionOverAttention()(Q, X, key_mask=[True]), ValueError, "key_mask"),
    (lambda: attnc.AttentionOverAttention()(Q, X, query_lengths=[5, 5]), ValueError, "query_leng"),
    (lambda: attnc.AttentionOverAttention()(Q, X[:1], Q), ValueError, "value"),
]  # fmt: skip


@pytest.mark.parametrize("call, kind, said", REFUSED, ids=range(len(REFUSED)))
def test_refused(call, kind, said):
    with pytest.raises(kind, match=said):
        call()


@every
def test_strange_layouts(name, rng):
    layer = randomize(LAYERS[name](), rng)
    arrays = inputs(name, rng)
    wanted = layer(*arrays)
    turned = [np.asfortranarray(x) for x in arrays]
    swapped = [x.astype(x.dtype.newbyteorder()) for x in arrays]
    lists = [x.tolist() for x in arrays]
    fixed = [x.copy() for x in arrays]
    for x in fixed:
        x.flags.writeable = False
    backwards = [np.flip(np.flip(x).copy()) for x in arrays]
    for others in (turned, swapped, lists, fixed, backwards):
        assert_same(layer(*others), wanted)


@every
def test_same_bits_for_any_number_of_threads(name, rng):
    layer = randomize(LAYERS[name]("float32"), rng)
    big = [np.tile(x, (9, *[4] * (x.ndim - 2), 1)) for x in inputs(name, rng)]
    found = []
    for threads in (1, 2):
        layer.zero_grad()
        with attnc.set_num_threads(threads):
            y, pullback = attnc.vjp(layer, *big)
            found.append([y, *pullback(y), *(g.copy() for g in layer.gradients.values())])
    assert_same(*found)

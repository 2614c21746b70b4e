"""MonotonicAttention and ChunkwiseAttention: energies, the expectation over them, decisions."""

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import check_float32, check_house, check_layer, randomize

import attnc
from attnc import functional

B, TQ, TK, D, DV = 3, 4, 11, 6, 5
SCORES = "additive", "multiplicative", "dot", "cosine"
KINDS = [(score, width) for score in SCORES for width in (1, 3)]
kinds = pytest.mark.parametrize(("score", "width"), KINDS)


def make(score, width, dtype="float64", **options):
    """Of width 1 the one layer, else the other."""
    options = {"score": score, "rng": 0, "dtype": dtype} | options
    if score == "additive":
        options.setdefault("hidden_size", 7)
    if width == 1:
        return attnc.MonotonicAttention(D, D, **options)
    return attnc.ChunkwiseAttention(D, D, width, **options)


def random_layer(score, width, rng, **options):
    return randomize(make(score, width, **options), rng)


def arrays(rng, lead=(B,)):
    shapes = (*lead, TQ, D), (*lead, TK, D), (*lead, TK, DV)
    return tuple(rng.standard_normal(shape) for shape in shapes)


def starts(rng):
    return 0.9 * rng.dirichlet(np.ones(TK), B)


OPTIONS = {
    "none": lambda rng: {},
    "lengths": lambda rng: {"key_lengths": [TK, 0, 5]},
    "key mask": lambda rng: {"key_mask": rng.random((B, TK)) < 0.6},
    "previous": lambda rng: {"previous": starts(rng)},
    "training": lambda rng: {"train": True, "rng": 3},
    "all": lambda rng: {
        "key_mask": rng.random((B, TK)) < 0.8,
        "key_lengths": [TK, 3, 5],
        "previous": starts(rng),
        "train": True,
        "rng": 3,
    },
}


def formula(layer, prefix, query, key):
    """The scores of a layer's parameters, as the papers have them, in plain NumPy."""
    p = {n.removeprefix(prefix): x for n, x in layer.parameters.items() if n.startswith(prefix)}
    if layer.score == "additive":
        hidden = np.tanh(
            (query @ p["query_weight"])[..., None, :]
            + (key @ p["key_weight"])[..., None, :, :]
            + p["score_bias"]
        )
        v = p["score_vector"]
        scores = hidden @ (p["gain"] * v / np.linalg.norm(v) if "gain" in p else v)
    elif layer.score == "multiplicative":
        scores = query @ p["weight"] @ key.swapaxes(-1, -2)
    elif layer.score == "dot":
        scores = query @ key.swapaxes(-1, -2)
    else:
        query, key = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, key))
        scores = p["scale"] * query @ key.swapaxes(-1, -2)
    return scores + p.get("offset", 0.0)


@kinds
@pytest.mark.parametrize("option", OPTIONS)
def test_gradients(score, width, option, rng):
    options = OPTIONS[option](rng)
    layer = random_layer(score, width, rng)
    output, gradients = check_layer(layer, arrays(rng), options, rng)
    assert len(gradients) == 3
    assert vars(gradients).keys() == {"query", "key", "value"} | ({"previous"} & options.keys())
    assert output._fields[:3] == ("context", "alignment", "missing")


@kinds
def test_it_is_the_functions(score, width, rng):
    layer, (query, key, value) = random_layer(score, width, rng), arrays(rng)
    options = {"key_mask": rng.random((B, TK)) < 0.8, "key_lengths": [TK, 3, 5]}
    previous = starts(rng)
    output = layer(query, key, value, previous=previous, **options)
    p = 1 / (1 + np.exp(-formula(layer, "energy.", query, key)))
    expected = attnc.monotonic_alignment(p, previous, **options)
    assert_agree(output.alignment, expected.alignment)
    assert_agree(output.missing, expected.missing)
    scores = formula(layer, "chunk.", query, key) if width > 1 else p
    context = attnc.chunkwise_attention(
        expected.alignment, scores, value, width, return_weights=True, **options
    )
    assert_agree(output.context, context.context)
    if width > 1:
        assert_agree(output.weights, context.weights)
    else:
        assert_agree(output.context, output.alignment @ value)


@kinds
def test_the_memory_is_keys_and_values(score, width, rng):
    layer, (query, memory, _) = random_layer(score, width, rng), arrays(rng)
    output, (dquery, dmemory) = check_layer(layer, (query, memory), {"key_lengths": [9, 5, 0]}, rng)
    assert_same(output, layer(query, memory, memory, key_lengths=[9, 5, 0]))
    assert dquery.shape == query.shape and dmemory.shape == memory.shape


@kinds
@pytest.mark.parametrize("lead", [(), (2, 3), (0,)], ids=str)
def test_leading_axes(score, width, lead, rng):
    layer = random_layer(score, width, rng)
    check_layer(layer, arrays(rng, lead), {}, rng)
    output = layer(*arrays(rng, lead), hard=True)
    assert output.context.shape == (*lead, TQ, DV) and output.missing.shape == (*lead, TQ)


@kinds
def test_house(score, width, rng, tmp_path):
    check_house(make(score, width), tmp_path)
    check_float32(make(score, width, "float32"), arrays(rng), {"key_lengths": [9, 5, 3]})
    layer = make(score, width, offset=-4, noise=0.5)
    assert "offset=-4.0, noise=0.5" in repr(layer)
    assert layer.parameters["energy.offset"] == -4


def test_initial_values():
    parameters = make("additive", 2, hidden_size=16).parameters
    assert parameters["energy.gain"] == 16**-0.5 and parameters["energy.offset"] == -1
    assert not parameters["energy.score_bias"].any()
    assert "chunk.gain" not in parameters and "chunk.offset" not in parameters
    default = attnc.MonotonicAttention(5, 3, rng=0).parameters
    assert default["energy.query_weight"].shape == (5, 5)
    assert make("cosine", 2).parameters["energy.scale"] == 10


@kinds
@pytest.mark.parametrize("hard", [False, True], ids=["expected", "hard"])
def test_one_query_at_a_time_is_the_sequence(score, width, hard, rng):
    layer, (query, key, value) = random_layer(score, width, rng, offset=-0.5), arrays(rng)
    options = {"key_lengths": [TK, 4, 7], "hard": hard}
    whole, previous = layer(query, key, value, **options), None
    for i in range(TQ):
        step = layer(query[:, i : i + 1], key, value, previous=previous, **options)
        for got, want in zip(step, whole, strict=True):
            assert_agree(got[:, 0], want[:, i])
        previous = step.alignment[:, 0]


@kinds
def test_decisions(score, width, rng):
    """They are the recurrence over probabilities of 0 and 1, and the softmax of one chunk."""
    layer = random_layer(score, width, rng)
    layer.parameters["energy.offset"] = -0.5
    if score == "additive":
        layer.parameters["energy.gain"] = 2.0
    query, key, value = (rng.standard_normal((20, n, d)) for n, d in ((5, D), (70, D), (70, DV)))
    options = {"key_mask": rng.random((20, 70)) < 0.7, "key_lengths": rng.integers(0, 71, 20)}
    for previous in (None, np.eye(71, 70)[rng.integers(0, 71, 20)]):
        output = layer(query, key, value, previous=previous, hard=True, **options)
        chosen = formula(layer, "energy.", query, key) >= 0
        expected = attnc.monotonic_alignment(chosen.astype(float), previous, **options)
        assert_same(output.alignment, expected.alignment)
        assert_same(output.missing, expected.missing)
        assert 0 < output.missing.mean() < 1
        scores = formula(layer, "chunk.", query, key) if width > 1 else chosen.astype(float)
        right = attnc.chunkwise_attention(
            expected.alignment, scores, value, width, return_weights=True, **options
        )
        assert_agree(output.context, right.context)
        if width > 1:
            assert_agree(output.weights, right.weights)


def test_decisions_take_linear_time(monkeypatch, rng):
    """Energies are taken of the keys that queries pass, and of some behind; no other is read."""
    taken = []
    scores = functional.multiplicative_scores

    def counting(query, key, *arrays, **options):
        taken.append(key.shape[0] * key.shape[1])
        return scores(query, key, *arrays, **options)

    monkeypatch.setattr(functional, "multiplicative_scores", counting)
    layer = attnc.MonotonicAttention(1, 1, score="multiplicative", offset=-0.5, rng=0)
    layer.parameters["energy.weight"] = np.ones((1, 1))
    for Tk, every in ((4000, 40), (4000, 400), (1000, 1)):
        key = np.zeros((2, Tk, 1), np.float32)
        key[:, ::every] = 1  # energies of 1/2 there, else -1/2; each query then stays where it is
        query = np.ones((2, 50, 1), np.float32)
        assert layer(query, key, hard=True).alignment[:, :, 0].all()
        taken.clear()
        # One query a call moves on to the next such key: it begins behind the last.
        at = 0
        steps = min(50, Tk // every - 1)
        for _ in range(steps):
            previous = np.zeros((2, Tk), np.float32)
            previous[:, at + 1] = 1
            output = layer(query[:, :1], key, previous=previous, hard=True)
            (at,) = set(output.alignment[:, 0].argmax(-1).tolist())
        assert at == steps * every
        assert sum(taken) <= 2 * (4 * at + 16 * steps)
    # Keys that no query comes near may be anything.
    key = np.zeros((2, 4000, 1), np.float32)
    key[:, 10], key[:, 100:] = 1, np.nan
    output = layer(query, key, hard=True)
    assert output.alignment[:, :, 10].all() and np.isfinite(output.context).all()


@kinds
def test_masked_memory_is_not_read(score, width, rng):
    layer, (query, key, value) = random_layer(score, width, rng), arrays(rng)
    mask = rng.random((B, TK)) < 0.6
    results = []
    for poison in (1.0, np.nan, np.inf):
        x, v = (np.where(mask[..., None], a, poison) for a in (key, value))
        output, pullback = attnc.vjp(layer, query, x, v, key_mask=mask)
        layer.zero_grad()
        gradients = pullback(np.ones_like(output.context))
        hard = layer(query, x, v, key_mask=mask, hard=True)
        kept = {name: array.copy() for name, array in layer.gradients.items()}
        results.append((output, tuple(gradients), kept, hard))
        assert not gradients.key[~mask].any() and not gradients.value[~mask].any()
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


def test_a_memory_without_keys(rng):
    for score, width in KINDS:
        layer, (query, key, value) = make(score, width), arrays(rng)
        empty = key[:, :0], value[:, :0]
        for output in (
            layer(query, *empty),
            layer(query, *empty, hard=True),
            layer(query, key, value, key_lengths=0),
            layer(query, key, value, key_lengths=0, hard=True),
        ):
            assert_same(output.context, np.zeros((B, TQ, DV)))
            assert_same(output.missing, np.ones((B, TQ)))
        assert layer(query[:, :0], key, value, hard=True).context.shape == (B, 0, DV)


def test_noise_is_for_training(rng):
    layer, qkv = random_layer("additive", 1, rng), arrays(rng)
    calm = layer(*qkv)
    assert_same(layer(*qkv, rng=1), calm)
    noisy = layer(*qkv, train=True, rng=1)
    assert_same(layer(*qkv, train=True, rng=1), noisy)
    assert (noisy.alignment != calm.alignment).any()
    assert (layer(*qkv, train=True, rng=2).alignment != noisy.alignment).any()
    layer.noise = 0.0
    assert_same(layer(*qkv, train=True, rng=1), calm)
    # It is the standard deviation of what is added to the energies.
    layer = attnc.MonotonicAttention(1, 1, score="dot", noise=2.0, offset=0, dtype="float64")
    ones = np.zeros((20_000, 1, 1))
    p = layer(ones, ones, train=True, rng=0).alignment[:, 0, 0]
    energy = np.log(p / (1 - p))
    assert abs(energy.std() - 2) < 0.05 and abs(energy.mean()) < 0.05


def test_extreme_energies(rng):
    """Far beyond where p rounds to 0 and 1: no NaN, and the gradient that is left is exact."""
    layer = attnc.MonotonicAttention(1, 1, score="dot", offset=0, dtype="float32")
    query = np.ones((1, 1, 1), np.float32)
    key = np.array([-1e30, -200, -30, 0, 30, 200], np.float32)[None, :, None]
    output, pullback = attnc.vjp(layer, query, key)
    assert np.isfinite(output.context).all()
    d = np.zeros_like(output.alignment)
    d[..., 2] = 1
    dkey = pullback(dalignment=d).key[0, :, 0]
    assert np.isfinite(dkey).all()
    assert abs(dkey[2] - np.exp(-30)) < 1e-6 * np.exp(-30)


def test_a_score_vector_of_zeros():
    layer = make("additive", 1)
    layer.parameters["energy.score_vector"] = np.zeros(7)
    output, pullback = attnc.vjp(layer, np.ones((1, 2, D)), np.ones((1, 3, D)))
    assert_agree(output.alignment[0, 0, 0], 1 / (1 + np.exp(1.0)))
    pullback(np.ones_like(output.context))
    assert all(np.isfinite(g).all() for g in layer.gradients.values())


def markers(rng, count):
    """Frames with a symbol each; at the ends of segments a mark, of even and odd ones in turn.

    Query i wants the symbol of the frame with mark i: it has to go on past the one before.
    """
    frames, symbols = 14, 4
    key, query = np.zeros((count, frames, symbols + 2)), np.zeros((count, 4, symbols + 2))
    target = np.zeros((count, 4, symbols))
    key[..., :symbols] = np.eye(symbols)[rng.integers(0, symbols, (count, frames))]
    for b in range(count):
        ends = np.sort(rng.choice(frames, 4, replace=False))
        for i, end in enumerate(ends):
            key[b, end, symbols + i % 2] = 1
            query[b, i, symbols + i % 2] = 1
            target[b, i] = key[b, end, :symbols]
    return query, key, key[..., :symbols], target


@pytest.mark.parametrize("width", [1, 2])
def test_training(width):
    """Trained in expectation, with noise, it decides right."""
    rng = np.random.default_rng(0)
    layer = (
        attnc.MonotonicAttention(6, 6, hidden_size=16, rng=0)
        if width == 1
        else attnc.ChunkwiseAttention(6, 6, 2, hidden_size=16, rng=0)
    )
    optimizer, losses = attnc.optim.Adam(layer, 0.05), []
    for _ in range(150):
        query, key, value, target = markers(rng, 32)
        output, pullback = attnc.vjp(layer, query, key, value, train=True, rng=rng)
        error = output.context - target
        losses.append((error**2).mean())
        layer.zero_grad()
        pullback(2 * error / error.size)
        optimizer.step()
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:3])
    query, key, value, target = markers(rng, 200)
    context = layer(query, key, value, hard=True).context
    assert (context.argmax(-1) == target.argmax(-1)).mean() > 0.9


Q, K = np.zeros((2, 3, D)), np.zeros((2, 4, D))
WRONG_CALLS = {
    "query of other size": ((Q[..., :2], K), {}, ValueError, "query"),
    "query a vector": ((Q[0, 0], K), {}, ValueError, "query"),
    "query of bools": ((Q > 0, K), {}, TypeError, "query"),
    "key of other size": ((Q, K[..., :2]), {}, ValueError, "key"),
    "key without batch": ((Q, K[0]), {}, ValueError, "key"),
    "key of other batch": ((Q, np.zeros((3, 4, D))), {}, ValueError, "key"),
    "value of other keys": ((Q, K, K[:, :3]), {}, ValueError, "value"),
    "value without batch": ((Q, K, K[0]), {}, ValueError, "value"),
    "previous of other keys": ((Q, K), {"previous": np.eye(3)[:2]}, ValueError, "previous"),
    "previous without batch": ((Q, K), {"previous": np.eye(4)[0]}, ValueError, "previous"),
    "previous in parts, hard": (
        (Q, K), {"previous": np.full((2, 4), 0.25), "hard": True}, ValueError, "previous"
    ),
    "previous at two keys, hard": (
        (Q, K), {"previous": np.ones((2, 4)), "hard": True}, ValueError, "previous"
    ),
    "key_mask of numbers": ((Q, K), {"key_mask": np.ones((2, 4))}, TypeError, "key_mask"),
    "key_lengths too long": ((Q, K), {"key_lengths": 5}, ValueError, "key_lengths"),
    "hard 1": ((Q, K), {"hard": 1}, TypeError, "hard"),
    "hard in training": ((Q, K), {"hard": True, "train": True}, ValueError, "hard"),
    "train 1": ((Q, K), {"train": 1}, TypeError, "train"),
    "rng a float": ((Q, K), {"train": True, "rng": 1.5}, TypeError, "rng"),
}  # fmt: skip


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("wrong", WRONG_CALLS)
def test_errors_of_calls(wrong, width):
    inputs, options, kind, name = WRONG_CALLS[wrong]
    layer = make("additive", width)
    with pytest.raises(kind, match=f"^{type(layer).__name__}: {name} must "):
        layer(*inputs, **options)


@pytest.mark.parametrize(
    ("options", "kind", "name"),
    [
        ({"query_size": 0}, ValueError, "query_size"),
        ({"key_size": 2.0}, ValueError, "key_size"),
        ({"score": "general"}, ValueError, "score"),
        ({"score": "dot", "key_size": 4}, ValueError, "key_size"),
        ({"score": "cosine", "hidden_size": 4}, ValueError, "hidden_size"),
        ({"hidden_size": 0}, ValueError, "hidden_size"),
        ({"offset": np.inf}, ValueError, "offset"),
        ({"noise": -1.0}, ValueError, "noise"),
        ({"noise": True}, TypeError, "noise"),
        ({"rng": "x"}, TypeError, "rng"),
        ({"dtype": "float16"}, TypeError, "dtype"),
        ({"width": 0}, ValueError, "width"),
    ],
    ids=str,
)
def test_errors_of_construction(options, kind, name):
    kinds = [attnc.ChunkwiseAttention]
    if name != "width":
        kinds.append(attnc.MonotonicAttention)
    for layer in kinds:
        given = {"query_size": 3, "key_size": 3} | options
        if layer is attnc.ChunkwiseAttention:
            given.setdefault("width", 2)
        with pytest.raises(kind, match=f"^{layer.__name__}: {name} must "):
            layer(**given)


@pytest.mark.parametrize("width", [1, 3])
def test_outputs_are_the_callers(width, rng):
    """What is written to them changes no gradient."""
    layer, qkv = make("additive", width), arrays(rng)
    output, pullback = attnc.vjp(layer, *qkv)
    before = tuple(pullback(np.ones_like(output.context)))
    for array in output:
        array[...] = np.nan
    assert_same(tuple(pullback(np.ones_like(output.context))), before)


def test_decisions_have_no_gradients():
    with pytest.raises(ValueError, match="^MonotonicAttention: hard must be False where gradients"):
        attnc.vjp(make("dot", 1), Q, K, hard=True)
    _, pullback = attnc.vjp(make("dot", 1), Q, K)
    with pytest.raises(TypeError, match="^MonotonicAttention: pullback must get dcontext or"):
        pullback()
    with pytest.raises(ValueError, match="^MonotonicAttention: dalignment must have shape"):
        pullback(dalignment=Q)
    with pytest.raises(ValueError, match="^MonotonicAttention: dweights must be None"):
        pullback(Q, dweights=np.zeros((2, 3, 4)))

"""LanguageModel: gradients, the loss, caches, states that share them, and generation."""

import copy
import pickle

import numpy as np
import pytest
from checks import assert_agree, assert_agree_together, assert_same
from layer_checks import check_house, like_random, randomize

import attnc

PADDING = 0
V, B, T = 9, 3, 6
LENGTHS = [6, 1, 4]
OPTIONS = [
    {},
    {"positions": "learned", "max_length": 20, "norm": "post", "tied": False},
    {"positions": "rotary", "normalization": "rms", "bias": False, "num_kv_heads": 1},
    {"positions": "alibi", "activation": "swiglu", "final_norm": False},
    {"positions": None, "padding_index": None},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def make(rng=None, **options):
    options = {"padding_index": PADDING, "dtype": "float64", "feedforward_size": 6, **options}
    model = attnc.LanguageModel(V, 8, 2, 2, rng=0, **options)
    if rng is not None:
        randomize(model, rng)
        if model.padding_index is not None:
            model.embedding.parameters["weight"][PADDING] = 0  # as it starts
    return model


def tokens_of(rng):
    return rng.integers(1, V, (B, T))


# ---- Gradients and the loss ----------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@every_option
def test_gradients_of_every_parameter(options, dropout, rng):
    model, tokens = make(rng, dropout=dropout, **options), tokens_of(rng)
    call = {"return_weights": True, "train": True, "rng": 5}  # the same places are dropped
    output, pullback = attnc.vjp(model, tokens, LENGTHS, **call)
    assert output.logits.shape == (B, T, V) and output.weights.shape == (B, 2, 2, T, T)
    assert_same(model(tokens, LENGTHS, **call), output)
    d = like_random(rng, tuple(output))
    d[0][np.arange(T) >= np.array(LENGTHS)[:, None]] = 0  # there is no logit of padding
    pullback(*d)
    gradients = {name: gradient.copy() for name, gradient in model.gradients.items()}
    size = sum(np.abs(x).sum() for x in d)
    for name, gradient in gradients.items():
        kept = model.parameters[name].copy()
        t, h, f = rng.standard_normal(kept.shape), 2e-5, {}
        if model.padding_index is not None:  # its vector is fixed
            if name == "embedding.weight":
                t[PADDING] = 0
            elif model.tied and name == "output.weight":
                t[:, PADDING] = 0
        for step in (-2, -1, 1, 2):
            model.parameters[name] = kept + step * h * t
            moved = model(tokens, LENGTHS, **call)
            f[step] = sum((x * y).sum() for x, y in zip(d, moved, strict=True))
        model.parameters[name] = kept
        numeric = (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * h)
        analytic = (t * gradient).sum()
        assert abs(numeric - analytic) <= 1e-7 * (size + abs(analytic)), name


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@every_option
def test_labels_give_the_loss(options, lengths, rng):
    """What comes after a sequence does not count, nor does padding."""
    model, tokens = make(rng, **options), tokens_of(rng)
    labels = rng.integers(1, V, (B, T))
    ignored = -1
    if model.padding_index is not None:
        labels[0, 4:], labels[2, 1], ignored = PADDING, PADDING, PADDING
    call = {"label_smoothing": 0.1}
    loss, pullback = attnc.vjp(model, tokens, lengths, labels=labels, **call)
    pullback()
    gradients = {name: gradient.copy() for name, gradient in model.gradients.items()}
    model.zero_grad()
    logits, back = attnc.vjp(model, tokens)
    counted = labels
    if lengths is not None:
        counted = np.where(np.arange(T) < np.array(lengths)[:, None], labels, ignored)
    expected, back_to_logits = attnc.vjp(
        attnc.losses.softmax_cross_entropy, logits, counted, ignore_index=ignored, **call
    )
    back(back_to_logits().logits)
    assert_agree(loss, expected)
    assert_agree_together(gradients, dict(model.gradients))


def test_the_formula(rng):
    model, tokens = make(rng), tokens_of(rng)
    positions = attnc.SinusoidalPositions(8, dtype="float64")
    x = positions(model.embedding(tokens) * np.sqrt(8))
    assert_agree(model(tokens), model.output(model.decoder(x, causal=True)))
    later = tokens.copy()
    later[:, 4:] = tokens[:, 4:] % (V - 1) + 1
    assert_agree(model(later)[:, :4], model(tokens)[:, :4])  # no token sees a later one


@pytest.mark.parametrize("size", [32, 256])
@pytest.mark.parametrize("options", [{}, {"norm": "post"}, {"tied": False}], ids=str)
def test_the_first_loss_is_that_of_a_uniform_choice(options, size, rng):
    model = attnc.LanguageModel(500, size, 4, 2, rng=0, **options)
    tokens = rng.integers(0, 500, (8, 13))
    loss = model(tokens[:, :-1], labels=tokens[:, 1:])
    assert abs(loss - np.log(500)) < 0.1 * np.log(500)


def test_training_learns():
    """To count, from anywhere on: and greedy generation goes on counting."""
    model = attnc.LanguageModel(10, 32, 2, 1, feedforward_size=64, dropout=0.1, rng=0)
    optimizer, draw = attnc.optim.Adam(model, 0.005), np.random.default_rng(1)
    for step in range(150):
        tokens = (draw.integers(0, 10, (16, 1)) + np.arange(9)) % 10
        _, pullback = attnc.vjp(model, tokens[:, :-1], labels=tokens[:, 1:], train=True, rng=step)
        model.zero_grad()
        pullback()
        optimizer.step()
    new = model.generate([[3, 4, 0], [8, 9, 0]], 2, max_length=6, temperature=0)
    assert new.tolist() == [[5, 6, 7, 8, 9, 0], [0, 1, 2, 3, 4, 5]]
    likely = model.generate(np.full((50, 1), 2), max_length=3, temperature=0.5, rng=0)
    assert (likely == [3, 4, 5]).mean() > 0.9


# ---- Caches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 4, T])
@every_option
def test_a_cache_changes_nothing(options, chunk, rng):
    """T tokens at once, or one or some at a time."""
    model, tokens = make(rng, **options), tokens_of(rng)
    expected, weights = model(tokens, return_weights=True)
    cache = model.new_cache()
    for begin in range(0, T, chunk):
        end = min(begin + chunk, T)
        got = model(tokens[:, begin:end], cache=cache, return_weights=True)
        assert_agree(got.logits, expected[:, begin:end])
        assert_agree(got.weights, weights[..., begin:end, :end])
        assert len(cache) == end
    cache.truncate(2)
    assert_agree(model(tokens[:, 2:4], cache=cache), expected[:, 2:4])
    cache.reorder([2, 2])
    rows = tokens[[2, 2]]
    assert_agree(model(rows[:, 4:], cache=cache), expected[[2, 2], 4:])


@every_option
def test_a_cache_of_rows_of_unequal_lengths(options, rng):
    model, tokens = make(rng, **options), tokens_of(rng)
    cache = model.new_cache()
    first = model(tokens[:, :4], [4, 1, 3], cache=cache)
    assert_same(cache.lengths, np.array([4, 1, 3]))
    rest = np.stack([tokens[0, 4:6], tokens[1, 1:3], tokens[2, 3:5]])
    second = model(rest, cache=cache)
    expected = model(tokens)
    for row, n in enumerate([4, 1, 3]):
        assert_agree(first[row, :n], expected[row, :n])
        assert_agree(second[row], expected[row, n : n + 2])


def test_a_loss_over_pieces(rng):
    """The loss of a long text, read in pieces through a cache."""
    model, tokens = make(rng, padding_index=None), tokens_of(rng)
    labels, cache = rng.integers(0, V, (B, T)), model.new_cache()
    parts = [
        model(tokens[:, at : at + 3], labels=labels[:, at : at + 3], cache=cache) for at in (0, 3)
    ]
    assert_agree(np.mean(parts), model(tokens, labels=labels))


def test_a_window(rng):
    """A cache that slides is a mask of the last tokens, in every layer."""
    model, tokens = make(rng, positions="rotary"), rng.integers(1, V, (B, 12))
    cache = model.new_cache(window=4)
    got = np.concatenate([model(tokens[:, t : t + 1], cache=cache) for t in range(12)], axis=1)
    x = model.embedding(tokens) * np.sqrt(8)
    assert_agree(got, model.output(model.decoder(x, causal=True, window=(3, None))))


def test_wrong_caches(rng):
    model, other, tokens = make(rng), make(rng), tokens_of(rng)
    cache = model.new_cache()
    model(tokens, cache=cache)
    with pytest.raises(
        ValueError, match="cache must be new or of this layer, got one that another"
    ):
        other(tokens, cache=cache)
    with pytest.raises(ValueError, match="LanguageModel: cache must be None for gradients"):
        attnc.vjp(model, tokens, cache=cache)
    for wrong in (attnc.KVCache(), 1, attnc.LanguageModel(V, 8, 2, 3).new_cache()):
        with pytest.raises(TypeError, match=r"cache must be None or what new_cache\(\) of this"):
            model(tokens, cache=wrong)
    with pytest.raises(ValueError, match=r"tokens must have the batch of cache, 3, got 2"):
        model(tokens[:2], cache=cache)
    small = model.new_cache(8)
    model(tokens, cache=small)
    with pytest.raises(ValueError, match="cache must have room for 12 tokens"):
        model(tokens, cache=small)
    assert len(small) == T
    short = make(rng, max_length=8)
    cache = short.new_cache()
    short(tokens, cache=cache)
    with pytest.raises(ValueError, match="tokens must have at most max_length=8 tokens, got 12"):
        short(tokens, cache=cache)
    assert len(cache) == T


def test_a_failed_call_leaves_the_cache(rng, monkeypatch):
    model, tokens = make(rng), tokens_of(rng)
    cache = model.new_cache()
    model(tokens[:, :3], cache=cache)

    def fails(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model.decoder.blocks[1].feedforward, "_forward", fails)
        with pytest.raises(KeyboardInterrupt):
            model(tokens[:, 3:], cache=cache)
    assert [len(each) for each in cache.tokens] == [3, 3]
    assert_agree(model(tokens[:, 3:], cache=cache), model(tokens)[:, 3:])


# ---- States --------------------------------------------------------------------------------------


@every_option
def test_steps_are_the_call(options, rng):
    model, tokens = make(rng, **options), tokens_of(rng)
    expected, state, states = model(tokens), None, []
    for t in range(T):
        logits, weights, after = model.step(tokens[:, t], None, state)
        assert weights is None
        assert_agree(logits, expected[:, t])
        states.append(state)
        state = after
    for t in (4, 1, 2, 0):  # every state is what it was
        logits, _, _ = model.step(tokens[:, t], None, states[t])
        assert_agree(logits, expected[:, t])


def test_states_that_part_and_share(rng):
    """Many states of one beginning, in every order: none disturbs another."""
    model = make(rng, positions="rotary")
    root = model.step(np.array([1, 2]), None)[2]
    known = {((1,), (2,)): root}
    for _ in range(60):
        paths = list(known)[rng.integers(len(known))]
        state, tokens = known[paths], rng.integers(1, V, len(state_rows := paths))
        if rng.random() < 0.3:
            rows = rng.integers(0, len(state_rows), rng.integers(1, 4))
            paths = tuple(paths[row] for row in rows)
            known[paths] = model.reorder(state, rows)
            continue
        if len(paths[0]) > 6:
            continue
        logits, _, after = model.step(tokens, None, state)
        grown = tuple((*path, int(token)) for path, token in zip(paths, tokens, strict=True))
        assert_agree(logits, model(np.array(grown))[:, -1])
        known[grown] = after
    assert len(known) > 30


def test_a_search_copies_nothing(rng):
    """Steps from the last state append in place."""
    model = make(rng)
    state = model.step([1, 2], None)[2]
    caches = state._shared.caches
    for _ in range(5):
        state = model.step([3, 4], None, state)[2]
        assert state._shared.caches is caches
    assert model.reorder(state, [0, 1]) is state
    assert len(caches[0]) == 6


# ---- Generation ----------------------------------------------------------------------------------


@every_option
def test_greedy_generation(options, rng):
    """Each new token is the most probable one of a call without a cache."""
    model, tokens = make(rng, **options), tokens_of(rng)
    new = model.generate(tokens, LENGTHS, max_length=5, temperature=0)
    assert new.shape == (B, 5)
    for row, n in enumerate(LENGTHS):
        whole = list(tokens[row, :n])
        for token in new[row]:
            assert token == model(np.array([whole]))[0, -1].argmax()
            whole.append(token)


def test_sampled_generation(rng):
    model, tokens = make(rng), tokens_of(rng)
    options = {"max_length": 7, "top_k": 4, "top_p": 0.9, "temperature": 1.3, "rng": 3}
    new = model.generate(tokens, LENGTHS, **options)
    assert_same(model.generate(tokens, LENGTHS, **options), new)
    assert (model.generate(tokens, LENGTHS, **{**options, "rng": 4}) != new).any()
    greedy = model.generate(tokens, max_length=7, temperature=0)
    assert_same(model.generate(tokens, max_length=7, top_k=1, rng=0), greedy)
    end = int(greedy[0, 2])
    ended = model.generate(tokens, max_length=7, temperature=0, end=end)
    first = greedy[0].tolist().index(end)
    assert_same(ended[0, : first + 1], greedy[0, : first + 1])
    assert (ended[0, first:] == end).all()
    banned = model.generate(
        tokens, max_length=7, rng=0, logits_hook=lambda logits, _: np.where(
            np.arange(V) == end, -np.inf, logits
        )
    )  # fmt: skip
    assert not (banned == end).any()
    assert model.generate(tokens, max_length=0).shape == (B, 0)
    frequent = model.generate(np.tile(tokens[:1], (4000, 1)), max_length=1, rng=0)[:, 0]
    logits = model(tokens[:1])[0, -1]
    share = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    counts = np.bincount(frequent, minlength=V)
    assert (np.abs(counts - 4000 * share) <= 5 * np.sqrt(4000 * share) + 5).all()


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_generation_in_a_window(lengths, rng):
    """A cache that slides sees what a mask of the last tokens leaves, in every layer."""
    model, tokens = make(rng, positions="rotary"), tokens_of(rng)
    greedy = {"max_length": 9, "temperature": 0}
    cache = model.new_cache(window=3)
    new = model.generate(tokens, lengths, cache=cache, **greedy)
    for row, n in enumerate(LENGTHS if lengths else [T] * B):
        whole = list(tokens[row, :n])
        for token in new[row]:
            x = model.embedding(np.array([whole])) * np.sqrt(8)
            seen = model.decoder(x, causal=True, window=(2, None))
            assert token == model.output(seen)[0, -1].argmax()
            whole.append(token)
    assert (
        len(cache) == (max(lengths) if lengths else T) + 8
    )  # all but the last, which nobody reads
    end = int(new[0, 2])  # sequences that have ended leave the cache
    ended = model.generate(tokens, lengths, cache=model.new_cache(window=3), end=end, **greedy)
    for got, all_of_it in zip(ended, new, strict=True):
        stop = [*all_of_it, end].index(end) + 1
        assert_same(got[:stop], all_of_it[:stop])


def test_generation_in_a_cache_of_halves(rng):
    model, tokens = make(rng), tokens_of(rng)
    caches = [model.new_cache(dtype=dtype) for dtype in (None, "float16")]
    for cache in caches:
        model.generate(tokens, max_length=3, rng=0, cache=cache)
    assert caches[0].nbytes == 4 * caches[1].nbytes > 0


def test_wrong_caches_of_generation(rng):
    model, tokens = make(rng), tokens_of(rng)
    used, small = model.new_cache(), model.new_cache(7)
    model(tokens, cache=used)
    with pytest.raises(ValueError, match="cache must be new, got one that holds 6 tokens"):
        model.generate(tokens, max_length=2, cache=used)
    with pytest.raises(TypeError, match="cache must be None or what new_cache"):
        model.generate(tokens, max_length=2, cache=attnc.KVCache())
    with pytest.raises(ValueError, match="cache must have room for 8 tokens"):
        model.generate(tokens, max_length=4, cache=small)


def test_beams(rng):
    """beam_search drives the model as it does others; without an end token all go on."""
    model = make(rng)
    beams = attnc.beam_search(model, start=[1, 2], end=8, max_length=4, beam_width=3, n_best=3)
    assert beams.weights is None
    for row, start in enumerate([1, 2]):
        for n in range(3):
            tokens = beams.tokens[row, n]
            logits = model(np.array([[start, *tokens[:-1]]]))[0]
            logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            length = tokens.tolist().index(8) + 1 if 8 in tokens else 4
            total = logs[np.arange(length), tokens[:length]].sum()
            assert_agree(beams.scores[row, n], total / ((5 + length) / 6) ** 0.6)


@pytest.mark.parametrize(("B", "T"), [(0, 4), (2, 0), (0, 0)])
def test_empty_batches(B, T):
    model, tokens = make(), np.zeros((B, T), int)
    logits, pullback = attnc.vjp(model, tokens)
    assert logits.shape == (B, T, V)
    pullback(logits)
    loss, pullback = attnc.vjp(model, tokens, labels=tokens)
    pullback()
    assert loss == 0 and not any(gradient.any() for gradient in model.gradients.values())
    cache = model.new_cache()
    assert model(tokens, cache=cache).shape == (B, T, V)
    assert model(np.ones((B, 2), int), cache=cache).shape == (B, 2, V)
    assert model.generate(np.ones((B, 2), int), max_length=3, rng=0).shape == (B, 3 * (B > 0))


def test_wrong_calls(rng):
    model, tokens = make(rng), tokens_of(rng)
    for call, text in [
        (lambda: model(tokens[0]), r"tokens must have shape \(B, T\), got \(6,\) \(one sequence"),
        (lambda: model(tokens + V), r"tokens must lie in 0\.\.8"),
        (lambda: model(tokens, [7, 1, 1]), r"lengths must lie in 0\.\.6"),
        (lambda: model(tokens, labels=tokens[:, 1:]), "labels must have the shape of tokens"),
        (lambda: model(tokens, label_smoothing=0.1), "label_smoothing must go with labels="),
        (lambda: model.generate(tokens, [1, 0, 1], max_length=3), "tokens must begin with a token"),
        (lambda: model.generate(tokens[:, :0], max_length=3), "tokens must begin with a token"),
        (lambda: model.prepare(memory=tokens), "memory must be None, as there is no memory"),
        (lambda: model.step(tokens), r"input must have shape \(B,\), got \(3, 6\)"),
        (lambda: model.step([V]), r"input must lie in 0\.\.8, got 9\.\.9"),
    ]:
        with pytest.raises(ValueError, match=f"^LanguageModel: {text}"):
            call()
    with pytest.raises(TypeError, match="state must be what step.. returned"):
        model.reorder(None, [0])


WRONG = [
    ({"num_heads": 3}, "num_heads must divide size 8, got 3"),
    ({"layers": 0}, "layers must be a positive integer, got 0"),
    ({"positions": "learned"}, "max_length must be given for positions='learned', got None"),
    ({"padding_index": 9}, "padding_index must lie in 0..8, got 9"),
    ({"tied": None}, "tied must be True or False, got None"),
]


@pytest.mark.parametrize(("wrong", "text"), WRONG, ids=lambda x: str(x)[:30])
def test_wrong_constructors(wrong, text):
    arguments = {"vocabulary_size": 9, "size": 8, "num_heads": 2, "layers": 1} | wrong
    with pytest.raises((TypeError, ValueError), match=rf"^\w+: {text}"):
        attnc.LanguageModel(**arguments)


@every_option
def test_repr_pickle_and_files(options, tmp_path, rng):
    model, tokens = make(rng, **options), tokens_of(rng)
    check_house(model, tmp_path)
    expected = model(tokens)
    attnc.save(tmp_path / "model", model)
    twin = attnc.load(tmp_path / "model").layer
    for again in (twin, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert_same(again(tokens), expected)
        assert again.parameter_count == model.parameter_count


@pytest.mark.parametrize("zero", [0, 0.0, np.float32(0), np.int64(0), np.array(0.0)])
def test_temperature_zero_of_any_kind(zero):
    model = attnc.LanguageModel(6, 8, 2, 1, rng=0)
    got = model.generate([[1, 2]], max_length=4, temperature=zero, top_k=3, top_p=0.5, rng=0)
    wanted = model.generate([[1, 2]], max_length=4, top_k=1)
    assert got.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": False},
        {"temperature": -1},
        {"temperature": np.nan},
        {"temperature": 0, "top_k": -3},
        {"temperature": 0, "top_p": "a"},
        {"temperature": 0, "rng": "x"},
    ],
)
def test_wrong_options_of_generate(wrong):
    name = list(wrong)[-1]
    with pytest.raises((TypeError, ValueError), match=f"LanguageModel: {name} must"):
        attnc.LanguageModel(6, 8, 2, 1, rng=0).generate([[1]], max_length=2, **wrong)

"""Transformer: gradients of the whole model, loss, padding, translation, and PyTorch's stacks."""

import copy
import pickle

import numpy as np
import pytest
from checks import assert_agree, assert_agree_together, assert_same
from layer_checks import check_house, like_random, randomize

import attnc

START, END, PADDING = 1, 2, 0
B, TS, T = 3, 4, 5
LENGTHS = [4, 1, 3]
OPTIONS = [
    {"norm": "pre"},
    {"positions": "learned", "max_length": 6, "tied": False, "shared_vocabulary": True},
    {"positions": "rotary", "normalization": "rms", "bias": False, "num_kv_heads": 1},
    {"positions": "alibi", "shared_vocabulary": True, "final_norm": True},
    {"positions": None, "tied": False, "activation": "swiglu"},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def make(rng=None, V=7, **options):
    """A model with two vocabularies, without the kinks of relu."""
    options = {"activation": "gelu", "padding_index": PADDING, "dtype": "float64", **options}
    V = 9 if options.get("shared_vocabulary") else V
    layers = {"encoder_layers": 2, "decoder_layers": 2, "feedforward_size": 6}
    model = attnc.Transformer(9, V, 8, 2, rng=0, **layers, **options)
    if rng is None:
        return model
    randomize(model, rng)
    for embedding in (model.source_embedding, model.target_embedding):
        embedding.parameters["weight"][PADDING] = 0  # as it starts
    return model


def tokens_of(rng, V=7):
    return rng.integers(3, 9, (B, TS)), rng.integers(3, V, (B, T))


def direction(model, name, rng):
    """A random direction for a parameter, but for the padding token's vector, which is fixed."""
    t = rng.standard_normal(model.parameters[name].shape)
    if name.endswith("embedding.weight"):
        t[PADDING] = 0
    elif model.tied and name == "output.weight":
        t[:, PADDING] = 0
    return t


# ---- Gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@every_option
def test_gradients_of_every_parameter(options, dropout, rng):
    model = make(rng, dropout=dropout, **options)
    source, target = tokens_of(rng)
    source[0, 1] = PADDING  # within the lengths: a token like others
    call = {"return_weights": True, "train": True, "rng": 5}  # the same places are dropped
    output, pullback = attnc.vjp(model, source, target, LENGTHS, **call)
    assert output.logits.shape == (B, T, model.target_vocabulary_size)
    assert output.weights.shape == (B, 2, 2, T, TS)
    assert output.self_weights.shape == (B, 2, 2, T, T)
    assert output.source_weights.shape == (B, 2, 2, TS, TS)
    assert_same(model(source, target, LENGTHS, **call), output)
    d = like_random(rng, tuple(output))
    names = [f"d{name}" for name in output._fields]
    pullback(**dict(zip(names, d, strict=True)))
    gradients = {name: gradient.copy() for name, gradient in model.gradients.items()}
    pullback(**dict(zip(names, d, strict=True)))
    for name, gradient in gradients.items():
        assert_agree(model.gradients[name], 2 * gradient)  # a tied one in another order
    size = sum(np.abs(x).sum() for x in d)
    for name, gradient in gradients.items():
        kept = model.parameters[name].copy()
        t, h, f = direction(model, name, rng), 2e-5, {}
        for step in (-2, -1, 1, 2):
            model.parameters[name] = kept + step * h * t
            moved = model(source, target, LENGTHS, **call)
            f[step] = sum((x * y).sum() for x, y in zip(d, moved, strict=True))
        model.parameters[name] = kept
        numeric = (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * h)
        analytic = (t * gradient).sum()
        assert abs(numeric - analytic) <= 1e-7 * (size + abs(analytic)), name


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@every_option
def test_labels_give_the_loss(options, smoothing, rng):
    """And its gradients, as the loss of the logits does; labels that are padding do not count."""
    model = make(rng, **options)
    source, target = tokens_of(rng)
    labels = np.where(np.arange(T) < [[5], [2], [0]], target, PADDING)
    labels[0, 1] = PADDING  # not at the end
    output, back = attnc.vjp(model, source, target, LENGTHS, return_weights=True)
    loss, back_to_logits = attnc.vjp(
        attnc.losses.softmax_cross_entropy, output.logits, labels,
        ignore_index=PADDING, label_smoothing=smoothing,
    )  # fmt: skip
    read = np.arange(T) < [[5], [2], [0]]  # what the loss depends on
    dweights = rng.standard_normal(output.weights.shape) * read[:, None, None, :, None]
    back(back_to_logits(1.5).logits, dweights)
    expected = {name: gradient.copy() for name, gradient in model.gradients.items()}
    model.zero_grad()
    options = {"labels": labels, "label_smoothing": smoothing, "return_weights": True}
    got, pullback = attnc.vjp(model, source, target, LENGTHS, **options)
    assert_same(got, model(source, target, LENGTHS, **options))
    pullback(1.5, dweights)
    assert_agree(got.loss, loss)
    assert_agree(got.weights, output.weights * read[:, None, None, :, None])
    assert_agree_together(dict(model.gradients), expected)


def test_the_pullback(rng):
    model = make(rng)
    source, target = tokens_of(rng)
    output, pullback = attnc.vjp(model, source, target, labels=target)
    assert output[1:] == (None, None, None)
    assert tuple(pullback()) == ()
    ones = {name: gradient.copy() for name, gradient in model.gradients.items()}
    pullback(1.0)
    for name, gradient in model.gradients.items():
        assert_agree(gradient, 2 * ones[name])
    with pytest.raises(ValueError, match="Transformer: dweights must be None without return_w"):
        pullback(dweights=np.ones((B, 2, 2, T, TS)))
    with pytest.raises(TypeError, match="Transformer: pullback takes dweights, dself_weights, dso"):
        pullback(dkeys=1)
    logits, pullback = attnc.vjp(model, source, target)
    with pytest.raises(TypeError, match="Transformer: pullback must get dlogits"):
        pullback()
    model.zero_grad()
    output, pullback = attnc.vjp(model, source, target, return_weights=True)
    pullback(dsource_weights=rng.standard_normal(output.source_weights.shape))
    found = {name for name, gradient in model.gradients.items() if gradient.any()}
    assert "encoder.blocks.0.self_attention.query_weight" in found
    assert not any(name.startswith("decoder") for name in found)


# ---- Parts ---------------------------------------------------------------------------------------


def test_the_formula(rng):
    """Embeddings times sqrt(size), positions, encoder, decoder, output."""
    model = make(rng)
    source, target = tokens_of(rng)
    positions = attnc.SinusoidalPositions(8, dtype="float64")
    x = positions(model.source_embedding(source) * np.sqrt(8))
    y = positions(model.target_embedding(target) * np.sqrt(8))
    memory = model.encoder(x, key_lengths=LENGTHS)
    read = model.decoder(y, memory, key_lengths=LENGTHS)
    assert_agree(model(source, target, LENGTHS).logits, model.output(read))


def test_what_is_tied():
    def shared(model):
        names = ("source_embedding.weight", "target_embedding.weight", "output.weight")
        arrays = [model.parameters[name] for name in names]
        pairs = (("source", "target"), (0, 1)), (("target", "output"), (1, 2))
        return {names for names, (i, j) in pairs if np.shares_memory(arrays[i], arrays[j])}

    sides, output = ("source", "target"), ("target", "output")
    # Vocabularies of equal sizes by chance are two.
    assert shared(make(V=9)) == {output}
    assert shared(make(V=7)) == {output}
    assert shared(make(tied=False)) == set()
    assert shared(make(tied=False, shared_vocabulary=True)) == {sides}
    assert shared(make(shared_vocabulary=True)) == {sides, output}
    for model in (make(), make(tied=False)):
        assert not model.parameters["target_embedding.weight"][PADDING].any()


@pytest.mark.parametrize("size", [32, 256])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_first_loss_is_that_of_a_uniform_choice(tied, norm, size, rng):
    V = 500
    model = attnc.Transformer(
        V, V, size, 4, encoder_layers=2, decoder_layers=2, tied=tied, norm=norm, rng=0
    )
    assert abs(model.output.parameters["weight"].std() - 0.02) < 0.001
    source, target = rng.integers(0, V, (8, 12)), rng.integers(0, V, (8, 13))
    loss = model(source, target[:, :-1], labels=target[:, 1:]).loss
    assert abs(loss - np.log(V)) < 0.1 * np.log(V)


def test_padding_of_the_source(rng):
    model = make(rng)
    source, target = tokens_of(rng)
    padded = np.where(np.arange(TS) < np.array(LENGTHS)[:, None], source, PADDING)
    expected = model(padded, target, LENGTHS, return_weights=True)
    assert_same(model(padded, target, return_weights=True), expected)
    other = np.where(padded == PADDING, 88, padded)  # not of the vocabulary
    assert_same(model(other, target, LENGTHS, return_weights=True), expected)
    assert not expected.weights[1, ..., 1:].any()
    alone = model(source[1:2, :1], target[1:2])
    assert_agree(alone.logits, expected.logits[1:2])
    padded[0, 1] = PADDING  # within a source without lengths: not attended to
    output = model(padded, target, return_weights=True)
    assert not output.weights[0, ..., 1].any() and not output.source_weights[0, ..., 1].any()
    nothing = model(np.zeros((1, TS), int), target[:1])
    assert np.isfinite(nothing.logits).all()


def test_training_learns(rng):
    """To copy, in a few hundred steps: far below a uniform choice."""
    model = attnc.Transformer(
        12, 12, 32, 4, encoder_layers=1, decoder_layers=1, feedforward_size=64, norm="pre",
        padding_index=PADDING, shared_vocabulary=True, dropout=0.1, rng=0,
    )  # fmt: skip
    optimizer = attnc.optim.Adam(model, 0.005)
    draw = np.random.default_rng(1)
    for step in range(250):
        words = draw.integers(3, 12, (32, 5))
        target = np.pad(words, ((0, 0), (1, 0)), constant_values=START)
        labels = np.pad(words, ((0, 0), (0, 1)), constant_values=END)
        _, pullback = attnc.vjp(
            model, words, target, labels=labels, label_smoothing=0.1, train=True, rng=step
        )
        model.zero_grad()
        pullback()
        optimizer.step()
    words = draw.integers(3, 12, (20, 5))
    tokens, weights = model.translate(words, start=START, end=END, max_length=8)
    expected = np.pad(words, ((0, 0), (0, 1)), constant_values=END)
    assert tokens.shape == expected.shape and (tokens == expected).mean() > 0.95
    beams = model.translate(words, start=START, end=END, max_length=8, beam_width=3)
    assert (beams.tokens[:, :6] == expected).mean() > 0.95
    half = copy.deepcopy(model)
    assert_same(half.translate(words, start=START, end=END, max_length=8), (tokens, weights))


@pytest.mark.parametrize(("B", "Ts", "T"), [(0, 4, 5), (2, 0, 5), (2, 4, 0), (0, 0, 0)])
def test_empty_batches(B, Ts, T):
    model, source, target = make(), np.ones((B, Ts), int), np.ones((B, T), int)
    output, pullback = attnc.vjp(model, source, target, return_weights=True)
    assert output.logits.shape == (B, T, 7) and output.weights.shape == (B, 2, 2, T, Ts)
    pullback(output.logits, output.weights)
    output, pullback = attnc.vjp(model, source, target, labels=target)
    pullback()
    assert np.isfinite(output.loss)
    for width in (1, 2):
        limits = {"start": 1, "end": 2, "max_length": 3, "beam_width": width}
        tokens, weights = model.translate(source, **limits)
        steps = tokens.shape[1]
        assert len(tokens) == B and weights.shape == (B, 2, 2, steps, Ts)


# ---- Decoding ------------------------------------------------------------------------------------


@every_option
def test_steps_are_the_call(options, rng):
    """Token by token, from shared states, what one call gives for all tokens."""
    model = make(rng, **options)
    source, target = tokens_of(rng)
    expected = model(source, target, LENGTHS, return_weights=True)
    memory, state = model.encode(source, LENGTHS)
    assert len(memory) == len(state) == B
    first = state
    for t in range(T):
        logits, weights, after = model.step(target[:, t], memory, state)
        again, _, _ = model.step(target[:, t], memory, state)  # the state is what it was
        assert_agree(logits, expected.logits[:, t])
        assert_agree(weights, expected.weights[..., t, :])
        assert_agree(again, logits)
        state = after
    assert_same(state.lengths, np.full(B, T)) and assert_same(first.lengths, np.zeros(B, int))
    rows = np.array([2, 0, 0, 1])
    other, behind = model.reorder(first, rows), memory.take(rows)
    for t in range(T):
        logits, weights, other = model.step(target[rows, t], behind, other)
        assert_agree(logits, expected.logits[rows, t])
        assert_agree(weights, expected.weights[rows][..., t, :])
        if t == 2:
            rows, order = rows[[3, 3, 1]], np.array([3, 3, 1])
            other, behind = model.reorder(other, order), behind.take(order)


@pytest.mark.parametrize("options", [{}, {"beam_width": 3}, {"beam_width": 3, "n_best": 2}])
def test_translation(options, rng):
    """What the search finds is as probable as it says, by calls without a cache."""
    model = make(rng, positions="rotary")
    source, _ = tokens_of(rng)
    limits = {"start": START, "end": END, "max_length": 6}
    found = model.translate(source, LENGTHS, **limits, **options)
    assert_same(model.translate(source, LENGTHS, **limits, **options), found)
    tokens = found.tokens if "n_best" in options else found.tokens[:, None]
    weights = found.weights if "n_best" in options else found.weights[:, None]
    for n in range(tokens.shape[1]):
        target = np.concatenate([np.full((B, 1), START), tokens[:, n, :-1]], axis=1)
        output = model(source, target, LENGTHS, return_weights=True)
        ended = (np.cumsum(tokens[:, n] == END, axis=1) - (tokens[:, n] == END)) > 0
        expected = np.where(ended[:, None, None, :, None], 0, output.weights)
        assert_agree(weights[:, n], expected)
        if not options:
            best = np.where(ended, END, output.logits.argmax(axis=-1))
            assert_same(tokens[:, n], best)
        if "n_best" in options:
            lse = np.log(np.exp(output.logits).sum(axis=-1))
            chosen = np.take_along_axis(output.logits, tokens[:, n, :, None], -1)[..., 0] - lse
            log, length = np.where(ended, 0, chosen).sum(axis=1), (~ended).sum(axis=1)
            assert_agree(found.scores[:, n], log / ((5 + length) / 6) ** 0.6)


def test_decoding_a_decoder_of_vectors(rng):
    """TransformerDecoder is driven with an embedding and a readout, like an AttentionDecoder."""
    decoder = attnc.TransformerDecoder(2, 8, 2, 6, rng=0, dtype="float64")
    embedding = attnc.Embedding(7, 8, rng=0, dtype="float64")
    readout = attnc.Linear(8, 7, rng=0, dtype="float64")
    memory = rng.standard_normal((B, TS, 8))
    limits = {"start": START, "end": END, "max_length": 6, "key_lengths": LENGTHS}
    mask = rng.random((B, TS)) < 0.9
    tokens, weights = attnc.greedy_decode(
        decoder, embedding, readout, memory, key_mask=mask, **limits
    )
    target = np.concatenate([np.full((B, 1), START), tokens[:, :-1]], axis=1)
    output = decoder(
        embedding(target), memory, key_mask=mask, key_lengths=LENGTHS, return_weights=True
    )
    running = (np.cumsum(tokens == END, axis=1) - (tokens == END)) == 0
    assert_same(tokens, np.where(running, readout(output.outputs).argmax(-1), END))
    assert_agree(weights, np.where(running[:, None, None, :, None], output.weights, 0))
    attnc.beam_search(decoder, embedding, readout, memory, **limits)


def test_wrong_steps(rng):
    model, other = make(rng), make(rng)
    source, target = tokens_of(rng)
    memory, state = model.encode(source, LENGTHS)
    with pytest.raises(ValueError, match="memory must be prepared by the decoder that uses it"):
        other.step(target[:, 0], memory, None)
    with pytest.raises(ValueError, match="key_mask and key_lengths must be given to prepare"):
        model.prepare(memory, None, LENGTHS)
    with pytest.raises(TypeError, match="state must be None or what step.. returned, got tuple"):
        model.step(target[:, 0], memory, (1,))
    with pytest.raises(TypeError, match="Transformer: state must be what step.. returned"):
        model.reorder(None, [0])
    with pytest.raises(ValueError, match=r"Transformer: indices must be sequences in 0\.\.2"):
        model.reorder(state, [3])
    with pytest.raises(ValueError, match=r"Transformer: input must have shape \(3,\), got \(2,\)"):
        model.step(target[:2, 0], memory, state)
    with pytest.raises(ValueError, match=r"Transformer: input must lie in 0\.\.6, got 7\.\.7"):
        model.step([7, 7, 7], memory, state)
    _, _, after = model.step(target[:, 0], memory, state)
    with pytest.raises(ValueError, match="each layer has a cache of its own"):
        other.step(target[:, 0], other.encode(source)[0], after)
    with pytest.raises(ValueError, match="state must be of 2 sequences"):
        model.step(target[:2, 0], memory.take(np.arange(2)), after)
    model.parameters["decoder.blocks.1.cross_attention.key_weight"] += 1
    with pytest.raises(ValueError, match="memory must be prepared with the parameters that there"):
        model.step(target[:, 0], memory, state)


def test_a_failed_step_changes_nothing(rng, monkeypatch):
    model = make(rng)
    source, target = tokens_of(rng)
    memory, state = model.encode(source)
    _, _, state = model.step(target[:, 0], memory, state)
    expected, _, _ = make_step = model.step(target[:, 1], memory, state)
    assert make_step[2].lengths.tolist() == [2] * B
    last = model.decoder.blocks[1].feedforward

    def fails(*_):
        raise KeyboardInterrupt

    fresh = model.reorder(state, [0, 1, 2])
    with monkeypatch.context() as patch:
        patch.setattr(last, "_forward", fails)
        with pytest.raises(KeyboardInterrupt):
            model.step(target[:, 1], memory, fresh)
    assert_agree(model.step(target[:, 1], memory, fresh)[0], expected)


@pytest.mark.parametrize("chunk", [1, 3])
@every_option
def test_a_cache_changes_nothing(options, chunk, rng):
    """Calls with some tokens each, of which the first alone gets the source."""
    model = make(rng, **options)
    source, target = tokens_of(rng)
    source = np.where(np.arange(TS) < np.array(LENGTHS)[:, None], source, PADDING)
    expected = model(source, target, LENGTHS, return_weights=True)
    cache = model.new_cache()
    for begin in range(0, T, chunk):
        end = min(begin + chunk, T)
        given = source if not begin else None
        got = model(given, target[:, begin:end], cache=cache, return_weights=True)
        assert_agree(got.logits, expected.logits[:, begin:end])
        assert_agree(got.weights, expected.weights[..., begin:end, :])
        assert_agree(got.self_weights, expected.self_weights[..., begin:end, :end])
    assert len(cache) == T
    cache.truncate(1)
    assert_agree(model(source, target[:, 1:2], cache=cache).logits, expected.logits[:, 1:2])


def test_wrong_caches(rng):
    model = make(rng)
    source, target = tokens_of(rng)
    with pytest.raises(TypeError, match="Transformer: source must be an array of tokens, got None"):
        model(None, target)
    with pytest.raises(TypeError, match="Transformer: source must be an array of tokens, got None"):
        model(None, target, cache=model.new_cache())
    cache = model.new_cache()
    model(source, target, cache=cache)
    with pytest.raises(ValueError, match="key must be None or the memory that the cache was made"):
        model(source[::-1], target, cache=cache)
    with pytest.raises(ValueError, match="each layer has a cache of its own"):
        make(rng)(source, target, cache=cache)
    with pytest.raises(ValueError, match="Transformer: cache must be None for gradients"):
        attnc.vjp(model, source, target, cache=cache)
    source[0, 1] = PADDING
    with pytest.raises(ValueError, match="Transformer: source must have no padding within"):
        model(source, target, cache=model.new_cache())


# ---- The house -----------------------------------------------------------------------------------


@every_option
def test_repr_pickle_and_files(options, tmp_path, rng):
    model = make(rng, **options)
    check_house(model, tmp_path)
    source, target = tokens_of(rng)
    expected = model(source, target)
    attnc.save(tmp_path / "model", model)
    twin = attnc.load(tmp_path / "model").layer
    for again in (twin, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert_same(again(source, target), expected)
        assert again.parameter_count == model.parameter_count
    assert str(model.parameter_count) in str(attnc.summary(model)).replace(",", "")


def test_freezing(rng):
    model = make(rng).freeze("encoder.*", "source_embedding.*")
    source, target = tokens_of(rng)
    attnc.vjp(model, source, target, labels=target)[1]()
    for name, gradient in model.gradients.items():
        frozen = name.startswith(("encoder", "source_embedding"))
        assert gradient.any() != frozen, name


WRONG = [
    ({"num_heads": 3}, "num_heads must divide size 8, got 3"),
    ({"encoder_layers": 0}, "encoder_layers must be a positive integer, got 0"),
    ({"positions": "sine"}, "positions must be one of 'sinusoidal', 'learned', 'rotary', 'alibi'"),
    ({"positions": "learned"}, "max_length must be given for positions='learned', got None"),
    ({"max_length": 0}, "max_length must be an integer of at least 1, got 0"),
    ({"padding_index": 7}, "padding_index must lie in 0..6, got 7"),
    ({"tied": 1}, "tied must be True or False, got 1"),
    ({"shared_vocabulary": True}, "target_vocabulary_size must equal source_vocabulary_size"),
    ({"dropout": -0.1}, "dropout must lie in 0 <= dropout < 1"),
    ({"dtype": "float16"}, "dtype must be float32 or float64"),
]


@pytest.mark.parametrize(("wrong", "text"), WRONG, ids=lambda x: str(x)[:30])
def test_wrong_constructors(wrong, text):
    arguments = {"source_vocabulary_size": 9, "target_vocabulary_size": 7, "size": 8}
    arguments |= {"num_heads": 2, "encoder_layers": 1, "decoder_layers": 1} | wrong
    with pytest.raises((TypeError, ValueError), match=f"^Transformer\\w*: {text}"):
        attnc.Transformer(**arguments)


def test_wrong_calls(rng):
    model = make(rng, max_length=5)
    source, target = tokens_of(rng)
    for arguments, options, text in [
        (
            (source[0], target),
            {},
            r"source must have shape \(B, Ts\), got \(4,\) \(one",
        ),
        ((source, target[:2]), {}, r"target must have the batch of source, 3, got \(2, 5\)"),
        ((source, target + 5), {}, r"target must lie in 0\.\.6"),
        ((source - 5, target), {}, r"source must lie in 0\.\.8"),
        ((source, target, [5, 1, 1]), {}, r"source_lengths must lie in 0\.\.4"),
        ((source, target), {"labels": target[:, 1:]}, r"labels must have the shape of target"),
        ((source, target), {"labels": target + 5}, r"labels must lie in 0\.\.6"),
        ((source, target), {"label_smoothing": 0.1}, "label_smoothing must go with labels=, got n"),
        ((np.tile(source, 2), target), {}, "source must have at most max_length=5 tokens, got 8"),
        ((source, np.tile(target, 2)), {}, "target must have at most max_length=5 tokens, got 10"),
    ]:
        with pytest.raises(ValueError, match=f"^Transformer: {text}"):
            model(*arguments, **options)
    with pytest.raises(TypeError, match=r"Transformer: source must"):
        model(source + 0.5, target)
    with pytest.raises(ValueError, match="input must have at most max_length=5 tokens, got 6"):
        model.translate(source, start=1, end=2, max_length=8, min_length=8)


# ---- PyTorch -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_as_in_torch(norm, rng):
    """Encoder and decoder at the weights of torch.nn.Transformer: outputs and all gradients."""
    torch = pytest.importorskip("torch")
    module = torch.nn.Transformer(
        8, 2, 2, 2, 6, 0.0, batch_first=True, norm_first=norm == "pre"
    ).double()  # fmt: skip
    for parameter in module.parameters():
        parameter.data = torch.from_numpy(rng.normal(0, 0.4, parameter.shape))
    model = make(norm=norm, final_norm=True, activation="relu")
    before = model.state_dict()
    state = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    model.load_torch_state_dict(state)
    assert_same(model.torch_state_dict(), state)
    for name in ("source_embedding.weight", "target_embedding.weight", "output.bias"):
        assert_same(model.parameters[name], before[name])
    x, y = rng.standard_normal((B, TS, 8)), rng.standard_normal((B, T, 8))
    x_there, y_there = (torch.from_numpy(array).requires_grad_() for array in (x, y))
    later = module.generate_square_subsequent_mask(T, dtype=torch.float64)
    padding = torch.from_numpy(np.arange(TS) >= np.array(LENGTHS)[:, None])
    expected = module(
        x_there, y_there, tgt_mask=later, src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
    )  # fmt: skip
    d = rng.standard_normal((B, T, 8))
    expected.backward(torch.from_numpy(d))
    memory, back_to_x = attnc.vjp(model.encoder, x, key_lengths=LENGTHS)
    output, back = attnc.vjp(model.decoder, y, memory, key_lengths=LENGTHS)
    assert_agree(output, expected.detach().numpy())
    dy, dmemory = back(d)
    assert_agree(dy, y_there.grad.numpy())
    assert_agree(back_to_x(dmemory).x, x_there.grad.numpy())
    twin = copy.deepcopy(model)
    theirs = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    twin.load_torch_state_dict(theirs)
    names = [name for name in model.gradients if name.startswith(("encoder", "decoder"))]
    found, expected = model.gradients, twin.parameters
    assert_agree_together({n: found[n] for n in names}, {n: expected[n] for n in names})

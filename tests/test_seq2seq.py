"""Seq2Seq, and decoding: greedy, beam search, scheduled sampling."""

import itertools

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import arrays_of, check_house, like_random, randomize

import attnc

START, END, PADDING = 1, 2, 0
B, TS, T = 3, 4, 5
LENGTHS = [4, 1, 3]
OPTIONS = [
    {},
    {"cell": "lstm", "layers": 2, "attention": "multiplicative"},
    {"cell": "rnn", "bidirectional": False, "attention": "dot", "order": "luong"},
    {"order": "luong", "input_feeding": True, "coverage": True, "layers": 2},
    {"attention": "cosine", "cell": "lstm", "coverage": True},
    {"attention": "none", "cell": "lstm"},
    {"attention": "none", "order": "luong", "input_feeding": True},
    {"window": 1},
    {"window": 2, "position": "predictive", "position_size": 3, "coverage": "tanh"},
    {"window": 1, "position": "predictive", "renormalize": True, "order": "luong"},
    {"tied": True, "layers": 2},
    {"tied": True, "attention": "none"},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def make(rng, V=7, **options):
    options = {"padding_index": PADDING, "dtype": "float64", **options}
    sizes = (9, 9, 6, 6) if options.get("tied") else (9, V, 3, 6)
    model = randomize(attnc.Seq2Seq(*sizes, rng=rng, **options), rng)
    if model.tied:  # as it starts
        model.source_embedding.parameters["weight"][PADDING] = 0
    return model


def tokens_of(rng, V=7):
    return rng.integers(3, 9, (B, TS)), rng.integers(3, V, (B, T)) if V > 3 else None


# ---- The layer -----------------------------------------------------------------------------------


def direction(model, name, rng):
    """A random direction for a parameter, but for the padding token's vector, which is fixed."""
    t = rng.standard_normal(model.parameters[name].shape)
    if name.endswith("embedding.weight"):
        t[PADDING] = 0
    elif model.tied and name == "output.weight":
        t[:, PADDING] = 0
    return t


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@every_option
def test_gradients_of_every_parameter(options, dropout, rng):
    model = make(rng, dropout=dropout, **options)
    source, target = tokens_of(rng)
    call = {"train": True, "rng": 5}  # the same places are dropped each time
    output, pullback = attnc.vjp(model, source, target, LENGTHS, **call)
    assert output.logits.shape == (B, T, 9 if model.tied else 7)
    assert output.weights.shape == (B, T, 1 if model.attention == "none" else TS)
    d = like_random(rng, output)
    pullback(*d)
    gradients = {name: gradient.copy() for name, gradient in model.gradients.items()}
    pullback(*d)
    check = assert_agree if model.tied else assert_same  # a sum in another order
    for name, gradient in gradients.items():
        check(model.gradients[name], 2 * gradient)
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
    output, back = attnc.vjp(model, source, target, LENGTHS)
    loss, back_to_logits = attnc.vjp(
        attnc.losses.softmax_cross_entropy, output.logits, labels,
        ignore_index=PADDING, label_smoothing=smoothing,
    )  # fmt: skip
    dweights = rng.standard_normal(output.weights.shape)
    back(back_to_logits(1.5).logits, dweights)
    expected = {name: gradient.copy() for name, gradient in model.gradients.items()}
    model.zero_grad()
    options = {"labels": labels, "label_smoothing": smoothing}
    got, pullback = attnc.vjp(model, source, target, LENGTHS, **options)
    assert_same(got, model(source, target, LENGTHS, **options))
    pullback(1.5, dweights)
    assert_agree(got.loss, loss)
    assert_same(got.weights, output.weights)
    for name, gradient in model.gradients.items():
        assert_agree(gradient, expected[name], name)


def test_labels_that_do_not_fit(rng):
    model = make(rng)
    source, target = tokens_of(rng)
    with pytest.raises(
        ValueError, match=r"Seq2Seq: labels must have the shape of target, \(3, 5\)"
    ):
        model(source, target, labels=target[:, 1:])
    with pytest.raises(ValueError, match="Seq2Seq: label_smoothing must go with labels=, got none"):
        model(source, target, label_smoothing=0.1)


@every_option
def test_padding_is_not_read(options, rng):
    model = make(rng, **options)
    source, target = tokens_of(rng)
    padded = np.arange(TS) >= np.array(LENGTHS)[:, None]
    expected = model(source, target, LENGTHS)
    assert_same(model(np.where(padded, PADDING, source), target, LENGTHS), expected)
    for b, length in enumerate(LENGTHS):
        alone = model(source[b : b + 1, :length], target[b : b + 1])
        assert_agree(expected.logits[b], alone.logits[0])


def test_house(rng, tmp_path):
    model = make(rng, cell="lstm", layers=2, coverage=True, dropout=0.25)
    check_house(model, tmp_path)
    assert repr(model).startswith(
        "Seq2Seq(source_vocabulary_size=9, target_vocabulary_size=7, embedding_size=3, "
        "state_size=6, cell='lstm', layers=2, coverage=True, dropout=0.25, padding_index=0"
    )
    with pytest.raises(ValueError, match="Seq2Seq: state_size must be even"):
        attnc.Seq2Seq(9, 7, 3, 5)
    with pytest.raises(ValueError, match=r"Seq2Seq: source must have shape \(B, Ts\), got \(4,\)"):
        model([3, 4, 5, 6], [[1]])


def test_a_window(rng, tmp_path):
    """It reaches the decoder, is in the repr and in the file, and translations keep to it: the
    windows of 'monotonic' go with the steps."""
    options = {"window": 1, "position": "predictive", "position_size": 4, "renormalize": True}
    model = make(rng, **options)
    assert {name: getattr(model.decoder, name) for name in options} == options
    assert model.decoder.parameters["position_weight"].shape == (6, 4)
    assert "window=1, position='predictive', position_size=4, renormalize=True" in repr(model)
    source, target = tokens_of(rng)
    attnc.save(tmp_path / "model.npz", model)
    again = attnc.load(tmp_path / "model.npz").layer
    assert repr(again) == repr(model)
    assert_same(tuple(again(source, target)), tuple(model(source, target)))

    model = make(rng, window=1)
    for beam_width in (1, 3):
        weights = model.translate(
            source, start=START, end=[], max_length=T, beam_width=beam_width
        ).weights
        t, j = np.arange(T)[:, None], np.arange(TS)
        assert weights.shape == (B, T, TS)
        assert ((weights > 0) == (abs(t - j) <= 1)).all()


def test_dropout_is_for_training_alone(rng):
    model = make(rng, layers=2, dropout=0.5)
    without = attnc.Seq2Seq(9, 7, 3, 6, layers=2, padding_index=PADDING, dtype="float64")
    without.load_state_dict(model.state_dict())
    source, target = tokens_of(rng)
    assert_same(model(source, target), without(source, target))
    dropped = model(source, target, train=True, rng=0)
    assert_same(model(source, target, train=True, rng=0), dropped)
    assert (dropped.logits != model(source, target).logits).any()


@pytest.mark.parametrize("attention", ["additive", "none"])
def test_where_numbers_are_dropped(attention, rng):
    """Half of the vectors of tokens, of the memory and of what the output layer reads."""
    model = make(rng, attention=attention, dropout=0.5)
    model.output.parameters["bias"][:] = 0
    source, target = rng.integers(3, 9, (400, TS)), rng.integers(3, 7, (400, T))
    memory, _ = model.encode(source, train=True, rng=0)
    assert 0.45 < (memory.value == 0).mean() < 0.55
    # What is read through one weight alone: a logit is 0 where its one number was dropped.
    model.output.parameters["weight"][:] = 0
    model.output.parameters["weight"][2, 0] = 1
    logits = model(source, target, train=True, rng=0).logits
    assert 0.45 < (logits[..., 0] == 0).mean() < 0.55
    # A number of a token that is read once has a gradient unless it was dropped.
    model = make(rng, V=603, attention=attention, dropout=0.5)
    tokens = np.arange(3, 603)
    source, target = rng.integers(3, 9, (60, 10)), tokens.reshape(60, 10)
    _, pullback = attnc.vjp(model, source, target, train=True, rng=0, labels=target)
    pullback()
    assert 0.45 < (model.target_embedding.gradients["weight"][tokens] == 0).mean() < 0.55
    model = randomize(attnc.Seq2Seq(603, 7, 3, 6, attention=attention, dropout=0.5, rng=rng), rng)
    source, target = target, rng.integers(3, 7, (60, 5))
    _, pullback = attnc.vjp(model, source, target, train=True, rng=0, labels=target)
    pullback()
    assert 0.45 < (model.source_embedding.gradients["weight"][tokens] == 0).mean() < 0.55


def test_tied_is_one_table(rng):
    model = make(rng, tied=True)
    table = model.source_embedding.parameters["weight"]
    assert model.target_embedding.parameters["weight"] is table
    assert np.shares_memory(model.output.parameters["weight"], table)
    source, target = tokens_of(rng)
    _, pullback = attnc.vjp(model, source, target, LENGTHS, labels=target)
    optimizer = attnc.optim.Adam(model, 0.1)
    pullback()
    optimizer.step()
    assert not table[PADDING].any() and table[START].any()
    assert "tied=True" in repr(model)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ((9, 7, 6, 6), "target_vocabulary_size must equal source_vocabulary_size .* got 7 and 9"),
        ((9, 9, 4, 6), "embedding_size must equal state_size for tied=True, got 4 and 6"),
    ],
)
def test_sizes_of_one_table(sizes, message):
    with pytest.raises(ValueError, match=f"Seq2Seq: {message}"):
        attnc.Seq2Seq(*sizes, tied=True)


# ---- Decoding ------------------------------------------------------------------------------------


def log_probability(model, source, lengths, b, tokens):
    """Of a hypothesis up to its end token, by teacher forcing."""
    tokens = list(tokens)
    tokens = tokens[: tokens.index(END) + 1] if END in tokens else tokens
    inputs = np.array([[START, *tokens[:-1]]])
    logits = model(source[b : b + 1, : lengths[b]], inputs).logits[0]
    logits = logits - logits.max(-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return logs[np.arange(len(tokens)), tokens].sum(), len(tokens)


@every_option
def test_beams_have_the_scores_of_teacher_forcing(options, rng):
    model = make(rng, **options)
    source, _ = tokens_of(rng)
    beams = model.translate(
        source, LENGTHS, start=START, end=END, max_length=6, beam_width=4, n_best=3
    )
    assert beams.tokens.shape[:2] == beams.scores.shape == (B, 3)
    assert (np.diff(beams.scores, axis=1) <= 0).all()
    for b, n in itertools.product(range(B), range(3)):
        total, length = log_probability(model, source, LENGTHS, b, beams.tokens[b, n])
        assert_agree(beams.scores[b, n], total / ((5 + length) / 6) ** 0.6)
        assert (beams.tokens[b, n, length:] == END).all()
        target = [[START, *beams.tokens[b, n, : length - 1]]]
        forced = model(source[b : b + 1], target, LENGTHS[b : b + 1]).weights[0]
        assert_agree(beams.weights[b, n, :length], forced)
        if "window" not in options:
            assert_agree(forced.sum(-1), np.ones(length))
        assert not beams.weights[b, n, length:].any()


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_beam_wide_enough_finds_the_best_of_all(length_penalty, rng):
    model = make(rng, V=4)
    source, _ = tokens_of(rng)
    found = model.translate(
        source,
        LENGTHS,
        start=START,
        end=END,
        max_length=3,
        beam_width=4**3,
        n_best=4**3,
        length_penalty=length_penalty,
    )
    every = {
        (*tokens[: tokens.index(END) + 1],) if END in tokens else tokens
        for tokens in itertools.product(range(4), repeat=3)
    }
    for b in range(B):
        scores = {}
        for tokens in every:
            total, length = log_probability(model, source, LENGTHS, b, tokens)
            scores[(*tokens, *[END] * (3 - length))] = total / ((5 + length) / 6) ** length_penalty
        ranked = sorted(scores, key=scores.get, reverse=True)
        assert [tuple(tokens) for tokens in found.tokens[b, : len(ranked)].tolist()] == ranked
        assert_agree(found.scores[b, : len(ranked)], [scores[tokens] for tokens in ranked])
        assert (found.scores[b, len(ranked) :] == -np.inf).all()


@every_option
def test_a_beam_of_one_is_greedy(options, rng):
    model = make(rng, **options)
    source, _ = tokens_of(rng)
    given = {"start": START, "end": END, "max_length": 8}
    tokens, weights = model.translate(source, LENGTHS, **given)
    beams = model.translate(source, LENGTHS, **given, n_best=1)
    np.testing.assert_array_equal(beams.tokens[:, 0], tokens)
    assert_agree(beams.weights[:, 0], weights)
    for b, length in enumerate(LENGTHS):  # in company as alone
        alone, _ = model.translate(source[b : b + 1, :length], **given)
        steps = min(alone.shape[1], tokens.shape[1])
        np.testing.assert_array_equal(alone[0, :steps], tokens[b, :steps])


def test_a_wider_beam_alone_or_in_company(rng):
    model = make(rng, cell="lstm", order="luong", input_feeding=True, coverage=True)
    source, _ = tokens_of(rng)
    given = {"start": START, "end": END, "max_length": 6, "beam_width": 3}
    tokens, _ = model.translate(source, LENGTHS, **given)
    for b, length in enumerate(LENGTHS):
        alone, _ = model.translate(source[b : b + 1, :length], **given)
        steps = min(alone.shape[1], tokens.shape[1])
        np.testing.assert_array_equal(alone[0, :steps], tokens[b, :steps])
        assert (tokens[b, steps:] == END).all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"max_length": -1}, "max_length must be 0 or more, got -1"),
        ({"n_best": 3}, "n_best must lie in 1..beam_width and beam_width be at least 1, got"),
        ({"beam_width": 0, "n_best": 0}, "n_best must lie in 1..beam_width"),
        ({"length_penalty": -0.5}, "length_penalty must be 0 or more, got -0.5"),
    ],
)
def test_errors_of_beam_search(wrong, message, rng):
    model, source = make(rng), tokens_of(rng)[0]
    given = {"start": START, "end": END, "max_length": 3, "beam_width": 2} | wrong
    with pytest.raises(ValueError, match=f"beam_search: {message}"):
        model.translate(source, **given)


def test_lengths_and_rules_of_translations(rng):
    model, source = make(rng), tokens_of(rng)[0]
    given = {"start": START, "end": [END, 3], "max_length": [5, 2, 4], "min_length": 2}

    def rule(logits, tokens):
        logits[:, 4] = -np.inf
        return logits

    memory, state = model.encode(source, LENGTHS)
    arguments = model.decoder, model.target_embedding, model.output, memory, state
    tokens, weights = model.translate(source, LENGTHS, **given, logits_hook=rule)
    assert_same((tokens, weights), attnc.greedy_decode(*arguments, **given, logits_hook=rule))
    assert not np.isin(tokens[:, :2], [END, 3]).any() and (tokens != 4).all()
    assert (tokens[1, 2:] == END).all() and not weights[1, 2:].any()
    options = {"beam_width": 3, "n_best": 2, "logits_hook": rule}
    found = model.translate(source, LENGTHS, **given, **options)
    assert_same(found, attnc.beam_search(*arguments, **given, **options))


def test_no_steps_and_no_sequences(rng):
    model, source = make(rng), tokens_of(rng)[0]
    given = {"start": START, "end": END, "beam_width": 2}
    tokens, weights = model.translate(source, max_length=0, **given)
    assert tokens.shape == (B, 0) and weights.shape == (B, 0, TS)
    tokens, weights = model.translate(source[:0], max_length=4, **given)
    assert tokens.shape == (0, 0) and weights.shape == (0, 0, TS)


# ---- Scheduled sampling --------------------------------------------------------------------------


def test_scheduled_inputs_are_the_decoders_own_choices(rng):
    model = make(rng, order="luong", input_feeding=True)
    source, target = tokens_of(rng)
    memory, state = model.encode(source, LENGTHS)
    arguments = model.decoder, model.target_embedding, model.output, target, memory, state
    assert_same(attnc.scheduled_inputs(*arguments, probability=0.0), target)
    own = attnc.scheduled_inputs(*arguments, probability=1.0)
    np.testing.assert_array_equal(own[:, 0], target[:, 0])
    chosen = model(source, own, LENGTHS).logits.argmax(-1)
    np.testing.assert_array_equal(own[:, 1:], chosen[:, :-1])
    some = attnc.scheduled_inputs(*arguments, probability=0.5, rng=3)
    np.testing.assert_array_equal(some, attnc.scheduled_inputs(*arguments, probability=0.5, rng=3))
    chosen = model(source, some, LENGTHS).logits.argmax(-1)
    assert ((some == target)[:, 1:] | (some[:, 1:] == chosen[:, :-1])).all()
    with pytest.raises(ValueError, match="scheduled_inputs: probability must lie in 0..1, got 2"):
        attnc.scheduled_inputs(*arguments, probability=2)


def test_sampling_in_training(rng):
    model = make(rng)
    source, target = tokens_of(rng)
    output, pullback = attnc.vjp(model, source, target, sampling=0.5, rng=1)
    assert_same(model(source, target, sampling=0.5, rng=1), output)
    pullback(np.ones_like(output.logits))
    assert all(np.isfinite(g).all() for g in model.gradients.values())


# ---- Weights of torch.nn -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_load_torch_state_dict(kind, rng):
    torch = pytest.importorskip("torch")
    twin = getattr(torch.nn, kind)(3, 5, 2, batch_first=True, bidirectional=True)
    layer = getattr(attnc, kind)(3, 5, 2, True, rng=0)
    state = {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
    layer.load_torch_state_dict(state)
    x = rng.standard_normal((B, T, 3)).astype(np.float32)
    with torch.no_grad():
        expected, _ = twin(torch.from_numpy(x))
    np.testing.assert_allclose(layer(x).outputs, expected.numpy(), atol=1e-6)
    before = layer.state_dict()
    del state["bias_hh_l1_reverse"]
    message = f"{kind}.load_torch_state_dict: .* missing: bias_hh_l1_reverse"
    with pytest.raises(ValueError, match=message):
        layer.load_torch_state_dict(state)
    assert_same(layer.state_dict(), before)
    assert arrays_of(tuple(before.values()))


# ---- Padding -------------------------------------------------------------------------------------


@every_option
@pytest.mark.parametrize("filler", [-1, 99, np.iinfo(np.int64).min])
def test_tokens_beyond_the_lengths_may_be_anything(options, filler, rng):
    model = make(rng, **options)
    source, target = tokens_of(rng)
    padded = np.arange(TS) >= np.array(LENGTHS)[:, None]

    def run(source):
        model.zero_grad()
        output, pullback = attnc.vjp(model, source, target, LENGTHS, labels=target)
        pullback()
        return output, {name: gradient.copy() for name, gradient in model.gradients.items()}

    other = np.where(padded, filler, source)
    assert_same(run(other), run(source))
    given = {"start": START, "end": END, "max_length": 4}
    assert_same(model.translate(other, LENGTHS, **given), model.translate(source, LENGTHS, **given))
    with pytest.raises(ValueError, match="Seq2Seq: source must lie in 0..8, got"):
        model(other, target, [4, 2, 3])


@every_option
def test_padding_at_the_end_gives_the_lengths(options, rng):
    model = make(rng, **options)
    source, target = tokens_of(rng)
    source[np.arange(TS) >= np.array(LENGTHS)[:, None]] = PADDING
    given = {"start": START, "end": END, "max_length": 4}

    def run(*lengths):
        model.zero_grad()
        options = {"labels": target, "sampling": 0.5, "rng": 0}
        output, pullback = attnc.vjp(model, source, target, *lengths, **options)
        pullback(dweights=output.weights)
        gradients = {name: gradient.copy() for name, gradient in model.gradients.items()}
        return gradients, model.translate(source, *lengths, **given, beam_width=2)

    assert_same(run(), run(LENGTHS))
    for got, want in zip(model.encode(source), model.encode(source, LENGTHS), strict=True):
        if hasattr(got, "value"):
            got, want = (got.value, got.allowed), (want.value, want.allowed)
        assert_same(got, want)
    everything = model(source, target, TS)  # lengths that are given count alone
    assert (everything.logits != model(source, target).logits).any()


def test_padding_inside_a_source_is_not_attended_to(rng):
    model = make(rng)
    source, target = tokens_of(rng)
    source[0, 1] = source[2, 3] = PADDING
    source[1] = PADDING  # nothing but padding
    weights = model(source, target).weights
    assert not weights.transpose(0, 2, 1)[source == PADDING].any()
    assert weights.transpose(0, 2, 1)[source != PADDING].all()
    assert np.isfinite(model(source, target).logits).all()
    without = attnc.Seq2Seq(9, 7, 3, 6, rng=0)
    assert without(source, target).weights.all()  # there, 0 is a token like the others


# ---- The pullback --------------------------------------------------------------------------------


@every_option
def test_what_a_pullback_without_arguments_means(options, rng):
    model = make(rng, **options)
    source, target = tokens_of(rng)

    def gradients(**arguments):
        model.zero_grad()
        pullback(**arguments)
        return {name: gradient.copy() for name, gradient in model.gradients.items()}

    output, pullback = attnc.vjp(model, source, target, LENGTHS, labels=target)
    dweights = rng.standard_normal(output.weights.shape)
    assert_same(gradients(), gradients(dloss=1.0))
    alone = gradients(dweights=dweights)
    both = gradients(dloss=1, dweights=dweights)
    loss = gradients(dloss=np.float32(1))
    assert model.tied or not alone["output.weight"].any()
    assert not alone["output.bias"].any()
    for name in alone:
        assert_agree(both[name], alone[name] + loss[name])
    with pytest.raises(TypeError, match="Seq2Seq: dloss must be a number, got True"):
        pullback(True)
    with pytest.raises(ValueError, match="Seq2Seq: dweights must have shape"):
        pullback(dweights=dweights[:1])

    _, pullback = attnc.vjp(model, source, target, LENGTHS)
    with pytest.raises(TypeError, match="Seq2Seq: pullback must get dlogits or dweights"):
        pullback()
    with pytest.raises(ValueError, match="Seq2Seq: dlogits must have shape"):
        pullback(dweights)


# ---- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"source": [[3.0]]}, TypeError, "source must be integers, got float64"),
        ({"source": [[True]]}, TypeError, "source must be integers, got bool"),
        ({"source": [[3], [4, 5]]}, TypeError, r"source must be an array.*attnc.data.pad"),
        ({"source": np.ma.array([[3]])}, TypeError, "source must be a plain array"),
        ({"source": [3]}, ValueError, r"source must have shape \(B, Ts\), got \(1,\)"),
        ({"source": [[9]]}, ValueError, "source must lie in 0..8, got 9..9"),
        ({"source": np.array([[2**63]], np.uint64)}, ValueError, "source must lie in 0..8"),
        ({"source_lengths": [2]}, ValueError, "source_lengths must lie in 0..1, got 2..2"),
        ({"source_lengths": [1.0]}, TypeError, "source_lengths must be integers"),
        ({"source_lengths": np.ma.array([1])}, TypeError, "source_lengths must be a plain array"),
        ({"target": [[7]]}, ValueError, "target must lie in 0..6, got 7..7"),
        ({"target": [[1.0]]}, TypeError, "target must be integers"),
        ({"target": [1]}, ValueError, r"target must have shape \(B, T\)"),
        ({"target": [[1], [1]]}, ValueError, "target must have the batch of source, 1"),
        ({"labels": [[7]]}, ValueError, "labels must lie in 0..6, got 7..7"),
        ({"labels": [[1.0]]}, TypeError, "labels must be integers"),
        ({"labels": [[1, 2]]}, ValueError, "labels must have the shape of target"),
        ({"labels": [[1]], "label_smoothing": True}, TypeError, "label_smoothing must lie in"),
        ({"labels": [[1]], "label_smoothing": 1.0}, ValueError, "label_smoothing must lie in"),
        ({"sampling": True}, TypeError, "sampling must lie in 0..1, got True"),
        ({"sampling": 1.5}, ValueError, "sampling must lie in 0..1, got 1.5"),
        ({"train": "no"}, TypeError, "train must be True or False, got 'no'"),
    ],
)
def test_errors_say_what_the_user_wrote(changes, error, message, rng):
    with pytest.raises(error, match=f"^Seq2Seq: {message}"):
        make(rng)(**{"source": [[3]], "target": [[1]]} | changes)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"bidirectional": "False"}, TypeError),
        ({"coverage": 1}, TypeError),
        ({"tied": 1}, TypeError),
        ({"dropout": True}, TypeError),
        ({"dropout": 1.0}, ValueError),
        ({"padding_index": 7}, ValueError),  # in the source's vocabulary alone
        ({"padding_index": 0.0}, TypeError),
        ({"padding_index": False}, TypeError),
        ({"layers": 0}, ValueError),
        ({"attention_size": 0}, (TypeError, ValueError)),
        ({"window": 1.0}, TypeError),
        ({"window": 0}, ValueError),
        ({"position": "last"}, ValueError),
        ({"renormalize": 1}, TypeError),
        ({"chunk_width": 3}, ValueError),
    ],
)
def test_options_of_the_wrong_kind(options, error):
    (name,) = options
    with pytest.raises(error, match=f"Seq2Seq: {name} must"):
        attnc.Seq2Seq(9, 7, 3, 6, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"window": 2, "alignment": "monotonic"}, "window must be None for alignment='monotonic'"),
        ({"window": 2, "alignment": "chunkwise"}, "window must be None for alignment='chunkwise'"),
        ({"window": 2, "attention": "none"}, "window must be None for attention='none'"),
        ({"position": "predictive"}, "window must be given with position='predictive'"),
        ({"window": 2, "renormalize": True}, "renormalize must be False for position='monotonic'"),
    ],
)
def test_options_that_contradict_the_window(options, message):
    with pytest.raises(ValueError, match=f"^Seq2Seq: {message}"):
        attnc.Seq2Seq(9, 7, 3, 6, **options)


def test_sources_of_no_tokens_and_of_narrow_types(rng):
    model = make(rng)
    source, target = tokens_of(rng)
    assert model(source[:, :0], target).weights.shape == (B, T, 0)
    expected = model(source, target, LENGTHS, sampling=1.0, rng=0)
    for dtype in (np.int8, np.uint8, np.uint64):
        narrow = source.astype(dtype), target.astype(dtype), np.array(LENGTHS, dtype)
        assert_same(model(*narrow, sampling=1.0, rng=0), expected)


@every_option
def test_floating_point_errors_are_results(options, rng):
    model = make(rng, dtype="float32", **options)
    source, target = tokens_of(rng)
    for parameter in model.parameters.values():
        parameter *= np.float32(1e-30)

    def run():
        model.zero_grad()
        output, pullback = attnc.vjp(model, source, target, LENGTHS, labels=target)
        pullback(1e-30)
        given = {"start": START, "end": END, "max_length": 4, "beam_width": 2, "n_best": 2}
        decoded = model.translate(source, LENGTHS, **given)
        return output, {n: g.copy() for n, g in model.gradients.items()}, decoded

    expected = run()
    with np.errstate(all="raise"):
        assert_same(run(), expected)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"probability": True}, TypeError, "probability must lie in 0..1, got True"),
        ({"tokens": np.ones((B, T))}, TypeError, "tokens must be integers, got float64"),
        ({"tokens": np.ma.ones((B, T), int)}, TypeError, "tokens must be a plain array"),
        ({"tokens": [1, 2]}, ValueError, r"tokens must be integers of shape \(B, T\)"),
        ({"tokens": np.full((B, T), 2**64 - 1, np.uint64)}, ValueError, "tokens must be in the"),
    ],
)
def test_errors_of_scheduled_inputs(changes, error, message, rng):
    model = make(rng)
    source, target = tokens_of(rng)
    memory, state = model.encode(source)
    given = {"tokens": target, "memory": memory, "state": state, "probability": 1.0} | changes
    with pytest.raises(error, match=f"^scheduled_inputs: {message}"):
        attnc.scheduled_inputs(model.decoder, model.target_embedding, model.output, **given)


def test_scheduled_inputs_of_a_narrow_type():
    size = 300
    decoder, embedding = attnc.AttentionDecoder(4, 8, 6, rng=0), attnc.Embedding(size, 4, rng=0)
    tokens = attnc.scheduled_inputs(
        decoder, embedding, lambda x: np.eye(size)[[299] * len(x)], np.zeros((1, 3), np.uint8),
        np.ones((1, 5, 6)), probability=1.0,
    )  # fmt: skip
    np.testing.assert_array_equal(tokens, [[0, 299, 299]])

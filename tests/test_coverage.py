"""Coverage of an attention decoder: by hand, as layers and models, hostile values; and the loss of
attending twice. What every option does to values, gradients, threads, layouts and steps, the tests
of `attention_decoder` say: `test_decoder_functions.py` goes through all kinds of coverage."""

import json

import numpy as np
import pytest
from checks import assert_agree, assert_close_like_naive, assert_same
from layer_checks import check_layer, randomize

import attnc
from attnc import reference
from attnc.files import MODEL
from attnc.functional import attention_decoder
from attnc.losses import coverage_loss

B, T, TK, E, H, M, A = 3, 4, 6, 2, 7, 5, 9
KINDS = ["linear", "tanh", "fertility"]
ORDERS = [("bahdanau", False), ("luong", False), ("luong", True)]


def make(rng, coverage, **options):
    decoder = attnc.AttentionDecoder(
        E, H, M, attention_size=A, coverage=coverage, rng=0, dtype="float64", **options
    )
    return randomize(decoder, rng)


def inputs_of(rng):
    return rng.standard_normal((B, T, E)), rng.standard_normal((B, TK, M))


# ---- The formulas --------------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", KINDS)
def test_steps_by_hand(coverage, rng):
    """Luong's order, GRU: the queries are the states that a decoder without attention has too."""
    decoder = make(rng, coverage, order="luong")
    p = {name.split(".")[-1]: x for name, x in decoder.parameters.items()}
    inputs, memory = inputs_of(rng)
    states, _ = attnc.functional.gru(
        inputs, [decoder.parameters[n] for n in decoder.parameters if n.startswith("cells.")],
        np.broadcast_to(p["initial_h"][:, None], (1, B, H)),
    )  # fmt: skip
    weights, (_, final) = decoder(inputs, memory)[1:]
    covered = np.zeros((B, TK))
    fertility = 1
    if coverage == "fertility":
        fertility = 2 / (1 + np.exp(-memory @ p["fertility_vector"]))
    for t in range(T):
        inside = (states[:, t] @ p["query_weight"])[:, None] + memory @ p["key_weight"]
        if coverage == "tanh":
            inside = inside + covered[..., None] * p["coverage_vector"]
        scores = np.tanh(inside) @ p["score_vector"]
        if coverage != "tanh":
            scores = scores + p["coverage_weight"] * covered
        a = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        assert_agree(weights[:, t], a)
        covered = covered + a / fertility
    assert_agree(final, covered)


@pytest.mark.parametrize("order, input_feeding", ORDERS)
def test_true_is_linear(order, input_feeding, rng):
    true, linear = (
        make(np.random.default_rng(1), c, order=order, input_feeding=input_feeding)
        for c in (True, "linear")
    )
    arrays = inputs_of(rng)
    assert_same(tuple(true(*arrays)), tuple(linear(*arrays)))


@pytest.mark.parametrize("coverage", KINDS)
@pytest.mark.parametrize("order, input_feeding", ORDERS)
def test_at_first_no_coverage_is_felt(coverage, order, input_feeding, rng):
    """And a fertility of 1 counts weights as they are."""
    options = {"order": order, "input_feeding": input_feeding, "rng": 3, "dtype": "float64"}
    without = attnc.AttentionDecoder(E, H, M, attention_size=A, **options)
    decoder = attnc.AttentionDecoder(E, H, M, attention_size=A, coverage=coverage, **options)
    arrays = inputs_of(rng)
    expected, got = without(*arrays), decoder(*arrays)
    assert_agree(got.outputs, expected.outputs)
    assert_agree(got.weights, expected.weights)
    assert_agree(got.state[-1], got.weights.sum(axis=1))


def test_the_largest_fertility(rng):
    """Twice the fertility is half the coverage."""
    two, four = (
        make(np.random.default_rng(1), "fertility", max_fertility=most) for most in (2.0, 4)
    )
    four.load_state_dict(
        four.state_dict() | {"coverage_weight": 2 * two.state_dict()["coverage_weight"]}
    )
    arrays = inputs_of(rng)
    expected, got = two(*arrays), four(*arrays)
    assert_agree(got.weights, expected.weights)
    assert_agree(2 * got.state[-1], expected.state[-1])
    assert "max_fertility=4.0" in repr(four)


# ---- Layers and models ---------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("coverage", KINDS)
@pytest.mark.parametrize("order, input_feeding", ORDERS)
def test_central_differences_of_a_layer(coverage, order, input_feeding, cell, rng):
    decoder = make(rng, coverage, cell=cell, order=order, input_feeding=input_feeding)
    check_layer(decoder, inputs_of(rng), {"key_lengths": [TK, 0, 2]}, rng)


@pytest.mark.parametrize("coverage", [True, *KINDS])
def test_saving(coverage, rng, tmp_path):
    options = {"max_fertility": 3.0} if coverage == "fertility" else {}
    model = randomize(attnc.Seq2Seq(9, 8, 4, 6, coverage=coverage, rng=0, **options), rng)
    attnc.save(tmp_path / "model.npz", model)
    again = attnc.load(tmp_path / "model.npz").layer
    assert repr(again) == repr(model)
    source, target = rng.integers(0, 8, (2, 3, 5))
    assert_same(tuple(again(source, target)), tuple(model(source, target)))
    options = {"start": 1, "end": 2, "max_length": 6, "beam_width": 3}
    assert_same(
        tuple(again.translate(source, **options)), tuple(model.translate(source, **options))
    )


# The constructor arguments of files from when coverage was on or off, and attention soft.
FORMER = {
    "AttentionDecoder": (
        "input_size", "state_size", "memory_size", "attention", "attention_size", "cell", "layers",
        "order", "input_feeding", "coverage", "summary", "dtype",
    ),
    "Seq2Seq": (
        "source_vocabulary_size", "target_vocabulary_size", "embedding_size", "state_size",
        "bidirectional", "attention", "attention_size", "cell", "layers", "order", "input_feeding",
        "coverage", "dropout", "tied", "padding_index", "dtype",
    ),
}  # fmt: skip


@pytest.mark.parametrize("coverage", [False, True])
@pytest.mark.parametrize("kind", FORMER)
def test_a_file_without_the_newer_arguments(kind, coverage, rng, tmp_path):
    sizes = (9, 8, 4, 6) if kind == "Seq2Seq" else (E, H, M)
    model = randomize(getattr(attnc, kind)(*sizes, coverage=coverage, rng=0), rng)
    attnc.save(tmp_path / "new.npz", model)
    with np.load(tmp_path / "new.npz") as file:
        arrays = dict(file)
    text = json.loads(bytes(arrays[MODEL]))
    written = text["layer"]["arguments"]
    newer = set(written) - set(FORMER[kind])
    assert {"max_fertility", "window", "alignment", "energy_noise"} <= newer
    text["layer"]["arguments"] = {name: written[name] for name in FORMER[kind]}
    arrays[MODEL] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    np.savez(tmp_path / "former.npz", **arrays)

    again = attnc.load(tmp_path / "former.npz").layer
    assert repr(again) == repr(model) and again.coverage is coverage
    call = rng.integers(0, 8, (2, 3, 5)) if kind == "Seq2Seq" else inputs_of(rng)
    assert_same(tuple(again(*call)), tuple(model(*call)))


@pytest.mark.parametrize("coverage", KINDS)
def test_a_search_carries_the_coverage(coverage, rng):
    """A beam of one, and each beam when its tokens are given: the weights of teacher forcing."""
    model = randomize(attnc.Seq2Seq(9, 8, 4, 6, coverage=coverage, rng=0, dtype="float64"), rng)
    source = rng.integers(0, 9, (3, 5))
    beams = model.translate(source, start=1, end=[], max_length=4, beam_width=3, n_best=3)
    for k in range(3):
        target = np.column_stack([np.ones(3, int), beams.tokens[:, k, :-1]])
        assert_agree(beams.weights[:, k], model(source, target).weights)


@pytest.mark.parametrize("coverage", KINDS)
def test_what_is_masked_is_not_felt(coverage, rng):
    decoder = make(rng, coverage)
    inputs, memory = inputs_of(rng)
    lengths = [TK, 0, 2]
    found = []
    for filling in (0, np.nan, np.inf):
        memory[np.arange(TK) >= np.array(lengths)[:, None]] = filling
        decoder.zero_grad()
        output, pullback = attnc.vjp(decoder, inputs, memory, key_lengths=lengths)
        found.append((output, vars(pullback(*output[:2])), dict(decoder.gradients)))
        assert np.isfinite(output.outputs).all() and not output.weights[1].any()
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])
    # A coverage that is not finite, where it is masked.
    state = np.zeros((1, B, H)), np.where(memory[..., 0] == np.inf, np.nan, 0.5)
    output, pullback = attnc.vjp(decoder, inputs, memory, state, key_lengths=lengths)
    grads = pullback(*output[:2])
    assert np.isfinite(output.outputs).all() and np.isfinite(grads.memory).all()


# ---- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"coverage": "sum"}, ValueError, "coverage must be one of 'linear', 'tanh', 'fertility'"),
        ({"coverage": 1}, TypeError, "coverage must be"),
        ({"coverage": None}, TypeError, "coverage must be"),
        (
            {"coverage": "tanh", "attention": "multiplicative"},
            ValueError,
            "coverage must not be 'tanh' for attention='multiplicative'",
        ),
        (
            {"coverage": "fertility", "attention": "none"},
            ValueError,
            "coverage must be False for attention='none', got 'fertility'",
        ),
        ({"max_fertility": 2.0}, ValueError, "max_fertility must be None for coverage=False, got"),
        (
            {"coverage": "fertility", "max_fertility": 0},
            ValueError,
            "max_fertility must be finite and above 0, got 0",
        ),
        ({"coverage": "fertility", "max_fertility": True}, TypeError, "max_fertility must be"),
    ],
)
def test_options_that_are_refused(options, error, message):
    for make_it in (
        lambda: attnc.AttentionDecoder(E, H, M, **options),
        lambda: attnc.Seq2Seq(9, 8, 4, 6, **options),
    ):
        with pytest.raises(error, match=message):
            make_it()


@pytest.mark.parametrize(
    "named, message",
    [
        (
            {"coverage_vector": np.ones(A), "coverage_weight": 1.0},
            "coverage_vector must not be given beside coverage_weight",
        ),
        (
            {"fertility_vector": np.ones(M)},
            "coverage_weight must be given for a fertility_vector",
        ),
        (
            {"coverage_vector": np.ones(A + 1)},
            r"coverage_vector must have shape \(9,\), got \(10,\)",
        ),
        (
            {"fertility_vector": np.ones(M + 1), "coverage_weight": 1.0},
            r"fertility_vector must have shape \(5,\), got \(6,\)",
        ),
        (
            {"coverage_vector": np.ones(A), "attention": "dot"},
            "coverage_vector must not be given for attention='dot'",
        ),
    ],
)
def test_arrays_that_are_refused(named, message, rng):
    score = {
        "query_weight": np.ones((H, A)), "key_weight": np.ones((M, A)), "score_vector": np.ones(A),
    }  # fmt: skip
    if named.get("attention") == "dot":
        score = {}
    cells = [np.ones((E + M, H)), np.ones((H, H)), np.ones(H), np.ones(H)]
    with pytest.raises(ValueError, match=f"attention_decoder: {message}"):
        attention_decoder(*inputs_of(rng), cells, cell="rnn", **score, **named)


# ---- The loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(T, TK), (B, T, TK), (2, B, T, TK), (B, 1, TK), (B, T, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_is_as_exact_as_plain_numpy(shape, masked, dtype, rng):
    weights = rng.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(dtype)
    mask = rng.random(shape[:-1]) < 0.7 if masked else None
    loss, pullback = attnc.vjp(coverage_loss, weights, mask=mask)
    exact, back = reference.vjp(reference.coverage_loss, weights, mask=mask, dtype=np.longdouble)
    naive, naive_back = reference.vjp(reference.coverage_loss, weights, mask=mask, dtype=dtype)
    assert loss.dtype == dtype
    assert_close_like_naive(loss, exact, naive)
    assert_close_like_naive(pullback(0.5).weights, back(0.5).weights, naive_back(0.5).weights)


def test_differences_of_the_loss(rng):
    weights = rng.dirichlet(np.ones(TK), (B, T))
    d, step = rng.standard_normal(weights.shape), 1e-6
    up, down = coverage_loss(weights + step * d), coverage_loss(weights - step * d)
    gradient = attnc.vjp(coverage_loss, weights)[1]().weights
    assert np.isclose((up - down) / (2 * step), np.vdot(gradient, d), rtol=1e-6)


def test_the_loss_of_always_and_of_never_the_same_key():
    same, other = np.zeros((1, 4, 5)), np.eye(5)[None, :4]
    same[..., 2] = 1
    assert coverage_loss(same) == 0.75 and coverage_loss(other) == 0
    assert coverage_loss(same, mask=[[True, True, False, False]]) == 0.5


def test_steps_that_do_not_count_are_not_read(rng):
    weights = rng.dirichlet(np.ones(TK), (B, T))
    mask = np.arange(T) < np.array([T, 0, 2])[:, None]
    loss, pullback = attnc.vjp(coverage_loss, weights, mask=mask)
    broken = np.where(mask[..., None], weights, np.nan)
    again, back = attnc.vjp(coverage_loss, broken, mask=mask)
    assert_same(again, loss)
    assert_same(back().weights, pullback().weights)
    assert not back().weights[~mask].any()
    assert coverage_loss(weights[:0]) == 0 and coverage_loss(weights[:, :0]) == 0
    assert coverage_loss(weights[..., :0]) == 0


@pytest.mark.parametrize(
    "weights, mask, error, message",
    [
        (np.ones(3), None, ValueError, r"weights must have shape \(\.\.\., T, Tk\), got \(3,\)"),
        (np.ones((2, 3), complex), None, TypeError, "weights must be real"),
        (np.ones((2, 3)), np.ones(2), TypeError, "mask must be boolean"),
        (np.ones((2, 3)), np.ones(3, bool), ValueError, r"mask must have shape \(2,\)"),
    ],
)
def test_what_the_loss_refuses(weights, mask, error, message):
    with pytest.raises(error, match=f"coverage_loss: {message}"):
        coverage_loss(weights, mask=mask)


def test_a_model_learns_not_to_attend_twice(rng):
    """The gradient of the loss of coverage goes through the weights into all parameters."""
    model = attnc.Seq2Seq(9, 9, 8, 16, coverage="tanh", rng=0)
    source = rng.integers(3, 9, (16, 6))
    target, optimizer = np.column_stack([np.ones(16, int), source]), attnc.optim.Adam(model, 0.02)
    found = []
    for _ in range(40):
        output, pullback = attnc.vjp(model, source, target[:, :-1], labels=source)
        loss, back = attnc.vjp(coverage_loss, output.weights)
        found.append(loss)
        model.zero_grad()
        pullback(0.0, dweights=back().weights)
        optimizer.step()
    assert found[0] > 0.7 and found[-1] < 0.5 * found[0]

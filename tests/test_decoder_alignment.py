"""Attention decoders that attend monotonically and chunkwise: against plain NumPy, differences,
step by step, in searches and when they choose; and whether they learn."""

import copy
import pickle

import numpy as np
import plain
import pytest
from checks import assert_agree, assert_same
from layer_checks import arrays_of, check_layer, like_random, moved, randomize

import attnc
from attnc.functional import attention_decoder

SIZES = {"B": 5, "T": 4, "Tk": 6, "E": 2, "H": 7, "M": 5, "A": 9}
LENGTHS = [6, 0, 2, 5, 1]
SCORES = ["additive", "multiplicative", "dot", "cosine"]
ORDERS = [("bahdanau", False), ("luong", False), ("luong", True)]
ALIGNMENTS = ["monotonic", "chunkwise"]
GATES = {"rnn": 1, "gru": 3, "lstm": 4}

every_kind = [
    pytest.mark.parametrize("alignment", ALIGNMENTS),
    pytest.mark.parametrize("attention", SCORES),
    pytest.mark.parametrize("order, input_feeding", ORDERS),
]


def kinds(test):
    for mark in every_kind:
        test = mark(test)
    return test


class Problem:
    """The arguments of a call."""

    def __init__(
        self, rng, alignment, attention, order, input_feeding, cell="gru", dtype=np.float64,
        offset=0.3, **sizes,
    ):  # fmt: skip
        B, T, Tk, E, H, M, A = (SIZES | sizes).values()
        M = H if attention in ("dot", "cosine") else M
        self.options = {
            "cell": cell, "attention": attention, "order": order, "input_feeding": input_feeding,
            "alignment": alignment,
        }  # fmt: skip
        if alignment == "chunkwise":
            self.options["chunk_width"] = 3

        def weight(*shape):
            return rng.standard_normal(shape) / np.sqrt(shape[0])

        fed, width = M if order == "bahdanau" else H * input_feeding, GATES[cell] * H
        cells = weight(E + fed, width), weight(H, width), weight(width), weight(width)
        state = [rng.standard_normal((1, B, H)) for _ in range(1 + (cell == "lstm"))]
        state += [rng.standard_normal((B, H))] * input_feeding
        state.append(rng.dirichlet(np.ones(Tk + 1), B)[:, :Tk])
        named = {"energy_offset": np.array(offset)}
        if attention == "additive":
            scores = {"query_weight": (H, A), "key_weight": (M, A), "score_vector": (A,)}
            named |= {"score_bias": weight(A), "energy_gain": np.array(2.5)}
        else:
            scores = {"weight": (H, M)} if attention == "multiplicative" else {}
        for name, shape in scores.items():
            named[name] = weight(*shape)
            if alignment == "chunkwise":
                named[f"chunk_{name}"] = weight(*shape)
        if attention == "cosine":
            named["scale"] = np.array(3.5)
        if order == "luong":
            named["readout_weight"] = weight(M + H, H)
        arrays = (
            rng.standard_normal((B, T, E)), rng.standard_normal((B, Tk, M)), cells, tuple(state),
        )  # fmt: skip
        self.arrays, self.named = plain.each((arrays, named), lambda x: x.astype(dtype))
        d = rng.standard_normal((B, T, H)), rng.standard_normal((B, T, Tk))
        self.d = plain.each((*d, like_random(rng, tuple(state))), lambda x: x.astype(dtype))
        self.noise, self.dtype = rng.standard_normal((B, T, Tk)).astype(dtype), np.dtype(dtype)

    def run(self, **more):
        output, pullback = attnc.vjp(
            attention_decoder, *self.arrays, **self.named, **self.options, **more
        )
        return tuple(output), vars(pullback(*self.d))

    def check(self, allowed=None, noise=None):
        """By the rule of tolerance."""
        output, gradients = self.run(key_mask=allowed, noise=noise)
        first = tuple(gradients[name] for name in ("inputs", "memory", "cells", "state"))
        named = {name: gradients[name] for name in self.named}
        plain.assert_close(
            (output, (*first, named)),
            lambda *nodes: plain.decoder(*nodes, **self.options, allowed=allowed, noise=noise),
            (*self.arrays, self.named),
            self.d,
            self.dtype,
        )


def make(rng, alignment, attention="additive", **options):
    M = SIZES["H"] if attention in ("dot", "cosine") else SIZES["M"]
    options = {"rng": 0, "dtype": "float64", **options}
    if alignment == "chunkwise":
        options.setdefault("chunk_width", 3)
    decoder = attnc.AttentionDecoder(
        SIZES["E"], SIZES["H"], M, attention=attention, alignment=alignment, **options
    )
    return randomize(decoder, rng)


def inputs_of(decoder, rng):
    B, T, Tk = (SIZES[n] for n in ("B", "T", "Tk"))
    sizes = decoder.input_size, decoder.memory_size
    return rng.standard_normal((B, T, sizes[0])), rng.standard_normal((B, Tk, sizes[1]))


# ---- Values and gradients ------------------------------------------------------------------------


@kinds
def test_as_exact_as_plain_numpy(alignment, attention, order, input_feeding, dtype, isa, rng):
    allowed = np.arange(SIZES["Tk"]) < np.array(LENGTHS)[:, None]
    allowed[0, 2] = False
    for cell in ("gru", "lstm"):
        problem = Problem(rng, alignment, attention, order, input_feeding, cell, dtype)
        problem.check(allowed, problem.noise)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("attention", SCORES)
@pytest.mark.parametrize("Tk", [1, 17])
def test_memories_of_any_length(alignment, attention, Tk, dtype, rng):
    for order, input_feeding in ORDERS:
        sizes = {"B": 2, "T": 3, "Tk": Tk, "offset": -2.0}
        problem = Problem(rng, alignment, attention, order, input_feeding, dtype=dtype, **sizes)
        problem.check(rng.random((2, Tk)) < 0.8)


@kinds
def test_central_differences_of_a_layer(alignment, attention, order, input_feeding, rng):
    decoder = make(rng, alignment, attention, order=order, input_feeding=input_feeding, layers=2)
    check_layer(decoder, inputs_of(decoder, rng), {"key_lengths": LENGTHS}, rng)


@kinds
def test_same_bits_for_any_number_of_threads(alignment, attention, order, input_feeding, rng):
    sizes = {"B": 37, "T": 3, "Tk": 40, "H": 45, "M": 38, "A": 50}
    problem = Problem(rng, alignment, attention, order, input_feeding, dtype=np.float32, **sizes)
    found = []
    for threads in (1, 2, 5):
        with attnc.set_num_threads(threads):
            found.append(problem.run(noise=problem.noise))
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("attention", SCORES)
def test_nothing_masked_is_felt(alignment, attention, rng):
    decoder = make(rng, alignment, attention)
    inputs, memory = inputs_of(decoder, rng)
    found = []
    for filling in (0, np.nan, np.inf):
        memory[np.arange(SIZES["Tk"]) >= np.array(LENGTHS)[:, None]] = filling
        decoder.zero_grad()
        output, pullback = attnc.vjp(decoder, inputs, memory, key_lengths=LENGTHS)
        found.append((tuple(output), vars(pullback(*output[:2])), dict(decoder.gradients)))
        found[-1] += (tuple(decoder(inputs, memory, key_lengths=LENGTHS, hard=True)),)
    assert np.isfinite(found[0][0][0]).all() and not found[0][0][1][1].any()
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_sizes_of_nothing(alignment, rng):
    decoder = make(rng, alignment)
    for B, T, Tk in ((0, 2, 3), (2, 0, 3), (2, 2, 0)):
        arrays = np.ones((B, T, SIZES["E"])), np.ones((B, Tk, SIZES["M"]))
        output, pullback = attnc.vjp(decoder, *arrays)
        assert output.weights.shape == (B, T, Tk) and np.isfinite(output.outputs).all()
        pullback(*output[:2])
        assert decoder(*arrays, hard=True).weights.shape == (B, T, Tk)


# ---- The formulas --------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("Tk", [SIZES["Tk"], 300])
def test_the_functions_on_their_own_give_the_same(alignment, Tk, rng):
    """Luong's order without feeding: no step waits, so the functions may take all steps at once."""
    decoder = make(rng, alignment, order="luong")
    p = decoder.parameters
    inputs, _ = inputs_of(decoder, rng)
    memory = rng.standard_normal((SIZES["B"], Tk, SIZES["M"]))
    states, _ = attnc.functional.gru(
        inputs, [p[n] for n in p if n.startswith("cells.")],
        np.broadcast_to(p["initial_h"][:, None], (1, SIZES["B"], SIZES["H"])),
    )  # fmt: skip
    v = p["score.score_vector"]
    energies = attnc.additive_scores(
        states, memory, p["energy_gain"] * v / np.linalg.norm(v), score_bias=p["score_bias"],
        query_weight=p["score.query_weight"], key_weight=p["score.key_weight"],
    )  # fmt: skip
    probability = 1 / (1 + np.exp(-energies - p["energy_offset"]))
    stopped, _ = attnc.monotonic_alignment(probability, key_lengths=LENGTHS)
    expected = stopped
    if alignment == "chunkwise":
        u = attnc.additive_scores(
            states, memory, p["chunk_score.score_vector"],
            query_weight=p["chunk_score.query_weight"], key_weight=p["chunk_score.key_weight"],
        )  # fmt: skip
        expected = attnc.chunkwise_attention(
            stopped, u, memory, 3, key_lengths=LENGTHS, return_weights=True
        ).weights
    got = decoder(inputs, memory, key_lengths=LENGTHS)
    assert_agree(got.weights, expected)
    assert_agree(got.state[-1], stopped[:, -1])
    assert got.weights.sum(axis=-1).max() <= 1 + 1e-12


@kinds
def test_long_memories_along_one_direction(alignment, attention, order, input_feeding, rng):
    """More keys than there are in a tile: the gradient of all that was given, in one direction."""
    sizes = {"B": 2, "T": 3, "Tk": 300, "offset": -3.0}
    problem = Problem(rng, alignment, attention, order, input_feeding, **sizes)
    allowed = rng.random((2, 300)) < 0.9
    _, gradients = problem.run(key_mask=allowed)
    values = *problem.arrays, *problem.named.values()
    direction = like_random(rng, values)

    def loss(step):
        inputs, memory, cells, state, *named = moved(values, step, direction)
        named = dict(zip(problem.named, named, strict=True))
        output = attention_decoder(
            inputs, memory, cells, state, **named, **problem.options, key_mask=allowed
        )
        pairs = zip(arrays_of(tuple(output)), arrays_of(problem.d), strict=True)
        return sum(np.vdot(x, d) for x, d in pairs)

    names = "inputs", "memory", "cells", "state", *problem.named
    found = tuple(gradients[name] for name in names)
    pairs = zip(arrays_of(found), arrays_of(direction), strict=True)
    along = sum(np.vdot(x, d) for x, d in pairs)
    assert np.isclose((loss(1e-6) - loss(-1e-6)) / 2e-6, along, rtol=1e-5)


@kinds
def test_a_hard_choice_is_the_alignment_of_sure_probabilities(
    alignment, attention, order, input_feeding, rng
):
    """With energies so large that every probability is 0 or 1, both say the same."""
    options = {"order": order, "input_feeding": input_feeding}
    decoder = make(rng, alignment, attention, **options)
    grown = {"score.score_vector": 1, "energy_gain": 1e5, "score.scale": 1e5, "score.weight": 1e5}
    state = decoder.state_dict()
    for name, factor in grown.items():
        if name in state:
            state[name] = state[name] * factor
    state["energy_offset"] = np.zeros(())
    decoder.load_state_dict(state)
    inputs, memory = inputs_of(decoder, rng)
    if attention == "dot":
        memory = memory * 1e5
    soft = decoder(inputs, memory, key_lengths=LENGTHS)
    hard = decoder(inputs, memory, key_lengths=LENGTHS, hard=True)
    if attention in ("dot", "multiplicative") and alignment == "chunkwise":
        assert_agree(hard.state[-1], soft.state[-1])  # where they stop
    assert_agree(hard.weights, soft.weights)
    assert_agree(hard.outputs, soft.outputs)
    assert hard.weights.any()


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_where_a_hard_choice_stops(alignment, rng):
    """The first key from the last one on that is sure enough; none: nothing, ever after."""
    decoder = make(rng, alignment, order="luong")
    inputs, memory = inputs_of(decoder, rng)
    # The energies of the test above, of a state that no context changes.
    p = decoder.parameters
    states, _ = attnc.functional.gru(
        inputs, [p[n] for n in p if n.startswith("cells.")],
        np.broadcast_to(p["initial_h"][:, None], (1, SIZES["B"], SIZES["H"])),
    )  # fmt: skip
    v = p["score.score_vector"]
    energies = attnc.additive_scores(
        states, memory, p["energy_gain"] * v / np.linalg.norm(v), score_bias=p["score_bias"],
        query_weight=p["score.query_weight"], key_weight=p["score.key_weight"],
    )  # fmt: skip
    offset = -np.quantile(energies, 0.6)
    decoder.load_state_dict(decoder.state_dict() | {"energy_offset": np.array(offset)})
    *_, state = output = decoder(inputs, memory, key_lengths=LENGTHS, hard=True)
    ends = set()
    for b, length in enumerate(LENGTHS):
        position = 0
        for t in range(SIZES["T"]):
            sure = [j for j in range(position, length) if energies[b, t, j] + offset >= 0]
            position = sure[0] if sure else length
            weights = output.weights[b, t]
            if not sure:
                assert not weights.any()
                ends.add("nothing")
                continue
            width = 3 if alignment == "chunkwise" else 1
            first = max(0, position - width + 1)
            assert np.flatnonzero(weights).tolist() == list(range(first, position + 1))
            assert np.isclose(weights.sum(), 1)
            ends.add("something")
        expected = np.zeros(SIZES["Tk"])
        expected[position : position + (position < length)] = 1
        assert_same(state[-1][b], expected)
    assert ends == {"nothing", "something"}


# ---- Steps and searches --------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("hard", [False, True])
def test_steps_and_parts_are_one_call(alignment, attention, order, input_feeding, hard, rng):
    decoder = make(rng, alignment, attention, order=order, input_feeding=input_feeding, cell="lstm")
    inputs, memory = inputs_of(decoder, rng)
    prepared = decoder.prepare(memory, key_lengths=LENGTHS, hard=hard)
    whole = decoder(inputs, prepared)
    first = decoder(inputs[:, :1], prepared)
    parts = [first, decoder(inputs[:, 1:3], prepared, first.state)]
    last = decoder.step(inputs[:, 3], prepared, parts[-1].state)
    for name in ("outputs", "weights"):
        pieces = [getattr(part, name) for part in parts] + [getattr(last, name)[:, None]]
        assert_agree(np.concatenate(pieces, axis=1), getattr(whole, name))
    for got, expected in zip(last.state, whole.state, strict=True):
        assert_agree(got, expected)
    rows = np.array([3, 0, 0])
    taken = decoder.step(
        inputs[rows, 3], prepared.take(rows), decoder.reorder(parts[-1].state, rows)
    )
    assert_agree(taken.weights, last.weights[rows])
    for other in (copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
        owner = decoder if other.owner is decoder else other.owner
        assert_same(tuple(owner(inputs, other)), tuple(whole))


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("hard", [False, True])
def test_searches(alignment, hard, rng):
    """What was found, given to the decoder, has the weights that the search returned."""
    model = attnc.Seq2Seq(
        9, 8, 4, 6, alignment=alignment, energy_offset=0.5, rng=0, dtype="float64"
    )
    randomize(model, rng)
    source = rng.integers(0, 9, (4, 5))
    memory, state = model.encode(source, [5, 4, 1, 3], hard=hard)
    options = {"start": 1, "end": [], "max_length": 4}
    beams = model.translate(source, [5, 4, 1, 3], beam_width=3, n_best=3, hard=hard, **options)
    greedy = model.translate(source, [5, 4, 1, 3], hard=hard, **options)
    sampled = attnc.sample_decode(
        model.decoder, model.target_embedding, model.output, memory, state, rng=0, **options
    )
    found = [(beams.tokens[:, k], beams.weights[:, k]) for k in range(3)]
    for tokens, weights in (*found, (greedy.tokens, greedy.weights), sampled[:2]):
        before = np.column_stack([np.ones(4, int), tokens[:, :-1]])
        expected = model.decoder(model.target_embedding(before), memory, state)
        assert_agree(weights, expected.weights)


# ---- Noise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_noise_is_for_training_and_from_a_seed(alignment, rng):
    decoder = make(rng, alignment)
    arrays = inputs_of(decoder, rng)
    still = decoder(*arrays, rng=3)
    assert_same(tuple(still), tuple(decoder(*arrays)))
    noisy = decoder(*arrays, train=True, rng=3)
    assert abs(noisy.weights - still.weights).max() > 0.01
    assert_same(tuple(noisy), tuple(decoder(*arrays, train=True, rng=np.random.default_rng(3))))
    assert_same(tuple(noisy), tuple(attnc.vjp(decoder, *arrays, train=True, rng=3)[0]))
    quiet = make(np.random.default_rng(1), alignment, energy_noise=0)
    assert_same(tuple(quiet(*arrays, train=True)), tuple(quiet(*arrays)))


def test_a_gradient_with_noise(rng):
    decoder = make(rng, "monotonic")
    check_layer(decoder, inputs_of(decoder, rng), {"train": True, "rng": 5}, rng)


# ---- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"alignment": "hard"}, ValueError, "alignment must be one of 'soft', 'monotonic'"),
        ({"alignment": True}, TypeError, "alignment must be one of"),
        (
            {"alignment": "monotonic", "attention": "none"},
            ValueError,
            "alignment must be 'soft' for attention='none', got 'monotonic'",
        ),
        (
            {"alignment": "monotonic", "coverage": True},
            ValueError,
            "coverage must be False for alignment='monotonic', got True",
        ),
        (
            {"alignment": "monotonic", "chunk_width": 2},
            ValueError,
            "chunk_width must be None for alignment='monotonic', got 2",
        ),
        ({"alignment": "chunkwise", "chunk_width": 0}, ValueError, "chunk_width must"),
        ({"alignment": "chunkwise", "chunk_width": 2.0}, TypeError, "chunk_width must"),
        ({"energy_offset": -1.0}, ValueError, "energy_offset must be None for alignment='soft'"),
        ({"energy_noise": 0}, ValueError, "energy_noise must be None for alignment='soft'"),
        (
            {"alignment": "monotonic", "energy_offset": np.nan},
            ValueError,
            "energy_offset must be finite",
        ),
        ({"alignment": "monotonic", "energy_noise": -1}, ValueError, "energy_noise must be finite"),
    ],
)
def test_options_that_are_refused(options, error, message):
    for make_it in (
        lambda: attnc.AttentionDecoder(2, 7, 5, **options),
        lambda: attnc.Seq2Seq(9, 8, 4, 6, **options),
    ):
        with pytest.raises(error, match=message):
            make_it()


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"alignment": "soft"},
            "energy_gain must not be given for attention='additive'",
        ),
        (
            {"coverage_weight": 1.0},
            "coverage_weight must not be given for attention='additive'",
        ),
        ({"noise": np.ones(3)}, r"noise must have shape \(5, 4, 6\), got \(3,\)"),
        ({"chunk_score_vector": None}, "chunk_score_vector must be given for attention='additive'"),
        (
            {"chunk_key_weight": np.ones(3)},
            r"chunk_key_weight must have shape \(5, 9\), got",
        ),
        ({"hard": True}, "hard must be False for a gradient, got True"),
        ({"score_bias": np.ones(2)}, r"score_bias must have shape \(9,\), got \(2,\)"),
        ({"energy_gain": np.ones(2)}, r"energy_gain must have shape \(\), got \(2,\)"),
    ],
)
def test_calls_that_are_refused(change, message, rng):
    problem = Problem(rng, "chunkwise", "additive", "bahdanau", False)
    problem.options |= {name: change[name] for name in change if name not in problem.named}
    problem.named |= {name: change[name] for name in change if name in problem.named}
    if change.get("alignment") == "soft":
        del problem.options["chunk_width"]
    with pytest.raises(ValueError, match=message):
        problem.run()


def test_hard_is_refused_where_nothing_stops(rng):
    decoder = attnc.AttentionDecoder(2, 7, 5)
    with pytest.raises(ValueError, match="hard must be False for alignment='soft', got True"):
        decoder.prepare(np.ones((1, 2, 5)), hard=True)
    decoder = make(rng, "monotonic")
    arrays = inputs_of(decoder, rng)
    with pytest.raises(TypeError, match="hard must be"):
        decoder(*arrays, hard=1)
    with pytest.raises(ValueError, match="hard must be False for a gradient"):
        attnc.vjp(decoder, *arrays, hard=True)
    with pytest.raises(ValueError, match="hard must be given to prepare"):
        decoder(arrays[0], decoder.prepare(arrays[1]), hard=True)


# ---- Models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("attention", SCORES)
def test_saving(alignment, attention, rng, tmp_path):
    model = attnc.Seq2Seq(
        9, 8, 4, 6, attention=attention, alignment=alignment, energy_noise=0.5, rng=0
    )
    randomize(model, rng)
    attnc.save(tmp_path / "model.npz", model)
    again = attnc.load(tmp_path / "model.npz").layer
    assert repr(again) == repr(model) and f"alignment={alignment!r}" in repr(model)
    source, target = rng.integers(0, 8, (2, 3, 5))
    assert_same(tuple(again(source, target)), tuple(model(source, target)))


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_model_learns_to_copy(alignment):
    """From left to right. The loss falls far below that of guessing among the words; and then hard
    choices, which look at one word or two at a time, spell it."""
    rng = np.random.default_rng(0)
    words, length = 8, 6

    def batch(size):
        labels = rng.integers(2, 2 + words, (size, length))
        return labels, labels, np.column_stack([np.ones(size, int), labels[:, :-1]])

    model = attnc.Seq2Seq(2 + words, 2 + words, 16, 32, alignment=alignment, order="luong", rng=0)
    optimizer, losses = attnc.optim.Adam(model, 0.02), []
    for _ in range(300):
        source, labels, target = batch(32)
        output, pullback = attnc.vjp(model, source, target, labels=labels, train=True, rng=rng)
        losses.append(output.loss)
        model.zero_grad()
        pullback()
        optimizer.step()
    assert np.mean(losses[-10:]) < 0.25 * np.log(words)
    source, labels, _ = batch(64)
    found = model.translate(source, start=1, end=[], max_length=length, hard=True)
    assert (found.tokens == labels).mean() > 0.85
    assert set(np.count_nonzero(found.weights, axis=-1).ravel()) <= {0, 1, 2}

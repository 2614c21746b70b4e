"""AttentionDecoder: every combination forward and back, step by step, masks; greedy decoding."""

import copy
import itertools
import pickle
import sys

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import arrays_of, check_float32, check_house, check_layer, like_random, randomize

import attnc

B, T, TK, E, H, M, A = 3, 4, 5, 2, 7, 11, 13
LENGTHS = [5, 0, 2]
SCORES = ["additive", "multiplicative", "dot", "cosine", "none"]
CELLS = ["gru", "lstm", "rnn"]
ORDERS = [("bahdanau", False), ("luong", False), ("luong", True)]


def make(rng=None, **options):
    equal = options.get("attention") in ("dot", "cosine")
    options = {
        "input_size": E,
        "state_size": H,
        "memory_size": H if equal else M,
        "rng": 0,
        "dtype": "float64",
        **options,
    }
    decoder = attnc.AttentionDecoder(**options)
    return decoder if rng is None else randomize(decoder, rng)


def inputs_of(decoder, rng):
    return (
        rng.standard_normal((B, T, decoder.input_size)),
        rng.standard_normal((B, TK, decoder.memory_size)),
    )


def state_of(decoder, rng, whole=False):
    """The state of the cells; whole: with what else a step needs of the one before."""
    shape, names = (decoder.layers, B, H), "hc" if decoder.cell == "lstm" else "h"
    arrays = [rng.standard_normal(shape) for _ in names]
    if whole and decoder.input_feeding:
        arrays.append(rng.standard_normal((B, H)))
    if whole and decoder.coverage:
        arrays.append(rng.uniform(0, 2, (B, TK)))
    return tuple(arrays) if len(arrays) > 1 else arrays[0]


# ---- Values and gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("attention", SCORES)
@pytest.mark.parametrize("order, input_feeding", ORDERS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_combination(attention, order, input_feeding, cell, rng):
    """Gradients, and a loop over step() gives what the whole sequence gives."""
    kinds = itertools.product((1, 2), ("nothing", "state", "all"), (False, True))
    for layers, given, coverage in kinds:
        if given == "all" and not (input_feeding or coverage) or coverage and attention == "none":
            continue
        decoder = make(
            rng,
            attention=attention,
            cell=cell,
            order=order,
            layers=layers,
            input_feeding=input_feeding,
            coverage=coverage,
        )
        inputs, memory = inputs_of(decoder, rng)
        state = None if given == "nothing" else state_of(decoder, rng, given == "all")
        arguments = (inputs, memory) if state is None else (inputs, memory, state)
        options = {"key_lengths": LENGTHS}
        (outputs, weights, final), gradients = check_layer(decoder, arguments, options, rng)
        assert outputs.shape == (B, T, decoder.output_size) and weights.shape == (B, T, TK)
        assert len(gradients) == 2 and ("state" in vars(gradients)) == (state is not None)

        prepared = decoder.prepare(memory, **options)
        for t in range(T):
            output, attended, state = decoder.step(inputs[:, t], prepared, state)
            assert_agree(output, outputs[:, t])
            assert_agree(attended, weights[:, t])
        for got, want in zip(arrays_of(state), arrays_of(final), strict=True):
            assert_agree(got, want)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("order, input_feeding", ORDERS)
@pytest.mark.parametrize("layers", [1, 2])
def test_summary_as_the_first_state(cell, order, input_feeding, layers, rng):
    decoder = make(
        rng,
        attention="none",
        summary="first_state",
        cell=cell,
        order=order,
        input_feeding=input_feeding,
        layers=layers,
    )
    inputs, memory = inputs_of(decoder, rng)
    check_layer(decoder, (inputs, memory), {"key_lengths": LENGTHS}, rng)
    # A state that is given takes the summary's place.
    _, gradients = check_layer(decoder, (inputs, memory, state_of(decoder, rng)), {}, rng)
    assert not gradients.memory.any()


@pytest.mark.parametrize("order, input_feeding", [("bahdanau", False), ("luong", True)])
@pytest.mark.parametrize("attention", SCORES)
def test_without_the_previous_word(order, input_feeding, attention, rng):
    decoder = make(rng, input_size=0, order=order, input_feeding=input_feeding, attention=attention)
    inputs, memory = inputs_of(decoder, rng)
    assert inputs.shape == (B, T, 0)
    check_layer(decoder, (inputs, memory), {}, rng)


def test_a_state_may_be_a_list_of_numbers(rng):
    decoder = make(rng)
    inputs, memory = inputs_of(decoder, rng)
    state = state_of(decoder, rng)
    output, pullback = attnc.vjp(decoder, inputs, memory, state.tolist())
    assert_same(output, decoder(inputs, memory, state))
    assert pullback(output.outputs).state.shape == state.shape


@pytest.mark.parametrize("order, input_feeding", ORDERS)
@pytest.mark.parametrize("shape", [(1, T), (B, 1), (1, 1)])
def test_the_caller_may_write_to_what_it_gets(order, input_feeding, shape, rng):
    decoder = make(rng, order=order, input_feeding=input_feeding, coverage=True)
    inputs, memory = rng.standard_normal((*shape, E)), rng.standard_normal((shape[0], TK, M))
    state = state_of(decoder, rng)[:, : shape[0]]
    output, pullback = attnc.vjp(decoder, inputs, memory, state)
    d = like_random(rng, output)
    expected = vars(pullback(*d))
    for array in arrays_of(tuple(output)):
        array[...] = np.nan
    assert_same(vars(pullback(*d)), expected)


def transcription(decoder, inputs, memory, state, lengths):
    """The papers' formulas, one sequence and one step at a time (GRU, one layer)."""
    p = decoder.parameters

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def gru(x, h):
        a = x @ p["cells.0.input_weight"] + p["cells.0.input_bias"]
        u = h @ p["cells.0.state_weight"] + p["cells.0.state_bias"]
        r, z = sigmoid(a[:H] + u[:H]), sigmoid(a[H : 2 * H] + u[H : 2 * H])
        return (1 - z) * np.tanh(a[2 * H :] + r * u[2 * H :]) + z * h

    def score(s, h):
        return {
            "additive": lambda: (
                p["score.score_vector"]
                @ np.tanh(s @ p["score.query_weight"] + h @ p["score.key_weight"])
            ),
            "multiplicative": lambda: s @ p["score.weight"] @ h,
            "dot": lambda: s @ h,
            "cosine": lambda: p["score.scale"] * (s @ h) / np.sqrt((s @ s) * (h @ h)),
        }[decoder.attention]()

    outputs, weights = np.zeros((B, T, H)), np.zeros((B, T, TK))
    for b in range(B):
        keys = memory[b, : lengths[b]]
        s, feed = state[0, b], np.zeros(H)

        def attend(s, b=b, keys=keys):
            if len(keys) == 0:
                return np.zeros(0), np.zeros(decoder.memory_size)
            e = np.exp([score(s, key) for key in keys])
            return e / e.sum(), e / e.sum() @ keys

        for t in range(T):
            y = inputs[b, t]
            if decoder.order == "bahdanau":
                w, c = attend(s)
                s = gru(np.concatenate([y, c]), s)
                output = s
            else:
                s = gru(np.concatenate([y, feed]) if decoder.input_feeding else y, s)
                w, c = attend(s)
                output = feed = np.tanh(np.concatenate([c, s]) @ p["readout_weight"])
            outputs[b, t], weights[b, t, : len(w)] = output, w
    return outputs, weights


@pytest.mark.parametrize("attention", SCORES[:-1])
@pytest.mark.parametrize("order, input_feeding", ORDERS)
def test_the_papers_formulas(attention, order, input_feeding, rng):
    decoder = make(rng, attention=attention, order=order, input_feeding=input_feeding)
    inputs, memory = inputs_of(decoder, rng)
    state = state_of(decoder, rng)
    output = decoder(inputs, memory, state, key_lengths=LENGTHS)
    outputs, weights = transcription(decoder, inputs, memory, state, LENGTHS)
    assert_agree(output.outputs, outputs)
    assert_agree(output.weights, weights)


def test_attention_size(rng):
    decoder = make(attention_size=A)
    assert decoder.parameters["score.query_weight"].shape == (H, A)
    check_layer(randomize(decoder, rng), inputs_of(decoder, rng), {}, rng)
    assert make().parameters["score.key_weight"].shape == (M, H)


@pytest.mark.parametrize("order, input_feeding", ORDERS)
def test_gradients_that_are_none_are_zero(order, input_feeding, rng):
    decoder = make(rng, order=order, input_feeding=input_feeding, cell="lstm")
    output, pullback = attnc.vjp(decoder, *inputs_of(decoder, rng))
    for chosen in range(3):
        d = [like_random(rng, x) if i == chosen else None for i, x in enumerate(output)]
        zeros = [tuple(0 * a for a in x) if isinstance(x, tuple) else 0 * x for x in output]
        full = [z if x is None else x for x, z in zip(d, zeros, strict=True)]
        assert_same(tuple(pullback(*d)), tuple(pullback(*full)))


# ---- Masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", SCORES)
@pytest.mark.parametrize("order, input_feeding", ORDERS)
def test_what_is_masked_is_not_read(attention, order, input_feeding, rng):
    decoder = make(rng, attention=attention, order=order, input_feeding=input_feeding)
    inputs, memory = inputs_of(decoder, rng)
    mask = rng.random((B, TK)) < 0.7
    options = {"key_mask": mask, "key_lengths": [5, 0, 3]}

    def run():
        decoder.zero_grad()
        output, pullback = attnc.vjp(decoder, inputs, memory, **options)
        return output, vars(pullback(*d)), {n: g.copy() for n, g in decoder.gradients.items()}

    d = like_random(rng, decoder(inputs, memory, **options))
    expected = run()
    masked = ~(mask & (np.arange(TK) < np.array([[5], [0], [3]])))
    memory[masked] = np.nan
    d[1].transpose(0, 2, 1)[masked] = np.inf
    assert_same(run(), expected)
    output, gradients, _ = expected
    assert not output.weights.transpose(0, 2, 1)[masked].any()
    assert not gradients["memory"][masked].any()
    sums = np.broadcast_to(~masked.all(axis=1)[:, None], (B, T))
    assert_agree(output.weights.sum(axis=-1), sums.astype(float))


@pytest.mark.parametrize("attention", SCORES)
@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0), (0, 0, 0)])
@pytest.mark.parametrize("order, input_feeding", ORDERS)
def test_nothing_to_do(attention, shape, order, input_feeding):
    decoder = make(attention=attention, order=order, input_feeding=input_feeding)
    batch, steps, keys = shape
    inputs, memory = np.zeros((batch, steps, E)), np.zeros((batch, keys, decoder.memory_size))
    output, pullback = attnc.vjp(decoder, inputs, memory)
    assert output.outputs.shape == (batch, steps, H) and output.weights.shape == shape
    dinputs, dmemory = pullback(*output)
    assert dinputs.shape == inputs.shape and dmemory.shape == memory.shape


def test_none_sees_the_last_valid_step_alone(rng):
    decoder = make(rng, attention="none")
    inputs, memory = inputs_of(decoder, rng)
    mask = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [1, 1, 1, 0, 1]], bool)
    output, pullback = attnc.vjp(decoder, inputs, memory, key_mask=mask, key_lengths=[3, 5, 4])
    last = [2, 2, 2]
    np.testing.assert_array_equal(output.weights, np.eye(TK)[last][:, None].repeat(T, axis=1))
    dmemory = pullback(np.ones_like(output.outputs)).memory
    assert dmemory[range(B), last].all() and np.count_nonzero(dmemory.any(axis=-1)) == B


def test_a_sequence_alone_or_in_company(rng):
    decoder = make(rng, order="luong", input_feeding=True)
    inputs, memory = inputs_of(decoder, rng)
    together = decoder(inputs, memory, key_lengths=LENGTHS)
    for b, length in enumerate(LENGTHS):
        alone = decoder(inputs[b : b + 1], memory[b : b + 1, :length])
        assert_agree(together.outputs[b], alone.outputs[0])
        assert_agree(together.weights[b, :, :length], alone.weights[0])


# ---- The rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, "AttentionDecoder(input_size=2, state_size=7, memory_size=11, dtype='float64')"),
        (
            {
                "attention": "none",
                "summary": "first_state",
                "cell": "lstm",
                "layers": 2,
                "order": "luong",
                "input_feeding": True,
                "dtype": "float32",
            },
            "AttentionDecoder(input_size=2, state_size=7, memory_size=11, attention='none', "
            "cell='lstm', layers=2, order='luong', input_feeding=True, summary='first_state')",
        ),
        (
            {"attention": "additive", "attention_size": 13},
            "AttentionDecoder(input_size=2, state_size=7, memory_size=11, attention_size=13, "
            "dtype='float64')",
        ),
    ],
)
def test_house(options, expected, tmp_path):
    decoder = make(**options)
    assert repr(decoder) == expected
    check_house(decoder, tmp_path)


@pytest.mark.parametrize("attention", SCORES)
def test_float32_is_the_default(attention, rng):
    decoder = make(attention=attention, dtype="float32", cell="lstm", order="luong")
    arguments = (*inputs_of(decoder, rng), state_of(decoder, rng))
    check_float32(decoder, arguments, {})


def test_names_and_shapes_of_parameters():
    decoder = make(cell="lstm", order="luong", input_feeding=True, layers=2, attention_size=A)
    assert {name: p.shape for name, p in decoder.parameters.items()} == {
        "initial_h": (2, H),
        "initial_c": (2, H),
        "readout_weight": (M + H, H),
        "cells.0.input_weight": (E + H, 4 * H),
        "cells.0.state_weight": (H, 4 * H),
        "cells.0.input_bias": (4 * H,),
        "cells.0.state_bias": (4 * H,),
        "cells.1.input_weight": (H, 4 * H),
        "cells.1.state_weight": (H, 4 * H),
        "cells.1.input_bias": (4 * H,),
        "cells.1.state_bias": (4 * H,),
        "score.query_weight": (H, A),
        "score.key_weight": (M, A),
        "score.score_vector": (A,),
    }


def test_a_forward_pass_in_between_disturbs_nothing(rng):
    decoder = make(rng)
    inputs, memory = inputs_of(decoder, rng)

    def gradients(between):
        decoder.zero_grad()
        output, pullback = attnc.vjp(decoder, inputs, memory)
        between()
        return vars(pullback(output.outputs)), {n: g.copy() for n, g in decoder.gradients.items()}

    other = rng.standard_normal((B, 2, M))
    assert_same(gradients(lambda: decoder(inputs, other)), gradients(lambda: None))


def call(**arguments):
    def run():
        decoder = make(order="luong", input_feeding=True, cell="lstm")
        everything = {"inputs": np.ones((B, T, E)), "memory": np.ones((B, TK, M)), **arguments}
        decoder(**everything)

    return run


ERRORS = {
    "attention": (
        lambda: make(attention="general"),
        ValueError,
        "attention must be one of 'additive', 'multiplicative', 'dot', 'cosine', 'none', "
        "got 'general'",
    ),
    "cell": (
        lambda: make(cell="GRU"),
        ValueError,
        "cell must be one of 'rnn', 'gru', 'lstm', got 'GRU'",
    ),
    "order": (
        lambda: make(order="Luong"),
        ValueError,
        "order must be one of 'bahdanau', 'luong', got 'Luong'",
    ),
    "coverage": (
        lambda: make(coverage=True, attention="none"),
        ValueError,
        "coverage must be False for attention='none', got True",
    ),
    "dot": (
        lambda: make(attention="dot", memory_size=M),
        ValueError,
        "memory_size must equal state_size for attention='dot', got 11 and 7 "
        "(attention='multiplicative' takes any sizes)",
    ),
    "attention_size": (
        lambda: make(attention="none", attention_size=4),
        ValueError,
        "attention_size must be None for attention='none', got 4 (only 'additive' has one)",
    ),
    "summary": (
        lambda: make(summary="first_state"),
        ValueError,
        "summary must be 'every_step' for attention='additive', got 'first_state' "
        "(only 'none' has a summary)",
    ),
    "feeding": (
        lambda: make(input_feeding=True),
        ValueError,
        "input_feeding must be False for order='bahdanau', got True (its context is fed to "
        "the cell already)",
    ),
    "nothing to read": (
        lambda: make(input_size=0, order="luong"),
        ValueError,
        "input_size must be a positive integer, got 0",
    ),
    "inputs": (
        call(inputs=np.ones((B, E))),
        ValueError,
        "inputs must have shape (B, T, 2), got (3, 2) (one sequence is inputs[None])",
    ),
    "memory": (
        call(memory=np.ones((B, TK, H))),
        ValueError,
        "memory must have shape (B, Tk, 11), got (3, 5, 7)",
    ),
    "batch": (
        call(memory=np.ones((1, TK, M))),
        ValueError,
        "memory must have shape (3, Tk, 11), got (1, 5, 11)",
    ),
    "state": (
        call(state=np.ones((1, B, H))),
        TypeError,
        "state must be a tuple (h, c[, feed]), got an array (1, 3, 7)",
    ),
    "feed": (
        call(state=(np.ones((1, B, H)), np.ones((1, B, H)), np.ones((B, 2)))),
        ValueError,
        "state (feed) must have shape (3, 7), got (3, 2)",
    ),
    "key_mask": (
        call(key_mask=np.ones((B, TK))),
        TypeError,
        "key_mask must be boolean (True: may be attended to), got dtype float64; "
        "write key_mask.astype(bool)",
    ),
    "key_mask shape": (
        call(key_mask=np.ones((B, T), bool)),
        ValueError,
        "key_mask must have 2 axes (B, Tk) = (3, 5), each of that size or 1, got (3, 4)",
    ),
    "key_lengths": (
        call(key_lengths=[6, 1, 1]),
        ValueError,
        "key_lengths must lie in 0..5, got 1..6",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    run, error, message = ERRORS[name]
    with pytest.raises(error) as caught:
        run()
    assert str(caught.value) == f"AttentionDecoder: {message}"


def test_errors_of_prepared_memories():
    decoder = make()
    memory = decoder.prepare(np.ones((B, TK, M)))
    assert decoder(np.ones((B, T, E)), memory).outputs.shape == (B, T, H)
    with pytest.raises(TypeError, match="memory must be an array for a gradient"):
        attnc.vjp(decoder, np.ones((B, T, E)), memory)
    with pytest.raises(ValueError, match="must be given to prepare"):
        decoder.step(np.ones((B, E)), memory, key_lengths=[1, 2, 3])


# ---- Greedy decoding -----------------------------------------------------------------------------

START, END, V = 1, 2, 6


def translator(rng, **options):
    embedding = attnc.Embedding(V, E, rng=rng, dtype="float64")
    readout = attnc.Linear(H, V, rng=rng, dtype="float64")
    decoder = make(rng, **options)
    return decoder, randomize(embedding, rng, 1), randomize(readout, rng, 1)


@pytest.mark.parametrize("options", [{}, {"cell": "lstm", "order": "luong", "input_feeding": True}])
def test_greedy_decoding_is_the_loop_over_steps(options, rng):
    decoder, embedding, readout = translator(rng, **options)
    memory = inputs_of(decoder, rng)[1]
    tokens, weights = attnc.greedy_decode(
        decoder, embedding, readout, memory, start=START, end=END, max_length=9, key_lengths=LENGTHS
    )
    assert tokens.shape[0] == B and weights.shape == (*tokens.shape, TK)
    for b, length in enumerate(LENGTHS):  # each sequence on its own
        token, state, own = START, None, memory[b : b + 1, :length]
        for t in range(tokens.shape[1]):
            output, attended, state = decoder.step(embedding([token]), own, state)
            token = readout(output).argmax()
            assert tokens[b, t] == token
            assert_agree(weights[b, t, :length], attended[0])
            if token == END:
                assert (tokens[b, t:] == END).all() and not weights[b, t + 1 :].any()
                break


def test_greedy_decoding_ends(rng):
    decoder, embedding, readout = translator(rng)
    memory = inputs_of(decoder, rng)[1]
    readout.parameters["bias"][END] = 1e3  # ends at once
    tokens, weights = attnc.greedy_decode(
        decoder, embedding, readout, memory, start=START, end=END, max_length=9
    )
    np.testing.assert_array_equal(tokens, [[END]] * B)
    assert weights.shape == (B, 1, TK)
    readout.parameters["bias"][END] = -1e3  # never ends
    for steps in (0, 5):
        tokens, weights = attnc.greedy_decode(
            decoder, embedding, readout, memory, start=START, end=END, max_length=steps
        )
        assert tokens.shape == (B, steps) and (tokens != END).all()
        assert weights.shape == (B, steps, TK)
    with pytest.raises(ValueError, match="greedy_decode: max_length must be 0 or more, got -1"):
        attnc.greedy_decode(
            decoder, embedding, readout, memory, start=START, end=END, max_length=-1
        )


def test_a_decoder_learns_to_copy(rng):
    """The smallest translation: copy a sequence of digits; training reaches every digit."""
    size, length, digits = 32, 5, 8
    embedding = attnc.Embedding(digits, 16, rng=0)
    encoder = attnc.GRU(16, size // 2, bidirectional=True, rng=1)
    decoder = attnc.AttentionDecoder(16, size, size, rng=2)
    readout = attnc.Linear(size, digits, rng=3)
    model = [embedding, encoder, decoder, readout]
    optimizer = attnc.optim.Adam(model, 0.01)
    for _ in range(250):
        source = rng.integers(2, digits, (32, length))
        target = np.concatenate([source, np.ones((32, 1), int)], axis=1)  # 1 ends
        before = np.concatenate([np.zeros((32, 1), int), source], axis=1)  # 0 starts
        optimizer.zero_grad()
        x, x_back = attnc.vjp(embedding, source)
        y, y_back = attnc.vjp(embedding, before)
        (memory, _), encoder_back = attnc.vjp(encoder, x)
        (outputs, _, _), decoder_back = attnc.vjp(decoder, y, memory)
        logits, readout_back = attnc.vjp(readout, outputs)
        loss, loss_back = attnc.vjp(attnc.losses.softmax_cross_entropy, logits, target)
        dy, dmemory = decoder_back(*readout_back(*loss_back()))
        y_back(dy)
        x_back(*encoder_back(dmemory))
        attnc.optim.clip_gradients(model, 1.0)
        optimizer.step()
    source = rng.integers(2, digits, (50, length))
    memory, _ = encoder(embedding(source))
    tokens, weights = attnc.greedy_decode(
        decoder, embedding, readout, memory, start=0, end=1, max_length=10
    )
    assert tokens.shape == (50, length + 1)
    assert (tokens[:, :-1] == source).all(axis=1).mean() > 0.95
    assert (weights[:, :length].argmax(axis=-1) == np.arange(length)).mean() > 0.8


# ---- Memories, states and parameters of its own --------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"cell": "lstm"}, {"attention": "multiplicative"}])
def test_a_memory_of_another_decoder_is_refused(options, rng):
    decoder, other = make(), make(rng, **options)
    word, memory = np.ones((B, E)), rng.standard_normal((B, TK, M))
    prepared = decoder.prepare(memory)
    for use in (
        lambda: other.step(word, prepared),
        lambda: other(word[:, None], prepared),
        lambda: other.prepare(prepared),
        lambda: copy.deepcopy(decoder).step(word, prepared),
    ):
        with pytest.raises(ValueError, match=r"prepared by another decoder, AttentionDecoder\("):
            use()
    assert_same(decoder.step(word, prepared), decoder.step(word, memory))


def test_a_memory_goes_stale(rng):
    decoder = make(rng)
    word, memory = np.ones((B, E)), rng.standard_normal((B, TK, M))
    prepared = decoder.prepare(memory)
    output, pullback = attnc.vjp(decoder, word[:, None], memory)
    pullback(output.outputs)
    attnc.optim.SGD(decoder, 0.1).step()
    with pytest.raises(ValueError, match="memory must be prepared with the parameters that there"):
        decoder.step(word, prepared)
    decoder.parameters["cells.0.input_bias"][...] = np.nan  # equal to itself here
    prepared = decoder.prepare(memory)
    assert np.isnan(decoder.step(word, prepared).outputs).all()


@pytest.mark.parametrize("attention", SCORES)
def test_copies_of_a_memory(attention, rng):
    decoder = make(rng, attention=attention)
    inputs, memory = inputs_of(decoder, rng)
    prepared = decoder.prepare(memory, key_lengths=LENGTHS)
    expected = decoder(inputs, prepared)
    assert_same(decoder(inputs, copy.copy(prepared)), expected)
    assert_same(decoder(inputs, copy.deepcopy(prepared)), expected)
    for copied in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        twin, own = copied((decoder, prepared))
        assert_same(twin(inputs, own), expected)
        twin.parameters["cells.0.state_weight"] += 1
        with pytest.raises(ValueError, match="before they changed"):
            twin(inputs, own)
        assert_same(decoder(inputs, prepared), expected)
        got = copied(expected)
        assert type(got) is type(expected)
        assert_same(got, expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 2, "coverage": True},
        {"cell": "lstm", "order": "luong", "input_feeding": True},
    ],
)
def test_reorder(options, rng):
    decoder = make(rng, **options)
    inputs, memory = inputs_of(decoder, rng)
    state = decoder(inputs, memory).state
    rows = [2, 0, 0, 1]
    got = decoder.reorder(state, np.array(rows, np.uint8))
    axes = {3: 1, 2: 0}
    for array, whole in zip(arrays_of(got), arrays_of(state), strict=True):
        assert_same(array, np.take(whole, rows, axis=axes[whole.ndim]))
    nested = [x.tolist() for x in state] if isinstance(state, tuple) else state.tolist()
    assert_same(decoder.reorder(nested, rows), got)
    assert_same(decoder(inputs, memory, nested), decoder(inputs, memory, state))
    for wrong in ([3], [-1], [[0]]):
        with pytest.raises(ValueError, match="AttentionDecoder: indices must be sequences in 0..2"):
            decoder.reorder(state, wrong)
    with pytest.raises(TypeError, match="indices must be integers"):
        decoder.reorder(state, [True, False])


def test_a_state_of_nested_lists_with_coverage(rng):
    decoder = make(rng, coverage=True)
    inputs, memory = inputs_of(decoder, rng)
    h, coverage = state_of(decoder, rng, whole=True)
    assert_same(decoder(inputs, memory, h.tolist()), decoder(inputs, memory, h))
    expected = decoder(inputs, memory, (h, coverage))
    assert_same(decoder(inputs, memory, [h.tolist(), coverage.tolist()]), expected)
    assert_same(decoder(inputs, memory, (None, None)), decoder(inputs, memory))


def test_a_pullback_wants_a_gradient(rng):
    decoder = make(rng, cell="lstm")
    output, pullback = attnc.vjp(decoder, *inputs_of(decoder, rng))
    for nothing in ((), (None, None, None), (None, None, (None, None))):
        with pytest.raises(TypeError, match="AttentionDecoder: pullback must get doutputs or dwei"):
            pullback(*nothing)
    one = like_random(rng, output.state[1])
    zero = np.zeros_like(one)
    assert_same(tuple(pullback(None, None, (None, one))), tuple(pullback(dstate=(zero, one))))


@pytest.mark.parametrize(
    "options, error",
    [
        ({"input_size": 2.0}, TypeError),
        ({"input_size": False}, TypeError),
        ({"input_size": -1}, ValueError),
        ({"state_size": True}, (TypeError, ValueError)),
        ({"attention_size": 0}, (TypeError, ValueError)),
        ({"attention_size": 2.5}, (TypeError, ValueError)),
        ({"layers": 1.0}, (TypeError, ValueError)),
        ({"coverage": "False"}, ValueError),
        ({"coverage": 1}, TypeError),
        ({"order": "luong", "input_feeding": 1}, TypeError),
        ({"attention": None}, TypeError),
        ({"cell": ["gru"]}, TypeError),
    ],
)
def test_options_of_the_wrong_kind(options, error):
    (name,) = set(options) - ({"order"} if len(options) > 1 else set())
    with pytest.raises(error, match=f"AttentionDecoder: {name} must"):
        make(**options)


def test_sizes_may_be_integers_of_numpy(tmp_path):
    decoder = make(state_size=np.int8(H), input_size=np.uint64(E), coverage=np.bool_(True))
    check_house(decoder, tmp_path)
    assert type(decoder.state_size) is type(decoder.input_size) is int


@pytest.mark.parametrize("attention", SCORES)
def test_floating_point_errors_are_results(attention, rng):
    """Whatever np.errstate says: overflow in a cast, underflow, infinities."""
    decoder = make(rng, attention=attention, dtype="float32", order="luong", input_feeding=True)
    inputs, memory = inputs_of(decoder, rng)
    inputs, memory = 1e300 * inputs, 1e-42 * memory

    def run():
        output, pullback = attnc.vjp(decoder, inputs, memory, key_lengths=LENGTHS)
        gradients = pullback(1e-300 * np.ones_like(output.outputs, float))
        return (output.outputs, output.weights, *gradients)

    with np.errstate(all="ignore"):
        expected = run()
    with np.errstate(all="raise"):
        got = run()
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_of_the_first_state_in_a_large_batch():
    """Equal parts of a million sequences, summed in float32."""
    decoder = attnc.AttentionDecoder(1, 1, 1, attention="none", cell="rnn", rng=0)
    n = 1_000_000
    inputs, memory = np.ones((n, 1, 1), np.float32), np.ones((n, 1, 1), np.float32)
    output, pullback = attnc.vjp(decoder, inputs, memory)
    pullback(np.full_like(output.outputs, 0.1))
    many = {name: gradient.copy() for name, gradient in decoder.gradients.items()}
    decoder.zero_grad()
    twin = attnc.AttentionDecoder(1, 1, 1, attention="none", cell="rnn", dtype="float64")
    twin.load_state_dict(decoder.state_dict())
    output, pullback = attnc.vjp(twin, inputs[:1], memory[:1])
    pullback(np.full_like(output.outputs, np.float32(0.1)))
    for name in ("initial_h", "cells.0.input_bias", "cells.0.state_bias"):
        np.testing.assert_allclose(many[name], n * twin.gradients[name], rtol=1e-5)


def test_gradients_of_biases_over_many_steps():
    decoder = attnc.AttentionDecoder(1, 1, 1, attention="none", cell="rnn", rng=0)
    decoder.parameters["cells.0.state_weight"] = [[0]]  # all steps are alike
    twin = attnc.AttentionDecoder(1, 1, 1, attention="none", cell="rnn", dtype="float64")
    twin.load_state_dict(decoder.state_dict())
    for layer in (decoder, twin):
        inputs = np.ones((1, 100_000, 1), layer.dtype)
        output, pullback = attnc.vjp(layer, inputs, np.ones((1, 1, 1), layer.dtype))
        pullback(np.full_like(output.outputs, np.float32(0.1)))
    for name in ("cells.0.input_bias", "cells.0.state_bias"):
        np.testing.assert_allclose(decoder.gradients[name], twin.gradients[name], rtol=1e-5)


# ---- What decoding takes and refuses -------------------------------------------------------------


DECODERS = ["greedy_decode", "sample_decode", "beam_search"]


def decode(function, rng, **changes):
    """A call of one of DECODERS, with some of its arguments changed."""
    decoder, embedding, readout = translator(rng)
    arguments = {
        "decoder": decoder,
        "embedding": embedding,
        "readout": readout,
        "memory": np.ones((B, TK, M)),
        "start": START,
        "end": END,
        "max_length": 4,
    }
    if function == "sample_decode":
        arguments["rng"] = 0
    return getattr(attnc, function)(**arguments | changes)


@pytest.mark.parametrize("function", DECODERS)
@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"max_length": 3.0}, TypeError, "max_length must be an integer, got 3.0"),
        ({"max_length": True}, TypeError, "max_length must be an integer, got True"),
        ({"max_length": np.inf}, TypeError, "max_length must be an integer, got inf"),
        ({"start": True}, TypeError, "start must be an integer"),
        ({"start": 1.0}, TypeError, "start must be an integer"),
        ({"start": V}, ValueError, "start must be a token that embedding takes, got 6"),
        ({"start": -1}, ValueError, "start must be an integer"),
        ({"end": V}, ValueError, "end must lie in 0..5, the tokens that readout .*, got 6"),
        ({"end": -1}, ValueError, "end must be an integer"),
        ({"end": None}, TypeError, "end must be an integer"),
        ({"decoder": 3}, TypeError, "decoder must have prepare, .*, got int"),
        ({"readout": None}, TypeError, "readout must be a layer or callable, got NoneType"),
        ({"readout": None, "embedding": None}, TypeError, "embedding and readout .*takes vectors"),
        ({"readout": lambda x: x[:, 0]}, ValueError, r"readout must return \(.*vocabulary"),
        ({"readout": lambda x: x[1:]}, ValueError, r"readout must return \(.*vocabulary"),
        ({"readout": lambda x: x[:, :0]}, ValueError, r"readout must return \(.*vocabulary"),
        ({"readout": lambda x: np.ma.array(x)}, TypeError, "what readout returns must be a plain"),
        ({"readout": lambda x: x > 0}, TypeError, "what readout returns must be real, got bool"),
        ({"readout": lambda x: x * np.nan}, ValueError, "readout must return numbers, got NaN"),
        ({"readout": lambda x: x * 0 - np.inf}, ValueError, "readout must allow a token"),
        ({"embedding": lambda x: np.ones((len(x), E + 1))}, ValueError, "embedding must return"),
        ({"embedding": lambda x: np.ones(E)}, ValueError, "embedding must return"),
        ({"embedding": lambda x: None}, TypeError, "what embedding returns must be real"),
    ],
)
def test_errors_of_decoding(function, changes, error, message, rng):
    with pytest.raises(error, match=f"^{function}: {message}"):
        decode(function, rng, **changes)


@pytest.mark.parametrize("function", DECODERS)
def test_lists_and_numbers_of_numpy_will_do(function, rng):
    decoder, embedding, readout = translator(rng)
    state = state_of(decoder, rng)
    given = {"decoder": decoder, "embedding": embedding, "readout": readout}
    expected = decode(function, rng, **given, state=state)
    listed = {
        "decoder": decoder,
        "embedding": lambda x: embedding(x).tolist(),
        "readout": lambda x: readout(x).tolist(),
        "state": state.tolist(),
        "memory": np.ones((B, TK, M)).tolist(),
        "start": np.uint8(START),
        "end": np.uint64(END),
        "max_length": np.int16(4),
    }
    assert_same(decode(function, rng, **listed), expected)
    assert expected.tokens.dtype == int


@pytest.mark.parametrize("function", DECODERS)
@pytest.mark.parametrize("max_length", [sys.maxsize, 10**30])
def test_no_limit_costs_nothing(function, max_length, rng):
    once = []

    def readout(x):  # the end at the third step
        once.append(x)
        scores = np.eye(V)[[END if len(once) == 3 else 4] * len(x)]
        return np.where(scores, 0, -np.inf)  # nothing else is allowed

    assert decode(function, rng, readout=readout, max_length=max_length).tokens.shape[-1] == 3


@pytest.mark.parametrize("function", DECODERS)
def test_no_sequences_and_no_keys(function, rng):
    none = decode(function, rng, memory=np.ones((0, TK, M)), key_lengths=[])
    assert none.tokens.shape[0] == 0 and none.tokens.shape[-1] == 0
    assert none.weights.shape == (*none.tokens.shape, TK)
    assert decode(function, rng, memory=np.ones((B, 0, M))).weights.shape[-1] == 0


def hard_scores(rng, n):
    """Rows in which rounding, ties and infinities make the first maximum hard to find."""
    huge, tiny = 1.7e308, 5e-324
    values = [
        rng.integers(0, 3, n).astype(float),
        rng.choice([-np.inf, 0.0, 1.0], n),
        rng.choice([np.inf, -np.inf, 0.0, huge], n),
        rng.choice([0.0, tiny, 2 * tiny, -tiny], n),
        rng.choice([huge, -huge, np.nextafter(huge, 0)], n),
        rng.choice([1.0, np.nextafter(1, 2), np.nextafter(1, 0)], n),
        np.where(np.arange(n) == n - 1, -huge, -np.inf),
        np.zeros(n),
    ]
    return [row if (row > -np.inf).any() else row * 0 for row in values]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint64])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1e308])
@pytest.mark.parametrize("size", [V, 90])
def test_a_beam_of_one_is_greedy_for_any_scores(dtype, length_penalty, size, rng):
    embedding = attnc.Embedding(size, E, rng=0, dtype="float64")
    for _ in range(10):
        with np.errstate(all="ignore"):
            table = np.stack([hard_scores(rng, size)[rng.integers(8)] for _ in range(B)])
            if np.dtype(dtype).kind in "iu":  # numbers that float64 does not tell apart
                table = rng.integers(2**53, 2**53 + 3, (B, size)).astype(dtype)
            table = table.astype(dtype)
        table[~(table > -np.inf).any(axis=1)] = 0

        def readout(x, table=table):
            return table[np.arange(len(x)) * B // len(x)]

        changes = {"embedding": embedding, "readout": readout, "end": size - 1}
        with np.errstate(all="raise"):
            greedy = decode("greedy_decode", rng, **changes)
            beam = decode(
                "beam_search", rng, **changes, beam_width=1, length_penalty=length_penalty
            )
        np.testing.assert_array_equal(greedy.tokens[:, 0], table.argmax(axis=1))
        assert_same(beam.tokens[:, 0], greedy.tokens)
        assert_same(beam.weights[:, 0], greedy.weights)


@pytest.mark.parametrize("size", [V, 90, 300])
def test_equal_scores_go_by_hypothesis_and_token(size, rng):
    """Against a search that sorts everything, by rank, then hypothesis, then token."""
    K, steps = 4, 3
    embedding = attnc.Embedding(size, E, rng=0, dtype="float64")
    for _ in range(5):
        table = rng.integers(0, 2, size) * np.log(2.0)

        def readout(x, table=table):
            return np.broadcast_to(table, (len(x), size))

        got = decode(
            "beam_search", rng, memory=np.ones((1, TK, M)), embedding=embedding, readout=readout,
            end=size - 1, max_length=steps, beam_width=K, n_best=K, length_penalty=0.0,
        )  # fmt: skip
        logs = table - np.log(np.exp(table).sum())
        beams = [((), 0.0)]
        for _ in range(steps):
            grown = []
            for tokens, total in beams:
                if size - 1 in tokens:
                    grown.append(((*tokens, size - 1), total))
                    continue
                grown += [((*tokens, token), total + logs[token]) for token in range(size)]
            beams = sorted(grown, key=lambda each: -round(each[1], 9))[:K]  # stable
        assert [tuple(row) for row in got.tokens[0].tolist()] == [tokens for tokens, _ in beams]


def test_a_beam_drops_what_cannot_go_on(rng):
    """Of two beginnings the better one has no next token: the other is the result."""

    def readout(x):
        state["step"] += 1
        scores = np.full((len(x), V), -np.inf)
        if state["step"] == 1:
            scores[:, 3], scores[:, 4] = 1, 0
        else:  # hypotheses are in the order of their scores
            scores[1::2, END] = 0
        return scores

    state = {"step": 0}
    got = decode("beam_search", rng, readout=readout, beam_width=2, n_best=2)
    np.testing.assert_array_equal(got.tokens[:, 0], [[4, END]] * B)
    assert (got.scores[:, 1] == -np.inf).all() and (got.scores[:, 0] > -np.inf).all()


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"beam_width": 2.0}, TypeError, "beam_width must be an integer, got 2.0"),
        ({"beam_width": True}, TypeError, "beam_width must be an integer, got True"),
        ({"n_best": True}, TypeError, "n_best must be an integer, got True"),
        ({"length_penalty": True}, TypeError, "length_penalty must be 0 or more, got True"),
        ({"length_penalty": "1"}, TypeError, "length_penalty must be 0 or more, got '1'"),
        ({"length_penalty": np.nan}, ValueError, "length_penalty must be 0 or more, got nan"),
    ],
)
def test_options_of_a_beam(changes, error, message, rng):
    with pytest.raises(error, match=f"beam_search: {message}"):
        decode("beam_search", rng, **changes)


@pytest.mark.parametrize("function", DECODERS)
def test_results_are_copied_and_pickled(function, rng):
    result = decode(function, rng)
    for twin in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert type(twin) is type(result)
        assert_same(twin, result)

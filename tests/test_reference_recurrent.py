"""The readable recurrent functions of attnc.reference, against the fast ones and by hand."""

import itertools

import numpy as np
import pytest
from calls import CALLS, call
from checks import assert_agree
from layer_checks import arrays_of, like_random

import attnc
from attnc import functional, reference

B, T, E, H, TK, M, A = 3, 4, 2, 5, 6, 5, 7
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def cell(rng, size, gates):
    return [
        rng.normal(0, 0.5, s) for s in ((size, gates * H), (H, gates * H), gates * H, gates * H)
    ]


def agree(got, expected):
    for ours, theirs in zip(arrays_of(got), arrays_of(expected), strict=True):
        assert_agree(ours, theirs)


def check(name, arrays, options, rng):
    output, pullback = reference.vjp(getattr(reference, name), *arrays, **options)
    expected, back = attnc.vjp(getattr(functional, name), *arrays, **options)
    agree(tuple(output), tuple(expected))
    agree(tuple(getattr(reference, name)(*arrays, **options)), tuple(expected))
    d = like_random(rng, tuple(expected))
    got, wanted = vars(pullback(*d)), vars(back(*d))
    assert got.keys() == wanted.keys()
    for argument, gradient in wanted.items():
        agree(got[argument], gradient)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", GATES)
def test_cells_over_sequences(name, layers, bidirectional, rng):
    directions = 1 + bidirectional
    parameters = []
    for layer in range(layers):
        for _ in range(directions):
            parameters += cell(rng, E if layer == 0 else directions * H, GATES[name])
    shape = layers * directions, B, H
    state = rng.standard_normal(shape)
    state = (state, rng.standard_normal(shape)) if name == "lstm" else state
    x, options = rng.standard_normal((B, T, E)), {"bidirectional": bidirectional}
    check(name, (x, parameters), options, rng)
    check(name, (x, parameters, state, [2, 0, 4]), options, rng)


SCORES = {
    "additive": {"query_weight": (H, A), "key_weight": (M, A), "score_vector": (A,)},
    "multiplicative": {"weight": (H, M)},
    "dot": {},
    "cosine": {"scale": ()},
}


@pytest.mark.parametrize("coverage", [False, "linear", "tanh", "fertility"])
@pytest.mark.parametrize("attention", SCORES)
@pytest.mark.parametrize(
    "order, input_feeding", [("bahdanau", False), ("luong", False), ("luong", True)]
)
def test_the_decoder(order, input_feeding, attention, coverage, rng):
    if coverage == "tanh" and attention != "additive":
        pytest.skip("only the additive score has a tanh")
    for kind, layers in itertools.product(GATES, (1, 2)):
        fed = M if order == "bahdanau" else H * input_feeding
        cells = cell(rng, E + fed, GATES[kind])
        cells += cell(rng, H, GATES[kind]) * (layers - 1)
        named = {n: np.asarray(rng.standard_normal(s)) for n, s in SCORES[attention].items()}
        if coverage == "tanh":
            named["coverage_vector"] = rng.standard_normal(A)
        elif coverage:
            named["coverage_weight"] = np.asarray(rng.standard_normal())
        if coverage == "fertility":
            named["fertility_vector"] = rng.standard_normal(M) / 3
        if order == "luong":
            named["readout_weight"] = rng.normal(0, 0.3, (M + H, H))
        options = {"cell": kind, "attention": attention, "order": order, **named}
        options |= {"input_feeding": input_feeding, "key_lengths": [6, 0, 3]}
        arrays = rng.standard_normal((B, T, E)), rng.standard_normal((B, TK, M)), cells
        check("attention_decoder", arrays, options, rng)
        state = [rng.standard_normal((layers, B, H)) for _ in range(1 + (kind == "lstm"))]
        state += [rng.standard_normal((B, H))] * input_feeding
        state += [rng.uniform(0, 2, (B, TK))] * bool(coverage)
        state = tuple(state) if len(state) > 1 else state[0]
        check("attention_decoder", (*arrays, state), options, rng)


def test_a_gru_step_by_hand():
    half = np.log(3)  # sigmoid(log 3) = 3/4
    W, U = np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]])
    b = np.array([half, 0, np.arctanh(0.5) - 0.75 * 4])
    c = np.array([0, -half, 2])  # reset 3/4, update 1/4
    # n = tanh(b_n + r * (h + c_n)) = tanh(arctanh(0.5) - 3 + 0.75 * (2 + 2)) = 0.5
    outputs, _ = reference.gru([[[7.0]]], [W, U, b, c], [[[2.0]]])
    np.testing.assert_allclose(outputs, [[[0.75 * 0.5 + 0.25 * 2]]], rtol=1e-15)


@pytest.mark.parametrize(
    "name, case", [(n, c) for n, c in CALLS if n in (*GATES, "attention_decoder")]
)
def test_every_option(name, case, rng):
    check(name, *call(name, case, rng), rng)

"""Local attention inside the loop of a decoder: windows at the step or where the state predicts."""

import itertools

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import check_house, check_layer, randomize

import attnc
from attnc.functional import attention_decoder

B, T, TK, E, H = 3, 4, 9, 2, 5
ATTENTIONS = ["additive", "multiplicative", "dot", "cosine"]
ORDERS = {
    "bahdanau": {},
    "luong": {"order": "luong"},
    "feeding": {"order": "luong", "input_feeding": True},
}
POSITIONS = {
    "monotonic": {},
    "predictive": {"position": "predictive", "position_size": 3},
    "renormalized": {"position": "predictive", "renormalize": True},
}
everywhere = [
    pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS),
    pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS),
    pytest.mark.parametrize("attention", ATTENTIONS),
]


def all_of_them(test):
    for mark in everywhere:
        test = mark(test)
    return test


def make(rng, attention="additive", dtype="float64", **options):
    M = H if attention in ("dot", "cosine") else 6
    more = {"attention_size": 7} if attention == "additive" else {}
    decoder = attnc.AttentionDecoder(
        E, H, M, attention=attention, **more, **{"window": 2} | options, rng=0, dtype=dtype
    )
    return randomize(decoder, rng)


def inputs_of(decoder, rng, T=T, TK=TK):
    return rng.standard_normal((B, T, E)), rng.standard_normal((B, TK, decoder.memory_size))


def scores_of(decoder, query, memory):
    p = decoder.score.parameters
    if decoder.attention == "additive":
        inside = (query @ p["query_weight"])[:, None] + memory @ p["key_weight"]
        return np.tanh(inside) @ p["score_vector"]
    if decoder.attention == "multiplicative":
        query = query @ p["weight"]
    dots = np.einsum("bd,bjd->bj", query, memory)
    if decoder.attention == "cosine":
        lengths = np.linalg.norm(query, axis=-1)[:, None] * np.linalg.norm(memory, axis=-1)
        return p["scale"] * dots / lengths
    return dots


def weights_by_hand(decoder, query, memory, t, lengths):
    """Luong et al. 2015, eq. 7 to 10, of one step."""
    j, p, D = np.arange(memory.shape[1]), decoder.parameters, decoder.window
    place = np.full(len(query), float(t))
    if decoder.position == "predictive":
        x = np.tanh(query @ p["position_weight"]) @ p["position_vector"]
        place = np.maximum(lengths - 1, 0) / (1 + np.exp(-x))
    steps = j - np.floor(place)[:, None]
    window = (np.abs(steps) <= D) & (j < lengths[:, None])
    powers = np.where(window, np.exp(scores_of(decoder, query, memory)), 0)
    gaussian = np.exp(-((j - place[:, None]) ** 2) / (2 * (D / 2) ** 2))
    if decoder.position == "monotonic":
        gaussian[:] = 1
    if decoder.renormalize:
        powers, gaussian = powers * gaussian, 1
    total = powers.sum(axis=1, keepdims=True)
    return powers / np.where(total == 0, 1, total) * gaussian


@all_of_them
def test_steps_by_hand(attention, order, position, rng):
    """The states that ask are known from a run of single steps."""
    decoder = make(rng, attention, **order, **position)
    inputs, memory = inputs_of(decoder, rng)
    lengths = np.array([TK, 4, 0])
    outputs, weights, _ = decoder(inputs, memory, key_lengths=lengths)
    state, top = None, decoder.parameters["initial_h"][-1][None].repeat(B, 0)
    for t in range(T):
        before = top
        output, step_weights, state = decoder.step(inputs[:, t], memory, state, key_lengths=lengths)
        top = (state[0] if isinstance(state, tuple) else state)[-1]
        query = before if decoder.order == "bahdanau" else top
        assert_agree(step_weights, weights_by_hand(decoder, query, memory, t, lengths))
        assert_agree(weights[:, t], step_weights)
        assert_agree(outputs[:, t], output)


@all_of_them
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gradients(cell, attention, order, position, rng):
    decoder = make(rng, attention, cell=cell, **order, **position)
    check_layer(decoder, inputs_of(decoder, rng), {"key_lengths": [TK, 4, 1]}, rng)


@pytest.mark.parametrize("coverage", ["linear", "tanh", "fertility"])
@pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS)
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_coverage(order, position, coverage, rng):
    decoder = make(rng, coverage=coverage, layers=2, cell="rnn", **order, **position)
    inputs, memory = inputs_of(decoder, rng)
    whole, _ = check_layer(decoder, (inputs, memory), {"key_lengths": [TK, 4, 1]}, rng)
    state = None
    for t in range(T):
        output, weights, state = decoder.step(inputs[:, t], memory, state, key_lengths=[TK, 4, 1])
        assert_agree(output, whole.outputs[:, t])
        assert_agree(weights, whole.weights[:, t])


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_state_counts_the_steps(order, rng):
    """Also a part of a sequence, given as a state, and its gradient."""
    decoder = make(rng, **order)
    inputs, memory = inputs_of(decoder, rng)
    whole = decoder(inputs, memory)
    first = decoder(inputs[:, :1], memory)
    rest = decoder(inputs[:, 1:], memory, first.state)
    assert_agree(rest.outputs, whole.outputs[:, 1:])
    assert_same(whole.state[-1], np.full((B, 1), 4.0))
    assert_same(rest.state[-1], whole.state[-1])
    check_layer(decoder, (inputs, memory, first.state[:-1]), {}, rng)
    swapped = decoder.reorder(first.state, [2, 0])
    assert_same(swapped[-1], np.ones((2, 1)))
    indices = [2, 0]
    again = decoder(inputs[indices, 1:], memory[indices], swapped)
    assert_agree(again.outputs, whole.outputs[indices, 1:])


@pytest.mark.parametrize("attention, position", [*itertools.product(ATTENTIONS, POSITIONS)])
def test_the_function_is_the_layer(attention, position, rng):
    decoder = make(rng, attention, **POSITIONS[position])
    inputs, memory = inputs_of(decoder, rng)
    named = {n.removeprefix("score."): x for n, x in decoder.parameters.items() if "cells" not in n}
    initial = np.broadcast_to(named.pop("initial_h")[:, None], (1, B, H))
    cells = [x for name, x in decoder.parameters.items() if name.startswith("cells")]
    options = {"window": 2, "position": decoder.position, "renormalize": decoder.renormalize}
    run = {"attention": attention, **options, **named, "state": initial, "key_lengths": [3, 9, 0]}
    (outputs, weights, state), pullback = attnc.vjp(attention_decoder, inputs, memory, cells, **run)
    expected, layer_pullback = attnc.vjp(decoder, inputs, memory, key_lengths=[3, 9, 0])
    assert_same((outputs, weights), tuple(expected[:2]))
    gradients = pullback(outputs, dweights=weights)
    layer_gradients = layer_pullback(outputs, dweights=weights)
    assert_same(gradients.memory, layer_gradients.memory)
    for name in named:
        score = name if name in decoder.gradients else f"score.{name}"
        assert_same(gradients[name], decoder.gradients[score])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS)
def test_any_number_of_threads(position, dtype, rng):
    decoder = make(rng, dtype=dtype, order="luong", input_feeding=True, **position)
    inputs, memory = inputs_of(decoder, rng, T=6, TK=300)
    results = []
    for threads in (1, 2, 3):
        with attnc.set_num_threads(threads):
            decoder.zero_grad()
            output, pullback = attnc.vjp(decoder, inputs, memory)
            gradients = pullback(output.outputs, dweights=output.weights)
            results.append((tuple(output[:2]), tuple(gradients), dict(decoder.gradients)))
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            assert_same(got, expected)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS)
def test_memory_outside_of_the_windows_is_not_read(position, order, rng):
    decoder = make(rng, "dot", **order, **position)
    inputs, memory = inputs_of(decoder, rng, TK=60)
    output, pullback = attnc.vjp(decoder, inputs, memory)
    gradients = pullback(output.outputs)
    far = ~(output.weights != 0).any(axis=(0, 1))
    memory[:, far] = np.nan
    again, pullback = attnc.vjp(decoder, inputs, memory)
    assert far.sum() > 20
    assert_same(again.outputs, output.outputs)
    assert_same(tuple(pullback(output.outputs)), tuple(gradients))


@pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS)
def test_house(position, rng, tmp_path):
    check_house(make(rng, **position), tmp_path)


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({"window": 0}, ValueError, "window must be an integer of at least 1, got 0"),
        ({"window": (2, 2)}, TypeError, "window must be an integer"),
        ({"window": None, "position": "predictive"}, ValueError, "window must be given with posit"),
        ({"window": None, "renormalize": True}, ValueError, "window must be given with renormal"),
        ({"position": "local"}, ValueError, "position must be one of 'monotonic', 'predictive'"),
        ({"renormalize": True}, ValueError, "renormalize must be False for position='monotonic'"),
        ({"position_size": 3}, ValueError, "position_size must be None for position='monotonic'"),
        ({"attention": "none"}, ValueError, "window must be None for attention='none'"),
    ],
)
def test_wrong_options(options, kind, message):
    with pytest.raises(kind, match=f"^AttentionDecoder: {message}"):
        attnc.AttentionDecoder(E, H, 6, **{"window": 2, "rng": 0} | options)


def test_wrong_arrays(rng):
    decoder = make(rng, "dot")
    inputs, memory = inputs_of(decoder, rng)
    cells = [x for name, x in decoder.parameters.items() if name.startswith("cells")]
    call = {"attention": "dot", "window": 2}
    predictive = call | {"position": "predictive"}
    for options, message in (
        (call | {"position_vector": np.ones(3)}, "position_vector must not be given for"),
        (predictive | {"position_vector": np.ones(3)}, "position_weight must be given for"),
        (
            predictive | {"position_vector": np.ones(3), "position_weight": np.ones((H, 4))},
            r"position_weight must have shape \(5, 3\), got \(5, 4\)",
        ),
        (
            call | {"state": (np.zeros((1, B, H)), np.zeros(B))},
            r"state \(step\) must have shape \(3, 1\), got \(3,\)",
        ),
    ):
        with pytest.raises(ValueError, match=f"^attention_decoder: {message}"):
            attention_decoder(inputs, memory, cells, **options)

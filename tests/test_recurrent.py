"""RNN, GRU and LSTM over whole sequences."""

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import arrays_of, check_float32, check_house, check_layer, like_random, randomize

import attnc
from attnc.functional.recurrent import Packing

B, T, E, H = 4, 6, 3, 5
LENGTHS = [3, 0, 6, 2]
KINDS = ["RNN", "GRU", "LSTM"]
kinds = pytest.mark.parametrize("kind", KINDS)
stacks = pytest.mark.parametrize("layers, bidirectional", [(1, False), (1, True), (2, True)])


def make(kind, rng, layers=1, bidirectional=False, **options):
    options = {"dtype": "float64", **options}
    return randomize(getattr(attnc, kind)(E, H, layers, bidirectional, **options), rng)


def random_state(layer, rng):
    shape = (len(layer.cells), B, H)
    h, c = rng.standard_normal(shape), rng.standard_normal(shape)
    return (h, c) if isinstance(layer, attnc.LSTM) else h


# ---- Values and gradients ------------------------------------------------------------------------


@kinds
@stacks
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients(kind, layers, bidirectional, lengths, rng):
    layer = make(kind, rng, layers, bidirectional)
    x = rng.standard_normal((B, T, E))
    given = random_state(layer, rng)
    (outputs, state), gradients = check_layer(layer, (x, given, lengths), {}, rng)
    assert outputs.shape == (B, T, layer.output_size)
    assert all(s.shape == (layers * (1 + bidirectional), B, H) for s in arrays_of(state))
    assert len(gradients) == 1 and gradients.x is gradients[0]
    _, gradients = check_layer(layer, (x,), {"lengths": lengths}, rng)
    assert "state" not in vars(gradients)


def torch_twin(torch, layer):
    """The same layer of torch.nn; its parameters by our names."""
    kind = getattr(torch.nn, type(layer).__name__)
    twin = kind(
        E, H, layer.layers, batch_first=True, bidirectional=layer.bidirectional, dtype=torch.float64
    )
    names = {
        "input_weight": "weight_ih",
        "state_weight": "weight_hh",
        "input_bias": "bias_ih",
        "state_bias": "bias_hh",
    }
    directions = ["", "_reverse"][: 1 + layer.bidirectional]
    suffixes = [f"_l{i}{direction}" for i in range(layer.layers) for direction in directions]
    parameters = {
        f"cells.{i}.{ours}": getattr(twin, theirs + suffix)
        for i, suffix in enumerate(suffixes)
        for ours, theirs in names.items()
    }
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(layer.parameters[name].T.copy()))
    return twin, parameters


@kinds
@stacks
@pytest.mark.parametrize("lengths", [None, [3, 1, 6, 2]])
def test_equal_to_torch(kind, layers, bidirectional, lengths, rng):
    torch = pytest.importorskip("torch")
    rnn = torch.nn.utils.rnn
    layer = make(kind, rng, layers, bidirectional)
    twin, parameters = torch_twin(torch, layer)
    x, state = rng.standard_normal((B, T, E)), random_state(layer, rng)
    output, pullback = attnc.vjp(layer, x, state, lengths)
    d = like_random(rng, output)
    gradients = pullback(*d)

    tx = torch.tensor(x, requires_grad=True)
    tstate = [torch.tensor(s, requires_grad=True) for s in arrays_of(state)]
    steps = (
        tx
        if lengths is None
        else rnn.pack_padded_sequence(tx, lengths, batch_first=True, enforce_sorted=False)
    )
    expected, final = twin(steps, tuple(tstate) if kind == "LSTM" else tstate[0])
    if lengths is not None:
        expected, _ = rnn.pad_packed_sequence(expected, batch_first=True, total_length=T)
    expected = [expected, *(final if kind == "LSTM" else [final])]
    torch.autograd.backward(expected, [torch.tensor(a) for a in arrays_of(tuple(d))])

    for got, want in zip(arrays_of(output), expected, strict=True):
        assert_agree(got, want.detach().numpy())
    for got, want in zip(arrays_of((gradients.x, gradients.state)), [tx, *tstate], strict=True):
        assert_agree(got, want.grad.numpy())
    for name, parameter in parameters.items():
        assert_agree(layer.gradients[name], parameter.grad.numpy().T, name)


def test_a_gru_step_by_hand():
    layer = attnc.GRU(1, 1, dtype="float64")
    half = np.log(3)  # sigmoid(log 3) = 3/4
    layer.load_state_dict(
        {
            "cells.0.input_weight": [[0, 0, 0]],
            "cells.0.state_weight": [[0, 0, 1]],
            "cells.0.input_bias": [half, 0, np.arctanh(0.5) - 0.75 * 4],
            "cells.0.state_bias": [0, -half, 2],  # reset 3/4, update 1/4
        }
    )
    # n = tanh(b_n + r * (h + c_n)) = tanh(arctanh(0.5) - 3 + 0.75 * (2 + 2)) = 0.5
    outputs, state = layer([[[7.0]]], [[[2.0]]])
    np.testing.assert_allclose(outputs, [[[0.75 * 0.5 + 0.25 * 2]]], rtol=1e-15)
    assert_same(state, outputs)


# ---- Padding -------------------------------------------------------------------------------------


def test_packing_lays_the_longest_sequence_first():
    packing = Packing(3, 4, np.array([2, 4, 3]))
    x = np.array([[[10 * b + t] for t in range(4)] for b in range(3)])
    np.testing.assert_array_equal(packing.pack(x)[:, 0], [10, 20, 0, 11, 21, 1, 12, 22, 13])
    assert packing.counts.tolist() == [3, 3, 2, 1]
    backward = packing.reversed()
    np.testing.assert_array_equal(backward.pack(x)[:, 0], [13, 22, 1, 12, 21, 0, 11, 20, 10])


@kinds
@stacks
def test_padding_contributes_exactly_nothing(kind, layers, bidirectional, rng):
    layer = make(kind, rng, layers, bidirectional)
    x, state = rng.standard_normal((B, T, E)), random_state(layer, rng)

    def run(x, doutputs, dstate):
        layer.zero_grad()
        output, pullback = attnc.vjp(layer, x, state, LENGTHS)
        gradients = pullback(doutputs, dstate)
        return output, vars(gradients), dict(layer.gradients)

    d = like_random(rng, layer(x, state, LENGTHS))
    expected = run(x, *d)
    padded = np.arange(T) >= np.array(LENGTHS)[:, None]
    dirty, ddirty = x.copy(), d[0].copy()
    dirty[padded], ddirty[padded] = np.nan, np.inf
    output, gradients, parameter_gradients = run(dirty, ddirty, d[1])
    assert_same(output, expected[0])
    assert_same(gradients, expected[1])
    assert_same(parameter_gradients, expected[2])
    assert not output.outputs[padded].any() and not gradients["x"][padded].any()


@kinds
def test_a_sequence_alone_or_in_company(kind, rng):
    layer = make(kind, rng, 2, True)
    x, state = rng.standard_normal((B, T, E)), random_state(layer, rng)
    outputs, final = layer(x, state, LENGTHS)
    for b, length in enumerate(LENGTHS):
        alone = [s[:, b : b + 1] for s in arrays_of(state)]
        own, own_final = layer(x[b : b + 1, :length], tuple(alone) if kind == "LSTM" else alone[0])
        assert_agree(outputs[b, :length], own[0])
        for got, want, start in zip(arrays_of(final), arrays_of(own_final), alone, strict=True):
            assert_agree(got[:, b], want[:, 0])
            if length == 0:
                assert_same(want, start)  # no step: the state does not move


@kinds
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_no_steps(kind, shape, rng):
    layer = make(kind, rng, 2, True)
    (outputs, state), pullback = attnc.vjp(layer, np.zeros((*shape, E)))
    assert outputs.shape == (*shape, 2 * H)
    assert all(s.shape == (4, shape[0], H) and not s.any() for s in arrays_of(state))
    assert pullback(outputs).x.shape == (*shape, E)
    assert not any(g.any() for g in layer.gradients.values())


@kinds
def test_a_state_without_a_gradient_is_zero(kind, rng):
    layer = make(kind, rng)
    x = rng.standard_normal((B, T, E))
    shape = (1, B, H)
    state = (np.zeros(shape), np.zeros(shape)) if kind == "LSTM" else np.zeros(shape)
    assert_same(layer(x), layer(x, state))
    (outputs, final), pullback = attnc.vjp(layer, x)
    d = like_random(rng, final)
    zeros = tuple(np.zeros(shape) for _ in range(2)) if kind == "LSTM" else np.zeros(shape)
    assert_same(pullback(None, d).x, pullback(np.zeros_like(outputs), d).x)
    assert_same(pullback(outputs).x, pullback(outputs, zeros).x)


# ---- Dropout -------------------------------------------------------------------------------------


def test_dropout_between_layers(rng):
    layer = make("GRU", rng, 2, dropout=0.5)
    x = rng.standard_normal((B, T, E))
    options = {"train": True, "rng": 3}
    (outputs, _), _ = check_layer(layer, (x,), options, rng)
    assert_same(layer(x, **options).outputs, outputs)
    assert (layer(x, train=True, rng=4).outputs != outputs).any()
    calm = layer(x)
    assert_same(layer(x), calm)
    lower, upper = make("GRU", rng), attnc.GRU(H, H, dtype="float64")
    lower.load_state_dict({n: p for n, p in layer.state_dict().items() if "cells.0" in n})
    upper.load_state_dict(
        {n.replace("1", "0"): p for n, p in layer.state_dict().items() if "cells.1" in n}
    )
    assert_same(upper(lower(x).outputs).outputs, calm.outputs)


def test_dropout_leaves_a_single_layer_alone(rng):
    layer = make("LSTM", rng, 1, dropout=0.9)
    x = rng.standard_normal((B, T, E))
    assert_same(layer(x, train=True), layer(x))


def test_a_forward_pass_in_between_disturbs_nothing(rng):
    layer = make("LSTM", rng, 2, dropout=0.5)
    x = rng.standard_normal((B, T, E))

    def gradients(between):
        layer.zero_grad()
        (outputs, _), pullback = attnc.vjp(layer, x, train=True, rng=np.random.default_rng(0))
        between()
        return vars(pullback(np.ones_like(outputs))), layer.state_dict(), dict(layer.gradients)

    assert_same(gradients(lambda: layer(x[:2])), gradients(lambda: None))


# ---- The rest ------------------------------------------------------------------------------------


@kinds
def test_house(kind, rng, tmp_path):
    layer = make(kind, rng, 2, True, dropout=0.25)
    assert repr(layer) == (
        f"{kind}(input_size=3, state_size=5, layers=2, bidirectional=True, "
        "dropout=0.25, dtype='float64')"
    )
    check_house(layer, tmp_path)
    check_float32(getattr(attnc, kind)(E, H), (rng.standard_normal((B, T, E)),), {})
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind] * H
    assert {name: p.shape for name, p in getattr(attnc, kind)(E, H).parameters.items()} == {
        "cells.0.input_weight": (E, gates),
        "cells.0.state_weight": (H, gates),
        "cells.0.input_bias": (gates,),
        "cells.0.state_bias": (gates,),
    }


def test_initial_values():
    layer = attnc.LSTM(E, H, rng=0, dtype="float64")
    bias = layer.parameters["cells.0.input_bias"]
    np.testing.assert_array_equal(bias.reshape(4, H)[:, 0], [0, 1, 0, 0])  # i, f, g, o
    gate = layer.parameters["cells.0.state_weight"][:, 2 * H : 3 * H]
    assert_agree(gate @ gate.T, np.eye(H))


def test_large_numbers_saturate_without_warnings(rng):
    for kind in KINDS:
        layer = make(kind, rng, dtype="float32")
        outputs, _ = layer(1e6 * rng.standard_normal((B, T, E)))
        assert np.isfinite(outputs).all()


def test_gradients_have_the_dtype_of_their_arguments(rng):
    layer = attnc.LSTM(E, H)
    x, state = np.ones((B, T, E)), (np.ones((1, B, H)), np.ones((1, B, H), np.float16))
    (outputs, _), pullback = attnc.vjp(layer, x, state)
    gradients = pullback(outputs)
    assert outputs.dtype == np.float32 and gradients.x.dtype == np.float64
    assert [d.dtype for d in gradients.state] == [np.float64, np.float16]


def test_the_output_shows_shapes(rng):
    assert repr(make("LSTM", rng)(np.ones((B, T, E)))) == (
        "RecurrentOutput(outputs=float64 (4, 6, 5), state=(float64 (1, 4, 5), float64 (1, 4, 5)))"
    )


@pytest.mark.parametrize(
    "kind, arguments, error, message",
    [
        (
            "GRU",
            {"x": np.ones((T, E))},
            ValueError,
            r"GRU: x must have shape \(B, T, 3\), got \(6, 3\) \(one sequence is x\[None\]\)",
        ),
        (
            "GRU",
            {"x": np.ones((B, T, 4))},
            ValueError,
            r"x must have shape \(B, T, 3\), got \(4, 6, 4\)",
        ),
        (
            "GRU",
            {"state": np.ones((B, H))},
            ValueError,
            r"state must have shape \(1, 4, 5\), got \(4, 5\)",
        ),
        (
            "LSTM",
            {"state": np.ones((1, B, H))},
            TypeError,
            r"LSTM: state must be a tuple \(h, c\), got an array \(1, 4, 5\)",
        ),
        (
            "RNN",
            {"lengths": [1, 2, 3]},
            ValueError,
            r"RNN: lengths must have shape \(4,\) to match the batch, got \(3,\)",
        ),
        ("RNN", {"lengths": [1, 2, 3, 7]}, ValueError, r"lengths must lie in 0..6, got 1..7"),
        ("RNN", {"lengths": [-1, 2, 3, 4]}, ValueError, r"lengths must lie in 0..6, got -1..4"),
        ("RNN", {"lengths": [1.0] * 4}, TypeError, r"lengths must be integers, got float64"),
    ],
)
def test_errors(kind, arguments, error, message, rng):
    with pytest.raises(error, match=message):
        make(kind, rng)(**{"x": np.ones((B, T, E)), **arguments})


def test_errors_of_constructor_and_pullback(rng):
    with pytest.raises(ValueError, match="GRU: layers must be a positive integer, got 0"):
        attnc.GRU(E, H, layers=0)
    with pytest.raises(ValueError, match="GRU: dropout must lie in 0 <= dropout < 1, got 1.0"):
        attnc.GRU(E, H, dropout=1.0)
    _, pullback = attnc.vjp(make("GRU", rng), np.ones((B, T, E)))
    with pytest.raises(ValueError, match=r"doutputs must have shape \(4, 6, 5\), got \(4, 5\)"):
        pullback(np.ones((B, H)))
    with pytest.raises(ValueError, match=r"GRU: dstate must have shape \(1, 4, 5\), got \(4, 5\)"):
        pullback(dstate=np.ones((B, H)))


@kinds
def test_a_pullback_wants_a_gradient(kind, rng):
    layer = make(kind, rng)
    output, pullback = attnc.vjp(layer, rng.standard_normal((B, T, E)))
    for nothing in ((), (None, None), (None, (None, None) if kind == "LSTM" else None)):
        with pytest.raises(TypeError, match=f"{kind}: pullback must get doutputs or dstate"):
            pullback(*nothing)
    if kind == "LSTM":
        one = np.ones((1, B, H))
        assert_same(pullback(None, (one, None)).x, pullback(None, (one, 0 * one)).x)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"bidirectional": "False"}, TypeError, "bidirectional must be True or False, got 'False'"),
        ({"bidirectional": 1}, TypeError, "bidirectional must be True or False, got 1"),
        ({"dropout": True}, TypeError, "dropout must lie in 0 <= dropout < 1, got True"),
        ({"dropout": "0.5"}, TypeError, "dropout must lie in 0 <= dropout < 1, got '0.5'"),
        ({"dropout": np.nan}, ValueError, "dropout must lie in 0 <= dropout < 1, got nan"),
        ({"layers": 1.0}, (TypeError, ValueError), "layers must"),
        ({"layers": True}, (TypeError, ValueError), "layers must"),
    ],
)
def test_options_of_the_wrong_kind(arguments, error, message):
    with pytest.raises(error, match=f"GRU: {message}"):
        attnc.GRU(E, H, **arguments)


@kinds
def test_errors_of_python_name_the_class(kind, rng):
    layer = make(kind, rng)
    x = np.ones((B, T, E))
    for call, method in (
        (lambda: getattr(attnc, kind)(E, H, depth=2), "__init__"),
        (lambda: layer(x, depth=2), "__call__"),
        (lambda: attnc.vjp(layer, x, depth=2), "_vjp"),
    ):
        with pytest.raises(TypeError, match=rf"^{kind}.{method}\(\) got an unexpected keyword"):
            call()
    function = getattr(attnc.functional, kind.lower())
    with pytest.raises(TypeError, match=rf"^{kind.lower()}\(\) got an unexpected keyword"):
        attnc.vjp(function, x, [], depth=2)
    with pytest.raises(TypeError, match=f"^{kind.lower()}: parameters must be a sequence"):
        function(x, 3)


def test_errors_name_the_part_of_a_state(rng):
    layer, x = make("LSTM", rng), np.ones((B, T, E))
    good, bad = np.ones((1, B, H)), np.ones((1, B, H + 1))
    with pytest.raises(ValueError, match=r"^LSTM: state \(c\) must have shape"):
        layer(x, (good, bad))
    with pytest.raises(TypeError, match=r"^LSTM: state \(h\) must be a plain array"):
        layer(x, (np.ma.array(good), good))
    with pytest.raises(ValueError, match=r"^LSTM: dstate \(h\) must have shape"):
        attnc.vjp(layer, x)[1](None, (bad, good))


@kinds
def test_an_empty_batch_takes_empty_lists(kind, rng):
    layer = make(kind, rng)
    assert layer(np.ones((0, T, E)), lengths=[]).outputs.shape == (0, T, H)
    for lengths in (np.ma.array([1] * B), [True] * B, ["1"] * B):
        with pytest.raises(TypeError, match=f"^{kind}: lengths must be"):
            layer(np.ones((B, T, E)), lengths=lengths)


@kinds
def test_floating_point_errors_are_results(kind, rng):
    layer = make(kind, rng, 2, True, dtype="float32", dropout=0.5)
    x = rng.standard_normal((B, T, E)) * 10.0 ** rng.integers(-300, 300, (B, T, E))

    def run():
        layer.zero_grad()
        output, pullback = attnc.vjp(layer, x, lengths=LENGTHS, train=True, rng=0)
        down = pullback(np.full(output.outputs.shape, 1e-40)).x
        return output.outputs, down, *(g.copy() for g in layer.gradients.values())

    with np.errstate(all="ignore"):
        expected = run()
    with np.errstate(all="raise"):
        got = run()
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(1, 100_000, 1), (100_000, 1, 1)])
@pytest.mark.parametrize("lengths", [None, "whole"])
def test_gradients_of_biases_over_many_rows(shape, lengths):
    layers = [attnc.RNN(1, 1, rng=0, dtype=dtype) for dtype in ("float32", "float64")]
    for layer in layers:
        layer.load_state_dict(layers[0].state_dict())
        layer.parameters["cells.0.state_weight"] = [[0]]  # all steps are alike
        given = None if lengths is None else shape[1]
        output, pullback = attnc.vjp(layer, np.ones(shape, layer.dtype), lengths=given)
        pullback(np.full_like(output.outputs, np.float32(0.1)))
    for name in ("cells.0.input_bias", "cells.0.state_bias"):
        narrow, wide = (layer.gradients[name] for layer in layers)
        np.testing.assert_allclose(narrow, wide, rtol=1e-5)

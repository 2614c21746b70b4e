"""attnc.functional.rnn, gru and lstm: values, gradients, and that nothing but numbers matters."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import plain
import pytest
from arrays import LAYOUTS, lay_out
from checks import assert_agree, assert_same, assert_unchanged
from layer_checks import arrays_of, check_layer, like_random

import attnc

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
kinds = pytest.mark.parametrize("kind", GATES)
stacks = pytest.mark.parametrize("layers, bidirectional", [(1, False), (2, False), (2, True)])
B, T, E, H = 4, 6, 3, 5
LENGTHS = [3, 0, 6, 2]


def arrays_for(kind, rng, dtype=np.float64, sizes=(B, T, E, H), layers=1, bidirectional=False):
    """x, parameters and state: gates neither shut nor all alike."""
    B, T, E, H = sizes
    directions = 1 + bidirectional
    shapes = []
    for cell in range(layers * directions):
        width = GATES[kind] * H
        below = E if cell < directions else directions * H
        shapes += [(below, width), (H, width), (width,), (width,)]
    parameters = tuple(rng.standard_normal(s) / np.sqrt(s[0] if len(s) == 2 else 4) for s in shapes)
    shape = (layers * directions, B, H)
    state = tuple(rng.standard_normal(shape) for _ in range(1 + (kind == "lstm")))
    arrays = rng.standard_normal((B, T, E)), parameters, state if kind == "lstm" else state[0]
    return plain.each(arrays, lambda x: x.astype(dtype))


def incoming(kind, rng, arrays, bidirectional=False, dtype=np.float64):
    """Random gradients of the outputs and of the state."""
    x, parameters, state = arrays
    H = parameters[1].shape[0]
    d = rng.standard_normal((*x.shape[:2], H * (1 + bidirectional))), like_random(rng, state)
    return plain.each(d, lambda x: x.astype(dtype))


def run(kind, arrays, d, *options, **named):
    """Outputs and gradients, as tuples and a dict."""
    function = getattr(attnc.functional, kind)
    output, pullback = attnc.vjp(function, *arrays, *options, **named)
    return tuple(output), vars(pullback(*d))


def on_threads(numbers, call):
    """What the call returns on each number of threads."""
    results = []
    for n in numbers:
        with attnc.set_num_threads(n):
            results.append(call())
    return results


# ---- Values and gradients ------------------------------------------------------------------------


@kinds
@stacks
@pytest.mark.parametrize("lengths", [None, [3, 1, 6, 2]])
def test_equal_to_torch(kind, layers, bidirectional, lengths, rng):
    torch = pytest.importorskip("torch")
    packing = torch.nn.utils.rnn
    arrays = x, parameters, state = arrays_for(
        kind, rng, layers=layers, bidirectional=bidirectional
    )
    d = incoming(kind, rng, arrays, bidirectional)
    output, gradients = run(kind, arrays, d, lengths, bidirectional=bidirectional)

    twin = getattr(torch.nn, kind.upper())(
        E, H, layers, batch_first=True, bidirectional=bidirectional, dtype=torch.float64
    )
    theirs = list(twin.parameters())  # in the order of ours
    with torch.no_grad():
        for parameter, array in zip(theirs, parameters, strict=True):
            parameter.copy_(torch.tensor(array.T.copy()))
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, *arrays_of(state))]
    steps, first = leaves[0], leaves[1] if kind != "lstm" else tuple(leaves[1:])
    if lengths is not None:
        steps = packing.pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)
    expected, final = twin(steps, first)
    if lengths is not None:
        expected, _ = packing.pad_packed_sequence(expected, batch_first=True, total_length=T)
    expected = [expected, *(final if kind == "lstm" else [final])]
    torch.autograd.backward(expected, [torch.tensor(a) for a in arrays_of(d)])

    for got, want in zip(arrays_of(output), expected, strict=True):
        assert_agree(got, want.detach().numpy())
    for got, leaf in zip(arrays_of((gradients["x"], gradients["state"])), leaves, strict=True):
        assert_agree(got, leaf.grad.numpy())
    for got, parameter in zip(gradients["parameters"], theirs, strict=True):
        assert_agree(got, parameter.grad.numpy().T)


@kinds
@stacks
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_equal_to_the_layer(kind, layers, bidirectional, lengths, rng):
    layer = getattr(attnc, kind.upper())(E, H, layers, bidirectional, dtype="float64")
    arrays = x, parameters, state = arrays_for(
        kind, rng, layers=layers, bidirectional=bidirectional
    )
    layer.load_state_dict(dict(zip(layer.parameters, parameters, strict=True)))
    d = incoming(kind, rng, arrays, bidirectional)
    output, gradients = run(kind, arrays, d, lengths, bidirectional=bidirectional)
    expected, pullback = attnc.vjp(layer, x, state, lengths)
    assert_same(output, tuple(expected))
    own = vars(pullback(*d))
    assert_same((gradients["x"], gradients["state"]), (own["x"], own["state"]))
    assert_same(gradients["parameters"], tuple(layer.gradients.values()))
    assert_same(
        tuple(getattr(attnc.functional, kind)(*arrays, lengths, bidirectional=bidirectional)),
        output,
    )


RULE = {
    "small": ((B, T, E, H), 2, True, LENGTHS),
    "one unit": ((3, 5, 2, 1), 1, False, None),
    "one sequence": ((1, 9, 4, 17), 1, True, None),
    "many sequences": ((100, 3, 5, 18), 1, False, None),
    "many lengths": ((70, 4, 5, 9), 1, True, [(3 * k) % 5 for k in range(70)]),
    "long": ((2, 60, 3, 12), 1, False, [60, 41]),
}


@pytest.mark.parametrize("sizes", RULE)
@kinds
def test_as_exact_as_plain_numpy(kind, sizes, dtype, isa, rng):
    sizes, layers, bidirectional, lengths = RULE[sizes]
    arrays = arrays_for(kind, rng, dtype, sizes, layers, bidirectional)
    d = incoming(kind, rng, arrays, bidirectional, dtype)
    with assert_unchanged(arrays, d):
        output, gradients = run(kind, arrays, d, lengths, bidirectional=bidirectional)
    plain.assert_close(
        (output, tuple(gradients.values())),
        lambda *nodes: plain.recurrent(kind, *nodes, lengths, bidirectional),
        arrays,
        d,
        dtype,
    )


@kinds
def test_many_units_are_as_exact_as_plain_numpy(kind, rng):
    arrays = arrays_for(kind, rng, np.float32, (5, 4, 16, 520))
    d = incoming(kind, rng, arrays, dtype=np.float32)
    output, gradients = run(kind, arrays, d)
    got = output, tuple(gradients.values())
    plain.assert_close(
        got, lambda *nodes: plain.recurrent(kind, *nodes), arrays, d, np.dtype(np.float32)
    )


class AsLayer:
    """A function as `check_layer` takes it: without parameters of its own."""

    dtype = np.dtype(np.float64)

    def __init__(self, function, **options):
        self.function, self.options = function, options
        self.parameters, self.gradients = {}, {}

    def zero_grad(self):
        pass

    def state_dict(self):
        return {}

    def __call__(self, x, parameters, state, lengths=None):
        return self.function(x, parameters, state, lengths, **self.options)

    def _vjp(self, *arguments):
        return attnc.vjp(self.function, *arguments, **self.options)


@kinds
@stacks
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_central_differences(kind, layers, bidirectional, lengths, rng):
    layer = AsLayer(getattr(attnc.functional, kind), bidirectional=bidirectional)
    arrays = arrays_for(kind, rng, layers=layers, bidirectional=bidirectional)
    check_layer(layer, (*arrays, lengths), {}, rng)


@kinds
def test_gates_that_saturate(kind, dtype, isa, rng):
    """Products of +-1e4: states at the ends of their range, gradients finite, no warning."""
    x, parameters, state = arrays_for(kind, rng, dtype, (3, 4, E, 7))
    d = incoming(kind, rng, (x, parameters, state), dtype=dtype)
    output, gradients = run(kind, (1e4 * x, parameters, state), d)
    assert all(np.isfinite(a).all() for a in arrays_of((output, tuple(gradients.values()))[0]))
    assert all(np.isfinite(a).all() for _, a in plain.leaves(gradients))


# ---- The same bits -------------------------------------------------------------------------------

# Blocks of rows are of 16 to 64, panels of some vectors; large weights are cut another way.
SIZES = {
    "one unit": (37, 3, 5, 1),
    "one sequence": (1, 6, 9, 67),
    "odd": (35, 3, 6, 33),
    "many sequences": (100, 2, 8, 45),
    "many units": (19, 2, 8, 150),
    "very many units": (2, 2, 8, 520),
}


@pytest.mark.parametrize("sizes", SIZES)
@kinds
def test_same_bits_for_any_number_of_threads(kind, sizes, dtype, isa, rng):
    arrays = arrays_for(kind, rng, dtype, SIZES[sizes], bidirectional=True)
    d = incoming(kind, rng, arrays, True, dtype)
    expected, *others = on_threads(
        (1, 2, 3, 5, 8), lambda: run(kind, arrays, d, bidirectional=True)
    )
    for got in others:
        assert_same(got, expected)


@kinds
def test_same_bits_for_any_number_of_threads_with_lengths(kind, dtype, isa, rng):
    sizes = (90, 7, 8, 40)
    arrays = arrays_for(kind, rng, dtype, sizes, 2, True)
    d = incoming(kind, rng, arrays, True, dtype)
    lengths = rng.integers(0, 8, 90)
    expected, *others = on_threads(
        (1, 2, 3, 5, 8), lambda: run(kind, arrays, d, lengths, bidirectional=True)
    )
    for got in others:
        assert_same(got, expected)


@kinds
def test_same_bits_alone_and_in_company(kind, dtype, isa, rng):
    """A sequence of a batch by itself: its outputs, and the gradients of what is its own."""
    arrays = x, parameters, state = arrays_for(kind, rng, dtype, (35, 4, 9, 21), 2, True)
    d = incoming(kind, rng, arrays, True, dtype)
    output, gradients = run(kind, arrays, d, bidirectional=True)

    def own(nested, b):
        return plain.each(nested, lambda a: a[:, b : b + 1])

    for b in (0, 15, 16, 34):
        alone, alone_gradients = run(
            kind,
            (x[b : b + 1], parameters, own(state, b)),
            (d[0][b : b + 1], own(d[1], b)),
            bidirectional=True,
        )
        assert_same(alone, (output[0][b : b + 1], own(output[1], b)))
        assert_same(alone_gradients["x"], gradients["x"][b : b + 1])
        assert_same(alone_gradients["state"], own(gradients["state"], b))


@kinds
def test_same_bits_in_any_order_of_the_batch(kind, rng):
    """Lengths are sorted inside: where a sequence stands does not matter."""
    arrays = x, parameters, state = arrays_for(kind, rng, np.float32, (40, 5, 4, 11))
    d = incoming(kind, rng, arrays, dtype=np.float32)
    lengths, order = rng.integers(0, 6, 40), rng.permutation(40)
    output, gradients = run(kind, arrays, d, lengths)

    def moved(nested):
        return plain.each(nested, lambda a: a[:, order])

    shuffled = x[order], parameters, moved(state)
    got, got_gradients = run(kind, shuffled, (d[0][order], moved(d[1])), lengths[order])
    assert_same(got, (output[0][order], moved(output[1])))
    assert_same(got_gradients["x"], gradients["x"][order])
    assert_same(got_gradients["state"], moved(gradients["state"]))


@kinds
def test_same_bits_from_concurrent_callers(kind, rng):
    arrays = arrays_for(kind, rng, np.float32, (40, 5, 8, 33), 2, True)
    d = incoming(kind, rng, arrays, True, np.float32)
    expected = run(kind, arrays, d, bidirectional=True)
    with attnc.set_num_threads(3), ThreadPoolExecutor(6) as callers:
        calls = [callers.submit(run, kind, arrays, d, bidirectional=True) for _ in range(12)]
        for call in calls:
            assert_same(call.result(), expected)


@kinds
def test_same_bits_from_one_pullback_in_several_threads(kind, rng):
    arrays = arrays_for(kind, rng, np.float32, (40, 20, 8, 33))
    ds = [incoming(kind, rng, arrays, dtype=np.float32) for _ in range(8)]
    _, pullback = attnc.vjp(getattr(attnc.functional, kind), *arrays)
    expected = [vars(pullback(*d)) for d in ds]
    with ThreadPoolExecutor(8) as callers:
        assert_same([vars(g) for g in callers.map(lambda d: pullback(*d), ds)], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("units", [1, 7])
@kinds
def test_layouts(kind, layout, units, dtype, rng):
    arrays = arrays_for(kind, rng, dtype, (5, 4, 1 if units == 1 else 6, units))
    d = incoming(kind, rng, arrays, dtype=dtype)
    laid = plain.each((arrays, d), lambda x: lay_out(layout, x))
    copies = plain.each(laid, lambda x: np.array(x, x.dtype.newbyteorder("="), order="C"))
    with assert_unchanged(laid):
        got = run(kind, *laid, [4, 0, 3, 1, 4])
    assert_same(got, run(kind, *copies, [4, 0, 3, 1, 4]))
    for _, x in (*plain.leaves(got[0]), *plain.leaves(got[1])):
        assert x.dtype == dtype and x.dtype.isnative and x.flags.writeable


def test_lists_are_arrays(rng):
    arrays = arrays_for("lstm", rng)
    lists = plain.each(arrays, lambda x: x.tolist())
    assert_same(attnc.functional.lstm(*lists), attnc.functional.lstm(*arrays))


@kinds
@stacks
def test_results_are_fresh(kind, layers, bidirectional, rng):
    """Of one sequence and one step too: nobody's memory but the caller's."""
    for sizes in ((1, 1, E, H), (1, T, E, H), (B, 1, E, H)):
        arrays = arrays_for(kind, rng, sizes=sizes, layers=layers, bidirectional=bidirectional)
        d = incoming(kind, rng, arrays, bidirectional)
        options = {"bidirectional": bidirectional}
        output, pullback = attnc.vjp(getattr(attnc.functional, kind), *arrays, **options)
        gradients = vars(pullback(*d))
        results = [x for _, x in (*plain.leaves(tuple(output)), *plain.leaves(gradients))]
        given = [x for _, x in plain.leaves((arrays, d))]
        for k, x in enumerate(results):
            assert not any(np.shares_memory(x, y) for y in (*given, *results[:k]))
        expected = plain.each(gradients, np.copy)
        for x in results:
            x[...] = np.nan
        assert_same(vars(pullback(*d)), expected)


# ---- dtypes --------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_halves_are_computed_in_float32(kind, half, rng):
    """And rounded once: outputs, gradients and the tangents of both."""
    half = np.float16 if half == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    function = getattr(attnc.functional, kind)
    narrow, more = arrays_for(kind, rng, half), arrays_for(kind, rng, half)
    single, moves = (plain.each(x, lambda x: x.astype(np.float32)) for x in (narrow, more))
    d = incoming(kind, rng, narrow, dtype=np.float32)
    options = {"lengths": LENGTHS}

    def rounded(results):
        return plain.each(results, lambda x: x.astype(half))

    assert_same(tuple(function(*narrow, **options)), rounded(tuple(function(*single, **options))))
    output, gradients = run(kind, narrow, d, **options)
    expected, right = run(kind, single, d, **options)
    assert_same(output, rounded(expected))
    assert_same(gradients, rounded(right))
    for tangents in (more, moves):
        output, tangent = attnc.jvp(function, narrow, tangents, **options)
        expected, right = attnc.jvp(function, single, moves, **options)
        assert_same(tuple(output), rounded(tuple(expected)))
        assert_same(tuple(tangent), rounded(tuple(right)))
    changes = vars(attnc.hvp(function, narrow, more, *d[:1], **options))
    right = vars(attnc.hvp(function, single, moves, *d[:1], **options))
    assert_same(changes, rounded(right))


@kinds
def test_a_half_with_float32_is_float32(kind, rng):
    x, parameters, state = arrays_for(kind, rng, np.float16)
    wide = plain.each((x, parameters, state), lambda x: x.astype(np.float32))
    function = getattr(attnc.functional, kind)
    expected = tuple(function(*wide))
    assert_same(tuple(function(x, *wide[1:])), expected)
    assert_same(tuple(function(wide[0], parameters, state)), expected)


@kinds
@pytest.mark.parametrize("wide", range(6))
def test_one_float64_makes_all_float64(kind, wide, rng):
    """And each gradient has the dtype of its argument."""
    x, parameters, state = arrays_for(kind, rng, np.float32)
    arrays = x, *parameters, *arrays_of(state)
    mixed = [a.astype(np.float64) if k == wide else a for k, a in enumerate(arrays)]
    d = incoming(kind, rng, (x, parameters, state))

    def nested(arrays):
        state = tuple(arrays[5:])
        return arrays[0], tuple(arrays[1:5]), state if kind == "lstm" else state[0]

    expected, right = run(kind, nested([a.astype(np.float64) for a in arrays]), d)
    output, gradients = run(kind, nested(mixed), d)
    assert_same(output, expected)
    for (_, got), (_, want), a in zip(
        plain.leaves(gradients), plain.leaves(right), mixed, strict=True
    ):
        assert_same(got, want.astype(a.dtype))


@kinds
def test_integers_are_float64(kind, rng):
    arrays = plain.each(arrays_for(kind, rng), lambda x: np.round(2 * x))
    d = incoming(kind, rng, arrays)
    integers = plain.each(arrays, lambda x: x.astype(np.int32))
    assert_same(run(kind, integers, d), run(kind, arrays, d))


@kinds
def test_incoming_gradients_do_not_change_the_dtype(kind, rng):
    arrays = arrays_for(kind, rng, np.float32)
    d = incoming(kind, rng, arrays)
    got = run(kind, arrays, d)
    assert_same(got, run(kind, arrays, plain.each(d, lambda x: x.astype(np.float32))))
    assert all(x.dtype == np.float32 for _, x in plain.leaves(got[1]))


# ---- Padding, nothing to do, dropout -------------------------------------------------------------


@kinds
@stacks
def test_padding_is_not_read(kind, layers, bidirectional, isa, rng):
    arrays = x, parameters, state = arrays_for(
        kind, rng, layers=layers, bidirectional=bidirectional
    )
    d = incoming(kind, rng, arrays, bidirectional)
    expected = run(kind, arrays, d, LENGTHS, bidirectional=bidirectional)
    padded = np.arange(T) >= np.array(LENGTHS)[:, None]
    x, doutputs = x.copy(), d[0].copy()
    x[padded], doutputs[padded] = np.nan, np.inf
    got = run(kind, (x, parameters, state), (doutputs, d[1]), LENGTHS, bidirectional=bidirectional)
    assert_same(got, expected)
    assert not got[0][0][padded].any() and not got[1]["x"][padded].any()


@kinds
def test_a_nan_stays_in_its_sequence(kind, dtype, isa, rng):
    arrays = x, parameters, state = arrays_for(kind, rng, dtype, (20, 4, 3, 9))
    expected = getattr(attnc.functional, kind)(*arrays)
    x = x.copy()
    x[7, 2] = np.nan
    output = getattr(attnc.functional, kind)(x, parameters, state)
    others = np.arange(20) != 7
    assert_same(output.outputs[others], expected.outputs[others])
    assert_same(output.outputs[7, :2], expected.outputs[7, :2])
    assert np.isnan(output.outputs[7, 2:]).all()


@kinds
@stacks
@pytest.mark.parametrize("sizes", [(0, T), (B, 0), (0, 0)])
@pytest.mark.parametrize("lengths", [None, 0])
def test_no_steps(kind, layers, bidirectional, sizes, lengths, rng):
    """The state stays, gradients of parameters are 0."""
    arrays = arrays_for(kind, rng, sizes=(*sizes, E, H), layers=layers, bidirectional=bidirectional)
    d = incoming(kind, rng, arrays, bidirectional)
    output, gradients = run(kind, arrays, d, lengths, bidirectional=bidirectional)
    assert output[0].shape == (*sizes, H * (1 + bidirectional))
    assert_same(output[1], arrays[2])
    assert_same(gradients["state"], d[1])
    assert gradients["x"].shape == arrays[0].shape
    assert not any(g.any() for g in gradients["parameters"])


@kinds
def test_inputs_without_features(kind, rng):
    arrays = arrays_for(kind, rng, sizes=(B, T, 0, H))
    d = incoming(kind, rng, arrays)
    x, parameters, state = arrays
    padded = np.ones((B, T, 1)), (np.zeros((1, GATES[kind] * H)), *parameters[1:]), state
    got, expected = run(kind, arrays, d), run(kind, padded, d)
    assert_same(got[0], expected[0])
    assert_same(got[1]["parameters"][1:], expected[1]["parameters"][1:])
    assert got[1]["parameters"][0].shape == (0, GATES[kind] * H)
    assert got[1]["x"].shape == (B, T, 0)


@kinds
def test_without_a_state_it_is_zero(kind, rng):
    arrays = x, parameters, state = arrays_for(kind, rng)
    d = incoming(kind, rng, arrays)
    zeros = plain.each(state, np.zeros_like)
    function = getattr(attnc.functional, kind)
    output, pullback = attnc.vjp(function, x, parameters)
    expected, gradients = run(kind, (x, parameters, zeros), d)
    assert_same(tuple(output), expected)
    got = vars(pullback(*d))
    assert "state" not in got
    assert_same(got, {name: gradients[name] for name in ("x", "parameters")})
    assert_same(vars(pullback(d[0])), vars(pullback(d[0], zeros)))
    assert_same(vars(pullback(None, d[1])), vars(pullback(np.zeros_like(d[0]), d[1])))


@kinds
def test_dropout_is_that_of_its_rng(kind, rng):
    arrays = arrays_for(kind, rng, layers=2)
    d = incoming(kind, rng, arrays)
    expected = run(kind, arrays, d, dropout=0.5, rng=3)
    assert_same(run(kind, arrays, d, dropout=0.5, rng=3), expected)
    assert_same(run(kind, arrays, d, dropout=0.5, rng=np.random.default_rng(3)), expected)
    assert (run(kind, arrays, d, dropout=0.5, rng=4)[0][0] != expected[0][0]).any()
    calm = run(kind, arrays, d)
    assert (calm[0][0] != expected[0][0]).any()
    assert_same(run(kind, arrays, d, dropout=0.0, rng=3), calm)
    one = arrays_for(kind, rng)
    assert_same(
        getattr(attnc.functional, kind)(*one, dropout=0.5), getattr(attnc.functional, kind)(*one)
    )


@kinds
def test_dropout_has_the_gradient_of_what_it_computed(kind, rng):
    layer = AsLayer(getattr(attnc.functional, kind), dropout=0.4, rng=5)
    check_layer(layer, arrays_for(kind, rng, layers=3), {}, rng)


# ---- Errors --------------------------------------------------------------------------------------

x, W, U, b = np.ones((B, T, E)), np.ones((E, 3 * H)), np.ones((H, 3 * H)), np.ones(3 * H)
cell = [W, U, b, b]
ERRORS = {
    "x axes": (
        {"x": x[0]},
        ValueError,
        "x must have shape (B, T, 3), got (6, 3) (one sequence is x[None])",
    ),
    "x size": ({"x": x[..., :2]}, ValueError, "x must have shape (B, T, 3), got (4, 6, 2)"),
    "x dtype": ({"x": x.astype(complex)}, TypeError, "x must be real, got complex128"),
    "x long": ({"x": x.astype("longdouble")}, TypeError, "x must be real, got "),
    "x masked": ({"x": np.ma.ones((B, T, E))}, TypeError, "x must be a plain array, got a masked"),
    "no parameters": (
        {"parameters": []},
        ValueError,
        "parameters must hold input_weight, state_weight, input_bias, state_bias for every cell, "
        "1 of them in each layer, got 0 arrays",
    ),
    "five parameters": ({"parameters": [*cell, W]}, ValueError, "parameters must hold "),
    "one direction": (
        {"parameters": cell, "bidirectional": True},
        ValueError,
        "parameters must hold input_weight, state_weight, input_bias, state_bias for every cell, "
        "2 of them in each layer, got 4 arrays",
    ),
    "gates": (
        {"parameters": [np.ones((E, 4 * H)), U, b, b]},
        ValueError,
        "input_weight of cell 0 must have shape (3, 15), got (3, 20)",
    ),
    "no units": (
        {"parameters": [np.ones((E, 0)), np.ones((0, 0)), np.ones(0), np.ones(0)]},
        ValueError,
        "input_weight of cell 0 and state_weight of cell 0 must have shapes "
        "(input_size, 3 * H) and (H, 3 * H) with H at least 1, got (3, 0) and (0, 0)",
    ),
    "axes of a weight": (
        {"parameters": [W, b, b, b]},
        ValueError,
        "input_weight of cell 0 and state_weight of cell 0 must have shapes ",
    ),
    "bias": (
        {"parameters": [W, U, b, b[:-1]]},
        ValueError,
        "state_bias of cell 0 must have shape (15,), got (14,)",
    ),
    "second layer": (
        {"parameters": [*cell, *cell]},
        ValueError,
        "input_weight of cell 1 must have shape (5, 15), got (3, 15)",
    ),
    "parameter dtype": (
        {"parameters": [W, U.astype(bool), b, b]},
        TypeError,
        "state_weight of cell 0 must be real, got bool",
    ),
    "state": (
        {"state": np.ones((B, H))},
        ValueError,
        "state must have shape (1, 4, 5), got (4, 5)",
    ),
    "state dtype": ({"state": np.ones((1, B, H), "U1")}, TypeError, "state must be real, got <U1"),
    "lengths shape": (
        {"lengths": [1, 2, 3]},
        ValueError,
        "lengths must have shape (4,) to match the batch, got (3,)",
    ),
    "lengths range": ({"lengths": [1, 2, 3, 7]}, ValueError, "lengths must lie in 0..6, got 1..7"),
    "lengths below": ({"lengths": -1}, ValueError, "lengths must lie in 0..6, got -1..-1"),
    "lengths dtype": ({"lengths": 1.0}, TypeError, "lengths must be integers, got float64"),
    "dropout": (
        {"dropout": 1.0},
        ValueError,
        "dropout must lie in 0 <= dropout < 1, got 1.0",
    ),
    "dropout nan": ({"dropout": np.nan}, ValueError, "dropout must lie in 0 <= dropout < 1, got"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    arguments, error, message = ERRORS[name]
    with pytest.raises(error) as caught:
        attnc.functional.gru(**{"x": x, "parameters": cell, **arguments})
    assert str(caught.value).startswith(f"gru: {message}")


def test_errors_of_states_and_pullbacks(rng):
    _, pullback = attnc.vjp(attnc.functional.gru, x, cell)
    with pytest.raises(ValueError, match=r"gru: doutputs must have shape \(4, 6, 5\), got \(4, 5"):
        pullback(np.ones((B, H)))
    with pytest.raises(ValueError, match=r"gru: dstate must have shape \(1, 4, 5\), got \(4, 5\)"):
        pullback(None, np.ones((B, H)))
    with pytest.raises(TypeError, match="gru: doutputs must be real, got complex128"):
        pullback(np.ones((B, T, H), complex))
    arrays = steps, parameters, state = arrays_for("lstm", rng)
    with pytest.raises(TypeError, match=r"lstm: state must be a tuple \(h, c\), got an array"):
        attnc.functional.lstm(steps, parameters, state[0])
    with pytest.raises(TypeError, match=r"lstm: state must be a tuple \(h, c\), got <class"):
        attnc.functional.lstm(steps, parameters, (*state, state[0]))
    _, pullback = attnc.vjp(attnc.functional.lstm, *arrays)
    with pytest.raises(TypeError, match=r"lstm: dstate must be a tuple \(h, c\), got an array"):
        pullback(None, state[0])


def test_a_tensor_of_another_library_is_refused(rng):
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="gru: x must be a NumPy array, got a PyTorch tensor"):
        attnc.functional.gru(torch.ones((B, T, E)), cell)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_a_pullback_wants_a_gradient(name):
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[name]
    parameters = [np.ones((2, 3 * gates)), np.ones((3, 3 * gates)), *[np.zeros(3 * gates)] * 2]
    function = getattr(attnc.functional, name)
    output, pullback = attnc.vjp(function, np.ones((1, 4, 2)), iter(parameters))
    assert len(pullback(output.outputs).parameters) == 4
    for nothing in ((), (None, None), (None, (None, None))):
        with pytest.raises(TypeError, match=f"^{name}: pullback must get doutputs or dstate"):
            pullback(*nothing)
    with pytest.raises(TypeError, match=f"^{name}: bidirectional must be True or False"):
        function(np.ones((1, 4, 2)), parameters, bidirectional="False")
    with pytest.raises(TypeError, match=f"^{name}: dropout must lie in"):
        function(np.ones((1, 4, 2)), parameters, dropout=True)

"""attnc.functional.attention_decoder: values, gradients, threads, long memories, masks."""

import inspect
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import plain
import pytest
from arrays import LAYOUTS, lay_out
from checks import assert_agree, assert_close_like_naive, assert_same, assert_unchanged
from layer_checks import arrays_of, check_layer, like_random, randomize

import attnc
from attnc.functional import attention_decoder
from attnc.gradients import Gradients

SCORES = ["additive", "multiplicative", "dot", "cosine", "none"]
ORDERS = [("bahdanau", False), ("luong", False), ("luong", True)]
CELLS = ["gru", "lstm", "rnn"]
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
SIZES = {"B": 3, "T": 4, "Tk": 6, "E": 2, "H": 7, "M": 5, "A": 9}
LENGTHS = [6, 0, 2]
orders = pytest.mark.parametrize("order, input_feeding", ORDERS)


class Problem:
    """The arguments of a call: arrays (inputs, memory, cells, state), others by name, options."""

    def __init__(
        self,
        rng,
        attention="additive",
        order="bahdanau",
        input_feeding=False,
        cell="gru",
        coverage=False,
        layers=1,
        dtype=np.float64,
        key_size=1.0,
        **sizes,
    ):
        B, T, Tk, E, H, M, A = (SIZES | sizes).values()
        M = H if attention in ("dot", "cosine") else M
        self.options = {
            "cell": cell, "attention": attention, "order": order, "input_feeding": input_feeding,
        }  # fmt: skip
        self.dtype = np.dtype(dtype)

        def weight(*shape):
            return rng.standard_normal(shape) / np.sqrt(shape[0])

        fed = M if order == "bahdanau" else H * input_feeding
        width, cells = GATES[cell] * H, []
        for k in range(layers):
            below = H if k else E + fed
            biases = 0.5 * rng.standard_normal((2, width))
            cells += [weight(below, width), weight(H, width), *biases]
        state = [rng.standard_normal((layers, B, H)) for _ in range(1 + (cell == "lstm"))]
        if input_feeding:
            state.append(rng.standard_normal((B, H)))
        if coverage:
            state.append(rng.uniform(0, 2, (B, Tk)))
        named = {}
        if attention == "additive":
            named |= {"query_weight": weight(H, A), "key_weight": key_size * weight(M, A)}
            named["score_vector"] = weight(A)
        elif attention == "multiplicative":
            named["weight"] = weight(H, M)
        elif attention == "cosine":
            named["scale"] = np.array(3.5)
        if coverage == "tanh":
            named["coverage_vector"] = rng.standard_normal(A)
        elif coverage:
            named["coverage_weight"] = np.array(-0.7)
        if coverage == "fertility":
            named["fertility_vector"] = weight(M)
        if order == "luong":
            named["readout_weight"] = weight(M + H, H)
        state = tuple(state) if len(state) > 1 else state[0]
        arrays = (
            rng.standard_normal((B, T, E)),
            rng.standard_normal((B, Tk, M)),
            tuple(cells),
            state,
        )
        self.arrays, self.named = plain.each((arrays, named), lambda x: x.astype(dtype))
        d = rng.standard_normal((B, T, H)), rng.standard_normal((B, T, Tk)), like_random(rng, state)
        self.d = plain.each(d, lambda x: x.astype(dtype))

    def run(self, **masks):
        """Outputs as a tuple, gradients as a dict."""
        output, pullback = attnc.vjp(
            attention_decoder, *self.arrays, **self.named, **self.options, **masks
        )
        return tuple(output), vars(pullback(*self.d))

    def check(self, allowed=None):
        """By the rule of tolerance."""
        output, gradients = self.run(key_mask=allowed)
        first = tuple(gradients[name] for name in ("inputs", "memory", "cells", "state"))
        named = {name: gradients[name] for name in self.named}
        plain.assert_close(
            (output, (*first, named)),
            lambda *nodes: plain.decoder(*nodes, **self.options, allowed=allowed),
            (*self.arrays, self.named),
            self.d,
            self.dtype,
        )
        return output, gradients


def coverages(attention):
    return {"none": (False,), "additive": (False, True, "tanh", "fertility")}.get(
        attention, (False, True, "fertility")
    )


def combinations(attention, order, input_feeding, cells=CELLS, layers=(1, 2)):
    kinds = coverages(attention)
    chosen = [
        *itertools.product(cells, layers, kinds[:2]),
        *itertools.product(cells, [1], kinds[2:]),
    ]
    for cell, count, coverage in chosen:
        yield {
            "attention": attention, "order": order, "input_feeding": input_feeding,
            "cell": cell, "layers": count, "coverage": coverage,
        }  # fmt: skip


# ---- Values and gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("attention", SCORES)
@orders
def test_equal_to_the_layer(attention, order, input_feeding, rng):
    """To the bit: they share everything but the parameters' home."""
    for options in combinations(attention, order, input_feeding):
        problem = Problem(rng, **options)
        inputs, memory, cells, state = problem.arrays
        decoder = attnc.AttentionDecoder(
            inputs.shape[2], SIZES["H"], memory.shape[2], dtype="float64",
            attention_size=SIZES["A"] if attention == "additive" else None, **options,
        )  # fmt: skip
        own = [name for name in decoder.parameters if name.startswith("cells.")]
        values = dict(zip(own, cells, strict=True))
        homes = {name: next(n for n in decoder.parameters if n.split(".")[-1] == name)
                 for name in problem.named}  # fmt: skip
        values |= {homes[name]: array for name, array in problem.named.items()}
        decoder.load_state_dict(decoder.state_dict() | values)
        output, gradients = problem.run(key_lengths=LENGTHS)
        expected, pullback = attnc.vjp(decoder, inputs, memory, state, key_lengths=LENGTHS)
        assert_same(output, tuple(expected))
        right = vars(pullback(*problem.d))
        for name, gradient in right.items():
            assert_same(gradients[name], gradient, name)
        assert_same(gradients["cells"], tuple(decoder.gradients[name] for name in own))
        for name, home in homes.items():
            assert_same(gradients[name], np.asarray(decoder.gradients[home]), name)
        called = attention_decoder(
            *problem.arrays, **problem.named, **problem.options, key_lengths=LENGTHS
        )
        assert_same(tuple(called), output)


@pytest.mark.parametrize("attention", SCORES[:-1])
@orders
def test_as_exact_as_plain_numpy(attention, order, input_feeding, dtype, isa, rng):
    allowed = np.arange(SIZES["Tk"]) < np.array(LENGTHS)[:, None]
    for options in combinations(attention, order, input_feeding, ["gru", "lstm"], (1,)):
        Problem(rng, dtype=dtype, **options).check(allowed)


def torch_bahdanau(torch, inputs, memory, cells, state, p):
    """Bahdanau et al. 2015, with a GRU and the additive score."""
    W, U, b, c = cells
    s, outputs, weights = state[0], [], []
    cell = torch.nn.functional
    for y in inputs.unbind(1):
        hidden = torch.tanh((s @ p["query_weight"])[:, None] + memory @ p["key_weight"])
        w = cell.softmax(hidden @ p["score_vector"], dim=1)
        context = torch.einsum("bk,bkm->bm", w, memory)
        a, u = torch.cat([y, context], 1) @ W + b, s @ U + c
        (r, z, n), (ur, uz, un) = a.chunk(3, 1), u.chunk(3, 1)
        r, z = torch.sigmoid(r + ur), torch.sigmoid(z + uz)
        s = (1 - z) * torch.tanh(n + r * un) + z * s
        outputs.append(s)
        weights.append(w)
    return torch.stack(outputs, 1), torch.stack(weights, 1), s[None]


def torch_luong(torch, inputs, memory, cells, state, p):
    """Luong et al. 2015, with an LSTM, the multiplicative score and input feeding."""
    W, U, b, bias = cells
    h, c, feed = state[0][0], state[1][0], state[2]
    outputs, weights = [], []
    for y in inputs.unbind(1):
        gates = (torch.cat([y, feed], 1) @ W + b + h @ U + bias).chunk(4, 1)
        i, f, g, o = *map(torch.sigmoid, gates[:2]), torch.tanh(gates[2]), torch.sigmoid(gates[3])
        c = f * c + i * g
        h = o * torch.tanh(c)
        scores = torch.einsum("bm,bkm->bk", h @ p["weight"], memory)
        w = torch.nn.functional.softmax(scores, dim=1)
        context = torch.einsum("bk,bkm->bm", w, memory)
        feed = torch.tanh(torch.cat([context, h], 1) @ p["readout_weight"])
        outputs.append(feed)
        weights.append(w)
    return torch.stack(outputs, 1), torch.stack(weights, 1), (h[None], c[None], feed)


@pytest.mark.parametrize("Tk", [6, 270])
@pytest.mark.parametrize(
    "theirs, options",
    [
        (torch_bahdanau, {"attention": "additive"}),
        (
            torch_luong,
            {
                "attention": "multiplicative",
                "order": "luong",
                "input_feeding": True,
                "cell": "lstm",
            },
        ),
    ],
)
def test_equal_to_torch(theirs, options, Tk, rng):
    torch = pytest.importorskip("torch")
    problem = Problem(rng, Tk=Tk, **options)
    output, gradients = problem.run()
    leaves = plain.each(
        (*problem.arrays, problem.named), lambda x: torch.tensor(x, requires_grad=True)
    )
    expected = theirs(torch, *leaves)
    torch.autograd.backward(arrays_of(expected), [torch.tensor(x) for x in arrays_of(problem.d)])
    for got, want in zip(arrays_of(output), arrays_of(expected), strict=True):
        assert_agree(got, want.detach().numpy())
    names = ["inputs", "memory", "cells", "state"]
    right = dict(zip(names, leaves[:4], strict=True)) | leaves[4]
    for name, leaf in right.items():
        for (_, got), (_, want) in zip(
            plain.leaves(gradients[name]), plain.leaves(leaf), strict=True
        ):
            assert_agree(got, want.grad.numpy(), name)


@pytest.mark.parametrize("attention", SCORES)
@orders
def test_central_differences_of_all_parameters(attention, order, input_feeding, rng):
    for options in combinations(attention, order, input_feeding, ["lstm"], (2,)):
        problem = Problem(rng, **options)
        named = tuple(problem.named.values())
        layer = AsLayer(problem.options, list(problem.named))
        _, gradients = check_layer(layer, (*problem.arrays, named), {}, rng)
        assert not named or len(vars(gradients)["named"]) == len(named)


class AsLayer:
    """The function as `check_layer` takes it: without parameters of its own."""

    dtype = np.dtype(np.float64)

    def __init__(self, options, names):
        self.options, self.names = {**options, "key_lengths": LENGTHS}, names
        self.parameters, self.gradients = {}, {}

    def zero_grad(self):
        pass

    def state_dict(self):
        return {}

    def __call__(self, inputs, memory, cells, state, named):
        named = dict(zip(self.names, named, strict=True))
        return attention_decoder(inputs, memory, cells, state, **named, **self.options)

    def _vjp(self, *arrays):
        named = dict(zip(self.names, arrays[4], strict=True))
        output, pullback = attnc.vjp(attention_decoder, *arrays[:4], **named, **self.options)

        def back(*d, **by_name):
            gradients = vars(pullback(*d, **by_name))
            return Gradients(
                {name: gradients[name] for name in ("inputs", "memory", "cells", "state")}
                | {"named": tuple(gradients[name] for name in self.names)}
            )

        return output, back


# ---- Long memories, keys of any size -------------------------------------------------------------


@pytest.mark.parametrize("Tk", [191, 192, 193, 257, 700])
@pytest.mark.parametrize("attention", SCORES[:-1])
def test_long_memories(attention, Tk, dtype, rng):
    """More keys than there are in a tile, some masked."""
    allowed = rng.random((2, Tk)) < 0.8
    for order, input_feeding in ORDERS:
        for coverage in coverages(attention):
            problem = Problem(
                rng, attention, order, input_feeding, coverage=coverage, dtype=dtype, Tk=Tk, B=2,
                T=3, H=17, M=17, A=19,
            )  # fmt: skip
            problem.check(allowed)


@pytest.mark.parametrize("size", [0.01, 1, 5, 30, 100])
@orders
def test_additive_keys_of_any_size(size, order, input_feeding, dtype, isa, rng):
    for coverage in coverages("additive"):
        problem = Problem(
            rng, "additive", order, input_feeding, coverage=coverage, dtype=dtype, key_size=size,
            Tk=40, A=35,
        )  # fmt: skip
        problem.check()


@orders
def test_additive_keys_of_mixed_sizes(order, input_feeding, dtype, isa, rng):
    """Each of the batch picks its own way to compute tanh(q + k)."""
    sizes = {"B": 5, "Tk": 30, "A": 20, "key_size": 5}
    problem = Problem(rng, "additive", order, input_feeding, coverage=True, dtype=dtype, **sizes)
    problem.arrays[1][...] *= np.array([1e-3, 0.01, 0.1, 1, 10], dtype)[:, None, None]
    problem.check()


def test_a_large_decoder_is_as_exact_as_plain_numpy(rng):
    Problem(
        rng, order="luong", input_feeding=True, cell="lstm", dtype=np.float32, B=20, H=260, M=130,
        A=140, Tk=30, E=20,
    ).check()  # fmt: skip


# ---- The same bits -------------------------------------------------------------------------------

LARGE = {"B": 37, "T": 3, "Tk": 40, "E": 9, "H": 45, "M": 38, "A": 50}


@pytest.mark.parametrize("attention", SCORES)
@orders
def test_same_bits_for_any_number_of_threads(attention, order, input_feeding, dtype, isa, rng):
    for options in combinations(attention, order, input_feeding, ["gru", "lstm"], (1,)):
        assert_same_on_threads(Problem(rng, dtype=dtype, **options, **LARGE), rng)


@pytest.mark.parametrize("sizes", [{"B": 3, "Tk": 400, "A": 100}, {"B": 2, "H": 300, "A": 300}])
@orders
def test_same_bits_for_any_number_of_threads_of_few_sequences(order, input_feeding, sizes, rng):
    assert_same_on_threads(
        Problem(rng, "additive", order, input_feeding, dtype=np.float32, **sizes), rng
    )


def assert_same_on_threads(problem, rng):
    B, Tk = problem.arrays[1].shape[:2]
    lengths = rng.integers(0, Tk + 1, B)
    results = []
    for n in (1, 2, 3, 5, 8):
        with attnc.set_num_threads(n):
            results.append(problem.run(key_lengths=lengths))
    for got in results[1:]:
        assert_same(got, results[0])


@pytest.mark.parametrize("attention", SCORES)
@orders
def test_same_bits_alone_and_in_company(attention, order, input_feeding, dtype, isa, rng):
    """A sequence of a batch by itself: its outputs, and the gradients of what is its own."""
    for options in combinations(attention, order, input_feeding, ["lstm"], (2,)):
        problem = Problem(rng, dtype=dtype, **options, B=20, Tk=9)
        inputs, memory, cells, state = problem.arrays
        d = problem.d
        output, gradients = problem.run()

        def own(state, b, n=2 if problem.options["cell"] == "lstm" else 1):
            return tuple(x[:, b : b + 1] if k < n else x[b : b + 1] for k, x in enumerate(state))

        for b in (0, 17):
            problem.arrays = inputs[b : b + 1], memory[b : b + 1], cells, own(state, b)
            problem.d = d[0][b : b + 1], d[1][b : b + 1], own(d[2], b)
            alone, alone_gradients = problem.run()
            assert_same(alone[:2], (output[0][b : b + 1], output[1][b : b + 1]))
            assert_same(alone[2], own(output[2], b))
            for name in ("inputs", "memory"):
                assert_same(alone_gradients[name], gradients[name][b : b + 1], name)
            assert_same(alone_gradients["state"], own(gradients["state"], b))


@orders
def test_same_bits_from_concurrent_callers(order, input_feeding, rng):
    problem = Problem(rng, "additive", order, input_feeding, dtype=np.float32, **LARGE)
    expected = problem.run()
    with attnc.set_num_threads(3), ThreadPoolExecutor(6) as callers:
        for call in [callers.submit(problem.run) for _ in range(12)]:
            assert_same(call.result(), expected)


@orders
def test_same_bits_from_one_pullback_in_several_threads(order, input_feeding, rng):
    problem = Problem(rng, "additive", order, input_feeding, dtype=np.float32, **LARGE)
    _, pullback = attnc.vjp(attention_decoder, *problem.arrays, **problem.named, **problem.options)
    doutputs = [k * problem.d[0] for k in range(1, 9)]
    expected = [vars(pullback(d)) for d in doutputs]
    with ThreadPoolExecutor(8) as callers:
        for _ in range(3):
            assert_same([vars(g) for g in callers.map(pullback, doutputs)], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("attention", SCORES)
@orders
def test_layouts(attention, layout, order, input_feeding, dtype, rng):
    coverage = attention != "none"
    problem = Problem(rng, attention, order, input_feeding, coverage=coverage, dtype=dtype)
    mask = rng.random((SIZES["B"], SIZES["Tk"])) < 0.8
    parts = problem.arrays, problem.named, problem.d, mask
    laid = plain.each(parts, lambda x: lay_out(layout, x))
    problem.arrays, problem.named, problem.d, mask = laid
    with assert_unchanged(laid):
        got = problem.run(key_mask=mask)
    problem.arrays, problem.named, problem.d, mask = plain.each(
        laid, lambda x: np.array(x, x.dtype.newbyteorder("="), order="C")
    )
    assert_same(got, problem.run(key_mask=mask))
    for _, x in (*plain.leaves(got[0]), *plain.leaves(got[1])):
        assert x.dtype == dtype and x.dtype.isnative


@pytest.mark.parametrize("attention", SCORES)
@orders
@pytest.mark.parametrize("sizes", [{}, {"B": 1}, {"T": 1}, {"B": 1, "T": 1}, {"B": 1, "Tk": 1}])
def test_results_are_fresh(attention, order, input_feeding, sizes, rng):
    """Nobody's memory but the caller's: what is done to them reaches no pullback."""
    for options in combinations(attention, order, input_feeding, ["lstm"], (1,)):
        problem = Problem(rng, **options, **sizes)
        output, pullback = attnc.vjp(
            attention_decoder, *problem.arrays, **problem.named, **problem.options
        )
        gradients = vars(pullback(*problem.d))
        results = [x for _, x in (*plain.leaves(tuple(output)), *plain.leaves(gradients))]
        given = [x for _, x in plain.leaves((problem.arrays, problem.named, problem.d))]
        for k, x in enumerate(results):
            assert not any(np.shares_memory(x, y) for y in (*given, *results[:k]))
        expected = plain.each(gradients, np.copy)
        for x in results:
            x[...] = np.nan
        assert_same(vars(pullback(*problem.d)), expected)


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", SCORES)
@orders
def test_float16_is_computed_in_float32(attention, order, input_feeding, rng):
    problem = Problem(rng, attention, order, input_feeding, dtype=np.float16)
    single = [
        plain.each(x, lambda x: x.astype(np.float32)) for x in (problem.arrays, problem.named)
    ]
    problem.d = plain.each(problem.d, lambda x: x.astype(np.float32))
    output, gradients = problem.run()
    problem.arrays, problem.named = single
    expected, right = problem.run()
    assert_same(output, expected)
    assert_same(gradients, plain.each(right, lambda x: x.astype(np.float16)))


@orders
def test_one_float64_makes_all_float64(order, input_feeding, rng):
    """A state alone does not: it is converted. Gradients have the dtype of their argument."""
    problem = Problem(rng, "additive", order, input_feeding, coverage=True, dtype=np.float32)
    arrays, named = problem.arrays, problem.named
    problem.arrays, problem.named = plain.each((arrays, named), lambda x: x.astype(np.float64))
    expected, right = problem.run()
    for wide in ("inputs", "memory", "cells", *named):
        problem.arrays, problem.named = list(arrays), dict(named)
        for place, key in ((problem.named, wide), (problem.arrays, NAMES.get(wide))):
            if key is not None and (key in place if isinstance(place, dict) else True):
                place[key] = plain.each(place[key], lambda x: x.astype(np.float64))
        output, gradients = problem.run()
        assert_same(output, expected)
        given = dict(zip(NAMES, problem.arrays, strict=True)) | problem.named
        for name, array in given.items():
            for (_, got), (_, want), (_, x) in zip(
                *map(plain.leaves, (gradients[name], right[name], array)), strict=True
            ):
                assert_same(got, want.astype(x.dtype), name)


NAMES = {"inputs": 0, "memory": 1, "cells": 2, "state": 3}


def test_integers_are_float64(rng):
    problem = Problem(rng, "multiplicative", "luong", True)
    parts = problem.arrays, problem.named
    rounded = plain.each(parts, np.round)
    problem.arrays, problem.named = rounded
    expected = problem.run()
    problem.arrays, problem.named = plain.each(rounded, lambda x: x.astype(np.int64))
    assert_same(problem.run(), expected)


# ---- Masks, nothing to do ------------------------------------------------------------------------


@pytest.mark.parametrize("Tk", [6, 300])
@pytest.mark.parametrize("attention", SCORES)
@orders
def test_what_is_masked_is_not_read(attention, order, input_feeding, Tk, isa, rng):
    for options in combinations(attention, order, input_feeding, ["gru"], (1,)):
        problem = Problem(rng, dtype=np.float32, Tk=Tk, **options)
        mask = rng.random((3, Tk)) < 0.7
        masks = {"key_mask": mask, "key_lengths": [Tk, 0, Tk // 2]}
        masked = ~mask | (np.arange(Tk) >= np.array(masks["key_lengths"])[:, None])
        problem.arrays[1][masked] = 0
        expected = problem.run(**masks)
        problem.arrays[1][masked] = np.nan
        problem.d[1].swapaxes(1, 2)[masked] = np.inf
        got = problem.run(**masks)
        assert_same(got, expected)
        (_, weights, _), gradients = got
        assert not weights.swapaxes(1, 2)[masked].any()
        assert not gradients["memory"][masked].any()
        assert all(np.isfinite(x).all() for _, x in plain.leaves(gradients))


@pytest.mark.parametrize("attention", SCORES)
@orders
def test_a_nan_stays_in_its_sequence(attention, order, input_feeding, dtype, isa, rng):
    problem = Problem(rng, attention, order, input_feeding, dtype=dtype, B=5)
    expected = attention_decoder(*problem.arrays, **problem.named, **problem.options)
    problem.arrays[1][2, -1] = np.nan
    output = attention_decoder(*problem.arrays, **problem.named, **problem.options)
    others = [0, 1, 3, 4]
    assert_same(output.outputs[others], expected.outputs[others])
    assert_same(output.weights[others], expected.weights[others])
    assert np.isnan(output.outputs[2, -1]).all()


@pytest.mark.parametrize("attention", SCORES)
@orders
@pytest.mark.parametrize("sizes", [{"B": 0}, {"T": 0}, {"Tk": 0}, {"B": 0, "T": 0, "Tk": 0}])
def test_nothing_to_do(attention, order, input_feeding, sizes, rng):
    for options in combinations(attention, order, input_feeding):
        problem = Problem(rng, **options, **sizes)
        (outputs, weights, state), gradients = problem.run()
        assert outputs.shape == problem.d[0].shape and weights.shape == problem.d[1].shape
        given = dict(zip(NAMES, problem.arrays, strict=True)) | problem.named
        for name, array in given.items():
            shapes = [[x.shape for _, x in plain.leaves(y)] for y in (gradients[name], array)]
            assert shapes[0] == shapes[1], name
        if "Tk" not in sizes or len(sizes) == 3:
            assert_same(state, problem.arrays[3])
            assert_same(gradients["state"], problem.d[2])
            assert not any(g.any() for g in gradients["cells"])


@pytest.mark.parametrize("attention", SCORES[:-1])
@orders
def test_no_memory_is_a_context_of_zeros(attention, order, input_feeding, rng):
    problem = Problem(rng, attention, order, input_feeding)
    inputs, memory, cells, state = problem.arrays
    everything = {**problem.named, **problem.options}
    masked = attention_decoder(*problem.arrays, **everything, key_lengths=0)
    assert not masked.weights.any()
    none = attention_decoder(inputs, memory[:, :0], cells, state, **everything)
    assert_same((none.outputs, none.state), (masked.outputs, masked.state))


@pytest.mark.parametrize("attention", SCORES)
@orders
@pytest.mark.parametrize(
    "sizes", [{"M": 0}, {"A": 0}, dict.fromkeys("BTEHMA", 1), dict.fromkeys("EHMA", 1)]
)
def test_sizes_of_nothing_and_of_one(attention, order, input_feeding, sizes, rng):
    if attention in ("dot", "cosine") and "H" not in sizes:
        pytest.skip("their memory has the size of the state")
    for options in combinations(attention, order, input_feeding, layers=(1,)):
        problem = Problem(rng, **options, **sizes)
        if attention == "none":
            problem.run()
        else:
            problem.check()


def test_without_the_previous_word(rng):
    for order, input_feeding in (ORDERS[0], ORDERS[2]):
        problem = Problem(rng, "additive", order, input_feeding, E=0)
        assert problem.check()[1]["inputs"].shape == (3, 4, 0)


# ---- Steps, coverage -----------------------------------------------------------------------------


@pytest.mark.parametrize("attention", SCORES[:-1])
@orders
def test_steps_are_as_exact_as_plain_numpy(attention, order, input_feeding, isa, rng):
    """A loop over step(), in float32."""
    for options in combinations(attention, order, input_feeding, ["gru", "lstm"], (1,)):
        problem = Problem(rng, dtype=np.float32, **options)
        inputs, memory, cells, state = problem.arrays
        decoder = attnc.AttentionDecoder(
            inputs.shape[2], SIZES["H"], memory.shape[2],
            attention_size=SIZES["A"] if attention == "additive" else None, **options,
        )  # fmt: skip
        randomize(decoder, rng, 0)
        values = dict(zip([n for n in decoder.parameters if "cells." in n], cells, strict=True))
        for name in decoder.parameters:
            if name.split(".")[-1] in problem.named:
                values[name] = problem.named[name.split(".")[-1]]
        decoder.load_state_dict(decoder.state_dict() | values)
        prepared, outputs, weights = decoder.prepare(memory), [], []
        for t in range(inputs.shape[1]):
            output, attended, state = decoder.step(inputs[:, t], prepared, state)
            outputs.append(output)
            weights.append(attended)
        got = np.stack(outputs, 1), np.stack(weights, 1), state
        naive, exact = (
            plain.evaluate(
                lambda *nodes, o=problem.options: plain.decoder(*nodes, **o),
                (*problem.arrays, problem.named), problem.d, dtype,
            )[0]
            for dtype in (np.float32, np.float64)
        )  # fmt: skip
        for x, y, z in zip(*map(arrays_of, (got, naive, exact)), strict=True):
            assert_close_like_naive(x, z, y)


@orders
def test_a_sequence_in_two_halves(order, input_feeding, rng):
    """The state that a call returns is all that the next one needs."""
    for coverage in coverages("additive"):
        problem = Problem(rng, "additive", order, input_feeding, "lstm", coverage, layers=2)
        inputs, memory, cells, state = problem.arrays
        options = {**problem.named, **problem.options, "key_lengths": LENGTHS}
        whole = attention_decoder(inputs, memory, cells, state, **options)
        first = attention_decoder(inputs[:, :2], memory, cells, state, **options)
        second = attention_decoder(inputs[:, 2:], memory, cells, first.state, **options)
        assert_agree(np.concatenate([first.outputs, second.outputs], 1), whole.outputs)
        assert_agree(np.concatenate([first.weights, second.weights], 1), whole.weights)
        for got, want in zip(second.state, whole.state, strict=True):
            assert_agree(got, want)


@pytest.mark.parametrize("attention", SCORES[:-1])
@orders
def test_coverage_is_the_sum_of_the_weights(attention, order, input_feeding, rng):
    problem = Problem(rng, attention, order, input_feeding, coverage=True)
    inputs, memory, cells, state = problem.arrays
    options = {**problem.named, **problem.options}
    output = attention_decoder(*problem.arrays, **options)
    assert_agree(output.state[-1], state[-1] + output.weights.sum(axis=1))
    without = attention_decoder(inputs, memory, cells, state[:-1], **options)
    zeros = attention_decoder(
        inputs, memory, cells, (*state[:-1], np.zeros_like(state[-1])), **options
    )
    assert_same(tuple(without), tuple(zeros))


@pytest.mark.parametrize("attention", SCORES[:-1])
@orders
def test_a_coverage_of_weight_zero_changes_nothing(attention, order, input_feeding, rng):
    problem = Problem(rng, attention, order, input_feeding, coverage=True)
    inputs, memory, cells, state = problem.arrays
    options = {**problem.named, **problem.options}
    got = attention_decoder(*problem.arrays, **{**options, "coverage_weight": 0.0})
    del options["coverage_weight"]
    rest = state[:-1] if len(state) > 2 else state[0]
    plainly = attention_decoder(inputs, memory, cells, rest, **options)
    assert_agree(got.outputs, plainly.outputs)
    assert_agree(got.weights, plainly.weights)


# ---- Errors --------------------------------------------------------------------------------------

INPUTS, MEMORY = np.ones((3, 4, 2)), np.ones((3, 6, 5))
CELL = [np.ones((2 + 5, 21)), np.ones((7, 21)), np.ones(21), np.ones(21)]
ADDITIVE = {
    "query_weight": np.ones((7, 9)),
    "key_weight": np.ones((5, 9)),
    "score_vector": np.ones(9),
}
ERRORS = {
    "cell": (
        {"cell": "GRU"},
        ValueError,
        "cell must be one of 'rnn', 'gru', 'lstm', got 'GRU'",
    ),
    "attention": (
        {"attention": "general"},
        ValueError,
        "attention must be one of 'additive', 'multiplicative', 'dot', 'cosine', 'none', "
        "got 'general'",
    ),
    "order": (
        {"order": "Luong"},
        ValueError,
        "order must be one of 'bahdanau', 'luong', got 'Luong'",
    ),
    "feeding": (
        {"input_feeding": True},
        ValueError,
        "input_feeding must be False for order='bahdanau', got True (its context is fed to the "
        "cell already)",
    ),
    "inputs": (
        {"inputs": INPUTS[0]},
        ValueError,
        "inputs must have shape (B, T, input_size), got (4, 2)",
    ),
    "memory": (
        {"memory": MEMORY[0]},
        ValueError,
        "memory must have shape (B, Tk, memory_size), got (6, 5)",
    ),
    "batch": (
        {"memory": MEMORY[:1]},
        ValueError,
        "memory must have the batch of inputs, 3, got shape (1, 6, 5)",
    ),
    "no cells": (
        {"cells": []},
        ValueError,
        "cells must hold input_weight, state_weight, input_bias, state_bias of every layer, got 0 "
        "arrays",
    ),
    "three arrays": ({"cells": CELL[:3]}, ValueError, "cells must hold "),
    "units": (
        {"cells": [CELL[0], np.ones((0, 21)), *CELL[2:]]},
        ValueError,
        "cells[1], state_weight, must have shape (H, 3 * H) with H at least 1, got (0, 21)",
    ),
    "fed": (
        {"cells": [np.ones((2, 21)), *CELL[1:]]},
        ValueError,
        "cells[0], input_weight, must have shape (7, 21), got (2, 21)",
    ),
    "bias": (
        {"cells": [*CELL[:3], np.ones(7)]},
        ValueError,
        "cells[3], state_bias, must have shape (21,), got (7,)",
    ),
    "second layer": (
        {"cells": [*CELL, np.ones((5, 21)), *CELL[1:]]},
        ValueError,
        "cells[4], input_weight, must have shape (7, 21), got (5, 21)",
    ),
    "missing": (
        {"score_vector": None},
        ValueError,
        "score_vector must be given for attention='additive' and order='bahdanau'",
    ),
    "too many": (
        {"weight": np.ones((7, 5))},
        ValueError,
        "weight must not be given for attention='additive' and order='bahdanau'",
    ),
    "readout missing": (
        {"order": "luong", "cells": [np.ones((2, 21)), *CELL[1:]]},
        ValueError,
        "readout_weight must be given for attention='additive' and order='luong'",
    ),
    "parameter": (
        {"key_weight": np.ones((7, 9))},
        ValueError,
        "key_weight must have shape (5, 9), got (7, 9)",
    ),
    "vector": (
        {"score_vector": np.ones((9, 1))},
        ValueError,
        "query_weight must have shape (7, 'A'), got (7, 9)",
    ),
    "dtype": ({"memory": MEMORY > 0}, TypeError, "memory must be real, got bool"),
    "dtype of a cell": (
        {"cells": [*CELL[:3], np.ones(21, complex)]},
        TypeError,
        "cells[3] must be real, got complex128",
    ),
    "state": (
        {"state": np.ones((3, 7))},
        ValueError,
        "state must have shape (1, 3, 7), got (3, 7)",
    ),
    "state of too many": (
        {"state": (np.ones((1, 3, 7)), np.ones((1, 3, 7)))},
        ValueError,
        "state must have shape (1, 3, 7), got (2, 1, 3, 7)",
    ),
    "state of an LSTM": (
        {"cell": "lstm", "cells": [np.ones((7, 28)), np.ones((7, 28)), *np.ones((2, 28))],
         "state": np.ones((1, 3, 7))},
        TypeError,
        "state must be a tuple (h, c), got an array (1, 3, 7)",
    ),
    "key_mask": (
        {"key_mask": np.ones((3, 6))},
        TypeError,
        "key_mask must be boolean (True: may be attended to), got dtype float64; "
        "write key_mask.astype(bool)",
    ),
    "key_mask shape": (
        {"key_mask": np.ones((3, 4), bool)},
        ValueError,
        "key_mask must have 2 axes (B, Tk) = (3, 6), each of that size or 1, got (3, 4)",
    ),
    "key_lengths": ({"key_lengths": [7, 1, 1]}, ValueError, "key_lengths must lie in 0..6, got 1"),
    "key_lengths dtype": (
        {"key_lengths": [1.0, 1.0, 1.0]},
        TypeError,
        "key_lengths must be integers, got float64",
    ),
    "coverage": (
        {"coverage_weight": np.ones(2)},
        ValueError,
        "coverage_weight must have shape (), got (2,)",
    ),
    "dot": (
        {"attention": "dot", **dict.fromkeys(ADDITIVE)},
        ValueError,
        "memory must have the 7 features of the state for attention='dot', got shape (3, 6, 5)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    arguments, error, message = ERRORS[name]
    good = {"inputs": INPUTS, "memory": MEMORY, "cells": CELL, **ADDITIVE}
    assert attention_decoder(**good).outputs.shape == (3, 4, 7)
    with pytest.raises(error) as caught:
        attention_decoder(**{**good, **arguments})
    assert str(caught.value).startswith(f"attention_decoder: {message}")


def test_errors_of_pullbacks():
    _, pullback = attnc.vjp(attention_decoder, INPUTS, MEMORY, CELL, **ADDITIVE)
    for name, array, message in (
        ("doutputs", np.ones((3, 7)), r"doutputs must have shape \(3, 4, 7\), got \(3, 7\)"),
        ("dweights", np.ones((3, 4, 7)), r"dweights must have shape \(3, 4, 6\), got \(3, 4, 7\)"),
        ("dstate", np.ones((3, 7)), r"dstate must have shape \(1, 3, 7\), got \(3, 7\)"),
    ):
        with pytest.raises(ValueError, match=f"attention_decoder: {message}"):
            pullback(**{name: array})
    with pytest.raises(TypeError, match="attention_decoder: doutputs must be real, got complex128"):
        pullback(np.ones((3, 4, 7), complex))


def test_vjp_refuses_what_the_function_refuses():
    with pytest.raises(TypeError, match="key_size"):
        attnc.vjp(attention_decoder, INPUTS, MEMORY, CELL, **ADDITIVE, key_size=1)
    assert "key_size" not in inspect.signature(attention_decoder).parameters


def test_what_is_refused_without_arrays(rng):
    shapes = [(3 + 5, 12), (4, 12), (12,), (12,)]
    cells = [rng.standard_normal(shape) for shape in shapes]
    inputs, memory = rng.standard_normal((2, 3, 3)), rng.standard_normal((2, 6, 5))
    options = {"attention": "multiplicative", "weight": rng.standard_normal((4, 5))}
    function = attnc.functional.attention_decoder
    _, pullback = attnc.vjp(function, inputs, memory, cells, **options)
    for nothing in ((), (None, None, None), (None, None, (None,))):
        with pytest.raises(TypeError, match="^attention_decoder: pullback must get doutputs or"):
            pullback(*nothing)
    with pytest.raises(TypeError, match="input_feeding must be True or False, got 1"):
        function(inputs, memory, cells, input_feeding=1, **options)
    with pytest.raises(TypeError, match="attention_decoder: cells must be a sequence of arrays"):
        function(inputs, memory, 3, **options)
    with pytest.raises(TypeError, match="attention_decoder: order must be one of"):
        function(inputs, memory, cells, order=None, **options)
    masked = np.ma.ones((2, 6), bool)
    for name, value in (("key_mask", masked), ("key_lengths", np.ma.array([1, 2]))):
        with pytest.raises(TypeError, match=f"attention_decoder: {name} must be a plain array"):
            function(inputs, memory, cells, **options, **{name: value})


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_cosine_of_a_memory_of_any_size(size, rng):
    """Its squares are beyond the range; the cosines are those of the memory as it was."""
    arrays, options = (
        rng.standard_normal((2, 3, 4)),
        {"attention": "cosine", "scale": np.array(3.0)},
    )
    memory = rng.standard_normal((2, 5, 8))
    cells = [0.1 * rng.standard_normal(shape) for shape in [(12, 24), (8, 24), (24,), (24,)]]
    cells[0][4:] = 0  # contexts of that size are not fed
    state = rng.standard_normal((1, 2, 8))
    expected = attention_decoder(arrays, memory, cells, state, **options).weights
    assert np.ptp(expected) > 0.01
    assert_agree(
        attention_decoder(arrays, memory * size, cells, state, **options).weights, expected
    )


def test_nan_in_a_memory_reaches_who_attends_to_it(rng):
    memory = rng.standard_normal((2, 5, 8))
    memory[0, 2, 1] = np.nan
    cells = [0.1 * rng.standard_normal(shape) for shape in [(12, 24), (8, 24), (24,), (24,)]]
    arrays, options = (
        rng.standard_normal((2, 3, 4)),
        {"attention": "cosine", "scale": np.array(3.0)},
    )
    outputs, weights, _ = attention_decoder(arrays, memory, cells, rng.random((1, 2, 8)), **options)
    assert np.isnan(weights[0]).all() and not np.isnan(weights[1]).any()

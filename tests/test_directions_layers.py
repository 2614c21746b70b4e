"""`attnc.jvp` and `attnc.hvp` of every layer: against central differences, and what they refuse."""

import copy
import functools
import inspect
import os
import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
from checks import assert_agree, assert_same, assert_unchanged
from layer_calls import CASES, F64, Case, draw
from layer_checks import arrays_of, like_random

import attnc
from attnc import layers
from attnc.gradients import Gradients
from attnc.layers import Layer
from attnc.layers.base import caught_gradients
from attnc.mode import mode

EACH = [(name, case) for name, cases in CASES.items() for case in cases]


def test_every_layer_has_a_case():
    public = {name: getattr(m, name) for m in (layers, attnc.estimators) for name in m.__all__}
    found = {n for n, x in public.items() if inspect.isclass(x) and issubclass(x, Layer)}
    assert found - {"Layer"} == set(CASES)


# ---- against differences -------------------------------------------------------------------------


def is_real(x):
    return x is not None and np.asarray(x).dtype.kind == "f"


def real(output):
    return [np.asarray(x) for x in arrays_of(output) if is_real(x)]


STEP = 2.5e-4


def assert_derivative(tangents, values, case):
    """Tangents are the derivatives of ``values(step)``, arrays, at 0.

    Richardson's extrapolation of central differences with steps h and h / 2 errs by h^4 / 480 times
    a fifth derivative, and by roundings of the values through h. With 2 h and h it errs by 16 times
    as much: what the two differ by bounds the first, and the roundings come on top.
    """

    def extrapolated(h):
        whole, half = (
            [(x - y) / (2 * s) for x, y in zip(values(s), values(-s), strict=True)]
            for s in (h, h / 2)
        )
        return [(4 * x - y) / 3 for x, y in zip(half, whole, strict=True)]

    found = zip(tangents, extrapolated(STEP), extrapolated(2 * STEP), values(0), strict=True)
    for tangent, fine, coarse, value in found:
        assert tangent.shape == fine.shape
        roundings = 200 * np.finfo(float).eps * np.abs(value).max(initial=1) / STEP
        allowed = np.abs(fine - coarse).max(initial=0) + roundings
        assert allowed < 1e-6 * (1 + np.abs(fine).max(initial=0)), (case, "no measure", allowed)
        assert (np.abs(tangent - fine) <= allowed).all(), (case, tangent, fine)


@pytest.mark.parametrize("name, case", EACH)
def test_jvp(name, case):
    one = Case(name, case)
    with assert_unchanged(one.arrays, one.options, one.layer.state_dict()):
        output, tangent = attnc.jvp(one.layer, one.arrays, one.tangents, **one.options)
    assert_same(output, one.layer(*one.arrays, **one.options))
    assert type(output) is type(tangent)
    for x, t in zip(arrays_of(output), arrays_of(tangent), strict=True):
        assert (type(t), t.dtype) == (type(x), x.dtype) if is_real(x) else t is None

    def values(step):
        layer, arrays, options = one.at(step)
        return real(layer(*arrays, **options))

    assert_derivative(real(tangent), values, (name, case))


def incoming(case):
    """Random incoming gradients of all real outputs, as hvp takes them."""
    output = case.layer(*case.arrays, **case.options)
    if not isinstance(output, tuple):
        return 1.5 if isinstance(output, float) else like_random(case.rng, output)
    named = zip(output._fields, output, strict=True)
    return {
        "d" + field: 1.5 if isinstance(x, float) else like_random(case.rng, x)
        for field, x in named
        if is_real(arrays_of(x)[0])
    }


def gradients(layer, arrays, options, d):
    """All gradients of a call by name, those of the parameters that learn among them."""
    _, pullback = attnc.vjp(layer, *arrays, **options)
    layer.zero_grad()
    found = vars(pullback(**d) if isinstance(d, dict) else pullback(d))
    learned = {n: g.copy() for n, g in layer.gradients.items() if n not in layer.frozen_parameters}
    return found | learned


@pytest.mark.parametrize("name, case", EACH)
def test_hvp(name, case):
    one = Case(name, case)
    d = incoming(one)
    with assert_unchanged(one.arrays, one.options, one.layer.state_dict()):
        found = attnc.hvp(one.layer, one.arrays, one.tangents, d, **one.options)
    assert not any(gradient.any() for gradient in one.layer.gradients.values())
    expected = gradients(one.layer, one.arrays, one.options, d)
    assert list(vars(found)) == list(expected)
    for name_of, gradient in expected.items():
        dtypes = [x.dtype for x in real(gradient)]
        assert [x.dtype for x in real(found[name_of])] == dtypes

    def values(step):
        layer, arrays, options = one.at(step)
        return [x for g in gradients(layer, arrays, options, d).values() for x in real(g)]

    assert_derivative([x for t in vars(found).values() for x in real(t)], values, (name, case))


@pytest.mark.parametrize("name, case", EACH)
def test_directions_add_up(name, case):
    """What is 0 is no less in the way where it is not given than where it is."""
    one = Case(name, case)
    _, expected = attnc.jvp(one.layer, one.arrays, one.tangents, **one.options)
    total = None
    for argument, tangent in one.tangents.items():
        _, part = attnc.jvp(one.layer, one.arrays, {argument: tangent}, **one.options)
        parts = real(part)
        total = parts if total is None else [x + y for x, y in zip(total, parts, strict=True)]
    for x, y in zip(total or [], real(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11)
    zeros = attnc.jvp(one.layer, one.arrays, [None] * len(one.arrays), **one.options)[1]
    assert not any(x.any() for x in real(zeros))


def differences(layer, arrays, tangents, at, **options):
    """The derivative of what ``at(layer, arrays)`` returns in the direction of inputs."""
    near = [
        at(layer, [x if t is None else x + h * t for x, t in zip(arrays, tangents, strict=True)])
        for h in (-1e-5, 1e-5)
    ]
    return (near[1] - near[0]) / 2e-5


def test_energies_of_zero():
    """Where the sigmoid changes its form, it has one slope."""
    layer = attnc.MonotonicAttention(4, 4, score="dot", offset=0.0, **F64)
    arrays = [np.zeros((1, 2, 4)), draw(1, 3, 4), draw(1, 3, 2)]
    tangents = [draw(1, 2, 4), None, None]
    _, found = attnc.jvp(layer, arrays, tangents)
    expected = differences(layer, arrays, tangents, lambda f, x: f(*x).context)
    np.testing.assert_allclose(found.context, expected, atol=1e-9)
    second = attnc.hvp(layer, arrays, tangents, np.ones((1, 2, 2)))

    def dkey(layer, arrays):
        return attnc.vjp(layer, *arrays)[1](np.ones((1, 2, 2))).key

    np.testing.assert_allclose(second.key, differences(layer, arrays, tangents, dkey), atol=1e-9)


def test_a_gradient_of_zero_that_moves():
    """The places of local attention get 0 where values are 0; but not if these move."""
    layer = attnc.LocalAttention(4, 4, width=2, rng=0, **F64)
    arrays = [draw(2, 3, 4), draw(2, 5, 4), np.zeros((2, 5, 3))]
    tangents, d = [None, None, draw(2, 5, 3)], draw(2, 3, 3)
    found = attnc.hvp(layer, arrays, tangents, d)

    def dposition(layer, arrays):
        return gradients(layer, arrays, {}, d)["position_weight"]

    expected = differences(layer, arrays, tangents, dposition)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found["position_weight"], expected, atol=1e-9)


# ---- how they are called -------------------------------------------------------------------------


def test_tangents_by_order_and_by_name_are_the_same():
    layer, x, u = attnc.GRU(4, 3, rng=0, **F64), draw(2, 5, 4), draw(5, 2, 4).swapaxes(0, 1)
    state, moved = draw(1, 2, 3), draw(1, 3, 2).swapaxes(1, 2)
    first = attnc.jvp(layer, [x, state, [5, 3]], [u, moved, None])
    assert_same(first, attnc.jvp(layer, [x], {"state": moved, "x": u}, state=state, lengths=[5, 3]))
    d = draw(2, 5, 3)
    first = attnc.hvp(layer, (x, state, [5, 3]), (u, moved, None), d)
    second = attnc.hvp(
        layer, [x], {"state": moved, "x": u}, {"doutputs": d}, state=state, lengths=[5, 3]
    )
    assert_same(vars(first), vars(second))
    assert first.x is first[0] and len(first) == 1
    assert_same(
        vars(attnc.hvp(layer, (x, state, [5, 3]), (u, moved, None), (d, None))), vars(first)
    )


def test_a_state_with_parts_left_out():
    layer, x = attnc.LSTM(4, 3, rng=0, **F64), draw(2, 5, 4)
    h, zeros = draw(1, 2, 3), np.zeros((1, 2, 3))
    by_none = attnc.jvp(layer, [x, (h, h)], {"state": (h, None)})
    assert_same(by_none, attnc.jvp(layer, [x, (h, h)], [None, (h, zeros)]))
    assert type(by_none[1].state) is tuple


def test_parameters_alone():
    layer, x = attnc.Linear(4, 3, rng=0, **F64), draw(2, 4)
    u = draw(4, 3)
    _, tangent = attnc.jvp(layer, [x], {"weight": u})
    assert_agree(tangent, x @ u)
    found = attnc.hvp(layer, [x], {"weight": u}, np.ones((2, 3)))
    assert_agree(found.x, np.ones((2, 3)) @ u.T)
    assert not found["weight"].any() and not found["bias"].any()


def test_lists_floats_and_layouts():
    layer, x, u = attnc.Linear(4, 3, rng=0), draw(2, 4), draw(4, 2).T
    y, tangent = attnc.jvp(layer, [x.tolist()], [u.tolist()])
    assert y.dtype == tangent.dtype == np.float32
    assert_same((y, tangent), attnc.jvp(layer, [x], [u]))
    assert_same((y, tangent), attnc.jvp(layer, [x.astype(">f8")], [np.repeat(u, 2, 1)[:, ::2]]))
    found = attnc.hvp(layer, [x], [u], np.ones((2, 3)))
    assert found.x.dtype == np.float64 and found["weight"].dtype == np.float32
    assert all(t.flags.c_contiguous and t.flags.writeable for t in vars(found).values())
    _, tangent = attnc.jvp(layer, [[[1, 2, 3, 4]]], {"bias": np.ones(3)})
    assert tangent.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("name, case", [("Transformer", "logits"), ("HardAttention", "drawn")])
def test_a_generator_is_drawn_from_once(name, case):
    one = Case(name, case)
    rng, plain, second = (np.random.default_rng(5) for _ in range(3))
    options = one.options | {"rng": rng}
    output, tangent = attnc.jvp(one.layer, one.arrays, one.tangents, **options)
    again = attnc.jvp(one.layer, one.arrays, one.tangents, **one.options)
    assert_same((output, tangent), again)
    assert_same(output, one.layer(*one.arrays, **one.options | {"rng": plain}))
    assert rng.random() == plain.random()
    d = incoming(one)
    found = attnc.hvp(one.layer, one.arrays, one.tangents, d, **one.options | {"rng": second})
    same = attnc.hvp(one.layer, one.arrays, one.tangents, d, **one.options)
    assert_same(vars(found), vars(same))
    assert second.random() != rng.random()  # rng is one further


def test_dropout_without_rng_drops_the_same_on_the_way_back():
    """The value is 1 and moves by 1: a weight that is kept is in the context and in its tangent;
    and so it is in the gradient of the value, which moves with the scores."""
    layer, eye = attnc.DotProductAttention(dropout=0.5, **F64), np.eye(6)
    context, tangent = attnc.jvp(layer, [eye, eye, eye], [None, None, eye], train=True)
    assert_same(context != 0, tangent != 0)
    assert 0 < np.count_nonzero(context) < 36

    class Kept(Layer):
        def _vjp(self, query):
            output, back = attnc.vjp(layer, query, eye, eye, train=True)

            def pullback(dcontext=None):
                value = back(dcontext).value
                assert_same((value.value != 0).T, output.value != 0)
                assert_same((value.tangent != 0).T, output.value != 0)
                return Gradients({"query": value})

            return output, pullback

    attnc.hvp(Kept("float64"), [eye], [draw(6, 6)], eye)


def test_a_loss_needs_no_incoming_gradient():
    one = Case("LanguageModel", "loss")
    loss, tangent = attnc.jvp(one.layer, one.arrays, one.tangents, **one.options)
    assert type(loss) is type(tangent) is np.float64
    alone = attnc.hvp(one.layer, one.arrays, one.tangents, **one.options)
    given = attnc.hvp(one.layer, one.arrays, one.tangents, 1.0, **one.options)
    assert_same(vars(alone), vars(given))
    assert len(alone) == 0 and "blocks" not in vars(alone)


def test_tied_parameters_stay_tied():
    one = Case("Sequential", "tied")
    u = one.tangents["layers.0.weight"]
    other = {n: t for n, t in one.tangents.items() if n != "layers.0.weight"}
    other["layers.1.weight"] = u.T
    first = attnc.jvp(one.layer, one.arrays, one.tangents)
    assert_same(first, attnc.jvp(one.layer, one.arrays, other))
    found = attnc.hvp(one.layer, one.arrays, other, draw(2, 5, 4))
    assert_same(found["layers.0.weight"], found["layers.1.weight"].T)
    assert found["layers.0.weight"].any()
    assert_same(first, attnc.jvp(one.layer, one.arrays, other | {"layers.0.weight": u}))
    with pytest.raises(
        ValueError, match=r"tangents of layers\.1\.weight and layers\.0\.weight must"
    ):
        attnc.jvp(one.layer, one.arrays, other | {"layers.0.weight": 2 * u})


def test_ties_by_memory_alone():
    """As parameters are in a module of PyTorch: arrays of their own on memory of others."""
    one = Case("Sequential", "tied")
    expected = [
        attnc.jvp(one.layer, one.arrays, one.tangents),
        vars(attnc.hvp(one.layer, one.arrays, one.tangents, draw(2, 5, 4))),
    ]
    first, second = one.layer.layers
    memory = first.parameters["weight"].flatten()
    first._parameters["weight"] = memory.reshape(4, 3)
    second._parameters["weight"] = memory.reshape(4, 3).T
    second._gradients["weight"] = np.zeros((3, 4))
    assert_same(attnc.jvp(one.layer, one.arrays, one.tangents), expected[0])
    found = vars(attnc.hvp(one.layer, one.arrays, one.tangents, draw(2, 5, 4)))
    assert_same(found, expected[1])


def test_frozen_parameters_have_tangents_and_no_gradient():
    one = Case("Residual", "frozen")
    frozen = {n: t for n, t in one.tangents.items() if n in one.layer.frozen_parameters}
    assert frozen
    assert attnc.jvp(one.layer, one.arrays, frozen)[1].any()
    found = attnc.hvp(one.layer, one.arrays, frozen, draw(2, 5, 4))
    assert found["layer.output.weight"].any() and not set(frozen) & set(vars(found))


def test_padding_is_not_read():
    one = Case("TransformerEncoder", "in training")
    layer = attnc.TransformerEncoder(2, 4, 2, 5, rotary=True, norm="pre", rng=0, **F64)
    multihead = attnc.MultiHeadAttention(4, 2, normalize_qk=True, rng=0, **F64)
    x, u, lengths = one.arrays[0], draw(5, 2, 4).swapaxes(0, 1), [5, 3]
    padded = (np.arange(5) >= np.array(lengths)[:, None])[..., None]
    d = np.where(padded, 0, draw(2, 5, 4))
    for f, options in (
        (layer, {"key_lengths": lengths}),
        (multihead, {"key_lengths": lengths, "query_lengths": lengths}),
        (attnc.GRU(4, 4, rng=0, **F64), {"lengths": lengths}),
        (attnc.AttentionPooling(4, rng=0, **F64), {"key_lengths": lengths}),
    ):
        name = next(iter(f.parameters))
        tangents = {"query" if f is multihead else "x": u, name: draw(*f.parameters[name].shape)}
        given = d[:, 0] if isinstance(f, attnc.AttentionPooling) else d
        first = attnc.jvp(f, [x], tangents, **options)
        second = attnc.hvp(f, [x], tangents, given, **options)
        hidden = {
            n: np.where(padded, np.nan, t) if t.shape == u.shape else t for n, t in tangents.items()
        }
        nan = np.where(padded, np.nan, x)
        assert_same(attnc.jvp(f, [nan], hidden, **options), first)
        found = attnc.hvp(f, [nan], hidden, given, **options)
        for n, t in vars(second).items():
            np.testing.assert_allclose(found[n], t, rtol=1e-12, atol=1e-12, err_msg=f"{f} {n}")


# ---- what they leave alone -----------------------------------------------------------------------


def test_threads_do_not_meet():
    """Calls with and without tangents at once, of one layer."""
    one = Case("TransformerEncoderLayer", "rotary")
    d = incoming(one)
    layer, arrays, options = one.layer, one.arrays, one.options
    doubled = {name: 2 * t for name, t in one.tangents.items()}

    def call(which):
        if which == 0:
            return attnc.jvp(layer, arrays, one.tangents, **options)
        if which == 1:
            return vars(attnc.hvp(layer, arrays, doubled, d, **options))
        output, pullback = attnc.vjp(layer, *arrays, **options)
        return output, vars(pullback(d))

    expected = [call(which) for which in range(3)]
    layer.zero_grad()
    wrong, start = [], threading.Barrier(6)

    def run(which):
        start.wait()
        for _ in range(8):
            try:
                assert_same(call(which), expected[which])
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=run, args=(k % 3,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    # Only the pullbacks of vjp have added to the gradients: 2 threads, 8 times each.
    once = gradients(copy.deepcopy(layer), arrays, options, d)
    for name, gradient in layer.gradients.items():
        np.testing.assert_allclose(gradient, 16 * once[name], rtol=1e-12, atol=1e-12)


def test_gradients_that_are_caught_are_those_of_others():
    one = Case("Linear", "bias")
    with caught_gradients() as caught:
        found = attnc.hvp(one.layer, one.arrays, one.tangents, incoming(one))
    assert not caught and found["weight"].any()


def test_an_error_ends_the_mode():
    with pytest.raises(ValueError, match="^Linear: x must have shape"):
        attnc.jvp(attnc.Linear(4, 3), [draw(2, 5)], [draw(2, 5)])
    assert mode.dual is None
    assert attnc.Linear(4, 3)(draw(2, 4)).shape == (2, 3)


# ---- layers of one's own -------------------------------------------------------------------------


class Scale(Layer):
    """The example in `Layer`."""

    def __init__(self, size, dtype="float64"):
        super().__init__(dtype)
        self.size = size
        self.add_parameter("factor", np.arange(1.0, size + 1))

    def _vjp(self, x):
        factor = self.parameters["factor"]

        def pullback(dy):
            self.add_gradient("factor", (x * dy).reshape(-1, self.size).sum(0))
            return Gradients({"x": dy * factor})

        return x * factor, pullback


class Direct(Layer):
    """Takes inputs without names, and returns what a function does."""

    def __init__(self):
        super().__init__("float64")
        self.inside = Scale(3)

    def _vjp(self, *inputs):
        return attnc.vjp(attnc.functional.swiglu, *inputs)


class Sorted(Layer):
    def __init__(self, function):
        super().__init__("float64")
        self.function = function

    def _vjp(self, x):
        return self.function(x), None


def test_a_layer_of_ones_own():
    x, u, v = draw(2, 3), draw(3, 2).T, draw(3)
    layer = Scale(3)
    factor = layer.parameters["factor"]
    y, tangent = attnc.jvp(layer, [x], {"x": u, "factor": v})
    assert_agree((y, tangent), (x * factor, u * factor + x * v))
    found = attnc.hvp(layer, [x], {"x": u, "factor": v}, np.ones((2, 3)))
    assert_agree(found.x, np.ones((2, 3)) * v)
    assert_agree(found["factor"], u.sum(0))


def test_a_layer_that_returns_what_a_function_does():
    arrays, tangents = [draw(2, 3), draw(3, 2).T], [draw(4, 3)[:2], None]
    layer, swiglu = Direct(), attnc.functional.swiglu
    assert_same(attnc.jvp(layer, arrays, tangents), attnc.jvp(swiglu, arrays, tangents))
    found = vars(attnc.hvp(layer, arrays, tangents, np.ones((2, 3))))
    assert not found.pop("inside.factor").any()
    assert_same(found, vars(attnc.hvp(swiglu, arrays, tangents, np.ones((2, 3)))))


@pytest.mark.parametrize(
    "function, named",
    [
        (np.sort, "got numpy.sort has no rule"),
        (np.asarray, "would lose the tangent"),
        (attnc.functional.gelu, "would lose the tangent"),
        (lambda x: np.zeros(3).__setitem__(slice(None), x[0]), "would lose the tangent"),
        (lambda x: np.zeros(3).__setitem__(0, x[0, 0]), "would lose the tangent"),
        (lambda x: float(x.sum()), "would lose the tangent"),
        (lambda x: x.max(), "got numpy.ndarray.max has no rule"),
        (lambda x: np.sum(x, initial=1.0), "got numpy.sum has no rule for tangents with"),
        (lambda x: np.sum(x, axis=0, out=np.zeros(3)), "got numpy.sum has no rule"),
        (lambda x: np.reshape(x, -1, order="A"), "got numpy.reshape has no rule"),
    ],
)
def test_what_loses_tangents_is_said_of_the_layer(function, named):
    with pytest.raises(TypeError, match="^Sorted: for jvp and hvp its _vjp must") as error:
        attnc.jvp(Sorted(function), [draw(2, 3)], [draw(2, 3)])
    assert named in str(error.value)


def test_other_errors_are_its_own():
    def broken(x):
        raise ValueError("of the layer itself")

    with pytest.raises(ValueError, match="^of the layer itself$"):
        attnc.jvp(Sorted(broken), [draw(2, 3)], [draw(2, 3)])


class Padded(Layer):
    """Leaves alone the rows that are 0, and writes through a view."""

    def _vjp(self, x):
        kept = x.any(-1, keepdims=True)
        y = np.where(kept, 2 * x + 1, 0.0)
        flat = y.reshape(-1)
        flat *= 3

        def pullback(dy):
            return Gradients({"x": np.where(kept, 6 * dy * x.sum(), 0.0)})

        return y, pullback


def columns(x):
    return np.asfortranarray(x)


@pytest.mark.parametrize("of_tangent", [np.copy, columns])
@pytest.mark.parametrize("of_value", [np.copy, columns])
def test_layouts_and_decisions_of_a_layer(of_value, of_tangent):
    x, u, layer = of_value(draw(2, 3)), of_tangent(draw(2, 3)), Padded("float64")
    x[0] = 0
    y, tangent = attnc.jvp(layer, [x], [u])
    assert_same(y, layer(x))
    # The reshape of columns is a copy, in NumPy too.
    factor = 6 if x.flags.c_contiguous else 2
    assert_agree(tangent, factor * u * [[0], [1]])
    found = attnc.hvp(layer, [x], [u], of_tangent(np.ones((2, 3))))
    assert_agree(found.x, np.array([[0.0] * 3, [6 * u.sum()] * 3]))


class Holder(Scale):
    """Holds itself and what is in it in many ways, beside things that cannot be copied."""

    def __init__(self, things):
        super().__init__(3)
        self.things = things
        self.inner = Scale(3)
        self.pair = Pair(self.inner, [self.inner])
        self.named = OrderedDict(inner=self.inner)
        self.plain = Helper(self)
        self.method = self.inner._vjp
        self.partial = functools.partial(attnc.vjp, self.inner)
        self.factor_too = self._parameters["factor"]

    def _vjp(self, x):
        assert self.plain.deep[0]["owner"] is self
        assert self.pair.one is self.inner and self.named["inner"] is self.inner
        assert self.pair.several[0] is self.inner
        assert self.factor_too is self._parameters["factor"]
        y, back = super()._vjp(x)
        z, second = self.method(y)
        out, third = self.partial(z)

        def pullback(dy):
            return Gradients({"x": back(second(third(dy).x).x).x})

        return out, pullback


class Helper:
    def __init__(self, owner):
        self.deep = [{"owner": owner}, self]


class Pair(NamedTuple):
    one: Layer
    several: list


def test_a_twin_shares_what_is_no_layer():
    """A lock, a file, a module, a generator: what no copy can be made of."""
    data = np.zeros(5)
    things = [threading.Lock(), np, (i for i in range(3)), data, None]
    seen = []

    class Looks(Holder):
        def _vjp(self, x):
            seen.append(self)
            return super()._vjp(x)

    layer, x, u = Looks(things), draw(2, 3), draw(2, 3)
    v = {"x": u, "factor": draw(3), "inner.factor": draw(3)}
    with open(os.devnull) as things[-1]:  # a file
        y, tangent = attnc.jvp(layer, [x], v)
        attnc.hvp(layer, [x], v, x)
    f, g = layer.parameters["factor"], layer.parameters["inner.factor"]
    assert_same(y, layer(x))
    assert_agree(
        tangent,
        u * f * g * g + x * v["factor"] * g * g + 2 * x * f * g * v["inner.factor"],
    )
    first, second, own = seen
    assert own is layer and first is not layer and second is not first
    assert first.things is things and second.things is things
    assert first.inner is not layer.inner and first.method.__self__ is first.inner
    assert layer.inner is layer.method.__self__ is layer.partial.args[0]


def test_a_generator_of_a_layer_moves_on():
    class Noisy(Layer):
        def __init__(self):
            super().__init__("float64")
            self.rng = np.random.default_rng(0)

        def _vjp(self, x):
            return x * self.rng.standard_normal(x.shape), None

    one, other, x = Noisy(), Noisy(), draw(2, 3)
    assert_same(attnc.jvp(one, [x], [x])[0], other(x))
    assert_same(one(x), other(x))


def test_a_state_that_is_written_otherwise():
    """What a layer leaves out of its copies is in its twin."""

    class Logged(Scale):
        def __init__(self):
            super().__init__(3)
            self.log = [threading.Lock()]

        def __getstate__(self):
            return {**super().__getstate__(), "log": None}

        def _vjp(self, x):
            with self.log[0]:
                return super()._vjp(x)

    layer, x, u = Logged(), draw(2, 3), draw(2, 3)
    assert_same(attnc.jvp(layer, [x], [u]), attnc.jvp(Scale(3), [x], [u]))
    assert_same(vars(attnc.hvp(layer, [x], [u], x)), vars(attnc.hvp(Scale(3), [x], [u], x)))


def test_a_pullback_without_names():
    class Nameless(Scale):
        def _vjp(self, x):
            y, pullback = super()._vjp(x)
            return y, lambda *gradients: pullback(*gradients)

    x = draw(2, 3)
    assert_same(attnc.jvp(Nameless(3), [x], [x]), attnc.jvp(Scale(3), [x], [x]))
    with pytest.raises(TypeError, match="^Nameless: for hvp its pullback must name"):
        attnc.hvp(Nameless(3), [x], [x], x)


def test_outputs_of_any_build():
    class Both(Scale):
        def _vjp(self, x):
            y, pullback = super()._vjp(x)
            return {"y": y, "all": [y, (3, np.ones(2), 0.5)]}, pullback

    x, u = draw(2, 3), draw(3, 2).T
    output, tangent = attnc.jvp(Both(3), [x], [u])
    y, moved = attnc.jvp(Scale(3), [x], [u])
    assert_same(output, {"y": y, "all": [y, (3, np.ones(2), 0.5)]})
    assert_same(tangent, {"y": moved, "all": [moved, (None, np.zeros(2), 0.0)]})
    assert_same(vars(attnc.hvp(Both(3), [x], [u], x)), vars(attnc.hvp(Scale(3), [x], [u], x)))


def test_functions_without_them_are_refused_by_name():
    def halve(x):
        return x / 2

    record = {"forward": lambda x: (x / 2, (), None), "backward": lambda s, t, dy: (dy / 2,)}
    attnc.registry.register(halve, required=["x"], incoming=["dy"], **record)

    class Half(Layer):
        def _vjp(self, x):
            return attnc.vjp(halve, x)

    x = draw(2, 3)
    with pytest.raises(NotImplementedError, match="^halve: must have forward mode"):
        attnc.jvp(Half("float64"), [x], [x])
    attnc.registry.register(
        halve, required=["x"], incoming=["dy"], jvp=lambda t, x: (x / 2, t["x"] / 2), **record
    )
    assert_same(attnc.jvp(Half("float64"), [x], [x]), (x / 2, x / 2))
    with pytest.raises(NotImplementedError, match="^halve: must have second order"):
        attnc.hvp(Half("float64"), [x], [x], x)
    del attnc.registry._records[halve]


# ---- what they refuse ----------------------------------------------------------------------------

LINEAR, X = attnc.Linear(4, 3, rng=0, **F64), draw(2, 4)
TOKENS = np.array([[1, 2]])
SELF = attnc.SelfAttention(4, rng=0, **F64)


def seq2seq(**options):
    return attnc.Seq2Seq(6, 6, 4, 4, rng=0, **F64), [TOKENS, TOKENS], options


class Clash(Scale):
    def _vjp(self, x, factor=None):
        return super()._vjp(x)


REFUSED = {
    "an array for arrays": (
        lambda: attnc.jvp(LINEAR, X, [X]),
        TypeError,
        "Linear: arrays must be a sequence",
    ),
    "a tangent for tangents": (
        lambda: attnc.jvp(LINEAR, [X], X),
        TypeError,
        "Linear: tangents must be a sequence",
    ),
    "too few": (
        lambda: attnc.jvp(SELF, [X], []),
        TypeError,
        "SelfAttention: tangents must be as many as arrays, 1",
    ),
    "an unknown name": (
        lambda: attnc.jvp(LINEAR, [X], {"wieght": draw(4, 3)}),
        TypeError,
        "Linear: tangents must be of its arrays, x, weight, bias, got 'wieght'; did you mean "
        "'weight'",
    ),
    "an unknown name of a layer inside": (
        lambda: attnc.jvp(SELF, [X], {"query.weight": draw(4, 4)}),
        TypeError,
        "'query_weight'",
    ),
    "what was not passed": (
        lambda: attnc.jvp(SELF, [X], {"bias": draw(2, 2)}),
        TypeError,
        "got 'bias'",
    ),
    "the shape of an input": (
        lambda: attnc.jvp(LINEAR, [X], [X[0]]),
        ValueError,
        r"Linear: tangent of x must have the shape of x, \(2, 4\), got \(4,\)",
    ),
    "the shape of a parameter": (
        lambda: attnc.jvp(LINEAR, [X], {"weight": draw(3, 4)}),
        ValueError,
        r"Linear: tangent of weight must have the shape of weight, \(4, 3\), got \(3, 4\)",
    ),
    "a dtype": (
        lambda: attnc.jvp(LINEAR, [X], [np.ones((2, 4), int)]),
        TypeError,
        "Linear: tangent of x must have a float dtype, got dtype int64",
    ),
    "tokens": (
        lambda: attnc.jvp(attnc.Embedding(6, 4), [TOKENS], [np.ones((1, 2))]),
        TypeError,
        "Embedding: tangent of tokens must be None, as tokens has dtype int64",
    ),
    "a list of integers": (
        lambda: attnc.jvp(attnc.Embedding(6, 4), [[1, 2]], [np.ones(2)]),
        TypeError,
        "Embedding: tangent of tokens must be None, as tokens has dtype int64",
    ),
    "a mask": (
        lambda: attnc.jvp(SELF, [X], {"mask": draw(2, 2)}, mask=np.ones((2, 2), bool)),
        TypeError,
        "tangent of mask must be None, as mask has dtype bool",
    ),
    "a number": (
        lambda: attnc.jvp(SELF, [X], {"slope": np.array(1.0)}, slope=0.5),
        TypeError,
        r"tangent of slope must be None, as a number is a constant.*np\.array\(0\.5\)",
    ),
    "a state": (
        lambda: attnc.jvp(attnc.LSTM(4, 3), [X[None], (draw(1, 1, 3), None)], [None, X]),
        TypeError,
        "LSTM: tangent of state must be a sequence of 2, as state is",
    ),
    "a part of a state": (
        lambda: attnc.jvp(
            attnc.LSTM(4, 3), [X[None], (draw(1, 1, 3), None)], [None, (None, draw(1, 1, 3))]
        ),
        TypeError,
        r"LSTM: tangent of state\[1\] must be None, as state\[1\] is",
    ),
    "an argument too many": (
        lambda: attnc.jvp(LINEAR, [X, X], [None, None]),
        TypeError,
        "positional argument",
    ),
    "an argument that is missing": (lambda: attnc.jvp(LINEAR, [], []), TypeError, "'x'"),
    "an option": (
        lambda: attnc.jvp(SELF, [X], [X], casual=True),
        TypeError,
        "'casual'; did you mean 'causal'",
    ),
    "no incoming gradient": (
        lambda: attnc.hvp(LINEAR, [X], [X]),
        TypeError,
        r"Linear: hvp must get dcontext, .* \(dy\), got none",
    ),
    "the shape of an incoming gradient": (
        lambda: attnc.hvp(LINEAR, [X], [X], X),
        ValueError,
        r"Linear: dy must have the shape of its output, \(2, 3\), got \(2, 4\)",
    ),
    "the name of an incoming gradient": (
        lambda: attnc.hvp(LINEAR, [X], [X], {"dx": X}),
        TypeError,
        "Linear: dcontext must be of its outputs, dy, got 'dx'",
    ),
    "one that was not asked for": (
        lambda: attnc.hvp(SELF, [X], [X], {"dlse": X}),
        TypeError,
        "of its outputs, dcontext, got 'dlse', which was not asked for",
    ),
    "too many incoming gradients": (
        lambda: attnc.hvp(SELF, [X], [X], (X, X, X), return_weights=True),
        TypeError,
        "of its outputs, dcontext, dweights, got 3",
    ),
    "one of integers": (
        lambda: attnc.hvp(attnc.HardAttention(4, 4), [X, X], [X, X], {"dindex": np.ones(2)}),
        TypeError,
        "of its outputs, dcontext, dlog_probability, dentropy, got 'dindex'",
    ),
    "two of one name": (
        lambda: attnc.jvp(Clash(3), [draw(2, 3), draw(3)], [None, None]),
        ValueError,
        "Clash: parameters must differ in names from arguments, got two called factor",
    ),
    "a class": (
        lambda: attnc.jvp(attnc.Linear, [X], [X]),
        TypeError,
        "got the class Linear; make one",
    ),
    "a shape that a layer refuses": (
        lambda: attnc.jvp(attnc.GRU(4, 3), [X], [X]),
        ValueError,
        "^GRU: x must have shape",
    ),
    "a state that does not fit": (
        lambda: attnc.jvp(DECODER, [X[None], X[None], draw(1, 1, 5)], [None] * 3),
        ValueError,
        "^AttentionDecoder: state must have shape",
    ),
    "a masked array": (
        lambda: attnc.jvp(LINEAR, [np.ma.ones((2, 4))], [X]),
        TypeError,
        "^Linear: x must .*masked",
    ),
    "a masked array without a tangent": (
        lambda: attnc.jvp(
            attnc.LSTM(4, 3), [X[None], (np.ma.ones((1, 1, 3)), draw(1, 1, 3))], [X[None], None]
        ),
        TypeError,
        "^LSTM: state .*masked",
    ),
    "a cache": (
        lambda: attnc.jvp(
            attnc.MultiHeadAttention(4, 2), [X], [X], cache=attnc.KVCache(), causal=True
        ),
        Exception,
        "MultiHeadAttention: cache must be None",
    ),
    "decisions": (
        lambda: attnc.jvp(attnc.MonotonicAttention(4, 4), [X, X], [X, X], hard=True),
        ValueError,
        "MonotonicAttention: hard must be False",
    ),
    "a decoder's decisions": (
        lambda: attnc.hvp(
            attnc.AttentionDecoder(4, 3, 4, alignment="monotonic"),
            [X[None]] * 2,
            [X[None]] * 2,
            draw(1, 2, 3),
            hard=True,
        ),
        ValueError,
        "AttentionDecoder: hard must be False",
    ),
    "a prepared memory": (
        lambda: attnc.jvp(DECODER, [X[None], DECODER.prepare(X[None])], [X[None], None]),
        TypeError,
        "AttentionDecoder: memory must be an array for a gradient, got a prepared memory",
    ),
    "words that the model has chosen": (
        lambda: attnc.jvp(
            seq2seq()[0], [TOKENS, TOKENS], {"output.bias": draw(6)}, sampling=0.5, rng=0
        ),
        ValueError,
        "Seq2Seq: sampling must be 0 for jvp and hvp, got 0.5",
    ),
}
DECODER = attnc.AttentionDecoder(4, 3, 4, rng=0)


@pytest.mark.parametrize("name", REFUSED)
def test_errors(name):
    call, kind, text = REFUSED[name]
    with pytest.raises(kind, match=text):
        call()
    assert mode.dual is None


def test_tensors_are_refused_by_name():
    torch = pytest.importorskip("torch")
    x = torch.ones(2, 4)
    for f, where in ((LINEAR, "Linear"), (attnc.functional.relu, "relu")):
        with pytest.raises(TypeError, match=rf"^{where}: x must be .*torch\.func\.jvp"):
            attnc.jvp(f, [x], [x])
        with pytest.raises(TypeError, match=rf"^{where}: tangent of x must be a NumPy array"):
            attnc.jvp(f, [X], [x])


@pytest.mark.parametrize(
    "library, word", [("jax.numpy", "jax.jvp"), ("autograd.numpy", "make_jvp")]
)
def test_arrays_of_other_libraries_are_sent_to_its_transformation(library, word):
    module = pytest.importorskip(library)
    if library == "jax.numpy":
        x = module.ones((2, 4))
        with pytest.raises(TypeError, match=f"^Linear: x must be .*{word}"):
            attnc.jvp(LINEAR, [x], [X])
        return

    def inside(x):
        with pytest.raises(TypeError, match=f"^Linear: x must be .*{word}"):
            attnc.jvp(LINEAR, [x], [X])
        return x.sum()

    pytest.importorskip("autograd").grad(inside)(X)

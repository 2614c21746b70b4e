"""`attnc.jvp` and `attnc.hvp` as users call them: what they take, what they refuse, NaN that is not
read; and second order against PyTorch's."""

import numpy as np
import pytest
from calls import call
from checks import assert_agree, assert_same, python

import attnc
from attnc import functional, losses, registry
from attnc.functional import attention_decoder, gru, layer_norm, lstm, relu, rms_norm

X, U = np.array([[1.0, 2.0, 4.0]]), np.array([[1.0, 0.0, -1.0]])


def recurrent(name="gru", case="state"):
    (x, parameters), options = call(name, case, np.random.default_rng(0))
    return x, parameters, options


# ---- what they take ------------------------------------------------------------------------------


def test_tangents_by_order_and_by_name_are_the_same():
    y, by_order = attnc.jvp(layer_norm, (X, X[0]), [U, U[0]])
    _, by_name = attnc.jvp(layer_norm, [X], {"weight": U[0], "x": U}, weight=X[0])
    assert_same(by_order, by_name)
    assert_same(y, layer_norm(X, X[0]))
    first = attnc.hvp(layer_norm, (X, X[0]), [U, U[0]], X)
    second = attnc.hvp(layer_norm, [X], {"weight": U[0], "x": U}, X, weight=X[0])
    assert_same(vars(first), vars(second))


def test_none_is_zero():
    zeros = attnc.jvp(layer_norm, [X, X[0]], [U, np.zeros(3)])
    assert_same(attnc.jvp(layer_norm, [X, X[0]], [U, None]), zeros)
    assert_same(attnc.jvp(layer_norm, [X, X[0]], {"x": U}), zeros)
    assert not attnc.jvp(layer_norm, [X], [None])[1].any()


def test_nested_tangents():
    x, parameters, options = recurrent("lstm")
    h = options["state"][0]
    inside = [None, None, np.ones_like(parameters[2]), None]
    _, tangent = attnc.jvp(lstm, [x, parameters], [None, inside], **options)
    zeros = [np.zeros_like(p) for p in parameters]
    zeros[2] += 1
    _, expected = attnc.jvp(lstm, [x, parameters], [np.zeros_like(x), zeros], **options)
    assert_same(tangent, expected)
    by_name = {"parameters": inside, "state": (h, None)}
    output, tangent = attnc.jvp(lstm, [x, parameters], by_name, **options)
    assert type(tangent) is type(output) and type(tangent.state) is tuple


def test_a_state_of_one_array_in_a_tuple(rng):
    """Of a decoder whose state has more: the tangents are built like the state that was given."""
    arrays, options = call("attention_decoder", "cosine luong rnn 1 False", rng)
    B, H = len(arrays[0]), arrays[2][1].shape[0]
    h, g = rng.standard_normal((1, B, H)), np.ones((B, arrays[0].shape[1], H))
    options |= {"window": 2}  # which counts the steps in the state
    alone = attnc.hvp(attention_decoder, arrays, {"state": h}, g, **options | {"state": h})
    found = attnc.hvp(attention_decoder, arrays, {"state": (h,)}, g, **options | {"state": (h,)})
    assert type(found.state) is tuple
    assert_same(found.state, (alone.state,))


def test_integers_and_constants_have_none():
    logits, targets = np.zeros((2, 3)), np.array([0, 2])
    loss, tangent = attnc.jvp(losses.softmax_cross_entropy, [logits, targets], [logits + 1, None])
    assert type(loss) is type(tangent) is np.float64 and abs(tangent) < 1e-15
    alignment = np.full((1, 2, 3), 0.2)
    value = np.ones((1, 3, 2))
    arrays = [alignment, alignment, value, 2]
    _, tangent = attnc.jvp(attnc.chunkwise_attention, arrays, [None, None, value, None])
    assert_agree(tangent, attnc.chunkwise_attention(*arrays))


def test_lists_and_any_layout(rng):
    x, u = rng.standard_normal((2, 6, 4))
    wide = np.repeat(u, 2, axis=1)
    expected = attnc.jvp(rms_norm, [x], [u])
    assert_same(attnc.jvp(rms_norm, [x], [wide[:, ::2]]), expected)
    assert_same(attnc.jvp(rms_norm, [x.tolist()], [u.tolist()]), expected)
    assert_same(attnc.jvp(rms_norm, [x], [u.astype(">f8")]), expected)
    assert attnc.jvp(rms_norm, [x.astype(np.float32)], [u])[1].dtype == np.float32


def test_incoming_gradients_of_several_outputs():
    x, parameters, options = recurrent("lstm")
    (outputs, (h, c)), tangents = lstm(x, parameters, **options), [x, None]
    arrays = [x, parameters]

    def hvp(dcontext):
        return vars(attnc.hvp(lstm, arrays, tangents, dcontext, **options))

    zeros = np.zeros_like(h)
    assert_same(hvp(outputs), hvp({"doutputs": outputs}))
    assert_same(hvp(outputs), hvp((outputs, None)))
    assert_same(hvp((outputs, (h, None))), hvp({"doutputs": outputs, "dstate": (h, zeros)}))
    alone = hvp({"dstate": (None, c)})
    assert_same(alone, hvp((None, [None, c])))
    assert alone.keys() == {"x", "parameters", "state"}


def test_a_loss_needs_no_incoming_gradient():
    logits, targets = np.array([[0.5, 1.0, -1.0]]), [1]
    found = attnc.hvp(losses.softmax_cross_entropy, [logits, targets], [logits, None])
    same = attnc.hvp(losses.softmax_cross_entropy, [logits, targets], [logits, None], 1.0)
    twice = attnc.hvp(
        losses.softmax_cross_entropy, [logits, targets], [logits, None], np.array(2.0)
    )
    assert_same(found.logits, same.logits)
    assert_agree(twice.logits, 2 * found.logits)


def test_gradients_as_a_pullback_returns_them():
    (found,) = attnc.hvp(relu, [X], [U], X)
    assert not found.any()
    found = attnc.hvp(layer_norm, [X], [U], X, bias=X[0])
    assert list(vars(found)) == ["x", "bias"] and len(found) == 1
    with pytest.raises(AttributeError, match="no gradient of 'weight'"):
        _ = found.weight


def test_dropout_drops_the_same_in_all(rng):
    x, parameters, options = recurrent("gru", "dropout")
    u = rng.standard_normal(x.shape)
    options |= {"rng": np.random.default_rng(7)}
    output, tangent = attnc.jvp(gru, [x, parameters], [u, None], **options)
    again = attnc.jvp(gru, [x, parameters], [u, None], **options | {"rng": 7})
    assert_same((output, tangent), again)
    moved = np.random.default_rng(7)
    gru(x, parameters, **options | {"rng": moved})
    assert moved.random() == options["rng"].random()  # and drawn once


def test_neither_is_imported_before_it_is_used():
    code = "import sys, attnc; print(*[m for m in sys.modules if m.startswith('attnc.')])"
    modules = python(code).split()
    late = {"attnc.dual", "attnc.dual_calls", "attnc.directions", "attnc.layer_directions"}
    late |= {"attnc.twins"}
    assert not (late | {"attnc.reference"}) & set(modules)


# ---- what they refuse ----------------------------------------------------------------------------

N = np.arange(3)
CALLS = {
    "an array for the sequence of arrays": lambda: attnc.jvp(relu, X, U),
    "a tangent for the sequence of tangents": lambda: attnc.jvp(relu, [X], U),
    "too few tangents": lambda: attnc.jvp(layer_norm, [X, X[0]], [U]),
    "too many tangents": lambda: attnc.jvp(layer_norm, [X], [U, U[0]]),
    "an unknown name": lambda: attnc.jvp(layer_norm, [X], {"wieght": U[0]}),
    "what was not passed": lambda: attnc.jvp(layer_norm, [X], {"weight": U[0]}),
    "a shape": lambda: attnc.jvp(layer_norm, [X], [U[0]]),
    "a dtype": lambda: attnc.jvp(layer_norm, [X], [U.astype(int)]),
    "complex numbers": lambda: attnc.jvp(layer_norm, [X], [U * 1j]),
    "an array of integers": lambda: attnc.jvp(relu, [N], [U[0]]),
    "targets": lambda: attnc.jvp(losses.softmax_cross_entropy, [X, [1]], [None, [1.0]]),
    "bools": lambda: attnc.jvp(losses.binary_cross_entropy, [X, X > 1], [None, U]),
    "an option": lambda: attnc.jvp(gru, recurrent()[:2], {"lengths": N}, lengths=[3, 1, 2, 2]),
    "a number": lambda: attnc.jvp(
        attention_decoder, decoder()[0], {"scale": np.array(1.0)}, **decoder()[1] | {"scale": 2.0}
    ),
    "a sequence": lambda: attnc.jvp(gru, recurrent()[:2], [None, X]),
    "a part of a sequence": lambda: attnc.jvp(gru, recurrent()[:2], [None, [None, X, None, None]]),
    "the class of a layer": lambda: attnc.jvp(attnc.Linear, [X], [U]),
    "no function of attnc": lambda: attnc.jvp(np.tanh, [X], [U]),
    "no incoming gradient": lambda: attnc.hvp(relu, [X], [U]),
    "the shape of the incoming gradient": lambda: attnc.hvp(relu, [X], [U], X[0]),
    "its dtype": lambda: attnc.hvp(relu, [X], [U], X.astype(int)),
    "its name": lambda: attnc.hvp(relu, [X], [U], {"dcontext": X}),
    "too many incoming": lambda: attnc.hvp(gru, recurrent()[:2], [None, None], (X, X, X)),
    "an output not asked for": lambda: attnc.hvp(
        attnc.chunkwise_attention, chunks(), [None] * 4, {"dweights": np.ones((1, 2, 3))}
    ),
    "no state": lambda: attnc.hvp(lstm, recurrent("lstm")[:2], [None, None], (None, X)),
}
WORDS = {
    "an array for the sequence of arrays": "relu: arrays must be a sequence",
    "a tangent for the sequence of tangents": "relu: tangents must be a sequence",
    "too few tangents": "layer_norm: tangents must be as many as arrays, 2",
    "too many tangents": "layer_norm: tangents must be as many as arrays, 1",
    "an unknown name": "got 'wieght'; did you mean 'weight'",
    "what was not passed": "tangent of weight must be None, as no weight was passed",
    "a shape": r"tangent of x must have the shape of x, \(1, 3\), got \(3,\)",
    "a dtype": "tangent of x must have a float dtype, got dtype int64",
    "complex numbers": "tangent of x must",
    "an array of integers": "tangent of x must be None, as x has dtype int64",
    "targets": "tangent of targets must be None, as it is no array of real numbers",
    "bools": "tangent of targets must be None, as targets has dtype bool",
    "an option": "tangent of lengths must be None",
    "a number": r"tangent of scale must be None, as a number is a constant.*np\.array\(2\.0\)",
    "a sequence": "tangent of parameters must be a sequence of 4",
    "a part of a sequence": r"tangent of parameters\[1\] must have the shape of parameters\[1\]",
    "the class of a layer": "jvp: f must be a function of attnc or a layer, got the class Linear",
    "no function of attnc": "jvp: f must be a function of attnc or a layer, got tanh",
    "no incoming gradient": r"relu: hvp must get dcontext.* \(dy\), got none",
    "the shape of the incoming gradient": r"dy must have the shape of its output, \(1, 3\)",
    "its dtype": "dy must have a float dtype",
    "its name": "dcontext must be of its outputs, dy, got 'dcontext'",
    "too many incoming": "dcontext must be of its outputs, doutputs, dstate, got 3",
    "an output not asked for": "got 'dweights', which was not asked for",
    "no state": "dstate must be a sequence of 2, as its output is",
}
SHAPES = "shape", "part of a sequence"


def decoder():
    return call("attention_decoder", "cosine luong rnn 1 False", np.random.default_rng(0))


def chunks():
    alignment = np.full((1, 2, 3), 0.2)
    return [alignment, alignment, np.ones((1, 3, 2)), 2]


@pytest.mark.parametrize("name", CALLS)
def test_errors(name):
    kind = ValueError if any(word in name for word in SHAPES) else TypeError
    with pytest.raises(kind, match=WORDS[name]):
        CALLS[name]()


def test_what_was_registered_without_them():
    def double(x):
        return 2 * x

    def forward(x):
        return 2 * x, (), None

    registry.register(
        double,
        required=["x"],
        incoming=["dy"],
        forward=forward,
        backward=lambda s, t, dy: (2 * dy,),
    )
    with pytest.raises(NotImplementedError, match="jvp: f must be a function with forward mode"):
        attnc.jvp(double, [X], [U])
    with pytest.raises(NotImplementedError, match="hvp: f must be a function with second order"):
        attnc.hvp(double, [X], [U], X)
    del registry._records[double]


@pytest.mark.parametrize("f, arrays", [(gru, recurrent()[:2]), (layer_norm, [X])])
def test_arguments_are_refused_as_by_the_function(f, arrays):
    wrong = [np.ones(2), *arrays[1:]] if f is gru else [np.array(1.0)]
    for transform in (attnc.jvp, attnc.hvp):
        with pytest.raises(ValueError, match=f"{f.__name__}: x must"):
            more = [] if transform is attnc.jvp else [np.array(1.0)]
            transform(f, wrong, [None] * len(wrong), *more)
    with pytest.raises(ValueError, match="attention_decoder: hard must be False for a gradient"):
        arrays, options = call("attention_decoder", "noise", np.random.default_rng(0))
        options = options | {"hard": True, "noise": None}
        attnc.jvp(attention_decoder, arrays, [None] * 3, **options)


# ---- what is not read ----------------------------------------------------------------------------


def poisoned(x, where):
    return np.where(where, np.nan, x)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_padding_is_not_read(name, rng):
    f = getattr(functional, name)
    (x, parameters), options = call(name, "lengths", rng)
    u, g = rng.standard_normal(x.shape), rng.standard_normal((4, 6, 10))
    padded = (np.arange(6) >= options["lengths"][:, None])[..., None]
    tangents = [u, parameters]
    expected = attnc.jvp(f, [x, parameters], tangents, **options)
    second = attnc.hvp(f, [x, parameters], tangents, g, **options)
    x, u, g = poisoned(x, padded), poisoned(u, padded), poisoned(g, padded)
    assert_same(attnc.jvp(f, [x, parameters], [u, parameters], **options), expected)
    found = attnc.hvp(f, [x, parameters], [u, parameters], g, **options)
    assert_same(vars(found), vars(second))


@pytest.mark.parametrize(
    "case",
    ["key_lengths", "monotonic additive luong", "chunkwise dot fed", "none fed lstm 1 False"],
)
def test_masked_memory_is_not_read(case, rng):
    (inputs, memory, cells), options = call("attention_decoder", case, rng)
    lengths = np.array([6, 0, 2, 5, 1])[: len(memory)]
    options["key_lengths"] = lengths
    masked = (np.arange(6) >= lengths[:, None])[..., None]
    u = rng.standard_normal(memory.shape)
    g = rng.standard_normal(inputs.shape[:2] + cells[1].shape[:1])
    arrays, tangents = [inputs, memory, cells], [None, u, cells]
    expected = attnc.jvp(attention_decoder, arrays, tangents, **options)
    second = attnc.hvp(attention_decoder, arrays, tangents, g, **options)
    arrays[1], tangents[1] = poisoned(memory, masked), poisoned(u, masked)
    assert_same(attnc.jvp(attention_decoder, arrays, tangents, **options), expected)
    assert_same(vars(attnc.hvp(attention_decoder, arrays, tangents, g, **options)), vars(second))


def test_what_losses_do_not_count_is_not_read(rng):
    (logits, targets), options = call("softmax_cross_entropy", "ignored", rng)
    u, off = rng.standard_normal(logits.shape), (targets == 0)[..., None]
    for f, arrays, tangents in (
        (losses.softmax_cross_entropy, [logits, targets], [u, None]),
        (losses.linear_cross_entropy, [logits, np.eye(6), targets], [u, np.ones((6, 6)), None]),
    ):
        expected = attnc.jvp(f, arrays, tangents, **options)
        second = attnc.hvp(f, arrays, tangents, **options)
        arrays[0], tangents[0] = poisoned(logits, off), poisoned(u, off)
        assert_same(attnc.jvp(f, arrays, tangents, **options), expected)
        assert_same(vars(attnc.hvp(f, arrays, tangents, **options)), vars(second))


@pytest.mark.parametrize("name", ["monotonic_alignment", "chunkwise_attention"])
def test_masked_keys_are_not_read(name, rng):
    arrays, _ = call(name, "plain", rng)
    allowed = np.array([[True, True, False, True, True, False, False], [True] * 7])
    f, options = getattr(attnc, name), {"key_mask": allowed}
    off = ~allowed[:, None]
    tangents = [rng.standard_normal(np.shape(x)) if np.ndim(x) else None for x in arrays]
    first = f(*arrays, **options)
    g = np.ones_like(first[0] if isinstance(first, tuple) else first)
    expected = attnc.jvp(f, arrays, tangents, **options)
    second = attnc.hvp(f, arrays, tangents, g, **options)

    def hidden(values):
        rows = [poisoned(x, off if k < 2 else off.swapaxes(1, 2)) for k, x in enumerate(values[:3])]
        return [*rows, *values[3:]]

    arrays, tangents = hidden(arrays), hidden(tangents)
    assert_same(attnc.jvp(f, arrays, tangents, **options), expected)
    assert_same(vars(attnc.hvp(f, arrays, tangents, g, **options)), vars(second))


# ---- against PyTorch -----------------------------------------------------------------------------


def torch_hvp(torch, f, arrays, tangents, g):
    """The Hessian of <g, f> times the tangents, by reverse over reverse."""
    leaves = [torch.tensor(x, requires_grad=True) for x in arrays]
    first = torch.autograd.grad((f(*leaves) * torch.tensor(g)).sum(), leaves, create_graph=True)
    total = sum((d * torch.tensor(u)).sum() for d, u in zip(first, tangents, strict=True))
    second = torch.autograd.grad(total, leaves, allow_unused=True)
    return [
        np.zeros(x.shape) if d is None else d.numpy() for x, d in zip(arrays, second, strict=True)
    ]


@pytest.mark.parametrize("name", ["gru", "lstm", "rnn"])
def test_recurrent_as_torch(name, rng):
    torch = pytest.importorskip("torch")
    (x, parameters), _ = call(name, "plain", rng)
    cell = {"gru": torch.gru, "lstm": torch.lstm, "rnn": torch.rnn_tanh}[name]
    H = parameters[1].shape[0]

    def f(x, W, U, b, c):
        zeros = torch.zeros(1, 4, H, dtype=torch.float64)
        state = [zeros, zeros] if name == "lstm" else zeros
        weights = [W.T, U.T, b, c]
        return cell(x, state, weights, True, 1, 0.0, False, False, True)[0]

    tangents = [rng.standard_normal(a.shape) for a in (x, *parameters)]
    g = rng.standard_normal((4, 6, H))
    expected = torch_hvp(torch, f, (x, *parameters), tangents, g)
    found = attnc.hvp(
        getattr(functional, name), [x, parameters], [tangents[0], tuple(tangents[1:])], g
    )
    for got, want in zip((found.x, *found.parameters), expected, strict=True):
        assert_agree(got, want)


def test_norms_and_losses_as_torch(rng):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    x, w, b = rng.standard_normal((3, 4, 6)), rng.standard_normal(6), rng.standard_normal(6)
    weight, targets = rng.standard_normal((6, 5)), rng.integers(0, 5, (3, 4))
    t = rng.uniform(0.1, 0.9, x.shape)
    cases = [
        (layer_norm, (x, w, b), x, lambda x, w, b: F.layer_norm(x, (6,), w, b)),
        (rms_norm, (x, w), x, lambda x, w: F.rms_norm(x, (6,), w, 1e-6)),
        (functional.gelu, (x,), x, F.gelu),
        (functional.silu, (x,), x, F.silu),
        (functional.swiglu, (x, t), x, lambda a, b: F.silu(a) * b),
        (losses.mean_squared_error, (x, t), 1.0, F.mse_loss),
        (losses.binary_cross_entropy, (x, t), 1.0, F.binary_cross_entropy_with_logits),
        (
            lambda: None, (x, weight), 1.0,
            lambda x, w: F.cross_entropy((x @ w).reshape(12, 5), torch.tensor(targets.reshape(12))),
        ),
    ]  # fmt: skip
    for f, arrays, g, theirs in cases:
        tangents = [rng.standard_normal(a.shape) for a in arrays]
        expected = torch_hvp(torch, theirs, arrays, tangents, g)
        if f.__name__ == "<lambda>":
            f, arrays = losses.linear_cross_entropy, (*arrays, targets)
            tangents = [*tangents, None]
        found = attnc.hvp(f, arrays, tangents, g)
        for got, want in zip(vars(found).values(), expected, strict=True):
            assert_agree(got, want, f.__name__)

"""Optimisers and gradient clipping."""

import copy
import math
import pickle

import numpy as np
import pytest
from checks import assert_agree, assert_close_like_naive, assert_same

import attnc
from attnc.optim import SGD, Adam, AdamW, ExponentialAverage, clip_gradients, scale_gradients

MAKERS = {
    "sgd": lambda layers: SGD(layers, 0.1),
    "momentum": lambda layers: SGD(layers, 0.1, momentum=0.9),
    "adam": lambda layers: Adam(layers, 0.01),
    "adam with options": lambda layers: Adam(layers, 0.01, betas=(0.8, 0.9), epsilon=1e-3),
    "adamw": lambda layers: AdamW(layers, 0.01),
}
makers = pytest.mark.parametrize("name", MAKERS)


def set_gradients(layer, rng):
    for name, gradient in layer.gradients.items():
        layer.gradients[name] = rng.standard_normal(gradient.shape)


def test_sgd_by_hand():
    layer = attnc.Linear(1, 1, bias=False, dtype="float64")
    layer.parameters["weight"] = [[1.0]]
    optimizer = SGD(layer, 0.5, momentum=0.5)
    weights = []
    for _ in range(3):  # v = 2, 3, 3.5
        layer.gradients["weight"] = [[2.0]]
        optimizer.step()
        weights.append(layer.parameters["weight"].item())
    assert weights == [0.0, -1.5, -3.25]


@makers
def test_equal_to_torch(name, rng):
    torch = pytest.importorskip("torch")
    layer = attnc.Linear(3, 2, rng=0, dtype="float64")
    twins = {n: torch.tensor(p, requires_grad=True) for n, p in layer.parameters.items()}
    peer = {
        "sgd": lambda p: torch.optim.SGD(p, 0.1),
        "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        "adam": lambda p: torch.optim.Adam(p, 0.01),
        "adam with options": lambda p: torch.optim.Adam(p, 0.01, betas=(0.8, 0.9), eps=1e-3),
        "adamw": lambda p: torch.optim.AdamW(p, 0.01),
    }[name](list(twins.values()))
    optimizer = MAKERS[name](layer)
    for _ in range(5):
        set_gradients(layer, rng)
        for n, twin in twins.items():
            twin.grad = torch.tensor(layer.gradients[n])
        optimizer.step()
        peer.step()
    for n, twin in twins.items():
        assert_agree(layer.parameters[n], twin.detach().numpy())


@makers
def test_state_continues_where_it_was(name, rng, tmp_path):
    def run(resume):
        rng = np.random.default_rng(0)
        layer = attnc.CosineAttention(), attnc.Linear(3, 2, rng=0)
        optimizer = MAKERS[name](layer)
        for step in range(6):
            for part in layer:
                set_gradients(part, rng)
            optimizer.step()
            if resume and step == 2:
                np.savez(tmp_path / "state.npz", **optimizer.state_dict())
                optimizer = MAKERS[name](layer)
                with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
                    optimizer.load_state_dict(state)
        return [part.state_dict() for part in layer]

    assert_same(run(resume=True), run(resume=False))


def test_load_state_dict_lists_the_faults():
    optimizer = SGD(attnc.Linear(1, 1), 0.1, momentum=0.5)
    with pytest.raises(ValueError) as error:
        optimizer.load_state_dict({"steps": 3, "velocity.weight": np.ones(2), "m.weight": 0})
    assert str(error.value) == (
        "SGD.load_state_dict: state must hold exactly the names and shapes of the parameters, got "
        "missing: velocity.bias; unexpected: m.weight; misshapen: velocity.weight (2,) instead of "
        "(1, 1)"
    )
    assert optimizer.steps == 0


@makers
def test_several_layers_and_those_inside_them(name, rng):
    gru, linear = attnc.GRU(2, 3, rng=0), attnc.Linear(3, 1, rng=0)
    before = gru.state_dict(), linear.state_dict()
    optimizer = MAKERS[name]([gru, linear])
    for layer in (gru, linear):
        set_gradients(layer, rng)
    optimizer.step()
    for layer, old in zip((gru, linear), before, strict=True):
        for parameter, p in layer.parameters.items():
            assert (p != old[parameter]).all() and p.dtype == np.float32
    optimizer.zero_grad()
    assert not any(g.any() for layer in (gru, linear) for g in layer.gradients.values())


@makers
def test_finds_a_minimum(name, rng):
    x = rng.standard_normal((64, 3))
    y = x @ [[1.0], [-2.0], [3.0]] + 0.5
    layer = attnc.Linear(3, 1, rng=0, dtype="float64")
    optimizer = MAKERS[name](layer)
    optimizer.learning_rate = 0.05
    if name == "adamw":
        optimizer.weight_decay = 0  # it moves the minimum
    for _ in range(1500):
        optimizer.zero_grad()
        prediction, pullback = attnc.vjp(layer, x)
        pullback((prediction - y) / len(x))
        optimizer.step()
    np.testing.assert_allclose(layer.parameters["weight"][:, 0], [1, -2, 3], atol=1e-2)
    np.testing.assert_allclose(layer.parameters["bias"], [0.5], atol=1e-2)


def test_clip_gradients():
    layers = attnc.Linear(1, 1), attnc.Linear(1, 1)
    layers[0].gradients["weight"] = [[3.0]]
    layers[1].gradients["bias"] = [4.0]
    assert clip_gradients(layers, 6) == 5.0  # below: nothing changes
    assert layers[0].gradients["weight"] == 3
    assert clip_gradients(layers, 2.5) == 5.0
    assert layers[0].gradients["weight"] == 1.5 and layers[1].gradients["bias"] == 2
    assert clip_gradients(layers[0], 2.5) == 1.5


@makers
def test_large_parameters_as_small_ones(name, rng):
    """What is changed block by block becomes what it becomes whole, to the last bit."""
    sizes = {"many rows": (50_000, 3), "long rows": (3, 50_000), "few": (2, 3)}
    for rows, columns in sizes.values():
        whole = attnc.Linear(rows, columns, rng=0)
        parts = [attnc.Linear(rows, 1, rng=0) for _ in range(min(columns, 3))]
        optimizers = [MAKERS[name](layer) for layer in (whole, *parts)]
        for k, part in enumerate(parts):
            part.parameters["weight"] = whole.parameters["weight"][:, k : k + 1]
        for _ in range(2):
            set_gradients(whole, rng)
            for k, part in enumerate(parts):
                part.gradients["weight"] = whole.gradients["weight"][:, k : k + 1]
            for optimizer in optimizers:
                optimizer.step()
        for k, part in enumerate(parts):
            got = np.ascontiguousarray(whole.parameters["weight"][:, k : k + 1])
            assert_same(got, part.parameters["weight"])
    norm = np.sqrt(sum(np.sum(g.astype(float) ** 2) for g in whole.gradients.values()))
    assert clip_gradients(whole, 1e9) == pytest.approx(norm, rel=1e-6)


def test_clip_gradients_names_what_is_not_finite():
    layer = attnc.Linear(2, 2)
    layer.gradients["bias"] = [np.nan, 1]
    with pytest.raises(FloatingPointError, match="must be finite, got bias with NaN or inf"):
        clip_gradients(layer, 1.0)
    assert layer.gradients["bias"][1] == 1
    layer.gradients["bias"] = [1e30, 1]  # its square overflows in float32
    assert clip_gradients(layer, 1.0) == pytest.approx(1e30)
    layer.gradients["bias"] = [1e-30, 0]  # and vanishes
    assert clip_gradients(layer, 1.0) == pytest.approx(1e-30)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda layer: SGD(layer, -1), "SGD: learning_rate must be 0 or more, got -1"),
        (
            lambda layer: SGD(layer, 1, momentum=1),
            "SGD: momentum must lie in 0 <= momentum < 1, got 1",
        ),
        (
            lambda layer: Adam(layer, betas=(0.9, 1)),
            "Adam: betas must be a pair in 0 <= beta < 1, got",
        ),
        (lambda layer: Adam(layer, epsilon=0), "Adam: epsilon must be above 0, got 0"),
        (lambda layer: clip_gradients(layer, 0), "clip_gradients: max_norm must be above 0, got 0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(attnc.Linear(1, 1))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: SGD(x, "0.1"), TypeError, "SGD: learning_rate must be 0 or more, got '0.1'"),
        (lambda x: SGD(x, True), TypeError, "SGD: learning_rate must be 0 or more, got True"),
        (lambda x: SGD(x, np.nan), ValueError, "SGD: learning_rate must be 0 or more, got nan"),
        (lambda x: SGD(x, np.inf), ValueError, r"SGD: learning_rate must be 3.4e\+38 or less, got"),
        (
            lambda x: Adam(x, 1e300),
            ValueError,
            r"Adam: learning_rate must be 3.4e\+38 or less, got",
        ),
        (
            lambda x: SGD(x, 1, "0"),
            TypeError,
            "SGD: momentum must lie in 0 <= momentum < 1, got '0",
        ),
        (lambda x: Adam(x, betas="ab"), ValueError, "Adam: betas must be a pair in .*, got 'ab'"),
        (lambda x: Adam(x, betas=0.9), ValueError, "Adam: betas must be a pair in .*, got 0.9"),
        (lambda x: Adam(x, betas=("0", 0)), TypeError, "Adam: betas must be a pair in .*, got '0'"),
        (lambda x: Adam(x, betas=(0, 1 - 1e-17)), ValueError, "Adam: betas must be a pair in"),
        (lambda x: Adam(x, epsilon=math.inf), ValueError, "Adam: epsilon must be above 0, got inf"),
        (lambda x: Adam(x, epsilon=1e-300), ValueError, "epsilon must be at least 3.4e-18 for par"),
        (lambda x: clip_gradients(x, math.nan), ValueError, "max_norm must be above 0, got nan"),
        (lambda x: clip_gradients(x, "1"), TypeError, "max_norm must be above 0, got '1'"),
        (lambda x: clip_gradients(x, True), TypeError, "max_norm must be above 0, got True"),
    ],
)
def test_numbers_that_are_none(call, error, message):
    with pytest.raises(error, match=message):
        call(attnc.Linear(1, 1))


@makers
def test_numbers_changed_later(name, rng):
    layer = attnc.Linear(3, 2, rng=0)
    optimizer = MAKERS[name](layer)
    set_gradients(layer, rng)
    before = layer.state_dict()
    for value in ("0.1", math.nan, -1, True, None, np.inf):
        optimizer.learning_rate = value
        with pytest.raises((TypeError, ValueError), match="learning_rate must be"):
            optimizer.step()
    assert optimizer.steps == 0
    assert_same(layer.state_dict(), before)
    optimizer.learning_rate = np.float64(0.1)
    optimizer.step()
    assert layer.parameters["weight"].dtype == np.float32
    if name == "sgd":
        optimizer.momentum = 0.5
        with pytest.raises(ValueError, match="momentum must stay 0 where it was 0 at first, got 0"):
            optimizer.step()


# ---- Adam ----------------------------------------------------------------------------------------


def adam_by_hand(p, g, m, v, step, rate, betas, epsilon, decay=0.0):
    """Algorithm 1 of the paper as it stands there, in place."""
    m[...] = betas[0] * m + (1 - betas[0]) * g
    v[...] = betas[1] * v + (1 - betas[1]) * g * g
    unbiased = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    p[...] = p - rate * (unbiased[0] / (np.sqrt(unbiased[1]) + epsilon) + decay * p)


@pytest.mark.parametrize("size", [1, 7, 16, 33, 1000, 70_001])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_its_formula(size, decay, dtype, threads, isa, rng):
    layer = attnc.Linear(1, size, bias=False, dtype=dtype, rng=0)
    wide = np.longdouble if dtype == np.float64 else np.float64
    exact, naive = ([layer.parameters["weight"].astype(kind)] for kind in (wide, dtype))
    exact += [np.zeros_like(exact[0]), np.zeros_like(exact[0])]
    naive += [np.zeros_like(naive[0]), np.zeros_like(naive[0])]
    how = {"betas": (0.8, 0.95), "epsilon": 1e-3}
    kind = AdamW if decay else Adam
    optimizer = kind(layer, 0.05, **how, **({"weight_decay": decay} if decay else {}))
    for step in (1, 2, 3):
        g = rng.standard_normal((1, size)).astype(dtype)
        layer.gradients["weight"] = g
        optimizer.step()
        for p, m, v in (exact, naive):
            adam_by_hand(p, g.astype(p.dtype), m, v, step, 0.05, **how, decay=decay)
    state = optimizer.state_dict()
    got = layer.parameters["weight"], state["m.weight"], state["v.weight"]
    for x, right, plain in zip(got, exact, naive, strict=True):
        assert_close_like_naive(x, right, plain, 1.0)


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_adam_changes_arrays_of_any_layout(order, rng):
    """Where parameter, gradient and state lie differently, too."""
    layer, twin = (attnc.Linear(30, 20, bias=False, dtype="float64", rng=0) for _ in range(2))
    if order == "F":
        layer._parameters["weight"] = np.asfortranarray(layer._parameters["weight"])
    if order == "strided":
        room = np.zeros((60, 40))
        room[::2, ::2] = layer._parameters["weight"]
        layer._parameters["weight"] = room[::2, ::2]
    optimizers = [Adam(each) for each in (layer, twin)]
    for _ in range(3):
        g = rng.standard_normal((30, 20))
        for each, optimizer in zip((layer, twin), optimizers, strict=True):
            each.gradients["weight"] = g
            optimizer.step()
    assert_same(layer.parameters["weight"], twin.parameters["weight"])
    assert_same(optimizers[0].state_dict(), optimizers[1].state_dict())


# ---- AdamW ---------------------------------------------------------------------------------------


def test_decay_by_hand():
    """Where the gradient is 0, the decay is all that a step does."""
    layer = attnc.Linear(1, 1, dtype="float64")
    layer.parameters.update(weight=[[8.0]], bias=[8.0])
    optimizer = AdamW(layer, 0.5, weight_decay=1.0, without_decay=["bi*"])
    assert optimizer.without_decay == ("bi*",)
    for expected in (4.0, 2.0, 1.0):
        optimizer.step()
        assert layer.parameters["weight"] == expected and layer.parameters["bias"] == 8
    optimizer.weight_decay = 0
    optimizer.step()
    assert layer.parameters["weight"] == 1


def test_decay_of_some_parameters_is_torchs(rng):
    torch = pytest.importorskip("torch")
    layers = attnc.GRU(3, 4, rng=0, dtype="float64"), attnc.Linear(4, 2, rng=1, dtype="float64")
    names = [(layer, name) for layer in layers for name in layer.parameters]
    twins = [torch.tensor(layer.parameters[name], requires_grad=True) for layer, name in names]
    spared = [twin for twin, (_, name) in zip(twins, names, strict=True) if "bias" in name]
    decayed = [twin for twin, (_, name) in zip(twins, names, strict=True) if "bias" not in name]
    assert spared and decayed
    groups = [{"params": spared, "weight_decay": 0.0}, {"params": decayed}]
    peer = torch.optim.AdamW(groups, 0.02, betas=(0.8, 0.99), weight_decay=0.3)
    optimizer = AdamW(layers, 0.02, (0.8, 0.99), weight_decay=0.3, without_decay=("*bias",))
    for step in range(6):
        for layer in layers:
            set_gradients(layer, rng)
        for twin, (layer, name) in zip(twins, names, strict=True):
            twin.grad = torch.tensor(layer.gradients[name])
        optimizer.learning_rate = peer.param_groups[0]["lr"] = 0.02 / (step + 1)
        peer.param_groups[1]["lr"] = 0.02 / (step + 1)
        optimizer.step()
        peer.step()
    for twin, (layer, name) in zip(twins, names, strict=True):
        assert_agree(layer.parameters[name], twin.detach().numpy())


@pytest.mark.parametrize("tie", ["method", "by hand"])
@pytest.mark.parametrize("pattern", ["0.weight", "1.weight"])
def test_a_tied_parameter_is_spared_under_any_name(tie, pattern):
    pair = views(tie)
    before = pair[0].state_dict()
    AdamW(pair, 0.1, weight_decay=0.5, without_decay=[pattern]).step()
    assert_same(pair[0].state_dict(), before)
    AdamW(pair, 0.1, weight_decay=0.5).step()
    assert (np.abs(pair[0].parameters["weight"]) < np.abs(before["weight"])).all()


def test_what_is_frozen_is_not_decayed():
    layer = attnc.Linear(2, 2, rng=0).freeze("weight")
    before = layer.state_dict()
    optimizer = AdamW(layer, 0.1, weight_decay=0.5)
    optimizer.step()
    assert_same(layer.state_dict(), before)
    layer.unfreeze()
    optimizer.step()
    assert (np.abs(layer.parameters["weight"]) < np.abs(before["weight"])).all()


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"weight_decay": -0.1}, ValueError, "AdamW: weight_decay must be 0 or more, got -0.1"),
        ({"weight_decay": math.inf}, ValueError, "AdamW: weight_decay must be 0 or more, got inf"),
        ({"weight_decay": "0"}, TypeError, "AdamW: weight_decay must be 0 or more, got '0'"),
        (
            {"weight_decay": 11, "learning_rate": 0.1},
            ValueError,
            "AdamW: weight_decay must be at most 1 / learning_rate, got 11.0 with learning_rate",
        ),
        ({"without_decay": "bias"}, TypeError, "without_decay must be a list or tuple of names"),
        ({"without_decay": ["norm*"]}, KeyError, "AdamW: patterns must fit the name of a param"),
        ({"without_decay": [3]}, TypeError, "AdamW: patterns must be strings, got 3"),
    ],
)
def test_errors_of_adamw(options, error, message):
    with pytest.raises(error, match=message):
        AdamW(attnc.Linear(1, 1), **options)


# ---- What an optimiser is given ------------------------------------------------------------------


def test_any_iterable_of_layers_in_order():
    layers = [attnc.Linear(2, 1, rng=k) for k in range(3)]
    for given in (layers, tuple(layers), iter(layers), (layer for layer in layers)):
        optimizer = SGD(given, 0.1, momentum=0.5)
        assert list(optimizer.state_dict())[1:3] == ["velocity.0.weight", "velocity.0.bias"]
        for _ in range(2):  # a generator is read once
            optimizer.step()
    for given, got in ((set(layers), "set"), ({"a": layers[0]}, "dict"), (3, "int"), ("a", "str")):
        with pytest.raises(TypeError, match=f"SGD: layers must be a Layer or several.*, got {got}"):
            SGD(given, 0.1)
    with pytest.raises(
        TypeError, match="Adam: layers must be a Layer or several in order, got typ"
    ):
        Adam(attnc.Linear)


@pytest.mark.parametrize("layers", [[], attnc.DotProductAttention()], ids=["none", "no parameters"])
def test_nothing_to_optimise(layers):
    with pytest.raises(ValueError, match="Adam: layers must have parameters, got none"):
        Adam(layers)
    assert clip_gradients(layers, 1.0) == 0


@makers
def test_layers_changed_after_the_optimiser_was_made(name):
    model = attnc.Seq2Seq(5, 5, 2, 4, rng=0)
    optimizer = MAKERS[name](model)
    model.extra = {"more": [attnc.Linear(2, 2)]}
    message = r"step: layers must have the parameters .* got changes of extra.more.0.weight, extra"
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    del model.extra
    optimizer.step()
    model.output = attnc.Linear(4, 5, rng=1)  # of the same names and shapes: takes its place
    model.output.gradients["weight"] = np.ones((4, 5))
    before = model.output.state_dict()
    optimizer.step()
    assert (model.output.parameters["weight"] != before["weight"]).all()
    model.target_embedding = model.source_embedding
    with pytest.raises(ValueError, match="got changes of target_embedding.weight"):
        optimizer.step()
    assert optimizer.steps == 2


@makers
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_model_and_optimiser_goes_on_alike(name, duplicate):
    model = attnc.Seq2Seq(5, 5, 2, 4, rng=0)
    model.output = attnc.Linear(2, 5, rng=0)
    model.output.tie("weight", model.target_embedding, "weight", transpose=True)
    optimizer = MAKERS[name](model)

    def run(model, optimizer):
        rng = np.random.default_rng(0)
        for _ in range(2):
            set_gradients(model, rng)
            optimizer.step()

    run(model, optimizer)
    before = model.state_dict()
    twin, its_optimizer = duplicate((model, optimizer))
    run(twin, its_optimizer)
    assert_same(model.state_dict(), before)
    run(model, optimizer)
    assert_same(twin.state_dict(), model.state_dict())
    assert (model.parameters["output.weight"] != before["output.weight"]).all()


# ---- One array under several names ---------------------------------------------------------------


def views(tie):
    """An embedding and a linear layer, of one array if `tie`; the gradients of two and of one."""
    embedding = attnc.Embedding(300, 200, rng=0)
    linear = attnc.Linear(200, 300, bias=False, rng=1)
    if tie == "method":
        linear.tie("weight", embedding, "weight", transpose=True)
    elif tie == "by hand":
        linear._parameters["weight"] = embedding._parameters["weight"].T
        linear._gradients["weight"] = embedding._gradients["weight"].T
    return embedding, linear


@makers
@pytest.mark.parametrize("tie", ["method", "by hand"])
@pytest.mark.parametrize("first", [0, 1])
def test_tied_parameters_move_once(name, tie, first, rng):
    alone = views(None)[0]
    pair = views(tie)
    layers = (pair[first], pair[1 - first], pair[first])  # and one layer twice
    optimizers = MAKERS[name](alone), MAKERS[name](layers)
    for _ in range(3):
        d = rng.standard_normal((300, 200))
        alone.gradients["weight"] = d
        pair[1].gradients["weight"] = d.T
        assert clip_gradients(layers, 7) == pytest.approx(clip_gradients(alone, 7))
        assert np.linalg.norm(pair[0].gradients["weight"]) == pytest.approx(7)
        for optimizer in optimizers:
            optimizer.step()
    np.testing.assert_allclose(
        pair[1].parameters["weight"].T, alone.parameters["weight"], rtol=1e-4, atol=1e-6
    )
    kept = [kind.rpartition(".")[0] for kind in optimizers[1].state_dict()]
    assert all(name in ("", "velocity.0", "m.0", "v.0") for name in kept)
    optimizers[1].zero_grad()
    assert not pair[0].gradients["weight"].any()


@pytest.mark.parametrize("use", [lambda x: Adam(x), lambda x: clip_gradients(x, 1.0)])
def test_arrays_shared_in_part(use):
    embedding, linear = attnc.Embedding(4, 3), attnc.Linear(3, 2, bias=False)
    for kind in ("_parameters", "_gradients"):
        getattr(linear, kind)["weight"] = getattr(embedding, kind)["weight"][:2].T
    with pytest.raises(ValueError, match="0.weight and 1.weight must be one array or two, got arr"):
        use([embedding, linear])
    both = attnc.Linear(3, 2, bias=False), attnc.Linear(3, 2, bias=False)
    both[1]._parameters["weight"] = both[0]._parameters["weight"]
    with pytest.raises(ValueError, match="0.weight and 1.weight must share their gradient"):
        use(both)
    square = attnc.Linear(3, 3, bias=False), attnc.Linear(3, 3, bias=False)
    square[1]._parameters["weight"] = square[0]._parameters["weight"].T
    square[1]._gradients["weight"] = square[0]._gradients["weight"]
    with pytest.raises(ValueError, match="0.weight and 1.weight must share their gradient"):
        use(square)
    whole, halves = np.zeros((2, 3, 4), np.float32), (attnc.Linear(3, 2), attnc.Linear(3, 2))
    for k, layer in enumerate(halves):  # side by side: two arrays
        layer._parameters["weight"] = whole[0, :, 2 * k : 2 * k + 2]
        layer._gradients["weight"] = whole[1, :, 2 * k : 2 * k + 2]
    use(halves)


# ---- The ends of the range -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype, sizes", [
    ("float32", [1e-45, 1e-38, 1e-30, 1e-19, 1.0, 1e19, 1e30, 1e38]),
    ("float64", [5e-324, 1e-310, 1e-200, 1e-160, 1.0, 1e160, 1e200, 1e307]),
])  # fmt: skip
def test_the_norm_of_all_finite_gradients(dtype, sizes):
    for size in sizes:
        for shape in ((3, 2), (700, 300)):
            layer = attnc.Linear(*shape, bias=False, dtype=dtype)
            size = np.dtype(dtype).type(size)
            layer.gradients["weight"] = np.full(shape, -size)
            wanted = math.sqrt(shape[0] * shape[1]) * float(size)
            norm = clip_gradients(layer, math.inf)
            assert norm == wanted or abs(norm / wanted - 1) < 1e-6
            for share in (0.5, 1e-3):
                before = layer.gradients["weight"].astype(float)
                limit = wanted * share
                if limit == 0:
                    continue
                clip_gradients(layer, limit)
                if math.isinf(limit):
                    assert_same(layer.gradients["weight"].astype(float), before)
                    continue
                spacing = float(np.finfo(dtype).smallest_subnormal)
                np.testing.assert_allclose(
                    layer.gradients["weight"],
                    -limit / math.sqrt(before.size),
                    rtol=1e-5,
                    atol=spacing,
                )


def test_a_norm_beyond_all_floats_is_clipped():
    layer = attnc.Linear(100, 100, bias=False, dtype="float64")
    layer.gradients["weight"] = np.full((100, 100), 1.7e308)
    assert clip_gradients(layer, math.inf) == math.inf
    assert layer.gradients["weight"][0, 0] == 1.7e308
    assert clip_gradients(layer, 1e308) == math.inf
    np.testing.assert_allclose(layer.gradients["weight"], 1e306, rtol=1e-12)


def test_clipping_over_the_whole_range():
    layers = attnc.Linear(1, 2, bias=False, dtype="float64"), attnc.Linear(1, 2, bias=False)
    layers[0].gradients["weight"] = [[1e200, 1e10]]
    layers[1].gradients["weight"] = [[1e30, 0]]
    assert clip_gradients(layers, 1e-150) == pytest.approx(1e200)  # a factor of 1e-350
    np.testing.assert_allclose(layers[0].gradients["weight"], [[1e-150, 0]], rtol=1e-12)
    assert not layers[1].gradients["weight"].any()
    layers[1].gradients["weight"] = [[3e-3, 4e-3]]
    assert clip_gradients(layers, 5e-324) == pytest.approx(5e-3)
    assert not layers[1].gradients["weight"].any()


@makers
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_step_refuses_what_is_not_finite(name, bad, rng):
    layer = attnc.Linear(300, 200, rng=0)
    optimizer = MAKERS[name](layer)
    set_gradients(layer, rng)
    optimizer.step()
    before, kept = layer.state_dict(), optimizer.state_dict()
    layer.gradients["bias"][7] = bad
    with pytest.raises(
        FloatingPointError, match="step: gradients must be finite, got bias with Na"
    ):
        optimizer.step()
    assert_same(layer.state_dict(), before)
    assert_same(optimizer.state_dict(), kept)


def test_adam_refuses_gradients_whose_squares_would_stop_it_for_ever():
    for dtype, large, fine in (("float32", 1e19, 9e18), ("float64", 1e154, 6e153)):
        layer = attnc.Linear(1, 2, dtype=dtype)
        optimizer = Adam(layer, 0.1)
        layer.gradients["bias"] = [large, 1.0]
        message = "gradients must lie below .*, got bias with .*clip_gradients makes them smaller"
        with pytest.raises(FloatingPointError, match=message):
            optimizer.step()
        layer.gradients["bias"] = [fine, -fine]
        for _ in range(50):
            optimizer.step()
        np.testing.assert_allclose(layer.parameters["bias"], [-5, 5], rtol=1e-4)


def test_adam_at_the_lower_end():
    """Gradients that vanish in v are those that epsilon outweighs: the step is m / epsilon."""
    for epsilon in (1e-8, 4e-18):
        for g in (1e-19, 1e-21, 1e-24, 1e-30):
            layer = attnc.Linear(1, 1, bias=False)
            layer.parameters["weight"] = [[0.0]]
            layer.gradients["weight"] = [[g]]
            optimizer = Adam(layer, 0.1, epsilon=epsilon)
            for steps in range(1, 4):
                optimizer.step()
                wanted = -0.1 * steps * g / (g + epsilon)
                np.testing.assert_allclose(layer.parameters["weight"], wanted, rtol=0.02)


def test_adam_with_betas_near_one():
    beta = 1 - 2.0**-53
    layer = attnc.Linear(1, 1, bias=False, dtype="float64")
    layer.parameters["weight"] = [[0.0]]
    optimizer = Adam(layer, 0.1, betas=(beta, beta))
    layer.gradients["weight"] = [[3.0]]
    for _ in range(10):
        optimizer.step()
    np.testing.assert_allclose(layer.parameters["weight"], -1, rtol=1e-6)
    optimizer = Adam(layer, 3e38, betas=(beta, 0))  # no NaN where the rate leaves float32
    small = attnc.Linear(1, 2, rng=0)
    optimizer = Adam(small, 3e38, betas=(beta, 0))
    small.gradients["bias"] = [0.0, 1.0]
    optimizer.step()
    assert small.parameters["bias"][0] == 0 and not np.isnan(small.parameters["bias"]).any()


def test_momentum_never_overflows():
    layer = attnc.Linear(1, 1, bias=False)
    optimizer = SGD(layer, 1e-30, momentum=0.9)
    layer.gradients["weight"] = [[1e38]]
    with pytest.raises(FloatingPointError, match=r"gradients must lie below 1.7e\+37, got weight"):
        optimizer.step()
    layer.gradients["weight"] = [[1.6e37]]
    for _ in range(200):
        optimizer.step()
    assert np.isfinite(optimizer.state_dict()["velocity.weight"]).all()
    SGD(layer, 0).step()


@makers
def test_whatever_the_settings_of_numpy(name):
    def run():
        layer = attnc.Linear(2, 3, rng=0)
        optimizer = MAKERS[name](layer)
        norms = []
        for k in range(3):
            layer.gradients["weight"] = [[1e-45, 1e-30, 1e-20], [0, -1e18, 1e10]]
            layer.gradients["bias"] = [1e-42, 1e-40, 10.0 ** (k - 38)]
            norms.append(clip_gradients(layer, 1e-3 if k else 1e30))
            optimizer.step()
        layer.gradients["weight"] = np.full((2, 3), 1e-42)
        norms.append(clip_gradients(layer, 1e-43))
        return layer.state_dict(), optimizer.state_dict(), norms, dict(layer.gradients)

    expected = run()
    with np.errstate(all="raise"):
        assert_same(run(), expected)


# ---- The state -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"steps": np.array(3.5)},
        {"steps": np.array(True)},
        {"steps": np.array(-1)},
        {"steps": np.array([3])},
        {"steps": "3"},
        {"m.weight": np.full((1, 2), 1e300)},
        {"m.bias": np.ones(2, complex)},
        {"m.bias": np.ma.ones(2)},
        {"v.bias": np.array([0.1, -0.1])},
        {"v.bias": np.array(["a", "b"])},
    ],
)
def test_a_state_that_no_step_leaves(change, rng):
    layer = attnc.Linear(1, 2)
    optimizer = Adam(layer)
    set_gradients(layer, rng)
    optimizer.step()
    before = optimizer.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    with pytest.raises(ValueError, match="Adam.load_state_dict: "):
        optimizer.load_state_dict({**state, **change})
    with pytest.raises(TypeError, match="state must be a mapping of str to array, got Adam"):
        optimizer.load_state_dict(optimizer)
    assert_same(optimizer.state_dict(), before)
    optimizer.load_state_dict({**state, "steps": 7})
    assert optimizer.steps == 7 and type(optimizer.steps) is int


def test_only_layers_have_parameters():
    with pytest.raises(TypeError, match="SGD: layers must be a Layer or several, got ndarray"):
        SGD([np.ones(3)], 0.1)


# ---- Batches in parts ----------------------------------------------------------------------------


def test_parts_of_a_batch_equal_the_whole(rng):
    """Of unequal numbers of sequences and of tokens."""

    def make():
        return attnc.Seq2Seq(12, 12, 6, 6, padding_index=0, tied=True, rng=0, dtype="float64")

    lengths = np.array([7, 1, 2, 3, 6, 1, 4])
    valid = np.arange(7) < lengths[:, None]
    source, labels = (np.where(valid, rng.integers(3, 12, (7, 7)), 0) for _ in range(2))
    target = np.column_stack([np.full(7, 1), labels[:, :-1]])

    def gradients(part, scale):
        output, pullback = attnc.vjp(model, source[part], target[part], labels=labels[part])
        pullback(scale)
        return output.loss * scale

    model = make()
    loss = gradients(slice(None), 1.0)
    expected = {name: gradient.copy() for name, gradient in model.gradients.items()}
    model, total, sums = make(), 0, 0.0
    for part in (slice(0, 1), slice(1, 4), slice(4, 5), slice(5, 7)):
        tokens = np.count_nonzero(labels[part])
        sums += gradients(part, tokens)
        total += tokens
    scale_gradients([model, model], 1 / total)  # once
    assert sums / total == pytest.approx(loss)
    for name, gradient in model.gradients.items():
        assert_agree(gradient, expected[name])
    model.zero_grad()
    for part in (slice(0, 1), slice(1, 4), slice(4, 5), slice(5, 7)):
        gradients(part, 1 / 4)  # the mean of means is another
    assert any(
        not np.allclose(gradient, expected[name]) for name, gradient in model.gradients.items()
    )


def test_errors_of_scaling():
    layer = attnc.Linear(2, 2)
    for factor, error in ((np.nan, ValueError), (np.inf, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="scale_gradients: factor must be finite, got"):
            scale_gradients(layer, factor)
    with pytest.raises(TypeError, match="scale_gradients: layers must be a Layer or several"):
        scale_gradients(3, 1.0)


# ---- Averages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("tie", [None, "method", "by hand"])
def test_averages_are_the_sum_that_is_written_there(decay, tie, rng):
    layers = views(tie)  # large ones, with a transpose
    first = [layer.state_dict() for layer in layers]
    average = ExponentialAverage(layers, decay)
    seen = []
    for n in range(1, 6):
        for layer in layers:
            layer.parameters["weight"] = rng.standard_normal(layer.parameters["weight"].shape)
        if tie:
            layers[0].parameters["weight"] = layers[1].parameters["weight"].T
        seen.append([layer.parameters["weight"].astype(float) for layer in layers])
        average.update()
        shares = np.array([decay ** (n - k) for k in range(1, n + 1)])
        shares /= shares.sum()
        with average.swapped_in():
            for index, layer in enumerate(layers):
                expected = sum(s * each[index] for s, each in zip(shares, seen, strict=True))
                np.testing.assert_allclose(
                    layer.parameters["weight"], expected.astype(np.float32), rtol=1e-5, atol=1e-7
                )
        for layer, each in zip(layers, seen[-1], strict=True):
            assert_same(layer.parameters["weight"].astype(float), each)
    assert average.updates == 5 and average.decay == decay
    assert len(average.state_dict()) == (2 if tie else 3)
    with average.swapped_in():
        assert all(
            (layer.parameters["weight"] != old["weight"]).any()
            for layer, old in zip(layers, first, strict=True)
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_does_not_change_is_its_average(dtype, rng):
    layer = attnc.Linear(300, 200, rng=0, dtype=dtype).freeze("weight")
    average, optimizer = ExponentialAverage(layer, 0.9), SGD(layer, 0.1)
    before = layer.state_dict()
    for _ in range(7):
        set_gradients(layer, rng)
        optimizer.step()
        average.update()
    with average.swapped_in():
        assert_same(layer.parameters["weight"], before["weight"])
        assert (layer.parameters["bias"] != before["bias"]).any()


def test_an_average_of_many_steps_does_not_stand_still():
    """In float32, a ten-thousandth of this difference would be rounded away."""
    layer = attnc.Linear(1, 1, bias=False)
    average = ExponentialAverage(layer, 0.9999)
    for n in range(40000):
        layer.parameters["weight"] = [[1.0 if n < 20000 else 1.0002]]
        average.update()
    share = (1 - 0.9999**20000) / (1 - 0.9999**40000)
    with average.swapped_in():
        assert layer.parameters["weight"].item() == pytest.approx(1 + 2e-4 * share, abs=2e-7)


def test_own_weights_come_back_whatever_happens(tmp_path, rng):
    layer = attnc.Linear(2, 3, rng=0)
    average = ExponentialAverage(layer, 0.5)
    with pytest.raises(ValueError, match="ExponentialAverage.swapped_in: update must come first"):
        with average.swapped_in():
            pass
    average.update()
    layer.parameters["weight"] *= 3
    average.update()
    own = layer.state_dict()
    with pytest.raises(ZeroDivisionError), average.swapped_in():
        layer.parameters["bias"] = [7, 7, 7]
        1 / 0  # noqa: B018
    assert_same(layer.state_dict(), own)
    with average.swapped_in():
        attnc.save(tmp_path / "model", layer)
        averaged = layer.state_dict()
        for call in (average.update, lambda: average.swapped_in().__enter__()):
            with pytest.raises(ValueError, match="must have their own weights, got the averages"):
                call()
    assert_same(layer.state_dict(), own)
    assert_same(attnc.load(tmp_path / "model").layer.state_dict(), averaged)
    assert (averaged["weight"] != own["weight"]).all()


@pytest.mark.parametrize("how", ["file", "deepcopy", "pickle"])
def test_an_average_goes_on_where_it_was(how, tmp_path, rng):
    layer = attnc.Linear(3, 2, rng=0)
    average = ExponentialAverage(layer, 0.8)
    weights = rng.standard_normal((6, 3, 2))

    def run(layer, average, some):
        for each in some:
            layer.parameters["weight"] = each
            average.update()

    run(layer, average, weights[:3])
    if how == "file":
        np.savez(tmp_path / "average.npz", **average.state_dict())
        twin = copy.deepcopy(layer)
        other = ExponentialAverage(twin, 0.8)
        with np.load(tmp_path / "average.npz", allow_pickle=False) as state:
            other.load_state_dict(state)
    elif how == "deepcopy":
        twin, other = copy.deepcopy((layer, average))
    else:
        twin, other = pickle.loads(pickle.dumps((layer, average)))
    run(layer, average, weights[3:])
    run(twin, other, weights[3:])
    assert_same(other.state_dict(), average.state_dict())
    with other.swapped_in(), average.swapped_in():
        assert_same(twin.state_dict(), layer.state_dict())


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: ExponentialAverage(x, 1.0), ValueError, "decay must lie in 0 <= decay < 1"),
        (lambda x: ExponentialAverage(x, "0"), TypeError, "decay must lie in 0 <= decay < 1"),
        (lambda x: ExponentialAverage(3), TypeError, "layers must be a Layer or several"),
        (lambda x: ExponentialAverage([]), ValueError, "layers must have parameters, got none"),
        (
            lambda x: ExponentialAverage(x).load_state_dict({"updates": 1}),
            ValueError,
            "load_state_dict: state must hold exactly .* missing: average.weight, average.bias",
        ),
        (
            lambda x: ExponentialAverage(x).load_state_dict(
                ExponentialAverage(x).state_dict() | {"updates": 1.5}
            ),
            ValueError,
            "load_state_dict: ",
        ),
        (lambda x: ExponentialAverage(x).load_state_dict(3), TypeError, "state must be a mapping"),
    ],
)
def test_errors_of_averages(call, error, message):
    with pytest.raises(error, match=f"ExponentialAverage.*{message}"):
        call(attnc.Linear(1, 1))


def test_layers_that_have_got_other_parameters():
    model = attnc.Sequential(attnc.Linear(2, 2))
    average = ExponentialAverage(model)
    model.layers = [attnc.Linear(3, 3)]
    with pytest.raises(ValueError, match="ExponentialAverage.update: layers must have the param"):
        average.update()


@pytest.mark.parametrize("kind", [attnc.optim.Adam, attnc.optim.AdamW])
def test_betas_of_no_axis(kind):
    with pytest.raises(ValueError, match="betas must be a pair"):
        kind(attnc.Linear(2, 2), betas=np.array(0.9))

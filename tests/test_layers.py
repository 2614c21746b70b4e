"""The base of the layers, Linear and Embedding."""

import copy

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import check_float32, check_house, check_layer, randomize

import attnc
from attnc.gradients import Gradients
from attnc.layers.base import Layer


class Net(Layer):
    """A layer of layers, one of them in a list."""

    def __init__(self, size, *, rng=None, dtype=np.float32):
        super().__init__(dtype)
        self.size = size
        rng = np.random.default_rng(rng)
        self.first = attnc.Linear(size, size, rng=rng, dtype=dtype)
        self.rest = [attnc.Linear(size, size, rng=rng, dtype=dtype) for _ in range(2)]
        self.add_parameter("gain", np.ones(size))

    def __call__(self, x):
        return self._vjp(x)[0]

    def _vjp(self, x):
        pullbacks = []
        for layer in (self.first, *self.rest):
            x, pullback = attnc.vjp(layer, x)
            pullbacks.append(pullback)
        gain = self.parameters["gain"]

        def pullback(dy):
            self.gradients["gain"] += (x * dy).reshape(-1, self.size).sum(axis=0)
            dy = dy * gain
            for back in reversed(pullbacks):
                (dy,) = back(dy)
            return Gradients({"x": dy})

        return x * gain, pullback


# ---- Base ----------------------------------------------------------------------------------------


def test_names_of_parameters_cover_the_layers_inside():
    net = Net(3)
    expected = [
        "gain",
        "first.weight",
        "first.bias",
        "rest.0.weight",
        "rest.0.bias",
        "rest.1.weight",
        "rest.1.bias",
    ]
    assert list(net.parameters) == list(net.gradients) == expected
    assert net.parameters["rest.1.bias"] is net.rest[1].parameters["bias"]
    assert repr(net.parameters).startswith("<gain (3,), first.weight (3, 3)")


def test_layer_of_layers(rng):
    check_layer(randomize(Net(3, dtype="float64"), rng), (rng.standard_normal((2, 5, 3)),), {}, rng)


def test_writing_a_parameter_writes_into_the_shared_array():
    net = Net(2)
    array = net.first.parameters["weight"]
    net.parameters["first.weight"] = [[1, 2], [3, 4]]
    net.parameters["first.weight"] += 1
    np.testing.assert_array_equal(array, [[2, 3], [4, 5]])
    assert net.first.parameters["weight"] is array
    with pytest.raises(ValueError, match=r"first.weight must have shape \(2, 2\), got \(3,\)"):
        net.parameters["first.weight"] = [1, 2, 3]
    with pytest.raises(KeyError):
        net.parameters["second"] = 1


def test_zero_grad():
    net = Net(2)
    attnc.vjp(net, np.ones((3, 2)))[1](np.ones((3, 2)))
    assert all(g.any() for name, g in net.gradients.items() if "bias" in name)
    net.zero_grad()
    assert not any(g.any() for g in net.gradients.values())


def test_rng_gives_the_initial_values():
    def weights(rng):
        return attnc.Linear(3, 4, rng=rng).state_dict()

    assert_same(weights(0), weights(0))
    assert_same(weights(0), weights(np.random.default_rng(0)))
    assert (weights(0)["weight"] != weights(1)["weight"]).all()
    assert (weights(None)["weight"] != weights(None)["weight"]).all()
    generator = np.random.default_rng(0)
    assert (weights(generator)["weight"] != weights(generator)["weight"]).all()


def test_load_state_dict_lists_every_fault_and_changes_nothing():
    net = Net(2)
    before = net.state_dict()
    state = {**before, "first.weight": np.ones((3, 2)), "extra": np.ones(1)}
    del state["rest.0.bias"]
    with pytest.raises(ValueError) as error:
        net.load_state_dict(state)
    assert str(error.value) == (
        "Net.load_state_dict: state must hold exactly the names and shapes of the parameters, got "
        "missing: rest.0.bias; unexpected: extra; misshapen: first.weight (3, 2) instead of (2, 2)"
    )
    assert_same(net.state_dict(), before)


def test_load_refuses_pickles(tmp_path):
    np.savez(tmp_path / "bad.npz", weight=np.array([{}], dtype=object), bias=np.ones(3))
    with pytest.raises(ValueError, match="allow_pickle"):
        attnc.Linear(2, 3).load(tmp_path / "bad.npz")


def test_an_interrupted_save_leaves_the_earlier_file(tmp_path, monkeypatch):
    layer = attnc.Linear(2, 2, rng=0)
    layer.save(tmp_path / "layer.npz")
    before = layer.state_dict()
    layer.parameters["weight"] = np.zeros((2, 2))

    def interrupt(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        layer.save(tmp_path / "layer.npz")
    monkeypatch.undo()
    assert_same(layer.load(tmp_path / "layer.npz").state_dict(), before)


def test_a_copy_is_independent():
    layer = attnc.Linear(2, 2, rng=0)
    twin = copy.deepcopy(layer)
    twin.parameters["weight"] = np.zeros((2, 2))
    assert layer.parameters["weight"].any()


def test_a_forward_pass_in_between_disturbs_nothing(rng):
    net = Net(3, rng=0, dtype="float64")
    x, other, dy = (rng.standard_normal((2, 3)) for _ in range(3))
    (expected,) = attnc.vjp(net, x)[1](dy)
    gradients = {name: g.copy() for name, g in net.gradients.items()}
    net.zero_grad()
    _, pullback = attnc.vjp(net, x)
    net(other)
    attnc.vjp(net, other)
    assert_same(pullback(dy)[0], expected)
    assert_same(dict(net.gradients), gradients)


@pytest.mark.parametrize("dtype", ["float16", "int64", "complex128"])
def test_dtype_of_a_layer(dtype):
    with pytest.raises(TypeError, match=f"Linear: dtype must be float32 or float64, got {dtype}"):
        attnc.Linear(2, 2, dtype=dtype)


@pytest.mark.parametrize(
    "value, got",
    [
        (np.ones((2, 3), complex), "complex128"),
        (np.ones((2, 3), np.longdouble), "float128|longdouble"),
        (np.ones((2, 3), object), "object"),
        (np.ones((2, 3), bool), "bool"),
        (np.ma.ones((2, 3)), "a masked array"),
    ],
)
def test_inputs_must_be_real_arrays(value, got):
    with pytest.raises(TypeError, match=f"Linear: x must be .*, got .*({got})"):
        attnc.Linear(3, 4)(value)


def test_tensors_are_refused_by_name():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="x must be a NumPy array, got Tensor of torch"):
        attnc.Linear(3, 4)(torch.ones(2, 3))


@pytest.mark.parametrize(
    "layout", ["list", "int", "float16", "fortran", "strided", "readonly", "swapped"]
)
def test_any_array_of_real_numbers_is_taken(layout):
    x = np.arange(12).reshape(4, 3)
    layer = attnc.Linear(3, 2, rng=0, dtype="float64")
    expected = layer(x.astype(float))
    x = {
        "list": x.tolist,
        "int": lambda: x,
        "float16": lambda: x.astype(np.float16),
        "fortran": lambda: np.asfortranarray(x, float),
        "strided": lambda: np.repeat(x[::-1], 2, axis=1).astype(float)[::-1, ::2],
        "readonly": lambda: np.broadcast_to(x.astype(float), x.shape),
        "swapped": lambda: x.astype(">f8"),
    }[layout]()
    y, pullback = attnc.vjp(layer, x)
    assert_same(y, expected)
    (dx,) = pullback(np.ones_like(y))
    assert dx.dtype == (np.float16 if layout == "float16" else np.float64) and dx.dtype.isnative


# ---- Linear --------------------------------------------------------------------------------------


def test_linear_by_hand():
    layer = attnc.Linear(2, 3, dtype="float64")
    layer.load_state_dict({"weight": [[1, 2, 3], [4, 5, 6]], "bias": [10, 20, 30]})
    y, pullback = attnc.vjp(layer, [[1, -1], [2, 0]])
    np.testing.assert_array_equal(y, [[7, 17, 27], [12, 24, 36]])
    (dx,) = pullback([[1, 0, 0], [0, 1, 1]])
    np.testing.assert_array_equal(dx, [[1, 4], [5, 11]])
    np.testing.assert_array_equal(layer.gradients["weight"], [[1, 2, 2], [-1, 0, 0]])
    np.testing.assert_array_equal(layer.gradients["bias"], [1, 1, 1])


@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (0,), (2, 0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(lead, bias, rng, tmp_path):
    layer = randomize(attnc.Linear(3, 7, bias=bias, dtype="float64"), rng)
    y, _ = check_layer(layer, (rng.standard_normal((*lead, 3)),), {}, rng)
    assert y.shape == (*lead, 7)
    check_house(layer, tmp_path)
    check_float32(attnc.Linear(3, 7, bias=bias), (rng.standard_normal((*lead, 3)),), {})


def test_linear_errors():
    with pytest.raises(ValueError, match=r"^Linear: x must have shape \(..., 3\), got \(2, 4\)$"):
        attnc.Linear(3, 4)(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"^Linear: x must have shape \(..., 3\), got \(\)$"):
        attnc.Linear(3, 4)(1.0)
    with pytest.raises(ValueError, match=r"^Linear: dy must have shape \(2, 4\), got \(2, 3\)$"):
        attnc.vjp(attnc.Linear(3, 4), np.ones((2, 3)))[1](np.ones((2, 3)))
    for size in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="Linear: output_size must be a positive integer, got"):
            attnc.Linear(3, size)


# ---- Embedding -----------------------------------------------------------------------------------


def test_embedding(rng, tmp_path):
    layer = attnc.Embedding(11, 5, dtype="float64")
    tokens = rng.integers(0, 11, (3, 7))
    y, gradients = check_layer(layer, (tokens,), {}, rng)
    assert len(gradients) == 0  # tokens are integers
    np.testing.assert_array_equal(y, layer.parameters["weight"][tokens])
    check_house(layer, tmp_path)
    check_float32(attnc.Embedding(11, 5), (tokens,), {})


def test_embedding_adds_up_repeated_tokens(rng):
    layer = attnc.Embedding(4, 3, dtype="float64")
    tokens, dy = rng.integers(0, 3, (2, 50)), rng.standard_normal((2, 50, 3))
    attnc.vjp(layer, tokens)[1](dy)
    expected = np.zeros((4, 3))
    np.add.at(expected, tokens, dy)
    assert_agree(layer.gradients["weight"], expected)


def test_embedding_padding_stays_zero(rng, tmp_path):
    layer = attnc.Embedding(4, 3, padding_index=2, dtype="float64", rng=0)
    assert not layer([2, 2]).any() and layer([0, 1, 3]).all()
    dy = np.ones((3, 3))
    dy[1] = np.nan
    attnc.vjp(layer, [0, 2, 3])[1](dy)
    np.testing.assert_array_equal(layer.gradients["weight"], [[1] * 3, [0] * 3, [0] * 3, [1] * 3])
    check_house(layer, tmp_path)


def test_embedding_of_nothing():
    layer = attnc.Embedding(4, 3)
    y, pullback = attnc.vjp(layer, np.zeros((2, 0), int))
    assert y.shape == (2, 0, 3)
    pullback(y)
    assert not layer.gradients["weight"].any()


def test_embedding_errors():
    layer = attnc.Embedding(4, 3)
    with pytest.raises(ValueError, match=r"^Embedding: tokens must lie in 0..3, got -1..4$"):
        layer([-1, 4])
    with pytest.raises(TypeError, match=r"^Embedding: tokens must be integers, got float64"):
        layer([0.0])
    with pytest.raises(ValueError, match=r"^Embedding: padding_index must lie in 0..3, got 4$"):
        attnc.Embedding(4, 3, padding_index=4)


@pytest.mark.parametrize(
    "tokens, error, message",
    [
        (True, TypeError, "tokens must be integers, got bool"),
        ([True, False], TypeError, "tokens must be integers, got bool"),
        (np.ma.array([1]), TypeError, "tokens must be a plain array, got a masked array"),
        ([[1], [1, 2]], TypeError, r"tokens must be an array.*attnc.data.pad"),
        (np.array([1], object), TypeError, "tokens must be integers, got object"),
        (np.array([2**64 - 1], np.uint64), ValueError, "tokens must lie in 0..3, got 1844674407"),
        (None, TypeError, "tokens must be integers"),
    ],
)
def test_tokens_of_the_wrong_kind(tokens, error, message):
    with pytest.raises(error, match=f"^Embedding: {message}"):
        attnc.Embedding(4, 3)(tokens)


def test_embedding_wants_a_gradient():
    _, pullback = attnc.vjp(attnc.Embedding(4, 3), [1])
    for nothing in ((), (None,)):
        with pytest.raises(TypeError, match="^Embedding: pullback must get dy"):
            pullback(*nothing)
    for padding in (1.0, True, "1"):
        with pytest.raises(TypeError, match="^Embedding: padding_index must be an integer"):
            attnc.Embedding(4, 3, padding_index=padding)


def test_embedding_adds_up_a_token_met_a_million_times():
    layer = attnc.Embedding(3, 2, padding_index=0)
    tokens = np.full(1_000_000, 2)
    tokens[::3] = 1
    tokens[::7] = 0
    y, pullback = attnc.vjp(layer, tokens)
    pullback(np.full_like(y, 0.1))
    expected = np.bincount(tokens)[:, None] * np.full(2, np.float64(np.float32(0.1)))
    expected[0] = 0
    np.testing.assert_allclose(layer.gradients["weight"], expected, rtol=1e-5)


def test_embedding_adds_up_tokens_of_every_count(rng):
    """Some are there once, some many times, in any order; the same bits as one after the other."""
    counts = [0, 1, 1, 2, 5, 40, 64, 65, 200]
    tokens = rng.permutation(np.repeat(np.arange(9), counts))
    dy = rng.standard_normal((len(tokens), 3)).astype(np.float32)
    layer = attnc.Embedding(9, 3)
    attnc.vjp(layer, tokens)[1](dy)
    one_by_one, exact = np.zeros((9, 3), np.float32), np.zeros((9, 3))
    np.add.at(one_by_one, tokens, dy)
    np.add.at(exact, tokens, dy)
    few = np.array(counts) <= 64
    np.testing.assert_array_equal(layer.gradients["weight"][few], one_by_one[few])
    np.testing.assert_allclose(layer.gradients["weight"], exact, atol=1e-5)

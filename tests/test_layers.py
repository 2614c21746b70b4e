"""The base of the layers, Linear and Embedding."""

import copy
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import check_float32, check_house, check_layer, randomize

import attnc
from attnc.gradients import Gradients
from attnc.layers.base import Layer, caught_gradients


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
            self.add_gradient("gain", (x * dy).reshape(-1, self.size).sum(axis=0))
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
    with pytest.raises(TypeError, match="x must be a NumPy array, got a PyTorch tensor"):
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


@pytest.mark.parametrize("dtype", [None, "double trouble", ">f4", "int32"])
def test_a_dtype_that_is_none(dtype):
    with pytest.raises(TypeError, match=f"Linear: dtype must be float32 or float64, got {dtype}"):
        attnc.Linear(2, 2, dtype=dtype)


# ---- What parameters and gradients do ------------------------------------------------------------

WRITES = {
    "[]": lambda p, name, value: p.__setitem__(name, value),
    "update": lambda p, name, value: p.update({name: value}),
    "update by name": lambda p, name, value: p.update(**{name: value}),
    "update by pairs": lambda p, name, value: p.update([(name, value)]),
    "|=": lambda p, name, value: p.__ior__({name: value}),
    "load_state_dict": None,
}


@pytest.mark.parametrize("way", list(WRITES)[:-1])
@pytest.mark.parametrize("kind", ["parameters", "gradients"])
def test_every_way_of_writing_writes_into_the_array(way, kind):
    layer = attnc.Linear(3, 2)
    array = getattr(layer, kind)["weight"]
    WRITES[way](getattr(layer, kind), "weight", [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(array, [[1, 2], [3, 4], [5, 6]])
    assert getattr(layer, kind)["weight"] is array
    with pytest.raises(KeyError, match=f"{kind}: name must be one of weight, bias; got 'wieght'"):
        WRITES[way](getattr(layer, kind), "wieght", np.ones((3, 2)))


REFUSED = {
    "masked": (lambda: np.ma.ones((3, 2)), "must be a plain array"),
    "complex": (lambda: np.ones((3, 2), complex), "must be real, got complex128"),
    "bool": (lambda: np.ones((3, 2), bool), "must be real, got bool"),
    "bools in a list": (lambda: [[True, 1], [0, 1], [0, 1]], "must be numbers, got bools"),
    "strings": (lambda: np.full((3, 2), "1"), "must be real, got <U1"),
    "None": (lambda: None, "must be real, got object"),
    "ragged": (lambda: [[1, 2], [3], [4, 5]], "rows of equal length"),
    "tensor": (lambda: pytest.importorskip("torch").ones(3, 2), r"\.detach\(\)\.numpy\(\)"),
}


@pytest.mark.parametrize("way", WRITES)
@pytest.mark.parametrize("case", REFUSED)
def test_every_way_of_writing_refuses_what_is_not_real(way, case):
    layer = attnc.Linear(3, 2, rng=0)
    before = layer.state_dict()
    value, message = REFUSED[case][0](), REFUSED[case][1]
    with pytest.raises(TypeError, match=message):
        if way == "load_state_dict":
            layer.load_state_dict({"bias": np.zeros(2), "weight": value})
        else:
            WRITES[way](layer.parameters, "weight", value)
    assert_same(layer.state_dict(), before)


@pytest.mark.parametrize("way", WRITES)
def test_every_way_of_writing_keeps_to_the_range_of_the_dtype(way):
    layer = attnc.Linear(3, 2, rng=0)
    before = layer.state_dict()
    value = np.full((3, 2), [np.nan, np.inf])

    def write():
        if way == "load_state_dict":
            layer.load_state_dict({"bias": np.zeros(2), "weight": value})
        else:
            WRITES[way](layer.parameters, "weight", value)

    value[1, 0] = 1e300
    with pytest.raises(ValueError, match=r"weight must lie in the range of float32, got 1e\+300"):
        write()
    assert_same(layer.state_dict(), before)
    value[1, 0] = 1e-300  # rounds to zero; NaN and infinity are themselves
    write()
    np.testing.assert_array_equal(
        layer.parameters["weight"], [[np.nan, np.inf], [0, np.inf], [np.nan, np.inf]]
    )
    with pytest.raises(ValueError, match=r"\(1, 2\)"):  # no broadcasting
        value = np.ones((1, 2))
        write()


def test_an_update_is_done_whole_or_not_at_all():
    layer = attnc.Linear(3, 3, rng=0)
    before = layer.state_dict()
    for value in (np.ones(4), np.ones(3, complex), 1.0, None):
        with pytest.raises((TypeError, ValueError)):
            layer.parameters.update(weight=np.zeros((3, 3)), bias=value)
    with pytest.raises(KeyError):
        layer.parameters.update(weight=np.zeros((3, 3)), bais=np.zeros(3))
    assert_same(layer.state_dict(), before)
    net = Net(2, rng=0)
    first, second = (net.state_dict()[f"rest.{k}.weight"] for k in (0, 1))
    p = net.parameters
    p.update({"rest.0.weight": p["rest.1.weight"], "rest.1.weight": p["rest.0.weight"]})
    assert_same([p["rest.0.weight"], p["rest.1.weight"]], [second, first])


def test_names_cannot_be_removed():
    p = attnc.Linear(3, 2).parameters
    for remove in (
        lambda: p.pop("weight"),
        lambda: p.pop("wieght", None),
        p.popitem,
        p.clear,
        lambda: p.__delitem__("weight"),
    ):
        with pytest.raises(TypeError, match="parameters: entries must stay"):
            remove()
    assert list(p) == ["weight", "bias"]
    assert p.setdefault("weight", 1) is p["weight"]
    with pytest.raises(KeyError, match="name must be one of weight, bias; got 'wieght'"):
        p.setdefault("wieght", 1)


@pytest.mark.parametrize("kind", ["parameters", "gradients"])
def test_copies_of_parameters(kind):
    layer = attnc.Linear(3, 2, rng=0)
    arrays = getattr(layer, kind)
    for same in (copy.copy(arrays), arrays.copy()):
        assert type(same) is type(arrays) and all(same[name] is arrays[name] for name in arrays)
    for other in (copy.deepcopy(arrays), pickle.loads(pickle.dumps(arrays))):
        assert type(other) is type(arrays) and other == arrays and not other != arrays
        other["weight"] = np.full((3, 2), 9)
        assert other != arrays and not np.shares_memory(other["weight"], arrays["weight"])
        with pytest.raises(ValueError, match=f"{kind}: bias must have shape"):
            other["bias"] = 1
    assert arrays == layer.state_dict() or kind == "gradients"
    assert arrays != {"weight": 0} and arrays != 3 and isinstance(arrays, dict)
    assert type(arrays | {"extra": 1}) is dict and list(arrays) == ["weight", "bias"]
    assert arrays.fromkeys(["a"], 1) == {"a": 1}


@pytest.mark.parametrize("state", [None, "path.npz", [1, 2], attnc.Linear(2, 2)])
def test_a_state_is_a_mapping(state):
    with pytest.raises(TypeError, match="Linear.load_state_dict: state must be a mapping"):
        attnc.Linear(2, 2).load_state_dict(state)


def test_load_state_dict_lists_values_of_a_wrong_kind_among_the_faults():
    layer = attnc.Linear(3, 2, rng=0)
    before = layer.state_dict()
    with pytest.raises(ValueError) as error:  # a fault of the state, like a missing name
        layer.load_state_dict({"weight": np.zeros((3, 2)), "bias": ["a", "b"], 3: 1})
    assert str(error.value) == (
        "Linear.load_state_dict: state must hold exactly the names and shapes of the parameters, "
        "got unexpected: 3; refused: bias must be real, got <U1"
    )
    assert_same(layer.state_dict(), before)


# ---- Layers inside -------------------------------------------------------------------------------


def linear():
    return attnc.Linear(2, 2, bias=False)


def test_layers_are_found_in_lists_tuples_and_dicts():
    model = Layer()
    model.one = {"left": linear(), 2: [linear(), (linear(), 7)], "no": "layer"}
    model.words = ["some", "words", ["and", "others"]]
    assert list(model.parameters) == ["one.left.weight", "one.2.0.weight", "one.2.1.0.weight"]
    model.two = {linear()}
    with pytest.raises(TypeError, match="two must be a list, tuple or dict of layers, got a set"):
        _ = model.parameters
    model.two = {"words", "in a set"}
    assert len(model.parameters) == 3


def test_layers_that_contain_each_other():
    parent, child = Net(2), linear()
    parent.child, child.parent = child, parent
    assert list(parent.parameters)[-1] == "child.weight"
    assert list(child.parameters)[:2] == ["weight", "parent.gain"]
    child.itself = child
    assert len(child.parameters) == 8
    parent.zero_grad()


def test_two_parameters_of_one_name():
    model = Layer()
    model.one = {1: linear(), "1": linear()}
    with pytest.raises(ValueError, match="must differ in names, got two called one.1.weight"):
        _ = model.parameters
    for name in ("a.b", "", 3):
        with pytest.raises(ValueError, match="name must be a str without dots, got"):
            model.add_parameter(name, 1.0)
    with pytest.raises(TypeError, match="Layer.add_parameter: a must be real, got bool"):
        model.add_parameter("a", True)
    with pytest.raises(ValueError, match="a must lie in the range of float32, got 1e"):
        model.add_parameter("a", 1e39)


def test_a_parameter_is_not_an_attribute():
    layer = attnc.Linear(3, 2, rng=0)
    with pytest.raises(AttributeError, match=r"set by layer.parameters\['weight'\] = ..."):
        layer.weight = np.ones((3, 2))
    with pytest.raises(AttributeError, match=r"the parameter is layer.parameters\['weight'\]"):
        _ = layer.weight
    with pytest.raises(AttributeError, match="^'Linear' object has no attribute 'wieght'$"):
        _ = layer.wieght
    with pytest.raises(AttributeError, match=r"layer.parameters\['scale'\]"):
        attnc.CosineAttention().scale = 3.0


class Forgetful(Layer):
    def __init__(self, size, *more, dtype="float32", **options):
        self.inside = linear()


@pytest.mark.parametrize(
    "use",
    [
        lambda layer: layer.add_parameter("a", 1),
        lambda layer: layer.parameters,
        lambda layer: layer.state_dict(),
        lambda layer: layer.add_gradient("a", 1),
        lambda layer: layer._real("x", [1.0], "T"),
        lambda layer: attnc.optim.SGD(layer, 1),
    ],
)
def test_a_forgotten_init_of_the_base(use):
    with pytest.raises(RuntimeError, match=r"Forgetful: __init__ must begin with super\(\).__init"):
        use(Forgetful(3))


def test_repr_without_the_attributes():
    assert repr(Forgetful(3)) == "Forgetful(size=..., dtype=...)"
    layer = Net(3)
    layer.size = np.ones(2)
    assert repr(layer) == "Net(size=array([1., 1.]))"
    layer.size = layer
    assert repr(layer) == "Net(size=...)"


# ---- Ties ----------------------------------------------------------------------------------------


class Tied(Layer):
    """An embedding and the output layer with its table."""

    def __init__(self, private=False):
        super().__init__("float64")
        self.output = attnc.Linear(3, 5, rng=0, dtype="float64")  # before what it is tied to
        self.embedding = attnc.Embedding(5, 3, rng=1, dtype="float64")
        if private:
            for kind in ("_parameters", "_gradients"):
                getattr(self.output, kind)["weight"] = getattr(self.embedding, kind)["weight"].T
        else:
            self.output.tie("weight", self.embedding, "weight", transpose=True)


def assert_tied(model):
    p, g = model.parameters, model.gradients
    for arrays in (p, g):
        np.testing.assert_array_equal(arrays["output.weight"], arrays["embedding.weight"].T)
        arrays["output.weight"] += 1
        np.testing.assert_array_equal(arrays["output.weight"], arrays["embedding.weight"].T)
        assert model.output._parameters["weight"] is p["output.weight"]


def copies(model):
    yield copy.deepcopy(model)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(model, protocol))
    yield copy.deepcopy(pickle.loads(pickle.dumps(model)))


def test_a_tie_shares_parameter_and_gradient(rng):
    model = Tied()
    assert_tied(model)
    model.zero_grad()
    y, pullback = attnc.vjp(model.output, rng.standard_normal((4, 3)))
    pullback(np.ones_like(y))
    alone = model.gradients["embedding.weight"].copy()
    words, pullback = attnc.vjp(model.embedding, [1, 1])
    pullback(np.ones_like(words))
    alone[1] += 2
    assert_agree(model.gradients["output.weight"], alone.T)
    assert list(model.parameters) == ["output.weight", "output.bias", "embedding.weight"]


@pytest.mark.parametrize("private", [False, True])
def test_copies_keep_the_tie(private):
    model = Tied(private)
    for twin in copies(model):
        assert_same(twin.state_dict(), model.state_dict())
        assert_tied(twin)
        assert (twin.parameters["output.weight"] != model.parameters["output.weight"]).all()
    pair = model.output, model.embedding
    for output, embedding in (copy.deepcopy(pair), copy.deepcopy(pair[::-1])[::-1]):
        output.parameters["weight"] += 1
        np.testing.assert_array_equal(output.parameters["weight"], embedding.parameters["weight"].T)


def test_copy_copy_shares_the_arrays():
    model = Tied()
    twin = copy.copy(model.output)
    twin.parameters["weight"] += 1
    assert_tied(model)
    np.testing.assert_array_equal(twin.parameters["weight"], model.parameters["output.weight"])
    twin.add_parameter("extra", 1.0)
    assert "extra" not in model.output.parameters


def test_states_of_tied_parameters(tmp_path):
    model, twin = Tied(), Tied()
    model.parameters["embedding.weight"] += 1
    state = model.state_dict()
    assert list(state) == list(model.parameters)
    model.save(tmp_path / "model.npz")
    assert_same(twin.load(tmp_path / "model.npz").state_dict(), state)
    before = twin.state_dict()
    state["embedding.weight"][2, 1] += 1
    state["output.bias"] += 1
    message = "output.weight and embedding.weight must be equal, as they are one array"
    with pytest.raises(ValueError, match=f"Tied.load_state_dict: {message}"):
        twin.load_state_dict(state)
    with pytest.raises(ValueError, match=f"parameters: {message}"):
        twin.parameters.update(state)
    assert_same(twin.state_dict(), before)
    state["output.weight"] = np.full((3, 5), np.nan)
    state["embedding.weight"] = np.full((5, 3), np.nan)
    twin.load_state_dict(state)
    assert np.isnan(twin.parameters["output.weight"]).all()


def test_ties_by_dotted_names_and_of_one_shape():
    net = Net(2, rng=0)
    net.tie("rest.0.weight", net, "first.weight")
    assert net.parameters["rest.0.weight"] is net.parameters["first.weight"]
    net.tie("rest.1.weight", net.rest[0], "weight", transpose=True)
    net.parameters["rest.1.weight"] = [[1, 2], [3, 4]]
    np.testing.assert_array_equal(net.first.parameters["weight"], [[1, 3], [2, 4]])
    for twin in copies(net):
        twin.parameters["first.weight"] = [[5, 6], [7, 8]]
        np.testing.assert_array_equal(twin.parameters["rest.1.weight"], [[5, 7], [6, 8]])
    with pytest.raises(ValueError, match="first.weight must not be tied yet, got one that is"):
        net.tie("first.weight", linear(), "weight")  # those tied to it would be left behind
    with pytest.raises(ValueError, match="name must not be that of a tied parameter"):
        net.first.add_parameter("weight", np.ones((2, 2)))


def test_tie_errors():
    layer, other = attnc.Linear(3, 2), attnc.Linear(2, 3)
    before = layer.state_dict()
    with pytest.raises(ValueError, match=r"weight must have shape \(3, 2\) and dtype float32 like"):
        layer.tie("weight", other, "weight")
    with pytest.raises(ValueError, match=r"got \(3, 2\) and float64 transposed"):
        layer.tie("weight", attnc.Linear(2, 3, dtype="float64"), "weight", transpose=True)
    with pytest.raises(
        KeyError, match="Linear.tie: name must be one of weight, bias; got 'wieght'"
    ):
        layer.tie("wieght", other, "weight")
    with pytest.raises(TypeError, match="other must be a Layer, got ndarray"):
        layer.tie("weight", other.parameters["weight"], "weight")
    with pytest.raises(TypeError, match="transpose must be True or False, got 1"):
        layer.tie("weight", other, "weight", transpose=1)
    with pytest.raises(ValueError, match="weight must not be tied yet"):
        layer.tie("weight", layer, "weight")
    assert_same(layer.state_dict(), before)


# ---- Adding gradients ----------------------------------------------------------------------------


def test_pullbacks_in_several_threads_lose_nothing():
    net = Net(300)
    y, pullback = attnc.vjp(net, np.ones((2, 300), np.float32))
    d = np.ones_like(y)
    pullback(d)
    once = {name: g.copy() for name, g in net.gradients.items()}
    net.zero_grad()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: pullback(d), range(64)))
    for name, gradient in net.gradients.items():
        np.testing.assert_allclose(gradient, 64 * once[name], rtol=1e-5)


def test_additions_to_a_layer_and_through_the_one_around_it_lose_nothing():
    net = Net(300, dtype="float64")
    d = np.ones((300, 300))

    def add(k):
        if k % 2:
            net.add_gradient("first.weight", d)
        else:
            net.first.add_gradient("weight", d[:7], rows=np.arange(7))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(200)))
    gradient = net.gradients["first.weight"]
    assert (gradient[:7] == 200).all() and (gradient[7:] == 100).all()


def test_rows_of_a_gradient():
    layer = attnc.Embedding(4, 2, dtype="float64")
    layer.add_gradient("weight", [[1, 2], [3, 4]], rows=[3, 0])
    layer.add_gradient("weight", [[1, 1], [1, 1], [5, 5]], rows=np.array([3, 3, 1], np.uint8))
    layer.add_gradient("weight", np.zeros((0, 2)), rows=[])
    np.testing.assert_array_equal(layer.gradients["weight"], [[3, 4], [5, 5], [0, 0], [3, 4]])


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (("wieght", 1.0), KeyError, "name must be one of weight, bias; got .*wieght"),
        (("weight", 1.0), ValueError, r"weight must have shape \(3, 2\), got \(\)"),
        (("weight", np.ones((1, 2))), ValueError, r"weight must have shape \(3, 2\), got \(1, 2\)"),
        (("weight", np.ones((3, 2), complex)), TypeError, "weight must be real, got complex128"),
        (("weight", np.ones((3, 2), bool)), TypeError, "weight must be real, got bool"),
        (("weight", np.ma.ones((3, 2))), TypeError, "weight must be a plain array"),
        (("weight", np.ones((3, 2)), [0, 1]), ValueError, r"weight must have shape \(2, 2\), got"),
        (("weight", np.ones((2, 2)), [0, 3]), ValueError, r"rows must lie in 0..2, got 0..3"),
        (("weight", np.ones((2, 2)), [0, -1]), ValueError, r"rows must lie in 0..2, got -1..0"),
        (("weight", np.ones((2, 2)), [0.0, 1.0]), TypeError, "rows must be integers, got float64"),
        (("weight", np.ones((1, 1, 2)), [[0]]), ValueError, r"rows must have shape \(n,\), got"),
    ],
)
def test_add_gradient_refuses_what_does_not_fit(arguments, error, message):
    layer = attnc.Linear(3, 2)
    with pytest.raises(error, match=f"Linear.add_gradient: {message}"):
        layer.add_gradient(*arguments)
    assert not layer.gradients["weight"].any()
    with pytest.raises(ValueError, match="rows must be None for scale, a number, got 0"):
        attnc.CosineAttention().add_gradient("scale", 1.0, rows=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_fork_during_an_addition_leaves_the_child_able_to_add():
    layer = attnc.Linear(500, 500, bias=False)
    d, stop = np.ones((500, 500), np.float32), threading.Event()

    def add():
        while not stop.is_set():
            layer.add_gradient("weight", d)

    thread = threading.Thread(target=add)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    layer.add_gradient("weight", d)  # would wait for ever for a lock left taken
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


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


def test_linear_adds_long_batches_without_losing_digits():
    layer = attnc.Linear(1, 4, rng=0)
    y, pullback = attnc.vjp(layer, np.ones((1_000_000, 1), np.float32))
    pullback(np.full(y.shape, 0.1, np.float32))
    np.testing.assert_allclose(layer.gradients["bias"], 1e6 * np.float32(0.1), rtol=1e-5)


def test_linear_whatever_the_settings_of_numpy():
    layer = attnc.Linear(3, 2, rng=0)
    x = np.array([[1e-30, 1e38, -1e38], [np.inf, np.nan, 1e-45]], np.float32)
    dy = np.array([[1e-30, 3e38], [3e38, np.inf]], np.float32)

    def run():
        layer.zero_grad()
        y, pullback = attnc.vjp(layer, x)
        return layer(x), y, *pullback(dy), *(g.copy() for g in layer.gradients.values())

    expected = run()
    with np.errstate(all="raise"):
        assert_same(run(), expected)


def test_linear_arguments():
    layer = attnc.Linear(np.int8(100), np.int8(100), rng=np.int64(0))
    assert repr(layer) == "Linear(input_size=100, output_size=100)"
    assert_same(layer.state_dict(), attnc.Linear(100, 100, rng=0).state_dict())
    for bias in (1, "False", None):
        with pytest.raises(TypeError, match="Linear: bias must be True or False, got"):
            attnc.Linear(3, 2, bias=bias)
    with pytest.raises(TypeError, match="Linear: rng must be None, an integer or a numpy.random.G"):
        attnc.Linear(3, 2, rng=0.5)
    with pytest.raises(TypeError, match="Linear: train must be True or False, got 'False'"):
        attnc.Linear(3, 2)(np.ones(3), train="False")
    with pytest.raises(ValueError, match="Linear: input_size must be a positive integer, got '3'"):
        attnc.Linear("3", 2)


@pytest.mark.parametrize("arguments", [(), (None,)])
def test_linear_pullback_of_nothing(arguments):
    layer = attnc.Linear(3, 4)
    _, pullback = attnc.vjp(layer, np.ones((2, 3)))
    with pytest.raises(TypeError, match="^Linear: pullback must get dy"):
        pullback(*arguments)
    assert not layer.gradients["weight"].any()


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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_padding_that_no_gradient_reaches_is_not_read(bad, rng):
    layer, x = attnc.Linear(4, 3, rng=0, dtype="float64"), rng.standard_normal((2, 5, 4))
    dy = rng.standard_normal((2, 5, 3))
    dy[1, 3:] = 0

    def gradients(x):
        layer.zero_grad()
        dx = attnc.vjp(layer, x)[1](dy).x
        return dx, {name: g.copy() for name, g in layer.gradients.items()}

    expected = gradients(x)
    x[1, 3:, 0] = bad
    assert_same(gradients(x)[1], expected[1])


@pytest.mark.parametrize("kind", ["parameters", "gradients"])
def test_assigning_all_arrays_writes_into_them(kind):
    """Also what an augmented assignment to the attribute ends with."""
    layer = attnc.Linear(3, 2, rng=0)
    arrays = dict(getattr(layer, kind))
    layer.parameters |= {"bias": [1, 2]}
    layer.gradients |= {"bias": [1, 2]}
    assert getattr(layer, kind)["bias"].tolist() == [1, 2]
    setattr(layer, kind, {"weight": np.ones((3, 2)), "bias": [3, 4]})
    assert all(getattr(layer, kind)[name] is array for name, array in arrays.items())
    assert arrays["weight"].all() and arrays["bias"].tolist() == [3, 4]
    with pytest.raises(ValueError, match=f"^Linear.{kind}: .*missing: weight"):
        setattr(layer, kind, {"bias": [5, 6]})
    assert arrays["bias"].tolist() == [3, 4]


# ---- gradients that go elsewhere -----------------------------------------------------------------


def test_caught_gradients(rng):
    """What this thread adds in the block is in the dict, to the bit, and in no layer."""
    model = attnc.Sequential(attnc.Embedding(5, 4, rng=0), attnc.Linear(4, 4, rng=0))
    model.layers[1].freeze("bias")
    tokens = np.array([[1, 1, 3]])
    y, pullback = attnc.vjp(model, tokens)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    pullback(dy)
    expected = {name: gradient.copy() for name, gradient in model.gradients.items()}
    model.zero_grad()
    embedding, linear = model.layers
    with caught_gradients() as outer:
        with caught_gradients() as inner:
            pullback(dy)
            elsewhere = threading.Thread(target=pullback, args=(dy,))
            elsewhere.start()
            elsewhere.join()  # another thread adds to the layers
        assert not outer and inner.keys() == {(id(embedding), "weight"), (id(linear), "weight")}
        for k, layer in enumerate((embedding, linear)):
            assert_same(inner[id(layer), "weight"], expected[f"layers.{k}.weight"])
        pullback(dy)
        pullback(dy)
        assert_same(outer[id(linear), "weight"], 2 * expected["layers.1.weight"])
        linear.add_gradient("weight", [[1.0, 2.0, 3.0, 4.0]] * 2, rows=[2, 2])
        added = 2 * expected["layers.1.weight"]
        added[2] += np.array([2, 4, 6, 8], np.float32)
        np.testing.assert_allclose(outer[id(linear), "weight"], added, rtol=1e-6)
        d = np.ones((4, 4), np.float32)
        attnc.Linear(4, 4, rng=0).add_gradient("weight", d)
        d[:] = 5  # the dict has a copy
        assert all((gradient != 5).all() for gradient in outer.values())
    assert_same(model.gradients, expected)
    with pytest.raises(RuntimeError, match="inside"), caught_gradients():
        raise RuntimeError("inside")
    pullback(dy)
    assert_same(model.gradients["layers.1.weight"], 2 * expected["layers.1.weight"])

"""Frozen parameters: `Layer.freeze`, and who leaves them alone; `summary`, which shows them."""

import copy
import pickle

import numpy as np
import pytest
from checks import assert_same

import attnc
from attnc.optim import SGD, Adam, clip_gradients

MAKERS = {
    "sgd": lambda layers: SGD(layers, 0.1),
    "momentum": lambda layers: SGD(layers, 0.1, momentum=0.9),
    "adam": lambda layers: Adam(layers, 0.01),
}
makers = pytest.mark.parametrize("name", MAKERS)


def model(seed=0):
    rng = np.random.default_rng(seed)
    return attnc.Sequential(
        attnc.Embedding(7, 4, rng=rng), attnc.Linear(4, 5, rng=rng), attnc.Linear(5, 7, rng=rng)
    )


def backward(made, rng):
    tokens = rng.integers(0, 7, (3, 4))
    y, pullback = attnc.vjp(made, tokens)
    made.zero_grad()
    pullback(rng.standard_normal(y.shape))


# ---- Names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "patterns, names",
    [
        (("layers.0.weight",), ["layers.0.weight"]),
        (("layers.1.*",), ["layers.1.weight", "layers.1.bias"]),
        (("*bias", "layers.0.weight"), ["layers.0.weight", "layers.1.bias", "layers.2.bias"]),
        (("layers.[01].w*",), ["layers.0.weight", "layers.1.weight"]),
        ((), list(model().parameters)),
    ],
)
def test_patterns(patterns, names):
    made = model()
    assert made.frozen_parameters == ()
    assert made.freeze(*patterns) is made and made.frozen_parameters == tuple(names)
    assert made.layers[1].frozen_parameters == tuple(
        name.removeprefix("layers.1.") for name in names if name.startswith("layers.1.")
    )
    assert made.unfreeze(*patterns) is made and made.frozen_parameters == ()


@pytest.mark.parametrize("method", ["freeze", "unfreeze"])
@pytest.mark.parametrize(
    "pattern, error, message",
    [
        ("layers.1.wieght", KeyError, "got 'layers.1.wieght'; did you mean 'layers.1.weight'"),
        ("layers.1", KeyError, "got 'layers.1'; did you mean 'layers.1.*'?"),
        ("encoder.*", KeyError, "patterns must fit the name of a parameter, got 'encoder.*'; "),
        ("", KeyError, "got ''"),
        (3, TypeError, "patterns must be strings, got 3"),
        (["layers.1.*"], TypeError, "patterns must be strings, got ['layers.1.*']"),
    ],
)
def test_a_pattern_that_fits_nothing_changes_nothing(method, pattern, error, message):
    made = model().freeze("layers.2.bias")
    with pytest.raises(error) as raised:
        getattr(made, method)("layers.*.weight", pattern)
    assert f"Sequential.{method}: " in str(raised.value.args[0])
    assert message in str(raised.value.args[0])
    assert made.frozen_parameters == ("layers.2.bias",)


def test_names_that_are_joined_by_a_line():
    attention = attnc.SelfAttention(4, rng=0).freeze("key_*")
    assert attention.frozen_parameters == ("key_weight",)
    assert attention.key.frozen_parameters == ("weight",)


def test_a_layer_without_parameters():
    assert attnc.Dropout(0.1).freeze().frozen_parameters == ()


# ---- Training ------------------------------------------------------------------------------------


@makers
def test_frozen_parameters_stay_and_others_move(name, rng):
    made, optimizer = model(), None
    frozen = ["layers.0.weight", "layers.1.weight"]
    made.freeze(*frozen)
    before, optimizer = made.state_dict(), MAKERS[name](made)
    for _ in range(3):
        backward(made, rng)
        assert not any(made.gradients[n].any() for n in frozen)
        made.gradients[frozen[0]] = np.ones((7, 4))  # by hand: it is left alone all the same
        optimizer.step()
    for n, parameter in made.parameters.items():
        assert (parameter == before[n]).all() == (n in frozen)
    for n, kept in optimizer.state_dict().items():
        assert kept.any() == (n.startswith("missed.") or not any(n.endswith(f) for f in frozen))
    made.parameters[frozen[0]] = np.ones((7, 4))  # it can be set
    made.load_state_dict(before)


@makers
def test_the_others_move_as_if_there_were_none(name, rng):
    frozen, plain = model(), model()
    frozen.freeze("layers.0.*")
    optimizers = [MAKERS[name](frozen), MAKERS[name]([plain.layers[1], plain.layers[2]])]
    for seed in range(4):
        for made, optimizer in zip((frozen, plain), optimizers, strict=True):
            backward(made, np.random.default_rng(seed))
            clip_gradients(frozen if made is frozen else plain.layers[1:], 0.5)
            optimizer.step()
    assert_same(frozen.state_dict(), plain.state_dict())


@makers
def test_a_parameter_that_joins_later_starts_as_in_a_new_optimiser(name, rng):
    """Adam's corrections count the steps of a parameter, not those of the optimiser."""
    made = model().freeze("layers.2.*")
    optimizer = MAKERS[name](made)
    for _ in range(5):
        backward(made, rng)
        optimizer.step()
    made.unfreeze()
    twin = copy.deepcopy(made)
    fresh = MAKERS[name](twin.layers[2])
    for seed in range(3):
        for each, own in ((made, optimizer), (twin, fresh)):
            backward(each, np.random.default_rng(seed))
            each.layers[1].zero_grad()
            each.layers[0].zero_grad()
            own.step()
        twin.load_state_dict(
            {n: p for n, p in made.state_dict().items() if "layers.2" not in n}
            | {n: p for n, p in twin.state_dict().items() if "layers.2" in n}
        )
        assert_same(made.layers[2].state_dict(), twin.layers[2].state_dict())


@makers
def test_states_know_the_missed_steps(name, rng):
    def run(resume):
        rng, made = np.random.default_rng(0), model()
        optimizer = MAKERS[name](made)
        for step in range(8):
            made.freeze("layers.1.*") if step in (1, 2, 5) else made.unfreeze()
            backward(made, rng)
            optimizer.step()
            if resume:
                state = optimizer.state_dict()
                optimizer = MAKERS[name](made)
                optimizer.load_state_dict(state)
        return made.state_dict(), optimizer.state_dict()

    assert_same(run(True), run(False))
    optimizer = MAKERS[name](model())
    before = optimizer.state_dict()
    for wrong in (-1, 1, 0.5, [1, 2]):
        with pytest.raises(ValueError, match="missed.layers.1.weight"):
            optimizer.load_state_dict({**before, "missed.layers.1.weight": wrong})
    with pytest.raises(ValueError, match="unexpected: missed.layers.9.weight"):
        optimizer.load_state_dict({**before, "missed.layers.9.weight": 0})
    assert_same(optimizer.state_dict(), before)


def test_all_frozen(rng):
    made = model().freeze()
    optimizer = Adam(made)
    before = made.state_dict()
    backward(made, rng)
    assert clip_gradients(made, 1.0) == 0
    optimizer.step()
    assert_same(made.state_dict(), before)


def test_clipping_leaves_frozen_gradients_alone(rng):
    made = model()
    backward(made, rng)
    whole = clip_gradients(made, np.inf)
    made.freeze("layers.1.weight")
    made.gradients["layers.1.weight"] = np.full((4, 5), np.nan)
    assert clip_gradients(made, 1e-3) < whole
    assert np.isnan(made.gradients["layers.1.weight"]).all()
    MAKERS["sgd"](made).step()


def test_freezing_drops_the_gradient_that_is_there(rng):
    made = model()
    backward(made, rng)
    bias = made.gradients["layers.1.bias"].copy()
    made.freeze("layers.1.weight").unfreeze("layers.1.bias")
    assert not made.gradients["layers.1.weight"].any()
    assert_same(made.gradients["layers.1.bias"], bias)


@pytest.mark.parametrize(
    "layer, inputs",
    [
        (attnc.GRU(3, 4, rng=0), 1),
        (attnc.AdditiveAttention(3, 3, 4, rng=0), 2),
        (attnc.SelfAttention(3, rng=0), 1),
        (attnc.Linear(3, 4, rng=0), 1),
    ],
)
def test_gradients_of_inputs_do_not_change(layer, inputs):
    def gradients():
        layer.zero_grad()
        output, pullback = attnc.vjp(layer, *[np.ones((2, 5, 3))] * inputs)
        first = output[0] if isinstance(output, tuple) else output
        return tuple(pullback(np.ones_like(first)))

    before = gradients()
    learned = {name: array.copy() for name, array in layer.gradients.items()}
    layer.freeze()
    assert_same(gradients(), before)
    assert not any(array.any() for array in layer.gradients.values())
    layer.unfreeze()
    gradients()
    assert_same(dict(layer.gradients), learned)


def test_add_gradient_still_checks():
    layer = attnc.Linear(3, 4, rng=0).freeze()
    layer.add_gradient("bias", np.ones(4))
    layer.add_gradient("weight", np.ones((1, 4)), rows=[2])
    assert not any(array.any() for array in layer.gradients.values())
    with pytest.raises(ValueError, match=r"bias must have shape \(4,\), got \(3,\)"):
        layer.add_gradient("bias", np.ones(3))


# ---- One array under several names ---------------------------------------------------------------


def tied():
    made = model()
    made.layers[2] = attnc.Linear(4, 7, rng=1)
    made.layers[1] = attnc.Linear(4, 4, rng=1)
    made.layers[2].tie("weight", made.layers[0], "weight", transpose=True)
    return made


@pytest.mark.parametrize("name", ["layers.0.weight", "layers.2.weight"])
def test_one_name_freezes_the_array(name, rng):
    made = tied().freeze(name)
    assert made.frozen_parameters == ("layers.0.weight", "layers.2.weight")
    before = made.state_dict()
    optimizer = Adam(made.layers[2])  # which knows one of the names alone
    backward(made, rng)
    assert not made.gradients["layers.0.weight"].any()
    optimizer.step()
    assert_same(made.parameters["layers.0.weight"], before["layers.0.weight"])
    made.unfreeze("layers.2.weight")
    assert made.frozen_parameters == ()


@pytest.mark.parametrize("first", [True, False])
def test_tying_freezes_both_if_one_is_frozen(first, rng):
    embedding, output = attnc.Embedding(7, 4, rng=0), attnc.Linear(4, 7, rng=0)
    (embedding if first else output).freeze("weight")
    embedding.gradients["weight"] = np.ones((7, 4))
    output.tie("weight", embedding, "weight", transpose=True)
    assert embedding.frozen_parameters == output.frozen_parameters == ("weight",)
    assert first or not embedding.gradients["weight"].any()


def test_arrays_that_are_one_without_being_tied(rng):
    one, other = attnc.Linear(3, 3, bias=False, rng=0), attnc.Linear(3, 3, bias=False, rng=1)
    other._parameters["weight"] = one._parameters["weight"]
    other._gradients["weight"] = one._gradients["weight"]
    other.freeze()
    before = one.state_dict()
    one.gradients["weight"] = np.ones((3, 3))
    SGD([one, other], 0.1).step()
    assert_same(one.state_dict(), before)
    SGD([one], 0.1).step()
    assert (one.parameters["weight"] != before["weight"]).all()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))], ids=["deep", "pickle"]
)
def test_copies_have_their_own(copied, rng):
    made = tied().freeze("layers.0.weight")
    optimizer = Adam(made)
    twin, other = copied((made, optimizer))
    assert twin.frozen_parameters == made.frozen_parameters
    twin.unfreeze("layers.2.weight")
    assert twin.frozen_parameters == () and len(made.frozen_parameters) == 2
    backward(twin, rng)
    other.step()
    assert (twin.parameters["layers.0.weight"] != made.parameters["layers.0.weight"]).any()


def test_a_shallow_copy_has_the_same_arrays():
    layer = attnc.Linear(3, 3, rng=0)
    twin = copy.copy(layer)
    twin.freeze("bias")
    assert layer.frozen_parameters == ("bias",)
    twin.add_parameter("more", 1.0)
    assert list(layer.parameters) == ["weight", "bias"]


# ---- The table -----------------------------------------------------------------------------------


def test_summary():
    made = tied().freeze("layers.1.*", "layers.2.weight")
    table = attnc.summary(made)
    assert repr(table) == (
        "Parameters of Sequential\n"
        "parameter        shape   count  dtype\n"
        "layers.0.weight  (7, 4)     28  float32  frozen\n"
        "layers.1.weight  (4, 4)     16  float32  frozen\n"
        "layers.1.bias    (4,)        4  float32  frozen\n"
        "layers.2.weight  (4, 7)         float32  frozen, tied to layers.0.weight\n"
        "layers.2.bias    (7,)        7  float32\n"
        "total                       55           7 trained"
    )
    assert (table.count, table.trained) == (55, 7) and made.parameter_count == 55
    assert [row.name for row in table.rows] == list(made.parameters)
    assert table.rows[3] == ("layers.2.weight", (4, 7), 0, "float32", True, "layers.0.weight")
    html = table._repr_html_()
    assert html.count("<tr>") == 7 and html.count("</td>") == 24 and "layers.2.weight" in html
    made.unfreeze()
    assert repr(attnc.summary(made)).splitlines()[-1].split() == ["total", "55"]


def test_summary_of_names_with_signs_of_html():
    layer = attnc.Layer("float64")
    layer.add_parameter("<b>", 1.0)
    html = attnc.summary(layer)._repr_html_()
    assert "<b>" not in html and "&lt;b&gt;" in html and "float64" in html
    assert attnc.summary(attnc.Dropout(0.1)).count == 0
    with pytest.raises(TypeError, match="summary: layer must be a Layer, got int"):
        attnc.summary(3)

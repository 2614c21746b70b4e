"""Optimisers and gradient clipping."""

import numpy as np
import pytest
from checks import assert_agree, assert_same

import attnc
from attnc.optim import SGD, Adam, clip_gradients

MAKERS = {
    "sgd": lambda layers: SGD(layers, 0.1),
    "momentum": lambda layers: SGD(layers, 0.1, momentum=0.9),
    "adam": lambda layers: Adam(layers, 0.01),
    "adam with options": lambda layers: Adam(layers, 0.01, betas=(0.8, 0.9), epsilon=1e-3),
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


def test_only_layers_have_parameters():
    with pytest.raises(TypeError, match="SGD: layers must be a Layer or several, got ndarray"):
        SGD([np.ones(3)], 0.1)

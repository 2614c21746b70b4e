"""Sequential, Residual, Dropout: values, gradients, what they pass on and what they refuse."""

import numpy as np
import pytest
from checks import assert_same
from layer_checks import check_layer, randomize

import attnc
from attnc.functional.dropout import add_dropout

F64 = {"dtype": "float64"}


def made(kind):
    linear = [attnc.Linear(4, 4, rng=k, **F64) for k in range(3)]
    return {
        "sequential": lambda: attnc.Sequential(linear[0], attnc.Dropout(0.5, **F64), linear[1]),
        "residual": lambda: attnc.Residual(linear[0]),
        "nested": lambda: attnc.Sequential(
            attnc.Residual(attnc.Sequential(*linear[:2])), linear[2]
        ),
        "dropout": lambda: attnc.Dropout(0.4, **F64),
        "none": lambda: attnc.Sequential(),
    }[kind]()


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kind", ["sequential", "residual", "nested", "dropout"])
def test_gradients(kind, train, rng):
    x = rng.standard_normal((2, 3, 4))
    check_layer(randomize(made(kind), rng), (x,), {"train": train, "rng": 3}, rng)


def test_one_after_the_other(rng):
    model, x = made("nested"), rng.standard_normal((2, 4))
    residual, last = model.layers
    first, second = residual.layer.layers
    assert_same(model(x), last(x + second(first(x))))
    assert list(model.parameters)[0] == "layers.0.layer.layers.0.weight"


def test_without_layers_it_is_the_identity():
    x = np.ones((2, 3), np.float32)
    y, pullback = attnc.vjp(attnc.Sequential(), x)
    assert_same(y, x)
    assert not np.shares_memory(x, y)
    assert_same(pullback(2 * x).x, 2 * x)


def test_tokens_come_first():
    model = attnc.Sequential(attnc.Embedding(9, 4, rng=0), attnc.Linear(4, 2, rng=0))
    y, pullback = attnc.vjp(model, [[1, 2, 2]])
    assert y.shape == (1, 3, 2) and len(pullback(np.ones_like(y))) == 0
    assert model.gradients["layers.0.weight"][2].any()


def test_dropout_keeps_the_mean_and_is_off_without_training(rng):
    x = np.ones(100_000)
    layer = attnc.Dropout(0.3, **F64)
    assert_same(layer(x), x)
    y = layer(x, train=True, rng=rng)
    assert set(np.unique(y)) == {0, 1 / 0.7}
    assert abs(y.mean() - 1) < 5 * np.sqrt(0.3 / 0.7 / len(x))
    assert_same(layer(x, train=True, rng=1), layer(x, train=True, rng=1))


def test_no_two_layers_drop_the_same_places():
    """An int seeds one generator, from which all draw."""
    model = attnc.Sequential(attnc.Dropout(0.5), attnc.Dropout(0.5))
    y = model(np.ones(1000, np.float32), train=True, rng=0)
    assert set(np.unique(y)) == {0, 4} and 150 < np.count_nonzero(y) < 350


def test_what_is_dropped_is_not_read():
    x = np.full(1000, np.nan)
    y = attnc.Dropout(0.5, **F64)(x, train=True, rng=0)
    assert (y[~np.isnan(y)] == 0).all() and 400 < np.isnan(y).sum() < 600


def test_which_are_dropped_depends_on_their_place_alone(dtype, threads, isa):
    """Not on the type, the shape, what else is there, nor the number of threads."""
    dropout, ones = attnc.Dropout(0.3, **F64), np.ones(100_003)
    kept = dropout(ones, train=True, rng=7) > 0
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / len(kept))
    layer = attnc.Dropout(0.3, dtype=dtype)
    assert_same(layer(ones, train=True, rng=7) > 0, kept)
    assert_same(layer(ones[:999].reshape(9, 111), train=True, rng=7).reshape(-1) > 0, kept[:999])
    assert (dropout(ones, train=True, rng=8) > 0).tolist() != kept.tolist()
    for lag in (1, 4, 16, 64):  # no two places decide together
        both = (kept[lag:] & kept[:-lag]).mean()
        assert abs(both - 0.49) < 5 * np.sqrt(0.49 * 0.51 / len(kept)) * 1.5


def test_a_residual_is_added_to_what_is_kept(dtype, isa, rng):
    """add_dropout, which layers made of layers use."""
    x, y = (rng.standard_normal((5, 333)).astype(dtype) for _ in range(2))
    plain, back = add_dropout(None, y, 0.4, np.random.default_rng(3))
    out, same_back = add_dropout(x, y, 0.4, np.random.default_rng(3))
    assert_same(out, x + plain)
    kept = plain != 0
    assert_same(plain, np.where(kept, y * dtype(1 / 0.6), 0).astype(dtype))
    for way in (back, same_back):
        assert_same(way(x), np.where(kept, x * dtype(1 / 0.6), 0).astype(dtype))
    for rate, rng in ((0.0, np.random.default_rng(3)), (0.4, None)):
        out, back = add_dropout(x, y, rate, rng)
        assert_same(out, x + y)
        assert back(x) is x


def test_repr_makes_a_layer_alike():
    model = made("nested")
    assert repr(eval(repr(model), vars(attnc).copy())) == repr(model)


REFUSED = [
    (lambda: attnc.Sequential(np.ones(3)), TypeError, "layers must be layers, got ndarray"),
    (lambda: attnc.Residual(None), TypeError, "layer must be a layer, got NoneType"),
    (lambda: attnc.Dropout(1.0), ValueError, "rate must lie in 0 <= rate < 1, got 1.0"),
    (lambda: attnc.Dropout(True), TypeError, "rate must lie in 0 <= rate < 1, got True"),
    (
        lambda: attnc.Sequential(attnc.GRU(4, 3, rng=0))(np.ones((2, 5, 4))),
        TypeError,
        "layers must return one array, got RecurrentOutput from GRU",
    ),
    (
        lambda: attnc.Residual(attnc.Linear(4, 3, rng=0))(np.ones((2, 4))),
        ValueError,
        r"layer must keep the shape of x, \(2, 4\), got \(2, 3\)",
    ),
    (
        lambda: attnc.vjp(attnc.Dropout(0.5), np.ones(3))[1](),
        TypeError,
        "pullback must get dy",
    ),
]


@pytest.mark.parametrize(("call", "kind", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_refused(call, kind, said):
    with pytest.raises(kind, match=said):
        call()

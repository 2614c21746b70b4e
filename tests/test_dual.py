"""Dual numbers: every operation they know against differences, and that others raise."""

import itertools
import math

import numpy as np
import pytest

from attnc import dual
from attnc.arrays import all_finite, contiguous, reached
from attnc.dual import Dual, asarray, tangent_of, value_of
from attnc.dual_calls import carried
from attnc.dual_calls import dual as dual_of

STEP = 1e-4
LEFT, RIGHT = (2, 3), (1, 3)  # broadcast

UFUNCS = {
    "add": lambda x, y: x + y,
    "add a constant": lambda x, y: x + 2.0,
    "subtract": lambda x, y: x - y,
    "subtract from a constant": lambda x, y: 1 - x,
    "multiply": lambda x, y: x * y,
    "multiply by a constant": lambda x, y: np.float64(3) * x,
    "multiply constants of more axes": lambda x, y: np.ones((4, 1, 1)) * x[0] + y,
    "matmul": lambda x, y: x @ np.swapaxes(y, -1, -2),
    "matmul of a constant": lambda x, y: np.ones((4, 2)) @ x,
    "divide": lambda x, y: x / y,
    "divide a constant": lambda x, y: 2 / x,
    "divide by a constant": lambda x, y: x / np.array([1.0, 2.0, 4.0]),
    "power": lambda x, y: x**3,
    "power of zero": lambda x, y: x**0 + x,
    "power of a half": lambda x, y: x**0.5,
    "minimum": lambda x, y: np.minimum(x, y),
    "maximum": lambda x, y: np.maximum(x, 1.2),
    "logaddexp": lambda x, y: np.logaddexp(x, y),
    "logaddexp of a constant": lambda x, y: np.logaddexp(0, -x),
    "negative": lambda x, y: -x,
    "absolute": lambda x, y: abs(x - 1.3),
    "square": lambda x, y: np.square(x),
    "sqrt": lambda x, y: np.sqrt(x),
    "exp": lambda x, y: np.exp(x),
    "log": lambda x, y: np.log(x),
    "tanh": lambda x, y: np.tanh(x),
}
FUNCTIONS = {
    "where": lambda x, y: np.where(x > y, x, 0),
    "where of two": lambda x, y: np.where(y < 1.3, x * x, y),
    "where of a constant condition": lambda x, y: np.where([True, False, True], x, y),
    "einsum": lambda x, y: np.einsum("ij,kj->ik", x, y),
    "einsum of a path": lambda x, y: np.einsum("ij,kj,kl->il", x, y, y, optimize=True),
    "einsum of a constant": lambda x, y: np.einsum("ij,kj->k", np.ones((2, 3)), y),
    "sum": lambda x, y: np.sum(x, axis=0),
    "sum of all": lambda x, y: x.sum(),
    "dot": lambda x, y: x.dot(y.T),
    "dot of vectors": lambda x, y: np.dot(x[0], y[0]),
    "take": lambda x, y: np.take(x, [2, 0, 2], axis=1),
    "ravel": lambda x, y: x.ravel() * np.ravel(x.T, order="F"),
    "mean": lambda x, y: x.mean(axis=-1, keepdims=True),
    "cumsum": lambda x, y: np.cumsum(x, axis=1),
    "concatenate": lambda x, y: np.concatenate([x, y, np.ones((1, 3))]),
    "stack": lambda x, y: np.stack([x[0], y[0]], axis=1),
    "split": lambda x, y: np.split(x, 3, axis=-1)[1],
    "reshape": lambda x, y: np.reshape(x, (3, 2)),
    "swapaxes": lambda x, y: np.swapaxes(x, 0, 1),
    "transpose": lambda x, y: np.transpose(x),
    "broadcast_to": lambda x, y: np.broadcast_to(y, (4, 3)) * 1.0,
    "take_along_axis": lambda x, y: np.take_along_axis(x, np.array([[0], [2]]), axis=1),
    "zeros_like": lambda x, y: np.zeros_like(x) + y,
    "zeros_like of another shape": lambda x, y: np.zeros_like(x, shape=(3,)) + y,
    "empty_like": lambda x, y: _filled(np.empty_like(x, shape=(4, 3)), y),
}
METHODS = {
    "an item": lambda x, y: x[1, 2],
    "rows by a mask": lambda x, y: x[np.array([False, True])],
    "a new axis": lambda x, y: x[:, None],
    "T": lambda x, y: x.T @ x,
    "reshape": lambda x, y: x.reshape(3, 2),
    "reshape to a tuple": lambda x, y: x.reshape((6,)),
    "reshape by columns": lambda x, y: x.reshape(-1, order="F"),
    "astype": lambda x, y: x.astype(np.float64, copy=False),
    "a copy by columns": lambda x, y: x.copy("F"),
    "a sum of numbers": lambda x, y: _summed(x, y),
    "a sum from a constant": lambda x, y: _summed_rows(x),
    "a tuple put in": lambda x, y: _filled(x * 1.0, (y[0], x[0] * 2)),
    "swapaxes": lambda x, y: x.swapaxes(0, 1),
    "iteration": lambda x, y: sum(row * row for row in x),
    "in place": lambda x, y: _changed(x, y),
    "a constant put in": lambda x, y: _put(x),
    "a list put in": lambda x, y: _filled(x * 1.0, [y[0], x[0] * 2]),
    "copy": lambda x, y: _changed(x, y.copy()),
    "transpose": lambda x, y: x[None].transpose(2, 0, 1),
    "take": lambda x, y: x.take(np.array([2, 0, 2]), axis=1),
    "add at": lambda x, y: _added(x * 1.0, y),
}


def _filled(z, x):
    z[...] = np.stack(x) if isinstance(z, np.ndarray) and isinstance(x, list | tuple) else x
    return z


def _summed(x, y):
    total = x.sum()
    first = total
    total += y.sum()
    total *= 2
    return total * first


def _summed_rows(x):
    total = 0.0
    for row in x:
        total += row.sum()
    return total


def _added(z, y):
    np.add.at(z, np.array([1, 1]), y)
    return z


def _changed(x, y):
    z = x * 1.0
    z += y
    z[0] = y[0] * 2
    z[..., 1] -= x[..., 0]
    return z


def _put(x):
    z = x * 1.0
    z[:, 1] = 5.0
    return z


def draws(rng):
    return [(rng.uniform(0.5, 2, s), rng.standard_normal(s)) for s in (LEFT, RIGHT)]


@pytest.mark.parametrize("name", [*UFUNCS, *FUNCTIONS, *(f"method {n}" for n in METHODS)])
def test_derivatives_are_differences(name, rng):
    known = UFUNCS | FUNCTIONS | {f"method {n}": f for n, f in METHODS.items()}
    f, arrays = known[name], draws(rng)
    result = f(*(Dual(*pair) for pair in arrays))
    assert isinstance(result, Dual) and result.tangent.shape == result.value.shape
    near = [f(*(x + k * STEP * u for x, u in arrays)) for k in (-2, -1, 1, 2)]
    a, b, c, d = near
    np.testing.assert_array_equal(result.value, f(*(x for x, _ in arrays)))
    np.testing.assert_allclose(result.tangent, (a - 8 * b + 8 * c - d) / (12 * STEP), atol=1e-9)


def twice(x, v, u, w):
    """x + e v + d (u + e w): both parts are dual numbers themselves."""
    return Dual(Dual(x, v), Dual(u, w))


@pytest.mark.parametrize("name", [*UFUNCS, *FUNCTIONS, *(f"method {n}" for n in METHODS)])
def test_tangents_of_tangents_are_differences_of_these(name, rng):
    known = UFUNCS | FUNCTIONS | {f"method {n}": f for n, f in METHODS.items()}
    f, first, others = known[name], draws(rng), draws(rng)
    parts = [(x, v, 3 * w, w) for (x, v), (_, w) in zip(first, others, strict=True)]
    result = f(*(twice(*each) for each in parts))
    along_v = f(*(Dual(x, v) for x, v, _, _ in parts))
    along_u = f(*(Dual(x, u) for x, _, u, _ in parts))
    np.testing.assert_array_equal(result.value.value, along_v.value)
    np.testing.assert_array_equal(result.value.tangent, along_v.tangent)
    np.testing.assert_array_equal(result.tangent.value, along_u.tangent)
    near = (
        f(*(Dual(x + k * STEP * v, u + k * STEP * w) for x, v, u, w in parts)).tangent
        for k in (-2, -1, 1, 2)
    )
    a, b, c, d = near
    expected = (a - 8 * b + 8 * c - d) / (12 * STEP)
    np.testing.assert_allclose(result.tangent.tangent, expected, atol=1e-8)


def test_every_rule_is_tested():
    ufuncs = {name.split()[0] for name in UFUNCS}
    assert {u.__name__ for u, rule in dual._UFUNCS.items() if rule is not VALUES} == ufuncs
    functions = {name.split()[0] for name in FUNCTIONS}
    assert {f.__name__ for f in dual._FUNCTIONS} - functions == {
        "shape",
        "ndim",
        "may_share_memory",
        "any",
    }


VALUES = dual._of_values


@pytest.mark.parametrize("ufunc", [u for u, rule in dual._UFUNCS.items() if rule is VALUES])
def test_what_has_no_tangent_is_an_array(ufunc, rng):
    (x, u), (y, v) = draws(rng)
    arrays = (x, y)[: ufunc.nin]
    duals = (Dual(x, u), Dual(y, v))[: ufunc.nin]
    found = ufunc(*duals)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, ufunc(*arrays))


def test_equal_ones_have_the_tangent_of_the_first():
    x, y = Dual(np.ones(2), np.array([1.0, 2.0])), Dual(np.ones(2), np.array([3.0, 4.0]))
    assert np.minimum(x, y).tangent.tolist() == [1, 2]
    assert np.maximum(y, x).tangent.tolist() == [3, 4]


def test_the_absolute_value_goes_up_from_zero():
    assert abs(Dual(np.zeros(1), np.full(1, 3.0))).tangent.tolist() == [3]


def test_decisions_are_by_values_alone():
    """So the value of a formula is that of the plain call."""
    x = Dual(np.array([[0.0, 0.0], [1.0, np.inf]]), np.array([[0.0, 2.0], [np.nan, 0]]))
    assert x.any(-1).tolist() == np.any(x, axis=1).tolist() == [False, True]
    assert x.any(axis=0, keepdims=True).tolist() == [[True, True]]
    assert np.isfinite(x).tolist() == [[True, True], [True, False]]
    assert [i.tolist() for i in np.where(x)] == [[1, 1], [0, 1]]
    for mask in (x.astype(bool), np.zeros_like(x, dtype=bool), x[0].astype(int, copy=False)):
        assert isinstance(mask, np.ndarray)


def test_what_needs_tangents_asks_for_them():
    x = Dual(np.array([0.0, 0.0, 1.0]), np.array([0.0, 2.0, 0.0]))
    broken = Dual(np.ones(2), np.array([1.0, np.nan]))
    with carried():
        assert reached(x).tolist() == [False, True, True]
        assert all_finite(x) and not all_finite(broken) and not all_finite(1 / x)
    assert reached(x.value).tolist() == [False, False, True]
    assert all_finite(broken.value) and not all_finite(broken.tangent)


@pytest.mark.parametrize(
    "f, slope",
    [
        (np.sqrt, np.inf),
        (np.log, np.inf),
        (lambda x: x**0, 0),
        (lambda x: x**0.5, np.inf),
        (lambda x: x**1, 1),
        (lambda x: 1 / x, -np.inf),
        (lambda x: x / np.zeros(2), np.inf),
        (lambda x: x * np.array([np.inf, np.inf]), np.inf),
        (lambda x: np.logaddexp(np.log(x), -np.inf), None),
        (lambda x: np.logaddexp(-np.inf, np.log(x)), None),
    ],
)
def test_an_infinite_slope_is_not_felt_where_the_tangent_is_zero(f, slope):
    """Nor does a tangent raise or warn where the value of the plain formula does not."""
    x = Dual(np.zeros(2, np.float32), np.array([0, 1], np.float32))
    with np.errstate(all="raise"):
        moved = f(x).tangent
    assert moved[0] == 0
    if slope is not None:
        assert moved[1] == slope


@pytest.mark.parametrize(
    "f",
    [
        np.sqrt,
        np.log,
        lambda x: x**0.5,
        lambda x: 1 / x,
        lambda x: x / np.zeros(3),
        lambda x: x * np.full(3, np.inf),
        lambda x: np.logaddexp(np.log(x), -np.inf),
    ],
)
def test_nor_where_one_of_two_directions_is_zero(f):
    """Of the second derivative: along u = 0 nothing moves, nor does a slope along v = 0."""
    u, v = np.array([0, 1, 0], np.float32), np.array([1, 0, 0], np.float32)
    with np.errstate(all="raise"):
        found = f(twice(np.zeros(3, np.float32), v, u, np.zeros(3, np.float32)))
    assert found.tangent.tangent.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(found.tangent.value, f(Dual(np.zeros(3, np.float32), u)).tangent)
    assert found.tangent.value[0] == found.value.tangent[1] == 0


def by_columns(x):
    return np.asfortranarray(x)


def by_steps(x):
    return np.repeat(x, 2, axis=-1)[..., ::2]


def backwards(x):
    return x[::-1].copy()[::-1]


LAYOUTS = {"rows": np.copy, "columns": by_columns, "steps": by_steps, "backwards": backwards}
VIEWS = {
    "reshape": lambda z: z.reshape(-1),
    "reshape of a transpose": lambda z: z.T.reshape(-1),
    "reshape of a slice": lambda z: z[:, :1].reshape(-1),
    "reshape by columns": lambda z: z.reshape(-1, order="F"),
    "ravel": lambda z: z.ravel(),
    "transpose": lambda z: z.T[1:],
    "swapaxes": lambda z: np.swapaxes(z, 0, 1),
    "split": lambda z: np.split(z, 3, axis=1)[1],
    "astype": lambda z: z.astype(np.float64, copy=False),
    "as C takes it": lambda z: contiguous(z, z.dtype),
}
MADE = {
    "an input": lambda x, y: x,
    "a sum": lambda x, y: x + 2 * y,
    "a sum with a constant": lambda x, y: x + np.ones((2, 3), order="F"),
    "a product": lambda x, y: y * x,
    "a quotient": lambda x, y: x / y,
    "a power": lambda x, y: x**2,
    "an extreme": lambda x, y: np.maximum(y, x),
    "a choice": lambda x, y: np.where([True, False, True], x, 1.0),
    "joined": lambda x, y: np.concatenate([x, np.ones((1, 3), order="F")]),
    "of a transpose": lambda x, y: (x.T * 2).T,
}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("view", VIEWS)
def test_what_is_written_through_a_view_moves_both(made, view, rng):
    """Whatever is a view of the value is one of the tangent, however the two were laid out."""
    (x, u), (y, v) = ((rng.uniform(0.5, 2, LEFT), rng.standard_normal(LEFT)) for _ in range(2))

    def written(x, y):
        z = MADE[made](x, y)
        part = VIEWS[view](z)
        part *= 3
        return z

    for of_x, of_tangent, of_y in itertools.product(LAYOUTS.values(), repeat=3):
        with carried():
            pairs = (of_x(x), of_tangent(u)), (of_y(y), of_tangent(v))
            found = written(*(dual_of(*pair) for pair in pairs))
        np.testing.assert_array_equal(found.value, written(of_x(x), of_y(y)))
        near = (written(of_x(x + k * STEP * u), of_y(y + k * STEP * v)) for k in (-2, -1, 1, 2))
        a, b, c, d = near
        np.testing.assert_allclose(found.tangent, (a - 8 * b + 8 * c - d) / (12 * STEP), atol=1e-8)


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("view", [view for view in VIEWS if view != "as C takes it"])
def test_what_is_written_through_a_view_moves_all_four(made, view, rng):
    arrays = [[draw(LEFT) for draw in [rng.random] + [rng.standard_normal] * 3] for _ in range(2)]

    def written(x, y):
        z = MADE[made](x, y)
        part = VIEWS[view](z)
        part *= part
        return z

    def moved(x, v, u, w, lay, r):
        return Dual(lay(x + 1 + r * v), lay(u + r * w))

    for of_x, of_y in itertools.product(LAYOUTS.values(), repeat=2):
        pairs = list(zip(arrays, (of_x, of_y), strict=True))
        found = written(*(twice(lay(x + 1), *map(lay, moves)) for (x, *moves), lay in pairs))
        near = [
            written(*(moved(*parts, lay, k * STEP) for parts, lay in pairs))
            for k in (-2, -1, 0, 1, 2)
        ]
        a, b, here, c, d = (each.tangent for each in near)
        np.testing.assert_array_equal(found.value.value, near[2].value)
        np.testing.assert_array_equal(found.tangent.value, here)
        expected = (a - 8 * b + 8 * c - d) / (12 * STEP)
        np.testing.assert_allclose(found.tangent.tangent, expected, atol=1e-7)


def test_a_view_of_the_value_alone_is_refused():
    x = Dual(np.ones((2, 3)), np.ones((3, 2)).T)
    with pytest.raises(TypeError, match=r"numpy\.reshape has no rule .* copy\(\)"):
        x.reshape(-1)
    z = x.copy()
    z.reshape(-1)[:] *= 2
    assert (z.tangent == 2).all() and (x.tangent == 1).all()


def test_memory_is_that_of_the_values():
    x = Dual(np.ones(3), np.ones(3))
    assert np.may_share_memory(x, x[1:]) and not np.may_share_memory(x, x.copy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [*UFUNCS, *FUNCTIONS])
def test_dtypes_stay(name, dtype, rng):
    f = (UFUNCS | FUNCTIONS)[name]
    if dtype == np.float32 and name in ("multiply by a constant", "matmul of a constant"):
        return  # of float64 constants
    result = f(*(Dual(x.astype(dtype), u.astype(dtype)) for x, u in draws(rng)))
    assert result.tangent.dtype == result.value.dtype
    constants = "constant" in name or name == "concatenate"
    assert constants or result.value.dtype == dtype


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda x: np.sin(x), "numpy.sin"),
        (lambda x: x // 2, "numpy.floor_divide"),
        (lambda x: 2**x, "numpy.power"),
        (lambda x: x**x, "numpy.power"),
        (lambda x: x ** np.ones(3), "numpy.power"),
        (lambda x: np.add.reduce(x), "numpy.add.reduce"),
        (lambda x: np.add(x, 1, where=np.ones(3, bool)), "numpy.add, where="),
        (lambda x: np.add(np.ones(3), x, out=np.ones(3)), "into an array would lose"),
        (lambda x: np.add.at(np.ones(3), [0], x[0]), "numpy.add.at into an array would lose"),
        (lambda x: np.sort(x), "numpy.sort"),
        (lambda x: np.linalg.norm(x), "numpy.norm"),
        (lambda x: np.asarray(x), "would lose the tangent"),
        (lambda x: np.sum(x, initial=5.0), "numpy.sum has no rule for tangents with"),
        (lambda x: np.sum(x, 0, None), "numpy.sum has no rule"),
        (lambda x: x.sum(out=np.zeros(())), "'out'"),
        (lambda x: x.mean(where=[True, False, True]), "numpy.mean has no rule"),
        (lambda x: np.cumsum(x, 0, float), "numpy.cumsum has no rule"),
        (lambda x: np.concatenate([x, x], out=np.zeros(6)), "numpy.concatenate has no rule"),
        (lambda x: np.stack([x, x], dtype=np.float32), "numpy.stack has no rule"),
        (lambda x: np.take(x, [0], mode="wrap"), "numpy.take has no rule"),
        (lambda x: np.einsum("i->", x, dtype=np.float32), "numpy.einsum has no rule"),
        (lambda x: np.einsum(x, [0], []), "numpy.einsum has no rule"),
        (lambda x: np.dot(x, x, np.zeros(())), "numpy.dot has no rule"),
        (lambda x: x.reshape(3, order="A"), "numpy.reshape has no rule"),
        (lambda x: x.max(), "numpy.ndarray.max has no rule"),
        (lambda x: x.clip(0, 1), "numpy.ndarray.clip has no rule"),
        (lambda x: x.var(), "numpy.ndarray.var has no rule"),
        (lambda x: x.flat, "numpy.ndarray.flat has no rule"),
        (lambda x: float(x.sum()), "a number of Python would lose"),
        (lambda x: int(x.sum()), "a number of Python would lose"),
        (lambda x: complex(x.sum()), "a number of Python would lose"),
        (lambda x: range(x.sum()), "a number of Python would lose"),
        (lambda x: math.exp(x.sum()), "a number of Python would lose"),
        (lambda x: np.array([x]), "would lose the tangent"),
    ],
)
def test_what_it_does_not_know_raises(call, named):
    with pytest.raises(TypeError, match="Dual: ") as error:
        call(Dual(np.ones(3), np.ones(3)))
    assert named in str(error.value)


def test_what_no_array_has_it_has_not_either():
    x = Dual(np.ones(3), np.ones(3))
    assert not hasattr(x, "nothing") and not hasattr(x, "__array_interface__")


def test_an_array_takes_no_dual():
    x = np.ones(3)
    with pytest.raises(TypeError, match="would lose the tangent"):
        x[0:2] = Dual(np.ones(2), np.ones(2))


def test_shapes_have_to_agree():
    with pytest.raises(ValueError, match=r"tangent must have the shape of value, \(3,\), got \(2"):
        Dual(np.ones(3), np.ones(2))


def test_as_an_array():
    x = Dual(np.ones((2, 3)), np.full((2, 3), 2.0))
    assert (x.shape, x.ndim, x.size, len(x), np.shape(x), np.ndim(x)) == (
        (2, 3),
        2,
        6,
        2,
        (2, 3),
        2,
    )
    assert bool(x[0, 0]) and not bool(Dual(np.zeros(()), np.ones(())))
    assert repr(x[0, 0]) == "Dual(1.0, tangent=2.0)"
    assert asarray(x) is x and asarray(x, np.float64) is x
    assert asarray(x, np.float32).tangent.dtype == np.float32
    assert asarray([1, 2], float).dtype == np.float64
    assert value_of(x) is x.value and tangent_of(x) is x.tangent
    assert value_of(3) == 3 and tangent_of(3) == 0
    both = Dual(x, Dual(x.tangent, x.value))
    assert value_of(both) is x.value and tangent_of(both).value is x.tangent
    assert (both.shape, both.dtype, both[0, 0].size) == ((2, 3), np.float64, 1)

"""Forward mode of forward mode of every record: its `jvp_jvp`, a second derivative f''(x)[u, w].

Attention, with all its options, is in test_jvp_jvp_attention.
"""

import copy

import numpy as np
import pytest
from test_jvp import (
    OWN,
    RECORDS,
    Problem,
    assert_near,
    differences,
    dot,
    each,
    every_call,
    few,
    leaves,
    real_leaves,
    some_calls,
)

import attnc
from attnc import registry


def second(problem, u, w, real=None):
    arrays, options = problem.split(problem.real if real is None else real)
    return problem.record.jvp_jvp(u, w, *arrays, **options)


def test_all_have_it():
    assert {name for name, record in RECORDS.items() if record.jvp and not record.jvp_jvp} == set()


@pytest.mark.one_in(4)  # the bridge to autograd does the same with all
@every_call
def test_it_is_differences_of_tangents(name, case):
    problem = Problem(name, case)

    def tangents(r):
        arrays, options = problem.split(problem.at(r, problem.w))
        _, tangent = attnc.jvp(problem.record.function, arrays, problem.u, **options)
        return tuple(leaves(tangent))

    if "window" in case:  # which jumps where its predicted center crosses a whole number
        problem.w = {n: each(lambda x: x / 64, w) for n, w in problem.w.items()}
    assert_near(*real_leaves(second(problem, problem.u, problem.w), differences(tangents)), name)


@pytest.mark.one_in(2)
@every_call
def test_it_is_the_second_derivative_that_hvp_takes(name, case):
    """<g, f''[u, w]> is <w, H u> of <g, f>, and of w and u."""
    problem = Problem(name, case)
    none = (None,) * len(problem.g)
    u, w = problem.u, problem.w
    found = second(problem, u, w)
    output = problem.output(problem.real)
    given = problem.incoming(output, found)
    got = dot(dict(zip(problem.record.incoming, problem.g, strict=True)), given)
    expected = dot(w, problem.backward_jvp(u, problem.g, none))
    assert abs(got - expected) <= 1e-10 * max(1, abs(got), abs(expected))
    for x, y in zip(leaves(found), leaves(second(problem, w, u)), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-11 * max(1, np.abs(y).max(initial=0)))
    assert any(np.any(x) for x in leaves(found)) or (name, case) in LINEAR


# Where it is 0, almost everywhere at least; one context alone is what it is merged to.
LINEAR = [(name, case) for name, case in few if name in ("relu", "rotary", "coverage_loss")]
LINEAR.append(("merge_attention", "one"))


@pytest.mark.one_in(4)
@some_calls
def test_it_is_built_like_the_output(name, case):
    problem = Problem(name, case)
    output, tangent = problem.jvp(problem.u)
    found = second(problem, problem.u, problem.w)
    assert type(found) is type(output)

    def check(x, y):
        if isinstance(x, tuple):
            assert type(x) is type(y)
            for pair in zip(x, y, strict=True):
                check(*pair)
        elif x is None:
            assert y is None
        else:
            assert np.shape(x) == np.shape(y) and x.dtype == y.dtype

    check(tangent, found)


@pytest.mark.one_in(4)
@some_calls
def test_it_is_linear(name, case):
    """That of all arrays is the sum of those of some and of the others; what is left out is 0."""
    problem = Problem(name, case)
    whole, names = second(problem, problem.u, problem.w), list(problem.u)
    parts = [{n: problem.u[n] for n in some} for some in (names[::2], names[1::2])]
    found = (leaves(second(problem, u, problem.w)) for u in parts)
    total = [x + y for x, y in zip(*found, strict=True)]
    for x, y in zip(leaves(whole), total, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-11 * max(1, np.abs(y).max(initial=0)))
    assert not any(np.any(x) for x in leaves(second(problem, problem.u, {})))


@pytest.mark.one_in(4)
@some_calls
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_dtypes(name, case, dtype):
    problem = Problem(name, case, dtype)
    output = problem.output(problem.real)
    real = [x.dtype for x in leaves(output) if x.dtype.kind == "f"]
    assert [x.dtype for x in leaves(second(problem, problem.u, problem.w))] == real


@pytest.mark.parametrize("name, case", [(n, c) for n, c in few if n in OWN])
def test_float32_agrees_with_float64(name, case):
    """Of formulas by hand, to a few roundings of the largest."""
    problem = Problem(name, case, np.float32)
    wide = {n: each(np.float64, x) for n, x in problem.real.items()}
    got = second(problem, problem.u, problem.w)
    expected = second(problem, problem.u, problem.w, wide)
    size = max(1.0, np.abs(expected).max(initial=0))
    assert np.abs(got - expected).max(initial=0) <= 8 * np.finfo(np.float32).eps * size


@pytest.mark.parametrize(
    "name, case, where",
    [
        ("gru", "lengths", {"x": (1, slice(None))}),
        ("monotonic_alignment", "key_lengths", {}),
        ("mean_squared_error", "mask", {}),
        ("softmax_cross_entropy", "ignored", {"logits": (0, slice(1, 3))}),
        ("coverage_loss", "mask", {}),
    ],
)
def test_what_is_not_read_may_be_anything(name, case, where):
    """NaN there, in the arrays and in both of their tangents, is in no number that is real."""
    problem = Problem(name, case)
    places = dict(where)
    if name in ("mean_squared_error", "coverage_loss"):
        off = ~problem.options["mask"]
        places = dict.fromkeys(problem.record.required, off)
    if name == "monotonic_alignment":
        off = np.arange(7) >= problem.options["key_lengths"][:, None]
        places = {"probability": np.broadcast_to(off[:, None], (2, 5, 7))}
    assert places and all(np.size(problem.real[n][p]) for n, p in places.items())
    filled = []
    for fill in (0.0, np.nan):
        given = [copy.deepcopy(x) for x in (problem.real, problem.u, problem.w)]
        for part in given:
            for n, place in places.items():
                part[n][place] = fill
        real, u, w = given
        filled.append(leaves(second(problem, u, w, real)))
    for x, y in zip(*filled, strict=True):
        assert np.isfinite(x).all()
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", ["gru", "dot_product_attention", "attend"])
def test_dropout_drops_the_same(name, rng):
    """By a generator what is drawn is that of the other passes, and it moves on once."""
    problem = Problem(name, "plain" if name == "gru" else "none one")
    if name == "gru":
        problem = Problem(name, "dropout")
        del problem.options["rng"]
    arrays, options = problem.split(problem.real)
    options |= {"dropout": 0.4}
    at_once, one_by_one = np.random.default_rng(7), np.random.default_rng(7)
    record, none = problem.record, (None,) * len(problem.g)
    found = record.jvp_jvp(problem.u, problem.w, *arrays, **options, rng=at_once)
    moved = record.backward_jvp(problem.u, problem.g, none, *arrays, **options, rng=one_by_one)
    assert at_once.bit_generator.state == one_by_one.bit_generator.state
    given = problem.incoming(record.function(*arrays, **options), found)
    got = dot(dict(zip(record.incoming, problem.g, strict=True)), given)
    moved = dict(zip(record.arrays, moved, strict=True))
    expected = dot(problem.w, {n: moved[n] for n in problem.real})
    assert abs(got - expected) <= 1e-10 * max(1, abs(expected))


def test_a_draw_is_that_of_the_other_passes():
    problem = Problem("hard_attention", "none")
    arrays, options = problem.split(problem.real)
    index = problem.record.function(*arrays, **options).index
    found = second(problem, problem.u, problem.w)
    forced = options | {"index": index}
    expected = problem.record.jvp_jvp(problem.u, problem.w, *arrays, **forced)
    assert found.index is None and len(set(index.ravel().tolist())) > 1
    for x, y in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("options", [{}, {"approximate": True}], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_is_straight_far_out(dtype, options):
    """Its second derivative is 0 there, and no product of infinity and 0."""
    x = np.sqrt(np.finfo(dtype).max) * np.array([-4, -1.5, 0.5, 4], dtype)
    one, record = np.ones_like(x), RECORDS["gelu"]
    assert not record.jvp_jvp({"x": one}, {"x": one}, x, **options).any()
    (moved,) = record.backward_jvp({"x": one}, (one,), (None,), x, **options)
    assert not moved.any()


def test_the_shape_of_arrays_is_checked():
    x = np.ones((3, 4))
    with pytest.raises(ValueError, match="^dot_product_attention: value must"):
        RECORDS["dot_product_attention"].jvp_jvp({}, {}, x, x, x[:2])
    with pytest.raises(TypeError, match="^gelu: approximate must"):
        RECORDS["gelu"].jvp_jvp({}, {}, x, approximate=3)


def test_register_keeps_it():
    def cube(x):
        return x**3

    def jvp_jvp(tangents, others, x):
        return 6 * x * tangents["x"] * others["x"]

    record = registry.register(
        cube,
        required=["x"],
        incoming=["dy"],
        forward=lambda x: (cube(x), (x,), None),
        backward=lambda saved, static, dy: (3 * saved[0] ** 2 * dy,),
        jvp_jvp=jvp_jvp,
    )
    assert record.jvp_jvp is jvp_jvp
    del registry._records[cube]

"""Forward mode and second order of every record that has them: `attnc.jvp` and `attnc.hvp`."""

import numpy as np
import pytest
from calls import CALLS, call
from checks import assert_close_like_naive, assert_same

import attnc
from attnc import _core, reference, registry
from attnc.dual import Dual, asarray

RECORDS = {record.name: record for record in registry.records()}
CALLS = [(name, case) for name, case in CALLS if RECORDS[name].jvp]
every_call = pytest.mark.parametrize("name, case", CALLS)
few = [(n, c) for n, c in CALLS if n != "attention_decoder"] + [
    (n, c) for n, c in CALLS if n == "attention_decoder"
][::5]
OWN = "relu", "gelu", "silu", "swiglu", "rotary"  # formulas of their own
some_calls = pytest.mark.parametrize("name, case", few)
STEP = 1e-4  # of differences of fourth order


def leaves(value):
    """All arrays and numbers in nested tuples, None left out."""
    if isinstance(value, tuple | list):
        return [leaf for item in value for leaf in leaves(item)]
    return [] if value is None else [np.asarray(value)]


def each(f, *values):
    """f of the arrays of values built alike; None where the first has none."""
    if values[0] is None:
        return None
    if isinstance(values[0], tuple | list):
        return tuple(each(f, *items) for items in zip(*values, strict=True))
    return asarray(f(*values))


def dot(left, right):
    """The sum of products, of dicts by name; where either has None there is nothing."""
    if left is None or right is None:
        return 0.0
    if isinstance(left, dict):
        return sum(dot(left[name], right[name]) for name in left)
    if isinstance(left, tuple):
        return sum(dot(x, y) for x, y in zip(left, right, strict=True))
    return float(np.sum(np.asarray(left, float) * np.asarray(right, float)))


class Problem:
    """A call, directions of all its real arrays, and gradients of its outputs."""

    def __init__(self, name, case, dtype=np.float64, seed=0):
        rng = np.random.default_rng(seed)
        self.record = RECORDS[name]
        arrays, options = call(name, case, rng, dtype)
        named = dict(zip(self.record.required, arrays, strict=False))
        self.extra = arrays[len(self.record.required) :]  # width, targets: after the real arrays
        named |= {n: x for n, x in options.items() if n in self.record.arrays}
        self.real = {n: x for n, x in named.items() if self.has_tangent(x)}
        self.options = {n: x for n, x in options.items() if n not in self.real}
        self.dtype = dtype

        def like(x):
            return np.asarray(rng.standard_normal(np.shape(x)), np.asarray(x).dtype)

        self.u, self.w = ({n: each(like, x) for n, x in self.real.items()} for _ in range(2))
        output = self.output(self.real)
        incoming = self.incoming(output, output).values()
        self.g, self.v = (tuple(each(like, x) for x in incoming) for _ in range(2))

    def incoming(self, output, values):
        """What is built like the output, by the names of incoming gradients; None where not."""
        found = dict.fromkeys(self.record.incoming)
        if not isinstance(output, tuple):
            return found | {self.record.incoming[0]: values}
        named = {"d" + f: x for f, x in zip(output._fields, values, strict=True)}
        return {name: named.get(name) for name in found}

    @staticmethod
    def has_tangent(x):
        return isinstance(x, tuple) or isinstance(x, np.ndarray) and x.dtype.kind == "f"

    def at(self, r, direction):
        return {n: each(lambda x, u: x + r * u, x, direction[n]) for n, x in self.real.items()}

    def split(self, real):
        """The arguments by position, and the others."""
        required = self.record.required
        others = {n: x for n, x in real.items() if n not in required}
        return (*(real[n] for n in required), *self.extra), others | self.options

    def output(self, real):
        arrays, options = self.split(real)
        return self.record.function(*arrays, **options)

    def gradients(self, real, g):
        arrays, options = self.split(real)
        _, saved, static = self.record.forward(*arrays, **options)
        found = self.record.backward(saved, static, *g)
        return {n: d for n, d in zip(self.record.arrays, found, strict=True) if n in real}

    def jvp(self, u):
        arrays, options = self.split(self.real)
        return attnc.jvp(self.record.function, arrays, u, **options)

    def backward_jvp(self, u, g, v):
        arrays, options = self.split(self.real)
        found = self.record.backward_jvp(u, g, v, *arrays, **options)
        return {n: d for n, d in zip(self.record.arrays, found, strict=True) if n in self.real}


def differences(f):
    """The derivative of f at 0, by differences of fourth order."""
    near = [leaves(f(k * STEP)) for k in (-2, -1, 1, 2)]
    return [
        (a - 8 * b + 8 * c - d) / (12 * STEP) if a.dtype.kind == "f" else None
        for a, b, c, d in zip(*near, strict=True)
    ]


def assert_near(got, expected, what):
    for x, y in zip(leaves(got), expected, strict=True):
        assert x.shape == y.shape, what
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-7 * max(1, np.abs(y).max(initial=0)))


def real_leaves(got, expected):
    return leaves(got), [x for x in expected if x is not None]


# ---- against differences -------------------------------------------------------------------------


@every_call
def test_tangents_are_differences(name, case):
    problem = Problem(name, case)
    output, tangent = problem.jvp(problem.u)
    assert_same(leaves(output), leaves(problem.output(problem.real)))
    expected = differences(lambda r: problem.output(problem.at(r, problem.u)))
    assert_near(*real_leaves(tangent, expected), "tangent")


@every_call
def test_second_order_is_differences_of_gradients(name, case):
    problem = Problem(name, case)
    g = problem.g

    def gradients(r):
        moved = tuple(
            None if x is None else each(lambda x, v: x + r * v, x, v)
            for x, v in zip(g, problem.v, strict=True)
        )
        return tuple(problem.gradients(problem.at(r, problem.u), moved).values())

    found = problem.backward_jvp(problem.u, g, problem.v)
    for got, (name_of, _) in zip(found.values(), problem.real.items(), strict=True):
        assert got is not None, name_of
    assert_near(tuple(found.values()), differences(gradients), "gradients")


@every_call
def test_second_order_is_symmetric(name, case):
    """<u, H w> = <w, H u>; and <g, J u> = <J^T g, u>."""
    problem = Problem(name, case)
    none = (None,) * len(problem.g)
    u, w = problem.u, problem.w
    Hu = problem.backward_jvp(u, problem.g, none)
    Hw = problem.backward_jvp(w, problem.g, none)
    left, right = dot(u, Hw), dot(w, Hu)
    assert abs(left - right) <= 1e-10 * max(1, abs(left), abs(right))
    output, tangent = problem.jvp(u)
    tangents = problem.incoming(output, tangent)
    left = dot(dict(zip(problem.record.incoming, problem.g, strict=True)), tangents)
    right = dot(u, problem.gradients(problem.real, problem.g))
    assert abs(left - right) <= 1e-10 * max(1, abs(left), abs(right))


@some_calls
def test_one_tangent_alone(name, case):
    """The tangent of all is the sum of those of each; what is left out is 0."""
    problem = Problem(name, case)
    _, whole = problem.jvp(problem.u)
    parts = [problem.jvp({n: u})[1] for n, u in problem.u.items()]
    total = [sum(terms) for terms in zip(*map(leaves, parts), strict=True)]
    for x, y in zip(leaves(whole), total, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-11 * max(1, np.abs(y).max(initial=0)))
    found = problem.backward_jvp({}, problem.g, (None,) * len(problem.g))
    assert not any(np.any(x) for x in leaves(tuple(found.values())))


@some_calls
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_dtypes(name, case, dtype):
    """Tangents have the dtypes of outputs, those of gradients the dtypes of gradients."""
    problem = Problem(name, case, dtype)
    output, tangent = problem.jvp(problem.u)
    real = [x for x in leaves(output) if x.dtype.kind == "f"]
    assert [x.dtype for x in leaves(tangent)] == [x.dtype for x in real]
    found = problem.backward_jvp(problem.u, problem.g, (None,) * len(problem.g))
    gradients = problem.gradients(problem.real, problem.g)
    for n, d in gradients.items():
        assert [x.dtype for x in leaves(found[n])] == [x.dtype for x in leaves(d)], n


# ---- float32 -------------------------------------------------------------------------------------

# What is in C has tests of its own: test_jvp_attention, test_hvp_attention.
IN_C = {name for name in dir(_core) if hasattr(_core, f"{name}_hvp")}
ON_DUALS = [
    (n, c) for n, c in few if hasattr(reference, n) and n not in {*OWN, *IN_C} and c != "dropout"
]


def on_duals(problem, dtype):
    """Tangents of the plain formula and of its pullback, in this dtype."""

    def dual(x, u):
        return Dual(np.asarray(x, dtype), np.asarray(u, dtype))

    arrays, options = problem.split(
        {n: each(dual, x, problem.u[n]) for n, x in problem.real.items()}
    )
    f = getattr(reference, problem.record.name)
    output, pullback = reference.vjp(f, *arrays, **options, dtype=dtype)
    named = dict(zip(problem.record.incoming, problem.g, strict=True))
    found = pullback(**{n: each(dtype, g) for n, g in named.items() if g is not None})
    return _tangents(output), [_tangents(vars(found)[n]) for n in problem.real]


def _tangents(value):
    if isinstance(value, tuple | list):
        return [leaf for item in value for leaf in _tangents(item)]
    return [value.tangent if isinstance(value, Dual) else np.zeros_like(value)]


@pytest.mark.parametrize("name, case", ON_DUALS)
def test_float32_is_as_exact_as_plain_numpy(name, case):
    problem = Problem(name, case, np.float32)
    found = problem.backward_jvp(problem.u, problem.g, (None,) * len(problem.g))
    got = leaves(problem.jvp(problem.u)[1]), leaves([found[n] for n in problem.real])
    naive, exact = on_duals(problem, np.float32), on_duals(problem, np.float64)
    exact = exact[0], [x for part in exact[1] for x in part]
    naive = naive[0], [x for part in naive[1] for x in part]
    for xs, ys, zs in zip(got, exact, naive, strict=True):
        for x, y, z in zip(xs, ys, zs, strict=True):
            assert_close_like_naive(x, y, z, what=name)


@pytest.mark.parametrize("name, case", [(n, c) for n, c in few if n in OWN])
def test_float32_agrees_with_float64(name, case):
    """Of formulas by hand, to a few roundings of the largest."""
    problem = Problem(name, case, np.float32)
    wide = {n: each(np.float64, x) for n, x in problem.real.items()}
    arrays, options = problem.split(wide)
    none = (None,) * len(problem.g)
    exact = problem.record.jvp(problem.u, *arrays, **options)[1]
    second = problem.record.backward_jvp(problem.u, problem.g, none, *arrays, **options)
    found = problem.backward_jvp(problem.u, problem.g, none)
    pairs = [(problem.jvp(problem.u)[1], exact), *zip(found.values(), second, strict=True)]
    for got, expected in pairs:
        size = max(1.0, np.abs(expected).max(initial=0))
        assert np.abs(got - expected).max(initial=0) <= 8 * np.finfo(np.float32).eps * size


def test_a_query_of_zeros_has_no_direction_in_a_decoder_of_cosines():
    """Its cosines and their gradients are 0: so are the tangents, of a state that begins at 0."""
    problem = Problem("attention_decoder", "cosine bahdanau gru 2 False")
    problem.real["state"] = each(np.zeros_like, problem.real["state"])
    output, tangent = problem.jvp(problem.u)
    given = problem.incoming(output, tangent)
    left = dot(dict(zip(problem.record.incoming, problem.g, strict=True)), given)
    right = dot(problem.u, problem.gradients(problem.real, problem.g))
    assert abs(left - right) <= 1e-10 * max(1, abs(right))

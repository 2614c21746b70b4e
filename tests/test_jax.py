"""The functions of attnc on arrays of JAX: values, gradients, and what JAX transforms them with."""

import functools
import re
import sys

import numpy as np
import pytest
from calls import CALLS, CASES, call

import attnc
from attnc import registry
from attnc.registry import Output

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import attnc.jax  # noqa: E402
from attnc.jax._calls import bind  # noqa: E402

RECORDS = {record.name: record for record in registry.records()}
# The decoder has a hundred cases, of which a few differ for a bridge: nesting and constants.
SOME = [
    (name, case)
    for name, case in CALLS
    if name != "attention_decoder"
    or case
    in {
        "additive bahdanau gru 2 False",
        "dot fed lstm 1 True",
        "monotonic additive luong",
        "window predictive luong False",
        *("without a state", "part of a state", "key_lengths", "noise"),
    }
]
# One call of each function that has options and outputs, for what takes long to compile.
FIRST = {name: next(c for n, c in reversed(SOME) if n == name) for name in CASES}
FIRST |= {"attention_decoder": "without a state", "hard_attention": "slope"}
FIRST |= dict.fromkeys(("rnn", "gru", "lstm"), "lengths")
FIRST |= {name: "everything two" for name in CASES if name.endswith("_attention")} | {
    "hard_attention": "slope",
    "merge_attention": "both",
    "chunkwise_attention": "weights",
    "attend": "everything two",
}
# Functions whose calls here have one array alone, which may have any last axis.
OF_ONE_ARRAY = {
    *("relu", "gelu", "silu", "layer_norm", "rms_norm", "rotary"),
    *("coverage_loss", "monotonic_alignment"),
}


@pytest.fixture(autouse=True)
def double():
    """Numbers of 64 bits, while a test of this file runs."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def named(record, arrays, options):
    """All arguments by name."""
    arguments = dict(zip(record.required, arrays, strict=False)) | options
    extra = arrays[len(record.required) :]
    others = [
        n for n in attnc.jax._calls._signature(record.function).parameters if n not in options
    ]
    return arguments | dict(zip(others[len(record.required) :], extra, strict=False))


class Problem:
    """A call with its real arrays apart, in NumPy and in JAX."""

    def __init__(self, name, case, rng, dtype=np.float64):
        self.record, self.dtype = RECORDS[name], dtype
        arrays, options = call(name, case, rng, dtype)
        self.arguments = named(self.record, arrays, options)
        self.names = [n for n in self.record.arrays if n in self.arguments and self.is_real(n)]
        self.real = [self.arguments[n] for n in self.names]
        self.bridged = attnc.jax.of(self.record.function)
        self.output = self.numpy(*self.real)
        self.kept = [
            k for k, n in enumerate(self.output_names()) if f"d{n}" in self.record.incoming
        ]
        self.incoming = [
            rng.standard_normal(np.shape(x)).astype(np.asarray(x).dtype)
            for x in self.leaves(self.output)
        ]

    def is_real(self, name):
        leaves = jax.tree.leaves(self.arguments[name])
        return bool(leaves) and all(isinstance(x, np.ndarray) for x in leaves)

    def output_names(self):
        if not isinstance(self.output, tuple):
            return [self.record.incoming[0][1:]]
        return [n for n in self.output._fields for _ in self.leaves(getattr(self.output, n))]

    @staticmethod
    def leaves(tree):
        return jax.tree.leaves(tree)

    def numpy(self, *real):
        return self.record.function(**self.arguments | dict(zip(self.names, real, strict=True)))

    def jax(self, *real):
        return self.bridged(**self.arguments | dict(zip(self.names, real, strict=True)))

    def total(self, *real, function=None):
        """A number that every real output is part of."""
        outputs = self.leaves((function or self.jax)(*real))
        return sum((outputs[k] * self.incoming[k]).sum() for k in self.kept)

    def gradients(self, *real):
        """Of that number, in NumPy."""
        arguments = self.arguments | dict(zip(self.names, real, strict=True))
        rest = {n: x for n, x in arguments.items() if n not in self.record.required}
        required = [arguments[n] for n in self.record.required]
        output, pullback = attnc.vjp(self.record.function, *required, **rest)
        tree = jax.tree.structure(output)
        given = jax.tree.unflatten(
            tree, [x if k in self.kept else None for k, x in enumerate(self.incoming)]
        )
        if not isinstance(output, tuple):
            incoming = {self.record.incoming[0]: given}
        else:
            fields = [n for n in output._fields if f"d{n}" in self.record.incoming]
            incoming = {f"d{n}": getattr(given, n) for n in fields}
        found = pullback(**incoming)
        return [found[n] for n in self.names]


def assert_equal(found, wanted, tolerance=0.0):
    found, wanted = jax.tree.leaves(found), jax.tree.leaves(wanted)
    assert len(found) == len(wanted)
    for x, y in zip(found, wanted, strict=True):
        assert x.shape == np.shape(y)
        assert x.dtype == np.asarray(y).dtype
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


# ---- values and gradients ----


@pytest.mark.parametrize("name, case", SOME)
def test_values_and_gradients(name, case, rng):
    p = Problem(name, case, rng)
    output, pullback = jax.vjp(lambda real: p.jax(*real), p.real)
    assert type(output) is type(p.output) or not isinstance(p.output, tuple)
    assert_equal(output, p.output)  # the same bits
    cotangents = [
        jnp.asarray(x) if k in p.kept else np.zeros(np.shape(x), jax.dtypes.float0)
        for k, x in enumerate(p.incoming)
    ]
    (found,) = pullback(jax.tree.unflatten(jax.tree.structure(output), cotangents))
    # attnc has a gradient for a part that was None, too
    given = jax.tree.leaves(p.real, is_leaf=lambda x: x is None)
    wanted = jax.tree.leaves(p.gradients(*p.real))
    assert_equal(found, [g for g, x in zip(wanted, given, strict=True) if x is not None], 1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", FIRST)
def test_other_dtypes(name, dtype, rng):
    dtype = np.dtype(jnp.dtype(dtype))
    if name in ("attention_decoder", "rnn", "gru", "lstm", "linear_cross_entropy"):
        dtype = np.dtype(np.float32)  # no less is computed in halves as they are
    jax.config.update("jax_enable_x64", False)
    p = Problem(name, FIRST[name], rng, np.float32)
    # what is no number of the result's dtype stays in float32
    aside = {"slope", "sink", "center", "lses"}
    cast = [x if n in aside else jax.tree.map(lambda y: y.astype(dtype), x)
            for n, x in zip(p.names, p.real, strict=True)]  # fmt: skip
    output, wanted = p.jax(*cast), p.numpy(*cast)
    for x, y in zip(jax.tree.leaves(output), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == (np.int32 if y.dtype == np.int64 else y.dtype)
        np.testing.assert_array_equal(np.asarray(x, np.float32), np.asarray(y, np.float32))
    found = jax.grad(lambda *real: p.total(*real).astype(np.float32), range(len(cast)))(*cast)
    p.incoming = [np.asarray(x).astype(np.asarray(y).dtype) for x, y in
                  zip(p.incoming, jax.tree.leaves(wanted), strict=True)]  # fmt: skip
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(p.gradients(*cast)), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape


@pytest.mark.parametrize(
    "options",
    [
        {"sink": 0.5},
        {"slope": 0.1, "causal": True},
        {"center": 2.0, "window": (1, 1)},
        {"key_lengths": 3, "scale": 0.5},
    ],
    ids=lambda options: next(iter(options)),
)
def test_numbers_are_part_of_the_program(options, rng):
    q, k, v = (rng.standard_normal((2, 5, 4)) for _ in range(3))
    found = attnc.jax.dot_product_attention(q, k, v, **options)
    assert_equal(found, attnc.dot_product_attention(q, k, v, **options))
    # one that is traced, and for all, has no axes
    traced = {n: jnp.asarray(x) for n, x in options.items() if n in ("sink", "slope", "center")}
    found = jax.jit(lambda t: attnc.jax.dot_product_attention(q, k, v, **options | t))(traced)
    assert_equal(found, attnc.dot_product_attention(q, k, v, **options))


@pytest.mark.parametrize("scale", [0.5, 2])
def test_numbers_of_python_that_are_traced(scale, rng):
    q = rng.standard_normal((2, 5, 4)).astype(np.float32)
    f = attnc.jax.dot_product_attention
    compiled = jax.jit(lambda scale: f(q, q, q, scale=scale))
    # An array of its own dtype has a gradient, and in NumPy takes part in that of the result.
    assert_equal(compiled(scale), attnc.dot_product_attention(q, q, q, scale=np.float32(scale)))
    gradient = jax.jit(jax.grad(lambda scale: f(q, q, q, scale=scale).sum()))(float(scale))
    _, pullback = attnc.vjp(attnc.dot_product_attention, q, q, q, scale=np.array(scale, np.float32))
    np.testing.assert_array_equal(gradient, pullback(np.ones_like(q)).scale)
    others = jax.jit(lambda x: f(q, q, q, sink=x, slope=x))(scale)
    assert_equal(others, attnc.dot_product_attention(q, q, q, sink=scale, slope=scale))
    halves = jax.jit(lambda x: f(*[q.astype(np.float16)] * 3, scale=x))(scale)
    assert halves.dtype == np.float16
    assert jax.jit(attnc.jax.relu)(scale) == scale
    with pytest.raises(
        TypeError, match="query must hold real numbers of a float dtype, got dtype bo"
    ):
        f(jnp.ones((2, 5, 4), bool), q, q)


# ---- transformations ----


def stacked(rng, x, count=3):
    return jax.tree.map(lambda y: np.stack([y + 0.01 * k for k in range(count)]), x)


def element(k, x):
    return np.asarray(x[k])


def reference(p, batches):
    """A loop in NumPy over the first axis of those that have one; others are (False, array)."""
    outputs, gradients = [], []
    for k in range(3):
        real = [jax.tree.map(functools.partial(element, k), x) if m else x for m, x in batches]
        outputs.append(jax.tree.leaves(p.numpy(*real)))
        gradients.append(jax.tree.leaves(p.gradients(*real)))
    return tuple([np.stack(x) for x in zip(*many, strict=True)] for many in (outputs, gradients))


@pytest.mark.parametrize("which", ["first", "all"])
@pytest.mark.parametrize("name", FIRST)
def test_vmap(name, which, rng):
    p = Problem(name, FIRST[name], rng)
    batches = [
        (which == "all" or k == 0, stacked(rng, x) if which == "all" or k == 0 else x)
        for k, x in enumerate(p.real)
    ]
    axes = [0 if mapped else None for mapped, _ in batches]
    arrays = [x for _, x in batches]

    @jax.jit
    def everything(*real):
        outputs = jax.vmap(lambda *r: jax.tree.leaves(p.jax(*r)), axes)(*real)
        gradients = jax.vmap(jax.grad(p.total, range(len(real))), axes)(*real)
        whole = jax.grad(lambda *r: jax.vmap(p.total, axes)(*r).sum(), range(len(real)))(*real)
        return outputs, gradients, whole

    outputs, gradients, whole = everything(*arrays)
    wanted, of_each = reference(p, batches)
    assert_equal(outputs, wanted, 1e-13)
    assert_equal(gradients, of_each, 1e-12)
    mapped = [m for m, x in batches for _ in jax.tree.leaves(x)]
    summed = [g if m else g.sum(axis=0) for m, g in zip(mapped, of_each, strict=True)]
    assert_equal(whole, summed, 1e-12)


def test_vmap_of_what_has_no_gradient(rng):
    q, k, v = (rng.standard_normal((3, 4, 5, 2)) for _ in range(3))
    lengths, mask = rng.integers(0, 6, (3, 4)), rng.random((4, 5, 5)) < 0.7
    f = attnc.jax.dot_product_attention
    found = jax.vmap(lambda q, n: f(q, k[0], v[0], key_lengths=n, mask=mask))(q, lengths)
    wanted = [attnc.dot_product_attention(x, k[0], v[0], key_lengths=n, mask=mask)
              for x, n in zip(q, lengths, strict=True)]  # fmt: skip
    assert_equal(found, np.stack(wanted))
    found = jax.vmap(jax.vmap(lambda q, n: f(q, k[0, 0], v[0, 0], key_lengths=n)))(q, lengths)
    wanted = attnc.dot_product_attention(q, k[:1, :1], v[:1, :1], key_lengths=lengths)
    assert_equal(found, wanted)


@pytest.mark.parametrize("name", ["dot_product_attention", "layer_norm", "gru"])
def test_scan_and_checkpoint(name, rng):
    p = Problem(name, FIRST[name] if name != "gru" else "state", rng)

    def looped(function, many, real):
        def step(total, x):
            return total * 0.5 + p.total(x, *real[1:], function=function), None

        return jax.lax.scan(step, 0.0, many)[0]

    many = stacked(rng, p.real[0])
    real = [jax.tree.map(jnp.asarray, x) for x in p.real]
    plain = sum(0.5 ** (2 - k) * p.total(many[k], *p.real[1:], function=p.numpy) for k in range(3))
    wanted = [0.5 ** (2 - k) * p.gradients(many[k], *p.real[1:])[0] for k in range(3)]

    @jax.jit
    def everything(many):
        functions = [
            functools.partial(looped, f, real=real) for f in (p.jax, jax.checkpoint(p.jax))
        ]
        functions.append(jax.checkpoint(functions[0]))
        one = jax.checkpoint(lambda x: p.total(x, *real[1:]))
        return [g(many) for f in functions for g in (f, jax.grad(f))], jax.grad(one)(many[-1])

    found, last = everything(many)
    for value, gradient in zip(found[::2], found[1::2], strict=True):
        np.testing.assert_allclose(value, plain, rtol=1e-12)
        assert_equal(gradient, np.stack(wanted), 1e-12)
    assert_equal(last, wanted[-1], 1e-12)


def calls_in_python(function, *arrays):
    """How many functions in Python run while one that is compiled does."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"

    jax.block_until_ready(function(*arrays))
    sys.setprofile(profile)
    try:
        result = function(*arrays)
    finally:
        sys.setprofile(None)
    jax.block_until_ready(result)
    return count


def test_what_jit_returns_does_not_go_through_python(rng):
    q = jnp.asarray(rng.standard_normal((2, 5, 4)))
    f = attnc.jax.dot_product_attention
    least = calls_in_python(jax.jit(jnp.sin), q)
    assert calls_in_python(jax.jit(f), q, q, q) == least
    total = lambda q: f(q, q, q, causal=True).sum()  # noqa: E731
    assert calls_in_python(jax.jit(jax.value_and_grad(total)), q) == least
    assert calls_in_python(jax.jit(jax.vmap(total)), q) == least
    assert calls_in_python(jax.jit(jax.checkpoint(total)), q) == least


# ---- forward mode and second order ----


def power(x, weight=None, *, exponent=3):
    """A function whose every derivative is written down."""
    return x**exponent * (1.0 if weight is None else weight)


def _sum_to(shape, x):
    return x.sum(axis=tuple(range(x.ndim - len(shape))))


def _power_forward(x, weight=None, *, exponent=3):
    return power(x, weight, exponent=exponent), (x, weight), exponent


def _power_backward(saved, n, dy):
    (x, w), ones = saved, np.ones_like(dy)
    by_weight = None if w is None else _sum_to(w.shape, dy * x**n)
    return dy * n * x ** (n - 1) * (ones if w is None else w), by_weight


def _power_jvp(tangents, x, weight=None, *, exponent=3):
    w = 1.0 if weight is None else weight
    dx, dw = tangents.get("x"), tangents.get("weight")
    found = 0 * x
    found = found if dx is None else found + w * exponent * x ** (exponent - 1) * dx
    found = found if dw is None else found + x**exponent * dw
    return power(x, weight, exponent=exponent), found


def _power_backward_jvp(tangents, incoming, dincoming, x, weight=None, *, exponent=3):
    (g,), (dg,), n = incoming, dincoming, exponent
    w = 1.0 if weight is None else weight
    g, dg = (0 * x if y is None else y for y in (g, dg))
    dx, dw = (0.0 if tangents.get(k) is None else tangents[k] for k in ("x", "weight"))
    by_x = g * n * ((n - 1) * x ** (n - 2) * w * dx + x ** (n - 1) * dw)
    by_weight = g * n * x ** (n - 1) * dx + dg * x**n
    return by_x + dg * n * x ** (n - 1) * w, (
        None if weight is None else _sum_to(weight.shape, by_weight)
    )


def _power_jvp_jvp(tangents, others, x, weight=None, *, exponent=3):
    n, w = exponent, 1.0 if weight is None else weight
    (dx, dw), (ex, ew) = (
        [0.0 if of.get(k) is None else of[k] for k in ("x", "weight")] for of in (tangents, others)
    )
    curved = n * (n - 1) * x ** (n - 2) * w * dx * ex
    return curved + n * x ** (n - 1) * (dx * ew + ex * dw)


@pytest.fixture
def bridged():
    registry.register(
        power, required=["x"], optional=["weight"], incoming=["dy"], forward=_power_forward,
        backward=_power_backward, jvp=_power_jvp, backward_jvp=_power_backward_jvp,
        jvp_jvp=_power_jvp_jvp,
        outputs=lambda x, weight=None, **options: Output(x.shape), leading=["x"],
    )  # fmt: skip
    yield attnc.jax.of(power)
    registry._records.pop(power)


def _twice(f, x, w):
    """The second derivative as a function of its two directions."""
    return lambda u, v: jax.jvp(lambda x: jax.jvp(lambda x: f(x, w), (x,), (u,))[1], (x,), (v,))[1]


ORDERS = {
    "hessian": lambda f: jax.hessian(f, (0, 1)),
    "reverse over reverse": lambda f: jax.jacrev(jax.jacrev(f, (0, 1)), (0, 1)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f, (0, 1)), (0, 1)),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f, (0, 1)), (0, 1)),
    "of a checkpoint": lambda f: jax.hessian(jax.checkpoint(f), (0, 1)),
    "vmap": lambda f: jax.vmap(jax.hessian(f, (0, 1)), (0, None)),
    "vmap of forward over forward": lambda f: jax.vmap(jax.jacfwd(jax.jacfwd(f)), (0, None)),
    "along what moves": lambda f: (
        lambda x, w: jax.jvp(lambda x, w: jax.jvp(f, (x, w), (x * x, w))[1], (x, w), (w + x, w))
    ),
    "by tangents": lambda f: lambda x, w: jax.jacrev(_twice(f, x, w), (0, 1))(x * x, w - x),
    "by tangents, forward": lambda f: lambda x, w: jax.jacfwd(_twice(f, x, w))(x * x, w - x),
    "linearize": lambda f: lambda x, w: jax.linearize(jax.grad(f), x, w)[1](x, w),
    "jvp": lambda f: lambda x, w: jax.jvp(f, (x, w), (w + x, w)),
}


@pytest.mark.parametrize("order", ORDERS)
def test_second_order(order, bridged):
    x, w = jnp.array([[1.0, 2.0], [3.0, 0.5]]), jnp.array([0.3, 0.7])
    found = jax.jit(ORDERS[order](lambda x, w: jnp.sin(bridged(x, w)).sum()))(x, w)
    wanted = ORDERS[order](lambda x, w: jnp.sin(power(x, w)).sum())(x, w)
    assert_equal(found, wanted, 1e-10)


def test_check_grads(bridged):
    x, w = jnp.array([[1.0, 2.0], [3.0, 0.5]]), jnp.array([0.3, 0.7])
    check_grads(bridged, (x, w), order=2, modes=["fwd", "rev"])


def test_what_has_no_derivative(bridged):
    x = jnp.array([1.0, 2.0])
    total = lambda x: bridged(x).sum()  # noqa: E731
    for third in (
        jax.jacrev(jax.hessian(total)),
        jax.jacfwd(jax.hessian(total)),
        jax.jacfwd(jax.jacfwd(jax.jacfwd(total))),
        jax.jacrev(jax.jacfwd(jax.jacfwd(total))),
    ):
        with pytest.raises(NotImplementedError, match="power: there are .* but no third ones"):
            third(x)
    record = registry.record_of(power)
    registry._records[power] = record._replace(jvp_jvp=None)
    with pytest.raises(NotImplementedError, match="power: there is no `jvp_jvp` in its record"):
        jax.jacfwd(jax.jacfwd(total))(x)
    jax.jacrev(jax.jacfwd(total))(x)  # which needs the same rule, and does not run it
    registry._records[power] = record._replace(jvp=None, backward_jvp=None)
    with pytest.raises(NotImplementedError, match="power: there is no `jvp` in its record"):
        jax.jacfwd(total)(x)
    with pytest.raises(NotImplementedError, match="power: there is no `(jvp|backward_jvp)` in its"):
        jax.jacrev(jax.jacrev(total))(x)
    registry._records[power] = record._replace(outputs=None)
    with pytest.raises(NotImplementedError, match="power: there is no `outputs` in its record"):
        bridged(x)


def root(x):
    """A function that takes neither zeros nor nothing."""
    if not (x.size and (x > 0).all()):
        raise ValueError(f"root: x must be positive, got {x}")
    return np.sqrt(x)


def test_a_function_that_takes_no_zeros():
    registry.register(
        root, required=["x"], incoming=["dy"], forward=lambda x: (root(x), (x,), None),
        backward=lambda saved, static, dy: (dy / (2 * np.sqrt(saved[0])),),
        outputs=lambda x: Output(x.shape), leading=["x"],
    )  # fmt: skip
    try:
        f = attnc.jax.of(root)
        x = jnp.array([[1.0, 4.0], [9.0, 16.0]])
        assert_equal(jax.jit(jax.vmap(f))(x), np.sqrt(x))
        assert_equal(jax.grad(lambda x: f(x).sum())(x), 0.5 / np.sqrt(x))
    finally:
        registry._records.pop(root)


# ---- random numbers ----


def test_keys(rng):
    q, k, v = (rng.standard_normal((2, 5, 4)) for _ in range(3))
    f = functools.partial(attnc.jax.dot_product_attention, q, k, v, dropout=0.4)
    wanted = attnc.dot_product_attention(q, k, v, dropout=0.4, rng=7)
    compiled = jax.jit(lambda key: f(rng=key))
    assert_equal(f(rng=7), wanted)
    assert_equal(f(rng=np.uint8(7)), wanted)
    assert_equal(compiled(jax.random.key(7)), wanted)
    assert_equal(compiled(jax.random.PRNGKey(7)), wanted)
    other = attnc.dot_product_attention(q, k, v, dropout=0.4, rng=2**40 + 7)
    assert_equal(compiled(jax.random.key(2**40 + 7)), other)
    assert_equal(f(rng=2**40 + 7), other)
    # one key draws the same for every element, as for one alone
    found = jax.vmap(lambda q: attnc.jax.dot_product_attention(q, k[0], v[0], dropout=0.4, rng=7))(
        q
    )
    wanted = [attnc.dot_product_attention(x, k[0], v[0], dropout=0.4, rng=7) for x in q]
    assert_equal(found, np.stack(wanted))
    keys = jax.random.split(jax.random.key(1), 2)
    found = jax.vmap(lambda key: f(rng=key))(keys)
    assert_equal(found, np.stack([np.asarray(f(rng=key)) for key in keys]))
    x, parameters = call("gru", "dropout", rng)[0]
    same = {"dropout": 0.5, "rng": 3}
    assert_equal(
        jax.tree.leaves(attnc.jax.gru(x, parameters, **same)),
        jax.tree.leaves(registry_function("gru")(x, parameters, **same)),
    )


def registry_function(name):
    return RECORDS[name].function


@pytest.mark.parametrize(
    "key, error",
    [
        (None, "rng must be given with dropout, a key of JAX"),
        (-1, "rng must be a key of JAX, .*, or an integer in 0..2\\*\\*64-1, got -1"),
        (np.random.default_rng(0), "got a Generator, which a compiled program cannot ask again"),
        ("7", "got str"),
        (True, "got bool"),
        (np.zeros(3, np.uint32), r"got an array of shape \(3,\) and dtype uint32; a key has 64"),
        (np.zeros(2, np.int32), r"got an array of shape \(2,\) and dtype int32"),
        (np.array(7), r"got an array of shape \(\) and dtype int64; jax.random.key\(rng\) makes"),
        (
            lambda: jax.random.key(0, impl="rbg"),
            r"got an array of shape \(\) and dtype key<rbg>; .* impl='threefry2x32'\) has",
        ),
        (
            lambda: jax.random.split(jax.random.key(0), 3),
            r"got an array of shape \(3,\) and dtype key<fry>; jax.vmap goes over several",
        ),
    ],
)
def test_wrong_keys(key, error, rng):
    q = rng.standard_normal((2, 5, 4))
    key = key() if callable(key) else key
    with pytest.raises((TypeError, ValueError), match=f"dot_product_attention: .*{error}"):
        attnc.jax.dot_product_attention(q, q, q, dropout=0.4, rng=key)


def test_a_key_that_is_needed_in_python(rng):
    scores, value = rng.standard_normal((2, 3)), rng.standard_normal((3, 4))
    message = r"hard_attention: rng must be a key of JAX, jax.random.key\(0\), or an integer .*None"
    with pytest.raises(TypeError, match=message):
        attnc.jax.hard_attention(scores, value)
    found = attnc.jax.hard_attention(scores, value, sample=False)
    assert_equal(found, attnc.hard_attention(scores, value, sample=False))


# ---- errors ----


def test_errors_while_tracing(rng):
    q, f = rng.standard_normal((2, 5, 4)), attnc.jax.dot_product_attention
    with pytest.raises(
        ValueError, match="dot_product_attention: value must have the length of key"
    ):
        jax.jit(f)(q, q, q[:, :3])
    with pytest.raises(ValueError, match="dot_product_attention: window must be None or a pair"):
        f(q, q, q, window=(-1, 2))
    with pytest.raises(TypeError, match="dot_product_attention: .*unexpected keyword .*maks"):
        f(q, q, q, maks=None)
    with pytest.raises(TypeError, match="mask must be boolean"):
        f(q, q, q, mask=np.ones((2, 5, 5), np.int32))
    with pytest.raises(TypeError, match="one dtype, got query float64, key float32, value float64"):
        f(q, q.astype(np.float32), q)
    with pytest.raises(
        TypeError, match="key must hold real numbers of a float dtype, got dtype int"
    ):
        f(q, q.astype(np.int64), q)
    with pytest.raises(TypeError, match="query must be an array of JAX, got a list with float; ja"):
        f([[1.0]], q, q)
    for name in ("bias", "sink", "slope", "center"):
        message = f"dot_product_attention: {name} must be an array of JAX, got a list with float; "
        with pytest.raises(TypeError, match=message):
            f(q, q, q, window=(1, 1), **{name: [[0.5]]})
    with pytest.raises(
        TypeError, match="mask must be an array of JAX, a number or a string, got b"
    ):
        f(q, q, q, mask=object())
    with pytest.raises(TypeError, match="dropout must be a constant of the program, got an array"):
        jax.jit(lambda p: f(q, q, q, dropout=p, rng=0))(0.5)
    with pytest.raises(TypeError, match="of: function must be one of attnc or registered, got len"):
        attnc.jax.of(len)
    with pytest.raises(AttributeError, match="no attribute 'no_attention'"):
        attnc.jax.no_attention  # noqa: B018
    x, parameters = call("gru", "plain", rng)[0]
    with pytest.raises(ValueError, match="gru: x must"):
        attnc.jax.gru(x[0], parameters)
    assert "gru" in dir(attnc.jax) and attnc.jax.gru.__doc__ == registry_function("gru").__doc__


@pytest.mark.parametrize("change", ["rank", "last", "more"])
@pytest.mark.parametrize("name", FIRST)
def test_shapes_are_refused_while_tracing(name, change, rng):
    """An array of another shape, each in turn: refused with the text of NumPy, or taken as well."""
    changes = {
        "rank": lambda x: x[0],
        "last": lambda x: x[..., :-1],
        "more": lambda x: x[None, None],
    }
    p = Problem(name, FIRST[name], rng)
    fixed = [n for n in p.record.fixed if isinstance(p.arguments.get(n), np.ndarray)]
    checked = 0
    for argument in [*p.names, *fixed]:
        arrays, tree = jax.tree.flatten(p.arguments[argument])
        if arrays[0].ndim == 0:
            continue
        arrays[0] = np.array(changes[change](arrays[0]))
        arguments = p.arguments | {argument: jax.tree.unflatten(tree, arrays)}
        try:
            p.record.function(**arguments)
        except (TypeError, ValueError) as error:
            if " must lie in " in str(error):
                continue  # of the numbers, not of the shape
            with pytest.raises(type(error), match=re.escape(str(error))):
                jax.eval_shape(lambda arguments=arguments: p.bridged(**arguments))
            checked += 1
        else:
            jax.eval_shape(lambda arguments=arguments: p.bridged(**arguments))
    assert checked or change != "last" or name in OF_ONE_ARRAY


@pytest.mark.parametrize("name", FIRST)
def test_texts_name_the_function(name, rng):
    """None of those behind it, whatever is wrong."""
    p = Problem(name, FIRST[name], rng)
    wrongs = [p.arguments | {n: x} for n in p.arguments for x in (None, "x", {}, [1, 2])]
    wrongs += [{n: x for n, x in p.arguments.items() if n != m} for m in p.arguments]
    refused = 0
    for arguments in [*wrongs, {}, p.arguments | {"maks": 1}]:
        try:
            jax.eval_shape(lambda arguments=arguments: p.bridged(**arguments))
        except (TypeError, ValueError) as error:
            refused += 1
            assert str(error).startswith(f"{name}: "), error
            assert not re.search(r"<lambda>|\b_\w+\(| object at 0x", str(error)), error
    assert refused > 2


def test_errors_while_running(rng):
    q, f = rng.standard_normal((2, 5, 4)), attnc.jax.dot_product_attention
    compiled = jax.jit(lambda n: f(q, q, q, key_lengths=n))
    compiled(np.array([5, 0]))
    error = (jax.errors.JaxRuntimeError, ValueError)  # the second where XLA does not wait
    text = "dot_product_attention: key_lengths must lie in 0..5, the number of keys, got 6"
    with pytest.raises(error, match=text):
        compiled(np.array([5, 6])).block_until_ready()
    with pytest.raises(
        error, match="dot_product_scores: query_lengths must lie in 0..5, .* got -1"
    ):
        attnc.jax.dot_product_scores(q, q, query_lengths=np.array([-1, 0]))
    packed = functools.partial(f, q, q, q)
    for offsets, text in [
        ([1, 2, 5], "query_offsets must begin with 0, got 1"),
        ([0, 3, 2, 5], "query_offsets must not decrease, got 3 and then 2 at index 2"),
        ([0, 4], r"query_offsets must end with 5, .*np.append\(0, np.cumsum\(lengths\)\)"),
    ]:
        with pytest.raises(error, match=text):
            packed(query_offsets=np.array(offsets))
    x, parameters = call("gru", "plain", rng)[0]
    with pytest.raises(error, match="gru: lengths must"):
        attnc.jax.gru(x, parameters, lengths=np.full(len(x), 99))
    with pytest.raises(error, match="softmax_cross_entropy: targets must"):
        attnc.jax.softmax_cross_entropy(q[0], np.full(5, 9))


def test_a_program_of_another_process():
    from attnc.jax._foreign import call_in_c

    with pytest.raises(jax.errors.JaxRuntimeError, match="gru: the program must be traced in"):
        call_in_c("attnc_python", [jax.ShapeDtypeStruct((), np.float64)], [], call="gru forward 0")


# ---- what nobody makes but by hand ----


def plan_of(rng, **options):
    q = rng.standard_normal((2, 5, 4))
    record = RECORDS["dot_product_attention"]
    made, operands = bind(record, (q, q, q), options)
    return made.attention.plan.copy(), [jnp.asarray(x) for x in operands], made


def forward_by_hand(plan, operands, shape=(2, 5, 4), save=0):
    from attnc.jax._foreign import call_in_c

    results = [jax.ShapeDtypeStruct(shape, np.float64)]
    return call_in_c("attnc_attention_forward", results, operands, plan=plan, save=np.int64(save))


def test_plans_of_garbage_do_not_crash(rng):
    plan, operands, _ = plan_of(rng, window=(1, 1), key_lengths=np.array([2, 5]))
    forward_by_hand(plan, operands)
    refused = 0
    choices = [0, 1, -1, 3, 2**31, 2**62, -(2**63), 0x7FF8000000000000]
    for word in range(len(plan)):
        wrong = plan.copy()
        wrong[word] = choices[rng.integers(len(choices))]
        try:
            np.asarray(forward_by_hand(wrong, operands)[0])
        except jax.errors.JaxRuntimeError as error:
            assert "attnc: " in str(error)
            refused += 1
    assert refused > 10
    for wrong in (plan[:-1], plan[:3], np.append(plan, 0), plan.astype(np.int32)):
        with pytest.raises(
            jax.errors.JaxRuntimeError, match="attnc: the program must fit its plan"
        ):
            forward_by_hand(wrong, operands)


def test_buffers_that_do_not_fit_their_plan(rng):
    plan, operands, _ = plan_of(rng, key_lengths=np.array([2, 5]))
    wrongs = [
        operands[:-1],
        [*operands, operands[0]],
        [operands[0][:1], *operands[1:]][::-1],
        [operands[0][:, :4], *operands[1:]],
        [operands[0].astype(np.float32), *operands[1:]],
        [*operands[:3], operands[3].astype(np.float64)],
        [*operands[:3], operands[3][None]],
    ]
    for wrong in wrongs:
        with pytest.raises(
            jax.errors.JaxRuntimeError, match="attnc: the program must fit its plan"
        ):
            forward_by_hand(plan, wrong)
    for more in ({"shape": (2, 5, 3)}, {"save": 1}, {"save": 2**40}):
        with pytest.raises(
            jax.errors.JaxRuntimeError, match="attnc: the program must fit its plan"
        ):
            forward_by_hand(plan, operands, **more)


# ---- threads ----


def first_sum(function):
    return lambda *arrays: jax.tree.leaves(function(*arrays))[0].sum()


def test_a_thousand_calls_at_once(rng):
    from concurrent.futures import ThreadPoolExecutor

    problems = [
        ("dot_product_attention", tuple(rng.standard_normal((4, 64, 32)) for _ in range(3))),
        ("additive_attention",
         (*(rng.standard_normal((2, 20, 16)) for _ in range(3)), rng.standard_normal(16))),
        ("gru", call("gru", "plain", rng)[0]),
    ]  # fmt: skip
    jobs = []
    for name, arrays in problems:
        f = jax.jit(jax.value_and_grad(first_sum(attnc.jax.of(RECORDS[name].function))))
        jobs.append((f, arrays, f(*arrays)))

    def one(k):
        f, arrays, wanted = jobs[k % 3]
        found = f(*arrays)
        return all(
            np.array_equal(x, y)
            for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(1000)))


@pytest.mark.parametrize(
    "options",
    [
        {"key_lengths": [[1], [4]]},
        {"key_mask": [[[True, False, True, True]]]},
        {"mask": [[[[True, False, True, True]]]]},
        {"causal_offset": [[1], [0]], "causal": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_lists_stand_for_arrays(options, rng):
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    f = jax.jit(lambda x: attnc.jax.dot_product_attention(x, x, x, **options))
    expected = attnc.dot_product_attention(x, x, x, **options)
    np.testing.assert_allclose(f(x), expected, rtol=1e-5, atol=1e-6)

"""Forward mode and second order of every function, on arrays of JAX, in every order there is."""

import functools

import numpy as np
import pytest
from calls import CALLS

import attnc

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402
from test_jax import FIRST, Problem, double  # noqa: E402, F401

import attnc.jax  # noqa: E402

# Where a difference may step over a kink: hard attention chooses by its scores, and some sparse
# weights are 0.
WITH_KINKS = ("hard_attention", "sparsemax", "entmax15")
SMOOTH = [pair for pair in CALLS if not any(kink in " ".join(pair) for kink in WITH_KINKS)]


def directions(p, rng):
    return [jax.tree.map(lambda x: rng.standard_normal(x.shape), x) for x in p.real]


def in_numpy(p, function, along, *incoming):
    """`attnc.jvp` or `attnc.hvp` of the problem in a direction."""
    required = [p.arguments[n] for n in p.record.required]
    options = {n: x for n, x in p.arguments.items() if n not in p.record.required}
    return function(
        p.record.function, required, dict(zip(p.names, along, strict=True)), *incoming, **options
    )


def second_tangents(p, along, others):
    """What the record itself has of forward mode of forward mode."""
    required = [p.arguments[n] for n in p.record.required]
    options = {n: x for n, x in p.arguments.items() if n not in p.record.required}
    moves = (dict(zip(p.names, each, strict=True)) for each in (along, others))
    return p.record.jvp_jvp(*moves, *required, **options)


def moved_gradients(p, along):
    """Tangents of the gradients, by `attnc.hvp`: leaves in the order of `p.real`."""
    tree = jax.tree.structure(p.output)
    given = jax.tree.unflatten(tree, [x if k in p.kept else None for k, x in enumerate(p.incoming)])
    if isinstance(p.output, tuple):
        fields = [n for n in p.output._fields if f"d{n}" in p.record.incoming]
        given = {f"d{n}": getattr(given, n) for n in fields}
    found = in_numpy(p, attnc.hvp, along, given)
    return [jax.tree.leaves(found[n], is_leaf=lambda x: x is None) for n in p.names]


def leaves_of(gradients, real):
    """Those of what was given: attnc has a gradient for a part that was None, too."""
    found = []
    for gradient, x in zip(gradients, real, strict=True):
        given = jax.tree.leaves(x, is_leaf=lambda y: y is None)
        found += [g for g, y in zip(gradient, given, strict=True) if y is not None]
    return found


@pytest.mark.parametrize("name, case", CALLS)
def test_every_order(name, case, rng):
    p = Problem(name, case, rng)
    along, others = directions(p, rng), directions(p, rng)
    every = tuple(range(len(p.real)))
    gradient = jax.grad(p.total, every)

    def inner(x, y):
        return sum((a * b).sum() for a, b in zip(*map(jax.tree.leaves, (x, y)), strict=True))

    @jax.jit
    def everything(real, along, others):
        real, along, others = tuple(real), tuple(along), tuple(others)
        tangent = lambda *x: jax.jvp(p.jax, x, along)[1]  # noqa: E731
        in_direction = lambda *x: jax.jvp(p.total, x, along)[1]  # noqa: E731
        tangents = jax.jvp(tangent, real, others)
        return [[t[k] for k in p.kept] for t in map(jax.tree.leaves, tangents)], {
            "forward over reverse": jax.jvp(gradient, real, along)[1],
            "reverse over reverse": jax.grad(lambda *x: inner(gradient(*x), along), every)(*real),
            "reverse over forward": jax.grad(in_direction, every)(*real),
        }

    tangents, orders = everything(p.real, along, others)
    for found, wanted in zip(
        tangents, (in_numpy(p, attnc.jvp, along)[1], second_tangents(p, along, others)), strict=True
    ):
        wanted = jax.tree.leaves(wanted, is_leaf=lambda x: x is None)
        for x, k in zip(found, p.kept, strict=True):
            np.testing.assert_array_equal(x, wanted[k])  # the same bits
    wanted = leaves_of(moved_gradients(p, along), p.real)
    for order, found in orders.items():
        for x, y in zip(jax.tree.leaves(found), wanted, strict=True):
            most = np.abs(y).max(initial=1e-300)
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12 * most, err_msg=order)


@pytest.mark.one_in(20)
@pytest.mark.parametrize("name, case", SMOOTH)
def test_check_grads(name, case, rng):
    p = Problem(name, case, rng)

    @jax.jit
    def f(*real):
        return [jnp.asarray(x) for k, x in enumerate(jax.tree.leaves(p.jax(*real))) if k in p.kept]

    # The error of a difference grows with its step squared: that of JAX, 1e-4, is too long for gru,
    # and a tenth of it for the Gaussians of windows.
    check = functools.partial(check_grads, args=tuple(p.real), eps=1e-6, atol=1e-6, rtol=1e-6)
    check(f, order=2, modes=["fwd", "rev"])


@pytest.mark.parametrize("name", ["dot_product_attention", "additive_scores", "gru", "layer_norm"])
def test_hessian(name, rng):
    """Forward over reverse and over forward under `vmap`: batches of tangents, and arrays that are
    common to them."""
    p = Problem(name, FIRST[name], rng)
    x = p.real[0]
    total = lambda x: p.total(x, *p.real[1:])  # noqa: E731
    found, twice = jax.jit(jax.hessian(total))(x), jax.jit(jax.jacfwd(jax.jacfwd(total)))(x)
    np.testing.assert_allclose(twice, found, rtol=1e-11, atol=1e-11)
    units = np.eye(x.size).reshape(x.size, *x.shape)
    still = [jax.tree.map(np.zeros_like, y) for y in p.real[1:]]
    wanted = [moved_gradients(p, [u, *still])[0][0] for u in units]
    assert found.shape == 2 * x.shape
    found = np.asarray(found).reshape(*x.shape, x.size)
    np.testing.assert_allclose(np.moveaxis(found, -1, 0), np.stack(wanted), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", [n for n in FIRST if n == "attend" or n.endswith("_scores")]
                         + ["dot_product_attention", "additive_attention"])  # fmt: skip
def test_other_dtypes(name, dtype, rng):
    """The bits of `attnc.jvp`, `attnc.hvp` and `jvp_jvp`, of the dtype of each array."""
    jax.config.update("jax_enable_x64", False)
    dtype = np.dtype(jnp.dtype(dtype))
    p = Problem(name, FIRST[name], rng, np.float32)
    of_each = [np.float32 if n in ("slope", "sink", "center") else dtype for n in p.names]
    p.real = [x.astype(d) for x, d in zip(p.real, of_each, strict=True)]
    p.arguments |= dict(zip(p.names, p.real, strict=True))
    along = [x.astype(d) for x, d in zip(directions(p, rng), of_each, strict=True)]
    p.output = p.numpy(*p.real)
    p.incoming = [x.astype(y.dtype) for x, y in zip(p.incoming, p.leaves(p.output), strict=True)]

    @jax.jit
    def all_three(real, along):
        tangent = jax.jvp(p.jax, tuple(real), tuple(along))[1]
        pullback = lambda *x: jax.vjp(p.jax, *x)[1](given)  # noqa: E731
        moved = jax.jvp(pullback, tuple(real), tuple(along))[1]
        of_tangent = lambda *x: jax.jvp(p.jax, x, tuple(along))[1]  # noqa: E731
        twice = jax.jvp(of_tangent, tuple(real), tuple(along))[1]
        return jax.tree.leaves(tangent), moved, jax.tree.leaves(twice)

    given = jax.tree.unflatten(jax.tree.structure(p.output), p.incoming)
    tangent, moved, twice = all_three(p.real, along)
    wanted = jax.tree.leaves(in_numpy(p, attnc.jvp, along)[1])
    second = leaves_of(moved_gradients(p, along), p.real)
    second += jax.tree.leaves(second_tangents(p, along, along))
    for x, y in zip([*tangent, *moved, *twice], [*wanted, *second], strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x, np.float32), np.asarray(y, np.float32))


def test_forward_over_forward_of_the_plain_formula(rng):
    def plain(q, k, v):
        return jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / np.sqrt(4), -1) @ v

    x, u, w = (tuple(rng.standard_normal((3, 2, 5, 4))) for _ in range(3))

    def twice(f):
        return jax.jit(lambda x: jax.jvp(lambda *x: jax.jvp(f, x, u)[1], x, w))(x)[1]

    found = twice(attnc.jax.dot_product_attention)
    np.testing.assert_allclose(found, twice(plain), rtol=1e-11, atol=1e-11)

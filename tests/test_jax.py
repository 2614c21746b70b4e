"""The functions of attnc on arrays of JAX: values, gradients, and what JAX transforms them with."""

import functools

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
from attnc.jax.calls import bind  # noqa: E402

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
    others = [n for n in attnc.jax.calls._signature(record.function).parameters if n not in options]
    return arguments | dict(zip(others[len(record.required) :], extra, strict=False))


class Problem:
    """A call with its real arrays apart, in NumPy and in JAX."""

    def __init__(self, name, case, rng, dtype=np.float64):
        self.record, self.dtype = RECORDS[name], dtype
        arrays, options = call(name, case, rng, dtype)
        self.arguments = named(self.record, arrays, options)
        self.names = [
            n for n in self.record.arrays if n in self.arguments and self.is_real(n)
        ]
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
        x if k in p.kept or np.issubdtype(x.dtype, np.floating) else np.zeros(x.shape, "V")
        for k, x in enumerate(p.incoming)
    ]
    cotangents = [
        np.zeros(np.shape(y), jax.dtypes.float0) if np.asarray(y).dtype.kind == "i" else jnp.asarray(x)
        for x, y in zip(cotangents, p.leaves(p.output), strict=True)
    ]
    (found,) = pullback(jax.tree.unflatten(jax.tree.structure(output), cotangents))
    assert_equal(found, p.gradients(*p.real), 1e-13)

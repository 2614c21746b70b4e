"""The arrays that are returned: they own their memory, and what is kept of it is not in use.

And what a call takes besides them where keys broadcast.
"""

import gc

import numpy as np
import pytest
from arrays import FUNCTIONS
from checks import needs_proc, peak_memory

import attnc
from attnc import _core

SIZES = [8, 300, 3000]  # the memory of the middle one is kept when it goes


def context_of(rows):
    x = np.ones((rows, 64), np.float32)
    return attnc.dot_product_attention(x, x, x)


@pytest.mark.parametrize("rows", SIZES)
def test_results_own_their_memory(rows):
    context = context_of(rows)
    assert context.flags.owndata and context.flags.writeable and context.flags.c_contiguous


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("factor", [0.5, 2])
def test_results_can_be_resized(rows, factor):
    context = context_of(rows)
    size = int(factor * rows)
    context.resize((size, 64), refcheck=False)
    np.testing.assert_array_equal(context[: min(size, rows)], 1)
    np.testing.assert_array_equal(context[rows:], 0)


def test_a_later_call_does_not_write_to_earlier_results(rng):
    x = rng.standard_normal((300, 64)).astype(np.float32)
    results = [attnc.dot_product_attention(x + k, x, x) for k in range(40)]
    copies = [result.copy() for result in results]
    del results[::2]
    for k in range(40):
        attnc.vjp(attnc.dot_product_attention, x + k, x, x)[1](x)
    for result, copy in zip(results, copies[1::2], strict=True):
        np.testing.assert_array_equal(result, copy)


def test_nothing_is_left_in_use():
    gc.collect()
    before = _core.allocation_count()
    x = np.ones((300, 64), np.float32)
    context, pullback = attnc.vjp(attnc.dot_product_attention, x, x, x)
    gradients = pullback(context)
    assert _core.allocation_count() > before
    del context, pullback, gradients
    gc.collect()
    assert _core.allocation_count() == before


# ---- grouped queries: a key is not copied for each query head that reads it ----

EACH = 32  # MB: the keys, had each of the 8 query heads its own

# What is passed, where there are keys; a function that takes more has a row of its own.
SHARED = {name: "query, key, key" for name in FUNCTIONS if name != "attend"} | {
    "multiplicative_attention": "query, key, key, ones(64, 64)",
    "additive_attention": "query, key, key, ones(64)",
}


def peak(call, arrays="query, key = ones(2, 2, 8, 32, 64), ones(2, 2, 1, 4096, 64)"):
    return peak_memory(call, arrays)


@needs_proc
@pytest.mark.parametrize("name", SHARED)
def test_grouped_queries_forward(name):
    assert peak(f"attnc.{name}({SHARED[name]})") < EACH / 2


@needs_proc
@pytest.mark.parametrize("name", SHARED)
def test_grouped_queries_forward_and_backward(name):
    """The gradients of key and value are there for each query head before they are summed."""
    assert peak(f"both(attnc.{name}, {SHARED[name]})") < 3 * EACH


@needs_proc
def test_a_copy_of_the_keys_would_be_seen():
    arguments = "query, np.repeat(key, 8, 2), key"
    assert peak(f"attnc.dot_product_attention({arguments})") > EACH / 2
    assert peak(f"both(attnc.dot_product_attention, {arguments})") > 3 * EACH


# ---- halves: keys and values are read where they lie ----

SINGLE = 8  # MB: the keys, or the values, in float32


def halves(Tq):
    return f"query, key, value = (np.ones((1, 8, T, 64), 'f2') for T in ({Tq}, 4096, 4096))"


@needs_proc
@pytest.mark.parametrize("Tq", [1, 100])
def test_halves_are_not_copied(Tq):
    assert peak("attnc.dot_product_attention(query, key, value)", halves(Tq)) < SINGLE / 2


@needs_proc
@pytest.mark.parametrize("Tq", [1, 100])
def test_gradients_in_halves_are_not_copied(Tq):
    """They take half of SINGLE each. Between them is a part of dquery for each segment."""
    call = "both(attnc.dot_product_attention, query, key, value)"
    assert peak(call, halves(Tq)) < 1.75 * SINGLE


@needs_proc
def test_a_copy_of_halves_would_be_seen():
    call = "attnc.dot_product_attention(query, key.astype(np.float32), value)"
    assert peak(call, halves(1)) > SINGLE / 2

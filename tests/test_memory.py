"""The arrays that are returned: they own their memory, and what is kept of it is not in use."""

import gc

import numpy as np
import pytest

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

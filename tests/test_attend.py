"""attend: the softmax attention of all mechanisms, over scores of the caller's own.

Sizes and broadcasting are in test_shapes.py, masks in test_masks.py.
"""

import math

import numpy as np
import pytest
from arrays import inputs
from checks import EVERYTHING, assert_agree, check, check_vjp, evaluate, incoming

import attnc

NAME = "attend"


def test_by_hand(dtype, isa):
    scores = np.array([[0.0, math.log(3)], [5.0, 5.0]], dtype)
    value = np.array([[0.0, 4.0], [8.0, 0.0]], dtype)
    output, pullback = attnc.vjp(attnc.attend, scores, value, **EVERYTHING)
    dscores, dvalue = pullback(np.array([[1.0, 0.0], [0.0, 0.0]], dtype))
    for got, expected in [
        (output.context, [[6, 1], [4, 2]]),
        (output.weights, [[0.25, 0.75], [0.5, 0.5]]),
        (output.lse, [math.log(4), 5 + math.log(2)]),
        (dscores, [[-1.5, 1.5], [0, 0]]),
        (dvalue, [[0.25, 0], [0.75, 0]]),
    ]:
        np.testing.assert_allclose(got, expected, rtol=8 * np.finfo(dtype).eps)


def test_softcap_by_hand(dtype, isa):
    """5 tanh(s / 5) of scores of -1e30, 0 and 1e30 is -5, 0 and 5."""
    scores = np.array([[-1e30, 0, 1e30]], dtype)
    output = attnc.attend(scores, np.eye(3, dtype=dtype), softcap=5, **EVERYTHING)
    expected = np.exp([[-5, 0, 5]]) / np.exp([-5, 0, 5]).sum()
    np.testing.assert_allclose(output.weights, expected, rtol=16 * np.finfo(dtype).eps)


HARD = {
    "1e4": lambda s: 1e4 * s,
    "1e30": lambda s: 1e30 * s,
    "1e-30": lambda s: 1e-30 * s,
    "equal": lambda s: 0 * s + 3,
    "far below 0": lambda s: s - 1e4,
    "far above 0": lambda s: s + 1e4,
    "steps of 100": lambda s: s + 100 * np.arange(s.shape[-1]),
    "steps of 100 down": lambda s: s - 100 * np.arange(s.shape[-1]),
    "some of -inf": lambda s: np.where(s > 0.5, -np.inf, s),
}


@pytest.mark.parametrize("how", HARD)
def test_hard_scores(how, dtype, isa, rng):
    (scores, value), _ = inputs(NAME, rng, Tq=50, Tk=70)
    check(NAME, (HARD[how](scores).astype(dtype), value.astype(dtype)), {}, rng)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_make_their_row_nan(bad, dtype, isa, rng):
    (scores, value), _ = inputs(NAME, rng, dtype)
    scores[1, 2, 3] = bad
    output, gradients = check(NAME, (scores, value), {}, rng)
    assert np.isnan(output.context[1, 2]).all() and np.isnan(gradients.scores[1, 2]).all()
    assert np.isfinite(output.context[0]).all() and np.isfinite(output.context[1, 1]).all()


def test_row_of_minus_inf_is_a_row_without_keys(dtype, isa, rng):
    (scores, value), _ = inputs(NAME, rng, dtype)
    scores[1, 2] = -np.inf
    output, gradients = check(NAME, (scores, value), {}, rng)
    assert (output.context[1, 2] == 0).all() and output.lse[1, 2] == -np.inf
    assert (gradients.scores[1, 2] == 0).all()


def test_scores_of_another_mechanism(isa, rng):
    """With the scores of dot_product_attention it gives its context."""
    (query, key, value), _ = inputs("dot_product_attention", rng)
    scores = query @ key.swapaxes(-1, -2)
    options = {"causal": True, "softcap": 2.0}
    d = incoming(rng, attnc.attend(scores, value, **EVERYTHING))
    output, gradients = evaluate(NAME, (scores, value), options, d)
    dot_output, dot_gradients = evaluate(
        "dot_product_attention", (query, key, value), {**options, "scale": 1}, d
    )
    for x, y in zip(output, dot_output, strict=True):
        assert_agree(x, y)
    assert_agree(gradients["scores"] @ key, dot_gradients["query"])
    assert_agree(gradients["value"], dot_gradients["value"])


def test_differences(isa, rng):
    arrays, _ = inputs(NAME, rng)
    check_vjp(attnc.vjp, attnc.attend, arrays, {"causal": True})


def test_location_score_of_luong(isa, rng):
    """softmax(q W) with a column of W for each place: as its docstring has it."""
    query, memory = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 5, 6))
    W = rng.standard_normal((3, 9))
    memory[1, 3:] = np.nan  # padding

    def attended(W, query):
        scores = (query @ W)[..., :5]
        return attnc.vjp(attnc.attend, scores, memory, key_lengths=[5, 3], return_weights=True)

    (context, weights), pullback = attended(W, query)
    exponential = np.exp(query[1] @ W[:, :3])
    wanted = exponential / exponential.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights[1], np.pad(wanted, ((0, 0), (0, 2))), rtol=1e-12)
    np.testing.assert_allclose(context[1], wanted @ memory[1, :3], rtol=1e-12)

    dcontext = rng.standard_normal(context.shape)
    dscores, dmemory = pullback(dcontext)
    assert not dscores[1, :, 3:].any() and not dmemory[1, 3:].any()
    dW = np.zeros_like(W)
    dW[:, :5] = np.einsum("bqd,bqk->dk", query, dscores)
    dquery = dscores @ W[:, :5].T
    for d, at in ((dW, 0), (dquery, 1)):
        step = rng.standard_normal(d.shape)
        moved = []
        for h in (1e-6, -1e-6):
            given = [x + h * step if n == at else x for n, x in enumerate((W, query))]
            moved.append((attended(*given)[0].context * dcontext).sum())
        np.testing.assert_allclose((moved[0] - moved[1]) / 2e-6, (d * step).sum(), rtol=1e-7)

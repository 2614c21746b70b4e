"""The loop over time that recurrent layers and decoders share: batches in which sequences end, one
after the other, and every operation takes part only with those that have not."""

import numpy as np
import pytest
from checks import assert_close_like_naive, assert_same, wider

from attnc import _core, reference
from attnc.functional import decoder, operations

B, T, TK, D, N = 21, 4, 6, 5, 19
COUNTS = np.array([21, 18, 3, 1])
RUNNING = np.arange(B) < COUNTS[:, None]  # (T, B)
UNTOUCHED = 7.0


def normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def full(like, *shape):
    return np.full(shape, UNTOUCHED, like.dtype)


def loop(ops, like, steps=COUNTS, backward=False):
    _core.loop(like, steps, B, tuple(ops), backward)


def assert_rows_of_running(ragged, whole, running=RUNNING):
    """What ran has the bits of a loop over whole sequences, and no other row was written to."""
    assert_same(ragged[running], whole[running])
    assert (ragged[~running] == UNTOUCHED).all()


@pytest.mark.parametrize("backward", [False, True])
def test_sums_of_products(backward, dtype, isa, rng):
    x, add = normal(rng, dtype, T, B, D), normal(rng, dtype, T, B, N)
    weight = normal(rng, dtype, D, N)
    panels = _core.panels(weight, 1)
    outs = [full(x, T, B, N) for _ in range(2)]
    for out, steps in zip(outs, (COUNTS, T), strict=True):
        loop([operations.Linear(out, ((x, panels),), add=add, tanh=True)], x, steps, backward)
    assert_rows_of_running(*outs)

    def formula(x, weight, add):
        return np.tanh(x @ weight + add)

    exact = formula(*(a.astype(wider(dtype)) for a in (x, weight, add)))
    assert_close_like_naive(outs[1], exact, formula(x, weight, add))


def test_what_the_next_step_left(dtype, rng):
    """x[1:] is, for step t, what step t + 1 left in x: nothing for the last step."""
    x, weight = normal(rng, dtype, T, B, D), np.eye(D, dtype=dtype)
    out = full(x, T, B, D)
    terms = ((x[1:], _core.panels(weight, 1)),)
    loop([operations.Linear(out, terms)], x, T, backward=True)
    assert_same(out[:-1], x[1:])
    assert not out[-1].any()


def test_unit_rows(dtype, isa, rng):
    x = normal(rng, dtype, T, B, D)
    made = []
    for steps in (COUNTS, T):
        unit, norm, dx = full(x, T, B, D), full(x, T, B), full(x, T, B, D)
        loop([operations.Normalize(x, unit, norm)], x, steps)
        d = x[::-1].copy()
        loop([operations.NormalizeBack(d, dx, unit, norm)], x, steps, backward=True)
        made.append((unit, norm, dx))
    for ragged, whole in zip(*made, strict=True):
        assert_rows_of_running(ragged, whole)


@pytest.mark.parametrize("score", ["dot", "additive"])
def test_attention(score, dtype, isa, rng):
    query, key = normal(rng, dtype, B, T, D), normal(rng, dtype, B, TK, D)
    value, vector = normal(rng, dtype, B, TK, N), normal(rng, dtype, D)
    dcontext = normal(rng, dtype, B, T, N)
    additive = score == "additive"
    names = "width", "center", "last", "position", "position_vector"
    everywhere = dict.fromkeys(names) | {"sigma": np.inf, "renormalize": False}
    made = []
    for steps in (COUNTS, T):
        context, weights, dquery = full(key, B, T, N), full(key, B, T, TK), full(key, T, B, D)
        transforms = _core.transform_keys(key) if additive else None
        scored = score, query, key, value, vector, None, transforms, 0.5
        forward = operations.Attend(
            *scored, weights=weights, coverage_weight=0.0, coverage_rate=None, **everywhere,
            coverage=None, coverage_bias=None, key_mask=None, context=context,
            stats=full(key, B, T, 2), scores=None,
        )  # fmt: skip
        loop([forward], key, steps)
        back = operations.AttendBack(
            *scored, weights=weights, coverage_weight=0.0, coverage_rate=None, **everywhere,
            dcoverage=None, coverage_bias=None, dcontext=dcontext, dweights=None, dquery=dquery,
            dweights_total=None,
        )  # fmt: skip
        loop([back], key, steps, backward=True)
        made.append((context.swapaxes(0, 1), weights.swapaxes(0, 1), dquery))
    for ragged, whole in zip(*made, strict=True):
        assert_rows_of_running(ragged, whole)

    function = reference.additive_attention if additive else reference.dot_product_attention
    arrays = (query, key, value, vector) if additive else (query, key, value)
    options = {} if additive else {"scale": 0.5}
    naive, exact = (
        reference.vjp(function, *arrays, **options, dtype=kind) for kind in (dtype, wider(dtype))
    )
    context, _, dquery = made[1]
    assert_close_like_naive(context.swapaxes(0, 1), exact[0], naive[0])
    exact, naive = (pullback(dcontext).query for _, pullback in (exact, naive))
    assert_close_like_naive(dquery.swapaxes(0, 1), exact, naive)


@pytest.mark.parametrize("attention", ["additive", "multiplicative", "dot", "cosine"])
@pytest.mark.parametrize("keys", [TK, D, D - 1])
def test_a_decoder_saves_what_its_attention_would(attention, keys, rng):
    """Inside the loop as over all queries at once: the scores only where backward reads them."""

    def run(order):
        def weight(*shape):
            return rng.standard_normal(shape)

        cells = [weight(D + D * (order == "bahdanau"), D), weight(D, D), weight(D), weight(D)]
        named = {
            "additive": {
                "query_weight": weight(D, D), "key_weight": weight(D, D), "score_vector": weight(D),
            },
            "multiplicative": {"weight": weight(D, D)},
            "dot": {},
            "cosine": {"scale": 2.0},
        }[attention]  # fmt: skip
        if order == "luong":
            named["readout_weight"] = weight(2 * D, D)
        return decoder._Call(
            weight(B, T, D), weight(B, keys, D), cells, cell="rnn", attention=attention,
            order=order, **named,
        ).run.attend  # fmt: skip

    saved, _ = run("luong").kept
    scores = [array for array in saved if getattr(array, "shape", None) == (B, T, keys)]
    in_loop = run("bahdanau").scores
    assert (in_loop is not None) == (attention == "additive" and keys <= D)
    if keys != D:  # else a context has that shape too
        assert len(scores) == (in_loop is not None)

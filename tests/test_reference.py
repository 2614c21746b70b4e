"""The reference itself: against numbers worked out by hand, differences, and published vectors.

PyTorch is asked in test_torch.py.
"""

import math

import numpy as np
import pytest
from arrays import FUNCTIONS, LEADS, OPTIONS, inputs, options
from checks import EVERYTHING, assert_agree, assert_same, check_vjp, incoming

import attnc
from attnc import reference


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_by_differences(name, option, rng):
    arrays, own = inputs(name, rng)
    own |= options(option, rng)
    check_vjp(reference.vjp, getattr(reference, name), arrays, own)


@pytest.mark.parametrize("leads", LEADS, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_of_broadcast_arrays(name, leads, rng):
    arrays, own = inputs(name, rng, leads=leads)
    own |= options("everything", rng, leads=leads)
    check_vjp(reference.vjp, getattr(reference, name), arrays, own)


def test_two_keys_by_hand():
    # Scores 0 and log 3: weights 1/4 and 3/4 of the values (0, 4) and (8, 0), lse = log(1 + 3).
    query, key, value = [[1.0]], [[0.0], [math.log(3)]], [[0.0, 4.0], [8.0, 0.0]]
    output, pullback = reference.vjp(
        reference.dot_product_attention, query, key, value, **EVERYTHING
    )
    np.testing.assert_allclose(output.context, [[6, 1]])
    np.testing.assert_allclose(output.weights, [[0.25, 0.75]])
    np.testing.assert_allclose(output.lse, [math.log(4)])
    # dscores = w (dw - w . dw) with dw = (0, 8) for the first feature of the context.
    dquery, dkey, dvalue = pullback([[1.0, 0.0]])
    np.testing.assert_allclose(dkey, [[-1.5], [1.5]])
    np.testing.assert_allclose(dquery, [[1.5 * math.log(3)]])
    np.testing.assert_allclose(dvalue, [[0.25, 0], [0.75, 0]])
    # The gradient of the lse is the weights.
    assert_same(pullback(dlse=[1.0]).key, output.weights.T)


SCORES_BY_HAND = [
    # query (1, 2), key (3, 4)
    ("dot_product_attention", (), {}, 11 / math.sqrt(2)),
    ("dot_product_attention", (), {"scale": 1}, 11),
    ("dot_product_attention", (), {"scale": -0.5}, -5.5),
    ("multiplicative_attention", ([[1.0, 2.0], [0.0, -1.0]],), {}, 3 + 8 - 8),
    ("additive_attention", ([1.0, 2.0],), {}, math.tanh(4) + 2 * math.tanh(6)),
    (
        "additive_attention",
        ([1.0],),
        {"query_weight": [[1.0], [1.0]], "key_weight": [[1.0], [-1.0]], "score_bias": [-2.5]},
        math.tanh(3 - 1 - 2.5),
    ),
    ("cosine_attention", (), {}, 11 / (5 * math.sqrt(5))),
    ("cosine_attention", (), {"scale": 2}, 22 / (5 * math.sqrt(5))),
    ("dot_product_attention", (), {"scale": 1, "softcap": 5}, 5 * math.tanh(11 / 5)),
    ("dot_product_attention", (), {"scale": 1, "bias": [[-4.0]]}, 7),
    ("dot_product_attention", (), {"scale": 1, "bias": [[9.0]], "softcap": 1}, 9 + math.tanh(11)),
]


@pytest.mark.parametrize(("name", "arrays", "options", "score"), SCORES_BY_HAND)
def test_score_by_hand(name, arrays, options, score):
    """Of a single key the weight is 1 and the lse is the score."""
    arrays = [[1.0, 2.0]], [[3.0, 4.0]], [[5.0]], *arrays
    output = getattr(reference, name)(*arrays, **options, **EVERYTHING)
    assert (output.context, output.weights) == (5, 1)
    np.testing.assert_allclose(output.lse, [score], rtol=1e-15)


ALLOWED_BY_HAND = [
    # 3 queries, 4 keys: row i says which keys query i may attend to
    ({}, "1111 1111 1111"),
    ({"causal": True}, "1100 1110 1111"),
    ({"causal": True, "causal_offset": 0}, "1000 1100 1110"),
    ({"causal": True, "causal_offset": -2}, "0000 0000 1000"),
    ({"causal": True, "causal_offset": 9}, "1111 1111 1111"),
    ({"window": (1, 0)}, "1100 0110 0011"),
    ({"window": (0, 1), "causal_offset": 0}, "1100 0110 0011"),
    ({"window": (0, None)}, "0111 0011 0001"),
    ({"window": (None, 0), "causal_offset": 0}, "1000 1100 1110"),
    ({"window": (1, 3), "causal": True}, "1100 0110 0011"),
    ({"key_lengths": 2}, "1100 1100 1100"),
    ({"key_lengths": 3, "causal": True}, "1100 1110 1110"),
    ({"key_mask": [True, False, True, True]}, "1011 1011 1011"),
    ({"key_mask": [True, False, True, True], "key_lengths": 3}, "1010 1010 1010"),
    ({"mask": np.eye(3, 4, dtype=bool)}, "1000 0100 0010"),
    ({"mask": [[True], [False], [True]], "causal": True}, "1100 0000 1111"),
    ({"bias": np.array([[0.0, -np.inf, 0.0, -1e308]])}, "1011 1011 1011"),
]


@pytest.mark.parametrize(("options", "rows"), ALLOWED_BY_HAND)
def test_allowed_pairs_by_hand(options, rows):
    """Two outputs show which pairs are allowed: gradients of the lse, and NaN coming in."""
    allowed = np.array([[c == "1" for c in row] for row in rows.split()])
    _, pullback = reference.vjp(
        reference.attend, np.zeros((3, 4)), np.ones((4, 1)), return_weights=True, **options
    )
    dscores, _ = pullback(dweights=np.full((3, 4), np.nan))
    assert_same(np.isnan(dscores), allowed)


# Known answers of Random123, tests/kat_vectors
PHILOX = [
    ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), PHILOX)
def test_philox_known_answers(counter, key, words):
    assert " ".join(f"{word:08x}" for word in reference.attention.philox4x32(counter, key)) == words


def test_dropout_rule():
    """Word j % 4 of counter (j // 4, i, n low, n high) keeps the weight if it reaches p 2^32."""
    key, p, lead, Tq, Tk = 0x123456789ABCDEF0, 0.4, (2, 3), 3, 9
    weights = reference.attend(
        np.zeros((*lead, Tq, Tk)), np.broadcast_to(np.eye(Tk), (*lead, Tk, Tk)), dropout=p, rng=key
    )  # values that are unit vectors show the weights
    for n, element in enumerate(np.ndindex(lead)):
        for i, j in np.ndindex(Tq, Tk):
            words = reference.attention.philox4x32([j // 4, i, n, 0], [key & 0xFFFFFFFF, key >> 32])
            kept = int(words[j % 4]) >= int(p * 2**32)
            np.testing.assert_allclose(weights[(*element, i, j)], kept / Tk / (1 - p))


def test_dropout_draws_its_key_once():
    scores, value = np.zeros((4, 6)), np.eye(6)
    first = reference.attend(scores, value, dropout=0.5, rng=np.random.default_rng(1))
    again = reference.attend(scores, value, dropout=0.5, rng=np.random.default_rng(1))
    key = int(np.random.default_rng(1).integers(2**64, dtype=np.uint64))
    assert_same(first, again)
    assert_same(first, reference.attend(scores, value, dropout=0.5, rng=key))
    assert np.any(first != reference.attend(scores, value, dropout=0.5, rng=key ^ 1))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_masked_numbers_are_not_read(name, poison, rng):
    """Poison behind the mask changes no output and no gradient (but for the order of the sums)."""
    allowed = rng.random((2, 5, 7)) < 0.7
    allowed[0, 3] = allowed[1, :, 2] = False
    arrays, own = inputs(name, rng)
    own = {**own, **EVERYTHING, "mask": allowed, "bias": rng.standard_normal((2, 5, 7))}
    function = getattr(reference, name)
    output, pullback = reference.vjp(function, *arrays, **own)
    d = incoming(rng, output)
    clean = *output, *pullback(**d), pullback(**d).bias

    arrays = [x.copy() for x in arrays]
    own["bias"][~allowed] = poison
    d["dweights"][~allowed] = poison
    d["dlse"][0, 3] = d["dcontext"][0, 3] = poison
    if name == "attend":
        arrays[0][~allowed] = poison
    else:
        arrays[0][0, 3] = arrays[1][1, 2] = poison
    arrays[1 if name == "attend" else 2][1, 2] = poison
    output, pullback = reference.vjp(function, *arrays, **own)
    poisoned = *output, *pullback(**d), pullback(**d).bias
    for x, y in zip(poisoned, clean, strict=True):
        assert_agree(x, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_computes_in_the_dtype_asked_for(name, dtype, rng):
    arrays, own = inputs(name, rng)
    own = {**own, **options("everything", rng)}
    output, pullback = reference.vjp(
        getattr(reference, name), *arrays, **own, **EVERYTHING, dtype=dtype
    )
    gradients = vars(pullback(**incoming(rng, output)))
    assert {x.dtype for x in (*output, *gradients.values())} == {np.dtype(dtype)}


# ---- Losses --------------------------------------------------------------------------------------


def test_losses_by_hand():
    # softmax of (log 1, log 3) is (1/4, 3/4); wanted is (1 - e/2, e/2) with e = 1/2. The second
    # target is ignored.
    logits, targets = np.log([[1.0, 3.0], [7.0, 5.0]]), [0, 1]
    options = {"ignore_index": 1, "label_smoothing": 0.5}
    loss, pullback = reference.vjp(reference.softmax_cross_entropy, logits, targets, **options)
    np.testing.assert_allclose(loss, 0.75 * math.log(4) + 0.25 * math.log(4 / 3))
    np.testing.assert_allclose(pullback().logits, [[-0.5, 0.5], [0, 0]], rtol=1e-15)
    # The same logits as x W + b
    x, weight, bias = [[2.0], [np.nan]], [[0.0, math.log(3) / 2]], [1.0, 1.0]
    loss, pullback = reference.vjp(
        reference.linear_cross_entropy, x, weight, targets, bias=bias, **options
    )
    np.testing.assert_allclose(loss, 0.75 * math.log(4) + 0.25 * math.log(4 / 3))
    gradients = pullback(10.0)
    dx, dweight = gradients
    np.testing.assert_allclose(dx, [[2.5 * math.log(3)], [0]])
    np.testing.assert_allclose(dweight, [[-10, 10]])
    np.testing.assert_allclose(gradients.bias, [-5, 5])


@pytest.mark.parametrize("lead", [(), (2, 0), (2, 3)])
@pytest.mark.parametrize("ignore_index", [None, 3])
def test_gradients_of_losses_by_differences(lead, ignore_index, rng):
    logits, targets = rng.standard_normal((*lead, 7)), rng.integers(0, 7, lead)
    x, weight, bias = (rng.standard_normal(shape) for shape in ((*lead, 4), (4, 7), (7,)))
    options = {"ignore_index": ignore_index, "label_smoothing": 0.1}

    def softmax(logits):
        return reference.softmax_cross_entropy(logits, targets, **options)

    def linear(x, weight, bias):
        return reference.linear_cross_entropy(x, weight, targets, bias=bias, **options)

    _, pullback = reference.vjp(reference.softmax_cross_entropy, logits, targets, **options)
    attnc.check_gradients(softmax, pullback, logits)
    _, pullback = reference.vjp(
        reference.linear_cross_entropy, x, weight, targets, bias=bias, **options
    )
    attnc.check_gradients(linear, lambda d: vars(pullback(d)).values(), x, weight, bias)

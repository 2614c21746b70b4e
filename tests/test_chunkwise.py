"""chunkwise_attention: the softmax of every chunk, exact for scores of any size."""

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from arrays import LAYOUTS, lay_out
from checks import (
    assert_agree,
    assert_close_like_naive,
    assert_same,
    assert_unchanged,
    check_outputs,
    needs_proc,
    peak_memory,
    run_out_of_memory,
    wider,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_monotonic import some_options

import attnc
from attnc import _core, reference

SHAPES = [
    ((), 1, 1, 1),
    ((), 5, 7, 3),
    ((2,), 3, 16, 17),
    ((7,), 2, 17, 4),
    ((2, 3), 4, 9, 5),
    ((3,), 1, 33, 2),
    ((2,), 9, 70, 16),
]
EMPTY = [((0,), 2, 3, 4), ((2,), 0, 3, 4), ((2,), 3, 0, 4), ((2,), 3, 4, 0)]
WIDTHS = [1, 2, 3, 4, 7, 8, 15, 16, 17, 64, 1000]


def arguments(rng, lead, Tq, Tk, Dv, dtype=np.float64, spread=2.0):
    """Alignments that sum to less than 1, scores and values."""
    alignment = attnc.monotonic_alignment(rng.random((*lead, Tq, Tk))).alignment
    scores = spread * rng.standard_normal((*lead, Tq, Tk))
    return [x.astype(dtype) for x in (alignment, scores, rng.standard_normal((*lead, Tk, Dv)))]


OPTIONS = tuple(some_options(np.random.default_rng(0), (), 1))


def terms(alignment, scores, value):
    """The sizes of what is summed: of weights and values, and of what reaches the weights."""

    def magnitudes(dcontext, dweights):
        reaches = np.abs(dcontext) @ np.abs(value).swapaxes(-1, -2) + np.abs(dweights)
        most, largest = reaches.max(initial=0), np.abs(alignment).max(initial=0)
        return {
            "context": largest * np.abs(value).max(initial=0),
            "dalignment": most,
            "dscores": largest * most,
            "dvalue": largest * np.abs(dcontext).max(initial=0),
        }

    return magnitudes


def test_by_hand():
    # Query 0 stops at key 1, whose chunk of two has weights 1/4 and 3/4 of 8 and 16; query 1 at
    # key 2, with 1/4 and 3/4 of 16 and 32; query 2 with 1/2 at key 0, alone in its chunk, and with
    # 1/4 at key 1.
    alignment = [[0, 1, 0], [0, 0, 1], [0.5, 0.25, 0]]
    scores, value = np.log([[1.0, 3.0, 9.0]] * 3), [[8.0], [16.0], [32.0]]
    output = attnc.chunkwise_attention(alignment, scores, value, 2, return_weights=True)
    weights = [[1 / 4, 3 / 4, 0], [0, 1 / 4, 3 / 4], [1 / 2 + 1 / 16, 3 / 16, 0]]
    assert_agree(output.weights, np.array(weights))
    assert_agree(output.context, np.array([[14], [28], [4.5 + 3]]))
    assert type(output).__name__ == "WeightsResult"


@pytest.mark.parametrize("option", OPTIONS)
def test_reference(option, isa, dtype, rng):
    for n, (lead, Tq, Tk, Dv) in enumerate(SHAPES):
        widths = WIDTHS[n % 2 :: 2] if option == "all" else WIDTHS[n :: len(SHAPES)]
        arrays = arguments(rng, lead, Tq, Tk, Dv, dtype)
        options = some_options(rng, lead, Tk)[option]
        for width in widths:
            given = {**options, "width": width, "return_weights": True}
            check_outputs("chunkwise_attention", arrays, given, rng, dtype, terms(*arrays))


@pytest.mark.parametrize("sizes", EMPTY, ids=str)
def test_empty(sizes, dtype, rng):
    lead, Tq, Tk, Dv = sizes
    arrays = arguments(rng, lead, Tq, Tk, Dv, dtype)
    for options in some_options(rng, lead, Tk).values():
        options |= {"width": 2, "return_weights": True}
        output, _ = check_outputs(
            "chunkwise_attention", arrays, options, rng, dtype, terms(*arrays)
        )
        if Tk == 0:
            assert_same(output.context, np.zeros((*lead, Tq, Dv), dtype))


@pytest.mark.parametrize("width", [1, 2, 3, 6, 7, 100])
@pytest.mark.parametrize("option", OPTIONS)
def test_gradients_by_differences(option, width, rng):
    arrays = arguments(rng, (2,), 3, 6, 4)
    options = some_options(rng, (2,), 6)[option] | {"width": width, "return_weights": True}
    _, pullback = attnc.vjp(attnc.chunkwise_attention, *arrays, **options)
    attnc.check_gradients(
        lambda *x: attnc.chunkwise_attention(*x, **options),
        lambda dcontext, dweights: list(pullback(dcontext, dweights=dweights)),
        *arrays,
    )


def test_width_one_is_the_alignment(isa, dtype, rng):
    alignment, scores, value = arguments(rng, (2,), 5, 40, 7, dtype, spread=50)
    output, pullback = attnc.vjp(
        attnc.chunkwise_attention, alignment, scores, value, 1, return_weights=True
    )
    assert_same(output.weights, alignment)
    exact = alignment.astype(np.longdouble) @ value.astype(np.longdouble)
    assert_close_like_naive(output.context, exact, alignment @ value)
    d = rng.standard_normal((2, 5, 7)).astype(dtype)
    assert not pullback(d).scores.any()  # exactly: a softmax of one key is 1


def test_a_width_beyond_the_first_key(isa, dtype, rng):
    """Every chunk then begins at the first key, however wide it is."""
    arrays = arguments(rng, (2,), 5, 9, 3, dtype)
    for width in (10, 2**40, 2**62, 2**70):
        assert_same(
            attnc.chunkwise_attention(*arrays, width), attnc.chunkwise_attention(*arrays, 9)
        )
    assert attnc.chunkwise_attention(*arrays, np.int64(9)).shape == (2, 5, 3)


def test_one_chunk_is_attention(isa, dtype, rng):
    """All of it stops at the last key: softmax over the keys of that chunk."""
    _, scores, value = arguments(rng, (2,), 4, 30, 3, dtype)
    alignment = np.zeros((2, 4, 30), dtype)
    alignment[..., -1] = 1
    for width in (1, 5, 30):
        window = {"window": (width - 1, 0), "causal_offset": 29}
        right = [
            attnc.attend(scores[:, i : i + 1], value, return_weights=True, **window)
            for i in range(4)
        ]
        got = attnc.chunkwise_attention(alignment, scores, value, width, return_weights=True)
        weights = np.concatenate([x.weights for x in right], 1)
        context = np.concatenate([x.context for x in right], 1)
        eps = np.finfo(dtype).eps
        assert np.abs(got.weights - weights).max() < 20 * eps
        assert np.abs(got.context - context).max() < 20 * eps * np.abs(value).max()


@pytest.mark.parametrize("spread", [1e3, 1e30], ids=str)
def test_scores_of_any_size(spread, isa, dtype, rng):
    """Chunks whose scores are far below those of others keep their softmax; nothing overflows."""
    alignment, scores, value = arguments(rng, (2,), 6, 40, 3, dtype, spread=1.0)
    steps = spread * rng.standard_normal((2, 1, 5, 1)).astype(dtype)
    scores = (scores.reshape(2, 6, 5, 8) + steps).reshape(2, 6, 40).astype(dtype)
    scores = np.sort(scores, -1)[..., ::-1].copy()  # the last chunks have the smallest
    for width in (2, 5, 40):
        options = {"width": width, "return_weights": True}
        arrays = [alignment, scores, value]
        check_outputs("chunkwise_attention", arrays, options, rng, dtype, terms(*arrays))
        weights = attnc.chunkwise_attention(alignment, scores, value, **options).weights
        assert np.abs(weights.sum(-1) - alignment.sum(-1)).max() < 50 * np.finfo(dtype).eps


def test_exact_where_the_efficient_form_fails(rng):
    """The authors' form divides by moving sums of exponentials, clipped at 1e-5."""
    scores = np.array([[0.0, -30.0, -31.0, -60.0, -61.0]])
    alignment, value = np.array([[0.1, 0.0, 0.4, 0.0, 0.5]]), np.eye(5)

    exponentials = np.maximum(np.exp(scores - scores.max()), 1e-5)

    def moving(x, back, forward):
        padded = np.pad(x, ((0, 0), (back, forward)))
        return sum(padded[:, k : k + 5] for k in range(back + forward + 1))

    clipped = exponentials * moving(alignment / moving(exponentials, 1, 0), 0, 1)
    exact = reference.chunkwise_attention(
        alignment, scores, value, 2, return_weights=True, dtype=np.longdouble
    ).weights
    got = attnc.chunkwise_attention(alignment, scores, value, 2, return_weights=True).weights
    assert np.abs(got - exact).max() < 1e-15
    assert np.abs(clipped - exact).max() > 0.1


def test_extremes(isa, dtype):
    """The largest and the least number as scores, and -inf, which excludes."""
    most, inf = np.finfo(dtype).max, np.inf
    value, alignment = np.eye(4, dtype=dtype), np.ones((1, 4), dtype) / 4

    def weights(*scores, width=2):
        return attnc.chunkwise_attention(
            alignment, np.array([scores], dtype), value, width, return_weights=True
        ).weights[0]

    assert_same(weights(-most, -most, -most, -most), np.array([3, 2, 2, 1], dtype) / 8)
    assert_same(weights(most, most, most, most), np.array([3, 2, 2, 1], dtype) / 8)
    assert_same(weights(-most, most, -most, most), np.array([1, 2, 0, 1], dtype) / 4)
    assert_same(weights(-most, most, -most, most, width=4), np.array([2, 5, 0, 1], dtype) / 8)
    assert_same(weights(-inf, 0, -inf, 0), np.array([0, 2, 0, 1], dtype) / 4)  # chunk 0 has no key
    assert_same(weights(-inf, -inf, -inf, -inf), np.zeros(4, dtype))
    for broken in (inf, np.nan):
        got = weights(0, 0, 0, broken)
        assert_same(np.isnan(got), np.array([False, False, True, True]))


def test_chunks_without_a_key_pass_nothing(isa, dtype, rng):
    alignment, scores, value = arguments(rng, (2,), 5, 12, 3, dtype)
    key_mask = np.ones((2, 12), bool)
    key_mask[0, :7], key_mask[1, 3:9] = False, False
    output, pullback = attnc.vjp(
        attnc.chunkwise_attention,
        alignment,
        scores,
        value,
        3,
        key_mask=key_mask,
        return_weights=True,
    )
    stops = np.where(key_mask[:, None], alignment, 0)
    assert np.abs(output.weights.sum(-1) - stops.sum(-1)).max() < 30 * np.finfo(dtype).eps
    nothing = attnc.chunkwise_attention(alignment, scores, value, 3, key_lengths=0)
    assert_same(nothing, np.zeros((2, 5, 3), dtype))


@pytest.mark.parametrize("kind", [np.nan, np.inf, -np.inf], ids=str)
def test_what_is_masked_is_not_read(kind, isa, dtype, rng):
    arrays = arguments(rng, (3,), 4, 19, 5, dtype)
    dcontext, dweights = (rng.standard_normal((3, 4, n)).astype(dtype) for n in (5, 19))
    for options in list(some_options(rng, (3,), 19).values())[1:]:
        allowed = np.ones((3, 19), bool)
        if "key_mask" in options:
            allowed &= options["key_mask"]
        if "key_lengths" in options:
            allowed &= np.arange(19) < np.reshape(options["key_lengths"], (-1, 1))
        nobody = ~allowed.any(-1)  # these queries attend to nothing: nor is dcontext read
        pairs, results = np.broadcast_to(~allowed[:, None], (3, 4, 19)), []
        for poison in (dtype(0), dtype(kind)):
            a, u = (np.where(pairs, poison, x) for x in arrays[:2])
            v = np.where(allowed[..., None], arrays[2], poison)
            d = np.where(nobody[:, None, None], poison, dcontext)
            output, pullback = attnc.vjp(
                attnc.chunkwise_attention, a, u, v, 4, return_weights=True, **options
            )
            results.append([*output, *pullback(d, dweights=np.where(pairs, poison, dweights))])
        assert_same(results[0], results[1])
        for pair in (1, 2, 3):
            assert not results[1][pair][pairs].any()
        assert not results[1][4][~allowed].any()


def test_weights_change_nothing(isa, rng):
    arrays = arguments(rng, (3,), 9, 30, 40, np.float32)
    output, pullback = attnc.vjp(attnc.chunkwise_attention, *arrays, 3, return_weights=True)
    assert_same(attnc.chunkwise_attention(*arrays, 3), output.context)
    d = rng.standard_normal(output.context.shape)
    before = pullback(d)
    output.weights[...] = np.nan  # they are the caller's
    output.context[...] = np.nan
    assert_same(tuple(pullback(d)), tuple(before))
    _, alone = attnc.vjp(attnc.chunkwise_attention, *arrays, 3)
    assert_same(tuple(alone(d)), tuple(before))
    with pytest.raises(ValueError, match="^chunkwise_attention: dweights must be None unless"):
        alone(d, dweights=output.weights)


LEADS = [
    ((2,), (1,), (2,)),
    ((1,), (3,), (1,)),
    ((1,), (1,), (3,)),
    ((2, 3), (1, 3), (2, 1)),
    ((0,), (1,), (1,)),
]


@pytest.mark.parametrize("leads", LEADS, ids=str)
def test_leading_axes_broadcast(leads, dtype, rng):
    arrays = [arguments(rng, lead, 4, 7, 3, dtype)[k] for k, lead in enumerate(leads)]
    lead = np.broadcast_shapes(*leads)
    for options in ({}, some_options(rng, lead, 7)["both"]):
        options = {**options, "width": 3, "return_weights": True}
        check_outputs("chunkwise_attention", arrays, options, rng, dtype, terms(*arrays))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, dtype, rng):
    arrays = arguments(rng, (3,), 4, 6, 5, dtype)
    key_mask, lengths = rng.random((3, 6)) < 0.7, rng.integers(0, 7, 3)
    d = [rng.standard_normal((3, 4, n)).astype(dtype) for n in (5, 6)]
    laid = [lay_out(layout, x) for x in (*arrays, key_mask, lengths, *d)]
    results = []
    for a, u, v, key_mask, lengths, dc, dw in (laid, [np.array(x, order="C") for x in laid]):
        with assert_unchanged(a, u, v, key_mask, lengths, dc, dw):
            output, pullback = attnc.vjp(
                attnc.chunkwise_attention,
                a,
                u,
                v,
                2,
                key_mask=key_mask,
                key_lengths=lengths,
                return_weights=True,
            )
            results.append([*output, *pullback(dc, dweights=dw)])
    assert_same(*results)
    assert all(x.dtype == dtype and x.dtype.isnative for x in results[0])


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_halves_are_rounded_once(kind, isa, rng):
    """The bits of a call in float32, rounded."""
    arrays = arguments(rng, (3,), 4, 19, 5, kind)
    d = rng.standard_normal((3, 4, 5)).astype(kind)
    output, pullback = attnc.vjp(attnc.chunkwise_attention, *arrays, 3, return_weights=True)
    wide, wide_pullback = attnc.vjp(
        attnc.chunkwise_attention, *(x.astype(np.float32) for x in arrays), 3, return_weights=True
    )
    assert_same(tuple(output), tuple(x.astype(kind) for x in wide))
    right = wide_pullback(d.astype(np.float32))
    assert_same(tuple(pullback(d)), tuple(x.astype(kind) for x in right))


def test_dtypes(rng):
    a, u, v = arguments(rng, (2,), 3, 4, 5)
    output, pullback = attnc.vjp(attnc.chunkwise_attention, a.astype("f4"), u.astype("f2"), v, 2)
    assert output.dtype == np.float64
    assert [g.dtype for g in pullback(output)] == ["f4", "f2", "f8"]
    output, pullback = attnc.vjp(attnc.chunkwise_attention, [[1]], [[0]], [[2, 3]], 2)
    assert_same(output, np.array([[2.0, 3.0]]))
    assert all(g.dtype == np.float64 for g in pullback(output))


def test_same_bits_for_any_number_of_threads_and_in_company(threads, isa, rng):
    arrays = arguments(rng, (9,), 40, 65, 33, np.float32)
    d = rng.standard_normal((9, 40, 33))
    results = []
    for count in (threads, 1):
        attnc.set_num_threads(count)
        output, pullback = attnc.vjp(attnc.chunkwise_attention, *arrays, 5, return_weights=True)
        results.append([*output, *pullback(d)])
    assert_same(*results)
    one = [x[4:5] for x in arrays]
    output, pullback = attnc.vjp(attnc.chunkwise_attention, *one, 5, return_weights=True)
    assert_same([*output, *pullback(d[4:5])], [x[4:5] for x in results[0]])


def test_from_many_threads_at_once(rng):
    arrays, d = arguments(rng, (4,), 9, 30, 5), rng.standard_normal((4, 9, 5))
    _, pullback = attnc.vjp(attnc.chunkwise_attention, *arrays, 4)
    right = tuple(pullback(d))
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: tuple(pullback(d)), range(40)):
            assert_same(got, right)


@settings(settings.get_profile("properties"), max_examples=100)
@given(
    st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 50), st.integers(1, 60),
    st.floats(0, 100),
)  # fmt: skip
def test_weights_are_those_of_the_chunks(seed, Tq, Tk, width, spread):
    rng = np.random.default_rng(seed)
    alignment, scores, value = arguments(rng, (2,), Tq, Tk, 1, np.float32, spread)
    got = attnc.chunkwise_attention(alignment, scores, value, width, return_weights=True).weights
    exact = reference.chunkwise_attention(
        alignment, scores, value, width, return_weights=True
    ).weights
    assert np.abs(got - exact).max() < 2e-5
    assert (got >= 0).all()
    assert np.abs(got.sum(-1) - alignment.sum(-1)).max() < 2e-5


@needs_proc
def test_nothing_of_the_size_of_all_chunks_is_made():
    """float32 (1, 500, 2000) is 4 MB; with every chunk of 1000 it would be 4 GB."""
    setup = "a, value = np.full((1, 500, 2000), 0.0005, 'f'), np.ones((1, 2000, 8), 'f')"
    call = "both(attnc.chunkwise_attention, a, a, value, 1000)"
    assert peak_memory(call, setup) < 60


A, V = np.full((2, 3, 4), 0.25), np.ones((2, 4, 5))
WRONG = {
    "alignment None": ((None, A, V, 2), {}, TypeError, "alignment"),
    "alignment complex": ((A + 0j, A, V, 2), {}, TypeError, "alignment"),
    "alignment masked": ((np.ma.masked_array(A), A, V, 2), {}, TypeError, "alignment"),
    "alignment a vector": ((A[0, 0], A, V, 2), {}, ValueError, "alignment"),
    "scores None": ((A, None, V, 2), {}, TypeError, "scores"),
    "scores of bools": ((A, A > 0, V, 2), {}, TypeError, "scores"),
    "scores of other keys": ((A, A[..., :3], V, 2), {}, ValueError, "scores"),
    "scores of other queries": ((A, A[:, :1], V, 2), {}, ValueError, "scores"),
    "scores without batch": ((A, A[0], V, 2), {}, ValueError, "scores"),
    "value of other keys": ((A, A, V[:, :3], 2), {}, ValueError, "value"),
    "value without batch": ((A, A, V[0], 2), {}, ValueError, "value"),
    "value of other batch": ((A, A, np.ones((3, 4, 5)), 2), {}, ValueError, "value"),
    "value of text": ((A, A, "x", 2), {}, TypeError, "value"),
    "width 0": ((A, A, V, 0), {}, ValueError, "width"),
    "width below 0": ((A, A, V, -2), {}, ValueError, "width"),
    "width a float": ((A, A, V, 2.0), {}, TypeError, "width"),
    "width a bool": ((A, A, V, True), {}, TypeError, "width"),
    "width None": ((A, A, V, None), {}, TypeError, "width"),
    "key_mask of numbers": ((A, A, V, 2), {"key_mask": np.ones((2, 4))}, TypeError, "key_mask"),
    "key_mask without batch": (
        (A, A, V, 2), {"key_mask": np.ones(4, bool)}, ValueError, "key_mask"
    ),
    "key_lengths too long": ((A, A, V, 2), {"key_lengths": [4, 5]}, ValueError, "key_lengths"),
    "return_weights 1": ((A, A, V, 2), {"return_weights": 1}, TypeError, "return_weights"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_errors(wrong):
    arrays, options, kind, name = WRONG[wrong]
    with pytest.raises(kind, match=f"^chunkwise_attention: {name} must "):
        attnc.chunkwise_attention(*arrays, **options)


def test_wrong_gradients():
    _, pullback = attnc.vjp(attnc.chunkwise_attention, A, A, V, 2, return_weights=True)
    for d, kind in ((V, ValueError), (A + 0j, TypeError), (A.astype(int), TypeError)):
        with pytest.raises(kind, match="^chunkwise_attention: dcontext must "):
            pullback(d)
    with pytest.raises(ValueError, match="^chunkwise_attention: dweights must "):
        pullback(dweights=A[:1])
    with pytest.raises(TypeError, match="^chunkwise_attention: pullback must get"):
        pullback()


NEITHER = [3, "x", A.astype(int), A.astype(np.float32), A[:, :2], A[:, :, ::2], A[:0], A[0, 0]]


def test_the_private_functions_refuse_anything_else():
    mask = np.ones((2, 4), bool)
    _core.chunkwise(A, A, mask, 2)
    _core.chunkwise_backward(A, A, mask, 2, A)
    _core.products(A, A.swapaxes(1, 2))
    wrong = [(x, A, None, 2) for x in NEITHER] + [(A, x, None, 2) for x in (None, *NEITHER)]
    wrong += [(A, A, x, 2) for x in (*NEITHER, A > 0)]
    wrong += [(A, A, None, 0), (A, A, None, 2.5), (A, A, None, 2**70), (A, A, None)]
    for arguments in wrong:
        with pytest.raises((TypeError, ValueError, OverflowError)):
            _core.chunkwise(*arguments)
    for x in (None, *NEITHER):
        with pytest.raises((TypeError, ValueError)):
            _core.chunkwise_backward(A, A, None, 2, x)
    for b in (A, V[:1], V[0], V.astype(np.float32), None, 3):
        with pytest.raises((TypeError, ValueError)):
            _core.products(A, b)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 5, 7, 2), (9, 40, 33, 70), (2, 3, 4, 0)])
def test_products(sizes, isa, dtype, rng):
    n, M, K, N = sizes
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((n, M, K), (n, K, N)))
    exact = a.astype(wider(dtype)) @ b.astype(wider(dtype))
    assert_close_like_naive(_core.products(a, b), exact, a @ b)
    turned = a.swapaxes(1, 2).copy().swapaxes(1, 2)
    assert_same(_core.products(turned, b[::-1].copy()[::-1]), _core.products(a, b))


def test_memory_runs_out(rng):
    arrays = arguments(rng, (4,), 30, 300, 64, np.float32)
    d = rng.standard_normal((4, 30, 64)).astype(np.float32)

    def all_of_it():
        output, pullback = attnc.vjp(attnc.chunkwise_attention, *arrays, 4)
        return [output, *pullback(d)]

    expected = all_of_it()
    # weights, their gradients and those of the arrays, and what each of the five kernels works in;
    # NumPy has the context, which is small
    got = run_out_of_memory(all_of_it, least=10, most=10)
    assert_same(got, expected)

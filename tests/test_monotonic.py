"""monotonic_alignment: the exact recurrence, also where a quotient of products would fail."""

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from arrays import LAYOUTS, lay_out
from checks import assert_agree, assert_same, assert_unchanged, check_outputs, run_out_of_memory
from hypothesis import given, settings
from hypothesis import strategies as st

import attnc
from attnc import _core, reference

# (leading axes, Tq, Tk): one lane, a few, all of them and one more; keys on both sides of a tile
SHAPES = [
    ((), 1, 1),
    ((), 5, 7),
    ((1,), 3, 16),
    ((7,), 2, 17),
    ((8,), 3, 8),
    ((16,), 4, 33),
    ((17,), 3, 5),
    ((2, 3), 4, 9),
    ((33,), 1, 31),
    ((4,), 20, 40),
    ((0,), 2, 3),
    ((2,), 0, 3),
    ((2,), 3, 0),
]


def probabilities(rng, shape, dtype=np.float64, certain=0.2):
    """Most of them between, some exactly 0 and 1."""
    p = rng.random(shape)
    p[rng.random(shape) < certain] = 0
    p[rng.random(shape) < certain] = 1
    return p.astype(dtype)


def starts(rng, lead, Tk, dtype=np.float64):
    """Distributions that lack some of 1."""
    return (0.9 * rng.dirichlet(np.ones(max(Tk, 1)), lead)[..., :Tk]).astype(dtype)


def some_options(rng, lead, Tk):
    return {
        "all": {},
        "key_mask": {"key_mask": rng.random((*lead, Tk)) < 0.6},
        "key_mask for all leads": {"key_mask": rng.random((1,) * len(lead) + (Tk,)) < 0.6},
        "key_mask of one": {"key_mask": np.zeros((1,) * len(lead) + (1,), bool)},
        "key_lengths": {"key_lengths": rng.integers(0, Tk + 1, lead)},
        "key_lengths of one int": {"key_lengths": Tk // 2},
        "both": {
            "key_mask": rng.random((*lead, Tk)) < 0.8,
            "key_lengths": rng.integers(0, Tk + 1, lead),
        },
    }


OPTIONS = tuple(some_options(np.random.default_rng(0), (), 1))


def longdouble(p, previous=None):
    """The recurrence of the paper for one sequence, in long double, as a loop over numbers."""
    p = np.asarray(p, np.longdouble)
    before = np.eye(1, p.shape[1], dtype=np.longdouble)[0] if previous is None else previous
    rows = []
    for i in range(p.shape[0]):
        q, row = np.longdouble(0), []
        for j in range(p.shape[1]):
            q = (1 - p[i, j - 1]) * q + before[j] if j else before[0]
            row.append(p[i, j] * q)
        before = np.array(row)
        rows.append(before)
    return np.array(rows)


def parallel(p, previous, clip=1e-10):
    """The form with products of all keys at once that the authors' code computes."""
    past = np.cumprod(np.concatenate([np.ones_like(p[..., :1]), 1 - p[..., :-1]], -1), -1)
    return p * past * np.cumsum(previous / np.clip(past, clip, 1), -1)


def test_by_hand():
    # Query 0: stops at 0 with 1/2, else at 1 with 1/2, else at 2 with 1/2. Query 1 stops nowhere
    # at 0, and at 1 where it began there or before; what began at 2 walks on.
    output = attnc.monotonic_alignment([[0.5, 0.5, 0.5], [0.0, 1.0, 0.0]])
    assert_same(output.alignment, np.array([[0.5, 0.25, 0.125], [0, 0.75, 0]]))
    assert_same(output.missing, np.array([0.125, 0.25]))
    assert repr(output) == "MonotonicAlignment(alignment=float64 (2, 3), missing=float64 (2,))"


@pytest.mark.parametrize("given", [False, True], ids=["from the first key", "previous"])
@pytest.mark.parametrize("option", OPTIONS)
def test_reference(option, given, isa, dtype, rng):
    for lead, Tq, Tk in SHAPES if option in ("all", "both") else SHAPES[3:8]:
        p = probabilities(rng, (*lead, Tq, Tk), dtype)
        previous = [starts(rng, lead, Tk, dtype)] if given else []
        options = some_options(rng, lead, Tk)[option]
        # What is missing is 1 less a sum, and so is its gradient less the others.
        magnitudes = {"missing": 1.0, "dprevious": 4.0 * max(Tq, 1)}
        output, gradients = check_outputs(
            "monotonic_alignment", [p, *previous], options, rng, dtype, magnitudes
        )
        assert len(gradients) == 1
        together = output.alignment.sum(-1) + output.missing
        assert np.abs(together - 1).max(initial=0) < (Tk + 4) * np.finfo(dtype).eps


def test_exact_where_the_parallel_form_fails(isa, dtype, rng):
    """Probabilities of 0 and 1, and many of them close to 1: its products vanish."""
    p = rng.random((6, 40))
    p[:, ::3] = 1 - 1e-7 * rng.random(p[:, ::3].shape)
    p[1, ::7], p[2, ::5], p[3] = 1, 0, 1
    p = p.astype(dtype)
    alignment = attnc.monotonic_alignment(p).alignment
    exact = longdouble(p)
    assert np.abs(alignment - exact).max() < 8 * np.finfo(dtype).eps
    # Relative to each number too: nothing is a difference.
    large = exact > np.finfo(dtype).tiny * 1e6
    assert (np.abs(alignment - exact)[large] <= 200 * np.finfo(dtype).eps * exact[large]).all()

    previous, wrong = np.eye(1, 40, dtype=dtype), []
    for row in p:
        previous = parallel(row[None], previous).astype(dtype)
        wrong.append(previous[0])
    assert np.abs(wrong - exact).max() > 0.1, "the parallel form would do"


@pytest.mark.parametrize("value", [0.0, 1.0], ids=["0", "1"])
def test_all_certain(value, isa, dtype, rng):
    """No NaN anywhere; and the gradients are those of differences inwards."""
    p = np.full((3, 2, 9), value, dtype)
    output, pullback = attnc.vjp(attnc.monotonic_alignment, p)
    stays = np.zeros((3, 2, 9), dtype)
    stays[..., 0] = value
    assert_same(output.alignment, stays)
    assert_same(output.missing, np.full((3, 2), 1 - value, dtype))
    da, dm = rng.standard_normal((3, 2, 9)).astype(dtype), rng.standard_normal((3, 2)).astype(dtype)
    dp = pullback(da, dm).probability
    exact = longdouble
    for i, j in np.ndindex(2, 9):
        moved = p[0].astype(np.longdouble)
        step = np.longdouble(1e-6) * (1 if value == 0 else -1)
        moved[i, j] += step
        change = (exact(moved) - exact(p[0])) / step
        loss = (change * da[0]).sum() - (change.sum(-1) * dm[0]).sum()
        assert abs(dp[0, i, j] - loss) < 1e-4


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("given", [False, True], ids=["from the first key", "previous"])
def test_gradients_by_differences(given, option, rng):
    lead, Tq, Tk = (2,), 4, 6
    p = 0.05 + 0.9 * rng.random((*lead, Tq, Tk))
    previous = [starts(rng, lead, Tk)] if given else []
    options = some_options(rng, lead, Tk)[option]
    _, pullback = attnc.vjp(attnc.monotonic_alignment, p, *previous, **options)
    attnc.check_gradients(
        lambda *x: attnc.monotonic_alignment(*x, **options),
        lambda dalignment, dmissing: list(vars(pullback(dalignment, dmissing)).values()),
        p,
        *previous,
    )


def test_gradient_of_a_previous_that_broadcasts(rng):
    p, previous = rng.random((2, 3, 4, 5)), starts(rng, (1, 3), 5)
    d = {
        "dalignment": rng.standard_normal((2, 3, 4, 5)),
        "dmissing": rng.standard_normal((2, 3, 4)),
    }
    output, pullback = attnc.vjp(attnc.monotonic_alignment, p, previous)
    whole, whole_pullback = attnc.vjp(attnc.monotonic_alignment, p, np.repeat(previous, 2, axis=0))
    assert_same(output, whole)
    got, every = pullback(**d), whole_pullback(**d)
    assert_same(got.probability, every.probability)
    assert_agree(got.previous, every.previous.sum(0, keepdims=True))


def test_either_gradient_alone(rng):
    p, previous = rng.random((2, 4, 5)), starts(rng, (2,), 5)
    da, dm = rng.standard_normal((2, 4, 5)), rng.standard_normal((2, 4))
    _, pullback = attnc.vjp(attnc.monotonic_alignment, p, previous)
    both, one, other = pullback(da, dm), pullback(da), pullback(dmissing=dm)
    for name in ("probability", "previous"):
        assert_agree(one[name] + other[name], both[name])
    assert_same(pullback(da, np.zeros_like(dm)).probability, one.probability)
    # What is missing is 1 less the row.
    assert_agree(pullback(np.broadcast_to(-dm[..., None], p.shape)).probability, other.probability)
    with pytest.raises(TypeError, match="^monotonic_alignment: pullback must get dalignment or"):
        pullback()


def test_row_by_row_is_the_sequence(isa, dtype, rng):
    """Also backward: what a row says of `previous` goes to the row before."""
    p, lengths = probabilities(rng, (5, 6, 21), dtype), rng.integers(0, 22, 5)
    da = rng.standard_normal(p.shape).astype(dtype)
    output, pullback = attnc.vjp(attnc.monotonic_alignment, p, key_lengths=lengths)
    previous, backs = None, []
    for i in range(6):
        step, back = attnc.vjp(
            attnc.monotonic_alignment, p[:, i : i + 1], previous, key_lengths=lengths
        )
        assert_same(step.alignment[:, 0], output.alignment[:, i])
        assert np.abs(step.missing[:, 0] - output.missing[:, i]).max() < 8 * np.finfo(dtype).eps
        previous = step.alignment[:, 0]
        backs.append(back)
    dprevious = np.zeros((5, 21), dtype)
    dp = pullback(da).probability
    for i in reversed(range(6)):
        gradients = backs[i]((da[:, i] + dprevious)[:, None])
        assert_same(gradients.probability[:, 0], dp[:, i])
        dprevious = gradients.previous if i else None


def test_missing_is_exact_however_small(isa, dtype):
    """Not 1 less a sum, which would leave rounding alone."""
    p = np.full((1, 12), 0.9, dtype)
    missing = attnc.monotonic_alignment(p).missing[0]
    exact = (1 - np.longdouble(p[0, 0])) ** 12
    assert abs(missing - exact) < 30 * np.finfo(dtype).eps * exact
    assert 0 < missing < 2e-12


def test_missing_never_comes_back(rng):
    p = probabilities(rng, (3, 9, 5))
    output = attnc.monotonic_alignment(p)
    assert (np.diff(output.missing, axis=-1) >= 0).all() and (output.missing >= 0).all()
    p[:, 2] = 0  # a query that stops nowhere: none stops after it
    output = attnc.monotonic_alignment(p)
    assert_same(output.alignment[:, 2:], np.zeros((3, 7, 5)))
    assert_same(output.missing[:, 2:], np.ones((3, 7)))


def test_hard_decisions(rng):
    """Probabilities of 0 and 1: the first key that is chosen from the last one on."""
    chosen = rng.random((8, 6, 12)) < 0.3
    alignment, missing = attnc.monotonic_alignment(chosen.astype(np.float32))
    for b in range(8):
        at = 0
        for i in range(6):
            found = [j for j in range(at, 12) if chosen[b, i, j]] if at is not None else []
            at = found[0] if found else None
            right = np.arange(12) == (at if found else -1)
            assert_same(alignment[b, i], right.astype(np.float32))
            assert missing[b, i] == (not found)


@pytest.mark.parametrize("kind", [np.nan, np.inf, -np.inf, 7.0], ids=str)
def test_what_is_masked_is_not_read(kind, isa, dtype, rng):
    p, da = probabilities(rng, (3, 4, 9), dtype), rng.standard_normal((3, 4, 9)).astype(dtype)
    for options in list(some_options(rng, (3,), 9).values())[1:]:
        allowed = np.ones((3, 9), bool)
        if "key_mask" in options:
            allowed &= options["key_mask"]
        if "key_lengths" in options:
            allowed &= np.arange(9) < np.reshape(options["key_lengths"], (-1, 1))
        blocked = np.broadcast_to(~allowed[:, None], p.shape)
        results = []
        for poison in (0, kind):
            x, d = np.where(blocked, dtype(poison), p), np.where(blocked, dtype(poison), da)
            output, pullback = attnc.vjp(attnc.monotonic_alignment, x, **options)
            results.append([*output, pullback(d).probability])
        assert_same(results[0], results[1])
        assert not results[1][0][blocked].any() and not results[1][2][blocked].any()


def test_nan_is_nan_where_it_is_read(isa, dtype, rng):
    p = np.full((3, 3, 5), 0.5, dtype)
    p[1, 1, 2] = np.nan
    alignment, missing = attnc.monotonic_alignment(p)
    nan = np.zeros((3, 3, 5), bool)
    nan[1, 1, 2:], nan[1, 2, 2:] = True, True
    assert_same(np.isnan(alignment), nan)
    assert_same(np.isnan(missing), np.array([[0, 0, 0], [0, 1, 1], [0, 0, 0]], bool))
    previous = np.zeros((3, 5), dtype)
    previous[2, 1] = np.nan
    output, pullback = attnc.vjp(
        attnc.monotonic_alignment, np.full((3, 3, 5), 0.5, dtype), previous
    )
    assert np.isnan(output.alignment[2, :, 1:]).all() and not np.isnan(output.alignment[:2]).any()
    assert np.isnan(output.missing[2]).all() and not np.isnan(output.missing[:2]).any()
    assert not np.isnan(pullback(np.ones((3, 3, 5))).probability[:2]).any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, dtype, rng):
    p, previous = probabilities(rng, (3, 4, 6), dtype), starts(rng, (3,), 6, dtype)
    da, dm = rng.standard_normal((3, 4, 6)).astype(dtype), rng.standard_normal((3, 4)).astype(dtype)
    key_mask, lengths = rng.random((3, 6)) < 0.7, rng.integers(0, 7, 3)
    laid = [lay_out(layout, x) for x in (p, previous, key_mask, lengths, da, dm)]
    results = []
    for p, previous, key_mask, lengths, da, dm in (laid, [np.array(x, order="C") for x in laid]):
        with assert_unchanged(p, previous, key_mask, lengths, da, dm):
            output, pullback = attnc.vjp(
                attnc.monotonic_alignment, p, previous, key_mask=key_mask, key_lengths=lengths
            )
            results.append([*output, *vars(pullback(da, dm)).values()])
    assert_same(*results)
    assert all(x.dtype == dtype and x.dtype.isnative for x in results[0])


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_halves_are_rounded_once(kind, isa, rng):
    """The bits of a call in float32, rounded."""
    p, previous = probabilities(rng, (3, 4, 9)).astype(kind), starts(rng, (3,), 9).astype(kind)
    da = rng.standard_normal((3, 4, 9)).astype(kind)
    output, pullback = attnc.vjp(attnc.monotonic_alignment, p, previous)
    wide, wide_pullback = attnc.vjp(
        attnc.monotonic_alignment, p.astype(np.float32), previous.astype(np.float32)
    )
    assert_same(output, tuple(x.astype(kind) for x in wide))
    got, right = vars(pullback(da)), vars(wide_pullback(da.astype(np.float32)))
    assert_same(got, {name: x.astype(kind) for name, x in right.items()})


def test_dtypes(rng):
    p = [[0, 1], [1, 0]]
    assert attnc.monotonic_alignment(p).alignment.dtype == np.float64
    single, double = np.ones((2, 3), np.float32), np.ones((2, 3))
    output, pullback = attnc.vjp(attnc.monotonic_alignment, single, double[0])
    gradients = pullback(double)
    assert output.alignment.dtype == output.missing.dtype == np.float64
    assert gradients.probability.dtype == np.float32 and gradients.previous.dtype == np.float64
    assert attnc.monotonic_alignment(single, np.ones(3, np.float16)).missing.dtype == np.float32
    output, pullback = attnc.vjp(attnc.monotonic_alignment, p, [1, 0])
    assert pullback(np.ones((2, 2))).previous.dtype == np.float64


def test_same_bits_for_any_number_of_threads_and_in_company(threads, isa, rng):
    p, da = probabilities(rng, (70, 9, 65), np.float32), rng.standard_normal((70, 9, 65))
    results = []
    for count in (threads, 1):
        attnc.set_num_threads(count)
        output, pullback = attnc.vjp(attnc.monotonic_alignment, p)
        results.append([*output, pullback(da).probability])
    assert_same(*results)
    alone, pullback = attnc.vjp(attnc.monotonic_alignment, p[37:38])
    assert_same([*alone, pullback(da[37:38]).probability], [x[37:38] for x in results[0]])


def test_from_many_threads_at_once(rng):
    p, da = rng.random((20, 5, 30)), rng.standard_normal((20, 5, 30))
    _, pullback = attnc.vjp(attnc.monotonic_alignment, p)
    right = pullback(da).probability
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: pullback(da).probability, range(40)):
            assert_same(got, right)


@settings(settings.get_profile("properties"), max_examples=100)
@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 5), st.integers(1, 40))
def test_a_distribution(seed, count, Tq, Tk):
    rng = np.random.default_rng(seed)
    p = probabilities(rng, (count, Tq, Tk), np.float32, certain=rng.random() / 2)
    alignment, missing = attnc.monotonic_alignment(p)
    assert (alignment >= 0).all() and (missing >= 0).all()
    assert np.abs(alignment.sum(-1) + missing - 1).max() < (Tq + Tk) * 1e-6
    # No query is before where the one before it was, in distribution.
    at_most = np.cumsum(alignment, -1)
    assert (at_most[:, 1:] <= at_most[:, :-1] + (Tq + Tk) * 1e-6).all()
    assert np.abs(alignment[0] - longdouble(p[0])).max() < (Tq + Tk) * 1e-6


def test_extremes(isa, dtype):
    tiny, least = np.finfo(dtype).tiny, np.finfo(dtype).smallest_subnormal
    p = np.array([[tiny, least, 1 - np.finfo(dtype).epsneg, 1]], dtype)
    output = attnc.monotonic_alignment(p)
    assert_same(output.alignment, longdouble(p).astype(dtype))
    assert output.missing[0] == 0
    # previous may be any numbers: the recurrence is linear in it
    previous = np.array([[3.0, -2, 0, 1e10]], dtype)
    got = attnc.monotonic_alignment(np.full((1, 1, 4), 0.5, dtype), previous)
    exact = longdouble(np.full((1, 4), 0.5), previous[0].astype(np.longdouble))
    assert_same(got.alignment, exact.astype(dtype)[None])


P = np.full((2, 3, 4), 0.5)
FIRST = np.eye(4)[:2]
WRONG = {
    "None": ((None,), {}, TypeError, "probability"),
    "complex": ((P + 0j,), {}, TypeError, "probability"),
    "bools": ((P > 0,), {}, TypeError, "probability"),
    "masked": ((np.ma.masked_array(P),), {}, TypeError, "probability"),
    "a vector": ((P[0, 0],), {}, ValueError, "probability"),
    "above 1": ((P * 3,), {}, ValueError, "probability"),
    "below 0": ((P - 0.51,), {}, ValueError, "probability"),
    "just above 1": ((np.nextafter(2 * P, 2),), {}, ValueError, "probability"),
    "just below 0": ((P * -1e-300,), {}, ValueError, "probability"),
    "infinite": ((P * np.inf,), {}, ValueError, "probability"),
    "previous of other keys": ((P, FIRST[:, :3]), {}, ValueError, "previous"),
    "previous of one key": ((P, FIRST[:, :1]), {}, ValueError, "previous"),
    "previous of other batch": ((P, np.eye(4)[:3]), {}, ValueError, "previous"),
    "previous without batch": ((P, FIRST[0]), {}, ValueError, "previous"),
    "previous with queries": ((P, FIRST[:, None]), {}, ValueError, "previous"),
    "previous of bools": ((P, FIRST > 0), {}, TypeError, "previous"),
    "key_mask of numbers": ((P,), {"key_mask": np.ones((2, 4))}, TypeError, "key_mask"),
    "key_mask of queries": ((P,), {"key_mask": np.ones((2, 3, 4), bool)}, ValueError, "key_mask"),
    "key_mask without batch": ((P,), {"key_mask": np.ones(4, bool)}, ValueError, "key_mask"),
    "key_lengths too long": ((P,), {"key_lengths": 5}, ValueError, "key_lengths"),
    "key_lengths below 0": ((P,), {"key_lengths": [0, -1]}, ValueError, "key_lengths"),
    "key_lengths of floats": ((P,), {"key_lengths": [1.0, 2.0]}, TypeError, "key_lengths"),
    "key_lengths of a bool": ((P,), {"key_lengths": True}, TypeError, "key_lengths"),
    "key_lengths of others": ((P,), {"key_lengths": [1, 2, 3]}, ValueError, "key_lengths"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors(wrong):
    arrays, options, kind, name = WRONG[wrong]
    with pytest.raises(kind, match=f"^monotonic_alignment: {name} must "):
        attnc.monotonic_alignment(*arrays, **options)


def test_the_error_shows_the_probability_and_the_fix():
    with pytest.raises(
        ValueError, match=r"got -1.25; of an energy it is 1 / \(1 \+ exp\(-energy\)"
    ):
        attnc.monotonic_alignment([[0.5, -1.25]])


@pytest.mark.parametrize(
    "d, kind",
    [
        (P[:1], ValueError),
        (P[..., :1], ValueError),
        (P * 1j, TypeError),
        (P.astype(int), TypeError),
    ],
    ids=["batch", "keys", "complex", "integers"],
)
def test_wrong_gradient(d, kind):
    with pytest.raises(kind, match="^monotonic_alignment: dalignment must "):
        attnc.vjp(attnc.monotonic_alignment, P)[1](d)
    with pytest.raises(ValueError, match="^monotonic_alignment: dmissing must "):
        attnc.vjp(attnc.monotonic_alignment, P)[1](dmissing=P)


NEITHER = [3, "x", P.astype(int), P.astype(np.float32), P[:, :2], P[:, :, ::2], P[:0], P[0, 0]]


def test_the_private_functions_refuse_anything_else():
    _core.monotonic(P, FIRST, None, True)
    _core.monotonic_backward(P, P[..., 0].copy(), P, P, FIRST > 0, True)
    wrong = [(x, None, None, True) for x in (None, P.astype(int), P[:, :, ::2], P[:0], P[0, 0])]
    wrong += [(P, x, None, True) for x in NEITHER]
    wrong += [(P, None, x, True) for x in (*NEITHER, P > 0, FIRST)]
    wrong += [(P, None, None, 1), (P, None, None)]
    for arguments in wrong:
        with pytest.raises((TypeError, ValueError)):
            _core.monotonic(*arguments)
    wrong = [(x, None, P, P, None, True) for x in NEITHER]
    wrong += [(None, x, P, P, None, True) for x in NEITHER]
    wrong += [(None, None, P, x, None, True) for x in (None, *NEITHER)]
    wrong += [(None, None, P, P, P, True), (None, None, P, P, None, 0), (None, None, P, P, None)]
    for arguments in wrong:
        with pytest.raises((TypeError, ValueError)):
            _core.monotonic_backward(*arguments)


def test_memory_runs_out(rng):
    p = rng.random((20, 9, 900), dtype=np.float32)
    previous = starts(rng, (20,), 900, np.float32)

    def all_of_it():
        output, pullback = attnc.vjp(attnc.monotonic_alignment, p, previous)
        return [*output, *vars(pullback(p)).values()]

    expected = all_of_it()
    # alignment, reach, the two gradients, and what each pass works in; NumPy has the small ones
    got = run_out_of_memory(all_of_it, least=6, most=6)
    assert_same(got, expected)


def test_against_the_sum_over_all_paths(rng):
    """Every way to stop, with its probability: an enumeration that knows no recurrence."""
    p = rng.random((3, 4))
    expected = np.zeros((3, 4))

    def walk(i, start, chance):
        if i == 3:
            return
        for j in range(start, 4):
            here = chance * np.prod(1 - p[i, start:j]) * p[i, j]
            expected[i, j] += here
            walk(i + 1, j, here)

    walk(0, 0, 1.0)
    assert_agree(attnc.monotonic_alignment(p).alignment, expected)
    assert_agree(reference.monotonic_alignment(p).alignment, expected)

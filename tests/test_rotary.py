"""rotary: the formula, and that scores of turned rows depend on differences of positions alone."""

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from arrays import LAYOUTS
from checks import (
    assert_agree,
    assert_close_like_naive,
    assert_same,
    assert_unchanged,
    run_out_of_memory,
    wider,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import attnc
from attnc import _core, reference
from attnc.functional import rotary as same

PAIRS = {"halves": False, "interleaved": True}
SHAPES = [(3, 2), (2, 5, 6), (1, 7, 34), (2, 3, 70, 16), (3, 1, 64), (2, 1, 3, 130), (5, 0), (0, 8)]


def turned(x, position, base=10000.0, interleaved=False):
    """By complex numbers: a pair at position p is multiplied by exp(i p base^(-2k/D))."""
    D = x.shape[-1]
    first = slice(0, D, 2) if interleaved else slice(0, D // 2)
    second = slice(1, D, 2) if interleaved else slice(D // 2, D)
    k = np.arange(D // 2)
    z = (x[..., first] + 1j * x[..., second]) * np.exp(
        1j * np.asarray(position)[..., None] * base ** (-2 * k / max(D, 1))
    )
    y = np.empty_like(x)
    y[..., first], y[..., second] = z.real, z.imag
    return y


def arguments(rng, shape):
    """Keywords that give the same or other positions: (keywords, positions)."""
    *lead, T, _ = shape
    by_lead = rng.integers(-50, 3000, lead)
    some = rng.integers(0, 900, (*lead, T))
    shared = rng.integers(0, 900, (*(1 for _ in lead), T))
    return [
        ({}, np.arange(T)),
        ({"offset": 4000}, np.arange(T) + 4000),
        ({"offset": -3}, np.arange(T) - 3),
        ({"offset": by_lead}, np.arange(T) + by_lead[..., None]),
        ({"position": np.arange(T)[::-1]}, np.arange(T)[::-1]),
        ({"position": some}, some),
        ({"position": shared, "offset": by_lead}, shared + by_lead[..., None]),
        ({"position": some / 4}, some / 4),
        ({"base": 500.0}, np.arange(T)),
    ]


def test_one_name():
    assert attnc.rotary is attnc.functional.rotary is same


def test_by_hand():
    x = np.array([[1.0, 2.0, 3.0, 4.0]] * 2)
    c, s, small_c, small_s = np.cos(1), np.sin(1), np.cos(0.01), np.sin(0.01)
    halves = [c - 3 * s, 2 * small_c - 4 * small_s, 3 * c + s, 4 * small_c + 2 * small_s]
    assert_agree(attnc.rotary(x), np.array([x[0], halves]))
    paper = [c - 2 * s, 2 * c + s, 3 * small_c - 4 * small_s, 4 * small_c + 3 * small_s]
    assert_agree(attnc.rotary(x, interleaved=True), np.array([x[0], paper]))


@pytest.mark.parametrize("interleaved", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_formula(shape, interleaved, isa, dtype, rng):
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    for keywords, position in arguments(rng, shape):
        keywords["interleaved"] = interleaved
        with assert_unchanged(x, dy, keywords):
            y, pullback = attnc.vjp(attnc.rotary, x, **keywords)
            (dx,) = pullback(dy)
        assert_same(attnc.rotary(x, **keywords), y)
        exact, back = reference.vjp(reference.rotary, x, **keywords, dtype=wider(dtype))
        naive, naive_back = reference.vjp(reference.rotary, x, **keywords, dtype=dtype)
        base = keywords.get("base", 10000.0)
        assert_agree(exact.astype(float), turned(x.astype(float), position, base, interleaved))
        for got, right, plain in ((y, exact, naive), (dx, back(dy).x, naive_back(dy).x)):
            assert got.dtype == dtype and got.flags.c_contiguous and got.flags.writeable
            assert_close_like_naive(got, right, plain)


@pytest.mark.parametrize("interleaved", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_halves_are_rounded_once(kind, interleaved, isa, rng):
    """The bits of a call in float32, rounded."""
    x, dy = (rng.standard_normal((2, 3, 9, 22))).astype(kind)
    y, pullback = attnc.vjp(attnc.rotary, x, interleaved=interleaved, offset=70)
    wide, wide_pullback = attnc.vjp(
        attnc.rotary, x.astype(np.float32), interleaved=interleaved, offset=70
    )
    assert y.dtype == kind
    assert_same(y, wide.astype(kind))
    for incoming in (dy, dy.astype(np.float32), dy.astype(np.float64)):
        (dx,) = pullback(incoming)
        assert dx.dtype == kind
        assert_same(dx, wide_pullback(dy)[0].astype(kind))
    (dx,) = wide_pullback(dy)
    assert dx.dtype == np.float32


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16"])
def test_layouts(layout, kind, rng):
    x, dy = rng.standard_normal((2, 2, 3, 5, 6)).astype(kind)
    position, offset = rng.integers(0, 99, (2, 1, 5)), rng.integers(0, 99, (1, 3))
    if kind == "bfloat16" and layout == "byte-swapped":
        return  # ml_dtypes has none
    x, dy, position, offset = (LAYOUTS[layout](a) for a in (x, dy, position, offset))
    y, pullback = attnc.vjp(attnc.rotary, x, position, offset=offset)
    plain, plain_pullback = attnc.vjp(
        attnc.rotary, x.astype(kind, order="C"), position.astype(int), offset=offset.astype(int)
    )
    assert y.dtype == np.dtype(kind) and y.dtype.isnative
    assert_same(y, plain)
    assert_same(pullback(dy)[0], plain_pullback(dy.astype(kind, order="C"))[0])


def test_heads_as_a_view(rng):
    """(B, T, H, D) projected, turned as (B, H, T, D) without a copy of it."""
    x = rng.standard_normal((2, 70, 3, 8)).astype(np.float32)
    assert_same(attnc.rotary(x.swapaxes(1, 2)), attnc.rotary(x.swapaxes(1, 2).copy()))


def test_lists_and_integers():
    y, pullback = attnc.vjp(attnc.rotary, [[1, 0], [1, 0]])
    assert y.dtype == np.float64
    assert_agree(y, np.array([[1, 0], [np.cos(1), np.sin(1)]]))
    assert pullback(np.ones((2, 2), np.float32))[0].dtype == np.float64


def test_same_bits_for_any_number_of_threads(threads, isa, rng):
    for shape in ((3, 700, 64), (2000, 1, 8), (1, 9, 70000)):
        x = rng.standard_normal(shape).astype(np.float32)
        got = attnc.rotary(x, offset=3)
        attnc.set_num_threads(1)
        assert_same(got, attnc.rotary(x, offset=3))
        assert_same(got[1:2], attnc.rotary(x[1:2], offset=3))
        attnc.set_num_threads(threads)


@pytest.mark.parametrize("interleaved", PAIRS.values(), ids=PAIRS)
def test_gradient_is_the_rotation_back(interleaved, rng):
    x = rng.standard_normal((2, 5, 8))
    y, pullback = attnc.vjp(attnc.rotary, x, interleaved=interleaved, offset=[17, 3])
    assert_agree(pullback(y)[0], x)
    attnc.check_gradients(
        lambda x: attnc.rotary(x, interleaved=interleaved, offset=[17, 3]),
        lambda d: [pullback(d).x],
        x,
    )


@settings(settings.get_profile("properties"), max_examples=100)
@given(
    st.integers(0, 2**32), st.booleans(), st.integers(1, 20), st.integers(0, 5000),
    st.floats(2, 1e6),
)  # fmt: skip
def test_scores_depend_on_differences_alone(seed, interleaved, pairs, offset, base):
    rng = np.random.default_rng(seed)
    query, key = rng.standard_normal((2, 6, 2 * pairs))
    how = {"base": base, "interleaved": interleaved}
    near = attnc.rotary(query, **how) @ attnc.rotary(key, **how).T
    far = attnc.rotary(query, offset=offset, **how) @ attnc.rotary(key, offset=offset, **how).T
    assert_agree(far, near)
    lengths = np.linalg.norm(attnc.rotary(query, offset=offset, **how), axis=-1)
    assert_agree(lengths, np.linalg.norm(query, axis=-1))


def test_far_positions_are_as_exact(rng):
    """float32 at 10^6: angles of float32 would be off by 0.03."""
    x = rng.standard_normal((4, 64)).astype(np.float32)
    exact = turned(x.astype(np.longdouble), np.arange(4) + np.longdouble(10**6))
    near = np.abs(attnc.rotary(x) - turned(x.astype(float), np.arange(4))).max()
    for keywords in (
        {"offset": 10**6},
        {"position": np.arange(4) + 10**6},
        {"position": np.arange(4), "offset": np.array(10**6)},
    ):
        assert np.abs(attnc.rotary(x, **keywords) - exact).max() < 2 * near


def test_a_token_at_a_time_is_the_sequence(rng):
    """Also beyond the positions whose cosines are kept, and when they are asked for backwards."""
    x = rng.standard_normal((2, 9, 6)).astype(np.float32)
    for start in (0, 505, 10**7):
        whole = attnc.rotary(x, offset=start)
        for t in reversed(range(9)):
            assert_same(attnc.rotary(x[:, t : t + 1], offset=start + t), whole[:, t : t + 1])
            by_lead = np.full(2, start + t)
            assert_same(attnc.rotary(x[:, t : t + 1], offset=by_lead), whole[:, t : t + 1])


def test_what_is_kept_has_a_limit(rng):
    from importlib import import_module

    module = import_module("attnc.functional.rotary")
    for base in range(2, 40):
        attnc.rotary(np.ones((1, 2)), base=base, offset=base * 1000)
    assert len(module._tables) <= module.KEPT_TABLES
    attnc.rotary(np.ones((1, 2)), offset=2**40)
    assert all(table.nbytes <= module.KEPT_BYTES for table in module._tables.values())


def test_from_many_threads_at_once(rng):
    """New bases and growing tables meanwhile."""
    x = rng.standard_normal((3, 4))

    def one(n):
        base, offset = 100.0 + n % 11, n * 37 % 5000
        return np.abs(attnc.rotary(x, base=base, offset=offset) - turned(
            x, np.arange(3) + offset, base
        )).max()  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(one, range(400))) < 1e-12


def test_not_finite_numbers_stay_in_their_pair(rng):
    x = rng.standard_normal((3, 6))
    x[1, 2] = np.nan
    y = attnc.rotary(x)
    assert np.isnan(y[1, [2, 5]]).all() and np.isnan(y).sum() == 2
    assert np.isnan(attnc.rotary(np.ones((1, 2)), [np.nan])).all()
    assert np.isnan(attnc.rotary(np.ones((1, 2)), [np.inf])).all()


ONE = np.ones((2, 3, 4))
WRONG = {
    "x None": ((None,), {}, TypeError, "x"),
    "x complex": ((ONE + 1j,), {}, TypeError, "x"),
    "x bool": ((ONE > 0,), {}, TypeError, "x"),
    "x masked": ((np.ma.masked_array(ONE),), {}, TypeError, "x"),
    "x a vector": ((ONE[0, 0],), {}, ValueError, "x"),
    "odd": ((ONE[..., :3],), {}, ValueError, "x"),
    "position of other length": ((ONE, np.arange(4)), {}, ValueError, "position"),
    "position without a lead": ((ONE, np.ones((3, 3))), {}, ValueError, "position"),
    "position of more axes": ((ONE, np.ones((1, 2, 3))), {}, ValueError, "position"),
    "position of no axes": ((ONE, 3), {}, ValueError, "position"),
    "position complex": ((ONE, np.ones(3) * 1j), {}, TypeError, "position"),
    "offset float": ((ONE,), {"offset": 1.0}, TypeError, "offset"),
    "offset bool": ((ONE,), {"offset": True}, TypeError, "offset"),
    "offset None": ((ONE,), {"offset": None}, TypeError, "offset"),
    "offset of floats": ((ONE,), {"offset": [1.0, 2.0]}, TypeError, "offset"),
    "offset of other lead": ((ONE,), {"offset": [1, 2, 3]}, ValueError, "offset"),
    "offset with time": ((ONE,), {"offset": np.ones((2, 3), int)}, ValueError, "offset"),
    "offset too large": ((ONE,), {"offset": 10**30}, ValueError, "offset"),
    "base 0": ((ONE,), {"base": 0}, ValueError, "base"),
    "base infinite": ((ONE,), {"base": np.inf}, ValueError, "base"),
    "base NaN": ((ONE,), {"base": np.nan}, ValueError, "base"),
    "base text": ((ONE,), {"base": "1"}, TypeError, "base"),
    "interleaved 1": ((ONE,), {"interleaved": 1}, TypeError, "interleaved"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors(wrong):
    arrays, keywords, kind, name = WRONG[wrong]
    with pytest.raises(kind, match=f"^rotary: {name} must "):
        attnc.rotary(*arrays, **keywords)


@pytest.mark.parametrize(
    "dy, kind",
    [(ONE[:1], ValueError), (ONE * 1j, TypeError), (ONE.astype(int), TypeError)],
    ids=["shape", "complex", "integers"],
)
def test_wrong_gradient(dy, kind):
    with pytest.raises(kind, match="^rotary: dy must "):
        attnc.vjp(attnc.rotary, ONE)[1](dy)


NEITHER = [
    None,
    3,
    "x",
    ONE.astype(int),
    ONE.astype(np.float32),
    ONE[:, :2],
    ONE[:, :, ::2],
    ONE[0, 0],
]
TABLE = np.ones((3, 4))


@pytest.mark.parametrize(
    "wrong",
    [
        *((x, TABLE, False, False) for x in NEITHER),
        *((ONE, table, False, False) for table in [*NEITHER, np.ones((1, 2, 3, 4))]),
        (ONE, np.ones((3, 8))[:, ::2], False, False),  # rows that are not contiguous
        (ONE, TABLE, 1, False),
        (ONE, TABLE, False, None),
        (ONE, TABLE, False),
    ],
    ids=lambda wrong: "-".join(str(getattr(x, "shape", x)) for x in wrong),
)
def test_the_private_function_refuses_anything_else(wrong):
    _core.rotary(ONE, TABLE, False, False)
    with pytest.raises((TypeError, ValueError)):
        _core.rotary(*wrong)


def test_memory_runs_out(rng):
    x = rng.standard_normal((2, 900, 64)).astype(np.float16)
    expected = attnc.rotary(x)
    # the result, and the rows that are turned
    assert_same(run_out_of_memory(lambda: attnc.rotary(x), least=2, most=2), expected)

"""The losses by the kernels in C: exactness, threads, layouts, numbers that are none."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from arrays import LAYOUTS, lay_out
from checks import (
    FEW,
    FLOOR,
    FLOOR_OF_FEW,
    assert_agree,
    assert_close_like_naive,
    assert_same,
    assert_unchanged,
    wider,
)

import attnc
from attnc import reference
from attnc.losses import linear_cross_entropy, softmax_cross_entropy


def plain(loss, arrays, dloss=1.0, dtype=np.float64, **options):
    """The formula in plain NumPy in this dtype: the loss, and its gradients by name."""
    value, pullback = reference.vjp(getattr(reference, loss), *arrays, **options, dtype=dtype)
    return value, vars(pullback(dloss))


def run(logits, targets, dloss=1.0, **options):
    loss, pullback = attnc.vjp(softmax_cross_entropy, logits, targets, **options)
    return loss, pullback(dloss).logits


def problem(rng, dtype, *shape, spread=3.0):
    return spread * rng.standard_normal(shape).astype(dtype), rng.integers(0, shape[-1], shape[:-1])


def check(logits, targets, dloss=1.0, **options):
    """By the rule of tolerance."""
    dtype = logits.dtype
    with assert_unchanged(logits, targets):
        loss, gradient = run(logits, targets, dloss, **options)
    assert loss == softmax_cross_entropy(logits, targets, **options)
    assert loss.dtype == gradient.dtype == dtype
    arrays = logits, targets
    (naive, naive_gradient), (exact, exact_gradient) = (
        plain("softmax_cross_entropy", arrays, dloss, kind, **options)
        for kind in (dtype.type, wider(dtype))
    )
    # A loss is a difference of logits, a gradient one of probabilities, times dloss / count.
    size = np.ptp(logits, axis=-1).max(initial=0)
    assert_close_like_naive(loss, exact, naive, size, FLOOR_OF_FEW, "loss")
    factor = abs(dloss) / max(np.count_nonzero(targets != options.get("ignore_index")), 1)
    floor = (FLOOR if gradient.size >= FEW else FLOOR_OF_FEW) + size
    exact, naive = exact_gradient["logits"], naive_gradient["logits"]
    assert_close_like_naive(gradient, exact, naive, factor, floor, "gradient")


# ---- Values and gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 2, 3, 7, 8, 15, 16, 17, 33, 67, 1000, 10000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_as_exact_as_plain_numpy(classes, smoothing, dtype, isa, rng):
    logits, targets = problem(rng, dtype, 3, 7, classes)
    check(logits, targets, 1.7, label_smoothing=smoothing)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 100])
def test_rows_are_computed_in_blocks(rows, dtype, isa, rng):
    logits, targets = problem(rng, dtype, rows, 11)
    check(logits, targets, ignore_index=4, label_smoothing=0.3)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignore_index", [None, 0, -100])
@pytest.mark.parametrize("classes", [1, 5, 130])
def test_equal_to_torch(classes, ignore_index, smoothing, rng):
    torch = pytest.importorskip("torch")
    logits, targets = problem(rng, np.float64, 4, 6, classes)
    targets[0, 0] = -100 if ignore_index == -100 else targets[0, 0]
    if ignore_index == 0:
        targets[1:, 3] = classes - 1
    if classes == 1 and ignore_index == 0:
        ignore_index = -1  # else nothing counts, for which torch has NaN
    loss, gradient = run(logits, targets, ignore_index=ignore_index, label_smoothing=smoothing)
    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        theirs.reshape(-1, classes),
        torch.tensor(targets.reshape(-1)),
        ignore_index=-100 if ignore_index is None else ignore_index,
        label_smoothing=smoothing,
    )
    expected.backward()
    assert_agree(loss, expected.detach().numpy())
    assert_agree(gradient, theirs.grad.numpy())


def test_label_smoothing_by_hand():
    # softmax of (log 1, log 3) is (1/4, 3/4); q is (1 - e/2, e/2)
    loss, gradient = run(np.log([[1.0, 3.0]]), [0], label_smoothing=0.5)
    np.testing.assert_allclose(loss, 0.75 * np.log(4) + 0.25 * np.log(4 / 3), rtol=1e-15)
    np.testing.assert_allclose(gradient, [[0.25 - 0.75, 0.75 - 0.25]], rtol=1e-15)


def test_one_class_costs_nothing(dtype, isa):
    loss, gradient = run(np.full((5, 1), 3, dtype), np.zeros(5, int))
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize("lead", [(), (0,), (2, 0), (1, 1, 1), (2, 3, 4)])
def test_any_leading_axes(lead, dtype, rng):
    logits, targets = problem(rng, dtype, *lead, 9)
    check(logits, np.asarray(targets))


@pytest.mark.parametrize("kind", ["int8", "uint8", "uint16", "int32", "uint64", ">i4"])
def test_targets_of_any_integers(kind, rng):
    """Also where some are ignored, and there is a class for each of 8 bits."""
    logits, targets = rng.standard_normal((6, 300)), np.array([3, 2, 5, 2, 0, 120])
    for options in ({}, {"ignore_index": 2}):
        expected = run(logits, targets, **options)
        assert_same(run(logits, targets.astype(kind), **options), expected)


def test_pullback_scales_and_repeats(rng):
    logits, targets = problem(rng, np.float64, 20, 9)
    _, pullback = attnc.vjp(softmax_cross_entropy, logits, targets)
    first = pullback().logits
    assert_same(pullback(-2.0).logits, -2 * first)
    assert not pullback(0.0).logits.any()
    first[...] = np.nan
    assert np.isfinite(pullback().logits).all()


# ---- The ends of the range -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_huge_logits(size, smoothing, dtype, isa, rng):
    logits, targets = problem(rng, dtype, 20, 37, spread=size)
    check(logits, targets, label_smoothing=smoothing)


@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_a_shift_of_a_row_changes_little(shift, dtype, isa, rng):
    logits, targets = problem(rng, dtype, 20, 37)
    logits += dtype(shift)  # rounded here, so exact from here on
    check(logits, targets, label_smoothing=0.1)


def test_a_class_of_minus_infinity_has_probability_zero(dtype, isa, rng):
    logits, targets = problem(rng, dtype, 30, 21)
    excluded = (targets + 1) % 21
    logits[range(30), excluded] = -np.inf
    loss, gradient = run(logits, targets)
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert not gradient[range(30), excluded].any()
    logits[0, targets[0]] = -np.inf  # -log 0
    loss, gradient = run(logits, targets)
    assert loss == np.inf and np.isfinite(gradient).all()


@pytest.mark.parametrize("place", [0, 7, 20])
def test_a_nan_stays_in_its_row(place, dtype, isa, rng):
    """Wherever it stands in the row, and whatever the target."""
    logits, targets = problem(rng, dtype, 30, 21)
    _, expected = run(logits, targets)
    logits[11, place] = np.nan
    loss, gradient = run(logits, targets)
    assert np.isnan(loss) and np.isnan(gradient[11]).all()
    others = np.arange(30) != 11
    assert_same(gradient[others], expected[others])


def test_a_row_of_nothing_but_minus_infinity_is_nan(dtype, isa, rng):
    """0 / 0, as the formula has it; in its row alone."""
    logits, targets = problem(rng, dtype, 18, 21)
    _, expected = run(logits, targets)
    logits[3] = -np.inf
    loss, gradient = run(logits, targets)
    assert np.isnan(loss) and np.isnan(gradient[3]).all()
    assert_same(np.delete(gradient, 3, 0), np.delete(expected, 3, 0))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_ignored_rows_are_not_read(poison, dtype, isa, rng):
    logits, targets = problem(rng, dtype, 40, 21)
    targets[::3] = 5
    expected = run(logits, targets, ignore_index=5, label_smoothing=0.1)
    logits[targets == 5] = poison
    got = run(logits, targets, ignore_index=5, label_smoothing=0.1)
    assert_same(got, expected)
    assert not got[1][targets == 5].any()


def test_an_ignored_index_that_is_no_class(dtype, rng):
    logits, targets = problem(rng, dtype, 40, 21)
    targets[::3], targets[1::3] = -100, -100
    check(logits, targets, ignore_index=-100)
    assert run(logits, np.full(40, 10**12), ignore_index=10**12)[0] == 0


# ---- The same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(300, 1000), (33, 10000), (5000, 3)])
def test_same_bits_for_any_number_of_threads(shape, dtype, isa, rng):
    logits, targets = problem(rng, dtype, *shape)
    results = []
    for n in (1, 2, 3, 5, 8):
        with attnc.set_num_threads(n):
            results.append(run(logits, targets, ignore_index=1, label_smoothing=0.1))
    for got in results[1:]:
        assert_same(got, results[0])


def test_same_bits_from_concurrent_callers(rng):
    logits, targets = problem(rng, np.float32, 200, 1000)
    loss, pullback = attnc.vjp(softmax_cross_entropy, logits, targets)
    expected = loss, pullback().logits
    with attnc.set_num_threads(3), ThreadPoolExecutor(6) as callers:
        for call in [callers.submit(run, logits, targets) for _ in range(12)]:
            assert_same(call.result(), expected)
        for call in [callers.submit(pullback) for _ in range(12)]:
            assert_same(call.result().logits, expected[1])


def test_same_bits_of_a_row_alone(dtype, isa, rng):
    logits, targets = problem(rng, dtype, 40, 21)
    _, gradient = run(logits, targets, 40.0)
    for r in (0, 15, 16, 39):
        assert_same(run(logits[r], targets[r])[1], gradient[r])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, dtype, rng):
    for shape in ((6, 9), (1, 1)):
        logits, targets = (lay_out(layout, x) for x in problem(rng, dtype, *shape))
        with assert_unchanged(logits, targets):
            got = run(logits, targets, label_smoothing=0.1)
        copies = [np.array(x, x.dtype.newbyteorder("="), order="C") for x in (logits, targets)]
        assert_same(got, run(*copies, label_smoothing=0.1))
        assert got[1].dtype == dtype and got[1].dtype.isnative


# ---- dtypes and errors ---------------------------------------------------------------------------


def test_float16_is_computed_in_float32(rng):
    logits, targets = problem(rng, np.float16, 20, 30)
    loss, gradient = run(logits, targets)
    expected, right = run(logits.astype(np.float32), targets)
    assert_same(loss, expected)
    assert_same(gradient, right.astype(np.float16))


def test_integers_and_lists_are_float64(rng):
    logits, targets = rng.integers(-5, 5, (6, 9)), rng.integers(0, 9, 6)
    expected = run(logits.astype(np.float64), targets)
    assert_same(run(logits, targets), expected)
    assert_same(run(logits.tolist(), targets.tolist()), expected)


LOGITS, TARGETS = np.ones((2, 3)), np.array([0, 2])
ERRORS = {
    "targets shape": (
        (LOGITS, [0]),
        {},
        ValueError,
        "targets must have the shape of logits without its last axis, got logits (2, 3) and "
        "targets (1,)",
    ),
    "a number": ((1.0, 0), {}, ValueError, "targets must have the shape of logits without"),
    "no classes": ((np.ones((2, 0)), TARGETS), {}, ValueError, "targets must have the shape"),
    "range": (
        (LOGITS, [0, 3]),
        {},
        ValueError,
        "targets must lie in 0..2, got 0..3 (padding? pass ignore_index=)",
    ),
    "below": ((LOGITS, [-1, 0]), {}, ValueError, "targets must lie in 0..2, got -1..0"),
    "range with ignore_index": (
        (LOGITS, [-100, 3]),
        {"ignore_index": -100},
        ValueError,
        "targets must lie in 0..2, got 3..3",
    ),
    "beyond int64": (
        (LOGITS, np.array([0, 2**64 - 1], np.uint64)),
        {},
        ValueError,
        "targets must lie in 0..2, got 0..18446744073709551615",
    ),
    "targets dtype": ((LOGITS, [0.0, 1.0]), {}, TypeError, "targets must be integers, got float64"),
    "logits dtype": (
        (LOGITS.astype(complex), TARGETS),
        {},
        TypeError,
        "logits must be real, got complex128",
    ),
    "masked": ((np.ma.ones((2, 3)), TARGETS), {}, TypeError, "logits must be a plain array"),
    "smoothing": (
        (LOGITS, TARGETS),
        {"label_smoothing": 1.0},
        ValueError,
        "label_smoothing must lie in 0 <= label_smoothing < 1, got 1.0",
    ),
    "negative smoothing": (
        (LOGITS, TARGETS),
        {"label_smoothing": -0.1},
        ValueError,
        "label_smoothing must lie in 0 <= label_smoothing < 1, got -0.1",
    ),
    "no smoothing": (
        (LOGITS, TARGETS),
        {"label_smoothing": np.nan},
        ValueError,
        "label_smoothing must lie in 0 <= label_smoothing < 1, got nan",
    ),
}


def check_error(loss, arrays, options, error, message):
    """By a call and by vjp, in the same words."""
    for call in (loss, partial(attnc.vjp, loss)):
        with pytest.raises(error) as caught:
            call(*arrays, **options)
        assert str(caught.value).startswith(f"{loss.__name__}: {message}")


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    check_error(softmax_cross_entropy, *ERRORS[name])


# ---- With the output layer -----------------------------------------------------------------------


def linear_problem(rng, dtype, *lead, D=11, V=37):
    """x, weight, targets, bias."""
    shapes = (*lead, D), (D, V), (V,)
    x, weight, bias = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return x, weight, rng.integers(0, V, lead), bias


@pytest.mark.parametrize("lead", [(), (0,), (1,), (2, 3, 4), (300,)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore_index", [None, 0, -100])
def test_output_layer_and_loss_in_one(lead, smoothing, ignore_index, dtype, isa, rng):
    x, weight, targets, bias = linear_problem(rng, dtype, *lead)
    targets = np.where(rng.random(lead) < 0.3, ignore_index or 0, targets)
    options = {"ignore_index": ignore_index, "label_smoothing": smoothing}
    with assert_unchanged(x, weight, targets, bias):
        loss, pullback = attnc.vjp(linear_cross_entropy, x, weight, targets, bias=bias, **options)
        gradients = pullback(1.7)
    assert loss == linear_cross_entropy(x, weight, targets, bias=bias, **options)
    assert loss.dtype == dtype and len(gradients) == 2
    (naive, naive_gradients), (exact, exact_gradients) = (
        plain("linear_cross_entropy", (x, weight, targets), 1.7, kind, bias=bias, **options)
        for kind in (dtype, wider(dtype))
    )
    size = (np.abs(x) @ np.abs(weight)).max(initial=0) + np.abs(bias).max()
    assert_close_like_naive(loss, exact, naive, size, FLOOR_OF_FEW, "loss")
    for name, exact in exact_gradients.items():
        got = gradients[name]
        assert got.shape == exact.shape and got.dtype == dtype
        largest = 1.7 * max(1, np.abs(weight).max(), np.abs(x).max(initial=0))
        floor = FLOOR_OF_FEW + size
        assert_close_like_naive(got, exact, naive_gradients[name], largest, floor, name)


def test_output_layer_equal_to_torch(rng):
    torch = pytest.importorskip("torch")
    x, weight, targets, bias = linear_problem(rng, np.float64, 4, 6)
    loss, pullback = attnc.vjp(
        linear_cross_entropy, x, weight, targets, bias=bias, ignore_index=3, label_smoothing=0.2
    )
    gradients = pullback()
    theirs = [torch.tensor(array, requires_grad=True) for array in (x, weight, bias)]
    expected = torch.nn.functional.cross_entropy(
        (theirs[0] @ theirs[1] + theirs[2]).reshape(24, -1),
        torch.tensor(targets.reshape(-1)),
        ignore_index=3,
        label_smoothing=0.2,
    )
    expected.backward()
    assert_agree(loss, expected.detach().numpy())
    for name, their in zip(("x", "weight", "bias"), theirs, strict=True):
        assert_agree(gradients[name], their.grad.numpy())


def test_output_layer_without_bias(dtype, rng):
    x, weight, targets, bias = linear_problem(rng, dtype, 40)
    loss, pullback = attnc.vjp(linear_cross_entropy, x, weight, targets)
    zero, zero_pullback = attnc.vjp(linear_cross_entropy, x, weight, targets, bias=0 * bias)
    assert_same((loss, *pullback()), (zero, *zero_pullback()))
    with pytest.raises(AttributeError, match="no gradient of 'bias'"):
        pullback().bias  # noqa: B018


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_output_layer_does_not_read_ignored_rows(poison, dtype, isa, rng):
    x, weight, targets, bias = linear_problem(rng, dtype, 40)
    targets[::3] = 5

    def run_linear():
        loss, pullback = attnc.vjp(
            linear_cross_entropy, x, weight, targets, bias=bias, ignore_index=5
        )
        return loss, vars(pullback())

    expected = run_linear()
    x[targets == 5] = poison
    got = run_linear()
    assert_same(got, expected)
    assert not got[1]["x"][targets == 5].any()


def test_output_layer_has_the_same_bits_for_any_number_of_threads(dtype, isa, rng):
    x, weight, targets, bias = linear_problem(rng, dtype, 300, D=65, V=1000)
    results = []
    for n in (1, 2, 3, 5, 8):
        with attnc.set_num_threads(n):
            loss, pullback = attnc.vjp(linear_cross_entropy, x, weight, targets, bias=bias)
            results.append((loss, *vars(pullback(2.0)).values()))
    for got in results[1:]:
        assert_same(got, results[0])


def test_pullback_of_the_output_layer_scales_and_repeats(rng):
    x, weight, targets, bias = linear_problem(rng, np.float64, 20)
    _, pullback = attnc.vjp(linear_cross_entropy, x, weight, targets, bias=bias)
    first = {name: gradient.copy() for name, gradient in vars(pullback()).items()}
    assert_same(vars(pullback(-2.0)), {name: -2 * g for name, g in first.items()})
    for gradient in vars(pullback()).values():
        gradient[...] = np.nan
    assert_same(vars(pullback()), first)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_output_layer(layout, dtype, rng):
    arrays = linear_problem(rng, dtype, 6)
    x, weight, targets, bias = (lay_out(layout, array) for array in arrays)
    loss, pullback = attnc.vjp(linear_cross_entropy, x, weight, targets, bias=bias)
    copies = [np.array(a, a.dtype.newbyteorder("="), order="C") for a in (x, weight, targets, bias)]
    expected, back = attnc.vjp(linear_cross_entropy, *copies[:3], bias=copies[3])
    assert_same((loss, vars(pullback())), (expected, vars(back())))


def test_mixed_dtypes_of_the_output_layer(rng):
    """Computed in the widest, gradients in each array's own."""
    x, weight, targets, bias = linear_problem(rng, np.float64, 20)
    x, bias = x.astype(np.float16), bias.astype(np.float32)
    loss, pullback = attnc.vjp(linear_cross_entropy, x, weight, targets, bias=bias)
    wide = [array.astype(np.float64) for array in (x, bias)]
    expected, back = attnc.vjp(linear_cross_entropy, wide[0], weight, targets, bias=wide[1])
    assert_same(loss, expected)
    for name, gradient in vars(back()).items():
        assert_same(
            pullback()[name],
            gradient.astype({"x": np.float16, "bias": np.float32}.get(name, np.float64)),
        )


LINEAR_ERRORS = {
    "weight": (([[1.0]], np.ones((2, 3)), [0]), {}, ValueError, "weight must have shape (D, V)"),
    "vector": (([[1.0]], np.ones(3), [0]), {}, ValueError, "weight must have shape (D, V)"),
    "no classes": (([[1.0]], np.ones((1, 0)), [0]), {}, ValueError, "weight must have shape"),
    "bias": (
        ([[1.0]], np.ones((1, 3)), [0]),
        {"bias": np.ones(2)},
        ValueError,
        "bias must have shape (V,), got x (1, 1), weight (1, 3), bias (2,)",
    ),
    "targets": (
        ([[1.0]], np.ones((1, 3)), [0, 1]),
        {},
        ValueError,
        "targets must have the shape of x without its last axis, got x (1, 1) and targets (2,)",
    ),
    "range": (([[1.0]], np.ones((1, 3)), [3]), {}, ValueError, "targets must lie in 0..2, got 3"),
    "kind": (([[1.0]], np.ones((1, 3)), [1.5]), {}, TypeError, "targets must be integers"),
    "complex": (([[1j]], np.ones((1, 3)), [1]), {}, TypeError, "x must be real, got complex128"),
    "smoothing": (
        ([[1.0]], np.ones((1, 3)), [1]),
        {"label_smoothing": 1},
        ValueError,
        "label_smoothing must lie in 0 <= label_smoothing < 1, got 1",
    ),
}


@pytest.mark.parametrize("name", LINEAR_ERRORS)
def test_errors_of_the_output_layer(name):
    check_error(linear_cross_entropy, *LINEAR_ERRORS[name])


# ---- The ends of the range -----------------------------------------------------------------------


def exact(x, target, smoothing=0.0, dloss=1.0):
    """Loss and gradient of one row in long double."""
    options = {"dtype": np.longdouble, "label_smoothing": smoothing}
    loss, gradients = plain("softmax_cross_entropy", (x, target), dloss, **options)
    return loss, gradients["logits"]


FAR = {
    "large": [1e38, -1e38, 3e38, -3e38, 0],
    "all large": [3e38] * 5,
    "all small": [-3e38] * 5,
    "subnormal": [1e-45, -1e-45, 0, 2e-40, -3e-42],
    "forbidden": [-np.inf, 1, 2, -np.inf, 3],
    "forbidden and large": [-np.inf, 3e38, -3e38, 1, 2],
    "one allowed": [-np.inf] * 4 + [5],
    "one class": [3.5],
    "one large class": [-3e38],
    "zeros": [0.0, -0.0, 0.0],
}


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("name", FAR)
def test_far_logits(name, smoothing, dtype, isa):
    x = np.array(FAR[name], dtype)
    for target in range(x.size):
        loss, gradient = exact(x, target, smoothing)
        with np.errstate(all="ignore"):  # no plain formula survives here: the floor is all
            naive = np.asarray(loss).astype(dtype)
        with np.errstate(all="raise"):
            got, dgot = run(x, np.array(target), label_smoothing=smoothing)
        assert_close_like_naive(got, naive.astype(wider(dtype)), naive)
        assert_close_like_naive(dgot, gradient, gradient.astype(dtype), 1.0)
        assert not dgot[np.isneginf(x) & (np.arange(x.size) != target)].any() or smoothing


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_far_logits_of_float64(smoothing, isa):
    """Their differences overflow, and the sums of losses, where the result does not."""
    x = np.array([[1e308, -1e308, 0, 0], [1.7e308, -1.7e308, 1, 2]])
    scaled = x / 2**1000
    for target in ([0, 0], [2, 2], [3, 0]):
        loss = softmax_cross_entropy(x, np.array(target), label_smoothing=smoothing)
        q = np.full(x.shape, smoothing / 4)
        q[[0, 1], target] += 1 - smoothing
        expected = (q * (scaled.max(1, keepdims=True) - scaled)).sum() / 2 * 2.0**1000
        assert loss == pytest.approx(expected, rel=1e-14)
    rows = np.full((1000, 2), [0, 1.5e308])
    assert softmax_cross_entropy(rows, np.zeros(1000, int)) == pytest.approx(1.5e308, rel=1e-14)


def test_a_forbidden_target_and_smoothing_over_a_forbidden_class(dtype, isa):
    x = np.array([[0, 0, -np.inf]], dtype)
    loss, gradient = run(x, np.array([2]))
    assert loss == np.inf
    assert_same(gradient, np.array([[0.5, 0.5, -1]], dtype))
    loss, gradient = run(x, np.array([0]), label_smoothing=0.375)
    assert loss == np.inf
    assert_same(gradient, np.array([[0.5 - 0.75, 0.5 - 0.125, -0.125]], dtype))


def test_a_logit_of_infinity_is_nan(dtype, isa, rng):
    logits, targets = problem(rng, dtype, 18, 21)
    _, expected = run(logits, targets)
    for column in (targets[3], (targets[3] + 1) % 21):
        x = logits.copy()
        x[3, column] = np.inf
        loss, gradient = run(x, targets)
        assert np.isnan(loss) and np.isnan(gradient[3]).all()
        assert_same(np.delete(gradient, 3, 0), np.delete(expected, 3, 0))


@pytest.mark.parametrize("dloss", [0.0, 1e300, -1e300, 3e38, 1e39, 1e-40, 1e-300])
def test_dloss_beyond_the_dtype(dloss, dtype, isa):
    x = np.array([[-np.inf, 0, -2000, 1, -90], [1, 2, 3, 4, 5], [1, 1, 1, 1, 1]], dtype)
    targets = np.array([3, 4, 0])
    with np.errstate(all="raise"):
        _, gradient = run(x, targets, dloss, ignore_index=0)
    expected = np.zeros((3, 5), np.longdouble)
    for r in (0, 1):
        expected[r] = exact(x[r], targets[r], dloss=np.longdouble(dloss) / 2)[1]
    with np.errstate(all="ignore"):
        expected = expected.astype(dtype)
    far = np.isinf(expected)
    assert_same(gradient[far], expected[far])
    floor = FLOOR * np.finfo(dtype).eps * min(abs(dloss), float(np.finfo(dtype).max))
    error = np.abs(gradient[~far] - expected[~far]).max()
    assert error <= floor + np.finfo(dtype).smallest_subnormal
    assert not gradient[2].any()


@pytest.mark.parametrize("dloss", [np.inf, -np.inf, np.nan])
def test_a_dloss_that_is_not_finite(dloss, dtype, isa):
    x = np.array([[1, 2, 3], [4, 5, 6]], dtype)
    _, gradient = run(x, np.array([2, 0]), dloss, ignore_index=0)
    assert_same(gradient[0], np.array([dloss, dloss, -dloss], dtype))
    assert_same(gradient[1], np.zeros(3, dtype))
    _, pullback = attnc.vjp(linear_cross_entropy, x, np.eye(3, dtype=dtype), [2, 0], ignore_index=0)
    assert_same(pullback(dloss).x[1], np.zeros(3, dtype))
    assert_same(pullback(dloss).weight[0], np.array([dloss, dloss, -dloss], dtype))
    _, pullback = attnc.vjp(linear_cross_entropy, x, np.eye(3, dtype=dtype), [0, 0], ignore_index=0)
    assert not pullback(dloss).weight.any() and not pullback(dloss).x.any()


@pytest.mark.parametrize("dloss", [1e300, -1e39, 1e-40])
def test_dloss_beyond_the_dtype_of_the_output_layer(dloss, rng):
    x, weight, targets, bias = linear_problem(rng, np.float32, 6)
    bias[3], targets[0] = -np.inf, 2
    options = {"bias": bias, "ignore_index": 2}
    with np.errstate(all="raise"):
        _, pullback = attnc.vjp(linear_cross_entropy, x, weight, targets, **options)
        gradients = vars(pullback(dloss))
    wide = [array.astype(np.float64) for array in (x, weight)]
    options["bias"] = bias.astype(np.float64)
    _, pullback = attnc.vjp(linear_cross_entropy, *wide, targets, **options)
    for name, expected in vars(pullback(dloss)).items():
        with np.errstate(all="ignore"):
            assert_same(gradients[name], expected.astype(np.float32))
    assert not gradients["x"][0].any()


def test_settings_for_errors_change_nothing(dtype, rng):
    x = np.array([[1e4, -6e4, 3], [-np.inf, np.inf, 1], [np.nan, 1, 2], [1e-7, 0, 1]])
    with np.errstate(all="ignore"):
        half = x.astype(np.float16)
    for logits in (x.astype(dtype), half):
        results = []
        for setting in ("ignore", "raise"):
            with np.errstate(all=setting):
                loss, pullback = attnc.vjp(softmax_cross_entropy, logits, [0, 1, 2, 0])
                linear, back = attnc.vjp(
                    linear_cross_entropy,
                    logits,
                    np.eye(3, dtype=dtype),
                    [0, 1, 2, 0],
                    bias=logits[1],
                )
                results.append(
                    [loss, linear]
                    + [pullback(d).logits for d in (1.0, 1e30, 1e300, 1e-30)]
                    + [vars(back(d)) for d in (1.0, 1e30, 1e300, 1e-30)]
                )
        assert_same(results[1], results[0])


def test_sums_over_very_many_targets():
    """float32 added one by one is off by 1e-2 here."""
    n = 1_000_000
    x, targets = np.ones((n, 1), np.float32), np.zeros(n, np.int8)
    loss, pullback = attnc.vjp(
        linear_cross_entropy, x, np.zeros((1, 2), np.float32), targets, bias=np.zeros(2, np.float32)
    )
    assert loss == np.float32(np.log(2))
    np.testing.assert_allclose(pullback().bias, [-0.5, 0.5], rtol=4e-6)
    logits = np.zeros((n, 2), np.float32)
    assert softmax_cross_entropy(logits, targets) == np.float32(np.log(2))


# ---- dloss ---------------------------------------------------------------------------------------


@pytest.fixture(params=[softmax_cross_entropy, linear_cross_entropy], ids=lambda f: f.__name__)
def loss_function(request):
    """Both losses, of the same arguments: logits = x @ I."""
    if request.param is softmax_cross_entropy:
        return request.param.__name__, softmax_cross_entropy

    def linear(x, targets, **options):
        return linear_cross_entropy(x, np.eye(np.shape(x)[-1]), targets, **options)

    return request.param.__name__, linear


def pullback_of(loss_function):
    arrays = np.eye(3), [0, 1, 2]
    if loss_function[0] == "linear_cross_entropy":
        return attnc.vjp(linear_cross_entropy, arrays[0], np.eye(3), arrays[1])[1]
    return attnc.vjp(softmax_cross_entropy, *arrays)[1]


def test_dloss_is_one_where_none_is_given(loss_function):
    pullback = pullback_of(loss_function)
    expected = tuple(pullback(1.0))
    for same in (pullback(), pullback(None), pullback(dloss=None), pullback(dloss=1)):
        assert_same(tuple(same), expected)


@pytest.mark.parametrize("dloss", [2, np.float16(2), np.array(2.0), np.int8(2), np.array(2, ">f4")])
def test_dloss_is_any_real_number(dloss, loss_function):
    pullback = pullback_of(loss_function)
    assert_same(tuple(pullback(dloss)), tuple(pullback(2.0)))


@pytest.mark.parametrize(
    "dloss, error, message",
    [
        *((wrong, TypeError, "be real, got ") for wrong in (True, "1", 1j, b"1", {}, 10**400)),
        *((wrong, TypeError, "be real, got ") for wrong in (np.True_, np.longdouble(1), [None])),
        (np.ma.array(1.0), TypeError, "be a plain array, got a masked array"),
        *((wrong, ValueError, r"have shape \(\), got \(1,\)") for wrong in ([1.0], np.ones(1))),
        (np.ones((2, 2)), ValueError, r"have shape \(\), got \(2, 2\)"),
    ],
    ids=repr,
)
def test_dloss_of_the_wrong_kind(dloss, error, message, loss_function):
    with pytest.raises(error, match=f"^{loss_function[0]}: dloss must {message}"):
        pullback_of(loss_function)(dloss)


# ---- What is no integer, and no number -----------------------------------------------------------


@pytest.mark.parametrize(
    "targets",
    [
        *([True, False, True], np.ones(3, bool), [0.0, 1.0, 2.0], ["0", "1", "2"], [0, None, 2]),
        *(np.ma.array([0, 1, 2], mask=[0, 0, 1]), [0, np.ma.array(1), 2], [0, True, 2], "012"),
        *([[0, 1], [2]], [0j, 1, 2], np.array([0, 1, 2], object), np.zeros(3, "m8[s]"), None),
    ],
    ids=repr,
)
def test_targets_are_integers(targets, loss_function):
    with pytest.raises(TypeError, match=f"^{loss_function[0]}: targets must be "):
        loss_function[1](np.eye(3), targets)


def test_foreign_arrays_are_refused(loss_function):
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="targets must be a NumPy array, got a PyTorch tensor"):
        loss_function[1](np.eye(3), torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match="must be a NumPy array, got a PyTorch tensor"):
        loss_function[1](torch.eye(3), [0, 1, 2])


def test_no_targets(loss_function):
    """[] is an empty list of integers."""
    assert loss_function[1](np.zeros((0, 3)), []) == 0
    assert loss_function[1](np.zeros((0, 3), np.float32), np.array([])) == 0


@pytest.mark.parametrize("dtype", ["i1", "u1", "u2", "i4", "u4", "u8", ">i2", ">u8"])
def test_targets_of_every_integer_type(dtype, loss_function, rng):
    logits, targets = problem(rng, np.float64, 40, 100)
    assert loss_function[1](logits, targets.astype(dtype)) == loss_function[1](logits, targets)
    # -100 is held by signed types alone, 255 is -1 of a byte
    for ignored in (7, -100, 255, -1, 2**64 - 1, 10**30):
        targets[:5] = 7
        got = loss_function[1](logits, targets.astype(dtype), ignore_index=ignored)
        assert got == loss_function[1](logits, targets, ignore_index=ignored)


def test_an_ignored_index_beyond_int64(loss_function):
    logits, most = np.eye(3), 2**64 - 1
    targets = np.array([0, most, 2], np.uint64)
    expected = loss_function[1](logits[[0, 2]], [0, 2])
    assert loss_function[1](logits, targets, ignore_index=most) == expected
    assert loss_function[1](logits, targets, ignore_index=np.uint64(most)) == expected
    with pytest.raises(ValueError, match=f"targets must lie in 0..2, got 0..{most}"):
        loss_function[1](logits, targets, ignore_index=most - 1)
    with pytest.raises(ValueError, match=f"targets must lie in 0..2, got 0..{most}"):
        loss_function[1](logits, targets, ignore_index=-1)


@pytest.mark.parametrize("wrong", [1.0, True, np.True_, "1", [1], np.nan, np.ma.array(1), 1j])
def test_ignore_index_is_an_integer(wrong, loss_function):
    with pytest.raises(
        TypeError, match=f"^{loss_function[0]}: ignore_index must be an integer, got"
    ):
        loss_function[1](np.eye(3), [0, 1, 2], ignore_index=wrong)


@pytest.mark.parametrize("wrong", ["0.1", True, np.False_, None, [0.1], np.zeros(3), 0.1j, b"0"])
def test_label_smoothing_is_a_number(wrong, loss_function):
    with pytest.raises(TypeError, match=f"^{loss_function[0]}: label_smoothing must lie in 0 <= "):
        loss_function[1](np.eye(3), [0, 1, 2], label_smoothing=wrong)


@pytest.mark.parametrize("same", [np.float32(0.25), np.array(0.25), np.float16(0.25)])
def test_label_smoothing_of_any_type(same, loss_function):
    arrays = np.eye(3), [0, 1, 2]
    expected = loss_function[1](*arrays, label_smoothing=0.25)
    assert loss_function[1](*arrays, label_smoothing=same) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        *(np.ones((2, 3), bool), [[True, 1.0], [0.0, 1.0]], np.ma.ones((2, 3)), [["a", "b"]] * 2),
        *(np.ones((2, 3), object), np.ones((2, 3), np.longdouble), [[1, 2], [3]], 1j * np.eye(2)),
    ],
    ids=repr,
)
def test_real_arrays(wrong):
    targets = [0, 1]
    for name, f in {
        "softmax_cross_entropy: logits": lambda: softmax_cross_entropy(wrong, targets),
        "linear_cross_entropy: x": lambda: linear_cross_entropy(wrong, np.eye(2), targets),
        "linear_cross_entropy: weight": lambda: linear_cross_entropy(np.eye(2), wrong, targets),
        "linear_cross_entropy: bias": lambda: linear_cross_entropy(
            np.eye(2), np.eye(2), targets, bias=wrong
        ),
    }.items():
        with pytest.raises(TypeError, match=f"^{name} must be "):
            f()

"""The losses of numbers one by one: squared errors and binary cross-entropy."""

import math

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
from attnc.losses import binary_cross_entropy, mean_squared_error

LOSSES = {"mean_squared_error": mean_squared_error, "binary_cross_entropy": binary_cross_entropy}
NAMES = {
    "mean_squared_error": ("prediction", "target"),
    "binary_cross_entropy": ("logits", "targets"),
}
both = pytest.mark.parametrize("name", LOSSES)


def problem(rng, shape, dtype=np.float64, spread=3.0):
    """Numbers, and targets that both losses take."""
    x = np.asarray(spread * rng.standard_normal(shape)).astype(dtype)
    return x, np.asarray(rng.random(shape)).astype(dtype)


def check(name, x, t, dloss=1.0, **options):
    """By the rule of tolerance: the loss, and the gradient of every array."""
    dtype = x.dtype
    with assert_unchanged(x, t, options):
        loss, pullback = attnc.vjp(LOSSES[name], x, t, **options)
        gradients = pullback(dloss)
    assert loss == LOSSES[name](x, t, **options) and loss.dtype == dtype
    (naive, back), (exact, exact_back) = (
        reference.vjp(getattr(reference, name), x, t, **options, dtype=kind)
        for kind in (dtype.type, wider(dtype))
    )
    assert_close_like_naive(loss, exact, naive, 0.0, FLOOR_OF_FEW, "loss")
    assert tuple(vars(gradients))[:2] == NAMES[name] and len(gradients) == 2
    naive, exact = vars(back(dloss)), vars(exact_back(dloss))
    assert vars(gradients).keys() == exact.keys()
    size = max(np.abs(x).max(initial=0), 1) ** 2 * abs(dloss)  # of the terms of a difference
    total = np.broadcast_to(options.get("weights", 1), x.shape).sum()
    for argument, gradient in vars(gradients).items():
        assert gradient.dtype == dtype and gradient.flags.writeable, argument
        floor = FLOOR if gradient.size >= FEW else FLOOR_OF_FEW
        terms = size / (total or 1) * max(1, x.size / max(gradient.size, 1))
        assert_close_like_naive(gradient, exact[argument], naive[argument], terms, floor, argument)
    return loss, gradients


SHAPES = [(), (1,), (7,), (4, 5), (2, 3, 4), (1000,), (64, 129), (0,), (2, 0)]


@both
@pytest.mark.parametrize("shape", SHAPES)
def test_as_exact_as_plain_numpy(name, shape, dtype, rng):
    x, t = problem(rng, shape, dtype)
    check(name, x, t, 1.7)
    check(name, x, t, 0.3, weights=np.asarray(rng.random(shape)).astype(dtype))
    check(name, x, t, mask=np.asarray(rng.random(shape) < 0.6))


@both
def test_weights_and_mask_broadcast(name, dtype, rng):
    x, t = problem(rng, (3, 4, 5), dtype)
    mask = rng.random((3, 4, 1)) < 0.6
    for shape in ((1, 1, 1), (3, 1, 1), (1, 4, 5), (3, 4, 5)):
        weights = rng.random(shape).astype(dtype)
        loss, gradients = check(name, x, t, 2.0, weights=weights, mask=mask)
        assert gradients.weights.shape == shape
        full = np.broadcast_to(weights, x.shape)[np.broadcast_to(mask, x.shape)]
        kept = np.broadcast_to(mask, x.shape)
        assert_agree(float(loss), float(LOSSES[name](x[kept], t[kept], weights=full)))


@both
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_central_differences(name, weighted, masked, rng):
    x, t = problem(rng, (4, 5))
    t = 0.1 + 0.8 * t  # differences stay in 0..1
    options = {"mask": rng.random((4, 1)) < 0.7} if masked else {}
    weights = [0.5 + rng.random((1, 5))] if weighted else []

    def loss(x, t, *weights):
        return LOSSES[name](x, t, **options, **({"weights": weights[0]} if weights else {}))

    _, back = attnc.vjp(
        LOSSES[name], x, t, **options, **({"weights": weights[0]} if weights else {})
    )

    def pullback(d):
        gradients = back(d)
        return [*gradients, *([gradients.weights] if weights else [])]

    assert attnc.check_gradients(loss, pullback, x, t, *weights) < 1e-7
    if not weights:
        attnc.check_gradients(LOSSES[name], None, x, t, **options)


@both
def test_equal_to_torch(name, rng):
    torch = pytest.importorskip("torch")
    x, t = problem(rng, (6, 7))
    peer = {
        "mean_squared_error": torch.nn.functional.mse_loss,
        "binary_cross_entropy": torch.nn.functional.binary_cross_entropy_with_logits,
    }[name]
    theirs = [torch.tensor(each, requires_grad=True) for each in (x, t)]
    expected = peer(*theirs)
    expected.backward()
    loss, pullback = attnc.vjp(LOSSES[name], x, t)
    assert_agree(loss, expected.detach().numpy())
    for got, right in zip(pullback(), theirs, strict=True):
        assert_agree(got, right.grad.numpy())


def test_by_hand():
    loss, pullback = attnc.vjp(mean_squared_error, [1.0, 2.0], [0.0, 4.0], weights=[3.0, 1.0])
    assert loss == (3 * 1 + 4) / 4
    gradients = pullback()
    assert_same(gradients.prediction, np.array([6 / 4, -4 / 4]))
    assert_same(gradients.target, -gradients.prediction)
    assert_same(gradients.weights, np.array([(1 - 1.75) / 4, (4 - 1.75) / 4]))
    # sigmoid(log 3) is 3/4
    loss, pullback = attnc.vjp(binary_cross_entropy, [math.log(3)], [1.0])
    np.testing.assert_allclose(loss, math.log(4 / 3), rtol=1e-15)
    np.testing.assert_allclose(pullback().logits, [-1 / 4], rtol=1e-15)
    np.testing.assert_allclose(pullback().targets, [-math.log(3)], rtol=1e-15)


def test_logits_of_any_size(dtype):
    for size in (50, 1e4, 1e30, np.inf):
        logits = np.array([size, -size, size, -size], dtype)
        loss, pullback = attnc.vjp(binary_cross_entropy, logits, [True, False, False, True])
        assert loss == dtype(size) / 2
        np.testing.assert_array_equal(pullback().logits[2:], [0.25, -0.25])
        assert abs(pullback().logits[:2]).max() < 1e-20
    # What a sigmoid of its own would have rounded away.
    _, pullback = attnc.vjp(binary_cross_entropy, np.array([40.0], dtype), [1.0])
    np.testing.assert_allclose(pullback().logits, [-np.exp(-40)], rtol=1e-6)


def test_bools_are_targets_and_have_no_gradient(rng):
    x, t = rng.standard_normal((3, 4)).astype(np.float32), rng.random((3, 4)) < 0.5
    loss, pullback = attnc.vjp(binary_cross_entropy, x, t)
    assert loss == binary_cross_entropy(x, t.astype(np.float32)) and loss.dtype == np.float32
    dlogits, dtargets = pullback()
    assert dtargets is None and dlogits.dtype == np.float32
    with pytest.raises(TypeError, match="mean_squared_error: target must be real, got bool"):
        mean_squared_error(x, t)


@both
def test_what_is_masked_is_not_read(name, rng):
    x, t = problem(rng, (3, 4))
    weights, mask = rng.random((3, 4)), rng.random((3, 4)) < 0.5
    expected, back = attnc.vjp(LOSSES[name], x, t, weights=weights, mask=mask)
    for array in (x, t, weights):
        array[~mask] = [np.nan, np.inf, -np.inf, -7][int(rng.integers(4))]
    loss, pullback = attnc.vjp(LOSSES[name], x, t, weights=weights, mask=mask)
    assert loss == expected
    assert_same(vars(pullback()), vars(back()))
    assert not any(g[~mask].any() for g in vars(pullback(np.inf)).values())


@both
def test_nothing_counts(name):
    for options in (
        {"mask": np.zeros((2, 3), bool)},
        {"weights": np.zeros((2, 3))},
        {"mask": [[False]], "weights": [[1.0]]},
    ):
        loss, pullback = attnc.vjp(LOSSES[name], np.ones((2, 3)), np.zeros((2, 3)), **options)
        assert loss == 0 and not any(g.any() for g in vars(pullback()).values())


@both
@pytest.mark.parametrize(
    "dtypes, computed",
    [
        (("float32", "float32"), "float32"),
        (("float16", "float16"), "float32"),
        (("float16", "float64"), "float64"),
        (("float32", "int64"), "float64"),
        (("int8", "int8"), "float64"),
        ((">f4", "float32"), "float32"),
    ],
)
def test_dtypes(name, dtypes, computed):
    x, t = (np.array([[0, 1, 1]], kind) for kind in dtypes)
    loss, pullback = attnc.vjp(LOSSES[name], x, t, mask=[[True, True, False]])
    assert loss.dtype == computed
    for gradient, kind in zip(pullback(), dtypes, strict=True):
        kind = np.dtype(kind).newbyteorder("=")
        assert gradient.dtype == (kind if kind.kind == "f" else computed)


@both
def test_bfloat16(name, rng):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x, t = (a.astype(bfloat16) for a in problem(rng, (3, 4)))
    loss, pullback = attnc.vjp(LOSSES[name], x, t)
    assert loss == LOSSES[name](x.astype(np.float32), t.astype(np.float32))
    assert loss.dtype == np.float32 and {g.dtype for g in pullback()} == {np.dtype(bfloat16)}


@both
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(name, layout, rng):
    x, t = (lay_out(layout, array) for array in problem(rng, (6, 5)))
    plain = (np.array(array, np.float64, order="C") for array in (x, t))
    expected, back = attnc.vjp(LOSSES[name], *plain)
    loss, pullback = attnc.vjp(LOSSES[name], x, t)
    assert loss == expected
    for got, right in zip(pullback(), back(), strict=True):
        assert_same(got, right)
        assert got.flags.c_contiguous and got.flags.writeable


def test_sums_that_overflow_on_the_way():
    far = np.float32([2e19] + [0] * 999)  # its square is beyond float32, a thousandth is not
    loss = mean_squared_error(far, np.zeros_like(far))
    np.testing.assert_allclose(loss, 4e35, rtol=1e-6)
    logits = np.full(1000, 1e306)
    np.testing.assert_allclose(binary_cross_entropy(logits, np.zeros(1000)), 1e306, rtol=1e-12)
    assert mean_squared_error(np.float32([1e30]), np.zeros(1, np.float32)) == np.inf


@both
def test_an_incoming_gradient_beyond_the_dtype(name):
    x, t = np.float32([[1e-30, 0.5]]), np.float32([[0, 0.5]])
    _, pullback = attnc.vjp(LOSSES[name], x, t)
    exact, back = attnc.vjp(LOSSES[name], x.astype(np.float64), t.astype(np.float64))
    for got, right in zip(pullback(1e42), back(1e42), strict=True):
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(got, right.astype(np.float32))


@both
def test_floating_point_errors_are_results(name, rng):
    x, t = problem(rng, (5,), np.float32, spread=1e25)
    with np.errstate(all="raise"):
        _, pullback = attnc.vjp(LOSSES[name], x, t)
        pullback(1e-40)


@both
def test_not_a_number_reaches_the_loss(name):
    loss, pullback = attnc.vjp(LOSSES[name], [np.nan, 0.0], [0.0, 0.0])
    assert math.isnan(loss) and np.isnan(pullback()[0]).tolist() == [True, False]


@both
def test_errors(name):
    first, second = NAMES[name]
    ones = np.ones((2, 3))
    for arguments, options, error, message in (
        (
            (ones, np.ones((2, 1))), {}, ValueError,
            rf"{second} must have the shape of {first}, got {first} \(2, 3\) and {second} \(2, 1\)",
        ),
        (
            (ones, ones), {"mask": np.ones(2, bool)}, ValueError,
            r"mask must have shape \(2, 3\), each axis of that size or 1, got \(2,\); write "
            r"mask\[..., None\]",
        ),
        (
            (ones, ones), {"weights": np.ones(3)}, ValueError,
            r"weights must have shape \(2, 3\), .*, got \(3,\); write weights\[None\]",
        ),
        ((ones, ones), {"weights": np.ones((3, 2))}, ValueError, r"weights must .*\(3, 2\)$"),
        ((ones, ones), {"weights": -ones}, ValueError, "weights must be finite and 0 or more"),
        ((ones, ones), {"weights": ones * np.inf}, ValueError, "weights must be finite and 0 or"),
        ((ones, ones), {"weights": ones * np.nan}, ValueError, "weights must be finite and 0 or"),
        (
            (ones, ones), {"mask": ones}, TypeError,
            r"mask must be boolean \(True: counts\), got float64 \(write mask.astype\(bool\), or",
        ),
        ((ones + 0j, ones), {}, TypeError, f"{first} must be real, got complex128"),
        ((ones, [["a"] * 3] * 2), {}, TypeError, f"{second} must be real, got <U1"),
        ((np.ma.ones((2, 3)), ones), {}, TypeError, f"{first} must be a plain array"),
    ):  # fmt: skip
        with pytest.raises(error, match=f"^{name}: {message}"):
            LOSSES[name](*arguments, **options)
    with pytest.raises(ValueError, match=r"^binary_cross_entropy: targets must lie in 0..1, got 2"):
        binary_cross_entropy(ones, 2 * ones)
    assert binary_cross_entropy(ones, 2 * ones, mask=[[False]]) == 0
    _, pullback = attnc.vjp(LOSSES[name], ones, ones)
    with pytest.raises(ValueError, match=rf"^{name}: dloss must have shape \(\), got \(2,\)"):
        pullback([1.0, 2.0])

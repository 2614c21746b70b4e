"""Losses."""

import numpy as np
import pytest
from checks import assert_agree, assert_same, assert_unchanged

import attnc
from attnc.losses import softmax_cross_entropy


def test_by_hand():
    # softmax of (log 1, log 3) is (1/4, 3/4)
    logits = np.log([[1.0, 3.0], [3.0, 1.0]])
    loss, pullback = attnc.vjp(softmax_cross_entropy, logits, [0, 0])
    np.testing.assert_allclose(loss, (np.log(4) + np.log(4 / 3)) / 2, rtol=1e-15)
    (dlogits,) = pullback()
    np.testing.assert_allclose(dlogits, [[-3 / 8, 3 / 8], [-1 / 8, 1 / 8]], rtol=1e-15)


@pytest.mark.parametrize("lead", [(5,), (2, 3), (), (2, 0)])
@pytest.mark.parametrize("ignore_index", [None, 1, -100])
def test_central_differences(lead, ignore_index, rng):
    logits, targets = rng.standard_normal((*lead, 7)), rng.integers(0, 7, lead)
    if ignore_index == -100:
        targets = np.where(rng.random(lead) < 0.5, -100, targets)
    with assert_unchanged(logits, targets):
        options = {"ignore_index": ignore_index}
        loss, pullback = attnc.vjp(softmax_cross_entropy, logits, targets, **options)
        gradients = pullback(1.7)
    assert loss == softmax_cross_entropy(logits, targets, **options)
    assert np.ndim(loss) == 0
    t, h = rng.standard_normal(logits.shape), 1e-5
    ahead, behind = (softmax_cross_entropy(logits + s * t, targets, **options) for s in (h, -h))
    np.testing.assert_allclose(
        (gradients.logits * t).sum(), 1.7 * (ahead - behind) / (2 * h), atol=1e-9
    )
    assert_same(pullback(1.7).logits, gradients.logits)


@pytest.mark.parametrize("ignore_index", [None, 0])
def test_equal_to_torch(ignore_index, rng):
    torch = pytest.importorskip("torch")
    logits, targets = 5 * rng.standard_normal((4, 6, 7)), rng.integers(0, 7, (4, 6))
    loss, pullback = attnc.vjp(softmax_cross_entropy, logits, targets, ignore_index=ignore_index)
    tlogits = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        tlogits.reshape(-1, 7),
        torch.tensor(targets.reshape(-1)),
        ignore_index=-100 if ignore_index is None else ignore_index,
    )
    expected.backward()
    assert_agree(loss, expected.detach().numpy())
    assert_agree(pullback().logits, tlogits.grad.numpy())


def test_ignored_targets_are_not_read(rng):
    logits, targets = rng.standard_normal((2, 3, 5)), np.array([[1, 2, 0], [3, 0, 0]])
    expected, pullback = attnc.vjp(softmax_cross_entropy, logits, targets, ignore_index=0)
    dexpected = pullback().logits
    logits[targets == 0] = np.nan
    loss, pullback = attnc.vjp(softmax_cross_entropy, logits, targets, ignore_index=0)
    assert loss == expected
    assert_same(pullback().logits, dexpected)
    assert not dexpected[targets == 0].any()


def test_nothing_counts():
    loss, pullback = attnc.vjp(softmax_cross_entropy, np.ones((2, 3)), [0, 0], ignore_index=0)
    assert loss == 0 and not pullback().logits.any()


@pytest.mark.parametrize(
    "dtype, computed",
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("float16", "float32"),
        ("int64", "float64"),
    ],
)
def test_dtypes(dtype, computed):
    logits = np.array([[1, 2, 3]], dtype)
    loss, pullback = attnc.vjp(softmax_cross_entropy, logits, [2])
    assert loss.dtype == computed
    assert pullback().logits.dtype == (computed if dtype == "int64" else dtype)


def test_large_logits_do_not_overflow():
    loss, pullback = attnc.vjp(softmax_cross_entropy, np.float32([[1e30, -1e30]]), [0])
    assert loss == 0 and not pullback().logits.any()
    assert softmax_cross_entropy([[0.0, -np.inf]], [0]) == 0


@pytest.mark.parametrize(
    "logits, targets, error, message",
    [
        (
            np.ones((2, 3)),
            [0],
            ValueError,
            r"targets must have the shape of logits without its last axis, "
            r"got logits \(2, 3\) and targets \(1,\)",
        ),
        (
            np.ones((2, 3)),
            [0, 3],
            ValueError,
            r"targets must lie in 0..2, got 0..3 \(padding\? pass ignore_index=\)",
        ),
        (np.ones((2, 3)), [0, -100], ValueError, r"targets must lie in 0..2, got -100..0"),
        (np.ones((2, 3)), [0.0, 1.0], TypeError, "targets must be integers, got float64"),
        (np.ones((2, 3), complex), [0, 1], TypeError, "logits must be real, got complex128"),
    ],
)
def test_errors(logits, targets, error, message):
    with pytest.raises(error, match=f"^softmax_cross_entropy: {message}"):
        softmax_cross_entropy(logits, targets)

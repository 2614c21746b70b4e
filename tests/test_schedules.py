"""Learning rates: the formulas of the papers, and the schedulers of PyTorch."""

import math

import numpy as np
import pytest
from checks import assert_agree

import attnc
from attnc.schedules import cosine, inverse_square_root, stepwise, warm_up


@pytest.mark.parametrize("size, warmup", [(512, 4000), (64, 1), (100, 7)])
def test_the_rate_of_the_transformer(size, warmup):
    """Vaswani et al. 2017, eq. 3."""
    for step in (1, 2, warmup - 1, warmup, warmup + 1, 10 * warmup, 10**6):
        if step < 1:
            continue
        expected = size**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert_agree(inverse_square_root(step, (size * warmup) ** -0.5, warmup), expected)


def torchs(scheduler, steps, rate=0.3):
    """The rates of a scheduler of PyTorch for steps 1, 2, ..."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], rate)
    scheduler, rates = scheduler(torch.optim.lr_scheduler, optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def test_cosine_is_torchs():
    """PyTorch counts the steps that were made: its first rate is that of no step."""
    rates = torchs(lambda s, o: s.CosineAnnealingLR(o, 20, 0.01), 21)
    np.testing.assert_allclose(
        [cosine(step, 0.3, 20, final_rate=0.01) for step in range(21)], rates, rtol=1e-12
    )


def test_stepwise_is_torchs():
    rates = torchs(lambda s, o: s.MultiStepLR(o, [3, 8, 9], 0.4), 15)
    got = [stepwise(step, 0.3, [3, 8, 9], 0.4) for step in range(1, 16)]
    np.testing.assert_allclose(got, rates, rtol=1e-12)


def test_warm_up_is_torchs():
    rates = torchs(lambda s, o: s.LambdaLR(o, lambda made: min(1, (made + 1) / 6)), 10)
    np.testing.assert_allclose([warm_up(step, 0.3, 6) for step in range(1, 11)], rates)


@pytest.mark.parametrize("schedule", [
    lambda step, n: warm_up(step, 0.7, n),
    lambda step, n: inverse_square_root(step, 0.7, n),
    lambda step, n: cosine(step, 0.7, n + 9, warmup_steps=n, final_rate=0.2),
    lambda step, n: stepwise(step, 0.7, [n + 2, n + 6], 0.5, warmup_steps=n),
])  # fmt: skip
@pytest.mark.parametrize("n", [1, 5])
def test_all_grow_in_a_line_and_never_rise_again(schedule, n):
    rates = [schedule(step, n) for step in range(n + 15)]
    assert_agree(rates[: n + 1], 0.7 * np.arange(n + 1) / n)
    assert (np.diff(rates[n:]) <= 0).all() and min(rates[n:]) > 0
    assert all(type(rate) is float for rate in rates)
    assert schedule(np.int64(n), n) == 0.7


def test_the_ends():
    assert warm_up(1, 0.5, 0) == 0.5 and stepwise(7, 0.5, []) == 0.5
    assert cosine(10**9, 0.5, 10, final_rate=0.1) == cosine(10, 0.5, 10, final_rate=0.1) == 0.1
    assert cosine(6, 0.5, 12, final_rate=0.1) == pytest.approx(0.3)
    assert stepwise(4, 1.0, [3], 0.0) == 0


def test_an_optimiser_takes_them():
    layer = attnc.Linear(1, 1, bias=False, dtype="float64")
    layer.parameters["weight"], optimizer = [[0.0]], attnc.optim.SGD(layer, 0.0)
    for _ in range(4):
        optimizer.learning_rate = warm_up(optimizer.steps + 1, 1.0, 2)
        layer.gradients["weight"] = [[1.0]]
        optimizer.step()
    assert layer.parameters["weight"] == -(0.5 + 1 + 1 + 1)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: warm_up(-1, 1, 1), ValueError, "warm_up: step must be an integer of at least 0"),
        (lambda: warm_up(1.0, 1, 1), TypeError, "warm_up: step must be an integer of at least 0"),
        (lambda: warm_up(1, -1, 1), ValueError, "warm_up: rate must be 0 or more, got -1"),
        (lambda: warm_up(1, math.nan, 1), ValueError, "warm_up: rate must be 0 or more, got nan"),
        (lambda: warm_up(1, 1, -1), ValueError, "warm_up: warmup_steps must be an integer of at"),
        (
            lambda: inverse_square_root(1, 1, 0),
            ValueError,
            "inverse_square_root: warmup_steps must be an integer of at least 1, got 0",
        ),
        (
            lambda: cosine(1, 1, 5, warmup_steps=5),
            ValueError,
            "cosine: steps must be more than warmup_steps, got 5 and 5",
        ),
        (lambda: cosine(1, 1, 5, final_rate=2), ValueError, "cosine: final_rate must lie in 0..r"),
        (lambda: cosine(1, 1, "5"), TypeError, "cosine: steps must be an integer, got '5'"),
        (lambda: stepwise(1, 1, [3, 3]), ValueError, r"stepwise: boundaries must ascend, got \[3"),
        (lambda: stepwise(1, 1, [1.5]), TypeError, r"stepwise: boundaries must be integers, got"),
        (lambda: stepwise(1, 1, 3), TypeError, "stepwise: boundaries must be integers, got 3"),
        (lambda: stepwise(1, 1, [1], -1), ValueError, "stepwise: factor must be 0 or more, got -1"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_large_numbers():
    """What lies between is no larger than what goes in."""
    assert math.isclose(warm_up(100, 1e308, 1000), 1e307)
    assert warm_up(10**400, 0.5, 2 * 10**400) == 0.25
    assert cosine(10**400, 0.5, 8) == 0
    with pytest.raises(ValueError, match="stepwise: factor must leave the rate finite, got 1e.200"):
        stepwise(3, 1.0, [1, 2], 1e200)
    with pytest.raises(ValueError, match="stepwise: factor must leave the rate finite, got 1e.200"):
        stepwise(2, 1e200, [1], 1e200)

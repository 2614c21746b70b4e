"""Learning rates as functions of the step.

Each is a plain function, called before a step of an optimiser::

    optimizer.learning_rate = attnc.schedules.cosine(optimizer.steps + 1, 0.001, 10_000)

Steps are counted from 1, so that the first step of a warm-up already moves. There is no state to
save: an optimiser keeps its `steps`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .arrays import integer, number

__all__ = ["cosine", "inverse_square_root", "stepwise", "warm_up"]


def _checked(where, step, rate, warmup_steps):
    """step, rate and warmup_steps, and the rate that a warm-up gives, None once it is over."""
    step, warmup_steps = (
        integer(where, name, value, 0)
        for name, value in (("step", step), ("warmup_steps", warmup_steps))
    )
    rate = number(where, "rate", rate, "be 0 or more", lambda r: 0 <= r < math.inf)
    return step, rate, warmup_steps, rate * (step / warmup_steps) if step < warmup_steps else None


def warm_up(step: int, rate: float, warmup_steps: int) -> float:
    """A rate that grows from 0, then stays.

    ``rate * min(1, step / warmup_steps)``.

    Parameters
    ----------
    step : int
        The step that is to be made, from 1: ``optimizer.steps + 1``.
    rate : float
        The highest rate, 0 or more.
    warmup_steps : int
        Steps until it is reached; 0: from the start.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If an argument is of a wrong kind.
    ValueError
        If one is negative.

    Examples
    --------
    >>> import attnc
    >>> [attnc.schedules.warm_up(step, 0.5, 4) for step in (1, 2, 3, 4, 5, 100)]
    [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    """
    _, rate, _, growing = _checked("warm_up", step, rate, warmup_steps)
    return rate if growing is None else growing


def inverse_square_root(step: int, rate: float, warmup_steps: int) -> float:
    """A rate that grows from 0, then falls as 1 / sqrt(step).

    ``rate * min(step / warmup_steps, sqrt(warmup_steps / step))``. With ``rate = (size *
    warmup_steps) ** -0.5`` it is that of Vaswani et al. 2017, "Attention is all you need", eq. 3:
    ``size^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)``; they have size 512 and 4000 steps.

    Parameters
    ----------
    step, rate
        As in `warm_up`.
    warmup_steps : int
        Steps until the highest rate is reached, at least 1.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If an argument is of a wrong kind.
    ValueError
        If one is negative, or warmup_steps is 0.

    Examples
    --------
    >>> import attnc
    >>> [attnc.schedules.inverse_square_root(step, 0.5, 4) for step in (1, 2, 4, 16, 64)]
    [0.125, 0.25, 0.5, 0.25, 0.125]
    """
    where = "inverse_square_root"
    step, rate, warmup_steps, growing = _checked(where, step, rate, warmup_steps)
    integer(where, "warmup_steps", warmup_steps, 1)
    return rate * math.sqrt(warmup_steps / step) if growing is None else growing


def cosine(
    step: int, rate: float, steps: int, *, warmup_steps: int = 0, final_rate: float = 0.0
) -> float:
    """A rate that falls along half a cosine, after a warm-up if asked for.

    ``final_rate + (rate - final_rate) * (1 + cos(pi t)) / 2`` with ``t = (step - warmup_steps) /
    (steps - warmup_steps)``: Loshchilov and Hutter 2017, "SGDR: stochastic gradient descent with
    warm restarts", eq. 5, without restarts.

    Parameters
    ----------
    step, rate
        As in `warm_up`.
    steps : int
        The step at which final_rate is reached; it stays from there on.
    warmup_steps : int
        Steps in which the rate first grows from 0, as in `warm_up`; fewer than steps.
    final_rate : float
        In 0..rate.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If an argument is of a wrong kind.
    ValueError
        If one is out of range.

    Examples
    --------
    >>> import attnc
    >>> [round(attnc.schedules.cosine(step, 0.5, 8, warmup_steps=4), 3) for step in range(1, 10)]
    [0.125, 0.25, 0.375, 0.5, 0.427, 0.25, 0.073, 0.0, 0.0]
    """
    where = "cosine"
    step, rate, warmup_steps, growing = _checked(where, step, rate, warmup_steps)
    steps = integer(where, "steps", steps)
    if steps <= warmup_steps:
        raise ValueError(
            f"{where}: steps must be more than warmup_steps, got {steps} and {warmup_steps}"
        )
    rule = "lie in 0..rate"
    final_rate = number(where, "final_rate", final_rate, rule, lambda r: 0 <= r <= rate)
    if growing is not None:
        return growing
    t = (min(step, steps) - warmup_steps) / (steps - warmup_steps)
    return final_rate + (rate - final_rate) * (1 + math.cos(math.pi * t)) / 2


def stepwise(
    step: int, rate: float, boundaries: Sequence[int], factor: float = 0.1, *, warmup_steps: int = 0
) -> float:
    """A rate that is multiplied by a factor after some of the steps.

    ``rate * factor ** n``, where n of the boundaries lie before the step.

    Parameters
    ----------
    step, rate
        As in `warm_up`.
    boundaries : sequence of int
        The last steps of each rate, in ascending order.
    factor : float
        0 or more.
    warmup_steps : int
        Steps in which the rate first grows from 0, as in `warm_up`.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If an argument is of a wrong kind.
    ValueError
        If one is negative, boundaries do not ascend, or the rate grows beyond all floats.

    Examples
    --------
    >>> import attnc
    >>> [attnc.schedules.stepwise(step, 1.0, [2, 4], 0.5) for step in (1, 2, 3, 4, 5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    where = "stepwise"
    step, rate, warmup_steps, growing = _checked(where, step, rate, warmup_steps)
    factor = number(where, "factor", factor, "be 0 or more", lambda f: 0 <= f < math.inf)
    try:
        checked = [integer(where, "boundaries", each, 0) for each in boundaries]
    except TypeError:
        raise TypeError(f"{where}: boundaries must be integers, got {boundaries!r}") from None
    if sorted(set(checked)) != checked:
        raise ValueError(f"{where}: boundaries must ascend, got {checked}")
    if growing is not None:
        return growing
    try:
        found = rate * factor ** sum(boundary < step for boundary in checked)
    except OverflowError:
        found = math.inf
    if found == math.inf:
        raise ValueError(f"{where}: factor must leave the rate finite, got {factor}")
    return found

"""How to train a choice: baselines for REINFORCE, and estimators that go without it.

`attnc.hard_attention` draws one key a query. The loss is then a mean over draws, and its gradient
has to be estimated from some of them:

- `reinforce` makes of rewards what the pullback of hard attention takes (Williams 1992). It is
  right on average whatever the baseline, which only makes it less noisy: `MovingAverageBaseline`,
  `LearnedBaseline`, or `leave_one_out` of several draws.
- `straight_through` and `gumbel_softmax` are attention functions for `attnc.vjp` that take the
  gradient of the context instead of a reward; theirs is off, also on average.
- `gradient_error` measures both, bias and variance, against the exact gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from attnc.arrays import broadcasts, generator, like, number, quiet, real_array
from attnc.functional.hard import HardResult
from attnc.functional.relaxed import gumbel_softmax, straight_through
from attnc.gradients import Gradients, require_incoming, shows_shapes
from attnc.layers.base import Layer, positive
from attnc.typing import Array, DType, Real, Seed

__all__ = [
    "GradientError",
    "HardGradients",
    "LearnedBaseline",
    "MovingAverageBaseline",
    "gradient_error",
    "gumbel_softmax",
    "leave_one_out",
    "reinforce",
    "straight_through",
]

# ---- REINFORCE -----------------------------------------------------------------------------------


@shows_shapes
class HardGradients(NamedTuple):
    """The gradients that the pullback of hard attention takes behind that of the context.

    Parameters
    ----------
    dlog_probability, dentropy : ndarray
        ``(..., Tq)`` each.
    """

    dlog_probability: Array
    dentropy: Array


@quiet
def reinforce(
    result: HardResult,
    reward: Real,
    baseline: Real = 0.0,
    *,
    reward_weight: float = 1.0,
    entropy_weight: float = 0.0,
    count: int | None = None,
) -> HardGradients:
    """The gradients of log-probability and entropy that make choices of more reward likelier.

    Parameters
    ----------
    result : HardResult
        What `attnc.hard_attention` returned.
    reward : array_like
        ``(..., Tq)`` with every axis; axes of size 1 broadcast. One reward for all choices of a
        sequence is ``reward[:, None]``. A constant: nothing is differentiated with respect to it.
    baseline : float or array_like, default 0
        Taken off the reward: a number, or an array as `reward`. Any that does not depend on the
        choice leaves the mean of the estimate as it is.
    reward_weight : float, default 1
        lambda_r.
    entropy_weight : float, default 0
        lambda_H: how much a large entropy of the weights is wished for.
    count : int, optional
        Over how many the mean is taken; unless given, over the numbers in `reward`.

    Returns
    -------
    HardGradients
        ``(dlog_probability, dentropy)``, so that ``pullback(dcontext, *reinforce(...))`` works.

    Raises
    ------
    TypeError
        If `result` is not that of hard attention, or an argument is no real number or array.
    ValueError
        If shapes do not fit.

    Notes
    -----
    Xu et al. 2015, "Show, attend and tell", eq. 11 to 13, for the loss
    ``-(1 / n) sum (lambda_r reward + lambda_H entropy)`` to be minimised::

        dlog_probability = -lambda_r (reward - baseline) / n        dentropy = -lambda_H / n

    Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement
    learning".

    Examples
    --------
    >>> import numpy as np, attnc
    >>> scores, value = np.zeros((2, 1, 3)), np.zeros((2, 3, 4))
    >>> result, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=0)
    >>> reward = (result.index == 1).astype(float)  # (2, 1)
    >>> gradients = attnc.estimators.reinforce(result, reward, baseline=0.5)
    >>> dscores, dvalue = pullback(None, *gradients)
    """
    where = "reinforce"
    if not isinstance(result, HardResult):
        raise TypeError(
            f"{where}: result must be what hard_attention returned, got {type(result).__name__}"
        )
    shape, dtype = result.log_probability.shape, result.log_probability.dtype
    rewards = _of_choices(where, "reward", reward, shape)
    if not isinstance(baseline, (int, float)) and np.ndim(baseline):
        taken_off: Any = _of_choices(where, "baseline", baseline, shape)
    else:
        rule = "be a number or an array"
        taken_off = number(where, "baseline", baseline, rule, lambda b: True)
    weights = {"reward_weight": reward_weight, "entropy_weight": entropy_weight}
    reward_weight, entropy_weight = (
        number(where, name, x, "be a finite number", math.isfinite) for name, x in weights.items()
    )
    over = max(rewards.size, 1) if count is None else count
    n = number(where, "count", over, "be a number > 0", lambda n: 0 < n < math.inf)
    dlog = np.broadcast_to(-reward_weight / n * (rewards.astype(np.float64) - taken_off), shape)
    chosen = result.index >= 0  # the others have no log-probability, whatever the reward is
    return HardGradients(
        np.where(chosen, dlog, 0).astype(dtype),
        np.where(chosen, -entropy_weight / n, 0).astype(dtype),
    )


def _of_choices(where, name, value, shape):
    """A real array with the axes of the choices, each of that size or 1."""
    array = real_array(where, name, value)
    if broadcasts(array.shape, shape):
        return array
    fix = ""
    if array.shape == shape[: array.ndim] and array.ndim < len(shape):
        axes = [":"] * array.ndim + ["None"] * (len(shape) - array.ndim)
        fix = f"; write {name}[{', '.join(axes)}]"
    raise ValueError(
        f"{where}: {name} must have {len(shape)} axes (..., Tq) = {shape}, each of that size or 1, "
        f"got {array.shape}{fix}"
    )


# ---- baselines -----------------------------------------------------------------------------------


class MovingAverageBaseline:
    """A baseline that follows the mean of the rewards: ``b <- decay b + (1 - decay) mean``.

    Xu et al. 2015, "Show, attend and tell", section 4.1, with decay 0.9.

    Parameters
    ----------
    decay : float, default 0.9
        In ``0 <= decay < 1``.
    initial : float, default 0
        The value before the first update.

    Attributes
    ----------
    value : float
        What is taken off the rewards.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number, or out of range.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> baseline = attnc.estimators.MovingAverageBaseline()
    >>> for _ in range(2):
    ...     print(round(baseline.update(np.array([1.0, 0.0])), 4))
    0.05
    0.095
    """

    def __init__(self, decay: float = 0.9, initial: float = 0.0) -> None:
        where = type(self).__name__
        rule = "lie in 0 <= decay < 1"
        self.decay = number(where, "decay", decay, rule, lambda d: 0 <= d < 1)
        self.value = number(where, "initial", initial, "be a finite number", math.isfinite)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(decay={self.decay!r}, initial={self.value!r})"

    def update(self, rewards: Real) -> float:
        """Take in the rewards of a batch, after its gradient was taken with the value before.

        Parameters
        ----------
        rewards : array_like
            Of any shape.

        Returns
        -------
        float
            The new value.

        Raises
        ------
        TypeError
            If the rewards are not real.
        ValueError
            If there are none, or their mean is not finite: the value stays as it is.
        """
        where = f"{type(self).__name__}.update"
        rewards = real_array(where, "rewards", rewards)
        mean = float(rewards.astype(np.float64).mean()) if rewards.size else math.nan
        if not math.isfinite(mean):
            raise ValueError(
                f"{where}: rewards must be finite numbers, at least one, got shape {rewards.shape} "
                f"of mean {mean}"
            )
        self.value = self.decay * self.value + (1 - self.decay) * mean
        return self.value


class LearnedBaseline(Layer):
    """A baseline that is predicted: ``b = features . weight + bias``, fitted to the rewards.

    The baseline of Mnih et al. 2014, "Recurrent models of visual attention", section 3: a linear
    value of the state, learned by regression. The gradient ends at the features, so that the state
    is not shaped by it.

    Parameters
    ----------
    size : int
        Size of the features.
    rng : None, int or numpy.random.Generator
        Taken by every layer with parameters; they start at 0 here, so that nothing is drawn.
    dtype : float32 or float64
        Of the parameters; the features are cast to it.

    Attributes
    ----------
    parameters : dict
        ``weight (size,)``, ``bias ()``.

    Raises
    ------
    TypeError, ValueError
        If size is not a positive integer, or an argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> baseline = attnc.estimators.LearnedBaseline(1)
    >>> optimizer = attnc.optim.SGD(baseline, 0.5)
    >>> features, reward = np.array([[0.0], [1.0]]), np.array([1.0, 3.0])
    >>> for _ in range(200):
    ...     baseline.zero_grad()
    ...     loss = baseline.fit(features, reward)
    ...     optimizer.step()
    >>> baseline(features).round(2)
    array([1., 3.], dtype=float32)
    """

    def __init__(self, size: int, *, rng: Seed = None, dtype: DType = "float32") -> None:
        super().__init__(dtype)
        (self.size,) = positive(self, size=size)
        generator(type(self).__name__, rng)
        self.add_parameter("weight", np.zeros(self.size))
        self.add_parameter("bias", np.zeros(()))

    def __call__(self, features: Real, *, train: bool = False) -> Array:
        """Predict the reward.

        Parameters
        ----------
        features : array_like, shape (..., size)
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (...)

        Raises
        ------
        ValueError
            If the last axis of the features is not size.
        """
        return self._vjp(features, train=train)[0]

    @quiet
    def _vjp(self, features, *, train=False):
        given, features = features, self._real("features", features, ..., self.size)
        weight = self._parameters["weight"]
        value = features @ weight + self._parameters["bias"]
        shape = value.shape

        @quiet
        def pullback(dvalue=None):
            require_incoming(type(self).__name__, dvalue=dvalue)
            dvalue = self._real("dvalue", dvalue, *shape)
            rows = features.reshape(-1, self.size)
            self.add_gradient("weight", (dvalue.reshape(-1, 1) * rows).sum(axis=0))
            self.add_gradient("bias", dvalue.sum())
            return Gradients({"features": like(dvalue[..., None] * weight, given)})

        return value, pullback

    @quiet
    def fit(self, features: Real, rewards: Real) -> float:
        """Add the gradient of ``mean((b - reward)^2) / 2`` to `gradients`; an optimiser steps.

        Parameters
        ----------
        features : array_like, shape (..., size)
        rewards : array_like, shape (...)

        Returns
        -------
        float
            That loss.

        Raises
        ------
        ValueError
            If shapes do not fit.
        """
        value, pullback = self._vjp(features)
        off = value - self._real("rewards", rewards, *value.shape)
        pullback(off / max(off.size, 1))
        return float((off.astype(np.float64) ** 2).sum()) / (2 * max(off.size, 1))


@quiet
def leave_one_out(rewards: Real, axis: int = 0) -> Array:
    """For each of several draws the mean reward of the others, its baseline.

    Parameters
    ----------
    rewards : array_like
        The rewards of M >= 2 draws of the same choice along `axis`.
    axis : int, default 0

    Returns
    -------
    ndarray
        Of the shape of `rewards`; float64, or float32 for narrower floats.

    Raises
    ------
    TypeError
        If the rewards are not real.
    ValueError
        If there is no such axis, or fewer than two draws along it.

    Notes
    -----
    Kool, van Hoof and Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!". It needs
    no value of its own, and follows the difficulty of each example.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.estimators.leave_one_out(np.array([[1.0], [2.0], [6.0]]))
    array([[4. ],
           [3.5],
           [1.5]])
    """
    where = "leave_one_out"
    rewards = real_array(where, "rewards", rewards)
    if (
        not isinstance(axis, (int, np.integer))
        or isinstance(axis, bool)
        or not -rewards.ndim <= axis < rewards.ndim
    ):
        raise ValueError(
            f"{where}: axis must be one of the {rewards.ndim} axes of rewards, got {axis!r}"
        )
    count = rewards.shape[axis]
    if count < 2:
        raise ValueError(
            f"{where}: rewards must have at least 2 draws along axis {axis}, got shape "
            f"{rewards.shape}"
        )
    narrow = rewards.dtype.kind not in "iu" and rewards.dtype.itemsize <= 4
    dtype = np.float32 if narrow else np.float64
    total = rewards.sum(axis=axis, keepdims=True, dtype=np.float64)
    return np.asarray((total - rewards.astype(np.float64)) / (count - 1)).astype(dtype)


# ---- how good an estimate is ---------------------------------------------------------------------


class GradientError(NamedTuple):
    """What `gradient_error` returns.

    Parameters
    ----------
    bias : float
        Length of the difference between the mean of the estimates and the exact gradient.
    standard_error : float
        How large `bias` is by chance alone where there is none: the root of ``variance / samples``.
    variance : float
        Mean squared length of the difference between an estimate and their mean.
    length : float
        Of the exact gradient, to hold the others against.
    """

    bias: float
    standard_error: float
    variance: float
    length: float


def gradient_error(
    estimate: Callable[[np.random.Generator], Real],
    exact: Real,
    samples: int = 1000,
    *,
    rng: Seed = None,
) -> GradientError:
    """Bias and variance of an estimate of a gradient, from many of them.

    Parameters
    ----------
    estimate : callable
        ``estimate(rng)``: one estimate, an array of the shape of `exact`, from a generator.
    exact : array_like
        The gradient of the mean, which for a few keys is a sum over all choices
        (`attnc.hard_attention` with `index`).
    samples : int, default 1000
        How many estimates to take, at least 2.
    rng : None, int or numpy.random.Generator

    Returns
    -------
    GradientError

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong kind, an estimate has another shape than `exact`, or `samples`
        is not an integer of 2 or more.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> error = attnc.estimators.gradient_error(
    ...     lambda rng: 1 + 0.5 * rng.standard_normal(3), np.ones(3), 400, rng=0
    ... )
    >>> error.bias < 3 * error.standard_error, 0.6 < error.variance < 0.9
    (True, True)
    """
    where = "gradient_error"
    exact = real_array(where, "exact", exact).astype(np.float64)
    if isinstance(samples, bool) or not isinstance(samples, (int, np.integer)) or samples < 2:
        raise ValueError(f"{where}: samples must be an integer >= 2, got {samples!r}")
    rng = generator(where, rng)
    mean, squares = np.zeros_like(exact), 0.0
    for k in range(samples):  # Welford 1962: no difference of large sums
        got: Any = real_array(where, "an estimate", estimate(rng)).astype(np.float64)
        if got.shape != exact.shape:
            raise ValueError(
                f"{where}: an estimate must have the shape of exact, {exact.shape}, got {got.shape}"
            )
        off = got - mean
        mean += off / (k + 1)
        squares += float((off * (got - mean)).sum())
    variance = squares / (samples - 1)
    bias, length = (float(np.sqrt((x**2).sum())) for x in (mean - exact, exact))
    return GradientError(bias, math.sqrt(variance / samples), variance, length)

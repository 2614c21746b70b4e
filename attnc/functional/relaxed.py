"""A choice of one key that plain gradients go through: not those of what is computed, but near.

Both functions look at one key (`hard_attention`) or nearly one, and take the gradient of the scores
from the soft attention beside it. `attnc.estimators` has them, among the other ways to train a
choice.
"""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple, Unpack

import numpy as np

from attnc.arrays import computing_dtype, flag, like, number, quiet, real_array, sum_to
from attnc.functional.attention import MECHANISMS, _dropout_key, attend
from attnc.functional.hard import RECORD, hard_attention
from attnc.functional.options import ScoreOptions, outside, takes_options
from attnc.gradients import shows_shapes
from attnc.registry import Output, record_of, register
from attnc.typing import Array, Integers, Real, Seed

__all__ = ["gumbel_softmax", "straight_through"]

_OPTIONAL = RECORD.optional


@contextlib.contextmanager
def _named(where):
    """Errors of the functions inside, under the name of the one that the user called."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error)
        for inner in ("attend: ", "hard_attention: "):
            text = text.removeprefix(inner)
        raise type(error)(f"{where}: {text.removeprefix(where + ': ')}") from None


def _both(scores, value, how, options, **soft_options):
    """Hard attention and the soft one beside it: (hard, soft, saved, static)."""
    hard, *hard_state = record_of(hard_attention).forward(scores, value, **how, **options)
    soft, *soft_state = record_of(attend).forward(scores, value, **options, **soft_options)
    (hard_saved, hard_static), (soft_saved, soft_static) = hard_state, soft_state
    return hard, soft, (*hard_saved, *soft_saved), (len(hard_saved), hard_static, soft_static)


def _both_backward(saved, static, dcontext, dweights=None):
    """By name: the gradients of the soft one, and of the values those of the hard one."""
    count, hard_static, soft_static = static
    soft, hard = record_of(attend), record_of(hard_attention)
    found = soft.backward(saved[count:], soft_static, dcontext, dweights, None)
    found = dict(zip(soft.arrays, found, strict=True))
    if dcontext is not None:
        found["value"] = hard.backward(saved[:count], hard_static, dcontext, None, None)[1]
    return found


# ---- straight-through ----


@shows_shapes
class StraightThroughResult(NamedTuple):
    """What `straight_through` returns."""

    context: Array
    index: Array  # type: ignore[assignment]  # in the place of tuple's own


def straight_through(
    scores: Real,
    value: Real,
    *,
    rng: Seed = None,
    sample: bool = True,
    index: Integers | None = None,
    **options: Unpack[ScoreOptions],
) -> StraightThroughResult:
    """Hard attention whose scores get the gradient that soft attention would give them.

    Parameters
    ----------
    scores : array_like
        ``(..., Tq, Tk)``.
    value : array_like
        ``(..., Tk, Dv)``.
    rng, sample, index
        How the key is chosen, as in `hard_attention`.
    mask, key_mask, key_lengths, query_lengths, bias, causal, causal_offset, window, softcap, slope
        As in `attend`.
    center, sigma, renormalize
        As in `hard_attention`.
    query_offsets, key_offsets
        Refused by name, as in `attend`.

    Returns
    -------
    context : ndarray
        ``(..., Tq, Dv)``, the value of the chosen key.
    index : ndarray of int64
        ``(..., Tq)``, the key, or -1 where none can be chosen.

    Raises
    ------
    TypeError, ValueError
        As `hard_attention` does.

    See Also
    --------
    gumbel_softmax : with a temperature
    attnc.hard_attention : with a gradient that is right on average

    Notes
    -----
    Bengio, Léonard and Courville 2013, "Estimating or propagating gradients through stochastic
    neurons for conditional computation", section 4. With weights w and the one-hot vector z of the
    choice, what is computed is ``context = z @ value`` and what is differentiated is
    ``(z + w - w') @ value``, w' being w taken for a constant. So the value gets the gradient of
    what is computed, and the scores get::

        ds_j = w_j (dcontext . v_j - sum_l w_l dcontext . v_l)

    It is the gradient of the mean loss only where the loss is linear in the context, and then every
    draw gives it; else it is off, on average too. What is not finite in a value that was not chosen
    reaches the gradients.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> scores, value = np.zeros((1, 2)), np.array([[1.0], [3.0]])
    >>> (context, index), pullback = attnc.vjp(
    ...     attnc.estimators.straight_through, scores, value, index=[1]
    ... )
    >>> float(context[0, 0])
    3.0
    >>> dscores, dvalue = pullback(np.ones((1, 1)))
    >>> dscores
    array([[-0.5,  0.5]])
    """
    return _straight_forward(scores, value, rng=rng, sample=sample, index=index, **options)[0]


def _straight_forward(scores, value, *, rng=None, sample=True, index=None, **options):
    how = {"rng": rng, "sample": sample, "index": index}
    with _named("straight_through"):
        hard, _, saved, static = _both(scores, value, how, _inside(options))
    return StraightThroughResult(hard.context, hard.index), saved, static


def _straight_backward(saved, static, dcontext):
    with _named("straight_through"):
        found = _both_backward(saved, static, dcontext)
    return tuple(found[name] for name in ("scores", "value", *_OPTIONAL))


def _inside(options):
    """With a center, its Gaussian inside the softmax: a key is drawn in proportion to both."""
    return options | {"renormalize": True} if options.get("center") is not None else options


# ---- Gumbel-softmax ----


@shows_shapes
class GumbelResult(NamedTuple):
    """What `gumbel_softmax` returns."""

    context: Array
    weights: Array


def gumbel_softmax(
    scores: Real,
    value: Real,
    *,
    temperature: float = 1.0,
    hard: bool = False,
    rng: Seed = None,
    **options: Unpack[ScoreOptions],
) -> GumbelResult:
    """Attention by a relaxed draw of one key: ``softmax((scores + noise) / temperature) @ value``.

    Parameters
    ----------
    scores : array_like
        ``(..., Tq, Tk)``.
    value : array_like
        ``(..., Tk, Dv)``.
    temperature : float, default 1
        In 1e-6..1e6. Towards 0 the weights become those of one key, drawn by ``softmax(scores)``,
        and the variance of the gradient grows.
    hard : bool, default False
        Look at the key of the largest weight alone; the gradient is that of the soft weights
        (straight-through), but for that of the values.
    rng : None, int or numpy.random.Generator, optional
        For the noise. The same int gives the same noise for every dtype and number of threads.
    mask, key_mask, key_lengths, query_lengths, bias, causal, causal_offset, window, softcap, slope
        As in `attend`; the noise is added to the score after all of them.
    center, sigma, renormalize
        As in `hard_attention`.
    query_offsets, key_offsets
        Refused by name, as in `attend`.

    Returns
    -------
    context : ndarray
        ``(..., Tq, Dv)``.
    weights : ndarray
        ``(..., Tq, Tk)``; with `hard` 1 at one key. The pullback takes `dweights` too.

    Raises
    ------
    TypeError, ValueError
        As `attend` does; if temperature is not a number in that range.

    See Also
    --------
    straight_through : without noise in the gradient
    attnc.hard_attention : with a gradient that is right on average

    Notes
    -----
    Jang, Gu and Poole 2017, "Categorical reparameterization with Gumbel-softmax", eq. 2; Maddison,
    Mnih and Teh 2017, "The concrete distribution". With noise ``g = -log(-log(u))``, u uniform in
    (0, 1), the largest of ``scores + g`` is a draw from ``softmax(scores)``. The noise is that of
    the counter-based generator Philox4x64-10 with the key of the call: pair number e, in C order of
    ``(..., Tq, Tk)``, takes word e.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> scores, value = np.zeros((1, 4)), np.eye(4)
    >>> result = attnc.estimators.gumbel_softmax(scores, value, temperature=0.1, rng=0)
    >>> result.weights.round(3)
    array([[0., 0., 0., 1.]])
    """
    how = {"temperature": temperature, "hard": hard, "rng": rng}
    return _gumbel_forward(scores, value, **how, **options)[0]


def gumbel_noise(key: int, shape: tuple[int, ...]) -> Array:
    """``-log(-log(u))`` with u uniform in (0, 1): float64 of this shape, by a 64-bit key."""
    bits = np.random.Philox(key=key).random_raw(math.prod(shape)) >> np.uint64(12)
    return -np.log(-np.log((bits + 0.5) / 2.0**52)).reshape(shape)  # one bit more rounds to 1


@quiet
def _gumbel_forward(scores, value, *, temperature=1.0, hard=False, rng=None, **options):
    where = "gumbel_softmax"
    rule = "be a number in 1e-6..1e6"
    temperature = number(where, "temperature", temperature, rule, lambda t: 1e-6 <= t <= 1e6)
    hard = flag(where, "hard", hard)
    arrays = [real_array(where, "scores", scores), real_array(where, "value", value)]
    bias = options.get("bias")
    if bias is not None:
        bias = real_array(where, "bias", bias)
        arrays.append(bias)
    with _named(where):
        _check(arrays, bias, options)
        lead = np.broadcast_shapes(*[x.shape[:-2] for x in arrays[:2]])
        dtype = computing_dtype(arrays)
        noise = gumbel_noise(_key(where, rng), (*lead, *arrays[0].shape[-2:])).astype(dtype)
        noise = noise if bias is None else noise + bias
        cooled = _inside(options) | {"bias": noise / dtype.type(temperature)}
        for name, power in (("softcap", 1), ("slope", 1), ("sigma", -0.5)):
            if options.get(name) is not None:
                cooled[name] = _divided(options[name], temperature**power)
        if options.get("center") is not None and options.get("sigma") is None:
            left = options["window"][0]
            cooled["sigma"] = left and left / 2 * math.sqrt(temperature)
        scaled = arrays[0].astype(dtype) / dtype.type(temperature)
        if hard:
            how = {"sample": False}
            drawn, soft, saved, rest = _both(scaled, value, how, cooled, return_weights=True)
            context, weights = drawn.context, _one_hot(drawn, soft.weights)
        else:
            soft, saved, rest = record_of(attend).forward(
                scaled, value, **cooled, return_weights=True
            )
            context, weights = soft
    result = np.empty(0, np.result_type(*arrays))
    static = rest, temperature, hard, len(saved)
    slope = options.get("slope")
    return (
        GumbelResult(like(context, result), like(weights, result)),
        (*saved, scores, options.get("bias"), slope if _is_array(slope) else None),
        static,
    )


def _check(arrays, bias, options):
    """Refuse what hard attention does, before the noise is spread over all axes."""
    shown = options if bias is None else options | {"bias": bias}
    hard_attention(*arrays[:2], sample=False, **_inside(shown))


def _key(where, rng):
    if rng is None or isinstance(rng, np.random.Generator):
        return _dropout_key(rng)
    rule = "rng must be None, a numpy.random.Generator or an integer in 0..2**64-1"
    if not isinstance(rng, (int, np.integer)) or isinstance(rng, bool):
        raise TypeError(f"{where}: {rule}, got {rng!r}")
    if not 0 <= int(rng) < 2**64:
        raise ValueError(f"{where}: {rule}, got {rng!r}")
    return int(rng)


def _is_array(x):
    return isinstance(x, (np.ndarray, list, tuple))


def _divided(x, by):
    """A slope or cap by a number; an array stays one, in its dtype where that is a float."""
    return np.asarray(np.asarray(x) / by) if _is_array(x) else x / by


def _one_hot(drawn, weights):
    """1 at the key that was chosen. A row without probabilities keeps what it has: NaN."""
    hot = np.arange(weights.shape[-1]) == drawn.index[..., None]
    none = drawn.index[..., None] < 0
    return np.where(none, weights, hot.astype(weights.dtype))


@quiet
def _gumbel_backward(saved, static, dcontext, dweights):
    rest, temperature, hard, count = static
    scores, bias, slope = saved[count:]
    with _named("gumbel_softmax"):
        if hard:
            found = _both_backward(saved[:count], rest, dcontext, dweights)
        else:
            record = record_of(attend)
            gradients = record.backward(saved[:count], rest, dcontext, dweights, None)
            found = dict(zip(record.arrays, gradients, strict=True))
    for name, argument in (("scores", scores), ("bias", bias), ("slope", slope)):
        if argument is None:
            found[name] = None
        else:
            shape = np.shape(argument)
            found[name] = like(sum_to(found[name], shape) / temperature, argument)
    return tuple(found[name] for name in ("scores", "value", *_OPTIONAL))


# ---- records ----


def _straight_shapes(scores, value, **options):
    context = MECHANISMS[attend].shapes(scores, value)
    of = tuple(name for name in context.of if name in RECORD.arrays)
    return StraightThroughResult(context._replace(of=of), Output(context.shape[:-1], "integer"))


def _gumbel_shapes(scores, value, **options):
    found = MECHANISMS[attend].shapes(scores, value, return_weights=True)
    of = "scores", "value", "bias"
    return GumbelResult(found.context._replace(of=of), found.weights._replace(of=of))


_STRAIGHT = (_straight_forward, _straight_backward, _straight_shapes, ("dcontext",))
_GUMBEL = (_gumbel_forward, _gumbel_backward, _gumbel_shapes, ("dcontext", "dweights"))
for _function, (_forward, _backward, _shapes, _incoming) in (
    (straight_through, _STRAIGHT),
    (gumbel_softmax, _GUMBEL),
):
    takes_options(_function, without=outside(ScoreOptions))
    register(
        _function,
        required=("scores", "value"),
        optional=_OPTIONAL,
        incoming=_incoming,
        positional=1,
        forward=_forward,
        backward=_backward,
        outputs=_shapes,
        fixed=[name for name in RECORD.fixed if name != "index" or _function is straight_through],
        leading=[
            name for name in RECORD.leading if name != "index" or _function is straight_through
        ],
    )

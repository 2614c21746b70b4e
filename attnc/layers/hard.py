"""Hard attention as a layer: `HardAttention`, over any score, sampled in training."""

from __future__ import annotations

import functools
from functools import partial
from typing import Any, ClassVar, Unpack

import numpy as np

from .. import functional
from ..arrays import broadcasts, flag, generator, like, number, quiet, sum_to, values_of
from ..functional.decoder import check_choice
from ..functional.hard import HardResult
from ..functional.options import Pairs, ScoreOptions, outside, takes_options
from ..gradients import Gradients, require_incoming, vjp
from ..typing import Array, DType, Integers, Real, Seed
from .attention import (
    AdditiveAttention,
    CosineAttention,
    DotProductAttention,
    MultiplicativeAttention,
    for_function,
    of_options,
)
from .base import Layer, positive

WITHOUT = outside(ScoreOptions)


class HardAttention(Layer):
    """Attention to one key a query: drawn in training, the best or the mean of all at evaluation.

    Xu et al. (2015), "Show, attend and tell: neural image caption generation with visual
    attention", section 4.1. With the scores s of any of the attention layers the key k_i is drawn
    from ``softmax(s_i)`` and the context is ``v_k``. What trains the scores is the gradient of the
    log-probability of the choice (REINFORCE)::

        result, pullback = attnc.vjp(attention, state, memory, train=True, rng=rng)
        loss = ...                                    # of result.context
        gradients = attnc.estimators.reinforce(result, reward, baseline)
        dstate, dmemory = pullback(dcontext, *gradients)

    In training one coin a call, so one a minibatch, replaces the draw by the soft context, as the
    authors do to make the estimate less noisy. Then the gradient of the context goes to the scores,
    and `index` is -1 and the log-probability 0 for every query.

    Parameters
    ----------
    query_size, key_size : int
        Sizes of a query and of a key; equal ones for "dot" and "cosine".
    score : {"additive", "multiplicative", "dot", "cosine"}
        As in the layers of these names; "dot" is Luong's plain dot.
    hidden_size : int, optional
        Of the additive score; query_size unless given.
    soft_probability : float, default 0.5
        In ``0 <= soft_probability <= 1``: how probable the soft context is in training, the
        ``semi_sampling_p`` of the authors' program.
    evaluation : {"largest", "soft"}
        Without ``train=True``: the key of the largest weight, or the mean of all values.
    rng : None, int or numpy.random.Generator
        Initial parameters.
    dtype : float32 or float64
        Of the parameters; the inputs are cast to it.

    Attributes
    ----------
    attention : Layer
        The layer whose score it is.
    parameters : dict
        Of that layer: ``attention.<name>``.

    Raises
    ------
    ValueError
        If a size is not a positive integer, sizes are not equal where they must be, or another
        argument is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    See Also
    --------
    attnc.hard_attention : over scores of your own
    attnc.estimators : baselines

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attention = attnc.HardAttention(4, 6, soft_probability=0, rng=0)
    >>> state, memory = np.ones((2, 1, 4)), np.ones((2, 5, 6))
    >>> result, pullback = attnc.vjp(attention, state, memory, train=True, rng=1)
    >>> reward = np.array([[1.0], [0.0]])  # (2, 1), as result.index
    >>> gradients = attnc.estimators.reinforce(result, reward, baseline=0.5)
    >>> dstate, dmemory = pullback(np.ones((2, 1, 6)), *gradients)  # adds to attention.gradients
    >>> dmemory.shape
    (2, 5, 6)
    """

    _scores: ClassVar[dict[str, Any]] = {
        "additive": functional.additive_scores,
        "multiplicative": functional.multiplicative_scores,
        "dot": functional.dot_product_scores,
        "cosine": functional.cosine_scores,
    }

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        score: str = "additive",
        hidden_size: int | None = None,
        soft_probability: float = 0.5,
        evaluation: str = "largest",
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        where = type(self).__name__
        self.query_size, self.key_size = positive(self, query_size=query_size, key_size=key_size)
        check_choice(where, "score", score, tuple(self._scores))
        check_choice(where, "evaluation", evaluation, ("largest", "soft"))
        self.score = score
        self.evaluation = evaluation
        rule = "lie in 0 <= soft_probability <= 1"
        self.soft_probability = number(
            where, "soft_probability", soft_probability, rule, lambda p: 0 <= p <= 1
        )
        if hidden_size is not None and score != "additive":
            raise self._error(f"hidden_size must be None with score={score!r}, got {hidden_size!r}")
        if score in ("dot", "cosine") and self.query_size != self.key_size:
            raise self._error(
                f"key_size must be query_size with score={score!r}, got query_size "
                f"{self.query_size} and key_size {self.key_size}"
            )
        self.hidden_size = hidden_size
        sizes, rng = (self.query_size, self.key_size), generator(where, rng)
        self.attention: Any
        if score == "additive":
            size = self.query_size if hidden_size is None else hidden_size
            (size,) = positive(self, hidden_size=size)
            self.attention = AdditiveAttention(*sizes, size, rng=rng, dtype=dtype)
        elif score == "multiplicative":
            self.attention = MultiplicativeAttention(*sizes, rng=rng, dtype=dtype)
        elif score == "dot":
            self.attention = DotProductAttention(1.0, dtype=dtype)
        else:
            self.attention = CosineAttention(dtype=dtype)

    @partial(takes_options, without=WITHOUT)
    def __call__(
        self,
        query: Real,
        key: Real,
        value: Real | None = None,
        *,
        train: bool = False,
        rng: Seed = None,
        index: Integers | None = None,
        **options: Unpack[ScoreOptions],
    ) -> HardResult:
        """Attend: compute, and remember nothing.

        Parameters
        ----------
        query : array_like, shape (..., Tq, query_size)
        key : array_like, shape (..., Tk, key_size)
        value : array_like, shape (..., Tk, Dv), optional
            The keys themselves unless given.
        train : bool
            Whether to draw the keys, or by the coin to take the soft context.
        rng : None, int or numpy.random.Generator
            For coin and draws.
        index : array_like of int, optional
            ``(..., Tq)``: the keys themselves, as in `attnc.hard_attention`, without a coin.
        mask, key_mask, key_lengths, query_lengths
            As in `attnc.functional`; a mask is boolean and True where attending is allowed.
        bias, causal, causal_offset, window, center, sigma, renormalize, softcap, slope
            As in `attnc.functional`.
        query_offsets, key_offsets : None
            Refused by name.

        Returns
        -------
        HardResult
            ``(context, index, log_probability, entropy)``, as of `attnc.hard_attention`; where the
            context is soft, index is -1 and log_probability 0.

        Raises
        ------
        TypeError, ValueError
            As the functions do, naming the argument and the fix.
        """
        return self._vjp(query, key, value, train=train, rng=rng, index=index, **options)[0]

    @quiet
    def _vjp(self, query, key, value=None, *, train=False, rng=None, index=None, **given):
        given_arrays = query, key, value
        query = self._real("query", query, ..., "Tq", self.query_size)
        key = self._real("key", key, ..., "Tk", self.key_size)
        value = key if value is None else self._real("value", value, ..., "Tk", "Dv")
        train = flag(type(self).__name__, "train", train)
        for name in given:
            if name in WITHOUT:
                raise self._error(
                    f"there is no argument {name!r}; one key has all the weight", TypeError
                )
        options = for_function(self, False, None, given)
        own = query.shape  # masks are of the axes of all three
        if query.ndim == value.ndim:
            try:
                lead = np.broadcast_shapes(query.shape[:-2], value.shape[:-2])
            except ValueError:
                raise self._error(
                    "value must have the leading axes of query or axes of 1, got query "
                    f"{query.shape} and value {value.shape}"
                ) from None
            query = np.broadcast_to(query, (*lead, *own[-2:]))
        scores, scores_back = self._scores_of(query, key, options)
        soft, how = self._mode(train, rng, index)
        result, hard_back = vjp(functional.hard_attention, scores, value, **how, **options)
        soft_back = None
        if soft:
            inside = {"renormalize": True} if options.get("center") is not None else {}
            attend: Any = functional.attend
            context, soft_back = vjp(attend, scores, value, **options | inside)
            zero = np.zeros_like(result.log_probability)
            result = HardResult(context, np.full_like(result.index, -1), zero, result.entropy)

        @quiet
        def pullback(dcontext=None, dlog_probability=None, dentropy=None):
            incoming = {"dlog_probability": dlog_probability, "dentropy": dentropy}
            require_incoming(type(self).__name__, dcontext=dcontext, **incoming)
            parts = []
            if soft_back is not None and dcontext is not None:
                parts.append(soft_back(dcontext))
            if soft_back is None:
                parts.append(hard_back(dcontext, **incoming))
            elif dentropy is not None or not parts:  # a choice that was not made has no probability
                parts.append(hard_back(dentropy=zero if dentropy is None else dentropy))
            grads = {
                name: sum(part[name] for part in parts[1:]) + parts[0][name]
                for name in vars(parts[0])
            }
            of_scores = scores_back(grads["scores"])
            dquery, dkey = sum_to(of_scores.query, own), of_scores.key
            required = {"query": like(dquery, given_arrays[0])}
            if given_arrays[2] is None:
                required["key"] = like(dkey + grads["value"], given_arrays[1])
            else:
                required["key"] = like(dkey, given_arrays[1])
                required["value"] = like(grads["value"], given_arrays[2])
            return Gradients(required, of_options(Gradients(grads), given))

        return result, pullback

    def _mode(self, train, rng, index):
        """Whether the context is soft, and how a key is chosen."""
        if index is not None:
            return False, {"index": index}
        if not train:
            return self.evaluation == "soft", {"sample": False}
        rng = generator(type(self).__name__, rng)  # of which an int is no key of its own here
        if self.soft_probability and rng.random() < self.soft_probability:
            return True, {"sample": False}
        return False, {"rng": rng}

    def _scores_of(self, query, key, options):
        """The scores, and the way back, which adds to the gradients of the parameters."""
        layer, parameters = self.attention, self.attention._parameters
        arrays = [parameters[name] for name in layer._positional]
        more = {name: parameters[name] for name in layer._keywords if name in parameters}
        if self.score == "dot":
            more["scale"] = layer.scale
        pairs = pairs_of(options, query, key.shape[-2])
        function = self._scores[self.score]
        scores, back = vjp(function, query, key, *arrays, **more, **pairs)

        def scores_back(dscores):
            grads = back(dscores)
            for name in parameters:
                layer.add_gradient(name, grads[name])
            return grads

        return scores, scores_back


def pairs_of(options: dict[str, Any], query: Array, Tk: int) -> dict[str, Any]:
    """Of options of attention those that say which pairs are allowed, for the functions of scores.

    A bias of -inf and a window around a center become a mask: NaN behind them is not read either.
    What is wrong stays as it is, for the functions to refuse.
    """
    pairs = {name: x for name, x in options.items() if name in Pairs.__annotations__}
    masks, bias = [], options.get("bias")
    if bias is not None and np.isneginf(values_of(bias)).any():
        masks.append(values_of(bias) != -np.inf)
    if options.get("center") is not None:
        masks.append(_window_mask(options["center"], pairs.pop("window", None), query, Tk))
    if pairs.get("mask") is not None:
        masks.append(np.asarray(pairs["mask"]))
    if len(masks) > 1 or (masks and pairs.get("mask") is None):
        if all(mask.dtype == bool and mask.ndim == query.ndim for mask in masks):
            pairs["mask"] = functools.reduce(np.logical_and, masks)
    causal = pairs.get("causal", False)
    if isinstance(causal, (bool, np.bool_)) and not causal and pairs.get("window") is None:
        pairs.pop("causal_offset", None)
    return pairs


def _window_mask(center, window, query, Tk):
    """Which keys the window around each center holds; all where the center is NaN."""
    center = np.asarray(values_of(center))
    fits = isinstance(window, (tuple, list)) and len(window) == 2
    fits &= center.dtype.kind in "fiu"
    if not fits or (center.ndim and not broadcasts(center.shape, query.shape[:-1])):
        return np.ones((1,) * query.ndim, bool)
    center = center.astype(np.float64)
    ahead = np.arange(Tk) - np.floor(center)[..., None]
    ahead = ahead.reshape(ahead.shape if center.ndim else (1,) * (query.ndim - 1) + (Tk,))
    inside = ~np.isinf(ahead)  # an infinite center has no window
    for side, distance in zip(window, (-ahead, ahead), strict=True):
        if isinstance(side, (int, np.integer)):
            inside &= ~(distance > side)
    return inside

"""Attention in plain NumPy: the formulas as the papers write them, and their derivatives by hand.

Every attention function of `attnc.functional`, and every one of its scores alone, stands here once
more, under the same name and with the same options. `vjp` gives the gradients.

All mechanisms are one computation, `_attention` below. They differ only in how a query matches a
key:

    score    s_ij = match(q_i, k_j)              its mechanism
    logit    l_ij = softcap(s_ij) - slope |j - p_i| + bias_ij
    weight   w_ij = exp(l_ij - lse_i) g_ij       0 where query i may not attend to key j
             lse_i = log (exp(sink) + sum_j exp(l_ij))    over the keys that i may attend to
             g_ij = exp(-(j - center_i)^2 / (2 sigma^2))    1 without a center; renormalised, its
                    logarithm is added to the logit instead
    context  c_i  = sum_j dropout(w_ij) v_j

Shapes, with i over queries and j over keys: query (..., Tq, Dq), key (..., Tk, Dk), value
(..., Tk, Dv), scores and weights (..., Tq, Tk), lse (..., Tq), context (..., Tq, Dv). Leading axes
of size 1 broadcast.

The options that all functions share:

    mask           (..., Tq, Tk) bool   True: this query may attend to this key
    key_mask       (..., Tk) bool       True: every query may attend to this key
    key_lengths    (...) or int         keys j < length are valid
    query_lengths  (...) or int         queries i >= length are padding and attend to nothing
    causal         bool                 query i is at position p = i + causal_offset, sees j <= p
    causal_offset  (...) or int         Tk - Tq unless given: the last query sees the last key
    window         (left, right)        p - left <= j <= p + right; None: open on that side
    center         (..., Tq) or number  the window has p = floor(center): Luong et al. 2015, eq. 10
    sigma          number               of the Gaussian around it; left / 2 unless given; inf: none
    renormalize    bool                 the Gaussian is part of the softmax
    bias           (..., Tq, Tk)        added to the capped score; -inf there is mask False
    softcap        c                    c tanh(s / c) in place of s
    slope          (...) or number      taken off the score for each step between j and p
    sink           (...) or number      a logit of every query that has no value
    normalizer     name                 "sparsemax" or "entmax15" in the place of the softmax
    dropout, rng                        drop a weight with this probability; None, int or Generator
    query_offsets, key_offsets          (B + 1): sequence b has the rows from offset b to the next
    return_weights, return_lse          return a named tuple: context, weights, lse as asked for
    dtype                               what to compute in: float64 unless given

What is masked is not read: a NaN behind a mask adds nothing to any output or gradient. A query that
may attend to nothing has context 0, weights 0, lse -inf (or the sink), and adds nothing to any
gradient (or to that of the sink alone).
"""

from __future__ import annotations

import collections
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from attnc.dual import Dual, all_finite, asarray, laid_out, value_of
from attnc.typing import Array, Function, Real

__all__ = [
    "additive_attention",
    "additive_scores",
    "attend",
    "cosine_attention",
    "cosine_scores",
    "dot_product_attention",
    "dot_product_scores",
    "multiplicative_attention",
    "multiplicative_scores",
    "vjp",
]


# ---- One computation for all mechanisms ----------------------------------------------------------


@np.errstate(all="ignore")  # inf and NaN are honest results here
def _attention(
    value, scores, score_gradients, compared, optional, *,
    mask=None, key_mask=None, key_lengths=None, query_lengths=None, bias=None, causal=False,
    causal_offset=None, window=None, center=None, sigma=None, renormalize=False, softcap=None,
    slope=None, sink=None, normalizer="softmax", dropout=0.0, rng=None, return_weights=False,
    return_lse=False,
):  # fmt: skip
    """Softmax attention over given scores: returns (output, pullback).

    `score_gradients(dscores, allowed)` returns the gradients of what the scores were computed from,
    by name: of the arguments, and of its `stages`, which are on the way to the scores. The dicts
    `compared` and `optional` hold the arguments that get a gradient, those that scores always need
    and the others.
    """
    dtype = scores.dtype
    value = asarray(value, dtype)
    rows = {name: compared[name] for name in ("scores", "query", "key") if name in compared}
    required = {**rows, "value": value, **compared}  # in the order of the signature
    lead = np.broadcast_shapes(scores.shape[:-2], value.shape[:-2])
    own_axes = scores.ndim - 2
    scores = np.broadcast_to(scores, lead + scores.shape[-2:])
    if bias is not None:
        bias = optional["bias"] = asarray(bias, dtype)
    slope, sink = (_number("slope", slope, dtype, optional), _number("sink", sink, dtype, optional))
    gaussian = None  # its factors of the weights
    if center is not None:
        center = _number("center", center, np.float64, optional)
        center = center.reshape(center.shape or (1,) * (scores.ndim - 1))
        from_center = (np.arange(scores.shape[-1]) - center[..., None]).astype(dtype)
        from_center = np.where(_is_far(center)[..., None], 0, from_center)
        sigma = dtype.type(window[0] / 2 if sigma is None else sigma)
        log_gaussian = -((from_center / sigma) ** 2) / 2
        if not renormalize:
            gaussian = np.exp(log_gaussian)

    capped = scores if softcap is None else softcap * np.tanh(scores / softcap)
    logits = capped
    if slope is not None:
        distance = _distance(scores.shape, causal_offset).astype(dtype)
        logits = logits - slope[..., None, None] * distance
    if bias is not None:
        logits = logits + bias
    if center is not None:  # one that is NaN makes its row NaN
        logits = logits + np.where(np.isnan(center), np.nan, 0)[..., None].astype(dtype)
        if renormalize:
            logits = logits + log_gaussian
    allowed = _allowed(
        scores.shape,
        mask,
        key_mask,
        key_lengths,
        query_lengths,
        bias,
        causal,
        causal_offset,
        window,
        center,
    )

    masked = np.where(allowed, logits, -np.inf)
    top = value_of(masked).max(axis=-1, keepdims=True, initial=-np.inf)
    allowed &= top != -np.inf  # a row of nothing but -inf has no weight to give to any key
    sinks = np.zeros((), dtype)  # exp(sink - top), of every query that is no padding
    if sink is not None:
        logit = np.where(_is_query(scores.shape, query_lengths), sink[..., None, None], -np.inf)
        top = np.maximum(top, value_of(logit))
        sinks = np.where(logit == -np.inf, 0, np.exp(logit - top))
    powers = np.where(allowed, np.exp(masked - top), 0)  # of numbers <= 0: cannot overflow
    total = powers.sum(axis=-1, keepdims=True) + sinks
    softmax = np.where(allowed, powers / total, 0)
    if normalizer != "softmax":
        softmax = np.where(allowed, _sparse(normalizer, masked - top), 0)
    weights = softmax if gaussian is None else np.where(allowed, softmax * gaussian, 0)
    lse = np.where(total == 0, -np.inf, top + np.log(total))[..., 0]

    kept = _dropout_factors(scores.shape, dropout, rng).astype(dtype) if dropout else dtype.type(1)
    context = _sum_over_pairs(weights * kept, value, allowed)
    if sink is not None:  # its value is 0, and 0 times NaN is NaN
        sinks = np.where(sinks == 0, 0, sinks / total)
        context = context + 0 * sinks

    outputs = {"context": context}
    if return_weights:
        outputs["weights"] = weights
    if return_lse:
        outputs["lse"] = lse
    output = context
    if len(outputs) > 1:
        output = collections.namedtuple("Attention", outputs)(**outputs)

    def spread(name, x):
        """What there is of every pair has the leading axes of the scores."""
        return np.broadcast_to(x, lead + x.shape[own_axes:]) if name in OF_PAIRS else x

    @np.errstate(all="ignore")
    def from_scores_on(dcontext=None, dweights=None, dlse=None):
        """The gradient at every stage from the scores on, of what `pullback` says."""
        dcontext = np.zeros_like(context) if dcontext is None else asarray(dcontext, dtype)
        dweights = np.zeros_like(weights) if dweights is None else asarray(dweights, dtype)
        dlse = np.zeros_like(lse) if dlse is None else asarray(dlse, dtype)

        dweights = np.where(allowed, (dcontext @ _T(value)) * kept + dweights, 0)
        mean = (weights * dweights).sum(axis=-1, keepdims=True)
        dsoftmax = dweights if gaussian is None else np.where(allowed, gaussian * dweights, 0)
        dlogits = np.where(allowed, softmax * (dsoftmax - mean + dlse[..., None]), 0)
        if normalizer != "softmax":
            dlogits = _sparse_gradient(normalizer, weights, dweights)
        dscores = dlogits
        if softcap is not None:
            dscores = np.where(allowed, dlogits * (1 - np.tanh(scores / softcap) ** 2), 0)
        return {
            "scores": dscores,
            "capped": dlogits,
            "masked": dlogits,
            "softmax": dsoftmax,
            "gaussian": dweights if gaussian is None else np.where(allowed, softmax * dweights, 0),
            "weights": dweights,
            "context": dcontext,
            "sinks": dlse[..., None] - mean,  # its weight gets no gradient of its own
        }

    @np.errstate(all="ignore")
    def pullback(dcontext=None, *, dweights=None, dlse=None):
        """The gradients of sum(dcontext * context) + sum(dweights * weights) + sum(dlse * lse)."""
        at = from_scores_on(dcontext, dweights, dlse)
        dvalue = _sum_over_pairs(_T(weights * kept), at["context"], _T(allowed))
        gradients = {
            **score_gradients(at["scores"], allowed),
            "value": dvalue,
            "bias": at["masked"],
        }
        if "slope" in optional:
            gradients["slope"] = -(at["masked"] * distance).sum(axis=(-2, -1))
        if "sink" in optional:
            gradients["sink"] = np.where(sinks == 0, 0, sinks * at["sinks"])[..., 0].sum(axis=-1)
        if "center" in optional:
            dlog = at["masked"] if gaussian is None else weights * at["weights"]
            dcenter = np.where(allowed, dlog * from_center / sigma / sigma, 0)
            gradients["center"] = dcenter.sum(axis=-1)
        arguments = {**required, **optional}
        return Gradients(
            {name: _sum_to(gradients[name], array.shape) for name, array in arguments.items()},
            required,
        )

    @np.errstate(all="ignore")
    def stage_gradients(dcontext=None, dweights=None, dlse=None):
        """The gradient at every stage, of what `pullback` says."""
        at = from_scores_on(dcontext, dweights, dlse)
        before = score_gradients(at["scores"], allowed)
        return at | {
            name: _sum_to(before[name], pullback.stages[name].shape)
            for name in score_gradients.stages
        }

    # For `attnc.stages`, which shows what is on the way.
    pullback.stages = {
        **{name: spread(name, x) for name, x in score_gradients.stages.items()},
        "scores": scores,
        "capped": capped,
        "masked": masked,
        "softmax": softmax,
        "weights": weights,
        "context": context,
    }
    if gaussian is not None:
        pullback.stages["gaussian"] = np.broadcast_to(gaussian, scores.shape)
    if dropout:
        pullback.stages["kept"] = kept
    pullback.allowed = allowed
    pullback.stage_gradients = stage_gradients
    return output, pullback


def _sparse(normalizer, z):
    """Sparsemax or 1.5-entmax along the last axis, of logits whose largest is 0."""
    if isinstance(z, Dual):  # the way back is the way forward: the Jacobian is symmetric
        weights = _sparse(normalizer, z.value)
        return Dual(weights, laid_out(_sparse_gradient(normalizer, weights, z.tangent), weights))
    if z.shape[-1] == 0:
        return z
    squared = normalizer == "entmax15"
    z = z / 2 if squared else z
    ordered = -np.sort(-z, axis=-1)
    count = np.arange(1, z.shape[-1] + 1)
    if squared:  # Peters et al. 2019, algorithm 2: tau if the k largest were all
        mean = ordered.cumsum(axis=-1) / count
        variances = (ordered**2).cumsum(axis=-1) - count * mean**2
        taus = mean - np.sqrt(np.maximum((1 - variances) / count, 0))
        inside = taus <= ordered
    else:  # Martins and Astudillo 2016, algorithm 1
        sums = ordered.cumsum(axis=-1)
        taus = (sums - 1) / count.astype(z.dtype)
        inside = 1 + count * ordered > sums
    tau = np.take_along_axis(taus, inside.sum(axis=-1, keepdims=True) - 1, axis=-1)
    above = z - tau  # by rounding alone, where z is tau: then it is not inside
    weights = np.where(above > 4 * np.finfo(z.dtype).eps, above, 0) ** (2 if squared else 1)
    return np.where(np.isnan(z).any(axis=-1, keepdims=True), np.nan, weights).astype(z.dtype)


def _sparse_gradient(normalizer, weights, dweights):
    """r (dw - sum r dw / sum r), r = sqrt(w) (1.5-entmax), or 1 where w is not 0: what is 0 stays
    so, whatever its gradient is."""
    inside = weights != 0
    r = np.sqrt(weights) if normalizer == "entmax15" else inside + 0 * weights
    total = np.where(inside, r, 0).sum(axis=-1, keepdims=True)
    mean = np.where(inside, r * dweights, 0).sum(axis=-1, keepdims=True) / total
    return np.where(inside, r * (dweights - mean), 0)


class Gradients(tuple):
    """The gradients of the required arrays, in signature order; that of any array by its name."""

    def __new__(cls, gradients, required):
        self = super().__new__(cls, (gradients[name] for name in required))
        self.__dict__.update(gradients)
        return self


def _allowed(
    shape, mask, key_mask, key_lengths, query_lengths, bias, causal, causal_offset, window, center
):
    """Which query may attend to which key: the intersection of everything that was given."""
    Tq, Tk = shape[-2:]
    i, j = np.arange(Tq)[:, None], np.arange(Tk)
    allowed = np.ones(shape, bool)
    if mask is not None:
        allowed &= mask
    if key_mask is not None:
        allowed &= np.asarray(key_mask)[..., None, :]
    if key_lengths is not None:
        allowed &= j < np.asarray(key_lengths, int)[..., None, None]
    if query_lengths is not None:
        allowed &= i < np.asarray(query_lengths, int)[..., None, None]
    if bias is not None:
        allowed &= bias != -np.inf
    offset = np.asarray(Tk - Tq if causal_offset is None else causal_offset, int)
    position = i + offset[..., None, None]
    left, right = window or (None, None)
    if causal:
        allowed &= j <= position
    if center is not None:
        allowed &= ~(_is_far(center) & ~np.isnan(center))[..., None]
        position = np.floor(center)[..., None]
    if left is not None:
        allowed &= ~(position - j > left)  # all keys are near a center that is NaN
    if right is not None:
        allowed &= ~(j - position > right)
    return allowed


def _is_far(center):
    """Where no key is near it, or it is NaN."""
    return ~(np.abs(center) < 2.0**60)


def _number(name, given, dtype, optional):
    """A slope, sink or center as an array; one that is given as an array gets a gradient."""
    if given is None:
        return None
    number = asarray(given, dtype)
    if isinstance(given, (np.ndarray, Dual, list, tuple)):
        optional[name] = number
    return number


def _distance(shape, causal_offset):
    """|j - p|, where query i is at position p = i + offset."""
    Tq, Tk = shape[-2:]
    offset = np.asarray(Tk - Tq if causal_offset is None else causal_offset, int)
    return np.abs(np.arange(Tk) - (np.arange(Tq)[:, None] + offset[..., None, None]))


def _is_query(shape, query_lengths):
    """(..., Tq, 1): which queries are no padding."""
    Tq = shape[-2]
    lengths = np.asarray(Tq if query_lengths is None else query_lengths, int)
    return np.arange(Tq)[:, None] < lengths[..., None, None]


def _sum_over_pairs(pairs, rows, allowed):
    """`pairs @ rows` over the allowed pairs. Elsewhere pairs are 0, but 0 * NaN would not be."""
    if not all_finite(rows):  # most often in rows that nobody may attend to
        rows = np.where(allowed.any(axis=-2)[..., None], rows, 0)
    if all_finite(rows):
        return pairs @ rows
    return np.where(allowed[..., None], pairs[..., None] * rows[..., None, :, :], 0).sum(axis=-2)


def _used(query, key, allowed):
    """query and key with 0 in the rows that are in no allowed pair: those are not to be read."""
    query = np.where(allowed.any(axis=-1)[..., None], query, 0)
    key = np.where(allowed.any(axis=-2)[..., None], key, 0)
    return query, key


def _sum_to(gradient, shape):
    """Sum over the axes along which an argument of this shape was broadcast."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return gradient.sum(axis=axes, keepdims=True)


def _T(x):
    """Transpose the last two axes."""
    return np.swapaxes(x, -1, -2)


# ---- Dropout -------------------------------------------------------------------------------------


def _dropout_factors(shape, dropout, rng):
    """1 / (1 - dropout) where a weight is kept, 0 where it is dropped.

    Philox is a random function, not a random sequence: the word of pair (i, j) in batch element n
    depends on these three numbers and the key alone. So the kernels need not store the mask for
    backward, and threads may draw their parts of it in any order.
    """
    rng, first = rng if isinstance(rng, tuple) else (rng, 0)  # what batch element 0 counts as
    rng = _dropout_key(rng)
    key = int(rng) & 0xFFFFFFFF, int(rng) >> 32
    *lead, Tq, Tk = shape
    n = np.arange(first, first + math.prod(lead), dtype=np.uint64).reshape(*lead, 1, 1)
    i, block = np.arange(Tq)[:, None], np.arange(-(-Tk // 4))
    words = philox4x32(np.broadcast_arrays(block, i, n & 0xFFFFFFFF, n >> np.uint64(32)), key)
    words = words.reshape(*lead, Tq, 4 * block.size)[..., :Tk]
    return (words >= np.uint64(dropout * 2**32)) / (1 - dropout)


def _dropout_key(rng):
    """64 bits; an integer is the key itself."""
    if isinstance(rng, (int, np.integer)):
        return rng
    return np.random.default_rng(rng).integers(2**64, dtype=np.uint64)


def philox4x32(counter, key):
    """Philox4x32-10: four random 32-bit words, the last axis, from a counter of four, a key of two.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    low = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = (np.asarray(c).astype(np.uint64) for c in counter)
    k0, k1 = (np.uint64(k) for k in key)
    for _ in range(10):
        p0, p2 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1 = (p2 >> np.uint64(32)) ^ c1 ^ k0, p2 & low
        c2, c3 = (p0 >> np.uint64(32)) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3], axis=-1)


# ---- Packed batches: a loop over their sequences -------------------------------------------------


def _or_packed(with_pullback):
    """The same function, which also takes offsets."""

    @functools.wraps(with_pullback)
    def function(*arrays, query_offsets=None, key_offsets=None, **options):
        if query_offsets is None:
            return with_pullback(*arrays, **options)
        ends = query_offsets, query_offsets if key_offsets is None else key_offsets
        # An empty sequence in front, for there may be no other.
        slices = [(slice(0), slice(0))]
        slices += zip(*[map(slice, o[:-1], o[1:]) for o in ends], strict=True)
        return _packed(with_pullback, arrays, slices, **options)

    return function


def _packed(
    with_pullback, arrays, slices, *, key_mask=None, center=None, dropout=0.0, rng=None, **options
):
    """A call for each sequence, by its slices of the queries and of the keys."""
    query, key, value, *parameters = map(asarray, arrays)
    of_each = np.ndim(center) > 0 and np.shape(center)[-1] > 1  # a center of each query
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in (query, key, value)))
    if dropout:
        rng = _dropout_key(rng)
    calls = []
    for b, (i, j) in enumerate(slices, start=-1):
        own = {} if key_mask is None else {"key_mask": np.asarray(key_mask)[..., j]}
        if center is not None:
            own["center"] = asarray(center)[..., i] if of_each else center
        if dropout:  # as if the sequences were padded, to a batch (B, *lead)
            own |= {"dropout": dropout, "rng": (rng, max(b, 0) * math.prod(lead))}
        rows = query[..., i, :], key[..., j, :], value[..., j, :]
        calls.append(with_pullback(*rows, *parameters, **own, **options))
    outputs = [output for output, _ in calls]
    if isinstance(outputs[0], tuple):  # context and lse
        context, lse = zip(*outputs, strict=True)
        output = type(outputs[0])(np.concatenate(context, -2), np.concatenate(lse, -1))
    else:
        output = np.concatenate(outputs, -2)

    def pullback(dcontext=None, *, dlse=None):
        found = collections.defaultdict(list)
        for (i, _), (_, pull) in zip(slices, calls, strict=True):
            d = None if dcontext is None else asarray(dcontext)[..., i, :]
            of_lse = None if dlse is None else asarray(dlse)[..., i]
            for name, gradient in vars(pull(d, dlse=of_lse)).items():
                found[name].append(gradient)
        gradients = {
            name: np.concatenate(parts, -2) if name in ("query", "key", "value") else sum(parts)
            for name, parts in found.items()
            if not (name == "center" and of_each)
        }
        if len(gradients) < len(found):
            gradients["center"] = np.concatenate(found["center"], -1)
        return Gradients(gradients, tuple(gradients)[: len(arrays)])

    return output, pullback


# ---- The mechanisms ------------------------------------------------------------------------------

# OF_PAIRS are the stages before the scores that have a row or number for each query and key.
OF_PAIRS = "products", "units"


def _with_stages(**stages):
    """Name what a mechanism computes on the way to its scores, for `attnc.stages`; the function
    that is decorated returns the gradients of these, too."""

    def decorate(score_gradients):
        score_gradients.stages = stages
        return score_gradients

    return decorate


def differentiable(with_pullback: Function) -> Function:
    """The public function, which returns the output alone; `vjp` finds the pullback."""
    quiet = np.errstate(all="ignore")(with_pullback)

    @functools.wraps(with_pullback)
    def function(*arrays: Any, **options: Any) -> Any:
        return quiet(*arrays, **options)[0]

    function.with_pullback = quiet  # type: ignore[attr-defined]
    return function  # type: ignore[return-value]


def _mechanism(with_pullback: Function) -> Function:
    """As `differentiable`; the public function shows all options in its signature."""
    function = differentiable(_or_packed(with_pullback))
    *own, dtype, _ = inspect.signature(with_pullback).parameters.values()  # ..., dtype, **common
    core = inspect.signature(_attention).parameters.values()
    common = [option for option in core if option.kind is option.KEYWORD_ONLY]
    offsets = [common[0].replace(name=name) for name in ("query_offsets", "key_offsets")]
    shown = inspect.Signature([*own, *common, *offsets, dtype])
    function.__signature__ = shown
    return function


def vjp(function: Callable[..., Any], *arrays: Any, **options: Any) -> tuple[Any, Any]:
    """Run a function; return its output and its pullback (vector-Jacobian product).

    `pullback(dcontext=None, *, dweights=None, dlse=None)` returns the gradients of the required
    arrays as a tuple in signature order, and by name that of every real array that was passed::

        context, pullback = vjp(dot_product_attention, query, key, value, bias=bias)
        gradients = pullback(dcontext)
        dquery, dkey, dvalue = gradients
        dbias = gradients.bias

    Each has the shape of its argument. A scale has a gradient if it is a 0-d array. The pullback of
    another function takes the gradients of its outputs, in their order; that of a loss is 1 unless
    given.

    Parameters
    ----------
    function : a function of `attnc.reference`
    *arrays, **options
        As in a call of it.

    Returns
    -------
    (output, pullback)
    """
    return function.with_pullback(*arrays, **options)  # type: ignore[attr-defined]


@_mechanism
def dot_product_attention(
    query: Real,
    key: Real,
    value: Real,
    *,
    scale: Real | None = None,
    dtype: Any = np.float64,
    **common: Any,
) -> Any:
    """Dot-product attention::

        s_ij = scale * q_i . k_j        c_i = sum_j softmax_j(s_ij) v_j

    `scale` is 1 / sqrt(D) unless given: Vaswani et al. 2017, "Attention is all you need", eq. 1.
    With `scale=1` it is the "dot" of Luong et al. 2015, "Effective approaches to attention-based
    neural machine translation", section 3.1.

    Parameters
    ----------
    query, key, value : arrays (..., Tq, D), (..., Tk, D), (..., Tk, Dv)
    scale : scalar or 0-d array, optional
    **common
        The options that all functions share; see the module.

    Returns
    -------
    context (..., Tq, Dv), or a named tuple.
    """
    return _attention(value, *_dot_products(dtype, query, key, scale), **common)


def _dot_products(dtype, query, key, scale):
    query, key = _arrays(dtype, query, key)
    D = query.shape[-1] or 1  # without features every score is 0, not 0 / 0
    factor = 1 / np.sqrt(dtype(D)) if scale is None else asarray(scale, dtype)
    dots = query @ _T(key)

    @_with_stages(products=dots)
    def score_gradients(dscores, allowed):
        return {
            "products": factor * dscores,
            "query": factor * _sum_over_pairs(dscores, key, allowed),
            "key": factor * _sum_over_pairs(_T(dscores), query, _T(allowed)),
            "scale": np.where(allowed, dscores * dots, 0),
        }

    optional = {"scale": factor} if isinstance(scale, (np.ndarray, Dual)) else {}
    return factor * dots, score_gradients, {"query": query, "key": key}, optional


@_mechanism
def multiplicative_attention(
    query: Real, key: Real, value: Real, weight: Real, *, dtype: Any = np.float64, **common: Any
) -> Any:
    """Multiplicative attention::

        s_ij = q_i W k_j        c_i = sum_j softmax_j(s_ij) v_j

    The "general" of Luong et al. 2015, "Effective approaches to attention-based neural machine
    translation", section 3.1.

    Parameters
    ----------
    query, key, value : arrays (..., Tq, Dq), (..., Tk, Dk), (..., Tk, Dv)
    weight : array (Dq, Dk)
    **common
        The options that all functions share; see the module.

    Returns
    -------
    context (..., Tq, Dv), or a named tuple.
    """
    return _attention(value, *_bilinear_forms(dtype, query, key, weight), **common)


def _bilinear_forms(dtype, query, key, weight):
    query, key, weight = _arrays(dtype, query, key, weight)
    projected = query @ weight
    products = projected @ _T(key)

    @_with_stages(projected_query=projected, products=products)
    def score_gradients(dscores, allowed):
        q, _ = _used(query, key, allowed)
        dprojected = _sum_over_pairs(dscores, key, allowed)  # of q_i W
        return {
            "products": dscores,
            "projected_query": dprojected,
            "query": dprojected @ weight.T,
            "key": _sum_over_pairs(_T(dscores), q @ weight, _T(allowed)),
            "weight": _T(q) @ dprojected,
        }

    required = {"query": query, "key": key, "weight": weight}
    return products, score_gradients, required, {}


@_mechanism
def additive_attention(
    query: Real,
    key: Real,
    value: Real,
    score_vector: Real,
    *,
    query_weight: Real | None = None,
    key_weight: Real | None = None,
    score_bias: Real | None = None,
    dtype: Any = np.float64,
    **common: Any,
) -> Any:
    """Additive attention::

        s_ij = v . tanh(q_i Wq + k_j Wk + b)        c_i = sum_j softmax_j(s_ij) v_j

    Bahdanau et al. 2015, "Neural machine translation by jointly learning to align and translate"
    (arXiv 1409.0473), section A.1.2. There q_i is the decoder's last state s_(i-1), k_j and v_j are
    the encoder's annotation h_j, Wq and Wk are W_a and U_a transposed (here vectors are rows), v is
    v_a, and there is no b.

    Parameters
    ----------
    query, key, value : arrays (..., Tq, Dq), (..., Tk, Dk), (..., Tk, Dv)
    score_vector : array (H,)
        v.
    query_weight, key_weight : arrays (Dq, H), (Dk, H), optional
        Wq, Wk. None: the query (the key) is projected already, and its last axis is H.
    score_bias : array (H,), optional
        b.
    **common
        The options that all functions share; see the module.

    Returns
    -------
    context (..., Tq, Dv), or a named tuple.
    """
    parts = query, key, score_vector, query_weight, key_weight, score_bias
    return _attention(value, *_small_network(dtype, *parts), **common)


def _small_network(dtype, query, key, score_vector, query_weight, key_weight, score_bias):
    query, key, score_vector = _arrays(dtype, query, key, score_vector)
    optional = {"query_weight": query_weight, "key_weight": key_weight, "score_bias": score_bias}
    optional = {name: asarray(x, dtype) for name, x in optional.items() if x is not None}
    q = query @ optional["query_weight"] if "query_weight" in optional else query
    k = key @ optional["key_weight"] if "key_weight" in optional else key
    b = optional.get("score_bias", dtype(0))
    hidden = np.tanh(q[..., :, None, :] + k[..., None, :, :] + b)  # (..., Tq, Tk, H)
    projected = {"query": q, "key": k}
    projected = {f"projected_{n}": x for n, x in projected.items() if f"{n}_weight" in optional}

    @_with_stages(**projected, units=hidden)
    def score_gradients(dscores, allowed):
        pairs = allowed[..., None]
        dhidden = dscores[..., None] * score_vector
        dsum = np.where(pairs, dhidden * (1 - hidden**2), 0)  # of q_i Wq + k_j Wk + b
        dq, dk = dsum.sum(axis=-2), dsum.sum(axis=-3)
        dscore_vector = np.where(pairs, dscores[..., None] * hidden, 0)
        gradients = {"query": dq, "key": dk, "score_vector": dscore_vector, "score_bias": dsum}
        gradients |= {"units": dhidden, "projected_query": dq, "projected_key": dk}
        q, k = _used(query, key, allowed)
        if "query_weight" in optional:
            gradients["query"] = dq @ optional["query_weight"].T
            gradients["query_weight"] = _T(q) @ dq
        if "key_weight" in optional:
            gradients["key"] = dk @ optional["key_weight"].T
            gradients["key_weight"] = _T(k) @ dk
        return gradients

    required = {"query": query, "key": key, "score_vector": score_vector}
    return hidden @ score_vector, score_gradients, required, optional


@_mechanism
def cosine_attention(
    query: Real,
    key: Real,
    value: Real,
    *,
    scale: Real = 1.0,
    dtype: Any = np.float64,
    **common: Any,
) -> Any:
    """Cosine attention::

        s_ij = scale * q_i . k_j / (|q_i| |k_j|)        c_i = sum_j softmax_j(s_ij) v_j

    Content-based addressing of Graves et al. 2014, "Neural Turing machines", eqs. 5 and 6, where
    `scale` is called the key strength, beta. A vector of zeros has score 0 and gradient 0.

    Parameters
    ----------
    query, key, value : arrays (..., Tq, D), (..., Tk, D), (..., Tk, Dv)
    scale : scalar or 0-d array
    **common
        The options that all functions share; see the module.

    Returns
    -------
    context (..., Tq, Dv), or a named tuple.
    """
    return _attention(value, *_cosines(dtype, query, key, scale), **common)


def _cosines(dtype, query, key, scale):
    query, key = _arrays(dtype, query, key)
    factor = asarray(scale, dtype)
    directions = _unit(query)[0], _unit(key)[0]
    cosines = directions[0] @ _T(directions[1])

    @_with_stages(query_direction=directions[0], key_direction=directions[1], products=cosines)
    def score_gradients(dscores, allowed):
        q, k = _used(query, key, allowed)
        (q, q_norm), (k, k_norm) = _unit(q), _unit(k)
        dq = factor * _sum_over_pairs(dscores, k, allowed)
        dk = factor * _sum_over_pairs(_T(dscores), q, _T(allowed))
        of_directions = {"query_direction": dq, "key_direction": dk}
        # Only turning a vector changes its cosines: drop what points along the vector itself.
        dq = dq - q * (q * dq).sum(axis=-1, keepdims=True)
        dk = dk - k * (k * dk).sum(axis=-1, keepdims=True)
        return {
            **of_directions,
            "products": factor * dscores,
            "query": np.where(q_norm == 0, 0, dq / q_norm),
            "key": np.where(k_norm == 0, 0, dk / k_norm),
            "scale": np.where(allowed, dscores * cosines, 0),
        }

    optional = {"scale": factor} if isinstance(scale, (np.ndarray, Dual)) else {}
    return factor * cosines, score_gradients, {"query": query, "key": key}, optional


@_mechanism
def attend(scores: Real, value: Real, *, dtype: Any = np.float64, **common: Any) -> Any:
    """Attention over the caller's own scores::

        c_i = sum_j softmax_j(s_ij) v_j

    Whatever made the scores s_ij, the rest is as for the other functions.

    Parameters
    ----------
    scores, value : arrays (..., Tq, Tk), (..., Tk, Dv)
    **common
        The options that all functions share; see the module.

    Returns
    -------
    context (..., Tq, Dv), or a named tuple.
    """
    (scores,) = _arrays(dtype, scores)

    @_with_stages()
    def score_gradients(dscores, allowed):
        return {"scores": dscores}

    return _attention(value, scores, score_gradients, {"scores": scores}, {}, **common)


# ---- The scores of a mechanism, and nothing behind them ------------------------------------------


@differentiable
def dot_product_scores(
    query: Real, key: Real, *, scale: Real | None = None, dtype: Any = np.float64, **masks: Any
) -> Any:
    """The scores of `dot_product_attention`::

        s_ij = scale * q_i . k_j

    Vaswani et al. 2017, eq. 1; with `scale=1` Luong et al. 2015, section 3.1 (dot).

    Parameters
    ----------
    query, key, scale
        As there.
    **masks
        `mask`, `key_mask`, `key_lengths`, `query_lengths`, `causal`, `causal_offset`, `window`: a
        pair that is not allowed is not read and has score 0.
    dtype
        What to compute in.

    Returns
    -------
    scores (..., Tq, Tk)
    """
    return _scores(*_dot_products(dtype, query, key, scale), **masks)


@differentiable
def multiplicative_scores(
    query: Real, key: Real, weight: Real, *, dtype: Any = np.float64, **masks: Any
) -> Any:
    """The scores of `multiplicative_attention`::

        s_ij = q_i W k_j

    Luong et al. 2015, section 3.1 (general).

    Parameters
    ----------
    query, key, weight
        As there.
    **masks
        As in `dot_product_scores`.
    dtype
        What to compute in.

    Returns
    -------
    scores (..., Tq, Tk)
    """
    return _scores(*_bilinear_forms(dtype, query, key, weight), **masks)


@differentiable
def additive_scores(
    query: Real,
    key: Real,
    score_vector: Real,
    *,
    query_weight: Real | None = None,
    key_weight: Real | None = None,
    score_bias: Real | None = None,
    dtype: Any = np.float64,
    **masks: Any,
) -> Any:
    """The scores of `additive_attention`::

        s_ij = v . tanh(q_i Wq + k_j Wk + b)

    Bahdanau et al. 2015, section A.1.2.

    Parameters
    ----------
    query, key, score_vector, query_weight, key_weight, score_bias
        As there.
    **masks
        As in `dot_product_scores`.
    dtype
        What to compute in.

    Returns
    -------
    scores (..., Tq, Tk)
    """
    parts = query, key, score_vector, query_weight, key_weight, score_bias
    return _scores(*_small_network(dtype, *parts), **masks)


@differentiable
def cosine_scores(
    query: Real, key: Real, *, scale: Real = 1.0, dtype: Any = np.float64, **masks: Any
) -> Any:
    """The scores of `cosine_attention`::

        s_ij = scale * q_i . k_j / (|q_i| |k_j|)

    Graves et al. 2014, eqs. 5 and 6.

    Parameters
    ----------
    query, key, scale
        As there.
    **masks
        As in `dot_product_scores`.
    dtype
        What to compute in.

    Returns
    -------
    scores (..., Tq, Tk)
    """
    return _scores(*_cosines(dtype, query, key, scale), **masks)


def _scores(
    scores, score_gradients, required, optional, *,
    mask=None, key_mask=None, key_lengths=None, query_lengths=None, causal=False,
    causal_offset=None, window=None,
):  # fmt: skip
    """The scores of the allowed pairs, 0 elsewhere, and the pullback."""
    options = mask, key_mask, key_lengths, query_lengths, None, causal, causal_offset, window
    allowed = _allowed(scores.shape, *options, center=None)

    @np.errstate(all="ignore")
    def pullback(dscores):
        dscores = np.where(allowed, asarray(dscores, scores.dtype), 0)
        gradients = score_gradients(dscores, allowed)
        arguments = {**required, **optional}
        return Gradients(
            {name: _sum_to(gradients[name], array.shape) for name, array in arguments.items()},
            required,
        )

    return np.where(allowed, scores, 0), pullback


def _arrays(dtype: Any, *arrays: Real) -> list[Array]:
    return [asarray(array, dtype) for array in arrays]


def _unit(x):
    """x / |x| and |x|, along the last axis; a vector of zeros stays zeros, whatever its tangent."""
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / np.where(norm == 0, np.inf, norm), norm

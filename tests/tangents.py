"""Forward mode of attention in plain NumPy, in any dtype: the formulas and their derivatives.

defines: arguments, random_tangents, access, scores_and_tangents, plain_jvp, plain_scores_jvp
"""

import inspect

import numpy as np
from checks import EVERYTHING

import attnc
from attnc.reference import attention as plain

SUFFIX = "_attention"


def arguments(name, arrays, options):
    """All arguments by name."""
    parameters = inspect.signature(getattr(attnc, name)).parameters
    return {**dict(zip(parameters, arrays, strict=False)), **options}


def random_tangents(rng, name, arrays, options, dtype=None):
    """A random tangent of every array that has one, by its name."""
    record = attnc.registry.record_of(getattr(attnc, name))
    given = arguments(name, arrays, options)
    return {
        argument: np.asarray(rng.standard_normal(np.shape(x)), dtype or x.dtype)
        for argument, x in given.items()
        if argument in record.arrays and isinstance(x, np.ndarray)
    }


def _unit(x, moved):
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    norm = np.where(norm == 0, np.inf, norm)
    unit = x / norm
    return unit, (moved - unit * (unit * moved).sum(axis=-1, keepdims=True)) / norm


def _T(x):
    return np.swapaxes(x, -1, -2)


def scores_and_tangents(mechanism, x, t):
    """Scores and their tangents; x(name) and t(name) are an array and its tangent."""
    if mechanism == "attend":
        return x("scores"), t("scores")
    q, k, qt, kt = x("query"), x("key"), t("query"), t("key")
    if mechanism == "multiplicative":
        w = x("weight")
        projected, moved = q @ w, qt @ w + q @ t("weight")
        return projected @ _T(k), moved @ _T(k) + projected @ _T(kt)
    if mechanism == "additive":
        if x("query_weight") is not None:
            q, qt = q @ x("query_weight"), qt @ x("query_weight") + q @ t("query_weight")
        if x("key_weight") is not None:
            k, kt = k @ x("key_weight"), kt @ x("key_weight") + k @ t("key_weight")
        if x("score_bias") is not None:
            q, qt = q + x("score_bias"), qt + t("score_bias")
        hidden = np.tanh(q[..., :, None, :] + k[..., None, :, :])
        moved = (1 - hidden**2) * (qt[..., :, None, :] + kt[..., None, :, :])
        return hidden @ x("score_vector"), hidden @ t("score_vector") + moved @ x("score_vector")
    if mechanism == "cosine":
        (q, qt), (k, kt) = _unit(q, qt), _unit(k, kt)
        scale = 1 if x("scale") is None else x("scale")
    else:
        scale = 1 / np.sqrt(q.dtype.type(q.shape[-1] or 1)) if x("scale") is None else x("scale")
    dots = q @ _T(k)
    moved = scale * (qt @ _T(k) + q @ _T(kt))
    return scale * dots, moved if t("scale") is None else moved + t("scale") * dots


def access(given, tangents, dtype):
    """x and t of `scores_and_tangents`; a tangent that is not there is 0."""

    def x(name):
        return None if given.get(name) is None else np.asarray(given[name], dtype)

    def t(name):
        if x(name) is None:
            return None
        moved = tangents.get(name)
        return np.zeros_like(x(name)) if moved is None else np.asarray(moved, dtype)

    return x, t


MASKS = ("mask", "key_mask", "key_lengths", "query_lengths", "bias", "causal", "causal_offset")
MASKS = (*MASKS, "window", "center")


@np.errstate(all="ignore")
def plain_jvp(name, tangents, arrays, options, dtype=np.float64):
    """(outputs, tangents) of the attention function of this name: context, weights and lse each."""
    given = {k: v for k, v in arguments(name, arrays, options).items() if k not in EVERYTHING}
    x, t = access(given, tangents, dtype)
    scores, moved = scores_and_tangents(name.removesuffix(SUFFIX), x, t)
    lead = np.broadcast_shapes(scores.shape[:-2], x("value").shape[:-2])
    shape = (*lead, *scores.shape[-2:])
    scores, moved = np.broadcast_to(scores, shape), np.broadcast_to(moved, shape)
    if given.get("softcap") is not None:
        bent = np.tanh(scores / dtype(given["softcap"]))
        scores, moved = dtype(given["softcap"]) * bent, moved * (1 - bent**2)
    if x("slope") is not None:
        distance = plain._distance(shape, given.get("causal_offset")).astype(dtype)
        scores = scores - x("slope")[..., None, None] * distance
        moved = moved - t("slope")[..., None, None] * distance
    if x("bias") is not None:
        scores, moved = scores + x("bias"), moved + t("bias")
    gaussian = None
    center = given.get("center")
    if center is not None:
        center = np.asarray(center, np.float64)
        center = center.reshape(center.shape or (1,) * (len(shape) - 1))
        away = (np.arange(shape[-1]) - center[..., None]).astype(dtype)
        sigma = given.get("sigma")
        sigma = dtype(given["window"][0] / 2 if sigma is None else sigma)
        log_gaussian = -((away / sigma) ** 2) / 2
        log_moved = away / sigma / sigma * t("center").reshape(center.shape)[..., None]
        if given.get("renormalize"):
            scores, moved = scores + log_gaussian, moved + log_moved
        else:
            gaussian = np.exp(log_gaussian)
    given = {**given, "center": center}
    allowed = plain._allowed(shape, **{mask: given.get(mask) for mask in MASKS})
    masked = np.where(allowed, scores, -np.inf)
    moved = np.where(allowed, moved, 0)
    top = masked.max(axis=-1, keepdims=True, initial=-np.inf)
    sink = np.full((*shape[:-1], 1), -np.inf, dtype)
    if x("sink") is not None:
        queries = plain._is_query(shape, given.get("query_lengths"))
        sink = np.where(queries, x("sink")[..., None, None], -np.inf)
        top = np.maximum(top, sink)
    allowed = allowed & (top != -np.inf)
    powers = np.where(allowed, np.exp(masked - top), 0)
    sinks = np.where(sink == -np.inf, 0, np.exp(sink - top))
    total = powers.sum(axis=-1, keepdims=True) + sinks
    empty = total == 0
    weights = np.where(allowed, powers / np.where(empty, 1, total), 0)
    mean = (weights * moved).sum(axis=-1, keepdims=True)
    if x("sink") is not None:
        mean = mean + np.where(sinks == 0, 0, sinks / total * t("sink")[..., None, None])
    weights_moved = np.where(allowed, weights * (moved - mean), 0)
    normalizer = given.get("normalizer", "softmax")
    if normalizer != "softmax":
        weights = np.where(allowed, plain._sparse(normalizer, masked - top), 0)
        weights_moved = np.where(allowed, plain._sparse_gradient(normalizer, weights, moved), 0)
    if gaussian is not None:
        weights_moved = np.where(allowed, gaussian * (weights_moved + weights * log_moved), 0)
        weights = np.where(allowed, gaussian * weights, 0)
    lse = np.where(empty, -np.inf, top + np.log(total))[..., 0]
    kept = 1
    if given.get("dropout"):
        kept = plain._dropout_factors(shape, given["dropout"], given["rng"]).astype(dtype)
    context = plain._sum_over_pairs(weights * kept, x("value"), allowed)
    context_moved = plain._sum_over_pairs(weights_moved * kept, x("value"), allowed)
    context_moved = context_moved + plain._sum_over_pairs(weights * kept, t("value"), allowed)
    outputs = {"context": context, "weights": weights, "lse": lse}
    return outputs, {"context": context_moved, "weights": weights_moved, "lse": mean[..., 0]}


def plain_scores_jvp(name, tangents, arrays, options, dtype=np.float64):
    """(scores, tangent) of the scores function of this name, 0 where a pair is not allowed."""
    given = arguments(name, arrays, options)
    x, t = access(given, tangents, dtype)
    scores, moved = scores_and_tangents(name.removesuffix("_scores"), x, t)
    allowed = plain._allowed(scores.shape, **{mask: given.get(mask) for mask in MASKS})
    return np.where(allowed, scores, 0), np.where(allowed, moved, 0)

"""Attention functions as students write them: right ones, wrong ones, and hostile ones.

python tests/student_solutions.py       prints a table: the fault, and what `check` says of it
"""

import math
import sys

import numpy as np

import attnc

RIGHT, WRONG, HOSTILE = [], [], []


def right(reference, **how):
    return lambda function: RIGHT.append((function, reference, how)) or function


def wrong(fault, says, reference=attnc.dot_product_attention, **how):
    """`says`: what has to be in the line."""

    def add(function):
        function.__name__ = "mine"
        WRONG.append((fault, says, function, reference, how))

    return add


def hostile(what, says):

    def add(function):
        function.__name__ = "mine"
        HOSTILE.append((what, says, function))

    return add


def T(x):
    return np.swapaxes(x, -1, -2)


def softmax(x, axis=-1):
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def masked_softmax(scores, allowed):
    scores = np.where(allowed, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    powers = np.exp(scores - np.where(top == -np.inf, 0, top))
    total = powers.sum(axis=-1, keepdims=True)
    return np.divide(powers, total, out=np.zeros_like(powers), where=total > 0)


def products(q, k):
    return q @ T(k) / math.sqrt(q.shape[-1])


# ---- right


@right(attnc.dot_product_attention)
def short(query, key, value):
    return softmax(products(query, key)) @ value


@right(attnc.dot_product_attention)
def with_einsum(Q, K, V, mask=None, causal=False):
    S = np.einsum("...qd,...kd->...qk", Q, K) / np.sqrt(Q.shape[-1])
    allowed = np.ones(S.shape, bool)
    if mask is not None:
        allowed &= mask
    if causal:
        Tq, Tk = S.shape[-2:]
        allowed &= np.tril(np.ones((Tq, Tk), bool), Tk - Tq)
    W = masked_softmax(S, allowed)
    return np.einsum("...qk,...kv->...qv", W, V), W


@right(attnc.dot_product_attention, skip=("batch", "heads"))
def with_loops(query, key, value, mask):
    context = np.zeros((len(query), value.shape[1]))
    for i, q in enumerate(query):
        seen = [j for j in range(len(key)) if mask[i, j]]
        if not seen:
            continue
        scores = [sum(a * b for a, b in zip(q, key[j], strict=True)) for j in seen]
        scores = [s / math.sqrt(len(q)) for s in scores]
        top = max(scores)
        powers = [math.exp(s - top) for s in scores]
        for p, j in zip(powers, seen, strict=True):
            context[i] += p / sum(powers) * value[j]
    return context


@right(attnc.dot_product_attention)
def torch_like(query, key, value, *, mask=None, scale=None, bias=None, return_weights=False):
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = scale * np.matmul(query, key.swapaxes(-2, -1))
    if bias is not None:
        scores = scores + bias
    weights = masked_softmax(scores, True if mask is None else mask)
    context = np.matmul(weights, value)
    return (context, weights) if return_weights else context


@right(attnc.dot_product_attention)
def with_stages(value, query, key, key_lengths=None):
    scores = products(query, key)
    valid = True
    if key_lengths is not None:
        valid = np.arange(key.shape[-2]) < np.asarray(key_lengths)[..., None, None]
    masked = np.where(valid, scores, -np.inf)
    weights = masked_softmax(scores, valid)
    return {"scores": scores, "masked": masked, "weights": weights, "context": weights @ value}


@right(attnc.dot_product_attention, options=("dropout",))
def with_dropout(query, key, value, dropout=0.0, rng=None):
    weights = softmax(products(query, key))
    kept = weights
    if dropout:
        kept = weights * (rng.random(weights.shape) >= dropout) / (1 - dropout)
    return kept @ value, weights


@right(attnc.multiplicative_attention)
def luong(query, key, value, weight, key_mask=None):
    scores = query @ weight @ T(key)
    return masked_softmax(scores, True if key_mask is None else key_mask[..., None, :]) @ value


@right(attnc.additive_attention)
def bahdanau(query, key, value, v, query_weight, key_weight):
    q, k = query @ query_weight, key @ key_weight
    hidden = np.tanh(np.expand_dims(q, -2) + np.expand_dims(k, -3))
    return softmax(hidden @ v) @ value


@right(attnc.additive_attention)
def bahdanau_projected(query, key, value, v):
    scores = np.tanh(query[..., :, None, :] + key[..., None, :, :]) @ v
    return softmax(scores) @ value


@right(attnc.cosine_attention)
def cosine(query, key, value, scale=1.0):
    def unit(x):
        return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-30)

    return softmax(scale * unit(query) @ T(unit(key))) @ value


@right(attnc.attend)
def averaging(scores, value):
    return softmax(scores) @ value


# ---- wrong: the softmax


@wrong("softmax over the queries", "over the queries (axis -2)")
def _(q, k, v):
    return softmax(products(q, k), axis=-2) @ v


@wrong("softmax over axis 0", "over the queries", skip=("batch", "heads"))
def _(q, k, v):
    s = q @ k.T / math.sqrt(k.shape[1])
    e = np.exp(s - s.max(0))
    return (e / e.sum(0)) @ v


@wrong("softmax over axis 1 of a batch", "axis 1, which is that of the keys without batch")
def _(q, k, v):
    return softmax(products(q, k), axis=1) @ v


@wrong("softmax over the whole matrix", "over all axes at once")
def _(q, k, v):
    s = products(q, k)
    return np.exp(s - s.max()) / np.exp(s - s.max()).sum() @ v


@wrong("no maximum subtracted", "does not subtract the maximum")
def _(q, k, v):
    e = np.exp(products(q, k))
    return e / e.sum(-1, keepdims=True) @ v


@wrong("maximum of the whole matrix", "maximum of all scores")
def _(q, k, v):
    s = products(q, k)
    e = np.exp(s - s.max())
    return e / e.sum(-1, keepdims=True) @ v


@wrong("no keepdims in the sum", "keepdims=True")
def _(q, k, v):
    s = products(q, k)
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1) @ v


@wrong("no keepdims at all", "the maximum and the sum over the keys have lost")
def _(q, k, v):
    e = np.exp(products(q, k) - products(q, k).max(-1))
    return e / e.sum(-1) @ v


@wrong("no keepdims in the maximum", "each key is shifted by that of another row")
def _(q, k, v):
    e = np.exp(products(q, k) - products(q, k).max(-1))
    return e / e.sum(-1, keepdims=True) @ v


@wrong("not divided by the sum", "divide them by their sum")
def _(q, k, v):
    return np.exp(products(q, k)) @ v


@wrong("no softmax", "the softmax is forgotten")
def _(q, k, v):
    return products(q, k) @ v


@wrong("softmax twice", "taken twice")
def _(q, k, v):
    return softmax(softmax(products(q, k))) @ v


@wrong("argmax", "the key of its largest score alone")
def _(q, k, v):
    w = np.zeros(products(q, k).shape)
    np.put_along_axis(w, products(q, k).argmax(-1)[..., None], 1, -1)
    return w @ v


@wrong("1e-9 added to the sum", "1e-09 is added to the sum")
def _(q, k, v):
    e = np.exp(products(q, k) - products(q, k).max(-1, keepdims=True))
    return e / (e.sum(-1, keepdims=True) + 1e-9) @ v


# ---- wrong: the scale


@wrong("scale forgotten", "the scale is forgotten")
def _(q, k, v):
    return softmax(q @ T(k)) @ v


@wrong("divided by D", "divided by D: divide them by sqrt(D)")
def _(q, k, v):
    return softmax(q @ T(k) / q.shape[-1]) @ v


@wrong("multiplied by sqrt(D)", "multiplied by sqrt(D)")
def _(q, k, v):
    return softmax(q @ T(k) * np.sqrt(q.shape[-1])) @ v


@wrong("divided by sqrt(Tk)", "number of keys")
def _(q, k, v):
    return softmax(q @ T(k) / np.sqrt(k.shape[-2])) @ v


@wrong("len(query) for D", "query.shape[0]: it must be that of shape[-1]")
def _(q, k, v):
    return softmax(q @ T(k) / np.sqrt(len(q))) @ v


@wrong("shape[1] for D", "key.shape[1]: it must be that of shape[-1]")
def _(q, k, v):
    return softmax(q @ T(k) / np.sqrt(k.shape[1])) @ v


@wrong("D // 2, which is sqrt(D) of 4", "must be")
def _(q, k, v):
    return softmax(q @ T(k) / (q.shape[-1] // 2 or 1)) @ v


@wrong("scale after the softmax", "the scale comes after the softmax")
def _(q, k, v):
    return softmax(q @ T(k)) / np.sqrt(q.shape[-1]) @ v


@wrong("scale option ignored", "the given scale is ignored")
def _(q, k, v, scale=None):
    return softmax(products(q, k)) @ v


@wrong("softmax over the queries and no scale", "; and the scale is forgotten")
def _(q, k, v):
    return softmax(q @ T(k), -2) @ v


# ---- wrong: masks


@wrong("mask inverted, as in PyTorch's key_padding_mask", "the mask is inverted")
def _(q, k, v, mask=None):
    s = products(q, k)
    return masked_softmax(s, True if mask is None else ~mask) @ v


@wrong("mask added", "the mask is added to the scores as 0 and 1")
def _(q, k, v, mask=None):
    return softmax(products(q, k) + (0 if mask is None else mask)) @ v


@wrong("mask of the first sentence", "mask of the first batch element is used")
def _(q, k, v, mask=None):
    mask = np.ones((1, 1), bool) if mask is None else mask
    return masked_softmax(products(q, k), mask[(0,) * (mask.ndim - 2)]) @ v


@wrong("log of the mask added", "-inf is added to the masked scores")
def _(q, k, v, mask=None):
    return softmax(products(q, k) + (0 if mask is None else np.log(mask.astype(float)))) @ v


@wrong("mask ignored", "mask is ignored")
def _(q, k, v, mask=None):
    return softmax(products(q, k)) @ v


@wrong("-1e9 in the place of -inf", "a large negative number stands in the place of -inf")
def _(q, k, v, mask=None):
    s = products(q, k)
    if mask is not None:
        s = np.where(mask, s, -1e9)
    return softmax(s) @ v


@wrong("-1e9, and no maximum", "does not subtract the maximum")
def _(q, k, v, mask=None):
    s = q @ T(k) / np.sqrt(q.shape[-1])
    if mask is not None:
        s = np.where(mask == 0, -1e9, s)
    w = np.exp(s) / np.exp(s).sum(-1, keepdims=True)
    return w @ v, w


@wrong("-1e9 added", "a large negative number is added")
def _(q, k, v, mask=None):
    s = products(q, k)
    if mask is not None:
        s = s + (1 - mask) * -1e9
    return softmax(s) @ v


@wrong("empty rows are NaN", "a query that may attend to nothing gets NaN")
def _(q, k, v, mask=None):
    s = products(q, k)
    if mask is not None:
        s = np.where(mask, s, -np.inf)
    return softmax(s) @ v


@wrong("masked scores set to 0", "set to 0")
def _(q, k, v, mask=None):
    s = products(q, k)
    if mask is not None:
        s[~mask] = 0
    return softmax(s) @ v


@wrong("mask after the softmax", "the mask is applied after the softmax")
def _(q, k, v, key_mask=None):
    w = softmax(products(q, k))
    if key_mask is not None:
        w = w * key_mask[..., None, :]
    return w @ v


@wrong("mask after the softmax, normalised again", "and the rest normalised again")
def _(q, k, v, mask=None):
    w = softmax(products(q, k))
    if mask is not None:
        w = w * mask
        w = w / w.sum(-1, keepdims=True)
    return w @ v


@wrong("one word too many", "one key beyond key_lengths")
def _(q, k, v, key_lengths=None):
    s = products(q, k)
    if key_lengths is None:
        return softmax(s) @ v
    return masked_softmax(s, np.arange(k.shape[-2]) <= np.asarray(key_lengths)[..., None, None]) @ v


@wrong("causal top-left", "top left")
def _(q, k, v, causal=False):
    s = products(q, k)
    return masked_softmax(s, np.tril(np.ones(s.shape[-2:], bool)) if causal else True) @ v


@wrong("causal without its own position", "j <= p not j < p")
def _(q, k, v, causal=False):
    s = products(q, k)
    Tq, Tk = s.shape[-2:]
    return masked_softmax(s, np.tri(Tq, Tk, Tk - Tq - 1, bool) if causal else True) @ v


def causal_of(k, keep, fill):
    """np.tril or np.triu of ones, with this k, as one writes it for as many queries as keys."""

    def mine(query, key, value, causal=False):
        s = products(query, key)
        if causal:
            s = np.where(keep(np.ones(s.shape[-2:]), k) == 1, s, fill)
        return softmax(s) @ value

    return mine


for fault, says, mine in (
    ("np.tril(x, -1)", "j <= p not j < p; and causal is al", causal_of(-1, np.tril, -np.inf)),
    ("np.tril(x, 1)", "j <= p + 1 not j <= p; and causal is al", causal_of(1, np.tril, -np.inf)),
    ("np.triu(x, 1)", "must be hidden; and causal is al", causal_of(1, np.triu, -1e9)),
):
    wrong(f"causal by {fault}", says)(mine)


@wrong(
    "causal by np.tril(x, -1), first row NaN",
    "right), query i at position i + Tk - Tq; and a \
query that may attend to nothing gets NaN",
)
def _(query, key, value, causal=False):
    return causal_of(-1, np.tril, -np.inf)(query, key, value, causal)


@wrong("causal sees the next word", "a query sees the key after its own position")
def _(q, k, v, causal=False):
    s = products(q, k)
    Tq, Tk = s.shape[-2:]
    return masked_softmax(s, np.tri(Tq, Tk, Tk - Tq + 1, bool) if causal else True) @ v


@wrong("causal inverted", "causal is inverted")
def _(q, k, v, causal=False):
    s = products(q, k)
    Tq, Tk = s.shape[-2:]
    return masked_softmax(s, np.triu(np.ones((Tq, Tk), bool), Tk - Tq) if causal else True) @ v


@wrong("causal by zeros of np.tril", "set to 0")
def _(q, k, v, causal=False):
    s = products(q, k)
    if causal:
        s = np.tril(s, s.shape[-1] - s.shape[-2])
    return softmax(s) @ v


@wrong("a mask instead of causal", "causal is ignored where mask is given, too")
def _(q, k, v, mask=None, causal=False):
    s = products(q, k)
    if mask is None:
        mask = np.tri(*s.shape[-2:], s.shape[-1] - s.shape[-2], bool) if causal else True
    return masked_softmax(s, mask) @ v


@wrong("a mask instead of the bias", "bias is ignored where causal is given, too")
def _(q, k, v, bias=None, causal=False):
    s = products(q, k)
    if causal:
        return masked_softmax(s, np.tri(*s.shape[-2:], s.shape[-1] - s.shape[-2], bool)) @ v
    return masked_softmax(s if bias is None else s + bias, True) @ v


@wrong("mask or padding", "mask and key_lengths are joined by or")
def _(q, k, v, mask=None, key_lengths=None):
    s = products(q, k)
    allowed = np.zeros(s.shape, bool) | (mask is None and key_lengths is None)
    if mask is not None:
        allowed |= mask
    if key_lengths is not None:
        allowed |= np.arange(s.shape[-1]) < np.asarray(key_lengths)[..., None, None]
    return masked_softmax(s, allowed) @ v


@wrong("window's ends exchanged", "left and right of the window are exchanged")
def _(q, k, v, window=None):
    s = products(q, k)
    if window is None:
        return softmax(s) @ v
    Tq, Tk = s.shape[-2:]
    right, left = (Tk if end is None else end for end in window)
    d = np.arange(Tk) - np.arange(Tq)[:, None] - (Tk - Tq)
    return masked_softmax(s, (d >= -left) & (d <= right)) @ v


@wrong("bias before the scale", "the bias is added before the scale")
def _(q, k, v, bias=None):
    s = q @ T(k)
    if bias is not None:
        s = s + bias
    return masked_softmax(s / np.sqrt(q.shape[-1]), True) @ v


# ---- wrong: query, key, value


@wrong("query and key exchanged", "query and key are exchanged")
def _(q, k, v):
    return softmax(k @ T(q) / np.sqrt(q.shape[-1])) @ v


@wrong("key reshaped, not transposed", "the key is reshaped")
def _(q, k, v):
    *lead, n, d = k.shape
    return softmax(q @ k.reshape(*lead, d, n) / np.sqrt(d)) @ v


@wrong("key not transposed", "the key is not transposed")
def _(q, k, v):
    return softmax(q @ k / np.sqrt(q.shape[-1])) @ v


@wrong("key and value exchanged", "key and value are exchanged")
def _(q, k, v):
    return short(q, v, k)


@wrong("weights * value", "multiplied entry by entry")
def _(q, k, v):
    return softmax(products(q, k)) * v


@wrong("weights alone", "the weights are returned in the place of the context")
def _(q, k, v):
    return softmax(products(q, k))


@wrong("values not used", "the values are not used")
def _(q, k, v):
    return softmax(products(q, k)) @ k


@wrong("weights transposed", "the weights are transposed")
def _(q, k, v):
    return T(softmax(products(q, k))) @ v


@wrong("mean of the values", "all keys get the same weight")
def _(q, k, v):
    return np.broadcast_to(v.mean(-2, keepdims=True), (*q.shape[:-1], v.shape[-1])).copy()


@wrong("mean over all queries", "averaged over the queries")
def _(q, k, v):
    c = softmax(products(q, k)) @ v
    return np.broadcast_to(c.mean(-2, keepdims=True), c.shape).copy()


@wrong("weights of the first sentence for all", "first batch element")
def _(q, k, v):
    w = softmax(products(q, k))
    while w.ndim > 2:
        w = w[0]
    return w @ v


@wrong("scores summed over the batch", "summed over the batch axes")
def _(q, k, v):
    s = products(q, k)
    s = s.reshape(-1, *s.shape[-2:]).sum(0)
    return np.broadcast_to(softmax(s), (*q.shape[:-1], k.shape[-2])) @ v


@wrong("weights with dropout returned", "include dropout", options=("dropout",))
def _(query, key, value, dropout=0.0, rng=None):
    w = softmax(products(query, key))
    if dropout:
        w = w * (rng.random(w.shape) >= dropout) / (1 - dropout)
    return w @ value, w


@wrong("dropout not divided by 1 - p", "divide them by 1 - dropout")
def _(query, key, value, dropout=0.0, rng=None):
    w = softmax(products(query, key))
    return (w * (rng.random(w.shape) >= dropout) if dropout else w) @ value


@wrong("dropout of the context", "dropout is applied to the context", options=("dropout",))
def _(query, key, value, dropout=0.0, rng=None):
    c = short(query, key, value)
    return c * (rng.random(c.shape) >= dropout) / (1 - dropout) if dropout else c


@wrong("dropout of keys", "the same keys for every query are dropped", options=("dropout",))
def _(query, key, value, dropout=0.0, rng=None):
    w = softmax(products(query, key))
    return (w * (rng.random(w.shape[-1]) >= dropout) / (1 - dropout) if dropout else w) @ value


@wrong("dropout of queries", "dropout whole queries are dropped", options=("dropout",))
def _(query, key, value, dropout=0.0, rng=None):
    w = softmax(products(query, key))
    kept = rng.random(w.shape[-2])[:, None] >= dropout if dropout else 1
    return w * kept / (1 - dropout) @ value


@wrong("dropout keeps with its probability", "keeps that part")
def _(query, key, value, dropout=0.0, rng=None):
    w = softmax(products(query, key))
    return (w * (rng.random(w.shape) < dropout) / dropout if dropout else w) @ value


# ---- wrong: other mechanisms

ADDITIVE = attnc.additive_attention


def _parts(q, k, Wq, Wk):
    return (q @ Wq)[..., :, None, :], (k @ Wk)[..., None, :, :]


@wrong("tanh forgotten", "the tanh is forgotten", ADDITIVE)
def _(query, key, value, v, query_weight, key_weight):
    q, k = _parts(query, key, query_weight, key_weight)
    return softmax((q + k) @ v) @ value


@wrong("tanh before the sum", "the tanh comes before the sum", ADDITIVE)
def _(query, key, value, v, query_weight, key_weight):
    q, k = _parts(query, key, query_weight, key_weight)
    return softmax((np.tanh(q) + np.tanh(k)) @ v) @ value


@wrong("weights of query and key exchanged", "are exchanged", ADDITIVE)
def _(query, key, value, v, query_weight, key_weight):
    q, k = _parts(query, key, key_weight, query_weight)
    return softmax(np.tanh(q + k) @ v) @ value


@wrong("score vector forgotten", "the score vector is not used", ADDITIVE)
def _(query, key, value, v):
    return softmax(np.tanh(query[..., :, None, :] + key[..., None, :, :]).sum(-1)) @ value


@wrong("bias outside of tanh", "added after the tanh, where it is the same for all keys", ADDITIVE)
def _(query, key, value, v, score_bias=0):
    return (
        softmax((np.tanh(query[..., :, None, :] + key[..., None, :, :]) + score_bias) @ v) @ value
    )


@wrong("bias twice", "score_bias is added twice", ADDITIVE)
def _(query, key, value, v, score_bias=0):
    q, k = query + score_bias, key + score_bias
    return softmax(np.tanh(q[..., :, None, :] + k[..., None, :, :]) @ v) @ value


@wrong("weight transposed in einsum", "the weight is transposed", attnc.multiplicative_attention)
def _(query, key, value, W):
    return softmax(np.einsum("...id,ed,...je->...ij", query, W, key)) @ value


@wrong("scaled by the size of a key", "no such scale", attnc.multiplicative_attention)
def _(query, key, value, W):
    return softmax(query @ W @ T(key) / np.sqrt(key.shape[-1])) @ value


@wrong("weight transposed", "the weight is transposed", attnc.multiplicative_attention)
def _(query, key, value, W):
    return softmax(query @ W.T @ T(key)) @ value


@wrong("scaled as a product", "no such scale", attnc.multiplicative_attention)
def _(query, key, value, W):
    return softmax(query @ W @ T(key) / np.sqrt(query.shape[-1])) @ value


@wrong("not normalised", "not divided by their lengths", attnc.cosine_attention)
def _(query, key, value):
    return softmax(query @ T(key)) @ value


@wrong("root of the length forgotten", "the square root is missing", attnc.cosine_attention)
def _(query, key, value):
    q, k = ((x / (x**2).sum(-1, keepdims=True)) for x in (query, key))
    return softmax(q @ T(k)) @ value


@wrong("lengths without keepdims", "the lengths have lost their axis", attnc.cosine_attention)
def _(query, key, value):
    q, k = (np.linalg.norm(x, axis=-1) for x in (query, key))
    return softmax(query @ T(key) / (q * k)) @ value


@wrong("1e-8 added to the lengths", "1e-08 is added to the lengths", attnc.cosine_attention)
def _(query, key, value):
    q, k = (x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-8) for x in (query, key))
    return softmax(q @ T(k)) @ value


@wrong("0 / 0 for a zero vector", "a vector of zeros", attnc.cosine_attention)
def _(query, key, value):
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, key))
    return softmax(q @ T(k)) @ value


@wrong("scores transposed", "the scores are transposed", attnc.attend)
def _(scores, value):
    return softmax(T(scores)) @ value


# ---- wrong, and no usual mistake


@wrong("a row of the context shifted", "must be")
def _(q, k, v):
    return np.roll(softmax(products(q, k)) @ v, 1, axis=-2) + 0.5


@wrong("an odd power, with stages", "scores right, weights is the first stage that differs")
def _(q, k, v):
    s = products(q, k)
    w = softmax(1.7 * s)
    return {"scores": s, "weights": w, "context": w @ v}


@wrong("float32 inside", "float64, got float32")
def _(q, k, v):
    return (softmax(products(q, k)) @ v).astype(np.float32)


@wrong("as with tensors", "(NumPy has x.shape[-1] for it)")
def _(q, k, v):
    return softmax(q @ k.transpose(-2, -1) / q.size(-1) ** 0.5) @ v


@wrong("right without batch axes", ".T turns all axes")
def _(q, k, v):
    return softmax(q @ k.T / np.sqrt(k.shape[1])) @ v


# ---- hostile


@hostile("writes into its input", "it writes into its input query")
def _(q, k, v):
    q /= math.sqrt(q.shape[-1])
    return softmax(q @ T(k)) @ v


@hostile("returns a view of its input", "a view of the input value")
def _(q, k, v):
    return v[..., : q.shape[-2], :] if k.shape[-2] >= q.shape[-2] else short(q, k, v)


@hostile("returns None", "it returns None: a return is missing")
def _(q, k, v):
    softmax(products(q, k)) @ v


@hostile("raises", "it raised ValueError: first line second line in `raise ValueError(")
def _(q, k, v):
    raise ValueError("first line\n   second line")


@hostile("exits", "it raised SystemExit in `sys.exit()`")
def _(q, k, v):
    sys.exit()


@hostile("a coroutine", "got a coroutine: leave out async")
async def _(q, k, v):
    return short(q, k, v)


@hostile("returns a list", "got a list")
def _(q, k, v):
    return short(q, k, v).tolist()


@hostile("object dtype", "context must be of dtype float64, got object")
def _(q, k, v):
    return short(q, k, v).astype(object)


@hostile("endless generator", "got a generator")
def _(q, k, v):
    while True:
        yield short(q, k, v)


@hostile("a matrix", "got numpy.matrix")
def _(q, k, v):
    return np.matrix(np.zeros((2, 2)))


@hostile("a number", "context must be a NumPy array, got numpy.float64")
def _(q, k, v):
    return (short(q, k, v).sum(), short(q, k, v))


@hostile("weights first", "return (context, weights)")
def _(q, k, v):
    w = softmax(products(q, k))
    return w, w @ v


@hostile("three parts", "got a tuple of 3")
def _(q, k, v):
    return q, k, v


@hostile("another dict", "by name, got dict with ['output']")
def _(q, k, v):
    return {"output": short(q, k, v)}


@hostile("a string", "got str")
def _(q, k, v):
    return "attention"


@hostile("wrong shape", "context must have shape")
def _(q, k, v):
    return short(q, k, v)[..., None]


@hostile("another result each time", "a second call")
def _(q, k, v):
    return short(q, k, v) + np.random.default_rng().random()


@hostile("endless recursion", "it raised RecursionError")
def _(q, k, v):
    def again(x):
        return again(x)

    return again(q)


@hostile("text that cannot be printed", "it raised Nasty")
def _(q, k, v):
    class Nasty(Exception):
        def __str__(self):
            raise ValueError

    raise Nasty


@hostile("an argument of another name", "an argument valid_lens (call it key_lengths)")
def _(q, k, v, valid_lens):
    return short(q, k, v)


@hostile("an object that cannot be read", "a Evil that cannot be read: no way")
def _(q, k, v):
    class Evil:
        def __getattr__(self, name):
            raise RuntimeError("no\nway")

    return Evil()


@hostile("writes into the mask", "it writes into its input mask")
def _(query, key, value, mask=None):
    if mask is not None:
        mask &= False
    return short(query, key, value)


@hostile("half precision", "the dtype of the inputs, float64, got")
def _(q, k, v):
    return short(q, k, v).astype(np.float16)


@hostile("too few arguments", "it must take query, key, value, got (x)")
def _(x):
    return x


def said(function, reference, how):
    """The line of an AssertionError, or None."""
    try:
        attnc.teaching.check(function, reference, **how)
    except AssertionError as error:
        return str(error)
    return None


if __name__ == "__main__":
    rows = [(fault, said(f, reference, how)) for fault, _, f, reference, how in WRONG]
    rows += [(what, said(f, attnc.dot_product_attention, {})) for what, _, f in HOSTILE]
    print("| fault | what the checker said |\n|---|---|")
    for fault, line in rows:
        print(f"| {fault} | {line} |")

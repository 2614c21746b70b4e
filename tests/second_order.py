"""Second order of attention, known in two ways: the differences of what the gradients of the
reference are in long double, and PyTorch's two derivatives of the plain formula in any dtype."""

import numpy as np
import torch
from checks import FEW, FLOOR, FLOOR_OF_FEW, assert_close_like_naive

import attnc
from attnc import reference, registry
from attnc.reference import attention as plain

# What is 0 where the sixth-order rule is exact: f(x + k h) - f(x - k h), k = 1, 2, 3, times these.
WEIGHTS = (45, -9, 1)
STEP = 2.0**-12


def arguments(function, arrays, options):
    """(real arrays by name, in the order of the record; the other options)."""
    record = registry.record_of(function)
    real = dict(zip(record.required, arrays, strict=True))
    real |= {n: x for n, x in options.items() if n in record.arrays and isinstance(x, np.ndarray)}
    rest = {name: x for name, x in options.items() if name not in real}
    return {name: real[name] for name in record.arrays if name in real}, rest


def dyadic(x, digits=10):
    """The nearest numbers of so many binary digits behind the point: sums with them are exact."""
    return np.asarray(np.round(np.asarray(x, np.float64) * 2**digits) / 2**digits, x.dtype)


def directions(rng, real, scale=1.0):
    """A random tangent of each array."""
    found = {name: scale * rng.standard_normal(x.shape) for name, x in real.items()}
    return {name: dyadic(np.asarray(x, real[name].dtype)) for name, x in found.items()}


def moved(x, tangent, by, dtype):
    return x if tangent is None else np.asarray(np.asarray(x, dtype) + dtype(by) * tangent)


def differences(name, real, rest, tangents, incoming, dincoming, dtype=np.longdouble):
    """The tangents of all gradients of the reference, by differences."""
    function = getattr(reference, name)
    required = len(registry.record_of(getattr(attnc.functional, name)).required)

    def gradients(by):
        at = {n: moved(x, tangents.get(n), by, dtype) for n, x in real.items()}
        d = {
            n: moved(0 * dincoming[n] if x is None else x, dincoming.get(n), by, dtype)
            for n, x in incoming.items()
            if x is not None or dincoming.get(n) is not None
        }
        values = list(at.values())[:required]
        options = dict(list(at.items())[required:]) | rest
        return vars(reference.vjp(function, *values, **options, dtype=dtype)[1](**d))

    total = {}
    for k, weight in enumerate(WEIGHTS, 1):
        after, before = gradients(k * STEP), gradients(-k * STEP)
        for n in after:
            total[n] = total.get(n, 0) + weight * (after[n] - before[n])
    return {n: total[n] / (60 * dtype(STEP)) for n in real}


# ---- the plain formula in PyTorch ----


def scores_of(name, x, scale):
    """The scores before any option, of tensors by name."""
    if name in ("attend", "hard_attention"):
        return x["scores"]
    query, key = x["query"], x["key"]
    if name.startswith("dot_product"):
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return scale * (query @ key.mT)
    if name.startswith("multiplicative"):
        return (query @ x["weight"]) @ key.mT
    if name.startswith("cosine"):
        lengths = [
            torch.where(n == 0, torch.ones_like(n), n)
            for n in (torch.sqrt((y * y).sum(-1, keepdim=True)) for y in (query, key))
        ]
        return (1 if scale is None else scale) * ((query / lengths[0]) @ (key / lengths[1]).mT)
    query = query @ x["query_weight"] if "query_weight" in x else query
    key = key @ x["key_weight"] if "key_weight" in x else key
    hidden = query[..., :, None, :] + key[..., None, :, :]
    hidden = hidden + x["score_bias"] if "score_bias" in x else hidden
    return torch.tanh(hidden) @ x["score_vector"]


def sparse_weights(normalizer, logits, allowed):
    """Sparsemax or 1.5-entmax, by the tau of a support that is known."""
    z = logits.masked_fill(~allowed, -1e30)
    z = z / 2 if normalizer == "entmax15" else z
    ordered = z.sort(-1, descending=True).values
    k = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype)
    if normalizer == "sparsemax":
        taus = (ordered.cumsum(-1) - 1) / k
    else:
        mean = ordered.cumsum(-1) / k
        variance = (ordered**2).cumsum(-1) - k * mean**2
        taus = mean - torch.sqrt(torch.clamp((1 - variance) / k, min=1e-30))
    count = (taus < ordered).sum(-1, keepdim=True)
    y = torch.clamp(z - taus.gather(-1, count - 1), min=0)
    return y * y if normalizer == "entmax15" else y


def formula(name, x, options, numbers):
    """Outputs by name, of tensors by name. `numbers` has bias and center, which exclude pairs."""
    options = {n: v for n, v in options.items() if not n.startswith("return_")}
    scores = scores_of(name, x, x.get("scale", options.pop("scale", None)))
    shape = scores.shape
    if "value" in x:
        shape = (*np.broadcast_shapes(shape[:-2], x["value"].shape[:-2]), *shape[-2:])
    scores = scores.expand(shape)
    masks = ("mask", "key_mask", "key_lengths", "query_lengths", "bias", "causal")
    masks = (*masks, "causal_offset", "window", "center")
    given = {n: numbers.get(n, options.get(n)) for n in (*masks, "query_lengths")}
    if given["center"] is not None:
        given["center"] = np.asarray(given["center"], np.float64)
        given["center"] = given["center"].reshape(given["center"].shape or (1,) * (len(shape) - 1))
    allowed = torch.tensor(plain._allowed(shape, **given))
    if name.endswith("_scores"):
        return {"scores": scores.masked_fill(~allowed, 0)}
    cap = options.get("softcap")
    logits = scores if cap is None else cap * torch.tanh(scores / cap)
    slope = x.get("slope", options.get("slope"))
    if slope is not None:
        distance = torch.tensor(plain._distance(shape, options.get("causal_offset")))
        slope = torch.as_tensor(slope, dtype=scores.dtype)
        logits = logits - slope[..., None, None] * distance.to(scores.dtype)
    if "bias" in x:
        logits = logits + x["bias"].masked_fill(x["bias"] == -torch.inf, 0)
    log_gaussian = torch.zeros((), dtype=scores.dtype)
    if given["center"] is not None:
        sigma = options.get("sigma", None)
        sigma = options["window"][0] / 2 if sigma is None else sigma
        center = x.get("center", torch.tensor(given["center"], dtype=scores.dtype))
        center = center.reshape(center.shape or (1,) * (len(shape) - 1))
        step = torch.arange(shape[-1], dtype=scores.dtype) - center[..., None]
        log_gaussian = -((step / sigma) ** 2) / 2
    renormalize = options.get("renormalize") or name == "hard_attention"
    logits = logits + log_gaussian if renormalize else logits
    logits = logits.masked_fill(~allowed, -1e30)
    sink = x.get("sink", options.get("sink"))
    top = (
        logits.detach().amax(-1, keepdim=True).clamp(min=-1e20)
        if shape[-1]
        else logits.new_zeros(())
    )
    sinks = torch.zeros((), dtype=scores.dtype)
    if sink is not None:
        sink = torch.as_tensor(sink, dtype=scores.dtype)[..., None, None]
        real = torch.tensor(plain._is_query(shape, options.get("query_lengths")))
        sink = torch.where(real & (sink > -torch.inf), sink, torch.full_like(sink, -1e30))
        top = torch.maximum(top, sink.detach())
        sinks = torch.exp(sink - top)
    powers = torch.exp(logits - top).masked_fill(~allowed, 0)
    total = powers.sum(-1, keepdim=True) + sinks
    empty = total == 0
    total = total.masked_fill(empty, 1)
    weights = powers / total
    lse = (top + torch.log(total)).masked_fill(empty, 0)[..., 0]
    if options.get("normalizer", "softmax") != "softmax":
        weights = sparse_weights(options["normalizer"], logits, allowed)
        weights = weights.masked_fill(~allowed, 0)
    if name == "hard_attention":
        index = torch.tensor(np.broadcast_to(options["index"], shape[:-1]))
        chosen = torch.nn.functional.one_hot(index.clamp(min=0), shape[-1]).bool()
        chosen &= index[..., None] >= 0
        logs = (logits - lse[..., None]).masked_fill(~allowed, 0)
        return {
            "context": chosen.to(scores.dtype) @ x["value"],
            "log_probability": logs.masked_fill(~chosen, 0).sum(-1),
            "entropy": -(weights * logs).sum(-1),
        }
    weights = weights if renormalize else weights * torch.exp(log_gaussian)
    kept = weights
    if options.get("dropout"):
        factors = plain._dropout_factors(tuple(shape), options["dropout"], options["rng"])
        kept = weights * torch.tensor(factors, dtype=scores.dtype)
    return {"context": kept @ x["value"], "weights": weights, "lse": lse}


def naive(name, real, rest, tangents, incoming, dincoming, dtype):
    """The same by PyTorch: forward mode of the gradients of the formula, in this dtype."""
    names = list(real)
    outputs = [n for n in incoming if incoming[n] is not None or dincoming[n] is not None]

    def tensor(x, like=None):
        return torch.zeros_like(like) if x is None else torch.tensor(np.asarray(x, dtype))

    def gradients(values, d):
        def of(*values):
            found = formula(name, dict(zip(names, values, strict=True)), rest, real)
            return tuple(found[n[1:]] for n in outputs)

        return torch.func.vjp(of, *values)[1](d)

    values = tuple(tensor(x) for x in real.values())
    moves = tuple(tensor(tangents.get(n), x) for n, x in zip(names, values, strict=True))
    shaped = [incoming[n] if incoming[n] is not None else dincoming[n] for n in outputs]
    d = tuple(tensor(incoming[n], tensor(x)) for n, x in zip(outputs, shaped, strict=True))
    moves_of_d = tuple(tensor(dincoming[n], x) for n, x in zip(outputs, d, strict=True))
    _, found = torch.func.jvp(gradients, (values, d), (moves, moves_of_d))
    return {n: x.numpy() for n, x in zip(names, found, strict=True)}


# ---- the rule of errors ----


def second(function, real, rest, tangents, incoming, dincoming):
    """What the record's backward_jvp gives, by name."""
    record = registry.record_of(function)
    required = [real[n] for n in record.required]
    options = {n: x for n, x in real.items() if n not in record.required} | rest
    d = [[of.get(n) for n in record.incoming] for of in (incoming, dincoming)]
    found = record.backward_jvp(tangents, *d, *required, **options)
    assert len(found) == len(record.arrays)
    found = dict(zip(record.arrays, found, strict=True))
    assert all(x is None for n, x in found.items() if n not in real)
    return {n: found[n] for n in real}


def gradients_of(function, real, rest, d):
    """What the record's backward gives, by name."""
    record = registry.record_of(function)
    options = {n: x for n, x in real.items() if n not in record.required} | rest
    _, saved, static = record.forward(*[real[n] for n in record.required], **options)
    found = record.backward(saved, static, *[d.get(n) for n in record.incoming])
    return {n: x for n, x in zip(record.arrays, found, strict=True) if n in real}


def incoming_of(rng, function, real, rest):
    """Random gradients of all real outputs of a function, by the names of its record."""
    record = registry.record_of(function)
    options = {n: x for n, x in real.items() if n not in record.required} | rest
    output = function(*[real[n] for n in record.required], **options)
    outputs = output._asdict() if hasattr(output, "_asdict") else {record.incoming[0][1:]: output}
    return {
        n: dyadic(rng.standard_normal(outputs[n[1:]].shape).astype(outputs[n[1:]].dtype))
        if n[1:] in outputs
        else None
        for n in record.incoming
    }


def check(name, arrays, options, rng, *, tangents=None, scale=1.0):
    """backward_jvp of a function against both, by the rule of errors. Returns it, by name."""
    function = getattr(attnc.functional, name)
    real, rest = arguments(function, arrays, options)
    if "center" in real:
        real["center"] = dyadic(real["center"])
    incoming = incoming_of(rng, function, real, rest)
    dincoming = {
        n: None if x is None else dyadic(rng.standard_normal(x.shape).astype(x.dtype))
        for n, x in incoming.items()
    }
    tangents = directions(rng, real, scale) if tangents is None else tangents
    problem = name, real, rest, tangents, incoming, dincoming
    got = second(function, *problem[1:])
    dtype = np.result_type(*arrays)
    expected = differences(*problem)
    usual = naive(*problem, dtype)
    terms = _largest_terms(*problem)
    scores, score_tangents = _sizes_of_scores(name, real, rest, tangents)
    first = gradients_of(function, real, rest, incoming)
    for n, x in got.items():
        assert x.dtype == real[n].dtype and x.shape == real[n].shape, n
        # A weight cannot be better than its score, nor its tangent than that of the score.
        floor = (FLOOR if x.size >= FEW else FLOOR_OF_FEW) + scores
        magnitude = max(terms.get(n, 0.0), score_tangents * np.abs(first[n]).max(initial=0))
        assert_close_like_naive(x, expected[n], usual[n], magnitude, floor, f"{name}: {n}")
    return got


def _sizes_of_scores(name, real, rest, tangents):
    """The largest score, and the largest tangent of one, of all pairs that hold numbers."""
    names = list(real)

    def of(*values):
        x = dict(zip(names, values, strict=True))
        return scores_of(name, x, x.get("scale", rest.get("scale")))

    values = tuple(torch.tensor(np.asarray(x, np.float64)) for x in real.values())
    moves = tuple(torch.tensor(np.asarray(tangents[n], np.float64)) for n in names)
    found = torch.func.jvp(of, values, moves)
    return [x[torch.isfinite(x)].abs().max().item() if x.numel() else 0.0 for x in found]


def _largest_terms(name, real, rest, tangents, incoming, dincoming):
    """Of gradients that are one number for many pairs, the largest term of their sums."""
    numbers = {n for n in ("slope", "sink", "scale", "center") if n in real}
    if not numbers or "bias" in real or "dcontext" not in incoming:
        return {}
    rows = (real["scores"], real["scores"].mT) if "scores" in real else (real["query"], real["key"])
    Tq, Tk = (x.shape[-2] for x in rows)
    bias = np.zeros((*incoming["dcontext"].shape[:-2], Tq, Tk))
    of_pairs = naive(name, {**real, "bias": bias}, rest, tangents, incoming, dincoming, np.float64)[
        "bias"
    ]
    largest = np.abs(of_pairs).max(initial=0)
    sigma = rest.get("sigma") or (rest["window"][0] / 2 if "center" in real else 1)
    factors = {"slope": Tk, "center": Tk / sigma**2}
    return {n: largest * factors.get(n, 1) for n in numbers}

"""Plain NumPy as a contender: the textbook formulas, with every array in full."""

import re

import numpy as np

from benchmarks import isa
from benchmarks.contenders import LeftOut
from benchmarks.inputs import COSINE_SCALE, valid_keys

# The largest array that a case may need here: with more, the run would last too long.
LARGEST = 2**27


def version():
    return np.__version__


def instructions():
    """Of its own loops, and the kind of processor for which OpenBLAS takes this one."""
    own = np.show_config(mode="dicts")["SIMD Extensions"]
    newest = [*own["baseline"], *own.get("found", ())][-1]
    cores = re.findall(r"Core: (\w+)", isa.said("import numpy", OPENBLAS_VERBOSE="2"))
    return ", ".join([newest, *(f"OpenBLAS: {core}" for core in cores[:1])])


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    largest = case.B * case.H * case.Tq * case.Tk * (case.D if case.mechanism == "additive" else 1)
    if largest > LARGEST:
        raise LeftOut(f"needs arrays of more than {LARGEST // 10**6} million numbers")
    allowed = valid_keys(case)
    if case.causal:
        allowed = np.tri(case.Tq, case.Tk, dtype=bool)
    function = {
        "dot_product": lambda q, k, v: dot_product(q, k, v, case.D**-0.5, allowed),
        "multiplicative": multiplicative,
        "additive": additive,
        "cosine": cosine,
    }[case.mechanism]
    arguments, dcontext = inputs

    def forward():
        return (function(*arguments)[0],)

    def forward_and_backward():
        context, backward = function(*arguments)
        return context, *backward(dcontext)

    return {"": forward_and_backward if case.backward else forward}


def results(case, output):
    """What a call returned, as arrays: the context, then the gradients of the arguments."""
    return output


# ---- the formulas: each returns the context and a function for the gradients ----


def attend(scores, value):
    """Softmax over the keys and the weighted mean of the values."""
    scores -= scores.max(-1, keepdims=True)
    weights = np.exp(scores, out=scores)
    weights /= weights.sum(-1, keepdims=True)
    context = weights @ value

    def backward(dcontext):
        dweights = dcontext @ transposed(value)
        dscores = weights * (dweights - (dcontext * context).sum(-1, keepdims=True))
        return dscores, transposed(weights) @ dcontext

    return context, backward


def dot_product(query, key, value, scale, allowed=None):
    scores = query @ transposed(key)
    scores *= scale
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    context, back_to_scores = attend(scores, value)

    def backward(dcontext):
        dscores, dvalue = back_to_scores(dcontext)
        dscores *= scale
        return dscores @ key, transposed(dscores) @ query, dvalue

    return context, backward


def multiplicative(query, key, value, weight):
    context, back_to_dot_product = dot_product(query @ weight, key, value, 1)

    def backward(dcontext):
        dprojected, dkey, dvalue = back_to_dot_product(dcontext)
        D = weight.shape[0]
        dweight = query.reshape(-1, D).T @ dprojected.reshape(-1, D)
        return dprojected @ weight.T, dkey, dvalue, dweight

    return context, backward


def additive(query, key, value, score_vector):
    hidden = np.tanh(query[:, :, None, :] + key[:, None, :, :])
    context, back_to_scores = attend(hidden @ score_vector, value)

    def backward(dcontext):
        dscores, dvalue = back_to_scores(dcontext)
        dsum = (1 - hidden**2) * score_vector * dscores[..., None]
        dscore_vector = dscores.reshape(-1) @ hidden.reshape(-1, hidden.shape[-1])
        return dsum.sum(2), dsum.sum(1), dvalue, dscore_vector

    return context, backward


def cosine(query, key, value):
    query_unit, back_to_query = normalise(query)
    key_unit, back_to_key = normalise(key)
    context, back_to_units = dot_product(query_unit, key_unit, value, COSINE_SCALE)

    def backward(dcontext):
        dquery_unit, dkey_unit, dvalue = back_to_units(dcontext)
        return back_to_query(dquery_unit), back_to_key(dkey_unit), dvalue

    return context, backward


def normalise(x):
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    unit = x / length

    def backward(dunit):
        return (dunit - unit * (unit * dunit).sum(-1, keepdims=True)) / length

    return unit, backward


def transposed(x):
    return x.swapaxes(-1, -2)

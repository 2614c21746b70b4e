"""The formulas of attention and of its gradients, as `stages` shows them.

Every stage has a letter, and the gradient of x is dx:

    q_i k_j v_j   rows of query, key, value         c_i   context
    x_i y_j       projections or directions of q_i and k_j
    p_ij  products   u_ij  units   s_ij  scores     t_ij  capped   l_ij  masked
    w_ij  weights    P_ij  softmax, times g_ij, the Gaussian, the weights
    m_ij  what dropout multiplies a weight by

What is no mathematics stands between ` and `, which are not shown. ``*`` multiplies number by
number, ``.`` is a product of vectors, and a sum over i or j is within
one element of the batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

NOT_ALLOWED = "`where query i may not attend to key j`"
NO_KEY = "`where query i may attend to no key`"

# FORWARD has the stages up to the scores; those that need a weight are shown where there is one.
FORWARD: dict[str, dict[str, str]] = {
    "dot_product_attention": {
        "products": "p_ij = q_i . k_j",
        "scores": "s_ij = scale p_ij",
    },
    "multiplicative_attention": {
        "projected_query": "x_i = q_i W",
        "products": "p_ij = x_i . k_j = q_i W k_j",
        "scores": "s_ij = p_ij",
    },
    "additive_attention": {
        "projected_query": "x_i = q_i Wq",
        "projected_key": "y_j = k_j Wk",
        "units": "u_ij = tanh({x} + {y}{b})",
        "scores": "s_ij = v_a . u_ij",
    },
    "cosine_attention": {
        "query_direction": "x_i = q_i / |q_i|",
        "key_direction": "y_j = k_j / |k_j|",
        "products": "p_ij = x_i . y_j",
        "scores": "s_ij = scale p_ij",
    },
    "attend": {"scores": "s_ij: `given`"},
}

_OF_SUM = "du_ij * (1 - u_ij^2)"  # the gradient before the tanh

# BACK_TO has the gradients from the scores on to the arguments.
BACK_TO: dict[str, dict[str, str]] = {
    "dot_product_attention": {
        "products": "dp_ij = scale ds_ij",
        "query": "dq_i = sum_j dp_ij k_j",
        "key": "dk_j = sum_i dp_ij q_i",
        "scale": "dscale = sum_ij ds_ij p_ij",
    },
    "multiplicative_attention": {
        "products": "dp_ij = ds_ij",
        "projected_query": "dx_i = sum_j dp_ij k_j",
        "query": "dq_i = dx_i W^T",
        "key": "dk_j = sum_i dp_ij x_i",
        "weight": "dW = sum_i q_i^T dx_i",
    },
    "additive_attention": {
        "units": "du_ij = ds_ij v_a",
        "projected_query": f"dx_i = sum_j {_OF_SUM}",
        "projected_key": f"dy_j = sum_i {_OF_SUM}",
        "query": f"dq_i = sum_j {_OF_SUM}",
        "key": f"dk_j = sum_i {_OF_SUM}",
        "score_vector": "dv_a = sum_ij ds_ij u_ij",
        "query_weight": "dWq = sum_i q_i^T dx_i",
        "key_weight": "dWk = sum_j k_j^T dy_j",
        "score_bias": f"db = sum_ij {_OF_SUM}",
    },
    "cosine_attention": {
        "products": "dp_ij = scale ds_ij",
        "query_direction": "dx_i = sum_j dp_ij y_j",
        "key_direction": "dy_j = sum_i dp_ij x_i",
        "query": "dq_i = (dx_i - (x_i . dx_i) x_i) / |q_i|",
        "key": "dk_j = (dy_j - (y_j . dy_j) y_j) / |k_j|",
        "scale": "dscale = sum_ij ds_ij p_ij",
    },
    "attend": {},
}


class Indices(NamedTuple):
    """How rows of queries and of keys, and their pairs, are numbered."""

    i: str = "i"
    j: str = "j"
    ij: str = "ij"


PLAIN = Indices()


def _distance(options: dict[str, Any], Tq: int, Tk: int) -> str:
    """|j - p|, where query i is at the position p."""
    offset = options.get("causal_offset")
    offset = Tk - Tq if offset is None else offset
    if np.ndim(offset):
        return "|j - i - causal_offset|"
    return f"|j - i{'' if not offset else f' - {offset}' if offset > 0 else f' + {-offset}'}|"


def gaussian(options: dict[str, Any]) -> bool:
    """Whether there is a Gaussian around a center."""
    return options.get("center") is not None and options.get("sigma") != np.inf


def _or_zero(allowed: Any) -> str:
    """What is said of a fraction in which an empty row is 0 / 0, if there is such a row."""
    return "" if np.asarray(allowed).any(-1).all() else f", 0 {NO_KEY}"


def _softmax(options: dict[str, Any], allowed: Any, to: str, of: Indices) -> str:
    """How the weights come from the masked scores l."""
    normalizer, masked = options.get("normalizer", "softmax"), f"l_{of.ij}"
    zero = _or_zero(allowed)
    if normalizer == "sparsemax":
        return f"{to} = max({masked} - tau_{of.i}, 0), `which sum to 1: sparsemax over j`{zero}"
    if normalizer == "entmax15":
        root = f"max({masked} / 2 - tau_{of.i}, 0)"
        return f"{to} = {root}^2, `which sum to 1: 1.5-entmax over j`{zero}"
    total = f"sum_j exp({masked})"
    if options.get("sink") is not None:
        total, zero = f"(exp(sink) + {total})", ""
    return f"{to} = exp({masked}) / {total}: `softmax over j`{zero}"


def forward(
    options: dict[str, Any], allowed: Any, of: Indices = PLAIN, value: str = "v_j"
) -> dict[str, str]:
    """The stages after the scores.

    Parameters
    ----------
    options : dict
        Of the call.
    allowed : ndarray of bool, shape (..., Tq, Tk)
        Which query may attend to which key.
    of : Indices
    value : str
        A row of the values.

    Returns
    -------
    dict of str to str
    """
    i, _, ij = of
    cap = options.get("softcap")
    found = {
        "capped": f"t_{ij} = {cap} tanh(s_{ij} / {cap})"
        if cap is not None
        else f"t_{ij} = s_{ij}: `there is no softcap`"
    }
    terms, square = f"t_{ij}", f"(j - center_{i})^2 / (2 sigma^2)"
    if options.get("slope") is not None:
        terms += f" - slope {_distance(options, *allowed.shape[-2:])}"
    if options.get("bias") is not None:
        terms += f" + bias_{ij}"
    outside = gaussian(options) and not options.get("renormalize")
    if gaussian(options) and not outside:
        terms += f" - {square}"
    found["masked"] = f"l_{ij} = {terms}" + (
        ": `nothing is masked`" if allowed.all() else f", -inf {NOT_ALLOWED}"
    )
    if outside:
        found["softmax"] = _softmax(options, allowed, f"P_{ij}", of)
        found["gaussian"] = f"g_{ij} = exp(-{square})"
        found["weights"] = f"w_{ij} = P_{ij} g_{ij}"
    else:
        found["weights"] = _softmax(options, allowed, f"w_{ij}", of)
    kept = f"w_{ij}"
    if options.get("dropout"):
        kept, rate = f"m_{ij} w_{ij}", options["dropout"]
        found["kept"] = (
            f"m_{ij} = 1 / (1 - {rate}) `where a weight is kept`, 0 `where it is dropped`"
        )
    found["context"] = f"c_{i} = sum_j {kept} {value}"
    return found


def backward(
    options: dict[str, Any],
    allowed: Any,
    given: dict[str, Any],
    of: Indices = PLAIN,
    value: str = "v_j",
) -> dict[str, str]:
    """The gradients from the weights back to the scores.

    Parameters
    ----------
    options, allowed, of, value
        As in `forward`.
    given : dict
        The incoming gradients by name, None where there is none.

    Returns
    -------
    dict of str to str
    """
    i, _, ij = of
    terms = []
    if any(given[name] is not None for name in given if name not in ("dweights", "dlse")):
        terms.append(("m_" + ij + " " if options.get("dropout") else "") + f"dc_{i} . {value}")
    if given["dweights"] is not None:
        terms.append("`given`")
    found = {"weights": f"dw_{ij} = {' + '.join(terms) or '0'}"}
    if not allowed.all():
        found["weights"] += f", 0 {NOT_ALLOWED}"
    w = f"w_{ij}"
    if gaussian(options) and not options.get("renormalize"):
        w = f"P_{ij}"
        found["gaussian"] = f"dg_{ij} = P_{ij} dw_{ij}"
        found["softmax"] = f"dP_{ij} = g_{ij} dw_{ij}"
    normalizer = options.get("normalizer", "softmax")
    if normalizer == "sparsemax":
        text = f"dw_{ij} - `the mean of` dw_{ij} `over all` w_{ij} > 0; 0 `where` w_{ij} = 0"
    elif normalizer == "entmax15":
        r = f"r_{ij}"
        text = f"{r} (dw_{ij} - sum_j {r} dw_{ij} / sum_j {r}), {r} = sqrt(w_{ij})"
        text += _or_zero(allowed)
    else:
        text = f"{w} (d{w} - sum_j {w} d{w}{'' if given['dlse'] is None else f' + dlse_{i}'})"
    cap = options.get("softcap")
    found["masked"] = f"dl_{ij} = {text}"
    found["capped"] = f"dt_{ij} = dl_{ij}"
    found["scores"] = f"ds_{ij} = dt_{ij}" + (
        "" if cap is None else f" (1 - tanh(s_{ij} / {cap})^2)"
    )
    return found


def options_back(
    options: dict[str, Any], allowed: Any, given: dict[str, Any], of: Indices = PLAIN
) -> dict[str, str]:
    """The gradients of the options that have one, from those of the stages.

    Parameters
    ----------
    options, allowed, given, of
        As in `backward`.

    Returns
    -------
    dict of str to str
    """
    i, _, ij = of
    outside = gaussian(options) and not options.get("renormalize")
    w = f"P_{ij}" if outside else f"w_{ij}"
    of_sink = f"-sum_{i} (1 - sum_j {w}) sum_j {w} d{w}"
    if given["dlse"] is not None:
        of_sink = f"sum_{i} (1 - sum_j {w}) (dlse_{i} - sum_j {w} d{w})"
    padding = given["dlse"] is not None and options.get("query_lengths") is not None
    dlog = f"w_{ij} dw_{ij}" if outside else f"dl_{ij}"
    return {
        "bias": f"dbias_{ij} = dl_{ij}",
        "slope": f"dslope = -sum_{ij} dl_{ij} {_distance(options, *allowed.shape[-2:])}",
        "sink": f"dsink = {of_sink}" + (" `over all i < query_lengths`" if padding else ""),
        "center": f"dcenter_{i} = sum_j {dlog} (j - center_{i}) / sigma^2"
        if gaussian(options)
        else f"dcenter_{i} = 0: `there is no Gaussian`",
    }


def summed(shape: tuple[int, ...], full: tuple[int, ...], letters: str) -> str:
    """Over which axes a gradient is summed besides, because its array was broadcast along them.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    full : tuple of int
        What it was broadcast to.
    letters : str
        Names of the last axes of `full`; those before are the batch.

    Returns
    -------
    str
        "" if none.

    Examples
    --------
    >>> from attnc.teaching.formulas import summed
    >>> summed((1, 5, 1), (2, 5, 7), "ij")
    ', `summed over the batch and j`'
    """
    shape = (1,) * (len(full) - len(shape)) + shape
    differs = [a != b for a, b in zip(shape, full, strict=True)]
    lead = len(full) - len(letters)
    axes = ["the batch"] * any(differs[:lead])
    axes += [letter for letter, differ in zip(letters, differs[lead:], strict=True) if differ]
    return f", `summed over {' and '.join(axes)}`" if axes else ""

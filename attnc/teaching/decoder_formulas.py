"""The formulas of one step of an `AttentionDecoder` and of its gradients, as `stages` shows them.

Those of attention have one query: the state that asks. So i is left out, rows of the memory are
keys and values, q is the projected query (or its direction) and k_j a projected row of the memory.
C_j is the coverage before the step, C'_j the one after it. The cells have the letters of
`attnc.teaching.recurrent_formulas`.
"""

from __future__ import annotations

import re
from typing import Any

from attnc.teaching.formulas import BACK_TO, FORWARD, backward, forward, options_back

SCORES = {
    "additive": "additive_attention",
    "multiplicative": "multiplicative_attention",
    "dot": "dot_product_attention",
    "cosine": "cosine_attention",
}
# ROWS are the letters of a query, and of rows of the memory, in the place of those of attention.
ROWS = {
    "q_i": "query",
    "k_j": "memory_j",
    "v_j": "memory_j",
    "x_i": "q",
    "y_j": "k_j",
    "c_i": "context",
    "dq_i": "dquery",
    "dk_j": "dkey_j",
    "dv_j": "dvalue_j",
    "dx_i": "dq",
    "dy_j": "dk_j",
    "dc_i": "dcontext",
    "center_i": "center",
    "dcenter_i": "dcenter",
    "tau_i": "tau",
}


def of_one_query(formula: str) -> str:
    """A formula of attention for a single query.

    Parameters
    ----------
    formula : str

    Returns
    -------
    str

    Examples
    --------
    >>> from attnc.teaching.decoder_formulas import of_one_query
    >>> of_one_query("dx_i = sum_j du_ij * (1 - u_ij^2)")
    'dq = sum_j du_j * (1 - u_j^2)'
    """
    formula = re.sub(r"\bd?[a-z]+_[ij]\b", lambda found: ROWS.get(found[0], found[0]), formula)
    formula = formula.replace("sum_ij", "sum_j").replace("sum_i ", "")
    formula = re.sub(r"_ij\b", "_j", formula)
    formula = formula.replace("query i may attend to no key", "all keys are masked")
    return formula.replace("query i may not attend to key j", "key j is masked")


def decoder_forward(decoder: Any, given: dict[str, Any], allowed: Any) -> dict[str, str]:
    """The formulas of attention in a step.

    Parameters
    ----------
    decoder : AttentionDecoder
    given : dict
        The options of attention that the step has, as in `attnc.teaching.formulas.forward`.
    allowed : ndarray of bool, shape (B, 1, Tk)

    Returns
    -------
    dict of str to str
    """
    if decoder.attention == "none":
        last = "w_j = 1 `for the last key that is not masked, else` 0"
        return {"weights": last, "context": "context = sum_j w_j memory_j"}
    found = {}
    if decoder.coverage == "fertility":
        found["fertility"] = "Phi_j = max_fertility sigmoid(memory_j . fertility_vector)"
    if decoder.window is not None:
        if decoder.position == "predictive":
            found["position_units"] = "t = tanh(query position_weight)"
            last = "last: `the last key that is not masked`"
            found["center"] = f"center = last sigmoid(position_vector . t), {last}"
        else:
            found["center"] = "center = `the number of steps before this one`"
    own = dict(FORWARD[SCORES[decoder.attention]])
    if decoder.attention == "dot":
        own["scores"] = "s_ij = p_ij"
    if "units" in own:
        own["units"] = "u_ij = tanh(x_i + y_j)"
    found |= own
    found |= {name: text for name, text in forward(given, allowed).items() if name != "capped"}
    found["masked"] = found["masked"].replace("t_ij", "s_ij")
    found = {name: of_one_query(text) for name, text in found.items()}
    if decoder.coverage == "tanh":
        found["projected_key"] += " + C_j coverage_vector"
    elif decoder.coverage:
        found["masked"] = found["masked"].replace("bias_j", "coverage_weight C_j")
    if decoder.coverage:
        phi = " / Phi_j" if decoder.coverage == "fertility" else ""
        found["new_coverage"] = f"C'_j = C_j + w_j{phi}"
    return found


def decoder_backward(
    decoder: Any, given: dict[str, Any], allowed: Any, incoming: dict[str, Any]
) -> dict[str, str]:
    """The formulas of the gradients of attention in a step, and of what it takes.

    Parameters
    ----------
    decoder, given, allowed
        As in `decoder_forward`.
    incoming : dict
        Whether there is a gradient of ``dweights``, and of ``dcoverage``.

    Returns
    -------
    dict of str to str
    """
    if decoder.attention == "none":
        return {"value": "dvalue_j = w_j dcontext"}
    back = BACK_TO[SCORES[decoder.attention]] | options_back(given, allowed, {"dlse": None})
    flow = {"dcontext": 1, "dweights": incoming["dweights"], "dlse": None}
    found = backward(given, allowed, flow) | back
    found["masked"] = found["masked"].replace("dt_ij", "ds_ij")
    found["scores"] = "ds_ij = dl_ij"
    found["value"] = "dv_j = sum_i w_ij dc_i"
    del found["capped"]
    if decoder.attention == "dot":
        found["products"] = "dp_ij = ds_ij"
    if decoder.attention == "multiplicative":
        found["query"] = "dq_i = dx_i W^T"
    elif decoder.attention == "additive":
        found["query"], found["key"] = "dq_i = dx_i Wq^T", "dk_j = dy_j Wk^T"
    found = {name: of_one_query(text) for name, text in found.items()}
    if decoder.coverage and incoming["dcoverage"]:
        phi = " / Phi_j" if decoder.coverage == "fertility" else ""
        more = f" + dC'_j{phi}"
        head, comma, tail = found["weights"].partition(", 0 `where")
        found["weights"] = head + more + comma + tail
        found["new_coverage"] = "dC'_j: `given`"
    dcoverage = "dC'_j + " if decoder.coverage and incoming["dcoverage"] else ""
    if decoder.coverage == "tanh":
        found["coverage"] = f"dC_j = {dcoverage}dk_j . coverage_vector"
        found["coverage_vector"] = "dcoverage_vector = sum_j C_j dk_j, `summed over the batch`"
    elif decoder.coverage:
        found["coverage"] = f"dC_j = {dcoverage}coverage_weight dl_j"
        found["coverage_weight"] = "dcoverage_weight = sum_j C_j dl_j, `summed over the batch`"
    memory = "dmemory_j = dkey_j + dvalue_j"
    if decoder.coverage == "fertility":
        slope = "dPhi_j Phi_j (1 - Phi_j / max_fertility)"
        found["fertility"] = "dPhi_j = " + (
            "-dC'_j w_j / Phi_j^2" if incoming["dcoverage"] else "0"
        )
        memory += f" + {slope} fertility_vector"
        found["fertility_vector"] = (
            f"dfertility_vector = sum_j {slope} memory_j, `summed over the batch`"
        )
    found["memory"] = memory + ("" if allowed.all() else ", 0 `where key j is masked`")
    if decoder.window is not None and decoder.position == "predictive":
        dz = "dcenter center (1 - center / last)"
        found["position_units"] = f"dt = {dz} position_vector"
        found["position_vector"] = f"dposition_vector = {dz} t, `summed over the batch`"
        found["position_weight"] = (
            "dposition_weight = query^T (dt * (1 - t^2)), `summed over the batch`"
        )
        found["query"] = found.pop("query") + " + (dt * (1 - t^2)) position_weight^T"
    else:
        found.pop("center", None)
    for name in ("score_vector", "weight", "query_weight", "key_weight", "scale"):
        if name in found:
            found[name] += ", `summed over the batch`"
    return found

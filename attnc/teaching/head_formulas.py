"""The formulas of a layer with heads and of its gradients, as `stages` shows them.

Those of attention with one more index h, the head; g is the head of keys and values that serves it.
x and y are what is projected and not yet normalised or turned, u and z what is normalised and not
yet turned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc.layers.multihead import MultiHeadAttention
from attnc.teaching.formulas import Indices, backward, forward, options_back

OF = Indices("hi", "hj", "hij")


def _served(layer: MultiHeadAttention) -> str:
    """The index of the heads of keys."""
    return "h" if layer.num_kv_heads == layer.num_heads else "g"


def _position(options: dict[str, Any], allowed: Any) -> str:
    """That of query i, for what is turned."""
    offset = options.get("causal_offset")
    if offset is None:
        offset = allowed.shape[-1] - allowed.shape[-2]
    if np.ndim(offset):
        return "i + causal_offset"
    return f"i + {offset}" if offset > 0 else f"i - {-offset}" if offset < 0 else "i"


def _chain(layer: MultiHeadAttention, name: str, row: str) -> list[tuple[str, str]]:
    """The stages from what is projected to what the heads compare, and their letters."""
    letters = {"queries": "xuq", "keys": "yzk"}[name]
    chain = []
    if layer.normalize_qk or layer.rotary:
        chain.append((f"projected_{name}", f"{letters[0]}_{row}"))
    if layer.normalize_qk and layer.rotary:
        chain.append((f"normalised_{name}", f"{letters[1]}_{row}"))
    return [*chain, (name, f"{letters[2]}_{row}")]


def heads_forward(
    layer: MultiHeadAttention, options: dict[str, Any], allowed: Any
) -> dict[str, str]:
    """The formulas of all stages.

    Parameters
    ----------
    layer : MultiHeadAttention
    options : dict
        Of the call.
    allowed : ndarray of bool, shape (..., H, Tq, Tk)

    Returns
    -------
    dict of str to str
    """
    g, found = _served(layer), {}
    rows = {"queries": ("query", "hi", "Q"), "keys": ("key", f"{g}j", "K")}
    for name, (argument, row, letter) in rows.items():
        head, index = row[0], row[1]
        chain = _chain(layer, name, row)
        bias = f" + b_{head}^{letter}" if layer.projection_bias else ""
        found[chain[0][0]] = f"{chain[0][1]} = {argument}_{index} W_{head}^{letter}{bias}"
        for (_, before), (stage, symbol) in zip(chain, chain[1:], strict=False):
            if layer.normalize_qk and before[0] in "xy":
                found[stage] = f"{symbol} = {argument}_scale * {before} / rms({before})"
            else:
                place = _position(options, allowed) if argument == "query" else "j"
                found[stage] = f"{symbol} = {before} `turned to position` {place}"
    bias = f" + b_{g}^V" if layer.projection_bias else ""
    found["values"] = f"v_{g}j = value_j W_{g}^V{bias}"
    groups = layer.num_heads // layer.num_kv_heads
    found["products"] = f"p_hij = q_hi . k_{g}j" + (f", g = h // {groups}" if g == "g" else "")
    found["scores"] = "s_hij = scale p_hij" + ("" if layer.scale else ", scale = 1 / sqrt(D)")
    of_attention = forward(options, allowed, OF, f"v_{g}j")
    of_attention["contexts"] = of_attention.pop("context")
    found |= of_attention
    found["merged"] = "c_1i, c_2i, ... `side by side`"
    found["output"] = "o_i = sum_h c_hi W_h^O" + (" + b^O" if layer.projection_bias else "")
    return found


def heads_backward(
    layer: MultiHeadAttention, options: dict[str, Any], allowed: Any, given: dict[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """The formulas of the gradients of all stages, and of all arguments.

    Parameters
    ----------
    layer, options, allowed
        As in `heads_forward`.
    given : dict
        The incoming gradients by name, None where there is none.

    Returns
    -------
    pair of dict of str to str
    """
    g = _served(layer)
    over = "" if g == "h" else "sum_(h of g) "
    kept = "m_hij w_hij" if options.get("dropout") else "w_hij"
    back = {
        "output": "do_i: `given`" if given["doutput"] is not None else "do_i = 0",
        "merged": "dc_1i, dc_2i, ... `side by side`",
        "contexts": "dc_hi = do_i W_h^O^T",
        **backward(options, allowed, given, OF, f"v_{g}j"),
        "products": "dp_hij = scale ds_hij",
        "queries": f"dq_hi = sum_j dp_hij k_{g}j",
        "keys": f"dk_{g}j = {over}sum_i dp_hij q_hi",
        "values": f"dv_{g}j = {over}sum_i {kept} dc_hi",
    }
    arguments = options_back(options, allowed, given, OF)
    rows = {"queries": ("query", "hi", "Q"), "keys": ("key", f"{g}j", "K")}
    for name, (argument, row, letter) in rows.items():
        chain = _chain(layer, name, row)
        for (stage, symbol), (_, after) in reversed(list(zip(chain, chain[1:], strict=False))):
            if layer.normalize_qk and symbol[0] in "xy":
                r = f"rms({symbol})"
                back[stage] = (
                    f"d{symbol} = (e - mean(e * n) n) / {r}, e = d{after} * {argument}_scale, "
                    f"n = {symbol} / {r}"
                )
                arguments[f"{argument}_scale"] = (
                    f"d{argument}_scale = sum_{row} d{after} * {symbol} / {r}"
                )
            else:
                back[stage] = f"d{symbol} = d{after} `turned back by the same angles`"
        _projection(arguments, argument, chain[0][1], letter)
    _projection(arguments, "value", f"v_{g}j", "V")
    arguments["output_weight"] = "dW_h^O = sum_i c_hi^T do_i"
    arguments["output_bias"] = "db^O = sum_i do_i"
    return back, arguments


def _projection(arguments: dict[str, str], argument: str, symbol: str, letter: str) -> None:
    """The gradients of an input of the layer, and of the weight and bias that project it."""
    head, index = symbol[-2], symbol[-1]
    arguments[argument] = f"d{argument}_{index} = sum_{head} d{symbol} W_{head}^{letter}^T"
    arguments[f"{argument}_weight"] = (
        f"dW_{head}^{letter} = sum_{index} {argument}_{index}^T d{symbol}"
    )
    arguments[f"{argument}_bias"] = f"db_{head}^{letter} = sum_{index} d{symbol}"

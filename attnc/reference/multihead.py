"""Multi-head attention in plain NumPy: the formula of the paper, and its derivatives by hand.

    queries   q_h = query W_h^Q + b_h^Q       of head h, (Tq, D); likewise k_h and v_h
    contexts  c_h = softmax(scale q_h k_h^T) v_h
    output    o   = sum_h c_h W_h^O + b^O
    and back  dc_h = do W_h^O^T               then back through attention: dq_h, dk_h, dv_h
              dquery = sum_h dq_h W_h^Q^T     dW_h^Q = query^T dq_h     db_h^Q = sum_i dq_h

Vaswani et al. 2017, "Attention is all you need", section 3.2.2. `vjp` gives the gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc.reference.attention import Gradients, differentiable, dot_product_attention, vjp
from attnc.reference.norm import rms_norm
from attnc.reference.rotary import rotary as turn
from attnc.typing import Real

__all__ = ["multi_head_attention"]

# How many axes an option of sequences has after the leading ones.
AXES = {
    "mask": 2, "bias": 2, "key_mask": 1,
    "key_lengths": 0, "query_lengths": 0, "causal_offset": 0, "sink": 0, "slope": 0,
    "center": 1,
}  # fmt: skip


@differentiable
def multi_head_attention(
    query: Real,
    key: Real,
    value: Real,
    query_weight: Real,
    key_weight: Real,
    value_weight: Real,
    output_weight: Real,
    *,
    query_bias: Real | None = None,
    key_bias: Real | None = None,
    value_bias: Real | None = None,
    output_bias: Real | None = None,
    query_scale: Real | None = None,
    key_scale: Real | None = None,
    rotary: bool = False,
    scale: float | None = None,
    dtype: Any = np.float64,
    **common: Any,
) -> Any:
    """Attention of H heads: Vaswani et al. 2017.

    Parameters
    ----------
    query, key, value : arrays (..., Tq, Eq), (..., Tk, Ek), (..., Tk, Ev)
    query_weight, key_weight, value_weight : arrays (Eq, H, D), (Ek, G, D), (Ev, G, D)
        G divides H: each head of keys and values serves H / G neighbouring heads of queries
        (Ainslie et al. 2023).
    output_weight : array (H, D, Eo)
    query_bias, key_bias, value_bias, output_bias : arrays (H, D), (G, D), (G, D), (Eo,), optional
    query_scale, key_scale : arrays (D,), optional
        Queries and keys are divided by their root mean square and multiplied by these.
    rotary : bool
        Queries are turned to their positions i + causal_offset, keys to j.
    scale : float, optional
        1 / sqrt(D) unless given.
    dtype : type
        What to compute in.
    **common
        The options that all attention functions share, of all heads, with the leading axes of the
        inputs; or one more axis, of heads, after these.

    Returns
    -------
    output (..., Tq, Eo), or a named tuple with weights (..., H, Tq, Tk) and lse (..., H, Tq).
    """
    inputs = _arrays(dtype, query=query, key=key, value=value)
    weights = _arrays(dtype, query=query_weight, key=key_weight, value=value_weight)
    biases = _arrays(dtype, query=query_bias, key=key_bias, value=value_bias, output=output_bias)
    scales = {"query": query_scale, "key": key_scale}
    out = np.asarray(output_weight, dtype)
    H, lead = len(out), inputs["query"].ndim - 2

    given = {name: np.shape(option) for name, option in common.items()}
    for name, option in common.items():
        if np.ndim(option) and np.ndim(option) == lead + AXES.get(name, np.inf):
            common[name] = np.expand_dims(option, lead)  # the same for every head
    offset = common.get("causal_offset")
    if offset is None:
        offset = inputs["key"].shape[-2] - inputs["query"].shape[-2]
    if not common.get("causal") and common.get("window") is None:
        common.pop("causal_offset", None)

    heads, steps_back, shown = {}, {}, {}  # shown: the stages, for `attnc.stages`
    for name, x in inputs.items():
        y = np.einsum("...te,ehd->...htd", x, weights[name])
        if name in biases:
            y = y + biases[name][:, None]
        back = []  # (the stage that a step takes, the way back through it)
        if scales.get(name) is not None:
            shown[f"projected_{PROJECTED[name]}"] = y
            back.append((f"projected_{PROJECTED[name]}", _norm_back(y, scales[name], dtype)))
            y = rms_norm(y, scales[name], dtype=dtype)
        if rotary and name != "value":
            stage = f"{'normalised' if back else 'projected'}_{PROJECTED[name]}"
            at, shown[stage] = offset if name == "query" else 0, y
            y, turn_back = vjp(turn, y, offset=at, dtype=dtype)
            back.append((stage, turn_back))
        heads[name], steps_back[name] = y, back[::-1]
        shown[PROJECTED[name]] = y

    # Each head of keys and values as often as it is used.
    groups = H // heads["key"].shape[-3]
    spread = [np.repeat(heads[name], groups, axis=-3) for name in ("key", "value")]
    result, attention_back = vjp(
        dot_product_attention, heads["query"], *spread, scale=scale, dtype=dtype, **common
    )
    contexts = result[0] if isinstance(result, tuple) else result
    output = np.einsum("...htd,hdo->...to", contexts, out)
    if "output" in biases:
        output = output + biases["output"]

    def stage_gradients(doutput=None, dweights=None, dlse=None):
        """The gradient at every stage, and of every argument."""
        doutput = np.zeros_like(output) if doutput is None else np.asarray(doutput, dtype)
        dcontexts = np.einsum("...to,hdo->...htd", doutput, out)
        of_attention = attention_back(dcontexts, dweights=dweights, dlse=dlse)
        at = attention_back.stage_gradients(dcontexts, dweights, dlse)
        found = {"output": doutput}
        found |= at | {"contexts": at["context"]}
        gradients = {"output_weight": _weight_gradient(_together(contexts), doutput, out.shape)}
        if "output" in biases:
            gradients["output_bias"] = _over_rows(doutput, 1)
        for name, x in inputs.items():
            d = of_attention.__dict__[name]
            if name != "query":  # the sum over the heads that it served
                heads = d.shape[-3] // groups
                d = d.reshape(*d.shape[:-3], heads, groups, *d.shape[-2:]).sum(axis=-3)
            found[PROJECTED[name]] = d
            for stage, step in steps_back[name]:
                gradient = step(d)
                found[stage] = d = gradient.x
                if "weight" in vars(gradient):
                    gradients[f"{name}_scale"] = gradient.weight
            gradients[name] = np.einsum("...htd,ehd->...te", d, weights[name])
            gradients[f"{name}_weight"] = _weight_gradient(x, _together(d), weights[name].shape)
            if name in biases:
                gradients[f"{name}_bias"] = _over_rows(_together(d), 2)
        for name, gradient in vars(of_attention).items():
            if name in given:
                gradients[name] = gradient.reshape(given[name])
        return found, gradients

    @np.errstate(all="ignore")
    def pullback(doutput=None, *, dweights=None, dlse=None):
        _, gradients = stage_gradients(doutput, dweights, dlse)
        required = [*inputs, *(f"{name}_weight" for name in (*inputs, "output"))]
        return Gradients({name: gradients[name] for name in required} | gradients, required)

    with_stages: Any = pullback
    with_stages.stages = shown | attention_back.stages | {"contexts": contexts, "output": output}
    with_stages.allowed = attention_back.allowed
    with_stages.stage_gradients = stage_gradients
    if hasattr(result, "_replace"):
        return result._replace(context=output), pullback
    return output, pullback


PROJECTED = {"query": "queries", "key": "keys", "value": "values"}


def _arrays(dtype, **arrays):
    """Those that were given."""
    return {name: np.asarray(x, dtype) for name, x in arrays.items() if x is not None}


def _norm_back(x, scale, dtype):
    """The pullback of `rms_norm`; a row that no gradient reaches, as of padding, is not read."""

    def pullback(d):
        reached = d.any(axis=-1, keepdims=True)
        return vjp(rms_norm, np.where(reached, x, 0), scale, dtype=dtype)[1](d)

    return pullback


def _together(x):
    """(..., H, T, D) as (..., T, H, D): the numbers of all heads of a step side by side."""
    return np.swapaxes(x, -2, -3)


def _weight_gradient(x, d, shape):
    """The sum of x^T d over all rows; one that no gradient reaches, as of padding, is not read."""
    columns = int(np.prod(shape[1:]) if x.ndim < d.ndim else shape[-1])
    rows = d.size // columns
    # There may be no rows, of which no reshape can tell how long they are.
    x, d = x.reshape(rows, int(np.prod(shape)) // columns), d.reshape(rows, columns)
    return (np.where(d.any(axis=-1, keepdims=True), x, 0).T @ d).reshape(shape)


def _over_rows(d, axes):
    """The sum over all axes but the last ones."""
    return d.sum(axis=tuple(range(d.ndim - axes)))

"""The stages of a call of an attention function, and of a layer with heads, with their gradients.

The arrays come from the formulas of `attnc.reference`, what is written beside them from
`attnc.teaching.formulas`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc import reference
from attnc.gradients import require_incoming
from attnc.layers.multihead import MultiHeadAttention
from attnc.reference.multihead import AXES
from attnc.teaching.formulas import (
    BACK_TO,
    FORWARD,
    backward,
    forward,
    options_back,
    summed,
)
from attnc.teaching.head_formulas import heads_backward, heads_forward
from attnc.teaching.incoming import incoming_gradient
from attnc.teaching.table import Computed, Entry, Table
from attnc.typing import Array, DType, Real

__all__ = ["MultiHeadStages", "Stages"]

# STAGE_AXES are the axes of what is on the way, as in `Entry`.
STAGE_AXES = {
    "projected_query": "...id",
    "projected_key": "...jd",
    "query_direction": "...id",
    "key_direction": "...jd",
    "products": "...ij",
    "units": "...ijd",
    "scores": "...ij",
    "capped": "...ij",
    "masked": "...ij",
    "softmax": "...ij",
    "gaussian": "...ij",
    "weights": "...ij",
    "kept": "...ij",
    "context": "...id",
}
HEAD_AXES = {
    **{stage: axes.replace("...", "...h") for stage, axes in STAGE_AXES.items()},
    **dict.fromkeys(("queries", "projected_queries", "normalised_queries"), "...hid"),
    **dict.fromkeys(("keys", "projected_keys", "normalised_keys", "values"), "...gjd"),
    "contexts": "...hid",
    "merged": "...id",
    "output": "...id",
}
ARGUMENT_AXES = {
    "query": "...id",
    "key": "...jd",
    "value": "...jd",
    "weight": "de",
    "score_vector": "d",
    "query_weight": "ed",
    "key_weight": "ed",
    "score_bias": "d",
    "scale": "",
    "scores": "...ij",
    "bias": "...ij",
    "slope": "...",
    "sink": "...",
    "center": "...i",
}
HEAD_ARGUMENT_AXES = {
    "query": "...id",
    "key": "...jd",
    "value": "...jd",
    "query_weight": "ehd",
    "key_weight": "egd",
    "value_weight": "egd",
    "output_weight": "hde",
    "query_bias": "hd",
    "key_bias": "gd",
    "value_bias": "gd",
    "output_bias": "e",
    "query_scale": "d",
    "key_scale": "d",
    "bias": "...hij",
    "slope": "...h",
    "sink": "...h",
    "center": "...hi",
}


class Stages(Computed):
    """The stages of one call, each an array over all leading axes, in the computing dtype.

    The arrays are copies: what is written into them changes neither the gradients nor the inputs.
    Can be copied and pickled. `shown` chooses what is printed, and names rows and columns.

    Parameters
    ----------
    name : str
        Of the function. `attnc.stages` checks all this, and makes the copies.
    arrays : tuple
    options : dict
    dtype : type
        What is computed in.

    Attributes
    ----------
    projected_query, projected_key : ndarray
        ``(..., Tq, A)``, ``(..., Tk, A)``: of `attnc.additive_attention`, where it is given their
        weights; the first ``(..., Tq, Dk)`` of `attnc.multiplicative_attention`.
    query_direction, key_direction : ndarray
        ``(..., Tq, D)``, ``(..., Tk, D)``: of `attnc.cosine_attention`.
    products : ndarray
        ``(..., Tq, Tk)``, what is scaled: not of `attnc.attend`, nor of
        `attnc.additive_attention`.
    units : ndarray
        ``(..., Tq, Tk, A)``, the tanh units of `attnc.additive_attention`.
    scores : ndarray
        ``(..., Tq, Tk)``, what the mechanism gives, scale included.
    capped : ndarray
        ``(..., Tq, Tk)``, after `softcap`.
    masked : ndarray
        ``(..., Tq, Tk)``, after `slope`, `bias` and all masks: ``-inf`` where a query may not
        attend; and after the Gaussian around a `center`, with `renormalize`.
    softmax, gaussian : ndarray
        ``(..., Tq, Tk)``, the factors of the weights where there is a `center`, without
        `renormalize`.
    weights : ndarray
        ``(..., Tq, Tk)``, their softmax, times the Gaussian without `renormalize`, before dropout.
    kept : ndarray
        ``(..., Tq, Tk)``, what `dropout` multiplies them by.
    context : ndarray
        ``(..., Tq, Dv)``.
    """

    scores: Array
    capped: Array
    masked: Array
    weights: Array
    context: Array
    _name: str
    _pullback: Any
    _options: dict[str, Any]

    def __init__(
        self, name: str, arrays: tuple[Any, ...], options: dict[str, Any], dtype: DType
    ) -> None:
        _, pullback = reference.vjp(getattr(reference, name), *arrays, **options, dtype=dtype)
        at, written = pullback.stages, dict(FORWARD[name])
        if "units" in written:
            inside = {"x": "x_i" if "projected_query" in at else "q_i"}
            inside["y"] = "y_j" if "projected_key" in at else "k_j"
            inside["b"] = "" if options.get("score_bias") is None else " + b"
            written["units"] = written["units"].format(**inside)
        if name == "dot_product_attention" and options.get("scale") is None:
            written["scores"] += ", scale = 1 / sqrt(D)"
        written |= forward(options, pullback.allowed)
        leads, (Tq, Tk) = at["scores"].shape[:-2], at["scores"].shape[-2:]
        super().__init__(
            f"Stages of {name}",
            {
                stage: Entry(formula, at[stage], STAGE_AXES[stage])
                for stage, formula in written.items()
                if stage in at
            },
            leads=leads,
            sizes={"i": Tq, "j": Tk},
        )
        vars(self).update(
            _name=name, _pullback=pullback, _options=options, _call=(name, arrays, options, dtype)
        )

    def gradients(
        self,
        dcontext: Real | None = None,
        *,
        dweights: Real | None = None,
        dlse: Real | None = None,
    ) -> Any:
        """The gradient at every stage and of every argument.

        Parameters
        ----------
        dcontext : array_like, optional
            ``(..., Tq, Dv)``, the gradient of the context.
        dweights : array_like, optional
            ``(..., Tq, Tk)``, one that comes to the weights besides.
        dlse : array_like, optional
            ``(..., Tq)``, one that comes to the lse, of a softmax.

        Returns
        -------
        object
            With the attributes `context`, `weights`, `masked`, `capped`, `scores`, `products` and
            the others, in the order in which backward computes them, then the arguments by name:
            `query`, `key`, `value`, ... It prints like the stages.

        Raises
        ------
        TypeError
            If no gradient is given, or one is not an array of real numbers.
        ValueError
            If a gradient has not the shape of its stage, or one of the lse is given where the
            weights are no softmax.
        """
        given = incoming(
            self.weights.shape, dcontext=(dcontext, self.context), dweights=dweights, dlse=dlse
        )
        allowed, options = self._pullback.allowed, self._options
        refuse_lse(given, options)
        at, arguments = self._pullback.stage_gradients(**given), vars(self._pullback(**given))
        back = BACK_TO[self._name] | options_back(options, allowed, given)
        back["value"] = "dv_j = sum_i " + ("m_ij " if options.get("dropout") else "") + "w_ij dc_i"
        if self._name == "multiplicative_attention":
            back["query"] = "dq_i = dx_i W^T"
        elif "units" in at:
            back |= {"query": "dq_i = dx_i Wq^T"} if "projected_query" in at else {}
            back |= {"key": "dk_j = dy_j Wk^T"} if "projected_key" in at else {}

        written = {"context": "dc_i: `given`" if given["dcontext"] is not None else "dc_i = 0"}
        written |= backward(options, allowed, given)
        written |= {stage: back[stage] for stage in back if stage in at and stage not in written}
        entries = {}
        for stage, formula in written.items():
            if stage in ("projected_query", "projected_key", "query_direction", "key_direction"):
                formula += self._summed(at[stage].shape, STAGE_AXES[stage])
            entries[stage] = Entry(formula, at[stage], STAGE_AXES[stage])
        projected = {"weight": "projected_query", "query_weight": "projected_query"}
        projected |= {"key_weight": "projected_key"}
        for name, gradient in arguments.items():
            axes, formula = ARGUMENT_AXES[name], back.get(name, written["scores"])
            if not axes.startswith("..."):  # a parameter of the whole batch
                batch = self._leads if name not in projected else at[projected[name]].shape[:-2]
                formula += summed((), batch, "")
            elif not ("dx_i" in formula or "dy_j" in formula):  # these are summed already
                formula += self._summed(gradient.shape, axes)
            entries[name] = Entry(formula, gradient, axes)
        return Table(
            f"Gradients of {self._name}", entries, self._leads, None, self._sizes, self._view
        )

    def _summed(self, shape: tuple[int, ...], axes: str) -> str:
        """Over what a gradient is summed besides what its formula says."""
        letters = axes.removeprefix("...")
        if letters.endswith("d"):
            shape, letters = shape[:-1], letters[:-1]
        full = (*self._leads, *(self._sizes[letter] for letter in letters))
        return summed(shape, full, letters)


class MultiHeadStages(Computed):
    """The stages of one call of a layer with heads, in its dtype; see `Stages`.

    H are the heads of queries, G those of keys and values, D their size.

    Parameters
    ----------
    layer : MultiHeadAttention
        `attnc.stages` checks all this, and makes the copies.
    arrays : dict
        Query, key and value by name.
    options : dict

    Attributes
    ----------
    projected_queries, projected_keys : ndarray
        ``(..., H, Tq, D)``, ``(..., G, Tk, D)``, what is normalised or turned to its position, in
        a layer that does that.
    normalised_queries, normalised_keys : ndarray
        Likewise, what is normalised already and is to be turned, in a layer that does both.
    queries : ndarray
        ``(..., H, Tq, D)``, what the heads look for: projected, and normalised and turned to their
        positions where the layer does that.
    keys : ndarray
        ``(..., G, Tk, D)``, what they find it by.
    values : ndarray
        ``(..., G, Tk, D)``, what they find.
    products, scores, capped, masked, weights : ndarray
        ``(..., H, Tq, Tk)``, as in `Stages`, of each head; `softmax`, `gaussian` and `kept` too.
    contexts : ndarray
        ``(..., H, Tq, D)``, of each head.
    merged : ndarray
        ``(..., Tq, H * D)``, the contexts of all heads side by side.
    output : ndarray
        ``(..., Tq, output_size)``.
    """

    queries: Array
    keys: Array
    values: Array
    products: Array
    scores: Array
    capped: Array
    masked: Array
    weights: Array
    contexts: Array
    merged: Array
    output: Array
    _pullback: Any
    _layer: MultiHeadAttention
    _options: dict[str, Any]

    def __init__(
        self, layer: MultiHeadAttention, arrays: dict[str, Any], options: dict[str, Any]
    ) -> None:
        parameters = dict(layer.parameters)
        three = "query", "key", "value"
        weights = [parameters.pop(f"{name}_weight") for name in (*three, "output")]
        _, pullback = reference.vjp(
            reference.multi_head_attention,
            *(arrays[name] for name in three),
            *weights,
            **parameters,
            **options,
            scale=layer.scale,
            rotary=layer.rotary,
            dtype=np.dtype(layer.dtype).type,
        )
        at = pullback.stages | {"merged": _merged(pullback.stages["contexts"])}
        heads = at["scores"].shape
        written = heads_forward(layer, options, pullback.allowed)
        super().__init__(
            "Stages of MultiHeadAttention",
            {
                stage: Entry(formula, at[stage], HEAD_AXES[stage])
                for stage, formula in written.items()
            },
            leads=heads[:-3],
            heads=heads[-3],
            sizes={"i": heads[-2], "j": heads[-1]},
        )
        vars(self).update(
            _pullback=pullback, _layer=layer, _options=options, _call=(layer, arrays, options)
        )

    def gradients(
        self,
        doutput: Real | None = None,
        *,
        dweights: Real | None = None,
        dlse: Real | None = None,
    ) -> Any:
        """The gradient at every stage, of every input and of every parameter.

        Parameters
        ----------
        doutput : array_like, optional
            ``(..., Tq, output_size)``, the gradient of the output.
        dweights : array_like, optional
            ``(..., H, Tq, Tk)``, one that comes to the weights besides.
        dlse : array_like, optional
            ``(..., H, Tq)``, one that comes to the lse, of a softmax.

        Returns
        -------
        object
            With the stages as attributes, in the order in which backward computes them, then
            `query`, `key`, `value`, each as if it were an array of its own, options, and the
            parameters. It prints like the stages.

        Raises
        ------
        TypeError
            If no gradient is given, or one is not an array of real numbers.
        ValueError
            If a gradient has not the shape of its stage, or one of the lse is given where the
            weights are no softmax.
        """
        given = incoming(
            self.weights.shape, doutput=(doutput, self.output), dweights=dweights, dlse=dlse
        )
        refuse_lse(given, self._options)
        at, arguments = self._pullback.stage_gradients(**given)
        at["merged"] = _merged(at["contexts"])
        of_stages, of_arguments = heads_backward(
            self._layer, self._options, self._pullback.allowed, given
        )
        entries = {}
        for stage, formula in of_stages.items():
            if stage in ("queries", "keys", "values"):
                formula += summed(at[stage].shape[:-3], self._leads, "")
            entries[stage] = Entry(formula, at[stage], HEAD_AXES[stage])
        for name, axes in HEAD_ARGUMENT_AXES.items():
            if name not in arguments:
                continue
            gradient, formula = arguments[name], of_arguments[name]
            if name in AXES:
                axes, formula = self._of_option(axes, formula, gradient.shape)
            elif not axes.startswith("..."):
                output = name.startswith("output")
                formula += summed((), self._leads if output else _leads_of(name, at), "")
            entries[name] = Entry(formula, gradient, axes)
        return Table(
            "Gradients of MultiHeadAttention",
            entries,
            self._leads,
            self._heads,
            self._sizes,
            self._view,
        )

    def _of_option(self, axes: str, formula: str, shape: tuple[int, ...]) -> tuple[str, str]:
        """Axes and formula of an option, which may be the same for all heads."""
        letters = axes.removeprefix("...h")
        if len(shape) == len(self._leads) + len(letters):
            axes = "..." + letters
            shape = (*shape[: len(self._leads)], 1, *shape[len(self._leads) :])
        full = (*self._leads, self._heads or 0, *(self._sizes[letter] for letter in letters))
        return axes, formula + summed(shape, full, "h" + letters)


def _leads_of(name: str, at: dict[str, Array]) -> tuple[int, ...]:
    """The batch of what a parameter projects or scales."""
    return at[{"query": "queries", "key": "keys", "value": "values"}[name.split("_")[0]]].shape[:-3]


def _merged(contexts: Array) -> Array:
    """(..., H, T, D) as (..., T, H * D)."""
    contexts = np.swapaxes(contexts, -2, -3)
    return contexts.reshape(*contexts.shape[:-2], contexts.shape[-2] * contexts.shape[-1])


def refuse_lse(given: dict[str, Any], options: dict[str, Any]) -> None:
    """An lse belongs to the softmax."""
    normalizer = options.get("normalizer", "softmax")
    if given["dlse"] is not None and normalizer != "softmax":
        raise ValueError(
            f"gradients: dlse must be None with normalizer={normalizer!r}, got one; it belongs to "
            "the softmax"
        )


def incoming(shape: tuple[int, ...], dweights: Any, dlse: Any, **of_output: Any) -> dict[str, Any]:
    """The incoming gradients by name, checked; `of_output` is (gradient, output) by its name."""
    ((first, (gradient, output)),) = of_output.items()
    given = {first: gradient, "dweights": dweights, "dlse": dlse}
    require_incoming("gradients", **given)
    shapes = output.shape, shape, shape[:-1]
    return {
        name: incoming_gradient(name, gradient, wanted)
        for (name, gradient), wanted in zip(given.items(), shapes, strict=True)
    }

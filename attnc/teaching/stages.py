"""Attention stage by stage, for teaching: every intermediate array, and the gradient at each.

The functions of `attnc.functional` are fused: scores and weights never exist as a whole. Here they
do, computed by the formulas of `attnc.reference`, to be looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, overload

import numpy as np

from attnc import functional, reference
from attnc.arrays import real_array
from attnc.functional.attention import MECHANISMS
from attnc.gradients import require_incoming
from attnc.layers.multihead import MultiHeadAttention
from attnc.typing import Array, DType, Real

__all__ = ["MultiHeadStages", "Stages", "stages"]

_SCORE = {function.__name__: row.score for function, row in MECHANISMS.items()}


@overload
def stages(function: MultiHeadAttention, *arrays: Any, **options: Any) -> MultiHeadStages: ...
@overload
def stages(function: Callable[..., Any], *arrays: Any, **options: Any) -> Stages: ...
def stages(function: Any, *arrays: Any, **options: Any) -> Any:
    """Run an attention function unfused and keep every stage of it.

    Parameters
    ----------
    function : function or MultiHeadAttention
        Any of `attnc.functional.attention` that has scores: all but `attnc.merge_attention`. Or a
        layer with heads.
    *arrays
        The arrays of `function`, as in a call of it. They are copied, like the parameters of a
        layer.
    **options
        The options of `function`, as in a call of it. The ``return_`` flags change nothing here.

    Returns
    -------
    Stages or MultiHeadStages
        With the attributes `scores`, `capped`, `masked`, `weights`, `context`, and the method
        `gradients`; of a layer those of all heads, from `queries` to `output`. Printed, or as the
        value of a notebook's cell, it is a table.

    Raises
    ------
    TypeError, ValueError
        As `function` does; TypeError if `function` is none of those named; and ValueError for a
        packed batch, whose sequences have stages of their own.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> query, key, value = np.eye(2), np.eye(2), np.array([[1.0], [2.0]])
    >>> s = attnc.stages(attnc.dot_product_attention, query, key, value, scale=1, causal=True)
    >>> s
    Stages of dot_product_attention
    scores   (2, 2)  s_ij = scale * q_i . k_j
        [[1. 0.]
         [0. 1.]]
    capped   (2, 2)  s_ij: there is no softcap
        [[1. 0.]
         [0. 1.]]
    masked   (2, 2)  -inf where query i may not attend to key j
        [[  1. -inf]
         [  0.   1.]]
    weights  (2, 2)  softmax over j: exp(l_ij) / sum_j exp(l_ij)
        [[1.     0.    ]
         [0.2689 0.7311]]
    context  (2, 1)  c_i = sum_j w_ij v_j
        [[1.    ]
         [1.7311]]
    >>> s.gradients(np.ones((2, 1))).scores
    array([[ 0.        ,  0.        ],
           [-0.19661193,  0.19661193]])
    """
    if isinstance(function, MultiHeadAttention):
        return _stages_of_heads(function, arrays, options)
    name = getattr(function, "__name__", None)
    if not isinstance(name, str) or name not in _SCORE or getattr(functional, name) is not function:
        raise TypeError(_unknown(function))
    if options.get("query_offsets") is not None:
        raise ValueError(
            "stages: query_offsets must be None, got offsets; pass the rows of one sequence"
        )
    options = {**options, "return_weights": False, "return_lse": False}
    dropout, rng = options.get("dropout", 0.0), options.pop("rng", None)
    if np.ndim(dropout) == 0 and dropout:  # the key itself from here on
        options["rng"] = functional.attention._dropout_key(rng)
    context = function(*arrays, **options)  # all checks are there, and the dtype of the result
    # float16 and bfloat16 are computed in float32
    dtype = np.float64 if context.dtype == np.float64 else np.float32
    return Stages(name, *copy.deepcopy((arrays, options)), dtype)


def _stages_of_heads(layer, arrays, options):
    """Those of a call of a layer, with the parameters that it has now."""
    if options.get("cache") is not None:
        raise ValueError("stages: cache must be None, got one: it has no stages of earlier calls")
    options = {**options, "return_weights": False, "return_lse": False}
    rng, layer = options.pop("rng", None), copy.deepcopy(layer)
    if options.get("train") and layer.dropout:
        options["rng"] = functional.attention._dropout_key(rng)  # the key itself from here on
    layer(*arrays, **options)  # all checks are there
    named = dict(zip(("query", "key", "value"), arrays, strict=False))
    named |= {name: options.pop(name) for name in ("query", "key", "value") if name in options}
    for name, other in (("key", "query"), ("value", "key")):
        if named.get(name) is None:
            named[name] = named[other]
    if options.pop("train", False) and layer.dropout:
        options["dropout"] = layer.dropout
    options = {name: option for name, option in options.items() if option is not None}
    return MultiHeadStages(layer, *copy.deepcopy((named, options)))


def _gaussian(options, i):
    """The factor that a Gaussian around the center of query i is, or the term; "" where none is."""
    if options.get("center") is None or options.get("sigma") == np.inf:
        return "", ""
    square = f"(j - center_{i})^2 / (2 sigma^2)"
    return ("", f" - {square}") if options.get("renormalize") else (f"exp(-{square})", "")


def _unknown(function):
    """What to pass for a function that `stages` does not take."""
    inner = getattr(function, "func", function)  # of functools.partial
    name = function if isinstance(function, str) else getattr(inner, "__name__", None)
    owner = getattr(function, "__self__", function)  # of a method
    owner = owner if isinstance(owner, type) else type(owner)
    if isinstance(name, str) and name in _SCORE:
        shown = repr(name) if inner is name else f"{type(function).__name__} {name}"
        shown += f" of {inner.__module__}" if hasattr(inner, "__module__") else ""
        fix = f"pass attnc.{name}" + ("" if inner is function else ", and the options to stages")
    elif hasattr(owner, "_vjp"):
        shown = f"the layer {owner.__name__}"
        used = getattr(getattr(owner, "_function", None), "__name__", None)
        used = f"attnc.{used}" if used else "the attention function that it calls, if any"
        fix = f"pass {used}, with the arrays and parameters that the layer calls it with"
    else:
        shown, fix = name or owner.__name__, "attnc.attend takes scores of your own"
    return f"stages: function must be one of {', '.join(_SCORE)}, got {shown} ({fix})"


class _Table:
    """Arrays by name, each with a formula, that print as a table."""

    _title: str
    _formulas: dict[str, str]

    def __init__(self, title, entries):
        set_attribute = super().__setattr__
        set_attribute("_title", title)
        set_attribute("_formulas", {name: formula for name, (formula, _) in entries.items()})
        for name, (_, array) in entries.items():
            set_attribute(name, np.array(array))

    def __setattr__(self, name, value):
        raise AttributeError(f"{name} of {self._title} cannot be set: it is what was computed")

    def _rows(self):
        for name, formula in self._formulas.items():
            yield name, formula, getattr(self, name)

    @np.errstate(all="ignore")
    def __repr__(self) -> str:
        rows = list(self._rows())
        name_width = max(len(name) for name, _, _ in rows)
        shape_width = max(len(str(array.shape)) for _, _, array in rows)
        lines = [self._title]
        for name, formula, array in rows:
            shape = str(array.shape)
            lines.append(f"{name:{name_width}}  {shape:{shape_width}}  {formula}".rstrip())
            text = np.array2string(
                array, precision=4, suppress_small=True, threshold=200, edgeitems=3, prefix=" " * 4
            )
            lines.append("    " + text)
        return "\n".join(lines)

    @np.errstate(all="ignore")
    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left;vertical-align:top'>{name}</th>"
            f"<td style='text-align:left;vertical-align:top'><code>{_escaped(formula)}</code>"
            f"<br>{array.shape}</td><td>{_matrix(array)}</td></tr>"
            for name, formula, array in self._rows()
        )
        return f"<table><caption>{_escaped(self._title)}</caption>{rows}</table>"


def _weights_formula(options, of):
    """How the weights come from the masked scores l; `of`: its indices."""
    normalizer = options.get("normalizer", "softmax")
    if normalizer == "sparsemax":
        return f"sparsemax over j: max(l_{of} - tau_i, 0), which sum to 1"
    if normalizer == "entmax15":
        return f"1.5-entmax over j: max(l_{of} / 2 - tau_i, 0)^2, which sum to 1"
    total = f"sum_j exp(l_{of})"
    if options.get("sink") is not None:
        total = f"(exp(sink) + {total})"
    return f"softmax over j: exp(l_{of}) / {total}"


def _dlogits_formula(options, of, gaussian):
    """The gradient of l from that of the weights."""
    if gaussian:
        return f"P_{of} (g_{of} dw_{of} - sum_j w_{of} dw_{of}), w_{of} = P_{of} g_{of}"
    normalizer = options.get("normalizer", "softmax")
    if normalizer == "sparsemax":
        return f"dw_{of} - their mean where w_{of} > 0, else 0"
    if normalizer == "entmax15":
        return f"r_{of} (dw_{of} - sum_j r_{of} dw_{of} / sum_j r_{of}), r = sqrt(w)"
    return f"w_{of} (dw_{of} - sum_j w_{of} dw_{of})"


class Stages(_Table):
    """The stages of one call, each an array over all leading axes, in the computing dtype.

    The arrays are copies: what is written into them changes neither the gradients nor the inputs.
    Can be copied and pickled.

    Attributes
    ----------
    scores : ndarray
        ``(..., Tq, Tk)``, what the mechanism gives, scale included.
    capped : ndarray
        ``(..., Tq, Tk)``, after `softcap`.
    masked : ndarray
        ``(..., Tq, Tk)``, after `slope`, `bias` and all masks: ``-inf`` where a query may not
        attend; and after the Gaussian around a `center`, with `renormalize`.
    weights : ndarray
        ``(..., Tq, Tk)``, their softmax, times the Gaussian without `renormalize`, before dropout.
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
    _cap: float | None
    _dlogits: str
    _call: tuple[Any, ...]

    def __init__(
        self, name: str, arrays: tuple[Any, ...], options: dict[str, Any], dtype: DType
    ) -> None:
        _, pullback = reference.vjp(getattr(reference, name), *arrays, **options, dtype=dtype)
        cap = options.get("softcap")
        gaussian, inside = _gaussian(options, "i")
        biases = [
            text
            for name, text in (("slope", " - slope |j - p|"), ("bias", " + bias"))
            if options.get(name) is not None
        ]
        biases += [inside] if inside else []
        entries = {
            "scores": f"s_ij = {_SCORE[name]}",
            "capped": f"{cap} * tanh(s_ij / {cap})" if cap else "s_ij: there is no softcap",
            "masked": (f"capped{''.join(biases)}, " if biases else "")
            + "-inf where query i may not attend to key j",
            "weights": _weights_formula(options, "ij")
            + (f", times {gaussian}" if gaussian else ""),
            "context": "c_i = sum_j "
            + ("dropout(w_ij)" if options.get("dropout") else "w_ij")
            + " v_j",
        }
        super().__init__(
            f"Stages of {name}",
            {stage: (text, pullback.stages[stage]) for stage, text in entries.items()},
        )
        vars(self).update(
            _name=name,
            _pullback=pullback,
            _cap=cap,
            _dlogits=_dlogits_formula(options, "ij", gaussian),
            _call=(name, arrays, options, dtype),
        )

    def __reduce__(self):
        return Stages, self._call

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
            ``(..., Tq)``, one that comes to the lse.

        Returns
        -------
        object
            With the attributes `context`, `weights`, `masked`, `capped`, `scores`, in the order in
            which backward computes them, then the arguments by name: `query`, `key`, `value`, ...
            It prints like the stages.

        Raises
        ------
        TypeError
            If no gradient is given, or one is not an array of real numbers.
        ValueError
            If a gradient has not the shape of its stage.
        """
        given = _incoming(
            self.weights.shape, dcontext=(dcontext, self.context), dweights=dweights, dlse=dlse
        )
        at = self._pullback.stage_gradients(**given)
        slope = "dcapped (1 - tanh(s_ij / softcap)^2)" if self._cap else "dcapped"
        formulas = {
            "context": "given",
            "weights": "dw_ij = dc_i . v_j",
            "masked": self._dlogits,
            "capped": "dmasked",
            "scores": slope,
        }
        entries = {stage: (text, at[stage]) for stage, text in formulas.items()}
        for name, gradient in vars(self._pullback(**given)).items():
            entries[name] = "", gradient
        if self._name == "attend":  # the stage and the argument are one
            entries["scores"] = slope, entries["scores"][1]
        return _Table(f"Gradients of {self._name}", entries)


class MultiHeadStages(_Table):
    """The stages of one call of a layer with heads, in its dtype; see `Stages`.

    H are the heads of queries, G those of keys and values, D their size.

    Attributes
    ----------
    queries : ndarray
        ``(..., H, Tq, D)``, what the heads look for: projected, and normalised and turned to their
        positions where the layer does that.
    keys : ndarray
        ``(..., G, Tk, D)``, what they find it by.
    values : ndarray
        ``(..., G, Tk, D)``, what they find.
    scores, capped, masked, weights : ndarray
        ``(..., H, Tq, Tk)``, as in `Stages`, of each head.
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
    scores: Array
    capped: Array
    masked: Array
    weights: Array
    contexts: Array
    merged: Array
    output: Array
    _pullback: Any
    _cap: float | None
    _dlogits: str
    _call: tuple[Any, ...]

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
        at, cap = pullback.stages, options.get("softcap")
        b = " + b" if layer.projection_bias else ""
        norm = ", normalised" if layer.normalize_qk else ""
        turn = ", turned to its position" if layer.rotary else ""
        gaussian, inside = _gaussian(options, "hi")
        biases = (" + bias" if options.get("bias") is not None else "") + inside
        g = "h" if layer.num_kv_heads == layer.num_heads else "g"
        entries = {
            "queries": f"q_h = query W_h^Q{b}{norm}{turn}",
            "keys": f"k_{g} = key W_{g}^K{b}{norm}{turn}",
            "values": f"v_{g} = value W_{g}^V{b}",
            "scores": f"s_hij = scale * q_hi . k_{g}j",
            "capped": f"{cap} * tanh(s_hij / {cap})" if cap else "s_hij: there is no softcap",
            "masked": (f"capped{biases}, " if biases else "")
            + "-inf where query i may not attend to key j",
            "weights": _weights_formula(options, "hij")
            + (f", times {gaussian}" if gaussian else ""),
            "contexts": "c_hi = sum_j "
            + ("dropout(w_hij)" if options.get("dropout") else "w_hij")
            + f" v_{g}j",
            "merged": "c_1i, c_2i, ... side by side",
            "output": f"o_i = sum_h c_hi W_h^O{b}",
        }
        at = {**at, "merged": _merged(at["contexts"])}
        super().__init__(
            "Stages of MultiHeadAttention",
            {stage: (text, at[stage]) for stage, text in entries.items()},
        )
        vars(self).update(
            _pullback=pullback,
            _cap=cap,
            _dlogits=_dlogits_formula(options, "hij", gaussian),
            _call=(layer, arrays, options),
        )

    def __reduce__(self):
        return MultiHeadStages, self._call

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
            ``(..., H, Tq)``, one that comes to the lse.

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
            If a gradient has not the shape of its stage.
        """
        given = _incoming(
            self.weights.shape, doutput=(doutput, self.output), dweights=dweights, dlse=dlse
        )
        at, arguments = self._pullback.stage_gradients(**given)
        at["merged"] = _merged(at["contexts"])
        formulas = {
            "output": "given",
            "merged": "dc_hi of all heads side by side",
            "contexts": "dc_hi = do_i W_h^O^T",
            "weights": "dw_hij = dc_hi . v_hj",
            "masked": self._dlogits,
            "capped": "dmasked",
            "scores": "dcapped (1 - tanh(s_hij / softcap)^2)" if self._cap else "dcapped",
            "queries": "dq_hi = scale sum_j ds_hij k_hj",
            "keys": "dk_hj = scale sum_i ds_hij q_hi",
            "values": "dv_hj = sum_i w_hij dc_hi",
        }
        entries = {stage: (text, at[stage]) for stage, text in formulas.items()}
        inputs = {"query": "Q", "key": "K", "value": "V"}
        for name, gradient in arguments.items():
            entries[name] = "", gradient
        for name, letter in inputs.items():
            entries[name] = f"sum_h d{letter.lower()}_h W_h^{letter}^T", arguments[name]
        return _Table("Gradients of MultiHeadAttention", entries)


def _merged(contexts):
    """(..., H, T, D) as (..., T, H * D)."""
    contexts = np.swapaxes(contexts, -2, -3)
    return contexts.reshape(*contexts.shape[:-2], contexts.shape[-2] * contexts.shape[-1])


def _incoming(shape, dweights, dlse, **of_output):
    """The incoming gradients by name, checked; `of_output` is (gradient, output) by its name."""
    ((first, (gradient, output)),) = of_output.items()
    given = {first: gradient, "dweights": dweights, "dlse": dlse}
    require_incoming("gradients", **given)
    for name, wanted in zip(given, (output.shape, shape, shape[:-1]), strict=True):
        if given[name] is not None:
            given[name] = real_array("gradients", name, given[name])
            if given[name].shape != wanted:
                raise ValueError(
                    f"gradients: {name} must have shape {wanted}, got {given[name].shape}"
                )
    return given


# ---- one array as HTML ----

_MOST = 12  # rows and columns that are shown


def _escaped(text):
    import html  # here, because only a notebook needs it

    return html.escape(text)


def _matrix(array):
    """The last two axes of the first element, shaded: blue above 0, red below."""
    matrix = np.asarray(array, np.float64)
    note = ""
    if matrix.ndim > 2:
        first = (0,) * (matrix.ndim - 2)
        note = f"[{', '.join(map(str, first))}] of {array.shape[:-2]}"
        matrix = matrix[first] if matrix.size else matrix.reshape(0, matrix.shape[-1])
    matrix = np.atleast_2d(matrix)
    shown = matrix[:_MOST, :_MOST]
    if shown.shape != matrix.shape:
        note += f" the first {shown.shape} of {matrix.shape}"
    finite = np.abs(matrix[np.isfinite(matrix)])
    top = finite.max(initial=0) or 1
    cells = "".join("<tr>" + "".join(_cell(x, top) for x in row) + "</tr>" for row in shown)
    return f"<table style='font-family:monospace'>{cells}</table>{_escaped(note.strip())}"


def _cell(x, top):
    style = "text-align:right;padding:1px 6px"
    if not np.isfinite(x):
        return f"<td style='{style};color:#999'>{x:g}</td>"
    colour = "31,119,180" if x > 0 else "214,39,40"
    style += f";background:rgba({colour},{0.75 * abs(x) / top:.2f})"
    return f"<td style='{style}'>{x:.4g}</td>"

"""Attention stage by stage, for teaching: every intermediate array, and the gradient at each.

The functions of `attnc.functional` are fused: scores and weights never exist as a whole. Here they
do, computed by the formulas of `attnc.reference`, to be looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, overload

import numpy as np

from attnc import functional
from attnc.functional.attention import MECHANISMS
from attnc.layers.decoder import AttentionDecoder
from attnc.layers.multihead import MultiHeadAttention
from attnc.layers.recurrent import GRU, LSTM, RNN
from attnc.teaching.attention_stages import MultiHeadStages, Stages
from attnc.teaching.decoder_stages import DecoderStages, decoder_stages
from attnc.teaching.recurrent_stages import RecurrentStages, recurrent_stages

__all__ = ["DecoderStages", "MultiHeadStages", "RecurrentStages", "Stages", "stages"]

_SCORE = tuple(function.__name__ for function in MECHANISMS)


@overload
def stages(function: MultiHeadAttention, *arrays: Any, **options: Any) -> MultiHeadStages: ...
@overload
def stages(function: AttentionDecoder, *arrays: Any, **options: Any) -> DecoderStages: ...
@overload
def stages(function: RNN | GRU | LSTM, *arrays: Any, **options: Any) -> RecurrentStages: ...
@overload
def stages(function: Callable[..., Any], *arrays: Any, **options: Any) -> Stages: ...
def stages(function: Any, *arrays: Any, **options: Any) -> Any:
    """Run an attention function unfused and keep every stage of it.

    Parameters
    ----------
    function : function, MultiHeadAttention, RNN, GRU, LSTM or AttentionDecoder
        Any of `attnc.functional.attention` that has scores: all but `attnc.merge_attention`. Or a
        layer with heads; or one that goes step by step, of which one step is shown.
    *arrays
        The arrays of `function`, as in a call of it; of a recurrent layer the input of one step,
        ``(B, input_size)``, and the state; of a decoder those of `AttentionDecoder.step`. They are
        copied, like the parameters of a layer.
    **options
        The options of `function`, as in a call of it. The ``return_`` flags change nothing here.

    Returns
    -------
    Stages, MultiHeadStages, RecurrentStages or DecoderStages
        With the attributes `scores`, `capped`, `masked`, `weights`, `context`, those before the
        scores that the mechanism has, such as `products`, and the method `gradients`; of a layer
        those of all heads, from `queries` to `output`, or of one step, gate by gate.
        Printed, or as the value of a notebook's cell, it is a table; `shown` names its rows and
        columns and chooses the element.

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
    products  (2, 2)  p_ij = q_i . k_j
        1  0
        0  1
    scores    (2, 2)  s_ij = scale p_ij
        1  0
        0  1
    capped    (2, 2)  t_ij = s_ij: there is no softcap
        1  0
        0  1
    masked    (2, 2)  l_ij = t_ij, -inf where query i may not attend to key j
           1  -inf
           0     1
    weights   (2, 2)  w_ij = exp(l_ij) / sum_j exp(l_ij): softmax over j
        1.0000  0.0000
        0.2689  0.7311
    context   (2, 1)  c_i = sum_j w_ij v_j
        1.0000
        1.7311
    >>> s.gradients(np.ones((2, 1))).scores
    array([[ 0.        ,  0.        ],
           [-0.19661193,  0.19661193]])
    """
    if isinstance(function, AttentionDecoder):
        return decoder_stages(function, *arrays, **options)
    if isinstance(function, (RNN, GRU, LSTM)):
        return recurrent_stages(function, *arrays, **options)
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

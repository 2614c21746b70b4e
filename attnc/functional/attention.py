"""The attention functions, forward and backward in C.

Each takes ``(..., time, feature)`` arrays and returns the context; `attnc.vjp` gives their
gradients. They differ in how the score of a query and a key comes about:

===========================  ====================================================================
`dot_product_attention`      ``scale * q . k``
`multiplicative_attention`   ``q W k``
`additive_attention`         ``v . tanh(q Wq + k Wk + b)``
`cosine_attention`           ``scale * q . k / (|q| |k|)``
`attend`                     the caller's own
===========================  ====================================================================

What follows the score is the same for all::

    s       = softcap(score) - slope * |j - p| + bias
    allowed = mask & key_mask & (j < key_lengths) & (i < query_lengths) & causal & window
    weights = exp(s) / (exp(sink) + sum of exp(s) over the allowed keys)
              times exp(-(j - center)^2 / (2 sigma^2)), where there is a center
    context = dropout(weights) @ value

with weights by sparsemax or 1.5-entmax in the place of the softmax where `normalizer` says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Unpack, overload

import numpy as np

from attnc import _core
from attnc.arrays import flag, like, real_array
from attnc.functional.dropout import dropout_key
from attnc.functional.options import (
    AttentionOptions,
    MasksAndDropout,
    takes_options,
    with_common,
)
from attnc.functional.plain import twice_by_formula
from attnc.functional.shapes import broadcast, shape_of
from attnc.gradients import shows_shapes
from attnc.registry import Output, record_of, register
from attnc.typing import Array, Function, Real

__all__ = [
    "additive_attention",
    "attend",
    "cosine_attention",
    "dot_product_attention",
    "merge_attention",
    "multiplicative_attention",
]

# ---- results ----


@shows_shapes
class WeightsResult(NamedTuple):
    """With `return_weights`."""

    context: Array
    weights: Array


@shows_shapes
class LseResult(NamedTuple):
    """With `return_lse`."""

    context: Array
    lse: Array


@shows_shapes
class FullResult(NamedTuple):
    """With both."""

    context: Array
    weights: Array
    lse: Array


def _named(outputs, return_weights):
    if len(outputs) == 3:
        return FullResult(*outputs)
    return WeightsResult(*outputs) if return_weights else LseResult(*outputs)


def _dropout_key(rng):
    """The 64-bit key of a call with dropout: an integer is the key itself."""
    if rng is None or isinstance(rng, np.random.Generator):
        return dropout_key(np.random.default_rng(rng))
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        return int(rng)
    return rng  # refused in C, by name


# ---- docstrings: what all functions share is written once ----

_COMMON = {
    "masks": """\
mask : array of bool, optional
    ``(..., Tq, Tk)``, True: this query may attend to this key. Like all masks it has every axis,
    and axes of size 1 broadcast.
key_mask : array of bool, optional
    ``(..., Tk)``, True: this key may be attended to.
key_lengths : int or array of int, optional
    ``(...,)``, in ``0..Tk``: keys ``j < length`` may be attended to.
query_lengths : int or array of int, optional
    ``(...,)``, in ``0..Tq``: queries ``i >= length`` are padding. They are not read, cost nothing,
    and attend to nothing.
bias : array, optional
    ``(..., Tq, Tk)``, added to the scores; ``-inf`` excludes like False in `mask`. Has a gradient.
causal : bool, default False
    Query ``i`` at position ``p = i + causal_offset`` attends to keys ``j <= p`` only.
causal_offset : int or array of int, optional
    ``(...,)``; default ``Tk - Tq``, so that the last query sees the last key. 0 is what PyTorch
    and JAX do. Goes with `causal`, `window` or `slope`.
window : (left, right), optional
    Only keys ``p - left <= j <= p + right``; an integer >= 0 or None for open on either side.
center : float or array, optional
    ``(..., Tq)``: local attention (Luong et al. 2015, eq. 10). The window, which has to be given,
    counts from ``p = floor(center)`` of each query (`causal` and `slope` keep theirs), and weights
    are multiplied by ``exp(-(j - center)^2 / (2 sigma^2))``, so that they sum to less than 1. Real,
    in any order; the window of a center far from all keys is empty, that of an infinite one too,
    and NaN makes the row NaN. Time depends on the window, not on Tk. An array has a gradient.
sigma : float, optional
    Of the Gaussian around the center, > 0; default ``left / 2``, the paper's. Infinity: none.
renormalize : bool, default False
    Make the Gaussian part of the softmax: it is added to the scores as its logarithm, weights sum
    to 1, and the lse includes it.
query_offsets, key_offsets : array of int, optional
    A packed batch: sequences of any length one behind the other along the axes of time, without
    padding. ``(B + 1,)`` each, ``0 = o_0 <= ... <= o_B = T``: query ``i`` of sequence b is row
    ``query_offsets[b] + i`` and sees keys of the same sequence only, which begin at
    ``key_offsets[b]``; positions count within the sequence. `key_offsets` are the same unless
    given. `key_mask`, `causal`, one int for `causal_offset`, `window`, `center` (of all queries,
    its keys counted within the sequence), `softcap`, `slope`, `sink`, `dropout` and `return_lse`
    go with them, and every function but `attend`. Each sequence has the
    bits of a call on it alone, with the dropout of a padded batch ``(B, ...)``.
softcap : float, optional
    ``c * tanh(score / c)`` with ``c > 0`` takes the place of the score.
slope : float or array, optional
    ``(...,)``: ``slope * |j - p|`` is taken off the capped score, the linear bias of Press et al.
    2022 (ALiBi); `attnc.alibi_slopes` has the paper's for heads. An array has a gradient.
sink : float or array, optional
    ``(...,)``: a logit that takes part in the softmax of every query and has no value, so that
    weights sum to less than 1. Neither capped, biased nor dropped; ``-inf`` is no sink, and
    infinity or NaN makes all rows NaN. An array has a gradient. It is what `merge_attention` makes
    of one more part with context 0 and lse `sink`.
normalizer : {'softmax', 'sparsemax', 'entmax15'}, default 'softmax'
    How scores become weights. `sparsemax` (Martins and Astudillo 2016), ``[s_ij - tau_i]+``, and
    1.5-entmax (Peters, Niculae and Martins 2019), ``[s_ij / 2 - tau_i]+ ^ 2``, sum to 1 as well,
    but are exactly 0 where the score is low; such a pair gets no gradient. They need an array of
    all weights, ``(..., Tq, Tk)``, and go without `center`, `sink`, `return_lse` and packed
    batches.
dropout : float, default 0
    Probability in ``[0, 1)`` that a weight is dropped; those kept are divided by
    ``1 - dropout``.
rng : None, int or numpy.random.Generator, optional
    Where the dropout comes from. The same int gives the same choice for every dtype and number
    of threads.
return_weights, return_lse : bool, default False
    Return the weights ``(..., Tq, Tk)``, before dropout, or the natural logarithm of the sum of
    the exponentials of each query's scores, ``(..., Tq)``, as well. The lse of float16 and
    bfloat16 arrays is float32: rounded, it could not be merged.

Returns
-------
context : ndarray
    ``(..., Tq, Dv)``. With a ``return_`` flag a named tuple of what was asked for, in the order
    ``context, weights, lse``. A query that may attend to nothing gets context 0, weights 0 and
    lse ``-inf`` (`sink`, where there is one, which then gets the gradient of the lse), and adds
    nothing to any other gradient.

Raises
------
TypeError
    If an argument is not what it should be: complex or object arrays, masked arrays, tensors of
    other libraries, masks that are not boolean.
ValueError
    If shapes do not fit or an option is out of range.

""",
    "sequences": """\
query : array_like
    ``(..., Tq, Dq)``. Leading axes (batch, heads) are those of the other arrays or 1.
key : array_like
    ``(..., Tk, Dk)``.
value : array_like
    ``(..., Tk, Dv)``; any Dv.
""",
    "dtypes": """\
Computed in float32 or float64, whatever `numpy.result_type` of the arrays says; float16 and
bfloat16 are computed in float32, integers and lists in float64; `slope`, `sink` and `center` take
no part in that. What a mask excludes is not read:
NaN there has no effect. The context has the same bits with any ``return_`` flag and any number
of threads.

""",
}


def _documented(function: Function) -> Function:
    """The function with the options in its signature, and what is common in its docstring."""
    return with_common(takes_options(function), _COMMON)


# ---- the functions ----


@overload
def dot_product_attention(
    query: Real,
    key: Real,
    value: Real,
    *,
    scale: Real | None = ...,
    **options: Unpack[MasksAndDropout],
) -> Array: ...
@overload
def dot_product_attention(
    query: Real,
    key: Real,
    value: Real,
    *,
    scale: Real | None = ...,
    **options: Unpack[AttentionOptions],
) -> Any: ...
@_documented
def dot_product_attention(
    query: Real,
    key: Real,
    value: Real,
    *,
    scale: Real | None = None,
    **options: Unpack[AttentionOptions],
) -> Any:
    """Attention by the dot product: ``softmax(scale * query @ key.T) @ value``.

    Parameters
    ----------
    {sequences}
    scale : float or 0-d array, optional
        Factor of the scores; default ``1 / sqrt(D)`` ("scaled dot-product"); 1 is Luong's "dot". A
        0-d array has a gradient.
    {masks}
    See Also
    --------
    multiplicative_attention : the same with a weight between query and key
    attnc.vjp : the gradients

    Notes
    -----
    The score of query i and key j is ``s_ij = scale * q_i . k_j``: Vaswani et al. 2017, "Attention
    is all you need", eq. 1; with scale 1 Luong et al. 2015, "Effective approaches to
    attention-based neural machine translation", section 3.1 (dot). Nothing of size ``Tq * Tk`` is
    stored.

    {dtypes}
    Examples
    --------
    >>> import numpy as np, attnc
    >>> query, key, value = np.eye(2), np.eye(2), np.array([[1.0], [2.0]])
    >>> attnc.dot_product_attention(query, key, value, scale=1.0).round(4)
    array([[1.2689],
           [1.7311]])
    """
    if not options:
        return _core.dot_product_attention(query, key, value, scale)
    return _run(_core.dot_product_attention, options, query, key, value, scale)


@overload
def multiplicative_attention(
    query: Real,
    key: Real,
    value: Real,
    weight: Real,
    **options: Unpack[MasksAndDropout],
) -> Array: ...
@overload
def multiplicative_attention(
    query: Real,
    key: Real,
    value: Real,
    weight: Real,
    **options: Unpack[AttentionOptions],
) -> Any: ...
@_documented
def multiplicative_attention(
    query: Real,
    key: Real,
    value: Real,
    weight: Real,
    **options: Unpack[AttentionOptions],
) -> Any:
    """Attention with a bilinear score: ``softmax(query @ weight @ key.T) @ value``.

    Parameters
    ----------
    {sequences}
    weight : array_like
        ``(Dq, Dk)``, W_a of the paper.
    {masks}
    See Also
    --------
    dot_product_attention : without a weight
    attnc.MultiplicativeAttention : the layer
    attnc.vjp : the gradients

    Notes
    -----
    The score of query i and key j is ``s_ij = q_i W k_j``: Luong et al. 2015, "Effective approaches
    to attention-based neural machine translation", section 3.1 (general).

    {dtypes}
    Examples
    --------
    >>> import numpy as np, attnc
    >>> query, key, value = np.ones((1, 3)), np.eye(2), np.array([[1.0], [2.0]])
    >>> weight = np.zeros((3, 2))
    >>> attnc.multiplicative_attention(query, key, value, weight)
    array([[1.5]])
    """
    if not options:
        return _core.multiplicative_attention(query, key, value, weight)
    return _run(_core.multiplicative_attention, options, query, key, value, weight)


@overload
def additive_attention(
    query: Real,
    key: Real,
    value: Real,
    score_vector: Real,
    *,
    query_weight: Real | None = ...,
    key_weight: Real | None = ...,
    score_bias: Real | None = ...,
    **options: Unpack[MasksAndDropout],
) -> Array: ...
@overload
def additive_attention(
    query: Real,
    key: Real,
    value: Real,
    score_vector: Real,
    *,
    query_weight: Real | None = ...,
    key_weight: Real | None = ...,
    score_bias: Real | None = ...,
    **options: Unpack[AttentionOptions],
) -> Any: ...
@_documented
def additive_attention(
    query: Real,
    key: Real,
    value: Real,
    score_vector: Real,
    *,
    query_weight: Real | None = None,
    key_weight: Real | None = None,
    score_bias: Real | None = None,
    **options: Unpack[AttentionOptions],
) -> Any:
    """Attention with a score from a small network: ``v . tanh(q Wq + k Wk + b)``.

    Parameters
    ----------
    {sequences}
    score_vector : array_like
        ``(H,)``, v_a of the paper.
    query_weight : array_like, optional
        ``(Dq, H)``, W_a of the paper, transposed: it multiplies from the right. None: the query is
        already projected, ``Dq = H``.
    key_weight : array_like, optional
        ``(Dk, H)``, U_a of the paper, transposed. None: the key is already projected, ``Dk = H``.
    score_bias : array_like, optional
        ``(H,)``, added before the tanh.
    {masks}
    See Also
    --------
    attnc.AdditiveAttention : the layer
    attnc.vjp : the gradients

    Notes
    -----
    The score of query i and key j is ``s_ij = v . tanh(q_i Wq + k_j Wk + b)``: Bahdanau et al.
    2015, "Neural machine translation by jointly learning to align and translate", section A.1.2.
    No array of shape ``(..., Tq, Tk, H)`` is ever formed.

    {dtypes}
    Examples
    --------
    >>> import numpy as np, attnc
    >>> query, key, value = np.zeros((1, 3)), np.zeros((2, 3)), np.array([[1.0], [2.0]])
    >>> attnc.additive_attention(query, key, value, np.ones(3))
    array([[1.5]])
    """
    arrays = query, key, value, score_vector, query_weight, key_weight, score_bias
    if not options:
        return _core.additive_attention(*arrays)
    return _run(_core.additive_attention, options, *arrays)


@overload
def cosine_attention(
    query: Real,
    key: Real,
    value: Real,
    *,
    scale: Real = ...,
    **options: Unpack[MasksAndDropout],
) -> Array: ...
@overload
def cosine_attention(
    query: Real,
    key: Real,
    value: Real,
    *,
    scale: Real = ...,
    **options: Unpack[AttentionOptions],
) -> Any: ...
@_documented
def cosine_attention(
    query: Real,
    key: Real,
    value: Real,
    *,
    scale: Real = 1.0,
    **options: Unpack[AttentionOptions],
) -> Any:
    """Attention by the angle between query and key: ``scale * cos(q, k)``.

    Parameters
    ----------
    {sequences}
    scale : float or 0-d array, default 1.0
        Factor of the cosine, the sharpness of the weights. A 0-d array has a gradient.
    {masks}
    See Also
    --------
    attnc.CosineAttention : the layer, with a learned scale
    attnc.vjp : the gradients

    Notes
    -----
    The score of query i and key j is ``s_ij = scale * q_i . k_j / (|q_i| |k_j|)``: Graves et al.
    2014, "Neural Turing machines", eq. 5 and 6 (content addressing). A zero vector has score 0 with
    everything, and gradient 0.

    {dtypes}
    Examples
    --------
    >>> import numpy as np, attnc
    >>> query, key, value = np.array([[5.0, 0.0]]), np.eye(2), np.array([[1.0], [2.0]])
    >>> attnc.cosine_attention(query, key, value).round(4)
    array([[1.2689]])
    """
    if not options:
        return _core.cosine_attention(query, key, value, scale)
    return _run(_core.cosine_attention, options, query, key, value, scale)


@overload
def attend(
    scores: Real,
    value: Real,
    **options: Unpack[MasksAndDropout],
) -> Array: ...
@overload
def attend(
    scores: Real,
    value: Real,
    **options: Unpack[AttentionOptions],
) -> Any: ...
@_documented
def attend(
    scores: Real,
    value: Real,
    **options: Unpack[AttentionOptions],
) -> Any:
    """Attention with scores of your own: ``softmax(scores) @ value``.

    Parameters
    ----------
    scores : array_like
        ``(..., Tq, Tk)``, from any match function. A score of ``-inf`` has weight 0; a query whose
        every score is ``-inf`` attends to nothing. The values are still read: to exclude a key, NaN
        and all, use `mask` or `bias`.
    value : array_like
        ``(..., Tk, Dv)``. Leading axes are those of `scores` or 1.
    {masks}
    See Also
    --------
    attnc.vjp : the gradients

    Notes
    -----
    The common part of all attention: Bahdanau et al. 2015, eq. 5 and 6; Luong et al. 2015, eq. 7.

    The *location* score of Luong et al. 2015, eq. 8, is of the query alone, ``softmax(q_i W)`` with
    a column of W for each place. Over a memory of Tk steps with lengths it is
    ``attend((query @ W)[..., :Tk], memory, key_lengths=lengths)``, and ``dW[:, :Tk]`` is the sum of
    ``query^T dscores``.

    {dtypes}
    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.attend(np.zeros((1, 2)), np.array([[1.0], [2.0]]))
    array([[1.5]])
    """
    if not options:
        return _core.attend(scores, value)
    return _run(_core.attend, options, scores, value)


# ---- running them ----


def _run(forward, options, *arrays):
    """Call a function of `_core` with options."""
    if "dropout" in options:
        options = _with_key(options)
    outputs = forward(*arrays, **options)
    if type(outputs) is tuple:
        return _named(outputs, options.get("return_weights"))
    return outputs


def _with_key(options):
    """The options as C takes them: the key of the dropout in the place of `rng`."""
    if np.ndim(options["dropout"]) == 0 and options["dropout"]:  # C refuses an array
        return options | {"rng": _dropout_key(options.get("rng"))}
    return options


# Those of the shared options that may be arrays, beside the bias.
_ARRAYS = (
    "mask",
    "key_mask",
    "key_lengths",
    "query_lengths",
    "causal_offset",
    "query_offsets",
    "key_offsets",
)

# The arrays with leading axes; and those that take no part in the dtype of the result.
_LEADING = frozenset(
    """query key value scores bias slope sink center mask key_mask key_lengths query_lengths
    causal_offset index""".split()
)
_ASIDE = frozenset(("slope", "sink", "center"))


class Mechanism:
    """What stands between the record of an attention function and C.

    C takes the function's own arrays by position or by name, and the shared options by name; its
    backward twin returns the gradients of `required`, of `optional` and of the options that have
    one. From forward to backward a record keeps arrays and a static rest.
    """

    outputs: tuple[str, ...] = ("dcontext", "dweights", "dlse")
    options_with_gradients: tuple[str, ...] = ("bias", "slope", "sink", "center")
    fixed: tuple[str, ...] = _ARRAYS

    def __init__(self, function, required, optional):
        self.function, self.name, self.count = function, function.__name__, len(required)
        self.saving_in_c = getattr(_core, self.name + "_saving", None)
        self.backward_in_c = getattr(_core, self.name + "_backward")
        self.jvp_in_c = getattr(_core, self.name + "_jvp")
        self.hvp_in_c = getattr(_core, self.name + "_hvp")
        optional = (*optional, *self.options_with_gradients)
        self.arrays = {*optional, *_ARRAYS}
        register(
            function,
            required=required,
            optional=optional,
            incoming=self.outputs,
            positional=1,
            forward=self.forward,
            backward=self.backward,
            jvp=self.jvp,
            backward_jvp=self.backward_jvp,
            jvp_jvp=twice_by_formula(function),
            outputs=self.shapes,
            fixed=self.fixed,
            leading=[name for name in (*required, *optional, *self.fixed) if name in _LEADING],
        )

    def shapes(self, *arrays, return_weights=False, return_lse=False, **options):
        """What the function returns, by shapes; and whose dtypes count."""
        arrays = [shape_of(x) for x in self._bound(arrays, options)]
        given = arrays[0] if self.name == "attend" else None
        query, key, value = (given, given, arrays[1]) if given else arrays[:3]
        lead = broadcast(*(shape[:-2] for shape in (query, key, value)))
        keys = given[-1] if given else key[-2]
        of = tuple(name for name in record_of(self.function).arrays if name not in _ASIDE)
        context = Output((*lead, query[-2], value[-1]), "real", of)
        weights = Output((*lead, query[-2], keys), "real", of)
        lse = Output((*lead, query[-2]), "computed", of)
        if not (return_weights or return_lse):
            return context
        outputs = [context, *[weights] * bool(return_weights), *[lse] * bool(return_lse)]
        return _named(outputs, return_weights)

    def _bound(self, arrays, options):
        """The required arrays by position, also those that were given by name; or a wrong call."""
        required = record_of(self.function).required
        named = {name: options.pop(name) for name in required if name in options}
        signature = inspect.Signature(
            [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in required]
        )
        try:
            return signature.bind(*arrays, **named).args
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None

    def forward(self, *arrays, **options):
        if not options and len(arrays) == self.count:  # the same as below, in less time
            context, _, _, kept = self.saving_in_c(*arrays)
            return context, (*kept, *arrays), _NO_OPTIONS
        if len(arrays) != self.count:
            arrays = self._bound(arrays, options)
        if "dropout" in options:
            options = _with_key(options)
        context, weights, lse, kept = self.saving_in_c(*arrays, **options)
        saved, static = self.saved(arrays, options, kept)
        if weights is None and lse is None:
            return context, saved, static
        outputs = [output for output in (context, weights, lse) if output is not None]
        return _named(outputs, weights is not None), saved, static

    def jvp(self, tangents, *arrays, **options):
        if "dropout" in options:
            options = _with_key(options)
        output, tangent = self.jvp_in_c(tangents, *arrays, **options)
        if type(output) is not tuple:
            return output, tangent
        return tuple(_named(x, options.get("return_weights")) for x in (output, tangent))

    def backward_jvp(self, tangents, incoming, dincoming, *arrays, **options):
        if "dropout" in options:
            options = _with_key(options)
        return self.hvp_in_c(tangents, tuple(incoming), tuple(dincoming), *arrays, **options)

    def saved(self, arrays, options, kept):
        """What backward takes: arrays, and the rest: the names of some of them, other options."""
        if not options:
            return (*kept, *arrays), _NO_OPTIONS
        names = [name for name in options if name in self.arrays]
        rest = {name: value for name, value in options.items() if name not in self.arrays}
        return (*kept, *arrays, *[options[name] for name in names]), (names, rest)

    def backward(self, saved, static, dcontext, dweights, dlse):
        if static is _NO_OPTIONS:
            return self.backward_in_c(dcontext, dweights, dlse, *saved)
        names, rest = static
        end = 3 + self.count
        # Without strict=: to parse that keyword takes longer than all the rest here.
        options = dict(zip(names, saved[end:])) | rest  # noqa: B905
        return self.backward_in_c(dcontext, dweights, dlse, *saved[:end], **options)


# What a call without options leaves: no names of arrays, no other options.
_NO_OPTIONS: tuple[list[str], dict[str, Any]] = [], {}


MECHANISMS = {
    function: Mechanism(function, required, optional)
    for function, required, optional in (
        (dot_product_attention, ("query", "key", "value"), ("scale",)),
        (multiplicative_attention, ("query", "key", "value", "weight"), ()),
        (
            additive_attention,
            ("query", "key", "value", "score_vector"),
            ("query_weight", "key_weight", "score_bias"),
        ),
        (cosine_attention, ("query", "key", "value"), ("scale",)),
        (attend, ("scores", "value"), ()),
    )
}


# ---- attention over keys that are not in one place ----


@overload
def merge_attention(
    contexts: Sequence[Real], lses: Sequence[Real], *, return_lse: Literal[False] = ...
) -> Array: ...
@overload
def merge_attention(
    contexts: Sequence[Real], lses: Sequence[Real], *, return_lse: Literal[True]
) -> LseResult: ...
def merge_attention(
    contexts: Sequence[Real], lses: Sequence[Real], *, return_lse: bool = False
) -> Array | LseResult:
    """Put attention over disjoint sets of keys together: as over all of them at once.

    Parameters
    ----------
    contexts : sequence of array_like
        ``(..., Tq, Dv)`` each, all of one shape: the context over each set of keys.
    lses : sequence of array_like
        ``(..., Tq)`` each, in the same order: what ``return_lse=True`` gave with them. A sink is
        counted once: of the parts, one alone has it.
    return_lse : bool, default False
        Return the lse over all keys as well, to merge it further.

    Returns
    -------
    context : ndarray
        ``(..., Tq, Dv)``; with `return_lse` the named tuple ``(context, lse)``. A set in which a
        query may attend to nothing (lse ``-inf``) counts for nothing; if that is so in every set,
        the context is 0 and the lse ``-inf``. The context has the dtype of the contexts, the lse
        at least float32.

    Raises
    ------
    TypeError
        If an array is not real, or a masked array or a tensor of another library.
    ValueError
        If there are no contexts, not as many lses, or shapes do not fit.

    See Also
    --------
    attnc.vjp : the gradients, ``dcontexts, dlses = pullback(dcontext)``, a tuple of arrays each

    Notes
    -----
    With ``l = log sum_s exp(l_s)`` it is ``c = sum_s exp(l_s - l) c_s``: attention once more, with
    the lses for scores and the contexts for values. So caches may be split, and computed elsewhere
    or later: Liu et al. 2023, "Ring attention with blockwise transformers for near-infinite
    context"; Milakov and Gimelshein 2018, "Online normalizer calculation for softmax", section 3.1.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> rng = np.random.default_rng(0)
    >>> query, key, value = (rng.standard_normal((n, 4)) for n in (2, 6, 6))
    >>> parts = [
    ...     attnc.dot_product_attention(query, key[s], value[s], return_lse=True)
    ...     for s in (slice(0, 2), slice(2, 6))
    ... ]
    >>> merged = attnc.merge_attention([p.context for p in parts], [p.lse for p in parts])
    >>> np.allclose(merged, attnc.dot_product_attention(query, key, value))
    True
    """
    return _merge(contexts, lses, return_lse=return_lse)[0]


def _as_attend(contexts, lses, return_lse):
    """Attention by which they merge: its scores and values, its options, and how it is stored."""
    contexts, lses = _parts("contexts", contexts), _parts("lses", lses)
    _check_parts(contexts, lses)
    scores, values = np.stack(lses, axis=-1)[..., None, :], np.stack(contexts, axis=-2)
    # A set without keys is not read; and a mask, not its lse, says so: NaN there has no effect.
    return_lse = flag("merge_attention", "return_lse", return_lse)
    options = {"mask": scores != -np.inf, "return_lse": return_lse}
    # The lses, which may be wider, count for what it is computed in, not for what it is stored in.
    return (scores, values), options, np.empty(0, np.result_type(*contexts))


def _merged(output, stored):
    """What `attend` gave, or the tangent of it, as one set."""
    if not isinstance(output, LseResult):
        return like(output[..., 0, :], stored)
    return LseResult(like(output.context[..., 0, :], stored), output.lse[..., 0])


def _merge(contexts, lses, *, return_lse=False):
    """The output, and what backward needs."""
    arrays, options, stored = _as_attend(contexts, lses, return_lse)
    output, saved, rest = record_of(attend).forward(*arrays, **options)
    output = _merged(output, stored)
    shape = (output.context if return_lse else output).shape
    return output, saved, (rest, (*contexts, *lses), shape)


def _merge_jvp(tangents, contexts, lses, *, return_lse=False):
    arrays, options, stored = _as_attend(contexts, lses, return_lse)
    moved = _tangents_of_attend(tangents, contexts, lses)
    output, tangent = record_of(attend).jvp(moved, *arrays, **options)
    return _merged(output, stored), _merged(tangent, stored)


def _merge_jvp_jvp(tangents, others, contexts, lses, *, return_lse=False):
    arrays, options, stored = _as_attend(contexts, lses, return_lse)
    moved = (_tangents_of_attend(each, contexts, lses) for each in (tangents, others))
    return _merged(record_of(attend).jvp_jvp(*moved, *arrays, **options), stored)


def _merge_backward_jvp(tangents, incoming, dincoming, contexts, lses, *, return_lse=False):
    arrays, options, _ = _as_attend(contexts, lses, return_lse)
    shape = arrays[1].shape[:-2] + arrays[1].shape[-1:]
    found = record_of(attend).backward_jvp(
        _tangents_of_attend(tangents, contexts, lses),
        _incoming_of_attend(incoming, shape),
        _incoming_of_attend(dincoming, shape, "tangent of "),
        *arrays,
        **options,
    )
    return _parts_of_gradients(*found[:2], (*contexts, *lses))


def _tangents_of_attend(tangents, contexts, lses):
    """The tangents of its scores and values."""
    moved = {}
    for name, of_attend, parts, axis in (
        ("contexts", "value", contexts, -2),
        ("lses", "scores", lses, -1),
    ):
        given = _part_tangents(name, parts, tangents.get(name))
        if given is not None:
            moved[of_attend] = np.stack(given, axis=axis)
    if "scores" in moved:
        moved["scores"] = moved["scores"][..., None, :]
    return moved


def _part_tangents(name, parts, tangents):
    """The tangents of contexts or lses, one a part, 0 for None; or None where there are none."""
    if tangents is None:
        return None
    rule = (
        f"merge_attention: tangent of {name} must be a sequence of {len(parts)} arrays, as {name}"
    )
    if not isinstance(tangents, (list, tuple, np.ndarray)):
        raise TypeError(f"{rule} is, got {type(tangents).__name__}")
    if len(tangents) != len(parts):
        raise ValueError(f"{rule} is, got {len(tangents)}")
    if all(tangent is None for tangent in tangents):
        return None
    found = []
    for k, (tangent, part) in enumerate(zip(tangents, parts, strict=True)):
        shape = np.shape(part)
        if tangent is None:
            found.append(np.zeros(shape, np.float32))  # the narrowest that goes with halves
            continue
        tangent = real_array("merge_attention", f"tangent of {name}[{k}]", tangent)
        if tangent.shape != shape:
            raise ValueError(
                f"merge_attention: tangent of {name}[{k}] must have the shape of {name}[{k}], "
                f"{shape}, got {tangent.shape}"
            )
        found.append(tangent)
    return found


def _merge_backward(saved, static, dcontext, dlse):
    rest, given, shape = static
    incoming = _incoming_of_attend((dcontext, dlse), shape)
    dscores, dvalues, *_ = record_of(attend).backward(saved, rest, *incoming)
    return _parts_of_gradients(dscores, dvalues, given)


def _incoming_of_attend(incoming, shape, what=""):
    """The gradients of its context, weights and lse, from those of context and lse."""
    dcontext, dlse = incoming
    if dcontext is not None:
        dcontext = _incoming(f"{what}dcontext", dcontext, shape)[..., None, :]
    if dlse is not None:
        dlse = _incoming(f"{what}dlse", dlse, shape[:-1])[..., None]
    return dcontext, None, dlse


def _parts_of_gradients(dscores, dvalues, given):
    """The gradients of contexts and lses, a tuple each, from those of all as one array."""
    count = len(given) // 2
    dcontexts = (np.ascontiguousarray(dvalues[..., s, :]) for s in range(count))
    dlses = (np.ascontiguousarray(dscores[..., 0, s]) for s in range(count))
    return tuple(map(like, dcontexts, given[:count])), tuple(map(like, dlses, given[count:]))


def _parts(name, arrays):
    if not isinstance(arrays, (list, tuple, np.ndarray)) or getattr(arrays, "ndim", 1) == 0:
        raise TypeError(
            f"merge_attention: {name} must be a sequence of arrays, got {type(arrays).__name__}"
        )
    return [real_array("merge_attention", f"{name}[{k}]", x) for k, x in enumerate(arrays)]


def _check_parts(contexts, lses):
    if not contexts or len(contexts) != len(lses):
        raise ValueError(
            "merge_attention: lses must hold one array for each of contexts, and at least one, got "
            f"{len(contexts)} contexts and {len(lses)} lses"
        )
    shape = contexts[0].shape
    if len(shape) < 2:
        raise ValueError(
            "merge_attention: contexts[0] must have at least 2 axes (time, feature), got shape "
            f"{shape}"
        )
    for name, arrays, wanted in (("contexts", contexts, shape), ("lses", lses, shape[:-1])):
        for k, array in enumerate(arrays):
            if array.shape != wanted:
                raise ValueError(
                    f"merge_attention: {name}[{k}] must have shape {wanted}, as contexts[0] has "
                    f"{shape}, got {array.shape}"
                )


def _incoming(name, gradient, shape):
    gradient = real_array("merge_attention", name, gradient)
    if gradient.shape != shape:
        raise ValueError(
            f"merge_attention: {name} must have the shape of its output, {shape}, got "
            f"{gradient.shape}"
        )
    return gradient


def _merged_shapes(contexts, lses, *, return_lse=False):
    shape = shape_of(contexts[0])
    context = Output(shape, "real", ("contexts",))
    return LseResult(context, Output(shape[:-1], "computed")) if return_lse else context


register(
    merge_attention,
    required=("contexts", "lses"),
    incoming=("dcontext", "dlse"),
    positional=1,
    forward=_merge,
    backward=_merge_backward,
    jvp=_merge_jvp,
    backward_jvp=_merge_backward_jvp,
    jvp_jvp=_merge_jvp_jvp,
    outputs=_merged_shapes,
    leading=("contexts", "lses"),
)

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

    s       = softcap(score) + bias
    allowed = mask & key_mask & (j < key_lengths) & causal & window
    weights = softmax of s over the allowed keys
    context = dropout(weights) @ value
"""

from __future__ import annotations

import inspect

import numpy as np

from attnc import _core
from attnc.arrays import like, real_array
from attnc.gradients import _gradients, register_vjp, require_incoming, result_type, vjp

__all__ = [
    "additive_attention",
    "attend",
    "cosine_attention",
    "dot_product_attention",
    "merge_attention",
    "multiplicative_attention",
]

# ---- results ----


WeightsResult = result_type("WeightsResult", "context weights")
LseResult = result_type("LseResult", "context lse")
FullResult = result_type("FullResult", "context weights lse")


def _named(outputs, return_weights):
    if len(outputs) == 3:
        return FullResult(*outputs)
    return WeightsResult(*outputs) if return_weights else LseResult(*outputs)


def _dropout_key(rng):
    """The 64-bit key of a call with dropout: an integer is the key itself."""
    if rng is None or isinstance(rng, np.random.Generator):
        return int(np.random.default_rng(rng).integers(2**64, dtype=np.uint64))
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
bias : array, optional
    ``(..., Tq, Tk)``, added to the scores; ``-inf`` excludes like False in `mask`. Has a gradient.
causal : bool, default False
    Query ``i`` at position ``p = i + causal_offset`` attends to keys ``j <= p`` only.
causal_offset : int or array of int, optional
    ``(...,)``; default ``Tk - Tq``, so that the last query sees the last key. 0 is what PyTorch
    and JAX do. Goes with `causal` or `window`.
window : (left, right), optional
    Only keys ``p - left <= j <= p + right``; an integer >= 0 or None for open on either side.
softcap : float, optional
    ``c * tanh(score / c)`` with ``c > 0`` takes the place of the score.
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
    lse ``-inf``, and adds nothing to any gradient.

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
bfloat16 are computed in float32, integers and lists in float64. What a mask excludes is not read:
NaN there has no effect. The context has the same bits with any ``return_`` flag and any number
of threads.

""",
}


def _documented(function):
    if function.__doc__:  # there is none under python -OO
        text = inspect.cleandoc(function.__doc__)  # from Python 3.13 on the compiler does that
        for name, common in _COMMON.items():
            text = text.replace("{" + name + "}\n", common)
        function.__doc__ = text
    return function


# ---- the functions ----


@_documented
def dot_product_attention(
    query,
    key,
    value,
    *,
    scale=None,
    mask=None,
    key_mask=None,
    key_lengths=None,
    bias=None,
    causal=False,
    causal_offset=None,
    window=None,
    softcap=None,
    dropout=0.0,
    rng=None,
    return_weights=False,
    return_lse=False,
):
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
    attention-based neural machine translation", eq. 8 (dot). Nothing of size ``Tq * Tk`` is stored.

    {dtypes}
    Examples
    --------
    >>> import numpy as np, attnc
    >>> query, key, value = np.eye(2), np.eye(2), np.array([[1.0], [2.0]])
    >>> attnc.dot_product_attention(query, key, value, scale=1.0).round(4)
    array([[1.2689],
           [1.7311]])
    """
    outputs = _core.dot_product_attention(
        query,
        key,
        value,
        scale,
        mask,
        key_mask,
        key_lengths,
        bias,
        causal,
        causal_offset,
        window,
        softcap,
        dropout,
        _dropout_key(rng) if dropout else 0,
        return_weights,
        return_lse,
        False,
    )
    return _named(outputs, return_weights) if return_weights or return_lse else outputs


@_documented
def multiplicative_attention(
    query,
    key,
    value,
    weight,
    *,
    mask=None,
    key_mask=None,
    key_lengths=None,
    bias=None,
    causal=False,
    causal_offset=None,
    window=None,
    softcap=None,
    dropout=0.0,
    rng=None,
    return_weights=False,
    return_lse=False,
):
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
    to attention-based neural machine translation", eq. 8 (general).

    {dtypes}
    Examples
    --------
    >>> import numpy as np, attnc
    >>> query, key, value = np.ones((1, 3)), np.eye(2), np.array([[1.0], [2.0]])
    >>> weight = np.zeros((3, 2))
    >>> attnc.multiplicative_attention(query, key, value, weight)
    array([[1.5]])
    """
    outputs = _core.multiplicative_attention(
        query,
        key,
        value,
        weight,
        mask,
        key_mask,
        key_lengths,
        bias,
        causal,
        causal_offset,
        window,
        softcap,
        dropout,
        _dropout_key(rng) if dropout else 0,
        return_weights,
        return_lse,
        False,
    )
    return _named(outputs, return_weights) if return_weights or return_lse else outputs


@_documented
def additive_attention(
    query,
    key,
    value,
    score_vector,
    *,
    query_weight=None,
    key_weight=None,
    score_bias=None,
    mask=None,
    key_mask=None,
    key_lengths=None,
    bias=None,
    causal=False,
    causal_offset=None,
    window=None,
    softcap=None,
    dropout=0.0,
    rng=None,
    return_weights=False,
    return_lse=False,
):
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
    outputs = _core.additive_attention(
        query,
        key,
        value,
        score_vector,
        query_weight,
        key_weight,
        score_bias,
        mask,
        key_mask,
        key_lengths,
        bias,
        causal,
        causal_offset,
        window,
        softcap,
        dropout,
        _dropout_key(rng) if dropout else 0,
        return_weights,
        return_lse,
        False,
    )
    return _named(outputs, return_weights) if return_weights or return_lse else outputs


@_documented
def cosine_attention(
    query,
    key,
    value,
    *,
    scale=1.0,
    mask=None,
    key_mask=None,
    key_lengths=None,
    bias=None,
    causal=False,
    causal_offset=None,
    window=None,
    softcap=None,
    dropout=0.0,
    rng=None,
    return_weights=False,
    return_lse=False,
):
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
    outputs = _core.cosine_attention(
        query,
        key,
        value,
        scale,
        mask,
        key_mask,
        key_lengths,
        bias,
        causal,
        causal_offset,
        window,
        softcap,
        dropout,
        _dropout_key(rng) if dropout else 0,
        return_weights,
        return_lse,
        False,
    )
    return _named(outputs, return_weights) if return_weights or return_lse else outputs


@_documented
def attend(
    scores,
    value,
    *,
    mask=None,
    key_mask=None,
    key_lengths=None,
    bias=None,
    causal=False,
    causal_offset=None,
    window=None,
    softcap=None,
    dropout=0.0,
    rng=None,
    return_weights=False,
    return_lse=False,
):
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

    {dtypes}
    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.attend(np.zeros((1, 2)), np.array([[1.0], [2.0]]))
    array([[1.5]])
    """
    outputs = _core.attend(
        scores,
        value,
        mask,
        key_mask,
        key_lengths,
        bias,
        causal,
        causal_offset,
        window,
        softcap,
        dropout,
        _dropout_key(rng) if dropout else 0,
        return_weights,
        return_lse,
        False,
    )
    return _named(outputs, return_weights) if return_weights or return_lse else outputs


# ---- gradients ----


def _register(function, required, optional):
    """Teach `vjp` a function of `_core`.

    The arguments of the C function are the required arrays, then the keyword arguments in the order
    of the signature; its backward twin returns the gradients of `required` and then `optional`.
    """
    forward = getattr(_core, function.__name__)
    backward = getattr(_core, function.__name__ + "_backward")
    name = function.__name__
    defaults = function.__kwdefaults__
    no_options = tuple(defaults.values())
    count = len(required)
    names = required + optional

    def bind(arrays, options):
        bound = inspect.signature(function).bind(*arrays, **options)  # raises as a call would
        bound.apply_defaults()
        values = bound.arguments
        return [values.pop(array) for array in required], values

    def rule(*arrays, **options):
        if options or len(arrays) != count:
            values = defaults | options
            if len(arrays) != count or len(values) != len(defaults):
                arrays, values = bind(arrays, options)
            if values["dropout"]:  # that of backward is that of forward: draw its key once
                values["rng"] = _dropout_key(values["rng"])
            arguments = (*arrays, *values.values())
        else:
            arguments = arrays + no_options
        context, weights, lse, saved = forward(*arguments, True)

        def pullback(dcontext=None, *, dweights=None, dlse=None):
            if dcontext is None:
                require_incoming(name, dcontext=dcontext, dweights=dweights, dlse=dlse)
            gradients = backward(saved, dcontext, dweights, dlse, *arguments)
            if options:  # None: not given, or not a real array
                gradients_by_name = {
                    array: gradient
                    for array, gradient in zip(names, gradients, strict=True)
                    if gradient is not None
                }
            else:
                gradients_by_name = dict(zip(required, gradients, strict=False))
            return _gradients(gradients[:count], gradients_by_name)

        if weights is None and lse is None:
            return context, pullback
        outputs = [output for output in (context, weights, lse) if output is not None]
        return _named(outputs, weights is not None), pullback

    register_vjp(function, rule)


_register(dot_product_attention, ("query", "key", "value"), ("scale", "bias"))
_register(multiplicative_attention, ("query", "key", "value", "weight"), ("bias",))
_register(
    additive_attention,
    ("query", "key", "value", "score_vector"),
    ("query_weight", "key_weight", "score_bias", "bias"),
)
_register(cosine_attention, ("query", "key", "value"), ("scale", "bias"))
_register(attend, ("scores", "value"), ("bias",))


# ---- attention over keys that are not in one place ----


def merge_attention(contexts, lses, *, return_lse=False):
    """Put attention over disjoint sets of keys together: as over all of them at once.

    Parameters
    ----------
    contexts : sequence of array_like
        ``(..., Tq, Dv)`` each, all of one shape: the context over each set of keys.
    lses : sequence of array_like
        ``(..., Tq)`` each, in the same order: what ``return_lse=True`` gave with them.
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
    return _merge_vjp(contexts, lses, return_lse=return_lse)[0]


def _merge_vjp(contexts, lses, *, return_lse=False):
    given_contexts, given_lses = contexts, lses
    contexts, lses = _parts("contexts", contexts), _parts("lses", lses)
    _check_parts(contexts, lses)
    scores, values = np.stack(lses, axis=-1)[..., None, :], np.stack(contexts, axis=-2)
    # A set without keys is not read; and a mask, not its lse, says so: NaN there has no effect.
    output, back = vjp(attend, scores, values, mask=scores != -np.inf, return_lse=return_lse)
    context = (output.context if return_lse else output)[..., 0, :]
    # The lses, which may be wider, count for what it is computed in, not for what it is stored in.
    context = like(context, np.empty(0, np.result_type(*contexts)))
    lse = output.lse[..., 0] if return_lse else None

    def pullback(dcontext=None, *, dlse=None):
        require_incoming("merge_attention", dcontext=dcontext, dlse=dlse)
        if dcontext is not None:
            dcontext = _incoming("dcontext", dcontext, context)[..., None, :]
        if dlse is not None and lse is not None:
            dlse = _incoming("dlse", dlse, lse)[..., None]
        dscores, dvalues = back(dcontext, dlse=dlse)
        dcontexts = [np.ascontiguousarray(dvalues[..., s, :]) for s in range(len(contexts))]
        dlses = [np.ascontiguousarray(dscores[..., 0, s]) for s in range(len(lses))]
        required = {
            "contexts": tuple(map(like, dcontexts, given_contexts)),
            "lses": tuple(map(like, dlses, given_lses)),
        }
        return _gradients(required.values(), required)

    return (LseResult(context, lse) if return_lse else context), pullback


def _parts(name, arrays):
    if not isinstance(arrays, (list, tuple, np.ndarray)):
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


def _incoming(name, gradient, output):
    gradient = real_array("merge_attention", name, gradient)
    if gradient.shape != output.shape:
        raise ValueError(
            f"merge_attention: {name} must have the shape of its output, {output.shape}, got "
            f"{gradient.shape}"
        )
    return gradient


register_vjp(merge_attention, _merge_vjp)

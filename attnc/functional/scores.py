"""The scores of the attention functions as arrays, forward and backward in C.

==========================  ====================================================================
`dot_product_scores`        ``scale * q . k``
`multiplicative_scores`     ``q W k``
`additive_scores`           ``v . tanh(q Wq + k Wk + b)``
`cosine_scores`             ``scale * q . k / (|q| |k|)``
==========================  ====================================================================

They are what comes before softcap, slope, bias and softmax, by the kernels of the attention
functions: for `attnc.attend`, and for all else that starts from scores.
"""

from __future__ import annotations

from typing import Unpack

from attnc import _core
from attnc.functional.attention import Mechanism
from attnc.functional.options import Pairs, outside, takes_options, with_common
from attnc.functional.shapes import broadcast, shape_of
from attnc.registry import Output
from attnc.typing import Array, Function, Real

__all__ = ["additive_scores", "cosine_scores", "dot_product_scores", "multiplicative_scores"]


# ---- docstrings: what all functions share is written once ----

_COMMON = {
    "sequences": """\
query : array_like
    ``(..., Tq, Dq)``. Leading axes (batch, heads) are those of `key` or 1.
key : array_like
    ``(..., Tk, Dk)``.
""",
    "masks": """\
mask, key_mask, key_lengths, query_lengths, causal, causal_offset, window : optional
    Which pairs are wanted, as in `attnc.attend`. The others are not read, have score 0, and give
    nothing to any gradient, whatever comes in for them. Where scores go on to `attnc.attend`, pass
    it the same ones: 0 there is a score like any other.

Returns
-------
ndarray
    ``(..., Tq, Tk)``, the scores, in the dtype of the arrays; of integers and lists float64.

Raises
------
TypeError
    If an argument is not what it should be: complex or object arrays, masked arrays, tensors of
    other libraries, masks that are not boolean, options of what follows the scores.
ValueError
    If shapes do not fit or an option is out of range.

""",
    "dtypes": """\
float16 and bfloat16 are computed in float32. The same bits for any number of threads.

""",
}


def _documented(function: Function) -> Function:
    """The function with the masks in its signature, and what is common in its docstring."""
    takes_options(function, without=outside(Pairs))
    return with_common(function, _COMMON)


# ---- the functions ----


@_documented
def dot_product_scores(
    query: Real, key: Real, *, scale: Real | None = None, **masks: Unpack[Pairs]
) -> Array:
    """The scores of `attnc.dot_product_attention`: ``scale * query @ key.T``.

    Parameters
    ----------
    {sequences}
    scale : float or 0-d array, optional
        Factor of the scores; default ``1 / sqrt(D)``; 1 is Luong's "dot". A 0-d array has a
        gradient.
    {masks}
    See Also
    --------
    attnc.dot_product_attention : all of it, without an array of scores
    attnc.vjp : the gradients

    Notes
    -----
    The score of query i and key j is ``s_ij = scale * q_i . k_j``: Vaswani et al. 2017, "Attention
    is all you need", eq. 1; with scale 1 Luong et al. 2015, "Effective approaches to
    attention-based neural machine translation", section 3.1 (dot).

    {dtypes}
    Examples
    --------
    >>> import numpy as np, attnc
    >>> query, key = np.array([[1.0, 2.0]]), np.eye(2)
    >>> attnc.dot_product_scores(query, key, scale=1)
    array([[1., 2.]])
    >>> attnc.dot_product_scores(query, key, scale=1, key_lengths=1)
    array([[1., 0.]])
    """
    return _core.dot_product_scores(query, key, scale, **masks)


@_documented
def multiplicative_scores(query: Real, key: Real, weight: Real, **masks: Unpack[Pairs]) -> Array:
    """The scores of `attnc.multiplicative_attention`: ``query @ weight @ key.T``.

    Parameters
    ----------
    {sequences}
    weight : array_like
        ``(Dq, Dk)``, W_a of the paper.
    {masks}
    See Also
    --------
    attnc.multiplicative_attention : all of it, without an array of scores
    attnc.vjp : the gradients

    Notes
    -----
    The score of query i and key j is ``s_ij = q_i W k_j``: Luong et al. 2015, "Effective approaches
    to attention-based neural machine translation", section 3.1 (general).

    {dtypes}
    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.multiplicative_scores([[1.0, 2.0]], np.eye(2), [[0.0, 1.0], [1.0, 0.0]])
    array([[2., 1.]])
    """
    return _core.multiplicative_scores(query, key, weight, **masks)


@_documented
def additive_scores(
    query: Real,
    key: Real,
    score_vector: Real,
    *,
    query_weight: Real | None = None,
    key_weight: Real | None = None,
    score_bias: Real | None = None,
    **masks: Unpack[Pairs],
) -> Array:
    """The scores of `attnc.additive_attention`: ``v . tanh(q Wq + k Wk + b)``.

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
    attnc.additive_attention : all of it, without an array of scores
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
    >>> attnc.additive_scores(np.zeros((1, 3)), np.ones((2, 3)), [1.0, 2.0, 0.0]).round(4)
    array([[2.2848, 2.2848]])
    """
    parts = query_weight, key_weight, score_bias
    return _core.additive_scores(query, key, score_vector, *parts, **masks)


@_documented
def cosine_scores(query: Real, key: Real, *, scale: Real = 1.0, **masks: Unpack[Pairs]) -> Array:
    """The scores of `attnc.cosine_attention`: ``scale * cos(q, k)``.

    Parameters
    ----------
    {sequences}
    scale : float or 0-d array, default 1.0
        Factor of the cosine. A 0-d array has a gradient.
    {masks}
    See Also
    --------
    attnc.cosine_attention : all of it, without an array of scores
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
    >>> attnc.cosine_scores([[3.0, 4.0]], np.eye(2))
    array([[0.6, 0.8]])
    """
    return _core.cosine_scores(query, key, scale, **masks)


# ---- their records ----


class _Scores(Mechanism):
    """What stands between a record and C: nothing is kept but the arguments."""

    outputs = ("dscores",)
    options_with_gradients = ()
    fixed = ("mask", "key_mask", "key_lengths", "query_lengths", "causal_offset")

    def forward(self, *arrays, **options):
        if len(arrays) != self.count:
            arrays = self._bound(arrays, options)
        scores = getattr(_core, self.name)(*arrays, **options)
        return scores, *self.saved(arrays, options, ())

    def shapes(self, *arrays, **options):
        query, key = (shape_of(x) for x in self._bound(arrays, options)[:2])
        return Output((*broadcast(query[:-2], key[:-2]), query[-2], key[-2]))

    def backward(self, saved, static, dscores):
        names, rest = static
        options = dict(zip(names, saved[self.count :], strict=True)) | rest
        return self.backward_in_c(dscores, *saved[: self.count], **options)


for _function, _required, _optional in (
    (dot_product_scores, ("query", "key"), ("scale",)),
    (multiplicative_scores, ("query", "key", "weight"), ()),
    (
        additive_scores,
        ("query", "key", "score_vector"),
        ("query_weight", "key_weight", "score_bias"),
    ),
    (cosine_scores, ("query", "key"), ("scale",)),
):
    _Scores(_function, _required, _optional)

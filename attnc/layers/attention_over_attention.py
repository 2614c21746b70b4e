"""AttentionOverAttention: which words of a question count, and what they look at in a document."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, overload

import numpy as np

from .. import functional
from ..arrays import boolean_mask, flag, like, quiet
from ..gradients import Gradients, require_incoming, shows_shapes, vjp
from ..typing import Array, Bools, DType, Integers, Real
from .base import Layer


@shows_shapes
class OverResult(NamedTuple):
    """What `AttentionOverAttention` returns with its weights."""

    context: Array
    weights: Array
    query_weights: Array


class AttentionOverAttention(Layer):
    """Attention over attention: all words of a query look as one, each as much as it matters.

    With the scores ``m_ij = q_i . k_j`` of the words i of a query and j of a document::

        alpha_i = softmax over j of m_ij         what each word of the query looks at
        beta    = mean over j of (softmax over i of m_ij)     how much each of them matters
        weights = sum_i beta_i alpha_i           context = sum_j weights_j v_j

    Cui et al. (2017), "Attention-over-attention neural networks for reading comprehension", section
    3, where M has a row for each word of the document: alpha is the softmax of its columns, beta
    the mean of that of its rows. The weights are the answer: a word has the sum of those of its
    places. There are no parameters. (Attention on attention is another paper:
    `AttentionOnAttention`.)

    Parameters
    ----------
    dtype : float32 or float64
        The inputs are cast to it.

    Raises
    ------
    TypeError
        If dtype is neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.AttentionOverAttention(dtype="float64")
    >>> question, document = np.eye(3)[:2], 9 * np.eye(3)
    >>> layer(question, document, return_weights=True).weights.round(2)
    array([0.5, 0.5, 0. ])
    """

    def __init__(self, *, dtype: DType = "float32") -> None:
        super().__init__(dtype)

    @overload
    def __call__(
        self,
        query: Real,
        key: Real,
        value: Real | None = ...,
        *,
        key_mask: Bools | None = ...,
        key_lengths: Integers | None = ...,
        query_lengths: Integers | None = ...,
        return_weights: Literal[False] = ...,
        train: bool = ...,
    ) -> Array: ...
    @overload
    def __call__(
        self,
        query: Real,
        key: Real,
        value: Real | None = ...,
        *,
        key_mask: Bools | None = ...,
        key_lengths: Integers | None = ...,
        query_lengths: Integers | None = ...,
        return_weights: bool = ...,
        train: bool = ...,
    ) -> Any: ...
    def __call__(
        self,
        query: Real,
        key: Real,
        value: Real | None = None,
        *,
        key_mask: Bools | None = None,
        key_lengths: Integers | None = None,
        query_lengths: Integers | None = None,
        return_weights: bool = False,
        train: bool = False,
    ) -> Any:
        """Attend: compute, and remember nothing.

        Parameters
        ----------
        query : array_like, shape (..., Tq, D)
            The words of the query.
        key : array_like, shape (..., Tk, D)
            Those of the document.
        value : array_like, shape (..., Tk, Dv), optional
            The keys themselves unless given.
        key_mask : array_like of bool, shape (..., Tk), optional
            True for the words of the document that count. The others are not read.
        key_lengths, query_lengths : int or array_like of int, shape (...), optional
            Valid words of each document and of each query.
        return_weights : bool
            Return a named tuple (context, weights, query_weights) with the weights (..., Tk) and
            beta (..., Tq).
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (..., Dv), or a named tuple
            Of a query or a document without words it is 0.

        Raises
        ------
        TypeError, ValueError
            As `attnc.dot_product_attention` does, naming the argument and the fix.
        """
        return self._vjp(
            query,
            key,
            value,
            key_mask=key_mask,
            key_lengths=key_lengths,
            query_lengths=query_lengths,
            return_weights=return_weights,
            train=train,
        )[0]

    @quiet
    def _vjp(
        self,
        query,
        key,
        value=None,
        *,
        key_mask=None,
        key_lengths=None,
        query_lengths=None,
        return_weights=False,
        train=False,
    ):
        where, given = type(self).__name__, (query, key, value)
        flag(where, "train", train)
        weighted = flag(where, "return_weights", return_weights)
        query = self._real("query", query, ..., "Tq", "D")
        key = self._real("key", key, ..., "Tk", query.shape[-1])
        value = key if value is None else self._real("value", value, ..., "Tk", "Dv")
        attention: Any = functional.dot_product_attention
        masks = {"key_mask": key_mask, "key_lengths": key_lengths, "query_lengths": query_lengths}
        (contexts, alpha), back_to_all = vjp(
            attention, query, key, value, scale=1.0, return_weights=True, **masks
        )
        # The other way round, words of the document ask. Of what they look at only the weights
        # count, and how many of them there are.
        turned = {"key_lengths": query_lengths, "query_lengths": key_lengths}
        if key_mask is not None:
            shape = alpha.shape[:-2] + alpha.shape[-1:]
            key_mask = boolean_mask(where, "key_mask", key_mask, shape, "(..., Tk)")
            turned["mask"] = key_mask[..., None]
        nothing = np.zeros((*query.shape[:-1], 1), self.dtype)
        (_, rows), back_to_both = vjp(
            attention, key, query, nothing, scale=1.0, return_weights=True, **turned
        )
        share = 1 / np.maximum((rows > 0).any(axis=-1).sum(axis=-1), 1)
        share = share.astype(self.dtype)[..., None]  # (..., 1)
        beta = rows.sum(axis=-2) * share
        context = (beta[..., None] * contexts).sum(axis=-2)
        output = context
        if weighted:
            output = OverResult(context, (beta[..., None] * alpha).sum(axis=-2), beta)

        @quiet
        def pullback(dcontext=None, *, dweights=None, dquery_weights=None):
            incoming = {"dweights": dweights, "dquery_weights": dquery_weights}
            require_incoming(where, dcontext=dcontext, **incoming)
            for name, gradient in incoming.items():
                if gradient is not None and not weighted:
                    raise self._error(f"{name} must be None without return_weights, got a gradient")
            dcontext = self._incoming("dcontext", dcontext, context.shape)
            dweights = self._incoming("dweights", dweights, alpha.shape[:-2] + alpha.shape[-1:])
            dbeta = self._incoming("dquery_weights", dquery_weights, beta.shape)
            dbeta = np.zeros_like(beta) if dbeta is None else dbeta.copy()
            # weights = sum_i beta_i alpha_i, and likewise the context of the contexts
            down = {}
            pairs = (("dcontext", dcontext, contexts), ("dweights", dweights, alpha))
            for name, d, each in pairs:
                if d is not None:
                    dbeta += (each * d[..., None, :]).sum(axis=-1)
                    down[name] = beta[..., None] * d[..., None, :]
            drows = np.broadcast_to((dbeta * share)[..., None, :], rows.shape)
            dkey, dquery, _ = back_to_both(dweights=drows)
            dvalue = np.zeros_like(value)
            if down:
                found = back_to_all(**down)
                dquery, dkey, dvalue = dquery + found.query, dkey + found.key, found.value
            required = {"query": like(dquery, given[0])}
            if given[2] is None:
                required["key"] = like(dkey + dvalue, given[1])
            else:
                required["key"] = like(dkey, given[1])
                required["value"] = like(dvalue, given[2])
            return Gradients(required)

        return output, pullback

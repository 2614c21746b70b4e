"""Local attention as a layer: each query looks at a window around a place of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Unpack, overload

import numpy as np

from .. import functional
from ..arrays import flag, generator, integer, integer_array, like, quiet, reached, sum_to
from ..functional.decoder import check_choice
from ..functional.options import LayerOptions, Masks, takes_options
from ..gradients import Gradients, require_incoming, vjp
from ..typing import Array, DType, Real, Seed
from .attention import _Attention, hidden_size_of, of_options
from .base import glorot, positive


class _Score(NamedTuple):
    """A function of `attnc.functional` and the parameters that it takes."""

    function: Callable[..., Any]
    positional: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()


_SCORES = {
    "multiplicative": _Score(functional.multiplicative_attention, ("weight",)),
    "additive": _Score(
        functional.additive_attention, ("score_vector",), ("query_weight", "key_weight")
    ),
    "dot": _Score(functional.dot_product_attention),
    "cosine": _Score(functional.cosine_attention, (), ("scale",)),
}
# The options that the layer does not take, and why.
_WITHOUT = {
    **dict.fromkeys(("window", "center", "sigma", "renormalize"), "the layer has its own"),
    "normalizer": "windows around a place belong to the softmax",
}


class LocalAttention(_Attention):
    """Attention to a window of keys around a place that each query has of its own.

    Query i looks at the keys ``floor(c_i) - width <= j <= floor(c_i) + width`` alone, at a cost
    that depends on the width, not on the number of keys. Luong et al. (2015), "Effective approaches
    to attention-based neural machine translation", section 3.2:

    - ``position="predictive"``, their local-p, eq. 9 and 10: the query predicts its place among the
      S keys of its sequence, and keys count the less the farther they are from there::

          c_i  = (S - 1) sigmoid(v_p . tanh(q_i W_p))
          w_ij = softmax_j(s_ij) exp(-(j - c_i)^2 / (2 sigma^2))      sigma = width / 2

      The paper has S for S - 1; the authors' code has this, which ends at the last key.
    - ``position="monotonic"``, their local-m: ``c_i = i``, and the softmax alone.

    S is the real length of each sequence: up to the last key that its `key_lengths` and `key_mask`
    both allow; in a packed batch that of each sequence. `mask` and `bias` do not change it.

    Parameters
    ----------
    query_size, key_size : int
        Sizes of a query and of a key. Equal for the scores 'dot' and 'cosine'.
    score : {'multiplicative', 'additive', 'dot', 'cosine'}
        As in the layers of these names; 'dot' is Luong's, of scale 1.
    position : {'predictive', 'monotonic'}
    width : int
        The keys of the window on either side of its place, at least 1. Default 10, the authors'.
    position_size : int, optional
        Columns of W_p, for 'predictive'; query_size unless given.
    hidden_size : int, optional
        Hidden units of the score 'additive'; query_size unless given.
    renormalize : bool
        For 'predictive': whether the Gaussian is part of the softmax, so that weights sum to 1.
        Default False, which the authors found to be better.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping a weight when called with ``train=True``.
    rng : None, int or numpy.random.Generator
        Initial parameters, uniform after Glorot and Bengio (2010).
    dtype : float32 or float64
        Of the parameters; the inputs are cast to it.

    Attributes
    ----------
    parameters : dict
        Those of the score: ``weight (query_size, key_size)``; or ``query_weight (query_size,
        hidden_size)``, ``key_weight (key_size, hidden_size)`` and ``score_vector (hidden_size,)``;
        or ``scale ()``. And for 'predictive' ``position_weight (query_size, position_size)``, W_p,
        and ``position_vector (position_size,)``, v_p.

    Raises
    ------
    ValueError
        If a size is not a positive integer, dropout is out of range, a name is unknown, or options
        contradict each other.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attention = attnc.LocalAttention(query_size=4, key_size=6, width=2, rng=0)
    >>> state, memory = np.ones((2, 1, 4)), np.ones((2, 9, 6))
    >>> context, pullback = attnc.vjp(attention, state, memory, key_lengths=[9, 5], train=True)
    >>> dstate, dmemory = pullback(np.ones_like(context))  # and adds into attention.gradients
    >>> attention.centers(state, memory, key_lengths=[9, 5]).shape
    (2, 1)
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        score: str = "multiplicative",
        position: str = "predictive",
        width: int = 10,
        position_size: int | None = None,
        hidden_size: int | None = None,
        renormalize: bool = False,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dropout, dtype)
        where = type(self).__name__
        query_size, key_size = positive(self, query_size=query_size, key_size=key_size)
        check_choice(where, "score", score, _SCORES)
        check_choice(where, "position", position, ("predictive", "monotonic"))
        self.query_size, self.key_size = query_size, key_size
        self.score, self.position = score, position
        self.width = integer(where, "width", width, 1)
        self.renormalize = flag(where, "renormalize", renormalize)
        if position_size is not None:
            (position_size,) = positive(self, position_size=position_size)
        self.position_size = position_size
        self.hidden_size = hidden_size_of(self, hidden_size)
        if position == "monotonic" and (position_size is not None or self.renormalize):
            name, value = ("position_size", position_size)
            if position_size is None:
                name, value = "renormalize", True
            raise self._error(
                f"{name} must be {None if name == 'position_size' else False} for "
                f"position='monotonic', got {value} (only 'predictive' has a Gaussian)"
            )
        self._function, self._positional, self._keywords = _SCORES[score]
        rng = generator(where, rng)
        if score == "multiplicative":
            self.add_parameter("weight", glorot(rng, query_size, key_size))
        elif score == "additive":
            hidden = self.hidden_size or query_size
            self.add_parameter("query_weight", glorot(rng, query_size, hidden))
            self.add_parameter("key_weight", glorot(rng, key_size, hidden))
            self.add_parameter("score_vector", glorot(rng, hidden, 1)[:, 0])
        elif score == "cosine":
            self.add_parameter("scale", 10.0)
        if position == "predictive":
            columns = position_size or query_size
            self.add_parameter("position_weight", glorot(rng, query_size, columns))
            self.add_parameter("position_vector", glorot(rng, columns, 1)[:, 0])

    # The same as of the other layers, but for the options that this one gives itself.
    @overload
    def __call__(
        self,
        query: Real,
        key: Real,
        value: Real | None = ...,
        *,
        train: bool = ...,
        rng: Seed = ...,
        **options: Unpack[Masks],
    ) -> Array: ...
    @overload
    def __call__(
        self,
        query: Real,
        key: Real,
        value: Real | None = ...,
        *,
        train: bool = ...,
        rng: Seed = ...,
        **options: Unpack[LayerOptions],
    ) -> Any: ...
    @partial(takes_options, without=("dropout", *_WITHOUT))
    def __call__(
        self,
        query: Real,
        key: Real,
        value: Real | None = None,
        *,
        train: bool = False,
        rng: Seed = None,
        **options: Unpack[LayerOptions],
    ) -> Any:
        """Attend: compute, and remember nothing.

        Parameters
        ----------
        query : array_like, shape (..., Tq, query_size)
            One query a sequence, such as a decoder's state (B, Dq), is ``state[:, None]``.
        key : array_like, shape (..., Tk, key_size)
        value : array_like, shape (..., Tk, Dv), optional
            The keys themselves unless given: ``attention(state, memory)``.
        train : bool
            Whether to apply the layer's dropout to the weights.
        rng : None, int or numpy.random.Generator
            For the dropout.
        mask, key_mask, key_lengths, query_lengths
            As in `attnc.functional`; a mask is boolean and True where attending is allowed.
        query_offsets, key_offsets : array_like of int
            A packed batch, without padding.
        bias, causal, softcap, slope, sink
            As in `attnc.functional`.
        causal_offset : int or array_like of int
            Query i is at position ``i + causal_offset``; for the position 'monotonic' the window is
            there, by default at i. One query of a decoder at step t is ``causal_offset=t``.
        return_weights, return_lse : bool
            Return a named tuple (context, weights, lse) of what was asked for.

        Returns
        -------
        ndarray, shape (..., Tq, Dv), or a named tuple

        Raises
        ------
        TypeError, ValueError
            As the function in `attnc.functional` does, naming the argument and the fix.
        """
        return self._vjp(query, key, value, train=train, rng=rng, **options)[0]

    @quiet
    def centers(self, query: Real, key: Real, **options: Any) -> Array:
        """Where each query looks: the places c_i.

        Parameters
        ----------
        query, key : array_like
            As in a call.
        **options
            Those of a call that matter for it: key_mask, key_lengths, offsets.

        Returns
        -------
        ndarray of float64, shape (..., Tq)
            Leading axes are 1 where neither the query nor the length has more.

        Raises
        ------
        TypeError, ValueError
            As a call does.
        """
        self(query, key, **options)  # all checks are there
        query, key = (np.asarray(x, self.dtype) for x in (query, key))
        return np.asarray(self._places(query, key.shape[-2], dict(options))[0])

    def _places(self, query, Tk, options):
        """The centers, which are in `options` afterwards with what goes with them; and the way
        back to (dquery, {name: gradient})."""
        options |= {"window": (self.width, self.width)}
        if self.position == "monotonic":
            offset = options.pop("causal_offset", None)
            offset = 0 if offset is None else offset
            if options.get("causal") or options.get("slope") is not None:
                options["causal_offset"] = offset
            shift = integer_array(type(self).__name__, "causal_offset", offset)
            center = _steps(query.shape[-2], options) + shift[..., None]
            center = center.reshape((1,) * (query.ndim - 1 - center.ndim) + center.shape)
            options |= {"center": center.astype(float), "sigma": np.inf}
            return options["center"], lambda dcenter: (0, {})

        weight, vector = self._parameters["position_weight"], self._parameters["position_vector"]
        hidden = np.tanh(query @ weight)
        share = 1 / (1 + np.exp(-(hidden @ vector).astype(float)))
        last = np.maximum(_real_lengths(query, Tk, options) - 1.0, 0)
        options |= {"center": last * share, "renormalize": self.renormalize}

        def back(dcenter):
            """c = last sigmoid(x), x = v_p . tanh(q W_p)."""
            dshare = sum_to(dcenter * last, share.shape)
            used = reached(dshare)  # 0 times what is behind a mask would be NaN, where that is
            dx = np.where(used, dshare * share * (1 - share), 0).astype(self.dtype)[..., None]
            read = np.where(used[..., None], query, np.zeros_like(query))
            felt = np.where(used[..., None], hidden, np.zeros_like(hidden))
            dsum = dx * vector * (1 - felt**2)
            rows = dsum.reshape(-1, dsum.shape[-1])
            return dsum @ weight.T, {
                "position_weight": read.reshape(-1, read.shape[-1]).T @ rows,
                "position_vector": (dx * felt).reshape(rows.shape).sum(axis=0),
            }

        return options["center"], back

    def _arguments(self, query, key, value, train, rng, options):
        for name, why in _WITHOUT.items():
            if name in options:
                raise self._error(f"there is no argument {name!r}: {why}", TypeError)
        arrays, options = super()._arguments(query, key, value, train, rng, options)
        if self.score == "dot":
            options["scale"] = 1.0
        return arrays, options

    @quiet
    def _vjp(self, query, key, value=None, *, train=False, rng=None, **given):
        arrays, options = self._arguments(query, key, value, train, rng, given)
        _, back_to_query = self._places(arrays[0], arrays[1].shape[-2], options)
        output, back = vjp(self._function, *arrays, **options)

        @quiet
        def pullback(dcontext=None, *, dweights=None, dlse=None):
            where = type(self).__name__
            require_incoming(where, dcontext=dcontext, dweights=dweights, dlse=dlse)
            grads = back(dcontext, dweights=dweights, dlse=dlse)
            dquery, of_position = back_to_query(grads.center.astype(float))
            for name in self._parameters:
                self.add_gradient(name, of_position[name] if name in of_position else grads[name])
            required = {"query": like(grads.query + dquery, query)}
            if value is None:
                required["key"] = like(grads.key + grads.value, key)
            else:
                required["key"] = like(grads.key, key)
                required["value"] = like(grads.value, value)
            return Gradients(required, of_options(grads, given))

        return output, pullback


# ---- places and lengths --------------------------------------------------------------------------
#
# What does not fit is refused by the function that gets it afterwards, by name. Here it only must
# not be felt.


def _offsets(name, options):
    """Offsets of a packed batch, or None where there are none or they are no such."""
    given = options.get(name)
    if given is None:
        return None
    offsets = np.asarray(given)
    if offsets.ndim != 1 or not offsets.size or offsets.dtype.kind not in "iu":
        return None
    offsets = offsets.astype(int)
    return offsets if (np.diff(offsets) >= 0).all() else None


def _steps(Tq, options):
    """(Tq,): the number of each query in its sequence."""
    steps, offsets = np.arange(Tq), _offsets("query_offsets", options)
    if offsets is None or offsets[0] != 0 or offsets[-1] != Tq:
        return steps
    return steps - np.repeat(offsets[:-1], np.diff(offsets))


def _real_lengths(query, Tk, options):
    """(..., Tq) or with axes of 1: the keys of the sequence of each query, up to the last valid."""
    lead, Tq = query.ndim - 2, query.shape[-2]
    mask, key_lengths = options.get("key_mask"), options.get("key_lengths")
    try:
        mask = None if mask is None else np.asarray(mask) != 0
    except ValueError:  # what does not fit is refused by the function, which names it
        mask = None
    if mask is not None and (mask.ndim != lead + 1 or mask.shape[-1] not in (1, Tk)):
        mask = None
    queries, keys = _offsets("query_offsets", options), _offsets("key_offsets", options)
    keys = queries if keys is None else keys
    if queries is not None:
        if len(keys) != len(queries) or keys[-1] != Tk or queries[-1] != Tq or queries[0] != 0:
            return np.array(float(Tk))
        if len(queries) == 1:
            return np.zeros((1,) * lead + (0,))
        each = [_last(mask, first, end) for first, end in zip(keys[:-1], keys[1:], strict=True)]
        each_row = np.stack(np.broadcast_arrays(*each), axis=-1)
        each_row = each_row.reshape((1,) * (lead + 1 - each_row.ndim) + each_row.shape)
        return np.repeat(each_row, np.diff(queries), axis=-1)
    try:
        if key_lengths is not None:
            key_lengths = np.asarray(key_lengths)
            if key_lengths.ndim in (0, lead) and key_lengths.dtype.kind in "iu":
                within = np.arange(Tk) < key_lengths[..., None]
                mask = within if mask is None else mask & within
        lengths = _last(mask, 0, Tk)
        np.broadcast_shapes(np.shape(lengths), query.shape[:-2])
    except ValueError:
        return np.array(float(Tk))
    return np.asarray(lengths, float)[..., None]


def _last(mask, first, end):
    """How many of the keys [first, end) there are up to the last that the mask allows."""
    if mask is None:
        return np.array(end - first)
    mask = mask[..., first:end] if mask.shape[-1] != 1 else mask[..., :1]
    if mask.shape[-1] == 0 or end == first:
        return np.zeros(mask.shape[:-1], int)
    if mask.shape[-1] == 1:
        return np.where(mask[..., 0], end - first, 0)
    return np.where(mask.any(axis=-1), end - first - mask[..., ::-1].argmax(axis=-1), 0)

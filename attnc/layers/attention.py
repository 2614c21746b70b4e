"""Attention as layers: a score function with its parameters, over `attnc.functional`.

Each layer scores a query against keys, turns the scores into weights by a softmax over the keys
that the masks allow, and returns the weighted sum of the values. They differ in the score alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Unpack, overload

import numpy as np

from .. import functional
from ..arrays import flag, generator, like, number, probability, quiet, real_array
from ..functional.options import DEFAULTS, LayerOptions, Masks, nearest, takes_options
from ..gradients import Gradients, require_incoming, vjp
from ..typing import Array, DType, Real, Seed
from .base import Layer, glorot, positive
from .linear import Linear


def _finite(layer, name, value):
    return number(type(layer).__name__, name, value, "be a finite number", math.isfinite)


def for_function(layer, train, rng, options):
    """`options` as the functions take them: the bias in the layer's dtype, dropout in training."""
    known = [name for name in DEFAULTS if name != "dropout"]  # dropout is an attribute of the layer
    for name in options:
        if name not in known:
            raise layer._error(f"there is no argument {name!r}{nearest(name, known)}", TypeError)
    options = dict(options)
    if options.get("bias") is not None:
        options["bias"] = layer._real("bias", options["bias"], ..., "Tq", "Tk")
    for name in ("slope", "sink", "center"):
        if isinstance(options.get(name), (list, tuple)):
            options[name] = real_array(type(layer).__name__, name, options[name])
    if flag(type(layer).__name__, "train", train) and layer.dropout:
        options.update(dropout=layer.dropout, rng=rng)
    return options


def of_options(grads, given):
    """The gradients of options that were given as arrays, by name, in the dtypes of those."""
    names = ("bias", "slope", "sink", "center")
    got = [name for name in names if name in vars(grads) and name in given]
    return {name: like(grads[name], given[name]) for name in got}


def hidden_size_of(layer: Any, hidden_size: Any) -> int | None:
    """The hidden_size of a layer that has `score`, `query_size` and `key_size`, if the four fit."""
    score, query_size, key_size = layer.score, layer.query_size, layer.key_size
    if score in ("dot", "cosine") and query_size != key_size:
        raise layer._error(
            f"key_size must equal query_size for score={score!r}, got {key_size} and "
            f"{query_size} (score='multiplicative' takes any sizes)"
        )
    if hidden_size is None:
        return None
    (hidden_size,) = positive(layer, hidden_size=hidden_size)
    if score != "additive":
        raise layer._error(
            f"hidden_size must be None for score={score!r}, got {hidden_size} (only 'additive' "
            "has one)"
        )
    return hidden_size


class _Attention(Layer):
    """What the layers below share: casting, options, `value=None`, gradients of the parameters.

    A subclass says which function of `attnc.functional` it calls (`_function`), which parameters
    follow the three arrays (`_positional`) and which go by keyword (`_keywords`).
    """

    _function: Callable[..., Any]
    _positional: tuple[str, ...] = ()
    _keywords: tuple[str, ...] = ()
    query_size: int | None = None  # None: the parameters fix no size
    key_size: int | None = None

    def __init__(self, dropout: float, dtype: DType) -> None:
        super().__init__(dtype)
        self.dropout = probability(type(self).__name__, "dropout", dropout)

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
    @partial(takes_options, without=("dropout",))
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
        query : array_like, shape (..., Tq, Dq)
            One query a sequence, such as a decoder's state (B, Dq), is ``state[:, None]``.
        key : array_like, shape (..., Tk, Dk)
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
        normalizer : {'softmax', 'sparsemax', 'entmax15'}
            How scores become weights.
        bias, causal, causal_offset, window, center, sigma, renormalize, softcap, slope, sink
            As in `attnc.functional`.
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
        arrays, options = self._arguments(query, key, value, train, rng, options)
        return self._function(*arrays, **options)

    def _arguments(self, query, key, value, train, rng, options):
        query = self._real("query", query, ..., "Tq", self.query_size or "Dq")
        key = self._real("key", key, ..., "Tk", self.key_size or "Dk")
        value = key if value is None else self._real("value", value, ..., "Tk", "Dv")
        options = for_function(self, train, rng, options) | {
            name: self._parameters[name] for name in self._keywords if name in self._parameters
        }
        return (query, key, value, *(self._parameters[name] for name in self._positional)), options

    @quiet
    def _vjp(self, query, key, value=None, *, train=False, rng=None, **options):
        given = options
        arrays, options = self._arguments(query, key, value, train, rng, options)
        output, back = vjp(self._function, *arrays, **options)

        @quiet
        def pullback(dcontext=None, *, dweights=None, dlse=None):
            where = type(self).__name__
            require_incoming(where, dcontext=dcontext, dweights=dweights, dlse=dlse)
            grads = back(dcontext, dweights=dweights, dlse=dlse)
            for name in self._parameters:
                self.add_gradient(name, grads[name])
            required = {"query": like(grads.query, query)}
            if value is None:
                required["key"] = like(grads.key + grads.value, key)
            else:
                required["key"] = like(grads.key, key)
                required["value"] = like(grads.value, value)
            return Gradients(required, of_options(grads, given))

        return output, pullback


class DotProductAttention(_Attention):
    """Attention with dot-product scores: ``s_ij = scale * q_i . k_j``.

    Scaled, Vaswani et al. (2017), "Attention is all you need", eq. 1; with ``scale=1`` the "dot" of
    Luong et al. (2015), section 3.1. It has no parameters; queries and keys have equal size.

    Parameters
    ----------
    scale : float, optional
        1 / sqrt(size of a query) unless given.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping a weight when called with ``train=True``.
    dtype : float32 or float64
        The inputs are cast to it.

    Raises
    ------
    ValueError
        If dropout is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> query, memory = np.ones((2, 1, 4)), np.ones((2, 3, 4))
    >>> attention = attnc.DotProductAttention()
    >>> context, weights = attention(query, memory, key_lengths=[3, 2], return_weights=True)
    >>> weights[1]
    array([[0.5, 0.5, 0. ]], dtype=float32)
    """

    _function = staticmethod(functional.dot_product_attention)

    def __init__(
        self, scale: float | None = None, *, dropout: float = 0.0, dtype: DType = "float32"
    ) -> None:
        super().__init__(dropout, dtype)
        self.scale = None if scale is None else _finite(self, "scale", scale)

    def _arguments(self, *arguments):
        arrays, options = super()._arguments(*arguments)
        return arrays, {**options, "scale": self.scale}


class MultiplicativeAttention(_Attention):
    """Attention with multiplicative scores: ``s_ij = q_i W k_j``.

    The "general" score of Luong et al. (2015), "Effective approaches to attention-based neural
    machine translation", section 3.1.

    Parameters
    ----------
    query_size, key_size : int
        Sizes of a query and of a key; they may differ.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping a weight when called with ``train=True``.
    rng : None, int or numpy.random.Generator
        Initial W, uniform after Glorot and Bengio (2010).
    dtype : float32 or float64
        Of the parameters; the inputs are cast to it.

    Attributes
    ----------
    parameters : dict
        ``weight (query_size, key_size)``.

    Raises
    ------
    ValueError
        If a size is not a positive integer or dropout is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.
    """

    _function = staticmethod(functional.multiplicative_attention)
    _positional = ("weight",)

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dropout, dtype)
        sizes = positive(self, query_size=query_size, key_size=key_size)
        self.query_size, self.key_size = sizes
        self.add_parameter("weight", glorot(generator(type(self).__name__, rng), *sizes))


class AdditiveAttention(_Attention):
    """Attention with additive scores: ``s_ij = v . tanh(q_i W_q + k_j W_k + b)``.

    Bahdanau, Cho and Bengio (2015), "Neural machine translation by jointly learning to align and
    translate", appendix A.1.2, where q is the decoder's previous state s_(i-1), k_j the annotation
    h_j, W_q their W_a, W_k their U_a and v their v_a. The paper has no b.

    Parameters
    ----------
    query_size, key_size : int
        Sizes of a query and of a key; they may differ.
    hidden_size : int
        Size of v: the number of hidden units of the score.
    score_bias : bool
        Whether b is there. Default False, as in the paper.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping a weight when called with ``train=True``.
    rng : None, int or numpy.random.Generator
        Initial parameters, uniform after Glorot and Bengio (2010); b starts at zero.
    dtype : float32 or float64
        Of the parameters; the inputs are cast to it.

    Attributes
    ----------
    parameters : dict
        ``query_weight (query_size, hidden_size)``, ``key_weight (key_size, hidden_size)``,
        ``score_vector (hidden_size,)`` and, if asked for, ``score_bias (hidden_size,)``.

    Raises
    ------
    ValueError
        If a size is not a positive integer or dropout is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attention = attnc.AdditiveAttention(query_size=4, key_size=6, hidden_size=8, rng=0)
    >>> state, memory = np.ones((2, 1, 4)), np.ones((2, 5, 6))
    >>> context, pullback = attnc.vjp(attention, state, memory, key_lengths=[5, 3], train=True)
    >>> dstate, dmemory = pullback(np.ones_like(context))  # and adds into attention.gradients
    >>> dmemory.shape
    (2, 5, 6)
    """

    _function = staticmethod(functional.additive_attention)
    _positional = ("score_vector",)
    _keywords = ("query_weight", "key_weight", "score_bias")

    def __init__(
        self,
        query_size: int,
        key_size: int,
        hidden_size: int,
        *,
        score_bias: bool = False,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dropout, dtype)
        query_size, key_size, hidden_size = positive(
            self, query_size=query_size, key_size=key_size, hidden_size=hidden_size
        )
        self.query_size, self.key_size, self.hidden_size = query_size, key_size, hidden_size
        self.score_bias = flag(type(self).__name__, "score_bias", score_bias)
        rng = generator(type(self).__name__, rng)
        self.add_parameter("query_weight", glorot(rng, query_size, hidden_size))
        self.add_parameter("key_weight", glorot(rng, key_size, hidden_size))
        self.add_parameter("score_vector", glorot(rng, hidden_size, 1)[:, 0])
        if self.score_bias:
            self.add_parameter("score_bias", np.zeros(hidden_size))


class CosineAttention(_Attention):
    """Attention with cosine scores: ``s_ij = scale * q_i . k_j / (|q_i| |k_j|)``.

    The content addressing of Graves, Wayne and Danihelka (2014), "Neural Turing machines", eq. 5-6.
    The scale is learned: a cosine lies in -1..1, and the softmax needs about 10 times that to be
    able to choose. A zero vector has score 0.

    Parameters
    ----------
    scale : float
        Initial value of the learned scale. Default 10.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping a weight when called with ``train=True``.
    dtype : float32 or float64
        Of the scale; the inputs are cast to it.

    Attributes
    ----------
    parameters : dict
        ``scale ()``.

    Raises
    ------
    ValueError
        If dropout is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.
    """

    _function = staticmethod(functional.cosine_attention)
    _keywords = ("scale",)

    def __init__(
        self, scale: float = 10.0, *, dropout: float = 0.0, dtype: DType = "float32"
    ) -> None:
        super().__init__(dropout, dtype)
        self.scale = _finite(self, "scale", scale)
        self.add_parameter("scale", self.scale)


class SelfAttention(Layer):
    """A sequence attends to itself, one head: ``softmax(Q K^T / sqrt(key_size)) V``.

    ``Q = x W_Q, K = x W_K, V = x W_V``: Vaswani et al. (2017), "Attention is all you need", eq. 1.
    The three maps are layers, `Linear` without a bias.

    Parameters
    ----------
    input_size : int
        Size of a step of x.
    key_size : int, optional
        Size of queries and keys; input_size unless given.
    value_size : int, optional
        Size of values and of the output; key_size unless given.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping a weight when called with ``train=True``.
    rng : None, int or numpy.random.Generator
        Initial weights, uniform after Glorot and Bengio (2010).
    dtype : float32 or float64
        Of the parameters; the input is cast to it.

    Attributes
    ----------
    query, key, value : Linear
        From x to Q, K and V.
    parameters : dict
        ``query_weight``, ``key_weight (input_size, key_size)``, ``value_weight (input_size,
        value_size)``.

    Raises
    ------
    ValueError
        If a size is not a positive integer or dropout is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.SelfAttention(input_size=16, rng=0)
    >>> layer(np.ones((2, 5, 16)), causal=True).shape
    (2, 5, 16)
    """

    _joint = "_"

    def __init__(
        self,
        input_size: int,
        key_size: int | None = None,
        value_size: int | None = None,
        *,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        key_size = input_size if key_size is None else key_size
        value_size = key_size if value_size is None else value_size
        input_size, key_size, value_size = positive(
            self, input_size=input_size, key_size=key_size, value_size=value_size
        )
        self.input_size, self.key_size, self.value_size = input_size, key_size, value_size
        self.dropout = probability(type(self).__name__, "dropout", dropout)
        shared: dict[str, Any] = {"bias": False, "dtype": dtype}
        shared["rng"] = generator(type(self).__name__, rng)
        self.query = Linear(input_size, key_size, **shared)
        self.key = Linear(input_size, key_size, **shared)
        self.value = Linear(input_size, value_size, **shared)

    @overload
    def __call__(
        self,
        x: Real,
        *,
        train: bool = ...,
        rng: Seed = ...,
        **options: Unpack[Masks],
    ) -> Array: ...
    @overload
    def __call__(
        self,
        x: Real,
        *,
        train: bool = ...,
        rng: Seed = ...,
        **options: Unpack[LayerOptions],
    ) -> Any: ...
    @partial(takes_options, without=("dropout",))
    def __call__(
        self,
        x: Real,
        *,
        train: bool = False,
        rng: Seed = None,
        **options: Unpack[LayerOptions],
    ) -> Any:
        """Attend: compute, and remember nothing.

        Parameters
        ----------
        x : array_like, shape (..., T, input_size)
        train : bool
            Whether to apply the layer's dropout to the weights.
        rng : None, int or numpy.random.Generator
            For the dropout.
        mask, key_mask, key_lengths, query_lengths
            As in `attnc.functional`; a mask is boolean and True where attending is allowed.
        query_offsets, key_offsets : array_like of int
            A packed batch, without padding.
        normalizer : {'softmax', 'sparsemax', 'entmax15'}
            How scores become weights.
        bias, causal, causal_offset, window, center, sigma, renormalize, softcap, slope, sink
            As in `attnc.functional`.
        return_weights, return_lse : bool
            Return a named tuple (context, weights, lse) of what was asked for.

        Returns
        -------
        ndarray, shape (..., T, value_size), or a named tuple

        Raises
        ------
        TypeError, ValueError
            As `attnc.dot_product_attention` does, naming the argument and the fix.
        """
        return self._vjp(x, train=train, rng=rng, **options)[0]

    @quiet
    def _vjp(self, x, *, train=False, rng=None, **given):
        given_x, x = x, self._real("x", x, ..., "T", self.input_size)
        maps = [layer._forward(x) for layer in (self.query, self.key, self.value)]
        projected = [y for y, _ in maps]
        options = for_function(self, train, rng, given)
        output, back = vjp(functional.dot_product_attention, *projected, **options)

        @quiet
        def pullback(dcontext=None, *, dweights=None, dlse=None):
            where = type(self).__name__
            require_incoming(where, dcontext=dcontext, dweights=dweights, dlse=dlse)
            d = back(dcontext, dweights=dweights, dlse=dlse)
            dx = sum(back_to_x(dy) for (_, back_to_x), dy in zip(maps, d, strict=True))
            required = {"x": like(dx, given_x)}
            return Gradients(required, of_options(d, given))

        return output, pullback

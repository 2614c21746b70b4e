"""What stands on attention layers, by gates: AttentionOnAttention, and GatedAttention of two.

A wrapped layer is called as it is itself: ``attention(query, ...)`` with its own inputs and
options, and returns the context, or a named tuple that begins with it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..arrays import generator, integer_array, is_array, like, quiet
from ..functional.options import takes_options
from ..gradients import Gradients, require_incoming, shows_shapes, vjp
from ..typing import Array, Real, Seed
from .base import Layer, positive
from .linear import Linear


@shows_shapes
class GatedResult(NamedTuple):
    """What `GatedAttention` returns with its weights."""

    context: Array
    weights: Array
    gate: Array


class AttentionOnAttention(Layer):
    """Attention on attention: what was attended to counts as far as it goes with the query.

    With the context c of a query q, and ``[q; c]`` both side by side::

        information  i = [q; c] W_i + b_i
        gate         g = sigmoid([q; c] W_g + b_g)
        output       g * i

    Huang et al. (2019), "Attention on attention for image captioning", section 3.1. Attention
    always returns a mean of values, also where nothing fits the query; the gate sees both.
    (Attention over attention is another paper: `AttentionOverAttention`.)

    Parameters
    ----------
    attention : Layer
        Called as this layer is: any of the attention layers, with one input (`SelfAttention`) or
        more.
    query_size : int
        Size of a query, the first input.
    context_size : int, optional
        Size of a context, what the layer returns; query_size unless given.
    output_size : int, optional
        query_size unless given.
    rng : None, int or numpy.random.Generator
        Initial weights, uniform after Glorot and Bengio (2010); biases start at zero.

    Attributes
    ----------
    information, gate : Linear
        From ``[q; c]`` to i and to what the sigmoid takes.
    parameters : dict
        ``information.weight (query_size + context_size, output_size)``, ``information.bias``, the
        same of ``gate``, and ``attention.<name>``, in the dtype of the attention.

    Raises
    ------
    ValueError
        If a size is not a positive integer.
    TypeError
        If attention is no layer, or rng of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.AttentionOnAttention(attnc.AdditiveAttention(4, 6, 8, rng=0), 4, 6, rng=1)
    >>> state, memory = np.ones((2, 1, 4)), np.ones((2, 5, 6))
    >>> y, pullback = attnc.vjp(layer, state, memory, key_lengths=[5, 3])
    >>> dstate, dmemory = pullback(np.ones_like(y))  # and adds into layer.gradients
    >>> y.shape, dmemory.shape
    ((2, 1, 4), (2, 5, 6))
    """

    def __init__(
        self,
        attention: Layer,
        query_size: int,
        context_size: int | None = None,
        output_size: int | None = None,
        *,
        rng: Seed = None,
    ) -> None:
        _require_layer(type(self).__name__, "attention", attention)
        super().__init__(attention.dtype)
        query_size, context_size, output_size = positive(
            self,
            query_size=query_size,
            context_size=query_size if context_size is None else context_size,
            output_size=query_size if output_size is None else output_size,
        )
        self.attention, self.query_size = attention, query_size
        self.context_size, self.output_size = context_size, output_size
        rng = generator(type(self).__name__, rng)
        sizes = query_size + context_size, output_size
        self.information = Linear(*sizes, rng=rng, dtype=self.dtype)
        self.gate = Linear(*sizes, rng=rng, dtype=self.dtype)

    @partial(takes_options, without=("dropout",))
    def __call__(
        self,
        query: Real,
        key: Real | None = None,
        value: Real | None = None,
        *,
        train: bool = False,
        rng: Seed = None,
        **options: Any,
    ) -> Any:
        """Attend, and let the gate decide: compute, and remember nothing.

        Any other option that the attention takes, such as a cache, is passed on too. A query that
        is padding, by `query_lengths`, is not read and gives 0. One that may attend to nothing has
        the context 0, and what comes out depends on it alone.

        Parameters
        ----------
        query : array_like, shape (..., Tq, query_size)
        key, value : array_like, optional
            What the attention takes besides.
        train : bool
            Whether the attention is in training, as for its dropout.
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
            Return a named tuple (context, weights, lse) of what was asked for, as the attention
            does, with the output in place of the context.

        Returns
        -------
        ndarray, shape (..., Tq, output_size), or a named tuple

        Raises
        ------
        TypeError, ValueError
            As the attention does; if an array has a wrong size, naming it.
        """
        query = self._real("query", query, ..., "Tq", self.query_size)
        options.update(_in_training(train, rng))
        output = self.attention(query, *_given(key, value), **options)
        return self._answer(query, output, options.get("query_lengths"))[0]

    @quiet
    def _vjp(self, query, key=None, value=None, *, train=False, rng=None, **options):
        where, given = type(self).__name__, (query, key, value)
        query = self._real("query", query, ..., "Tq", self.query_size)
        options.update(_in_training(train, rng))
        output, back_to_inputs = vjp(self.attention, query, *_given(key, value), **options)
        output, back = self._answer(query, output, options.get("query_lengths"))
        shape = _context_of(where, output).shape

        @quiet
        def pullback(dcontext=None, **others):
            require_incoming(where, dcontext=dcontext, **others)
            dquery = None
            if dcontext is not None:
                dquery, dcontext = back(self._real("dcontext", dcontext, *shape))
            return _with_query(back_to_inputs(dcontext, **others), dquery, given)

        return output, pullback

    @quiet
    def _answer(self, query, output, query_lengths):
        """The output of the attention with g * i as its context; the way back to query, context."""
        where = type(self).__name__
        context = _context_of(where, output)
        self._check_shape("context", context.shape, (*query.shape[:-1], self.context_size))
        real = _real_queries(where, query.shape[:-1], query_lengths)
        pair = np.concatenate([query, context], axis=-1)
        if real is not None:
            pair[~real] = 0
        i, information_back = self.information._forward(pair)
        a, gate_back = self.gate._forward(pair)
        g = _sigmoid(a)
        y = g * i
        if real is not None:
            y[~real] = 0

        def back(dy):
            if real is not None:
                dy = np.where(real[..., None], dy, dy.dtype.type(0))
            # y = g * i with g = sigmoid(a)
            dpair = information_back(dy * g)
            dpair += gate_back(dy * i * g * (1 - g))
            return dpair[..., : self.query_size], dpair[..., self.query_size :]

        return (y if output is context else output._replace(context=y)), back


class GatedAttention(Layer):
    """Two attention layers side by side, with a gate for each query.

    With the contexts c and d that the two return for a query q::

        g = sigmoid(q . w + b)      context = g * c + (1 - g) * d

    Such as local and global attention over one memory: the gate says by query which of the two
    counts. It is a number for each query, as that of See et al. (2017), "Get to the point:
    summarization with pointer-generator networks", eq. 8 and 9, which mixes two distributions; so
    the weights of the mixture are mixed weights.

    Parameters
    ----------
    first, second : Layer
        Called as this layer is, with the same inputs and options.
    query_size : int
        Size of a query, the first input.
    rng : None, int or numpy.random.Generator
        Initial w, uniform after Glorot and Bengio (2010); b starts at zero, so that both count.

    Attributes
    ----------
    gate : Linear
        From q to what the sigmoid takes.
    parameters : dict
        ``gate.weight (query_size, 1)``, which is w, ``gate.bias (1,)``, ``first.<name>`` and
        ``second.<name>``, in the dtype of both.

    Raises
    ------
    ValueError
        If query_size is not a positive integer.
    TypeError
        If first or second is no layer, their dtypes differ, or rng is of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> first, second = attnc.DotProductAttention(), attnc.CosineAttention()
    >>> layer = attnc.GatedAttention(first, second, query_size=4, rng=0)
    >>> x = np.ones((2, 3, 4))
    >>> output, pullback = attnc.vjp(layer, x, x, return_weights=True)
    >>> output.weights.shape, output.gate.shape
    ((2, 3, 3), (2, 3))
    >>> dquery, dmemory = pullback(np.ones_like(output.context))  # adds into layer.gradients
    """

    def __init__(self, first: Layer, second: Layer, query_size: int, *, rng: Seed = None) -> None:
        where = type(self).__name__
        _require_layer(where, "first", first)
        _require_layer(where, "second", second)
        super().__init__(first.dtype)
        if second.dtype != first.dtype:
            raise self._error(
                f"second must have the dtype of first, {first.dtype}, got {second.dtype}", TypeError
            )
        (self.query_size,) = positive(self, query_size=query_size)
        self.first, self.second = first, second
        self.gate = Linear(self.query_size, 1, rng=rng, dtype=self.dtype)

    @partial(takes_options, without=("dropout",))
    def __call__(
        self,
        query: Real,
        key: Real | None = None,
        value: Real | None = None,
        *,
        train: bool = False,
        rng: Seed = None,
        **options: Any,
    ) -> Any:
        """Attend twice and mix: compute, and remember nothing.

        Parameters
        ----------
        query : array_like, shape (..., Tq, query_size)
        key, value : array_like, optional
            What both take besides.
        train : bool
            Whether both are in training, as for their dropout.
        rng : None, int or numpy.random.Generator
            For the dropout: both draw from it in turn, so that they drop different weights.
        mask, key_mask, key_lengths, query_lengths
            As in `attnc.functional`; a mask is boolean and True where attending is allowed.
        query_offsets, key_offsets : array_like of int
            A packed batch, without padding.
        normalizer : {'softmax', 'sparsemax', 'entmax15'}
            How scores become weights.
        bias, causal, causal_offset, window, center, sigma, renormalize, softcap, slope, sink
            As in `attnc.functional`.
        return_weights : bool
            Return a named tuple (context, weights, gate): the mixed weights, and g (..., Tq), of
            padding 0.
        return_lse : bool
            Not taken: a mixture of two softmaxes has no lse.

        Returns
        -------
        ndarray, shape (..., Tq, Dv), or a named tuple

        Raises
        ------
        TypeError, ValueError
            As the layers do; if what they return differs in shape; for return_lse.
        """
        return self._vjp(query, key, value, train=train, rng=rng, **options)[0]

    @quiet
    def _vjp(self, query, key=None, value=None, *, train=False, rng=None, **options):
        where, given = type(self).__name__, (query, key, value)
        query = self._real("query", query, ..., "Tq", self.query_size)
        key, value = (
            x if x is None else self._real(name, x, ...)
            for name, x in (("key", key), ("value", value))
        )
        if options.get("return_lse"):
            raise self._error("return_lse must be False, got True (a mixture has no lse)")
        options.update(_in_training(train, generator(where, rng) if train else rng))
        first, first_back = vjp(self.first, query, *_given(key, value), **options)
        second, second_back = vjp(self.second, query, *_given(key, value), **options)
        c, d = _context_of(where, first), _context_of(where, second)
        u: Any = getattr(first, "weights", None)
        w: Any = getattr(second, "weights", None)
        for name, x, y in (("a context", c, d), ("weights", u, w)):
            shapes = [None if each is None else each.shape for each in (x, y)]
            if shapes[0] != shapes[1]:
                raise self._error(
                    f"second must return {name} of shape {shapes[0]}, as first, got {shapes[1]}"
                )
        real = _real_queries(where, query.shape[:-1], options.get("query_lengths"))
        rows = query if real is None else np.where(real[..., None], query, query.dtype.type(0))
        a, gate_back = self.gate._forward(rows)
        g = _sigmoid(a)  # (..., Tq, 1)
        context = g * c + (1 - g) * d
        shape, size = context.shape, g.shape[:-1]
        output, by_pair = context, g
        if u is not None:
            if u.ndim > query.ndim:  # weights by head have an axis more, before that of time
                by_pair = g[..., None, :, :]
            gate = g[..., 0] if real is None else g[..., 0] * real
            output = GatedResult(context, by_pair * u + (1 - by_pair) * w, gate.copy())

        @quiet
        def pullback(dcontext=None, *, dweights=None, dgate=None):
            incoming = {"dcontext": dcontext, "dweights": dweights, "dgate": dgate}
            require_incoming(where, **incoming)
            for name in ("dweights", "dgate"):
                if incoming[name] is not None and u is None:
                    raise self._error(f"{name} must be None without return_weights, got a gradient")
            dcontext = self._incoming("dcontext", dcontext, shape)
            if dcontext is None:
                dcontext = np.zeros(shape, self.dtype)
            dgate = self._incoming("dgate", dgate, size)
            dg = ((c - d) * dcontext).sum(axis=-1)
            if dgate is not None:
                dg = dg + dgate
            of_weights: list[Any] = [{}, {}]
            if dweights is not None:
                dweights = self._real("dweights", dweights, *u.shape)
                of_pairs = ((u - w) * dweights).sum(axis=-1)
                dg = dg + (of_pairs if u.ndim == query.ndim else of_pairs.sum(axis=-2))
                shares = by_pair, 1 - by_pair
                of_weights = [{"dweights": share * dweights} for share in shares]
            da = dg[..., None] * g * (1 - g)  # g = sigmoid(a)
            if real is not None:
                da = np.where(real[..., None], da, query.dtype.type(0))
            of_first = first_back(g * dcontext, **of_weights[0])
            of_second = second_back((1 - g) * dcontext, **of_weights[1])
            found = _sum(of_first, of_second)
            return _with_query(found, gate_back(da), given)

        return output, pullback


# ---- Around layers -------------------------------------------------------------------------------


def _require_layer(where, name, layer):
    if not isinstance(layer, Layer):
        raise TypeError(f"{where}: {name} must be a layer, got {type(layer).__name__}")


def _in_training(train, rng):
    """The options of a wrapped layer in training; some layers take no rng."""
    return {} if train is False and rng is None else {"train": train, "rng": rng}


def _given(key, value):
    """The inputs after the query that were given: a layer of self-attention takes none."""
    return () if key is None and value is None else (key,) if value is None else (key, value)


def _context_of(where, output):
    """The context of what an attention layer returns."""
    context = getattr(output, "context", output)
    if is_array(context) and (context is output or output[0] is context):
        return context
    raise TypeError(
        f"{where}: attention must return a context, or a named tuple that begins with it, got "
        f"{type(output).__name__}"
    )


def _real_queries(where, shape, query_lengths):
    """Which queries (..., Tq) are no padding; None if all of them."""
    if query_lengths is None:
        return None
    lengths = integer_array(where, "query_lengths", query_lengths)
    if lengths.ndim not in (0, len(shape) - 1):
        raise ValueError(
            f"{where}: query_lengths must have shape {shape[:-1]}, got {lengths.shape} (the gate "
            "is of a query, and has no heads)"
        )
    return np.broadcast_to(np.arange(shape[-1]) < lengths[..., None], shape)


def _sigmoid(x):
    """1 / (1 + exp(-x)), which for no x overflows in this form."""
    return x.dtype.type(0.5) * (1 + np.tanh(x.dtype.type(0.5) * x))


def _sum(first, second):
    """The sum of the gradients that two layers return of the same inputs and options."""
    required = {name: x + y for name, x, y in zip(vars(first), first, second, strict=False)}
    optional: dict[str, Any] = {}
    for gradients in (first, second):
        for name in list(vars(gradients))[len(gradients) :]:
            found = vars(gradients)[name]
            optional[name] = optional[name] + found if name in optional else found
    return Gradients(required, optional)


def _with_query(gradients, dquery, given):
    """Gradients with `dquery` added to that of the first input, in the dtypes of what was given."""
    found = list(gradients)
    if dquery is not None:
        found[0] = found[0] + dquery
    named = zip(("query", "key", "value"), found, given, strict=False)
    required = {name: like(gradient, argument) for name, gradient, argument in named}
    return Gradients(required, dict(list(vars(gradients).items())[len(found) :]))

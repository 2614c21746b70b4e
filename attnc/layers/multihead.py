"""Multi-head attention: attention several times side by side, each in a subspace of its own."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple, Unpack, overload

import numpy as np

from .. import functional
from ..arrays import (
    all_finite,
    flag,
    generator,
    like,
    number,
    probability,
    quiet,
    reached,
    sum_rows,
)
from ..functional.attention import FullResult, LseResult, WeightsResult
from ..functional.norm import normalize, normalize_backward
from ..functional.options import LayerOptions, Masks, takes_options
from ..gradients import Gradients, require_incoming, vjp
from ..typing import Array, DType, Real, Seed, Shape
from .attention import for_function
from .base import glorot, positive
from .cache import KVCache, Memory, by_head, counts_of, counts_positions, refuse_cache
from .heads import lift_options, merge_heads, split_heads
from .linear import product, weight_gradient
from .torch_weights import TorchArray, TorchWeights, flat, prefixed, stacked, transposed

EPSILON = 1e-6  # under the root of `normalize_qk`: the default of `attnc.rms_norm`


class _Inputs(NamedTuple):
    """The arrays of a call; without a key it is the query, without a value the key."""

    query: Array
    key: Array | None
    value: Array | None


class MultiHeadAttention(TorchWeights):
    """Attention of H heads: ``sum_h softmax(scale Q_h K_h^T) V_h W_h^O``.

    ``Q_h = query W_h^Q, K_h = key W_h^K, V_h = value W_h^V``: Vaswani et al. (2017), "Attention is
    all you need", section 3.2.2. Concatenating the heads and multiplying by ``W^O``, as the paper
    writes it, is this sum. ``layer(x)`` is self-attention, ``layer(x, memory)`` cross-attention
    with the memory for keys and values, ``layer(query, key, value)`` the general case.

    Fewer heads of keys and values than of queries (`num_kv_heads`) are shared by groups of them:
    Ainslie et al. (2023), "GQA: training generalized multi-query transformer models from multi-head
    checkpoints"; one is Shazeer (2019), "Fast transformer decoding". Query head h goes with head
    ``h // (num_heads / num_kv_heads)`` of the keys.

    Parameters
    ----------
    query_size : int
        Size of a step of the query.
    num_heads : int
        How many heads.
    key_size : int, optional
        Size of a step of the key; query_size unless given.
    value_size : int, optional
        Size of a step of the value; key_size unless given.
    output_size : int, optional
        Size of a step of the output; query_size unless given.
    head_size : int, optional
        Size of queries, keys and values within a head; query_size / num_heads unless given.
    num_kv_heads : int, optional
        How many heads of keys and values, a divisor of num_heads; num_heads unless given.
    projection_bias : bool
        Whether the four projections add a bias. Default False, as in the paper.
    scale : float, optional
        Factor of the scores; 1 / sqrt(head_size) unless given.
    normalize_qk : bool
        Whether each query and key of each head is divided by its root mean square (Zhang and
        Sennrich 2019) and multiplied by a learned scale of its channels, which the heads share, so
        that scores stay small: Henry et al. (2020), "Query-key normalization for transformers",
        with the norm that later models took. Before rotary positions. Default False.
    rotary : bool
        Whether queries and keys are turned to their positions: `attnc.rotary`, with its defaults.
        Query i is at ``i + causal_offset``, as for `causal`, key j at j. Default False.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping a weight when called with ``train=True``.
    rng : None, int or numpy.random.Generator
        Initial weights, uniform after Glorot and Bengio (2010), with the sizes of each projection
        of all heads as one matrix; biases start at zero.
    dtype : float32 or float64
        Of the parameters; the inputs are cast to it.

    Attributes
    ----------
    parameters : dict
        ``query_weight (query_size, num_heads, head_size)``, ``key_weight (key_size, num_kv_heads,
        head_size)``, ``value_weight (value_size, num_kv_heads, head_size)``, ``output_weight
        (num_heads, head_size, output_size)``: ``W_h^Q`` is ``query_weight[:, h]``. With
        `projection_bias` also ``query_bias (num_heads, head_size)``, ``key_bias`` and ``value_bias
        (num_kv_heads, head_size)``, ``output_bias (output_size,)``; with `normalize_qk`
        ``query_scale`` and ``key_scale (head_size,)``, which start at 1.

    Raises
    ------
    ValueError
        If a size is not a positive integer, num_heads does not divide query_size and no head_size
        is given, num_kv_heads does not divide num_heads, head_size is odd with `rotary`, or dropout
        is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.MultiHeadAttention(query_size=16, num_heads=4, rng=0)
    >>> x = np.ones((2, 5, 16))
    >>> context, weights = layer(x, causal=True, return_weights=True)
    >>> context.shape, weights.shape
    ((2, 5, 16), (2, 4, 5, 5))
    >>> context, pullback = attnc.vjp(layer, x, np.ones((2, 7, 16)), key_lengths=[7, 3])
    >>> dx, dmemory = pullback(np.ones_like(context))  # and adds into layer.gradients
    """

    def __init__(
        self,
        query_size: int,
        num_heads: int,
        *,
        key_size: int | None = None,
        value_size: int | None = None,
        output_size: int | None = None,
        head_size: int | None = None,
        num_kv_heads: int | None = None,
        projection_bias: bool = False,
        scale: float | None = None,
        normalize_qk: bool = False,
        rotary: bool = False,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        where = type(self).__name__
        query_size, num_heads = positive(self, query_size=query_size, num_heads=num_heads)
        if head_size is None and query_size % num_heads:
            raise self._error(
                f"num_heads must divide query_size {query_size}, got {num_heads}; or give head_size"
            )
        key_size = query_size if key_size is None else key_size
        self.query_size, self.num_heads = query_size, num_heads
        self.key_size, self.value_size, self.output_size, self.head_size, self.num_kv_heads = (
            positive(
                self,
                key_size=key_size,
                value_size=key_size if value_size is None else value_size,
                output_size=query_size if output_size is None else output_size,
                head_size=query_size // num_heads if head_size is None else head_size,
                num_kv_heads=num_heads if num_kv_heads is None else num_kv_heads,
            )
        )
        if num_heads % self.num_kv_heads:
            raise self._error(
                f"num_kv_heads must divide num_heads {num_heads}, got {self.num_kv_heads}"
            )
        self.projection_bias = flag(where, "projection_bias", projection_bias)
        if scale is not None:
            scale = number(where, "scale", scale, "be None or a finite number", math.isfinite)
        self.scale = scale
        self.normalize_qk = flag(where, "normalize_qk", normalize_qk)
        self.rotary = flag(where, "rotary", rotary)
        if self.rotary and self.head_size % 2:
            raise self._error(f"head_size must be even with rotary, got {self.head_size}")
        self.dropout = probability(where, "dropout", dropout)

        rng, D = generator(where, rng), self.head_size
        maps = {
            "query": (query_size, num_heads),
            "key": (self.key_size, self.num_kv_heads),
            "value": (self.value_size, self.num_kv_heads),
        }
        for name, (size, heads) in maps.items():
            self.add_parameter(f"{name}_weight", glorot(rng, size, heads * D).reshape(-1, heads, D))
        output = glorot(rng, num_heads * D, self.output_size)
        self.add_parameter("output_weight", output.reshape(num_heads, D, -1))
        if self.projection_bias:
            for name, (_, heads) in maps.items():
                self.add_parameter(f"{name}_bias", np.zeros((heads, D)))
            self.add_parameter("output_bias", np.zeros(self.output_size))
        if self.normalize_qk:
            for name in ("query", "key"):
                self.add_parameter(f"{name}_scale", np.ones(D))

    @property
    def _heads(self) -> tuple[Shape, Shape]:
        """The axes of heads in the arrays of attention: of queries, and of keys and values."""
        shared = self.num_heads // self.num_kv_heads
        if shared == 1:
            return (self.num_heads,), (self.num_heads,)
        return (self.num_kv_heads, shared), (self.num_kv_heads, 1)

    @overload
    def __call__(
        self,
        query: Real,
        key: Real | None = ...,
        value: Real | None = ...,
        *,
        cache: KVCache | None = ...,
        train: bool = ...,
        rng: Seed = ...,
        **options: Unpack[Masks],
    ) -> Array: ...
    @overload
    def __call__(
        self,
        query: Real,
        key: Real | None = ...,
        value: Real | None = ...,
        *,
        cache: KVCache | None = ...,
        train: bool = ...,
        rng: Seed = ...,
        **options: Unpack[LayerOptions],
    ) -> Any: ...
    @partial(takes_options, without=("dropout",))
    def __call__(
        self,
        query: Real,
        key: Real | None = None,
        value: Real | None = None,
        *,
        cache: KVCache | None = None,
        train: bool = False,
        rng: Seed = None,
        **options: Unpack[LayerOptions],
    ) -> Any:
        """Attend: compute, and remember nothing.

        Parameters
        ----------
        query : array_like, shape (..., Tq, query_size)
        key : array_like, shape (..., Tk, key_size), optional
            The query itself unless given: self-attention.
        value : array_like, shape (..., Tk, value_size), optional
            The key itself unless given.
        cache : KVCache, optional
            For decoding: the keys and values of tokens seen before, behind which those of `query`
            go; or of the memory, which is projected once. See `KVCache`.
        train : bool
            Whether to apply the layer's dropout to the weights.
        rng : None, int or numpy.random.Generator
            For the dropout.
        mask, key_mask, key_lengths, query_lengths
            As in `attnc.functional`; a mask is boolean and True where attending is allowed. Those
            that are arrays have the axes of the layer's inputs, such as ``(B, Tq, Tk)``, or one
            more for heads, ``(B, H, Tq, Tk)``.
        query_offsets, key_offsets : array_like of int
            A packed batch, without padding: inputs ``(sum of T, size)``.
        normalizer : {'softmax', 'sparsemax', 'entmax15'}
            How scores become weights.
        bias, causal, causal_offset, window, center, sigma, renormalize, softcap, slope, sink
            The same; a slope or a sink for each head is ``(1, H)``, a center ``(1, H, Tq)``.
        return_weights, return_lse : bool
            Return a named tuple (context, weights, lse) of what was asked for, weights ``(..., H,
            Tq, Tk)`` and lse ``(..., H, Tq)`` of each head.

        Returns
        -------
        ndarray, shape (..., Tq, output_size), or a named tuple

        Raises
        ------
        TypeError, ValueError
            As `attnc.dot_product_attention` does, naming the argument and the fix.
        """
        if cache is None:
            return self._vjp(query, key, value, train=train, rng=rng, **options)[0]
        return _named(*self._through(cache, query, key, value, train, rng, options))

    @quiet
    def _through(self, cache, query, key, value, train, rng, options):
        """(context, weights, lse) of a call with a cache."""
        if not isinstance(cache, KVCache):
            raise self._error(f"cache must be None or a KVCache, got {cache!r}", TypeError)
        cache._check_owner(self)
        given = {"key": key, "value": value}
        of_memory = key is not None or value is not None
        if cache._holds_memory:
            if of_memory:
                cache._check_memory(type(self).__name__, key, value)
            query = self._real("query", query, ..., "Tq", self.query_size)
            self._check_lead(query, cache=cache._state.keys[..., 0])
            inputs = _Inputs(query, None, None)
            return self._attend_memory(cache, inputs, given, train, rng, options)
        if of_memory and cache._state is not None:
            raise self._error(
                "key must be None with a cache of self-attention, got one (a memory needs a cache "
                "of its own)"
            )
        inputs = self._inputs(query, key, value)
        if of_memory:
            return self._attend_memory(cache, inputs, given, train, rng, options)
        return self._attend_tokens(cache, inputs.query, train, rng, options)

    @quiet
    def _vjp(self, query, key=None, value=None, *, cache=None, train=False, rng=None, **options):
        refuse_cache(self, cache)
        given = {"query": query, "key": key, "value": value}
        inputs = self._inputs(query, key, value)
        outputs, back = self._attend(inputs, train, rng, options)
        shapes = [None if output is None else output.shape for output in outputs]

        @quiet
        def pullback(dcontext=None, *, dweights=None, dlse=None):
            incoming = {"dcontext": dcontext, "dweights": dweights, "dlse": dlse}
            require_incoming(type(self).__name__, **incoming)
            for (name, gradient), shape in zip(incoming.items(), shapes, strict=True):
                if gradient is not None:
                    if shape is None:
                        raise self._error(
                            f"{name} must be None without return_{name[1:]}, got a gradient"
                        )
                    incoming[name] = self._real(name, gradient, *shape)
            found = back(**incoming)
            required = {
                name: like(gradient, given[name])
                for name, gradient in zip(_Inputs._fields, found, strict=False)
            }
            optional = {
                name: like(gradient, options[name])
                for name, gradient in vars(found).items()
                if name not in required
            }
            return Gradients(required, optional)

        return _named(*outputs), pullback

    def _forward(
        self, query, key=None, value=None, *, cache=None, train=False, rng=None, **options
    ):
        """(context, weights or None), and the way back, which adds the gradients of parameters.

        For layers made with this one, which have checked the arrays: they are as `_real` returns
        them. ``back(dcontext, dweights=None)`` returns `Gradients` of the arrays that were given,
        and of options by name; with a cache there is no way back, but None.
        """
        if cache is not None:
            context, weights, _ = self._through(cache, query, key, value, train, rng, options)
            return context, weights, None
        (context, weights, _), back = self._attend(_Inputs(query, key, value), train, rng, options)
        return context, weights, back

    def _inputs(self, query, key, value):
        """The three arrays, checked."""
        query = self._real("query", query, ..., "Tq", self.query_size)
        if key is None:
            if value is not None:
                raise self._error("key must be given with value, got None", TypeError)
            for name, size in (("key", self.key_size), ("value", self.value_size)):
                if size != self.query_size:
                    raise self._error(
                        f"{name} must be given, as {name}_size {size} is not query_size "
                        f"{self.query_size}, got None"
                    )
            return _Inputs(query, None, None)
        key = self._real("key", key, ..., "Tk", self.key_size)
        if value is not None:
            value = self._real("value", value, ..., "Tk", self.value_size)
        elif self.value_size != self.key_size:
            raise self._error(
                f"value must be given, as value_size {self.value_size} is not key_size "
                f"{self.key_size}, got None"
            )
        if value is None:
            self._check_lead(query, key=key)
        else:
            self._check_lead(query, key=key, value=value)
            if value.shape[-2] != key.shape[-2]:
                raise self._error(
                    f"value must have as many steps as key {key.shape}, got {value.shape}"
                )
        return _Inputs(query, key, value)

    def _check_lead(self, query, **others):
        """Leading axes are those of the query or 1."""
        for name, array in others.items():
            pairs = zip(query.shape[:-2], array.shape[:-2], strict=False)
            if array.ndim != query.ndim or any(m != n and 1 not in (m, n) for m, n in pairs):
                raise self._error(
                    f"{name} must have the leading axes of query {query.shape}, each equal or 1, "
                    f"got {array.shape}"
                )

    def _attend(self, inputs, train, rng, options):
        """(context, weights, lse), None where not asked for, and the way back."""
        query, key, value = inputs
        options = for_function(self, train, rng, options)
        shapes = {name: getattr(option, "shape", ()) for name, option in options.items()}
        of_queries, of_keys = self._heads
        keys = query if key is None else key
        values = keys if value is None else value
        lead = np.broadcast_shapes(*(x.shape[:-2] for x in (query, keys, values)))
        Tq, Tk = query.shape[-2], keys.shape[-2]
        options = lift_options(type(self).__name__, options, lead, Tq, Tk, of_queries)
        at_query, at_key = self._positions(options, Tq, Tk)
        q, query_back = self._project("query", query, of_queries, at_query)
        k, key_back = self._project("key", keys, of_keys, at_key)
        v, value_back = self._project("value", values, of_keys)
        attention: Any = functional.dot_product_attention
        output, attention_back = vjp(attention, q, k, v, scale=self.scale, **options)
        outputs, output_back = self._outputs(output)

        def back(dcontext=None, dweights=None, dlse=None):
            found = attention_back(
                None if dcontext is None else output_back(dcontext),
                dweights=None if dweights is None else dweights.reshape(output.weights.shape),
                dlse=None if dlse is None else dlse.reshape(output.lse.shape),
            )
            dquery, dkey, dvalue = query_back(found[0]), key_back(found[1]), value_back(found[2])
            if value is None:
                dkey += dvalue
            if key is None:
                dquery += dkey
            required = {"query": dquery}
            if key is not None:
                required["key"] = dkey
            if value is not None:
                required["value"] = dvalue
            # An option that has a gradient has only got axes (`lift_options`).
            optional = {
                name: gradient.reshape(shapes[name])
                for name, gradient in vars(found).items()
                if name in shapes
            }
            return Gradients(required, optional)

        return outputs, back

    # ---- With a cache ----------------------------------------------------------------------------

    def _attend_tokens(self, cache, x, train, rng, options):
        """(context, weights, lse) of new tokens that attend to cached ones and themselves."""
        where = type(self).__name__
        options = for_function(self, train, rng, options)
        for name in ("causal_offset", "query_offsets", "key_offsets"):
            if options.get(name) is not None:
                raise self._error(f"{name} must be None with a cache, which knows the positions")
        lead, n = x.shape[:-2], x.shape[-2]
        counts = n
        if options.get("key_lengths") is not None:
            counts = counts_of(where, "key_lengths", options.pop("key_lengths"), lead, n)
        before = 0 if cache._state is None else cache._state.lengths
        of_queries, of_keys = self._heads
        options = lift_options(where, options, lead, n, len(cache) + n, of_queries)
        at_query, at_key = None, None
        if self.rotary:
            at_query = {"offset": by_head(before, len(of_queries))}
            at_key = {"offset": by_head(before, 1)}
        q, _ = self._project("query", x, of_queries, at_query)
        k, _ = self._project("key", x, of_keys[:1], at_key)
        v, _ = self._project("value", x, of_keys[:1])
        held = cache._extended(where, k, v, counts)
        try:
            options = cache._options_over(where, options, n, held, len(of_queries))
            k, v = (y.reshape(*lead, *of_keys, *y.shape[-2:]) for y in (held.keys, held.values))
            attention: Any = functional.dot_product_attention
            outputs, _ = self._outputs(attention(q, k, v, scale=self.scale, **options))
        except BaseException:
            cache._undo(held)
            raise
        cache._hold(self, held)
        return outputs

    def _attend_memory(self, cache, inputs, given, train, rng, options):
        """(context, weights, lse) over a memory that the cache has, or gets now."""
        where = type(self).__name__
        options = for_function(self, train, rng, options)
        query, key, value = inputs
        lengths, of_keys = options.pop("key_lengths", None), self._heads[1]
        if self.rotary and options.get("causal_offset") is None:
            raise self._error(
                "causal_offset must be given with a memory in a cache, which does not count the "
                "queries, for rotary positions, got None"
            )
        if cache._state is None:
            S, lead = key.shape[-2], key.shape[:-2]
            cache._check_room(where, S)
            values = key if value is None else value
            at = {"offset": 0} if self.rotary else None
            k = cache._stored(self._project("key", key, of_keys[:1], at)[0])
            v = cache._stored(self._project("value", values, of_keys[:1])[0])
            lengths = S if lengths is None else counts_of(where, "key_lengths", lengths, lead, S)
        else:
            k, v, _, _, known = cache._state
            S, lead = k.shape[-2], k.shape[:-3]
            given_lengths = known
            if lengths is not None:
                given_lengths = counts_of(where, "key_lengths", lengths, lead, S)
            if not np.array_equal(given_lengths, known):
                raise self._error(
                    f"key_lengths must be None or those that the cache got with the memory, got "
                    f"{lengths}"
                )
            lengths = known
        lead = np.broadcast_shapes(query.shape[:-2], lead)
        if not isinstance(lengths, int) or lengths < S:
            options["key_lengths"] = lengths
        of_queries = self._heads[0]
        options = lift_options(where, options, lead, query.shape[-2], S, of_queries)
        at, _ = self._positions(options, query.shape[-2], S)
        q, _ = self._project("query", query, of_queries, at)
        split = [y.reshape(*y.shape[:-3], *of_keys, *y.shape[-2:]) for y in (k, v)]
        attention: Any = functional.dot_product_attention
        outputs, _ = self._outputs(attention(q, *split, scale=self.scale, **options))
        if cache._state is None:
            cache._remember(self, Memory(given["key"], given["value"]), k, v, lengths)
        return outputs

    # ---- Projections -----------------------------------------------------------------------------

    def _positions(self, options, Tq, Tk):
        """Where the queries and the keys are, as `rotary` takes it; None without rotary positions.

        They are those of `causal`: query i at i + causal_offset, key j at j. An offset that is for
        them alone is taken out of the options.
        """
        if not self.rotary:
            return None, None
        offset = options.get("causal_offset")
        if offset is not None and not counts_positions(type(self).__name__, options):
            del options["causal_offset"]
        offsets = options.get("query_offsets"), options.get("key_offsets")
        if offsets[0] is None and offsets[1] is None:
            return {"offset": Tk - Tq if offset is None else offset}, {"offset": 0}
        places = [_within(*each) for each in zip(_both(*offsets), (Tq, Tk), strict=True)]
        if (
            any(each is None for each in places)
            or len(places[0][1]) != len(places[1][1])
            or np.ndim(offset)
        ):
            return None, None  # which attention refuses
        (query, queries), (key, keys) = places
        shift = np.repeat(keys - queries, queries) if offset is None else offset
        return {"position": query + shift}, {"position": key}

    def _project(self, name, x, heads, at=None):
        """x W + b by head, (..., T, E) to (..., *heads, T, D), and the way back to dx.

        Queries and keys may be normalised, and are turned to the positions `at`.
        """
        y, back = self._affine(name, x.reshape(-1, x.shape[-1]), 1)
        shape, normalize_back, turn_back = y.shape, None, None
        if self.normalize_qk and name != "value":
            y, normalize_back = self._normalized(f"{name}_scale", y.reshape(-1, self.head_size))
        y = split_heads(y.reshape(*x.shape[:-1], shape[-1]), heads)
        if at is not None:
            y, turn_back = vjp(functional.rotary, y, **at)

        def back_to_x(d):
            if turn_back is not None:
                (d,) = turn_back(d)
            d = merge_heads(d, heads)
            if normalize_back is not None:
                d = normalize_back(d.reshape(-1, self.head_size))
            return back(d.reshape(shape)).reshape(x.shape)

        return y, back_to_x

    def _normalized(self, name, x):
        """Rows x by their root mean square, times a learned scale, and the way back."""
        scale = self._parameters[name]
        y, saved = normalize(x, scale, None, EPSILON, center=False)

        def back(dy):
            learned = not self._frozen[name].value
            dx, dscale, _ = normalize_backward(saved, dy, sums=learned)
            if not all_finite(dx):  # a row that no gradient reaches is not read
                rows = reached(dy).any(axis=-1)
                _, used = normalize(x[rows], scale, None, EPSILON, center=False)
                dx = np.zeros_like(dx)
                dx[rows], dscale, _ = normalize_backward(used, dy[rows], sums=learned)
            if learned:
                self.add_gradient(name, dscale)
            return dx

        return y, back

    def _outputs(self, output):
        """(context, weights, lse) of what attention returns, and the way back to its context."""
        attended = output[0] if isinstance(output, tuple) else output
        context, back = self._output(attended)
        weights, lse = getattr(output, "weights", None), getattr(output, "lse", None)
        by_head = (*context.shape[:-2], self.num_heads)
        if weights is not None:
            weights = weights.reshape(*by_head, *weights.shape[-2:])
        if lse is not None:
            lse = lse.reshape(*by_head, lse.shape[-1])
        return (context, weights, lse), back

    def _output(self, context):
        """sum_h context_h W_h^O + b, (..., *heads, T, D) to (..., T, Eo), and the way back."""
        heads, _ = self._heads
        rows = merge_heads(context, heads)
        y, back = self._affine("output", rows.reshape(-1, rows.shape[-1]), 2)

        def back_to_context(dy):
            return split_heads(back(dy).reshape(rows.shape), heads)

        return y.reshape(*rows.shape[:-1], self.output_size), back_to_context

    def _affine(self, name, x, inputs):
        """Rows x times the weight, whose first `inputs` axes are those of x; and the way back."""
        weight = self._parameters[f"{name}_weight"]
        matrix = weight.reshape(math.prod(weight.shape[:inputs]), -1)
        y = product(x, matrix)
        if self.projection_bias:
            y += self._parameters[f"{name}_bias"].reshape(-1)

        def back(dy):
            dy = dy.reshape(y.shape)
            if not self._frozen[f"{name}_weight"].value:
                found = weight_gradient(x, dy)
                self.add_gradient(f"{name}_weight", found.reshape(weight.shape))
            if self.projection_bias:
                bias = self._parameters[f"{name}_bias"]
                self.add_gradient(f"{name}_bias", sum_rows(dy).reshape(bias.shape))
            return product(dy, matrix.T)

        return y, back

    def _torch_arrays(self) -> dict[str, TorchArray]:
        """Those of `torch.nn.MultiheadAttention`, which has one weight for three equal sizes."""
        size = self.query_size
        for name, got, wanted in (
            ("output_size", self.output_size, size),
            ("num_heads * head_size", self.num_heads * self.head_size, size),
            ("num_kv_heads", self.num_kv_heads, self.num_heads),
            ("scale", self.scale, None),
            ("normalize_qk", self.normalize_qk, False),
            ("rotary", self.rotary, False),
        ):
            if got != wanted:
                raise self._error(
                    f"{name} must be {wanted}, as in torch.nn.MultiheadAttention, got {got}"
                )
        three = "query", "key", "value"
        weights = [transposed(self._parameters[f"{name}_weight"]) for name in three]
        arrays = {}
        if self.key_size == self.value_size == size:
            arrays["in_proj_weight"] = stacked(weights)
        else:
            names = [f"{name[0]}_proj_weight" for name in three]
            arrays.update(zip(names, weights, strict=True))
        output = {"weight": transposed(self._parameters["output_weight"], 2)}
        if self.projection_bias:
            biases = [flat(self._parameters[f"{name}_bias"]) for name in three]
            arrays["in_proj_bias"] = stacked(biases)
            output["bias"] = flat(self._parameters["output_bias"])
        return arrays | prefixed("out_proj", output)


def _both(query_offsets, key_offsets):
    """Offsets of packed queries and keys: each is the other unless given."""
    if query_offsets is None:
        return key_offsets, key_offsets
    return query_offsets, query_offsets if key_offsets is None else key_offsets


def _within(offsets, T):
    """The positions of T steps within packed sequences, and how long these are; None if wrong."""
    offsets = np.asarray(offsets)
    if offsets.ndim != 1 or not len(offsets) or offsets.dtype.kind not in "iu":
        return None
    lengths = np.diff(offsets.astype(np.intp))
    if offsets[0] != 0 or offsets[-1] != T or (lengths < 0).any():
        return None
    return np.arange(T) - np.repeat(offsets[:-1], lengths), lengths


def _named(context, weights, lse):
    """The outputs as the functions return them."""
    if weights is None:
        return context if lse is None else LseResult(context, lse)
    return WeightsResult(context, weights) if lse is None else FullResult(context, weights, lse)

"""The layers of a Transformer: sub-layers beside the identity.

Vaswani et al. (2017), "Attention is all you need", section 3.1. A sub-layer f stands in its layer
with a norm after the sum, as in the paper, or before f (Xiong et al. 2020, "On layer normalization
in the Transformer architecture")::

    norm="post"   y = norm(x + dropout(f(x)))
    norm="pre"    y = x + dropout(f(norm(x)))

In an encoder layer f is self-attention, then a feed-forward network; in a decoder layer causal
self-attention, attention to a memory, then a feed-forward network. `transformer_stack` puts layers
on top of each other.

Where arrays are checked already, x is (..., T, size) and `rng` a generator in training, None
outside. What computes returns (y, weights, back), weights None where nobody asked for them;
``back(dy, dweights)`` returns dx and, by name, the gradients of what else was read.
"""

from __future__ import annotations

import contextlib
from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, overload

import numpy as np

from ..arrays import flag, generator, integer, integer_array, like, probability, quiet
from ..functional.decoder import check_choice
from ..functional.dropout import add_dropout
from ..functional.options import nearest
from ..gradients import Gradients, require_incoming, shows_shapes
from ..typing import Array, Bools, DType, Integers, Real, Seed
from .base import method_of, positive
from .cache import KVCache, ModelCache
from .feedforward import Activation, FeedForward
from .linear import Linear
from .multihead import MultiHeadAttention
from .norm import LayerNorm, RMSNorm
from .torch_weights import TorchArray, TorchWeights, flat, prefixed, transposed


@shows_shapes
class EncoderOutput(NamedTuple):
    """What an encoder returns with ``return_weights=True``."""

    outputs: Array
    weights: Array


@shows_shapes
class CrossOutput(NamedTuple):
    """What a decoder returns with ``return_weights=True``."""

    outputs: Array
    weights: Array  # of the attention to the memory
    self_weights: Array


# ---- Calls, of a layer or of a stack -------------------------------------------------------------


class _Called(TorchWeights):
    """What the calls of encoders and decoders have in common."""

    size: int

    def __init_subclass__(cls):
        call = "__call__"
        if call not in vars(cls):  # a method of its own, so that Python's errors name the class
            setattr(cls, call, method_of(cls, getattr(cls, call)))

    def _attentions(self) -> tuple[list[MultiHeadAttention], list[MultiHeadAttention]]:
        """The layers of self-attention, and those of attention to the memory."""
        raise NotImplementedError

    def new_cache(
        self,
        max_length: int | None = None,
        *,
        window: int | None = None,
        keep: int = 0,
        dtype: Any = None,
    ) -> ModelCache:
        """An empty cache for calls of this layer: of all attentions in it.

        Parameters
        ----------
        max_length, window, keep, dtype
            As in `KVCache`, for the tokens of self-attention; `dtype` for a memory too.

        Returns
        -------
        ModelCache
            To be given to calls of this layer alone.

        Raises
        ------
        TypeError, ValueError
            As `KVCache` does.
        """
        tokens, memories = self._attentions()
        return ModelCache(
            [KVCache(max_length, window=window, keep=keep, dtype=dtype) for _ in tokens],
            [KVCache(dtype=dtype) for _ in memories],
        )

    def _through(self, cache: Any) -> contextlib.AbstractContextManager[None]:
        """Around a call with a cache: `new_cache` has made it, and an error leaves it as it was."""
        counts = tuple(map(len, self._attentions()))
        if not isinstance(cache, ModelCache) or (len(cache.tokens), len(cache.memories)) != counts:
            raise self._error(
                f"cache must be None or what new_cache() of this layer returned, got {cache!r}",
                TypeError,
            )
        return cache.unless_failed()

    def _given(self, options: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
        """The options that were given, all of them known."""
        for name in options:
            if name not in known:
                raise self._error(f"there is no argument {name!r}{nearest(name, known)}", TypeError)
        return {name: value for name, value in options.items() if value is not None}

    def _lengths(self, name: str, lengths: Any, x: Array) -> Array | None:
        """The lengths of the sequences of x, an array of its leading axes."""
        if lengths is None:
            return None
        *lead, T, _ = x.shape
        lengths = integer_array(type(self).__name__, name, lengths)
        sizes = zip(lengths.shape, lead, strict=False)
        if lengths.ndim not in (0, len(lead)) or any(n not in (1, size) for n, size in sizes):
            raise self._error(
                f"{name} must have shape {tuple(lead)} to match the batch, got {lengths.shape}"
            )
        if lengths.size and not 0 <= lengths.min() <= lengths.max() <= T:
            raise self._error(f"{name} must lie in 0..{T}, got {lengths.min()}..{lengths.max()}")
        return np.broadcast_to(lengths.astype(np.intp), lead)

    def _gradient(self, name: str, gradient: Any, output: Array | None) -> Array | None:
        """An incoming gradient of this output; None where it was not given."""
        if gradient is not None and output is None:
            fix = f"return_{name[1:].replace('self_', '')}"
            raise self._error(f"{name} must be None without {fix}=True, got a gradient")
        return self._incoming(name, gradient, () if output is None else output.shape)


def without_padding(x: Array, lengths: Array | None) -> Array:
    """x (..., T, size) with zeros in place of all that comes after each sequence."""
    if lengths is None or (lengths == x.shape[-2]).all():
        return x
    valid = np.arange(x.shape[-2]) < lengths[..., None]
    return np.where(valid[..., None], x, x.dtype.type(0))


class EncoderOptions(TypedDict, total=False):
    """Options by keyword of calls of an encoder, whatever they return."""

    mask: Bools | None
    key_mask: Bools | None
    key_lengths: Integers | None
    bias: Real | None
    slope: Real | None
    causal: bool
    window: tuple[int | None, int | None] | None
    cache: ModelCache | None
    train: bool
    rng: Seed


class DecoderOptions(TypedDict, total=False):
    """Options by keyword of calls of a decoder, whatever they return."""

    mask: Bools | None
    query_lengths: Integers | None
    key_mask: Bools | None
    key_lengths: Integers | None
    memory_mask: Bools | None
    bias: Real | None
    slope: Real | None
    window: tuple[int | None, int | None] | None
    cache: ModelCache | None
    train: bool
    rng: Seed


class Encoder(_Called):
    """From x to outputs of its shape, by self-attention. A subclass has ``_forward``."""

    @overload
    def __call__(
        self, x: Real, *, return_weights: Literal[False] = ..., **options: Unpack[EncoderOptions]
    ) -> Array: ...
    @overload
    def __call__(
        self, x: Real, *, return_weights: Literal[True], **options: Unpack[EncoderOptions]
    ) -> EncoderOutput: ...
    def __call__(
        self,
        x: Real,
        *,
        mask: Bools | None = None,
        key_mask: Bools | None = None,
        key_lengths: Integers | None = None,
        bias: Real | None = None,
        slope: Real | None = None,
        causal: bool = False,
        window: tuple[int | None, int | None] | None = None,
        cache: ModelCache | None = None,
        return_weights: bool = False,
        train: bool = False,
        rng: Seed = None,
    ) -> Any:
        """Compute, and remember nothing.

        Parameters
        ----------
        x : array_like, shape (..., T, size)
        mask : array_like of bool, shape (..., T, T), optional
            True where a step may attend to another; or by head, (..., num_heads, T, T).
        key_mask : array_like of bool, shape (..., T), optional
            True where a step may be attended to.
        key_lengths : int or array_like of int, shape (...), optional
            Valid steps of each sequence; the rest is padding: it is not read, attention does no
            work for it, and its output is 0.
        bias : array_like, shape (..., T, T), optional
            Added to the scores of self-attention, in every layer; or by head, (..., num_heads, T,
            T).
        slope, causal, window
            As in `attnc.functional`, for self-attention; the slope by head, (..., num_heads).
        cache : ModelCache, optional
            For decoding, what `new_cache` returned: x are the steps that follow those in it, which
            they attend to as well; then they are in it, too. What has an axis T of keys covers
            both; key_lengths count the new steps. See `KVCache`.
        return_weights : bool
            Whether to return the weights of self-attention too.
        train : bool
            Whether to apply dropout.
        rng : None, int or numpy.random.Generator
            For the dropout: one generator, from which all places draw in turn.

        Returns
        -------
        outputs : ndarray, shape (..., T, size)
            Alone unless return_weights asks for a named tuple.
        weights : ndarray, shape (..., num_heads, T, T)
            Of a stack (..., layers, num_heads, T, T).

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, naming it.
        """
        options: dict[str, Any] = {"mask": mask, "key_mask": key_mask, "bias": bias}
        options |= {"slope": slope}
        options |= {"key_lengths": key_lengths, "causal": causal, "window": window}
        options |= {"return_weights": return_weights, "train": train, "rng": rng}
        if cache is None:
            return self._vjp(x, **options)[0]
        with self._through(cache):
            return self._computed(x, cache=cache, **options)[0]

    @quiet
    def _vjp(self, x, *, train=False, rng=None, cache=None, **options):
        where = type(self).__name__
        if cache is not None:
            raise self._error("cache must be None for gradients, got one (it holds constants)")
        output, lengths, given, back = self._computed(x, train=train, rng=rng, **options)
        y, weights = output if isinstance(output, tuple) else (output, None)

        @quiet
        def pullback(doutputs=None, dweights=None):
            require_incoming(where, doutputs=doutputs, dweights=dweights)
            dweights = self._gradient("dweights", dweights, weights)
            dy = self._gradient("doutputs", doutputs, y)
            dy = np.zeros_like(y) if dy is None else without_padding(dy, lengths)
            dx, others = back(dy, dweights)
            return Gradients(
                {"x": like(dx, x)}, {name: like(d, given[name]) for name, d in others.items()}
            )

        return output, pullback

    @quiet
    def _computed(
        self, x, *, key_lengths=None, cache=None, return_weights=False, train=False, rng=None,
        **options,
    ):  # fmt: skip
        """What a call returns, the lengths of the sequences, the options, and the way back."""
        where = type(self).__name__
        rng = generator(where, rng) if flag(where, "train", train) else None
        known = ("mask", "key_mask", "bias", "slope", "causal", "window")
        options = self._given(options, known)
        x = self._real("x", x, ..., "T", self.size)
        lengths = self._lengths("key_lengths", key_lengths, x)
        options["return_weights"] = flag(where, "return_weights", return_weights)
        if lengths is not None:
            # A padded step is a query too: as such it would cost work, and read what may be NaN.
            options |= {"key_lengths": lengths, "query_lengths": lengths}
        y, weights, back = self._forward(without_padding(x, lengths), rng, options, cache)
        y = without_padding(y, lengths)
        return (y if weights is None else EncoderOutput(y, weights)), lengths, options, back

    def _forward(self, x, rng, options, cache=None):
        """y, weights, and the way back; `options` are those of `MultiHeadAttention`."""
        raise NotImplementedError


class Decoder(_Called):
    """From x and a memory to outputs of the shape of x. A subclass has ``_forward``."""

    @overload
    def __call__(
        self,
        x: Real,
        memory: Real | None = ...,
        *,
        return_weights: Literal[False] = ...,
        **options: Unpack[DecoderOptions],
    ) -> Array: ...
    @overload
    def __call__(
        self,
        x: Real,
        memory: Real | None = ...,
        *,
        return_weights: Literal[True],
        **options: Unpack[DecoderOptions],
    ) -> CrossOutput: ...
    def __call__(
        self,
        x: Real,
        memory: Real | None = None,
        *,
        mask: Bools | None = None,
        query_lengths: Integers | None = None,
        key_mask: Bools | None = None,
        key_lengths: Integers | None = None,
        memory_mask: Bools | None = None,
        bias: Real | None = None,
        slope: Real | None = None,
        window: tuple[int | None, int | None] | None = None,
        cache: ModelCache | None = None,
        return_weights: bool = False,
        train: bool = False,
        rng: Seed = None,
    ) -> Any:
        """Compute, and remember nothing. A step attends to itself and to those before it.

        Parameters
        ----------
        x : array_like, shape (..., T, size)
        memory : array_like, shape (..., Tk, size)
            May be left out with a cache, from the second call on.
        mask : array_like of bool, shape (..., T, T), optional
            True where a step may attend to another, in self-attention, which is causal too; or by
            head, (..., num_heads, T, T).
        query_lengths : int or array_like of int, shape (...), optional
            Valid steps of each sequence of x; the rest is padding: it is not read, attention does
            no work for it, and its output is 0.
        key_mask : array_like of bool, shape (..., Tk), optional
            True where the memory may be attended to.
        key_lengths : int or array_like of int, shape (...), optional
            Valid steps of each memory; the rest is not read.
        memory_mask : array_like of bool, shape (..., T, Tk), optional
            True where a step may attend to a step of the memory; or by head.
        bias : array_like, shape (..., T, T), optional
            Added to the scores of self-attention, in every layer; or by head, (..., num_heads, T,
            T).
        slope, window
            As in `attnc.functional`, for self-attention; the slope by head, (..., num_heads).
        cache : ModelCache, optional
            For decoding, what `new_cache` returned: x are the steps that follow those in it, which
            they attend to as well; then they are in it, too. What has an axis T of keys covers
            both; query_lengths count the new steps. The first call projects the memory, and the
            cache keeps its key_lengths. See `KVCache`.
        return_weights : bool
            Whether to return the weights of both attentions too.
        train : bool
            Whether to apply dropout.
        rng : None, int or numpy.random.Generator
            For the dropout: one generator, from which all places draw in turn.

        Returns
        -------
        outputs : ndarray, shape (..., T, size)
            Alone unless return_weights asks for a named tuple.
        weights : ndarray, shape (..., num_heads, T, Tk)
            Of the attention to the memory; of a stack (..., layers, num_heads, T, Tk).
        self_weights : ndarray, shape (..., num_heads, T, T)
            Of self-attention; of a stack (..., layers, num_heads, T, T).

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, naming it.
        """
        options: dict[str, Any] = {"mask": mask, "bias": bias, "slope": slope, "window": window}
        options |= {"query_lengths": query_lengths, "key_lengths": key_lengths}
        options |= {"key_mask": key_mask, "memory_mask": memory_mask}
        options |= {"return_weights": return_weights, "train": train, "rng": rng}
        if cache is None:
            return self._vjp(x, memory, **options)[0]
        with self._through(cache):
            return self._computed(x, memory, cache=cache, **options)[0]

    @quiet
    def _vjp(self, x, memory=None, *, train=False, rng=None, cache=None, **options):
        where = type(self).__name__
        if cache is not None:
            raise self._error("cache must be None for gradients, got one (it holds constants)")
        output, lengths, given, back = self._computed(x, memory, train=train, rng=rng, **options)
        y, *weights = output if isinstance(output, tuple) else (output, None, None)

        @quiet
        def pullback(doutputs=None, dweights=None, dself_weights=None):
            require_incoming(
                where, doutputs=doutputs, dweights=dweights, dself_weights=dself_weights
            )
            dweights = (
                self._gradient("dweights", dweights, weights[0]),
                self._gradient("dself_weights", dself_weights, weights[1]),
            )
            dy = self._gradient("doutputs", doutputs, y)
            dy = np.zeros_like(y) if dy is None else without_padding(dy, lengths)
            dx, others = back(dy, dweights)
            dmemory = others.pop("memory")
            return Gradients(
                {"x": like(dx, x), "memory": like(dmemory, memory)},
                {name: like(d, given[name]) for name, d in others.items()},
            )

        return output, pullback

    @quiet
    def _computed(
        self, x, memory, *, query_lengths=None, key_lengths=None, key_mask=None, memory_mask=None,
        cache=None, return_weights=False, train=False, rng=None, **options,
    ):  # fmt: skip
        """What a call returns, the lengths of the sequences, the options, and the way back."""
        where = type(self).__name__
        rng = generator(where, rng) if flag(where, "train", train) else None
        options = self._given(options, ("mask", "bias", "slope", "window"))
        x = self._real("x", x, ..., "T", self.size)
        if memory is not None:
            memory = self._real("memory", memory, *x.shape[:-2], "Tk", self.size)
            key_lengths = self._lengths("key_lengths", key_lengths, memory)
        elif cache is None or not cache.memories[0]._holds_memory:
            raise self._error("memory must be an array, got None", TypeError)
        lengths = self._lengths("query_lengths", query_lengths, x)
        options |= {"causal": True, "return_weights": flag(where, "return_weights", return_weights)}
        cross = {"mask": memory_mask, "key_mask": key_mask, "key_lengths": key_lengths}
        cross = {name: value for name, value in cross.items() if value is not None}
        cross["return_weights"] = options["return_weights"]
        if lengths is not None:
            # A padded step is a query too: as such it would cost work, and read what may be NaN.
            options |= {"key_lengths": lengths, "query_lengths": lengths}
            cross["query_lengths"] = lengths
        y, weights, back = self._forward(
            without_padding(x, lengths), memory, rng, options, cross, cache
        )
        y = without_padding(y, lengths)
        return (y if weights[0] is None else CrossOutput(y, *weights)), lengths, options, back

    def _forward(self, x, memory, rng, options, cross, cache=None):
        """y, the pair of weights, and the way back; options are those of `MultiHeadAttention`.

        The gradient of the memory is among those that ``back`` returns by name.
        """
        raise NotImplementedError


# ---- The layers ----------------------------------------------------------------------------------


class _Sublayers(TorchWeights):
    """The parts that both layers have, and how a sub-layer stands in its layer."""

    torch_parts: dict[str, str]  # names here: those in torch.nn

    def _make(
        self, *, size, num_heads, feedforward_size, norm, activation, normalization, bias,
        num_kv_heads, rotary, dropout, rng, cross,
    ):  # fmt: skip
        """The parts, from the arguments of the constructor; `cross`: with attention to a memory."""
        where = type(self).__name__
        self.size, self.num_heads, self.feedforward_size = positive(
            self, size=size, num_heads=num_heads, feedforward_size=feedforward_size
        )
        check_choice(where, "norm", norm, ("post", "pre"))
        check_choice(where, "activation", activation, ("relu", "gelu", "gelu_tanh", "swiglu"))
        check_choice(where, "normalization", normalization, ("layer", "rms"))
        if self.size % self.num_heads:
            raise self._error(f"num_heads must divide size {self.size}, got {self.num_heads}")
        if num_kv_heads is not None:
            num_kv_heads = integer(where, "num_kv_heads", num_kv_heads, 1)
            if self.num_heads % num_kv_heads:
                raise self._error(
                    f"num_kv_heads must divide num_heads {self.num_heads}, got {num_kv_heads}"
                )
        self.norm, self.activation, self.normalization = norm, activation, normalization
        self.bias, self.rotary = flag(where, "bias", bias), flag(where, "rotary", rotary)
        self.num_kv_heads, self.dropout = num_kv_heads, probability(where, "dropout", dropout)
        shared: dict[str, Any] = {"dropout": self.dropout, "dtype": self.dtype}
        shared["rng"] = generator(where, rng)
        heads = {"num_kv_heads": num_kv_heads, "projection_bias": self.bias, **shared}
        self.self_attention = MultiHeadAttention(
            self.size, self.num_heads, rotary=self.rotary, **heads
        )
        self.self_attention_norm = norm_layer(normalization, self.size, self.bias, self.dtype)
        if cross:
            self.cross_attention = MultiHeadAttention(self.size, self.num_heads, **heads)
            self.cross_attention_norm = norm_layer(normalization, self.size, self.bias, self.dtype)
        self.feedforward = FeedForward(
            self.size, self.feedforward_size, activation=activation, bias=self.bias, **shared
        )
        self.feedforward_norm = norm_layer(normalization, self.size, self.bias, self.dtype)

    def _beside(self, x, sublayer, norm, rng):
        """A sub-layer beside the identity: y, weights, and the way back."""
        if self.norm == "pre":
            h, back_to_x = norm._forward(x)
            z, weights, back_to_h = sublayer(h)
            y, back_to_z = add_dropout(x, z, self.dropout, rng)

            def back_before(dy, dweights=None):
                dh, others = back_to_h(back_to_z(dy), dweights)
                dx = back_to_x(dh)
                dx += dy
                return dx, others

            return y, weights, back_before

        z, weights, back_to_x = sublayer(x)
        s, back_to_z = add_dropout(x, z, self.dropout, rng)
        y, back_to_s = norm._forward(s)

        def back_after(dy, dweights=None):
            ds = back_to_s(dy)
            dx, others = back_to_x(back_to_z(ds), dweights)
            dx += ds
            return dx, others

        return y, weights, back_after

    def _self_attention(self, x, rng, options, cache):
        """y = the self-attention of x beside the identity."""

        def sublayer(h):
            z, weights, back = _attend(self.self_attention, h, None, rng, options, cache)

            def back_to_h(dz, dweights):
                others = dict(vars(back(dz, dweights)))
                return others.pop("query"), others

            return z, weights, back_to_h

        return self._beside(x, sublayer, self.self_attention_norm, rng)

    def _cross_attention(self, x, memory, rng, options, cache):
        """y = the attention of x to the memory beside the identity."""

        def sublayer(h):
            z, weights, back = _attend(self.cross_attention, h, memory, rng, options, cache)

            def back_to_h(dz, dweights):
                dh, dmemory = back(dz, dweights)
                return dh, {"memory": dmemory}

            return z, weights, back_to_h

        return self._beside(x, sublayer, self.cross_attention_norm, rng)

    def _feedforward(self, x, rng):
        """y = the feed-forward network of x beside the identity."""

        def sublayer(h):
            z, back = self.feedforward._forward(h, rng)
            return z, None, lambda dz, dweights: (back(dz), {})

        y, _, back = self._beside(x, sublayer, self.feedforward_norm, rng)
        return y, lambda dy: back(dy)[0]

    def _torch_arrays(self) -> dict[str, TorchArray]:
        """Those of the class of this name in `torch.nn`."""
        if self.normalization != "layer" or self.activation == "swiglu" or self.rotary:
            raise self._error(
                "normalization must be 'layer', activation none of the gated ones and rotary "
                f"False, as in torch.nn.{type(self).__name__}, got {self!r}"
            )
        arrays = {}
        for name, theirs in self.torch_parts.items():
            arrays.update(prefixed(theirs, torch_arrays(attrgetter(name)(self))))
        return arrays


def _attend(layer, query, memory, rng, options, cache):
    """Context, weights and the way back, which is None with a cache."""
    train = rng is not None
    if cache is None:
        return layer._forward(query, memory, train=train, rng=rng, **options)
    found = layer(query, memory, cache=cache, train=train, rng=rng, **options)
    return (*found, None) if options["return_weights"] else (found, None, None)


def norm_layer(normalization, size, bias, dtype):
    """The layer of this name; a bias is for layer norms."""
    if normalization == "rms":
        return RMSNorm(size, dtype=dtype)
    return LayerNorm(size, bias=bias, dtype=dtype)


def torch_arrays(part):
    """The arrays of the class in `torch.nn` that computes what a part of a layer does."""
    if isinstance(part, MultiHeadAttention):
        return part._torch_arrays()
    to_torch = transposed if isinstance(part, Linear) else flat
    arrays = {"weight": to_torch(part._parameters["weight"])}
    if "bias" in part._parameters:
        arrays["bias"] = flat(part._parameters["bias"])
    return arrays


class TransformerEncoderLayer(_Sublayers, Encoder):
    """Self-attention, then a feed-forward network: one layer of a Transformer's encoder.

    ::

        norm="post"   a = norm(x + dropout(attention(x)))     y = norm(a + dropout(feedforward(a)))
        norm="pre"    a = x + dropout(attention(norm(x)))     y = a + dropout(feedforward(norm(a)))

    Vaswani et al. (2017), "Attention is all you need", section 3.1, is ``"post"``; with ``"pre"``
    deep stacks train without warm-up (Xiong et al. 2020, "On layer normalization in the Transformer
    architecture"). The same function as `torch.nn.TransformerEncoderLayer`.

    Parameters
    ----------
    size : int
        Size of a step of x, and of the outputs.
    num_heads : int
        How many heads attention has: a divisor of size.
    feedforward_size : int
        Hidden units of the feed-forward network; in the paper 4 times size.
    norm : {'post', 'pre'}
        Whether a norm follows each sum, as in the paper, or comes before each sub-layer.
    activation : {'relu', 'gelu', 'gelu_tanh', 'swiglu'}
        Of the feed-forward network: see `FeedForward`.
    normalization : {'layer', 'rms'}
        `LayerNorm` or `RMSNorm`.
    bias : bool
        Whether projections, feed-forward network and layer norms add a bias.
    num_kv_heads : int, optional
        How many heads of keys and values, a divisor of num_heads: see `MultiHeadAttention`.
    rotary : bool
        Whether self-attention knows the positions, by `attnc.rotary`.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping a number when called with ``train=True``: of
        the output of each sub-layer before it is added to x, as in section 5.4 of the paper; of the
        weights of attention; and of the hidden units of the feed-forward network. The last two are
        not in the paper; its authors' code and PyTorch have them.
    rng : None, int or numpy.random.Generator
        Initial weights: see `MultiHeadAttention` and `FeedForward`.
    dtype : float32 or float64
        Of the parameters; inputs are cast to it.

    Attributes
    ----------
    self_attention : MultiHeadAttention
    feedforward : FeedForward
    self_attention_norm, feedforward_norm : LayerNorm or RMSNorm

    Raises
    ------
    ValueError
        If a size is not a positive integer or does not fit another, a name is unknown, or dropout
        is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.TransformerEncoderLayer(8, 2, 32, rng=0)
    >>> x = np.ones((2, 5, 8))
    >>> y, pullback = attnc.vjp(layer, x, key_lengths=[5, 3], train=True, rng=0)
    >>> (dx,) = pullback(np.ones_like(y))  # and adds into layer.gradients
    >>> layer(x, return_weights=True)
    EncoderOutput(outputs=float32 (2, 5, 8), weights=float32 (2, 2, 5, 5))
    """

    torch_parts = {
        "self_attention": "self_attn",
        "feedforward.hidden": "linear1",
        "feedforward.output": "linear2",
        "self_attention_norm": "norm1",
        "feedforward_norm": "norm2",
    }

    def __init__(
        self,
        size: int,
        num_heads: int,
        feedforward_size: int,
        *,
        norm: str = "post",
        activation: Activation = "relu",
        normalization: str = "layer",
        bias: bool = True,
        num_kv_heads: int | None = None,
        rotary: bool = False,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        self._make(
            size=size,
            num_heads=num_heads,
            feedforward_size=feedforward_size,
            norm=norm,
            activation=activation,
            normalization=normalization,
            bias=bias,
            num_kv_heads=num_kv_heads,
            rotary=rotary,
            dropout=dropout,
            rng=rng,
            cross=False,
        )

    def _attentions(self):
        return [self.self_attention], []

    def _forward(self, x, rng, options, cache=None):
        tokens = None if cache is None else cache.tokens[0]
        a, weights, back_to_x = self._self_attention(x, rng, options, tokens)
        y, back_to_a = self._feedforward(a, rng)
        return y, weights, lambda dy, dweights=None: back_to_x(back_to_a(dy), dweights)


class TransformerDecoderLayer(_Sublayers, Decoder):
    """Causal self-attention, attention to a memory, then a feed-forward network.

    ::

        norm="post"   a = norm(x + dropout(self_attention(x)))
                      b = norm(a + dropout(cross_attention(a, memory)))
                      y = norm(b + dropout(feedforward(b)))
        norm="pre"    a = x + dropout(self_attention(norm(x)))
                      b = a + dropout(cross_attention(norm(a), memory))
                      y = b + dropout(feedforward(norm(b)))

    Vaswani et al. (2017), "Attention is all you need", section 3.1, is ``"post"``. A step attends
    to itself and to those before it, and to every step of the memory. The same function as
    `torch.nn.TransformerDecoderLayer`, there with a causal mask.

    Parameters
    ----------
    size, num_heads, feedforward_size, norm, activation, normalization, bias, num_kv_heads, rotary
        As in `TransformerEncoderLayer`; rotary is for self-attention alone. A step of the memory
        has `size` too.
    dropout, rng, dtype
        Likewise; what is dropped are the outputs of all three sub-layers, the weights of both
        attentions, and the hidden units of the feed-forward network.

    Attributes
    ----------
    self_attention, cross_attention : MultiHeadAttention
    feedforward : FeedForward
    self_attention_norm, cross_attention_norm, feedforward_norm : LayerNorm or RMSNorm

    Raises
    ------
    ValueError
        If a size is not a positive integer or does not fit another, a name is unknown, or dropout
        is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.TransformerDecoderLayer(8, 2, 32, norm="pre", rng=0)
    >>> x, memory = np.ones((2, 5, 8)), np.ones((2, 7, 8))
    >>> y, pullback = attnc.vjp(layer, x, memory, key_lengths=[7, 3])
    >>> dx, dmemory = pullback(np.ones_like(y))  # and adds into layer.gradients
    >>> layer(x, memory, return_weights=True).weights.shape
    (2, 2, 5, 7)
    """

    torch_parts = {
        "self_attention": "self_attn",
        "cross_attention": "multihead_attn",
        "feedforward.hidden": "linear1",
        "feedforward.output": "linear2",
        "self_attention_norm": "norm1",
        "cross_attention_norm": "norm2",
        "feedforward_norm": "norm3",
    }

    def __init__(
        self,
        size: int,
        num_heads: int,
        feedforward_size: int,
        *,
        norm: str = "post",
        activation: Activation = "relu",
        normalization: str = "layer",
        bias: bool = True,
        num_kv_heads: int | None = None,
        rotary: bool = False,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        self._make(
            size=size,
            num_heads=num_heads,
            feedforward_size=feedforward_size,
            norm=norm,
            activation=activation,
            normalization=normalization,
            bias=bias,
            num_kv_heads=num_kv_heads,
            rotary=rotary,
            dropout=dropout,
            rng=rng,
            cross=True,
        )

    def _attentions(self):
        return [self.self_attention], [self.cross_attention]

    def _forward(self, x, memory, rng, options, cross, cache=None):
        tokens, held = (None, None) if cache is None else (cache.tokens[0], cache.memories[0])
        a, self_weights, back_to_x = self._self_attention(x, rng, options, tokens)
        b, weights, back_to_a = self._cross_attention(a, memory, rng, cross, held)
        y, back_to_b = self._feedforward(b, rng)

        def back(dy, dweights):
            da, others = back_to_a(back_to_b(dy), dweights[0])
            dx, found = back_to_x(da, dweights[1])
            return dx, others | found

        return y, (weights, self_weights), back

"""What users call of an encoder or a decoder, be it one layer of a Transformer or a stack of them.

This file checks arrays and options, and keeps padding out; `transformer_layer` and
`transformer_stack` compute, in ``_forward``. There arrays are checked already: x is (..., T, size)
and `rng` a generator in training, None outside. What computes returns (y, weights, back), weights
None where nobody asked for them; ``back(dy, dweights)`` returns dx and, by name, the gradients of
what else was read.
"""

from __future__ import annotations

import contextlib
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, overload

import numpy as np

from ..arrays import flag, generator, integer_array, like, quiet
from ..functional.options import nearest
from ..gradients import Gradients, require_incoming, shows_shapes
from ..typing import Array, Bools, Integers, Real, Seed
from .base import method_of
from .cache import KVCache, ModelCache, refuse_cache
from .multihead import MultiHeadAttention
from .torch_weights import TorchWeights


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
        refuse_cache(self, cache)
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
        refuse_cache(self, cache)
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

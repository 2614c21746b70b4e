"""TransformerEncoder and TransformerDecoder: layers on top of each other, and a norm after them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import boolean_mask, flag, generator, quiet
from ..functional.decoder_run import DecoderOutput
from ..typing import Array, Bools, DType, Integers, Real, Seed
from .base import positive
from .cache import ModelCache
from .feedforward import Activation
from .torch_weights import TorchArray, TorchWeights, prefixed
from .transformer_calls import Decoder, Encoder
from .transformer_decoding import TokenState, TransformerMemory
from .transformer_layer import (
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    norm_layer,
    torch_arrays,
)


class _Stack(TorchWeights):
    """The layers of a stack, called `blocks`, and the norm after them."""

    kind: type[Any]  # of the layers

    def __init__(
        self,
        layers: int,
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
        final_norm: bool | None = None,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        where = type(self).__name__
        (self.layers,) = positive(self, layers=layers)
        self.final_norm = None if final_norm is None else flag(where, "final_norm", final_norm)
        shared: dict[str, Any] = {
            "size": size,
            "num_heads": num_heads,
            "feedforward_size": feedforward_size,
            "norm": norm,
            "activation": activation,
            "normalization": normalization,
            "bias": bias,
            "num_kv_heads": num_kv_heads,
            "rotary": rotary,
            "dropout": dropout,
        }
        rng = generator(where, rng)
        self.blocks = [self.kind(**shared, rng=rng, dtype=self.dtype) for _ in range(self.layers)]
        for name in shared:
            setattr(self, name, getattr(self.blocks[0], name))
        self.output_norm = None
        if self.final_norm or self.final_norm is None and self.norm == "pre":
            self.output_norm = norm_layer(self.normalization, self.size, self.bias, self.dtype)

    def _attentions(self):
        tokens, memories = zip(*(block._attentions() for block in self.blocks), strict=True)
        return sum(tokens, []), sum(memories, [])

    def _caches(self, cache):
        """The cache of each layer."""
        if cache is None:
            return [None] * len(self.blocks)
        memories = [[memory] for memory in cache.memories] or [[]] * len(self.blocks)
        return [ModelCache([own], held) for own, held in zip(cache.tokens, memories, strict=True)]

    def _normalized(self, x):
        """The norm after the last layer, if there is one, and the way back."""
        if self.output_norm is None:
            return x, lambda dy: dy
        return self.output_norm._forward(x)

    def _torch_arrays(self) -> dict[str, TorchArray]:
        """Those of the class of this name in `torch.nn`."""
        arrays = {}
        for k, block in enumerate(self.blocks):
            arrays.update(prefixed(f"layers.{k}", block._torch_arrays()))
        if self.output_norm is not None:
            arrays.update(prefixed("norm", torch_arrays(self.output_norm)))
        return arrays


def _stacked(weights):
    """Weights (..., H, Tq, Tk) of every layer as (..., layers, H, Tq, Tk); None as None."""
    return None if weights[0] is None else np.stack(weights, axis=-4)


def _of_layer(dweights, k):
    return None if dweights is None else dweights[..., k, :, :, :]


def _add(total, found):
    """Add gradients by name to those of the layers above."""
    for name, d in found.items():
        total[name] = total[name] + d if name in total else d


class TransformerEncoder(_Stack, Encoder):
    """Layers of `TransformerEncoderLayer` on top of each other.

    Vaswani et al. (2017), "Attention is all you need", section 3.1; the same function as
    `torch.nn.TransformerEncoder`. With ``causal=True`` in its calls it is what a `LanguageModel` is
    made of.

    Parameters
    ----------
    layers : int
        How many.
    size, num_heads, feedforward_size, norm, activation, normalization, bias, num_kv_heads, rotary
        As in `TransformerEncoderLayer`.
    final_norm : bool, optional
        Whether a norm follows the last layer. By default there is one for ``norm="pre"``, where
        nothing else bounds the sum of all sub-layers, and none for ``norm="post"``, where each
        layer ends with one. (`torch.nn.Transformer` has it always.)
    dropout, rng, dtype
        As in `TransformerEncoderLayer`.

    Attributes
    ----------
    blocks : list of TransformerEncoderLayer
        Their parameters are called ``blocks.0.self_attention.query_weight`` and so on.
    output_norm : LayerNorm or RMSNorm or None
        The norm after the last layer.

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
    >>> encoder = attnc.TransformerEncoder(3, 8, 2, 32, norm="pre", rng=0)
    >>> x = np.ones((2, 5, 8))
    >>> outputs, pullback = attnc.vjp(encoder, x, key_lengths=[5, 3])
    >>> (dx,) = pullback(np.ones_like(outputs))  # and adds into encoder.gradients
    >>> encoder(x, return_weights=True).weights.shape  # of each layer and head
    (2, 3, 2, 5, 5)
    """

    kind = TransformerEncoderLayer

    def _forward(self, x, rng, options, cache=None):
        weights, backs = [], []
        for block, own in zip(self.blocks, self._caches(cache), strict=True):
            x, one, down = block._forward(x, rng, options, own)
            weights.append(one)
            if cache is None:  # else nobody goes back, and need not hold what that would read
                backs.append(down)
        y, back_to_x = self._normalized(x)

        def back(dy, dweights=None):
            dx = back_to_x(dy)
            others: dict[str, Array] = {}
            for k in reversed(range(len(backs))):
                dx, found = backs[k](dx, _of_layer(dweights, k))
                _add(others, found)
            return dx, others

        return y, _stacked(weights), back


class TransformerDecoder(_Stack, Decoder):
    """Layers of `TransformerDecoderLayer` on top of each other; all attend to one memory.

    Vaswani et al. (2017), "Attention is all you need", section 3.1; the same function as
    `torch.nn.TransformerDecoder`, there with a causal mask.

    Parameters
    ----------
    layers : int
        How many.
    size, num_heads, feedforward_size, norm, activation, normalization, bias, num_kv_heads, rotary
        As in `TransformerDecoderLayer`.
    final_norm : bool, optional
        Whether a norm follows the last layer. By default there is one for ``norm="pre"``, where
        nothing else bounds the sum of all sub-layers, and none for ``norm="post"``, where each
        layer ends with one. (`torch.nn.Transformer` has it always.)
    dropout, rng, dtype
        As in `TransformerDecoderLayer`.

    Attributes
    ----------
    blocks : list of TransformerDecoderLayer
        Their parameters are called ``blocks.0.self_attention.query_weight`` and so on.
    output_norm : LayerNorm or RMSNorm or None
        The norm after the last layer.

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
    >>> decoder = attnc.TransformerDecoder(3, 8, 2, 32, rng=0)
    >>> x, memory = np.ones((2, 5, 8)), np.ones((2, 7, 8))
    >>> outputs, pullback = attnc.vjp(decoder, x, memory, key_lengths=[7, 3])
    >>> dx, dmemory = pullback(np.ones_like(outputs))  # and adds into decoder.gradients
    >>> decoder(x, memory, return_weights=True).weights.shape  # of each layer and head
    (2, 3, 2, 5, 7)
    """

    kind = TransformerDecoderLayer

    def _forward(self, x, memory, rng, options, cross, cache=None):
        weights, backs = [], []
        for block, own in zip(self.blocks, self._caches(cache), strict=True):
            x, both, down = block._forward(x, memory, rng, options, cross, own)
            weights.append(both)
            if cache is None:  # else nobody goes back, and need not hold what that would read
                backs.append(down)
        y, back_to_x = self._normalized(x)

        def back(dy, dweights=(None, None)):
            dx = back_to_x(dy)
            others: dict[str, Array] = {}
            for k in reversed(range(len(backs))):
                dx, found = backs[k](dx, [_of_layer(d, k) for d in dweights])
                _add(others, found)
            return dx, others

        return y, tuple(map(_stacked, zip(*weights, strict=True))), back

    # ---- Decoding --------------------------------------------------------------------------------

    @quiet
    def prepare(
        self,
        memory: Real | TransformerMemory,
        key_mask: Bools | None = None,
        key_lengths: Integers | None = None,
    ) -> TransformerMemory:
        """Check, mask and project a memory once, for many calls of `step`.

        Parameters
        ----------
        memory : array_like, shape (B, Tk, size)
        key_mask : array_like of bool, shape (B, Tk), optional
            True where the memory may be attended to.
        key_lengths : int or array_like of int, shape (B,), optional
            Valid steps of each memory; both masks intersect. What is masked is not read.

        Returns
        -------
        TransformerMemory
            To be passed as `memory`, to this decoder alone. It goes stale when the parameters
            change: prepare again after every step of an optimiser.

        Raises
        ------
        TypeError
            If an array is of a wrong kind.
        ValueError
            If a shape does not fit, or the memory was prepared by another decoder or has gone
            stale.
        """
        where = type(self).__name__
        if isinstance(memory, TransformerMemory):
            if key_mask is not None or key_lengths is not None:
                raise self._error(
                    "key_mask and key_lengths must be given to prepare(), got them "
                    "with a prepared memory"
                )
            if memory.decoder is not self:
                raise self._error(
                    f"memory must be prepared by the decoder that uses it, {self!r}, got one "
                    f"prepared by another decoder, {memory.decoder!r} (use its prepare)"
                )
            if memory.stale:
                raise self._error(
                    "memory must be prepared with the parameters that there are, got one from "
                    "before they changed (call prepare again)"
                )
            return memory
        memory = self._real("memory", memory, "B", "Tk", self.size)
        B, Tk, _ = memory.shape
        if key_mask is not None:
            key_mask = boolean_mask(where, "key_mask", key_mask, (B, Tk), "(B, Tk)")
            key_mask = np.broadcast_to(key_mask, (B, Tk)).copy()
        lengths = self._lengths("key_lengths", key_lengths, memory)
        caches = self.new_cache().memories
        nobody = np.zeros((B, 0, self.size), self.dtype)
        for layer, cache in zip(self._attentions()[1], caches, strict=True):
            layer(nobody, memory, cache=cache, key_lengths=lengths)
        return TransformerMemory(self, caches, (B, Tk), key_mask)

    @quiet
    def step(
        self, input: Real, memory: Real | TransformerMemory, state: TokenState | None = None
    ) -> DecoderOutput:
        """One step, for decoding: ``output, weights, state = decoder.step(input, memory, state)``.

        Parameters
        ----------
        input : array_like, shape (B, size)
        memory
            What `prepare` returned, or as there.
        state : TokenState, optional
            What the step before returned; None before the first. It does not change.

        Returns
        -------
        output : ndarray, shape (B, size)
        weights : ndarray, shape (B, layers, num_heads, Tk)
            Of the attention to the memory.
        state : TokenState
            For the next step.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type or shape, naming it.
        """
        memory = self.prepare(memory)
        input = self._real("input", input, len(memory), self.size)
        return self._step(input, memory, TokenState.of(self, state, len(memory)), {})

    def _step(self, input, memory, state, options):
        """`step` for checked arguments; `options` are those of self-attention."""
        options = {"causal": True, "return_weights": True, **options}
        cross = {"return_weights": True}
        if memory.key_mask is not None:
            cross["key_mask"] = memory.key_mask
        with state.grown(1) as (cache, after):
            cache = ModelCache(cache.tokens, memory.caches)
            y, (weights, _), _ = self._forward(input[:, None], None, None, options, cross, cache)
        return DecoderOutput(y[:, 0], weights[..., 0, :], after)

    def reorder(self, state: TokenState, indices: Integers) -> TokenState:
        """The state of some sequences of a batch, in this order: what a search goes on with.

        Parameters
        ----------
        state : TokenState
            What a step returned. It does not change.
        indices : array_like of int, shape (N,)
            Sequences of the batch; one may be there several times.

        Returns
        -------
        TokenState
            Of a batch of N.

        Raises
        ------
        TypeError, ValueError
            If state is none of a step, or indices are not sequences of its batch.
        """
        return TokenState.reordered(self, state, indices)

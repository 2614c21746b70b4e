"""TransformerEncoder and TransformerDecoder: layers on top of each other, and a norm after them."""

from __future__ import annotations

import numpy as np

from ..arrays import flag, generator
from ..typing import DType, Seed
from .base import positive
from .feedforward import Activation
from .torch_weights import TorchArray, TorchWeights, prefixed
from .transformer_layer import (
    Decoder,
    Encoder,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    norm_layer,
    torch_arrays,
)


class _Stack(TorchWeights):
    """The layers of a stack, called `blocks`, and the norm after them."""

    def _make(self, kind, layers, final_norm, rng, **arguments):
        """The layers, of this class, from the arguments of the constructor."""
        where = type(self).__name__
        (self.layers,) = positive(self, layers=layers)
        if final_norm is not None:
            final_norm = flag(where, "final_norm", final_norm)
        self.final_norm = final_norm
        rng = generator(where, rng)
        self.blocks = [kind(**arguments, rng=rng, dtype=self.dtype) for _ in range(self.layers)]
        for name in arguments:
            setattr(self, name, getattr(self.blocks[0], name))
        self.output_norm = None
        if final_norm or final_norm is None and self.norm == "pre":
            self.output_norm = norm_layer(self.normalization, self.size, self.bias, self.dtype)

    def _normalized(self, x):
        """The norm after the last layer, if there is one, and the way back."""
        return (x, lambda dy: dy) if self.output_norm is None else self.output_norm._forward(x)

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
        self._make(
            TransformerEncoderLayer,
            layers,
            final_norm,
            rng,
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
        )

    def _forward(self, x, rng, options):
        weights, backs = [], []
        for block in self.blocks:
            x, one, back = block._forward(x, rng, options)
            weights.append(one)
            backs.append(back)
        y, back_to_x = self._normalized(x)

        def back(dy, dweights=None):
            dx, others = back_to_x(dy), {}
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
        self._make(
            TransformerDecoderLayer,
            layers,
            final_norm,
            rng,
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
        )

    def _forward(self, x, memory, rng, options, cross):
        weights, backs = [], []
        for block in self.blocks:
            x, both, back = block._forward(x, memory, rng, options, cross)
            weights.append(both)
            backs.append(back)
        y, back_to_x = self._normalized(x)

        def back(dy, dweights=(None, None)):
            dx, others = back_to_x(dy), {}
            for k in reversed(range(len(backs))):
                dx, found = backs[k](dx, [_of_layer(d, k) for d in dweights])
                _add(others, found)
            return dx, others

        return y, tuple(map(_stacked, zip(*weights, strict=True))), back

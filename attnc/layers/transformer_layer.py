"""The layers of a Transformer: sub-layers beside the identity.

Vaswani et al. (2017), "Attention is all you need", section 3.1. A sub-layer f stands in its layer
with a norm after the sum, as in the paper, or before f (Xiong et al. 2020, "On layer normalization
in the Transformer architecture")::

    norm="post"   y = norm(x + dropout(f(x)))
    norm="pre"    y = x + dropout(f(norm(x)))

In an encoder layer f is self-attention, then a feed-forward network; in a decoder layer causal
self-attention, attention to a memory, then a feed-forward network. `transformer_stack` puts layers
on top of each other; `transformer_calls` has what is the same for both.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from ..arrays import flag, generator, integer, probability
from ..functional.decoder import check_choice
from ..functional.dropout import add_dropout
from ..typing import DType, Seed
from .base import positive
from .feedforward import Activation, FeedForward
from .linear import Linear
from .multihead import MultiHeadAttention
from .norm import LayerNorm, RMSNorm
from .torch_weights import TorchArray, TorchWeights, flat, prefixed, transposed
from .transformer_calls import Decoder, Encoder


class _Sublayers(TorchWeights):
    """The parts that both layers have, and how a sub-layer stands in its layer."""

    cross: bool  # whether there is attention to a memory
    torch_parts: dict[str, str]  # names here: those in torch.nn

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
        if self.cross:
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

    cross = False
    torch_parts = {
        "self_attention": "self_attn",
        "feedforward.hidden": "linear1",
        "feedforward.output": "linear2",
        "self_attention_norm": "norm1",
        "feedforward_norm": "norm2",
    }

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

    cross = True
    torch_parts = {
        "self_attention": "self_attn",
        "cross_attention": "multihead_attn",
        "feedforward.hidden": "linear1",
        "feedforward.output": "linear2",
        "self_attention_norm": "norm1",
        "cross_attention_norm": "norm2",
        "feedforward_norm": "norm3",
    }

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

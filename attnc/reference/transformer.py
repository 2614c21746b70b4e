"""The Transformer in plain NumPy: its layers, stacks of them, and the models; derivatives by hand.

Every sub-layer f, which is attention or the feed-forward network, stands beside the identity:

    norm="post"   y = norm(x + f(x))         and back  ds = norm'(dy)    dx = ds + f'(ds)
    norm="pre"    y = x + f(norm(x))         and back  dx = dy + norm'(f'(dy))

where f' is the way back through f. Vaswani et al. 2017, "Attention is all you need", section 3.1;
Xiong et al. 2020, "On layer normalization in the Transformer architecture".

Parameters are dicts by the names that the layers of `attnc` have for them, and so are their
gradients. All functions take these options:

    norm            "post" or "pre"
    activation      of `feed_forward`
    normalization   "layer" or "rms"
    rotary          whether self-attention knows positions by `rotary`
    dtype           what to compute in: float64 unless given

and layers and stacks those of attention, for self-attention. `vjp` gives the gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from attnc.reference.activation import feed_forward
from attnc.reference.attention import Gradients, differentiable
from attnc.reference.multihead import multi_head_attention
from attnc.reference.norm import layer_norm, rms_norm
from attnc.reference.positions import sinusoids
from attnc.typing import Array, Bools, Integers, Real

__all__ = [
    "language_model",
    "transformer",
    "transformer_decoder",
    "transformer_decoder_layer",
    "transformer_encoder",
    "transformer_encoder_layer",
]

Parameters = Mapping[str, Array]


class Options(NamedTuple):
    norm: str = "post"
    activation: str = "relu"
    normalization: str = "layer"
    rotary: bool = False
    dtype: Any = np.float64


class Sum(dict[str, Any]):
    """Gradients by name, of parameters and of what else was read; several of one name add up."""

    def add(self, found: Mapping[str, Any], part: str = "") -> None:
        for own, gradient in found.items():
            name = f"{part}{own}"
            self[name] = self[name] + gradient if name in self else gradient


def inside(parameters, part):
    """The parameters whose names begin with this, by the rest of their names."""
    return {
        name.removeprefix(part): np.asarray(array)
        for name, array in parameters.items()
        if name.startswith(part)
    }


def split(given):
    """(`Options`, the options of attention) of all that a function was given."""
    own = {name: given[name] for name in Options._fields if name in given}
    return Options(**own), {name: x for name, x in given.items() if name not in own}


# ---- Parts: y, and the way back, from dy and the sum so far to dx --------------------------------


def normalized(x, parameters, part, own):
    """The norm of this name: y, and the way back."""
    p, function = inside(parameters, part), layer_norm if own.normalization == "layer" else rms_norm
    y, pullback = function.with_pullback(x, **p, dtype=own.dtype)

    def back(dy, total):
        found = vars(pullback(dy))
        total.add({name: found[name] for name in p}, part)
        return found["x"]

    return y, back


def attended(x, memory, parameters, part, own, options):
    """Attention of x to a memory, or to itself where that is None: y, and the way back."""
    p, keys = inside(parameters, part), x if memory is None else memory
    weights = [p[f"{name}_weight"] for name in ("query", "key", "value", "output")]
    biases = {name: array for name, array in p.items() if name.endswith("_bias")}
    y, pullback = multi_head_attention.with_pullback(
        x, keys, keys, *weights, **biases, **options, dtype=own.dtype
    )

    def back(dy, total):
        found = vars(pullback(dy))
        total.add({name: found[name] for name in p}, part)
        total.add({name: found[name] for name in options if name in found})
        dkeys = found["key"] + found["value"]
        if memory is None:
            return found["query"] + dkeys
        total.add({"memory": dkeys})
        return found["query"]

    return y, back


def fed_forward(x, parameters, part, own):
    """The feed-forward network: y, and the way back."""
    p = inside(parameters, part)
    y, pullback = feed_forward.with_pullback(x, p, activation=own.activation, dtype=own.dtype)

    def back(dy, total):
        found = vars(pullback(dy))
        total.add({name: found[name] for name in p}, part)
        return found["x"]

    return y, back


def beside(x, f, norm, where):
    """The sub-layer f beside the identity: y, and the way back."""
    if where == "post":
        z, back_to_x = f(x)
        y, back_to_sum = norm(x + z)

        def back(dy, total):
            ds = back_to_sum(dy, total)
            return ds + back_to_x(ds, total)

        return y, back
    h, back_to_x = norm(x)
    z, back_to_h = f(h)
    return x + z, lambda dy, total: dy + back_to_x(back_to_h(dy, total), total)


def one_after_the_other(backs):
    """The way back through parts that stood one after the other."""

    def back(dy, total):
        for one in reversed(backs):
            dy = one(dy, total)
        return dy

    return back


# ---- Layers and stacks ---------------------------------------------------------------------------


def layer(x, memory, parameters, part, own, options, cross):
    """One layer, with attention to the memory where there is one: y, and the way back."""
    turned = {**options, "rotary": own.rotary}
    sublayers = {
        "self_attention": lambda h, name: attended(h, None, parameters, name, own, turned),
        "cross_attention": lambda h, name: attended(h, memory, parameters, name, own, cross),
        "feedforward": lambda h, name: fed_forward(h, parameters, name, own),
    }
    if memory is None:
        del sublayers["cross_attention"]
    backs = []
    for name, f in sublayers.items():
        x, back = beside(
            x,
            lambda h, f=f, name=name: f(h, f"{part}{name}."),
            lambda h, name=name: normalized(h, parameters, f"{part}{name}_norm.", own),
            own.norm,
        )
        backs.append(back)
    return x, one_after_the_other(backs)


def stack(x, memory, parameters, part, own, options, cross):
    """All layers, and the norm after them if there is one: y, and the way back."""
    backs = []
    while any(name.startswith(f"{part}blocks.{len(backs)}.") for name in parameters):
        at = f"{part}blocks.{len(backs)}."
        x, back = layer(x, memory, parameters, at, own, options, cross)
        backs.append(back)
    if f"{part}output_norm.weight" in parameters:
        x, back = normalized(x, parameters, f"{part}output_norm.", own)
        backs.append(back)
    return x, one_after_the_other(backs)


def encoded(run, x, parameters, given):
    own, options = split(given)
    x = np.asarray(x, own.dtype)
    y, back = run(x, None, parameters, "", own, options, {})

    def pullback(dy):
        total = Sum()
        dx = back(np.asarray(dy, own.dtype), total)
        return Gradients({"x": dx, **total}, ["x"])

    return y, pullback


def decoded(run, x, memory, parameters, given, cross):
    own, options = split(given)
    x, memory = np.asarray(x, own.dtype), np.asarray(memory, own.dtype)
    cross = {name: value for name, value in cross.items() if value is not None}
    y, back = run(x, memory, parameters, "", own, {"causal": True, **options}, cross)

    def pullback(dy):
        total = Sum()
        dx = back(np.asarray(dy, own.dtype), total)
        return Gradients({"x": dx, **total}, ["x", "memory"])

    return y, pullback


@differentiable
def transformer_encoder_layer(x: Real, parameters: Parameters, **options: Any) -> Any:
    """Self-attention, then a feed-forward network: Vaswani et al. 2017, section 3.1.

    Parameters
    ----------
    x : array (..., T, E)
    parameters : dict of str to array
        By the names of `attnc.TransformerEncoderLayer`.
    **options
        See the module.

    Returns
    -------
    y (..., T, E)
    """
    return encoded(layer, x, parameters, options)


@differentiable
def transformer_encoder(x: Real, parameters: Parameters, **options: Any) -> Any:
    """Layers on top of each other.

    Parameters
    ----------
    x : array (..., T, E)
    parameters : dict of str to array
        By the names of `attnc.TransformerEncoder`.
    **options
        See the module.

    Returns
    -------
    y (..., T, E)
    """
    return encoded(stack, x, parameters, options)


@differentiable
def transformer_decoder_layer(
    x: Real,
    memory: Real,
    parameters: Parameters,
    *,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
    memory_mask: Bools | None = None,
    **options: Any,
) -> Any:
    """Causal self-attention, attention to a memory, then a feed-forward network.

    Parameters
    ----------
    x, memory : arrays (..., T, E), (..., Tk, E)
    parameters : dict of str to array
        By the names of `attnc.TransformerDecoderLayer`.
    key_mask : array (..., Tk) of bool, optional
    key_lengths : int or array (...) of int, optional
    memory_mask : array (..., T, Tk) of bool, optional
        What of the memory may be attended to.
    **options
        See the module.

    Returns
    -------
    y (..., T, E)
    """
    cross = {"key_mask": key_mask, "key_lengths": key_lengths, "mask": memory_mask}
    return decoded(layer, x, memory, parameters, options, cross)


@differentiable
def transformer_decoder(
    x: Real,
    memory: Real,
    parameters: Parameters,
    *,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
    memory_mask: Bools | None = None,
    **options: Any,
) -> Any:
    """Layers on top of each other, which attend to one memory.

    Parameters
    ----------
    x, memory : arrays (..., T, E), (..., Tk, E)
    parameters : dict of str to array
        By the names of `attnc.TransformerDecoder`.
    key_mask : array (..., Tk) of bool, optional
    key_lengths : int or array (...) of int, optional
    memory_mask : array (..., T, Tk) of bool, optional
        What of the memory may be attended to.
    **options
        See the module.

    Returns
    -------
    y (..., T, E)
    """
    cross = {"key_mask": key_mask, "key_lengths": key_lengths, "mask": memory_mask}
    return decoded(stack, x, memory, parameters, options, cross)


# ---- Models --------------------------------------------------------------------------------------


def embedded(tokens, parameters, embedding, positions, own):
    """sqrt(E) times the vectors of tokens, plus those of their positions; and the way back.

    Positions are learned where there is a table of them.
    """
    table = np.asarray(parameters[f"{embedding}.weight"], own.dtype)
    T, E = tokens.shape[-1], table.shape[-1]
    x, learned = np.sqrt(own.dtype(E)) * table[tokens], f"{positions}.weight"
    if learned in parameters:
        x = x + np.asarray(parameters[learned], own.dtype)[:T]

    def back(dx, total):
        dtable = np.zeros(table.shape, own.dtype)
        np.add.at(dtable, tokens, np.sqrt(own.dtype(E)) * dx)
        total.add({f"{embedding}.weight": dtable})
        if learned in parameters:
            dpositions = np.zeros(np.shape(parameters[learned]), own.dtype)
            dpositions[:T] = dx.sum(axis=0)
            total.add({learned: dpositions})

    return x, back


def scored(x, parameters, dtype):
    """The output layer: logits, and the way back."""
    weight = np.asarray(parameters["output.weight"], dtype)
    bias = np.asarray(parameters.get("output.bias", 0), dtype)

    def back(dy, total):
        rows, d = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        total.add({"output.weight": rows.T @ d})
        if bias.ndim:
            total.add({"output.bias": d.sum(axis=0)})
        return dy @ weight.T

    return x @ weight + bias, back


@differentiable
def transformer(
    source: Integers,
    target: Integers,
    parameters: Parameters,
    source_lengths: Integers | None = None,
    *,
    sinusoidal: bool = True,
    **options: Any,
) -> Any:
    """Encoder and decoder of attention alone: Vaswani et al. 2017, sections 3.1 and 3.4.

    Parameters
    ----------
    source, target : arrays (B, Ts), (B, T) of int
    parameters : dict of str to array
        By the names of `attnc.Transformer`. Those that are one array there, as they are tied, have
        a gradient each: theirs is the sum.
    source_lengths : int or array (B,) of int, optional
    sinusoidal : bool
        Whether sinusoids are added to the vectors.
    **options
        See the module; those of attention are for self-attention on both sides.

    Returns
    -------
    logits (B, T, V)
    """
    own, shared = split(options)
    source, target = np.asarray(source), np.asarray(target)
    x, back_to_source = embedded(source, parameters, "source_embedding", "source_positions", own)
    y, back_to_target = embedded(target, parameters, "target_embedding", "target_positions", own)
    if sinusoidal:
        x = x + sinusoids(np.arange(x.shape[1]), x.shape[2], dtype=own.dtype)
        y = y + sinusoids(np.arange(y.shape[1]), y.shape[2], dtype=own.dtype)
    padding = {} if source_lengths is None else {"key_lengths": source_lengths}
    memory, back_to_x = stack(x, None, parameters, "encoder.", own, {**shared, **padding}, {})
    later = {**shared, "causal": True}
    read, back_to_y = stack(y, memory, parameters, "decoder.", own, later, padding)
    logits, back_to_read = scored(read, parameters, own.dtype)

    def pullback(dlogits):
        total = Sum()
        dread = back_to_read(np.asarray(dlogits, own.dtype), total)
        back_to_target(back_to_y(dread, total), total)
        back_to_source(back_to_x(total.pop("memory"), total), total)
        return Gradients(total, [])

    return logits, pullback


@differentiable
def language_model(
    tokens: Integers, parameters: Parameters, *, sinusoidal: bool = True, **options: Any
) -> Any:
    """Layers of causal self-attention, from tokens to scores of the one that follows each.

    Parameters
    ----------
    tokens : array (B, T) of int
    parameters : dict of str to array
        By the names of `attnc.LanguageModel`. Those that are one array there, as they are tied,
        have a gradient each: theirs is the sum.
    sinusoidal : bool
        Whether sinusoids are added to the vectors.
    **options
        See the module.

    Returns
    -------
    logits (B, T, V)
    """
    own, shared = split(options)
    tokens = np.asarray(tokens)
    x, back_to_tokens = embedded(tokens, parameters, "embedding", "position_layer", own)
    if sinusoidal:
        x = x + sinusoids(np.arange(x.shape[1]), x.shape[2], dtype=own.dtype)
    later = {**shared, "causal": True}
    read, back_to_x = stack(x, None, parameters, "decoder.", own, later, {})
    logits, back_to_read = scored(read, parameters, own.dtype)

    def pullback(dlogits):
        total = Sum()
        dread = back_to_read(np.asarray(dlogits, own.dtype), total)
        back_to_tokens(back_to_x(dread, total), total)
        return Gradients(total, [])

    return logits, pullback

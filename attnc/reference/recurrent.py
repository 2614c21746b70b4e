"""RNN, GRU and LSTM over whole sequences, and the attention decoder, one step at a time.

Every function here returns its output and a pullback, from the gradients of what it returned to
those of what it took. The pullback of a sequence is that of its steps in the opposite order:

    step t        s_t = step(x_t, s_(t-1))
    and back      ds_(t-1), dx_t, and a part of the parameters' gradient, from ds_t

Shapes: x (B, T, E), a state (B, H), parameters W (E, G * H), U (H, G * H), b and c (G * H,) with G
gates side by side, in the order of torch.nn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnc.reference.attention import (
    Gradients,
    additive_attention,
    cosine_attention,
    differentiable,
    dot_product_attention,
    vjp,
)
from attnc.typing import Bools, Integers, Real

__all__ = ["attention_decoder", "gru", "lstm", "rnn"]


# ---- One step of one cell ------------------------------------------------------------------------


def sigmoid(x):
    return (1 + np.tanh(x / 2)) / 2


def affine(x, h, parameters):
    """p = x W + b and q = h U + c; back: dp and dq to (dx, dh, (dW, dU, db, dc))."""
    W, U, b, c = parameters

    def pullback(dp, dq):
        return dp @ W.T, dq @ U.T, (x.T @ dp, h.T @ dq, dp.sum(axis=0), dq.sum(axis=0))

    return x @ W + b, h @ U + c, pullback


def rnn_step(x, state, parameters):
    """h' = tanh(x W + b + h U + c): Elman 1990."""
    (h,) = state
    p, q, back = affine(x, h, parameters)
    new = np.tanh(p + q)

    def pullback(dstate):
        (dnew,) = dstate
        da = dnew * (1 - new**2)
        dx, dh, dparameters = back(da, da)
        return dx, (dh,), dparameters

    return (new,), pullback


def gru_step(x, state, parameters):
    """Cho et al. 2014, eq. 5-8, with the reset gate after the product, as in torch.nn.

    r, z = sigmoid(p + q)    n = tanh(p_n + r q_n)    h' = (1 - z) n + z h
    """
    (h,) = state
    p, q, back = affine(x, h, parameters)
    (p_r, p_z, p_n), (q_r, q_z, q_n) = np.split(p, 3, axis=-1), np.split(q, 3, axis=-1)
    r, z = sigmoid(p_r + q_r), sigmoid(p_z + q_z)
    n = np.tanh(p_n + r * q_n)

    def pullback(dstate):
        (dnew,) = dstate
        dn = dnew * (1 - z) * (1 - n**2)  # of p_n + r q_n
        dz = dnew * (h - n) * z * (1 - z)
        dr = dn * q_n * r * (1 - r)
        dp = np.concatenate([dr, dz, dn], axis=-1)
        dq = np.concatenate([dr, dz, dn * r], axis=-1)
        dx, dh, dparameters = back(dp, dq)
        return dx, (dh + dnew * z,), dparameters

    return ((1 - z) * n + z * h,), pullback


def lstm_step(x, state, parameters):
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    i, f, o = sigmoid(p + q)    g = tanh(p_g + q_g)    c' = f c + i g    h' = o tanh(c')
    """
    h, c = state
    p, q, back = affine(x, h, parameters)
    a_i, a_f, a_g, a_o = np.split(p + q, 4, axis=-1)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c_new = f * c + i * g

    def pullback(dstate):
        dh_new, dc_new = dstate
        dc_new = dc_new + dh_new * o * (1 - np.tanh(c_new) ** 2)
        da = np.concatenate(
            [
                dc_new * g * i * (1 - i),
                dc_new * c * f * (1 - f),
                dc_new * i * (1 - g**2),
                dh_new * np.tanh(c_new) * o * (1 - o),
            ],
            axis=-1,
        )
        dx, dh, dparameters = back(da, da)
        return dx, (dh, dc_new * f), dparameters

    return (o * np.tanh(c_new), c_new), pullback


STEPS = {"rnn": (rnn_step, 1), "gru": (gru_step, 1), "lstm": (lstm_step, 2)}  # arrays of the state


# ---- Sequences -----------------------------------------------------------------------------------


def direction(step, x, state, parameters, lengths, reverse):
    """One cell over a sequence: outputs (B, T, H), last state. A padded step moves no state."""
    B, T, _ = x.shape
    order = list(reversed(range(T))) if reverse else list(range(T))
    outputs, tape = np.zeros((B, T, state[0].shape[1])), {}
    for t in order:
        here = (t < lengths)[:, None]
        # Padding is not read: where it stands may be NaN.
        new, back = step(np.where(here, x[:, t], 0), state, parameters)
        outputs[:, t] = np.where(here, new[0], 0)
        state = tuple(np.where(here, a, b) for a, b in zip(new, state, strict=True))
        tape[t] = here, back

    def pullback(doutputs, dstate):
        dx = np.zeros(x.shape)
        dparameters = [np.zeros(p.shape) for p in parameters]
        for t in reversed(order):
            here, back = tape[t]
            dnew = [np.where(here, d, 0) for d in dstate]
            dnew[0] = dnew[0] + np.where(here, doutputs[:, t], 0)
            dx[:, t], dbefore, down = back(dnew)
            dstate = [np.where(here, a, b) for a, b in zip(dbefore, dstate, strict=True)]
            dparameters = [a + b for a, b in zip(dparameters, down, strict=True)]
        return dx, dstate, dparameters

    return outputs, state, pullback


def _parts(state, count):
    return [state] if count == 1 else list(state)


def _joined(arrays):
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _recurrent(kind, x, parameters, state=None, lengths=None, *, bidirectional=False):
    step, count = STEPS[kind]
    given, x = state, np.asarray(x, float)
    cells = [[np.asarray(p, float) for p in parameters[k : k + 4]]
             for k in range(0, len(parameters), 4)]  # fmt: skip
    B, T, _ = x.shape
    H, directions = cells[0][1].shape[0], 1 + bidirectional
    shape = len(cells), B, H
    state = [np.zeros(shape)] * count if state is None else _parts(state, count)
    state = [np.asarray(array, float) for array in state]
    lengths = np.full(B, T) if lengths is None else np.broadcast_to(np.asarray(lengths, int), B)
    rows, final, tape = x, [], []
    for k in range(0, len(cells), directions):
        sides = [
            direction(step, rows, tuple(s[k + d] for s in state), cells[k + d], lengths, d == 1)
            for d in range(directions)
        ]
        rows = np.concatenate([outputs for outputs, _, _ in sides], axis=-1)
        final += [last for _, last, _ in sides]
        tape.append([back for _, _, back in sides])
    last = [np.stack(arrays) for arrays in zip(*final, strict=True)]

    def pullback(doutputs=None, dstate=None):
        d = np.zeros(rows.shape) if doutputs is None else np.asarray(doutputs, float)
        dlast = [np.zeros(shape)] * count if dstate is None else _parts(dstate, count)
        dfirst = [np.zeros(shape) for _ in range(count)]
        dparameters = [None] * len(cells)
        for layer in reversed(range(len(tape))):
            below = 0
            for side, back in enumerate(tape[layer]):
                k = layer * directions + side
                own = d[..., side * H : (side + 1) * H]
                dx, dbefore, dparameters[k] = back(own, [np.asarray(s[k], float) for s in dlast])
                below = below + dx
                for array, part in zip(dfirst, dbefore, strict=True):
                    array[k] = part
            d = below
        dparameters = tuple(array for cell in dparameters for array in cell)
        gradients = {"x": d, "parameters": dparameters}
        gradients |= {} if given is None else {"state": _joined(dfirst)}
        return Gradients(gradients, ("x", "parameters"))

    return (rows, _joined(last)), pullback


@differentiable
def rnn(
    x: Real,
    parameters: Sequence[Real],
    state: Any = None,
    lengths: Integers | None = None,
    *,
    bidirectional: bool = False,
) -> Any:
    """Simple recurrent network: `rnn_step` over whole sequences.

    Parameters
    ----------
    x : array (B, T, E)
    parameters : sequence of arrays
        W, U, b, c of every cell.
    state : array (layers * directions, B, H), optional
    lengths : int or array (B,) of int, optional
    bidirectional : bool

    Returns
    -------
    outputs (B, T, directions * H), and the last state.
    """
    return _recurrent("rnn", x, parameters, state, lengths, bidirectional=bidirectional)


@differentiable
def gru(
    x: Real,
    parameters: Sequence[Real],
    state: Any = None,
    lengths: Integers | None = None,
    *,
    bidirectional: bool = False,
) -> Any:
    """Gated recurrent units: `gru_step` over whole sequences.

    Parameters
    ----------
    x : array (B, T, E)
    parameters : sequence of arrays
        W, U, b, c of every cell.
    state : array (layers * directions, B, H), optional
    lengths : int or array (B,) of int, optional
    bidirectional : bool

    Returns
    -------
    outputs (B, T, directions * H), and the last state.
    """
    return _recurrent("gru", x, parameters, state, lengths, bidirectional=bidirectional)


@differentiable
def lstm(
    x: Real,
    parameters: Sequence[Real],
    state: Any = None,
    lengths: Integers | None = None,
    *,
    bidirectional: bool = False,
) -> Any:
    """Long short-term memory: `lstm_step` over whole sequences.

    Parameters
    ----------
    x : array (B, T, E)
    parameters : sequence of arrays
        W, U, b, c of every cell.
    state : array (layers * directions, B, H) or a pair of them, optional
    lengths : int or array (B,) of int, optional
    bidirectional : bool

    Returns
    -------
    outputs (B, T, directions * H), and the last state.
    """
    return _recurrent("lstm", x, parameters, state, lengths, bidirectional=bidirectional)


# ---- The attention decoder -----------------------------------------------------------------------


def _score(attention, named):
    """The attention function, its parameters, and the projection of the query outside it."""
    if attention == "additive":
        vector = (named["score_vector"],)
        return additive_attention, vector, {n: named[n] for n in ("query_weight", "key_weight")}
    if attention == "cosine":
        return cosine_attention, (), {"scale": np.asarray(named["scale"], float)}
    return dot_product_attention, (), {"scale": 1.0}  # multiplicative: of q W


@differentiable
def attention_decoder(
    inputs: Real,
    memory: Real,
    cells: Sequence[Sequence[Real]],
    state: Any = None,
    *,
    cell: str = "gru",
    attention: str = "additive",
    order: str = "bahdanau",
    input_feeding: bool = False,
    max_fertility: float = 2.0,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
    **named: Any,
) -> Any:
    """Recurrent decoder that attends to a memory.

    bahdanau    c_t = attention(s_(t-1))    s_t = cell([y_t; c_t], s_(t-1))    output s_t
    luong       s_t = cell([y_t; o_(t-1)], s_(t-1))    c_t = attention(s_t)
                output o_t = tanh([c_t; s_t] W_c)          o_(t-1) with input feeding only

    With a coverage_weight u, u times the coverage C, the sum of the weights so far, is added to the
    scores; with a coverage_vector w, C w is added inside the tanh. With a fertility_vector U_f a
    weight of key j counts for C what it is of max_fertility sigmoid(h_j . U_f).

    Parameters
    ----------
    inputs, memory : arrays (B, T, E), (B, Tk, M)
    cells : sequence of arrays
        W, U, b, c of every layer.
    state : array (layers, B, H), or a tuple that begins with it, optional
    cell, attention, order, input_feeding, max_fertility, key_mask, key_lengths
        As in `attnc.functional.attention_decoder`; the attention 'none' is not here.
    **named
        The other parameters and max_fertility, as in `attnc.functional.attention_decoder`.

    Returns
    -------
    outputs (B, T, H), weights (B, T, Tk), and the last state.
    """
    step, count = STEPS[cell]
    bahdanau, given = order == "bahdanau", state
    inputs, memory = np.asarray(inputs, float), np.asarray(memory, float)
    layers = [[np.asarray(p, float) for p in cells[k : k + 4]] for k in range(0, len(cells), 4)]
    named = {name: np.asarray(array, float) for name, array in named.items() if array is not None}
    B, T, E = inputs.shape
    Tk, M = memory.shape[1:]
    L, H = len(layers), layers[0][1].shape[0]
    shapes = [(L, B, H)] * count + [(B, H)] * input_feeding
    inside, covers = "coverage_vector" in named, "coverage_weight" in named
    shapes += [(B, Tk)] * (inside or covers)
    allowed = np.ones((B, Tk), bool) if key_mask is None else np.broadcast_to(key_mask, (B, Tk))
    if key_lengths is not None:
        lengths = np.broadcast_to(np.asarray(key_lengths, int), B)
        allowed = allowed & (np.arange(Tk) < lengths[:, None])
    memory = np.where(allowed[..., None], memory, 0)
    parts = [] if state is None else list(state) if isinstance(state, tuple) else [state]
    parts = [np.asarray(part, float) for part in parts]
    parts += [np.zeros(shape) for shape in shapes[len(parts) :]]
    states = [tuple(part[layer] for part in parts[:count]) for layer in range(L)]
    feed = parts[count] if input_feeding else np.zeros((B, 0))
    coverage = parts[-1] if inside or covers else np.zeros((B, Tk))
    u = float(named["coverage_weight"]) if covers else 0.0
    rate = np.ones((B, Tk))
    if "fertility_vector" in named:
        needed = sigmoid(memory @ named["fertility_vector"])
        rate = 1 / (max_fertility * needed)
    function, positional, options = _score(attention, named)
    options |= {"key_mask": allowed, "return_weights": True}
    if inside:
        key_weight = options.pop("key_weight")

    def attend(top, coverage):
        """Context and weights of the states (B, H) that ask, and the way back."""
        query = top @ named["weight"] if attention == "multiplicative" else top
        key = memory
        if inside:
            key = memory @ key_weight + coverage[..., None] * named["coverage_vector"]
        (context, weights), back = vjp(
            function, query[:, None], key, memory, *positional,
            bias=u * coverage[:, None], **options,
        )  # fmt: skip

        def pullback(dcontext, dweights):
            d = back(dcontext[:, None], dweights=dweights[:, None])
            dkey, dcoverage = d.key, u * d.bias[:, 0]
            names = ("score_vector", "query_weight", "key_weight", "scale")
            parameters = {
                name: vars(d)[name] for name in names if name in vars(d) and name in named
            }
            dtop = d.query[:, 0]
            if attention == "multiplicative":
                parameters["weight"] = top.T @ dtop
                dtop = dtop @ named["weight"].T
            if covers:
                parameters["coverage_weight"] = (d.bias[:, 0] * coverage).sum()
            if inside:
                parameters["coverage_vector"] = np.einsum("bja,bj->a", dkey, coverage)
                parameters["key_weight"] = np.einsum("bjm,bja->ma", memory, dkey)
                dcoverage = dkey @ named["coverage_vector"]
                dkey = dkey @ key_weight.T
            return dtop, dkey + d.value, dcoverage, parameters

        return context[:, 0], weights[:, 0], pullback

    outputs, all_weights, tape = np.zeros((B, T, H)), np.zeros((B, T, Tk)), []
    for t in range(T):
        top, context = states[-1][0], np.zeros((B, 0))
        if bahdanau:
            context, weights, back_attend = attend(top, coverage)
        x, backs = np.concatenate([inputs[:, t], context, feed], axis=-1), []
        for layer, parameters in enumerate(layers):
            states[layer], back = step(x, states[layer], parameters)
            x = states[layer][0]
            backs.append(back)
        both = None
        if not bahdanau:
            context, weights, back_attend = attend(x, coverage)
            both = np.concatenate([context, x], axis=-1)
            x = np.tanh(both @ named["readout_weight"])
            feed = x if input_feeding else feed
        outputs[:, t], all_weights[:, t] = x, weights
        coverage = coverage + weights * rate
        tape.append((backs, back_attend, both))
    last = [np.stack(arrays) for arrays in zip(*states, strict=True)]
    last += [feed] * input_feeding + [coverage] * (inside or covers)

    def pullback(doutputs=None, dweights=None, dstate=None):
        dout = np.zeros(outputs.shape) if doutputs is None else np.asarray(doutputs, float)
        dall = np.zeros(all_weights.shape) if dweights is None else np.asarray(dweights, float)
        d = [] if dstate is None else list(dstate) if isinstance(dstate, tuple) else [dstate]
        d = [np.asarray(part, float) for part in d]
        d += [np.zeros(shape) for shape in shapes[len(d) :]]
        dstates = [[part[layer] for part in d[:count]] for layer in range(L)]
        dfeed = d[count] if input_feeding else np.zeros((B, H))
        dcoverage = d[-1] if inside or covers else np.zeros((B, Tk))
        drate = np.zeros((B, Tk))
        dinputs, dmemory = np.zeros(inputs.shape), np.zeros(memory.shape)
        dcells = [[np.zeros(p.shape) for p in parameters] for parameters in layers]
        dnamed = {name: np.zeros(array.shape) for name, array in named.items()}

        def through_attention(back, dcontext, t):
            nonlocal dmemory, dcoverage, drate
            drate = drate + dcoverage * all_weights[:, t]
            dtop, down, dbefore, parameters = back(dcontext, dall[:, t] + dcoverage * rate)
            dmemory, dcoverage = dmemory + down, dcoverage + dbefore
            for name, gradient in parameters.items():
                dnamed[name] = dnamed[name] + gradient
            return dtop

        for t in reversed(range(T)):
            backs, back_attend, both = tape[t]
            dx = dout[:, t]
            if not bahdanau:
                dsum = (dx + dfeed) * (1 - outputs[:, t] ** 2)
                dnamed["readout_weight"] = dnamed["readout_weight"] + both.T @ dsum
                dboth = dsum @ named["readout_weight"].T
                dx = dboth[:, M:] + through_attention(back_attend, dboth[:, :M], t)
            for layer in reversed(range(L)):
                dstates[layer][0] = dstates[layer][0] + dx
                dx, dbefore, down = backs[layer](dstates[layer])
                dstates[layer] = list(dbefore)
                dcells[layer] = [a + b for a, b in zip(dcells[layer], down, strict=True)]
            dinputs[:, t] = dx[:, :E]
            if bahdanau:
                dtop = through_attention(back_attend, dx[:, E:], t)
                dstates[-1][0] = dstates[-1][0] + dtop
            elif input_feeding:
                dfeed = dx[:, E:]
        dfirst = [np.stack(arrays) for arrays in zip(*dstates, strict=True)]
        dfirst += [dfeed] * input_feeding + [dcoverage] * (inside or covers)
        if "fertility_vector" in named:
            dx = -drate * rate * (1 - needed)
            dnamed["fertility_vector"] = np.einsum("bj,bjm->m", dx, memory)
            dmemory = dmemory + dx[..., None] * named["fertility_vector"]
        dcells = tuple(array for layer in dcells for array in layer)
        gradients = {"inputs": dinputs, "memory": dmemory, "cells": dcells} | dnamed
        if given is not None:
            size = len(given) if isinstance(given, tuple) else 1
            gradients["state"] = _joined(dfirst[:size])
        return Gradients(gradients, ("inputs", "memory", "cells"))

    return (outputs, all_weights, _joined(last)), pullback

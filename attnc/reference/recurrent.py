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

from attnc.dual import asarray, value_of
from attnc.reference.attention import (
    Gradients,
    additive_attention,
    additive_scores,
    cosine_attention,
    cosine_scores,
    differentiable,
    dot_product_attention,
    dot_product_scores,
    vjp,
)
from attnc.reference.monotonic import chunkwise_attention, monotonic_alignment
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


def _with_stages(stage_gradients, **stages):
    """Name what a step computes on the way and the gradients of it, for `attnc.stages`."""

    def decorate(pullback):
        pullback.stages, pullback.stage_gradients = stages, stage_gradients
        return pullback

    return decorate


def rnn_step(x, state, parameters):
    """h' = tanh(x W + b + h U + c): Elman 1990."""
    (h,) = state
    p, q, back = affine(x, h, parameters)
    new = np.tanh(p + q)

    def stage_gradients(dstate):
        (dnew,) = dstate
        return {"new_state": dnew, "preactivation": dnew * (1 - new**2)}

    @_with_stages(stage_gradients, preactivation=p + q, new_state=new)
    def pullback(dstate):
        da = stage_gradients(dstate)["preactivation"]
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
    a_r, a_z = p_r + q_r, p_z + q_z
    r, z = sigmoid(a_r), sigmoid(a_z)
    a_n = p_n + r * q_n
    n = np.tanh(a_n)
    new = (1 - z) * n + z * h

    def stage_gradients(dstate):
        (dnew,) = dstate
        dn, dz = dnew * (1 - z), dnew * (h - n)
        da_n = dn * (1 - n**2)
        dr = da_n * q_n
        return {
            "new_state": dnew,
            "candidate": dn,
            "candidate_preactivation": da_n,
            "state_product": da_n * r,
            "update_gate": dz,
            "update_preactivation": dz * z * (1 - z),
            "reset_gate": dr,
            "reset_preactivation": dr * r * (1 - r),
        }

    @_with_stages(
        stage_gradients,
        reset_preactivation=a_r,
        reset_gate=r,
        update_preactivation=a_z,
        update_gate=z,
        state_product=q_n,
        candidate_preactivation=a_n,
        candidate=n,
        new_state=new,
    )
    def pullback(dstate):
        at = stage_gradients(dstate)
        gates = [at["reset_preactivation"], at["update_preactivation"]]
        dp = np.concatenate([*gates, at["candidate_preactivation"]], axis=-1)
        dq = np.concatenate([*gates, at["state_product"]], axis=-1)
        dx, dh, dparameters = back(dp, dq)
        return dx, (dh + at["new_state"] * z,), dparameters

    return (new,), pullback


def lstm_step(x, state, parameters):
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    i, f, o = sigmoid(p + q)    g = tanh(p_g + q_g)    c' = f c + i g    h' = o tanh(c')
    """
    h, c = state
    p, q, back = affine(x, h, parameters)
    a_i, a_f, a_g, a_o = np.split(p + q, 4, axis=-1)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c_new = f * c + i * g
    h_new = o * np.tanh(c_new)

    def stage_gradients(dstate):
        dh_new, dc_new = dstate
        dc_new = dc_new + dh_new * o * (1 - np.tanh(c_new) ** 2)
        di, df, dg, do = dc_new * g, dc_new * c, dc_new * i, dh_new * np.tanh(c_new)
        return {
            "new_state": dh_new,
            "output_gate": do,
            "new_cell_state": dc_new,
            "cell_input": dg,
            "forget_gate": df,
            "input_gate": di,
            "output_preactivation": do * o * (1 - o),
            "cell_preactivation": dg * (1 - g**2),
            "forget_preactivation": df * f * (1 - f),
            "input_preactivation": di * i * (1 - i),
        }

    @_with_stages(
        stage_gradients,
        input_preactivation=a_i,
        forget_preactivation=a_f,
        cell_preactivation=a_g,
        output_preactivation=a_o,
        input_gate=i,
        forget_gate=f,
        cell_input=g,
        output_gate=o,
        new_cell_state=c_new,
        new_state=h_new,
    )
    def pullback(dstate):
        at = stage_gradients(dstate)
        sides = "input", "forget", "cell", "output"
        da = np.concatenate([at[f"{side}_preactivation"] for side in sides], axis=-1)
        dx, dh, dparameters = back(da, da)
        return dx, (dh, at["new_cell_state"] * f), dparameters

    return (h_new, c_new), pullback


STEPS = {"rnn": (rnn_step, 1), "gru": (gru_step, 1), "lstm": (lstm_step, 2)}  # arrays of the state


# ---- Sequences -----------------------------------------------------------------------------------


def direction(step, x, state, parameters, lengths, reverse):
    """One cell over a sequence: outputs (B, T, H), last state. A padded step moves no state."""
    T, H = x.shape[1], state[0].shape[1]
    order = list(reversed(range(T))) if reverse else list(range(T))
    outputs, tape = [None] * T, {}
    for t in order:
        here = (t < lengths)[:, None]
        # Padding is not read: where it stands may be NaN.
        new, back = step(np.where(here, x[:, t], 0), state, parameters)
        outputs[t] = np.where(here, new[0], 0)
        state = tuple(np.where(here, a, b) for a, b in zip(new, state, strict=True))
        tape[t] = here, back

    def pullback(doutputs, dstate):
        dx, dparameters = [None] * T, [np.zeros_like(p) for p in parameters]
        for t in reversed(order):
            here, back = tape[t]
            dnew = [np.where(here, d, 0) for d in dstate]
            dnew[0] = dnew[0] + np.where(here, doutputs[:, t], 0)
            dx[t], dbefore, down = back(dnew)
            dstate = [np.where(here, a, b) for a, b in zip(dbefore, dstate, strict=True)]
            dparameters = [a + b for a, b in zip(dparameters, down, strict=True)]
        return over_time(dx, x), dstate, dparameters

    return over_time(outputs, state[0][:, None, :H]), state, pullback


def over_time(steps, like):
    """Arrays (B, n) of every step as (B, T, n); of no step as `like` says, which has this n."""
    return np.stack(steps, axis=1) if steps else np.zeros_like(like[:, :0])


def _parts(state, shapes, dtype):
    """The arrays of a state; zeros for what is not given."""
    one = len(shapes) == 1 or not isinstance(state, (tuple, list))
    given = () if state is None else (state,) if one else state
    given = [*given, *[None] * (len(shapes) - len(given))]
    return [
        np.zeros(shape, dtype) if array is None else asarray(array, dtype)
        for array, shape in zip(given, shapes, strict=True)
    ]


def _joined(arrays):
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _recurrent(
    kind, x, parameters, state=None, lengths=None, *, bidirectional=False, dropout=0.0, rng=None,
    dtype=np.float64,
):  # fmt: skip
    step, count = STEPS[kind]
    given, x = state, asarray(x, dtype)
    cells = [[asarray(p, dtype) for p in parameters[k : k + 4]]
             for k in range(0, len(parameters), 4)]  # fmt: skip
    B, T, _ = x.shape
    H, directions = cells[0][1].shape[0], 1 + bidirectional
    shapes = [(len(cells), B, H)] * count
    state = _parts(state, shapes, dtype)
    lengths = np.full(B, T) if lengths is None else np.broadcast_to(np.asarray(lengths, int), B)
    rows, final, tape = x, [], []
    rng = np.random.default_rng(rng) if dropout else None
    for k in range(0, len(cells), directions):
        kept = dtype(1)  # what dropout multiplies by, between layers
        if dropout and k:
            kept = (rng.random(rows.shape, dtype) >= dropout) * dtype(1 / (1 - dropout))
        rows = rows * kept
        sides = [
            direction(step, rows, tuple(s[k + d] for s in state), cells[k + d], lengths, d == 1)
            for d in range(directions)
        ]
        rows = np.concatenate([outputs for outputs, _, _ in sides], axis=-1)
        final += [last for _, last, _ in sides]
        tape.append((kept, [back for _, _, back in sides]))
    last = [np.stack(arrays) for arrays in zip(*final, strict=True)]

    def pullback(doutputs=None, dstate=None):
        d = np.zeros(rows.shape, dtype) if doutputs is None else asarray(doutputs, dtype)
        dlast = _parts(dstate, shapes, dtype)
        dfirst, dparameters = [None] * len(cells), [None] * len(cells)
        for layer in reversed(range(len(tape))):
            kept, backs = tape[layer]
            below = 0
            for side, back in enumerate(backs):
                k = layer * directions + side
                own = d[..., side * H : (side + 1) * H]
                dx, dfirst[k], dparameters[k] = back(own, [s[k] for s in dlast])
                below = below + dx
            d = below * kept
        dparameters = tuple(array for cell in dparameters for array in cell)
        gradients = {"x": d, "parameters": dparameters}
        if given is not None:
            dstates = [np.stack(arrays) for arrays in zip(*dfirst, strict=True)]
            gradients["state"] = _joined(dstates)
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
    dropout: float = 0.0,
    rng: Any = None,
    dtype: Any = np.float64,
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
    dropout, rng
        Of the outputs between layers.
    dtype : type
        What to compute in.

    Returns
    -------
    outputs (B, T, directions * H), and the last state.
    """
    return _recurrent(
        "rnn", x, parameters, state, lengths,
        bidirectional=bidirectional, dropout=dropout, rng=rng, dtype=dtype,
    )  # fmt: skip


@differentiable
def gru(
    x: Real,
    parameters: Sequence[Real],
    state: Any = None,
    lengths: Integers | None = None,
    *,
    bidirectional: bool = False,
    dropout: float = 0.0,
    rng: Any = None,
    dtype: Any = np.float64,
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
    dropout, rng
        Of the outputs between layers.
    dtype : type
        What to compute in.

    Returns
    -------
    outputs (B, T, directions * H), and the last state.
    """
    return _recurrent(
        "gru", x, parameters, state, lengths,
        bidirectional=bidirectional, dropout=dropout, rng=rng, dtype=dtype,
    )  # fmt: skip


@differentiable
def lstm(
    x: Real,
    parameters: Sequence[Real],
    state: Any = None,
    lengths: Integers | None = None,
    *,
    bidirectional: bool = False,
    dropout: float = 0.0,
    rng: Any = None,
    dtype: Any = np.float64,
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
    dropout, rng
        Of the outputs between layers.
    dtype : type
        What to compute in.

    Returns
    -------
    outputs (B, T, directions * H), and the last state.
    """
    return _recurrent(
        "lstm", x, parameters, state, lengths,
        bidirectional=bidirectional, dropout=dropout, rng=rng, dtype=dtype,
    )  # fmt: skip


# ---- How a step of the decoder attends -----------------------------------------------------------
#
# Each of the following returns ``attend(top, carried, t)``: the context (B, M) and the weights
# (B, Tk) of the states (B, H) that ask at step t, what it hands on to the next step, such as the
# coverage, and the way back, from the gradients of these three to those of `top` and of `carried`,
# and to those of parameters and memory by name.


def fixed(memory, allowed, dtype):
    """No attention: the last valid step of the memory, or 0 where there is none."""
    Tk = memory.shape[1]
    last = allowed & (np.cumsum(allowed[:, ::-1], axis=1)[:, ::-1] == 1)
    weights = last.astype(dtype)

    def attend(top, carried, t):
        context = (weights[..., None] * memory).sum(axis=1) if Tk else memory.sum(axis=1)

        @_with_stages(None, weights=weights, context=context)
        def pullback(dcontext, dweights, dcarried, seen=None):
            dmemory = weights[..., None] * dcontext[:, None]
            if seen is not None:
                seen |= {"context": dcontext, "value": dmemory}
            return np.zeros_like(top), dcarried, {"memory": dmemory}

        return context, weights, carried, pullback

    return attend


def scorer(attention, named, dtype, chunk=""):
    """The functions of `attention` that score, their arguments besides query and key, and the
    weight outside them that multiplies the query: the multiplicative score is a dot product."""
    if attention == "additive":
        weights = {n: named[chunk + n] for n in ("query_weight", "key_weight")}
        functions = additive_attention, additive_scores
        return functions, {"score_vector": named[chunk + "score_vector"], **weights}, None
    if attention == "cosine":
        return (cosine_attention, cosine_scores), {"scale": named["scale"]}, None
    outside = chunk + "weight" if attention == "multiplicative" else None
    return (dot_product_attention, dot_product_scores), {"scale": dtype(1)}, outside


def projected(top, named, outside):
    """The query, and the way back to the states and the weight."""

    def pullback(dquery):
        if outside is None:
            return dquery, {}
        return dquery @ named[outside].T, {outside: top.T @ dquery}

    return (top if outside is None else top @ named[outside]), pullback


def soft(attention, named, memory, allowed, rate, center, options, dtype):
    """A softmax over the keys; with a coverage, whose weights count `rate` for it, and local."""
    (function, _), arguments, outside = scorer(attention, named, dtype)
    inside, u = "coverage_vector" in named, named.get("coverage_weight", dtype(0))
    covers = inside or "coverage_weight" in named
    options = options | {"key_mask": allowed, "return_weights": True, "dtype": dtype}
    if inside:
        key_weight = arguments.pop("key_weight")

    def attend(top, carried, t):
        query, back_query = projected(top, named, outside)
        key, own = memory, {}
        if inside:
            key = memory @ key_weight + carried[..., None] * named["coverage_vector"]
        elif covers:
            own["bias"] = (u * carried)[:, None]
        place, back_place = center(top, t)
        if place is not None:
            own["center"] = place[:, None]
        (context, weights), back = vjp(
            function, query[:, None], key, memory, **arguments, **own, **options
        )
        weights = weights[:, 0]
        shown = {name: _of_query(name, x) for name, x in back.stages.items()}
        if outside is not None:
            shown["projected_query"] = query
        if inside:
            shown["projected_key"] = key
        if place is not None:
            shown |= getattr(back_place, "stages", {}) | {"center": place[:, None]}
        if covers:
            shown["new_coverage"] = carried + weights * rate

        @_with_stages(None, **shown)
        def pullback(dcontext, dweights, dcarried, seen=None):
            found, incoming = {}, dcarried
            if covers:  # carried + weights * rate
                dweights = dweights + dcarried * rate
                found["rate"] = dcarried * weights
            d = vars(back(dcontext[:, None], dweights=dweights[:, None]))
            dtop, of_query = back_query(d["query"][:, 0])
            found |= of_query | {n: d[n] for n in arguments if n in d}
            dkey = d["key"]
            if seen is not None:
                at = back.stage_gradients(dcontext[:, None], dweights[:, None])
                seen |= {name: _of_query(name, x) for name, x in at.items() if name != "sinks"}
                seen |= {"new_coverage": incoming, "value": d["value"], "query": dtop}
                seen["projected_query"] = seen.get("projected_query", d["query"][:, 0])
                seen["projected_key"] = seen.get("projected_key", dkey)
            if inside:
                found["coverage_vector"] = np.einsum("bja,bj->a", dkey, carried)
                found["key_weight"] = np.einsum("bjm,bja->ma", memory, dkey)
                dcarried = dcarried + dkey @ named["coverage_vector"]
                dkey = dkey @ key_weight.T
            elif covers:
                found["coverage_weight"] = (d["bias"][:, 0] * carried).sum()
                dcarried = dcarried + u * d["bias"][:, 0]
            found["memory"] = dkey + d["value"]
            if seen is not None:
                seen["key"] = dkey
            if back_place is not None:
                more, of_place = back_place(d["center"][:, 0], seen)
                dtop, found = dtop + more, found | of_place
                if seen is not None:
                    seen["query"] = dtop
            return dtop, dcarried, found

        return context[:, 0], weights, (carried + weights * rate if covers else carried), pullback

    return attend


def _of_query(name, x):
    """A stage of the only query; those of keys have no axis of queries."""
    return x if name in ("projected_key", "key_direction") else x[:, 0]


def centers(window, steps, named, allowed, dtype):
    """``center(top, t)``: where the window of step t is (B,), in float64, or None, and the way back
    to the states and the parameters: Luong et al. 2015, section 3.2. `steps` (B, 1): how many there
    were before; None: the place is predicted."""
    if window is None:
        return lambda top, t: (None, None)
    if steps is not None:
        return lambda top, t: (value_of(steps)[:, 0].astype(float) + t, None)
    last = (allowed * np.arange(allowed.shape[1], dtype=float)).max(axis=1, initial=0)

    def predicted(top, t):
        hidden = np.tanh(top @ named["position_weight"])
        place = sigmoid(hidden.astype(float) @ named["position_vector"].astype(float))

        @_with_stages(None, position_units=hidden)
        def pullback(dcenter, seen=None):
            dx = (dcenter * last * place * (1 - place)).astype(dtype)
            dunits = dx[:, None] * named["position_vector"]
            dhidden = dunits * (1 - hidden**2)
            if seen is not None:
                seen |= {"center": dcenter[:, None], "position_units": dunits}
            return dhidden @ named["position_weight"].T, {
                "position_vector": dx @ hidden,
                "position_weight": top.T @ dhidden,
            }

        return last * place, pullback

    return predicted


def aligned(attention, named, memory, allowed, chunk_width, noise, dtype):
    """Monotonic attention: `carried` is where the queries before stopped. With a width above the
    chunks that end there are attended to."""
    (_, function), arguments, outside = scorer(attention, named, dtype)
    options = {"key_mask": allowed, "dtype": dtype}
    vector, length = arguments.get("score_vector"), None
    if attention == "additive":
        if "score_bias" in named:
            arguments["score_bias"] = named["score_bias"]
        if "energy_gain" in named:  # g v / |v|
            squares = (vector * vector).sum()
            length = np.sqrt(np.where(squares == 0, np.inf, squares))
            arguments["score_vector"] = named["energy_gain"] * (vector / length)
    chunk = None
    if chunk_width and attention in ("additive", "multiplicative"):
        chunk = scorer(attention, named, dtype, "chunk_")

    def scores_of(function, arguments, outside, top, chunk=""):
        query, back_query = projected(top, named, outside)
        scores, back = vjp(function, query[:, None], memory, **arguments, **options)

        def pullback(dscores):
            d = vars(back(dscores[:, None]))
            dtop, found = back_query(d["query"][:, 0])
            found |= {chunk + n: d[n] for n in arguments if n in d}
            return dtop, found | {"memory": d["key"]}

        return scores[:, 0], pullback

    def attend(top, carried, t):
        scores, back_scores = scores_of(function, arguments, outside, top)
        energies = scores + named.get("energy_offset", dtype(0))
        stop = sigmoid(energies if noise is None else energies + noise[:, t])
        (alignment, _), back_alignment = vjp(monotonic_alignment, stop[:, None], carried, **options)
        chunk_scores, back_chunk = scores, None
        if chunk is not None:
            (_, of_chunk), own, weight = chunk
            chunk_scores, back_chunk = scores_of(of_chunk, own, weight, top, "chunk_")
        width = chunk_width or 1
        (context, weights), back = vjp(
            chunkwise_attention, alignment, chunk_scores[:, None], memory, width,
            return_weights=True, **options,
        )  # fmt: skip

        @_with_stages(None)
        def pullback(dcontext, dweights, dcarried, seen=None):
            dalignment, dchunk, dvalue = back(dcontext[:, None], dweights=dweights[:, None])
            dstop, dbefore = vars(back_alignment(dalignment + dcarried[:, None])).values()
            dscores = (dstop * stop[:, None] * (1 - stop[:, None]))[:, 0]
            offset = {"energy_offset": dscores.sum()} if "energy_offset" in named else {}
            if chunk is None and chunk_width:
                dscores = dscores + dchunk[:, 0]
            dtop, found = back_scores(dscores)
            if length is not None:
                along = (found["score_vector"] * vector).sum() / length
                across = found["score_vector"] - along * (vector / length)
                found["energy_gain"] = along
                found["score_vector"] = named["energy_gain"] * across / length
            if chunk is not None:
                more, of_chunk = back_chunk(dchunk[:, 0])
                dtop, dvalue = dtop + more, dvalue + of_chunk.pop("memory")
                found |= of_chunk
            found["memory"] = found["memory"] + dvalue
            return dtop, dbefore, found | offset

        return context[:, 0], weights[:, 0], alignment[:, 0], pullback

    return attend


# ---- The attention decoder -----------------------------------------------------------------------


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
    window: int | None = None,
    position: str = "monotonic",
    renormalize: bool = False,
    alignment: str = "soft",
    chunk_width: int | None = None,
    noise: Real | None = None,
    hard: bool = False,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
    dtype: Any = np.float64,
    **named: Any,
) -> Any:
    """Recurrent decoder that attends to a memory::

        bahdanau    c_t = attention(s_(t-1))    s_t = cell([y_t; c_t], s_(t-1))    output s_t
        luong       s_t = cell([y_t; o_(t-1)], s_(t-1))    c_t = attention(s_t)
                    output o_t = tanh([c_t; s_t] W_c)      o_(t-1) with input feeding only

    With a coverage_weight u, u times the coverage C, the sum of the weights so far, is added to the
    scores; with a coverage_vector w, C w is added inside the tanh. With a fertility_vector U_f a
    weight of key j counts for C what it is of max_fertility sigmoid(h_j . U_f).

    Parameters
    ----------
    inputs, memory : arrays (B, T, E), (B, Tk, M)
    cells : sequence of arrays
        W, U, b, c of every layer.
    state : array (layers, B, H), or a tuple that begins with it, optional
    cell, attention, order, input_feeding, max_fertility, window, position, renormalize, alignment
        As in `attnc.functional.attention_decoder`.
    chunk_width, noise, key_mask, key_lengths
        As there.
    hard : bool
        Not here: a choice has no gradient.
    dtype : type
        What to compute in.
    **named
        The other parameters, as in `attnc.functional.attention_decoder`.

    Returns
    -------
    outputs (B, T, H), weights (B, T, Tk), and the last state.
    """
    step, count = STEPS[cell]
    bahdanau, given = order == "bahdanau", state
    inputs, memory = asarray(inputs, dtype), asarray(memory, dtype)
    layers = [[asarray(p, dtype) for p in cells[k : k + 4]] for k in range(0, len(cells), 4)]
    named = {name: asarray(array, dtype) for name, array in named.items() if array is not None}
    B, T, E = inputs.shape
    Tk, M = memory.shape[1:]
    L, H = len(layers), layers[0][1].shape[0]

    allowed = np.ones((B, Tk), bool) if key_mask is None else np.broadcast_to(key_mask, (B, Tk))
    if key_lengths is not None:
        lengths = np.broadcast_to(np.asarray(key_lengths, int), B)
        allowed = allowed & (np.arange(Tk) < lengths[:, None])
    memory = np.where(allowed[..., None], memory, 0)
    rate, needed = dtype(1), None
    if "fertility_vector" in named:
        needed = sigmoid(memory @ named["fertility_vector"])
        rate = 1 / (dtype(max_fertility) * needed)
    covers = "coverage_vector" in named or "coverage_weight" in named
    counts = window is not None and position == "monotonic"
    carries = covers or alignment != "soft"
    shapes = [(L, B, H)] * count + [(B, H)] * input_feeding + [(B, Tk)] * carries
    shapes += [(B, 1)] * counts
    parts = _parts(state, shapes, dtype)
    states = [tuple(part[layer] for part in parts[:count]) for layer in range(L)]
    feed = parts[count] if input_feeding else np.zeros((B, 0), dtype)
    carried = parts[count + input_feeding] if carries else np.zeros((B, Tk), dtype)
    begins = alignment != "soft" and (not isinstance(state, tuple) or state[-1] is None)
    if begins or alignment != "soft" and len(state) < len(shapes):
        carried[:, :1] = 1  # the first query begins at the first key
    steps = parts[-1] if counts else None
    if attention == "none":
        fed = layers[0][0].shape[0] - E if bahdanau else named["readout_weight"].shape[0] - H
        M = M if fed else 0
        attend = fixed(memory[..., :M], allowed, dtype)
    elif alignment == "soft":
        local = {}
        if window is not None:
            sigma = np.inf if position == "monotonic" else window / 2
            local = {"window": (window, window), "sigma": sigma, "renormalize": renormalize}
        center = centers(window, steps, named, allowed, dtype)
        attend = soft(attention, named, memory, allowed, rate, center, local, dtype)
    else:
        width = (chunk_width or 2) if alignment == "chunkwise" else None
        noise = None if noise is None else asarray(noise, dtype)
        attend = aligned(attention, named, memory, allowed, width, noise, dtype)

    outputs, all_weights, tape = [], [], []
    for t in range(T):
        top, context = states[-1][0], np.zeros((B, 0), dtype)
        if bahdanau:
            context, weights, carried, back_attend = attend(top, carried, t)
        x, backs = np.concatenate([inputs[:, t], context, feed], axis=-1), []
        shown = {"x": x, "before": list(states), "fertility": 1 / rate}
        for layer, parameters in enumerate(layers):
            states[layer], back = step(x, states[layer], parameters)
            x = states[layer][0]
            backs.append(back)
        both = None
        if not bahdanau:
            context, weights, carried, back_attend = attend(x, carried, t)
            both = np.concatenate([context, x], axis=-1)
            x = np.tanh(both @ named["readout_weight"])
            feed = x if input_feeding else feed
        outputs.append(x)
        all_weights.append(weights)
        shown |= back_attend.stages | {"cells": [back.stages for back in backs], "output": x}
        tape.append((backs, back_attend, both, shown))
    last = [np.stack(arrays) for arrays in zip(*states, strict=True)]
    last += [feed] * input_feeding + [carried] * carries + [parts[-1] + T] * counts

    def through_time(doutputs=None, dweights=None, dstate=None, seen=None):
        """`seen` gets the gradients of the stages of each step."""
        dout = np.zeros((B, T, H), dtype) if doutputs is None else asarray(doutputs, dtype)
        dall = np.zeros((B, T, Tk), dtype) if dweights is None else asarray(dweights, dtype)
        d = _parts(dstate, shapes, dtype)
        dstates = [[part[layer] for part in d[:count]] for layer in range(L)]
        dfeed = d[count] if input_feeding else np.zeros((B, H), dtype)
        dcarried = d[count + input_feeding] if carries else np.zeros((B, Tk), dtype)
        dinputs = [None] * T
        dcells = [[np.zeros_like(p) for p in parameters] for parameters in layers]
        found = {name: np.zeros_like(array) for name, array in named.items()}
        found |= {"memory": np.zeros_like(memory), "rate": dtype(0)}

        def through_attention(back, dcontext, t, at):
            nonlocal dcarried
            dtop, dcarried, down = back(dcontext, dall[:, t], dcarried, at)
            if attention == "none":
                rest = np.zeros_like(memory[..., M:])
                down["memory"] = np.concatenate([down["memory"], rest], axis=-1)
            for name, gradient in down.items():
                found[name] = found[name] + gradient
            return dtop

        for t in reversed(range(T)):
            backs, back_attend, both, _ = tape[t]
            dx, at = dout[:, t], None if seen is None else {"cells": {}}
            if not bahdanau:
                if seen is not None:
                    at["output"] = dx + dfeed
                dsum = (dx + dfeed) * (1 - outputs[t] ** 2)
                found["readout_weight"] = found["readout_weight"] + both.T @ dsum
                dboth = dsum @ named["readout_weight"].T
                dx = dboth[:, M:] + through_attention(back_attend, dboth[:, :M], t, at)
            for layer in reversed(range(L)):
                dstates[layer][0] = dstates[layer][0] + dx
                if seen is not None:
                    at["cells"][layer] = backs[layer].stage_gradients(dstates[layer])
                dx, dbefore, down = backs[layer](dstates[layer])
                if seen is not None:
                    at["cells"][layer]["x"] = dx
                dstates[layer] = list(dbefore)
                dcells[layer] = [a + b for a, b in zip(dcells[layer], down, strict=True)]
            dinputs[t] = dx[:, :E]
            if bahdanau:
                dtop = through_attention(back_attend, dx[:, E:], t, at)
                dstates[-1][0] = dstates[-1][0] + dtop
            elif input_feeding:
                dfeed = dx[:, E:]
            if seen is not None:
                seen[t] = at
        dfirst = [np.stack(arrays) for arrays in zip(*dstates, strict=True)]
        dfirst += [dfeed] * input_feeding + [dcarried] * carries + [d[-1]] * counts
        drate = found.pop("rate")
        if "fertility_vector" in named:
            if seen:
                seen[0]["fertility"] = -drate * rate * rate
            dx = -drate * rate * (1 - needed)
            found["fertility_vector"] = np.einsum("bj,bjm->m", dx, memory)
            found["memory"] = found["memory"] + dx[..., None] * named["fertility_vector"]
        dmemory = np.where(allowed[..., None], found.pop("memory"), 0)
        dcells = tuple(array for layer in dcells for array in layer)
        gradients = {"inputs": over_time(dinputs, inputs), "memory": dmemory, "cells": dcells}
        if given is not None:
            size = len(given) if isinstance(given, tuple) else 1
            gradients["state"] = _joined(dfirst[:size])
        return Gradients(gradients | found, ("inputs", "memory", "cells"))

    def pullback(doutputs=None, dweights=None, dstate=None):
        return through_time(doutputs, dweights, dstate)

    # For `attnc.stages`, which shows one step.
    @np.errstate(all="ignore")
    def stage_gradients(doutputs=None, dweights=None, dstate=None):
        """The gradients of the stages of each step, and of the arguments."""
        seen = {}
        return seen, through_time(doutputs, dweights, dstate, seen)

    with_stages: Any = pullback
    with_stages.stages = [shown for *_, shown in tape]
    with_stages.allowed = allowed
    with_stages.stage_gradients = stage_gradients
    like = states[-1][0][:, None]
    outputs_over_time = over_time(outputs, like)
    weights_over_time = np.stack(all_weights, axis=1) if T else np.zeros((B, 0, Tk), dtype)
    return (outputs_over_time, weights_over_time, _joined(last)), pullback

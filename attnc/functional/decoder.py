"""A recurrent decoder that attends to a memory at every step: the public function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attnc.arrays import (
    boolean_mask,
    computing_dtype,
    contiguous,
    flag,
    integer,
    integer_lengths,
    like,
    number,
    quiet,
    real_array,
)
from attnc.functional.decoder_run import (
    SCORES,
    Decoder,
    DecoderOutput,
    PreparedMemory,
    Run,
    fitting,
    state_shapes,
)
from attnc.functional.plain import by_formula
from attnc.functional.recurrent import CELLS, PARAMETERS, joined, nothing
from attnc.functional.shapes import shape_of
from attnc.gradients import require_incoming
from attnc.registry import Output, parted, register, together
from attnc.typing import Bools, Integers, Real, State

__all__ = ["attention_decoder"]


def attention_decoder(
    inputs: Real,
    memory: Real,
    cells: Sequence[Sequence[Real]],
    state: State | None = None,
    *,
    cell: str = "gru",
    attention: str = "additive",
    order: str = "bahdanau",
    input_feeding: bool = False,
    query_weight: Real | None = None,
    key_weight: Real | None = None,
    score_vector: Real | None = None,
    weight: Real | None = None,
    scale: Real | None = None,
    coverage_weight: Real | None = None,
    coverage_vector: Real | None = None,
    fertility_vector: Real | None = None,
    max_fertility: float = 2.0,
    window: int | None = None,
    position: str = "monotonic",
    position_weight: Real | None = None,
    position_vector: Real | None = None,
    renormalize: bool = False,
    readout_weight: Real | None = None,
    alignment: str = "soft",
    chunk_width: int | None = None,
    energy_gain: Real | None = None,
    energy_offset: Real | None = None,
    score_bias: Real | None = None,
    chunk_query_weight: Real | None = None,
    chunk_key_weight: Real | None = None,
    chunk_score_vector: Real | None = None,
    chunk_weight: Real | None = None,
    noise: Real | None = None,
    hard: bool = False,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
) -> DecoderOutput:
    """Recurrent decoder that attends to a memory at every step, over whole sequences of inputs.

    With s_t the state h of the top layer, y_t the input of step t and c_t the context attended from
    the memory: for ``order="bahdanau"`` ::

        c_t = attention(s_(t-1), memory)      s_t = cell([y_t; c_t], s_(t-1))      output s_t

    and for ``order="luong"``, where with `input_feeding` the cell takes ``[y_t; o_(t-1)]`` ::

        s_t = cell(y_t, s_(t-1))      c_t = attention(s_t, memory)
        output o_t = tanh([c_t; s_t] W_c)

    Bahdanau et al. 2015, "Neural machine translation by jointly learning to align and translate",
    appendix A.2.2; Luong et al. 2015, "Effective approaches to attention-based neural machine
    translation", eq. 5 and section 3.3.

    Parameters
    ----------
    inputs : array_like
        ``(B, T, E)``: the previous word's vector at every step.
    memory : array_like
        ``(B, Tk, M)``, such as the outputs of an encoder.
    cells : sequence of array_like
        Four arrays a layer, as `gru` takes them. The rows of the first `input_weight` belong to
        the input and then to what is fed: the context, or Luong's output.
    state : array_like, optional
        ``(layers, B, H)``: initial state, for the LSTM a pair (h, c); zeros unless given. What else
        a step needs of the one before may follow, as calls return it: with input feeding the output
        fed first, ``(B, H)``; with coverage the coverage so far, ``(B, Tk)``; with a monotonic
        window how many steps there were, ``(B, 1)``; of an alignment that is not soft where the
        query before stopped, ``(B, Tk)``, else at the first key.
    cell : {'gru', 'lstm', 'rnn'}
    attention : {'additive', 'multiplicative', 'dot', 'cosine', 'none'}
        'none' is the baseline of a fixed vector: for a context every query gets the memory's last
        valid step, or nothing if the weights have no rows for it.
    order : {'bahdanau', 'luong'}
    input_feeding : bool, default False
        For the order 'luong'.
    query_weight, key_weight, score_vector : array_like
        ``(H, A)``, ``(M, A)`` and ``(A,)``, for the attention 'additive'.
    weight : array_like
        ``(H, M)``, for 'multiplicative'.
    scale : array_like
        A number, for 'cosine'.
    coverage_weight : array_like, optional
        A number u: ``u * C_(t-1)j`` is added to the score of key j at step t, with the coverage
        ``C_tj = C_(t-1)j + a_tj``, the sum of the weights that the steps so far gave the key; so
        that words are not translated twice or left out (after Tu et al. 2016, "Modeling coverage
        for neural machine translation").
    coverage_vector : array_like, optional
        ``(A,)``: the coverage is inside the tanh of the score, which must be 'additive':
        ``e_tj = v . tanh(s W_q + h_j W_k + C_(t-1)j coverage_vector)`` (See, Liu and Manning 2017,
        "Get to the point: summarization with pointer-generator networks", eq. 11). In place of
        coverage_weight.
    fertility_vector : array_like, optional
        ``(M,)``, beside a coverage_weight: a weight counts for the coverage what it is of the
        fertility of its key, ``C_tj = C_(t-1)j + a_tj / Phi_j`` with ``Phi_j = max_fertility *
        sigmoid(h_j . fertility_vector)``, how much attention step j of the memory is expected to
        need: the linguistic coverage of Tu et al. 2016. Their coverage enters a tanh, as
        coverage_vector does; here it is added to any score, times coverage_weight.
    max_fertility : float, default 2.0
        Above 0; theirs is 2.
    window : int, optional
        Local attention (Luong et al. 2015, section 3.2): step t attends to the keys
        ``floor(p_t) - window <= j <= floor(p_t) + window`` alone, at a cost that depends on that.
    position : {'monotonic', 'predictive'}
        Where the window is, p_t. 'monotonic': at the number of the step, which the state counts.
        'predictive': ``p_t = (S - 1) sigmoid(position_vector . tanh(s W_p))``, s the state that
        asks, among the S keys up to the last that the masks allow; and weights are multiplied by
        ``exp(-(j - p_t)^2 / (2 sigma^2))``, sigma half of the window. See `LocalAttention`.
    position_weight, position_vector : array_like
        ``(H, P)``, W_p, and ``(P,)``, for the position 'predictive'.
    renormalize : bool, default False
        For 'predictive': the Gaussian is part of the softmax, and weights sum to 1.
    readout_weight : array_like
        ``(M + H, H)``: Luong's W_c, for the order 'luong'.
    alignment : {'soft', 'monotonic', 'chunkwise'}
        'soft': a softmax over all keys. 'monotonic': a query begins at the key where the one before
        it stopped, and stops at key j with the probability ``sigmoid(score_tj + energy_offset +
        noise_tj)``; the weights are the probabilities to stop there, all ways summed up, as
        `attnc.monotonic_alignment` has them (Raffel et al. 2017, "Online and linear-time attention
        by enforcing monotonic alignments"). 'chunkwise': it attends by softmax to the chunk_width
        keys that end there, see `attnc.chunkwise_attention` (Chiu and Raffel 2018, "Monotonic
        chunkwise attention"). Weights may sum to less than 1: a query can pass all keys.
    chunk_width : int, optional
        For 'chunkwise': keys of a chunk, 2 unless given.
    energy_gain : array_like, optional
        A number g: in the energies of the attention 'additive' the score_vector v becomes
        ``g v / |v|``.
    energy_offset : array_like, optional
        A number r, added to the scores that decide where to stop.
    score_bias : array_like, optional
        ``(A,)``, inside the tanh of the energies.
    chunk_query_weight, chunk_key_weight, chunk_score_vector, chunk_weight : array_like
        For 'chunkwise', shaped as those without "chunk": the scores inside a chunk. 'dot' and
        'cosine' have none: there the softmax is over the scores of the energies.
    noise : array_like, optional
        ``(B, T, Tk)``, added to the energies in training, so that they learn to be sure: from the
        standard normal distribution in the paper. A constant.
    hard : bool, default False
        To decode: stop at the first key, from the last one on, whose probability is 0.5 or more.
        Its weight is 1, or its chunk's softmax; keys behind it are not looked at, so that the
        energies of all steps take time linear in keys and steps. If there is none, weights and
        context are 0, then and ever after, as in training. It has no gradient.
    key_mask : array_like of bool, optional
        ``(B, Tk)``, True where the memory may be attended to.
    key_lengths : int or array_like of int, optional
        ``(B,)``: valid steps of each memory; both masks intersect. What is masked is not read.

    Returns
    -------
    outputs : ndarray
        ``(B, T, H)``.
    weights : ndarray
        ``(B, T, Tk)``: attention weights, the alignment. For 'none': 1 at the last valid step. For
        'chunkwise' those of the chunks.
    state : ndarray
        ``(layers, B, H)`` after the last step; a tuple for the LSTM, with input feeding, with
        coverage and with an alignment that is not soft.

    Raises
    ------
    TypeError
        If an array is not real, a mask not boolean or input_feeding not a bool. From the pullback:
        if it is called without any incoming gradient.
    ValueError
        If shapes do not fit, a parameter is missing or is not one of the chosen attention.

    See Also
    --------
    attnc.vjp : ``dinputs, dmemory, dcells = pullback(doutputs, dweights, dstate)``, and by name the
        gradients of `state` and of all parameters that were passed
    attnc.AttentionDecoder : the layer

    Notes
    -----
    float32 and float64 are each computed in themselves, narrower floats in float32, and outputs of
    these are float32 too: a state has counts and sums, which go on from call to call and would lose
    their digits.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> rng = np.random.default_rng(0)
    >>> shapes = [(4 + 6, 3 * 8), (8, 3 * 8), (3 * 8,), (3 * 8,)]
    >>> cells = [rng.standard_normal(shape) for shape in shapes]
    >>> outputs, weights, state = attnc.functional.attention_decoder(
    ...     np.ones((2, 3, 4)), np.ones((2, 5, 6)), cells, attention="multiplicative",
    ...     weight=np.ones((8, 6)), key_lengths=[5, 4],
    ... )
    >>> outputs.shape, weights.shape
    ((2, 3, 8), (2, 3, 5))
    """
    return _Call(
        inputs, memory, cells, state, cell=cell, attention=attention, order=order,
        input_feeding=input_feeding, query_weight=query_weight, key_weight=key_weight,
        score_vector=score_vector, weight=weight, scale=scale, coverage_weight=coverage_weight,
        coverage_vector=coverage_vector, fertility_vector=fertility_vector,
        max_fertility=max_fertility, window=window, position=position,
        position_weight=position_weight, position_vector=position_vector,
        renormalize=renormalize, readout_weight=readout_weight, alignment=alignment,
        chunk_width=chunk_width, energy_gain=energy_gain, energy_offset=energy_offset,
        score_bias=score_bias, chunk_query_weight=chunk_query_weight,
        chunk_key_weight=chunk_key_weight, chunk_score_vector=chunk_score_vector,
        chunk_weight=chunk_weight, noise=noise, hard=hard, key_mask=key_mask,
        key_lengths=key_lengths,
    ).output  # fmt: skip


WHERE = "attention_decoder"
REQUIRED = "inputs", "memory", "cells"
NAMED = (
    "query_weight",
    "key_weight",
    "score_vector",
    "weight",
    "scale",
    "coverage_weight",
    "coverage_vector",
    "fertility_vector",
    "position_weight",
    "position_vector",
    "readout_weight",
    "energy_gain",
    "energy_offset",
    "score_bias",
    "chunk_query_weight",
    "chunk_key_weight",
    "chunk_score_vector",
    "chunk_weight",
)
OPTIONAL = (*NAMED, "state")


def check_choice(where, name, value, choices):
    known = isinstance(value, str)
    if not known or value not in choices:
        listed = ", ".join(map(repr, choices))
        error = ValueError if known else TypeError
        raise error(f"{where}: {name} must be one of {listed}, got {value!r}")


ALIGNMENTS = "soft", "monotonic", "chunkwise"


def check_alignment(where, alignment, chunk_width, attention, window):
    """The width of chunks, 1 where there are none."""
    check_choice(where, "alignment", alignment, ALIGNMENTS)
    if alignment != "soft" and window is not None:
        raise ValueError(
            f"{where}: window must be None for alignment={alignment!r}, got {window} (its queries "
            "begin where the last one stopped)"
        )
    if alignment != "soft" and attention == "none":
        raise ValueError(
            f"{where}: alignment must be 'soft' for attention='none', got {alignment!r}"
        )
    if alignment != "chunkwise":
        if chunk_width is not None:
            raise ValueError(
                f"{where}: chunk_width must be None for alignment={alignment!r}, got "
                f"{chunk_width} (only 'chunkwise' has one)"
            )
        return 1
    most = np.iinfo(np.intp).max
    return 2 if chunk_width is None else integer(where, "chunk_width", chunk_width, 1, most)


def check_hard(where, hard, alignment):
    hard = flag(where, "hard", hard)
    if hard and alignment == "soft":
        raise ValueError(
            f"{where}: hard must be False for alignment='soft', got True (a softmax stops at no "
            "key; alignment='monotonic' does)"
        )
    return hard


def check_noise(where, noise, alignment, hard, shape, dtype):
    if noise is None:
        return None
    if alignment == "soft" or hard:
        which = "hard=True" if hard else "alignment='soft'"
        raise ValueError(f"{where}: noise must be None for {which}")
    noise = real_array(where, "noise", noise)
    return contiguous(fitting(where, "noise", noise, shape), dtype)


def refuse_hard(where, hard):
    if hard:
        raise ValueError(
            f"{where}: hard must be False for a gradient, got True (a choice has none; in training "
            "the alignment is the expectation over all choices)"
        )


def check_fertility(where, max_fertility):
    return number(
        where, "max_fertility", max_fertility, "be finite and above 0", lambda x: 0 < x < np.inf
    )


def check_local(where, window, position, renormalize, attention):
    """The options of local attention by name; position is that of no window too."""
    check_choice(where, "position", position, ("monotonic", "predictive"))
    renormalize = flag(where, "renormalize", renormalize)
    if window is None and (position != "monotonic" or renormalize):
        name = "renormalize" if renormalize else f"position={position!r}"
        raise ValueError(f"{where}: window must be given with {name}, got None")
    if window is not None:
        window = integer(where, "window", window, 1)
        if attention == "none":
            raise ValueError(
                f"{where}: window must be None for attention='none', which has no weights, "
                f"got {window}"
            )
    if renormalize and position == "monotonic":
        raise ValueError(
            f"{where}: renormalize must be False for position='monotonic', got True (only "
            "'predictive' has a Gaussian)"
        )
    return {"window": window, "position": position, "renormalize": renormalize}


def allowed_keys(where, B, Tk, key_mask, key_lengths):
    """The masks in one, (B, Tk) bool; None where nothing is masked."""
    allowed = np.ones((B, Tk), bool)
    if key_mask is not None:
        mask = boolean_mask(where, "key_mask", key_mask, (B, Tk), "(B, Tk)")
        allowed &= mask
    if key_lengths is not None:
        lengths = integer_lengths(where, "key_lengths", key_lengths, B, Tk)
        allowed &= np.arange(Tk) < lengths[:, None]
    return None if allowed.all() else allowed


class _Call:
    """A call of `attention_decoder`: checked arguments, the run, and the way back."""

    @quiet
    def __init__(
        self,
        inputs,
        memory,
        cells,
        state=None,
        *,
        cell="gru",
        attention="additive",
        order="bahdanau",
        input_feeding=False,
        max_fertility=2.0,
        window=None,
        position="monotonic",
        renormalize=False,
        alignment="soft",
        chunk_width=None,
        noise=None,
        hard=False,
        key_mask=None,
        key_lengths=None,
        **named,
    ):
        where = WHERE
        unknown = set(named) - set(NAMED)
        if unknown:
            raise TypeError(f"{where}: there is no argument {', '.join(sorted(unknown))}")
        check_choice(where, "cell", cell, CELLS)
        check_choice(where, "attention", attention, (*SCORES, "none"))
        check_choice(where, "order", order, ("bahdanau", "luong"))
        input_feeding = flag(where, "input_feeding", input_feeding)
        if input_feeding and order == "bahdanau":
            raise ValueError(
                f"{where}: input_feeding must be False for order='bahdanau', got True "
                "(its context is fed to the cell already)"
            )
        try:
            cells = list(cells)
        except TypeError:  # not iterable
            raise TypeError(
                f"{where}: cells must be a sequence of arrays, got {type(cells).__name__}"
            ) from None
        max_fertility = check_fertility(where, max_fertility)
        local = check_local(where, window, position, renormalize, attention)
        chunk_width = check_alignment(where, alignment, chunk_width, attention, window)
        self.hard = check_hard(where, hard, alignment)
        given = {"inputs": inputs, "memory": memory}
        given |= {f"cells[{k}]": array for k, array in enumerate(cells)}
        given |= {name: array for name, array in named.items() if array is not None}
        arrays = {name: real_array(where, name, array) for name, array in given.items()}
        dtype = computing_dtype(arrays.values())
        arrays = {name: contiguous(array, dtype) for name, array in arrays.items()}
        decoder = _checked(
            where, arrays, len(cells), cell, attention, order, input_feeding, max_fertility, local,
            alignment, chunk_width,
        )  # fmt: skip

        B, Tk = len(arrays["inputs"]), arrays["memory"].shape[1]
        allowed = allowed_keys(where, B, Tk, key_mask, key_lengths)
        prepared = PreparedMemory(decoder, arrays["memory"], allowed, hard=self.hard)
        sizes = B, arrays["inputs"].shape[1], Tk
        noise = check_noise(where, noise, alignment, self.hard, sizes, dtype)
        self.given = {"inputs": inputs, "memory": memory, "cells": cells, "state": state, **named}
        self.decoder, self.sizes = decoder, (B, Tk)
        self.run = Run(
            decoder, prepared, arrays["inputs"], decoder.read_state("state", state, B, Tk), noise
        )

    @property
    def output(self):
        return DecoderOutput(self.run.outputs, self.run.weights, self.run.final)

    def _incoming(self, name, array, shape):
        if array is None:
            return None
        array = real_array(WHERE, name, array)
        return contiguous(fitting(WHERE, name, array, shape), self.decoder.dtype)

    @quiet
    def backward(self, doutputs, dweights, dstate):
        """Gradients in the order of the record: None of what was not given."""
        decoder, given = self.decoder, self.given
        dstate = None if nothing(dstate) else dstate
        require_incoming(WHERE, doutputs=doutputs, dweights=dweights, dstate=dstate)
        found = self.run.backward(
            self._incoming("doutputs", doutputs, self.run.outputs.shape),
            self._incoming("dweights", dweights, self.run.attend.weights.shape),
            decoder.read_state("dstate", dstate, *self.sizes),
        )
        down = [array for arrays_of_cell in found["cells"] for array in arrays_of_cell]
        found["cells"] = tuple(map(like, down, given["cells"]))
        if given["state"] is not None:
            found["state"] = decoder.state_gradients(given["state"], found["state"])
        return tuple(
            None if given.get(name) is None
            else found[name] if name in ("cells", "state")
            else like(found[name], given[name])
            for name in (*REQUIRED, *OPTIONAL)
        )  # fmt: skip


def _checked(
    where, arrays, count, cell, attention, order, input_feeding, max_fertility, local, alignment,
    chunk_width,
):  # fmt: skip
    """The decoder of these arrays, if they fit each other."""
    inputs, memory = arrays["inputs"], arrays["memory"]
    for name, array, axes in (
        ("inputs", inputs, "(B, T, input_size)"),
        ("memory", memory, "(B, Tk, memory_size)"),
    ):
        if array.ndim != 3:
            raise ValueError(f"{where}: {name} must have shape {axes}, got {array.shape}")
    B, T, E = inputs.shape
    M = memory.shape[2]
    if len(memory) != B:
        raise ValueError(
            f"{where}: memory must have the batch of inputs, {B}, got shape {memory.shape}"
        )
    if not count or count % len(PARAMETERS):
        raise ValueError(
            f"{where}: cells must hold {', '.join(PARAMETERS)} of every layer, got {count} arrays"
        )
    stack = [arrays[f"cells[{k}]"] for k in range(count)]
    if stack[1].ndim != 2 or not stack[1].shape[0]:
        raise ValueError(
            f"{where}: cells[1], state_weight, must have shape (H, {CELLS[cell].gates} * H) with "
            f"H at least 1, got {stack[1].shape}"
        )
    H = stack[1].shape[0]
    width = CELLS[cell].gates * H
    context = M
    if attention == "none":  # its contexts may have no size
        sized = arrays["readout_weight"] if "readout_weight" in arrays else stack[0]
        rows = H if "readout_weight" in arrays else E
        context = 0 if sized.shape[:1] == (rows,) else M
    fed = H * input_feeding if order == "luong" else context
    for k, array in enumerate(stack):
        below = E + fed if k < len(PARAMETERS) else H
        shapes = (below, width), (H, width), (width,), (width,)
        fitting(where, f"cells[{k}], {PARAMETERS[k % 4]},", array, shapes[k % 4])
    score = SCORES.get(attention)
    expected = {} if score is None else dict.fromkeys(score.arrays)
    if alignment == "chunkwise":
        named = score.query_weight, score.key_weight, score.vector
        expected |= {f"chunk_{name}": None for name in named if name is not None}
    shapes = {"weight": (H, M), "scale": (), "coverage_weight": (), "fertility_vector": (M,)}
    if "score_vector" in expected:
        vector = arrays.get("score_vector")
        A = vector.shape[0] if vector is not None and vector.ndim == 1 else "A"
        shapes |= {"query_weight": (H, A), "key_weight": (M, A), "score_vector": (A,)}
        shapes |= {"coverage_vector": (A,), "score_bias": (A,)}
    shapes |= {"energy_gain": (), "energy_offset": ()}
    shapes |= {f"chunk_{name}": shape for name, shape in shapes.items()}
    if order == "luong":
        expected["readout_weight"] = None
        shapes["readout_weight"] = (context + H, H)
    predicts = local["window"] is not None and local["position"] == "predictive"
    if predicts:
        vector = arrays.get("position_vector")
        P = vector.shape[0] if vector is not None and vector.ndim == 1 else "P"
        shapes |= {"position_weight": (H, P), "position_vector": (P,)}
        expected |= dict.fromkeys(("position_weight", "position_vector"))
    chosen = f"attention={attention!r} and order={order!r}"
    chosen += " and position='predictive'" if predicts else ""
    for name in expected:
        if name not in arrays:
            which = f"attention={attention!r} and alignment={alignment!r}"
            raise ValueError(
                f"{where}: {name} must be given for {which if 'chunk' in name else chosen}"
            )
    if "coverage_vector" in arrays and "coverage_weight" in arrays:
        raise ValueError(
            f"{where}: coverage_vector must not be given beside coverage_weight (the coverage is "
            "inside the tanh or added to the score)"
        )
    if "fertility_vector" in arrays and "coverage_weight" not in arrays:
        raise ValueError(f"{where}: coverage_weight must be given for a fertility_vector")
    soft, additive = alignment == "soft", attention == "additive"
    optional = set()
    if score:
        optional = {"coverage_weight", "fertility_vector"} if soft else {"energy_offset"}
    if additive:
        optional |= {"coverage_vector"} if soft else {"energy_gain", "score_bias"}
    described = chosen
    if not soft or any(name.startswith(("chunk_", "energy_", "score_bias")) for name in arrays):
        described = f"attention={attention!r} and alignment={alignment!r}"
    for name in NAMED:
        if name in arrays and name not in expected and name not in optional:
            raise ValueError(f"{where}: {name} must not be given for {described}")
        if name in arrays:
            fitting(where, name, arrays[name], shapes[name])
    if attention in ("dot", "cosine") and H != M:
        raise ValueError(
            f"{where}: memory must have the {H} features of the state for attention="
            f"{attention!r}, got shape {memory.shape} (attention='multiplicative' takes any sizes)"
        )
    return Decoder(
        where,
        cell=cell,
        attention=attention,
        order=order,
        input_feeding=input_feeding,
        cells=[stack[k : k + len(PARAMETERS)] for k in range(0, count, len(PARAMETERS))],
        arrays={name: arrays[name] for name in NAMED if name in arrays},
        max_fertility=max_fertility,
        **local,
        alignment=alignment,
        chunk_width=chunk_width,
    )


# Python's errors name it.
_Call.__init__.__wrapped__.__qualname__ = WHERE  # type: ignore[attr-defined]


def _forward(*arrays, **options):
    call = _Call(*arrays, **options)
    refuse_hard(WHERE, call.hard)
    return call.output, *parted(call)


def _backward(saved, static, doutputs, dweights, dstate):
    return together(saved, static).backward(doutputs, dweights, dstate)


def _outputs(
    inputs, memory, cells, state=None, *, cell="gru", input_feeding=False, coverage_weight=None,
    coverage_vector=None, window=None, position="monotonic", alignment="soft", **options,
):  # fmt: skip
    (B, T, _), Tk = shape_of(inputs), shape_of(memory)[1]
    H = shape_of(cells[1])[0]
    carried = "alignment" if alignment != "soft" else None
    if coverage_weight is not None or coverage_vector is not None:
        carried = "coverage"
    sizes = len(cells) // len(PARAMETERS), B, H, Tk
    counts = window is not None and position == "monotonic"
    shapes = state_shapes(CELLS[cell], sizes, input_feeding, carried, counts)
    return DecoderOutput(
        Output((B, T, H), "computed"),
        Output((B, T, Tk), "computed"),
        joined([Output(shape, "computed") for shape in shapes.values()]),
    )


register(
    attention_decoder,
    required=REQUIRED,
    optional=OPTIONAL,
    incoming=("doutputs", "dweights", "dstate"),
    forward=_forward,
    backward=_backward,
    outputs=_outputs,
    fixed=("noise", "key_mask", "key_lengths"),
    batch_axes={
        **dict.fromkeys(("inputs", "memory", "noise", "key_mask", "key_lengths"), 0),
        **dict.fromkeys(("outputs", "weights"), 0),
        "state": -2,
    },
    **by_formula(attention_decoder),
)

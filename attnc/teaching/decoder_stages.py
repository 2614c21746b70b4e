"""The stages of one step of an `AttentionDecoder`, and their gradients.

The arrays come from `attnc.reference.attention_decoder`, run on one step, the formulas from
`attnc.teaching.decoder_formulas` and `attnc.teaching.recurrent_formulas`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from attnc import reference
from attnc.functional.decoder_run import PreparedMemory
from attnc.functional.recurrent import PARAMETERS, nothing
from attnc.gradients import require_incoming
from attnc.layers.decoder import AttentionDecoder
from attnc.reference.recurrent import _joined
from attnc.teaching import recurrent_formulas
from attnc.teaching.decoder_formulas import decoder_backward, decoder_forward
from attnc.teaching.incoming import incoming_gradient
from attnc.teaching.table import Computed, Entry, Table
from attnc.typing import Array, Bools, Integers, Real, State

__all__ = ["DecoderStages"]

AXES = {
    "projected_key": "...jd",
    "key_direction": "...jd",
    "units": "...jd",
    "memory": "...jd",
    "key": "...jd",
    "value": "...jd",
    **dict.fromkeys(("products", "scores", "masked", "softmax", "gaussian", "weights"), "...j"),
    **dict.fromkeys(("new_coverage", "coverage", "fertility"), "...j"),
}


def decoder_stages(
    decoder: AttentionDecoder,
    input: Real,
    memory: Real,
    state: State | None = None,
    *,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
    hard: bool = False,
    train: bool = False,
    rng: Any = None,
) -> DecoderStages:
    """The stages of one step of a decoder: ``decoder.step(input, memory, state)``.

    Parameters
    ----------
    decoder : AttentionDecoder
        With the alignment 'soft'.
    input : array_like, shape (B, input_size)
    memory : array_like, shape (B, Tk, memory_size)
    state, key_mask, key_lengths, train, rng
        As in `AttentionDecoder.step`.
    hard : False
        A choice has no stages.

    Returns
    -------
    DecoderStages
    """
    if decoder.alignment != "soft":
        raise ValueError(
            f"stages: decoder must have alignment='soft', got {decoder.alignment!r} "
            "(attnc.reference.monotonic_alignment and chunkwise_attention are its formulas)"
        )
    if hard:
        raise ValueError("stages: hard must be False, got True: a choice has no stages")
    if isinstance(memory, PreparedMemory):
        raise TypeError(
            "stages: memory must be an array, got a prepared memory (pass what it was made of)"
        )
    state = None if nothing(state) else state
    if state is None and decoder.summary == "first_state":
        raise ValueError(
            "stages: state must be given for summary='first_state', got None (decoder.prepare and "
            "a first step return one)"
        )
    options: dict[str, Any] = {"key_mask": key_mask, "key_lengths": key_lengths}
    decoder.step(input, memory, state, train=train, rng=rng, **options)  # all checks are there
    return DecoderStages(*copy.deepcopy((decoder, input, memory, state, options)))


class DecoderStages(Computed):
    """The stages of one step of an `AttentionDecoder`, in its dtype.

    The arrays are copies; `shown` says which sequence of the batch is printed, and names the keys.
    Can be copied and pickled. The names of what belongs to a cell end with ``_l`` and the number of
    the layer, where there are several.

    Parameters
    ----------
    decoder : AttentionDecoder
        `attnc.stages` checks all this, and makes the copies.
    input, memory : array_like
    state : array_like or tuple, optional
    options : dict
        key_mask and key_lengths.

    Attributes
    ----------
    query : ndarray
        ``(B, state_size)``, the state that asks: of the top layer, before the step (Bahdanau) or
        after its cells (Luong).
    projected_query, projected_key, products, units, scores, masked, weights : ndarray
        Of attention, as in `Stages`, without an axis of queries; `softmax`, `gaussian` and `center`
        of local attention, `fertility` and `new_coverage` of coverage.
    context : ndarray
        ``(B, memory_size)``.
    x : ndarray
        What the first cell takes.
    new_state : ndarray
        ``(B, state_size)``, and the gates of the cell as in `RecurrentStages`.
    output : ndarray
        ``(B, state_size)``.
    """

    _decoder: AttentionDecoder
    _pullback: Any
    _given: dict[str, Any]
    _allowed: Array
    _fed: list[str]

    def __init__(
        self,
        decoder: AttentionDecoder,
        input: Real,
        memory: Real,
        state: Any,
        options: dict[str, Any],
    ) -> None:
        dtype = np.dtype(decoder.dtype).type
        inputs, memories = np.asarray(input, dtype)[:, None], np.asarray(memory, dtype)
        B, Tk = memories.shape[:2]
        parameters = [cell._parameters[name] for cell in decoder.cells for name in PARAMETERS]
        given = decoder._decoder().read_state("state", state, B, Tk)
        for name in decoder.state_names if state is None else ():
            given[name] = given[name] + decoder._parameters[f"initial_{name}"][:, None]
        names = ("cell", "attention", "order", "input_feeding", "window", "position", "renormalize")
        _, pullback = reference.vjp(
            reference.attention_decoder,
            inputs,
            memories,
            parameters,
            _joined(tuple(given.values())),
            **{name: getattr(decoder, name) for name in names},
            max_fertility=2.0 if decoder.max_fertility is None else decoder.max_fertility,
            **options,
            **decoder._named(),
            dtype=dtype,
        )
        (at,) = pullback.stages
        open_keys = pullback.allowed
        allowed = open_keys[:, None]
        if decoder.window is not None:
            place = np.floor(at["center"]).astype(np.float64)[..., None]
            allowed = allowed & (np.abs(np.arange(Tk) - place) <= decoder.window)
        of_attention: dict[str, Any] = {}
        if decoder.coverage and decoder.coverage != "tanh":
            of_attention["bias"] = True
        if decoder.window is not None:
            of_attention["center"] = True
            of_attention["sigma"] = np.inf if decoder.position == "monotonic" else 1.0
            of_attention["renormalize"] = decoder.renormalize
        bahdanau, top = decoder.order == "bahdanau", decoder.layers - 1
        attends = decoder_forward(decoder, of_attention, allowed)
        entries: dict[str, Entry] = {}

        if not open_keys.all() and "context" in attends and at["context"].shape[1]:
            said = "memory_j, 0 `where key j is masked`"
            shown = np.where(open_keys[..., None], memories, 0)
            entries["memory"] = Entry(said, shown, "...jd")

        def attention(query: Array) -> None:
            if decoder.attention != "none":
                when = "before the step" if bahdanau else "after the step"
                entries["query"] = Entry(
                    f"query: `the state h of the top layer {when}`", query, "...d"
                )
            if decoder.coverage:
                entries["coverage"] = Entry("C_j: `before the step`", given["coverage"], "...j")
            for name, formula in attends.items():
                if name == "context" and not at["context"].shape[1]:
                    continue
                entries[name] = Entry(formula, at[name], AXES.get(name, "...d"))

        if bahdanau:
            attention(at["before"][-1][0])
        fed = ["input"] * bool(decoder.input_size)
        fed += ["context"] * (bahdanau and "context" in entries)
        fed += ["`the output before`"] * decoder.input_feeding
        entries["x"] = Entry(f"x = {_beside(fed)}", at["x"], "...d")
        for k, cell in enumerate(at["cells"]):
            for name, formula in recurrent_formulas.FORWARD[decoder.cell].items():
                if k:
                    formula = formula.replace("= x ", f"= h'_l{k - 1} ").replace(
                        " x W", f" h'_l{k - 1} W"
                    )
                entries[name + _ending(decoder, k)] = Entry(formula, cell[name], "...d")
        if bahdanau:
            entries["output"] = Entry(f"output = h'{_ending(decoder, top)}", at["output"], "...d")
        else:
            attention(at["cells"][-1]["new_state"])
            read = _beside(["context"] * ("context" in entries) + [f"h'{_ending(decoder, top)}"])
            entries["output"] = Entry(f"output = tanh({read} W_c)", at["output"], "...d")
        super().__init__(
            "Stages of one step of AttentionDecoder", entries, leads=(B,), sizes={"j": Tk}
        )
        vars(self).update(
            _decoder=decoder,
            _pullback=pullback,
            _given=of_attention,
            _allowed=allowed,
            _fed=fed,
            _call=(decoder, input, memory, state, options),
        )

    def gradients(
        self,
        doutput: Real | None = None,
        *,
        dweights: Real | None = None,
        dstate: State | None = None,
    ) -> Any:
        """The gradient at every stage, of the input, the memory, the state and every parameter.

        Parameters
        ----------
        doutput : array_like, optional
            ``(B, state_size)``, the gradient of the output.
        dweights : array_like, optional
            ``(B, Tk)``, one that comes to the weights besides.
        dstate : array_like or tuple, optional
            That of the new state, as `AttentionDecoder.step` returns it.

        Returns
        -------
        object
            With the stages as attributes, in the order in which backward computes them, then
            `input`, `memory`, what the state had, and the parameters.

        Raises
        ------
        TypeError
            If no gradient is given, or one is not an array of real numbers.
        ValueError
            If a gradient has a wrong shape.
        """
        decoder, dtype = self._decoder, np.dtype(self._decoder.dtype).type
        dstate = None if nothing(dstate) else dstate
        require_incoming("gradients", doutput=doutput, dweights=dweights, dstate=dstate)
        given = {
            name: incoming_gradient(name, gradient, getattr(self, name[1:]).shape)
            for name, gradient in (("doutput", doutput), ("dweights", dweights))
        }
        given = {n: None if d is None else d.astype(dtype)[:, None] for n, d in given.items()}
        B, Tk = self.weights.shape
        made = copy.copy(decoder._decoder())
        made.where = "gradients"
        parts = {} if dstate is None else made.state_parts("dstate", dstate)
        parts = {name: part for name, part in parts.items() if part is not None}
        new = tuple(made.read_state("dstate", dstate, B, Tk).values())
        seen, found = self._pullback.stage_gradients(
            given["doutput"], given["dweights"], _joined(new)
        )
        incoming = {"dweights": given["dweights"], "dcoverage": "coverage" in parts}
        attends = decoder_backward(decoder, self._given, self._allowed, incoming)
        entries = self._of_stages(seen[0], attends, given["doutput"] is not None, parts)
        entries |= self._of_arguments(vars(found), attends, made)
        return Table(
            "Gradients of one step of AttentionDecoder",
            entries,
            self._leads,
            None,
            self._sizes,
            self._view,
        )

    def _of_stages(
        self, at: dict[str, Any], attends: dict[str, str], doutput: bool, parts: dict[str, Any]
    ) -> dict[str, Entry]:
        """The gradients of what a step computes."""
        decoder, kind = self._decoder, self._decoder.cell
        bahdanau, top = decoder.order == "bahdanau", decoder.layers - 1
        entries: dict[str, Entry] = {}

        def put(name: str, formula: str, array: Array) -> None:
            if name in self._formulas or name in ("key", "value"):
                entries[name] = Entry(formula, array, AXES.get(name, "...d"))

        def attention(dcontext: str) -> None:
            if "context" in at:
                put("context", dcontext, at["context"])
            for name, formula in attends.items():
                if name in at:
                    put(name, formula, at[name])

        terms = ["`given`"] * doutput + ["`given (feed)`"] * ("feed" in parts)
        said = f"doutput: {terms[0]}" if terms == ["`given`"] else f"doutput = {_sum(terms)}"
        before = " W_c^T, e = doutput * (1 - output^2)"
        of_top = ["doutput"] * (doutput or "feed" in parts)
        if bahdanau:
            entries["output"] = Entry(said, at["cells"][top]["new_state"], "...d")
            if "h" in parts:  # without what comes to the state besides
                entries["output"] = Entry(
                    said, at["cells"][top]["new_state"] - self._of_top(parts), "...d"
                )
        else:
            entries["output"] = Entry(said, at["output"], "...d")
            attention("dcontext = `its part of` e" + before)
            of_top = ["dquery"] * ("query" in entries) + ["`its part of` e W_c^T"]
        for k in reversed(range(decoder.layers)):
            sides = of_top if k == top else [f"dx `of layer {k + 1}`"]
            sides = sides + ["`given`"] * ("h" in parts)
            for name, formula in recurrent_formulas.BACKWARD[kind].items():
                if name == "new_state":
                    formula += f" = {_sum(sides)}"
                    if not bahdanau and k == top:
                        formula += ", e = doutput * (1 - output^2)"
                elif name == "new_cell_state" and "c" in parts:
                    formula += " + `given`"
                ending = _ending(decoder, k)
                entries[name + ending] = Entry(formula, at["cells"][k][name], "...d")
            formula = recurrent_formulas.of_arguments(kind)["x"]
            where = f"x_l{k}" if k else "x"
            entries[where] = Entry(formula, at["cells"][k]["x"], "...d")
        if bahdanau:
            attention("dcontext = `its part of` dx")
        return entries

    def _of_top(self, parts: dict[str, Any]) -> Array:
        """What comes to the new state of the top layer besides."""
        return np.asarray(parts["h"], self.output.dtype)[-1]

    def _of_arguments(
        self, found: dict[str, Any], attends: dict[str, str], made: Any
    ) -> dict[str, Entry]:
        """The gradients of what a step takes."""
        decoder, kind = self._decoder, self._decoder.cell
        written = recurrent_formulas.of_arguments(kind)
        entries = {}
        if decoder.input_size:
            said = "dinput = `its part of` dx" if len(self._fed) > 1 else "dinput = dx"
            entries["input"] = Entry(said, found["inputs"][:, 0], "...d")
        if "value" in attends:
            said = attends.get("memory", "dmemory_j = dvalue_j")
            entries["memory"] = Entry(said, found["memory"], "...jd")
        state = found["state"] if isinstance(found["state"], tuple) else (found["state"],)
        of_state = dict(zip(made.state_shapes(0, 0), state, strict=True))
        asks = decoder.order == "bahdanau" and decoder.attention != "none"
        for name, own in (("h", "state"), ("c", "cell_state")):
            for k in range(decoder.layers if name in of_state else 0):
                formula = written[own] + " + dquery" * (
                    name == "h" and asks and k == decoder.layers - 1
                )
                entries[own + _ending(decoder, k)] = Entry(formula, of_state[name][k], "...d")
            if name in of_state and self._call[3] is None:
                entries[f"initial_{name}"] = Entry(
                    f"d{name} `of each layer, summed over the batch`", of_state[name].sum(1), "ld"
                )
        if "feed" in of_state:
            entries["feed"] = Entry("dfeed = `its part of` dx", of_state["feed"], "...d")
        if "coverage" in of_state:
            entries["coverage"] = Entry(attends["coverage"], of_state["coverage"], "...j")
        for k in range(decoder.layers):
            for name, array in zip(PARAMETERS, found["cells"][4 * k :], strict=False):
                formula = written[name]
                if k and name == "input_weight":
                    formula = formula.replace("x^T", f"h'_l{k - 1}^T")
                axes = "d" if array.ndim == 1 else "ed"
                entries[name + _ending(decoder, k)] = Entry(formula, array, axes)
        for name in decoder._named():
            formula = attends.get(name, "")
            if name == "readout_weight":
                read = self._formulas["output"].removeprefix("output = tanh(").removesuffix(" W_c)")
                formula = f"dW_c = {read}^T e, e = doutput * (1 - output^2)"
            entries[name] = Entry(formula, found[name], ("", "d", "ed")[np.ndim(found[name])])
        return entries


def _sum(terms: list[str]) -> str:
    return " + ".join(terms) or "0"


def _beside(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"[{'; '.join(parts)}]"


def _ending(decoder: AttentionDecoder, k: int) -> str:
    return f"_l{k}" if decoder.layers > 1 else ""

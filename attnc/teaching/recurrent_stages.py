"""The stages of one step of an RNN, a GRU or an LSTM, and their gradients.

The arrays come from the steps of `attnc.reference`, the formulas from
`attnc.teaching.recurrent_formulas`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from attnc.arrays import generator, plain_array
from attnc.functional.recurrent import PARAMETERS
from attnc.gradients import require_incoming
from attnc.layers.recurrent import GRU, LSTM, RNN
from attnc.reference.recurrent import STEPS
from attnc.teaching.incoming import incoming_gradient
from attnc.teaching.recurrent_formulas import BACKWARD, FORWARD, of_arguments
from attnc.teaching.table import Computed, Entry, Table
from attnc.typing import Array, Real, State

__all__ = ["RecurrentStages"]

Recurrent = RNN | GRU | LSTM


def recurrent_stages(
    layer: Recurrent,
    x: Real,
    state: State | None = None,
    lengths: Any = None,
    *,
    train: bool = False,
    rng: Any = None,
) -> RecurrentStages:
    """The stages of one step of a layer.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    x : array_like, shape (B, input_size)
    state, train, rng
        As in a call of the layer.
    lengths : None
        One step has no padding.

    Returns
    -------
    RecurrentStages
    """
    if lengths is not None:
        raise ValueError("stages: lengths must be None, got some: one step has no padding")
    x = plain_array("stages", "x", x)
    if x.ndim != 2:
        raise ValueError(
            f"stages: x must have shape (B, {layer.input_size}), one step of each sequence, got "
            f"{x.shape}"
        )
    if train and layer.dropout:
        rng = generator("stages", rng)
    key = copy.deepcopy(rng)
    layer(x[:, None], state, train=train, rng=rng)  # all checks are there
    return RecurrentStages(*copy.deepcopy((layer, x, state)), key if train else False)


class RecurrentStages(Computed):
    """The stages of one step of an RNN, a GRU or an LSTM, in the layer's dtype.

    The arrays are copies, with one row for each sequence. Can be copied and pickled. Of more cells
    than one the names end with ``_l`` and the number of the layer, and ``_reverse`` for those that
    go backwards, as in `torch.nn`.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        `attnc.stages` checks all this, and makes the copies.
    x : ndarray, shape (B, input_size)
    state : array_like, optional
    rng : numpy.random.Generator or False
        Of the dropout between layers; False: there is none.

    Attributes
    ----------
    preactivation : ndarray
        ``(B, state_size)``, of the RNN.
    reset_gate, update_gate, candidate, state_product : ndarray
        ``(B, state_size)``, of the GRU, with ``reset_preactivation``, ``update_preactivation``,
        ``candidate_preactivation``.
    input_gate, forget_gate, cell_input, output_gate, new_cell_state : ndarray
        ``(B, state_size)``, of the LSTM, with ``input_preactivation``, ``forget_preactivation``,
        ``cell_preactivation``, ``output_preactivation``.
    new_state : ndarray
        ``(B, state_size)``.
    x_l1, kept_l1 : ndarray
        What the layer of this number takes, and what dropout multiplied it by.
    output : ndarray
        ``(B, output_size)``, where there are several cells.
    """

    _layer: Recurrent
    _cells: list[tuple[str, Any]]
    _kept: list[Any]

    def __init__(self, layer: Recurrent, x: Array, state: Any, rng: Any) -> None:
        dtype, kind = np.dtype(layer.dtype).type, layer._cell.kind
        step, count = STEPS[kind]
        cells, directions = layer.cells, 1 + layer.bidirectional
        parts = state if isinstance(state, (tuple, list)) and count > 1 else (state,)
        given = [None if part is None else np.asarray(part, dtype) for part in parts]
        given += [None] * (count - len(given))
        empty = np.zeros((len(cells), len(x), layer.state_size), dtype)
        states = [empty if part is None else part for part in given]
        entries, backs, every = {}, [], []
        below = np.asarray(x, dtype)
        drops = rng is not False and layer.dropout
        random = generator("stages", copy.deepcopy(rng)) if drops else None
        for number in range(layer.layers):
            kept = dtype(1)
            if number:
                if random is not None:
                    drawn = random.random((len(x), 1, below.shape[1]), dtype)[:, 0]
                    kept = (drawn >= layer.dropout) * dtype(1 / (1 - layer.dropout))
                    entries[f"kept_l{number}"] = Entry(
                        f"m = 1 / (1 - {layer.dropout}) `where a number is kept`, 0 `where it is "
                        "dropped`",
                        kept,
                        "bd",
                    )
                    below = below * kept
                written = "m * " * (random is not None) + _outputs(number - 1, directions)
                entries[f"x_l{number}"] = Entry(f"x = {written}", below, "bd")
            every.append(kept)
            outputs = []
            for side in range(directions):
                k = number * directions + side
                ending = _ending(layer, k)
                parameters = [np.asarray(cells[k]._parameters[n], dtype) for n in PARAMETERS]
                with np.errstate(all="ignore"):
                    new, back = step(below, tuple(s[k] for s in states), parameters)
                for name, formula in FORWARD[kind].items():
                    entries[name + ending] = Entry(formula, back.stages[name], "bd")
                outputs.append(new[0])
                backs.append((ending, back))
            below = np.concatenate(outputs, axis=-1)
        if len(cells) > 1:
            written = _outputs(layer.layers - 1, directions)
            entries["output"] = Entry(f"output = {written}", below, "bd")
        super().__init__(f"Stages of one step of {type(layer).__name__}", entries)
        vars(self).update(_layer=layer, _call=(layer, x, state, rng), _cells=backs, _kept=every)

    def gradients(self, doutput: Real | None = None, dstate: State | None = None) -> Any:
        """The gradient at every stage, of the input, the state and every parameter.

        Parameters
        ----------
        doutput : array_like, optional
            ``(B, output_size)``, the gradient of the output: of the new states of the last layer,
            side by side.
        dstate : array_like, optional
            ``(layers * directions, B, state_size)``, that of all new states; of an LSTM a pair,
            with that of the cells' states.

        Returns
        -------
        object
            With the stages as attributes, in the order in which backward computes them, and then
            `x`, `state`, `cell_state` (of an LSTM) and the parameters of each cell.

        Raises
        ------
        TypeError
            If no gradient is given, or one is not an array of real numbers.
        ValueError
            If a gradient has a wrong shape.
        """
        require_incoming("gradients", doutput=doutput, dstate=dstate)
        layer, kind = self._layer, self._layer._cell.kind
        directions, H = 1 + layer.bidirectional, layer.state_size
        dtype, B = np.dtype(layer.dtype), len(self._call[1])
        shape = (len(layer.cells), B, H)
        names = ("dstate", "dstate (c)")[: STEPS[kind][1]]
        of_states = dstate if isinstance(dstate, (tuple, list)) and len(names) > 1 else (dstate,)
        if len(of_states) > len(names):
            raise ValueError(f"gradients: dstate must be a pair (h, c), got {len(of_states)}")
        given = [
            incoming_gradient(name, d, shape) for name, d in zip(names, of_states, strict=False)
        ]
        given += [None] * (len(names) - len(given))
        above = incoming_gradient("doutput", doutput, (B, directions * H))
        said = "`given`" if above is not None else ""
        d = np.zeros((B, directions * H)) if above is None else above
        d = d.astype(dtype)
        entries: dict[str, Entry] = {}
        arguments: dict[str, Entry] = {}
        if len(layer.cells) > 1:
            entries["output"] = Entry(f"doutput: {said}" if said else "doutput = 0", d, "bd")
            said = "`its part of` doutput" if said else ""
        for number in reversed(range(layer.layers)):
            below: Any = 0
            for side in range(directions):
                k = number * directions + side
                ending, back = self._cells[k]
                incoming = [d[:, side * H : (side + 1) * H], np.zeros((B, H), dtype)]
                terms = [said, ""]
                for part, array in enumerate(given):
                    if array is not None:
                        incoming[part] = incoming[part] + array[k].astype(dtype)
                        terms[part] = " + ".join(filter(None, [terms[part], "`given`"]))
                with np.errstate(all="ignore"):
                    incoming = incoming[: len(given)]
                    at = back.stage_gradients(incoming)
                    dx, dstates, dparameters = back(incoming)
                for name, formula in BACKWARD[kind].items():
                    if name == "new_state":
                        formula += " = " + (terms[0] or "0")
                    elif name == "new_cell_state" and terms[1]:
                        formula += " + `given`"
                    entries[name + ending] = Entry(formula, at[name], "bd")
                below = below + dx
                found = dict(zip(("state", "cell_state"), dstates, strict=False))
                found |= dict(zip(PARAMETERS, dparameters, strict=True))
                if number == 0 and side == directions - 1:
                    found["x"] = below
                for name, formula in of_arguments(kind).items():
                    if name not in found:
                        continue
                    if name == "x" and directions > 1:
                        formula += ", `summed over both directions`"
                    axes = {1: "d", 2: "bd"}[np.ndim(found[name])]
                    where = "x" if name == "x" else name + ending
                    arguments[where] = Entry(formula, found[name], axes)
            if number:
                kept = self._kept[number]
                formula = of_arguments(kind)["x"]
                if directions > 1:
                    formula += ", `summed over both directions`"
                entries[f"x_l{number}"] = Entry(formula, below, "bd")
                d = below * kept
                said = f"`its part of` {'m * ' if np.ndim(kept) else ''}dx `of layer {number}`"
        order = {n: k for k, n in enumerate(("x", "state", "cell_state", *PARAMETERS))}
        by_cell = sorted(arguments, key=lambda name: order[_plain(name)])
        entries |= {name: arguments[name] for name in by_cell}
        return Table(f"Gradients of one step of {type(layer).__name__}", entries, view=self._view)


def _outputs(number: int, directions: int) -> str:
    """The new states of a layer, side by side."""
    return f"h' `of layer {number}`" if directions == 1 else f"[h'; h'_reverse] `of layer {number}`"


def _ending(layer: Recurrent, k: int) -> str:
    """What the names of a cell end with."""
    if len(layer.cells) == 1:
        return ""
    number, side = divmod(k, 1 + layer.bidirectional)
    return f"_l{number}" + "_reverse" * side


def _plain(name: str) -> str:
    return name.removesuffix("_reverse").rstrip("0123456789").removesuffix("_l")

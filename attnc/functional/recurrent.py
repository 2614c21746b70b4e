"""RNN, GRU and LSTM over whole sequences, forward and backward; the loop over time is in C.

From the inside out:

- a step of a cell is in C (csrc/kernels/recurrent.inc), and so is the loop over the steps
  (operations.py);
- a `Packing` lays a batch out in time so that padding is in no array at all;
- a `_Layer` runs the directions of one layer side by side, a `Recurrence` the layers on top of
  each other.

Products with a cell's inputs do not depend on its state: those of all steps are one product before
the loop. The loop itself does the product with the state and the gates. The gradients of the
weights are again one product, after the loop back.
"""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from attnc import _core
from attnc.arrays import (
    SUM_BLOCK,
    computing_dtype,
    contiguous,
    flag,
    generator,
    integer_lengths,
    like,
    probability,
    quiet,
    real_array,
    result_dtype,
    sum_rows,
)
from attnc.functional.operations import Cell, CellBack
from attnc.functional.plain import by_formula
from attnc.functional.shapes import shape_of
from attnc.gradients import require_incoming, shows_shapes
from attnc.mode import mode
from attnc.registry import Output, parted, register, together
from attnc.typing import Array, Integers, Real, Seed, State

__all__ = ["gru", "lstm", "rnn"]


@shows_shapes
class RecurrentOutput(NamedTuple):
    """What a recurrent network returns."""

    outputs: Array
    state: Any  # an array; of an LSTM a pair (h, c)


# One kind of cell: gates side by side, and the arrays of its state.
CellKind = namedtuple("CellKind", "name gates state")
CELLS = {
    "rnn": CellKind("rnn", 1, ("h",)),
    "gru": CellKind("gru", 3, ("h",)),
    "lstm": CellKind("lstm", 4, ("h", "c")),
}
PARAMETERS = "input_weight", "state_weight", "input_bias", "state_bias"

BIAS_ROWS = _core.BIAS_ROWS  # rows of a batch whose bias gradients C adds up in one part


# ---- the layout of a batch in time ---------------------------------------------------------------


class Packing:
    """The valid steps of a batch as rows, time after time, the longest sequence first.

        lengths 2, 4, 3     step 0: b1 b2 b0    step 1: b1 b2 b0    step 2: b1 b2    step 3: b1

    Each step is one block of rows, the sequences still running are always its first ones, and
    padding is nowhere: it is neither computed nor read. `counts` is what `_core.loop` takes for its
    steps, `places` which row of a batch-major array (batch * time, ...) each row belongs to.
    """

    def __init__(self, batch, time, lengths=None):
        self.shape = batch, time
        self.whole = lengths is None
        self.lengths, self.reverse = lengths, False
        if self.whole:
            # The same as below, in less time.
            self.order = np.arange(batch)
            self.steps = self.counts = time if batch else 0
            self.places = (self.order * time + np.arange(time)[:, None]).reshape(-1)
            self.last = self.order + len(self.places)
            return
        self.order = np.argsort(-lengths, kind="stable")  # row -> sequence
        sorted_lengths = lengths[self.order]
        self.steps = steps = int(sorted_lengths[0]) if batch else 0
        self.counts = (sorted_lengths > np.arange(steps)[:, None]).sum(axis=1, dtype=np.intp)
        starts = np.zeros(steps + 1, np.intp)
        np.cumsum(self.counts, out=starts[1:])
        t = np.repeat(np.arange(steps), self.counts)
        row = np.arange(starts[-1]) - starts[t]
        self.places = self.order[row] * time + t
        # In an array of states, `batch` rows before step 0 and then the rows of all steps: where
        # each row's state before lies, and each sequence's last.
        self._before = np.where(t == 0, row, batch + starts[t - 1] + row)
        last = batch + starts[sorted_lengths - 1] + np.arange(batch)
        self.last = np.where(sorted_lengths == 0, np.arange(batch), last)

    def reversed(self):
        """The same with every sequence from its own last valid step to its first."""
        batch, time = self.shape
        other = object.__new__(Packing)
        vars(other).update(vars(self))
        if self.whole:
            other.places = self.places.reshape(time, batch)[::-1].flatten()
        else:
            sequence = self.places // time
            other.places = 2 * time * sequence + self.lengths[sequence] - 1 - self.places
        other.reverse = True
        return other

    @property
    def rows(self):
        return len(self.places)

    def _steps(self, rows):
        """All rows of whole sequences as a batch-major view (batch, time, size)."""
        batch, time = self.shape
        return rows.reshape(time, batch, rows.shape[1])[:: -1 if self.reverse else 1].swapaxes(0, 1)

    def pack(self, x):
        """(batch, time, size) -> (rows, size); the valid steps, copied."""
        if not self.whole:
            return x.reshape(-1, x.shape[2]).take(self.places, axis=0)
        rows = _core.empty(x, (self.rows, x.shape[2]))
        self._steps(rows)[...] = x
        return rows

    def add(self, rows, out):
        """Add rows to where they came from: `out` (batch, time, size), C-contiguous."""
        if self.whole:
            out += self._steps(rows)
        else:
            out.reshape(-1, out.shape[2])[self.places] += rows

    def before(self, states):
        """The state before each row: of an array of states (batch + rows, size)."""
        return states[: self.rows] if self.whole else states[self._before]


# ---- one layer -----------------------------------------------------------------------------------


class _Direction:
    """One cell over a packed batch: the arrays that the loops in C work on."""

    def __init__(self, cell, packing, x, state, parameters):
        weight, self.state_weight, self.input_bias, self.state_bias = parameters
        self.weight, self.packing = weight, packing
        self.inputs = packing.pack(x)
        self.gates = _core.product(self.inputs, weight)
        batch, rows, size = len(packing.order), packing.rows, len(self.state_weight)
        self.states = [_core.empty(x, (batch + rows, size)) for _ in state]
        for array, initial in zip(self.states, state, strict=True):
            array[:batch] = initial[packing.order]
        self.saved = None if cell.gates == 1 else _core.empty(x, (rows, size))

    def operation(self, cell, outputs, beside):
        """A step. `outputs`: rows of its H columns of the layer's outputs."""
        h, c = (*self.states, None)[:2]
        panels = _core.panels(self.state_weight, cell.gates)
        return Cell(
            cell.name, h, c, self.gates, self.saved, panels, self.input_bias, self.state_bias,
            (), True, outputs, self.packing.places, beside,
        )  # fmt: skip

    def operation_back(self, cell, dfinal, doutputs, beside):
        """A step back. `dfinal`: gradients (B, H) of each array of the last state."""
        order, width = self.packing.order, self.gates.shape[1]
        self.dstate = [d[order] for d in dfinal]
        self.dinput = _core.empty(self.gates, self.gates.shape)
        self.dproduct = self.dinput
        if cell.name == "gru":
            self.dproduct = _core.empty(self.gates, self.gates.shape)
        parts = -(-len(order) // BIAS_ROWS)
        self.dinput_bias = np.zeros((parts, width), self.gates.dtype)
        self.dstate_bias = self.dinput_bias.copy() if cell.name == "gru" else None
        h, c = (*self.states, None)[:2]
        dh, dc = (*self.dstate, None)[:2]
        panels = _core.panels(self.state_weight.T, 1)
        return CellBack(
            cell.name, h, c, self.gates, self.saved, panels, self.dinput, self.dproduct, dh, dc,
            self.dinput_bias, self.dstate_bias, (), (), doutputs, self.packing.places, beside,
        )  # fmt: skip

    def finish(self):
        """Gradients of the packed inputs and of the four parameters: one product each."""
        before = self.packing.before(self.states[0])
        steps = self.packing.steps
        dinput_bias = bias_gradient(self.dinput_bias, self.dinput, steps)
        dstate_bias = dinput_bias
        if self.dstate_bias is not None:
            dstate_bias = bias_gradient(self.dstate_bias, self.dproduct, steps)
        return _core.product(self.dinput, self.weight.T), (
            _core.product(self.inputs.T, self.dinput),
            _core.product(before.T, self.dproduct),
            dinput_bias,
            dstate_bias.copy(),
        )


def bias_gradient(parts, rows, steps):
    """The sum of all rows: of the parts of it that C has, unless so many steps went into each, one
    by one, that digits are lost."""
    return sum_rows(parts if steps <= SUM_BLOCK else rows)


class _Layer:
    """The directions of one layer over a batch: outputs (B, T, directions * H), and the way back.

    states, and `final` and what backward returns of them: for each array of the cell's state
    (directions, B, H).
    """

    def __init__(self, cell, packings, x, states, parameters):
        B, T = packings[0].shape
        self.cell, self.x, self.shape = cell, x, states[0].shape
        self.directions = [
            _Direction(cell, packing, x, [s[d] for s in states], parameters[d])
            for d, packing in enumerate(packings)
        ]
        H = self.shape[2]
        outputs = _core.empty(x, (B, T, len(packings) * H))
        if not packings[0].whole:
            outputs.fill(0)
        operations = tuple(
            direction.operation(cell, self._columns(outputs, d), d > 0)
            for d, direction in enumerate(self.directions)
        )
        _core.loop(x, packings[0].counts, B, operations, False)
        self.outputs = outputs

    def _columns(self, outputs, d):
        """The part of outputs (B, T, directions * H) that direction d has, as (B * T, H)."""
        if outputs is None:
            return None
        B, T, width = outputs.shape
        H = self.shape[2]
        return outputs.reshape(B * T, width)[:, d * H : (d + 1) * H]

    @property
    def final(self):
        """The state after each sequence's last valid step."""
        return self._in_order(
            self.directions, lambda d: [states[d.packing.last] for states in d.states]
        )

    def _in_order(self, directions, arrays_of):
        """(directions, B, H) of arrays in packed order."""
        arrays = [arrays_of(direction) for direction in directions]
        out = [np.empty(self.shape, self.x.dtype) for _ in arrays[0]]
        for d, direction in enumerate(directions):
            for array, rows in zip(out, arrays[d], strict=True):
                array[d, direction.packing.order] = rows
        return out

    def backward(self, doutputs, dfinal):
        """Gradients of x, of the initial states and of the parameters."""
        # Copies that share the arrays of the forward pass: pullbacks may run side by side.
        own = [copy.copy(direction) for direction in self.directions]
        operations = tuple(
            direction.operation_back(
                self.cell, [s[d] for s in dfinal], self._columns(doutputs, d), d > 0
            )
            for d, direction in enumerate(own)
        )
        _core.loop(self.x, own[0].packing.counts, self.shape[1], operations, True)
        dx, dparameters = _core.empty(self.x, self.x.shape), []
        dx.fill(0)
        for direction in own:
            drows, down = direction.finish()
            direction.packing.add(drows, dx)
            dparameters.append(down)
        return dx, self._in_order(own, lambda d: d.dstate), dparameters


# ---- the functions -------------------------------------------------------------------------------


def _dropped(rng, x, dropout):
    """x with each entry dropped with probability `dropout`, the rest scaled up; and the factors."""
    factor = (rng.random(x.shape, dtype=x.dtype) >= dropout) * x.dtype.type(1 / (1 - dropout))
    return x * factor, factor


class _Call:
    """The checked arguments of one call: x, parameters by cell, state, lengths."""

    def __init__(self, kind, x, parameters, state, lengths, bidirectional, dropout, where, dtype):
        self.where, self.cell = where, CELLS[kind]
        self.directions = 1 + flag(where, "bidirectional", bidirectional)
        x = real_array(where, "x", x)
        parameters = [
            real_array(where, self._parameter(k), array) for k, array in enumerate(parameters)
        ]
        state = [
            array if array is None else real_array(where, label, array)
            for label, array in self.parts("state", state)
        ]
        given = [x, *parameters, *(array for array in state if array is not None)]
        self.result_dtype = result_dtype(given) if dtype is None else dtype
        self.dtype = dtype = computing_dtype(given) if dtype is None else dtype

        self._check_parameters([contiguous(array, dtype) for array in parameters])
        if x.ndim != 3 or x.shape[2] != self.input_size:
            fix = " (one sequence is x[None])" if x.ndim == 2 else ""
            raise self.error(f"x must have shape (B, T, {self.input_size}), got {x.shape}{fix}")
        self.x = contiguous(x, dtype)
        B, T = x.shape[:2]
        self.shape = (len(self.cells), B, self.H)
        self.state = [
            np.zeros(self.shape, dtype) if array is None else self.real(label, array, self.shape)
            for label, array in zip(self.labels("state"), state, strict=True)
        ]
        self.dropout = probability(where, "dropout", dropout)
        self.lengths = None if lengths is None else integer_lengths(where, "lengths", lengths, B, T)

    @staticmethod
    def _parameter(k):
        cell, which = divmod(k, len(PARAMETERS))
        return f"{PARAMETERS[which]} of cell {cell}"

    def error(self, text, kind=ValueError):
        return kind(f"{self.where}: {text}")

    def real(self, name, array, shape):
        """The array as C takes it, of this shape."""
        array = real_array(self.where, name, array)
        if array.shape != shape:
            raise self.error(f"{name} must have shape {shape}, got {array.shape}")
        return contiguous(array, self.dtype)

    def labels(self, name):
        """What the arrays of a state are called in errors."""
        names = self.cell.state
        return [name] if len(names) == 1 else [f"{name} ({part})" for part in names]

    def parts(self, name, state):
        """(label, array) of the arrays of a state as users hold it: the array itself, or the tuple
        of several; None for those that are not there."""
        labels = self.labels(name)
        if state is None:
            state = [None] * len(labels)
        elif len(labels) == 1:
            state = [state]
        if not (isinstance(state, (tuple, list)) and len(state) == len(labels)):
            names = ", ".join(self.cell.state)
            raise self.error(f"{name} must be a tuple ({names}), got {described(state)}", TypeError)
        return list(zip(labels, state, strict=True))

    def _check_parameters(self, arrays):
        count, gates = len(PARAMETERS), self.cell.gates
        if not arrays or len(arrays) % (count * self.directions):
            raise self.error(
                f"parameters must hold {', '.join(PARAMETERS)} for every cell, "
                f"{self.directions} of them in each layer, got {len(arrays)} arrays"
            )
        if arrays[0].ndim != 2 or arrays[1].ndim != 2 or not arrays[1].shape[0]:
            raise self.error(
                f"{self._parameter(0)} and {self._parameter(1)} must have shapes "
                f"(input_size, {gates} * H) and (H, {gates} * H) with H at least 1, got "
                f"{arrays[0].shape} and {arrays[1].shape}"
            )
        self.input_size, self.H = arrays[0].shape[0], arrays[1].shape[0]
        self.cells = [arrays[k : k + count] for k in range(0, len(arrays), count)]
        self.layers = len(self.cells) // self.directions
        width = gates * self.H
        for index, cell in enumerate(self.cells):
            below = self.input_size if index < self.directions else self.directions * self.H
            shapes = (below, width), (self.H, width), (width,), (width,)
            for k, (array, shape) in enumerate(zip(cell, shapes, strict=True)):
                self.real(self._parameter(index * count + k), array, shape)


def described(state):
    """What was given for a state, for an error text."""
    return f"an array {state.shape}" if isinstance(state, np.ndarray) else repr(type(state))


def nothing(gradient):
    """Whether an incoming gradient is none: None, or a tuple of nothing else."""
    if isinstance(gradient, (tuple, list)) and len(gradient):
        return all(map(nothing, gradient))
    return gradient is None


def joined(arrays):
    """The state as users hold it: one array alone, several as a tuple."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


class Recurrence:
    """A stack of cells of one `kind` over a batch: output, and the way back.

    What `rnn`, `gru`, `lstm` and the layers share. `where` begins error texts; with `dtype` all is
    computed in it and returned in it, whatever the arrays are.
    """

    @quiet
    def __init__(
        self,
        kind,
        x,
        parameters,
        state=None,
        lengths=None,
        *,
        bidirectional=False,
        dropout=0.0,
        rng=None,
        where=None,
        dtype=None,
    ):
        where = where or kind
        parameters = _listed(where, parameters)
        call = _Call(kind, x, parameters, state, lengths, bidirectional, dropout, where, dtype)
        self.where, self.call = where, call
        self.given = x, parameters, state
        directions, dropout = call.directions, call.dropout
        B, T = call.x.shape[:2]
        packings = [Packing(B, T, call.lengths)]
        if directions == 2:
            packings.append(packings[0].reversed())
        rng = generator(where, rng) if dropout else None
        rows, self.layers = call.x, []  # (cells, what dropout multiplied by, layer) of each
        for layer in range(call.layers):
            own = slice(layer * directions, (layer + 1) * directions)
            factor = None
            if layer and dropout:
                rows, factor = _dropped(rng, rows, dropout)
            states = [s[own] for s in call.state]
            self.layers.append(
                (own, factor, _Layer(call.cell, packings, rows, states, call.cells[own]))
            )
            rows = self.layers[-1][2].outputs

    @property
    def output(self):
        layers = [layer for _, _, layer in self.layers]
        final = zip(*(layer.final for layer in layers), strict=True)
        found = [layers[-1].outputs, *map(np.concatenate, final)]
        outputs, *state = [like(array, np.empty(0, self.call.result_dtype)) for array in found]
        return RecurrentOutput(outputs, joined(state))

    @quiet
    def backward(self, doutputs, dstate):
        """Gradients of x, of the parameters, and of the state or None where none was given."""
        call, (x, parameters, state) = self.call, self.given
        dstate = None if nothing(dstate) else dstate
        require_incoming(self.where, doutputs=doutputs, dstate=dstate)
        d = None
        if doutputs is not None:
            d = call.real("doutputs", doutputs, self.layers[-1][2].outputs.shape)
        dfinal = [
            np.zeros(call.shape, call.dtype) if array is None
            else call.real(label, array, call.shape)
            for label, array in call.parts("dstate", dstate)
        ]  # fmt: skip
        dinitial = [np.empty_like(array) for array in dfinal]
        dparameters = []
        for own, factor, layer in reversed(self.layers):
            d, dfirst, down = layer.backward(d, [array[own] for array in dfinal])
            for array, first in zip(dinitial, dfirst, strict=True):
                array[own] = first
            dparameters[:0] = [array for cell in down for array in cell]
            if factor is not None:
                d *= factor
        if state is not None:
            given = [array for _, array in call.parts("state", state)]
            state = joined(list(map(like, dinitial, given)))
        return like(d, x), tuple(map(like, dparameters, parameters)), state


def run(kind, x, parameters, state, lengths, *, where, dtype, **options):
    """The output of a `Recurrence`, and its way back, for layers."""
    if mode.dual is not None:
        plain = [mode.dual.parts(value)[0] for value in (x, parameters, state)]
        checked = options["bidirectional"], options["dropout"], where, dtype
        _Call(kind, *plain, lengths, *checked)  # which names the layer in errors
        options |= {"lengths": lengths}
        return mode.dual.recurrence(_FUNCTIONS[kind], x, parameters, state, dtype, options)
    recurrence = Recurrence(
        kind, x, parameters, state, lengths, where=where, dtype=dtype, **options
    )
    return recurrence.output, recurrence.backward


def _listed(where, parameters):
    try:
        return list(parameters)
    except TypeError:  # not iterable
        raise TypeError(
            f"{where}: parameters must be a sequence of arrays, got {type(parameters).__name__}"
        ) from None


_DOC = """    Parameters
    ----------
    x : array_like
        ``(B, T, input_size)``.
    parameters : sequence of array_like
        Four arrays for the cell of each layer and direction, in the order of the state's first
        axis: `input_weight` ``(input size of the layer, G * H)``, `state_weight` ``(H, G * H)``,
        `input_bias` and `state_bias` ``(G * H,)``, with G gates side by side. Their number says how
        many layers there are. Transposed, they are ``weight_ih_l0``, ``weight_hh_l0``,
        ``bias_ih_l0`` and ``bias_hh_l0`` of `torch.nn`, in the same order of gates.
    state : array_like, optional
        ``(layers * directions, B, H)``: initial state{pair}; zeros unless given. Row ``layer *
        directions + direction`` belongs to the cell of that number.
    lengths : int or array_like of int, optional
        ``(B,)``: valid steps of each sequence, 0..T. The rest is padding: it is not read, its
        output is 0 and it does not move the state. The backward direction starts at the last valid
        step.
    bidirectional : bool, default False
        Every layer has two cells; the second runs from the last step to the first, and its outputs
        are concatenated to those of the first.
    dropout : float, default 0.0
        Probability, in 0 <= dropout < 1, of dropping an output between layers.
    rng : None, int or numpy.random.Generator, optional
        For the dropout.

    Returns
    -------
    outputs : ndarray
        ``(B, T, H * directions)``: the states h of the last layer at every step.
    state : ndarray{or_pair}
        ``(layers * directions, B, H)``: the state after each sequence's last valid step.

    Raises
    ------
    TypeError
        If an array is not real, or a masked array or a tensor of another library; if lengths are
        not integers, bidirectional is not a bool or dropout not a number. From the pullback: if it
        is called without any incoming gradient.
    ValueError
        If a shape does not fit, a length is outside 0..T, or dropout is out of range.

    See Also
    --------
    attnc.vjp : the gradients, ``dx, dparameters = pullback(doutputs, dstate)``; also ``.state``

    Notes
    -----
    float32 and float64 are each computed in themselves, narrower floats in float32, and rounded
    once, at the end, where the arrays are all of one narrower dtype. The bits do not depend on the
    number of threads.
"""


def _documented(function):
    if function.__doc__:  # None under python -OO
        pair = function is lstm
        text = _DOC.replace("{pair}", ", a pair (h, c)" if pair else "")
        text = text.replace("{or_pair}", ", or a pair (h, c) of them" if pair else "")
        function.__doc__ = function.__doc__.replace("    {parameters}\n", text)


def rnn(
    x: Real,
    parameters: Sequence[Real],
    state: State | None = None,
    lengths: Integers | None = None,
    *,
    bidirectional: bool = False,
    dropout: float = 0.0,
    rng: Seed = None,
) -> RecurrentOutput:
    """Simple recurrent network over whole sequences.

    ``h_t = tanh(x_t W + b + h_(t-1) U + c)``: Elman 1990, "Finding structure in time"; the same
    function as `torch.nn.RNN`.

    {parameters}

    Examples
    --------
    >>> import numpy as np, attnc
    >>> W, U, b = np.ones((4, 3)), np.ones((3, 3)), np.zeros(3)
    >>> outputs, state = attnc.functional.rnn(np.ones((2, 5, 4)), [W, U, b, b], lengths=[5, 3])
    >>> outputs.shape, state.shape
    ((2, 5, 3), (1, 2, 3))
    """
    return Recurrence(
        "rnn", x, parameters, state, lengths, bidirectional=bidirectional, dropout=dropout, rng=rng
    ).output


def gru(
    x: Real,
    parameters: Sequence[Real],
    state: State | None = None,
    lengths: Integers | None = None,
    *,
    bidirectional: bool = False,
    dropout: float = 0.0,
    rng: Seed = None,
) -> RecurrentOutput:
    """Gated recurrent units over whole sequences.

    ::

        r_t = sigmoid(x_t W_r + b_r + h_(t-1) U_r + c_r)          reset gate
        z_t = sigmoid(x_t W_z + b_z + h_(t-1) U_z + c_z)          update gate
        n_t = tanh(x_t W_n + b_n + r_t * (h_(t-1) U_n + c_n))     new state
        h_t = (1 - z_t) * n_t + z_t * h_(t-1)

    Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder for statistical
    machine translation", eq. 5-8, with r after the product with U_n; the same function as
    `torch.nn.GRU`. The gates stand side by side in the order r, z, n (Keras: z, r, n).

    {parameters}

    Examples
    --------
    >>> import numpy as np, attnc
    >>> W, U, b = np.ones((4, 9)), np.ones((3, 9)), np.zeros(9)
    >>> x = np.ones((2, 5, 4))
    >>> (outputs, state), pullback = attnc.vjp(attnc.functional.gru, x, [W, U, b, b])
    >>> dx, (dW, dU, db, dc) = pullback(outputs)
    """
    return Recurrence(
        "gru", x, parameters, state, lengths, bidirectional=bidirectional, dropout=dropout, rng=rng
    ).output


def lstm(
    x: Real,
    parameters: Sequence[Real],
    state: State | None = None,
    lengths: Integers | None = None,
    *,
    bidirectional: bool = False,
    dropout: float = 0.0,
    rng: Seed = None,
) -> RecurrentOutput:
    """Long short-term memory over whole sequences.

    ::

        i_t, f_t, o_t = sigmoid(x_t W + b + h_(t-1) U + c)        input, forget and output gate
        g_t = tanh(x_t W_g + b_g + h_(t-1) U_g + c_g)             cell input
        c_t = f_t * c_(t-1) + i_t * g_t
        h_t = o_t * tanh(c_t)

    Hochreiter and Schmidhuber 1997, "Long short-term memory", with the forget gate of Gers et al.
    2000, "Learning to forget"; the same function as `torch.nn.LSTM`. The gates stand side by side
    in the order i, f, g, o (Keras has the same order, and calls g c).

    {parameters}

    Examples
    --------
    >>> import numpy as np, attnc
    >>> W, U, b = np.ones((4, 12)), np.ones((3, 12)), np.zeros(12)
    >>> outputs, (h, c) = attnc.functional.lstm(np.ones((2, 5, 4)), [W, U, b, b])
    >>> outputs.shape, h.shape, c.shape
    ((2, 5, 3), (1, 2, 3), (1, 2, 3))
    """
    return Recurrence(
        "lstm", x, parameters, state, lengths, bidirectional=bidirectional, dropout=dropout, rng=rng
    ).output


def _forward(kind):
    """The forward pass of the record of this kind, with the signature of its function."""

    def forward(
        x, parameters, state=None, lengths=None, *, bidirectional=False, dropout=0.0, rng=None
    ):
        recurrence = Recurrence(
            kind, x, parameters, state, lengths,
            bidirectional=bidirectional, dropout=dropout, rng=rng,
        )  # fmt: skip
        return recurrence.output, *parted(recurrence)

    return forward


def _backward(saved, static, doutputs, dstate):
    return together(saved, static).backward(doutputs, dstate)


def _outputs(kind):
    """What a function of this kind returns, by shapes."""

    def outputs(x, parameters, state=None, lengths=None, *, bidirectional=False, **options):
        B, T, _ = shape_of(x)
        H = shape_of(parameters[1])[0]
        last = Output((len(parameters) // len(PARAMETERS), B, H))
        width = 2 * H if bidirectional else H
        state = joined([last] * len(CELLS[kind].state))
        return RecurrentOutput(Output((B, T, width)), state)

    return outputs


_FUNCTIONS = {"rnn": rnn, "gru": gru, "lstm": lstm}

for _function in _FUNCTIONS.values():
    _documented(_function)
    register(
        _function,
        required=("x", "parameters"),
        optional=("state",),
        incoming=("doutputs", "dstate"),
        forward=_forward(_function.__name__),
        backward=_backward,
        outputs=_outputs(_function.__name__),
        fixed=("lengths",),
        batch_axes={"x": 0, "state": 1, "lengths": 0, "outputs": 0},
        **by_formula(_function),
    )

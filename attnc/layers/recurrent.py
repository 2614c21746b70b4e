"""RNN, GRU and LSTM over whole sequences; the cells and the loop over time under them.

From the inside out:

- a *cell* (`RNNCell`, `GRUCell`, `LSTMCell`) knows one step: `forward` and, beside it, `backward`;
- a `Packing` lays a batch out in time so that padding is in no array at all;
- a `Sweep` takes one cell over the steps of a packed batch, forward and back. The attention decoder
  uses it too;
- a layer (`RNN`, `GRU`, `LSTM`) stacks sweeps: layers upwards, directions side by side.

Products with a cell's inputs do not depend on its state: those of all steps are one product before
the loop. The loop itself does the product with the state and a few element-wise operations. The
gradients of the weights are again one product, after the loop back.
"""

import collections
import inspect

import numpy as np

from ..arrays import like
from ..gradients import Gradients
from .base import Layer, Output, add_dropout, glorot, orthogonal, positive


class RecurrentOutput(Output, collections.namedtuple("RecurrentOutput", ["outputs", "state"])):
    """What a recurrent layer returns: ``outputs, state``."""

    __slots__ = ()


def sigmoid(x):
    """Logistic function in place. By tanh, since exp(-x) overflows for x < -88 in float32."""
    x *= 0.5
    np.tanh(x, out=x)
    x *= 0.5
    x += 0.5


# ---- One step of one cell ------------------------------------------------------------------------


class Cell(Layer):
    """One step: from the inputs' product and the state before to the state after.

    Parameters (G gates, H = state_size): ``input_weight (input_size, G*H)``, ``state_weight (H,
    G*H)``, ``input_bias``, ``state_bias (G*H,)``; gates side by side in the order of `torch.nn`.

    For n rows (sequences), `forward(gates, saved, before, after)` has
      gates   (n, G*H)  in: x input_weight + input_bias; out: the values of the gates
      saved   (n, H)    out: one more array that backward needs (not for the RNN)
      before, after     in, out: the state, one (n, H) array each of `state_names`
    and `backward(dstate, gates, saved, before, after, dinput, dproduct)` has
      dstate            in: gradient of the state after, in place out: of the state before,
                        but for the path through the product h state_weight, which the sweep adds
      dinput  (n, G*H)  out: gradient of x input_weight + input_bias
      dproduct (n, G*H) out: gradient of h state_weight + state_bias (for all but the GRU, where
                        the reset gate comes between, it is the same array as dinput)
    """

    gate_count = 1
    state_names = ("h",)

    def __init__(self, input_size, state_size, *, rng=None, dtype="float32"):
        super().__init__(dtype)
        self.input_size = input_size
        self.state_size = state_size
        rng = np.random.default_rng(rng)
        width = self.gate_count * state_size
        self.add_parameter("input_weight", glorot(rng, input_size, state_size, self.gate_count))
        self.add_parameter("state_weight", orthogonal(rng, state_size, self.gate_count))
        self.add_parameter("input_bias", np.zeros(width))
        self.add_parameter("state_bias", np.zeros(width))

    def product(self, h):
        """h state_weight + state_bias."""
        product = h @ self._parameters["state_weight"]
        product += self._parameters["state_bias"]
        return product

    def split(self, gates):
        """The gates, each a view (n, H)."""
        H = self.state_size
        return [gates[:, k * H : (k + 1) * H] for k in range(self.gate_count)]


class RNNCell(Cell):
    """``h' = tanh(x W + b + h U + c)``: Elman (1990), "Finding structure in time"."""

    def forward(self, gates, saved, before, after):
        gates += self.product(before[0])
        np.tanh(gates, out=after[0])

    def backward(self, dstate, gates, saved, before, after, dinput, dproduct):
        # in the forward pass: h' = tanh(gates)
        np.multiply(after[0], after[0], out=dinput)
        np.subtract(1, dinput, out=dinput)
        dinput *= dstate[0]
        dstate[0].fill(0)


class GRUCell(Cell):
    """A step of a gated recurrent unit: Cho et al. (2014), in the variant of cuDNN and `torch.nn`.

    r  = sigmoid(x W_r + b_r + h U_r + c_r)         reset
    z  = sigmoid(x W_z + b_z + h U_z + c_z)         update
    n  = tanh(x W_n + b_n + r * (h U_n + c_n))      new: reset after the product
    h' = (1 - z) * n + z * h
    """

    gate_count = 3

    def forward(self, gates, saved, before, after):
        (h,), (new,), H = before, after, self.state_size
        product = self.product(h)
        both = gates[:, : 2 * H]  # r and z
        both += product[:, : 2 * H]
        sigmoid(both)
        r, z, n = self.split(gates)
        saved[...] = product[:, 2 * H :]
        np.multiply(r, saved, out=new)
        n += new
        np.tanh(n, out=n)
        np.subtract(h, n, out=new)  # h' = n + z * (h - n)
        new *= z
        new += n

    def backward(self, dstate, gates, saved, before, after, dinput, dproduct):
        (dh,), (h,), H = dstate, before, self.state_size
        r, z, n = self.split(gates)
        dr, dz, dn = self.split(dinput)
        # in the forward pass: h' = (1 - z) * n + z * h
        np.subtract(h, n, out=dz)
        dz *= dh
        np.multiply(dh, z, out=dproduct[:, :H])  # dh of the state before, kept for a moment
        np.subtract(dh, dproduct[:, :H], out=dn)
        dh[...] = dproduct[:, :H]
        # n = tanh(x W_n + b_n + r * saved)
        slope = n * n
        np.subtract(1, slope, out=slope)
        dn *= slope
        np.multiply(dn, saved, out=dr)
        # r, z = sigmoid(.)
        both, values = dinput[:, : 2 * H], gates[:, : 2 * H]
        both *= values
        both *= 1 - values
        dproduct[:, : 2 * H] = both
        np.multiply(dn, r, out=dproduct[:, 2 * H :])


class LSTMCell(Cell):
    """A step of long short-term memory: Hochreiter and Schmidhuber (1997), with the forget gate of
    Gers et al. (2000), which starts open (bias 1; Jozefowicz et al. 2015).

        i, f, o = sigmoid(x W + b + h U + c)            input, forget, output: each its own W ... c
        g  = tanh(x W_g + b_g + h U_g + c_g)            cell input; side by side: i, f, g, o
        c' = f * c + i * g
        h' = o * tanh(c')
    """

    gate_count = 4
    state_names = ("h", "c")

    def __init__(self, input_size, state_size, *, rng=None, dtype="float32"):
        super().__init__(input_size, state_size, rng=rng, dtype=dtype)
        self._parameters["input_bias"][state_size : 2 * state_size] = 1

    def forward(self, gates, saved, before, after):
        (h, c), (h_new, c_new) = before, after
        gates += self.product(h)
        i, f, g, o = self.split(gates)
        sigmoid(gates[:, : 2 * self.state_size])  # i and f
        sigmoid(o)
        np.tanh(g, out=g)
        np.multiply(f, c, out=c_new)
        np.multiply(i, g, out=saved)
        c_new += saved
        np.tanh(c_new, out=saved)
        np.multiply(o, saved, out=h_new)

    def backward(self, dstate, gates, saved, before, after, dinput, dproduct):
        (dh, dc), (_, c) = dstate, before
        i, f, g, o = self.split(gates)
        di, df, dg, do = self.split(dinput)
        # in the forward pass: h' = o * tanh(c'), and saved = tanh(c')
        np.multiply(dh, saved, out=do)
        do *= o
        do *= 1 - o
        np.multiply(saved, saved, out=di)
        np.subtract(1, di, out=di)
        di *= o
        di *= dh
        dc += di
        dh.fill(0)
        # c' = f * c + i * g
        np.multiply(dc, i, out=dg)
        np.multiply(dc, g, out=di)
        np.multiply(dc, c, out=df)
        dc *= f
        # i, f = sigmoid(.), g = tanh(.)
        both, values = dinput[:, : 2 * self.state_size], gates[:, : 2 * self.state_size]
        both *= values
        both *= 1 - values
        slope = g * g
        np.subtract(1, slope, out=slope)
        dg *= slope


CELLS = {"rnn": RNNCell, "gru": GRUCell, "lstm": LSTMCell}


# ---- The loop over time --------------------------------------------------------------------------


class Packing:
    """The valid steps of a batch as rows, time after time, the longest sequence first.

        lengths 2, 4, 3     step 0: b1 b2 b0    step 1: b1 b2 b0    step 2: b1 b2    step 3: b1

    Each step is one block of rows, the sequences still running are always its first ones, and
    padding is nowhere: it is neither computed nor read. With `reverse` every sequence runs from its
    own last valid step to its first.
    """

    def __init__(self, batch, time, lengths=None, reverse=False):
        if lengths is None:
            lengths = np.full(batch, time)
        self.shape = batch, time
        self.order = np.argsort(-lengths, kind="stable")  # row -> sequence
        sorted_lengths = lengths[self.order]
        steps = int(sorted_lengths[0]) if batch else 0
        self.counts = (sorted_lengths[None] > np.arange(steps)[:, None]).sum(axis=1).tolist()
        starts = np.concatenate([[0], np.cumsum(self.counts, dtype=np.intp)])
        self.rows = [
            slice(start, end)
            for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
        ]
        # Row -> step of the batch-major array flattened to (batch * time, ...).
        t = np.repeat(np.arange(steps), self.counts)
        row = np.arange(starts[-1]) - starts[t]
        sequence = self.order[row]
        self.flat = sequence * time + (lengths[sequence] - 1 - t if reverse else t)
        # In a buffer of states, `batch` rows before step 0 and then the rows of all steps: where
        # each row's state before lies, and each sequence's last.
        self.before = np.where(t == 0, row, batch + starts[t - 1] + row)
        last = batch + starts[sorted_lengths - 1] + np.arange(batch)
        self.last = np.where(sorted_lengths == 0, np.arange(batch), last)

    def pack(self, x):
        """(batch, time, size) -> (rows, size); the valid steps, copied."""
        return x.reshape(-1, x.shape[2]).take(self.flat, axis=0)

    def add(self, rows, out, columns=slice(None)):
        """Add rows to where they came from: columns of `out` (batch, time, size), C-contiguous."""
        out.reshape(-1, out.shape[2])[self.flat, columns] += rows


class Sweep:
    """One cell over the steps of a packed batch, forward and back: the body of every loop.

        sweep = Sweep(cell, packing, gates, state)   gates (rows, G*H): x input_weight + input_bias
        for t in range(len(packing.rows)): sweep.forward(t)
        sweep.outputs, sweep.final

        sweep.start_back(dfinal)
        for t in reversed(...): sweep.backward(t, doutputs[packing.rows[t]])
        dgates = sweep.finish()                      and sweep.dstate: of the initial state

    The caller may add to rows of `gates` until their step runs, and to `dstate` between steps back;
    this is how a decoder feeds something back. State arrays are (batch, H), in packed order.
    """

    def __init__(self, cell, packing, gates, state):
        self.cell, self.packing, self.gates = cell, packing, gates
        batch, H = len(packing.order), cell.state_size
        self.states = [np.empty((batch + len(gates), H), gates.dtype) for _ in state]
        for buffer, initial in zip(self.states, state, strict=True):
            buffer[:batch] = initial
        self.outputs = self.states[0][batch:]
        self.saved = np.empty((0 if cell.gate_count == 1 else len(gates), H), gates.dtype)
        # Views of every step, made once: slicing costs as much as a small product.
        after = [slice(rows.start + batch, rows.stop + batch) for rows in packing.rows]
        starts = (rows.start for rows in after)
        before = [
            slice(start, start + count)
            for start, count in zip([0, *starts], packing.counts, strict=False)  # the last is spare
        ]
        self._steps = [
            (
                gates[rows],
                self.saved[rows],
                [s[b] for s in self.states],
                [s[a] for s in self.states],
            )
            for rows, b, a in zip(packing.rows, before, after, strict=True)
        ]

    @property
    def final(self):
        """The state after each sequence's last step: a list of (batch, H) arrays."""
        return [buffer[self.packing.last] for buffer in self.states]

    def forward(self, t):
        self.cell.forward(*self._steps[t])

    def start_back(self, dfinal):
        """Begin with the gradient of the final state: (batch, H) arrays, which become `dstate`."""
        self.dstate = dfinal
        self.dinput = np.empty_like(self.gates)
        self.dproduct = np.empty_like(self.gates) if self.cell.gate_count == 3 else self.dinput
        self._state_weight_t = np.ascontiguousarray(self.cell._parameters["state_weight"].T)

    def backward(self, t, doutput):
        """One step back; `doutput` (n, H) or None adds to the gradient of h after it."""
        rows, count = self.packing.rows[t], self.packing.counts[t]
        dstate = [d[:count] for d in self.dstate]  # sequences that have not ended yet
        if doutput is not None:
            dstate[0] += doutput
        dproduct = self.dproduct[rows]
        self.cell.backward(dstate, *self._steps[t], self.dinput[rows], dproduct)
        dstate[0] += dproduct @ self._state_weight_t  # product = h state_weight + state_bias

    def finish(self):
        """Add the gradients of state_weight and the biases; return that of `gates`."""
        gradients = self.cell._gradients
        gradients["state_weight"] += self.states[0][self.packing.before].T @ self.dproduct
        gradients["state_bias"] += self.dproduct.sum(axis=0)
        gradients["input_bias"] += self.dinput.sum(axis=0)
        return self.dinput


# ---- The layers ----------------------------------------------------------------------------------


def parts(state, count):
    """The arrays of a state as users hold it: the array itself, or the tuple of several."""
    return [state] if count == 1 else state


def join(arrays):
    """The state as users hold it: one array alone, several as a tuple."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def read_state(layer, name, state, names, *shape):
    """The arrays of a state, checked and cast; zeros where it, or one of its arrays, is None."""
    if state is None:
        state = join([None] * len(names))
    elif len(names) > 1 and not (isinstance(state, (tuple, list)) and len(state) == len(names)):
        got = f"an array {state.shape}" if isinstance(state, np.ndarray) else repr(type(state))
        raise layer._error(f"{name} must be a tuple ({', '.join(names)}), got {got}", TypeError)
    return [
        np.zeros(shape, layer.dtype) if array is None else layer._real(name, array, *shape)
        for array in parts(state, len(names))
    ]


_PARAMETERS = """\
    Parameters
    ----------
    input_size, state_size : int
        Sizes of a step of x and of the state.
    layers : int
        Layers on top of each other; each takes the outputs of the one below.
    bidirectional : bool
        Whether a second set of cells runs from the last step to the first; its outputs are
        concatenated to those of the first.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping an output between layers when called with
        ``train=True``; those of the last layer are never dropped.
    rng : None, int or numpy.random.Generator
        Initial weights: for inputs uniform after Glorot and Bengio (2010), for states orthogonal
        (Saxe et al. 2014), each gate on its own; biases start at zero.
    dtype : float32 or float64
        Of the parameters; inputs are cast to it.

    Attributes
    ----------
    parameters : dict
        For the cell of each layer and direction, in the order of the state's first axis:
        ``cells.0.input_weight (input size of the layer, G * state_size)``, ``cells.0.state_weight
        (state_size, G * state_size)``, ``cells.0.input_bias``, ``cells.0.state_bias (G *
        state_size,)`` with G gates side by side; transposed, they are `weight_ih_l0`,
        `weight_hh_l0`, `bias_ih_l0` and `bias_hh_l0` of `torch.nn`, in the same order of gates.

    Raises
    ------
    ValueError
        If a size is not a positive integer or dropout is out of range.
    TypeError
        If dtype is neither float32 nor float64.
"""


class _Recurrent(Layer):
    """What RNN, GRU and LSTM share: everything but the cell."""

    _cell = None

    def __init_subclass__(cls):
        if cls.__doc__:  # None under python -OO
            doc, parameters = inspect.cleandoc(cls.__doc__), inspect.cleandoc(_PARAMETERS)
            cls.__doc__ = doc.replace("{parameters}", parameters)

    def __init__(
        self,
        input_size,
        state_size,
        layers=1,
        bidirectional=False,
        *,
        dropout=0.0,
        rng=None,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(self, input_size=input_size, state_size=state_size, layers=layers)
        if not 0 <= dropout < 1:
            raise self._error(f"dropout must lie in 0 <= dropout < 1, got {dropout}")
        self.input_size = input_size
        self.state_size = state_size
        self.layers = layers
        self.bidirectional = bool(bidirectional)
        self.dropout = dropout
        rng = np.random.default_rng(rng)
        directions = 1 + self.bidirectional
        self.cells = [
            self._cell(
                input_size if layer == 0 else directions * state_size,
                state_size,
                rng=rng,
                dtype=dtype,
            )
            for layer in range(layers)
            for _ in range(directions)
        ]

    @property
    def output_size(self):
        """int: size of a step of the outputs, state_size times the number of directions."""
        return self.state_size * (1 + self.bidirectional)

    def __call__(self, x, state=None, lengths=None, *, train=False, rng=None):
        """Run over whole sequences: compute, and remember nothing.

        Parameters
        ----------
        x : array_like, shape (B, T, input_size)
        state : array_like, shape (layers * directions, B, state_size), optional
            Initial state, for the LSTM a pair (h, c); zeros unless given. Row ``layer * directions
            + direction`` of the first axis belongs to the cell of that number.
        lengths : int or array_like of int, shape (B,), optional
            Valid steps of each sequence, 0..T; the rest is padding: it is not read, its output is 0
            and it does not move the state. The backward direction starts at the last valid step.
        train : bool
            Whether to apply the dropout between layers.
        rng : None, int or numpy.random.Generator
            For the dropout.

        Returns
        -------
        outputs : ndarray, shape (B, T, state_size * directions)
            States h of the last layer at every step.
        state : ndarray, shape (layers * directions, B, state_size)
            State after each sequence's last valid step; for the LSTM a pair (h, c).

        Raises
        ------
        TypeError
            If x or state is not real, or lengths are not integers.
        ValueError
            If a shape does not fit or a length is outside 0..T.
        """
        return self._vjp(x, state, lengths, train=train, rng=rng)[0]

    def _vjp(self, x, state=None, lengths=None, *, train=False, rng=None):
        given_x, given_state = x, state
        x = self._real("x", x, "B", "T", self.input_size)
        B, T, H = *x.shape[:2], self.state_size
        directions, names = 1 + self.bidirectional, self._cell.state_names
        if lengths is not None:
            lengths = self._lengths("lengths", lengths, B, T)
        packings = [Packing(B, T, lengths, reverse) for reverse in (False, True)[:directions]]
        order = packings[0].order  # the same for both directions
        state = read_state(self, "state", state, names, len(self.cells), B, H)
        rng = np.random.default_rng(rng) if train and self.dropout else None

        final = [np.empty((len(self.cells), B, H), self.dtype) for _ in state]
        tape = []  # per layer: sweeps, packed inputs, dropout
        for layer in range(self.layers):
            factor = None
            if layer and rng is not None:
                x, factor = add_dropout(rng, x, self.dropout)
            outputs = np.zeros((B, T, directions * H), self.dtype)
            sweeps, inputs = [], []
            for d, packing in enumerate(packings):
                index = layer * directions + d
                cell = self.cells[index]
                packed = packing.pack(x)
                gates = packed @ cell._parameters["input_weight"]
                gates += cell._parameters["input_bias"]
                sweep = Sweep(cell, packing, gates, [s[index, order] for s in state])
                for t in range(len(packing.rows)):
                    sweep.forward(t)
                packing.add(sweep.outputs, outputs, slice(d * H, (d + 1) * H))
                for array, last in zip(final, sweep.final, strict=True):
                    array[index, order] = last
                sweeps.append(sweep)
                inputs.append(packed)
            tape.append((sweeps, inputs, factor))
            x = outputs

        def pullback(doutputs=None, dstate=None):
            dx = self._incoming("doutputs", doutputs, outputs.shape)
            dfinal = read_state(self, "dstate", dstate, names, len(self.cells), B, H)
            dinitial = [np.empty_like(d) for d in dfinal]
            for layer in reversed(range(self.layers)):
                sweeps, inputs, factor = tape[layer]
                below = np.zeros((B, T, sweeps[0].cell.input_size), self.dtype)
                for d, (packing, sweep, packed) in enumerate(
                    zip(packings, sweeps, inputs, strict=True)
                ):
                    index = layer * directions + d
                    dpacked = None if dx is None else packing.pack(dx[..., d * H : (d + 1) * H])
                    sweep.start_back([s[index, order] for s in dfinal])
                    for t in reversed(range(len(packing.rows))):
                        sweep.backward(t, None if dx is None else dpacked[packing.rows[t]])
                    dgates = sweep.finish()
                    sweep.cell._gradients["input_weight"] += packed.T @ dgates
                    packing.add(dgates @ sweep.cell._parameters["input_weight"].T, below)
                    for array, first in zip(dinitial, sweep.dstate, strict=True):
                        array[index, order] = first
                dx = below if factor is None else below * factor
            optional = {}
            if given_state is not None:
                optional["state"] = join(
                    [
                        like(d, s)
                        for d, s in zip(dinitial, parts(given_state, len(names)), strict=True)
                    ]
                )
            return Gradients({"x": like(dx, given_x)}, optional)

        return RecurrentOutput(outputs, join(final)), pullback


class RNN(_Recurrent):
    """Simple recurrent network over whole sequences.

    ``h_t = tanh(x_t W + b + h_(t-1) U + c)``: Elman (1990), "Finding structure in time"; the same
    function as `torch.nn.RNN`.

    {parameters}
    """

    _cell = RNNCell


class GRU(_Recurrent):
    """Gated recurrent units over whole sequences.

    ::

        r_t = sigmoid(x_t W_r + b_r + h_(t-1) U_r + c_r)          reset gate
        z_t = sigmoid(x_t W_z + b_z + h_(t-1) U_z + c_z)          update gate
        n_t = tanh(x_t W_n + b_n + r_t * (h_(t-1) U_n + c_n))     new state
        h_t = (1 - z_t) * n_t + z_t * h_(t-1)

    Cho et al. (2014), "Learning phrase representations using RNN encoder-decoder for statistical
    machine translation", eq. 5-8, with r after the product with U_n; the same function as
    `torch.nn.GRU`. The gates stand side by side in the order r, z, n.

    {parameters}

    Examples
    --------
    >>> import numpy as np, attnc
    >>> encoder = attnc.GRU(input_size=4, state_size=8, bidirectional=True, rng=0)
    >>> x = np.ones((2, 5, 4))
    >>> (memory, state), pullback = attnc.vjp(encoder, x, lengths=[5, 3])
    >>> memory.shape, state.shape
    ((2, 5, 16), (2, 2, 8))
    >>> (dx,) = pullback(np.ones_like(memory))  # and adds into encoder.gradients
    """

    _cell = GRUCell


class LSTM(_Recurrent):
    """Long short-term memory over whole sequences.

    ::

        i_t, f_t, o_t = sigmoid(x_t W + b + h_(t-1) U + c)        input, forget and output gate
        g_t = tanh(x_t W_g + b_g + h_(t-1) U_g + c_g)             cell input
        c_t = f_t * c_(t-1) + i_t * g_t
        h_t = o_t * tanh(c_t)

    Hochreiter and Schmidhuber (1997), "Long short-term memory", with the forget gate of Gers et al.
    (2000); the same function as `torch.nn.LSTM`. The gates stand side by side in the order i, f, g,
    o. The forget gate's ``input_bias`` starts at 1.

    {parameters}
    """

    _cell = LSTMCell

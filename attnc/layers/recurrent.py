"""RNN, GRU and LSTM over whole sequences, as layers: `attnc.functional` with parameters."""

from __future__ import annotations

import inspect
from typing import ClassVar

import numpy as np

from ..arrays import flag, generator, probability
from ..functional.recurrent import CELLS as SORTS
from ..functional.recurrent import PARAMETERS, RecurrentOutput, run
from ..gradients import Gradients
from ..typing import DType, Integers, Real, Seed, State
from .base import Layer, glorot, method_of, orthogonal, positive
from .torch_weights import TorchArray, TorchWeights, flat, transposed


class Cell(Layer):
    """The parameters of one cell.

    ``input_weight (input_size, G*H)``, ``state_weight (H, G*H)``, ``input_bias``, ``state_bias
    (G*H,)`` with G gates side by side in the order of `torch.nn`.
    """

    kind: ClassVar[str]

    def __init__(self, input_size, state_size, *, rng=None, dtype="float32"):
        super().__init__(dtype)
        self.input_size = input_size
        self.state_size = state_size
        rng = generator(type(self).__name__, rng)
        gates = SORTS[self.kind].gates
        self.add_parameter("input_weight", glorot(rng, input_size, state_size, gates))
        self.add_parameter("state_weight", orthogonal(rng, state_size, gates))
        self.add_parameter("input_bias", np.zeros(gates * state_size))
        self.add_parameter("state_bias", np.zeros(gates * state_size))


class RNNCell(Cell):
    kind = "rnn"


class GRUCell(Cell):
    kind = "gru"


class LSTMCell(Cell):
    """An LSTM cell, whose forget gate starts open (bias 1; Jozefowicz et al. 2015)."""

    kind = "lstm"

    def __init__(self, input_size, state_size, *, rng=None, dtype="float32"):
        super().__init__(input_size, state_size, rng=rng, dtype=dtype)
        self._parameters["input_bias"][state_size : 2 * state_size] = 1


# TORCH_NAMES are those of the parameters of a cell in torch.nn, in the order of PARAMETERS.
TORCH_NAMES = "weight_ih", "weight_hh", "bias_ih", "bias_hh"

CELLS = {cell.kind: cell for cell in (RNNCell, GRUCell, LSTMCell)}


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
        If dtype is neither float32 nor float64, bidirectional not a bool or dropout not a number.
"""


class _Recurrent(TorchWeights):
    """What RNN, GRU and LSTM share: everything but the cell."""

    _cell: ClassVar[type[Cell]]

    def __init_subclass__(cls):
        if cls.__doc__:  # python -OO removes docstrings
            doc, parameters = inspect.cleandoc(cls.__doc__), inspect.cleandoc(_PARAMETERS)
            cls.__doc__ = doc.replace("{parameters}", parameters)
        if _Recurrent in cls.__bases__:
            # A class has methods of its own, so that Python's errors (an unknown argument) name it.
            shared = "__init__", "__call__", "_vjp", "load_torch_state_dict", "torch_state_dict"
            for name in shared:
                setattr(cls, name, method_of(cls, getattr(_Recurrent, name)))

    def __init__(
        self,
        input_size: int,
        state_size: int,
        layers: int = 1,
        bidirectional: bool = False,
        *,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        where = type(self).__name__
        input_size, state_size, layers = positive(
            self, input_size=input_size, state_size=state_size, layers=layers
        )
        self.input_size, self.state_size, self.layers = input_size, state_size, layers
        self.bidirectional = flag(where, "bidirectional", bidirectional)
        self.dropout = probability(where, "dropout", dropout)
        rng = generator(where, rng)
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
    def output_size(self) -> int:
        """int: size of a step of the outputs, state_size times the number of directions."""
        return self.state_size * (1 + self.bidirectional)

    def __call__(
        self,
        x: Real,
        state: State | None = None,
        lengths: Integers | None = None,
        *,
        train: bool = False,
        rng: Seed = None,
    ) -> RecurrentOutput:
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
            If x or state is not real, lengths are not integers, or train is not a bool.
        ValueError
            If a shape does not fit or a length is outside 0..T.
        """
        return self._vjp(x, state, lengths, train=train, rng=rng)[0]

    def _torch_arrays(self) -> dict[str, TorchArray]:
        arrays = {}
        for index, cell in enumerate(self.cells):
            layer, direction = divmod(index, 1 + self.bidirectional)
            suffix = f"_l{layer}{'_reverse' if direction else ''}"
            for name, theirs in zip(PARAMETERS, TORCH_NAMES, strict=True):
                array = cell._parameters[name]
                arrays[theirs + suffix] = transposed(array) if array.ndim == 2 else flat(array)
        return arrays

    def _vjp(self, x, state=None, lengths=None, *, train=False, rng=None):
        train = flag(type(self).__name__, "train", train)
        parameters = [cell._parameters[name] for cell in self.cells for name in PARAMETERS]
        output, back = run(
            self._cell.kind,
            x,
            parameters,
            state,
            lengths,
            bidirectional=self.bidirectional,
            dropout=self.dropout if train else 0.0,
            rng=rng,
            where=type(self).__name__,
            dtype=self.dtype,
        )

        def pullback(doutputs=None, dstate=None):
            dx, dparameters, dinitial = back(doutputs, dstate)
            down = iter(dparameters)
            for cell in self.cells:
                for name in PARAMETERS:
                    cell.add_gradient(name, next(down))
            return Gradients({"x": dx}, {} if state is None else {"state": dinitial})

        return output, pullback


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

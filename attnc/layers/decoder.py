"""AttentionDecoder: a recurrent decoder that attends to a memory at every step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import (
    flag,
    generator,
    integer,
    integer_array,
    like,
    number,
    plain_array,
    quiet,
    sum_rows,
)
from ..functional.decoder import (
    NAMED,
    allowed_keys,
    attention_decoder,
    check_alignment,
    check_choice,
    check_fertility,
    check_hard,
    check_local,
    refuse_hard,
)
from ..functional.decoder_run import (
    SCORES,
    Decoder,
    DecoderOutput,
    MaskedMemory,
    PreparedMemory,
    Run,
    last_step,
)
from ..functional.recurrent import CELLS as SORTS
from ..functional.recurrent import PARAMETERS, joined, nothing
from ..gradients import Gradients, require_incoming, vjp
from ..mode import mode
from ..typing import Bools, DType, Integers, Real, Seed, State
from .attention import (
    AdditiveAttention,
    CosineAttention,
    DotProductAttention,
    MultiplicativeAttention,
)
from .base import Layer, glorot, positive
from .recurrent import CELLS

COVERAGES = "linear", "tanh", "fertility"


def check_coverage(where, coverage, attention):
    """The option of that name: False, True, or one of `COVERAGES`."""
    if isinstance(coverage, str):
        check_choice(where, "coverage", coverage, COVERAGES)
    else:
        coverage = flag(where, "coverage", coverage)
    if coverage and attention == "none":
        raise ValueError(f"{where}: coverage must be False for attention='none', got {coverage!r}")
    if coverage == "tanh" and attention != "additive":
        raise ValueError(
            f"{where}: coverage must not be 'tanh' for attention={attention!r} (only 'additive' "
            "has a tanh; coverage='linear' suits any score)"
        )
    return coverage


def _energy_options(where, alignment, offset, noise):
    """energy_offset and energy_noise, checked."""
    for name, value in (("energy_offset", offset), ("energy_noise", noise)):
        if value is not None and alignment == "soft":
            raise ValueError(f"{where}: {name} must be None for alignment='soft', got {value!r}")
    if offset is not None:
        offset = number(where, "energy_offset", offset, "be finite", math.isfinite)
    if noise is not None:
        noise = number(
            where, "energy_noise", noise, "be finite and 0 or more", lambda x: 0 <= x < math.inf
        )
    return offset, noise


class AttentionDecoder(Layer):
    """Recurrent decoder that attends to a memory, such as an encoder's outputs, at every step.

    With s_t the state h of the top layer, y_t the input of step t (the previous word's vector) and
    c_t the context, attended from the memory:

    - ``order="bahdanau"``, Bahdanau et al. (2015), appendix A.2.2: attend with the state before,
      feed the context to the cell. ::

          c_t = attention(s_(t-1), memory)      s_t = cell([y_t; c_t], s_(t-1))      output s_t

    - ``order="luong"``, Luong et al. (2015), eq. 5: attend with the new state. ::

          s_t = cell(y_t, s_(t-1))      c_t = attention(s_t, memory)
          output o_t = tanh([c_t; s_t] W_c)

      With ``input_feeding=True`` (their section 3.3) the cell takes ``[y_t; o_(t-1)]``.

    Parameters
    ----------
    input_size : int
        Size of an input. 0: without the previous word; inputs (B, T, 0) give the number of steps.
    state_size : int
        Size of the state of each layer, and of the outputs.
    memory_size : int
        Size of a step of the memory.
    attention : {'additive', 'multiplicative', 'dot', 'cosine', 'none'}
        The score; see the layers `AdditiveAttention`, `MultiplicativeAttention`,
        `DotProductAttention` (with scale 1: Luong's plain dot) and `CosineAttention`. Dot and
        cosine need memory_size equal to state_size. 'none' is the baseline of a fixed vector: all
        that the decoder gets of a memory is its last valid step, its *summary*.
    attention_size : int, optional
        Hidden units of the additive score; state_size unless given.
    cell : {'gru', 'lstm', 'rnn'}
    layers : int
        Layers of cells on top of each other; the top one attends.
    order : {'bahdanau', 'luong'}
    input_feeding : bool
        See above; for the order 'luong'. Default False.
    coverage : False, True, 'linear', 'tanh' or 'fertility'
        Whether the score of a key feels its coverage C_j, the sum of the weights that earlier steps
        gave it, so that words are not translated twice or left out. With h_j the memory:

        - 'linear', or True: ``coverage_weight * C_j`` is added to the score (after Tu et al. 2016,
          "Modeling coverage for neural machine translation").
        - 'tanh': it is inside the tanh, ``v . tanh(s W_q + h_j W_k + C_j coverage_vector)``, for
          the attention 'additive' (See, Liu and Manning 2017, "Get to the point: summarization with
          pointer-generator networks", eq. 11).
        - 'fertility': 'linear', with a coverage in which every weight counts what it is of how much
          attention its key is expected to need, ``C_j + a_j / Phi_j`` after a step of weights a,
          ``Phi_j = max_fertility * sigmoid(h_j . fertility_vector)``: the linguistic coverage of
          Tu et al. 2016. Theirs enters a tanh.

        All these parameters start at 0, where the coverage is not felt; the fertility is half of
        its maximum. `losses.coverage_loss` punishes attending twice.
    max_fertility : float, optional
        For the coverage 'fertility'; 2, as theirs, unless given.
    window : int, optional
        Local attention (Luong et al. 2015, section 3.2): a step attends to the keys
        ``floor(p) - window <= j <= floor(p) + window`` alone, at a cost that depends on that. For
        any attention but 'none'.
    position : {'monotonic', 'predictive'}
        Where the window is, p: at the number of the step, which the state counts; or where the
        state s that asks predicts, ``(S - 1) sigmoid(position_vector . tanh(s position_weight))``,
        with weights times ``exp(-(j - p)^2 / (2 sigma^2))``. See `LocalAttention`.
    position_size : int, optional
        Columns of position_weight; state_size unless given.
    renormalize : bool
        For 'predictive': the Gaussian is part of the softmax. Default False.
    alignment : {'soft', 'monotonic', 'chunkwise'}
        'soft': a softmax over all keys. 'monotonic': each query begins at the key where the one
        before it stopped, goes from left to right and stops at key j with the probability
        ``sigmoid(e_tj)``; weights are the probabilities to stop there, over all ways (Raffel et al.
        2017, "Online and linear-time attention by enforcing monotonic alignments"). 'chunkwise': it
        attends by softmax to the chunk_width keys that end there (Chiu and Raffel 2018, "Monotonic
        chunkwise attention"). The energy is ``energy_gain v / |v| . tanh(s W_q + h_j W_k +
        score_bias) + energy_offset`` for the attention 'additive', else ``score +
        energy_offset``; inside a chunk scores have parameters of their own, but for 'dot' and
        'cosine'. A call with ``train=True`` adds noise to the energies, so that they learn to be
        sure, and decoding may choose: see `prepare`, ``hard=True``. There is no coverage then.
    chunk_width : int, optional
        For the alignment 'chunkwise': keys of a chunk, 2 unless given.
    energy_offset : float, optional
        Where the parameter of that name starts: the lower, the further does an untrained query
        walk. -1 unless given; the paper suggests -4 for long memories.
    energy_noise : float, optional
        Standard deviation of the noise, 1 unless given.
    summary : {'every_step', 'first_state'}
        For the attention 'none'. 'every_step': the summary takes the place of every context (Cho et
        al. 2014). 'first_state': there are no contexts, and where no state is given the first state
        is tanh(summary W_s + initial) (Sutskever et al. 2014).
    rng : None, int or numpy.random.Generator
        Initial weights; see `GRU` and the attention layers.
    dtype : float32 or float64
        Of the parameters; inputs are cast to it.

    Attributes
    ----------
    parameters : dict
        ``cells.<layer>.<name>`` as in `GRU`, where the rows of ``cells.0.input_weight`` belong to
        [input; what is fed back]; ``score.<name>`` of the attention layer; ``initial_h``, and
        ``initial_c`` for the LSTM, (layers, state_size), the learned state where none is given;
        ``readout_weight (memory_size + state_size, state_size)``, Luong's W_c; ``summary_weight``;
        ``coverage_weight``, a number; ``coverage_vector (attention_size,)``; ``fertility_vector
        (memory_size,)``; ``position_weight (state_size, position_size)`` and ``position_vector
        (position_size,)``; ``energy_offset`` and ``energy_gain``, numbers, the latter first 1 /
        sqrt(attention_size); ``score_bias (attention_size,)``; ``chunk_score.<name>``.
    output_size : int
        state_size.

    Raises
    ------
    ValueError
        If a size is not a positive integer, a name is unknown, or options contradict each other.
    TypeError
        If dtype is neither float32 nor float64, or an option is of the wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> decoder = attnc.AttentionDecoder(4, 8, memory_size=6, attention="additive", rng=0)
    >>> inputs, memory = np.ones((2, 3, 4)), np.ones((2, 5, 6))  # 2 sentences, 3 and 5 steps
    >>> output, pullback = attnc.vjp(decoder, inputs, memory, key_lengths=[5, 4])
    >>> outputs, weights, state = output
    >>> outputs.shape, weights.shape
    ((2, 3, 8), (2, 3, 5))
    >>> dinputs, dmemory = pullback(np.ones_like(outputs))  # and adds into decoder.gradients
    """

    def __init__(
        self,
        input_size: int,
        state_size: int,
        memory_size: int,
        *,
        attention: str = "additive",
        attention_size: int | None = None,
        cell: str = "gru",
        layers: int = 1,
        order: str = "bahdanau",
        input_feeding: bool = False,
        coverage: bool | str = False,
        max_fertility: float | None = None,
        window: int | None = None,
        position: str = "monotonic",
        position_size: int | None = None,
        renormalize: bool = False,
        alignment: str = "soft",
        chunk_width: int | None = None,
        energy_offset: float | None = None,
        energy_noise: float | None = None,
        summary: str = "every_step",
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        where = type(self).__name__
        state_size, memory_size, layers = positive(
            self, state_size=state_size, memory_size=memory_size, layers=layers
        )
        if attention_size is not None:
            (attention_size,) = positive(self, attention_size=attention_size)
        input_size = integer(where, "input_size", input_size, 0)
        input_feeding = flag(where, "input_feeding", input_feeding)
        check_choice(where, "attention", attention, (*SCORES, "none"))
        coverage = check_coverage(where, coverage, attention)
        check_choice(where, "cell", cell, CELLS)
        check_choice(where, "order", order, ("bahdanau", "luong"))
        check_choice(where, "summary", summary, ("every_step", "first_state"))
        check_alignment(where, alignment, chunk_width, attention, window)
        if coverage and alignment != "soft":
            raise self._error(
                f"coverage must be False for alignment={alignment!r}, got {coverage!r} (its "
                "queries do not go back to keys that had attention)"
            )
        if energy_offset is not None or energy_noise is not None:
            energy_offset, energy_noise = _energy_options(
                where, alignment, energy_offset, energy_noise
            )
        if max_fertility is not None:
            max_fertility = check_fertility(where, max_fertility)
            if coverage != "fertility":
                raise self._error(
                    f"max_fertility must be None for coverage={coverage!r}, got {max_fertility} "
                    "(only 'fertility' has one)"
                )
        local = check_local(where, window, position, renormalize, attention)
        if position_size is not None:
            (position_size,) = positive(self, position_size=position_size)
            if position != "predictive":
                raise self._error(
                    f"position_size must be None for position={position!r}, got {position_size} "
                    "(only 'predictive' has one)"
                )
        if attention in ("dot", "cosine") and state_size != memory_size:
            raise self._error(
                f"memory_size must equal state_size for attention={attention!r}, got "
                f"{memory_size} and {state_size} (attention='multiplicative' takes "
                "any sizes)"
            )
        if attention_size is not None and attention != "additive":
            raise self._error(
                f"attention_size must be None for attention={attention!r}, got "
                f"{attention_size} (only 'additive' has one)"
            )
        if summary == "first_state" and attention != "none":
            raise self._error(
                f"summary must be 'every_step' for attention={attention!r}, got "
                "'first_state' (only 'none' has a summary)"
            )
        if input_feeding and order == "bahdanau":
            raise self._error(
                "input_feeding must be False for order='bahdanau', got True "
                "(its context is fed to the cell already)"
            )
        self.input_size = input_size
        self.state_size = self.output_size = state_size
        self.memory_size = memory_size
        self.attention = attention
        self.attention_size = attention_size
        self.cell = cell
        self.layers = layers
        self.order = order
        self.input_feeding = input_feeding
        self.coverage = coverage
        self.max_fertility = max_fertility
        self.window, self.position = local["window"], position
        self.position_size, self.renormalize = position_size, local["renormalize"]
        self.alignment = alignment
        self.chunk_width = None if chunk_width is None else int(chunk_width)
        self.energy_offset, self.energy_noise = energy_offset, energy_noise
        self.summary = summary

        context_size = memory_size if summary == "every_step" else 0
        fed_size = context_size if order == "bahdanau" else state_size * self.input_feeding
        if input_size or not fed_size:
            positive(self, input_size=input_size)  # a cell needs something to read

        rng = generator(where, rng)
        sizes = (state_size if k else input_size + fed_size for k in range(layers))
        self.cells = [CELLS[cell](size, state_size, rng=rng, dtype=dtype) for size in sizes]
        if attention == "additive":
            self.score: Layer = AdditiveAttention(
                state_size, memory_size, attention_size or state_size, rng=rng, dtype=dtype
            )
        elif attention == "multiplicative":
            self.score = MultiplicativeAttention(state_size, memory_size, rng=rng, dtype=dtype)
        elif attention == "dot":
            self.score = DotProductAttention(scale=1.0, dtype=dtype)
        elif attention == "cosine":
            self.score = CosineAttention(dtype=dtype)
        if alignment == "chunkwise" and attention == "additive":
            self.chunk_score: Layer = AdditiveAttention(
                state_size, memory_size, attention_size or state_size, rng=rng, dtype=dtype
            )
        elif alignment == "chunkwise" and attention == "multiplicative":
            self.chunk_score = MultiplicativeAttention(
                state_size, memory_size, rng=rng, dtype=dtype
            )
        self.state_names = SORTS[cell].state
        for name in self.state_names:
            self.add_parameter(f"initial_{name}", np.zeros((layers, state_size)))
        if coverage == "tanh":
            self.add_parameter("coverage_vector", np.zeros(attention_size or state_size))
        elif coverage:
            self.add_parameter("coverage_weight", 0.0)
        if coverage == "fertility":
            self.add_parameter("fertility_vector", np.zeros(memory_size))
        if position == "predictive":
            columns = position_size or state_size
            self.add_parameter("position_weight", glorot(rng, state_size, columns))
            self.add_parameter("position_vector", glorot(rng, columns, 1)[:, 0])
        if alignment != "soft":
            self.add_parameter("energy_offset", -1.0 if energy_offset is None else energy_offset)
        if alignment != "soft" and attention == "additive":
            self.add_parameter("energy_gain", (attention_size or state_size) ** -0.5)
            self.add_parameter("score_bias", np.zeros(attention_size or state_size))
        if order == "luong":
            self.add_parameter("readout_weight", glorot(rng, context_size + state_size, state_size))
        if summary == "first_state":
            self.add_parameter(
                "summary_weight",
                glorot(rng, memory_size, state_size, len(self.state_names) * layers),
            )

    # ---- Calls -----------------------------------------------------------------------------------

    def __call__(
        self,
        inputs: Real,
        memory: Real | PreparedMemory,
        state: State | None = None,
        *,
        key_mask: Bools | None = None,
        key_lengths: Integers | None = None,
        hard: bool = False,
        train: bool = False,
        rng: Seed = None,
    ) -> DecoderOutput:
        """Run over whole sequences of inputs (teacher forcing): compute, and remember nothing.

        Parameters
        ----------
        inputs : array_like, shape (B, T, input_size)
            The previous word's vector at every step.
        memory : array_like, shape (B, Tk, memory_size), or the result of `prepare`
            Of this decoder: what another one prepared is refused, also of a copy of this.
        state : array_like, shape (layers, B, state_size), optional
            Initial state; for the LSTM a pair (h, c). What else a step needs of the one before may
            follow, as calls return it, and is zero otherwise: with input feeding the output fed
            first, (B, state_size); with coverage the coverage so far, (B, Tk); with a monotonic
            window how many steps there were, (B, 1); of an alignment that is not soft where the
            last query stopped, (B, Tk), else at the first key. Where no state is given the learned
            one is used.
        key_mask : array_like of bool, shape (B, Tk), optional
            True where the memory may be attended to.
        key_lengths : int or array_like of int, shape (B,), optional
            Valid steps of each memory; both masks intersect. What is masked is not read.
        hard : bool
            As in `prepare`.
        train : bool
            Whether to add noise to the energies of an alignment that is not soft; makes no
            difference else.
        rng : None, int or numpy.random.Generator
            For the noise, which is drawn for all steps at once.

        Returns
        -------
        outputs : ndarray, shape (B, T, state_size)
        weights : ndarray, shape (B, T, Tk)
            Attention weights, the alignment. For the attention 'none': 1 at the last valid step.
        state : ndarray, shape (layers, B, state_size)
            State after the last step; a tuple for the LSTM, with input feeding, with coverage and
            with an alignment that is not soft.

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, naming it.
        """
        memory = self._prepared(memory, key_mask, key_lengths, hard)
        return self._run("inputs", inputs, memory, state, train, rng)[0]

    def step(
        self,
        input: Real,
        memory: Real | PreparedMemory,
        state: State | None = None,
        *,
        key_mask: Bools | None = None,
        key_lengths: Integers | None = None,
        hard: bool = False,
        train: bool = False,
        rng: Seed = None,
    ) -> DecoderOutput:
        """One step, for decoding: ``output, weights, state = decoder.step(input, memory, state)``.

        Parameters
        ----------
        input : array_like, shape (B, input_size)
        memory, state, key_mask, key_lengths, hard, train, rng
            As in a call. ``decoder.prepare(memory, ...)`` projects the memory once for all steps.

        Returns
        -------
        output : ndarray, shape (B, state_size)
        weights : ndarray, shape (B, Tk)
        state : for the next step

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, naming it.
        """
        memory = self._prepared(memory, key_mask, key_lengths, hard)
        outputs, weights, state = self._run("input", input, memory, state, train, rng)[0]
        return DecoderOutput(outputs[:, 0], weights[:, 0], state)

    def reorder(self, state: State, indices: Integers) -> Any:
        """The state of some sequences of a batch, in this order: what a search goes on with.

        Parameters
        ----------
        state : array_like or tuple
            As in a call, or as a call returns it.
        indices : array_like of int, shape (N,)
            Sequences of the batch; one may be there several times.

        Returns
        -------
        ndarray, or tuple of them
            A new state, of a batch of N.

        Raises
        ------
        TypeError, ValueError
            If state has not the arrays of a state of this decoder, or indices are not sequences
            of its batch.
        """
        where = type(self).__name__
        decoder = self._decoder()
        parts = decoder.state_parts("state", state)
        indices = integer_array(where, "indices", indices)
        arrays = []
        for name, part in parts.items():
            label = f"state ({name})" if len(parts) > 1 else "state"
            array = plain_array(where, label, part)
            axes = len(decoder.state_shapes(0, 0)[name])
            if array.ndim != axes:
                raise self._error(f"{label} must have {axes} axes, got shape {array.shape}")
            batch = array.shape[axes - 2]
            if (
                indices.ndim != 1
                or indices.size
                and not (0 <= indices.min() <= indices.max() < batch)
            ):
                raise self._error(
                    f"indices must be sequences in 0..{batch - 1}, one after the other, got "
                    f"{indices.tolist()}"
                )
            arrays.append(array.take(indices.astype(np.intp), axis=axes - 2))
        alone = any(part is state for part in parts.values())
        return arrays[0] if alone else tuple(arrays)

    @quiet
    def prepare(
        self,
        memory: Real | PreparedMemory,
        key_mask: Bools | None = None,
        key_lengths: Integers | None = None,
        *,
        hard: bool = False,
    ) -> PreparedMemory:
        """Check, mask and project a memory once, for many calls of `step`.

        Parameters
        ----------
        memory, key_mask, key_lengths
            As in a call.
        hard : bool
            To decode, for an alignment that is not soft: whether a query stops at the first key,
            from the last one on, whose probability is 0.5 or more, and looks at no key behind. So
            the energies of all steps take time linear in keys and steps. If there is none, weights
            and context are 0, then and ever after. `greedy_decode`, `beam_search` and
            `sample_decode` take such a memory as any other. There is no gradient.

        Returns
        -------
        PreparedMemory
            To be passed as `memory`, to this decoder alone. It goes stale when the parameters
            change: prepare again after every step of an optimiser. A stale one raises, where the
            first number of a parameter has changed; other changes are not noticed.

        Raises
        ------
        TypeError
            If the memory is not real or a mask not boolean.
        ValueError
            If a shape does not fit, or the memory was prepared by another decoder or has gone
            stale.
        """
        hard = check_hard(type(self).__name__, hard, self.alignment)
        if isinstance(memory, PreparedMemory):
            if hard and not memory.hard:
                raise self._error("hard must be given to prepare(), got it with a prepared memory")
            if key_mask is not None or key_lengths is not None:
                raise self._error(
                    "key_mask and key_lengths must be given to prepare(), got them "
                    "with a prepared memory"
                )
            if memory.owner is not self:
                raise self._error(
                    f"memory must be prepared by the decoder that uses it, {self!r}, got one "
                    f"prepared by another decoder, {memory.owner!r} (use its prepare)"
                )
            if memory.stale:
                raise self._error(
                    "memory must be prepared with the parameters that there are, got one from "
                    "before they changed (call prepare again)"
                )
            return memory
        memory = self._real("memory", memory, "B", "Tk", self.memory_size)
        B, Tk, _ = memory.shape
        allowed = allowed_keys(type(self).__name__, B, Tk, key_mask, key_lengths)
        return PreparedMemory(self._decoder(), memory, allowed, owner=self, hard=hard)

    def _prepared(self, memory, key_mask, key_lengths, hard):
        return self.prepare(memory, key_mask, key_lengths, hard=hard)

    def _named(self):
        """Arrays of the score and the readout by the names of `attnc.functional`."""
        arrays = dict(self.score._parameters) if self.attention != "none" else {}
        if hasattr(self, "chunk_score"):
            chunk = self.chunk_score._parameters
            arrays |= {f"chunk_{name}": array for name, array in chunk.items()}
        own = self._parameters
        return arrays | {name: own[name] for name in NAMED if name in own}

    def _decoder(self):
        return Decoder(
            type(self).__name__,
            cell=self.cell,
            attention=self.attention,
            order=self.order,
            input_feeding=self.input_feeding,
            cells=[[cell._parameters[name] for name in PARAMETERS] for cell in self.cells],
            arrays=self._named(),
            max_fertility=2.0 if self.max_fertility is None else self.max_fertility,
            window=self.window,
            position=self.position,
            renormalize=self.renormalize,
            alignment=self.alignment,
            chunk_width=2 if self.chunk_width is None else self.chunk_width,
        )

    @quiet
    def _vjp(
        self, inputs, memory, state=None, *, key_mask=None, key_lengths=None, hard=False,
        train=False, rng=None,
    ):  # fmt: skip
        refuse_hard(type(self).__name__, flag(type(self).__name__, "hard", hard))
        if isinstance(memory, PreparedMemory):
            raise self._error(
                "memory must be an array for a gradient, got a prepared memory", TypeError
            )
        if nothing(state):
            state = None
        if mode.dual is not None:
            return self._by_record(inputs, memory, state, key_mask, key_lengths, train, rng)
        prepared = self.prepare(memory, key_mask, key_lengths)
        output, run, initial = self._run("inputs", inputs, prepared, state, train, rng)
        B, _, Tk = output.weights.shape

        @quiet
        def pullback(doutputs=None, dweights=None, dstate=None):
            dstate = None if nothing(dstate) else dstate
            require_incoming(
                type(self).__name__, doutputs=doutputs, dweights=dweights, dstate=dstate
            )
            doutputs = self._incoming("doutputs", doutputs, output.outputs.shape)
            dweights = self._incoming("dweights", dweights, run.attend.weights.shape)
            dfinal = run.decoder.read_state("dstate", dstate, B, Tk)
            found = run.backward(doutputs, dweights, dfinal)
            self._add_gradients([d for down in found["cells"] for d in down], found)
            dmemory, optional = found["memory"], {}
            if state is None:
                self._learn_initial(initial, found["state"], run.memory, dmemory)
            else:
                optional["state"] = run.decoder.state_gradients(state, found["state"])
            return Gradients(
                {"inputs": like(found["inputs"], inputs), "memory": like(dmemory, memory)}, optional
            )

        return output, pullback

    def _add_gradients(self, of_cells, found):
        """Add those of the parameters of all cells, in order, and by name of all others."""
        homes = [(cell, name) for cell in self.cells for name in PARAMETERS]
        for (cell, name), gradient in zip(homes, of_cells, strict=True):
            cell.add_gradient(name, gradient)
        for name in self._named():
            owner, home = self if name in self._parameters else self.score, name
            if name.startswith("chunk_"):
                owner, home = self.chunk_score, name.removeprefix("chunk_")
            owner.add_gradient(home, found[name])

    def _by_record(self, inputs, memory, state, key_mask, key_lengths, train, rng):
        """The same as `_vjp` by the record of the function, which takes dual numbers."""
        given = inputs, memory
        inputs = self._real("inputs", inputs, "B", "T", self.input_size)
        B, T, _ = inputs.shape
        memory = self._real("memory", memory, B, "Tk", self.memory_size)
        Tk = memory.shape[1]
        allowed = allowed_keys(type(self).__name__, B, Tk, key_mask, key_lengths)
        of_memory, initial = MaskedMemory(memory, allowed), {}
        if state is not None:  # its errors name the layer
            self._decoder().read_state("state", mode.dual.parts(state)[0], B, Tk)
        else:
            initial = self._initial(of_memory, B)
            state = joined(list(initial.values()))
        cells = [cell._parameters[name] for cell in self.cells for name in PARAMETERS]
        options: dict[str, Any] = {
            "cell": self.cell,
            "attention": self.attention,
            "order": self.order,
            "input_feeding": self.input_feeding,
            "max_fertility": 2.0 if self.max_fertility is None else self.max_fertility,
            "window": self.window,
            "position": self.position,
            "renormalize": self.renormalize,
            "alignment": self.alignment,
            "chunk_width": self.chunk_width,
            "noise": self._noise((B, T, Tk), train, rng),
            "key_mask": allowed,
        }
        function: Any = attention_decoder
        output, back = vjp(function, inputs, memory, cells, state, **options, **self._named())

        @quiet
        def pullback(doutputs=None, dweights=None, dstate=None):
            incoming = {"doutputs": doutputs, "dweights": dweights, "dstate": dstate}
            require_incoming(type(self).__name__, **incoming)
            found = vars(back(**incoming))
            self._add_gradients(found["cells"], found)
            dmemory, optional = found["memory"], {}
            if initial:
                last = found["state"]
                last = dict(zip(initial, last if len(initial) > 1 else [last], strict=True))
                self._learn_initial(initial, last, of_memory, dmemory)
            else:
                optional["state"] = found["state"]
            dinputs, dmemory = like(found["inputs"], given[0]), like(dmemory, given[1])
            return Gradients({"inputs": dinputs, "memory": dmemory}, optional)

        return output, pullback

    @quiet
    def _run(self, name, inputs, memory, state, train, rng):
        """The output, the run and its initial state by name.

        `name` is "inputs", or "input" for those of one step (B, input_size).
        """
        axes = ("B", "T") if name == "inputs" else ("B",)
        inputs = self._real(name, inputs, *axes, self.input_size)
        inputs = inputs if name == "inputs" else inputs[:, None]
        state = None if nothing(state) else state
        B = len(inputs)
        self._check_shape("memory", memory.value.shape, (B, "Tk", self.memory_size))
        initial = memory.decoder.read_state("state", state, B, memory.value.shape[1])
        if state is None:
            initial |= self._initial(memory, B)
        noise = self._noise((*inputs.shape[:2], memory.value.shape[1]), train, rng)
        run = Run(memory.decoder, memory, inputs, initial, None if memory.hard else noise)
        return DecoderOutput(run.outputs, run.weights, run.final), run, initial

    def _noise(self, shape, train, rng):
        """What is added to all energies in training, or None."""
        size = 1.0 if self.energy_noise is None else self.energy_noise
        if not flag(type(self).__name__, "train", train) or self.alignment == "soft" or not size:
            return None
        rng = generator(type(self).__name__, rng)
        return rng.standard_normal(shape, self.dtype) * np.dtype(self.dtype).type(size)

    def _initial(self, memory, B):
        """The learned state, where none is given."""
        shape = (self.layers, B, self.state_size)
        arrays = [
            np.broadcast_to(self._parameters[f"initial_{name}"][:, None], shape)
            for name in self.state_names
        ]
        if self.summary == "first_state":
            product = last_step(memory)[0] @ self._parameters["summary_weight"]
            product = product.reshape(B, len(arrays), *shape[::2]).transpose(1, 2, 0, 3)
            arrays = [np.tanh(array + part) for array, part in zip(arrays, product, strict=True)]
        return dict(zip(self.state_names, arrays, strict=True))

    def _learn_initial(self, initial, dinitial, memory, dmemory):
        """Gradients of the learned initial state; and of the memory, where it took part."""
        d = [dinitial[name] for name in self.state_names]
        if self.summary == "first_state":
            d = [d * (1 - np.square(initial[n])) for d, n in zip(d, self.state_names, strict=True)]
            summary, _, pick = last_step(memory)
            dproduct = np.stack(d).transpose(2, 0, 1, 3).reshape(len(summary), -1)
            self.add_gradient("summary_weight", summary.T @ dproduct)
            dmemory[pick] += (dproduct @ self._parameters["summary_weight"].T)[pick[0]]
        for name, gradient in zip(self.state_names, d, strict=True):
            self.add_gradient(f"initial_{name}", sum_rows(gradient.swapaxes(0, 1)))

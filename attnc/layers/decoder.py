"""AttentionDecoder: a recurrent decoder that attends to a memory at every step; greedy decoding."""

import collections

import numpy as np

from .. import functional
from ..arrays import like
from ..gradients import Gradients, vjp
from .attention import (
    AdditiveAttention,
    CosineAttention,
    DotProductAttention,
    MultiplicativeAttention,
)
from .base import Layer, Output, glorot, positive
from .recurrent import CELLS, Packing, Sweep, join, parts, read_state


class DecoderOutput(
    Output, collections.namedtuple("DecoderOutput", ["outputs", "weights", "state"])
):
    """What a decoder returns: ``outputs, weights, state``."""

    __slots__ = ()


class PreparedMemory(Output, collections.namedtuple("PreparedMemory", ["value", "key", "allowed"])):
    """A memory as `AttentionDecoder.prepare` leaves it: masked, with its keys projected."""

    __slots__ = ()


class Decoded(Output, collections.namedtuple("Decoded", ["tokens", "weights"])):
    """What `greedy_decode` returns: ``tokens, weights``."""

    __slots__ = ()


# How a step scores the memory, by the decoder's `attention`: the function, the parameters (of the
# layer `score`) that project the query and the key, and those the function itself takes. The
# multiplicative score q W k is the dot product of q W with k.
SCORES = {
    "additive": (functional.additive_attention, "query_weight", "key_weight", ["score_vector"], {}),
    "multiplicative": (functional.dot_product_attention, "weight", None, [], {"scale": 1.0}),
    "dot": (functional.dot_product_attention, None, None, [], {"scale": 1.0}),
    "cosine": (functional.cosine_attention, None, None, [], {"scale": "scale"}),
}


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
    coverage : bool
        Not built yet: True raises NotImplementedError.
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
        ``readout_weight (memory_size + state_size, state_size)``, Luong's W_c; ``summary_weight``.
    output_size : int
        state_size.

    Raises
    ------
    ValueError
        If a size is not a positive integer, a name is unknown, or options contradict each other.
    NotImplementedError
        For coverage=True.
    TypeError
        If dtype is neither float32 nor float64.

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
        input_size,
        state_size,
        memory_size,
        *,
        attention="additive",
        attention_size=None,
        cell="gru",
        layers=1,
        order="bahdanau",
        input_feeding=False,
        coverage=False,
        summary="every_step",
        rng=None,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(self, state_size=state_size, memory_size=memory_size, layers=layers)
        self._choice("attention", attention, (*SCORES, "none"))
        self._choice("cell", cell, CELLS)
        self._choice("order", order, ("bahdanau", "luong"))
        self._choice("summary", summary, ("every_step", "first_state"))
        if coverage:
            raise NotImplementedError("AttentionDecoder: coverage is not built yet; use False")
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
        self.input_feeding = bool(input_feeding)
        self.coverage = False
        self.summary = summary

        context_size = memory_size if summary == "every_step" else 0
        fed_size = context_size if order == "bahdanau" else state_size * self.input_feeding
        if input_size or not fed_size:
            positive(self, input_size=input_size)  # a cell needs something to read
        # Whether a step needs the step before: its state to attend with, or its output to feed.
        self._feeds_back = self.input_feeding or order == "bahdanau" and attention != "none"

        rng = np.random.default_rng(rng)
        sizes = [input_size + fed_size] + [state_size] * (layers - 1)
        self.cells = [CELLS[cell](size, state_size, rng=rng, dtype=dtype) for size in sizes]
        if attention == "additive":
            self.score = AdditiveAttention(
                state_size, memory_size, attention_size or state_size, rng=rng, dtype=dtype
            )
        elif attention == "multiplicative":
            self.score = MultiplicativeAttention(state_size, memory_size, rng=rng, dtype=dtype)
        elif attention == "dot":
            self.score = DotProductAttention(scale=1.0, dtype=dtype)
        elif attention == "cosine":
            self.score = CosineAttention(dtype=dtype)
        self._names = self.cells[0].state_names
        for name in self._names:
            self.add_parameter(f"initial_{name}", np.zeros((layers, state_size)))
        if order == "luong":
            self.add_parameter("readout_weight", glorot(rng, context_size + state_size, state_size))
        if summary == "first_state":
            self.add_parameter(
                "summary_weight", glorot(rng, memory_size, state_size, len(self._names) * layers)
            )

    def _choice(self, name, value, choices):
        if value not in choices:
            listed = ", ".join(map(repr, choices))
            raise self._error(f"{name} must be one of {listed}, got {value!r}")

    # ---- Calls -----------------------------------------------------------------------------------

    def __call__(self, inputs, memory, state=None, *, key_mask=None, key_lengths=None, train=False):
        """Run over whole sequences of inputs (teacher forcing): compute, and remember nothing.

        Parameters
        ----------
        inputs : array_like, shape (B, T, input_size)
            The previous word's vector at every step.
        memory : array_like, shape (B, Tk, memory_size), or the result of `prepare`
        state : array_like, shape (layers, B, state_size), optional
            Initial state; for the LSTM a pair (h, c). With input feeding the output fed first may
            follow: (h, feed) or (h, c, feed) with feed (B, state_size), as calls return it; zeros
            otherwise. Where no state is given the learned one is used.
        key_mask : array_like of bool, shape (B, Tk), optional
            True where the memory may be attended to.
        key_lengths : int or array_like of int, shape (B,), optional
            Valid steps of each memory; both masks intersect. What is masked is not read.
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        outputs : ndarray, shape (B, T, state_size)
        weights : ndarray, shape (B, T, Tk)
            Attention weights, the alignment. For the attention 'none': 1 at the last valid step.
        state : ndarray, shape (layers, B, state_size)
            State after the last step; a tuple for the LSTM and with input feeding.

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, naming it.
        """
        return self._run(inputs, self.prepare(memory, key_mask, key_lengths), state)[0]

    def step(self, input, memory, state=None, *, key_mask=None, key_lengths=None, train=False):
        """One step, for decoding: ``output, weights, state = decoder.step(input, memory, state)``.

        Parameters
        ----------
        input : array_like, shape (B, input_size)
        memory, state, key_mask, key_lengths, train
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
        input = self._real("input", input, "B", self.input_size)
        memory = self.prepare(memory, key_mask, key_lengths)
        outputs, weights, state = self._run(input[:, None], memory, state)[0]
        return DecoderOutput(outputs[:, 0], weights[:, 0], state)

    def prepare(self, memory, key_mask=None, key_lengths=None):
        """Check, mask and project a memory once, for many calls of `step`.

        Parameters
        ----------
        memory, key_mask, key_lengths
            As in a call.

        Returns
        -------
        PreparedMemory
            To be passed as `memory`. It goes stale when the parameters change.

        Raises
        ------
        TypeError, ValueError
            If the memory or a mask has a wrong type or shape.
        """
        if isinstance(memory, PreparedMemory):
            if key_mask is not None or key_lengths is not None:
                raise self._error(
                    "key_mask and key_lengths must be given to prepare(), got them "
                    "with a prepared memory"
                )
            return memory
        memory = self._real("memory", memory, "B", "Tk", self.memory_size)
        allowed = self._allowed(*memory.shape[:2], key_mask, key_lengths)
        if allowed is not None:
            memory = np.where(allowed[..., None], memory, 0)  # what is masked is not read
        key = memory
        if self.attention == "additive":
            key_weight = self.score._parameters["key_weight"]
            key = (memory.reshape(-1, self.memory_size) @ key_weight).reshape(
                *memory.shape[:2], key_weight.shape[1]
            )
        return PreparedMemory(memory, key, allowed)

    def _allowed(self, B, Tk, key_mask, key_lengths):
        """The masks in one, (B, Tk) bool; None where nothing is masked."""
        allowed = np.ones((B, Tk), bool)
        if key_mask is not None:
            mask = np.asarray(key_mask)
            if mask.dtype != bool:
                raise self._error(
                    f"key_mask must be boolean, got {mask.dtype} (use .astype(bool))", TypeError
                )
            if mask.ndim != 2 or any(
                n not in (1, size) for n, size in zip(mask.shape, (B, Tk), strict=True)
            ):
                raise self._error(
                    f"key_mask must have shape ({B}, {Tk}) to match memory, got {mask.shape}"
                )
            allowed &= mask
        if key_lengths is not None:
            lengths = self._lengths("key_lengths", key_lengths, B, Tk)
            allowed &= np.arange(Tk) < lengths[:, None]
        return None if allowed.all() else allowed

    def _vjp(self, inputs, memory, state=None, *, key_mask=None, key_lengths=None, train=False):
        if isinstance(memory, PreparedMemory):
            raise self._error(
                "memory must be an array for a gradient, got a prepared memory", TypeError
            )
        output, back = self._run(inputs, self.prepare(memory, key_mask, key_lengths), state)

        def pullback(doutputs=None, dweights=None, dstate=None):
            dinputs, dmemory, dinitial = back(doutputs, dweights, dstate)
            optional = {}
            if state is not None:
                given = parts(state, len(dinitial))
                optional["state"] = join([like(d, s) for d, s in zip(dinitial, given, strict=True)])
            return Gradients(
                {"inputs": like(dinputs, inputs), "memory": like(dmemory, memory)}, optional
            )

        return output, pullback

    # ---- The sequence, forward and back ----------------------------------------------------------

    def _run(self, inputs, memory, state):
        """The output and a function from its gradients to (dinputs, dmemory, dinitial state)."""
        inputs = self._real("inputs", inputs, "B", "T", self.input_size)
        (B, T, E), H, p = inputs.shape, self.state_size, self._parameters
        self._check_shape("memory", memory.value.shape, (B, "Tk", self.memory_size))
        initial, feed, given_feed = self._read_initial(state, memory, B)
        bahdanau, L, N = self.order == "bahdanau", self.layers, T * B

        # Rows are time-major: those of step t are t*B .. (t+1)*B. One product for all inputs.
        packing = Packing(B, T)
        words = np.ascontiguousarray(inputs.transpose(1, 0, 2)).reshape(N, E)
        input_weights = [cell._parameters["input_weight"] for cell in self.cells]
        word_weight, fed_weight = input_weights[0][:E], input_weights[0][E:]
        gates = [words @ word_weight]
        gates += [np.empty_like(gates[0]) for _ in range(L - 1)]
        gates[0] += self.cells[0]._parameters["input_bias"]
        sweeps = [
            Sweep(cell, packing, a, [s[layer] for s in initial])
            for layer, (cell, a) in enumerate(zip(self.cells, gates, strict=True))
        ]
        top = sweeps[-1]
        attend = (_FixedVector if self.attention == "none" else _Attending)(self, memory, T)
        if not bahdanau:
            context_weight, top_weight = p["readout_weight"][:-H], p["readout_weight"][-H:]
            # Luong's output o_t, one block of rows late: o_(t-1) is what step t is fed.
            late = np.empty((B + N, H), self.dtype)
            late[:B] = feed
        outputs = top.outputs if bahdanau else late[B:]

        # A block is as many steps as can run before one needs what another gives: one or all.
        steps = len(packing.rows)
        blocks = [range(t, t + 1) for t in range(steps)] if self._feeds_back else [range(steps)]
        rows_of = [slice(block.start * B, block.stop * B) for block in blocks]
        for block, rows in zip(blocks, rows_of, strict=True):
            if bahdanau:
                gates[0][rows] += attend.forward(block, top.states[0][rows]) @ fed_weight
            elif self.input_feeding:
                gates[0][rows] += late[rows] @ fed_weight
            for layer, (cell, sweep) in enumerate(zip(self.cells, sweeps, strict=True)):
                if layer:
                    np.matmul(
                        sweeps[layer - 1].outputs[rows],
                        input_weights[layer],
                        out=gates[layer][rows],
                    )
                    gates[layer][rows] += cell._parameters["input_bias"]
                for t in block:
                    sweep.forward(t)
            if not bahdanau:
                output = outputs[rows]
                np.matmul(top.outputs[rows], top_weight, out=output)
                output += attend.forward(block, top.outputs[rows]) @ context_weight
                np.tanh(output, out=output)

        final = [
            np.stack(arrays) for arrays in zip(*(sweep.final for sweep in sweeps), strict=True)
        ]
        if self.input_feeding:
            final.append(late[N:].copy())
        # The caller may write to what it gets: backward keeps arrays of its own.
        weights = attend.weights.copy()
        result = DecoderOutput(self._batch_major(outputs, B, T), weights, join(final))

        def back(doutputs, dweights, dstate):
            doutputs = self._incoming("doutputs", doutputs, (B, T, H))
            doutputs = (
                np.zeros((N, H), self.dtype)
                if doutputs is None
                else np.ascontiguousarray(doutputs.transpose(1, 0, 2)).reshape(N, H)
            )
            attend.start_back(self._incoming("dweights", dweights, weights.shape))
            dfinal, dfeed, _ = self._read_state("dstate", dstate, B)
            for layer, sweep in enumerate(sweeps):
                sweep.start_back([d[layer].copy() for d in dfinal])
            dreadout = None if bahdanau else np.empty((N, H), self.dtype)

            for block, rows in zip(reversed(blocks), reversed(rows_of), strict=True):
                dtop = doutputs[rows]
                if not bahdanau:
                    # in the forward pass: o_t = tanh(c_t context_weight + s_t top_weight)
                    slope = np.square(outputs[rows])
                    np.subtract(1, slope, out=slope)
                    slope *= dtop if not self.input_feeding else dtop + dfeed
                    dreadout[rows] = slope
                    dtop = slope @ top_weight.T
                    dtop += attend.backward(block, slope @ context_weight.T)
                for layer in reversed(range(L)):
                    for t in reversed(block):
                        start = (t - block.start) * B
                        sweeps[layer].backward(t, dtop[start : start + B])
                    if layer:
                        dtop = sweeps[layer].dinput[rows] @ input_weights[layer].T
                if bahdanau:
                    dcontext = sweeps[0].dinput[rows] @ fed_weight.T
                    top.dstate[0] += attend.backward(block, dcontext)  # by the state before
                elif self.input_feeding:
                    dfeed = sweeps[0].dinput[rows] @ fed_weight.T

            # What all steps share is one product each.
            contexts = attend.contexts.reshape(N, attend.contexts.shape[2])
            dgates = [sweep.finish() for sweep in sweeps]
            gradients = [cell._gradients["input_weight"] for cell in self.cells]
            gradients[0][:E] += words.T @ dgates[0]
            for layer in range(1, L):
                gradients[layer] += sweeps[layer - 1].outputs.T @ dgates[layer]
            if bahdanau:
                gradients[0][E:] += contexts.T @ dgates[0]
            else:
                if self.input_feeding:
                    gradients[0][E:] += late[:N].T @ dgates[0]
                readout = self._gradients["readout_weight"]
                readout[:-H] += contexts.T @ dreadout
                readout[-H:] += top.outputs.T @ dreadout
            dmemory = attend.finish(top.states[0][:N] if bahdanau else top.outputs)
            dinitial = [
                np.stack(arrays) for arrays in zip(*(sweep.dstate for sweep in sweeps), strict=True)
            ]
            if state is None:
                self._learn_initial(initial, dinitial, memory, dmemory)
            elif given_feed:
                dinitial.append(dfeed)
            return self._batch_major(dgates[0] @ word_weight.T, B, T), dmemory, dinitial

        return result, back

    @staticmethod
    def _batch_major(rows, B, T):
        return np.ascontiguousarray(rows.reshape(T, B, rows.shape[1]).transpose(1, 0, 2))

    def _read_state(self, name, state, B):
        """Arrays (layers, B, H) of the cells, the output that is fed, and whether it was given."""
        names, feed = self._names, None
        given = self.input_feeding and isinstance(state, (tuple, list)) and len(state) > len(names)
        if given:
            *cells, feed = state
            state = join(cells)
        cells = read_state(self, name, state, names, self.layers, B, self.state_size)
        (feed,) = read_state(self, f"{name} (feed)", feed, ("feed",), B, self.state_size)
        return cells, feed, given

    def _read_initial(self, state, memory, B):
        if state is not None:
            return self._read_state("state", state, B)
        shape = (self.layers, B, self.state_size)
        arrays = [
            np.broadcast_to(self._parameters[f"initial_{name}"][:, None], shape)
            for name in self._names
        ]
        if self.summary == "first_state":
            product = _last(memory)[0] @ self._parameters["summary_weight"]
            product = product.reshape(B, len(arrays), *shape[::2]).transpose(1, 2, 0, 3)
            arrays = [np.tanh(array + part) for array, part in zip(arrays, product, strict=True)]
        return arrays, np.zeros((B, self.state_size), self.dtype), False

    def _learn_initial(self, initial, dinitial, memory, dmemory):
        """Gradients of the learned initial state; and of the memory, where it took part."""
        if self.summary == "first_state":
            dinitial = [d * (1 - h * h) for d, h in zip(dinitial, initial, strict=True)]
            summary, _, pick = _last(memory)
            dproduct = np.stack(dinitial).transpose(2, 0, 1, 3).reshape(len(summary), -1)
            self._gradients["summary_weight"] += summary.T @ dproduct
            dmemory[pick] += (dproduct @ self._parameters["summary_weight"].T)[pick[0]]
        for name, d in zip(self._names, dinitial, strict=True):
            self._gradients[f"initial_{name}"] += d.sum(axis=1)


# ---- Attention inside the loop -------------------------------------------------------------------


class _Attending:
    """One memory, the queries of a run. Rows of contexts are time-major, as in the decoder's loop.

    Steps need contexts forward and gradients of queries back; the gradients of the values and of
    the projections wait for `finish`, one product for all steps.
    """

    def __init__(self, decoder, memory, T):
        function, query_weight, key_weight, positional, keywords = SCORES[decoder.attention]
        self.score, self.memory, self.function = decoder.score, memory, function
        p = self.score._parameters
        self.query_name, self.key_name = query_weight, key_weight
        self.query_weight, self.key_weight = p.get(query_weight), p.get(key_weight)
        self.positional = [p[name] for name in positional]
        self.options = {name: p.get(value, value) for name, value in keywords.items()}
        self.learned = [*positional, *(value for value in keywords.values() if value in p)]
        B, Tk, M = memory.value.shape
        # The function gives the weights; values of no size leave the contexts to a product here.
        self.no_value = np.empty((B, Tk, 0), decoder.dtype)
        self.contexts = np.zeros((T, B, M), decoder.dtype)
        self.weights = np.zeros((B, T, Tk), decoder.dtype)
        self.backs = {}

    def forward(self, block, queries):
        """Contexts (n*B, M) of the queries (n*B, H) of a block of n steps."""
        B, M = self.contexts.shape[1:]
        steps = slice(block.start, block.stop)
        if self.query_weight is not None:
            queries = queries @ self.query_weight
        queries = queries.reshape(len(block), B, queries.shape[1]).swapaxes(0, 1)
        (_, weights), self.backs[block.start] = vjp(
            self.function,
            queries,
            self.memory.key,
            self.no_value,
            *self.positional,
            key_mask=self.memory.allowed,
            return_weights=True,
            **self.options,
        )
        self.weights[:, steps] = weights
        contexts = self.contexts[steps]
        np.matmul(weights, self.memory.value, out=contexts.swapaxes(0, 1))
        return contexts.reshape(len(block) * B, M)

    def start_back(self, dweights):
        self.dweights = dweights
        self.dcontexts = np.zeros_like(self.contexts)
        self.dqueries = np.empty(
            (*self.contexts.shape[:2], self.memory.key.shape[2]), self.contexts.dtype
        )
        self.dkey = np.zeros_like(self.memory.key)
        self.dlearned = dict.fromkeys(self.learned, 0)

    def backward(self, block, dcontexts):
        """Gradient of the queries (n*B, H) from that of the contexts (n*B, M)."""
        B, steps = self.contexts.shape[1], slice(block.start, block.stop)
        self.dcontexts[steps] = dcontexts.reshape(len(block), B, dcontexts.shape[1])
        # in the forward pass: contexts = weights @ value
        dweights = self.dcontexts[steps].swapaxes(0, 1) @ self.memory.value.swapaxes(1, 2)
        if self.dweights is not None:
            dweights += self.dweights[:, steps]
        grads = self.backs[block.start](dweights=dweights)
        self.dkey += grads.key
        for name in self.dlearned:
            self.dlearned[name] = self.dlearned[name] + getattr(grads, name)
        dqueries = self.dqueries[steps]
        dqueries[...] = grads.query.swapaxes(0, 1)
        dqueries = dqueries.reshape(len(block) * B, dqueries.shape[2])
        return dqueries if self.query_weight is None else dqueries @ self.query_weight.T

    def finish(self, queries):
        """Add the gradients of the projections; return that of the memory."""
        B, Tk, M = self.memory.value.shape
        dmemory = self.weights.swapaxes(1, 2) @ self.dcontexts.swapaxes(0, 1)
        dkey = self.dkey
        for name, gradient in self.dlearned.items():
            self.score.gradients[name] += gradient
        if self.query_weight is not None:
            dqueries = self.dqueries.reshape(len(queries), self.dqueries.shape[2])
            self.score._gradients[self.query_name] += queries.T @ dqueries
        if self.key_weight is not None:
            dkey = dkey.reshape(B * Tk, dkey.shape[2])
            self.score._gradients[self.key_name] += self.memory.value.reshape(B * Tk, M).T @ dkey
            dkey = (dkey @ self.key_weight.T).reshape(B, Tk, M)
        dmemory += dkey
        if self.memory.allowed is not None:
            dmemory[~self.memory.allowed] = 0  # also where an incoming gradient is not finite
        return dmemory


class _FixedVector:
    """In place of attention: every query gets the memory's last valid step."""

    def __init__(self, decoder, memory, T):
        summary, weights, self.pick = _last(memory)
        if decoder.summary == "first_state":
            summary = summary[:, :0]  # the contexts have no size: nothing is fed
        self.memory = memory
        self.contexts = np.repeat(summary[None], T, axis=0)
        self.weights = np.repeat(weights[:, None], T, axis=1)

    def forward(self, block, queries):
        _, B, M = self.contexts.shape
        return self.contexts[block.start : block.stop].reshape(len(block) * B, M)

    def start_back(self, dweights):
        # The weights are constants: dweights ends here.
        self.dsummary = np.zeros(self.contexts.shape[1:], self.contexts.dtype)

    def backward(self, block, dcontexts):
        self.dsummary += dcontexts.reshape(len(block), *self.dsummary.shape).sum(axis=0)
        return 0

    def finish(self, queries):
        dmemory = np.zeros_like(self.memory.value)
        if self.dsummary.size:
            dmemory[self.pick] = self.dsummary[self.pick[0]]
        return dmemory


def _last(memory):
    """Last valid step of each memory (B, M), 0 where there is none; its weights (B, Tk), 1 there;
    and the index (sequences, steps) of those that exist."""
    B, Tk, _ = memory.value.shape
    valid = np.ones((B, Tk), bool) if memory.allowed is None else memory.allowed
    sequences = np.flatnonzero(valid.any(axis=1))
    pick = sequences, Tk - 1 - valid[sequences, ::-1].argmax(axis=1) if Tk else sequences
    summary = np.zeros_like(memory.value[:, 0] if Tk else np.empty((B, memory.value.shape[2])))
    summary[sequences] = memory.value[pick]
    weights = np.zeros((B, Tk), memory.value.dtype)
    weights[pick] = 1
    return summary, weights, pick


# ---- Decoding ------------------------------------------------------------------------------------


def greedy_decode(
    decoder,
    embedding,
    readout,
    memory,
    state=None,
    *,
    start,
    end,
    max_length,
    key_mask=None,
    key_lengths=None,
):
    """Decode a batch, taking the most probable token at every step.

    Parameters
    ----------
    decoder : AttentionDecoder
    embedding : Layer or callable
        From tokens (B,) to the decoder's inputs (B, input_size).
    readout : Layer or callable
        From the decoder's outputs (B, state_size) to scores of the tokens (B, vocabulary).
    memory, state, key_mask, key_lengths
        As in a call of the decoder.
    start, end : int
        Token that is the first input; token that ends a sequence.
    max_length : int
        Steps at most, 0 or more.

    Returns
    -------
    tokens : ndarray of int, shape (B, steps)
        With the end token, where it was reached, and after it only end tokens.
    weights : ndarray, shape (B, steps, Tk)
        Attention weights; 0 after the end.

    Raises
    ------
    TypeError, ValueError
        As the decoder does; ValueError if max_length is negative.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> embedding, readout = attnc.Embedding(9, 4, rng=0), attnc.Linear(8, 9, rng=0)
    >>> decoder = attnc.AttentionDecoder(4, 8, memory_size=6, rng=0)
    >>> tokens, weights = attnc.greedy_decode(
    ...     decoder, embedding, readout, np.ones((2, 5, 6)), start=1, end=2, max_length=7
    ... )
    >>> tokens.shape[0], weights.shape[2]
    (2, 5)
    """
    if max_length < 0:
        raise ValueError(f"greedy_decode: max_length must be 0 or more, got {max_length}")
    memory = decoder.prepare(memory, key_mask, key_lengths)
    B, Tk = memory.value.shape[:2]
    token = np.full(B, start)
    running = np.ones(B, bool)
    tokens = np.full((B, max_length), end)
    weights = np.zeros((B, max_length, Tk), decoder.dtype)
    steps = 0
    while steps < max_length and running.any():
        output, attended, state = decoder.step(embedding(token), memory, state)
        token = np.where(running, readout(output).argmax(axis=-1), end)
        tokens[:, steps] = token
        weights[running, steps] = attended[running]
        running &= token != end
        steps += 1
    return Decoded(tokens[:, :steps], weights[:, :steps])

"""A run of a recurrent decoder over a sequence, forward and back: what the function
`attention_decoder` and the layer `AttentionDecoder` share.

What waits for the step before, such as the attention to a state, runs in a loop in C. The loop is a
list of operations that every step goes through; `Run` writes the list. What does not wait is done
for all steps at once: products with the inputs before the loop, gradients of the weights after it.

Arrays of the loop are time-major: (T, B, size), or as one matrix (T * B, size).
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

from attnc import _core
from attnc.arrays import contiguous, like, real_array, sum_rows
from attnc.functional.attention import (
    MECHANISMS,
    additive_attention,
    attend,
    cosine_attention,
    dot_product_attention,
)
from attnc.functional.operations import (
    Attend,
    AttendBack,
    Cell,
    CellBack,
    Chunkwise,
    ChunkwiseBack,
    Energies,
    EnergiesBack,
    Hard,
    Linear,
    Monotonic,
    MonotonicBack,
    Normalize,
    NormalizeBack,
    Read,
    ReadBack,
)
from attnc.functional.recurrent import BIAS_ROWS, CELLS, bias_gradient, described, joined
from attnc.functional.scores import additive_scores, cosine_scores, dot_product_scores
from attnc.gradients import shows_shapes
from attnc.registry import record_of
from attnc.typing import Array


@shows_shapes
class DecoderOutput(NamedTuple):
    """What a decoder returns."""

    outputs: Array
    weights: Array
    state: Any  # an array, or a tuple of them


class Score:
    """How a step scores the memory: a function, what projects the query and the key for it, the
    array it takes besides, and its scale. The multiplicative score q W k is the dot product of q W
    with k."""

    def __init__(self, function, query_weight=None, key_weight=None, vector=None, scale=None):
        self.function = function
        self.query_weight, self.key_weight = query_weight, key_weight
        self.vector, self.scale = vector, scale

    @property
    def arrays(self):
        names = self.query_weight, self.key_weight, self.vector
        scale = "scale" if self.scale == "scale" else None
        return tuple(name for name in (*names, scale) if name is not None)


SCORES = {
    "additive": Score(additive_attention, "query_weight", "key_weight", "score_vector"),
    "multiplicative": Score(dot_product_attention, "weight", scale=1.0),
    "dot": Score(dot_product_attention, scale=1.0),
    "cosine": Score(cosine_attention, scale="scale"),
}


def fitting(where, name, array, shape):
    if array.shape != shape:
        raise ValueError(f"{where}: {name} must have shape {shape}, got {array.shape}")
    return array


def _rows(x):
    """(n, m, size) as one matrix (n * m, size)."""
    if not x.flags.c_contiguous:
        x, strided = _core.empty(x, x.shape), x
        x[...] = strided
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])


def _product(x, weight):
    """x weight for (n, m, size)."""
    return _core.product(_rows(x), weight).reshape(*x.shape[:2], weight.shape[1])


# ---- parameters and memory, checked and packed ---------------------------------------------------


def state_shapes(cell, sizes, input_feeding, carried, counts):
    """Shapes of the arrays of a state, by name, in the order in which users hold them.

    `sizes`: layers, B, H, Tk; `carried`: the name of what attention hands on, or None; `counts`:
    whether steps are counted.
    """
    layers, B, H, Tk = sizes
    shapes = dict.fromkeys(cell.state, (layers, B, H))
    if input_feeding:
        shapes["feed"] = (B, H)
    if carried:
        shapes[carried] = (B, Tk)
    if counts:
        shapes["step"] = (B, 1)
    return shapes


class Decoder:
    """The options and parameters of a decoder, and its weights as the loops read them."""

    def __init__(
        self, where, *, cell, attention, order, input_feeding, cells, arrays, max_fertility=2.0,
        window=None, position="monotonic", renormalize=False, alignment="soft", chunk_width=1,
    ):  # fmt: skip
        self.where = where
        self.cell = CELLS[cell]
        self.attention, self.order, self.input_feeding = attention, order, input_feeding
        self.score = SCORES.get(attention)
        self.cells = cells  # one list of four arrays each layer
        self.arrays = arrays  # by name: of the score, the coverage and the readout
        self.max_fertility = max_fertility
        self.alignment, self.chunk_width = alignment, chunk_width
        self.window, self.renormalize = window, renormalize
        self.predicts = window is not None and position == "predictive"
        self.H = cells[0][1].shape[0]
        self.dtype = cells[0][0].dtype
        self.bahdanau = order == "bahdanau"
        self._panels = {}
        self._every = [array for cell in cells for array in cell] + list(arrays.values())

    @property
    def coverage(self):
        return "coverage_weight" in self.arrays or self.covered_inside

    @property
    def covered_inside(self):
        """Whether the coverage is felt inside the tanh of the score."""
        return "coverage_vector" in self.arrays

    @property
    def aligned(self):
        """Whether queries stop at keys, from left to right."""
        return self.alignment != "soft"

    @property
    def chunk_scored(self):
        """Whether chunks have scores of their own: else those of the energies."""
        return self.alignment == "chunkwise" and self.score.query_weight is not None

    @property
    def carried(self):
        """What attention hands on from step to step, by its name in the state."""
        return "alignment" if self.aligned else "coverage" if self.coverage else None

    @property
    def query_matrix(self):
        """What projects the states that ask, or None: for all scores side by side."""
        name = self.score.query_weight
        if name is None or not self.chunk_scored:
            return self.arrays.get(name)
        return np.concatenate([self.arrays[name], self.arrays["chunk_" + name]], axis=1)

    def __getstate__(self):
        return vars(self) | {"_panels": {}}  # packed again where they are needed

    def sample(self):
        """The first number of every parameter: a step of an optimiser changes them."""
        return [array.item(0) for array in self._every]

    def state_shapes(self, B, Tk):
        """Shapes of the arrays of a state, by name, in the order in which users hold them."""
        counts = self.window is not None and not self.predicts
        sizes = len(self.cells), B, self.H, Tk
        return state_shapes(self.cell, sizes, self.input_feeding, self.carried, counts)

    def state_parts(self, name, state):
        """The arrays of a state that the caller gave, by name. Those that follow the arrays of the
        cell may be left out."""
        if state is None:
            return {}
        cell = self.cell.state
        names = list(self.state_shapes(0, 0))
        if len(names) == 1 or len(cell) == 1 and is_one_array(state):
            return {cell[0]: state}
        if not (isinstance(state, (tuple, list)) and len(cell) <= len(state) <= len(names)):
            wanted = ", ".join(cell) + "".join(f"[, {more}]" for more in names[len(cell) :])
            raise TypeError(
                f"{self.where}: {name} must be a tuple ({wanted}), got {described(state)}"
            )
        return dict(zip(names, state, strict=False))

    def state_gradients(self, state, found):
        """Gradients, by name in `found`, of a state as the caller holds it."""
        parts = self.state_parts("state", state)
        gradients = [like(found[name], array) for name, array in parts.items()]
        alone = any(array is state for array in parts.values())
        return gradients[0] if alone else tuple(gradients)

    def read_state(self, name, state, B, Tk):
        """All arrays of a state, checked and cast; zeros for what was not given, but an alignment
        begins at the first key."""
        given = self.state_parts(name, state)
        arrays = {}
        for part, shape in self.state_shapes(B, Tk).items():
            if given.get(part) is None:
                arrays[part] = np.zeros(shape, self.dtype)
                if part == "alignment" and name == "state":
                    arrays[part][:, :1] = 1
                continue
            label = f"{name} ({part})" if len(given) > 1 else name
            array = real_array(self.where, label, given[part])
            array = fitting(self.where, label, array, shape)
            arrays[part] = np.array(array, self.dtype, order="C")
        return arrays

    @property
    def waits(self):
        """Whether a step attends, or reads out, before the next one can begin."""
        attends = self.score is not None and (self.bahdanau or self.carried is not None)
        return attends or self.input_feeding

    def split_input(self, E):
        """Rows of the first layer's input weight: those of the inputs, those of what is fed."""
        weight = self.cells[0][0]
        return weight[:E], weight[E:]

    def split_readout(self):
        """Rows of the readout weight: those of the context, those of the state."""
        weight = self.arrays["readout_weight"]
        return weight[: -self.H], weight[-self.H :]

    def panels(self, name, matrix, gates=1):
        """The matrix as products in C read it; packed once."""
        if name not in self._panels:
            self._panels[name] = _core.panels(matrix, gates)
        return self._panels[name]


def is_one_array(state):
    """Whether a state is one array (layers, B, H), maybe in nested lists, and not several."""
    if not isinstance(state, (tuple, list)):
        return True
    axes, first = 0, state
    while isinstance(first, (tuple, list)) and len(first):
        axes, first = axes + 1, first[0]
    return axes + np.ndim(first) == 3


class PreparedMemory:
    """A memory as `AttentionDecoder.prepare` leaves it: masked, with its keys projected.

    `owner` is the layer that prepared it: no other can use it. A deep copy is of the same owner,
    unless that was copied with it, before it; a pickle takes the owner along.
    """

    ARRAYS = (
        "value", "key", "allowed", "transforms", "rate", "last", "chunk_key", "chunk_transforms",
    )  # fmt: skip

    def __init__(self, decoder, value, allowed, owner=None, hard=False):
        self.decoder, self.owner, self.hard = decoder, owner, hard
        self.sample = None if owner is None else decoder.sample()
        if allowed is not None:
            value = np.where(allowed[..., None], value, value.dtype.type(0))  # not read
        self.value = self.key = value = contiguous(value, value.dtype)
        self.allowed = allowed
        if decoder.score is not None and decoder.score.key_weight is not None:
            weight = decoder.arrays[decoder.score.key_weight]
            self.key = _product(value, weight)
        if "score_bias" in decoder.arrays:
            self.key = self.key + decoder.arrays["score_bias"]
        self.chunk_key = self.key
        if "chunk_key_weight" in decoder.arrays:
            self.chunk_key = _product(value, decoder.arrays["chunk_key_weight"])
        self.transforms = self.chunk_transforms = None
        if decoder.attention == "additive" and decoder.waits and not decoder.covered_inside:
            self.transforms = self.chunk_transforms = _core.transform_keys(self.key)
            if decoder.chunk_scored:
                self.chunk_transforms = _core.transform_keys(self.chunk_key)
        self.last = None
        if decoder.predicts:  # the last valid step of each, where there is one
            B, Tk, _ = value.shape
            valid = np.ones((B, Tk), bool) if allowed is None else allowed
            steps = valid * np.arange(Tk, dtype=float)
            self.last = steps.max(axis=1, initial=0)
        # With a fertility a weight counts 1 / fertility for the coverage of its key.
        self.rate = None
        if "fertility_vector" in decoder.arrays:
            vector = decoder.arrays["fertility_vector"][:, None]
            self.rate = (1 + np.exp(-_product(value, vector)[..., 0])) / value.dtype.type(
                decoder.max_fertility
            )

    def __len__(self):
        return len(self.value)

    def take(self, rows):
        """The memories of some sequences of the batch, in this order."""
        other = copy.copy(self)
        for name in self.ARRAYS:
            x = getattr(self, name)
            if x is not None:
                x = tuple(y[rows] for y in x) if isinstance(x, tuple) else x[rows]
            setattr(other, name, x)
        return other

    @property
    def stale(self):
        """Whether the parameters are seen to have changed since."""
        before, now = self.sample, self.decoder.sample()
        if before == now:
            return False
        pairs = zip(before, now, strict=True)
        return not all(a == b or a != a and b != b for a, b in pairs)  # NaN is like NaN

    def __deepcopy__(self, memo):
        owner = memo.get(id(self.owner), self.owner)
        other = copy.copy(self)
        arrays = {name: getattr(self, name) for name in self.ARRAYS}
        vars(other).update(copy.deepcopy(arrays, memo))
        if owner is not self.owner:
            other.decoder, other.owner = copy.deepcopy(self.decoder, memo), owner
        return other

    def __repr__(self) -> str:
        return f"PreparedMemory(value={self.value.dtype} {self.value.shape})"


class MaskedMemory(NamedTuple):
    """A memory (B, Tk, M), and the keys (B, Tk) that are allowed in it, or None for all."""

    value: Array
    allowed: Array | None


def last_step(memory):
    """Last valid step of each memory (B, M), 0 where there is none; its weights (B, Tk), 1 there;
    and the index (sequences, steps) of those that exist."""
    B, Tk, M = memory.value.shape
    valid = np.ones((B, Tk), bool) if memory.allowed is None else memory.allowed
    sequences = np.flatnonzero(valid.any(axis=1))
    pick = sequences, Tk - 1 - valid[sequences, ::-1].argmax(axis=1) if Tk else sequences
    summary = np.zeros_like(memory.value, shape=(B, M))
    summary[sequences] = memory.value[pick]
    weights = np.zeros((B, Tk), memory.value.dtype)
    weights[pick] = 1
    return summary, weights, pick


# ---- attention inside the loop -------------------------------------------------------------------


class _Fixed:
    """In place of attention: every query gets the memory's last valid step, or nothing."""

    def __init__(self, decoder, memory, T, size):
        self.memory = memory
        summary, weights, self.pick = last_step(memory)
        self.summary = summary[:, :size]  # size 0: the contexts have none
        self.weights = np.repeat(weights[:, None], T, axis=1)
        self.contexts = np.repeat(self.summary[None], T, axis=0)

    def finish(self, dcontexts, dweights):
        """Gradients from those of all contexts (T, B, size); the weights are constants."""
        dvalue = np.zeros_like(self.memory.value)
        if self.summary.size:
            dvalue[self.pick] = sum_rows(dcontexts)[self.pick[0]]
        return {"value": dvalue}


class _Attending:
    """Attention of the steps of one run to one memory. `source` (T, B, H): the states that ask."""

    def __init__(self, decoder, memory, source, coverage, step):
        self.decoder, self.memory, self.source = decoder, memory, source
        self.score, self.arrays = decoder.score, decoder.arrays
        T, B, H = source.shape
        Tk, A = memory.key.shape[1:]
        like = source
        self.projected = self.score.query_weight is not None
        self.queries = _core.empty(like, (T, B, A)) if self.projected else source
        self.scale = self.arrays["scale"] if self.score.scale == "scale" else self.score.scale
        self.cosine = decoder.attention == "cosine"
        self.center = self.positions = None  # of local attention
        if decoder.window is not None:
            self.center = np.zeros((B, T))
            if decoder.predicts:
                size = self.arrays["position_vector"].shape[0]
                self.positions = _core.empty(like, (T, B, size))
            else:
                self.center += step + np.arange(T)
        if decoder.waits:
            self.contexts_b = _core.empty(like, (B, T, memory.value.shape[2]))
            self.weights = _core.empty(like, (B, T, Tk))
            self.stats = _core.empty(like, (B, T, 2))
            # What additive_attention would save: the scores, where they are no larger than queries.
            saves = decoder.attention == "additive" and Tk <= A or decoder.covered_inside
            self.scores = _core.empty(like, (B, T, Tk)) if saves else None
            if self.cosine:
                self.unit = _core.empty(like, (T, B, A))
                self.norm = _core.empty(like, (T, B))
                self.unit_key = _unit(memory.key)
            self.first_coverage, self.coverage = coverage, np.copy(coverage)
            if not decoder.coverage:
                self.coverage = None
            self.bias = _core.empty(like, (B, T, Tk)) if decoder.coverage else None

    @property
    def contexts(self):
        """(T, B, M), of any strides."""
        return self.contexts_b.swapaxes(0, 1)

    # ---- in the loop ----

    def _scored(self):
        """The fields that `Attend` and `AttendBack` begin with."""
        asked = self.unit if self.cosine else self.queries
        inside = self.decoder.covered_inside
        score = "additive" if self.decoder.attention == "additive" else "dot"
        factor = 1.0 if inside else self.arrays.get("coverage_weight", 0.0)
        return (
            "covered" if inside else score,
            asked.swapaxes(0, 1),
            self.unit_key if self.cosine else self.memory.key,
            self.memory.value,
            self.arrays.get(self.score.vector),
            self.arrays.get("coverage_vector"),
            self.memory.transforms,
            1.0 if self.scale is None else float(self.scale),
            self.weights,
            float(factor),
            self.memory.rate,
            self.decoder.window,
            self._sigma,
            self.decoder.renormalize,
            self.center,
            self.memory.last,
            None if self.positions is None else self.positions.swapaxes(0, 1),
            self.arrays.get("position_vector"),
        )

    @property
    def _sigma(self):
        """Of the Gaussian around a center that is predicted: Luong's."""
        return self.decoder.window / 2 if self.decoder.predicts else np.inf

    def operations(self):
        """Of a step: from its state to its context."""
        if self.projected and self.queries.shape[2]:
            weight = self.arrays[self.score.query_weight]
            yield Linear(self.queries, ((self.source, self.decoder.panels("query", weight)),))
        if self.cosine:
            yield Normalize(self.queries, self.unit, self.norm)
        if self.positions is not None:
            panels = self.decoder.panels("position", self.arrays["position_weight"])
            yield Linear(self.positions, ((self.source, panels),), tanh=True)
        yield Attend(
            *self._scored(),
            coverage=self.coverage,
            coverage_bias=self.bias,
            key_mask=self.memory.allowed,
            context=self.contexts_b,
            stats=self.stats,
            scores=self.scores,
        )

    @property
    def carried(self):
        """What the next step needs of the last."""
        return self.coverage

    def start_back(self, dweights, dcoverage):
        T, B, A = self.queries.shape
        like = self.source
        self.dcontexts = _core.empty(like, (T, *self.memory.value.shape[::2]))
        self.dqueries = _core.empty(like, (T, B, A))
        self.dunit = _core.empty(like, self.dqueries.shape) if self.cosine else self.dqueries
        self.given_dweights = self.dweights = dweights
        self.dcoverage = dcoverage
        if self.coverage is not None:
            # Those given, and what reaches them from later steps; with a window, within that.
            self.dweights = (
                np.zeros_like(self.weights)
                if self.center is not None
                else _core.empty(like, self.weights.shape)
            )
        self.dcenter = None if self.center is None else np.zeros_like(self.center)
        self.dpositions = None
        if self.positions is not None:
            self.dpositions = _core.empty(like, self.positions.shape)
        self.drate = None if self.memory.rate is None else np.zeros_like(self.memory.rate)
        self.dkey = self.dvector = self.dinside = None
        if self.decoder.covered_inside:
            self.dkey = np.zeros_like(self.memory.key)
            self.dvector, self.dinside = np.zeros((2, B, A), like.dtype)

    def operations_back(self):
        """Of a step back: from the gradient of its context to that of its query."""
        yield AttendBack(
            *self._scored(),
            dcoverage=self.dcoverage,
            coverage_bias=self.bias if self.decoder.covered_inside else None,
            dcontext=self.dcontexts.swapaxes(0, 1),
            dweights=self.given_dweights,
            dquery=self.dunit,
            dweights_total=None if self.dcoverage is None else self.dweights,
            dcoverage_rate=self.drate,
            dkey=self.dkey,
            dscore_vector=self.dvector,
            dcoverage_vector=self.dinside,
            dcenter=self.dcenter,
            dposition=self.dpositions,
        )
        if self.cosine:
            yield NormalizeBack(self.dunit, self.dqueries, self.unit, self.norm)

    # ---- all queries at once ----

    def _arguments(self):
        """Arrays and options of the attention function."""
        options = {"key_mask": self.memory.allowed, "return_weights": True}
        if self.center is not None:
            width = self.decoder.window
            options |= {"center": self.center, "window": (width, width), "sigma": self._sigma}
            options["renormalize"] = self.decoder.renormalize
        if self.decoder.covered_inside:  # no function has such scores: they are given
            return (self.scores, self.memory.value), options
        vector = () if self.score.vector is None else (self.arrays[self.score.vector],)
        if self.scale is not None:
            options["scale"] = self.scale
        if self.decoder.waits and self.bias is not None:
            options["bias"] = self.bias
        arrays = (self.queries.swapaxes(0, 1), self.memory.key, self.memory.value, *vector)
        return arrays, options

    def attend(self):
        """All queries, where no step waits for another."""
        if self.projected:
            self.queries = _product(self.source, self.arrays[self.score.query_weight])
        if self.positions is not None:
            product = _product(self.source, self.arrays["position_weight"])
            np.tanh(product, out=self.positions)
            self.center = np.ascontiguousarray((self.memory.last * self._places()).T)
        arrays, options = self._arguments()
        output, *self.kept = record_of(self.score.function).forward(*arrays, **options)
        self.contexts_b, self.weights = output

    def finish(self, dcontexts, dweights):
        """Gradients from those of all contexts (T, B, M): of the key, the value, the parameters
        and, where no step waited for it, of the queries."""
        dcontexts = dcontexts.swapaxes(0, 1)
        gradients = self._backward_of_all(
            dcontexts, self.dweights if self.decoder.waits else dweights
        )
        if not self.decoder.waits:
            self.dqueries = np.ascontiguousarray(gradients["query"].swapaxes(0, 1))
            self.dcenter = gradients.get("center")
        result = {"value": gradients["value"]}
        if self.positions is not None:
            result |= self._finish_positions()
        if self.decoder.covered_inside:
            result |= {"key": self.dkey, "coverage_vector": sum_rows(self.dinside)}
            result[self.score.vector] = sum_rows(self.dvector)
        else:
            result["key"] = gradients["key"]
            for name in (self.score.vector, "scale" if self.score.scale == "scale" else None):
                if name is not None:
                    result[name] = gradients[name]
        if "coverage_weight" in self.arrays:
            gained = self.weights
            if self.memory.rate is not None:
                gained = gained * self.memory.rate[:, None]
            before = np.cumsum(gained, axis=1) - gained + self.first_coverage[:, None]
            total = np.vdot(before.astype(float), gradients["bias"].astype(float))
            result["coverage_weight"] = np.asarray(total, before.dtype)
        if self.memory.rate is not None:
            # rate = (1 + exp(-x)) / N with x = h . U_f
            dx = self.drate * (1 / self.decoder.max_fertility - self.memory.rate)
            dx = dx.astype(self.weights.dtype, copy=False)[..., None]
            vector = self.arrays["fertility_vector"][:, None]
            result["fertility_vector"] = _core.product(_rows(self.memory.value).T, _rows(dx))[:, 0]
            result["value"] = result["value"] + _product(dx, vector.T)
        if self.projected:
            result[self.score.query_weight] = _core.product(
                _rows(self.source).T, _rows(self.dqueries)
            )
        return result

    def _places(self):
        """Where between the first and the last step of its memory each query looks: (T, B)."""
        x = self.positions.astype(float) @ self.arrays["position_vector"].astype(float)
        return 1 / (1 + np.exp(-x))

    def _finish_positions(self):
        """Gradients of the parameters of predicted centers; and of the tanh, if no step waited."""
        place = self._places()
        dx = (self.dcenter.T * self.memory.last * place * (1 - place)).astype(self.source.dtype)
        vector, dx = self.arrays["position_vector"], dx[..., None]
        if not self.decoder.waits:
            self.dpositions = dx * vector * (1 - np.square(self.positions))
        dvector = _core.product(_rows(self.positions).T, np.ascontiguousarray(dx).reshape(-1, 1))
        return {
            "position_vector": dvector[:, 0],
            "position_weight": _core.product(_rows(self.source).T, _rows(self.dpositions)),
        }

    def _backward_of_all(self, dcontexts, dweights):
        """Gradients of the attention of all queries, by name."""
        function = attend if self.decoder.covered_inside else self.score.function
        record = record_of(function)
        if self.decoder.waits:  # the loop did what the forward pass would have done
            kept = self.contexts_b, self.stats, None if function is attend else self.scores
            kept = MECHANISMS[function].saved(*self._arguments(), kept)
        else:
            kept = self.kept
        gradients = record.backward(*kept, dcontexts, dweights, None)
        return dict(zip((*record.required, *record.optional), gradients, strict=True))


def _unit(x):
    """Rows of length 1, or 0 where they are 0."""
    # Times a power of 2, which changes no digit, so that no square leaves the range of float64.
    _, exponent = np.frexp(np.abs(x).max(axis=-1, keepdims=True, initial=0))
    x = np.ldexp(x, -exponent)
    norm = np.sqrt(np.square(x, dtype=float).sum(axis=-1, keepdims=True))
    return np.divide(x, norm, out=np.zeros_like(x), where=norm != 0, casting="same_kind")


# ---- monotonic attention inside the loop ---------------------------------------------------------


class _Aligning:
    """Monotonic attention of the steps of one run to one memory, as `_Attending` is used.

    The queries of the energies and of chunks, where those have their own, stand side by side.
    """

    projected: bool

    def __init__(self, decoder, memory, source, previous, noise):
        self.decoder, self.memory, self.source = decoder, memory, source
        self.score, self.arrays, self.noise = decoder.score, decoder.arrays, noise
        self.previous, self.position = previous, previous.copy()
        T, B, _ = source.shape
        Tk, A = memory.key.shape[1:]
        self.projected = self.score.query_weight is not None
        self.cosine = decoder.attention == "cosine"
        self.chunkwise = decoder.alignment == "chunkwise"

        def pairs():
            return _core.empty(source, (B, T, Tk))

        width = A * (1 + decoder.chunk_scored)
        self.queries = _core.empty(source, (T, B, width)) if self.projected else source
        self.asked = self.queries
        if self.cosine:
            self.unit = self.asked = _core.empty(source, (T, B, A))
            self.norm = _core.empty(source, (T, B))
        self.own_key = _unit(memory.key) if self.cosine else memory.key
        self.vector, self.unit_vector, self.length = self._energy_vector()
        self.contexts_b = _core.empty(source, (B, T, memory.value.shape[2]))
        self.weights = pairs()
        if not memory.hard:
            self.scores, self.probability, self.reach = pairs(), pairs(), pairs()
            self.alignment = pairs() if self.chunkwise else self.weights
            self.chunk_scores = pairs() if decoder.chunk_scored else self.scores

    def _energy_vector(self):
        """``g v / |v|``, ``v / |v|`` and ``|v|``: the vector of the energies; without a gain v."""
        if self.score.vector is None:
            return None, None, None
        v = self.arrays[self.score.vector]
        if "energy_gain" not in self.arrays:
            return v, None, None
        length = np.sqrt(np.square(v, dtype=float).sum())
        unit = (v / length if length else np.zeros_like(v)).astype(v.dtype)
        return self.arrays["energy_gain"] * unit, unit, length

    @property
    def contexts(self):
        """(T, B, M), of any strides."""
        return self.contexts_b.swapaxes(0, 1)

    @property
    def carried(self):
        """Where the last query stopped (B, Tk)."""
        if self.memory.hard:
            return self.position
        return self.alignment[:, -1] if self.alignment.shape[1] else self.previous

    def _own(self, x):
        """Of queries side by side, or their gradients, those of the energies."""
        return x[..., : self.own_key.shape[2]] if self.decoder.chunk_scored else x

    def _chunk(self, x):
        return x[..., self.own_key.shape[2] :]

    def _scored(self):
        """The fields that operations on energies begin with."""
        memory, scale = self.memory, self.arrays.get("scale", 1.0)
        kind = "additive" if self.decoder.attention == "additive" else "dot"
        query = self._own(self.asked).swapaxes(0, 1)
        return kind, query, self.own_key, self.vector, memory.transforms, float(scale)

    def _chunk_scored(self):
        """The same of the scores of chunks."""
        if not self.decoder.chunk_scored:
            return self._scored()
        memory, kind = self.memory, self._scored()[0]
        query = self._chunk(self.asked).swapaxes(0, 1)
        vector = self.arrays.get("chunk_score_vector")
        return kind, query, memory.chunk_key, vector, memory.chunk_transforms, 1.0

    def operations(self):
        """Of a step: from its state to its context."""
        decoder, memory = self.decoder, self.memory
        mask, offset = memory.allowed, float(self.arrays.get("energy_offset", 0.0))
        if self.projected and self.queries.shape[2]:
            panels = decoder.panels("query", decoder.query_matrix)
            yield Linear(self.queries, ((self.source, panels),))
        if self.cosine:
            yield Normalize(self.queries, self.unit, self.norm)
        width = decoder.chunk_width if self.chunkwise else 1
        if memory.hard:
            ends = self._scored(), self._chunk_scored()
            yield Hard(*ends[0], offset, width, *ends[1], mask, self.position, self.weights)
        else:
            yield Energies(*self._scored(), self.scores, self.probability, offset, self.noise)
            if decoder.chunk_scored:
                yield Energies(*self._chunk_scored(), self.chunk_scores, None)
            yield Monotonic(self.probability, self.previous, mask, self.alignment, self.reach)
            if self.chunkwise:
                yield Chunkwise(self.alignment, self.chunk_scores, width, mask, self.weights)
        yield Read(self.weights, memory.value, self.contexts_b)

    def start_back(self, dweights, dalignment):
        T, B, _ = self.queries.shape
        like = self.source
        self.dcontexts = _core.empty(like, (T, *self.memory.value.shape[::2]))
        self.dqueries = _core.empty(like, self.queries.shape)
        self.dasked = _core.empty(like, self.asked.shape) if self.cosine else self.dqueries
        self.given_dweights, self.dprevious = dweights, dalignment
        shape = self.weights.shape
        self.dweights, self.dprobability = _core.empty(like, shape), _core.empty(like, shape)
        self.dscores = _core.empty(like, shape)
        self.dalignment, self.dchunk_scores = self.dweights, self.dscores
        if self.chunkwise:
            self.dalignment = _core.empty(like, shape)
        if self.decoder.chunk_scored:
            self.dchunk_scores = _core.empty(like, shape)

    def operations_back(self):
        """Of a step back: from the gradient of its context to that of its query."""
        decoder, memory = self.decoder, self.memory
        mask, chunked = memory.allowed, decoder.chunk_scored
        dcontexts = self.dcontexts.swapaxes(0, 1)
        yield ReadBack(memory.value, mask, dcontexts, self.given_dweights, self.dweights)
        if self.chunkwise:
            yield ChunkwiseBack(
                self.alignment, self.chunk_scores, decoder.chunk_width, mask, self.dweights,
                self.dalignment, self.dchunk_scores,
            )  # fmt: skip
        yield MonotonicBack(
            self.probability, mask, self.reach, self.dalignment, self.dprobability, self.dprevious
        )
        yield EnergiesBack(
            *self._scored(), self.dscores, self.probability, self.dprobability,
            self.chunkwise and not chunked, self._own(self.dasked),
        )  # fmt: skip
        if chunked:
            dquery = self._chunk(self.dasked)
            yield EnergiesBack(*self._chunk_scored(), self.dchunk_scores, None, None, False, dquery)
        if self.cosine:
            yield NormalizeBack(self.dasked, self.dqueries, self.unit, self.norm)

    def finish(self, dcontexts, dweights):
        """Gradients from those of all contexts (T, B, M): of the key, the value, the parameters."""
        memory, arrays = self.memory, self.arrays
        dvalue = _core.products(self.weights.swapaxes(1, 2), dcontexts.swapaxes(0, 1))
        own = self._back_of_all(self._own(self.queries), memory.key, self.vector, self.dscores)
        result = {"key": own["key"]}
        if "score_bias" in arrays:
            result["score_bias"] = sum_rows(_rows(own["key"]))
        if "energy_offset" in arrays:
            p = self.probability.astype(float)
            total = (self.dprobability * (p * (1 - p))).sum()
            result["energy_offset"] = np.asarray(total, dvalue.dtype)
        if self.score.scale == "scale":
            result["scale"] = own["scale"]
        if self.score.vector is not None:
            dvector = own["score_vector"]
            if self.unit_vector is not None:
                along = np.vdot(dvector.astype(float), self.unit_vector)
                result["energy_gain"] = np.asarray(along, dvalue.dtype)
                across = dvector - self.unit_vector * along
                factor = float(arrays["energy_gain"]) / self.length if self.length else 0.0
                dvector = (across * factor).astype(dvalue.dtype)
            result[self.score.vector] = dvector
        if self.decoder.chunk_scored:
            vector = arrays.get("chunk_score_vector")
            query = self._chunk(self.queries)
            found = self._back_of_all(query, memory.chunk_key, vector, self.dchunk_scores)
            dkey = found["key"]
            if vector is not None:
                result["chunk_score_vector"] = found["score_vector"]
                weight = arrays["chunk_key_weight"]
                result["chunk_key_weight"] = _core.product(_rows(memory.value).T, _rows(dkey))
                dkey = _product(dkey, weight.T)
            dvalue = dvalue + dkey
        if self.projected:
            dweight = _core.product(_rows(self.source).T, _rows(self.dqueries))
            name = self.score.query_weight
            result[name] = np.ascontiguousarray(self._own(dweight))
            if self.decoder.chunk_scored:
                result["chunk_" + name] = np.ascontiguousarray(self._chunk(dweight))
        return result | {"value": dvalue}

    def _back_of_all(self, queries, key, vector, dscores):
        """Gradients of the scores of all queries, by name."""
        arrays, options = (queries.swapaxes(0, 1), key), {"key_mask": self.memory.allowed}
        function, rest = dot_product_scores, {"scale": 1.0}
        if vector is not None:
            function, arrays, rest = additive_scores, (*arrays, vector), {}
        elif self.cosine:
            function, options["scale"], rest = cosine_scores, self.arrays["scale"], {}
        record = record_of(function)
        gradients = record.backward((*arrays, *options.values()), (list(options), rest), dscores)
        return dict(zip((*record.required, *record.optional), gradients, strict=True))


# ---- the cells -----------------------------------------------------------------------------------


class _Cells:
    """The cell of one layer over the steps of a run."""

    def __init__(self, decoder, layer, T, initial, gates=None):
        self.decoder, self.layer = decoder, layer
        self.weight, self.state_weight, self.input_bias, self.state_bias = decoder.cells[layer]
        B, H = initial[0].shape
        like = self.weight
        self.gates_hold_input = gates is not None
        width = decoder.cell.gates * H
        self.gates = _core.empty(like, (T * B, width)) if gates is None else gates
        self.states = [_core.empty(like, (T + 1, B, H)) for _ in initial]
        for states, first in zip(self.states, initial, strict=True):
            states[0] = first
        self.saved = _core.empty(like, (T * B, H)) if decoder.cell.gates > 1 else None

    @property
    def before(self):
        return self.states[0][:-1]

    @property
    def after(self):
        return self.states[0][1:]

    def _arrays(self):
        """The fields that `Cell` and `CellBack` begin with."""
        h, c = (*self.states, None)[:2]
        return self.decoder.cell.name, h, c, self.gates, self.saved

    def operation(self, *fed):
        """A step; `fed`: pairs of what it is fed and the panels of its weight."""
        panels = self.decoder.panels(
            ("state", self.layer), self.state_weight, self.decoder.cell.gates
        )
        return Cell(
            *self._arrays(),
            panels=panels,
            input_bias=self.input_bias,
            state_bias=self.state_bias,
            fed=fed,
            gates_hold_input=self.gates_hold_input,
        )

    def start_back(self, dfinal):
        T, B, _ = self.before.shape
        self.dstate = [np.array(d, self.gates.dtype) for d in dfinal]
        self.dinput = _core.empty(self.gates, self.gates.shape)
        gru = self.decoder.cell.name == "gru"
        self.dproduct = _core.empty(self.gates, self.gates.shape) if gru else self.dinput
        parts = -(-B // BIAS_ROWS), self.gates.shape[1]
        self.dinput_bias = np.zeros(parts, self.gates.dtype)
        self.dstate_bias = np.zeros_like(self.dinput_bias) if gru else None
        self.dinput_steps = self.dinput.reshape(T, B, parts[1])

    def operation_back(self, reached, adds):
        """A step back. `reached`: pairs of a gradient and panels through which it reaches the
        state after the step; `adds`: gradients of that state."""
        dh, dc = (*self.dstate, None)[:2]
        return CellBack(
            *self._arrays(),
            panels=self.decoder.panels(("state back", self.layer), self.state_weight.T),
            dinput=self.dinput,
            dproduct=self.dproduct,
            dh=dh,
            dc=dc,
            dinput_bias=self.dinput_bias,
            dstate_bias=self.dstate_bias,
            reached=tuple(reached),
            adds=tuple(adds),
        )

    def finish(self, inputs):
        """Gradients of the parameters, from what the input weight was multiplied with."""
        steps = len(self.dinput_steps)
        dinput_bias = bias_gradient(self.dinput_bias, self.dinput, steps)
        dstate_bias = dinput_bias
        if self.dstate_bias is not None:
            dstate_bias = bias_gradient(self.dstate_bias, self.dproduct, steps)
        dweight = np.concatenate([_core.product(x.T, self.dinput) for x in inputs])
        dstate_weight = _core.product(_rows(self.before).T, self.dproduct)
        return dweight, dstate_weight, dinput_bias, dstate_bias.copy()


# ---- a run over a sequence -----------------------------------------------------------------------


class Run:
    """One pass of a decoder over inputs (B, T, E), and the way back. `noise` (B, T, Tk) or None: of
    its energies."""

    def __init__(self, decoder, memory, inputs, state, noise=None):
        self.decoder, self.memory = decoder, memory
        initial = [state[name] for name in decoder.cell.state]
        B, T, E = inputs.shape
        self.shape, H = inputs.shape, decoder.H
        self.words = _core.empty(inputs, (T * B, E))
        self.words.reshape(T, B, E)[...] = inputs.swapaxes(0, 1)
        word_weight, self.fed_weight = decoder.split_input(E)
        gates = _core.product(self.words, word_weight)
        self.cells = [
            _Cells(decoder, layer, T, [s[layer] for s in initial], gates if layer == 0 else None)
            for layer in range(len(decoder.cells))
        ]
        top = self.cells[-1]
        self.late = None
        if decoder.order == "luong":
            # Luong's output o_t, one step late: o_(t-1) is what step t is fed.
            self.late = _core.empty(inputs, (T + 1, B, H))
            self.late[0] = state.get("feed", 0)
            self.context_weight, self.top_weight = decoder.split_readout()
        self.source = top.before if decoder.bahdanau else top.after
        if decoder.score is None:
            size = len(self.fed_weight if decoder.bahdanau else self.context_weight)
            self.attend = _Fixed(decoder, memory, T, size)
            if decoder.bahdanau and size:
                gates += np.tile(_core.product(self.attend.summary, self.fed_weight), (T, 1))
        elif decoder.aligned:
            self.attend = _Aligning(decoder, memory, self.source, state["alignment"], noise)
        else:
            self.attend = _Attending(
                decoder, memory, self.source, state.get("coverage"), state.get("step")
            )
            self.step = state.get("step")
        self._run(self._operations(), backward=False)
        if decoder.score is not None and not decoder.waits:
            self.attend.attend()
        if decoder.order == "luong" and not decoder.waits:
            product = _product(top.after, self.top_weight)
            product += _product(self.attend.contexts, self.context_weight)
            np.tanh(product, out=self.late[1:])
        self.outputs_steps = top.after if decoder.bahdanau else self.late[1:]
        # A copy, because the caller may write to it.
        self.outputs = np.array(self.outputs_steps.swapaxes(0, 1), order="C")

    @property
    def weights(self):
        """Attention weights (B, T, Tk), a copy: backward needs them."""
        return self.attend.weights.copy()

    @property
    def final(self):
        """The state after the last step, as the caller holds it."""
        arrays = [
            np.stack([cell.states[k][-1] for cell in self.cells])
            for k in range(len(self.decoder.cell.state))
        ]
        if self.decoder.input_feeding:
            arrays.append(self.late[-1].copy())
        if self.decoder.carried:
            arrays.append(self.attend.carried.copy())
        if self.decoder.window is not None and not self.decoder.predicts:
            arrays.append(self.step + self.step.dtype.type(self.shape[1]))
        return joined(arrays)

    def _run(self, operations, backward):
        B, T, _ = self.shape
        if B and T:
            _core.loop(self.cells[0].gates, T, B, tuple(operations), backward)

    def _operations(self):
        """A step, forward."""
        decoder, first = self.decoder, []
        attends = decoder.score is not None and decoder.waits
        if decoder.bahdanau and attends:
            yield from self.attend.operations()
            first = [self.attend.contexts]
        elif decoder.input_feeding:
            first = [self.late[:-1]]
        for layer, cell in enumerate(self.cells):
            below = first if layer == 0 else [self.cells[layer - 1].after]
            weight = self.fed_weight if layer == 0 else cell.weight
            yield cell.operation(
                *((x, decoder.panels(("fed", layer), weight, decoder.cell.gates)) for x in below)
            )
        if decoder.order == "luong" and decoder.waits:
            if attends:
                yield from self.attend.operations()
            terms = (
                (self.cells[-1].after, decoder.panels("top", self.top_weight)),
                (self.attend.contexts, decoder.panels("context", self.context_weight)),
            )
            yield Linear(self.late[1:], terms, tanh=True)

    # ---- backward ----

    def backward(self, doutputs, dweights, dstate):
        """Gradients by name. doutputs, dweights: as the outputs, or None; dstate: arrays by name,
        of which this becomes the owner."""
        # Work on copies that share the arrays of the forward pass: pullbacks may run side by side.
        own = copy.copy(self)
        own.attend, own.cells = copy.copy(self.attend), [copy.copy(cell) for cell in self.cells]
        return own._backward(doutputs, dweights, dstate)

    def _backward(self, doutputs, dweights, dstate):
        decoder, (B, T, E), H = self.decoder, self.shape, self.decoder.H
        if doutputs is None:
            doutputs = np.zeros((B, T, H), decoder.dtype)
        self.doutputs = doutputs.swapaxes(0, 1)
        if T and decoder.input_feeding:
            self.doutputs = self.doutputs.copy()
            self.doutputs[-1] += dstate["feed"]
        for layer, cell in enumerate(self.cells):
            cell.start_back([dstate[name][layer] for name in decoder.cell.state])
        attends = decoder.score is not None
        if attends and decoder.waits:
            self.attend.start_back(dweights, dstate.get(decoder.carried))
        result = {}
        if decoder.order == "luong" and not decoder.waits:
            self.dreadout = self.doutputs * (1 - np.square(self.late[1:]))
            dcontexts = _product(self.dreadout, self.context_weight.T)
            result |= self.attend.finish(dcontexts, dweights)
            self.dtop = _product(self.dreadout, self.top_weight.T)
            if attends:
                self.dtop += self._dsource()
        elif decoder.order == "luong":
            self.dreadout = _core.empty(self.late, (T, B, H))
            if not attends:
                self.dcontexts = _core.empty(self.late, (T, B, len(self.context_weight)))
        self._run(self._operations_back(), backward=True)
        if decoder.waits:
            dcontexts = self.attend.dcontexts if attends else self.dcontexts
            result |= self.attend.finish(dcontexts, dweights)
        elif decoder.bahdanau:
            dcontexts = _product(self.cells[0].dinput_steps, self.fed_weight.T)
            result |= self.attend.finish(dcontexts, dweights)
        result["cells"] = self._finish_cells()
        if decoder.order == "luong":
            rows = _rows(self.dreadout)
            parts = _rows(self.attend.contexts), _rows(self.cells[-1].after)
            result["readout_weight"] = np.concatenate([_core.product(x.T, rows) for x in parts])
        for k, name in enumerate(decoder.cell.state):
            dstate[name] = np.stack([cell.dstate[k] for cell in self.cells])
        if decoder.bahdanau and attends and T:
            dstate["h"][-1] += self._dsource(slice(1))[0]
        if decoder.input_feeding and T:
            dstate["feed"] = _core.product(self.cells[0].dinput_steps[0], self.fed_weight.T)
        result["state"] = dstate
        word_weight, _ = decoder.split_input(E)
        dwords = _product(self.cells[0].dinput_steps, word_weight.T)
        result["inputs"] = np.ascontiguousarray(dwords.swapaxes(0, 1))
        result["memory"] = self._dmemory(result)
        return result

    def _dsource(self, t=slice(None)):
        """Gradient of the states that asked, from that of the queries."""
        d = self.attend.dqueries[t]
        if self.attend.projected:
            d = _product(d, self.decoder.query_matrix.T)
        if self.decoder.predicts:
            weight = self.decoder.arrays["position_weight"]
            d = d + _product(self.attend.dpositions[t], weight.T)
        return d

    def _finish_cells(self):
        """Gradients of all cells' parameters."""
        fed = []
        if self.decoder.input_feeding:
            fed = [_rows(self.late[:-1])]
        elif self.decoder.bahdanau:
            fed = [_rows(self.attend.contexts)]
        below = [[_rows(cell.after)] for cell in self.cells[:-1]]
        return [
            cell.finish(inputs)
            for cell, inputs in zip(self.cells, [[self.words, *fed], *below], strict=True)
        ]

    def _operations_back(self):
        """A step, backward."""
        decoder, attend, cells = self.decoder, self.attend, self.cells
        attends = decoder.score is not None and decoder.waits
        fed_back = decoder.panels("fed back", self.fed_weight.T) if len(self.fed_weight) else None
        reached, adds = [], [self.doutputs]
        if decoder.order == "luong" and not decoder.waits:
            adds = [self.dtop]
        elif decoder.order == "luong":
            later = ()
            if decoder.input_feeding:
                later = ((cells[0].dinput_steps[1:], fed_back),)
            yield Linear(self.dreadout, later, add=self.doutputs, tanh_of=self.late[1:])
            dcontexts = attend.dcontexts if attends else self.dcontexts
            if dcontexts.shape[2]:
                panels = decoder.panels("context back", self.context_weight.T)
                yield Linear(dcontexts, ((self.dreadout, panels),))
            if attends:
                yield from attend.operations_back()
            reached = [(self.dreadout, decoder.panels("top back", self.top_weight.T))]
            adds = []
        if attends:
            # Bahdanau's queries are the states before: those of the next step reach this one.
            dqueries = attend.dqueries[1:] if decoder.bahdanau else attend.dqueries
            if attend.projected:
                panels = decoder.panels("query back", decoder.query_matrix.T)
                reached = [*reached, (dqueries, panels)]
            else:
                adds = [*adds, dqueries]
            if decoder.predicts:
                weight = decoder.arrays["position_weight"]
                later = attend.dpositions[1:] if decoder.bahdanau else attend.dpositions
                reached = [*reached, (later, decoder.panels("position back", weight.T))]
        for layer in reversed(range(len(cells))):
            yield cells[layer].operation_back(reached, adds)
            panels = None
            if layer:
                panels = decoder.panels(("fed back", layer), cells[layer].weight.T)
            reached, adds = [(cells[layer].dinput_steps, panels)], []
        if decoder.bahdanau and attends:
            if fed_back is not None:
                yield Linear(attend.dcontexts, ((cells[0].dinput_steps, fed_back),))
            yield from attend.operations_back()

    def _dmemory(self, result):
        """Gradient of the memory from those of keys and values; adds that of the key's weight."""
        dmemory, dkey = result.pop("value"), result.pop("key", None)
        score, memory = self.decoder.score, self.memory
        if dkey is not None and score.key_weight is not None:
            result[score.key_weight] = _core.product(_rows(memory.value).T, _rows(dkey))
            dkey = _product(dkey, self.decoder.arrays[score.key_weight].T)
        if dkey is not None:
            dmemory = dmemory + dkey
        if memory.allowed is not None:
            dmemory[~memory.allowed] = 0  # also where an incoming gradient is not finite
        return dmemory

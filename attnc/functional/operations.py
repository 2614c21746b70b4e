"""The operations of a loop over time in C, as `_core.loop` reads them.

    _core.loop(like, steps, batch, operations, backward)

runs `steps` steps, and in each of them the operations, a tuple, one after the other; backward from
the last step to the first. `like` is an array of the dtype that all have. In place of their number
`steps` may be an array (T,) that falls: counts[t] of the batch take part in step t, the first ones.

The shapes below are of a loop of T steps over a batch of B. `(T, B, size)` is time-major and of
any strides but for the last axis; `(<= T, B, size)` may lack the last steps, and adds nothing
there: so `x[1:]` is, for step t, what step t + 1 left in x. (With counts it has to hold 0 for
sequences that end at step t.) All other arrays are C-contiguous. R is the number of rows of all
steps, step after step: T * B, or the sum of the counts. Panels are what `_core.panels` made of a
matrix, whose shape is given. Arrays that are not needed are None.

An operation is one class here, and one reader and one row of a table in csrc/python/op_loop.c;
what it does is in csrc/engine/loop.c.
"""

from __future__ import annotations

from typing import NamedTuple

from attnc.typing import Array

Terms = tuple[tuple[Array, Array], ...]  # pairs of an array over the steps and panels


class Linear(NamedTuple):
    """``out_t = tanh(sum of x_t W + add_t)``, or without the tanh; times ``1 - tanh_of_t ** 2``
    where that is given, which is the way back through ``tanh_of = tanh(...)``."""

    out: Array  # (T, B, N), written
    terms: Terms  # up to four x (<= T, B, K), each with the panels of its W (K, N)
    add: Array | None = None  # (<= T, B, N)
    tanh: bool = False
    tanh_of: Array | None = None  # (T, B, N)


class Cell(NamedTuple):
    """``h_t = cell(sum of x_t W + input_bias, h_(t-1) U + state_bias)``, G gates of H units."""

    cell: str  # 'rnn', 'gru', 'lstm'
    h: Array  # (B + R, H), written: the first B rows are the initial state
    c: Array | None  # the same, of an LSTM
    gates: Array  # (R, G * H), written: what the gates are
    saved: Array | None  # (R, H), written: what backward needs beside; not of an RNN
    panels: Array  # of U (H, G * H)
    input_bias: Array  # (G * H,)
    state_bias: Array  # (G * H,)
    fed: Terms = ()  # up to three x (<= T, B, K), each with the panels of its W (K, G * H)
    gates_hold_input: bool = False  # gates holds a part of the sum of products before
    outputs: Array | None = None  # (n, H), rows of any stride, written: h once more
    places: Array | None = None  # (R,) intp: the row of outputs for each row
    beside: bool = False  # done together with the cell before it in the list, of one kind and size


class CellBack(NamedTuple):
    """The way back through a `Cell`: from the gradient of h after a step to those of its sums and
    of h before it."""

    cell: str
    h: Array
    c: Array | None
    gates: Array
    saved: Array | None
    panels: Array  # of U transposed, (G * H, H)
    dinput: Array  # (R, G * H), written: gradient of the sum over x_t, and of input_bias
    dproduct: Array  # that of h_(t-1) U; dinput itself, but for the GRU
    dh: Array  # (B, H), written: gradient of the last state; at the end that of the initial one
    dc: Array | None  # the same, of an LSTM
    dinput_bias: Array  # (ceil(B / BIAS_ROWS), G * H), zeros, added to: parts of the sum of dinput
    dstate_bias: Array | None  # the same of dproduct, of a GRU
    reached: Terms = ()  # up to three gradients (<= T, B, K), panels (K, H): they reach h_t by W
    adds: tuple[Array, ...] = ()  # up to two gradients of h_t, (<= T, B, H)
    doutputs: Array | None = None  # (n, H), rows of any stride: gradient of the outputs
    places: Array | None = None
    beside: bool = False


class Attend(NamedTuple):
    """The query of step t attends to all keys of its sequence; with coverage, the weights that a
    key got so far, times `coverage_weight`, are added to its score, and then grow by the new ones,
    times `coverage_rate` where that is given. For the score 'covered', which is additive, they are
    added times `coverage_vector` to what is inside the tanh; `coverage_weight` is 1 then.

    Arrays are batch-major, as attention functions take them."""

    score: str  # 'dot', 'additive', 'covered'
    query: Array  # (B, T, D), of any strides but for the last axis, as key and value
    key: Array  # (B, Tk, D)
    value: Array  # (B, Tk, Dv)
    score_vector: Array | None  # (D,), additive and covered
    coverage_vector: Array | None  # (D,), covered
    key_transforms: tuple[Array, Array, Array] | None  # by _core.transform_keys, additive
    scale: float
    weights: Array  # (B, T, Tk), written
    coverage_weight: float
    coverage_rate: Array | None  # (B, Tk)
    width: int | None  # local attention: of the window around each center, on either side
    sigma: float  # of the Gaussian around it; inf: none
    renormalize: bool  # it is part of the softmax
    center: Array | None  # (B, T) of float64, with a width; written where there is a position
    last: Array | None  # (B,) of float64: center = last * sigmoid(position . position_vector)
    position: Array | None  # (B, T, P), of any strides but for the last axis: a tanh
    position_vector: Array | None  # (P,)
    coverage: Array | None  # (B, Tk), written
    coverage_bias: Array | None  # (B, T, Tk), written: coverage_weight * coverage before each step
    key_mask: Array | None  # (B, Tk) bool
    context: Array  # (B, T, Dv), written
    stats: Array  # (B, T, 2), written: for the backward pass of all queries
    scores: Array | None  # (B, T, Tk), written: the same


class AttendBack(NamedTuple):
    """From the gradients of a context and its weights to that of its query. Those of keys, values
    and parameters wait for no step: one pass over all queries makes them afterwards. But for the
    score 'covered' the gradients of all that is inside the tanh are made here."""

    score: str
    query: Array
    key: Array
    value: Array
    score_vector: Array | None
    coverage_vector: Array | None
    key_transforms: tuple[Array, Array, Array] | None
    scale: float
    weights: Array
    coverage_weight: float
    coverage_rate: Array | None
    width: int | None
    sigma: float
    renormalize: bool
    center: Array | None
    last: Array | None
    position: Array | None
    position_vector: Array | None
    dcoverage: Array | None  # (B, Tk), written: of the last coverage; at the end of the initial one
    coverage_bias: Array | None  # (B, T, Tk), covered
    dcontext: Array  # (B, T, Dv), of any strides but for the last axis, as dweights
    dweights: Array | None  # (B, T, Tk)
    dquery: Array  # (T, B, D), written
    dweights_total: Array | None  # (B, T, Tk), written: dweights and what coverage adds to them
    dcoverage_rate: Array | None = None  # (B, Tk), with a rate; added to, as all that follows
    dkey: Array | None = None  # (B, Tk, D), covered, as all that follows
    dscore_vector: Array | None = None  # (B, D)
    dcoverage_vector: Array | None = None  # (B, D)
    dcenter: Array | None = None  # (B, T) of float64, with a width, written
    dposition: Array | None = None  # (T, B, P), with a position, written: of what the tanh is of


class Normalize(NamedTuple):
    """``unit_t = x_t / |x_t|``, row by row, and 0 where x is 0."""

    x: Array  # (T, B, D)
    unit: Array  # (T, B, D), written
    norm: Array  # (T, B), written: the lengths


class NormalizeBack(NamedTuple):
    """The way back through a `Normalize`."""

    dunit: Array  # (T, B, D)
    dx: Array  # (T, B, D), written
    unit: Array  # (T, B, D)
    norm: Array  # (T, B)


# ---- monotonic attention -------------------------------------------------------------------------


class Energies(NamedTuple):
    """``score_t`` of all keys, and ``probability_t = sigmoid(score_t + offset + noise_t)``."""

    score: str  # 'dot', 'additive'
    query: Array  # (B, T, D), of any strides but for the last axis, as key
    key: Array  # (B, Tk, D)
    score_vector: Array | None  # (D,), additive
    key_transforms: tuple[Array, Array, Array] | None  # by _core.transform_keys, additive
    scale: float
    scores: Array  # (B, T, Tk), written
    probability: Array | None  # (B, T, Tk), written
    offset: float = 0.0
    noise: Array | None = None  # (B, T, Tk)


class EnergiesBack(NamedTuple):
    """From the gradient of probabilities, of scores or of both to that of the query."""

    score: str
    query: Array
    key: Array
    score_vector: Array | None
    key_transforms: tuple[Array, Array, Array] | None
    scale: float
    dscores: Array  # (B, T, Tk), written; read where it adds, or where there is no probability
    probability: Array | None  # (B, T, Tk)
    dprobability: Array | None  # (B, T, Tk), with a probability
    adds: bool
    dquery: Array  # (T, B, D), written, of any strides but for the last axis


class Monotonic(NamedTuple):
    """Where queries stop: a step of `attnc.monotonic_alignment`."""

    probability: Array  # (B, T, Tk)
    previous: Array  # (B, Tk): the alignment before step 0
    key_mask: Array | None  # (B, Tk) bool
    alignment: Array  # (B, T, Tk), written
    reach: Array | None  # (B, T, Tk), written: for the way back


class MonotonicBack(NamedTuple):
    """The way back through a `Monotonic`."""

    probability: Array
    key_mask: Array | None
    reach: Array
    dalignment: Array  # (B, T, Tk)
    dprobability: Array  # (B, T, Tk), written
    dprevious: Array  # (B, Tk), written: of the last alignment; at the end of the one before step 0


class Chunkwise(NamedTuple):
    """A softmax over the keys up to where a query stops: `attnc.chunkwise_attention`'s weights."""

    alignment: Array  # (B, T, Tk)
    scores: Array  # (B, T, Tk)
    width: int
    key_mask: Array | None  # (B, Tk) bool
    weights: Array  # (B, T, Tk), written


class ChunkwiseBack(NamedTuple):
    """The way back through a `Chunkwise`."""

    alignment: Array
    scores: Array
    width: int
    key_mask: Array | None
    dweights: Array  # (B, T, Tk)
    dalignment: Array  # (B, T, Tk), written
    dscores: Array  # (B, T, Tk), written


class Read(NamedTuple):
    """``context_t = weights_t @ value``; what has weight 0 is not read."""

    weights: Array  # (B, T, Tk)
    value: Array  # (B, Tk, Dv), of any strides but for the last axis
    context: Array  # (B, T, Dv), written


class ReadBack(NamedTuple):
    """The gradient of the weights: ``dtotal_t = dcontext_t @ value^T + dweights_t``."""

    value: Array
    key_mask: Array | None  # (B, Tk) bool: elsewhere the gradient is 0
    dcontext: Array  # (B, T, Dv), of any strides but for the last axis, as dweights
    dweights: Array | None  # (B, T, Tk)
    dtotal: Array  # (B, T, Tk), written


class Hard(NamedTuple):
    """To decode: the weight of step t is 1 at the first key, from the last one on, whose energy is
    0 or more; or, with a width above 1, the softmax over the chunk that ends there."""

    score: str
    query: Array
    key: Array
    score_vector: Array | None
    key_transforms: tuple[Array, Array, Array] | None
    scale: float
    offset: float
    width: int
    # The same six of the scores of a chunk, which count where the width is above 1.
    chunk_score: str
    chunk_query: Array
    chunk_key: Array
    chunk_score_vector: Array | None
    chunk_key_transforms: tuple[Array, Array, Array] | None
    chunk_scale: float
    key_mask: Array | None  # (B, Tk) bool
    position: Array  # (B, Tk), written: 1 at the last stop, 0 everywhere after a query without one
    weights: Array  # (B, T, Tk), written

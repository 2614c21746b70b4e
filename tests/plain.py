"""Recurrent cells, stacks of them and attention decoders in plain NumPy, in any dtype.

The formulas stand here as the papers have them, step by step, on `Node`s: arrays that remember what
they were computed from, so that no gradient is written by hand. What the tests of the functions in
C are held against.

defines: recurrent, decoder, evaluate, assert_close
"""

import itertools
from types import SimpleNamespace

import numpy as np
from checks import FEW, FLOOR, FLOOR_OF_FEW, assert_close_like_naive, wider
from layer_checks import arrays_of

# ---- arrays with gradients -----------------------------------------------------------------------


class Node:
    """An array; `parents` are pairs of a Node and the map from this gradient to that Node's.

    The map is `back(d, f)` with f the identity. With f the absolute value, it goes from the size of
    the terms in this gradient to that in the other: no difference makes them small. `anchor`: here
    the size of terms begins anew, with that of the gradient. `scores`: of weights, the largest of
    their scores.
    """

    __array_ufunc__ = None  # array + Node is for Node
    numbers = itertools.count()

    def __init__(self, value, *parents):
        self.value, self.parents, self.anchor, self.scores = value, parents, False, 0
        self.shape, self.number = value.shape, next(Node.numbers)

    def __add__(self, other):
        other = node(other, self)
        return Node(self.value + other.value, (self, same), (other, same))

    def __sub__(self, other):
        other = node(other, self)
        return Node(self.value - other.value, (self, same), (other, lambda d, f: f(-d)))

    def __mul__(self, other):
        other = node(other, self)
        x, y = self.value, other.value
        return Node(x * y, (self, lambda d, f: d * f(y)), (other, lambda d, f: d * f(x)))

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other):
        return node(other, self) - self

    def __matmul__(self, other):
        x, y = self.value, other.value
        return Node(
            x @ y,
            (self, lambda d, f: d @ f(y).swapaxes(-1, -2)),
            (other, lambda d, f: f(x).swapaxes(-1, -2) @ d),
        )

    def __getitem__(self, index):
        def back(d, f):
            whole = np.zeros_like(self.value)
            whole[index] = d
            return whole

        return Node(self.value[index], (self, back))

    def swap(self, *axes):
        return Node(self.value.swapaxes(*axes), (self, lambda d, f: d.swapaxes(*axes)))


def over(x, y):
    q = x.value / y.value
    return Node(q, (x, lambda d, f: d / f(y.value)), (y, lambda d, f: d * f(-q / y.value)))


def node(x, like):
    return x if isinstance(x, Node) else Node(np.asarray(x, like.value.dtype))


def same(d, f=None):
    return d


def tanh(x):
    y = np.tanh(x.value)
    return Node(y, (x, lambda d, f: d * (1 + f(-y * y))))


def sigmoid(x):
    y = 1 / (1 + np.exp(-x.value))
    return Node(y, (x, lambda d, f: d * y * (1 + f(-y))))


def softmax(scores, allowed):
    """Over the last axis, where allowed; 0 where nothing is."""
    x = np.where(allowed, scores.value, -np.inf)
    top = x.max(axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(x - np.where(np.isfinite(top), top, 0))
    total = e.sum(axis=-1, keepdims=True)
    y = e / np.where(total > 0, total, 1)
    back = lambda d, f: y * (d + f(-(y * d).sum(axis=-1, keepdims=True)))  # noqa: E731
    weights = anchored(Node(y, (scores, back)))
    weights.scores = np.abs(scores.value).max(initial=0)
    return weights


def unit(x):
    """Rows of length 1, or 0."""
    norm = np.sqrt((x.value * x.value).sum(axis=-1, keepdims=True))
    norm = np.where(norm > 0, norm, np.inf)
    y = x.value / norm
    return Node(y, (x, lambda d, f: (d + f(-y * (f(y) * d).sum(axis=-1, keepdims=True))) / norm))


def joined(nodes, axis=-1):
    ends = np.cumsum([x.shape[axis] for x in nodes])[:-1]
    values = np.concatenate([x.value for x in nodes], axis)
    parents = [
        (x, lambda d, f, k=k: np.split(d, ends, axis)[k])
        for k, x in enumerate(nodes)
        if x.shape[axis]
    ]
    return Node(values, *parents)


def stacked(nodes, axis):
    values = np.stack([x.value for x in nodes], axis)
    return Node(values, *((x, lambda d, f, k=k: d.take(k, axis)) for k, x in enumerate(nodes)))


def summed_to(d, shape):
    """Undo broadcasting."""
    d = d.sum(axis=tuple(range(d.ndim - len(shape))))
    axes = tuple(k for k, n in enumerate(shape) if n == 1 and d.shape[k] != 1)
    return d.sum(axis=axes, keepdims=True)


def anchored(x):
    x.anchor = True
    return x


def backward(outputs, gradients, f=same, exact=None):
    """The gradient of sum(output * gradient) in every Node behind these, by its number; and the
    largest score.

    With f the absolute value and `exact` these gradients: the size of the terms in their sums.
    """
    found, scores, waiting = {}, 0, {x.number: x for x in outputs}
    for output, d in zip(outputs, gradients, strict=True):
        found[output.number] = f(np.asarray(d, output.value.dtype))
    while waiting:
        x = waiting.pop(max(waiting))  # whatever uses it came later, and is done
        scores = max(scores, x.scores)
        if x.anchor and exact:
            found[x.number] = f(exact[x.number])
        for parent, back in x.parents:
            d = summed_to(back(found[x.number], f), parent.shape)
            found[parent.number] = found[parent.number] + d if parent.number in found else d
            waiting[parent.number] = parent
    return found, scores


# ---- the formulas --------------------------------------------------------------------------------


def rnn(a, u, state):
    return [tanh(a + u)]


def gru(a, u, state):
    """Cho et al. 2014, eq. 5-8, with r after the product."""
    (h,) = state
    H = h.shape[1]
    r, z = sigmoid(a[:, :H] + u[:, :H]), sigmoid(a[:, H : 2 * H] + u[:, H : 2 * H])
    n = tanh(a[:, 2 * H :] + r * u[:, 2 * H :])
    return [(1 - z) * n + z * h]


def lstm(a, u, state):
    """Hochreiter and Schmidhuber 1997, Gers et al. 2000."""
    _, c = state
    H, x = c.shape[1], a + u
    i, f, o = (sigmoid(x[:, k * H : (k + 1) * H]) for k in (0, 1, 3))
    c = f * c + i * tanh(x[:, 2 * H : 3 * H])
    return [o * tanh(c), c]


CELLS = {"rnn": rnn, "gru": gru, "lstm": lstm}


def step(kind, x, state, parameters):
    """One step of a cell: the state after it."""
    W, U, b, c = parameters
    return [anchored(new) for new in CELLS[kind](x @ W + b, state[0] @ U + c, state)]


def recurrent(kind, x, parameters, state, lengths=None, bidirectional=False):
    """A stack of cells over whole sequences: outputs and final state, as `attnc.functional`."""
    state = list(state) if kind == "lstm" else [state]
    B, T, _ = x.shape
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    directions, final = 1 + bidirectional, []
    for layer in range(len(parameters) // 4 // directions):
        sides = []
        for direction in range(directions):
            number = layer * directions + direction
            own = parameters[4 * number : 4 * number + 4]
            s, outputs = [array[number] for array in state], [None] * T
            for t in range(T)[:: -1 if direction else 1]:
                valid = (t < lengths)[:, None].astype(x.value.dtype)
                new = step(kind, x[:, t], s, own)
                s = [valid * n + (1 - valid) * old for n, old in zip(new, s, strict=True)]
                outputs[t] = valid * s[0]
            sides.append(stacked(outputs, 1))
            final.append(s)
        x = joined(sides)
    final = tuple(stacked(arrays, 0) for arrays in zip(*final, strict=True))
    return x, final if kind == "lstm" else final[0]


def decoder(
    inputs, memory, cells, state, named, *, cell, attention, order, input_feeding, allowed=None,
    max_fertility=2.0, alignment="soft", chunk_width=2, noise=None,
):  # fmt: skip
    """An attention decoder over whole sequences: outputs, weights, final state. `state` in full,
    `named`: the other parameters by name."""
    p = SimpleNamespace(**named)
    inside = "coverage_vector" in named
    coverage = inside or "coverage_weight" in named
    names = ["h", "c"] if cell == "lstm" else ["h"]
    aligned = alignment != "soft"
    names += ["feed"] * input_feeding + ["coverage"] * coverage + ["alignment"] * aligned
    state = dict(zip(names, state if isinstance(state, tuple) else (state,), strict=True))
    B, T, _ = inputs.shape
    allowed = np.ones(memory.shape[:2], bool) if allowed is None else allowed
    memory = memory * allowed[..., None]
    states = [[state[n][k] for n in names if n in "hc"] for k in range(len(cells) // 4)]
    feed, covered, stopped = state.get("feed"), state.get("coverage"), state.get("alignment")

    fertility = None
    if "fertility_vector" in named:
        fertility = max_fertility * sigmoid(memory @ p.fertility_vector[:, None])[:, :, 0]

    def score(s):
        s = s[:, None]
        if attention == "additive":
            hidden = s @ p.query_weight + memory @ p.key_weight
            if inside:
                hidden = hidden + covered[:, :, None] * p.coverage_vector
            return tanh(hidden) @ p.score_vector[:, None]
        if attention == "multiplicative":
            return memory @ (s @ p.weight).swap(1, 2)
        if attention == "cosine":
            return p.scale * (unit(memory) @ unit(s).swap(1, 2))
        return memory @ s.swap(1, 2)

    def energy(s):
        if attention == "additive":
            hidden = s[:, None] @ p.query_weight + memory @ p.key_weight + p.score_bias
            vector = p.energy_gain * unit(p.score_vector)
            scores = (tanh(hidden) @ vector[:, None])[:, :, 0]
        else:
            scores = score(s)[:, :, 0]
        return scores + p.energy_offset

    def chunk_score(s):
        s = s[:, None]
        if attention == "additive":
            hidden = tanh(s @ p.chunk_query_weight + memory @ p.chunk_key_weight)
            return (hidden @ p.chunk_score_vector[:, None])[:, :, 0]
        if attention == "multiplicative":
            return (memory @ (s @ p.chunk_weight).swap(1, 2))[:, :, 0]
        return score(s[:, 0])[:, :, 0]

    def align(s, t):
        nonlocal stopped
        e = energy(s)
        stop = sigmoid(e if noise is None else e + noise[:, t])
        walk, stops = None, []
        for j in range(memory.shape[1]):
            here = stop[:, j : j + 1] * allowed[:, j : j + 1].astype(stop.value.dtype)
            reach = stopped[:, j : j + 1] if walk is None else walk + stopped[:, j : j + 1]
            stops.append(here * reach)
            walk = (1 - here) * reach
        w = stopped = joined(stops)
        if alignment == "chunkwise":
            u, w = chunk_score(s), None
            for k in range(memory.shape[1]):
                keys = np.arange(memory.shape[1])
                chunk = softmax(u, allowed & (keys <= k) & (keys > k - chunk_width))
                part = stopped[:, k : k + 1] * chunk
                w = part if w is None else w + part
        return w, (w[:, None] @ memory)[:, 0]

    def attend(s, t):
        nonlocal covered
        if aligned:
            return align(s, t)
        scores = score(s)[:, :, 0]
        if coverage and not inside:
            scores = scores + p.coverage_weight * covered
        w = softmax(scores, allowed)
        if coverage:
            covered = covered + (w if fertility is None else over(w, fertility))
        return w, (w[:, None] @ memory)[:, 0]

    outputs, weights = [], []
    for t in range(T):
        x = inputs[:, t]
        if order == "bahdanau":
            w, context = attend(states[-1][0], t)
            x = joined([x, context])
        elif input_feeding:
            x = joined([x, feed])
        for k in range(len(states)):
            states[k] = step(cell, x, states[k], cells[4 * k : 4 * k + 4])
            x = states[k][0]
        if order == "luong":
            w, context = attend(x, t)
            x = feed = anchored(tanh(joined([context, x]) @ p.readout_weight))
        outputs.append(x)
        weights.append(w)
    final = [stacked(arrays, 0) for arrays in zip(*states, strict=True)]
    final += [feed] * input_feeding + [covered] * coverage + [stopped] * aligned
    final = tuple(final) if len(final) > 1 else final[0]
    return stacked(outputs, 1), stacked(weights, 1), final


# ---- calls ---------------------------------------------------------------------------------------


def evaluate(function, arrays, d, dtype):
    """`function` of Nodes in place of the arrays in `arrays` (nested tuples and dicts of them).

    Returns its outputs, nested as they are, the gradients and the size of their terms, nested as
    `arrays`, and the largest score.
    """
    nodes = each(arrays, lambda x: Node(np.asarray(x, dtype)))
    output = function(*nodes)
    ends = arrays_of(output), arrays_of(d)
    exact, scores = backward(*ends)
    terms, _ = backward(*ends, np.abs, exact)

    def of(found):
        return each(nodes, lambda x: found.get(x.number, np.zeros_like(x.value)))

    return each(output, lambda x: x.value), of(exact), of(terms), scores


def each(value, f):
    """f of every leaf of nested tuples, lists and dicts."""
    if isinstance(value, dict):
        return {name: each(item, f) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(each(item, f) for item in value)
    return f(value)


def leaves(value, name=""):
    """Pairs of a name and an array."""
    if isinstance(value, dict | tuple | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [pair for key, item in items for pair in leaves(item, f"{name} {key}")]
    return [(name, value)]


def assert_close(got, function, arrays, d, dtype):
    """Outputs and gradients `got` of C, by the rule of tolerance (`assert_close_like_naive`)."""
    naive = evaluate(function, arrays, d, dtype)[:2]
    *exact, terms, scores = evaluate(function, arrays, d, wider(dtype))
    terms = exact[0], terms
    for what, *results in zip(("output", "gradient"), got, naive, exact, terms, strict=True):
        for (name, x), (_, y), (_, z), (_, w) in zip(*map(leaves, results), strict=True):
            assert x.dtype == dtype, f"{what}{name}"
            floor = FLOOR + scores if np.size(x) >= FEW else FLOOR_OF_FEW
            size = np.abs(w).max(initial=0)
            assert_close_like_naive(x, z, y, size, floor, f"{what}{name}")

"""The recurrent cases with JAX: loops by `lax.scan`, everything compiled by XLA."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.inputs import VOCABULARY, sentences


def gru_step(h, x, product):
    """x: the input's product with its bias; product: the state's."""
    xr, xz, xn = jnp.split(x, 3, -1)
    hr, hz, hn = jnp.split(product, 3, -1)
    r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
    return (1 - z) * jnp.tanh(xn + r * hn) + z * h


def direction(x, W, U, b, c, valid=None, reverse=False):
    """Outputs (B, T, D) and the last state; with `valid` (B, T) padding does not move the state."""
    valid = jnp.ones(x.shape[:2], bool) if valid is None else valid

    def step(h, inputs):
        gates, here = inputs
        h = jnp.where(here[:, None], gru_step(h, gates, h @ U + c), h)
        return h, h

    first = jnp.zeros((x.shape[0], U.shape[0]), x.dtype)
    xs = jnp.swapaxes(x @ W + b, 0, 1), valid.T
    last, outputs = jax.lax.scan(step, first, xs, reverse=reverse)
    return jnp.swapaxes(outputs, 0, 1), last


def encoder(x, *arrays):
    forwards, _ = direction(x, *arrays[:4])
    backwards, _ = direction(x, *arrays[4:], reverse=True)
    return jnp.concatenate([forwards, backwards], -1)


def decoder(x, memory, W, U, b, c, query_weight, key_weight, score_vector, state=None, mask=None):
    E = x.shape[2]
    key = memory @ key_weight

    def step(h, gates):
        scores = jnp.tanh((h @ query_weight)[:, None] + key) @ score_vector
        if mask is not None:
            scores = jnp.where(mask, scores, -jnp.inf)
        context = jnp.einsum("bs,bsh->bh", jax.nn.softmax(scores, -1), memory)
        h = gru_step(h, gates + context @ W[E:], h @ U + c)
        return h, h

    first = jnp.zeros((x.shape[0], U.shape[0]), x.dtype) if state is None else state
    _, outputs = jax.lax.scan(step, first, jnp.swapaxes(x @ W[:E] + b, 0, 1))
    return jnp.swapaxes(outputs, 0, 1)


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments, compiled already."""
    if case.mechanism == "training":
        return {"": training_step(case)}
    function = encoder if case.mechanism == "encoder" else decoder
    arrays, doutputs = [jnp.asarray(x) for x in inputs.arguments], jnp.asarray(inputs.dcontext)

    def forward(*arrays):
        return (function(*arrays),)

    def forward_and_backward(*arrays):
        outputs, pullback = jax.vjp(function, *arrays)
        return outputs, *pullback(doutputs)

    compiled = jax.jit(forward_and_backward if case.backward else forward).lower(*arrays).compile()
    return {"": lambda: jax.block_until_ready(compiled(*arrays))}


def results(case, output):
    """What a call returned, as arrays in attnc's order."""
    return [] if case.mechanism == "training" else [np.asarray(x) for x in output]


# ---- a step of training ----


def parameters_of(case):
    """Those of `attnc.Seq2Seq`: two embeddings, two directions, bridge, decoder, output."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape, dtype=case.dtype) * shape[0] ** -0.5)

    def cell(size, units):
        biases = [jnp.zeros(3 * units, case.dtype) for _ in range(2)]
        return [normal(size, 3 * units), normal(units, 3 * units), *biases]

    E, D = case.E, case.D
    return {
        "source": normal(VOCABULARY, E),
        "target": normal(VOCABULARY, E),
        "forwards": cell(E, D // 2),
        "backwards": cell(E, D // 2),
        "bridge": [normal(D, D), jnp.zeros(D, case.dtype)],
        "decoder": [*cell(E + D, D), normal(D, D), normal(D, D), normal(D)],
        "output": [normal(D, VOCABULARY), jnp.zeros(VOCABULARY, case.dtype)],
    }


def loss_of(p, source, lengths, target):
    valid = jnp.arange(source.shape[1]) < lengths[:, None]
    x = p["source"][source]
    forwards, last = direction(x, *p["forwards"], valid)
    backwards, first = direction(x, *p["backwards"], valid, reverse=True)
    memory = jnp.concatenate([forwards, backwards], -1) * valid[..., None]
    weight, bias = p["bridge"]
    state = jnp.tanh(jnp.concatenate([last, first], -1) @ weight + bias)
    outputs = decoder(p["target"][target[:, :-1]], memory, *p["decoder"], state, valid)
    weight, bias = p["output"]
    logs = jax.nn.log_softmax(outputs @ weight + bias)
    wanted = target[:, 1:]
    losses = -jnp.take_along_axis(logs, wanted[..., None], -1)[..., 0]
    counted = wanted != 0
    return jnp.where(counted, losses, 0).sum() / counted.sum()


def training_step(case):
    """One step of training a translator: a call updates the parameters, and returns the loss."""
    source, lengths, target = map(jnp.asarray, sentences(case))
    tree = jax.tree_util

    def update(p, m, v, count):
        loss, g = jax.value_and_grad(loss_of)(p, source, lengths, target)
        norm = jnp.sqrt(sum((x * x).sum() for x in tree.tree_leaves(g)))
        g = tree.tree_map(lambda x: x * jnp.minimum(1.0, 1.0 / norm), g)
        m = tree.tree_map(lambda a, x: 0.9 * a + 0.1 * x, m, g)
        v = tree.tree_map(lambda a, x: 0.999 * a + 0.001 * x * x, v, g)
        rate = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        p = tree.tree_map(lambda x, a, b: x - rate * a / (jnp.sqrt(b) + 1e-8), p, m, v)
        return loss, p, m, v

    p = parameters_of(case)
    state = [p, tree.tree_map(jnp.zeros_like, p), tree.tree_map(jnp.zeros_like, p), 0.0]
    compiled = jax.jit(update, donate_argnums=(0, 1, 2))

    def step():
        state[3] += 1.0
        loss, *state[:3] = jax.block_until_ready(compiled(*state))
        return (loss,)

    return step

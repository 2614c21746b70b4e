"""Multi-head attention and Transformers with JAX, compiled by XLA."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contenders import LeftOut
from benchmarks.inputs import VOCABULARY, sentences


def attention(query, key, value, mask=None, causal=False, weights=False):
    """(B, T, H, D) each; with `weights` they are returned too, (B, H, Tq, Tk)."""
    if not weights:
        return jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=causal), None
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(scores, -1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value), weights


def multihead(x, memory, query, key, value, output, **options):
    """x and memory (B, T, E); query, key, value (E, H, D), output (H, D, E)."""
    E, H, D = query.shape

    def heads(x, weight):
        return (x @ weight.reshape(E, E)).reshape(*x.shape[:2], H, D)

    context, weights = attention(
        heads(x, query), heads(memory, key), heads(memory, value), **options
    )
    return context.reshape(*x.shape[:2], E) @ output.reshape(E, E), weights


def norm(x, scale):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale


def drop(x, rate, key):
    if not rate:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def feed_forward(x, wide, narrow, rate, key):
    return drop(jax.nn.relu(x @ wide), rate, key) @ narrow


def encoder_layer(x, query, key, value, output, wide, narrow, first, second, *, rate, rng, **masks):
    """Norms after the sums, no biases; weights are not dropped, which nothing fused does."""
    keys = jax.random.split(rng, 3) if rate else [None] * 3
    context, _ = multihead(x, x, query, key, value, output, **masks)
    x = norm(x + drop(context, rate, keys[0]), first)
    return norm(x + drop(feed_forward(x, wide, narrow, rate, keys[1]), rate, keys[2]), second)


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments, compiled already."""
    if case.mechanism == "generation":
        raise LeftOut("compiles for one length of the cache, or reads its capacity")
    if case.mechanism == "transformer":
        return {"": training_step(case)}
    arrays, dy = [jnp.asarray(x) for x in inputs.arguments], jnp.asarray(inputs.dcontext)

    def forward(rng, x, *parameters):
        if case.mechanism == "multihead":
            return multihead(x, x, *parameters, weights=case.weights)
        return encoder_layer(x, *parameters, rate=case.dropout, rng=rng), None

    def forward_and_backward(rng, dy, *arrays):
        y, pullback, weights = jax.vjp(lambda *a: forward(rng, *a), *arrays, has_aux=True)
        return (y, *pullback(dy)), weights

    rng = jax.random.key(0)
    compiled = jax.jit(forward_and_backward).lower(rng, dy, *arrays).compile()
    return {"": lambda: jax.block_until_ready(compiled(rng, dy, *arrays))[0]}


def results(case, output):
    """What a call returned, as arrays in attnc's order."""
    return [np.asarray(x) for x in output] if case.compared else []


# ---- a step of training ----


def decoder_layer(x, memory, own, other, wide, narrow, norms, *, rate, rng, mask):
    keys = jax.random.split(rng, 4) if rate else [None] * 4
    context, _ = multihead(x, x, *own, causal=True)
    x = norm(x + drop(context, rate, keys[0]), norms[0])
    context, _ = multihead(x, memory, *other, mask=mask)
    x = norm(x + drop(context, rate, keys[1]), norms[1])
    return norm(x + drop(feed_forward(x, wide, narrow, rate, keys[2]), rate, keys[3]), norms[2])


def parameters_of(case):
    """Those of `attnc.Transformer`: one embedding for both sides and the output."""
    rng = np.random.default_rng(0)
    E, H = case.E, case.H

    def normal(*shape, std=E**-0.5):
        return jnp.asarray(rng.standard_normal(shape, dtype=case.dtype) * std)

    def heads():
        return [normal(E, H, E // H) for _ in range(3)] + [normal(H, E // H, E)]

    def wide():
        return [normal(E, 4 * E), normal(4 * E, E)]

    def ones(count):
        return [jnp.ones(E, case.dtype) for _ in range(count)]

    return {
        "embedding": normal(VOCABULARY, E, std=0.02),
        "encoder": [[*heads(), *wide(), *ones(2)] for _ in range(case.layers)],
        "decoder": [[heads(), heads(), *wide(), ones(3)] for _ in range(case.layers)],
    }


def loss_of(p, case, rng, source, lengths, target):
    E = case.E
    keys = iter(jax.random.split(rng, 2 * case.layers + 2))
    angles = jnp.arange(case.Tk)[:, None] / 10000 ** (jnp.arange(0, E, 2) / E)
    places = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(case.Tk, E)

    def embed(tokens):
        x = p["embedding"][tokens] * E**0.5 + places
        return drop(x.astype(case.dtype), case.dropout, next(keys))

    mask = (jnp.arange(case.Tk) < lengths[:, None])[:, None, None]
    options = {"rate": case.dropout, "mask": mask}
    memory, x = embed(source), embed(target[:, :-1])
    for layer in p["encoder"]:
        memory = encoder_layer(memory, *layer, rng=next(keys), **options)
    for layer in p["decoder"]:
        x = decoder_layer(x, memory, *layer, rng=next(keys), **options)
    logs = jax.nn.log_softmax(x @ p["embedding"].T)
    wanted = target[:, 1:]
    losses = -jnp.take_along_axis(logs, wanted[..., None], -1)[..., 0]
    counted = wanted != 0
    return jnp.where(counted, losses, 0).sum() / counted.sum()


def training_step(case):
    """One step of training a translator: a call updates the parameters, and returns the loss."""
    source, lengths, target = map(jnp.asarray, sentences(case))
    tree = jax.tree_util

    def update(p, m, v, count, rng):
        rng, own = jax.random.split(rng)
        loss, g = jax.value_and_grad(loss_of)(p, case, own, source, lengths, target)
        length = jnp.sqrt(sum((x * x).sum() for x in tree.tree_leaves(g)))
        g = tree.tree_map(lambda x: x * jnp.minimum(1.0, 1.0 / length), g)
        m = tree.tree_map(lambda a, x: 0.9 * a + 0.1 * x, m, g)
        v = tree.tree_map(lambda a, x: 0.999 * a + 0.001 * x * x, v, g)
        rate = 1e-4 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        p = tree.tree_map(lambda x, a, b: x - rate * a / (jnp.sqrt(b) + 1e-8), p, m, v)
        return loss, p, m, v, count + 1, rng

    p = parameters_of(case)
    zeros = [tree.tree_map(jnp.zeros_like, p) for _ in range(2)]
    state = [p, *zeros, jnp.float32(1), jax.random.key(0)]
    compiled = jax.jit(update, donate_argnums=(0, 1, 2))

    def step():
        loss, *state[:] = jax.block_until_ready(compiled(*state))
        return (loss,)

    return step

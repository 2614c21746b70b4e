"""The same translator with JAX: attnc's functions in a compiled step, a dict of parameters."""

import jax
import numpy as np
from jax import numpy as jnp
from reversing import adam, batch, cells, first_parameters, show

from attnc.jax import attention_decoder, gru, linear_cross_entropy


def loss_of(p, source, lengths, target):
    """The mean loss of the words of the targets."""
    memory, final = gru(
        p["source_embedding.weight"][source], cells(p, "encoder", 2), None, lengths,
        bidirectional=True,
    )  # fmt: skip
    final = jnp.concatenate([final[0], final[1]], axis=-1)
    state = jnp.tanh(final @ p["bridge.0.weight"] + p["bridge.0.bias"])[None]
    outputs, weights, state = attention_decoder(
        p["target_embedding.weight"][target[:, :-1]], memory, cells(p, "decoder", 1), state,
        query_weight=p["decoder.score.query_weight"], key_weight=p["decoder.score.key_weight"],
        score_vector=p["decoder.score.score_vector"], key_lengths=lengths,
    )  # fmt: skip
    return linear_cross_entropy(
        outputs, p["output.weight"], target[:, 1:], bias=p["output.bias"], ignore_index=0
    )


@jax.jit
def update(parameters, moments, step, *sentences):
    """A step of training."""
    loss, gradients = jax.value_and_grad(loss_of)(parameters, *sentences)
    return loss, *adam(parameters, gradients, moments, step)


def train(steps):
    """The loss of each step."""
    rng, losses = np.random.default_rng(0), []
    parameters, moments = jax.tree.map(jnp.asarray, first_parameters()), None
    for step in range(1, steps + 1):
        loss, parameters, moments = update(parameters, moments, step, *batch(rng))
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    show(train(500))

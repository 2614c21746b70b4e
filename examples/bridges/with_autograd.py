"""The same translator with autograd: attnc's functions on its boxes, a dict of parameters."""

import numpy
from autograd import numpy as np
from autograd import value_and_grad
from reversing import adam, batch, cells, first_parameters, show

from attnc.autograd import attention_decoder, gru, linear_cross_entropy


def loss_of(p, source, lengths, target):
    """The mean loss of the words of the targets."""
    memory, final = gru(
        p["source_embedding.weight"][source], cells(p, "encoder", 2), None, lengths,
        bidirectional=True,
    )  # fmt: skip
    final = np.concatenate([final[0], final[1]], axis=-1)
    state = np.tanh(final @ p["bridge.0.weight"] + p["bridge.0.bias"])[None]
    outputs, weights, state = attention_decoder(
        p["target_embedding.weight"][target[:, :-1]], memory, cells(p, "decoder", 1), state,
        query_weight=p["decoder.score.query_weight"], key_weight=p["decoder.score.key_weight"],
        score_vector=p["decoder.score.score_vector"], key_lengths=lengths,
    )  # fmt: skip
    return linear_cross_entropy(
        outputs, p["output.weight"], target[:, 1:], bias=p["output.bias"], ignore_index=0
    )


def train(steps):
    """The loss of each step."""
    rng, parameters, moments, losses = numpy.random.default_rng(0), first_parameters(), None, []
    for step in range(1, steps + 1):
        loss, gradients = value_and_grad(loss_of)(parameters, *batch(rng))
        parameters, moments = adam(parameters, gradients, moments, step)
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    show(train(500))

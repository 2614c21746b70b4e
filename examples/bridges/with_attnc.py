"""A small translator trained with attnc's layers: their own gradients and Adam."""

import numpy as np
from reversing import RATE, batch, new_model, show

import attnc


def train(steps):
    """The loss of each step."""
    rng, model = np.random.default_rng(0), new_model()
    optimizer, losses = attnc.optim.Adam(model, RATE), []
    for _ in range(steps):
        source, lengths, target = batch(rng)
        (loss, _), pullback = attnc.vjp(
            model, source, target[:, :-1], lengths, labels=target[:, 1:]
        )
        optimizer.zero_grad()
        pullback()
        optimizer.step()
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    show(train(500))

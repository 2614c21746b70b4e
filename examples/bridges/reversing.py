"""The task that the four loops beside this file learn: sequences of digits, the other way round.

They begin with the same numbers and see the same batches, so that their losses are the same but
for rounding.
"""

import numpy as np

import attnc

VOCABULARY, EMBEDDING, STATE = 12, 16, 32  # 0 is padding, 1 begins and ends a target
RATE = 0.01


def batch(rng, count=32):
    """Sources and their lengths, and targets between start and end; 0 is padding."""
    lengths = rng.integers(2, 8, count)
    source, target = np.zeros((count, 7), int), np.zeros((count, 9), int)
    target[:, 0] = 1
    for row, n in enumerate(lengths):
        source[row, :n] = rng.integers(2, VOCABULARY, n)
        target[row, 1 : n + 2] = [*source[row, :n][::-1], 1]
    return source, lengths, target


def new_model():
    """The model as a layer of attnc."""
    return attnc.Seq2Seq(VOCABULARY, VOCABULARY, EMBEDDING, STATE, padding_index=0, rng=0)


def first_parameters():
    """Its parameters by name, arrays as they are before training."""
    return {name: array.copy() for name, array in new_model().parameters.items()}


CELL = "input_weight", "state_weight", "input_bias", "state_bias"


def cells(parameters, layer, count):
    """The arrays of the cells of a layer in the order of attnc's functions."""
    return [parameters[f"{layer}.cells.{k}.{name}"] for k in range(count) for name in CELL]


def adam(parameters, gradients, moments, step, b1=0.9, b2=0.999):
    """A step of Adam on dicts of arrays, of NumPy or of JAX: new parameters and moments."""
    first, second = moments or ({name: 0 * x for name, x in parameters.items()},) * 2
    first = {name: b1 * m + (1 - b1) * gradients[name] for name, m in first.items()}
    second = {name: b2 * v + (1 - b2) * gradients[name] ** 2 for name, v in second.items()}
    rate = RATE * (1 - b2**step) ** 0.5 / (1 - b1**step)
    tiny = 1e-8 * (1 - b2**step) ** 0.5
    parameters = {
        name: x - rate * first[name] / (second[name] ** 0.5 + tiny)
        for name, x in parameters.items()
    }
    return parameters, (first, second)


def show(losses):
    """What a loop prints."""
    print(f"loss {losses[0]:.2f} at first, {np.mean(losses[-20:]):.2f} at last")

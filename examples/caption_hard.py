"""Hard attention inside a decoder: an LSTM that looks at one region of a picture for each word.

Xu et al. 2015, "Show, attend and tell", section 4.1. Defines: `HardDecoder`.
"""

from typing import Any, NamedTuple

import numpy as np

import attnc
from attnc.functional.hard import HardResult
from attnc.gradients import Gradients


class Looked(NamedTuple):
    """What `HardDecoder` returns, as an `AttentionDecoder` does, and its choices."""

    outputs: np.ndarray  # (B, T, size)
    weights: np.ndarray  # (B, T, N): 1 at the region that was looked at
    state: tuple
    choices: Any  # HardResult of contexts (B, T, C) and, (B, T), the rest


class Regions:
    """The regions of a batch of pictures, as decoding asks for them."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def take(self, rows):
        return Regions(self.values[rows])


class HardDecoder(attnc.Layer):
    """An LSTM that looks at one region for each word.

    One coin a batch, as in the program of the authors, replaces the draws of its training by the
    means of soft attention, whose gradient is an ordinary one; `soft` is how probable they are, in
    theirs 0.5, and may be changed between batches.
    """

    def __init__(self, input_size, size, memory_size, soft=0.5, *, rng=None, dtype="float32"):
        super().__init__(dtype)
        made: dict[str, Any] = {"rng": rng, "dtype": dtype}
        self.input_size, self.soft = input_size, soft
        self.choice = attnc.HardAttention(
            size, memory_size, hidden_size=2 * input_size, soft_probability=0, **made
        )
        self.cell = attnc.LSTM(input_size + memory_size, size, **made)

    def _vjp(self, inputs, memory, state, *, train=False, rng=None, index=None):
        rng = np.random.default_rng(rng)
        soft = train and index is None and rng.random() < self.soft
        steps, outputs, looks = [], [], []
        for t in range(inputs.shape[1]):
            query = state[0][0][:, None]
            if soft:
                context, look_back = attnc.vjp(self.choice.attention, query, memory)
                nothing = np.zeros(query.shape[:2], self.dtype)
                look = context, np.full(query.shape[:2], -1), nothing, nothing
            else:
                one = None if index is None else index[:, t : t + 1]
                look, look_back = attnc.vjp(
                    self.choice, query, memory, train=train, rng=rng, index=one
                )
            x = np.concatenate([inputs[:, t : t + 1], look[0]], axis=-1)
            (output, state), cell_back = attnc.vjp(self.cell, x, state)
            outputs.append(output)
            looks.append(look)
            steps.append((look_back, cell_back))
        choices = HardResult(*(np.concatenate(each, axis=1) for each in zip(*looks, strict=True)))
        weights = (choices.index[..., None] == np.arange(memory.shape[1])).astype(self.dtype)

        def pullback(doutputs, dlog_probability=None, dentropy=None):
            dinputs, dmemory, dstate = np.zeros_like(inputs), np.zeros_like(memory), None
            for t in reversed(range(len(steps))):
                look_back, cell_back = steps[t]
                at = slice(t, t + 1)
                of_cell = cell_back(doutputs[:, at], dstate)
                dinputs[:, at], dcontext = np.split(of_cell.x, [self.input_size], axis=-1)
                chosen = (d[:, at] for d in (dlog_probability, dentropy) if d is not None)
                dquery, dregions = look_back(dcontext, *(() if soft else chosen))
                dmemory += dregions
                dh, dc = of_cell.state
                dstate = dh + dquery[:, 0], dc
            return Gradients({"inputs": dinputs, "memory": dmemory, "state": dstate})

        return Looked(np.concatenate(outputs, axis=1), weights, state, choices), pullback

    # ---- As attnc.greedy_decode drives it --------------------------------------------------------

    def prepare(self, memory, key_mask=None, key_lengths=None):
        return memory if isinstance(memory, Regions) else Regions(memory)

    def step(self, x, memory, state):
        found = self(x[:, None], memory.values, state)
        return found.outputs[:, 0], found.weights[:, 0], found.state

    def reorder(self, state, indices):
        return tuple(array[:, indices] for array in state)

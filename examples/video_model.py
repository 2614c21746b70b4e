"""The models of video.py: from the frames of a clip to vectors of regions, from these to words.

Defines: `Captioner`, `matched`, `write`.
"""

import bisect
from typing import Any

import numpy as np
from clips import END, GRID, LENGTH, MOVES, WORDS
from convolution import Rectify

import attnc
from attnc.gradients import Gradients

SIZE, STATE, EMBEDDED = 64, 96, 32  # of the vectors with attention; of the decoder; of a word
WAYS = ["attention", "last state", "mean"]


class Captioner(attnc.Layer):
    """Scores of words, of clips (B, FRAMES, H, W) and the words before (B, steps).

    A small convolutional network sees each frame and its difference from the frame before, so that
    a region shows what is there and where it goes. It is the same for all pairs of frames. A region
    becomes a vector, and gets one for its place and one for its time:
    ``tanh(features W + b + place + time)``, MOVES * GRID * GRID of them for a clip. With the
    way "attention" every word looks at all of these. The twins read one vector instead: "mean" the
    mean of them all, "last state" what an LSTM ends with that reads the means of all frames.

    Parameters
    ----------
    way : str
        One of `WAYS`.
    size : int
        Of the vectors of regions.
    """

    def __init__(self, way, size=SIZE, rng=None, dtype="float32"):
        super().__init__(dtype)
        made = {"rng": rng, "dtype": dtype}
        self.encoder = attnc.Sequential(
            attnc.Convolution2d(2, 16, 4, stride=2, padding=1, **made),  # 24 x 24 to 12 x 12
            Rectify(dtype),
            attnc.Convolution2d(16, 32, 3, padding=1, **made),
            attnc.MaxPool2d(2, dtype=dtype),  # to 6 x 6
            Rectify(dtype),
            attnc.Convolution2d(32, 64, 3, padding=1, **made),
            Rectify(dtype),
            attnc.ImageRegions(dtype=dtype),
            attnc.Linear(64, size, **made),
            attnc.LearnedPositions(GRID * GRID, size, **made),
        )
        self.times = attnc.LearnedPositions(MOVES, size, **made)
        self.reader: Any = attnc.LSTM(size, size, **made) if way == "last state" else None
        self.words = attnc.Embedding(len(WORDS), EMBEDDED, **made)
        self.decoder = attnc.AttentionDecoder(
            EMBEDDED, STATE, size, cell="lstm", order="luong",
            attention="additive" if way == "attention" else "none", **made,
        )  # fmt: skip
        self.output = attnc.Linear(STATE, len(WORDS), **made)
        self.way = way

    def memory(self, frames):
        """What the decoder reads (B, keys, size), and the way back; keys go from frame to frame."""
        now, before = frames[:, 1:], frames[:, :-1]
        x, back_to_pairs = attnc.vjp(self.encoder, np.stack([now, now - before], axis=2))
        x, back_to_places = attnc.vjp(self.times, x.swapaxes(1, 2))  # (B, places, times, size)
        x = vectors = np.tanh(x).swapaxes(1, 2)
        back_to_x: Any = None
        if self.way == "last state":
            (x, _), back_to_x = attnc.vjp(self.reader, vectors.mean(axis=2))
        elif self.way == "mean":
            x = vectors.mean(axis=(1, 2))

        def back(dmemory):
            d, count = dmemory, vectors[0, ..., 0].size
            if self.way == "last state":
                d = back_to_x(d).x[:, :, None] / GRID**2
            elif self.way == "mean":
                d = d[:, :, None] / count
            else:
                d = d.reshape(vectors.shape)
            d = (d * (1 - vectors**2)).swapaxes(1, 2)
            back_to_pairs(back_to_places(d).x.swapaxes(1, 2))

        return x.reshape(len(x), -1, x.shape[-1]), back

    def _vjp(self, frames, words):
        memory, back_to_frames = self.memory(frames)
        x, back_to_words = attnc.vjp(self.words, words)
        found, back_to_x = attnc.vjp(self.decoder, x, memory)
        logits, back_to_found = attnc.vjp(self.output, found.outputs)

        def pullback(dlogits):
            dx, dmemory = back_to_x(back_to_found(dlogits).x)
            back_to_words(dx)
            back_to_frames(dmemory)
            return Gradients({})

        return logits, pullback


def matched(way, rng=None):
    """A captioner with about as many parameters as that with attention: its vectors are wider."""
    if way == "attention":
        return Captioner(way, SIZE, rng)
    budget, sizes = Captioner("attention").parameter_count, range(8, 4 * SIZE)
    found = bisect.bisect(sizes, budget, key=lambda size: Captioner(way, size).parameter_count)
    return Captioner(way, sizes[found - 1], rng)


def write(model, frames, batch=100):
    """Captions by the likeliest word at every step, (B, LENGTH + 1), and the weights of each word.

    Weights are (B, LENGTH + 1, MOVES, GRID * GRID); None of a model that does not attend.
    """
    words = np.full((len(frames), LENGTH + 1), END)
    weights = np.zeros((len(frames), LENGTH + 1, MOVES, GRID * GRID), np.float32)
    for n in range(0, len(frames), batch):
        memory, _ = model.memory(frames[n : n + batch])
        found = attnc.greedy_decode(
            model.decoder, model.words, model.output, memory,
            start=END, end=END, max_length=LENGTH + 1,
        )  # fmt: skip
        steps = found.tokens.shape[1]
        words[n : n + batch, :steps] = found.tokens
        if model.way == "attention":
            shape = len(memory), steps, MOVES, GRID * GRID
            weights[n : n + batch, :steps] = found.weights.reshape(shape)
    return words, weights if model.way == "attention" else None

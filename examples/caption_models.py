"""The models of caption.py: a convolutional encoder, and three ways to write words from it.

- "soft": at each word the mean of all regions of the picture, by weights (Xu et al. 2015, "Show,
  attend and tell: neural image caption generation with visual attention", section 4.2).
- "hard": one region at each word, drawn in training, the likeliest at evaluation (section 4.1).
- "none": one vector of the whole picture, the same at each word (Vinyals et al. 2015, "Show and
  tell: a neural image caption generator"; there the LSTM gets it once, before the first word).

With E the vectors of words, a_i those of regions, and y_t the word at step t::

    h_0, c_0 = tanh(mean(a) W)                            z_t from the regions a, by h_(t-1)
    h_t, c_t = LSTM([E y_(t-1); z_t], h_(t-1), c_(t-1))   words by a linear map of h_t

For "none" z is the vector, and the first state is learned.
"""

from typing import Any, NamedTuple

import numpy as np
from caption_hard import HardDecoder
from convolution import Rectify

import attnc
from attnc.gradients import Gradients

GRID = 8  # x 8 regions
FILTERS = 16, 32, 64, 64  # of the convolutions, as many as halve a side to GRID, and one more
EMBEDDING = 32
SIZES = {"soft": 128, "hard": 128, "none": 66}  # of states: about as many parameters for all
VECTOR = 96  # numbers for a whole picture
GAIN = 3  # of the first weights: most of what they see is 0


class Whole(attnc.Layer):
    """All regions of a picture (B, N, C) as one of (B, 1, N C)."""

    def _vjp(self, x):
        return x.reshape(len(x), 1, -1), lambda dy: Gradients({"x": dy.reshape(x.shape)})


def encoder(kind, channels, side, rng, dtype):
    """From pictures (B, channels, side, side) to regions (B, GRID^2, C); one, of all, for "none".

    Every region knows its place by a learned vector, which is added.
    """
    made: dict[str, Any] = {"rng": rng, "dtype": dtype}
    layers: list[attnc.Layer] = []
    while side >= GRID:
        filters = FILTERS[len(layers) // 3]
        layers += [attnc.Convolution2d(channels, filters, 3, padding=1, **made)]
        layers += [attnc.MaxPool2d(2, dtype=dtype)] if side > GRID else []
        layers += [Rectify(dtype)]
        channels, side = filters, side // 2
    layers[0].parameters["weight"] *= GAIN
    layers += [attnc.ImageRegions(dtype=dtype)]
    if kind == "none":
        whole = attnc.Linear((GRID // 2) ** 2 * channels, VECTOR, **made)
        layers = [*layers[:-1], attnc.MaxPool2d(2, dtype=dtype), layers[-1]]
        layers += [Whole(dtype), whole, Rectify(dtype)]
        channels = VECTOR
    else:
        layers += [attnc.LearnedPositions(GRID**2, channels, **made)]
        layers[-1].parameters["weight"] *= 10  # to begin with no smaller than what is seen
    return attnc.Sequential(*layers), channels


class Written(NamedTuple):
    """What comes of some words, B captions of T."""

    logits: np.ndarray  # (B, T, words) of the next word
    weights: np.ndarray  # (B, T, N) of regions
    choices: Any = None  # (B, T) each: an `attnc` HardResult, of "hard" alone


class Captioner(attnc.Layer):
    """Writes captions for pictures.

    Parameters
    ----------
    kind : {"soft", "hard", "none"}
    words : int
        Size of the vocabulary.
    channels, side : int
        Of pictures (B, channels, side, side); side is GRID times a power of 2.
    size : int, optional
        Of the state.
    """

    def __init__(self, kind, words, channels=1, side=32, size=None, *, rng=None, dtype="float32"):
        super().__init__(dtype)
        rng = np.random.default_rng(rng)
        made: dict[str, Any] = {"rng": rng, "dtype": dtype}
        self.kind, size = kind, size or SIZES[kind]
        self.encoder, seen = encoder(kind, channels, side, rng, dtype)
        self.embedding = attnc.Embedding(words, EMBEDDING, **made)
        self.decoder: Any
        if kind == "hard":
            self.decoder = HardDecoder(EMBEDDING, size, seen, **made)
        else:
            how: dict[str, Any] = {"attention": "additive", "attention_size": EMBEDDING * 2}
            if kind == "none":
                how = {"attention": "none"}
            self.decoder = attnc.AttentionDecoder(EMBEDDING, size, seen, cell="lstm", **how, **made)
        self.first = None if kind == "none" else attnc.Linear(seen, 2 * size, **made)
        self.output = attnc.Linear(size, words, **made)

    def _begin(self, memory):
        """The first state, and the way back from its gradient."""
        if self.first is None:  # the decoder makes it
            return None, None
        both, first_back = attnc.vjp(self.first, memory.mean(axis=1))
        both = np.tanh(both)

        def back(dstate):
            dboth = np.concatenate([d[0] for d in dstate], axis=-1) * (1 - both**2)
            return first_back(dboth).x[:, None] / memory.shape[1]

        return tuple(half[None] for half in np.split(both, 2, axis=-1)), back

    def _vjp(self, images, tokens, *, train=False, rng=None, **options):
        """Score the word after each of these; the pullback takes gradients of what it found.

        Those of "hard" are of logits, log-probabilities and entropies; else of logits and weights.
        """
        memory, memory_back = attnc.vjp(self.encoder, images, train=train)
        state, state_back = self._begin(memory)
        x, x_back = attnc.vjp(self.embedding, tokens)
        found, found_back = attnc.vjp(
            self.decoder, x, memory, state, train=train, rng=rng, **options
        )
        logits, logits_back = attnc.vjp(self.output, found.outputs)

        def pullback(dlogits, *gradients):
            back = found_back(logits_back(dlogits).x, *gradients)
            x_back(back.inputs)
            dmemory = back.memory
            if state_back is not None:
                dmemory = dmemory + state_back(back.state)
            memory_back(dmemory)
            return Gradients({})

        return Written(logits, found.weights, getattr(found, "choices", None)), pullback

    def write(self, images, vocabulary, longest, forced=None):
        """Write captions greedily; return tokens (B, T) and weights (B, T, N).

        forced : list of arrays of tokens, optional
            What each caption has to begin with.
        """
        memory = self.encoder(images)

        def hook(scores, so_far):
            step = so_far.shape[1]
            for row, tokens in zip(scores, forced, strict=True):
                if step < len(tokens):
                    row[np.arange(len(row)) != tokens[step]] = -np.inf
            return scores

        return attnc.greedy_decode(
            self.decoder, self.embedding, self.output, memory, self._begin(memory)[0],
            start=vocabulary.start, end=vocabulary.end, max_length=longest,
            logits_hook=None if forced is None else hook,
        )  # fmt: skip

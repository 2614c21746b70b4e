"""How well listen.py spells: words that are right, and weight that is where it should be.

Defines: `Look`, `look`, `transcripts`, `word_accuracy`, `on_word`, `by_chance`.
"""

from typing import NamedTuple

import numpy as np
from listen_model import shortened
from results import edits
from speech import RATE, STEP
from spoken import CHARACTERS, batch

FRAME = STEP / RATE  # seconds
SLACK = 0.08  # seconds around a word that count as its own: what listens is late or early


class Look(NamedTuple):
    """What a check finds: words that are right, weight on the word, and weights of the first."""

    right: float
    on_word: float  # NaN without attention
    weights: np.ndarray


def look(model, utterances):
    """Check a model; its weights are those after the right characters so far."""
    _, weights = model(*batch(utterances))
    shown = []
    for each, w in zip(utterances, weights, strict=True):
        shown.append(w[: len(each.text), : shortened(len(each.features), model.layers)])
    right = word_accuracy([each.text for each in utterances], transcripts(model, utterances))
    if model.kind == "none":
        return Look(right, np.nan, shown[0])
    shares = [on_word(w, each, model.layers) for w, each in zip(shown, utterances, strict=True)]
    return Look(right, float(np.mean(shares)), shown[0])


def transcripts(model, utterances, size=100):
    """Return the text that a model hears in each utterance, so many at once."""
    found = []
    for start in range(0, len(utterances), size):
        sounds, lengths, *_ = batch(utterances[start : start + size])
        tokens, _ = model.transcribe(sounds, lengths)
        found += ["".join(CHARACTERS.decode(row)) for row in tokens]
    return found


# ---- Words ---------------------------------------------------------------------------------------


def word_accuracy(said, got):
    """1 - WER of texts: below 0 where more has to be changed than was said."""
    pairs = [(a.split(), b.split()) for a, b in zip(said, got, strict=True)]
    return 1 - sum(edits(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs)


# ---- Weights -------------------------------------------------------------------------------------


def on_word(weights, utterance, layers):
    """Return the share of the weights (T, steps) of letters that is on the word that they spell.

    It is known when each word is said. Spaces belong to no word, and are left out. A step is of
    2^layers frames.
    """
    owners = [k for k, word in enumerate(utterance.words) for _ in [*word, " "]]
    letters = np.flatnonzero([character != " " for character in utterance.text])
    middle = (np.arange(weights.shape[1]) + 0.5) * FRAME * 2**layers
    start, end = utterance.spans[np.array(owners)[letters]].T[..., None]
    inside = (start - SLACK <= middle) & (middle <= end + SLACK)
    return float((weights[letters] * inside).sum(axis=1).mean())


def by_chance(utterance, layers):
    """Return what that share is where all weights are equal."""
    shape = len(utterance.text), int(shortened(len(utterance.features), layers))
    return on_word(np.full(shape, 1 / shape[1]), utterance, layers)

"""Sequences of spoken words: single recordings one after the other, each time said differently.

Defines: `Utterance`, `Speakers`, `say`, `batch`, `CHARACTERS`, `LEAST`, `MOST`.
"""

from typing import NamedTuple

import numpy as np
from speech import RATE, features
from voices import DIGITS, LETTERS

from attnc.data import Vocabulary, pad

CHARACTERS = Vocabulary([*LETTERS, " "])
LEAST, MOST = 3, 6  # words of a sequence that is to be spelt


class Utterance(NamedTuple):
    """Words, their features (frames, bands), and where each is, from and to, in seconds."""

    words: tuple[str, ...]
    features: np.ndarray
    spans: np.ndarray

    @property
    def text(self):
        return " ".join(self.words)


def say(recordings, rng):
    """Return samples of recordings in a row, and the seconds (words, 2) from and to of each.

    All are a little faster or slower, each is louder or softer, gaps are of any length, and there
    is noise, from 15 to 35 dB softer.
    """
    faster = rng.uniform(0.9, 1.1)
    parts: list[np.ndarray] = [np.zeros(int(RATE * rng.uniform(0.05, 0.2)))]
    spans = []
    for samples in recordings:
        places = np.arange(0, len(samples) - 1, faster)
        sound = np.interp(places, np.arange(len(samples)), samples)
        start = sum(map(len, parts))
        spans.append((start, start + len(sound)))
        gap = np.zeros(int(RATE * rng.uniform(0.02, 0.2)))
        parts += [sound * 10 ** rng.uniform(-0.2, 0.2), gap]
    samples = np.concatenate(parts).astype(np.float32)
    noise = rng.standard_normal(len(samples), np.float32)
    return samples + noise * np.float32(10 ** -rng.uniform(0.75, 1.75)), np.array(spans) / RATE


class Speakers:
    """Voices, {word: samples} each, and the sequences that they have said, or are never to say."""

    def __init__(self, voices, avoided=()):
        self.voices, self.avoided, self.said = list(voices), set(avoided), set()

    def sequence(self, rng, least=LEAST, most=MOST):
        """Draw so many words, as many digits as letters, in an order that is not avoided."""
        while True:
            digits = rng.random(rng.integers(least, most + 1)) < 0.5
            words = tuple(str(rng.choice(DIGITS if digit else LETTERS)) for digit in digits)
            if words not in self.avoided:
                self.said.add(words)
                return words

    def utterances(self, rng, count, least=LEAST, most=MOST):
        """Draw utterances, each of one voice."""
        found = []
        for _ in range(count):
            words, voice = (
                self.sequence(rng, least, most),
                self.voices[rng.integers(len(self.voices))],
            )
            samples, spans = say([voice[word] for word in words], rng)
            found.append(Utterance(words, features(samples), spans))
        return found


def batch(utterances):
    """Return what a model takes: sounds and lengths, characters before each, and characters."""
    sounds, lengths = pad([each.features for each in utterances])
    texts = [CHARACTERS.encode(list(each.text), start=True, end=True) for each in utterances]
    text, _ = pad(texts, padding=CHARACTERS.padding)
    return sounds, lengths, text[:, :-1], text[:, 1:]

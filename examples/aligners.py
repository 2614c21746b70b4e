"""Alignments of sentence pairs, by a translator with attention and by counting."""

import itertools
from typing import NamedTuple

import numpy as np
from alignments import HOW, links, symmetrise
from lexicon import Model1
from training import Course, learn
from translation import Translator

import attnc
from attnc.data import Vocabulary, batches, pad

BEST = "intersection"  # the alignment that a dictionary is made of: few links, mostly right


class Settings(NamedTuple):
    """What a translator is like, and how it is trained."""

    course: Course
    embedding: int = 64
    state: int = 128
    dropout: float = 0.0
    order: str = "bahdanau"  # of attention and state: see `attnc.AttentionDecoder`
    lower: bool = False  # small letters only
    least: int = 1  # rarer words are unknown


def translator(texts, settings, seed, name=""):
    """Train a translator on pairs of texts, whole words; return it."""
    made = Translator(None, None, None, {"lower": settings.lower})
    words = [[made.words(text) for text in side] for side in zip(*texts, strict=True)]
    made.source, made.target = (Vocabulary.build(side, min_count=settings.least) for side in words)
    made.model = attnc.Seq2Seq(
        len(made.source),
        len(made.target),
        settings.embedding,
        settings.state,
        order=settings.order,
        dropout=settings.dropout,
        padding_index=Vocabulary.padding,
        rng=seed,
    )
    pairs, rng = made.numbers(texts), np.random.default_rng([seed, 1])
    lengths = [len(source) for source, _ in pairs]
    stream = itertools.chain.from_iterable(
        batches(lengths, settings.course.batch, rng=rng) for _ in itertools.count()
    )

    def loss(step):
        value, back = made.loss([pairs[row] for row in next(stream)], train=True, rng=rng)
        back()
        return value

    learn(made.model, loss, settings.course, checks=1, name=name)
    return made


def looked_at(translator, texts):
    """The weights of a translator that is told the right words, for pairs of texts.

    Each has a row for each word of the target, with the weights by which this word is chosen, and a
    column for each of the source and its end, which stands for no word. The decoder's step t reads
    the word before, of number t - 1, and writes that of number t; so this holds in both orders.
    """
    numbers, found = translator.numbers(texts), [np.zeros((0, 1))] * len(texts)
    for rows in batches([len(source) for source, _ in numbers], 128, shuffle=False):
        source, lengths = pad([numbers[row][0] for row in rows])
        target, _ = pad([numbers[row][1] for row in rows])
        # With labels the scores of all words are not kept.
        got = translator.model(source, target[:, :-1], lengths, labels=target[:, 1:])
        for row, weights in zip(rows, got.weights, strict=True):
            here, there = (len(side) for side in numbers[row])
            found[row] = weights[: there - 2, :here]  # of the target, start and end are no words
    return found


def counted(training, pairs):
    """The weights of IBM model 1, in both directions, for pairs of words."""
    swapped = [[pair[::-1] for pair in some] for some in (training, pairs)]
    return [
        [model.weights(*pair) for pair in some]
        for known, some in ((training, pairs), swapped)
        for model in [Model1(known)]
    ]


def both_ways(weights, names, threshold=None):
    """Alignments by name, (words of the target, words of the source), of the weights both ways."""
    there, back = weights
    found = {
        f"{names[0]} → {names[1]}": [links(each, threshold) for each in there],
        f"{names[1]} → {names[0]}": [links(each, threshold).T for each in back],
    }
    one, other = found.values()
    for how in HOW:
        found[how] = [symmetrise(*each, how) for each in zip(one, other, strict=True)]
    return found

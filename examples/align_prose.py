"""Word alignments of real sentences, whose right ones nobody knows: for align.py."""

from typing import NamedTuple

import corpus
import numpy as np
from aligners import BEST, both_ways, counted, looked_at, translator
from alignments import Pair, crosses, rates
from lexicon import dictionary
from training import with_seeds
from translation import Translator


class Prose(NamedTuple):
    """What was found on real sentences."""

    training: int  # pairs
    held_out: int
    perplexities: list  # of a held-out word, in both directions
    alike: dict  # of each aligner, of each alignment: shares of the alike words that are linked
    agree: list  # how much of their links both aligners share, in training and held out
    dictionaries: list  # entries of both
    shown: tuple  # a pair, and {title: map} to draw for it


def learn_prose(path, longest, settings, seed, threshold=None):
    """Align the pairs of a file by translators of both directions; return `Prose`."""
    parts = corpus.parts({"pairs": path, "longest": longest, "seed": seed})
    training, held_out = parts.training, parts.validation + parts.test
    cut = Translator(None, None, None, {"lower": settings.lower}).words
    words = [(cut(source), cut(target)) for source, target in training + held_out]
    # Each direction has a process of its own.
    ways = with_seeds(one_way, [0, 1], training, held_out, settings, seed)
    found = {
        name: both_ways(weights, ("source", "target"), threshold)
        for name, weights in {
            "attention": [weights for weights, _ in ways],
            "IBM model 1": counted(words[: len(training)], words),
        }.items()
    }
    n = len(training)
    alike = [alike_words(*pair) for pair in words]
    rows = {
        name: {
            way: [rates(some[:n], alike[:n]).recall, rates(some[n:], alike[n:]).recall]
            for way, some in ways.items()
        }
        for name, ways in found.items()
    }
    best = [ways[BEST] for ways in found.values()]
    agree = [
        1 - rates(a, [Pair("", "", x, x) for x in b]).error
        for a, b in ([each[:n] for each in best], [each[n:] for each in best])
    ]
    dictionaries = [dictionary(words[:n], some[:n]) for some in best]
    at = max(range(n, len(words)), key=lambda row: drawable(words[row], best[0][row]))
    links = best[0][at]
    shown = {
        "source → target": ways[0][0][at][:, :-1],
        "target → source": ways[1][0][at][:, :-1].T,
    }
    perplexities = [perplexity for _, perplexity in ways]
    return Prose(
        n, len(held_out), perplexities, rows, agree, dictionaries,
        (Pair(*words[at], links, links), shown),
    )  # fmt: skip


def one_way(way, training, held_out, settings, seed):
    """Train in one direction; return the weights for all pairs, and the perplexity of held-out."""
    training, held_out = (
        [pair[::-1] if way else pair for pair in some] for some in (training, held_out)
    )
    model = translator(training, settings, seed, "target to source" if way else "source to target")
    perplexity = np.exp(model.mean_loss(model.numbers(held_out)))
    return looked_at(model, training + held_out), perplexity


def alike_words(source, target):
    """The links of words that are the same on both sides, once on each, of four letters or more."""
    sure = np.zeros((len(target), len(source)), bool)
    for s, word in enumerate(source):
        if len(word.strip()) > 3 and source.count(word) == target.count(word) == 1:
            sure[target.index(word), s] = True
    return Pair(source, target, sure, sure)


def drawable(words, links):
    """What makes a real pair the one to draw: between 6 and 14 words, and links that cross."""
    return all(6 <= len(side) <= 14 for side in words), crosses(links).sum() / links.size

"""A dictionary out of alignments, and the alignments of IBM model 1, which needs no network."""

import math
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np


class Model1:
    """IBM model 1: the probability of a word of the target beside a word of the source.

    Brown et al. 1993, "The mathematics of statistical machine translation: parameter estimation":
    each word of the target comes from one of the source, or from none, whichever place they are in.
    In turn each word of the target is shared among those of its source by the probabilities so far,
    and the probabilities are made of the shares (expectation maximisation).

    Parameters
    ----------
    pairs : list of (list of str, list of str)
    rounds : int
    """

    def __init__(self, pairs, rounds=10):
        numbers: dict = {}  # of each pair of words
        pair, word, words = [], [], 0
        for source, target in pairs:
            for t in target:
                beside = [numbers.setdefault((s, t), len(numbers)) for s in (*source, None)]
                pair += beside
                word += [words] * len(beside)
                words += 1
        sources: dict = {}
        of = np.array([sources.setdefault(s, len(sources)) for s, _ in numbers])
        p = np.ones(len(numbers))
        for _ in range(rounds):
            share = p[pair]
            share /= np.bincount(word, share)[word]
            count = np.bincount(pair, share)
            p = count / np.bincount(of, count)[of]
        self.p = dict(zip(numbers, p.tolist(), strict=True))

    def weights(self, source, target):
        """From where each word of the target comes; the last column is that of no word.

        Of two words that were never in one pair it knows nothing.
        """
        p = np.array([[self.p.get((s, t), 0.0) for s in (*source, None)] for t in target])
        p[:, -1] += 1e-12
        return p / p.sum(axis=1, keepdims=True)


# ---- The dictionary ------------------------------------------------------------------------------


class Entry(NamedTuple):
    source: str
    target: str
    links: int
    p: float  # the share of the links of the source word
    score: float  # twice the logarithm of a likelihood ratio: what chance hardly makes large


CHANCE = 10.83  # a score that chance reaches in one case of a thousand


def dictionary(pairs, alignments, least=2):
    """Count the links of words, and keep what is no chance; return entries, the surest first.

    The score is that of Dunning 1993, "Accurate methods for the statistics of surprise and
    coincidence": whether the two words are in the same pairs more often than if they did not know
    of each other. A pair of words has at least so many links.
    """
    linked: Counter = Counter()
    links: Counter = Counter()
    sources: dict = defaultdict(set)  # the pairs that a word is in
    targets: dict = defaultdict(set)
    for n, ((source, target), found) in enumerate(zip(pairs, alignments, strict=True)):
        source, target = ([word.strip() for word in words] for words in (source, target))
        for word in source:
            sources[word].add(n)
        for word in target:
            targets[word].add(n)
        for t, s in np.argwhere(found):
            linked[source[s], target[t]] += 1
            links[source[s]] += 1
    entries = []
    for (s, t), count in linked.items():
        both, one, other = len(sources[s] & targets[t]), len(sources[s]), len(targets[t])
        score = likelihood_ratio(both, one, other, len(pairs))
        more = both * len(pairs) > one * other
        if count >= least and score > CHANCE and more and is_word(s) and is_word(t):
            entries.append(Entry(s, t, count, count / links[s], score))
    return sorted(entries, key=lambda entry: (-entry.score, entry))


def is_word(text):
    return any(character.isalnum() for character in text)


def likelihood_ratio(both, one, other, total):
    """Twice the logarithm of how much likelier counts are if two words depend on each other.

    Of `total` pairs, `one` have the first word, `other` the second, `both` both.
    """
    table = [
        (both, one, other),
        (one - both, one, total - other),
        (other - both, total - one, other),
        (total - one - other + both, total - one, total - other),
    ]
    return 2 * sum(n * math.log(n * total / (row * column)) for n, row, column in table if n)


def right(entries, pairs):
    """How many entries are right, by pairs of known alignment, as shares.

    Returns the share of the entries, and of the words with entries the share of those whose entry
    of largest p is right.
    """
    known = {
        (pair.source[s].strip(), pair.target[t].strip())
        for pair in pairs
        for t, s in np.argwhere(pair.possible)
    }
    best: dict[str, Entry] = {}
    for entry in entries:
        if entry.source not in best or entry.p > best[entry.source].p:
            best[entry.source] = entry
    return [
        sum(entry[:2] in known for entry in some) / max(len(some), 1)
        for some in (entries, best.values())
    ]

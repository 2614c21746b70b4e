"""Pairs of sentences, of which the first entails the second, contradicts it, or leaves it open.

    premise:    in a quiet cottage a brown poodle sleeps beside a jeep .
    hypothesis: a dog sleeps beside a red car .                     -> neutral

A sentence says facts: who, what it does, beside what, where, and how each looks; a hypothesis says
fewer than a premise. A label follows from the facts by a rule (`Pairs.label`): each word of the
hypothesis is held against the word of the premise that has its part, and the taxonomy says what
follows for the two. One word, at any place, decides the label; all others are entailed.

Some pairs of nouns never meet in training: of three in ten unordered pairs one order is held out,
(premise's poodle, hypothesis's dog) or (dog, poodle). In a test of unseen pairs each two sentences
have one such pair. It decides; where the label is "entailment", it is one of those that entail.
"""

import itertools

import numpy as np
from taxonomy import relation

from attnc.data import pad

LABELS = ["entailment", "contradiction", "neutral"]
VERBS = "sleeps eats runs waits sings".split()
PREPOSITIONS = "", "beside", "in"
# Each set is of one part, so that a sentence can be understood as a bag of words.
ADJECTIVES = (
    "brown white black grey".split(),
    "red blue green yellow".split(),
    "quiet noisy".split(),
)
# The order of the parts, where 3 is the verb; those that are missing are left out.
ORDERS = ((0, 3, 1, 2), (0, 3, 2, 1), (1, 0, 3, 2), (2, 0, 3, 1))
HELD_OUT = 0.3  # of the unordered pairs of nouns: one order of each


class Pairs:
    """Draws pairs of sentences.

    Facts are a dict {part: word}, where a part is ("noun", k), ("adjective", k) or ("verb", 0).

    Parameters
    ----------
    nouns : list of dict
        {noun: extension} for each part of a sentence, of taxonomy.py.
    seed : int
        Says which pairs of nouns are held out.
    """

    def __init__(self, nouns, seed=0):
        self.nouns, rng = nouns, np.random.default_rng([seed, 0])
        self.held_out = set()  # (premise's noun, hypothesis's noun)
        for some in nouns:
            for pair in itertools.combinations(some, 2):
                if rng.random() < HELD_OUT:
                    self.held_out.add(pair if rng.random() < 0.5 else pair[::-1])
        self.sorts = [  # of each part: nouns without others below them, nouns with
            [[n for n in some if (len(some[n]) > 1) == wide] for wide in (False, True)]
            for some in nouns
        ]
        self.found = {}  # by `premises`: what it returned

    # ---- The rule --------------------------------------------------------------------------------

    def follows(self, part, premise, hypothesis):
        """What a word of the premise, or None, says of the hypothesis's word of the same part."""
        if premise is None:
            return "neutral"
        kind, k = part
        if kind == "noun":
            return relation(self.nouns[k][premise], self.nouns[k][hypothesis])
        return "entailment" if premise == hypothesis else "contradiction"

    def label(self, premise, hypothesis):
        """What facts say of others; None where nothing follows."""
        found = {self.follows(part, premise.get(part), word) for part, word in hypothesis.items()}
        worst = ("contradiction", None, "neutral", "entailment")
        return next(label for label in worst if label in found)

    # ---- Drawing ---------------------------------------------------------------------------------

    def premises(self, part, word, label, unseen=False):
        """What a premise may have for a part, so that this label follows, but for the word itself.

        A list of lists: words without others below them, words with, and None, which is to lack it.
        None of them is empty.
        """
        key = part, word, label, unseen
        if key not in self.found:
            kind, k = part
            sorts = {"noun": self.sorts[k], "adjective": [ADJECTIVES[k]], "verb": [VERBS]}[kind]
            some = [
                [
                    other
                    for other in words
                    if other != word
                    and self.follows(part, other, word) == label
                    and (kind != "noun" or ((other, word) in self.held_out) == unseen)
                ]
                for words in sorts
            ]
            if label == "neutral" and not unseen and part not in (("noun", 0), ("verb", 0)):
                some.append([None])
            self.found[key] = [words for words in some if words]
        return self.found[key]

    def deciding(self, hypothesis, label, unseen):
        """The parts that may decide for a label, with what `premises` has for them."""
        return {
            part: some
            for part, word in hypothesis.items()
            if (not unseen or part[0] == "noun")
            and (some := self.premises(part, word, label, unseen))
        }

    def hypothesis(self, rng):
        """Facts at random; nouns with others below them as often as those without."""
        facts = {("verb", 0): one_of(rng, VERBS)}
        for k in (0,) if rng.random() < 0.4 else (0, one_of(rng, (1, 2))):
            facts["noun", k] = one_of(rng, one_of(rng, self.sorts[k]))
            if rng.random() < 0.3:
                facts["adjective", k] = one_of(rng, ADJECTIVES[k])
        return facts

    def facts(self, rng, unseen=False):
        """Draw (facts of the premise, facts of the hypothesis, label).

        A hypothesis is taken if all three labels are possible for it, and the label is drawn after
        it: so it says nothing of the label.
        """
        while True:
            hypothesis = self.hypothesis(rng)
            ways = [self.deciding(hypothesis, label, unseen) for label in LABELS]
            if all(ways if unseen else ways[1:]):  # equal words are entailment, too
                break
        number = rng.integers(len(LABELS))
        decides = one_of(rng, list(ways[number])) if ways[number] else None
        premise = {}
        for part, word in hypothesis.items():
            below = self.premises(part, word, "entailment")
            if part == decides:
                word = one_of(rng, one_of(rng, ways[number][part]))
            elif below and rng.random() < 0.7:
                word = one_of(rng, one_of(rng, below))
            if word is not None:
                premise[part] = word
        for k, nouns in enumerate(self.nouns):  # what the hypothesis does not speak of
            if ("noun", k) not in hypothesis and rng.random() < 0.8:
                premise["noun", k] = one_of(rng, list(nouns))
            if ("noun", k) not in premise:
                premise.pop(("adjective", k), None)
            elif ("adjective", k) not in hypothesis and rng.random() < 0.5:
                premise["adjective", k] = one_of(rng, ADJECTIVES[k])
        return premise, hypothesis, LABELS.index(self.label(premise, hypothesis))

    def draw(self, rng, count, unseen=False):
        """Draw so many (words of the premise, words of the hypothesis, number of the label)."""
        drawn = (self.facts(rng, unseen) for _ in range(count))
        return [(words(rng, one), words(rng, other), label) for one, other, label in drawn]

    # ---- Words -----------------------------------------------------------------------------------

    def vocabulary(self):
        """Return {word: number}, from 1; 0 is padding."""
        every = ["a", "an", ".", *PREPOSITIONS[1:], *VERBS]
        every += itertools.chain(*ADJECTIVES, *self.nouns)
        return {word: number for number, word in enumerate(every, 1)}

    def links(self, premise, hypothesis):
        """The places (hypothesis's, premise's) of nouns that have the same part."""
        return [
            (i, j)
            for (i, word), (j, other) in itertools.product(
                enumerate(hypothesis), enumerate(premise)
            )
            if any(word in nouns and other in nouns for nouns in self.nouns)
        ]


def one_of(rng, some):
    """One of a list by draw; quicker than rng.choice, which makes an array of it."""
    return some[rng.integers(len(some))]


def words(rng, facts):
    """Write facts as the words of a sentence, its parts in an order by draw."""
    parts = {3: [facts["verb", 0]]}
    for k, preposition in enumerate(PREPOSITIONS):
        if ("noun", k) in facts:
            named = [facts[kind, k] for kind in ("adjective", "noun") if (kind, k) in facts]
            article = "an" if named[0][0] in "aeiou" else "a"
            parts[k] = [*([preposition] if preposition else []), article, *named]
    order = one_of(rng, ORDERS)
    return [*itertools.chain(*(parts[k] for k in order if k in parts)), "."]


def arrays(pairs, vocabulary):
    """Return (premises, lengths, hypotheses, lengths) as arrays of numbers, and the labels."""
    sides: list[np.ndarray] = []
    for side in (0, 1):
        sides += pad([[vocabulary[word] for word in pair[side]] for pair in pairs])
    return tuple(sides), np.array([label for *_, label in pairs])

"""The sentences of pronoun.py: which noun "it" means depends on the adjective at the end.

Both noun-adjective pairs of a sentence, of the noun that is meant and of the other, belong to one
part: to training, to validation or to the test. So a sentence of the test has no adjective that was
ever seen together with one of its nouns, while every word was seen.
"""

import collections

import numpy as np

NOUNS = {
    "animal": (
        "animal bear camel cat cow deer dog donkey elephant fox goat hare horse lion mouse pig "
        "rabbit tiger wolf zebra"
    ).split(),
    "way": "alley bridge field highway lane path river road square street track trail".split(),
    "box": (
        "bag barrel basket bowl box bucket cabinet case chest crate drawer jar pot pouch sack "
        "suitcase tin trunk"
    ).split(),
}

# The kinds of two nouns; adjectives that mean the first one; adjectives that mean the second one;
# how sentences begin, where the first noun comes first, and where it comes last.
Pattern = collections.namedtuple("Pattern", ["kinds", "first", "second", "forward", "backward"])
PATTERNS = {
    "an animal or a way": Pattern(
        ("animal", "way"),
        "hungry lazy nervous old sick sleepy thirsty tired weak young".split(),
        "busy dangerous dark flooded icy long muddy rough steep wide".split(),
        ["the {} did not cross the {}", "the {} turned back at the {}", "the {} avoided the {}"],
        ["the {} was not crossed by the {}", "the {} stopped the {}"],
    ),
    "what goes in or around": Pattern(
        ("box", "box"),
        "big bulky huge large long tall thick wide".split(),
        "little low narrow shallow short slim small tiny".split(),
        ["the {} did not fit in the {}", "the {} was taken out of the {}"],
        ["the {} did not hold the {}", "the {} was not used for the {}"],
    ),
    "who hunts or runs away": Pattern(
        ("animal", "animal"),
        "clumsy heavy lazy old sleepy slow tired weak".split(),
        "agile clever fast lively nimble quick strong swift".split(),
        ["the {} did not catch the {}", "the {} lost the race against the {}"],
        ["the {} was not caught by the {}", "the {} escaped from the {}"],
    ),
}
STARTS = ["", "yesterday "]
ENDS = [" because it was too {}", " because it was so {}"]

# In `words`, `meant` is the noun that "it" stands for, `other` the other one; `pattern` is a key of
# PATTERNS.
Sentence = collections.namedtuple("Sentence", ["words", "meant", "other", "adjective", "pattern"])


def _vocabulary():
    texts = [*STARTS, *ENDS, *sum(NOUNS.values(), [])]
    for _, *lists in PATTERNS.values():
        texts += sum(lists, [])
    words = set(" ".join(texts).replace("{}", "").split())
    return {word: n for n, word in enumerate(sorted(words), start=1)}


TOKENS = _vocabulary()  # {word: token}; the token 0 is padding


def split(rng):
    """Return the part, "training", "validation" or "test", of every (noun, adjective)."""
    nouns = sorted(set(sum(NOUNS.values(), [])))
    adjectives = sorted({word for p in PATTERNS.values() for word in p.first + p.second})
    pairs = [(noun, adjective) for noun in nouns for adjective in adjectives]
    parts = rng.choice(["training", "validation", "test"], len(pairs), p=[0.65, 0.15, 0.2])
    pictured = {(n, a): "test" for n in ("animal", "street") for a in ("tired", "wide")}
    return dict(zip(pairs, map(str, parts), strict=True)) | pictured


def draw(rng, parts, part, count):
    """Draw sentences of one part of `parts`, which is what `split` returned."""

    def any_of(choices):
        return choices[int(len(choices) * rng.random())]

    def sentence(name):
        kinds, *adjectives, forward, backward = PATTERNS[name]
        while True:
            nouns = [any_of(NOUNS[kind]) for kind in kinds]
            which = any_of([0, 1])
            adjective = any_of(adjectives[which])
            if nouns[0] != nouns[1] and all(parts[noun, adjective] == part for noun in nouns):
                break
        text = any_of(forward + backward)
        order = nouns if text in forward else nouns[::-1]
        text = any_of(STARTS) + text.format(*order) + any_of(ENDS).format(adjective)
        return Sentence(tuple(text.split()), nouns[which], nouns[1 - which], adjective, name)

    names = list(PATTERNS)
    return [sentence(any_of(names)) for _ in range(count)]


def pairs(sentences):
    """Return the set of (noun, adjective) that are together in one of the sentences."""
    return {(noun, s.adjective) for s in sentences for noun in (s.meant, s.other)}


def arrays(sentences):
    """Return tokens (B, T), 0 after the end; lengths (B,); the tokens of the nouns meant (B,)."""
    lengths = np.array([len(s.words) for s in sentences])
    tokens = np.zeros((len(sentences), lengths.max()), int)
    for row, s in zip(tokens, sentences, strict=True):
        row[: len(s.words)] = [TOKENS[word] for word in s.words]
    return tokens, lengths, np.array([TOKENS[s.meant] for s in sentences])

"""How good lines are that are written for texts: ROUGE, what is repeated, what is copied.

And what costs nothing to write, to compare with: first words, and lines of like texts.
"""

from typing import Any, NamedTuple

import numpy as np
import summaries


class Line(NamedTuple):
    """A line that was written; arrays are of each of its words, and its end."""

    words: list[str]
    weights: Any  # over the words of the text
    p_gen: Any
    written: Any  # the share of its probability that is not copied


class Scores(NamedTuple):
    """Of many lines."""

    rouge1: float  # 0 to 100, as the other two
    rouge2: float
    rougeL: float
    repeated: float  # the share of trigrams that their line had before
    copied: float  # the share of words that are copied,
    inside: float  # and of words that are in the text
    long: float  # words a line


def rouge():
    """What scores two texts as the package rouge-score does, with its stemmer: F measures."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def rouge_of(scorer, words, right):
    """ROUGE-1, 2 and L of one line."""
    found = scorer.score(" ".join(right), " ".join(words))
    return [100 * each.fmeasure for each in found.values()]


def scores(scorer, lines, copied, pairs):
    """`Scores` of lines (lists of words) for some pairs; `copied`: a list of bools for each."""
    one, two, longest = np.mean(
        [rouge_of(scorer, words, pair.line) for words, pair in zip(lines, pairs, strict=True)],
        axis=0,
    )
    trigrams = repeated = 0
    for words in lines:
        found = list(zip(words, words[1:], words[2:], strict=False))
        trigrams, repeated = trigrams + len(found), repeated + len(found) - len(set(found))
    inside = [
        word in pair.source for words, pair in zip(lines, pairs, strict=True) for word in words
    ]
    copies = float(np.concatenate(copied).mean())
    long = sum(map(len, lines)) / len(lines)
    share = repeated / max(trigrams, 1)
    return Scores(one, two, longest, share, copies, sum(inside) / len(inside), long)


def copied_words(line):
    """Which words of a `Line` are copied: more likely than written."""
    return line.written[: len(line.words)] < 0.5


def first_words(pair, count):
    """The first words of a text, without signs."""
    return [word for word in pair.body if word[0].isalnum() or word[0] == "_"][:count]


def lead(scorer, pairs):
    """How many first words make the best ROUGE-L on some pairs."""

    def mean(count):
        return np.mean([rouge_of(scorer, first_words(p, count), p.line)[2] for p in pairs])

    return max(summaries.LINE, key=mean)


def most_similar(training, pairs):
    """The lines of the texts in training that are most like some texts: by tf-idf and cosine."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer=list)
    known = vectors.fit_transform([pair.source for pair in training])
    likeness = vectors.transform([pair.source for pair in pairs]) @ known.T
    return [training[n].line for n in np.asarray(likeness.argmax(axis=1)).ravel()]

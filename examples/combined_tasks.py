"""Small tasks, each for one way to combine attentions: nothing of what to look at is told.

Every function draws so many examples, and returns the inputs of a model (arrays of numbers of
words) and the labels, -1 where there is none.
"""

import numpy as np

ANSWERS = 4  # words 1 to 4 are what may be asked for; 0 is padding


def documents(rng, count, sentences=4, longest=6):
    """Which of the answers is in the sentence with the cue, 5? Other words are 6 to 15.

    Every sentence has one of the answers, and one sentence has the cue. (words, lengths).
    """
    lengths = rng.integers(3, longest + 1, (count, sentences))
    words = rng.integers(6, 16, (count, sentences, longest))
    answers = rng.integers(1, ANSWERS + 1, (count, sentences))
    asked = rng.integers(sentences, size=count)
    for n, s in np.ndindex(count, sentences):
        first, second = rng.permutation(lengths[n, s])[:2]
        words[n, s, first] = answers[n, s]
        if s == asked[n]:
            words[n, s, second] = 5
        words[n, s, lengths[n, s] :] = 0
    return (words, lengths), answers[np.arange(count), asked] - 1


def claims(rng, count, size=8, claims=4):
    """A list of (name, answer), and claims: has this name that answer? Half of the claims hold.

    (names and answers of the claims, names and answers of the list).
    """
    names = np.argsort(rng.random((count, size)), axis=1)
    answers = rng.integers(1, ANSWERS + 1, (count, size))
    at = rng.integers(size, size=(count, claims))
    right = np.take_along_axis(answers, at, axis=1)
    holds = rng.random(right.shape) < 0.5
    others = (right - 1 + rng.integers(1, ANSWERS, right.shape)) % ANSWERS + 1
    claimed = np.where(holds, right, others)
    return (np.take_along_axis(names, at, axis=1), claimed, names, answers), holds.astype(int)


def clozes(rng, count, words=16, stops=8):
    """A document in which one word is often, and a question: one word of it among stop words.

    Words are 1 to 16, stop words, which are not in documents, 17 to 24. The label is the word.
    """
    order = np.argsort(rng.random((count, words)), axis=1) + 1
    document = np.concatenate([order[:, :7], np.repeat(order[:, :1], 4, axis=1)], axis=1)
    document = rng.permuted(document, axis=1)
    asked = order[np.arange(count), rng.integers(1, 7, count)][:, None]
    stop = rng.integers(words + 1, words + stops + 1, (count, 4))
    question = rng.permuted(np.concatenate([asked, stop], axis=1), axis=1)
    return (question, document), asked[:, 0]


def places_and_names(rng, count, size=8):
    """As many questions as there are (name, answer): 0 asks for that at its own place, others for
    that of a name, 1 to 8, wherever it is.
    """
    names = np.argsort(rng.random((count, size)), axis=1) + 1
    answers = rng.integers(ANSWERS, size=(count, size))
    where = rng.integers(size, size=(count, size))
    by_name = rng.random((count, size)) < 0.5
    asked = np.where(by_name, np.take_along_axis(names, where, axis=1), 0)
    labels = np.where(by_name, np.take_along_axis(answers, where, axis=1), answers)
    return (asked, names, answers), labels


def regions(rng, count, size=4, topics=4):
    """Regions with a topic each, and (name, answer) in them: the answer of one topic and name.

    (topic, name) asked for; topics, names and answers of all places, region by region.
    """
    order = np.argsort(rng.random((count, topics)), axis=1)
    topic = np.repeat(order, size, axis=1)
    names = np.argsort(rng.random((count, topics, size)), axis=2).reshape(count, -1)
    answers = rng.integers(ANSWERS, size=topic.shape)
    at = rng.integers(topics * size, size=(count, 1))
    asked = [np.take_along_axis(array, at, axis=1) for array in (topic, names)]
    return (*asked, topic, names, answers), np.take_along_axis(answers, at, axis=1)


def partners(rng, count, tags=4):
    """Two words of each tag, at random places: one has an answer, 1 to 4, the other 0.

    The labels are, word by word, the answer of each tag. (tags, answers).
    """
    order = np.argsort(rng.random((count, 2 * tags)), axis=1)
    given = rng.integers(1, ANSWERS + 1, (count, tags))
    tag, answered = order % tags, order < tags
    labels = np.take_along_axis(given, tag, axis=1)
    return (tag, np.where(answered, labels, 0)), labels - 1


def repeats(rng, count, steps=6, names=6):
    """Answers of names, and whether a later step asks for the same answer, by whatever name.

    (names asked for, step by step; names and answers of the list). The labels are twice the answer,
    and 1 more if it is asked for again.
    """
    held = np.argsort(rng.random((count, names)), axis=1)
    answers = rng.integers(ANSWERS, size=(count, names))
    where = rng.integers(names, size=(count, steps))
    asked, found = (np.take_along_axis(array, where, axis=1) for array in (held, answers))
    again = np.triu(found[:, :, None] == found[:, None], 1).any(axis=2)
    return (asked, held, answers), 2 * found + again

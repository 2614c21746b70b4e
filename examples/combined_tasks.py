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


def near_and_far(rng, count, names=8):
    """A list of (name, answer), three of whose names are there twice, and a question at each place.

    The question is for the answer of a name: of the one at this place or beside it, or of one that
    is there once, wherever it is. Places of one name are not so close that both are beside one.
    (names asked for, 8 more where the near one is meant; names and answers).
    """
    kinds = np.zeros((0, 8), int)
    while len(kinds) < count:
        drawn = rng.permuted(np.tile([0, 0, 1, 1, 2, 2, 3, 4], (8 * count, 1)), axis=1)
        same = (drawn[:, :, None] == drawn[:, None]) & ~np.eye(8, dtype=bool)
        close = np.abs(np.subtract.outer(np.arange(8), np.arange(8))) < 3
        kinds = np.concatenate([kinds, drawn[~(same & close).any(axis=(1, 2))]])
    kinds = kinds[:count]
    called = np.argsort(rng.random((count, names)), axis=1)
    held = np.take_along_axis(called, kinds, axis=1)
    answers = rng.integers(ANSWERS, size=held.shape)
    near = rng.random(held.shape) < 0.5
    beside = np.clip(np.arange(8) + rng.integers(-1, 2, held.shape), 0, 7)
    once = np.argsort(kinds < 3, axis=1, kind="stable")[:, :2]  # the two that are there once
    where = np.where(near, beside, np.take_along_axis(once, rng.integers(2, size=held.shape), 1))
    asked, labels = (np.take_along_axis(array, where, axis=1) for array in (held, answers))
    return (asked + names * near, held, answers), labels


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


def sortings(rng, count, longest=8, kinds=3):
    """Words of three kinds, 0 to 2, of most several: the same words, sorted, and then the end, 3.

    (words, lengths, and at every step the sorted word before; 3 at the first). No label is -1.
    """
    lengths = rng.integers(2, longest + 1, count)
    real = np.arange(longest) < lengths[:, None]
    words = rng.integers(kinds, size=(count, longest))
    ended = np.sort(np.where(real, words, kinds), axis=1)
    before = np.concatenate([np.full((count, 1), kinds), ended], axis=1)
    ended = np.concatenate([ended, np.full((count, 1), kinds)], axis=1)
    return (words, lengths, before), np.where(np.arange(longest + 1) <= lengths[:, None], ended, -1)

"""What is wrong in the captions of scenes: what a wrong word does, and where it looked.

Defines: `pile_up`, `first_mistakes`, `where_looked`.
"""

import itertools

import numpy as np
from canvases import SIDE
from caption_models import GRID
from scenes import SIZE


def pile_up(model, source, batch, tokens):
    """Counts of (wrong words, words), (3, 2): what one wrong word does to those after it.

    After right words alone, which the model is fed; then in the captions that it wrote with a
    mistake, of the words behind the first wrong one: as it went on, and as it goes on where that
    word is put right. A word is held against the right one at its place.
    """
    right = batch.tokens[:, 1:]
    real = right != source.vocabulary.padding
    fed = model(batch.images, batch.tokens[:, :-1]).logits.argmax(axis=-1)
    counts = [[(fed != right)[real].sum(), real.sum()]]
    first = first_wrong(same_length(tokens, right), right, real)
    rows = np.flatnonzero(first >= 0)
    after = real[rows] & (np.arange(right.shape[1]) > first[rows, None])
    written = same_length(tokens, right)[rows]
    counts.append([(written != right[rows])[after].sum(), after.sum()])
    if len(rows):
        forced = [right[row, : first[row] + 1] for row in rows]
        put_right, _ = model.write(batch.images[rows], source.vocabulary, source.longest, forced)
        wrong = same_length(put_right, right) != right[rows]
        counts.append([wrong[after].sum(), after.sum()])
    else:
        counts.append([0, 0])
    return np.array(counts)


def first_wrong(written, right, real):
    """The step of the first wrong word of each caption (B,), -1 where there is none."""
    wrong = (written != right) & real
    return np.where(wrong.any(axis=1), wrong.argmax(axis=1), -1)


def same_length(tokens, right):
    """Tokens (B, T) with as many columns as the right ones have; those that are missing are 0."""
    columns = right.shape[1]
    return np.pad(tokens, ((0, 0), (0, max(0, columns - tokens.shape[1]))))[:, :columns]


def first_mistakes(captions, right):
    """Counts (4,) of first wrong words that ought to be an article, a digit, a relation, the end.

    Articles, digits and relations take turns.
    """
    counts = np.zeros(4, int)
    for words, wanted in zip(captions, right, strict=True):
        for step, (word, meant) in enumerate(itertools.zip_longest(words, wanted)):
            if word != meant:
                counts[3 if meant is None else step % 3] += 1
                break
    return counts


def where_looked(model, batch):
    """Where articles and digits look after right words: counts (2, 2, 3), by word, right or wrong.

    The region of the largest weight lies on the digit that is to be named, on another, or on none.
    """
    found = model(batch.images, batch.tokens[:, :-1])
    right, written = batch.tokens[:, 1:], found.logits.argmax(axis=-1)
    counts = np.zeros((2, 2, 3), int)
    for b, places in enumerate(batch.places):
        for n, word in np.ndindex(len(places), 2):
            step = 3 * n + word
            row, column = np.divmod(found.weights[b, step].argmax(), GRID)
            middle = (np.array([row, column]) + 0.5) * SIZE / GRID
            on = (np.abs(places - middle) <= SIDE / 2).all(axis=1)
            where = 0 if on[n] else 1 if on.any() else 2
            counts[word, int(written[b, step] != right[b, step]), where] += 1
    return counts

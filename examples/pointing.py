"""The distribution of a pointer-generator: a word is written, or copied by attention; by hand.

See summarise_model.py. Here are no layers, only arrays of words that have nothing to do with each
other: of each the scores of the vocabulary, the switch, the weights and the words they are of.
"""

import numpy as np


def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def mixture(logits, switch, weights, labels, source):
    """-log P of each of n words, with p_gen and the share of P that is written; and the way back.

    Parameters
    ----------
    logits : ndarray, shape (n, V)
    switch : ndarray, shape (n,)
        Its sigmoid is p_gen; where it is inf, nothing is copied.
    weights : ndarray, shape (n, Tk)
    labels : ndarray of int, shape (n,)
        The words; those from V on are copied, and must be in the source.
    source : ndarray of int, shape (n, Tk)
        The words that the weights are of.

    Notes
    -----
    Both ways meet as logarithms, so that none is taken of 0 where one way is impossible, or so
    improbable that its probability is 0 in float32. Of each way the gradient is its share of P.
    """
    n, tiny = np.arange(len(labels)), np.finfo(weights.dtype).tiny
    inside, same = labels < logits.shape[1], source == labels[:, None]
    column = np.where(inside, labels, 0)
    logits = logits - logits.max(axis=-1, keepdims=True)
    words = np.exp(logits)
    total = words.sum(axis=-1, keepdims=True)
    words /= total
    log_word = logits[n, column] - np.log(total[:, 0])
    copied = (weights * same).sum(axis=-1)
    log_copied = np.log(np.maximum(copied, tiny))
    by_word = np.where(inside, log_word - np.logaddexp(0, -switch), -np.inf)
    by_copy = np.where(same.any(axis=-1), log_copied - np.logaddexp(0, switch), -np.inf)
    both = np.logaddexp(by_word, by_copy)
    written, p_gen = np.exp(by_word - both), sigmoid(switch)

    def back(dlosses):
        dlogits = words * written[:, None]
        dlogits[n, column] -= written
        dswitch = p_gen - written
        share = np.where(copied > tiny, (1 - written) / np.maximum(copied, tiny), 0)
        dweights = -share[:, None] * same
        return dlogits * dlosses[:, None], dswitch * dlosses, dweights * dlosses[:, None]

    return (-both, p_gen, written), back

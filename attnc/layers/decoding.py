"""Decoding with an `AttentionDecoder`, a batch at a time: greedy, by beam search; and inputs for
training that the decoder chose itself."""

import numpy as np

from ..gradients import result_type

Decoded = result_type("Decoded", "tokens weights")
Beams = result_type("Beams", "tokens weights scores")


def greedy_decode(
    decoder,
    embedding,
    readout,
    memory,
    state=None,
    *,
    start,
    end,
    max_length,
    key_mask=None,
    key_lengths=None,
):
    """Decode a batch, taking the most probable token at every step.

    Parameters
    ----------
    decoder : AttentionDecoder
    embedding : Layer or callable
        From tokens (B,) to the decoder's inputs (B, input_size).
    readout : Layer or callable
        From the decoder's outputs (B, state_size) to scores of the tokens (B, vocabulary).
    memory, state, key_mask, key_lengths
        As in a call of the decoder.
    start, end : int
        Token that is the first input; token that ends a sequence.
    max_length : int
        Steps at most, 0 or more.

    Returns
    -------
    tokens : ndarray of int, shape (B, steps)
        With the end token, where it was reached, and after it only end tokens.
    weights : ndarray, shape (B, steps, Tk)
        Attention weights; 0 after the end.

    Raises
    ------
    TypeError, ValueError
        As the decoder does; ValueError if max_length is negative.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> embedding, readout = attnc.Embedding(9, 4, rng=0), attnc.Linear(8, 9, rng=0)
    >>> decoder = attnc.AttentionDecoder(4, 8, memory_size=6, rng=0)
    >>> tokens, weights = attnc.greedy_decode(
    ...     decoder, embedding, readout, np.ones((2, 5, 6)), start=1, end=2, max_length=7
    ... )
    >>> tokens.shape[0], weights.shape[2]
    (2, 5)
    """
    if max_length < 0:
        raise ValueError(f"greedy_decode: max_length must be 0 or more, got {max_length}")
    memory = decoder.prepare(memory, key_mask, key_lengths)
    B, Tk = memory.value.shape[:2]
    token = np.full(B, start)
    running = np.ones(B, bool)
    tokens = np.full((B, max_length), end)
    weights = np.zeros((B, max_length, Tk), decoder.dtype)
    steps = 0
    while steps < max_length and running.any():
        output, attended, state = decoder.step(embedding(token), memory, state)
        token = np.where(running, readout(output).argmax(axis=-1), end)
        tokens[:, steps] = token
        weights[running, steps] = attended[running]
        running &= token != end
        steps += 1
    return Decoded(tokens[:, :steps], weights[:, :steps])


def beam_search(
    decoder,
    embedding,
    readout,
    memory,
    state=None,
    *,
    start,
    end,
    max_length,
    beam_width=5,
    n_best=1,
    length_penalty=0.6,
    key_mask=None,
    key_lengths=None,
):
    """Decode a batch, keeping the most probable beginnings of each sequence at every step.

    A hypothesis Y of n tokens is ranked by ``log P(Y) / ((5 + n) / 6) ** length_penalty``; without
    the divisor short ones win, since every token makes a sequence less probable. Wu et al. 2016,
    "Google's neural machine translation system", eq. 14.

    Parameters
    ----------
    decoder, embedding, readout, memory, state, start, end, max_length, key_mask, key_lengths
        As in `greedy_decode`.
    beam_width : int
        Hypotheses that are kept of each sequence. With 1 the tokens are those of `greedy_decode`.
    n_best : int
        Hypotheses that are returned of each sequence, at most beam_width.
    length_penalty : float
        0 or more; see above. 0: none.

    Returns
    -------
    tokens : ndarray of int, shape (B, n_best, steps)
        The best first. With the end token, where it was reached, and after it only end tokens.
    weights : ndarray, shape (B, n_best, steps, Tk)
        Attention weights; 0 after the end.
    scores : ndarray, shape (B, n_best)
        What the hypotheses are ranked by; -inf where there are not as many different ones.

    Raises
    ------
    TypeError, ValueError
        As `greedy_decode`; ValueError if beam_width, n_best or length_penalty is out of range.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> embedding, readout = attnc.Embedding(9, 4, rng=0), attnc.Linear(8, 9, rng=0)
    >>> decoder = attnc.AttentionDecoder(4, 8, memory_size=6, rng=0)
    >>> memory = np.ones((2, 5, 6))
    >>> tokens, weights, scores = attnc.beam_search(
    ...     decoder, embedding, readout, memory, start=1, end=2, max_length=7, n_best=3
    ... )
    >>> tokens.shape[:2], scores.shape
    ((2, 3), (2, 3))
    """
    if max_length < 0:
        raise ValueError(f"beam_search: max_length must be 0 or more, got {max_length}")
    if not 1 <= n_best <= beam_width:
        raise ValueError(
            "beam_search: n_best must lie in 1..beam_width and beam_width be at least 1, got "
            f"n_best {n_best} and beam_width {beam_width}"
        )
    if not 0 <= length_penalty < np.inf:
        raise ValueError(f"beam_search: length_penalty must be 0 or more, got {length_penalty}")
    memory = decoder.prepare(memory, key_mask, key_lengths)
    (B, Tk), K = memory.value.shape[:2], beam_width
    rows = np.repeat(np.arange(B), K)  # hypothesis -> sequence
    memory = memory.take(rows)
    if state is not None:
        state = _take(state, rows)
    token = np.full(B * K, start)
    # At first all hypotheses of a sequence are the same: the others do not count.
    total = np.where(np.arange(K) == 0, 0.0, -np.inf) * np.ones((B, 1))  # log P
    length = np.zeros((B, K), int)
    running = np.ones((B, K), bool)
    steps = []  # of each step: tokens, weights, and which hypothesis they went on from
    while len(steps) < max_length and running.any():
        output, attended, state = decoder.step(embedding(token), memory, state)
        grown = total[..., None] + _log_softmax(readout(output)).reshape(B, K, -1)
        V = grown.shape[2]
        # A hypothesis that has ended stays as it is: its only successor is the end token.
        grown[~running] = -np.inf
        grown[~running, end] = total[~running]
        longer = length + running
        ranked = grown / _penalty(longer, length_penalty)[..., None]
        best = _largest(ranked.reshape(B, K * V), K)
        parent, token = np.divmod(best, V)
        total = np.take_along_axis(grown.reshape(B, K * V), best, axis=1)
        went_on = np.take_along_axis(running, parent, axis=1)
        length = np.take_along_axis(longer, parent, axis=1)
        running = went_on & (token != end) & (total > -np.inf)
        origin = (parent + K * np.arange(B)[:, None]).reshape(-1)
        attended = np.where(went_on.reshape(-1, 1), attended[origin], 0)
        steps.append((token, attended.reshape(B, K, Tk), parent))
        state, token = _take(state, origin), token.reshape(-1)

    scores = total / _penalty(length, length_penalty)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :n_best]
    tokens = np.full((B, n_best, len(steps)), end)
    weights = np.zeros((B, n_best, len(steps), Tk), decoder.dtype)
    at = order
    for t in reversed(range(len(steps))):
        chosen, attended, parent = steps[t]
        tokens[:, :, t] = np.take_along_axis(chosen, at, axis=1)
        weights[:, :, t] = np.take_along_axis(attended, at[..., None], axis=1)
        at = np.take_along_axis(parent, at, axis=1)
    return Beams(tokens, weights, np.take_along_axis(scores, order, axis=1))


def scheduled_inputs(
    decoder,
    embedding,
    readout,
    tokens,
    memory,
    state=None,
    *,
    probability,
    rng=None,
    key_mask=None,
    key_lengths=None,
):
    """Inputs for training, some of which the decoder has chosen itself: scheduled sampling.

    Each token but the first is replaced, with the given probability, by the one that the decoder
    finds most probable there, after the inputs so far. So it learns to go on after mistakes, as it
    has to where nobody tells it the right words. No gradient passes through the choice. Bengio et
    al. 2015, "Scheduled sampling for sequence prediction with recurrent neural networks".

    Parameters
    ----------
    decoder, embedding, readout, memory, state, key_mask, key_lengths
        As in `greedy_decode`.
    tokens : array_like of int, shape (B, T)
        The true inputs.
    probability : float
        In 0..1.
    rng : None, int or numpy.random.Generator

    Returns
    -------
    ndarray of int, shape (B, T)

    Raises
    ------
    TypeError, ValueError
        As the decoder does; ValueError if probability is out of range.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> embedding, readout = attnc.Embedding(9, 4, rng=0), attnc.Linear(8, 9, rng=0)
    >>> decoder = attnc.AttentionDecoder(4, 8, memory_size=6, rng=0)
    >>> tokens = np.array([[1, 5, 3, 4]])
    >>> mixed = attnc.scheduled_inputs(
    ...     decoder, embedding, readout, tokens, np.ones((1, 5, 6)), probability=0.25, rng=0
    ... )
    >>> mixed.shape
    (1, 4)
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"scheduled_inputs: probability must lie in 0..1, got {probability}")
    tokens = np.array(tokens)
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise ValueError(
            "scheduled_inputs: tokens must be integers of shape (B, T), got "
            f"{tokens.dtype} {tokens.shape}"
        )
    memory = decoder.prepare(memory, key_mask, key_lengths)
    own = np.random.default_rng(rng).random(tokens.shape) < probability
    last = np.flatnonzero(own[:, 1:].any(axis=0)) + 1  # nothing is chosen after the last of these
    for t in range(1, last[-1] + 1 if last.size else 0):
        output, _, state = decoder.step(embedding(tokens[:, t - 1]), memory, state)
        if own[:, t].any():
            tokens[own[:, t], t] = readout(output[own[:, t]]).argmax(axis=-1)
    return tokens


def _take(state, rows):
    """The state of some sequences of a batch: it is the last axis but one of every array."""
    if isinstance(state, (tuple, list)):
        return tuple(_take(array, rows) for array in state)
    return np.take(state, rows, axis=np.ndim(state) - 2)


def _log_softmax(scores):
    scores = scores.astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores


def _penalty(length, strength):
    return ((5 + length) / 6) ** strength


def _largest(x, count):
    """Indices of the `count` largest of each row, the largest first; of equals the first first."""
    if count < x.shape[1]:
        some = np.sort(np.argpartition(-x, count - 1, axis=1)[:, :count], axis=1)
    else:
        some = np.broadcast_to(np.arange(x.shape[1]), x.shape)
    order = np.argsort(-np.take_along_axis(x, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)

"""Decoding with any `StepDecoder`, a batch at a time: greedy, sampling, beam search; and inputs for
training that the decoder chose itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from ..arrays import flag, generator, integer, integer_array, number, quiet
from ..gradients import shows_shapes
from ..typing import Array, Bools, Integers, Seed
from .stepping import StepDecoder, Steps

Hook = Callable[[Array, Array], Array]


@shows_shapes
class Decoded(NamedTuple):
    """The tokens of one hypothesis a sequence."""

    tokens: Array
    weights: Any


@shows_shapes
class ScoredDecoded(NamedTuple):
    """The same, with the logarithm of the probability of each token."""

    tokens: Array
    weights: Any
    log_probabilities: Array


@shows_shapes
class Beams(NamedTuple):
    """Hypotheses, the best first."""

    tokens: Array
    weights: Any
    scores: Array


@shows_shapes
class ScoredBeams(NamedTuple):
    """The same, with the logarithm of the probability of each token."""

    tokens: Array
    weights: Any
    scores: Array
    log_probabilities: Array


@overload
def greedy_decode(
    decoder: StepDecoder,
    embedding: Callable[[Array], Array] | None = ...,
    readout: Callable[[Array], Array] | None = ...,
    memory: Any = ...,
    state: Any = ...,
    *,
    start: Integers,
    end: Integers,
    max_length: Integers,
    min_length: int = ...,
    logits_hook: Hook | None = ...,
    key_mask: Bools | None = ...,
    key_lengths: Integers | None = ...,
    return_log_probabilities: Literal[False] = ...,
) -> Decoded: ...
@overload
def greedy_decode(
    decoder: StepDecoder,
    embedding: Callable[[Array], Array] | None = ...,
    readout: Callable[[Array], Array] | None = ...,
    memory: Any = ...,
    state: Any = ...,
    *,
    start: Integers,
    end: Integers,
    max_length: Integers,
    min_length: int = ...,
    logits_hook: Hook | None = ...,
    key_mask: Bools | None = ...,
    key_lengths: Integers | None = ...,
    return_log_probabilities: Literal[True],
) -> ScoredDecoded: ...
def greedy_decode(
    decoder: StepDecoder,
    embedding: Callable[[Array], Array] | None = None,
    readout: Callable[[Array], Array] | None = None,
    memory: Any = None,
    state: Any = None,
    *,
    start: Integers,
    end: Integers,
    max_length: Integers,
    min_length: int = 0,
    logits_hook: Hook | None = None,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
    return_log_probabilities: bool = False,
) -> Decoded | ScoredDecoded:
    """Decode a batch, taking the most probable token at every step.

    Of tokens with equal scores the first is taken. A score of +inf is certain, one of -inf
    forbidden.

    Parameters
    ----------
    decoder : StepDecoder
        An `AttentionDecoder`, or anything else that has its ``prepare``, ``step`` and ``reorder``:
        `attnc.layers.stepping.StepDecoder` says what they do.
    embedding : Layer or callable, optional
        From tokens (B,) to the decoder's inputs (B, input_size).
    readout : Layer or callable, optional
        From the decoder's outputs (B, state_size) to scores of the tokens (B, vocabulary). Both are
        left out for a decoder that takes tokens and returns scores.
    memory, state, key_mask, key_lengths
        As in a call of the decoder. A language model has no memory.
    start : int or array_like of int, shape (B,)
        The first input, such as the start token, or the last of a prompt that `state` has seen.
    end : int or array_like of int
        Tokens that end a sequence, as many as there are: with an empty list only max_length does.
        All must be in the vocabulary.
    max_length : int or array_like of int, shape (B,)
        Steps at most, 0 or more. Nothing is made in advance: sys.maxsize is no limit.
    min_length : int
        Steps that are made before a token of `end` may be taken, at most max_length. Until then
        those tokens are left out of the choice; the other probabilities stay as they are.
    logits_hook : callable, optional
        ``logits_hook(logits, tokens) -> logits``: the scores to choose from, in place of those of
        the model, for rules of one's own. It is called once a step, after `readout` and before all
        else, with scores (n, vocabulary) and the tokens so far (n, steps), without `start`; of
        `beam_search` the rows are the hypotheses, those of a sequence together. Rows of sequences
        that have ended are there too; their scores mean nothing, and what is returned for them is
        not used. Both arrays are copies, which it may change and return. -inf forbids a token, but
        not all of a row.
    return_log_probabilities : bool
        Whether to return them too.

    Returns
    -------
    tokens : ndarray of int, shape (B, steps)
        With the end token, where one was reached, and after it, or after the max_length of a
        sequence, only the first of `end`.
    weights : ndarray, shape (B, ..., steps, Tk)
        Attention weights; 0 after the end. Of an `AttentionDecoder` (B, steps, Tk). None where the
        decoder has none.
    log_probabilities : ndarray, shape (B, steps)
        Only if asked for: of each token, log softmax of the scores, as `logits_hook` returned them,
        in float64; 0 after the end. Their sum over the steps is log P of the sequence.

    Raises
    ------
    TypeError
        As the decoder does; if start, end, max_length or min_length is not an integer, what is
        called is not callable, or what embedding, readout or logits_hook returns is not a real
        array.
    ValueError
        As the decoder does; if a length is negative, min_length above max_length, start or end not
        in the vocabulary, what embedding, readout or logits_hook returns has a wrong shape, a score
        is NaN or all scores of a sequence are -inf.

    See Also
    --------
    sample_decode : draws tokens by their probabilities
    beam_search : keeps several hypotheses

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
    steps = Steps("greedy_decode", decoder, embedding, readout, logits_hook)
    asked = flag(steps.where, "return_log_probabilities", return_log_probabilities)
    steps.begin(
        memory, state, key_mask, key_lengths,
        start=start, end=end, max_length=max_length, min_length=min_length,
    )  # fmt: skip

    def choose(scores):
        token = scores.argmax(axis=-1)
        return token, scores[np.arange(len(token)), token]  # argmax takes NaN before any number

    return _decode(steps, choose, asked)


@overload
def sample_decode(
    decoder: StepDecoder,
    embedding: Callable[[Array], Array] | None = ...,
    readout: Callable[[Array], Array] | None = ...,
    memory: Any = ...,
    state: Any = ...,
    *,
    start: Integers,
    end: Integers,
    max_length: Integers,
    min_length: int = ...,
    temperature: float = ...,
    top_k: int | None = ...,
    top_p: float | None = ...,
    rng: Seed = ...,
    logits_hook: Hook | None = ...,
    key_mask: Bools | None = ...,
    key_lengths: Integers | None = ...,
    return_log_probabilities: Literal[False] = ...,
) -> Decoded: ...
@overload
def sample_decode(
    decoder: StepDecoder,
    embedding: Callable[[Array], Array] | None = ...,
    readout: Callable[[Array], Array] | None = ...,
    memory: Any = ...,
    state: Any = ...,
    *,
    start: Integers,
    end: Integers,
    max_length: Integers,
    min_length: int = ...,
    temperature: float = ...,
    top_k: int | None = ...,
    top_p: float | None = ...,
    rng: Seed = ...,
    logits_hook: Hook | None = ...,
    key_mask: Bools | None = ...,
    key_lengths: Integers | None = ...,
    return_log_probabilities: Literal[True],
) -> ScoredDecoded: ...
def sample_decode(
    decoder: StepDecoder,
    embedding: Callable[[Array], Array] | None = None,
    readout: Callable[[Array], Array] | None = None,
    memory: Any = None,
    state: Any = None,
    *,
    start: Integers,
    end: Integers,
    max_length: Integers,
    min_length: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: Seed = None,
    logits_hook: Hook | None = None,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
    return_log_probabilities: bool = False,
) -> Decoded | ScoredDecoded:
    """Decode a batch, drawing every token by its probability.

    The probabilities are ``softmax(scores / temperature)``, of which `top_k`, then `top_p` leave
    some tokens, and these keep their proportions. `top_p` is nucleus sampling: Holtzman et al.
    2020, "The curious case of neural text degeneration", section 3.1. Of tokens with equal scores
    the first ones are left. A score of +inf is certain, one of -inf forbidden.

    Parameters
    ----------
    decoder, embedding, readout, memory, state, start, end, max_length, min_length, logits_hook
        As in `greedy_decode`. Several samples of one sequence: give its memory several times.
    temperature : float
        Above 0. Below 1 the probable tokens become more probable, above 1 less so.
    top_k : int, optional
        Choose from so many most probable tokens alone; with 1 as `greedy_decode` does.
    top_p : float, optional
        Above 0 and at most 1: choose from the most probable tokens that together reach this
        probability, as few as do, of what `top_k` leaves.
    rng : None, int or numpy.random.Generator
        One number is drawn from it for every sequence at every step, so that the same seed gives
        the same tokens, for any number of threads.
    key_mask, key_lengths, return_log_probabilities
        As in `greedy_decode`.

    Returns
    -------
    tokens, weights
        As of `greedy_decode`.
    log_probabilities : ndarray, shape (B, steps)
        Only if asked for: as of `greedy_decode`, before temperature, top_k and top_p, so that they
        can be compared.

    Raises
    ------
    TypeError
        As `greedy_decode`; if temperature or top_p is not a number, top_k not an integer, or rng of
        a wrong kind.
    ValueError
        As `greedy_decode`; if temperature, top_k or top_p is out of range.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> embedding, readout = attnc.Embedding(9, 4, rng=0), attnc.Linear(8, 9, rng=0)
    >>> decoder = attnc.AttentionDecoder(4, 8, memory_size=6, rng=0)
    >>> memory = decoder.prepare(np.ones((1, 5, 6))).take(np.zeros(3, int))  # three times the first
    >>> tokens, weights = attnc.sample_decode(
    ...     decoder, embedding, readout, memory, start=1, end=2, max_length=7, top_p=0.9, rng=0
    ... )
    >>> tokens.shape[0], weights.shape[2]
    (3, 5)
    """
    steps = Steps("sample_decode", decoder, embedding, readout, logits_hook)
    asked = flag(steps.where, "return_log_probabilities", return_log_probabilities)
    choose = _sampler(steps, temperature, top_k, top_p, rng)
    steps.begin(
        memory, state, key_mask, key_lengths,
        start=start, end=end, max_length=max_length, min_length=min_length,
    )  # fmt: skip
    return _decode(steps, choose, asked)


def _decode(steps, choose, asked):
    """Decode with one hypothesis a sequence.

    `choose` returns of scores (n, vocabulary) the tokens and the largest scores, NaN where any is.
    """
    B = steps.batch
    tokens: list[Array] = []
    weights: list[Array] = []
    logs: list[Array] = []
    token, running = steps.first, steps.limits > 0

    def so_far():
        return np.stack(tokens, axis=1) if tokens else np.zeros((B, 0), int)

    while running.any():
        scores, attended = steps.next_scores(token, so_far)
        allowed = scores
        if steps.forbids_end(len(tokens)):
            allowed = steps.without_end(scores)
        chosen, largest = choose(allowed)
        if not (largest > -np.inf).all():
            steps.refuse_nan(largest, running)
            steps.refuse_dead_ends(running & (steps.spread(largest) == -np.inf), len(tokens))
        if asked:
            found = _log_softmax(scores, chosen[:, None])[:, 0]
            logs.append(np.where(running, steps.spread(found), 0.0))
        token = np.where(running, steps.spread(chosen), steps.filling)
        if attended is not None:
            weights.append(_kept(attended, running))
        tokens.append(token)
        running = running & ~steps.is_end(token) & (len(tokens) < steps.limits)
        if running.any():
            steps.go_on(running[:, None])

    attention = np.stack(weights, axis=-2) if weights else None
    if not tokens and (none := steps.no_weights()) is not None:
        attention = np.zeros((B, *none.shape[1:-1], 0, none.shape[-1]), none.dtype)
    if not asked:
        return Decoded(so_far(), attention)
    found = np.stack(logs, axis=1) if logs else np.zeros((B, 0))
    return ScoredDecoded(so_far(), attention, found)


def _kept(weights, rows):
    """Weights (n, ..., Tk), 0 but in these rows (n,)."""
    return np.where(rows.reshape(-1, *[1] * (weights.ndim - 1)), weights, 0)


def _sampler(steps, temperature, top_k, top_p, rng):
    """What draws tokens from scores (n, vocabulary): its options are checked here."""
    where = steps.where
    temperature = number(
        where, "temperature", temperature, "be above 0 (greedy_decode takes the most probable)",
        lambda t: 0 < t < np.inf,
    )  # fmt: skip
    top_k, top_p, rng = sampling_options(where, top_k, top_p, rng)

    @quiet
    def choose(scores):
        rows, largest = np.arange(len(scores)), scores.max(axis=-1)
        ranked = None  # the tokens to choose from, where they are not all in their order
        if top_k is not None or top_p is not None:
            width = scores.shape[1]
            ranked = largest_of(scores, width if top_k is None else min(top_k, width))
            scores = scores[rows[:, None], ranked]
        share = _shares(scores, temperature)
        if top_p is not None:
            before = share.cumsum(axis=-1)
            total = before[:, -1:].copy()
            before[:, 1:], before[:, 0] = before[:, :-1].copy(), 0
            share = np.where(before < top_p * total, share, 0)
        # The first token up to which the shares, added up, exceed a part of all of them.
        upto = share.cumsum(axis=-1)
        drawn = steps.at_work(rng.random(steps.batch)) * upto[:, -1]
        token = np.count_nonzero(upto <= drawn[:, None], axis=-1)
        return (token if ranked is None else ranked[rows, token]), largest

    return choose


def sampling_options(
    where: str, top_k: Any, top_p: Any, rng: Any
) -> tuple[int | None, float | None, np.random.Generator]:
    """The options of `sample_decode` of these names, checked."""
    if top_k is not None:
        top_k = integer(where, "top_k", top_k, 1)
    if top_p is not None:
        top_p = number(where, "top_p", top_p, "lie in 0 < top_p <= 1", lambda p: 0 < p <= 1)
    return top_k, top_p, generator(where, rng)


def _shares(scores, temperature):
    """Numbers in the proportions of softmax(scores / temperature), in float64."""
    scores = scores.astype(np.float64)
    top = scores.max(axis=-1, keepdims=True)
    share = np.exp((scores - top) / temperature)
    certain = top[:, 0] == np.inf  # scores of inf share all probability
    share[certain] = scores[certain] == np.inf
    share[~(top[:, 0] > -np.inf)] = 1  # of a row that has ended, or is refused
    return share


@overload
def beam_search(
    decoder: StepDecoder,
    embedding: Callable[[Array], Array] | None = ...,
    readout: Callable[[Array], Array] | None = ...,
    memory: Any = ...,
    state: Any = ...,
    *,
    start: Integers,
    end: Integers,
    max_length: Integers,
    min_length: int = ...,
    beam_width: int = ...,
    n_best: int = ...,
    length_penalty: float = ...,
    logits_hook: Hook | None = ...,
    key_mask: Bools | None = ...,
    key_lengths: Integers | None = ...,
    return_log_probabilities: Literal[False] = ...,
) -> Beams: ...
@overload
def beam_search(
    decoder: StepDecoder,
    embedding: Callable[[Array], Array] | None = ...,
    readout: Callable[[Array], Array] | None = ...,
    memory: Any = ...,
    state: Any = ...,
    *,
    start: Integers,
    end: Integers,
    max_length: Integers,
    min_length: int = ...,
    beam_width: int = ...,
    n_best: int = ...,
    length_penalty: float = ...,
    logits_hook: Hook | None = ...,
    key_mask: Bools | None = ...,
    key_lengths: Integers | None = ...,
    return_log_probabilities: Literal[True],
) -> ScoredBeams: ...
def beam_search(
    decoder: StepDecoder,
    embedding: Callable[[Array], Array] | None = None,
    readout: Callable[[Array], Array] | None = None,
    memory: Any = None,
    state: Any = None,
    *,
    start: Integers,
    end: Integers,
    max_length: Integers,
    min_length: int = 0,
    beam_width: int = 5,
    n_best: int = 1,
    length_penalty: float = 0.6,
    logits_hook: Hook | None = None,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
    return_log_probabilities: bool = False,
) -> Beams | ScoredBeams:
    """Decode a batch, keeping the most probable beginnings of each sequence at every step.

    A hypothesis Y of n tokens is ranked by ``log P(Y) / ((5 + n) / 6) ** length_penalty``; without
    the divisor short ones win, since every token makes a sequence less probable. Wu et al. 2016,
    "Google's neural machine translation system", eq. 14.

    Of equal hypotheses that come first which go on from the better beginning, and of those from
    the same one the tokens with the higher score, then the lower number.

    Parameters
    ----------
    decoder, embedding, readout, memory, state, start, end, max_length, min_length, logits_hook
        As in `greedy_decode`.
    beam_width : int
        Hypotheses that are kept of each sequence. With 1 the tokens are those of `greedy_decode`,
        always.
    n_best : int
        Hypotheses that are returned of each sequence, at most beam_width.
    length_penalty : float
        0 or more; see above. 0: none.
    key_mask, key_lengths, return_log_probabilities
        As in `greedy_decode`.

    Returns
    -------
    tokens : ndarray of int, shape (B, n_best, steps)
        The best first, each as of `greedy_decode`.
    weights : ndarray, shape (B, n_best, ..., steps, Tk)
        Attention weights; 0 after the end. Of an `AttentionDecoder` (B, n_best, steps, Tk). None
        where the decoder has none.
    scores : ndarray, shape (B, n_best)
        What the hypotheses are ranked by; -inf where there are not as many different ones.
    log_probabilities : ndarray, shape (B, n_best, steps)
        Only if asked for: as of `greedy_decode`.

    Raises
    ------
    TypeError
        As `greedy_decode`; if beam_width or n_best is not an integer or length_penalty not a
        number.
    ValueError
        As `greedy_decode`, where all scores are -inf for every hypothesis of a sequence; if
        beam_width, n_best or length_penalty is out of range.

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
    steps = Steps("beam_search", decoder, embedding, readout, logits_hook)
    asked = flag(steps.where, "return_log_probabilities", return_log_probabilities)
    beam_width, n_best, length_penalty = beam_options(
        steps.where, beam_width, n_best, length_penalty
    )
    steps.begin(
        memory, state, key_mask, key_lengths,
        start=start, end=end, max_length=max_length, min_length=min_length,
    )  # fmt: skip
    return _search(steps, beam_width, n_best, length_penalty, asked)


class _Grown(NamedTuple):
    """What a step of a search leaves, of each of K hypotheses of B sequences."""

    token: Array  # (B, K)
    log: Array  # (B, K): of the probability of that token
    parent: Array  # (B, K): which hypothesis before it goes on
    went_on: Array  # (B, W) of the W before: whether they had not ended
    weights: Any  # (B * W, ..., Tk) of the W before


def _search(steps, K, n_best, length_penalty, asked):
    """Search with K hypotheses of each sequence."""
    B, batch = steps.batch, np.arange(steps.batch)[:, None]
    token, so_far = steps.first, np.zeros((B, 0), int)
    # A sequence begins with one hypothesis, so that no two go on alike; W is how many there are.
    W, total, length = 1, np.zeros((B, 1)), np.zeros((B, 1), int)  # total: log P
    running = steps.limits[:, None] > 0
    grown: list[_Grown] = []
    while running.any():
        scores, attended = steps.next_scores(token, so_far.copy)
        allowed, early = scores, steps.forbids_end(len(grown))
        if early:
            allowed = steps.without_end(scores)
        steps.refuse_nan(allowed.max(axis=-1), running.reshape(-1))
        tokens = largest_of(allowed, K)  # no more successors of one hypothesis can be kept
        logs = _log_softmax(scores, tokens)
        if early:
            logs[steps.is_end(tokens)] = -np.inf
        C = tokens.shape[1]
        tokens, logs = steps.spread(tokens), steps.spread(logs)
        tokens, logs = tokens.reshape(B, W, C), logs.reshape(B, W, C)
        # A hypothesis that has ended stays as it is: its only successor is the end token.
        tokens[~running] = steps.filling
        logs[~running] = -np.inf
        logs[~running, 0] = 0
        longer = length + running
        sums = total[..., None] + logs
        candidates = _at_least(K, tokens, steps.filling), _at_least(K, logs, -np.inf)
        sums, ranked = _at_least(K, sums, -np.inf), _rank(sums, longer[..., None], length_penalty)
        best = largest_of(_at_least(K, ranked, -np.inf), K)
        parent = np.minimum(best // C, W - 1)
        token, log = (each[batch, best] for each in candidates)
        total = sums[batch, best]
        steps.refuse_dead_ends((total == -np.inf).all(axis=1), len(grown))
        grown.append(_Grown(token, log, parent, running, attended))
        length = longer[batch, parent]
        running = running[batch, parent] & ~steps.is_end(token) & (total > -np.inf)
        running &= len(grown) < steps.limits[:, None]
        if not running.any():
            break
        steps.go_on(running, parent)
        if steps.logits_hook is not None:
            so_far = so_far[(parent + W * batch).reshape(-1)]
            so_far = np.column_stack([so_far, token.reshape(-1)])
        W, token = K, token.reshape(-1)
    return _traced(steps, grown, _rank(total, length, length_penalty), n_best, asked)


def _traced(steps, grown, scores, n_best, asked):
    """The best hypotheses, followed back from their ends."""
    B, batch = steps.batch, np.arange(steps.batch)[:, None]
    scores = _at_least(n_best, scores, -np.inf)  # without a step there is one hypothesis
    order = _descending(scores)[:, :n_best]
    tokens = np.full((B, n_best, len(grown)), steps.filling)
    logs = np.zeros((B, n_best, len(grown)))
    attended = grown[-1].weights if grown else steps.no_weights()
    weights = None
    if attended is not None:
        shape = (B, n_best, *attended.shape[1:-1], len(grown), attended.shape[-1])
        weights = np.zeros(shape, attended.dtype)
    at = order
    for t in reversed(range(len(grown))):
        step = grown[t]
        tokens[:, :, t], logs[:, :, t] = step.token[batch, at], step.log[batch, at]
        at = step.parent[batch, at]
        if weights is not None:
            rows = (at + step.went_on.shape[1] * batch).reshape(-1)
            kept = _kept(step.weights[rows], step.went_on.reshape(-1)[rows])
            weights[..., t, :] = kept.reshape(weights[..., t, :].shape)
    found = tokens, weights, scores[batch, order]
    return ScoredBeams(*found, logs) if asked else Beams(*found)


def _at_least(count, x, filling):
    """x (B, ...) as (B, n), filled up so that n is at least `count`."""
    x = x.reshape(len(x), math.prod(x.shape[1:]))
    if x.shape[1] >= count:
        return x
    return np.pad(x, ((0, 0), (0, count - x.shape[1])), constant_values=filling)


def best_sequences(arguments, *, beam_width, n_best, length_penalty, **options):
    """What the `translate` of a model returns: `greedy_decode` for one beam, else `beam_search`.

    `arguments` are those that both begin with. Without n_best the best hypothesis is returned
    alone, without scores.
    """
    alone = n_best is None
    beam_width, n_best, length_penalty = beam_options(
        "beam_search", beam_width, 1 if alone else n_best, length_penalty
    )
    if alone and beam_width == 1:
        return greedy_decode(*arguments, **options)
    beams = beam_search(
        *arguments,
        **options,
        beam_width=beam_width,
        n_best=n_best,
        length_penalty=length_penalty,
    )
    if not alone:
        return beams
    weights = beams.weights
    return Decoded(beams.tokens[:, 0], None if weights is None else weights[:, 0])


def scheduled_inputs(
    decoder: StepDecoder,
    embedding: Callable[[Array], Array] | None,
    readout: Callable[[Array], Array] | None,
    tokens: Integers,
    memory: Any,
    state: Any = None,
    *,
    probability: float,
    rng: Seed = None,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
) -> Array:
    """Inputs for training, some of which the decoder has chosen itself: scheduled sampling.

    Each token but the first is replaced, with the given probability, by the one that the decoder
    finds most probable there, after the inputs so far. So it learns to go on after mistakes, as it
    has to where nobody tells it the right words. No gradient passes through the choice. Bengio et
    al. 2015, "Scheduled sampling for sequence prediction with recurrent neural networks".

    Parameters
    ----------
    decoder, embedding, readout, memory, state, key_mask, key_lengths
        As in `greedy_decode`; embedding and readout are None for a decoder of tokens.
    tokens : array_like of int, shape (B, T)
        The true inputs.
    probability : float
        In 0..1.
    rng : None, int or numpy.random.Generator

    Returns
    -------
    ndarray of int, shape (B, T)
        Of int64, whatever integers `tokens` are.

    Raises
    ------
    TypeError
        As the decoder does; if tokens are not integers, probability is not a number, or what
        embedding or readout returns is not a real array.
    ValueError
        As the decoder does; if tokens are not (B, T), probability is out of range, what embedding
        or readout returns has a wrong shape, or a score is NaN.

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
    where = "scheduled_inputs"
    steps = Steps(where, decoder, embedding, readout)
    probability = number(where, "probability", probability, "lie in 0..1", lambda p: 0 <= p <= 1)
    tokens = integer_array(where, "tokens", tokens)
    if tokens.ndim != 2:
        raise ValueError(
            f"{where}: tokens must be integers of shape (B, T), got {tokens.dtype} {tokens.shape}"
        )
    if tokens.size and tokens.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{where}: tokens must be in the vocabulary, got {tokens.max()}")
    tokens = tokens.astype(np.int64)  # a copy, wide enough for every token that may be chosen
    steps.memory, steps.state = decoder.prepare(memory, key_mask, key_lengths), state
    own = generator(where, rng).random(tokens.shape) < probability
    last = np.flatnonzero(own[:, 1:].any(axis=0)) + 1  # the last token that is chosen
    for t in range(1, last[-1] + 1 if last.size else 0):
        output, _ = steps.step(tokens[:, t - 1])
        if own[:, t].any():
            scores = steps.scores(output[own[:, t]])
            chosen = scores.argmax(axis=-1)
            steps.refuse_nan(scores[np.arange(len(scores)), chosen], np.ones(len(scores), bool))
            tokens[own[:, t], t] = chosen
    return tokens


# ---- choosing ---------------------------------------------------------------------------------


def beam_options(where, beam_width, n_best, length_penalty):
    """beam_width, n_best and length_penalty, checked."""
    beam_width = integer(where, "beam_width", beam_width)
    n_best = integer(where, "n_best", n_best)
    if not 1 <= n_best <= beam_width:
        raise ValueError(
            f"{where}: n_best must lie in 1..beam_width and beam_width be at least 1, got "
            f"n_best {n_best} and beam_width {beam_width}"
        )
    length_penalty = number(
        where, "length_penalty", length_penalty, "be 0 or more", lambda x: 0 <= x < np.inf
    )
    return beam_width, n_best, length_penalty


@quiet
def _log_softmax(scores, tokens):
    """log softmax(scores) of the chosen tokens (n, C) of each row of scores (n, V), in float64."""
    scores = scores.astype(np.float64)
    top = scores.max(axis=-1, keepdims=True)
    certain = top[:, 0] == np.inf
    if certain.any():  # scores of inf share all probability
        scores[certain] = np.where(scores[certain] == np.inf, 0.0, -np.inf)
        top[certain] = 0
    scores -= top
    chosen = scores[np.arange(len(scores))[:, None], tokens]
    chosen -= np.log(np.exp(scores, out=scores).sum(axis=-1, keepdims=True))
    chosen[top[:, 0] == -np.inf] = -np.inf  # no token is allowed
    return chosen


@quiet
def _rank(total, length, strength):
    """Ranks of hypotheses: log P over the length penalty; -inf stays -inf whatever the penalty."""
    ranked = total / ((5 + length) / 6) ** strength
    return np.where(total == -np.inf, -np.inf, ranked)  # -inf / inf is NaN


def _descending(x):
    """Indices that sort each row, the largest first; of equals the first first."""
    return x.shape[1] - 1 - np.argsort(x[:, ::-1], axis=1, kind="stable")[:, ::-1]


def largest_of(x, count):
    """Indices of the `count` largest of each row, the largest first; of equals the first first."""
    width, rows = x.shape[1], np.arange(len(x))[:, None]
    if count == 1:
        return x.argmax(axis=1)[:, None]
    if width <= max(count, 50):  # for so few, sorting is faster than choosing first
        return _descending(x)[:, :count]
    some = np.argpartition(x, width - count, axis=1)[:, width - count :]
    # argpartition keeps any of the scores that equal the smallest chosen: take the first ones.
    least = x[rows, some[:, :1]]
    ties = np.flatnonzero(np.count_nonzero(x >= least, axis=1) > count)
    if ties.size:
        above, equal = x[ties] > least[ties], x[ties] == least[ties]
        room = count - above.sum(axis=1, keepdims=True)
        kept = above | equal & (equal.cumsum(axis=1) <= room)
        some[ties] = np.nonzero(kept)[1].reshape(len(ties), count)
    some.sort(axis=1)
    return some[rows, _descending(x[rows, some])]

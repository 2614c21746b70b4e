"""Decoding with any `StepDecoder`, a batch at a time: greedy, by beam search; and inputs for
training that the decoder chose itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..arrays import generator, integer, integer_array, number, real_array
from ..functional.decoder_run import PreparedMemory
from ..functional.recurrent import joined, nothing
from ..gradients import shows_shapes
from ..typing import Array, Bools, Integers, Real, Seed, State
from .decoder import AttentionDecoder


class Prepared(Protocol):
    """What `StepDecoder.prepare` returns: the memories of a batch, ready for many steps.

    It holds all that does not grow from step to step, such as projected keys, and never changes.
    Hypotheses of one sequence have one memory, so that a beam search takes it once.
    """

    def __len__(self) -> int:
        """Sequences in the batch."""

    def take(self, rows: Array, /) -> Any:
        """The memories of these sequences, in this order; one may be there several times."""


class StepDecoder(Protocol):
    """What `greedy_decode`, `beam_search` and `sample_decode` need of a decoder, and all they know.

    `AttentionDecoder` is one; its inputs are vectors and its outputs are no scores yet, so that it
    is driven with ``embedding=`` and ``readout=``. A model that embeds tokens and computes scores
    itself, such as one that adds positions, which only its state knows, is driven without either:
    its inputs are tokens, its outputs scores.
    """

    def prepare(self, memory: Any, key_mask: Any, key_lengths: Any, /) -> Any:
        """Check, mask and project a memory once, for many steps.

        What it returns is a `Prepared`, which it also takes and then returns as it is; or None from
        a decoder without a memory, such as a language model, which takes only None. Masks are those
        of the caller, None where not given.
        """

    def step(self, input: Any, memory: Any, state: Any, /) -> tuple[Any, Any, Any]:
        """One step of every sequence: ``output, weights, state``.

        Parameters
        ----------
        input : ndarray
            What ``embedding`` makes of the last tokens, (B, input_size); the tokens themselves, an
            int array (B,), where there is no embedding.
        memory : Prepared or None
            What `prepare` returned, or its `take`.
        state : object
            What the last step returned, or `reorder` made of it; None before the first, unless the
            caller has one. It says how many steps there were: positions come from it.

        Returns
        -------
        output : ndarray, shape (B, output_size)
            What ``readout`` reads; the scores (B, vocabulary) where there is no readout.
        weights : ndarray, shape (B, ..., Tk), or None
            Attention weights over the memory, of the same shape at every step: of an
            `AttentionDecoder` (B, Tk), of a Transformer (B, layers, H, Tk).
        state : object
            A new state. The one given stays what it was: a step from it gives the same again,
            whatever steps have been made since.

        Notes
        -----
        A state with a cache of keys and values does not copy it at every step. It holds the cache,
        which others may share, and its own length n. Where the cache still ends at n, the step
        appends, which leaves the first n entries as they are, and the new state has length n + 1.
        Where the cache has grown since, by a step from the same state, the step copies its first n
        entries and appends to the copy: the other states still read theirs, so that truncating the
        shared one would be wrong. A search that goes on from its last state never copies. A cache
        that drops entries (a sliding window) copies before it drops what a shared state may read,
        or raises; it never answers from what is gone.
        """

    def reorder(self, state: Any, indices: Array, /) -> Any:
        """The state of some sequences of the batch, in this order: what a search goes on with.

        Parameters
        ----------
        state : object
            What a step returned.
        indices : ndarray of int, shape (N,)
            Sequences of its batch; one may be there several times, or not at all.

        Returns
        -------
        object
            The state of a batch of N. The one given stays what it was, as in `step`. The memory
            takes no part: a search passes the one that belongs to the new rows.
        """


@shows_shapes
class Decoded(NamedTuple):
    """The tokens of one hypothesis a sequence."""

    tokens: Array
    weights: Array


@shows_shapes
class Beams(NamedTuple):
    """Hypotheses, the best first."""

    tokens: Array
    weights: Array
    scores: Array


def greedy_decode(
    decoder: AttentionDecoder,
    embedding: Callable[[Array], Array],
    readout: Callable[[Array], Array],
    memory: Real | PreparedMemory,
    state: State | None = None,
    *,
    start: int,
    end: int,
    max_length: int,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
) -> Decoded:
    """Decode a batch, taking the most probable token at every step.

    Of tokens with equal scores the first is taken. A score of +inf is certain, one of -inf
    forbidden.

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
        Token that is the first input; token that ends a sequence. Both must be in the vocabulary.
    max_length : int
        Steps at most, 0 or more. Nothing is made in advance: sys.maxsize is no limit.

    Returns
    -------
    tokens : ndarray of int, shape (B, steps)
        With the end token, where it was reached, and after it only end tokens.
    weights : ndarray, shape (B, steps, Tk)
        Attention weights; 0 after the end.

    Raises
    ------
    TypeError
        As the decoder does; if start, end or max_length is not an integer, or what embedding or
        readout returns is not a real array.
    ValueError
        As the decoder does; if max_length is negative, start or end is not in the vocabulary, what
        embedding or readout returns has a wrong shape, a score is NaN or all scores of a sequence
        are -inf.

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
    steps = _Steps("greedy_decode", decoder, embedding, readout)
    start, end, max_length = steps.limits(start, end, max_length)
    memory = decoder.prepare(memory, key_mask, key_lengths)
    B, Tk = memory.value.shape[:2]
    batch, token = np.arange(B), np.full(B, start)
    running = np.ones(B, bool)
    tokens: list[Array] = []
    weights: list[Array] = []
    while len(tokens) < max_length and running.any():
        output, attended, state = decoder.step(steps.embed(token), memory, state)
        scores = steps.scores(output, end)
        token = scores.argmax(axis=-1)
        chosen = scores[batch, token]  # argmax takes NaN before any number
        if not (chosen > -np.inf).all():
            steps.refuse_nan(chosen, running)
            steps.refuse_dead_ends(running & (chosen == -np.inf))
        token = np.where(running, token, end)
        tokens.append(token)
        weights.append(np.where(running[:, None], attended, 0))
        running = running & (token != end)
    if not tokens:
        return Decoded(np.zeros((B, 0), int), np.zeros((B, 0, Tk), decoder.dtype))
    return Decoded(np.stack(tokens, axis=1), np.stack(weights, axis=1))


def beam_search(
    decoder: AttentionDecoder,
    embedding: Callable[[Array], Array],
    readout: Callable[[Array], Array],
    memory: Real | PreparedMemory,
    state: State | None = None,
    *,
    start: int,
    end: int,
    max_length: int,
    beam_width: int = 5,
    n_best: int = 1,
    length_penalty: float = 0.6,
    key_mask: Bools | None = None,
    key_lengths: Integers | None = None,
) -> Beams:
    """Decode a batch, keeping the most probable beginnings of each sequence at every step.

    A hypothesis Y of n tokens is ranked by ``log P(Y) / ((5 + n) / 6) ** length_penalty``; without
    the divisor short ones win, since every token makes a sequence less probable. Wu et al. 2016,
    "Google's neural machine translation system", eq. 14.

    Of equal hypotheses that come first which go on from the better beginning, and of those from
    the same one the tokens with the higher score, then the lower number.

    Parameters
    ----------
    decoder, embedding, readout, memory, state, start, end, max_length, key_mask, key_lengths
        As in `greedy_decode`.
    beam_width : int
        Hypotheses that are kept of each sequence. With 1 the tokens are those of `greedy_decode`,
        always.
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
    where = "beam_search"
    beams = _Steps(where, decoder, embedding, readout)
    start, end, max_length = beams.limits(start, end, max_length)
    K, n_best, length_penalty = beam_options(where, beam_width, n_best, length_penalty)
    memory = decoder.prepare(memory, key_mask, key_lengths)
    B, Tk = memory.value.shape[:2]
    batch = np.arange(B)[:, None]
    rows = np.repeat(np.arange(B), K)  # hypothesis -> sequence
    if not nothing(state):
        parts = memory.decoder.read_state("state", state, B, Tk)
        state = decoder.reorder(joined(list(parts.values())), rows)
    memory = memory.take(rows)
    token = np.full(B * K, start)
    # All hypotheses of a sequence begin as the same one, so that only the first counts.
    total = np.tile(np.where(np.arange(K) == 0, 0.0, -np.inf), (B, 1))  # log P
    length = np.zeros((B, K), int)
    running = np.ones((B, K), bool)
    # A step leaves its tokens, its weights, and which hypothesis each token went on from.
    steps: list[tuple[Array, Array, Array]] = []
    while len(steps) < max_length and running.any():
        output, attended, state = decoder.step(beams.embed(token), memory, state)
        scores = beams.scores(output, end)
        tokens = _largest(scores, K)  # no more successors of one hypothesis can be kept
        beams.refuse_nan(scores.max(axis=-1), running.reshape(-1))
        C = tokens.shape[1]
        grown = total[..., None] + _log_softmax(scores, tokens).reshape(B, K, C)
        tokens = tokens.reshape(B, K, C)
        # A hypothesis that has ended stays as it is: its only successor is the end token.
        tokens[~running] = end
        grown[~running] = -np.inf
        grown[~running, 0] = total[~running]
        longer = length + running
        ranked = _rank(grown, longer[..., None], length_penalty)
        best = _largest(ranked.reshape(B, K * C), K)
        parent = best // C
        token = tokens.reshape(B, K * C)[batch, best]
        total = grown.reshape(B, K * C)[batch, best]
        beams.refuse_dead_ends((total == -np.inf).all(axis=1))
        went_on, length = running[batch, parent], longer[batch, parent]
        running = went_on & (token != end) & (total > -np.inf)
        origin = (parent + K * batch).reshape(-1)
        attended = np.where(went_on.reshape(-1, 1), attended[origin], 0)
        steps.append((token, attended.reshape(B, K, Tk), parent))
        state, token = decoder.reorder(state, origin), token.reshape(-1)

    scores = _rank(total, length, length_penalty)
    order = _descending(scores)[:, :n_best]
    tokens = np.full((B, n_best, len(steps)), end)
    weights = np.zeros((B, n_best, len(steps), Tk), decoder.dtype)
    at = order
    for t in reversed(range(len(steps))):
        chosen, attended, parent = steps[t]
        tokens[:, :, t] = chosen[batch, at]
        weights[:, :, t] = attended[batch, at]
        at = parent[batch, at]
    return Beams(tokens, weights, scores[batch, order])


def scheduled_inputs(
    decoder: AttentionDecoder,
    embedding: Callable[[Array], Array],
    readout: Callable[[Array], Array],
    tokens: Integers,
    memory: Real | PreparedMemory,
    state: State | None = None,
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
        As in `greedy_decode`.
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
    steps = _Steps(where, decoder, embedding, readout)
    probability = number(where, "probability", probability, "lie in 0..1", lambda p: 0 <= p <= 1)
    tokens = integer_array(where, "tokens", tokens)
    if tokens.ndim != 2:
        raise ValueError(
            f"{where}: tokens must be integers of shape (B, T), got {tokens.dtype} {tokens.shape}"
        )
    if tokens.size and tokens.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{where}: tokens must be in the vocabulary, got {tokens.max()}")
    tokens = tokens.astype(np.int64)  # a copy, wide enough for every token that may be chosen
    memory = decoder.prepare(memory, key_mask, key_lengths)
    own = generator(where, rng).random(tokens.shape) < probability
    last = np.flatnonzero(own[:, 1:].any(axis=0)) + 1  # the last token that is chosen
    for t in range(1, last[-1] + 1 if last.size else 0):
        output, _, state = decoder.step(steps.embed(tokens[:, t - 1]), memory, state)
        if own[:, t].any():
            scores = steps.scores(output[own[:, t]])
            chosen = scores.argmax(axis=-1)
            steps.refuse_nan(scores[np.arange(len(scores)), chosen], np.ones(len(scores), bool))
            tokens[own[:, t], t] = chosen
    return tokens


# ---- what the three share ------------------------------------------------------------------------


class _Steps:
    """The embedding and the readout of a decoder, with checks of what they are given and return."""

    def __init__(self, where, decoder, embedding, readout):
        self.where, self.decoder = where, decoder
        self.embedding, self.readout = embedding, readout
        self.start = None
        if not all(hasattr(decoder, name) for name in ("prepare", "step", "reorder")):
            raise TypeError(
                f"{where}: decoder must be an AttentionDecoder, got {type(decoder).__name__}"
            )
        for name, function in (("embedding", embedding), ("readout", readout)):
            if not callable(function):
                raise TypeError(
                    f"{where}: {name} must be a layer or callable, got {type(function).__name__}"
                )

    def limits(self, start, end, max_length):
        """start, end and max_length as ints."""
        most = np.iinfo(np.intp).max
        start = integer(self.where, "start", start, 0, most)
        end = integer(self.where, "end", end, 0, most)
        max_length = integer(self.where, "max_length", max_length)
        if max_length < 0:
            raise ValueError(f"{self.where}: max_length must be 0 or more, got {max_length}")
        self.start = start
        return start, end, max_length

    def embed(self, tokens):
        """The vectors of tokens (n,), as the decoder's inputs."""
        try:
            vectors = self.embedding(tokens.copy())  # the caller may keep or change its argument
        except (IndexError, ValueError) as error:
            first = self.start is not None and (tokens == self.start).all()
            name = "start must be a token" if first else "tokens must be those"
            got = self.start if first else tokens.tolist()
            raise ValueError(
                f"{self.where}: {name} that embedding takes, got {got} ({error})"
            ) from error
        vectors = real_array(self.where, "what embedding returns", vectors)
        wanted = len(tokens), self.decoder.input_size
        if vectors.shape != wanted:
            raise ValueError(
                f"{self.where}: embedding must return {wanted} for tokens {tokens.shape}, the "
                f"inputs of the decoder, got {vectors.shape}"
            )
        return vectors

    def scores(self, outputs, end=0):
        """The scores (n, vocabulary) of the next token after outputs (n, size)."""
        scores = real_array(self.where, "what readout returns", self.readout(outputs))
        if scores.ndim != 2 or len(scores) != len(outputs) or not scores.shape[1]:
            raise ValueError(
                f"{self.where}: readout must return ({len(outputs)}, vocabulary) for outputs "
                f"{outputs.shape}, a score for each token, got {scores.shape}"
            )
        if end >= scores.shape[1]:
            raise ValueError(
                f"{self.where}: end must lie in 0..{scores.shape[1] - 1}, the tokens that readout "
                f"has scores of, got {end}"
            )
        if scores.dtype.kind in "iu" or scores.dtype.itemsize >= 4:
            return scores
        return scores.astype(np.float32)  # conversion is exact, and all of NumPy takes float32

    def refuse_nan(self, largest, rows):
        """Raise if the largest score is NaN in one of these rows: the largest is NaN if any is."""
        found = np.flatnonzero(rows & (largest != largest))
        if found.size:
            raise ValueError(
                f"{self.where}: readout must return numbers, got NaN in row {found[0]} "
                f"of {len(largest)}"
            )

    def refuse_dead_ends(self, dead):
        """Raise if a sequence cannot go on. dead: (B,) bool."""
        if dead.any():
            raise ValueError(
                f"{self.where}: readout must allow a token at every step, got scores that are all "
                f"-inf for sequence {dead.argmax()}"
            )


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


def _log_softmax(scores, tokens):
    """log softmax(scores) of the chosen tokens (n, C) of each row of scores (n, V), in float64."""
    with np.errstate(all="ignore"):
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


def _rank(total, length, strength):
    """Ranks of hypotheses: log P over the length penalty; -inf stays -inf whatever the penalty."""
    with np.errstate(all="ignore"):
        ranked = total / ((5 + length) / 6) ** strength
    return np.where(total == -np.inf, -np.inf, ranked)  # -inf / inf is NaN


def _descending(x):
    """Indices that sort each row, the largest first; of equals the first first."""
    return x.shape[1] - 1 - np.argsort(x[:, ::-1], axis=1, kind="stable")[:, ::-1]


def _largest(x, count):
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

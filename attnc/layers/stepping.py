"""What decoding drives: any `StepDecoder`, step by step, with checks of all that it returns.

`Steps` is a decoder at work on a batch. What is chosen from its scores, `decoding.py` says.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..arrays import integer, integer_array, real_array
from ..typing import Array


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

        A batch may be empty: where a search makes no step, that of none shows what weights are.

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


class Steps:
    """A decoder at work on a batch: its embedding, its readout, and checks of what they return.

    A search has rows, `width` of them for each sequence: its hypotheses. The decoder is spared
    those of sequences that have ended, once these are half of those that it works on.
    """

    def __init__(self, where, decoder, embedding, readout, logits_hook=None):
        self.where, self.decoder = where, decoder
        self.embedding, self.readout = embedding, readout
        self.logits_hook = logits_hook
        if not all(hasattr(decoder, name) for name in ("prepare", "step", "reorder")):
            raise TypeError(
                f"{where}: decoder must have prepare, step and reorder, as AttentionDecoder has, "
                f"got {type(decoder).__name__}"
            )
        alone = embedding is None and readout is None
        if alone and hasattr(decoder, "input_size"):
            raise TypeError(
                f"{where}: embedding and readout must be layers or callable for "
                f"{type(decoder).__name__}, which takes vectors and not tokens, got None for both"
            )
        for name, function in (("embedding", embedding), ("readout", readout)):
            if not (alone or callable(function)):
                raise TypeError(
                    f"{where}: {name} must be a layer or callable, got {type(function).__name__}"
                )
        if not (logits_hook is None or callable(logits_hook)):
            raise TypeError(
                f"{where}: logits_hook must be callable, got {type(logits_hook).__name__}"
            )
        self.first = None
        self.source = "decoder.step" if alone else "readout"  # who returns scores

    # ---- Before the first step -------------------------------------------------------------------

    def begin(
        self, memory, state, key_mask, key_lengths, *, start, end, max_length, min_length
    ):  # fmt: skip
        """Check everything, and prepare the memory. Sets what a search needs:

        `memory`, `state`, `batch`, the number of sequences; `first`, their first inputs (batch,);
        `ends`, the tokens that end a sequence; `filling`, the one that follows them; `limits`, the
        steps of each sequence (batch,); `least`, the steps before an end.
        """
        where, most = self.where, np.iinfo(np.intp).max
        start, ends = self._tokens("start", start), self._tokens("end", end)
        if ends.ndim > 1:
            raise ValueError(f"{where}: end must be an int or a list of them, got {end!r}")
        self.ends = np.unique(ends)
        self.filling = int(ends.reshape(-1)[0]) if ends.size else 0
        lengths = self._lengths(max_length)
        self.memory = self.decoder.prepare(memory, key_mask, key_lengths)
        self.state = state
        if self.memory is not None:
            self.batch = len(self.memory)
        else:  # a language model
            self.batch = max([1, *(len(each) for each in (start, lengths) if each.ndim)])
        for name, array in (("start", start), ("max_length", lengths)):
            if array.shape not in ((), (self.batch,)):
                raise ValueError(
                    f"{where}: {name} must be an int or of shape ({self.batch},), one for each "
                    f"sequence, got {array.shape}"
                )
        if lengths.ndim and not self.ends.size:
            raise ValueError(
                f"{where}: max_length must be an int where end is empty, got shape "
                f"{lengths.shape} (an end token fills up what is shorter)"
            )
        # What the decoder works on: sequences, and their rows, None for all.
        self.width, self.sequences, self.rows = 1, np.arange(self.batch), None
        self.first = np.full(self.batch, start)
        self.limits = np.full(self.batch, lengths)
        self.least = integer(where, "min_length", min_length, 0, most)
        if self.least > lengths.min(initial=most):
            raise ValueError(
                f"{where}: min_length must be at most max_length, got {min_length} and "
                f"{lengths.tolist()}"
            )

    def _tokens(self, name, tokens):
        """Tokens, one or several, as an array of intp."""
        most = np.iinfo(np.intp).max
        if _is_one(tokens):
            return np.array(integer(self.where, name, tokens, 0, most))
        array = integer_array(self.where, name, tokens)
        if array.size and not 0 <= int(array.min()) <= int(array.max()) <= most:
            raise ValueError(
                f"{self.where}: {name} must be tokens of 0 or more, got {array.tolist()}"
            )
        return array.astype(np.intp)

    def _lengths(self, max_length):
        """max_length, one or several, as an array of intp."""
        where, most = self.where, np.iinfo(np.intp).max
        if _is_one(max_length):
            least = integer(where, "max_length", max_length)
            lengths = np.array(min(least, most))
        else:
            lengths = integer_array(where, "max_length", max_length)
            least = int(lengths.min(initial=0))
        if least < 0:
            raise ValueError(f"{where}: max_length must be 0 or more, got {least}")
        return np.minimum(lengths, most).astype(np.intp)

    # ---- Steps -----------------------------------------------------------------------------------

    def embed(self, tokens):
        """The vectors of tokens (n,), as the decoder's inputs; the tokens without an embedding."""
        given = tokens.copy()  # the caller may keep or change its argument
        if self.embedding is None:
            return given
        try:
            vectors = self.embedding(given)
        except (IndexError, ValueError) as error:
            first = tokens is self.first
            name = "start must be a token" if first else "tokens must be those"
            got = tokens[0] if first and (tokens == tokens[0]).all() else tokens.tolist()
            raise ValueError(
                f"{self.where}: {name} that embedding takes, got {got} ({error})"
            ) from error
        vectors = real_array(self.where, "what embedding returns", vectors)
        size = getattr(self.decoder, "input_size", None)
        wanted = len(tokens), *(vectors.shape[1:] if size is None else (size,))
        if vectors.shape != wanted:
            raise ValueError(
                f"{self.where}: embedding must return {wanted} for tokens {tokens.shape}, the "
                f"inputs of the decoder, got {vectors.shape}"
            )
        return vectors

    def step(self, tokens):
        """One step of the decoder: its outputs and its weights; `state` goes on."""
        found = self.decoder.step(self.embed(tokens), self.memory, self.state)
        output, weights, self.state = found
        if weights is not None:
            weights = real_array(self.where, "the weights that decoder.step returns", weights)
            if weights.ndim < 2 or len(weights) != len(tokens):
                raise ValueError(
                    f"{self.where}: decoder.step must return weights ({len(tokens)}, ..., Tk) or "
                    f"None, got {weights.shape}"
                )
        return output, weights

    def scores(self, outputs):
        """The scores (n, vocabulary) of the next token after n outputs."""
        n, given = len(outputs), ""
        scores = outputs
        if self.readout is not None:
            scores, given = self.readout(outputs), f" for outputs {np.shape(outputs)}"
        scores = real_array(self.where, f"what {self.source} returns", scores)
        if scores.ndim != 2 or len(scores) != n or not scores.shape[1]:
            raise ValueError(
                f"{self.where}: {self.source} must return ({n}, vocabulary){given}, a score for "
                f"each token, got {scores.shape}"
            )
        return _wide(scores)

    def next_scores(self, tokens, so_far):
        """The scores after tokens (rows,), of the rows `at_work`; and the weights of all.

        `so_far` is a function, which returns the tokens (rows, steps) for the hook.
        """
        given = self.at_work(tokens)
        output, weights = self.step(given)
        scores = self.scores(output)
        if len(scores) != len(given):
            raise ValueError(
                f"{self.where}: decoder.step must return {len(given)} outputs, got {len(scores)}"
            )
        last = scores.shape[1] - 1
        if self.ends.size and self.ends[-1] > last:
            raise ValueError(
                f"{self.where}: end must lie in 0..{last}, the tokens that {self.source} has "
                f"scores of, got {self.ends[-1]}"
            )
        if self.logits_hook is not None:
            scores = self.at_work(self._hooked(self.spread(scores), so_far()))
        return scores, None if weights is None else self.spread(weights)

    def at_work(self, x):
        """Of an array of all rows those that the decoder works on."""
        return x if self.rows is None else x[self.rows]

    def spread(self, x, filling=0):
        """An array of all rows that has x in those that the decoder works on."""
        if self.rows is None:
            return x
        spread = np.full((self.batch * self.width, *x.shape[1:]), filling, x.dtype)
        spread[self.rows] = x
        return spread

    def go_on(self, running, parent=None):
        """Before another step: say which rows (batch, width) run, and which each goes on from.

        `parent` (batch, width) counts the rows that its sequence had; without it each row goes on
        from itself.
        """
        going = np.flatnonzero(running.any(axis=1))
        if 2 * len(going) > len(self.sequences):
            if parent is None:
                return
            going = self.sequences
        place = np.empty(self.batch, np.intp)  # the first row of each sequence, for the decoder
        place[self.sequences] = np.arange(len(self.sequences)) * self.width
        first, width = place[going][:, None], running.shape[1]
        origin = (first if parent is None else first + parent[going]).reshape(-1)
        rows = len(self.sequences) * self.width
        if len(origin) != rows or (origin != np.arange(rows)).any():
            self.state = self.decoder.reorder(self.state, origin)
        if self.memory is not None and (width != self.width or len(going) < len(self.sequences)):
            self.memory = self.memory.take(np.repeat(first, width))
        self.width, self.sequences = width, going
        if len(going) < self.batch:
            self.rows = (going[:, None] * width + np.arange(width)).reshape(-1)

    def _hooked(self, scores, so_far):
        kind = scores.dtype if scores.dtype.kind == "f" else np.float64
        changed = self.logits_hook(np.array(scores, kind), so_far)  # both may be written to
        changed = real_array(self.where, "what logits_hook returns", changed)
        if changed.shape != scores.shape:
            raise ValueError(
                f"{self.where}: logits_hook must return the shape of logits, {scores.shape}, got "
                f"{changed.shape}"
            )
        return _wide(changed)

    def forbids_end(self, steps):
        """Whether it is too early for an end, after so many steps."""
        return steps < self.least and self.ends.size > 0

    def without_end(self, scores):
        """Scores that forbid an end."""
        scores = np.array(scores, scores.dtype if scores.dtype.kind == "f" else np.float64)
        scores[:, self.ends] = -np.inf
        return scores

    def is_end(self, tokens):
        """Where these are tokens that end a sequence."""
        if self.ends.size == 1:
            return tokens == self.ends[0]
        return np.isin(tokens, self.ends)

    def no_weights(self):
        """The weights of a step of no sequences, (0, ..., Tk): what is returned after no step."""
        if self.memory is None:
            return None
        none = np.zeros(0, np.intp)
        return self.decoder.step(self.embed(none), self.memory.take(none), None)[1]

    # ---- What is refused -------------------------------------------------------------------------

    def _last(self):
        """Who had the last word on the scores."""
        return self.source if self.logits_hook is None else "logits_hook"

    def refuse_nan(self, largest, running):
        """Raise if the largest score is NaN in a row that runs: the largest is NaN if any is.

        `largest` is of the rows at work, `running` of all.
        """
        if (largest == largest).all():
            return
        largest = self.spread(largest)
        found = np.flatnonzero(running & (largest != largest))
        if found.size:
            raise ValueError(
                f"{self.where}: {self._last()} must return numbers, got NaN in row {found[0]} "
                f"of {len(largest)}"
            )

    def refuse_dead_ends(self, dead, steps=None):
        """Raise if a sequence cannot go on. dead: (B,) bool."""
        if dead.any():
            early = steps is not None and self.forbids_end(steps)
            raise ValueError(
                f"{self.where}: {self._last()} must allow a token at every step, got scores that "
                f"are all -inf for sequence {dead.argmax()}"
                + (" (but for an end, which min_length forbids)" if early else "")
            )


def _is_one(value):
    """Whether this is one number, or meant to be one, not a list or an array with axes."""
    return not isinstance(value, (list, tuple, range)) and getattr(value, "ndim", 0) == 0


def _wide(scores):
    """Scores in a type that all of NumPy takes: conversion is exact."""
    if scores.dtype.kind in "iu" or scores.dtype.itemsize >= 4:
        return scores
    return scores.astype(np.float32)

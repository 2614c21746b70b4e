"""Batches of sequences of like length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from attnc.arrays import flag, generator, integer, integer_array, number
from attnc.data.checks import listed
from attnc.typing import Array, Integers, Seed

__all__ = ["batches"]


def batches(
    lengths: Integers | Iterable[int],
    size: int | None = None,
    *,
    max_tokens: int | None = None,
    max_padding: float | None = None,
    drop_last: bool = False,
    shuffle: bool = True,
    rng: Seed = None,
) -> Iterator[Array]:
    """Cut a data set into batches of sequences of like length, so that little is padding.

    The sequences are sorted by length and cut where a batch would break one of the bounds given, of
    which `size` or `max_tokens` is one.

    Parameters
    ----------
    lengths : array_like of int, shape (N,)
        The length of each sequence of the data set.
    size : int, optional
        The number of sequences in a batch; the last may be smaller.
    max_tokens : int, optional
        The most that a batch may hold, padding included: its number of sequences times the length
        of its longest. So batches of short sequences are large, and all need about as much memory.
    max_padding : float, optional
        The greatest share of a batch that may be padding, in 0 <= max_padding < 1; so of all
        batches together. 0 puts equal lengths only into a batch. A small share makes small batches
        where lengths are rare.
    drop_last : bool
        Leave out as many sequences as would make a smaller batch, so that all have `size`: drawn at
        random, or without `shuffle` the last of the data set. Only where `size` is the one bound.
    shuffle : bool
        Put the batches, and the sequences of equal length within them, into random order. Without
        it the batches run from the shortest sequences to the longest, always the same.
    rng : None, int or numpy.random.Generator
        Where the order comes from: fresh, a seed, or a generator that moves on with every call.

    Yields
    ------
    rows : ndarray of intp, shape (at most `size`,)
        The positions of one batch in the data set; together the batches hold each position once,
        but for what `drop_last` leaves out.

    Raises
    ------
    TypeError
        If `lengths` or counts are not integers, neither `size` nor `max_tokens` is given,
        `max_padding` is not a number, `drop_last` or `shuffle` not a bool, or `rng` none of those
        named.
    ValueError
        If `size` or `max_tokens` is below 1, or `max_padding` out of range; if `drop_last` is given
        with a bound other than `size`; or if `lengths` has not one axis, or a length is negative or
        more than `max_tokens`.

    Examples
    --------
    >>> [rows.tolist() for rows in batches([9, 2, 8, 3], 2, shuffle=False)]
    [[1, 3], [2, 0]]
    >>> [rows.tolist() for rows in batches([9, 2, 8, 3], max_tokens=12, shuffle=False)]
    [[1, 3], [2], [0]]
    """
    where = "batches"
    lengths = integer_array(where, "lengths", listed(lengths))
    if lengths.ndim != 1:
        raise ValueError(f"batches: lengths must have one axis (N,), got shape {lengths.shape}")
    if lengths.size and lengths.min() < 0:
        raise ValueError(f"batches: lengths must not be negative, got {lengths.min()}")
    if size is None and max_tokens is None:
        raise TypeError(
            "batches: size must be an integer of at least 1, got None (or give max_tokens)"
        )
    if size is not None:
        size = integer(where, "size", size, least=1)
    if max_tokens is not None:
        max_tokens = integer(where, "max_tokens", max_tokens, least=1)
        if lengths.size and lengths.max() > max_tokens:
            raise ValueError(
                f"batches: max_tokens must be at least {lengths.max()}, the greatest length, "
                f"got {max_tokens}"
            )
    if max_padding is not None:
        rule = "lie in 0 <= max_padding < 1"
        max_padding = number(where, "max_padding", max_padding, rule, lambda x: 0 <= x < 1)
    drop_last, shuffle = flag(where, "drop_last", drop_last), flag(where, "shuffle", shuffle)
    if drop_last and (max_tokens is not None or max_padding is not None):
        raise ValueError(
            "batches: drop_last must go with size alone, got max_tokens or max_padding, "
            "whose batches have no common size"
        )
    rng = generator(where, rng)
    return _batches(lengths, size, max_tokens, max_padding, drop_last, rng if shuffle else None)


def _batches(lengths, size, max_tokens, max_padding, drop_last, rng):
    """Yield what `batches` promises; apart, so that its errors come before the first batch."""
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    if drop_last:
        order = order[: len(order) // size * size]
    order = order[np.argsort(lengths[order], kind="stable")]
    if max_tokens is None and max_padding is None:
        starts = np.arange(0, len(order), size)
    else:
        starts = _cuts(lengths[order], size, max_tokens, max_padding)
    ends = np.append(starts[1:], len(order))
    for i in range(len(starts)) if rng is None else rng.permutation(len(starts)):
        yield order[starts[i] : ends[i]]


def _cuts(lengths, size, max_tokens, max_padding):
    """Where batches begin in sorted lengths: each as large as the bounds let it be."""
    starts = []
    count = total = 0
    for i, length in enumerate(lengths.tolist()):
        count, total = count + 1, total + length
        held = count * length  # the batch so far, padded to the longest, which is the last
        if (
            count == 1
            or size is not None and count > size
            or max_tokens is not None and held > max_tokens
            or max_padding is not None and held - total > max_padding * held
        ):  # fmt: skip
            starts.append(i)
            count, total = 1, length
    return np.array(starts, dtype=np.intp)

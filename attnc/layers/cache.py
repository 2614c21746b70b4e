"""Keys and values of tokens that were seen: what decoding token by token need not compute again.

A cache stands outside the layer, which remembers nothing: the caller makes one for each layer and
gives it along, ``layer(x, causal=True, cache=cache)``. `KVCache` is that of one layer, `ModelCache`
those of all layers of a model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..arrays import flag, integer, integer_array, quiet
from ..typing import Array, DType, Integers, Shape
from .heads import AXES

LEAST_CAPACITY = 16  # of the first buffer: small, and still few growths


class State(NamedTuple):
    """What a cache holds; it is replaced as a whole, so that a failed call changes nothing.

    The token at position p of a row has the index p among the keys that attention sees, or p minus
    `dropped` where a window has slid: the positions from keep to keep + dropped - 1 are gone. Index
    0 is at `first` of the third last axis of the buffers.
    """

    keys: Array  # (*lead, heads, capacity, D)
    values: Array
    first: int
    dropped: int
    lengths: int | Array  # tokens of each row (*lead,); an int if they are equal


class Held(NamedTuple):
    """Cached and new keys and values, for one call of attention."""

    keys: Array  # (*lead, heads, Tk, D), a view
    values: Array
    state: State  # what the cache holds if the call succeeds
    overwritten: list[tuple[Array, Array]]  # views of buffers, and what was there: if it fails


class Memory(NamedTuple):
    """The arrays that a cache of cross-attention was made from."""

    key: Any
    value: Any


class KVCache:
    """Keys and values of one attention layer: those of the tokens seen, or those of a memory.

    Self-attention, ``layer(x, causal=True, cache=cache)``: x holds the new tokens, any number of
    them; they attend to those in the cache and to each other, and are then in the cache, too.
    Positions go on from the cache: query i of x is at ``lengths + i``, for `causal`, `window`,
    `slope` and rotary positions. So T calls with one token each give what one call with T does.

    - ``key_lengths`` says how many of the new tokens of each row are valid; the next call goes on
      behind these.
    - ``mask``, ``bias`` and ``key_mask`` cover the cached tokens and then the new ones: their axis
      Tk has ``len(cache) + x.shape[-2]`` entries or 1, also where a window has slid.

    Cross-attention, ``layer(x, memory, cache=cache)``: the first call projects the memory, the
    later ones take its keys and values from the cache. They are given the same memory again or
    none. Its ``key_lengths`` are given with it, once, and kept.

    A cache belongs to the layer that used it first. A call that fails leaves it as it was. There
    are no gradients through it.

    Parameters
    ----------
    max_length : int, optional
        Room for so many tokens is made at once, and a call that needs more raises. Unless given,
        the room doubles when it is full.
    window : int, optional
        Forget all but the last `window` tokens of each row: a query at position p then sees the
        keys ``p - window < j``, as a full call does with a mask that allows these.
    keep : int
        With a window: also keep the first `keep` tokens; Xiao et al. (2024), "Efficient streaming
        language models with attention sinks". Rotary positions stay absolute.
    dtype : dtype, optional
        What to store, such as float16 or bfloat16: half the memory to read, and attention reads it
        in place. The dtype of the layer unless given.

    Raises
    ------
    ValueError
        If a size is out of range, `keep` is given without `window`, or `max_length` with it: a
        window never fills up.
    TypeError
        If a size is not an integer or dtype is none of float16, bfloat16, float32, float64.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.MultiHeadAttention(query_size=8, num_heads=2, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((1, 5, 8))
    >>> cache = attnc.KVCache()
    >>> steps = [layer(x[:, t : t + 1], causal=True, cache=cache) for t in range(5)]
    >>> len(cache)
    5
    >>> np.allclose(np.concatenate(steps, axis=1), layer(x, causal=True), atol=1e-6)
    True
    """

    def __init__(
        self,
        max_length: int | None = None,
        *,
        window: int | None = None,
        keep: int = 0,
        dtype: DType | None = None,
    ) -> None:
        self.max_length = None if max_length is None else _size("max_length", max_length, 1)
        self.window = None if window is None else _size("window", window, 1)
        self.keep = _size("keep", keep, 0)
        if self.window is None and self.keep:
            raise ValueError(f"KVCache: keep must be 0 without window, got {keep}")
        if self.window is not None and self.max_length is not None:
            raise ValueError(
                f"KVCache: max_length must be None with window, which never fills up, got "
                f"{max_length}"
            )
        self.dtype = None if dtype is None else _float(dtype)
        self._layer: Any = None  # the one that used it first
        self._state: Any = None  # a State
        self._memory: Memory | None = None
        self._origin: Array | None = None  # of a memory: which of its rows each row was
        self._overwritten: list[tuple[Array, Array]] = []  # by the last call, as of `Held`

    # ---- What it holds ---------------------------------------------------------------------------

    def __len__(self) -> int:
        """The tokens of the longest row, also those that a window has forgotten."""
        return 0 if self._state is None else _longest(self._state.lengths)

    @property
    def lengths(self) -> Array:
        """ndarray of int: the tokens of each row, with the leading axes of the layer's inputs."""
        if self._state is None:
            return np.zeros((), np.intp)
        lengths = np.asarray(self._state.lengths, np.intp)
        return np.broadcast_to(lengths, self._state.keys.shape[:-3]).copy()

    @property
    def nbytes(self) -> int:
        """int: the memory that it takes, with the room for tokens to come."""
        return 0 if self._state is None else self._state.keys.nbytes + self._state.values.nbytes

    def __repr__(self) -> str:
        """The constructor call that makes a cache like this one (empty)."""
        shown = [] if self.max_length is None else [f"max_length={self.max_length}"]
        if self.window is not None:
            shown += [f"window={self.window}"] + ([f"keep={self.keep}"] if self.keep else [])
        if self.dtype is not None:
            shown.append(f"dtype={self.dtype.name!r}")
        return f"KVCache({', '.join(shown)})"

    # ---- Changes ---------------------------------------------------------------------------------

    def truncate(self, length: Integers) -> None:
        """Forget the tokens from position `length` on; rows that are shorter stay.

        Parameters
        ----------
        length : int or array_like of int
            For all rows, or with the shape of `lengths`.

        Raises
        ------
        TypeError
            If `length` is not an integer.
        ValueError
            If it is negative or its shape does not fit; if a window has forgotten what the next
            token needs, which is so before the start of the last call; if the cache holds a memory.
        """
        length = integer_array("KVCache.truncate", "length", length)
        if length.min(initial=0) < 0:
            raise ValueError(f"KVCache.truncate: length must be 0 or more, got {length.min()}")
        state = self._state
        if state is None:
            return
        if self._memory is not None:
            raise ValueError(
                "KVCache.truncate: cache must hold tokens that were seen, got one of a memory"
            )
        lead = state.keys.shape[:-3]
        if length.ndim and length.shape != lead:
            raise ValueError(
                f"KVCache.truncate: length must be an integer or have shape {lead}, got "
                f"{length.shape}"
            )
        lengths = _same_or_array(np.minimum(state.lengths, length.astype(np.intp)))
        least = self._least_length(state)
        if state.dropped and lengths is not state.lengths and _shortest(lengths) < least:
            raise ValueError(
                f"KVCache.truncate: length must be {least} or more, as the window of "
                f"{self.window} has slid, got {_shortest(lengths)}"
            )
        self._state = state._replace(lengths=lengths)

    def _least_length(self, state):
        """The least length of a row whose next token still finds its whole window."""
        return state.dropped + self.keep + self.window - 1 if state.dropped else 0

    def reorder(self, indices: Integers) -> None:
        """Let row n become what row ``indices[n]`` is: for the survivors of a search with beams.

        Parameters
        ----------
        indices : array_like of int, shape (n,)
            Rows of the first axis. There may be fewer or more than before.

        Raises
        ------
        TypeError
            If `indices` are not integers.
        ValueError
            If they are not a vector or a row is not there; if the cache is of inputs without
            leading axes.
        """
        indices = integer_array("KVCache.reorder", "indices", indices)
        if indices.ndim != 1:
            raise ValueError(f"KVCache.reorder: indices must have shape (n,), got {indices.shape}")
        rows = self._rows("reorder")
        if rows is None:
            return
        if self._memory is not None and rows == 1:  # it broadcasts to whatever rows there are
            return
        if indices.size and not 0 <= indices.min() <= indices.max() < rows:
            raise ValueError(
                f"KVCache.reorder: indices must lie in 0..{rows - 1}, got {indices.min()}.."
                f"{indices.max()}"
            )
        self._take(indices.astype(np.intp))

    def repeat(self, n: int) -> None:
        """Let every row be there `n` times, one after the other: for the beams of a search.

        Parameters
        ----------
        n : int
            1 or more.

        Raises
        ------
        TypeError
            If n is not an integer.
        ValueError
            If it is less than 1; if the cache is of inputs without leading axes.
        """
        n = integer("KVCache.repeat", "n", n, 1)
        rows = self._rows("repeat")
        if rows is not None and not (self._memory is not None and rows == 1):
            self._take(np.repeat(np.arange(rows), n))

    def _rows(self, method):
        """The size of the first axis; None if the cache is empty."""
        if self._state is None:
            return None
        if self._state.keys.ndim == 3:
            raise ValueError(
                f"KVCache.{method}: cache must be of inputs with a leading axis (batch), got one "
                "of a single sequence"
            )
        return len(self._state.keys)

    def _take(self, indices):
        """Take rows of the first axis."""
        state = self._state
        if self._origin is not None:
            origin = self._origin[indices]
            same = np.array_equal(origin, self._origin)
            self._origin, self._memory = origin, Memory(None, None)
            if same:  # beams of one sentence change places: they share its memory
                return
        elif np.array_equal(indices, np.arange(len(state.keys))):
            return
        begin, end = state.first, state.first + len(self) - state.dropped
        lengths = state.lengths
        keys, values = (_taken(x, indices, begin, end) for x in (state.keys, state.values))
        if not isinstance(lengths, int):
            lengths = _same_or_array(lengths[indices])
        self._state = State(keys, values, 0, state.dropped, lengths)

    def copy(self) -> KVCache:
        """A cache with the same content, which goes on by itself.

        Returns
        -------
        KVCache
            Of the same layer.
        """
        twin = object.__new__(KVCache)
        vars(twin).update(vars(self))
        if self._state is not None:
            state = self._state
            keys, values = state.keys, state.values
            if self._memory is None:  # those of a memory are never written to
                begin, end = state.first, state.first + len(self) - state.dropped
                keys, values = (_taken(x, slice(None), begin, end) for x in (keys, values))
                state = state._replace(first=0)
            twin._state = state._replace(keys=keys, values=values)
        return twin

    __copy__ = copy

    def __deepcopy__(self, memo):
        return self.copy()

    # ---- For the layer ---------------------------------------------------------------------------

    def _check_owner(self, layer: Any) -> None:
        """Raise if another layer has used the cache, or it stores what this one cannot compute."""
        if self._layer is not None and self._layer is not layer:
            raise ValueError(
                f"{type(layer).__name__}: cache must be new or of this layer, got one that another "
                f"{type(self._layer).__name__} has used (each layer has a cache of its own)"
            )
        if self.dtype is not None and self.dtype.itemsize > layer.dtype.itemsize:
            raise TypeError(
                f"{type(layer).__name__}: cache must store the layer's {layer.dtype} or less, got "
                f"{self}"
            )

    @property
    def _holds_memory(self) -> bool:
        """bool: whether it holds the keys and values of a memory."""
        return self._memory is not None

    def _extended(self, where: str, keys: Array, values: Array, counts: int | Array) -> Held:
        """What is in the cache, and behind it the first `counts` of the new keys of each row.

        `keys` and `values` are (*lead, heads, n, D). `_hold` what is found, or `_undo` it.
        """
        state = self._state
        if state is None:
            state = self._empty(keys, values)
        else:
            self._check_shape(where, keys, state.keys)
        before, after = state.lengths, _same_or_array(state.lengths + counts)
        longest = _longest(after)
        if self.max_length is not None and longest > self.max_length:
            raise ValueError(
                f"{where}: cache must have room for {longest} tokens, got one of max_length "
                f"{self.max_length} that holds {_longest(before)}"
            )
        dropped, keep = state.dropped, self.keep
        if self.window is not None:  # the next query of a row is at its length
            dropped = max(dropped, _shortest(before) - (self.window - 1) - keep)
        moved, size = dropped - state.dropped, longest - dropped
        first, overwritten = state.first + moved, []
        buffers: Any = state.keys, state.values
        if first + size > state.keys.shape[-2]:
            capacity = self._capacity(state.keys.shape[-2], size)
            begin, end = state.first, state.first + _longest(before) - state.dropped
            pieces = (begin, min(begin + keep, end)), (min(begin + keep + moved, end), end)
            buffers = tuple(_moved(buffer, pieces, capacity) for buffer in buffers)
            first = 0
        elif moved and keep:  # the first keys stand before those of the window
            for buffer in buffers:
                kept = buffer[..., state.first : state.first + keep, :].copy()
                place = buffer[..., first : first + keep, :]
                overwritten.append((place, place.copy()))
                place[...] = kept
        for buffer, x in zip(buffers, (keys, values), strict=True):
            _write(buffer, x, before, counts, first - dropped)
        view = (..., slice(first, first + size), slice(None))
        state = State(buffers[0], buffers[1], first, dropped, after)
        return Held(buffers[0][view], buffers[1][view], state, overwritten)

    def _options_over(
        self, where: str, options: dict[str, Any], n: int, held: Held, heads: int
    ) -> dict[str, Any]:
        """The options of a call for n queries in each row over the keys in `held`.

        `options` are lifted (`heads.lift_options`, with as many axes of heads) and count tokens
        from the first one ever.
        """
        state, options = held.state, dict(options)
        size, dropped, keep = held.keys.shape[-2], state.dropped, self.keep
        for name, axes in AXES.items():
            if axes[-1:] == ("Tk",) and options.get(name) is not None:
                options[name] = _columns(options[name], keep, dropped, size)
        before = by_head(0 if self._state is None else self._state.lengths, heads)
        if counts_positions(where, options):
            options["causal_offset"] = before - dropped
        if not isinstance(state.lengths, int):
            options["key_lengths"] = by_head(state.lengths, heads) - dropped
        if self.window is None:
            return options
        if options.get("center") is not None:
            raise ValueError(
                f"{where}: center must be None with a cache that has a window, which forgets keys"
            )
        left, right = _pair(where, options.get("window"))
        if not keep:
            last = self.window - 1
            options["window"] = (last if left is None else min(left, last), right)
            options["causal_offset"] = before - dropped
            return options
        if options.get("slope") is not None:
            raise ValueError(
                f"{where}: slope must be None with a cache that keeps its first {keep} tokens"
            )
        if size > keep + self.window or left is not None or right is not None:
            index = np.arange(size)
            j = np.where(index < keep, index, index + dropped)
            p = np.asarray(before)[..., None, None] + np.arange(n)[:, None]
            p = p.reshape((1,) * (held.keys.ndim - 3 + heads + 2 - p.ndim) + p.shape)
            shown = (j < keep) | (p - j < self.window)
            shown &= True if left is None else p - j <= left
            shown &= True if right is None else j - p <= right
            mask, options["window"] = options.get("mask"), None
            options["mask"] = shown if mask is None else mask & shown
            if not counts_positions(where, options):
                options.pop("causal_offset", None)
        return options

    def _hold(self, layer: Any, held: Held) -> None:
        """Hold this, and belong to `layer`: after a call that succeeded."""
        self._layer, self._state, self._overwritten = layer, held.state, held.overwritten

    def _undo(self, held: Held) -> None:
        """Hold what was there before `_extended`: after a call that failed."""
        _write_back(held.overwritten)

    def _remember(
        self, layer: Any, memory: Memory, keys: Array, values: Array, lengths: int | Array
    ) -> None:
        """Hold the keys and values of a memory (see `_stored`), and belong to `layer`."""
        self._state = State(keys, values, 0, 0, lengths)
        self._layer, self._memory = layer, memory
        self._origin = np.arange(len(keys)) if keys.ndim > 3 else None

    @quiet
    def _stored(self, x: Array) -> Array:
        """An array as this cache stores it, contiguous."""
        return np.array(x, self.dtype or x.dtype, order="C")

    def _check_room(self, where: str, size: int) -> None:
        """Raise unless the cache can hold a memory of `size` steps."""
        if self.window is not None:
            raise ValueError(f"{where}: cache must have no window for a memory, got {self}")
        if self.max_length is not None and size > self.max_length:
            raise ValueError(
                f"{where}: cache must have room for a memory of {size} steps, got {self}"
            )

    def _check_memory(self, where: str, key: Any, value: Any) -> None:
        """Raise unless this is the memory that the cache holds the keys and values of."""
        assert self._memory is not None
        for name, given, known in (
            ("key", key, self._memory.key),
            ("value", value, self._memory.value),
        ):
            if given is known:
                continue
            if known is None or given is None or not np.array_equal(given, known, equal_nan=True):
                raise ValueError(
                    f"{where}: {name} must be None or the memory that the cache was made with, got "
                    "another (it needs a new cache)"
                )

    def _back_to(self, known):
        """Hold what it held when its attributes were `known`, if one call came since, or none."""
        if self._state is not known["_state"]:
            _write_back(self._overwritten)
        vars(self).update(known)

    # ---- Buffers ---------------------------------------------------------------------------------

    def _empty(self, keys, values):
        dtype = self.dtype or keys.dtype
        keys, values = (np.zeros((*x.shape[:-2], 0, x.shape[-1]), dtype) for x in (keys, values))
        return State(keys, values, 0, 0, 0)

    def _check_shape(self, where, new, held):
        if new.shape[:-3] != held.shape[:-3]:
            raise ValueError(
                f"{where}: query must have the leading axes {held.shape[:-3]} of what the cache "
                f"holds, got {new.shape[:-3]} (cache.reorder and cache.repeat change the rows)"
            )

    def _capacity(self, old, size):
        """That of a new buffer for `size` tokens and those to come."""
        if self.max_length is not None:
            return self.max_length
        doubled = max(2 * old, size, LEAST_CAPACITY)
        if self.window is None:
            return doubled
        # Once it has slid, it slides on for a whole window before it is moved again.
        return min(doubled, size + self.keep + self.window)


class ModelCache:
    """The caches of all attention layers of a model, as one object.

    Parameters
    ----------
    tokens : iterable of KVCache
        Those of self-attention, in the order of the layers.
    memories : iterable of KVCache
        Those of cross-attention, likewise.

    Attributes
    ----------
    tokens, memories : tuple of KVCache

    Examples
    --------
    >>> import attnc
    >>> cache = attnc.layers.cache.ModelCache(attnc.KVCache(window=8) for _ in range(2))
    >>> len(cache), cache.nbytes
    (0, 0)
    """

    def __init__(self, tokens: Iterable[KVCache], memories: Iterable[KVCache] = ()) -> None:
        self.tokens, self.memories = tuple(tokens), tuple(memories)

    def _all(self):
        return *self.tokens, *self.memories

    def __len__(self) -> int:
        """The tokens of the longest row."""
        return max(map(len, self.tokens), default=0)

    @property
    def lengths(self) -> Array:
        """ndarray of int: the tokens of each row."""
        return self.tokens[0].lengths if self.tokens else np.zeros((), np.intp)

    @property
    def nbytes(self) -> int:
        """int: the memory that all of them take."""
        return sum(cache.nbytes for cache in self._all())

    def truncate(self, length: Integers) -> None:
        """`KVCache.truncate` with this `length` of the tokens; memories stay."""
        self._change(self.tokens, lambda cache: cache.truncate(length))

    def reorder(self, indices: Integers) -> None:
        """`KVCache.reorder` with these `indices` of every cache."""
        self._change(self._all(), lambda cache: cache.reorder(indices))

    def repeat(self, n: int) -> None:
        """`KVCache.repeat` with this `n` of every cache."""
        self._change(self._all(), lambda cache: cache.repeat(n))

    def copy(self) -> ModelCache:
        """Caches with the same content, which go on by themselves."""
        return ModelCache(
            [cache.copy() for cache in self.tokens], [cache.copy() for cache in self.memories]
        )

    def __deepcopy__(self, memo):
        return self.copy()

    @contextlib.contextmanager
    def unless_failed(self) -> Iterator[None]:
        """Around a call of the model: after an error no layer has seen its tokens."""
        before = [(cache, vars(cache).copy()) for cache in self._all()]
        try:
            yield
        except BaseException:
            for cache, known in before:
                cache._back_to(known)
            raise

    def _change(self, caches, change):
        with self.unless_failed():
            for cache in caches:
                change(cache)


def refuse_cache(layer: Any, cache: Any) -> None:
    """Raise if there is a cache in a call of `layer` that is to have gradients."""
    if cache is not None:
        raise layer._error("cache must be None for gradients, got one (it holds constants)")


# ---- Lengths -------------------------------------------------------------------------------------


def _size(name, value, least):
    return integer("KVCache", name, value, least)


def _float(dtype):
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        pass
    if getattr(dtype, "name", None) not in ("float16", "bfloat16", "float32", "float64"):
        raise TypeError(
            f"KVCache: dtype must be float16, bfloat16, float32 or float64, got {dtype!r}"
        )
    return dtype


def counts_positions(where: str, options: dict[str, Any]) -> bool:
    """Whether there is an option that a causal_offset goes with."""
    causal = flag(where, "causal", options.get("causal", False))
    window = options.get("window") is not None and options.get("center") is None
    return causal or window or options.get("slope") is not None


def _pair(where, window):
    """The option `window` as two bounds, each None or an integer of at least 0."""
    if window is None:
        return None, None
    if not isinstance(window, (tuple, list)) or len(window) != 2:
        raise ValueError(
            f"{where}: window must be None or a pair (left, right) of integers >= 0 or None, got "
            f"{window!r}"
        )
    left, right = (n if n is None else integer(where, "window", n, 0) for n in window)
    return left, right


def by_head(lengths: int | Array, heads: int) -> int | Array:
    """Numbers of sequences (*lead,) with axes of size 1 for the axes of heads."""
    if isinstance(lengths, int):
        return lengths
    return lengths.reshape(*lengths.shape, *(1,) * heads)


def _longest(lengths):
    return lengths if isinstance(lengths, int) else int(lengths.max(initial=0))


def _shortest(lengths):
    return lengths if isinstance(lengths, int) else int(lengths.min()) if lengths.size else 0


def _same_or_array(lengths):
    """Lengths as an int if they are equal."""
    if isinstance(lengths, int):
        return lengths
    lengths = np.asarray(lengths)
    if lengths.size and lengths.min() == lengths.max():
        return int(lengths.flat[0])
    return lengths if lengths.size else 0


def counts_of(where: str, name: str, counts: Any, lead: Shape, most: int) -> int | Array:
    """`counts` of each row, in 0..most, as an int where they are equal."""
    counts = integer_array(where, name, counts)
    if counts.ndim and (
        counts.ndim != len(lead)
        or any(n not in (1, size) for n, size in zip(counts.shape, lead, strict=True))
    ):
        raise ValueError(
            f"{where}: {name} must have shape {lead} with a cache, each axis of that size or 1, "
            f"got {counts.shape}"
        )
    if counts.size and not 0 <= counts.min() <= counts.max() <= most:
        raise ValueError(
            f"{where}: {name} must lie in 0..{most}, got {counts.min()}..{counts.max()}"
        )
    return _same_or_array(np.broadcast_to(counts.astype(np.intp), lead))


# ---- Buffers -------------------------------------------------------------------------------------


@quiet
def _write(buffer, x, before, counts, shift):
    """Write the first `counts` of the rows of x (*lead, heads, n, D) to `before` + shift on."""
    if isinstance(before, int) and isinstance(counts, int):
        begin = before + shift
        buffer[..., begin : begin + counts, :] = x[..., :counts, :]
        return
    if not x.size:
        return
    lead = buffer.shape[:-3]
    before, counts = (np.broadcast_to(n, lead).reshape(-1) for n in (before, counts))
    row = np.repeat(np.arange(len(counts)), counts)
    time = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    x = x.reshape(-1, *x.shape[-3:])
    flat = buffer.reshape(-1, *buffer.shape[-3:])  # a view: the buffer is contiguous
    flat[row, :, before[row] + shift + time] = x[row, :, time]


def _write_back(overwritten):
    for place, rows in overwritten:
        place[...] = rows


def _moved(buffer, pieces, capacity):
    """A buffer of this capacity that begins with these pieces of another one."""
    new, end = np.zeros((*buffer.shape[:-2], capacity, buffer.shape[-1]), buffer.dtype), 0
    for begin, stop in pieces:
        new[..., end : end + stop - begin, :] = buffer[..., begin:stop, :]
        end += stop - begin
    return new


def _columns(option, keep, dropped, size):
    """The columns (..., Tk) of a mask or bias of all tokens ever that are of the keys held."""
    if option.shape[-1] == 1:
        return option
    if not dropped:
        return option[..., :size]
    return np.concatenate(
        [option[..., :keep], option[..., keep + dropped : size + dropped]], axis=-1
    )


def _taken(buffer, rows, begin, end):
    """A buffer of the same capacity with these rows of another one, from `begin` on."""
    kept = buffer[rows, ..., begin:end, :]
    new = np.zeros((*kept.shape[:-2], *buffer.shape[-2:]), buffer.dtype)
    new[..., : end - begin, :] = kept
    return new

"""What decoding with a Transformer goes on with: the memory, projected, and the tokens so far.

Both hold a `KVCache` of every layer. A memory never changes. A state does not either, though a step
from it appends to its caches in place: `TokenState` says how.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arrays import integer_array
from ..typing import Array
from .cache import KVCache, ModelCache

# GROWING is held for a moment by every step: one lock serves the whole process, as a lock in a
# state could be neither copied nor pickled.
GROWING = threading.Lock()


class TransformerMemory:
    """A memory as `prepare` returns it: its keys and values in every layer, and its mask."""

    def __init__(
        self, decoder: Any, caches: tuple[KVCache, ...], shape: tuple[int, int], key_mask: Any
    ) -> None:
        self.decoder, self.caches, self.shape, self.key_mask = decoder, caches, shape, key_mask
        self.sample = self._sample()

    @property
    def stale(self) -> bool:
        """Whether the parameters that it was made with have changed: a step of an optimiser."""
        return self.sample != self._sample()

    def _sample(self):
        layers = self.decoder._attentions()[1]
        return [
            layer._parameters[name].item(0)
            for layer in layers
            for name in ("key_weight", "value_weight")
        ]

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: Array) -> TransformerMemory:
        """The memories of some sequences of the batch, in this order."""
        caches = tuple(map(copy.copy, self.caches))  # they share their arrays until reordered
        for cache in caches:
            cache.reorder(rows)
        mask = None if self.key_mask is None else self.key_mask[rows]
        taken = TransformerMemory(self.decoder, caches, (len(rows), self.shape[1]), mask)
        taken.sample = self.sample
        return taken


class _Shared:
    """The caches of all layers, which states share, and how often steps have appended to them."""

    def __init__(self, caches: tuple[KVCache, ...], version: int = 0) -> None:
        self.caches, self.version = caches, version


class TokenState:
    """The tokens that each sequence of a batch has seen: their keys and values in every layer.

    States share their caches. A step appends to them if nobody has since this state was made, so
    that a search which goes on from its last state copies nothing; else to a copy of what belongs
    to this state. Either way every state keeps reading what it had.
    """

    def __init__(self, shared: _Shared, version: int, lengths: Array) -> None:
        self._shared, self._version = shared, version
        self.lengths = lengths  # (B,)

    def __len__(self) -> int:
        return len(self.lengths)

    @staticmethod
    def reordered(layer: Any, state: Any, indices: Any) -> TokenState:
        """What `reorder` of a decoder returns: `taken`, after its checks."""
        if not isinstance(state, TokenState):
            raise layer._error(
                f"state must be what step() returned, got {type(state).__name__}", TypeError
            )
        indices = integer_array(type(layer).__name__, "indices", indices)
        B = len(state)
        if indices.ndim != 1 or indices.size and not 0 <= indices.min() <= indices.max() < B:
            raise layer._error(
                f"indices must be sequences in 0..{B - 1}, one after the other, got "
                f"{indices.tolist()}"
            )
        return state.taken(indices.astype(np.intp))

    @classmethod
    def of(cls, layer: Any, state: Any, batch: int) -> TokenState:
        """The state that a step of `layer` got, checked; None is that of who has seen nothing."""
        if state is None:
            return cls(_Shared(layer.new_cache().tokens), 0, np.zeros(batch, np.intp))
        if not isinstance(state, cls):
            raise layer._error(
                f"state must be None or what step() returned, got {type(state).__name__}", TypeError
            )
        if len(state) != batch:
            raise layer._error(
                f"state must be of {batch} sequences, as the input is, got {len(state)}"
            )
        return state

    @contextlib.contextmanager
    def grown(self, counts: Any) -> Iterator[tuple[ModelCache, TokenState]]:
        """Caches to append `counts` tokens of each row to, and the state that then has them."""
        with GROWING:
            shared, mine = self._shared, self._shared.version == self._version
            if mine:
                shared.version += 1
        if not mine:
            cache = self._own().copy()
            shared = _Shared(cache.tokens, self._version + 1)
        cache = ModelCache(shared.caches)
        try:
            with cache.unless_failed():
                yield cache, TokenState(shared, self._version + 1, self.lengths + counts)
        except BaseException:
            with GROWING:
                shared.version -= 1
            raise

    def taken(self, rows: Array) -> TokenState:
        """The state of some sequences of the batch, in this order."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        cache = self._own()
        cache.reorder(rows)
        return TokenState(_Shared(cache.tokens), 0, self.lengths[rows])

    def _own(self):
        """Caches that end where this state does, and share their arrays: not to append to."""
        cache = ModelCache(map(copy.copy, self._shared.caches))
        cache.truncate(self.lengths)
        return cache

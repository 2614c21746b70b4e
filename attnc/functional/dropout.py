"""Dropout of single numbers, alone or added to a residual: what the layers have in common.

``out = residual + keep * y / (1 - rate)`` with keep 0 or 1: Srivastava et al. 2014, "Dropout: a
simple way to prevent neural networks from overfitting". Which numbers are kept is a function of a
key and of their place alone, so backward makes the choice again and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attnc import _core
from attnc.mode import mode
from attnc.typing import Array

__all__: list[str] = []


def dropout_key(rng: np.random.Generator) -> int:
    """The next key of a generator: 64 random bits."""
    return int(rng.integers(2**64, dtype=np.uint64))


def add_dropout(
    residual: Array | None, y: Array, rate: float, rng: np.random.Generator | None
) -> tuple[Array, Callable[[Array], Array]]:
    """``residual + dropout(y)``, a new array, and the way back from its gradient to that of y.

    The gradient of the residual is the incoming one itself. Arrays are C-contiguous, of one dtype
    and shape; without a residual it is dropout alone. Without a rate, or without a generator, as
    outside training, nothing is dropped: the way back then returns what it gets. What is dropped is
    not read.
    """
    if mode.dual is not None:
        return mode.dual.add_dropout(residual, y, rate, rng)
    if not rate or rng is None:
        return _core.add_dropout(residual, y, 0.0, 0), _same
    key = dropout_key(rng)

    def back(dout):
        return _core.add_dropout(None, dout, rate, key)

    return _core.add_dropout(residual, y, rate, key), back


def _same(dout):
    return dout

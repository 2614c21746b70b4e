"""Forward mode through layers: whether calls in this thread carry tangents along.

Where `attnc.jvp` or `attnc.hvp` run a layer, its arrays are dual numbers (`attnc.dual`). NumPy
computes with them, functions in C do not. So what layers call of these asks here first, and hands
dual numbers to `attnc.dual_calls`::

    if mode.dual is not None:
        return mode.dual.product(x, y)

Elsewhere that costs one look, and neither module is imported.
"""

from __future__ import annotations

import threading
from typing import Any

__all__: list[str] = []


class _Mode(threading.local):
    """Of one thread: the module `attnc.dual_calls` in forward mode through layers, else None."""

    dual: Any = None


mode = _Mode()

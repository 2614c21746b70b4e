"""Usual mistakes in the causal mask: off by one, the wrong triangle, the wrong corner."""

from __future__ import annotations

import numpy as np

from attnc.teaching._unfused import Unfused


class _Causal(Unfused):
    needs: tuple[str, ...] = ("causal",)
    moved = 0
    top_left = False

    def read(self, options):
        options = super().read(options)
        if options.get("causal"):
            offset = options.get("causal_offset")
            if offset is None:
                Tq, Tk = self.sizes()
                offset = 0 if self.top_left else Tk - Tq
            options["causal_offset"] = offset + self.moved
        return options


class CausalTopLeft(_Causal):
    """causal is aligned at the first query and key (top left): align it at the last of both \
(bottom right), query i at position i + Tk - Tq"""

    top_left = True


class CausalWithoutItself(_Causal):
    """causal is off by one: a query must also see the key of its own position, j <= p not j < p"""

    moved = -1


class CausalSeesNext(_Causal):
    """causal is off by one: a query sees the key after its own position, j <= p + 1 not j <= p"""

    moved = 1


class _OtherTriangle(_Causal):
    strict = False

    def allowed(self):
        if not self.option("causal"):
            return super().allowed()
        Tq, Tk = self.sizes()
        offset = np.asarray(self.option("causal_offset"))
        behind = np.arange(Tk) - np.arange(Tq)[:, None] - offset[..., None, None]
        self.options["causal"] = False
        allowed = super().allowed() & (behind > 0 if self.strict else behind >= 0)
        self.options["causal"] = True
        return allowed


class CausalInverted(_OtherTriangle):
    """causal is inverted: each query sees the later keys, it must see the earlier ones"""


class OnlyLaterKeys(_OtherTriangle):
    """causal is inverted: each query sees the keys after its position alone, the triangle of what \
must be hidden"""

    strict = True


class CausalTransposed(Unfused):
    """causal is transposed: query i is the row, key j the column, and j <= i"""

    needs = ("causal",)

    def allowed(self):
        if not self.option("causal"):
            return super().allowed()
        Tq, Tk = self.sizes()
        self.options["causal"] = False
        allowed = super().allowed() & (np.arange(Tq)[:, None] <= np.arange(Tk))
        self.options["causal"] = True
        return allowed


def _top_left(mistake):
    """The same mistake from the wrong corner, as ``np.tril(x, -1)`` makes it."""
    text = f"{mistake.__doc__}; and {CausalTopLeft.__doc__}"
    return type(f"{mistake.__name__}TopLeft", (CausalTopLeft, mistake), {"__doc__": text})


_OFF = [CausalWithoutItself, CausalSeesNext, CausalInverted, OnlyLaterKeys]

MISTAKES: list[type[Unfused]] = [
    CausalTopLeft,
    *_OFF,
    CausalTransposed,
    *[_top_left(mistake) for mistake in _OFF[:2]],
    _top_left(OnlyLaterKeys),
]

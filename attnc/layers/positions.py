"""Positions: what tells a layer that sees all steps at once in which order they came."""

from __future__ import annotations

import functools
import math

import numpy as np

from ..arrays import flag, generator, integer_array, like, number, quiet, sum_rows
from ..gradients import Gradients, require_incoming
from ..typing import Array, DType, Integers, Real, Seed
from .base import Layer, positive
from .embedding import sum_by_token


class _Positions(Layer):
    """What both have in common. A subclass writes ``_forward(x, offset)``."""

    size: int

    def __call__(self, x: Real, *, offset: Integers = 0, train: bool = False) -> Array:
        """x with the encoding of its position added to every step.

        Parameters
        ----------
        x : array_like, shape (..., T, size)
        offset : int or array_like of int, shape (B,)
            The position of the first step; with an array, for each of the B sequences of an x of
            shape (B, T, size). So decoding goes on where the steps before ended.
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (..., T, size)

        Raises
        ------
        TypeError
            If x is not real or offset not of integers.
        ValueError
            If a shape does not fit, or there is no such position.
        """
        return self._vjp(x, offset=offset, train=train)[0]

    @quiet
    def _vjp(self, x, *, offset=0, train=False):
        where = type(self).__name__
        flag(where, "train", train)
        given, x = x, self._real("x", x, ..., "T", self.size)
        y, back = self._forward(x, self._offset(offset, x))

        @quiet
        def pullback(dy=None):
            require_incoming(where, dy=dy)
            dy = self._real("dy", dy, *x.shape)
            back(dy)
            dx = like(dy, given)
            return Gradients({"x": dx.copy() if np.may_share_memory(dx, dy) else dx})

        return y, pullback

    def _offset(self, offset, x):
        """An int, or an array (B,) for x (B, T, size)."""
        array = integer_array(type(self).__name__, "offset", offset)
        if array.ndim == 0:
            return int(array)
        if x.ndim != 3 or array.shape != x.shape[:1]:
            batch = f"({len(x)},), one for each sequence" if x.ndim == 3 else "()"
            raise self._error(
                f"offset must have shape {batch}, as x has {x.shape}, got {array.shape}"
            )
        return array.astype(np.intp)


class SinusoidalPositions(_Positions):
    """Adds sines and cosines of the position: nothing is learned, and no length is too long.

    ``y_p = x_p + e_p`` with ``e_p,2i = sin(p / base^(2i / size))`` and ``e_p,2i+1 = cos(p /
    base^(2i / size))``: Vaswani et al. 2017, "Attention is all you need", section 3.5. The encoding
    of a fixed distance away is a linear function of that of p. In the paper x, embeddings, is
    multiplied by sqrt(size) before.

    Parameters
    ----------
    size : int
        Size of the last axis; where it is odd, the last number is a sine without its cosine.
    base : float
        Above 1. The wavelengths go from 2 pi to 2 pi base.
    dtype : float32 or float64
        Of the output; encodings are computed in float64.

    Raises
    ------
    ValueError
        If size is not a positive integer or base not above 1.
    TypeError
        If dtype is neither float32 nor float64, or base not a number.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> positions = attnc.SinusoidalPositions(4)
    >>> positions(np.zeros((2, 4))).round(3)
    array([[0.   , 1.   , 0.   , 1.   ],
           [0.841, 0.54 , 0.01 , 1.   ]], dtype=float32)
    >>> positions(np.zeros((1, 4)), offset=1).round(3)
    array([[0.841, 0.54 , 0.01 , 1.   ]], dtype=float32)
    """

    def __init__(self, size: int, *, base: float = 10000.0, dtype: DType = "float32") -> None:
        super().__init__(dtype)
        (self.size,) = positive(self, size=size)
        self.base = number(
            type(self).__name__, "base", base, "be above 1", lambda b: 1 < b < math.inf
        )

    def _forward(self, x, offset=0):
        """y, and the way back from dy to dx, which is dy itself.

        For layers made with this one, which have checked x and offset.
        """
        steps = x.shape[-2]
        if isinstance(offset, int):
            return x + self._encodings(offset, offset + steps), _itself
        first = int(offset.min(initial=0))
        table = self._encodings(first, int(offset.max(initial=0)) + steps)
        return x + table[offset[:, None] - first + np.arange(steps)], _itself

    def _encodings(self, start, stop):
        """Those of positions [start, stop)."""
        length = max(64, 1 << max(stop - 1, 0).bit_length())
        if start < 0 or length * self.size > _KEPT:
            positions = np.arange(start, stop, dtype=np.float64)
            return _sinusoids(positions, self.size, self.base).astype(self.dtype)
        return _table(length, self.size, self.base, np.dtype(self.dtype))[start:stop]


# Numbers of a table that is kept from call to call, for lengths that are powers of two.
_KEPT = 1 << 22


@functools.lru_cache(maxsize=8)
def _table(length, size, base, dtype):
    table = _sinusoids(np.arange(length, dtype=np.float64), size, base).astype(dtype)
    table.flags.writeable = False
    return table


def _sinusoids(positions, size, base):
    angles = positions[:, None] * base ** (-np.arange(0, size, 2) / size)
    encodings = np.empty((len(positions), size))
    encodings[:, 0::2] = np.sin(angles)
    encodings[:, 1::2] = np.cos(angles[:, : size // 2])
    return encodings


def _itself(dy):
    return dy


class LearnedPositions(_Positions):
    """Adds a learned vector for each position: ``y_p = x_p + W_p``.

    Gehring et al. 2017, "Convolutional sequence to sequence learning", section 3.1; as in BERT
    (Devlin et al. 2019).

    Parameters
    ----------
    max_length : int
        Number of positions; a longer sequence raises.
    size : int
        Size of the last axis.
    rng : None, int or numpy.random.Generator
        Initial W, normal with standard deviation 0.02, as in BERT.
    dtype : float32 or float64
        Of the table and the output.

    Attributes
    ----------
    parameters : dict
        ``weight (max_length, size)``.

    Raises
    ------
    ValueError
        If a size is not a positive integer.
    TypeError
        If dtype is neither float32 nor float64, or rng of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> positions = attnc.LearnedPositions(8, 4, rng=0)
    >>> x = np.zeros((2, 3, 4), np.float32)
    >>> np.array_equal(positions(x, offset=5)[0], positions.parameters["weight"][5:])
    True
    """

    def __init__(
        self, max_length: int, size: int, *, rng: Seed = None, dtype: DType = "float32"
    ) -> None:
        super().__init__(dtype)
        self.max_length, self.size = positive(self, max_length=max_length, size=size)
        rng = generator(type(self).__name__, rng)
        self.add_parameter("weight", rng.normal(0, 0.02, (self.max_length, self.size)))

    def _forward(self, x, offset=0):
        """y, and the way back from dy to dx, which is dy itself; it adds the gradient of W.

        For layers made with this one, which have checked x and offset.
        """
        weight, steps = self._parameters["weight"], x.shape[-2]
        offsets = np.asarray(offset)
        first, last = int(offsets.min(initial=0)), int(offsets.max(initial=0)) + steps
        if first < 0 or last > self.max_length:
            raise self._error(
                f"x must have positions in 0..{self.max_length - 1}, got {first}..{last - 1} (make "
                f"the layer with max_length={last}, or cut the sequence)"
                if first >= 0
                else f"offset must be 0 or more, got {first}"
            )
        places = offsets[..., None] + np.arange(steps)  # (T,) or (B, T)

        def back(dy):
            if not self._frozen["weight"].value:
                if places.ndim == 1:
                    rows, sums = places, sum_rows(dy.reshape(-1, steps, self.size))
                else:
                    rows, sums = sum_by_token(places.reshape(-1), dy.reshape(-1, self.size))
                self.add_gradient("weight", sums, rows=rows)
            return dy

        return x + weight[places], back

"""ImageRegions and FeatureMap: the pixels of a feature map as vectors to attend to, and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import flag, like, quiet
from ..gradients import Gradients, require_incoming
from ..typing import Array, DType, Real
from .base import Layer, positive


class ImageRegions(Layer):
    """The pixels of a feature map, row by row, as vectors: the memory of attention over an image.

    ``r[W i + j] = x[:, i, j]``: the annotation vectors of Xu et al. 2015, "Show, attend and tell".
    `FeatureMap` is the way back. A row of weights of such a memory is a picture in the shape
    (H, W).

    Parameters
    ----------
    dtype : float32 or float64
        The input is cast to it.

    Raises
    ------
    TypeError
        If dtype is neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> features = attnc.Convolution2d(1, 16, 3, stride=2, rng=0)
    >>> model = attnc.Sequential(features, attnc.ImageRegions(), attnc.SelfAttention(16, rng=0))
    >>> model(np.ones((2, 1, 9, 9))).shape
    (2, 16, 16)
    """

    def __init__(self, *, dtype: DType = "float32") -> None:
        super().__init__(dtype)

    def __call__(self, x: Real, *, train: bool = False) -> Array:
        """Pixels as vectors.

        Parameters
        ----------
        x : array_like, shape (..., C, H, W)
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (..., H * W, C)

        Raises
        ------
        TypeError
            If x is not real.
        ValueError
            If x has fewer axes.
        """
        return self._vjp(x, train=train)[0]

    @quiet
    def _vjp(self, x, *, train=False):
        flag(type(self).__name__, "train", train)
        given, x = x, self._real("x", x, ..., "C", "H", "W")
        size = x.shape[-2:]
        return _turned(self, given, _vectors(x), lambda dy: _pixels(dy, size))


class FeatureMap(Layer):
    """Vectors as the pixels of a feature map, row by row: the inverse of `ImageRegions`.

    ``y[:, i, j] = x[W i + j]``, so that convolution may follow attention over an image, as in
    Zhang et al. 2019, "Self-attention generative adversarial networks".

    Parameters
    ----------
    height, width : int
        Of the map, (H, W).
    dtype : float32 or float64
        The input is cast to it.

    Raises
    ------
    ValueError
        If a size is not a positive integer.
    TypeError
        If dtype is neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> x = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    >>> np.array_equal(attnc.FeatureMap(4, 5)(attnc.ImageRegions()(x)), x)
    True
    """

    def __init__(self, height: int, width: int, *, dtype: DType = "float32") -> None:
        super().__init__(dtype)
        self.height, self.width = positive(self, height=height, width=width)

    def __call__(self, x: Real, *, train: bool = False) -> Array:
        """Vectors as pixels.

        Parameters
        ----------
        x : array_like, shape (..., H * W, C)
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (..., C, H, W)

        Raises
        ------
        TypeError
            If x is not real.
        ValueError
            If x has another number of vectors.
        """
        return self._vjp(x, train=train)[0]

    @quiet
    def _vjp(self, x, *, train=False):
        flag(type(self).__name__, "train", train)
        size = self.height, self.width
        given, x = x, self._real("x", x, ..., math.prod(size), "C")
        return _turned(self, given, _pixels(x, size), _vectors)


def _vectors(x):
    """(..., C, H, W) as (..., H W, C), a copy."""
    *leading, height, width = x.shape
    return x.reshape(*leading, height * width).swapaxes(-1, -2).copy()


def _pixels(x, size):
    """(..., H W, C) as (..., C, H, W), a copy."""
    *leading, _, channels = x.shape
    return x.swapaxes(-1, -2).copy().reshape(*leading, channels, *size)


def _turned(
    layer: Layer, given: Any, y: Array, back: Callable[[Array], Array]
) -> tuple[Array, Callable[..., Gradients]]:
    """The output, and a pullback that goes this way back."""
    where, shape = type(layer).__name__, np.shape(y)

    @quiet
    def pullback(dy=None):
        require_incoming(where, dy=dy)
        return Gradients({"x": like(back(layer._real("dy", dy, *shape)), given)})

    return y, pullback

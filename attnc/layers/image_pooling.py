"""MaxPool2d and AveragePool2d: every window of an image as one pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import flag, like, quiet
from ..gradients import Gradients, require_incoming
from ..typing import Array, DType, Real
from .base import Layer
from .windows import Sides, count_windows, pair, sides, window_views


class _Pool2d(Layer):
    """What both have in common. A subclass says in `_pool` what it makes of a window."""

    # From views of the same pixel of all windows: y, and the gradient of each of them from dy.
    _pool: Callable[[list[Array]], tuple[Array, Callable[[Array], Any]]]

    def __init__(
        self, kernel_size: Sides, *, stride: Sides | None = None, dtype: DType = "float32"
    ) -> None:
        super().__init__(dtype)
        self.kernel_size = sides(self, "kernel_size", kernel_size, 1)
        self.stride = None if stride is None else sides(self, "stride", stride, 1)

    def __call__(self, x: Real, *, train: bool = False) -> Array:
        """Pool images.

        Parameters
        ----------
        x : array_like, shape (..., H, W)
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (..., rows, columns)
            rows is ``(H - kh) // stride + 1``, and columns likewise.

        Raises
        ------
        TypeError
            If x is not real.
        ValueError
            If the images are smaller than a window.
        """
        return self._vjp(x, train=train)[0]

    @quiet
    def _vjp(self, x, *, train=False):
        where = type(self).__name__
        flag(where, "train", train)
        given, x = x, self._real("x", x, ..., "H", "W")
        kernel = pair(self.kernel_size)
        stride = kernel if self.stride is None else pair(self.stride)
        windows = kernel, stride, count_windows(self, x.shape[-2:], kernel, stride)
        y, back = self._pool(list(window_views(x, *windows)))
        whole, shape = x.shape, y.shape

        @quiet
        def pullback(dy=None):
            require_incoming(where, dy=dy)
            dy = self._real("dy", dy, *shape)
            dx = np.zeros_like(dy, shape=whole)
            for view, d in zip(window_views(dx, *windows), back(dy), strict=True):
                view += d
            return Gradients({"x": like(dx, given)})

        return y, pullback


class MaxPool2d(_Pool2d):
    """Max pooling: of each window of pixels the largest.

    ``y[i, j] = max over m, n of x[s i + m, s j + n]`` with the stride s, of each channel by itself:
    Ranzato et al. 2007, "Unsupervised learning of invariant feature hierarchies"; the same function
    as `torch.nn.MaxPool2d`. Of equal pixels the first one, row by row, takes the gradient. A NaN is
    larger than all numbers.

    Parameters
    ----------
    kernel_size : int or pair of int
        Rows and columns of a window.
    stride : int or pair of int, optional
        How far a window is from the next. Default: `kernel_size`, so that none overlap.
    dtype : float32 or float64
        The input is cast to it.

    Raises
    ------
    ValueError
        If `kernel_size` or `stride` is neither a positive integer nor a pair of them.
    TypeError
        If dtype is neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.MaxPool2d(2)(np.arange(16.0).reshape(4, 4))
    array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """

    def _pool(self, views):
        y = views[0].copy()
        place = np.zeros(y.shape, np.min_scalar_type(len(views) - 1))
        for n, view in enumerate(views[1:], 1):
            larger = (view > y) | np.isnan(view)
            y = np.where(larger, view, y)
            place[larger] = n
        return y, lambda dy: (np.where(place == n, dy, 0) for n in range(len(views)))


class AveragePool2d(_Pool2d):
    """Average pooling: of each window of pixels the mean.

    ``y[i, j] = mean over m, n of x[s i + m, s j + n]`` with the stride s, of each channel by
    itself: LeCun et al. 1989, "Handwritten digit recognition with a back-propagation network"; the
    same function as `torch.nn.AvgPool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
        Rows and columns of a window.
    stride : int or pair of int, optional
        How far a window is from the next. Default: `kernel_size`, so that none overlap.
    dtype : float32 or float64
        The input is cast to it.

    Raises
    ------
    ValueError
        If `kernel_size` or `stride` is neither a positive integer nor a pair of them.
    TypeError
        If dtype is neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.AveragePool2d(2)(np.arange(16.0).reshape(4, 4))
    array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """

    def _pool(self, views):
        size = math.prod(pair(self.kernel_size))
        y = views[0].copy()
        for view in views[1:]:
            y += view
        y /= size

        def back(dy):
            share = dy / size
            return (share for _ in views)

        return y, back

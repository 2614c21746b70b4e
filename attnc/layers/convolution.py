"""Convolution2d: every window of an image as a sum of its pixels with learned weights."""

from __future__ import annotations

import math

import numpy as np

from ..arrays import contiguous, flag, generator, like, quiet
from ..gradients import Gradients, require_incoming
from ..typing import Array, DType, Real, Seed
from .base import glorot, positive
from .linear import product, weight_gradient
from .torch_weights import TorchArray, TorchWeights, flat
from .windows import Sides, count_windows, pair, sides, window_views


class Convolution2d(TorchWeights):
    """Convolution of images: the same weights for every window of pixels.

    ``y[o, i, j] = b[o] + sum over c, m, n of W[o, c, m, n] x[c, s i + m, s j + n]`` with the stride
    s and x padded by zeros: LeCun et al. 1989, "Backpropagation applied to handwritten zip code
    recognition"; the same function as `torch.nn.Conv2d`. It takes one matrix product, of W with the
    windows side by side; these are kept for backward, and hold every pixel ``kh kw / s^2`` times.

    Parameters
    ----------
    input_channels, output_channels : int
        Channels of x and y.
    kernel_size : int or pair of int
        Rows and columns of a window, (kh, kw).
    stride : int or pair of int
        How far a window is from the next. Default 1.
    padding : int or pair of int
        How many rows of zeros are above and below an image, and how many columns beside it.
        Default 0.
    bias : bool
        Whether b is there. Default True.
    rng : None, int or numpy.random.Generator
        Initial W, uniform after Glorot and Bengio (2010) for the map of a window to its outputs; b
        starts at zero.
    dtype : float32 or float64
        Of the parameters and the output.

    Attributes
    ----------
    parameters : dict
        ``weight (output_channels, input_channels, kh, kw)`` and, with a bias,
        ``bias (output_channels,)``.

    Raises
    ------
    ValueError
        If a size is not a positive integer, or, of `kernel_size`, `stride` and `padding`, a pair.
    TypeError
        If dtype is neither float32 nor float64, bias not a bool, or rng of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.Convolution2d(3, 8, 3, padding=1, rng=0)
    >>> y, pullback = attnc.vjp(layer, np.ones((2, 3, 28, 28)))
    >>> y.shape
    (2, 8, 28, 28)
    >>> (dx,) = pullback(np.ones_like(y))  # and adds into layer.gradients
    """

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        kernel_size: Sides,
        *,
        stride: Sides = 1,
        padding: Sides = 0,
        bias: bool = True,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        where = type(self).__name__
        self.input_channels, self.output_channels = positive(
            self, input_channels=input_channels, output_channels=output_channels
        )
        self.kernel_size = sides(self, "kernel_size", kernel_size, 1)
        self.stride = sides(self, "stride", stride, 1)
        self.padding = sides(self, "padding", padding, 0)
        self.bias = flag(where, "bias", bias)
        window = (*pair(self.kernel_size), self.input_channels)
        weight = glorot(generator(where, rng), math.prod(window), self.output_channels)
        weight = weight.reshape(*window, self.output_channels).transpose(3, 2, 0, 1)
        self.add_parameter("weight", np.ascontiguousarray(weight))
        if self.bias:
            self.add_parameter("bias", np.zeros(self.output_channels))

    def __call__(self, x: Real, *, train: bool = False) -> Array:
        """Convolve images.

        Parameters
        ----------
        x : array_like, shape (..., input_channels, H, W)
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (..., output_channels, rows, columns)
            rows is ``(H + 2 padding - kh) // stride + 1``, and columns likewise.

        Raises
        ------
        TypeError
            If x is not real.
        ValueError
            If x has other channels, or images that are smaller than a window.
        """
        return self._vjp(x, train=train)[0]

    @quiet
    def _vjp(self, x, *, train=False):
        where = type(self).__name__
        flag(where, "train", train)
        given, x = x, self._real("x", x, ..., self.input_channels, "H", "W")
        y, back = self._forward(x)
        shape = y.shape

        @quiet
        def pullback(dy=None):
            require_incoming(where, dy=dy)
            return Gradients({"x": like(back(self._real("dy", dy, *shape)), given)})

        return y, pullback

    def _forward(self, x):
        """y, and the way back from dy to dx, which adds the gradients of the parameters."""
        *leading, channels, height, width = shape = x.shape
        outputs, count = self.output_channels, math.prod(leading)
        kernel, stride, padding = map(pair, (self.kernel_size, self.stride, self.padding))
        rows, columns = count_windows(self, (height, width), kernel, stride, padding)
        weight = self._parameters["weight"].reshape(outputs, -1)
        # With the channels first, images lie side by side: all of them are in one product.
        x = x.reshape(count, channels, height, width).swapaxes(0, 1)
        windows, windows_back = _side_by_side(x, kernel, stride, padding, (rows, columns))
        y = product(weight, windows)
        if self.bias:
            y += self._parameters["bias"][:, None]
        y = contiguous(y.reshape(outputs, count, rows, columns).swapaxes(0, 1), self.dtype)

        def back(dy):
            dy = dy.reshape(count, outputs, rows, columns).swapaxes(0, 1)
            dy = contiguous(dy, self.dtype).reshape(outputs, count * rows * columns)
            if self.bias:
                self.add_gradient("bias", dy.sum(axis=1))
            if not self._frozen["weight"].value:
                dweight = weight_gradient(windows.T, dy.T).T
                self.add_gradient("weight", dweight.reshape(outputs, channels, *kernel))
            dx = windows_back(product(weight.T, dy)).swapaxes(0, 1)
            return contiguous(dx, self.dtype).reshape(shape)

        return y.reshape(*leading, outputs, rows, columns), back

    def _torch_arrays(self) -> dict[str, TorchArray]:
        weight = self._parameters["weight"]
        arrays = {"weight": TorchArray(weight.shape, (weight,))}
        return arrays | ({"bias": flat(self._parameters["bias"])} if self.bias else {})


def _side_by_side(x, kernel, stride, padding, windows):
    """Each of so many windows of x (C, B, H, W) as a column (C kh kw), and the way back to dx."""
    channels, count, height, width = x.shape
    (above, beside), size = padding, math.prod(kernel)
    inside = ..., slice(above, above + height), slice(beside, beside + width)
    whole = channels, count, height + 2 * above, width + 2 * beside
    apart = channels, size, count, *windows  # the axes of rows and columns of the matrix
    matrix = channels * size, count * math.prod(windows)

    padded = np.zeros_like(x, shape=whole)
    padded[inside] = x
    found = np.empty_like(x, shape=apart)
    for n, view in enumerate(window_views(padded, kernel, stride, windows)):
        found[:, n] = view

    def back(dfound):
        dfound = dfound.reshape(apart)
        dpadded = np.zeros_like(dfound, shape=whole)
        for n, view in enumerate(window_views(dpadded, kernel, stride, windows)):
            view += dfound[:, n]
        return dpadded[inside]

    return found.reshape(matrix), back

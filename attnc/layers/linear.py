"""Linear: the affine map."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..arrays import all_finite, flag, generator, like, quiet, reached, sum_rows
from ..gradients import Gradients, require_incoming
from ..mode import mode
from ..typing import Array, DType, Real, Seed
from .base import glorot, positive
from .torch_weights import TorchArray, TorchWeights, flat, transposed


class Linear(TorchWeights):
    """Affine map of the last axis: ``y = x W + b``.

    Parameters
    ----------
    input_size, output_size : int
        Sizes of the last axis of x and y.
    bias : bool
        Whether b is there. Default True.
    rng : None, int or numpy.random.Generator
        Initial W, uniform after Glorot and Bengio (2010); b starts at zero.
    dtype : float32 or float64
        Of the parameters and the output.

    Attributes
    ----------
    parameters : dict
        ``weight (input_size, output_size)`` and, with a bias, ``bias (output_size,)``.

    Raises
    ------
    ValueError
        If a size is not a positive integer.
    TypeError
        If dtype is neither float32 nor float64, bias not a bool, or rng of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.Linear(input_size=3, output_size=2, rng=0)
    >>> y, pullback = attnc.vjp(layer, np.ones((4, 5, 3)))
    >>> y.shape
    (4, 5, 2)
    >>> (dx,) = pullback(np.ones_like(y))  # and adds into layer.gradients
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        *,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        sizes = positive(self, input_size=input_size, output_size=output_size)
        self.input_size, self.output_size = sizes
        self.bias = flag(type(self).__name__, "bias", bias)
        self.add_parameter("weight", glorot(generator(type(self).__name__, rng), *sizes))
        if self.bias:
            self.add_parameter("bias", np.zeros(output_size))

    def __call__(self, x: Real, *, train: bool = False) -> Array:
        """Map the last axis.

        Parameters
        ----------
        x : array_like, shape (..., input_size)
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (..., output_size)

        Raises
        ------
        ValueError
            If the last axis of x is not input_size.
        """
        return self._vjp(x, train=train)[0]

    @quiet
    def _vjp(self, x, *, train=False):
        flag(type(self).__name__, "train", train)
        given, x = x, self._real("x", x, ..., self.input_size)
        y, back = self._forward(x)
        shape = y.shape

        @quiet
        def pullback(dy=None):
            require_incoming(type(self).__name__, dy=dy)
            return Gradients({"x": like(back(self._real("dy", dy, *shape)), given)})

        return y, pullback

    def _forward(self, x):
        """y, and the way back from dy to dx, which adds the gradients of the parameters.

        For layers made with this one, which have checked x: it is as `_real` returns it.
        """
        y, product_back = self._product(x)
        if self.bias:
            y += self._parameters["bias"]

        def back(dy):
            dbias = sum_rows(dy.reshape(-1, self.output_size)) if self.bias else None
            return product_back(dy, dbias)

        return y, back

    def _product(self, x):
        """y without the bias, and the way back from dy and the bias's own gradient to dx.

        For layers that add the bias together with what comes after it.
        """
        shape, weight = x.shape, self._parameters["weight"]
        rows = x.reshape(-1, self.input_size)  # one product, whatever the leading axes
        y = product(rows, weight).reshape(*shape[:-1], self.output_size)

        def back(dy, dbias=None):
            dy = dy.reshape(-1, self.output_size)
            if not self._frozen["weight"].value:
                self.add_gradient("weight", weight_gradient(rows, dy))
            if dbias is not None:
                self.add_gradient("bias", dbias)
            return product(dy, weight.T).reshape(shape)

        return y, back

    def _torch_arrays(self) -> dict[str, TorchArray]:
        arrays = {"weight": transposed(self._parameters["weight"])}
        return arrays | ({"bias": flat(self._parameters["bias"])} if self.bias else {})


def product(x, y):
    """The matrix product x y."""
    return _core.product(x, y) if mode.dual is None else mode.dual.product(x, y)


def weight_gradient(x, dy):
    """x^T dy; a row of x that no gradient reaches, as of padding, is not read."""
    found = product(x.T, dy)
    if all_finite(found):
        return found
    read = np.where(reached(dy).any(axis=1, keepdims=True), x, x.dtype.type(0))
    return product(read.T, dy)

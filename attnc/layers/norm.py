"""LayerNorm and RMSNorm: the size of each row, then a learned scale of each feature."""

from __future__ import annotations

import numpy as np

from ..arrays import flag, like, quiet
from ..functional.norm import check_epsilon, normalize, normalize_backward
from ..gradients import Gradients, require_incoming
from ..typing import Array, DType, Real
from .base import positive
from .torch_weights import TorchArray, TorchWeights, flat


class _Norm(TorchWeights):
    """What both have in common. A subclass says in `_center` whether the mean is taken away."""

    _center: bool
    size: int
    epsilon: float

    def __call__(self, x: Real, *, train: bool = False) -> Array:
        """Normalise the last axis.

        Parameters
        ----------
        x : array_like, shape (..., size)
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (..., size)

        Raises
        ------
        TypeError
            If x is not real.
        ValueError
            If the last axis of x is not size.
        """
        return self._vjp(x, train=train)[0]

    def _vjp(self, x, *, train=False):
        where = type(self).__name__
        flag(where, "train", train)
        given, x = x, self._real("x", x, ..., self.size)
        y, back = self._forward(x)

        @quiet
        def pullback(dy=None):
            require_incoming(where, dy=dy)
            return Gradients({"x": like(back(self._real("dy", dy, *x.shape)), given)})

        return y, pullback

    def _forward(self, x):
        """y, and the way back from dy to dx, which adds the gradients of the parameters.

        For layers made with this one, which have checked x: it is as `_real` returns it.
        """
        weight, bias = (self._parameters.get(name) for name in ("weight", "bias"))
        y, saved = normalize(x, weight, bias, self.epsilon, self._center)

        def back(dy):
            learned = [name for name in self._parameters if not self._frozen[name].value]
            dx, dweight, dbias = normalize_backward(saved, dy, sums=bool(learned))
            for name, gradient in (("weight", dweight), ("bias", dbias)):
                if name in learned:
                    self.add_gradient(name, gradient)
            return dx

        return y, back

    def _torch_arrays(self) -> dict[str, TorchArray]:
        return {name: flat(parameter) for name, parameter in self._parameters.items()}


class LayerNorm(_Norm):
    """Layer normalisation: each row has mean 0 and variance 1, then a learned scale and shift.

    ``y = (x - mean) / sqrt(var + epsilon) * weight + bias`` over the last axis: Ba, Kiros and
    Hinton 2016, "Layer normalization"; the same function as `torch.nn.LayerNorm`.

    Parameters
    ----------
    size : int
        Size of the last axis.
    epsilon : float
        Above 0: what a row without variance is divided by is its root. Default 1e-5.
    bias : bool
        Whether the shift is there. Default True.
    dtype : float32 or float64
        Of the parameters and the output.

    Attributes
    ----------
    parameters : dict
        ``weight (size,)``, ones at first, and, with a bias, ``bias (size,)``, zeros.

    Raises
    ------
    ValueError
        If size is not a positive integer or epsilon not above 0.
    TypeError
        If dtype is neither float32 nor float64, bias not a bool, or epsilon not a number.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.LayerNorm(2)(np.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    _center = True

    def __init__(
        self, size: int, *, epsilon: float = 1e-5, bias: bool = True, dtype: DType = "float32"
    ) -> None:
        super().__init__(dtype)
        (self.size,) = positive(self, size=size)
        self.epsilon = check_epsilon(type(self).__name__, epsilon)
        self.bias = flag(type(self).__name__, "bias", bias)
        self.add_parameter("weight", np.ones(self.size))
        if self.bias:
            self.add_parameter("bias", np.zeros(self.size))


class RMSNorm(_Norm):
    """Root mean square normalisation: each row has a mean square of 1, then a learned scale.

    ``y = x / sqrt(mean of x^2 + epsilon) * weight`` over the last axis: Zhang and Sennrich 2019,
    "Root mean square layer normalization"; the same function as `torch.nn.RMSNorm`.

    Parameters
    ----------
    size : int
        Size of the last axis.
    epsilon : float
        Above 0: what a row of zeros is divided by is its root. Default 1e-6.
    dtype : float32 or float64
        Of the parameters and the output.

    Attributes
    ----------
    parameters : dict
        ``weight (size,)``, ones at first.

    Raises
    ------
    ValueError
        If size is not a positive integer or epsilon not above 0.
    TypeError
        If dtype is neither float32 nor float64, or epsilon not a number.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attnc.RMSNorm(2)(np.array([[3.0, 4.0]])).round(3)
    array([[0.849, 1.131]], dtype=float32)
    """

    _center = False

    def __init__(self, size: int, *, epsilon: float = 1e-6, dtype: DType = "float32") -> None:
        super().__init__(dtype)
        (self.size,) = positive(self, size=size)
        self.epsilon = check_epsilon(type(self).__name__, epsilon)
        self.add_parameter("weight", np.ones(self.size))

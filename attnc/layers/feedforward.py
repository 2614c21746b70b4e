"""FeedForward: two affine maps with an activation between them."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ..arrays import flag, generator, like, probability, quiet
from ..functional.activation import activate, activate_backward
from ..functional.dropout import dropout_key
from ..functional.options import nearest
from ..gradients import Gradients, require_incoming
from ..typing import Array, DType, Real, Seed
from .base import Layer, positive
from .linear import Linear

Activation: TypeAlias = Literal["relu", "gelu", "gelu_tanh", "swiglu"]

# The activation of `functional.activation` that each stands for.
_KINDS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_tanh", "swiglu": "silu"}


class FeedForward(Layer):
    """The position-wise feed-forward network: ``y = dropout(act(x W1 + b1)) W2 + b2``.

    Vaswani et al. 2017, "Attention is all you need", section 3.3, with ReLU. With
    ``activation="swiglu"`` it is ``y = dropout(silu(x Wg + bg) * (x Wu + bu)) W2 + b2``: Shazeer
    2020, "GLU variants improve Transformer".

    Parameters
    ----------
    size : int
        Size of the last axis of x.
    hidden_size : int
        Size between the maps: 4 size in Vaswani et al.; for swiglu two thirds of that make as many
        parameters.
    activation : str
        ``"relu"``, ``"gelu"`` (by the error function), ``"gelu_tanh"`` or ``"swiglu"``; see
        `attnc.functional`.
    bias : bool
        Whether the maps have a bias. Default True.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping what the activation gives when called with
        ``train=True``.
    output_size : int, optional
        Size of the last axis of y; `size` unless given.
    rng : None, int or numpy.random.Generator
        Initial weights, uniform after Glorot and Bengio (2010); biases start at zero.
    dtype : float32 or float64
        Of the parameters and the output.

    Attributes
    ----------
    hidden : Linear
        x W1 + b1; of swiglu x Wg + bg, what the sigmoid takes.
    up : Linear or None
        x Wu + bu, of swiglu.
    output : Linear
        The second map.

    Raises
    ------
    ValueError
        If a size is not a positive integer, dropout is out of range, or there is no such
        activation.
    TypeError
        If dtype is neither float32 nor float64, bias not a bool, dropout not a number, or rng of a
        wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.FeedForward(4, 16, activation="gelu", rng=0)
    >>> y, pullback = attnc.vjp(layer, np.ones((2, 3, 4)))
    >>> (dx,) = pullback(np.ones_like(y))  # and adds into layer.gradients
    >>> y.shape, list(layer.parameters)
    ((2, 3, 4), ['hidden.weight', 'hidden.bias', 'output.weight', 'output.bias'])
    """

    def __init__(
        self,
        size: int,
        hidden_size: int,
        *,
        activation: Activation = "relu",
        bias: bool = True,
        dropout: float = 0.0,
        output_size: int | None = None,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        where = type(self).__name__
        self.size, self.hidden_size = positive(self, size=size, hidden_size=hidden_size)
        (self.output_size,) = positive(
            self, output_size=self.size if output_size is None else output_size
        )
        if activation not in _KINDS:
            names = ", ".join(map(repr, _KINDS))
            fix = nearest(activation, _KINDS) if isinstance(activation, str) else ""
            raise self._error(f"activation must be one of {names}, got {activation!r}{fix}")
        self.activation = activation
        self.bias = flag(where, "bias", bias)
        self.dropout = probability(where, "dropout", dropout)
        rng = generator(where, rng)

        def linear(rows, columns):
            return Linear(rows, columns, self.bias, rng=rng, dtype=self.dtype)

        self.hidden = linear(self.size, self.hidden_size)
        self.up = linear(self.size, self.hidden_size) if activation == "swiglu" else None
        self.output = linear(self.hidden_size, self.output_size)

    def __call__(self, x: Real, *, train: bool = False, rng: Seed = None) -> Array:
        """Map the last axis.

        Parameters
        ----------
        x : array_like, shape (..., size)
        train : bool
            Whether to drop any.
        rng : None, int or numpy.random.Generator
            Which.

        Returns
        -------
        ndarray, shape (..., output_size)

        Raises
        ------
        TypeError
            If x is not real, train not a bool, or rng of a wrong kind.
        ValueError
            If the last axis of x is not size.
        """
        return self._vjp(x, train=train, rng=rng)[0]

    @quiet
    def _vjp(self, x, *, train=False, rng=None):
        where, given = type(self).__name__, x
        rng = generator(where, rng) if flag(where, "train", train) else None
        x = self._real("x", x, ..., self.size)
        y, back = self._forward(x, rng)
        shape = y.shape

        @quiet
        def pullback(dy=None):
            require_incoming(where, dy=dy)
            return Gradients({"x": like(back(self._real("dy", dy, *shape)), given)})

        return y, pullback

    def _forward(self, x, rng=None):
        """y, and the way back from dy to dx, which adds the gradients of the parameters.

        For layers made with this one, which have checked x: it is as `_real` returns it. A
        generator in training, None outside.
        """
        kind = _KINDS[self.activation]
        dropout, key = 0.0, 0
        if self.dropout and rng is not None:
            dropout, key = self.dropout, dropout_key(rng)
        h, hidden_back = self.hidden._product(x)
        up, up_back = (None, None) if self.up is None else self.up._product(x)
        bias = self.hidden._parameters.get("bias")
        up_bias = None if self.up is None else self.up._parameters.get("bias")
        a = activate(kind, h, up, bias, up_bias, dropout, key)
        y, output_back = self.output._forward(a)

        def back(dy):
            da = output_back(dy)
            dh, dup, *dbiases = activate_backward(kind, da, h, up, dropout, key, sums=self.bias)
            dx = hidden_back(dh, dbiases[0])
            if up_back is not None:
                dx += up_back(dup, dbiases[1])
            return dx

        return y, back

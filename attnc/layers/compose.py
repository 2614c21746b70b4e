"""Layers made of layers: one after the other, beside the identity; and dropout between them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from ..arrays import contiguous, flag, generator, is_array, like, probability, quiet
from ..functional.dropout import add_dropout
from ..gradients import Gradients, require_incoming, vjp
from ..typing import Array, Real, Seed
from .base import Layer


def call_options(layer: Layer, train: bool, rng: Any) -> dict[str, Any]:
    """Those of `train` and `rng` that a layer takes: `rng` is for layers that drop something."""
    taken = inspect.signature(layer._vjp).parameters
    given = {"train": train, "rng": rng}
    return {name: value for name, value in given.items() if name in taken}


def _one_generator(where: str, train: bool, rng: Any) -> Any:
    """The generator that all layers of a call draw from: no two of them drop the same places."""
    return generator(where, rng) if flag(where, "train", train) else None


def _array_of(where: str, layer: Layer, output: Any) -> np.ndarray:
    if is_array(output):
        return output
    raise TypeError(
        f"{where}: layers must return one array, got {type(output).__name__} from {layer!r} "
        "(call it by itself, and go on with what you need of it)"
    )


class Sequential(Layer):
    """Layers one after the other: ``f_n(... f_2(f_1(x)))``.

    Parameters
    ----------
    *layers : Layer
        Each takes one array and returns one.

    Attributes
    ----------
    layers : list of Layer
        Their parameters are called ``layers.0.weight`` and so on.

    Raises
    ------
    TypeError
        If one is no layer.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> model = attnc.Sequential(attnc.Linear(4, 8, rng=0), attnc.Dropout(0.1), attnc.Linear(8, 2))
    >>> y, pullback = attnc.vjp(model, np.ones((3, 4)), train=True, rng=0)
    >>> (dx,) = pullback(np.ones_like(y))  # and adds into model.gradients
    >>> y.shape, dx.shape
    ((3, 2), (3, 4))
    """

    def __init__(self, *layers: Layer) -> None:
        for layer in layers:
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential: layers must be layers, got {type(layer).__name__}")
        super().__init__(layers[0].dtype if layers else "float32")
        self.layers = list(layers)

    def __call__(self, x: Real, *, train: bool = False, rng: Seed = None) -> Any:
        """The output of the last layer.

        Parameters
        ----------
        x : array_like
            What the first layer takes.
        train : bool
            Passed to every layer.
        rng : None, int or numpy.random.Generator
            For the dropout of all layers: one generator, from which each draws in turn.

        Returns
        -------
        ndarray

        Raises
        ------
        TypeError, ValueError
            As the layers do; if one returns more than an array.
        """
        return self._vjp(x, train=train, rng=rng)[0]

    def _vjp(self, x, *, train=False, rng=None):
        where = type(self).__name__
        rng = _one_generator(where, train, rng)
        y, back = x, []
        for layer in self.layers:
            y, one = vjp(layer, y, **call_options(layer, train, rng))
            y = _array_of(where, layer, y)
            back.append(one)
        if not self.layers:
            y = self._real("x", x, ...).copy()

        def pullback(dy=None):
            require_incoming(where, dy=dy)
            for pullback in reversed(back):
                found = tuple(pullback(dy))
                dy = found[0] if found else None  # tokens have no gradient
            return Gradients({} if dy is None else {"x": dy})

        return y, pullback


class Residual(Layer):
    """A layer beside the identity: ``x + f(x)`` (He et al. 2016, "Deep residual learning").

    Parameters
    ----------
    layer : Layer
        Returns an array of the shape of its input.

    Raises
    ------
    TypeError
        If `layer` is no layer.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.Residual(attnc.Linear(4, 4, rng=0))
    >>> x = np.ones((2, 4), np.float32)
    >>> np.allclose(layer(x), x + layer.layer(x))
    True
    """

    def __init__(self, layer: Layer) -> None:
        if not isinstance(layer, Layer):
            raise TypeError(f"Residual: layer must be a layer, got {type(layer).__name__}")
        super().__init__(layer.dtype)
        self.layer = layer

    def __call__(self, x: Real, *, train: bool = False, rng: Seed = None) -> Any:
        """The sum of x and what the layer makes of it.

        Parameters
        ----------
        x : array_like
            What the layer takes.
        train : bool
            Passed to the layer.
        rng : None, int or numpy.random.Generator
            For its dropout.

        Returns
        -------
        ndarray

        Raises
        ------
        TypeError, ValueError
            As the layer does; if its output has not the shape of x.
        """
        return self._vjp(x, train=train, rng=rng)[0]

    @quiet
    def _vjp(self, x, *, train=False, rng=None):
        where, given = type(self).__name__, x
        x = self._real("x", x, ...)
        y, back = vjp(self.layer, x, **call_options(self.layer, train, rng))
        y = _array_of(where, self.layer, y)
        if y.shape != x.shape:
            raise self._error(f"layer must keep the shape of x, {x.shape}, got {y.shape}")

        @quiet
        def pullback(dy=None):
            require_incoming(where, dy=dy)
            dy = self._real("dy", dy, *x.shape)
            dx, _ = add_dropout(dy, contiguous(back(dy).x, self.dtype), 0.0, None)
            return Gradients({"x": like(dx, given)})

        return add_dropout(x, contiguous(y, self.dtype), 0.0, None)[0], pullback

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.layer!r})"


class Dropout(Layer):
    """Some numbers become 0 in training, the others are scaled up.

    ``y = keep * x / (1 - rate)``, with ``keep`` 0 or 1: Srivastava et al. 2014, "Dropout: a simple
    way to prevent neural networks from overfitting", in the form that changes nothing at test time.
    Which are dropped depends on `rng` and on the place of a number alone, not on the number of
    threads, the instruction set or the dtype; backward makes the choice again and stores nothing.

    Parameters
    ----------
    rate : float
        Probability, in 0 <= rate < 1, of dropping a number when called with ``train=True``.
    dtype : float32 or float64
        The input is cast to it.

    Raises
    ------
    ValueError
        If rate is out of range.
    TypeError
        If rate is not a number, or dtype neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> dropout = attnc.Dropout(0.5)
    >>> dropout(np.ones(4, np.float32), train=True, rng=1)
    array([2., 2., 2., 0.], dtype=float32)
    """

    def __init__(self, rate: float, *, dtype: Any = "float32") -> None:
        super().__init__(dtype)
        self.rate = probability(type(self).__name__, "rate", rate)

    def __call__(self, x: Real, *, train: bool = False, rng: Seed = None) -> Array:
        """x, with some of its numbers dropped in training.

        Parameters
        ----------
        x : array_like, any shape
        train : bool
            Whether to drop any.
        rng : None, int or numpy.random.Generator
            Which.

        Returns
        -------
        ndarray, of the shape of x

        Raises
        ------
        TypeError
            If x is not real.
        """
        return self._vjp(x, train=train, rng=rng)[0]

    @quiet
    def _vjp(self, x, *, train=False, rng=None):
        where, given = type(self).__name__, x
        rng = generator(where, rng) if flag(where, "train", train) else None
        x = self._real("x", x, ...)
        y, back = add_dropout(None, x, self.rate, rng)

        @quiet
        def pullback(dy=None):
            require_incoming(where, dy=dy)
            dx = like(back(self._real("dy", dy, *x.shape)), given)
            return Gradients({"x": dx.copy() if dx is dy else dx})

        return y, pullback

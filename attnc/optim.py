"""Optimisers: they change the parameters of layers in place, by the gradients found there."""

import math

import numpy as np

from .layers.base import Layer, copy_arrays

__all__ = ["Adam", "SGD", "clip_gradients"]


def _pairs(where, layers):
    """{name: (parameter, gradient)} of a layer, or of several with their number before the name."""
    if isinstance(layers, Layer):
        layers = {"": layers}
    else:
        layers = {f"{index}.": layer for index, layer in enumerate(layers)}
    for layer in layers.values():
        if not isinstance(layer, Layer):
            raise TypeError(
                f"{where}: layers must be a Layer or several, got {type(layer).__name__}"
            )
    return {
        prefix + name: (parameter, layer_gradients[name])
        for prefix, layer in layers.items()
        for layer_gradients in [layer.gradients]
        for name, parameter in layer.parameters.items()
    }


# Numbers of a block: five such arrays are 640 KB in float32, less than a second-level cache has.
_BLOCK = 32768


def _blocks(*arrays):
    """Rows of arrays of one shape, a block at a time.

    What is done to a block again and again finds it in the cache, where whole arrays would come
    from memory each time.
    """
    arrays = [np.atleast_1d(array) for array in arrays]
    first = arrays[0]
    rows = max(1, _BLOCK * len(first) // max(first.size, 1))
    for start in range(0, len(first), rows):
        yield [array[start : start + rows] for array in arrays]


class _Optimizer:
    """What optimisers share: the parameters, and a state that can be saved.

    A subclass names the arrays it keeps for each parameter in `_kept` and writes
    ``_update(parameter, gradient, *kept)``, which changes some rows of them in place.
    """

    _kept = ()

    def __init__(self, layers, learning_rate):
        name = type(self).__name__
        if not learning_rate >= 0:
            raise ValueError(f"{name}: learning_rate must be 0 or more, got {learning_rate}")
        self.learning_rate = learning_rate
        self.steps = 0
        self._pairs = _pairs(name, layers)
        self._state = {
            f"{kind}.{name}": np.zeros_like(parameter)
            for kind in self._kept
            for name, (parameter, _) in self._pairs.items()
        }

    def step(self):
        """Change every parameter by its gradient."""
        self.steps += 1
        for name, (parameter, gradient) in self._pairs.items():
            kept = (self._state[f"{kind}.{name}"] for kind in self._kept)
            for block in _blocks(parameter, gradient, *kept):
                self._update(*block)

    def zero_grad(self):
        """Set every gradient to zero."""
        for _, gradient in self._pairs.values():
            gradient.fill(0)

    def state_dict(self):
        """Copies of all that the optimiser remembers, as arrays by name.

        Returns
        -------
        dict of str to ndarray
        """
        return {
            "steps": np.array(self.steps),
            **{name: array.copy() for name, array in self._state.items()},
        }

    def load_state_dict(self, state):
        """Continue from `state`, what `state_dict` returned.

        Raises
        ------
        ValueError
            If names are missing or unexpected or shapes differ; the optimiser is then unchanged.
        """
        steps = np.array(self.steps)
        arrays = {"steps": steps, **self._state}
        copy_arrays(f"{type(self).__name__}.load_state_dict", arrays, state)
        self.steps = int(steps)


class SGD(_Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    ``v = momentum * v + g;  p = p - learning_rate * v`` (Polyak 1964).

    Parameters
    ----------
    layers : Layer or iterable of Layer
    learning_rate : float
        Also an attribute, which may be changed between steps.
    momentum : float
        In 0 <= momentum < 1; 0 is plain gradient descent.

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If layers holds anything but layers.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> model = attnc.Linear(2, 1, rng=0)
    >>> x, wanted = np.array([[1.0, 2.0]]), np.array([[3.0]])
    >>> optimizer = attnc.optim.SGD(model, learning_rate=0.1)
    >>> for step in range(50):
    ...     y, pullback = attnc.vjp(model, x)
    ...     optimizer.zero_grad()
    ...     dx = pullback(y - wanted)  # adds into model.gradients
    ...     optimizer.step()
    >>> model(x).round(3)
    array([[3.]], dtype=float32)
    """

    def __init__(self, layers, learning_rate, momentum=0.0):
        if not 0 <= momentum < 1:
            raise ValueError(f"SGD: momentum must lie in 0 <= momentum < 1, got {momentum}")
        self.momentum = momentum
        self._kept = ("velocity",) if momentum else ()
        super().__init__(layers, learning_rate)

    def _update(self, parameter, gradient, velocity=None):
        if velocity is not None:
            velocity *= self.momentum
            velocity += gradient
            gradient = velocity
        parameter -= self.learning_rate * gradient


class Adam(_Optimizer):
    """Adam: Kingma and Ba (2015), "Adam: a method for stochastic optimization", algorithm 1.

    ::

        m = beta1 * m + (1 - beta1) * g          v = beta2 * v + (1 - beta2) * g^2
        p = p - learning_rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    Parameters
    ----------
    layers : Layer or iterable of Layer
    learning_rate : float
        Also an attribute, which may be changed between steps. Default 0.001, as in the paper.
    betas : pair of float
        (beta1, beta2), each in 0 <= beta < 1.
    epsilon : float
        Above 0.

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If layers holds anything but layers.
    """

    _kept = ("m", "v")

    def __init__(self, layers, learning_rate=0.001, betas=(0.9, 0.999), epsilon=1e-8):
        if not all(0 <= beta < 1 for beta in betas) or len(betas) != 2:
            raise ValueError(f"Adam: betas must be a pair in 0 <= beta < 1, got {betas}")
        if not epsilon > 0:
            raise ValueError(f"Adam: epsilon must be above 0, got {epsilon}")
        self.betas = betas
        self.epsilon = epsilon
        super().__init__(layers, learning_rate)

    def _update(self, parameter, gradient, m, v):
        beta1, beta2 = self.betas
        # both corrections leave the loop over the numbers: the paper, end of section 2
        correction = math.sqrt(1 - beta2**self.steps)
        rate = self.learning_rate * correction / (1 - beta1**self.steps)
        scratch = np.multiply(gradient, 1 - beta1, out=np.empty_like(gradient))
        m *= beta1
        m += scratch
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1 - beta2
        v *= beta2
        v += scratch
        np.sqrt(v, out=scratch)
        scratch += self.epsilon * correction
        np.divide(m, scratch, out=scratch)
        scratch *= rate
        parameter -= scratch


def clip_gradients(layers, max_norm):
    """Scale all gradients so that their common norm is at most `max_norm`.

    Pascanu, Mikolov and Bengio (2013), "On the difficulty of training recurrent neural networks",
    algorithm 1.

    Parameters
    ----------
    layers : Layer or iterable of Layer
    max_norm : float
        Above 0.

    Returns
    -------
    float
        The Euclidean norm of all gradients together, before scaling.

    Raises
    ------
    FloatingPointError
        If a gradient is NaN or infinite: it is named, and no gradient is changed.
    ValueError
        If max_norm is not above 0.
    TypeError
        If layers holds anything but layers.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_gradients: max_norm must be above 0, got {max_norm}")
    pairs = _pairs("clip_gradients", layers)
    norm = _norm([gradient for _, gradient in pairs.values()])
    if not math.isfinite(norm):
        name = next(name for name, (_, g) in pairs.items() if not np.isfinite(g).all())
        raise FloatingPointError(
            f"clip_gradients: gradients must be finite, got {name} with NaN or inf"
        )
    if norm > max_norm:
        for _, gradient in pairs.values():
            gradient *= max_norm / norm
    return norm


def _norm(arrays):
    """The Euclidean norm of all numbers; in float64 where their squares need its range."""
    for dtype in (None, np.float64):
        with np.errstate(over="ignore"):
            squares = sum(
                float(np.einsum("i,i", block, block, dtype=dtype))
                for array in arrays
                for (block,) in _blocks(array.reshape(-1))
            )
        if 1e-20 < squares < math.inf:
            break
    return math.sqrt(squares)

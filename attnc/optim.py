"""Optimisers: they change the parameters of layers in place, by the gradients found there.

And what is done to gradients before a step, and to parameters after it.

A parameter that is there twice, under two names or in two layers, is changed once, by its one
gradient. One that is frozen, under any of its names (`Layer.freeze`), is left alone. Pullbacks of
other threads should have ended before a step or `clip_gradients`.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import _core
from .arrays import contiguous, integer, number, quiet
from .layers.base import ADDING, Layer, fitting
from .layers.named import WrongKind, distinct, fit_state, in_memory_order, place, write
from .typing import Array, Real

__all__ = ["Adam", "AdamW", "ExponentialAverage", "SGD", "clip_gradients", "scale_gradients"]


def _several(where, layers):
    """{what names begin with: layer} of a layer, or of several, which are numbered."""
    if isinstance(layers, Layer):
        return {"": layers}
    try:
        if isinstance(layers, (set, frozenset, dict)):
            raise TypeError
        layers = list(layers)
    except TypeError:
        raise TypeError(
            f"{where}: layers must be a Layer or several in order, got {type(layers).__name__}"
        ) from None
    for layer in layers:
        if not isinstance(layer, Layer):
            raise TypeError(
                f"{where}: layers must be a Layer or several, got {type(layer).__name__}"
            )
    return {f"{index}.": layer for index, layer in enumerate(layers)}


def _entries(layers):
    """(name, parameter, gradient, whether it is frozen) of every name."""
    return [
        (prefix + name, owner._parameters[own], owner._gradients[own], owner._frozen[own])
        for prefix, layer in layers.items()
        for name, (owner, own) in layer._owners().items()
    ]


def _distinct(where, entries):
    """{name: (parameter, gradient)}, each once, and {name: what says that it is frozen}."""
    frozen: dict[Any, list[Any]] = {}
    for _, parameter, _, each in entries:
        frozen.setdefault(place(parameter), []).append(each)
    pairs = distinct(where, [entry[:3] for entry in entries])
    return pairs, {name: frozen[place(pair[0])] for name, pair in pairs.items()}


def _trained(pairs, frozen):
    """Those of `pairs` that are not frozen under any of their names."""
    return {
        name: pair for name, pair in pairs.items() if not any(each.value for each in frozen[name])
    }


# ---- A block at a time ---------------------------------------------------------------------------

# Numbers of a block: several arrays of it, in float32 half a megabyte each, are less than a
# third-level cache has.
_BLOCK = 131072


def _blocks(*given):
    """Rows of arrays of one shape, a block at a time, in the order in which the first lies.

    What is done to a block again and again finds it in the cache, where whole arrays would come
    from memory each time.
    """
    arrays, first = list(given), given[0]
    if first.size <= _BLOCK:
        if first.size:
            yield arrays
        return
    if not all(array.flags.c_contiguous for array in arrays):
        arrays = [in_memory_order(first, array) for array in arrays]
    if all(array.flags.c_contiguous for array in arrays):
        arrays = [array.reshape(-1) for array in arrays]
    rows = max(1, _BLOCK * len(arrays[0]) // first.size)
    for start in range(0, len(arrays[0]), rows):
        yield [array[start : start + rows] for array in arrays]


def _squares(array):
    """The sum of squares, each of them in the array's dtype: it may overflow, or vanish."""
    return _core.sum_of_squares(_in_one_piece(array, array))


def _in_one_piece(first, array):
    """The array in the order in which the first lies, or a copy where that is not one piece."""
    if first.flags.c_contiguous and array.flags.c_contiguous:  # as nearly all are
        return array
    return contiguous(in_memory_order(first, array), array.dtype)


def _largest(array):
    """The largest magnitude; NaN where a number is NaN."""
    return max((float(max(block.max(), -block.min())) for (block,) in _blocks(array)), default=0.0)


def _check_gradient(where, name, gradient, limit=math.inf):
    """Raise if a magnitude in the gradient `name` is not below `limit`."""
    if _squares(gradient) < limit * limit:  # a quick look: then none is larger
        return
    if not np.isfinite(gradient).all():
        raise FloatingPointError(f"{where}: gradients must be finite, got {name} with NaN or inf")
    largest = _largest(gradient)
    if not largest < limit:
        raise FloatingPointError(
            f"{where}: gradients must lie below {limit:.2g}, got {name} with {largest:.2g} "
            "(attnc.optim.clip_gradients makes them smaller)"
        )


# ---- Optimisers ----------------------------------------------------------------------------------


class _Optimizer:
    """What optimisers share: the parameters, and a state that can be saved.

    A subclass names the arrays it keeps for each parameter in `_kept` and checks its numbers in
    `_check`. It says in `_limit` how large gradients may be, given the largest float, computes in
    `_factors` what a step needs only once for a parameter, given its name and the steps that it has
    made, and writes ``_update(factors, parameter, gradient, *kept)``, which changes them in place.

    The layers are searched at every step, so that a copy of an optimiser, deep or pickled, changes
    the copies of its layers, and what is frozen may change.
    """

    _kept: tuple[str, ...] = ()
    _limit: Callable[[float], float]
    _factors: Callable[[str, int], Any]
    _update: Callable[..., None]

    def __init__(self, layers: Layer | Iterable[Layer], learning_rate: float) -> None:
        where = type(self).__name__
        self._layers = _several(where, layers)
        self.learning_rate = learning_rate
        self.steps = 0
        self._missed: dict[str, int] = {}  # steps of a parameter while it was frozen
        pairs, _ = self._pairs()
        if not pairs:
            raise ValueError(f"{where}: layers must have parameters, got none")
        self._made_with = {name: (p.shape, p.dtype) for name, (p, _) in pairs.items()}
        self._check()
        self._state = {
            f"{kind}.{name}": np.zeros_like(parameter)
            for kind in self._kept
            for name, (parameter, _) in pairs.items()
        }

    def _pairs(self):
        """{name: (parameter, gradient)}, each once, and {name: what says that it is frozen}."""
        entries = _entries(self._layers)
        found = [part for _, *parts in entries for part in parts]
        known, result = vars(self).get("_known", ((), ({}, {})))
        if len(known) != len(found) or not all(map(operator.is_, known, found)):
            result = _distinct(type(self).__name__, entries)
            self._known = found, result
        return result

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_known"}

    def _check(self):
        """Check the numbers, which may be changed between steps."""
        where = type(self).__name__
        rate = number(
            where, "learning_rate", self.learning_rate, "be 0 or more", lambda rate: rate >= 0
        )
        largest = float(np.finfo(np.float32).max)
        rule = f"be {largest:.2g} or less"
        self.learning_rate = number(
            where, "learning_rate", rate, rule, lambda rate: rate <= largest
        )

    @quiet
    def step(self) -> None:
        """Change every parameter by its gradient.

        Raises
        ------
        FloatingPointError
            If a gradient is NaN, infinite, or too large for what the optimiser keeps of it: it is
            named, and nothing is changed.
        TypeError, ValueError
            If the learning rate or another number has become one that the constructor refuses, or
            the layers have got other parameters since.
        """
        where = f"{type(self).__name__}.step"
        self._check()
        pairs, frozen = self._pairs()
        now = {name: (p.shape, p.dtype) for name, (p, _) in pairs.items()}
        if now != self._made_with:
            names = [n for n in now | self._made_with if now.get(n) != self._made_with.get(n)]
            raise ValueError(
                f"{where}: layers must have the parameters that the optimiser was made with, "
                f"got changes of {', '.join(names)} (make a new optimiser)"
            )
        trained = _trained(pairs, frozen)
        for name, (_, gradient) in trained.items():
            limit = self._limit(float(np.finfo(gradient.dtype).max))
            _check_gradient(where, name, gradient, limit)
        self.steps += 1
        for name in pairs.keys() - trained.keys():
            self._missed[name] = self._missed.get(name, 0) + 1
        for name, pair in trained.items():
            factors = self._factors(name, self.steps - self._missed.get(name, 0))
            self._update(factors, *pair, *(self._state[f"{kind}.{name}"] for kind in self._kept))

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        pairs, _ = self._pairs()
        with ADDING:
            for _, gradient in pairs.values():
                gradient.fill(0)

    def state_dict(self) -> dict[str, Array]:
        """Copies of all that the optimiser remembers, as arrays by name.

        A parameter with several names is there under the first. ``missed.<name>`` counts the steps
        that a parameter did not make because it was frozen.

        Returns
        -------
        dict of str to ndarray
        """
        return {
            "steps": np.array(self.steps),
            **{name: array.copy() for name, array in self._state.items()},
            **{f"missed.{name}": np.array(count) for name, count in self._missed.items()},
        }

    def load_state_dict(self, state: Mapping[str, Real]) -> None:
        """Continue from `state`, what `state_dict` returned.

        Raises
        ------
        TypeError
            If `state` is no mapping.
        ValueError
            If names are missing or unexpected, shapes differ, or a value is none that `state_dict`
            returns, such as 3.5 steps; the optimiser is then unchanged.
        """
        where = f"{type(self).__name__}.load_state_dict"
        counts = {"steps": np.array(self.steps)}
        if isinstance(state, Mapping):  # what was never frozen has missed nothing
            known = {f"missed.{name}" for name in self._made_with}
            counts |= {name: np.array(0) for name in known.intersection(state)}
        values = fit_state(where, {**counts, **self._state}, state)
        values = {name: values[name] for name in self._state}
        try:
            steps = integer(where, "steps", np.asarray(state["steps"])[()], 0)
            missed = {
                name.removeprefix("missed."): integer(
                    where, name, np.asarray(state[name])[()], 0, steps
                )
                for name in counts
                if name != "steps"
            }
        except (TypeError, ValueError) as error:
            raise WrongKind(str(error)) from None
        self._check_state(where, values)
        write(self._state, values, where)
        self.steps, self._missed = steps, missed

    def _check_state(self, where, values):
        """Raise for values that no step leaves."""


class SGD(_Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    ``v = momentum * v + g;  p = p - learning_rate * v`` (Polyak 1964).

    Parameters
    ----------
    layers : Layer or iterable of Layer
    learning_rate : float
        Also an attribute, which may be changed between steps, such as by `attnc.schedules`.
    momentum : float
        In 0 <= momentum < 1; 0 is plain gradient descent.

    Raises
    ------
    ValueError
        If a number is out of range, the layers have no parameters, or share arrays but in part.
    TypeError
        If layers holds anything but layers, or a number is of a wrong kind.

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

    def __init__(
        self, layers: Layer | Iterable[Layer], learning_rate: float, momentum: float = 0.0
    ) -> None:
        self.momentum = momentum
        self._check_momentum()
        self._kept = ("velocity",) if self.momentum else ()
        super().__init__(layers, learning_rate)

    def _check_momentum(self):
        where, rule = type(self).__name__, "lie in 0 <= momentum < 1"
        self.momentum = number(where, "momentum", self.momentum, rule, lambda m: 0 <= m < 1)

    def _check(self):
        super()._check()
        self._check_momentum()
        if self.momentum and not self._kept:
            raise ValueError(
                f"{type(self).__name__}: momentum must stay 0 where it was 0 at first, got "
                f"{self.momentum} (make a new optimiser)"
            )

    def _limit(self, largest):
        # The velocity, a sum of gradients, stays finite.
        return largest * (1 - self.momentum) / 2 if self._kept else math.inf

    def _factors(self, name, steps):
        return None

    def _update(self, factors, *arrays):
        for parameter, gradient, *velocity in _blocks(*arrays):
            for v in velocity:
                v *= self.momentum
                v += gradient
                gradient = v
            parameter -= gradient * self.learning_rate


class Adam(_Optimizer):
    """Adam: Kingma and Ba (2015), "Adam: a method for stochastic optimization", algorithm 1.

    ::

        m = beta1 * m + (1 - beta1) * g          v = beta2 * v + (1 - beta2) * g^2
        p = p - learning_rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    Parameters
    ----------
    layers : Layer or iterable of Layer
    learning_rate : float
        Also an attribute, which may be changed between steps, such as by `attnc.schedules`. Default
        0.001, as in the paper.
    betas : pair of float
        (beta1, beta2), each in 0 <= beta < 1.
    epsilon : float
        Above 0, and large enough to outweigh the gradients whose squares vanish in v: at least
        3.4e-18 in float32 with the default betas.

    Raises
    ------
    ValueError
        If a number is out of range, the layers have no parameters, or share arrays but in part.
    TypeError
        If layers holds anything but layers, or a number is of a wrong kind.
    """

    _kept = ("m", "v")

    def __init__(
        self,
        layers: Layer | Iterable[Layer],
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        self.betas = betas
        self.epsilon = epsilon
        super().__init__(layers, learning_rate)

    def _check(self):
        super()._check()
        where, rule = type(self).__name__, "be a pair in 0 <= beta < 1"
        if not isinstance(self.betas, (tuple, list, np.ndarray)) or np.shape(self.betas) != (2,):
            raise ValueError(f"{where}: betas must {rule}, got {self.betas!r}")
        beta1, beta2 = (
            number(where, "betas", beta, rule, lambda beta: 0 <= beta < 1) for beta in self.betas
        )
        self.betas = beta1, beta2
        epsilon = number(where, "epsilon", self.epsilon, "be above 0", lambda e: 0 < e < math.inf)
        for dtype in {dtype for _, dtype in self._made_with.values()}:
            # A square that vanishes in v must be one that epsilon outweighs.
            least = math.sqrt(float(np.finfo(dtype).tiny) / (1 - self.betas[1]))
            if epsilon < least:
                raise ValueError(
                    f"{where}: epsilon must be at least {least:.2g} for parameters of {dtype}, "
                    f"got {epsilon}"
                )
        self.epsilon = epsilon

    def _limit(self, largest):
        return math.sqrt(largest) / 2  # v, a mean of squares, stays finite

    def _check_state(self, where, values):
        for name, value in values.items():
            if name.startswith("v.") and (value < 0).any():
                raise ValueError(f"{where}: {name} must be 0 or more, got {value.min()}")

    def _factors(self, name, steps):
        beta1, beta2 = self.betas
        # both corrections leave the loop over the numbers: the paper, end of section 2
        correction = math.sqrt(_one_minus_power(beta2, steps))
        rate = self.learning_rate * correction / _one_minus_power(beta1, steps)
        return rate, self.epsilon * correction, 1.0

    def _update(self, factors, parameter, gradient, m, v):
        rate, epsilon, keep = factors
        rate = min(rate, float(np.finfo(parameter.dtype).max))  # times a zero it would be NaN
        arrays = parameter, gradient, m, v
        pieces = p, g, mean, square = [_in_one_piece(parameter, array) for array in arrays]
        _core.adam(p, g, mean, square, *self.betas, rate, epsilon, keep)
        for array, piece in zip(arrays, pieces, strict=True):
            if array is not gradient and not np.may_share_memory(array, piece):  # a copy
                in_memory_order(parameter, array)[...] = piece


class AdamW(Adam):
    """Adam with weight decay apart from the gradient.

    Loshchilov and Hutter (2019), "Decoupled weight decay regularization", algorithm 2. With m and v
    as in `Adam`::

        p = p - learning_rate * ((m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
                                 + weight_decay * p)

    The decay does not pass through m and v, as that of a penalty in the loss would: all weights
    shrink at one rate, however large their gradients are.

    Parameters
    ----------
    layers : Layer or iterable of Layer
    learning_rate, betas, epsilon
        As in `Adam`.
    weight_decay : float
        0 or more, and at most 1 / learning_rate. Also an attribute, which may be changed between
        steps. Default 0.01.
    without_decay : sequence of str
        Names of parameters that are not decayed, or patterns, as in `Layer.freeze`; usually biases,
        gains and offsets of norms, and embeddings: ``("*bias", "*embedding*")``. One that has
        several names is not decayed if any of them fits. Of several layers, names begin with the
        layer's number: "0.weight".

    Raises
    ------
    ValueError
        If a number is out of range, the layers have no parameters, or share arrays but in part.
    TypeError
        If layers holds anything but layers, a number is of a wrong kind, or without_decay holds
        anything but strings.
    KeyError
        If a pattern fits no name.

    Examples
    --------
    >>> import attnc
    >>> model = attnc.Sequential(attnc.Linear(4, 8, rng=0), attnc.Linear(8, 2, rng=1))
    >>> optimizer = attnc.optim.AdamW(model, 0.001, weight_decay=0.1, without_decay=["*bias"])
    """

    def __init__(
        self,
        layers: Layer | Iterable[Layer],
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        *,
        weight_decay: float = 0.01,
        without_decay: Sequence[str] = (),
    ) -> None:
        self.weight_decay = weight_decay
        super().__init__(layers, learning_rate, betas, epsilon)
        where = type(self).__name__
        if isinstance(without_decay, str) or not isinstance(without_decay, (tuple, list)):
            raise TypeError(
                f"{where}: without_decay must be a list or tuple of names and patterns, got "
                f"{without_decay!r}"
            )
        self._without_decay = tuple(without_decay)
        places = {name: place(parameter) for name, parameter, *_ in _entries(self._layers)}
        found = {places[n] for each in without_decay for n in fitting(where, each, places)}
        self._undecayed = {name for name in self._made_with if places[name] in found}

    @property
    def without_decay(self) -> tuple[str, ...]:
        """tuple of str: the patterns of parameters that are not decayed, as they were given."""
        return self._without_decay

    def _check(self):
        super()._check()
        where, rule = type(self).__name__, "be 0 or more"
        decay = number(
            where, "weight_decay", self.weight_decay, rule, lambda decay: 0 <= decay < math.inf
        )
        if decay * self.learning_rate > 1:
            raise ValueError(
                f"{where}: weight_decay must be at most 1 / learning_rate, got {decay} with "
                f"learning_rate {self.learning_rate}"
            )
        self.weight_decay = decay

    def _factors(self, name, steps):
        decay = 0.0 if name in self._undecayed else self.learning_rate * self.weight_decay
        rate, epsilon, keep = super()._factors(name, steps)
        return rate, epsilon, keep - decay


def _one_minus_power(beta, steps):
    """1 - beta^steps, to all digits also where beta is nearly 1."""
    return -math.expm1(steps * math.log(beta)) if beta else 1.0


# ---- Averages ------------------------------------------------------------------------------------


class ExponentialAverage:
    """Weights averaged over the steps of training, of which the last ones count most.

    After n updates the average of a parameter is::

        a_n = sum over k = 1..n of decay^(n - k) p_k * (1 - decay) / (1 - decay^n)

    The divisor makes the shares sum to 1: Kingma and Ba (2015), section 7.2. So a_1 = p_1, and the
    first values of the weights, before any step, do not count. Averages follow training with less
    noise than the weights do, and models are often better with them (Polyak and Juditsky 1992).

    Parameters
    ----------
    layers : Layer or iterable of Layer
        A parameter with several names has one average. One that is frozen is averaged like others:
        the average of what does not change is itself, to the bit.
    decay : float
        In 0 <= decay < 1; of about the last 1 / (1 - decay) steps is the average.

    Attributes
    ----------
    updates : int
        How many there were.

    Raises
    ------
    ValueError
        If decay is out of range, the layers have no parameters, or share arrays but in part.
    TypeError
        If layers holds anything but layers, or decay is no number.

    Notes
    -----
    Averages are kept in float64: with a decay of 0.9999 an update in float32 would round away what
    a weight moves, and the average would stand still.

    `attnc.save` keeps the weights that are there: the averages within `swapped_in`. To go on with
    training, keep both, as ``numpy.savez(path, **average.state_dict())``.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> model = attnc.Linear(2, 1, rng=0)
    >>> optimizer = attnc.optim.SGD(model, learning_rate=0.1)
    >>> average = attnc.optim.ExponentialAverage(model, decay=0.9)
    >>> for step in range(50):
    ...     model.gradients["weight"] = model.parameters["weight"] - 3
    ...     optimizer.step()
    ...     average.update()
    >>> with average.swapped_in():  # to evaluate, translate, save
    ...     print(model.parameters["weight"][0].round(1))
    [2.9]
    """

    def __init__(self, layers: Layer | Iterable[Layer], decay: float = 0.999) -> None:
        where = type(self).__name__
        self._layers = _several(where, layers)
        self._decay = number(where, "decay", decay, "lie in 0 <= decay < 1", lambda d: 0 <= d < 1)
        self.updates = 0
        self._swapped = False
        parameters = self._parameters()
        if not parameters:
            raise ValueError(f"{where}: layers must have parameters, got none")
        self._made_with = {name: (p.shape, p.dtype) for name, p in parameters.items()}
        self._average = {
            name: np.zeros_like(parameter, np.float64) for name, parameter in parameters.items()
        }

    @property
    def decay(self) -> float:
        """float: what an average keeps of itself in an update."""
        return self._decay

    def _parameters(self):
        """{name: parameter}, each once; the layers are searched as by an optimiser."""
        where = type(self).__name__
        pairs = distinct(where, [entry[:3] for entry in _entries(self._layers)])
        return {name: parameter for name, (parameter, _) in pairs.items()}

    def _now(self, method):
        """The parameters, checked to be those that the average was made with, and not swapped."""
        where = f"{type(self).__name__}.{method}"
        if self._swapped:
            raise ValueError(
                f"{where}: layers must have their own weights, got the averages (leave the block "
                "of swapped_in first)"
            )
        parameters = self._parameters()
        if {name: (p.shape, p.dtype) for name, p in parameters.items()} != self._made_with:
            raise ValueError(
                f"{where}: layers must have the parameters that the average was made with, got "
                f"{', '.join(parameters)} (make a new one)"
            )
        return parameters

    @quiet
    def update(self) -> None:
        """Take the weights that there are into the average: after every step of an optimiser.

        Raises
        ------
        ValueError
            Within `swapped_in`, or if the layers have got other parameters.
        """
        parameters = self._now("update")
        self.updates += 1
        share = 1.0  # of the first weights, exactly
        if self.updates > 1:
            share = (1 - self.decay) / _one_minus_power(self.decay, self.updates)
        for name, parameter in parameters.items():
            for p, average in _blocks(parameter, self._average[name]):
                average += (p - average) * share

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """A context in which the layers have the averages for weights: ``with ...swapped_in():``.

        At its end, also by an exception, they have again those that they had: what was changed
        within is lost. What a decoder has prepared goes stale at both ends. Other threads see the
        averages too.

        Yields
        ------
        None

        Raises
        ------
        ValueError
            Within another such context, if the layers have got other parameters, or before the
            first update: there is nothing to swap in.
        """
        parameters = self._now("swapped_in")
        if not self.updates:
            raise ValueError(f"{type(self).__name__}.swapped_in: update must come first, got none")
        own = {name: parameter.copy() for name, parameter in parameters.items()}
        self._swapped = True
        try:
            for name, parameter in parameters.items():
                parameter[...] = self._average[name]
            yield
        finally:
            for name, parameter in parameters.items():
                parameter[...] = own[name]
            self._swapped = False

    def state_dict(self) -> dict[str, Array]:
        """Copies of all that is remembered, as arrays by name.

        Returns
        -------
        dict of str to ndarray
            ``updates``, and ``average.<name>`` of each parameter, in float64.
        """
        averages = {f"average.{name}": each.copy() for name, each in self._average.items()}
        return {"updates": np.array(self.updates), **averages}

    def load_state_dict(self, state: Mapping[str, Real]) -> None:
        """Continue from `state`, what `state_dict` returned.

        Raises
        ------
        TypeError
            If `state` is no mapping.
        ValueError
            If names are missing or unexpected, shapes differ, or a value is none that `state_dict`
            returns; the average is then unchanged.
        """
        where = f"{type(self).__name__}.load_state_dict"
        arrays = {f"average.{name}": each for name, each in self._average.items()}
        values = fit_state(where, {"updates": np.array(self.updates), **arrays}, state)
        try:
            updates = integer(where, "updates", np.asarray(state["updates"])[()], 0)
        except (TypeError, ValueError) as error:
            raise WrongKind(str(error)) from None
        write(arrays, {name: values[name] for name in arrays}, where)
        self.updates = updates


# ---- Gradients -----------------------------------------------------------------------------------


@quiet
def scale_gradients(layers: Layer | Iterable[Layer], factor: float) -> None:
    """Multiply all gradients by a number: the mean over several batches, from their sum.

    Gradients add up until ``zero_grad``, so that a batch too large for memory may come in parts.
    Losses are means over the tokens that count, and parts have different numbers of them. To get
    the gradient of the mean over all, let each part give that of its sum, by a pullback of its
    number of tokens, and divide by the number of all.

    Parameters
    ----------
    layers : Layer or iterable of Layer
        A gradient that is there under two names is multiplied once.
    factor : float
        Finite.

    Raises
    ------
    ValueError
        If factor is infinite or NaN, or layers share arrays but in part.
    TypeError
        If layers holds anything but layers, or factor is no number.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> model = attnc.Seq2Seq(9, 9, 4, 6, padding_index=0, rng=0)
    >>> optimizer = attnc.optim.Adam(model)
    >>> source, target = np.array([[3, 4], [5, 0]]), np.array([[1, 6, 2], [1, 2, 0]])
    >>> total = 0
    >>> optimizer.zero_grad()
    >>> for part in (slice(0, 1), slice(1, 2)):
    ...     labels = target[part, 1:]
    ...     output, pullback = attnc.vjp(model, source[part], target[part, :-1], labels=labels)
    ...     tokens = np.count_nonzero(labels)  # those that are no padding
    ...     _ = pullback(tokens)  # of output.loss * tokens, the sum
    ...     total += tokens
    >>> attnc.optim.scale_gradients(model, 1 / total)
    >>> optimizer.step()
    """
    where = "scale_gradients"
    factor = number(where, "factor", factor, "be finite", math.isfinite)
    pairs, _ = _distinct(where, _entries(_several(where, layers)))
    with ADDING:
        for _, gradient in pairs.values():
            gradient *= factor


@quiet
def clip_gradients(layers: Layer | Iterable[Layer], max_norm: float) -> float:
    """Scale all gradients so that their common norm is at most `max_norm`.

    Pascanu, Mikolov and Bengio (2013), "On the difficulty of training recurrent neural networks",
    algorithm 1.

    Parameters
    ----------
    layers : Layer or iterable of Layer
    max_norm : float
        Above 0; inf only measures.

    Returns
    -------
    float
        The Euclidean norm of all gradients together, before scaling. A gradient that is there under
        two names counts once, that of a frozen parameter not at all. inf for a norm beyond all
        floats, which is clipped like others.

    Raises
    ------
    FloatingPointError
        If a gradient is NaN or infinite: it is named, and no gradient is changed.
    ValueError
        If max_norm is not above 0, or layers share arrays but in part.
    TypeError
        If layers holds anything but layers, or max_norm is no number.
    """
    where = "clip_gradients"
    max_norm = number(where, "max_norm", max_norm, "be above 0", lambda norm: norm > 0)
    pairs = _trained(*_distinct(where, _entries(_several(where, layers))))
    gradients = {name: gradient for name, (_, gradient) in pairs.items()}
    largest, root = _norm(where, gradients)
    norm = largest * root
    if norm > max_norm:
        factor = max_norm / largest / root
        for gradient in gradients.values():
            if factor > 1e-37:
                gradient *= factor
                continue
            # The factor may vanish although its product with a large gradient does not.
            for (block,) in _blocks(gradient):
                block[...] = block.astype(np.float64) / largest * (max_norm / root)
    return norm


def _norm(where, gradients):
    """The Euclidean norm of gradients by name as a product of two numbers, which may overflow."""
    squares = sum(map(_squares, gradients.values()))
    if 1e-20 < squares < math.inf:  # far from where some of the squares vanish in float32
        return math.sqrt(squares), 1.0
    for name, gradient in gradients.items():
        _check_gradient(where, name, gradient)
    largest = max(map(_largest, gradients.values()), default=0.0)
    if largest == 0:
        return 0.0, 1.0
    squares = sum(
        _squares(block.astype(np.float64) / largest)
        for gradient in gradients.values()
        for (block,) in _blocks(gradient)
    )
    return largest, math.sqrt(squares)

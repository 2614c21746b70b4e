"""Arrays by name: what `Layer.parameters` returns, and how values are written into them.

Every write checks and converts all values first, so that a refused one changes nothing. Names may
stand for one array, where layers are tied: `distinct` finds each once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from ..arrays import real_array
from ..typing import Array, DType, Real


class Arrays(dict[str, Array]):
    """Arrays by name. Writing an entry writes *into* its array.

    The arrays are shared by a layer, the layers around it and the optimiser; writing in place means
    that all of them see it. So ``layer.parameters["weight"] = w`` and
    ``layer.parameters.update(weight=w)`` do what they say, to several entries all or nothing. The
    names are the layer's: none can be added or removed. ``copy.deepcopy`` gives arrays of their
    own, ``copy()`` the same ones.
    """

    __slots__ = ("_where",)  # `_where` begins error texts
    __hash__ = None
    fromkeys = dict.fromkeys  # returns a plain dict

    def __init__(self, where: str, arrays: Mapping[str, Array]) -> None:
        super().__init__(arrays)
        self._where = where

    def __setitem__(self, name: str, value: Real) -> None:
        if value is not self._at(name):  # `arrays[name] += d` has written already
            self.update({name: value})

    def update(self, *values: Any, **named: Any) -> None:
        """Write each of `values`, a mapping or pairs, and of `named` into the array of its name."""
        given = dict(*values, **named)
        write(
            self,
            {name: _fit(self._where, name, value, self._at(name)) for name, value in given.items()},
            self._where,
        )

    def __ior__(self, values: Any) -> Self:  # type: ignore[misc, override]
        self.update(values)
        return self

    def setdefault(self, name: str, default: Any = None) -> Array:
        """The array `name`, which is there: `default` is never needed."""
        return self._at(name)

    def _at(self, name):
        try:
            return self[name]
        except KeyError:
            names = ", ".join(self) or "no name"
            raise KeyError(f"{self._where}: name must be one of {names}; got {name!r}") from None

    def _refuse_removal(self, *_):
        raise TypeError(f"{self._where}: entries must stay, as a layer has them; got a removal")

    __delitem__ = pop = popitem = clear = _refuse_removal

    def copy(self) -> Arrays:
        """The same arrays under the same names."""
        return type(self)(self._where, self)

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:  # copy.deepcopy and pickle use it
        return type(self), (self._where, dict(self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.keys() == other.keys() and all(
            np.array_equal(array, other[name]) for name, array in self.items()
        )

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __repr__(self) -> str:
        entries = ", ".join(f"{name} {array.shape}" for name, array in self.items())
        return f"<{entries}>" if entries else "<none>"


class Frozen:
    """Whether training leaves a parameter alone: one of these for all names of one array."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = False


# ---- Writing -------------------------------------------------------------------------------------


class WrongKind(TypeError, ValueError):
    """A value of a wrong kind in a state: like every fault of a state a ValueError too."""


def cast(where: str, name: str, value: Any, dtype: DType) -> Array:
    """`value` as a new array of this dtype; rounded, but never from a number to infinity."""
    value = real_array(where, name, value)
    with np.errstate(all="ignore"):
        result = value.astype(dtype, order="C")
    if not np.isfinite(result).all():
        lost = np.isinf(result) & np.isfinite(value)
        if lost.any():
            raise ValueError(
                f"{where}: {name} must lie in the range of {np.dtype(dtype)}, got {value[lost][0]}"
            )
    return result


def _fit(where, name, value, array):
    """`value` as a new array of the shape and dtype of `array`."""
    value = cast(where, name, value, array.dtype)
    if value.shape != array.shape:
        raise ValueError(f"{where}: {name} must have shape {array.shape}, got {value.shape}")
    return value


def fit_state(where, arrays, state):
    """The values of `state`, ready to be written into `arrays`, all names and shapes of them.

    Raises ValueError, which lists all that does not fit, and TypeError if `state` is no mapping.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"{where}: state must be a mapping of str to array, got {type(state).__name__} "
            "(what state_dict() returned)"
        )
    names = set(state)
    faults = {"missing": [name for name in arrays if name not in names], "unexpected": []}
    faults["unexpected"] = sorted(map(str, names - set(arrays)))
    faults |= {"misshapen": [], "refused": []}
    values, kind = {}, ValueError
    for name in arrays:
        if name not in names:
            continue
        value, shape = state[name], arrays[name].shape
        try:
            values[name] = value = cast(where, name, value, arrays[name].dtype)
            if value.shape != shape:
                faults["misshapen"].append(f"{name} {value.shape} instead of {shape}")
        except (TypeError, ValueError) as error:
            kind = WrongKind if isinstance(error, TypeError) else kind
            faults["refused"].append(str(error).removeprefix(f"{where}: "))
    if any(faults.values()):
        listed = "; ".join(
            f"{fault}: {', '.join(found)}" for fault, found in faults.items() if found
        )
        raise kind(
            f"{where}: state must hold exactly the names and shapes of the parameters, got {listed}"
        )
    return values


def write(arrays, values, where):
    """Write `values`, which fit, into `arrays`; names of one array must have one value."""
    first: dict[Any, str] = {}
    for name, value in values.items():
        other = first.setdefault(place(arrays[name]), name)
        if other != name and not np.array_equal(
            in_memory_order(arrays[other], values[other]),
            in_memory_order(arrays[name], value),
            equal_nan=True,
        ):
            raise ValueError(
                f"{where}: {other} and {name} must be equal, as they are one array, "
                "got different values"
            )
    for name, value in values.items():
        arrays[name][...] = value


def copy_arrays(where, arrays, state):
    """Copy `state` into `arrays` if all names, shapes and values fit; else change nothing."""
    write(arrays, fit_state(where, arrays, state), where)


# ---- One array under several names ---------------------------------------------------------------


def place(array):
    """Where an array lies: equal for an array and its transpose, for no others."""
    if not array.size:
        return id(array)
    axes = zip(array.strides, array.shape, strict=True)
    return array.__array_interface__["data"][0], *sorted(axis for axis in axes if axis[1] > 1)


def in_memory_order(array, value=None):
    """`value`, by default `array` itself, with the axes in the order in which `array` lies."""
    axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    return (array if value is None else value).transpose(axes).squeeze()


def distinct(where, entries):
    """{name: (parameter, gradient)} of (name, parameter, gradient), each array under one name.

    Raises ValueError where that is not possible: arrays that overlap in part, or parameters that
    are one while their gradients are two.
    """
    first: dict[Any, tuple[str, Array, Array]] = {}
    for name, parameter, gradient in entries:
        other, p, g = first.setdefault(place(parameter), (name, parameter, gradient))
        if p is parameter and g is gradient:
            continue
        # Two names of one array, one through a transpose, have one gradient through that transpose.
        if (
            place(g) != place(gradient)
            or _steps(g) != _steps(p)
            or _steps(gradient) != _steps(parameter)
        ):
            raise ValueError(
                f"{where}: {other} and {name} must share their gradient, as they are one array, "
                "got two (layer.tie shares both)"
            )
    _refuse_overlaps(where, first.values())
    return {name: (parameter, gradient) for name, parameter, gradient in first.values()}


def _steps(array):
    return [step for step, size in zip(array.strides, array.shape, strict=True) if size > 1]


def _refuse_overlaps(where, entries):
    spans = []
    for name, *arrays in entries:
        for array in arrays:
            low = array.__array_interface__["data"][0]
            high = low + array.nbytes
            if not array.flags.c_contiguous:
                axes = zip(array.strides, array.shape, strict=True)
                steps = [step * (size - 1) for step, size in axes]
                high = low + sum(step for step in steps if step > 0) + array.itemsize
                low += sum(step for step in steps if step < 0)
            if array.size:
                spans.append((low, high, name, array))
    reaching: list[Any] = []  # spans that begin before this one and end after its start
    for span in sorted(spans, key=lambda span: span[0]):
        reaching = [other for other in reaching if other[1] > span[0]]
        for _, _, name, array in reaching:
            if np.shares_memory(array, span[3]):
                raise ValueError(
                    f"{where}: {name} and {span[2]} must be one array or two, "
                    "got arrays that overlap in part"
                )
        reaching.append(span)

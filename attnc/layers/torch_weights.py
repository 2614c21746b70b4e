"""Weights of `torch.nn`, read and written: what PyTorch calls the parameters of a layer.

A layer says by `_torch_arrays` which arrays of its own make up each array of the module in
`torch.nn`. PyTorch itself is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..typing import Array, Shape
from .base import Layer
from .named import fit_state, write


class TorchArray(NamedTuple):
    """An array of PyTorch's: its shape, and the views that hold its numbers one after the other.

    Each part is a view of a parameter, with the axes in PyTorch's order but not merged: of
    ``in_proj_weight (3 E, E)`` the parts are three times ``(H, D, E)``.
    """

    shape: Shape
    parts: tuple[Array, ...]


class TorchWeights(Layer):
    """A layer that can take its parameters from a module of `torch.nn`, and give them back."""

    def _torch_arrays(self) -> dict[str, TorchArray]:
        """The arrays of the module by PyTorch's names, in its order."""
        raise NotImplementedError(f"{type(self).__name__}: _torch_arrays is not written")

    def load_torch_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every parameter from those of the module of `torch.nn` that computes the same.

        Parameters
        ----------
        state : mapping of str to tensor or array_like
            Names and shapes as PyTorch has them: ``module.state_dict()``. Tensors are copied, from
            whatever device and of whatever floating dtype.

        Raises
        ------
        TypeError
            If an array is not real.
        ValueError
            If names are missing or unexpected or shapes differ; all of them are listed, and the
            layer is unchanged. If the layer computes what no module of `torch.nn` does.
        """
        where = f"{type(self).__name__}.load_torch_state_dict"
        arrays = self._torch_arrays()
        wanted = {name: np.empty(array.shape, self.dtype) for name, array in arrays.items()}
        if isinstance(state, Mapping):
            state = {name: _numbers(value) for name, value in state.items()}
        parts, values = {}, {}
        for name, value in fit_state(where, wanted, state).items():
            numbers = np.asarray(value).reshape(-1)
            begin = 0
            for k, part in enumerate(arrays[name].parts):
                parts[f"{name}[{k}]"] = part
                values[f"{name}[{k}]"] = numbers[begin : begin + part.size].reshape(part.shape)
                begin += part.size
        write(parts, values, where)

    def torch_state_dict(self) -> dict[str, Array]:
        """Copies of the parameters, as the module of `torch.nn` that computes the same has them.

        Returns
        -------
        dict of str to ndarray
            ``module.load_state_dict({name: torch.from_numpy(array) for name, array in ...})``
            takes them.

        Raises
        ------
        ValueError
            If the layer computes what no module of `torch.nn` does.
        """
        return {
            name: np.concatenate([part.reshape(-1) for part in parts]).reshape(shape)
            for name, (shape, parts) in self._torch_arrays().items()
        }


def _numbers(value):
    """A tensor as an array; all else as it is."""
    if not type(value).__module__.startswith("torch"):
        return value
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()


def transposed(weight: Array, inputs: int = 1) -> TorchArray:
    """`weight`, its first `inputs` axes those of what is mapped, as (outputs, inputs)."""
    sizes = math.prod(weight.shape[inputs:]), math.prod(weight.shape[:inputs])
    axes = *range(inputs, weight.ndim), *range(inputs)
    return TorchArray(sizes, (weight.transpose(axes),))


def flat(bias: Array) -> TorchArray:
    """`bias` as a vector."""
    return TorchArray((bias.size,), (bias,))


def stacked(arrays: list[TorchArray]) -> TorchArray:
    """Matrices or vectors as one, under each other."""
    rows = sum(array.shape[0] for array in arrays)
    return TorchArray(
        (rows, *arrays[0].shape[1:]), tuple(part for array in arrays for part in array.parts)
    )


def prefixed(name: str, arrays: dict[str, TorchArray]) -> dict[str, TorchArray]:
    """The arrays of the module that another one calls `name`."""
    return {f"{name}.{own}": array for own, array in arrays.items()}

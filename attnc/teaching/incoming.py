"""The gradients that come to the stages of a call, checked."""

from __future__ import annotations

from typing import Any

from attnc.arrays import real_array


def incoming_gradient(name: str, gradient: Any, shape: tuple[int, ...]) -> Any:
    """A gradient as an array of this shape; None stays None.

    Parameters
    ----------
    name : str
        Of the argument of `gradients`.
    gradient : array_like or None
    shape : tuple of int

    Returns
    -------
    ndarray or None

    Raises
    ------
    TypeError
        If it is not an array of real numbers.
    ValueError
        If it has another shape.
    """
    if gradient is None:
        return None
    gradient = real_array("gradients", name, gradient)
    if gradient.shape != shape:
        raise ValueError(f"gradients: {name} must have shape {shape}, got {gradient.shape}")
    return gradient

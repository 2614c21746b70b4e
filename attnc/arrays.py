"""Real arrays that the Python part of the package takes, refused where NumPy would lose something.

The functions in C have the same checks in csrc/args.c.
"""

import numpy as np

__all__ = ["like", "real_array"]

FOREIGN = "torch", "jax", "jaxlib", "autograd"  # their arrays convert silently, and lose gradients


def real_array(where, name, value):
    """`value` as an array of real numbers.

    Parameters
    ----------
    where, name : str
        What the error text begins with: ``<where>: <name> must ...``.
    value : array_like

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        If `value` is a tensor of another library, a masked array, or not real.
    """
    package = type(value).__module__.partition(".")[0]
    if package in FOREIGN:
        raise TypeError(
            f"{where}: {name} must be a NumPy array, got {type(value).__name__} of {package} "
            "(convert it first)"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{where}: {name} must be a plain array, got a masked array "
            "(its mask would be lost: pass .data, and the mask as an argument)"
        )
    array = np.asarray(value)
    dtype = array.dtype
    if dtype.kind not in "fiu" and dtype.name != "bfloat16" or dtype.itemsize > 8:
        raise TypeError(f"{where}: {name} must be real, got {dtype}")
    return array


def like(gradient, argument):
    """The gradient in the dtype of its argument, where that is a float (else as computed).

    Parameters
    ----------
    gradient : ndarray
    argument : object
        What the caller passed.

    Returns
    -------
    ndarray
    """
    dtype = getattr(argument, "dtype", None)
    if dtype is None or dtype == gradient.dtype or dtype.kind != "f" and dtype.name != "bfloat16":
        return gradient
    return gradient.astype(dtype.newbyteorder("="))

"""Real arrays that the Python part of the package takes, refused where NumPy would lose something.

The functions in C have the same checks in csrc/args.c.
"""

import numpy as np

__all__ = ["computing_dtype", "contiguous", "integer_lengths", "like", "real_array"]

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


def computing_dtype(arrays):
    """The type in which arrays are computed together.

    float64 where any array is of it, or of integers; float32 for all narrower floats.

    Parameters
    ----------
    arrays : iterable of ndarray

    Returns
    -------
    dtype
    """
    wide = any(a.dtype.kind in "iu" or a.dtype.itemsize > 4 for a in arrays)
    return np.dtype(np.float64 if wide else np.float32)


def contiguous(array, dtype):
    """The array as C takes it: of this type, in C order, aligned; a copy only where it is not.

    Parameters
    ----------
    array : array_like
    dtype : dtype

    Returns
    -------
    ndarray
    """
    return np.require(array, dtype, ("C_CONTIGUOUS", "ALIGNED", "ENSUREARRAY"))


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


def integer_lengths(where, name, lengths, batch, time):
    """`lengths` as integers of shape (batch,), each in 0..time.

    Parameters
    ----------
    where, name : str
        What the error text begins with: ``<where>: <name> must ...``.
    lengths : int or array_like of int
    batch, time : int

    Returns
    -------
    ndarray of intp

    Raises
    ------
    TypeError
        If `lengths` are not integers.
    ValueError
        If their shape does not fit, or one is outside 0..time.
    """
    array = np.asarray(lengths)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{where}: {name} must be integers, got {array.dtype}")
    if array.shape in ((), (1,)):
        array = np.broadcast_to(array, (batch,))
    if array.shape != (batch,):
        raise ValueError(
            f"{where}: {name} must have shape ({batch},) to match the batch, got {array.shape}"
        )
    if batch and not 0 <= array.min() <= array.max() <= time:
        raise ValueError(f"{where}: {name} must lie in 0..{time}, got {array.min()}..{array.max()}")
    return array.astype(np.intp, copy=False)

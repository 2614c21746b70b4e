"""What the Python part of the package takes: arrays, integers, numbers; refused where NumPy would
lose something in silence.

What an object is, csrc/python/inspect.c finds, for this part and for the functions in C.
"""

from __future__ import annotations

import functools
import math
import numbers
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from attnc import _core
from attnc.mode import mode
from attnc.typing import Array, DType, Function, Real, Shape

__all__ = [
    "all_finite",
    "boolean_mask",
    "broadcasts",
    "computing_dtype",
    "contiguous",
    "flag",
    "generator",
    "integer",
    "integer_array",
    "integer_lengths",
    "is_array",
    "is_dual",
    "like",
    "number",
    "plain_array",
    "probability",
    "quiet",
    "reached",
    "real_array",
    "result_dtype",
    "sum_rows",
    "sum_to",
    "values_of",
]

# ---- arrays --------------------------------------------------------------------------------------


def plain_array(where: str, name: str, value: Any) -> Array:
    """`value` as an array of whatever dtype.

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
        If `value` is a tensor of another library or a masked array, alone or in a list, or a list
        of rows of unequal length.
    """
    return value if is_dual(value) else _core.plain_array(where, name, value)


def is_dual(value: Any) -> bool:
    """Whether it is a dual number, in forward mode through layers: there it stands for an array.

    Parameters
    ----------
    value : object

    Returns
    -------
    bool
    """
    return mode.dual is not None and isinstance(value, mode.dual.Dual)


def values_of(array: Any) -> Any:
    """An array without its tangent, for decisions; that of NumPy itself.

    Parameters
    ----------
    array : object

    Returns
    -------
    object
    """
    return array.value if is_dual(array) else array


def all_finite(array: Any) -> bool:
    """Whether all numbers of an array are finite, and those of its tangent in forward mode.

    Parameters
    ----------
    array : Dual or ndarray

    Returns
    -------
    bool
    """
    if is_dual(array):
        return all_finite(array.value) and all_finite(array.tangent)
    return bool(np.isfinite(array).all())


def reached(gradient: Any) -> Any:
    """Which numbers of a gradient are not 0, or have a tangent that is not, in forward mode.

    What no gradient reaches is not to be read: there may be NaN, as in padding.

    Parameters
    ----------
    gradient : Dual or ndarray

    Returns
    -------
    ndarray of bool
    """
    if is_dual(gradient):
        return reached(gradient.value) | reached(gradient.tangent)
    return gradient != 0


def is_array(value: Any) -> bool:
    """Whether it is an array of NumPy, or what stands for one.

    Parameters
    ----------
    value : object

    Returns
    -------
    bool
    """
    return isinstance(value, np.ndarray) or is_dual(value)


def _is_masked(value: Any) -> bool:
    # The first half spares others the import of numpy.ma, which NumPy puts off to its first use.
    return isinstance(value, np.ndarray) and isinstance(value, np.ma.MaskedArray)


def real_array(where: str, name: str, value: Any) -> Array:
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
        If `value` is a tensor of another library, a masked array, or not real, or if a list has
        bools among its numbers.
    """
    return _core.real_array(where, name, value)


def integer_array(where: str, name: str, value: Any) -> Array:
    """`value` as an array of integers, of whatever integer dtype; an empty list will do.

    Parameters
    ----------
    where, name : str
        What the error text begins with: ``<where>: <name> must ...``.
    value : array_like of int

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        If `value` is a tensor of another library, a masked array, or not integers, or if a list has
        bools among its numbers.
    """
    return _core.integer_array(where, name, value)


def boolean_mask(where: str, name: str, value: Any, shape: Shape, axes: str) -> Array:
    """`value` as a boolean array of this shape, in which axes of size 1 broadcast.

    Parameters
    ----------
    where, name : str
        What the error text begins with: ``<where>: <name> must ...``.
    value : array_like of bool
    shape : tuple of int
    axes : str
        Their names for the error text, such as ``"(B, Tk)"``.

    Returns
    -------
    ndarray of bool

    Raises
    ------
    TypeError
        If `value` is a tensor of another library, a masked array, or not boolean.
    ValueError
        If its shape does not fit.
    """
    return _core.boolean_mask(where, name, value, shape, axes)


def broadcasts(shape: Shape, whole: Shape) -> bool:
    """Whether an array of this shape has every axis of `whole`, of its size or 1.

    Parameters
    ----------
    shape, whole : tuple of int

    Returns
    -------
    bool
    """
    return len(shape) == len(whole) and all(
        n in (1, size) for n, size in zip(shape, whole, strict=True)
    )


def sum_to(gradient: Array, shape: Shape) -> Array:
    """The gradient of an array of this shape, from that of all that it was broadcast to.

    Parameters
    ----------
    gradient : ndarray
    shape : tuple of int
        Of as many axes, each of the gradient's size or 1.

    Returns
    -------
    ndarray
        Of that shape; the gradient itself where it has it.
    """
    if gradient.shape == shape:
        return gradient
    axes = tuple(d for d, n in enumerate(shape) if n == 1 and gradient.shape[d] != 1)
    return gradient.sum(axis=axes, keepdims=True)


def computing_dtype(arrays: Iterable[Array]) -> np.dtype[Any]:
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


def result_dtype(arrays: Iterable[Array]) -> np.dtype[Any]:
    """The dtype of what is computed from arrays together.

    That of the arrays where all have one, of floats; else what they are computed in.

    Parameters
    ----------
    arrays : iterable of ndarray

    Returns
    -------
    dtype
    """
    arrays = list(arrays)
    first = arrays[0].dtype.newbyteorder("=")
    one = all(a.dtype.newbyteorder("=") == first for a in arrays)
    return first if one and first.kind not in "iu" else computing_dtype(arrays)


def contiguous(array: Real, dtype: DType) -> Array:
    """The array as C takes it: of this type, in C order, aligned; a copy only where it is not.

    Parameters
    ----------
    array : array_like
    dtype : dtype

    Returns
    -------
    ndarray
    """
    if type(array) is np.ndarray and array.dtype == dtype:
        flags = array.flags
        if flags.c_contiguous and flags.aligned:  # most are, and np.require takes longer to see it
            return array
    if is_dual(array):
        return mode.dual.contiguous(array, dtype)
    if getattr(array, "dtype", None) != dtype:
        with np.errstate(under="ignore"):  # what is too small for the type is 0 there, or subnormal
            array = np.asarray(array, dtype)
    return np.require(array, dtype, ("C_CONTIGUOUS", "ALIGNED", "ENSUREARRAY"))


def like(gradient: Array, argument: Any) -> Array:
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
    with np.errstate(all="ignore"):  # rounding is meant, whatever the caller's settings
        return gradient.astype(dtype.newbyteorder("="))


SUM_BLOCK = 64  # rows added one by one: of 16, 32, 64 the fastest, and exact to 1e-6 in float32
WIDE = 1024  # numbers in a row that NumPy adds at full speed


def sum_rows(x: Array) -> Array:
    """The sum over the first axis, in the dtype of the array.

    Rows are added in blocks, then the sums of blocks likewise. One by one, as ``x.sum(axis=0)``
    adds them, a million equal rows of float32 are off by 1e-2; so by 1e-6, as fast for rows of
    hundreds of numbers and ten times as fast for rows of a few. The order depends on the shape
    alone.

    Parameters
    ----------
    x : ndarray of float, shape (rows, ...)

    Returns
    -------
    ndarray, shape (...)
    """
    if x.ndim != 2:
        return sum_rows(x.reshape(len(x), math.prod(x.shape[1:]))).reshape(x.shape[1:])
    with np.errstate(all="ignore"):
        while len(x) > SUM_BLOCK and x.shape[1]:
            rows, size = x.shape
            group = max(
                1, min(WIDE // size, rows // SUM_BLOCK)
            )  # short rows are added side by side
            blocks = rows // (SUM_BLOCK * group)
            end = blocks * SUM_BLOCK * group
            sums = x[:end].reshape(blocks, SUM_BLOCK, group * size).sum(axis=1)
            x = np.concatenate([sums.reshape(blocks * group, size), x[end:]])
        return x.sum(axis=0)


def integer_lengths(where: str, name: str, lengths: Any, batch: int, time: int) -> Array:
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
    array = integer_array(where, name, lengths)
    if array.shape in ((), (1,)):
        array = np.broadcast_to(array, (batch,))
    if array.shape != (batch,):
        raise ValueError(
            f"{where}: {name} must have shape ({batch},) to match the batch, got {array.shape}"
        )
    if batch and not 0 <= array.min() <= array.max() <= time:
        raise ValueError(f"{where}: {name} must lie in 0..{time}, got {array.min()}..{array.max()}")
    return array.astype(np.intp, copy=False)


# ---- floating-point errors -----------------------------------------------------------------------


def quiet(function: Function) -> Function:
    """Let `function` compute with infinities, NaN and underflow whatever `numpy.errstate` says.

    They are results here, never errors: the functions in C report none either.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return run  # type: ignore[return-value]


# ---- single numbers ------------------------------------------------------------------------------


def _index(value: Any) -> int:
    """As operator.index, but Python's bool is no integer here, and a masked number no number."""
    if isinstance(value, (bool, np.bool_)) or _is_masked(value):
        raise TypeError
    return operator.index(value)


def integer(
    where: str, name: str, value: Any, least: int | None = None, most: int | None = None
) -> int:
    """`value` as an int.

    Parameters
    ----------
    where, name : str
        What the error text begins with: ``<where>: <name> must ...``.
    value : int or NumPy integer
        Not a bool, and not a float, not even 3.0.
    least, most : int, optional
        Its range, ends included.

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If `value` is not an integer.
    ValueError
        If it is out of range.
    """
    rule = "be an integer"
    if least is not None:
        rule += f" of at least {least}" if most is None else f" in {least}..{most}"
    try:
        result = _index(value)
    except TypeError:
        raise TypeError(f"{where}: {name} must {rule}, got {value!r}") from None
    if least is not None and result < least or most is not None and result > most:
        raise ValueError(f"{where}: {name} must {rule}, got {value!r}")
    return result


def number(where: str, name: str, value: Any, rule: str, fits: Callable[[float], bool]) -> float:
    """`value` as a float.

    Parameters
    ----------
    where, name : str
        What the error text begins with: ``<where>: <name> must ...``.
    value : float, int, NumPy number or real array without axes
        Not a bool.
    rule : str
        What it must do, such as ``"lie in 0 <= dropout < 1"``.
    fits : callable
        Whether a float does that. NaN usually does not.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If `value` is not a real number.
    ValueError
        If it does not fit.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real and isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0:
        dtype = value.dtype
        real = dtype.kind in "iu" or dtype.name in ("float16", "float32", "float64", "bfloat16")
        real = real and not _is_masked(value)
    if not real:
        raise TypeError(f"{where}: {name} must {rule}, got {value!r}")
    try:
        result = float(value)
    except OverflowError:  # an int beyond all floats
        result = float("inf") if value > 0 else -float("inf")
    if not fits(result):
        raise ValueError(f"{where}: {name} must {rule}, got {value!r}")
    return result


def probability(where: str, name: str, value: Any) -> float:
    """The probability of dropping something, as a float.

    Parameters
    ----------
    where, name : str
        What the error text begins with: ``<where>: <name> must ...``.
    value : float, int, NumPy number or real array without axes
        In 0 <= value < 1.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If `value` is not a real number.
    ValueError
        If it is out of range.
    """
    return number(where, name, value, f"lie in 0 <= {name} < 1", lambda p: 0 <= p < 1)


def flag(where: str, name: str, value: Any) -> bool:
    """`value` as a bool.

    Parameters
    ----------
    where, name : str
        What the error text begins with: ``<where>: <name> must ...``.
    value : bool

    Returns
    -------
    bool

    Raises
    ------
    TypeError
        If `value` is neither True nor False: a string such as "False" would count as true.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{where}: {name} must be True or False, got {value!r}")
    return bool(value)


def generator(where: str, rng: Any) -> np.random.Generator:
    """The random generator that an argument ``rng=`` stands for.

    Parameters
    ----------
    where : str
        What the error text begins with: ``<where>: rng must ...``.
    rng : None, int or numpy.random.Generator
        Fresh, a seed, or a generator that moves on with every draw.

    Returns
    -------
    numpy.random.Generator
        `rng` itself where it is one.

    Raises
    ------
    TypeError
        If `rng` is none of these: a bool, a float, numpy.random.RandomState...
    ValueError
        If it is a negative integer.
    """
    if rng is None or isinstance(rng, np.random.Generator):
        return np.random.default_rng(rng)
    try:
        seed = _index(rng)
    except TypeError:
        raise TypeError(
            f"{where}: rng must be None, an integer or a numpy.random.Generator, got {rng!r}"
        ) from None
    if seed < 0:
        raise ValueError(f"{where}: rng must not be negative, got {seed}")
    return np.random.default_rng(seed)

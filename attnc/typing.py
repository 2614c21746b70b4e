"""The names of the types in the annotations of this package; private, and for checkers alone.

Nothing reads them at run time: what an argument must be is checked where it is used, and said in
the docstrings, with shapes and dtypes, which a checker does not know.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Union

import numpy as np

__all__: list[str] = []

if TYPE_CHECKING:
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]
    Real: TypeAlias = npt.ArrayLike  # numbers: what numpy.asarray makes an array of
    Integers: TypeAlias = npt.ArrayLike
    Bools: TypeAlias = npt.NDArray[np.bool_] | Sequence[Any]  # refuses arrays of numbers
    State: TypeAlias = npt.ArrayLike | Sequence[npt.ArrayLike | None]  # an LSTM's is a pair (h, c)
    DType: TypeAlias = npt.DTypeLike
else:  # to import numpy.typing takes a third of the time of `import attnc`
    Array = np.ndarray
    Real = Integers = Bools = State = DType = Any

# A string, because NumPy imports its random numbers only where they are used.
Seed: TypeAlias = Union[None, int, np.integer[Any], "np.random.Generator"]
Path: TypeAlias = str | bytes | os.PathLike[Any]
Shape: TypeAlias = tuple[int, ...]

# A function that a decorator gives back with the same signature.
Function = TypeVar("Function", bound=Callable[..., Any])

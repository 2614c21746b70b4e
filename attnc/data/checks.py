"""What the helpers of data take: sequences of strings and of numbers, checked."""

from __future__ import annotations

import importlib
import reprlib
from collections import Counter
from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from attnc.arrays import integer_array, plain_array


def iterable(where, name, value, rule):
    """`value`, which can be iterated over and is not itself a string, or a dict."""
    if isinstance(value, str):
        raise TypeError(f"{where}: {name} must be {rule}, got {short(value)} (use .split())")
    if isinstance(value, (bytes, Mapping)):
        raise TypeError(f"{where}: {name} must be {rule}, got {short(value)}")
    if isinstance(value, np.ndarray):
        plain_array(where, name, value)  # not masked
    try:
        iter(value)
    except TypeError:
        raise TypeError(f"{where}: {name} must be {rule}, got {short(value)}") from None
    return value


def ordered(where, name, value):
    """The items of `value`, whose order matters: an array as it is, all else as a list."""
    rule = "a list of strings" if name == "words" else "a list of sequences"
    value = iterable(where, name, value, rule)
    if isinstance(value, Set):
        raise TypeError(
            f"{where}: {name} must be in order, got a {type(value).__name__} (use sorted())"
        )
    return value if isinstance(value, np.ndarray) else list(value)


def listed(value):
    """`value`, as a list where it is an iterator."""
    iterator = hasattr(value, "__next__") and not hasattr(value, "__array__")
    return list(value) if iterator else value


def one_sequence(where, numbers):
    """The numbers of one sequence, which is to be decoded, as an array (T,)."""
    array = integer_array(where, "numbers", listed(numbers))
    if array.ndim != 1:
        raise ValueError(
            f"{where}: numbers must have one axis (T,), got shape {array.shape} "
            "(decode a batch row by row)"
        )
    return array


def strings(where, name, words):
    """Yield `words`, each of which is a string."""
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"{where}: {name} must be strings, got {short(word)}")
        yield word


def short(value):
    """What an error text shows of a value, which may be a whole text."""
    return reprlib.repr(value)


def required(where, what, module):
    """Import a library that only `what` needs."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{where}: {what} needs {module}; install it with: pip install "attnc[data]"',
            name=module,
        ) from error


def word_counts(where: str, sequences: Any) -> Counter[str]:
    """How often each word is in sequences of words."""
    counts: Counter[str] = Counter()
    for sequence in iterable(where, "sequences", sequences, "sequences of words"):
        sequence = iterable(where, "a sequence", sequence, "a list of strings")
        counts.update(map(str, strings(where, "words", sequence)))
    return counts

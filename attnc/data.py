"""Sentence pairs, vocabularies and batches: what stands between a text file and a layer.

A file of tab-separated sentence pairs becomes arrays in four steps::

    pairs = attnc.data.read_pairs("fra.txt")                       # [("Go.", "Va !"), ...]
    sources = [source.split() for source, target in pairs]
    vocabulary = attnc.data.Vocabulary.build(sources)
    numbers = [vocabulary.encode(words, end=True) for words in sources]
    for rows in attnc.data.batches([len(n) for n in numbers], 64, rng=0):
        array, lengths = attnc.data.pad([numbers[row] for row in rows])

`array` goes into an embedding and `lengths` into `key_lengths=` of an attention. How text is cut
into words is left to the caller. NumPy only.
"""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np

from attnc.arrays import flag, generator, integer, integer_array, number, plain_array, real_array
from attnc.typing import Array, DType, Integers, Path, Real, Seed

__all__ = ["Vocabulary", "batches", "pad", "read_pairs"]


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Read sentence pairs from a tab-separated text file.

    One pair a line, ``source TAB target``; further columns are ignored. This is the layout of the
    Tatoeba/Anki files. The file is UTF-8, with or without a byte order mark, with any line ends;
    blank lines are skipped and spaces around a sentence are dropped.

    Parameters
    ----------
    path : str, bytes or path-like
        The file.

    Returns
    -------
    list of (str, str)
        The pairs in the order of the file, repeated ones included.

    Raises
    ------
    TypeError
        If `path` is no path.
    OSError
        If the file cannot be opened.
    ValueError
        If the file is not UTF-8 text, if a line has no tab or an empty sentence, or if there is no
        pair at all. The message names the file, the line (counted from 1) and the reason.
    """
    try:
        path = os.fsdecode(path)
    except TypeError:  # open would read from a number as from a file that is open
        raise TypeError(f"read_pairs: path must be the name of a file, got {path!r}") from None
    with open(path, "rb") as file:
        content = file.read()
    content = content.removeprefix(b"\xef\xbb\xbf")
    # Cut into lines as bytes: a wrong byte then has a line number. Only real line ends count, not
    # the form feeds and Unicode separators at which str.splitlines would cut too.
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    pairs = []
    for count, line in enumerate(lines, start=1):
        where = f"{path}, line {count}"
        if b"\0" in line:
            raise ValueError(
                f"{where}: found a zero byte, which text does not have; "
                "UTF-16 must be saved as UTF-8"
            )
        try:
            columns = line.decode("utf-8").split("\t")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where}: not UTF-8 text (byte {line[error.start]:#04x} in position "
                f"{error.start}); save the file as UTF-8"
            ) from None
        columns = [column.strip() for column in columns]
        if not any(columns):
            continue
        if len(columns) < 2:
            raise ValueError(f"{where}: found no tab; a line must be: source TAB target")
        for name, column in zip(("source", "target"), columns, strict=False):
            if not column:
                raise ValueError(
                    f"{where}: the {name} sentence is empty; a line must be: source TAB target"
                )
        pairs.append((columns[0], columns[1]))
    if not pairs:
        raise ValueError(f"{path}, line {len(lines)}: the file ends without a single sentence pair")
    return pairs


class Vocabulary:
    """Numbers for words: four fixed ones, then one for each word.

    ========  ====================  =========================================================
    number    attribute             stands for
    ========  ====================  =========================================================
    0         ``padding``           nothing, after the end of a short sequence in a batch
    1         ``start``             what a decoder is fed before the first word
    2         ``end``               the end of a sequence
    3         ``unknown``           every word that is not in the vocabulary
    4, 5, ..  ``words[0]``, ...     the words
    ========  ====================  =========================================================

    Parameters
    ----------
    words : iterable of str
        The words, each once, in the order of their numbers; an array of strings will do.

    Attributes
    ----------
    words : list of str
        The words, as the constructor takes them: ``Vocabulary(v.words) == v``, and ``np.savez(file,
        words=v.words)`` needs no pickle. A new list each time: a vocabulary does not change.

    Raises
    ------
    TypeError
        If a word is not a string, or if `words` is itself a string, or has no order or more than
        words, as a set or a dict.
    ValueError
        If a word is there twice.

    See Also
    --------
    Vocabulary.build : the vocabulary of a text, by frequency

    Examples
    --------
    >>> v = Vocabulary(["red", "green"])
    >>> v.encode(["green", "blue"], end=True)
    array([5, 3, 2])
    >>> v.decode([5, 4, 2, 0, 0])
    ['green', 'red']
    """

    padding, start, end, unknown = range(4)
    _first = 4

    def __init__(self, words: Iterable[str]) -> None:
        self._words = []
        self._numbers: dict[str, int] = {}
        for word in _strings("Vocabulary", "words", _ordered("Vocabulary", "words", words)):
            word = str(word)  # a plain str, also from an array's np.str_
            if word in self._numbers:
                raise ValueError(f"Vocabulary: words must be different, got {word!r} twice")
            self._numbers[word] = len(self)
            self._words.append(word)

    @property
    def words(self) -> list[str]:
        return list(self._words)

    def state(self) -> dict[str, Any]:
        """What `from_state` makes the vocabulary of again: a dict that JSON holds.

        Returns
        -------
        dict
        """
        return {"words": self.words}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Vocabulary:
        """Make the vocabulary whose `state` this is.

        Parameters
        ----------
        state : mapping
            What `Vocabulary.state` returned.

        Returns
        -------
        Vocabulary

        Raises
        ------
        ValueError
            If it is another state.
        """
        if not isinstance(state, Mapping) or state.keys() != {"words"}:
            raise ValueError(
                "Vocabulary.from_state: state must be what Vocabulary.state returned, got "
                f"{_short(state)}"
            )
        return cls(state["words"])

    @classmethod
    def build(
        cls, sequences: Iterable[Iterable[str]], *, min_count: int = 1, max_words: int | None = None
    ) -> Vocabulary:
        """Make the vocabulary of some text, the most frequent words first.

        Parameters
        ----------
        sequences : iterable of iterables of str
            Sentences, cut into words.
        min_count : int
            Leave out words seen fewer times than this; at least 0.
        max_words : int, optional
            Keep at most this many words; at least 0.

        Returns
        -------
        Vocabulary
            Words of equal frequency are in alphabetical order, so that the same text always gives
            the same numbers.

        Raises
        ------
        TypeError
            If a word is not a string, a sequence is itself a string, or a count not an integer.
        ValueError
            If a count is negative.
        """
        where = "Vocabulary.build"
        min_count = integer(where, "min_count", min_count, least=0)
        if max_words is not None:
            max_words = integer(where, "max_words", max_words, least=0)
        counts: Counter[str] = Counter()
        for sequence in _iterable(where, "sequences", sequences, "sequences of words"):
            sequence = _iterable(where, "a sequence", sequence, "a list of strings")
            counts.update(_strings(where, "words", sequence))
        words = sorted(
            (word for word, count in counts.items() if count >= min_count),
            key=lambda word: (-counts[word], word),
        )
        return cls(words[:max_words])

    def encode(self, words: Iterable[str], *, start: bool = False, end: bool = False) -> Array:
        """Turn words into numbers.

        Parameters
        ----------
        words : iterable of str
            One sequence; words that are not in the vocabulary become ``unknown``.
        start, end : bool
            Put ``start`` before the first word, ``end`` after the last.

        Returns
        -------
        ndarray of intp, shape (T,)

        Raises
        ------
        TypeError
            If a word is not a string, or if `words` is itself a string, a set or a dict.
        """
        where = "Vocabulary.encode"
        start, end = flag(where, "start", start), flag(where, "end", end)
        words = _strings(where, "words", _ordered(where, "words", words))
        numbers = [self._numbers.get(word, self.unknown) for word in words]
        numbers = [self.start] * start + numbers + [self.end] * end
        return np.array(numbers, dtype=np.intp)

    def decode(self, numbers: Integers | Iterable[int]) -> list[str]:
        """Turn numbers into words, up to the first ``end``.

        Parameters
        ----------
        numbers : iterable of int
            One sequence, for example a row of a batch or the output of a decoder.

        Returns
        -------
        list of str
            ``start`` and ``padding`` are skipped; ``unknown`` becomes ``"<unknown>"``.

        Raises
        ------
        TypeError
            If `numbers` are not integers.
        ValueError
            If a number up to the first ``end`` is none of this vocabulary's, or if `numbers` has
            more axes than one.
        """
        where = "Vocabulary.decode"
        array = integer_array(where, "numbers", _listed(numbers))
        if array.ndim != 1:
            raise ValueError(
                f"{where}: numbers must have one axis (T,), got shape {array.shape} "
                "(decode a batch row by row)"
            )
        words = []
        for i in array.tolist():
            if not 0 <= i < len(self):
                raise ValueError(f"{where}: numbers must be in 0..{len(self) - 1}, got {i}")
            if i == self.end:
                break
            if i == self.unknown:
                words.append("<unknown>")
            elif i >= self._first:
                words.append(self._words[i - self._first])
        return words

    def __len__(self) -> int:
        """Count the numbers, the four fixed ones included: the size of an embedding."""
        return self._first + len(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._numbers

    def __eq__(self, other: object) -> bool:
        return self._words == other._words if isinstance(other, Vocabulary) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self._words[:3])) + ", ..." * (len(self._words) > 3)
        return f"Vocabulary([{shown}])"


def _iterable(where, name, value, rule):
    """`value`, which can be iterated over and is not itself a string, or a dict."""
    if isinstance(value, str):
        raise TypeError(f"{where}: {name} must be {rule}, got {_short(value)} (use .split())")
    if isinstance(value, (bytes, Mapping)):
        raise TypeError(f"{where}: {name} must be {rule}, got {_short(value)}")
    if isinstance(value, np.ndarray):
        plain_array(where, name, value)  # not masked
    try:
        iter(value)
    except TypeError:
        raise TypeError(f"{where}: {name} must be {rule}, got {_short(value)}") from None
    return value


def _ordered(where, name, value):
    """The items of `value`, whose order matters: an array as it is, all else as a list."""
    rule = "a list of strings" if name == "words" else "a list of sequences"
    value = _iterable(where, name, value, rule)
    if isinstance(value, Set):
        raise TypeError(
            f"{where}: {name} must be in order, got a {type(value).__name__} (use sorted())"
        )
    return value if isinstance(value, np.ndarray) else list(value)


def _listed(value):
    """`value`, as a list where it is an iterator."""
    iterator = hasattr(value, "__next__") and not hasattr(value, "__array__")
    return list(value) if iterator else value


def _strings(where, name, words):
    """Yield `words`, each of which is a string."""
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"{where}: {name} must be strings, got {_short(word)}")
        yield word


def _short(value):
    """What an error text shows of a value, which may be a whole text."""
    return reprlib.repr(value)


def pad(
    sequences: Iterable[Real], *, padding: float = 0, dtype: DType | None = None
) -> tuple[Array, Array]:
    """Put sequences of different lengths into one array.

    Parameters
    ----------
    sequences : iterable of array_like, shapes (T_i, ...)
        At least one; axes after the first must be equal, so lists of numbers and of feature vectors
        both work. Real, or all boolean.
    padding : number or bool
        What fills the rest of a short sequence; one that `dtype` can hold.
    dtype : dtype, optional
        Of the array; the common dtype of the sequences unless given. Integers must fit it
        unchanged; floats may be rounded to it.

    Returns
    -------
    array : ndarray, shape (N, max T_i, ...)
        Sequence i is in ``array[i, :lengths[i]]``.
    lengths : ndarray of intp, shape (N,)
        What the layers take as ``lengths=`` and the attention functions as ``key_lengths=``.

    Raises
    ------
    TypeError
        If a sequence is neither real nor boolean, or is masked, ragged or a tensor of another
        library; if the sequences have no common dtype that holds them; or if `padding` or `dtype`
        is of another kind than the sequences, as floats are among integers.
    ValueError
        If there is no sequence, if one has no axis or the axes after the first differ, or if a
        number does not fit `dtype`.

    Examples
    --------
    >>> array, lengths = pad([[5, 6, 7], [8]])
    >>> array
    array([[5, 6, 7],
           [8, 0, 0]])
    >>> lengths
    array([3, 1])
    """
    items = _ordered("pad", "sequences", sequences)
    rows = [_row(f"sequences[{i}]", item) for i, item in enumerate(items)]
    if not rows:
        raise ValueError("pad: sequences must hold at least one sequence, got none")
    # An empty list says nothing of the axes after the first.
    shapes = {row.shape[1:] for row in rows if row.shape != (0,)} or {()}
    if len(shapes) > 1:
        listed = ", ".join(str(row.shape) for row in rows[:5]) + ", ..." * (len(rows) > 5)
        raise ValueError(f"pad: sequences must have equal axes after the first, got {listed}")
    lengths = np.array([len(row) for row in rows], dtype=np.intp)
    if dtype is None:
        dtype = _common_dtype(items, rows)
    else:
        dtype = _checked_dtype(dtype)
    padding = _padding(padding, dtype)
    array = np.full((len(rows), lengths.max(), *shapes.pop()), padding, dtype=dtype)
    for i, row in enumerate(rows):
        if row.size:
            array[i, : len(row)] = _converted(f"sequences[{i}]", row, dtype)
    return array, lengths


def _row(name, item):
    """One sequence as an array of numbers or of bools."""
    item = _listed(item)
    row = plain_array("pad", name, item)
    if row.dtype.kind != "b":
        row = real_array("pad", name, item)
    if row.ndim == 0:
        raise ValueError(
            f"pad: {name} must have an axis (T, ...), got {_short(item)} "
            "(one sequence alone is [sequence])"
        )
    return row


def _common_dtype(items, rows):
    """The dtype that holds the numbers of all rows."""
    # An empty list has no type of its own, and would make integers into floats.
    dtypes = {row.dtype for row in rows if row.size}
    dtypes = dtypes or {item.dtype for item in items if isinstance(item, np.ndarray)}
    if not dtypes:
        return np.dtype(np.intp)
    kinds = {dtype.kind for dtype in dtypes}
    try:
        common = np.result_type(*dtypes)
    except TypeError:  # bfloat16 and float16, for one
        common = None
    mixed = "b" in kinds and len(kinds) > 1
    if common is None or mixed or kinds <= set("iu") and common.kind not in "iu":
        listed = ", ".join(sorted(map(str, dtypes)))
        raise TypeError(
            f"pad: sequences must have a common dtype, got {listed} (convert them, or pass dtype=)"
        )
    return common.newbyteorder("=")


def _checked_dtype(dtype):
    """`dtype`, of numbers or bools."""
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"pad: dtype must be a dtype, got {dtype!r}") from None
    if dtype.kind != "b":
        real_array("pad", "dtype", np.empty(0, dtype))
    return dtype


def _padding(padding, dtype):
    """`padding` as a number that `dtype` holds."""
    if dtype.kind == "b":
        return False if type(padding) is int and padding == 0 else flag("pad", "padding", padding)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return integer("pad", "padding", padding, int(limits.min), int(limits.max))
    value = number("pad", "padding", padding, "be a number", lambda value: True)
    with np.errstate(all="ignore"):
        held = float(np.asarray(value).astype(dtype))
    whole = isinstance(padding, int) or getattr(padding, "dtype", dtype).kind in "iu"
    if np.isinf(held) and (whole or not np.isinf(value)) or whole and int(held) != int(padding):
        raise ValueError(f"pad: padding must fit dtype {dtype}, got {padding}")
    return value


# How many binary digits a float has: it holds every integer of no more.
DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}


def _converted(name, array, dtype):
    """`array` in `dtype`, where that loses nothing but digits of a float."""
    if array.dtype == dtype:
        return array
    was, to = array.dtype.kind, dtype.kind
    if (was == "b") != (to == "b") or to in "iu" and was not in "iu":
        raise TypeError(f"pad: {name} must fit dtype {dtype}, got {array.dtype} (use .astype())")
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
        if to in "iu":
            limits = np.iinfo(dtype)
            lost = [x for x in (array.min(), array.max()) if not limits.min <= int(x) <= limits.max]
        elif was in "iu":
            lowest_bit = np.where(array == 0, 1, array & (~array + 1))
            odd = array // lowest_bit.astype(
                array.dtype
            )  # all its digits, without zeros at the end
            held = (odd < 2 ** DIGITS[dtype.name]) & (odd > -(2 ** DIGITS[dtype.name]))
            lost = array[~(held & np.isfinite(converted))]
        else:
            lost = array[np.isinf(converted) & ~np.isinf(array)]
    if len(lost):
        raise ValueError(f"pad: {name} must fit dtype {dtype}, got {lost[0]}")
    return converted


def batches(
    lengths: Integers | Iterable[int], size: int, *, shuffle: bool = True, rng: Seed = None
) -> Iterator[Array]:
    """Cut a data set into batches of sequences of like length, so that little is padding.

    Parameters
    ----------
    lengths : array_like of int, shape (N,)
        The length of each sequence of the data set.
    size : int
        The number of sequences in a batch; the last may be smaller.
    shuffle : bool
        Put the batches, and the sequences of equal length within them, into random order. Without
        it the batches run from the shortest sequences to the longest, always the same.
    rng : None, int or numpy.random.Generator
        Where the order comes from: fresh, a seed, or a generator that moves on with every call.

    Yields
    ------
    rows : ndarray of intp, shape (at most `size`,)
        The positions of one batch in the data set; together the batches hold each position once.

    Raises
    ------
    TypeError
        If `lengths` or `size` are not integers, `shuffle` not a bool, or `rng` none of those named.
    ValueError
        If `size` is below 1, `lengths` has not one axis, or a length is negative.

    Examples
    --------
    >>> [rows.tolist() for rows in batches([9, 2, 8, 3], 2, shuffle=False)]
    [[1, 3], [2, 0]]
    """
    where = "batches"
    lengths = integer_array(where, "lengths", _listed(lengths))
    if lengths.ndim != 1:
        raise ValueError(f"batches: lengths must have one axis (N,), got shape {lengths.shape}")
    if lengths.size and lengths.min() < 0:
        raise ValueError(f"batches: lengths must not be negative, got {lengths.min()}")
    size, shuffle = integer(where, "size", size, least=1), flag(where, "shuffle", shuffle)
    rng = generator(where, rng)
    return _batches(lengths, size, rng if shuffle else None)


def _batches(lengths, size, rng):
    """Yield what `batches` promises; apart, so that its errors come before the first batch."""
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    starts = np.arange(0, len(order), size)
    for start in starts if rng is None else rng.permutation(starts):
        yield order[start : start + size]

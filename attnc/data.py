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

from collections import Counter

import numpy as np

__all__ = ["Vocabulary", "batches", "pad", "read_pairs"]


def read_pairs(path):
    """Read sentence pairs from a tab-separated text file.

    One pair a line, ``source TAB target``; further columns are ignored. This is the layout of the
    Tatoeba/Anki files. The file is UTF-8, with or without a byte order mark, with any line ends;
    blank lines are skipped and spaces around a sentence are dropped.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    list of (str, str)
        The pairs in the order of the file, repeated ones included.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If the file is not UTF-8 text, if a line has no tab or an empty sentence, or if there is no
        pair at all. The message names the file, the line (counted from 1) and the reason.
    """
    with open(path, "rb") as file:
        content = file.read()
    content = content.removeprefix(b"\xef\xbb\xbf")
    # Cut into lines as bytes: a wrong byte then has a line number. Only real line ends count, not
    # the form feeds and Unicode separators at which str.splitlines would cut too.
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    pairs = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
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
        words=v.words)`` needs no pickle.

    Raises
    ------
    TypeError
        If a word is not a string.
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

    def __init__(self, words):
        if isinstance(words, str):
            raise TypeError(f"Vocabulary: words must be a list of strings, got {words!r}")
        self.words = []
        self._numbers = {}
        for word in words:
            if not isinstance(word, str):
                raise TypeError(f"Vocabulary: words must be strings, got {word!r}")
            word = str(word)  # a plain str, also from an array's np.str_
            if word in self._numbers:
                raise ValueError(f"Vocabulary: words must be different, got {word!r} twice")
            self._numbers[word] = len(self.words) + self._first
            self.words.append(word)

    @classmethod
    def build(cls, sequences, *, min_count=1, max_words=None):
        """Make the vocabulary of some text, the most frequent words first.

        Parameters
        ----------
        sequences : iterable of iterables of str
            Sentences, cut into words.
        min_count : int
            Leave out words seen fewer times than this.
        max_words : int, optional
            Keep at most this many words.

        Returns
        -------
        Vocabulary
            Words of equal frequency are in alphabetical order, so that the same text always gives
            the same numbers.
        """
        counts = Counter()
        for sequence in sequences:
            counts.update(sequence)
        words = sorted(
            (word for word, count in counts.items() if count >= min_count),
            key=lambda word: (-counts[word], word),
        )
        return cls(words[:max_words])

    def encode(self, words, *, start=False, end=False):
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
        """
        numbers = [self._numbers.get(word, self.unknown) for word in words]
        numbers = [self.start] * bool(start) + numbers + [self.end] * bool(end)
        return np.array(numbers, dtype=np.intp)

    def decode(self, numbers):
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
        ValueError
            If a number is none of this vocabulary's.
        """
        words = []
        for number in numbers:
            if not 0 <= number < len(self):
                raise ValueError(
                    f"Vocabulary.decode: numbers must be in 0..{len(self) - 1}, got {number}"
                )
            if number == self.end:
                break
            if number == self.unknown:
                words.append("<unknown>")
            elif number >= self._first:
                words.append(self.words[number - self._first])
        return words

    def __len__(self):
        """Count the numbers, the four fixed ones included: the size of an embedding."""
        return self._first + len(self.words)

    def __contains__(self, word):
        return word in self._numbers

    def __eq__(self, other):
        return self.words == other.words if isinstance(other, Vocabulary) else NotImplemented

    __hash__ = None

    def __repr__(self):
        shown = ", ".join(map(repr, self.words[:3])) + ", ..." * (len(self.words) > 3)
        return f"Vocabulary([{shown}])"


def pad(sequences, *, padding=0, dtype=None):
    """Put sequences of different lengths into one array.

    Parameters
    ----------
    sequences : sequence of array_like, shapes (T_i, ...)
        At least one; axes after the first must be equal, so lists of numbers and of feature vectors
        both work.
    padding : scalar
        What fills the rest of a short sequence.
    dtype : dtype, optional
        Of the array; the common dtype of the sequences unless given.

    Returns
    -------
    array : ndarray, shape (N, max T_i, ...)
        Sequence i is in ``array[i, :lengths[i]]``.
    lengths : ndarray of intp, shape (N,)
        What the layers take as ``lengths=`` and the attention functions as ``key_lengths=``.

    Raises
    ------
    ValueError
        If there is no sequence, or if the axes after the first differ.

    Examples
    --------
    >>> array, lengths = pad([[5, 6, 7], [8]])
    >>> array
    array([[5, 6, 7],
           [8, 0, 0]])
    >>> lengths
    array([3, 1])
    """
    # An empty list has no type of its own, and would make integers into floats.
    rows = [np.asarray(row) if len(row) else np.asarray(row, dtype=bool) for row in sequences]
    if not rows:
        raise ValueError("pad: sequences must hold at least one sequence, got none")
    shapes = {row.shape[1:] for row in rows if len(row)} or {()}
    if len(shapes) > 1:
        listed = ", ".join(str(row.shape) for row in rows[:5]) + ", ..." * (len(rows) > 5)
        raise ValueError(f"pad: sequences must have equal axes after the first, got {listed}")
    lengths = np.array([len(row) for row in rows], dtype=np.intp)
    if dtype is None:
        dtype = np.result_type(*{row.dtype for row in rows if len(row)} or {np.dtype(np.intp)})
    array = np.full((len(rows), lengths.max(), *shapes.pop()), padding, dtype=dtype)
    for i, row in enumerate(rows):
        if len(row):
            array[i, : len(row)] = row
    return array, lengths


def batches(lengths, size, *, shuffle=True, rng=None):
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
    ValueError
        If `size` is below 1 or `lengths` has not one axis.

    Examples
    --------
    >>> [rows.tolist() for rows in batches([9, 2, 8, 3], 2, shuffle=False)]
    [[1, 3], [2, 0]]
    """
    lengths = np.asarray(lengths)
    if lengths.ndim != 1:
        raise ValueError(f"batches: lengths must have one axis (N,), got shape {lengths.shape}")
    if size < 1:
        raise ValueError(f"batches: size must be at least 1, got {size}")
    return _batches(lengths, size, np.random.default_rng(rng) if shuffle else None)


def _batches(lengths, size, rng):
    """Yield what `batches` promises; apart, so that its errors come before the first batch."""
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    starts = np.arange(0, len(order), size)
    for start in starts if rng is None else rng.permutation(starts):
        yield order[start : start + size]

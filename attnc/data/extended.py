"""Numbers for the words of one source that a vocabulary has not, so that they can be copied."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from attnc.arrays import flag
from attnc.data.checks import one_sequence, ordered, short, strings
from attnc.data.subwords import Subwords
from attnc.data.vocabulary import Vocabulary
from attnc.typing import Array, Integers

__all__ = ["ExtendedVocabulary"]


class ExtendedVocabulary:
    """A vocabulary, and the words of one source that it has not.

    A model that copies words of its source (a pointer network) can write words that are in no
    vocabulary, if they have numbers. Here they follow those of the vocabulary, for one source
    alone: in another one the same numbers are other words. An embedding, which has no row for them,
    is given ``unknown`` in their place.

    Parameters
    ----------
    vocabulary : Vocabulary
        The words that all sources share. Of words, not of pieces of words.
    source : iterable of str
        The words of one source, as often as they are in it.

    Attributes
    ----------
    vocabulary : Vocabulary
    words : list of str
        The words that were added, each once, in the order of the source: word k has the number
        ``len(vocabulary) + k``. A new list each time.

    Raises
    ------
    TypeError
        If `vocabulary` is none, or one of pieces (`Subwords`), or if `source` has no order, is
        itself a string or holds something else than strings.

    Notes
    -----
    See, Liu and Manning 2017, "Get to the point: summarization with pointer-generator networks",
    section 2.2.

    Examples
    --------
    >>> vocabulary = Vocabulary(["a", "lamp"])
    >>> sources = [["a", "green", "lamp"], ["blue", "red", "blue", "lamp"]]
    >>> extended = [ExtendedVocabulary(vocabulary, source) for source in sources]
    >>> numbers = [each.encode(words) for each, words in zip(extended, sources, strict=True)]
    >>> attnc.data.pad(numbers)[0]
    array([[4, 6, 5, 0],
           [6, 7, 6, 5]])
    >>> extended[1].encode(["red", "green", "lamp"], end=True)  # green is in the other source
    array([7, 3, 5, 2])
    >>> extended[1].decode([7, 5, 2, 0])
    ['red', 'lamp']
    >>> max(map(len, extended))  # numbers that this batch has, of the vocabulary and above
    8
    """

    def __init__(self, vocabulary: Vocabulary, source: Iterable[str]) -> None:
        where = "ExtendedVocabulary"
        if not isinstance(vocabulary, Vocabulary) or isinstance(vocabulary, Subwords):
            raise TypeError(
                f"{where}: vocabulary must be a Vocabulary of words, got {short(vocabulary)}"
            )
        self.vocabulary = vocabulary
        self._numbers: dict[str, int] = {}
        for word in strings(where, "source", ordered(where, "words", source)):
            if word not in vocabulary:
                self._numbers.setdefault(str(word), len(vocabulary) + len(self._numbers))

    @property
    def words(self) -> list[str]:
        return list(self._numbers)

    def encode(self, words: Iterable[str], *, start: bool = False, end: bool = False) -> Array:
        """Turn words into numbers: those of the source, or of a text that may copy from it.

        Parameters
        ----------
        words : iterable of str
            One sequence; words that are neither in the vocabulary nor in the source become
            ``unknown``.
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
        where, unknown = "ExtendedVocabulary.encode", Vocabulary.unknown
        start, end = flag(where, "start", start), flag(where, "end", end)
        words = list(strings(where, "words", ordered(where, "words", words)))
        numbers = self.vocabulary.encode(words, start=start, end=end)
        for t, word in enumerate(words, int(start)):
            if numbers[t] == unknown:
                numbers[t] = self._numbers.get(word, unknown)
        return numbers

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
            If a number up to the first ``end`` is none of the vocabulary's and none that was added,
            or if `numbers` has more axes than one.
        """
        where, first = "ExtendedVocabulary.decode", len(self.vocabulary)
        array = one_sequence(where, numbers)
        array = array[: np.argmax(np.append(array == Vocabulary.end, True))]
        added = self.words
        words: list[str] = []
        for i in array.tolist():
            if not 0 <= i < len(self):
                raise ValueError(f"{where}: numbers must be in 0..{len(self) - 1}, got {i}")
            words += self.vocabulary.decode([i]) if i < first else [added[i - first]]
        return words

    def __len__(self) -> int:
        """Count the numbers: those of the vocabulary, the fixed ones included, and those added."""
        return len(self.vocabulary) + len(self._numbers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocabulary!r}, {self.words!r})"

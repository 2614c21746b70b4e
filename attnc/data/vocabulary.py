"""Numbers for words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from attnc.arrays import flag, integer
from attnc.data.checks import one_sequence, ordered, short, strings, word_counts
from attnc.typing import Array, Integers

__all__ = ["Vocabulary"]


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
    Subwords : the same for pieces of words, which leaves hardly a word unknown

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
        for word in strings("Vocabulary", "words", ordered("Vocabulary", "words", words)):
            word = str(word)  # a plain str, also from an array's np.str_
            if word in self._numbers:
                raise ValueError(f"Vocabulary: words must be different, got {word!r} twice")
            self._numbers[word] = len(self)
            self._words.append(word)

    @property
    def words(self) -> list[str]:
        return list(self._words)

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
        counts = word_counts(where, sequences)
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
        words = strings(where, "words", ordered(where, "words", words))
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
        array = one_sequence(where, numbers)
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

    def state(self) -> dict[str, Any]:
        """Return what `from_state` makes the vocabulary of again: a dict for `json.dumps`."""
        return {"class": type(self).__name__, "words": self.words}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a vocabulary of what its method `state` returned.

        Parameters
        ----------
        state : dict
            With the name of the class and the words.

        Returns
        -------
        Vocabulary
            Of the class that `state` names: ``Vocabulary.from_state`` also makes `Subwords`.

        Raises
        ------
        TypeError
            If `state` is not a dict, or its words are no strings.
        ValueError
            If its keys are others, it names another class, or a word is there twice.

        Examples
        --------
        >>> Vocabulary.from_state({"class": "Vocabulary", "words": ["red", "green"]})
        Vocabulary(['red', 'green'])
        """
        where = f"{cls.__name__}.from_state"
        if not isinstance(state, dict):
            raise TypeError(f"{where}: state must be a dict, got {short(state)}")
        if state.keys() != {"class", "words"}:
            raise ValueError(
                f"{where}: state must have the keys 'class' and 'words', got {short([*state])}"
            )
        classes = {each.__name__: each for each in (cls, *cls.__subclasses__())}
        if not isinstance(state["class"], str) or state["class"] not in classes:
            raise ValueError(
                f"{where}: state must be of the class {' or '.join(classes)}, "
                f"got {short(state['class'])}"
            )
        return classes[state["class"]](state["words"])

    def __len__(self) -> int:
        """Count the numbers, the four fixed ones included: the size of an embedding."""
        return self._first + len(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._numbers

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._words == other._words

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self._words[:3])) + ", ..." * (len(self._words) > 3)
        return f"{type(self).__name__}([{shown}])"

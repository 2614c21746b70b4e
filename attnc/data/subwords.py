"""Numbers for pieces of words: byte pair encoding, of Sennrich, Haddow and Birch (2016).

Learning the pieces takes a library, `sentencepiece`. What it has learned is a list of strings, most
of all, so that cutting words into them, here, takes none: a model that was saved needs NumPy only.
"""

from __future__ import annotations

import heapq
import io
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Self

from attnc.arrays import flag, integer
from attnc.data.checks import ordered, required, strings, word_counts
from attnc.data.vocabulary import Vocabulary
from attnc.typing import Array

__all__ = ["Subwords"]


KEPT = 100_000  # words whose pieces are kept: tens of megabytes, and most of the words of a text

# What cannot be learned from: what ends a word or a line for the library, what it writes for a
# space, and halves of characters.
REFUSED = re.compile("[\t\n\r\0\u2581\ud800-\udfff]")


class Subwords(Vocabulary):
    """Numbers for pieces of words, with the methods of a `Vocabulary`.

    A word that was never seen is encoded by its pieces, down to single characters; only a
    character that was never seen is ``unknown``. The pieces come from byte pair encoding: beginning
    with characters, the pair of neighbours seen most often becomes a new piece, again and again.
    A word is cut by the same merges in the same order.

    The words have to carry their spaces, as those of `tokenise` do: then `detokenise` joins the
    pieces as it joins words, and a translator need not know which of both it has.

    Parameters
    ----------
    words : iterable of str
        The pieces, each once, in the order of their numbers: first those that are merged first.

    Attributes
    ----------
    words : list of str
        The pieces: ``Subwords(s.words) == s``. A new list each time.

    Raises
    ------
    TypeError
        If a piece is not a string, or if `words` is itself a string, a set or a dict.
    ValueError
        If a piece is there twice.

    See Also
    --------
    Subwords.build : learn the pieces from text

    Notes
    -----
    Sennrich, Haddow and Birch (2016), "Neural machine translation of rare words with subword
    units".

    Examples
    --------
    >>> s = Subwords(["lo", " lo", "er", " low", " ", "l", "o", "w", "e", "r"])
    >>> s.decode(s.encode([" lower", " lo"], end=True))
    [' low', 'er', ' lo']
    """

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__(words)
        self._known: dict[str, list[str]] = {}  # words that were cut before

    @classmethod
    def build(
        cls,
        sequences: Iterable[Iterable[str]],
        *,
        min_count: int = 1,
        max_words: int | None = 8000,
    ) -> Self:
        """Learn the pieces of some text, by the library `sentencepiece`.

        Parameters
        ----------
        sequences : iterable of iterables of str
            Sentences, cut into words as by `tokenise`. Pieces never reach beyond a word.
        min_count : int
            Leave out characters seen fewer times than this, which are ``unknown`` then; at least 0.
        max_words : int, optional
            Learn at most this many pieces, characters included; as many as there are if None.
            A few thousand for 10,000 sentences, some ten thousand for millions.

        Returns
        -------
        Subwords
            The same for the same text; fewer pieces where it has no more pairs of neighbours.

        Raises
        ------
        TypeError
            If a word is not a string, a sequence is itself a string, or a count not an integer.
        ValueError
            If a count is negative, or the characters alone are more than `max_words`.
        ImportError
            If sentencepiece is not installed.
        """
        where = "Subwords.build"
        min_count = integer(where, "min_count", min_count, least=0)
        if max_words is not None:
            max_words = integer(where, "max_words", max_words, least=0)
        counts = word_counts(where, sequences)
        characters: Counter[str] = Counter()
        for word, count in counts.items():
            for character in word:
                characters[character] += count
        known = {
            character
            for character, count in characters.items()
            if count >= min_count and not REFUSED.match(character)
        }
        if max_words is not None and len(known) > max_words:
            raise ValueError(
                f"{where}: max_words must be at least {len(known)}, the number of different "
                f"characters, got {max_words} (or raise min_count)"
            )
        return cls(_learned(where, counts, known, max_words))

    def encode(self, words: Iterable[str], *, start: bool = False, end: bool = False) -> Array:
        """Turn words into the numbers of their pieces.

        Parameters
        ----------
        words : iterable of str
            One sequence, cut into words as by `tokenise`.
        start, end : bool
            Put ``start`` before the first piece, ``end`` after the last.

        Returns
        -------
        ndarray of intp, shape (T,)
            Characters that are no piece become ``unknown``.

        Raises
        ------
        TypeError
            If a word is not a string, or if `words` is itself a string, a set or a dict.
        """
        where = "Subwords.encode"
        start, end = flag(where, "start", start), flag(where, "end", end)
        words = strings(where, "words", ordered(where, "words", words))
        pieces = [piece for word in words for piece in self._cut(word)]
        return super().encode(pieces, start=start, end=end)

    def _cut(self, word):
        """The pieces of a word, from those cut before or anew."""
        pieces = self._known.get(word)
        if pieces is None:
            if len(self._known) >= KEPT:
                self._known.clear()
            pieces = self._known[word] = self._merged(str(word))
        return pieces

    def _merged(self, word):
        """The pieces of a word: the pair whose piece comes first in `words` is merged first."""
        pieces: list[str | None] = list(word)
        after = [*range(1, len(pieces)), None]  # the neighbours of a piece by its first character
        before = [None, *range(len(pieces) - 1)]
        waiting: list[tuple[int, int, str]] = []

        def wait(left, right):
            if left is not None and right is not None:
                pair = pieces[left] + pieces[right]
                if pair in self._numbers:
                    heapq.heappush(waiting, (self._numbers[pair], left, pair))

        for left, right in pairwise(range(len(pieces))):
            wait(left, right)
        while waiting:
            _, left, pair = heapq.heappop(waiting)
            right = after[left]
            if pieces[left] is None or right is None or pieces[left] + pieces[right] != pair:
                continue  # one of the two is part of another piece by now
            pieces[left], pieces[right] = pair, None
            after[left] = after[right]
            if after[right] is not None:
                before[after[right]] = left
            wait(before[left], left)
            wait(left, after[left])
        return [piece for piece in pieces if piece is not None]

    def __contains__(self, word: object) -> bool:
        """Say whether a word can be written with the pieces: no part of it is ``unknown``."""
        return isinstance(word, str) and all(piece in self._numbers for piece in self._cut(word))


def _learned(where, counts, known, max_words):
    """The pieces that sentencepiece learns from words and their counts."""
    sentencepiece = required(where, "learning subwords", "sentencepiece")
    if not known:
        return []
    parts: Counter[str] = Counter()
    for word, count in counts.items():
        # A character that is left out cuts the word: the pieces on both sides are no neighbours.
        for part in "".join(c if c in known else "\0" for c in word).split("\0"):
            parts[part] += count
    del parts[""]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f"{part}\t{parts[part]}" for part in sorted(parts)),
        input_format="tsv",
        model_writer=model,
        model_type="bpe",
        # With the unknown, start and end of the library's own; or more than there can be.
        vocab_size=2**30 if max_words is None else min(max_words + 3, 2**30),
        hard_vocab_limit=False,  # fewer, where there are no more pairs
        character_coverage=1.0,
        max_sentence_length=max(4 * len(part) for part in parts) + 32,  # bytes
        normalization_rule_name="identity",  # text comes as the caller wants it
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_unicode_script=False,  # words are cut already
        split_by_number=False,
        # Names that no word has: where it met its own, "<s>" in a text, it would learn nothing.
        unk_piece="\n<unk>",
        bos_piece="\n<s>",
        eos_piece="\n</s>",
        minloglevel=2,  # errors only
    )
    learned = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [
        learned.id_to_piece(number)
        for number in range(learned.get_piece_size())
        if not learned.is_control(number) and not learned.is_unknown(number)
    ]
    return [piece.replace("\u2581", " ") for piece in pieces]

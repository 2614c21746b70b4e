"""Text, cut into words and put together again.

The space before a word belongs to the word. So nothing is lost, the words of any language need no
rules for putting them together, and pieces of words (`attnc.data.Subwords`) none either: to
detokenise is to join.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from attnc.arrays import flag
from attnc.data.checks import ordered, required, short, strings

__all__ = ["detokenise", "normalise", "tokenise"]


# Where words have no spaces between them, each character is a word: Thai and Lao; Burmese; Khmer;
# Chinese and Japanese (iteration marks and zero, kana, ideographs of both planes, halfwidth kana).
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)


@functools.cache
def _word():
    """The pattern of a word; each alternative begins with another kind of character."""
    # Marks that combine with the letter before: accents, vowels of Arabic and Hindi, and the two
    # joiners within words of Persian and Hindi. None is beyond U+1FFFF but those of emoji.
    marks = "".join(
        character
        for character in map(chr, range(0x300, 0x20000))
        if unicodedata.category(character).startswith("M")
    )
    marks = f"[{marks}\u200c\u200d\U000e0100-\U000e01ef]"
    letter = rf"[^\W\d{UNSPACED}]"
    return re.compile(
        rf" ?(?:[{UNSPACED}]{marks}*|\d{{1,2}}|{letter}(?:{letter}|{marks})*|[^\w ]{marks}*)| "
    )


def normalise(
    text: str,
    *,
    form: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = "NFC",
    lower: bool = False,
) -> str:
    """Write a text in one way: one space between words, accents in one encoding.

    Parameters
    ----------
    text : str
    form : {"NFC", "NFD", "NFKC", "NFKD"}, optional
        Form of Unicode. NFC writes a letter and its accent as one character where there is one;
        NFKC also replaces variants, such as ligatures and full-width letters, by the plain
        character, which loses what they meant: 2⁵ becomes 25. None leaves them alone.
    lower : bool
        Turn capitals into small letters.

    Returns
    -------
    str
        Runs of white space, no-break spaces and line ends among it, become one space; there is
        none at the ends. Applied to its result, with the same options, it changes nothing.

    Raises
    ------
    TypeError
        If `text` is not a string, or `lower` not a bool.
    ValueError
        If `form` is none of those named.

    Examples
    --------
    >>> normalise("  Un caf\\N{LATIN SMALL LETTER E}\\N{COMBINING ACUTE ACCENT} !", lower=True)
    'un café !'
    """
    text = _text("normalise", text)
    if form is not None and form not in ("NFC", "NFD", "NFKC", "NFKD"):
        raise ValueError(
            f"normalise: form must be 'NFC', 'NFD', 'NFKC', 'NFKD' or None, got {form!r}"
        )
    if flag("normalise", "lower", lower):
        text = text.lower()
    if form is not None:
        text = unicodedata.normalize(form, text)
        if lower:  # NFKC has capitals for some letters that had no small form
            text = unicodedata.normalize(form, text.lower())
    return " ".join(text.split())


def tokenise(
    text: str, *, library: Literal["sacremoses"] | None = None, language: str = "en"
) -> list[str]:
    """Cut a text into words, each with the space before it.

    A word is a run of letters with their accents; or one or two digits, so that 1999 is 19 and 99
    and no number is unknown; or one sign; or, in a script that puts no spaces between words
    (Chinese, Japanese, Thai, Lao, Khmer, Burmese), one character. The first word has a space
    before it, too, as it has elsewhere.

    Parameters
    ----------
    text : str
        `normalise` it before; here it is only cut.
    library : {"sacremoses"}, optional
        Cut it as Moses does, by the rules for `language`: abbreviations keep their dot, and each
        word has a space before it. Then `detokenise` puts spaces where the language has them, and
        not always where the text had them. In ``attnc[data]``.
    language : str
        For the library: "en", "fr", "de", ...

    Returns
    -------
    list of str
        Without a library, `detokenise` makes exactly `text` of it.

    Raises
    ------
    TypeError
        If `text` or `language` is not a string.
    ValueError
        If `library` is none of those named.
    ImportError
        If the library is not installed.

    See Also
    --------
    detokenise : the way back

    Examples
    --------
    >>> tokenise("7 janv. 2026")
    [' 7', ' janv', '.', ' 20', '26']
    """
    text = _text("tokenise", text)
    moses = _library("tokenise", library, language)
    if moses:
        return [f" {word}" for word in moses[0].tokenize(text, escape=False)]
    return _word().findall(" " + text)


def detokenise(
    words: Iterable[str], *, library: Literal["sacremoses"] | None = None, language: str = "en"
) -> str:
    """Put words, or pieces of words, together again.

    Parameters
    ----------
    words : iterable of str
        As `tokenise` cuts them, or as `Vocabulary.decode` and `Subwords.decode` return them.
    library, language
        As they were given to `tokenise`.

    Returns
    -------
    str
        Without a library, the words joined; the space before the first is left out.

    Raises
    ------
    TypeError
        If `words` is itself a string or holds something else, or `language` is not a string.
    ValueError
        If `library` is none of those named.
    ImportError
        If the library is not installed.

    Examples
    --------
    >>> detokenise([" 7", " janv", ".", " 20", "26"])
    '7 janv. 2026'
    """
    where = "detokenise"
    text = "".join(strings(where, "words", ordered(where, "words", words)))
    moses = _library(where, library, language)
    if moses:
        return moses[1].detokenize(text.split(), unescape=False)
    return text.removeprefix(" ")


def _text(where, text):
    """`text`, which is a string."""
    if not isinstance(text, str):
        raise TypeError(f"{where}: text must be a string, got {short(text)}")
    return text


def _library(where, library, language):
    """The tokeniser and the detokeniser of a library, or None."""
    if not isinstance(language, str):
        raise TypeError(f"{where}: language must be a string such as 'en', got {short(language)}")
    if library is None:
        return None
    if library != "sacremoses":
        raise ValueError(f"{where}: library must be 'sacremoses' or None, got {short(library)}")
    return _moses(language, required(where, "library='sacremoses'", "sacremoses"))


@functools.cache
def _moses(language, sacremoses):
    return sacremoses.MosesTokenizer(lang=language), sacremoses.MosesDetokenizer(lang=language)

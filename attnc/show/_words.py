"""Words as they stand in pictures: without control characters, measured, shortened, escaped.

Widths are columns of a terminal, as its emulators count them: two for East Asian wide characters
and for emoji (Unicode Standard Annex #11), none for combining marks and joiners, and a sequence
that is drawn as one (Annex #29) counts once.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterator

__all__ = ["clusters", "escape", "latex", "leftwards", "pad", "shorten", "visible", "width"]

MOST = 100  # characters of a label that are kept, as attnc.plot keeps
JOINER = "\u200d"
EMOJI = "\ufe0f"  # asks for the picture of what came before it
MARK = "\u200e"  # left-to-right mark: what is on its two sides keeps its place

# Format characters that change the order of what stands beside a word, or begin a new line.
_ORDER = {*map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029))}


def visible(text: object) -> str:
    """The text with an escape, such as ``\\n``, for each character that is not one to be seen.

    Control characters, halves of surrogate pairs, characters that XML forbids, and those that turn
    the order of what is beside them. What is longer than a label should be loses its end.
    """
    text = str(text)
    if len(text) > MOST:
        kept = text[: MOST - 1]
        while len(kept) > 1 and _extends(text[len(kept)]):  # a letter keeps its marks, or goes
            text, kept = kept, kept[:-1]
        text = kept + "…"
    return "".join(_escaped(c) if _hidden(c) else c for c in text)


def _hidden(c: str) -> bool:
    category = unicodedata.category(c)
    return category in ("Cc", "Cs") or c in _ORDER or ord(c) & 0xFFFE == 0xFFFE


def _escaped(c: str) -> str:
    return c.encode("unicode_escape").decode("ascii")


def _extends(c: str) -> bool:
    """Whether it is drawn into the character before it."""
    code = ord(c)
    return (
        unicodedata.category(c) in ("Mn", "Me", "Mc")
        or c == JOINER
        or 0x1F3FB <= code <= 0x1F3FF  # tones of skin
        or 0x1160 <= code <= 0x11FF  # vowels and finals of Hangul syllables
        or 0xE0020 <= code <= 0xE007F  # tags of flags
    )


def _is_flag(c: str) -> bool:
    return 0x1F1E6 <= ord(c) <= 0x1F1FF


def clusters(text: str) -> Iterator[str]:
    """The pieces of a text that are drawn as one: a letter and its marks, an emoji of several."""
    piece = ""
    for c in text:
        joined = piece.endswith(JOINER) and ord(c) > 0x2000  # emoji, not the letters of Persian
        flag = len(piece) == 1 and _is_flag(piece) and _is_flag(c)
        if piece and not (_extends(c) or joined or flag):
            yield piece
            piece = ""
        piece += c
    if piece:
        yield piece


def _columns(c: str) -> int:
    if unicodedata.category(c) in ("Mn", "Me", "Cf", "Cc", "Cs") or 0x1160 <= ord(c) <= 0x11FF:
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    total = 0
    for piece in clusters(text):
        if EMOJI in piece or JOINER in piece or _is_flag(piece[0]) and len(piece) > 1:
            first = _columns(piece[0])
            wide = first == 2 or EMOJI in piece or _is_flag(piece[0])
            total += 2 if wide else sum(map(_columns, piece))
        elif unicodedata.category(piece[-1]) == "Sk" and len(piece) > 1:  # a tone of skin
            total += 2
        else:
            total += sum(map(_columns, piece))
    return total


def shorten(text: str, most: int, end: str = "…") -> str:
    """The text, or its beginning and a dot for the rest, in at most so many columns."""
    if len(text) <= most and text.isascii() or width(text) <= most:
        return text
    room, kept = most - width(end), ""
    if room < 0:
        return ""
    for piece in clusters(text):
        room -= width(piece)
        if room < 0:
            break
        kept += piece
    return kept + end


def leftwards(text: str) -> bool:
    """Whether some of it is written from right to left."""
    return not text.isascii() and any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)


def pad(text: str, columns: int, side: str = "left") -> str:
    """The text at the left, at the right or in the middle of so many columns.

    A word from right to left comes with a mark, so that a terminal which turns it does not turn
    what is beside it.
    """
    space = max(columns - width(text), 0)
    before = {"left": 0, "right": space, "middle": space // 2}[side]
    text = f"{MARK}{text}{MARK}" if leftwards(text) else text
    return " " * before + text + " " * (space - before)


def escape(text: str) -> str:
    """The text for HTML and XML, in attributes as between tags."""
    return html.escape(text, quote=True)


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": r"-{}",  # two of them would become a dash
    "…": r"\ldots{}",
    "–": r"\textendash{}",
    "∞": r"$\infty$",
    "−": r"$-$",
}


def latex(text: str) -> str:
    """The text for LaTeX, each character as it is."""
    return "".join(_LATEX.get(c, c) for c in text)

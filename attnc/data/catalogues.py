"""Sentence pairs from catalogues of gettext, read by polib.

`read_pairs` says what is left out and what is changed. polib was chosen over the readers of Babel
and of Python's own gettext because it reads all of the catalogues that a system has: the others
refuse dozens for a date or a character in the header.
"""

from __future__ import annotations

import gettext
import re
import struct

from attnc.data.checks import required

__all__ = ["mo_pairs", "po_pairs"]


def po_pairs(path: str) -> list[tuple[str, str]]:
    """Read the pairs of a catalogue in text form.

    Parameters
    ----------
    path : str

    Returns
    -------
    list of (str, str)

    Raises
    ------
    ImportError, OSError, ValueError
        As `read_pairs`.
    """
    polib = required("read_pairs", "reading catalogues", "polib")
    with open(path, "rb") as file:
        content = file.read()
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: found a zero byte, which a .po file does not have")
    encoding = polib.detect_encoding(path)
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: not {encoding} text (byte {content[error.start]:#04x}); "
            "the charset in the header must be that of the file"
        ) from None
    try:
        catalogue = polib.pofile(path, encoding=encoding)
    except (OSError, ValueError) as error:
        # "Syntax error in po file PATH (line 7): unescaped double quote found", or no reason.
        said = re.search(r"\(line (\d+)\)(?:: (.*))?$", str(error))
        wrong, reason = said.groups("syntax error") if said else ("?", str(error))
        raise ValueError(
            f"{path}, line {wrong}: not a .po file ({reason}); msgfmt --check finds what is wrong"
        ) from None
    entries = [entry for entry in catalogue if not (entry.obsolete or entry.fuzzy)]
    return _pairs(path, catalogue, entries)


def mo_pairs(path: str) -> list[tuple[str, str]]:
    """Read the pairs of a compiled catalogue.

    Parameters
    ----------
    path : str

    Returns
    -------
    list of (str, str)

    Raises
    ------
    ImportError, OSError, ValueError
        As `read_pairs`.
    """
    polib = required("read_pairs", "reading catalogues", "polib")
    with open(path, "rb") as file:
        content = file.read()
    _check_mo(path, content)
    try:
        catalogue = polib.mofile(path)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}, entry {error.object[:40]!r}: not {error.encoding} text; the charset in the "
            "header must be that of the entries"
        ) from None
    except (OSError, ValueError, struct.error) as error:
        raise ValueError(f"{path}: not a .mo file ({error}); compile it again") from None
    return _pairs(path, catalogue, catalogue)


def _check_mo(path, content):
    """Refuse what is no catalogue, and one whose entries overlap.

    Half a million entries, each of which is all of the file, would fill the memory.
    """
    order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}.get(content[:4])
    if order is None:
        raise ValueError(f"{path}: not a .mo file, which begins with the bytes de120495")
    total = 0
    try:
        count, *tables = struct.unpack_from(f"{order}3I", content, 8)
        for table in tables:
            numbers = struct.unpack_from(f"{order}{2 * count}I", content, table)
            lengths, starts = numbers[::2], numbers[1::2]
            total += sum(lengths)
            if any(map(lambda n, at: at + n > len(content), lengths, starts)):
                raise struct.error
    except struct.error:
        raise ValueError(
            f"{path}: the file is shorter than its table of entries says; copy or compile it again"
        ) from None
    if total > len(content):
        raise ValueError(f"{path}: the table of entries has a text twice; compile it again")


def _pairs(path, catalogue, entries):
    """The pairs of the entries that are translated."""
    form = _plural_form(catalogue.metadata.get("Plural-Forms", ""))
    pairs = []
    for entry in entries:
        if entry.msgid_plural:
            forms = entry.msgstr_plural
            pairs.append((entry.msgid, forms.get(form(1), "")))
            pairs.append((entry.msgid_plural, forms.get(form(5), "")))
        else:
            pairs.append((entry.msgid, entry.msgstr))
    pairs = [(" ".join(source.split()), " ".join(target.split())) for source, target in pairs]
    pairs = [_without_accelerators(*pair) for pair in pairs if all(pair)]
    if not pairs:
        raise ValueError(f"{path}: the catalogue has no translated entry that is not fuzzy")
    return pairs


def _plural_form(header):
    """The function from a number to its plural form, which the header has as an expression in C."""
    expression = re.search(r"plural\s*=([^;]+)", header)
    try:
        form = gettext.c2py(expression[1].strip() if expression else "n != 1")
        form(1), form(5)
        return form
    except (ValueError, ArithmeticError):  # no expression, or a division by zero
        return gettext.c2py("n != 1")


def _without_accelerators(source, target):
    """The pair without the marks of the keys that choose a menu entry: "_Open", "E&xit"."""
    for mark in "_&":
        # "(_O)" whole, where the target has no such letter; not "&lt;", which is a character.
        pattern = re.compile(rf" ?\({mark}\w\)|{mark}(?=[^\W_])(?!\w+;)")
        if not all(
            text.count(mark) == len(pattern.findall(text)) == 1 for text in (source, target)
        ):
            continue
        words = [next(w for w in text.split() if mark in w) for text in (source, target)]
        # Marks within a word on both sides are names, file_name and nom_fichier; so is what stands
        # unchanged within a sentence, "of _start".
        at_start = [word.startswith((mark, f"({mark}")) for word in words]
        named = words[0] == words[1] and not source.startswith(mark)
        if any(at_start) and not named:
            source, target = pattern.sub("", source), pattern.sub("", target)
    return source, target

"""Sentence pairs from files: TSV and Moses' two files here, the others in files of their own."""

from __future__ import annotations

import os
from typing import Literal, get_args

from attnc.data.catalogues import mo_pairs, po_pairs
from attnc.data.checks import short
from attnc.data.tmx import tmx_pairs
from attnc.typing import Path

__all__ = ["read_pairs"]

Format = Literal["tsv", "moses", "po", "mo", "tmx"]

# The format of a file by the end of its name; of others it is "tsv", or "moses" for two files.
ENDINGS: dict[str, Format] = {
    ".po": "po",
    ".mo": "mo",
    ".gmo": "mo",
    ".tmx": "tmx",
    ".tsv": "tsv",
}


def read_pairs(
    path: Path,
    *,
    format: Format | None = None,
    source: str | None = None,
    target: str | None = None,
) -> list[tuple[str, str]]:
    """Read sentence pairs from a file.

    =========  ======================  ==============================================
    format     chosen for              what it is
    =========  ======================  ==============================================
    ``tsv``    ``*.tsv``, all others   a pair a line: ``source TAB target``
    ``moses``  `source` and `target`   two files ``path.source`` and ``path.target``
    ``po``     ``*.po``                a catalogue of gettext
    ``mo``     ``*.mo``, ``*.gmo``     a compiled catalogue of gettext
    ``tmx``    ``*.tmx``               translation memory, two of its languages
    =========  ======================  ==============================================

    Spaces around a sentence are dropped. `normalise` and `tokenise` do the rest.

    **TSV** is the layout of the Tatoeba/Anki files: further columns are ignored, blank lines
    skipped. A line without a tab or with an empty sentence is an error.

    **Moses**: line n of one file translates line n of the other. Lines that are blank in one file
    or both are skipped.

    **Catalogues**: sources are the messages, usually English. Left out are the header, entries
    without a translation, fuzzy ones, which are somebody's guess, and obsolete ones. Of an entry
    with plural forms come the singular with the form for 1, and the plural with the form for 5.
    White space becomes one space. The mark of an accelerator, ``_`` or ``&`` in "_Open" or
    "E&xit", is dropped where both sides have it, with the "(_O)" of languages in other scripts.
    Placeholders such as ``%s`` or ``{name}`` stay, as words to be copied. Contexts (msgctxt) are
    dropped, so that a source may have several targets. Repeated pairs stay. Needs ``polib``, which
    is in ``attnc[data]``.

    **TMX**: units with a segment in both languages. A code stands for all its regions: "en" also
    for "en-GB", a segment of just "en" first. Codes of formatting within a segment (``bpt``,
    ``ept``, ``it``, ``ph``, ``ut``) are dropped, what they surround is kept. White space becomes
    one space. Entities that the file declares are refused, and nothing outside the file is read.

    Parameters
    ----------
    path : str, bytes or path-like
        The file; for Moses, what the names of both files begin with. Text is UTF-8, with or without
        a byte order mark, with any line ends; catalogues and TMX say what else they are in.
    format : {"tsv", "moses", "po", "mo", "tmx"}, optional
        Chosen by the table unless given.
    source, target : str, optional
        For Moses the ends of the two names, as "en" and "fr". For TMX language codes; there
        `source` may be left out where the header names it, `target` where there is one other.

    Returns
    -------
    list of (str, str)
        The pairs in the order of the file, repeated ones included.

    Raises
    ------
    TypeError
        If `path` is no path, or `source` or `target` is no string.
    OSError
        If a file cannot be opened.
    ValueError
        If `format` is none of those named, or languages are given or missing against it; if a file
        is not of its format, or has no pair at all. The message names the file, the line (counted
        from 1) or the entry, and the reason.
    ImportError
        If a catalogue is to be read and polib is not installed.
    """
    where = "read_pairs"
    try:
        path = os.fsdecode(path)
    except TypeError:  # open would read from a number as from a file that is open
        raise TypeError(f"{where}: path must be the name of a file, got {path!r}") from None
    for name, code in (("source", source), ("target", target)):
        if code is not None and not isinstance(code, str):
            raise TypeError(f"{where}: {name} must be a language code, got {short(code)}")
    languages = source is not None and target is not None
    if format is None:
        ending = os.path.splitext(path)[1].lower()
        format = ENDINGS.get(ending, "moses" if languages else "tsv")
    if not isinstance(format, str) or format not in get_args(Format):
        raise ValueError(f"{where}: format must be one of {get_args(Format)}, got {short(format)}")
    if format == "tmx":
        return tmx_pairs(path, source, target)
    if format == "moses":
        if not languages:
            raise ValueError(
                f"{where}: source and target must name the two files for format='moses', "
                f"got {source!r} and {target!r}"
            )
        return _moses_pairs(f"{path}.{source}", f"{path}.{target}")
    if source is not None or target is not None:
        raise ValueError(
            f"{where}: source and target must be left out for format={format!r}, "
            f"got {source!r} and {target!r}"
        )
    return {"tsv": _tsv_pairs, "po": po_pairs, "mo": mo_pairs}[format](path)


def _tsv_pairs(path):
    """The pairs of a file with a pair a line."""
    pairs = []
    lines = _lines(path)
    for count, line in enumerate(lines, start=1):
        where = f"{path}, line {count}"
        columns = [column.strip() for column in line.split("\t")]
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


def _moses_pairs(*paths):
    """The pairs of two files with a sentence a line."""
    sources, targets = sides = [_lines(path) for path in paths]
    for lines in sides:
        if not lines[-1]:  # after the end of the last line
            del lines[-1]
    if len(sources) != len(targets):
        shorter, longer = sorted((0, 1), key=lambda side: len(sides[side]))
        raise ValueError(
            f"{paths[shorter]}, line {len(sides[shorter])}: the file ends here, but "
            f"{paths[longer]} has {len(sides[longer])} lines; "
            "line n of one must translate line n of the other"
        )
    stripped = [(s.strip(), t.strip()) for s, t in zip(sources, targets, strict=True)]
    pairs = [(source, target) for source, target in stripped if source and target]
    if not pairs:
        raise ValueError(
            f"{paths[0]}, line {len(sources)}: the file ends without a single sentence that "
            f"{paths[1]} has too"
        )
    return pairs


def _lines(path):
    """The lines of a UTF-8 file; what follows the last line end is one more."""
    with open(path, "rb") as file:
        content = file.read()
    content = content.removeprefix(b"\xef\xbb\xbf")
    # Cut into lines as bytes: a wrong byte then has a line number. Only real line ends count, not
    # the form feeds and Unicode separators at which str.splitlines would cut too.
    lines = []
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for count, line in enumerate(content.split(b"\n"), start=1):
        where = f"{path}, line {count}"
        if b"\0" in line:
            raise ValueError(
                f"{where}: found a zero byte, which text does not have; "
                "UTF-16 must be saved as UTF-8"
            )
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where}: not UTF-8 text (byte {line[error.start]:#04x} in position "
                f"{error.start}); save the file as UTF-8"
            ) from None
    return lines

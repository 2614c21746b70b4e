"""Sentence pairs from TMX files, the exchange format of translation memories.

The reader is expat, with handlers of our own: nothing is expanded and nothing is opened, since
neither a declaration of an entity nor an unknown entity gets past them.
"""

from __future__ import annotations

from typing import Any

__all__ = ["tmx_pairs"]


CODES = {"bpt", "ept", "it", "ph", "ut"}  # elements of a segment that hold codes, not text


def tmx_pairs(path: str, source: str | None, target: str | None) -> list[tuple[str, str]]:
    """Read the pairs of two languages of a TMX file.

    Parameters
    ----------
    path : str
    source, target : str, optional
        Language codes.

    Returns
    -------
    list of (str, str)

    Raises
    ------
    OSError, ValueError
        As `read_pairs`.
    """
    with open(path, "rb") as file:
        content = file.read()
    reader = _Reader(path)
    reader.read(content)
    found = sorted({language for unit in reader.units for language in unit})
    source, target = _languages(path, reader.source, source, target, found)
    sides = ((_segment(unit, source), _segment(unit, target)) for unit in reader.units)
    pairs = [(here, there) for here, there in sides if here and there]
    if not pairs:
        raise ValueError(
            f"{path}: the file has no unit in both {source!r} and {target!r}; "
            f"its languages are: {', '.join(found) or 'none'}"
        )
    return pairs


class _Reader:
    """The units of a TMX file, each {language: text}, and the source language of its header."""

    def __init__(self, path):
        self.path = path
        self.units: list[dict[str, str]] = []
        self.source: str | None = None
        self.root: str | None = None
        self.unit: dict[str, str] = {}
        self.language = ""
        self.text: list[str] | None = None  # of a segment, while in one
        self.codes = 0  # how deep in codes of a segment

    def read(self, content):
        from xml.parsers import expat

        self.parser: Any = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.EntityDeclHandler = self.entity
        self.parser.SkippedEntityHandler = self.skipped
        try:
            self.parser.Parse(content, True)  # in one: in parts, long ones would be read repeatedly
        except expat.ExpatError as error:
            reason = expat.errors.messages.get(error.code, "")
            raise ValueError(
                f"{self.path}, line {error.lineno}: not well-formed XML ({reason})"
            ) from None
        except (LookupError, UnicodeError) as error:  # of an encoding that Python does not have
            raise ValueError(f"{self.path}, line 1: not XML in its encoding ({error})") from None

    def refuse(self, reason):
        line = self.parser.CurrentLineNumber
        raise ValueError(f"{self.path}, line {line}: {reason}")

    def start(self, name, attributes):
        if self.root is None:
            self.root = name
            if name != "tmx":
                self.refuse(f"the root of a TMX file must be <tmx>, got <{name[:40]}>")
        elif self.text is not None:
            self.codes += name in CODES
        elif name == "header":
            self.source = attributes.get("srclang")
        elif name == "tu":
            self.unit = {}
        elif name == "tuv":
            language = attributes.get("xml:lang") or attributes.get("lang")
            if not language:
                self.refuse('a <tuv> must have a language, as in <tuv xml:lang="en">')
            self.language = _code(language)
        elif name == "seg":
            self.text, self.codes = [], 0

    def end(self, name):
        if self.text is None:
            if name == "tu" and self.unit:
                self.units.append(self.unit)
        elif name == "seg":
            self.unit.setdefault(self.language, " ".join("".join(self.text).split()))
            self.text = None
        else:
            self.codes -= name in CODES

    def characters(self, text):
        if self.text is not None and not self.codes:
            self.text.append(text)

    def entity(self, name, *rest):
        self.refuse(
            f"declares the entity {name[:40]!r}, which could expand without end; "
            "write the text itself and remove the declaration"
        )

    def skipped(self, name, is_parameter):
        if not is_parameter:
            self.refuse(f"the entity &{name[:40]}; is not known; write the character itself")


def _code(language):
    """A language code as it is compared: en-GB, en_gb and EN-gb are one."""
    return language.replace("_", "-").lower()


def _languages(path, header, source, target, found):
    """The codes of both languages, from the file where the caller names none."""
    if source is None:
        if header is None or header == "*all*":
            raise ValueError(
                f"{path}: the header names no one source language; pass source=, one of: "
                f"{', '.join(found)}"
            )
        source = header
    source = _code(source)
    if target is None:
        others = [code for code in found if not _fits(code, source)]
        if len(others) != 1:
            raise ValueError(
                f"{path}: the file has {len(others)} languages besides {source!r}; pass target=, "
                f"one of: {', '.join(others) or 'none'}"
            )
        target = others[0]
    return source, _code(target)


def _fits(code, wanted):
    """Whether a code is the wanted one, or one of its regions."""
    return code == wanted or code.startswith(f"{wanted}-")


def _segment(unit, wanted):
    """The text of a unit in a language, or None."""
    return unit.get(wanted) or next(
        (text for code, text in unit.items() if _fits(code, wanted)), None
    )

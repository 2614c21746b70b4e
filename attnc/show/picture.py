"""What all pictures have: how a notebook shows them, and files of them."""

from __future__ import annotations

import os
from typing import Any

from attnc.arrays import flag
from attnc.files import replacing
from attnc.show import _html
from attnc.show._drawing import Drawing
from attnc.typing import Path

__all__ = ["Picture"]

WIDTH = 80  # columns of a terminal
LEAST = 0.75  # of its size, at which the smallest letters of a drawing can be read


class Picture:
    """A picture as text, HTML and SVG; the base of those in `attnc.show`."""

    def text(self, width: int = WIDTH, *, ascii: bool = False, numbers: bool = False) -> str:
        """The picture as text of at most `width` columns; see `Alignment.text`.

        With `ascii` in ASCII alone, but for the words; with `numbers` in numbers.
        """
        raise NotImplementedError

    def html(self, *, numbers: bool = False) -> str:
        """The picture as HTML, returned as a fragment; with `numbers` written into the cells.

        Where it is wider than the page it shrinks as far as it can be read, and then scrolls.
        """
        numbers = flag(f"{type(self).__name__}.html", "numbers", numbers)
        return f'<div style="overflow-x:auto">{self._drawing(numbers).svg(LEAST)}</div>'

    def svg(self, *, numbers: bool = False) -> str:
        """The picture as SVG, returned as one element; with `numbers` written into the cells."""
        return self._drawing(numbers).svg()

    def _drawing(self, numbers: bool = False) -> Drawing:
        """The picture laid out, for SVG and for matplotlib."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": self.text()}

    def _formats(self) -> dict[str, Any]:
        """What makes the text of a file, by the end of its name."""
        return {
            ".html": lambda: _html.document(self.html(), self._label()),
            ".svg": lambda: '<?xml version="1.0" encoding="UTF-8"?>\n' + self.svg() + "\n",
            ".txt": lambda: self.text() + "\n",
        }

    def _label(self) -> str:
        """What it shows, in one line."""
        return self._drawing().label

    def save(self, path: Path) -> None:
        """Write the picture to a file, whole or not at all, in the format that `path` ends in.

        Parameters
        ----------
        path : str, bytes or os.PathLike
            Ends in ``.html``, ``.svg`` or ``.txt``; those of maps also in ``.tex``, those of
            animations in ``.html``, ``.txt`` or ``.gif``.

        Raises
        ------
        OSError
            If the file cannot be written; an earlier one is then as it was.
        TypeError
            If `path` is no path.
        ValueError
            If `path` ends otherwise.
        """
        formats = self._formats()
        where = f"{type(self).__name__}.save"
        try:
            name = os.fsdecode(path)
        except TypeError:
            raise TypeError(f"{where}: path must be a path, got {path!r}") from None
        suffix = os.path.splitext(name)[1].lower()
        if suffix not in formats:
            raise ValueError(f"{where}: path must end in {' or '.join(formats)}, got {name!r}")
        content = formats[suffix]()
        if isinstance(content, str):
            content = content.encode("utf-8")
        with replacing(path) as file:
            file.write(content)

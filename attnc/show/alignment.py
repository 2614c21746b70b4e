"""`Alignment`: the weights of one sequence and head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from attnc import _arguments as arguments
from attnc.arrays import flag, integer
from attnc.show import _html, _latex, _map_drawing, _text, _words
from attnc.show._drawing import Drawing
from attnc.show._map import Map
from attnc.show._values import Scale
from attnc.show.picture import WIDTH, Picture
from attnc.typing import Array, Real

__all__ = ["Alignment"]


class Alignment(Picture):
    """Which query attends to which key: the weights of one sequence and one head, as a map.

    A row for each query, a column for each key, as in Bahdanau, Cho and Bengio (2015), figure 3.
    Printed it is text, in a notebook a table that shows each weight in full where the mouse is;
    it needs neither matplotlib nor scripts nor a network.

    Parameters
    ----------
    weights : array_like, shape (Tq, Tk)
        Weights in 0..1, scores, or a mask (bool). It is copied.
    queries, keys : sequence of Tq, of Tk, optional
        What to write beside the rows and above the columns, as in `attnc.plot.heat_map`: anything
        with a ``str``; a string is a sequence of characters. Numbers from 0 unless given.
    title : str, optional
        Above the map.
    query_name, key_name : str
        What rows and columns are.
    most : int
        How many rows and columns are drawn. A larger map is reduced to blocks, and says so.
    reduce : {"mean", "max"}
        What a block is drawn as. The mean keeps the sum of what is given to its keys, so that
        light and dark blocks compare as what they stand for; the maximum keeps a single large
        weight visible, but makes of many small ones as much as of a few.
    scores : bool, optional
        True for scores: two hues, up to the largest absolute value. False for weights: one hue, up
        to 1, in a reduced map up to the largest mean. By default scores are what has a number
        outside 0..1; a line below the map says which it is.

    Raises
    ------
    TypeError
        If `weights` are not real (or a masked array), or another argument is of a wrong kind.
    ValueError
        If `weights` have not two axes or are empty, or a label is missing or left over.

    See Also
    --------
    Heads : Several maps side by side.
    attnc.plot.heat_map : The same with matplotlib, into given Axes.

    Notes
    -----
    What is not finite is grey, with ``NaN``, ``∞`` or ``−∞`` in its cell. Characters that control
    and that turn the order of letters are written as escapes, such as ``\\n``. A label of more
    than 100 characters is shortened.

    Terminals differ in how wide they draw some characters. Columns are aligned for those that
    follow Unicode: two columns for a Chinese character or an emoji, one for a block such as ``█``;
    where a terminal draws blocks wide, as some do in Chinese and Japanese settings, ``ascii=True``
    has none. Words from right to left come with marks (U+200E) that keep each in its column.

    Examples
    --------
    >>> weights = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3]])
    >>> alignment = Alignment(weights, ["je", "suis"], ["I", "am", "here"])
    >>> print(alignment)
         I  am here
    je   ██
    suis ░░ ▒▒ ░░
    blank to 0.125, ░ to 0.375, ▒ to 0.625, ▓ to 0.875, █ to 1
    >>> print(alignment.text(numbers=True))
            I   am here
    je   0.90 0.10 0.00
    suis 0.20 0.50 0.30
    """

    def __init__(
        self,
        weights: Real,
        queries: Iterable[object] | None = None,
        keys: Iterable[object] | None = None,
        *,
        title: str | None = None,
        query_name: str = "queries",
        key_name: str = "keys",
        most: int = 64,
        reduce: Literal["mean", "max"] = "mean",
        scores: bool | None = None,
    ) -> None:
        where = "Alignment"
        more = " (one sequence and head is weights[{}])"
        array = arguments.shaped(where, "weights", weights, ["(Tq, Tk)"], more=more)
        self.weights: Array = np.array(array)
        self.queries = arguments.labels(where, "queries", queries, array.shape, 0)
        self.keys = arguments.labels(where, "keys", keys, array.shape, 1)
        self.title = "" if title is None else _words.visible(title)
        self._names = (str(query_name), str(key_name))
        self._most = integer(where, "most", most, least=1)
        if reduce not in ("mean", "max"):
            raise ValueError(f"{where}: reduce must be 'mean' or 'max', got {reduce!r}")
        self._reduce = reduce
        self._scores = None if scores is None else flag(where, "scores", scores)
        self._scale: Scale | None = None  # of others beside it

    def __repr__(self) -> str:
        name = f" {self.title!r}" if self.title else ""
        return f"<Alignment{name} of {self.weights.shape[0]} x {self.weights.shape[1]}>"

    def _map(self, most_rows: int, most_columns: int) -> Map:
        return Map(
            self.weights,
            self.queries,
            self.keys,
            self._names,
            self.title,
            self._scores,
            (most_rows, most_columns),
            self._reduce,
            self._scale,
        )

    def _label(self) -> str:
        return self._map(1, 1).summary()

    def text(self, width: int = WIDTH, *, ascii: bool = False, numbers: bool = False) -> str:
        """The map as text, columns aligned.

        Where keys have no room above their columns they are shortened, then numbered and listed
        below; where even the cells have none, the map is reduced.

        Parameters
        ----------
        width : int
            How many columns the text may take, at least 20.
        ascii : bool
            Draw with ``.+x#`` instead of blocks. Words stay as they are.
        numbers : bool
            Write the weights as numbers, as many digits each, instead of shades.

        Returns
        -------
        str
        """
        where = "Alignment.text"
        width = integer(where, "width", width, least=20)
        ascii = flag(where, "ascii", ascii)
        numbers = flag(where, "numbers", numbers)
        return _text.map_text(self._map, width, ascii, numbers, self._most)

    def html(self, *, numbers: bool = False) -> str:
        """The map as HTML: a table with its style inside, each weight in full under the mouse.

        Parameters
        ----------
        numbers : bool
            Write the weights into the cells, with two digits after the point.

        Returns
        -------
        str
            A fragment without scripts, style sheets or links. For light and dark pages.
        """
        numbers = flag("Alignment.html", "numbers", numbers)
        return _html.map_table(self._map(self._most, self._most), numbers)

    def svg(self, *, numbers: bool = False) -> str:
        """The map as SVG, for slides and papers.

        Parameters
        ----------
        numbers : bool
            Write the weights into the cells, with two digits after the point.

        Returns
        -------
        str
            One element, valid XML. Its letters are in the reader's sans-serif font and in the
            colour of the page around it, black in a file of its own.
        """
        return self._drawing(flag("Alignment.svg", "numbers", numbers)).svg()

    def _drawing(self, numbers: bool = False) -> Drawing:
        drawn = self._map(self._most, self._most)
        picture = _map_drawing.draw_map(drawn, numbers)
        return _map_drawing.add_notes(picture, drawn.notes())

    def latex(self, *, numbers: bool = False) -> str:
        """The map as LaTeX: a tabular whose cells have colours.

        Parameters
        ----------
        numbers : bool
            Write the weights into the cells, with two digits after the point.

        Returns
        -------
        str
            A fragment for the body of a document. It begins with a comment that names the packages
            of the preamble. Words in other alphabets need xelatex or lualatex.
        """
        numbers = flag("Alignment.latex", "numbers", numbers)
        return _latex.map_latex(self._map(self._most, self._most), numbers)

    def _formats(self) -> dict[str, Any]:
        return {**super()._formats(), ".tex": self.latex}

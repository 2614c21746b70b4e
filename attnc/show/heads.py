"""`Heads`: the maps of several heads, and of several layers, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np

from attnc import _arguments as arguments
from attnc.arrays import flag, integer
from attnc.show import _html, _latex, _map_drawing, _text, _words
from attnc.show._drawing import Drawing
from attnc.show._map import Map, common_scale
from attnc.show.alignment import Alignment
from attnc.show.picture import WIDTH, Picture
from attnc.typing import Array, Real

__all__ = ["Heads"]

SHARED = 128  # rows and columns of cells that heads share: as many as a page of them can show
LEAST = 8  # rows and columns that each has nevertheless
BESIDE = 4  # maps side by side where layers do not say it
SPACE = 16.0  # pixels between maps


class Heads(Picture):
    """The weights of several heads, and of several layers, as maps side by side.

    Colours mean the same in all maps, and one line below them says what.

    Parameters
    ----------
    weights : array_like, shape (H, Tq, Tk) or (layers, H, Tq, Tk)
        The weights of one sequence, as `Alignment` takes those of one head. They are copied.
    queries, keys : sequence of Tq, of Tk, optional
        What to write beside the rows and above the columns, as in `Alignment`.
    layers, heads : sequence of str, optional
        What to call them: "layer 0", ... and "head 0", ... unless given.
    title : str, optional
        Above all maps.
    query_name, key_name : str
        What rows and columns are.
    most : int
        How many rows and columns of each map are drawn at most; fewer where there are many heads.
        A larger map is reduced to blocks, and says so.
    reduce : {"mean", "max"}
        What a block is drawn as, as in `Alignment`.
    scores : bool, optional
        Whether these are scores, as in `Alignment`.

    Raises
    ------
    TypeError
        If `weights` are not real (or a masked array), or another argument is of a wrong kind.
    ValueError
        If `weights` have another number of axes or are empty, or a label or a name is missing or
        left over.

    See Also
    --------
    attnc.plot.head_grid : The same with matplotlib.

    Examples
    --------
    >>> weights = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.5, 0.5]]])
    >>> heads = Heads(weights, ["je", "suis"], ["I", "am"])
    >>> print(heads)
    head 0      head 1
         I  am       I  am
    je   ██     je      ██
    suis    ██  suis ▒▒ ▒▒
    blank to 0.125, ░ to 0.375, ▒ to 0.625, ▓ to 0.875, █ to 1
    >>> heads[1]
    <Alignment 'head 1' of 2 x 2>
    """

    def __init__(
        self,
        weights: Real,
        queries: Iterable[object] | None = None,
        keys: Iterable[object] | None = None,
        *,
        layers: Iterable[object] | None = None,
        heads: Iterable[object] | None = None,
        title: str | None = None,
        query_name: str = "queries",
        key_name: str = "keys",
        most: int = 64,
        reduce: Literal["mean", "max"] = "mean",
        scores: bool | None = None,
    ) -> None:
        where = "Heads"
        array = arguments.shaped(
            where,
            "weights",
            weights,
            ["(layers, H, Tq, Tk)", "(H, Tq, Tk)"],
            less=" (for one map: Alignment)",
            more=" (one sequence is weights[{}])",
        )
        self.weights: Array = np.array(array)
        *self._lead, Tq, Tk = array.shape
        self.queries = arguments.labels(where, "queries", queries, (Tq, Tk), 0)
        self.keys = arguments.labels(where, "keys", keys, (Tq, Tk), 1)
        self.title = "" if title is None else _words.visible(title)
        grid = self.weights.reshape(-1, *array.shape[-3:])
        what = "layer" if array.ndim == 4 else ""
        self._layers = arguments.titles(where, "layers", layers, grid.shape[0], what)
        self._heads = arguments.titles(where, "heads", heads, grid.shape[1], "head")
        count = grid.shape[0] * grid.shape[1]
        most = integer(where, "most", most, least=1)
        self._most = min(most, max(LEAST, int(SHARED / math.sqrt(count))))
        self._scores = None if scores is None else flag(where, "scores", scores)
        self.alignments = [
            Alignment(
                grid[row, column],
                self.queries,
                self.keys,
                title=", ".join(filter(None, (self._layers[row], self._heads[column]))),
                query_name=query_name,
                key_name=key_name,
                most=self._most,
                reduce=reduce,
                scores=self._scores,
            )
            for row, column in np.ndindex(*grid.shape[:2])
        ]
        scale = common_scale(self.weights, self._maps(), self._scores)
        for each in self.alignments:
            each._scale = scale
        self._across = grid.shape[1]
        if array.ndim == 3:
            self._across = arguments.columns(where, None, count, BESIDE)

    def __repr__(self) -> str:
        name = f" {self.title!r}" if self.title else ""
        return f"<Heads{name} of {' x '.join(map(str, self.weights.shape))}>"

    def __getitem__(self, index: int | tuple[int, int]) -> Alignment:
        """The map of one head: ``heads[h]``, or ``heads[layer, h]`` where there are layers."""
        given = index if isinstance(index, tuple) else (index,)
        fits = len(given) == len(self._lead) and all(
            isinstance(k, (int, np.integer)) and not isinstance(k, bool) and -size <= k < size
            for k, size in zip(given, self._lead, strict=True)
        )
        if not fits:
            wanted = "(layer, head)" if len(self._lead) == 2 else "the number of a head"
            sizes = " x ".join(map(str, self._lead))
            raise IndexError(f"Heads: index must be {wanted}, of {sizes}, got {index!r}")
        places = np.arange(len(self.alignments)).reshape(self._lead)
        return self.alignments[int(places[given])]

    def __iter__(self) -> Iterator[Alignment]:
        """The maps of all heads, layer by layer."""
        return iter(self.alignments)

    def _maps(self) -> list[Map]:
        return [each._map(self._most, self._most) for each in self.alignments]

    def _label(self) -> str:
        title = f"{self.title}: " if self.title else ""
        kind = "x".join(map(str, self._lead)) + " maps"
        return f"{title}{kind} of attention, {self.weights.shape[-2]} x {self.weights.shape[-1]}"

    def text(self, width: int = WIDTH, *, ascii: bool = False, numbers: bool = False) -> str:
        """The maps as text, as many side by side as there is room for.

        Parameters
        ----------
        width, ascii, numbers
            As in `Alignment.text`.

        Returns
        -------
        str
        """
        where = "Heads.text"
        width = integer(where, "width", width, least=20)
        ascii = flag(where, "ascii", ascii)
        numbers = flag(where, "numbers", numbers)
        drawn = self._maps()[0]
        blocks = [
            _text.map_text(each._map, width, ascii, numbers, self._most, told=False)
            for each in self.alignments
        ]
        parts = _text.wrapped(self.title, width) if self.title else []
        across = self._across if len(self._lead) == 2 else len(blocks)
        rows = [blocks[n : n + across] for n in range(0, len(blocks), across)]
        parts.append("\n\n".join(_text.beside(row, width) for row in rows))
        if not numbers:
            parts += _text.wrapped(_text.legend(drawn.scale, self.weights, ascii), width)
        for note in drawn.notes()[1:]:
            parts += _text.wrapped(note, width)
        return "\n".join(parts)

    def html(self, *, numbers: bool = False) -> str:
        """The maps as HTML, one table each, side by side where there is room.

        Parameters
        ----------
        numbers : bool
            Write the weights into the cells.

        Returns
        -------
        str
            A fragment, as `Alignment.html` returns it.
        """
        numbers = flag("Heads.html", "numbers", numbers)
        maps = self._maps()
        tables = [_html.map_table(each, numbers, notes=False) for each in maps]
        return _html.group(tables, self.title, self._label(), maps[0].notes())

    def svg(self, *, numbers: bool = False) -> str:
        """The maps as SVG: a row a layer, a column a head; words at the edges alone.

        Parameters
        ----------
        numbers : bool
            Write the weights into the cells.

        Returns
        -------
        str
            One element, as `Alignment.svg` returns it.
        """
        return self._drawing(flag("Heads.svg", "numbers", numbers)).svg()

    def _drawing(self, numbers: bool = False) -> Drawing:
        maps = self._maps()
        picture = Drawing(self._label())
        top = 0.0
        if self.title:
            picture.word(2, 20, self.title, 16, bold=True)
            top = 30.0
        parts = [
            _map_drawing.draw_map(each, numbers, n % self._across == 0, n < self._across, 12)
            for n, each in enumerate(maps)
        ]
        columns = [
            max(part.width for part in parts[k :: self._across]) for k in range(self._across)
        ]
        for n in range(0, len(parts), self._across):
            row, left = parts[n : n + self._across], 0.0
            for part, width in zip(row, columns, strict=False):
                picture.place(part, left, top)
                left += width + SPACE
            top += max(part.height for part in row) + SPACE
        return _map_drawing.add_notes(picture, maps[0].notes())

    def latex(self, *, numbers: bool = False) -> str:
        """The maps as LaTeX, a tabular each.

        Parameters
        ----------
        numbers : bool
            Write the weights into the cells.

        Returns
        -------
        str
            A fragment, as `Alignment.latex` returns it.
        """
        numbers = flag("Heads.latex", "numbers", numbers)
        texts = [_latex.map_latex(each, numbers) for each in self._maps()]
        lines = [line for text in texts for line in text.split("\n")]
        comments = list(dict.fromkeys(line for line in lines if line.startswith("%")))
        bodies = [
            "\n".join(line for line in text.split("\n") if not line.startswith("%"))
            for text in texts
        ]
        bodies = [bodies[0], *(body.replace("\\noindent", "", 1) for body in bodies[1:])]
        between = "\\hskip 1em plus 1fil\\relax\n"  # a line may end there
        return "\n".join([*comments, between.join(bodies)])

    def _formats(self) -> dict[str, Any]:
        return {**super()._formats(), ".tex": self.latex}

"""A table of arrays by name, each with its formula: printed, as HTML, with words at its rows.

Of an array with leading axes one matrix is shown, and which. `Table.shown` chooses it.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from attnc._arguments import in_order
from attnc.arrays import flag, integer
from attnc.show._html import rgba
from attnc.show._values import Scale, exact
from attnc.teaching.numbers import aligned, label, lines
from attnc.typing import Array

MOST = 12  # rows and columns that HTML shows
WIDTH = 78  # of what is printed


class Entry(NamedTuple):
    """An array of a table.

    What is no mathematics in a formula stands between ` and `, which are not shown. `axes` names
    the axes: i the queries, j the keys, h the heads, g the heads of keys, any other letter
    something else; "..." are those of the batch. The last two that are no heads are the matrix that
    is shown.
    """

    formula: str
    array: Array
    axes: str = ""


class View(NamedTuple):
    """What of a table is shown, and how."""

    queries: tuple[str, ...] | None = None
    keys: tuple[str, ...] | None = None
    at: tuple[int, ...] = ()
    digits: int = 4


class Matrix(NamedTuple):
    """A matrix of an entry, the words of its rows and columns, and which one it is."""

    numbers: Array
    rows: tuple[str, ...] | None
    columns: tuple[str, ...] | None
    which: str


class Table:
    """Arrays by name, each with a formula, that print as a table.

    An array is an attribute of its name. It can be written to, but no other can take its place.
    """

    _title: str
    _formulas: dict[str, str]
    _axes: dict[str, str]
    _leads: tuple[int, ...]  # the axes of the batch
    _heads: int | None
    _sizes: dict[str, int]  # of the axes that words may name
    _view: View

    def __init__(
        self,
        title: str,
        entries: dict[str, Entry],
        leads: tuple[int, ...] = (),
        heads: int | None = None,
        sizes: dict[str, int] | None = None,
        view: View | None = None,
    ) -> None:
        vars(self).update(
            _title=title,
            _formulas={name: entry.formula for name, entry in entries.items()},
            _axes={name: entry.axes for name, entry in entries.items()},
            _leads=leads,
            _heads=heads,
            _sizes=sizes or {},
            _view=view or View(),
        )
        vars(self).update({name: np.array(entry.array) for name, entry in entries.items()})

    def __getattr__(self, name: str) -> Any:
        """Only of what there is not: say what there is."""
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"{name} is not in {self._title}, which has {', '.join(self._formulas)}"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} of {self._title} cannot be set: it is what was computed")

    @property
    def formulas(self) -> dict[str, str]:
        """dict of str to str: the formula of each array by its name, in the order of the table."""
        return {name: _plain(formula) for name, formula in self._formulas.items()}

    def shown(
        self,
        *,
        queries: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        at: int | Sequence[int] | None = None,
        digits: int | None = None,
    ) -> Self:
        """The same arrays, printed in another way.

        Parameters
        ----------
        queries, keys : sequence of str, optional
            A word for each query and each key: at the rows and columns of what belongs to them.
        at : int or sequence of int, optional
            Which element is shown, by its index on the leading axes of the scores, such as
            ``(sequence, head)``; 0 unless given, and 0 on axes that follow. For what has one more
            axis than the scores, the tanh units of the additive score, a last index chooses the
            query.
        digits : int, optional
            Digits behind the decimal point, at most; 4 unless given.

        Returns
        -------
        Stages or other table
            With the same arrays. What is not given stays as it was; `gradients` of it are shown
            likewise.

        Raises
        ------
        TypeError
            If words are no strings, or an index or digits no integers.
        ValueError
            If there are more or fewer words than queries or keys, none to be named, or an index is
            out of range.

        Examples
        --------
        >>> import numpy as np, attnc
        >>> s = attnc.stages(attnc.attend, np.eye(2), np.eye(2))
        >>> s = s.shown(queries=["le", "chat"], keys=["the", "cat"], digits=2)
        >>> print("\\n".join(str(s).splitlines()[-7:-3]))
        weights  (2, 2)  w_ij = exp(l_ij) / sum_j exp(l_ij): softmax over j
                   the   cat
            le    0.73  0.27
            chat  0.27  0.73
        """
        view = self._view
        if queries is not None:
            view = view._replace(queries=self._words("queries", queries, "i"))
        if keys is not None:
            view = view._replace(keys=self._words("keys", keys, "j"))
        if at is not None:
            view = view._replace(at=self._index(at))
        if digits is not None:
            view = view._replace(digits=integer("shown", "digits", digits, 0, 17))
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), _view=view)
        return twin

    def _words(self, name: str, words: Any, axis: str) -> tuple[str, ...]:
        """Those of an axis, checked."""
        if axis not in self._sizes:
            raise ValueError(
                f"shown: {name} must be None for {self._title}, got words: it has no {name}"
            )
        if isinstance(words, (str, bytes)):
            raise TypeError(
                f"shown: {name} must be a sequence of words, got {words!r} (for one word a key: "
                f"{name}=text.split(), for one letter a key: {name}=list(text))"
            )
        in_order("shown", name, words)
        try:
            found = tuple(words)
        except TypeError:
            raise TypeError(
                f"shown: {name} must be a sequence of words, got {type(words).__name__}"
            ) from None
        for word in found:
            if not isinstance(word, str):
                raise TypeError(f"shown: {name} must be strings, got {type(word).__name__}")
        if len(found) != self._sizes[axis]:
            raise ValueError(
                f"shown: {name} must be {self._sizes[axis]} words, one of each, got {len(found)}"
            )
        return tuple(map(str, found))

    def _index(self, at: Any) -> tuple[int, ...]:
        """An index on the leading axes, checked."""
        try:
            given = tuple(at)
        except TypeError:
            given = (at,)
        index = tuple(integer("shown", "at", k) for k in given)
        room = self._leads if self._heads is None else (*self._leads, self._heads)
        if any(axes.endswith("ijd") for axes in self._axes.values()):
            room = (*room, self._sizes["i"])
        if len(index) > len(room):
            raise ValueError(f"shown: at must have {len(room)} or fewer indices, got {index}")
        for k, size in zip(index, room, strict=False):
            if not 0 <= k < max(size, 1):
                raise ValueError(
                    f"shown: at must be an index of the leading axes {room}, got {index}"
                )
        return index

    def svg(self, *, names: Sequence[str] | None = None, numbers: bool = False) -> str:
        """The matrices as coloured grids, one after the other, for slides.

        Parameters
        ----------
        names : sequence of str, optional
            Which arrays, in this order; all of them unless given.
        numbers : bool
            Whether the numbers are written into the cells, with two digits behind the point.

        Returns
        -------
        str
            One ``<svg>`` element, with the words and the element that `shown` chose. It needs
            neither scripts nor fonts, and letters have the colour of the page's.

        Raises
        ------
        TypeError, ValueError
            If `names` are not names of arrays here, or `numbers` is not a bool.
        """
        from attnc.teaching.drawing import draw_chain

        names = self._chosen("svg", names)
        entries = [(name, _plain(self._formulas[name]), self._matrix(name)) for name in names]
        numbers = flag("svg", "numbers", numbers)
        return draw_chain(self._title, entries, numbers, self._view.digits).svg()

    def latex(self, *, names: Sequence[str] | None = None) -> str:
        """The formulas in LaTeX, with the matrices that are small, for slides.

        Parameters
        ----------
        names : sequence of str, optional
            Which arrays, in this order; all of them unless given.

        Returns
        -------
        str
            A fragment, after a comment on the packages that it needs. Matrices of at most 8 rows
            and columns are written out, with the words and digits that `shown` chose.

        Raises
        ------
        TypeError, ValueError
            If `names` are not names of arrays here.

        Examples
        --------
        >>> import numpy as np, attnc
        >>> s = attnc.stages(attnc.attend, np.zeros((1, 2)), np.eye(2))
        >>> print(s.latex(names=["weights"]).splitlines()[5][:60])
        \\text{weights} & w_{ij} = \\frac{\\exp(l_{ij})}{\\sum_{j} \\exp(
        """
        from attnc.teaching.latex import table_latex

        names = self._chosen("latex", names)
        entries = [(name, self._formulas[name], self._matrix(name)) for name in names]
        return table_latex(self._title, entries, self._view.digits)

    def _chosen(self, where: str, names: Any) -> list[str]:
        """Names of arrays, checked."""
        if names is None:
            return list(self._formulas)
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(f"{where}: names must be a sequence of names, got {names!r}")
        for name in names:
            if not isinstance(name, str) or name not in self._formulas:
                raise ValueError(
                    f"{where}: names must be of {', '.join(self._formulas)}, got {name!r}"
                )
        return list(names)

    # ---- What is shown ---------------------------------------------------------------------------

    def _matrix(self, name: str) -> Matrix:
        """The matrix of an array that is shown."""
        array, letters = np.asarray(getattr(self, name)), self._axes[name].removeprefix("...")
        at = dict(enumerate(self._view.at))  # of what is not said, the first
        lead, batch = array.ndim - len(letters), len(self._leads)
        index: list[Any] = []
        for axis, size in enumerate(array.shape[:lead]):
            k = at.get(axis + batch - lead, 0)
            index.append(k if size > 1 else 0)
        which = [f"[{', '.join(map(str, index))}] of {array.shape[:lead]}"] if index else []
        matrix = [letter for letter in letters if letter not in "hg"][-2:]
        for letter, size in zip(letters, array.shape[lead:], strict=True):
            if letter in matrix:
                index.append(slice(None))
            elif letter in "hg":
                index.append(at.get(batch, 0) * size // (self._heads or 1))
                which.append(f"head {index[-1]} of {size}")
            else:  # i of the units
                index.append(at.get(batch + bool(self._heads), 0))
                which.append(f"query {index[-1]} of {size}")
                if self._view.queries and index[-1] < size:
                    which[-1] += f" ({label(self._view.queries[index[-1]])})"
        if not array.size:
            return Matrix(np.empty((0, 0)), None, None, "")
        array = array[tuple(index)]
        array = np.atleast_2d(array)
        given = {"i": self._view.queries, "j": self._view.keys}
        words = [None, None, *(given.get(letter) for letter in matrix)][-2:]
        # An option may be the same for all queries or keys: its one row is none of theirs.
        rows, columns = (
            each if each and len(each) == size else None
            for each, size in zip(words, array.shape, strict=True)
        )
        return Matrix(array, rows, columns, ", ".join(which))

    @np.errstate(all="ignore")
    def __repr__(self) -> str:
        names = list(self._formulas)
        name_width = max(map(len, names))
        shapes = {name: str(np.shape(getattr(self, name))) for name in names}
        shape_width = max(map(len, shapes.values()))
        out = [self._title]
        for name, formula in self._formulas.items():
            start = f"{name:{name_width}}  {shapes[name]:{shape_width}}  "
            wrapped = textwrap.wrap(_plain(formula), max(WIDTH - len(start), WIDTH // 3)) or [""]
            out.append((start + wrapped[0]).rstrip())
            out += [" " * (len(start) + 2) + line for line in wrapped[1:]]
            numbers, rows, columns, which = self._matrix(name)
            if which:
                out.append(f"    {which}")
            out += lines(numbers, self._view.digits, rows, columns)
        return "\n".join(out)

    @np.errstate(all="ignore")
    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='{TOP}'>{name}</th>"
            f"<td style='{TOP};min-width:15em'><code>{html.escape(_plain(formula))}</code>"
            f"<br>{np.shape(getattr(self, name))}</td>"
            f"<td style='{TOP}'>{_as_html(self._matrix(name), self._view.digits)}</td></tr>"
            for name, formula in self._formulas.items()
        )
        table = f"<table><caption>{html.escape(self._title)}</caption>{rows}</table>"
        return f"<div style='overflow-x:auto'>{table}</div>"


class Computed(Table):
    """A table that is pickled and copied as the call that it is computed from."""

    _call: tuple[Any, ...]

    def __reduce__(self):
        return type(self), self._call, {"_view": self._view}


def _plain(formula: str) -> str:
    """Without the marks around what is no mathematics."""
    return formula.replace("`", "")


# ---- One matrix as HTML --------------------------------------------------------------------------

TOP = "text-align:left;vertical-align:top;padding:2px 8px"
CELL = "text-align:right;padding:1px 6px;white-space:pre;color:inherit"


def _as_html(matrix: Matrix, digits: int) -> str:
    """A matrix, shaded: blue above 0, orange below; a cell is titled with its exact number."""
    numbers, rows, columns, which = matrix
    shown = numbers[:MOST, :MOST]
    notes = [which] if which else []
    if shown.shape != numbers.shape:
        notes.append(f"the first {shown.shape} of {numbers.shape}")
    strengths = Scale(shown, True).strengths(shown)
    texts = aligned(shown, digits)
    out = []
    if columns is not None:
        heads = "".join(_word(word) for word in columns[:MOST])
        out.append("<tr>" + "<td></td>" * (rows is not None) + heads + "</tr>")
    for i, line in enumerate(texts):
        side = "" if rows is None else _word(rows[i])
        cells = "".join(
            f"<td style='{CELL};background:{rgba(float(strengths[i, j]))}' "
            f"title='{exact(shown[i, j])}'>{text}</td>"
            for j, text in enumerate(line)
        )
        out.append(f"<tr>{side}{cells}</tr>")
    note = html.escape(" ".join(notes))
    return f"<table style='font-family:monospace'>{''.join(out)}</table>{note}"


def _word(word: str) -> str:
    return f"<th style='{CELL}'><bdi>{html.escape(label(word))}</bdi></th>"

"""What the parameters of a layer are, as a table: `summary`."""

from __future__ import annotations

from typing import Any, NamedTuple

from attnc.layers.base import Layer
from attnc.layers.named import place
from attnc.typing import Shape

__all__ = ["Summary", "SummaryRow", "summary"]


class SummaryRow(NamedTuple):
    """One name of `Layer.parameters`.

    Parameters
    ----------
    name : str
    shape : tuple of int
    size : int
        How many numbers; 0 where it is tied to one before, which counts them.
    dtype : str
    frozen : bool
    tied : str or None
        The first name of the same array, where this is another.
    """

    name: str
    shape: Shape
    size: int
    dtype: str
    frozen: bool
    tied: str | None

    @property
    def note(self) -> str:
        """str: what the table says of it besides."""
        tied = f"tied to {self.tied}" if self.tied else ""
        return ", ".join(filter(None, ("frozen" if self.frozen else "", tied)))


class Summary:
    """What `summary` returns: prints as a table, and is one in a notebook.

    Parameters
    ----------
    title : str
    rows : tuple of SummaryRow

    Attributes
    ----------
    count : int
        Numbers in all parameters, tied ones counted once.
    trained : int
        Those of them that are not frozen.
    """

    def __init__(self, title: str, rows: tuple[SummaryRow, ...]) -> None:
        self.title, self.rows = title, rows
        self.count = sum(row.size for row in rows)
        self.trained = sum(row.size for row in rows if not row.frozen)

    def _cells(self):
        """The rows of the table, as text."""
        yield "parameter", "shape", "count", "dtype", ""
        for row in self.rows:
            count = "" if row.tied else f"{row.size:,}"
            yield row.name, str(row.shape), count, row.dtype, row.note
        frozen = f"{self.trained:,} trained" if self.trained < self.count else ""
        yield "total", "", f"{self.count:,}", "", frozen

    def __repr__(self) -> str:
        rows = list(self._cells())
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        aligned = "<<><<"
        lines = (
            "  ".join(f"{c:{a}{w}}" for c, a, w in zip(row, aligned, widths, strict=True))
            for row in rows
        )
        return "\n".join([self.title, *(line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        import html  # here, because only a notebook needs it

        def cell(text, row, column):
            kind = "td" if row and column else "th"
            align = "right" if column == 2 else "left"
            return f"<{kind} style='text-align:{align}'>{html.escape(text)}</{kind}>"

        rows = "".join(
            f"<tr>{''.join(cell(text, k, column) for column, text in enumerate(row))}</tr>"
            for k, row in enumerate(self._cells())
        )
        return f"<table><caption>{html.escape(self.title)}</caption>{rows}</table>"


def summary(layer: Layer) -> Summary:
    """The parameters of a layer as a table: name, shape, count, dtype, frozen or tied, total.

    Parameters
    ----------
    layer : Layer

    Returns
    -------
    Summary
        With the attributes `rows`, `count`, `trained`. Printed, or as the value of a notebook's
        cell, it is the table.

    Raises
    ------
    TypeError
        If `layer` is no layer.

    See Also
    --------
    Layer.parameter_count : the total alone

    Examples
    --------
    >>> import attnc
    >>> model = attnc.Sequential(attnc.Embedding(1000, 8), attnc.Linear(8, 1000))
    >>> model.tie("layers.1.weight", model, "layers.0.weight", transpose=True)
    >>> attnc.summary(model.freeze("layers.0.*"))
    Parameters of Sequential
    parameter        shape      count  dtype
    layers.0.weight  (1000, 8)  8,000  float32  frozen
    layers.1.weight  (8, 1000)         float32  frozen, tied to layers.0.weight
    layers.1.bias    (1000,)    1,000  float32
    total                       9,000           1,000 trained
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"summary: layer must be a Layer, got {type(layer).__name__}")
    first: dict[Any, str] = {}
    frozen, rows = set(layer.frozen_parameters), []
    for name, array in layer.parameters.items():
        other = first.setdefault(place(array), name)
        tied = None if other == name else other
        size = 0 if tied else array.size
        rows.append(SummaryRow(name, array.shape, size, array.dtype.name, name in frozen, tied))
    return Summary(f"Parameters of {type(layer).__name__}", tuple(rows))

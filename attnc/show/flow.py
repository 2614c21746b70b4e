"""`gradient_flow`: how large the stages of attention are, and the gradients that flow back."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from attnc import functional
from attnc.arrays import flag, integer
from attnc.show import _text
from attnc.show._drawing import Drawing, measure
from attnc.show._map_drawing import add_notes
from attnc.show._values import ABOVE, BELOW, OTHER
from attnc.show.picture import WIDTH, Picture
from attnc.typing import Real

__all__ = ["GradientFlow", "gradient_flow"]

# Which stage an argument goes into; all others go into the first.
INTO = {"value": "context", "bias": "masked", "slope": "masked", "center": "masked"}
INTO |= {"sink": "weights", "score_vector": "scores"}
# What the stages of the rows that heads look for, find by and find end in, by their arguments.
HEADS = {"query": "queries", "key": "keys", "value": "values"}

BOX, HIGH, ACROSS, DOWN = 104.0, 52.0, 64.0, 16.0  # pixels: a box, and between two
WIDEST, THINNEST, APART = 9.0, 0.75, 7.0  # of arrows: their widths, and from the middle


def gradient_flow(stages: Any, dcontext: Real) -> GradientFlow:
    """Draw how large each stage of attention is, and the gradient that flows back to it.

    Parameters
    ----------
    stages : attnc.teaching.Stages or attnc.teaching.MultiHeadStages
        What `attnc.stages` returns of an attention function or a layer with heads.
    dcontext : array_like
        The gradient of the context, or of the layer's output, as ``stages.gradients`` takes it.

    Returns
    -------
    GradientFlow

    Raises
    ------
    TypeError
        If `stages` are none of those, or `dcontext` is not real.
    ValueError
        If `dcontext` has not the shape of the context.

    Examples
    --------
    >>> x = np.eye(2)
    >>> stages = attnc.stages(attnc.dot_product_attention, x, x, np.array([[0.0], [1.0]]), scale=0)
    >>> flow = gradient_flow(stages, np.ones((2, 1)))
    >>> float(flow.values["weights"]), float(flow.gradients["weights"])
    (0.5, 0.7071067811865476)
    >>> flow.gradients["query"]  # the scale is 0
    0.0
    """
    where = "gradient_flow"
    names = set(_arrays(stages)) if callable(getattr(stages, "gradients", None)) else set()
    if (
        not {"scores", "weights"} <= names
        or not names & {"context", "contexts"}
        or names & {"x", "memory"}
    ):
        raise TypeError(
            f"{where}: stages must be those of an attention function or of MultiHeadAttention "
            f"(attnc.stages), got {type(stages).__name__}"
        )
    return GradientFlow(stages, stages.gradients(dcontext))


class GradientFlow(Picture):
    """The stages of attention as boxes, with arrows as wide as what flows through them.

    Values flow to the right, in blue; gradients back to the left, in orange. A number is a root
    mean square, of what is finite: of the scores after masking what is masked counts not.

    Parameters
    ----------
    stages : attnc.teaching.Stages or attnc.teaching.MultiHeadStages
    gradients : object
        What ``stages.gradients`` returned.

    Attributes
    ----------
    values, gradients : dict of str to float
        The root mean square of each stage and argument, and of its gradient; NaN for arguments
        whose values are not known.
    edges : list of (str, str)
        What goes into what.
    """

    def __init__(self, stages: Any, gradients: Any) -> None:
        chain, found = list(_arrays(stages)), _arrays(gradients)
        given = _arguments_of(stages)
        names = [*(name for name in found if name not in chain), *chain]
        arrays = given | {name: getattr(stages, name) for name in chain}
        self.values = {name: _rms(arrays.get(name)) for name in names}
        self.gradients = {name: _rms(found.get(name)) for name in names}
        self.edges = _edges(chain, [name for name in names if name not in chain])

    def __repr__(self) -> str:
        return f"<GradientFlow of {len(self.values)} arrays>"

    def _label(self) -> str:
        last = self.edges[-1][1]
        return f"flow of gradients from {last}, back through {len(self.values) - 1} arrays"

    def text(self, width: int = WIDTH, *, ascii: bool = False, numbers: bool = False) -> str:
        """The flow as text: a line for each array, with a bar as long as its gradient.

        Parameters
        ----------
        width, ascii
            As in `Alignment.text`; the width is at least 40.
        numbers : bool
            Leave out the bars.

        Returns
        -------
        str
        """
        where = "GradientFlow.text"
        width = integer(where, "width", width, least=40)
        ascii, numbers = flag(where, "ascii", ascii), flag(where, "numbers", numbers)
        into: dict[str, list[str]] = {}
        for source, target in self.edges:
            into.setdefault(target, []).append(source)
        rows = [["", "value", "gradient", "from"]]
        for name in self.values:
            cells = [name, _number(self.values[name]), _number(self.gradients[name])]
            rows.append([*cells, ", ".join(into.get(name, []))])
        wide = [max(len(row[k]) for row in rows) for k in range(4)]
        bar = min(width - sum(wide) - 5, 20)
        bar, told = (bar, True) if bar >= 5 else (min(width - sum(wide[:3]) - 4, 20), False)
        largest = _largest(self.gradients)
        lines = []
        for n, row in enumerate(rows):
            name = list(self.values)[n - 1] if n else ""
            share = self.gradients.get(name, 0.0) / largest
            drawn = round(bar * share) if bar > 0 and not numbers and share == share else 0
            cells = [row[0].ljust(wide[0]), row[1].rjust(wide[1]), row[2].rjust(wide[2])]
            if bar > 0 and not numbers:
                cells.append((("#" if ascii else "█") * drawn).ljust(bar))
            lines.append(" ".join([*cells, row[3] if told else ""]).rstrip())
        lines += _text.wrapped("root mean squares; bars: gradients", width)
        return "\n".join(lines)

    def _drawing(self, numbers: bool = False) -> Drawing:
        picture = Drawing(self._label())
        places = _places(self.edges)
        top = {"value": _largest(self.values), "gradient": _largest(self.gradients)}
        box = max([BOX, *(1.12 * measure(name, 12) + 8 for name in places)])
        at = {
            name: (4 + column * (box + ACROSS), 4 + lane * (HIGH + DOWN))
            for name, (column, lane) in places.items()
        }
        for source, target in self.edges:
            (x, y), (end, low) = at[source], at[target]
            start, stop = (x + box, y + HIGH / 2), (end, low + HIGH / 2)
            value, gradient = self.values[source], self.gradients[source]
            _arrow(picture, start, stop, value / top["value"], ABOVE, f"{source}: {value!r}")
            hover = f"gradient of {source}: {gradient!r}"
            _arrow(picture, stop, start, gradient / top["gradient"], BELOW, hover)
        for name, (x, y) in at.items():
            numbers_of = _number(self.values[name]), _number(self.gradients[name])
            picture.rectangle(x, y, box, HIGH, None, line=True)
            picture.word(x + box / 2, y + 15, name, 12, anchor="middle", bold=True)
            picture.word(x + box / 2, y + 30, f"value {numbers_of[0]}", 10, anchor="middle")
            picture.word(x + box / 2, y + 44, f"gradient {numbers_of[1]}", 10, anchor="middle")
        note = "root mean squares; blue arrows: values, orange arrows: gradients, wider the larger"
        return add_notes(picture, [note])


def _arrays(record: Any) -> dict[str, Any]:
    """The arrays that stages or gradients have, by name, in their order."""
    return {
        name: value
        for name, value in vars(record).items()
        if isinstance(value, (np.ndarray, np.generic)) and not name.startswith("_")
    }


def _arguments_of(stages: Any) -> dict[str, Any]:
    """The arrays that the call had, by name, from what the stages are pickled as."""
    function, given, options, *_ = stages.__reduce__()[1]
    if isinstance(given, dict):  # of a layer
        return {**given, **dict(function.parameters)}
    names = inspect.signature(getattr(functional, function)).parameters
    return {**dict(zip(names, given, strict=False)), **options}


def _rms(array: Any) -> float:
    """The root mean square of what is finite; NaN where nothing is."""
    if array is None:
        return np.nan
    numbers = np.asarray(array, np.float64)
    numbers = numbers[~np.isinf(numbers)]
    if not numbers.size:
        return np.nan
    largest = float(np.abs(numbers).max())
    if not 0 < largest < np.inf:
        return largest
    with np.errstate(all="ignore"):  # the square of a number may be beyond all
        return largest * float(np.sqrt(np.mean((numbers / largest) ** 2)))


def _largest(sizes: dict[str, float]) -> float:
    return max((size for size in sizes.values() if size == size), default=0.0) or 1.0


def _number(value: float) -> str:
    return "?" if value != value else f"{value:.3g}"


def _edges(chain: list[str], arguments: list[str]) -> list[tuple[str, str]]:
    """What goes into what; those of the line of stages come last, in its order."""
    ways = {
        prefix: [name for name in chain if name == end or name.endswith(f"_{end}")]
        for prefix, end in HEADS.items()
    }
    line = [name for name in chain if not any(name in way for way in ways.values())]
    edges = []
    for name in arguments:
        prefix, _, part = name.partition("_")
        way = ways.get(prefix)
        target = INTO.get(name, line[0])
        if way:
            norm = f"normalised_{HEADS[prefix]}"
            target = norm if part == "scale" and norm in way else way[0]
        elif prefix == "output":
            target = "output"
        edges.append((name, target if target in chain else line[0]))
    for prefix, way in ways.items():
        edges += zip(way, way[1:], strict=False)
        if way:
            edges.append((way[-1], "contexts" if prefix == "value" else line[0]))
    edges += zip(line, line[1:], strict=False)
    return edges


def _places(edges: list[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """(column, lane) of each: the stages in one line, what goes into them before and below."""
    into: dict[str, list[str]] = {}
    for source, target in edges:
        into.setdefault(target, []).append(source)
    line = [edges[-1][1]]
    while len(line) < len(edges):  # the last edges are those of the line, from behind
        source, target = edges[-len(line)]
        if target != line[-1]:
            break
        line.append(source)
    places = {name: (-column, 0) for column, name in enumerate(line)}
    taken = set(places.values())
    waiting = list(line)
    while waiting:
        target = waiting.pop(0)
        column, lane = places[target]
        for source in into.get(target, []):
            if source in places:
                continue
            row = lane
            while (column - 1, row) in taken:
                row += 1
            places[source] = (column - 1, row)
            taken.add((column - 1, row))
            waiting.append(source)
    first = min(column for column, _ in places.values())
    return {name: (column - first, lane) for name, (column, lane) in places.items()}


def _arrow(
    picture: Drawing,
    start: tuple[float, float],
    stop: tuple[float, float],
    share: float,
    colour: tuple[int, int, int],
    hover: str,
) -> None:
    """An arrow beside the line between two points, as wide as its share of the largest.

    Those to the right are above the line, those to the left below.
    """
    wide = THINNEST
    if share != share:
        colour = OTHER
    else:
        wide = max(WIDEST * share, THINNEST)
    (x, y), (end, low) = start, stop
    along = np.array([end - x, low - y])
    along = along / float(np.hypot(*along))
    across = np.array([-along[1], along[0]])
    # Moved up or down alone, it begins and ends at the edges of its boxes.
    up = min(APART / abs(along[0]), HIGH / 2 - 6)
    side = np.array([0.0, -up if end > x else up])
    length = float(np.hypot(end - x, low - y))
    head = min(8.0 + wide / 2, length / 2)
    begin = np.array(start) + side + 3 * along
    tip = np.array(stop) + side - 3 * along
    neck = tip - head * along
    half, barb = across * wide / 2, across * (wide / 2 + 3)
    corners = (begin + half, neck + half, neck + barb, tip, neck - barb, neck - half, begin - half)
    points = tuple((float(px), float(py)) for px, py in corners)
    picture.polygon(points, colour, 0.85, hover=hover)

"""`Decoding`: one sentence decoded word by word, each step with all that it computes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from attnc import _arguments as arguments
from attnc.arrays import flag, integer, real_array
from attnc.show import _text, _words
from attnc.show._drawing import Drawing, measure
from attnc.show._map_drawing import WIDEST, add_notes
from attnc.show._values import ABOVE, Scale, exact, hue, reduced, short
from attnc.show.alignment import Alignment
from attnc.show.animation import Animation
from attnc.show.picture import WIDTH, Picture
from attnc.typing import Array, Real

__all__ = ["Decoding", "Step"]

STRIP = 32  # numbers of a state or a context that are drawn
LETTERS, SMALL, HIGH = 12.0, 10.0, 24.0  # pixels
TALL = 60.0  # the bar of a weight of 1
LONGEST = 24  # columns of a word
FIRST = 8  # numbers of a state or a context that are printed
BAR, LEAST_BAR = 20, 5  # columns of the bar of a weight of 1


class _Row(NamedTuple):
    """One thing that a step computes."""

    name: str  # in words
    symbol: str  # as in the paper
    values: Array
    scale: Scale


class Step(Picture):
    """One step of a `Decoding`: how one word of the target comes about.

    Parameters
    ----------
    whole : Decoding
        That it is a step of; ``decoding.frames`` has them all.
    index : int
        Which step, from 0.

    Attributes
    ----------
    index : int
        Which step, from 0.
    word : str
        What is written.
    weights : ndarray, shape (Ts,)
        How much of each word of the source is in the context.
    """

    def __init__(self, whole: Decoding, index: int) -> None:
        self._whole, self.index = whole, index
        self.word = whole.target[index]
        self.weights: Array = whole.weights[index]

    def __repr__(self) -> str:
        return f"<Step {self.index} of {len(self._whole.target)}: {self.word!r}>"

    def _label(self) -> str:
        return self._drawing().label

    def _row(self, name: str) -> _Row | None:
        """What a step has of scores, weights, states or contexts, or None."""
        values = getattr(self._whole, name)
        if values is None:
            return None
        words = {"states": "state", "contexts": "context"}
        symbol = {"states": "s_i", "scores": "e_ij", "weights": "α_ij", "contexts": "c_i"}[name]
        row = values[self.index]
        return _Row(words.get(name, name), symbol, row, self._whole._scales[name])

    def _probability(self) -> str:
        if self._whole.probabilities is None:
            return ""
        return f"p = {short(float(self._whole.probabilities[self.index]))}"

    def text(self, width: int = WIDTH, *, ascii: bool = False, numbers: bool = False) -> str:
        """The step as text: what is written before, a line for each source word, the new word.

        Parameters
        ----------
        width, ascii
            As in `Alignment.text`; the width is at least 30.
        numbers : bool
            Leave out the bars of the weights, and write numbers alone.

        Returns
        -------
        str
        """
        where = "Step.text"
        width = integer(where, "width", width, least=30)
        ascii, numbers = flag(where, "ascii", ascii), flag(where, "numbers", numbers)
        before = " ".join(map(_words.visible, self._whole.target[: self.index]))
        lines = _text.wrapped(f"written: {before}" if before else "written: nothing yet", width)
        lines += self._text_of_vector("states", width)
        lines += self._text_of_source(width, ascii, numbers)
        lines += self._text_of_vector("contexts", width)
        arrow = "->" if ascii else "→"
        word = f"{arrow} {_words.visible(self.word)}  {self._probability()}".rstrip()
        return "\n".join([*lines, *_text.wrapped(word, width)])

    def _text_of_vector(self, name: str, width: int) -> list[str]:
        """The first numbers of a state or a context."""
        row = self._row(name)
        if row is None:
            return []
        shown = " ".join(short(float(x)).replace("−", "-") for x in row.values[:FIRST])
        more = f" ... ({len(row.values)} numbers)" if len(row.values) > FIRST else ""
        return _text.wrapped(f"{row.name}: {shown}{more}", width)

    def _text_of_source(self, width: int, ascii: bool, numbers: bool) -> list[str]:
        """Each word of the source with its score, its weight and a bar of it."""
        rows = [row for row in (self._row("scores"), self._row("weights")) if row]
        columns = [
            [row.name, *sum(_text.numbers_of(row.values[:, None], ascii), [])] for row in rows
        ]
        wide = [max(map(len, column)) for column in columns]
        words = list(map(_words.visible, self._whole.source))
        room = width - sum(wide) - len(wide) - (0 if numbers else LEAST_BAR + 1)
        beside = min(max(map(_words.width, words)), max(room, 3))
        bar = min(width - beside - sum(wide) - len(wide) - 1, BAR)
        strengths = rows[-1].scale.strengths(rows[-1].values)
        lines = []
        for j, word in enumerate(["", *words]):
            cells = [c[j].rjust(w) for c, w in zip(columns, wide, strict=True)]
            word = _words.pad(_words.shorten(word, beside, "~" if ascii else "…"), beside)
            line = " ".join([word, *cells])
            if j and bar > 0 and not numbers and strengths[j - 1] == strengths[j - 1]:
                line += " " + ("#" if ascii else "█") * round(bar * abs(float(strengths[j - 1])))
            lines.append(line.rstrip())
        return lines

    def html(self, *, numbers: bool = True) -> str:
        """The step as HTML, returned as a fragment; with `numbers` written into the cells."""
        return super().html(numbers=numbers)

    def svg(self, *, numbers: bool = True) -> str:
        """The step as SVG, returned as one element; with `numbers` written into the cells."""
        return self._drawing(flag("Step.svg", "numbers", numbers)).svg()

    def _drawing(self, numbers: bool = True) -> Drawing:
        whole = self._whole
        word = _words.visible(self.word)
        title = f"{whole.title}: " if whole.title else ""
        picture = Drawing(f"{title}step {self.index + 1} of {len(whole.target)} writes {word}")
        y = 4.0
        if whole.title:
            picture.word(2, y + 14, whole.title, 14, bold=True)
            y += 26
        left = 8 + max(
            measure(f"{name} {symbol}", LETTERS)
            for name, symbol in (("weights", "α_ij"), ("context", "c_i"), ("written", ""))
        )
        y = self._draw_words(picture, left, y)
        state = self._row("states")
        if state:
            y = self._draw_strip(picture, state, left, y)
        y = self._draw_source(picture, left, y, numbers)
        context = self._row("contexts")
        if context:
            y = self._draw_strip(picture, context, left, y)
        _name(picture, "word", "y_i", left, y)
        written = _words.shorten(word, 2 * LONGEST)
        picture.word(left, y + 16, written, 15, bold=True)
        if self._probability():
            end = left + 1.15 * measure(written, 15) + 12
            picture.word(end, y + 16, self._probability(), LETTERS)
        picture.reach(0, y + HIGH)
        notes = []
        for row in (state, context):
            if row and len(row.values) > STRIP:
                size = -(-len(row.values) // STRIP)
                notes.append(f"{row.name}: each cell is the mean of {size} numbers")
        return add_notes(picture, notes)

    def _draw_words(self, picture: Drawing, left: float, y: float) -> float:
        """The target, what is written of it so far in black; in as many lines as it needs."""
        _name(picture, "written", "", left, y)
        words = [_words.shorten(_words.visible(each), LONGEST) for each in self._whole.target]
        x = left
        for n, word in enumerate(words):
            wide = 1.1 * measure(word, LETTERS)
            if x > left and x + wide > left + WIDEST:
                x, y = left, y + 18
            if n < self.index:
                picture.word(x, y + 14, word, LETTERS)
            elif n == self.index:
                picture.rectangle(x, y + 17, wide, 2, ABOVE)
                picture.word(x, y + 14, word, LETTERS, bold=True)
            else:  # room for what is still to come, so that nothing moves when it does
                picture.reach(x + wide, y + 14)
            x += wide + 8
        return y + HIGH + 6

    def _draw_strip(self, picture: Drawing, row: _Row, left: float, y: float) -> float:
        """The numbers of a vector as cells beside each other."""
        _name(picture, row.name, row.symbol, left, y)
        strip = reduced(row.values[None], 1, STRIP, "mean")
        side = 14.0
        for k, strength in enumerate(row.scale.strengths(strip.values)[0]):
            colour, opaque = hue(float(strength))
            first = k * strip.columns
            last = min(first + strip.columns, len(row.values)) - 1
            which = str(first) if first == last else f"{first}–{last}: mean"
            hover = f"{row.name} {which}: {exact(strip.values[0, k])}"
            picture.rectangle(left + k * side, y + 4, side - 1, 16, colour, opaque, hover=hover)
        return y + HIGH + 6

    def _draw_source(self, picture: Drawing, left: float, y: float, numbers: bool) -> float:
        """The words of the source, the score of each, and its weight as a number and a bar."""
        source = [_words.shorten(_words.visible(each), LONGEST) for each in self._whole.source]
        widths = [max(measure(word, LETTERS) + 8, 34.0) for word in source]
        scores, weights = self._row("scores"), self._row("weights")
        assert weights is not None  # they are always given
        begin, lines = 0, []  # as many words in a line as there is room for
        while begin < len(source):
            end = begin + 1
            while end < len(source) and sum(widths[begin : end + 1]) <= WIDEST:
                end += 1
            lines.append(range(begin, end))
            begin = end
        for line in lines:
            rows = [row for row in (scores, weights) if row]
            _name(picture, "source", "", left, y)
            for k, row in enumerate(rows):
                _name(picture, row.name, row.symbol, left, y + HIGH * (k + 1))
            base = y + HIGH * (len(rows) + 1) + TALL
            x = left
            for j in line:
                picture.word(x + widths[j] / 2, y + 16, source[j], LETTERS, anchor="middle")
                for k, row in enumerate(rows):
                    top = y + HIGH * (k + 1)
                    strength = float(row.scale.strengths(row.values[j : j + 1])[0])
                    hover = f"{row.name} of {source[j]}: {exact(row.values[j])}"
                    picture.rectangle(x, top, widths[j] - 1, HIGH - 1, *hue(strength), hover=hover)
                    if numbers or strength != strength:
                        number = short(float(row.values[j]))
                        middle = x + widths[j] / 2
                        picture.word(middle, top + 15, number, SMALL, anchor="middle")
                strength = float(weights.scale.strengths(weights.values[j : j + 1])[0])
                colour, _ = hue(strength)
                high = TALL * abs(strength) if strength == strength else 0.0
                hover = f"weight of {source[j]}: {exact(weights.values[j])}"
                picture.rectangle(x + 4, base - high, widths[j] - 9, high, colour, hover=hover)
                x += widths[j]
            picture.rectangle(left, base, x - left - 1, 0.5, (128, 128, 128))
            y = base + 12
        return y


def _name(picture: Drawing, name: str, symbol: str, left: float, y: float) -> None:
    """What a row is, at its left."""
    text = f"{name} {symbol}".rstrip()
    picture.word(left - 8, y + 16, text, LETTERS, anchor="end", opacity=0.75)


class Decoding(Picture):
    """One sentence decoded step by step: state, scores, weights, context, word.

    The course of Bahdanau, Cho and Bengio (2015), section 3.1, with their symbols: from the state
    s_i come the scores e_ij of the source words j, their softmax α_ij, the context c_i and the
    word y_i. In a notebook it plays, without a script.

    Parameters
    ----------
    source, target : sequence of Ts, of Tt
        The words: anything with a ``str``.
    weights : array_like, shape (Tt, Ts)
        How much each word of the target attends to each of the source.
    scores : array_like, shape (Tt, Ts), optional
        What the weights are the softmax of.
    states, contexts : array_like, shape (Tt, N), optional
        The state before each word, and its context.
    probabilities : array_like, shape (Tt,), optional
        That of each word of the target.
    title : str, optional
        Above all.

    Attributes
    ----------
    frames : list of Step
        The steps, each a picture.
    alignment : Alignment
        All weights in one map.

    Raises
    ------
    TypeError
        If an array is not real, or words are no sequence.
    ValueError
        If a shape does not fit, or there are no words.

    Examples
    --------
    >>> weights = np.array([[0.9, 0.1], [0.25, 0.75]])
    >>> decoding = Decoding(["I", "am"], ["je", "suis"], weights, probabilities=[0.75, 0.5])
    >>> print(decoding.frames[1])
    written: je
       weights
    I     0.25 █████
    am    0.75 ███████████████
    → suis  p = 0.50
    """

    def __init__(
        self,
        source: Iterable[object],
        target: Iterable[object],
        weights: Real,
        *,
        scores: Real | None = None,
        states: Real | None = None,
        contexts: Real | None = None,
        probabilities: Real | None = None,
        title: str | None = None,
    ) -> None:
        where = "Decoding"
        more = " (one sentence and head is weights[{}])"
        self.weights: Array = np.array(
            arguments.shaped(where, "weights", weights, ["(Tt, Ts)"], more=more)
        )
        for name, words in (("source", source), ("target", target)):
            if words is None:
                raise TypeError(f"{where}: {name} must be a sequence of words, got None")
        shape = self.weights.shape
        self.source: list[str] = arguments.labels(where, "source", source, shape, 1)
        self.target: list[str] = arguments.labels(where, "target", target, shape, 0)
        Tt = shape[0]
        self.scores = _given(where, "scores", scores, shape)
        self.states = _given(where, "states", states, (Tt, None))
        self.contexts = _given(where, "contexts", contexts, (Tt, None))
        self.probabilities = _given(where, "probabilities", probabilities, (Tt,))
        self.title = "" if title is None else _words.visible(title)
        kinds = {"weights": None, "scores": True, "states": True, "contexts": True}
        self._scales = {
            name: Scale(getattr(self, name), kind)
            for name, kind in kinds.items()
            if getattr(self, name) is not None
        }
        self.frames = [Step(self, n) for n in range(Tt)]
        self.alignment = Alignment(
            self.weights,
            self.target,
            self.source,
            title=title,
            query_name="target",
            key_name="source",
        )

    def __repr__(self) -> str:
        name = f" {self.title!r}" if self.title else ""
        return f"<Decoding{name} of {len(self.source)} words to {len(self.target)}>"

    def _label(self) -> str:
        return self.title or f"decoding of {len(self.source)} words to {len(self.target)}"

    def animation(self, seconds: float = 1.5) -> Animation:
        """The steps one after the other.

        Parameters
        ----------
        seconds : float
            How long each is shown.

        Returns
        -------
        Animation
        """
        return Animation(self.frames, self.target, seconds)

    def text(self, width: int = WIDTH, *, ascii: bool = False, numbers: bool = False) -> str:
        """All steps as text, one below the other.

        Parameters
        ----------
        width, ascii, numbers
            As in `Alignment.text`.

        Returns
        -------
        str
        """
        text = self.animation().text(width, ascii=ascii, numbers=numbers)
        return "\n".join([*(_text.wrapped(self.title, width) if self.title else []), text])

    def html(self, *, numbers: bool = True) -> str:
        """The steps as HTML that plays, returned as a fragment; with `numbers` in the cells."""
        return self.animation().html(numbers=flag("Decoding.html", "numbers", numbers))

    def svg(self, *, numbers: bool = False) -> str:
        """All weights in one map, returned as SVG; with `numbers` written into the cells."""
        return self.alignment.svg(numbers=numbers)

    def _drawing(self, numbers: bool = False) -> Drawing:
        return self.alignment._drawing(numbers)

    def latex(self, *, numbers: bool = False) -> str:
        """All weights in one map, returned as LaTeX; with `numbers` written into the cells."""
        return self.alignment.latex(numbers=numbers)

    def _formats(self) -> dict[str, Any]:
        gif = self.animation()._formats()[".gif"]
        return {**super()._formats(), ".tex": self.latex, ".gif": gif}


def _given(where: str, name: str, value: Any, shape: tuple[int | None, ...]) -> Array | None:
    """An array of this shape, in which None is any number but 0; or None."""
    if value is None:
        return None
    array = np.array(real_array(where, name, value))
    fits = array.ndim == len(shape) and all(
        n == wanted or wanted is None and n for n, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("N" if n is None else str(n) for n in shape)
        wanted += "," * (len(shape) == 1)
        raise ValueError(f"{where}: {name} must have shape ({wanted}), got {array.shape}")
    return array

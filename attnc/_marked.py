"""How plot.marked_text draws: words in lines, each on the colour of its weight."""

import itertools
import unicodedata

import numpy as np
from matplotlib.collections import PolyCollection

from ._pictures import Panel, drawable, is_dark, measure

SIZE = 10  # of the letters, in points; what follows are parts of it
PAD = 0.17  # between a word and the edges of its colour at the left and right
BETWEEN = 0.12  # between the colours of two words
TALL = 1.3  # a colour, unless letters are taller
LEADING = 0.2  # between the colours of two lines
BASE = 0.74  # the line that letters stand on, from above: this part of a colour
EMPTY = 0.5  # the width of a word without letters


class Page:
    """Where the words of a text stand, in lines of one width: the same for all blocks.

    Parameters
    ----------
    words : list of str
    write : Writer
    width : float
        Of the lines, in inches; they are wider if one word is.
    """

    def __init__(self, words, write, width):
        self.words = [write.label(word) for word in words]
        self.font, self.most = write.font, 72 * width

    def lay_out(self, figure):
        """Break lines and place the words in them, in points."""
        sizes = {word: measure(figure, word, fontsize=SIZE, **self.font) for word in self.words}
        widths, heights = np.array([sizes[word] for word in self.words]).T
        self.widths = np.maximum(widths, EMPTY * SIZE) + 2 * PAD * SIZE
        self.tall = max(TALL * SIZE, heights.max())
        self.step = self.tall + LEADING * SIZE
        lines = self._lines(max(self.most, self.widths.max()))

        directions = [_direction(word) for word in self.words]
        self.leftwards = directions.count("right") < directions.count("left")
        main = "left" if self.leftwards else "right"
        self.left, self.line = np.zeros(len(self.words)), np.zeros(len(self.words), int)
        for row, line in enumerate(lines):
            order = _in_order_of_place(line, [directions[n] or main for n in line], main)
            steps = self.widths[order] + BETWEEN * SIZE
            self.left[order], self.line[order] = np.cumsum(steps) - steps, row
        self.width = (self.left + self.widths).max()
        self.height = self.step * len(lines) - LEADING * SIZE
        if self.leftwards:
            self.left = self.width - self.left - self.widths

    def _lines(self, room):
        """The numbers of the words of each line."""
        lines, end = [[]], 0
        for n, width in enumerate(self.widths):
            if lines[-1] and end + width > room:
                lines.append([])
                end = 0
            lines[-1].append(n)
            end += width + BETWEEN * SIZE
        return lines


def _direction(word):
    """Whether it is read to the "right" or to the "left", by its first letter, or None."""
    for character in word:
        kind = unicodedata.bidirectional(character)
        if kind in ("L", "R", "AL"):
            return "right" if kind == "L" else "left"
    return None


def _in_order_of_place(line, directions, main):
    """The words of a line as they stand side by side: a quotation from the other side runs back.

    Unicode's algorithm (UAX #9) does the same with the levels of letters.
    """
    order = []
    for direction, group in itertools.groupby(
        zip(directions, line, strict=True), lambda each: each[0]
    ):
        words = [n for _, n in group]
        order += words if direction == main else words[::-1]
    return order


class Block(Panel):
    """The text once, with the weights of one row; takes the place of a map among several."""

    def __init__(self, page, weights, title, write):
        super().__init__(weights, None, None, {"title": title}, None, write)
        self.page = page

    @property
    def shape(self):
        """How many inches high and wide it is."""
        return self.page.height / 72, self.page.width / 72

    def cell_size(self, figure, panels):
        """An inch: a long text makes a long figure, for smaller letters could not be read."""
        self.page.lay_out(figure)
        return 1, 1

    def draw(self, options):
        """The colours, and the words on them in letters that differ from these."""
        ax, page = self.ax, self.page
        ax.set(xlim=(0, page.width), ylim=(page.height, 0), xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        side = "right" if page.leftwards else "left"
        ax.set_title(self.names.get("title", ""), loc=side, **self.write.font)
        top = page.line * page.step
        x = page.left[:, None] + page.widths[:, None] * [0, 1, 1, 0]
        y = top[:, None] + page.tall * np.array([0, 0, 1, 1])
        weights = np.ma.masked_invalid(drawable(self.weights))
        self.image = PolyCollection(
            np.stack([x, y], axis=-1), norm=options["norm"], cmap=options["cmap"], linewidths=0
        )
        self.image.set_array(weights)
        ax.add_collection(self.image, autolim=False)
        self.words = []
        dark = is_dark(self.image.to_rgba(weights)[:, :3])
        for n, word in enumerate(page.words):
            text = ax.text(
                page.left[n] + page.widths[n] / 2,
                top[n] + BASE * page.tall,
                word,
                color="white" if dark[n] else "black",
                ha="center",
                va="baseline",
                fontsize=SIZE,
                **self.write.font,
            )
            text.set_in_layout(False)  # it is inside of the Axes
            self.words.append(text)

    def set_sizes(self, width, height):
        """Letters have their size already, for which the lines were broken."""

    def follow(self, scale):
        """Be of another size, letters too: else they would meet."""
        for text in self.words:
            text.set_fontsize(SIZE * scale)

"""How plot.links draws: words at the left, words at the right, and a curve for each weight."""

import math

import numpy as np
from matplotlib import cm
from matplotlib.collections import LineCollection

from ._pictures import LEAST_LETTERS, LETTERS, Panel, drawable, shares

WIDTH = 6  # from the words at the left to those at the right, in rows
WIDEST = 0.8  # the link of the largest weight, in rows
PAD = 4  # between links and words, in points
PALE = "0.7"  # the colour of words whose links are not drawn


class Links(Panel):
    """One drawing of links, which takes the place of a map in a figure of several."""

    cell, gap = 0.25, 0.3  # words stand at both sides: those of two drawings shall be apart

    def __init__(self, weights, queries, keys, query, title, write):
        super().__init__(weights, queries, keys, {"title": title}, None, write)
        self.chosen = range(len(weights)) if query is None else [query]

    @property
    def shape(self):
        """How many cells high and wide it is: a row for each word of the longer side."""
        return max(self.weights.shape), WIDTH

    def draw(self, options):
        """Draw links and words; how thick and how large they are `set_sizes` says."""
        ax, rows = self.ax, self.shape[0]
        ax.set(xlim=(0, 1), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_title(self.names.get("title", ""), **self.write.font)
        # The shorter side is in the middle of the longer one.
        left, right = (np.arange(count) + (rows - count) / 2 for count in self.weights.shape)

        i, j = (index.ravel() for index in np.meshgrid(self.chosen, range(len(right))))
        weights = drawable(self.weights[i, j])
        share = shares(options["norm"], weights)
        order = np.argsort(share, kind="stable")  # strong links lie above weak ones
        i, j, weights, self.shares = i[order], j[order], weights[order], share[order].clip(0, 1)
        # Curves leave and arrive level, so that the eye can follow each where many cross.
        x = (1 - np.cos(np.linspace(0, np.pi, 50))) / 2
        y = left[i, None] + (right[j] - left[i])[:, None] * x**2 * (3 - 2 * x)
        self.image = cm.ScalarMappable(options["norm"], options["cmap"])
        self.lines = LineCollection(
            np.stack(np.broadcast_arrays(x, y), axis=-1),
            colors=self.image.to_rgba(np.ma.masked_invalid(weights)),
            capstyle="butt",
        )
        ax.add_collection(self.lines, autolim=False)
        self.words = [
            [self._word(label, 0, at) for label, at in zip(self.queries, left, strict=True)],
            [self._word(label, 1, at) for label, at in zip(self.keys, right, strict=True)],
        ]
        for n, word in enumerate(self.words[0]):
            word.set_color("black" if n in self.chosen else PALE)

    def _word(self, label, x, y):
        return self.ax.annotate(
            label,
            (x, y),
            xytext=(PAD if x else -PAD, 0),
            textcoords="offset points",
            horizontalalignment="left" if x else "right",
            verticalalignment="center_baseline",
            annotation_clip=False,
            **self.write.font,
        )

    def set_sizes(self, width, height):
        """Choose letters and the widths of links for rows of `height` points."""
        self.lines.set_linewidths(self.shares * WIDEST * height)
        size = min(max(0.8 * height, LEAST_LETTERS), LETTERS)
        step = math.ceil(size / height)
        for words, first in zip(self.words, (self.chosen[0], 0), strict=True):
            for n, word in enumerate(words):
                word.set_fontsize(size)
                word.set_visible((n - first) % step == 0)

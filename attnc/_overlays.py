"""How plot.overlay and plot.strip draw: an image with the map of a word over it, or a bar below."""

import math

import numpy as np
from matplotlib import cm, colors, rcParams
from matplotlib.patches import Rectangle

from ._pictures import LETTERS, MOST_SIDE, Panel, drawable, largest_cell, measure, shares

# Lengths are inches.
SIDE = 1.6  # the longer side of an image
NARROW = 0.4  # the shorter one of a narrow image, whose longer side grows
LONGEST = 6.0  # up to this
THIN = 0.2  # the shorter side of an image that is narrower yet, and stretched
MOST_BESIDE = 5  # images
FRAME = 1.0  # the longer side of a frame of a video
BAR = 0.22  # the bar of the largest weight of a frame
UNDER = 0.04  # between a frame and its bar
LEAST_SCALE = 0.25  # how much smaller images are where there are very many
EDGE = {"color": "0.75", "linewidth": 0.5}  # without it a white background has no end
NUMBERS = 9  # the size of letters of the numbers of frames, in points
PALE = 0.35  # how opaque a frame of no weight is
GLOW = 0.75  # how much of an image the largest weight covers, of what the least does


def size_of(pixels, side=SIDE):
    """The height and width of an image in inches.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, ...)
    side : float
        The longer side of an image that is not narrow.
    """
    size = np.array(pixels.shape[:2], float)
    longer = min(max(side, NARROW * size.max() / size.min()), LONGEST)
    return np.maximum(size * (longer / size.max()), THIN)


def most_beside(pixels):
    """How many images stand side by side unless it is said."""
    return int(min(max(MOST_SIDE // size_of(pixels)[1], 1), MOST_BESIDE))


def veil(cmap, alpha):
    """The colours of a scale as a map over an image, which is covered less where weights are large.

    There an image can be seen best, its light and dark parts both; all of it under one thin veil
    would be as dim there as anywhere.
    """
    rgba = cmap(np.arange(cmap.N))
    rgba[:, 3] *= alpha * np.linspace(1, GLOW, cmap.N)
    ends = {"under": cmap.get_under(), "over": cmap.get_over(), "bad": cmap.get_bad()}
    covers = {"under": alpha, "over": GLOW * alpha, "bad": alpha}
    thin = {end: (*each[:3], each[3] * covers[end]) for end, each in ends.items()}
    return colors.ListedColormap(rgba).with_extremes(**thin)


class Picture(Panel):
    """An image, and over it the map of one word unless its weights are None.

    An image takes the place of a map in a figure of several: its cells are inches, or as much less
    as makes room for very many images.
    """

    gap = 0.1

    def __init__(self, pixels, weights, names, write, side=SIDE):
        super().__init__(weights, None, None, names, None, write)
        self.pixels, self.size = pixels, size_of(pixels, side)

    @property
    def shape(self):
        """How many inches high and wide it is."""
        return tuple(self.size)

    def cell_size(self, figure, panels):
        """What is left of an inch: twice the same, for an image keeps its proportions."""
        return (min(max(largest_cell(panels), LEAST_SCALE), 1),) * 2

    def draw(self, options):
        """The image, its name and, pixel upon pixel, the map."""
        ax = self.ax
        self.image = cm.ScalarMappable(options["norm"], options["cmap"])
        self.draw_image()
        if self.weights is not None:
            self.draw_map(options)
        ax.grid(False)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(**EDGE)
        if "title" in self.names:
            ax.set_title(self.names["title"], **self.write.font)

    def draw_image(self, alpha=1):
        """The image alone, which fills the Axes: these have its proportions."""
        self.ax.imshow(
            self.pixels,
            cmap="gray",
            vmin=0,
            vmax=255,
            aspect="auto",
            interpolation="antialiased",
            alpha=alpha,
        )

    def draw_map(self, options):
        """The regions, each over the pixels that it covers: together they end where these do."""
        height, width = self.pixels.shape[:2]
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        cmap = veil(options["cmap"], options["alpha"])
        options = options | {"cmap": cmap, "alpha": 1, "aspect": "auto", "extent": extent}
        self.ax.imshow(drawable(self.weights), **options)

    def set_sizes(self, width, height):
        """Nothing is written into an image."""


class Frame(Picture):
    """One frame of a video in the row of one word, with a map over it.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, ...)
    weights : ndarray, shape (rows, columns)
    place : (int, int)
        Its number and how many there are.
    names : dict
        "title" in the first row, "ylabel" of the first frame, "xlabel" of the first of all.
    write : Writer
    """

    gap = 0.05

    def __init__(self, pixels, weights, place, names, write):
        super().__init__(pixels, weights, names, write, side=FRAME)
        self.number, self.count = place

    def draw(self, options):
        """The frame with its weight, and the texts around it."""
        super().draw(options)
        font = self.write.font
        share = self.size[0] / self.shape[0]  # of the frame; the rest is below it
        word = self.names.get("ylabel", "")
        self.ax.set_ylabel(word, rotation=0, ha="right", va="center", y=1 - share / 2, **font)
        # A word is higher than a very flat frame, and numbers stand above it.
        height = share * self.ax.bbox.height * 72 / self.ax.figure.dpi
        pad = max(rcParams["axes.titlepad"], LETTERS - height / 2)
        self.ax.set_title(self.ax.get_title(), fontsize=NUMBERS, pad=pad, **font)
        if "xlabel" in self.names:
            self.ax.annotate(
                self.names["xlabel"],
                (0, 1),
                xytext=(-4, pad),
                xycoords="axes fraction",
                textcoords="offset points",
                ha="right",
                fontsize=NUMBERS,
                annotation_clip=False,
                **font,
            )

    def set_sizes(self, width, height):
        """Leave out numbers of frames that are too narrow for all."""
        wide, _ = measure(self.ax.figure, "0" * len(str(self.count - 1)), fontsize=NUMBERS)
        if self.number % math.ceil(1.3 * wide / (width * self.shape[1])):
            self.ax.set_title("")


class BarFrame(Frame):
    """One frame whose weight is a number: the less it is, the paler the frame and the lower a bar.

    The bars of a row stand side by side on one line, a histogram over time.
    """

    @property
    def shape(self):
        """How many inches high and wide it is, with the bar."""
        height, width = self.size
        return height + UNDER + BAR, width

    def draw_image(self):
        """The frame, as opaque as its weight says."""
        self.share = float(shares(self.image.norm, self.weights[None])[0].clip(0, 1))
        super().draw_image(PALE + (1 - PALE) * self.share)

    def draw_map(self, options):
        """The bar."""
        height, width = self.pixels.shape[:2]
        inch = height / self.size[0]  # in pixels
        ground = height - 0.5 + (UNDER + BAR) * inch
        colour = self.image.to_rgba(np.ma.masked_invalid(drawable(self.weights[None])))[0]
        # With its edge a low and therefore pale bar can be seen.
        edge = {"edgecolor": self.image.cmap(1.0), "linewidth": 0.5}
        bar = (-0.5, ground), width, -self.share * BAR * inch
        self.ax.add_patch(Rectangle(*bar, facecolor=colour, clip_on=False, **edge))
        self.ax.set_ylim(ground, -0.5)
        self.ax.spines[["left", "right", "top"]].set_visible(False)

"""How the pictures of plot.py are drawn: a map, the figure around it, characters of all scripts.

Imports matplotlib, and is imported where a function of plot.py is called.
"""

import functools
import math
import textwrap
import unicodedata
import warnings

import matplotlib
import numpy as np
from matplotlib import cm, colors, font_manager, layout_engine, pyplot, rcParams, ticker
from matplotlib.transforms import Bbox

# Sizes of a figure that is made here. Lengths are inches, sizes of letters points (1/72 inch).
CELL = 0.3  # a row or a column, where there are few
LEAST_CELL = 0.071  # and where there are many: 80 % of it are letters of 4 points
LEAST_SIDE = 1.5  # a map of few cells has larger ones
MOST_SIDE = 14.2  # a map of very many cells has smaller ones: 200 at LEAST_CELL
LETTERS = 11
LEAST_LETTERS = 2  # labels that would have to be smaller are thinned out
MOST_CHARACTERS = 100  # of a label, and of a line of a title
BAR = 0.15  # the width of the scale of the colours
LEAST_BAR = 1.0  # and its height beside a flat map
GAP = 0.12  # between maps
MARGIN = 0.08  # at the edge of the figure
UNKNOWN = 0.1  # what stands for a weight that is not finite, where a size does: part of the largest

# From this version on matplotlib orders right-to-left text and joins the letters of Arabic.
SHAPING = (3, 11)


# ---- One map -------------------------------------------------------------------------------------

NOTE = {"fontsize": 6, "parse_math": False, "usetex": False}


class Panel:
    """One map: what to draw, and the Axes to draw it in.

    The cells of a figure made here are chosen first, and letters follow; in given Axes the cells
    are what there is. What is said of rows, and of columns, are labels, numbers where there are
    none, or nothing, where `said` is False.
    """

    cell, gap = CELL, GAP  # what it wants, in inches: a row or a column, and room to the next map

    def __init__(
        self, weights, queries, keys, names, template, write, note=False, said=(True, True)
    ):
        self.weights, self.write = weights, write
        self.said = said
        self.note = write.note() if note else ""
        self.queries = queries and [write.label(label) for label in queries]
        self.keys = keys and [write.label(label) for label in keys]
        self.names = {name: write.lines(text) for name, text in names.items() if text is not None}
        self.numbers = template and [template.format(number) for number in weights.flat]
        self.ax = self.image = None
        self.cells = []

    @property
    def shape(self):
        """How many cells high and wide it is."""
        return self.weights.shape

    def cell_size(self, figure, panels):
        """The width and height of a cell in inches, for all panels of a new figure."""
        return _cell(figure, panels)

    def follow(self, scale):
        """Be of another size, where more than the Axes has to change for that."""

    def draw(self, options):
        """The map, the names of its axes and the numbers of rows and columns, if no labels."""
        ax = self.ax
        self.image = ax.imshow(drawable(self.weights), **options)
        ax.grid(False)
        # Where rows are time, time starts at the top: so do the columns' labels.
        ax.xaxis.set_label_position("top")
        ax.xaxis.tick_top()
        ax.set_xlabel(self.names.get("xlabel", ""), **self.write.font)
        ax.set_ylabel(self.names.get("ylabel", ""), **self.write.font)
        if "title" in self.names:
            ax.set_title(self.names["title"], **self.write.font)
        for axis, said in ((ax.yaxis, self.said[0]), (ax.xaxis, self.said[1])):
            axis.set_major_locator(whole_numbers() if said else ticker.NullLocator())
            axis.set_major_formatter(ticker.ScalarFormatter())
        ax.tick_params(axis="x", rotation=0)
        if self.numbers:
            self.cells = self._write_numbers()
        if self.note:
            ax.text(0, -0.01, self.note, transform=ax.transAxes, va="top", **NOTE)

    def _write_numbers(self):
        image, ax = self.image, self.ax
        rgba = image.to_rgba(image.get_array(), alpha=image.get_alpha())
        # What is transparent shows the Axes behind it.
        behind = np.array(colors.to_rgb(ax.get_facecolor()))
        dark = is_dark(rgba[..., :3] * rgba[..., 3:] + behind * (1 - rgba[..., 3:]))
        texts = []
        for (row, column), number in zip(np.ndindex(dark.shape), self.numbers, strict=True):
            text = ax.text(
                column,
                row,
                number,
                color="white" if dark[row, column] else "black",
                ha="center",
                va="center_baseline",
                clip_on=True,
                **NOTE,
            )
            text.set_in_layout(False)  # it is inside of the map
            texts.append(text)
        return texts

    def number_size(self, width, height):
        """The size of letters with which the numbers fit a cell of so many points."""
        if not self.numbers:
            return None
        # Digits are equally wide: the longest text stands for all.
        wide, high = measure(self.ax.figure, max(self.numbers, key=len), fontsize=20)
        return min(20 * 0.85 * width / wide, 20 * 0.8 * height / high, LETTERS)

    def set_sizes(self, width, height, most=(LETTERS, LETTERS)):
        """Write labels and numbers in letters that fit cells of so many points."""
        for labels, axis, points, limit in (
            (self.queries, self.ax.yaxis, height, most[0]),
            (self.keys, self.ax.xaxis, width, most[1]),
        ):
            if not labels:
                continue
            size = min(max(0.8 * points, LEAST_LETTERS), limit)
            step = max(math.ceil(size / points), 1)
            axis.set_ticks(
                range(0, len(labels), step), labels[::step], fontsize=size, **self.write.font
            )
            if axis is self.ax.xaxis:
                # Long labels are upright, and so are those that would touch each other.
                upright = max(map(len, labels)) > 2 or max(self.label_lengths(axis)) > 0.9 * points
                self.ax.tick_params(axis="x", rotation=90 if upright else 0)
        size = self.number_size(width, height)
        for text in self.cells:
            text.set_fontsize(size)

    def label_lengths(self, axis):
        """The widths of an axis's labels in points, or the heights of upright ones."""
        scale = 72 / self.ax.figure.dpi
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        return [max(box.width, box.height) * scale for box in boxes]

    def draw_into(self, ax, options, colorbar):
        """Draw into Axes that are as large as they are, and choose letters for them."""
        self.ax = ax
        self.draw(options)
        if colorbar:
            ax.figure.colorbar(self.image, ax=ax, shrink=0.8)
        _lay_out(ax.figure)
        self.set_sizes(*self._cell_points())
        self.set_sizes(*self._cell_points(), self._fitting_letters())
        _lay_out(ax.figure)  # longer labels, smaller cells
        self.set_sizes(*self._cell_points(), self._fitting_letters())

    def _cell_points(self):
        """The width and height of a cell as it is now, in points."""
        self.ax.apply_aspect()
        box = self.ax.get_window_extent()
        cell = np.array([box.width, box.height]) * 72 / self.ax.figure.dpi
        if self.ax.figure.figure.get_layout_engine() is not None:
            # What is drawn beside it later will take as much room as this does.
            cell = np.minimum(cell, 0.5 * self._share())
        return np.maximum(cell, 1) / self.weights.shape[::-1]

    def _share(self):
        """The part of the figure that these Axes and what is around them have, in points."""
        figure, spec = self.ax.figure, self.ax.get_subplotspec()
        share = np.array([figure.bbox.width, figure.bbox.height]) * 72 / figure.dpi
        if spec is None:
            return share
        box = spec.get_position(figure)  # by default a fifth of it is the gap to the next
        return share * np.minimum([1.2 * box.width, 1.2 * box.height], 1)

    def _fitting_letters(self):
        """The sizes of letters with which the longest label of each axis has room.

        A layout engine gives labels room at the cost of the map, and shall not give them most of
        it; without one they go on beyond what there is.
        """
        figure, ax = self.ax.figure, self.ax.get_window_extent()
        if figure.figure.get_layout_engine() is not None:
            room, least = 0.35 * self._share(), LEAST_LETTERS
        else:
            others = [other.get_window_extent() for other in figure.axes if other is not self.ax]
            beside = [box for box in others if min(box.y1, ax.y1) > max(box.y0, ax.y0)]
            over = [box for box in others if min(box.x1, ax.x1) > max(box.x0, ax.x0)]
            left = max([box.x1 for box in beside if box.x1 <= ax.x0], default=figure.bbox.x0)
            top = min([box.y0 for box in over if box.y0 >= ax.y1], default=figure.bbox.y1)
            room = [ax.x0 - left, top - ax.y1]
            # The name of the axis and the ticks are there too.
            room, least = np.array(room) * 72 / figure.dpi - 24, 6
        sizes = []
        for labels, axis, side, free in (
            (self.queries, self.ax.yaxis, "width", room[0]),
            (self.keys, self.ax.xaxis, "height", room[1]),
        ):
            size = LETTERS
            if labels:
                every = axis.get_ticklabels()
                longest = max(getattr(each.get_window_extent(), side) for each in every)
                longest = max(longest * 72 / figure.dpi, 1)
                size = min(max(every[0].get_fontsize() * free / longest, least), LETTERS)
            sizes.append(size)
        return sizes


# ---- Figures -------------------------------------------------------------------------------------


class Layout(layout_engine.LayoutEngine):
    """Places maps in a grid, each with the room that its labels take as they are drawn.

    A map may be of any proportions and its labels longer than itself, where matplotlib's own
    engines give up. What is written later, such as another title, gets room at the next drawing,
    and the maps the rest.

    Parameters
    ----------
    axes : ndarray of Axes or None, shape (rows, columns)
    sizes : ndarray, shape (rows, columns, 2)
        The width and height of each map in inches.
    gap : float
        Between columns of maps, in inches.
    bar : Axes, optional
        Of the scale of the colours.
    above, below : Text, optional
        Of the whole figure.
    followers : sequence of callable
        Called with the part of their sizes that maps have, whenever they are placed.
    """

    _adjust_compatible = False
    _colorbar_gridspec = False

    def __init__(self, axes, sizes, gap, bar=None, above=None, below=None, followers=()):
        super().__init__()
        self.axes, self.sizes, self.gap = axes, sizes, gap
        self.bar, self.above, self.below = bar, above, below
        self.followers = followers

    def execute(self, figure):
        """Place everything in the figure as large as it is."""
        if set(figure.axes) - {*self.axes.flat, self.bar}:
            if self.bar is None:  # a bar of the caller's own, say
                layout_engine.ConstrainedLayoutEngine().execute(figure)
            return
        size = figure.get_size_inches()
        for _ in range(2):  # how far a title sticks out depends on the size of its map
            self._measure(figure)
            scale = self._scale(size)
            if scale < 0.5:  # too long a title shall not squeeze the maps
                self._measure(figure, for_layout_only=True)
                scale = self._scale(size)
            self._place(figure, scale, size - self._size(scale))

    def fit(self, figure):
        """Make the figure as large as everything in it needs."""
        size = figure.get_size_inches()
        for ax, (width, height) in zip(self.axes.flat, self.sizes.reshape(-1, 2), strict=True):
            if ax is not None:
                _set_position(ax, [0, 0, width / size[0], height / size[1]])
        if self.bar is not None:
            _set_position(self.bar, [0, 0, BAR / size[0], self._bar_height(1) / size[1]])
        self._measure(figure)
        figure.set_size_inches(self._size(1))
        self._place(figure, 1, np.zeros(2))

    def _measure(self, figure, **options):
        """What sticks out of each map, and of the bar: left, right, top, bottom, in inches."""

        def around(ax):
            inside = ax.get_position(original=True).transformed(figure.transFigure)
            name = ax.yaxis.label
            if ax is not self.bar and name.get_window_extent().height > inside.height:
                # Begin at the upper edge, above which the names of columns may be as long.
                name.set(y=1, horizontalalignment="right")
            box = ax.get_tightbbox(**options)
            if box is None:
                return 0, 0, 0, 0
            if not options:  # matplotlib before 3.8 leaves out the length of these names
                named = [axis.label for axis in (ax.xaxis, ax.yaxis) if axis.label.get_text()]
                box = Bbox.union([box, *(label.get_window_extent() for label in named)])
            out = inside.x0 - box.x0, box.x1 - inside.x1, box.y1 - inside.y1, inside.y0 - box.y0
            return [max(pixels, 0) / figure.dpi for pixels in out]

        def extent(text):
            if text is None or not text.get_text():
                return 0, 0
            box = text.get_window_extent()
            return box.width / figure.dpi, box.height / figure.dpi + GAP

        out = [(0, 0, 0, 0) if ax is None else around(ax) for ax in self.axes.flat]
        out = np.reshape(out, (*self.axes.shape, 4))
        self.left, self.right = out[..., :2].max(axis=0).T
        self.top, self.bottom = out[..., 2:].max(axis=1).T
        self.around_bar = np.zeros(4) if self.bar is None else np.array(around(self.bar))
        self.above_size, self.below_size = extent(self.above), extent(self.below)

    def _maps(self, scale):
        """The widths of the columns of maps, and the heights of the rows."""
        return scale * self.sizes[..., 0].max(axis=0), scale * self.sizes[..., 1].max(axis=1)

    def _bar_height(self, scale):
        return max(0.8 * scale * self.sizes[..., 1].max(axis=1).sum(), LEAST_BAR)

    def _texts(self):
        """The width and height of what is neither maps nor around the bar."""
        width = (self.left + self.right).sum() + self.gap * (len(self.left) - 1)
        height = (self.top + self.bottom).sum() + GAP * (len(self.top) - 1)
        return width, height

    def _beside(self):
        """The width of the bar with all around it."""
        return 0 if self.bar is None else GAP + BAR + self.around_bar[:2].sum()

    def _over(self, scale):
        """How far a bar is higher than flat maps with all around them, above and below."""
        if self.bar is None:
            return np.zeros(2)
        height = self._texts()[1] + self._maps(scale)[1].sum()
        middle = (self.top[0] + height - self.bottom[-1]) / 2  # of the maps, from above
        half = self._bar_height(scale) / 2 + self.around_bar[2:]
        return np.maximum(half - [middle, height - middle], 0)

    def _size(self, scale):
        """The width and height of a figure with maps of so many times their sizes."""
        width, height = self._texts()
        widths, heights = self._maps(scale)
        width = max(width + widths.sum() + self._beside(), self.above_size[0], self.below_size[0])
        height += heights.sum() + self._over(scale).sum() + self.above_size[1] + self.below_size[1]
        return np.array([width, height]) + 2 * MARGIN

    def _scale(self, size):
        """How large maps can be in a figure of this size."""
        widths, heights = self._maps(1)
        texts = self._texts()
        free = size - 2 * MARGIN - [texts[0] + self._beside(), texts[1]]
        free[1] -= self._over(1).sum() + self.above_size[1] + self.below_size[1]
        return max(min(free[0] / widths.sum(), free[1] / heights.sum()), 0.05)

    def _place(self, figure, scale, spare):
        """Set the positions, with half of the spare room on each side."""
        total = figure.get_size_inches()

        def position(x, y, width, height):  # y from above
            return [x / total[0], 1 - (y + height) / total[1], width / total[0], height / total[1]]

        widths, heights = self._maps(scale)
        # A text that is wider than all maps makes room beside them.
        beside = (
            self._size(scale)[0] - 2 * MARGIN - (self._texts()[0] + widths.sum() + self._beside())
        )
        across = MARGIN + (spare[0] + beside) / 2 + _starts(self.left, widths, self.right, self.gap)
        edge = MARGIN + spare[1] / 2  # of the texts above and below all
        down = edge + self.above_size[1] + self._over(scale)[0]
        down = down + _starts(self.top, heights, self.bottom, GAP)
        for (row, column), ax in np.ndenumerate(self.axes):
            if ax is not None:
                size = scale * self.sizes[row, column]
                corner = (
                    across[column] + (widths[column] - size[0]) / 2,
                    down[row],
                )
                _set_position(ax, position(*corner, *size))
        if self.bar is not None:
            height = self._bar_height(scale)
            x = across[-1] + widths[-1] + self.right[-1] + GAP + self.around_bar[0]
            y = (down[0] + down[-1] + heights[-1] - height) / 2
            _set_position(self.bar, position(x, y, BAR, height))
        if self.above is not None:
            self.above.set_position((0.5, 1 - edge / total[1]))
        if self.below is not None:
            self.below.set_position((0.5, edge / total[1]))
        for follow in self.followers:
            follow(scale)


def _starts(before, sizes, after, gap):
    """Where maps in a row start, with what is around each and the gaps."""
    steps = before + sizes + after + gap
    return np.cumsum(steps) - steps + before


def _set_position(ax, position):
    ax.set_position(position)
    ax.set_in_layout(True)  # or a figure that is cropped to its contents would lose it


def draw_figure(panels, options, colorbar, title=None, note=""):
    """Draw all maps into a new figure as large as they need.

    Parameters
    ----------
    panels : ndarray of Panel or None, shape (rows, columns)
    options : dict
        Of imshow, from `image_options`.
    colorbar : bool
    title, note : str, optional
        Of the whole figure.
    """
    figure = pyplot.figure(layout="none")
    try:
        _draw_maps(figure, panels, options, colorbar, title, note)
    except BaseException:
        pyplot.close(figure)  # no figure is left half done
        raise


def _draw_maps(figure, panels, options, colorbar, title, note):
    every = [panel for panel in panels.flat if panel is not None]
    cell = every[0].cell_size(figure, panels)
    shape = cell[1] / cell[0]
    options = {"aspect": "equal" if shape == 1 else shape} | options
    axes = np.full(panels.shape, None)
    sizes = np.zeros((*panels.shape, 2))
    grid = figure.add_gridspec(*panels.shape)
    for where, panel in np.ndenumerate(panels):
        if panel is None:
            continue
        rows, columns = panel.shape
        sizes[where] = columns * cell[0], rows * cell[1]
        # At its place from the start: the numbers of rows follow the length of an axis.
        panel.ax = axes[where] = figure.add_subplot(grid[where])
        _set_position(panel.ax, [0, 0, *sizes[where] / figure.get_size_inches()])
        panel.draw(options)
        panel.set_sizes(72 * cell[0], 72 * cell[1])
    bar = None
    if colorbar:
        bar = figure.add_axes([0.9, 0.1, 0.02, 0.8])
        figure.colorbar(every[0].image, cax=bar)
    font = every[0].write.font
    # An empty one too: a title that is set later gets room by it.
    above = figure.suptitle(title or "", va="top", **font)
    below = figure.supxlabel(note, **NOTE) if note else None
    followers = [panel.follow for panel in every]
    layout = Layout(axes, sizes, every[0].gap, bar, above, below, followers)
    layout.fit(figure)
    figure.set_layout_engine(layout)


def _cell(figure, panels):
    """The width and height of a cell in inches, for all maps of a new figure."""
    every = [panel for panel in panels.flat if panel is not None]
    rows, columns = np.max([panel.shape for panel in every], axis=0)
    most = max(rows, columns)
    wanted = max(every[0].cell, LEAST_SIDE / most)
    for panel in every:
        if panel.numbers:
            width, height = measure(figure, max(panel.numbers, key=len), fontsize=8)
            wanted = max(wanted, width / 0.85 / 72, height / 0.8 / 72)
    square = min(max(largest_cell(panels), LEAST_CELL), MOST_SIDE / most, wanted)
    # Squares, unless the map would be a thin line.
    return tuple(
        max(square, min(max(CELL * count, 2 * CELL), LEAST_SIDE) / count)
        for count in (columns, rows)
    )


def largest_cell(panels):
    """The side of square cells with which all panels together are as large as maps may be."""

    def together(panels, axis):
        return sum(max(panel.shape[axis] for panel in line if panel is not None) for line in panels)

    return MOST_SIDE / max(together(panels, 0), together(panels.T, 1))


def _lay_out(figure):
    """Let the figure's layout engine, if any, place now what is there."""
    figure = figure.figure  # of a subfigure
    engine = figure.get_layout_engine()
    if engine is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is not finished: there may be no room as yet
            engine.execute(figure)


def measure(figure, text, **font):
    """The width and height of a text in points."""
    drawn = figure.text(0, 0, text, **{"parse_math": False, "usetex": False} | font)
    box = drawn.get_window_extent()
    drawn.remove()
    return max(box.width, 1) * 72 / figure.dpi, max(box.height, 1) * 72 / figure.dpi


def drawable(values):
    """The values with gaps for those so large that the limits of an axis would overflow."""
    return np.where(np.isfinite(values) & (np.abs(values) > 1e300), np.nan, values)


def shares(norm, weights):
    """How far along a scale of colours each weight is: 0 at its start and 1 at its end."""
    return np.ma.filled(norm(np.ma.masked_invalid(drawable(weights))), UNKNOWN)


def is_dark(rgb):
    """Whether white letters on a colour have more contrast than black ones."""
    # WCAG 2: black and white are equally far from a relative luminance of 0.179.
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722] < 0.179


def whole_numbers():
    """A locator of ticks at whole numbers, not more than there is room for."""
    return ticker.MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def image_options(where, options, maps):
    """Options of imshow, with one range of colours for all maps."""
    options = {"cmap": "Blues", "interpolation": "nearest"} | options
    norm = options.pop("norm", None)
    if norm is None:
        options = {"vmin": 0, "vmax": 1} | options
    elif not isinstance(norm, str) and {"vmin", "vmax"} & options.keys():
        raise ValueError(
            f"{where}: vmin and vmax must not be given beside norm, got both "
            "(the norm has its own: Normalize(vmin, vmax))"
        )
    scale = cm.ScalarMappable(norm, options["cmap"])
    scale.set_clim(options.pop("vmin", None), options.pop("vmax", None))
    numbers = np.concatenate([drawable(each).ravel() for each in maps])
    numbers = numbers[np.isfinite(numbers)]
    scale.norm.autoscale_None(numbers if numbers.size else np.array([0.0, 1.0]))
    cmap = scale.get_cmap()
    if cmap.get_bad()[3] == 0:  # transparent, which looks like a small number
        cmap = cmap.with_extremes(bad="0.75")
    return options | {"norm": scale.norm, "cmap": cmap}


# ---- Characters ----------------------------------------------------------------------------------


class Writer:
    """How the texts of a figure are written: in which fonts, and what no font can write.

    Parameters
    ----------
    texts : list of objects with a str, or None
    """

    def __init__(self, texts):
        text = "…".join(str(text) for text in texts if text is not None)
        families, self.drawable = _fonts(text)
        self.missing = {c for c in text if c not in self.drawable and not _controls(c)}
        right_to_left = any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)
        self.reversed = right_to_left and matplotlib.__version_info__[:2] < SHAPING
        self.font = {"family": families, "parse_math": False, "usetex": False}

    def _write(self, text):
        return "".join(c if c in self.drawable else f"U+{ord(c):04X}" for c in text)

    def label(self, text):
        """A text of one line and sensible length."""
        short = len(text) > MOST_CHARACTERS
        return self._write(text[: MOST_CHARACTERS - 1] + "…" if short else text)

    def lines(self, text):
        """A text whose lines are broken where given and where they are too long."""
        return "\n".join(
            textwrap.fill(line, MOST_CHARACTERS) if len(line) > MOST_CHARACTERS else line
            for line in map(self._write, str(text).splitlines())
        )

    def note(self):
        """What to do about characters that are not drawn, or drawn wrongly; or an empty text."""
        lines = self._note_of_missing() if self.missing else []
        if self.reversed:
            version = ".".join(map(str, SHAPING))
            lines += ["Right-to-left text is reversed:", f"matplotlib {version} draws it right"]
        return "\n".join(lines)

    def _note_of_missing(self):
        packages = sorted(set(filter(None, map(_package, self.missing))))
        lines = ["U+...: no installed font", "has this character"]
        if packages:
            lines[-1] += " (Debian, Ubuntu:"
            lines += [f"apt install {packages[0]}", *packages[1:]]
            lines[-1] += ")"
        return lines


def _controls(character):
    """Whether it has no picture at all: a control character, or half of a surrogate pair."""
    return unicodedata.category(character) in ("Cc", "Cs")


def _package(character):
    """The package of Debian and Ubuntu whose font has a character, or None."""
    if unicodedata.category(character) in ("Cn", "Co"):
        return None  # unassigned or private: no font can know it
    code = ord(character)
    if 0x20000 <= code <= 0x3FFFF:
        return "fonts-hanazono"  # rare ideographs, of which Noto has few
    if any(
        first <= code <= last
        for first, last in (
            (0x1100, 0x11FF),
            (0x2E80, 0x9FFF),
            (0xA960, 0xA97F),
            (0xAC00, 0xD7FF),
            (0xF900, 0xFAFF),
            (0xFE30, 0xFE4F),
            (0xFF00, 0xFFEF),
            (0x1F200, 0x1F2FF),
        )
    ):
        return "fonts-noto-cjk"
    # Emoji: matplotlib cannot draw the pictures of colour fonts. Symbola has those of Unicode 10.
    if 0x1F000 <= code <= 0x1F997 or 0x1F9D0 <= code <= 0x1F9E6:
        return "fonts-symbola"
    if 0x1F998 <= code <= 0x1F9FF:
        return None
    return "fonts-noto-core"


def _fonts(text):
    """Find fonts for a text.

    Returns the families to draw it with (matplotlib takes each character from the first that has
    it) and the set of its characters that one of them has.
    """
    wanted = {c for c in text if not _controls(c)}
    families = list(rcParams["font.family"])
    drawable = set().union(*(wanted & _characters(_file(family)) for family in families))
    if not drawable:  # none of the families is installed
        drawable = wanted & _characters(font_manager.findfont(font_manager.FontProperties()))
    tried = set()
    for look in (lambda: None, _add_new_fonts):  # for new files only if the known ones do not do
        if drawable == wanted:
            break
        look()
        for font in sorted(font_manager.fontManager.ttflist, key=_preference(wanted)):
            missing = wanted - drawable
            if not missing:
                break
            known = font.name in tried or font.style != "normal" or "Last Resort" in font.name
            if known or not missing & _characters(font.fname):
                continue
            tried.add(font.name)
            # Of a family's files matplotlib takes the one of usual weight.
            found = missing & _characters(_file(font.name))
            if found:
                families.append(font.name)
                drawable |= found
    return families, drawable


def _preference(characters):
    """A key to sort fonts: usual ones first, among hundreds there are ornamental ones.

    One ideograph is drawn differently in China, Japan and Korea.
    """
    names = {unicodedata.name(c, "").partition(" ")[0] for c in characters}
    region = "JP" if names & {"HIRAGANA", "KATAKANA"} else "KR" if "HANGUL" in names else "SC"
    usual = (
        f"Noto Sans CJK {region}",
        "Noto Sans CJK",
        "Noto Sans",
        "Noto Serif",
        "Source Han Sans",
        "WenQuanYi",
        "Droid Sans",
        "PingFang",
        "Hiragino Sans",
        "Microsoft YaHei",
        "SimHei",
        "Arial Unicode",
        "",
    )

    def key(font):
        rank = next(n for n, name in enumerate(usual) if font.name.startswith(name))
        return rank, font.name, font.fname

    return key


def _file(family):
    """The font file that matplotlib takes for a family, or None."""
    try:
        return font_manager.fontManager.findfont(
            font_manager.FontProperties(family=family),
            fallback_to_default=False,
            rebuild_if_missing=False,
        )
    except ValueError:
        return None


@functools.cache
def _characters(path):
    """Return the set of characters that a font file has."""
    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError, TypeError):  # listed but broken or gone, or None
        return frozenset()


def _add_new_fonts():
    """Tell matplotlib of font files that were installed after it listed them."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known - _unusable):
        try:
            font_manager.fontManager.addfont(path)
        except Exception:  # broken, or of pictures, for which there are many kinds of errors
            _unusable.add(path)


_unusable: set[str] = set()  # font files not to be read again

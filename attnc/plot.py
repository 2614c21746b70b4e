"""Pictures of attention: over words, over images and videos; the loss curve of a training.

Needs matplotlib, which is imported when a function is called: ``pip install attnc[plot]``. The
functions draw into an Axes and return it; showing or saving it is left to the caller, as in
``heat_map(weights).figure.savefig("weights.png")``.
"""

import math

import numpy as np

from attnc import _arguments as arguments
from attnc.arrays import flag, integer, number, real_array

__all__ = [
    "head_grid",
    "heat_map",
    "heat_maps",
    "links",
    "loss_curve",
    "marked_text",
    "overlay",
    "strip",
]


@np.errstate(all="ignore")  # of the caller: what matplotlib rounds is not his
def heat_map(
    weights,
    queries=None,
    keys=None,
    ax=None,
    *,
    title=None,
    xlabel="keys",
    ylabel="queries",
    colorbar=True,
    annotate=False,
    **options,
):
    """Draw attention weights: a row for each query, a column for each key.

    In a translation the keys are the source words, from left to right, and the queries the target
    words, from top to bottom (Bahdanau, Cho and Bengio 2015, figure 3).

    Parameters
    ----------
    weights : array_like, shape (Tq, Tk)
        The weights of one sequence and one head, in 0..1; any real dtype, or bool (a mask). What
        is not finite, or beyond 1e300, is drawn in grey.
    queries, keys : sequence of Tq, of Tk, optional
        What to write beside the rows and above the columns: anything with a ``str``. A string is
        a sequence of characters. Without labels, rows and columns are numbered from 0.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure unless given, as large as its cells and labels need. In given
        Axes labels and numbers are in smaller letters where there is less room; give their figure
        ``layout="constrained"``, so that labels get what they need.
    title, xlabel, ylabel : str, optional
        Texts of the figure.
    colorbar : bool
        Draw the scale of the colours beside the map.
    annotate : bool or str
        Write the number into each cell; a string is its format, such as ``".1f"`` or
        ``"{:.0%}"``, and True means ``".2f"``.
    **options
        For ``Axes.imshow``, such as ``cmap="viridis"``, or ``vmin=None, vmax=None`` for scores,
        which have no fixed range.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If `weights` is not real (or is a masked array), or another argument is of a wrong kind.
    ValueError
        If `weights` has not two axes or is empty, or a label is missing or left over.

    See Also
    --------
    heat_maps : Several heads or sentences in one figure.

    Notes
    -----
    All text is drawn as it is, a ``$`` does not begin mathematics. Characters that the default
    font lacks, such as Chinese ones, are drawn in an installed font that has them, even one that
    was installed since matplotlib last looked. Where there is none, and for characters that only
    control, they are written as code points, and the figure says which package has a font.
    Right-to-left text, such as Arabic, is drawn right from matplotlib 3.11 on; with an older one
    the figure says so. A label of more than 100 characters is shortened.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> x = np.eye(3)
    >>> context, weights = attnc.dot_product_attention(x, x, x, return_weights=True)
    >>> ax = heat_map(weights, queries="je suis ici".split(), keys="I am here".split())
    """
    weights = arguments.matrix("heat_map", "weights", weights)
    queries = arguments.labels("heat_map", "queries", queries, weights.shape, 0)
    keys = arguments.labels("heat_map", "keys", keys, weights.shape, 1)
    colorbar = flag("heat_map", "colorbar", colorbar)
    template = arguments.template("heat_map", annotate)
    pictures = _import_pictures("heat_map")
    if ax is not None and not hasattr(ax, "imshow"):
        raise TypeError(f"heat_map: ax must be a matplotlib Axes, got {type(ax).__name__}")
    write = pictures.Writer([title, xlabel, ylabel, *(queries or []), *(keys or [])])
    names = {"title": title, "xlabel": xlabel, "ylabel": ylabel}
    panel = pictures.Panel(weights, queries, keys, names, template, write, note=True)
    options = pictures.image_options("heat_map", options, [weights])
    if ax is None:
        pictures.draw_figure(np.array([[panel]]), options, colorbar)
    else:
        panel.draw_into(ax, options, colorbar)
    return panel.ax


@np.errstate(all="ignore")
def heat_maps(
    weights,
    queries=None,
    keys=None,
    *,
    titles=None,
    columns=None,
    title=None,
    xlabel="keys",
    ylabel="queries",
    colorbar=True,
    annotate=False,
    **options,
):
    """Draw several maps of attention weights in one figure, such as the heads of a layer.

    Cells are equally large in all maps, colours mean the same, and one bar explains them.

    Parameters
    ----------
    weights : array_like, shape (N, Tq, Tk), or sequence of N array_like, shape (Tq, Tk)
        The weights of N heads of one sequence, or of N sequences of different lengths; each as in
        `heat_map`.
    queries, keys : sequence, optional
        What to write beside the rows and above the columns: labels as in `heat_map`, for every
        map, or a sequence of N lists (tuples, arrays) of labels, one for each. None in such a
        sequence is a map without labels.
    titles : sequence of N str, optional
        What to write above each map; "head 0", "head 1", ... unless given. Empty strings for none.
    columns : int, optional
        How many maps are side by side; up to four unless given.
    title : str, optional
        Above all maps.
    xlabel, ylabel : str, optional
        Names of the axes, written at the first row and column of maps.
    colorbar : bool
        Draw the scale of the colours beside the maps.
    annotate : bool or str
        Write the number into each cell, as in `heat_map`.
    **options
        For ``Axes.imshow``. With ``vmin=None, vmax=None`` the colours range over the numbers of
        all maps.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (N,)
        In the order of `weights`; the figure is that of each, ``axes[0].figure``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If weights are not real (or masked arrays), or another argument is of a wrong kind.
    ValueError
        If weights are not N maps or empty, or a label or a title is missing or left over.

    See Also
    --------
    heat_map : One map, also into given Axes.
    head_grid : All heads of all layers, with labels at the edges alone.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> words = "I am here".split()
    >>> x = np.random.default_rng(0).standard_normal((4, 3, 8))  # 4 heads
    >>> context, weights = attnc.dot_product_attention(x, x, x, return_weights=True)
    >>> axes = heat_maps(weights, words, words, title="self-attention")
    >>> axes.shape, axes[3].get_title()
    ((4,), 'head 3')
    """
    where = "heat_maps"
    weights = arguments.matrices(where, weights)
    queries = arguments.labels_of_each(where, "queries", queries, weights, 0)
    keys = arguments.labels_of_each(where, "keys", keys, weights, 1)
    titles = arguments.titles(where, "titles", titles, len(weights), "head")
    columns = arguments.columns(where, columns, len(weights))
    colorbar = flag(where, "colorbar", colorbar)
    template = arguments.template(where, annotate)
    pictures = _import_pictures(where)

    every = [label for labels in (*queries, *keys) for label in labels or []]
    write = pictures.Writer([title, xlabel, ylabel, *titles, *every])
    options = pictures.image_options(where, options, weights)
    panels = []
    for n, each in enumerate(weights):
        names = {
            "title": titles[n] or None,
            "xlabel": xlabel if n < columns else None,
            "ylabel": None if n % columns else ylabel,
        }
        panels.append(pictures.Panel(each, queries[n], keys[n], names, template, write))
    return _draw_grid(pictures, panels, columns, options, colorbar, title, write)


@np.errstate(all="ignore")
def head_grid(
    weights,
    queries=None,
    keys=None,
    *,
    layers=None,
    heads=None,
    title=None,
    xlabel="keys",
    ylabel="queries",
    colorbar=True,
    annotate=False,
    **options,
):
    """Draw the attention weights of all heads of all layers: a row a layer, a column a head.

    All maps have the same queries and keys, which are written at the left and upper edge of the
    grid. Colours mean the same in all, and one bar explains them.

    Parameters
    ----------
    weights : array_like, shape (layers, H, Tq, Tk) or (H, Tq, Tk)
        The weights of one sequence, in 0..1; as in `heat_map`.
    queries, keys : sequence of Tq, of Tk, optional
        Labels as in `heat_map`.
    layers, heads : sequence of str, optional
        What to write beside each row and above each column of maps: "layer 0", ... (nothing if
        weights have no axis of layers) and "head 0", ... unless given.
    title : str, optional
        Above all maps.
    xlabel, ylabel : str, optional
        Names of the axes, written at the first row and column of maps.
    colorbar : bool
        Draw the scale of the colours beside the maps.
    annotate : bool or str
        Write the number into each cell, as in `heat_map`.
    **options
        For ``Axes.imshow``, as in `heat_maps`.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (layers, H)
        Of shape (H,) where weights have no axis of layers. The figure is that of each.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If weights are not real (or masked arrays), or another argument is of a wrong kind.
    ValueError
        If weights have another number of axes or are empty, or a label or a name is missing or
        left over.

    See Also
    --------
    heat_maps : Maps of several sizes, each with labels of its own.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> words = "I am here".split()
    >>> x = np.random.default_rng(0).standard_normal((2, 4, 3, 8))  # 2 layers of 4 heads
    >>> context, weights = attnc.dot_product_attention(x, x, x, return_weights=True)
    >>> axes = head_grid(weights, words, words, title="self-attention")
    >>> axes.shape, axes[0, 3].get_title()
    ((2, 4), 'head 3')
    """
    where = "head_grid"
    weights = arguments.numbers(
        where,
        "weights",
        weights,
        ["(layers, H, Tq, Tk)", "(H, Tq, Tk)"],
        less=" (for one map: heat_map)",
        more=" (one sequence is weights[{}])",
    )
    grid = weights.reshape(-1, *weights.shape[-3:])
    L, H, *shape = grid.shape
    queries = arguments.labels(where, "queries", queries, tuple(shape), 0)
    keys = arguments.labels(where, "keys", keys, tuple(shape), 1)
    layers = arguments.titles(where, "layers", layers, L, "layer" if weights.ndim == 4 else "")
    heads = arguments.titles(where, "heads", heads, H, "head")
    colorbar = flag(where, "colorbar", colorbar)
    template = arguments.template(where, annotate)
    pictures = _import_pictures(where)

    write = pictures.Writer(
        [title, xlabel, ylabel, *layers, *heads, *(queries or []), *(keys or [])]
    )
    options = pictures.image_options(where, options, grid)
    panels = []
    for row, column in np.ndindex(L, H):
        # A panel names its row and its column only at the edge of the grid.
        beside = [each for each in (layers[row], ylabel) if each] if column == 0 else []
        names = {
            "title": None if row else heads[column] or None,
            "xlabel": None if row else xlabel,
            "ylabel": "\n".join(beside) or None,
        }
        panel = pictures.Panel(
            grid[row, column],
            queries if column == 0 else None,
            keys if row == 0 else None,
            names,
            template,
            write,
            said=(column == 0, row == 0),
        )
        panels.append(panel)
    axes = _draw_grid(pictures, panels, H, options, colorbar, title, write)
    return axes.reshape(weights.shape[:-2])


@np.errstate(all="ignore")
def links(
    weights,
    queries=None,
    keys=None,
    *,
    query=None,
    titles=None,
    columns=None,
    title=None,
    colorbar=True,
    cmap="Blues",
    vmin=0,
    vmax=1,
):
    """Draw attention weights as links from words to words, such as each head of a layer.

    The queries stand at the left, the keys at the right, from top to bottom, and a link between two
    of them is the wider and the darker the larger the weight (Vaswani et al. 2017, "Attention is
    all you need", figures 3 to 5).

    Parameters
    ----------
    weights : array_like, shape (N, Tq, Tk), or sequence of N array_like, shape (Tq, Tk)
        The weights of N heads or sequences, as in `heat_maps`. Links of what is not finite are
        narrow and grey.
    queries, keys : sequence, optional
        The words at the left and at the right: labels for every drawing, or a list of them for
        each, as in `heat_maps`. Numbers from 0 unless given.
    query : int, optional
        Draw the links of this one query, in 0..Tq-1, alone; the other queries are pale. Those of
        all queries unless given.
    titles : sequence of N str, optional
        What to write above each drawing; "head 0", "head 1", ... unless given.
    columns : int, optional
        How many drawings are side by side; up to four unless given.
    title : str, optional
        Above all drawings.
    colorbar : bool
        Draw the scale of the colours beside the drawings.
    cmap : str or matplotlib.colors.Colormap
        The colours of links.
    vmin, vmax : float or None
        The weights of no width and of full width; None for the least and the largest of all.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (N,)
        In the order of `weights`; the figure is that of each, ``axes[0].figure``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If weights are not real (or masked arrays), or another argument is of a wrong kind.
    ValueError
        If weights are not N maps or empty, `query` is out of range, or a label or a title is
        missing or left over.

    See Also
    --------
    heat_maps : The same weights as cells of a grid.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> words = "it was too tired".split()
    >>> x = np.random.default_rng(0).standard_normal((2, 4, 8))  # 2 heads
    >>> context, weights = attnc.dot_product_attention(x, x, x, return_weights=True)
    >>> axes = links(weights, words, words, query=words.index("it"))
    """
    where = "links"
    weights = arguments.matrices(where, weights)
    queries = arguments.labels_of_each(where, "queries", queries, weights, 0)
    keys = arguments.labels_of_each(where, "keys", keys, weights, 1)
    titles = arguments.titles(where, "titles", titles, len(weights), "head")
    if query is not None:
        query = integer(where, "query", query, least=0)
        shortest = min(map(len, weights))
        if query >= shortest:
            raise ValueError(f"{where}: query must lie in 0..{shortest - 1}, got {query}")
    colorbar = flag(where, "colorbar", colorbar)
    columns = arguments.columns(where, columns, len(weights))
    pictures = _import_pictures(where)
    from . import _links

    sides = [
        [labels or list(map(str, range(n))) for labels, n in zip(both, each.shape, strict=True)]
        for *both, each in zip(queries, keys, weights, strict=True)
    ]
    every = [word for both in sides for side in both for word in side]
    write = pictures.Writer([title, *titles, *every])
    panels = [
        _links.Links(each, left, right, query, name, write)
        for each, (left, right), name in zip(weights, sides, titles, strict=True)
    ]
    options = {"cmap": cmap, "vmin": vmin, "vmax": vmax}
    options = pictures.image_options(where, options, weights)
    return _draw_grid(pictures, panels, columns, options, colorbar, title, write)


@np.errstate(all="ignore")
def overlay(
    image,
    weights,
    titles=None,
    *,
    columns=None,
    title=None,
    smooth=True,
    colorbar=False,
    show_image=True,
    cmap="gray",
    vmin=0,
    vmax=None,
    alpha=0.7,
):
    """Draw where in an image each word of a caption looks: the weights of its regions over it.

    The image is drawn once a word, light where the word attends and dark elsewhere (Xu et al. 2015,
    "Show, attend and tell", figures 2 and 5).

    Parameters
    ----------
    image : array_like, shape (H, W), (H, W, 3) or (H, W, 4)
        Grey, RGB or RGBA: float in 0..1, uint8, or bool.
    weights : array_like, shape (N, rows, columns)
        The weights of N words over a grid of regions, each of H / rows times W / columns pixels,
        which need not be whole numbers; any real dtype, or bool. What is not finite is grey.
    titles : sequence of N str, optional
        What to write above each map, such as the words; their numbers unless given.
    columns : int, optional
        How many images are side by side; up to five unless given, fewer of wide ones.
    title : str, optional
        Above all images.
    smooth : bool
        Draw weights between the centres of regions by linear interpolation in both directions;
        False draws each region in one colour.
    colorbar : bool
        Draw the scale of the colours beside the images, without the image behind them.
    show_image : bool
        Draw the image alone before the first map.
    cmap : str or matplotlib.colors.Colormap
        The colours of weights.
    vmin, vmax : float or None
        The weights at the ends of the scale of colours, the same for all words; None for the least
        and the largest of all.
    alpha : float
        How much of the image its map covers where weights are least, in 0..1; three quarters of
        that where they are largest.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (N,)
        Those of the maps, in the order of `weights`. The figure is that of each,
        ``axes[0].figure``; the image alone is the first of its Axes, ``axes[0].figure.axes[0]``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If `image` or `weights` are not real (or masked arrays), or another argument is of a wrong
        kind.
    ValueError
        If `image` or `weights` have another shape or are empty, a pixel is not in 0..1, or a title
        is missing or left over.

    See Also
    --------
    strip : The frames of a video.

    Notes
    -----
    An image keeps its proportions unless it is more than thirty times as long as wide. Weights of
    regions that a decoder returns row by row, of shape (N, rows * columns), are drawn as
    ``weights.reshape(-1, rows, columns)``.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> rng = np.random.default_rng(0)
    >>> image, weights = rng.random((32, 32)), rng.dirichlet(np.ones(64), size=3)
    >>> axes = overlay(image, weights.reshape(3, 8, 8), "a red seven".split())
    >>> axes.shape, axes[2].get_title(), len(axes[0].figure.axes)
    ((3,), 'seven', 4)
    """
    where = "overlay"
    image = arguments.pixels(where, "image", image)
    weights = arguments.numbers(
        where,
        "weights",
        weights,
        ["(N, rows, columns)"],
        less=" (of one word: weights[None]; of regions in a row: reshape(N, rows, columns))",
        more=" (those of one image are weights[{}])",
    )
    titles = arguments.titles(where, "titles", titles, len(weights))
    smooth = flag(where, "smooth", smooth)
    colorbar = flag(where, "colorbar", colorbar)
    show_image = flag(where, "show_image", show_image)
    alpha = arguments.alpha(where, alpha)
    pictures = _import_pictures(where)
    from . import _overlays

    # The first panel may have a word or not: titles stand above all of them.
    maps, names = list(weights), titles
    if show_image:
        maps, names = [None, *maps], ["", *names]
    columns = arguments.columns(where, columns, len(maps), _overlays.most_beside(image))
    write = pictures.Writer([title, *titles])
    panels = [
        _overlays.Picture(image, each, {"title": name}, write)
        for each, name in zip(maps, names, strict=True)
    ]
    options = _overlay_options(pictures, where, weights, cmap, vmin, vmax, smooth, alpha)
    axes = _draw_grid(pictures, panels, columns, options, colorbar, title, write)
    return axes[len(axes) - len(weights) :]


@np.errstate(all="ignore")
def strip(
    frames,
    weights,
    titles=None,
    *,
    title=None,
    xlabel="frame",
    smooth=True,
    colorbar=False,
    cmap=None,
    vmin=0,
    vmax=None,
    alpha=0.7,
):
    """Draw where in a video each word of a caption looks: a row of all frames for each word.

    Weights of whole frames are drawn as bars below them, a histogram over time, and frames are the
    paler the less weight they have (Yao et al. 2015, "Describing videos by exploiting temporal
    structure"). Weights of regions are drawn over the frames as in `overlay`.

    Parameters
    ----------
    frames : array_like, shape (T, H, W), (T, H, W, 3) or (T, H, W, 4)
        T images as in `overlay`.
    weights : array_like, shape (N, T) or (N, T, rows, columns)
        The weights of N words: of whole frames, or of the regions of each frame.
    titles : sequence of N str, optional
        What to write at the left of each row, such as the words; their numbers unless given.
    title : str, optional
        Above all frames.
    xlabel : str, optional
        Before the numbers of the frames.
    smooth : bool
        Draw weights of regions smoothly, as in `overlay`. Bars are the same either way.
    colorbar : bool
        Draw the scale of the colours beside the frames.
    cmap : str or matplotlib.colors.Colormap, optional
        The colours of weights; "Blues" for bars and "gray" for regions unless given.
    vmin, vmax : float or None
        The weights at the ends of the scale of colours, and of bars of no height and of full
        height; None for the least and the largest of all.
    alpha : float
        How much of a frame its map of regions covers, as in `overlay`.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (N, T)
        The figure is that of each, ``axes[0, 0].figure``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If `frames` or `weights` are not real (or masked arrays), or another argument is of a wrong
        kind.
    ValueError
        If `frames` or `weights` have another shape or are empty, they are not of as many frames, a
        pixel is not in 0..1, or a title is missing or left over.

    See Also
    --------
    overlay : One image.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> rng = np.random.default_rng(0)
    >>> frames, weights = rng.random((5, 24, 32, 3)), rng.dirichlet(np.ones(5), size=2)
    >>> axes = strip(frames, weights, ["left", "right"])
    >>> axes.shape, axes[1, 0].get_ylabel()
    ((2, 5), 'right')
    """
    where = "strip"
    frames = arguments.pixels(where, "frames", frames, "T, ")
    weights = arguments.numbers(
        where,
        "weights",
        weights,
        ["(N, T, rows, columns)", "(N, T)"],
        less=" (of one word: weights[None])",
        more=" (those of one video are weights[{}])",
    )
    N, T, *regions = weights.shape
    if len(frames) != T:
        fix = " (weights.T)" if not regions and len(frames) == N else ""
        raise ValueError(
            f"{where}: weights must be of {len(frames)} frames, as frames of shape {frames.shape} "
            f"are, got {T} in an array of shape {weights.shape}{fix}"
        )
    titles = arguments.titles(where, "titles", titles, N, each="row")
    smooth = flag(where, "smooth", smooth)
    colorbar = flag(where, "colorbar", colorbar)
    alpha = arguments.alpha(where, alpha)
    pictures = _import_pictures(where)
    from . import _overlays

    if cmap is None:
        cmap = "gray" if regions else "Blues"
    Frame = _overlays.Frame if regions else _overlays.BarFrame
    write = pictures.Writer([title, xlabel, *titles, *range(10)])  # digits for the numbers
    panels = []
    for row, column in np.ndindex(N, T):
        # A panel names its word and its frame only at the edge of the strip.
        names = {
            "title": None if row else str(column),
            "xlabel": None if row or column else xlabel,
            "ylabel": None if column else titles[row],
        }
        panels.append(Frame(frames[column], weights[row, column], (column, T), names, write))
    options = _overlay_options(pictures, where, weights, cmap, vmin, vmax, smooth, alpha)
    axes = _draw_grid(pictures, panels, T, options, colorbar, title, write)
    return axes.reshape(N, T)


@np.errstate(all="ignore")
def marked_text(
    words,
    weights,
    titles=None,
    *,
    title=None,
    width=6.5,
    colorbar=False,
    cmap="Oranges",
    vmin=0,
    vmax=None,
):
    """Draw the words of a text in lines, each on a colour that is its weight.

    Readers know it from classified documents (Yang et al. 2016, "Hierarchical attention networks").
    Several rows of weights are as many copies of the text, one below the other, such as the
    attention and the coverage of one word of a summary (See, Liu and Manning 2017).

    Parameters
    ----------
    words : sequence of T
        Anything with a ``str``. A string is a sequence of characters.
    weights : array_like, shape (N, T)
        The weight of each word in each of N blocks; any real dtype, or bool. What is not finite
        is grey.
    titles : sequence of N str, optional
        What to write above each block; numbers unless given, and nothing above a block alone.
    title : str, optional
        Above all blocks.
    width : float
        Of the lines, in inches. Lines are wider where one word is, and the figure is as high as
        its lines need.
    colorbar : bool
        Draw the scale of the colours beside the blocks.
    cmap : str or matplotlib.colors.Colormap
        The colours of weights.
    vmin, vmax : float or None
        The weights at the ends of the scale of colours, the same for all blocks; None for the
        least and the largest of all. Rows that differ in kind are brought to one scale before, as
        by ``weights / weights.max(axis=1, keepdims=True)``.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (N,)
        The figure is that of each, ``axes[0].figure``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If `weights` are not real (or a masked array), or another argument is of a wrong kind.
    ValueError
        If `weights` have not two axes or are empty, `width` is not positive, or a word or a title
        is missing or left over.

    See Also
    --------
    heat_map : Weights of few words for many queries.

    Notes
    -----
    Where most words are of a right-to-left script, lines begin at the right. A word of more than
    100 characters is shortened.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> words = "the film was not bad at all".split()
    >>> weights = np.array([[0.05, 0.1, 0.05, 0.4, 0.3, 0.05, 0.05]])
    >>> (ax,) = marked_text(words, weights, ["sentiment"])
    >>> [text.get_text() for text in ax.texts] == words
    True
    """
    where = "marked_text"
    weights = arguments.numbers(
        where,
        "weights",
        weights,
        ["(N, T)"],
        less=" (of one block: weights[None])",
        more=" (those of one text are weights[{}])",
    )
    if words is None:
        raise TypeError(f"{where}: words must be a sequence of labels, got None")
    words = arguments.labels(where, "words", words, weights.shape, 1)
    titles = arguments.titles(
        where, "titles", titles, len(weights), "" if len(weights) == 1 else None, "block"
    )
    width = number(
        where, "width", width, "be a positive number of inches", lambda inches: 0 < inches < np.inf
    )
    colorbar = flag(where, "colorbar", colorbar)
    pictures = _import_pictures(where)
    from . import _marked

    write = pictures.Writer([title, *titles, *words])
    page = _marked.Page(words, write, width)
    panels = [
        _marked.Block(page, each, name, write) for each, name in zip(weights, titles, strict=True)
    ]
    options = {"cmap": cmap, "vmin": vmin, "vmax": vmax}
    options = pictures.image_options(where, options, weights)
    return _draw_grid(pictures, panels, 1, options, colorbar, title, write)


@np.errstate(all="ignore")
def loss_curve(losses, validation=None, ax=None, *, title=None):
    """Draw the loss of every training step, smoothed, and that on validation data.

    Parameters
    ----------
    losses : array_like, shape (steps,)
        The loss of each training step. The smoothed curve is the mean of the last steps, a
        fiftieth of all. Where a loss is not finite there is a gap: one step wide, and in the
        means as wide as those that it takes part in.
    validation : sequence of (step, loss), optional
        The loss on validation data after so many steps.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure unless given.
    title : str, optional
        Above the curve.

    Returns
    -------
    matplotlib.axes.Axes
        The loss axis is logarithmic where every finite loss is positive.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If `losses` or `validation` are not real, or masked arrays.
    ValueError
        If `losses` has not one axis or `validation` not two columns.
    """
    losses = real_array("loss_curve", "losses", losses).astype(float)
    if losses.ndim != 1:
        raise ValueError(f"loss_curve: losses must have shape (steps,), got {losses.shape}")
    points = [] if validation is None else validation
    iterator = hasattr(points, "__next__")  # such as zip(steps, losses)
    points = list(points) if iterator else points
    points = real_array("loss_curve", "validation", points).astype(float)
    points = points.reshape(0, 2) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            "loss_curve: validation must be pairs (step, loss), got an array of shape "
            f"{points.shape}"
        )
    pictures = _import_pictures("loss_curve")
    if ax is not None and not hasattr(ax, "plot"):
        raise TypeError(f"loss_curve: ax must be a matplotlib Axes, got {type(ax).__name__}")
    if ax is None:
        ax = pictures.pyplot.figure(figsize=(6, 3.5), layout="constrained").subplots()
    steps = np.arange(1, len(losses) + 1)
    means = pictures.drawable(_running_mean(losses, max(len(losses) // 50, 1)))
    losses, points = pictures.drawable(losses), pictures.drawable(points)
    ax.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    # A point between two gaps has no line to be seen by.
    gap = np.concatenate([[True], ~np.isfinite(means), [True]])
    alone = np.flatnonzero(gap[:-2] & ~gap[1:-1] & gap[2:])
    style = {"marker": "o", "markersize": 3, "markevery": alone.tolist()} if len(alone) else {}
    ax.plot(steps, means, color="tab:blue", label="training", **style)
    if len(points):
        ax.plot(*points.T, "o-", color="tab:orange", markersize=3, label="validation")
    drawn = np.concatenate([losses, points[:, 1]])
    drawn = drawn[np.isfinite(drawn)]
    # Beyond this range the margins of a logarithmic axis overflow.
    if drawn.size and 1e-100 < drawn.min() and drawn.max() < 1e100:
        ax.set_yscale("log")
    ax.xaxis.set_major_locator(pictures.whole_numbers())
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    ax.legend(loc="upper right")  # looking for the best place takes long, and losses fall
    if title is not None:
        write = pictures.Writer([title])
        ax.set_title(write.lines(title), **write.font)
    return ax


def _import_pictures(function):
    try:
        import matplotlib  # noqa: F401, so that no other import error is taken for this one
    except ImportError as error:
        raise ImportError(f"{function}: needs matplotlib: pip install attnc[plot]") from error
    from attnc import _pictures

    return _pictures


def _draw_grid(pictures, panels, columns, options, colorbar, title, write):
    """Draw panels row by row into one new figure; returns their Axes."""
    grid = np.full((math.ceil(len(panels) / columns), columns), None)
    grid.flat[: len(panels)] = panels
    above = None if title is None else write.lines(title)
    pictures.draw_figure(grid, options, colorbar, above, write.note())
    axes = np.full(len(panels), None)
    axes[:] = [panel.ax for panel in panels]
    return axes


def _overlay_options(pictures, where, weights, cmap, vmin, vmax, smooth, alpha):
    """Options of imshow for maps over images."""
    options = {"cmap": cmap, "vmin": vmin, "vmax": vmax, "alpha": alpha}
    options["interpolation"] = "bilinear" if smooth else "nearest"
    return pictures.image_options(where, options, weights)


# ---- Running means -------------------------------------------------------------------------------


def _running_mean(values, window):
    """The mean of each value and the window - 1 before it, of fewer at the start.

    No sum is carried on past its window, so that a NaN or a huge value spoils no other: the
    window is the end of one block of `window` values and the start of the next, and the sums from
    each place to either end of its block are made once.
    """
    count = len(values)
    # A sum of finite values may overflow where their mean does not.
    power = math.ceil(math.log2(window))
    blocks = np.zeros((-(-count // window), window))
    blocks.ravel()[:count] = np.ldexp(values, -power)
    to_here = np.cumsum(blocks, axis=1).ravel()[:count]
    from_here = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    last = np.arange(count)
    first = last - window + 1
    both = (first > 0) & (first % window != 0)  # the others lie in one block
    sums = to_here.copy()
    sums[both] += from_here[first[both]]
    return np.ldexp(sums / np.minimum(last + 1, window), power)

"""Pictures of attention: heat maps of alignments, links of words, the loss curve of a training.

Needs matplotlib, which is imported when a function is called: ``pip install attnc[plot]``. The
functions draw into an Axes and return it; showing or saving it is left to the caller, as in
``heat_map(weights).figure.savefig("weights.png")``.
"""

import math

import numpy as np

from attnc.arrays import flag, integer, plain_array, real_array

__all__ = ["head_grid", "heat_map", "heat_maps", "links", "loss_curve"]


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
    weights = _matrix("heat_map", "weights", weights)
    queries = _labels("heat_map", "queries", queries, weights.shape, 0)
    keys = _labels("heat_map", "keys", keys, weights.shape, 1)
    colorbar = flag("heat_map", "colorbar", colorbar)
    template = _template("heat_map", annotate)
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
    weights = _matrices(where, weights)
    queries = _labels_of_each(where, "queries", queries, weights, 0)
    keys = _labels_of_each(where, "keys", keys, weights, 1)
    titles = _titles(where, "titles", titles, len(weights), "head")
    columns = _columns(where, columns, len(weights))
    colorbar = flag(where, "colorbar", colorbar)
    template = _template(where, annotate)
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
    weights = plain_array(where, "weights", weights)
    if weights.ndim not in (3, 4):
        index = ", ".join("0" * (weights.ndim - 4))
        fix = f" (one sequence is weights[{index}])" if index else ""
        fix = " (for one map: heat_map)" if weights.ndim == 2 else fix
        raise ValueError(
            f"{where}: weights must have shape (layers, H, Tq, Tk) or (H, Tq, Tk), got "
            f"{weights.shape}{fix}"
        )
    if weights.size == 0:
        raise ValueError(f"{where}: weights must not be empty, got shape {weights.shape}")
    grid = weights.reshape(-1, *weights.shape[-3:])
    L, H, *shape = grid.shape
    queries = _labels(where, "queries", queries, tuple(shape), 0)
    keys = _labels(where, "keys", keys, tuple(shape), 1)
    layers = _titles(where, "layers", layers, L, "layer" if weights.ndim == 4 else "")
    heads = _titles(where, "heads", heads, H, "head")
    colorbar = flag(where, "colorbar", colorbar)
    template = _template(where, annotate)
    pictures = _import_pictures(where)

    write = pictures.Writer(
        [title, xlabel, ylabel, *layers, *heads, *(queries or []), *(keys or [])]
    )
    grid = np.stack([[_matrix(where, "weights", each) for each in layer] for layer in grid])
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
    weights = _matrices(where, weights)
    queries = _labels_of_each(where, "queries", queries, weights, 0)
    keys = _labels_of_each(where, "keys", keys, weights, 1)
    titles = _titles(where, "titles", titles, len(weights), "head")
    if query is not None:
        query = integer(where, "query", query, least=0)
        shortest = min(map(len, weights))
        if query >= shortest:
            raise ValueError(f"{where}: query must lie in 0..{shortest - 1}, got {query}")
    colorbar = flag(where, "colorbar", colorbar)
    columns = _columns(where, columns, len(weights))
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


# ---- Arguments -----------------------------------------------------------------------------------


def _matrix(where, name, value):
    """The weights of one map as floats of the machine; bool is a mask, and drawn as 0 and 1."""
    array = plain_array(where, name, value)
    if array.dtype != bool:
        array = real_array(where, name, array)
    if array.ndim != 2:
        index = ", ".join("0" * (array.ndim - 2))
        fix = f" (one sequence and head is {name}[{index}])" if index else ""
        raise ValueError(f"{where}: {name} must have shape (Tq, Tk), got {array.shape}{fix}")
    if array.size == 0:
        raise ValueError(f"{where}: {name} must not be empty, got shape {array.shape}")
    # float: float16 and bfloat16 are not drawn by every matplotlib
    return array.astype(float)


def _matrices(where, weights):
    """The weights of several maps, a list."""
    if hasattr(weights, "ndim") or not hasattr(weights, "__iter__"):
        weights = plain_array(where, "weights", weights)
        if weights.ndim != 3:
            index = ", ".join("0" * (weights.ndim - 3))
            fix = (
                f" (the heads of one sequence are weights[{index}])"
                if index
                else " (one map is weights[None])"
                if weights.ndim == 2
                else ""
            )
            raise ValueError(
                f"{where}: weights must have shape (N, Tq, Tk) or be a sequence of arrays (Tq, Tk)"
                f", got {weights.shape}{fix}"
            )
    weights = list(weights)
    if not weights:
        raise ValueError(f"{where}: weights must have at least one map, got none")
    return [_matrix(where, f"weights[{n}]", each) for n, each in enumerate(weights)]


def _labels(where, name, given, shape, axis):
    """The labels of one axis of one map as strings, or None."""
    if given is None:
        return None
    if not hasattr(given, "__iter__"):
        raise TypeError(f"{where}: {name} must be a sequence of labels, got {given!r}")
    labels = [str(label) for label in given]
    count = shape[axis]
    if len(labels) != count:
        before = ":, " * axis
        fix = f" (without padding: weights[{before}:{len(labels)}])" if len(labels) < count else ""
        raise ValueError(
            f"{where}: {name} must be {count} labels, for weights of shape {shape}, "
            f"got {len(labels)}{fix}"
        )
    return labels


def _labels_of_each(where, name, given, weights, axis):
    """The labels of one axis of each map: given for all, or for each."""
    if given is None or isinstance(given, str) or not hasattr(given, "__iter__"):
        given = [given] * len(weights)
        return [
            _labels(where, name, labels, w.shape, axis)
            for labels, w in zip(given, weights, strict=True)
        ]
    given = list(given)
    lists = [each is None or isinstance(each, (list, tuple, np.ndarray)) for each in given]
    if not (all(lists) and any(each is not None for each in given)):
        return [_labels(where, name, given, w.shape, axis) for w in weights]
    if len(given) != len(weights):
        raise ValueError(
            f"{where}: {name} must be one list of labels, or one for each of {len(weights)} "
            f"maps, got {len(given)} lists"
        )
    return [
        _labels(where, f"{name}[{n}]", labels, w.shape, axis)
        for n, (labels, w) in enumerate(zip(given, weights, strict=True))
    ]


def _titles(where, name, titles, count, what):
    """Titles of maps, rows or columns: those given, or "<what> 0", ..., none for an empty what."""
    if titles is None:
        return [f"{what} {n}" if what else "" for n in range(count)]
    if isinstance(titles, str) or not hasattr(titles, "__iter__"):
        raise TypeError(
            f"{where}: {name} must be a sequence of str, got {titles!r} (above all maps: title=)"
        )
    titles = ["" if each is None else str(each) for each in titles]
    if len(titles) != count:
        each = "map" if name == "titles" else name.removesuffix("s")
        raise ValueError(f"{where}: {name} must be {count}, one a {each}, got {len(titles)}")
    return titles


def _columns(where, columns, count):
    if columns is None:
        columns = math.ceil(count / math.ceil(count / 4))
    return min(integer(where, "columns", columns, least=1), count)


def _template(where, annotate):
    """The format of numbers in cells for str.format, or None."""
    if not isinstance(annotate, str):
        return "{:.2f}" if flag(where, "annotate", annotate) else None
    template = annotate if "{" in annotate else f"{{:{annotate}}}"
    try:
        template.format(0.5)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{where}: annotate must be True, False or a format of numbers such as '.2f', "
            f"got {annotate!r}"
        ) from error
    return template

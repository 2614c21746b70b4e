"""Pictures of attention: the heat map of an alignment, and the loss curve of a training.

Needs matplotlib, which is imported when a function is called: ``pip install attnc[plot]``. The
functions draw into an Axes and return it; showing or saving it is left to the caller, as in
``heat_map(weights).figure.savefig("weights.png")``.
"""

import functools

import numpy as np

__all__ = ["heat_map", "loss_curve"]


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
    **options,
):
    """Draw attention weights: a row for each query, a column for each key.

    In a translation the keys are the source words, from left to right, and the queries the target
    words, from top to bottom (Bahdanau, Cho and Bengio 2015, figure 3).

    Parameters
    ----------
    weights : array_like, shape (Tq, Tk)
        The weights of one sequence and one head, in 0..1.
    queries, keys : sequence of Tq, of Tk, optional
        What to write beside the rows and above the columns: anything with a ``str``.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure of fitting size unless given.
    title, xlabel, ylabel : str, optional
        Texts of the figure.
    colorbar : bool
        Draw the scale of the colours beside the map.
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
    ValueError
        If `weights` has not two axes or is empty, or a label is missing or left over.

    Notes
    -----
    Characters that the default font lacks, such as Chinese ones, are drawn in an installed font
    that has them. Where there is none, they are written as code points, and the figure says so.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> x = np.eye(3)
    >>> context, weights = attnc.dot_product_attention(x, x, x, return_weights=True)
    >>> ax = heat_map(weights, queries="je suis ici".split(), keys="I am here".split())
    """
    weights = np.asarray(weights)
    if weights.ndim != 2:
        index = ", ".join("0" * (weights.ndim - 2))
        fix = f" (one sequence and head is weights[{index}])" if index else ""
        raise ValueError(f"heat_map: weights must have shape (Tq, Tk), got {weights.shape}{fix}")
    if weights.size == 0:
        raise ValueError(f"heat_map: weights must not be empty, got shape {weights.shape}")
    labels = {}
    for name, given, count, before in (
        ("queries", queries, weights.shape[0], ""),
        ("keys", keys, weights.shape[1], ":, "),
    ):
        if given is None:
            continue
        labels[name] = [str(label) for label in given]
        if len(labels[name]) != count:
            fix = (
                f" (without padding: weights[{before}:{len(labels[name])}])"
                if len(labels[name]) < count
                else ""
            )
            raise ValueError(
                f"heat_map: {name} must be {count} labels, for weights of shape "
                f"{weights.shape}, got {len(labels[name])}{fix}"
            )
    pyplot = _import_pyplot("heat_map")
    if ax is None:
        height, width = (min(max(2.5, 1 + 0.3 * count), 16) for count in weights.shape)
        ax = pyplot.figure(figsize=(width + 1, height), layout="constrained").subplots()
    # float: float16 and bfloat16 are not drawn by every matplotlib
    options = {"vmin": 0, "vmax": 1, "cmap": "Blues", "interpolation": "nearest"} | options
    image = ax.imshow(weights.astype(float), **options)
    if colorbar:
        ax.figure.colorbar(image, ax=ax, shrink=0.8)
    if title is not None:
        ax.set_title(title, parse_math=False)
    # Where rows are time, time starts at the top: so do the columns' labels.
    ax.xaxis.set_label_position("top")
    ax.xaxis.tick_top()
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    families, drawable = _fonts("".join(label for some in labels.values() for label in some))
    for name, axis, pixels in (
        ("queries", ax.yaxis, ax.bbox.height),
        ("keys", ax.xaxis, ax.bbox.width),
    ):
        if name not in labels:
            continue
        shown = [
            "".join(c if c in drawable else f"U+{ord(c):04X}" for c in label)
            for label in labels[name]
        ]
        points = pixels / ax.figure.dpi * 72 / len(shown)  # of one row or column
        axis.set_ticks(
            range(len(shown)),
            shown,
            family=families,
            parse_math=False,
            fontsize=min(max(0.8 * points, 4), 11),
        )
    if max(map(len, labels.get("keys", [""])), default=0) > 2:
        ax.tick_params(axis="x", rotation=90)
    if any(c not in drawable for some in labels.values() for label in some for c in label):
        ax.text(
            0.5,
            -0.01,
            "U+...: no installed font has this character (Noto Sans CJK: Chinese)",
            transform=ax.transAxes,
            ha="center",
            va="top",
            fontsize=6,
        )
    return ax


def loss_curve(losses, validation=None, ax=None, *, title=None):
    """Draw the loss of every training step, smoothed, and that on validation data.

    Parameters
    ----------
    losses : array_like, shape (steps,)
        The loss of each training step.
    validation : sequence of (step, loss), optional
        The loss on validation data after so many steps.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure unless given.
    title : str, optional
        Above the curve.

    Returns
    -------
    matplotlib.axes.Axes
        The loss axis is logarithmic where every loss is positive.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If `losses` has not one axis or `validation` not two columns.
    """
    losses = np.asarray(losses, dtype=float)
    if losses.ndim != 1:
        raise ValueError(f"loss_curve: losses must have shape (steps,), got {losses.shape}")
    points = np.asarray([] if validation is None else validation, dtype=float)
    points = points.reshape(0, 2) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            "loss_curve: validation must be pairs (step, loss), got an array of shape "
            f"{points.shape}"
        )
    pyplot = _import_pyplot("loss_curve")
    if ax is None:
        ax = pyplot.figure(figsize=(6, 3.5), layout="constrained").subplots()
    steps = np.arange(1, len(losses) + 1)
    ax.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    # A running mean; the window shrinks at the start, where there are no steps before.
    window = max(len(losses) // 50, 1)
    sums = np.concatenate([[0], np.cumsum(losses)])
    starts = np.maximum(steps - window, 0)
    means = (sums[steps] - sums[starts]) / (steps - starts)
    ax.plot(steps, means, color="tab:blue", label="training")
    if len(points):
        ax.plot(*points.T, "o-", color="tab:orange", markersize=3, label="validation")
    drawn = np.concatenate([losses, points[:, 1]])
    if drawn.size and np.all(drawn > 0):
        ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    ax.legend()
    if title is not None:
        ax.set_title(title, parse_math=False)
    return ax


def _import_pyplot(function):
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(f"{function}: needs matplotlib: pip install attnc[plot]") from error
    return pyplot


def _fonts(text):
    """Find fonts for a text.

    Returns the families to draw it with (matplotlib takes each character from the first that has
    it) and the set of its characters that one of them has.
    """
    from matplotlib import font_manager, rcParams

    families = list(rcParams["font.family"])
    drawable = set(text) & _characters(font_manager.findfont(font_manager.FontProperties()))
    missing = set(text) - drawable
    # The usual fonts first: among hundreds of installed ones an ornamental one may come earlier.
    usual = (
        "Noto Sans CJK",
        "Noto Sans",
        "Source Han Sans",
        "WenQuanYi",
        "Droid Sans",
        "PingFang",
        "Hiragino Sans",
        "Microsoft YaHei",
        "SimHei",
        "Arial Unicode",
    )
    fonts = sorted(
        (
            font
            for font in font_manager.fontManager.ttflist
            if missing and font.style == "normal" and "Last Resort" not in font.name
        ),
        key=lambda font: (not font.name.startswith(usual), font.name, font.fname),
    )
    for font in fonts:
        found = missing & _characters(font.fname)
        if found:
            families.append(font.name)
            drawable |= found
            missing -= found
        if not missing:
            break
    return families, drawable


@functools.lru_cache(maxsize=256)
def _characters(path):
    """Return the set of characters that a font file has."""
    from matplotlib import font_manager

    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError):  # a file that is listed but broken or gone
        return frozenset()

"""The arguments of pictures, checked: weights, labels and titles.

For `attnc.plot` and `attnc.show`; nothing here imports matplotlib.
"""

import math

import numpy as np

from attnc.arrays import flag, integer, number, plain_array, real_array


def shaped(where, name, value, shapes, less="", more=""):
    """`value` as an array of real numbers, or bool, that is not empty.

    Parameters
    ----------
    where, name : str
    value : array_like
    shapes : list of str
        What shapes it may have, such as "(Tq, Tk)", those of most axes first.
    less, more : str
        What to do about an array of one axis less than all these, and of more than all, in which
        "{}" stands for the index that takes the first of the others.
    """
    array = plain_array(where, name, value)
    if array.dtype != bool:
        array = real_array(where, name, array)
    axes = [shape.count(",") + 1 for shape in shapes]
    if array.ndim not in axes:
        index = ", ".join("0" * (array.ndim - axes[0]))
        fix = more.format(index) if index else less if array.ndim == axes[-1] - 1 else ""
        raise ValueError(
            f"{where}: {name} must have shape {' or '.join(shapes)}, got {array.shape}{fix}"
        )
    if array.size == 0:
        raise ValueError(f"{where}: {name} must not be empty, got shape {array.shape}")
    return array


def numbers(where, name, value, shapes, less="", more=""):
    """Weights as floats of the machine; bool is a mask, and drawn as 0 and 1."""
    # float: float16 and bfloat16 are not drawn by every matplotlib
    return shaped(where, name, value, shapes, less, more).astype(float)


def pixels(where, name, value, frames=""):
    """Grey or coloured pixels as bytes: an image, or several with an axis of frames."""
    shapes = [f"({frames}H, W, 3 or 4)", f"({frames}H, W)"]
    pixels = shaped(where, name, value, shapes)
    lead = frames.count(",")
    if pixels.ndim == lead + 3 and pixels.shape[-1] not in (3, 4):
        channels = pixels.shape[lead]
        fix = f" ({name}[..., 0])" if pixels.shape[-1] == 1 else ""
        fix = f" ({name}[{':, ' * lead}0])" if channels == 1 else fix
        fix = f" (np.moveaxis({name}, {lead}, -1))" if channels in (3, 4) else fix
        raise ValueError(
            f"{where}: {name} must have shape {' or '.join(shapes)}, got {pixels.shape}{fix}"
        )
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind in "iu":
        raise TypeError(
            f"{where}: {name} must be float in 0..1, uint8 or bool, got {pixels.dtype} "
            f"(if in 0..255: {name}.astype(np.uint8))"
        )
    pixels = pixels.astype(np.float32)
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 1):  # NaN is not
        raise ValueError(
            f"{where}: {name} must lie in 0..1, got {low:g}..{high:g} "
            f"(np.clip({name}, 0, 1); bytes as uint8)"
        )
    return np.rint(255 * pixels).astype(np.uint8)  # what a screen shows, in a quarter of the memory


def matrix(where, name, value):
    """The weights of one map."""
    more = f" (one sequence and head is {name}[{{}}])"
    return numbers(where, name, value, ["(Tq, Tk)"], more=more)


def matrices(where, weights):
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
    return [matrix(where, f"weights[{n}]", each) for n, each in enumerate(weights)]


def in_order(where, name, given):
    """Refuse what has no order, and bytes, which are numbers one by one."""
    if isinstance(given, (set, frozenset)):
        raise TypeError(f"{where}: {name} must be in order, got a set ({name}=sorted(...))")
    if isinstance(given, (bytes, bytearray)):
        raise TypeError(f"{where}: {name} must be words, got bytes {given!r} (.decode() them)")


def labels(where, name, given, shape, axis):
    """The labels of one axis of one map as strings, or None."""
    if given is None:
        return None
    if not hasattr(given, "__iter__"):
        raise TypeError(f"{where}: {name} must be a sequence of labels, got {given!r}")
    in_order(where, name, given)
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


def labels_of_each(where, name, given, weights, axis):
    """The labels of one axis of each map: given for all, or for each."""
    if given is None or isinstance(given, str) or not hasattr(given, "__iter__"):
        given = [given] * len(weights)
        return [
            labels(where, name, each, w.shape, axis) for each, w in zip(given, weights, strict=True)
        ]
    in_order(where, name, given)
    given = list(given)
    lists = [each is None or isinstance(each, (list, tuple, np.ndarray)) for each in given]
    if not (all(lists) and any(each is not None for each in given)):
        return [labels(where, name, given, w.shape, axis) for w in weights]
    if len(given) != len(weights):
        raise ValueError(
            f"{where}: {name} must be one list of labels, or one for each of {len(weights)} "
            f"maps, got {len(given)} lists"
        )
    return [
        labels(where, f"{name}[{n}]", each, w.shape, axis)
        for n, (each, w) in enumerate(zip(given, weights, strict=True))
    ]


def titles(where, name, titles, count, what=None, each="map"):
    """Titles of maps, rows or columns: those given, or "<what> 0", ..., none for an empty what.

    Numbers alone where `what` is None. What has a title is called `each` in errors.
    """
    if titles is None and what is None:
        return [str(n) for n in range(count)]
    if titles is None:
        return [f"{what} {n}" if what else "" for n in range(count)]
    if isinstance(titles, str) or not hasattr(titles, "__iter__"):
        raise TypeError(
            f"{where}: {name} must be a sequence of str, got {titles!r} (above all maps: title=)"
        )
    in_order(where, name, titles)
    titles = ["" if each is None else str(each) for each in titles]
    if len(titles) != count:
        each = each if name == "titles" else name.removesuffix("s")
        raise ValueError(f"{where}: {name} must be {count}, one a {each}, got {len(titles)}")
    return titles


def columns(where, columns, count, most=4):
    if columns is None:
        columns = math.ceil(count / math.ceil(count / most))
    return min(integer(where, "columns", columns, least=1), count)


def alpha(where, alpha):
    return number(where, "alpha", alpha, "lie in 0..1", lambda share: 0 <= share <= 1)


def template(where, annotate):
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

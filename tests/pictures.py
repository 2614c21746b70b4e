"""What is written in a figure, and that none of it is cut off or in the way of another."""

import numpy as np


def draw(ax):
    """Draw into memory, so that whatever matplotlib warns of is raised."""
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba())


def texts(figure):
    """(name, box in pixels) of all that is written in a figure, and of its Axes."""
    found = [(text.get_text(), text) for text in figure.texts]
    for ax in figure.axes:
        found.append(("axes", ax))
        found += [
            (title.get_text(), title) for title in (ax.title, ax._left_title, ax._right_title)
        ]
        found += [
            (text.get_text(), text)
            for text in ax.texts
            if text.get_in_layout() and text.get_visible()
        ]
        for axis in (ax.xaxis, ax.yaxis):
            found.append((axis.label.get_text(), axis.label))
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if low <= tick.get_loc() <= high:
                    for label in (tick.label1, tick.label2):
                        found.append((label.get_text() if label.get_visible() else "", label))
    return [(name, artist.get_window_extent()) for name, artist in found if name.strip()]


def assert_apart(figure):
    """Nothing is cut off, and nothing is in the way of another."""
    figure.canvas.draw()
    named = texts(figure)
    boxes = np.array([box.extents for _, box in named])
    width, height = figure.bbox.width, figure.bbox.height
    outside = (boxes[:, :2] < -0.5).any(1) | (boxes[:, 2:] > [width + 0.5, height + 0.5]).any(1)
    assert not outside.any(), [named[n] for n in np.flatnonzero(outside)]
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.triu((high - low > 1).all(2), 1)
    # Tails of letters may touch in the tightest rows, where the font is rounded to whole pixels.
    assert not shared.any(), [(named[i], named[j]) for i, j in np.argwhere(shared)][:4]

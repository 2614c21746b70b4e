"""Heat maps and loss curves. Every warning is an error, so a missing glyph would show."""

import subprocess
import sys

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import font_manager, pyplot  # noqa: E402

from attnc.plot import heat_map, loss_curve  # noqa: E402


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def draw(ax):
    """Draw into memory, so that whatever matplotlib warns of is raised."""
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba())


def test_rows_are_queries_and_columns_keys():
    weights = np.array([[1, 0, 0], [0, 0.25, 0.75]])
    ax = heat_map(weights, ["je", "suis"], ["I", "am", "here"], title="a title")
    (image,) = ax.images
    assert image.get_array().tolist() == weights.tolist()
    assert image.get_clim() == (0, 1)
    assert image.get_interpolation() == "nearest"
    assert labels(ax.xaxis) == ["I", "am", "here"]
    assert labels(ax.yaxis) == ["je", "suis"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("keys", "queries", "a title")
    assert ax.get_ylim() == (1.5, -0.5)  # time runs downwards
    assert len(ax.figure.axes) == 2  # with the colour bar
    pixels = draw(ax)
    # A dark cell is where the weight is: right of (0, 0) and below it are light ones.
    where = [ax.transData.transform(point) for point in [(0, 0), (1, 0), (0, 1), (2, 1)]]
    dark = [pixels[len(pixels) - 1 - int(y), int(x), :3].mean() < 128 for x, y in where]
    assert dark == [True, False, False, True]


def test_draws_into_given_axes_and_shows_nothing(monkeypatch):
    monkeypatch.setattr(pyplot, "show", lambda *_, **__: pytest.fail("show() was called"))
    figure, (left, right) = pyplot.subplots(1, 2)
    assert heat_map(np.eye(3), ax=left, colorbar=False) is left
    assert heat_map(np.eye(3), ax=right, xlabel="source", ylabel="target", colorbar=False) is right
    assert right.get_xlabel() == "source"
    assert figure.axes == [left, right]
    assert not left.get_title()
    draw(left)


def test_options_go_to_imshow():
    ax = heat_map([[-3.0, 5.0]], vmin=None, vmax=None, cmap="viridis")
    assert ax.images[0].get_clim() == (-3, 5)
    assert ax.images[0].get_cmap().name == "viridis"
    draw(ax)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, bool])
def test_any_dtype(dtype):
    draw(heat_map(np.eye(2, dtype=dtype)))


def test_label_size_follows_the_count():
    def size(count):
        ax = heat_map(np.eye(count), range(count), range(count))
        draw(ax)
        return ax.get_yticklabels()[0].get_fontsize()

    assert size(10) == 11
    assert 4 <= size(120) < 8


def test_labels_are_text_and_not_mathematics():
    ax = heat_map(np.eye(3), ["$x^2$", "$", "_{"], ["a$b$", "\\frac", "5 %"], title="$\\nothing{$")
    assert labels(ax.yaxis) == ["$x^2$", "$", "_{"]
    draw(ax)


def test_long_labels_are_upright():
    assert heat_map(np.eye(2), keys=["ab", "c"]).get_xticklabels()[0].get_rotation() == 0
    assert heat_map(np.eye(2), keys=["abc", "c"]).get_xticklabels()[0].get_rotation() == 90


def test_characters_without_font_become_code_points(monkeypatch):
    known = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    ax = heat_map(np.eye(2), ["年1", "é"], ["a", "\t"])
    assert labels(ax.yaxis) == ["U+5E741", "é"]
    assert labels(ax.xaxis) == ["a", "U+0009"]
    assert "no installed font" in ax.texts[0].get_text()
    draw(ax)


def test_finds_a_font_that_has_the_characters():
    # matplotlib brings STIX along, which has a hooked d that DejaVu Sans lacks.
    ax = heat_map(np.eye(2), ["a", "\u1d81"], ["a", "b"])
    assert not ax.texts
    families = ax.get_yticklabels()[1].get_family()
    assert len(families) > 1
    assert not any("Last Resort" in family for family in families)
    draw(ax)


def test_skips_a_font_file_that_is_gone(monkeypatch):
    gone = font_manager.FontEntry(
        fname="/nowhere/gone.ttf",
        name="Noto Sans CJK Gone",
        weight=400,
        style="normal",
        variant="normal",
        stretch="normal",
        size="scalable",
    )
    fonts = [gone, *font_manager.fontManager.ttflist]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    draw(heat_map(np.eye(2), ["\u1d81", "\U0010fffd"]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.ones(3),), r"weights must have shape \(Tq, Tk\), got \(3,\)$"),
        ((np.ones((2, 8, 3, 4)),), r"weights .* \(one sequence and head is weights\[0, 0\]\)"),
        ((np.ones((0, 3)),), r"weights must not be empty, got shape \(0, 3\)"),
        ((np.eye(5), list("abc")), r"queries must be 5 .* 3 \(without padding: weights\[:3\]\)"),
        (
            (np.eye(5), None, list("abc")),
            r"keys must be 5 .* \(without padding: weights\[:, :3\]\)",
        ),
        (
            (np.eye(2), list("abc")),
            r"queries must be 2 labels, for weights of shape \(2, 2\), got 3$",
        ),
    ],
)
def test_heat_map_errors(arguments, message):
    with pytest.raises(ValueError, match="heat_map: " + message):
        heat_map(*arguments)
    assert not pyplot.get_fignums()  # and no figure is left behind


def test_loss_curve():
    losses = np.linspace(3, 1, 200)
    ax = loss_curve(losses, [(100, 2.5), (200, 1.5)], title="$ title")
    raw, mean, validation = ax.lines
    assert raw.get_ydata().tolist() == losses.tolist()
    assert raw.get_xdata()[0] == 1
    # The mean of the last 4 steps, and at the start of as many as there are.
    np.testing.assert_allclose(
        mean.get_ydata()[[0, 1, 199]], [losses[0], losses[:2].mean(), losses[-4:].mean()]
    )
    assert validation.get_xydata().tolist() == [[100, 2.5], [200, 1.5]]
    assert ax.get_yscale() == "log"
    draw(ax)


@pytest.mark.parametrize("losses", [[], [1.0], [0.0, 0.0], [1.0, np.nan, 2.0], [-1.0, 2.0]])
def test_loss_curve_of_odd_losses(losses):
    _, ax = pyplot.subplots()
    assert loss_curve(losses, ax=ax) is ax
    draw(ax)


def test_loss_curve_errors():
    with pytest.raises(ValueError, match=r"losses must have shape \(steps,\), got \(2, 1\)"):
        loss_curve([[1], [2]])
    with pytest.raises(ValueError, match=r"pairs \(step, loss\), got an array of shape \(3,\)"):
        loss_curve([1], [1, 2, 3])


def test_matplotlib_is_imported_late_and_named_when_missing():
    code = (
        "import sys; import attnc.plot; assert 'matplotlib' not in sys.modules\n"
        "sys.modules['matplotlib'] = None\n"
        "for function in (attnc.plot.heat_map, attnc.plot.loss_curve):\n"
        "    try: function([[1.0]] if function is attnc.plot.heat_map else [1.0])\n"
        "    except ImportError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == [
        "heat_map: needs matplotlib: pip install attnc[plot]",
        "loss_curve: needs matplotlib: pip install attnc[plot]",
    ]

"""Heat maps, links and loss curves. Every warning is an error, so a missing glyph would show."""

import subprocess
import sys

import numpy as np
import pytest
from checks import meetings

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import font_manager, pyplot  # noqa: E402
from pictures import assert_apart, draw  # noqa: E402

from attnc.plot import head_grid, heat_map, heat_maps, links, loss_curve  # noqa: E402

RNG = np.random.default_rng(0)
LONG = "Donaudampfschifffahrtsgesellschaft"


@pytest.fixture(autouse=True)
def numbers_of_its_own(monkeypatch):
    """Every test draws the same numbers, whichever ran before it."""
    monkeypatch.setattr(f"{__name__}.RNG", np.random.default_rng(0))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def words(count, length):
    letters = list("abcdefghijklmWM .g")
    return ["".join(RNG.choice(letters, length)) for _ in range(count)]


def assert_readable(*axes, least=0.55):
    """All of it can be seen, and labels fit their rows and columns."""
    figure = axes[0].figure
    assert_apart(figure)
    for ax in axes:
        rows, columns = ax.images[0].get_array().shape
        box = ax.get_window_extent()
        assert min(box.width, box.height) / figure.dpi > least
        for axis, points in (
            (ax.yaxis, box.height / rows * 72 / figure.dpi),
            (ax.xaxis, box.width / columns * 72 / figure.dpi),
        ):
            if len(axis.get_ticklabels()) == (rows if axis is ax.yaxis else columns):
                assert axis.get_ticklabels()[0].get_fontsize() <= points + 0.01


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
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    ax = heat_map(np.eye(2), ["年1", "é"], ["a", "\t"])
    assert labels(ax.yaxis) == ["U+5E741", "é"]
    assert labels(ax.xaxis) == ["a", "U+0009"]
    assert "no installed font" in ax.texts[0].get_text()
    draw(ax)


@pytest.mark.parametrize("words", [["الجمعة", "مايو"], ["שישי", "במאי"]])
def test_right_to_left_text_is_drawn_right_or_said_to_be_wrong(words, monkeypatch):
    ax = heat_map(np.eye(2), queries=words, keys=words)
    if matplotlib.__version_info__ >= (3, 11):
        assert not ax.texts
    monkeypatch.setattr(matplotlib, "__version_info__", (3, 10, 0, "final", 0))
    (note,) = heat_map(np.eye(2), queries=words).texts
    assert note.get_text() == "Right-to-left text is reversed:\nmatplotlib 3.11 draws it right"
    assert not heat_map(np.eye(2), queries=["mai", "1"]).texts


def test_letters_of_arabic_are_joined():
    """As one word they take less room than one by one."""
    if matplotlib.__version_info__ < (3, 11):
        pytest.skip("matplotlib before 3.11 does not shape text")

    def width(word):
        ax = heat_map(np.eye(1), queries=[word])
        return ax.get_yticklabels()[0].get_window_extent().width

    assert width("الجمعة") < 0.9 * sum(map(width, "الجمعة"))


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


# ---- Sizes: measured as drawn --------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, lengths",
    [
        ((1, 1), (0, 1, 2, 60)),
        ((1, 2), (0, 2, 9)),
        ((7, 1), (0, 1, 60)),
        ((4, 5), (0, 1, 2, 9, 34, 60)),
        ((12, 9), (1, 2, 9)),
        ((3, 40), (0, 2, 60)),
        ((50, 60), (0, 2, 60)),
        ((2, 200), (60,)),
        ((200, 200), (60,)),
    ],
)
def test_heat_map_is_readable(shape, lengths):
    for length in lengths:
        check_size(shape, length)
        pyplot.close("all")


def check_size(shape, length):
    labels = [words(count, length) if length else None for count in shape]
    ax = heat_map(np.full(shape, 0.5), *labels)
    assert_readable(ax)
    if length:
        assert len(ax.get_yticklabels()) == shape[0] and len(ax.get_xticklabels()) == shape[1]
        assert min(ax.get_yticklabels()[0].get_fontsize(), 11) >= 4


@pytest.mark.parametrize(
    ("shape", "length", "colorbar"),
    meetings([(1, 1), (1, 9), (9, 1), (30, 20)], [0, 1, 15], [False, True]),
)
def test_texts_around_the_map_are_readable(shape, length, colorbar):
    labels = [words(count, length) if length else None for count in shape]
    ax = heat_map(
        np.full(shape, 0.5),
        *labels,
        title="A title of some length, which is a sentence",
        xlabel="the words of the source sentence, in order",
        ylabel="the words of the translation, \U0010fffd",
        colorbar=colorbar,
    )
    assert "no installed font" in ax.texts[0].get_text()
    assert_readable(ax)


def test_a_long_label_leaves_the_map_alone():
    short = heat_map(np.eye(4), list("abcd"), list("abcd"))
    long = heat_map(np.eye(4), [*"abc", LONG], [*"abc", LONG])
    assert_readable(long)
    for side in ("width", "height"):
        expected = getattr(short.get_window_extent(), side)
        assert getattr(long.get_window_extent(), side) == pytest.approx(expected)


def test_texts_that_come_later_get_room():
    ax = heat_map(np.eye(6), [*"abcde", LONG])
    ax.set_title("a title")
    ax.set(xlabel="source", ylabel="translation of it")
    ax.figure.suptitle("above all")
    assert_readable(ax)
    ax.set_title("a title which is longer than the figure is wide " * 3)
    draw(ax)
    assert ax.get_window_extent().width > 100  # and does not squeeze the map


def test_a_smaller_or_larger_figure_is_laid_out_anew():
    ax = heat_map(np.eye(10), words(10, 8), words(10, 8), title="a title")
    size = ax.figure.get_size_inches()
    for factor in (0.8, 1.5):
        ax.figure.set_size_inches(size * factor)
        assert_readable(ax)


def test_a_colour_bar_of_the_caller():
    ax = heat_map(np.eye(4), words(4, 8), colorbar=False)
    ax.figure.colorbar(ax.images[0], ax=ax)
    assert_readable(ax)


def test_long_texts_are_shortened_or_broken():
    ax = heat_map(np.eye(2), ["x" * 10_000, "y"], title="word " * 50)
    assert len(labels(ax.yaxis)[0]) == 100 and labels(ax.yaxis)[0].endswith("…")
    assert ax.get_title().split() == ["word"] * 50 and "\n" in ax.get_title()
    assert_readable(ax)


def test_two_wide_letters_are_upright_too():
    assert heat_map(np.eye(30), keys=["WW"] * 30).get_xticklabels()[0].get_rotation() == 90


def test_very_many_labels_are_thinned_out():
    ax = heat_map(np.zeros((2, 600)), keys=[f"k{j}" for j in range(600)])
    shown = labels(ax.xaxis)
    assert 10 < len(shown) < 600 and shown == [f"k{j:.0f}" for j in ax.get_xticks()]
    draw(ax)


@pytest.mark.parametrize("layout", [None, "constrained", "tight"])
@pytest.mark.parametrize("count, length", [(2, 60), (5, 1), (5, 34), (60, 9)])
def test_given_axes(layout, count, length):
    figure, axes = pyplot.subplots(1 if count == 60 else 2, 2, layout=layout)
    for ax in axes.flat:
        heat_map(
            np.eye(count),
            words(count, length),
            words(count, length),
            ax,
            title="t",
            annotate=count < 9,
        )
    draw(axes.flat[0])
    for ax in axes.flat:
        box = ax.get_window_extent()
        # A quarter of a figure of 6.4 by 4.8 inches, with all around: the map is not squeezed.
        assert min(box.width, box.height) > 40
        assert ax.get_yticklabels()[0].get_fontsize() <= max(
            box.height / len(ax.get_yticklabels()) * 72 / figure.dpi, 2
        )


def test_given_axes_of_a_subfigure():
    figure = pyplot.figure(layout="constrained")
    left, right = (part.subplots() for part in figure.subfigures(1, 2))
    assert heat_map(np.eye(3), words(3, 5), words(3, 5), left).figure is left.figure
    heat_map(np.eye(40), words(40, 5), words(40, 5), right)
    figure.canvas.draw()


def test_drawn_over_a_labelled_map():
    ax = heat_map(np.eye(2), ["a", "b"], ["abc", "d"])
    heat_map(np.eye(40), ax=ax, colorbar=False)
    draw(ax)
    shown = [text for text in labels(ax.xaxis) if text]
    assert (
        "a" not in labels(ax.yaxis) and shown and all(text.strip("−").isdigit() for text in shown)
    )
    assert ax.get_xticklabels()[0].get_rotation() == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 7), (200, 200)])
def test_ticks_are_whole_numbers(shape):
    ax = heat_map(np.zeros(shape))
    draw(ax)
    for axis, count in ((ax.yaxis, shape[0]), (ax.xaxis, shape[1])):
        ticks = [tick for tick in axis.get_ticklocs() if -0.5 <= tick <= count - 0.5]
        assert ticks and ticks == [int(tick) for tick in ticks] and len(ticks) <= 11


# ---- Characters ----------------------------------------------------------------------------------


def test_title_and_names_of_axes_are_drawn_like_labels(monkeypatch):
    ax = heat_map(np.eye(2), title="\u1d81", xlabel="$\u1d81", ylabel="\u1d81$", colorbar=False)
    assert not ax.texts
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        assert len(text.get_family()) > 1
    draw(ax)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    known = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    ax = heat_map(np.eye(2), title="年", xlabel="月", ylabel="日")
    assert [ax.get_title(), ax.get_xlabel(), ax.get_ylabel()] == ["U+5E74", "U+6708", "U+65E5"]
    assert "fonts-noto-cjk" in ax.texts[0].get_text()
    assert loss_curve([1], title="年").get_title() == "U+5E74"


def test_a_font_that_was_installed_since_is_found(monkeypatch):
    (stix,) = [
        font
        for font in font_manager.fontManager.ttflist
        if font.fname.endswith("STIXGeneral.ttf") and font.name == "STIXGeneral"
    ]
    before = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", before)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [__file__, stix.fname])
    ax = heat_map(np.eye(1), ["\u1d81"])
    assert not ax.texts and "STIXGeneral" in ax.get_yticklabels()[0].get_family()
    draw(ax)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: pytest.fail("looked for nothing"))
    heat_map(np.eye(1), ["\u1d81"], title="known")


@pytest.mark.parametrize(
    "text, packages",
    [
        ("年", "fonts-noto-cjk"),
        ("あ한", "fonts-noto-cjk"),
        ("ह", "fonts-noto-core"),
        ("\U0001f98a", "fonts-symbola"),
        ("\U00020089", "fonts-hanazono"),
        ("年ह", "fonts-noto-cjk\nfonts-noto-core"),
        ("\U0010fffd", None),  # of private use: no font can be named
    ],
)
def test_the_note_names_the_package(monkeypatch, text, packages):
    known = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    note = heat_map(np.eye(1), [text]).texts[0].get_text()
    assert note.partition("apt install ")[2].rstrip(")") == (packages or "")


@pytest.mark.parametrize(
    "text", ["مرحبا", "שלום", "\ud800", "a\nb", "\r\n\x00", "", " ", "\u202eabc", "e\u0301", "\\"]
)
def test_all_texts_can_be_drawn(text):
    ax = heat_map(np.eye(1), [text], [text], title=text, xlabel=text, ylabel=text)
    assert_readable(ax)
    assert "\n" not in labels(ax.yaxis)[0]


def test_control_characters_need_no_font():
    ax = heat_map(np.eye(1), ["a\tb\n"])
    assert labels(ax.yaxis) == ["aU+0009bU+000A"] and not ax.texts


def test_labels_of_any_kind():
    ax = heat_map(np.eye(3), np.array(["a", "b", "c"]), [None, 1.5, ("x", 1)])
    assert labels(ax.yaxis) == ["a", "b", "c"]
    assert labels(ax.xaxis) == ["None", "1.5", "('x', 1)"]
    assert labels(heat_map(np.eye(3), "abc").yaxis) == ["a", "b", "c"]
    assert labels(heat_map(np.eye(3), (c for c in "abc")).yaxis) == ["a", "b", "c"]


# ---- Numbers in cells and colours ----------------------------------------------------------------


@pytest.mark.parametrize(
    "annotate, expected", [(True, "0.25"), (".1%", "25.0%"), ("{:g}!", "0.25!")]
)
def test_annotate(annotate, expected):
    weights = np.full((3, 4), 0.25)
    ax = heat_map(weights, annotate=annotate)
    assert [text.get_text() for text in ax.texts] == [expected] * 12
    assert [text.get_position() for text in ax.texts[:5]] == [
        (0, 0),
        (1, 0),
        (2, 0),
        (3, 0),
        (0, 1),
    ]
    assert_readable(ax)


def test_no_numbers_unless_asked_for():
    assert not heat_map(np.eye(2)).texts and not heat_map(np.eye(2), annotate=False).texts


@pytest.mark.parametrize("cmap", ["Blues", "viridis", "gray", "gray_r", "RdBu", "hot"])
def test_numbers_have_contrast(cmap):
    ax = heat_map(np.linspace(0, 1, 30).reshape(5, 6), annotate=True, cmap=cmap)
    pixels = ax.images[0].to_rgba(ax.images[0].get_array())[..., :3].reshape(-1, 3)
    for text, colour in zip(ax.texts, pixels, strict=True):
        ink = matplotlib.colors.to_rgb(text.get_color())

        def luminance(rgb):  # the definition of WCAG 2
            rgb = np.asarray(rgb)
            linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
            return linear @ [0.2126, 0.7152, 0.0722]

        dark, light = sorted([luminance(ink), luminance(colour)])
        assert (light + 0.05) / (dark + 0.05) > 4.5


@pytest.mark.parametrize("shape", [(1, 1), (4, 6), (12, 20)])
@pytest.mark.parametrize("annotate", [True, ".5f"])
def test_numbers_fit_their_cells(shape, annotate):
    for ax in (None, pyplot.subplots()[1], pyplot.subplots(1, 2, layout="constrained")[1][0]):
        ax = heat_map(np.full(shape, 0.5), ax=ax, annotate=annotate)
        draw(ax)
        cell = ax.transData.transform([[0, 0], [1, 1]])
        width, height = np.abs(cell[1] - cell[0])
        box = ax.texts[0].get_window_extent()
        # Below a point, glyphs are not made smaller any more.
        small = ax.texts[0].get_fontsize() < 2
        assert small or box.width <= width + 1 and box.height <= height + 1


def test_what_is_not_finite_is_grey():
    weights = np.array([[0.5, np.nan], [-np.inf, np.inf]])
    for options in ({}, {"vmin": None, "vmax": None}, {"cmap": "viridis"}, {"annotate": True}):
        ax = heat_map(weights, **options)
        pixels = draw(ax)
        for column, row in [(1, 0), (0, 1), (1, 1)]:
            x, y = ax.transData.transform((column - 0.4, row - 0.4))
            assert pixels[len(pixels) - 1 - int(y), int(x), :3].tolist() == [191, 191, 191]
    draw(heat_map(np.full((2, 2), np.nan), vmin=None, vmax=None, annotate=True))


def test_the_bad_colour_of_a_map_of_the_caller_stays():
    cmap = matplotlib.colormaps["viridis"].with_extremes(bad="red")
    assert heat_map([[np.nan]], cmap=cmap).images[0].get_cmap().get_bad().tolist() == [1, 0, 0, 1]
    assert matplotlib.colormaps["Blues"].get_bad()[3] == 0  # matplotlib's own is not touched


def test_norms():
    norm = matplotlib.colors.LogNorm(0.01, 1)
    assert heat_map([[0.1, 0.5]], norm=norm).images[0].norm is norm
    assert heat_map([[0.1, 0.5]], norm="log").images[0].get_clim() == (0.1, 0.5)
    with pytest.raises(ValueError, match="heat_map: vmin and vmax must not be given beside norm"):
        heat_map([[1.0]], norm=norm, vmin=0)


# ---- Several maps --------------------------------------------------------------------------------


def test_heat_maps():
    weights = RNG.random((8, 3, 4))
    axes = heat_maps(weights, "abc", ["w", "x", "y", "z"], title="all heads")
    assert axes.shape == (8,) and len({id(ax.figure) for ax in axes}) == 1
    for n, ax in enumerate(axes):
        assert ax.images[0].get_array().tolist() == weights[n].tolist()
        assert (labels(ax.yaxis), labels(ax.xaxis)) == (list("abc"), list("wxyz"))
        assert ax.get_title() == f"head {n}"
        assert ax.images[0].get_clim() == (0, 1)
        assert ax.get_xlabel() == ("keys" if n < 4 else "")
        assert ax.get_ylabel() == ("" if n % 4 else "queries")
    assert len(axes[0].figure.axes) == 9  # one colour bar
    assert "all heads" in [text.get_text() for text in axes[0].figure.texts]
    assert_readable(*axes)


@pytest.mark.parametrize(
    ("columns", "length", "count"), meetings([None, 1, 2, 50], [0, 1, 20], [1, 3, 7])
)
def test_maps_of_many_sizes_do_not_touch(count, columns, length):
    shapes = [(1, 1), (2, 30), (7, 3), (1, 6), (12, 12), (30, 2), (4, 5)][:count]
    lists = [
        [words(shape[axis], length) for shape in shapes] if length else None for axis in (0, 1)
    ]
    axes = heat_maps(
        [np.full(shape, 0.5) for shape in shapes],
        *lists,
        titles=["", "short", "a title that is longer than most maps are wide"] * 2 + ["\U0010fffd"]
        if count == 7
        else None,
        columns=columns,
        title="above all",
        colorbar=length != 1,
        annotate=length == 20,
    )
    assert_readable(*axes, least=0.2)
    cells = [
        (ax.get_window_extent().width / shape[1], ax.get_window_extent().height / shape[0])
        for ax, shape in zip(axes, shapes, strict=True)
    ]
    np.testing.assert_allclose(cells, np.broadcast_to(cells[0], (count, 2)), rtol=1e-6)


def test_colours_mean_the_same_in_all_maps():
    axes = heat_maps([[[0.0, 1.0]], [[-7.0, 2.0], [np.nan, 5.0]]], vmin=None, vmax=None)
    assert [ax.images[0].get_clim() for ax in axes] == [(-7, 5)] * 2
    assert heat_maps(np.ones((2, 1, 1)), vmin=-1)[1].images[0].get_clim() == (-1, 1)


def test_labels_of_each_map():
    weights = [np.eye(2), np.eye(3)]
    axes = heat_maps(weights, [["a", "b"], None], [("x", "y"), np.arange(3)])
    assert labels(axes[0].yaxis) == ["a", "b"] and labels(axes[1].xaxis) == ["0", "1", "2"]
    draw(axes[0])
    assert "a" not in labels(axes[1].yaxis)


def test_heat_maps_note_is_one():
    axes = heat_maps(np.ones((3, 2, 2)), ["\U0010fffd", "a"])
    assert not any(ax.texts for ax in axes)
    notes = [text for text in axes[0].figure.texts if "no installed font" in text.get_text()]
    assert len(notes) == 1
    assert_readable(*axes)


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((np.eye(3),), {}, ValueError, r"got \(3, 3\) \(one map is weights\[None\]\)"),
        (
            (np.ones((2, 4, 3, 3)),),
            {},
            ValueError,
            r"\(the heads of one sequence are weights\[0\]\)",
        ),
        ((np.ones((0, 3, 3)),), {}, ValueError, "weights must have at least one map"),
        (([],), {}, ValueError, "weights must have at least one map"),
        (([np.eye(2), np.ones(3)],), {}, ValueError, r"weights\[1\] must have shape \(Tq, Tk\)"),
        (([np.eye(2), np.ones((0, 3))],), {}, ValueError, r"weights\[1\] must not be empty"),
        (([np.eye(2), [[1j]]],), {}, TypeError, r"weights\[1\] must be real, got complex128"),
        ((np.ma.ones((2, 3, 3)),), {}, TypeError, "weights must be a plain array"),
        ((5,), {}, ValueError, r"weights must have shape \(N, Tq, Tk\)"),
        ((np.ones((2, 3, 3)), list("ab")), {}, ValueError, "queries must be 3 labels"),
        ((np.ones((2, 3, 3)), [list("abc")]), {}, ValueError, "queries must be one list .* got 1"),
        (
            (np.ones((2, 3, 3)), None, [list("abc"), list("ab")]),
            {},
            ValueError,
            r"keys\[1\] must be 3 labels",
        ),
        ((np.ones((2, 3, 3)), 7), {}, TypeError, "queries must be a sequence of labels, got 7"),
        (
            (np.ones((2, 3, 3)),),
            {"titles": ["a"]},
            ValueError,
            "titles must be 2, one a map, got 1",
        ),
        ((np.ones((2, 3, 3)),), {"titles": "ab"}, TypeError, r"titles must be .* title="),
        (
            (np.ones((2, 3, 3)),),
            {"columns": 0},
            ValueError,
            "columns must be an integer of at least",
        ),
        ((np.ones((2, 3, 3)),), {"columns": 1.0}, TypeError, "columns must be an integer"),
        ((np.ones((2, 3, 3)),), {"colorbar": "no"}, TypeError, "colorbar must be True or False"),
    ],
)
def test_heat_maps_errors(arguments, options, error, message):
    with pytest.raises(error, match="heat_maps: .*" + message):
        heat_maps(*arguments, **options)
    assert not pyplot.get_fignums()


# ---- The grid of heads ---------------------------------------------------------------------------


def test_head_grid():
    weights = RNG.random((3, 4, 3, 4))
    axes = head_grid(weights, "abc", ["w", "x", "y", "z"], title="all of it")
    assert axes.shape == (3, 4) and len(axes[0, 0].figure.axes) == 13  # one colour bar
    for (row, column), ax in np.ndenumerate(axes):
        assert ax.images[0].get_array().tolist() == weights[row, column].tolist()
        assert ax.images[0].get_clim() == (0, 1)
        assert labels(ax.yaxis) == ([] if column else list("abc"))
        assert labels(ax.xaxis) == ([] if row else list("wxyz"))
        assert ax.get_title() == ("" if row else f"head {column}")
        assert ax.get_xlabel() == ("" if row else "keys")
        assert ax.get_ylabel() == ("" if column else f"layer {row}\nqueries")
    assert "all of it" in [text.get_text() for text in axes[0, 0].figure.texts]
    assert_readable(*axes.flat, least=1)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 2), (6, 8, 12, 12), (3, 2, 2, 40)])
@pytest.mark.parametrize("length", [0, 1, 14])
def test_a_head_grid_is_readable(shape, length):
    annotate = np.prod(shape) < 100
    queries, keys = (words(count, length) if length else None for count in shape[2:])
    axes = head_grid(RNG.random(shape), queries, keys, annotate=annotate, colorbar=length != 1)
    assert_readable(*axes.flat, least=0.55)
    boxes = np.array([[ax.get_window_extent().extents for ax in row] for row in axes])
    # Maps are equally large, in straight rows and columns, and as close as the labels allow.
    size = boxes[..., 2:] - boxes[..., :2]
    np.testing.assert_allclose(size, np.broadcast_to(size[0, 0], size.shape), rtol=1e-6)
    np.testing.assert_allclose(
        boxes[..., [0, 2]], np.broadcast_to(boxes[:1, :, [0, 2]], size.shape)
    )
    np.testing.assert_allclose(
        boxes[..., [1, 3]], np.broadcast_to(boxes[:, :1, [1, 3]], size.shape)
    )
    gap = (boxes[0, 1:, 0] - boxes[0, :-1, 2]) / axes[0, 0].figure.dpi
    if not length and shape[1] > 2:
        assert (gap < 0.5).all()


def test_heads_of_one_layer():
    axes = head_grid(RNG.random((3, 2, 2)), heads=["a", None, "c"], xlabel=None, ylabel=None)
    assert axes.shape == (3,)
    assert [ax.get_title() for ax in axes] == ["a", "", "c"]
    assert not any(ax.get_ylabel() or ax.get_xlabel() for ax in axes)
    assert_readable(*axes)


@pytest.mark.parametrize("words", [["الجمعة", "مايو"], ["今天", "来了"], ["\U0010fffd", "$x^2$"]])
def test_labels_of_all_scripts_in_a_grid(words):
    axes = head_grid(RNG.random((2, 2, 2, 2)), words, words, layers=["一", "二"], title="$_{")
    assert_readable(*axes.flat)
    notes = [text for text in axes[0, 0].figure.texts if "no installed font" in text.get_text()]
    assert len(notes) <= 1 and not any(ax.texts for ax in axes.flat)
    if words[1] == "$x^2$":
        assert labels(axes[1, 0].yaxis) == ["U+10FFFD", "$x^2$"] and len(notes) == 1


def test_colours_and_names_of_a_grid():
    weights = np.zeros((2, 1, 1, 2))
    weights[1] = [[-3, 5]]
    axes = head_grid(
        weights, vmin=None, vmax=None, layers=["low", "a name longer than all of the rows " * 2]
    )
    assert [ax.images[0].get_clim() for ax in axes.flat] == [(-3, 5)] * 2
    assert_readable(*axes.flat)


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((np.eye(3),), {}, ValueError, r"H, Tq, Tk\) or \(H, Tq, Tk\), got \(3, 3\) \(for one map"),
        (
            (np.ones((2, 3, 4, 5, 6)),),
            {},
            ValueError,
            r"got \(2, 3, 4, 5, 6\) \(one sequence is weights\[0\]\)",
        ),
        ((np.ones((2, 0, 3, 3)),), {}, ValueError, r"weights must not be empty, got shape \(2, 0"),
        ((np.ones((2, 2, 3, 3)) * 1j,), {}, TypeError, "weights must be real, got complex128"),
        ((np.ma.ones((2, 2, 3, 3)),), {}, TypeError, "weights must be a plain array"),
        ((np.ones((2, 2, 3, 3)), "ab"), {}, ValueError, "queries must be 3 labels, .* got 2"),
        ((np.ones((2, 2, 3, 3)), None, 7), {}, TypeError, "keys must be a sequence of labels"),
        (
            (np.ones((2, 2, 3, 3)),),
            {"layers": ["a"]},
            ValueError,
            "layers must be 2, one a layer, got 1",
        ),
        ((np.ones((2, 2, 3, 3)),), {"heads": "ab"}, TypeError, "heads must be a sequence of str"),
        ((np.ones((2, 2, 3, 3)),), {"colorbar": 1}, TypeError, "colorbar must be True or False"),
        ((np.ones((2, 2, 3, 3)),), {"annotate": "x"}, ValueError, "annotate must be True, False"),
    ],
)
def test_head_grid_errors(arguments, options, error, message):
    with pytest.raises(error, match="head_grid: .*" + message):
        head_grid(*arguments, **options)
    assert not pyplot.get_fignums()


# ---- Links ---------------------------------------------------------------------------------------


def ends(ax):
    """The curves of a drawing: {(y at the left, y at the right): (width in points, colour)}."""
    (lines,) = ax.collections
    found = {}
    for path, width, colour in zip(
        lines.get_paths(), lines.get_linewidths(), lines.get_colors(), strict=True
    ):
        (x0, y0), *_, (x1, y1) = path.vertices
        assert (x0, x1) == (0, 1)
        found[y0, y1] = width, tuple(colour)
    return found


def rows_of(ax):
    """Where the words stand: {(at the left 0 or right 1, word): y}."""
    return {(text.xy[0], text.get_text()): text.xy[1] for text in ax.texts}


def test_a_link_is_as_wide_and_dark_as_its_weight():
    weights = RNG.dirichlet(np.ones(4), size=(2, 3))
    axes = links(weights, "abc", "wxyz", title="two heads")
    blues = matplotlib.colormaps["Blues"]
    for n, ax in enumerate(axes):
        draw(ax)
        assert ax.get_title() == f"head {n}"
        found, rows = ends(ax), rows_of(ax)
        assert len(found) == 12
        widest = {
            width / weights[n, i, j]
            for i, query in enumerate("abc")
            for j, key in enumerate("wxyz")
            for width, _ in [found[rows[0, query], rows[1, key]]]
        }
        np.testing.assert_allclose(list(widest), max(widest), rtol=1e-12)
        row = abs(ax.transData.transform((0, 0))[1] - ax.transData.transform((0, 1))[1])
        assert 0.5 * row < max(widest) * ax.figure.dpi / 72 < row
        for i, query in enumerate("abc"):
            for j, key in enumerate("wxyz"):
                colour = found[rows[0, query], rows[1, key]][1]
                np.testing.assert_allclose(colour, blues(weights[n, i, j]))
        widths = ax.collections[0].get_linewidths()
        assert sorted(widths) == list(widths)  # what is drawn last lies above
    assert len(axes[0].figure.axes) == 3  # with the scale of the colours
    assert_apart(axes[0].figure)


def test_the_links_of_one_query():
    words = "it was too tired".split()
    weights = RNG.dirichlet(np.ones(4), size=(2, 4))
    for ax in links(weights, words, words, query=2):
        rows = rows_of(ax)
        assert {left for left, _ in ends(ax)} == {rows[0, "too"]}
        colours = {
            text.get_text(): text.get_color() for text in ax.texts if text.get_position()[0] < 0
        }
        assert colours.pop("too") == "black" and set(colours.values()) == {"0.7"}


def test_the_shorter_side_is_in_the_middle():
    (ax,) = links(np.ones((1, 1, 5)), ["it"], "abcde", colorbar=False)
    rows = rows_of(ax)
    assert [rows[1, key] for key in "abcde"] == [0, 1, 2, 3, 4] and rows[0, "it"] == 2
    assert ax.get_ylim() == (4.5, -0.5)  # from top to bottom
    assert ax.figure.axes == [ax]


def test_words_are_numbers_unless_given():
    ax, other = links([np.ones((2, 3)), np.ones((1, 1))], None, [list("abc"), None])
    assert [text.get_text() for text in ax.texts] == ["0", "1", "a", "b", "c"]
    assert [text.get_text() for text in other.texts] == ["0", "0"]


@pytest.mark.parametrize(
    ("columns", "length", "count"), meetings([None, 1, 2], [1, 8, 34], [1, 3, 7])
)
def test_links_of_many_sizes_do_not_touch(count, columns, length):
    shapes = [(1, 1), (2, 30), (7, 3), (12, 12), (1, 6), (30, 2), (90, 4)][:count]
    sides = [[words(shape[axis], length) for shape in shapes] for axis in (0, 1)]
    titles = ["", "short", "a title that is longer than most are wide"] * 2 + ["\U0010fffd"]
    axes = links(
        [np.full(shape, 0.5) for shape in shapes],
        *sides,
        titles=titles[:count],
        columns=columns,
        title="above all",
        colorbar=length != 1,
    )
    assert_apart(axes[0].figure)
    for ax in axes:
        assert ax.get_window_extent().width / ax.figure.dpi > 1


def test_some_of_very_many_words_are_left_out():
    (ax,) = links(np.ones((1, 2, 700)), keys=words(700, 3), query=1)
    shown = [text for text in ax.texts if text.get_visible()]
    assert len(shown) == 1 + 350 and shown[0].get_text() == "1"  # whose links are drawn
    assert_apart(ax.figure)


def test_words_of_links_are_text_of_any_script(monkeypatch):
    known = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    monkeypatch.setattr(matplotlib, "__version_info__", (3, 10, 0, "final", 0))
    axes = links(np.ones((2, 2, 2)), ["年", "$x^2$"], ["שישי", "a" * 200])
    left, _, _, right = (text.get_text() for text in axes[0].texts)
    assert left == "U+5E74" and right == "a" * 99 + "…"
    (note,) = [text for text in axes[0].figure.texts if "no installed font" in text.get_text()]
    assert "Right-to-left" in note.get_text()
    assert_apart(axes[0].figure)


def test_links_that_are_not_finite_are_grey():
    (ax,) = links([[[0.5, np.nan, -np.inf, np.inf]]])
    found = list(ends(ax).values())
    assert sum(colour == (0.75, 0.75, 0.75, 1) and width > 0 for width, colour in found) == 3
    draw(ax)


def test_colours_of_links():
    axes = links([[[-1.0, 3.0]], [[1.0, 1.0]]], vmin=None, vmax=None, cmap="viridis")
    first, second = (list(ends(ax).values()) for ax in axes)
    assert first[0][0] == 0 and second[0][0] == first[1][0] / 2
    assert first[1][1] == matplotlib.colormaps["viridis"](1.0)
    assert axes[0].figure.axes[-1].get_ylim() == (-1, 3)


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((np.eye(3),), {}, ValueError, r"got \(3, 3\) \(one map is weights\[None\]\)"),
        ((np.ones((2, 3, 3)), list("ab")), {}, ValueError, "queries must be 3 labels"),
        ((np.ones((2, 3, 3)),), {"query": 3}, ValueError, r"query must lie in 0..2, got 3"),
        ((np.ones((2, 3, 3)),), {"query": -1}, ValueError, "query must be an integer of at least"),
        ((np.ones((2, 3, 3)),), {"query": "it"}, TypeError, "query must be an integer"),
        (([np.eye(2), np.eye(3)],), {"query": 2}, ValueError, r"query must lie in 0..1, got 2"),
        ((np.ones((2, 3, 3)),), {"titles": ["a"]}, ValueError, "titles must be 2, one a map"),
        ((np.ones((2, 3, 3)),), {"columns": 0}, ValueError, "columns must be an integer of at"),
        ((np.ones((2, 3, 3)),), {"colorbar": 1}, TypeError, "colorbar must be True or False"),
        ((np.ones((2, 3, 3)),), {"cmap": "no such map"}, ValueError, ""),
    ],
)
def test_links_errors(arguments, options, error, message):
    with pytest.raises(error, match=f"links: .*{message}" if message else None):
        links(*arguments, **options)
    assert not pyplot.get_fignums()


# ---- Hostile input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((np.ma.ones((2, 2)),), {}, TypeError, "weights must be a plain array, got a masked array"),
        ((np.eye(2) * 1j,), {}, TypeError, "weights must be real, got complex128"),
        ((np.eye(2).astype(object),), {}, TypeError, "weights must be real, got object"),
        ((np.eye(2).astype(np.longdouble),), {}, TypeError, "weights must be real, got"),
        (([["a"]],), {}, TypeError, "weights must be real, got <U1"),
        (([[1, 2], [3]],), {}, TypeError, "weights must be an array of numbers with rows of"),
        ((np.eye(2), 5), {}, TypeError, "queries must be a sequence of labels, got 5"),
        ((np.eye(2), None, True), {}, TypeError, "keys must be a sequence of labels, got True"),
        ((np.eye(2), None, None, "ax"), {}, TypeError, "ax must be a matplotlib Axes, got str"),
        ((np.eye(2),), {"colorbar": 1}, TypeError, "colorbar must be True or False, got 1"),
        ((np.eye(2),), {"annotate": 2}, TypeError, "annotate must be True or False, got 2"),
        ((np.eye(2),), {"annotate": "d"}, ValueError, "annotate must be .* such as '.2f', got 'd'"),
        ((np.eye(2),), {"annotate": "{x}"}, ValueError, "annotate must be .*, got '{x}'"),
        ((np.eye(2),), {"annotate": "{"}, ValueError, "annotate must be .*, got '{'"),
    ],
)
def test_hostile_arguments(arguments, options, error, message):
    with pytest.raises(error, match="heat_map: " + message):
        heat_map(*arguments, **options)
    assert not pyplot.get_fignums()


def test_an_error_of_matplotlib_leaves_no_figure():
    for options in ({"cmap": "no such map"}, {"nothing": 1}):
        with pytest.raises((ValueError, AttributeError, TypeError)):
            heat_map(np.eye(2), **options)
    assert not pyplot.get_fignums()


def test_bfloat16_and_byte_order():
    dtype = pytest.importorskip("ml_dtypes").bfloat16
    draw(heat_map(np.eye(2).astype(dtype), annotate=True))
    draw(heat_map(np.eye(2).astype(">f4")))
    weights = np.eye(3)
    weights.flags.writeable = False
    draw(heat_map(weights[::-1].T))


def test_the_callers_treatment_of_floating_point_errors_does_not_matter():
    weights = np.array([[1e-310, 1.7e308], [np.nan, -np.inf]])
    half = np.array([[[1e-7, 6e4]], [[-np.inf, -6e4]]], np.float16)
    losses = [1e-310, np.nan, 1e308, 1e308, np.inf, -np.inf]
    with np.errstate(all="raise"):
        axes = [
            heat_map(weights, ["a", "b"], annotate=True),
            heat_map(weights, vmin=None, vmax=None, annotate=True),
            heat_maps(half, vmin=None, vmax=None, annotate=True)[0],
            loss_curve(losses, [(1, np.nan), (2, 1e-310)]),
            loss_curve(half.ravel()),
        ]
        with pytest.raises(FloatingPointError):
            np.float64(1e-310) * np.float64(0.3)  # and it is as it was
    for ax in axes:
        draw(ax)


# ---- Running means -------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e20, -1e300])
@pytest.mark.parametrize("steps", [50, 100, 499, 500])
def test_a_bad_loss_spoils_no_mean_but_its_own(bad, steps):
    window = max(steps // 50, 1)
    for where in (0, 1, window - 1, window, steps // 2, steps - 1):
        losses = np.ones(steps)
        losses[where] = bad
        means = loss_curve(losses).lines[1].get_ydata()
        touched = np.zeros(steps, bool)
        touched[where : where + window] = True
        np.testing.assert_array_equal(means[~touched], 1)
        assert np.isnan(means[touched]).all() or (np.abs(means[touched] - 1) > 1e10).all()
    pyplot.close("all")


@pytest.mark.parametrize("steps", [1, 49, 50, 149, 150, 151, 5003])
def test_running_means(steps):
    losses = RNG.random(steps)
    means = loss_curve(losses).lines[1].get_ydata()
    window = max(steps // 50, 1)
    expected = [losses[max(n + 1 - window, 0) : n + 1].mean() for n in range(steps)]
    np.testing.assert_allclose(means, expected, rtol=1e-13)


def test_a_mean_of_huge_losses_is_finite():
    means = loss_curve(np.full(500, 9e299)).lines[1].get_ydata()
    np.testing.assert_allclose(means, 9e299, rtol=1e-15)


def test_a_million_losses():
    losses = 2 + np.sin(np.arange(1_000_000.0))
    draw(loss_curve(losses))


@pytest.mark.parametrize(
    "losses, scale",
    [
        ([1.0, np.nan, 2.0], "log"),
        ([1.0, np.inf, 2.0], "log"),
        ([0.0, 1.0], "linear"),
        ([-1.0, 1.0], "linear"),
        ([], "linear"),
        ([np.nan, np.nan], "linear"),
        ([1e-320, 1.0], "linear"),
        ([1.0, 1e300], "linear"),
        ([-1e308, 1.7e308, 1.0], "log"),  # beyond what can be drawn: gaps
    ],
)
def test_scale_of_the_loss_axis(losses, scale):
    ax = loss_curve(losses)
    assert ax.get_yscale() == scale
    draw(ax)


@pytest.mark.parametrize("losses", [[0.5], [np.nan, 0.5, np.nan], [0.5, np.nan, 0.5]])
def test_a_loss_alone_is_seen(losses):
    ax = loss_curve(losses)
    ax.legend_.remove()
    pixels = draw(ax)
    for step, loss in enumerate(losses, 1):
        if np.isfinite(loss):
            x, y = ax.transData.transform((step, loss))
            assert pixels[len(pixels) - 1 - int(y), int(x), 0] < 100
    ticks = list(ax.get_xticks())
    assert ticks == [int(tick) for tick in ticks]


def test_validation_may_be_an_iterator():
    ax = loss_curve([3, 2, 1], zip([1, 3], [2.5, 1.5], strict=True))
    assert ax.lines[2].get_xydata().tolist() == [[1, 2.5], [3, 1.5]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.ma.ones(3),), "losses must be a plain array"),
        (([1j],), "losses must be real, got complex128"),
        ((["a"],), "losses must be real, got <U1"),
        (([1.0], np.ma.ones((2, 2))), "validation must be a plain array"),
        (([1.0], [(1, "a")]), "validation must be real, got <U"),
        (([1.0], [(1, 2), (3,)]), "validation must be an array of numbers with rows"),
        (([1.0], 5), "validation must be pairs"),
        (([1.0], None, "ax"), "ax must be a matplotlib Axes, got str"),
    ],
)
def test_hostile_losses(arguments, message):
    with pytest.raises((TypeError, ValueError), match="loss_curve: " + message):
        loss_curve(*arguments)
    assert not pyplot.get_fignums()

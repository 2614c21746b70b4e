"""Words over images, videos and long texts: measured as drawn, every warning is an error."""

import numpy as np
import pytest
from checks import meetings

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import font_manager, pyplot  # noqa: E402
from pictures import assert_apart, draw  # noqa: E402

from attnc.plot import marked_text, overlay, strip  # noqa: E402

RNG = np.random.default_rng(0)
LONG = "Donaudampfschifffahrtsgesellschaft"
GREY = [191, 191, 191]


@pytest.fixture(autouse=True)
def numbers_of_its_own(monkeypatch):
    """Every test draws the same numbers, whichever ran before it."""
    monkeypatch.setattr(f"{__name__}.RNG", np.random.default_rng(0))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.fixture
def one_font(monkeypatch):
    """No font but that of matplotlib, and matplotlib before it shaped text."""
    known = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    monkeypatch.setattr(matplotlib, "__version_info__", (3, 10, 0, "final", 0))


def inside(ax):
    """The colours of what is drawn in Axes, from the upper left, without their edges."""
    pixels = draw(ax)
    box = ax.get_window_extent()
    (left, bottom), (right, top) = np.ceil(box.min), np.floor(box.max)
    rows = slice(int(len(pixels) - top) + 1, int(len(pixels) - bottom) - 1)
    return pixels[rows, int(left) + 1 : int(right) - 1, :3]


def colour_at(ax, x, y):
    """The colour of a point of Axes, in the coordinates of its image."""
    pixels = draw(ax)
    x, y = ax.transData.transform((x, y))
    return pixels[len(pixels) - 1 - int(y), int(x), :3].tolist()


def names(count, length):
    return ["".join(RNG.choice(list("abcdefghijklmWM.g"), length)) for _ in range(count)]


def inches(ax):
    box = ax.get_window_extent()
    return np.array([box.width, box.height]) / ax.figure.dpi


# ---- Overlays ------------------------------------------------------------------------------------


def test_an_image_a_word():
    image, weights = RNG.random((12, 16)), RNG.random((3, 4, 4))
    axes = overlay(image, weights, ["a", "red", "seven"], title="a caption", colorbar=True)
    assert axes.shape == (3,) and [ax.get_title() for ax in axes] == ["a", "red", "seven"]
    alone, *maps, bar = axes[0].figure.axes
    assert maps == list(axes) and bar.get_ylim() == (0, weights.max())
    assert not alone.get_title() and len(alone.images) == 1
    for ax, each in zip(axes, weights, strict=True):
        below, above = ax.images
        np.testing.assert_array_equal(below.get_array(), np.rint(image * 255))
        np.testing.assert_array_equal(above.get_array(), each)
        assert above.get_clim() == (0, weights.max())
        assert not ax.xaxis.get_ticklocs().size and not ax.yaxis.get_ticklocs().size
    assert "a caption" in [text.get_text() for text in axes[0].figure.texts]
    assert_apart(axes[0].figure)


def test_maps_without_the_image_alone():
    axes = overlay(np.zeros((4, 4)), np.ones((2, 2, 2)), show_image=False)
    assert axes[0].figure.axes == list(axes)
    assert [ax.get_title() for ax in axes] == ["0", "1"]


@pytest.mark.parametrize(
    "size, regions",
    [
        ((32, 32), (8, 8)),
        ((10, 7), (3, 4)),
        ((5, 9), (1, 1)),
        ((3, 4), (6, 5)),
        ((224, 224), (14, 14)),
        ((8, 120), (3, 7)),
    ],
)
@pytest.mark.parametrize("dpi", [72, 100])
def test_a_region_lies_over_the_pixels_that_it_covers(size, regions, dpi):
    H, W = size
    rows, columns = regions
    where = [(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3)]
    weights = np.zeros((3, rows, columns))
    for each, (row, column) in zip(weights, where, strict=True):
        each[row, column] = 1
    with pyplot.rc_context({"figure.dpi": dpi}):
        axes = overlay(np.zeros(size), weights, smooth=False, alpha=1)
    for ax, (row, column) in zip(axes, where, strict=True):
        ax.spines[:].set_visible(False)
        pixels = draw(ax)
        # The edges of the region from those of pixels: the first of them is at -0.5.
        edges = np.array([[column * W / columns, row * H / rows]]) - 0.5
        edges = np.concatenate([edges, edges + [W / columns, H / rows]])
        (left, top), (right, bottom) = ax.transData.transform(edges)
        box = ax.get_window_extent()
        x0, x1 = int(np.ceil(box.x0)), int(box.x1)
        y0, y1 = int(np.ceil(len(pixels) - box.y1)), int(len(pixels) - box.y0)
        shown = pixels[y0:y1, x0:x1, 0] > 100
        down, across = np.flatnonzero(shown.any(1)) + y0, np.flatnonzero(shown.any(0)) + x0
        found = [across[0], len(pixels) - down[0], across[-1] + 1, len(pixels) - 1 - down[-1]]
        # The screen has whole pixels, and of those at the edges of the Axes a part.
        np.testing.assert_allclose(found, [left, top, right, bottom], atol=1.01)


def test_a_region_and_the_part_of_the_image_under_it_are_one():
    region = np.zeros((1, 4, 8))
    region[0, 1, 5] = 1
    image = np.kron(region[0], np.ones((8, 4)))
    (ax,) = overlay(image, region, smooth=False, alpha=1)
    below, above = (inside(each) > 100 for each in ax.figure.axes)
    assert below.shape == above.shape and (below == above).mean() > 0.998  # but for its rim


def test_weights_between_centres_are_interpolated():
    weights = RNG.random((1, 3, 4))
    (ax,) = overlay(np.zeros((30, 40)), weights, alpha=1, vmax=1, show_image=False)
    (down, across, _), (H, W) = inside(ax).shape, (3, 4)
    grey = inside(ax)[:, :, 0] / 255
    # The centres of the screen's pixels in regions, as far as these have neighbours.
    box = ax.get_window_extent()
    y = (np.arange(down) + 0.5 + np.ceil(box.y1) - np.floor(box.y1) + 1) / box.height * H - 0.5
    x = (np.arange(across) + 0.5 + np.ceil(box.x0) - box.x0 + 1) / box.width * W - 0.5
    columns = [np.interp(y, range(H), weights[0, :, n]) for n in range(W)]
    expected = np.array([np.interp(x, range(W), row) for row in np.array(columns).T])
    expected *= 1 - 0.25 * expected  # the image is black, and covered less by large weights
    # A pixel is the 53rd part of a region, and a region differs by less than 1 from the next.
    np.testing.assert_allclose(grey, expected, atol=2 / 53)
    assert np.abs(grey - expected).mean() < 0.01


def test_the_image_is_seen_best_where_weights_are_large():
    image = np.tile([[0.0, 1.0]], (2, 4))
    weights = np.array([[[0, 1]]])
    (ax,) = overlay(image, weights, smooth=False)
    contrast = [colour_at(ax, x + 1, 0)[0] - colour_at(ax, x, 0)[0] for x in (0, 6)]
    assert 0.2 * 255 < contrast[0] < contrast[1] - 20


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e301])
def test_regions_that_are_not_finite_are_grey(bad, smooth):
    weights = np.full((1, 3, 3), 0.5)
    weights[0, 1, 1] = bad
    (ax,) = overlay(np.zeros((9, 9)), weights, smooth=smooth, alpha=1)
    assert colour_at(ax, 4, 4) == GREY
    assert colour_at(ax, 0, 0) == colour_at(ax, 8, 8) == colour_at(ax, 0, 8) != GREY
    assert ax.images[1].get_clim() == (0, 0.5)


@pytest.mark.parametrize("fill", [0, 1, np.nan, 6e4, 1e-310])
@pytest.mark.parametrize("dtype", [bool, np.float16, np.float32, np.float64, int])
def test_weights_of_any_dtype(fill, dtype):
    if np.isnan(fill) and dtype is int:
        return
    with np.errstate(all="raise"):
        weights = np.full((2, 2, 3), fill, np.float64)
        with np.errstate(all="ignore"):
            weights = weights.astype(dtype)
        draw(overlay(np.zeros((4, 6)), weights, colorbar=True)[0])
        draw(strip(np.zeros((2, 4, 6)), weights[:, :, 0], colorbar=True)[0, 0])
        draw(strip(np.zeros((2, 4, 6)), weights[:, :, :, None], colorbar=True)[0, 0])
        draw(marked_text("ab", weights[:, :, 0], colorbar=True)[0])


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_images_of_any_dtype(channels):
    expected = RNG.integers(0, 256, (6, 8, *channels)).astype(np.uint8)
    floats = expected / 255
    for image, shown in (
        (expected, expected),
        (floats, expected),
        (floats.astype(np.float16), expected),
        (floats.astype(">f4")[::-1, ::-1], expected[::-1, ::-1]),
        (floats.tolist(), expected),
        (expected > 99, np.where(expected > 99, 255, 0)),
    ):
        (ax,) = overlay(image, np.ones((1, 2, 2)))
        (row,) = strip([image, image], np.ones((1, 2)))
        for each in (ax, row[1]):
            np.testing.assert_array_equal(each.images[0].get_array(), shown)
            draw(each)


def test_what_is_transparent_is_white():
    image = np.zeros((2, 2, 4))
    image[0, 0] = [1, 0, 0, 1]
    (ax,) = overlay(image, np.ones((1, 1, 1)))
    alone = ax.figure.axes[0]
    assert colour_at(alone, 0, 0) == [255, 0, 0] and colour_at(alone, 1, 1) == [255, 255, 255]


@pytest.mark.parametrize(
    ("size", "length", "count"),
    meetings(
        [(32, 32), (1, 1), (40, 300), (300, 8), (2, 1000), (1000, 1), (48, 64)],
        [0, 1, 8, 34],
        [1, 3, 10],
    ),
)
def test_overlays_of_many_sizes_do_not_touch(size, length, count):
    axes = overlay(
        RNG.random(size),
        RNG.random((count, 3, 3)),
        names(count, length),
        title="above all \U0010fffd",
        colorbar=length != 1,
        show_image=length != 8,
    )
    figure = axes[0].figure
    assert_apart(figure)
    for ax in axes:
        wide, high = inches(ax)
        assert min(wide, high) > 0.1 and max(wide, high) > 0.9
        if max(size) < 30 * min(size):
            assert wide / high == pytest.approx(size[1] / size[0], rel=0.01)
    notes = [text for text in figure.texts if "no installed font" in text.get_text()]
    assert len(notes) == 1


def test_rows_of_overlays():
    def across(**options):
        axes = overlay(np.zeros((8, 8)), np.ones((9, 2, 2)), **options)
        return len({round(ax.get_position().x0, 6) for ax in axes[0].figure.axes})

    assert across() == 5 and across(columns=3) == 3 and across(columns=99) == 10
    wide = overlay(np.zeros((2, 100)), np.ones((3, 2, 2)))
    assert len({round(ax.get_position().x0, 6) for ax in wide}) == 2


def test_very_many_words():
    axes = overlay(np.zeros((8, 8)), np.ones((60, 2, 2)))
    assert (axes[0].figure.get_size_inches() < 25).all() and inches(axes[0]).min() > 0.39
    assert_apart(axes[0].figure)


def test_an_overlay_of_another_size():
    axes = overlay(RNG.random((10, 12)), RNG.random((9, 2, 2)), list("abcdefghi"), colorbar=True)
    figure = axes[0].figure
    size = figure.get_size_inches()
    for factor in (0.7, 1.6):
        figure.set_size_inches(size * factor)
        assert_apart(figure)
        for ax in axes:
            wide, high = inches(ax)
            assert wide / high == pytest.approx(1.2) and len(ax.images) == 2
            below, above = ax.images
            assert list(below.get_extent()) == list(above.get_extent()) == [-0.5, 11.5, 9.5, -0.5]
            np.testing.assert_array_equal(ax.get_xlim(), (-0.5, 11.5))


def test_colours_of_overlays():
    weights = np.array([[[-1.0, 3.0]], [[1.0, np.nan]]])
    axes = overlay(np.zeros((2, 2)), weights, vmin=None)
    assert [ax.images[1].get_clim() for ax in axes] == [(-1, 3)] * 2
    axes = overlay(np.zeros((2, 2)), weights, vmax=2, cmap="viridis", alpha=1, smooth=False)
    assert axes[1].images[1].get_clim() == (0, 2)
    seen = colour_at(axes[1], 0, 0)
    colour = np.array(matplotlib.colormaps["viridis"](0.5)[:3]) * 255
    np.testing.assert_allclose(seen, colour * (1 - 0.25 / 2), atol=2)
    draw(overlay(np.zeros((2, 2)), weights * np.nan, colorbar=True)[0])
    draw(overlay(np.zeros((2, 2)), weights * 0, vmin=None, colorbar=True)[0])


def test_titles_of_any_script(one_font):
    axes = overlay(np.zeros((4, 4)), np.ones((3, 2, 2)), ["年", "$x^2$", "שישי"])
    assert axes[0].get_title() == "U+5E74" and axes[1].get_title() == "$x^2$"
    (note,) = [text for text in axes[0].figure.texts if "no installed font" in text.get_text()]
    assert "Right-to-left" in note.get_text()
    assert_apart(axes[0].figure)


IMAGE, MAPS = np.zeros((6, 8)), np.ones((2, 3, 4))


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((np.zeros(3), MAPS), {}, ValueError, r"image must .* 4\) or \(H, W\), got \(3,\)$"),
        ((np.zeros((3, 6, 8)), MAPS), {}, ValueError, r"8\) \(np.moveaxis\(image, 0, -1\)\)"),
        ((np.zeros((1, 6, 8)), MAPS), {}, ValueError, r"got \(1, 6, 8\) \(image\[0\]\)"),
        ((np.zeros((6, 8, 1)), MAPS), {}, ValueError, r"\(image\[..., 0\]\)"),
        ((np.zeros((6, 8, 5)), MAPS), {}, ValueError, r"got \(6, 8, 5\)$"),
        ((np.zeros((0, 8)), MAPS), {}, ValueError, r"image must not be empty, got shape \(0, 8\)"),
        ((IMAGE + 255, MAPS), {}, ValueError, "image must lie in 0..1, got 255..255 .*uint8"),
        ((IMAGE - 0.1, MAPS), {}, ValueError, "image must lie in 0..1, got -0.1..-0.1"),
        ((IMAGE * np.nan, MAPS), {}, ValueError, "image must lie in 0..1, got nan"),
        ((IMAGE + np.inf, MAPS), {}, ValueError, "image must lie in 0..1, got inf"),
        ((IMAGE.astype(int), MAPS), {}, TypeError, "image must be float .* bool, got int64"),
        ((IMAGE * 1j, MAPS), {}, TypeError, "image must be real, got complex128"),
        ((np.ma.array(IMAGE), MAPS), {}, TypeError, "image must be a plain array"),
        ((None, MAPS), {}, TypeError, "image must be real, got object"),
        ((IMAGE, MAPS[0]), {}, ValueError, r"columns\), got \(3, 4\) \(of one word: weights\[None"),
        ((IMAGE, MAPS[None]), {}, ValueError, r"\(those of one image are weights\[0\]\)"),
        ((IMAGE, np.ones((2, 0, 4))), {}, ValueError, "weights must not be empty"),
        ((IMAGE, MAPS * 1j), {}, TypeError, "weights must be real, got complex128"),
        ((IMAGE, np.ma.array(MAPS)), {}, TypeError, "weights must be a plain array"),
        ((IMAGE, MAPS, ["a"]), {}, ValueError, "titles must be 2, one a map, got 1"),
        ((IMAGE, MAPS, "ab"), {}, TypeError, "titles must be a sequence of str"),
        ((IMAGE, MAPS), {"columns": 0}, ValueError, "columns must be an integer of at least 1"),
        ((IMAGE, MAPS), {"smooth": 1}, TypeError, "smooth must be True or False, got 1"),
        ((IMAGE, MAPS), {"show_image": "no"}, TypeError, "show_image must be True or False"),
        ((IMAGE, MAPS), {"colorbar": None}, TypeError, "colorbar must be True or False"),
        ((IMAGE, MAPS), {"alpha": 1.5}, ValueError, "alpha must lie in 0..1, got 1.5"),
        ((IMAGE, MAPS), {"alpha": np.nan}, ValueError, "alpha must lie in 0..1, got nan"),
        ((IMAGE, MAPS), {"alpha": "thin"}, TypeError, "alpha must lie in 0..1, got 'thin'"),
        ((IMAGE, MAPS), {"cmap": "no such map"}, ValueError, ""),
    ],
)
def test_overlay_errors(arguments, options, error, message):
    with pytest.raises(error, match=f"overlay: .*{message}" if message else None):
        overlay(*arguments, **options)
    assert not pyplot.get_fignums()


# ---- Strips --------------------------------------------------------------------------------------


def test_a_row_a_word_and_a_column_a_frame():
    frames, weights = RNG.random((5, 6, 8)), RNG.random((3, 5))
    axes = strip(frames, weights, ["a", "long", "way"], title="a caption", colorbar=True)
    assert axes.shape == (3, 5) and len(axes[0, 0].figure.axes) == 16
    for (row, column), ax in np.ndenumerate(axes):
        np.testing.assert_array_equal(ax.images[0].get_array(), np.rint(frames[column] * 255))
        assert ax.get_ylabel() == ("" if column else ["a", "long", "way"][row])
        assert ax.get_title() == ("" if row else str(column))
        assert [text.get_text() for text in ax.texts] == ([] if row or column else ["frame"])
    assert axes[0, 0].yaxis.label.get_rotation() == 0
    assert_apart(axes[0, 0].figure)
    # Words stand at the left of their rows, at the height of the frames above the bars.
    for ax, height in zip(axes[:, 0], (6, 6, 6), strict=True):
        box, word = ax.get_window_extent(), ax.yaxis.label.get_window_extent()
        middle = ax.transData.transform((0, height / 2 - 0.5))[1]
        assert word.x1 < box.x0 and abs((word.y0 + word.y1) / 2 - middle) < 3


def test_bars_are_as_high_and_dark_as_weights():
    weights = np.array([[0.1, 0.2, 0.4], [0.0, 0.4, np.nan]])
    axes = strip(np.zeros((3, 4, 4)), weights)
    largest = abs(axes[0, 2].patches[0].get_height())
    for ax, weight in zip(axes.flat, weights.flat, strict=True):
        (bar,) = ax.patches
        ground, top = ax.get_ylim()
        assert bar.get_y() == ground and top == -0.5 and ground > 3.5
        share = 0.1 if np.isnan(weight) else weight / 0.4
        assert -bar.get_height() == pytest.approx(share * largest)
        assert (bar.get_x(), bar.get_width()) == (-0.5, 4)
        assert ground + bar.get_height() >= 3.5  # below the frame
        blues = matplotlib.colormaps["Blues"]
        colour = (0.75, 0.75, 0.75, 1) if np.isnan(weight) else blues(weight / 0.4)
        np.testing.assert_allclose(bar.get_facecolor(), colour, atol=1e-6)
    # The frame of the largest weight has its own colours, others are paler.
    greys = [colour_at(ax, 0, 0)[0] for ax in axes[0]]
    assert greys[0] > greys[1] > greys[2] == 0


def test_weights_of_regions_lie_over_frames():
    frames, weights = RNG.random((4, 6, 8, 3)), RNG.random((2, 4, 3, 2))
    axes = strip(frames, weights, vmax=2, smooth=False)
    for (row, column), ax in np.ndenumerate(axes):
        below, above = ax.images
        np.testing.assert_array_equal(above.get_array(), weights[row, column])
        assert list(above.get_extent()) == list(below.get_extent()) == [-0.5, 7.5, 5.5, -0.5]
        assert above.get_clim() == (0, 2) and above.get_interpolation() == "nearest"
        assert not ax.patches and ax.get_ylim() == (5.5, -0.5)
    assert strip(frames, weights)[0, 0].images[1].get_interpolation() == "bilinear"
    assert_apart(axes[0, 0].figure)


@pytest.mark.parametrize(
    ("size", "frames", "weights"),
    meetings(
        [(32, 32), (1, 1), (10, 160), (90, 4), (48, 64)],
        [1, 3, 8, 20],
        [(1, 2, 3), (2,), (6, 2, 3)],
    ),
)
def test_strips_of_many_sizes_do_not_touch(size, frames, weights):
    words, *regions = weights
    weights = RNG.random((words, frames, *regions))
    titles = ["a", LONG, "", "two words", "$x$", "\U0010fffd"][:words]
    axes = strip(RNG.random((frames, *size)), weights, titles, title="above", colorbar=words == 2)
    assert_apart(axes[0, 0].figure)
    boxes = np.array([[ax.get_window_extent().extents for ax in row] for row in axes])
    sizes = boxes[..., 2:] - boxes[..., :2]
    np.testing.assert_allclose(sizes, np.broadcast_to(sizes[0, 0], sizes.shape), rtol=1e-6)
    assert sizes.min() / axes[0, 0].figure.dpi > 0.04
    shown = [ax.get_title() for ax in axes[0] if ax.get_title()]
    assert shown == [str(n) for n in range(frames)] or sizes[0, 0, 0] < 25


def test_some_of_the_numbers_of_very_narrow_frames_are_left_out():
    axes = strip(np.zeros((120, 60, 2)), np.ones((1, 120)), colorbar=False)
    shown = [int(ax.get_title()) for ax in axes[0] if ax.get_title()]
    assert shown[0] == 0 and 10 < len(shown) < 120 and len(set(np.diff(shown))) == 1
    assert_apart(axes[0, 0].figure)
    assert (axes[0, 0].figure.get_size_inches() < 30).all()


def test_a_strip_of_one_frame_and_one_word_without_names():
    axes = strip(np.zeros((1, 1, 1)), [[True]], [""], xlabel=None)
    assert axes.shape == (1, 1) and not axes[0, 0].texts and axes[0, 0].get_title() == "0"
    assert_apart(axes[0, 0].figure)


FRAMES, TIMES = np.zeros((3, 6, 8)), np.ones((2, 3))


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((IMAGE, TIMES), {}, ValueError, r"frames must have shape \(T, H, W, 3 or 4\) or \(T, H"),
        ((np.zeros((3, 3, 6, 8)), TIMES), {}, ValueError, r"\(np.moveaxis\(frames, 1, -1\)\)"),
        ((np.zeros((3, 1, 6, 8)), TIMES), {}, ValueError, r"\(frames\[:, 0\]\)"),
        ((FRAMES + 2, TIMES), {}, ValueError, "frames must lie in 0..1, got 2..2"),
        ((FRAMES, TIMES.T), {}, ValueError, r"of 3 frames, .* got 2 in .* \(3, 2\) \(weights.T\)"),
        ((FRAMES, np.ones((2, 4, 1, 1))), {}, ValueError, r"got 4 in an array of .* 1, 1\)$"),
        ((FRAMES, TIMES[0]), {}, ValueError, r"got \(3,\) \(of one word: weights\[None\]\)"),
        ((FRAMES, np.ones((2, 3, 4))), {}, ValueError, r"columns\) or \(N, T\), got \(2, 3, 4\)$"),
        ((FRAMES, TIMES[:0]), {}, ValueError, "weights must not be empty"),
        ((FRAMES, TIMES, ["a"]), {}, ValueError, "titles must be 2, one a row, got 1"),
        ((FRAMES, TIMES), {"smooth": 0}, TypeError, "smooth must be True or False"),
        ((FRAMES, TIMES), {"alpha": -1}, ValueError, "alpha must lie in 0..1, got -1"),
    ],
)
def test_strip_errors(arguments, options, error, message):
    with pytest.raises(error, match=f"strip: .*{message}"):
        strip(*arguments, **options)
    assert not pyplot.get_fignums()


# ---- Marked texts --------------------------------------------------------------------------------


def places(ax):
    """(box of a word's letters, box of its colour) of all words of a block, in pixels."""
    (colours,) = ax.collections
    boxes = [path.get_extents(ax.transData).extents for path in colours.get_paths()]
    letters = [text.get_window_extent().extents for text in ax.texts]
    return np.array(letters), np.array(boxes)


def assert_legible(*axes):
    """Words lie on their colours, in the Axes, and colours are apart."""
    assert_apart(axes[0].figure)
    for ax in axes:
        letters, colours = places(ax)
        assert ax.texts[0].get_fontsize() >= 6.9
        within = (letters[:, :2] >= colours[:, :2] - 0.6) & (letters[:, 2:] <= colours[:, 2:] + 0.6)
        assert within.all(), [ax.texts[n].get_text() for n in np.flatnonzero(~within.all(1))]
        whole = ax.get_window_extent().extents
        assert (colours[:, :2] >= whole[:2] - 0.6).all() and (
            colours[:, 2:] <= whole[2:] + 0.6
        ).all()
        low = np.maximum(colours[:, None, :2], colours[None, :, :2])
        high = np.minimum(colours[:, None, 2:], colours[None, :, 2:])
        assert not np.triu((high > low).all(2), 1).any()


def lines_of(ax):
    """The words from top to bottom, and of each line from left to right."""
    _, boxes = places(ax)
    order = sorted(range(len(boxes)), key=lambda n: (-round(boxes[n, 1]), boxes[n, 0]))
    lines = {}
    for n in order:
        lines.setdefault(-round(boxes[n, 1]), []).append(ax.texts[n].get_text())
    return list(lines.values())


@pytest.mark.parametrize(
    ("count", "width", "blocks"), meetings([1, 2, 40, 300], [0.1, 2.5, 6.5], [1, 2, 3])
)
def test_a_text_is_legible(count, width, blocks):
    words = [names(1, RNG.integers(1, 12))[0] for _ in range(count)]
    words[count // 2] = LONG
    weights = RNG.random((blocks, count))
    axes = marked_text(words, weights, width=width, colorbar=width != 2.5, title="above all")
    assert axes.shape == (blocks,)
    assert_legible(*axes)
    for ax in axes:
        assert sum(lines_of(ax), []) == words  # they are read in their order
        assert inches(ax)[0] <= max(width, 4) + 0.01
    if width == 6.5 and count == 300:
        assert inches(axes[0])[0] > 6 and len(lines_of(axes[0])) < 40


def test_blocks_have_the_same_words_at_the_same_places():
    words = "one two three four five".split() * 9
    first, second = (places(ax)[1] for ax in marked_text(words, RNG.random((2, 45))))
    np.testing.assert_allclose(first[:, [0, 2]], second[:, [0, 2]], atol=1e-6)
    assert (np.diff(first[:, 1] - second[:, 1]) < 1e-6).all()


def test_a_word_stands_on_the_colour_of_its_weight():
    weights = np.array([[0.0, 0.5, 2.0, np.nan, np.inf]])
    (ax,) = marked_text("abcde", weights)
    colours = [
        np.array(matplotlib.colormaps["Oranges"](each)[:3]) * 255 for each in (0.0, 0.25, 1.0)
    ]
    colours += [GREY, GREY]
    pixels = draw(ax)
    for box, colour, text in zip(places(ax)[1], colours, ax.texts, strict=True):
        seen = pixels[len(pixels) - 1 - int(box[3] - 2), int(box[0] + 2), :3]
        np.testing.assert_allclose(seen, colour, atol=1)
        ink = matplotlib.colors.to_rgb(text.get_color())

        def luminance(rgb):  # the definition of WCAG 2
            rgb = np.asarray(rgb)
            linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
            return linear @ [0.2126, 0.7152, 0.0722]

        dark, light = sorted([luminance(ink), luminance(np.array(colour) / 255)])
        assert (light + 0.05) / (dark + 0.05) > 4.5
    assert ax.texts[2].get_color() == "white" and ax.texts[0].get_color() == "black"


def test_colours_are_the_same_in_all_blocks():
    weights = np.array([[0.1, 0.2], [0.4, 0.1]])
    axes = marked_text("ab", weights, ["x", "y"], colorbar=True, cmap="Greens")
    assert [ax.collections[0].get_clim() for ax in axes] == [(0, 0.4)] * 2
    assert axes[0].figure.axes[-1].get_ylim() == (0, 0.4)
    draw(axes[0])
    np.testing.assert_array_equal(
        axes[0].collections[0].get_facecolors()[0], axes[1].collections[0].get_facecolors()[1]
    )
    axes = marked_text("ab", weights - 1, vmin=None, vmax=3)
    assert axes[0].collections[0].get_clim() == (-0.9, 3)


def test_titles_of_blocks():
    def titles(axes):
        return [ax.get_title("left") for ax in axes]

    weights = np.ones((2, 3))
    assert titles(marked_text("abc", weights[:1])) == [""]
    assert titles(marked_text("abc", weights)) == ["0", "1"]
    axes = marked_text("abc", weights, ["attention", "a title that is wider than the text" * 2])
    assert titles(axes)[0] == "attention"
    assert_legible(*axes)


def test_lines_of_a_right_to_left_text_begin_at_the_right():
    words = "שלום עולם זה machine learning בעברית 2015 .".split()
    (ax,) = marked_text(words, np.ones((1, 8)), ["כותרת"], width=9)
    (line,) = lines_of(ax)
    assert line == [".", "2015", "בעברית", "machine", "learning", "זה", "עולם", "שלום"]
    assert ax.get_title("right") == "כותרת"
    lines = lines_of(marked_text(words, np.ones((1, 8)), width=2)[0])
    assert lines[0][-1] == "שלום" and len(lines) > 1
    assert_legible(ax)


def test_a_quotation_in_the_other_direction_runs_back():
    words = "he said שלום עולם twice".split()
    (line,) = lines_of(marked_text(words, np.ones((1, 5)))[0])
    assert line == ["he", "said", "עולם", "שלום", "twice"]


@pytest.mark.parametrize(
    "words",
    [
        ["年", "月日", "あ", "한국"],
        ["", " ", "a", "\t"],
        ["$x^2$", "\\frac", "%", "_{"],
        ["الجمعة", "في", "مايو", "١"],
        ["g" * 300, "é", "x\ny", "\ud800"],
    ],
)
def test_words_of_any_kind(words):
    axes = marked_text(words, np.ones((2, 4)), width=3)
    assert_legible(*axes)
    assert len(axes[0].texts) == 4 and len(axes[0].collections[0].get_paths()) == 4


def test_characters_without_a_font_and_reversed_ones(one_font):
    (ax,) = marked_text(["年", "שישי", 5], np.ones((1, 3)))
    assert [text.get_text() for text in ax.texts] == ["U+5E74", "שישי", "5"]
    (note,) = [text for text in ax.figure.texts if "no installed font" in text.get_text()]
    assert "Right-to-left" in note.get_text()


def test_letters_follow_a_figure_of_another_size():
    axes = marked_text(names(80, 6), np.ones((2, 80)), ["a", "b"], colorbar=True)
    figure = axes[0].figure
    size = figure.get_size_inches()
    for factor in (0.75, 1.5):
        figure.set_size_inches(size * factor)
        assert_legible(*axes)
        assert (axes[0].texts[0].get_fontsize() > 10) == (factor > 1)
    figure.set_size_inches(size)
    axes[0].figure.suptitle("set later")
    assert_legible(*axes)


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        (("abc", np.ones(3)), {}, ValueError, r"\(N, T\), got \(3,\) \(of one block: weights\[N"),
        (("abc", np.ones((2, 2, 3))), {}, ValueError, r"\(those of one text are weights\[0\]\)"),
        (("", np.ones((1, 0))), {}, ValueError, "weights must not be empty"),
        (("ab", np.ones((1, 3))), {}, ValueError, "words must be 3 labels, .* got 2"),
        ((None, np.ones((1, 3))), {}, TypeError, "words must be a sequence of labels, got None"),
        ((5, np.ones((1, 3))), {}, TypeError, "words must be a sequence of labels, got 5"),
        (("abc", np.ones((1, 3)) * 1j), {}, TypeError, "weights must be real, got complex128"),
        (("abc", np.ones((2, 3)), ["a"]), {}, ValueError, "titles must be 2, one a block, got 1"),
        (("abc", np.ones((1, 3))), {"width": 0}, ValueError, "width must be a positive number"),
        (("abc", np.ones((1, 3))), {"width": np.inf}, ValueError, "width must be a positive"),
        (("abc", np.ones((1, 3))), {"width": "6"}, TypeError, "width must be a positive"),
        (("abc", np.ones((1, 3))), {"colorbar": 1}, TypeError, "colorbar must be True or False"),
    ],
)
def test_marked_text_errors(arguments, options, error, message):
    with pytest.raises(error, match=f"marked_text: .*{message}"):
        marked_text(*arguments, **options)
    assert not pyplot.get_fignums()

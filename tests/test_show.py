"""Pictures without matplotlib: what they say, that nothing breaks them, and where things stand."""

import re
import shutil
import subprocess
import warnings
import xml.etree.ElementTree

import numpy as np
import pytest
from checks import python
from markup import AWKWARD, Page, assert_laid_out, columns_of, elements, svg

import attnc
from attnc import show
from attnc.show import Alignment, _values, _words


@pytest.fixture
def weights(rng):
    return rng.dirichlet(np.ones(6), 4)


# ---- text ----


def test_text():
    weights = np.array([[0.0, 0.12, 0.13], [0.374, 0.376, 0.25], [0.624, 0.626, 1.0]])
    assert Alignment(weights, "abc", ["x", "yy", "zzzz"], title="a title").text() == (
        "a title\n"
        "  x  yy zzzz\n"
        "a       ░░\n"
        "b ░░ ▒▒ ░░\n"
        "c ▒▒ ▓▓ ██\n"
        "blank to 0.125, ░ to 0.375, ▒ to 0.625, ▓ to 0.875, █ to 1"
    )
    plain = Alignment(weights).text(ascii=True)
    assert plain.isascii() and plain.split("\n")[3] == "2 ++ xx ##"
    assert Alignment(weights[:2], numbers_are := "ab", "xyz").text(numbers=True) == (
        "     x    y    z\na 0.00 0.12 0.13\nb 0.37 0.38 0.25"
    ), numbers_are
    assert str(Alignment(weights)) == Alignment(weights).text()


def test_text_of_scores_and_what_is_not_finite():
    scores = np.array([[-2.0, 2.0], [np.nan, -np.inf], [np.inf, -0.001]])
    lines = Alignment(scores).text().split("\n")
    assert lines[1:4] == ["0 -█ ██", "1 ?  -∞", "2 ∞"]
    assert "- where negative" in lines[4]
    lines = Alignment(scores).text(numbers=True, ascii=True).split("\n")
    assert lines[1:4] == ["0 -2.00  2.00", "1   nan  -inf", "2   inf  0.00"]
    assert Alignment(np.eye(2, dtype=bool)).text(numbers=True).split("\n")[1] == "0 1 0"


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("width", [20, 33, 80, 200])
def test_text_fits_and_columns_are_aligned(rng, width, numbers):
    for keys in (AWKWARD, ["w"] * 40, [f"word {n}" for n in range(12)], ["注意力"] * 30):
        weights = np.full((len(AWKWARD), len(keys)), 1.0)
        text = Alignment(weights, AWKWARD, keys, title="注意 " * 30).text(width, numbers=numbers)
        assert max(columns_of(text)) <= width
        text.encode("utf-8")
        rows = [line for line in text.split("\n") if re.search(r"█ |██|1 1", line)]
        rows = [line for line in rows if " to " not in line and "keys" not in line]
        ends = {_words.width(line) for line in rows}
        assert len(rows) >= len(AWKWARD) and len(ends) == 1 or numbers


def test_text_fits_where_means_are_longer_numbers():
    text = Alignment(np.tri(17, dtype=int)).text(20, numbers=True)
    assert max(columns_of(text)) <= 20 and "0.5" in text


def test_words_from_right_to_left_keep_their_columns():
    text = Alignment(np.eye(2), ["שלום", "b"], ["مرحبا", "שלום"]).text()
    header, first = text.split("\n")[:2]
    assert header.startswith("\u200e") and header.count("\u200e") == 5
    assert first.startswith("\u200eשלום\u200e")  # a terminal begins the line at the left
    assert "\u200e" not in text.split("\n")[2]


def test_width_is_what_terminals_take():
    wcwidth = pytest.importorskip("wcwidth")
    for word in (
        *AWKWARD,
        "é",
        "e\u0301",
        "한국어",
        "\u1112\u1161\u11ab",
        "ﬁ",
        "ａ",
        "می‌خواهم",
        "☎️",
        "½",
    ):
        shown = _words.visible(word)
        assert _words.width(shown) == wcwidth.wcswidth(shown), word
        for most in range(0, 9):
            assert _words.width(_words.shorten(shown, most)) <= most
    assert _words.shorten("e\u0301e\u0301e\u0301", 2) == "e\u0301…"
    assert _words.shorten("👨‍👩‍👧👨‍👩‍👧", 3) == "👨‍👩‍👧…"
    assert list(_words.clusters("🇩🇪🇫🇷a")) == ["🇩🇪", "🇫🇷", "a"]


def test_control_characters_are_escaped():
    assert _words.visible("a\n\x1b[0m\ud800\ufffe\u202e") == r"a\n\x1b[0m\ud800\ufffe\u202e"
    assert _words.visible("می‌خواهم 👨‍👩‍👧") == "می‌خواهم 👨‍👩‍👧"
    assert len(_words.visible("x" * 10_000)) == 100


# ---- HTML ----


@pytest.mark.parametrize("numbers", [False, True])
def test_html_holds_awkward_words(numbers):
    n = len(AWKWARD)
    weights = np.full((n, n), 1 / n)
    alignment = Alignment(weights, AWKWARD, AWKWARD, title=AWKWARD[0], query_name="\0<q>")
    text = alignment.html(numbers=numbers)
    page = Page(text)
    assert page.tags.count("td") == n * n + 1
    assert page.text[0] == AWKWARD[0]  # as text
    assert f"{AWKWARD[0]} → {AWKWARD[1]}: {1 / n!r}" in page.titles
    assert all(len(title) < 300 for title in page.titles)
    assert {_words.visible(word) for word in AWKWARD} <= set(page.titles)
    assert len(text) < 400 * n * n + 20_000
    text.encode("utf-8")


def test_html_hovers_with_the_number_in_full(rng):
    for dtype in (np.float64, np.float32, np.float16):
        weights = rng.random((3, 4)).astype(dtype)
        titles = [each for each in Page(Alignment(weights).html()).titles if "→" in each]
        found = np.array([title.split(": ")[1] for title in titles], dtype).reshape(3, 4)
        np.testing.assert_array_equal(found, weights)
        assert titles[5].startswith("1 → 1: ")


def test_html_has_no_style_but_in_its_elements(weights):
    text = Alignment(weights).html()
    assert "<style" not in text and "class=" not in text and " id=" not in text
    page = Page(text)
    assert page.tags.count("th") == 10 and 'scope="row"' in text and 'scope="col"' in text
    assert 'aria-label="attention weights, 4 x 6, queries (rows), keys (columns)"' in text


def test_words_above_columns_stand_as_they_are_written():
    words = ["a long word of English", "注意力机制", "👩\u200d👩\u200d👧\u200d👦", "🇩🇪", "two 🇩🇪🇩🇪"]
    heads = re.findall(r'<th scope="col".*?</th>', Alignment(np.ones((1, 5)), keys=words).html())
    ways = [
        "rotate" if "rotate" in each else "vertical" * ("vertical-rl" in each) for each in heads
    ]
    assert ways == ["rotate", "vertical", "", "", "rotate"]
    # Else what is not turned with the letters stands on its head.
    assert all("text-orientation:sideways" in each for each in heads if "rotate" in each)


def alphas(text):
    return [float(x) for x in re.findall(r"<td title[^>]*rgba\(\d+,\d+,\d+,([\d.]+)\)", text)]


def test_colours_are_the_weights():
    weights = np.array([[0.0, 0.5, 1.0]])
    assert alphas(Alignment(weights).html()) == [0.06, 0.53, 1]
    text = Alignment(np.array([[-4.0, 2.0, np.nan]])).html()
    assert alphas(text) == [1, 0.53, 0.35]
    colours = re.findall(r"<td title[^>]*rgba\((\d+,\d+,\d+)", text)
    assert colours == [",".join(map(str, c)) for c in (_values.BELOW, _values.ABOVE, _values.OTHER)]
    assert "NaN" in Page(text).text
    assert "colours to ±4: blue above 0, orange below" in Page(text).text
    assert "colours from 0 to 1" in Page(Alignment(weights).html()).text
    assert alphas(Alignment(weights / 2, scores=True).html()) == [0.06, 0.53, 1]
    assert alphas(Alignment(4 * weights, scores=False).html()) == [0.06, 0.53, 1]


def luminance(colour):
    parts = np.array(colour) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("colour", [_values.ABOVE, _values.BELOW])
@pytest.mark.parametrize("opaque", np.linspace(0, 1, 11))
def test_black_and_white_letters_can_be_read_on_every_colour(colour, opaque):
    # 4.5 is what the Web Content Accessibility Guidelines ask of small letters.
    on_white = opaque * np.array(colour) + (1 - opaque) * 255
    on_black = opaque * np.array(colour) + (1 - opaque) * 17
    assert (luminance(on_white) + 0.05) / 0.05 >= 4.5
    assert 1.05 / (luminance(on_black) + 0.05) >= 4.5


# ---- reduction ----


@pytest.mark.parametrize("shape", [(65, 3), (3, 130), (100, 64), (1000, 999)])
@pytest.mark.parametrize("how", ["mean", "max"])
def test_reduced_maps_are_exact(rng, shape, how):
    values = rng.integers(0, 1000, shape).astype(float)
    result, rows, columns = _values.reduced(values, 64, 64, how)
    assert max(result.shape) <= 64
    assert (rows, columns) == tuple(-(-n // 64) for n in shape)
    assert result.shape == (-(-shape[0] // rows), -(-shape[1] // columns))
    for i in range(result.shape[0]):
        for j in range(result.shape[1]):
            block = values[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            expected = block.max() if how == "max" else block.sum() / block.size
            np.testing.assert_allclose(result[i, j], expected, rtol=1e-14)


def test_a_reduced_map_says_so(rng):
    weights = rng.dirichlet(np.ones(130), 65)
    page = Page(Alignment(weights, keys=[f"w{n}" for n in range(130)]).html())
    assert page.tags.count("td") == 33 * 44 + 1
    assert "reduced from 65 x 130: each cell is the mean of 2 x 3 weights" in page.text
    mean = weights[:2, 3:6].sum(axis=0).sum() / 6
    title = next(each for each in page.titles if each.startswith("0–1 → w3 … w5: mean "))
    np.testing.assert_allclose(float(title.split()[-1]), mean, rtol=1e-15)
    assert max(alphas(Alignment(weights).html())) == 1  # the largest mean has the full colour
    assert "the largest of 2 x 3" in Alignment(weights, reduce="max").html()
    assert "each cell is the mean of 9 x 17" in " ".join(Alignment(weights, most=8).text().split())


def test_reduced_maps_of_what_is_not_finite_or_huge():
    values = np.full((128, 128), 1e308)
    values[0, 0], values[2, 2], values[4, 4] = np.nan, np.inf, -np.inf
    result = _values.reduced(values, 64, 64, "mean").values
    assert np.isnan(result[0, 0]) and result[1, 1] == np.inf and result[2, 2] == -np.inf
    np.testing.assert_allclose(result[3:], 1e308)
    for text in (Alignment(values).html(), Alignment(values).svg(), Alignment(values).latex()):
        assert "∞" in text or "infty" in text


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_maps_of_nothing_but_nan_do_not_warn(dtype):
    values = np.full((70, 3), np.nan, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for alignment in (Alignment(values), Alignment(values[:2])):
            assert "? is NaN" in alignment.text() and "NaN" in alignment.html()


# ---- SVG ----


def test_svg_holds_awkward_words():
    n = len(AWKWARD)
    alignment = Alignment(np.eye(n), AWKWARD, AWKWARD, title="<&>", key_name="\x1b<k>")
    root = svg(alignment.svg(numbers=True))
    assert len(list(elements(root, "rect"))) == n * n
    texts = [each.text for each in elements(root, "text")]
    assert "&amp;" in texts and "注意力机制" in texts and r"two\nlines\ttab" in texts
    assert root.get("viewBox") and root.get("role") == "img" and root.get("aria-label")
    assert root.find("{http://www.w3.org/2000/svg}title").text.startswith("<&>: ")
    hovers = [
        each.find("{http://www.w3.org/2000/svg}title").text for each in elements(root, "rect")
    ]
    assert f"{AWKWARD[1]} → {AWKWARD[1]}: 1.0" in hovers


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 6), (20, 30), (64, 64), (100, 40)])
@pytest.mark.parametrize("length", [1, 6, 15])
def test_svg_is_laid_out(rng, shape, length):
    words = [["w" * length] * n for n in shape]
    for numbers in (False, True):
        picture = Alignment(rng.standard_normal(shape), *words, title="a title")
        root = assert_laid_out(picture.svg(numbers=numbers))
        assert float(root.get("width")) < 1300 + 1500 * numbers


def test_svg_has_rectangles_where_the_weights_are():
    root = svg(Alignment(np.array([[0, 1], [0.5, 0]])).svg())
    cells = list(elements(root, "rect"))
    strengths = [float(each.get("fill-opacity", 1)) for each in cells]
    assert strengths == [0.06, 1, 0.53, 0.06]
    x, y = ([float(each.get(name)) for each in cells] for name in "xy")
    assert x[0] == x[2] < x[1] == x[3] and y[0] == y[1] < y[2] == y[3]


# ---- LaTeX ----


def braces(text):
    text = re.sub(r"(?m)^%.*$", "", text).replace(r"\{", "").replace(r"\}", "")
    depth = np.cumsum([{"{": 1, "}": -1}.get(c, 0) for c in text])
    return depth.min() >= 0 and depth[-1] == 0


def test_latex():
    text = Alignment(np.array([[0.0, 1.0]]), ["a&b"], ["50%", "_x_"], title="$").latex(numbers=True)
    assert text.startswith("% needs \\usepackage") and "{xcolor}" in text.split("\n")[0]
    assert r"a\&b & \cellcolor[rgb]{0.948,0.969,0.984}" in text
    assert r"\cellcolor[rgb]{0.129,0.478,0.737}\footnotesize 1 \\" in text
    assert r"50\% & \_x\_ \\" in text and r"\textbf{\$}" in text
    assert braces(text)
    assert braces(Alignment(np.eye(len(AWKWARD)), AWKWARD, AWKWARD).latex())
    assert "xelatex" in Alignment(np.eye(1), ["注"]).latex()


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_compiles(tmp_path):
    words = (
        [word for word in AWKWARD if word.isascii()]
        + ["é ü ß", "--", '"']
        + [chr(c) for c in range(33, 127)]
    )
    words = words[:60]
    pictures = [
        Alignment(np.eye(len(words), 5), words, title="<&>\\"),
        Alignment(np.eye(3, 60), keys=words[:60], query_name="a_b"),
        Alignment(np.eye(2, 60)[:, -40:] - 1, keys=words[-40:]),
        Alignment(np.array([[np.nan, np.inf], [-np.inf, -1]])),
        Alignment(np.eye(100)),
        show.Heads(np.ones((9, 2, 2))),
    ]
    packages = set(re.findall(r"\\usepackage\S*\{\w+\}", "".join(p.latex() for p in pictures)))
    body = "\n\n".join(p.latex(numbers=n) for p in pictures for n in (False, True))
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\n" + "\n".join(sorted(packages)) + "\n\\begin{document}\n"
        f"\\tiny {body}\n\\end{{document}}\n",
        encoding="utf-8",
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert not done.returncode, done.stdout.decode(errors="replace")[-2000:]
    log = (tmp_path / "page.log").read_bytes()
    assert b"Missing character" not in log and b"Undefined" not in log


# ---- files, notebooks, errors ----


def test_save(tmp_path, weights):
    alignment = Alignment(weights, title="<t>")
    for end, begin in ((".html", "<!DOCTYPE"), (".svg", "<?xml"), (".txt", "<t>"), (".tex", "% ")):
        path = tmp_path / f"picture{end}"
        alignment.save(path)
        text = path.read_text(encoding="utf-8")
        assert text.startswith(begin) and text.endswith("\n")
    Page((tmp_path / "picture.html").read_text(encoding="utf-8"))
    xml.etree.ElementTree.parse(tmp_path / "picture.svg")
    alignment.save(str(tmp_path / "UPPER.SVG"))
    with pytest.raises(ValueError, match=r"^Alignment\.save: path must end in \.html or"):
        alignment.save(tmp_path / "picture.png")
    with pytest.raises(TypeError, match=r"^Alignment\.save: path must be a path, got 3"):
        alignment.save(3)
    with pytest.raises(OSError):
        alignment.save(tmp_path / "no" / "picture.svg")
    assert len(list(tmp_path.iterdir())) == 5


def test_a_file_is_written_whole_or_not_at_all(tmp_path, weights, monkeypatch):
    path = tmp_path / "picture.svg"
    path.write_text("earlier", encoding="utf-8")

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        Alignment(weights).save(path)
    assert path.read_text(encoding="utf-8") == "earlier" and len(list(tmp_path.iterdir())) == 1


def test_a_notebook_gets_html_and_text(weights):
    alignment = Alignment(weights)
    bundle = alignment._repr_mimebundle_()
    assert bundle == {"text/html": alignment._repr_html_(), "text/plain": str(alignment)}


def test_weights_are_copied(weights):
    alignment = Alignment(weights)
    before = alignment.html()
    weights[:] = 0
    assert alignment.html() == before


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((np.ones(3),), {}, ValueError, r"Alignment: weights must have shape \(Tq, Tk\), got"),
        ((np.ones((2, 1, 2, 2)),), {}, ValueError, r"\(one sequence and head is weights\[0, 0\]\)"),
        ((np.ones((0, 3)),), {}, ValueError, "Alignment: weights must not be empty, got shape"),
        ((np.ones((2, 2)) * 1j,), {}, TypeError, "Alignment: weights must be real"),
        ((np.ma.ones((2, 2)),), {}, TypeError, "Alignment: weights must "),
        (([["a"]],), {}, TypeError, "Alignment: weights must "),
        ((np.ones((2, 2)), "abc"), {}, ValueError, "Alignment: queries must be 2 labels"),
        ((np.ones((2, 2)), None, 3), {}, TypeError, "Alignment: keys must be a sequence"),
        ((np.ones((2, 2)), {"a", "b"}), {}, TypeError, "Alignment: queries must be in order, got"),
        ((np.ones((2, 2)), None, b"ab"), {}, TypeError, "Alignment: keys must be words, got bytes"),
        ((np.ones((2, 2)),), {"most": 0}, ValueError, "Alignment: most must be an integer of at"),
        ((np.ones((2, 2)),), {"reduce": "sum"}, ValueError, "Alignment: reduce must be 'mean' or"),
        ((np.ones((2, 2)),), {"scores": 1}, TypeError, "Alignment: scores must be True or False"),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        Alignment(*arguments, **options)


def test_errors_of_methods(weights):
    with pytest.raises(ValueError, match=r"^Alignment\.text: width must be an integer of at least"):
        Alignment(weights).text(3)
    with pytest.raises(TypeError, match=r"^Alignment\.html: numbers must be True or False"):
        Alignment(weights).html(numbers="yes")


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint64, np.float16, np.float32, ">f8"])
def test_every_dtype(dtype):
    alignment = Alignment(np.array([[0, 1], [1, 0]], dtype))
    assert alignment.text().split("\n")[1] == "0    ██"
    assert alphas(alignment.html()) == [0.06, 1, 1, 0.06]
    svg(alignment.svg())
    alignment.latex()


def test_import_needs_neither_matplotlib_nor_pillow():
    code = """
        import sys
        import attnc.show
        print(attnc.show.Alignment([[1.0]]).text(numbers=True).split()[-1])
        print(*sorted({"matplotlib", "PIL", "torch"} & set(sys.modules)))
    """
    assert python(code) == "1"


def test_all_of_it_is_public():
    assert attnc.show is show and set(show.__all__) <= set(dir(show))


# ---- several heads ----


def test_heads(rng):
    weights = rng.dirichlet(np.ones(6), (2, 3, 4))
    heads = show.Heads(weights, AWKWARD[:4], AWKWARD[8:14], title="<heads>", layers=["a", "b"])
    text = heads.html()
    page = Page(text)
    assert page.tags.count("table") == 6 and page.tags.count("td") == 6 * 25
    assert page.text.count("colours from 0 to 1") == 1 and "<heads>" in page.text
    assert "b, head 2" in page.text
    assert heads[1, 2].title == "b, head 2"
    np.testing.assert_array_equal(heads[1, 2].weights, weights[1, 2])
    root = assert_laid_out(heads.svg())
    assert len(list(elements(root, "rect"))) == weights.size
    # Words of queries at the left alone, of keys above alone.
    words = [each.text for each in elements(root, "text")]
    assert words.count(AWKWARD[1]) == 2 and words.count(AWKWARD[12]) == 3
    assert braces(heads.latex()) and heads.latex().count("\\begin{tabular}{@{}r*") == 6
    lines = heads.text(100).split("\n")
    assert lines[0] == "<heads>" and lines[1].split()[:3] == ["a,", "head", "0"]
    assert max(columns_of(heads.text(40))) <= 40


def test_heads_side_by_side():
    heads = show.Heads(np.array([np.eye(2), 1 - np.eye(2)]), heads=["x", "y"])
    assert heads.text().split("\n")[:4] == [
        "x        y",
        "  0  1     0  1",
        "0 ██     0    ██",
        "1    ██  1 ██",
    ]
    assert heads.text(20, numbers=True) == "x      y\n  0 1    0 1\n0 1 0  0 0 1\n1 0 1  1 1 0"


def test_colours_are_the_same_in_all_heads():
    heads = show.Heads(np.array([[[0.5]], [[-2.0]], [[1.0]]]))
    assert alphas(heads.html()) == [0.295, 1, 0.53]
    assert alphas(heads[0].html()) == [0.295]
    weights = np.zeros((2, 128, 128))
    weights[0, 0, 0], weights[1, 0, 0] = 1, 0.5
    found = alphas(show.Heads(weights).html())
    assert found[0] == 1 and found[64 * 64] == 0.53


def test_many_heads_are_of_few_cells(rng):
    heads = show.Heads(rng.dirichlet(np.ones(40), (12, 12, 40)))
    page = Page(heads.html())
    assert page.tags.count("td") == 144 * 101
    assert "reduced from 40 x 40: each cell is the mean of 4 x 4 weights" in page.text
    assert_columns(heads.svg(), 12)
    assert "4 x 4 weights" in heads.text()


def assert_columns(text, count):
    """The maps of a column stand below each other."""
    places = sorted(float(each.get("x")) for each in elements(svg(text), "rect"))
    assert len(set(places)) == count * 10


@pytest.mark.parametrize(
    "weights, options, error, message",
    [
        (
            np.ones((2, 2)),
            {},
            ValueError,
            r"Heads: weights must have shape .* \(for one map: Align",
        ),
        (np.ones((1,) * 5), {}, ValueError, r"\(one sequence is weights\[0\]\)"),
        (np.ones((1, 0, 2)), {}, ValueError, "Heads: weights must not be empty"),
        (np.ones((2, 2, 2)), {"heads": "x"}, TypeError, "Heads: heads must be a sequence of str"),
        (np.ones((2, 2, 2)), {"heads": ["x"]}, ValueError, "Heads: heads must be 2, one a head"),
        (np.ones((2, 2, 2)), {"queries": ["x"]}, ValueError, "Heads: queries must be 2 labels"),
    ],
)
def test_errors_of_heads(weights, options, error, message):
    with pytest.raises(error, match=message):
        show.Heads(weights, **options)


def test_a_head_is_named_by_all_its_numbers():
    heads = show.Heads(np.ones((2, 3, 1, 1)))
    for index in (0, 7, (0, 5), (0, 0, 0), "a", 0.5, None, (True, 0), (slice(None), 0)):
        with pytest.raises(
            IndexError, match=r"^Heads: index must be \(layer, head\), of 2 x 3, got"
        ):
            heads[index]


@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_heads_are_taken_one_after_the_other(lead):
    heads = show.Heads(np.arange(float(np.prod(lead))).reshape(*lead, 1, 1))
    assert [float(each.weights[0, 0]) for each in heads] == [*range(np.prod(lead))]

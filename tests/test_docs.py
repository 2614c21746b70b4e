"""The tools that make and check the site, and the texts at the top of the tree that it shows.

The site itself is built by ``make docs`` and checked by ``make docs-check``.
"""

import importlib
import inspect
import pathlib
import re
import sys

import pytest

import attnc

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def tool(monkeypatch):
    """A function that imports one of the files of docs."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    yield load
    for name in ("bridges", "browse", "check", "prepare"):
        sys.modules.pop(name, None)


# ---- what the site is made of --------------------------------------------------------------------


def test_every_public_name_has_a_page(tool):
    pages = tool("prepare").listed()
    names = [name for _, _, names in pages.values() for name in names]
    assert len(names) == len(set(names))
    for module in (attnc, attnc.functional, attnc.layers, attnc.losses, attnc.reference):
        for name in module.__all__:
            if not inspect.ismodule(getattr(module, name)):
                assert {f"attnc.{name}", f"{module.__name__}.{name}"} & set(names), name


def test_pages_of_each_kind(tool):
    page = tool("prepare").name_page
    assert ".. autofunction:: vjp" in page("attnc.vjp")
    assert ".. autoclass:: Linear\n   :members:" in page("attnc.Linear")
    assert ".. automodule:: attnc.losses\n   :members:" in page("attnc.losses")


def test_a_name_without_a_page_is_refused(tool, monkeypatch):
    prepare = tool("prepare")
    monkeypatch.setattr(prepare, "ELSEWHERE", {})
    with pytest.raises(ValueError, match="must have a page for .*attnc.check_gradients.*attnc.jvp"):
        prepare.listed()


def test_lists_name_pages_before_they_are_written(tool, tmp_path):
    (tmp_path / "masks.md").touch()
    text = "# Guides\n\n```{toctree}\n:glob:\n\nmask[s]\nshape[s]\nothers\n*\n```\n\nshape[s]\n"
    assert tool("prepare").without_missing(text, [tmp_path]) == text.replace("shape[s]\n", "", 1)


def test_what_is_the_same_is_not_written_anew(tool, tmp_path):
    prepare = tool("prepare")
    path = prepare.write(tmp_path / "new" / "page.md", "text")
    before = path.stat().st_mtime_ns
    prepare.write(path, "text")
    assert path.stat().st_mtime_ns == before and path.read_text() == "text"
    prepare.write(path, b"other")
    assert path.read_text() == "other"


def test_bridges_are_read_without_being_imported(tool):
    pytest.importorskip("numpydoc")
    pages = dict(tool("bridges").pages(ROOT / "attnc"))
    assert ".. py:function:: attnc.torch.wrap(function)" in pages["torch"]
    assert ".. py:class:: attnc.torch.nn.LayerModule(" in pages["torch"]
    assert ".. py:function:: attnc.torch.replace(model, *, undo=False)" in pages["torch"]
    assert ".. py:function:: attnc.jax.of(function)" in pages["jax"]
    assert ".. py:function:: attnc.autograd.wrap(function)" in pages["autograd"]


def test_words_of_two_languages(tool):
    pytest.importorskip("sphinx")
    words = tool("words").words("注意力机制: additive_attention, 键 x2")
    assert list(words) == ["注意", "意力", "力机", "机制", "additive_attention", "键", "x2"]


# ---- the checks ----------------------------------------------------------------------------------

GOOD = '<h1 id="top">A</h1><a href="b.html#there">b</a><img src="data:image/png;base64,AA==">'
OTHER = '<h1 id="there">B</h1><a href="a.html">a</a><a href="https://example.org/x">x</a>'


def checked(tool, folder, *pages, **files):
    for name, text in zip(("a.html", "b.html"), pages, strict=True):
        (folder / name).write_text(text)
    (folder / "style.css").write_text(files.get("style", "p { color: red }"))
    return tool("check").check(folder)


def test_a_good_site_has_no_faults(tool, tmp_path):
    (tmp_path / "font.woff").touch()
    style = "@font-face { src: url(font.woff) } p { background: url('data:image/png,x') }"
    head = '<link rel="stylesheet" href="style.css">'
    pages, within, elsewhere, loaded, faults = checked(
        tool, tmp_path, GOOD + head, OTHER, style=style
    )
    assert (pages, within, elsewhere, loaded) == (2, 2, {"https://example.org/x"}, 4)
    assert faults == []


FAULTS = {
    '<a href="c.html">c</a>': "a.html: c.html is not there",
    '<a href="../a.html">c</a>': "a.html: ../a.html is not there",
    '<a href="b.html#here">c</a>': "a.html: b.html#here: no such anchor",
    '<a href="#here">c</a>': "a.html: #here: no such anchor",
    '<script src="https://cdn.example.org/x.js"></script>': "loads https://cdn.example.org/x.js",
    '<script src="//cdn.example.org/x.js"></script>': "loads //cdn.example.org/x.js",
    '<link href="http://example.org/x.css">': "loads http://example.org/x.css",
    '<img src="picture.png">': "loads picture.png, which is not there",
    '<img srcset="http://example.org/x.png 2x">': "loads http://example.org/x.png",
    "<style>@import 'https://example.org/x.css';</style>": "loads https://example.org/x.css",
    '<p style="background: url(https://example.org/x)">': "loads https://example.org/x",
    '<iframe src="https://example.org/x"></iframe>': "loads https://example.org/x",
    '<svg><use href="https://example.org/x#y"/></svg>': "loads https://example.org/x#y",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(tool, tmp_path, fault):
    *_, faults = checked(tool, tmp_path, GOOD + fault, OTHER)
    assert len(faults) == 1 and FAULTS[fault] in faults[0]


def test_fonts_from_afar_are_found(tool, tmp_path):
    style = "@font-face { src: url('https://example.org/x.woff2') }"
    *_, faults = checked(tool, tmp_path, GOOD, OTHER, style=style)
    assert faults == ["style.css: loads https://example.org/x.woff2"]


def test_an_empty_site_fails(tool, tmp_path):
    with pytest.raises(SystemExit, match="no pages; make docs builds them"):
        tool("check").main(tmp_path)


STATE = {"headings": 1, "text": 100, "width": 390, "scheme": "dark", "formulas": 2, "typeset": 2}
STATE |= {"refused": 0, "broken": 0}
WRONG = {
    "headings": (0, "is empty"),
    "text": (3, "is empty"),
    "width": (391, "is 391 wide"),
    "scheme": ("light", "is light"),
    "typeset": (1, "1 of 2 formulas not typeset"),
    "refused": (1, "1 formulas refused"),
    "broken": (1, "1 pictures are broken"),
}


@pytest.mark.parametrize("what", WRONG)
def test_faults_of_a_page_in_a_browser(tool, what):
    faults_of = tool("browse").faults_of
    assert list(faults_of(STATE, 390, "dark")) == []
    value, fault = WRONG[what]
    assert list(faults_of(STATE | {what: value}, 390, "dark")) == [fault]


BROKEN = {
    "<script>throw new Error('oh')</script>": "oh",
    "<script>console.error('oh no')</script>": "oh no",
    '<script src="https://example.org/x.js"></script>': "asks for https://example.org/x.js",
    '<div style="width: 700px">wide</div>': "390 px, light: is 700 wide",
    '<img src="not-there.png">': "1 pictures are broken",
    '<span class="math">x^2</span>': "1 of 1 formulas not typeset",
}


@pytest.mark.parametrize("fault", ["", *BROKEN])
def test_a_browser_sees_faults(tool, tmp_path, fault):
    sync_api = pytest.importorskip("playwright.sync_api")
    browse = tool("browse")
    executable = browse.chromium()
    if executable is None:
        pytest.skip("needs Chromium")
    scheme = "matchMedia('(prefers-color-scheme: dark)')"
    (tmp_path / "page.html").write_text(
        '<!DOCTYPE html><html><body style="margin: 0"><h1>A page of some length</h1>'
        f"<script>const dark = {scheme}; const set = () => document.documentElement.dataset.theme"
        " = dark.matches ? 'dark' : 'light'; dark.onchange = set; set()</script>"
        f"{fault}</body></html>"
    )
    with sync_api.sync_playwright() as playwright:
        browser = browse.launched(playwright, executable)
        window = browse.Window(browser, tmp_path)
        _, faults = window.visit(tmp_path / "page.html")
        browser.close()
    if fault:
        assert BROKEN[fault] in " ".join(faults)
    else:
        assert faults == []


# ---- texts at the top of the tree ----------------------------------------------------------------


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## (\d+\.\d+\.\d+),? (.+)$", text_of("CHANGELOG.md"), re.M)
    assert versions[0][0] == attnc.__version__
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d|not released yet", date) for _, date in versions)


def test_the_citation_is_of_this_version():
    citation = text_of("CITATION.cff")
    assert re.search(r"^version: (.+)$", citation, re.M)[1] == attnc.__version__
    assert f"version = {{{attnc.__version__}}}" in text_of("docs/cite.md")
    license_of_project = re.search(r'^license = "(.+)"$', text_of("pyproject.toml"), re.M)[1]
    assert re.search(r"^license: (.+)$", citation, re.M)[1] == license_of_project


def test_the_citation_fits_its_schema():
    cffconvert = pytest.importorskip("cffconvert")
    cffconvert.Citation(text_of("CITATION.cff")).validate()
    wrong = text_of("CITATION.cff").replace("authors:", "writers:")
    with pytest.raises(Exception, match="authors|writers"):
        cffconvert.Citation(wrong).validate()


@pytest.mark.parametrize(
    "name", ["CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"]
)
def test_local_links_of_texts(name):
    for link in re.findall(r"(?<!`)\]\(([^)#]+)[^)]*\)", text_of(name)):
        if not link.startswith("https://") and "`" not in link:
            there = ROOT / link
            assert there.exists() or link == "masks.md", link


def test_all_versions_of_tools_are_named_once():
    """What `make docs-check` installs is no extra: the browser's driver is large."""
    assert "playwright" not in text_of("pyproject.toml").replace('"playwright.*"', "")
    assert re.search(r"^PLAYWRIGHT = playwright", text_of("Makefile"), re.M)


def test_a_sample_has_all_pages_but_some_of_those_that_are_made(tool, tmp_path):
    browse = tool("browse")
    made = [tmp_path / "api/names" / f"attnc.f{n:02}.html" for n in range(20)]
    others = [tmp_path / name for name in ("index.html", "guides/masks.html", "api/functions.html")]
    pages = sorted([*made, *others])
    assert browse.sampled(pages, tmp_path, 1) == pages
    some = browse.sampled(pages, tmp_path, 6)
    assert set(others) < set(some) and len(some) == len(others) + 4

"""The pages under docs/ do what they say: their cells run, one page a process, without Sphinx.

Cells are the `{code-cell}` blocks of MyST Markdown. One with the tag raises-exception has to raise;
one with skip-execution is not run. That names of the API exist, which Sphinx checks too, is here
for whoever does not build the pages.
"""

import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import attnc

DOCS = pathlib.Path(__file__).parents[1] / "docs"
CELL = re.compile(r"^(`{3,}|:{3,})\{code-cell\}[^\n]*\n(.*?)^\1$", re.M | re.S)
# What a cell says of itself: lines ":tags: [...]", or YAML between two "---".
CELL_OPTIONS = re.compile(r"((?:(?::[\w-]+:[^\n]*\n)+|---\n.*?^---\n)?)(.*)", re.S | re.M)
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts]
MECHANISMS = [page for page in PAGES if page.parent.name == "mechanisms"]
ROLE = re.compile(r"\{py:(?:func|class|mod|meth|attr|obj)\}`[~!]?([\w.]+)`")

# What runs the cells of a page, each with the number of its line and its tags: a traceback names
# the line of the page. The last line printed is the number of figures that were drawn.
RUN = """
import contextlib, io, json, sys
import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot
name, cells, names, figures = sys.argv[1], json.load(sys.stdin), {"__name__": "__main__"}, 0
for line, tags, code in cells:
    expected = Exception if "raises-exception" in tags else ()
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            exec(compile("\\n" * line + code, name, "exec"), names)
        except expected:
            continue
    if expected:
        sys.exit(f"{name}, line {line}: the cell was to raise")
    for number in pyplot.get_fignums():
        pyplot.figure(number).canvas.draw()
        figures += 1
    pyplot.close("all")
print(figures)
"""


def cells(page):
    """(line, tags, code) of each cell of a page that is run."""
    text = page.read_text(encoding="utf-8")
    for found in CELL.finditer(text):
        options, code = CELL_OPTIONS.match(found[2]).groups()
        line = text.count("\n", 0, found.start(2)) + options.count("\n")
        if "skip-execution" not in options:
            yield line, options, code


def name(page):
    return page.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if any(cells(page))], ids=name)
def test_cells_run(page):
    pytest.importorskip("matplotlib")
    text, code = page.read_text(encoding="utf-8"), list(cells(page))
    for library in re.findall(r"^\s*(?:import|from) (torch|jax|autograd)\b", text, re.M):
        pytest.importorskip(library)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, str(page)],
        input=json.dumps(code),
        capture_output=True,
        text=True,
        cwd=page.parent,  # as Sphinx does
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0 and not run.stderr, run.stderr
    assert page not in MECHANISMS or int(run.stdout) >= 1, "no picture is drawn"


def test_every_mechanism_has_a_page():
    index = DOCS / "mechanisms" / "index.md"
    text = index.read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\((\w+)\.md\)", text))
    pages = {page.stem for page in MECHANISMS} - {"index"}
    assert len(pages) >= 15 and linked == pages
    assert set(re.search(r"\{toctree\}\n(.*?)```", text, re.S)[1].split()) >= pages
    functions = {f"attnc.{each}" for each in attnc.functional.attention.__all__}
    assert set(ROLE.findall(text)) >= functions


@pytest.mark.parametrize("page", MECHANISMS, ids=name)
def test_names_exist(page):
    for found in set(ROLE.findall(page.read_text(encoding="utf-8"))):
        parts = found.split(".")
        value = importlib.import_module(parts[0])
        for part in parts[1:]:
            value = getattr(value, part)


@pytest.mark.parametrize("page", MECHANISMS, ids=name)
def test_mathematics_is_closed(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert text.count("$$") % 2 == 0
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.S)
    text = re.sub(r"`[^`\n]*`", "", text)
    assert all(paragraph.count("$") % 2 == 0 for paragraph in text.split("\n\n"))

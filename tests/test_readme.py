"""README and tour do what they say: their examples run and print what is shown, names exist."""

import contextlib
import inspect
import io
import pathlib
import re

import pytest

import attnc

ROOT = pathlib.Path(__file__).parents[1]
NAMES = ["README.md", "README.zh.md", "docs/tour.md"]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
README, CHINESE, TOUR = TEXTS.values()
# Blocks of Python with the block of text that shows what they print, by the heading above.
EXAMPLES = [
    (re.findall(r"^#+ (.+)$", text[: found.start()], re.M)[-1], found[1], found[2])
    for text in TEXTS.values()
    for found in re.finditer(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S)
]


@pytest.mark.parametrize(
    "code, shown", [each[1:] for each in EXAMPLES], ids=[each[0] for each in EXAMPLES]
)
def test_example(code, shown):
    for library in re.findall(r"^import (torch|jax|autograd)$", code, re.M):
        pytest.importorskip(library)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == shown


def test_every_function_has_an_example():
    assert len(EXAMPLES) == sum(text.count("```python") for text in TEXTS.values())
    headings = [each[0] for each in EXAMPLES]
    assert set(headings) >= set(attnc.functional.attention.__all__)
    for heading, code, _ in EXAMPLES:
        lines = [line for line in code.splitlines() if line]
        assert heading not in attnc.functional.attention.__all__ or len(lines) <= 16, heading
        assert "import numpy as np\nimport attnc\n" in code  # can be pasted anywhere


def test_the_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    verbs = set(re.findall(r"(?:^|`)make (\w+)", README, re.M))
    assert verbs >= {"demo", "test"} and verbs == set(
        re.findall(r"(?:^|`)make (\w+)", CHINESE, re.M)
    )
    assert all(re.search(rf"^{verb}:", makefile, re.M) for verb in verbs)


def test_the_environment_variables_exist():
    table = re.findall(r"^\| `([A-Z_]+)` \|", TOUR, re.M)
    sources = inspect.getsource(attnc.threads) + (ROOT / "setup.py").read_text(encoding="utf-8")
    assert len(table) == 3
    assert all(f'"{variable}"' in sources for variable in (*table, "OMP_NUM_THREADS"))


@pytest.mark.parametrize("name", NAMES)
def test_the_files_exist(name):
    paths = re.findall(r"`(examples/[^`]+)`|\]\(([^)]+)\)", TEXTS[name])
    assert len(paths) >= 3
    assert all((ROOT / (one or other)).exists() for one, other in paths)


def test_both_languages_say_the_same():
    """As many sections, tables and rows, and the same code and files."""
    for pattern in (r"^#+ ", r"^\|", r"^```.*$", r"^- ", r"\]\(([^)]+)\)"):
        ours, theirs = (
            [each.replace(".zh.md", ".md") for each in re.findall(pattern, text, re.M)]
            for text in (README, CHINESE)
        )
        assert ours == theirs, pattern
    assert re.search("[\u4e00-\u9fff]", CHINESE)

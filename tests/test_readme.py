"""The README does what it says: its examples run and print what is shown, its names exist."""

import contextlib
import inspect
import io
import pathlib
import re

import pytest

import attnc

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Blocks of Python with the block of text that shows what they print, by the heading above.
EXAMPLES = [
    (re.findall(r"^#+ (.+)$", README[: found.start()], re.M)[-1], found[1], found[2])
    for found in re.finditer(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.S)
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
    assert len(EXAMPLES) == README.count("```python")
    headings = [each[0] for each in EXAMPLES]
    assert set(headings) >= set(attnc.functional.attention.__all__)
    for heading, code, _ in EXAMPLES:
        lines = [line for line in code.splitlines() if line]
        assert heading not in attnc.functional.attention.__all__ or len(lines) <= 16, heading
        assert "import numpy as np\nimport attnc\n" in code  # can be pasted anywhere


def test_the_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^make (\w+)", README, re.M))
    assert verbs >= {"demo", "test"}
    assert all(re.search(rf"^{verb}:", makefile, re.M) for verb in verbs)


def test_the_environment_variables_exist():
    table = re.findall(r"^\| `([A-Z_]+)` \|", README, re.M)
    sources = inspect.getsource(attnc.threads) + (ROOT / "setup.py").read_text(encoding="utf-8")
    assert len(table) == 3
    assert all(f'"{variable}"' in sources for variable in (*table, "OMP_NUM_THREADS"))


def test_the_files_exist():
    paths = re.findall(r"`(examples/[^`]+)`|\]\(([^)]+)\)", README)
    assert len(paths) >= 3
    assert all((ROOT / (one or other)).exists() for one, other in paths)

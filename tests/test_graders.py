"""The examples for graders: each passes a right submission, and tells a wrong one what is wrong."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import attnc

FOLDER = pathlib.Path(attnc.__file__).parents[1] / "examples" / "graders"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
# What README.md says that each of them shows for a softmax over the wrong axis.
LINE = "attention: the softmax runs over the queries (axis -2): it must run over the keys, axis -1"
FILE = "test_attention.py", "--tb=line"
OVER_QUERIES = ("axis=-1, keepdims=True)", "axis=-2, keepdims=True)")


@pytest.fixture
def folder(tmp_path):
    """A copy, for graders leave files behind."""
    return pathlib.Path(shutil.copytree(FOLDER, tmp_path / "graders"))


def run(folder, *command):
    """What a command prints, and whether it failed."""
    path = os.pathsep.join([str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")])
    # nbgrader runs alembic, which an environment that is not activated does not find.
    tools = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), "PATH": tools},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return result.stdout + result.stderr, result.returncode != 0


def change(folder, old, new):
    """Make a mistake in the submission, softmax and pullback alike."""
    file = folder / "attention.py"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_the_readme_names_them_all():
    named = {"README.md", "attention.py", "nbgrader.ipynb", "otter_tests"}
    named |= {"test_attention.py", "with_asserts.py"}
    left = {"__pycache__", ".pytest_cache", ".OTTER_LOG"}
    assert {path.name for path in FOLDER.iterdir()} - left == named
    assert all(name in README for name in named - {"README.md"})
    assert LINE in README


def test_asserts(folder):
    said, failed = run(folder, "with_asserts.py")
    assert said == "all right\n" and not failed
    change(folder, *OVER_QUERIES)
    said, failed = run(folder, "with_asserts.py")
    assert failed and said.rstrip().splitlines()[-1] == f"AssertionError: {LINE}"


def test_pytest(folder):
    command = "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILE
    said, failed = run(folder, *command)
    assert "3 passed" in said and not failed
    change(folder, *OVER_QUERIES)
    said, failed = run(folder, *command)
    # The place of the call in the test, not one in attnc.
    assert failed and re.search(
        rf"test_attention\.py:\d+: AssertionError: {re.escape(LINE)}$", said, re.M
    )
    assert "1 failed, 2 passed" in said  # the pullback is right for what it is a pullback of


def test_pytest_on_a_wrong_pullback(folder):
    change(folder, "return scale * dscores @ key", "return dscores @ key")
    said, failed = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILE)
    assert failed and "check_gradients: the gradient of query is 2 times the right one" in said


def test_otter(folder):
    pytest.importorskip("otter")
    command = "-m", "otter", "check", "attention.py", "-t", "otter_tests"
    said, _ = run(folder, *command)
    assert "All tests passed!" in said
    change(folder, *OVER_QUERIES)
    said, _ = run(folder, *command)
    assert f"AssertionError: {LINE}" in said
    assert said.count("Test case passed") == 1 == said.count("Test case failed")
    assert "pullback results: All test cases passed!" in said


def test_the_notebook_is_for_nbgrader():
    """Without nbgrader: its cells have what its format wants, and no outputs."""
    cells = json.loads((FOLDER / "nbgrader.ipynb").read_text(encoding="utf-8"))["cells"]
    own = [cell["metadata"]["nbgrader"] for cell in cells if "nbgrader" in cell["metadata"]]
    assert sum(cell["solution"] for cell in own) == 3 == sum(cell["grade"] for cell in own)
    assert len({cell["grade_id"] for cell in own}) == len(own) == 6
    assert all(cell["locked"] == cell["grade"] == ("points" in cell) for cell in own)
    assert all(cell.get("outputs", []) == [] for cell in cells)
    environment = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), environment)  # all asserts hold


def test_nbgrader(folder, tmp_path):
    pytest.importorskip("nbgrader")
    course = tmp_path / "course"
    source = course / "source" / "attention"
    source.mkdir(parents=True)
    shutil.copy(folder / "nbgrader.ipynb", source)
    said, failed = run(course, "-m", "nbgrader", "generate_assignment", "attention")
    assert not failed, said
    released = (course / "release" / "attention" / "nbgrader.ipynb").read_text(encoding="utf-8")
    assert "SOLUTION" not in released and "raise NotImplementedError()" in released

    right = (source / "nbgrader.ipynb").read_text(encoding="utf-8")
    for student, text in (("right", right), ("wrong", right.replace(*OVER_QUERIES))):
        submitted = course / "submitted" / student / "attention"
        submitted.mkdir(parents=True)
        (submitted / "nbgrader.ipynb").write_text(text, encoding="utf-8")
    said, failed = run(course, "-m", "nbgrader", "autograde", "attention")
    assert not failed, said
    scores = """
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db") as book:
    for each in book.assignment_submissions("attention"):
        print(each.student.id, each.score, each.max_score)
"""
    said, _ = run(course, "-W", "ignore", "-c", scores)
    assert sorted(said.splitlines()) == ["right 5.0 5.0", "wrong 3.0 5.0"]
    graded = course / "autograded" / "wrong" / "attention" / "nbgrader.ipynb"
    assert LINE in graded.read_text(encoding="utf-8")

"""Rules that no compiler checks: what may stand in which source file."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
C = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".c", ".h", ".inc"})
KERNELS = [path for path in C if path.parent.name == "kernels"]
# What a plain C program could use: all but the glue to Python.
PLAIN = [path for path in C if path.parent.name != "python"]
# The storeys, and what each may include of the others: arrows point one way.
STOREYS = {
    "python": {"python", "jax", "engine", "kernels.h"},
    "jax": {"jax", "engine", "kernels.h"},
    "engine": {"engine", "kernels.h"},
    "targets": {"targets", "kernels", "simd", "kernels.h"},
    "kernels": {"kernels", "kernels.h"},
    "simd": {"simd"},
    "kernels.h": set(),
}

FOLDERS = ("attnc", "benchmarks", "csrc", "docs", "examples", "tests", ".ci")
SUFFIXES = {".c", ".h", ".inc", ".ipynb", ".md", ".py", ".pyi", ".toml"}
OTHERS = {"Makefile", "MANIFEST.in", "run", ".clang-format"}
FILES = sorted(
    path
    for path in (*ROOT.glob("*"), *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*")))
    if path.is_file() and (path.suffix in SUFFIXES or path.name in OTHERS)
)


def name(path):
    return path.relative_to(ROOT).as_posix()


def code(path):
    """The text without comments, the lines where they were."""

    def blank(comment):
        return "\n" * comment[0].count("\n")

    return re.sub(r"/\*.*?\*/|//[^\n]*", blank, path.read_text(encoding="utf-8"), flags=re.DOTALL)


def lines_with(pattern, text):
    return [
        f"line {number}: {line.strip()}"
        for number, line in enumerate(text.split("\n"), 1)
        if re.search(pattern, line)
    ]


def test_there_is_something_to_check():
    assert len(KERNELS) > 5 and len(PLAIN) > 20 and len(FILES) > 50


@pytest.mark.parametrize("path", C, ids=name)
def test_one_call_without_the_gil(path):
    text = code(path)
    blocks = re.findall(r"Py_BEGIN_ALLOW_THREADS(.*?)Py_END_ALLOW_THREADS", text, flags=re.DOTALL)
    assert len(blocks) == text.count("Py_BEGIN_ALLOW_THREADS") == text.count("Py_END_ALLOW_THREADS")
    assert all(re.fullmatch(r"\s*(\w+ = )?\w+\([^;{}]*\);\s*", block) for block in blocks), blocks


def test_the_gil_is_given_up_somewhere():
    found = [path.name for path in C if "Py_BEGIN_ALLOW_THREADS" in code(path)]
    assert "run.c" in found and all(
        path.parent.name == "python" for path in C if path.name in found
    )


@pytest.mark.parametrize("path", [path for path in C if path.stem != "scratch"], ids=name)
def test_memory_comes_from_scratch(path):
    assert not lines_with(r"\b(malloc|calloc|realloc|aligned_alloc|alloca|free)\b", code(path))


@pytest.mark.parametrize("path", C, ids=name)
def test_arrows_point_one_way(path):
    def storey(path):
        return path.relative_to(ROOT / "csrc").parts[0]

    included = re.findall(r'#include "([^"]+)"', path.read_text(encoding="utf-8"))
    found = {storey((path.parent / header).resolve()) for header in included}
    assert storey(path) in STOREYS, f"{name(path)} is in no storey"
    assert found <= STOREYS[storey(path)]


@pytest.mark.parametrize("path", PLAIN, ids=name)
def test_no_python_below_the_glue(path):
    assert not lines_with(r"\bPy|\bNPY_", code(path))


@pytest.mark.parametrize("path", KERNELS, ids=name)
def test_kernels_know_no_instruction_set(path):
    assert not lines_with(r"__AVX|__FMA|__SSE|__ARM|_mm\d|\bv\w+q_f", code(path))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_text(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix not in {".md", ".ipynb"}:
        assert not lines_with(r".{101}", text)
    assert not lines_with(r"[ \t\r]$", text)
    assert not lines_with(r"\t", text) or path.name == "Makefile"
    assert text.endswith("\n") and not text.endswith("\n\n")
    # What is true of one machine only: somebody's folders, and where pip gets its files.
    assert not lines_with(r"(?<![\w.])/(home|root|Users|work|mnt)/\w", text)
    assert not lines_with(r"(index|find)[-_](url|links)", text)

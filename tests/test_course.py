"""The course: the same in both languages, kept without outputs, and its notebooks run."""

import ast
import json
import pathlib
import re
import sys

import pytest

COURSE = pathlib.Path(__file__).parents[1] / "examples" / "course"
LECTURES = sorted(path.name for path in (COURSE / "en").glob("*.ipynb"))
NOTEBOOKS = [*LECTURES, *(f"solutions/{name}" for name in LECTURES)]
SHORT = "02_soft_addressing.ipynb"  # trains nothing; all others are `long`
HAN = re.compile("[\u4e00-\u9fff]")
# What the textbooks of the language call it, and where it has to be said.
TERMS = {
    "01_why": "注意力 编码器 解码器 编码器-解码器 隐状态 上下文向量 梯度 权重 查询",
    "02_soft_addressing": "注意力机制 查询 键 值 分数 权重 归一化 掩码 温度 加性 乘性 点积 余弦",
    "03_encoder_decoder": "加性注意力 乘性注意力 对齐 隐状态 上下文向量 掩码 梯度 查询 键 值",
    "04_global_and_local": "全局注意力 局部注意力 窗口 查询 键 值 梯度 掩码|mask",
    "05_soft_and_hard": "软注意力 硬注意力 估计量 偏差 方差 基线 抽样 梯度 期望",
    "06_self_attention": "自注意力 查询 键 值 多头注意力 掩码 位置编码 梯度 权重",
    "07_transformer": "残差连接 层归一化 编码器 解码器 交叉注意力 梯度",
    "08_images": "卷积 区域 软注意力 权重",
    "09_where_to_look": "基线 奖励 抽样 梯度",
    "10_from_formula_to_c": "分块 缓存 掩码 线程",
}


def cells(language, name):
    text = (COURSE / language / name).read_text(encoding="utf-8")
    return json.loads(text)["cells"]


def sources(language, name, kind):
    return ["".join(c["source"]) for c in cells(language, name) if c["cell_type"] == kind]


def test_they_are_there():
    assert {f"{name}.ipynb" for name in TERMS} <= set(LECTURES)
    for language in ("en", "zh"):
        there = {path.relative_to(COURSE / language) for path in (COURSE / language).rglob("*.*")}
        there = {path.as_posix() for path in there if ".ipynb_checkpoints" not in path.parts}
        assert there == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_same_code_in_both_languages(name):
    assert sources("en", name, "code") == sources("zh", name, "code")
    kinds = [[c["cell_type"] for c in cells(language, name)] for language in ("en", "zh")]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_kept_without_outputs(language, name):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(COURSE / language / name, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell["id"] for cell in cells(language, name)]  # reading would make them differ
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_in_its_language(name):
    texts = {language: sources(language, name, "markdown") for language in ("en", "zh")}
    for text in texts["zh"]:
        assert HAN.search(text), text
    for text in texts["en"]:
        assert not HAN.search(text), text
    # A heading for a heading and a formula for a formula.
    for english, chinese in zip(texts["en"], texts["zh"], strict=True):
        assert re.findall("^#+ ", english, re.M) == re.findall("^#+ ", chinese, re.M), english
        assert english.count("$$") == chinese.count("$$"), english


@pytest.mark.parametrize("name", TERMS)
def test_terms(name):
    text = "\n".join(sources("zh", f"{name}.ipynb", "markdown"))
    assert not [term for term in TERMS[name].split() if not re.search(term, text)]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", LECTURES)
def test_exercises_have_solutions(language, name):
    text = "\n".join(sources(language, name, "markdown"))
    exercises = text.partition("\n## Exercises\n" if language == "en" else "\n## 练习\n")[2]
    numbers = re.findall(r"^\*\*(\d+)\.", exercises, re.M)
    assert 3 <= len(numbers) <= 5 and numbers == [str(n + 1) for n in range(len(numbers))]
    solutions = "\n".join(sources(language, f"solutions/{name}", "markdown"))
    assert re.findall(r"^(?:## |\*\*)(\d+)\.", solutions, re.M) == numbers


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_lead_to_notebooks(language, name):
    folder = (COURSE / language / name).parent
    for text in sources(language, name, "markdown"):
        for link in re.findall(r"\]\(([\w./]+\.ipynb)\)", text):
            assert (folder / link).is_file(), link


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_needs_numpy_and_matplotlib_alone(name):
    modules = set()
    for node in ast.walk(ast.parse("\n".join(sources("en", name, "code")))):
        if isinstance(node, ast.Import):
            modules |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").partition(".")[0])
    # PyTorch, to compare with, only where it is installed.
    assert modules <= {"attnc", "matplotlib", "numpy", "torch"} | sys.stdlib_module_names


# Kernel and client warn about matters of their own. The code of the other language is the same.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == SHORT else pytest.mark.long) for name in NOTEBOOKS],
)
def test_runs(name):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    notebook = nbformat.read(COURSE / "en" / name, as_version=4)
    # Each assertion of a notebook is one of this test: a cell that fails raises.
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [each for each in outputs if "image/png" in each.get("data", {})]
    assert len(pictures) >= 2 or name.startswith("solutions/")
    assert not [each for each in outputs if each.get("name") == "stderr"]

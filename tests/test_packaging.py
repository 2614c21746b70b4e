"""What the package promises as a package: versions, imports, the private module and its stub."""

import ast
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import typing

import numpy as np
import pytest
from arrays import FUNCTIONS
from checks import python

import attnc
from attnc import _core, functional

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = pathlib.Path(attnc.__file__).parent


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == attnc.__version__


def test_the_oldest_python_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    major, minor = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"]).groups()
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f'"Py_LIMITED_API", "{int(major):#04x}{int(minor):02x}0000"' in setup
    assert f'"py_limited_api": "cp{major}{minor}"' in setup


def test_all_is_there_once():
    assert len(set(attnc.__all__)) == len(attnc.__all__)
    assert all(hasattr(attnc, name) for name in attnc.__all__)


def test_completion_offers_what_is_public():
    assert {name for name in dir(attnc) if not name.startswith("__")} == set(attnc.__all__)


def test_sources_that_are_not_built_say_so(tmp_path):
    """The first thing after `pip install .`: Python, started in the checkout, finds the sources."""
    shutil.copytree(PACKAGE, tmp_path / "attnc", ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    command = [sys.executable, "-S", "-c", "import attnc"]  # -S: without an editable installation
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(np.__file__).parents[1])}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: attnc: the sources in {tmp_path} are not built: ")
    assert last.endswith("pip install --editable .")


def test_import_needs_numpy_alone():
    code = """
        import importlib.abc, sys
        import numpy
        before = set(sys.modules)

        class Refuse(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                extras = "babel jax matplotlib polib sacremoses scipy sentencepiece torch tqdm"
                if name in {*extras.split(), "autograd"}:
                    raise ImportError(f"import attnc imports {name}")

        sys.meta_path.insert(0, Refuse())
        import attnc, attnc.data, attnc.plot, attnc.reference
        names = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*sorted(names - {"attnc", "numpy"} - sys.stdlib_module_names))
    """
    assert python(code) == ""


def test_import_leaves_out_what_only_some_calls_need():
    # numpy.ma alone takes longer to import than the whole package should.
    code = """
        import sys
        import numpy
        before = set(sys.modules)
        import attnc
        some = {"dataclasses", "difflib", "html", "numpy.ma", "numpy.random", "numpy.typing"}
        some |= {"secrets", "tempfile", "zipfile"}
        later = "checking counting data optim plot reference saving schedules show teaching"
        some |= {f"attnc.{name}" for name in later.split()}
        print(*sorted(some & (set(sys.modules) - before)))
    """
    assert python(code) == ""


LATER = ["check_gradients", "data", "load", "optim", "plot", "reference", "save", "stages"]
LATER += ["schedules", "show", "summary", "teaching"]


@pytest.mark.parametrize("name", LATER)
@pytest.mark.parametrize("how", ["import attnc; x = attnc.{}", "from attnc import {} as x"])
def test_what_is_imported_at_its_first_use(name, how):
    code = f"""
        {how.format(name)}
        import attnc, pickle, sys
        assert x is getattr(attnc, x.__name__.rpartition(".")[2]) and x is vars(attnc)["{name}"]
        assert isinstance(x, type(sys)) or pickle.loads(pickle.dumps(x)) is x
        print(x.__name__.rpartition(".")[2])
    """
    assert python(code) == name


def test_help_and_star_know_all_of_it():
    code = """
        import attnc, pydoc
        text = pydoc.plain(pydoc.render_doc(attnc))
        assert all(f"{name}(" in text for name in ("check_gradients", "stages", "save", "summary"))
        names = {}
        exec("from attnc import *", names)
        assert set(attnc.__all__) == names.keys() - {"__builtins__"}
        print(set(attnc.__all__) == {name for name in dir(attnc) if not name.startswith("__")})
    """
    assert python(code) == "True"


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="^module 'attnc' has no attribute 'atend'$"):
        attnc.atend  # noqa: B018


def test_annotations_can_be_read():
    """Where nothing but checkers knows the types of NumPy's arrays."""
    for function in (attnc.dot_product_attention, attnc.Linear.__call__, attnc.stages):
        assert typing.get_type_hints(function)


def test_import_leaves_the_arithmetic_alone():
    # A library linked with -ffast-math makes the whole process flush subnormal numbers to zero.
    code = """
        import attnc, numpy as np
        attnc.dot_product_attention(*np.ones((3, 2, 2)))
        for dtype in (np.float32, np.float64):
            smallest = np.finfo(dtype).smallest_subnormal
            assert smallest > 0 and np.finfo(dtype).smallest_normal / dtype(2) > 0
            assert (np.full(64, smallest) + np.full(64, smallest) == 2 * smallest).all()
        print("as before")
    """
    assert python(code) == "as before"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="lists the symbols of ELF files")
@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
def test_one_symbol_is_exported():
    command = ["nm", "--dynamic", "--defined-only", "--format=posix", _core.__file__]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = {line.split()[0] for line in listed.splitlines()}
    assert names == {"PyInit__core"}


def test_optimised_python_has_no_docstrings_and_works():
    code = "import attnc, numpy as np; print(attnc.attend(np.zeros((1, 2)), np.ones((2, 1))))"
    command = [sys.executable, "-OO", "-c", code]
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert result.stdout == "[[1.]]\n"


# ---- the stub of the private module ----

BODY = ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8")).body
STUB = {node.name: node for node in BODY if isinstance(node, ast.FunctionDef)}
# The entries of every attention function are each of a type that all of them share, and those of
# every function of scores alone.
SECOND = {"_jvp": "_JVP", "_hvp": "_HVP"}
KINDS = {"": "_Forward", "_saving": "_Saving", "_backward": "_Backward"} | SECOND
SCORES_KINDS = {"": "_Scores", "_backward": "_ScoresBackward", "_jvp": "_ScoresJVP", "_hvp": "_HVP"}
# Those of hard attention, which has results of its own.
HARD = {
    "hard_attention": "_Hard",
    "hard_attention_saving": "_HardSaving",
    "hard_attention_backward": "_Backward",
    "hard_attention_jvp": "_HardJVP",
    "hard_attention_hvp": "_HVP",
}
ENTRIES = {
    node.target.id: node.annotation.id
    for node in BODY
    if isinstance(node, ast.AnnAssign)
    and getattr(node.annotation, "id", "")
    in (*KINDS.values(), *SCORES_KINDS.values(), *HARD.values())
}
ATTENTION = [name for name, kind in ENTRIES.items() if kind == "_Forward"]
SCORES = [name for name, kind in ENTRIES.items() if kind == "_Scores"]


def test_the_stub_names_what_the_module_has():
    functions = {name for name, value in vars(_core).items() if inspect.isbuiltin(value)}
    assert functions == STUB.keys() | ENTRIES.keys()
    of_attention = {name + end: kind for name in ATTENTION for end, kind in KINDS.items()}
    of_scores = {name + end: kind for name in SCORES for end, kind in SCORES_KINDS.items()}
    assert of_attention | of_scores | HARD == ENTRIES
    assert set(ATTENTION) == set(FUNCTIONS)
    assert set(SCORES) == set(functional.scores.__all__)


@pytest.mark.parametrize("name", STUB)
def test_the_stub_has_the_right_number_of_arguments(name):
    arguments = STUB[name].args
    assert not arguments.args and not arguments.kwonlyargs  # all are positional
    with pytest.raises(TypeError) as error:
        getattr(_core, name)(*[None] * 40)
    said = re.search(r"takes (\d+|no|exactly one|a name and an array)", str(error.value))[1]
    counts = {"no": 0, "exactly one": 1, "a name and an array": 2}
    assert len(arguments.posonlyargs) == (counts[said] if said in counts else int(said))


@pytest.mark.parametrize("name", ATTENTION)
def test_c_has_the_arguments_of_the_public_function(name):
    parameters = inspect.signature(getattr(attnc, name)).parameters
    options = _core.option_defaults()
    own = list(parameters)[: -len(options)]
    assert {k: parameters[k].default for k in list(parameters)[len(own) :]} == options
    assert list(parameters) == [*own, *options]
    first = {"": 0, "_saving": 0, "_backward": 6}
    for kind, count in first.items():
        function = getattr(_core, name + kind)
        for k, argument in enumerate(own):  # by position, and by name
            given = [None] * count + [np.ones((1, 1))] * k
            for call in ((*given, np.array(1j)), {argument: np.array(1j)}):
                with pytest.raises(TypeError, match=f"^{name}: {argument} must hold real"):
                    function(*call) if isinstance(call, tuple) else function(*given, **call)

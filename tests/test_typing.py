"""All that is public has annotations, and they say what a checker should see."""

import functools
import inspect
import os
import pathlib
import subprocess
import sys
import typing

import pytest
from test_docstrings import OWN, PUBLIC

import attnc

TESTS = pathlib.Path(__file__).parent


@functools.cache
def callables():
    """(name, function) of every public function, method and constructor."""
    found = {}
    for name, thing in PUBLIC.items():
        if name.startswith("attnc.plot."):  # figures are of a package that may not be there
            continue
        function = thing.__init__ if inspect.isclass(thing) else thing
        if inspect.isfunction(function):  # not the constructor of tuple, or of object
            found[name] = inspect.unwrap(function, stop=lambda f: "__annotations__" not in vars(f))
    return found


@pytest.mark.parametrize("name", callables())
def test_annotations(name):
    function = callables()[name]
    code = inspect.unwrap(function).__code__
    flags = (code.co_flags & inspect.CO_VARARGS != 0) + (
        code.co_flags & inspect.CO_VARKEYWORDS != 0
    )
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + flags]
    assert {*arguments} - OWN == set(function.__annotations__) - {"return"}
    assert "return" in function.__annotations__


@pytest.mark.parametrize("name", callables())
def test_annotations_can_be_read_at_run_time(name):
    """Their names are there: an editor, or a user's own tool, may evaluate them."""
    assert typing.get_type_hints(callables()[name])


def test_a_signature_has_the_names_of_types():
    shown = str(inspect.signature(attnc.merge_attention)).replace("'", "")
    assert shown == (
        "(contexts: Sequence[Real], lses: Sequence[Real], *, return_lse: bool = False)"
        " -> Array | LseResult"
    )


def test_what_users_write(tmp_path):
    """mypy accepts it, strict as it can be, and refuses what the sample says is wrong."""
    pytest.importorskip("mypy", reason="comes with `make lint`")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    command += ["--config-file", os.devnull, "--cache-dir", str(tmp_path)]
    environment = {**os.environ, "MYPYPATH": str(pathlib.Path(attnc.__file__).parents[1])}
    result = subprocess.run(
        [*command, str(TESTS / "typing_sample.py")],
        cwd=tmp_path, env=environment, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr

"""The choice of instruction set. That all compute the same is tested wherever `isa` is used."""

import pytest
from checks import python

from attnc import _core

KNOWN = ("scalar", "neon", "avx2", "avx512")  # ascending
NAMES = _core.isa_names()


def test_names_ascend():
    assert NAMES[0] == "scalar"
    assert list(NAMES) == [name for name in KNOWN if name in NAMES]


def test_the_best_is_the_default():
    assert python("from attnc import _core; print(_core.get_isa())", ATTNC_ISA="") == NAMES[-1]


@pytest.mark.parametrize("name", NAMES)
def test_environment_chooses(name):
    assert python("from attnc import _core; print(_core.get_isa())", ATTNC_ISA=name) == name


@pytest.mark.parametrize("name", ["sse9", "AVX2", " "])
def test_environment_with_an_unknown_name(name):
    error = python("import attnc", ATTNC_ISA=name)
    assert error.startswith("ImportError:")
    assert all(word in error for word in ("ATTNC_ISA", name, *NAMES))


def test_set_isa(isa):
    assert _core.get_isa() == isa
    with pytest.raises(ValueError, match="sse9"):
        _core.set_isa("sse9")
    assert _core.get_isa() == isa

"""The loop of training in attnc, PyTorch, JAX and autograd: the same losses."""

import importlib
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

BRIDGES = pathlib.Path(__file__).parent.parent / "examples" / "bridges"
LIBRARIES = "autograd", "jax", "torch"


@pytest.fixture(scope="module")
def loops():
    """How to import a loop: from the folder, whose names are not for other tests."""
    before = {*sys.modules}
    sys.path.insert(0, str(BRIDGES))
    yield importlib.import_module
    sys.path.remove(str(BRIDGES))
    for name in {path.stem for path in BRIDGES.glob("*.py")} - before:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def losses(loops):
    return loops("with_attnc").train(40)


def test_it_learns(losses):
    assert losses[0] == pytest.approx(np.log(12), rel=0.05)
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_same_losses(library, loops, losses):
    """Rounding alone sets them apart, and what 40 steps of Adam make of it."""
    pytest.importorskip(library)
    np.testing.assert_allclose(loops(f"with_{library}").train(40), losses, rtol=1e-3)


@pytest.mark.parametrize("library", ["attnc", *LIBRARIES])
def test_a_loop_is_a_program(library):
    """It prints what it reached; shown by fewer steps."""
    if library != "attnc":
        pytest.importorskip(library)
    code = f"import with_{library} as loop; loop.show(loop.train(20))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BRIDGES, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"loss 2\.50 at first, [12]\.\d\d at last\n", done.stdout)

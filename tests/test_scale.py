"""The example that draws what 1/sqrt(d_k) does for the softmax."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import scale  # noqa: E402


def test_a_quick_run_prints_a_table_and_draws_it(tmp_path):
    command = [sys.executable, EXAMPLES / "scale.py", "--quick", "--output", tmp_path / "a.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert done.stdout.count("d_k = 1024 ") == 2 and "256 queries" in done.stdout


@pytest.mark.parametrize("size", [4, 64, 1024])
def test_the_deviation_of_scores(rng, size):
    """That of 65,536 products of normal numbers; a product has the kurtosis 3 + 6 / size."""
    for factor, expected in ((None, 1), (1.0, size**0.5)):
        scores, largest, norms = scale.measure(rng, size, factor, batch=64)
        assert scores.shape == (2048, 32) and largest.shape == norms.shape == (2048,)
        np.testing.assert_allclose(scores.std(), expected, rtol=0.05)


def test_equal_scores(rng):
    """All weights are 1/32, and the gradient is that of the weights less its mean, by 32."""
    scores, largest, norms = scale.measure(rng, 16, 0.0, batch=64)
    assert not scores.any() and (largest == 1 / 32).all()
    np.testing.assert_allclose(np.square(32 * norms).mean(), 31 / 32, rtol=0.01)


def test_without_the_factor_the_softmax_is_saturated(rng):
    def medians(size, factor):
        _, *columns = scale.measure(rng, size, factor, batch=8)
        return np.median(columns, axis=1)

    np.testing.assert_allclose(medians(1024, None), medians(4, None), rtol=0.3)
    (_, small_norm), (largest, norm) = medians(4, 1.0), medians(1024, 1.0)
    assert largest > 0.99 and norm < small_norm / 100


def test_the_picture_shows_medians(rng, tmp_path):
    found = {
        name: [scale.measure(rng, 4, factor, batch=1) for _ in scale.SIZES]
        for name, factor in scale.SCALES.items()
    }
    axes = scale.draw(found, tmp_path / "a.png")
    for ax, column in zip(axes, (1, 2), strict=True):
        for line, rows in zip(ax.lines, found.values(), strict=False):
            medians = [np.median(row[column]) for row in rows]
            np.testing.assert_allclose(line.get_ydata(), medians)
            assert line.get_xdata().tolist() == scale.SIZES.tolist()
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == [
        r"scores divided by $\sqrt{d_k}$",
        "scores as they are",
    ]
    scale.plt.close("all")

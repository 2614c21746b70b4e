"""The example that draws why attention exists."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import why_attention  # noqa: E402

import attnc  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_quick_run_draws_three_pictures(tmp_path):
    command = [sys.executable, EXAMPLES / "why_attention.py", "--quick", "--steps", "20"]
    done = subprocess.run(
        [*command, "--output", tmp_path / "pictures"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == ["distance.png", "length.png", "position.png"]
    for name in pictures:
        assert (tmp_path / "pictures" / name).read_bytes().startswith(PNG)
        assert name in done.stdout
    assert "with attention: " in done.stdout and "free running: " in done.stdout


def test_sentences_are_turned_round():
    source, lengths, target = why_attention.sentences(np.random.default_rng(0), [3, 1])
    assert lengths.tolist() == [3, 1] and source[1, 1:].tolist() == [0, 0]
    start, *words, end = target[0]
    assert (start, end) == (why_attention.START, why_attention.END)
    assert words == source[0, ::-1].tolist()
    assert target[1].tolist() == [why_attention.START, source[1, 0], why_attention.END, 0, 0]


def test_attention_has_no_steps_between(rng):
    norms = why_attention.gradient_by_distance(rng, 16, np.arange(31), batch=8)
    assert norms["RNN"][30] < norms["LSTM"][30] < norms["attention"][30]
    assert norms["attention"][30] > norms["attention"][1] / 3


def test_a_model_that_knows_nothing_makes_every_mistake(rng):
    model = why_attention.make("additive", 8, rng)
    assert why_attention.accuracy_by_length(model, rng, [6], 20) == [0]
    errors = why_attention.error_by_position(model, rng, 6, 20)
    assert all(shares.shape == (7,) and shares.mean() > 0.5 for shares in errors.values())
    assert isinstance(model, attnc.Seq2Seq)


@pytest.mark.parametrize("wrong", ["--steps=0", "--steps=-1", "--steps=x", "--seed=-1"])
def test_wrong_arguments(wrong):
    command = [sys.executable, EXAMPLES / "why_attention.py", wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and wrong.partition("=")[0] in done.stderr

"""The example that puts soft attention and hard attention side by side."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import cards  # noqa: E402
import soft_vs_hard  # noqa: E402
import soft_vs_hard_results as results  # noqa: E402

from attnc import estimators  # noqa: E402


def test_a_quick_run_prints_its_tables_and_draws(tmp_path):
    program = EXAMPLES / "soft_vs_hard.py"
    command = [sys.executable, program, "--quick", "--output", tmp_path / "a.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for name in soft_vs_hard.WAYS:
        assert done.stdout.count(f"\n{name} ") == 2, name
    assert "nan" not in done.stdout and "Of these the least noise" in done.stdout


def test_wrong_options():
    command = [sys.executable, EXAMPLES / "soft_vs_hard.py", "--steps", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "argument --steps: must be a number from 1" in done.stderr


def test_a_deck(rng):
    deck, other = cards.Deck(True, 0), cards.Deck(False, 0)
    assert len(deck.images) + len(other.images) == 1797 and len(other.images) == cards.TEST
    left, right, names, place, numbers = deck.deal(rng, 50)
    assert left.shape == right.shape == (50, cards.CARDS, cards.PIXELS)
    assert 0 <= place.min() and place.max() < cards.CARDS and left.max() <= 1
    # the asked-for card, by its pixels among all digits
    pixels = {image.tobytes(): label for image, label in zip(deck.images, deck.labels, strict=True)}
    lefts = np.array([[pixels[card.tobytes()] for card in row] for row in left])
    assert all(len(set(row)) == cards.CARDS for row in lefts), "no name twice"
    np.testing.assert_array_equal(lefts[np.arange(50), place], names)
    asked = right[np.arange(50), place]
    assert [pixels[card.tobytes()] for card in asked] == numbers.tolist()


@pytest.mark.parametrize("name", ["soft", "straight-through", "Gumbel-softmax"])
def test_gradients_of_all_parameters(name, rng):
    """With fixed draws, by differences; of a straight-through step but for what it is not."""
    model, deck = cards.Reader(rng, 4, 5, "float64"), cards.Deck(True, 0)
    question = deck.deal(rng, 6)
    way = soft_vs_hard.WAYS[name]()
    for layer in model.layers:
        layer.zero_grad()
    soft_vs_hard.step(way, model, question, rng=3)
    layers = model.layers if name != "straight-through" else model.layers[2:]
    gradients = [{key: x.copy() for key, x in layer.gradients.items()} for layer in layers]
    for layer, gradient in zip(layers, gradients, strict=True):
        for key, x in layer.parameters.items():
            place = np.unravel_index(np.abs(gradient[key]).argmax(), x.shape)
            found, kept = [], x[place]
            for sign in (1, -1):
                x[place] = kept + sign * 1e-6
                found.append(soft_vs_hard.step(way, model, question, rng=3))
            x[place] = kept
            difference = (found[0] - found[1]) / 2e-6
            np.testing.assert_allclose(gradient[key][place], difference, rtol=1e-5, atol=1e-9)


def test_reinforce_is_right_on_average(rng):
    model, deck = cards.Reader(rng), cards.Deck(True, 0)
    errors = soft_vs_hard.gradient_errors(model, deck.deal(rng, 4), 400, 1)
    for name in ("REINFORCE", "  moving average", "  leave-one-out"):
        assert errors[name].bias < 3.5 * errors[name].standard_error, name
    assert errors["soft"].variance == 0 < errors["straight-through"].variance
    assert errors["  leave-one-out"].variance < errors["REINFORCE"].variance / 4


def test_conclusions_say_what_was_found():
    exact = estimators.GradientError(0.8, 0, 0, 2)
    noisy, less = (estimators.GradientError(0.1, 0.1, v, 2) for v in (16, 4))
    off = estimators.GradientError(1, 0.1, 4, 2)
    curve = np.array([[10, 0.5, 0.6], [20, 0.75, 0.9]])
    trained = {"soft": (None, curve, 1), "a": (None, curve / 2, 1)}
    text = "\n".join(
        results.conclusions(trained, {"soft": exact, "a": noisy, "  b": less, "c": off})
    )
    assert "40% off" in text and "if not by none at all: a, b." in text
    assert "least noise has b, 100%, and the most a, 200%" in text
    assert "most by soft, 75.0%, fewest by a, 37.5%" in text

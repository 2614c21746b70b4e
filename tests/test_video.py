"""The example that writes what a clip shows: its clips, its models, its tables and pictures."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from layer_checks import randomize

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import canvases  # noqa: E402
import clips as data  # noqa: E402
import video  # noqa: E402
import video_model as models  # noqa: E402
import video_results as results  # noqa: E402
from training import Course  # noqa: E402

import attnc  # noqa: E402

every = pytest.mark.parametrize("way", models.WAYS)


@pytest.fixture(scope="module")
def digits():
    return canvases.split()["test"]


# ---- The command ---------------------------------------------------------------------------------


def test_a_quick_run_prints_tables_and_draws(tmp_path):
    command = [sys.executable, EXAMPLES / "video.py", "--quick", "--output", tmp_path / "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a" / "wrong.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for way in models.WAYS:
        assert done.stdout.count(f"\n{way} ") == 2, way
    assert "nan" not in done.stdout and "first direction: before the turn" in done.stdout


@pytest.mark.parametrize("wrong", ["--steps=0", "--seeds=0", "--rate=x", "--way=other"])
def test_wrong_arguments(wrong, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["video.py", "--quick", wrong])
    with pytest.raises(SystemExit) as end:
        video.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and said.startswith("video.py: ") and wrong[2:5] in said


def test_where_each_word_looks(digits, rng):
    """Weights that are put where they should be, and one word's at a wrong time."""
    clips = data.Clips(*digits).draw(rng, 40)
    weights = np.zeros((40, data.LENGTH + 1, data.MOVES, data.GRID**2))
    moved = []  # in the third move, of those that also stay
    for n, clip in enumerate(zip(clips.words, clips.turn, clips.moving, strict=True)):
        words, turn, moving = clip
        row, column = (moving[3] + 4) // 4  # the middle of the digit in the third move
        said = data.text(words).replace(",", "").split()
        weights[n, 1, 2, 6 * row + column] = 1
        weights[n, said.index("then") - 1, turn - 1] = 1 / 36
        weights[n, 5, turn - 1] = 1 / 36
        moved += [turn <= 2 if said[2] == "stays" else turn > 2] if "stays" in said else []
    found = results.where(weights, clips)
    (first, chance), (second, other), (mover, part), (still, _), (moves, _) = found.values()
    np.testing.assert_allclose([first, second, mover, still], [1, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(chance, clips.turn.mean() / data.MOVES)
    np.testing.assert_allclose(chance + other, 1)
    assert 4 / 36 <= part <= 9 / 36
    assert 0 < moves < 1
    np.testing.assert_allclose(moves, np.mean(moved))


@pytest.mark.long
def test_attention_learns_directions_and_the_mean_not_so_soon():
    """In a sixth of the steps of the command; the digits take the others."""
    course = Course(steps=400, batch=32, rate=0.004)
    attends, mean = (video.train(way, course, 0, 400) for way in ("attention", "mean"))
    _, first, then, second = attends.words
    assert min(first, then, second) > 0.95
    assert mean.words[1] < first - 0.1 and mean.words[3] < second - 0.1
    (before, _), (after, _), *_ = attends.looks.values()
    assert before > 0.85 and after > 0.85


# ---- Clips, by a reader who knows the answer -----------------------------------------------------


def test_captions_say_what_the_positions_say(digits, rng):
    known = {image.tobytes(): label for image, label in zip(*digits, strict=True)}
    clips = data.Clips(*digits).draw(rng, 300)
    names = "zero one two three four five six seven eight nine".split()
    seen = set()
    for frames, words, turn, moving, still in zip(*clips, strict=True):
        steps = [tuple(step) for step in np.diff(moving, axis=0)]
        said = []
        for move in (steps[0], steps[-1]):
            down, right = move
            assert sorted(map(abs, move)) in ([0, 2], [0, 0])
            said.append({(-2, 0): "up", (2, 0): "down", (0, -2): "left", (0, 2): "right"}.get(move))
            assert (down, right) == (0, 0) or said[-1]
        assert steps == [steps[0]] * turn + [steps[-1]] * (8 - turn) and 2 <= turn <= 6
        assert steps[0] != steps[-1]
        (y, x), (v, u) = moving[0], still
        digit = known[np.ascontiguousarray(frames[0, y : y + 8, x : x + 8]).tobytes()]
        first = f"moves {said[0]}" if said[0] else "stays"
        second = (said[1] if said[0] else f"moves {said[1]}") if said[1] else "stays"
        article = "an" if names[digit][0] in "aeiou" and digit != 1 else "a"
        assert data.text(words) == f"{article} {names[digit]} {first}, then {second}"
        seen.add((digit, *said))
        for frame, (y, x) in zip(frames.copy(), moving, strict=True):  # and nothing else is there
            assert known[np.ascontiguousarray(frame[y : y + 8, x : x + 8]).tobytes()] == digit
            assert np.ascontiguousarray(frame[v : v + 8, u : u + 8]).tobytes() in known
            frame[y : y + 8, x : x + 8] = frame[v : v + 8, u : u + 8] = 0
            assert not frame.any()
    assert {digit for digit, *_ in seen} == set(range(10))
    assert len({tuple(said) for _, *said in seen}) == 20


def test_every_way_to_move_has_a_caption_of_its_own():
    pairs = [(a, b) for a in data.DIRECTIONS for b in data.DIRECTIONS if a != b]
    said = [data.caption(digit, *pair) for digit in range(10) for pair in pairs]
    assert len({" ".join(words) for words in said}) == len(said) == 200
    assert {len(words) for words in said} == {data.LENGTH}
    assert data.text([*map(data.WORDS.index, said[0]), 0, 5]) == "a zero moves up, then down"


def test_slots():
    numbers = [[*map(data.WORDS.index, said), data.END] for said in (
        data.caption(8, "stays", "left"), data.caption(1, "down", "stays"))]  # fmt: skip
    found = np.take_along_axis(np.array(numbers), data.slots(np.array(numbers)), axis=1)
    assert [[data.WORDS[n] for n in row] for row in found] == [
        ["eight", "stays", "then", "left"],
        ["one", "down", "then", "stays"],
    ]


def test_cells(rng):
    corners = rng.integers(0, data.SIZE - 8 + 1, (30, 2))
    for corner, found in zip(corners, data.cells(corners), strict=True):
        image = np.zeros((data.SIZE, data.SIZE))
        image[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8] = 1
        wanted = image.reshape(6, 4, 6, 4).any(axis=(1, 3))
        np.testing.assert_array_equal(found, wanted.ravel())


# ---- Models --------------------------------------------------------------------------------------


@every
def test_gradients(way, digits, rng):
    """Of every parameter, against differences."""
    model = models.Captioner(way, 6, np.random.default_rng(0), "float64")
    randomize(model, rng, 0.1)
    clips = data.Clips(*digits).draw(rng, 2)
    inputs = clips.frames.astype(float), clips.words
    logits, pullback = attnc.vjp(model, *inputs)
    dlogits = rng.standard_normal(logits.shape)
    pullback(dlogits)
    got = {name: g.copy() for name, g in model.gradients.items()}
    for name, value in model.state_dict().items():
        step, found = rng.standard_normal(value.shape), []
        for h in (1e-6, -1e-6):
            model.parameters[name] = value + h * step
            found.append((model(*inputs) * dlogits).sum())
        model.parameters[name] = value
        wanted = (found[0] - found[1]) / 2e-6
        np.testing.assert_allclose((got[name] * step).sum(), wanted, rtol=1e-5, atol=1e-5)


@every
def test_all_have_as_many_parameters(way):
    wanted = models.matched("attention").parameter_count
    assert abs(models.matched(way).parameter_count / wanted - 1) < 0.02


@every
def test_writing(way, digits, rng):
    """In parts as at once; each word is the likeliest after those before."""
    model, clips = models.matched(way, np.random.default_rng(0)), data.Clips(*digits).draw(rng, 5)
    words, weights = models.write(model, clips.frames, batch=2)
    assert words.shape == (5, data.LENGTH + 1)
    before = np.concatenate([np.full((5, 1), data.END), words[:, :-1]], axis=1)
    going = (before[:, 1:] != data.END).cumprod(axis=1)
    likeliest = model(clips.frames, before).argmax(axis=-1)
    np.testing.assert_array_equal(words[:, 0], likeliest[:, 0])
    np.testing.assert_array_equal(words[:, 1:], np.where(going, likeliest[:, 1:], data.END))
    assert (weights is None) == (way != "attention")
    if weights is not None:
        sums = weights.sum(axis=(2, 3))
        np.testing.assert_allclose(sums[:, 0], 1, rtol=1e-5)
        np.testing.assert_allclose(sums[:, 1:], going, atol=1e-5)

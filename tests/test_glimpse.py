"""The example that learns where to look next."""

import pathlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from layer_checks import randomize

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import canvases as data  # noqa: E402
import convolution  # noqa: E402
import glimpse  # noqa: E402
import glimpse_learning as learning  # noqa: E402
import glimpse_results as results  # noqa: E402
import glimpse_training as training  # noqa: E402
from glimpse_model import HardLooker, SoftLooker  # noqa: E402
from sensor import GaussianRead, Retina, pixels, regions  # noqa: E402

import attnc  # noqa: E402


def settings(**given):
    usual = {
        "looks": 3, "width": 4, "scales": 2, "reward": "confidence", "stop": None, "digits": 1,
        "size": 16, "look_back": False, "pieces": 2, "steps": 16, "units": 16, "checked": 100,
    }  # fmt: skip
    return SimpleNamespace(**usual | given)


def check_gradient(evaluate, value, gradient, rng, tolerance=1e-7, h=1e-5):
    """A float64 gradient against central differences in one random direction, value restored."""
    direction = rng.standard_normal(value.shape)
    kept, found = value.copy(), []
    for step in (h, -h):
        value[...] = kept + step * direction
        found.append(evaluate())
    value[...] = kept
    numeric, analytic = (found[0] - found[1]) / (2 * h), (gradient * direction).sum()
    assert abs(numeric - analytic) <= tolerance * (1 + abs(analytic)), (numeric, analytic)


# ---- The command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [["--stop=0.01", "--look-back", "--reward=class"], ["--attention=soft", "--seeds=2"]],
)
def test_a_quick_run_reports_and_draws(options, tmp_path):
    command = [sys.executable, EXAMPLES / "glimpse.py", "--quick", "--output", tmp_path / "a"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kinds = glimpse.KINDS[next((o[12:] for o in options if "attention" in o), "both")]
    pictures = {"learning.png", "costs.png"}
    pictures |= {"looks.png"} if "learned" in kinds else set()
    pictures |= {"soft.png"} if "soft" in kinds else set()
    assert {path.name for path in (tmp_path / "a").iterdir()} == pictures
    for name in pictures:
        assert (tmp_path / "a" / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    seeds = ["seed 0", "seed 1", "mean"] if "--seeds=2" in options else ["seed 0"]
    for text in (*(results.NAMES[kind] for kind in kinds), *seeds, *pictures):
        assert text in done.stdout, text


@pytest.mark.parametrize(
    "wrong",
    ["--steps=0", "--steps=x", "--attention=both-of-them", "--size=20", "--scales=4", "--stop=-1",
     "--width=0", "--stop=nan", "--stop=0.1 --digits=2"],
)  # fmt: skip
def test_wrong_arguments(wrong, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["glimpse.py", *wrong.split()])
    with pytest.raises(SystemExit) as end:
        glimpse.read_settings()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and said.startswith("glimpse.py: ") and wrong[2:6] in said


def test_an_error_is_a_line(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, EXAMPLES / "glimpse.py", "--quick", f"--output={tmp_path}/file"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and len(done.stderr.splitlines()) == 1
    assert "glimpse.py: " in done.stderr and "file" in done.stderr


# ---- Canvases ------------------------------------------------------------------------------------


def test_no_digit_is_in_two_parts():
    parts = data.split()
    sizes = {name: len(labels) for name, (_, labels) in parts.items()}
    assert sizes == {"test": 400, "validation": 200, "training": 1197}
    seen = [{image.tobytes() for image in images} for images, _ in parts.values()]
    assert len(set().union(*seen)) == sum(map(len, seen))
    for images, labels in parts.values():
        assert 0 <= images.min() and images.max() == 1 and set(labels) == set(range(10))


def test_digits_lie_where_it_is_said(rng):
    images, labels = data.split()["test"]
    canvases = data.Canvases(images, labels, size=40, digits=3, pieces=0)
    drawn, asked, places = canvases.draw(rng, 20)
    known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for canvas, row, where in zip(drawn, asked, places, strict=True):
        assert (np.diff(where[:, 1]) >= 0).all()  # from left to right
        for label, (y, x) in zip(row, where.astype(int), strict=True):
            square = canvas[y - 4 : y + 4, x - 4 : x + 4]
            assert known[np.ascontiguousarray(square).tobytes()] == label
            canvas[y - 4 : y + 4, x - 4 : x + 4] = 0
        assert not canvas.any()


def test_clutter_is_of_the_same_part_and_hides_no_digit():
    part = data.split()["validation"]
    canvases = data.Canvases(*part, pieces=6)
    drawn, labels, places = canvases.draw(np.random.default_rng(3), 50)
    again = canvases.draw(np.random.default_rng(3), 50)
    np.testing.assert_array_equal(drawn, again[0])
    bare = data.Canvases(*part, pieces=0)
    for canvas, label, (y, x) in zip(drawn, labels[:, 0], places[:, 0].astype(int), strict=True):
        square = canvas[y - 4 : y + 4, x - 4 : x + 4]
        whole = [n for n, image in enumerate(part[0]) if (square >= image).all()]
        assert label in part[1][whole]
        assert np.count_nonzero(canvas) <= np.count_nonzero(square) + 6 * 9
    assert bare.draw(np.random.default_rng(3), 50)[0].sum() < drawn.sum()


# ---- Sensors -------------------------------------------------------------------------------------


def test_retina_by_hand():
    image = np.arange(16.0).reshape(1, 4, 4)
    look = Retina(2, 2).open(image)
    sharp, coarse = look(np.zeros((1, 2)))[0]
    np.testing.assert_allclose(sharp, [[5, 6], [9, 10]])
    np.testing.assert_allclose(coarse, [[2.5, 4.5], [10.5, 12.5]])  # of 0, 1, 4 and 5 it is 2.5
    corner = look(-np.ones((1, 2)))[0, 0]  # three of four pixels are beyond the image
    np.testing.assert_allclose(corner, [[0, 0], [0, 0]])
    np.testing.assert_allclose(look(np.full((1, 2), -0.5))[0, 0], [[0, 1], [4, 5]])


@pytest.mark.parametrize("width, scales", [(6, 3), (5, 3), (4, 1)])
def test_retina_against_padded_squares(rng, width, scales):
    images, places = rng.random((40, 12, 20)), rng.uniform(-1, 1, (40, 2))
    seen = Retina(width, scales).open(images)(places)
    padded = np.pad(images, ((0, 0), (40, 40), (40, 40)))
    for n, (y, x) in enumerate(pixels(places, (12, 20)) + 40):
        for scale in range(scales):
            side = 2**scale
            top, left = y - side * width // 2, x - side * width // 2
            square = padded[n, top : top + side * width, left : left + side * width]
            means = square.reshape(width, side, width, side).mean(axis=(1, 3))
            np.testing.assert_allclose(seen[n, scale], means, atol=1e-12)


def test_regions_cover_the_image():
    for size, width in ((32, 8), (30, 8), (16, 5)):
        seen = np.zeros((size, size), bool)
        half = -(-size // -(-size // width)) / 2
        for y, x in (regions(size, width) + 1) / 2 * size:
            seen[int(y - half) : int(np.ceil(y + half)), int(x - half) : int(np.ceil(x + half))] = 1
        assert seen.all()


def test_gaussian_read(rng):
    images = rng.random((3, 16, 16))
    where = np.array([[0, 0, 0, -5.0, 0]] * 3)  # a filter a pixel, each narrow
    seen, _ = GaussianRead(16).read(images, where)
    np.testing.assert_allclose(seen, images, atol=1e-12)
    where = np.array([[0.25, -0.5, np.log(0.25), -5.0, -np.log(4)]] * 3)  # a quarter of it
    seen, _ = GaussianRead(4).read(images, where)
    np.testing.assert_allclose(seen, images[:, 8:12, 2:6], atol=1e-12)
    far = np.array([[40.0, -30, 0, -5, 0]] * 3)  # beyond the image: its last pixels
    assert np.isfinite(GaussianRead(4).read(images, far)[0]).all()

    where, dseen = 0.3 * rng.standard_normal((3, 5)), rng.standard_normal((3, 5, 5))
    read = GaussianRead(5)
    _, pullback = read.read(images, where)
    check_gradient(lambda: (read.read(images, where)[0] * dseen).sum(), where, pullback(dseen), rng)


# ---- The convolutional network -------------------------------------------------------------------


@pytest.mark.parametrize("digits", [1, 2])
def test_convolutional_network(rng, digits):
    model = convolution.ConvolutionalNetwork(16, digits, 10, 16_000, rng, dtype="float64")
    assert abs(model.parameter_count - 16_000) < 200
    assert model.products(32) > 3.5 * model.products(16)
    randomize(model, rng, 0.05)
    images, dlogits = rng.random((3, 16, 16)), rng.standard_normal((3, digits, 10))
    logits, pullback = attnc.vjp(model, images)
    assert logits.shape == (3, digits, 10)
    pullback(dlogits)
    for name, gradient in model.gradients.items():
        # Of thousands of pixels one is easily within 1e-5 of another that is as large, or of 0.
        check_gradient(
            lambda: (model(images) * dlogits).sum(), model.parameters[name], gradient, rng, h=1e-7
        )


# ---- Gradients of the models ---------------------------------------------------------------------

AIMING = ("hidden", "aim", "baseline", "stop_baseline")


def hard_looker(rng, **options):
    looks = 3 * options.get("digits", 1)
    made = HardLooker(Retina(4, 2), looks, 8, rng=rng, dtype="float64", **options)
    return randomize(made, rng, 0.1)


@pytest.mark.parametrize("options", [{}, {"digits": 2}, {"look_back": True}])
def test_the_label_trains_all_but_the_aim(rng, options):
    """By differences with given places, and no gradient at all for what aims."""
    model, images = hard_looker(rng, **options), rng.random((5, 16, 16))
    places = rng.uniform(-1, 1, (model.looks, 5, 2))

    def choose(number, means):
        return places[number]

    looks, pullback = attnc.vjp(model, images, choose)
    dlogits = rng.standard_normal(looks.logits.shape)
    pullback(dlogits)
    for name, gradient in model.gradients.items():
        if name.startswith(AIMING):
            assert not gradient.any(), name
        else:
            assert gradient.any(), name
            check_gradient(
                lambda: (model(images, choose).logits * dlogits).sum(),
                model.parameters[name], gradient, rng,
            )  # fmt: skip


def test_reinforce_trains_the_aim_alone(rng):
    model, images = hard_looker(rng), rng.random((5, 16, 16))
    places = rng.uniform(-1, 1, (3, 5, 2))

    def choose(number, means):
        return places[number]

    looks, pullback = attnc.vjp(model, images, choose)
    dmeans, dstops = (rng.standard_normal(x.shape) for x in (looks.means, looks.stops))
    pullback(None, dmeans, dstops)

    def weighted():
        found = model(images, choose)
        return (found.means * dmeans).sum() + (found.stops * dstops).sum()

    for name, gradient in model.gradients.items():
        if name.startswith(("hidden", "aim")):
            check_gradient(weighted, model.parameters[name], gradient, rng)
        else:  # the state is detached
            assert not gradient.any(), name
    # The last look aims at nothing: that there is no gradient of it changes nothing.
    assert looks.means.shape == (5, 2, 2) and looks.places.shape == (5, 3, 2)


def test_the_choice_is_a_constant(rng):
    """The gradient is the same whether places are drawn from the means or given: detached."""
    model, images = hard_looker(rng), rng.random((5, 16, 16))
    noise = 0.3 * rng.standard_normal((3, 5, 2))
    dlogits = rng.standard_normal((5, 3, 10))

    def drawn(number, means):
        return noise[number] + (0 if means is None else means)

    looks, pullback = attnc.vjp(model, images, drawn)
    pullback(dlogits)
    first = {name: gradient.copy() for name, gradient in model.gradients.items()}
    model.zero_grad()
    again, pullback = attnc.vjp(model, images, lambda number, means: looks.places[:, number])
    pullback(dlogits)
    np.testing.assert_array_equal(again.logits, looks.logits)
    for name, gradient in model.gradients.items():
        np.testing.assert_array_equal(gradient, first[name], err_msg=name)
    # Beyond the image it looks at its edge, and the place is kept as drawn, for its probability.
    assert np.abs(looks.places - np.swapaxes(noise, 0, 1))[:, 0].max() == 0


@pytest.mark.parametrize("options", [{}, {"digits": 2}, {"look_back": True}])
def test_the_soft_twin_is_differentiable(rng, options):
    looks = 2 * options.get("digits", 1)
    model = SoftLooker(GaussianRead(4), looks, 16, rng=rng, dtype="float64", **options)
    randomize(model, rng, 0.03)
    images = rng.random((5, 16, 16))
    found, pullback = attnc.vjp(model, images)
    dlogits = rng.standard_normal(found.logits.shape)
    pullback(dlogits)
    for name, gradient in model.gradients.items():
        assert gradient.any(), name
        check_gradient(
            lambda: (model(images).logits * dlogits).sum(), model.parameters[name], gradient, rng
        )


def test_a_look_back_sees_glimpses_so_far(rng):
    model, images = hard_looker(rng, look_back=True), rng.random((5, 16, 16))
    places = rng.uniform(-1, 1, (3, 5, 2))
    looks = model(images, lambda number, means: places[number])
    weights = looks.recalled
    np.testing.assert_allclose(weights.sum(axis=2), 1)
    assert not np.triu(weights, 1).any()


# ---- REINFORCE -----------------------------------------------------------------------------------


def test_aim_gradient_is_that_of_the_surrogate(rng):
    places, means, advantage = (rng.standard_normal(s) for s in ((6, 3, 2), (6, 3, 2), (6, 3)))
    gradient = learning.aim_gradient(places, means, 0.3, advantage)
    check_gradient(
        lambda: -(advantage * learning.log_probability(places, means, 0.3)).sum() / 6,
        means, gradient, rng,
    )  # fmt: skip


@pytest.mark.parametrize("baseline", [0.0, 1.7])
def test_aim_gradient_is_right_on_average(baseline):
    """Over all places, by Gauss-Hermite quadrature: exact for a reward that is a polynomial."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    grid = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    share = np.outer(weights, weights).ravel() / weights.sum() ** 2
    mean, deviation = np.array([0.2, -0.4]), 0.3

    def reward(places):
        y, x = places[..., 0], places[..., 1]
        return 1 - y**2 + 2 * y * x - x**3

    places = mean + deviation * grid
    means = np.broadcast_to(mean, places.shape)
    each = learning.aim_gradient(places, means, deviation, reward(places) - baseline)
    average = (share[:, None] * each * len(places)).sum(axis=0)
    s2 = deviation**2  # E of the reward: 1 - (m^2 + s^2) + 2 m n - (n^3 + 3 n s^2)
    exact = np.array([-2 * mean[0] + 2 * mean[1], 2 * mean[0] - 3 * mean[1] ** 2 - 3 * s2])
    np.testing.assert_allclose(average, -exact, atol=1e-12)


def test_log_probability_by_hand():
    found = learning.log_probability(np.array([0.3, 0.0]), np.zeros(2), 0.3)
    np.testing.assert_allclose(np.exp(found), np.exp(-0.5) / (2 * np.pi * 0.09))


def test_stop_gradient_is_right_on_average(rng):
    """By enumeration of all looks at which to stop."""
    stops, worth = rng.standard_normal((1, 3)), rng.standard_normal(4)

    def chances():
        enough = 1 / (1 + np.exp(-stops[0]))
        before = np.concatenate([[1], np.cumprod(1 - enough)])
        return before * np.append(enough, 1)

    baseline = rng.standard_normal((1, 3))
    average = sum(
        chance * learning.stop_gradient(stops, np.array([last]), worth[last] - baseline)
        for last, chance in enumerate(chances())
    )
    np.testing.assert_allclose(chances().sum(), 1)
    check_gradient(lambda: -(chances() * worth).sum(), stops, average, rng)
    many = learning.last_looks(rng, np.repeat(stops, 20_000, axis=0))
    shares = np.bincount(many, minlength=4) / len(many)
    np.testing.assert_allclose(shares, chances(), atol=0.02)


def test_rewards_by_hand():
    logits = np.log(np.array([[[0.5, 0.5], [0.25, 0.75], [0.1, 0.9], [0.6, 0.4]]]))
    one, two = np.array([[1, 1, 1, 1]]), np.array([[0, 0, 1, 1]])
    confidence, right = (
        lambda targets, digits, kind=kind: learning.rewards(kind, logits, targets, digits)
        for kind in ("confidence", "class")
    )
    np.testing.assert_allclose(confidence(one, 1), [[0.25, 0.15, -0.5]])
    np.testing.assert_allclose(confidence(two, 2), [[-0.25, 0.15, -0.5]])
    np.testing.assert_array_equal(right(one, 1), [[0, 0, 0]])
    np.testing.assert_array_equal(right(1 - one, 1), [[1, 1, 1]])
    np.testing.assert_array_equal(right(two, 2), [[0, 0, 0]])


@pytest.mark.parametrize("options", [{}, {"reward": "class", "stop": 0.1}])
def test_one_step_of_learning(rng, options):
    """The gradients of a batch, put together by hand."""
    chosen = settings(**options)
    model, images = hard_looker(rng), rng.random((6, 16, 16))
    randomize(model, rng, 0.3)
    targets = np.repeat(rng.integers(10, size=(6, 1)), 3, axis=1)
    places = rng.uniform(-0.5, 0.5, (3, 6, 2))

    def choose(number, means):
        return places[number]

    learning.learn_hard(model, images, targets, choose, 0.2, chosen, np.random.default_rng(4))
    got = {name: gradient.copy() for name, gradient in model.gradients.items()}
    model.zero_grad()
    looks, pullback = attnc.vjp(model, images, choose)
    _, back = attnc.vjp(attnc.losses.softmax_cross_entropy, looks.logits, targets)
    reward = learning.rewards(chosen.reward, looks.logits, targets, 1)
    expected = model.baseline(looks.states[:, :-1])
    advantage = (reward - expected)[..., None] / 6
    dmeans = -advantage * (looks.places[:, 1:] - looks.means) / 0.2**2
    pullback(*back(), dmeans)
    for name, gradient in model.gradients.items():
        if name.startswith("baseline"):
            assert got[name].any()
        elif not name.startswith("stop") and not (chosen.stop and name.startswith(AIMING)):
            np.testing.assert_allclose(got[name], gradient, atol=1e-12, err_msg=name)
    assert got["stop_baseline.weight"].any() == (chosen.stop is not None)


# ---- Training and results ------------------------------------------------------------------------


def test_it_learns_to_look_at_the_digit():
    """Some seconds: without clutter, the second and third look come nearer to it."""
    chosen = settings(pieces=0, steps=200, units=32)
    trained = training.train("learned", chosen, 0)
    part = data.Canvases(*data.split()["validation"], 16, 1, 0)
    _, _, places = part.draw(np.random.default_rng([0, 99]), 500)
    found = training.test("learned", trained.model, chosen, part, 500, 0)
    where = (found.looks.places.clip(-1, 1) + 1) * 8
    distance = np.abs(where - places).max(axis=2).mean(axis=0)
    assert distance[1] < 0.75 * distance[0] and distance[2] < 0.6 * distance[0]
    assert found.error < 0.5 and trained.checks[-1][0] == 200


@pytest.mark.parametrize("kind", training.COURSES)
def test_the_same_seed_gives_the_same_model(kind):
    chosen = settings(digits=2, size=24)
    first, second = (training.train(kind, chosen, 5) for _ in range(2))
    assert [check[::2] for check in first.checks] == [check[::2] for check in second.checks]
    for name, parameter in first.model.parameters.items():
        np.testing.assert_array_equal(parameter, second.model.parameters[name])


def test_costs_by_hand(rng):
    model = HardLooker(Retina(4, 2), 3, 8, rng=rng)
    assert model.sensor.values == 32 and model.sensor.reach == 8
    layers = 32 * 4 + 2 * 4 + 8 * 8 + 16 * 8
    aims = (8 + 32 + 2) * 8 + 8 * 3
    assert model.products(64) == 3 * (layers + aims) + 80
    assert model.products(64, 2, aims=False) == 2 * layers + 80
    looks = SimpleNamespace(places=np.array([[[0, 0], [0, 0.25], [-1, -1]]], float))
    trained = SimpleNamespace(kind="learned", model=model)
    for last, area in ((0, 64), (1, 64 + 8 * 2), (2, 64 + 16 + 16)):
        found = SimpleNamespace(looks=looks, last=np.array([last]))
        assert results.covered(trained, found, 16) == area / 256
        assert results.values(trained, found, 16) == 32 * (last + 1)


def test_the_picture_of_looks(tmp_path):
    chosen = settings(stop=0.1)
    model = training.make("learned", chosen, np.random.default_rng(0))
    part = training.canvases(chosen, data.split()["test"])
    found = training.test("learned", model, chosen, part, 8, 0)
    trained = training.Trained("learned", model, [(1, 0.0, 0.5)], 0.0)
    axes = results.draw_looks(trained, found, tmp_path / "a.png", count=4)
    assert len(axes) == 4
    for row, last in zip(range(4), found.last, strict=False):
        path, *squares = axes[row, 0].lines[0].get_xydata(), *axes[row, 0].patches
        assert len(path) == len(squares) == last + 1
        where = (found.looks.places[row, : last + 1, ::-1].clip(-1, 1) + 1) * 8
        np.testing.assert_allclose(path, where)
        *others, right = (line.get_ydata() for line in axes[row, -1].lines)
        exponents = np.exp(found.looks.logits[row, : last + 1])
        sure = exponents / exponents.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(others, sure.T, rtol=1e-5)
        np.testing.assert_array_equal(right, others[found.labels[row, 0]])
    matplotlib.pyplot.close("all")

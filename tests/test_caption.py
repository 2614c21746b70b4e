"""The example of captions: its scenes, its models, what it measures of their mistakes."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from layer_checks import randomize

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
Image = pytest.importorskip("PIL.Image")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import caption  # noqa: E402
import caption_learning as learning  # noqa: E402
import caption_mistakes as mistakes  # noqa: E402
import caption_models as models  # noqa: E402
import caption_pictures as pictures  # noqa: E402
import caption_results as results  # noqa: E402
import scenes  # noqa: E402
from canvases import split  # noqa: E402
from caption_hard import HardDecoder  # noqa: E402

import attnc  # noqa: E402

KINDS = ["none", "soft", "hard"]


def run(*options, folder):
    command = [sys.executable, EXAMPLES / "caption.py", *options, "--output", folder]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# ---- The command ---------------------------------------------------------------------------------


def test_a_quick_run_reports_and_draws(tmp_path):
    done = run("--quick", folder=tmp_path / "a")
    assert done.returncode == 0, done.stderr
    for text in (*results.TITLES.values(), "1 digit", "4 digits", "wrong word", "at its digit"):
        assert text in done.stdout, text
    drawn = sorted((tmp_path / "a").iterdir())
    assert {"soft-wrong.png", "hard-wrong.png"} <= {path.name for path in drawn}
    for path in drawn:
        assert str(path) in done.stdout
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_pictures_of_ones_own(tmp_path, rng):
    lines = []
    for n in range(24):
        shape = rng.integers(3, 50, 2)
        pixels = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
        lines.append(f"{n}.png\tA picture, {'wide' if shape[1] > shape[0] else 'high'}.")
    (tmp_path / "captions.txt").write_text("\n".join(lines))
    told = ["--images", tmp_path, "--captions", tmp_path / "captions.txt"]
    done = run("--quick", "--attention=soft", *told, folder=tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert "held out" in done.stdout and "the most frequent caption" in done.stdout
    (tmp_path / "captions.txt").write_text("\n".join([*lines, "none.png\tNothing."]))
    done = run("--quick", *told, folder=tmp_path / "a")
    assert done.returncode == 1 and "none.png" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [["--steps=0"], ["--seeds=x"], ["--images=x"], ["--captions=x"], ["--attention=x"],
     ["--everywhere=-1"], ["--stamps=fr", "--images=x", "--captions=y"]],
)  # fmt: skip
def test_wrong_arguments(wrong, tmp_path):
    done = run("--quick", *wrong, folder=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert wrong[0].partition("=")[0] in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.long
def test_attention_says_what_one_vector_does_not():
    """As the command does by default, with seed 0."""
    exact = {}
    for kind in KINDS:
        settings = type("Settings", (), {"steps": caption.STEPS, "tested": 500, "size": None})
        settings.stamps, settings.images, settings.seed, settings.everywhere = None, None, 0, 0
        exact[kind] = [found.exact.mean() for found in caption.run((0, kind), settings).found]
    assert np.mean(exact["soft"][:3]) > 0.88
    assert exact["none"][2] < exact["soft"][2] - 0.15
    assert exact["none"][2] < exact["hard"][2]


# ---- Scenes, by an independent reader ------------------------------------------------------------


def read(labels, places):
    """The caption of a scene by complex numbers: up is 1, to the right is i."""
    vectors = [complex(16 - row, column - 16) for row, column in places]
    order = sorted(range(len(labels)), key=lambda n: np.angle(vectors[n]) % (2 * np.pi))
    words, before = [], None
    for n in order:
        if before is not None:
            way = vectors[n] - vectors[before]
            quarter = round(np.angle(way) / (np.pi / 2)) % 4  # the next is up, right, down, left
            words.append(["below", "left of", "above", "right of"][quarter])
        name = "zero one two three four five six seven eight nine".split()[labels[n]]
        words += ["an" if name[0] in "aeiou" and name != "one" else "a", name]
        before = n
    return words


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_captions_are_exact(digits, rng):
    images, labels = split()["test"]
    batch = scenes.Scenes(images, labels).make(rng, [digits] * 100)
    known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for image, words, tokens, places in zip(
        batch.images[:, 0], batch.captions, batch.tokens, batch.places, strict=True
    ):
        corners = (places - 4).astype(int)
        seen = [known[image[r : r + 8, c : c + 8].tobytes()] for r, c in corners]
        shuffled = rng.permutation(digits)
        assert read(np.array(seen)[shuffled], places[shuffled]) == words
        assert image.sum() == pytest.approx(
            sum(image[r : r + 8, c : c + 8].sum() for r, c in corners)
        )
        assert scenes.WORDS.decode(tokens[1:]) == words and len(words) == 3 * digits - 1


def test_nothing_is_doubtful(rng):
    places = scenes.layouts(rng, 4, 300)
    for four in places:
        turns = [np.degrees(np.arctan2(c - 16, 16 - r)) % 360 for r, c in four]
        assert turns == sorted(turns) and min(np.diff([0, *turns, 360])) >= 15
        assert min(np.hypot(*(place - 16)) for place in four) >= 5
        for first, second in zip(four, four[1:], strict=False):
            down, right = np.abs(second - first)
            assert abs(down - right) >= 3


def test_all_relations_are_there_and_scenes_grow(rng):
    drawn = scenes.Scenes(*split()["training"])
    captions = drawn.draw(rng, 400).captions
    words = {word for words in captions for word in words}
    assert words == set(scenes.WORDS.words)
    assert {len(words) for words in captions} == {2, 5, 8, 11}
    assert {len(words) for words in drawn.draw(rng, 50, share=0.01).captions} == {2}


# ---- Models --------------------------------------------------------------------------------------


def small(kind, rng):
    model = models.Captioner(kind, 9, 1, 16, size=6, rng=0, dtype="float64")
    return randomize(model, rng, 0.05)


def directions(model, evaluate, rng):
    """Hold the gradients of a model against differences of a number, in one random direction."""
    got = {name: gradient.copy() for name, gradient in model.gradients.items()}
    assert sum(np.abs(g).max() > 0 for g in got.values()) > len(got) - 3  # all take part
    for name, value in model.state_dict().items():
        way, found = rng.standard_normal(value.shape), []
        for h in (1e-7, -1e-7):  # so near that a rectifier hardly ever turns in between
            model.parameters[name] = value + h * way
            found.append(evaluate())
        model.parameters[name] = value
        wanted = (found[0] - found[1]) / 2e-7
        np.testing.assert_allclose((got[name] * way).sum(), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind, rng):
    model = small(kind, rng)
    images, tokens = rng.random((3, 1, 16, 16)), rng.integers(0, 9, (3, 4))
    options = {"index": rng.integers(0, 64, (3, 4))} if kind == "hard" else {}
    written, pullback = attnc.vjp(model, images, tokens, **options)
    dlogits, *more = (
        rng.standard_normal(x.shape)
        for x in (written.logits, *(written.choices[2:] if options else [written.weights]))
    )

    def evaluate():
        found = model(images, tokens, **options)
        others = found.choices[2:] if options else [found.weights]
        return (found.logits * dlogits).sum() + sum(
            (x * d).sum() for x, d in zip(others, more, strict=True)
        )

    pullback(dlogits, *more)
    directions(model, evaluate, rng)


def test_soft_steps_of_the_hard_decoder(rng):
    """By its coin it computes, and differentiates, what a decoder with soft attention does."""
    hard = randomize(HardDecoder(4, 5, 6, soft=1, rng=0, dtype="float64"), rng)
    soft = attnc.AttentionDecoder(4, 5, 6, attention_size=8, cell="lstm", dtype="float64")
    names = {"cells.0": "cell.cells.0", "score": "choice.attention"}
    for name in soft.parameters:
        for theirs, ours in names.items():
            if name.startswith(theirs):
                soft.parameters[name] = hard.parameters[name.replace(theirs, ours, 1)]
    inputs, memory = rng.random((2, 3, 4)), rng.random((2, 7, 6))
    state = tuple(rng.random((2, 1, 2, 5)))
    one, one_back = attnc.vjp(hard, inputs, memory, state, train=True, rng=0)
    other, other_back = attnc.vjp(soft, inputs, memory, state)
    np.testing.assert_allclose(one.outputs, other.outputs, rtol=1e-12)
    assert (one.choices.index == -1).all()
    d = rng.random(one.outputs.shape)
    one, other = one_back(d), other_back(d)
    for name in ("inputs", "memory", "state"):
        for a, b in zip(one[name], other[name], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


def test_choices_by_enumeration(rng):
    """Gradients of the mean of a loss over all choices: of what is seen, and of the choosing."""
    decoder = randomize(HardDecoder(3, 4, 5, rng=0, dtype="float64"), rng)
    inputs, memory = rng.random((2, 1, 3)), rng.random((2, 3, 5))
    state, d = tuple(rng.random((2, 1, 2, 4))), rng.random((2, 1, 4))

    def mean(differentiate=False):
        total = 0
        for k in range(3):
            index = np.full((2, 1), k)
            found, pullback = attnc.vjp(decoder, inputs, memory, state, index=index)
            losses = (found.outputs * d).sum(axis=2)
            p = np.exp(found.choices.log_probability)
            total += (p * losses).sum()
            if differentiate:
                pullback(p[..., None] * d, p * losses, np.zeros_like(p))
        return total

    mean(differentiate=True)
    directions(decoder, mean, rng)


def test_decoding_step_by_step(rng):
    """What is written greedily is what a call finds for these words, at every kind."""
    images = rng.random((4, 1, 16, 16))
    for kind in KINDS:
        model = small(kind, rng)
        tokens, weights = model.write(images, scenes.WORDS, 5)
        before = np.concatenate([np.full((4, 1), scenes.WORDS.start), tokens[:, :-1]], axis=1)
        found = model(images, before)
        real = np.cumsum(before == scenes.WORDS.end, axis=1) == 0
        np.testing.assert_array_equal(tokens[real], found.logits.argmax(axis=-1)[real])
        np.testing.assert_allclose(weights[real], found.weights[real], rtol=1e-9, atol=1e-12)
        forced = [np.array([5, 6, 7]), np.array([8]), np.array([], int), np.array([4, 4])]
        again, _ = model.write(images, scenes.WORDS, 5, forced)
        assert [list(row[: len(f)]) for row, f in zip(again, forced, strict=True)] == [
            list(f) for f in forced
        ]
        assert (again[2, : tokens.shape[1]] == tokens[2, : again.shape[1]]).all()


def test_as_many_parameters():
    counts = [models.Captioner(kind, len(scenes.WORDS), rng=0).parameter_count for kind in KINDS]
    assert max(counts) < 1.02 * min(counts)


# ---- Learning ------------------------------------------------------------------------------------


def test_doubly_stochastic(rng):
    weights = rng.dirichlet(np.ones(4), size=(2, 3))
    real = np.array([[True, True, True], [True, False, False]])
    loss, gradient = learning.doubly_stochastic(weights, real)
    sums = [weights[0].sum(axis=0), weights[1, 0]]
    assert loss == pytest.approx(sum(((1 - s) ** 2).sum() for s in sums) / 4)
    way = rng.standard_normal(weights.shape)
    one, other = (learning.doubly_stochastic(weights + h * way, real)[0] for h in (1e-6, -1e-6))
    assert (gradient * way).sum() == pytest.approx((one - other) / 2e-6, rel=1e-6)
    even = np.full((1, 4, 4), 0.25)
    assert learning.doubly_stochastic(even, np.ones((1, 4), bool))[0] == 0


def test_rewards_are_of_the_words_to_come(rng):
    logits, targets = rng.standard_normal((2, 3, 5)), rng.integers(0, 5, (2, 3))
    real = np.array([[True, True, True], [True, True, False]])
    logs = np.log(np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True))
    each = [[logs[b, t, targets[b, t]] * real[b, t] for t in range(3)] for b in range(2)]
    wanted = [[sum(row[t:]) for t in range(3)] for row in each]
    np.testing.assert_allclose(learning.to_go(logits, targets, real), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_scenes_are_learnt_by_heart(kind):
    class Few:
        vocabulary, channels = scenes.WORDS, 1
        batch = scenes.Scenes(*split()["training"]).make(np.random.default_rng(0), [1] * 4)

        def draw(self, rng, count, share):
            return self.batch

    everywhere = 0.01 if kind == "soft" else 0.0
    course = learning.COURSE._replace(steps=200)
    _, checks = learning.train(kind, Few(), course, 0, everywhere, checks=6, size=32)
    assert checks[-1].loss < np.log(4) / 3 - 0.1  # without a look: one word of three is one of 4


# ---- What is measured ----------------------------------------------------------------------------


class Parrot:
    """A model that has one word wrong, and all behind it, unless it is put right."""

    kind = "soft"

    def __init__(self, batch):
        self.right = batch.tokens[:, 1:]
        self.weights = np.zeros((*self.right.shape, 64))

    def __call__(self, images, tokens):
        logits = np.eye(len(scenes.WORDS))[self.right]
        logits[0, 1] = np.eye(len(scenes.WORDS))[scenes.WORDS.encode(["left of"])[0]]
        return models.Written(logits, self.weights)

    def write(self, images, vocabulary, longest, forced=None):
        if forced is not None:
            assert len(forced) == 1 and (forced[0] == self.right[0, :2]).all()
            return self.right[:1], None
        tokens = self.right.copy()
        tokens[0, 1:] = scenes.WORDS.encode(["below"])[0]
        return tokens, self.weights


def test_mistakes_are_counted(rng):
    source = scenes.Scenes(*split()["test"])
    batch = source.make(rng, [2] * 3)
    parrot = Parrot(batch)
    for b, places in enumerate(batch.places):  # the first words look at the digits in turn
        for n, (row, column) in enumerate(places):
            parrot.weights[b, 1 + 3 * n, 8 * int(row // 4) + int(column // 4)] = 1
    found = results.examine(parrot, source, batch)
    assert found.exact.tolist() == [False, True, True]
    # 6 words each; of the first caption 4 come after the second, 4 of them wrong as they are.
    assert found.piled.tolist() == [[1, 18], [4, 4], [0, 4]]
    assert found.first.tolist() == [0, 1, 0, 0]
    assert found.looks[1].tolist() == [[5, 0, 0], [1, 0, 0]]
    parrot.weights = np.roll(parrot.weights, 3, axis=1)
    looks = mistakes.where_looked(parrot, batch)[1]
    assert looks[0, 0] == 0 and looks[0, 1] >= 2  # the second word looks at the first digit


def test_first_mistakes():
    right = ["a", "one", "above", "an", "eight"]
    written = [right, ["an", "eight"], right[:4] + ["two"], right[:2], [*right, "above"]]
    assert mistakes.first_mistakes(written, [right] * 5).tolist() == [1, 1, 1, 1]


def test_the_pictures_of_words(rng, tmp_path):
    source = scenes.Scenes(*split()["test"])
    batch = source.make(rng, [3] * 3)
    found = results.examine(Parrot(batch), source, batch)
    runs = {"soft": [caption.Run(0, None, 1.0, [found])]}
    paths = results.draw(runs, {"3 digits": batch}, tmp_path)
    assert [path.name for path in paths] == ["soft-right.png", "soft-wrong.png"]
    assert all(path.stat().st_size > 1000 for path in paths)
    matplotlib.pyplot.close("all")


# ---- Pictures of one's own -----------------------------------------------------------------------


def stamp(folder, name, text, color):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    if color:
        Image.new("RGBA", (10, 20), color).save(folder / f"{name}.png")


def test_stamps(tmp_path):
    stamp(tmp_path / "fruit", "pear", "A pear.\nfr.utf8=Une poire.\nde.utf8=Eine Birne.\n", "#ff0")
    stamp(tmp_path / "fruit", "plum", "A plum.\nfr.utf8=Une prune.\n", "#f0f")
    stamp(tmp_path, "moon", "A moon.\nfr.utf8=Une lune.\n", None)  # a drawing in SVG
    assert [text for _, text in pictures.read_stamps("fr", tmp_path)] == [
        "Une poire.",
        "Une prune.",
    ]
    ((path, text),) = pictures.read_stamps("de", tmp_path)
    assert path == tmp_path / "fruit" / "pear.png" and text == "Eine Birne."
    with pytest.raises(ValueError, match="no captions in xx, but in de, en, fr"):
        pictures.read_stamps("xx", tmp_path)
    with pytest.raises(ValueError, match="apt install tuxpaint-stamps-default"):
        pictures.read_stamps("fr", tmp_path / "nothing")


def test_a_picture_is_square_on_white(tmp_path):
    picture = Image.new("RGBA", (8, 16), (0, 0, 0, 0))  # nothing but ...
    picture.paste((255, 0, 0, 255), (0, 0, 8, 8))  # ... red in the upper half
    picture.save(tmp_path / "a.png")
    pixels = pictures.read_picture(tmp_path / "a.png", 16)
    assert pixels.shape == (3, 16, 16) and pixels.dtype == np.float32
    red = np.zeros((3, 16, 16))
    red[1:, :8, 4:12] = 1  # white less what red is not
    np.testing.assert_allclose(pixels, red, atol=0.3)  # edges are smooth
    assert (np.abs(pixels - red) < 0.01).mean() > 0.9
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(ValueError, match="b.png: no picture"):
        pictures.read_picture(tmp_path / "b.png", 16)


def test_pictures_are_split_and_drawn(tmp_path, rng):
    pairs = []
    for n in range(20):
        stamp(tmp_path, str(n), f"Number {n}.", (n, 2 * n, 0, 255))
        pairs += [(tmp_path / f"{n}.png", f"Number {n}."), (tmp_path / f"{n}.png", "A number.")]
    training, validation, test = pictures.split(pairs)
    assert sorted(training + validation + test) == sorted(pairs)
    of = [{path for path, _ in part} for part in (training, validation, test)]
    assert not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2]) and all(of)
    with pytest.raises(ValueError, match="at least 20 pictures"):
        pictures.split(pairs[:10])
    source = pictures.Pictures(training, 16)
    held = pictures.Pictures(test, 16, source.vocabulary).batch()
    assert source.without_looking(held)["the most frequent caption"][0] == [" A", " number", "."]
    drawn = source.draw(rng, 30)
    assert drawn.images.shape == (30, 3, 16, 16)
    for image, words in zip(drawn.images, drawn.captions, strict=True):
        same = [n for n, known in enumerate(source.captions) if known == words]
        sums = source.images[same].sum(axis=(1, 2, 3))
        assert (image.sum() <= sums + 1e-3).any() and image.sum() > 0.5 * sums.min()
    near = source.without_looking(source.batch())["that of the nearest picture"]
    right = [a == b for a, b in zip(near, source.captions, strict=True)]
    assert np.mean(right) >= 0.5  # each picture is there with two captions

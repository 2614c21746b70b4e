"""The translator example: its model, its training, its report and pictures, its command line."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("babel")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import command  # noqa: E402
import dates  # noqa: E402
import results  # noqa: E402
import transformer_translate  # noqa: E402
import translate  # noqa: E402
import translation  # noqa: E402
from translation import History, Translation, Translator  # noqa: E402

import attnc  # noqa: E402
from attnc.data import Vocabulary, tokenise  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"
SMALL = {
    "embedding": 8, "state": 8, "size": 8, "heads": 2, "layers": 2, "feedforward": 16,
    "count": 100, "longest": 8, "steps": 150,
}  # fmt: skip
RECURRENT, TRANSFORMER = translate.PROGRAM, transformer_translate.PROGRAM
SETTINGS = command.SETTINGS | RECURRENT.defaults(100, generated=True, told=SMALL)


def make(words, program=RECURRENT, **settings):
    """A translator whose two languages have these words."""
    settings = SETTINGS | program.defaults(100, generated=True, told=SMALL | settings)
    vocabulary = Vocabulary(words)
    model = program.build(settings, len(vocabulary), len(vocabulary), 0)
    return Translator(model, vocabulary, vocabulary, settings)


@pytest.fixture(scope="module")
def program(request):
    """The translator that a test is about: that of translate.py, unless the test is of `both`."""
    return getattr(request, "param", RECURRENT)


both = pytest.mark.parametrize(
    "program", [RECURRENT, TRANSFORMER], ids=["recurrent", "transformer"], indirect=True
)


# ---- The model -----------------------------------------------------------------------------------


MODELS = {name: (RECURRENT, {"attention": name}) for name in translate.ATTENTIONS} | {
    "post": (TRANSFORMER, {"norm": "post"}),
    "rotary": (TRANSFORMER, {"positions": "rotary", "tied": True}),
    "no positions": (TRANSFORMER, {"positions": "none"}),
}


@pytest.fixture(params=MODELS)
def translator(request):
    program, settings = MODELS[request.param]
    return make(["one", "two", "three", "four"], program, **settings)


@pytest.mark.parametrize("translator", translate.ATTENTIONS, indirect=True)
def test_gradients(translator):
    """The way back through all layers against a difference in a random direction.

    That of a Transformer has kinks, and is held against differences in float64 elsewhere.
    """
    rng = np.random.default_rng(1)
    pairs = [
        (np.array([4, 5, 6, 2]), np.array([1, 6, 5, 2])),
        (np.array([7, 2]), np.array([1, 4, 2])),
    ]
    model = translator.model
    for parameter in model.parameters.values():
        parameter += rng.normal(0, 0.3, parameter.shape)
    _, back = translator.loss(pairs)
    model.zero_grad()
    back()
    for name, gradient in model.gradients.items():
        parameter, before = model.parameters[name], model.parameters[name].copy()
        direction = rng.standard_normal(parameter.shape)
        slopes = []
        for step in (1e-2, -1e-2):
            parameter[...] = before + step * direction
            slopes.append(float(translator.loss(pairs)[0]))
        parameter[...] = before
        slope = (slopes[0] - slopes[1]) / 2e-2
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=0.02, abs=2e-4), name


def test_mean_loss_is_that_of_each_word(translator):
    rng = np.random.default_rng(0)
    pairs = [
        (rng.integers(4, 8, rng.integers(1, 9)), rng.integers(4, 8, rng.integers(2, 9)))
        for _ in range(150)
    ]
    words = [len(target) - 1 for _, target in pairs]
    alone = [translator.loss([pair])[0] for pair in pairs]
    assert translator.mean_loss(pairs) == pytest.approx(np.average(alone, weights=words), rel=1e-5)


def test_saved_translator_is_the_same(translator, tmp_path):
    translator.source = Vocabulary(tokenise("one two three four")[:4])
    translator.known, translator.usual = np.array([3, 70]), 0.25
    optimizer = attnc.optim.Adam(translator.model, 0.01)
    history = History([2.5, 2.0], [(1, 2.25), (2, 2.0)], 2)
    translation.save_run(translator, optimizer, history, tmp_path)
    assert os.listdir(tmp_path) == ["model.npz"]
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file)
    for path in (tmp_path, tmp_path / "model.npz"):
        again, _, kept = translation.load_run(path)
        assert kept == history
        assert (again.settings, again.usual) == (translator.settings, 0.25)
        np.testing.assert_array_equal(again.known, translator.known)
        texts = ["one two", "three", "four one two nowhere", "", " "]
        pairs = zip(translator.translate(texts), again.translate(texts), strict=True)
        for first, second in pairs:
            assert first[:-1] == second[:-1]
            np.testing.assert_array_equal(first.weights, second.weights)
            assert first.weights.shape[-2] == len(first.target_words)
            if translator.has_attention:
                assert first.weights.shape[-1] == len(first.source_words)
                np.testing.assert_allclose(first.weights.sum(-1), 1, rtol=1e-5)
            if not first.source.strip():
                assert first.target == "" and not first.target_words


def test_words_are_normalised():
    translator = make([" été", " tot"], lower=True)
    assert translator.words("E\u0301te\u0301\u00a0 TOT") == [" été", " tot"]
    assert translator.unknown_words("ÉTÉ tot soleil") == [" soleil"]


def test_pieces_of_words():
    pytest.importorskip("sentencepiece")
    words = [[[" ab", " abab"]] * 9, [[" ba", " abba"]] * 9]
    settings = SETTINGS | {"subwords": 6, "tied": True}
    source, target = translation.vocabularies(words, settings)
    assert source is target and source.words
    translator = Translator(
        translate.build(settings, *[len(source)] * 2, 0), source, target, settings
    )
    (got,) = translator.translate(["abab ab x"])
    assert "".join(got.source_words) == " abab ab <unknown>(end)"
    assert got.weights.shape == (len(got.target_words), len(got.source_words))


def test_another_order_is_strange():
    vocabulary = Vocabulary.build([[" May", " 1", ",", " 2"]])
    translator = Translator(None, vocabulary, vocabulary, SETTINGS)
    pairs = translator.numbers([("May 1, 2", ""), ("May 2, 1", "")])
    translator.learn_what_is_usual(pairs, pairs)
    assert translator.usual == 0
    assert not translator.is_strange("May 2, 2")
    assert translator.is_strange("1 May, 2")
    assert translator.is_strange("May, 1")


# ---- Training ------------------------------------------------------------------------------------

BY_HEART = [("one two", "deux un"), ("two three", "trois deux"), ("three one", "un trois")]


def learn_by_heart(pairs=BY_HEART, validation=BY_HEART, history=None, start=None, **settings):
    settings = SETTINGS | {"embedding": 16, "state": 32, "batch": 3, "rate": 0.01} | settings
    translator = Translator(None, None, None, settings)
    words = [[translator.words(text) for text in side] for side in zip(*pairs, strict=True)]
    translator.source, translator.target = translation.vocabularies(words, settings)
    sizes = len(translator.source), len(translator.target)
    translator.model = translate.build(settings, *sizes, 0)
    if start:
        translator.model.load_state_dict(start)
    optimizer = attnc.optim.Adam(translator.model, 0.01)
    rng = np.random.default_rng(0)
    numbers = translator.numbers(pairs), translator.numbers(validation)
    return translator, translation.train(translator, *numbers, settings, rng, optimizer, history)


def test_learns_by_heart(capsys):
    translator, history = learn_by_heart()
    assert len(history.losses) == history.checks[-1][0] == 150
    assert history.losses[-1] < 0.1 < history.losses[0]
    got = [translation.target for translation in translator.translate([s for s, _ in BY_HEART])]
    assert got == [target for _, target in BY_HEART]
    assert "Trained 150 steps" in capsys.readouterr().out


def test_the_model_of_the_lowest_validation_loss_is_kept(capsys):
    """What is learned is wrong for the validation pairs, whose loss soon rises."""
    wrong = [("one two", "un deux"), ("two three", "deux trois"), ("three one", "trois un")]
    translator, history = learn_by_heart(validation=wrong)
    steps, losses = zip(*history.checks, strict=True)
    assert history.best == steps[np.argmin(losses)]
    assert len(steps) - 1 - np.argmin(losses) == translation.PATIENCE
    assert len(history.losses) == steps[-1] < 150
    kept = translator.mean_loss(translator.numbers(wrong))
    assert kept == pytest.approx(min(losses), rel=1e-6)
    assert "early: the validation loss no longer fell" in capsys.readouterr().out


def test_a_training_that_goes_on_never_ends_with_a_worse_model():
    wrong = [("one two", "un deux"), ("two three", "deux trois"), ("three one", "trois un")]
    first, history = learn_by_heart(validation=wrong)
    again, longer = learn_by_heart(
        validation=wrong, history=history, start=first.model.state_dict()
    )
    assert longer.losses[: history.best] == history.losses[: history.best]
    assert longer.checks[: len(longer.checks)][0] == history.checks[0]
    assert dict(longer.checks)[longer.best] <= dict(history.checks)[history.best]


# ---- Scores --------------------------------------------------------------------------------------


def test_edits():
    def slowly(a, b):
        if not a or not b:
            return len(a) + len(b)
        replaced = slowly(a[1:], b[1:]) + (a[0] != b[0])
        return min(replaced, slowly(a[1:], b) + 1, slowly(a, b[1:]) + 1)

    rng = np.random.default_rng(0)
    for _ in range(100):
        a, b = (["abc"[n] for n in rng.integers(0, 3, rng.integers(0, 6))] for _ in "ab")
        assert results.edits(a, b) == slowly(a, b), (a, b)


def got(source, target, **others):
    words = [*tokenise(target), "(end)"], [*tokenise(source), "(end)"]
    weights = np.eye(*map(len, words))
    return Translation(source, target, words[1], words[0], weights)._replace(**others)


def test_score():
    translator = make(["a"])
    texts = [("a b c d", "x y z"), ("e", "u v")]
    scores = results.score(translator, [got(*text) for text in texts], ["x y z", "u w v"])
    assert (scores.pairs, scores.exact) == (2, 0.5)
    assert scores.words == pytest.approx(1 - 1 / 6)


def test_likeness_is_that_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    translator = make(["a"])
    right = ["the cat sat on the mat today", "a dog"]
    scores = results.score(
        translator, [got("die Katze", "the cat sat on a mat today"), got("ein dog", "a dog")], right
    )
    texts = ["the cat sat on a mat today", "a dog"]
    assert scores.chrf == sacrebleu.corpus_chrf(texts, [right]).score
    assert scores.bleu == sacrebleu.corpus_bleu(texts, [right]).score
    assert scores.copied == sacrebleu.corpus_chrf(["die Katze", "ein dog"], [right]).score


@pytest.mark.parametrize("longest", [1, 2, 5, 8, 31, 32, 40])
def test_bins_hold_every_length_once(longest):
    held_out, longer = results.bins(longest)
    assert held_out[-1][1] == longest
    for length in range(1, 2 * longest + 1):
        inside = [low <= length <= high for low, high in held_out + longer]
        assert sum(inside) == 1
        assert any(inside[: len(held_out)]) == (length <= longest)


class Parrot:
    """Stands for a translator: it repeats the source, but is wrong where that begins with "no"."""

    settings = SETTINGS
    normalised = staticmethod(str)
    words = staticmethod(tokenise)
    unknown_words = staticmethod(lambda text: [word for word in tokenise(text) if word == " zzz"])

    def translate(self, texts, beam_width=1):
        return [got(text, text.replace("no", "xx")) for text in texts]


def test_report(capsys):
    test = [(f"a {n}", f"a {n}") for n in range(6)] + [("no b c d e f", "no b c d e f")]
    longer = [("a b c d e f g h i", "a b c d e f g h i"), ("no" + " a" * 13, "no" + " a" * 13)]
    history = History([0.5] * 10, [(5, 0.6), (10, 0.7)], 5)
    translations, scores = results.report(Parrot(), test, longer, history)
    out = capsys.readouterr().out
    assert [translation.target for translation in translations][-1] == "xx b c d e f"
    assert (scores.pairs, scores.exact) == (7, 6 / 7)
    rows = re.findall(r"^ +(\d+ to +\d+|all) +(\d+) +([\d.]+)%", out, re.MULTILINE)
    assert [(" ".join(name.split()), int(pairs), float(exact)) for name, pairs, exact in rows] == [
        ("1 to 2", 6, 100.0),
        ("5 to 6", 1, 0.0),
        ("all", 7, 85.7),
        ("9 to 10", 1, 100.0),
        ("11 to 16", 1, 0.0),
        ("all", 2, 50.0),
    ]
    table = out.partition("copied\n")[2].partition("\n\n")[0].splitlines()
    assert len({len(line) for line in table if "%" in line}) == 1  # columns are columns
    assert out.index("held out") < out.index("longer than any in training")


def said(scores, history=([1.0] * 10, [(10, 1.2)], 10), unknown=0.0, **settings):
    settings = SETTINGS | {"pairs": "file", "subwords": 0} | settings
    scores = results.Scores(100, *scores)
    return "\n".join(results.conclusions(settings, scores, History(*history), unknown))


def test_conclusions():
    assert "nine of ten" in said((0.95, 1, 99, 98, 20))
    assert "What to try" not in said((0.95, 1, 99, 98, 20))
    assert "Most words are right" in said((0.3, 0.7, 70, 60, 20))
    assert "About half of the words" in said((0.2, 0.5, 50, 37, 33))
    assert "makes up the rest" in said((0.0, 0.3, 35, 10, 20))
    poor = (0.0, 0.1, 20, 1, 20)
    assert "It does not translate" in said(poor)
    assert "It does not translate" in said((0.0, 0.1, None, None, None))  # without sacrebleu
    assert "1,500 are few" in said(poor, count=1500)
    assert "are few" not in said(poor, count=150_000)
    assert "--subwords 2000: 12% of the words" in said(poor, unknown=0.12)
    assert "--subwords" not in said(poor, unknown=0.12, subwords=2000)
    assert "--dropout 0.3: the loss is 1.00" in said(
        poor, ([1.0] * 10, [(10, 4.0)], 10), dropout=0.2
    )
    assert "--seconds" in said(poor)
    assert "--seconds" not in said(poor, ([1.0] * 10, [(5, 1.1), (10, 1.2)], 5))
    assert "--lower" in said(poor) and "--lower" not in said(poor, lower=True)
    assert "--attention additive" in said(poor, attention="none")
    assert "pairs" not in said(poor, pairs=None) and "--lower" not in said(poor, pairs=None)


# ---- Pictures ------------------------------------------------------------------------------------


def test_what_is_drawn():
    crossing = np.eye(3)[[0, 2, 1]]
    right, crossed = got("a b", "c d"), got("a b", "c d", weights=crossing)
    wrong = got("a b", "no", weights=crossing)
    assert results.most_crossing([wrong, right], ["c d"] * 2)[0] is right
    assert results.most_crossing([right, crossed, wrong], ["c d"] * 3)[0] is crossed
    assert results.most_crossing([wrong], ["c d"]) == (wrong, "c d")
    long = got("a " * 30, "c " * 30)  # too long to read, but right
    assert results.most_crossing([wrong, long], ["c d", "c " * 30])[0] is long
    assert results.most_crossing([right, long], ["c d", "c " * 30])[0] is right
    short = got("a", "", target_words=["(end)"], weights=np.ones((1, 2)))
    assert results.most_crossing([short, right], ["", "c d"])[0] is right


@pytest.mark.parametrize("right, title", [(None, ""), ("c d", ""), ("e", "WRONG. Right is: e")])
def test_a_wrong_translation_is_marked(right, title, tmp_path):
    from matplotlib import pyplot

    results.draw_alignment(got("a b", "c d"), tmp_path / "a.png", right)
    (ax,) = pyplot.gcf().axes[:1]
    assert ax.get_title() == title
    assert [label.get_text() for label in ax.get_xticklabels()] == [" a", " b", "(end)"]
    assert [label.get_text() for label in ax.get_yticklabels()] == [" c", " d", "(end)"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("source", "translation")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    figure = ax.figure
    figure.draw_without_rendering()  # and nothing is cut off
    boxes = [text.get_window_extent() for text in (ax.title, ax.xaxis.label) if text.get_text()]
    boxes += [label.get_window_extent() for label in ax.get_xticklabels() + ax.get_yticklabels()]
    assert all(figure.bbox.x0 <= b.x0 and b.x1 <= figure.bbox.x1 for b in boxes)
    assert all(figure.bbox.y0 <= b.y0 and b.y1 <= figure.bbox.y1 for b in boxes)
    pyplot.close("all")


def test_languages_from_right_to_left_are_drawn(tmp_path):
    from matplotlib import pyplot

    days = [dates.FIRST]
    source, target = (dates.Dates.of(language).write(days, "full") for language in ("ar", "he"))
    results.draw_alignment(got(source, target), tmp_path / "a.png")
    shown = [label.get_text().strip() for label in pyplot.gcf().axes[0].get_xticklabels()]
    assert shown[:-1] == [word.strip() for word in tokenise(source)]
    pyplot.close("all")


# ---- The command ---------------------------------------------------------------------------------


def run(program, *args, **options):
    return subprocess.run(
        [sys.executable, EXAMPLES / program.name, *args],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        **options,
    )


@pytest.fixture(scope="module")
def quick(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quick") / "run"
    return folder, run(program, "--quick", "--target", "zh", "--output", folder)


@both
def test_quick_run(program, quick):
    folder, result = quick
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no warning, and no bar where nobody watches
    pictures = ["alignment.png", "loss.png"] + ["heads.png"] * (program is TRANSFORMER)
    assert sorted(os.listdir(folder)) == sorted(["model.npz", *pictures])
    for name in pictures:
        assert (folder / name).read_bytes().startswith(PNG)
        assert str(folder / name) in result.stdout
    groups = re.findall(r"^ +(\d+) to +(\d+) +\d+ +[\d.]+%", result.stdout, re.MULTILINE)
    ends = [int(number) for group in groups for number in group]
    assert len(groups) >= 4 and ends == sorted(set(ends))  # they do not overlap
    assert "longer than any in training" in result.stdout
    small = ", ".join(f"{name} {value}" for name, value in program.quick.items())
    assert f"Settings: {small}, " in result.stdout
    assert "Trained 100 steps" in result.stdout


@pytest.fixture
def main(program, monkeypatch, capsys, tmp_path):
    """Run the command here; returns what it printed."""
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", [program.name, *map(str, args)])
        monkeypatch.setattr(sys, "stdout", sys.stdout)
        command.main(program)
        return capsys.readouterr()

    yield call
    pyplot.close("all")


@both
def test_load_translates_like_the_model(program, quick, main):
    folder, _ = quick
    texts = ["Friday, May 1, 2026", "1/7/26 and 2/8/27"]
    translator, _, _ = translation.load_run(folder)
    right = "".join(got.target + "\n" for got in translator.translate(texts))
    assert main("--load", folder, *texts) == (right, "")
    assert main("--load", folder / "model.npz", *texts) == (right, "")
    as_lines = run(program, "--load", folder, input="\n".join([texts[0], "", "  ", texts[1]]))
    first, second = right.splitlines()
    assert as_lines.stdout.splitlines() == [first, "", "", second]
    assert as_lines.stderr == ""
    assert main("--load", folder, "--beam", "3", *texts).out.count("\n") == 2


def test_load_names_unknown_words(quick):
    result = run(
        RECURRENT,
        "--load",
        quick[0],
        "Hello, January 2026",
        env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    )
    assert result.returncode == 0
    assert result.stderr == "translate.py: not in the vocabulary: Hello\n"


@pytest.mark.parametrize("text", ["1 May 2026", "May 2026 1", "2026 January"])
def test_load_names_an_unknown_order(quick, main, text):
    said = main("--load", quick[0], text).err
    assert said == f"translate.py: unlike the sources in training, so beware: {text}\n"


@both
def test_load_imports_no_more_than_it_needs(program, quick):
    """One line is translated in half a second: without matplotlib, Babel, tqdm and sacrebleu."""
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import importlib, command\n"
        "command.main(importlib.import_module(sys.argv.pop(1)).PROGRAM)\n"
        "slow = {'matplotlib', 'babel', 'tqdm', 'sacrebleu', 'sentencepiece'}\n"
        "assert not slow & sys.modules.keys(), slow & sys.modules.keys()"
    )
    arguments = [EXAMPLES, program.name.removesuffix(".py"), "--load", quick[0], "May 1, 2026"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.PIPE)


def test_picture_of_a_given_text(quick, main, tmp_path):
    main("--load", quick[0], "--picture", "here.png", "May 1, 2026")
    assert (tmp_path / "here.png").read_bytes().startswith(PNG)


@both
def test_same_seed_and_steps_give_the_same_model(tmp_path, quick, main):
    main("--quick", "--target", "zh", "--output", tmp_path / "again")
    first, again = (folder / "model.npz" for folder in (quick[0], tmp_path / "again"))
    with np.load(first) as first, np.load(again) as again:
        assert first.files == again.files
        for name in first.files:
            np.testing.assert_array_equal(first[name], again[name])


def test_no_run_destroys_the_model_of_another(tmp_path, main):
    arguments = "--quick", "--steps", "2"
    main(*arguments)
    before = (tmp_path / "translate-en-fr" / "model.npz").read_bytes()
    main(*arguments)
    main(*arguments, "--source", "he", "--attention", "none")
    main(*arguments, "--output", "translate-en-fr")
    assert sorted(os.listdir(tmp_path)) == [
        "translate-en-fr",
        "translate-en-fr-2",
        "translate-en-fr-3",
        "translate-he-fr-none",
    ]
    assert (tmp_path / "translate-en-fr" / "model.npz").read_bytes() == before


@both
def test_continue(quick, tmp_path, main):
    out = main("--load", quick[0], "--continue", "--steps", "40", "--output", "more").out
    assert "Trained 40 steps" in out
    _, _, before = translation.load_run(quick[0])
    translator, optimizer, history = translation.load_run(tmp_path / "more")
    assert history.best > before.best and len(history.losses) == before.best + 40
    assert history.losses[: before.best] == before.losses[: before.best]
    assert dict(history.checks)[history.best] < dict(before.checks)[before.best]
    assert translator.settings["target"] == "zh"
    assert optimizer.state_dict()


def test_learns_from_a_file_without_attention(tmp_path, main):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"Say {n} {n % 7}\tDis {n % 7} {n}\tCC-BY\n" for n in range(100)))
    arguments = "--quick", "--pairs", path, "--attention", "none", "--steps", "20"
    out = main(*arguments, "--subwords", "0", "--lower").out
    assert sorted(os.listdir(tmp_path / "translate-pairs-none")) == ["loss.png", "model.npz"]
    assert "100 pairs, with 100 different sources" in out
    translator, _, _ = translation.load_run(tmp_path / "translate-pairs-none")
    assert " say" in translator.source and " Say" not in translator.source


def test_learns_pieces_of_words_from_a_file(tmp_path, main):
    pytest.importorskip("sentencepiece")
    words = [f"{a}{b}{c}" for a in "klm" for b in "aeiou" for c in "nrst"]
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{word} two\tdeux {word}\n" for word in words))
    main("--quick", "--pairs", path, "--steps", "10", "--subwords", "40")
    translator, _, _ = translation.load_run(tmp_path / "translate-pairs")
    assert translator.source == translator.target  # one vocabulary
    assert translator.model.tied and len(translator.source) <= 44


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_keeps_the_best_model(tmp_path):
    command = [sys.executable, "-u", EXAMPLES / "translate.py", "--quick", "--steps", "5000"]
    # A shell that runs the tests in the background has SIGINT ignored, and its children too.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for line in process.stdout:
            if line.startswith("Training with"):
                break
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors == ""
    assert "stopped by Ctrl-C" in rest
    assert "How good are translations" in rest
    steps = int(re.search(r"Trained (\d+) steps", rest)[1])
    assert 0 < steps < 5000
    folder = tmp_path / "translate-en-fr"
    assert sorted(os.listdir(folder)) == ["alignment.png", "loss.png", "model.npz"]
    assert translation.load_run(folder)[0].translate(["1/7/26"])


@pytest.fixture
def fails(monkeypatch, capsys, tmp_path):
    """Run the command with arguments that are wrong; returns its one line of complaint."""
    monkeypatch.chdir(tmp_path)
    before = set(os.listdir(tmp_path))

    def run_main(*args):
        before.update(os.listdir(tmp_path))
        monkeypatch.setattr(sys, "argv", [RECURRENT.name, *args])
        with pytest.raises(SystemExit) as end:
            command.main(RECURRENT)
        code = end.value.code
        errors = capsys.readouterr().err
        if isinstance(code, str):  # the interpreter prints it and exits with 1
            errors, code = errors + code + "\n", 1
        assert code not in (0, None)
        assert errors.count("\n") == 1
        assert errors.startswith("translate.py: ")
        assert set(os.listdir(tmp_path)) == before  # no folder is left behind
        return errors

    return run_main


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a\tb\nno tab\n", "pairs.tsv, line 2: found no tab"),
        (b"caf\xe9\tb\n", "pairs.tsv, line 1: not UTF-8"),
        (b"", "pairs.tsv, line 1: the file ends without a single sentence pair"),
        (b"a\tb\nc\td\n", "needs at least 20 different pairs to learn from, got 2"),
        (PNG, "pairs.tsv, line 1: not UTF-8"),
    ],
)
def test_wrong_file_is_one_line(fails, tmp_path, content, message):
    (tmp_path / "pairs.tsv").write_bytes(content)
    assert message in fails("--pairs", "pairs.tsv")


@pytest.mark.parametrize(
    "args, message",
    [
        (["--pairs", "nowhere.tsv"], "No such file or directory: 'nowhere.tsv'"),
        (["--pairs", "."], "Is a directory"),
        (["--attention", "general"], "argument --attention: invalid choice: 'general'"),
        (["--target", "xx"], "language must be one of CLDR's, such as en, fr, zh, ar or pt-BR"),
        (["--seconds", "-1"], "argument --seconds: must be a number from 0.1, got -1"),
        (["--seconds", "nan"], "argument --seconds: must be a number from 0.1, got nan"),
        (["--steps", "many"], "argument --steps: invalid int value: 'many'"),
        (["--steps", "0"], "argument --steps: must be a number from 1, got 0"),
        (["--seed", "-1"], "argument --seed: must be a number from 0, got -1"),
        (["--dropout", "1"], "argument --dropout: must be a number from 0, got 1.0"),
        (["--smoothing", "1"], "argument --smoothing: must be a number from 0, got 1.0"),
        (["--warmup", "0"], "argument --warmup: must be a number from 1, got 0"),
        (["--heads", "4"], "unrecognized arguments: --heads"),
        (["--state", "7"], "state_size must be even"),
        (["--colour"], "unrecognized arguments: --colour"),
        (["a text"], "a text to translate needs --load DIR"),
        (["--picture", "a.png"], "--picture needs --load DIR"),
        (["--continue"], "--continue needs --load DIR"),
        (["--load", "a", "--seconds", "3", "x"], "--seconds does nothing with --load"),
        (["--load", "a", "--attention", "dot"], "--attention does nothing with --load"),
        (["--load", "a", "--quick"], "--quick does nothing with --load"),
        (["--load", "a", "--continue", "--target", "de"], "--target does nothing with --continue"),
        (["--load", "a", "--continue", "x"], "a text to translate does nothing with --continue"),
        (["--load", "a", "--picture", "b.png"], "--picture needs one text to translate"),
        (["--quick", "--longest", "2"], "at least 20 pairs with sources up to 2 words, got 0"),
        (["--load", "nowhere", "a text"], "No such file or directory: 'nowhere'"),
    ],
)
def test_wrong_options_are_one_line(fails, args, message):
    assert message in fails(*args)


@pytest.mark.parametrize("content", [b"", b"a\tb\n", PNG, b"PK\x03\x04...", "before", "cut"])
def test_wrong_model_is_one_line(fails, tmp_path, content, quick):
    path = tmp_path / "model.npz"
    if content == "before":  # what this program wrote before there was attnc.save
        np.savez(path, settings="{}", source_words=np.array(["a"]), **{"output.bias": np.ones(3)})
    elif content == "cut":
        path.write_bytes((quick[0] / "model.npz").read_bytes()[:5000])
    else:
        path.write_bytes(content)
    assert "model.npz: not a model of a translator" in fails("--load", "model.npz", "a text")


def test_picture_without_attention_is_one_line(fails, tmp_path, main):
    main("--quick", "--steps", "2", "--attention", "none")
    assert "there is no attention to draw" in fails(
        "--load", "translate-en-fr-none", "--picture", "a.png", "May 1, 2026"
    )


def test_output_that_cannot_be_written_is_one_line(fails, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert "file" in fails("--quick", "--output", "file")


def test_missing_package_is_one_line(fails, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "babel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "babel", None)
    dates.Dates.of.cache_clear()
    assert "pip install babel" in fails("--quick")


def test_without_sacrebleu_the_report_says_so(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    results.report(Parrot(), [("a", "a")] * 9, [], History([0.5], [(1, 0.6)], 1))
    out = capsys.readouterr().out
    assert "chrF and BLEU need sacrebleu: pip install sacrebleu" in out
    assert re.search(r"all +9 +100.0% +100.0% +- +- +-", out)

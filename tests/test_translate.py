"""The translator example: its text, its model, its command line."""

import datetime
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("babel")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import corpus  # noqa: E402
import translate  # noqa: E402
from corpus import date_pairs, drop_ambiguous  # noqa: E402

from attnc.data import Vocabulary, detokenise, tokenise  # noqa: E402

ATTENTIONS = ["additive", "multiplicative", "dot", "cosine", "none"]
PNG = b"\x89PNG\r\n\x1a\n"


# ---- Words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, words",
    [
        ("7 janv. 2026", [" 7", " janv", ".", " 20", "26"]),
        ("1/7/26", [" 1", "/", "7", "/", "26"]),
        ("Go, 12345!", [" Go", ",", " 12", "34", "5", "!"]),
        ("2026年1月", [" 20", "26", "年", "1", "月"]),
        ("l'été", [" l", "'", "été"]),
        ("Va\u202f!", [" Va", "\u202f", "!"]),
        ("a  b", [" a", " ", " b"]),
        ("", [" "]),
    ],
)
def test_tokenise(text, words):
    assert tokenise(text) == words


@given(st.text())
def test_nothing_is_lost(text):
    assert detokenise(tokenise(text)) == text


# ---- Pairs ---------------------------------------------------------------------------------------


def test_ambiguous_sources_are_dropped():
    pairs = [("a b", "x"), ("c", "y"), ("a b", "z"), ("c", "y"), ("d", "y")]
    assert drop_ambiguous(pairs) == [("c", "y"), ("d", "y")]
    assert drop_ambiguous([]) == []


def test_words_decide_what_is_ambiguous():
    pairs = [("a b", "x"), ("A b", "y"), ("a  b", "x")]
    assert drop_ambiguous(pairs) == pairs
    assert drop_ambiguous(pairs, tokenise=str.split) == pairs
    # Cut at spaces and in small letters, all three are one source with two targets.
    assert drop_ambiguous(pairs, tokenise=lambda text: text.lower().split()) == []


# ---- Dates ---------------------------------------------------------------------------------------

DAY = datetime.date(2026, 1, 7)


@pytest.mark.parametrize(
    "length, texts",
    [
        ("short", ["1/7/26", "07/01/2026", "07.01.26", "2026/1/7"]),
        ("medium", ["Jan 7, 2026", "7 janv. 2026", "07.01.2026", "2026年1月7日"]),
        ("long", ["January 7, 2026", "7 janvier 2026", "7. Januar 2026", "2026年1月7日"]),
        (
            "full",
            [
                "Wednesday, January 7, 2026",
                "mercredi 7 janvier 2026",
                "Mittwoch, 7. Januar 2026",
                "2026年1月7日星期三",
            ],
        ),
        ("yMMMM", ["January 2026", "janvier 2026", "Januar 2026", "2026年1月"]),
    ],
)
def test_dates_as_cldr_writes_them(length, texts):
    assert [corpus.write([DAY], length, language) for language in ("en", "fr", "de", "zh")] == texts


def test_lists_as_cldr_writes_them():
    days = [DAY, datetime.date(2027, 5, 1), datetime.date(1999, 12, 31)]
    assert [corpus.write(days, "long", language) for language in ("en", "fr", "de", "zh")] == [
        "January 7, 2026, May 1, 2027, and December 31, 1999",
        "7 janvier 2026, 1 mai 2027 et 31 décembre 1999",
        "7. Januar 2026, 1. Mai 2027 und 31. Dezember 1999",
        "2026年1月7日、2027年5月1日和1999年12月31日",
    ]


@pytest.fixture(scope="module", params=["fr", "de", "zh"])
def pairs(request):
    return date_pairs(request.param, 1000, np.random.default_rng(0))


def test_sources_have_3_to_40_words(pairs):
    lengths = [len(tokenise(source)) for source, _ in pairs]
    assert (min(lengths), max(lengths)) == (3, 40)
    assert all(np.histogram(lengths, bins=[3, 10, 20, 30, 40])[0] > 30)


def test_words_swap_places(pairs):
    months = [datetime.date(2026, month, 1).strftime("%B") for month in range(1, 13)]
    swapped = 0
    for source, target in pairs:
        match = re.fullmatch(r"(?:\w+, )?(\w+) (\d+), (\d{4})", source)
        if match and match[1] in months:
            year = target.index(match[3])
            day = re.search(rf"(?<!\d){match[2]}(?!\d)", target).start()
            if "年" in target:
                assert year < day  # Chinese: the year comes first
            else:  # French, German: the day before the month
                assert day < re.search(r"\d\.? ([^\d\s]+)", target).start(1) < year
            swapped += 1
    assert swapped > 20


def test_dates_are_not_ambiguous(pairs):
    assert drop_ambiguous(pairs) == pairs


def test_a_source_that_two_lengths_share_is_dropped():
    # "May 5, 2026" is medium and long: two texts in German, one in French.
    def has_may(target):
        found = date_pairs(target, 3000, np.random.default_rng(0))
        return any(re.fullmatch(r"May \d+, \d{4}", source) for source, _ in found)

    assert has_may("fr")
    assert not has_may("de")


def test_dates_of_a_seed():
    first, again, other = (date_pairs("fr", 20, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other


# ---- The parts of the data -----------------------------------------------------------------------


@pytest.mark.parametrize("longest", [None, 10, 32])
def test_parts_share_no_pair(pairs, longest):
    parts = corpus.split(pairs, longest, np.random.default_rng(0))
    assert sorted(pair for part in parts for pair in part) == sorted(pairs)
    assert len({tuple(tokenise(source)) for source, _ in pairs}) == len(pairs)
    *short, longer = [[len(tokenise(source)) for source, _ in part] for part in parts]
    assert all(part[0] > 10 * part[1] for part in [(len(short[0]), len(s)) for s in short[1:]])
    assert max(map(max, short)) <= (longest or 39) < min(longer)
    assert max(longer) == 40


def test_the_parts_of_a_seed(pairs):
    first, again, other = (corpus.split(pairs, 32, np.random.default_rng(n)) for n in (1, 1, 2))
    assert first == again != other


def test_too_few_pairs(pairs):
    with pytest.raises(ValueError, match="at least 20 different pairs to learn from, got 19"):
        corpus.split(pairs[:19], None, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 20 pairs with sources up to 2 words, got 0"):
        corpus.split(pairs, 2, np.random.default_rng(0))


# ---- The model -----------------------------------------------------------------------------------


@pytest.fixture(params=ATTENTIONS)
def translator(request):
    words = Vocabulary(["one", "two", "three", "four"])
    return translate.Translator(words, words, attention=request.param, size=8, rng=0)


def test_gradients(translator):
    """The way back through all layers against a difference in a random direction."""
    rng = np.random.default_rng(1)
    source, lengths = np.array([[4, 5, 6, 2], [7, 2, 0, 0]]), np.array([4, 2])
    target = np.array([[1, 6, 5, 2], [1, 4, 2, 0]])
    model = translator.model
    for parameter in model.parameters.values():
        parameter += rng.normal(0, 0.3, parameter.shape)
    _, back = translator.loss(source, lengths, target)
    model.zero_grad()
    back()
    for name, gradient in model.gradients.items():
        parameter, before = model.parameters[name], model.parameters[name].copy()
        direction = rng.standard_normal(parameter.shape)
        slopes = []
        for step in (1e-2, -1e-2):
            parameter[...] = before + step * direction
            slopes.append(float(translator.loss(source, lengths, target)[0]))
        parameter[...] = before
        slope = (slopes[0] - slopes[1]) / 2e-2
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=0.02, abs=2e-4), name


def test_padding_changes_nothing(translator):
    source, target = np.array([[4, 5, 2]]), np.array([[1, 6, 2]])
    loss, _ = translator.loss(source, np.array([3]), target)
    longer = np.pad(source, ((0, 0), (0, 3))), np.array([3]), np.pad(target, ((0, 0), (0, 2)))
    padded, _ = translator.loss(*longer)
    assert padded == pytest.approx(loss, rel=1e-6)


def test_saved_model_translates_the_same(translator, tmp_path):
    translator.source_vocabulary = Vocabulary(tokenise("one two three four")[:4])
    path = tmp_path / "model.npz"
    translate.save_model(translator, path)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file)
    again = translate.load_model(path)
    texts = ["one two", "three", "four one two nowhere", ""]
    for first, second in zip(translator.translate(texts), again.translate(texts), strict=True):
        assert first[:-1] == second[:-1]
        np.testing.assert_array_equal(first.weights, second.weights)
        assert first.weights.shape[0] == len(first.target_words)
        if translator.attention != "none":
            assert first.weights.shape[1] == len(first.source_words)
            np.testing.assert_allclose(first.weights.sum(-1), 1, rtol=1e-5)
    assert os.listdir(tmp_path) == ["model.npz"]


def test_learns_by_heart():
    training = [("one two", "deux un"), ("two three", "trois deux"), ("three one", "un trois")]
    source, target = ([tokenise(text) for text in texts] for texts in zip(*training, strict=True))
    model = translate.Translator(Vocabulary.build(source), Vocabulary.build(target), size=32, rng=0)
    losses, checks = translate.train(
        model,
        training,
        training,
        seconds=60,
        steps=150,
        batch_size=3,
        learning_rate=0.01,
        rng=np.random.default_rng(0),
    )
    assert len(losses) == 150
    assert losses[-1] < 0.1 < losses[0]
    assert checks[-1][0] == 150
    assert translate.exact_match(model, training) == 1


# ---- The command ---------------------------------------------------------------------------------


def run(*args, **options):
    return subprocess.run(
        [sys.executable, EXAMPLES / "translate.py", *args],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        **options,
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quick")
    return folder, run("--quick", "--target", "zh", "--output", folder)


def test_quick_run(quick):
    folder, result = quick
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no warning, and no bar where nobody watches
    assert sorted(os.listdir(folder)) == ["alignment.png", "loss.png", "model.npz"]
    for name in ("alignment.png", "loss.png"):
        assert (folder / name).read_bytes().startswith(PNG)
        assert str(folder / name) in result.stdout
    for length in ("1 to  8", "9 to 16", "17 to 24", "25 to 32", "33 to 40"):
        assert re.search(rf" {length} words +[\d.]+% of \d+", result.stdout)
    assert "longer than any in training" in result.stdout
    assert "Trained 100 steps" in result.stdout


def test_load_translates_like_the_model(quick):
    folder, _ = quick
    texts = ["Friday, May 1, 2026", "1/7/26 and 2/8/27"]
    model = translate.load_model(folder / "model.npz")
    right = "".join(model.translate([text])[0].target + "\n" for text in texts)
    as_arguments = run("--load", folder / "model.npz", *texts)
    as_lines = run("--load", folder / "model.npz", input="\n".join(texts))
    assert as_arguments.stdout == as_lines.stdout == right
    assert as_arguments.stderr == ""


def test_load_names_unknown_words(quick):
    result = run(
        "--load",
        quick[0] / "model.npz",
        "Hello, January 2026",
        env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    )
    assert result.returncode == 0
    assert result.stderr == "translate.py: not in the vocabulary: Hello\n"


def test_same_seed_and_steps_give_the_same_model(tmp_path, quick):
    run("--quick", "--target", "zh", "--output", tmp_path)
    assert (tmp_path / "model.npz").read_bytes() == (quick[0] / "model.npz").read_bytes()


def test_learns_from_a_file_without_attention(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"say {n} {n % 7}\tdis {n % 7} {n}\tCC-BY\n" for n in range(100)))
    result = run("--quick", "--pairs", path, "--attention", "none", "--steps", "20", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(os.listdir(tmp_path / "translate-pairs.tsv")) == ["loss.png", "model.npz"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_keeps_the_best_model(tmp_path):
    command = [
        sys.executable,
        "-u",
        EXAMPLES / "translate.py",
        "--quick",
        "--steps",
        "5000",
        "--output",
        tmp_path,
    ]
    # A shell that runs the tests in the background has SIGINT ignored, and its children too.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
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
    assert "Stopped by Ctrl-C" in rest
    assert "Exact translations" in rest
    steps = int(re.search(r"Trained (\d+) steps", rest)[1])
    assert 0 < steps < 5000
    assert sorted(os.listdir(tmp_path)) == ["alignment.png", "loss.png", "model.npz"]
    assert translate.load_model(tmp_path / "model.npz").translate(["1/7/26"])


@pytest.fixture
def fails(monkeypatch, capsys, tmp_path):
    """Run the command with arguments that are wrong; returns its one line of complaint."""
    monkeypatch.chdir(tmp_path)

    def run_main(*args):
        monkeypatch.setattr(sys, "argv", ["translate.py", *args])
        with pytest.raises(SystemExit) as end:
            translate.main()
        code = end.value.code
        errors = capsys.readouterr().err
        if isinstance(code, str):  # the interpreter prints it and exits with 1
            errors, code = errors + code + "\n", 1
        assert code not in (0, None)
        assert errors.count("\n") == 1
        assert errors.startswith("translate.py: ")
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
        (["--target", "it"], "argument --target: invalid choice: 'it'"),
        (["--seconds", "-1"], "argument --seconds: must be a number from 0.1, got -1"),
        (["--seconds", "nan"], "argument --seconds: must be a number from 0.1, got nan"),
        (["--steps", "many"], "argument --steps: invalid int value: 'many'"),
        (["--steps", "0"], "argument --steps: must be a number from 1, got 0"),
        (["--seed", "-1"], "argument --seed: must be a number from 0, got -1"),
        (["--colour"], "unrecognized arguments: --colour"),
        (["a text"], "a text to translate needs --load MODEL"),
        (["--quick", "--longest", "2"], "at least 20 pairs with sources up to 2 words, got 0"),
        (["--load", "nowhere.npz", "a text"], "No such file or directory: 'nowhere.npz'"),
    ],
)
def test_wrong_options_are_one_line(fails, args, message):
    assert message in fails(*args)


@pytest.mark.parametrize("content", [b"", b"a\tb\n", PNG, b"PK\x03\x04...", "npy", "npz", "cut"])
def test_wrong_model_is_one_line(fails, tmp_path, content, quick):
    path = tmp_path / "model.npz"
    if content == "npy":
        with open(path, "wb") as file:
            np.save(file, np.arange(3))
    elif content == "npz":
        np.savez(path, settings="{}", weight=np.ones(3))
    elif content == "cut":
        path.write_bytes((quick[0] / "model.npz").read_bytes()[:5000])
    else:
        path.write_bytes(content)
    assert "model.npz: not a model of translate.py" in fails("--load", "model.npz", "a text")


def test_output_that_cannot_be_written_is_one_line(fails, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert "file" in fails("--quick", "--output", "file")


def test_missing_package_is_one_line(fails, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "babel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "babel", None)
    corpus._write_day.cache_clear()
    assert "pip install babel" in fails("--quick")


def test_missing_package_at_the_start_is_one_line(tmp_path):
    (tmp_path / "tqdm.py").write_text("raise ImportError(\"No module named 'tqdm'\", name='tqdm')")
    result = run(
        "--quick",
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        },
    )
    assert result.returncode == 1
    assert result.stderr == (
        "translate.py: No module named 'tqdm'; install it with: pip install tqdm\n"
    )

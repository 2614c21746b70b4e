"""The example of a language model: its text, its bits, its report, its command line."""

import os
import pathlib
import re
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES))

import language_model  # noqa: E402
import texts  # noqa: E402
import writing  # noqa: E402

import attnc  # noqa: E402
from attnc.data import Vocabulary  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"
TEXT = "Ein Rätsel: 你好, world. " * 3


def make(length=8, positions="rotary"):
    vocabulary = Vocabulary.build([list(TEXT)])
    options = {"positions": positions, "padding_index": Vocabulary.padding, "rng": 0}
    model = attnc.LanguageModel(len(vocabulary), 16, 2, 2, **options)
    return writing.Writer(model, vocabulary, {"length": length, "seed": 0})


# ---- Bits ----------------------------------------------------------------------------------------


def bits_of(writer, tokens):
    """The bits of each token but the first, from the logits of one call."""
    logits = writer.model(tokens[None])[0, :-1].astype(float)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -logs[np.arange(len(logs)), tokens[1:]] / np.log(2)


def test_loss_is_in_bits():
    writer = make()
    tokens = writer.vocabulary.encode(list(TEXT))
    loss, back = writer.loss([(tokens[:-1], tokens[1:])])
    assert loss == pytest.approx(bits_of(writer, tokens).mean(), rel=1e-5)
    writer.model.zero_grad()
    back()
    assert any(gradient.any() for gradient in writer.model.gradients.values())


@pytest.mark.parametrize("first, count", [(20, 30), (9, 1), (20, 4), (30, 41)])
def test_each_held_out_character_counts_once(first, count):
    """It is read after the four to seven before it, also where they are of the training text."""
    writer = make(length=8)
    tokens = writer.vocabulary.encode(list(TEXT * 2))[: first + count]
    windows = texts.half_read(tokens, first, 8)
    expected = []
    for n in range(first, first + count):
        start = first - 5 + (n - first) // 4 * 4  # of its window
        expected.append(bits_of(writer, tokens[start : n + 1])[-1])
    assert sum(np.count_nonzero(y) for _, y in windows) == count
    assert writer.mean_loss(windows) == pytest.approx(np.mean(expected), rel=1e-5)


def test_mean_loss_of_many_windows_is_that_of_one():
    writer = make()
    tokens = np.random.default_rng(0).integers(4, len(writer.vocabulary), 1500)
    windows = texts.windows(tokens, 8, 10)
    assert len(windows) == 150
    alone = [writer.loss([window])[0] for window in windows]
    assert writer.mean_loss(windows) == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_counts_are_those_of_a_dictionary(order):
    rng = np.random.default_rng(1)
    tokens, first, size = rng.choice([4, 5, 6, 7], 400, p=[0.6, 0.2, 0.1, 0.1]), 350, 9
    counts = defaultdict(Counter)
    for n in range(first):
        for k in range(min(order, n + 1)):
            counts[tuple(tokens[n - k : n])][tokens[n]] += 1
    bits = []
    for n in range(first, len(tokens)):
        p = 1 / size
        for k in range(order):
            seen = counts[tuple(tokens[n - k : n])]
            if seen:
                p = (seen[tokens[n]] + len(seen) * p) / (sum(seen.values()) + len(seen))
        bits.append(-np.log2(p))
    assert texts.counted(tokens, size, first, order) == pytest.approx(np.mean(bits))


def test_counts_are_probabilities():
    tokens = np.array([4, 5, 4, 5, 6] * 9)
    p = [2 ** -texts.counted(np.append(tokens, x), 7, len(tokens), 3) for x in range(7)]
    assert sum(p) == pytest.approx(1)


def test_compressors_that_are_missing_are_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "bz2", None)
    tokens = Vocabulary.build([list(TEXT)]).encode(list(TEXT))
    found = texts.others(TEXT, tokens, 30, 40)
    assert len(found) == 3 and "bz2" not in found and "lzma" in found


# ---- Text ----------------------------------------------------------------------------------------


def test_equal_paragraphs_are_kept_once(tmp_path, capsys):
    for name, text in (("a", "one\n\ntwo\r\n\r\none"), ("b", "\ufefftwo\n\nthrée")):
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    paths = [str(tmp_path / name) for name in "ab"]
    assert texts.read(paths, least=5) == "one\n\ntwo\n\nthrée"
    out = capsys.readouterr().out
    assert f"Read 13 characters of {paths[0]}.\nRead 10 characters of {paths[1]}." in out
    assert "Left out 2 of 5 paragraphs" in out


def test_text_that_python_brings(monkeypatch, tmp_path):
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(texts.sysconfig, "get_path", lambda _: str(tmp_path / "lib"))
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match="neither licence nor help topics: name a file"):
        texts.read([], least=1)
    (tmp_path / "LICENSE").write_text("You may.")
    assert texts.own_text() == {"Python's licence": "You may."}
    topics = type(sys)("topics")
    topics.topics = {"a": "One.", "b": "Two."}
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", topics)
    (tmp_path / "lib" / "LICENSE.txt").write_text("You must.")  # nearer
    assert list(texts.own_text().values()) == ["You must.", "One.\n\nTwo."]
    os.remove(tmp_path / "lib" / "LICENSE.txt")
    os.remove(tmp_path / "LICENSE")
    assert list(texts.own_text().values()) == ["One.\n\nTwo."]


# ---- Writing -------------------------------------------------------------------------------------


def test_goes_on_beyond_the_length_of_training():
    writer = make(length=8)
    writer.model.output.parameters["bias"][: Vocabulary.unknown + 1] = 50  # would win else
    prompt = "Rätsel: 你好, wor" * 2
    written = writer.go_on(prompt, 40, rng=1)
    assert len(written) == 40 and set(written) <= set(writer.vocabulary.words)
    assert written == writer.go_on(prompt, 40, rng=1) != writer.go_on(prompt, 40, rng=2)
    assert len(writer.go_on("ß", 5, temperature=0)) == 5


# ---- The command ---------------------------------------------------------------------------------


def run(*args, **options):
    return subprocess.run(
        [sys.executable, EXAMPLES / "language_model.py", *args],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        **options,
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quick") / "run"
    return folder, run("--quick", ROOT / "README.md", "--output", folder)


@pytest.fixture
def main(monkeypatch, capsys, tmp_path):
    """Run the command here; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["language_model.py", *map(str, args)])
        language_model.main()
        return capsys.readouterr()

    return call


def test_quick_run(quick):
    """The numbers that it reports, computed again from the model that it kept."""
    folder, result = quick
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert sorted(os.listdir(folder)) == ["loss.png", "model.npz"]
    assert (folder / "loss.png").read_bytes().startswith(PNG)
    found = re.findall(r"^ +(\d\.\d{3})  (.+)$", result.stdout, re.MULTILINE)
    bits = {name: float(number) for number, name in found}
    assert list(bits.values()) == sorted(bits.values(), reverse=True) and len(bits) == 5
    assert ("needs fewer" in result.stdout) == (min(bits, key=bits.get) != "this model")

    text = texts.read([str(ROOT / "README.md")], least=1)
    last = len(text) * 95 // 100
    writer = writing.load(folder)
    tokens = writer.vocabulary.encode(list(text))
    again = writer.mean_loss(texts.half_read(tokens, last, 32))
    assert bits["this model"] == pytest.approx(again, abs=0.0006)
    assert bits["this model"] < np.log2(len(writer.vocabulary)) - 1  # it has learned something
    frequency = bits["the frequency of each character"]
    assert frequency == pytest.approx(texts.counted(tokens, len(writer.vocabulary), last, 1), 1e-3)
    prompt = text[last : last + 16]
    drawn = writer.go_on(prompt, writing.SHOWN, temperature=0.8, rng=0)
    for shown in (prompt, text[last + 16 :][: writing.SHOWN], drawn):
        assert writing.indented(shown) in result.stdout
    assert "without; 100% of them are the same" in result.stdout
    cache = writer.model.new_cache()
    writer.model.generate([writer.vocabulary.encode(list(prompt))], max_length=60, cache=cache)
    assert f"with a cache, of {cache.nbytes:,} bytes" in result.stdout


def test_load_goes_on_with_prompts(quick, main, monkeypatch):
    folder, _ = quick
    writer = writing.load(folder)
    greedy = "The " + writer.go_on("The ", 50, temperature=0)
    options = "--load", folder, "--count", 50
    assert main(*options, "--temperature", 0, "The ", "The ").out == f"{greedy}\n{greedy}\n"
    drawn = main(*options, "--seed", 3, "--top-p", 0.8, "The ").out
    assert drawn == "The " + writer.go_on("The ", 50, temperature=0.8, top_p=0.8, rng=3) + "\n"
    of_the_file = main("--load", folder / "model.npz", "--count", 50, "The ").out
    assert of_the_file == main(*options, "The ").out
    as_lines = run(*map(str, options), "--temperature", "0", input="The \n\nThe \n")
    assert as_lines.stdout == f"{greedy}\n{greedy}\n"


def test_load_names_unknown_characters(quick):
    env = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    result = run("--load", quick[0], "--count", "5", "Жук", env=env)
    assert result.returncode == 0
    said = r"language_model.py: not among its characters: \u0416 \u043a \u0443" + "\n"
    assert result.stderr == said


def test_same_seed_and_steps_give_the_same_model(main, tmp_path):
    (tmp_path / "text").write_text(TEXT * 9, encoding="utf-8")
    options = "--quick", "--steps", 5, "text"
    for _ in range(2):
        main(*options)
    assert sorted(os.listdir(tmp_path)) == ["language-model", "language-model-2", "text"]
    first, again = tmp_path / "language-model/model.npz", tmp_path / "language-model-2/model.npz"
    with np.load(first) as first, np.load(again) as again:
        for name in set(first.files) - {"attnc"}:
            np.testing.assert_array_equal(first[name], again[name])
        assert any(name.startswith("parameters") for name in first.files)
    assert set(writing.load("language-model").vocabulary.words) == set(TEXT)


@pytest.fixture
def fails(monkeypatch, capsys, tmp_path):
    """Run the command with arguments that are wrong; returns its one line of complaint."""
    monkeypatch.chdir(tmp_path)

    def run_main(*args):
        before = set(os.listdir(tmp_path))
        monkeypatch.setattr(sys, "argv", ["language_model.py", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            language_model.main()
        code, errors = end.value.code, capsys.readouterr().err
        if isinstance(code, str):  # the interpreter prints it and exits with 1
            errors, code = errors + code + "\n", 1
        assert code not in (0, None)
        assert errors.count("\n") == 1 and errors.startswith("language_model.py: ")
        assert set(os.listdir(tmp_path)) == before  # no folder is left behind
        return errors

    return run_main


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "text: needs at least 256 characters to learn from, got 0"),
        (b"a", "text: needs at least 256 characters to learn from, got 1"),
        (b"again\n\n" * 999, "text: needs at least 256 characters to learn from, got 7"),
        (b"caf\xe9" * 99, "text: not UTF-8, at byte 3"),
        (PNG, "text: not UTF-8, at byte 0"),
        (None, "No such file or directory: 'text'"),
    ],
)
def test_wrong_text_is_one_line(fails, tmp_path, content, message):
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    assert message in fails("--quick", "text")


@pytest.mark.parametrize(
    "args, message",
    [
        (["--seconds", "0"], "argument --seconds: must be a number from 0.1"),
        (["--seconds", "nan"], "argument --seconds: must be a number from 0.1"),
        (["--steps", "x"], "argument --steps: invalid int value: 'x'"),
        (["--dropout", "1"], "argument --dropout: must be a number from 0"),
        (["--temperature", "1"], "--temperature needs --load DIR"),
        (["--load", "x", "--quick", "y"], "--quick does nothing with --load"),
        (["--load", "nowhere", "y"], "No such file or directory: 'nowhere'"),
        (["--quick", "--length", "999999"], "needs at least 7,999,992 characters"),
        (["--quick", "--size", "9"], "num_heads must divide size 9, got 4"),
    ],
)
def test_wrong_options_are_one_line(fails, args, message):
    assert message in fails(*args)


@pytest.mark.parametrize(
    "args, message",
    [
        ([""], "a prompt needs a character at least"),
        (["--top-p", "2", "The"], "top_p must"),
    ],
)
def test_wrong_writing_is_one_line(quick, fails, args, message):
    assert message in fails("--load", quick[0], *args)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04...", "another"])
def test_wrong_model_is_one_line(fails, tmp_path, content):
    path = tmp_path / "model.npz"
    if content == "another":
        attnc.save(path, attnc.Linear(2, 3))
    else:
        path.write_bytes(content)
    assert "model.npz: not a model of language_model.py" in fails("--load", "model.npz", "a text")

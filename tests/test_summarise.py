"""The example that summarises: its pairs, its model and the way back by hand, its report."""

import collections
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from layer_checks import randomize

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("rouge_score")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import summaries  # noqa: E402
import summarise  # noqa: E402
import summarise_results as results  # noqa: E402
import summarise_scores as scores  # noqa: E402
from pointing import mixture, sigmoid, softmax  # noqa: E402
from summaries import Pair  # noqa: E402
from summarise_model import PointerGenerator, Prepared  # noqa: E402

import attnc  # noqa: E402
from attnc.data import Vocabulary  # noqa: E402


def run(*options):
    command = [sys.executable, EXAMPLES / "summarise.py", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_quick_run_reports_and_draws(tmp_path):
    done = run("--quick", "--output", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for row in ("words of the text", "no copying", "copying and coverage", "the right lines"):
        assert row in done.stdout
    assert done.stdout.count("line:  ") == 7 and "ROUGE-L over the first words" in done.stdout


def test_pairs_of_a_file(tmp_path):
    path, names = tmp_path / "pairs.tsv", [f"{a}{b}" for a in "bdfgklmnpr" for b in "aeiouy" * 2]
    texts = [f"The {name} is {' '.join(names[n : n + 20])}.\tWhat {name} is\n" for n, name in
             enumerate(names)]  # fmt: skip
    path.write_text("".join(texts))
    parts = summaries.parts(file=path, least=40)
    assert list(map(len, parts)) == [51, 3, 6]  # of 120, each is there twice
    pair = parts[0][0]
    assert pair.source == pair.body and pair.line == ["what", pair.body[1], "is"]


def test_too_few_texts_are_refused_in_one_line(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{'a long text of words ' * 3} {n}\ta line {n}\n" for n in range(9)))
    done = run("--quick", "--pairs", path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr == "summarise.py: needs at least 100 texts with a line each, got 1\n"


@pytest.mark.parametrize("wrong", ["--steps=0", "--seeds=0", "--seed=-1", "--data=news"])
def test_wrong_arguments(wrong):
    done = run("--quick", wrong)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert wrong.partition("=")[0] in done.stderr


@pytest.mark.long
def test_lines_are_better_than_the_first_words():
    """With half of the steps of the default."""
    task = summarise.Task(summaries.parts(), 3000, 500, {"size": 96, "dropout": 0.3})
    task.test = task.test[:300]
    (found, _), scorer = summarise.run(0, task), scores.rouge()
    count = scores.lead(scorer, task.validation)

    def rougeL(lines):
        pairs = zip(lines, task.test, strict=True)
        return np.mean([scores.rouge_of(scorer, words, pair.line)[2] for words, pair in pairs])

    by_name = {name: rougeL([line.words for line in lines]) for name, lines in found.items()}
    first = rougeL([scores.first_words(pair, count) for pair in task.test])
    assert by_name["copying and coverage"] > first + 5
    assert by_name["copying"] > by_name["no copying"] + 5


# ---- Pairs ---------------------------------------------------------------------------------------

MODULE = '''
"""What the module is for."""

class MaxPool:
    """The largest of *neighbours*.

    See :func:`~numpy.max`. The largest of neighbours, once more, in ten words or in a few more.

    .. versionadded:: 1.0

    >>> MaxPool()
    MaxPool of nothing

    End.
    """

    if True:
        def get_params(self):
            """Get the parameters of this

            pool: {}."""
            def inner():
                """An inner function."""
'''.format(" ".join(f"word{chr(97 + n)}" for n in range(20)))


def test_docstrings(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a.py").write_text('def f():\n    """Not read."""\n')
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "good.py").write_text(MODULE)
    found = list(summaries.docstrings([tmp_path]))
    names = [name for name, _, _ in found]
    assert names == ["MaxPool", "MaxPool get_params", "inner"]
    pool, params, inner = [summaries.pair_of(*each) for each in found]
    assert pool.line == "the largest of neighbours".split()
    body = "see numpy . max . , once more , in ten words or in a few more . end ."
    assert " ".join(pool.body) == body  # without the line, the test and the directive
    assert pool.source == ["max", "pool", ":", *pool.body]
    assert params.source[:5] == ["max", "pool", "get", "params", ":"]
    assert params.line == "get the parameters of this".split() and inner is None


STANZA = """Package: {}
Version: 1
Description{}: {}
 The first paragraph, which is so long
 that it has two lines and more words.
 .
 The second one.
Section: misc

"""


def test_packages(tmp_path):
    text = STANZA.format("good-tool", "", "tool that is good") + "Package: none\n\n"
    (tmp_path / "status").write_text(text + STANZA.format("other", "-en", "another good tool"))
    found = list(summaries.packages([f"{tmp_path}/stat*", f"{tmp_path}/nothing*"]))
    assert [(name, line) for name, _, line in found] == [
        ("good-tool", "tool that is good"), ("other", "another good tool"),
    ]  # fmt: skip
    body = found[0][1]
    assert body.split("\n\n")[1] == "The second one." and "two lines" in body


def test_without():
    assert summaries.without(list("xabyabaabz"), list("ab")) == list("xyaz")
    assert summaries.without(list("aaa"), list("aa")) == ["a"]
    assert summaries.without([], ["a"]) == []


def test_nothing_is_there_twice_or_in_two_parts():
    parts = summaries.parts(most=1000)
    every = [pair for part in parts for pair in part]
    assert len(every) > 700 and all(parts) and len(parts[2]) > 50

    def letters(words):
        return "".join(c for word in words for c in word if c.isalpha())

    for side in ("source", "line"):
        seen = [{letters(getattr(pair, side)) for pair in part} for part in parts]
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert max(collections.Counter(" ".join(pair.line) for pair in every).values()) == 1
    for pair in every:
        assert 3 <= len(pair.line) <= 15 and 10 <= len(pair.source) <= 60
        assert f" {' '.join(pair.line)} " not in f" {' '.join(pair.body)} "


# ---- The model -----------------------------------------------------------------------------------


def problem(rng, dtype=np.float64, size=(4, 6, 5)):
    """Three words of a vocabulary of 6, one of which the text has, and one that is copied."""
    n, V, Tk = size
    source = np.array([[4, 5, 7, 4, 8], [4, 5, 6, 0, 0], [5, 5, 5, 6, 0], [4, 7, 4, 8, 7]])
    weights = rng.random((n, Tk)) * (source > 0)
    weights /= weights.sum(axis=-1, keepdims=True)
    arrays = rng.standard_normal((n, V)), rng.standard_normal(n), weights
    return [x.astype(dtype) for x in arrays], np.array([4, 2, 5, 7]), source


def test_the_mixture_is_the_formula(rng):
    (logits, switch, weights), labels, source = problem(rng)
    (losses, p_gen, written), _ = mixture(logits, switch, weights, labels, source)
    for n, label in enumerate(labels):
        P = np.zeros(9)
        p = 1 / (1 + np.exp(-switch[n]))
        P[:6] = p * np.exp(logits[n]) / np.exp(logits[n]).sum()
        by_word = P[label]
        for i, word in enumerate(source[n]):
            P[word] += (1 - p) * weights[n, i]
        assert P.sum() == pytest.approx(1)
        np.testing.assert_allclose(losses[n], -np.log(P[label]))
        np.testing.assert_allclose([p_gen[n], written[n]], [p, by_word / P[label]])


def test_gradients_of_the_mixture(rng):
    arrays, labels, source = problem(rng)

    def losses(*arrays):
        return mixture(*arrays, labels, source)[0][0]

    back = mixture(*arrays, labels, source)[1]
    attnc.check_gradients(losses, back, *arrays)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mixture_without_overflow(rng, dtype):
    """Impossible ways, a switch that is sure, weights of 0: no NaN, no inf, no warning."""
    (logits, switch, weights), labels, source = problem(rng, dtype)
    logits = logits * dtype(1000)
    weights[:2] = [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    weights[3] = [0, 0, 0, 1, 0]  # the word that can only be copied has no weight
    for far in (-200, 0, 200):
        with np.errstate(all="raise", under="ignore"):
            (losses, p_gen, written), pullback = mixture(
                logits, dtype(far) + switch, weights, labels, source
            )
            gradients = pullback(np.ones(4, dtype))
        assert all(np.isfinite(x).all() for x in (losses, p_gen, written, *gradients))
        assert all(x.dtype == dtype for x in (losses, *gradients))
        assert written[3] == 0 and losses[3] > 80


def model_and_batch(rng, copies=True, **options):
    """A small model of a vocabulary of 6 words, and a batch with padding."""
    model = PointerGenerator(6, 8, 4, copies=copies, rng=0, dtype="float64", **options)
    source = np.array([[4, 5, 6, 4, 7], [5, 6, 5, 0, 0], [6, 7, 8, 4, 0]])
    labels = np.array([[6, 4, 2, 0], [5, 5, 6, 2], [3, 2, 0, 0]])
    before = np.pad(labels[:, :-1], ((0, 0), (1, 0)), constant_values=1)
    return randomize(model, rng, 0.3), (source, np.array([5, 3, 4]), before, labels)


@pytest.mark.parametrize("copies, dropout", [(True, 0.0), (False, 0.0), (True, 0.3)])
def test_gradients(copies, dropout, rng):
    """Of every parameter, with coverage and its loss, against differences."""
    model, batch = model_and_batch(rng, copies, dropout=dropout)
    model.decoder.unfreeze("coverage_vector")
    options = {"coverage": 0.7} | ({"rng": 5} if dropout else {})
    _, pullback = attnc.vjp(model, *batch, **options)
    pullback()
    got = {name: g.copy() for name, g in model.gradients.items()}
    assert set(got) == set(model.state_dict())
    for name, value in model.state_dict().items():
        step, found = rng.standard_normal(value.shape), []
        if name == "words.weight":
            step[0] = 0  # padding is not learned
        for h in (1e-5, -1e-5):
            model.parameters[name] = value + h * step
            found.append(model(*batch, **options).loss)
        model.parameters[name] = value
        wanted = (found[0] - found[1]) / 2e-5
        np.testing.assert_allclose((got[name] * step).sum(), wanted, rtol=1e-6, atol=1e-8)
        given = "initial" in name or not copies and name.startswith("switch")
        if not given:  # the first state is; and without copies p_gen
            assert np.abs(got[name]).max() > 0, name


def test_padding_changes_nothing(rng):
    model, batch = model_and_batch(rng)
    together = model(*batch)
    for n, (row, length) in enumerate(zip(batch[0], batch[1], strict=True)):
        T = np.count_nonzero(batch[3][n])
        one = model(row[None, :length], batch[1][n : n + 1], *(x[n : n + 1, :T] for x in batch[2:]))
        np.testing.assert_allclose(together.written[n, :T], one.written[0], rtol=1e-9)
        np.testing.assert_allclose(together.p_gen[n, :T], one.p_gen[0], rtol=1e-9)
        assert (together.weights[n, :, length:] == 0).all()


@pytest.mark.parametrize("copies", [True, False])
def test_steps_are_the_loss(rng, copies):
    """The probabilities that a search sees, step by step, are those that are trained."""
    model, (source, lengths, before, labels) = model_and_batch(rng, copies)
    model.decoder.unfreeze("coverage_vector")
    labels[2, 0] = before[2, 1] = 8  # not unknown, which a search does not write
    if not copies:
        labels = np.where(labels < 6, labels, 5)
        before = np.where(before < 6, before, 5)
    loss = model(source, lengths, before, labels).loss
    memory, state = model.prepare_source(source, lengths, 9)
    found = []
    for t in range(labels.shape[1]):
        scores, _, state = model.step(before[:, t], memory, state)
        assert scores.shape == (3, 9)
        assert (np.exp(scores).sum(axis=1) <= 1 + 1e-9).all()
        assert (scores[:, [0, 1, 3]] == -np.inf).all()
        counted = labels[:, t] > 0
        found += scores[counted, labels[counted, t]].tolist()
    np.testing.assert_allclose(-np.mean(found), loss)


def test_coverage_waits_for_the_last_phase(rng):
    model, batch = model_and_batch(rng)
    model.parameters["decoder.coverage_vector"] = np.zeros(8)
    attnc.vjp(model, *batch)[1]()
    assert not model.gradients["decoder.coverage_vector"].any()
    model.decoder.unfreeze("coverage_vector")
    attnc.vjp(model, *batch)[1]()
    assert model.gradients["decoder.coverage_vector"].any()
    again = model(*batch, coverage=1.0).loss - model(*batch).loss
    mask = batch[3] > 0
    wanted = attnc.losses.coverage_loss(model(*batch).weights, mask=mask)
    np.testing.assert_allclose(again, wanted)


def test_memories_of_a_search(rng):
    model, (source, lengths, *_) = model_and_batch(rng)
    memory, _ = model.prepare_source(source, lengths, 9)
    taken = memory.take(np.array([2, 2, 0]))
    assert isinstance(taken, Prepared) and len(taken) == 3 and len(taken.memory) == 3
    assert taken.source.tolist() == source[[2, 2, 0]].tolist()


def test_it_learns_to_copy_what_it_has_never_seen():
    """The last word of a line stands after "of" in the text, and is in no other text."""
    rng = np.random.default_rng(0)

    def pair(n):
        name = f"name{n}"
        others = [f"w{k}" for k in rng.integers(0, 20, 8)]
        at = rng.integers(0, 8)
        text = [*others[:at], "of", name, *others[at:]]
        return Pair(text, text, ["line", "of", name])

    pairs = [pair(n) for n in range(460)]
    task = summarise.Task((pairs[:400], pairs[400:430], pairs[430:]), 100, 240, {})
    task.vocabulary = Vocabulary(["of", "line", *(f"w{k}" for k in range(20))])
    model = PointerGenerator(len(task.vocabulary), 32, 16, rng=0)
    course = summarise.Course(240, 32, 0.01)
    summarise.train(model, task, course, 0.0, 0, "")
    lines = summarise.write(model, task, task.test)
    right = [line.words == pair.line for line, pair in zip(lines, task.test, strict=True)]
    assert np.mean(right) > 0.9
    copied = [scores.copied_words(line) for line in lines]
    assert all(flags[2] for flags in copied) and np.mean([flags[0] for flags in copied]) < 0.1
    assert results.marked(lines[0]).endswith(f"{pairs[430].line[2]}]")


# ---- Scores --------------------------------------------------------------------------------------


def lcs(a, b):
    """The length of the longest common subsequence, by its definition."""
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + lcs(a[1:], b[1:])
    return max(lcs(a[1:], b), lcs(a, b[1:]))


@pytest.mark.parametrize("right", ["get the name of it", "the dog", "a cat the dog sat"])
def test_rouge_is_f_of_what_is_common(right):
    words, right = "get a name of the dog".split(), right.split()
    one, two, long = scores.rouge_of(scores.rouge(), words, right)

    def f(common, a, b):
        return 200 * common / (a + b)

    counts = collections.Counter(words) & collections.Counter(right)
    assert one == pytest.approx(f(counts.total(), len(words), len(right)))
    assert long == pytest.approx(f(lcs(words, right), len(words), len(right)))
    pairs = [collections.Counter(zip(x, x[1:], strict=False)) for x in (words, right)]
    common = (pairs[0] & pairs[1]).total()
    assert two == pytest.approx(f(common, len(words) - 1, len(right) - 1))


def test_scores():
    pairs = [Pair("a b c d".split(), None, "a b c".split()), Pair(["x"], None, ["y", "z", "y"])]
    lines = ["a b c a b c".split(), ["x", "z", "y"]]
    copied = [np.array([1, 1, 0, 0, 0, 0], bool), np.array([1, 0, 0], bool)]
    found = scores.scores(scores.rouge(), lines, copied, pairs)
    assert found.repeated == 1 / 5 and found.copied == 3 / 9
    assert found.inside == 7 / 9 and found.long == 4.5


def test_first_words():
    pair = Pair([], "( a ) b , _c d".split(), "b _c d".split())
    assert scores.first_words(pair, 3) == ["a", "b", "_c"]
    body = "the name of the dog in the house by the lake under the tree".split()
    assert scores.lead(scores.rouge(), [Pair([], body, body[:5])]) == 5


def test_most_similar():
    texts = ["the red cat sat".split(), "a dog ran home".split(), "the the the of of".split()]
    training = [Pair(text, text, [str(n)]) for n, text in enumerate(texts)]
    asked = [Pair(text.split(), [], []) for text in ("the cat", "my dog", "of the sea")]
    assert scores.most_similar(training, asked) == [["0"], ["1"], ["2"]]


def test_the_picture(rng, tmp_path):
    weights = rng.random((4, 5))
    weights /= weights.sum(axis=1, keepdims=True)
    line = scores.Line(["a", "b", "c"], weights, np.full(4, 0.25), np.array([1, 0.2, 0.3, 1]))
    pair = Pair("u v w x".split(), None, ["a", "c"])
    axes = results.draw(line, pair, tmp_path / "a")
    assert (tmp_path / "a").read_bytes().startswith(b"\x89PNG")
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles[:3] == ["a:  p_gen 0.25", "b:  p_gen 0.25, copied", "c:  p_gen 0.25, copied"]
    assert [text.get_text() for text in axes[3].texts] == pair.source
    colours = [ax.collections[0].get_array() for ax in axes]
    wanted = np.minimum(weights[:3, :4].sum(axis=0), 1)
    np.testing.assert_allclose(colours, [*weights[:3, :4], wanted])
    assert results.marked(line) == "a [b c]"
    matplotlib.pyplot.close("all")


def test_softmax_and_sigmoid():
    x = np.array([[-1000.0, 0, 1000]])
    np.testing.assert_allclose(softmax(x), [[0, 0, 1]])
    np.testing.assert_allclose(sigmoid(x), [[0, 0.5, 1]], atol=1e-300)

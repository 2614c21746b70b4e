"""The example that compares global and local attention on dates of known alignment."""

import datetime
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from layer_checks import randomize

pytest.importorskip("babel")
matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import aligned_dates as data  # noqa: E402
import global_vs_local as example  # noqa: E402
from dates import Dates  # noqa: E402

import attnc  # noqa: E402
from attnc.data import Vocabulary  # noqa: E402


@pytest.fixture(scope="module")
def pairs():
    return data.aligned_pairs("en", "fr", 300, np.random.default_rng(0), longest=3)


@pytest.fixture
def sets(pairs):
    words = [Vocabulary.build([list(pair[side]) for pair in pairs]) for side in (0, 1)]
    return example.Data(pairs, *words), [len(w) for w in words]


def test_a_quick_run_prints_a_table_and_draws_it(tmp_path):
    command = [sys.executable, EXAMPLES / "global_vs_local.py", "--quick"]
    command += ["--output", tmp_path / "a.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for name in example.attentions(4, 9, 2, 0):
        assert f"\n{name} " in done.stdout
    assert "alignment error" in done.stdout


@pytest.mark.parametrize("wrong", ["--steps=0", "--window=0", "--dates=0", "--seed=-1"])
def test_wrong_arguments(wrong):
    command = [sys.executable, EXAMPLES / "global_vs_local.py", "--quick", wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert wrong[2:6] in done.stderr


# ---- What belongs to what ------------------------------------------------------------------------


def links(parts_of_source, parts_of_target):
    """The sure links as pairs of places (source, target), and the rows that have possible ones."""
    sure, possible = data.alignment(parts_of_source, parts_of_target)
    assert not (sure & ~possible).any()
    rows = {int(t): np.flatnonzero(possible[t]).tolist() for t in possible.any(axis=1).nonzero()[0]}
    return sorted((int(s), int(t)) for t, s in zip(*sure.nonzero(), strict=True)), rows


def test_by_hand():
    source = [("May", "M"), (" ", None), ("7", "d"), ("/", None), ("26", "y")]
    target = [("07", "d"), (" ", None), ("mai", "M"), (" ", None), ("2026", "y")]
    sure, rows = links(source, target)
    #          M a y _ 7 / 2 6                0 7 _ m a i _ 2 0 2 6
    assert sure == [(4, 1), (6, 9), (7, 10)]
    assert rows == {
        0: [4], 1: [4], 3: [0, 1, 2], 4: [0, 1, 2], 5: [0, 1, 2],
        7: [6, 7], 8: [6, 7], 9: [6], 10: [7],
    }  # fmt: skip


@pytest.mark.parametrize("target", ["fr", "de", "ja", "hu"])
def test_texts_are_those_of_the_dates(target):
    rng = np.random.default_rng(1)
    for length in ("short", "medium", "long", "full", "yMMMM"):
        for size in (1, 2, 3, 4):
            days = [
                datetime.date(1950, 1, 1) + datetime.timedelta(days=int(d))
                for d in rng.integers(data.DAYS, size=size)
            ]
            for language in ("en", target):
                dates = Dates.of(language)
                parts = data.parts_of_list(dates, days, length)
                assert "".join(text for text, _ in parts) == dates.write(days, length)
                years = [said for _, said in parts if said and said[1] == "y"]
                assert years == [(n, "y") for n in range(size)]


def test_every_digit_of_a_number_is_sure(pairs):
    assert len({pair.source for pair in pairs}) == len(pairs) > 250
    for pair in pairs:
        for t, s in zip(*pair.sure.nonzero(), strict=True):
            assert pair.target[t] == pair.source[s] and pair.target[t].isdigit()
            assert pair.possible[t].sum() == 1
        digits = [character.isdigit() for character in pair.source]
        assert pair.sure.sum(axis=0)[digits].min() >= 1 or "/" in pair.source
        assert (pair.sure.sum(axis=0) <= 1).all()
        signs = [not c.isalnum() and c != "." for c in pair.target]
        assert not pair.possible[signs].any()


def test_alignment_error():
    sure = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0]], bool)
    possible = sure | np.array([[0, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    pair = data.Pair("abc", "xyz", sure, possible)
    # A has two links, for z has no source; S has one.
    assert data.alignment_error([[0, 2, 1]], [pair]) == 1 - (1 + 2) / (2 + 1)
    assert data.alignment_error([[1, 2, 0]], [pair]) == pytest.approx(1 - (0 + 1) / (2 + 1))
    assert data.alignment_error([[0, 3, 9]], [pair]) == pytest.approx(1 - (1 + 1) / (2 + 1))
    assert data.alignment_error([[0, 1, 0]] * 2, [pair] * 2) == 0


# ---- Models --------------------------------------------------------------------------------------


def test_the_location_score(rng):
    layer = randomize(example.LocationAttention(3, 4, rng=0, dtype="float64"), rng)
    query, memory = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 6, 2))
    memory[1, 3:] = np.nan  # padding
    context, weights = layer(query, memory, key_lengths=[6, 3], return_weights=True)
    W = layer.parameters["score.weight"]
    for row, length in enumerate((4, 3)):  # of six keys, four have a place
        a = np.exp(query[row] @ W[:, :length])
        a /= a.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(weights[row], np.pad(a, ((0, 0), (0, 6 - length))), rtol=1e-12)
        np.testing.assert_allclose(context[row], a @ memory[row, :length], rtol=1e-12)
    assert layer(query[:, :, :], memory[:, :2]).shape == (2, 5, 2)  # fewer keys than places


@pytest.mark.parametrize("name", example.attentions(4, 9, 2, 0))
def test_gradients(name, sets, rng):
    """Of every parameter, against differences, for the loss as it is trained."""
    data, sizes = sets
    attention = example.attentions(8, 99, 3, 0, "float64")[name]
    model = randomize(example.Translator(sizes, 8, attention, rng, dtype="float64"), rng, 0.1)
    _, batch = next(iter(data.batches(5)))
    _, pullback = attnc.vjp(model, *batch)
    pullback()
    got = {name: g.copy() for name, g in model.gradients.items()}
    for name, value in model.state_dict().items():
        step, found = rng.standard_normal(value.shape), []
        if name in ("source.weight", "target.weight"):
            step[Vocabulary.padding] = 0  # which is not learnt
        for h in (1e-5, -1e-5):
            model.parameters[name] = value + h * step
            found.append(model(*batch)[0])
        model.parameters[name] = value
        wanted = (found[0] - found[1]) / 2e-5
        np.testing.assert_allclose((got[name] * step).sum(), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", example.attentions(4, 9, 2, 0))
def test_translating_takes_the_steps_of_training(name, sets, rng):
    """What it wrote, read as the right text: the same characters and weights come out."""
    data, sizes = sets
    attention = example.attentions(8, 99, 3, 0)[name]
    model = example.Translator(sizes, 8, attention, rng)
    _, (source, lengths, _, _) = next(iter(data.batches(6)))
    tokens, weights = model.translate(source, lengths, 12)
    target = np.concatenate([np.full((6, 1), Vocabulary.start), tokens], axis=1)
    _, logits, forced = model(source, lengths, target[:, :-1], target[:, 1:])
    ended = (tokens == Vocabulary.padding).cumsum(axis=1) > 0
    assert (logits.argmax(axis=-1) == tokens)[~ended].all()
    np.testing.assert_allclose(forced[~ended], weights[~ended], rtol=1e-4, atol=1e-6)


def test_the_dot_model_is_the_decoder_of_luong(sets, rng):
    """`Seq2Seq` with order='luong' and no input feeding has the same decoder."""
    data, sizes = sets
    model = example.Translator(sizes, 8, attnc.DotProductAttention(scale=1.0), rng)
    _, (source, lengths, target, labels) = next(iter(data.batches(4)))
    decoder = attnc.AttentionDecoder(4, 8, 8, attention="dot", order="luong", rng=0)
    for name, ours in model.decoder.parameters.items():
        decoder.parameters[name] = ours
    decoder.parameters["readout_weight"] = model.readout.parameters["weight"]
    memory, final = model.encoder(model.source(source), lengths=lengths)
    state = np.concatenate(list(final), axis=-1)[None]
    outputs, weights, _ = decoder(model.target(target), memory, state, key_lengths=lengths)
    _, logits, ours = model(source, lengths, target, labels)
    np.testing.assert_allclose(ours, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(logits, model.output(outputs), rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_what_global_attention_reaches():
    """On single dates, a small model in a quarter of the steps."""
    rng = np.random.default_rng(0)
    pairs = data.aligned_pairs("en", "fr", 4000, rng, longest=1)
    words = [Vocabulary.build([list(pair[side]) for pair in pairs]) for side in (0, 1)]
    test, training = (example.Data(some, *words) for some in (pairs[:200], pairs[200:]))
    attention = attnc.DotProductAttention(scale=1.0)
    model = example.Translator([len(w) for w in words], 64, attention, rng)
    example.train(model, training, 300, rng, "dot")
    perplexity, exact, error, _ = example.measure(model, test)
    assert perplexity < 1.15 and exact > 0.75 and error < 0.3

"""The example that learns what a pronoun stands for."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from layer_checks import check_layer, randomize

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import pronoun  # noqa: E402
import pronoun_results as results  # noqa: E402
import pronoun_sentences as data  # noqa: E402


@pytest.fixture(scope="module")
def parts():
    return data.split(np.random.default_rng(0))


@pytest.fixture
def model(rng):
    return pronoun.Attentive(16, rng, layers=2, heads=4)


def test_a_quick_run_reports_and_draws(tmp_path):
    command = [sys.executable, EXAMPLES / "pronoun.py", "--quick", "--output", tmp_path / "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pictures = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert pictures == ["layer-0.png", "layer-1.png"]
    for name in pictures:
        assert (tmp_path / "a" / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for text in (*data.PATTERNS, "bag of words", "head 3", "answers are wrong", *pictures):
        assert text in done.stdout, text


@pytest.mark.parametrize("wrong", ["--steps=0", "--steps=x", "--layers=0", "--heads=3"])
def test_wrong_arguments(wrong, tmp_path):
    command = [sys.executable, EXAMPLES / "pronoun.py", "--quick", "--output", tmp_path]
    done = subprocess.run([*command, wrong], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert wrong[2:7] in done.stderr


# ---- Sentences -----------------------------------------------------------------------------------


def test_no_pair_is_in_two_parts(rng, parts):
    drawn = {part: data.draw(rng, parts, part, 3000) for part in set(parts.values())}
    assert set(drawn) == {"training", "validation", "test"}
    pairs = {part: data.pairs(sentences) for part, sentences in drawn.items()}
    for part, other in (("training", "validation"), ("training", "test"), ("validation", "test")):
        assert pairs[part] and not pairs[part] & pairs[other]
    # The words themselves, without what draw says of them.
    for part, sentences in drawn.items():
        for s in sentences:
            nouns = [word for word in s.words if any(word in n for n in data.NOUNS.values())]
            assert sorted(nouns) == sorted([s.meant, s.other])
            assert {parts[noun, s.words[-1]] for noun in nouns} == {part}


def test_every_word_of_the_test_is_in_training(rng, parts):
    seen = {word for s in data.draw(rng, parts, "training", 5000) for word in s.words}
    assert seen == set(data.TOKENS)


def test_who_is_meant():
    """By sentences of which any reader knows it."""
    rng, everything = np.random.default_rng(0), dict.fromkeys(data.split(np.random.default_rng(0)))
    meant = {
        ("dog", "river", "tired"): "dog",
        ("dog", "river", "wide"): "river",
        ("cow", "bridge", "steep"): "bridge",
        ("goat", "path", "thirsty"): "goat",
    }
    found = 0
    for s in data.draw(rng, everything, None, 60_000):
        nouns = {s.meant, s.other}
        for (first, second, adjective), right in meant.items():
            if nouns == {first, second} and s.adjective == adjective:
                assert s.meant == right
                found += 1
        text = " ".join(s.words)
        if "did not fit in" in text:
            inside, around = text.partition(" did")[0].split()[-1], text.split(" in the ")[-1]
            large = s.adjective in data.PATTERNS[s.pattern].first
            assert s.meant == (inside if large else around.split()[0])
        if "was not caught by" in text:
            hunted, hunter = text.partition(" was")[0].split()[-1], text.split(" by the ")[1]
            slow = s.adjective in data.PATTERNS[s.pattern].first
            assert s.meant == (hunter.split()[0] if slow else hunted)
    assert found > 10


def test_no_adjective_fits_both_nouns():
    for pattern in data.PATTERNS.values():
        assert not set(pattern.first) & set(pattern.second)
        assert all(text.count("{}") == 2 for text in pattern.forward + pattern.backward)
        assert not set(pattern.forward) & set(pattern.backward)


def test_the_sentences_of_the_picture_are_held_out(parts):
    for noun in ("animal", "street"):
        assert parts[noun, "tired"] == parts[noun, "wide"] == "test"


def test_arrays(rng, parts):
    sentences = data.draw(rng, parts, "training", 50)
    tokens, lengths, meant = data.arrays(sentences)
    words = ["", *data.TOKENS]
    for s, row, length, noun in zip(sentences, tokens, lengths, meant, strict=True):
        assert tuple(words[token] for token in row[:length]) == s.words
        assert not row[length:].any() and words[noun] == s.meant
        assert s.words.count("it") == 1


# ---- Models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, options", [("Bag", {}), ("Attentive", {"layers": 2, "heads": 2})])
def test_gradients(rng, parts, kind, options):
    made = randomize(getattr(pronoun, kind)(8, rng, **options, dtype="float64"), rng, 0.1)
    sentences = data.draw(rng, parts, "training", 200)
    # Without padding: its vector is 0 and not learnt, which differences do not know.
    tokens, lengths, _ = data.arrays([s for s in sentences if len(s.words) == 12][:6])
    check_layer(made, (tokens, lengths), {}, rng)


def test_a_bag_has_no_order_and_attention_has(rng, model):
    bag = pronoun.Bag(16, rng)
    words = "the dog did not catch the cat because it was too slow".split()
    turned = "the cat did not catch the dog because it was too slow".split()
    sentences = [data.Sentence(text, "dog", "cat", "slow", None) for text in (words, turned)]
    tokens, lengths, _ = data.arrays(sentences)
    np.testing.assert_allclose(*bag(tokens, lengths), rtol=1e-5, atol=1e-6)
    first, second = model(tokens, lengths)
    assert np.abs(first - second).max() > 1e-3


def test_padding_changes_nothing(rng, parts, model):
    tokens, lengths, _ = data.arrays(data.draw(rng, parts, "training", 6))
    longer = np.pad(tokens, ((0, 0), (0, 4)))
    np.testing.assert_allclose(model(longer, lengths), model(tokens, lengths), rtol=1e-5, atol=1e-6)


def test_where_it_looks(rng, parts, model):
    sentences = data.draw(rng, parts, "test", 40)
    tokens, lengths, _ = data.arrays(sentences)
    weights = model.weights(tokens, lengths)
    assert weights.shape == (40, 2, 4, tokens.shape[1])
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    shares = {noun: results.looks_at(model, sentences, noun) for noun in ("meant", "other")}
    for layer, head in np.ndindex(2, 4):
        largest = [
            s.words[w.argmax()] for s, w in zip(sentences, weights[:, layer, head], strict=True)
        ]
        for noun, share in shares.items():
            named = [word == getattr(s, noun) for s, word in zip(sentences, largest, strict=True)]
            assert share[layer, head] == np.mean(named)


def test_a_bag_learns_which_adjectives_go_with_animals(rng, parts):
    bag = pronoun.Bag(32, rng)
    seen = pronoun.train(bag, rng, parts, 1000, "bag")
    assert seen <= {pair for pair, part in parts.items() if part == "training"}
    test = data.draw(rng, parts, "test", 500)
    right = np.array(results.answers(bag, test)) == [s.meant for s in test]
    order = np.array([s.pattern in list(data.PATTERNS)[1:] for s in test])
    assert right[~order].mean() > 0.75 and right[order].mean() < 0.65


@pytest.mark.long
def test_what_it_reaches(parts):
    """As the command does by default, without the report: some 20 seconds."""
    rng = np.random.default_rng(0)
    validation, test = (data.draw(rng, parts, part, 1000) for part in ("validation", "test"))
    model = pronoun.Attentive(64, rng, layers=2, heads=4)
    seen = pronoun.train(model, rng, parts, 2500, "attention")
    assert not seen & data.pairs(test) and not seen & data.pairs(validation)
    right = np.array(results.answers(model, test)) == [s.meant for s in test]
    assert right.mean() >= 0.95
    best = results.looks_at(model, validation, "meant").argmax()
    assert results.looks_at(model, test, "meant").flat[best] >= 0.8


def test_the_picture(model, tmp_path):
    axes = results.picture(model, 1, tmp_path / "a.png")
    assert len(axes) == 8
    pair = [
        f"the animal did not cross the street because it was too {a}" for a in ("tired", "wide")
    ]
    at = pair[0].split().index("it")
    sentences = [data.Sentence(text.split(), "animal", "street", "", None) for text in pair]
    weights = model.weights(*data.arrays(sentences)[:2])[:, 1].reshape(8, -1)
    for n, ax in enumerate(axes):
        left = [text.get_text() for text in ax.texts if text.xy[0] == 0]
        right = [text.get_text() for text in ax.texts if text.xy[0] == 1]
        assert left == right == pair[n // 4].split()
        assert ax.get_title() == f"{('tired', 'wide')[n // 4]}: head {n % 4}"
        (lines,) = ax.collections
        paths, widths = lines.get_paths(), lines.get_linewidths()
        ends = {path.vertices[-1, 1]: width for path, width in zip(paths, widths, strict=True)}
        widths = np.array([ends[row] for row in range(len(right))])
        np.testing.assert_allclose(widths / widths.sum(), weights[n], rtol=1e-5, atol=1e-7)
        assert {path.vertices[0, 1] for path in paths} == {at}
    matplotlib.pyplot.close("all")

"""The example that asks what follows from a sentence: its taxonomies, pairs, models, and table."""

import pathlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from layer_checks import randomize

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import entail  # noqa: E402
import entail_models as models  # noqa: E402
import entail_results as results  # noqa: E402
import taxonomy  # noqa: E402
from entail_pairs import ADJECTIVES, LABELS, PREPOSITIONS, VERBS, Pairs, arrays  # noqa: E402

import attnc  # noqa: E402

needs_wordnet = pytest.mark.skipif(
    not taxonomy.is_installed(), reason="needs apt install wordnet-base"
)
KINDS = [kind for kind, *_ in entail.MODELS.values()]


# ---- The command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [["--nouns=built-in", "--seeds=2"], pytest.param([], marks=needs_wordnet)]
)
def test_a_quick_run_prints_a_table_and_draws_it(more, tmp_path):
    command = [sys.executable, EXAMPLES / "entail.py", "--quick", "--output", tmp_path / "a.png"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for name in entail.MODELS:
        (row, *_) = [line for line in done.stdout.splitlines() if line.startswith(f"{name}  ")]
        assert row.count("%") == 5 + (name in ("word by word", "decomposable"))
    assert ("Means of 2 seeds" in done.stdout) == bool(more)
    assert "nan" not in done.stdout


@pytest.mark.parametrize(
    "wrong", ["--steps=0", "--steps=x", "--seed=-1", "--seeds=0", "--nouns=animals"]
)
def test_wrong_arguments(wrong):
    command = [sys.executable, EXAMPLES / "entail.py", "--quick", wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 and wrong.split("=")[0] in done.stderr


@pytest.mark.long
def test_attention_finds_what_a_bag_and_two_lstms_do_not():
    """As the command does by default, with the nouns that are always there."""
    args = SimpleNamespace(nouns="built-in", steps=3000, lessons=50_000, tests=3_000)
    found, _ = entail.run(0, args)
    assert 0.29 < found["hypothesis alone"].unseen < 0.38
    assert found["two LSTMs"].unseen > 0.45 and found["bag of words"].unseen > 0.55
    others = found["two LSTMs"].unseen, found["bag of words"].unseen
    assert found["decomposable"].unseen > max(0.75, max(others) + 0.1)
    assert found["decomposable"].looks > 0.6
    assert found["word by word"].unseen > found["two LSTMs"].unseen - 0.03


@pytest.mark.parametrize("unseen", [0.2, 0.5])
def test_conclusions(unseen):
    """They say what the figures say, whichever they are."""
    names = list(entail.MODELS)
    mean = {n: entail.Found(1, 1.0, 0.9, 0.4, [], np.nan) for n in names}
    mean["word by word"] = mean["word by word"]._replace(unseen=unseen)
    said = "\n".join(results.conclusions(mean))
    apart = "20.0 points less" if unseen == 0.2 else "10.0 points more"
    assert f"word by word, beside two LSTMs: right in {apart} of the unseen pairs" in said
    best = "hypothesis alone, without" if unseen == 0.2 else "word by word, with"
    assert f"by {best} attention" in said


# ---- Taxonomies ----------------------------------------------------------------------------------


def parents():
    """{noun: the one right above it} of the built-in taxonomy, by its indentation."""
    above, root = {}, None
    for text in taxonomy.BUILT_IN:
        for line in text.strip().split("\n"):
            first, *leaves = line.replace(":", "").split()
            above |= dict.fromkeys(leaves, first)
            if line[0] == " ":
                above[first] = root
            else:
                root = first
                above[root] = None
    return above


def chain(noun, above):
    """A noun and all above it."""
    found = []
    while noun is not None:
        found.append(noun)
        noun = above[noun]
    return found


def expected(premise, hypothesis, above):
    if hypothesis in chain(premise, above):
        return "entailment"
    return "neutral" if premise in chain(hypothesis, above) else "contradiction"


def test_the_built_in_taxonomy():
    above, parts = parents(), taxonomy.built_in()
    words = [noun for nouns in parts for noun in nouns]
    assert sorted(words) == sorted(above) and len(words) == len(set(words)) == 89
    assert {len(chain(noun, above)) for noun in words} == {1, 2, 3}
    for nouns in parts:
        for one in nouns:
            for other in nouns:
                got = taxonomy.relation(nouns[one], nouns[other])
                assert got == expected(one, other, above), (one, other)


# A dog is an animal; a puppy is a dog and a youngster; Rex is a name; "bark" is met more often for
# a boat than for a noise; one meaning has two words, of which "hound" is the more frequent.
DATA = """\
  1 This is a licence.
00000010 03 n 01 animal 0 002 ~ 00000020 n 0000 ~ 00000050 n 0000 | a living being
00000020 05 n 03 dog 0 hound a Canis_familiaris 0 003 @ 00000010 n 0000 #m 00000050 n 0000 \
~ 00000030 n 0000 | a friend; "~ 00000099 n 0000"
00000030 05 n 01 puppy 0 002 @ 00000020 n 0000 @ 00000050 n 0000 | a small one
00000040 18 n 01 Rex 0 001 @i 00000020 n 0000 | a dog
00000050 05 n 01 youngster 1 001 @ 00000010 n 0000 | a young animal
00000060 05 n 01 cat 0 001 @ 00000010 n 0000 | no dog
00000070 06 n 01 bark 0 000 | a boat
00000080 05 n 01 bark 1 001 @ 00000010 n 0000 | an animal that barks
"""
INDEX = """\
  1 This is a licence.
animal n 1 1 ~ 1 1 00000010
bark n 2 1 @ 2 1 00000070 00000080
canis_familiaris n 1 1 @ 1 0 00000020
cat n 1 1 @ 1 1 00000060
dog n 1 3 @ #m ~ 1 1 00000020
hound n 1 3 @ #m ~ 1 1 00000020
puppy n 1 1 @ 1 0 00000030
rex n 1 1 @ 1 0 00000040
youngster n 1 1 @ 1 0 00000050
"""
COUNTS = """\
animal%1:03:00:: 1 70
bark%1:05:01:: 2 2
cat%1:05:00:: 1 18
dog%1:05:00:: 1 42
hound%1:05:10:: 1 43
"""


@pytest.fixture
def wordnet(tmp_path):
    for name, text in (("data.noun", DATA), ("index.noun", INDEX), ("cntlist.rev", COUNTS)):
        (tmp_path / name).write_text(text)
    return taxonomy.WordNet(tmp_path)


def test_reading_wordnet(wordnet, tmp_path):
    assert taxonomy.is_installed(tmp_path) and not taxonomy.is_installed(tmp_path / "other")
    assert wordnet.senses["bark"] == ["00000070", "00000080"]
    assert wordnet.meaning("bark") == "00000070" and wordnet.meaning("bark#2") == "00000080"
    assert wordnet.words["00000020"] == {"dog": 42, "hound": 43, "Canis_familiaris": 0}
    assert wordnet.extension("00000020") == {"00000020", "00000030"}  # not the name, not the gloss
    animals = {f"000000{n}" for n in (10, 20, 30, 50, 60, 80)}
    assert wordnet.extension(wordnet.meaning("animal")) == animals


def test_nouns_of_wordnet(wordnet):
    """The most frequent first, then the shortest; in their first sense alone, one of a meaning."""
    nouns = wordnet.nouns({"animal": ""}, 9)
    assert list(nouns) == ["animal"]
    below = wordnet.most_frequent(wordnet.meaning("animal"), 9, {wordnet.meaning("animal")})
    assert list(below) == ["hound", "cat", "puppy", "youngster"]
    assert list(wordnet.nouns({"animal": "dog"}, 1)) == ["animal", "dog", "puppy"]


def test_what_follows_for_nouns_with_two_above_them(wordnet):
    nouns = wordnet.nouns({"animal": "dog youngster cat"}, 9)
    relation = {
        (one, other): taxonomy.relation(nouns[one], nouns[other])
        for one in nouns
        for other in nouns
    }
    assert relation["puppy", "dog"] == relation["puppy", "youngster"] == "entailment"
    assert relation["puppy", "puppy"] == "entailment" and relation["dog", "puppy"] == "neutral"
    assert relation["dog", "cat"] == relation["cat", "puppy"] == "contradiction"
    assert relation["dog", "youngster"] is relation["youngster", "dog"] is None


@needs_wordnet
def test_the_nouns_of_the_real_wordnet():
    parts = taxonomy.from_wordnet()
    words = [noun for nouns in parts for noun in nouns]
    assert len(words) == len(set(words)) > 80
    animals, things, places = parts
    for below, above, nouns in [
        ("terrier", "dog", animals), ("dog", "animal", animals), ("bee", "insect", animals),
        ("jeep", "car", things), ("car", "vehicle", things), ("radish", "food", things),
        ("cottage", "house", places), ("abbey", "building", places),
    ]:  # fmt: skip
        assert taxonomy.relation(nouns[below], nouns[above]) == "entailment"
        assert taxonomy.relation(nouns[above], nouns[below]) == "neutral"
    assert taxonomy.relation(animals["dog"], animals["bird"]) == "contradiction"
    assert taxonomy.relation(things["saw"], things["knife"]) == "contradiction"
    for nouns in parts:  # every noun has another above or below
        for one in nouns:
            others = [taxonomy.relation(nouns[one], nouns[o]) for o in nouns if o != one]
            assert "entailment" in others or "neutral" in others, one


# ---- Pairs of sentences, by a reader who knows the nouns -----------------------------------------


def facts_of(words):
    """What a sentence says, read word by word."""
    assert words[-1] == "." and words.count(".") == 1
    nouns, facts, part = [set(part) for part in taxonomy.built_in()], {}, 0
    for n, word in enumerate(words[:-1]):
        if word in ("a", "an"):
            assert (word == "an") == (words[n + 1][0] in "aeiou")
        elif word in VERBS:
            facts["verb"], part = word, None
        elif word in PREPOSITIONS:
            part = PREPOSITIONS.index(word)
        else:
            known = "adjective" if word in ADJECTIVES[part or 0] else "noun"
            assert known == "adjective" or word in nouns[part or 0]
            assert (known, part or 0) not in facts
            facts[known, part or 0] = word
            part = 0 if known == "noun" and part else part
    assert ("noun", 0) in facts and "verb" in facts
    return facts


def label_of(premise, hypothesis, above):
    """The label, and what each part of the hypothesis says."""
    found = {}
    for part, word in hypothesis.items():
        if part not in premise:
            found[part] = "neutral"
        elif part[0] == "noun":
            found[part] = expected(premise[part], word, above)
        else:
            found[part] = "entailment" if premise[part] == word else "contradiction"
    for label in ("contradiction", "neutral", "entailment"):
        if label in found.values():
            return label, found


@pytest.mark.parametrize("unseen", [False, True])
def test_labels_and_what_is_held_out(unseen, rng):
    above, pairs = parents(), Pairs(taxonomy.built_in(), seed=3)
    drawn = pairs.draw(rng, 2000, unseen)
    deciders = {label: set() for label in LABELS}
    for premise, hypothesis, number in drawn:
        one, other = facts_of(premise), facts_of(hypothesis)
        label, found = label_of(one, other, above)
        assert LABELS[number] == label, (premise, hypothesis)
        differ = {
            (one[part], word)
            for part, word in other.items()
            if part[0] == "noun" and part in one and one[part] != word
        }
        held = differ & pairs.held_out
        assert len(held) == unseen
        if label != "entailment":
            parts = {part for part, says in found.items() if says != "entailment"}
            missing = {p for p in parts if p[0] == "adjective" and ("noun", p[1]) not in one}
            (decides,) = parts - missing  # one alone
            deciders[label].add(decides)
            assert not unseen or {(one.get(decides), other[decides])} == held
    counts = np.bincount([number for *_, number in drawn], minlength=3)
    assert (np.abs(counts - 2000 / 3) < 5 * np.sqrt(2000 * 2 / 9)).all()
    if not unseen:  # whatever may decide does
        assert deciders["contradiction"] > {"verb", ("noun", 0), ("adjective", 2), ("noun", 2)}
        assert deciders["neutral"] > {("noun", 0), ("adjective", 0), ("noun", 1), ("adjective", 1)}


def test_one_order_of_a_pair_is_held_out(rng):
    pairs = Pairs(taxonomy.built_in(), seed=1)
    assert pairs.held_out != Pairs(taxonomy.built_in(), seed=2).held_out
    assert pairs.held_out == Pairs(taxonomy.built_in(), seed=1).held_out
    assert not pairs.held_out & {pair[::-1] for pair in pairs.held_out}
    every = sum(len(nouns) * (len(nouns) - 1) // 2 for nouns in pairs.nouns)
    assert 0.26 < len(pairs.held_out) / every < 0.34


@pytest.mark.parametrize("unseen", [False, True])
def test_a_hypothesis_does_not_give_its_label_away(unseen, rng):
    """Each word and each length is as often there with one label as with another."""
    pairs = Pairs(taxonomy.built_in())
    counts = {}
    for _, hypothesis, label in pairs.draw(rng, 4000, unseen):
        for seen in (*hypothesis, len(hypothesis), hypothesis[0] + hypothesis[1]):
            counts.setdefault(seen, np.zeros(3))[label] += 1
    assert len(counts) > 100
    for seen, each in counts.items():
        expected = each.sum() / 3
        chi_square = ((each - expected) ** 2 / expected).sum()
        assert chi_square < 25 or expected < 5, seen  # by chance: four in a million


def test_links(rng):
    pairs = Pairs(taxonomy.built_in())
    premise = "in a quiet cottage a brown poodle sleeps beside a jeep .".split()
    hypothesis = "a dog sleeps beside a red car in an abbey .".split()
    named = [(hypothesis[i], premise[j]) for i, j in pairs.links(premise, hypothesis)]
    assert named == [("dog", "poodle"), ("car", "jeep"), ("abbey", "cottage")]


def test_arrays():
    pairs = Pairs(taxonomy.built_in())
    vocabulary = pairs.vocabulary()
    assert sorted(vocabulary.values()) == list(range(1, len(vocabulary) + 1))
    drawn = [("a dog sleeps .".split(), "a bird eats in a red car .".split(), 2)]
    drawn.append(("an ant runs in a house .".split(), "an ant runs .".split(), 0))
    (a, m, b, n), labels = arrays(drawn, vocabulary)
    names = {number: word for word, number in vocabulary.items()} | {0: ""}
    assert [names[k] for k in a[0]] == [*"a dog sleeps .".split(), "", "", ""]
    assert [names[k] for k in b[1]] == [*"an ant runs .".split(), "", "", "", ""]
    assert m.tolist() == [4, 7] and n.tolist() == [8, 4] and labels.tolist() == [2, 0]


# ---- Models --------------------------------------------------------------------------------------


@pytest.fixture
def sentences(rng):
    """Numbers of words and lengths of four pairs of sentences of different lengths."""
    a, b = rng.integers(1, 12, (4, 6)), rng.integers(1, 12, (4, 5))
    m, n = np.array([6, 3, 1, 4]), np.array([2, 5, 4, 1])
    a[np.arange(6) >= m[:, None]] = 0
    b[np.arange(5) >= n[:, None]] = 0
    return a, m, b, n


def small(kind, rng):
    """A model in float64 with nothing special about its parameters."""
    size = "hidden" if kind in (models.Bag, models.Decomposable) else "state"
    model = kind(11, np.random.default_rng(0), dtype="float64", **{size: 6})
    return randomize(model, rng, 0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind, sentences, rng):
    model = small(kind, rng)
    assert attnc.check_gradients(model, None, *sentences) < 1e-7
    logits, pullback = attnc.vjp(model, *sentences)
    np.testing.assert_array_equal(model(*sentences), logits)
    model.zero_grad()
    pullback(np.ones_like(logits))
    once = {name: gradient.copy() for name, gradient in model.gradients.items()}
    pullback(np.ones_like(logits))  # adds the same again
    for name, gradient in model.gradients.items():
        np.testing.assert_allclose(gradient, 2 * once[name], rtol=1e-12, atol=1e-14)
        assert gradient.any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind, sentences, rng):
    """Neither more of it, nor what stands there, nor the other sentences of a batch."""
    model, (a, m, b, n) = small(kind, rng), sentences
    logits, weights = model(*sentences, return_weights=True)
    more = rng.integers(1, 12, (4, 9)), m, rng.integers(1, 12, (4, 8)), n
    for wide, narrow, lengths in ((more[0], a, m), (more[2], b, n)):
        for row, real, length in zip(wide, narrow, lengths, strict=True):
            row[:length] = real[:length]
    got, found = model(*more, return_weights=True)
    np.testing.assert_allclose(got, logits, rtol=1e-12, atol=1e-14)
    gradients = []
    for inputs in (sentences, more):
        model.zero_grad()
        attnc.vjp(model, *inputs)[1](np.ones_like(logits))
        gradients.append({name: g.copy() for name, g in model.gradients.items()})
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], gradient, rtol=1e-10, atol=1e-12)
    for row in range(4):
        one = a[row : row + 1, : m[row]], m[row : row + 1], b[row : row + 1, : n[row]], n[row:][:1]
        np.testing.assert_allclose(model(*one)[0], logits[row], rtol=1e-12, atol=1e-14)
        if weights is not None:
            real = weights[row, : n[row]]
            np.testing.assert_allclose(real[:, : m[row]].sum(axis=1), 1)
            assert not real[:, m[row] :].any()
            np.testing.assert_allclose(found[row, : n[row], : m[row]], real[:, : m[row]])


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def test_word_by_word_is_the_formula(sentences, rng):
    """A loop over words as the paper has it, one pair of sentences at a time."""
    model, (a, m, b, n) = small(models.WordByWord, rng), sentences
    logits, weights = model(*sentences, return_weights=True)
    p = model.parameters
    w_y, w_h, w_r, w_t = (p[f"{x}.weight"] for x in ("key", "query", "again", "carry"))
    for row in range(4):
        outputs, state = model.premise(model.words(a[row : row + 1, : m[row]]))
        z, _ = model.hypothesis(model.words(b[row : row + 1, : n[row]]), state)
        r = np.zeros(6)
        for t, h in enumerate(z[0]):
            scores = np.tanh(outputs[0] @ w_y + h @ w_h + r @ w_r) @ p["score_vector"]
            looked = softmax(scores)
            np.testing.assert_allclose(weights[row, t, : m[row]], looked)
            r = looked @ outputs[0] + np.tanh(r @ w_t)
        w_p, w_x = np.split(p["join.weight"], 2)
        last = np.tanh(r @ w_p + z[0, -1] @ w_x)
        np.testing.assert_allclose(logits[row], last @ p["output.weight"] + p["output.bias"])


def test_decomposable_is_the_formula_and_knows_no_order(sentences, rng):
    model, (a, m, b, n) = small(models.Decomposable, rng), sentences
    logits, weights = model(*sentences, return_weights=True)
    for row in range(4):
        x, y = model.words(a[row, : m[row]]), model.words(b[row, : n[row]])
        e = model.attend(x) @ model.attend(y).T
        beta = np.array([softmax(e[i]) @ y for i in range(len(x))])
        alpha = np.array([softmax(e[:, j]) @ x for j in range(len(y))])
        for j in range(len(y)):
            np.testing.assert_allclose(weights[row, j, : m[row]], softmax(e[:, j]))
        v1 = sum(model.compare(np.concatenate(pair)) for pair in zip(x, beta, strict=True))
        v2 = sum(model.compare(np.concatenate(pair)) for pair in zip(y, alpha, strict=True))
        np.testing.assert_allclose(logits[row], model.aggregate(np.concatenate([v1, v2])))
    turned = a[:1, ::-1], m[:1], b[:1, : n[0]][:, ::-1], n[:1]
    np.testing.assert_allclose(model(*turned)[0], logits[0])
    other = small(models.WordByWord, rng)
    assert np.abs(other(*turned)[0] - other(*sentences)[0]).max() > 1e-4


def test_w_t_starts_orthogonal():
    model = models.WordByWord(11, np.random.default_rng(0), dtype="float64")
    w_t = model.parameters["carry.weight"]
    np.testing.assert_allclose(w_t @ w_t.T, np.eye(len(w_t)), atol=1e-12)


def test_models_are_about_equally_large():
    counts = [kind(118, np.random.default_rng(0)).parameter_count for kind in KINDS]
    assert max(counts) < 1.1 * min(counts), counts


# ---- Measures and pictures -----------------------------------------------------------------------


def test_measure():
    weights = np.array([[[0.9, 0.1], [0.4, 0.6]], [[0.2, 0.8], [0.3, 0.7]]])

    def model(return_weights):
        return np.array([[2.0, 1, 0], [0, 1, 2]]), weights

    links = [[(0, 0), (1, 0)], [(1, 1)]]
    right, answers, got, looks = entail.measure(model, ((), np.array([0, 1])), links)
    assert right.tolist() == [True, False] and answers.tolist() == [0, 2]
    assert got is weights and looks == 2 / 3


def test_the_picture(tmp_path):
    premise, hypothesis = "a dog sleeps .".split(), "an animal eats .".split()
    weights = np.eye(6)[:, ::-1]
    panels = [
        (name, premise, hypothesis, 1, answer, weights[:, -4:])
        for name, answer in (("one", 1), ("other", 0))
    ]
    axes = results.draw(panels, tmp_path / "a.png")
    assert [ax.get_title() for ax in axes] == [
        "contradiction\none: right",
        "contradiction\nother: says entailment",
    ]
    assert [t.get_text() for t in axes[1].get_xticklabels()] == premise
    assert [t.get_text() for t in axes[0].get_yticklabels()] == hypothesis
    matplotlib.pyplot.close("all")


def test_examples_are_shown_of_both_kinds_of_attention(rng):
    pairs = Pairs(taxonomy.built_in())
    drawn = pairs.draw(rng, 300, unseen=True)
    links = [pairs.links(*pair[:2]) for pair in drawn]
    shown = results.examples(drawn, links)
    assert [drawn[n][2] for n in shown] == [0, 1, 2]
    for n in shown:
        assert len(links[n]) == 2
        assert all(drawn[n][1][i] != drawn[n][0][j] for i, j in links[n])
    args = SimpleNamespace(nouns="built-in", steps=1, lessons=100, tests=200)
    _, panels = entail.run(0, args)
    assert [name for name, *_ in panels] == 3 * ["word by word"] + 3 * ["decomposable"]
    for _, premise, hypothesis, _, _, weights in panels:
        real = weights[: len(hypothesis), : len(premise)]
        np.testing.assert_allclose(real.sum(axis=1), 1, rtol=1e-5)

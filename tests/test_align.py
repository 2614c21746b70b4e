"""The example that takes word alignments out of attention: its data, its counting, its claims."""

import itertools
import math
import pathlib
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("babel")
matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import align  # noqa: E402
import align_prose  # noqa: E402
import align_results  # noqa: E402
import aligners  # noqa: E402
import alignments  # noqa: E402
import lexicon  # noqa: E402
import phrases  # noqa: E402
from aligned_dates import aligned_pairs  # noqa: E402
from training import Course  # noqa: E402

from attnc.data import detokenise, tokenise  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments, **options):
    command = [sys.executable, EXAMPLES / "align.py", "--quick", *arguments]
    options = {"capture_output": True, "encoding": "utf-8", "check": False} | options
    return subprocess.run(command, **options)


def test_a_quick_run_prints_tables_and_draws(tmp_path):
    done = run("--output", tmp_path / "a.png", "--dictionary", tmp_path / "a.tsv")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    for task in align.TASKS:
        assert f"\n{task}: " in done.stdout
    for way in ("en → fr", "fr → en", "intersection", "union", "grow-diag-final"):
        found = re.findall(
            rf"{way} +[\d.]+% +[\d.]+% +[\d.]+% +[01]\.\d+ +\([01]\.\d+\)", done.stdout
        )
        assert len(found) == 6  # three aligners, two tasks
    rows = [line.split("\t") for line in (tmp_path / "a.tsv").read_text("utf-8").splitlines()]
    assert rows and all(len(row) == 5 and int(row[2]) > 1 for row in rows)
    scores = [float(row[4]) for row in rows]
    assert scores == sorted(scores, reverse=True) and min(scores) > lexicon.CHANCE


def test_a_quick_run_with_a_file(tmp_path):
    pairs = phrases.aligned_phrases(150, np.random.default_rng(0))
    lines = [f"{detokenise(p.source)} Debian\t{detokenise(p.target)} Debian\n" for p in pairs]
    (tmp_path / "pairs.tsv").write_text("".join(lines), encoding="utf-8")
    done = run("--pairs", tmp_path / "pairs.tsv", "--output", tmp_path / "a.png")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert len(re.findall(r"source → target +[\d.]+% +[\d.]+%\n", done.stdout)) == 2
    assert re.search(r"Dictionary entries: attention \d+, IBM model 1 \d+, both \d+", done.stdout)


@pytest.mark.parametrize(
    "wrong",
    [
        "--steps=0",
        "--seeds=0",
        "--seed=-1",
        "--longest=0",
        "--threshold=1",
        "--threshold=x",
        "--pairs=a --seeds=2",
        "--longest=9",
    ],
)
def test_wrong_arguments_are_one_line(wrong):
    done = run(*wrong.split())
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("align.py: ") and wrong.split()[-1][2:6] in done.stderr


def test_a_file_that_is_not_there_is_one_line():
    done = run("--pairs", "nowhere.tsv")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "nowhere.tsv" in done.stderr


# ---- Pairs of known alignment --------------------------------------------------------------------


def linked(pair):
    """Links by words: {(source, target): sure}."""
    return {
        (pair.source[s].strip(), pair.target[t].strip()): bool(pair.sure[t, s])
        for t, s in np.argwhere(pair.possible)
    }


def test_a_date_in_words():
    pairs = aligned_pairs("en", "fr", 600, np.random.default_rng(0), longest=1)
    named = next(pair for pair in pairs if re.match(r"[A-Z][a-z]+day, May \d, 19", pair.source))
    pair = alignments.in_words(named)
    day, _, month, number, comma, century, year = (word.strip() for word in pair.source)
    assert [word.strip() for word in pair.target][1:] == [number, "mai", century, year]
    assert linked(pair) == {
        (day, pair.target[0].strip()): True,
        (month, "mai"): True,
        (number, number): True,
        (century, century): True,
        (year, year): True,
    }
    short = next(pair for pair in pairs if re.match(r"[1-9]/[1-9]/[1-9]\d$", pair.source))
    pair = alignments.in_words(short)  # such as 5/7/26 and 07/05/2026
    month, _, day, _, year = (word.strip() for word in pair.source)
    assert pair.target == [f" 0{day}", "/", f"0{month}", "/", pair.target[4], year]
    assert pair.sure[[0, 2, 5], [2, 0, 4]].all() and pair.possible[4].tolist() == [0, 0, 0, 0, 1]
    assert np.argwhere(pair.possible[[1, 3]]).tolist() == [[0, 1], [0, 3], [1, 1], [1, 3]]
    assert not pair.sure[[1, 3, 4]].any()


def test_a_phrase_in_words():
    english = [("I", 0), ("do_not", 1), ("see", 2), ("the", 3), ("red", 4), ("potatoes", 5)]
    french = [("je", 0), ("ne", 1), ("vois", 2), ("pas", 1)]
    french += [("les", 3), ("pommes_de_terre", 5), ("rouges", 4)]
    pair = phrases.written(english, french)
    assert pair.source == "I do not see the red potatoes"
    assert pair.target == "je ne vois pas les pommes de terre rouges"
    assert linked(alignments.in_words(pair)) == {
        ("I", "je"): True,
        ("do", "ne"): False,
        ("not", "ne"): False,
        ("do", "pas"): False,
        ("not", "pas"): False,
        ("see", "vois"): True,
        ("the", "les"): True,
        ("potatoes", "pommes"): False,
        ("potatoes", "de"): False,
        ("potatoes", "terre"): False,
        ("red", "rouges"): True,
    }


@pytest.mark.parametrize(
    "french, text, units",
    [
        ("door of the garden", "la porte du jardin", {"of": {"du"}, "the": {"du"}}),
        ("door of the house", "la porte de la maison", {"of": {"de"}, "the": {"la"}}),
        ("door of the tree", "la porte de l'arbre", {"of": {"de"}, "the": {"l", "'"}}),
        ("door of the trees", "la porte des arbres", {"of": {"des"}, "the": {"des"}}),
        ("door of a tree", "la porte d'un arbre", {"of": {"d", "'"}, "a": {"un"}}),
        ("door of my church", "la porte de mon église", {"of": {"de"}, "my": {"mon"}}),
        ("door of this tree", "la porte de cet arbre", {"of": {"de"}, "this": {"cet"}}),
    ],
)
def test_contractions_and_vowels(french, text, units):
    _, _, determiner, noun = french.split()
    nouns = {"garden": "jardin", "house": "maison", "tree": "arbre", "trees": "arbres"}
    forms = {"the garden": "le", "the house": "la", "the tree": "le", "the trees": "les"}
    forms |= {"a tree": "un", "my church": "ma", "this tree": "ce"}
    english = [("door", 0), ("of", 1), (determiner, 2), (noun, 3)]
    parts = [("la", 4), ("porte", 0), ("de", 1), (forms[f"{determiner} {noun}"], 2)]
    pair = phrases.written(english, [*parts, (nouns.get(noun, "église"), 3)])
    assert pair.target == text
    found = linked(alignments.in_words(pair))
    for word, others in units.items():
        assert {t for s, t in found if s == word} == others
        assert all(found[word, t] == (others == {t} and "du" not in text and "des" not in text)
                   for t in others)  # fmt: skip


@pytest.fixture(scope="module")
def many():
    return phrases.aligned_phrases(3000, np.random.default_rng(1))


def test_phrases_are_spelled_right(many):
    assert len(many) > 2500
    for pair in many:
        source, target = detokenise(pair.source), detokenise(pair.target)
        assert (tokenise(source), tokenise(target)) == (pair.source, pair.target)
        assert "_" not in source + target and "-" not in source + target
        assert not re.search(r"\ba [aeiou]|\ban [^aeiouI]", source)
        assert not re.search(r"\b(le|la|je|ne|de|ma|ce|beau|nouveau) [aeiouéh]", target)
        assert not re.search(r"\bde les? |[ldjn]'[^aeiouéh]", target)
        assert not re.search(r"\b(cet|bel|nouvel) [^aeiouéh]", target)
        negated = "do not" in source or "does not" in source
        assert negated == bool(re.search(r"\bn(e |').* pas\b", target))
        assert ("there is" in source or "there are" in source) == target.startswith("il y a ")


def test_french_agrees(many):
    """By a reader of its own: each noun of the table with its determiner and adjectives."""
    forms = {}
    for row in phrases.BEFORE + phrases.AFTER:
        for form, text in enumerate(row[1:]):
            forms.setdefault(text.replace("_", " "), set()).add(form)
    forms |= {"bel": {0}, "nouvel": {0}}
    determiners = {"le": {0}, "la": {1}, "les": {2, 3}, "un": {0}, "une": {1}, "mon": {0, 1}}
    determiners |= {"ma": {1}, "mes": {2, 3}, "ce": {0}, "cet": {0}, "cette": {1}, "ces": {2, 3}}
    determiners |= {"deux": {2, 3}, "trois": {2, 3}, "du": {0}, "des": {2, 3}}
    nouns = {}
    for _, _, one, more, gender in phrases.NOUNS:
        nouns[one.replace("_", " ")] = {0 if gender == "m" else 1}
        nouns[more.replace("_", " ")] = {2 if gender == "m" else 3}
    known = sorted(nouns, key=len, reverse=True)
    found, checked = re.compile(rf"(\w+)?[ ']?\b({'|'.join(known)})\b( en bois| \w+)?"), 0
    for pair in many:
        for before, noun, after in found.findall(detokenise(pair.target)):
            allowed = nouns[noun]
            for table, word in ((determiners, before), (forms, before), (forms, after.strip())):
                if word in table:
                    assert allowed & table[word], (before, noun, after)
                    checked += 1
    assert checked > 3000


def test_adjectives_after_the_noun_cross(many):
    """Of each noun with an adjective of colour, say, both links are sure and cross."""
    colours, seen = {row[0] for row in phrases.AFTER} - {"wooden"}, 0
    nouns = {word for row in phrases.NOUNS for word in row[:2] if "_" not in word}
    single = nouns - {"potato", "potatoes", "railway", "railways"}
    for pair in many:
        words = [word.strip() for word in pair.source]
        crossing = alignments.crosses(pair.sure)
        for s, (one, other) in enumerate(itertools.pairwise(words)):
            if one in colours and other in single:
                (red,), (house,) = pair.sure[:, s].nonzero(), pair.sure[:, s + 1].nonzero()
                assert red[0] == house[0] + 1 and crossing[red[0], s]
                seen += 1
    assert seen > 500


# ---- Links ---------------------------------------------------------------------------------------


def test_links_by_hand():
    weights = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.3, 0.4, 0.3]])
    assert alignments.links(weights).tolist() == [[1, 0], [0, 0], [0, 1]]
    assert alignments.links(weights, 0.3).tolist() == [[1, 1], [0, 1], [1, 1]]
    assert alignments.links(weights, 0.7).tolist() == [[0, 0]] * 3


def test_rates_by_hand():
    sure = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]], bool)
    possible = sure | np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]], bool)
    pair = alignments.Pair([], [], sure, possible)
    found = np.array([[1, 1, 1], [0, 0, 1], [0, 0, 0]], bool)
    # Of 4 links 3 are possible, of 3 sure ones 2 are found, and of the 2 that cross 1.
    assert alignments.rates([found], [pair]) == (3 / 4, 2 / 3, 1 / 2, 1 - (2 + 3) / (4 + 3))
    assert alignments.rates([sure], [pair]) == (1, 1, 1, 0)
    assert alignments.rates([~possible], [pair]) == (0, 0, 0, 1)
    assert alignments.rates([found, sure], [pair, pair]).error == 1 - (5 + 6) / (7 + 6)
    assert alignments.crosses(sure).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]


def grown(there, back):
    """The pseudo-code of Koehn et al. for grow-diag-final, on sets of (e, f)."""
    rows, columns = there.shape
    one, other = ({tuple(map(int, x)) for x in np.argwhere(each)} for each in (there, back))
    found, union = one & other, one | other
    steps = [(-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)]

    def lonely(e, f):
        return e not in {x for x, _ in found} or f not in {x for _, x in found}

    while True:
        before = len(found)
        for e, f in itertools.product(range(rows), range(columns)):
            if (e, f) in found:
                for down, right in steps:
                    new = e + down, f + right
                    if new in union and lonely(*new):
                        found.add(new)
        if len(found) == before:
            break
    for each in (one, other):
        for new in itertools.product(range(rows), range(columns)):
            if new in each and lonely(*new):
                found.add(new)
    return found


def test_symmetrise(rng):
    for _ in range(300):
        there, back = rng.random((2, *rng.integers(1, 8, 2))) < rng.random()
        both, union, found = (alignments.symmetrise(there, back, how) for how in alignments.HOW)
        np.testing.assert_array_equal(both, there & back)
        np.testing.assert_array_equal(union, there | back)
        assert {tuple(map(int, each)) for each in np.argwhere(found)} == grown(there, back)
        assert (both <= found).all() and (found <= union).all()
        # No word that has a link in the union is left without.
        assert (found.any(axis=0) == union.any(axis=0)).all()
        assert (found.any(axis=1) == union.any(axis=1)).all()


def test_grow_diag_final_by_hand():
    there = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
    back = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1]], bool)
    # From (1, 2) down to (2, 2), from there down and aside to (3, 1); (3, 3) by its column.
    expected = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 1]], bool)
    found = alignments.symmetrise(there, back, "grow-diag-final")
    np.testing.assert_array_equal(found, expected)


# ---- Counting ------------------------------------------------------------------------------------


def test_model_1_against_loops(rng):
    pairs = [
        ([f"s{n}" for n in rng.integers(0, 6, rng.integers(1, 5))],
         [f"t{n}" for n in rng.integers(0, 6, rng.integers(1, 5))])
        for _ in range(12)
    ]  # fmt: skip
    p = Counter()
    for source, target in pairs:
        p.update({(s, t): 0 for s in [*source, None] for t in target})
    p = dict.fromkeys(p, 1.0)
    for _ in range(7):
        count, total = Counter(), Counter()
        for source, target in pairs:
            for t in target:
                norm = sum(p[s, t] for s in [*source, None])
                for s in [*source, None]:
                    count[s, t] += p[s, t] / norm
                    total[s] += p[s, t] / norm
        p = {(s, t): count[s, t] / total[s] for s, t in p}
    model = lexicon.Model1(pairs, rounds=7)
    assert model.p == pytest.approx(p)
    source, target = pairs[0]
    weights = model.weights(source, target)
    for t, row in zip(target, weights, strict=True):
        expected = np.array([p[s, t] for s in [*source, None]])
        np.testing.assert_allclose(row, expected / expected.sum(), rtol=1e-6)
    assert model.weights(["s0"], ["never seen"]).tolist() == [[0, 1]]


def test_model_1_finds_words():
    pairs = [("the house", "das haus"), ("the book", "das buch"), ("a book", "ein buch")]
    pairs = [(source.split(), target.split()) for source, target in pairs]
    model = lexicon.Model1(pairs, rounds=30)
    looked = [alignments.links(model.weights(*pair)).tolist() for pair in pairs]
    assert looked[0] == [[1, 0], [0, 1]] and looked[2] == [[1, 0], [0, 1]]


def test_likelihood_ratio():
    """Against the binomials of Dunning (1993)."""
    both, one, other, total = 7, 12, 20, 100

    def log_likelihood(p, k, n):
        return k * math.log(p) + (n - k) * math.log(1 - p)

    k, n = (both, other - both), (one, total - one)
    each = [k[0] / n[0], k[1] / n[1]]
    expected = 2 * sum(
        log_likelihood(each[i], k[i], n[i]) - log_likelihood(other / total, k[i], n[i])
        for i in (0, 1)
    )
    assert lexicon.likelihood_ratio(both, one, other, total) == pytest.approx(expected)
    assert lexicon.likelihood_ratio(5, 10, 50, 100) == pytest.approx(0)  # as often as by chance
    assert lexicon.likelihood_ratio(50, 50, 50, 100) == pytest.approx(200 * math.log(2))


def test_the_dictionary():
    pairs = [([" red", " x", "."], [" rouge", " x", "."])] * 20 + [([" a", "."], [" b", "."])] * 20
    pairs += [([" a", "."], [" c", "."])]
    links = [np.eye(len(source), dtype=bool) for source, _ in pairs]
    entries = lexicon.dictionary(pairs, links)
    found = {entry[:2]: entry for entry in entries}
    assert set(found) == {("red", "rouge"), ("x", "x"), ("a", "b")}  # no sign, and nothing once
    assert found["red", "rouge"].links == 20 and found["red", "rouge"].p == 1
    assert found["a", "b"].p == 20 / 21
    assert [entry.score for entry in entries] == sorted((e.score for e in entries), reverse=True)
    assert lexicon.dictionary(pairs[:20], links[:20]) == []  # all words in all pairs: no evidence
    known = alignments.Pair([" red", " x"], [" rouge", " x"], *[np.eye(2, dtype=bool)] * 2)
    assert lexicon.right(entries, [known]) == [2 / 3, 2 / 3]
    assert lexicon.right([], [known]) == [0, 0]


def test_words_alike():
    words = [" apt", " installs", " debian", " debian", " dpkg"], [" dpkg", " installe", " apt"]
    pair = align_prose.alike_words(*words)
    assert np.argwhere(pair.sure).tolist() == [[0, 4]]  # of four letters, and once on each side
    assert pair.possible is pair.sure


# ---- Attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["bahdanau", "luong"])
def test_weights_are_those_of_the_word_written(order, many):
    """A translator that is told what it wrote itself looks at what it looked at then."""
    texts = [(detokenise(pair.source), detokenise(pair.target)) for pair in many[:300]]
    settings = aligners.Settings(Course(40, 32, 0.01), 16, 32, order=order)
    model = aligners.translator(texts, settings, 0)
    got = model.translate([source for source, _ in texts[:20]])
    told = aligners.looked_at(model, [(each.source, each.target) for each in got])
    for weights, each in zip(told, got, strict=True):
        written = [word for word in each.target_words if word != "(end)"]
        assert weights.shape == (len(written), len(each.source_words)) and written
        np.testing.assert_allclose(weights, each.weights[: len(written)], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


def test_moved():
    links = np.eye(3, dtype=bool)
    assert align.moved(links, 1).tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert align.moved(links, -1).tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_both_ways():
    there = [np.array([[0.9, 0.1, 0.0], [0.1, 0.2, 0.7]])]  # two words from two and the end
    back = [np.array([[0.8, 0.1, 0.1], [0.0, 0.6, 0.4]])]
    found = {how: some[0].tolist() for how, some in aligners.both_ways((there, back), "ab").items()}
    assert found["a → b"] == [[1, 0], [0, 0]] and found["b → a"] == [[1, 0], [0, 1]]
    assert found["intersection"] == [[1, 0], [0, 0]]
    assert found["union"] == found["grow-diag-final"] == [[1, 0], [0, 1]]


def test_known_links_are_framed(many, tmp_path):
    pair = max(many[:50], key=align.worth_seeing)
    maps = {"one": pair.possible * 0.5, "other": pair.sure * 1.0}
    axes = align_results.draw([(pair, maps)], tmp_path / "a.png")
    for ax in axes:
        at = {tuple(int(x + 0.5) for x in frame.get_xy()[::-1]) for frame in ax.patches}
        assert at == {tuple(map(int, each)) for each in np.argwhere(pair.possible)}
        solid = [frame for frame in ax.patches if frame.get_linestyle() == "-"]
        assert len(solid) == pair.sure.sum()
    matplotlib.pyplot.close("all")


@pytest.mark.long
def test_what_attention_and_counts_reach():
    """On phrases, as the command does; and weights that are read for another word."""
    settings = aligners.Settings(Course(600, 64, 0.004), dropout=0.1)
    found = align.measure(0, "phrases", 6000, settings, None)
    for order, most in (("Bahdanau", 0.16), ("Luong", 0.07)):
        ways = found.rates[order]
        assert min(found.exact[order]) > 0.9
        assert ways["en → fr"].error < most and ways["fr → en"].error < most
        assert ways["intersection"].precision > 0.98 and ways["intersection"].error < 0.07
        assert ways["en → fr"].crossed > 0.95  # the adjectives after the noun
        assert min(found.beside[order]) > 0.6
        assert found.dictionary[order][1][1] > 0.95
    ways = found.rates["IBM model 1"]
    assert ways["en → fr"].error < 0.07 and ways["intersection"].error < 0.06

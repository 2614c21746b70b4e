"""Held-out data without near-copies of what is trained on."""

import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
from checks import assert_unchanged
from hypothesis import given
from hypothesis import strategies as st

from attnc.data import Split, split


def plain(text):
    """An independent reading of the rule: what is left without case, signs, digits, spaces."""
    text = unicodedata.normalize("NFC", text.lower())
    return re.sub(r"[\W\d_]+", "", text) or re.sub(r"\s+", "", text)


def near_copies(pairs, others):
    """Pairs of the one list whose source or target is, but for trifles, in the other."""
    seen = [{plain(pair[side]) for pair in others} for side in (0, 1)]
    return [pair for pair in pairs if any(plain(pair[side]) in seen[side] for side in (0, 1))]


def corpus(rng, count):
    """Sentences of few words, so that many are near-copies of others."""
    words = ["go", "Go", "the", "red", "RED", "house", "été"]
    signs = [" ", "  ", ", ", "! ", " 7 ", "-"]

    def sentence():
        parts = rng.choice(words, rng.integers(3, 7)), rng.choice(signs, 6)
        return "".join(word + sign for word, sign in zip(*parts, strict=False)).strip()

    return [(sentence(), sentence()) for _ in range(count)]


@pytest.mark.parametrize("validation, test", [(0.05, 0.1), (0.2, 0.3), (7, 0.1), (0, 50), (1, 1)])
def test_nothing_of_one_part_is_in_another(validation, test, rng):
    pairs = corpus(rng, 1000)
    parts = split(pairs, validation=validation, test=test)
    lists = {name: getattr(parts, name) for name in ("training", "validation", "test")}
    for name, part in lists.items():
        for other, rest in lists.items():
            assert name == other or not near_copies(part, rest)
    assert Counter(pairs) == sum(map(Counter, lists.values()), Counter())
    for name, wanted in (("validation", validation), ("test", test)):
        wanted = wanted if isinstance(wanted, int) else round(1000 * wanted)
        assert wanted * 0.9 <= len(lists[name]) <= wanted
    # A plain cut would not do.
    assert near_copies(pairs[:100], pairs[100:])


@pytest.mark.parametrize(
    "one, other",
    [
        (("Error 5.", "a"), ("error: 17", "b")),
        (("a", "Erreur n° 5"), ("b", "ERREUR N ° 17 !")),
        (("é", "a"), ("e\u0301", "b")),
        (("ﬁn", "a"), ("FIN", "b")),
        (("Straße", "a"), ("STRASSE", "b")),
        (("a b", "c"), ("ab", "d")),
        (("1 + 1", "a"), ("1+1", "b")),  # no letters: all of it counts
    ],
)
def test_near_copies_stay_together(one, other):
    filler = [(f"filler {word}", f"remplissage {word}") for word in "one two six ten".split()]
    for seed in range(10):
        parts = split([one, *filler, other], validation=0, test=2, rng=seed)
        assert (one in parts.test) == (other in parts.test)
        assert parts.moved == (one in parts.test)
        assert len(parts.test) == 2


def test_what_is_no_near_copy():
    for one, other in [
        (("1 + 1", "a"), ("1 + 2", "b")),
        (("ete", "a"), ("été", "b")),
        (("a", "x"), ("x", "b")),  # a source is no target
    ]:
        parts = split([one, other], validation=0, test=1)
        assert len(parts.training) == len(parts.test) == 1


def test_a_chain_of_near_copies_is_one_group():
    chain = [("a", "b"), ("c", "B"), ("C!", "d"), ("e", "D")]
    for seed in range(10):
        parts = split([*chain, ("x", "y")], validation=0, test=1, rng=seed)
        assert parts.training == chain and parts.test == [("x", "y")]
        assert parts.moved == 0
    parts = split([*chain, ("x", "y")], validation=0, test=4)
    assert parts.moved == (3 if len(parts.test) == 4 else 0)


def test_a_seed_says_what_is_drawn():
    pairs = [(chr(97 + a) + chr(97 + b), f"{a} {b}") for a in range(26) for b in range(26)]
    with assert_unchanged(pairs):
        assert split(pairs) == split(pairs, rng=0) == split(iter(pairs))
    assert split(pairs) != split(pairs, rng=1)
    generator = np.random.default_rng(0)
    assert split(pairs, rng=generator) == split(pairs)
    assert split(pairs, rng=generator) != split(pairs)
    parts = split(pairs)
    assert isinstance(parts, Split)
    assert [len(part) for part in parts[:3]] == [608, 34, 34]
    order = {pair: row for row, pair in enumerate(pairs)}
    for part in parts[:3]:  # in the order of the file
        assert part == sorted(part, key=order.get)
    # Every pair has its turn.
    assert len({pair for seed in range(200) for pair in split(pairs, rng=seed).test}) > 670


@given(
    st.lists(st.tuples(st.text("aB !1"), st.text("cD ?2"))),
    st.integers(0, 3),
    st.floats(0, 0.5),
    st.integers(0, 5),
)
def test_any_pairs(pairs, validation, test, seed):
    try:
        parts = split(pairs, validation=validation, test=test, rng=seed)
    except ValueError as error:
        assert str(error).startswith("split: ")
        return
    assert len(parts.validation) <= validation and len(parts.test) <= round(test * len(pairs))
    assert sorted(parts.training + parts.validation + parts.test) == sorted(pairs)
    assert parts.training or not pairs
    assert not near_copies(parts.test + parts.validation, parts.training)
    assert not near_copies(parts.test, parts.validation)


def test_no_pairs():
    assert split([], validation=0.1, test=0.1) == ([], [], [], 0)


PAIRS = [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]


@pytest.mark.parametrize(
    "pairs, options, error, message",
    [
        ("abcd", {}, TypeError, "pairs must be pairs of strings, got 'abcd'"),
        (None, {}, TypeError, "pairs must be pairs of strings, got None"),
        (["ab"], {}, TypeError, r"pairs must be \(source, target\), got 'ab'"),
        ([("a", "b", "c")], {}, TypeError, r"pairs must be \(source, target\), got "),
        ([("a", 3)], {}, TypeError, r"pairs must be of strings, got \('a', 3\)"),
        (PAIRS, {"test": 1.0}, ValueError, "test must lie in 0 <= share < 1, got 1.0"),
        (PAIRS, {"test": -0.1}, ValueError, "test must lie in 0 <= share < 1, got -0.1"),
        (PAIRS, {"validation": -1}, ValueError, "validation must be an integer of at least 0"),
        (PAIRS, {"validation": True}, TypeError, "validation must be an integer of at least 0"),
        (PAIRS, {"test": "1"}, TypeError, "test must be an integer of at least 0, got '1'"),
        (PAIRS, {"test": np.nan}, ValueError, "test must lie in 0 <= share < 1, got nan"),
        (PAIRS, {"test": 4}, ValueError, "validation and test must leave pairs to train on, got 0"),
        (PAIRS, {"test": 2, "validation": 2}, ValueError, "validation and test must leave pairs"),
        ([("a", "b")] * 4, {"test": 1}, ValueError, "test must be larger or the pairs more diff"),
        (
            [("a", "b"), ("A", "c"), ("d", "e"), ("D", "f"), ("x", "y")],
            {"test": 2, "validation": 1, "rng": 0.5},
            TypeError,
            "rng must be None, an integer or a numpy.random.Generator, got 0.5",
        ),
    ],
)
def test_what_split_refuses(pairs, options, error, message):
    with pytest.raises(error, match=f"^split: {message}"):
        split(pairs, **options)

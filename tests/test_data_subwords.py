"""Pieces of words: learned, cut, numbered, kept."""

import copy
import io
import json
import pickle
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.data import Subwords, Vocabulary, detokenise, tokenise

TEXT = """
The lowest of the low were lower than the lowly, and slower than the slowest.
Newer news is newest; the news of the new year, the newer and the newest, was new.
Größer, größte, große: “une fenêtre, des fenêtres”. Ёлка, ёлки. 东京、北京。
""".strip().split("\n")
WORDS = [tokenise(line) for line in TEXT]


@pytest.fixture
def sentencepiece():
    return pytest.importorskip("sentencepiece", reason="comes with attnc[data]")


# ---- without the library -------------------------------------------------------------------------


def test_merges_in_order():
    s = Subwords(["bc", "ab", "a", "b", "c"])
    assert (s.padding, s.start, s.end, s.unknown) == (0, 1, 2, 3)
    assert s.encode(["abc"]).tolist() == [6, 4]  # a bc: bc comes before ab
    assert s.encode(["ab", "c"], start=True, end=True).tolist() == [1, 5, 8, 2]  # not beyond a word
    assert s.decode([1, 6, 4, 2, 0]) == ["a", "bc"]
    assert s.encode(["axb"]).tolist() == [6, 3, 7]
    assert s.decode([6, 3, 7]) == ["a", "<unknown>", "b"]
    assert s.encode(["aaabbb"]).tolist() == [6, 6, 5, 7, 7]
    assert s.encode([""]).tolist() == s.encode([]).tolist() == []
    assert s.encode([]).dtype == np.intp


def test_equal_pairs_are_merged_from_the_left():
    s = Subwords(["aa", "a"])
    assert s.decode(s.encode(["aaaaa"])) == ["aa", "aa", "a"]


def test_what_it_contains():
    s = Subwords(["ab", "a", "b"])
    assert "ab" in s and "bbaab" in s and "" in s
    assert "abc" not in s and 3 not in s
    assert len(s) == 7


def test_it_is_a_vocabulary_of_its_own():
    s = Subwords(["ab", "a", "b"])
    assert isinstance(s, Vocabulary)
    assert repr(s) == "Subwords(['ab', 'a', 'b'])"
    assert Subwords(s.words) == s
    assert s != Vocabulary(s.words) and Vocabulary(s.words) != s
    with pytest.raises(TypeError, match="unhashable"):
        hash(s)
    s.encode(["abab"])
    for again in (pickle.loads(pickle.dumps(s)), copy.copy(s), copy.deepcopy(s)):
        assert again == s
        assert again.encode(["abab"]).tolist() == s.encode(["abab"]).tolist()


def test_what_encode_refuses():
    s = Subwords(["a"])
    for wrong in ("ab", {"a"}, {"a": 1}, None, 3):
        with pytest.raises(TypeError, match="^Subwords.encode: words must be "):
            s.encode(wrong)
    with pytest.raises(TypeError, match="^Subwords.encode: words must be strings, got 3"):
        s.encode(["a", 3])
    with pytest.raises(TypeError, match="^Subwords.encode: end must be True or False, got 1"):
        s.encode(["a"], end=1)


def test_a_long_word_takes_no_time():
    s = Subwords(["a" * 2**k for k in range(1, 5)] + ["a"])
    start = time.process_time()
    assert s.encode(["a" * 400_000]).shape == (25_000,)
    assert time.process_time() - start < 20


def test_the_words_kept_are_bounded(monkeypatch):
    monkeypatch.setattr("attnc.data.subwords.KEPT", 10)
    s = Subwords(["a"])
    for k in range(100):
        s.encode([f"a{k}"])
        assert len(s._known) <= 10


# ---- learned -------------------------------------------------------------------------------------


def test_learns_the_pair_seen_most_often(sentencepiece):
    """Sennrich's own example: of equal pairs, "est" may come from "es" or from "st"."""
    counts = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    text = [[f"{word}_"] * count for word, count in counts.items()]
    s = Subwords.build(text, max_words=11 + 5)
    assert set(s.words[5:]) == set("lowernstid_")
    assert len(s.words) == 16 and {"est_", "lo", "low"} < set(s.words[:5])
    assert s.decode(s.encode(["lowest_"])) == ["low", "est_"]  # a word it has not seen


def test_text_comes_back(sentencepiece):
    s = Subwords.build(WORDS, max_words=120)
    for words, line in zip(WORDS, TEXT, strict=True):
        numbers = s.encode(words, end=True)
        assert len(words) < len(numbers) < len(line)
        assert detokenise(s.decode(numbers)) == line
    assert detokenise(s.decode(s.encode(tokenise("slow Größen")))) == "slow Größen"


def test_the_pieces_are_those_of_the_library(sentencepiece, monkeypatch):
    """An independent reference of how a word is cut: the one that learned."""
    models = []
    constructor = sentencepiece.SentencePieceProcessor

    def keep(**options):
        models.append(constructor(**options))
        return models[-1]

    monkeypatch.setattr(sentencepiece, "SentencePieceProcessor", keep)
    s = Subwords.build(WORDS, max_words=150)
    words = {word for line in WORDS for word in line}
    words |= {" " + a.strip() + b.strip() for a in words for b in words}
    assert len(words) > 500
    for word in words:
        pieces = [piece.replace("\u2581", " ") for piece in models[0].encode(word, out_type=str)]
        assert s.decode(s.encode([word])) == pieces


@given(st.lists(st.lists(st.text(alphabet="aböß e\u0301\u4e00<s>/\t\n\u2581", max_size=8))))
def test_whatever_is_learned_from(text):
    pytest.importorskip("sentencepiece")
    s = Subwords.build(text, max_words=60)
    unlearned = set("\t\n\u2581")
    for words in text:
        whole = "".join(words)
        assert "".join(s.decode(s.encode(words))) == "".join(
            "<unknown>" if character in unlearned else character for character in whole
        )
        assert (s.encode(words) != s.unknown).all() == unlearned.isdisjoint(whole)


@pytest.mark.parametrize("word", ["<s>", "</s>", "<unk>", "a<s>b"])
def test_names_of_special_pieces_are_words(sentencepiece, word):
    """What sentencepiece calls its own unknown, start and end may stand in a text."""
    s = Subwords.build([[word]], max_words=60)
    assert s.decode(s.encode([word])) == [word]


def test_the_same_text_gives_the_same_pieces(sentencepiece):
    s = Subwords.build(WORDS, max_words=100)
    assert Subwords.build(reversed(WORDS), max_words=100) == s
    assert Subwords.build((iter(words) for words in WORDS), max_words=100) == s
    assert Subwords.build([np.array(words) for words in WORDS], max_words=100) == s
    assert all(type(word) is str for word in s.words)


def test_how_many_pieces(sentencepiece):
    characters = len(set("".join(word for words in WORDS for word in words)))
    for count in (characters, characters + 1, characters + 20):
        s = Subwords.build(WORDS, max_words=count)
        assert len(s.words) == count and len(s) == count + 4
    message = f"^Subwords.build: max_words must be at least {characters}, .* got {characters - 1} "
    with pytest.raises(ValueError, match=message):
        Subwords.build(WORDS, max_words=characters - 1)
    everything = Subwords.build(WORDS, max_words=None)
    assert Subwords.build(WORDS, max_words=100_000) == everything
    assert all(len(everything.encode([word])) == 1 for words in WORDS for word in words)
    assert Subwords.build([]).words == Subwords.build([[""]]).words == []


def test_rare_characters_are_left_out(sentencepiece):
    s = Subwords.build([["ab"] * 3, ["cab", "abx", "x"]], min_count=2)
    assert {"a", "b", "x", "abx"} < {*s.words} and "c" not in "".join(s.words)
    assert "abx" in s and "cab" not in s
    assert s.encode(["c"]).tolist() == [s.unknown]
    assert Subwords.build([["ab\ud800"]]).words == ["ab", "a", "b"]  # half a character


def test_what_build_refuses():
    for wrong in ("abc", None, 3, b"a", ["abc"], [["a"], "abc"], [["a"], [3]]):
        with pytest.raises(TypeError, match="^Subwords.build: (a )?(sequences?|words) must be "):
            Subwords.build(wrong)
    with pytest.raises(ValueError, match="^Subwords.build: max_words must be an integer of at lea"):
        Subwords.build([], max_words=-1)
    with pytest.raises(TypeError, match="^Subwords.build: min_count must be an integer of at leas"):
        Subwords.build([], min_count=0.5)


def test_the_library_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    message = "^Subwords.build: learning subwords needs sentencepiece; install it with: pip install"
    with pytest.raises(ImportError, match=message):
        Subwords.build(WORDS)
    s = Subwords(["ab", "a", "b"])  # what was learned needs it no more
    assert s.decode(s.encode(["aab"])) == ["a", "ab"]


# ---- kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [Vocabulary([" a", "é"]), Subwords(["ab", "a", "b"])])
def test_a_state_is_plain_text(vocabulary):
    text = json.dumps(vocabulary.state())
    for again in (
        Vocabulary.from_state(json.loads(text)),
        type(vocabulary).from_state(vocabulary.state()),
    ):
        assert again == vocabulary and type(again) is type(vocabulary)
    file = io.BytesIO()
    np.savez(file, state=np.array(text))
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        assert Vocabulary.from_state(json.loads(str(arrays["state"]))) == vocabulary


@pytest.mark.parametrize(
    "state, error, message",
    [
        (None, TypeError, "state must be a dict, got None"),
        (["a"], TypeError, r"state must be a dict, got \['a'\]"),
        ({}, ValueError, "state must have the keys 'class' and 'words', got"),
        ({"words": ["a"]}, ValueError, "state must have the keys"),
        ({"class": "Vocabulary", "words": ["a"], "x": 1}, ValueError, "state must have the keys"),
        ({"class": "dict", "words": ["a"]}, ValueError, "state must be of the class Vocabulary or"),
        ({"class": ["x"], "words": ["a"]}, ValueError, "state must be of the class "),
    ],
)
def test_a_state_that_is_none(state, error, message):
    with pytest.raises(error, match=f"^Vocabulary.from_state: {message}"):
        Vocabulary.from_state(state)
    with pytest.raises(ValueError, match="^Vocabulary: words must be different, got 'a' twice"):
        Vocabulary.from_state({"class": "Vocabulary", "words": ["a", "a"]})
    with pytest.raises(TypeError, match="^Vocabulary: words must be strings, got 3"):
        Vocabulary.from_state({"class": "Vocabulary", "words": [3]})
    message = "^Subwords.from_state: state must be of the class Subwords, got 'Vocabulary'"
    with pytest.raises(ValueError, match=message):
        Subwords.from_state(Vocabulary(["a"]).state())

"""Numbers for what is copied from a source."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.data import ExtendedVocabulary, Subwords, Vocabulary, pad

VOCABULARY = Vocabulary(["a", "lamp"])


def test_words_that_are_not_in_the_vocabulary_follow_it():
    e = ExtendedVocabulary(VOCABULARY, "a blue lamp a red lamp blue".split())
    assert e.vocabulary is VOCABULARY and e.words == ["blue", "red"]
    assert len(e) == 8 and len(VOCABULARY) == 6
    numbers = e.encode("a blue lamp a red lamp blue".split())
    assert numbers.dtype == np.intp and numbers.tolist() == [4, 6, 5, 4, 7, 5, 6]
    assert e.encode(["red", "green", "a"], start=True, end=True).tolist() == [1, 7, 3, 4, 2]
    assert e.decode([1, 7, 0, 3, 5, 2, 6, 99]) == ["red", "<unknown>", "lamp"]
    assert e.decode(iter([6, 7])) == ["blue", "red"] and e.decode([]) == []
    e.words.append("green")
    assert e.words == ["blue", "red"]


def test_none_and_all():
    none = ExtendedVocabulary(VOCABULARY, ["lamp", "a", "lamp"])
    assert none.words == [] and len(none) == len(VOCABULARY)
    assert none.encode(["lamp", "red"]).tolist() == [5, 3] and none.decode([5]) == ["lamp"]
    every = ExtendedVocabulary(Vocabulary([]), ["to", "be", "to"])
    assert every.encode(["to", "be", "to"]).tolist() == [4, 5, 4]
    empty = ExtendedVocabulary(VOCABULARY, [])
    assert len(empty) == 6 and empty.encode([]).tolist() == []


def test_the_same_number_is_another_word_in_another_source():
    sources = [["a", "green"], ["blue", "red", "a"]]
    extended = [ExtendedVocabulary(VOCABULARY, source) for source in sources]
    array, lengths = pad(
        [each.encode(source) for each, source in zip(extended, sources, strict=True)]
    )
    assert array.tolist() == [[4, 6, 0], [6, 7, 4]] and lengths.tolist() == [2, 3]
    for each, row, source in zip(extended, array, sources, strict=True):
        assert each.decode(row) == source
    assert max(map(len, extended)) == array.max() + 1 == 8


words = st.lists(st.sampled_from(["a", "lamp", "red", "blue", "été", "", " ", "<unknown>"]))


@given(words, words)
def test_what_can_be_copied_comes_back(source, text):
    e = ExtendedVocabulary(VOCABULARY, np.array(source, dtype=str) if source else source)
    known = {*VOCABULARY.words, *source}
    assert e.decode(e.encode(source, end=True)) == source
    wanted = [word if word in known else "<unknown>" for word in text]
    assert e.decode(e.encode(text, start=True, end=True)) == wanted
    assert len(e) == 4 + len({*source, "a", "lamp"})
    assert all(type(word) is str for word in e.words)
    assert pickle.loads(pickle.dumps(e)).words == e.words


def test_repr():
    e = ExtendedVocabulary(VOCABULARY, ["red"])
    assert repr(e) == "ExtendedVocabulary(Vocabulary(['a', 'lamp']), ['red'])"


@pytest.mark.parametrize("wrong", [None, ["a"], Subwords(["a"]), {"a": 4}])
def test_what_is_no_vocabulary(wrong):
    with pytest.raises(TypeError, match="^ExtendedVocabulary: vocabulary must be a Vocabulary of "):
        ExtendedVocabulary(wrong, ["a"])


@pytest.mark.parametrize("wrong", ["a red lamp", {"a"}, 3, None, [3], ["red", None], b"red"])
def test_what_is_no_sequence_of_words(wrong):
    with pytest.raises(TypeError, match="^ExtendedVocabulary: .* must be "):
        ExtendedVocabulary(VOCABULARY, wrong)
    with pytest.raises(TypeError, match="^ExtendedVocabulary.encode: .* must be "):
        ExtendedVocabulary(VOCABULARY, ["red"]).encode(wrong)


def test_flags_are_flags():
    e = ExtendedVocabulary(VOCABULARY, ["red"])
    for name in ("start", "end"):
        with pytest.raises(TypeError, match=f"^ExtendedVocabulary.encode: {name} must be True or "):
            e.encode(["red"], **{name: 1})


@pytest.mark.parametrize(
    "numbers, error, text",
    [
        ([7], ValueError, r"numbers must be in 0\.\.6, got 7"),
        ([6, -1], ValueError, r"numbers must be in 0\.\.6, got -1"),
        ([[6]], ValueError, r"numbers must have one axis \(T,\), got shape \(1, 1\)"),
        ([6.0], TypeError, "numbers must be "),
        ("6", TypeError, "numbers must be "),
    ],
)
def test_what_cannot_be_decoded(numbers, error, text):
    with pytest.raises(error, match=f"^ExtendedVocabulary.decode: {text}"):
        ExtendedVocabulary(VOCABULARY, ["red"]).decode(numbers)

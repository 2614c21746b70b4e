"""Cutting text into words and putting it together again."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.data import detokenise, normalise, tokenise

PROSE = {
    "en": "“Don't,” she said, “it's 7:30 p.m. – the 3rd time, isn't it?” Mr. O'Neil (aged 4) ate.",
    "fr": "L’été dernier, à Noël, « j’ai vu » 1 234,56 € : aujourd'hui, c'est cher ! Où vas-tu ?",
    "de": "„Schöne Grüße“, schrieb Straßenbauer Müller am 3. Oktober 2026 – z. B. für 12,50 €.",
    "es": "¿Cómo estás? ¡Qué alegría! El niño cumplió 9 años; la señora, 1.000 días después…",
    "ru": "«Ёлка зелёная», — сказал Пётр Ильич в 1876-м году. Кто там?",
    "ar": "قالَ الرَّجُلُ: «مَرحبًا، كيف حالُك؟» في عام ٢٠٢٦.",
    "hi": "नमस्ते, आप कैसे हैं? मैं ठीक हूँ।",
    "fa": "می‌خواهم به خانه بروم، نمی‌توانم.",
    "zh": "你好，世界！我今年25岁，住在北京（中国）。",
    "ja": "「こんにちは」と、彼は言った。東京へ2時間ガードレール々。",
    "th": "สวัสดีครับ ผมชื่อสมชาย",
    "ko": "안녕하세요? 저는 2026년에 서울에 살아요.",
}


@pytest.mark.parametrize("language", PROSE)
def test_prose_comes_back(language):
    text = PROSE[language]
    words = tokenise(text)
    assert detokenise(words) == text
    assert all(words) and words[0].startswith(" ")
    assert not any(" " in word[1:] for word in words)


# The characters of a language's prose: letters, signs, spaces of all kinds.
SPACES = " \t\n\u00a0\u202f\u3000"
LETTERS = {language: "".join(sorted(set(text))) for language, text in PROSE.items()}


@given(st.data(), st.sampled_from(sorted(PROSE)))
def test_round_trip(data, language):
    letters = st.sampled_from(LETTERS[language] + SPACES)
    text = data.draw(st.text(letters, max_size=200))
    assert detokenise(tokenise(text)) == text  # and so up to white space:
    assert detokenise(tokenise(normalise(text, form=None))) == " ".join(text.split())


@given(st.text(max_size=200))
def test_round_trip_of_any_text(text):
    assert detokenise(tokenise(text)) == text


@pytest.mark.parametrize(
    "text, words",
    [
        ("", [" "]),
        ("1999 '99", [" 19", "99", " '", "99"]),
        ("a  b", [" a", " ", " b"]),
        ("don't", [" don", "'", "t"]),
        ("e\u0301te\u0301", [" e\u0301te\u0301"]),  # accents of their own stay with their letter
        ("मैं हूँ", [" मैं", " हूँ"]),
        ("مَرحبًا", [" مَرحبًا"]),
        ("می‌خواهم", [" می‌خواهم"]),
        ("你好，world", [" 你", "好", "，", "world"]),
        ("ガード", [" ガ", "ー", "ド"]),
        ("𠮷野", [" 𠮷", "野"]),
        ("ครับ", [" ค", "รั", "บ"]),  # a vowel above stays with its consonant
        ("안녕하세요 서울", [" 안녕하세요", " 서울"]),
        ("file_name", [" file_name"]),
        ("%s: x", [" %", "s", ":", " x"]),
    ],
)
def test_words(text, words):
    assert tokenise(text) == words


def test_long_text_takes_no_time():
    """Nothing is tried twice: a pattern that goes back would never end with these."""
    for text in ("a" * 1_000_000, "e\u0301" * 500_000, " " * 1_000_000, "\u0301" * 1_000_000):
        assert detokenise(tokenise(text)) == text


# ---- normalise -----------------------------------------------------------------------------------


def test_normalise():
    text = " E\u0301te\u0301\u00a0! \n ﬁn ２⁵ "
    assert normalise(text) == "Été ! ﬁn ２⁵"
    assert normalise(text, form=None) == "E\u0301te\u0301 ! ﬁn ２⁵"
    assert normalise(text, form="NFKC") == "Été ! fin 25"
    assert normalise(text, form="NFKC", lower=True) == "été ! fin 25"
    assert normalise(text, form="NFD") == "E\u0301te\u0301 ! ﬁn ２⁵"
    assert normalise("") == normalise(" \n") == ""


FORMS = st.sampled_from([None, "NFC", "NFD", "NFKC", "NFKD"])


@given(st.text(), FORMS, st.booleans())
def test_normalised_text_is_in_the_form_and_stays(text, form, lower):
    once = normalise(text, form=form, lower=lower)
    assert once == " ".join(once.split())
    assert form is None or unicodedata.is_normalized(form, once)
    assert not lower or once == once.lower()
    assert normalise(once, form=form, lower=lower) == once


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, 3, b"a", ["a"]])
def test_text_is_a_string(wrong):
    for function in (normalise, tokenise):
        with pytest.raises(TypeError, match=f"^{function.__name__}: text must be a string, got "):
            function(wrong)


def test_wrong_options():
    for form in ("nfc", "UTF-8", 3, True):
        with pytest.raises(ValueError, match="^normalise: form must be 'NFC', .* or None, got "):
            normalise("a", form=form)
    with pytest.raises(TypeError, match="^normalise: lower must be True or False, got 1"):
        normalise("a", lower=1)
    for library in ("nltk", True, 3):
        with pytest.raises(ValueError, match="^tokenise: library must be 'sacremoses' or None, go"):
            tokenise("a", library=library)
        with pytest.raises(ValueError, match="^detokenise: library must be 'sacremoses' or None"):
            detokenise(["a"], library=library)
    with pytest.raises(TypeError, match="^tokenise: language must be a string such as 'en', got 3"):
        tokenise("a", language=3)
    with pytest.raises(TypeError, match="^detokenise: words must be a list of strings, got 'abc'"):
        detokenise("abc")
    with pytest.raises(TypeError, match="^detokenise: words must be strings, got 3"):
        detokenise(["a", 3])


# ---- sacremoses ----------------------------------------------------------------------------------


@pytest.fixture
def sacremoses():
    return pytest.importorskip("sacremoses", reason="comes with attnc[data]")


def test_the_library(sacremoses):
    text = "Mr. O'Neill said: \"It isn't 1,5 & more!\""
    words = tokenise(text, library="sacremoses")
    assert words[:3] == [" Mr.", " O", " 'Neill"]  # abbreviations keep their dot
    assert detokenise(words, library="sacremoses") == text
    assert "".join(words).split() == sacremoses.MosesTokenizer("en").tokenize(text, escape=False)
    french = "L'été, il fait chaud à Paris."
    assert " L'" in tokenise(french, library="sacremoses", language="fr")
    words = tokenise(french, library="sacremoses", language="fr")
    assert detokenise(words, library="sacremoses", language="fr") == french


def test_the_library_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    message = "^tokenise: library='sacremoses' needs sacremoses; install it with: pip install \"att"
    with pytest.raises(ImportError, match=message):
        tokenise("a", library="sacremoses")

"""The corpora of the examples: dates of any two languages, files, real sentences."""

import datetime
import pathlib
import re
import sys

import numpy as np
import pytest

pytest.importorskip("babel")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import corpus  # noqa: E402
import dates  # noqa: E402
from dates import Dates, date_pairs, drop_ambiguous  # noqa: E402

from attnc.data import tokenise  # noqa: E402


def test_ambiguous_sources_are_dropped():
    pairs = [("a b", "x"), ("c", "y"), ("a b", "z"), ("c", "y"), ("d", "y")]
    assert drop_ambiguous(pairs) == [("c", "y"), ("d", "y")]
    assert drop_ambiguous([]) == []


# ---- Dates ---------------------------------------------------------------------------------------

DAY = datetime.date(2026, 1, 7)


@pytest.mark.parametrize(
    "length, texts",
    [
        ("short", ["1/7/26", "07/01/2026", "07.01.26", "2026/1/7"]),
        ("medium", ["Jan 7, 2026", "7 janv. 2026", "07.01.2026", "2026年1月7日"]),
        ("long", ["January 7, 2026", "7 janvier 2026", "7. Januar 2026", "2026年1月7日"]),
        (
            "full",
            [
                "Wednesday, January 7, 2026",
                "mercredi 7 janvier 2026",
                "Mittwoch, 7. Januar 2026",
                "2026年1月7日星期三",
            ],
        ),
        ("yMMMM", ["January 2026", "janvier 2026", "Januar 2026", "2026年1月"]),
    ],
)
def test_dates_as_cldr_writes_them(length, texts):
    assert [
        Dates.of(language).write([DAY], length) for language in ("en", "fr", "de", "zh")
    ] == texts


def test_lists_as_cldr_writes_them():
    days = [DAY, datetime.date(2027, 5, 1), datetime.date(1999, 12, 31)]
    assert [Dates.of(language).write(days, "long") for language in ("en", "fr", "de", "zh")] == [
        "January 7, 2026, May 1, 2027, and December 31, 1999",
        "7 janvier 2026, 1 mai 2027 et 31 décembre 1999",
        "7. Januar 2026, 1. Mai 2027 und 31. Dezember 1999",
        "2026年1月7日、2027年5月1日和1999年12月31日",
    ]


LANGUAGES = ["ar", "bn", "de", "en", "fa", "he", "hi", "ja", "pt_BR", "ru", "th", "ur", "zh_Hant"]


@pytest.mark.parametrize("length", dates.LENGTHS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_dates_as_babel_writes_them(language, length):
    from babel.dates import format_date, format_skeleton
    from babel.lists import format_list

    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 5):
        days = [
            dates.FIRST + datetime.timedelta(int(n)) for n in rng.integers(dates.DAYS, size=count)
        ]
        if length == "yMMMM":
            texts = [format_skeleton(length, day, locale=language) for day in days]
        else:
            texts = [format_date(day, length, locale=language) for day in days]
        assert Dates.of(language).write(days, length) == format_list(texts, locale=language)


@pytest.mark.parametrize("language", ["xx", "english", "e", "", "zh_Latn_FR_xx"])
def test_unknown_languages_are_named(language):
    with pytest.raises(ValueError, match=f"one of CLDR's, such as en, .* got {language}$"):
        date_pairs("en", language, 20, np.random.default_rng(0))


def test_any_language_may_be_the_source():
    pairs = date_pairs("ar", "he", 100, np.random.default_rng(0))
    assert any("مايو" in source and "מאי" in target for source, target in pairs)
    assert date_pairs("pt-BR", "fr", 20, np.random.default_rng(0)) == date_pairs(
        "pt_BR", "fr", 20, np.random.default_rng(0)
    )


@pytest.fixture(scope="module", params=["fr", "de", "zh"])
def pairs(request):
    return date_pairs("en", request.param, 1000, np.random.default_rng(0))


def test_sources_have_3_to_40_words(pairs):
    lengths = [len(tokenise(source)) for source, _ in pairs]
    assert (min(lengths), max(lengths)) == (3, 40)
    assert all(np.histogram(lengths, bins=[3, 10, 20, 30, 40])[0] > 30)


def test_words_swap_places(pairs):
    months = [datetime.date(2026, month, 1).strftime("%B") for month in range(1, 13)]
    swapped = 0
    for source, target in pairs:
        match = re.fullmatch(r"(?:\w+, )?(\w+) (\d+), (\d{4})", source)
        if match and match[1] in months:
            year = target.index(match[3])
            day = re.search(rf"(?<!\d){match[2]}(?!\d)", target).start()
            if "年" in target:
                assert year < day  # Chinese: the year comes first
            else:  # French, German: the day before the month
                assert day < re.search(r"\d\.? ([^\d\s]+)", target).start(1) < year
            swapped += 1
    assert swapped > 20


def test_dates_are_not_ambiguous(pairs):
    assert drop_ambiguous(pairs) == pairs


def test_a_source_that_two_lengths_share_is_dropped():
    # "May 5, 2026" is medium and long: two texts in German, one in French.
    def has_may(target):
        found = date_pairs("en", target, 3000, np.random.default_rng(0))
        return any(re.fullmatch(r"May \d+, \d{4}", source) for source, _ in found)

    assert has_may("fr")
    assert not has_may("de")


def test_dates_of_a_seed():
    first, again, other = (
        date_pairs("en", "fr", 20, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


# ---- Pairs for a run -----------------------------------------------------------------------------

DATES = {"pairs": None, "source": "en", "target": "fr", "dates": 500, "longest": None, "seed": 0}


def test_one_target_each():
    pairs = [("a", "x"), ("b", "y"), ("a", "z"), ("a", "z"), ("c", "u"), ("c", "v")]
    assert corpus.one_target_each(pairs) == [("a", "z"), ("b", "y"), ("c", "u")]


@pytest.mark.parametrize("longest", [None, 10, 32])
def test_parts_share_no_pair(longest):
    *parts, most = corpus.parts(DATES | {"longest": longest})
    every = [pair for part in parts for pair in part]
    assert len(set(every)) == len(every) > 300
    training, validation, test, longer = [
        [len(tokenise(source)) for source, _ in part] for part in parts
    ]
    assert len(training) > 9 * len(test) and len(test) > len(validation) > 3
    assert max(training + validation + test) <= most < min(longer)
    assert most <= (longest or 39) and len(longer) >= len(every) / 20


def test_the_parts_of_a_seed():
    first, again, other = (corpus.parts(DATES | {"seed": n}) for n in (1, 1, 2))
    assert first == again != other


def write_pairs(path, pairs):
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), "utf-8")
    return {"pairs": str(path), "longest": None, "seed": 0}


def letters(n):
    return "".join(chr(ord("a") + int(digit)) for digit in str(n))


def test_near_copies_are_not_held_out(tmp_path):
    pairs = [(f"{letters(n)} go", f"va {letters(n)}") for n in range(200)]
    copies = [(source.upper() + " 7!", target + ".") for source, target in pairs[:50]]
    parts = corpus.parts(write_pairs(tmp_path / "pairs.tsv", pairs + copies))

    def plain(part):
        return {re.sub(r"[\W\d]", "", source.lower()) for source, _ in part}

    assert not plain(parts.training) & plain(parts.test + parts.validation)
    assert len(parts.test) > 10 and len(parts.validation) > 5


def test_a_file_of_nothing_but_near_copies(tmp_path):
    """Only digits differ: held out are some of them."""
    parts = corpus.parts(
        write_pairs(tmp_path / "pairs.tsv", [(f"say {n}", f"dis {n}") for n in range(60)])
    )
    assert len(parts.training) > 40 and parts.test and parts.validation


def test_too_few_pairs(tmp_path):
    settings = write_pairs(tmp_path / "pairs.tsv", [(f"say {n}", f"dis {n}") for n in range(19)])
    with pytest.raises(ValueError, match="at least 20 different pairs to learn from, got 19"):
        corpus.parts(settings)
    with pytest.raises(ValueError, match="at least 20 pairs with sources up to 2 words, got 0"):
        corpus.parts(DATES | {"longest": 2})


# ---- Real sentences ------------------------------------------------------------------------------

PAGE = """<html><head><title>{0}</title></head><body><h1>Chapter 1. {0}</h1>
<p>{1}</p><pre>ls -l</pre><ul><li>{2}</li><li>ls</li></ul></body></html>"""


def test_documentation_pairs(tmp_path, capsys):
    pages = {
        "ch01.en.html": PAGE.format("Files", "Go on. Read <b>this</b>.", "one. Two"),
        "ch01.fr.html": PAGE.format("Fichiers", "Continuez. Lisez <b>ceci</b>.", "un, deux"),
        "ch02.en.html": PAGE.format("a", "b", "c"),
        "ch02.fr.html": "<p>a</p>",
        "ch03.en.html": PAGE.format("d", "e", "f"),
    }
    for name, text in pages.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert corpus.documentation_pairs("fr", str(tmp_path)) == [
        ("Files", "Fichiers"),
        ("Go on.", "Continuez."),
        ("Read this.", "Lisez ceci."),
        ("one. Two", "un, deux"),
    ]
    assert "ch02.fr.html has other elements" in capsys.readouterr().err

"""The text that translate.py learns from: words, clear sources, and dates as CLDR writes them.

The Unicode Common Locale Data Repository (CLDR) says how every language writes a date, in several
lengths, and how it joins a list::

    long    January 7, 2026               7 janvier 2026             7. Januar 2026
    full    Wednesday, January 7, 2026    mercredi 7 janvier 2026    Mittwoch, 7. Januar 2026
    list    May 1, 2026 and June 2, 2027  1 mai 2026 et 2 juin 2027  1. Mai 2026 und 2. Juni 2027

Words swap places, some disappear, and there is one right answer: a text made for watching
attention. The dates come from Babel, which carries the CLDR data; nothing is downloaded.
"""

import datetime
import functools
import re
from collections import defaultdict

import numpy as np

# ---- Words ---------------------------------------------------------------------------------------

# A word is a run of letters, one Chinese or Japanese character, at most two digits, or one sign,
# each with the space before it. Years become two words of two digits: "1999" and "'99" share one.
CHARACTERS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORD = re.compile(rf" ?(?:[{CHARACTERS}]|\d{{1,2}}|[^\W\d{CHARACTERS}]+|[^\w ])| ")


def tokenise(text):
    """Cut a text into words. The space before a word belongs to it, so that nothing is lost.

    >>> tokenise("7 janv. 2026")
    [' 7', ' janv', '.', ' 20', '26']
    """
    return WORD.findall(" " + text)  # the first word, too, comes after a space


def detokenise(words):
    """Put words together again: ``detokenise(tokenise(text)) == text``."""
    return "".join(words)[1:]


# ---- Pairs ---------------------------------------------------------------------------------------


def drop_ambiguous(pairs, tokenise=tokenise):
    """Keep the pairs whose source has one target only, each pair once.

    A source with two targets has no right answer, and exact match could not be measured with it.
    What the model sees decides: sources are equal if their words are.
    """
    targets = defaultdict(set)
    for source, target in pairs:
        targets[tuple(tokenise(source))].add(target)
    return [
        (source, target)
        for source, target in dict.fromkeys(pairs)
        if len(targets[tuple(tokenise(source))]) == 1
    ]


def split(pairs, longest, rng):
    """Cut pairs into four lists: for training, for validation, for testing, and longer ones.

    No pair is in two lists. The sources of the first three have at most `longest` words; where that
    is not given, as many as leave one source in twenty to the last list.
    """
    if len(pairs) < 20:
        raise ValueError(f"needs at least 20 different pairs to learn from, got {len(pairs)}")
    lengths = np.array([len(tokenise(source)) for source, _ in pairs])
    longest = longest or int(np.quantile(lengths, 0.95))
    order = rng.permutation(len(pairs))
    short, longer = (
        [pairs[row] for row in order[chosen[order]]]
        for chosen in (lengths <= longest, lengths > longest)
    )
    if len(short) < 20:
        raise ValueError(
            f"needs at least 20 pairs with sources up to {longest} words, got {len(short)}"
        )
    validation = len(short) // 40 + 1
    test = validation + len(short) // 12
    return short[test:], short[:validation], short[validation:test], longer


# ---- Dates ---------------------------------------------------------------------------------------

FIRST = datetime.date(1950, 1, 1)
DAYS = 36525  # to the end of 2049: a hundred years, so that "1/7/26" is one day only

# CLDR's four lengths, and one of its patterns for a month: "January 2026".
LENGTHS = ("short", "medium", "long", "full", "yMMMM")


def date_pairs(target, count, rng):
    """Write `count` lists of one to five random days in English and in the language `target`.

    Both sides of a pair are in the same of CLDR's lengths. English does not always show which one:
    "May 5, 2026" is medium and long, but in German 05.05.2026 and 5. Mai 2026.  So every list is
    written in all lengths, the ambiguous ones are dropped, and one of the others is drawn.

    Parameters
    ----------
    target : str
        A language code of CLDR: "fr", "de", "zh", ...
    count : int
        How many lists to draw; a few less come out, since none comes twice.
    rng : numpy.random.Generator

    Returns
    -------
    list of (str, str)
    """
    lists = []
    for size in rng.integers(1, 6, count):
        days = [FIRST + datetime.timedelta(days=int(day)) for day in rng.integers(DAYS, size=size)]
        lists.append(
            [(write(days, length, "en"), write(days, length, target)) for length in LENGTHS]
        )
    clear = set(drop_ambiguous([pair for lengths in lists for pair in lengths]))
    lists = [[pair for pair in lengths if pair in clear] for lengths in lists]
    return list(dict.fromkeys(lengths[rng.integers(len(lengths))] for lengths in lists if lengths))


def write(days, length, language):
    """Write days as a list: "May 1, 2026 and June 2, 2027"."""
    from babel.lists import format_list  # only dates need Babel

    return format_list([_write_day(day, length, language) for day in days], locale=language)


@functools.cache
def _write_day(day, length, language):
    from babel.dates import format_date, format_skeleton

    if length in ("short", "medium", "long", "full"):
        return format_date(day, length, locale=language)
    return format_skeleton(length, day, locale=language)

"""Dates in two languages as CLDR writes them: pairs without end, each with one right answer.

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
from collections import defaultdict

FIRST = datetime.date(1950, 1, 1)
DAYS = 36525  # to the end of 2049: a hundred years, so that "1/7/26" is one day only

# CLDR's four lengths, and one of its patterns for a month: "January 2026".
LENGTHS = ("short", "medium", "long", "full", "yMMMM")


def date_pairs(source, target, count, rng):
    """Write `count` lists of one to five random days in two languages.

    Both sides of a pair are in the same of CLDR's lengths. The source does not always show which
    one: "May 5, 2026" is medium and long, but in German 05.05.2026 and 5. Mai 2026. So every list
    is written in all lengths, the ambiguous ones are dropped, and one of the others is drawn.

    Parameters
    ----------
    source, target : str
        Language codes of CLDR: "en", "fr", "zh", "ar", "pt-BR", ...
    count : int
        How many lists to draw; a few less come out, since none comes twice.
    rng : numpy.random.Generator

    Returns
    -------
    list of (str, str)

    Raises
    ------
    ImportError
        If Babel is not installed.
    ValueError
        If CLDR has no such language.
    """
    writers = Dates.of(source), Dates.of(target)
    lists = []
    for size in rng.integers(1, 6, count):
        days = [FIRST + datetime.timedelta(days=int(day)) for day in rng.integers(DAYS, size=size)]
        lists.append([tuple(dates.write(days, length) for dates in writers) for length in LENGTHS])
    clear = set(drop_ambiguous([pair for lengths in lists for pair in lengths]))
    lists = [[pair for pair in lengths if pair in clear] for lengths in lists]
    return list(dict.fromkeys(lengths[rng.integers(len(lengths))] for lengths in lists if lengths))


def drop_ambiguous(pairs):
    """Keep the pairs whose source has one target only, each pair once.

    A source with two targets has no right answer, and exact match could not be measured with it.
    """
    targets = defaultdict(set)
    for source, target in pairs:
        targets[source].add(target)
    return [
        (source, target) for source, target in dict.fromkeys(pairs) if len(targets[source]) == 1
    ]


class Dates:
    """How a language writes dates and lists of them: as Babel does, but many times as fast.

    Babel makes every date anew from its parts: the year, the month, the day and that of the week.
    Each of these has few values, and here each is made once.
    """

    def __init__(self, language):
        from babel import Locale, UnknownLocaleError, dates  # only dates need Babel

        try:
            locale = Locale.parse(language.replace("-", "_"))
        except (ValueError, UnknownLocaleError):
            raise ValueError(
                f"language must be one of CLDR's, such as en, fr, zh, ar or pt-BR, got {language}"
            ) from None
        self.patterns = {
            length: (locale.date_formats.get(length) or locale.datetime_skeletons[length]).format
            for length in LENGTHS
        }
        self.lists = locale.list_patterns["standard"]
        self.parts_of = functools.partial(dates.DateTimeFormat, locale=locale)
        self.made, self.day = {}, FIRST

    @classmethod
    @functools.cache
    def of(cls, language):
        """The dates of a language, with all that was made of them before."""
        return cls(language)

    def write(self, days, length):
        """Write days as a list: "May 1, 2026 and June 2, 2027"."""
        first, *others = (self._write_day(day, self.patterns[length]) for day in days)
        for n, text in enumerate(others, start=2):
            last = ("2" if n == 2 else "end") if n == len(days) else "start" if n == 2 else "middle"
            first = self.lists[last].format(first, text)
        return first

    def _write_day(self, day, pattern):
        self.day = day
        return pattern % self  # which takes each part by its name from __getitem__

    def __getitem__(self, name):
        key = name, READS.get(name[0], datetime.date.toordinal)(self.day)
        if key not in self.made:
            self.made[key] = self.parts_of(self.day)[name]
        return self.made[key]


# What the part of a pattern that begins with this letter depends on; what is not here on the day.
READS = {
    "y": lambda day: day.year,
    "M": lambda day: day.month,
    "L": lambda day: day.month,
    "d": lambda day: day.day,
    "E": lambda day: day.weekday(),
    "c": lambda day: day.weekday(),
    "G": lambda day: "era",
}

"""Pairs of dates of which it is known, character by character, what belongs to what.

A date is written from parts: the day, the month, the year and that of the week, and signs between
them. So the alignment of a translation is known by how both sides were made::

    May 7, 2026      7 mai 2026      the 7 and the 2026: digit by digit; "mai": somewhere in "May"

As the gold alignments of Och and Ney (2003), "A systematic comparison of various statistical
alignment models", it has links that are *sure* and links that are *possible*: the digits that a
number has on both sides are sure, counted from its end, so that "7" is the second of "07"; a name,
and a digit that only one side has, may go with anything of its part. What the pattern itself
writes, such as spaces, has no source.
"""

import datetime
import re

import numpy as np
from alignments import Pair, rates
from dates import DAYS, FIRST, LENGTHS, Dates, drop_ambiguous


def aligned_pairs(source, target, count, rng, longest=2):
    """Write `count` lists of one to `longest` random days in two languages of CLDR.

    A few less come out, since none comes twice, and none has two right answers.
    """
    writers, pairs = (Dates.of(source), Dates.of(target)), {}
    for size in rng.integers(1, longest + 1, count):
        days = [FIRST + datetime.timedelta(days=int(day)) for day in rng.integers(DAYS, size=size)]
        length = LENGTHS[rng.integers(len(LENGTHS))]
        parts = [parts_of_list(dates, days, length) for dates in writers]
        texts = tuple("".join(text for text, _ in side) for side in parts)
        pairs[texts] = Pair(texts[0], texts[1], *alignment(*parts))
    return [pairs[texts] for texts in drop_ambiguous(pairs)]


def parts_of_list(dates, days, length):
    """Write days as `Dates.write` does, in parts: (text, what it says), None for signs between.

    What a part says is the number of the day in the list, and the letter of its field in CLDR.
    """
    parts = parts_of_day(dates, 0, days[0], length)
    for n in range(1, len(days)):
        last = ("2" if n == 1 else "end") if n == len(days) - 1 else "start" if n == 1 else "middle"
        pieces = re.split(r"(\{[01]\})", dates.lists[last])
        both = {"{0}": parts, "{1}": parts_of_day(dates, n, days[n], length)}
        parts = [part for piece in pieces for part in both.get(piece, [(piece, None)])]
    return [part for part in parts if part[0]]


def parts_of_day(dates, number, day, length):
    dates.day = day  # which takes its fields by name
    pieces = re.split(r"%\((\w+)\)s", dates.patterns[length].replace("%%", "%"))
    return [
        (dates[piece], (number, SAME.get(piece[0], piece[0]))) if n % 2 else (piece, None)
        for n, piece in enumerate(pieces)
    ]


SAME = {"L": "M", "c": "E"}  # letters of a month and of a day of the week that stand alone


def alignment(source, target):
    """The sure and the possible links between two sides in parts."""
    shape = [sum(len(text) for text, _ in side) for side in (target, source)]
    sure, possible = np.zeros(shape, bool), np.zeros(shape, bool)
    places, start = {}, 0
    for text, said in source:
        places[said] = start, text
        start += len(text)
    row = 0
    for text, said in target:
        if said is not None and said in places:
            start, other = places[said]
            possible[row : row + len(text), start : start + len(other)] = True
            if text.isdigit() and other.isdigit():
                for back in range(1, min(len(text), len(other)) + 1):
                    here, there = row + len(text) - back, start + len(other) - back
                    sure[here, there] = text[-back] == other[-back]
                    possible[here] = sure[here] | possible[here] & ~sure[here].any()
        row += len(text)
    return sure, possible


def alignment_error(chosen, pairs):
    """The alignment error rate of `alignments.rates`: 0 is best, 1 worst.

    `chosen` has for each pair the character of the source that each of the target looks at; beyond
    the last it is the end. Characters of the target without a known source do not count.
    """
    found, ended = [], []
    for looked, pair in zip(chosen, pairs, strict=True):
        # A column for the end, to which no link is right.
        sure, possible = (np.pad(each, ((0, 0), (0, 1))) for each in (pair.sure, pair.possible))
        columns = possible.shape[1]
        at = np.minimum(np.asarray(looked), columns - 1)[:, None] == np.arange(columns)
        found.append(at & possible.any(axis=1, keepdims=True))
        ended.append(Pair(pair.source, pair.target, sure, possible))
    return rates(found, ended).error

"""The text that translate.py learns from: clear sources, dates as CLDR writes them, real sentences.

The Unicode Common Locale Data Repository (CLDR) says how every language writes a date, in several
lengths, and how it joins a list::

    long    January 7, 2026               7 janvier 2026             7. Januar 2026
    full    Wednesday, January 7, 2026    mercredi 7 janvier 2026    Mittwoch, 7. Januar 2026
    list    May 1, 2026 and June 2, 2027  1 mai 2026 et 2 juin 2027  1. Mai 2026 und 2. Juni 2027

Words swap places, some disappear, and there is one right answer: a text made for watching
attention. The dates come from Babel, which carries the CLDR data; nothing is downloaded.

Real sentences are on many a Linux system, as messages of programs and as documentation in several
languages (`apt install debian-reference-en debian-reference-fr`). This writes them as pairs::

    python corpus.py messages fr > messages.tsv
    python corpus.py documentation fr > documentation.tsv
    python translate.py --pairs documentation.tsv
"""

import argparse
import datetime
import functools
import glob
import html.parser
import os
import re
import sys
from collections import defaultdict

import numpy as np

from attnc.data import read_pairs, tokenise

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


# ---- Real sentences ------------------------------------------------------------------------------


def message_pairs(target, folder="/usr/share/locale"):
    """Read the messages of all installed programs, in English and in the language `target`.

    Each pair once, in the order of the catalogues' names.
    """
    pairs: dict[tuple[str, str], None] = {}
    for path in sorted(glob.glob(f"{glob.escape(folder)}/{target}/LC_MESSAGES/*.mo")):
        try:
            pairs.update(dict.fromkeys(read_pairs(path)))
        except ValueError as error:  # nothing is translated, or the file is damaged
            print(f"left out: {error}", file=sys.stderr)
    return list(pairs)


def documentation_pairs(target, folder="/usr/share/debian-reference"):
    """Read the Debian Reference in English and in the language `target`, sentence by sentence.

    Its translations have the paragraphs, list items and cells of the original, one for one: a page
    whose elements differ is left out, and so is what is the same in both. A paragraph is cut into
    sentences where both sides have as many. Numbers of sections are cut off. Each pair once.
    """
    pairs: dict[tuple[str, str], None] = {}
    for path in sorted(glob.glob(f"{glob.escape(folder)}/*.en.html")):
        other = path.removesuffix("en.html") + f"{target}.html"
        if not os.path.exists(other):
            continue
        here, there = blocks(path), blocks(other)
        if [tag for tag, _ in here] != [tag for tag, _ in there]:
            print(f"left out: {other} has other elements than the original", file=sys.stderr)
            continue
        for (tag, source), (_, translation) in zip(here, there, strict=True):
            if tag == "pre":  # what a terminal shows
                continue
            sides = [SENTENCE_END.split(text) for text in (source, translation)]
            if len(sides[0]) != len(sides[1]):
                sides = [[source], [translation]]
            pairs.update((pair, None) for pair in zip(*sides, strict=True) if pair[0] != pair[1])
    return list(pairs)


# A sentence ends with a sign and a space, and the next begins with a capital, also after a quote.
SENTENCE_END = re.compile(r"(?<=[.!?]) +(?=[«\"“„]?\s?[A-ZÀÂÇÈÉÊÎÔÄÖÜ])")


def blocks(path):
    """Cut a page into its blocks of text, each with the element it is in."""
    page = Page()
    with open(path, encoding="utf-8") as file:
        page.feed(file.read())
    page.close()
    page.end_block()
    return page.blocks


class Page(html.parser.HTMLParser):
    """The text of a page of HTML, by elements that stand on lines of their own."""

    tags = set("h1 h2 h3 h4 p pre div title table tr th td caption ul ol li dl dt dd".split())

    def __init__(self):
        super().__init__()
        self.blocks, self.inside, self.text = [], ["body"], ""

    def handle_starttag(self, tag, attrs):
        if tag in self.tags:
            self.end_block()
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag in self.tags:
            self.end_block()
            self.inside.pop()

    def handle_data(self, data):
        self.text += data

    def end_block(self):
        # "Chapter 5. Network setup", "5.1. The basics": the number stays out.
        text = re.sub(r"^(\w+ )?[A-Z\d]+(\.\d+)*\. ", "", " ".join(self.text.split()))
        if text:
            self.blocks.append((self.inside[-1], text))
        self.text = ""


def main():
    parser = argparse.ArgumentParser(description="Write sentence pairs: English TAB translation.")
    parser.add_argument("kind", choices=["messages", "documentation"])
    parser.add_argument("target", help="language of the translations: fr, de, ...")
    args = parser.parse_args()
    readers = {"messages": message_pairs, "documentation": documentation_pairs}
    pairs = readers[args.kind](args.target)
    if not pairs:
        sys.exit(f"corpus.py: found no {args.kind} in {args.target} on this machine")
    with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as output:
        output.writelines(f"{source}\t{target}\n" for source, target in pairs)


if __name__ == "__main__":
    main()

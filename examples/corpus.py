"""The pairs that a translator learns from: of dates, of a file, or real ones that are at hand.

Real sentences are on many a Linux system, as messages of programs and as documentation in several
languages (`apt install debian-reference-en debian-reference-fr`). This writes them as pairs::

    python corpus.py messages fr > messages.tsv
    python corpus.py documentation fr > documentation.tsv
    python translate.py --pairs documentation.tsv
"""

import argparse
import glob
import html.parser
import os
import re
import sys
from collections import Counter, defaultdict, namedtuple

import numpy as np

from attnc.data import normalise, read_pairs, split, tokenise

# ---- Pairs for a run -----------------------------------------------------------------------------


def one_target_each(pairs):
    """Keep one target for each source: the one that is there most often, or first."""
    targets = defaultdict(Counter)
    for source, target in pairs:
        targets[source][target] += 1
    return [(source, counts.most_common(1)[0][0]) for source, counts in targets.items()]


# Pairs for training, validation and testing; and with more than `longest` words, up to twice that.
Parts = namedtuple("Parts", ["training", "validation", "test", "longer", "longest"])


def parts(settings):
    """Read or write the pairs that a run is about, and cut them into `Parts`.

    What is drawn depends on the seed alone, so that a training that goes on has the same parts.

    Parameters
    ----------
    settings : dict
        "pairs", a file, or "source", "target" and "dates", the languages and number of dates;
        "longest", words, where not so many that one source in twenty is longer; "lower"; "seed".
    """
    rng = np.random.default_rng(settings["seed"])
    if settings["pairs"]:
        languages = {side: settings[side] for side in ("source", "target") if settings.get(side)}
        given = read_pairs(settings["pairs"], **languages)
        pairs = one_target_each(given)
        print(f"{len(given):,} pairs, with {len(pairs):,} different sources.")
    else:
        from dates import date_pairs

        pairs = date_pairs(settings["source"], settings["target"], settings["dates"], rng)
    if len(pairs) < 20:
        raise ValueError(f"needs at least 20 different pairs to learn from, got {len(pairs)}")
    lengths = [len(tokenise(normalise(source))) for source, _ in pairs]
    most = np.quantile(lengths, 0.95)
    longest = settings["longest"] or max(
        (length for length in lengths if length < most), default=max(lengths)
    )
    short, longer = (
        [pair for pair, length in zip(pairs, lengths, strict=True) if low < length <= high]
        for low, high in ((0, longest), (longest, 2 * longest))
    )
    if len(short) < 20:
        raise ValueError(
            f"needs at least 20 pairs with sources up to {longest} words, got {len(short)}"
        )
    sizes = {"validation": min(len(short) // 20 + 1, 500), "test": min(len(short) // 12 + 1, 1000)}
    cut = _without_near_copies(short, sizes, rng) if settings["pairs"] else None
    cut = cut or _at_random(short, sizes, rng)
    return Parts(*cut, [longer[row] for row in rng.permutation(len(longer))[:1000]], longest)


def _without_near_copies(pairs, sizes, rng):
    """Training, validation and test; None where most pairs are near-copies of others."""
    try:
        cut = split(pairs, **sizes, rng=rng)
    except ValueError:
        return None
    return [[part[row] for row in rng.permutation(len(part))] for part in cut[:3]]


def _at_random(pairs, sizes, rng):
    """Training, validation and test, of pairs that have near-copies: as dates have, by design."""
    pairs = [pairs[row] for row in rng.permutation(len(pairs))]
    validation, test = sizes["validation"], sizes["validation"] + sizes["test"]
    return pairs[test:], pairs[:validation], pairs[validation:test]


# ---- Real sentences ------------------------------------------------------------------------------


def message_pairs(target, folder="/usr/share/locale"):
    """Read the messages of all installed programs, in English and in the language `target`.

    Each pair once, in the order of the catalogues' names.
    """
    pairs = {}
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
    pairs = {}
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

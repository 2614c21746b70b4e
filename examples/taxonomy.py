"""Nouns, and which of them are kinds of which: a taxonomy of 89, or WordNet's.

    python taxonomy.py                       lists the nouns, of WordNet where it is installed

A noun is known by its extension, the set of all that is of its kind, itself among it; so one noun
is a kind of another where its extension is within that of the other, and two exclude each other
where nothing is in both (`relation`). WordNet is Debian's package wordnet-base (Princeton, 3.0).
"""

import collections
import pathlib

FOLDER = "/usr/share/wordnet"

# What may be somewhere, what it may be beside, and where: a line a kind, below its root.
BUILT_IN = (
    """
animal
  dog: poodle terrier spaniel beagle collie
  bird: sparrow robin eagle owl duck
  fish: trout salmon carp pike
  insect: beetle moth wasp ant
  snake: cobra python viper
  monkey: baboon macaque marmoset
""",
    """
vehicle
  boat: canoe ferry yacht barge
  car: sedan jeep limousine
food
  fruit: apple pear cherry plum lemon
  vegetable: carrot onion cabbage spinach
tool
  saw: hacksaw jigsaw chainsaw
  hammer: mallet sledgehammer gavel
""",
    """
building
  house: cottage bungalow mansion villa
  shop: bakery bookshop pharmacy
  church: chapel cathedral abbey
land
  forest: jungle taiga pinewood
  grassland: meadow prairie savanna
  wetland: marsh swamp bog
""",
)

# The same for WordNet: roots, and kinds below them. "food#2" is meant in its second sense.
WORDNET = (
    {"animal": "dog bird fish insect snake monkey"},
    {"vehicle": "boat car plane", "food#2": "vegetable meat cheese", "tool": "saw#2 knife"},
    {"building": "house church#2 restaurant hotel", "formation#4": "shore valley slope"},
)
MOST = 3  # nouns of each kind to take from WordNet, the most frequent


def relation(premise, hypothesis):
    """What the extension of a noun says of another's in its place, as labels of sentences.

    "entailment": what holds of a premise's poodle holds of a dog. "neutral": a dog may be a poodle.
    "contradiction": a poodle is no cat. None: some are both, and nothing follows.
    """
    if premise <= hypothesis:
        return "entailment"
    if premise > hypothesis:
        return "neutral"
    return "contradiction" if premise.isdisjoint(hypothesis) else None


def built_in():
    """Return {noun: extension} for each part of a sentence."""
    return [parse(text) for text in BUILT_IN]


def parse(text):
    """Read a taxonomy of three levels."""
    found = {}
    for line in text.strip().splitlines():
        if not line.startswith(" "):
            root = line
            found[root] = {root}
            continue
        kind, leaves = line.split(":")
        found[kind.strip()] = {kind.strip(), *leaves.split()}
        found[root] |= found[kind.strip()]
        found |= {leaf: {leaf} for leaf in leaves.split()}
    return {noun: frozenset(extension) for noun, extension in found.items()}


class WordNet:
    """The nouns of WordNet: what each means, how often, and what is below it.

    The files are described in wndb(5WN) and senseidx(5WN). A meaning is the offset of its line in
    data.noun.

    Parameters
    ----------
    folder : path
        Has data.noun, index.noun and cntlist.rev.
    """

    def __init__(self, folder=FOLDER):
        folder = pathlib.Path(folder)
        self.senses = {}  # word: its meanings, the most frequent first
        self.words = {}  # meaning: its words, and how often each was met
        self.narrower = collections.defaultdict(list)  # meaning: meanings right below
        counts = {}
        for line in _lines(folder / "cntlist.rev"):
            key, _, count = line.split()
            counts[key] = int(count)
        for line in _lines(folder / "index.noun"):
            fields = line.split()
            self.senses[fields[0]] = fields[-int(fields[2]) :]
        for line in _lines(folder / "data.noun"):
            offset, file, _, size, *fields = line.partition(" | ")[0].split()
            end = 2 * int(size, 16)
            names = zip(fields[:end:2], fields[1:end:2], strict=True)
            keys = {word: f"{word.lower()}%1:{file}:{int(n, 16):02}::" for word, n in names}
            self.words[offset] = {word: counts.get(key, 0) for word, key in keys.items()}
            pointers = fields[end + 1 :]
            for symbol, target in zip(pointers[::4], pointers[1::4], strict=True):
                if symbol == "@":  # "is a kind of"; "@i" is of names
                    self.narrower[target].append(offset)

    def extension(self, meaning):
        """All meanings that are of a kind, itself among them."""
        found, new = set(), [meaning]
        while new:
            one = new.pop()
            if one not in found:
                found.add(one)
                new += self.narrower.get(one, ())
        return frozenset(found)

    def meaning(self, word):
        """The meaning of "saw", the first, or of "saw#2"."""
        word, _, number = word.partition("#")
        return self.senses[word][int(number or 1) - 1]

    def most_frequent(self, kind, most, without):
        """Return {noun: meaning} of the nouns below a meaning that are met most often.

        A noun is one word of small letters in the first of its senses, and no two mean the same. Of
        those met equally often, shorter ones come first.
        """
        found = []
        for meaning in self.extension(kind) - without:
            named = [
                (-times, len(word), word)
                for word, times in self.words[meaning].items()
                if word.isalpha() and word.islower() and self.senses[word][0] == meaning
            ]
            if named:
                found.append((*min(named), meaning))
        return {word: meaning for *_, word, meaning in sorted(found)[:most]}

    def nouns(self, tree, most=MOST):
        """Return {noun: extension} of the roots, their kinds, and nouns below these."""
        words = [word for root, kinds in tree.items() for word in (root, *kinds.split())]
        found = {word.partition("#")[0]: self.meaning(word) for word in words}
        for kind in " ".join(tree.values()).split():
            found |= self.most_frequent(self.meaning(kind), most, {*found.values()})
        return {word: self.extension(meaning) for word, meaning in found.items()}


def _lines(path):
    """The lines of a file, without those of the licence, which begin with blanks."""
    with open(path, encoding="utf-8") as file:
        yield from (line for line in file if not line.startswith("  "))


def from_wordnet(folder=FOLDER):
    """Return {noun: extension} for each part of a sentence."""
    wordnet = WordNet(folder)
    return [wordnet.nouns(tree) for tree in WORDNET]


def is_installed(folder=FOLDER):
    """Whether WordNet is there."""
    return pathlib.Path(folder, "data.noun").exists()


def main():
    for nouns in from_wordnet() if is_installed() else built_in():
        print()
        for noun, extension in nouns.items():
            above = [other for other, wider in nouns.items() if extension < wider]
            print(f"{noun:16}{', '.join(above)}")


if __name__ == "__main__":
    main()

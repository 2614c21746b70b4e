"""Sentence pairs, text, vocabularies and batches: what stands between a file and a layer.

A file of sentence pairs becomes arrays in a few steps::

    pairs = attnc.data.read_pairs("fra.txt")                       # [("Go.", "Va !"), ...]
    parts = attnc.data.split(pairs, validation=0.05, test=500)     # no near-copies across
    sources = [attnc.data.tokenise(source) for source, target in parts.training]
    vocabulary = attnc.data.Vocabulary.build(sources)              # or Subwords.build
    numbers = [vocabulary.encode(words, end=True) for words in sources]
    for rows in attnc.data.batches([len(n) for n in numbers], 64, max_padding=0.1, rng=0):
        array, lengths = attnc.data.pad([numbers[row] for row in rows])

`array` goes into an embedding and `lengths` into ``key_lengths=`` of an attention. NumPy only, but
for three things that ``pip install "attnc[data]"`` brings libraries for: catalogues of gettext,
learning subwords, and the tokeniser of Moses.
"""

from attnc.data.batching import batches
from attnc.data.extended import ExtendedVocabulary
from attnc.data.padding import pad
from attnc.data.pairs import read_pairs
from attnc.data.splits import Split, split
from attnc.data.subwords import Subwords
from attnc.data.text import detokenise, normalise, tokenise
from attnc.data.vocabulary import Vocabulary

__all__ = [
    "ExtendedVocabulary",
    "Split",
    "Subwords",
    "Vocabulary",
    "batches",
    "detokenise",
    "normalise",
    "pad",
    "read_pairs",
    "split",
    "tokenise",
]

"""Learn to translate with attention, from real text, in about a minute.

    python translate.py                             dates, English to French
    python translate.py --source ar --target zh     any two languages of CLDR
    python translate.py --pairs fra.txt             sentence pairs of your own: source TAB target
    python translate.py --attention none            without attention, to see what it is worth
    python translate.py --load translate-en-fr "Friday, May 1, 2026"
    python translate.py --load translate-en-fr --picture may.png "Friday, May 1, 2026"
    python translate.py --load translate-en-fr --continue --seconds 120

The model is the one of Bahdanau, Cho and Bengio (2015), "Neural machine translation by jointly
learning to align and translate"::

    source words -> Embedding -> GRU in both directions -> memory, a vector for each source word
    target words so far -> Embedding -> AttentionDecoder, looks at the memory -> Linear -> next word

All of it is one layer, `attnc.Seq2Seq`. The words around it and its training are in translation.py,
the command line in command.py, the report and the pictures in results.py.

While it trains, press Ctrl-C when you have seen enough: the best model so far is kept. The output
folder then holds the model, its loss curve and an alignment: what the decoder looked at, word by
word.
"""

import os
import sys

# Matrices this small gain nothing from a second thread of NumPy's own, and its threads, which wait
# for each other all the time, become ten times slower where another program needs a processor.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import command

    import attnc
    from attnc.data import Vocabulary
except ImportError as error:
    sys.exit(f"translate.py: {error}; install it with: pip install {error.name}")

ATTENTIONS = ["additive", "multiplicative", "dot", "cosine", "none"]
OPTIONS = {
    "attention": (ATTENTIONS, "score of a word"),
    "embedding": (int, "size of a word's vector"),
    "state": (int, "size of the decoder's state"),
}
QUICK = {"embedding": 32, "state": 32}


def build(settings, source_size, target_size, rng):
    """Make the model for vocabularies of these sizes."""
    return attnc.Seq2Seq(
        source_size,
        target_size,
        embedding_size=settings["embedding"],
        state_size=settings["state"],
        attention=settings["attention"],
        tied=settings["tied"],
        dropout=settings["dropout"],
        padding_index=Vocabulary.padding,
        rng=rng,
    )


# What a training is told by the number of its pairs, unless the command line says otherwise. Small
# data is learned by heart: the less of it, the more dropout, and the fewer pieces of words. The
# first and the last row are guesses; what the others reach is in README.md.
#   pairs up to  embedding  state  tied   subwords  dropout  smoothing  rate   seconds
SIZES = [
    (2_000,      128,       128,   True,  1000,     0.4,     0.1,       0.002, 120),
    (20_000,     256,       256,   True,  4000,     0.3,     0.1,       0.002, 600),
    (100_000,    256,       256,   True,  8000,     0.2,     0.1,       0.002, 1800),
    (10**9,      512,       512,   True,  16000,    0.1,     0.1,       0.001, 10800),
]  # fmt: skip
DATES = (64, 128, False, 0, 0.0, 0.0, 0.004, 60)  # they are regular, and of a few hundred words


def defaults(count, generated, told):
    """Return the settings for so many pairs, of generated dates or of real text, beside `told`."""
    row = DATES if generated else next(row[1:] for row in SIZES if count <= row[0])
    names = "embedding state tied subwords dropout smoothing rate seconds".split()
    settings = dict(zip(names, row, strict=True)) | {"batch": 32, "attention": "additive"} | told
    # One table of vectors for both languages and the output needs states of their size.
    settings["tied"] = settings["tied"] and settings["embedding"] == settings["state"]
    return settings


PROGRAM = command.Program("translate.py", __doc__, build, defaults, OPTIONS, QUICK)

if __name__ == "__main__":
    command.main(PROGRAM)

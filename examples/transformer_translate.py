"""Learn to translate with a Transformer, from real text, in about a minute.

    python transformer_translate.py                             dates, English to French
    python transformer_translate.py --source ar --target zh     any two languages of CLDR
    python transformer_translate.py --pairs fra.txt             sentence pairs: source TAB target
    python transformer_translate.py --layers 1 --heads 1        how few are enough?
    python transformer_translate.py --positions none            without the order of the words
    python transformer_translate.py --load transformer-translate-en-fr "Friday, May 1, 2026"

Whatever translate.py does, this does too: --continue, --picture and the rest of its options.

The model is the one of Vaswani et al. (2017), "Attention is all you need", and a small one::

    source words -> vectors + positions -> encoder layers -> memory, a vector for each source word
    target words so far -> vectors + positions -> decoder layers, look at the memory -> next word

All of it is one layer, `attnc.Transformer`. Data, training, report and command line are those of
translate.py, so that the two can be compared; the options of the model are its own.

The output folder holds the model, its loss curve and two pictures of one translation. heads.png
shows what every head of every decoder layer looked at in the source. alignment.png shows one of
these heads, to compare with that of translate.py: the one most like an alignment, as it is, for
nothing is averaged; the title names it, and `results.alignment` says how it is chosen. So does
--picture may.png, which writes may.png and may-heads.png.
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in translate.py
try:
    import command

    import attnc
    from attnc.data import Vocabulary
except ImportError as error:
    sys.exit(f"transformer_translate.py: {error}; install it with: pip install {error.name}")

OPTIONS = {
    "norm": (["pre", "post"], "a layer's norms: before attention, or after it as in the paper"),
    "positions": (["sinusoidal", "rotary", "alibi", "none"], "what tells the order of words"),
    "size": (int, "size of a word's vector, in all layers"),
    "heads": (int, "heads of each attention; a divisor of the size"),
    "layers": (int, "layers of the encoder, and as many of the decoder"),
    "feedforward": (int, "hidden units of the networks between attentions"),
}
QUICK = {"size": 32, "heads": 2, "layers": 2, "feedforward": 64}


def build(settings, source_size, target_size, rng):
    """Make the model for vocabularies of these sizes."""
    return attnc.Transformer(
        source_size,
        target_size,
        settings["size"],
        settings["heads"],
        encoder_layers=settings["layers"],
        decoder_layers=settings["layers"],
        feedforward_size=settings["feedforward"],
        positions=None if settings["positions"] == "none" else settings["positions"],
        norm=settings["norm"],
        tied=settings["tied"],
        shared_vocabulary=settings["tied"],
        dropout=settings["dropout"],
        padding_index=Vocabulary.padding,
        rng=rng,
    )


# What a training is told by the number of its pairs, as in translate.py. What the second row and
# the dates reach is in README.md; the other rows are guesses.
#   pairs up to  size  heads  layers  feedforward  tied  subwords  dropout  smoothing rate   seconds
SIZES = [
    (2_000,      128,  4,     2,      512,         True, 1000,     0.2,     0.1,      0.002, 120),
    (20_000,     128,  4,     2,      512,         True, 4000,     0.1,     0.1,      0.002, 600),
    (100_000,    256,  4,     3,      1024,        True, 8000,     0.1,     0.1,      0.001, 1800),
    (10**9,      512,  8,     6,      2048,        True, 16000,    0.1,     0.1,      5e-4,  10800),
]  # fmt: skip
DATES = (128, 4, 2, 256, False, 0, 0.0, 0.0, 0.002, 60)  # regular, and of a few hundred words


def defaults(count, generated, told):
    """Return the settings for so many pairs, of generated dates or of real text, beside `told`."""
    row = DATES if generated else next(row[1:] for row in SIZES if count <= row[0])
    names = "size heads layers feedforward tied subwords dropout smoothing rate seconds".split()
    others = {"batch": 64, "warmup": 100} if generated else {"batch": 32, "warmup": 200}
    chosen = {"norm": "pre", "positions": "sinusoidal"}
    return dict(zip(names, row, strict=True)) | others | chosen | told


PROGRAM = command.Program("transformer_translate.py", __doc__, build, defaults, OPTIONS, QUICK)

if __name__ == "__main__":
    command.main(PROGRAM)

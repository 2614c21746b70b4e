"""Learn to write as a text does, one character after the other, in a minute and a half.

    python language_model.py                        text that Python brings: licence, help topics
    python language_model.py alice.txt more.txt     your own text, in UTF-8
    python language_model.py --load language-model "The statement "
    python language_model.py --load language-model --temperature 0 --count 1000 "The statement "

The model is that of Radford et al. (2019), "Language models are unsupervised multitask learners",
with rotary positions::

    characters so far -> Embedding -> layers of causal self-attention -> Linear -> next character

All of it is one layer, `attnc.LanguageModel`. The first nine tenths of the text are for training;
of the rest, one half chooses the best model and the other says how good it is. Its measure is bits
a character: as many as it takes to write the text down for a reader who expects what the model
expects. Where the text comes from and what simpler methods need is in texts.py, how the model
writes in writing.py; training and the picture are those of the translators.

While it trains, press Ctrl-C when you have seen enough: the best model so far is kept. The output
folder then holds the model and its loss curve.
"""

import argparse
import os
import shlex
import sys
from typing import Any

# Matrices this small gain nothing from a second thread of NumPy's own: see translate.py.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import command
    import numpy as np
    import results
    import texts
    import translation
    import writing

    import attnc
    from attnc.data import Vocabulary
except ImportError as error:
    sys.exit(f"language_model.py: {error}; install it with: pip install {error.name}")

PROGRAM = "language_model.py"
SETTINGS: dict[str, Any] = {
    "size": 128, "heads": 4, "layers": 4, "length": 128, "batch": 8, "dropout": 0.1, "rate": 0.004,
    "smoothing": 0.0, "seconds": 90, "steps": None, "seed": 0,
}  # fmt: skip
QUICK = {"size": 32, "layers": 2, "length": 32, "batch": 8, "rate": 0.01, "steps": 150}
WRITING = {"load", "text", "count", "temperature", "top_p", "seed"}  # what --load makes use of
LEAST = {
    "seconds": 0.1, "steps": 1, "seed": 0, "dropout": 0, "size": 1, "layers": 1, "length": 4,
    "count": 1, "temperature": 0,
}  # fmt: skip


def cosine(step, done, settings):
    """Return the factor of the rate: it rises, then falls along a cosine, in 1000 parts."""
    return attnc.schedules.cosine(max(int(1000 * done), 1), 1.0, 1000, warmup_steps=50)


# ---- Learning ------------------------------------------------------------------------------------


def learn(given):
    """Train a model, keep it, say how good it is, and let it write."""
    settings = SETTINGS | (QUICK if "quick" in given else {})
    settings |= {name: value for name, value in given.items() if name in settings}
    length = settings["length"]
    text = texts.read(given.get("text", []), least=8 * length)
    first, last = len(text) * 90 // 100, len(text) * 95 // 100
    vocabulary = Vocabulary.build([list(text[:first])])
    tokens = vocabulary.encode(list(text))
    held = text[last:]
    print(f"{first:,} characters to train with, {len(vocabulary.words):,} different ones; the next "
          f"{last - first:,}\nchoose the best model, the last {len(held):,} test it.")  # fmt: skip
    rng = np.random.default_rng(settings["seed"])
    model = attnc.LanguageModel(
        len(vocabulary), settings["size"], settings["heads"], settings["layers"],
        positions="rotary", dropout=settings["dropout"], padding_index=Vocabulary.padding, rng=rng,
    )  # fmt: skip
    writer = writing.Writer(model, vocabulary, settings)
    optimizer = attnc.optim.AdamW(
        model, settings["rate"], (0.9, 0.99), weight_decay=0.1, without_decay=["*bias", "*embed*"]
    )
    training = texts.windows(tokens[:first], length, length // 4)
    validation = texts.half_read(tokens[:last], first, length)
    validation = validation[:: -(-len(validation) // 64)]
    folder = translation.new_folder(given.get("output", "language-model"))
    print(f"Training {sum(p.size for p in model.parameters.values()):,} parameters ...")
    with translation.unless_empty(folder):
        history = translation.train(
            writer, training, validation, settings, rng, optimizer, schedule=cosine
        )
        writing.save(writer, history, folder)
    results.draw_losses(history, f"{folder}/loss.png", ylabel="bits a character", yscale="linear")

    print("\nBits a character of the text to test with, by")
    found = texts.others(text, tokens, len(vocabulary), last)
    found["this model"] = writer.mean_loss(texts.half_read(tokens, last, length))
    for name, bits in sorted(found.items(), key=lambda item: -item[1]):
        print(f"  {bits:6.3f}  {name}")
    print("Compressors: by what the compressed text grows. They and the counts know all before it.")
    if (best := min(found, key=found.__getitem__)) != "this model":
        print(f"{best} needs fewer: the model wants more --seconds, or more text.")
    writing.show_samples(writer, held)
    writing.show_speed(writer, held, 60 if "quick" in given else 400)
    print(f"\nLoss curve: {folder}/loss.png\nModel:      {folder}, which goes on with a text by:")
    prompt = shlex.quote(" ".join(held.split())[:20])
    print(f"  {sys.executable} {sys.argv[0]} --load {folder} {prompt}")


# ---- Writing -------------------------------------------------------------------------------------


def write(given):
    """Go on with prompts, by a model that was kept."""
    writer = writing.load(given["load"])
    options = {"temperature": given.get("temperature", 0.8), "top_p": given.get("top_p")}
    for prompt in given.get("text") or filter(None, sys.stdin.read().splitlines()):
        if not prompt:
            raise ValueError("a prompt needs a character at least")
        unknown = sorted({character for character in prompt if character not in writer.vocabulary})
        if unknown:
            print(f"{PROGRAM}: not among its characters: {' '.join(unknown)}", file=sys.stderr)
        rng = given.get("seed", 0)
        print(prompt + writer.go_on(prompt, given.get("count", 400), rng=rng, **options))


def main():
    parser = command.Parser(
        prog=PROGRAM, description=__doc__, argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("text", nargs="*", help="files to learn from; with --load, prompts (else lines of input)")
    add("--seconds", type=float, help="longest time to train (default: 90)")
    add("--steps", type=int, help="train so many steps instead: a repeatable run")
    add("--size", type=int, help="of a character's vector, a multiple of 8 (default: 128)")
    add("--layers", type=int, help="of the model (default: 4)")
    add("--length", type=int, metavar="N", help="characters that are seen at once (default: 128)")
    add("--dropout", type=float, metavar="RATE", help="more for small texts (default: 0.1)")
    add("--seed", type=int, help="for all that is random (default: 0)")
    add("--output", metavar="DIR", help="for model and picture (default: language-model)")
    add("--quick", action="store_true", help="a small model, a few seconds, for tests")
    add("--load", metavar="DIR", help="go on with a text, by the model of an earlier run")
    add("--count", type=int, metavar="N", help="of characters to write (default: 400)")
    add("--temperature", type=float, help="0: the most probable character (default: 0.8)")
    add("--top-p", type=float, metavar="P", help="draw from the most probable of this share")
    given = vars(parser.parse_args())
    command.check_numbers(parser, given, LEAST)
    if "load" in given:
        useless, fix = given.keys() - WRITING, "does nothing with --load, which does not train"
    else:
        useless, fix = given.keys() & (WRITING - {"text", "seed"}), "needs --load DIR"
    for name in sorted(useless):
        parser.error(f"--{name.replace('_', '-')} {fix}")
    with command.errors_in_a_line(PROGRAM):
        write(given) if "load" in given else learn(given)


if __name__ == "__main__":
    main()

"""Learn to translate with attention, from real text, in about a minute.

    python translate.py                        dates, English to French; --target de, --target zh
    python translate.py --pairs fra.txt        sentence pairs of your own: source TAB target
    python translate.py --attention none       without attention, to see what it is worth
    python translate.py --load translate-fr/model.npz "Friday, May 1, 2026"

The model is the one of Bahdanau, Cho and Bengio (2015), "Neural machine translation by jointly
learning to align and translate"::

    source words -> Embedding -> GRU in both directions -> memory, a vector for each source word
    target words so far -> Embedding -> AttentionDecoder, looks at the memory -> Linear -> next word

All of it is one layer, `attnc.Seq2Seq`. Here are the words around it and the training.

While it trains, press Ctrl-C when you have seen enough: the best model so far is kept. The output
folder then holds the model, its loss curve and an alignment: what the decoder looked at, word by
word.
"""

import argparse
import collections
import json
import os
import sys
import time
import zipfile
import zlib

# Matrices this small gain nothing from a second thread of NumPy's own, and its threads, which wait
# for each other all the time, become ten times slower where another program needs a processor.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import matplotlib
    import numpy as np
    from tqdm import tqdm

    import attnc
    from attnc.data import Vocabulary, batches, detokenise, pad, read_pairs, tokenise
    from attnc.plot import heat_map, loss_curve
except ImportError as error:
    sys.exit(f"translate.py: {error}; install it with: pip install {error.name}")
from corpus import date_pairs, drop_ambiguous, split

matplotlib.use("Agg")  # pictures go to files, with or without a screen


# ---- The translator ------------------------------------------------------------------------------


class Translator:
    """A `attnc.Seq2Seq` between the words of two languages."""

    def __init__(self, source_vocabulary, target_vocabulary, attention="additive", size=128, rng=0):
        self.source_vocabulary, self.target_vocabulary = source_vocabulary, target_vocabulary
        self.attention, self.size = attention, size
        self.model = attnc.Seq2Seq(
            len(source_vocabulary),
            len(target_vocabulary),
            embedding_size=size // 2,
            state_size=size,
            attention=attention,
            padding_index=Vocabulary.padding,
            rng=rng,
        )

    def loss(self, source, lengths, target):
        """Return the loss of predicting each target word from those before it, and the way back."""
        (loss, _), pullback = attnc.vjp(
            self.model, source, target[:, :-1], lengths, labels=target[:, 1:]
        )
        return loss, pullback

    def translate(self, texts, batch_size=256):
        """Translate texts, always taking the most probable next word; a Translation for each."""
        words = [tokenise(" ".join(text.split())) for text in texts]
        numbers = [self.source_vocabulary.encode(some, end=True) for some in words]
        translations = [None] * len(texts)
        for rows in batches([len(some) for some in numbers], batch_size, shuffle=False):
            source, lengths = pad([numbers[row] for row in rows])
            decoded = self.model.translate(
                source,
                lengths,
                start=Vocabulary.start,
                end=Vocabulary.end,
                max_length=limit(source.shape[1]),
            )
            for row, target, weights in zip(rows, *decoded, strict=True):
                length = len(numbers[row])
                target = self.target_vocabulary.decode(target[: limit(length)])
                shown = (target + ["(end)"])[: limit(length)]
                weights = weights[: len(shown), :length]
                translations[row] = Translation(
                    texts[row], detokenise(target), words[row] + ["(end)"], shown, weights
                )
        return translations


# Source and translation as texts and as words; a row of weights for each word of the translation.
Translation = collections.namedtuple(
    "Translation", ["source", "target", "source_words", "target_words", "weights"]
)


def limit(length):
    """Say how many words a translation may have: a decoder that never ends must be stopped."""
    return 2 * length + 10


def save_model(translator, path):
    """Write parameters, vocabularies and settings into one .npz file, without pickle."""
    arrays = {
        "settings": json.dumps({"attention": translator.attention, "size": translator.size}),
        "source_words": np.array(translator.source_vocabulary.words, dtype=str),
        "target_words": np.array(translator.target_vocabulary.words, dtype=str),
    }
    with open(f"{path}.part", "wb") as file:  # an interrupt leaves no half file
        np.savez(file, **arrays, **translator.model.parameters)
    os.replace(f"{path}.part", path)


def load_model(path):
    """Read a model that `save_model` wrote."""
    try:
        with open(path, "rb") as stream, np.load(stream) as file:
            arrays = dict(file)
        vocabularies = [Vocabulary(arrays.pop(f"{side}_words")) for side in ("source", "target")]
        translator = Translator(*vocabularies, **json.loads(str(arrays.pop("settings"))))
        translator.model.load_state_dict(arrays)
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a model of translate.py") from error
    return translator


# ---- Training ------------------------------------------------------------------------------------


def train(
    translator, training, validation, *, seconds, steps, rng, batch_size=32, learning_rate=0.004
):
    """Train for so many seconds, or steps; leave the best parameters in the translator.

    The best are those with the most exact translations of the validation pairs. Ctrl-C ends the
    training early. Returns the loss of every step, and (step, loss) on the validation pairs.
    """
    sources, targets = zip(*training, *validation, strict=True)
    sources = [translator.source_vocabulary.encode(tokenise(text), end=True) for text in sources]
    targets = [
        translator.target_vocabulary.encode(tokenise(text), start=True, end=True)
        for text in targets
    ]

    def arrays(rows):
        target, _ = pad([targets[row] for row in rows])
        return *pad([sources[row] for row in rows]), target

    lengths = [len(source) for source in sources[: len(training)]]
    check = arrays(range(len(training), len(sources)))
    model = translator.model
    optimizer = attnc.optim.Adam(model, learning_rate)
    losses, checks = [], []
    best, best_accuracy, accuracy = None, -1, 0
    start, done, next_check = time.perf_counter(), 0, 0.05
    bar_format = "{percentage:3.0f} % |{bar}| {elapsed}, {remaining} left{postfix}"
    bar = tqdm(total=100, disable=None, bar_format=bar_format)
    try:
        while done < 1:
            for rows in batches(lengths, batch_size, rng=rng):
                loss, back = translator.loss(*arrays(rows))
                optimizer.zero_grad()
                back()
                attnc.optim.clip_gradients(model, 1.0)
                # The rate rises over the first steps, and falls to zero over the second half.
                rate = min((len(losses) + 1) / 50, 1, 2 - 2 * done)
                optimizer.learning_rate = rate * learning_rate
                optimizer.step()
                losses.append(loss)
                spent = (time.perf_counter() - start) / seconds
                done = min(len(losses) / steps if steps else spent, 1)
                if done >= next_check or done == 1:
                    next_check = done + 0.05
                    checks.append((len(losses), translator.loss(*check)[0]))
                    accuracy = exact_match(translator, validation)
                    if accuracy >= best_accuracy:
                        best, best_accuracy = model.state_dict(), accuracy
                bar.set_postfix_str(f"loss {np.mean(losses[-20:]):.4f}, accuracy {accuracy:.1%}", 0)
                bar.update(100 * done - bar.n)
                if done == 1:
                    break
    except KeyboardInterrupt:
        bar.close()
        print("Stopped by Ctrl-C; the best model so far is kept.")
    bar.close()
    if best is not None:
        model.load_state_dict(best)
    spent = time.perf_counter() - start
    print(f"Trained {len(losses)} steps of {batch_size} pairs in {spent:.1f} s.")
    return losses, checks


# ---- Results -------------------------------------------------------------------------------------


def exact_match(translator, pairs):
    """Return the share of pairs that are translated without a single mistake."""
    translations = translator.translate([source for source, _ in pairs])
    return np.mean(
        [got.target == right for got, (_, right) in zip(translations, pairs, strict=True)]
    )


def report(translator, test, longer):
    """Print the exact matches by source length: on held-out pairs, and on longer ones."""
    print("\nExact translations of sources that were not in training, by length:")
    for remark, pairs in (("", test), (", longer than any in training", longer)):
        groups = collections.defaultdict(list)
        for pair in pairs:
            groups[(len(tokenise(pair[0])) - 1) // 8].append(pair)
        right = {
            group: exact_match(translator, members) for group, members in sorted(groups.items())
        }
        for group, share in right.items():
            words = f"{8 * group + 1:3} to {8 * group + 8:2} words"
            print(f"  {words} {share:8.1%} of {len(groups[group])}{remark}")
        if len(groups) > 1:
            share = sum(right[group] * len(groups[group]) for group in groups) / len(pairs)
            print(f"  all            {share:8.1%} of {len(pairs)}{remark}")


def show_samples(translator, pairs):
    """Print some translations, and where one is wrong the right one."""
    print("\nSamples:")
    translations = translator.translate([source for source, _ in pairs])
    for got, (source, right) in zip(translations, pairs, strict=True):
        remark = "" if got.target == right else f"\n    wrong, right is: {right}"
        print(f"  {source}\n    {got.target}{remark}")


def draw(translator, sources, losses, checks, folder):
    """Write the pictures: the loss curve, and what the decoder looked at."""
    loss_curve(losses, checks).figure.savefig(f"{folder}/loss.png", dpi=150)
    print(f"\nLoss curve: {folder}/loss.png")
    if translator.attention == "none":
        return

    def steps_back(got):
        return np.sum(np.diff(got.weights.argmax(axis=-1)) < 0)

    # Of a hundred sources that are short enough to read, the one with most words out of order.
    short = sorted(sources, key=lambda source: len(tokenise(source)) > 18)[:100]
    got = max(translator.translate(short), key=steps_back)
    ax = heat_map(got.weights, got.target_words, got.source_words)
    ax.set(xlabel="source", ylabel="translation")
    ax.figure.savefig(f"{folder}/alignment.png", dpi=150)
    print(f"Alignment:  {folder}/alignment.png, of: {got.source}")


# ---- The command ---------------------------------------------------------------------------------


def learn(args):
    """Train a translator, report how good it is, and write the model and the pictures."""
    rng = np.random.default_rng(args.seed)
    folder = args.output or f"translate-{os.path.basename(args.pairs or args.target)}"
    os.makedirs(folder, exist_ok=True)  # what cannot be written should fail before the training
    if args.pairs:
        given = read_pairs(args.pairs)
        pairs = drop_ambiguous(given)
        print(f"{len(pairs)} of {len(given)} pairs are different and have the one target.")
    else:
        print("Writing dates in two languages ...")
        pairs = date_pairs(args.target, args.count, rng)
    # Of dates, five in full (40 words) are longer than any in training; else a twentieth of all.
    training, validation, test, longer = split(pairs, args.longest or (not args.pairs and 32), rng)
    print(f"{len(training)} pairs to train with, {len(validation)} to choose the best model,")
    print(f"{len(test)} to test it, and {len(longer)} with longer sources. For example:")
    for source, target in training[:3]:
        print(f"  {source}\n    {target}")

    sources, targets = ([tokenise(text) for text in texts] for texts in zip(*training, strict=True))
    vocabularies = [Vocabulary.build(texts, max_words=10000) for texts in (sources, targets)]
    translator = Translator(*vocabularies, args.attention, args.size, rng)
    budget = {"seconds": args.seconds, "steps": args.steps}
    print(f"\nTraining with attention: {args.attention} ...")
    losses, checks = train(translator, training, validation, **budget, rng=rng)
    save_model(translator, f"{folder}/model.npz")
    report(translator, test, longer)
    show_samples(translator, test[:3] + longer[:1])
    draw(translator, [source for source, _ in test], losses, checks, folder)
    print(f"Model:      {folder}/model.npz, which translates with:")
    print(f'  {sys.executable} {sys.argv[0]} --load {folder}/model.npz "{test[0][0]}"')


def load(args):
    """Translate lines with a saved model."""
    translator = load_model(args.load)
    for line in args.text or sys.stdin:
        (got,) = translator.translate([line])
        unknown = [
            word for word in got.source_words[:-1] if word not in translator.source_vocabulary
        ]
        if unknown:
            print(f"translate.py: not in the vocabulary:{''.join(unknown)}", file=sys.stderr)
        print(got.target, flush=True)


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def main():
    parser = Parser(prog="translate.py", description="Learn to translate, with attention.")
    add = parser.add_argument
    add("text", nargs="*", help="with --load: lines to translate (else from standard input)")
    add("--target", choices=["fr", "de", "zh"], default="fr", help="language of the dates")
    add("--pairs", metavar="FILE", help="sentence pairs to learn from: source TAB target")
    scores = ["additive", "multiplicative", "dot", "cosine", "none"]
    add("--attention", choices=scores, default=scores[0], help="the score of a source word")
    add("--seconds", type=float, default=60, help="time to train (default: 60)")
    add("--steps", type=int, help="train so many steps instead: a repeatable run")
    add("--longest", type=int, metavar="WORDS", help="length of the sources to train on")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--output", metavar="DIR", help="for model and pictures (default: translate-fr, ...)")
    add("--load", metavar="MODEL", help="translate with a saved model, do not train")
    add("--quick", action="store_true", help="a small model, a few seconds, for tests")
    args = parser.parse_args()
    for name, least in [("seconds", 0.1), ("steps", 1), ("longest", 1), ("seed", 0)]:
        value = getattr(args, name)
        if value is not None and not least <= value < float("inf"):
            parser.error(f"argument --{name}: must be a number from {least}, got {value}")
    if args.text and not args.load:
        parser.error("a text to translate needs --load MODEL")
    args.count, args.size = 12000, 128
    if args.quick:
        args.count, args.size, args.steps = 600, 32, args.steps or 100
    for stream in (sys.stdout, sys.stderr):  # a terminal without Chinese is no reason to stop
        stream.reconfigure(errors="backslashreplace")
    try:
        load(args) if args.load else learn(args)
    except (OSError, ValueError) as error:
        sys.exit(f"translate.py: {error}")
    except ImportError as error:  # Babel, which only dates need
        sys.exit(f"translate.py: {error}; install it with: pip install {error.name.split('.')[0]}")
    except KeyboardInterrupt:
        sys.exit("translate.py: stopped by Ctrl-C")


if __name__ == "__main__":
    main()

"""The command line that the translators of this folder share: learn, go on learning, translate.

What is written goes into a new folder for each run, named by the task; where an earlier run has
that name, a number is added. So no run destroys the model of another. The folder holds model.npz,
with all that is needed to go on (see `translation.load_run`), and the pictures.
"""

import argparse
import collections
import contextlib
import pathlib
import sys

import corpus
import numpy as np
import results
import translation
from translation import Translator

import attnc

# What a run is told, where neither the command line nor the size of the data says otherwise.
SETTINGS = {
    "source": None,  # languages of the dates: "en" and "fr"; or of the file, if it needs them
    "target": None,
    "pairs": None,  # a file of sentence pairs
    "dates": 12_000,  # how many to write, if there is no file
    "longest": None,  # words in the sources to train with
    "lower": False,  # small letters only
    "words": 10_000,  # at most so many in each vocabulary, if there are no subwords
    "warmup": 50,  # steps in which the rate of learning rises
    "seed": 0,
    "steps": None,  # in place of a time
}

# What each way to call the program makes use of; of other options it says that they do nothing.
TRANSLATING = {"load", "text", "picture", "beam"}
CONTINUING = {"load", "continue", "pairs", "seconds", "steps", "beam", "output"}

# A translator. Its file name; what --help begins with; two functions and two dicts:
#   build(settings, source_size, target_size, rng)   makes the model
#   defaults(count, generated, told)   the settings for so many pairs to train with, which are of
#                                      generated dates or of real text: `told` by the command line,
#                                      or what is usual
#   options                            name: (values, help) of each option that the model has of its
#                                      own; values are a list, the usual one first, or int
#   quick                              settings of a small model
Program = collections.namedtuple("Program", "name description build defaults options quick")


def main(program):
    """Read the command line of a `Program` and do what it says."""
    parser = make_parser(program)
    given = vars(parser.parse_args())
    check(parser, given)
    with errors_in_a_line(program.name):
        if "load" not in given:
            learn(program, given)
        elif "continue" in given:
            go_on(program, given)
        else:
            translate(program, given)


@contextlib.contextmanager
def errors_in_a_line(program):
    """Around a program: where what it was given is wrong, it ends with one line that says so."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without Chinese is no reason to stop
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except (OSError, ValueError) as error:
        sys.exit(f"{program}: {error}")
    except ImportError as error:  # of a package that only some runs need
        missing = f"; install it with: pip install {error.name.split('.')[0]}" if error.name else ""
        sys.exit(f"{program}: {error}{missing}")
    except KeyboardInterrupt:
        sys.exit(f"{program}: stopped by Ctrl-C")


# ---- Options -------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and leaves out what was not given."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def make_parser(program):
    parser = Parser(
        prog=program.name,
        description=program.description,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("the task").add_argument
    add("--source", metavar="LANGUAGE", help="of CLDR, to write dates in (default: en)")
    add("--target", metavar="LANGUAGE", help="to translate them to (default: fr)")
    add("--pairs", metavar="FILE", help="sentence pairs to learn: .tsv, .po, .mo, .tmx, or Moses'")
    add("--longest", type=int, metavar="WORDS", help="in the sources to train with")
    add("--lower", action="store_true", help="turn capitals into small letters")
    add(
        "--subwords",
        type=int,
        metavar="N",
        help="cut words into N pieces; 0: whole words",
    )
    add = parser.add_argument_group("the model and its training").add_argument
    for name, (values, text) in program.options.items():
        if values is int:
            add(f"--{name}", type=int, metavar="N", help=text)
        else:
            add(f"--{name}", choices=values, help=f"{text} (default: {values[0]})")
    add("--dropout", type=float, metavar="RATE", help="probability of dropping a number")
    add("--smoothing", type=float, metavar="SHARE", help="of each label given to all words")
    add("--rate", type=float, help="of learning, at its highest")
    add("--warmup", type=int, metavar="STEPS", help="in which the rate rises")
    add("--seconds", type=float, help="longest time to train")
    add("--steps", type=int, help="train so many steps instead: a repeatable run")
    add("--seed", type=int, help="for all that is random (default: 0)")
    prefix = folder_prefix(program)
    add("--output", metavar="DIR", help=f"for model and pictures (default: {prefix}-en-fr, ...)")
    add("--quick", action="store_true", help="a small model, a few seconds, for tests")
    add = parser.add_argument_group("a model that there is").add_argument
    add("--load", metavar="DIR", help="translate with the model of an earlier run")
    add("--picture", metavar="FILE", help="draw what the model looked at for the text")
    add("--continue", action="store_true", help="train it further, on the same pairs")
    add("--beam", type=int, metavar="WIDTH", help="translate by beam search (default: 1)")
    add("text", nargs="*", help="to translate (else each line of the standard input)")
    return parser


LEAST = {  # of each number
    "seconds": 0.1, "steps": 1, "longest": 1, "seed": 0, "subwords": 0, "beam": 1,
    "embedding": 1, "state": 2, "dropout": 0, "smoothing": 0, "rate": 1e-9, "warmup": 1,
    "size": 1, "heads": 1, "layers": 1, "feedforward": 1,
}  # fmt: skip
BELOW_ONE = {"dropout", "smoothing"}


def check(parser, given):
    """Refuse numbers out of range, and options that would do nothing."""
    check_numbers(parser, given, LEAST)
    if not given.get("text"):
        given.pop("text", None)
    if "load" not in given:
        useless = given.keys() & {"text", "picture", "continue"}
        fix = "needs --load DIR, the folder of an earlier run"
    elif "continue" in given:
        useless = given.keys() - CONTINUING
        fix = "does nothing with --continue, which goes on as the model was trained"
    else:
        useless = given.keys() - TRANSLATING
        fix = "does nothing with --load, which does not train (--continue does)"
    for name in sorted(useless):
        parser.error(f"{'a text to translate' if name == 'text' else f'--{name}'} {fix}")
    if "picture" in given and len(given.get("text", [])) != 1:
        parser.error("--picture needs one text to translate on the command line")


def check_numbers(parser, given, least):
    """Refuse numbers below these by name, and shares of 1 or more."""
    for name, low in least.items():
        value = given.get(name, low)
        if not low <= value < (1 if name in BELOW_ONE else float("inf")):
            parser.error(f"argument --{name}: must be a number from {low}, got {value}")


# ---- Learning ------------------------------------------------------------------------------------


def learn(program, given):
    """Train a translator, report how good it is, and write the model and the pictures."""
    told = {name: value for name, value in given.items() if name not in ("output", "beam", "quick")}
    if "pairs" not in given:
        told = {"source": "en", "target": "fr"} | told
    if "quick" in given:
        told = {"dates": 600, "steps": 100} | program.quick | told
    parts = corpus.parts(SETTINGS | told)
    count = {"count": len(parts.training), "longest": parts.longest}
    settings = program.defaults(count["count"], generated="pairs" not in given, told=told)
    settings = SETTINGS | settings | count
    describe(program, parts, settings)
    rng = np.random.default_rng(settings["seed"])
    translator = Translator(None, None, None, settings)
    words = [
        [translator.words(text) for text in side] for side in zip(*parts.training, strict=True)
    ]
    translator.source, translator.target = translation.vocabularies(words, settings)
    sizes = len(translator.source), len(translator.target)
    translator.model = program.build(settings, *sizes, rng)
    optimizer = attnc.optim.Adam(translator.model, settings["rate"])
    finish(program, given, translator, optimizer, None, parts, rng)


def go_on(program, given):
    """Train a translator of an earlier run further, on the same pairs."""
    translator, optimizer, history = translation.load_run(given["load"])
    settings = translator.settings = SETTINGS | translator.settings
    settings["steps"] = None  # of the earlier run
    settings |= {name: given[name] for name in ("pairs", "seconds", "steps") if name in given}
    parts = corpus.parts(settings)
    rng = np.random.default_rng([settings["seed"], len(history.losses)])  # another order
    finish(program, given, translator, optimizer, history, parts, rng)


def finish(program, given, translator, optimizer, history, parts, rng):
    """Train, write, report, draw."""
    settings, beam = translator.settings, given.get("beam", 1)
    training, validation = map(translator.numbers, (parts.training, parts.validation))
    chosen = choices(program, settings)
    folder = translation.new_folder(given.get("output") or folder_name(program, settings))
    time = f"{settings['steps']} steps" if settings["steps"] else f"{settings['seconds']:g} seconds"
    chosen = ", ".join(f"{name}: {value}" for name, (value, _) in chosen.items())
    print(f"\nTraining with {chosen}, for up to {time} ...")
    with translation.unless_empty(folder):
        history = translation.train(
            translator, training, validation, settings, rng, optimizer, history
        )
        translator.learn_what_is_usual(training, validation)
        translation.save_run(translator, optimizer, history, folder)
    translations, _ = results.report(translator, parts.test, parts.longer, history, beam)
    results.show_samples(translator, parts.test[:3] + parts.longer[:1], beam)
    results.draw_losses(history, f"{folder}/loss.png")
    print(f"\nLoss curve: {folder}/loss.png")
    if translator.has_attention:
        targets = [translator.normalised(target) for _, target in parts.test]
        got, right = results.most_crossing(translations, targets)
        results.draw_alignment(got, f"{folder}/alignment.png", right)
        print(f"Alignment:  {folder}/alignment.png, of: {got.source}")
        if got.weights.ndim == 4:
            results.draw_heads(got, f"{folder}/heads.png", right)
            print(f"All heads:  {folder}/heads.png, of the same")
    print(f"Model:      {folder}, which translates with:")
    print(f'  {sys.executable} {sys.argv[0]} --load {folder} "{parts.test[0][0]}"')


def folder_prefix(program):
    """Return what the names of a program's folders begin with."""
    return pathlib.Path(program.name).stem.replace("_", "-")


def folder_name(program, settings):
    """Name the folder of a run by its task, and by what is chosen for it and not usual."""
    pairs = settings["pairs"]
    task = pathlib.Path(pairs).stem if pairs else f"{settings['source']}-{settings['target']}"
    chosen = [value for value, usual in choices(program, settings).values() if value != usual]
    return "-".join([folder_prefix(program), task, *chosen])


def choices(program, settings):
    """Return the value and the usual value of each option of the model whose values have names."""
    named = {name: values for name, (values, _) in program.options.items() if values is not int}
    return {name: (settings.get(name, values[0]), values[0]) for name, values in named.items()}


def describe(program, parts, settings):
    """Print what there is to learn, and the settings for it."""
    print(
        f"{len(parts.training):,} pairs to train with, with sources of up to "
        f"{settings['longest']} words; {len(parts.validation):,} to choose the best model,"
    )
    print(f"{len(parts.test):,} to test it, and {len(parts.longer):,} with longer sources.")
    for source, target in parts.training[:3]:
        print(f"  {source}\n    {target}")
    shown = [name for name, (values, _) in program.options.items() if values is int]
    shown += "tied dropout smoothing batch rate warmup subwords lower".split()
    print("Settings: " + ", ".join(f"{name} {settings[name]}" for name in shown))


# ---- Translating ---------------------------------------------------------------------------------


def translate(program, given):
    """Translate lines with a model that was kept."""
    translator, _, _ = translation.load_run(given["load"])
    for line in given.get("text", sys.stdin):
        line = line.strip()
        (got,) = translator.translate([line], beam_width=given.get("beam", 1))
        unknown = translator.unknown_words(line)
        if unknown:
            print(f"{program.name}: not in the vocabulary:{''.join(unknown)}", file=sys.stderr)
        elif line and translator.is_strange(line):
            said = "unlike the sources in training, so beware"
            print(f"{program.name}: {said}: {line}", file=sys.stderr)
        print(got.target, flush=True)
        if "picture" in given:
            if not got.target_words or not translator.has_attention:
                raise ValueError("--picture: there is no attention to draw")
            path = pathlib.Path(given["picture"])
            results.draw_alignment(got, path)
            if got.weights.ndim == 4:
                results.draw_heads(got, path.with_stem(f"{path.stem}-heads"))

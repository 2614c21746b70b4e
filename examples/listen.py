"""Listen, attend and spell: from spoken digits and letters to text, with attention and without.

    python listen.py                         a few minutes; the picture is listen.png
    python listen.py --wav FILE              transcribe a recording, too, when it has learnt
    python listen.py --seeds 3               the same with three seeds
    python listen.py --short-first 0         sequences of all lengths from the beginning
    python listen.py --layers 1              a low pyramid: four times as many places to look at

Chan, Jaitly, Le and Vinyals (2016), "Listen, attend and spell". Three models (listen_model.py)
learn to spell sequences such as "seven b three x": with soft attention, with monotonic attention,
and with the last states of what listens alone. They hear the voices of espeak-ng (voices.py), and a
recorded one where Debian's asterisk-core-sounds-en-wav is installed.
"""

import os
import sys
from typing import NamedTuple

# Matrices this small gain nothing from threads, which wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import listen_results as results
    import numpy as np
    from command import Parser, check_numbers, errors_in_a_line
    from listen_measures import look, transcripts, word_accuracy
    from listen_model import Speller
    from speech import features, read_wav
    from spoken import CHARACTERS, LEAST, MOST, Speakers, Utterance, batch
    from training import Course, learn, with_seeds
    from voices import TRAINING, UNSEEN, recorded, synthesised

    import attnc
except ImportError as error:
    sys.exit(f"listen.py: {error}; install it with: pip install {error.name}")

SMALLEST = {
    "steps": 1,
    "seed": 0,
    "seeds": 1,
    "units": 2,
    "layers": 1,
    "sampling": 0,
    "short-first": 0,
}


class Outcome(NamedTuple):
    """Of one model: its checks, {part: share of right words}, and {part or file: texts}."""

    checks: list
    right: dict
    texts: dict


class Run(NamedTuple):
    """Of one seed: {kind: Outcome}, {part: texts that were said}, utterances of checks."""

    outcomes: dict
    said: dict
    checked: list
    layers: int  # of the pyramid


def parts(settings, seed):
    """Return who speaks in training, utterances for checks, and {part: utterances} of the test.

    Their sequences are drawn before those to train with, which are never the same.
    """
    known = [synthesised(name) for name in TRAINING[: settings.voices]]
    groups = {"unseen sequences": known, "unseen voice": [synthesised(name) for name in UNSEEN]}
    if recorded() and not settings.no_recorded:
        groups = {"recorded voice": [recorded()]} | groups
        known = known + [recorded()] * -(-len(known) // 3)  # a quarter of what is said
    rng = np.random.default_rng([seed, 1])
    checked = Speakers(known).utterances(rng, settings.checked)
    test = {name: Speakers(said).utterances(rng, settings.tested) for name, said in groups.items()}
    avoided = {each.words for part in (checked, *test.values()) for each in part}
    return Speakers(known, avoided), checked, test


def sizes(step, settings):
    """How many words a sequence has at a step, least and most: short ones come first."""
    grown = min(1.0, step / max(1.0, settings.short_first * settings.steps))
    most = round(2 + (MOST - 2) * grown)
    return min(LEAST, most - 1), most


def train(kind, seed, speakers, checked, settings):
    """Train a model; return it and its checks."""
    model = Speller(kind, len(CHARACTERS), size=settings.units, layers=settings.layers, rng=seed)
    rng = np.random.default_rng([seed, 2])  # the same sequences for each model

    def loss(step):
        inputs = batch(speakers.utterances(rng, settings.batch, *sizes(step, settings)))
        noise = np.random.default_rng([seed, 3, step])
        options = {"sampling": settings.sampling, "train": True, "rng": noise}
        (loss, _), pullback = attnc.vjp(model, *inputs, **options)
        pullback()
        return loss

    course = Course(settings.steps, settings.batch, rate=0.003)
    return model, learn(model, loss, course, lambda: look(model, checked), settings.checks, kind)


def run(seed, settings):
    """Train and test a model of each kind."""
    speakers, checked, test = parts(settings, seed)
    said = {name: [each.text for each in part] for name, part in test.items()}
    files = {
        name: [Utterance((), sound, np.zeros((0, 2)))] for name, sound in settings.files.items()
    }
    outcomes = {}
    for kind in settings.kinds:
        model, checks = train(kind, seed, speakers, checked, settings)
        texts = {name: transcripts(model, part) for name, part in (test | files).items()}
        right = {name: word_accuracy(said[name], texts[name]) for name in test}
        outcomes[kind] = Outcome(checks, right, texts)
    if not speakers.said.isdisjoint(each.words for part in test.values() for each in part):
        raise ValueError("run: sequences of the test must not be in training, got some that are")
    return Run(outcomes, said, checked, settings.layers)


def read_settings():
    parser = Parser(prog="listen.py", description="Spell what is heard, with attention or without.")
    add = parser.add_argument
    add("--kinds", nargs="+", choices=Speller.KINDS, default=[*Speller.KINDS],
        help="of attention (default: all)")  # fmt: skip
    add("--steps", type=int, default=600, help="of training (default: 600)")
    add("--units", type=int, default=64, help="of a direction of what listens (default: 64)")
    add("--layers", type=int, default=3, help="of the pyramid, each halves time (default: 3)")
    add("--short-first", type=float, default=0.4, metavar="SHARE",
        help="of the steps, in which sequences grow (default: 0.4)")  # fmt: skip
    add("--sampling", type=float, default=0.0, metavar="SHARE",
        help="of characters before that are the model's own in training (default: 0)")  # fmt: skip
    add("--no-recorded", action="store_true", help="synthesised voices alone")
    add("--wav", nargs="+", default=[], metavar="FILE", help="to transcribe when it has learnt")
    add("--output", metavar="FILE", default="listen.png", help="the picture")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--seeds", type=int, default=1, help="so many runs, with this seed and the next ones")
    add("--quick", action="store_true", help="small models, a few seconds, for tests")
    settings = parser.parse_args()
    given = {name.replace("_", "-"): value for name, value in vars(settings).items()}
    check_numbers(parser, given, SMALLEST)
    for name in ("sampling", "short-first"):
        if given[name] > 1:
            parser.error(f"argument --{name}: must be a number up to 1, got {given[name]}")
    settings.batch, settings.checks, settings.voices = 32, 20, len(TRAINING)
    settings.checked, settings.tested = 50, 300
    if settings.quick:
        settings.steps, settings.units = min(settings.steps, 12), 8
        settings.batch, settings.checks, settings.voices = 8, 3, 3
        settings.checked = settings.tested = 10
    return settings


def main():
    settings = read_settings()
    settings.files = {path: features(read_wav(path)) for path in settings.wav}
    runs = with_seeds(run, range(settings.seed, settings.seed + settings.seeds), settings)
    results.report(runs, settings)
    if results.draw(runs[0], settings.output) is not None:
        print(f"\n{settings.output}")


if __name__ == "__main__":
    with errors_in_a_line("listen.py"):
        main()

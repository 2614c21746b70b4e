"""Does one sentence follow from another? Readers without attention and with it, side by side.

    python entail.py                         a few minutes; the picture is entail.png
    python entail.py --seeds 3               three times, the table has the means
    python entail.py --nouns built-in        without WordNet, where that is installed

"A brown poodle sleeps in a cottage" entails "a dog sleeps in a house", contradicts "a cat sleeps",
and leaves open whether a dog sleeps beside a car. To say so, each word has to be held against the
one that has its part in the other sentence. The sentences (entail_pairs.py) are made of nouns whose
kinds are known (taxonomy.py), so that each label is right; they are tested with pairs of nouns that
never met in training. The models (entail_models.py) have about equally many parameters and learn
from the same batches. Two come in pairs: two LSTMs, of which the second has to hold all of the
premise in its state, and the same with word-by-word attention; a bag of words, and a bag in which
each word is compared with what attention found for it.
"""

import os
import sys
import time
from typing import NamedTuple

# Matrices this small gain nothing from threads, which wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import entail_models as models
    import entail_results as results
    import numpy as np
    import taxonomy
    from command import Parser, check_numbers, errors_in_a_line
    from entail_pairs import LABELS, Pairs, arrays
    from training import Course, learn, with_seeds

    import attnc
    from attnc.losses import softmax_cross_entropy
except ImportError as error:
    sys.exit(f"entail.py: {error}; install it with: pip install {error.name}")

# Each with its rate of learning and its decay; README.md says what was tried.
MODELS = {
    "hypothesis alone": (models.Alone, 0.004, 0.1),
    "bag of words": (models.Bag, 0.004, 0.1),
    "two LSTMs": (models.Conditional, 0.004, 0.1),
    "word by word": (models.WordByWord, 0.004, 0.1),
    "decomposable": (models.Decomposable, 0.004, 0.3),
}


class Found(NamedTuple):
    """What became of one model."""

    parameters: int
    seconds: float  # of the processor, in training
    seen: float  # share of right answers, where no pair of nouns is held out
    unseen: float  # the same, where one is held out, and decides
    each: list  # the same for each label
    looks: float  # the same: share of nouns that look most at the noun of their part


def nouns(which):
    """Return {noun: extension} for each part of a sentence."""
    return taxonomy.from_wordnet() if which == "wordnet" else taxonomy.built_in()


def train(name, words, lessons, steps, seed):
    """Train a model; return it and the seconds of the processor."""
    kind, rate, decay = MODELS[name]
    course = Course(steps, rate=rate, decay=decay)
    model, rng = kind(words, np.random.default_rng([seed, 2])), np.random.default_rng([seed, 3])
    inputs, labels = lessons

    def loss(step):
        rows = rng.integers(len(labels), size=course.batch)
        logits, pullback = attnc.vjp(model, *(each[rows] for each in inputs))
        value, back = attnc.vjp(softmax_cross_entropy, logits, labels[rows])
        pullback(*back())
        return value

    start = time.process_time()  # what else the machine has to do is not the model's
    learn(model, loss, course, name=name)
    return model, time.process_time() - start


def measure(model, test, links=()):
    """Return which answers are right, the answers, the weights, and the share that looks right."""
    inputs, labels = test
    logits, weights = model(*inputs, return_weights=True)
    looked = [
        weights[n, i].argmax() == j for n, some in enumerate(links) for i, j in some
    ] if weights is not None else []  # fmt: skip
    answers = logits.argmax(axis=1)
    return answers == labels, answers, weights, np.mean(looked) if looked else np.nan


def run(seed, args):
    """Train all models; return {name: Found}, and what the picture shows."""
    pairs, rng = Pairs(nouns(args.nouns), seed), np.random.default_rng([seed, 1])
    vocabulary = pairs.vocabulary()
    lessons = arrays(pairs.draw(rng, args.lessons), vocabulary)
    seen = arrays(pairs.draw(rng, args.tests), vocabulary)
    drawn = pairs.draw(rng, args.tests, unseen=True)
    unseen, links = arrays(drawn, vocabulary), [pairs.links(*pair[:2]) for pair in drawn]
    shown = results.examples(drawn, links)
    found, panels = {}, []
    for name in MODELS:
        model, seconds = train(name, len(vocabulary), lessons, args.steps, seed)
        right, answers, weights, looks = measure(model, unseen, links)
        each = [right[unseen[1] == n].mean() for n in range(len(LABELS))]
        known = measure(model, seen)[0].mean()
        found[name] = Found(model.parameter_count, seconds, known, right.mean(), each, looks)
        if weights is not None:
            panels += [(name, *drawn[n], answers[n], weights[n]) for n in shown]
    return found, panels


def main():
    parser = Parser(prog="entail.py", description="Does one sentence follow from another?")
    add = parser.add_argument
    usual = "wordnet" if taxonomy.is_installed() else "built-in"
    text = f"whose kinds to go by (default: {usual}, since WordNet is "
    text += "installed)" if usual == "wordnet" else "not installed)"
    add("--nouns", choices=["built-in", "wordnet"], default=usual, help=text)
    add("--steps", type=int, default=3000, help="of training, each of 64 pairs (default: 3000)")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--seeds", type=int, default=1, metavar="N", help="train N times, with seeds from --seed")
    output = "entail.png"
    add("--output", metavar="FILE", default=output, help=f"the picture (default: {output})")
    add("--quick", action="store_true", help="few steps and pairs, for tests")
    args = parser.parse_args()
    check_numbers(parser, vars(args), {"steps": 1, "seed": 0, "seeds": 1})
    args.lessons, args.tests = (500, 100) if args.quick else (50_000, 3_000)
    args.steps = min(args.steps, 5) if args.quick else args.steps
    seeds = range(args.seed, args.seed + args.seeds)
    runs = with_seeds(run, seeds, args)
    results.report([found for found, _ in runs], seeds, args)
    results.draw(runs[0][1], args.output)
    print(f"\n{args.output}")


if __name__ == "__main__":
    with errors_in_a_line("entail.py"):
        main()

"""Attentions combined, nine ways: what each structure is good for, on a task where it is needed.

    python combined.py                       half a minute; the picture is combined.png
    python combined.py --quick               a few seconds, less training

For each structure two models learn one task from the same examples: with it, and without. The
models are in combined_models.py, each in thirty lines, the tasks in combined_tasks.py; the table
says how well both answer what they have not seen. The picture has the weights of each structure for
one example, where the word that has to be looked at is known.
"""

import argparse
import os
import pathlib
import sys
import time
from collections import namedtuple

# Matrices this small gain nothing from threads, which wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import combined_models as models
    import combined_tasks as tasks
    import matplotlib
    import numpy as np
    from command import check_numbers, errors_in_a_line

    import attnc
    from attnc.losses import softmax_cross_entropy
    from attnc.plot import heat_maps
except ImportError as error:
    sys.exit(f"combined.py: {error}; install it with: pip install {error.name}")

matplotlib.use("Agg")  # the picture goes to a file, with or without a screen

# A structure, what takes its place in the other model, the task, the model, and what its panel of
# the picture shows: the first example's weights, names of its rows and columns, from its inputs.
Structure = namedtuple("Structure", ["name", "without", "task", "model", "rows", "columns"])

NAMES = ".abcdefgh"
COUNT = 1000  # examples to test with


def listed(names, answers):
    """Write (name, answer) of one list, such as "b2"; "b?" where 0 stands for no answer."""
    return [f"{NAMES[n + 1]}{a or '?'}" for n, a in zip(names, answers, strict=True)]


def sentences(words, lengths):
    """Write sentences: answers as digits, the cue as "!", other words as dots."""
    signs = " 1234!" + 10 * "·"
    return ["".join(signs[word] for word in row[:n]) for row, n in zip(words, lengths, strict=True)]


STRUCTURES = [
    Structure(
        "hierarchical: words, then sentences",
        "all words at once",
        tasks.documents,
        models.Documents,
        lambda words, lengths: sentences(words, lengths),
        lambda words, lengths: [str(n + 1) for n in range(words.shape[1])],
    ),
    Structure(
        "attention on attention",
        "query and context side by side",
        tasks.claims,
        models.Claims,
        lambda name, claimed, names, answers: [f"{x}?" for x in listed(name, claimed)],
        lambda name, claimed, names, answers: listed(names, answers),
    ),
    Structure(
        "attention over attention",
        "the mean of what words look at",
        tasks.clozes,
        models.Clozes,
        lambda question, document: ["stop" if word > 16 else str(word) for word in question],
        lambda question, document: [str(word) for word in document],
    ),
    Structure(
        "local and global with a gate",
        "global alone",
        tasks.near_and_far,
        models.NearAndFar,
        lambda asked, names, answers: [
            f"{'far near'.split()[n // 8]} {NAMES[n % 8 + 1]}?" for n in asked
        ],
        lambda asked, names, answers: listed(names, answers + 1),
    ),
    Structure(
        "soft within a hard-chosen region",
        "a random region",
        tasks.regions,
        models.Regions,
        lambda topic, name, *_: [f"{'ABCD'[topic[0]]}{NAMES[name[0] + 1]}?"],
        lambda topic, name, topics, names, answers: [
            f"{'ABCD'[t]}{x}" for t, x in zip(topics, listed(names, answers + 1), strict=True)
        ],
    ),
    Structure(
        "self-attention inside the encoder",
        "no encoder",
        tasks.partners,
        models.Partners,
        lambda tags, answers: listed(tags, answers),
        lambda tags, answers: listed(tags, answers),
    ),
    Structure(
        "a look forward, then a look back",
        "a look forward",
        tasks.repeats,
        models.Repeats,
        lambda asked, names, answers: [f"{way} {NAMES[n + 1]}?" for way in "→←" for n in asked],
        lambda asked, names, answers: listed(names, answers + 1),
    ),
    Structure(
        "coverage in the score",
        "no coverage",
        tasks.sortings,
        models.Sortings,
        lambda words, n, before: [*(NAMES[k + 1] for k in before[1 : n + 1]), "end"],
        lambda words, n, before: [NAMES[k + 1] for k in words[:n]],
    ),
    Structure(
        "coverage by fertility",
        "no coverage",
        tasks.sortings,
        models.Fertilities,
        lambda words, n, before: [*(NAMES[k + 1] for k in before[1 : n + 1]), "end"],
        lambda words, n, before: [NAMES[k + 1] for k in words[:n]],
    ),
]


# ---- Training and measuring ----------------------------------------------------------------------


def losses(logits, labels):
    """The mean loss with its pullback, and the log-probability of each label."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    loss, pullback = attnc.vjp(softmax_cross_entropy, logits, labels, ignore_index=-1)
    return loss, pullback, np.take_along_axis(shifted, labels[..., None], axis=-1)[..., 0]


def train(model, task, steps, rng):
    """Train by Adam on new examples at every step."""
    optimizer = attnc.optim.Adam(model)
    for step in range(steps):
        inputs, labels = task(rng, 64)
        options = {"train": True} if hasattr(model, "hard") else {}
        (logits, _), pullback = attnc.vjp(model, *inputs, **options)
        _, back, reward = losses(logits, labels.reshape(logits.shape[:-1]))
        optimizer.zero_grad()
        (dlogits,) = back()
        pullback(dlogits, reward) if options else pullback(dlogits)
        attnc.optim.clip_gradients(model, 1.0)
        optimizer.learning_rate = 0.01 * min(1, (step + 1) / 30, 2 - 2 * step / steps)
        optimizer.step()


def measure(model, inputs, labels):
    """Return the loss, the share of right answers, and the weights."""
    logits, weights = model(*inputs)
    labels = labels.reshape(logits.shape[:-1])
    right = (logits.argmax(axis=-1) == labels)[labels >= 0].mean()
    return losses(logits, labels)[0], right, weights


def compare(structure, steps, seed, count=COUNT):
    """Train both models; return what `measure` finds before and after, {model: ...}, and inputs."""
    inputs, labels = structure.task(np.random.default_rng([seed, 1]), count)
    found = {}
    for name, combined in ((structure.name, True), (structure.without, False)):
        model = structure.model(combined, np.random.default_rng(seed))
        before, *_ = measure(model, inputs, labels)
        start = time.process_time()
        train(model, structure.task, steps, np.random.default_rng([seed, 2]))
        spent = time.process_time() - start
        found[name] = before, *measure(model, inputs, labels), spent
    return found, inputs


# ---- The report ----------------------------------------------------------------------------------


def draw(panels, path):
    """Draw the weights of each structure for its first example."""
    axes = heat_maps(
        [weights for _, weights, _, _ in panels],
        [rows for _, _, rows, _ in panels],
        [columns for _, _, _, columns in panels],
        titles=[name for name, *_ in panels],
        xlabel=None,
        ylabel=None,
    )
    # A name without an ending gets none: the file is where it was asked for.
    axes[0].figure.savefig(path, dpi=150, format=pathlib.Path(path).suffix[1:] or "png")
    return axes


def report(args):
    steps = min(args.steps, 20) if args.quick else args.steps
    print(
        f"Each model learns in {steps} steps of 64 examples, and is tested on {COUNT:,} others.\n"
    )
    print(f"{'':43}loss before   after    right  seconds")
    panels = []
    for structure in STRUCTURES:
        found, inputs = compare(structure, steps, args.seed)
        for n, (name, (before, after, right, weights, spent)) in enumerate(found.items()):
            title = f"  without: {name}" if n else name
            print(f"{title:43}{before:11.3f}{after:8.3f}{right:9.1%}{spent:9.1f}")
            if not n:
                one = [each[args.example] for each in inputs]
                labels = structure.rows(*one), structure.columns(*one)
                shown = weights[args.example][: len(labels[0]), : len(labels[1])]  # no padding
                panels.append((name, shown, *labels))
    draw(panels, args.output)
    print(
        "\n  loss and right: on the examples of the test. seconds: processor time of the training."
        f"\n\n{args.output}"
    )


def main():
    parser = argparse.ArgumentParser(description="Attentions combined, and each without.")
    add = parser.add_argument
    add("--steps", type=int, default=300, help="of training, 64 examples each (default: 300)")
    add("--output", metavar="FILE", default="combined.png", help="the picture")
    add(
        "--example",
        type=int,
        default=1,
        metavar="N",
        help="which of the 1,000 to draw (default: 1)",
    )
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--quick", action="store_true", help="a few steps, for tests")
    args = parser.parse_args()
    check_numbers(parser, vars(args), {"steps": 1, "seed": 0, "example": 0})
    if args.example >= COUNT:
        parser.error(f"argument --example: must be below {COUNT}, got {args.example}")
    with errors_in_a_line("combined.py"):
        report(args)


if __name__ == "__main__":
    main()

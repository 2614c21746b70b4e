"""What entail.py found: the table, what to conclude, and the picture of what looks at what."""

import pathlib

import matplotlib
import numpy as np
from entail_pairs import HELD_OUT, LABELS

from attnc.plot import heat_maps

matplotlib.use("Agg")  # the picture goes to a file, with or without a screen


def examples(drawn, links):
    """For each label the first pair of sentences with two nouns that have other counterparts."""
    found: dict[int, int] = {}
    for n, (premise, hypothesis, label) in enumerate(drawn):
        others = [hypothesis[i] != premise[j] for i, j in links[n]]
        if len(others) == 2 and all(others):
            found.setdefault(label, n)
    return [found[label] for label in sorted(found)]


def report(runs, seeds, args):
    """Print the table and what to conclude; runs is a list, one a seed, of {name: Found}."""
    print(f"{args.steps} steps of 64, from {args.lessons:,} pairs of sentences; two tests of "
          f"{args.tests:,} others.\nNouns: {args.nouns}. Of {HELD_OUT:.0%} of the pairs of nouns "
          "one order never met in training. In the test of\nunseen pairs it is such a pair that "
          "decides.")  # fmt: skip
    print(f"\n{'':18}  parameters    seen  unseen  {'  '.join(LABELS)}  looks right  seconds")
    mean = {}
    for name in runs[0]:
        columns = zip(*(run[name] for run in runs), strict=True)
        mean[name] = type(runs[0][name])(*(np.mean(column, axis=0) for column in columns))
        one = mean[name]
        each = "  ".join(f"{x:{len(label)}.1%}" for x, label in zip(one.each, LABELS, strict=True))
        looks = "-" if np.isnan(one.looks) else f"{one.looks:.1%}"
        print(f"{name:18}{one.parameters:12,.0f}{one.seen:8.1%}{one.unseen:8.1%}  {each}"
              f"{looks:>13}{one.seconds:9.0f}")  # fmt: skip
    if len(runs) > 1:
        print(f"\nMeans of {len(runs)} seeds. Unseen, seed by seed:")
        print(" " * 18 + "".join(f"{f'seed {seed}':>9}" for seed in seeds))
        for name in mean:
            print(f"{name:18}" + "".join(f"{run[name].unseen:9.1%}" for run in runs))
    print("\nentailment, contradiction, neutral: right answers for the unseen pairs of each label. "
          "looks right:\nnouns of the hypothesis whose largest weight lies on the noun that they "
          "are held against. seconds: of the processor, in training.\n")  # fmt: skip
    for line in conclusions(mean):
        print(line)


# What attention is added to, in each model that has it.
WITHOUT = {"word by word": "two LSTMs", "decomposable": "bag of words"}


def conclusions(mean):
    """Say what the figures mean."""
    guess = mean["hypothesis alone"].unseen
    yield f"The hypothesis alone is right in {guess:.1%}; by chance it would be {1 / 3:.1%}."
    for name, other in WITHOUT.items():
        for which in ("seen", "unseen"):
            apart = 100 * (getattr(mean[name], which) - getattr(mean[other], which))
            than = "more" if apart >= 0 else "less"
            yield (f"Attention {name}, beside {other}: right in {abs(apart):.1f} points {than} "
                   f"of the {which} pairs.")  # fmt: skip
    best = max(mean, key=lambda name: mean[name].unseen)
    has = "with" if best in WITHOUT else "without"
    yield f"Of unseen pairs most are answered right by {best}, {has} attention."


def draw(panels, path):
    """Draw weights: a row of maps for each pair of sentences, a column for each model."""
    names = list(dict.fromkeys(name for name, *_ in panels))
    count = len(panels) // len(names)
    panels = [panels[n * count + k] for k in range(count) for n in range(len(names))]
    maps, queries, keys, titles = [], [], [], []
    for name, premise, hypothesis, label, answer, weights in panels:
        maps.append(weights[: len(hypothesis), : len(premise)])
        queries.append(hypothesis)
        keys.append(premise)
        said = "right" if answer == label else f"says {LABELS[answer]}"
        titles.append(f"{LABELS[label]}\n{name}: {said}")
    axes = heat_maps(
        maps, queries, keys, titles=titles, columns=len(names), xlabel=None, ylabel=None
    )
    # A name without an ending gets none: the file is where it was asked for.
    axes[0].figure.savefig(path, dpi=150, format=pathlib.Path(path).suffix[1:] or "png")
    return axes

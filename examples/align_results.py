"""What align.py found: tables, what to conclude, the dictionary, and the picture."""

import pathlib
from typing import NamedTuple

import matplotlib
import numpy as np
from alignments import Rates

from attnc.plot import heat_maps

matplotlib.use("Agg")  # the picture goes to a file, with or without a screen
from matplotlib.patches import Rectangle  # noqa: E402, after the choice above


class Found(NamedTuple):
    """What one seed found on pairs of known alignment."""

    training: int  # pairs
    held_out: int
    rates: dict  # of each aligner, of each of its alignments: Rates
    beside: dict  # of each aligner: errors, if words had the links of the next, of the one before
    exact: dict  # of each order: shares of translations without a mistake, of both directions
    dictionary: dict  # of each aligner: its entries, and the shares that are right
    shown: tuple  # a pair, and {title: map} to draw for it


# ---- Tables --------------------------------------------------------------------------------------


def report(task, found):
    """Print what several seeds found on a task, and what to conclude."""
    first = found[0]
    pair, _ = first.shown
    print(f"\n{task}: {first.training:,} pairs to train with, {first.held_out:,} to test, "
          f"{len(found)} seed{'s' * (len(found) > 1)}. Such as:")  # fmt: skip
    print(f"  {''.join(pair.source).strip()}\n  {''.join(pair.target).strip()}\n")
    print(f"{'':31}precision   recall  crossed    error  (of each seed)")
    means = {}
    for aligner, ways in first.rates.items():
        for n, way in enumerate(ways):
            each = [seed.rates[aligner][way] for seed in found]
            mean = means[aligner, way] = Rates(*np.mean(each, axis=0))
            seeds = " ".join(f"{one.error:.3f}" for one in each)
            print(f"{'' if n else aligner:14}{way:17}{mean.precision:9.1%}{mean.recall:9.1%}"
                  f"{mean.crossed:9.1%}{mean.error:9.3f}  ({seeds})")  # fmt: skip
    print(
        "\n  precision: of the links, the possible ones. recall: of the sure links, those found;"
        "\n  crossed: of those that cross another. error: the alignment error rate; 0 is best.\n"
    )
    for line in conclusions(means, found):
        print(line)


def conclusions(means, found):
    """Say in sentences what the table shows, and only that."""
    best: dict = {}
    for (aligner, way), each in means.items():
        if aligner not in best or each.error < means[best[aligner]].error:
            best[aligner] = aligner, way
    yield "Least error: " + "; ".join(
        f"{aligner}, {way}, {means[aligner, way].error:.3f}" for aligner, way in best.values()
    )
    ways = list(found[0].rates["Luong"])[:2]
    for order in found[0].exact:
        exact = np.mean([each.exact[order] for each in found], axis=0)
        shares = "; ".join(f"{way} {share:.1%}" for way, share in zip(ways, exact, strict=True))
        early, late = np.mean([each.beside[order] for each in found], axis=0)
        error = means[order, ways[0]].error
        yield f"{order}, translated without a mistake: {shares}"
        yield (
            f"  {ways[0]}, error with the weights of the word before {late:.3f}, of the word "
            f"{error:.3f}, of the next {early:.3f}"
        )
    for aligner, (entries, _) in found[0].dictionary.items():
        of_all, of_words = np.mean([each.dictionary[aligner][1] for each in found], axis=0)
        yield (
            f"Dictionary of {aligner}: {len(entries):,} entries, {of_all:.1%} right; of the words' "
            f"first {of_words:.1%}"
        )


def report_prose(prose):
    """Print what was found on real sentences."""
    there, back = prose.perplexities
    print(f"\n{prose.training:,} pairs to train with, {prose.held_out:,} held out: perplexity of a "
          f"word {there:.1f}, in the other\ndirection {back:.1f}.\n")  # fmt: skip
    print(f"{'words that are the same, linked':37}in training  held out")
    for aligner, ways in prose.alike.items():
        for n, (way, (seen, unseen)) in enumerate(ways.items()):
            print(f"{'' if n else aligner:14}{way:22}{seen:12.1%}{unseen:10.1%}")
    print(f"\nLinks that both have, by grow-diag-final: in training {prose.agree[0]:.1%}, "
          f"held out {prose.agree[1]:.1%}.")  # fmt: skip
    ours, theirs = ({entry[:2] for entry in entries} for entries in prose.dictionaries)
    print(f"Dictionary entries: attention {len(ours):,}, IBM model 1 {len(theirs):,}, "
          f"both {len(ours & theirs):,}.")  # fmt: skip


# ---- The dictionary ------------------------------------------------------------------------------


def show_dictionary(entries, first=15, last=10):
    """Print the most and the least certain entries."""
    print("\nDictionary of Luong's attention links        p      score")
    for n, entry in enumerate(entries):
        if n < first or n >= len(entries) - last:
            print(f"  {entry.source:13} {entry.target:13}{entry.links:6}{entry.p:9.2f}"
                  f"{entry.score:11.1f}")  # fmt: skip
        elif n == first:
            print("  ...")
    print("\n  p: the share of the links of the word. score: twice the logarithm of a likelihood "
          "ratio.")  # fmt: skip


def write_dictionary(entries, path):
    """Write all entries, with tabs between."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(
            f"{entry.source}\t{entry.target}\t{entry.links}\t{entry.p:.4f}\t{entry.score:.1f}\n"
            for entry in entries
        )


# ---- The picture ---------------------------------------------------------------------------------


def draw(shown, path):
    """Draw the weights of pairs: a row of maps for each, in which its known links are framed."""
    panels = [(pair, title, each) for pair, maps in shown for title, each in maps.items()]
    axes = heat_maps(
        [each for _, _, each in panels],
        [[word.strip() for word in pair.target] for pair, _, _ in panels],
        [[word.strip() for word in pair.source] for pair, _, _ in panels],
        titles=[title for _, title, _ in panels],
        columns=len(shown[0][1]),
        xlabel=None,
        ylabel=None,
    )
    for ax, (pair, _, _) in zip(axes, panels, strict=True):
        for t, s in np.argwhere(pair.possible):
            style = "-" if pair.sure[t, s] else ":"
            ax.add_patch(
                Rectangle(
                    (s - 0.5, t - 0.5), 1, 1, fill=False, edgecolor="tab:red", linestyle=style
                )
            )
    # A name without an ending gets none: the file is where it was asked for.
    axes[0].figure.savefig(path, dpi=150, format=pathlib.Path(path).suffix[1:] or "png")
    return axes

"""How good the captions of caption.py are: its tables, what to conclude, and its pictures."""

import importlib.util
import itertools
import pathlib
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from caption_mistakes import first_mistakes, pile_up, where_looked
from caption_models import GRID
from results import likeness

import attnc

matplotlib.use("Agg")  # pictures go to files, with or without a screen

NAMES = {"none": "one vector", "soft": "soft attention", "hard": "hard attention"}
TITLES = NAMES | {
    "none": "one vector (show and tell)",
    "soft": "soft attention (show, attend and tell)",
}


class Found(NamedTuple):
    """What a model says of some pictures."""

    captions: list  # lists of words
    exact: Any  # (B,) bool
    weights: Any  # (B, T, N)
    piled: Any  # see `pile_up`
    first: Any  # see `first_mistakes`
    looks: Any  # see `where_looked`


def examine(model, source, batch):
    """Let a model write captions for a batch, and hold them against the right ones."""
    vocabulary = source.vocabulary
    tokens, weights = model.write(batch.images, vocabulary, source.longest)
    captions = [vocabulary.decode(row) for row in tokens]
    exact = np.array([a == b for a, b in zip(captions, batch.captions, strict=True)])
    piled = first = looks = None
    if batch.places is not None:
        piled = pile_up(model, source, batch, tokens)
        first = first_mistakes(captions, batch.captions)
        looks = where_looked(model, batch) if model.kind != "none" else None
    return Found(captions, exact, weights, piled, first, looks)


# ---- The report ----------------------------------------------------------------------------------


def report(runs, source, batches, others):
    """Print the tables. runs: {kind: list, over seeds, of `caption.Run`}."""
    print(f"\n{'exact captions':40}{'parameters':>11}", *(f"{name:>9}" for name in batches),
          f"{'chrF':>7}{'BLEU':>7}{'seconds':>9}")  # fmt: skip
    right = [words for batch in batches.values() for words in batch.captions]
    for kind, several in runs.items():
        exact = shares(several)
        captions = [words for run in several for found in run.found for words in found.captions]
        parameters = several[0].model.parameter_count
        seconds = np.mean([run.seconds for run in several])
        wanted = right * len(several)
        print_row(TITLES[kind], parameters, exact.mean(axis=0), source, captions, wanted, seconds)
        for run, each in zip(several, exact, strict=True):
            if len(several) > 1:
                cells = "".join(f"{share:10.1%}" for share in each)
                print(f"{f'  seed {run.seed}':40}{'':11}{cells}")
    for name, captions in others.items():
        equal = np.mean([a == b for a, b in zip(captions, right, strict=True)])
        print_row(name, None, [equal], source, captions, right, None)
    if importlib.util.find_spec("sacrebleu") is None:
        print("  chrF and BLEU need sacrebleu: pip install sacrebleu")


def shares(several):
    """The share of exact captions of each run and batch."""
    return np.array([[found.exact.mean() for found in run.found] for run in several])


def print_row(name, parameters, exact, source, captions, right, seconds):
    scores = likeness([source.text(words) for words in captions], [source.text(w) for w in right])
    cells = "".join(f"{share:10.1%}" for share in exact)
    cells += "".join(f"{'-':>7}" if score is None else f"{score:7.1f}" for score in scores)
    print(f"{name:40}{format(parameters, ',') if parameters else '-':>11}{cells}"
          f"{f'{seconds:.0f}' if seconds else '-':>9}")  # fmt: skip


def report_mistakes(runs):
    """Print what wrong words do, and where they look."""
    print("\nwrong words, of all words            after right  after a first   the same, with that")
    print("                                           words      wrong word         word put right")
    for kind, several in runs.items():
        wrong, words = sum(found.piled for run in several for found in run.found).T
        cells = [f"{w / n:.1%} of {n}" if n else "-" for w, n in zip(wrong, words, strict=True)]
        print(f"{TITLES[kind]:40}{cells[0]:>16}{cells[1]:>17}{cells[2]:>20}")
    kinds = "".join(f"{word:>12}" for word in ("a or an", "a digit", "a relation", "the end"))
    print(f"\n{'the first wrong word ought to be':40}{kinds}")
    for kind, several in runs.items():
        counts = sum(found.first for run in several for found in run.found)
        print(f"{TITLES[kind]:40}" + "".join(f"{count:12}" for count in counts))
    print(f"\n{'after right words, a word looks':40}{'at its digit':>13}{'at another':>12}"
          f"{'at none':>12}{'of':>9}")  # fmt: skip
    for kind, several in runs.items():
        if kind == "none":
            continue
        counts = sum(found.looks for run in several for found in run.found)
        for word, judged in np.ndindex(2, 2):
            row = counts[word, judged]
            looked = "".join(f"{count / max(1, row.sum()):12.1%}" for count in row)
            name = f"{NAMES[kind]}, {('a or an', 'digits')[word]} {('right', 'wrong')[judged]}"
            print(f"{name:41}{looked}{row.sum():9}")


def conclude(runs, names):
    """Say in sentences what the tables of scenes show, and only that."""
    exact = {kind: shares(several).mean(axis=0) for kind, several in runs.items()}
    said = []
    for kind in ("soft", "hard"):
        if kind in exact and "none" in exact:
            gained = zip(100 * (exact[kind] - exact["none"]), names, strict=True)
            listed = ", ".join(f"{points:+.1f} at {name}" for points, name in gained)
            said.append(f"Points that {kind} attention has more than one vector: {listed}.")
    for kind, several in runs.items():
        wrong, words = sum(found.piled for run in several for found in run.found).T
        if words[1]:
            _, left, corrected = wrong / np.maximum(words, 1)
            said.append(
                f"{NAMES[kind].capitalize()}: behind a first wrong word {left:.1%} are wrong, and "
                f"{corrected:.1%} where it is put right, so that the wrong word itself costs "
                f"{100 * (left - corrected):.1f} points; the rest is that such pictures are hard."
            )
    return said


def samples(runs, source, batches, count=2):
    """Print some captions of the last batch of each model, right ones and wrong ones."""
    name, batch = list(batches.items())[-1]
    for kind, several in runs.items():
        found = several[0].found[-1]
        print(f"\n{TITLES[kind]}: {name}")
        for right in (True, False):
            for n in np.flatnonzero(found.exact == right)[:count]:
                print(f"  {'right:' if right else 'wrong:'} {source.text(found.captions[n])}")
                if not right:
                    print(f"  it is: {source.text(batch.captions[n])}")


def draw(runs, batches, folder):
    """Draw where each word of a right and of a wrong caption looks; return the paths.

    They are the first such of the batch before the last, or of the only one.
    """
    paths, at = [], max(0, len(batches) - 2)
    batch = list(batches.values())[at]
    for kind, several in runs.items():
        found = several[0].found[at]
        for right in (True, False):
            rows = np.flatnonzero(found.exact == right)
            if kind == "none" or not len(rows):
                continue
            n = rows[0]
            pairs = itertools.zip_longest(found.captions[n], batch.captions[n], fillvalue="no word")
            titles = [
                word.strip() if word == meant else f"{word.strip()} (right: {meant.strip()})"
                for word, meant in itertools.islice(pairs, len(found.captions[n]))
            ]
            weights = found.weights[n, : len(titles)].reshape(-1, GRID, GRID)
            image = 1 - batch.images[n].transpose(1, 2, 0).squeeze()  # dark on white
            path = pathlib.Path(folder, f"{kind}-{'right' if right else 'wrong'}.png")
            about = f"{TITLES[kind]}: {'a right' if right else 'a wrong'} caption"
            axes = attnc.plot.overlay(image, weights, titles, title=about, smooth=kind == "soft")
            axes[0].figure.savefig(path, dpi=150)
            paths.append(path)
    return paths

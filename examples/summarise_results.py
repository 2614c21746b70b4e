"""What summarise.py reports of the lines that were written: tables, samples and the picture."""

import itertools
import pathlib

import matplotlib
import numpy as np
from summarise_scores import (
    Scores,
    copied_words,
    first_words,
    lead,
    most_similar,
    rouge_of,
    scores,
)

from attnc.plot import marked_text

matplotlib.use("Agg")  # the picture goes to a file, with or without a screen

BEST = "copying and coverage"


def describe(task):
    parts = len(task.training), len(task.validation), len(task.test)
    print("Texts with a line: {:,} to train with, {:,} to validate, {:,} to test.".format(*parts))
    words = [word for pair in task.test for word in pair.line]
    inside = [word in pair.source for pair in task.test for word in pair.line]
    unknown = np.mean([word not in task.vocabulary for word in words])
    print(
        f"The vocabulary has {len(task.vocabulary.words):,} words; {unknown:.1%} of the words of "
        f"test lines are not in it, and\n{np.mean(inside):.0%} are in their text.\n"
    )


def report(found, task, scorer, path):
    """Print the table and some samples, and draw a line; `found` is what `run` returned by seed."""
    test, count = task.test, lead(scorer, task.validation)
    first, similar = f"first {count} words of the text", "line of the likest text"
    lines = [first_words(pair, count) for pair in test]
    rows = {first: [scores(scorer, lines, [np.ones(len(words)) for words in lines], test)]}
    lines = most_similar(task.training, test)
    rows[similar] = [scores(scorer, lines, [np.zeros(len(words)) for words in lines], test)]
    for name in found[0][0]:
        rows[name] = []
        for written, _ in found:
            lines = [line.words for line in written[name]]
            rows[name].append(
                scores(scorer, lines, [copied_words(line) for line in written[name]], test)
            )
    lines = [pair.line for pair in test]
    right = scores(scorer, lines, [np.zeros(len(words)) for words in lines], test)
    table(rows, right)
    print("\nLoss of validation, nats a word, before and after the last phase; seconds:")
    for name in found[0][1]:
        before, after, seconds = np.mean([curves[name] for _, curves in found], axis=0)
        print(f"  {name:25}{before:8.3f}{after:8.3f}{seconds:8.0f}")
    conclusions(rows, first, similar)
    best = found[0][0][BEST]
    samples(scorer, best, test)
    line, pair = chosen(scorer, best, task)
    draw(line, pair, path)
    print(f"\n{path}")


def table(rows, right):
    """Print the means over seeds, and the range of ROUGE-L where there are several."""
    print(f"{'':26}ROUGE-1 ROUGE-2 ROUGE-L  repeated  copied  in text  words")
    for name, each in rows.items():
        mean = Scores(*np.mean(each, axis=0))
        low, high = min(s.rougeL for s in each), max(s.rougeL for s in each)
        spread = f"  ROUGE-L {low:.1f} to {high:.1f}" if len(each) > 1 else ""
        print(
            f"{name:26}{mean.rouge1:7.1f}{mean.rouge2:8.1f}{mean.rougeL:8.1f}{mean.repeated:9.1%}"
            f"{mean.copied:9.0%}{mean.inside:8.0%}{mean.long:8.1f}{spread}"
        )
    print(
        f"{'the right lines':26}{'':23}{right.repeated:9.1%}{'':9}{right.inside:8.0%}"
        f"{right.long:8.1f}\n\n"
        "  ROUGE: F measure of the package rouge-score, with its stemmer. repeated: trigrams that\n"
        "  stood in the same line before. copied: words that are more likely copied than written.\n"
        "  in text: words that the text has. The likest text is found by tf-idf and cosine."
    )


def conclusions(rows, first, similar):
    """Say what the table says."""
    mean = {name: Scores(*np.mean(each, axis=0)) for name, each in rows.items()}
    best, plain, without = mean[BEST], mean["copying"], mean["no copying"]
    print(
        f"\nROUGE-L over the first words of the text: {best.rougeL - mean[first].rougeL:+.1f}, "
        f"over the line of the text\nin training that is likest: "
        f"{best.rougeL - mean[similar].rougeL:+.1f}."
        f"\nCopying is worth {plain.rougeL - without.rougeL:+.1f} ROUGE-L, coverage "
        f"{best.rougeL - plain.rougeL:+.1f};"
        f"\nwith coverage {best.repeated:.1%} of the trigrams are repeated, without "
        f"{plain.repeated:.1%}, and without copying {without.repeated:.1%}."
    )


def marked(line):
    """A line with what was copied in brackets."""
    parts = []
    for copied, group in itertools.groupby(
        zip(line.words, copied_words(line), strict=True), key=lambda each: each[1]
    ):
        text = " ".join(word for word, _ in group)
        parts.append(f"[{text}]" if copied else text)
    return " ".join(parts)


def samples(scorer, lines, pairs):
    """Print lines from good to bad: of fixed ranks by ROUGE-L, so that nobody has chosen them."""
    found = [rouge_of(scorer, line.words, p.line)[2] for line, p in zip(lines, pairs, strict=True)]
    order = np.argsort(found, kind="stable")[::-1]
    print(f"\nSamples of {BEST!r}, by rank of ROUGE-L; [copied words] in brackets:")
    for share in (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95):
        n = order[int(share * len(order))]
        print(f"\n  {share:.0%} are better; ROUGE-L {found[n]:.0f}")
        print(f"    text:  {' '.join(pairs[n].source[:30])} ...")
        print(f"    right: {' '.join(pairs[n].line)}")
        print(f"    line:  {marked(lines[n])}")


# ---- The picture ---------------------------------------------------------------------------------


def chosen(scorer, lines, task):
    """A line to draw, and its pair: a good one, of a text that fits, that copies unknown words."""

    def worth(both):
        line, pair = both
        copied = {w for w, c in zip(line.words, copied_words(line), strict=True) if c}
        new = sum(word in pair.line and word not in task.vocabulary for word in copied)
        likeness = rouge_of(scorer, line.words, pair.line)[2]
        fits = len(pair.source) <= 45 and len(line.words) <= 10
        return fits, likeness > 60, min(new, 2), len(copied) > 2, likeness

    return max(zip(lines, task.test, strict=True), key=worth)


def draw(line, pair, path):
    """Draw what each word of a line looked at in the text, if it is copied, and what is covered.

    Coverage, the sum of the weights of all words, is drawn up to 1.
    """
    weights = line.weights[: len(line.words), : len(pair.source)]
    titles = [
        f"{word}:  p_gen {p_gen:.2f}{', copied' if copied else ''}"
        for word, p_gen, copied in zip(line.words, line.p_gen, copied_words(line), strict=False)
    ]
    covered = np.minimum(weights.sum(axis=0), 1)
    axes = marked_text(
        pair.source,
        np.vstack([weights, covered]),
        [*titles, "coverage after the last word"],
        title=f"line:  {marked(line)}\nright: {' '.join(pair.line)}",
        vmax=1,
        colorbar=True,
    )
    # A name without an ending gets none: the file is where it was asked for.
    axes[0].figure.savefig(path, dpi=150, format=pathlib.Path(path).suffix[1:] or "png")
    return axes

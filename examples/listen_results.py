"""What listen.py found: the tables, what to conclude, and the picture."""

import pathlib
import textwrap

import matplotlib
import numpy as np
from listen_measures import FRAME, by_chance

matplotlib.use("Agg")  # the picture goes to a file, with or without a screen
from matplotlib import pyplot as plt  # noqa: E402, after the choice above

NAMES = {"soft": "soft attention", "monotonic": "monotonic", "none": "no attention"}
FOUND = 0.5  # of the weight on the word: from there on the alignment is called a diagonal


# ---- Tables --------------------------------------------------------------------------------------


def report(runs, settings):
    """Print how good the models are, when they align, and what to conclude."""
    outcomes, said, checked, layers = runs[0]
    words = sum(len(text.split()) for text in next(iter(said.values())))
    print(f"{settings.steps} steps of {settings.batch} sequences. Words that are right, in %, of "
          f"about {words} in each column,\nin sequences of 3 to 6 that were not in training"
          f"{', by seed' * (len(runs) > 1)}:\n")  # fmt: skip
    width = max(20, 6 * len(runs) + 2)
    print(f"{'':16}" + "".join(f"{name:>{width}}" for name in said) + "   seconds")
    for kind in outcomes:
        several = [each.outcomes[kind] for each in runs]
        cells = ["  ".join(f"{100 * each.right[name]:.1f}" for each in several) for name in said]
        spent = np.mean([each.checks[-1].seconds for each in several])
        print(f"{NAMES[kind]:16}" + "".join(f"{x:>{width}}" for x in cells) + f"{spent:10.0f}")
    print("\n       " + "".join(f"   {NAMES[kind]:20}" for kind in outcomes))
    print("  steps" + "   loss  words  on word " * len(outcomes))
    for rows in zip(*(each.checks for each in outcomes.values()), strict=True):
        looks = [(f"{row.loss:7.3f}{row.found.right:7.0%}", row.found.on_word) for row in rows]
        cells = [text + (f"{share:9.0%} " if share >= 0 else f"{'-':>9} ") for text, share in looks]
        print(f"{rows[0].step:7}" + "".join(cells))
    chance = np.mean([by_chance(each, layers) for each in checked])
    print(f"\n  seconds: of training. loss: of a character. words: that are right, of "
          f"{len(checked)} other sequences.\n  on word: weight of letters on the word that they "
          f"spell; {chance:.0%} were it the same everywhere.")  # fmt: skip
    for name, count in {**dict.fromkeys(said, 2), **dict.fromkeys(settings.files, 1)}.items():
        print(f"\n{name}:")
        for n in range(count):
            if name in said:
                print(f"  said              {said[name][n]}")
            for kind, outcome in outcomes.items():
                print(f"  {NAMES[kind]:16}  {outcome.texts[name][n]}")
    print("\n" + "\n".join(textwrap.fill(text, 92) for text in conclusions(runs)))


def appears(checks):
    """The first step from which on the alignment is found to be a diagonal, or None."""
    first = None
    for each in reversed(checks):
        if not each.found.on_word >= FOUND:
            break
        first = each.step
    return first


def conclusions(runs):
    """Say in sentences what the tables show, and only that."""
    kinds, parts = runs[0].outcomes, list(runs[0].said)
    mean = {
        kind: {name: np.mean([run.outcomes[kind].right[name] for run in runs]) for name in parts}
        for kind in kinds
    }
    for kind in [kind for kind in kinds if kind != "none"]:
        steps = [appears(run.outcomes[kind].checks) for run in runs]
        when = ", ".join("never" if step is None else f"from step {step} on" for step in steps)
        yield f"{NAMES[kind].capitalize()}: half of a letter's weight is on its word {when}."
    for kind, name in [(kind, name) for kind in kinds for name in parts]:
        if kind != "soft" and "soft" in kinds:
            lost = 100 * (mean["soft"][name] - mean[kind][name])
            yield (
                f"{name.capitalize()}: {NAMES[kind]} has {abs(lost):.1f} points "
                f"{'less' if lost > 0 else 'more'} than soft attention."
            )


# ---- The picture ---------------------------------------------------------------------------------


def draw(run, path):
    """Draw sound and alignments of one utterance, three moments of training, and the curves."""
    kinds = [kind for kind in run.outcomes if kind != "none"]
    if not kinds:
        return None
    figure = plt.figure(figsize=(11, 11), layout="constrained")
    top, middle, bottom = np.asarray(figure.subfigures(3, 1, height_ratios=(6, 3.4, 2.6)))
    axes = draw_alignments(run, kinds, top)
    draw_moments(run, kinds[0], middle)
    draw_curves(run, bottom)
    # A name without an ending gets none: the file is where it was asked for.
    figure.savefig(path, dpi=130, format=pathlib.Path(path).suffix[1:] or "png")
    plt.close(figure)
    return axes


def draw_alignments(run, kinds, figure):
    """Draw what is heard, and below it the weights of each letter, along one axis of time."""
    each = run.checked[0]
    axes = figure.subplots(
        2, len(kinds), sharex=True, squeeze=False, gridspec_kw={"height_ratios": (1, 2)}
    )
    figure.suptitle(f'"{each.text}": what is heard, and where each letter looks')
    for (sound, aligned), kind in zip(axes.T, kinds, strict=True):
        extent = (0, len(each.features) * FRAME, 0, each.features.shape[1])
        sound.imshow(each.features.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
        sound.set(title=NAMES[kind], ylabel="mel band", yticks=[0, 20, 40])
        show(aligned, run.outcomes[kind].checks[-1].found.weights, run)
        aligned.set_xlabel("seconds; lines: where each word begins and ends")
        for ax, (start, end) in ((ax, span) for ax in (sound, aligned) for span in each.spans):
            ax.axvline(start, color="tab:cyan", linewidth=0.9)
            ax.axvline(end, color="tab:cyan", linewidth=0.9, linestyle=":")
    return axes


def show(ax, weights, run):
    """Draw weights, a row for each letter, along the seconds of the sound."""
    utterance = run.checked[0]
    extent = (0, weights.shape[1] * FRAME * 2**run.layers, len(weights) - 0.5, -0.5)
    ax.imshow(weights, aspect="auto", extent=extent, cmap="gray_r", vmin=0, vmax=1)
    ax.set_xlim(0, len(utterance.features) * FRAME)
    ax.set_yticks(range(len(weights)), list(utterance.text.replace(" ", "_")), fontsize=8)


def draw_moments(run, kind, figure):
    """Draw the alignment at the first check, where it changes most, and at the last."""
    checks = run.outcomes[kind].checks
    changes = np.diff([each.found.on_word for each in checks])[:-1]
    jump = int(np.argmax(changes)) + 1 if len(changes) else 0
    figure.suptitle(f"{NAMES[kind]}, in training")
    moments = checks[0], checks[jump], checks[-1]
    for ax, check in zip(figure.subplots(1, 3), moments, strict=True):
        show(ax, check.found.weights, run)
        ax.set_title(f"step {check.step}: {check.found.on_word:.0%} on the word", fontsize=10)
        ax.tick_params(labelsize=6)


def draw_curves(run, figure):
    """Draw losses, words that are right, and the weight on the word, by steps."""
    axes = figure.subplots(1, 3)
    titles = "loss of a character", "words that are right, %", "weight on the word, %"
    for ax, title in zip(axes, titles, strict=True):
        ax.set(title=title, xlabel="steps")
    for kind, outcome in run.outcomes.items():
        steps = [each.step for each in outcome.checks]
        axes[0].plot(steps, [each.loss for each in outcome.checks], label=NAMES[kind])
        axes[1].plot(steps, [100 * each.found.right for each in outcome.checks])
        axes[2].plot(steps, [100 * each.found.on_word for each in outcome.checks])
    chance = 100 * np.mean([by_chance(each, run.layers) for each in run.checked])
    axes[2].axhline(chance, color="0.5", linestyle=":")
    axes[2].annotate("the same everywhere", (0.98, chance), xycoords=("axes fraction", "data"),
                     ha="right", va="top", color="0.4")  # fmt: skip
    axes[0].legend(fontsize="small")
    axes[0].set_ylim(bottom=0)
    for ax in axes[1:]:
        ax.set_ylim(0, 102)

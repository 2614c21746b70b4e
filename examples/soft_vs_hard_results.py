"""What soft_vs_hard.py found: the table, what to conclude, and the picture."""

import pathlib
import textwrap

import matplotlib
import numpy as np
from cards import CARDS, PIXELS

import attnc

matplotlib.use("Agg")  # the picture goes to a file, with or without a screen
from matplotlib import pyplot as plt  # noqa: E402, after the choice above

LEARNED = 0.9  # of the answers


def report(trained, errors, ways):
    """Print how each way trains and what it costs, and how good its gradient is."""
    print("                    differ-           right    right  steps to  ms a  cards  thousand")
    print("                    entiable        answers    card    90 %     step   read  mult-adds")
    for name, (model, curve, seconds) in trained.items():
        reached = curve[curve[:, 1] >= LEARNED, 0]
        steps = f"{reached[0]:.0f}" if len(reached) else "-"
        reads = 1 if ways[name].hard else CARDS
        print(f"{name:20}{ways[name].differentiable:14}{curve[-1, 1]:9.1%}{curve[-1, 2]:9.1%}"
              f"{steps:>7}{1000 * seconds:9.2f}{reads:6}"
              f"{model.multiply_adds(reads) / 1000:10.1f}")  # fmt: skip
    print("\nThe gradient of the scores of one half-trained network, next to the exact gradient of")
    print("the mean loss over draws; 100 % is the length of that.\n")
    print("                         bias   (chance)      noise   draws")
    for name, error in errors.items():
        bias, chance, noise = shares(error)
        print(f"{name:20}{bias:9.0%}{chance:11.0%}{noise:11.0%}{ways[name].draws:8}")
    print("\n" + "\n".join(textwrap.fill(text, 92) for text in conclusions(trained, errors)))


def shares(error):
    """Bias, its size by chance alone, and noise, as shares of the exact gradient."""
    deviation = error.variance**0.5
    return np.array([error.bias, error.standard_error, deviation]) / error.length


def conclusions(trained, errors):
    """Say in sentences what the tables show, and only that."""
    noise = {name: shares(error)[2] for name, error in errors.items()}
    yield f"Soft attention reads {CARDS} cards to answer and hard attention one, {PIXELS} pixels."
    off = shares(errors["soft"])[0]
    yield (
        "The gradient of soft attention has no noise, but it is that of another loss: from that of "
        f"draws it is {off:.0%} off."
    )
    right = [name for name, error in errors.items() if is_unbiased(error)]
    listed = ", ".join(name.strip() for name in right) or "none"
    yield f"Off by no more than three times chance, if not by none at all: {listed}."
    if len(right) > 1:
        ordered = sorted(right, key=lambda name: noise[name])
        least, most = (f"{name.strip()}, {noise[name]:.0%}" for name in (ordered[0], ordered[-1]))
        yield f"Of these the least noise has {least}, and the most {most}."
    final = {name: curve[-1, 1] for name, (_, curve, _) in trained.items()}
    ordered = sorted(final, key=lambda name: final[name])
    worst, best = (f"{name.strip()}, {final[name]:.1%}" for name in (ordered[0], ordered[-1]))
    yield f"Answers that are right in the end: most by {best}, fewest by {worst}."


def is_unbiased(error):
    """Whether an estimate is right on average, as far as its samples tell."""
    return error.variance > 0 and error.bias < 3 * error.standard_error


def draw(trained, errors, test, path):
    """Draw a question and what is looked at, the curves of training, and bias against noise."""
    figure = plt.figure(figsize=(10, 7), layout="constrained")
    halves: np.ndarray = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 1.1)))
    axes = halves[0].subplots(2, CARDS, gridspec_kw={"height_ratios": (1, 1.6)})
    draw_question(trained, test, axes)
    curves, gradients = halves[1].subplots(1, 2)
    colors = {}
    for name, (_, curve, _) in trained.items():
        (line,) = curves.plot(curve[:, 0], 100 * curve[:, 1], label=name.strip())
        colors[name] = line.get_color()
    curves.set(xlabel="steps", ylabel="right answers, %", title="training", ylim=(0, 102))
    curves.legend(loc="lower right", fontsize="small")
    draw_errors(errors, colors, gradients)
    # A name without an ending gets none: the file is where it was asked for.
    figure.savefig(path, dpi=150, format=pathlib.Path(path).suffix[1:] or "png")
    return axes, curves, gradients


def draw_question(trained, test, axes):
    """Draw the cards of the first question, and below each the weights that two ways give it."""
    left, right, names, place, _ = (x[:1] for x in test)
    shown = {name: trained[name][0] for name in ("soft", "  leave-one-out")}
    weights = {
        name.strip(): attnc.attend(model.scores(left, names)[0], right, return_weights=True).weights
        for name, model in shown.items()
    }
    for k, (card, bars) in enumerate(axes.T):
        gap = np.full((8, 1), 0.5)
        picture = np.hstack([left[0, k].reshape(8, 8), gap, right[0, k].reshape(8, 8)])
        card.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
        card.set(xticks=[], yticks=[])
        for side in card.spines.values():
            side.set(color="tab:red" if k == place[0] else "0.7", linewidth=2.5)
        heights = [x[0, 0, k] for x in weights.values()]
        bars.bar(range(len(heights)), heights, color=["tab:blue", "tab:red"], width=0.7)
        bars.set(ylim=(0, 1), xticks=[], yticks=[0, 1] if k == 0 else [])
    axes[0, 0].figure.suptitle(
        f"What is the number on card {names[0]}?  Bars: weight of the card with soft attention "
        "(blue),\nand probability of looking at it with hard attention (red, leave-one-out)"
    )


def draw_errors(errors, colors, ax):
    """Draw the bias of each gradient, with its chance, against its noise."""
    for k, (name, error) in enumerate(errors.items()):
        bias, chance, noise = 100 * shares(error)
        ax.barh(k - 0.2, bias, 0.38, color=colors[name])
        ax.errorbar(bias, k - 0.2, xerr=2 * chance, color="0.2", capsize=3)
        ax.barh(k + 0.2, noise, 0.38, color=colors[name], alpha=0.4)
    ax.set_yticks(range(len(errors)), [name.strip() for name in errors])
    ax.invert_yaxis()
    ax.set(
        xlabel="% of the exact gradient",
        title="gradient: bias (full), noise (pale)",
    )

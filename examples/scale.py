"""Why scores are divided by sqrt(d_k): the softmax without it, by the size of the keys.

    python scale.py                          a few seconds; the picture is scale.png

Queries and keys of independent numbers with variance 1 have dot products with variance d_k (Vaswani
et al. 2017, "Attention is all you need", section 3.2.1, footnote 4). The larger the scores, the
more of the weight goes to one key, and the less a change of a score changes any weight: the softmax
is saturated, and the gradient, which has to pass through it, is gone. Divided by sqrt(d_k), scores
have variance 1 at any size.

The picture shows, for d_k from 4 to 1024, the largest weight of a query, and the norm of the
gradient with respect to its scores where that of the weights has norm 1. Lines are medians over
queries; half of the queries lie in the shaded band.
"""

import argparse
import pathlib
import sys

try:
    import matplotlib
    import numpy as np

    import attnc
except ImportError as error:
    sys.exit(f"scale.py: {error}; install it with: pip install {error.name}")

matplotlib.use("Agg")  # the picture goes to a file, with or without a screen
from matplotlib import pyplot as plt  # noqa: E402, after the choice above

SIZES = 2 ** np.arange(2, 11)
SCALES = {"divided by sqrt(d_k)": None, "as they are": 1.0}  # as dot_product_attention takes them


def measure(rng, size, scale, batch, length=32):
    """Return scores (queries, length), and largest weights and norms of gradients, (queries,).

    There are `batch` sequences of so many queries and keys.
    """
    query, key = rng.standard_normal((2, batch, length, size))
    value = np.zeros((batch, length, 1))  # only the weights are looked at
    scores = attnc.stages(attnc.dot_product_attention, query, key, value, scale=scale).scores

    # attend begins where scores are there: what goes back to them is the softmax's gradient.
    (_, weights), pullback = attnc.vjp(attnc.attend, scores, value, return_weights=True)
    dweights = rng.standard_normal(weights.shape)
    dweights /= np.linalg.norm(dweights, axis=-1, keepdims=True)
    dscores = pullback(None, dweights=dweights).scores
    norms = np.linalg.norm(dscores, axis=-1)
    return scores.reshape(-1, length), weights.max(axis=-1).ravel(), norms.ravel()


def draw(found, path):
    """Draw what `measure` found, {name: its results for each size}."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for name, rows in found.items():
        label = "scores " + name.replace("sqrt(d_k)", r"$\sqrt{d_k}$")
        for ax, column in zip(axes, (1, 2), strict=True):
            low, middle, high = np.quantile([row[column] for row in rows], [0.25, 0.5, 0.75], 1)
            ax.plot(SIZES, middle, marker="o", label=label)
            ax.fill_between(SIZES, low, high, alpha=0.2)
    length = rows[0][0].shape[1]
    axes[0].axhline(1 / length, color="0.4", linestyle=":")
    axes[0].text(SIZES[-1], 1 / length, "equal weights", color="0.4", ha="right", va="bottom")
    axes[0].set(ylabel=f"largest of {length} weights", ylim=(0, 1.03))
    axes[1].set(ylabel="norm of the gradient of the scores", yscale="log")
    axes[1].legend(loc="lower left")
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_xticks(SIZES, map(str, SIZES))
        ax.set_xlabel("$d_k$, the size of queries and keys")
    # A name without an ending gets none: the file is where it was asked for.
    figure.savefig(path, dpi=150, format=pathlib.Path(path).suffix[1:] or "png")
    return axes


def main():
    parser = argparse.ArgumentParser(description="What 1/sqrt(d_k) does for the softmax.")
    add = parser.add_argument
    add("--output", metavar="FILE", default="scale.png", help="the picture (default: scale.png)")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--quick", action="store_true", help="fewer queries, for tests")
    args = parser.parse_args()
    rng, batch = np.random.default_rng(args.seed), 8 if args.quick else 64

    found = {
        name: [measure(rng, size, scale, batch) for size in SIZES] for name, scale in SCALES.items()
    }
    queries, keys = found["as they are"][0][0].shape
    print(f"{keys} keys; medians over {queries:,} queries, and the deviation of all scores\n")
    print("                     deviation   largest weight   norm of gradient")
    for name, rows in found.items():
        print(f"scores {name}")
        for size, (scores, largest, norms) in zip(SIZES, rows, strict=True):
            print(f"    d_k = {size:4}      {scores.std():9.2f}{np.median(largest):17.3f}"
                  f"{np.median(norms):19.1e}")  # fmt: skip
    draw(found, args.output)
    print(f"\n{args.output}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"scale.py: {error}")

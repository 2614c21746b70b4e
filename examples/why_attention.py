"""Why attention exists: three classic pictures, each drawn from runs of its own.

    python why_attention.py                  about two minutes; pictures in why-attention/
    python why_attention.py --quick          a few seconds, smaller models

1. Accuracy by the length of the sentence, with attention and without. Without it everything must
   fit in one vector, and long sentences do not (Cho et al. 2014, "On the properties of neural
   machine translation", figure 4; Bahdanau et al. 2015, figure 2).
2. How much a word at some distance can change the loss: through the steps of an RNN its gradient
   shrinks with each of them (Bengio et al. 1994, "Learning long-term dependencies with gradient
   descent is difficult"), through those of an LSTM slowly, and attention has no steps between.
3. Errors by position, with the right words so far and with the model's own: who learns from right
   words alone has not learnt to go on after a mistake (Bengio et al. 2015, "Scheduled sampling").

The sentences are of made-up words; a translation has them in the opposite order.
"""

import argparse
import os
import sys

try:
    import matplotlib
    import numpy as np
    from command import check_numbers, errors_in_a_line
    from training import Course, learn

    import attnc
except ImportError as error:
    sys.exit(f"why_attention.py: {error}; install it with: pip install {error.name}")

matplotlib.use("Agg")  # pictures go to files, with or without a screen
from matplotlib import pyplot as plt  # noqa: E402, after the choice above

PADDING, START, END, WORDS = 0, 1, 2, 20  # words are START + END .. WORDS - 1


# ---- Sentences and models ------------------------------------------------------------------------


def sentences(rng, lengths):
    """Return sources, their lengths, and targets: the words in opposite order, then the end."""
    longest = max(lengths)
    source = rng.integers(END + 1, WORDS, (len(lengths), longest))
    target = np.full((len(lengths), longest + 2), PADDING)
    target[:, 0] = START
    for row, length in enumerate(lengths):
        source[row, length:] = PADDING
        target[row, 1 : length + 1] = source[row, :length][::-1]
        target[row, length + 1] = END
    return source, np.array(lengths), target


def train(model, rng, longest, steps, title):
    """Train on sentences of 1 to `longest` words."""
    course = Course(steps, 64, 0.004, warmup=0)

    def loss(step):
        source, lengths, target = sentences(rng, rng.integers(1, longest + 1, course.batch))
        outputs, pullback = attnc.vjp(model, source, target[:, :-1], lengths, labels=target[:, 1:])
        pullback()
        return outputs.loss

    learn(model, loss, course, name=title)


def make(attention, size, rng):
    return attnc.Seq2Seq(
        WORDS, WORDS, size // 2, size, attention=attention, padding_index=PADDING, rng=rng
    )


# ---- 1: the length of the sentence ---------------------------------------------------------------


def accuracy_by_length(model, rng, lengths, count):
    """Share of sentences of each length that are translated without a mistake."""
    shares = []
    for length in lengths:
        source, given, target = sentences(rng, [length] * count)
        tokens, _ = model.translate(source, given, start=START, end=END, max_length=length + 1)
        right = np.full_like(target[:, 1:], END)
        right[:, : tokens.shape[1]] = tokens
        shares.append((right == target[:, 1:]).all(axis=1).mean())
    return shares


def draw_lengths(curves, lengths, longest, path):
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    ax.axvspan(min(lengths), longest, color="0.93", label="lengths of training")
    for name, shares in curves.items():
        ax.plot(lengths, 100 * np.array(shares), marker="o", label=name)
    ax.set(xlabel="words of the sentence", ylabel="translated without a mistake, %", ylim=(-3, 103))
    ax.legend()
    figure.savefig(path, dpi=150)


# ---- 2: the distance to a word -------------------------------------------------------------------


def gradient_by_distance(rng, size, distances, batch=16):
    """Norm of the loss's gradient with respect to the word so many steps ago.

    The loss is a random linear function of what the model gives after the last word; the models are
    as they are before training. Gradients are divided by that of the last word.
    """
    longest = max(distances)
    words = rng.standard_normal((batch, longest + 1, size), dtype=np.float32)
    dlast = rng.standard_normal((batch, size), dtype=np.float32)

    def through_steps(kind):
        layer = kind(size, size, rng=rng)
        (outputs, _), pullback = attnc.vjp(layer, words)
        doutputs = np.zeros_like(outputs)
        doutputs[:, -1] = dlast
        return pullback(doutputs).x

    def through_attention():
        query, values = words[:, -1:], words  # the last word asks all of them
        _, pullback = attnc.vjp(attnc.dot_product_attention, query / 4, values, values)
        return pullback(dlast[:, None]).value

    gradients = {
        "RNN": through_steps(attnc.RNN),
        "LSTM": through_steps(attnc.LSTM),
        "attention": through_attention(),
    }
    norms = {}
    for name, dwords in gradients.items():
        norm = np.sqrt(np.square(dwords).mean(axis=(0, 2)))[::-1]  # index: distance
        norms[name] = norm[distances] / norm[0]
    return norms


def draw_gradients(norms, distances, path):
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, norm in norms.items():
        ax.plot(distances, norm, label=name)
    ax.set(xlabel="distance to the word", ylabel="norm of its gradient, of the last word's")
    ax.set_yscale("log")
    ax.set_ylim(bottom=1e-12)
    ax.legend()
    figure.savefig(path, dpi=150)


# ---- 3: teacher forcing and free running ---------------------------------------------------------


def error_by_position(model, rng, length, count):
    """Share of wrong words at each position: after the right words, and after the model's own."""
    source, given, target = sentences(rng, [length] * count)
    forced = model(source, target[:, :-1], given).logits.argmax(axis=-1)
    tokens, _ = model.translate(source, given, start=START, end=END, max_length=length + 1)
    free = np.full_like(target[:, 1:], END)
    free[:, : tokens.shape[1]] = tokens
    words = target[:, 1:]
    return {
        "teacher forcing: after the right words": (forced != words).mean(axis=0),
        "free running: after its own": (free != words).mean(axis=0),
    }


def draw_errors(errors, path):
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, shares in errors.items():
        ax.plot(np.arange(1, len(shares) + 1), 100 * shares, marker="o", label=name)
    ax.set(xlabel="position in the translation", ylabel="wrong words, %")
    ax.set_ylim(bottom=0)
    ax.legend()
    figure.savefig(path, dpi=150)


# ---- The command ---------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description="Three pictures of why attention exists.")
    add = parser.add_argument
    add("--steps", type=int, default=3000, help="of training each of two models (default: 3000)")
    add("--output", metavar="DIR", default="why-attention", help="for the pictures")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--quick", action="store_true", help="small models, a few seconds, for tests")
    args = parser.parse_args()
    check_numbers(parser, vars(args), {"steps": 1, "seed": 0})
    size, longest, count = (32, 6, 50) if args.quick else (96, 16, 300)
    steps = min(args.steps, 40) if args.quick else args.steps
    os.makedirs(args.output, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    paths = [f"{args.output}/{name}.png" for name in ("length", "distance", "position")]

    models = {
        "with attention": make("additive", size, rng),
        "without: one vector": make("none", size, rng),
    }
    for name, model in models.items():
        train(model, rng, longest, steps, name)

    lengths = np.arange(1, 3 * longest // 2 + 1, max(1, longest // 12))
    curves = {
        name: accuracy_by_length(model, rng, lengths, count) for name, model in models.items()
    }
    draw_lengths(curves, lengths, longest, paths[0])
    for name, shares in curves.items():
        short = np.mean([share for n, share in zip(lengths, shares, strict=True) if n <= longest])
        print(f"{name}: {short:.1%} of sentences of up to {longest} words, {shares[-1]:.1%} of "
              f"{lengths[-1]} words")  # fmt: skip

    distances = np.arange(0, 31 if args.quick else 101)
    norms = gradient_by_distance(rng, size, distances)
    draw_gradients(norms, distances, paths[1])
    for name, norm in norms.items():
        print(f"{name}: a word {distances[-1]} steps ago has {norm[-1]:.1e} of the last one's "
              "gradient")  # fmt: skip

    errors = error_by_position(models["without: one vector"], rng, longest, count)
    draw_errors(errors, paths[2])
    for name, shares in errors.items():
        print(f"{name}: {shares[:-1].mean():.1%} of the words are wrong")
    print(*paths, sep="\n")


if __name__ == "__main__":
    with errors_in_a_line("why_attention.py"):
        main()

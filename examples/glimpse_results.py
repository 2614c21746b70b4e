"""What the models of glimpse.py reach, what it costs, and where they look: tables and pictures."""

import numpy as np
from glimpse_learning import probabilities
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from sensor import pixels

NAMES = {
    "learned": "learned looks",
    "random": "random looks",
    "scan": "every region",
    "soft": "soft looks",
    "convolution": "convolutional",
}
SIZES = 32, 64, 128, 256  # of images, for what a look at them costs

# ---- Costs ---------------------------------------------------------------------------------------


def mean_looks(trained, found):
    """How many looks an image got."""
    return np.mean(found.last + 1) if found.looks is not None else None


def values(trained, found, size):
    """How many numbers the model gets to see of an image."""
    if found.looks is None:
        return size * size
    return mean_looks(trained, found) * trained.model.sensor.values


def covered(trained, found, size):
    """The mean share of an image that lies under some square of a look; None if not by squares."""
    if trained.kind in ("soft", "convolution"):
        return 1.0
    reach = trained.model.sensor.reach
    first = pixels(found.looks.places.clip(-1, 1), (size, size)) - reach // 2  # (B, T, 2)
    inside = np.arange(size) - first[..., None]  # (B, T, 2, size)
    inside = (inside >= 0) & (inside < reach)
    made = np.arange(first.shape[1]) <= found.last[:, None]  # (B, T)
    rows, columns = inside[:, :, 0] & made[..., None], inside[:, :, 1]
    return np.mean((rows[..., None] & columns[:, :, None]).any(axis=1))


def products(trained, found, size):
    """How many numbers are multiplied and added for an image of this size."""
    if found.looks is None:
        return trained.model.products(size)
    looks = mean_looks(trained, found)
    if trained.kind == "scan":  # there are more regions in a larger image
        looks *= (size / found.images.shape[1]) ** 2
    return trained.model.products(size, looks, aims=trained.kind in ("learned", "soft"))


# ---- Tables --------------------------------------------------------------------------------------


def report(runs, settings):
    """Print the tables; runs is a list, one a seed, of {kind: (trained, found)}."""
    size, tested = settings.size, settings.tested
    print(f"\nWrong digits, {tested:,} canvases with digits of the test, one sample of looks\n")
    seeds = range(settings.seed, settings.seed + len(runs))
    heads = [f"seed {seed}" for seed in seeds] + (["mean"] if len(runs) > 1 else [])
    print(" " * 22 + "".join(f"{head:>9}" for head in heads))
    errors = {kind: np.array([run[kind][1].error for run in runs]) for kind in runs[0]}
    for kind, row in errors.items():
        shown = [*row, row.mean()] if len(runs) > 1 else list(row)
        print(f"  {NAMES[kind]:20}" + "".join(f"{error:9.1%}" for error in shown))
    print(f"\nWhat it costs, seed {settings.seed}: numbers that a model gets of a canvas of "
          f"{size} x {size} = {size * size:,}, share\nof it under the squares, multiply-adds, "
          "parameters, seconds of training\n")  # fmt: skip
    print(" " * 22 + "    looks   values  covered  products  parameters  seconds")
    for kind, (trained, found) in runs[0].items():
        looks = mean_looks(trained, found)
        print(f"  {NAMES[kind]:20}{'-' if looks is None else f'{looks:.1f}':>9}"
              f"{values(trained, found, size):9,.0f}{covered(trained, found, size):9.0%}"
              f"{products(trained, found, size) / 1e6:8.2f} M"
              f"{trained.model.parameter_count:12,}{trained.seconds:9.0f}")  # fmt: skip
    print(
        "\nMultiply-adds for a canvas of another size, with as many looks; regions grow in number\n"
    )
    print(" " * 22 + "".join(f"{f'{side} x {side}':>12}" for side in SIZES))
    for kind, (trained, found) in runs[0].items():
        counts = [products(trained, found, side) for side in SIZES]
        print(f"  {NAMES[kind]:20}" + "".join(f"{number / 1e6:10.2f} M" for number in counts))
    print()
    for line in conclusions(errors, runs[0], settings):
        print(line)


def conclusions(errors, run, settings):
    """Say what the figures mean."""
    mean = {kind: row.mean() for kind, row in errors.items()}
    if "learned" in mean:
        trained, found = run["learned"]
        share = values(trained, found, settings.size) / settings.size**2
        yield f"Learned looks get {share:.0%} of the numbers of a canvas."
        times = mean["random"] / max(mean["learned"], 1e-4)
        remark = "it matters where one looks" if times > 1.5 else "it has not learned where to look"
        yield f"  Random looks make {times:.1f} times their mistakes: {remark}."
    for kind in [kind for kind in ("learned", "soft") if kind in mean]:
        apart = 100 * (mean[kind] - mean["convolution"])
        more = "more" if apart >= 0 else "fewer"
        yield (f"  {NAMES[kind].capitalize()} make {abs(apart):.1f} points {more} mistakes than a "
               "convolutional network.")  # fmt: skip


# ---- Pictures ------------------------------------------------------------------------------------


def draw(run, folder):
    """Draw all there is of a run, {kind: (trained, found)}; return the paths."""
    paths = {}
    for kind, name in (("learned", "looks"), ("soft", "soft")):
        if kind in run:
            paths[name] = f"{folder}/{name}.png"
            trained, found = run[kind]
            draw_looks(trained, found, paths[name])
    for name, picture in (("learning", draw_learning), ("costs", draw_costs)):
        paths[name] = f"{folder}/{name}.png"
        picture(run, paths[name])
    return list(paths.values())


def draw_looks(trained, found, path, count=6):
    """Draw the path of the looks over some images, what each saw, and how sure it made."""
    looks, size = found.looks, found.images.shape[1]
    shown = max(found.last[:count]) + 1
    figure, axes = plt.subplots(
        count, shown + 2, figsize=(2.2 * (shown + 2), 1.7 * count), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    colors = plt.cm.viridis(np.linspace(0.35, 1, shown))
    sure = probabilities(looks.logits)
    for row in range(count):
        last, asked = found.last[row], found.labels[row, -1]
        answer = looks.logits[row, last].argmax()
        canvas, *squares, confidence = axes[row]
        canvas.imshow(found.images[row], cmap="gray", vmin=0, vmax=1, extent=(0, size, size, 0))
        places = (looks.places[row, : last + 1, :2].clip(-1, 1) + 1) / 2 * size
        canvas.plot(places[:, 1], places[:, 0], color="tab:red", linewidth=1)
        for number, (y, x) in enumerate(places):
            side, color = sharp_side(trained, looks.places[row, number], size), colors[number]
            corner = x - side / 2, y - side / 2
            canvas.add_patch(Rectangle(corner, side, side, fill=False, color=color))
            canvas.text(*corner, number + 1, color=color, ha="right", va="top", fontsize="small")
            seen = looks.seen[row, number].reshape(-1, trained.model.sensor.width)
            squares[number].imshow(side_by_side(seen), cmap="gray")
        canvas.set(xlim=(0, size), ylim=(size, 0))
        canvas.set_title(f"{asked}" if answer == asked else f"{asked}, taken for {answer}")
        numbers = np.arange(1, last + 2)
        for others in sure[row, : last + 1].T:
            confidence.plot(numbers, others, color="0.75", zorder=2)
        confidence.plot(numbers, sure[row, : last + 1, asked], color="tab:green", marker="o")
        confidence.set(ylim=(-0.05, 1.05), xticks=range(1, shown + 1), xlim=(0.7, shown + 0.3))
    for number in range(shown):
        axes[0, 1 + number].set_title(f"seen by look {number + 1}")
    axes[0, -1].set_title("confidence")
    axes[-1, -1].set_xlabel("look")
    for ax in axes[:, :-1].flat:
        ax.set_axis_off()
    figure.savefig(path, dpi=100)
    return axes


def side_by_side(squares):
    """The squares of a look, (scales * width, width), in a row, with a line between."""
    width = squares.shape[1]
    top = max(1, squares.max())
    framed = np.pad(
        squares.reshape(-1, width, width), ((0, 0), (0, 0), (0, 1)), constant_values=top
    )
    return np.hstack(list(framed))[:, :-1]


def sharp_side(trained, place, size):
    """Pixels from side to side of the sharpest square of a look, or of the grid of filters."""
    return trained.model.sensor.width if trained.kind != "soft" else float(np.exp(place[2])) * size


def draw_learning(run, path):
    """Draw the error in validation by the time of training."""
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for kind, (trained, _) in run.items():
        _, seconds, errors = zip(*trained.checks, strict=True)
        ax.plot(seconds, 100 * np.array(errors), marker="o", label=NAMES[kind])
    ax.set(xlabel="seconds of training", ylabel="wrong digits in validation, %")
    ax.set_ylim(bottom=0)
    ax.legend()
    figure.savefig(path, dpi=150)


def draw_costs(run, path):
    """Draw what a canvas costs by its size."""
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for kind, (trained, found) in run.items():
        ax.plot(SIZES, [products(trained, found, s) for s in SIZES], marker="o", label=NAMES[kind])
    ax.set(xlabel="side of the canvas", ylabel="multiply-adds for a canvas", yscale="log")
    ax.set_xscale("log", base=2)
    ax.set_xticks(SIZES, map(str, SIZES))
    ax.legend()
    figure.savefig(path, dpi=150)

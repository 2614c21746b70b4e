"""Where to look next: a network that reads a digit by a few looks at a part of the image each.

    python glimpse.py                        a few minutes; tables, and pictures in glimpse/
    python glimpse.py --seeds 3              the same with three seeds, and their means
    python glimpse.py --attention soft       the twin whose looks have a gradient
    python glimpse.py --reward class         learn from the final class alone
    python glimpse.py --stop 0.02            look until it has seen enough: a look has a price
    python glimpse.py --digits 2             read two digits of an image, from left to right
    python glimpse.py --look-back            take a second look at what is remembered

Mnih et al. 2014, "Recurrent models of visual attention". A digit lies somewhere on a canvas, among
pieces of others. The network sees a small square of it sharply and what is around coarsely, takes
that into its state, and chooses the next place; it never sees the canvas as a whole. A choice has
no gradient: it is learned from rewards.

It is compared with the same network that looks at random places and learns as long; with one that
looks at every region in turn; with a soft twin, moved by gradients, which reads every pixel for
that; and with a convolutional network of as many parameters, which sees all of the image.
"""

import concurrent.futures
import os
import sys

try:
    import matplotlib
    import numpy as np  # noqa: F401, which all need

    matplotlib.use("Agg")  # pictures go to files, with or without a screen
    import glimpse_results as results
    from canvases import split
    from command import Parser, check_numbers, errors_in_a_line
    from glimpse_training import canvases, test, train

    import attnc
except ImportError as error:
    sys.exit(f"glimpse.py: {error}; install it with: pip install {error.name}")

# What is compared, for each --attention.
KINDS = {
    "both": ["learned", "random", "scan", "soft", "convolution"],
    "hard": ["learned", "random", "scan", "convolution"],
    "soft": ["soft", "convolution"],
}
# The least value of each number.
LEAST = {
    "looks": 1, "width": 1, "scales": 1, "digits": 1, "size": 16, "pieces": 0, "steps": 16,
    "units": 2, "seed": 0, "seeds": 1, "stop": 0,
}  # fmt: skip


def read_settings():
    parser = Parser(prog="glimpse.py", description="Learn where to look next.")
    add = parser.add_argument
    add("--attention", choices=KINDS, default="both", help="kinds of looks (default: both)")
    add("--looks", type=int, default=3, help="at each digit (default: 3)")
    add("--width", type=int, default=6, help="of what a look sees sharply, in pixels (default: 6)")
    add("--scales", type=int, default=3, help="of a look, each twice as wide (default: 3)")
    add("--reward", choices=["confidence", "class"], default="confidence",
        help="of a look: how much surer it made, or a right class in the end")  # fmt: skip
    add("--stop", type=float, metavar="PRICE", help="let it stop: so much of a digit is a look")
    add("--digits", type=int, default=1, help="on each canvas, left to right (default: 1)")
    add("--look-back", action="store_true", help="attend to the glimpses so far for the class")
    add("--size", type=int, default=32, help="side of a canvas, in pixels (default: 32)")
    add("--pieces", type=int, default=4, help="of other digits on a canvas (default: 4)")
    add("--steps", type=int, default=3000, help="of training for learned looks (default: 3000)")
    add("--units", type=int, default=128, help="of each layer (default: 128)")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--seeds", type=int, default=1, help="so many runs, with this seed and the next ones")
    add("--output", metavar="DIR", default="glimpse", help="for the pictures (default: glimpse)")
    add("--quick", action="store_true", help="small models, a few seconds, for tests")
    settings = parser.parse_args()
    given = {name: value for name, value in vars(settings).items() if value is not None}
    check_numbers(parser, given, LEAST)
    if settings.size % 8:
        parser.error(f"argument --size: must be a multiple of 8, got {settings.size}")
    if settings.width * 2 ** (settings.scales - 1) >= settings.size:
        parser.error("argument --scales: no look may cover the canvas; fewer, or a smaller --width")
    if settings.stop is not None and settings.digits > 1:
        parser.error("argument --stop: goes with one digit, not with --digits")
    settings.checked, settings.tested = 1000, 10_000  # canvases of a validation, of the test
    if settings.quick:
        settings.steps, settings.units = min(settings.steps, 16), 16
        settings.checked = settings.tested = 100
    return settings


def run(kind, settings, seed):
    """Train a model and try it, in a process of its own."""
    attnc.set_num_threads(1)
    trained = train(kind, settings, seed)
    part = canvases(settings, split()["test"])
    error = test(kind, trained.model, settings, part, settings.tested, seed).error
    print(f"seed {seed}, {results.NAMES[kind]}: {error:.1%} wrong after "
          f"{trained.checks[-1][0]:,} steps, {trained.seconds:.0f} s", flush=True)  # fmt: skip
    some = test(kind, trained.model, settings, part, min(500, settings.tested), seed)
    return trained, some._replace(error=error)  # some, to look at; the error is of all


def main():
    settings = read_settings()
    os.makedirs(settings.output, exist_ok=True)
    seeds, kinds = range(settings.seed, settings.seed + settings.seeds), KINDS[settings.attention]
    with concurrent.futures.ProcessPoolExecutor(attnc.get_num_threads()) as pool:
        started = [
            {kind: pool.submit(run, kind, settings, seed) for kind in kinds} for seed in seeds
        ]
        runs = [{kind: job.result() for kind, job in each.items()} for each in started]
    results.report(runs, settings)
    for path in results.draw(runs[0], settings.output):
        print(path)


if __name__ == "__main__":
    with errors_in_a_line("glimpse.py"):
        main()

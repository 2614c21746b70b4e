"""What a clip shows, in words: attention over time and place, and models that read one vector.

    python video.py                          eight minutes; tables, and pictures in video/
    python video.py --seeds 3                with three seeds, and their means
    python video.py --way attention          one model alone
    python video.py --quick                  a few seconds, less training

A digit moves up, and then left, beside another one that lies still: "a five moves up, then left".
The model learns to write that from nine frames. For each word it may look at any region of any
frame, after Yao et al. 2015 ("Describing videos by exploiting temporal structure"), who attend to
frames, and Xu et al. 2015 ("Show, attend and tell"), who attend to regions. Its twins get one
vector of the whole clip: the mean (Venugopalan et al. 2015, "Translating videos to natural
language"), or the last state of a recurrent network. They have as many parameters and see as many
clips. The table says how many captions are right in every word, of digits that were not in
training, and where the model looks.
"""

import os
import pathlib
import sys
import time
from typing import Any, NamedTuple

# Matrices this small gain nothing from threads, which wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import matplotlib
    import numpy as np
    from canvases import split
    from clips import Clips, slots
    from command import Parser, check_numbers, errors_in_a_line
    from training import Course, learn, with_seeds
    from video_model import WAYS, matched, write
    from video_results import draw, report, where

    import attnc
    from attnc.losses import softmax_cross_entropy
except ImportError as error:
    sys.exit(f"video.py: {error}; install it with: pip install {error.name}")

matplotlib.use("Agg")  # the pictures go to files, with or without a screen


class Found(NamedTuple):
    """What became of one model."""

    parameters: int
    seconds: float  # of the processor, in training
    checks: list  # of `training.Check`: the share of captions of the validation that are right
    exact: float  # the same of the test
    words: Any  # shares of words that are right, as in `clips.slots`
    looks: dict  # what `where` returns; empty without attention
    pictures: list  # a clip whose caption is right and one where it is not, for `draw`


# ---- Training and measuring ----------------------------------------------------------------------


def train(way, course, seed, count):
    """Train a captioner; try it in validation and on `count` clips of the test. Return `Found`."""
    digits, rng = split(), np.random.default_rng([seed, 0])
    training = Clips(*digits["training"])
    validation, test = (
        Clips(*digits[part]).draw(np.random.default_rng([seed, n]), number)
        for n, part, number in ((1, "validation", min(count, 200)), (2, "test", count))
    )
    model = matched(way, rng)

    def loss(_):
        clips = training.draw(rng, course.batch)
        before = np.roll(clips.words, 1, axis=1)  # the word that ends a caption also begins it
        logits, pullback = attnc.vjp(model, clips.frames, before)
        value, back_to_logits = attnc.vjp(softmax_cross_entropy, logits, clips.words)
        pullback(*back_to_logits())
        return value

    def check():
        return (write(model, validation.frames)[0] == validation.words).all(axis=1).mean()

    start = time.process_time()
    checks = learn(model, loss, course, check, name=way)
    seconds = time.process_time() - start
    words, weights = write(model, test.frames)
    right = words == test.words
    exact = right.all(axis=1)
    of_slots = np.take_along_axis(right, slots(test.words), axis=1).mean(axis=0)
    looks, pictures = {}, []
    if weights is not None:
        looks = where(weights, test)
        examples = [np.flatnonzero(some)[:1] for some in (exact, ~exact)]
        pictures = [[a[n[0]] for a in (test.frames, weights, words, test.words)]
                    if len(n) else None for n in examples]  # fmt: skip
    return Found(model.parameter_count, seconds, checks, exact.mean(), of_slots, looks, pictures)


def run(seed, ways, course, count):
    return {way: train(way, course, seed, count) for way in ways}


# ---- The command ---------------------------------------------------------------------------------


def main():
    parser = Parser(prog="video.py", description="Say in words what a clip shows.")
    add = parser.add_argument
    add("--way", choices=WAYS, help="one model alone (default: all of them)")
    add("--steps", type=int, default=2500, help="of training, each model (default: 2500)")
    add("--batch", type=int, default=32, help="clips of a step (default: 32)")
    add("--rate", type=float, default=0.004, help="of learning, at its highest (default: 0.004)")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--seeds", type=int, default=1, help="so many runs, with this seed and the next ones")
    add("--output", metavar="DIR", default="video", help="for the pictures (default: video)")
    add("--quick", action="store_true", help="a few steps, for tests")
    args = parser.parse_args()
    least = {"steps": 1, "batch": 1, "rate": 1e-9, "seed": 0, "seeds": 1}
    check_numbers(parser, vars(args), least)
    os.makedirs(args.output, exist_ok=True)
    steps, count = (min(args.steps, 4), 20) if args.quick else (args.steps, 1000)

    seeds, ways = range(args.seed, args.seed + args.seeds), [args.way] if args.way else WAYS
    runs = with_seeds(run, seeds, ways, Course(steps, args.batch, args.rate), count)
    report(runs, seeds)
    if "attention" in runs[0]:
        for name, chosen in zip(["right", "wrong"], runs[0]["attention"].pictures, strict=True):
            if chosen:
                path = pathlib.Path(args.output, f"{name}.png")
                draw(chosen, path)
                print(f"\n{path}", end="")
        print()


if __name__ == "__main__":
    with errors_in_a_line("video.py"):
        main()

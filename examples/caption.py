"""A picture in words: what attention is for where a caption has more than one thing to say.

    python caption.py                            some minutes; pictures in caption/
    python caption.py --seeds 3                  with three seeds, and their means
    python caption.py --images DIR --captions FILE     learn from pictures of your own
    python caption.py --stamps fr                from the stamps of Tux Paint, captions in French

Scenes of one to four handwritten digits are described as scenes.py says: "an eight left of a three
above a one". Three models learn it from the same pictures, with as many parameters and steps:

- one vector of the whole picture for all words (Vinyals et al. 2015, "Show and tell");
- soft attention: each word has a mean of all regions (Xu et al. 2015, "Show, attend and tell");
- hard attention: each word looks at one region, which REINFORCE teaches it to choose (the same).

The report says how many captions are exact, what one wrong word does to those after it, and where a
wrong word looked. A FILE has a line for each picture: its name in DIR, a tab, its caption.
"""

import os
import sys
import textwrap
from typing import Any, NamedTuple

# Matrices this small gain nothing from threads, which wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import caption_pictures
    import caption_results as results
    import numpy as np
    from canvases import split
    from caption_learning import COURSE, train
    from command import Parser, check_numbers, errors_in_a_line
    from scenes import MOST, Scenes
    from training import with_seeds
except ImportError as error:
    sys.exit(f"caption.py: {error}; install it with: pip install {error.name}")

STEPS = COURSE.steps
KINDS = {"all": ["none", "soft", "hard"], "soft": ["soft"], "hard": ["hard"], "none": ["none"]}


class Run(NamedTuple):
    """A model that has been trained, and what it says of the test."""

    seed: int
    model: Any
    seconds: float
    found: list  # of `results.Found`, one for each batch of the test


def sources(settings):
    """What to learn from; {name: batch} of the test; and captions of the test without a model."""
    source: Any
    if settings.stamps or settings.images:
        pairs = (
            caption_pictures.read_stamps(settings.stamps)
            if settings.stamps
            else caption_pictures.read_captions(settings.images, settings.captions)
        )
        training, _, test = caption_pictures.split(pairs)
        source = caption_pictures.Pictures(training)
        batch = caption_pictures.Pictures(test, vocabulary=source.vocabulary).batch()
        return source, {"held out": batch}, source.without_looking(batch)
    parts, rng = split(), np.random.default_rng(settings.seed)
    source, test = Scenes(*parts["training"]), Scenes(*parts["test"])
    batches = {
        f"{n} digit{'s' * (n > 1)}": test.make(rng, [n] * settings.tested)
        for n in range(1, MOST + 1)
    }
    return source, batches, {}


def run(job, settings):
    """Train a model of one kind with one seed, and try it."""
    seed, kind = job
    source, batches, _ = sources(settings)
    course = COURSE._replace(steps=settings.steps)
    model, checks = train(kind, source, course, seed, settings.everywhere, size=settings.size)
    found = [results.examine(model, source, batch) for batch in batches.values()]
    return Run(seed, model, checks[-1].seconds, found)


def read_settings():
    parser = Parser(prog="caption.py", description="Captions by attention, and without.")
    add = parser.add_argument
    add("--attention", choices=KINDS, default="all", help="which models (default: all)")
    add("--images", metavar="DIR", help="learn from the pictures in this folder")
    add("--captions", metavar="FILE", help="and from these lines: name, tab, caption")
    add("--stamps", metavar="LANGUAGE", help="learn from the stamps of Tux Paint: en, fr, de, ...")
    add("--steps", type=int, default=STEPS, help=f"of training (default: {STEPS})")
    add("--everywhere", type=float, metavar="ALPHA", default=0.0,
        help="weight of soft attention's wish to look at all regions (default: 0)")  # fmt: skip
    add("--size", type=int, help="of the states (default: for as many parameters)")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--seeds", type=int, default=1, help="so many runs, with this seed and the next ones")
    add("--output", metavar="DIR", default="caption", help="for the pictures (default: caption)")
    add("--quick", action="store_true", help="few steps, for tests")
    settings = parser.parse_args()
    given = {name: value for name, value in vars(settings).items() if value is not None}
    check_numbers(parser, given, {"steps": 1, "size": 2, "seed": 0, "seeds": 1, "everywhere": 0})
    if bool(settings.images) != bool(settings.captions):
        parser.error("argument --images: DIR goes with --captions FILE, and the other way round")
    if settings.images and settings.stamps:
        parser.error("argument --stamps: has its own pictures, and goes without --images")
    settings.tested = 500
    if settings.quick:
        settings.steps, settings.tested = min(settings.steps, 8), 10
    return settings


def main():
    settings = read_settings()
    source, batches, others = sources(settings)
    os.makedirs(settings.output, exist_ok=True)
    seeds, kinds = range(settings.seed, settings.seed + settings.seeds), KINDS[settings.attention]
    tested = ", ".join(f"{len(batch.captions)}, {name}" for name, batch in batches.items())
    print(f"{settings.steps} steps of {COURSE.batch} pictures; to test: {tested}")
    jobs = [(seed, kind) for kind in reversed(kinds) for seed in seeds]  # the longest first
    done = dict(zip(jobs, with_seeds(run, jobs, settings), strict=True))
    runs = {kind: [done[seed, kind] for seed in seeds] for kind in kinds}
    results.report(runs, source, batches, others)
    if not others:
        results.report_mistakes(runs)
        for text in results.conclude(runs, list(batches)):
            print(textwrap.fill(text, 98))
    results.samples(runs, source, batches)
    print()
    for path in results.draw(runs, batches, settings.output):
        print(path)


if __name__ == "__main__":
    with errors_in_a_line("caption.py"):
        main()

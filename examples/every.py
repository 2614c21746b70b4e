"""Run every example in a short form, and hold what it reports against a floor.

    python every.py                          all of them, two at a time; some minutes
    python every.py --only combined scale    these
    python every.py --list                   their commands and floors

A floor is a figure that the example has to reach, or by how much it has to be better than its twin
without attention, in the same run. Seeds are fixed, and every example has one thread, so that a run
gives the same figures on the same machine. The output of what fails is printed.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from typing import NamedTuple

from command import Parser

FOLDER = pathlib.Path(__file__).parent


class Floor(NamedTuple):
    """A figure of a report: the only group of a pattern, in the first line that has it.

    It is to be `least` or more, or `most` or less; where `twin` is a pattern too, its figure is
    that of the model to compare with: the differences count.
    """

    name: str
    pattern: str
    least: float | None = None
    most: float | None = None
    twin: str | None = None

    def __str__(self):
        bound = f">= {self.least:g}" if self.most is None else f"<= {self.most:g}"
        return f"{self.name}{' less its twin' if self.twin else ''} {bound}"

    def read(self, report):
        """The figure, less that of the twin."""
        return number(self.pattern, report) - (number(self.twin, report) if self.twin else 0)

    def holds(self, figure):
        return figure >= self.least if self.most is None else figure <= self.most


class Example(NamedTuple):
    command: str  # a file of this folder and its options, without --output
    floors: list
    output: str = "folder"  # or "picture", or "" where nothing is written
    needs: str = "attnc"  # a package without which it is left out


def number(pattern, report):
    """The number that the group of a pattern finds."""
    found = re.search(pattern, report, re.MULTILINE)
    if found is None:
        raise ValueError(f"the report has nothing like {pattern!r}")
    return float(found[1].replace(",", ""))


def beside(name, least):
    """The floor of a structure of combined.py: how much better it is than without, in points."""
    line = rf"^{re.escape(name)}"
    return Floor(name, rf"{line}.*?([\d.]+)%", least, twin=rf"{line}.*\n +without.*?([\d.]+)%")


WORDS = r"^ +all +[\d,]+ +[\d.]+% +([\d.]+)%"  # right words of held-out sources, in percent
SECOND = r" *[\d,]+ +([\d.]+)%"  # the second number of a line, after that of parameters
THIRD = r" *[\d.]+ +[\d.]+ +([\d.]+)"
LAST = r"d_k = 1024.*?([\d.e+-]+)$"  # the last column of the line
EXAMPLES = [
    Example("translate.py --steps 300", [Floor("right words", WORDS, 60)]),  # 46 without attention
    Example("transformer_translate.py --steps 300", [Floor("right words", WORDS, 60)]),
    Example(
        "why_attention.py --steps 400",
        [
            Floor(
                "sentences without a mistake",
                r"^with attention: ([\d.]+)%",
                30,
                twin=r"^without: one vector: ([\d.]+)%",
            )
        ],
    ),
    Example(
        "language_model.py --steps 200",
        [
            Floor(
                "bits a character",
                r"([\d.]+)  this model",
                most=-1,
                twin=r"([\d.]+)  the frequency of each",
            )
        ],
    ),
    Example(
        "pronoun.py",
        [
            Floor(
                "right answers",
                r"^  all .*?([\d.]+)% +[\d.]+%$",
                15,
                twin=r"^  all .*? ([\d.]+)%$",
            )
        ],
    ),
    Example(
        "combined.py",
        [
            beside("hierarchical: words, then sentences", 20),
            beside("attention on attention", 4),
            beside("attention over attention", 20),
            beside("local and global with a gate", 4),
            beside("soft within a hard-chosen region", 20),
            beside("self-attention inside the encoder", 10),
            beside("a look forward, then a look back", 10),
            beside("coverage in the score", 1),
            beside("coverage by fertility", 1),
        ],
        "picture",
    ),
    Example(
        "global_vs_local.py --steps 250",
        [
            Floor("exact, global", r"^global, general +[\d.]+ +([\d.]+)%", 60),
            Floor("exact, local-p", r"^local-p, dot +[\d.]+ +([\d.]+)%", 30),
            Floor("alignment error", r"^global, general +[\d.]+ +[\d.]+% +([\d.]+)", most=0.12),
        ],
        "picture",
    ),
    Example(
        "scale.py",
        [
            Floor(
                "gradient through the softmax",
                LAST,
                0.03,
                twin=rf"^scores as they are\n(?:.*\n)*?.*{LAST}",
            )
        ],
        "picture",
    ),
    Example(
        "soft_vs_hard.py --steps 400",
        [
            Floor("right answers, soft", r"^soft .*?([\d.]+)%", 85),
            Floor(
                "right answers, leave-one-out and no baseline",
                r"^  leave-one-out.*?([\d.]+)%",
                20,
                twin=r"^REINFORCE .*?([\d.]+)%",
            ),
        ],
        "picture",
    ),
    Example(
        "glimpse.py --steps 900 --attention hard",
        [
            Floor(
                "wrong digits, learned looks",
                r"^  learned looks +([\d.]+)%",
                most=-20,
                twin=r"^  random looks +([\d.]+)%",
            )
        ],
    ),
    Example(
        "caption.py --attention soft --steps 1500",  # one vector: 2 %
        [
            Floor(
                "exact captions of three digits",
                r"^soft attention .*\) +[\d,]+ +[\d.]+% +[\d.]+% +([\d.]+)%",
                30,
            )
        ],
    ),
    Example(
        "entail.py --nouns built-in --steps 1500",
        [
            Floor(
                "right, seen pairs, decomposable and two LSTMs",
                rf"^decomposable {SECOND}",
                10,
                twin=rf"^two LSTMs {SECOND}",
            )
        ],
        "picture",
    ),
    Example(
        "align.py --seeds 1 --steps 250",
        [
            Floor(
                "alignment error, dates, Luong's order",
                r"^Luong +en → fr +[\d.]+% +[\d.]+% +[\d.]+% +([\d.]+)",
                most=0.15,
            ),
            Floor("entries of the dictionary", r"^Dictionary of Luong: .*, ([\d.]+)% right", 90),
        ],
        "picture",
    ),
    Example(
        "summarise.py --steps 300",
        [
            Floor(
                "ROUGE-L, over the first words", r"over the first words of the text: \+([\d.]+)", 2
            ),
            Floor(
                "ROUGE-L, with copying and without",
                rf"^copying  {THIRD}",
                8,
                twin=rf"^no copying {THIRD}",
            ),
        ],
        "picture",
    ),
    Example(
        "listen.py --kinds soft none --steps 300 --no-recorded",
        [
            Floor(
                "right words, unseen sequences",
                r"^soft attention .*? ([\d.]+) +[\d.]+ +\d+$",
                20,
                twin=r"^no attention .*? ([\d.]+) +[\d.]+ +\d+$",
            )
        ],
        "picture",
    ),
    Example(
        "video.py --steps 600",
        [
            Floor(
                "captions without a mistake",
                r"^attention +([\d.]+)%",
                8,
                twin=r"^mean +([\d.]+)%",
            )
        ],
    ),
    *(
        Example(
            f"bridges/with_{library}.py",
            [Floor("loss", r"([\d.]+) at last", most=-1.5, twin=r"([\d.]+) at first")],
            output="",
            needs=library,
        )
        for library in ("attnc", "torch", "jax", "autograd")
    ),
]


# ---- Running -------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    seconds: float
    figures: list  # of each floor; empty if it failed
    trouble: str  # what is wrong, or nothing
    report: str


def run(example):
    """Run an example, and read its figures."""
    file, *options = example.command.split()
    environment = os.environ | {"ATTNC_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if example.output:
            name = "output.png" if example.output == "picture" else "output"
            options += ["--output", os.path.join(folder, name)]
        done = subprocess.run(
            [sys.executable, FOLDER / file, *options],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    seconds, report = time.perf_counter() - start, done.stdout + done.stderr
    if done.returncode:
        return Outcome(seconds, [], f"exit status {done.returncode}", report)
    try:
        figures = [floor.read(done.stdout) for floor in example.floors]
    except ValueError as error:
        return Outcome(seconds, [], str(error), report)
    pairs = zip(example.floors, figures, strict=True)
    below = [str(floor) for floor, figure in pairs if not floor.holds(figure)]
    return Outcome(seconds, figures, ", ".join(f"not {each}" for each in below), report)


def main():
    parser = Parser(prog="every.py", description="Run every example in a short form.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the examples with these names")
    parser.add_argument("--list", action="store_true", help="print commands and floors alone")
    parser.add_argument("--jobs", type=int, default=2, help="so many at a time (default: 2)")
    args = parser.parse_args()
    known = {each.command.split()[0].removesuffix(".py") for each in EXAMPLES}
    if unknown := sorted(set(args.only or ()) - known):
        parser.error(f"argument --only: no example {unknown[0]!r}; there are {sorted(known)}")
    if args.jobs < 1:
        parser.error(f"argument --jobs: must be 1 or more, got {args.jobs}")
    chosen = [
        each
        for each in EXAMPLES
        if not args.only or each.command.split()[0].removesuffix(".py") in args.only
    ]
    failed = []
    for example in chosen:
        if not find_spec(example.needs):
            print(f"{example.command}: left out, for {example.needs} is not installed")
    chosen = [example for example in chosen if find_spec(example.needs)]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        outcomes = [None] * len(chosen) if args.list else pool.map(run, chosen)
        for example, outcome in zip(chosen, outcomes, strict=True):
            print(example.command + (f", {outcome.seconds:.0f} s" if outcome else ""))
            for n, floor in enumerate(example.floors):
                figure = f": {outcome.figures[n]:g}" if outcome and outcome.figures else ""
                print(f"    {floor}{figure}")
            if outcome and outcome.trouble:
                failed.append(example.command)
                print(f"    FAILED: {outcome.trouble}\n{outcome.report}", flush=True)
    if failed:
        sys.exit(f"{len(failed)} of {len(chosen)} failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()

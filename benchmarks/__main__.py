"""Compare attnc with PyTorch, JAX and plain NumPy, and with what the machine can do.

    python -m benchmarks                        everything, a quarter of an hour
    python -m benchmarks --kinds decode         some kinds; prints the tables
    python -m benchmarks --list                 the kinds
    python -m benchmarks --isa avx2             nothing newer than AVX2, on any machine
    python -m benchmarks --no-run --readme      write the tables anew from what is measured

A run of everything writes its figures beside this file, results-avx2.json or by what instruction
set it was, and RESULTS.md of all that are there. A run of a part, or a quick one, would overwrite
better figures: it is printed only, unless --out says where to write.
"""

import argparse
import json
import os
import pathlib
import sys
from dataclasses import replace

from benchmarks.cases import KINDS
from benchmarks.contenders import PEERS
from benchmarks.driver import QUICK, ROOT, Settings, run
from benchmarks.isa import SWITCHES
from benchmarks.table import replace_summary, results_page

HERE = pathlib.Path(__file__).parent
WIDEST_FIRST = ("avx512", "avx2", "neon", "scalar")


def arguments(args):
    description, _, examples = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="print the kinds and their cases")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, metavar="KIND", help="only these")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS,
        metavar="NAME",
        help=f"only these of {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="of every contender (default: %(default)s)",
    )
    parser.add_argument(
        "--isa",
        choices=SWITCHES,
        help="the most that any contender may use (default: what the processor has)",
    )
    parser.add_argument("--rounds", type=int, help=f"(default: {Settings.rounds})")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: to try it out")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="where to write")
    parser.add_argument("--no-run", action="store_true", help="measure nothing: read what is there")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="write the summary in README.md and its translations, too",
    )
    options = parser.parse_args(args)
    if options.threads < 1 or (options.rounds is not None and options.rounds < 1):
        parser.error("--threads and --rounds must be 1 or more")
    return options


def main(args=None):
    options = arguments(args)
    if options.list:
        for kind in KINDS.values():
            print(f"{kind.name:15} {kind.title} ({kind.axes})")
            for case in kind.cases:
                print(f"{'':15} {case.label}, {case.passes}")
        return
    out = options.out or HERE
    part = options.kinds or options.peers is not None or options.quick
    if options.no_run:
        reports = all_reports(out)
    else:
        reports = [report := measure(options)]
        if options.out or not part:
            out.mkdir(parents=True, exist_ok=True)
            path = out / f"results-{report['instructions']['attnc']}.json"
            path.write_text(as_json(report), encoding="utf-8")
            reports = all_reports(out)
    page = results_page(reports)
    print(page, end="")
    if options.no_run or options.out or not part:
        (out / "RESULTS.md").write_text(page, encoding="utf-8")
    if options.readme:
        for readme in sorted(ROOT.glob("README*.md")):  # in every language
            text = readme.read_text(encoding="utf-8")
            readme.write_text(replace_summary(text, reports[0]), encoding="utf-8")


def all_reports(folder):
    """What was measured, one report for each instruction set, those of the widest vectors first."""
    paths = [folder / f"results-{name}.json" for name in WIDEST_FIRST]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    if not found:
        sys.exit(f"no results in {folder}: run without --no-run first")
    return found


def measure(options):
    settings = QUICK if options.quick else Settings()
    if options.rounds:
        settings = replace(settings, rounds=options.rounds)
    return run(
        [KINDS[name] for name in options.kinds or KINDS],
        settings,
        options.threads,
        PEERS if options.peers is None else options.peers,
        report=lambda text: print(text, file=sys.stderr, flush=True),
        isa=options.isa,
    )


def as_json(report):
    """JSON with one line for each case: easy to compare with the run before."""
    head = json.dumps({key: value for key, value in report.items() if key != "results"}, indent=1)
    lines = ",\n  ".join(json.dumps(record) for record in report["results"])
    return f'{head[:-2]},\n "results": [\n  {lines}\n ]\n}}\n'


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; nothing was written")

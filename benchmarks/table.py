"""From figures to Markdown: RESULTS.md, and the summary in README.md."""

from benchmarks.cases import KINDS
from benchmarks.figures import Figures, Mean, digits, duration, limits
from benchmarks.goals import goals_of, goals_of_mean, verdicts

INTRODUCTION = """\
# Benchmarks

Written by `python -m benchmarks`, from the raw figures in {files}.

How it was measured:

- Every contender runs in a process of its own, with the same inputs and as many threads.
- They take turns, in {rounds} rounds of {seconds:g} s ({rounds_if_long} where a call takes over
  {long:g} s), and pause after each turn. Times are medians of the rounds; compiling and the first
  {warm:g} s of a turn are not counted. Before the rounds all results are compared with attnc's.
- What a library may use of the processor is the same for all, and is what each reports.
- GFLOP/s count what the formula needs: four operations for each pair of query and key that is
  allowed and each of D channels, 3.5 times as many with backward.
- The limits of the machine are measured in the same rounds: multiply-adds on registers alone, and
  the sum of an array of 1 GiB.
- × is how many times as fast attnc is.
- Extra memory is the peak during one call, outputs and gradients included, inputs not.
"""


def table(header, rows):
    """A Markdown table. A column that is empty in every row is left out."""
    columns = [(title, cells) for title, *cells in zip(header, *rows, strict=True) if any(cells)]
    titles = [title for title, _ in columns]
    lines = [titles, ["---"] * len(titles), *zip(*(cells for _, cells in columns), strict=True)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def cell(value, write):
    """A cell, empty where nothing was measured."""
    return "" if value is None else write(value)


def times(ratio):
    return f"{ratio:.2f} ×"


def best(figures):
    """The cell of the ratio to the fastest peer."""
    name = figures.best_peer()
    return f"{times(figures.ratio(name))} {name}" if name else ""


def memory(figures, names):
    """The cell of the extra memory of several contenders, in megabytes."""
    used = [cell(figures.memory(name), digits_of_memory) or "–" for name in names]
    return " / ".join(used) if any(each != "–" for each in used) else ""


def digits_of_memory(megabytes):
    # The system counts pages in batches: less than 0.1 MB means nothing.
    return f"{megabytes:.0f}" if megabytes >= 10 else f"{megabytes:.1f}"


# ---- RESULTS.md ----


def results_table(kind, results, isa):
    """The table of a kind: a row for each case. The goals are those with an instruction set."""
    names = ("attnc", *kind.peers)
    measured = [name for name in names if any(each.memory(name) is not None for each in results)]
    both = len({each.case.backward for each in results}) > 1
    header = [
        kind.axes,
        "pass",
        *names,
        kind.rate or "rate",
        f"% of {kind.limit}",
        "× best other",
        "× PyTorch",
        "extra MB: " + " / ".join(measured),
        "goals",
    ]
    rows = [
        [
            each.case.label,
            each.case.passes if both else "",
            *(cell(each.seconds(name), duration) for name in names),
            cell(each.rate(), digits),
            cell(each.percent(), "{:.1f}".format),
            best(each),
            cell(each.ratio("PyTorch"), times),
            memory(each, measured),
            verdicts(goals_of(kind.name, each.case, isa), each),
        ]
        for each in results
    ]
    if kind.mean:
        mean = Mean(results)
        rows.append(
            [
                "geometric mean",
                *[""] * (len(names) + 3),
                cell(mean.ratio_to_best(), times),
                cell(mean.ratio("PyTorch"), times),
                "",
                verdicts(goals_of_mean(kind.name, isa), mean),
            ]
        )
    return table(header, rows)


def threads_table(results):
    """The table of attnc with more and more threads."""
    names = list(results[0].record["contenders"])
    first, *others = names
    header = ["B, H, T, D", "pass", *names, *(f"× with {name}" for name in others)]
    rows = [
        [
            each.case.label,
            each.case.passes,
            *(duration(each.seconds(name)) for name in names),
            *(times(each.seconds(first) / each.seconds(name)) for name in others),
        ]
        for each in results
    ]
    return table(header, rows)


def left_out(results):
    """Which contenders are missing in which cases, and why: lines of a list."""
    cases = {}
    for each in results:
        for name, reason in each.record["left_out"].items():
            cases.setdefault((name, reason), []).append(f"{each.case.label} {each.case.passes}")
    return "".join(
        f"- left out: {name} in {'; '.join(labels)} ({reason})\n"
        for (name, reason), labels in cases.items()
    )


def section(kind, results, isa):
    """A kind: heading, note, table, and who is missing."""
    threads = kind.name == "threads"
    body = threads_table(results) if threads else results_table(kind, results, isa)
    parts = [f"### {kind.title}\n", kind.note + "\n" if kind.note else "", body, left_out(results)]
    return "\n".join(part for part in parts if part)


def machine_table(report):
    """What was measured on what, with which versions."""
    machine, versions = report["machine"], report["versions"]

    def about(name):
        """The version of a contender, and the instruction set that it reports."""
        said = versions.get(name), report["instructions"].get(name)
        return ", ".join(filter(None, said))

    rows = [
        ["processor", f"{machine['processor']}, {machine['processors']} logical cores"],
        ["threads", str(report["threads"])],
        ["system", machine["system"]],
        ["date", report["date"]],
        *(
            [name, about(name)]
            for name in ("Python", "NumPy", "PyTorch", "torch.compile", "JAX", "attnc")
            if name in versions
        ),
        ["C compiler of the limits", about("machine")],
        *(
            [name, f"{digits(value)} {unit}"]
            for (name, unit), value in limits(report["results"]).items()
        ),
        *(["left out", f"{name} ({reason})"] for name, reason in report["left_out"].items()),
    ]
    return table(["", "measured on"], [row for row in rows if row[1]])


def threads(report):
    count = report["threads"]
    return "1 thread" if count == 1 else f"{count} threads"


def results_page(reports):
    """The whole of RESULTS.md: a part for each instruction set."""
    files = [f"results-{report['instructions']['attnc']}.json" for report in reports]
    introduction = INTRODUCTION.format(
        files=" and ".join(f"[{name}]({name})" for name in files), **reports[0]["settings"]
    )
    return "\n".join([introduction, *map(part, reports)])


def part(report):
    """One run: the machine, and the kinds of cases."""
    by_kind = {}
    for record in report["results"]:
        by_kind.setdefault(record["kind"], []).append(Figures(record))
    isa = report["instructions"]["attnc"]
    sections = [section(KINDS[name], results, isa) for name, results in by_kind.items()]
    return "\n".join([f"## With {isa}\n", machine_table(report), *sections])


# ---- README.md ----

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
# The most telling cases: kind, label, with backward or not.
SUMMARY = (
    ("forward", "1, 1, 8, 16", False),
    ("forward", "8, 8, 128, 64", False),
    ("forward", "1, 8, 2048, 64", False),
    ("backward", "1, 1, 8, 16", True),
    ("backward", "8, 8, 128, 64", True),
    ("backward", "1, 8, 2048, 64", True),
    ("backward", "1, 8, 2048, 64 causal", True),
    ("padding", "4, 8, 512, 64 lengths 512, 256, 128, 64", True),
    ("decode", "1, 32, 4096, 128", False),
    ("additive", "64, 32, 32, 256", True),
    ("float64", "1, 8, 1024, 64", True),
    ("recurrent", "encoder 32, 30, 30, 256, 256", True),
    ("recurrent", "decoder 32, 30, 30, 256, 256", True),
    ("recurrent", "training 64, 30, 30, 256, 512", True),
)
WORDS = {
    "dot_product": "dot product",
    "additive": "additive",
    "encoder": "GRU encoder",
    "decoder": "GRU decoder with additive attention",
    "training": "step of training a translator",
}


def summary_row(figures):
    kind, case = figures.kind, figures.case
    special = f", {kind.name}" if kind.name in ("decode", "padding", "float64") else ""
    return [
        WORDS[case.mechanism] + special,
        f"{case.label.removeprefix(case.mechanism + ' ')} ({kind.axes})",
        case.passes,
        cell(figures.seconds(), duration),
        cell(figures.rate(), lambda rate: f"{digits(rate)} {kind.rate}"),
        cell(figures.percent(), "{:.0f}".format),
        best(figures),
    ]


def summary(report):
    """The text between the marks in README.md."""
    results = [Figures(record) for record in report["results"]]
    found = {(each.kind.name, each.case.label, each.case.backward): each for each in results}
    rows = [summary_row(found[key]) for key in SUMMARY if key in found]
    if not rows:
        raise ValueError("the results hold none of the cases of the summary")
    header = ["what", "shape", "pass", "attnc", "rate", "% of the limit", "× best other"]
    versions, machine = report["versions"], report["machine"]
    others = [
        f"{name} {versions[name]}" for name in ("PyTorch", "JAX", "NumPy") if name in versions
    ]
    measured = (
        f"Measured on {report['date']}: {machine['processor']}, {threads(report)}; attnc "
        f"{versions['attnc']} ({report['instructions']['attnc']}), {', '.join(others)}. The limit "
        "is the machine's, measured in the same run: the peak of fused multiply-adds, or the speed "
        "of reading memory. × is how many times as fast attnc is. `make bench` repeats it; all of "
        "it is in [benchmarks/RESULTS.md](benchmarks/RESULTS.md)."
    )
    return f"{table(header, rows)}\n{measured}\n"


def replace_summary(text, report):
    """The text of README.md with the summary of these results.

    Raises
    ------
    ValueError
        If the marks are not there, once each and in this order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end or begin in after or begin in rest.partition(END)[0]:
        raise ValueError(f"README.md must have {BEGIN} and then {END}, once each")
    return f"{before}{begin}\n\n{summary(report)}\n{end}{after}"

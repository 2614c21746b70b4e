"""The benchmarks: that they run, check what they time, and write what they measured. No timings."""

import importlib.util
import json
import pathlib
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from attnc import _core

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import contenders, driver, isa, machine, mca, table, worker  # noqa: E402
from benchmarks.cases import (  # noqa: E402
    KINDS,
    ROWS,
    Case,
    additive,
    as_case,
    both,
    dot,
    recurrent,
    transformer,
)
from benchmarks.figures import Figures, Mean, digits, duration  # noqa: E402
from benchmarks.goals import LIBRARIES, Goal, goals_of, goals_of_mean  # noqa: E402

SETTINGS = replace(driver.QUICK, seconds=0.001, pause=0)
PROC = pathlib.Path("/proc/self/clear_refs").exists()
COMPILER = shutil.which("cc")

TINY = {
    "forward": (dot(1, 1, 8, 16), dot(1, 2, 9, 4, causal=True)),
    "backward": (dot(1, 1, 8, 16, backward=True), dot(1, 2, 9, 4, causal=True, backward=True)),
    "padding": both(dot(4, 2, 8, 4, lengths=(8, 4, 2, 1))),
    "packed": both(
        dot(3, 2, 8, 4, lengths=(8, 1, 3), packed=True),
        dot(3, 2, 8, 4, lengths=(8, 1, 3), packed=True, causal=True),
    ),
    "additive": both(additive(2, 3, 5, 4)),
    "cosine": both(Case("cosine", 2, 2, 7, 7, 4)),
    "multiplicative": both(Case("multiplicative", 2, 2, 7, 7, 4)),
    "float64": both(dot(1, 2, 9, 4, dtype="float64")),
    "threads": both(dot(1, 1, 8, 16)),
    "growth": (dot(1, 1, 256, 16, backward=True, timed=False),),
}

# Recurrences, whole layers and models, which NumPy has not.
MODELS = {
    "monotonic": both(Case("monotonic", 3, 1, 4, 5, 1)),
    "local": both(
        Case("local", 1, 2, 9, 9, 4, width=2, centers="monotonic"),
        Case("local", 1, 2, 5, 30, 4, width=2, centers="random"),
    ),
    "multihead": (
        transformer("multihead", 2, 9, 8, 2),
        transformer("multihead", 2, 9, 8, 2, weights=True),
    ),
    "layer": (
        transformer("encoder_layer", 2, 9, 8, 2),
        transformer("encoder_layer", 2, 9, 8, 2, dropout=0.1),
    ),
    "transformer": (transformer("transformer", 2, 9, 8, 2, layers=1, dropout=0.1),),
    "generation": (transformer("generation", 1, 9, 8, 2, layers=1),),
    "jvp": tuple(replace(dot(1, 2, 9, 4), tangents=which) for which in ("all", "query")),
    "halves": tuple(dot(1, 2, 9, 4, dtype=d, backward=True) for d in ("float16", "bfloat16")),
}

# attnc by other ways, which have to give the same.
WAYS = {
    "jvp": (MODELS["jvp"], ["attnc forward"]),
    "halves": (MODELS["halves"], ["attnc in float32"]),
    "overhead": (both(dot(1, 1, 8, 16)), KINDS["overhead"].peers),
    "bridges": (
        (
            dot(1, 2, 9, 4, backward=True),
            *(
                replace(recurrent(mechanism, 2, 4, 3, 5, 6), backward=True)
                for mechanism in ("encoder", "decoder", "training")
            ),
            transformer("multihead", 2, 9, 8, 2),
        ),
        ["attnc in PyTorch"],
    ),
}
LIBRARY = {"attnc in PyTorch": "torch", "attnc in JAX": "jax", "attnc in autograd": "autograd"}


def run(names, peers, **options):
    kinds = [replace(KINDS[name], cases=TINY[name]) for name in names]
    return driver.run(kinds, SETTINGS, 2, peers, **options)


# ---- a run ----

PADDED = "attnc padded", "attnc padded keys"
RESULTS = f"results-{_core.get_isa()}.json"


@pytest.fixture(scope="module")
def report():
    return run(TINY, ["NumPy", *PADDED])


def test_everything_is_measured(report):
    assert len(report["results"]) == sum(map(len, TINY.values()))
    for record in report["results"]:
        names = {"threads": ("1 thread", "2 threads"), "packed": ("attnc", *PADDED)}.get(
            record["kind"], ("attnc", "NumPy")
        )
        timed = record["contenders"]
        assert tuple(timed) == (names if record["case"]["timed"] else ())
        assert all(len(each["seconds"]) == SETTINGS.rounds for each in timed.values())
        assert all(seconds > 0 for each in timed.values() for seconds in each["seconds"])
        assert tuple(record["memory"]) == (names if PROC and record["kind"] != "threads" else ())
        limited = KINDS[record["kind"]].limit and record["case"]["timed"] and COMPILER
        assert bool(record["limit"]) == bool(limited)


@pytest.mark.skipif(not PROC, reason="the system does not say how much memory is in use")
def test_memory_of_outputs_counts(report):
    figures = Figures(report["results"][-1])
    outputs = 4 * 256 * 16 * 4 / 1e6
    scores = 256 * 256 * 4 / 1e6
    assert outputs / 2 < figures.memory() < 100 * outputs  # the system counts in batches of pages
    assert figures.memory("NumPy") > scores


def test_the_page(report):
    page = table.results_page([report])
    assert page.count("\n### ") == len(TINY)
    assert "| 1, 2, 9, 4 causal |" in page
    assert "| 4, 2, 8, 4 lengths 8, 4, 2, 1 | forward + backward |" in page
    assert "| 3, 2, 8, 4 packed, 12 rows | forward |" in page
    assert "× with 2 threads" in page
    assert "| left out | PyTorch (not asked for) |" in page
    assert "None" not in page and str(ROOT) not in page
    assert page.endswith("|\n")


@pytest.fixture
def without_memory(monkeypatch):
    """Runs are over sooner."""
    monkeypatch.setattr(driver, "measure_memory", lambda *args: None)


@pytest.mark.parametrize(("name", "library"), [("PyTorch", "torch"), ("JAX", "jax")])
def test_peer(name, library, without_memory):
    """That each computes what attnc computes is what the run itself checks."""
    if not importlib.util.find_spec(library):
        pytest.skip(f"{name} is not installed")
    kinds = [
        replace(KINDS[kind], cases=TINY[kind][-1:], limit=None)
        for kind in TINY
        if kind not in ("forward", "threads", "growth")  # part of backward; no peers; not timed
        and name in KINDS[kind].peers
    ]
    kinds += [
        replace(KINDS[kind], cases=cases, limit=None)
        for kind, cases in MODELS.items()
        if name in KINDS[kind].peers
    ]
    report = driver.run(kinds, SETTINGS, 1, [name])
    assert all(tuple(record["contenders"]) == ("attnc", name) for record in report["results"])


@pytest.mark.parametrize("kind", WAYS)
def test_other_ways(kind, without_memory):
    """What is installed of them."""
    cases, names = WAYS[kind]
    names = [n for n in names if n not in LIBRARY or importlib.util.find_spec(LIBRARY[n])]
    if not names:
        pytest.skip("none of the libraries is installed")
    report = driver.run([replace(KINDS[kind], cases=cases, limit=None)], SETTINGS, 1, names)
    assert all(tuple(record["contenders"]) == ("attnc", *names) for record in report["results"])
    assert "None" not in table.results_page([report])


# ---- the command ----


def test_files_are_written(tmp_path, capsys):
    args = "--quick --kinds small --peers NumPy --threads 1 --rounds 1 --out".split()
    command.main([*args, str(tmp_path / "new")])
    page = (tmp_path / "new" / "RESULTS.md").read_text(encoding="utf-8")
    assert "### A small call" in page and "| 1, 4, 6, 8 | forward |" in page
    assert capsys.readouterr().out == page
    text = (tmp_path / "new" / RESULTS).read_text(encoding="utf-8")
    report = json.loads(text)
    assert report["threads"] == 1 and report["settings"]["rounds"] == 1
    assert [record["kind"] for record in report["results"]] == ["small", "small"]
    assert text == command.as_json(report)

    command.main(["--no-run", "--out", str(tmp_path / "new")])
    assert capsys.readouterr().out == page


def test_both_instruction_sets_stand_in_one_page(tmp_path, capsys):
    for name, year in (("avx2", "2002"), ("avx512", "2003")):
        report = made_up_report() | {"instructions": {"attnc": name}, "date": f"{year}-02-03"}
        (tmp_path / f"results-{name}.json").write_text(command.as_json(report), encoding="utf-8")
    command.main(["--no-run", "--out", str(tmp_path)])
    page = capsys.readouterr().out
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf-8") == page
    wide, narrow = page.index("\n## With avx512\n"), page.index("\n## With avx2\n")
    assert page.index("2003-02-03") < narrow < page.index("2002-02-03") and wide < narrow
    assert page.count("\n### ") == 4 and page.count("\n# ") == 0
    with pytest.raises(SystemExit, match="no results in"):
        command.main(["--no-run", "--out", str(tmp_path / "new")])


def test_a_part_is_not_written(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "HERE", tmp_path)
    monkeypatch.setattr(command, "run", lambda *args, **options: made_up_report())
    for args in (["--kinds", "small"], ["--quick"], ["--peers"]):
        command.main(args)
        assert not list(tmp_path.iterdir())
    command.main([])
    assert {path.name for path in tmp_path.iterdir()} == {"RESULTS.md", "results-scalar.json"}


def test_absent_peers_are_named(monkeypatch, tmp_path, without_memory):
    for library in ("torch", "jax"):
        (tmp_path / f"{library}.py").write_text("raise ModuleNotFoundError\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = run(["additive"], ["PyTorch", "torch.compile", "JAX"])
    assert all(tuple(record["contenders"]) == ("attnc",) for record in report["results"])
    page = table.results_page([report])
    for name in LIBRARIES:
        assert f"| left out | {name} (not installed) |" in page
    assert "| × PyTorch |" not in page


def test_without_a_compiler(monkeypatch, without_memory):
    monkeypatch.setenv("CC", "no-such-compiler")
    page = table.results_page([run(["forward"], [])])
    assert "| left out | machine (no C compiler) |" in page
    assert "% of FMA peak" not in page


def test_list(capsys):
    command.main(["--list"])
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in "\n" + shown for name in KINDS)


# ---- instruction sets ----

OTHERS = {"attnc": None, "PyTorch": "torch", "torch.compile": "torch", "JAX": "jax", "NumPy": None}


@pytest.mark.skipif("avx2" not in _core.isa_names(), reason="needs a processor with AVX2")
@pytest.mark.parametrize("name", OTHERS)
def test_libraries_do_without_what_is_newer(name):
    """Where there is AVX-512 this is a proof; elsewhere, that they report something."""
    if OTHERS[name] and not importlib.util.find_spec(OTHERS[name]):
        pytest.skip(f"{name} is not installed")
    process = driver.Process(
        contenders.Contender(name, contenders.MODULES[name], threads=1, isa="avx2")
    )
    process.close()
    if "left_out" in process.about:  # its compiler is missing, for example
        assert "told to do without" not in process.about["left_out"]
        pytest.skip(process.about["left_out"])
    reported = process.about["instructions"]
    assert re.search("avx.?2|v3", reported, re.I) and not isa.exceeds("avx2", reported)


def test_more_than_was_asked_for():
    for reported in (
        "avx512",
        "AVX512",
        "X86_V4, OpenBLAS: Haswell",
        "AVX2, oneDNN: Intel AVX-512",
    ):
        assert isa.exceeds("avx2", reported) and not isa.exceeds(None, reported)
    assert not isa.exceeds("avx2", "AVX2, oneDNN: Intel AVX2, MKL: Intel(R) AVX2")
    with pytest.raises(SystemExit):
        command.main(["--isa", "avx1024"])


# ---- workers ----


def test_wrong_results_are_refused(tmp_path):
    right = np.ones(5, np.float32), np.arange(6, dtype=np.float32)
    np.savez(tmp_path / "expected.npz", *right)

    def compare(*results):
        worker.compare(results, tmp_path / "expected.npz", 1e-4)

    compare(right[0], right[1] * np.float32(1 + 1e-6))
    with pytest.raises(ValueError, match="the context differs from attnc's by 5.0e-01"):
        compare(right[0] / 2, right[1])
    with pytest.raises(ValueError, match="the gradient of argument 1 differs from attnc's by nan"):
        compare(right[0], right[1] * np.float32(np.nan))
    with pytest.raises(ValueError, match=r"has shape \(4,\), attnc's \(5,\)"):
        compare(right[0][:4], right[1])
    with pytest.raises(ValueError, match="is float64, attnc's float32"):
        compare(right[0].astype(np.float64), right[1])
    with pytest.raises(ValueError, match="zip"):
        compare(right[0])


def test_an_error_ends_the_run(tmp_path):
    (contender, *_) = contenders.contenders(KINDS["small"], 1, [])
    process = driver.Process(contender)
    try:
        with pytest.raises(RuntimeError, match="(?s)attnc: .*no_such_request"):
            process.ask("no_such_request")
    finally:
        process.close()


def test_numpy_is_left_out_where_it_would_last_too_long():
    from benchmarks import with_numpy

    with pytest.raises(contenders.LeftOut, match="more than 134 million numbers"):
        with_numpy.prepare(dot(1, 1, 16384, 64), None)


@pytest.mark.skipif(not COMPILER, reason="needs a C compiler")
def test_limits_of_the_machine(monkeypatch):
    monkeypatch.setattr(machine, "BYTES", 2**20)
    monkeypatch.setattr(machine, "STEPS", 1000)
    assert machine.version()
    for limit, case, work in (
        ("memory read speed", ROWS[0], 2**20),
        ("FMA peak", ROWS[0], None),
        ("FMA peak", replace(ROWS[0], dtype="float64"), None),
    ):
        call, done = machine.prepare(limit, case, threads=2)
        call()
        assert done == work or (work is None and done % (2 * 2 * 1000) == 0)
    too_many, _ = machine.prepare("FMA peak", ROWS[0], threads=1000)
    with pytest.raises(RuntimeError, match="not so many threads"):
        too_many()


# ---- cases ----


def test_pairs():
    for case in (dot(2, 3, 5, 4), dot(2, 3, 5, 4, causal=True), dot(2, 3, 5, 4, lengths=(5, 2))):
        allowed = np.ones((case.B, case.H, case.Tq, case.Tk), bool)
        if case.causal:
            allowed &= np.tri(5, dtype=bool)
        if case.lengths:
            allowed &= np.arange(5) < np.array(case.lengths)[:, None, None, None]
        assert case.pairs == allowed.sum()


def test_work():
    assert dot(1, 8, 512, 64).work == 4 * 8 * 512**2 * 64
    assert dot(1, 8, 512, 64, backward=True).work == 3.5 * 4 * 8 * 512**2 * 64
    assert additive(32, 10, 11, 128).work == 32 * 10 * 11 * 128
    assert Case("dot_product", 1, 32, 1, 4096, 128).bytes_read == 2 * 32 * 4096 * 128 * 4
    multihead = transformer("multihead", 4, 512, 512, 8)
    attention = dot(4, 8, 512, 64, backward=True).work
    assert multihead.work == 3 * 4 * 2 * 4 * 512 * 512**2 + attention
    layer = transformer("encoder_layer", 4, 512, 512, 8)
    assert layer.work - multihead.work == 3 * 2 * 2 * 4 * 512 * 512 * 2048
    generation = transformer("generation", 1, 1, 16, 4, layers=2)
    assert generation.bytes_read == 4 * (2 * 12 * 16**2 + 256 * 16 + 2 * 2 * 16)


def test_cases_survive_json():
    for case in (case for kind in KINDS.values() for case in kind.cases):
        assert as_case(json.loads(json.dumps(record("forward", case)["case"]))) == case


def test_the_summary_names_cases():
    known = {(n, case.label, case.backward) for n, kind in KINDS.items() for case in kind.cases}
    assert set(table.SUMMARY) <= known and 10 <= len(table.SUMMARY) <= 14


# ---- made-up figures ----


def record(kind, case, limit=None, memory=None, **seconds):
    return {
        "kind": kind,
        "case": vars(case),
        "contenders": {name: {"seconds": [each]} for name, each in seconds.items()},
        "limit": limit and {"work": limit, "seconds": [2.0, 1.0, 0.1]},
        "memory": memory or {},
        "left_out": {},
    }


def made_up_report():
    rows = [record("forward", case, limit=1e9, attnc=2.0, PyTorch=8.0, NumPy=4.0) for case in ROWS]
    rows.append(
        record(
            "growth",
            KINDS["growth"].cases[0],
            memory={"attnc": 2_000_000, "PyTorch": 123_000_000},
            attnc=1e-3,
            PyTorch=2e-3,
        )
    )
    return {
        "date": "2001-02-03",
        "machine": {"processor": "a processor", "processors": 4, "system": "a system"},
        "threads": 2,
        "settings": vars(driver.Settings()),
        "instructions": {"attnc": "scalar", "PyTorch": "SSE"},
        "versions": {"attnc": "9.9", "PyTorch": "8.8", "NumPy": "7.7", "Python": "3"},
        "left_out": {"JAX": "not installed"},
        "results": rows,
    }


def test_figures():
    case = dot(1, 8, 512, 64)
    figures = Figures(record("forward", case, limit=case.work, attnc=2.0, PyTorch=3.0, JAX=8.0))
    assert figures.percent() == pytest.approx(50)
    assert figures.rate() == pytest.approx(case.work / 2e9)
    assert figures.ratio("PyTorch") == 1.5 and figures.ratio("NumPy") is None
    assert figures.best_peer() == "PyTorch"
    other = Figures(record("forward", case, attnc=1.0, PyTorch=6.0, JAX=2.0))
    assert other.percent() is None
    assert Mean([figures, other]).ratio("PyTorch") == pytest.approx(3)
    assert Mean([figures, other]).ratio_to_best() == pytest.approx((1.5 * 2) ** 0.5)
    assert Mean([figures, other]).ratio("NumPy") is None


@pytest.mark.parametrize(
    "goal, seconds, limit, verdict",
    [
        (Goal(ratio=1.5), {"PyTorch": 1.5}, None, "yes"),
        (Goal(ratio=1.5), {"PyTorch": 1.4}, None, "no (1.40 ×)"),
        (Goal(ratio=1.5), {}, None, "not measured"),
        (Goal(percent=80), {}, 1.25, "yes"),
        (Goal(percent=80), {}, 2, "no (50.0 %)"),
        (Goal(percent=80), {"PyTorch": 9}, None, "not measured"),
        (Goal(ratio=2, percent=80), {"PyTorch": 1}, 1.1, "yes"),
        (Goal(ratio=2, percent=80), {"PyTorch": 2}, 5, "yes"),
        (Goal(ratio=2, percent=80), {"PyTorch": 1}, 2, "no (1.00 ×, 50.0 %)"),
        (Goal(ratio=2, percent=80), {}, 2, "no (50.0 %), without PyTorch"),
        (Goal(3, LIBRARIES), {"PyTorch": 9, "torch.compile": 4, "JAX": 3}, None, "yes"),
        (Goal(3, LIBRARIES), {"PyTorch": 9, "torch.compile": 4, "JAX": 2}, None, "no (2.00 ×)"),
        (Goal(3, LIBRARIES), {"PyTorch": 9, "JAX": 3}, None, "yes, without torch.compile"),
        (Goal(most=1.1, peers=("PyTorch",)), {"PyTorch": 1.1}, None, "yes"),
        (Goal(most=1.1, peers=("PyTorch",)), {"PyTorch": 1.2}, None, "no (1.20 ×)"),
        (Goal(most=0.7, peers=("JAX",), of="PyTorch"), {"PyTorch": 2, "JAX": 1}, None, "yes"),
        (Goal(most=0.7, peers=("JAX",), of="PyTorch"), {"JAX": 1}, None, "not measured"),
        (Goal(microseconds=2e6, peers=("JAX",)), {"JAX": 3}, None, "yes"),
        (Goal(microseconds=2, peers=("JAX",)), {"JAX": 1.000003}, None, "no (3.00 µs)"),
    ],
)
def test_goals(goal, seconds, limit, verdict):
    case = dot(1, 8, 512, 64)
    made_up = record("forward", case, limit and limit * case.work, attnc=1.0, **seconds)
    assert goal.judge(Figures(made_up)) == verdict


@pytest.mark.parametrize(
    "memory, verdict",
    [({"attnc": 10**8}, "yes"), ({"attnc": 2 * 10**8}, "no (200 MB)"), ({}, "not measured")],
)
def test_goal_of_memory(memory, verdict):
    figures = Figures(record("growth", KINDS["growth"].cases[-1], memory=memory))
    assert Goal(megabytes=150).judge(figures) == verdict


def test_which_goals():
    def texts(kind, case, isa="avx512"):
        return [str(goal) for goal in goals_of(kind, case, isa)]

    assert texts("forward", ROWS[0]) == ["3 × PyTorch"]
    assert texts("backward", replace(ROWS[0], backward=True)) == ["8 × PyTorch"]
    long = ["1.15 × PyTorch or 88 % of the limit", "88 % of the limit"]
    assert texts("forward", dot(1, 8, 512, 64)) == long
    causal = dot(1, 8, 2048, 64, causal=True, backward=True)
    assert texts("backward", causal)[1:] == ["75 % of the limit"]
    best = "the best of PyTorch, torch.compile, JAX"
    assert texts("additive", additive(32, 10, 10, 128)) == [f"4 × {best}"]
    assert texts("additive", additive(32, 50, 50, 512)) == [f"10 × {best}"]
    assert [str(goal) for goal in goals_of_mean("backward", "avx512")] == ["1.8 × PyTorch"]
    with_goals = {n for n, kind in KINDS.items() if any(texts(n, case) for case in kind.cases)}
    assert with_goals == {
        "forward", "backward", "padding", "packed", "decode", "additive", "growth", "recurrent",
        "multihead", "layer", "transformer", "generation", "monotonic", "local", "jvp",
        "overhead", "bridges", "halves",
    }  # fmt: skip
    step = replace(recurrent("training", 64, 30, 30, 256, 512), backward=True)
    assert texts("recurrent", step) == ["1.5 × the best of PyTorch, JAX"]

    assert texts("forward", dot(1, 8, 512, 64), "avx2") == ["1.2 × PyTorch or 82 % of the limit"]
    assert texts("forward", ROWS[0], "avx2") == ["3 × PyTorch"]
    assert texts("backward", causal, "avx2") == texts("backward", causal)
    assert texts("additive", additive(32, 10, 10, 128), "avx2") == [f"4.5 × {best}"]
    assert texts("recurrent", step, "avx2") == texts("recurrent", step)
    assert [str(goal) for goal in goals_of_mean("backward", "avx2")] == ["2 × PyTorch"]


def test_the_page_of_made_up_figures():
    page = table.results_page([made_up_report()])
    assert (
        "| a processor, 4 logical cores |" in page and "| left out | JAX (not installed) |" in page
    )
    assert "| B, H, T, D | attnc | PyTorch | NumPy | GFLOP/s | % of FMA peak |" in page  # no JAX
    assert "| geometric mean |  |  |  |  |  | 2.00 × | 4.00 × | 1.55 × PyTorch: yes |" in page
    assert "| extra MB: attnc / PyTorch |" in page and "| 2.0 / 123 |" in page
    assert "| 1.00 ms | 2.00 ms |" in page


def test_numbers():
    assert [digits(x) for x in (0, 0.01234, 1.999, 99.96, 123.4, 1234.5)] == [
        *("0", "0.0123", "2.00", "100.0", "123", "1230"),
    ]
    assert [duration(x) for x in (2.5e-7, 1e-6, 1.234e-3, 0.5, 12.34)] == [
        *("0.250 µs", "1.00 µs", "1.23 ms", "500 ms", "12.3 s"),
    ]


# ---- the summary in the README ----


def test_readme(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "ROOT", tmp_path)
    (tmp_path / "results-scalar.json").write_text(
        command.as_json(made_up_report()), encoding="utf-8"
    )
    readme, chinese = tmp_path / "README.md", tmp_path / "README.zh.md"
    readme.write_text(f"before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n", encoding="utf-8")
    chinese.write_text(f"{table.BEGIN}{table.END}", encoding="utf-8")
    for _ in range(2):  # the second time nothing changes
        command.main(["--no-run", "--readme", "--out", str(tmp_path)])
        text = readme.read_text(encoding="utf-8")
        assert text.startswith(f"before\n\n{table.BEGIN}\n\n| what |")
        assert text.endswith(f".\n\n{table.END}\n\nafter\n")
        assert "old" not in text and text.count("| dot product | 1, 8, 2048, 64 ") == 1
        assert "Measured on 2001-02-03: a processor, 2 threads; attnc 9.9 (scalar)" in text
        assert chinese.read_text(encoding="utf-8") in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        table.BEGIN,
        table.END + table.BEGIN,
        2 * (table.BEGIN + table.END),
        table.BEGIN + table.BEGIN + table.END,
    ],
)
def test_readme_without_marks(text):
    with pytest.raises(ValueError, match="README.md must have"):
        table.replace_summary(text, made_up_report())


def test_inner_loops():
    """Those with one way through; a vector instruction that begins like a branch is none."""
    neon = """
    one:
    .LFB1:
        .cfi_startproc
        b .L3
    .L2: // a loop around another
        ldr s0, [x0]
    .L3:
        bic v1.16b, v2.16b, v3.16b
        fmla v4.4s, v1.4s, v0.s[0]
        b.ne .L3
        cbnz x1, .L2
    .L33:
        add x0, x0, 1
        cbz x0, .L3
        bne .L33
    """
    avx2 = """
    two:
        jmp .L1
    .L1:
        vfmadd231ps (%rax), %ymm0, %ymm1
        jne .L1
    """
    found = list(mca.loops(neon.splitlines()))
    body = ["bic v1.16b, v2.16b, v3.16b", "fmla v4.4s, v1.4s, v0.s[0]", "b.ne .L3"]
    assert found == [("one", body)]
    assert [function for function, _ in mca.loops(avx2.splitlines())] == ["two"]

"""Asks the workers in turn, round after round, and collects the raw figures."""

import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace

from benchmarks.contenders import MODULES, PEERS, contenders

ROOT = pathlib.Path(__file__).parents[1]


@dataclass(frozen=True)
class Settings:
    """How long to measure."""

    rounds: int = 7
    warm: float = 0.1  # before each turn: until then its threads may all be on one processor
    seconds: float = 0.15  # of one contender in one round
    pause: float = 0.02  # after it: the threads of its pool go to sleep
    long: float = 2.0  # seconds of a call from which on there are fewer rounds
    rounds_if_long: int = 3


QUICK = Settings(rounds=2, warm=0, seconds=0.01, pause=0.005, rounds_if_long=1)


# ---- workers ----


class Process:
    """A worker, seen from the driver."""

    def __init__(self, contender):
        self.name = contender.name
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.worker"),
                *(contender.module, str(contender.threads)),
                *([contender.isa] if contender.isa else []),
            ],
            cwd=ROOT,
            env=contender.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self.answer()

    def ask(self, do, **arguments):
        print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.close()
            code = self.process.returncode
            raise RuntimeError(f"{self.name}: its process ended with exit status {code}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Team:
    """The workers that were needed so far, and why others are left out."""

    def __init__(self):
        self.workers, self.about, self.left_out = {}, {}, {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for worker in self.workers.values():
            if any(exception):  # it may be in the middle of something long
                worker.process.kill()
            worker.close()

    def worker(self, contender):
        """The worker of a contender, or None if that is left out."""
        if contender not in self.workers and contender.name not in self.left_out:
            worker = Process(contender)
            self.workers[contender] = worker
            if "left_out" in worker.about:
                if contender.module == MODULES["attnc"]:
                    raise RuntimeError(f"attnc: {worker.about['left_out']}")
                self.left_out[contender.name] = worker.about["left_out"]
            else:
                self.about.setdefault(contender.module, worker.about)
        return None if contender.name in self.left_out else self.workers[contender]


# ---- one case ----


def time_case(team, kind, case, taking_part, settings, folder):
    """Time a case: a dict of what the tables are made from."""
    record = {
        "kind": kind.name,
        "case": asdict(case),
        "contenders": {},
        "limit": None,
        "memory": {},
        "left_out": {},
    }
    if not case.timed:
        return record
    workers = {}
    expected = os.path.join(folder, "expected.npz")
    for contender in taking_part:
        if worker := team.worker(contender):
            first = contender is taking_part[0]
            answer = worker.ask(
                "prepare",
                case=asdict(case),
                seconds=settings.seconds,
                expected=expected,
                write=first,
            )
            add(record, workers, worker, answer)
    limits = replace(taking_part[0], name="machine", module=MODULES["machine"])
    if kind.limit and (worker := team.worker(limits)):
        answer = worker.ask(
            "prepare_limit", limit=kind.limit, case=asdict(case), seconds=settings.seconds
        )
        add(record, workers, worker, answer)

    for number in range(settings.rounds):
        # Each round starts with another: nobody always follows the same neighbour.
        names = list(workers)
        start = number % len(names)
        for name in names[start:] + names[:start]:
            figures = record["contenders"][name]
            slow = figures["estimate"] > settings.long
            if not slow or number < settings.rounds_if_long:
                answer = workers[name].ask("run", warm=0 if slow else settings.warm)
                figures["seconds"].append(answer["seconds"])
                time.sleep(settings.pause)
    record["limit"] = record["contenders"].pop("machine", None)
    return record


def add(record, workers, worker, answer):
    if "left_out" in answer:
        record["left_out"][worker.name] = answer["left_out"]
    else:
        workers[worker.name] = worker
        record["contenders"][worker.name] = {**answer, "seconds": []}


def measure_memory(team, record, taking_part):
    """Add the peak of the extra memory of each contender to the record of a case."""
    for contender in taking_part:
        # What compiles while it runs is left out: its compiler would be measured.
        if contender.name == "torch.compile" or contender.name in record["left_out"]:
            continue
        if worker := team.worker(contender):
            timed = record["contenders"].get(contender.name, {})
            answer = worker.ask("memory", case=record["case"], form=timed.get("form", ""))
            if "left_out" in answer:
                record["left_out"][contender.name] = answer["left_out"]
            else:
                record["memory"][contender.name] = answer["bytes"]


# ---- all cases ----


def run(kinds, settings, threads, names, report=lambda text: None, isa=None):
    """Measure kinds of cases.

    Parameters
    ----------
    kinds : list of Kind
        What to measure.
    settings : Settings
        How long.
    threads : int
        Of every contender.
    names : collection of str
        The peers that are compared with attnc.
    report : callable, optional
        Is told in a line what is being measured.
    isa : str, optional
        The most that any contender may use; all that the processor has unless given.

    Returns
    -------
    dict
        All raw figures, as results-avx2.json holds them.
    """
    plan = [
        (kind, case, contenders(kind, threads, names, isa)) for kind in kinds for case in kind.cases
    ]
    with tempfile.TemporaryDirectory() as folder, Team() as team:
        records = []
        for number, (kind, case, taking_part) in enumerate(plan, 1):
            report(f"[{number}/{len(plan)}] {kind.name}: {case.label}, {case.passes}")
            records.append(time_case(team, kind, case, taking_part, settings, folder))
    left_out = {name: "not asked for" for name in PEERS if name not in names} | team.left_out
    if os.path.exists("/proc/self/clear_refs"):
        # New workers, which have called nothing yet.
        with Team() as fresh:
            for number, (record, (kind, case, taking_part)) in enumerate(
                zip(records, plan, strict=True), 1
            ):
                if kind.name != "threads":
                    report(f"[{number}/{len(plan)}] {kind.name}: {case.label}, memory")
                    measure_memory(fresh, record, taking_part)
        team.about.update(fresh.about)
    else:
        left_out["extra memory"] = "the system has no /proc/self/clear_refs"
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "threads": threads,
        "settings": asdict(settings),
        "versions": {
            name: team.about[module]["version"]
            for name, module in MODULES.items()
            if module in team.about
        }
        | {"Python": platform.python_version()},
        "instructions": {
            name: team.about[module]["instructions"]
            for name, module in MODULES.items()
            if module in team.about and team.about[module]["instructions"]
        },
        "left_out": left_out,
        "results": records,
    }


def machine():
    """What the tables say of the machine: nothing that names it."""
    processor = platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            models = [line.partition(":")[2] for line in file if line.startswith("model name")]
        processor = " ".join(models[0].split())
    except (OSError, IndexError):  # not Linux, or a processor that does not say
        pass
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = f"{platform.system()} {platform.mac_ver()[0]}".strip()
    return {"processor": processor, "processors": os.cpu_count(), "system": system}

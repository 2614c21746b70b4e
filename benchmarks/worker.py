"""The process of one contender: ``python -m benchmarks.worker MODULE THREADS [ISA]``.

It reads requests, one JSON object a line, and answers each with one. Between two requests it waits
in a read, so that its threads sleep while the others are timed. The first line it writes, unasked,
is its version and its instruction set, or why it is left out.

A request names a function below in ``do``, with its arguments. What raises `LeftOut` is answered
with the reason; whatever else goes wrong ends the run, in the driver.
"""

import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
import warnings
from dataclasses import replace

import numpy as np

from benchmarks.cases import as_case
from benchmarks.contenders import LeftOut
from benchmarks.inputs import inputs
from benchmarks.isa import exceeds

# What two libraries may differ by, as a part of the norm: loose, to find wrong contenders only.
# Halves are rounded on the way, by PyTorch the weights too.
TOLERANCE = {"float32": 1e-4, "float64": 1e-6, "float16": 2e-3, "bfloat16": 1e-2}


class Worker:
    """What the driver can ask for."""

    def __init__(self, module, threads):
        self.module, self.threads = module, threads
        self.call = self.calls = None

    def prepare(self, case, seconds, expected, write):
        """Compute a case once, check the results, find out how many calls make up `seconds`.

        The results are written to the file `expected`, or compared with what is there. Where there
        is more than one way to compute the case, the fastest is kept.
        """
        self.call = None  # frees the arrays of the case before
        case = as_case(case)
        ways = self.module.prepare(case, inputs(case))
        times = {}
        for form, call in ways.items():
            results = self.module.results(case, call())
            if write:
                np.savez(expected, *results)
            elif results is not None:  # None: another function is computed
                compare(results, expected, TOLERANCE[case.dtype])
            repeats = 1 if len(ways) == 1 else 3  # more care where there is something to choose
            times[form] = min(estimate(call, seconds / 4) for _ in range(repeats))
        form = min(times, key=times.get)
        self.call, self.calls = ways[form], max(1, round(seconds / times[form]))
        return {"form": form, "calls": self.calls, "estimate": times[form]}

    def prepare_limit(self, limit, case, seconds):
        """The same for the machine: there is nothing to check, and the work is its own."""
        self.call = None
        self.call, work = self.module.prepare(limit, as_case(case), self.threads)
        each = estimate(self.call, seconds / 4)
        self.calls = max(1, round(seconds / each))
        return {"work": work, "calls": self.calls, "estimate": each}

    def run(self, warm):
        """Time the case that was prepared, after `warm` seconds of it: seconds a call."""
        start = time.perf_counter()
        while time.perf_counter() - start < warm:
            self.call()
        return {"seconds": timed(self.call, self.calls) / self.calls}

    def memory(self, case, form):
        """How much more memory a case needs at its peak than its inputs, in bytes.

        Measured in a child, so that no case finds what another has left behind. This process has
        imported the library and called nothing, so that there is nothing a fork could break.
        """
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of forking with threads: OpenBLAS, which handles it
            child = os.fork()
        if child == 0:
            try:
                answer = {"bytes": peak_extra(self.module, as_case(case), form)}
            except LeftOut as reason:
                answer = {"left_out": str(reason)}
            except BaseException:
                answer = {"error": traceback.format_exc()}
            os.write(write, json.dumps(answer).encode())
            os._exit(0)
        os.close(write)
        with open(read) as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        return json.loads(answer) if answer else {"left_out": "ran out of memory"}


# ---- time ----


def timed(call, count):
    """Seconds of `count` calls."""
    gc.disable()
    start = time.perf_counter()
    for _ in range(count):
        call()
    seconds = time.perf_counter() - start
    gc.enable()
    return seconds


def estimate(call, enough):
    """About the seconds of one call: more and more calls, until they last `enough`."""
    count = 1
    while (seconds := timed(call, count)) < enough:
        count *= 2
    return seconds / count


# ---- results ----


def compare(results, expected, tolerance):
    """Raise if the results are not those in the file."""
    with np.load(expected) as file:
        pairs = zip(results, file.values(), strict=True)
        for number, (result, right) in enumerate(pairs):
            name = f"the gradient of argument {number}" if number else "the context"
            if result.shape != right.shape:
                raise ValueError(f"{name} has shape {result.shape}, attnc's {right.shape}")
            if result.dtype != right.dtype:
                raise ValueError(f"{name} is {result.dtype}, attnc's {right.dtype}")
            error = np.linalg.norm(result - right) / np.linalg.norm(right)
            if not error <= tolerance:  # NaN, too
                raise ValueError(f"{name} differs from attnc's by {error:.1e} of its norm")


# ---- memory ----


def peak_extra(module, case, form):
    """Run a case once; peak of the memory in use over what was in use before."""
    # What a library sets up in its first call, threads for example, is not counted.
    heads = case.H if case.transformer else 1  # there they are of the model
    first = replace(case, B=1, H=heads, Tq=min(case.Tq, 8), Tk=min(case.Tk, 8), lengths=None)
    module.prepare(first, inputs(first))[form]()
    call = module.prepare(case, inputs(case))[form]
    gc.collect()
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is now what is in use
    output = call()
    peak = status("VmHWM")
    del output  # not before: it counts
    return max(0, peak - before)


def status(field):
    """A field of this process's status in bytes."""
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


# ---- the process ----


def serve(name, threads, most=None):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends this
    # Libraries print, too: they get standard error, and this protocol what was standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content):
        print(json.dumps(content), file=answers, flush=True)

    try:
        module = importlib.import_module(f"benchmarks.{name}")
        version = module.version()
        reported = module.instructions() if hasattr(module, "instructions") else ""
        if exceeds(most, reported):
            raise LeftOut(f"told to do without more than {most}, it reports {reported}")
        answer({"version": version, "instructions": reported})
    except LeftOut as reason:
        return answer({"left_out": str(reason)})
    except ModuleNotFoundError:
        return answer({"left_out": "not installed"})
    except ImportError as error:
        return answer({"left_out": f"fails to import: {error}"})
    worker = Worker(module, threads)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(getattr(worker, request.pop("do"))(**request))
        except LeftOut as reason:
            answer({"left_out": str(reason)})
        except Exception:
            answer({"error": traceback.format_exc()})


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])

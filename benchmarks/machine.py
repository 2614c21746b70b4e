"""The machine's limits, measured like a contender in the same rounds: machine.c, compiled here."""

import ctypes
import os
import pathlib
import shlex
import subprocess
import tempfile

import numpy as np

from benchmarks.contenders import LeftOut

SOURCE = pathlib.Path(__file__).with_name("machine.c")
FLAGS = "-O3 -march=native -ffp-contract=fast -shared -fPIC -pthread " + os.environ.get(
    "BENCHMARK_CFLAGS", ""
)
STEPS = 10_000_000  # of multiply-adds in one call: beside them starting a thread is nothing
BYTES = 2**30  # read in one call: more than the caches of most processors

library = None


def version():
    """Compile; the first line of what the compiler says of itself."""
    global library
    compiler = shlex.split(os.environ.get("CC", "cc"))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "machine.so")
        try:
            subprocess.run(
                [*compiler, *FLAGS.split(), str(SOURCE), "-o", path],
                check=True,
                capture_output=True,
            )
            about = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
        except FileNotFoundError:
            raise LeftOut("no C compiler") from None
        except subprocess.CalledProcessError:
            raise LeftOut(f"{compiler[0]} fails with {FLAGS}") from None
        library = ctypes.CDLL(path)
    for function, arguments in (
        (library.multiply_add, (ctypes.c_int, ctypes.c_ssize_t, ctypes.c_int)),
        (library.read_memory, (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)),
    ):
        function.argtypes, function.restype = arguments, ctypes.c_double
    library.flop_of_step.restype = ctypes.c_ssize_t
    return about.partition("\n")[0]


def instructions():
    """The width of the vectors."""
    return f"{8 * library.bytes_of_vector()}-bit vectors"


def prepare(limit, case, threads):
    """A call that reaches a limit, and its work: operations or bytes."""
    if limit == "memory read speed":
        memory = np.ones(BYTES + 64, np.uint8)  # written to: pages that were not are all the same
        start = memory.ctypes.data + -memory.ctypes.data % 64

        def read(memory=memory):  # which it keeps alive
            succeed(library.read_memory(start, BYTES, threads))

        return read, BYTES

    itemsize = np.dtype(case.computed).itemsize

    def multiply_add():
        succeed(library.multiply_add(itemsize, STEPS, threads))

    return multiply_add, library.flop_of_step(itemsize) * STEPS * threads


def succeed(result):
    if result < 0:
        raise RuntimeError("the machine's limits: not so many threads")

"""Instruction sets: how every library is told to do without the newer ones, and what it reports.

Each has a switch of its own, an environment variable that it reads when it is loaded. That it
obeys is not taken for granted: a worker says what its library reports, and is left out where that
is more than was asked for.
"""

import os
import re
import subprocess
import sys

# Name, as attnc has it -> the variables that make it the most that is used.
SWITCHES = {
    "avx2": {
        "ATTNC_ISA": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",  # the kernels of PyTorch, and those that it compiles
        "TORCHINDUCTOR_CPP_MARCH": "haswell",  # what its compiler makes of the rest
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
        "BENCHMARK_CFLAGS": "-mno-avx512f",  # the limits of the machine
    },
}
# What no report may name where avx2 is the most.
BEYOND = {"avx2": re.compile(r"avx.?512|amx|512-bit|v4|skylakex|cooperlake|sapphire", re.I)}


def switches(isa):
    """The variables for one instruction set; none where the most of the machine is asked for."""
    return {} if isa is None else SWITCHES[isa]


def exceeds(isa, reported):
    """Whether a library reports more than was asked for."""
    return isa is not None and BEYOND[isa].search(reported) is not None


def said(code, **variables):
    """What Python prints in a process of its own.

    Some libraries say what they use only when they start or compute, and a worker that has computed
    could not be forked to measure memory (worker.py).
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout

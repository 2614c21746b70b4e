"""Who takes part, and the environment in which each of them runs."""

import os
from dataclasses import dataclass

from benchmarks.isa import switches

# Name in the tables -> the module of this package that knows how to call it.
MODULES = {
    "attnc": "with_attnc",
    "attnc padded": "with_attnc_padded",
    "attnc padded keys": "with_attnc_padded_keys",
    "attnc global": "with_attnc_global",
    "attnc forward": "with_attnc_forward",
    "attnc in float32": "with_attnc_in_float32",
    "attnc in PyTorch": "with_attnc_in_torch",
    "attnc in JAX": "with_attnc_in_jax",
    "attnc in autograd": "with_attnc_in_autograd",
    "PyTorch": "with_torch",
    "torch.compile": "with_torch_compile",
    "JAX": "with_jax",
    "NumPy": "with_numpy",
    "machine": "machine",
}
PEERS = (
    "attnc padded",
    "attnc padded keys",
    "attnc global",
    "attnc forward",
    "attnc in float32",
    "attnc in PyTorch",
    "attnc in JAX",
    "attnc in autograd",
    "PyTorch",
    "torch.compile",
    "JAX",
    "NumPy",
)


class LeftOut(Exception):
    """Why a contender does not take part in a case or at all, in a few words."""


@dataclass(frozen=True)
class Contender:
    """A library with a number of threads. It gets a process of its own."""

    name: str
    module: str
    threads: int
    isa: str | None = None  # the most that may be used; None: what the processor has

    def environment(self):
        """The variables that tell the libraries, at their start, how much they may use."""
        count = str(self.threads)
        return os.environ | {
            "ATTNC_NUM_THREADS": count,
            "OMP_NUM_THREADS": count,  # PyTorch; OpenBLAS and MKL, unless told otherwise
            "OPENBLAS_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "VECLIB_MAXIMUM_THREADS": count,
            "NPROC": count,  # XLA
            "JAX_PLATFORMS": "cpu",
            **switches(self.isa),
        }


def contenders(kind, threads, names, isa=None):
    """The contenders of a kind: attnc first, then those of its peers that are in `names`."""
    if kind.name == "threads":
        return [
            Contender(
                "1 thread" if count == 1 else f"{count} threads", MODULES["attnc"], count, isa
            )
            for count in range(1, threads + 1)
        ]
    peers = [name for name in kind.peers if name in names]
    return [Contender(name, MODULES[name], threads, isa) for name in ("attnc", *peers)]

"""torch.compile as a contender: the formulas of `with_torch`, compiled."""

import torch
from torch._inductor import cpu_vec_isa

from benchmarks import transformer_torch, with_torch
from benchmarks.contenders import LeftOut
from benchmarks.with_torch import results  # noqa: F401, part of the contender


def version():
    try:
        torch.compile(torch.tanh)(torch.ones(2))
    except Exception as error:  # whatever it says, it needs a C++ compiler and has none that works
        raise LeftOut(f"does not work here: {type(error).__name__}") from error
    return torch.__version__


def instructions():
    return str(cpu_vec_isa.pick_vec_isa())


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments."""
    torch._dynamo.reset()  # compile for these sizes, not for any that were seen so far
    if case.transformer:
        return transformer_torch.prepare(case, inputs, torch.compile)
    return with_torch.prepare(case, inputs, compiled)


def compiled(case):
    return {
        form: torch.compile(formula, dynamic=False)
        for form, formula in with_torch.formulas(case).items()
    }

"""attnc as a contender of itself in half precision: the same numbers, stored in float32."""

from dataclasses import replace

import numpy as np

from benchmarks import with_attnc
from benchmarks.inputs import Inputs
from benchmarks.with_attnc import instructions, version  # noqa: F401, part of the contender


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    wide = Inputs(
        [x.astype(np.float32) for x in inputs.arguments], inputs.dcontext.astype(np.float32)
    )
    return with_attnc.prepare(replace(case, dtype="float32"), wide)


def results(case, output):
    """What a call returned, as arrays."""
    return output

"""attnc as a contender of its forward mode: the same call without tangents."""

from dataclasses import replace

from benchmarks import with_attnc
from benchmarks.with_attnc import instructions, version  # noqa: F401, part of the contender


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    return with_attnc.prepare(replace(case, tangents=""), inputs)


def results(case, output):
    """Nothing to compare: there is no tangent."""
    return None

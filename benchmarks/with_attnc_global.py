"""attnc as a contender of its local attention: attention to all keys of the same arrays."""

from dataclasses import replace

from benchmarks import with_attnc
from benchmarks.with_attnc import instructions, version  # noqa: F401, part of the contender


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    return with_attnc.prepare(replace(case, mechanism="dot_product"), inputs)


def results(case, output):
    """Nothing to compare: it is another function of them."""
    return None

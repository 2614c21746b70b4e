"""attnc as a contender of itself: a packed batch with padding and the lengths of keys."""

from benchmarks import with_attnc_padded
from benchmarks.with_attnc_padded import (  # noqa: F401, parts of the contender
    instructions,
    results,
    version,
)


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    return with_attnc_padded.prepare(case, inputs, names=("key_lengths",))

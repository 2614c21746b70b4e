"""attnc as a contender of itself: a packed batch with padding, and the lengths of its sequences."""

import numpy as np

import attnc
from benchmarks.inputs import offsets, padded, trimmed
from benchmarks.with_attnc import instructions, version  # noqa: F401, part of the contender


def prepare(case, inputs, names=("key_lengths", "query_lengths")):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    arguments = [padded(case, x) for x in inputs.arguments]
    dcontext = padded(case, inputs.dcontext)
    lengths = np.diff(offsets(case))[:, None]
    options = dict.fromkeys(names, lengths)
    if case.causal:
        options["causal"] = True  # as many queries as keys: query i sees the keys up to i

    def forward():
        return (attnc.dot_product_attention(*arguments, **options),)

    def forward_and_backward():
        context, pullback = attnc.vjp(attnc.dot_product_attention, *arguments, **options)
        return context, *pullback(dcontext)

    return {"": forward_and_backward if case.backward else forward}


def results(case, output):
    """What a call returned, as arrays: the context, then the gradients of the arguments."""
    return [trimmed(case, x) for x in output]

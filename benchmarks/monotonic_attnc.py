"""Monotonic alignments with attnc."""

import attnc


def prepare(inputs):
    """The ways to compute them, by name: calls without arguments. There is one way here."""
    (probability,), dalignment = inputs

    def forward():
        return (attnc.monotonic_alignment(probability).alignment,)

    def forward_and_backward():
        output, pullback = attnc.vjp(attnc.monotonic_alignment, probability)
        return output.alignment, *pullback(dalignment)

    return forward, forward_and_backward

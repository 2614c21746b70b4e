"""attnc as a contender."""

import numpy as np

import attnc
from attnc import _core
from benchmarks import monotonic_attnc, recurrent_attnc, transformer_attnc
from benchmarks.inputs import COSINE_SCALE, local_centers, offsets, tangents


def version():
    return attnc.__version__


def instructions():
    return _core.get_isa()


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    if case.recurrent:
        return recurrent_attnc.prepare(case, inputs)
    if case.transformer:
        return transformer_attnc.prepare(case, inputs)
    if case.mechanism == "monotonic":
        return {"": monotonic_attnc.prepare(inputs)[case.backward]}
    name = "dot_product" if case.mechanism == "local" else case.mechanism
    function = getattr(attnc, name + "_attention")
    arguments, dcontext = inputs
    options = {}
    if case.mechanism == "local":
        options |= {"center": local_centers(case), "window": (case.width, case.width)}
    if case.causal:
        options["causal"] = True
    if case.packed:
        options["query_offsets"] = offsets(case)
    elif case.lengths:
        options["key_lengths"] = np.array(case.lengths)[:, None]
    if case.mechanism == "cosine":
        options["scale"] = COSINE_SCALE

    if case.tangents:
        directions = tangents(case)
        return {"": lambda: attnc.jvp(function, arguments, directions, **options)}

    def forward():
        return (function(*arguments, **options),)

    def forward_and_backward():
        context, pullback = attnc.vjp(function, *arguments, **options)
        return context, *pullback(dcontext)

    return {"": forward_and_backward if case.backward else forward}


def results(case, output):
    """What a call returned, as arrays: the context, then the gradients, or its tangent."""
    if not case.compared:
        return []
    # A file of arrays cannot keep bfloat16.
    return [x.astype(np.float32) for x in output] if case.halves else output

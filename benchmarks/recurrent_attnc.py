"""The recurrent cases with attnc."""

import numpy as np

import attnc
from attnc import functional
from benchmarks.inputs import VOCABULARY, sentences


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    if case.mechanism == "training":
        return {"": training_step(case)}
    (x, *arrays), doutputs = inputs
    if case.mechanism == "encoder":
        function, arguments, options = functional.gru, (x, arrays), {"bidirectional": True}
    else:
        memory, *cell, query_weight, key_weight, score_vector = arrays
        function, arguments = functional.attention_decoder, (x, memory, cell)
        options = {
            "query_weight": query_weight,
            "key_weight": key_weight,
            "score_vector": score_vector,
        }

    def forward():
        return (function(*arguments, **options).outputs,)

    def forward_and_backward():
        output, pullback = attnc.vjp(function, *arguments, **options)
        gradients = pullback(doutputs)
        if case.mechanism == "encoder":
            return output.outputs, gradients.x, *gradients.parameters
        named = [gradients[name] for name in options]
        return output.outputs, gradients.inputs, gradients.memory, *gradients.cells, *named

    return {"": forward_and_backward if case.backward else forward}


def training_step(case):
    """One step of training a translator: a call updates the parameters, and returns the loss."""
    model = attnc.Seq2Seq(
        VOCABULARY, VOCABULARY, case.E, case.D, padding_index=0, attention_size=case.D, rng=0
    )
    optimizer = attnc.optim.Adam(model, 1e-3)
    source, lengths, target = sentences(case)

    def step():
        (loss, _), pullback = attnc.vjp(
            model, source, target[:, :-1], lengths, labels=target[:, 1:]
        )
        optimizer.zero_grad()
        pullback()
        attnc.optim.clip_gradients(model, 1.0)
        optimizer.step()
        return (np.asarray(loss),)

    return step

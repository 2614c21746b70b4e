"""Multi-head attention and Transformers with attnc."""

import numpy as np

import attnc
from benchmarks.inputs import CHARACTERS, VOCABULARY, sentences


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    make = {"transformer": training_step, "generation": generation}.get(case.mechanism)
    if make:
        return {"": make(case)}
    (x, *arrays), dy = inputs
    options = {}
    if case.mechanism == "multihead":
        layer = attnc.MultiHeadAttention(case.E, case.H, rng=0)
        options["return_weights"] = case.weights
    else:
        layer = attnc.TransformerEncoderLayer(
            case.E, case.H, 4 * case.E, dropout=case.dropout, bias=False, rng=0
        )
        options = {"train": True, "rng": 0}
    names = sorted(layer.parameters, key=lambda name: "norm" in name)  # those come last
    layer.load_state_dict(dict(zip(names, arrays, strict=True)))

    def forward_and_backward():
        y, pullback = attnc.vjp(layer, x, **options)
        layer.zero_grad()
        (dx,) = pullback(dy)
        return y[0] if case.weights else y, dx, *map(layer.gradients.get, names)

    return {"": forward_and_backward}


def training_step(case):
    """One step of training a translator: a call updates the parameters, and returns the loss."""
    model = attnc.Transformer(
        VOCABULARY,
        VOCABULARY,
        case.E,
        case.H,
        encoder_layers=case.layers,
        decoder_layers=case.layers,
        dropout=case.dropout,
        padding_index=0,
        rng=0,
    )
    optimizer = attnc.optim.Adam(model, 1e-4)
    source, lengths, target = sentences(case)
    rng = np.random.default_rng(0)

    def step():
        loss, pullback = attnc.vjp(
            model, source, target[:, :-1], lengths, labels=target[:, 1:], train=True, rng=rng
        )
        optimizer.zero_grad()
        pullback()
        attnc.optim.clip_gradients(model, 1.0)
        optimizer.step()
        return (np.asarray(loss),)

    return step


def generation(case):
    """Tk tokens, each the likeliest after those before it, from nothing but a first one."""
    model = attnc.LanguageModel(
        CHARACTERS, case.E, case.H, case.layers, positions="learned", max_length=case.Tk, rng=0
    )

    def generate():
        cache, token, tokens = model.new_cache(), np.zeros((1, 1), int), []
        for _ in range(case.Tk):
            token = model(token, cache=cache).argmax(-1)
            tokens.append(token)
        return (np.concatenate(tokens),)

    return generate

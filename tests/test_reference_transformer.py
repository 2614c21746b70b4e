"""The readable Transformer of attnc.reference, against the layers and models."""

import pytest
from checks import assert_agree, assert_agree_together
from layer_checks import randomize

import attnc
from attnc import reference

B, T, TK, E, H, F, L = 2, 4, 5, 8, 2, 6, 2
OPTIONS = [
    {},
    {"norm": "pre", "activation": "gelu"},
    {"normalization": "rms", "activation": "swiglu", "bias": False, "num_kv_heads": 1},
    {"norm": "pre", "activation": "gelu_tanh", "rotary": True},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def formula(options):
    """The options that the reference takes; it sees the others in the parameters."""
    return {n: x for n, x in options.items() if n not in ("bias", "num_kv_heads")}


def agree(name, layer, arrays, call, options, rng):
    """Outputs and all gradients, of arrays and of parameters."""
    output, pullback = attnc.vjp(layer, *arrays, **call)
    expected, back = reference.vjp(
        getattr(reference, name), *arrays, layer.parameters, **call, **formula(options)
    )
    assert_agree(output, expected)
    dy = rng.standard_normal(output.shape)
    found, wanted = dict(vars(pullback(dy))), dict(vars(back(dy)))
    ours = dict(layer.gradients) | found
    assert ours.keys() == wanted.keys()
    assert_agree_together(ours, {key: wanted[key] for key in ours})


@every_option
@pytest.mark.parametrize("kind", ["layer", "stack"])
def test_the_encoder(kind, options, rng):
    layer = attnc.TransformerEncoderLayer(E, H, F, rng=0, dtype="float64", **options)
    name = "transformer_encoder_layer"
    if kind == "stack":
        layer = attnc.TransformerEncoder(L, E, H, F, rng=0, dtype="float64", **options)
        name = "transformer_encoder"
    x = (rng.standard_normal((B, T, E)),)
    agree(name, randomize(layer, rng), x, {}, options, rng)
    call = {"causal": True, "bias": rng.standard_normal((B, T, T)), "window": (2, None)}
    call |= {"key_mask": rng.random((B, T)) < 0.8, "mask": rng.random((B, H, T, T)) < 0.9}
    layer.zero_grad()
    agree(name, layer, x, call, options, rng)


@every_option
@pytest.mark.parametrize("kind", ["layer", "stack"])
def test_the_decoder(kind, options, rng):
    layer = attnc.TransformerDecoderLayer(E, H, F, rng=0, dtype="float64", **options)
    name = "transformer_decoder_layer"
    if kind == "stack":
        layer = attnc.TransformerDecoder(L, E, H, F, rng=0, dtype="float64", **options)
        name = "transformer_decoder"
    arrays = rng.standard_normal((B, T, E)), rng.standard_normal((B, TK, E))
    agree(name, randomize(layer, rng), arrays, {}, options, rng)
    call = {"key_lengths": [5, 2], "key_mask": rng.random((B, TK)) < 0.8}
    call |= {"memory_mask": rng.random((B, T, TK)) < 0.9, "bias": rng.standard_normal((B, T, T))}
    layer.zero_grad()
    agree(name, layer, arrays, call, options, rng)


MODELS = [
    {"tied": False},
    {"positions": "learned", "max_length": 6, "norm": "pre", "activation": "gelu"},
    {"positions": "rotary", "normalization": "rms", "activation": "swiglu", "bias": False},
    {"positions": None, "norm": "pre", "final_norm": False},
]


def agree_in_all(model, name, tokens, call, options, rng):
    """Logits, and the gradient of each array: the sum of those of all its names."""
    output, pullback = attnc.vjp(model, *tokens, *call)
    logits = getattr(output, "logits", output)
    positions = model.positions
    taken = {n: x for n, x in formula(options).items() if n in ("norm", "activation")}
    taken |= {"normalization": model.normalization, "rotary": positions == "rotary"}
    taken |= {"norm": model.norm, "activation": model.activation}
    expected, back = reference.vjp(
        getattr(reference, name), *tokens, model.parameters, *call,
        sinusoidal=positions == "sinusoidal", **taken,
    )  # fmt: skip
    assert_agree(logits, expected)
    dy = rng.standard_normal(logits.shape)
    pullback(dy)
    wanted = dict(vars(back(dy)))
    if model.tied:
        tables = [n for n in wanted if n in ("target_embedding.weight", "embedding.weight")]
        total = wanted[tables[0]] + wanted["output.weight"].T
        wanted |= {tables[0]: total, "output.weight": total.T}
    ours = dict(model.gradients)
    assert ours.keys() == wanted.keys()
    assert_agree_together(ours, {key: wanted[key] for key in ours})


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_the_models(options, rng):
    sizes = {"feedforward_size": F, "rng": 0, "dtype": "float64"}
    model = attnc.Transformer(9, 7, E, H, encoder_layers=L, decoder_layers=L, **sizes, **options)
    tokens = rng.integers(0, 9, (B, TK)), rng.integers(0, 7, (B, T))
    agree_in_all(randomize(model, rng), "transformer", tokens, ([5, 2],), options, rng)
    model = attnc.LanguageModel(9, E, H, L, **sizes, **options)
    agree_in_all(randomize(model, rng), "language_model", tokens[:1], (), options, rng)

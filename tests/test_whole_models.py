"""Models of attention alone as a whole: gradients by differences, and steps of trained ones."""

import numpy as np
import pytest
from layer_checks import randomize

import attnc

TEXT = np.array([1, 2, 3, 1, 4, 2, 5, 3, 6, 1, 2, 6, 4, 3])  # repeated; to be learned by heart


def model_of(kind, rng, **options):
    """A small model in float64, of smooth functions: differences cannot step over a kink."""
    options = {"activation": "gelu", "rng": 0, "dtype": "float64"} | options
    if kind == "LanguageModel":
        model = attnc.LanguageModel(7, 8, 2, 2, **options)
    else:
        layers = {"encoder_layers": 2, "decoder_layers": 2}
        model = attnc.Transformer(7, 7, 8, 2, **layers, padding_index=0, **options)
    randomize(model, rng)
    if model.padding_index is not None:
        for name, array in model.parameters.items():
            vector_of_padding(name, array)[...] = 0  # as it starts, and stays
    return model


def vector_of_padding(name, array):
    """That of token 0 in a table of vectors, or in the output layer, which is tied to one."""
    if name == "output.weight":
        return array[:, 0]
    return array[0] if "embedding" in name else array[:0]


def derivatives(value, model, rng, h=2e-5):
    """For each parameter its name, a random direction, and the derivative of value() in it."""
    for name, array in model.parameters.items():
        direction, before = rng.standard_normal(array.shape), array.copy()
        if model.padding_index is not None:
            vector_of_padding(name, direction)[...] = 0
        f = {}
        for step in (-2, -1, 1, 2):
            array[...] = before + step * h * direction
            f[step] = value()
        array[...] = before
        yield name, direction, (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * h)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "alibi", None])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("kind", ["LanguageModel", "Transformer"])
def test_gradients_by_differences(kind, norm, positions, rng):
    """Of the loss and all weights by every parameter, through embeddings, layers and output."""
    learned = {"max_length": 9} if positions == "learned" else {}
    model = model_of(kind, rng, norm=norm, positions=positions, dropout=0.2, **learned)
    tokens, labels = rng.integers(1, 7, (2, 2, 5))
    if kind == "Transformer":
        labels[1, 3:] = 0  # padding
    source = rng.integers(1, 7, (2, 6))
    source[0, 4:] = 0
    inputs = (source, tokens) if kind == "Transformer" else (tokens,)
    options = {"labels": labels, "return_weights": True, "train": True, "rng": 4}
    (loss, *weights), pullback = attnc.vjp(model, *inputs, **options)
    d = [rng.standard_normal(x.shape) for x in weights]
    names = [f"d{name}" for name in type(model(*inputs, **options))._fields[1:]]
    pullback(1.0, **dict(zip(names, d, strict=True)))

    def value():
        loss, *weights = model(*inputs, **options)
        return loss + sum((x * y).sum() for x, y in zip(d, weights, strict=True))

    size = abs(loss) + sum(np.abs(x).sum() for x in d)
    for name, direction, numeric in derivatives(value, model, rng):
        analytic = (direction * model.gradients[name]).sum()
        assert abs(numeric - analytic) <= 1e-7 * (size + abs(analytic)), name


def trained():
    """A language model that has learned to go on with TEXT, over and over."""
    model = attnc.LanguageModel(7, 16, 2, 2, positions="rotary", rng=0)
    optimizer = attnc.optim.AdamW(model, 0.01)
    rng = np.random.default_rng(0)
    long = np.tile(TEXT, 4)
    for _ in range(150):
        starts = rng.integers(0, len(TEXT), 8)
        rows = np.stack([long[start : start + 25] for start in starts])
        _, pullback = attnc.vjp(model, rows[:, :-1], labels=rows[:, 1:])
        optimizer.zero_grad()
        pullback()
        optimizer.step()
    return model


def test_steps_of_any_length_give_the_same_tokens():
    model, T = trained(), 24
    tokens = np.tile(TEXT, 2)[None, :T]
    whole = model(tokens)
    assert (whole.argmax(axis=-1)[0, 3:] == np.tile(TEXT, 2)[4 : T + 1]).all()  # it has learned
    for size in (1, 3):
        cache = model.new_cache()
        steps = [model(tokens[:, t : t + size], cache=cache) for t in range(0, T, size)]
        stepped = np.concatenate(steps, axis=1)
        np.testing.assert_array_equal(stepped.argmax(axis=-1), whole.argmax(axis=-1))
        np.testing.assert_allclose(stepped, whole, atol=1e-4)

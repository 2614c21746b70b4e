"""ImageRegions and FeatureMap: the pixels of a feature map as vectors, and back."""

import numpy as np
import pytest
from checks import assert_same
from layer_checks import check_float32, check_house, check_layer

import attnc

LAYERS = {
    "regions": (lambda **options: attnc.ImageRegions(**options), (2, 5, 3, 4)),
    "map": (lambda **options: attnc.FeatureMap(3, 4, **options), (2, 12, 5)),
}
each = pytest.mark.parametrize("name", LAYERS)


def test_a_pixel_is_a_vector(rng):
    x = rng.standard_normal((2, 5, 3, 4))
    regions = attnc.ImageRegions(dtype="float64")(x)
    assert regions.shape == (2, 12, 5)
    for i, j in np.ndindex(3, 4):
        np.testing.assert_array_equal(regions[:, 4 * i + j], x[:, :, i, j])
    assert_same(attnc.FeatureMap(3, 4, dtype="float64")(regions), x)


@each
def test_gradients(name, rng):
    make, shape = LAYERS[name]
    check_layer(make(dtype="float64"), (rng.standard_normal(shape),), {}, rng)


@each
def test_house(name, rng, tmp_path):
    make, shape = LAYERS[name]
    check_house(make(dtype="float64"), tmp_path)
    check_float32(make(), (rng.standard_normal(shape),), {})


@each
@pytest.mark.parametrize("leading", [(), (0,), (2, 0), (2, 3)])
def test_any_leading_axes(name, leading, rng):
    make, shape = LAYERS[name]
    layer, x = make(dtype="float64"), rng.standard_normal((*leading, *shape[1:]))
    y, pullback = attnc.vjp(layer, x)
    assert_same(pullback(y).x, x)  # the inverse of a permutation is its transpose
    assert y.shape[: len(leading)] == leading
    for n in np.ndindex(*leading):
        assert_same(y[n], layer(x[n]))


@pytest.mark.parametrize("name, shape", [("regions", (2, 1, 3, 4)), ("map", (2, 12, 1))])
def test_one_channel_is_a_copy(name, shape, rng):
    x = rng.standard_normal(shape)
    y, pullback = attnc.vjp(LAYERS[name][0](dtype="float64"), x)
    assert not np.shares_memory(x, y) and not np.shares_memory(pullback(y).x, y)


def test_attention_over_an_image(rng):
    """Convolution, attention over its pixels, and convolution again, as one model."""
    made = {"dtype": "float64"}
    model = attnc.Sequential(
        attnc.Convolution2d(2, 4, 3, padding=1, rng=0, **made),
        attnc.MaxPool2d(2, **made),
        attnc.ImageRegions(**made),
        attnc.Residual(attnc.SelfAttention(4, rng=1, **made)),
        attnc.FeatureMap(3, 2, **made),
        attnc.Convolution2d(4, 1, (3, 2), rng=2, **made),
    )
    y, _ = check_layer(model, (rng.standard_normal((2, 2, 6, 4)),), {}, rng)
    assert y.shape == (2, 1, 1, 1)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: attnc.FeatureMap(0, 2), "FeatureMap: height must be a positive integer, got 0"),
        (
            lambda: attnc.FeatureMap(2, 3)(np.zeros((4, 7, 5))),
            r"FeatureMap: x must have shape \(\.\.\., 6, C\), got \(4, 7, 5\)$",
        ),
        (
            lambda: attnc.ImageRegions()(np.zeros((4, 7))),
            r"ImageRegions: x must have shape \(\.\.\., C, H, W\), got \(4, 7\)$",
        ),
        (
            lambda: attnc.vjp(attnc.ImageRegions(), np.zeros((1, 2, 2)))[1](np.zeros((4, 2))),
            r"ImageRegions: dy must have shape \(4, 1\), got \(4, 2\)$",
        ),
    ],
)
def test_wrong_values(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


@each
def test_wrong_kinds(name):
    make, shape = LAYERS[name]
    with pytest.raises(TypeError, match="train must be True or False"):
        make()(np.zeros(shape), train=1)
    with pytest.raises(TypeError, match="dy"):
        attnc.vjp(make(), np.zeros(shape))[1]()

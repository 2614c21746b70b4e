"""check_gradients: right gradients pass, wrong ones are named with what is wrong in them."""

import numpy as np
import pytest
from arrays import FUNCTIONS, inputs, options
from checks import assert_unchanged

import attnc
from attnc import check_gradients

X, W, B = (np.random.default_rng(0).standard_normal(shape) for shape in ((2, 5, 4), (4, 4), (4,)))


def affine(x, weight, bias):
    return x @ weight + bias


def backward(dy):
    return dy @ W.T, np.einsum("bti,btj->ij", X, dy), dy.sum((0, 1))


def changed(k, change):
    """The backward pass with one gradient changed."""

    def wrong(dy):
        gradients = list(backward(dy))
        gradients[k] = change(gradients[k])
        return gradients

    return wrong


def test_right_gradients_pass():
    with assert_unchanged(X, W, B):
        assert check_gradients(affine, backward, X, W, B) < 1e-8
    assert check_gradients(lambda x: x**3, lambda dy: 3 * X**2 * dy, X) < 1e-8
    assert check_gradients(affine, lambda dy: (None, None, backward(dy)[2]), X, W, B) < 1e-8


ONE = np.array([1, 1, 1, 3.0])
WRONG = [
    (0, lambda g: -g, "x is -1 times the right one"),
    (1, lambda g: 2 * g, "weight is 2 times the right one"),
    (1, lambda g: g / 2, "weight is 0.5 times the right one"),
    (1, lambda g: g / 4, "weight is 1 / 4 of the right one"),
    (1, lambda g: g / 10, "weight is 1 / 10 of the right one"),
    (1, lambda g: 0 * g, "weight is 0 times the right one"),
    (1, lambda g: g.T, "weight is the transpose of the right one"),
    (1, lambda g: g * np.nan, r"weight is wrong in 16 of 16 entries: at \[0, 0\] it is nan"),
    (2, lambda g: g * ONE, r"bias is wrong in 1 of 4 entries: at \[3\] it is"),
    (2, lambda g: g[:3], r"bias must have its shape, \(4,\), got \(3,\)$"),
]


@pytest.mark.parametrize(("k", "change", "said"), WRONG, ids=[said for *_, said in WRONG])
def test_wrong_gradients_are_described(k, change, said):
    with pytest.raises(AssertionError, match=f"^check_gradients: the gradient of {said}"):
        check_gradients(affine, changed(k, change), X, W, B)


@pytest.mark.parametrize(
    "k, unsummed", [(1, lambda dy: np.einsum("bti,btj->bij", X, dy)), (2, lambda dy: dy)]
)
def test_a_sum_over_the_batch_is_missing(k, unsummed):
    def wrong(dy):
        gradients = list(backward(dy))
        gradients[k] = unsummed(dy)
        return gradients

    with pytest.raises(AssertionError, match="a sum over the batch is missing$"):
        check_gradients(affine, wrong, X, W, B)


def test_a_gradient_too_few():
    with pytest.raises(AssertionError, match="a gradient for each of x, weight, bias, got 2"):
        check_gradients(affine, lambda dy: backward(dy)[:2], X, W, B)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_the_package(name, rng):
    arrays, own = inputs(name, rng)
    own |= options("everything", rng)
    function = getattr(attnc, name)
    assert check_gradients(function, None, *arrays, **own, return_weights=True) < 1e-6


LAYERS = [
    (attnc.Linear(4, 3, rng=0, dtype="float64"), (X,)),
    (attnc.GRU(4, 3, rng=0, dtype="float64"), (X,)),
    (attnc.AttentionDecoder(4, 5, 4, rng=0, dtype="float64"), (X, X + 1)),
    (attnc.Embedding(9, 3, rng=0, dtype="float64"), (np.array([[1, 2, 2]]),)),
]


@pytest.mark.parametrize(("layer", "arrays"), LAYERS, ids=lambda x: type(x).__name__)
def test_layers_with_their_parameters(layer, arrays):
    assert check_gradients(layer, None, *arrays) < 1e-6


def test_a_wrong_layer_is_found():
    class Doubled(attnc.Linear):
        def _vjp(self, x, *, train=False):
            y, pullback = super()._vjp(x)

            def twice(dy):
                pullback(dy)
                return pullback(dy)

            return y, twice

    with pytest.raises(AssertionError, match="the gradient of weight is 2 times the right one"):
        check_gradients(Doubled(4, 3, rng=0, dtype="float64"), None, X)


def test_sequences_of_arrays():
    x, parameters = X, [0.3 * np.ones(shape) for shape in ((4, 9), (3, 9), (9,), (9,))]
    assert check_gradients(attnc.functional.gru, None, x, parameters) < 1e-6


def test_what_it_refuses():
    with pytest.raises(TypeError, match="f must be of dtype float64, got a layer of float32"):
        check_gradients(attnc.Linear(4, 3, rng=0), None, X)
    with pytest.raises(TypeError, match=r"arrays\[0\] must be real, got complex128"):
        check_gradients(affine, backward, 1j * X, W, B)

"""MaxPool2d and AveragePool2d: by hand, against their formulas and against PyTorch."""

import numpy as np
import pytest
from checks import assert_agree, assert_close_like_naive, assert_same, wider
from layer_checks import check_float32, check_house, check_layer

import attnc

LAYERS = {"max": attnc.MaxPool2d, "average": attnc.AveragePool2d}
THEIRS = {"max": "max_pool2d", "average": "avg_pool2d"}
SHAPE = 2, 3, 7, 6
# (kernel_size, stride): that touch, overlap, leave pixels out.
KINDS = [(2, None), (3, 1), ((2, 3), (2, 1)), (1, 2), ((7, 6), None), ((3, 2), None), (2, 3)]
each = pytest.mark.parametrize("name", LAYERS)
every = pytest.mark.parametrize("kernel, stride", KINDS)


def test_max_by_hand():
    x = np.array([[1.0, 5, 2, 2], [3, 4, 2, 2], [0, 0, 9, 9]])
    y, pullback = attnc.vjp(attnc.MaxPool2d(2), x)
    np.testing.assert_array_equal(y, [[5, 2]])  # the last row has no window
    np.testing.assert_array_equal(pullback([[10, 20]]).x, [[0, 10, 20, 0], [0] * 4, [0] * 4])
    y, pullback = attnc.vjp(attnc.MaxPool2d(2, stride=1), x)
    np.testing.assert_array_equal(y, [[5, 5, 2], [4, 9, 9]])
    np.testing.assert_array_equal(
        pullback([[1, 2, 4], [8, 16, 32]]).x, [[0, 3, 4, 0], [0, 8, 0, 0], [0, 0, 48, 0]]
    )


def test_max_of_nan_and_infinities():
    x = np.array([[-np.inf, np.nan, 1, -np.inf], [-np.inf, 3, np.inf, -np.inf]])
    y, pullback = attnc.vjp(attnc.MaxPool2d((2, 1)), x)
    np.testing.assert_array_equal(y, [[-np.inf, np.nan, np.inf, -np.inf]])
    dx = pullback([[1, 2, 4, 8]]).x
    np.testing.assert_array_equal(dx, [[1, 2, 0, 8], [0, 0, 4, 0]])


def test_average_by_hand():
    x = np.array([[1.0, 5, 2, 2], [3, 4, 2, 2], [0, 0, 9, 9]])
    y, pullback = attnc.vjp(attnc.AveragePool2d(2), x)
    np.testing.assert_array_equal(y, [[3.25, 2]])
    np.testing.assert_array_equal(pullback([[4, 8]]).x, [[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 0, 0]])


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_average_errs_no_more_than_the_formula(kernel, stride, dtype, rng):
    layer = attnc.AveragePool2d(kernel, stride=stride, dtype=dtype)
    x = rng.standard_normal(SHAPE).astype(dtype)
    kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    rows, columns = (stride, stride) if isinstance(stride, int) else stride or (kh, kw)
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(2, 3))
    windows = windows[:, :, ::rows, ::columns]
    exact = windows.mean(axis=(-1, -2), dtype=wider(np.dtype(dtype)))
    assert_close_like_naive(layer(x), exact, windows.mean(axis=(-1, -2)))


@each
@every
def test_equal_to_torch(name, kernel, stride, rng):
    torch = pytest.importorskip("torch")
    layer = LAYERS[name](kernel, stride=stride, dtype="float64")
    # Few values: many windows hold the largest several times.
    for x in (rng.standard_normal(SHAPE), rng.integers(0, 3, SHAPE).astype(float)):
        tensor = torch.tensor(x, requires_grad=True)
        expected = getattr(torch.nn.functional, THEIRS[name])(tensor, kernel, stride)
        y, pullback = attnc.vjp(layer, x)
        dy = rng.standard_normal(y.shape)
        expected.backward(torch.tensor(dy))
        assert_agree(y, expected.detach().numpy())
        assert_agree(pullback(dy).x, tensor.grad.numpy())


@each
@every
def test_gradients(name, kernel, stride, rng):
    layer = LAYERS[name](kernel, stride=stride, dtype="float64")
    # Numbers that are apart, so that no difference changes which is the largest.
    x = rng.permutation(float(np.prod(SHAPE)) - np.arange(np.prod(SHAPE))).reshape(SHAPE) / 50
    check_layer(layer, (x,), {}, rng)


@each
def test_house(name, rng, tmp_path):
    layer = LAYERS[name]((2, 3), stride=2)
    check_float32(layer, (rng.standard_normal(SHAPE),), {})
    assert repr(layer) == f"{type(layer).__name__}(kernel_size=(2, 3), stride=2)"
    twin = eval(repr(layer), vars(attnc).copy())
    assert twin.kernel_size == (2, 3) and twin.stride == 2 and not twin.parameters
    check_house(LAYERS[name](2, dtype="float64"), tmp_path)


@each
@pytest.mark.parametrize("leading", [(), (0,), (2, 0), (2, 3, 1)])
def test_any_leading_axes(name, leading, rng):
    layer = LAYERS[name](2, dtype="float64")
    x = rng.standard_normal((*leading, 5, 4))
    y, pullback = attnc.vjp(layer, x)
    assert y.shape == (*leading, 2, 2)
    dx = pullback(y).x
    assert dx.shape == x.shape
    for n in np.ndindex(*leading):
        one, back = attnc.vjp(layer, x[n])
        assert_same(y[n], one)
        assert_same(dx[n], back(one).x)


@each
def test_layouts(name, rng):
    layer, x = LAYERS[name](3, stride=2, dtype="float64"), rng.standard_normal(SHAPE)
    y, pullback = attnc.vjp(layer, x)
    dx = pullback(y).x
    readonly = np.asfortranarray(x)
    readonly.flags.writeable = False
    for given in (readonly, x[..., ::-1].copy()[..., ::-1], x.astype(">f8"), x.tolist()):
        got, back = attnc.vjp(layer, given)
        assert_same(got, y)
        assert_same(back(np.asfortranarray(y)).x, dx)


@each
def test_one_pixel_is_a_copy(name, rng):
    x = rng.standard_normal((2, 3))
    y = LAYERS[name](1, dtype="float64")(x)
    assert_same(y, x)
    assert not np.shares_memory(x, y)


@each
def test_wrong_values(name):
    kind = LAYERS[name]
    where, x = kind.__name__, np.zeros((2, 5, 4))
    for call, message in (
        (lambda: kind(0), "kernel_size must be an integer of at least 1 or a pair of them, got 0"),
        (lambda: kind(True), "kernel_size must be an integer of at least 1 or a pair .* got True"),
        (lambda: kind(2, stride=0), "stride must be an integer of at least 1 or a pair .* got 0"),
        (lambda: kind((2, 5))(x), r"x must have images of at least \(2, 5\) pixels, got \(5, 4\)"),
        (lambda: kind(2)(x[0, 0]), r"x must have shape \(\.\.\., H, W\), got \(4,\)$"),
        (lambda: attnc.vjp(kind(2), x)[1](x), r"dy must have shape \(2, 2, 2\), got \(2, 5, 4\)"),
    ):
        with pytest.raises(ValueError, match=f"^{where}: {message}"):
            call()
    for call, message in (
        (lambda: kind(2)(x, train=1), "train must be True or False"),
        (lambda: kind(2)(x > 0), "x must be real"),
        (lambda: kind(2, dtype=int), "dtype must be float32 or float64"),
        (lambda: attnc.vjp(kind(2), x)[1](), ".*dy"),
    ):
        with pytest.raises(TypeError, match=f"^{where}: {message}"):
            call()

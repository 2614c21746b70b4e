"""Convolution2d against its formula, window by window, and against PyTorch."""

import numpy as np
import pytest
from checks import assert_agree, assert_close_like_naive, assert_same, wider
from layer_checks import check_float32, check_house, check_layer, randomize

import attnc

B, C, O, H, W = 3, 2, 4, 7, 6  # noqa: E741

# (kernel_size, stride, padding): windows that overlap, touch, leave pixels out, and one in all.
KINDS = {
    "padded": (3, 1, 1),
    "plain": (3, 1, 0),
    "one pixel": (1, 1, 0),
    "strides": ((3, 2), (2, 1), (1, 0)),
    "apart": (2, 3, 0),
    "touching": ((2, 3), (2, 3), 0),
    "far padding": ((2, 3), 2, (3, 4)),
    "all of it": ((7, 6), 1, 0),
    "larger than the image": ((9, 6), 2, (1, 0)),
}
every = pytest.mark.parametrize("kind", KINDS)


def make(kind, dtype="float64", **options):
    kernel, stride, padding = KINDS[kind]
    return attnc.Convolution2d(
        C, O, kernel, stride=stride, padding=padding, rng=0, dtype=dtype, **options
    )


def both(value):
    return value if isinstance(value, tuple) else (value, value)


def by_windows(layer, x, dy, dtype):
    """The formula, a window at a time: y, and by name the gradients of x and the parameters."""
    weight, bias = (layer.parameters[name].astype(dtype) for name in ("weight", "bias"))
    (kh, kw), stride, (above, beside) = map(both, (layer.kernel_size, layer.stride, layer.padding))
    padded = np.pad(x.astype(dtype), ((0, 0), (0, 0), (above, above), (beside, beside)))
    y, dpadded, dweight = np.empty(dy.shape, dtype), np.zeros_like(padded), np.zeros_like(weight)
    for i, j in np.ndindex(*dy.shape[-2:]):
        top, left = i * stride[0], j * stride[1]
        window = np.s_[:, :, top : top + kh, left : left + kw]
        d = dy[:, :, i, j].astype(dtype)
        y[:, :, i, j] = np.einsum("bcmn,ocmn->bo", padded[window], weight) + bias
        dpadded[window] += np.einsum("bo,ocmn->bcmn", d, weight)
        dweight += np.einsum("bo,bcmn->ocmn", d, padded[window])
    dx = dpadded[:, :, above : above + x.shape[2], beside : beside + x.shape[3]]
    dbias = dy.astype(dtype).sum(axis=(0, 2, 3))
    return y, {"x": dx, "weight": dweight, "bias": dbias}


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_errs_no_more_than_the_formula(kind, dtype, rng):
    layer = randomize(make(kind, dtype), rng)
    x = rng.standard_normal((B, C, H, W)).astype(dtype)
    y, pullback = attnc.vjp(layer, x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    got = vars(pullback(dy)) | layer.gradients
    exact, exact_d = by_windows(layer, x, dy, wider(np.dtype(dtype)))
    naive, naive_d = by_windows(layer, x, dy, dtype)
    assert_close_like_naive(y, exact, naive)
    assert got.keys() == exact_d.keys()
    for name, d in got.items():
        assert_close_like_naive(d, exact_d[name], naive_d[name], what=name)


@every
@pytest.mark.parametrize("bias", [True, False])
def test_gradients(kind, bias, rng):
    layer = randomize(make(kind, bias=bias), rng)
    check_layer(layer, (rng.standard_normal((B, C, H, W)),), {}, rng)


def test_house(rng, tmp_path):
    check_house(make("strides"), tmp_path)
    check_float32(make("strides", "float32"), (rng.standard_normal((B, C, H, W)),), {})
    assert repr(make("strides", "float32")) == (
        "Convolution2d(input_channels=2, output_channels=4, kernel_size=(3, 2), stride=(2, 1), "
        "padding=(1, 0))"
    )
    assert list(make("plain", bias=False).parameters) == ["weight"]


def twin_of(torch, layer):
    sizes = layer.kernel_size, layer.stride, layer.padding
    dtype = getattr(torch, layer.dtype.name)
    twin = torch.nn.Conv2d(C, O, *sizes, bias=layer.bias, dtype=dtype)
    state = layer.torch_state_dict()
    assert list(state) == list(twin.state_dict())
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return twin


def computed_by(torch, twin, x, dy):
    """y and the gradients by name, of PyTorch."""
    x = torch.tensor(x, dtype=twin.weight.dtype, requires_grad=True)
    y = twin(x)
    y.backward(torch.tensor(dy, dtype=x.dtype))
    gradients = {"x": x.grad} | {n: p.grad for n, p in twin.named_parameters()}
    return y.detach().numpy(), {name: d.numpy() for name, d in gradients.items()}


@every
@pytest.mark.parametrize("bias", [True, False])
def test_equal_to_torch(kind, bias, rng):
    torch = pytest.importorskip("torch")
    layer = randomize(make(kind, bias=bias), rng)
    x = rng.standard_normal((B, C, H, W))
    y, pullback = attnc.vjp(layer, x)
    dy = rng.standard_normal(y.shape)
    got = vars(pullback(dy)) | layer.gradients
    expected, gradients = computed_by(torch, twin_of(torch, layer), x, dy)
    assert_agree(y, expected)
    assert got.keys() == gradients.keys()
    for name, d in got.items():
        assert_agree(d, gradients[name], name)


@every
def test_float32_errs_no_more_than_torch(kind, rng):
    torch = pytest.importorskip("torch")
    layer = randomize(make(kind, "float32"), rng)
    x = rng.standard_normal((B, C, H, W)).astype(np.float32)
    y, pullback = attnc.vjp(layer, x)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    got = vars(pullback(dy)) | layer.gradients
    twin = twin_of(torch, layer)
    theirs, their_d = computed_by(torch, twin, x, dy)
    exact, exact_d = computed_by(torch, twin_of(torch, layer).double(), x, dy)
    assert_close_like_naive(y, exact, theirs)
    for name, d in got.items():
        assert_close_like_naive(d, exact_d[name], their_d[name], what=name)


def test_weights_of_torch():
    torch = pytest.importorskip("torch")
    layer, twin = make("strides", "float32"), torch.nn.Conv2d(C, O, (3, 2))
    layer.load_torch_state_dict(twin.state_dict())
    for name, array in twin.state_dict().items():
        assert_same(layer.parameters[name], array.numpy())
    assert_same(layer.torch_state_dict(), layer.state_dict())


# ---- Shapes and layouts --------------------------------------------------------------------------


@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (0,), (2, 0)])
def test_any_leading_axes(leading, rng):
    layer = randomize(make("padded"), rng)
    x = rng.standard_normal((*leading, C, H, W))
    y, pullback = attnc.vjp(layer, x)
    assert y.shape == (*leading, O, H, W)
    dy = rng.standard_normal(y.shape)
    (dx,) = pullback(dy)
    assert dx.shape == x.shape
    together = {name: d.copy() for name, d in layer.gradients.items()}
    layer.zero_grad()
    for n in np.ndindex(*leading):
        one, back = attnc.vjp(layer, x[n])
        assert_agree(y[n], one)
        assert_agree(dx[n], back(dy[n]).x)
    for name, d in together.items():
        assert_agree(d, layer.gradients[name], name)


LAYOUTS = {
    "list": lambda x: x.tolist(),
    "channels last": lambda x: np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1),
    "reversed": lambda x: x[..., ::-1].copy()[..., ::-1],
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "readonly": lambda x: _readonly(x.copy()),
    "swapped": lambda x: x.astype(">f8"),
}


def _readonly(x):
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, rng):
    layer = randomize(make("strides"), rng)
    x = rng.standard_normal((B, C, H, W))
    y, pullback = attnc.vjp(layer, x)
    dy = rng.standard_normal(y.shape)
    dx = pullback(dy).x
    got, back = attnc.vjp(layer, LAYOUTS[layout](x))
    assert_same(got, y)
    assert_same(back(LAYOUTS[layout](dy)).x, dx)
    assert got.flags.c_contiguous and dx.flags.c_contiguous


def test_one_window_reads_no_other(rng):
    """A NaN reaches the windows that it lies in, and no gradient beyond its own."""
    layer = randomize(make("plain"), rng)
    x = rng.standard_normal((1, C, H, W))
    x[0, 0, 0, 0] = np.nan
    y, pullback = attnc.vjp(layer, x)
    assert np.isnan(y[0, :, 0, 0]).all() and np.isfinite(y[0, :, 1:]).all()
    assert np.isfinite(y[0, :, :, 1:]).all()
    dy = np.ones_like(y)
    dy[0, :, 0, 0] = 0  # where nothing depends on it
    assert np.isfinite(pullback(dy).x).all()
    assert all(np.isfinite(d).all() for d in layer.gradients.values())


def test_frozen(rng):
    layer = make("padded").freeze("weight")
    x = rng.standard_normal((B, C, H, W))
    y, pullback = attnc.vjp(layer, x)
    pullback(y)
    assert not layer.gradients["weight"].any() and layer.gradients["bias"].all()


def test_initial_weights_are_those_of_glorot():
    weight = attnc.Convolution2d(16, 32, 3, rng=0).parameters["weight"]
    bound = np.sqrt(6 / (16 * 9 + 32))
    assert 0.99 * bound < np.abs(weight).max() <= np.float32(bound)
    assert abs(weight.std() - bound / np.sqrt(3)) < 0.02 * bound


# ---- What is refused -----------------------------------------------------------------------------

X = np.zeros((2, 3, 8, 8))
WRONG = {
    "no channels": (
        lambda: attnc.Convolution2d(0, 1, 3),
        "Convolution2d: input_channels must be a positive integer, got 0",
    ),
    "kernel": (
        lambda: attnc.Convolution2d(3, 1, 0),
        "Convolution2d: kernel_size must be an integer of at least 1 or a pair of them, got 0",
    ),
    "three sides": (
        lambda: attnc.Convolution2d(3, 1, (3, 3, 3)),
        "kernel_size must be an integer of at least 1 or a pair of them, got (3, 3, 3)",
    ),
    "a float": (
        lambda: attnc.Convolution2d(3, 1, 3.0),
        "kernel_size must be an integer of at least 1 or a pair of them, got 3.0",
    ),
    "stride": (
        lambda: attnc.Convolution2d(3, 1, 3, stride=(1, 0)),
        "stride must be an integer of at least 1 or a pair of them, got (1, 0)",
    ),
    "padding": (
        lambda: attnc.Convolution2d(3, 1, 3, padding=-1),
        "padding must be an integer of at least 0 or a pair of them, got -1",
    ),
    "padding by name": (
        lambda: attnc.Convolution2d(3, 1, 3, padding="same"),
        "padding must be an integer of at least 0 or a pair of them, got 'same'",
    ),
    "channels": (
        lambda: attnc.Convolution2d(1, 1, 3)(X),
        "Convolution2d: x must have shape (..., 1, H, W), got (2, 3, 8, 8)",
    ),
    "channels of one image": (
        lambda: attnc.Convolution2d(1, 1, 3)(X[0]),
        "Convolution2d: x must have shape (..., 1, H, W), got (3, 8, 8)",
    ),
    "an image without channels": (
        lambda: attnc.Convolution2d(1, 1, 3)(X[0, 0]),
        "Convolution2d: x must have shape (..., 1, H, W), got (8, 8)",
    ),
    "a small image": (
        lambda: attnc.Convolution2d(3, 1, (9, 3))(X),
        "Convolution2d: x must have images of at least (9, 3) pixels, got (8, 8)",
    ),
    "a small image, padded": (
        lambda: attnc.Convolution2d(3, 1, 11, padding=(1, 2))(X),
        "x must have images of at least (11, 11) pixels, got (8, 8) padded by (1, 2)",
    ),
    "dy": (
        lambda: attnc.vjp(attnc.Convolution2d(3, 1, 3), X)[1](np.zeros((2, 1, 8, 8))),
        "Convolution2d: dy must have shape (2, 1, 6, 6), got (2, 1, 8, 8)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value).endswith(message)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: attnc.Convolution2d(3, 1, 3, bias=1), "Convolution2d: bias must be True or False"),
        (lambda: attnc.Convolution2d(3, 1, 3, dtype="int32"), "Convolution2d: dtype must be float"),
        (lambda: attnc.Convolution2d(3, 1, 3)(X, train=1), "Convolution2d: train must be True"),
        (lambda: attnc.Convolution2d(3, 1, 3)(X > 0), "Convolution2d: x must be real"),
        (lambda: attnc.vjp(attnc.Convolution2d(3, 1, 3), X)[1](), "Convolution2d: .*dy"),
    ],
)
def test_wrong_kinds(call, message):
    with pytest.raises(TypeError, match=message):
        call()

"""The layers as modules of PyTorch: against the layers themselves, and against torch.nn."""

import concurrent.futures
import copy
import gc
import inspect
import io
import pickle
import weakref

import numpy as np
import pytest
from checks import assert_agree, assert_same
from test_saving import LAYERS

import attnc

torch = pytest.importorskip("torch")

from torch_processes import Encoded, Model, distributed, losses_of  # noqa: E402

import attnc.torch  # noqa: E402
from attnc.torch.nn import LayerModule  # noqa: E402

B, T, S = 2, 3, 5


def x(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


# The inputs of a call of each layer of LAYERS, and its options.
CALLS = {
    "DotProductAttention": (lambda: (x(B, T, 4), x(B, S, 4), x(B, S, 6)), {"causal": True}),
    "MultiplicativeAttention": (lambda: (x(B, T, 3), x(B, S, 4)), {"return_weights": True}),
    "AdditiveAttention": (lambda: (x(B, T, 3), x(B, S, 4)), {"key_lengths": [5, 2]}),
    "CosineAttention": (lambda: (x(B, T, 4), x(B, S, 4)), {}),
    "MonotonicAttention": (lambda: (x(B, T, 3), x(B, S, 4)), {}),
    "ChunkwiseAttention": (lambda: (x(B, T, 4), x(B, S, 4)), {}),
    "MultiHeadAttention": (
        lambda: (x(B, T, 6), x(B, S, 5)),
        {"return_weights": True, "return_lse": True},
    ),
    "AttentionPooling": (lambda: (x(B, T, 4),), {}),
    "HierarchicalAttention": (lambda: (x(B, T, S, 4),), {}),
    "AttentionOnAttention": (lambda: (x(B, T, 3), x(B, S, 4), x(B, S, 4)), {}),
    "AttentionOverAttention": (lambda: (x(B, T, 4), x(B, S, 4), x(B, S, 2)), {}),
    "GatedAttention": (lambda: (x(B, T, 3), x(B, S, 3)), {}),
    "LocalAttention": (lambda: (x(B, T, 3), x(B, S, 4)), {}),
    "HardAttention": (lambda: (x(B, T, 3), x(B, S, 4)), {"index": np.ones((B, T), int)}),
    "SelfAttention": (lambda: (x(B, T, 4),), {}),
    "RNN": (lambda: (x(B, T, 3),), {}),
    "GRU": (lambda: (x(B, T, 3), x(4, B, 4)), {"lengths": [3, 2]}),
    "LSTM": (lambda: (x(B, T, 3), (x(1, B, 4), x(1, B, 4))), {}),
    "AttentionDecoder": (lambda: (x(B, T, 3), x(B, S, 5)), {}),
    "Seq2Seq": (lambda: (np.ones((B, S), int), np.ones((B, T), int)), {}),
    "Linear": (lambda: (x(B, 3),), {}),
    "Embedding": (lambda: (np.array([[1, 4, 4], [0, 2, 3]]),), {}),
    "Convolution2d": (lambda: (x(B, 2, 5, 4),), {}),
    "MaxPool2d": (lambda: (x(B, 2, 5, 4),), {}),
    "AveragePool2d": (lambda: (x(B, 2, 5, 4),), {}),
    "ImageRegions": (lambda: (x(B, 4, 2, 3),), {}),
    "FeatureMap": (lambda: (x(B, 6, 4),), {}),
    "LayerNorm": (lambda: (x(B, 3),), {}),
    "RMSNorm": (lambda: (x(B, 3),), {}),
    "FeedForward": (lambda: (x(B, T, 3),), {}),
    "SinusoidalPositions": (lambda: (x(B, T, 3),), {}),
    "RelativePositionBias": (lambda: (T, S), {}),
    "LearnedPositions": (lambda: (x(B, T, 3),), {"offset": 1}),
    "TransformerEncoderLayer": (lambda: (x(B, T, 8),), {"key_lengths": [3, 1]}),
    "TransformerDecoderLayer": (lambda: (x(B, T, 6), x(B, S, 6)), {}),
    "TransformerEncoder": (lambda: (x(B, T, 6),), {"return_weights": True}),
    "TransformerDecoder": (lambda: (x(B, T, 6), x(B, S, 6)), {}),
    "Transformer": (lambda: (np.ones((B, S), int), np.ones((B, T), int)), {}),
    "LanguageModel": (lambda: (np.ones((B, T), int),), {}),
    "Dropout": (lambda: (x(B, 3),), {}),
    "Sequential": (lambda: (x(B, 3),), {}),
    "Residual": (lambda: (x(B, 3),), {}),
}


def tensors(value, dtype):
    """Arrays as tensors that require a gradient, if they are real."""
    if isinstance(value, tuple):
        return tuple(tensors(item, dtype) for item in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return torch.tensor(value, dtype=dtype, requires_grad=True)
    return torch.tensor(value) if isinstance(value, np.ndarray) else value


def leaves(value):
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def like_random(output, seed=1):
    """Gradients of the output that are no constants, as arrays nested like it."""
    if isinstance(output, tuple):
        return tuple(like_random(item, seed + k) for k, item in enumerate(output))
    if output is None:
        return None
    return np.random.default_rng(seed).standard_normal(np.shape(output)).astype(output.dtype)


def pulled(layer, inputs, options):
    """Output, gradients of the inputs by name, and of the parameters, of the layer itself."""
    layer.zero_grad()
    output, pullback = attnc.vjp(layer, *inputs, **options)
    d = like_random(output)
    if hasattr(output, "_fields"):
        named = zip(output._fields, output, d, strict=True)
        gradients = pullback(
            **{
                f"d{name}": g
                for name, y, g in named
                if y is not None and leaves(y)[0].dtype.kind == "f"
            }
        )
    else:
        gradients = pullback(d)
    return output, vars(gradients), dict(layer.gradients)


def loss_of(output):
    """The loss whose gradients are those of `like_random`."""
    pairs = zip(leaves(output), leaves(like_random(numbers(output))), strict=True)
    return sum(
        (y * torch.from_numpy(d)).sum() for y, d in pairs if y is not None and y.is_floating_point()
    )


def numbers(value):
    """Tensors as arrays; all else as it is."""
    if isinstance(value, tuple):
        items = [numbers(item) for item in value]
        return value._make(items) if hasattr(value, "_make") else tuple(items)
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("train", [False, True], ids=["", "train"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_bits_of_the_layer(name, train):
    """Values and all gradients; those of parameters reach no array of the layer."""
    make, options = CALLS[name]
    layer = LAYERS[name]()
    taken = list(inspect.signature(layer._vjp).parameters)
    given = tensors(make(), torch.float64 if layer.dtype == np.float64 else torch.float32)
    called = options | {"rng": 7} if train and "rng" in taken else options
    of_layer = called | {"train": train} if "train" in taken else called
    expected, dinputs, dparameters = pulled(copy.deepcopy(layer), numbers(given), of_layer)

    module = LayerModule(layer).train(train)
    output = module(*given, **called)
    assert_same(numbers(output), expected)
    assert not hasattr(expected, "_fields") or type(output) is type(expected)
    if any(getattr(y, "requires_grad", False) for y in leaves(output)):
        loss_of(output).backward()
    for argument, value in zip(taken, given, strict=False):
        for k, tensor in enumerate(leaves(value)):
            if getattr(tensor, "requires_grad", False):
                assert_same(tensor.grad.numpy(), leaves(dinputs[argument])[k])
    for key, parameter in module.named_parameters():
        assert_same(parameter.grad.numpy(), dparameters[key])
    assert not any(gradient.any() for gradient in module.layer.gradients.values())
    with torch.no_grad():
        assert_same(numbers(module(*given, **called)), expected)


# ---- against torch.nn ----------------------------------------------------------------------------

TWINS = {
    "Linear": (lambda: torch.nn.Linear(4, 3), (4, 3), lambda: (x(2, 4),), {}, {}),
    "Embedding": (
        lambda: torch.nn.Embedding(6, 4),
        (6, 4),
        lambda: (np.array([[1, 2, 1], [5, 0, 1]]),),
        {},
        {},
    ),
    "LayerNorm": (lambda: torch.nn.LayerNorm(4), (4,), lambda: (x(2, 3, 4),), {}, {}),
    "GRU": (
        lambda: torch.nn.GRU(4, 3, 2, bidirectional=True, batch_first=True),
        (4, 3, 2, True),
        lambda: (x(2, 5, 4), x(4, 2, 3)),
        {},
        {},
    ),
    "LSTM": (
        lambda: torch.nn.LSTM(4, 3, batch_first=True),
        (4, 3),
        lambda: (x(2, 5, 4), (x(1, 2, 3), x(1, 2, 3))),
        {},
        {},
    ),
    "RNN": (lambda: torch.nn.RNN(4, 3, batch_first=True), (4, 3), lambda: (x(2, 5, 4),), {}, {}),
    "MultiHeadAttention": (
        lambda: torch.nn.MultiheadAttention(8, 2, batch_first=True, kdim=5, vdim=3),
        (8, 2, {"key_size": 5, "value_size": 3, "projection_bias": True}),
        lambda: (x(2, 4, 8), x(2, 5, 5), x(2, 5, 3)),
        {"average_attn_weights": False},
        {"return_weights": True},
    ),
    "TransformerEncoderLayer": (
        lambda: torch.nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True),
        (8, 2, 12),
        lambda: (x(2, 4, 8),),
        {},
        {},
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_twins_of_torch(name):
    """Values and gradients of float64 twins, weights through both kinds of state_dict."""
    make, sizes, inputs, theirs, ours = TWINS[name]
    *sizes, more = sizes if isinstance(sizes[-1], dict) else (*sizes, {})
    torch.manual_seed(0)
    twin = make().double()
    module = getattr(attnc.torch.nn, name)(*sizes, **more, dtype=torch.float64)
    module.layer.load_torch_state_dict(twin.state_dict())
    found = []
    for model, options in ((twin, theirs), (module, ours)):
        given = tensors(inputs(), torch.float64)
        output = model(*given, **options)
        loss_of(tuple(output) if isinstance(output, tuple) else output).backward()
        real = [t.grad.numpy() for t in leaves(given) if t.requires_grad]
        found.append((leaves(numbers(output)), real))
    for expected, got in zip(*found, strict=True):
        for array, other in zip(expected, got, strict=True):
            assert_agree(other, array)
    # A layer that has the gradients for parameters gives them by PyTorch's names.
    gradients = copy.deepcopy(module.layer)
    gradients.load_state_dict({key: p.grad.numpy() for key, p in module.named_parameters()})
    for key, array in gradients.torch_state_dict().items():
        assert_agree(array, twin.get_parameter(key).grad.numpy(), key)
    back = make()
    back.load_state_dict(
        {key: torch.from_numpy(array) for key, array in module.layer.torch_state_dict().items()}
    )
    for key, parameter in back.named_parameters():
        assert torch.equal(parameter, twin.get_parameter(key).float())


def tagger():
    """A model of a user's: attnc's modules among PyTorch's."""
    return torch.nn.Sequential(
        attnc.torch.nn.Embedding(9, 6),
        attnc.torch.nn.MultiHeadAttention(6, 2),
        torch.nn.Tanh(),
        attnc.torch.nn.Linear(6, 9),
    )


def train(model, steps=4, lr=0.1):
    """The losses of some steps of SGD."""
    tokens = torch.arange(12).reshape(2, 6) % 9
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            model(tokens).flatten(0, 1), tokens.roll(-1, 1).flatten()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_as_the_layers_do():
    """PyTorch's optimiser on the modules, attnc's on the layers: the same losses."""
    torch.manual_seed(0)
    model = tagger().double()
    layers = [copy.deepcopy(model[k].layer) for k in (0, 1, 3)]
    tokens = np.arange(12).reshape(2, 6) % 9
    optimizer = attnc.optim.SGD(layers, 0.1, momentum=0.9)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        a, back_a = attnc.vjp(layers[0], tokens)
        b, back_b = attnc.vjp(layers[1], a)
        c, back_c = attnc.vjp(layers[2], np.tanh(b))
        loss, back = attnc.vjp(attnc.losses.softmax_cross_entropy, c, np.roll(tokens, -1, 1))
        (db,) = back_c(back().logits)
        back_a(back_b(db * (1 - np.tanh(b) ** 2)).query)
        attnc.optim.clip_gradients(layers, 1.0)
        optimizer.step()
        losses.append(float(loss))
    np.testing.assert_allclose(train(model), losses, rtol=1e-12)
    assert losses[-1] < losses[0]


# ---- parameters ----------------------------------------------------------------------------------


def test_parameters_share_memory():
    module = attnc.torch.nn.GRU(3, 4)
    layer, parameter = module.layer, module.cells[0].input_weight
    assert type(parameter) is torch.nn.Parameter
    with torch.no_grad():
        parameter.fill_(2.0)
    assert (layer.parameters["cells.0.input_weight"] == 2).all()
    layer.parameters["cells.0.input_weight"] = np.ones((3, 12))
    assert (parameter == 1).all()


def test_constructors():
    """Weights come from PyTorch's generator, the dtype is PyTorch's default."""
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        made.append(attnc.torch.nn.AdditiveAttention(3, 4, hidden_size=5))
    assert_same(made[0].layer.state_dict(), made[1].layer.state_dict())
    expected = attnc.AdditiveAttention(3, 4, hidden_size=5, rng=3)
    assert_same(
        attnc.torch.nn.AdditiveAttention(3, 4, hidden_size=5, rng=3).layer.state_dict(),
        expected.state_dict(),
    )
    assert repr(made[0]) == repr(expected)
    assert inspect.signature(attnc.torch.nn.GRU) == inspect.signature(attnc.GRU)
    assert attnc.torch.nn.Linear(2, 2).weight.dtype is torch.float32
    try:
        torch.set_default_dtype(torch.float64)
        assert attnc.torch.nn.Linear(2, 2).weight.dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def tied(positions="sinusoidal"):
    torch.manual_seed(0)
    return attnc.torch.nn.LanguageModel(7, 4, 2, 1, positions=positions)


def test_ties_are_one_parameter():
    module = tied()
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    (mirror,) = set(module.layer.parameters) - set(names)  # the output, which is transposed
    state = module.state_dict()
    assert state.keys() == module.layer.state_dict().keys()
    tokens = torch.arange(6).reshape(2, 3)
    expected, _, dparameters = pulled(copy.deepcopy(module.layer), (tokens.numpy(),), {})
    loss_of(module(tokens)).backward()
    for name, parameter in module.named_parameters():
        assert_same(parameter.grad.numpy(), dparameters[name])
    fresh = tied()
    fresh.load_state_dict(state)
    assert_same(fresh.layer.state_dict(), module.layer.state_dict())
    fresh.load_state_dict(module.layer.state_dict())  # arrays will do
    with pytest.raises(RuntimeError, match=f"LanguageModel: {mirror} must be .* transposed"):
        fresh.load_state_dict(state | {mirror: state[mirror] + 1})
    with pytest.raises(RuntimeError, match=f"Missing key.*{mirror}"):
        fresh.load_state_dict({name: state[name] for name in state if name != mirror})
    inside = torch.nn.ModuleDict({"model": tied()})
    inside.load_state_dict({f"model.{name}": value for name, value in state.items()})
    assert_same(inside["model"].layer.state_dict(), module.layer.state_dict())


def test_a_layer_in_two_places():
    layer = attnc.Transformer(9, 9, 6, 2, encoder_layers=1, decoder_layers=1, tied=True, rng=0)
    module = LayerModule(layer)
    assert sum(p.numel() for p in module.parameters()) == layer.parameter_count


REPLACED = {
    "assign": lambda module, state: module.load_state_dict(state, assign=True),
    "data": lambda module, state: [
        setattr(p, "data", state[name].clone()) for name, p in module.named_parameters()
    ],
    "parameter": lambda module, state: [
        setattr(
            module.get_submodule(name.rpartition(".")[0]),
            name.rpartition(".")[2],
            torch.nn.Parameter(state[name].clone()),
        )
        for name, _ in list(module.named_parameters())
    ],
    "vector": lambda module, state: torch.nn.utils.vector_to_parameters(
        torch.cat([state[name].flatten() for name, _ in module.named_parameters()]),
        module.parameters(),
    ),
    "not contiguous": lambda module, state: [
        setattr(p, "data", state[name].t().contiguous().t() if p.ndim == 2 else state[name])
        for name, p in module.named_parameters()
    ],
    "shared memory": lambda module, state: (module.share_memory(), module.load_state_dict(state)),
}


@pytest.mark.parametrize("how", REPLACED)
def test_the_layer_follows_new_parameters(how):
    torch.manual_seed(0)
    module, other = attnc.torch.nn.GRU(3, 4), attnc.torch.nn.GRU(3, 4)
    before = module.layer
    REPLACED[how](module, other.state_dict())
    assert module.layer is before
    assert_same(before.state_dict(), other.layer.state_dict())
    with torch.no_grad():
        next(module.parameters()).zero_()
    given = torch.ones(2, 3, 3)
    outputs, _ = module(given)
    assert_same(outputs.detach().numpy(), module.layer(given.numpy())[0])
    assert not module.layer.parameters["cells.0.input_weight"].any()
    outputs.sum().backward()
    assert all(p.grad.shape == p.shape for p in module.parameters())
    assert module.cells[0].input_weight.grad.any()


def test_dtypes():
    torch.manual_seed(0)
    module = attnc.torch.nn.TransformerEncoderLayer(4, 2, 5)
    state = module.layer.state_dict()
    assert module.double() is module and module.layer.dtype == np.float64
    given = torch.randn(2, 3, 4, dtype=torch.float64)
    reference = attnc.TransformerEncoderLayer(4, 2, 5, dtype="float64")
    reference.load_state_dict(state)
    output = module(given)
    assert_same(output.detach().numpy(), reference(given.numpy()))
    output.sum().backward()
    assert {p.grad.dtype for p in module.parameters()} == {torch.float64}
    module.zero_grad()
    assert module.to(torch.float32).layer.dtype == np.float32
    assert_same(module.layer.state_dict(), state)
    for change in ("half", "bfloat16"):
        with pytest.raises(TypeError, match="TransformerEncoderLayer: parameters must stay on the"):
            getattr(module, change)()
    with pytest.raises(TypeError, match="parameters must stay on the CPU.*on meta"):
        module.to("meta")
    assert_same(module.layer.state_dict(), state)
    for narrow in (torch.float16, torch.bfloat16):  # inputs may be anything
        small = given.to(narrow).requires_grad_()
        output = module(small)
        output.sum().backward()
        assert (output.dtype, small.grad.dtype) == (torch.float32, narrow)
    next(module.parameters()).data = next(module.parameters()).data.double()
    with pytest.raises(TypeError, match="all be float32 or all float64, got torch.float32, torch"):
        module(given)


def test_autocast():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 4), attnc.torch.nn.MultiHeadAttention(4, 2), torch.nn.Linear(4, 2)
    )
    given = torch.randn(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        first = model[0](given)
        context = model[1](first)
        output = model[2](context)
    assert first.dtype is output.dtype is torch.bfloat16
    assert_same(context.detach().numpy(), model[1].layer(first.detach().float().numpy()))
    output.float().sum().backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


def test_frozen():
    torch.manual_seed(0)
    module = attnc.torch.nn.GRU(3, 4)
    given = torch.randn(2, 5, 3, requires_grad=True)
    module(given)[0].sum().backward()
    expected = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    frozen = "cells.0.state_weight"
    module.get_parameter(frozen).requires_grad_(False)
    assert module.layer.frozen_parameters == (frozen,)
    module(given)[0].sum().backward()
    for name, parameter in module.named_parameters():
        if name == frozen:
            assert parameter.grad is None
        else:
            assert torch.equal(parameter.grad, expected[name])
    module.requires_grad_(False)
    given.grad = None
    module(given)[0].sum().backward()
    assert given.grad.any() and not module(given.detach())[0].requires_grad
    assert LayerModule(attnc.Linear(2, 2).freeze("bias")).bias.requires_grad is False


def test_freezing_between_forward_and_backward():
    module = attnc.torch.nn.Linear(3, 2)
    given = torch.ones(1, 3, requires_grad=True)
    y = module(given)
    fixed = {name: p.detach().clone() for name, p in module.named_parameters()}
    torch.func.functional_call(module, fixed, torch.ones(1, 3))  # they have no gradient
    y.sum().backward()
    assert (module.weight.grad == 1).all()


# ---- what PyTorch does with modules --------------------------------------------------------------


def saved(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "save": saved,
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_independent(how):
    module = tied()
    tokens = torch.arange(6).reshape(2, 3)
    other = COPIES[how](module)
    assert type(other) is type(module) and torch.equal(other(tokens), module(tokens))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert not any(array.any() for array in other.layer.parameters.values())
    assert all(p.any() for name, p in module.named_parameters() if name.endswith("weight"))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(tokens), module(tokens))
    assert len(list(other.parameters())) == len(list(module.parameters()))


def test_hooks():
    module, seen = attnc.torch.nn.Linear(3, 2), []
    module.register_forward_pre_hook(lambda *_: seen.append("before"))
    module.register_forward_hook(lambda *_: seen.append("after"))
    module.register_full_backward_hook(lambda *_: seen.append("back"))
    module.weight.register_hook(lambda gradient: gradient * 2)
    module.bias.register_post_accumulate_grad_hook(lambda _: seen.append("accumulated"))
    module(torch.ones(1, 3, requires_grad=True)).sum().backward()
    assert seen[:2] == ["before", "after"] and set(seen[2:]) == {"back", "accumulated"}
    assert (module.weight.grad == 2).all() and (module.bias.grad == 1).all()


def test_parametrised_and_functional():
    torch.manual_seed(0)
    module, plain = attnc.torch.nn.Linear(3, 2).double(), torch.nn.Linear(3, 2).double()
    given = torch.randn(4, 3).double()
    values = {"weight": torch.randn(3, 2).double().requires_grad_(), "bias": torch.ones(2).double()}
    output = torch.func.functional_call(module, values, given)
    expected = torch.nn.functional.linear(given, values["weight"].t(), values["bias"])
    assert_agree(output.detach().numpy(), expected.detach().numpy())
    (d,) = torch.autograd.grad(output.sin().sum(), values["weight"])
    (wanted,) = torch.autograd.grad(expected.sin().sum(), values["weight"])
    assert_agree(d.numpy(), wanted.numpy())
    first = module(given)  # with its own again
    other = torch.func.functional_call(module, values, given)
    (first.sum() + other.sum()).backward()  # two calls of the same layer with other weights
    assert_agree(module.weight.grad.numpy(), given.sum(0)[:, None].expand(3, 2).numpy())
    with torch.no_grad():
        plain.weight.copy_(module.weight.t())
        plain.bias.copy_(module.bias)
    torch.nn.utils.parametrizations.weight_norm(module, dim=1)
    torch.nn.utils.parametrizations.weight_norm(plain, dim=0)
    for model in (module, plain):
        model(given).square().sum().backward()
    original = module.parametrizations.weight.original1.grad
    assert_agree(original.t().numpy(), plain.parametrizations.weight.original1.grad.numpy())


class Drops(torch.nn.Module):
    """Some dropout of PyTorch's around that of a layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = attnc.torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.4)

    def forward(self, given):
        return torch.nn.functional.dropout(self.layer(given), 0.5, self.training)


def test_dropout_comes_from_the_generator_of_torch():
    module, given = Drops(), torch.randn(3, 5, 4)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(module(given))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    layer = module.layer
    one, two = (layer(given, rng=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    module.eval()
    assert torch.equal(module(given), module(given))
    state = torch.get_rng_state()
    module(given)
    assert torch.equal(torch.get_rng_state(), state)


class Noisy(attnc.Layer):
    """A layer of a user, which draws in its own way."""

    def _vjp(self, x, *, train=False, rng=None):
        return x + train * np.random.default_rng(rng).random(x.shape), lambda dy: (dy,)


RANDOM = {  # beside LAYERS: how they are made, whether they draw
    "no dropout": (lambda: attnc.GRU(3, 4, 2, rng=0), False),
    "dropout": (lambda: attnc.GRU(3, 4, 2, dropout=0.5, rng=0), True),
    "within": (lambda: attnc.Sequential(attnc.Dropout(0.5)), True),
    "nothing within": (lambda: attnc.Sequential(attnc.Dropout(0.0), attnc.Linear(3, 3)), False),
    "noise": (lambda: attnc.AttentionDecoder(3, 4, 5, alignment="monotonic", rng=0), True),
    "no noise": (
        lambda: attnc.AttentionDecoder(3, 4, 5, alignment="monotonic", energy_noise=0.0, rng=0),
        False,
    ),
    "choice": (lambda: attnc.HardAttention(3, 5, rng=0), True),
    "of a user": (Noisy, True),
}


@pytest.mark.parametrize("name", [*LAYERS, *RANDOM])
def test_what_draws_nothing_leaves_the_generator_of_torch_alone(name):
    """And what draws takes all from it: the same state, the same outputs."""
    if name in RANDOM:
        make, draws = RANDOM[name]
        layer, options, given = make(), {}, (x(B, T, 3), x(B, S, 5))
        given = given[: 1 + hasattr(layer, "memory_size") + hasattr(layer, "key_size")]
    else:
        make, options = CALLS[name]
        layer, draws, given = LAYERS[name](), None, make()
    module = LayerModule(layer).train()
    given = tensors(given, torch.float64 if layer.dtype == np.float64 else torch.float32)

    def run():
        return [numbers(y) for y in leaves(module(*given, **options))]

    torch.manual_seed(0)
    before = torch.get_rng_state()
    outputs = run()
    same = torch.equal(torch.get_rng_state(), before)
    assert draws is None or same != draws
    torch.set_rng_state(before)
    assert_same(run(), outputs)
    module.eval()
    if same:
        assert_same(run(), outputs)
    else:
        with pytest.raises(AssertionError):
            assert_same(run(), outputs)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant):
    module, given = Drops(), torch.randn(3, 5, 4, requires_grad=True)
    found = []
    for through in (lambda f, x: f(x), torch.utils.checkpoint.checkpoint):
        options = {"use_reentrant": reentrant} if through is not None and found else {}
        torch.manual_seed(1)
        module.zero_grad()
        given.grad = None
        through(module, given, **options).square().sum().backward()
        found.append([given.grad, *(p.grad for p in module.parameters())])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_saved_tensors_elsewhere():
    """Hooks that put what is saved elsewhere: the way back is made again from there."""
    module, given = Drops(), torch.randn(3, 5, 4, requires_grad=True)
    found = []
    for pack in (lambda t: t, lambda t: t.detach().clone()):
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = module(given).square().sum()
        module.zero_grad()
        loss.backward()
        found.append([p.grad for p in module.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


class Keeps(attnc.Layer):
    """A layer whose pullback holds an object, and takes an input that has no gradient."""

    def _vjp(self, x, weight=None):
        kept = Held()
        Held.last = weakref.ref(kept)

        def pullback(dy=None):
            return attnc.gradients.Gradients({"x": dy + 0 * len(vars(kept))})

        return x * 2, pullback


class Held:
    last = None


def test_the_graph_is_freed():
    module, given = LayerModule(Keeps()), torch.ones(3, requires_grad=True)
    y = module(given)
    y.sum().backward()
    gc.collect()
    assert Held.last() is None  # although y, and with it its graph, is still there
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    y = module(given)
    given.grad = None
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert (given.grad == 2).all()


def test_changes_in_place_are_noticed():
    module, given = attnc.torch.nn.GRU(3, 4), torch.randn(2, 5, 3)
    outputs, _ = module(given)
    with torch.no_grad():
        module.cells[0].state_weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()
    outputs, _ = module(given)
    loss = outputs.sum()
    outputs.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_are_nobody_elses_memory():
    """What a pullback hands through is copied: nothing changes with it."""
    module, given = attnc.torch.nn.SinusoidalPositions(4), torch.ones(3, 4, requires_grad=True)
    y = module(given)
    y.retain_grad()
    y.backward(torch.ones(3, 4))
    given.grad.add_(1)
    assert (y.grad == 1).all()
    dropout = attnc.torch.nn.Dropout(0.5).eval()
    with torch.no_grad():
        dropout(given).add_(1)
    assert (given == 1).all()


def test_second_derivatives_are_refused():
    module, given = attnc.torch.nn.Linear(3, 2), torch.ones(1, 3, requires_grad=True)
    (d,) = torch.autograd.grad(module(given).square().sum(), given, create_graph=True)
    with pytest.raises(NotImplementedError, match="Linear: its gradients have no gradients"):
        d.sum().backward()
    with pytest.raises(NotImplementedError, match="^Linear: the transforms of torch.func must not"):
        torch.func.grad(lambda x: module(x).sum())(torch.ones(1, 3))


def test_errors():
    with pytest.raises(TypeError, match=r"LayerModule: layer must be a layer of attnc, got 'GRU'"):
        LayerModule("GRU")
    with pytest.raises(ValueError, match="GRU: state_size must be a positive integer, got 0"):
        attnc.torch.nn.GRU(3, 0)
    module = attnc.torch.nn.GRU(3, 4)
    with pytest.raises(ValueError, match=r"GRU: x must have shape \(B, T, 3\), got \(2, 5, 4\)"):
        module(torch.ones(2, 5, 4))
    with pytest.raises(TypeError, match="GRU: x must be on the CPU"):
        module(torch.ones(2, 5, 3, device="meta"))
    with pytest.raises(TypeError, match="GRU: x must be a dense tensor"):
        module(torch.ones(2, 5, 3).to_sparse())
    keeps, given = LayerModule(Keeps()), torch.ones(3)
    with pytest.raises(TypeError, match="Keeps: weight must not require a gradient"):
        keeps(given, weight=torch.ones(1, requires_grad=True)).sum().backward()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(backend):
    torch.manual_seed(0)
    model = tagger()
    tokens = torch.arange(12).reshape(2, 6) % 9
    compiled = torch.compile(model, backend=backend)
    found = []
    for run in (model, compiled):
        model.zero_grad()
        y = run(tokens)
        y.square().sum().backward()
        found.append([y, *(p.grad for p in model.parameters())])
    assert all(torch.allclose(one, two) for one, two in zip(*found, strict=True))
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(lambda y: model[1](y) + 1, backend=backend, fullgraph=True)(
            torch.ones(1, 2, 6)
        )


def test_methods_of_the_layer():
    """A decoder trained by PyTorch decodes by its own steps; a cache works where there is no
    gradient."""
    torch.manual_seed(0)
    decoder = attnc.torch.nn.AttentionDecoder(3, 4, 5, dtype=torch.float64)
    inputs, memory = torch.randn(2, 3, 3).double(), torch.randn(2, 6, 5).double()
    optimizer = torch.optim.SGD(decoder.parameters(), 0.1)
    outputs, weights, state = decoder(inputs, memory, key_lengths=torch.tensor([6, 4]))
    (outputs.square().sum() + weights[..., 0].sum() + state.sum()).backward()
    optimizer.step()
    prepared, state = decoder.layer.prepare(memory.numpy(), key_lengths=[6, 4]), None
    steps = []
    for t in range(3):
        output, _, state = decoder.layer.step(inputs[:, t].numpy(), prepared, state)
        steps.append(output)
    whole = decoder(inputs, memory, key_lengths=[6, 4])[0].detach().numpy()
    assert_agree(np.stack(steps, 1), whole)
    attention, cache = attnc.torch.nn.MultiHeadAttention(4, 2).double().eval(), attnc.KVCache()
    tokens = torch.randn(1, 4, 4).double()
    with torch.no_grad():
        parts = [attention(tokens[:, t : t + 1], causal=True, cache=cache) for t in range(4)]
    assert_agree(torch.cat(parts, 1).numpy(), attention.layer(tokens.numpy(), causal=True))


def test_from_many_threads():
    """Backward passes in many threads: every one has its own sums."""
    module = attnc.torch.nn.GRU(3, 4)
    given = [torch.randn(2, 5, 3) for _ in range(8)]

    def gradients(x):
        return torch.autograd.grad(module(x)[0].square().sum(), list(module.parameters()))

    expected = [gradients(x) for x in given]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for one, two in zip(pool.map(gradients, given), expected, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


# ---- processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers(context):
    torch.manual_seed(0)
    module = attnc.torch.nn.GRU(3, 4)
    expected = torch.stack([Encoded(module)[k] for k in range(6)])  # the pool has its threads now
    loader = torch.utils.data.DataLoader(
        Encoded(module), batch_size=3, num_workers=1, multiprocessing_context=context
    )
    assert torch.equal(torch.cat(list(loader)), expected)


def test_distributed(tmp_path):
    """Two processes, each with half of every batch, have the losses of one with all of it."""
    spawn = torch.multiprocessing.get_context("spawn")
    queue = spawn.SimpleQueue()
    arguments = str(tmp_path / "meeting"), queue
    both = [spawn.Process(target=distributed, args=(rank, *arguments)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(300)  # seconds, on a machine that has much else to do
    for process in both:
        process.kill()
    assert [process.exitcode for process in both] == [0, 0]
    halves = [losses for _, losses in sorted(queue.get() for _ in both)]
    torch.manual_seed(0)
    whole = losses_of(Model(), slice(None))
    np.testing.assert_allclose(np.mean(halves, axis=0), whole, rtol=1e-12)
    assert whole[-1] < whole[0]

"""Layers of a Transformer and stacks of them: gradients, padding, options, and PyTorch's."""

import copy
import inspect

import numpy as np
import pytest
from checks import assert_agree, assert_agree_together, assert_same
from layer_checks import arrays_of, check_float32, check_house, check_layer, randomize

import attnc

B, T, TK, E, H, F, L = 3, 4, 5, 8, 4, 10, 2
KINDS = {
    "encoder layer": (attnc.TransformerEncoderLayer, (E, H, F)),
    "decoder layer": (attnc.TransformerDecoderLayer, (E, H, F)),
    "encoder": (attnc.TransformerEncoder, (L, E, H, F)),
    "decoder": (attnc.TransformerDecoder, (L, E, H, F)),
}
OPTIONS = [
    {},
    {"norm": "pre", "activation": "gelu_tanh"},
    {"normalization": "rms", "activation": "swiglu", "bias": False, "num_kv_heads": 2},
    {"norm": "pre", "normalization": "rms", "rotary": True},
]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def make(kind, rng=None, **options):
    """A layer without the kinks of relu, which differences may not step over."""
    kind, sizes = KINDS[kind]
    layer = kind(*sizes, rng=0, **{"dtype": "float64", "activation": "gelu", **options})
    return layer if rng is None else randomize(layer, rng)


def inputs(kind, rng, lead=(B,)):
    x, memory = rng.standard_normal((*lead, T, E)), rng.standard_normal((*lead, TK, E))
    return (x, memory) if "decoder" in kind else (x,)


def lengths_of(kind):
    if "decoder" in kind:
        return {"query_lengths": [4, 1, 0], "key_lengths": [5, 2, 3]}
    return {"key_lengths": [4, 1, 0]}


# ---- Gradients -----------------------------------------------------------------------------------


@every_option
@every_kind
def test_gradients(kind, options, rng):
    layer = make(kind, rng, **options)
    output, _ = check_layer(layer, inputs(kind, rng), {}, rng)
    assert output.shape == (B, T, E)
    check_layer(layer, inputs(kind, rng), {"return_weights": True, **lengths_of(kind)}, rng)


@pytest.mark.parametrize("norm", ["post", "pre"])
@every_kind
def test_gradients_with_dropout(kind, norm, rng):
    layer = make(kind, rng, norm=norm, dropout=0.3)
    call = {"train": True, "rng": 5}  # the same places are dropped each time
    output, _ = check_layer(layer, inputs(kind, rng), call, rng)
    assert (output != layer(*inputs(kind, rng))).any()


@every_kind
def test_gradients_of_options(kind, rng):
    layer = make(kind, rng)
    options = {
        "mask": rng.random((B, H, T, T)) < 0.7,
        "bias": rng.standard_normal((B, T, T)),
        "slope": rng.standard_normal((1, H)),
        "window": (2, None),
    }
    if "decoder" in kind:
        options |= {"key_mask": rng.random((B, TK)) < 0.7}
        options |= {"memory_mask": rng.random((B, T, TK)) < 0.7}
    else:
        options |= {"key_mask": rng.random((B, T)) < 0.7, "causal": True}
    _, gradients = check_layer(layer, inputs(kind, rng), options, rng)
    assert {"bias", "slope"} <= vars(gradients).keys()


@every_kind
def test_other_leading_axes(kind, rng):
    layer = make(kind, rng)
    for lead in [(), (2, 3)]:
        arrays = inputs(kind, rng, lead)
        output, _ = check_layer(layer, arrays, {}, rng)
        assert output.shape == (*lead, T, E)
    alone = layer(*(array[1, 2] for array in arrays))
    assert_agree(alone, output[1, 2])


@every_kind
def test_float32_and_the_house(kind, rng, tmp_path):
    layer = make(kind, dtype="float32", norm="pre")
    check_float32(layer, tuple(x.astype(np.float32) for x in inputs(kind, rng)), {})
    check_house(layer, tmp_path)


# ---- What a layer is -----------------------------------------------------------------------------


@every_kind
def test_a_stack_is_its_layers(kind, rng):
    if "layer" in kind:
        pytest.skip("a layer")
    x, *memory = inputs(kind, rng)
    for norm, final, there in [
        ("post", None, False), ("post", True, True), ("pre", None, True), ("pre", False, False)
    ]:  # fmt: skip
        stack = make(kind, rng, norm=norm, final_norm=final)
        expected = x
        for block in stack.blocks:
            expected = block(expected, *memory)
        assert (stack.output_norm is not None) == there
        expected = stack.output_norm(expected) if there else expected
        assert_same(stack(x, *memory), expected)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_layers_by_their_formula(norm, rng):
    x, memory = inputs("decoder layer", rng)
    layer = make("encoder layer", rng, norm=norm)
    attend, forward = layer.self_attention, layer.feedforward
    first, last = layer.self_attention_norm, layer.feedforward_norm
    if norm == "post":
        a = first(x + attend(x))
        expected = last(a + forward(a))
    else:
        a = x + attend(first(x))
        expected = a + forward(last(a))
    assert_agree(layer(x), expected)
    layer = make("decoder layer", rng, norm=norm)
    attend, cross, forward = layer.self_attention, layer.cross_attention, layer.feedforward
    first, second = layer.self_attention_norm, layer.cross_attention_norm
    last = layer.feedforward_norm
    if norm == "post":
        a = first(x + attend(x, causal=True))
        b = second(a + cross(a, memory))
        expected = last(b + forward(b))
    else:
        a = x + attend(first(x), causal=True)
        b = a + cross(second(a), memory)
        expected = b + forward(last(b))
    assert_agree(layer(x, memory), expected)


@every_kind
def test_weights(kind, rng):
    layer, arrays = make(kind, rng), inputs(kind, rng)
    output = layer(*arrays, return_weights=True, **lengths_of(kind))
    lead = (B, H) if "layer" in kind else (B, L, H)
    shapes = {"weights": (T, TK), "self_weights": (T, T)}
    shapes = shapes if "decoder" in kind else {"weights": (T, T)}
    for name, shape in shapes.items():
        weights = getattr(output, name)
        assert weights.shape == (*lead, *shape)
        assert_agree(weights[0].sum(axis=-1), np.ones((*lead[1:], T)))
        assert not weights[1, ..., 1:, :].any() and not weights[2].any()  # padding
    assert_same(output.outputs, layer(*arrays, **lengths_of(kind)))
    if "decoder" in kind:
        assert not np.triu(output.self_weights, 1).any()  # causal
        assert not output.weights[1, ..., 2:].any()


def test_no_two_places_drop_the_same(rng):
    """An integer seed is made one generator, from which every layer draws in turn."""
    encoder = make("encoder", dropout=0.5)
    x = np.broadcast_to(inputs("encoder", rng)[0], (B, T, E))
    for block in encoder.blocks[1:]:  # the same layer twice
        block.load_state_dict(encoder.blocks[0].state_dict())
    block, generator = encoder.blocks[0], np.random.default_rng(3)
    expected = block(block(x, train=True, rng=generator), train=True, rng=generator)
    assert_same(encoder(x, train=True, rng=3), expected)
    assert (expected != block(block(x, train=True, rng=3), train=True, rng=3)).any()
    assert_same(encoder(x, rng=3), encoder(x))


def test_in_a_sequence_of_layers(rng):
    """An encoder takes one array and returns one; the sequence gives it train and rng."""
    encoder = make("encoder", dropout=0.5)
    model = attnc.Sequential(attnc.Linear(3, E, rng=0, dtype="float64"), encoder)
    x = rng.standard_normal((B, T, 3))
    check_layer(model, (x,), {"train": True, "rng": 3}, rng)
    expected = encoder(model.layers[0](x), train=True, rng=3)
    assert_same(model(x, train=True, rng=3), expected)


# ---- Padding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["post", "pre"])
@every_kind
def test_padding_is_not_read(kind, norm, rng):
    """NaN in padding reaches no output and no gradient; what is there has no other effect."""
    layer, arrays, options = make(kind, rng, norm=norm), inputs(kind, rng), lengths_of(kind)
    spoiled = copy.deepcopy(arrays)
    lengths = [options.get("query_lengths", options["key_lengths"]), options["key_lengths"]]
    for array, ends in zip(spoiled, lengths, strict=False):
        for row, end in zip(array, ends, strict=True):
            row[end:] = np.nan
    output, pullback = attnc.vjp(layer, *spoiled, **options)
    assert_same(output, layer(*arrays, **options))
    assert not output[1, 1:].any() and not output[2].any()
    dy = rng.standard_normal(output.shape)
    dy[1, 1:], dy[2] = np.nan, np.nan
    found = pullback(dy)
    gradients = layer.state_dict() | {name: g.copy() for name, g in layer.gradients.items()}
    layer.zero_grad()
    expected = attnc.vjp(layer, *arrays, **options)[1](np.nan_to_num(dy))
    assert_same(dict(layer.gradients), gradients)
    assert_same(vars(found), vars(expected))
    assert not found.x[1, 1:].any() and not found.x[2].any()
    if "decoder" in kind:
        assert not found.memory[1, 2:].any() and not found.memory[2].any()


@every_kind
def test_a_sequence_alone_or_with_padding(kind, rng):
    layer, arrays, options = make(kind, rng), inputs(kind, rng), lengths_of(kind)
    both = layer(*arrays, **options)
    x, *memory = arrays
    alone = layer(x[1:2, :1], *(m[1:2, :2] for m in memory))
    assert_agree(both[1:2, :1], alone)


# ---- Errors --------------------------------------------------------------------------------------

WRONG = [
    ({"num_heads": 3}, "num_heads must divide size 8, got 3"),
    ({"num_kv_heads": 3}, "num_kv_heads must divide num_heads 4, got 3"),
    ({"num_kv_heads": 2.0}, "num_kv_heads must be an integer of at least 1, got 2.0"),
    ({"norm": "both"}, "norm must be one of 'post', 'pre', got 'both'"),
    ({"activation": "tanh"}, "activation must be "),
    ({"normalization": "batch"}, "normalization must be one of 'layer', 'rms', got 'batch'"),
    ({"bias": 1}, "bias must be True or False, got 1"),
    ({"rotary": "yes"}, "rotary must be True or False, got 'yes'"),
    ({"dropout": 1.0}, "dropout must lie in 0 <= dropout < 1, got 1.0"),
    ({"size": 0}, "size must be a positive integer, got 0"),
    ({"feedforward_size": -1}, "feedforward_size must be a positive integer, got -1"),
]


@pytest.mark.parametrize(("wrong", "text"), WRONG, ids=lambda x: str(x)[:30])
@every_kind
def test_wrong_constructors(kind, wrong, text):
    cls, sizes = KINDS[kind]
    arguments = dict(zip(inspect.signature(cls).parameters, sizes, strict=False)) | wrong
    name = cls.__name__ if "layer" in kind else f"{cls.__name__}Layer"
    with pytest.raises((TypeError, ValueError), match=f"^{name}: {text}"):
        cls(**arguments)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_wrong_stacks(kind):
    cls, sizes = KINDS[kind]
    with pytest.raises(ValueError, match=f"^{cls.__name__}: layers must be a positive integer"):
        cls(0, *sizes[1:])
    with pytest.raises(TypeError, match=f"^{cls.__name__}: final_norm must be True or False"):
        cls(*sizes, final_norm="yes")


def test_wrong_calls(rng):
    x, memory = inputs("decoder", rng)
    encoder, decoder = make("encoder"), make("decoder")
    for name in ("TransformerEncoder", "TransformerDecoder"):
        layer = encoder if name == "TransformerEncoder" else decoder
        arrays = (x,) if layer is encoder else (x, memory)
        lengths = "key_lengths" if layer is encoder else "query_lengths"
        with pytest.raises(ValueError, match=rf"{name}: x must have shape \(\.\.\., T, 8\)"):
            layer(x[..., :7], *arrays[1:])
        with pytest.raises(ValueError, match=rf"{name}: {lengths} must lie in 0..4, got 0..5"):
            layer(*arrays, **{lengths: [0, 5, 1]})
        with pytest.raises(ValueError, match=rf"{name}: {lengths} must have shape \(3,\)"):
            layer(*arrays, **{lengths: [1, 2]})
        with pytest.raises(TypeError, match=f"{name}: train must be True or False"):
            layer(*arrays, train=1)
        with pytest.raises(TypeError, match=f"{name}: return_weights must be True or False"):
            layer(*arrays, return_weights=1)
        output, pullback = attnc.vjp(layer, *arrays)
        with pytest.raises(TypeError, match=f"{name}: pullback must get doutputs"):
            pullback()
        with pytest.raises(ValueError, match=f"{name}: doutputs must have shape"):
            pullback(output[0])
        with pytest.raises(ValueError, match=f"{name}: dweights must be None without"):
            pullback(output, output)
    with pytest.raises(ValueError, match=r"TransformerDecoder: memory must have shape \(3, Tk, 8"):
        decoder(x, memory[:2])
    with pytest.raises(ValueError, match=r"TransformerDecoder: key_lengths must lie in 0..5"):
        decoder(x, memory, key_lengths=6)


@every_kind
def test_unknown_arguments(kind, rng):
    layer, arrays = make(kind), inputs(kind, rng)
    name = type(layer).__name__
    with pytest.raises(TypeError, match=rf"{name}\.__call__\(\) got an unexpected .* 'lengths'"):
        layer(*arrays, lengths=3)
    with pytest.raises(
        TypeError, match=f"{name}: there is no argument 'maks'; did you mean 'mask'"
    ):
        attnc.vjp(layer, *arrays, maks=None)


# ---- PyTorch -------------------------------------------------------------------------------------

TORCH = [
    {"norm": norm, "activation": activation, "bias": bias}
    for norm in ("post", "pre")
    for activation in ("relu", "gelu")
    for bias in (True, False)
]


def in_torch(torch, kind, options):
    """The module in torch.nn."""
    nn = torch.nn
    module = nn.TransformerDecoderLayer if "decoder" in kind else nn.TransformerEncoderLayer
    layer = module(
        E, H, F, 0.0, options["activation"], batch_first=True,
        norm_first=options["norm"] == "pre", bias=options["bias"],
    )  # fmt: skip
    if "layer" in kind:
        return layer.double()
    final = nn.LayerNorm(E, bias=options["bias"]) if options["norm"] == "pre" else None
    if kind == "decoder":
        return nn.TransformerDecoder(layer, L, norm=final).double()
    return nn.TransformerEncoder(layer, L, norm=final, enable_nested_tensor=False).double()


def numpy_of(tensors):
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def randomize_module(torch, module, rng):
    for parameter in module.parameters():
        parameter.data = torch.from_numpy(rng.normal(0, 0.4, parameter.shape))


def same_gradients(layer, module):
    """The gradients of the parameters are those of PyTorch's."""
    twin = copy.deepcopy(layer)
    theirs = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    twin.load_torch_state_dict(theirs)
    assert_agree_together(dict(layer.gradients), dict(twin.parameters))


@pytest.mark.parametrize("options", TORCH, ids=str)
@every_kind
def test_as_in_torch(kind, options, rng):
    """Outputs and all gradients at equal weights, with padding that both leave out."""
    torch = pytest.importorskip("torch")
    module = in_torch(torch, kind, options)
    randomize_module(torch, module, rng)
    layer = make(kind, **options)
    layer.load_torch_state_dict(numpy_of(module.state_dict()))
    assert_same(layer.torch_state_dict(), numpy_of(module.state_dict()))
    arrays = inputs(kind, rng)
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    ends = {"key_lengths": np.array([5, 2, 3] if "decoder" in kind else [4, 1, 2])}
    padding = np.arange(arrays[-1].shape[1]) >= ends["key_lengths"][:, None]
    padding = torch.from_numpy(padding)
    if "decoder" in kind:
        later = torch.nn.Transformer.generate_square_subsequent_mask(T, dtype=torch.float64)
        expected = module(*tensors, tgt_mask=later, memory_key_padding_mask=padding)
        dy = rng.standard_normal(arrays[0].shape)
    else:
        expected = module(*tensors, src_key_padding_mask=padding)
        dy = rng.standard_normal(arrays[0].shape)
        dy[padding.numpy()] = 0
    expected.backward(torch.from_numpy(dy))
    output, pullback = attnc.vjp(layer, *arrays, **ends)
    expected = expected.detach().numpy()
    if "decoder" not in kind:  # our output is 0 at padding
        expected = np.where(padding.numpy()[..., None], 0, expected)
    assert_agree(output, expected)
    for gradient, tensor in zip(pullback(dy), tensors, strict=True):
        assert_agree(gradient, tensor.grad.numpy())
    same_gradients(layer, module)


@every_kind
def test_what_torch_does_not_have(kind):
    for options in ({"normalization": "rms"}, {"activation": "swiglu"}, {"rotary": True}):
        with pytest.raises(ValueError, match="as in torch.nn.Transformer"):
            make(kind, **options).torch_state_dict()
    layer = make(kind)
    state = layer.torch_state_dict()
    before = layer.state_dict()
    wrong = {name: array for name, array in state.items() if "linear1" not in name} | {"more": 1}
    with pytest.raises(ValueError, match="missing: .*linear1.weight.*unexpected: more"):
        layer.load_torch_state_dict(wrong)
    assert_same(layer.state_dict(), before)


def test_arrays_of_an_output_are_ones_own(rng):
    """No output shares memory with an input, also where a layer changes nothing."""
    for kind in KINDS:
        layer, arrays = make(kind, rng, norm="pre"), inputs(kind, rng)
        output, pullback = attnc.vjp(layer, *arrays)
        dy = rng.standard_normal(output.shape)
        for gradient in pullback(dy):
            assert not np.shares_memory(gradient, dy)
        for array in arrays_of(layer(*arrays, return_weights=True)):
            assert not any(np.shares_memory(array, given) for given in arrays)

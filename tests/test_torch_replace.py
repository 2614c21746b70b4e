"""Models of PyTorch before and after `attnc.torch.replace`: values, gradients, and all around."""

import copy
import io
import itertools
import pickle
import warnings

import numpy as np
import pytest
from checks import assert_agree

torch = pytest.importorskip("torch")

import attnc.torch  # noqa: E402
from attnc.torch import replacing  # noqa: E402

nn = torch.nn
KINDS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}


def replaced(model, names=("",)):
    """A copy of a model, whose modules of these names are replaced."""
    other = copy.deepcopy(model)
    assert attnc.torch.replace(other).replaced == names
    return other


def leaves(value):
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def run(model, *inputs, given=(), **options):
    """All tensors of the output, and the gradients of `given` and of the parameters."""
    output = model(*inputs, **options)
    tensors = leaves(output)
    real = [y for y in tensors if y is not None and y.is_floating_point()]
    loss = sum((y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum() for y in real)
    wanted = [*given, *model.parameters()]
    return [*tensors, *torch.autograd.grad(loss, wanted, allow_unused=True, retain_graph=True)]


def assert_near(x, y, what):
    """As `assert_agree`, but what is 0 may be the rounded sum of numbers of the size of 1."""
    assert x.shape == y.shape, what
    assert_agree(*(np.append(t.detach().numpy(), 1.0) for t in (x, y)), what)


def assert_equal(one, two, what=""):
    for k, (x, y) in enumerate(zip(one, two, strict=True)):
        assert (x is None) == (y is None), (what, k)
        if x is not None:
            assert x.dtype is y.dtype and x.shape == y.shape, (what, k, x.shape, y.shape)
            assert_near(x, y, f"{what} {k}")


# ---- recurrent modules ---------------------------------------------------------------------------


def sequences(how, batch_first):
    """An input (2 sequences of 5 steps, 3 numbers each), what it is made of, and its batch."""
    x = torch.randn(2, 5, 3) if batch_first else torch.randn(5, 2, 3)
    x = torch.randn(5, 3) if how == "alone" else x
    x.requires_grad_()
    if not how.startswith("packed"):
        return x, x
    packed = nn.utils.rnn.pack_padded_sequence(
        x, [5, 3] if how == "packed" else [2, 4], batch_first, enforce_sorted=how == "packed"
    )
    return packed, x


@pytest.mark.parametrize("how", ["batch", "alone", "packed", "packed in any order"])
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent(kind, how):
    torch.manual_seed(0)
    for layers, both, first, bias, state in itertools.product((1, 2), *[(False, True)] * 4):
        module = KINDS[kind](
            3, 4, layers, bias=bias, batch_first=first, bidirectional=both, dtype=torch.float64
        )
        torch.set_default_dtype(torch.float64)
        try:
            x, given = sequences(how, first)
            shape = (layers * (1 + both), *([2] if how != "alone" else []), 4)
            parts = [torch.randn(shape, requires_grad=True) for _ in range(1 + (kind == "lstm"))]
        finally:
            torch.set_default_dtype(torch.float32)
        hx = () if not state else (tuple(parts) if kind == "lstm" else parts[0],)
        wanted = [given, *(parts if state else ())]
        what = f"{layers} {both} {first} {bias} {state}"
        outputs = [run(m, x, *hx, given=wanted) for m in (module, replaced(module))]
        assert_equal(outputs[1], outputs[0], what)


def test_packed_sequences_stay_what_they_are():
    module = replaced(nn.GRU(3, 4))
    packed, _ = sequences("packed in any order", False)
    output, _ = module(packed)
    assert type(output) is nn.utils.rnn.PackedSequence
    assert all(torch.equal(x, y) for x, y in zip(output[1:], packed[1:], strict=True))


def test_outputs_can_be_viewed():
    """As those of PyTorch's modules, steps first."""
    output, state = replaced(nn.GRU(3, 4))(torch.ones(5, 2, 3))
    assert output.view(-1).shape == (40,) and state.view(-1).shape == (8,)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_calls_have_the_errors_of_torch(kind):
    module = KINDS[kind](3, 4, 2)
    other = replaced(module)
    state = torch.zeros(2, 2, 4)
    cases = [
        (torch.ones(5, 2, 4),),
        (torch.ones(5),),
        (torch.ones(5, 2, 3).double(),),
        (torch.ones(5, 3, 3), (state, state) if kind == "lstm" else state),
        (torch.ones(5, 3), (state, state) if kind == "lstm" else state),
    ]
    for case in cases:
        texts = []
        for m in (module, other):
            with pytest.raises((ValueError, RuntimeError)) as raised:
                m(*case)
            texts.append((raised.type, str(raised.value)))
        assert texts[0] == texts[1]


def test_dropout_between_layers():
    """Drawn from PyTorch's generator, in training alone."""
    module, x = replaced(nn.LSTM(3, 64, 2, dropout=0.5)), torch.randn(5, 2, 3)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(module(x)[0])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])
    assert_agree(
        module.double()(x.double())[0].detach().numpy(),
        nn.LSTM.forward(module, x.double())[0].detach().numpy(),
    )


# ---- attention -----------------------------------------------------------------------------------


def drawn_attention(seed):
    """A module and the arguments of a call."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)

    def pick(*choices):
        return choices[rng.integers(len(choices))]

    H, E, N, L = pick(1, 2, 4), 8, 2, 4
    kdim, vdim = pick((None, None), (None, None), (3, 5))
    module = nn.MultiheadAttention(
        E, H, bias=pick(True, False), add_bias_kv=pick(True, False, False),
        add_zero_attn=pick(True, False, False), kdim=kdim, vdim=vdim,
        batch_first=pick(True, False), dtype=torch.float64,
    )  # fmt: skip
    alone, shared, S = rng.random() < 0.2, pick("all", "memory", "none"), pick(4, 6)
    if shared == "all" and kdim is None:
        S = L

    def array(steps, size):
        axes = (N, steps, size) if module.batch_first else (steps, N, size)
        return torch.randn((steps, size) if alone else axes).double().requires_grad_()

    query, key, value = array(L, E), array(S, kdim or E), array(S, vdim or E)
    if kdim is None and shared != "none":
        key = query if shared == "all" else key
        value = key
    masks = {}

    def mask(kind, shape):
        excluded = torch.rand(shape) < 0.3
        excluded[..., 0] = False
        if kind == "bool":
            return excluded
        added = torch.zeros if kind == "infinite" else torch.randn
        return added(shape).double().masked_fill(excluded, -torch.inf)

    kinds = "bool", "infinite", "added"
    if rng.random() < 0.5:
        masks["key_padding_mask"] = mask(pick(*kinds), (S,) if alone else (N, S))
    which = pick(None, "two", "three", "causal")
    if which == "causal":
        masks["attn_mask"] = torch.ones(L, S, dtype=torch.bool).triu(1)
        masks["is_causal"] = pick(True, False)
    elif which is not None:
        axes = (L, S) if which == "two" else ((1 if alone else N) * H, L, S)
        masks["attn_mask"] = mask(pick(*kinds), axes)
    masks["need_weights"] = pick(True, False)
    masks["average_attn_weights"] = pick(True, False)
    return module, (query, key, value), masks


@pytest.mark.parametrize("part", range(6))
@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
def test_attention(part):
    """Forty random modules and calls a part, forward and backward."""
    for seed in range(40 * part, 40 * part + 40):
        module, arrays, masks = drawn_attention(seed)
        given = list({id(x): x for x in arrays}.values())
        outputs = [run(m, *arrays, given=given, **masks) for m in (module, replaced(module))]
        for k, (x, y) in enumerate(zip(*outputs[::-1], strict=True)):
            assert (x is None) == (y is None), (seed, k)
            if x is not None:
                assert_near(x, y, f"{seed} {k}")


def test_a_learned_mask_has_a_gradient():
    module = nn.MultiheadAttention(8, 2).double()
    x = torch.randn(4, 3, 8).double()
    mask = torch.randn(4, 4).double().requires_grad_()
    outputs = [run(m, x, x, x, given=[mask], attn_mask=mask) for m in (module, replaced(module))]
    assert_equal(outputs[1], outputs[0])


def test_queries_that_attend_to_nothing():
    """0, where PyTorch's weights are NaN; and no gradient is."""
    module, x = replaced(nn.MultiheadAttention(8, 2, bias=False)), torch.randn(4, 3, 8)
    ignore = torch.zeros(3, 4, dtype=torch.bool)
    ignore[1] = True
    output, weights = module(x, x, x, key_padding_mask=ignore)
    assert (output[:, 1] == 0).all() and (weights[1] == 0).all() and (weights[0] > 0).all()
    output.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_wrong_attention_has_the_errors_of_torch():
    module = nn.MultiheadAttention(8, 2)
    other, x = replaced(module), torch.ones(4, 3, 8)
    cases = [
        ((x[..., :5], x, x), {}),
        ((x, x[0], x), {}),
        ((x, x[:2], x), {}),
        ((x, x, x), {"attn_mask": torch.zeros(4, 3)}),
        ((x, x, x), {"attn_mask": torch.zeros(4, 4, dtype=torch.int64)}),
        ((x, x, x), {"key_padding_mask": torch.zeros(4, 3, dtype=torch.bool)}),
        ((x, x, x), {"is_causal": True}),
        ((x.double(), x, x), {}),
    ]
    for case, options in cases:
        texts = []
        for m in (module, other):
            with pytest.raises((AssertionError, RuntimeError)) as raised:
                m(*case, **options)
            texts.append((raised.type, str(raised.value)))
        assert texts[0] == texts[1]


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("first", [False, True], ids=["", "batch first"])
def test_the_encoder_around_it(first):
    """In training, and on the fast path of evaluation, with nested tensors within."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=first, dtype=torch.float64)
    model = nn.TransformerEncoder(layer, 2)
    other = replaced(model, ("layers.0.self_attn", "layers.1.self_attn"))
    x = torch.randn(2, 5, 8).double() if first else torch.randn(5, 2, 8).double()
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    causal = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    for options in ({}, {"src_key_padding_mask": padding}, {"mask": causal, "is_causal": True}):
        outputs = [run(m.train(), x, **options) for m in (model, other)]
        assert_equal(outputs[1], outputs[0], options.keys())
        with torch.no_grad():
            one, two = (m.eval()(x, **options) for m in (model, other))
        assert_agree(two.numpy(), one.numpy())


def test_the_transformer_around_it():
    torch.manual_seed(0)
    model = nn.Transformer(8, 2, 1, 1, 12, 0.0, batch_first=True, dtype=torch.float64)
    names = (
        "encoder.layers.0.self_attn",
        "decoder.layers.0.self_attn",
        "decoder.layers.0.multihead_attn",
    )
    other = replaced(model, names)
    source, target = torch.randn(2, 5, 8).double(), torch.randn(2, 4, 8).double()
    causal = nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64)
    outputs = [run(m, source, target, tgt_mask=causal) for m in (model, other)]
    assert_equal(outputs[1], outputs[0])


# ---- models of users -----------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.attention = nn.MultiheadAttention(size, heads, batch_first=True)
        self.rows = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))

    def forward(self, x):
        y, T = self.norms[0](x), x.shape[1]
        mask = torch.ones(T, T, dtype=torch.bool).triu(1)
        x = x + self.attention(y, y, y, attn_mask=mask, need_weights=False, is_causal=True)[0]
        return x + self.rows(self.norms[1](x))


class GPT(nn.Module):
    """As users write them: tied weights, causal attention, pre-norm."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(11, 16), nn.Embedding(12, 16)
        self.blocks = nn.ModuleList(Block(16, 4) for _ in range(2))
        self.norm, self.output = nn.LayerNorm(16), nn.Linear(16, 11, bias=False)
        self.output.weight = self.words.weight

    def forward(self, tokens):
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = self.output(self.norm(x))
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


class Translator(nn.Module):
    """As users write them: a packed bidirectional encoder, an LSTM decoder, dot attention."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.encoder = nn.GRU(8, 6, bidirectional=True)
        self.decoder = nn.LSTM(8, 12, 2, batch_first=True)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.output = nn.Linear(24, 11)

    def forward(self, tokens):
        lengths = torch.tensor([3, 6, 5, 6])
        source = nn.utils.rnn.pack_padded_sequence(
            self.words(tokens.t()), lengths, enforce_sorted=False
        )
        memory, state = self.encoder(source)
        memory, _ = nn.utils.rnn.pad_packed_sequence(memory, batch_first=True)
        first = torch.cat([*state], -1).expand(2, -1, -1).contiguous()
        states, _ = self.decoder(self.words(tokens), (first, torch.zeros_like(first)))
        ignore = torch.arange(memory.shape[1]) >= lengths[:, None]
        context, _ = self.attention(states, memory, memory, key_padding_mask=ignore)
        logits = self.output(torch.cat([states, context], -1))
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def losses_of(model, steps=8):
    """Of steps of an optimiser whose moments amplify differences."""
    tokens = torch.randint(0, 11, (4, 6), generator=torch.Generator().manual_seed(0))
    optimizer, losses = torch.optim.Adam(model.parameters(), 0.01), []
    for step in range(steps):
        if step == steps // 2:  # in the middle of training, with the optimiser's state
            yield losses
        optimizer.zero_grad()
        loss = model(tokens)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    yield losses


@pytest.mark.parametrize("model", [GPT, Translator])
def test_training_goes_on_as_before(model, monkeypatch):
    """The same losses, replaced from the start, in the middle of training, or not at all."""
    found, calls = [], []

    def counted(function):
        return lambda *args, **options: calls.append(when) or function(*args, **options)

    monkeypatch.setattr(replacing, "_attention", counted(replacing._attention))
    for name, function in replacing._RECURRENT.items():
        monkeypatch.setitem(replacing._RECURRENT, name, counted(function))
    for when in ("never", "start", "middle"):
        torch.manual_seed(0)
        made = model().double()
        if when == "start":
            attnc.torch.replace(made)
        steps = losses_of(made)
        next(steps)
        if when == "middle":
            assert attnc.torch.replace(made).replaced
        found.append(next(steps))
    assert "never" not in calls and calls.count("start") == 2 * calls.count("middle") >= 16
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-9)
    assert found[0][-1] < 0.9 * found[0][0]


# ---- what stays ----------------------------------------------------------------------------------


def model():
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.GRU(3, 4), "b": nn.Sequential(nn.MultiheadAttention(4, 2))})


def test_parameters_and_modules_stay_the_same_objects():
    made = model()
    modules, parameters = dict(made.named_modules()), dict(made.named_parameters())
    keys, hooked = list(made.state_dict()), []
    made["a"].register_forward_hook(lambda *_: hooked.append("forward"))
    made["a"].weight_ih_l0.register_hook(lambda _: hooked.append("gradient"))
    report = attnc.torch.replace(made)
    assert report == (("a", "b.0"), {})
    assert all(made.get_submodule(name) is module for name, module in modules.items())
    assert all(made.get_parameter(name) is p for name, p in parameters.items())
    assert list(made.state_dict()) == keys
    assert type(made["a"]) is replacing.GRU and isinstance(made["a"], nn.GRU)
    made["a"](torch.ones(2, 1, 3))[0].sum().backward()
    assert hooked == ["forward", "gradient"]
    assert attnc.torch.replace(made) == ((), {})  # again
    assert attnc.torch.replace(made, undo=True) == (("a", "b.0"), {})
    assert type(made["a"]) is nn.GRU and type(made["b"][0]) is nn.MultiheadAttention
    assert attnc.torch.replace(made, undo=True) == ((), {})


class Own(nn.GRU):
    """Somebody's own."""


def test_what_is_kept():
    made = nn.ModuleDict(
        {
            "proj": nn.LSTM(3, 4, proj_size=2),
            "relu": nn.RNN(3, 4, nonlinearity="relu"),
            "all": nn.GRU(3, 4, 2, dropout=1.0),
            "own": Own(3, 4),
            "normed": nn.utils.parametrizations.weight_norm(nn.GRU(3, 4), "weight_hh_l0"),
            "gru": nn.GRU(3, 4),
        }
    )
    report = attnc.torch.replace(made)
    assert report.replaced == ("gru",)
    assert report.kept == {
        "proj": "attnc has no LSTM with proj_size=2",
        "relu": "attnc has no RNN with nonlinearity='relu'",
        "all": "attnc drops with probabilities below 1, got dropout=1.0",
        "own": "Own is a subclass, which may have a forward of its own",
        "normed": "ParametrizedGRU is a subclass, which may have a forward of its own",
    }
    with pytest.raises(TypeError, match="replace: model must be a torch.nn.Module, got list"):
        attnc.torch.replace([nn.GRU(3, 4)])


def test_the_classes_themselves():
    """Made directly, they compute what PyTorch's do, and what attnc lacks by PyTorch."""
    torch.manual_seed(0)
    x = torch.randn(5, 2, 3).double()
    for name, options in (
        ("LSTM", {"proj_size": 2}),
        ("RNN", {"nonlinearity": "relu"}),
        ("GRU", {"num_layers": 2}),
    ):
        theirs = getattr(nn, name)(3, 4, **options).double()
        ours = getattr(replacing, name)(3, 4, **options).double()
        ours.load_state_dict(theirs.state_dict())
        assert_equal(run(ours, x), run(theirs, x), name)


def saved(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved],
    ids=["deepcopy", "pickle", "saved"],
)
def test_copies(copied):
    made = model()
    attnc.torch.replace(made)
    other = copied(made)
    x, y = torch.randn(5, 2, 3), torch.randn(5, 2, 4)
    assert type(other["a"]) is replacing.GRU
    assert torch.equal(other["a"](x)[0], made["a"](x)[0])
    assert torch.equal(other["b"][0](y, y, y)[0], made["b"][0](y, y, y)[0])
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    assert made["a"](x)[0].any() and not other["a"](x)[0].any()
    fresh = model()
    fresh.load_state_dict(made.state_dict())  # between replaced and plain models


def test_weights_that_are_computed():
    """Parametrised after it was replaced, or by the older hooks, or by functional_call."""
    torch.manual_seed(0)
    module, x = nn.GRU(3, 4).double(), torch.randn(5, 2, 3).double()
    other = replaced(module)
    nn.utils.parametrizations.weight_norm(other, "weight_hh_l0")
    assert_agree(other(x)[0].detach().numpy(), module(x)[0].detach().numpy())
    with torch.no_grad():
        other.parametrizations.weight_hh_l0.original0.mul_(2)
        module.weight_hh_l0.mul_(2)
    assert_agree(other(x)[0].detach().numpy(), module(x)[0].detach().numpy())
    other(x)[0].sum().backward()
    assert other.parametrizations.weight_hh_l0.original0.grad.any()
    other, before = replaced(module), module.weight_hh_l0.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(other, "weight_hh_l0")
    with torch.no_grad():
        other.weight_hh_l0_g.mul_(3)
        module.weight_hh_l0.mul_(3)
    assert_agree(other(x)[0].detach().numpy(), module(x)[0].detach().numpy())
    values = {"weight_hh_l0": before}
    with torch.no_grad():
        module.weight_hh_l0.copy_(before)
    called = torch.func.functional_call(replaced(module), values, x)[0]
    assert_agree(called.detach().numpy(), module(x)[0].detach().numpy())


def test_dtypes_and_devices():
    made = replaced(nn.GRU(3, 4))
    made.flatten_parameters()
    assert made.double()(torch.ones(5, 2, 3).double())[0].dtype is torch.float64
    meta = made.to("meta")(torch.ones(5, 2, 3, device="meta", dtype=torch.float64))[0]
    assert meta.device.type == "meta"  # by PyTorch's own forward
    attention, x = replaced(nn.MultiheadAttention(8, 2)), torch.randn(4, 2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(x, x, x, need_weights=False)[0]
        expected = nn.MultiheadAttention.forward(attention, x, x, x, need_weights=False)[0]
    assert found.dtype is expected.dtype is torch.bfloat16
    assert torch.allclose(found, expected, atol=2**-5)
    found.float().sum().backward()
    assert all(p.grad.dtype is torch.float32 for p in attention.parameters())


HALVES = pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])


@HALVES
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_models_of_halves(kind, half):
    """Nearer to float64 than PyTorch's, which rounds every step; with all its dtypes."""
    torch.manual_seed(0)
    theirs = KINDS[kind](5, 7, 2, bidirectional=True).to(half)
    x, state = torch.randn(9, 3, 5).to(half), torch.randn(4, 3, 7).to(half)
    state = (state, -state) if kind == "lstm" else state
    found = {}
    for name, module in (
        ("exact", copy.deepcopy(theirs).double()),
        ("theirs", theirs),
        ("ours", replaced(copy.deepcopy(theirs))),
    ):
        dtype = next(module.parameters()).dtype
        given = x.to(dtype, copy=True).requires_grad_()
        first = tuple(h.to(dtype) for h in state) if kind == "lstm" else state.to(dtype)
        output, last = module(given, first)
        last = last if kind == "lstm" else (last,)
        sum(y.square().sum() for y in (output, *last)).backward()
        found[name] = output, *last, given.grad, *(p.grad for p in module.parameters())
    for ours, other, exact in zip(found["ours"], found["theirs"], found["exact"], strict=True):
        assert ours.dtype is other.dtype is half and ours.shape == other.shape
        error, others = ((y.double() - exact).abs().max() for y in (ours, other))
        assert error <= max(2 * others, torch.finfo(half).eps * exact.abs().max())
        assert error < 0.05 * exact.abs().max()


@HALVES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_recurrent_dtypes_under_autocast(kind, half):
    theirs = KINDS[kind](5, 7)
    ours = replaced(copy.deepcopy(theirs))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for of_state in (None, torch.float32, half):
            x = torch.randn(9, 3, 5).to(dtype)
            state = None if of_state is None else torch.randn(1, 3, 7).to(of_state)
            state = (state, state) if kind == "lstm" and state is not None else state
            # PyTorch's LSTM has another kernel on some machines, which lacks some dtypes.
            without = torch.backends.mkldnn.flags(enabled=False, allow_tf32=False)
            with without, torch.autocast("cpu", half):
                pairs = list(zip(leaves(ours(x, state)), leaves(theirs(x, state)), strict=True))
            assert all(a.dtype is b.dtype for a, b in pairs)
            assert all(torch.allclose(a.float(), b.float(), atol=0.02) for a, b in pairs)
            ours.zero_grad()
            sum(a.float().sum() for a, _ in pairs).backward()
            assert all(p.grad.dtype is torch.float32 for p in ours.parameters())


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of PyTorch, within
def test_compile(kind, dynamic):
    """In one graph, where PyTorch is told to trace recurrent modules at all."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    module = replaced(KINDS[kind](4, 5, 2, bidirectional=True, batch_first=True))
    options = {"fullgraph": True, "backend": "aot_eager", "dynamic": dynamic}
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(module, **options)
        for B, T in ((3, 6), (2, 7)):
            x = torch.randn(B, T, 4, requires_grad=True)
            assert_equal(run(compiled, x, given=[x]), run(module, x, given=[x]), f"{B} {T}")
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="allow_rnn"):
        torch.compile(module, **options)(x)
    found = torch.compile(module, backend="aot_eager")(x)  # in Python
    assert_equal(leaves(found), leaves(module(x)))


def test_checkpoint_and_dropout_of_weights():
    torch.manual_seed(0)
    module, x = replaced(nn.MultiheadAttention(8, 2, dropout=0.5)), torch.randn(4, 2, 8)
    found = []
    for through in (False, True):
        module.zero_grad()
        torch.manual_seed(1)

        def forward(y):
            return module(y, y, y)[0]

        if through:
            output = torch.utils.checkpoint.checkpoint(forward, x, use_reentrant=False)
        else:
            output = forward(x)
        output.square().sum().backward()
        found.append([output, *(p.grad for p in module.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    weights = module(x, x, x)[1]
    assert torch.allclose(weights.sum(-1), torch.ones(2, 4))  # before dropout

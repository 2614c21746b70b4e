"""`attnc.torch.scaled_dot_product_attention` against PyTorch's own, in float64 and in halves."""

import itertools

import numpy as np
import pytest
from checks import assert_agree

torch = pytest.importorskip("torch")

import attnc.torch  # noqa: E402

theirs = torch.nn.functional.scaled_dot_product_attention
ours = attnc.torch.scaled_dot_product_attention


def plain(query, key, value, attn_mask=None, is_causal=False, scale=None, enable_gqa=False):
    """The documented formula, whose second derivatives PyTorch has."""
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    scores = query @ key.mT * (query.size(-1) ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    empty = (scores == -torch.inf).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(empty, 0), -1).masked_fill(empty, 0) @ value


def assert_near(x, y, what):
    """As `assert_agree`, but what is 0 may be the rounded sum of numbers of the size of 1."""
    assert x.shape == y.shape, what
    assert_agree(np.append(x, 1.0), np.append(y, 1.0), what)


def pick(rng, *choices):
    return choices[rng.integers(len(choices))]


def drawn(seed):
    """Arguments of a random call: real ones that require a gradient, and the rest."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    L, S, E, Ev = rng.integers(1, 7, 4).tolist()
    S = L if rng.random() < 0.3 else S
    lead = pick(rng, (), (3,), (2, 4), (2, 1, 4), (1, 2, 2, 4))
    gqa = bool(lead) and rng.random() < 0.3
    leads = [lead, lead, lead]
    if gqa:
        heads = pick(rng, *(n for n in (1, 2, 4, 3) if lead[-1] % n == 0))
        leads[1] = leads[2] = (*lead[:-1], heads)
    elif rng.random() < 0.4:  # axes that broadcast, and some that are not there
        leads = [tuple(1 if rng.random() < 0.3 else n for n in each) for each in leads]
        which = rng.integers(3)
        leads[which] = leads[which][rng.integers(len(lead) + 1) :]
    shapes = [(*leads[0], L, E), (*leads[1], S, E), (*leads[2], S, Ev)]
    arrays = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    if rng.random() < 0.3:  # not contiguous
        arrays = [x.mT.contiguous().mT for x in arrays]
    options = {"enable_gqa": gqa, "scale": pick(rng, None, None, 0.7, 0.0)}
    mask = None
    kind = pick(rng, None, "bool", "float", "causal")
    if kind in ("bool", "float"):
        whole = torch.broadcast_shapes(*(each if not gqa else lead for each in leads))
        shape = [1 if rng.random() < 0.3 else n for n in (*whole, L, S)]
        shape = shape[rng.integers(len(shape) - 1) :]  # at least two axes, as PyTorch wants
        mask = torch.rand(shape) < 0.7 if kind == "bool" else torch.randn(shape).double()
        if kind == "float" and rng.random() < 0.5:
            mask[torch.rand(shape) < 0.3] = -torch.inf
    elif kind == "causal":
        options["is_causal"] = True
    return arrays, mask, options


def gradients(function, arrays, mask, options, second=False):
    """The context, the gradients of a loss, and those of a function of these."""
    arrays = [x.detach().requires_grad_() for x in arrays]
    real = list(arrays)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.detach().requires_grad_()
        real.append(mask)
    context = function(*arrays, attn_mask=mask, **options)
    found = torch.autograd.grad(context.sin().sum(), real, create_graph=second)
    result = [context, *found]
    if second:
        result += torch.autograd.grad(sum(d.cos().sum() for d in found), real)
    return [x.detach().numpy() for x in result]


@pytest.mark.parametrize("part", range(10))
def test_random_calls(part):
    """Forty calls a part, forward and backward."""
    for seed in range(40 * part, 40 * part + 40):
        arrays, mask, options = drawn(seed)
        try:
            expected = gradients(theirs, arrays, mask, options)
        except RuntimeError as error:  # axes of the value alone, which the mask has too
            assert "doesn't match the broadcast shape" in str(error)
            expected = [np.array(np.nan)]
        if any(np.isnan(x).any() for x in expected):  # queries that attend to nothing
            expected = gradients(plain, arrays, mask, options)
        for k, (x, y) in enumerate(
            zip(gradients(ours, arrays, mask, options), expected, strict=True)
        ):
            assert_near(x, y, f"{seed}, {k}")


@pytest.mark.parametrize("part", range(3))
def test_second_derivatives(part):
    for seed in range(20 * part, 20 * part + 20):
        arrays, mask, options = drawn(seed)
        expected = gradients(plain, arrays, mask, options, second=True)
        found = gradients(ours, arrays, mask, options, second=True)
        for k, (x, y) in enumerate(zip(found, expected, strict=True)):
            if np.isfinite(y).all():
                assert_near(x, y, f"{seed}, {k}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_dtypes(dtype):
    """At most twice the error of PyTorch's in the same dtype."""
    torch.manual_seed(0)
    exact = [torch.randn(2, 3, 9, 8).to(dtype).double() for _ in range(3)]
    expected = gradients(theirs, exact, None, {"is_causal": True})

    def of(function):
        arrays = [x.to(dtype).requires_grad_() for x in exact]
        context = function(*arrays, is_causal=True)
        assert context.dtype is dtype
        return [context, *torch.autograd.grad(context.double().sin().sum(), arrays)]

    for x, y, z in zip(of(ours), of(theirs), expected, strict=True):
        assert x.dtype is dtype
        errors = [np.abs(found.detach().double().numpy() - z).max() for found in (x, y)]
        assert errors[0] <= 2 * errors[1] + torch.finfo(dtype).eps * np.abs(z).max()


def test_queries_that_attend_to_nothing():
    query, key = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 5, 4, requires_grad=True)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1] = False
    context = ours(query, key, key, attn_mask=mask)
    assert (context[:, 1] == 0).all() and (context[:, 0] != 0).all()
    context.sum().backward()
    assert (query.grad[:, 1] == 0).all() and key.grad.isfinite().all()
    assert ours(query, key[:, :0], key[:, :0]).eq(0).all()


def test_dropout():
    """From PyTorch's generator; weights are dropped at their rate, the others scaled up."""
    query, value = torch.zeros(4, 64, 2), torch.eye(64).expand(4, 64, 64)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(ours(query, query, value, dropout_p=0.25))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    kept = found[0] > 0
    assert torch.allclose(found[0][kept], torch.tensor(1 / 64 / 0.75))
    # 16384 draws: five standard deviations of their mean
    assert abs(kept.double().mean() - 0.75) < 5 * (0.25 * 0.75 / kept.numel()) ** 0.5


def test_autocast():
    x = torch.randn(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = ours(x, x, x), theirs(x, x, x)
        masked = ours(x, x, x, attn_mask=torch.zeros(3, 3))
    assert found.dtype is expected.dtype is masked.dtype is torch.bfloat16
    assert torch.allclose(found, expected, atol=2**-6)


def test_heads_are_not_repeated():
    """Grouped heads, those of key and value in unlike numbers too; a mask by head."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 6, 4, 5).double(), torch.randn(2, 3, 7, 5).double()
    mask = torch.randn(6, 1, 7).double()
    for value in (key, torch.randn(2, 2, 7, 3).double()):
        arguments = {"attn_mask": mask, "enable_gqa": True}
        expected = plain(query, key, value, **arguments)
        assert_agree(ours(query, key, value, **arguments).numpy(), expected.numpy())


def test_a_model_switches_by_one_line(monkeypatch):
    """nn.MultiheadAttention with the function in the place of PyTorch's."""
    torch.manual_seed(0)
    module, x = torch.nn.MultiheadAttention(8, 2).double(), torch.randn(4, 2, 8).double()
    expected = module(x, x, x, need_weights=False)[0]
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", ours)
    assert_agree(module(x, x, x, need_weights=False)[0].detach().numpy(), expected.detach().numpy())


X = torch.ones(2, 3, 4, 5)
WRONG = {
    "no tensor": ((X.numpy(), X, X), {}, TypeError, "query must be a tensor, got ndarray"),
    "rank": ((X, X[0, 0, 0], X), {}, RuntimeError, "key must have at least 2 axes, got shape (5,)"),
    "dtypes": ((X, X, X.double()), {}, RuntimeError, "value must have the dtype of query"),
    "integers": ((X.int(),) * 3, {}, RuntimeError, "query must be of floats, got torch.int32"),
    "features": ((X, X[..., :3], X), {}, RuntimeError, "key must have the last axis of query, 5"),
    "steps": ((X, X, X[..., :3, :]), {}, RuntimeError, "value must have as many steps as key, 4"),
    "axes": ((X, X[:, :2], X), {}, RuntimeError, "must have leading axes that broadcast"),
    "heads": (
        (X, X[:, :2], X[:, :2]),
        {"enable_gqa": True},
        RuntimeError,
        "key must have a number of heads, axis -3, that divides the 3 of query",
    ),
    "no heads": ((X[0, 0],) * 3, {"enable_gqa": True}, RuntimeError, "query must have heads"),
    "mask kind": (
        (X, X, X),
        {"attn_mask": torch.ones(4, 4, dtype=torch.int64)},
        RuntimeError,
        "attn_mask must be of bool or torch.float32, got torch.int64",
    ),
    "mask shape": (
        (X, X, X),
        {"attn_mask": torch.ones(4, 5)},
        RuntimeError,
        "attn_mask must broadcast to (2, 3, 4, 4), got (4, 5)",
    ),
    "mask axes": (
        (X[0, 0],) * 3,
        {"attn_mask": torch.ones(2, 4, 4)},
        RuntimeError,
        "attn_mask must broadcast to (4, 4), got (2, 4, 4)",
    ),
    "causal mask": (
        (X, X, X),
        {"attn_mask": torch.ones(4, 4), "is_causal": True},
        RuntimeError,
        "attn_mask must be None with is_causal=True",
    ),
    "dropout": ((X, X, X), {"dropout_p": 1.0}, RuntimeError, "dropout_p must lie in 0 <= dropout"),
    "device": (
        (X.to("meta"),) * 3,
        {},
        TypeError,
        "query must be on the CPU, where attnc computes, got device meta",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors(case):
    arguments, options, error, message = WRONG[case]
    with pytest.raises(error) as raised:
        ours(*arguments, **options)
    assert message in str(raised.value)
    if case != "device":
        assert str(raised.value).startswith("scaled_dot_product_attention: ")


def test_the_signature_is_that_of_torch():
    """By position and by name; scale and enable_gqa too, which PyTorch takes by name alone."""
    x = torch.randn(1, 2, 3, 4)
    mask = torch.ones(3, 3, dtype=torch.bool)
    for count in range(4):
        given = (mask, 0.0, False)[:count]
        assert torch.allclose(ours(x, x, x, *given), theirs(x, x, x, *given), atol=1e-6)
    names = "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"
    values = mask, 0.0, False, 0.5, True
    for count in range(6):
        options = dict(itertools.islice(zip(names, values, strict=True), count))
        assert torch.allclose(ours(x, x, x, **options), theirs(x, x, x, **options), atol=1e-6)

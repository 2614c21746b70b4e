"""Against PyTorch in float64: its scaled_dot_product_attention, and autograd of the formulas."""

import numpy as np
import pytest
from arrays import inputs, options
from checks import EVERYTHING, assert_agree, incoming

import attnc
from attnc import reference

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.parametrize("module", [attnc, reference], ids=["attnc", "reference"])


def compare(function, vjp, arrays, own, formula, d):
    """Outputs and gradients of a function and of a formula in tensors of the same arguments."""
    real = [x for x in own.values() if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    tensors = [torch.tensor(x, requires_grad=True) for x in (*arrays, *real)]
    expected = formula(*tensors)
    sum((torch.tensor(dx) * x).sum() for dx, x in zip(d.values(), expected, strict=True)).backward()
    output, pullback = vjp(function, *arrays, **own)
    for x, y in zip(output if isinstance(output, tuple) else [output], expected, strict=True):
        assert_agree(x, y.detach().numpy())
    for (field, gradient), x in zip(vars(pullback(**d)).items(), tensors, strict=True):
        assert_agree(gradient, x.grad.numpy(), f"d{field}")


def softmax_attention(scores, value, own):
    """Context, weights, lse of scores, where every query may attend to some key."""
    if "softcap" in own:
        scores = own["softcap"] * torch.tanh(scores / own["softcap"])
    if "mask" in own:
        scores = scores.masked_fill(~torch.tensor(own["mask"]), -torch.inf)
    if own.get("causal"):
        Tq, Tk = scores.shape[-2:]
        seen = torch.ones(Tq, Tk, dtype=torch.bool).tril(Tk - Tq)
        scores = scores.masked_fill(~seen, -torch.inf)
    weights = torch.softmax(scores, -1)
    return weights @ value, weights, torch.logsumexp(scores, -1)


def scores_of(name, query, key, *parameters):
    if name == "dot_product_attention":
        return query @ key.mT / query.shape[-1] ** 0.5
    if name == "multiplicative_attention":
        return torch.einsum("...id,de,...je->...ij", query, parameters[0], key)
    if name == "cosine_attention":
        query, key = query[..., :, None, :], key[..., None, :, :]
        return parameters[0] * torch.cosine_similarity(query, key, dim=-1)
    v, Wq, Wk, b = parameters
    return torch.tanh((query @ Wq)[..., :, None, :] + (key @ Wk)[..., None, :, :] + b) @ v


@pytest.mark.parametrize("option", ["none", "mask", "causal", "softcap"])
@pytest.mark.parametrize(
    "name",
    ["dot_product_attention", "multiplicative_attention", "additive_attention", "cosine_attention"],
)
def test_formulas(name, option, module, rng):
    arrays, own = inputs(name, rng, leads=((2, 1), (1, 3), (2, 3)))
    extra = options(option, rng, leads=((2, 3),) * 3)
    if option == "mask":
        extra["mask"][..., 0] = True
    function = getattr(module, name)
    own |= {**extra, **EVERYTHING}
    d = incoming(rng, function(*arrays, **own))

    def formula(query, key, value, *parameters):
        return softmax_attention(scores_of(name, query, key, *parameters), value, own)

    compare(function, module.vjp, arrays, own, formula, d)


def test_attend(module, rng):
    (scores, value), _ = inputs("attend", rng)
    d = incoming(rng, module.attend(scores, value, **EVERYTHING))

    def formula(scores, value):
        return softmax_attention(scores, value, {})

    compare(module.attend, module.vjp, (scores, value), EVERYTHING, formula, d)


SDPA = [
    # our options, PyTorch's
    ({}, {}),
    ({"scale": 0.3}, {"scale": 0.3}),
    ({"causal": True, "causal_offset": 0}, {"is_causal": True}),
    ({"mask": ...}, {"attn_mask": ...}),
    ({"bias": ...}, {"attn_mask": ...}),
]


@pytest.mark.parametrize(("own", "theirs"), SDPA, ids=["plain", "scale", "causal", "mask", "bias"])
def test_scaled_dot_product_attention(own, theirs, module, rng):
    """Queries without keys included: they get 0 there as here."""
    arrays, _ = inputs("dot_product_attention", rng, leads=((2, 3),) * 3)
    allowed = rng.random((2, 3, 5, 7)) < 0.5
    allowed[1, 2, 4] = False
    bias = np.where(allowed, rng.standard_normal(allowed.shape), -np.inf)
    given = {"mask": allowed, "bias": bias}
    own = {field: given[field] if x is ... else x for field, x in own.items()}

    def formula(query, key, value, bias=None):
        options = dict(theirs)
        if "attn_mask" in options:
            options["attn_mask"] = torch.tensor(allowed) if bias is None else bias
        return [torch.nn.functional.scaled_dot_product_attention(query, key, value, **options)]

    d = {"dcontext": rng.standard_normal((2, 3, 5, 13))}
    compare(module.dot_product_attention, module.vjp, arrays, own, formula, d)


def test_grouped_queries(module, rng):
    """Their query (B, Hkv * G, Tq, D) is our (B, Hkv, G, Tq, D), their key (B, Hkv, 1, Tk, D)."""
    leads = ((2, 2, 3), (2, 2, 1), (2, 2, 1))
    arrays, _ = inputs("dot_product_attention", rng, leads=leads)

    def formula(query, key, value):
        query, key, value = query.flatten(1, 2), key.flatten(1, 2), value.flatten(1, 2)
        attention = torch.nn.functional.scaled_dot_product_attention
        return [attention(query, key, value, enable_gqa=True).unflatten(1, (2, 3))]

    d = {"dcontext": rng.standard_normal((2, 2, 3, 5, 13))}
    compare(module.dot_product_attention, module.vjp, arrays, {}, formula, d)

"""Head axes: splitting and merging, options of the layer's rank, and a layer of many heads."""

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import check_layer, randomize

import attnc
from attnc.functional.options import DEFAULTS, takes_options
from attnc.gradients import Gradients
from attnc.layers.heads import AXES, lift_options, merge_heads, split_heads

B, TQ, TK, E, H, D = 2, 3, 5, 7, 6, 4
GROUPS = [(6,), (6, 1), (3, 2), (1, 6)]  # heads of keys, and how many heads of queries share each


# ---- Arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (0,)])
@pytest.mark.parametrize("heads", [(1,), *GROUPS])
def test_split_and_merge(lead, heads, rng):
    x = rng.standard_normal((*lead, TQ, H * D))
    split = split_heads(x, heads)
    size = x.shape[-1] // np.prod(heads)
    assert split.shape == (*lead, *heads, TQ, size) and (np.shares_memory(split, x) or not x.size)
    for h, at in enumerate(np.ndindex(heads)):  # heads side by side, in C order
        index = (..., *at, slice(None), slice(None))
        assert_same(split[index], x[..., h * size : (h + 1) * size])
    assert_same(merge_heads(split, heads), x)
    assert_same(merge_heads(np.ascontiguousarray(split), heads), x)


# ---- Options -------------------------------------------------------------------------------------


def test_every_option_that_goes_by_query_or_key_is_known():
    others = "causal window sigma renormalize normalizer softcap dropout rng".split()
    others += ["return_weights", "return_lse"]
    others += ["query_offsets", "key_offsets"]  # for all sequences and heads at once
    assert set(AXES) == set(DEFAULTS) - set(others)


def lift(lead=(B,), heads=(3, 2), **options):
    return lift_options("Layer", options, lead, TQ, TK, heads)


def random_option(name, rng, shape):
    if name in ("bias", "slope", "sink"):
        return rng.standard_normal(shape)
    if name.endswith("mask"):
        return rng.random(shape) < 0.6
    return rng.integers(0, TK, shape)


@pytest.mark.parametrize("heads", GROUPS)
@pytest.mark.parametrize("lead", [(), (B,), (B, 4)])
@pytest.mark.parametrize("name", AXES)
def test_options_mean_the_same_inside(name, lead, heads, rng):
    """All of them, with every choice of axes that are 1; with an axis of heads and without."""
    own = tuple({"Tq": TQ, "Tk": TK}[axis] for axis in AXES[name])
    full = (*lead, H, *own)
    at = len(lead)
    for choice in np.ndindex((2,) * len(full)):
        shape = tuple(np.where(choice, full, 1).tolist())
        value = random_option(name, rng, shape)
        inside = lift(lead, heads, **{name: value})[name]
        assert inside.ndim == at + len(heads) + len(own)
        expected = np.broadcast_to(value, full).reshape(*lead, *heads, *own)
        assert_same(np.broadcast_to(inside, expected.shape), expected)
        if not choice[at]:
            every = value.reshape(shape[:at] + shape[at + 1 :])  # the same for every head
            lifted = lift(lead, heads, **{name: every})[name]
            assert lifted.shape == inside.shape
            assert_same(np.reshape(lifted, inside.shape), inside)


def test_options_that_pass_as_they_are():
    options = {"causal": True, "window": (1, None), "key_lengths": 3, "causal_offset": np.int8(1)}
    options |= {"mask": None, "bias": None, "softcap": 2.0, "rng": 1}
    assert lift(**options) == options
    given = {"mask": np.ones((B, TQ, TK), bool)}
    lift(**given)
    assert given["mask"].shape == (B, TQ, TK)


def test_lists_are_arrays():
    assert_same(lift(key_lengths=[1, 2])["key_lengths"], np.array([[[1]], [[2]]]))


REFUSED = [
    (
        {"mask": np.ones((TQ, TK), bool)},
        "mask must have 3 axes (..., Tq, Tk) = (2, 3, 5), or with heads 4 axes (..., H, Tq, Tk) = "
        "(2, 6, 3, 5), each of that size or 1, got (3, 5); write mask[None, ...]; a mask of keys "
        "alone goes to key_mask=",
    ),
    (
        {"mask": np.ones((B, TK), bool)},
        "mask must have 3 axes (..., Tq, Tk) = (2, 3, 5), or with heads 4 axes (..., H, Tq, Tk) = "
        "(2, 6, 3, 5), each of that size or 1, got (2, 5); a mask of keys alone goes to key_mask=",
    ),
    (
        {"bias": np.ones((B, 3, 2, TQ, TK))},  # nobody outside knows how heads are grouped
        "bias must have 3 axes (..., Tq, Tk) = (2, 3, 5), or with heads 4 axes (..., H, Tq, Tk) = "
        "(2, 6, 3, 5), each of that size or 1, got (2, 3, 2, 3, 5)",
    ),
    (
        {"bias": np.ones((B, 3, TQ, TK))},
        "bias must have 3 axes (..., Tq, Tk) = (2, 3, 5), or with heads 4 axes (..., H, Tq, Tk) = "
        "(2, 6, 3, 5), each of that size or 1, got (2, 3, 3, 5)",
    ),
    (
        {"key_mask": np.ones(TK, bool)},
        "key_mask must have 2 axes (..., Tk) = (2, 5), or with heads 3 axes (..., H, Tk) = "
        "(2, 6, 5), each of that size or 1, got (5,); write key_mask[None, ...]",
    ),
    (
        {"key_lengths": [1, 2, 3]},
        "key_lengths must have 1 axes (...) = (2,), or with heads 2 axes (..., H) = (2, 6), each "
        "of that size or 1, got (3,)",
    ),
    (
        {"causal_offset": np.zeros((B, 3), int)},
        "causal_offset must have 1 axes (...) = (2,), or with heads 2 axes (..., H) = (2, 6), each "
        "of that size or 1, got (2, 3)",
    ),
]


@pytest.mark.parametrize("options, message", REFUSED, ids=[str(k) for k in range(len(REFUSED))])
def test_refused_shapes(options, message):
    with pytest.raises(ValueError) as caught:
        lift(**options)
    assert str(caught.value) == f"Layer: {message}"


def test_refused_kinds():
    with pytest.raises(TypeError, match="^Layer: mask must be a plain array, got a masked array"):
        lift(mask=np.ma.ones((B, TQ, TK), bool))


# ---- A layer of many heads -----------------------------------------------------------------------


class Heads(attnc.layers.Layer):
    """What `attnc.layers.heads` is for: projections by `Linear`, one call of attention."""

    _joint = "_"

    def __init__(self, size, heads, rng=None, dtype="float64"):
        super().__init__(dtype)
        self.size, self.heads = size, heads  # heads of keys, and of queries for each
        self.of_keys = (heads[0],) + (1,) * (len(heads) - 1)
        common = {"bias": False, "rng": np.random.default_rng(rng), "dtype": dtype}
        self.query = attnc.Linear(size, H * D, **common)
        self.key = attnc.Linear(size, heads[0] * D, **common)
        self.value = attnc.Linear(size, heads[0] * D, **common)
        self.output = attnc.Linear(H * D, size, **common)

    def _vjp(self, query, key, **given):
        lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        options = lift_options("Heads", given, lead, query.shape[-2], key.shape[-2], self.heads)
        maps = [(self.query, query, self.heads), (self.key, key, self.of_keys)]
        maps += [(self.value, key, self.of_keys)]
        steps = [attnc.vjp(layer, x) for layer, x, _ in maps]
        split = [split_heads(y, heads) for (y, _), (*_, heads) in zip(steps, maps, strict=True)]
        contexts, back = attnc.vjp(attnc.dot_product_attention, *split, **options)
        y, back_to_contexts = attnc.vjp(self.output, merge_heads(contexts, self.heads))

        def pullback(dy):
            d = back(split_heads(back_to_contexts(dy).x, self.heads))
            dquery, dkey, dvalue = (
                step(merge_heads(g, heads)).x
                for (_, step), g, (*_, heads) in zip(steps, d, maps, strict=True)
            )
            names = {"bias", "slope", "sink"} & given.keys()
            optional = {name: d[name].reshape(given[name].shape) for name in names}
            return Gradients({"query": dquery, "key": dkey + dvalue}, optional)

        return y, pullback

    @takes_options
    def __call__(self, query, key, **options):
        return self._vjp(query, key, **options)[0]


@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("heads", GROUPS)
def test_heads_are_layers_of_one_head_each(heads, by_head, rng):
    layer = randomize(Heads(E, heads, rng=0), rng)
    query, key = rng.standard_normal((B, TQ, E)), rng.standard_normal((B, TK, E))
    some = (B, H) if by_head else (B,)
    options = {
        "bias": rng.standard_normal((*some, 1, TK)),
        "mask": rng.random((*some, TQ, TK)) < 0.8,
        "key_mask": rng.random((*some, TK)) < 0.9,
        "key_lengths": rng.integers(1, TK + 1, some),
        "causal_offset": rng.integers(1, TK, some),
        "slope": rng.standard_normal(some),
        "sink": rng.standard_normal((1, *some[1:])),
        "causal": True,
    }
    y, gradients = check_layer(layer, (query, key), options, rng)
    for name in ("bias", "slope", "sink"):
        assert gradients[name].shape == options[name].shape
    assert list(layer.parameters) == [f"{n}_weight" for n in ("query", "key", "value", "output")]

    p, expected = layer.parameters, 0
    for h in range(H):
        mine = slice(h * D, (h + 1) * D)
        k = h // (H // heads[0])
        theirs = slice(k * D, (k + 1) * D)
        one = {n: x[:, h] if by_head and n != "causal" else x for n, x in options.items()}
        context = attnc.dot_product_attention(
            query @ p["query_weight"][:, mine],
            key @ p["key_weight"][:, theirs],
            key @ p["value_weight"][:, theirs],
            **one,
        )
        expected = expected + context @ p["output_weight"][mine]
    assert_agree(y, expected)


def test_one_head_is_self_attention(rng):
    """With the identity as its output."""
    one = attnc.SelfAttention(E, H * D, rng=0, dtype="float64")
    many = Heads(E, (1, 1), dtype="float64")
    many.query, many.key, many.value = one.query, one.key, one.value
    many.output = attnc.Linear(H * D, H * D, bias=False, dtype="float64")
    many.output.parameters["weight"] = np.eye(H * D)
    x = rng.standard_normal((B, TK, E))
    options = {"mask": rng.random((B, TK, TK)) < 0.8, "key_lengths": [4, 3], "window": (2, 2)}
    assert_agree(many(x, x, **options), one(x, **options))

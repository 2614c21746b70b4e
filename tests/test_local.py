"""The options center, sigma and renormalize: local attention (Luong et al. 2015, section 3.2)."""

import numpy as np
import pytest
from arrays import FUNCTIONS, LAYOUTS, inputs
from checks import EVERYTHING, assert_agree, assert_same, check, check_vjp, evaluate, incoming

import attnc

# One tile; several segments of keys, which windows cross; more queries than tiles have.
SIZES = {"small": (5, 7), "segments": (9, 1600), "many queries": (130, 90)}
ORDERS = {
    "growing": lambda rng, Tq, Tk: np.linspace(0, Tk - 1, Tq),
    "falling": lambda rng, Tq, Tk: np.linspace(Tk, 0, Tq),
    "any": lambda rng, Tq, Tk: rng.uniform(-4, Tk + 4, Tq),
    "at borders": lambda rng, Tq, Tk: 192 * np.arange(Tq) - 0.5,  # of blocks of keys
}
WINDOWS = {
    "closed": {"window": (3, 2)},
    "left": {"window": (2, 0), "sigma": 4.0},
    "right": {"window": (0, 3), "sigma": 0.7},
    "wide": {"window": (300, 250)},
    "open left": {"window": (None, 1), "sigma": 2.5},
    "open right": {"window": (4, None)},
    "open": {"window": (None, None), "sigma": 30.0},
}


def gaussian(center, sigma, Tk):
    return np.exp(-((np.arange(Tk) - center[..., None]) ** 2) / (2 * sigma**2))


def in_window(center, window, Tk):
    steps = np.arange(Tk) - np.floor(center)[..., None]
    left, right = window
    return (steps >= (-np.inf if left is None else -left)) & (
        steps <= (np.inf if right is None else right)
    )


def test_by_hand():
    """Scores 0: over floor(1.5) +- 1 the softmax is 1/3, sigma is 1/2."""
    scores, value = np.zeros((1, 5)), np.arange(5.0)[:, None]
    got = attnc.attend(scores, value, center=1.5, window=(1, 1), **EVERYTHING)
    g = np.exp(-2 * np.array([1.5, 0.5, 0.5]) ** 2)
    assert_agree(got.weights[0], [*(g / 3), 0, 0])
    assert_agree(got.context[0, 0], (g[1] + 2 * g[2]) / 3)
    assert_agree(got.lse, np.log([3.0]))

    inside = attnc.attend(scores, value, center=1.5, window=(1, 1), renormalize=True, **EVERYTHING)
    assert_agree(inside.weights[0], [*(g / g.sum()), 0, 0])
    assert_agree(inside.lse, np.log([g.sum()]))


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_is_a_mask_and_a_factor(sizes, order, window, rng):
    """The whole of it, from a call without a center; forward and backward."""
    Tq, Tk = sizes
    arrays, _ = inputs("dot_product_attention", rng, Tq=Tq, Tk=Tk)
    center = order(rng, Tq, Tk)[None]
    sigma = window.get("sigma") or window["window"][0] / 2
    mask, g = in_window(center, window["window"], Tk), gaussian(center, sigma, Tk)
    got, pullback = attnc.vjp(
        attnc.dot_product_attention, *arrays, center=center, **window, **EVERYTHING
    )
    plain, plain_pullback = attnc.vjp(attnc.dot_product_attention, *arrays, mask=mask, **EVERYTHING)
    weights = plain.weights * g
    assert_agree(got.weights, weights)
    assert_agree(got.context, weights @ arrays[2])
    assert_agree(got.lse, plain.lse)

    d = incoming(rng, got)
    dweights = d["dcontext"] @ arrays[2].swapaxes(-1, -2) + d["dweights"]
    by_hand = plain_pullback(dweights=g * dweights, dlse=d["dlse"])
    gradients = pullback(**d)
    assert_agree(gradients.query, by_hand.query)
    assert_agree(gradients.key, by_hand.key)
    assert_agree(gradients.value, weights.swapaxes(-1, -2) @ d["dcontext"])
    moment = weights * dweights * (np.arange(Tk) - center[..., None]) / sigma**2
    assert_agree(gradients.center, moment.sum(-1).sum(0, keepdims=True))


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_renormalized_is_a_bias(name, order, rng):
    arrays, own = inputs(name, rng, Tq=9, Tk=700)
    center, window = order(rng, 9, 700)[None], (6, 9)
    g = gaussian(center, 3, 700)
    bias = np.where(in_window(center, window, 700), np.log(np.maximum(g, 1e-300)), -np.inf)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING))
    local = {"center": center, "window": window, "renormalize": True}
    got, gradients = evaluate(name, arrays, own | local, d)
    expected, by_bias = evaluate(name, arrays, own | {"bias": bias}, d)
    for x, y in zip(got, expected, strict=True):
        assert_agree(x, y)
    moment = by_bias.pop("bias") * (np.arange(700) - center[..., None]) / 9
    assert_agree(gradients.pop("center"), moment.sum(-1))
    for field, gradient in by_bias.items():
        assert_agree(gradients[field], gradient, field)


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients(name, lead, renormalize, rng):
    arrays, own = inputs(name, rng, leads=(lead, lead, lead))
    own |= {"center": rng.uniform(0, 7, (*lead, 5)), "window": (2, 3), "sigma": 1.3, "softcap": 2.0}
    own |= {"renormalize": renormalize, "dropout": 0.2, "rng": 1, "slope": np.full(lead, 0.2)}
    check_vjp(attnc.vjp, getattr(attnc, name), arrays, own)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_long(name, dtype, rng):
    """Several segments of keys, tiles and blocks of queries, with other options."""
    Tq, Tk = 110, 620
    arrays, own = inputs(name, rng, dtype, Tq=Tq, Tk=Tk, D=16, Dv=16, leads=((2,), (1,), (2,)))
    own |= {
        "center": rng.uniform(-5, Tk + 5, (1, Tq)).astype(dtype),
        "window": (20, 260),
        "sigma": 20.0,
        "mask": rng.random((2, 1, Tk)) < 0.9,
        "query_lengths": np.array([Tq, 70]),
        "sink": rng.standard_normal(2).astype(dtype),
    }
    check(name, arrays, own, rng)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_without_a_gaussian_local_m_is_a_window(name, rng):
    arrays, own = inputs(name, rng, Tq=60, Tk=80)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING))
    local = {"center": np.arange(60.0)[None], "window": (4, 2), "sigma": np.inf}
    got, gradients = evaluate(name, arrays, own | local, d)
    assert not gradients.pop("center").any()
    expected, plain = evaluate(name, arrays, own | {"window": (4, 2), "causal_offset": 0}, d)
    for x, y in zip(got, expected, strict=True):
        assert_agree(x, y)
    for field, gradient in plain.items():
        assert_agree(gradients[field], gradient, field)


@pytest.mark.parametrize("far", [np.inf, -np.inf, 1e300, -1e300, 2.0**60, 1e6])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_far_from_all_keys(name, far, dtype, rng):
    """An empty window, and of what is not allowed nothing is felt. Behind it, all is as it was."""
    far = np.clip(far, -np.finfo(dtype).max, np.finfo(dtype).max) if np.isfinite(far) else far
    arrays, own = inputs(name, rng, dtype)
    own |= {"center": np.array([[3.0, 2.5, far, 4.0, 1.0]], dtype), "window": (2, 1), "sigma": 1.0}
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    d["dcontext"][:, 2] = d["dweights"][:, 2] = d["dlse"][:, 2] = np.nan
    output, gradients = evaluate(name, arrays, own, d)
    assert not output.context[:, 2].any() and not output.weights[:, 2].any()
    assert (output.lse[:, 2] == -np.inf).all()
    assert np.isfinite(output.context).all()
    assert gradients["center"][0, 2] == 0 and gradients["center"][0, 1] != 0
    assert all(np.isfinite(x).all() for x in gradients.values())


@pytest.mark.parametrize("window", [(None, 1), (1, None), (None, None)], ids=str)
def test_far_is_empty_also_where_the_window_is_open(window, rng):
    arrays, _ = inputs("dot_product_attention", rng)
    for far in (np.inf, -np.inf, 1e300, -(2.0**60)):
        got = attnc.dot_product_attention(
            *arrays, center=far, window=window, sigma=np.inf, **EVERYTHING
        )
        assert not got.context.any() and (got.lse == -np.inf).all()


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_not_a_number(name, renormalize, dtype, rng):
    """NaN where the row may attend, unless it may attend to nothing; other rows do not feel it."""
    arrays, own = inputs(name, rng, dtype)
    mask = rng.random((2, 5, 7)) < 0.7
    mask[:, 1] = False
    center = np.array([[1.0, np.nan, np.nan, 4.0, 1.0]], dtype)
    own |= {"center": center, "window": (2, 1), "renormalize": renormalize}
    got = getattr(attnc, name)(*arrays, **own, mask=mask, **EVERYTHING)
    assert not got.context[:, 1].any() and (got.lse[:, 1] == -np.inf).all()
    assert np.isnan(got.context[:, 2]).all() and np.isnan(got.lse[:, 2]).all()
    assert_same(np.isnan(got.weights[:, 2]), mask[:, 2])
    assert np.isfinite(got.context[:, [0, 3, 4]]).all()
    own["center"] = np.where(np.isnan(center), 3, center)
    sound = getattr(attnc, name)(*arrays, **own, mask=mask)
    np.testing.assert_allclose(
        got.context[:, [0, 3, 4]], sound[:, [0, 3, 4]], rtol=100 * np.finfo(dtype).eps
    )


@pytest.mark.parametrize("sizes", [(3, 0), (0, 5), (0, 0)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_there(name, sizes, rng):
    Tq, Tk = sizes
    arrays, own = inputs(name, rng, Tq=Tq, Tk=Tk)
    own |= {"center": np.ones((2, Tq)), "window": (2, 2)}
    output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own)
    assert output.shape == (2, Tq, 13) and not output.any()
    gradients = vars(pullback(output))
    assert gradients["center"].shape == (2, Tq) and not any(x.any() for x in gradients.values())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_keys_outside_of_all_windows_are_not_read(name, dtype, rng):
    arrays, own = inputs(name, rng, dtype, Tk=300)
    own |= {"center": rng.uniform(100, 140, (2, 5)).astype(dtype), "window": (5, 5)}
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    expected = evaluate(name, arrays, own, d)
    outside = np.r_[0:94, 147:300]
    arrays = [x.copy() for x in arrays]
    if name == "attend":
        arrays[0][..., outside] = np.inf
    else:
        arrays[1][:, outside] = np.nan
    arrays[-1 if name == "attend" else 2][:, outside] = np.nan
    d["dweights"][..., outside] = np.nan
    output, gradients = evaluate(name, arrays, own, d)
    assert_same(tuple(output), tuple(expected[0]))
    assert_same(gradients, expected[1])


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_number_of_threads(name, order, dtype, rng):
    Tq, Tk = 500, 1300
    arrays, own = inputs(name, rng, dtype, Tq=Tq, Tk=Tk, D=16, Dv=16)
    own |= {"center": order(rng, Tq, Tk)[None], "window": (9, 6), "dropout": 0.2, "rng": 1}
    output = attnc.vjp(getattr(attnc, name), *arrays, **own)[0]
    d = rng.standard_normal(output.shape).astype(dtype)
    results = []
    for threads in (1, 2, 5):
        with attnc.set_num_threads(threads):
            context, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own)
            results.append((context, vars(pullback(d))))
    for context, gradients in results[1:]:
        assert_same(context, results[0][0])
        assert_same(gradients, results[0][1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_center(layout, rng):
    arrays, _ = inputs("dot_product_attention", rng)
    center = LAYOUTS[layout](rng.uniform(0, 7, (2, 5)))
    options = {"center": center, "window": (2, 2)}
    copied = options | {"center": np.array(center, np.float64)}
    context, pullback = attnc.vjp(attnc.dot_product_attention, *arrays, **options)
    expected, expected_pullback = attnc.vjp(attnc.dot_product_attention, *arrays, **copied)
    assert_same(context, expected)
    assert_same(vars(pullback(context)), vars(expected_pullback(context)))


def test_takes_no_part_in_the_dtype(rng):
    arrays, _ = inputs("dot_product_attention", rng, np.float32)
    local = {"window": (2, 2)}
    for kind in (np.float16, np.float32, np.float64):
        center = np.array([[0.25, 5.5, 2, 3, 1]], kind)
        context, pullback = attnc.vjp(attnc.dot_product_attention, *arrays, center=center, **local)
        assert context.dtype == np.float32 and pullback(context).center.dtype == kind
        assert_same(context, attnc.dot_product_attention(*arrays, center=center.tolist(), **local))
    whole = np.array([[0, 5, 2, 3, 1]])
    context, pullback = attnc.vjp(attnc.dot_product_attention, *arrays, center=whole, **local)
    assert pullback(context).center.dtype == np.float32  # of integers: what is computed in
    assert_same(context, attnc.dot_product_attention(*arrays, center=whole + 0.0, **local))


def test_is_read_in_double(rng):
    """Far out a float32 has no fractions left, but j - center has."""
    (scores, value), _ = inputs("attend", rng, np.float32, Tq=1, Tk=20000, leads=((), (), ()))
    got = attnc.attend(scores, value, center=19000.3, window=(3, 3), sigma=0.5)
    near = attnc.attend(
        scores[:, 18900:19100], value[18900:19100], center=100.3, window=(3, 3), sigma=0.5
    )
    np.testing.assert_allclose(got, near, rtol=3e-6)


@pytest.mark.parametrize("sigma", [1e-320, 1e-30, 1e30, 1e308])
def test_extreme_sigmas(sigma, dtype, rng):
    arrays, _ = inputs("dot_product_attention", rng, dtype)
    for renormalize in (False, True):
        local = {"center": np.array([[3.0, 2.5, 1, 4, 6]]), "window": (2, 1)}
        context, pullback = attnc.vjp(
            attnc.dot_product_attention, *arrays, **local, sigma=sigma, renormalize=renormalize
        )
        assert np.isfinite(context).all()
        assert all(np.isfinite(x).all() for x in vars(pullback(context)).values())


PACKED = [name for name in FUNCTIONS if name != "attend"]


@pytest.mark.parametrize("by", ["query", "one"])
@pytest.mark.parametrize("name", PACKED)
def test_packed(name, by, dtype, rng):
    """Each sequence has the bits of a call on it alone; keys count within the sequence."""
    queries, keys = [5, 0, 60, 2, 130], [7, 3, 600, 60, 0]
    q, k = (np.append(0, np.cumsum(n)) for n in (queries, keys))
    arrays, own = inputs(name, rng, dtype, Tq=q[-1], Tk=k[-1], D=16, Dv=16)
    center = rng.uniform(0, 60, (2, q[-1]) if by == "query" else (1, 1)).astype(dtype)
    own |= {"window": (5, 9), "renormalize": by == "one"}
    offsets = {"query_offsets": q, "key_offsets": k}
    context, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own, center=center, **offsets)
    d = rng.standard_normal(context.shape).astype(dtype)
    gradients, total = pullback(d), 0
    for b in range(len(queries)):
        i, j = slice(q[b], q[b + 1]), slice(k[b], k[b + 1])
        rows = [arrays[0][:, i], arrays[1][:, j], arrays[2][:, j], *arrays[3:]]
        here = center[:, i] if by == "query" else center
        alone, alone_pullback = attnc.vjp(getattr(attnc, name), *rows, **own, center=here)
        assert_same(context[:, i], alone)
        part = alone_pullback(d[:, i])
        assert_same(gradients.query[:, i], part.query)
        assert_same(gradients.key[:, j], part.key)
        assert_same(gradients.value[:, j], part.value)
        if by == "query":
            assert_same(gradients.center[:, i], part.center)
        else:
            total = total + part.center
    if by == "one":
        np.testing.assert_allclose(gradients.center, total, rtol=1e-3 if dtype == "f4" else 1e-4)


SIGMA = r"sigma must be None or a number > 0 \(inf: no Gaussian\), got "
WRONG = [
    ({"center": np.ones((2, 4)), "window": (1, 1)}, ValueError, r"center must have 2 axes \(..."),
    (
        {"center": np.ones(5), "window": (1, 1)},
        ValueError,
        r"center must have .* write center\[None, :\]",
    ),
    (
        {"center": np.ones((3, 5)), "window": (1, 1)},
        ValueError,
        r"center must have .* got \(3, 5\)",
    ),
    ({"center": "1", "window": (1, 1)}, TypeError, "center must hold real numbers"),
    ({"center": 1j, "window": (1, 1)}, TypeError, "center must hold real numbers"),
    ({"center": True, "window": (1, 1)}, TypeError, "center must be None, a number or a real arr"),
    ({"center": np.ma.ones((2, 5)), "window": (1, 1)}, TypeError, "center must be"),
    ({"center": 1.0}, ValueError, r"center must go with window=\(left, right\), which counts from"),
    ({"center": 1.0, "window": (None, 1)}, ValueError, "sigma must be given where .* left open"),
    ({"center": 1.0, "window": (0, 1)}, ValueError, "sigma must be given where .* left 0"),
    ({"center": 1.0, "window": (1, 1), "sigma": 0}, ValueError, SIGMA + "0"),
    ({"center": 1.0, "window": (1, 1), "sigma": -1.0}, ValueError, SIGMA + "-1.0"),
    ({"center": 1.0, "window": (1, 1), "sigma": np.nan}, ValueError, SIGMA + "nan"),
    ({"center": 1.0, "window": (1, 1), "sigma": "2"}, TypeError, SIGMA + "'2'"),
    ({"center": 1.0, "window": (1, 1), "sigma": np.ones(2)}, TypeError, SIGMA),
    ({"sigma": 1.0}, ValueError, "sigma must go with center=, got none"),
    ({"renormalize": True}, ValueError, "renormalize must go with center=, got none"),
    (
        {"center": 1.0, "window": (1, 1), "renormalize": 1},
        TypeError,
        "renormalize must be True or False, got 1",
    ),
    (
        {"center": 1.0, "window": (1, 1), "causal_offset": 0},
        ValueError,
        "causal_offset must go with causal=True or slope= where there is a center",
    ),
]


@pytest.mark.parametrize("options, kind, message", WRONG, ids=[str(w[0]) for w in WRONG])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors(name, options, kind, message, rng):
    arrays, own = inputs(name, rng)
    with pytest.raises(kind, match=f"^{name}: {message}"):
        getattr(attnc, name)(*arrays, **own, **options)


def test_stages_show_it(rng):
    query, key, value = inputs("dot_product_attention", rng)[0]
    local = {"center": rng.uniform(0, 7, (2, 5)), "window": (2, 3)}
    for renormalize in (False, True):
        options = local | {"renormalize": renormalize}
        s = attnc.stages(attnc.dot_product_attention, query, key, value, **options)
        got = attnc.dot_product_attention(query, key, value, **options, return_weights=True)
        assert_agree(s.weights, got.weights)
        assert_agree(s.context, got.context)
        assert ("exp(-(j - center_i)^2 / (2 sigma^2))" in repr(s)) != renormalize
        assert ("t_ij - (j - center_i)^2 / (2 sigma^2)" in repr(s)) == renormalize
        pullback = attnc.vjp(attnc.dot_product_attention, query, key, value, **options)[1]
        gradients, expected = s.gradients(value[:, :5]), pullback(value[:, :5])
        assert_agree(gradients.center, expected.center)
        assert_agree(gradients.query, expected.query)

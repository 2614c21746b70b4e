"""Sparse normalizers: sparsemax and 1.5-entmax in the place of the softmax.

Against the reference, which sorts, by the rule of tolerance; against differences; and against
`entmax`, a package of their authors' group, where it is installed.
"""

import numpy as np
import pytest
from arrays import EDGES, FUNCTIONS, LAYOUTS, LEADS, OPTIONS, PRIMES, inputs, lay_out
from arrays import options as shared_options
from checks import (
    FEW,
    FLOOR,
    FLOOR_OF_FEW,
    assert_agree,
    assert_close_like_naive,
    assert_same,
    assert_unchanged,
    run_out_of_memory,
    wider,
)
from test_scores import largest_terms

import attnc
from attnc import _core, reference

NORMALIZERS = ["sparsemax", "entmax15"]
SPREAD = 3.0  # of scores: some keys are in the support, and some are not

# Without what does not go with them.
REFUSED = {"sink", "center", "sigma", "renormalize"}


def options(option, rng, dtype=np.float64, **sizes):
    found = shared_options(option, rng, dtype, **sizes)
    return {name: value for name, value in found.items() if name not in REFUSED}


KNOWN = [o for o in OPTIONS if o == "none" or options(o, np.random.default_rng(0))]


@pytest.fixture(params=NORMALIZERS)
def normalizer(request):
    return request.param


def arguments(name, rng, dtype=np.float64, **sizes):
    """Those of the function, with scores of about SPREAD."""
    arrays, own = inputs(name, rng, dtype, **sizes)
    if name == "cosine_attention":
        return arrays, {**own, "scale": np.array(3 * SPREAD, dtype)}
    place = 3 if name == "additive_attention" else 0
    return [x * dtype(SPREAD) if k == place else x for k, x in enumerate(arrays)], own


def both(name, arrays, own, normalizer, d=None, asked=True):
    """Outputs and gradients; incoming gradients are ones unless given."""
    options = {**own, "normalizer": normalizer, "return_weights": asked}
    output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **options)
    if d is None:
        outputs = output._asdict() if asked else {"context": output}
        d = {f"d{field}": np.ones_like(x) for field, x in outputs.items()}
    return output, vars(pullback(**d))


def check(name, arrays, own, normalizer, rng, d=None):
    """Forward and backward by the rule of tolerance; gradients where the supports are those of the
    exact weights, because they jump between two of them."""
    dtype = np.result_type(*arrays)
    own = {**own, "normalizer": normalizer, "return_weights": True}
    plain = getattr(reference, name)
    naive, naive_pullback = reference.vjp(plain, *arrays, **own, dtype=dtype.type)
    exact, exact_pullback = reference.vjp(plain, *arrays, **own, dtype=wider(dtype))
    if d is None:
        shapes = {f"d{field}": x.shape for field, x in exact._asdict().items()}
        d = {field: rng.standard_normal(shape).astype(dtype) for field, shape in shapes.items()}
    with assert_unchanged(arrays, own, d):
        output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own)
        gradients = pullback(**d)
    expected, plainly = vars(exact_pullback(**d)), vars(naive_pullback(**d))
    assert vars(gradients).keys() == expected.keys()
    got = output._asdict() | {f"d{f}": x for f, x in vars(gradients).items()}
    for what, x in got.items():
        assert x.dtype == dtype and x.flags.c_contiguous and x.flags.writeable, what
    # Scores round by eps times their size, and weights feel that as it is.
    size = max(largest(exact_pullback.stages[stage]) for stage in ("masked", "scores"))
    terms = largest_terms_of(plain, arrays, own, d, exact, exact_pullback)
    same = np.array_equal(output.weights == 0, exact.weights == 0)
    exact = exact._asdict() | {f"d{f}": x for f, x in expected.items()}
    naive = naive._asdict() | {f"d{f}": x for f, x in plainly.items()}
    for what in got if same else output._fields:
        floor = (FLOOR if got[what].size >= FEW else FLOOR_OF_FEW) + size
        assert_close_like_naive(got[what], exact[what], naive[what], terms[what], floor, what)
    return output, gradients


def largest(x):
    return np.abs(x[np.isfinite(x)]).max(initial=0)


def largest_terms_of(plain, arrays, own, d, exact, pullback):
    """The largest sum of the magnitudes of what is added up to each output and gradient: everything
    positive but the weights, and r (dw - mean) by its two terms."""
    dropout = own.get("dropout", 0.0)
    kept = reference.attention._dropout_factors(exact.weights.shape, dropout, own.get("rng", 0))
    name, (query, *_, value) = plain.__name__, arrays[: 2 if plain is reference.attend else 3]
    d = {field: np.abs(x) for field, x in d.items()}
    weights = np.nan_to_num(exact.weights)
    with np.errstate(invalid="ignore"):
        dweights = d["dcontext"] @ np.swapaxes(np.abs(value), -1, -2) * kept + d["dweights"]
        dweights = np.where(weights == 0, 0, dweights)
        r = np.sqrt(weights) if own["normalizer"] == "entmax15" else weights > 0
        mean = (r * dweights).sum(-1, keepdims=True) / np.maximum(r.sum(-1, keepdims=True), 1e-30)
        dscores = r * (dweights + mean)
        dvalue = np.swapaxes(weights * kept, -1, -2) @ d["dcontext"]
    terms = {"context": largest(value), "weights": 1.0, "dvalue": largest(dvalue)}
    terms["dscores"] = terms["dbias"] = largest(dscores)
    if "bias" in own:
        terms["dbias"] = largest(reference.attention._sum_to(dscores, np.shape(own["bias"])))
    if own.get("slope") is not None:
        distance = reference.attention._distance(dscores.shape, own.get("causal_offset"))
        terms["dslope"] = largest(np.sum(dscores * distance, axis=(-2, -1)).sum(keepdims=True))
    if plain is not reference.attend:
        query, key, _, *rest = arrays
        lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        of_scores = reference.attention._sum_to(dscores, lead + dscores.shape[-2:])
        scores = name.replace("_attention", "_scores")
        found = largest_terms(scores, (query, key, *rest), own_of_scores(own), of_scores)
        terms |= {f"d{field}": x for field, x in found.items() if field != "y"}
    return terms


def own_of_scores(own):
    parameters = {"scale", "query_weight", "key_weight", "score_bias"}
    return {field: x for field, x in own.items() if field in parameters}


# ---- by hand -------------------------------------------------------------------------------------


def weights_of(scores, normalizer, **own):
    scores = np.asarray(scores)
    value = np.zeros((*(1,) * (scores.ndim - 2), scores.shape[-1], 1), scores.dtype)
    return attnc.attend(scores, value, normalizer=normalizer, return_weights=True, **own).weights


def test_by_hand(dtype, isa):
    """Martins and Astudillo 2016: of two scores t apart, (1 + t) / 2 and the rest."""
    scores = np.array([[0.5, 0.0], [3.0, 0.0], [7.0, 7.0], [-1e30, 1e30]], dtype)
    expected = [[0.75, 0.25], [1, 0], [0.5, 0.5], [0, 1]]
    np.testing.assert_array_equal(weights_of(scores, "sparsemax"), np.array(expected, dtype))
    got = weights_of(scores, "entmax15")
    np.testing.assert_allclose(got[1:], expected[1:], rtol=2 * np.finfo(dtype).eps)
    root = (0.25 + np.sqrt(2 - 0.25**2)) / 2  # of a^2 + (a - 1/4)^2 = 1
    np.testing.assert_allclose(got[0], [root**2, (root - 0.25) ** 2], rtol=8 * np.finfo(dtype).eps)


def test_gradients_by_hand(dtype, isa, normalizer):
    """Two of three keys are in the support; the third feels nothing, whatever comes in for it."""
    scores, value = np.array([[1.0, 1.0, -5.0]], dtype), np.array([[4.0], [2.0], [9.0]], dtype)
    own = {"normalizer": normalizer, "return_weights": True}
    output, pullback = attnc.vjp(attnc.attend, scores, value, **own)
    np.testing.assert_allclose(output.context, [[3]], rtol=4 * np.finfo(dtype).eps)
    dscores, dvalue = pullback(np.array([[1]], dtype), dweights=np.array([[0, 0, np.nan]], dtype))
    r = 1 if normalizer == "sparsemax" else np.sqrt(0.5)
    np.testing.assert_allclose(dscores, [[r, -r, 0]], rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(dvalue, [[0.5], [0.5], [0]], rtol=4 * np.finfo(dtype).eps)


TIES = {
    "all equal": lambda n: np.full(n, 3.0),
    "one": lambda n: np.eye(n)[0] * 50,
    "halves": lambda n: np.repeat([0.25, 0.0], [n // 2, n - n // 2]),
    "steps": lambda n: -np.arange(n) / n,
    "one above a tie": lambda n: np.eye(n)[0],
    "of any size": lambda n: np.sin(np.arange(n)) * 10.0 ** -(np.arange(n) % 30),
    "subnormal": lambda n: np.sin(np.arange(n)) * 1e-40,
    "fine steps": lambda n: -np.arange(n) * 1e-7,
    "steep": lambda n: -(2.0 ** (np.arange(n) % 99)),
    "far below 0": lambda n: -1e30 + 0 * np.arange(n),
    "far above 0": lambda n: np.linspace(0, 1, n) + 1e6,
    "most are excluded": lambda n: np.where(np.arange(n) % 7, -np.inf, np.arange(n) / n),
    "the largest of all": lambda n: np.linspace(-1, 1, n) * 3e38,
}


@pytest.mark.parametrize("how", TIES)
def test_rows(how, normalizer, dtype, isa):
    """They sum to 1, are largest where scores are, and are those of sorting."""
    for n in (1, 2, 33, 100, 5000):
        scores = TIES[how](n).astype(dtype)[None]
        if how == "the largest of all" and dtype == np.float64:
            scores = scores * 1e269
        weights = weights_of(scores, normalizer)
        eps = np.finfo(dtype).eps
        assert (weights >= 0).all() and abs(weights.sum(dtype=wider(dtype)) - 1) <= 4 * eps
        with np.errstate(over="ignore", invalid="ignore"):
            wide = scores.astype(wider(dtype))
            exact = reference.attention._sparse(normalizer, wide - wide.max())
            naive = reference.attention._sparse(normalizer, scores - scores.max())
        naive = np.where(np.isfinite(naive), naive, exact)  # its running sums may overflow
        assert_close_like_naive(weights, exact, naive.astype(dtype))
        order = np.argsort(scores[0], kind="stable")
        assert (np.diff(weights[0][order]) >= 0).all()


def test_one_key_and_none(normalizer, dtype, isa):
    scores = np.array([[5.0, -3.0, 1e30]], dtype)
    mask = np.array([[[False, True, False]], [[False, False, False]]])
    weights = weights_of(np.repeat(scores[None], 2, 0), normalizer, mask=mask)
    assert_same(weights, np.array([[[0, 1, 0]], [[0, 0, 0]]], dtype))
    assert weights_of(np.zeros((2, 0), dtype), normalizer).shape == (2, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_make_their_row_nan(bad, normalizer, dtype, isa, rng):
    """In allowed pairs; what is excluded stays 0, and in gradients too."""
    (scores, value), _ = inputs("attend", rng, dtype, Tk=300)
    scores[1, 2, 200] = bad
    mask = rng.random((2, 5, 300)) < 0.9
    mask[1, 2, 200], mask[0, 3] = True, False
    output, gradients = check("attend", (scores, value), {"mask": mask}, normalizer, rng)
    np.testing.assert_array_equal(np.isnan(output.weights[1, 2]), mask[1, 2])
    np.testing.assert_array_equal(np.isnan(gradients.scores[1, 2]), mask[1, 2])
    others = np.delete(output.context.reshape(10, -1), 7, axis=0)
    assert np.isfinite(others).all() and np.isnan(output.context[1, 2]).all()


# ---- every function and option -------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["Tq", "Tk"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_sizes(name, axis, normalizer, isa, rng):
    for size in EDGES:
        sizes = {**PRIMES, axis: size}
        if name == "cosine_attention" and sizes["D"] == 1:
            continue  # all cosines are 1 or -1 and all gradients 0
        arrays, own = arguments(name, rng, np.float32, **sizes)
        own |= options("everything", rng, np.float32, **sizes)
        check(name, arrays, own, normalizer, rng)


@pytest.mark.parametrize("sizes", [{"Tq": 120, "Tk": 257}, {"Tq": 2, "Tk": 1300}], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_several_tiles(name, sizes, normalizer, isa, rng):
    arrays, own = arguments(name, rng, np.float32, **sizes)
    check(name, arrays, own, normalizer, rng)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options(name, normalizer, dtype, rng):
    for option in KNOWN:
        sizes = {"Tq": 5, "Tk": 7} if dtype == np.float64 else {"Tq": 9, "Tk": 140, "D": 5}
        arrays, own = arguments(name, rng, dtype, **sizes)
        check(name, arrays, own | options(option, rng, dtype, **sizes), normalizer, rng)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_leading_axes(name, normalizer, rng):
    for leads in LEADS:
        arrays, own = arguments(name, rng, leads=leads)
        own |= options("everything", rng, leads=leads)
        check(name, arrays, own, normalizer, rng)


@pytest.mark.parametrize("option", ["none", "everything", "bias by key", "softcap"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_differences(name, option, normalizer, rng):
    """With sizes for which no step leaves a support."""
    arrays, own = arguments(name, rng, Tq=3, Tk=5, D=4, Dv=2, leads=((), (), ()))
    own |= options(option, rng, Tq=3, Tk=5, leads=((), (), ()))
    own |= {"normalizer": normalizer, "return_weights": True}
    function = getattr(attnc, name)
    output, pullback = attnc.vjp(function, *arrays, **own)
    gradients = pullback(*(np.ones_like(output.context),))
    names = [*list(vars(gradients))[: len(arrays)]]
    moved = dict(zip(names, arrays, strict=True))
    moved |= {f: own[f] for f in vars(gradients) if f in own}

    def f(*values):
        return function(**{**own, **dict(zip(moved, values, strict=True))})

    def backward(**d):
        found = pullback(**d)
        return [found[field] for field in moved]

    attnc.check_gradients(f, backward, *moved.values())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_outputs_do_not_depend_on_the_question(name, normalizer, dtype, isa, rng):
    sizes = {"Tq": 19, "Tk": 270}
    arrays, own = arguments(name, rng, dtype, **sizes)
    own |= {**options("everything", rng, dtype, **sizes), "normalizer": normalizer}
    function = getattr(attnc, name)
    context, weights = function(*arrays, **own, return_weights=True)
    assert_same(function(*arrays, **own), context)
    assert_same(attnc.vjp(function, *arrays, **own)[0], context)
    output, pullback = attnc.vjp(function, *arrays, **own, return_weights=True)
    assert_same(tuple(output), (context, weights))
    before = vars(pullback(np.ones_like(context)))
    output.weights[...] = np.nan  # is not what backward reads
    assert_same(vars(pullback(np.ones_like(context))), before)
    softmax = function(*arrays, **{**own, "normalizer": "softmax"})
    assert_same(function(*arrays, **{k: x for k, x in own.items() if k != "normalizer"}), softmax)


def test_weights_are_sparse(rng):
    scores = SPREAD * rng.standard_normal((100, 400))
    value = np.zeros((400, 1))
    share = {}
    for normalizer in ("softmax", "entmax15", "sparsemax"):
        weights = attnc.attend(scores, value, normalizer=normalizer, return_weights=True).weights
        share[normalizer] = (weights > 0).mean()
    assert share["softmax"] == 1 and share["sparsemax"] < share["entmax15"] < 0.2


# ---- what is masked is not read ------------------------------------------------------------------


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_poison_in_padding(name, poison, normalizer, dtype, isa, rng):
    sizes = {"Tq": 20, "Tk": 210}
    arrays, own = arguments(name, rng, dtype, **sizes)
    mask = rng.random((2, 20, 210)) < 0.7
    mask[:, :, [3, 205]] = mask[1, 15:] = False
    own |= {"mask": mask, "query_lengths": np.array([20, 15])}
    d = {
        "dcontext": rng.standard_normal((2, 20, 13)).astype(dtype),
        "dweights": rng.standard_normal(mask.shape).astype(dtype),
    }
    expected = both(name, arrays, own, normalizer, d)
    poisoned, d = [x.copy() for x in arrays], {field: x.copy() for field, x in d.items()}
    if name == "attend":
        poisoned[0][~mask] = poison
    else:
        poisoned[0][1, 15:] = poison
        poisoned[1][:, [3, 205]] = poison
    poisoned[1 if name == "attend" else 2][:, [3, 205]] = poison
    d["dcontext"][1, 15:] = d["dweights"][~mask] = poison
    output, gradients = both(name, poisoned, own, normalizer, d)
    for x, y in zip(
        (*output, *gradients.values()), (*expected[0], *expected[1].values()), strict=True
    ):
        assert np.isfinite(x).all()
        if dtype == np.float64:
            assert_agree(x, y)


# ---- as arrays come, threads, memory -------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["additive_attention", "attend"])
def test_layouts(name, layout, normalizer, dtype, rng):
    sizes = {"Tq": 9, "Tk": 33, "leads": ((2, 1), (1, 3), (2, 3))}
    arrays, own = arguments(name, rng, dtype, **sizes)
    own |= options("everything", rng, dtype, **sizes)
    d = {"dcontext": rng.standard_normal((2, 3, 9, 13)).astype(dtype)}
    d["dweights"] = rng.standard_normal((2, 3, 9, 33)).astype(dtype)
    arrays = [lay_out(layout, x) for x in arrays]
    own, d = ({k: lay_out(layout, x) for k, x in xs.items()} for xs in (own, d))

    def plain(x):
        return np.array(x, x.dtype.newbyteorder("="), order="C") if isinstance(x, np.ndarray) else x

    with assert_unchanged(arrays, own, d):
        got = both(name, arrays, own, normalizer, d)
    own, d = ({k: plain(x) for k, x in xs.items()} for xs in (own, d))
    assert_same(got, both(name, [plain(x) for x in arrays], own, normalizer, d))


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_halves(name, half, normalizer, isa, rng):
    """Computed in float32 and rounded once, at the end, forward and backward."""
    half = np.dtype(getattr(pytest.importorskip("ml_dtypes"), half) if half[0] == "b" else half)
    sizes = {"Tq": 20, "Tk": 300}
    arrays, own = arguments(name, rng, np.float32, **sizes)
    own |= {"bias": rng.standard_normal((2, 20, 300)).astype("f4")}
    arrays, own = [x.astype(half) for x in arrays], {k: x.astype(half) for k, x in own.items()}
    wide = [x.astype("f4") for x in arrays], {k: x.astype("f4") for k, x in own.items()}
    d = {"dcontext": rng.standard_normal((2, 20, 13)).astype(half)}
    rest = {"mask": rng.random((2, 20, 300)) < 0.8, "dropout": 0.2, "rng": 1}
    for asked in (False, True):
        output, gradients = both(name, arrays, own | rest, normalizer, d, asked)
        expected, wide_gradients = both(
            name,
            wide[0],
            wide[1] | rest,
            normalizer,
            {"dcontext": d["dcontext"].astype("f4")},
            asked,
        )
        outputs, expected = (output, expected) if asked else ((output,), (expected,))
        assert_same(tuple(outputs), tuple(x.astype(half) for x in expected))
        assert_same(gradients, {field: x.astype(half) for field, x in wide_gradients.items()})


@pytest.mark.parametrize("sizes", [(70, 150, (2, 3)), (200, 600, ()), (2, 3000, (2,))], ids=str)
@pytest.mark.parametrize("name", ["dot_product_attention", "attend"])
def test_same_bits_for_any_number_of_threads(name, sizes, normalizer, threads, rng):
    Tq, Tk, lead = sizes
    sizes = {"Tq": Tq, "Tk": Tk, "D": 33, "Dv": 40, "leads": (lead, lead, lead)}
    arrays, own = arguments(name, rng, np.float32, **sizes)
    own |= options("everything", rng, np.float32, **sizes)
    got = both(name, arrays, own, normalizer)
    with attnc.set_num_threads(1):
        assert_same(got, both(name, arrays, own, normalizer))


@pytest.mark.parametrize("name", ["additive_attention", "attend"])
def test_memory_runs_out_anywhere(name, normalizer, rng):
    sizes = {"Tq": 100, "Tk": 260, "D": 20, "Dv": 60, "leads": ((1,), (2,), (2,))}
    arrays, own = arguments(name, rng, np.float32, **sizes)
    own |= {"bias": rng.standard_normal((1, 1, 260)).astype("f4"), "softcap": 5.0}
    expected = both(name, arrays, own, normalizer)
    kept = [x for x in (*arrays, *own.values()) if isinstance(x, np.ndarray)]
    got = run_out_of_memory(lambda: both(name, arrays, own, normalizer), kept, least=6)
    assert_same(got, expected)


# ---- layers, stages, other packages --------------------------------------------------------------

LAYERS = {
    "dot product": lambda: attnc.DotProductAttention(dtype="float64"),
    "multiplicative": lambda: attnc.MultiplicativeAttention(6, 6, rng=0, dtype="float64"),
    "additive": lambda: attnc.AdditiveAttention(6, 6, hidden_size=5, rng=0, dtype="float64"),
    "cosine": lambda: attnc.CosineAttention(dtype="float64"),
    "self": lambda: attnc.SelfAttention(6, rng=0, dtype="float64"),
    "heads": lambda: attnc.MultiHeadAttention(6, 2, rng=0, dtype="float64"),
}


@pytest.mark.parametrize("which", LAYERS)
def test_layers(which, normalizer, rng):
    """They pass it on, and their gradients are those of differences."""
    layer = LAYERS[which]()
    x, memory = SPREAD * rng.standard_normal((2, 2, 4, 6))
    arrays = (x,) if which == "self" else (x, memory)
    own = {"key_lengths": np.array([4, 3]) if which != "heads" else np.array([4, 3])}
    own |= {"normalizer": normalizer}
    weights = layer(*arrays, **own, return_weights=True).weights
    np.testing.assert_allclose(weights.sum(-1), 1)
    assert (weights == 0).any()
    assert not np.allclose(layer(*arrays, **own), layer(*arrays, key_lengths=own["key_lengths"]))
    _, pullback = attnc.vjp(layer, *arrays, **own)
    attnc.check_gradients(
        lambda *arrays: layer(*arrays, **own), lambda d: tuple(pullback(d)), *arrays
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_stages(name, normalizer, rng):
    arrays, own = arguments(name, rng)
    own |= {"normalizer": normalizer, "softcap": 5.0, "causal": True}
    stages = attnc.stages(getattr(attnc, name), *arrays, **own)
    output, gradients = both(
        name, arrays, {k: x for k, x in own.items() if k != "normalizer"}, normalizer
    )
    assert_agree(stages.weights, output.weights)
    assert_agree(stages.context, output.context)
    at = stages.gradients(np.ones_like(output.context), dweights=np.ones_like(output.weights))
    for field, gradient in gradients.items():
        assert_agree(getattr(at, field), gradient, field)
    assert "max(l_ij" in repr(stages) and "softmax" not in repr(stages)


def test_against_entmax(normalizer, rng):
    torch, entmax = pytest.importorskip("torch"), pytest.importorskip("entmax")
    function = getattr(entmax, normalizer)
    for n in (1, 5, 400):
        scores, value = SPREAD * rng.standard_normal((7, n)), rng.standard_normal((n, 3))
        output, gradients = both("attend", (scores, value), {}, normalizer)
        s, v = (torch.tensor(x, requires_grad=True) for x in (scores, value))
        weights = function(s, dim=-1)
        (weights.sum() + (weights @ v).sum()).backward()
        assert_agree(output.weights, weights.detach().numpy())
        assert_agree(gradients["scores"], s.grad.numpy())
        assert_agree(gradients["value"], v.grad.numpy())


# ---- wrong calls ---------------------------------------------------------------------------------

X = np.ones((2, 3, 4))
RULE = "normalizer must be 'softmax', 'sparsemax' or 'entmax15', got"
WRONG = [
    ({"normalizer": "entmax"}, ValueError, f"{RULE} 'entmax'"),
    ({"normalizer": "Sparsemax"}, ValueError, f"{RULE} 'Sparsemax'"),
    ({"normalizer": None}, TypeError, f"{RULE} None"),
    ({"normalizer": 1.5}, TypeError, f"{RULE} 1.5"),
    ({"return_lse": True}, ValueError, "return_lse must be False with normalizer='sparsemax'"),
    ({"sink": 0.0}, ValueError, "sink must be None with normalizer='sparsemax'"),
    ({"sink": np.zeros(2)}, ValueError, "sink must be None with normalizer='sparsemax'"),
    (
        {"center": 1.0, "window": (1, 1)},
        ValueError,
        "center must be None with normalizer='sparsemax'",
    ),
    ({"query_offsets": [0, 3]}, ValueError, "query_offsets must be None with normalizer='sparse"),
]


@pytest.mark.parametrize(("changes", "error", "message"), WRONG)
def test_wrong_calls(changes, error, message):
    with pytest.raises(error, match=f"^dot_product_attention: {message}"):
        attnc.dot_product_attention(X, X, X, **{"normalizer": "sparsemax", **changes})
    layer = attnc.MultiHeadAttention(4, 2, rng=0)
    with pytest.raises(error, match=message):
        layer(X, **{"normalizer": "sparsemax", **changes})


@pytest.mark.parametrize("normalizer", [*NORMALIZERS, "softmax"])
def test_where_denormal_numbers_count_as_zero(normalizer, isa, dtype, rng):
    """A processor that takes them for 0 still tells weights of 0 from others."""
    torch = pytest.importorskip("torch")
    arrays = [SPREAD * rng.standard_normal((2, 9, 8)).astype(dtype) for _ in range(3)]
    directions = [rng.standard_normal((2, 9, 8)).astype(dtype) for _ in range(4)]

    def derivatives():
        own, f = {"normalizer": normalizer}, attnc.dot_product_attention
        context, pullback = attnc.vjp(f, *arrays, **own)
        tangent = attnc.jvp(f, arrays, directions[:3], **own)[1]
        second = attnc.hvp(f, arrays, directions[:3], directions[3], **own)
        return context, *pullback(directions[3]), tangent, *second

    expected = derivatives()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot")
    try:
        found = derivatives()
    finally:
        torch.set_flush_denormal(False)
    for x, y in zip(found, expected, strict=True):
        assert_same(x, y)


def test_a_pullback_needs_what_forward_saved(rng):
    """The private entry refuses other arrays in its place."""
    x = np.ones((3, 4))
    context, _, _, saved = _core.dot_product_attention_saving(x, x, x, normalizer="sparsemax")
    assert saved[0] is None and saved[1] is None and saved[2].shape == (3, 3)
    back, own = _core.dot_product_attention_backward, {"normalizer": "sparsemax"}
    assert len(back(context, None, None, *saved, x, x, x, **own)) >= 3
    for wrong in ((None, None, None), (None, None, saved[2][:2]), (context, None, saved[2])):
        with pytest.raises(ValueError, match="saved must be what the forward call saved"):
            back(context, None, None, *wrong, x, x, x, **own)
    with pytest.raises(ValueError, match="saved must be what the forward call saved"):
        back(context, None, None, *saved, x, x, x)

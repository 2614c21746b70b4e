"""Scores as arrays: those of every mechanism, and their gradients, by the kernels of attention."""

import numpy as np
import pytest
from arrays import BIG, EDGES, FUNCTIONS, LAYOUTS, LEADS, OPTIONS, PRIMES, inputs, lay_out
from arrays import options as shared_options
from checks import (
    assert_agree,
    assert_same,
    assert_unchanged,
    check_simple,
    python,
    run_out_of_memory,
)

import attnc
from attnc import reference
from attnc.functional.options import Pairs
from attnc.functional.scores import __all__ as NAMES
from attnc.registry import record_of

PAIRS = set(Pairs.__annotations__)
LARGE = 3.0  # of random gradients
RANDOM = np.random.default_rng(0)
# The options that say which pairs are allowed, and no more.
MASKS = [option for option in OPTIONS if set(shared_options(option, RANDOM)) <= PAIRS]


def attention_of(name):
    return name.replace("_scores", "_attention")


def arguments(name, rng, dtype=np.float64, **sizes):
    """Those of the attention function, without the value."""
    (query, key, _, *parameters), own = inputs(attention_of(name), rng, dtype, **sizes)
    return (query, key, *parameters), own


def masks(option, rng, **sizes):
    """Every mask of these sizes; "everything" without what is none."""
    found = shared_options(option, rng, **sizes)
    return {option: value for option, value in found.items() if option in PAIRS}


def both(name, arrays, own, dscores=None):
    scores, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own)
    dscores = np.ones_like(scores) if dscores is None else dscores
    return scores, vars(pullback(dscores))


def test_every_attention_function_has_scores():
    assert {attention_of(name) for name in NAMES} | {"attend"} == set(FUNCTIONS)


# ---- against the reference, and against attention ------------------------------------------------


def check(name, arrays, own, rng):
    return check_simple(name, arrays, own, rng, largest_terms(name, arrays, own))


def largest_terms(name, arrays, own, dscores=LARGE):
    """The largest sum of the magnitudes of what is added up to an output or gradient, of which
    little may be left: everything positive, dscores too, and 1 - tanh^2 by its two terms."""
    query, key, *rest = [np.abs(x) for x in arrays]
    pairs = {field: x for field, x in own.items() if field in PAIRS}
    parameters = {field: np.abs(x) for field, x in own.items() if field not in PAIRS}
    plain, terms = getattr(reference, name), {}
    if name == "additive_scores":
        query_weight, key_weight = parameters["query_weight"], parameters["key_weight"]
        at_0 = 0 * (query @ query_weight), 0 * (key @ key_weight), *rest
        scores, pullback = reference.vjp(plain, *at_0, score_bias=0 * rest[0], **pairs)
        dq, dk, _ = found = pullback(dscores + 0 * scores)
        terms["y"] = rest[0].sum()
        terms["query"], terms["key"] = dq @ query_weight.T, dk @ key_weight.T
        terms["query_weight"] = np.swapaxes(query, -1, -2) @ dq
        terms["key_weight"] = np.swapaxes(key, -1, -2) @ dk
        terms["score_bias"], terms["score_vector"] = found.score_bias, np.sum(dscores + 0 * scores)
    elif name == "cosine_scores":  # what points along a row is taken off its gradient
        norms = [np.sqrt((x * x).sum(-1, keepdims=True)) for x in (query, key)]
        units = query / norms[0], key / norms[1]
        terms["y"], pullback = reference.vjp(attnc.reference.dot_product_scores, *units, **pairs)
        found = pullback(own["scale"] * np.sqrt(query.shape[-1]) * (dscores + 0 * terms["y"]))
        terms["query"], terms["key"] = found.query / norms[0], found.key / norms[1]
        terms["scale"] = np.sum(dscores * terms["y"])
        terms["y"] = own["scale"] * terms["y"]
    else:
        terms["y"], pullback = reference.vjp(plain, query, key, *rest, **parameters, **pairs)
        terms |= vars(pullback(dscores + 0 * terms["y"]))
    return {field: np.max(x, initial=0) for field, x in terms.items()}


@pytest.mark.parametrize("axis", ["Tq", "Tk", "D"])
@pytest.mark.parametrize("name", NAMES)
def test_sizes(name, axis, dtype, isa, rng):
    for size in EDGES:
        sizes = {**PRIMES, axis: size}
        if name == "cosine_scores" and sizes["D"] == 1:
            continue  # all cosines are 1 or -1 and all gradients 0
        arrays, own = arguments(name, rng, dtype, **sizes)
        check(name, arrays, {**own, **masks("everything", rng, **sizes)}, rng)


@pytest.mark.parametrize("sizes", [*BIG[:2], {"Tq": 70, "Tk": 257, "D": 17}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_several_tiles(name, sizes, isa, rng):
    if name == "cosine_scores" and sizes["D"] == 1:
        pytest.skip("all cosines are 1 or -1 and all gradients 0")
    arrays, own = arguments(name, rng, np.float32, **sizes)
    check(name, arrays, own, rng)


@pytest.mark.parametrize("name", NAMES)
def test_leading_axes(name, dtype, rng):
    for query, key, _ in LEADS:
        leads = query, key, np.broadcast_shapes(query, key)
        arrays, own = arguments(name, rng, dtype, leads=leads)
        check(name, arrays, {**own, **masks("everything", rng, leads=leads)}, rng)


@pytest.mark.parametrize("Tq", [2, 5, 50])
@pytest.mark.parametrize("name", NAMES)
def test_masks(name, Tq, isa, rng):
    for option in MASKS:
        sizes = {"Tq": Tq, "Tk": {2: 290, 5: 7, 50: 260}[Tq], "D": 5}
        arrays, own = arguments(name, rng, np.float32, **sizes)
        check(name, arrays, {**own, **masks(option, rng, **sizes)}, rng)


@pytest.mark.parametrize("name", NAMES)
def test_differences(name, isa, rng):
    arrays, own = arguments(name, rng)
    fixed = masks("everything", rng)
    _, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own, **fixed)
    names = [*record_of(getattr(attnc, name)).required, *own]

    def f(*values):
        return getattr(attnc, name)(**dict(zip(names, values, strict=True)), **fixed)

    def backward(dscores):
        gradients = pullback(dscores)
        return [gradients[field] for field in names]

    attnc.check_gradients(f, backward, *arrays, *own.values())


@pytest.mark.parametrize("name", NAMES)
def test_attend_makes_attention_of_them(name, isa, rng):
    """With the same masks: its context, and through both its gradients."""
    arrays, own = arguments(name, rng, Tq=60, Tk=300)
    value, allowed = rng.standard_normal((2, 300, 13)), masks("everything", rng, Tq=60, Tk=300)
    late = {"softcap": 2.0, "bias": rng.standard_normal((1, 60, 300)), "dropout": 0.2, "rng": 1}
    scores, through_scores = attnc.vjp(getattr(attnc, name), *arrays, **own, **allowed)
    context, through_attend = attnc.vjp(attnc.attend, scores, value, **allowed, **late)
    fused = getattr(attnc, attention_of(name))
    expected, pullback = attnc.vjp(fused, *arrays[:2], value, *arrays[2:], **own, **allowed, **late)
    assert_agree(context, expected)
    dcontext = rng.standard_normal(context.shape)
    of_attend, gradients = through_attend(dcontext), pullback(dcontext)
    for field, gradient in vars(through_scores(of_attend.scores)).items():
        assert_agree(gradient, gradients[field], field)
    assert_agree(of_attend.value, gradients.value)


# ---- what is masked is not read ------------------------------------------------------------------


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("Tq", [2, 60])
@pytest.mark.parametrize("name", NAMES)
def test_poison_behind_masks(name, Tq, poison, dtype, isa, rng):
    """In keys and queries that meet nobody, and in the gradients that come in for what is masked:
    all bits are those without it, and the gradients of such rows are 0."""
    arrays, own = arguments(name, rng, dtype, Tq=Tq, Tk=300)
    here = rng.random((2, 300)) < 0.7
    there = np.arange(Tq) < np.array([Tq - 1, Tq // 2])[:, None]
    pairs = (rng.random((2, Tq, 300)) < 0.8) & here[:, None] & there[..., None]
    own |= {"mask": pairs}
    d = rng.standard_normal(pairs.shape).astype(dtype)
    expected, expected_gradients = both(name, arrays, own, np.where(pairs, d, 0))
    np.testing.assert_array_equal(expected[~pairs], 0)
    poisoned = [x.copy() for x in arrays]
    poisoned[0][~pairs.any(-1)] = poisoned[1][~pairs.any(-2)] = poison
    scores, gradients = both(name, poisoned, own, np.where(pairs, d, poison).astype(dtype))
    assert_agree(scores.astype(float), expected.astype(float))
    assert np.isfinite(scores).all()
    for field, gradient in gradients.items():
        assert np.isfinite(gradient).all(), field
    for x, unread in ((gradients["query"], ~pairs.any(-1)), (gradients["key"], ~pairs.any(-2))):
        np.testing.assert_array_equal(x[unread], 0)
    assert_same(scores, getattr(attnc, name)(*poisoned, **own))
    if dtype == np.float64:
        for field, gradient in gradients.items():
            assert_agree(gradient, expected_gradients[field], field)


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_a_key_reaches_who_asks_for_its_score(name, dtype, isa, rng):
    arrays, own = arguments(name, rng, dtype, Tq=40, Tk=70)
    arrays[1][0, 60] = np.nan
    scores, gradients = both(name, arrays, {**own, "causal": True})
    nan = np.zeros((2, 40, 70), bool)
    nan[0, 30:, 60] = True
    np.testing.assert_array_equal(np.isnan(scores), nan)
    np.testing.assert_array_equal(np.isnan(gradients["query"]).all(-1), nan.any(-1))
    assert np.isfinite(gradients["key"][1]).all()


# ---- as arrays come ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_layouts(name, layout, dtype, rng):
    sizes = {"Tq": 9, "Tk": 33, "leads": ((2, 1), (1, 3), (2, 3))}
    arrays, own = arguments(name, rng, dtype, **sizes)
    own |= masks("everything", rng, **sizes)
    d = rng.standard_normal((2, 3, 9, 33)).astype(dtype)
    arrays = [lay_out(layout, x) for x in arrays]
    own, d = {k: lay_out(layout, x) for k, x in own.items()}, lay_out(layout, d)
    plain = [np.array(x, dtype) for x in (*arrays, d)]
    own_plain = {k: np.array(x) if isinstance(x, np.ndarray) else x for k, x in own.items()}
    own_plain |= {k: np.array(x, dtype) for k, x in own_plain.items() if k not in PAIRS}
    with assert_unchanged(arrays, own, d):
        got = both(name, arrays, own, d)
    assert_same(got, both(name, plain[:-1], own_plain, plain[-1]))
    for x in (got[0], *got[1].values()):
        assert x.dtype == dtype and x.dtype.isnative and x.flags.owndata
        assert x.flags.c_contiguous and x.flags.writeable and x.flags.aligned


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("Tq", [2, 60])
@pytest.mark.parametrize("name", NAMES)
def test_halves(name, Tq, half, isa, rng):
    """Computed in float32 and rounded once, at the end, forward and backward."""
    half = np.dtype(getattr(pytest.importorskip("ml_dtypes"), half) if half[0] == "b" else half)
    arrays, own = arguments(name, rng, np.float32, Tq=Tq, Tk=300)
    allowed = masks("everything", rng, Tq=Tq, Tk=300)
    arrays, own = [x.astype(half) for x in arrays], {k: x.astype(half) for k, x in own.items()}
    wide = [x.astype("f4") for x in arrays], {k: x.astype("f4") for k, x in own.items()}
    d = rng.standard_normal((2, Tq, 300)).astype(half)
    scores, gradients = both(name, arrays, own | allowed, d)
    expected, wide_gradients = both(name, wide[0], wide[1] | allowed, d.astype("f4"))
    assert_same(scores, expected.astype(half))
    assert_same(gradients, {field: x.astype(half) for field, x in wide_gradients.items()})


@pytest.mark.parametrize("name", NAMES)
def test_lists_and_integers_are_float64(name, rng):
    arrays, own = arguments(name, rng)
    own.pop("scale", None)
    arrays = [np.round(4 * x) for x in arrays]
    own = {field: np.round(4 * x) for field, x in own.items()}
    expected = both(name, arrays, own)
    for form in (lambda x: x.astype(np.int32), lambda x: x.tolist()):
        got = both(name, [form(x) for x in arrays], {k: form(x) for k, x in own.items()})
        assert_same(got, expected)


# ---- threads, memory, references -----------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(70, 150, (2, 3)), (200, 600, ()), (2, 3000, (2,))], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_for_any_number_of_threads(name, sizes, threads, rng):
    Tq, Tk, lead = sizes
    sizes = {"Tq": Tq, "Tk": Tk, "D": 33, "leads": (lead, lead, lead)}
    arrays, own = arguments(name, rng, np.float32, **sizes)
    own |= masks("everything", rng, **sizes)
    d = rng.standard_normal((*lead, Tq, Tk)).astype(np.float32)
    got = both(name, arrays, own, d)
    with attnc.set_num_threads(1):
        assert_same(got, both(name, arrays, own, d))


@pytest.mark.parametrize("name", NAMES)
def test_memory_runs_out_anywhere(name, rng):
    arrays, own = arguments(name, rng, np.float32, Tq=300, Tk=260, D=20, leads=((1,), (2,), (2,)))
    own |= {"mask": rng.random((2, 300, 260)) < 0.8}
    expected = both(name, arrays, own)
    kept = [x for x in (*arrays, *own.values()) if isinstance(x, np.ndarray)]
    got = run_out_of_memory(lambda: both(name, arrays, own), kept, least=4)
    assert_same(got, expected)


def test_additive_scores_form_no_array_of_their_own_axis():
    """(Tq, Tk, H) would be 512 MB; the limit is on what the process gets in all."""
    printed = python(
        """
        import resource
        import numpy as np
        import attnc
        query, key, vector = (np.ones(s, np.float32) for s in ((1000, 128), (1000, 128), 128))
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = peak()
        scores, pullback = attnc.vjp(attnc.additive_scores, query, key, vector)
        pullback(scores)
        print((peak() - before) / 1024)
        """
    )
    assert float(printed) < 60


@pytest.mark.parametrize("name", NAMES)
def test_pullback(name, rng):
    """May be called again, and its results are fresh."""
    arrays, own = arguments(name, rng)
    own |= masks("everything", rng)
    scores, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own)
    d = rng.standard_normal(scores.shape)
    first = vars(pullback(d))
    expected = {field: x.copy() for field, x in first.items()}
    for x in first.values():
        x[...] = np.nan
    assert_same(vars(pullback(dscores=d)), expected)
    assert repr(pullback) == f"<pullback of {name}(dscores=None)>"


# ---- wrong calls ---------------------------------------------------------------------------------

X = np.ones((2, 3, 4))
LATE = "scores of their own are what comes before it, for a batch that is not packed; attnc.attend"
WRONG = [
    ({"bias": np.ones((2, 3, 3))}, TypeError, f"there is no argument 'bias': {LATE}"),
    ({"softcap": 2.0}, TypeError, f"there is no argument 'softcap': {LATE}"),
    ({"query_offsets": [0, 3]}, TypeError, f"there is no argument 'query_offsets': {LATE}"),
    ({"return_lse": True}, TypeError, f"there is no argument 'return_lse': {LATE}"),
    ({"value": X}, TypeError, "there is no argument 'value'"),
    ({"maks": None}, TypeError, "there is no argument 'maks'; did you mean 'mask'"),
    ({"mask": np.ones((2, 3, 3))}, TypeError, "mask must be boolean"),
    ({"mask": np.ones((3, 3), bool)}, ValueError, r"write mask\[None, :, :\]"),
    ({"key_lengths": 4}, ValueError, "key_lengths must lie in 0..3, the number of keys, got 4"),
    ({"window": (1, -1)}, ValueError, "window must be"),
    ({"key": X[0]}, ValueError, "query must have as many axes as key"),
    ({"key": np.ones((3, 3, 4))}, ValueError, "key must have the leading axes"),
    ({"key": np.ones((2, 3, 5))}, ValueError, "key must have the feature size of query"),
    ({"query": np.ma.ones((2, 3, 4))}, TypeError, "query must be a plain array"),
    ({"query": None}, TypeError, "query must be an array, got None"),
    ({"key": 1j * X}, TypeError, "key must hold real numbers"),
    ({"scale": np.ones(2)}, ValueError, "scale must be"),
]


@pytest.mark.parametrize(("changes", "error", "message"), WRONG)
def test_wrong_calls(changes, error, message):
    with pytest.raises(error, match=f"^dot_product_scores: .*{message}"):
        attnc.dot_product_scores(**{"query": X, "key": X, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_wrong_gradients(name, rng):
    arrays, own = arguments(name, rng)
    scores, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own)
    for wrong, error, message in (
        (
            scores[0],
            ValueError,
            r"dscores must have the shape of scores, \(2, 5, 7\), got \(5, 7\)",
        ),
        (scores.astype(int), TypeError, "dscores must have a float dtype, got dtype int64"),
        (scores * 1j, TypeError, "dscores must hold real numbers"),
        (None, TypeError, "pullback must get dscores"),
    ):
        with pytest.raises(error, match=f"^{name}: {message}"):
            pullback(wrong)


def test_numbers_of_any_size(dtype, isa):
    """Nothing is clipped on the way."""
    big = np.array([[1e30]], dtype)
    np.testing.assert_array_equal(attnc.dot_product_scores(big, np.eye(1, dtype=dtype)), big)
    np.testing.assert_array_equal(attnc.cosine_scores(0 * big, big), 0)
    np.testing.assert_array_equal(attnc.additive_scores(big, big, np.ones(1, dtype)), 1)

"""Forward mode of attention: the tangents of what every attention function returns."""

import gc
import itertools
import sys

import numpy as np
import pytest
from arrays import BIG, FUNCTIONS, LAYOUTS, LEADS, LONG, OPTIONS, SIZES, by_size, inputs, lay_out
from arrays import options as options_of
from checks import (
    EVERYTHING,
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
from tangents import (
    access,
    arguments,
    plain_jvp,
    plain_scores_jvp,
    random_tangents,
    scores_and_tangents,
)

import attnc
from attnc import _core
from attnc.registry import record_of

pytestmark = pytest.mark.one_in(3)

SPARSE = ("sparsemax", "entmax15")
SCORES = ("dot_product_scores", "multiplicative_scores", "additive_scores", "cosine_scores")


def jvp(name, tangents, arrays, options):
    return record_of(getattr(attnc, name)).jvp(tangents, *arrays, **options)


def problem(name, option, rng, dtype=np.float64, **sizes):
    """Arrays, options and tangents of everything that moves."""
    arrays, own = inputs(name, rng, dtype, **sizes)
    own |= options_of(option, rng, dtype, **sizes)
    return arrays, own, random_tangents(rng, name, arrays, own)


def largest(x):
    return np.abs(x[np.isfinite(x)]).max(initial=0)


def terms_of(name, tangents, arrays, options):
    """The largest term of the sums in each tangent: of T_ij - mean_i and of products with values.

    With absolute values nothing of a score's tangent cancels; the mean is at most the largest.
    """
    exact, moved = plain_jvp(name, tangents, arrays, options, np.longdouble)
    size = {k: np.abs(v) for k, v in tangents.items()}
    given = {k: _size(v) for k, v in arguments(name, arrays, options).items()}
    given |= {"softcap": None} if given.get("softcap") is not None else {}
    scores = plain_score_terms(name, size, given)
    value = largest(np.asarray(given["value"]))
    keys = max(exact["weights"].max(initial=0), 1e-300)
    weights = 2 * scores * min(1, keys * 4)
    kept = 1 / (1 - options.get("dropout", 0))
    return {
        "context": kept * (scores * value + largest(size.get("value", np.zeros(1)))),
        "weights": weights,
        "lse": scores,
    }


def _size(x):
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        return np.where(x == -np.inf, x, np.abs(x))
    return x


def plain_score_terms(name, size, given):
    """max_ij of the sums of absolute terms in T_ij."""
    x, t = access(given, size, np.longdouble)
    mechanism = name.removesuffix("_attention")
    if mechanism == "cosine":  # the length of a row divides; it may be short
        lengths = {k: np.sqrt((x(k) ** 2).sum(-1, keepdims=True)) for k in ("query", "key")}
        unit = {k: x(k) / np.where(n == 0, np.inf, n) for k, n in lengths.items()}
        moved = {k: 2 * t(k) / np.where(n == 0, np.inf, n) for k, n in lengths.items()}
        scale = 1 if x("scale") is None else x("scale")
        dots = unit["query"] @ unit["key"].swapaxes(-1, -2)
        both = moved["query"] @ unit["key"].swapaxes(-1, -2)
        both = scale * (both + unit["query"] @ moved["key"].swapaxes(-1, -2))
        scores = both if t("scale") is None else both + t("scale") * dots
    else:
        _, scores = scores_and_tangents(mechanism, x, t)
    total = largest(scores)
    for option in ("slope", "bias", "sink", "center"):
        if option in size:
            factor = scores.shape[-1] + scores.shape[-2] if option == "slope" else 1
            if option == "center":
                window = [8 if side is None else side + 1 for side in given["window"]]
                sigma = given.get("sigma") or given["window"][0] / 2
                factor = max(window) / sigma**2
            total += factor * largest(size[option])
    return float(total)


def check(name, arrays, options, tangents):
    """Outputs have the bits of a call; tangents are as exact as those of the plain formula."""
    dtype = np.result_type(*arrays)
    options = {**options, "return_weights": True}
    if "normalizer" not in options:
        options["return_lse"] = True
    with assert_unchanged(arrays, options, tangents):
        output, moved = jvp(name, tangents, arrays, options)
    assert_same(tuple(output), tuple(getattr(attnc, name)(*arrays, **options)))
    _, naive = plain_jvp(name, tangents, arrays, options, dtype.type)
    outputs, exact = plain_jvp(name, tangents, arrays, options, wider(dtype))
    terms = terms_of(name, tangents, arrays, options)
    extra = largest(outputs["lse"])  # a weight cannot be better than its score
    for what, x in moved._asdict().items():
        assert x.dtype == dtype and x.flags.c_contiguous and x.flags.writeable, what
        floor = (FLOOR if x.size >= FEW else FLOOR_OF_FEW) + extra
        assert_close_like_naive(x, exact[what], naive[what], terms[what], floor, what)
    return output, moved


# ---- right numbers ----


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_as_exact_as_the_plain_formula(name, option, dtype, isa, rng):
    arrays, own, tangents = problem(name, option, rng, dtype)
    check(name, arrays, own, tangents)


@pytest.mark.parametrize("normalizer", SPARSE)
@pytest.mark.parametrize("option", ["none", "mask", "everything", "bias with -inf", "dropout"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_sparse_normalizers(name, option, normalizer, dtype, isa, rng):
    arrays, own, tangents = problem(name, option, rng, dtype, Tq=9, Tk=300)
    own, tangents = own | {"normalizer": normalizer}, {**tangents}
    own.pop("sink", None), tangents.pop("sink", None)
    check(name, arrays, own, tangents)


@pytest.mark.parametrize("sizes", SIZES, ids=by_size)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_sizes(name, sizes, dtype, isa, rng):
    check(name, *_of(problem(name, "none", rng, dtype, **sizes)))


@pytest.mark.parametrize("option", ["none", "everything", "center and others"])
@pytest.mark.parametrize("sizes", BIG, ids=by_size)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_several_tiles(name, sizes, option, dtype, isa, rng):
    check(name, *_of(problem(name, option, rng, dtype, **sizes)))


@pytest.mark.long
@pytest.mark.parametrize("sizes", LONG, ids=by_size)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_long_sums(name, sizes, rng):
    check(name, *_of(problem(name, "none", rng, np.float32, **sizes)))


@pytest.mark.parametrize("leads", LEADS, ids=str)
@pytest.mark.parametrize("option", ["none", "everything", "center by lead"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_leading_axes(name, option, leads, dtype, rng):
    check(name, *_of(problem(name, option, rng, dtype, leads=leads)))


@pytest.mark.parametrize("Tq", [1, 2])
@pytest.mark.parametrize("option", ["none", "sink", "mask", "causal", "dropout", "key_lengths"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_few_queries_and_many_keys(name, option, Tq, dtype, isa, rng):
    """The keys are cut, and their parts put together."""
    check(name, *_of(problem(name, option, rng, dtype, Tq=Tq, Tk=3001, D=16, Dv=17)))


def _of(made):
    arrays, own, tangents = made
    return arrays, own, tangents


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_central_differences(name, option, rng):
    arrays, own, tangents = problem(name, option, rng)
    own |= EVERYTHING
    names = list(arguments(name, arrays, {}))

    def at(step):
        """The outputs with everything moved."""
        with np.errstate(invalid="ignore"):
            moved = {k: v + step * tangents.get(k, 0) for k, v in zip(names, arrays, strict=True)}
            options = {k: v + step * tangents[k] if k in tangents else v for k, v in own.items()}
        return getattr(attnc, name)(**moved, **options)

    step = 1e-5
    _, found = jvp(name, tangents, arrays, own)
    for above, below, x in zip(at(step), at(-step), found, strict=True):
        finite = np.isfinite(above)
        np.testing.assert_array_equal(x[~finite], 0)
        difference = (above[finite] - below[finite]) / (2 * step)
        np.testing.assert_allclose(x[finite], difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_transpose_of_the_gradients(name, option, isa, rng):
    """<g, jvp(u)> = <u, vjp(g)>"""
    arrays, own, tangents = problem(name, option, rng, Tq=50, Tk=270)
    own |= EVERYTHING
    output, found = jvp(name, tangents, arrays, own)
    d = {f: rng.standard_normal(x.shape) for f, x in output._asdict().items()}
    _, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own)
    gradients = pullback(**{f"d{f}": x for f, x in d.items()})
    by_tangents = [(d[f] * x).sum() for f, x in found._asdict().items()]
    by_gradients = [(tangents[k] * getattr(gradients, k)).sum() for k in tangents]
    scale = max(map(abs, [*by_tangents, *by_gradients, 1.0]))
    assert abs(sum(by_tangents) - sum(by_gradients)) < 1e-10 * scale


@pytest.mark.parametrize(
    "option", ["none", "everything", "center and others", "center in the softmax"]
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_tangent_alone_adds_up(name, option, isa, rng):
    """A tangent that is None or not there is 0, and forward mode is linear."""
    arrays, own, tangents = problem(name, option, rng, Tq=5, Tk=70)
    own |= EVERYTHING
    _, together = jvp(name, tangents, arrays, own)
    total = [np.zeros_like(x) for x in together]
    for k, x in tangents.items():
        one = dict.fromkeys(tangents) | {k: x}
        for sum_, part in zip(total, jvp(name, one, arrays, own)[1], strict=True):
            sum_ += part
    for sum_, x in zip(total, together, strict=True):
        assert_agree(sum_, x)
    for nothing in ({}, dict.fromkeys(tangents)):
        output, moved = jvp(name, nothing, arrays, own)
        assert_same(tuple(output), tuple(getattr(attnc, name)(*arrays, **own)))
        assert all((x == 0).all() for x in moved)


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_large_tangents_of_all_scores_cancel(shift, dtype, isa, rng):
    """Scores that all move alike leave the context alone."""
    scores = rng.standard_normal((3, 50, 700)).astype(dtype)
    value = rng.standard_normal((3, 700, 20)).astype(dtype)
    tangents = {"scores": np.full_like(scores, shift)}
    _, (moved, lse) = jvp("attend", tangents, (scores, value), {"return_lse": True})
    assert np.abs(moved).max() <= 4 * np.finfo(dtype).eps * abs(shift)
    np.testing.assert_allclose(lse, shift, rtol=8 * np.finfo(dtype).eps)


def test_cosine_of_zero_rows(dtype, isa, rng):
    arrays, own, tangents = problem("cosine_attention", "none", rng, dtype)
    arrays[0][:, 1] = 0
    arrays[1][:, 2] = 0
    _, moved = check("cosine_attention", arrays, own, tangents)
    assert np.isfinite(moved.context).all()


# ---- which results ----


@pytest.mark.parametrize("flags", [*itertools.product([False, True], repeat=2)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_tangents_do_not_depend_on_the_question(name, flags, dtype, rng):
    arrays, own, tangents = problem(name, "everything", rng, dtype, Tq=19, Tk=70)
    flags = dict(zip(EVERYTHING, flags, strict=True))
    _, all_of_them = jvp(name, tangents, arrays, own | EVERYTHING)
    output, moved = jvp(name, tangents, arrays, own | flags)
    assert type(moved) is type(output) is type(getattr(attnc, name)(*arrays, **own, **flags))
    if not any(flags.values()):
        assert_same(moved, all_of_them.context)
        return
    assert_same(moved._asdict(), {f: getattr(all_of_them, f) for f in moved._fields})


@pytest.mark.parametrize("option", ["none", "everything", "center and others"])
@pytest.mark.parametrize("sizes", [(70, 150, (2, 3)), (200, 600, ()), (2, 3000, (2,))], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_bits_for_any_number_of_threads(name, sizes, option, threads, rng):
    Tq, Tk, lead = sizes
    sizes = {"Tq": Tq, "Tk": Tk, "D": 33, "Dv": 40, "leads": (lead,) * 3}
    arrays, own, tangents = problem(name, option, rng, np.float32, **sizes)
    got = jvp(name, tangents, arrays, own | EVERYTHING)
    with attnc.set_num_threads(1):
        assert_same(got, jvp(name, tangents, arrays, own | EVERYTHING))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_layouts(name, layout, dtype, rng):
    arrays, own, tangents = problem(name, "everything", rng, dtype)
    laid_out = {k: lay_out(layout, x) for k, x in tangents.items()}
    if layout == "repeated":
        tangents = {k: np.array(x) for k, x in laid_out.items()}
    expected = jvp(name, tangents, arrays, own | EVERYTHING)
    assert_same(jvp(name, laid_out, arrays, own | EVERYTHING), expected)


def test_a_tangent_of_another_dtype_is_converted(rng):
    arrays, own, tangents = problem("dot_product_attention", "slope", rng, np.float32)
    wide = {k: x.astype(np.float64) for k, x in tangents.items()}
    assert_same(
        jvp("dot_product_attention", wide, arrays, own),
        jvp("dot_product_attention", tangents, arrays, own),
    )


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("option", ["none", "bias", "mask"])
@pytest.mark.parametrize("Tq", [2, 60])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_halves(name, Tq, option, half, isa, rng):
    """They are computed in float32, and rounded once."""
    half = np.dtype(half if half == "float16" else pytest.importorskip("ml_dtypes").bfloat16)
    arrays, own = inputs(name, rng, np.float32, Tq=Tq, Tk=70)
    own |= options_of(option, rng, np.float32, Tq=Tq, Tk=70)
    tangents = random_tangents(rng, name, arrays, own)
    arrays, *dicts = ([x.astype(half) for x in arrays], *map(_in_half(half), (own, tangents)))
    own, tangents = dicts
    output, moved = jvp(name, tangents, arrays, own | EVERYTHING)
    single = _in_half(np.float32)
    wide = jvp(
        name, single(tangents), [x.astype(np.float32) for x in arrays], single(own) | EVERYTHING
    )
    for got, expected in zip((output, moved), wide, strict=True):
        assert got.context.dtype == got.weights.dtype == half and got.lse.dtype == np.float32
        assert_same(got.context, expected.context.astype(half))
        assert_same(got.weights, expected.weights.astype(half))
        assert_same(got.lse, expected.lse)


def _in_half(half):
    def convert(arrays):
        return {
            k: x.astype(half) if isinstance(x, np.ndarray) and x.dtype != bool else x
            for k, x in arrays.items()
        }

    return convert


# ---- packed batches ----


@pytest.mark.parametrize("option", ["none", "center", "all"])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "attend"])
def test_a_packed_batch_has_the_bits_of_its_sequences(name, option, dtype, isa, threads, rng):
    query_offsets, key_offsets = np.array([0, 2, 2, 60, 100]), np.array([0, 9, 30, 30, 640])
    sizes = {"Tq": 100, "Tk": 640, "D": 16, "Dv": 17, "leads": ((2,), (1,), (2,))}
    arrays, own = inputs(name, rng, dtype, **sizes)
    if option == "all":
        own |= {"slope": rng.standard_normal(2), "sink": rng.standard_normal(1), "causal": True}
        own |= {"softcap": 2.0}
    if option == "center":
        own |= {"center": rng.uniform(0, 30, (2, 100)), "window": (5, 3)}
    tangents = random_tangents(rng, name, arrays, own)
    packed = {"query_offsets": query_offsets, "key_offsets": key_offsets, "return_lse": True}
    output, moved = jvp(name, tangents, arrays, own | packed)
    names = list(arguments(name, arrays, {}))
    for b in range(4):
        i = slice(query_offsets[b], query_offsets[b + 1])
        j = slice(key_offsets[b], key_offsets[b + 1])
        rows = {"query": i, "key": j, "value": j}

        def of_one(x, argument, i=i, rows=rows):
            if argument in rows:
                return x[..., rows[argument], :]
            return x[..., i] if argument == "center" else x

        alone = jvp(
            name,
            {k: of_one(x, k) for k, x in tangents.items()},
            [of_one(x, k) for x, k in zip(arrays, names, strict=True)],
            {k: of_one(x, k) for k, x in own.items()} | {"return_lse": True},
        )
        for one, many in zip(alone, (output, moved), strict=True):
            assert_same(one.context, many.context[..., i, :])
            assert_same(one.lse, many.lse[..., i])


# ---- NaN behind masks, rows without keys ----


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("Tq", [2, 60])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_poison_behind_masks(name, Tq, poison, dtype, isa, rng):
    """What no pair is allowed to see is not read, in arrays and in tangents."""
    sizes = {"Tq": Tq, "Tk": 300}
    arrays, own, tangents = problem(name, "none", rng, dtype, **sizes)
    own |= {"key_lengths": 290, "query_lengths": Tq - 1, "key_mask": rng.random((2, 300)) < 0.8}
    own |= {"bias": rng.standard_normal((2, Tq, 300)).astype(dtype), **EVERYTHING}
    tangents["bias"] = rng.standard_normal((2, Tq, 300)).astype(dtype)
    keys = own["key_mask"] & (np.arange(300) < 290)
    expected = jvp(name, tangents, arrays, own)
    names = list(arguments(name, arrays, {}))

    def poisoned(x, argument):
        x = x.copy()
        if argument in ("key", "value"):
            x[~keys] = poison
        if argument == "query":
            x[:, Tq - 1 :] = poison
        if argument in ("scores", "bias"):
            x[:, Tq - 1 :] = poison
            x[~np.broadcast_to(keys[:, None], x.shape)] = poison
        return x

    arrays = [poisoned(x, k) for x, k in zip(arrays, names, strict=True)]
    tangents = {k: poisoned(x, k) for k, x in tangents.items()}
    own["bias"] = poisoned(own["bias"], "bias")
    assert_same(jvp(name, tangents, arrays, own), expected)


@pytest.mark.parametrize("normalizer", ["softmax", *SPARSE])
@pytest.mark.parametrize("Tq", [2, 60])
def test_poison_of_single_pairs(Tq, normalizer, dtype, isa, rng):
    """A NaN in one row, of scores or tangents, stays in that row and in its allowed pairs."""
    scores, value = (rng.standard_normal(s).astype(dtype) for s in ((Tq, 300), (300, 20)))
    mask = rng.random((Tq, 300)) < 0.5
    mask[:, 7], mask[0, 9] = True, False
    tangents = {
        "scores": rng.standard_normal((Tq, 300)).astype(dtype),
        "value": rng.standard_normal((300, 20)).astype(dtype),
    }
    own = {"mask": mask, "return_weights": True, "normalizer": normalizer}
    expected = jvp("attend", tangents, (scores, value), own)[1]
    for where in ("scores", "tangent"):
        broken = {k: x.copy() for k, x in tangents.items()}
        given = scores.copy()
        (broken["scores"] if where == "tangent" else given)[0, 7] = np.nan
        broken["scores"][0, 9] = np.nan
        if normalizer != "softmax":  # else its weight is 0, and nothing is felt
            given[0, 7] = np.nan if where == "scores" else 10
        output, moved = jvp("attend", broken, (given, value), own)
        assert np.isnan(moved.context[0]).all()
        assert (moved.weights[0][~mask[0]] == 0).all()
        if normalizer == "softmax":
            assert np.isnan(moved.weights[0][mask[0]]).all()
        assert_same(moved.context[1:], expected.context[1:])
        assert_same(moved.weights[1:], expected.weights[1:])
        if where == "tangent":
            assert np.isfinite(output.context).all()


def test_rows_without_keys(dtype, isa, rng):
    arrays, own, tangents = problem("dot_product_attention", "none", rng, dtype)
    own |= {"mask": np.zeros((1, 1, 1), bool), **EVERYTHING}
    _, moved = jvp("dot_product_attention", tangents, arrays, own)
    assert all((x == 0).all() for x in moved)
    own["sink"], tangents["sink"] = np.array([0.5, -1.0]), np.array([2.0, -3.0])
    own["query_lengths"] = 4
    _, moved = jvp("dot_product_attention", tangents, arrays, own)
    assert (moved.context == 0).all() and (moved.weights == 0).all()
    assert_same(moved.lse[:, :4], np.repeat(tangents["sink"], 4).reshape(2, 4).astype(dtype))
    assert (moved.lse[:, 4:] == 0).all()


# ---- scores alone, hard attention, merging ----


def score_problem(name, rng, dtype=np.float64, **sizes):
    attention = name.replace("scores", "attention")
    arrays, own = inputs(attention, rng, dtype, **sizes)
    arrays = (*arrays[:2], *arrays[3:])
    return arrays, own, random_tangents(rng, name, arrays, own)


@pytest.mark.parametrize(
    "sizes",
    [{}, {"Tq": 1, "Tk": 600}, {"Tq": 70, "Tk": 300}, {"Tk": 0}, {"Tq": 0}, {"D": 0}],
    ids=str,
)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", SCORES)
def test_scores(name, masked, sizes, dtype, isa, rng):
    arrays, own, tangents = score_problem(name, rng, dtype, **sizes)
    if masked:
        shape = (2, sizes.get("Tq", 5), sizes.get("Tk", 7))
        own |= {"mask": rng.random(shape) < 0.6, "query_lengths": shape[1] // 2}
    output, moved = jvp(name, tangents, arrays, own)
    assert_same(output, getattr(attnc, name)(*arrays, **own))
    _, naive = plain_scores_jvp(name, tangents, arrays, own, dtype)
    _, exact = plain_scores_jvp(name, tangents, arrays, own, wider(dtype))
    size = {k: np.abs(x) for k, x in tangents.items()}
    given = {k: _size(x) for k, x in arguments(name, arrays, own).items()}
    attention = name.replace("scores", "attention")
    terms = plain_score_terms(attention, size, given) if moved.size else 0
    floor = FLOOR if moved.size >= FEW else FLOOR_OF_FEW
    assert moved.dtype == dtype
    assert_close_like_naive(moved, exact, naive, terms, floor)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", SCORES)
def test_scores_in_halves(name, half, rng):
    half = np.dtype(half if half == "float16" else pytest.importorskip("ml_dtypes").bfloat16)
    arrays, own, tangents = score_problem(name, rng, np.float32)
    arrays = [x.astype(half) for x in arrays]
    own, tangents = map(_in_half(half), (own, tangents))
    single = _in_half(np.float32)
    output, moved = jvp(name, tangents, arrays, own)
    wide = jvp(name, single(tangents), [x.astype(np.float32) for x in arrays], single(own))
    assert_same((output, moved), tuple(x.astype(half) for x in wide))


HARD = [o for o in OPTIONS if "sink" not in o and "dropout" not in o]
HARD = [o for o in HARD if o not in ("everything", "center and others")]


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("option", HARD)
def test_hard_attention(option, sample, isa, rng):
    arrays, own, tangents = problem("attend", option, rng)
    own |= {"sample": sample, "rng": 5}
    output, moved = jvp("hard_attention", tangents, arrays, own)
    assert_same(tuple(output), tuple(attnc.hard_attention(*arrays, **own)))
    assert moved.index is None
    chosen = {**own, "index": output.index}

    def at(step):
        x, value = (
            a + step * tangents[k] for a, k in zip(arrays, ("scores", "value"), strict=True)
        )
        options = {k: v + step * tangents[k] if k in tangents else v for k, v in chosen.items()}
        return attnc.hard_attention(x, value, **options)

    with np.errstate(invalid="ignore"):
        above, below = at(1e-5), at(-1e-5)
    for field in ("context", "log_probability", "entropy"):
        difference = (getattr(above, field) - getattr(below, field)) / 2e-5
        np.testing.assert_allclose(getattr(moved, field), difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("option", ["none", "bias", "softcap", "slope", "center in the softmax"])
def test_hard_attention_is_the_transpose_of_its_gradients(option, dtype, isa, rng):
    arrays, own, tangents = problem("attend", option, rng, dtype, Tq=20, Tk=300)
    own["rng"] = 3
    output, pullback = attnc.vjp(attnc.hard_attention, *arrays, **own)
    _, moved = jvp("hard_attention", tangents, arrays, own)
    fields = ("context", "log_probability", "entropy")
    d = {f: rng.standard_normal(getattr(output, f).shape).astype(dtype) for f in fields}
    gradients = pullback(**{f"d{f}": x for f, x in d.items()})
    left = sum((d[f] * getattr(moved, f)).sum() for f in fields)
    right = sum((tangents[k] * getattr(gradients, k)).sum() for k in tangents)
    terms = sum(np.abs(d[f] * getattr(moved, f)).sum() for f in fields)
    assert abs(left - right) < 100 * np.finfo(dtype).eps * terms


def test_hard_attention_of_broken_and_empty_rows(dtype, isa, rng):
    arrays, own, tangents = problem("attend", "none", rng, dtype)
    arrays[0][0, 0, 3] = np.nan
    own["mask"] = np.ones((2, 5, 7), bool)
    own["mask"][1, 1] = False
    own["rng"] = 1
    tangents["scores"][1, 1] = np.nan
    _, moved = jvp("hard_attention", tangents, arrays, own)
    assert np.isnan(moved.context[0, 0]).all() and np.isnan(moved.entropy[0, 0])
    assert (moved.context[1, 1] == 0).all()
    assert moved.log_probability[1, 1] == moved.entropy[1, 1] == 0
    rest = np.ones((2, 5), bool)
    rest[0, 0] = False
    assert all(np.isfinite(x[rest]).all() for x in (moved.context, moved.entropy))


@pytest.mark.parametrize("return_lse", [False, True])
def test_merge_attention(return_lse, rng):
    contexts = [rng.standard_normal((2, 5, 4)) for _ in range(3)]
    lses = [rng.standard_normal((2, 5)) for _ in range(3)]
    lses[1][0, 2] = -np.inf
    tangents = {
        "contexts": [rng.standard_normal((2, 5, 4)), None, rng.standard_normal((2, 5, 4))],
        "lses": [rng.standard_normal((2, 5)) for _ in range(3)],
    }
    options = {"return_lse": return_lse}
    output, moved = jvp("merge_attention", tangents, (contexts, lses), options)
    assert_same(output, attnc.merge_attention(contexts, lses, **options))

    def at(step):
        moved = [
            [x if t is None else x + step * t for x, t in zip(xs, tangents[k], strict=True)]
            for xs, k in ((contexts, "contexts"), (lses, "lses"))
        ]
        return attnc.merge_attention(*moved, **options)

    above, below = at(1e-5), at(-1e-5)
    if not return_lse:
        above, below, moved = [above], [below], [moved]
    for x, y, found in zip(above, below, moved, strict=True):
        np.testing.assert_allclose(found, (x - y) / 2e-5, rtol=1e-6, atol=1e-8)
    for nothing in ({}, {"contexts": None}, {"lses": [None] * 3}):
        _, still = jvp("merge_attention", nothing, (contexts, lses), {})
        assert (still == 0).all()


# ---- hostile arguments, memory ----

BAD = [
    ({"query": np.zeros((2, 5, 10))}, ValueError, r"tangent of query must have the shape of query, "
     r"\(2, 5, 11\), got \(2, 5, 10\)"),
    ({"query": np.zeros((1, 5, 11))}, ValueError, r"tangent of query must have the shape"),
    ({"query": np.zeros(())}, ValueError, r"tangent of query must have the shape"),
    ({"query": np.zeros((2, 5, 11), complex)}, TypeError, r"tangent of query must hold real"),
    ({"query": np.zeros((2, 5, 11), object)}, TypeError, r"tangent of query must"),
    ({"query": np.zeros((2, 5, 11), int)}, TypeError, r"tangent of query must have a float dtype"),
    ({"query": np.ma.zeros((2, 5, 11))}, TypeError, r"tangent of query must .*masked"),
    ({"query": "abc"}, TypeError, r"tangent of query must"),
    ({"query": [[1.0], [1.0, 2.0]]}, (TypeError, ValueError), r"tangent of query"),
    ({"bias": np.zeros((2, 5, 7))}, ValueError, r"tangent of bias must be None unless bias is "
     r"passed as a real array, got one"),
    ({"sink": 1.0}, ValueError, r"tangent of sink must be None unless sink is passed"),
    ({"scale": np.array(1.0)}, ValueError, r"tangent of scale must be None unless scale is passed"),
    ({"slope": np.zeros((3,))}, ValueError, r"tangent of slope must have the shape of slope, "
     r"\(2,\), got \(3,\)"),
    ({"queries": np.zeros((2, 5, 11))}, TypeError, r"tangents must be named as .*, got 'queries'"),
    ({"mask": np.zeros((2, 5, 7))}, TypeError, r"tangents must be named as .*, got 'mask'"),
    ({3: None}, TypeError, r"tangents must be named as .*, got 3"),
    ([np.zeros((2, 5, 11))], TypeError, r"tangents must be a dict of arrays"),
    (None, TypeError, r"tangents must be a dict of arrays"),
]  # fmt: skip


@pytest.mark.parametrize(("tangents", "error", "message"), BAD, ids=lambda x: str(x)[:40])
def test_refused(tangents, error, message, rng):
    arrays, own = inputs("dot_product_attention", rng)
    own["slope"] = np.zeros(2)
    with pytest.raises(error, match=f"^dot_product_attention: {message}"):
        jvp("dot_product_attention", tangents, arrays, own)


def test_a_dict_that_changes_while_it_is_read(rng):
    arrays, _, tangents = problem("dot_product_attention", "none", rng)

    class Array:
        def __array__(self, dtype=None, copy=None):
            changing.clear()
            return tangents["query"].copy()

    changing = {"query": Array(), "key": tangents["key"].copy()}
    expected = {name: tangents[name] for name in changing}
    assert_same(
        jvp("dot_product_attention", changing, arrays, {}),
        jvp("dot_product_attention", expected, arrays, {}),
    )
    assert not changing


def test_refused_elsewhere(rng):
    arrays, own = inputs("attend", rng)
    with pytest.raises(ValueError, match="^hard_attention: tangent of value must have the shape"):
        jvp("hard_attention", {"value": np.zeros(3)}, arrays, {"rng": 0})
    with pytest.raises(TypeError, match="^hard_attention: tangents must be named .* 'index'"):
        jvp("hard_attention", {"index": np.zeros((2, 5))}, arrays, {"rng": 0})
    x = rng.standard_normal((2, 5, 4))
    with pytest.raises(TypeError, match="^dot_product_scores: tangents must be named .* 'bias'"):
        jvp("dot_product_scores", {"bias": x}, (x, x), {})
    lses = [np.zeros((2, 5))]
    for bad in (x, [x, x], [], [None, None], 3.0, "ab"):
        error = TypeError if isinstance(bad, (float, str)) else ValueError
        with pytest.raises(error, match="^merge_attention: tangent of contexts must be a sequence"):
            jvp("merge_attention", {"contexts": bad}, ([x], lses), {})
    with pytest.raises(TypeError, match=r"^merge_attention: tangent of contexts\[0\] must"):
        jvp("merge_attention", {"contexts": [x.astype(complex)]}, ([x], lses), {})
    with pytest.raises(ValueError, match=r"^merge_attention: tangent of lses\[0\] must have the"):
        jvp("merge_attention", {"lses": [np.zeros((2, 4))]}, ([x], lses), {})
    with pytest.raises(TypeError, match="^dot_product_attention: jvp takes a dict"):
        _core.dot_product_attention_jvp()


LARGE = {"Tq": 600, "Tk": 260, "D": 40, "Dv": 120, "leads": ((1,), (2,), (2,))}


MEMORY = [(name, o) for name in FUNCTIONS for o in ("none", "everything", "packed", "sparse")]
MEMORY = [case for case in MEMORY if case != ("attend", "packed")]
MEMORY += [("hard_attention", "bias by key"), *((name, "alone") for name in SCORES)]


def large_problem(name, option, rng):
    if option == "alone":
        return score_problem(name, rng, np.float32, **LARGE)
    if name == "hard_attention":
        arrays, own, tangents = problem("attend", option, rng, np.float32, **LARGE)
        return arrays, own | {"rng": 3}, tangents
    drawn = "everything" if option == "everything" else "none"
    arrays, own, tangents = problem(name, drawn, rng, np.float32, **LARGE)
    return (
        arrays,
        own
        | {
            "none": EVERYTHING,
            "everything": EVERYTHING,
            "packed": {
                "query_offsets": np.array([0, 2, 300, 600]),
                "key_offsets": np.array([0, 9, 30, 260]),
                "return_lse": True,
            },
            "sparse": {"normalizer": "entmax15"},
        }[option],
        tangents,
    )


@pytest.mark.parametrize(("name", "option"), MEMORY)
def test_memory_runs_out_anywhere(name, option, rng):
    arrays, own, tangents = large_problem(name, option, rng)
    expected = jvp(name, tangents, arrays, own)
    kept = [*arrays, *tangents.values()]
    got = run_out_of_memory(lambda: jvp(name, tangents, arrays, own), kept, least=2)
    assert_same(got, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_calls_keep_no_reference(name, rng):
    arrays, own, tangents = problem(name, "everything", rng)
    kept = [*arrays, *tangents.values(), *(x for x in own.values() if isinstance(x, np.ndarray))]
    bad = tangents | {"value": np.zeros(1)}
    before = [sys.getrefcount(x) for x in (*kept, None)]
    for _ in range(50):
        jvp(name, tangents, arrays, own)
        with pytest.raises(ValueError, match="tangent of value"):
            jvp(name, bad, arrays, own)
    gc.collect()
    after = [sys.getrefcount(x) for x in (*kept, None)]
    assert after[:-1] == before[:-1] and abs(after[-1] - before[-1]) < 20


# ---- what no other size or number meets ----


@pytest.mark.parametrize("name", SCORES)
def test_scores_that_do_not_move(name, rng):
    """Their tangent is 0, whatever was in the memory that is worked in."""
    arrays, more = inputs(name.replace("scores", "attention"), rng, np.float64, Tq=40, Tk=70)
    arrays = [*arrays[:2], *arrays[3:]]
    jvp(name, {"query": np.full_like(arrays[0], 1e300)}, arrays, more)
    assert not jvp(name, {}, arrays, more)[1].any()
    if name in ("dot_product_scores", "cosine_scores"):
        still = more | {"scale": np.array(0.3)}
        assert not jvp(name, {"scale": np.array(0.0)}, arrays, still)[1].any()


def test_more_features_than_a_product_sums_at_once(rng):
    """What a product is added to is not lost."""
    D = 8200
    query, key, value = (rng.standard_normal((n, d)) for n, d in ((2, D), (3, 4), (3, 2)))
    weight = rng.standard_normal((D, 4)) / 90
    tangents = {"query": rng.standard_normal((2, D)), "weight": rng.standard_normal((D, 4))}
    check("multiplicative_attention", (query / 90, key, value, weight), {}, tangents)


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("rows", ["without keys", "padding"])
def test_a_center_that_moves_by_nan_is_felt_by_its_own_row(rows, renormalize, dtype, isa, rng):
    sizes = {"Tq": 5, "Tk": 6, "D": 4, "Dv": 3, "leads": ((), (), ())}
    arrays, _ = inputs("dot_product_attention", rng, dtype, **sizes)
    own = {
        "center": np.linspace(0, 5, 5),
        "window": (2, 2),
        "renormalize": renormalize,
    } | EVERYTHING
    if rows == "padding":
        own["query_lengths"] = np.array(3)
    else:
        own["mask"] = (np.arange(5) < 3)[:, None] & np.ones(6, bool)
    tangents = {"center": np.where(np.arange(5) < 3, 1.0, np.nan)}
    for x in jvp("dot_product_attention", tangents, arrays, own)[1]:
        assert np.isfinite(x).all() and not x[3:].any()


@pytest.mark.parametrize("sigma", [1e-18, 1e-20, 1e-25, 1e-40, 1e-200])
def test_narrow_gaussians(sigma, dtype, isa, rng):
    sizes = {"Tq": 5, "Tk": 6, "D": 4, "Dv": 3, "leads": ((), (), ())}
    arrays, _ = inputs("dot_product_attention", rng, dtype, **sizes)
    own = {"center": np.arange(5.0), "window": (1, 1), "sigma": sigma}
    found = jvp("dot_product_attention", {"center": np.ones(5)}, arrays, own)[1]
    assert np.isfinite(found).all()

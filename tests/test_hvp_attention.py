"""Second order of the attention functions: `backward_jvp` of their records, which is C.

`second_order` knows it in two other ways; the rule of errors is that of all tests.
"""

import gc
import sys

import numpy as np
import pytest

pytest.importorskip("torch")

from arrays import BIG, FUNCTIONS, LEADS, OPTIONS, by_size, inputs, options
from checks import (
    EVERYTHING,
    assert_agree,
    assert_same,
    assert_unchanged,
    needs_proc,
    peak_memory,
    run_out_of_memory,
)
from second_order import (
    arguments,
    check,
    differences,
    directions,
    dyadic,
    gradients_of,
    incoming_of,
    naive,
    second,
)

import attnc
from attnc import _core, functional, registry

# PyTorch's own, when it is first asked for forward mode of a derivative.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

SCORES = ["dot_product_scores", "multiplicative_scores", "additive_scores", "cosine_scores"]
# Options of a few kinds, where all of them would say no more.
FEW_OPTIONS = ["none", "everything", "center and others", "center in the softmax", "sink"]


def problem(name, rng, option="none", dtype=np.float64, **sizes):
    """(function, real arrays, other options, tangents, incoming, dincoming)"""
    function = getattr(functional, name)
    if name.endswith("_scores"):
        arrays, own = scores_inputs(name, rng, dtype, **sizes)
    else:
        arrays, own = inputs(name, rng, dtype, **sizes)
        own |= {**options(option, rng, dtype, **sizes), **EVERYTHING}
    return with_directions(function, arrays, own, rng)


def with_directions(function, arrays, own, rng):
    real, rest = arguments(function, arrays, own)
    incoming = incoming_of(rng, function, real, rest)
    dincoming = {
        n: None if x is None else dyadic(rng.standard_normal(x.shape).astype(x.dtype))
        for n, x in incoming.items()
    }
    return function, real, rest, directions(rng, real), incoming, dincoming


def scores_inputs(name, rng, dtype=np.float64, **sizes):
    (query, key, _, *more), own = inputs(name.replace("scores", "attention"), rng, dtype, **sizes)
    return (query, key, *more), own


# ---- the numbers ----


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_options(name, option, rng):
    arrays, own = inputs(name, rng)
    check(name, arrays, {**own, **options(option, rng), **EVERYTHING}, rng)


@pytest.mark.parametrize("option", FEW_OPTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32(name, option, rng):
    arrays, own = inputs(name, rng, np.float32)
    check(name, arrays, {**own, **options(option, rng, np.float32), **EVERYTHING}, rng)


@pytest.mark.parametrize("leads", LEADS[:8], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_leads(name, leads, rng):
    arrays, own = inputs(name, rng, leads=leads)
    own |= {**options("bias for all leads", rng, leads=leads), **EVERYTHING}
    own["slope"] = np.full((1,) * len(leads[0]), 0.1)
    check(name, arrays, own, rng)


@pytest.mark.parametrize("normalizer", ["sparsemax", "entmax15"])
@pytest.mark.parametrize("option", ["none", "mask", "softcap", "bias by key", "slope", "dropout"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_sparse(name, option, normalizer, rng):
    """Where no weight becomes or ceases to be 0 within the differences."""
    arrays, own = inputs(name, rng)
    own |= {**options(option, rng), "normalizer": normalizer, "return_weights": True}
    check(name, arrays, own, rng, scale=0.1)


@pytest.mark.parametrize("sizes", [*BIG[:3], *BIG[4:5]], ids=by_size)
@pytest.mark.parametrize("option", ["none", "everything", "center and others", "bias by key"])
def test_several_tiles(option, sizes, rng):
    """Against PyTorch alone: long double takes its time."""
    sizes = {**sizes, "leads": ((1,), (2,), (1,))}
    function, real, rest, *directions = problem("dot_product_attention", rng, option, **sizes)
    got = second(function, real, rest, *directions)
    expected = naive("dot_product_attention", real, rest, *directions, np.float64)
    for n, x in got.items():
        assert_agree(x, expected[n], n)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_several_segments(name, rng):
    """Of keys, where a window around a center meets some of them."""
    sizes = {"Tq": 20, "Tk": 1300, "leads": ((2,), (1,), (2,))}
    for own in ({}, {"center": rng.uniform(400, 1200, (2, 20)), "window": (300, 200)}):
        arrays, more = inputs(name, rng, **sizes)
        function, real, rest, *directions = with_directions(
            getattr(functional, name), arrays, {**more, **own, **EVERYTHING}, rng
        )
        got = second(function, real, rest, *directions)
        expected = naive(name, real, rest, *directions, np.float64)
        for n, x in got.items():
            assert_agree(x, expected[n], n)


MASKS = ["none", "mask", "key_mask", "key_lengths", "causal", "window by lead"]


@pytest.mark.parametrize("option", MASKS)
@pytest.mark.parametrize("name", SCORES)
def test_scores(name, option, rng):
    arrays, own = scores_inputs(name, rng)
    check(name, arrays, {**own, **options(option, rng)}, rng)


@pytest.mark.parametrize("name", SCORES)
def test_scores_in_float32(name, rng):
    arrays, own = scores_inputs(name, rng, np.float32)
    check(name, arrays, own, rng)


HARD = ["none", "mask", "softcap", "slope", "bias", "bias by key", "center", "query_lengths"]


@pytest.mark.parametrize("option", HARD)
def test_hard(option, rng):
    arrays, _ = inputs("attend", rng)
    own = options(option, rng)
    own["index"] = functional.hard_attention(*arrays, **own, sample=False).index
    check("hard_attention", arrays, own, rng)


def test_hard_in_float32(rng):
    arrays, _ = inputs("attend", rng, np.float32)
    index = functional.hard_attention(*arrays, sample=False).index
    check("hard_attention", arrays, {"index": index}, rng)


def test_drawn_keys_are_the_same(rng):
    """A key that is drawn is drawn again, and has the tangents of one that is given."""
    arrays, _ = inputs("attend", rng)
    found = []
    for own in ({"rng": 7}, {"index": functional.hard_attention(*arrays, rng=7).index}):
        function, real, rest, *directions = with_directions(
            functional.hard_attention, arrays, own, np.random.default_rng(3)
        )
        found.append(second(function, real, rest, *directions))
    assert_same(*found)


def test_scale_of_0(rng):
    """Its gradient's tangent is not made of what it has been multiplied with."""
    arrays, own = inputs("dot_product_attention", rng)
    check("dot_product_attention", arrays, {**own, "scale": np.array(0.0), **EVERYTHING}, rng)


def test_rows_of_zeros(rng):
    """Of cosine attention: score 0 and gradient 0, and so is its tangent, while they stay zeros."""
    (query, key, value), own = inputs("cosine_attention", rng)
    query[0, 1] = key[1, 2] = 0
    function, real, rest, tangents, *d = with_directions(
        functional.cosine_attention, (query, key, value), own, rng
    )
    tangents["query"][0, 1] = tangents["key"][1, 2] = 0
    got = second(function, real, rest, tangents, *d)
    expected = differences("cosine_attention", real, rest, tangents, *d)
    for n, x in got.items():
        assert_agree(x, expected[n].astype(np.float64), n)
    assert not got["query"][0, 1].any() and not got["key"][1, 2].any()


# ---- what second derivatives have to be ----


def inner(one, other):
    return sum((one[n] * other[n]).sum() for n in one if n in other and other[n] is not None)


@pytest.mark.parametrize("option", FEW_OPTIONS)
@pytest.mark.parametrize("name", [*FUNCTIONS, *SCORES])
def test_symmetry(name, option, rng):
    """<u, H w> = <w, H u>"""
    function, real, rest, u, incoming, _ = problem(name, rng, option)
    w = directions(rng, real)
    one = inner(second(function, real, rest, u, incoming, {}), w)
    other = inner(second(function, real, rest, w, incoming, {}), u)
    assert_agree(one, other)


@pytest.mark.parametrize("name", [*FUNCTIONS, *SCORES, "hard_attention"])
def test_incoming_tangents_alone_give_gradients(name, rng):
    """Backward is linear in what comes in."""
    if name == "hard_attention":
        arrays, _ = inputs("attend", rng)
        function, real, rest, _, incoming, _ = with_directions(
            functional.hard_attention, arrays, {"sample": False}, rng
        )
    else:
        function, real, rest, _, incoming, _ = problem(name, rng)
    got = second(function, real, rest, {}, {}, incoming)
    expected = gradients_of(function, real, rest, incoming)
    for n, x in got.items():
        assert_agree(x, expected[n], n)


@pytest.mark.parametrize("name", [*FUNCTIONS, *SCORES])
def test_zeros_give_zeros(name, rng):
    function, real, rest, _, incoming, _ = problem(name, rng)
    for tangents in ({}, {n: np.zeros_like(x) for n, x in real.items()}, dict.fromkeys(real)):
        got = second(function, real, rest, tangents, incoming, {})
        assert not any(x.any() for x in got.values())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_part_alone(name, rng):
    """Tangents add up, those of arrays and those of what comes in."""
    function, real, rest, tangents, incoming, dincoming = problem(name, rng, "sink")
    whole = second(function, real, rest, tangents, incoming, dincoming)
    parts = [second(function, real, rest, {n: x}, incoming, {}) for n, x in tangents.items()]
    parts += [second(function, real, rest, {}, incoming, {n: x}) for n, x in dincoming.items()]
    for n, x in whole.items():
        assert_agree(sum(part[n] for part in parts), x, n)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_differences_of_the_pullback(name, rng):
    """`attnc.vjp` at both sides, in float64."""
    function, real, rest, tangents, incoming, dincoming = problem(name, rng, "slope")
    got = second(function, real, rest, tangents, incoming, dincoming)
    step, found = 2.0**-12, []
    for by in (step, -step):
        at = {n: np.asarray(x + by * tangents[n]) for n, x in real.items()}
        d = {n: x + by * dincoming[n] for n, x in incoming.items()}
        required = registry.record_of(function).required
        own = {n: x for n, x in at.items() if n not in required} | rest
        _, pullback = attnc.vjp(function, *[at[n] for n in required], **own)
        found.append(vars(pullback(**d)))
    for n, x in got.items():
        slope = (found[0][n] - found[1][n]) / (2 * step)
        np.testing.assert_allclose(slope, x, rtol=0, atol=1e-5 * max(1, np.abs(x).max()))


# ---- what is not read, and what has no keys ----


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_excluded_is_not_read(name, rng):
    """NaN behind a mask, in arrays, in tangents and in incoming gradients of weights."""
    function, real, rest, tangents, incoming, dincoming = problem(name, rng)
    rest["mask"] = np.ones((2, 5, 7), bool)
    rest["mask"][..., 3] = rest["mask"][:, 1] = False
    clean = second(function, real, rest, tangents, incoming, dincoming)
    every = [real, tangents, incoming, dincoming]
    every = [{n: np.array(x) for n, x in of.items()} for of in every]
    for of in every[:2]:
        for n, row in (("key", 3), ("value", 3), ("query", 1)):
            if n in of:
                of[n][:, row] = np.nan
        if "scores" in of:
            of["scores"][..., 3] = of["scores"][:, 1] = np.nan
    for of in every[2:]:
        of["dweights"][..., 3] = of["dweights"][:, 1] = np.nan
        of["dcontext"][:, 1] = np.nan
    real, *rest_of = every
    broken = second(function, real, rest, *rest_of)
    for n, x in broken.items():
        assert np.isfinite(x).all(), n
        assert_agree(x, clean[n], n)


@pytest.mark.parametrize("name", ["dot_product_attention", "additive_attention"])
def test_padding_is_not_read(name, rng):
    function, real, rest, tangents, incoming, dincoming = problem(name, rng)
    rest |= {"query_lengths": 3, "key_lengths": 4}
    for of in (real, tangents):
        of["query"][:, 3:] = of["key"][:, 4:] = of["value"][:, 4:] = np.nan
    for of in (incoming, dincoming):
        of["dcontext"][:, 3:] = of["dweights"][:, 3:] = of["dlse"][:, 3:] = np.nan
    got = second(function, real, rest, tangents, incoming, dincoming)
    assert all(np.isfinite(x).all() for x in got.values())
    assert not got["query"][:, 3:].any() and not got["value"][:, 4:].any()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_without_keys(name, rng):
    """They add exactly nothing, whatever comes in."""
    function, real, rest, tangents, incoming, dincoming = problem(name, rng)
    rest["mask"] = np.zeros((2, 5, 7), bool)
    got = second(function, real, rest, tangents, incoming, dincoming)
    assert not any(x.any() for x in got.values())


# ---- bits, sequences, halves, memory ----


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("option", ["everything", "center and others", "bias by key"])
def test_threads(name, option, rng):
    """The same bits by any number of them, and nothing is written to."""
    sizes = {"Tq": 130, "Tk": 530, "leads": ((2,), (1,), (2,))}
    before, found = attnc.get_num_threads(), []
    given = problem(name, rng, option, **sizes)
    try:
        for threads in (1, 2, 5):
            attnc.set_num_threads(threads)
            with assert_unchanged(*given[1:]):
                found.append(second(*given))
    finally:
        attnc.set_num_threads(before)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "attend"])
def test_packed_is_as_alone(name, local, rng):
    offsets = np.array([0, 3, 3, 210, 217])
    keys = np.array([0, 4, 9, 250, 258])
    sizes = {"Tq": 217, "Tk": 258, "leads": ((2,), (2,), (2,))}
    arrays, own = inputs(name, rng, **sizes)
    own |= {"causal": True, "return_lse": True, "sink": rng.standard_normal(2)}
    if local:
        own |= {"center": rng.uniform(0, 200, (2, 217)), "window": (9, 7)}
    packed = {"query_offsets": offsets, "key_offsets": keys}
    function, real, rest, tangents, incoming, dincoming = with_directions(
        getattr(functional, name), arrays, {**own, **packed}, rng
    )
    whole = second(function, real, rest, tangents, incoming, dincoming)
    for n in packed:
        del rest[n]
    sums = {n: 0 for n in whole if n not in ("query", "key", "value", "center")}
    for b in range(len(offsets) - 1):
        q, k = slice(*offsets[b : b + 2]), slice(*keys[b : b + 2])
        rows = {"query": q, "center": q, "key": k, "value": k}

        def part(of, rows=rows):
            return {n: x[:, rows[n]] if n in rows else x for n, x in of.items()}

        d = [{n: None if x is None else x[:, q] for n, x in of.items()}
             for of in (incoming, dincoming)]  # fmt: skip
        alone = second(function, part(real), rest, part(tangents), *d)
        for n, x in alone.items():
            if n in rows:
                assert_same(whole[n][:, rows[n]], x, n)
            else:
                sums[n] = sums[n] + x
    for n, x in sums.items():
        assert_agree(whole[n], x, n)


@pytest.mark.parametrize("name", [*FUNCTIONS, *SCORES])
def test_halves(name, rng):
    """Those of the same numbers in float32, rounded."""
    function, real, rest, *of = problem(name, rng, dtype=np.float16)
    wide = {n: x.astype(np.float32) for n, x in real.items()}
    of_wide = [{n: None if x is None else x.astype(np.float32) for n, x in d.items()} for d in of]
    got = second(function, real, rest, *of)
    expected = second(function, wide, rest, *of_wide)
    for n, x in got.items():
        assert x.dtype == np.float16
        assert_same(x, expected[n].astype(np.float16), n)


def test_instruction_sets_agree(isa, rng):
    function, real, rest, *of = problem("dot_product_attention", rng, "everything")
    got = second(function, real, rest, *of)
    expected = naive("dot_product_attention", real, rest, *of, np.float64)
    for n, x in got.items():
        assert_agree(x, expected[n], f"{isa}: {n}")


@pytest.mark.parametrize("axis", ["Tq", "Tk", "D", "Dv"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_along_an_axis(name, axis, rng):
    function, real, rest, *of = problem(name, rng, **{axis: 0})
    got = second(function, real, rest, *of)
    assert all(got[n].shape == x.shape and np.isfinite(got[n]).all() for n, x in real.items())


# ---- merge_attention ----


def test_merge(rng):
    """By differences of its pullback."""
    contexts = [rng.standard_normal((2, 5, 3)) for _ in range(3)]
    lses = [rng.standard_normal((2, 5)) for _ in range(3)]
    lses[1][0, 2] = -np.inf
    contexts[1][0, 2] = np.nan
    moves = {n: tuple(rng.standard_normal(x.shape) for x in parts)
             for n, parts in (("contexts", contexts), ("lses", lses))}  # fmt: skip
    d, dd = ((rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 5))) for _ in range(2))
    record = registry.record_of(attnc.merge_attention)
    got = record.backward_jvp(moves, d, dd, contexts, lses, return_lse=True)
    step, found = 2.0**-12, []
    for by in (step, -step):
        at = [[x + by * t for x, t in zip(parts, moves[n], strict=True)]
              for n, parts in (("contexts", contexts), ("lses", lses))]  # fmt: skip
        _, pullback = attnc.vjp(attnc.merge_attention, *at, return_lse=True)
        dcontext, dlse = (x + by * t for x, t in zip(d, dd, strict=True))
        found.append(pullback(dcontext, dlse=dlse))
    for k in range(2):
        for one, after, before in zip(got[k], found[0][k], found[1][k], strict=True):
            np.testing.assert_allclose((after - before) / (2 * step), one, rtol=0, atol=1e-6)
    (only, _) = record.backward_jvp({}, d, (None, None), contexts, lses, return_lse=True)
    assert not any(x.any() for x in only)


# ---- what is wrong ----

QUERY = np.ones((5, 4))


def hvp(tangents=None, incoming=(None,) * 3, dincoming=(None,) * 3, arrays=(QUERY,) * 3, **own):
    return _core.dot_product_attention_hvp(tangents or {}, incoming, dincoming, *arrays, **own)


@pytest.mark.parametrize(
    ("kind", "message", "arguments"),
    [
        (ValueError, r"tangent of query must have the shape of query, \(5, 4\), got \(5, 3\)",
         {"tangents": {"query": np.ones((5, 3))}}),
        (ValueError, r"tangent of dcontext must have the shape of context, \(5, 4\), got \(4,\)",
         {"dincoming": (np.ones(4), None, None)}),
        (ValueError, r"dcontext must have the shape of context, \(5, 4\), got \(4,\)",
         {"incoming": (np.ones(4), None, None)}),
        (ValueError, "tangent of dlse must be None unless return_lse=True was asked for",
         {"dincoming": (None, None, np.ones(5))}),
        (TypeError, "tangent of dcontext must hold real numbers",
         {"dincoming": (np.ones((5, 4), complex), None, None)}),
        (TypeError, "incoming must be a tuple of 3", {"incoming": (None, None)}),
        (TypeError, "dincoming must be a tuple of 3", {"dincoming": None}),
        (TypeError, "tangents must be a dict", {"tangents": [1]}),
        (TypeError, "tangents must be named as", {"tangents": {"mask": QUERY}}),
        (ValueError, "tangent of scale must be None", {"tangents": {"scale": np.array(1.0)}}),
    ],
)  # fmt: skip
def test_errors(kind, message, arguments):
    with pytest.raises(kind, match=f"^dot_product_attention: {message}"):
        hvp(**arguments)


def test_too_few_arguments():
    with pytest.raises(TypeError, match="^dot_product_attention: hvp takes a dict"):
        _core.dot_product_attention_hvp({}, ())


def test_a_forced_key_that_is_not_there():
    arguments = np.zeros((1, 2)), np.zeros((2, 3)), True, np.array([1]), 0
    mask = np.array([[True, False]])
    with pytest.raises(ValueError, match="^hard_attention: index must be a key that its query may"):
        _core.hard_attention_hvp({}, (None,) * 3, (None,) * 3, *arguments, mask=mask)


# ---- memory that runs out, references ----


@pytest.fixture
def no_failures():
    yield
    _core.fail_allocation(0)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        (name, option)
        for name in FUNCTIONS
        for option in ("bias by key", "packed", "entmax15")
        if not (name == "attend" and option == "packed")
    ],
)
def test_memory_runs_out_anywhere(name, option, no_failures, rng):
    """At the first allocation, at the second, ...: MemoryError, and the next call is right."""
    sizes = {"Tq": 120, "Tk": 260, "D": 40, "Dv": 80, "leads": ((1,), (2,), (2,))}
    arrays, own = inputs(name, rng, np.float32, **sizes)
    own |= {
        "packed": {"query_offsets": np.array([0, 2, 120]), "key_offsets": np.array([0, 9, 260])},
        "entmax15": {"normalizer": "entmax15"},
    }.get(option) or options(option, rng, np.float32, **sizes)
    function = getattr(functional, name)
    given = with_directions(function, arrays, own, rng)
    expected = second(*given)
    kept = [x for of in given[1:] for x in of.values() if isinstance(x, np.ndarray)]
    got = run_out_of_memory(lambda: second(*given), kept, least=5)
    assert_same(got, expected)


def test_calls_keep_no_reference(rng):
    function, real, rest, *of = problem("dot_product_attention", rng, "everything")
    kept = [x for d in (real, rest, *of) for x in d.values() if isinstance(x, np.ndarray)]
    before = [sys.getrefcount(x) for x in kept]
    for _ in range(20):
        second(function, real, rest, *of)
        with pytest.raises(ValueError, match="tangent of query"):
            second(function, real, rest, {**of[0], "query": np.zeros((1, 1))}, *of[1:])
    gc.collect()
    assert [sys.getrefcount(x) for x in kept] == before


@needs_proc
@pytest.mark.parametrize("name", ["dot_product_attention", "cosine_attention"])
def test_memory_grows_with_the_length(name):
    """MB: one array of all pairs would take 64."""
    arrays = "x = ones(1, 4000, 16); d = (x, None, None)"
    call = (
        "attnc.registry.record_of(attnc." + name + ").backward_jvp("
        "{'query': x, 'key': x, 'value': x}, d, d, x, x, x)"
    )
    assert peak_memory(call, arrays) < 24


# ---- what no other number meets ----


def test_an_incoming_nan_of_a_chosen_key_stays_in_its_pairs():
    scores, value = np.zeros((2, 3)), np.eye(3)
    mask = np.array([[True, True, False], [True, True, True]])
    found = attnc.hvp(
        attnc.hard_attention,
        (scores, value),
        {"scores": np.ones((2, 3))},
        (None, np.array([np.nan, 0]), None),
        mask=mask,
        index=np.array([0, 0]),
        softcap=2.0,
    )
    assert found.scores[0, 2] == 0 and np.isfinite(found.scores[1]).all()


@pytest.mark.parametrize("renormalize", [False, True])
def test_a_center_that_moves_by_nan_stays_in_its_pairs(renormalize):
    query, key, value = np.ones((2, 2)), np.ones((3, 2)), np.eye(3)
    options = {"center": np.ones(2), "window": (2, 2), "sigma": 2.0, "renormalize": renormalize}
    tangents = {"center": np.array([np.nan, 0])}

    def hvp(mask, **more):
        arrays, mask = (query, key, value), np.array(mask)
        return attnc.hvp(
            attnc.dot_product_attention,
            arrays,
            tangents,
            np.ones((2, 3)),
            mask=mask,
            **options,
            **more,
        )

    found = hvp([[True, True, False], [True, True, True]])
    assert np.isfinite(found.value[2]).all() and np.isfinite(found.key[2]).all()
    found = hvp([[False] * 3, [True] * 3], sink=np.array(0.5))  # one without keys feels nothing
    assert all(np.isfinite(x).all() for x in vars(found).values())


@pytest.mark.parametrize("normalizer", ["sparsemax", "entmax15"])
def test_a_tangent_of_nan_of_a_key_without_weight_stays_there(normalizer):
    """The softcap bends what is not felt."""
    scores, tangent = np.array([[3.0, 0.0, 2.9]]), np.array([[1.0, np.nan, 0.5]])
    options = {"normalizer": normalizer, "softcap": 20.0}
    assert attnc.attend(scores, return_weights=True, value=np.eye(3), **options).weights[0, 1] == 0
    found = attnc.hvp(
        attnc.attend, (scores, np.eye(3)), {"scores": tangent}, np.array([[1.0, 2, 3]]), **options
    )
    assert np.isfinite(found.scores).all() and found.scores[0, 1] == 0
    assert np.isfinite(found.value).all() and found.scores[0, 0] != 0

"""Forward mode of forward mode of attention, against PyTorch's own of the plain formula."""

import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from arrays import FUNCTIONS, LEADS, OPTIONS, inputs, lay_out, options  # noqa: E402
from checks import EVERYTHING, assert_agree, assert_close_like_naive  # noqa: E402
from second_order import arguments, directions, formula  # noqa: E402

import attnc  # noqa: E402
from attnc import functional, registry  # noqa: E402

# PyTorch's own, when it is first asked for forward mode of a derivative.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

SCORES = ["dot_product_scores", "multiplicative_scores", "additive_scores", "cosine_scores"]


def second(name, real, rest, u, w):
    """What the record has, by the names of outputs."""
    record = registry.record_of(getattr(functional, name))
    more = {n: x for n, x in real.items() if n not in record.required} | rest
    found = record.jvp_jvp(u, w, *(real[n] for n in record.required), **more)
    return found._asdict() if isinstance(found, tuple) else {record.incoming[0][1:]: found}


def by_torch(name, real, rest, u, w, dtype):
    """The same of the formula, in this dtype."""
    names = list(real)

    def tensors(arrays):
        return tuple(torch.tensor(np.asarray(arrays[n], dtype)) for n in names)

    def of(*values):
        return formula(name, dict(zip(names, values, strict=True)), dict(rest), real)

    def tangent(*values):
        return torch.func.jvp(of, values, tensors(u))[1]

    found = torch.func.jvp(tangent, tensors(real), tensors(w))[1]
    return {n: x.numpy() for n, x in found.items()}


def problem(name, option, rng, dtype=np.float64, **sizes):
    arrays, own = inputs(name.replace("_scores", "_attention"), rng, dtype, **sizes)
    if name.endswith("_scores"):
        arrays = (*arrays[:2], *arrays[3:])
    else:
        own = own | options(option, rng, dtype, **sizes) | EVERYTHING
    real, rest = arguments(getattr(functional, name), arrays, own)
    return name, real, rest, directions(rng, real), directions(rng, real)


def check(*call):
    """In float64, by the rule of what agrees; in float32, by the error of PyTorch's own."""
    name, real, *_ = call
    got = second(*call)
    exact = by_torch(*call, np.float64)
    single = all(x.dtype == np.float32 for n, x in real.items() if n != "center")
    usual = by_torch(*call, np.float32) if single else None
    for n, x in got.items():
        if single:
            assert_close_like_naive(x, exact[n], usual[n], what=f"{name}: {n}")
        else:
            assert_agree(x, exact[n], n)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_options(name, option, rng):
    check(*problem(name, option, rng))


@pytest.mark.parametrize("option", ["none", "everything", "center and others", "sink"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32(name, option, rng):
    check(*problem(name, option, rng, np.float32))


@pytest.mark.parametrize("leads", LEADS, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_leads(name, leads, rng):
    check(*problem(name, "bias for all leads", rng, leads=leads))


@pytest.mark.parametrize("normalizer", ["sparsemax", "entmax15"])
@pytest.mark.parametrize("option", ["none", "mask", "softcap", "bias by key", "slope", "dropout"])
def test_sparse(option, normalizer, rng):
    name, real, rest, u, w = problem("dot_product_attention", option, rng)
    del rest["return_lse"]
    check(name, real, rest | {"normalizer": normalizer}, u, w)


@pytest.mark.parametrize("name", SCORES)
def test_scores(name, rng, dtype):
    call = problem(name, None, rng, dtype)
    call[2].update(causal=True, causal_offset=np.array([1, 3]))
    check(*call)


@pytest.mark.parametrize("sizes", [{"Tq": 0}, {"Tk": 0}, {"Dv": 0}], ids=str)
def test_nothing(sizes, rng):
    check(*problem("dot_product_attention", "none", rng, **sizes))


@pytest.mark.parametrize("layout", ["Fortran", "sliced", "repeated", "unaligned", "byte-swapped"])
def test_layouts(layout, rng):
    name, real, rest, *moves = problem("dot_product_attention", "bias", rng)
    laid = [{n: lay_out(layout, x) for n, x in given.items()} for given in (real, *moves)]
    copied = [{n: np.array(x, float, order="C") for n, x in given.items()} for given in laid]
    expected = second(name, copied[0], rest, *copied[1:])
    for n, x in second(name, laid[0], rest, *laid[1:]).items():
        assert_agree(x, expected[n], n)


def test_what_is_masked_is_not_read(rng):
    """NaN in keys and values that are masked, and in their tangents, is in no output."""
    name, real, rest, u, w = problem("additive_attention", "none", rng)
    rest["key_mask"] = np.array([True, False, True, True, False, True, True])[None].repeat(2, 0)
    rest["query_lengths"] = np.array([5, 3])
    expected = second(name, real, rest, u, w)
    for given in (real, u, w):
        for n in ("key", "value"):
            given[n][:, [1, 4]] = np.nan
        given["query"][1, 3:] = np.nan
    for n, x in second(name, real, rest, u, w).items():
        assert np.isfinite(x).all() and np.abs(x).max() > 0
        assert_agree(x, expected[n], n)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_query_that_attends_to_nothing(name, rng):
    mask = np.ones((1, 5, 7), bool)
    mask[:, 2] = False
    call = problem(name, "none", rng)
    call[2]["mask"] = mask
    for n, x in second(*call).items():
        assert np.isfinite(x).all() and not x[:, 2].any() and x[:, 1].any(), n


def test_a_vector_of_zeros_has_no_direction(rng):
    """Its cosines are 0, whatever its tangents."""
    name, real, rest, u, w = problem("cosine_scores", None, rng)
    real["query"][0, 0] = 0
    found = second(name, real, rest, u, w)["scores"]
    assert np.isfinite(found).all() and not found[0, 0].any() and found[0, 1].all()


def test_bfloat16(rng):
    """Computed in float32, and rounded once."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    name, real, rest, u, w = problem("dot_product_attention", "causal", rng, np.float32)
    real, u, w = ({n: x.astype(bfloat16) for n, x in given.items()} for given in (real, u, w))
    wide = [{n: x.astype(np.float32) for n, x in given.items()} for given in (real, u, w)]
    expected = second(name, wide[0], rest, *wide[1:])
    for n, x in second(name, real, rest, u, w).items():
        assert x.dtype == (np.float32 if n == "lse" else bfloat16)
        np.testing.assert_array_equal(x, expected[n].astype(x.dtype))


def test_packed_is_that_of_each_sequence(rng):
    offsets = np.array([0, 3, 3, 8])
    arrays, u, w = ([rng.standard_normal((8, 4)) for _ in range(3)] for _ in range(3))
    record = registry.record_of(attnc.dot_product_attention)
    names, more = record.required, {"causal": True, "return_lse": True}

    def of(s, **options):
        u_of, w_of = ({n: x[s] for n, x in zip(names, t, strict=True)} for t in (u, w))
        return record.jvp_jvp(u_of, w_of, *(x[s] for x in arrays), **more, **options)

    whole = of(slice(None), query_offsets=offsets)
    for s in (slice(0, 3), slice(3, 8)):
        for x, y in zip(whole, of(s), strict=True):
            assert_agree(x[s], y, str(s))


@pytest.mark.parametrize("normalizer", ["sparsemax", "entmax15"])
def test_a_score_at_the_threshold_is_outside(normalizer):
    """As for the other passes: whole scores often lie just there."""
    record = registry.record_of(attnc.attend)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores, value = np.round(rng.standard_normal((1, 6))), rng.standard_normal((6, 3))
        u, w, g = (rng.standard_normal(shape) for shape in ((1, 6), (1, 6), (1, 3)))
        u, w, options = {"scores": u}, {"scores": w}, {"normalizer": normalizer}
        found = record.jvp_jvp(u, w, scores, value, **options)
        incoming = (g, *record.others), (None, *record.others)
        moved = record.backward_jvp(u, *incoming, scores, value, **options)[0]
        np.testing.assert_allclose((found * g).sum(), (moved * w["scores"]).sum(), atol=1e-11)


def test_padding_takes_no_more_memory():
    """A NaN in a key that nobody may attend to makes no array of pairs and channels."""
    record = registry.record_of(attnc.dot_product_attention)
    x = np.random.default_rng(0).standard_normal((1, 96, 64))
    peaks = []
    for fill in (0.0, np.nan):
        key = x.copy()
        key[:, 95:] = fill
        tracemalloc.start()
        found = record.jvp_jvp(
            {"query": x, "key": key}, {"query": x}, x, key, key, key_lengths=np.array([95])
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert np.isfinite(found).all()
    assert peaks[1] < 1.5 * peaks[0]


def test_rng_is_checked(rng):
    name, real, rest, u, w = problem("dot_product_attention", "none", rng)
    with pytest.raises(TypeError, match="^dot_product_attention: rng must"):
        second(name, real, rest | {"dropout": 0.5, "rng": np.array(7)}, u, w)

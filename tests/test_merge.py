"""merge_attention: attention over split keys, merged, is attention over all keys."""

import ml_dtypes
import numpy as np
import pytest
from arrays import FUNCTIONS, inputs
from checks import assert_agree, error

import attnc

CUTS = [(0, 7), (0, 3, 7), (0, 1, 2, 7), (0, 0, 4, 7)]  # one has a set without keys


def parts_of(name, arrays, own, cuts, mask=None):
    """The outputs over each set of keys."""
    outputs = []
    for start, end in zip(cuts, cuts[1:], strict=False):
        if name == "attend":
            scores, value = arrays
            part = [scores[..., start:end], value[..., start:end, :]]
        else:
            query, key, value, *parameters = arrays
            part = [query, key[..., start:end, :], value[..., start:end, :], *parameters]
        masks = {} if mask is None else {"mask": mask[..., start:end]}
        outputs.append(getattr(attnc, name)(*part, **own, **masks, return_lse=True))
    return [output.context for output in outputs], [output.lse for output in outputs]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_split_and_merged(name, cuts, rng):
    arrays, own = inputs(name, rng)
    mask = rng.random((2, 5, 7)) < 0.6
    mask[0, 0] = False  # a query without any key
    whole = getattr(attnc, name)(*arrays, **own, mask=mask, return_lse=True)
    merged = attnc.merge_attention(*parts_of(name, arrays, own, cuts, mask), return_lse=True)
    assert_agree(merged.context, whole.context)
    np.testing.assert_array_equal(merged.lse[0, 0], -np.inf)
    finite = np.isfinite(whole.lse)
    assert_agree(np.where(finite, merged.lse, 0), np.where(finite, whole.lse, 0))


def test_as_exact_as_attention(rng):
    arrays, own = inputs("dot_product_attention", rng, np.float32, Tk=60)
    exact = attnc.reference.dot_product_attention(*arrays)
    merged = attnc.merge_attention(*parts_of("dot_product_attention", arrays, own, (0, 20, 60)))
    assert merged.dtype == np.float32
    assert error(merged, exact) <= 2 * error(attnc.dot_product_attention(*arrays), exact) + 1e-7


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=str)
def test_gradients(lead, rng):
    """By central differences in a random direction of all contexts and lses at once."""
    contexts, lses = rng.standard_normal((3, *lead, 5, 4)), rng.standard_normal((3, *lead, 5))
    lses[1, ..., 2] = -np.inf
    output, pullback = attnc.vjp(attnc.merge_attention, contexts, lses, return_lse=True)
    dcontext, dlse = rng.standard_normal(output.context.shape), rng.standard_normal((*lead, 5))
    dcontexts, dlses = pullback(dcontext, dlse=dlse)
    assert len(dcontexts) == len(dlses) == 3
    assert not dlses[1][..., 2].any() and not dcontexts[1][..., 2, :].any()
    tc, tl, h = rng.standard_normal(contexts.shape), rng.standard_normal(lses.shape), 1e-6

    def objective(step):
        got = attnc.merge_attention(contexts + step * tc, lses + step * tl, return_lse=True)
        return (got.context * dcontext).sum() + (got.lse * dlse).sum()

    numeric = (objective(h) - objective(-h)) / (2 * h)
    analytic = (np.array(dcontexts) * tc).sum() + (np.array(dlses) * tl).sum()
    assert abs(numeric - analytic) < 1e-7 * max(1, abs(analytic))


def test_through_attention(rng):
    """Split, attend, merge, and back: the gradients of attention over all keys."""
    (query, key, value), _ = inputs("dot_product_attention", rng)
    context, pullback = attnc.vjp(attnc.dot_product_attention, query, key, value)
    dcontext = rng.standard_normal(context.shape)
    expected = pullback(dcontext)

    outputs, backs = zip(
        *(
            attnc.vjp(attnc.dot_product_attention, query, key[:, s], value[:, s], return_lse=True)
            for s in (slice(0, 3), slice(3, 7))
        ),
        strict=True,
    )
    _, back = attnc.vjp(
        attnc.merge_attention, [o.context for o in outputs], [o.lse for o in outputs]
    )
    dparts = back(dcontext)
    got = [b(dc, dlse=dl) for b, dc, dl in zip(backs, *dparts, strict=True)]
    assert_agree(sum(g.query for g in got), expected.query)
    assert_agree(np.concatenate([g.key for g in got], axis=1), expected.key)
    assert_agree(np.concatenate([g.value for g in got], axis=1), expected.value)


def test_a_set_without_keys_is_not_read(rng):
    contexts, lses = rng.standard_normal((2, 3, 4)), np.array([[0.0] * 3, [-np.inf] * 3])
    contexts[1] = np.nan
    merged, pullback = attnc.vjp(attnc.merge_attention, contexts, lses)
    np.testing.assert_array_equal(merged, contexts[0])
    dcontexts, dlses = pullback(np.ones((3, 4)))
    assert not dcontexts[1].any() and not np.isnan(dlses).any()


def test_nan_reaches_its_query_alone(rng):
    contexts, lses = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3))
    lses[0, 1] = np.nan
    merged = attnc.merge_attention(contexts, lses)
    np.testing.assert_array_equal(np.isnan(merged).all(axis=1), [False, True, False])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes(dtype):
    """The context has the dtype of the contexts; an lse is never rounded to half precision."""
    wide = np.result_type(dtype, np.float32)
    contexts, lses = [np.ones((2, 3), dtype)] * 2, [np.zeros(2, wide)] * 2
    output, pullback = attnc.vjp(attnc.merge_attention, contexts, lses, return_lse=True)
    gradients = pullback(output.context, dlse=output.lse)
    for array, expected in (
        (output.context, dtype),
        (output.lse, wide),
        *((gradient, dtype) for gradient in gradients.contexts),
        *((gradient, wide) for gradient in gradients.lses),
    ):
        assert array.dtype == expected and array.flags.c_contiguous


HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_parts_in_half_precision_are_as_exact_as_all_at_once(half, rng):
    query, key, value = (
        (scale * rng.standard_normal((64, 64))).astype(half) for scale in (8, 1, 1)
    )
    exact = attnc.dot_product_attention(*(x.astype(float) for x in (query, key, value)))
    at_once = attnc.dot_product_attention(query, key, value)
    cuts = (slice(0, 10), slice(10, 40), slice(40, 64))
    parts = [attnc.dot_product_attention(query, key[s], value[s], return_lse=True) for s in cuts]
    assert all(part.lse.dtype == np.float32 and part.context.dtype == half for part in parts)
    merged, lse = attnc.merge_attention(
        [part.context for part in parts], [part.lse for part in parts], return_lse=True
    )
    assert merged.dtype == half and lse.dtype == np.float32
    # Each part was rounded once more than the whole.
    assert error(merged.astype(float), exact) <= 2 * error(at_once.astype(float), exact)


def test_scores_beyond_float16():
    query, key = np.full((1, 4), 200, np.float16), np.array([[200] * 4, [199] * 4], np.float16)
    value = np.array([[1], [3]], np.float16)
    parts = [
        attnc.dot_product_attention(query, key[[s]], value[[s]], scale=1, return_lse=True)
        for s in (0, 1)
    ]
    merged = attnc.merge_attention([p.context for p in parts], [p.lse for p in parts])
    np.testing.assert_array_equal(merged, [[1]])


def test_nothing_comes_in():
    _, pullback = attnc.vjp(attnc.merge_attention, [ONE], [ONE[:, 0]], return_lse=True)
    with pytest.raises(TypeError, match="^merge_attention: pullback must get dcontext or dlse"):
        pullback()


ONE = np.ones((2, 3))


@pytest.mark.parametrize(
    ("contexts", "lses", "kind", "message"),
    [
        (ONE, ONE, ValueError, r"contexts\[0\] must have at least 2 axes .* got shape \(3,\)"),
        ([], [], ValueError, "lses must hold one array for each of contexts, and at least one"),
        ([ONE], [ONE[:, 0]] * 2, ValueError, "got 1 contexts and 2 lses"),
        ([ONE, ONE.T], [ONE[:, 0]] * 2, ValueError, r"contexts\[1\] must have shape \(2, 3\)"),
        ([ONE], [ONE], ValueError, r"lses\[0\] must have shape \(2,\), as contexts\[0\] has"),
        (3, [ONE], TypeError, "contexts must be a sequence of arrays, got int"),
        ([1j * ONE], [ONE[:, 0]], TypeError, r"contexts\[0\] must be real, got complex128"),
        ([np.ma.array(ONE)], [ONE[:, 0]], TypeError, r"contexts\[0\] must be a plain array"),
    ],
)
def test_errors(contexts, lses, kind, message):
    with pytest.raises(kind, match=f"^merge_attention: .*{message}"):
        attnc.merge_attention(contexts, lses)


def test_a_flag_that_is_none():
    with pytest.raises(
        TypeError, match="^merge_attention: return_lse must be True or False, got 1"
    ):
        attnc.merge_attention([ONE], [ONE[:, 0]], return_lse=1)


def test_errors_of_gradients():
    _, pullback = attnc.vjp(attnc.merge_attention, [ONE], [ONE[:, 0]], return_lse=True)
    with pytest.raises(ValueError, match=r"dcontext must have the shape of its output, \(2, 3\)"):
        pullback(ONE.T)
    with pytest.raises(ValueError, match=r"dlse must have the shape of its output, \(2,\)"):
        pullback(ONE, dlse=ONE)
    _, pullback = attnc.vjp(attnc.merge_attention, [ONE], [ONE[:, 0]])
    with pytest.raises(ValueError, match="dlse"):
        pullback(ONE, dlse=ONE[:, 0])


def test_everything_is_named(rng):
    output, pullback = attnc.vjp(attnc.merge_attention, [ONE], lses=[ONE[:, 0]], return_lse=True)
    gradients = pullback(output.context)
    assert set(vars(gradients)) == {"contexts", "lses"} and len(gradients) == 2
    assert "contexts: (float64 (2, 3))" in repr(gradients)


def test_an_array_of_no_axes():
    with pytest.raises(TypeError, match="merge_attention: contexts must be a sequence of arrays"):
        attnc.merge_attention(np.array(3.0), np.array(3.0))

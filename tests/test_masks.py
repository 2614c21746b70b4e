"""Who may attend to whom, and that nothing is read of whom one may not attend to."""

import numpy as np
import pytest
from arrays import FUNCTIONS, OPTIONS, inputs, options
from checks import EVERYTHING, assert_same, check, evaluate, incoming

import attnc


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_options(name, option, dtype, isa, rng):
    leads = {"leads": ((2, 1), (1, 3), (2, 3))}
    arrays, own = inputs(name, rng, dtype, **leads)
    check(name, arrays, {**own, **options(option, rng, dtype, **leads)}, rng)


# One tile has them all, several have some each: here the tiles of a kernel differ in their masks.
@pytest.mark.parametrize("option", [option for option in OPTIONS if option != "none"])
def test_options_over_several_tiles(option, isa, rng):
    sizes = {"Tq": 70, "Tk": 150, "D": 3, "Dv": 5}
    arrays, own = inputs("dot_product_attention", rng, np.float32, **sizes)
    own = options(option, rng, np.float32, **sizes)
    check("dot_product_attention", arrays, own, rng)


WINDOWS = [(0, 0), (5, 70), (64, 0), (None, 3), (100, None), (2**62, 1)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("offset", [None, 0, -40, 90, -1000, 1000])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows_over_several_tiles(window, offset, causal, isa, rng):
    arrays, _ = inputs("attend", rng, np.float32, Tq=70, Tk=150, leads=((), (), ()))
    check("attend", arrays, {"window": window, "causal_offset": offset, "causal": causal}, rng)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_offsets_of_any_size(name, dtype, isa, rng):
    """Beyond the last key a query sees all of them, before the first none."""
    arrays, own = inputs(name, rng, dtype)
    function = getattr(attnc, name)
    everything = function(*arrays, **own, **EVERYTHING)
    nothing = function(*arrays, **own, key_lengths=0, **EVERYTHING)
    for far in (100, 2**62, 2**100, np.uint64(2**64 - 1), np.full(1, 2**64 - 1, np.uint64)):
        seen = function(*arrays, **own, causal=True, causal_offset=far, **EVERYTHING)
        assert_same(tuple(seen), tuple(everything))
    for far in (-100, -(2**62), -(2**100), np.full(1, -(2**63))):
        seen = function(*arrays, **own, causal=True, causal_offset=far, **EVERYTHING)
        assert_same(tuple(seen), tuple(nothing))


@pytest.mark.parametrize("Tk", [0, 7])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_queries_without_keys(name, Tk, dtype, isa, rng):
    """Context 0, weights 0, lse -inf, and exactly 0 in every gradient."""
    arrays, own = inputs(name, rng, dtype, Tk=Tk)
    own["bias"] = rng.standard_normal((2, 5, Tk)).astype(dtype)
    output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own, key_lengths=0, **EVERYTHING)
    for x, expected in zip(output, (0, 0, -np.inf), strict=True):
        np.testing.assert_array_equal(x, expected)
    gradients = pullback(**incoming(rng, output, dtype))
    for field, gradient in vars(gradients).items():
        np.testing.assert_array_equal(gradient, 0, err_msg=field)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_query_without_keys(name, dtype, isa, rng):
    """It changes nothing for the others: they have the bits they have without it."""
    arrays, own = inputs(name, rng, dtype)
    mask = np.ones((1, 5, 1), bool)
    mask[0, 4] = False
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    output, gradients = evaluate(name, arrays, {**own, "mask": mask}, d)
    query_gradient = gradients["scores" if name == "attend" else "query"]
    np.testing.assert_array_equal(query_gradient[:, 4], 0)

    shorter = [arrays[0][:, :4], *arrays[1:]]
    d = {field: x[:, :4] for field, x in d.items()}
    others, other_gradients = evaluate(name, shorter, own, d)
    for x, y in zip(output, others, strict=True):
        np.testing.assert_array_equal(x[:, :4], y)
    for field in set(gradients) & {"key", "value"}:
        np.testing.assert_array_equal(gradients[field], other_gradients[field])


# ---- What is masked is not read ------------------------------------------------------------------


def by_key(name, arrays):
    """Views of what belongs to a key, by (element, key): its scores or itself, and its value."""
    return (arrays[0].swapaxes(1, 2), arrays[1]) if name == "attend" else arrays[1:3]


HERE = np.ones((2, 1, 70), bool)  # keys 3 and 64 of element 0 are padding, and the end of element 1
HERE[0, 0, [3, 64]] = HERE[1, 0, 50:] = False
PADDING = {
    "mask": {"mask": HERE},
    "key_mask": {"key_mask": HERE[:, 0]},
    "bias": {"bias": np.where(HERE, 0.5, -np.inf)},
    "lengths and mask": {"key_lengths": np.array([70, 50]), "mask": HERE.repeat(33, axis=1)},
}


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", PADDING)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_poison_in_padding(name, how, poison, dtype, isa, rng):
    """All is finite, and the gradients of the padding are exactly 0."""
    arrays, own = inputs(name, rng, dtype, Tq=33, Tk=70)
    own |= PADDING[how]
    if how == "bias":
        own["bias"] = own["bias"].astype(dtype)
    for x in by_key(name, arrays):
        x[~HERE[:, 0]] = poison
    output, gradients = check(name, arrays, own, rng)
    assert all(np.isfinite(x).all() for x in (*output, *vars(gradients).values()))
    for gradient in by_key(name, gradients):
        np.testing.assert_array_equal(gradient[~HERE[:, 0]], 0)


@pytest.mark.parametrize("option", ["causal", "window and causal"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_that_only_some_attend_to(name, option, dtype, isa, rng):
    """A NaN reaches those who attend to it, in every output and gradient, and nobody else."""
    arrays, own = inputs(name, rng, dtype, Tq=40, Tk=70)
    by_key(name, arrays)[0][0, 60] = np.nan
    output, _ = check(name, arrays, {**own, **options(option, rng)}, rng)
    nan = np.isnan(output.lse)
    assert nan.any() and not nan.all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_in_an_attended_value(name, dtype, isa, rng):
    arrays, own = inputs(name, rng, dtype)
    by_key(name, arrays)[1][0, 3, 1] = np.nan
    output, _ = check(name, arrays, {**own, "causal": True}, rng)
    assert np.isnan(output.context[0, 1:, 1]).all() and np.isfinite(output.context[0, 0]).all()
    assert np.isfinite(output.weights).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_poison_where_a_query_attends_to_nothing(name, poison, dtype, isa, rng):
    """In the query, in the bias, and in the gradients that come in for it."""
    arrays, own = inputs(name, rng, dtype)
    own["mask"] = np.ones((2, 5, 7), bool)
    own["mask"][1, 2] = False
    own["bias"] = rng.standard_normal((2, 5, 7)).astype(dtype)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    for x in (arrays[0], own["bias"], *d.values()):
        x[1, 2] = poison
    _, gradients = check(name, arrays, own, rng, d)
    for field, gradient in vars(gradients).items():
        assert np.isfinite(gradient).all(), field
    np.testing.assert_array_equal(gradients[0][1, 2], 0)
    np.testing.assert_array_equal(gradients.bias[1, 2], 0)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("option", ["none", "bias", "causal by lead", "dropout", "everything"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_poison_in_padded_queries(name, option, poison, dtype, isa, rng):
    """In the query, the bias, and the gradients that come in for it: it reaches nothing."""
    sizes = {"Tq": 120, "Tk": 210}
    arrays, own = inputs(name, rng, dtype, **sizes)
    own |= options(option, rng, dtype, **sizes)
    own["query_lengths"] = np.array([70, 0])
    padded = np.arange(120) >= own["query_lengths"][:, None]
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    clean, clean_gradients = evaluate(name, arrays, own, d)
    for x in (arrays[0], *d.values(), *([own["bias"]] if "bias" in own else [])):
        x[padded] = poison
    output, gradients = check(name, arrays, own, rng, d)
    assert_same(tuple(output), tuple(clean))
    assert_same(vars(gradients), clean_gradients)
    for x, expected in zip(output, (0, 0, -np.inf), strict=True):
        np.testing.assert_array_equal(x[padded], expected)
    np.testing.assert_array_equal(gradients[0][padded], 0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_padded_queries_change_nothing_for_the_others(name, dtype, isa, rng):
    """They have the bits that they have without them, and keys and values get the same."""
    arrays, own = inputs(name, rng, dtype, Tq=120, Tk=210)
    own |= {"causal": True, "causal_offset": 100, "dropout": 0.3, "rng": 5}
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    output, gradients = evaluate(name, arrays, {**own, "query_lengths": 70}, d)
    shorter = [arrays[0][:, :70], *arrays[1:]]
    others, other_gradients = evaluate(name, shorter, own, {f: x[:, :70] for f, x in d.items()})
    assert_same(tuple(x[:, :70] for x in output), tuple(others))
    assert_same(gradients["value"], other_gradients["value"])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_in_gradients_of_excluded_weights(name, dtype, isa, rng):
    arrays, own = inputs(name, rng, dtype)
    own["mask"] = rng.random((2, 5, 7)) < 0.6
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    _, clean = evaluate(name, arrays, own, d)
    d["dweights"][~own["mask"]] = np.nan
    _, gradients = evaluate(name, arrays, own, d)
    for field, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, clean[field], err_msg=field)


# ---- Only a mask, or a literal -inf in the bias, excludes ----------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bias_of_the_lowest_number_excludes_nothing(name, dtype, isa, rng):
    """Where all keys have it they share the weight; where some have it they get none."""
    arrays, own = inputs(name, rng, dtype)
    lowest = np.finfo(dtype).min
    output, _ = check(name, arrays, {**own, "bias": np.full((1, 1, 1), lowest)}, rng)
    np.testing.assert_allclose(output.weights, 1 / 7, rtol=4 * np.finfo(dtype).eps)
    assert (output.lse == lowest).all()
    some = np.where(np.arange(7) < 3, lowest, 0).astype(dtype).reshape(1, 1, 7)
    output, _ = check(name, arrays, {**own, "bias": some}, rng)
    np.testing.assert_array_equal(output.weights[..., :3], 0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_weights_of_a_nan_row_in_tiles_it_does_not_see(name, dtype, isa, rng):
    """They are 0, as those of any excluded pair; in the window they are NaN."""
    arrays, own = inputs(name, rng, dtype, Tk=700)
    bias = np.zeros((2, 5, 700), dtype)
    bias[1, 2, 5] = np.nan
    own |= {"bias": bias, "window": (9, 0), "causal_offset": 5}
    output, _ = check(name, arrays, own, rng)
    assert np.isnan(output.weights[1, 2, :8]).all()
    np.testing.assert_array_equal(output.weights[1, 2, 8:], 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_and_inf_in_the_bias_make_their_row_nan(name, bad, dtype, isa, rng):
    arrays, own = inputs(name, rng, dtype)
    bias = rng.standard_normal((2, 5, 7)).astype(dtype)
    bias[0, 3, 6] = bad
    output, _ = check(name, arrays, {**own, "bias": bias}, rng)
    assert np.isnan(output.context[0, 3]).all() and np.isnan(output.lse[0, 3])
    assert np.isfinite(output.context[1]).all() and np.isfinite(output.context[0, 4]).all()

"""Random calls: function, options, shapes, layouts, dtypes, threads, all drawn together.

`pytest --cases 20000` draws more of them, and other ones each time.
"""

import numpy as np
import pytest
from arrays import FUNCTIONS, LAYOUTS, LEADS, inputs, lay_out, options
from checks import EVERYTHING, assert_same, check, evaluate, incoming
from hypothesis import given, note, settings
from hypothesis import strategies as st

import attnc
from attnc import _core

MANY = settings.get_profile("properties")  # conftest.py

# The first of each is what a failing case is reduced to.
SIZES = {
    "Tq": (1, 2, 3, 5, 0, 15, 16, 17, 49, 97),
    "Tk": (2, 1, 3, 7, 0, 16, 17, 33, 65, 130, 193, 257, 600),
    "D": (2, 3, 5, 8, 16, 17, 40, 130),
    "Dv": (1, 2, 3, 0, 16, 17, 33, 70),
}
MOST_PAIRS = 20_000  # of a case, over all leading axes

# One of each group, together.
MASKS = ("none", "mask", "mask by key", "mask by query", "mask for all leads", "mask of zeros")
KEY_MASKS = ("none", "key_mask", "key_mask for all leads")
LENGTHS = ("none", "key_lengths", "key_lengths for all leads", "key_lengths of one int")
QUERY_LENGTHS = tuple(option.replace("key", "query") for option in LENGTHS)
BIASES = ("none", "bias", "bias by key", "bias by query", "bias for all leads", "bias for all")
BIASES += ("bias with -inf",)
POSITIONS = ("none", "causal", "causal from key 0", "causal before key 0", "causal by lead")
POSITIONS += ("window", "window of one key", "window open left", "window by lead")
POSITIONS += ("window without end", "window and causal")
CAPS, DROPOUTS = ("none", "softcap"), ("none", "dropout")
SLOPES = ("none", "slope", "slope of one number", "slope without axes", "slope by lead")
SINKS = ("none", "sink", "sink for all leads", "sink without axes", "sink with -inf")
ANYTHING = (
    MASKS,
    KEY_MASKS,
    LENGTHS,
    QUERY_LENGTHS,
    BIASES,
    POSITIONS,
    CAPS,
    SLOPES,
    SINKS,
    DROPOUTS,
)


@st.composite
def cases(draw, groups=ANYTHING, leads=LEADS):
    """(name, sizes, names of options, seed)."""
    name = draw(st.sampled_from(FUNCTIONS))
    sizes = {axis: draw(st.sampled_from(choice)) for axis, choice in SIZES.items()}
    sizes["leads"] = draw(st.sampled_from(leads))
    pairs = sizes["Tq"] * sizes["Tk"] * np.prod(np.broadcast_shapes(*sizes["leads"]))
    if pairs > MOST_PAIRS:
        sizes["Tq"] = 2
    chosen = [draw(st.sampled_from(group)) for group in groups]
    return name, sizes, chosen, draw(st.integers(0, 2**32 - 1))


def made(case, dtype):
    """The arrays and options of a case, and the random numbers that follow."""
    name, sizes, chosen, seed = case
    rng = np.random.default_rng(seed)
    arrays, own = inputs(name, rng, dtype, **sizes)
    for option in chosen:
        own |= options(option, rng, dtype, **sizes)
    return list(arrays), own, rng


DTYPES = st.sampled_from([np.float32, np.float64])


@MANY
@given(
    case=cases(),
    dtype=DTYPES,
    isa=st.sampled_from(_core.isa_names()),
    threads=st.integers(1, 5),
    layouts=st.lists(st.sampled_from(["plain", *LAYOUTS]), min_size=1, max_size=5),
    asked=st.sets(st.sampled_from(["return_weights", "return_lse"])),
)
def test_any_call(case, dtype, isa, threads, layouts, asked):
    """Against the reference; then the same bits in other layouts, threads, outputs."""
    name, *_ = case
    arrays, own, rng = made(case, dtype)
    before = _core.get_isa()
    _core.set_isa(isa)
    try:
        function = getattr(attnc, name)
        d = incoming(rng, function(*arrays, **own, **EVERYTHING), dtype)
        output, gradients = check(name, arrays, own, rng, d)

        kinds = [layout for layout in layouts if layout not in ("plain", "repeated")] or ["sliced"]
        note(f"layouts {kinds}")

        def laid_out(xs):
            return {key: lay_out(kinds[k % len(kinds)], x) for k, (key, x) in enumerate(xs.items())}

        arrays = list(laid_out(dict(enumerate(arrays))).values())
        with attnc.set_num_threads(threads):
            other, other_gradients = evaluate(name, arrays, laid_out(own), laid_out(d))
            assert_same(tuple(other), tuple(output))
            assert_same(other_gradients, vars(gradients))
            some = function(*arrays, **own, **dict.fromkeys(asked, True))
        assert_same(some.context if asked else some, output.context)
    finally:
        _core.set_isa(before)


@MANY
@given(case=cases(), dtype=st.sampled_from(["float16", "bfloat16"]))
def test_half_precision(case, dtype):
    """What is stored in 16 bits is computed in float32, and the results are rounded once; the lse,
    which may be merged, not at all."""
    dtype = np.dtype(dtype) if dtype == "float16" else bfloat16()
    name, *_ = case
    arrays, own, rng = made(case, np.float32)

    def half(x):
        is_real = isinstance(x, np.ndarray) and x.dtype == np.float32
        return x.astype(dtype) if is_real else x

    def single(x):
        return x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype == dtype else x

    arrays, own = [half(x) for x in arrays], {key: half(x) for key, x in own.items()}
    wide = [single(x) for x in arrays], {key: single(x) for key, x in own.items()}
    d = incoming(rng, getattr(attnc, name)(*wide[0], **wide[1], **EVERYTHING), np.float32)
    d = {key: half(x) for key, x in d.items()}
    output, gradients = evaluate(name, arrays, own, d)
    expected, expected_gradients = evaluate(name, *wide, {key: single(x) for key, x in d.items()})
    with np.errstate(over="ignore"):
        assert_same(tuple(output[:2]), tuple(x.astype(dtype) for x in expected[:2]))
        assert_same(output.lse, expected.lse)
        assert_same(gradients, {key: half(x) for key, x in expected_gradients.items()})


def bfloat16():
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)


# ---- what must not matter ------------------------------------------------------------------------

ONE_LEAD = (((2,), (2,), (2,)),)
PLACELESS = (MASKS, KEY_MASKS, BIASES, CAPS)  # nothing that knows where a key stands


def close(got, expected, what="result"):
    """float64, and the inputs are about 1."""
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9, err_msg=what)


def of_keys(name, arrays, own, change):
    """`change(array, axis)` of everything that has an axis of keys."""
    arrays, own = list(arrays), dict(own)
    first = 0 if name == "attend" else 1
    arrays[first] = change(arrays[first], -1 if name == "attend" else -2)
    arrays[first + 1] = change(arrays[first + 1], -2)
    for key in {"mask", "bias", "key_mask"} & own.keys():
        if own[key].shape[-1] != 1:
            own[key] = change(own[key], -1)
    return arrays, own


@MANY
@given(case=cases((*PLACELESS, SINKS), ONE_LEAD))
def test_order_of_keys(case):
    name, sizes, *_ = case
    arrays, own, rng = made(case, np.float64)
    order = rng.permutation(sizes["Tk"])
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING))

    def permuted(x, axis):
        return np.take(x, order, axis)

    others, other_own = of_keys(name, arrays, own, permuted)
    output, gradients = evaluate(name, arrays, own, d)
    got, got_gradients = evaluate(
        name, others, other_own, d | {"dweights": permuted(d["dweights"], -1)}
    )
    close(got.context, output.context)
    close(got.lse, output.lse)
    close(got.weights, permuted(output.weights, -1))
    for field, gradient in gradients.items():
        if field in ("key", "value"):
            gradient = permuted(gradient, -2)
        elif field == "scores" or field == "bias" and own["bias"].shape[-1] != 1:
            gradient = permuted(gradient, -1)
        close(got_gradients[field], gradient, field)


@MANY
@given(case=cases((MASKS, LENGTHS, BIASES, CAPS, SINKS), ONE_LEAD), more=st.integers(1, 70))
def test_longer_padding(case, more):
    """Keys that nobody may attend to, filled with NaN."""
    name, sizes, *_ = case
    arrays, own, rng = made(case, np.float64)
    Tk = sizes["Tk"]
    own.setdefault("key_lengths", Tk)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING))

    def padded(x, axis):
        shape = list(x.shape)
        shape[axis] = more
        poison = np.full(shape, np.nan if x.dtype == np.float64 else True, x.dtype)
        return np.concatenate([x, poison], axis)

    others, other_own = of_keys(name, arrays, own, padded)
    output, gradients = evaluate(name, arrays, own, d)
    got, got_gradients = evaluate(
        name, others, other_own, d | {"dweights": padded(d["dweights"], -1)}
    )
    close(got.context, output.context)
    close(got.lse, output.lse)
    assert not got.weights[..., Tk:].any()
    for field, gradient in gradients.items():
        x = got_gradients[field]
        if field in ("key", "value"):
            assert not x[:, Tk:].any()
            x = x[:, :Tk]
        elif x.shape != gradient.shape:
            assert not x[..., Tk:].any()
            x = x[..., :Tk]
        close(x, gradient, field)


@MANY
@given(
    case=cases((("mask", "mask by key", "mask by query"), POSITIONS, CAPS, SLOPES, SINKS, DROPOUTS))
)
def test_mask_and_bias_say_the_same(case):
    name, *_ = case
    arrays, own, rng = made(case, np.float32)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), np.float32)
    output, gradients = evaluate(name, arrays, own, d)
    bias = np.where(own.pop("mask"), 0, -np.inf).astype(np.float32)
    got, got_gradients = evaluate(name, arrays, {**own, "bias": bias}, d)
    assert_same(tuple(got), tuple(output))
    assert_same({field: got_gradients[field] for field in gradients}, gradients)


@MANY
@given(case=cases(ANYTHING[:-1], (((3,), (3,), (3,)), ((3,), (1,), (1,)), ((1,), (3,), (3,)))))
def test_one_head_at_a_time(case):
    name, *_ = case
    arrays, own, rng = made(case, np.float32)
    output = getattr(attnc, name)(*arrays, **own, **EVERYTHING)

    def head(x, n):
        shared = getattr(x, "shape", ())[:1] != (3,)
        return x if shared else x[n : n + 1]

    leading = 2 if name == "attend" else 3
    for n in range(3):
        alone = getattr(attnc, name)(
            *(head(x, n) for x in arrays[:leading]),
            *arrays[leading:],
            **{
                key: x if key in ("query_weight", "key_weight", "score_bias") else head(x, n)
                for key, x in own.items()
            },
            **EVERYTHING,
        )
        assert_same(tuple(alone), tuple(x[n : n + 1] for x in output))


@MANY
@given(case=cases((CAPS, SLOPES, SINKS), ONE_LEAD), cut=st.integers(1, 97))
def test_causal_prefix(case, cut):
    """What comes later changes nothing for a query that cannot see it."""
    name, *_ = case
    arrays, own, rng = made(case, np.float64)
    Tq, Tk = case[1]["Tq"], case[1]["Tk"]
    cut = min(cut, Tq)
    own |= {"causal": True, "causal_offset": 0}
    whole = getattr(attnc, name)(*arrays, **own, return_lse=True)
    end = min(cut, Tk)
    arrays, own = of_keys(name, arrays, own, lambda x, axis: np.take(x, np.arange(end), axis))
    arrays[0] = arrays[0][:, :cut]
    part = getattr(attnc, name)(*arrays, **own, return_lse=True)
    close(part.context, whole.context[:, :cut])
    close(part.lse, whole.lse[:, :cut])


@MANY
@given(case=cases(PLACELESS, ONE_LEAD), cut=st.integers(0, 600))
def test_split_and_merge(case, cut):
    name, *_ = case
    arrays, own, rng = made(case, np.float64)
    cut = min(cut, case[1]["Tk"])
    whole = getattr(attnc, name)(*arrays, **own, return_lse=True)
    parts = []
    for piece in (slice(0, cut), slice(cut, None)):
        some, some_own = of_keys(
            name,
            arrays,
            own,
            lambda x, axis, piece=piece: x[..., piece] if axis == -1 else x[..., piece, :],
        )
        parts.append(getattr(attnc, name)(*some, **some_own, return_lse=True))
    contexts, lses = zip(*parts, strict=True)
    merged = attnc.merge_attention(contexts, lses, return_lse=True)
    close(merged.context, whole.context)
    close(merged.lse, whole.lse)

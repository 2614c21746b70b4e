"""Packed batches: sequences of any length behind one another, each as a call of its own."""

import numpy as np
import pytest
from arrays import FUNCTIONS, LAYOUTS, inputs
from checks import assert_agree, assert_same, assert_unchanged, incoming
from hypothesis import given, settings
from hypothesis import strategies as st

import attnc
from attnc import reference

PACKED = tuple(name for name in FUNCTIONS if name != "attend")
packed = pytest.mark.parametrize("name", PACKED)
MANY = settings.get_profile("properties")  # conftest.py

QUERIES = [5, 0, 1, 60, 2, 130, 7, 40]  # of each sequence
KEYS = [7, 3, 600, 60, 530, 200, 0, 570]
PARAMETERS = ("scale", "weight", "score_vector", "query_weight", "key_weight", "score_bias")
PARAMETERS += ("slope", "sink")
# One of each group, together.
POSITIONS = {
    "none": {},
    "causal": {"causal": True},
    "causal from key 0": {"causal": True, "causal_offset": 0},
    "window": {"window": (3, 1)},
    "window and offset": {"window": (40, None), "causal_offset": np.int16(2)},
}
CAPS = {"none": {}, "softcap": {"softcap": 1.5}}
NUMBERS = {
    "none": {},
    "slope": {"slope": np.array(0.2)},
    "sink": {"sink": np.array(-0.5)},
    "slope and sink": {"slope": np.array(0.1), "sink": np.array(0.3), "causal": True},
}


def offsets(lengths):
    return np.append(0, np.cumsum(np.asarray(lengths, int)))


def call(name, rng, dtype=np.float64, queries=QUERIES, keys=KEYS, leads=((2,), (2,), (2,)), **more):
    """Arrays and options of a packed call."""
    arrays, own = inputs(
        name, rng, dtype, Tq=sum(queries), Tk=sum(keys), leads=leads, **{"D": 5, "Dv": 3, **more}
    )
    return list(arrays), {**own, "query_offsets": offsets(queries), "key_offsets": offsets(keys)}


def alone(arrays, own, b, count):
    """Arrays and options of sequence b; `count` of them."""
    starts = own["query_offsets"], own["key_offsets"]
    query, key = (slice(o[b], o[b + 1]) for o in starts)
    own = {field: x for field, x in own.items() if field not in ("query_offsets", "key_offsets")}
    if "key_mask" in own:
        own["key_mask"] = own["key_mask"][..., key]
    rows = (query, key, key)
    arrays = [x[..., r, :] for x, r in zip(arrays[:3], rows, strict=True)] + arrays[3:]
    return arrays, own


def whole(name, arrays, own, d):
    """Output and gradients."""
    output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own, return_lse=True)
    return output, vars(pullback(**d))


def looped(name, arrays, own, d):
    """The same, one sequence after the other; parameters' gradients are a list."""
    B = len(own["query_offsets"]) - 1
    context, lse = [], []
    rows, parameters = {"query": [], "key": [], "value": []}, {}
    for b in range(B):
        some, options = alone(arrays, own, b, B)
        query = slice(*own["query_offsets"][b : b + 2])
        here = {"dcontext": d["dcontext"][..., query, :], "dlse": d["dlse"][..., query]}
        output, gradients = whole(name, some, options, here)
        context.append(output.context)
        lse.append(output.lse)
        for field, x in gradients.items():
            (rows if field in rows else parameters).setdefault(field, []).append(x)
    joined = {field: np.concatenate(xs, axis=-2) for field, xs in rows.items()}
    return (np.concatenate(context, axis=-2), np.concatenate(lse, axis=-1)), joined, parameters


def gradients_in(rng, name, arrays, own, dtype):
    """Incoming gradients of a call."""
    return incoming(rng, getattr(attnc, name)(*arrays, **own, return_lse=True), dtype)


def check_packed(name, arrays, own, rng, dtype):
    """Bit by bit what each sequence gives alone; sums of the gradients of parameters."""
    d = gradients_in(rng, name, arrays, own, dtype)
    with assert_unchanged(arrays, own, d):
        output, gradients = whole(name, arrays, own, d)
    (context, lse), rows, parameters = looped(name, arrays, own, d)
    assert_same(output.context, context)
    assert_same(output.lse, lse)
    for field, expected in rows.items():
        assert_same(gradients[field], expected, field)
    assert gradients.keys() == rows.keys() | parameters.keys()
    for field, parts in parameters.items():
        total = np.sum(np.asarray(parts, np.float64), axis=0)
        size = np.abs(np.asarray(parts, np.float64)).sum(axis=0).max(initial=0)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(
            gradients[field], total, rtol=0, atol=64 * eps * size, err_msg=field
        )
    return output, gradients


@pytest.mark.parametrize("position", POSITIONS)
@packed
def test_each_sequence_as_alone(name, position, dtype, isa, rng):
    arrays, own = call(name, rng, dtype)
    own["key_mask"] = rng.random((2, sum(KEYS))) < 0.8
    check_packed(name, arrays, {**own, **POSITIONS[position]}, rng, dtype)


@pytest.mark.parametrize("position", ["none", "causal", "window and offset"])
@packed
def test_slope_and_sink(name, position, dtype, rng):
    """Distances count within each sequence; all share the numbers, which get a gradient each."""
    arrays, own = call(name, rng, dtype)
    own["slope"] = (0.1 * rng.standard_normal(2)).astype(dtype)
    own["sink"] = rng.standard_normal(1).astype(dtype)
    check_packed(name, arrays, {**own, **POSITIONS[position]}, rng, dtype)


@pytest.mark.parametrize("leads", [((), (), ()), ((2, 3), (2, 1), (1, 1)), ((1,), (3,), (3,))])
@packed
def test_leading_axes_broadcast(name, leads, dtype, rng):
    """Grouped queries among them."""
    arrays, own = call(name, rng, dtype, leads=leads)
    check_packed(name, arrays, {**own, "causal": True}, rng, dtype)


@pytest.mark.parametrize("D", [16, 64])
@packed
def test_rows_of_whole_vectors(name, D, dtype, isa, rng):
    """Then gradients of queries are written where they belong, but where keys are cut."""
    arrays, own = call(name, rng, dtype, D=D, Dv=D)
    own.pop("scale", None)
    if name == "dot_product_attention":
        arrays[1], arrays[2] = (np.repeat(x[:1], 2, 0) for x in arrays[1:3])
    check_packed(name, arrays, {**own, "softcap": 2.0}, rng, dtype)


@packed
def test_views_of_other_order(name, dtype, rng):
    """(T, H, D) by swapaxes, and any other strides: the same bits."""
    arrays, own = call(name, rng, dtype)
    d = gradients_in(rng, name, arrays, own, dtype)
    expected = whole(name, arrays, own, d)

    def swapped(x):
        return np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)

    for layout in (swapped, *LAYOUTS.values()):
        laid_out = [layout(x) for x in arrays[:3]] + arrays[3:]
        if any(x.shape != y.shape for x, y in zip(laid_out, arrays, strict=True)):
            continue
        if not all(np.array_equal(x, y) for x, y in zip(laid_out, arrays, strict=True)):
            continue  # one that repeats rows
        got = whole(name, laid_out, own, {field: layout(x) for field, x in d.items()})
        assert_same(tuple(got[0]), tuple(expected[0]))
        assert_same(got[1], expected[1])


@packed
def test_any_number_of_threads(name, dtype, rng):
    lengths = rng.integers(0, 90, 40)
    arrays, own = call(name, rng, dtype, lengths, lengths, D=16)
    own |= {"dropout": 0.2, "rng": 3, "causal": True, "slope": np.array(0.1), "sink": np.array(0.2)}
    d = gradients_in(rng, name, arrays, own, dtype)
    with attnc.set_num_threads(1):
        output, gradients = whole(name, arrays, own, d)
    for threads in (2, 3, 5):
        with attnc.set_num_threads(threads):
            got, got_gradients = whole(name, arrays, own, d)
        assert_same(tuple(got), tuple(output))
        assert_same(got_gradients, gradients)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@packed
def test_halves(name, dtype, isa, rng):
    dtype = np.dtype(dtype if dtype == "float16" else pytest.importorskip("ml_dtypes").bfloat16)
    arrays, own = call(name, rng, np.float32)
    arrays = [x.astype(dtype) for x in arrays]
    own = {field: x.astype(dtype) if field in PARAMETERS else x for field, x in own.items()}
    d = gradients_in(rng, name, arrays, own, np.float32)
    (context, lse), gradients = whole(name, arrays, own, d)
    expected, rows, _ = looped(name, arrays, own, d)
    assert context.dtype == dtype and lse.dtype == np.float32
    assert_same((context, lse), expected)
    for field, x in rows.items():
        assert gradients[field].dtype == dtype
        assert_same(gradients[field], x, field)


@packed
def test_dropout_of_the_padded_batch(name, dtype, rng):
    """Its counters are those of (B, H, T, D)."""
    queries, keys = [40, 0, 17, 33], [60, 5, 17, 21]
    dropped = {"dropout": 0.4, "rng": 11}
    arrays, own = call(name, rng, dtype, queries, keys, D=16, Dv=16)
    d = gradients_in(rng, name, arrays, own, dtype)
    output, gradients = whole(name, arrays, {**own, **dropped}, d)
    lengths = {"query_lengths": np.array([queries] * 2).T, "key_lengths": np.array([keys] * 2).T}
    own = {field: x for field, x in own.items() if "offsets" not in field}

    def padded(x, counts, axis):
        """(H, sum of T, ...) as (B, H, T, ...), NaN in the padding."""
        parts = np.split(x, np.cumsum(counts)[:-1], axis)
        shape = (len(counts), x.shape[0], max(counts), *x.shape[2:])
        whole = np.full(shape, np.nan, x.dtype)
        for rows, part in zip(whole, parts, strict=True):
            rows[:, : part.shape[1]] = part
        return whole

    counts = (queries, keys, keys)
    rows = [padded(x, n, 1) for x, n in zip(arrays[:3], counts, strict=True)]
    function = getattr(attnc, name)
    got, pullback = attnc.vjp(function, *rows, *arrays[3:], **own, **dropped, **lengths)
    dcontext = padded(d["dcontext"], queries, 1)
    pad = np.arange(max(queries)) >= np.array(queries)[:, None]
    expected = padded(output.context, queries, 1)
    assert_same(
        got[~np.broadcast_to(pad[:, None], got.shape[:3])], expected[~np.isnan(expected[..., 0])]
    )
    found = pullback(dcontext)
    _, back = attnc.vjp(
        function,
        *arrays,
        **own,
        **dropped,
        query_offsets=offsets(queries),
        key_offsets=offsets(keys),
    )
    gradients = back(d["dcontext"])
    for field, n in zip(("query", "key", "value"), counts, strict=True):
        here = padded(gradients[field], n, 1)
        real = ~np.isnan(here[..., 0])
        np.testing.assert_allclose(
            found[field][real], here[real], rtol=0, atol=100 * np.finfo(dtype).eps
        )


@packed
def test_reference(name, rng):
    """A loop over the sequences, with the sums of the gradients of parameters."""
    arrays, own = call(name, rng)
    own |= {"dropout": 0.3, "rng": 5, "causal": True, "key_mask": rng.random((2, sum(KEYS))) < 0.7}
    own |= {"slope": rng.random((2,)), "sink": rng.random((1,))}
    output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own, return_lse=True)
    plain = getattr(reference, name)
    expected, plain_pullback = reference.vjp(plain, *arrays, **own, return_lse=True)
    d = incoming(rng, output)
    assert_agree(output.context, expected.context)
    np.testing.assert_allclose(output.lse, expected.lse, rtol=1e-12)
    gradients, expected = vars(pullback(**d)), vars(plain_pullback(**d))
    assert gradients.keys() == expected.keys()
    for field, x in gradients.items():
        assert_agree(x, expected[field], field)


@packed
def test_gradients_are_right(name, rng):
    arrays, own = call(name, rng, queries=[3, 0, 4], keys=[2, 3, 5], D=3)
    function = getattr(attnc, name)
    real = {field: own.pop(field) for field in PARAMETERS if field in own}

    def f(*xs):
        return function(
            *xs[: len(arrays)], **dict(zip(real, xs[len(arrays) :], strict=True)), **own
        )

    _, pullback = attnc.vjp(function, *arrays, **real, **own)

    def backward(dcontext):
        found = pullback(dcontext)
        return [*found, *(found[field] for field in real)]

    attnc.check_gradients(f, backward, *arrays, *real.values())


@packed
def test_what_is_outside_a_sequence_is_not_read(name, dtype, isa, rng):
    """NaN in one sequence, and in its gradients, reaches no other."""
    lengths = [30, 0, 40, 7]
    arrays, own = call(name, rng, dtype, lengths, lengths)
    own["causal"] = True
    d = gradients_in(rng, name, arrays, own, dtype)
    expected, expected_gradients = whole(name, arrays, own, d)
    here = slice(30, 70)
    for x in (*arrays[:3], *d.values()):
        x[:, here] = np.nan
    output, gradients = whole(name, arrays, own, d)
    others = np.r_[:30, 70:77]
    assert_same(tuple(x[:, others] for x in output), tuple(x[:, others] for x in expected))
    for field in ("query", "key", "value"):
        assert_same(gradients[field][:, others], expected_gradients[field][:, others])
    assert np.isnan(output.context[:, here]).all()


@packed
def test_masked_sequence_adds_nothing(name, dtype, rng):
    """A sequence without an allowed key, all NaN: context 0, and nothing in a parameter."""
    lengths = [30, 40, 7]
    arrays, own = call(name, rng, dtype, lengths, lengths)
    own["key_mask"] = np.ones((1, 77), bool)
    own["key_mask"][:, 30:70] = False
    for x in arrays[:3]:
        x[:, 30:70] = np.nan
    output, gradients = check_packed(name, arrays, own, rng, dtype)
    np.testing.assert_array_equal(output.context[:, 30:70], 0)
    np.testing.assert_array_equal(output.lse[:, 30:70], -np.inf)
    assert all(np.isfinite(x).all() for x in gradients.values())


@pytest.mark.parametrize(
    "queries, keys",
    [([], []), ([0], [0]), ([0, 0, 0], [0, 0, 0]), ([0, 0], [3, 4]), ([3, 4], [0, 0]), ([5], [7])],
)
@packed
def test_empty_sequences(name, queries, keys, dtype, rng):
    arrays, own = call(name, rng, dtype, queries, keys)
    d = gradients_in(rng, name, arrays, own, dtype)
    output, gradients = whole(name, arrays, own, d)
    assert output.context.shape == (2, sum(queries), 3)
    if queries:
        check_packed(name, arrays, own, rng, dtype)
    if 0 in (sum(queries), sum(keys)):
        assert not output.context.any()
        for field, x in gradients.items():
            np.testing.assert_array_equal(x, 0, err_msg=field)


@packed
def test_offsets_of_the_keys_left_out(name, dtype, rng):
    """They are those of the queries."""
    arrays, own = call(name, rng, dtype, [3, 4], [3, 4])
    expected = getattr(attnc, name)(*arrays, **own)
    del own["key_offsets"]
    assert_same(getattr(attnc, name)(*arrays, **own), expected)
    own["query_offsets"] = [0, 3, 7]
    assert_same(getattr(attnc, name)(*arrays, **own), expected)
    for kind in (np.int8, np.uint64, ">i4"):
        own["query_offsets"] = np.repeat(np.array([0, 3, 7], kind), 2)[::2]
        assert_same(getattr(attnc, name)(*arrays, **own), expected)


# ---- what raises ---------------------------------------------------------------------------------

RULE = "must be a 1-D array of integers, 0 = o_0 <= ... <= o_B = T, got "
END = "; offsets of lengths are np.append(0, np.cumsum(lengths))"
WRONG = {
    "float": ([0.0, 7.0], TypeError, RULE + "dtype float64"),
    "bool": (np.array([False, True]), TypeError, RULE + "dtype bool"),
    "object": (np.array([0, 7], object), TypeError, RULE + "dtype object"),
    "one int": (7, ValueError, RULE + "shape ()"),
    "2-D": ([[0, 7]], ValueError, RULE + "shape (1, 2)"),
    "none": ([], ValueError, RULE + "shape (0,)"),
    "not from 0": ([1, 7], ValueError, "must begin with 0, got 1"),
    "negative": ([-1, 7], ValueError, "must begin with 0, got -1"),
    "decreasing": (
        [0, 5, 3, 7],
        ValueError,
        "must not decrease, got 5 and then 3 at index 2",
    ),
    "beyond and back": (
        [0, 2**62, 7],
        ValueError,
        f"must not decrease, got {2**62} and then 7 at index 2",
    ),
    "too short": ([0, 6], ValueError, "must end with 7, the number of {}, got 6" + END),
    "too long": ([0, 8], ValueError, "must end with 7, the number of {}, got 8" + END),
    "one offset": ([0], ValueError, "must end with 7, the number of {}, got 0" + END),
    "huge": (
        [0, 2**63 - 1],
        ValueError,
        f"must end with 7, the number of {{}}, got {2**63 - 1}" + END,
    ),
    "huge and unsigned": (
        np.array([0, 2**64 - 1], np.uint64),
        ValueError,
        f"must end with 7, the number of {{}}, got {2**60}" + END,
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("option", ["query_offsets", "key_offsets"])
@packed
def test_wrong_offsets(name, option, wrong, rng):
    value, error, message = WRONG[wrong]
    arrays, own = call(name, rng, np.float32, [3, 4], [3, 4])
    own[option] = value
    with pytest.raises(error) as raised:
        getattr(attnc, name)(*arrays, **own)
    message = message.format("queries" if option == "query_offsets" else "keys")
    assert str(raised.value) == f"{name}: {option} {message}"


ONE_SEQUENCE = "; the offsets say where each sequence ends"
REFUSED = {
    "mask": (
        {"mask": np.ones((1, 7, 9), bool)},
        "mask must be None with query_offsets, got one; key_mask= says which keys of all "
        "sequences may be attended to",
    ),
    "key_lengths": (
        {"key_lengths": 3},
        "key_lengths must be None with query_offsets, got one" + ONE_SEQUENCE,
    ),
    "query_lengths": (
        {"query_lengths": [3, 2]},
        "query_lengths must be None with query_offsets, got one" + ONE_SEQUENCE,
    ),
    "bias": (
        {"bias": np.zeros((1, 7, 9))},
        "bias must be None with query_offsets, got one; a padded batch takes one",
    ),
    "causal_offset": (
        {"causal": True, "causal_offset": [1, 2]},
        "causal_offset must be None or one integer with query_offsets, counted from the first "
        "query and key of each sequence, got [1, 2]",
    ),
    "return_weights": (
        {"return_weights": True},
        "return_weights must be False with query_offsets, for every sequence has weights of a "
        "shape of its own; call it on each of them",
    ),
    "key_offsets alone": (
        {"query_offsets": None},
        "query_offsets must be given with key_offsets, got None; a packed batch has sequences of "
        "queries too",
    ),
    "query_offsets alone": (
        {"key_offsets": None},
        "key_offsets must be given where there are not as many keys as queries, 7, got None and 9 "
        "keys",
    ),
    "other number": (
        {"key_offsets": [0, 2, 5, 9]},
        "key_offsets must be as many as query_offsets, 3, got 4",
    ),
}


@pytest.mark.parametrize("refused", REFUSED)
@packed
def test_what_has_no_meaning_in_a_packed_batch(name, refused, rng):
    options, message = REFUSED[refused]
    arrays, own = call(name, rng, np.float32, [3, 4], [4, 5])
    for run in (getattr(attnc, name), lambda *xs, **kw: attnc.vjp(getattr(attnc, name), *xs, **kw)):
        with pytest.raises(ValueError) as raised:
            run(*arrays, **{**own, **options})
        assert str(raised.value) == f"{name}: {message}"


def test_functions_that_take_no_packed_batch(rng):
    with pytest.raises(
        ValueError, match=r"^attend: query_offsets must be None, for scores \(\.\.\., "
    ):
        attnc.attend(np.ones((2, 7, 7)), np.ones((2, 7, 3)), query_offsets=[0, 3, 7])
    x = np.ones((2, 7, 3))
    with pytest.raises(ValueError, match=r"^stages: query_offsets must be None, got offsets; pass"):
        attnc.stages(attnc.dot_product_attention, x, x, x, query_offsets=[0, 3, 7])


def test_gradients_of_what_was_not_asked_for(rng):
    arrays, own = call("dot_product_attention", rng)
    context, pullback = attnc.vjp(attnc.dot_product_attention, *arrays, **own)
    with pytest.raises(ValueError, match="dweights must be None unless return_weights=True"):
        pullback(context, dweights=np.ones((2, sum(QUERIES), sum(KEYS))))
    with pytest.raises(ValueError, match="dlse must be None unless return_lse=True"):
        pullback(context, dlse=context[..., 0])


@packed
def test_offsets_that_change_before_the_pullback(name, rng):
    """Memory is safe: what was saved fits, or is refused."""
    arrays, own = call(name, rng, np.float32, [3, 4, 2], [3, 300, 9], D=400)
    context, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own)
    own["query_offsets"][1], own["key_offsets"][2] = 7, 5
    try:
        pullback(context)
    except ValueError as error:
        assert "saved must be what the forward call saved" in str(error)
    own["query_offsets"][1] = 10
    with pytest.raises(ValueError, match="query_offsets must not decrease"):
        pullback(context)


# ---- any call ------------------------------------------------------------------------------------

LENGTHS = st.sampled_from([0, 1, 2, 3, 5, 16, 17, 33, 50, 97, 200])


@MANY
@given(
    name=st.sampled_from(PACKED),
    dtype=st.sampled_from([np.float32, np.float64]),
    lengths=st.lists(st.tuples(LENGTHS, LENGTHS), max_size=6),
    same=st.booleans(),
    leads=st.sampled_from([((2,),) * 3, ((),) * 3, ((2, 2), (2, 1), (2, 1)), ((1,), (2,), (1,))]),
    D=st.sampled_from([0, 1, 3, 16, 40]),
    Dv=st.sampled_from([0, 1, 5, 16]),
    options=st.tuples(*(st.sampled_from(list(group)) for group in (POSITIONS, CAPS, NUMBERS))),
    masked=st.booleans(),
    threads=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_call(name, dtype, lengths, same, leads, D, Dv, options, masked, threads, seed):
    rng = np.random.default_rng(seed)
    queries, keys = ([n for n, _ in lengths], [m if not same else n for n, m in lengths])
    arrays, own = call(name, rng, dtype, queries, keys, leads=leads, D=D, Dv=Dv)
    for group, option in zip((POSITIONS, CAPS, NUMBERS), options, strict=True):
        own |= group[option]
    if masked:
        own["key_mask"] = rng.random((*np.broadcast_shapes(*leads), sum(keys))) < 0.7
    with attnc.set_num_threads(threads):
        if lengths:
            check_packed(name, arrays, own, rng, dtype)
        else:
            gradients = gradients_in(rng, name, arrays, own, dtype)
            whole(name, arrays, own, gradients)

"""Wrong calls: the exception and the whole message, which has to say what to type instead."""

import re

import ml_dtypes
import numpy as np
import pytest
from arrays import FUNCTIONS, inputs
from checks import assert_same

import attnc


def ones(*shape, dtype=float):
    return np.ones(shape, dtype)


def bools(*shape):
    return np.ones(shape, bool)


# What every call below starts from: two sequences of 3 queries and 5 keys. A function that takes
# more than those has a row of its own.
QKV = {"query": ones(2, 3, 4), "key": ones(2, 5, 4), "value": ones(2, 5, 6)}
RIGHT = dict.fromkeys(FUNCTIONS, QKV) | {
    "multiplicative_attention": {**QKV, "weight": ones(4, 4)},
    "additive_attention": {**QKV, "score_vector": ones(4)},
    "attend": {"scores": ones(2, 3, 5), "value": ones(2, 5, 6)},
}
HEADS = {"query": ones(2, 4, 3, 8), "key": ones(2, 4, 5, 8), "value": ones(2, 4, 5, 8)}

REAL = "must hold real numbers (float16, bfloat16, float32, float64; integers become float64), got"
MASKED = (
    "must be a plain array, got a masked array, whose mask would be lost; pass its data"
    " ({0}.data) and say what may be attended to with mask= or key_mask="
)
NOT_BOOL = (
    "{0} must be boolean (True: may be attended to), got dtype {1}; write {0}.astype(bool),"
    " or pass what is to be added to the scores as bias="
)
RANK = "must have at least 2 axes (time, feature)"
AXES = "must have as many axes as key"
LEAD = "must have the leading axes (batch, heads) of the other arrays, equal or 1 in axis 0"
FULL = "must have {} axes {} = {}, each of that size or 1, got {}"
PAIRS, HEAD_PAIRS = (3, "(..., Tq, Tk)", (2, 3, 5)), (4, "(..., Tq, Tk)", (2, 4, 3, 5))
KEYS, HEAD_KEYS = (2, "(..., Tk)", (2, 5)), (3, "(..., Tk)", (2, 4, 5))
ELEMENTS, HEAD_ELEMENTS = (1, "(...,)", (2,)), (2, "(...,)", (2, 4))
PROJECTED = (
    "must have the size of score_vector, {}, in its last axis, because no {}_weight is given to"
    " project it"
)
TO_KEY_MASK = "; a mask of keys alone goes to key_mask="
WINDOW = "window must be None or a pair (left, right) of integers >= 0 or None (open), got"
DROPOUT = "dropout must be a number with 0 <= dropout < 1, got"
SOFTCAP = "softcap must be None or a number > 0, got"
SLOPE = "slope must be None, a finite number or a real array, got"
SCALE = "scale must be None, a real number or a 0-d array, got"
RNG = "rng must be None, a numpy.random.Generator or an integer in 0..2**64-1, got"


def full(argument, wanted, got, fix=""):
    return f"{argument} {FULL.format(*wanted, got)}{'; write ' if fix else ''}{fix}"


# Of every function: the arrays as such.
ARRAYS = [
    (None, "must be an array, got None"),
    (ones(2, 3, 4, dtype=complex), f"{REAL} dtype complex128"),
    (ones(2, 3, 4, dtype=object), f"{REAL} dtype object"),
    (ones(2, 3, 4, dtype=np.longdouble), f"{REAL} dtype {np.dtype(np.longdouble)}"),
    (ones(2, 3, 4).astype("datetime64[s]"), f"{REAL} dtype datetime64[s]"),
    ([["a", "b"]], f"{REAL} dtype <U1"),
    (
        [[1.0, 2.0], [3.0]],
        "must be an array of numbers with rows of equal length; "
        "array, lengths = attnc.data.pad(rows) makes one",
    ),
    (np.ma.ones((2, 3, 4)), MASKED),
    ([np.ma.ones((3, 4)), np.ones((3, 4))], MASKED),  # NumPy's own conversion drops these masks too
]


@pytest.mark.parametrize(("wrong", "message"), ARRAYS)
@pytest.mark.parametrize("name", RIGHT)
def test_arrays(name, wrong, message):
    for argument in RIGHT[name]:
        with pytest.raises(TypeError) as error:
            getattr(attnc, name)(**{**RIGHT[name], argument: wrong})
        assert str(error.value) == f"{name}: {argument} {message.format(argument)}"


# By the way of dot_product_attention. {shapes} stands for the shapes of all arrays.
WRONG = [
    # ---- shapes of query, key and value
    (
        {"query": ones(4)},
        ValueError,
        f"query {RANK}; for one vector write query[None, :]{{shapes}}",
    ),
    ({"value": 1.0}, ValueError, f"value {RANK}{{shapes}}"),
    (
        {"query": ones(2, 4)},
        ValueError,
        f"query {AXES}; for one query a sequence write query[:, None, :]{{shapes}}",
    ),
    (
        {"key": ones(5, 4)},
        ValueError,
        f"query {AXES}; give key axes of size 1 where it broadcasts{{shapes}}",
    ),
    (
        {"value": ones(1, 2, 5, 6)},
        ValueError,
        f"value {AXES}; give key axes of size 1 where it broadcasts{{shapes}}",
    ),
    (
        {"key": ones(2, 5, 3)},
        ValueError,
        "key must have the feature size of query in its last axis, 4{shapes}",
    ),
    (
        {"value": ones(2, 4, 6)},
        ValueError,
        "value must have the length of key in its time axis, 5{shapes}",
    ),
    ({"key": ones(3, 5, 4)}, ValueError, f"key {LEAD}{{shapes}}"),
    ({"value": ones(0, 5, 6)}, ValueError, f"value {LEAD}{{shapes}}"),
    (
        {
            "query": np.broadcast_to(ones(3, 4), (2**40, 1, 3, 4)),
            "key": np.broadcast_to(ones(5, 4), (1, 2**40, 5, 4)),
            "value": ones(1, 1, 5, 6),
        },
        ValueError,
        "query must leave the broadcast leading axes countable{shapes}",
    ),
    # ---- masks
    ({"mask": np.ones((2, 3, 5), np.int8)}, TypeError, NOT_BOOL.format("mask", "int8")),
    ({"mask": ones(2, 3, 5)}, TypeError, NOT_BOOL.format("mask", "float64")),
    ({"key_mask": ones(2, 5)}, TypeError, NOT_BOOL.format("key_mask", "float64")),
    ({"mask": np.ma.ones((2, 3, 5), bool)}, TypeError, "mask " + MASKED.format("mask")),
    (
        {"mask": bools(2, 5)},
        ValueError,
        full("mask", PAIRS, (2, 5), "mask[:, None, :]") + TO_KEY_MASK,
    ),
    (
        {"mask": bools(3, 5)},
        ValueError,
        full("mask", PAIRS, (3, 5), "mask[None, :, :]") + TO_KEY_MASK,
    ),
    ({"mask": bools(2, 4, 5)}, ValueError, full("mask", PAIRS, (2, 4, 5))),
    ({"mask": bools(1, 2, 3, 5)}, ValueError, full("mask", PAIRS, (1, 2, 3, 5))),
    (
        {**HEADS, "mask": bools(2, 3, 5)},
        ValueError,
        full("mask", HEAD_PAIRS, (2, 3, 5), "mask[:, None, :, :]"),
    ),
    (
        {field: x[:1] for field, x in QKV.items()} | {"mask": bools(2, 3, 5)},  # never widens
        ValueError,
        full("mask", (3, "(..., Tq, Tk)", (1, 3, 5)), (2, 3, 5)),
    ),
    ({"key_mask": bools(5)}, ValueError, full("key_mask", KEYS, (5,), "key_mask[None, :]")),
    (
        {**HEADS, "key_mask": bools(2, 5)},
        ValueError,
        full("key_mask", HEAD_KEYS, (2, 5), "key_mask[:, None, :]"),
    ),
    ({"bias": ones(3, 5)}, ValueError, full("bias", PAIRS, (3, 5), "bias[None, :, :]")),
    ({"bias": ones(2, 3, 5, dtype=complex)}, TypeError, f"bias {REAL} dtype complex128"),
    (
        {"bias": bools(2, 3, 5)},  # a mask would add 0 or 1, and exclude nothing
        TypeError,
        "bias must be numbers that are added to the scores, got dtype bool; pass mask= what may be"
        " attended to, or write bias.astype(float)",
    ),
    # ---- lengths and offsets
    (
        {"key_lengths": [5, 6]},
        ValueError,
        "key_lengths must lie in 0..5, the number of keys, got 6",
    ),
    ({"key_lengths": -1}, ValueError, "key_lengths must lie in 0..5, the number of keys, got -1"),
    (
        {"key_lengths": [1.0, 2.0]},
        TypeError,
        "key_lengths must be an integer or an array of integers, got dtype float64",
    ),
    ({"key_lengths": [1, 2, 3]}, ValueError, full("key_lengths", ELEMENTS, (3,))),
    (
        {"query_lengths": [3, 4]},
        ValueError,
        "query_lengths must lie in 0..3, the number of queries, got 4",
    ),
    (
        {"query_lengths": -1},
        ValueError,
        "query_lengths must lie in 0..3, the number of queries, got -1",
    ),
    (
        {"query_lengths": 2**70},
        ValueError,
        f"query_lengths must lie in 0..3, the number of queries, got {2**60}",
    ),
    (
        {"query_lengths": [1.0, 2.0]},
        TypeError,
        "query_lengths must be an integer or an array of integers, got dtype float64",
    ),
    (
        {**HEADS, "query_lengths": [1, 2]},
        ValueError,
        full("query_lengths", HEAD_ELEMENTS, (2,), "query_lengths[:, None]"),
    ),
    (
        {**HEADS, "key_lengths": [1, 2]},
        ValueError,
        full("key_lengths", HEAD_ELEMENTS, (2,), "key_lengths[:, None]"),
    ),
    (
        {**HEADS, "causal": True, "causal_offset": [1, 2]},
        ValueError,
        full("causal_offset", HEAD_ELEMENTS, (2,), "causal_offset[:, None]"),
    ),
    (
        {"causal_offset": 0},
        ValueError,
        "causal_offset must go with causal=True, window= or slope=, got none",
    ),
    ({"slope": np.inf}, ValueError, f"{SLOPE} inf"),
    ({"slope": "1"}, TypeError, f"slope {REAL} dtype <U1"),
    ({"slope": True}, TypeError, f"{SLOPE} True"),
    ({"slope": ones(3)}, ValueError, full("slope", ELEMENTS, (3,))),
    ({**HEADS, "slope": ones(4)}, ValueError, full("slope", HEAD_ELEMENTS, (4,), "slope[None, :]")),
    ({"slope": ones(2, dtype=complex)}, TypeError, f"slope {REAL} dtype complex128"),
    ({"sink": 1j}, TypeError, f"sink {REAL} dtype complex128"),
    ({"sink": False}, TypeError, "sink must be None, a number or a real array, got False"),
    ({"sink": ones(2, 3)}, ValueError, full("sink", ELEMENTS, (2, 3))),
    ({**HEADS, "sink": ones(2)}, ValueError, full("sink", HEAD_ELEMENTS, (2,), "sink[:, None]")),
    ({"sink": np.ma.ones(2)}, TypeError, f"sink {MASKED.format('sink')}"),
    (
        {"causal": True, "causal_offset": 0.5},
        TypeError,
        "causal_offset must be an integer or an array of integers, got dtype float64",
    ),
    # ---- numbers and flags
    ({"causal": 1}, TypeError, "causal must be True or False, got 1"),
    ({"return_weights": None}, TypeError, "return_weights must be True or False, got None"),
    ({"return_lse": "yes"}, TypeError, "return_lse must be True or False, got 'yes'"),
    ({"window": 3}, TypeError, f"{WINDOW} 3"),
    ({"window": (1, 2, 3)}, ValueError, f"{WINDOW} (1, 2, 3)"),
    ({"window": (-1, 2)}, ValueError, f"{WINDOW} (-1, 2)"),
    ({"window": (1, 2.5)}, TypeError, f"{WINDOW} (1, 2.5)"),
    ({"softcap": 0}, ValueError, f"{SOFTCAP} 0"),
    ({"softcap": -1.5}, ValueError, f"{SOFTCAP} -1.5"),
    ({"softcap": float("nan")}, ValueError, f"{SOFTCAP} nan"),
    ({"softcap": "2"}, TypeError, f"{SOFTCAP} '2'"),
    ({"dropout": 1}, ValueError, f"{DROPOUT} 1"),
    ({"dropout": -0.1}, ValueError, f"{DROPOUT} -0.1"),
    ({"dropout": float("nan")}, ValueError, f"{DROPOUT} nan"),
    ({"dropout": None}, TypeError, f"{DROPOUT} None"),
    ({"dropout": np.ones(3), "rng": 0}, TypeError, f"{DROPOUT} {np.ones(3)!r}"),
    ({"dropout": 0.5, "rng": -1}, ValueError, f"{RNG} -1"),
    ({"dropout": 0.5, "rng": 2**64}, ValueError, f"{RNG} {2**64}"),
    ({"dropout": 0.5, "rng": "seed"}, TypeError, f"{RNG} 'seed'"),
    ({"dropout": 0.5, "rng": 2.0}, TypeError, f"{RNG} 2.0"),
    ({"scale": "1"}, TypeError, f"{SCALE} '1'"),
    ({"scale": 1j}, TypeError, f"{SCALE} 1j"),
    ({"scale": 10**400}, ValueError, f"{SCALE} {10**400}"),
    ({"window": (-(2**70), 2)}, ValueError, f"{WINDOW} ({-(2**70)}, 2)"),
    (
        {"scale": ones(2)},
        ValueError,
        f"{SCALE} an array of shape (2,); for a scale per head multiply the query",
    ),
]


def check_error(name, changes, error, message):
    arguments = {**RIGHT[name], **changes}
    arrays = {**RIGHT[name], **{field: x for field, x in changes.items() if np.ndim(x)}}
    shapes = ", ".join(f"{field} {np.shape(arguments[field])}" for field in arrays)
    with pytest.raises(error) as caught:
        getattr(attnc, name)(**arguments)
    assert str(caught.value) == f"{name}: {message}".replace("{shapes}", f", got {shapes}")
    assert type(caught.value) is error


@pytest.mark.parametrize(("changes", "error", "message"), WRONG)
def test_dot_product_attention(changes, error, message):
    check_error("dot_product_attention", changes, error, message)


OTHERS = [
    (
        "multiplicative_attention",
        {"weight": ones(4, 3)},
        "weight must have shape (4, 4): (Dq, Dk){shapes}",
    ),
    (
        "additive_attention",
        {"score_vector": ones(3)},
        f"query {PROJECTED.format(3, 'query')}{{shapes}}",
    ),
    (
        "additive_attention",
        {"key": ones(2, 5, 3)},
        f"key {PROJECTED.format(4, 'key')}{{shapes}}",
    ),
    (
        "additive_attention",
        {"score_vector": ones(1, 4)},
        "score_vector must have one axis{shapes}",
    ),
    (
        "additive_attention",
        {"query_weight": ones(3, 4)},
        "query_weight must have shape (4, 4): (Dq, H){shapes}",
    ),
    (
        "additive_attention",
        {"key_weight": ones(4, 3)},
        "key_weight must have shape (4, 4): (Dk, H){shapes}",
    ),
    (
        "additive_attention",
        {"score_bias": ones(5)},
        "score_bias must have shape (4,): (H,){shapes}",
    ),
    (
        "attend",
        {"value": ones(2, 4, 6)},
        "value must have one row for each column of scores, 5{shapes}",
    ),
    (
        "cosine_attention",
        {"key": ones(2, 5, 3)},
        "key must have the feature size of query in its last axis, 4{shapes}",
    ),
]


@pytest.mark.parametrize(("name", "changes", "message"), OTHERS)
def test_shapes_of_other_functions(name, changes, message):
    check_error(name, changes, ValueError, message)


SHARED = {"mask": bools(2, 5), "key_lengths": 9, "window": 3, "dropout": 2, "causal": 0}


@pytest.mark.parametrize("option", SHARED)
@pytest.mark.parametrize("name", RIGHT)
def test_options_are_checked_by_every_function(name, option):
    """In the same words but for the name of the function."""
    wrong = {option: SHARED[option]}
    with pytest.raises((TypeError, ValueError)) as expected:
        attnc.dot_product_attention(**QKV, **wrong)
    words = str(expected.value).partition(": ")[2]
    check_error(name, wrong, type(expected.value), words)


@pytest.mark.parametrize("name", RIGHT)
def test_vjp_checks_like_the_function(name):
    with pytest.raises(TypeError, match=re.escape(f"{name}: window must be None or a pair")):
        attnc.vjp(getattr(attnc, name), *RIGHT[name].values(), window=1)


@pytest.mark.parametrize("name", RIGHT)
def test_unknown_and_missing_arguments(name):
    function = getattr(attnc, name)
    with pytest.raises(TypeError, match=f"{name}.*'masks'"):
        function(**RIGHT[name], masks=None)
    with pytest.raises(TypeError, match=f"{name}.*'value'"):
        function(**{field: x for field, x in RIGHT[name].items() if field != "value"})
    with pytest.raises(TypeError, match=name):  # options are by keyword only
        function(*RIGHT[name].values(), None)


NUMBERS = {"softcap": True, "dropout": False, "scale": True}


@pytest.mark.parametrize("option", NUMBERS)
def test_a_bool_is_no_number(option):
    with pytest.raises(
        TypeError, match=f"^dot_product_attention: {option} must .*got (True|False)$"
    ):
        attnc.dot_product_attention(**QKV, **{option: NUMBERS[option]})


@pytest.mark.parametrize("lengths", [{"key_lengths": []}, {"causal": True, "causal_offset": []}])
def test_empty_lists_for_an_empty_batch(lengths):
    """NumPy makes float64 of [], which holds no lengths that are not integers."""
    empty = ones(0, 5, 4)
    assert attnc.dot_product_attention(empty, empty, empty, **lengths).shape == (0, 5, 4)
    with pytest.raises(TypeError, match="must be an integer or an array of integers, got dtype"):
        attnc.dot_product_attention(empty, empty, empty, key_lengths=np.zeros(0))


FOREIGN = [("torch", "a PyTorch tensor"), ("jax.numpy", "a JAX array")]


@pytest.mark.parametrize(("module", "what"), FOREIGN)
def test_tensors_of_other_libraries(module, what):
    tensor = pytest.importorskip(module).ones((2, 5, 4))
    check_error(
        "dot_product_attention",
        {"key": tensor},
        TypeError,
        f"key must be a NumPy array, got {what}; pass np.asarray(key), or call the function of the"
        f" same name in attnc.{module.partition('.')[0]}",
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errstate_changes_nothing(name, dtype, rng):
    """numpy.errstate is about NumPy's arithmetic; numbers that round to 0 are no fault in ours."""
    arrays, own = inputs(name, rng)
    least = -1 if name == "cosine_attention" else -20  # small vectors have large gradients
    arrays = [(x * 10.0 ** rng.uniform(least, 1, x.shape)).astype(dtype) for x in arrays]
    own = {option: x.astype(dtype) for option, x in own.items()}

    def both():
        output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own, return_lse=True)
        d = np.full(output.context.shape, 1e-3)
        d[..., 0] = 1e-300  # 0 in float32
        return output, vars(pullback(d, dlse=output.lse))

    expected = both()
    with np.errstate(all="raise"):
        got = both()
    assert_same(got, expected)
    assert got[0].lse.dtype == np.result_type(dtype, np.float32)


def test_a_failed_call_leaves_nothing_behind():
    """The right call works after each of the wrong ones, with the same bits."""
    expected = attnc.dot_product_attention(**QKV)
    for changes, error, _ in WRONG:
        with pytest.raises(error):
            attnc.dot_product_attention(**{**QKV, **changes})
        np.testing.assert_array_equal(attnc.dot_product_attention(**QKV), expected)

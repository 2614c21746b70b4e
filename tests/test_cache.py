"""KVCache: calls with a cache against one call over everything, and what a cache can do."""

import copy
import pickle
import sys

import numpy as np
import pytest
from checks import assert_agree, assert_close_like_naive, assert_same
from layer_checks import randomize

import attnc
from attnc import reference
from attnc.layers.cache import ModelCache

E, H, D, T = 12, 6, 4, 11

KINDS = {
    "plain": {},
    "groups": {"num_kv_heads": 2, "projection_bias": True},
    "one key head": {"num_kv_heads": 1, "head_size": D},
    "rotary": {"num_kv_heads": 3, "head_size": D, "rotary": True, "normalize_qk": True},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def make(kind, rng, dtype="float64"):
    return randomize(attnc.MultiHeadAttention(E, H, dtype=dtype, **KINDS[kind]), rng)


def in_steps(layer, x, sizes, cache, **options):
    """The outputs of calls with so many new tokens each, side by side."""
    parts, begin = [], 0
    for size in sizes:
        end = begin + size
        now = {
            name: option[..., begin:end, :end] if name in ("mask", "bias") else option[..., :end]
            for name, option in options.items()
        }
        parts.append(layer(x[..., begin:end, :], causal=True, cache=cache, **now))
        begin = end
    assert begin == x.shape[-2]
    return np.concatenate(parts, axis=-2)


SIZES = [(1,) * T, (3, 3, 3, 2), (7, 1, 1, 2), (T,), (0, 5, 0, 6)]
sizes = pytest.mark.parametrize("sizes", SIZES, ids=[",".join(map(str, each)) for each in SIZES])


@kinds
@sizes
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_steps_are_one_call(kind, sizes, lead, rng):
    layer, x = make(kind, rng), rng.standard_normal((*lead, T, E))
    cache = attnc.KVCache()
    assert_agree(in_steps(layer, x, sizes, cache), layer(x, causal=True))
    assert len(cache) == T
    assert_same(cache.lengths, np.full(lead, T))


@kinds
@sizes
def test_steps_in_float32_err_no_more_than_plain_numpy(kind, sizes, rng):
    layer = make(kind, rng, "float32")
    x = rng.standard_normal((2, T, E)).astype(np.float32)
    p = dict(layer.parameters)
    weights = [p.pop(f"{name}_weight") for name in ("query", "key", "value", "output")]
    exact, naive = (
        reference.multi_head_attention(
            x, x, x, *weights, **p, rotary=layer.rotary, causal=True, dtype=dtype
        )
        for dtype in (np.float64, np.float32)
    )
    for cache in (attnc.KVCache(), attnc.KVCache(T), attnc.KVCache(window=T, keep=2)):
        got = in_steps(layer, x, sizes, cache)
        assert_close_like_naive(got, exact, naive, np.abs(x).max())


@kinds
@sizes
def test_masks_cover_cached_and_new_tokens(kind, sizes, rng):
    layer, x = make(kind, rng), rng.standard_normal((2, T, E))
    options = {
        "mask": rng.random((2, T, T)) < 0.8,
        "bias": rng.standard_normal((2, H, T, T)),
        "key_mask": rng.random((2, T)) < 0.9,
    }
    got = in_steps(layer, x, sizes, attnc.KVCache(), **options)
    assert_agree(got, layer(x, causal=True, **options))


def test_without_causal_new_tokens_see_each_other(rng):
    layer, x = make("rotary", rng), rng.standard_normal((2, 7, E))
    cache = attnc.KVCache()
    layer(x[:, :4], cache=cache)
    got = layer(x[:, 4:], cache=cache, return_weights=True, return_lse=True)
    expected = layer(x, return_weights=True, return_lse=True)
    assert got.weights.shape == (2, H, 3, 7)
    assert_agree(got.context, expected.context[:, 4:])
    assert_agree(got.weights, expected.weights[:, :, 4:])
    assert_agree(got.lse, expected.lse[:, :, 4:])


WINDOWS = [(1, 0), (4, 0), (4, 2), (1, 1), (3, 5), (20, 2)]


def mask_of(window, keep, total=T):
    i, j = np.arange(total)[:, None], np.arange(total)
    return ((j < keep) | (i - j < window))[None]


@pytest.mark.parametrize("kind", ["groups", "rotary"])
@sizes
@pytest.mark.parametrize("window, keep", WINDOWS)
def test_a_window_is_a_mask(kind, sizes, window, keep, rng):
    """Also where a chunk is longer than the window."""
    layer, x = make(kind, rng), rng.standard_normal((2, T, E))
    cache = attnc.KVCache(window=window, keep=keep)
    got = in_steps(layer, x, sizes, cache)
    assert_agree(got, layer(x, causal=True, mask=mask_of(window, keep)))
    assert len(cache) == T
    options = {
        "mask": rng.random((2, T, T)) < 0.8,
        "bias": rng.standard_normal((2, 1, T, T)),
        "key_mask": rng.random((2, T)) < 0.9,
    }
    got = in_steps(layer, x, sizes, attnc.KVCache(window=window, keep=keep), **options)
    options["mask"] = options["mask"] & mask_of(window, keep)
    assert_agree(got, layer(x, causal=True, **options))


@pytest.mark.parametrize("window, keep", WINDOWS)
@pytest.mark.parametrize("own", [(2, 0), (5, None), (None, 0)])
def test_a_window_in_a_window(window, keep, own, rng):
    layer, x = make("plain", rng), rng.standard_normal((1, T, E))
    cache = attnc.KVCache(window=window, keep=keep)
    got = np.concatenate(
        [layer(x[:, t : t + 1], window=own, causal=True, cache=cache) for t in range(T)], axis=1
    )
    assert_agree(got, layer(x, causal=True, window=own, mask=mask_of(window, keep)))


def test_the_memory_of_a_window_is_bounded(rng):
    layer, cache = make("plain", rng), attnc.KVCache(window=8, keep=2)
    layer(rng.standard_normal((1, 500, E)), causal=True, cache=cache)
    for _ in range(40):
        weights = layer(
            rng.standard_normal((1, 1, E)), causal=True, cache=cache, return_weights=True
        ).weights
    assert weights.shape[-1] == 10 and len(cache) == 540
    assert cache.nbytes <= 2 * 8 * H * (E // H) * 2 * (8 + 2)


@pytest.mark.parametrize("window", [None, 4])
@sizes
def test_slopes_and_sinks(window, sizes, rng):
    """A slope counts from the position of the query in its sequence."""
    layer, x = make("groups", rng), rng.standard_normal((2, T, E))
    own = {"slope": rng.uniform(0.1, 1, (1, H)), "sink": rng.standard_normal((1, H))}
    mask = None if window is None else mask_of(window, 0)
    for causal in (True, False):
        cache, parts, begin = attnc.KVCache(window=window), [], 0
        for n in sizes:
            parts.append(layer(x[:, begin : begin + n], causal=causal, cache=cache, **own))
            begin += n
        if causal:
            got = np.concatenate(parts, axis=1)
            assert_agree(got, layer(x, causal=True, mask=mask, **own))
        elif window is None:
            assert_agree(parts[-1], layer(x, **own)[:, T - sizes[-1] :])
    with pytest.raises(ValueError, match="slope must be None with a cache that keeps its first 2"):
        layer(x, causal=True, cache=attnc.KVCache(window=3, keep=2), **own)


# ---- Rows of their own lengths -------------------------------------------------------------------


@kinds
def test_rows_of_their_own_lengths(kind, rng):
    layer, rows = make(kind, rng), [rng.standard_normal((n, E)) for n in (8, 5, 9)]
    cache, counts = attnc.KVCache(), np.array([[3, 2, 5], [1, 0, 2], [3, 3, 0], [1, 0, 2]])
    at = np.zeros(3, int)
    for new in counts:
        n = new.max()
        x = np.full((3, n, E), np.nan)
        for b in range(3):
            x[b, : new[b]] = rows[b][at[b] : at[b] + new[b]]
        y = layer(x, causal=True, cache=cache, key_lengths=new, query_lengths=new)
        for b in range(3):
            end = at[b] + new[b]
            if new[b]:
                assert_agree(y[b, : new[b]], layer(rows[b][:end], causal=True)[at[b] :])
        at += new
        assert_same(cache.lengths, at)
    assert len(cache) == 9 and np.isfinite(cache._state.keys).all()


def history_call(layer, row, new, window, keep):
    """The outputs of the last `new` tokens of one row, by one call over all of it."""
    if not new:
        return np.zeros((0, E))
    mask = None if window is None else mask_of(window, keep, len(row))[0]
    return layer(np.array(row), causal=True, mask=mask)[len(row) - new :]


@pytest.mark.parametrize("kind", ["groups", "rotary"])
@pytest.mark.parametrize("window, keep", [(None, 0), (3, 0), (4, 2)])
def test_random_histories(kind, window, keep, rng):
    """Tokens come, rows change places, tokens are taken back: as if every call were over all."""
    for _ in range(8):
        layer = make(kind, rng)
        cache, rows = attnc.KVCache(window=window, keep=keep), [[] for _ in range(3)]
        for _ in range(12):
            action = rng.choice(
                ["append", "append", "one", "reorder", "repeat", "truncate", "copy"]
            )
            if action in ("append", "one"):
                n = 1 if action == "one" else int(rng.integers(1, 7))
                counts = rng.integers(0, n + 1, len(rows)) if rng.integers(2) else [n] * len(rows)
                x = np.zeros((len(rows), n, E))
                for b, count in enumerate(counts):
                    x[b, :count] = rng.standard_normal((count, E))
                    rows[b] = [*rows[b], *x[b, :count]]
                y = layer(x, causal=True, cache=cache, key_lengths=counts)
                for b, count in enumerate(counts):
                    expected = history_call(layer, rows[b], count, window, keep)
                    assert_agree(y[b, :count], expected)
                last = counts
            elif len(cache) == 0:
                continue
            elif action == "reorder":
                indices = rng.integers(0, len(rows), rng.integers(1, 5))
                cache.reorder(indices)
                rows, last = [rows[b] for b in indices], [last[b] for b in indices]
            elif action == "repeat" and len(rows) < 4:
                cache.repeat(2)
                rows, last = ([b for b in each for _ in (0, 1)] for each in (rows, last))
            elif action == "truncate":
                back = [int(rng.integers(0, count + 1)) for count in last]
                if window is not None and rng.integers(2):
                    back = last  # all of the last call
                lengths = [len(row) - n for row, n in zip(rows, back, strict=True)]
                cache.truncate(lengths)
                rows = [row[:n] for row, n in zip(rows, lengths, strict=True)]
                last = [count - n for count, n in zip(last, back, strict=True)]
            elif action == "copy":
                other = cache.copy()
                layer(rng.standard_normal((len(rows), 5, E)), causal=True, cache=other)
            assert cache.lengths.tolist() in ([len(row) for row in rows], 0)


# ---- Room ----------------------------------------------------------------------------------------


def test_room_doubles_and_earlier_bits_stay(rng):
    layer, x = make("plain", rng), rng.standard_normal((2, 70, E))
    cache, capacities, before = attnc.KVCache(), set(), None
    for t in range(70):
        layer(x[:, t : t + 1], causal=True, cache=cache)
        now = cache._state.keys[..., : t + 1, :]
        if before is not None:
            assert_same(now[..., :t, :], before)
        before = now.copy()
        capacities.add(cache._state.keys.shape[-2])
    assert capacities == {16, 32, 64, 128}
    assert cache.nbytes == 2 * 8 * 2 * H * (E // H) * 128


def test_nothing_is_copied_where_there_is_room(rng):
    layer, cache = make("groups", rng), attnc.KVCache(8)
    layer(rng.standard_normal((2, 3, E)), cache=cache)
    buffer = cache._state.keys
    k = rng.standard_normal((2, 2, 1, E // H))
    held = cache._extended("here", k, k, 1)
    assert np.shares_memory(held.keys, buffer) and held.keys.shape == (2, 2, 4, E // H)
    assert_same(held.keys[..., 3:, :], k)
    assert len(cache) == 3 and held.state.keys is buffer


def test_full(rng):
    layer, cache = make("plain", rng), attnc.KVCache(max_length=4)
    x = rng.standard_normal((2, 3, E))
    layer(x, cache=cache)
    assert cache._state.keys.shape[-2] == 4
    with pytest.raises(
        ValueError,
        match="^MultiHeadAttention: cache must have room for 6 tokens, got one of max_length 4 that"
        " holds 3$",
    ):
        layer(x, cache=cache)
    assert len(cache) == 3
    layer(x, cache=cache, key_lengths=[1, 0])
    assert_same(cache.lengths, np.array([4, 3]))
    cache.truncate(0)
    layer(x, cache=cache)
    assert len(cache) == 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("window", [None, 4])
def test_stored_in_halves(dtype, window, rng):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    dtype = np.dtype(dtype)
    layer, x = make("groups", rng, "float32"), rng.standard_normal((2, 7, E)).astype(np.float32)
    cache = attnc.KVCache(window=window, dtype=dtype)
    y = [layer(x[:, t : t + 1], causal=True, cache=cache) for t in range(7)]
    assert cache._state.keys.dtype == cache._state.values.dtype == dtype
    assert all(part.dtype == np.float32 for part in y)
    p = layer.parameters
    q, k, v = (
        np.moveaxis(np.tensordot(x, p[f"{n}_weight"], 1) + p[f"{n}_bias"], 2, 1)
        for n in ("query", "key", "value")
    )
    q = q.reshape(2, 2, 3, 7, -1)
    k, v = (array[:, :, None].astype(dtype) for array in (k, v))
    context = attnc.dot_product_attention(
        q, k, v, causal=True, window=None if window is None else (window - 1, None)
    )
    context = np.moveaxis(context.reshape(2, H, 7, -1), 1, 2).reshape(2, 7, -1)
    expected = context @ p["output_weight"].reshape(-1, E) + p["output_bias"]
    np.testing.assert_allclose(np.concatenate(y, axis=1), expected, rtol=0, atol=2e-5)


def test_any_layer_may_store_less_but_not_more(rng):
    wide, narrow = make("plain", rng), make("plain", rng, "float32")
    x = rng.standard_normal((1, 5, E))
    for dtype, digits in (("float32", 1e-6), ("float16", 1e-2)):
        cache = attnc.KVCache(dtype=dtype)
        y = in_steps(wide, x, (2, 3), cache)
        assert y.dtype == np.float64 and cache._state.keys.dtype == dtype
        np.testing.assert_allclose(y, wide(x, causal=True), rtol=0, atol=digits)
    with pytest.raises(
        TypeError,
        match="^MultiHeadAttention: cache must store the layer's float32 or less, got KVC",
    ):
        narrow(x, cache=attnc.KVCache(dtype="float64"))


def test_what_does_not_fit_into_a_half_is_infinite(rng):
    layer, cache = make("plain", rng, "float32"), attnc.KVCache(dtype="float16")
    with np.errstate(all="raise"):
        layer(np.full((1, 2, E), 1e8, np.float32), cache=cache)
    assert np.isinf(cache._state.keys).any()


# ---- A memory ------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("again", [False, True])
def test_a_memory_is_projected_once(kind, lead, again, rng, monkeypatch):
    layer = make(kind, rng)
    x, memory = rng.standard_normal((*lead, 4, E)), rng.standard_normal((*lead, 7, E))
    place = {"causal_offset": 3} if layer.rotary else {}
    cache, projected = attnc.KVCache(), []
    affine = type(layer)._affine
    monkeypatch.setattr(
        type(layer),
        "_affine",
        lambda self, name, *a: projected.append(name) or affine(self, name, *a),
    )
    for t in range(4):
        given = (memory,) if again or t == 0 else ()
        here = {name: offset + t for name, offset in place.items()}
        got = layer(x[..., t : t + 1, :], *given, cache=cache, return_weights=True, **here)
        expected = layer(x[..., t : t + 1, :], memory, return_weights=True, **here)
        assert_agree(got.context, expected.context)
        assert_agree(got.weights, expected.weights)
        del projected[-4:]
        assert projected.count("key") == projected.count("value") == 1
    assert len(cache) == 7


def test_a_memory_of_keys_and_values(rng):
    layer = attnc.MultiHeadAttention(E, H, key_size=3, value_size=5, rng=0, dtype="float64")
    x, key, value = (rng.standard_normal((2, n, s)) for n, s in ((4, E), (6, 3), (6, 5)))
    cache = attnc.KVCache()
    expected = layer(x, key, value)
    assert_agree(layer(x, key, value, cache=cache), expected)
    assert_agree(layer(x, cache=cache), expected)
    assert_agree(layer(x, key.copy(), value.copy(), cache=cache), expected)


def test_a_memory_with_lengths(rng):
    layer, x = make("groups", rng), rng.standard_normal((3, 1, E))
    memory, lengths = rng.standard_normal((3, 6, E)), [4, 0, 6]
    memory[0, 4:] = memory[1] = np.nan
    cache = attnc.KVCache()
    expected = layer(x, memory, key_lengths=lengths)
    assert np.isfinite(expected).all()
    assert_agree(layer(x, memory, key_lengths=lengths, cache=cache), expected)
    assert_agree(layer(x, cache=cache), expected)
    assert_agree(layer(x, key_lengths=lengths, cache=cache), expected)
    mask = rng.random((3, 6)) < 0.5
    assert_agree(
        layer(x, cache=cache, key_mask=mask),
        layer(x, memory, key_lengths=lengths, key_mask=mask),
    )
    with pytest.raises(ValueError, match="key_lengths must be None or those that the cache got"):
        layer(x, key_lengths=[4, 1, 6], cache=cache)
    cache.reorder([2, 0])
    assert_agree(layer(x[[2, 0]], cache=cache), expected[[2, 0]])
    cache.repeat(2)
    assert_agree(layer(x[[2, 2, 0, 0]], cache=cache), expected[[2, 2, 0, 0]])


def test_beams_share_a_memory(rng):
    layer, x, memory = make("plain", rng), rng.standard_normal((4, 1, E)), np.ones((2, 5, E))
    cache = attnc.KVCache()
    layer(x[:2], memory, cache=cache)
    cache.repeat(2)
    keys = cache._state.keys
    cache.reorder([1, 0, 3, 3])  # within each sentence
    assert cache._state.keys is keys
    cache.reorder([2, 2, 0, 1])
    assert cache._state.keys is not keys
    one = attnc.KVCache()
    layer(x, memory[:1], cache=one)  # one memory for all rows
    one.repeat(3)
    one.reorder([5, 1])
    assert len(one._state.keys) == 1
    assert_agree(layer(x, cache=one), layer(x, memory[:1]))


# ---- Changes -------------------------------------------------------------------------------------


def test_truncate(rng):
    layer, x = make("rotary", rng), rng.standard_normal((2, 9, E))
    cache, expected = attnc.KVCache(), layer(x, causal=True)
    layer(x[:, :7], causal=True, cache=cache)
    cache.truncate(20)
    assert len(cache) == 7
    cache.truncate(4)
    assert_agree(layer(x[:, 4:6], causal=True, cache=cache), expected[:, 4:6])
    cache.truncate([3, 5])
    assert_same(cache.lengths, np.array([3, 5]))
    new = np.stack([x[0, 3:5], x[1, 5:7]])
    got = layer(new, causal=True, cache=cache)
    assert_agree(got, np.stack([expected[0, 3:5], expected[1, 5:7]]))


def test_a_window_that_slid_cannot_go_back(rng):
    layer, x = make("plain", rng), rng.standard_normal((1, 20, E))
    cache = attnc.KVCache(window=4, keep=1)
    layer(x[:, :10], causal=True, cache=cache)
    layer(x[:, 10:15], causal=True, cache=cache)
    with pytest.raises(
        ValueError, match="length must be 10 or more, as the window of 4 has slid, g"
    ):
        cache.truncate(9)
    cache.truncate(10)
    got = layer(x[:, 10:], causal=True, cache=cache)
    assert_agree(got, layer(x, causal=True, mask=mask_of(4, 1, 20))[:, 10:])


def test_copies_go_on_by_themselves(rng):
    layer, x = make("groups", rng), rng.standard_normal((2, 6, E))
    cache = attnc.KVCache()
    layer(x[:, :3], causal=True, cache=cache)
    expected = layer(x, causal=True)[:, 3:]
    twins = cache.copy(), copy.copy(cache), copy.deepcopy(cache)
    layer(-x[:, 3:], causal=True, cache=cache)
    for twin in twins:
        assert_agree(layer(x[:, 3:], causal=True, cache=twin), expected)
    other, kept = pickle.loads(pickle.dumps((layer, twins[0])))
    kept.truncate(3)
    assert_agree(other(x[:, 3:], causal=True, cache=kept), expected)


def test_an_empty_cache():
    cache = attnc.KVCache()
    assert len(cache) == 0 and cache.nbytes == 0 and cache.lengths == 0
    cache.truncate(0)
    cache.reorder([0, 1])
    cache.repeat(3)
    assert len(cache.copy()) == 0 and cache._state is None
    assert repr(cache) == "KVCache()"
    cache = attnc.KVCache(window=np.int8(100), keep=np.uint8(100), dtype=np.float16)
    assert repr(cache) == "KVCache(window=100, keep=100, dtype='float16')"
    assert repr(attnc.KVCache(5)) == "KVCache(max_length=5)"


def test_a_model_has_one_cache(rng):
    layers = [make(kind, rng) for kind in ("plain", "groups")]
    memory, x = rng.standard_normal((2, 5, E)), rng.standard_normal((2, 4, E))
    cache = ModelCache([attnc.KVCache(), attnc.KVCache()], [attnc.KVCache()])

    def run(x, cache):
        with cache.unless_failed():
            y = layers[0](x, causal=True, cache=cache.tokens[0])
            y = layers[0](y, memory, cache=cache.memories[0])
            return layers[1](y, causal=True, cache=cache.tokens[1])

    expected = run(x, cache.copy())
    assert len(cache) == 0
    layers[1].query_size = 5  # the second layer refuses
    with pytest.raises(ValueError, match="query must have shape"):
        run(x, cache)
    assert len(cache) == 0 and cache.nbytes == 0
    layers[1].query_size = E
    assert_agree(run(x[:, :2], cache), expected[:, :2])
    layers[1].query_size = 5
    with pytest.raises(ValueError, match="query must have shape"):
        run(x, cache)
    layers[1].query_size = E
    assert len(cache) == 2
    assert cache.nbytes == sum(each.nbytes for each in (*cache.tokens, *cache.memories)) > 0
    twin = cache.copy()
    assert_agree(run(x[:, 2:], cache), expected[:, 2:])
    cache.truncate(3)
    assert_same(cache.lengths, np.array([3, 3]))
    twin.repeat(2)
    twin.reorder([3, 0])
    assert [len(each._state.keys) for each in (*twin.tokens, *twin.memories)] == [2, 2, 2]
    with pytest.raises(ValueError, match=r"indices must lie in 0..1, got 0..2"):
        twin.reorder([0, 2])


# ---- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_cache, error, message",
    [
        (
            lambda: attnc.KVCache(0),
            ValueError,
            "max_length must be an integer of at least 1, got 0",
        ),
        (lambda: attnc.KVCache(2.0), TypeError, "max_length must be an integer of at least 1"),
        (lambda: attnc.KVCache(window=0), ValueError, "window must be an integer of at least 1"),
        (lambda: attnc.KVCache(window=True), TypeError, "window must be an integer of at least 1"),
        (lambda: attnc.KVCache(keep=2), ValueError, "keep must be 0 without window, got 2"),
        (lambda: attnc.KVCache(window=2, keep=-1), ValueError, "keep must be an integer of at lea"),
        (lambda: attnc.KVCache(5, window=2), ValueError, "max_length must be None with window"),
        (lambda: attnc.KVCache(dtype="int8"), TypeError, "dtype must be float16, bfloat16, floa"),
        (lambda: attnc.KVCache(dtype="half16"), TypeError, "dtype must be float16, bfloat16, fl"),
    ],
)
def test_wrong_arguments(make_cache, error, message):
    with pytest.raises(error, match=f"^KVCache: {message}"):
        make_cache()


X = np.ones((2, 3, E))
CALLS = [
    ({"cache": {}}, "cache must be None or a KVCache, got {}"),
    ({"causal_offset": 1}, "causal_offset must be None with a cache, which knows the positions"),
    ({"key": X}, "key must be None with a cache of self-attention, got one"),
    ({"key_lengths": [4, 1]}, r"key_lengths must lie in 0..3, got 1..4"),
    ({"key_lengths": [1]}, None),
    ({"key_lengths": [1, 2, 3]}, r"key_lengths must have shape \(2,\) with a cache, each axis"),
    ({"key_lengths": np.ones((2, H), int)}, r"key_lengths must have shape \(2,\) with a cache"),
    ({"key_lengths": [0.5, 1]}, "key_lengths must be integers"),
    (
        {"query": X[:1]},
        r"query must have the leading axes \(2,\) of what the cache holds, got \(1,",
    ),
    ({"query": X[0]}, r"query must have the leading axes \(2,\) of what the cache holds, got \(\)"),
    ({"mask": np.ones((2, 3, 3), bool)}, r"mask must have 3 axes .* = \(2, 3, 7\), or with heads"),
    ({"key_mask": np.ones((2, 3), bool)}, r"key_mask must have 2 axes .* = \(2, 7\), or with he"),
    ({"softcap": -1.0}, "softcap must be"),
    ({"masks": None}, "there is no argument 'masks'"),
]


@pytest.mark.parametrize("window, keep", [(None, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("call, message", CALLS, ids=[str(k) for k in range(len(CALLS))])
def test_a_failed_call_changes_nothing(call, message, window, keep, rng):
    layer, x = make("groups", rng), rng.standard_normal((2, 10, E))
    cache = attnc.KVCache(window=window, keep=keep)
    layer(x[:, :4], causal=True, cache=cache)
    call = {"query": X, "causal": True, "cache": cache} | call
    if message is None:
        layer(**call)
        assert_same(cache.lengths, np.array([5, 5]))
        return
    with pytest.raises((TypeError, ValueError), match=message):
        layer(**call)
    assert len(cache) == 4
    mask = None if window is None else mask_of(window, keep, 10)
    for t in range(4, 10):
        got = layer(x[:, t : t + 1], causal=True, cache=cache)
        with pytest.raises((TypeError, ValueError), match="softcap"):
            layer(x[:, t : t + 1], softcap="1", cache=cache)
        assert_agree(got[:, 0], layer(x, causal=True, mask=mask)[:, t])


def test_a_first_call_that_fails_leaves_a_cache_to_others(rng):
    one, other, cache = make("plain", rng), make("plain", rng), attnc.KVCache()
    for arrays in ((X,), (X, X)):
        with pytest.raises((TypeError, ValueError), match="softcap"):
            one(*arrays, cache=cache, softcap=-1)
    other(X, cache=cache)
    with pytest.raises(
        ValueError,
        match="^MultiHeadAttention: cache must be new or of this layer, got one that another "
        "MultiHeadAttention has used",
    ):
        one(X, cache=cache)


def test_no_gradients(rng):
    with pytest.raises(ValueError, match="^MultiHeadAttention: cache must be None for gradients"):
        attnc.vjp(make("plain", rng), X, cache=attnc.KVCache())


def test_what_a_memory_refuses(rng):
    layer, memory = make("plain", rng), rng.standard_normal((2, 5, E))
    for wrong, message in (
        (attnc.KVCache(window=3), "cache must have no window for a memory, got KVCache"),
        (attnc.KVCache(3), "cache must have room for a memory of 5 steps, got KVCache"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(X, memory, cache=wrong)
        assert wrong._state is None
    cache = attnc.KVCache(5)
    layer(X, memory, cache=cache)
    with pytest.raises(ValueError, match="key must be None or the memory that the cache was made"):
        layer(X, memory + 1, cache=cache)
    with pytest.raises(ValueError, match="value must be None or the memory that the cache was ma"):
        layer(X, memory, memory, cache=cache)
    with pytest.raises(ValueError, match=r"cache must have the leading axes of query \(3, 3, 12\)"):
        layer(np.ones((3, 3, E)), cache=cache)
    with pytest.raises(ValueError, match="cache must hold tokens that were seen, got one of a mem"):
        cache.truncate(2)
    cache.repeat(2)
    with pytest.raises(ValueError, match="key must be None or the memory that the cache was made"):
        layer(np.ones((4, 3, E)), memory, cache=cache)
    with pytest.raises(ValueError, match="causal_offset must be given with a memory in a cache"):
        make("rotary", rng)(X, memory, cache=attnc.KVCache())


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda c: c.truncate(-1), ValueError, "truncate: length must be 0 or more, got -1"),
        (lambda c: c.truncate(1.5), TypeError, "truncate: length must be integers"),
        (lambda c: c.truncate([1]), ValueError, r"truncate: length must be an integer or have sh"),
        (lambda c: c.reorder([0, 2]), ValueError, r"reorder: indices must lie in 0..1, got 0..2"),
        (lambda c: c.reorder([-1]), ValueError, r"reorder: indices must lie in 0..1, got -1..-1"),
        (lambda c: c.reorder(1), ValueError, r"reorder: indices must have shape \(n,\), got \(\)"),
        (lambda c: c.reorder([0.0]), TypeError, "reorder: indices must be integers"),
        (lambda c: c.repeat(0), ValueError, "repeat: n must be an integer of at least 1, got 0"),
        (lambda c: c.repeat(1.5), TypeError, "repeat: n must be an integer of at least 1"),
    ],
)
def test_wrong_changes(change, error, message, rng):
    cache = attnc.KVCache()
    make("plain", rng)(X, cache=cache)
    with pytest.raises(error, match=message):
        change(cache)
    assert_same(cache.lengths, np.array([3, 3]))


def test_a_single_sequence_has_no_rows(rng):
    cache = attnc.KVCache()
    make("plain", rng)(X[0], cache=cache)
    for change in (lambda: cache.reorder([0]), lambda: cache.repeat(2)):
        with pytest.raises(ValueError, match="cache must be of inputs with a leading axis"):
            change()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [(None, 1), (1, 0), (2, None), (None, None)])
def test_windows_of_the_call_and_of_the_cache(window, causal):
    """The first keys that are kept count as any other for the window of the call."""
    layer = attnc.MultiHeadAttention(8, 2, rng=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, 9, 8))
    cache, calls = attnc.KVCache(window=4, keep=2), [(0, 5), (5, 6), (6, 9)]
    options = {"window": window, "causal": causal}
    got = [layer(x[:, begin:end], cache=cache, **options) for begin, end in calls]
    i, j = np.arange(9)[:, None], np.arange(9)
    end = np.repeat([5, 6, 9], [5, 1, 3])[:, None]  # what has come by then
    allowed = ((j < 2) | (i - j < 4)) & (j < end) & ((j <= i) | (not causal))
    left, right = (9 if n is None else n for n in window)
    allowed &= (i - j <= left) & (j - i <= right)
    full = layer(x, mask=np.broadcast_to(allowed, (2, 9, 9)))
    np.testing.assert_allclose(np.concatenate(got, axis=1), full, atol=1e-12)


@pytest.mark.parametrize("keep", [0, 2])
@pytest.mark.parametrize("window", [(1, -3), (1.5, 1), (True, 1), (), (1,), "ab", 5])
def test_a_wrong_window_of_the_call(window, keep):
    layer, cache = attnc.MultiHeadAttention(8, 2, rng=0), attnc.KVCache(window=4, keep=keep)
    with pytest.raises((TypeError, ValueError), match="MultiHeadAttention: window must be"):
        layer(np.ones((1, 3, 8)), causal=True, cache=cache, window=window)
    assert len(cache) == 0


def test_no_new_tokens_for_rows_of_different_lengths():
    layer, cache = attnc.MultiHeadAttention(8, 2, rng=0), attnc.KVCache()
    layer(np.ones((2, 3, 8)), causal=True, cache=cache, key_lengths=[2, 3])
    assert layer(np.ones((2, 0, 8)), causal=True, cache=cache).shape == (2, 0, 8)
    assert cache.lengths.tolist() == [2, 3]


@pytest.mark.parametrize("keep", [0, 2])
def test_a_failed_call_does_not_slide_the_window(keep):
    """What was there before can be gone back to, as if the call had never been."""
    layer = attnc.MultiHeadAttention(8, 2, rng=0)
    x = np.random.default_rng(0).standard_normal((1, 9, 8))
    cache = attnc.KVCache(window=3, keep=keep)
    for t in range(8):
        layer(x[:, t : t + 1], causal=True, cache=cache)
    twin = cache.copy()
    with pytest.raises(ValueError, match="softcap"):
        layer(x[:, :4], causal=True, cache=cache, softcap=-1.0)
    for each in (cache, twin):
        each.truncate(7)
    np.testing.assert_array_equal(
        *(layer(x[:, 8:], causal=True, cache=each) for each in (cache, twin))
    )


@pytest.mark.parametrize("keep", [0, 2])
def test_a_call_of_a_model_that_fails_late(keep):
    """The first layer has its new tokens, and a slid window, when the second one refuses."""
    model = attnc.TransformerDecoder(2, 8, 2, 8, rng=0)
    x = np.random.default_rng(0).standard_normal((1, 9, 8))
    cache = model.new_cache(window=3, keep=keep)
    for t in range(8):
        model(x[:, t : t + 1], x, cache=cache)
    twin = cache.copy()
    with pytest.raises(ValueError, match="mask"):
        model(x[:, :4], x, cache=cache, memory_mask=np.ones((1, 4, 3), bool))
    for each in (cache, twin):
        each.truncate(7)
    np.testing.assert_array_equal(*(model(x[:, 8:], x, cache=each) for each in (cache, twin)))


def test_a_window_without_end():
    """Memory grows with the tokens, not with what a window might come to hold."""
    layer = attnc.MultiHeadAttention(8, 2, rng=0)
    x = np.random.default_rng(0).standard_normal((1, 3, 8))
    for window in (10**9, sys.maxsize):
        cache = attnc.KVCache(window=window)
        assert_same(layer(x, causal=True, cache=cache), layer(x, causal=True))
        assert cache.nbytes < 10_000

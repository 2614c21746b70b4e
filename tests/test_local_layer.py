"""The layer LocalAttention: local-m and local-p of Luong et al. 2015."""

import numpy as np
import pytest
from checks import assert_agree, assert_same
from layer_checks import check_float32, check_house, check_layer, randomize

import attnc

SCORES = ["multiplicative", "additive", "dot", "cosine"]
POSITIONS = {
    "predictive": {},
    "renormalized": {"renormalize": True, "position_size": 3},
    "monotonic": {"position": "monotonic"},
}
scores = pytest.mark.parametrize("score", SCORES)
positions = pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS)
B, TQ, TK, DQ, DK = 2, 4, 11, 5, 6


def make(score, position, rng, dtype="float64", **more):
    key_size = DK if "tive" in score else DQ
    layer = attnc.LocalAttention(
        DQ, key_size, score=score, width=2, rng=0, dtype=dtype, **position, **more
    )
    return randomize(layer, rng)


def arrays(layer, rng, lead=(B,), TQ=TQ, TK=TK):
    shapes = (*lead, TQ, layer.query_size), (*lead, TK, layer.key_size), (*lead, TK, 3)
    return tuple(rng.standard_normal(shape) for shape in shapes)


def by_hand(layer, query, key, value, lengths):
    """Luong et al. 2015, eq. 7 to 10, one query at a time."""
    parameters, D = layer.parameters, layer.width
    contexts = np.zeros((*query.shape[:-1], value.shape[-1]))
    for b, S in enumerate(lengths):
        for t, h in enumerate(query[b]):
            place = float(t)
            if layer.position == "predictive":
                hidden = np.tanh(h @ parameters["position_weight"])
                place = (S - 1) / (1 + np.exp(-(parameters["position_vector"] @ hidden)))
            window = np.arange(int(place) - D, int(place) + D + 1)
            window = window[(window >= 0) & (window < S)]
            if not len(window):
                continue
            k = key[b, window]
            if layer.score == "multiplicative":
                s = k @ (h @ parameters["weight"])
            elif layer.score == "additive":
                s = np.tanh(h @ parameters["query_weight"] + k @ parameters["key_weight"])
                s = s @ parameters["score_vector"]
            else:
                s = k @ h
            if layer.score == "cosine":
                s = s * parameters["scale"] / (np.linalg.norm(k, axis=-1) * np.linalg.norm(h))
            gaussian = np.exp(-((window - place) ** 2) / (2 * (D / 2) ** 2))
            if layer.position == "monotonic":
                gaussian[:] = 1
            weights = np.exp(s - s.max())
            if layer.renormalize:
                weights *= gaussian
                gaussian[:] = 1
            contexts[b, t] = weights / weights.sum() * gaussian @ value[b, window]
    return contexts


@positions
@scores
def test_is_the_paper(score, position, rng):
    layer = make(score, position, rng)
    query, key, value = arrays(layer, rng)
    for lengths in ([TK, TK], [TK, 7], [0, 3]):
        expected = by_hand(layer, query, key, value, lengths)
        assert_agree(layer(query, key, value, key_lengths=lengths), expected)
        mask = np.arange(TK) < np.array(lengths)[:, None]
        assert_agree(layer(query, key, value, key_mask=mask), expected)
        both = {"key_mask": mask, "key_lengths": [TK, 5]}
        expected = by_hand(layer, query, key, value, np.minimum(lengths, [TK, 5]))
        assert_agree(layer(query, key, value, **both), expected)


def test_a_key_that_is_masked_in_between_counts(rng):
    """The real length ends with the last key that is allowed."""
    layer = make("dot", {}, rng)
    query, key, _ = arrays(layer, rng)
    mask = np.ones((B, TK), bool)
    mask[:, 3] = mask[0, -2:] = False
    assert_agree(
        layer.centers(query, key, key_mask=mask),
        layer.centers(query, key, key_lengths=[TK - 2, TK]),
    )
    mask[:, 3:6] = False  # both masks count: none allows a key behind
    assert_agree(
        layer.centers(query, key, key_mask=mask, key_lengths=5),
        layer.centers(query, key, key_lengths=3),
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"key_lengths": [7, 3], "return_weights": True},
        {"key_mask": np.arange(TK) % 4 != 3, "softcap": 2.0, "causal": True},
        {"slope": np.array([0.1, 0.3]), "sink": np.array([0.2]), "query_lengths": [4, 2]},
        {"bias": np.linspace(-1, 1, TQ * TK).reshape(1, TQ, TK), "return_lse": True},
        {"train": True, "rng": 3},
    ],
    ids=lambda options: ",".join(options),
)
@positions
@scores
def test_gradients(score, position, options, rng):
    layer = make(score, position, rng)
    layer.dropout = 0.3
    if "key_mask" in options:
        options = options | {"key_mask": np.broadcast_to(options["key_mask"], (B, TK)).copy()}
    check_layer(layer, arrays(layer, rng), options, rng)


@positions
def test_memory_and_leading_axes(position, rng):
    layer = make("multiplicative", position, rng)
    for lead in ((), (2, 3), (0,)):
        query, key, _ = arrays(layer, rng, lead)
        check_layer(layer, (query, key), {}, rng)
    query, key, value = arrays(layer, rng)
    check_layer(layer, (query[:1], key, value), {"key_lengths": [3, 9]}, rng)
    check_layer(layer, (query, key[:1], value[:1]), {"key_lengths": np.array([9])}, rng)


@positions
@scores
def test_house(score, position, rng, tmp_path):
    layer = make(score, position, rng)
    check_house(layer, tmp_path)
    check_float32(make(score, position, rng, "float32"), arrays(layer, rng), {"key_lengths": 9})


@positions
def test_one_query_at_a_time(position, rng):
    """As a decoder has them: a monotonic place is given by causal_offset."""
    layer = make("multiplicative", position, rng)
    query, key, value = arrays(layer, rng)
    whole = layer(query, key, value, key_lengths=[11, 6])
    for t in range(TQ):
        offset = {"causal_offset": t} if layer.position == "monotonic" else {}
        one = layer(query[:, t : t + 1], key, value, key_lengths=[11, 6], **offset)
        assert_agree(one, whole[:, t : t + 1])
    if layer.position == "monotonic":
        by_row = layer(query[:, 2:3].repeat(2, 1), key, value, causal_offset=np.array([2, 1]))
        assert_agree(by_row[0, :1], layer(query, key, value)[0, 2:3])


def test_positions_of_causal_and_slope(rng):
    """Both count from the same place as a monotonic window."""
    layer = make("dot", POSITIONS["monotonic"], rng)
    query, key, value = arrays(layer, rng)
    options = {"causal": True, "slope": 0.3}
    got = layer(query, key, value, **options)
    expected = attnc.dot_product_attention(
        query, key, value, scale=1, window=(2, 2), causal_offset=0, **options
    )
    assert_agree(got, expected)


@positions
@pytest.mark.parametrize("masked", [False, True])
def test_packed_is_padded(position, masked, rng):
    layer = make("additive", position, rng)
    queries, keys = [3, 0, 4], [11, 5, 2]
    q, k = (np.append(0, np.cumsum(n)) for n in (queries, keys))
    query, key, value = arrays(layer, rng, (), q[-1], k[-1])
    mask = np.arange(k[-1]) % 5 != 1 if masked else None
    got = layer(query, key, value, query_offsets=q, key_offsets=k, key_mask=mask)
    for b in range(3):
        i, j = slice(q[b], q[b + 1]), slice(k[b], k[b + 1])
        own = None if mask is None else mask[j]
        assert_agree(got[i], layer(query[i], key[j], value[j], key_mask=own))
    options = {"query_offsets": q, "key_offsets": k, "key_mask": mask}
    check_layer(layer, (query, key, value), options, rng)


@positions
def test_nothing_there(position, rng):
    layer = make("multiplicative", position, rng)
    for Tq, Tk in ((0, 3), (3, 0), (0, 0)):
        query, key, value = arrays(layer, rng, TQ=Tq, TK=Tk)
        context, pullback = attnc.vjp(layer, query, key, value, key_lengths=0)
        assert context.shape == (B, Tq, 3) and not context.any()
        assert [x.shape for x in pullback(context)] == [query.shape, key.shape, value.shape]


def test_masked_memory_is_not_read(rng):
    layer = make("multiplicative", {}, rng)
    query, key, value = arrays(layer, rng)
    expected, pullback = attnc.vjp(layer, query, key, value, key_lengths=[5, 8])
    gradients = pullback(expected)
    key[0, 5:] = value[1, 8:] = np.nan
    got, pullback = attnc.vjp(layer, query, key, value, key_lengths=[5, 8])
    assert_same(got, expected)
    assert_same(tuple(pullback(expected)), tuple(gradients))


@positions
def test_queries_that_are_masked_are_not_read(position, rng):
    layer = make("multiplicative", position, rng)
    query, key, value = arrays(layer, rng)
    options = {"query_lengths": [2, TQ], "key_lengths": [TK, 0]}
    expected, pullback = attnc.vjp(layer, query, key, value, **options)
    layer.zero_grad()
    gradients = tuple(pullback(expected))
    of_parameters = {name: x.copy() for name, x in layer.gradients.items()}
    query[0, 2:] = query[1] = np.nan  # padding, and what may attend to nothing
    got, pullback = attnc.vjp(layer, query, key, value, **options)
    layer.zero_grad()
    assert_same(got, expected)
    assert_same(tuple(pullback(expected)), gradients)
    for name, x in layer.gradients.items():
        assert_same(x, of_parameters[name])


def test_centers(rng):
    layer = make("dot", {}, rng)
    query, key, _ = arrays(layer, rng)
    centers = layer.centers(query, key, key_lengths=[TK, 4])
    assert centers.dtype == np.float64 and centers.shape == (B, TQ)
    assert ((centers > 0) & (centers < np.array([[TK - 1], [3]]))).all()
    layer.parameters["position_vector"][:] = 0
    assert_agree(layer.centers(query, key), np.full((1, TQ), (TK - 1) / 2)[:, :TQ].repeat(2, 0))
    monotonic = make("dot", POSITIONS["monotonic"], rng)
    assert_agree(monotonic.centers(query, key), np.arange(4.0)[None])


@pytest.mark.parametrize(
    "make, kind, message",
    [
        ({"score": "general"}, ValueError, "score must be one of 'multiplicative', 'additive', "),
        ({"position": None}, TypeError, "position must be one of 'predictive', 'monotonic', got N"),
        ({"width": 0}, ValueError, "width must be an integer of at least 1, got 0"),
        ({"width": 2.0}, TypeError, "width must be an integer"),
        ({"score": "dot"}, ValueError, "key_size must equal query_size for score='dot', got 6 and"),
        ({"hidden_size": 3}, ValueError, "hidden_size must be None for score='multiplicative'"),
        ({"position_size": 0}, ValueError, "position_size must be a positive integer, got 0"),
        ({"renormalize": 1}, TypeError, "renormalize must be True or False, got 1"),
        ({"dropout": 1.0}, ValueError, "dropout must lie"),
        (
            {"position": "monotonic", "renormalize": True},
            ValueError,
            "renormalize must be False for position='monotonic', got True",
        ),
        (
            {"position": "monotonic", "position_size": 3},
            ValueError,
            "position_size must be None for position='monotonic', got 3",
        ),
    ],
)
def test_wrong_layers(make, kind, message):
    with pytest.raises(kind, match=f"^LocalAttention: {message}"):
        attnc.LocalAttention(DQ, DK, **make)


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({"window": (1, 1)}, TypeError, "there is no argument 'window': the layer has its own"),
        ({"center": 1.0}, TypeError, "there is no argument 'center'"),
        ({"normalizer": "sparsemax"}, TypeError, "normalizer': windows around a place belong to"),
        ({"key_lengths": [99, 1]}, ValueError, "key_lengths must lie in 0..11"),
        ({"key_lengths": [1, 2, 3]}, ValueError, "key_lengths must have 1 axes"),
        ({"key_mask": np.ones((B, 3), bool)}, ValueError, "key_mask must have 2 axes"),
        ({"key_mask": np.ones((B, TK))}, TypeError, "key_mask must be boolean"),
        (
            {"query_offsets": [0, 9], "key_offsets": [0, 11]},
            ValueError,
            "query_offsets must end with 4",
        ),
        ({"query_offsets": [1, 4], "key_offsets": [0, 11]}, ValueError, "query_offsets must begin"),
        ({"causal_offset": 1.5}, TypeError, "causal_offset must be (an integer|integers)"),
        ({"masks": 1}, TypeError, "there is no argument 'masks'"),
    ],
    ids=lambda x: str(x)[:20],
)
@positions
def test_wrong_calls(position, options, kind, message, rng):
    layer = make("multiplicative", position, rng)
    with pytest.raises(kind, match=message):
        layer(*arrays(layer, rng), **options)

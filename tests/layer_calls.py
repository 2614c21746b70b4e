"""A call of every layer, or some: what makes it, in float64 and small, its inputs and its options.

defines: CASES, Case, draw, bools
"""

import copy
import inspect

import numpy as np
from layer_checks import randomize

import attnc
from attnc.layers.named import place

F64 = {"dtype": "float64"}


def draw(*shape):
    """Random numbers, the same for the same shape."""
    return np.random.default_rng(sum(shape) + 31 * len(shape)).standard_normal(shape)


def bools(*shape, seed=0):
    mask = np.random.default_rng(seed).random(shape) < 0.7
    mask[..., 0] = True
    return mask


QUERY, KEY, VALUE = draw(2, 3, 4), draw(2, 5, 4), draw(2, 5, 6)
WORDS = draw(2, 5, 4)
TOKENS, LABELS = np.array([[1, 4, 2, 0], [3, 1, 1, 0]]), np.array([[4, 2, 1, 0], [1, 1, 5, 0]])
DROPS = {"train": True, "rng": 5}
LOCAL = {"width": 2, **F64}
SMOOTH = {"encoder_layers": 1, "decoder_layers": 2, "activation": "gelu"}


def model(name, **options):
    if name == "Seq2Seq":
        return attnc.Seq2Seq(6, 6, 4, 4, rng=0, **{**F64, **options})
    if name == "LanguageModel":
        return attnc.LanguageModel(6, 4, 2, 2, rng=0, **{**F64, **options})
    return attnc.Transformer(6, 6, 4, 2, rng=0, **{**F64, **SMOOTH, **options})


def tied_pair():
    first, second = attnc.Linear(4, 3, rng=0, **F64), attnc.Linear(3, 4, rng=1, **F64)
    second.tie("weight", first, "weight", transpose=True)
    return attnc.Sequential(first, second)


def frozen():
    feedforward = attnc.FeedForward(4, 5, activation="gelu", rng=0, **F64)
    feedforward.freeze("hidden.*")
    return attnc.Residual(feedforward)


def dot(**options):
    return attnc.DotProductAttention(**{**F64, **options})


# For each layer its cases: what makes it, its inputs, its options.
CASES = {
    "AdditiveAttention": {
        "all outputs": (
            lambda: attnc.AdditiveAttention(4, 4, 5, score_bias=True, rng=0, **F64),
            [QUERY, KEY, VALUE],
            {"return_weights": True, "return_lse": True, "causal": True, "bias": draw(2, 3, 5)},
        ),
    },
    "AttentionDecoder": {
        "bahdanau": (
            lambda: attnc.AttentionDecoder(4, 3, 4, rng=0, **F64),
            [QUERY, KEY],
            {"key_lengths": [5, 3]},
        ),
        "lstm from a state": (
            lambda: attnc.AttentionDecoder(
                4,
                3,
                4,
                cell="lstm",
                attention="multiplicative",
                order="luong",
                layers=2,
                rng=0,
                input_feeding=True,
                **F64,
            ),
            [QUERY, KEY, (draw(2, 2, 3), draw(2, 2, 3) / 2)],
            {"key_mask": bools(2, 5)},
        ),
        "no attention": (
            lambda: attnc.AttentionDecoder(
                4, 3, 4, attention="none", summary="first_state", rng=0, **F64
            ),
            [QUERY, KEY],
            {"key_lengths": [5, 2]},
        ),
        "coverage": (
            lambda: attnc.AttentionDecoder(
                4, 4, 4, attention="cosine", coverage="fertility", rng=0, **F64
            ),
            [QUERY, KEY],
            {},
        ),
        "local": (
            lambda: attnc.AttentionDecoder(
                4,
                4,
                4,
                attention="dot",
                order="luong",
                window=2,
                position="predictive",
                rng=0,
                **F64,
            ),
            [QUERY, KEY],
            {},
        ),
        "chunkwise in training": (
            lambda: attnc.AttentionDecoder(
                4, 3, 4, alignment="chunkwise", order="luong", rng=0, **F64
            ),
            [QUERY, KEY],
            DROPS,
        ),
    },
    "AttentionOnAttention": {
        "padded": (
            lambda: attnc.AttentionOnAttention(dot(), 4, 6, 5, rng=0),
            [QUERY, KEY, VALUE],
            {"query_lengths": [3, 1], "return_weights": True},
        ),
    },
    "AttentionOverAttention": {
        "masked": (
            lambda: attnc.AttentionOverAttention(**F64),
            [QUERY, KEY, VALUE],
            {"key_mask": bools(2, 5), "query_lengths": [3, 2], "return_weights": True},
        ),
    },
    "AttentionPooling": {
        "weights": (
            lambda: attnc.AttentionPooling(4, 3, dropout=0.3, rng=0, **F64),
            [WORDS],
            {"key_lengths": [5, 2], "return_weights": True, **DROPS},
        ),
    },
    "AveragePool2d": {
        "overlap": (lambda: attnc.AveragePool2d(3, stride=2, **F64), [draw(2, 2, 5, 6)], {})
    },
    "ChunkwiseAttention": {
        "noise": (
            lambda: attnc.ChunkwiseAttention(4, 4, 2, rng=0, **F64),
            [QUERY, KEY, VALUE],
            {"key_lengths": [5, 3], **DROPS},
        ),
    },
    "Convolution2d": {
        "padded": (
            lambda: attnc.Convolution2d(2, 3, 3, padding=1, rng=0, **F64),
            [draw(2, 2, 4, 5)],
            {},
        ),
        "windows apart": (
            lambda: attnc.Convolution2d(2, 3, (2, 1), stride=(1, 2), bias=False, rng=0, **F64),
            [draw(2, 2, 4, 5)],
            {},
        ),
    },
    "CosineAttention": {
        "dropped": (
            lambda: attnc.CosineAttention(3.0, dropout=0.4, **F64),
            [QUERY, KEY],
            {"softcap": 2.0, **DROPS},
        ),
    },
    "DotProductAttention": {
        "options with gradients": (
            dot,
            [QUERY, KEY, VALUE],
            {
                "bias": draw(2, 3, 5),
                "slope": np.array([0.3]),
                "sink": draw(2),
                "mask": bools(2, 3, 5),
                "return_lse": True,
            },
        ),
        "a center": (
            dot,
            [QUERY, KEY, VALUE],
            {"center": np.array([[0.6, 2.3, 3.4]]), "window": (2, 2), "renormalize": True},
        ),
        "sparse": (dot, [QUERY, KEY, VALUE], {"normalizer": "entmax15"}),
    },
    "Dropout": {"dropped": (lambda: attnc.Dropout(0.5, **F64), [WORDS], DROPS)},
    "Embedding": {
        "padding": (lambda: attnc.Embedding(6, 4, padding_index=0, rng=0, **F64), [TOKENS], {}),
    },
    "FeatureMap": {"plain": (lambda: attnc.FeatureMap(2, 3, **F64), [draw(2, 6, 4)], {})},
    "FeedForward": {
        kind: (
            lambda kind=kind: attnc.FeedForward(4, 5, activation=kind, dropout=0.3, rng=0, **F64),
            [WORDS],
            DROPS,
        )
        for kind in ("relu", "gelu", "gelu_tanh", "swiglu")
    },
    "GRU": {
        "two directions": (
            lambda: attnc.GRU(4, 3, 2, True, dropout=0.4, rng=0, **F64),
            [WORDS, draw(4, 2, 3)],
            {"lengths": [5, 3], **DROPS},
        ),
    },
    "GatedAttention": {
        "weights": (
            lambda: attnc.GatedAttention(
                dot(dropout=0.2), attnc.CosineAttention(dropout=0.2, **F64), 4, rng=0
            ),
            [QUERY, KEY, VALUE],
            {"query_lengths": [3, 2], "return_weights": True, **DROPS},
        ),
    },
    "HardAttention": {
        "drawn": (
            lambda: attnc.HardAttention(4, 4, soft_probability=0.0, rng=0, **F64),
            [QUERY, KEY, VALUE],
            {"bias": draw(2, 3, 5), **DROPS},
        ),
        "soft": (
            lambda: attnc.HardAttention(4, 4, score="cosine", evaluation="soft", **F64),
            [QUERY, KEY],
            {"center": np.array([[0.6, 2.3, 3.4]]), "window": (1, 1)},
        ),
    },
    "HierarchicalAttention": {
        "encoded": (
            lambda: attnc.HierarchicalAttention(4, 2, 3, dropout=0.3, rng=0, **F64),
            [draw(2, 3, 4, 4), [[4, 2, 0], [1, 3, 2]]],
            {"return_weights": True, **DROPS},
        ),
    },
    "ImageRegions": {"plain": (lambda: attnc.ImageRegions(**F64), [draw(2, 4, 2, 3)], {})},
    "LSTM": {
        "a state": (
            lambda: attnc.LSTM(4, 3, rng=0, **F64),
            [WORDS, (draw(1, 2, 3), None), [5, 3]],
            {},
        ),
    },
    "LanguageModel": {
        "logits": (
            lambda: model("LanguageModel", dropout=0.2),
            [TOKENS],
            {"return_weights": True, **DROPS},
        ),
        "loss": (
            lambda: model("LanguageModel", positions="rotary", tied=True, padding_index=0),
            [TOKENS],
            {"labels": LABELS, "label_smoothing": 0.1},
        ),
    },
    "LayerNorm": {"bias": (lambda: attnc.LayerNorm(4, **F64), [WORDS], {})},
    "LearnedBaseline": {
        "features": (lambda: attnc.estimators.LearnedBaseline(4, **F64), [WORDS], {})
    },
    "LearnedPositions": {
        "offsets": (
            lambda: attnc.LearnedPositions(9, 4, rng=0, **F64),
            [WORDS],
            {"offset": [1, 4]},
        ),
    },
    "Linear": {"bias": (lambda: attnc.Linear(4, 3, rng=0, **F64), [WORDS], {})},
    "LocalAttention": {
        score: (
            lambda score=score: attnc.LocalAttention(4, 4, score=score, rng=0, **LOCAL),
            [QUERY, KEY, VALUE],
            {"key_lengths": [5, 4], "return_weights": True},
        )
        for score in ("multiplicative", "additive", "dot", "cosine")
    },
    "MaxPool2d": {"overlap": (lambda: attnc.MaxPool2d(3, stride=2, **F64), [draw(2, 2, 5, 6)], {})},
    "MonotonicAttention": {
        "additive": (
            lambda: attnc.MonotonicAttention(4, 4, rng=0, **F64),
            [QUERY, KEY],
            {"previous": np.abs(draw(2, 5)) / 9, "key_mask": bools(2, 5)},
        ),
        "dot": (
            lambda: attnc.MonotonicAttention(4, 4, score="dot", **F64),
            [QUERY, KEY, VALUE],
            DROPS,
        ),
    },
    "MultiHeadAttention": {
        "heads of all kinds": (
            lambda: attnc.MultiHeadAttention(
                4,
                4,
                head_size=2,
                num_kv_heads=2,
                normalize_qk=True,
                rotary=True,
                dropout=0.2,
                rng=0,
                **F64,
            ),
            [QUERY, KEY],
            {"bias": draw(2, 4, 3, 5), "return_weights": True, "return_lse": True, **DROPS},
        ),
        "self-attention": (
            lambda: attnc.MultiHeadAttention(4, 2, rng=0, **F64),
            [QUERY],
            {"causal": True, "slope": np.array([[0.2, 0.5]])},
        ),
    },
    "MultiplicativeAttention": {
        "packed": (
            lambda: attnc.MultiplicativeAttention(4, 4, rng=0, **F64),
            [draw(5, 4), draw(5, 4)],
            {"query_offsets": [0, 2, 5]},
        ),
    },
    "RMSNorm": {"scale": (lambda: attnc.RMSNorm(4, **F64), [WORDS], {})},
    "RNN": {"plain": (lambda: attnc.RNN(4, 3, rng=0, **F64), [WORDS], {})},
    "RelativePositionBias": {
        "both directions": (
            lambda: attnc.RelativePositionBias(2, buckets=6, max_distance=5, rng=0, **F64),
            [3, 4],
            {},
        ),
    },
    "Residual": {"frozen": (frozen, [WORDS], {})},
    "SelfAttention": {
        "dropped": (
            lambda: attnc.SelfAttention(4, 3, 2, dropout=0.3, rng=0, **F64),
            [WORDS],
            {"bias": draw(2, 5, 5), **DROPS},
        ),
    },
    "Seq2Seq": {
        "logits": (
            lambda: model("Seq2Seq", cell="lstm", dropout=0.2),
            [TOKENS, LABELS, [3, 4]],
            DROPS,
        ),
        "loss": (
            lambda: model("Seq2Seq", tied=True, padding_index=0),
            [TOKENS, TOKENS],
            {"labels": LABELS},
        ),
    },
    "Sequential": {
        "of everything": (
            lambda: attnc.Sequential(
                attnc.Embedding(6, 4, rng=0, **F64),
                attnc.SinusoidalPositions(4, **F64),
                attnc.LayerNorm(4, **F64),
                attnc.Residual(attnc.SelfAttention(4, rng=0, **F64)),
                attnc.Dropout(0.2, **F64),
                attnc.Linear(4, 2, rng=0, **F64),
            ),
            [TOKENS],
            DROPS,
        ),
        "tied": (tied_pair, [WORDS], {}),
        "empty": (lambda: empty(), [WORDS], {}),
    },
    "SinusoidalPositions": {
        "plain": (lambda: attnc.SinusoidalPositions(4, **F64), [WORDS], {}),
    },
    "Transformer": {
        "logits": (
            lambda: model("Transformer", dropout=0.2, positions="learned", max_length=9),
            [TOKENS, LABELS],
            {"return_weights": True, **DROPS},
        ),
        "loss": (
            lambda: model("Transformer", tied=True, padding_index=0, norm="pre"),
            [TOKENS, TOKENS],
            {"labels": LABELS},
        ),
    },
    "TransformerDecoder": {
        "weights": (
            lambda: attnc.TransformerDecoder(
                2, 4, 2, 5, norm="pre", activation="gelu", rng=0, **F64
            ),
            [QUERY, KEY],
            {"query_lengths": [3, 2], "key_lengths": [5, 1], "return_weights": True},
        ),
    },
    "TransformerDecoderLayer": {
        "in training": (
            lambda: attnc.TransformerDecoderLayer(4, 2, 5, dropout=0.2, rng=0, **F64),
            [QUERY, KEY],
            {"bias": draw(2, 3, 3), **DROPS},
        ),
    },
    "TransformerEncoder": {
        "in training": (
            lambda: attnc.TransformerEncoder(
                2, 4, 2, 5, activation="swiglu", normalization="rms", dropout=0.2, rng=0, **F64
            ),
            [WORDS],
            {"key_lengths": [5, 3], "return_weights": True, **DROPS},
        ),
    },
    "TransformerEncoderLayer": {
        "rotary": (
            lambda: attnc.TransformerEncoderLayer(
                4, 2, 5, norm="pre", activation="gelu", rotary=True, num_kv_heads=1, rng=0, **F64
            ),
            [WORDS],
            {"causal": True, "bias": draw(2, 5, 5)},
        ),
    },
}
EACH = [(name, case) for name, cases in CASES.items() for case in cases]


def empty():
    layer = attnc.Sequential()
    layer.dtype = np.dtype(np.float64)
    return layer


class Case:
    """A layer with random parameters, its call, and a direction in all that is real."""

    def __init__(self, name, case):
        make, self.arrays, self.options = CASES[name][case]
        self.rng = np.random.default_rng(2)
        self.layer = randomize(make(), self.rng)
        names = list(inspect.signature(self.layer._vjp).parameters)
        self.given = dict(zip(names, self.arrays, strict=False)) | self.options
        self.tangents = {name: self._direction(value) for name, value in self.given.items()}
        # An array that has several names has a direction under the first.
        places = {place(array): name for name, array in [*self.layer.parameters.items()][::-1]}
        for name in places.values():
            array = self.layer.parameters[name]
            self.tangents[name] = self.rng.standard_normal(array.shape)
        self.tangents = {name: t for name, t in self.tangents.items() if t is not None}

    def _direction(self, value):
        if isinstance(value, tuple) and any(hasattr(x, "shape") for x in value):
            return tuple(map(self._direction, value))
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return self.rng.standard_normal(value.shape)
        return None

    def at(self, step):
        """A layer and the arguments of its call, so many steps in the direction."""
        layer = copy.deepcopy(self.layer)
        given = {name: _moved(x, step, self.tangents.get(name)) for name, x in self.given.items()}
        for name, array in layer.parameters.items():
            array += step * self.tangents.get(name, 0)
        arrays = [given[name] for name in list(given)[: len(self.arrays)]]
        return layer, arrays, {name: given[name] for name in self.options}


def _moved(value, step, direction):
    if direction is None:
        return value
    if isinstance(value, tuple):
        return tuple(_moved(x, step, d) for x, d in zip(value, direction, strict=True))
    return value + step * direction

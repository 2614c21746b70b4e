"""Models in one file: what `attnc.save` keeps, and what `attnc.load` refuses."""

import copy
import inspect
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from checks import assert_same, python

import attnc
from attnc.data import Vocabulary
from attnc.files import MODEL
from attnc.layers.base import Layer


class Scale(Layer):
    """A layer of one's own."""

    def __init__(self, size, dtype="float32"):
        super().__init__(dtype)
        self.size = size
        self.add_parameter("factor", np.ones(size))

    def _vjp(self, x, *, train=False):
        factor = self.parameters["factor"]

        def pullback(dy):
            self.add_gradient("factor", (x * dy).reshape(-1, self.size).sum(0))
            return attnc.gradients.Gradients({"x": dy * factor})

        return x * factor, pullback


class Everything(Layer):
    """Constructor arguments of every kind."""

    def __init__(self, first, /, *layers, table, pair=(1, 2), activation=np.tanh, **options):
        super().__init__("float64")
        self.first, self.layers, self.table, self.pair = first, layers, table, pair
        self.activation, self.options = activation, options


LAYERS = {
    "DotProductAttention": lambda: attnc.DotProductAttention(2.5, dropout=0.1),
    "MultiplicativeAttention": lambda: attnc.MultiplicativeAttention(3, 4, rng=0),
    "AdditiveAttention": lambda: attnc.AdditiveAttention(
        3, 4, 5, score_bias=True, dtype="float64", rng=0
    ),
    "CosineAttention": lambda: attnc.CosineAttention(7),
    "MonotonicAttention": lambda: attnc.MonotonicAttention(3, 4, hidden_size=5, noise=0.5, rng=0),
    "ChunkwiseAttention": lambda: attnc.ChunkwiseAttention(
        4, 4, 3, score="cosine", offset=-4, dtype="float64", rng=0
    ),
    "MultiHeadAttention": lambda: attnc.MultiHeadAttention(
        6, 4, key_size=5, head_size=3, num_kv_heads=2, projection_bias=True, rng=0
    ),
    "AttentionPooling": lambda: attnc.AttentionPooling(4, 3, dropout=0.1, rng=0),
    "HierarchicalAttention": lambda: attnc.HierarchicalAttention(4, 3, dropout=0.1, rng=0),
    "AttentionOnAttention": lambda: attnc.AttentionOnAttention(
        attnc.AdditiveAttention(3, 4, 5, rng=0, dtype="float64"), 3, 4, 2, rng=0
    ),
    "AttentionOverAttention": lambda: attnc.AttentionOverAttention(dtype="float64"),
    "GatedAttention": lambda: attnc.GatedAttention(
        attnc.MultiplicativeAttention(3, 3, rng=0), attnc.CosineAttention(7), 3, rng=0
    ),
    "LocalAttention": lambda: attnc.LocalAttention(
        3, 4, score="additive", width=2, position_size=5, hidden_size=2, dropout=0.1, rng=0
    ),
    "HardAttention": lambda: attnc.HardAttention(
        3, 4, hidden_size=5, soft_probability=0.25, evaluation="soft", dtype="float64", rng=0
    ),
    "SelfAttention": lambda: attnc.SelfAttention(4, 3, rng=0),
    "RNN": lambda: attnc.RNN(3, 4, rng=0),
    "GRU": lambda: attnc.GRU(3, 4, 2, True, dropout=0.1, rng=0),
    "LSTM": lambda: attnc.LSTM(3, 4, dtype="float64", rng=0),
    "AttentionDecoder": lambda: attnc.AttentionDecoder(
        3, 4, 5, cell="lstm", order="luong", input_feeding=True, coverage=True, layers=2, rng=0
    ),
    "Seq2Seq": lambda: attnc.Seq2Seq(9, 8, 4, 6, padding_index=0, dropout=0.2, layers=2, rng=0),
    "Linear": lambda: attnc.Linear(3, 2, bias=False, rng=0),
    "Embedding": lambda: attnc.Embedding(5, 4, 1, rng=0),
    "Convolution2d": lambda: attnc.Convolution2d(
        2, 3, (3, 2), stride=2, padding=(1, 0), bias=False, rng=0
    ),
    "MaxPool2d": lambda: attnc.MaxPool2d((2, 3), stride=1),
    "AveragePool2d": lambda: attnc.AveragePool2d(2, dtype="float64"),
    "ImageRegions": lambda: attnc.ImageRegions(dtype="float64"),
    "FeatureMap": lambda: attnc.FeatureMap(2, 3),
    "LayerNorm": lambda: attnc.LayerNorm(3, epsilon=1e-3, bias=False),
    "RMSNorm": lambda: attnc.RMSNorm(3, dtype="float64"),
    "FeedForward": lambda: attnc.FeedForward(
        3, 5, activation="swiglu", bias=False, dropout=0.1, output_size=2, rng=0
    ),
    "SinusoidalPositions": lambda: attnc.SinusoidalPositions(3, base=100),
    "RelativePositionBias": lambda: attnc.RelativePositionBias(2, buckets=8, rng=0),
    "LearnedPositions": lambda: attnc.LearnedPositions(5, 3, rng=0),
    "TransformerEncoderLayer": lambda: attnc.TransformerEncoderLayer(
        8, 2, 5, norm="pre", normalization="rms", num_kv_heads=1, rotary=True, dropout=0.1, rng=0
    ),
    "TransformerDecoderLayer": lambda: attnc.TransformerDecoderLayer(6, 2, 5, bias=False, rng=0),
    "TransformerEncoder": lambda: attnc.TransformerEncoder(2, 6, 2, 5, final_norm=True, rng=0),
    "TransformerDecoder": lambda: attnc.TransformerDecoder(
        2, 6, 2, 5, norm="pre", activation="swiglu", dtype="float64", rng=0
    ),
    "Transformer": lambda: attnc.Transformer(
        9,
        8,
        6,
        2,
        encoder_layers=1,
        decoder_layers=2,
        padding_index=0,
        dropout=0.2,
        positions="learned",
        max_length=7,
        rng=0,
    ),  # fmt: skip
    "LanguageModel": lambda: attnc.LanguageModel(9, 8, 2, 2, positions="rotary", rng=0),
    "Dropout": lambda: attnc.Dropout(0.25, dtype="float64"),
    "Sequential": lambda: attnc.Sequential(
        attnc.Linear(3, 3, rng=0), attnc.Residual(attnc.Sequential(attnc.Dropout(0.5)))
    ),
    "Residual": lambda: attnc.Residual(attnc.Linear(3, 3, rng=0)),
}


def kept(tmp_path, layer, classes=(), **options):
    """What comes back."""
    attnc.save(tmp_path / "model", layer, **options)
    assert [found.name for found in tmp_path.iterdir()] == ["model"]
    return attnc.load(tmp_path / "model", classes=classes)


def test_there_is_a_case_for_every_layer():
    public = {name: getattr(attnc, name) for name in attnc.layers.__all__}
    kinds = {name: thing for name, thing in public.items() if isinstance(thing, type)}
    layers = {name for name, kind in kinds.items() if issubclass(kind, attnc.Layer)}
    assert LAYERS.keys() == layers - {"Layer"}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name, tmp_path):
    layer = LAYERS[name]()
    saved = kept(tmp_path, layer)
    assert type(saved.layer) is type(layer) and repr(saved.layer) == repr(layer)
    assert saved.layer.dtype == layer.dtype
    assert_same(saved.layer.state_dict(), layer.state_dict())
    assert (saved.optimizer, saved.vocabularies, saved.step) == (None, {}, None)


def test_an_empty_sequence_of_layers(tmp_path):
    assert repr(kept(tmp_path, attnc.Sequential()).layer) == "Sequential()"


def test_a_layer_of_ones_own(tmp_path):
    layer = attnc.Sequential(Scale(3), attnc.Linear(3, 2, rng=0))
    layer.parameters["layers.0.factor"] = [1, 2, 3]
    with pytest.raises(ValueError, match=r"load: classes must hold Scale, which the file has"):
        kept(tmp_path, layer)
    saved = kept(tmp_path, layer, classes=[Scale])
    assert type(saved.layer.layers[0]) is Scale
    assert_same(saved.layer.state_dict(), layer.state_dict())


def test_constructor_arguments_of_every_kind(tmp_path):
    inside = [{"a": (attnc.Dropout(0.5), None)}, Scale(2)]
    layer = Everything(
        np.float32(0.1), Scale(3), *inside, table=np.arange(6.0).reshape(2, 3).T,
        ü=1 + 2**70, nan=float("nan"), text="\ud800\0 日本", dtype=np.dtype("int8"), flag=True,
    )  # fmt: skip
    got = kept(tmp_path, layer, classes=(Scale, Everything)).layer
    assert type(got.first) is np.float32 and got.first == layer.first
    assert [type(each) for each in got.layers] == [Scale, dict, Scale]
    assert got.layers[1]["a"][0].rate == 0.5 and got.layers[1]["a"][1] is None
    assert_same(got.table, layer.table)
    assert got.pair == (1, 2) and type(got.pair) is tuple and got.activation is np.tanh
    assert repr(got.options) == repr(layer.options)
    got.table[:] = 0  # an array of its own


# ---- Training on ---------------------------------------------------------------------------------


def model():
    rng = np.random.default_rng(3)
    made = attnc.Seq2Seq(12, 12, 8, 12, layers=2, dropout=0.3, padding_index=0, rng=rng)
    made.output.tie("weight", attnc.Linear(12, 12, rng=rng), "weight")  # with one outside
    return made


def train(made, optimizer, first, last, rng=None):
    for step in range(first, last):
        own = np.random.default_rng([5, step]) if rng is None else rng
        source = own.integers(1, 12, (4, 6))
        _, pullback = attnc.vjp(
            made, source, source, labels=source, train=True, sampling=0.2, rng=own
        )
        optimizer.zero_grad()
        pullback()
        attnc.optim.clip_gradients(made, 1.0)
        optimizer.step()


OPTIMIZERS = {
    "adam": lambda layers: attnc.optim.Adam(layers, 0.01, betas=(0.8, 0.99), epsilon=1e-7),
    "adamw": lambda layers: attnc.optim.AdamW(layers, 0.01, without_decay=["*bias"]),
    "sgd": lambda layers: attnc.optim.SGD(layers, 0.1),
    "momentum": lambda layers: attnc.optim.SGD(layers, 0.1, momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("parts", [False, True])
def test_the_same_bits_as_without_saving_in_between(name, parts, tmp_path):
    made = model()
    optimizer = OPTIMIZERS[name]([made.encoder, made.decoder, made.output] if parts else made)
    train(made, optimizer, 0, 4)
    optimizer.learning_rate *= 0.5
    attnc.save(tmp_path / "model", made, optimizer=optimizer, step=4)
    code = f"""
import numpy as np
import attnc

{inspect.getsource(train)}
saved = attnc.load({str(tmp_path / "model")!r})
train(saved.layer, saved.optimizer, saved.step, 8)
print(saved.optimizer.steps)
attnc.save({str(tmp_path / "more")!r}, saved.layer, optimizer=saved.optimizer)
"""
    assert python(code) == "8"
    train(made, optimizer, 4, 8)
    saved = attnc.load(tmp_path / "more")
    assert_same(saved.layer.state_dict(), made.state_dict())
    assert_same(saved.optimizer.state_dict(), optimizer.state_dict())


def test_a_generator_goes_on_by_its_own_state(tmp_path):
    made, rng = model(), np.random.default_rng(1)
    optimizer = attnc.optim.Adam(made)
    train(made, optimizer, 0, 2, rng)
    saved = kept(tmp_path, made, optimizer=optimizer)
    again = np.random.default_rng()
    again.bit_generator.state = json.loads(json.dumps(rng.bit_generator.state))
    train(made, optimizer, 2, 4, rng)
    train(saved.layer, saved.optimizer, 2, 4, again)
    assert_same(saved.layer.state_dict(), made.state_dict())


# ---- Tied, frozen, changed -----------------------------------------------------------------------


def same_array(layer, one, other):
    return np.shares_memory(layer.parameters[one], layer.parameters[other]) and np.shares_memory(
        layer.gradients[one], layer.gradients[other]
    )


def test_tied_parameters_stay_tied(tmp_path):
    made = attnc.Seq2Seq(9, 9, 6, 6, rng=0)
    made.output.tie("weight", made.target_embedding, "weight", transpose=True)
    made.source_embedding.tie("weight", made.target_embedding, "weight")
    got = kept(tmp_path, made).layer
    assert same_array(got, "output.weight", "target_embedding.weight")
    assert same_array(got, "source_embedding.weight", "target_embedding.weight")
    assert got.parameters["target_embedding.weight"].flags.c_contiguous
    assert_same(got.state_dict(), made.state_dict())
    assert got.parameter_count == made.parameter_count
    with np.load(tmp_path / "model") as file:
        assert sum("embedding" in name or "output.weight" in name for name in file) == 1


def test_a_layer_in_two_places(tmp_path):
    made, square = attnc.Seq2Seq(9, 9, 6, 6, rng=0), attnc.Linear(3, 3, rng=0)
    made.target_embedding = made.source_embedding
    got = kept(tmp_path, made).layer
    assert same_array(got, "source_embedding.weight", "target_embedding.weight")
    made = attnc.Sequential(square, attnc.Linear(3, 3, rng=1), square)
    made.layers[1].tie("weight", square, "weight", transpose=True)
    got = kept(tmp_path, made).layer
    assert same_array(got, "layers.0.weight", "layers.2.weight")
    x = np.random.default_rng(0).standard_normal((2, 3))
    assert_same(got(x), made(x))


def test_frozen_parameters_stay_frozen(tmp_path):
    made = attnc.Seq2Seq(9, 9, 6, 6, rng=0).freeze("encoder.*", "output.bias")
    got = kept(tmp_path, made).layer
    assert got.frozen_parameters == made.frozen_parameters and len(got.frozen_parameters) == 9


def test_changed_arguments_of_layers_inside(tmp_path):
    made = attnc.Seq2Seq(9, 9, 6, 6, layers=2, rng=0)
    made.encoder.dropout = 0.75
    made.target_embedding.padding_index = 3
    got = kept(tmp_path, made).layer
    assert got.encoder.dropout == 0.75 and got.dropout == 0
    assert got.target_embedding.padding_index == 3 and got.source_embedding.padding_index is None


def test_an_optimiser_that_missed_steps(tmp_path):
    made = attnc.Sequential(attnc.Linear(2, 2, rng=0), attnc.Linear(2, 2, rng=1))
    optimizer = attnc.optim.Adam(made)
    made.freeze("layers.0.*")
    for _ in range(3):
        optimizer.step()
    got = kept(tmp_path, made, optimizer=optimizer).optimizer
    assert got.state_dict()["missed.layers.0.weight"] == 3
    assert_same(got.state_dict(), optimizer.state_dict())


# ---- Vocabularies and the rest -------------------------------------------------------------------


class Letters:
    def __init__(self, letters):
        self.letters = letters

    def state(self):
        return {"letters": self.letters}

    @classmethod
    def from_state(cls, state):
        return cls(state["letters"])


def test_vocabularies(tmp_path):
    given = {"quellé": Vocabulary(["日本", "", "\0", "ü"]), "target": Letters("abc")}
    saved = kept(tmp_path, attnc.Linear(2, 2), classes=[Letters], vocabularies=given, step=2**40)
    assert saved.vocabularies["quellé"] == given["quellé"] and saved.step == 2**40
    assert saved.vocabularies["target"].letters == "abc" and list(saved.vocabularies) == [*given]
    assert saved._fields == ("layer", "optimizer", "vocabularies", "step")


def test_a_file_is_the_same_each_time(tmp_path):
    """Nothing in it depends on when and where it was written."""
    made = LAYERS["Seq2Seq"]()
    for name in "ab":
        attnc.save(tmp_path / name, made, optimizer=attnc.optim.Adam(made))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_saving_leaves_everything_as_it_was(tmp_path):
    made = model()
    optimizer, rng = attnc.optim.Adam(made), copy.deepcopy(np.random.get_state()[1])
    train(made, optimizer, 0, 1)
    before = made.state_dict(), dict(copy.deepcopy(made.gradients)), optimizer.state_dict()
    kept(tmp_path, made, optimizer=optimizer)
    assert_same((made.state_dict(), dict(made.gradients), optimizer.state_dict()), before)
    assert_same(np.random.get_state()[1], rng)


def test_a_failure_leaves_the_earlier_file_alone(tmp_path):
    made = attnc.Linear(2, 2, rng=0)
    before = made.state_dict()
    attnc.save(tmp_path / "model", made)
    made.parameters["weight"] = np.zeros((2, 2))
    for wrong in ({"step": -1}, {"optimizer": attnc.optim.SGD(attnc.Linear(1, 1), 0.1)}):
        with pytest.raises(ValueError):
            attnc.save(tmp_path / "model", made, **wrong)
    with pytest.raises(FileNotFoundError):
        attnc.save(tmp_path / "nowhere" / "model", made)
    assert_same(attnc.load(tmp_path / "model").layer.state_dict(), before)
    assert [found.name for found in tmp_path.iterdir()] == ["model"]


# ---- What save refuses ---------------------------------------------------------------------------


class Forgetful(Layer):
    def __init__(self, size):
        super().__init__()


class Doubled(Layer):
    """Its attribute is not what the constructor takes."""

    def __init__(self, size):
        super().__init__()
        self.size = 2 * size
        self.add_parameter("weight", np.zeros(self.size))


def with_change(change):
    made = attnc.Seq2Seq(9, 9, 6, 6, rng=0)
    change(made)
    return made


def scheduled():
    optimizer = attnc.optim.SGD(LAYER, 0.1)
    optimizer.learning_rate = lambda step: 0.1 / step
    return optimizer


def holding_itself():
    made = attnc.Sequential(attnc.Linear(2, 2))
    made.layers.append(made)
    return made


LAYER = attnc.Linear(2, 2, rng=0)
UNSAVED = {
    "no layer": (lambda: [3], TypeError, "save: layer must be a Layer, got int"),
    "layers": (
        lambda: [[LAYER]],
        TypeError,
        r"save: layer must be a Layer, got list \(Sequential holds several\)",
    ),
    "forgotten": (
        lambda: [Forgetful(3)],
        ValueError,
        "save: Forgetful.size must be an attribute that keeps the constructor argument, got none",
    ),
    "another attribute": (lambda: [Doubled(3)], ValueError, "misshapen: weight"),
    "a function": (
        lambda: [Everything(1, table=0, activation=np.sin)],
        TypeError,
        "save: Everything.activation must be None, a number, .*, got <ufunc 'sin'>",
    ),
    "a function in an option": (
        lambda: [Everything(1, table=0, f=[len])],
        TypeError,
        "save: Everything.options must be None, .* <built-in function len>",
    ),
    "objects": (
        lambda: [Everything(1, table=np.array([{}]))],
        TypeError,
        "save: Everything.table must be",
    ),
    "another layer inside": (
        lambda: [with_change(lambda m: setattr(m, "encoder", attnc.LSTM(6, 6)))],
        ValueError,
        "the constructor of Seq2Seq makes GRU where encoder is a LSTM",
    ),
    "one layer more": (
        lambda: [with_change(lambda m: setattr(m, "more", attnc.Linear(2, 2)))],
        ValueError,
        "the constructor of Seq2Seq makes none where more is a Linear",
    ),
    "one parameter more": (
        lambda: [with_change(lambda m: m.add_parameter("more", 1.0))],
        ValueError,
        "unexpected: more",
    ),
    "a layer that holds itself": (
        lambda: [holding_itself()],
        ValueError,
        "save: layers must not hold themselves, got Sequential",
    ),
    "two classes of one name": (
        lambda: [attnc.Sequential(Scale(1), type("Scale", (Scale,), {})(1))],
        ValueError,
        "save: classes must differ in names, got two Scale",
    ),
    "an optimiser of others": (
        lambda: [LAYER, {"optimizer": attnc.optim.Adam(attnc.Linear(2, 2))}],
        ValueError,
        "save: optimizer must be of the layer that is saved or of layers inside",
    ),
    "no optimiser": (
        lambda: [LAYER, {"optimizer": 3}],
        TypeError,
        "save: optimizer must be one of attnc.optim, got int",
    ),
    "a schedule": (
        lambda: [LAYER, {"optimizer": scheduled()}],
        TypeError,
        "SGD: learning_rate must be 0 or more, got <function",
    ),
    "vocabularies without names": (
        lambda: [LAYER, {"vocabularies": Vocabulary(["a"])}],
        TypeError,
        "save: vocabularies must be a dict of them by name, got Vocabulary",
    ),
    "a list for a vocabulary": (
        lambda: [LAYER, {"vocabularies": {"source": ["a"]}}],
        TypeError,
        r"save: vocabularies must have state\(\) and from_state\(state\), got list for source",
    ),
    "a number for a name": (
        lambda: [LAYER, {"vocabularies": {3: Vocabulary(["a"])}}],
        TypeError,
        "save: vocabularies must have strings for names, got 3",
    ),
    "a state beyond JSON": (
        lambda: [LAYER, {"vocabularies": {"source": Letters(("a", "b"))}}],
        TypeError,
        "save: vocabularies must have states that JSON holds, got Letters for source",
    ),
    "half a step": (lambda: [LAYER, {"step": 0.5}], TypeError, "save: step must be an integer"),
    "steps back": (lambda: [LAYER, {"step": -1}], ValueError, "save: step must be an integer"),
}


@pytest.mark.parametrize("case", UNSAVED)
def test_save_refuses(case, tmp_path):
    given, error, message = UNSAVED[case]
    layer, *options = given()
    with pytest.raises(error, match=message):
        attnc.save(tmp_path / "model", layer, **(options[0] if options else {}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [None, 3, True])
def test_only_paths(path):
    with pytest.raises(TypeError):
        attnc.save(path, LAYER)
    with pytest.raises(TypeError):
        attnc.load(path)


# ---- What load refuses ---------------------------------------------------------------------------


def test_files_of_the_two_ways_to_save(tmp_path):
    LAYER.save(tmp_path / "parameters")
    with pytest.raises(
        ValueError, match=r"load: path must be a file of attnc.save, .*layer.load\(path\)"
    ):
        attnc.load(tmp_path / "parameters")
    attnc.save(tmp_path / "model", LAYER)
    with pytest.raises(
        ValueError, match=r"Linear.load: path must be .* attnc.save wrote \(attnc.load reads it\)"
    ):
        attnc.Linear(2, 2).load(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="nothing"):
        attnc.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    "classes, error",
    [
        (Scale, TypeError),
        (3, TypeError),
        (["Scale"], TypeError),
        ([os.system], TypeError),
        ([dict], TypeError),
        ([Scale, type("Scale", (Scale,), {})], ValueError),
    ],
)
def test_classes(classes, error, tmp_path):
    attnc.save(tmp_path / "model", LAYER)
    with pytest.raises(error, match="load: classes must "):
        attnc.load(tmp_path / "model", classes=classes)
    assert repr(attnc.load(tmp_path / "model", classes=[Scale, Scale]).layer) == repr(LAYER)


def whole_file(tmp_path):
    """A model with one of everything, and the file as arrays."""
    made = attnc.Sequential(
        attnc.Embedding(5, 4, rng=0), attnc.Dropout(0.5), attnc.Linear(4, 5, rng=0), Scale(5)
    )
    made.tie("layers.2.weight", made, "layers.0.weight", transpose=True)
    made.layers[1].rate = 0.25
    optimizer = attnc.optim.Adam(made)
    made.freeze("layers.3.factor")
    optimizer.step()
    vocabularies = {"source": Vocabulary(["a", "b"])}
    attnc.save(tmp_path / "good", made, optimizer=optimizer, vocabularies=vocabularies, step=1)
    with np.load(tmp_path / "good") as file:
        arrays = dict(file)
    return made, json.loads(bytes(arrays.pop(MODEL))), arrays


def write(path, model, arrays, compress=False):
    """A file with whatever it says, and the checksums that it would have."""
    from attnc.saving import _checksum

    if isinstance(model, dict):
        model = {**model, "arrays": {name: _checksum(array) for name, array in arrays.items()}}
    text = model if isinstance(model, bytes) else json.dumps(model).encode()
    savez = np.savez_compressed if compress else np.savez
    savez(path, **{MODEL: np.frombuffer(text, np.uint8)}, **arrays)


def outcome(path):
    """All that comes of a file, to compare; None where it is refused, by name."""
    try:
        saved = attnc.load(path, classes=[Scale])
    except ValueError as error:
        assert str(error).startswith("load: ") and (
            os.fspath(path) in str(error) or "classes must hold" in str(error)
        )
        return None
    state = saved.layer.state_dict(), saved.optimizer.state_dict(), saved.vocabularies["source"]
    return repr(saved.layer), saved.layer.layers[1].rate, *state, saved.step


def assert_equal_or_refused(path, right):
    got = outcome(path)
    if got is not None:
        assert got[0] == right[0] and got[1] == right[1] and got[4:] == right[4:]
        assert_same(got[2:4], right[2:4])
    return got is not None


def test_the_file_that_is_damaged_below(tmp_path):
    made, model, arrays = whole_file(tmp_path)
    got = outcome(tmp_path / "good")
    assert got[1] == 0.25 and got[5] == 1
    assert_same(got[2], made.state_dict())
    write(tmp_path / "same.npz", model, arrays)
    assert assert_equal_or_refused(tmp_path / "same.npz", got)


def in_call(model, **changes):
    model["layer"]["arguments"]["layers"][2]["arguments"].update(changes)


HOSTILE = {
    "another format": lambda m, a: m.update(format="other"),
    "a version that is none": lambda m, a: m.update(version="1"),
    "a true version": lambda m, a: m.update(version=True),
    "no layer": lambda m, a: m.pop("layer"),
    "os.system": lambda m, a: m["layer"].update({"class": "os.system"}),
    "attnc.os.system": lambda m, a: m["layer"].update({"class": "attnc.os.system"}),
    "builtins.eval": lambda m, a: m["layer"].update({"class": "builtins.eval"}),
    "eval": lambda m, a: m["layer"].update({"class": "eval"}),
    "a private class": lambda m, a: m["layer"].update({"class": "_Optimizer"}),
    "a list for a class": lambda m, a: m["layer"].update({"class": ["attnc.Linear"]}),
    "an optimiser for a layer": lambda m, a: m["layer"].update({"class": "attnc.optim.SGD"}),
    "a layer for an optimiser": lambda m, a: m["optimizer"].update({"class": "attnc.Linear"}),
    "a function of the package": lambda m, a: m["layer"].update({"class": "attnc.beam_search"}),
    "a class for a vocabulary": lambda m, a: m["vocabularies"]["source"].update(
        {"class": "attnc.Linear"}
    ),
    "a wrong vocabulary": lambda m, a: m["vocabularies"]["source"].update(state={"words": 3}),
    "an argument too many": lambda m, a: in_call(m, more=1),
    "an argument too few": lambda m, a: m["layer"]["arguments"]["layers"][2]["arguments"].pop(
        "input_size"
    ),
    "an unknown kind": lambda m, a: in_call(m, input_size={"code": "print()"}),
    "an argument of no array": lambda m, a: in_call(m, input_size={"array": "arguments.9"}),
    "an argument of a parameter": lambda m, a: in_call(
        m, input_size={"array": "parameters.layers.0.weight"}
    ),
    "a path for an array": lambda m, a: in_call(m, input_size={"array": "../../etc/passwd"}),
    "lists in lists": lambda m, a: m["layer"].update(arguments={"layers": nested(500)}),
    "arguments in a list": lambda m, a: m["layer"].update(arguments=[3]),
    "huge sizes": lambda m, a: in_call(m, input_size=10**9, output_size=10**9),
    "huge sizes of an embedding": lambda m, a: m["layer"]["arguments"]["layers"][0][
        "arguments"
    ].update(vocabulary_size=10**7),
    "many layers": lambda m, a: m["layer"]["arguments"]["layers"].append(
        {"class": "attnc.GRU", "arguments": {"input_size": 1, "state_size": 1, "layers": 10**9}}
    ),
    "many layers of a decoder": lambda m, a: m["layer"]["arguments"]["layers"].append(
        {
            "class": "attnc.AttentionDecoder",
            "arguments": {"input_size": 1, "state_size": 1, "memory_size": 1, "layers": 10**12},
        }
    ),
    "sizes beyond all": lambda m, a: in_call(m, input_size=10**400),
    "changed what is not there": lambda m, a: m["changed"].update({"layers.9.": {"rate": 0.1}}),
    "changed what is no argument": lambda m, a: m["changed"].update({"layers.1.": {"_vjp": 1}}),
    "changed a size": lambda m, a: m["changed"].update({"layers.2.": {"output_size": 6}}),
    "changed a rate to none": lambda m, a: m["changed"].update({"layers.1.": {"rate": 7}}),
    "tied to nothing": lambda m, a: m["tied"].update({"layers.2.weight": ["nothing", True]}),
    "tied to another": lambda m, a: m["tied"].update({"layers.2.bias": ["layers.0.weight", False]}),
    "frozen by a pattern": lambda m, a: m["frozen"].append("*"),
    "frozen by a number": lambda m, a: m["frozen"].append(3),
    "trained from a place that is none": lambda m, a: m["optimizer"].update(layers="nowhere."),
    "half a step": lambda m, a: m.update(step=0.5),
    "a parameter less": lambda m, a: a.pop("parameters.layers.2.bias"),
    "a parameter more": lambda m, a: a.update({"parameters.more": np.ones(2)}),
    "another dtype": lambda m, a: a.update(
        {"parameters.layers.2.bias": a["parameters.layers.2.bias"].astype(np.float64)}
    ),
    "integers": lambda m, a: a.update({"parameters.layers.2.bias": np.zeros(5, int)}),
    "a moment below zero": lambda m, a: a.update(
        {"optimizer.v.layers.2.bias": np.full(5, -1, np.float32)}
    ),
    "steps that are none": lambda m, a: a.update({"optimizer.steps": np.array(-1)}),
    "more steps missed than made": lambda m, a: a.update(
        {"optimizer.missed.layers.3.factor": np.array(9)}
    ),
}  # fmt: skip


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("case", HOSTILE)
def test_load_refuses(case, tmp_path):
    _, model, arrays = whole_file(tmp_path)
    HOSTILE[case](model, arrays)
    write(tmp_path / "bad.npz", model, arrays)
    assert outcome(tmp_path / "bad.npz") is None


def test_a_later_version_is_named(tmp_path):
    _, model, arrays = whole_file(tmp_path)
    write(tmp_path / "bad.npz", {**model, "version": 2, "layer": "of a kind to come"}, arrays)
    with pytest.raises(
        ValueError, match=r"of version 1 or before, .* of version 2 \(a later attnc"
    ):
        attnc.load(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": "attnc.save"}',
    ],
)
def test_texts_that_are_none(text, tmp_path):
    _, _, arrays = whole_file(tmp_path)
    write(tmp_path / "bad.npz", text, arrays)
    assert outcome(tmp_path / "bad.npz") is None


BURST = []


def burst():
    BURST.append(1)


class Bomb:
    def __reduce__(self):
        return burst, ()


def test_pickles_are_not_read(tmp_path):
    _, model, arrays = whole_file(tmp_path)
    arrays["parameters.layers.2.bias"] = np.array([Bomb()], dtype=object)
    content = {MODEL: np.frombuffer(json.dumps(model).encode(), np.uint8), **arrays}
    np.savez(tmp_path / "bad.npz", **content)
    assert outcome(tmp_path / "bad.npz") is None
    (tmp_path / "bad.npz").write_bytes(pickle.dumps(Bomb()))
    assert outcome(tmp_path / "bad.npz") is None
    assert not BURST
    pickle.loads(pickle.dumps(Bomb()))
    assert BURST.pop()  # it would have been noticed


def test_what_is_compressed_is_refused(tmp_path):
    """A file of a few bytes could stand for all memory."""
    _, model, arrays = whole_file(tmp_path)
    write(tmp_path / "bad.npz", model, arrays, compress=True)
    with pytest.raises(ValueError, match="bad.npz.* not compressed"):
        attnc.load(tmp_path / "bad.npz")


def members(path):
    with zipfile.ZipFile(path) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


def rewrite(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content)


def headed(shape, descr="<f4"):
    file = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_exchanged_renamed_or_not_what_they_say(tmp_path):
    whole_file(tmp_path)
    right = outcome(tmp_path / "good")
    entries = members(tmp_path / "good")
    bad = tmp_path / "bad"
    rewrite(bad, entries)
    assert assert_equal_or_refused(bad, right)
    rewrite(bad, entries[::-1])
    assert assert_equal_or_refused(bad, right)  # their order does not count
    for k, (name, content) in enumerate(entries):
        others = entries[:k] + entries[k + 1 :]
        for changed in (
            [],
            [(name, content)] * 2,
            [(name.upper(), content)],
            [(f"../{name}", content)],
            [(name.removesuffix(".npy"), content)],
            [(name, b"")],
            [(name, content[:-1])],
            [(name, content + b"\0")],
            [(name, headed((10**12,)))],
            [(name, headed((2**63, 2**63)))],
            [(name, headed((-1,)) + b"\0" * 4)],
            [(name, headed((0,)))],
            [(name, headed((1,), "|O") + pickle.dumps([Bomb()]))],
        ):
            rewrite(bad, others + changed)
            assert outcome(bad) is None, (name, changed)
        for j in range(k):
            swapped = list(entries)
            swapped[k], swapped[j] = (name, entries[j][1]), (entries[j][0], content)
            rewrite(bad, swapped)
            assert_equal_or_refused(bad, right)  # equal where both are, as zeros are
    assert not BURST
    pickle.loads(pickle.dumps(Bomb()))
    assert BURST.pop()  # it would have been noticed


def test_a_damaged_file_is_refused_or_equal(tmp_path, rng):
    """One wrong byte, or an end too soon, at random places: never a part of a model."""
    whole_file(tmp_path)
    right = outcome(tmp_path / "good")
    content, bad = (tmp_path / "good").read_bytes(), tmp_path / "bad"
    for place in rng.integers(0, len(content), 400):
        damaged = bytearray(content)
        damaged[place] ^= int(rng.integers(1, 256))
        bad.write_bytes(damaged)
        assert_equal_or_refused(bad, right)
    for place in rng.integers(0, len(content), 100):
        bad.write_bytes(content[:place])
        assert outcome(bad) is None
        bad.write_bytes(content[place:] + content[:place])
        assert_equal_or_refused(bad, right)

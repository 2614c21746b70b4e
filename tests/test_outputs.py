"""What records say of the outputs of their functions, before one is called."""

import inspect
import types

import numpy as np
import pytest
from arrays import FUNCTIONS
from calls import CALLS, CASES, call
from checks import assert_agree

from attnc import registry
from attnc.arrays import computing_dtype, result_dtype
from attnc.registry import Output

RECORDS = {record.name: record for record in registry.records()}
# Without the relaxations of hard attention, which are there only once somebody asks for estimators.
OWN = [
    record
    for record in registry.records()
    if record.function.__module__.startswith("attnc.")
    and record.function.__module__ != "attnc.functional.relaxed"
]


def test_there_are_calls_of_every_function():
    assert {record.name for record in OWN} == set(CASES)


def arrays_of(value):
    """All arrays in nested sequences."""
    if isinstance(value, tuple | list):
        return [array for item in value for array in arrays_of(item)]
    return [value] if isinstance(value, np.ndarray) else []


def assert_described(record, said, output, arrays, options, what="output"):
    if not isinstance(said, Output):
        assert type(said) is type(output) and len(said) == len(output), what
        for k, pair in enumerate(zip(said, output, strict=True)):
            assert_described(record, *pair, arrays, options, f"{what}[{k}]")
        return
    given = dict(zip(record.required, arrays, strict=False)) | options
    of = said.of or record.arrays
    real = [x for name in of if name in given for x in arrays_of(given[name])]
    dtypes = {
        "real": result_dtype(real),
        "computed": computing_dtype(real),
        "integer": np.dtype(np.int64),
    }
    assert tuple(said.shape) == np.shape(output), what
    assert output.dtype == dtypes[said.kind], what


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name, case", CALLS)
def test_shapes_and_dtypes(name, case, dtype, rng):
    record = RECORDS[name]
    arrays, options = call(name, case, rng, dtype)
    output = record.function(*arrays, **options)
    assert_described(record, record.outputs(*arrays, **options), output, arrays, options)
    hash(repr(record.outputs(*arrays, **options)))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("aside", ["slope", "sink", "center", "bias", "scale"])
def test_which_dtypes_count(name, aside, rng):
    record = RECORDS[name]
    if aside not in record.arrays:
        return
    arrays, options = call(name, "none one both", rng, np.float16)
    shapes = {"bias": (1, 5, 7), "scale": (), "center": (2, 5)}
    options[aside] = np.ones(shapes.get(aside, (2,)))
    options |= {"window": (1, 1)} if aside == "center" else {}
    output = record.function(*arrays, **options)
    assert_described(record, record.outputs(*arrays, **options), output, arrays, options)


def test_dtypes_of_what_is_merged(rng):
    record = RECORDS["merge_attention"]
    for dtype in (np.float32, np.float64):
        (contexts, lses), options = call("merge_attention", "both", rng, np.float16)
        arrays = contexts, tuple(x.astype(dtype) for x in lses)
        output = record.function(*arrays, **options)
        assert_described(record, record.outputs(*arrays, **options), output, arrays, options)


class Symbol:
    """A size that is not known: it may be handed on and counted with, but not looked at."""

    def __init__(self, text):
        self.text = text

    def _refuse(self, *_):
        raise AssertionError(f"{self.text} was looked at")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __index__ = __int__ = _refuse
    __hash__ = None

    def __add__(self, other):
        return Symbol(f"({self.text} + {getattr(other, 'text', other)})")

    def __mul__(self, other):
        return Symbol(f"({self.text} * {getattr(other, 'text', other)})")

    __radd__, __rmul__ = __add__, __mul__


@pytest.mark.parametrize("name, case", CALLS)
def test_sizes_may_be_symbols(name, case, rng):
    record = RECORDS[name]
    arrays, options = call(name, case, rng)

    def symbolic(value):
        if isinstance(value, tuple | list):
            return type(value)(symbolic(item) for item in value)
        if not isinstance(value, np.ndarray):
            return value
        shape = tuple(1 if n == 1 else Symbol(f"<{n}>") for n in value.shape)
        return types.SimpleNamespace(shape=shape)

    known = record.outputs(*arrays, **options)
    said = record.outputs(*symbolic(arrays), **{k: symbolic(v) for k, v in options.items()})

    def compare(a, b):
        if not isinstance(a, Output):
            assert type(a) is type(b) and len(a) == len(b)
            for pair in zip(a, b, strict=True):
                compare(*pair)
            return
        assert (a.kind, a.of, len(a.shape)) == (b.kind, b.of, len(b.shape))
        sizes = [n if isinstance(n, int) else eval(n.text.replace("<", "").replace(">", ""))
                 for n in b.shape]  # fmt: skip
        assert list(a.shape) == sizes

    compare(known, said)


def test_lists_have_shapes_too():
    said = RECORDS["attend"].outputs([[0.0, 1.0]], [[1.0], [2.0]])
    assert said.shape == (1, 1)


@pytest.mark.parametrize("name", [record.name for record in OWN])
def test_names_are_those_of_arguments(name):
    record = RECORDS[name]
    known = set(inspect.signature(record.function).parameters)
    outputs = {name[1:] for name in record.incoming}
    assert set(record.arrays) | set(record.fixed) | set(record.leading) <= known
    assert set(record.batch_axes) <= known | outputs
    assert not set(record.fixed) & set(record.arrays)
    assert not (record.leading and record.batch_axes)


BATCHED = [(name, case) for name, case in CALLS if RECORDS[name].batch_axes and case != "dropout"]


@pytest.mark.parametrize("name, case", BATCHED)
def test_the_batch_is_where_it_is_said_to_be(name, case, rng):
    """The batch twice, in all arrays that have one, and all outputs are there twice."""
    record = RECORDS[name]
    arrays, options = call(name, case, rng)
    given = dict(zip(record.required, arrays, strict=True)) | options

    def twice(value, axis):
        if isinstance(value, tuple):
            return tuple(twice(item, axis) for item in value)
        return np.concatenate([value, value], axis) if isinstance(value, np.ndarray) else value

    axes = record.batch_axes
    doubled = {n: twice(x, axes[n]) if n in axes else x for n, x in given.items()}
    output, found = record.function(**given), record.function(**doubled)
    for name, once, both in zip(record.incoming, output, found, strict=True):
        pairs = zip(arrays_of([both]), arrays_of([twice(once, axes[name[1:]])]), strict=True)
        for x, y in pairs:
            assert_agree(x, y, name)

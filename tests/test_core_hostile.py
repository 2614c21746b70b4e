"""The private functions under the layers, called with anything: an error, never a crash; and memory
that runs out at every allocation of theirs."""

import sys
from collections import namedtuple

import numpy as np
import plain
import pytest
from checks import assert_close_like_naive, assert_same, python, run_out_of_memory, wider

import attnc
from attnc import _core
from attnc.functional import attention_decoder, operations
from attnc.functional.recurrent import RecurrentOutput

NAMES = (
    "product", "empty", "panels", "transform_keys", "loop", "cross_entropy",
    "cross_entropy_backward", "norm", "norm_backward", "activation", "activation_backward",
    "add_dropout", "adam", "sum_of_squares",
)  # fmt: skip
REFUSALS = TypeError, ValueError, MemoryError, OverflowError  # of an int of more than 64 bits


# ---- valid calls, as the functions make them -----------------------------------------------------


def cells(rng, kind, below, H):
    width = {"rnn": 1, "gru": 3, "lstm": 4}[kind] * H
    shapes = (below, width), (H, width), (width,), (width,)
    return [rng.standard_normal(s).astype(np.float32) / 4 for s in shapes]


def run_recurrent(kind, rng, sizes=(20, 4, 3, 10)):
    B, T, E, H = sizes
    parameters = cells(rng, kind, E, H) + cells(rng, kind, E, H)
    x = rng.standard_normal((B, T, E)).astype(np.float32)
    output, pullback = attnc.vjp(
        getattr(attnc.functional, kind), x, parameters, lengths=np.arange(B) % (T + 1),
        bidirectional=True,
    )  # fmt: skip
    return tuple(output), vars(pullback(output.outputs))


def run_decoder(attention, order, rng, sizes=(3, 4, 6, 5, 7), coverage="linear"):
    """With input feeding and coverage where there are such."""
    B, T, Tk, E, H = sizes
    normal = rng.standard_normal
    fed = order == "luong"
    named = {
        "additive": {
            "query_weight": normal((H, 9)), "key_weight": normal((H, 9)),
            "score_vector": normal(9),
        },
        "cosine": {"scale": 2.0},
    }[attention]  # fmt: skip
    named = {name: np.float32(array) for name, array in named.items()}
    if fed:
        named["readout_weight"] = np.float32(normal((2 * H, H)))
    if coverage == "tanh":
        named["coverage_vector"] = np.float32(normal(9))
    elif attention == "additive":
        named["coverage_weight"] = np.float32(0.3)
    if coverage == "fertility":
        named["fertility_vector"] = np.float32(normal(H))
    arrays = np.float32(normal((B, T, E))), np.float32(normal((B, Tk, H)))
    output, pullback = attnc.vjp(
        attention_decoder, *arrays, cells(rng, "lstm", E + H, H), cell="lstm", attention=attention,
        order=order, input_feeding=fed, key_mask=rng.random((B, Tk)) < 0.9, **named,
    )  # fmt: skip
    return tuple(output), vars(pullback(output.outputs, output.weights))


def run_aligned(attention, alignment, rng, sizes=(3, 4, 6, 5, 7), hard=False):
    """Monotonic or chunkwise attention, with noise; and choices."""
    B, T, Tk, E, H = sizes
    decoder = attnc.AttentionDecoder(
        E, H, H, attention=attention, alignment=alignment, cell="lstm", order="luong", rng=rng
    )
    arrays = np.float32(rng.standard_normal((B, T, E))), rng.standard_normal((B, Tk, H))
    options = {"key_mask": rng.random((B, Tk)) < 0.9}
    if hard:
        return tuple(decoder(*arrays, hard=True, **options))
    output, pullback = attnc.vjp(decoder, *arrays, train=True, rng=rng, **options)
    return tuple(output), vars(pullback(output.outputs, output.weights))


def run_loss(rng, rows=20, classes=9):
    logits = rng.standard_normal((rows, classes)).astype(np.float32)
    targets = rng.integers(0, classes, rows)
    loss, pullback = attnc.vjp(
        attnc.losses.softmax_cross_entropy, logits, targets, label_smoothing=0.1
    )
    return loss, pullback().logits


def run_output_layer(rng, rows=20, size=6, classes=9):
    x, weight = rng.standard_normal((rows, size)), rng.standard_normal((size, classes))
    loss, pullback = attnc.vjp(
        attnc.losses.linear_cross_entropy, x, weight, rng.integers(0, classes, rows)
    )
    return loss, *pullback()


def run_rows(rng, rows=20, size=6, hidden=9):
    """Norms, activations and dropout, and a step of Adam."""
    model = attnc.Sequential(
        attnc.LayerNorm(size),
        attnc.FeedForward(size, hidden, activation="swiglu", dropout=0.2, rng=rng),
        attnc.Dropout(0.3),
    )
    x = rng.standard_normal((rows, size)).astype(np.float32)
    y, pullback = attnc.vjp(model, x, train=True, rng=0)
    dx = pullback(y).x
    attnc.optim.Adam(model).step()
    return y, dx, dict(model.parameters)


CALLERS = {
    "rnn": lambda rng: run_recurrent("rnn", rng),
    "gru": lambda rng: run_recurrent("gru", rng),
    "lstm": lambda rng: run_recurrent("lstm", rng),
    "additive": lambda rng: run_decoder("additive", "luong", rng),
    "bahdanau": lambda rng: run_decoder("additive", "bahdanau", rng),
    "cosine": lambda rng: run_decoder("cosine", "bahdanau", rng),
    "coverage in the tanh": lambda rng: run_decoder("additive", "luong", rng, coverage="tanh"),
    "fertility": lambda rng: run_decoder("additive", "bahdanau", rng, coverage="fertility"),
    "monotonic": lambda rng: run_aligned("cosine", "monotonic", rng),
    "chunkwise": lambda rng: run_aligned("additive", "chunkwise", rng),
    "hard": lambda rng: run_aligned("additive", "chunkwise", rng, hard=True),
    "loss": run_loss,
    "output layer": run_output_layer,
    "rows": run_rows,
}


class Recorder:
    """In place of the module: keeps the arguments of every call."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        value = getattr(_core, name)
        if name not in NAMES:
            return value

        def call(*arguments):
            self.calls.append((name, arguments))
            return value(*arguments)

        return call


@pytest.fixture
def calls(request, monkeypatch, rng):
    """The calls of one caller: one of each private function and sort of operation."""
    recorder = Recorder()
    for module in (
        attnc.functional.recurrent, attnc.functional.decoder_run, attnc.losses,
        attnc.functional.norm, attnc.functional.activation, attnc.functional.dropout, attnc.optim,
    ):  # fmt: skip
        monkeypatch.setattr(module, "_core", recorder)
    CALLERS[request.param](rng)
    monkeypatch.undo()
    kinds = {}
    for name, arguments in recorder.calls:
        types = tuple(map(type, arguments[3])) if name == "loop" else ()
        kinds.setdefault((name, types), (name, arguments))
    return list(kinds.values())


every_caller = pytest.mark.parametrize("calls", CALLERS, indirect=True)


# ---- something wrong in one place ----------------------------------------------------------------


def places(value, path=()):
    """Paths to all items of nested tuples."""
    yield path
    if isinstance(value, tuple):
        for k, item in enumerate(value):
            yield from places(item, (*path, k))


def at(value, path):
    for k in path:
        value = value[k]
    return value


def replaced(value, path, item):
    if not path:
        return item
    k, *rest = path
    return like(value, (*value[:k], replaced(value[k], rest, item), *value[k + 1 :]))


def like(value, items):
    """The items as a tuple of the type of value: operations have names."""
    return type(value)._make(items) if hasattr(value, "_make") else tuple(items)


def wrong_items(item, rng):
    """What may not stand where `item` does; most of it."""
    yield from (None, "x", b"", 1.5, -1, 0, 1, 2**31, 2**62, -(2**63), 2**64, np.nan, True, [], {})
    yield from (
        (),
        (None,),
        (item,),
        (item, item),
        (item, item, item, item),
        object(),
        np.float32(1),
    )
    yield from (np.zeros(0, np.float32), np.zeros((0, 3, 0)), np.array(1.0, np.float32))
    if isinstance(item, tuple):
        yield item[:-1]
        yield (*item, None)
        yield item[::-1]
    if isinstance(item, np.ndarray):
        yield from wrong_arrays(item, rng)


def wrong_arrays(x, rng):
    yield x.astype(x.dtype.newbyteorder())
    for dtype in (np.float32, np.float64, np.float16, np.int64, np.int32, bool, complex, object):
        if dtype != x.dtype:
            yield np.zeros(x.shape, dtype)
    if x.dtype.kind == "f":
        yield np.ma.masked_array(x)
    yield x[:-1]
    yield x[..., :-1]
    yield np.concatenate([x, x])
    yield x[None]
    yield x.reshape(-1)
    yield x.T
    yield np.repeat(x, 2, axis=-1)[..., ::2]
    yield np.flip(x)
    yield np.broadcast_to(x[:1], x.shape)
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    yield raw.view(x.dtype).reshape(x.shape)
    if x.dtype == np.int64:  # counts, places, targets
        for number in (-1, 2**40, -(2**63), 2**63 - 1):
            y = x.copy()
            y[y.size // 2 :] = number
            yield y
        yield x[::-1].copy()


def call(name, arguments):
    """Refused, or done; anything else is an error of the test."""
    try:
        with np.errstate(all="ignore"):
            getattr(_core, name)(*arguments)
    except REFUSALS:
        return False
    return True


def copied(value):
    """Arrays of its own, so that what a call writes disturbs no other."""
    if isinstance(value, tuple):
        return like(value, map(copied, value))
    return value.copy(order="K") if isinstance(value, np.ndarray) else value


@every_caller
def test_one_wrong_item(calls, rng):
    """Every item of every call replaced by everything."""
    refused = 0
    for name, arguments in calls:
        arguments = copied(arguments)
        for path in list(places(arguments))[1:]:
            for item in wrong_items(at(arguments, path), rng):
                refused += not call(name, replaced(arguments, path, item))
        assert call(name, arguments), name
    assert refused > 100


@every_caller
def test_two_wrong_items(calls, rng):
    """Items that might hide each other: sizes, and arrays of no elements."""
    refused = 0
    for name, arguments in calls:
        arguments = copied(arguments)
        where = list(places(arguments))[1:]
        for _ in range(400):
            wrong = arguments
            for _ in range(rng.integers(2, 5)):
                path = where[rng.integers(len(where))]
                try:
                    items = list(wrong_items(at(wrong, path), rng))
                except (IndexError, TypeError, KeyError, ValueError):
                    continue  # the path is gone
                wrong = replaced(wrong, path, items[rng.integers(len(items))])
            refused += not call(name, wrong)
        assert call(name, arguments), name
    assert refused > 100


@every_caller
def test_an_item_of_another_place(calls, rng):
    """Arrays that are right somewhere else."""
    refused = 0
    for name, arguments in calls:
        arguments = copied(arguments)
        where = list(places(arguments))[1:]
        for _ in range(400):
            path, other = (where[k] for k in rng.integers(0, len(where), 2))
            refused += not call(name, replaced(arguments, path, at(arguments, other)))
        assert call(name, copied(arguments)), name
    assert refused > 100


@every_caller
def test_a_wrong_number_of_arguments(calls):
    for name, arguments in calls:
        for wrong in ((), arguments[:-1], (*arguments, None)):
            with pytest.raises(TypeError, match=rf"_core\.{name}: takes {len(arguments)} position"):
                getattr(_core, name)(*wrong)


@every_caller
def test_references_are_given_back(calls, rng):
    """By calls that are refused and by calls that are not."""
    for name, arguments in calls:
        arguments = copied(arguments)
        paths = list(places(arguments))[1:]
        kept = [at(arguments, path) for path in paths]
        kept = [x for x in kept if isinstance(x, np.ndarray | tuple)]
        call(name, arguments)
        before = [sys.getrefcount(x) for x in kept]
        for path in paths:
            for item in (None, "x", (), np.zeros(3)):
                call(name, replaced(arguments, path, item))
        for _ in range(20):
            call(name, arguments)
        assert [sys.getrefcount(x) for x in kept] == before, name


# ---- operations of a loop ------------------------------------------------------------------------

# Fields that are written to. All others may be read-only.
WRITTEN = {
    "Linear": {"out"},
    "Cell": {"h", "c", "gates", "saved", "outputs"},
    "CellBack": {"dinput", "dproduct", "dh", "dc", "dinput_bias", "dstate_bias"},
    "Attend": {"weights", "coverage", "coverage_bias", "context", "stats", "scores"},
    "AttendBack": {
        "dcoverage",
        "dquery",
        "dweights_total",
        "dcoverage_rate",
        "dkey",
        "dscore_vector",
        "dcoverage_vector",
    },
    "Energies": {"scores", "probability"},
    "EnergiesBack": {"dscores", "dquery"},
    "Monotonic": {"alignment", "reach"},
    "MonotonicBack": {"dprobability", "dprevious"},
    "Chunkwise": {"weights"},
    "ChunkwiseBack": {"dalignment", "dscores"},
    "Read": {"context"},
    "ReadBack": {"dtotal"},
    "Hard": {"position", "weights"},
    "Normalize": {"unit", "norm"},
    "NormalizeBack": {"dx"},
}


def each_field(calls):
    """Every field, and every array in a field, of every operation: the arguments of the call, the
    path to it, and what an error says of it."""
    for function, arguments in calls:
        if function != "loop":
            continue
        arguments = copied(arguments)
        for path in places(arguments[3]):
            if len(path) < 2 or isinstance(at(arguments[3], path), tuple) and len(path) > 2:
                continue
            operation = arguments[3][path[0]]
            field = operation._fields[path[1]]
            item = "" if len(path) == 2 else rf"\[{path[2]}\]"
            where = (
                rf"loop: operation {path[0]} \({type(operation).__name__}\): {field}{item} must "
            )
            yield arguments, (3, *path), field, where


def frozen(x):
    x = x.copy()
    x.flags.writeable = False
    return x


loops = pytest.mark.parametrize("calls", list(CALLERS)[:11], indirect=True)


@loops
def test_every_field_of_an_operation_is_checked(calls):
    """And the error names the operation and the field."""
    for arguments, path, field, where in each_field(calls):
        item = at(arguments, path)
        whole = "int" in type(arguments[3][path[1]]).__annotations__[field].__forward_arg__
        wrongs = [object(), b"", -3 if whole else 3, [], np.zeros(3, complex)]
        if isinstance(item, np.ndarray):
            dtypes = item.dtype.newbyteorder(), np.float16, np.float64, np.int32, complex, object
            wrongs += [np.zeros(item.shape, dtype) for dtype in dtypes if dtype != item.dtype]
            wrongs += [item.tolist(), memoryview(item), "x", 1.0]
            if item.ndim and item.shape[-1] > 1:
                wrongs.append(np.repeat(item, 2, -1)[..., ::2])
        for wrong in wrongs:
            with pytest.raises((TypeError, ValueError), match=where):
                _core.loop(*replaced(arguments, path, wrong))
        assert call("loop", arguments)


@loops
def test_no_array_of_an_operation_has_another_size(calls):
    for arguments, path, *_ in each_field(calls):
        x = at(arguments, path)
        if isinstance(x, np.ndarray):
            for wrong in (np.concatenate([x] * 100, axis=-1), x[..., :0]):
                with pytest.raises(ValueError, match=r"loop: operation \d \(\w+\): .+ must "):
                    _core.loop(*replaced(arguments, path, wrong))


@loops
def test_places_lie_in_the_outputs(calls):
    for arguments, path, field, where in each_field(calls):
        x = at(arguments, path)
        if field == "places" and x is not None:
            for number in (-1, 20 * 4, 2**62, -(2**63)):
                wrong = x.copy()
                wrong[-1] = number
                with pytest.raises(ValueError, match=where + r"lie in 0\.\.79, and not be"):
                    _core.loop(*replaced(arguments, path, wrong))


@loops
def test_only_what_is_optional_may_be_none(calls):
    for arguments, path, field, where in each_field(calls):
        operation = arguments[3][path[1]]
        annotation = type(operation).__annotations__[field].__forward_arg__
        optional = "None" in annotation and len(path) == 3
        if not call("loop", replaced(arguments, path, None)):
            with pytest.raises((TypeError, ValueError), match=where):
                _core.loop(*replaced(arguments, path, None))
        else:
            assert optional, field


@loops
def test_arrays_that_are_written_must_be_writeable(calls):
    """Results do not go where nobody may write: a constant, a file mapped for reading."""
    for arguments, path, field, where in each_field(calls):
        x = at(arguments, path)
        if not isinstance(x, np.ndarray):
            continue
        wrong = replaced(arguments, path, frozen(x))
        if field in WRITTEN[type(arguments[3][path[1]]).__name__]:
            with pytest.raises(ValueError, match=where):
                _core.loop(*wrong)
        else:
            _core.loop(*wrong)


def test_operations_have_a_name_and_all_their_fields():
    out = np.zeros((1, 2, 5), np.float32)
    linear = operations.Linear(out, ())
    _core.loop(out, 1, 2, (linear,), False)
    for wrong in ((), tuple(linear), None, [linear], "Linear", RecurrentOutput(1, 2)):
        with pytest.raises(
            TypeError, match=r"loop: operation 1 must be one of attnc\.functional\."
        ):
            _core.loop(out, 1, 2, (linear, wrong), False)
    for fields in ("out", "out terms add tanh", "out terms add tanh tanh_of more"):
        values = (*linear, None)[: len(fields.split())]
        other = namedtuple("Linear", fields)(*values)
        with pytest.raises(TypeError, match=r"loop: operation 0 \(Linear\) must have .* fields"):
            _core.loop(out, 1, 2, (other,), False)
    with pytest.raises(TypeError, match="loop: operations must be a tuple"):
        _core.loop(out, 1, 2, [linear], False)


def test_cells_side_by_side_are_alike(rng):
    """Of one sort and size, and no more than two."""

    def cell(kind, H, beside):
        G = {"rnn": 1, "gru": 3, "lstm": 4}[kind]
        weight = rng.standard_normal((H, G * H))
        h, c, saved = (np.zeros((3 * 2, H)), *np.zeros((2, 3 * 2, H)))
        bias = np.zeros(G * H)
        return operations.Cell(
            kind, h, c, np.zeros((2 * 2, G * H)), saved[2:], _core.panels(weight, G), bias, bias,
            beside=beside,
        )  # fmt: skip

    like, first, second = np.zeros(1), cell("gru", 5, False), cell("gru", 5, True)
    _core.loop(like, 2, 2, (first, second), False)
    _core.loop(like, 2, 2, (first, second, first, second), False)
    for wrong in (
        (second,), (first, second, second), (first, cell("gru", 6, True)),
        (first, cell("lstm", 5, True)),
        (operations.Linear(np.zeros((2, 2, 5)), ()), second),
    ):  # fmt: skip
        k = len(wrong) - 1
        with pytest.raises(ValueError, match=rf"operation {k} \(Cell\): beside must be False"):
            _core.loop(like, 2, 2, wrong, False)


@pytest.mark.parametrize("operation", ["Cell", "CellBack"])
def test_sizes_that_overflow_are_refused(operation):
    """Products of sizes that are 0 again in 64 bits: no array of 0 elements is one of them."""
    printed = python(
        f"""
        import numpy as np
        from attnc import _core
        from attnc.functional.operations import {operation} as Operation
        none = np.zeros(0, np.float32)
        panels = np.zeros(16, np.float32)  # a cache line, as behind all panels
        fields = dict.fromkeys(Operation._fields[:12], none) | {{"panels": panels, "cell": "lstm"}}
        refused = 0
        for h in (np.zeros((0, 2**60), np.float32), np.zeros((0, 2**23), np.float32), none):
            for batch in (2, 4, 2**29):
                try:
                    operation = Operation(**fields | {{"h": h}})
                    _core.loop(none, 4, batch, (operation,), {operation == "CellBack"})
                except (ValueError, MemoryError):
                    refused += 1
        print(refused)
        """
    )
    assert printed == "9"


def test_a_loop_without_end_is_none():
    """Of no work, or in arrays of no elements, there could be any number of steps."""
    printed = python(
        """
        import numpy as np
        from attnc import _core
        from attnc.functional.operations import Linear
        like, huge = np.zeros(0), 2**33
        _core.loop(like, huge, 1, (), False)
        _core.loop(like, huge, 0, (Linear(np.zeros((huge, 0, 3)), ()),), False)
        for steps, out in ((2**62, like), (huge, np.zeros((huge, 1, 0))), (2**64, like)):
            try:
                _core.loop(like, steps, 1, (Linear(out, ()),) if out.ndim > 1 else (), False)
            except (ValueError, OverflowError):
                print("refused", end=" ")
        """
    )
    assert printed == "refused refused refused"


def test_products_refuse_what_is_no_pair_of_matrices(rng):
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((3, 5))
    assert _core.product(a, b).shape == (4, 5)
    for pair in (
        (a, a), (a[0], b), (a, b[:, 0]), (a[None], b), (a, b.astype(np.float32)), (a, b.tolist()),
        (a.astype(int), b.astype(int)), (a.astype(">f8"), b), (a, None), (None, b), (a, 1.0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="product: needs two float matrices that fit"):
            _core.product(*pair)


@pytest.mark.parametrize("layout", ["C", "F", "strided", "reversed", "broadcast"])
def test_products_of_any_strides(layout, dtype, isa, rng):
    def laid(x):
        x = x.astype(dtype)
        return {
            "C": lambda: x,
            "F": lambda: np.asfortranarray(x),
            "strided": lambda: np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3],
            "reversed": lambda: np.flip(np.flip(x).copy()),
            "broadcast": lambda: np.broadcast_to(x[:1], x.shape),
        }[layout]()

    for M, K, N in (
        (1, 1, 1),
        (5, 0, 7),
        (0, 3, 2),
        (3, 4, 0),
        (33, 129, 65),
        (130, 300, 17),
        (50, 3200, 70),
    ):
        a, b = laid(rng.standard_normal((M, K))), laid(rng.standard_normal((K, N)))
        product = _core.product(a, b)
        assert product.flags.c_contiguous and product.dtype == dtype
        exact = a.astype(wider(dtype)) @ b.astype(wider(dtype))
        largest = np.abs(a).max(initial=0) * np.abs(b).max(initial=0)
        assert_close_like_naive(product, exact, a @ b, largest)


def test_products_have_the_same_bits_for_any_number_of_threads(dtype, isa, rng):
    for M, K, N in ((300, 257, 130), (20, 700, 900), (700, 30, 5), (300, 3200, 70), (2, 300, 9000)):
        a, b = rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)
        results = []
        for n in (1, 2, 3, 5, 8):
            with attnc.set_num_threads(n):
                results += [_core.product(a, b), _core.product(b.T, a.T).T.copy()]
        for got in results[1:]:
            assert_same(got, results[0])


def test_empty_refuses_what_is_no_shape():
    like = np.zeros(1, np.float32)
    assert _core.empty(like, (2, 0, 3)).shape == (2, 0, 3)
    assert _core.empty(like, ()).shape == ()
    for wrong in ([2, 3], 3, (1,) * 5, (-1,), (2.0,), (None,), ("2",), (2**62, 2**62), (2**63,)):
        with pytest.raises(REFUSALS):
            _core.empty(like, wrong)
    for wrong in (None, 1.0, np.zeros(1, int), np.zeros(1, np.float16)):
        with pytest.raises(ValueError, match="empty: needs a float array and up to 4 sizes"):
            _core.empty(wrong, (2,))


def test_attention_takes_back_what_it_saved_and_nothing_else(isa, rng):
    x = rng.standard_normal((2, 5, 4)).astype(np.float32)
    *_, saved = _core.dot_product_attention_saving(x, x, x)

    def backward(saved):
        return _core.dot_product_attention_backward(x, None, None, *saved, x, x, x)

    dquery = backward(saved)[0]
    assert dquery.shape == x.shape
    stats = saved[1]
    for wrong in (
        (None, None, None), (*saved[:2], stats), ("", stats, None), (saved[0], None, None),
        (saved[0], stats[:1], *saved[2:]), (saved[0], stats.astype(float), *saved[2:]),
        (saved[0], stats.tolist(), *saved[2:]), (saved[0], stats[..., ::-1], *saved[2:]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="saved must be what the forward call saved"):
            backward(wrong)
    assert_same(backward(saved)[0], dquery)


@pytest.mark.parametrize("name", ["dot_product_attention", "additive_attention", "attend"])
def test_attention_takes_its_arguments_once_and_by_their_names(name):
    x = np.ones((3, 4))
    function, backward = getattr(_core, name), getattr(_core, name + "_backward")
    arrays = {"attend": (np.ones((3, 3)), x), "additive_attention": (x, x, x, np.ones(4))}
    given = arrays.get(name, (x, x, x))
    own = "scores" if name == "attend" else "query"
    with pytest.raises(TypeError, match=f"^{name}: {own} must be given by position or by name"):
        function(*given, **{own: x})
    with pytest.raises(TypeError, match=f"^{name}: there is no argument 'causl'; .* 'causal'"):
        function(*given, causl=True)
    with pytest.raises(TypeError, match=f"^{name}: takes [247] positional arguments, got 9"):
        function(*[x] * 9)
    with pytest.raises(TypeError, match=f"^{name}: value must be an array, got None"):
        function(given[0], **({} if name == "attend" else {"key": x}))
    with pytest.raises(TypeError, match=f"^{name}: backward takes three gradients"):
        backward(None, None)
    # A name that is not interned, and an option that says what its default says.
    odd = {"".join(["cau", "sal"]): False, "mask": None, "rng": None, "dropout": 0}
    assert_same(function(*given, **odd), function(*given))


def test_options_have_the_names_of_their_types():
    from attnc.functional.options import AttentionOptions

    assert set(AttentionOptions.__annotations__) == set(_core.option_defaults())


CHECKS = {
    "plain_array": (),
    "real_array": (),
    "integer_array": (),
    "boolean_mask": ((2,), "(B,)"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_checks_of_arrays_take_strings_and_a_value(name):
    check, more = getattr(_core, name), CHECKS[name]
    for wrong in ((), ("f",), ("f", "x"), (1, "x", [], *more), ("f", None, [], *more)):
        with pytest.raises(TypeError):
            check(*wrong)
    with pytest.raises(TypeError):
        check("f", "x", [], *more, None)
    itself = []
    itself.append(itself)
    with pytest.raises(RecursionError):
        check("f", "x", itself, *more)


def test_boolean_mask_takes_a_shape():
    mask = np.ones((2, 1), bool)
    assert _core.boolean_mask("f", "m", mask, (2, 5), "(B, T)") is mask
    for wrong in ((2.0, 5), ("2", 5), (None, 5), (2**70, 5), [2, 5], None, (1,) * 65):
        with pytest.raises((TypeError, OverflowError)):
            _core.boolean_mask("f", "m", mask, wrong, "(B, T)")
    with pytest.raises(ValueError, match=r"m must have 2 axes \(B, T\) = \(2, 5\)"):
        _core.boolean_mask("f", "m", np.ones(5, bool), (2, 5), "(B, T)")


def test_instruction_sets_are_strings():
    for wrong in (3, None, b"scalar"):
        with pytest.raises(TypeError, match="set_isa: name must be a string"):
            _core.set_isa(wrong)


# ---- memory that runs out ------------------------------------------------------------------------


@pytest.fixture
def no_failures():
    yield
    _core.fail_allocation(0)


# With results of more than 64 KiB, which come through the allocator that can be made to fail.
LARGE = {
    "gru": lambda rng: run_recurrent("gru", rng, (12, 20, 30, 30)),
    "lstm": lambda rng: run_recurrent("lstm", rng, (12, 20, 30, 30)),
    "additive": lambda rng: run_decoder("additive", "luong", rng, (8, 20, 30, 30, 40)),
    "bahdanau": lambda rng: run_decoder("additive", "bahdanau", rng, (8, 20, 30, 30, 40)),
    "cosine": lambda rng: run_decoder("cosine", "luong", rng, (8, 20, 30, 30, 40)),
    "loss": lambda rng: run_loss(rng, 10000, 30),
    "rows": lambda rng: run_rows(rng, 600, 30, 60),
    "product": lambda rng: _core.product(*rng.standard_normal((2, 200, 200))),
    "panels": lambda rng: _core.panels(rng.standard_normal((200, 200)), 2)[8:-8],
    "transformed keys": lambda rng: _core.transform_keys(rng.standard_normal((5, 50, 80)) / 5),
}


@pytest.mark.parametrize("name", LARGE)
def test_memory_runs_out_anywhere(name, no_failures):
    """At the first allocation, at the second, ...: MemoryError, and the next call is right."""

    def run():
        return LARGE[name](np.random.default_rng(0))

    expected = plain.each(run(), np.copy)
    got = run_out_of_memory(run, least=1 if name == "panels" else 2)
    if name not in ("panels", "transformed keys"):  # these have elements that mean nothing
        assert_same(plain.each(got, np.copy), expected)

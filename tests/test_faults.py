"""What goes wrong elsewhere: memory that runs out, errors half way, Ctrl-C, forks in between."""

import gc
import signal
import sys

import numpy as np
import pytest
from arrays import FUNCTIONS, inputs, options
from checks import EVERYTHING, assert_same, evaluate, incoming, python, run_out_of_memory

import attnc
from attnc import _core

# Results of more than 64 KiB, which come through the allocator that can be made to fail, and blocks
# between kernels that are too large for the stack.
LARGE = {"Tq": 600, "Tk": 260, "D": 40, "Dv": 120, "leads": ((1,), (2,), (2,))}


@pytest.fixture
def no_failures():
    yield
    _core.fail_allocation(0)


@pytest.mark.parametrize("option", ["none", "bias by key", "everything"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_memory_runs_out_anywhere(name, option, no_failures, rng):
    """At the first allocation, at the second, ...: MemoryError, and the next call is right."""
    arrays, own = inputs(name, rng, np.float32, **LARGE)
    own |= options(option, rng, np.float32, **LARGE)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), np.float32)
    expected = evaluate(name, arrays, own, d)
    kept = [x for x in (*arrays, *own.values(), *d.values()) if isinstance(x, np.ndarray)]
    got = run_out_of_memory(lambda: evaluate(name, arrays, own, d), kept, least=8)
    assert_same(got, expected)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "attend"])
def test_memory_runs_out_in_a_packed_batch(name, no_failures, rng):
    arrays, own = inputs(name, rng, np.float32, **LARGE)
    own |= {"query_offsets": np.array([0, 2, 300, 600]), "key_offsets": np.array([0, 9, 30, 260])}
    own |= {"slope": np.ones(2), "sink": np.zeros(1), "dropout": 0.5, "rng": 1}

    def run():
        output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own)
        return output, vars(pullback(output))

    expected = run()
    got = run_out_of_memory(run, least=8)
    assert_same(got, expected)


BAD = {
    "offsets": {"query_offsets": [0, 4]},
    "shape": {"bias": np.zeros((3, 3))},
    "dtype": {"mask": np.zeros((2, 5, 7))},
    "range": {"key_lengths": 8},
    "kind": {"causal": 1},
    "window": {"window": (1, -1)},
    "softcap": {"softcap": -1.0},
    "rng": {"dropout": 0.5, "rng": "x"},
    "unknown": {"masks": None},
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_keep_no_reference(name, bad, rng):
    arrays, own = inputs(name, rng)
    own |= BAD[bad]
    kept = [x for x in (*arrays, *own.values()) if isinstance(x, np.ndarray)]
    for call in (getattr(attnc, name), lambda *a, **k: attnc.vjp(getattr(attnc, name), *a, **k)):
        before = [sys.getrefcount(x) for x in kept]
        for _ in range(20):
            with pytest.raises((TypeError, ValueError)):
                call(*arrays, **own)
        gc.collect()
        assert [sys.getrefcount(x) for x in kept] == before


@pytest.mark.parametrize("name", FUNCTIONS)
def test_calls_keep_no_reference(name, dtype, rng):
    arrays, own = inputs(name, rng, dtype)
    own |= options("everything", rng, dtype)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    kept = [x for x in (*arrays, *own.values(), *d.values()) if isinstance(x, np.ndarray)]
    evaluate(name, arrays, own, d)
    before = [sys.getrefcount(x) for x in (*kept, None, dtype, np.dtype(dtype))]
    for _ in range(50):
        evaluate(name, arrays, own, d)
    gc.collect()
    after = [sys.getrefcount(x) for x in (*kept, None, dtype, np.dtype(dtype))]
    assert all(abs(x - y) < 40 for x, y in zip(after, before, strict=True))
    assert after[: len(kept)] == before[: len(kept)]


@pytest.mark.parametrize("wrong", ["shape", "dtype", "not asked for"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_of_pullbacks_keep_no_reference(name, wrong, rng):
    arrays, own = inputs(name, rng)
    context, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own)
    d = {
        "shape": {"dcontext": np.zeros((3, 3))},
        "dtype": {"dcontext": context.astype(complex)},
        "not asked for": {"dcontext": context, "dlse": context[..., 0]},
    }[wrong]
    before = [sys.getrefcount(x) for x in (*arrays, *d.values())]
    for _ in range(20):
        with pytest.raises((TypeError, ValueError)):
            pullback(**d)
    gc.collect()
    assert [sys.getrefcount(x) for x in (*arrays, *d.values())] == before


@pytest.mark.skipif(not hasattr(signal, "raise_signal") or sys.platform == "win32", reason="POSIX")
def test_interrupt():
    """Ctrl-C in a long call: the exception comes right after it, and the next call is right."""
    printed = python(
        """
        import signal, threading, time
        import numpy as np
        import attnc
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
        x = np.random.default_rng(0).standard_normal((1, 8, 64), np.float32)
        expected = attnc.dot_product_attention(x, x, x)
        large = np.ones((1, 6000, 64), np.float32)
        started = time.perf_counter()
        attnc.dot_product_attention(large, large, large)
        alone = time.perf_counter() - started
        calls = max(1, int(0.5 / alone))
        threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
        started = time.perf_counter()
        try:
            for _ in range(10 * calls):
                attnc.dot_product_attention(large, large, large)
            print("not interrupted")
        except KeyboardInterrupt:
            late = time.perf_counter() - started - 0.1
            same = (attnc.dot_product_attention(x, x, x) == expected).all()
            print(late < 1 + 3 * alone and same)
        """
    )
    assert printed == "True"


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs os.fork")
def test_fork_while_threads_compute():
    """The pool is in use at the moment of the fork: parent and child go on, each with its own."""
    printed = python(
        """
        import os, threading, warnings
        import numpy as np
        import attnc
        warnings.simplefilter("ignore")  # Python warns of forking with threads: just so
        attnc.set_num_threads(3)
        x = np.random.default_rng(0).standard_normal((8, 128, 64))
        expected = attnc.dot_product_attention(x, x, x)
        stop, wrong = threading.Event(), []

        def compute():
            while not stop.is_set():
                if not (attnc.dot_product_attention(x, x, x) == expected).all():
                    wrong.append(1)

        callers = [threading.Thread(target=compute) for _ in range(2)]
        for caller in callers:
            caller.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                same = (attnc.dot_product_attention(x, x, x) == expected).all()
                context, pullback = attnc.vjp(attnc.dot_product_attention, x, x, x)
                pullback(context)
                os._exit(0 if same else 1)
            if os.waitpid(child, 0)[1] != 0:
                wrong.append(2)
        stop.set()
        for caller in callers:
            caller.join()
        print(wrong)
        """
    )
    assert printed == "[]"


def test_nested_calls_from_a_thread_pool(rng):
    """Callers in threads of their own, each asking for several threads: nobody waits for ever."""
    from concurrent.futures import ThreadPoolExecutor

    x = rng.standard_normal((4, 100, 32))
    expected, pullback = attnc.vjp(attnc.dot_product_attention, x, x, x)
    gradients = tuple(pullback(x))

    def call(_):
        context, back = attnc.vjp(attnc.dot_product_attention, x, x, x)
        return context, tuple(back(x))

    with attnc.set_num_threads(4), ThreadPoolExecutor(16) as callers:
        for context, got in callers.map(call, range(100), timeout=60):
            assert_same(context, expected)
            assert_same(got, gradients)


# ---- arrays made to hurt -------------------------------------------------------------------------


def test_broadcast_shapes_beyond_32_bits():
    """Views of one row: what cannot be stored is a MemoryError, what is empty is quick."""

    def ones(*shape):
        return np.broadcast_to(np.ones(shape[-1], np.float32), shape)

    many = ones(2**31, 2**22, 1)
    with pytest.raises(MemoryError):
        attnc.dot_product_attention(many, many, many)
    with pytest.raises(MemoryError):
        attnc.vjp(attnc.dot_product_attention, many, many, many)
    for Tq, Tk, Dv in [(0, 3, 4), (3, 0, 0), (3, 3, 0)]:
        lead = (2**20, 2**20)
        x = ones(*lead, Tq, 4), ones(*lead, Tk, 4), ones(*lead, Tk, Dv)
        assert attnc.dot_product_attention(*x).shape == (*lead, Tq, Dv)


def test_length_that_lies_about_its_array():
    """Subclasses and duck arrays: what NumPy makes of them is what counts."""

    class Liar:
        shape = (1000, 1000)

        def __array__(self, dtype=None, copy=None):
            return np.ones((2, 3))

    context = attnc.dot_product_attention(Liar(), Liar(), Liar())
    assert context.shape == (2, 3)


def test_argument_that_changes_itself():
    """An array that is resized by the conversion of a later one."""
    first = np.ones((4, 4))

    class Resizer:
        def __array__(self, dtype=None, copy=None):
            try:
                first.resize((1, 1), refcheck=False)
            except ValueError:
                pass  # NumPy may refuse
            return np.ones((4, 4))

    try:
        attnc.dot_product_attention(first, Resizer(), np.ones((4, 4)))
    except ValueError as error:
        assert "must have" in str(error)

"""Threads: the same bits for any number of them, alone or in company; callers, forks, settings."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from arrays import FUNCTIONS, inputs, options
from checks import EVERYTHING, assert_same, evaluate, incoming, python

import attnc

# Enough work for several threads, over the batch and within one element.
MANY = {"Tq": 70, "Tk": 150, "D": 33, "Dv": 40, "leads": ((2, 3), (2, 3), (2, 3))}
ONE = {"Tq": 200, "Tk": 600, "D": 33, "Dv": 40, "leads": ((), (), ())}
FEW = {"Tq": 2, "Tk": 3000, "D": 33, "Dv": 40, "leads": ((2,), (1,), (1,))}


@pytest.mark.parametrize("option", ["none", "everything"])
@pytest.mark.parametrize("sizes", [MANY, ONE, FEW], ids=["batch", "one element", "few queries"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_bits_for_any_number_of_threads(name, sizes, option, threads, rng):
    arrays, own = inputs(name, rng, np.float32, **sizes)
    own |= options(option, rng, np.float32, **sizes)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), np.float32)
    got = evaluate(name, arrays, own, d)
    with attnc.set_num_threads(1):
        assert_same(got, evaluate(name, arrays, own, d))


@pytest.mark.parametrize("option", ["none", "key_lengths", "causal by lead", "bias", "softcap"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_bits_alone_and_in_company(name, option, dtype, isa, rng):
    """A batch element computed by itself: outputs, and gradients of what has a batch axis."""
    sizes = {"Tq": 19, "Tk": 130, "leads": ((3,), (3,), (3,))}
    arrays, own = inputs(name, rng, dtype, **sizes)
    own |= options(option, rng, dtype, **sizes)
    d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), dtype)
    output, gradients = evaluate(name, arrays, own, d)

    def element(x, n):
        """Of what has the batch axis; a parameter stays whole."""
        return x[n : n + 1] if getattr(x, "shape", ())[:1] == (3,) else x

    for n in range(3):
        alone, alone_gradients = evaluate(
            name,
            [element(x, n) for x in arrays],
            {field: element(x, n) for field, x in own.items()},
            {field: element(x, n) for field, x in d.items()},
        )
        assert_same(tuple(alone), tuple(element(x, n) for x in output))
        for field in {"query", "key", "value", "scores", "bias"} & set(gradients):
            assert_same(alone_gradients[field], element(gradients[field], n), field)


def test_same_bits_from_concurrent_callers(rng):
    cases = []
    for name in FUNCTIONS:
        arrays, own = inputs(name, rng, np.float32, **MANY)
        d = incoming(rng, getattr(attnc, name)(*arrays, **own, **EVERYTHING), np.float32)
        cases.append((name, arrays, own, d))
    expected = [evaluate(*case) for case in cases]
    with attnc.set_num_threads(3), ThreadPoolExecutor(8) as callers:
        calls = [callers.submit(evaluate, *case) for case in 4 * cases]
        assert_same([call.result() for call in calls], 4 * expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork():
    """A child forked after threads have run computes too, and so does the parent after it."""
    ok = python(
        """
        import os, warnings
        import numpy as np
        import attnc
        warnings.simplefilter("ignore")  # Python warns of forking with threads: just so
        attnc.set_num_threads(3)
        x = np.random.default_rng(0).standard_normal((8, 128, 64))
        expected = attnc.dot_product_attention(x, x, x)
        for _ in range(3):
            child = os.fork()
            same = (attnc.dot_product_attention(x, x, x) == expected).all()
            if child == 0:
                os._exit(0 if same else 1)
            assert same and os.waitpid(child, 0)[1] == 0
        print("ok")
        """
    )
    assert ok == "ok"


# ---- Settings ------------------------------------------------------------------------------------


def test_set_num_threads_stays_or_ends_with_its_block(threads):
    attnc.set_num_threads(3)
    assert attnc.get_num_threads() == 3
    with attnc.set_num_threads(7):
        assert attnc.get_num_threads() == 7
        with attnc.set_num_threads(1):
            assert attnc.get_num_threads() == 1
        assert attnc.get_num_threads() == 7
    assert attnc.get_num_threads() == 3
    with pytest.raises(KeyError), attnc.set_num_threads(2):
        raise KeyError
    assert attnc.get_num_threads() == 3


def test_a_block_holds_for_its_thread_alone(threads):
    """Blocks of many threads, opened and closed in any order, with plain calls among them."""
    attnc.set_num_threads(3)
    barrier = threading.Barrier(8)

    def caller(n):
        seen = []
        for k in range(50):
            barrier.wait()
            with attnc.set_num_threads(n):
                seen.append(attnc.get_num_threads() == n)
                if n == 1 and k == 20:
                    attnc.set_num_threads(9)
                with attnc.set_num_threads(n + 20):
                    seen.append(attnc.get_num_threads() == n + 20)
                seen.append(attnc.get_num_threads() == n)
        return all(seen)

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(caller, range(1, 9)))
    assert attnc.get_num_threads() == 9


def test_one_object_for_many_blocks(threads):
    attnc.set_num_threads(3)
    one = attnc.set_num_threads(1)
    with one:
        with one:
            pass
        assert attnc.get_num_threads() == 1
        with ThreadPoolExecutor(1) as other:
            assert other.submit(attnc.get_num_threads).result() == 3
    assert attnc.get_num_threads() == 3 and repr(one) == "set_num_threads(1)"


@pytest.mark.parametrize(
    ("n", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (1.5, TypeError),
        ("2", TypeError),
        (True, TypeError),
        (2**70, ValueError),
    ],
)
def test_set_num_threads_refuses(n, error):
    before = attnc.get_num_threads()
    with pytest.raises(error, match="set_num_threads: n must .*got"):
        attnc.set_num_threads(n)
    assert attnc.get_num_threads() == before


COUNT = "import attnc; print(attnc.get_num_threads())"
AVAILABLE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def test_environment_chooses():
    unset = {"ATTNC_NUM_THREADS": "", "OMP_NUM_THREADS": ""}
    assert 1 <= int(python(COUNT, **unset)) <= AVAILABLE
    assert python(COUNT, **{**unset, "OMP_NUM_THREADS": "1"}) == "1"
    assert int(python(COUNT, **{**unset, "OMP_NUM_THREADS": "1000"})) <= AVAILABLE
    assert python(COUNT, ATTNC_NUM_THREADS="5", OMP_NUM_THREADS="1") == "5"


@pytest.mark.parametrize("value", ["0", "-2", "many", "2.5", " "])
def test_environment_with_a_bad_number(value):
    error = python("import attnc", ATTNC_NUM_THREADS=value)
    assert error.startswith("ImportError:")
    assert "ATTNC_NUM_THREADS" in error and repr(value) in error

"""What the tests assert. One rule of tolerance for everything that is rounded; the rest is exact.

The rule: the error may be twice that of the same formula in plain NumPy in the same dtype. So there
is no tolerance to choose in a test, hard inputs allow as much error as they cause, and easy ones no
more than they must.
"""

import contextlib
import copy
import gc
import inspect
import itertools
import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import attnc
from attnc import _core, functional, reference

# Floor of the rule, in units of eps times the largest term of the sums. The plain formula is now
# and then right by luck (one key: a weight of exactly 1); then it is no measure. A sum,
# a quotient, a product with the value: each rounds once or so. And a weight cannot be better than
# its score, which rounds by eps times its own size: that is added.
FLOOR = 4

# The error of a gradient of few numbers, like that of a scale, says little: each is one sum over
# all pairs, whose error is random, and 0 as soon as anything else. There the floor is higher.
FEW, FLOOR_OF_FEW = 16, 32

# float64 is held against long double. Where that is no wider (MSVC, macOS on ARM), the error of the
# plain formula cannot be seen, and the floor has to stand for it.
FLOOR_WITHOUT_WIDE = 128


def wider(dtype):
    """The dtype in which the reference is exact enough to measure the errors of `dtype`."""
    return np.float64 if dtype == np.float32 else np.longdouble


def error(got, exact):
    """max|got - exact| where `exact` is finite."""
    finite = np.isfinite(exact)
    return np.abs(np.where(finite, got, 0) - np.where(finite, exact, 0)).max(initial=0)


def assert_close_like_naive(got, exact, naive, magnitude=0.0, floor=FLOOR, what="result"):
    """max|got - exact| <= 2 max|naive - exact| + floor eps max(|exact|, magnitude).

    `exact` is the reference in a wider dtype, `naive` the same formula in the dtype of `got`.
    `magnitude` is the size of the terms that are summed to `exact`, where that is larger. NaN and
    inf have to be where they are in `exact`.
    """
    got, exact, naive = np.asarray(got), np.asarray(exact), np.asarray(naive)
    assert got.shape == exact.shape, f"{what}: shape {got.shape}, not {exact.shape}"
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(got[~finite], exact[~finite].astype(got.dtype), err_msg=what)

    eps = np.finfo(naive.dtype).eps
    if np.finfo(exact.dtype).eps == eps:
        floor += FLOOR_WITHOUT_WIDE
    magnitude = max(_largest(exact), magnitude)
    usual = error(naive, exact)
    assert error(got, exact) <= 2 * usual + floor * eps * magnitude, (
        f"{what}: error {error(got, exact):.3g} exceeds 2 * {usual:.3g} of the plain formula"
        f" + {floor:.3g} * eps * {magnitude:.3g}, the largest term"
    )


def assert_agree(got, expected, what="result"):
    """Two float64 computations of the same formula by different roads: 1e4 eps of the largest."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, not {expected.shape}"
    atol = 1e4 * np.finfo(np.float64).eps * _largest(expected)
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol, err_msg=what)


def assert_agree_together(got, expected, what="result"):
    """`assert_agree` of all arrays by name as one: some may be 0 but for rounding."""
    assert got.keys() == expected.keys(), what
    for name, array in expected.items():
        assert got[name].shape == array.shape, f"{what}: {name}"
    together = [np.concatenate([x.reshape(-1) for x in d.values()]) for d in (got, expected)]
    assert_agree(*together, what)


@contextlib.contextmanager
def assert_unchanged(*objects):
    """Nothing in these arrays, and tuples and dicts of arrays, is written to."""
    before = copy.deepcopy(objects)
    yield
    assert_same(objects, before, "input")


def assert_same(got, expected, what="result"):
    """The same numbers to the last bit (a NaN is a NaN), in arrays, or tuples or dicts of them."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), what
        for name in expected:
            assert_same(got[name], expected[name], f"{what}: {name}")
    elif isinstance(expected, tuple | list):
        for x, y in zip(got, expected, strict=True):
            assert_same(x, y, what)
    else:
        np.testing.assert_array_equal(
            got, expected, strict=isinstance(expected, np.ndarray), err_msg=what
        )


def meetings(first, second, third):
    """Parameters of three kinds, the third the shortest, such that any two of them meet once."""
    return [
        (x, y, third[(i + j) % len(third)])
        for (i, x), (j, y) in itertools.product(enumerate(first), enumerate(second))
    ]


def python(code, **environment):
    """Run code in a fresh interpreter; return what it prints, or its last line of error."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=pathlib.Path(attnc.__file__).parents[1],
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if result.returncode:
        return result.stderr.strip().rpartition("\n")[2]
    return result.stdout.strip()


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")


def peak_memory(call, arrays):
    """MB that a call takes at its peak, in a fresh interpreter, beside its arguments."""
    grown = python(
        f"""
        import numpy as np
        import attnc

        def memory(field):
            with open("/proc/self/status") as file:
                (line,) = (line for line in file if line.startswith(field + ":"))
            return int(line.split()[1]) / 1024

        def ones(*shape):
            return np.ones(shape, np.float32)

        def both(*arguments):
            context, pullback = attnc.vjp(*arguments)
            return context, pullback(context)

        attnc.set_num_threads(2)
        x = ones(1, 300, 64)
        both(attnc.dot_product_attention, x, x, x)  # what only a first call takes
        {arrays}
        before = memory("VmRSS")
        results = {call}
        print(memory("VmHWM") - before)
        """
    )
    return float(grown)


def evaluate(name, arrays, options, directions):
    """Outputs and gradients of the function of this name: (named tuple, dict)."""
    output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **options, **EVERYTHING)
    return output, vars(pullback(**directions))


def incoming(rng, output, dtype=np.float64):
    """Random incoming gradients for an output that has them all: the keywords of a pullback."""
    return {
        f"d{field}": rng.standard_normal(x.shape).astype(dtype)
        for field, x in zip(output._fields, output, strict=True)
    }


EVERYTHING = {"return_weights": True, "return_lse": True}


def check(name, arrays, options, rng, d=None, strict=False):
    """The function of this name, forward and backward, against the reference by the rule above.

    Also: shapes, dtypes and memory of everything that is returned, and inputs left alone.
    `d` are the incoming gradients, random unless given. `strict` asks that also the root mean
    square of the error be at most twice the plain formula's, without a floor: it is not a matter of
    luck where the arrays are large. Returns outputs and gradients.
    """
    dtype, options = np.result_type(*arrays), {**options, **EVERYTHING}
    plain = getattr(reference, name)
    naive, naive_pullback = reference.vjp(plain, *arrays, **options, dtype=dtype.type)
    exact, exact_pullback = reference.vjp(plain, *arrays, **options, dtype=wider(dtype))
    d = incoming(rng, exact, dtype) if d is None else d

    with assert_unchanged(arrays, options, d):
        output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **options)
        gradients = pullback(**d)

    terms = _largest_terms(plain, arrays, options, d, wider(dtype))
    scores = 0 if "bias" in options else _largest(exact.lse)  # about the largest score of all
    got = output._asdict() | {f"d{field}": x for field, x in vars(gradients).items()}
    exact = exact._asdict() | {f"d{field}": x for field, x in vars(exact_pullback(**d)).items()}
    naive = naive._asdict() | {f"d{field}": x for field, x in vars(naive_pullback(**d)).items()}
    assert got.keys() == exact.keys()
    for what, x in got.items():
        assert x.dtype == dtype and x.flags.c_contiguous and x.flags.writeable, what
        extra = scores if what != "lse" else 0
        floor = FLOOR + extra if x.size >= FEW else FLOOR_OF_FEW
        assert_close_like_naive(x, exact[what], naive[what], terms[what], floor, what)
        if strict and x.size >= FEW:
            got_rms, naive_rms = (_rms(y, exact[what]) for y in (x, naive[what]))
            assert got_rms <= 2 * naive_rms, (
                f"{what}: RMS error {got_rms:.3g}, not 2 * {naive_rms:.3g}"
            )
    assert len(gradients) == len(arrays)
    for x, y in zip(gradients, vars(gradients).values(), strict=False):
        assert x is y
    return output, gradients


def check_simple(name, arrays, options, rng, magnitudes=()):
    """A function of `attnc.functional` with one output against the reference, by the rule above.

    `magnitudes`: by the name of an output or gradient, the size of the terms that are summed to it,
    where that is larger than the sum. Returns output and gradients.
    """
    plain, dtype = getattr(reference, name), np.result_type(*arrays)
    naive, naive_pullback = reference.vjp(plain, *arrays, **options, dtype=dtype.type)
    exact, exact_pullback = reference.vjp(plain, *arrays, **options, dtype=wider(dtype))
    dy = rng.standard_normal(exact.shape).astype(dtype)
    with assert_unchanged(arrays, options, dy):
        y, pullback = attnc.vjp(getattr(functional, name), *arrays, **options)
        gradients = pullback(dy)
    assert_same(getattr(functional, name)(*arrays, **options), y)
    assert_same(vars(pullback(dy)), vars(gradients), "second pullback")
    got, magnitudes = {"y": y, **vars(gradients)}, dict(magnitudes)
    exact, naive = (
        {"y": exact, **vars(exact_pullback(dy))},
        {"y": naive, **vars(naive_pullback(dy))},
    )
    assert got.keys() == exact.keys()
    for what, x in got.items():
        assert x.dtype == dtype and x.flags.c_contiguous and x.flags.writeable, what
        floor = FLOOR if x.size >= FEW else FLOOR_OF_FEW
        magnitude = magnitudes.get(what, 0.0)
        assert_close_like_naive(x, exact[what], naive[what], magnitude, floor, what)
    return y, gradients


def check_outputs(name, arrays, options, rng, dtype, magnitudes=()):
    """A function whose outputs are a named tuple against the reference, by the rule above.

    `magnitudes` as in `check_simple`, or a function that makes them of the incoming gradients.
    Returns outputs and gradients.
    """
    plain, function = getattr(reference, name), getattr(functional, name)
    naive, naive_pullback = reference.vjp(plain, *arrays, **options, dtype=dtype)
    exact, exact_pullback = reference.vjp(plain, *arrays, **options, dtype=wider(dtype))
    d = incoming(rng, exact, dtype)
    with assert_unchanged(arrays, options, d):
        output, pullback = attnc.vjp(function, *arrays, **options)
        gradients = pullback(**d)
    assert_same(function(*arrays, **options), output)
    assert_same(vars(pullback(**d)), vars(gradients), "second pullback")
    found = [
        o._asdict() | {f"d{field}": x for field, x in vars(g).items()}
        for o, g in (
            (output, gradients),
            (exact, exact_pullback(**d)),
            (naive, naive_pullback(**d)),
        )
    ]
    magnitudes = dict(magnitudes(**d) if callable(magnitudes) else magnitudes)
    assert all(one.keys() == found[0].keys() for one in found)
    for what, x in found[0].items():
        assert x.dtype == dtype and x.flags.c_contiguous and x.flags.writeable, what
        floor = FLOOR if x.size >= FEW else FLOOR_OF_FEW
        assert_close_like_naive(
            x, found[1][what], found[2][what], magnitudes.get(what, 0.0), floor, what
        )
    return output, gradients


def _largest_terms(plain, arrays, options, d, dtype):
    """The largest term of the sums and differences in each output and gradient.

    The gradient of a softmax, w_ij (dw_ij - mean_i) with mean_i = sum_j w_ij dw_ij, may leave
    nothing of large numbers (one key: exactly 0). With an lse gradient of mean_i it is w_ij dw_ij
    alone; and c_i = sum_j w_ij v_j and dw_ij = dc_i . v_j cannot cancel with absolute values. Nor
    can a score and its bias, so an lse, where all that they are computed from is positive.
    """
    arrays, value = list(arrays), 1 if plain is reference.attend else 2
    arrays[value] = np.abs(arrays[value])
    output, pullback = reference.vjp(plain, *arrays, **options, dtype=dtype)
    d = {field: np.abs(x) for field, x in d.items()}
    with np.errstate(invalid="ignore"):
        mean = (d["dcontext"] * output.context).sum(-1) + (d["dweights"] * output.weights).sum(-1)
        d["dlse"] = d["dlse"] + mean
    terms = output._asdict() | {f"d{field}": x for field, x in vars(pullback(**d)).items()}
    largest = {what: _largest(x) for what, x in terms.items()}
    positive = {field: _positive(x) for field, x in options.items()}
    if options.get("slope") is not None:  # it is taken off
        positive["slope"] = -np.abs(options["slope"])
    with np.errstate(invalid="ignore"):
        lse = plain(*map(_positive, arrays), **positive, dtype=dtype).lse
    largest["lse"] = max(largest["lse"], _largest(lse))
    return largest


def _positive(x):
    """The absolute value of real numbers; but -inf, which excludes, and all else as it is."""
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        return np.where(x == -np.inf, x, np.abs(x))
    return abs(x) if isinstance(x, float) else x


def _rms(got, exact):
    return np.sqrt(((got - exact) ** 2).mean())


def _largest(x):
    return np.abs(x[np.isfinite(x)]).max(initial=0)


def check_vjp(vjp, function, arrays, options):
    """The pullback against central differences, of every real array that is passed."""
    options = {**options, **EVERYTHING}
    _, pullback = vjp(function, *arrays, **options)
    names = list(inspect.signature(function).parameters)[: len(arrays)]
    moved = {**dict(zip(names, arrays, strict=True)), **options}
    moved = {name: x for name, x in moved.items() if getattr(x, "dtype", None) == np.float64}

    def f(*values):
        return function(
            **{
                **dict(zip(names, arrays, strict=True)),
                **options,
                **dict(zip(moved, values, strict=True)),
            }
        )

    def backward(**d):
        gradients = pullback(**d)
        return [getattr(gradients, name) for name in moved]

    attnc.check_gradients(f, backward, *moved.values())


def run_out_of_memory(run, kept=(), *, least, most=None):
    """What run() returns, once every allocation of it has failed in turn, at least so many.

    Each failure is a MemoryError that loses no memory, and no reference to the arrays kept; nor
    does a call that succeeds lose any.
    """
    gc.collect()
    gc.freeze()  # each collection below walks through what was made since, not through all tests
    count, failures = _core.allocation_count(), 0
    references = [sys.getrefcount(x) for x in kept]
    while True:
        _core.fail_allocation(failures + 1)
        try:
            got = run()
            break
        except MemoryError:
            failures += 1
        finally:
            _core.fail_allocation(0)
        gc.collect()
        assert _core.allocation_count() == count, f"after allocation {failures} failed"
        assert [sys.getrefcount(x) for x in kept] == references
    assert failures >= least and (most is None or failures <= most)
    held = _core.allocation_count()
    run()
    gc.collect()
    assert _core.allocation_count() == held, "after a call"
    return got

"""Every function at every kind of size: forward and all gradients against the reference."""

import numpy as np
import pytest
from arrays import BIG, FUNCTIONS, LEADS, LONG, OPTIONS, SIZES, by_size, inputs, options
from checks import check

pytestmark = pytest.mark.parametrize("name", FUNCTIONS)


@pytest.mark.parametrize("sizes", SIZES, ids=by_size)
def test_sizes(name, sizes, dtype, isa, rng):
    if name == "cosine_attention" and sizes["D"] == 1:
        pytest.skip("all cosines are 1 or -1 and all gradients 0: test_cosine.py")
    arrays, own = inputs(name, rng, dtype, **sizes)
    check(name, arrays, own, rng)


@pytest.mark.parametrize("axis", ["Tq", "Tk", "D", "Dv"])
def test_sizes_with_every_option(name, axis, isa, rng):
    """The masks at the ends of vectors and tiles, all in one test to save a thousand."""
    for sizes in (sizes for sizes in SIZES if sizes["D"] > 1 or name != "cosine_attention"):
        arrays, own = inputs(name, rng, np.float32, **sizes)
        check(name, arrays, {**own, **options("everything", rng, np.float32, **sizes)}, rng)


@pytest.mark.parametrize("leads", LEADS, ids=str)
def test_leading_axes(name, leads, dtype, isa, rng):
    arrays, own = inputs(name, rng, dtype, leads=leads)
    check(name, arrays, {**own, **options("everything", rng, dtype, leads=leads)}, rng)


@pytest.mark.parametrize("sizes", BIG, ids=by_size)
def test_several_tiles(name, sizes, isa, rng):
    if name == "cosine_attention" and sizes["D"] == 1:
        pytest.skip("all cosines are 1 or -1 and all gradients 0: test_cosine.py")
    arrays, own = inputs(name, rng, np.float32, **sizes)
    check(name, arrays, own, rng)


@pytest.mark.parametrize("option", OPTIONS)
def test_few_queries_of_many_keys(name, option, isa, rng):
    """The keys are split, and what the splits give is merged."""
    sizes = {"Tq": 2, "Tk": 1300, "D": 9, "Dv": 21}
    arrays, own = inputs(name, rng, np.float32, **sizes)
    check(name, arrays, {**own, **options(option, rng, np.float32, **sizes)}, rng)


def test_twice_the_error_of_the_plain_formula(name, dtype, isa, rng):
    """The root mean square of the error: it is no luck, and needs no floor."""
    sizes = {"Tq": 129, "Tk": 150, "D": 64, "Dv": 64}
    arrays, own = inputs(name, rng, dtype, **sizes)
    check(name, arrays, {**own, "softcap": 1.5}, rng, strict=True)


@pytest.mark.parametrize("sizes", LONG, ids=by_size)
def test_twice_the_error_of_the_plain_formula_in_long_sums(name, sizes, isa, rng):
    arrays, own = inputs(name, rng, np.float32, **sizes, leads=((), (), ()))
    check(name, arrays, own, rng, strict=True)


@pytest.mark.parametrize("option", ["none", "everything"])
def test_several_tiles_in_float64(name, option, rng):
    sizes = {"Tq": 131, "Tk": 150, "D": 33, "Dv": 40, "leads": ((1,), (2,), (2,))}
    arrays, own = inputs(name, rng, **sizes)
    check(name, arrays, {**own, **options(option, rng, **sizes)}, rng)

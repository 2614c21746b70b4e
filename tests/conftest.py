"""Fixtures that most tests share: instruction set, dtype, number of threads, random numbers."""

import gc
import os
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import attnc
from attnc import _core


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="seed of the rng fixture (default: 0)")
    parser.addoption(
        "--cases", type=int, help="random cases of each property (default: 400, always the same)"
    )
    parser.addoption(
        "--sample",
        type=int,
        metavar="N",
        help="of the cases of each test one in N, at least one but of those that take long; which "
        "ones, --seed says; 1: every case, also of tests of which one in some is run without it",
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "one_in(n): of the cases of each of these tests one in n is run, unless --sample is given: "
        "where many settings meet, and most of what they share is tested elsewhere as well",
    )
    config.addinivalue_line(
        "markers",
        "long: takes the time of a hundred others; left out where --sample takes a part",
    )
    cases = config.getoption("cases")
    settings.register_profile(
        "properties",
        max_examples=cases or 400,
        derandomize=cases is None,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )


def pytest_report_header(config):
    names = ", ".join(_core.isa_names())
    return f"attnc: instruction sets {names}; --seed {config.getoption('seed')}"


def pytest_collection_modifyitems(config, items):
    n, seed, tests = config.getoption("sample"), config.getoption("seed"), {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = set()
    for cases in tests.values():
        mark = cases[0].get_closest_marker("one_in")
        share = n or (1 if mark is None else mark.args[0])
        if n and n > 1:
            cases = [item for item in cases if not item.get_closest_marker("long")]
        # By a hash of the name: the same in every process, whatever else is collected.
        cases.sort(key=lambda item: zlib.crc32(f"{seed} {item.nodeid}".encode()))
        kept.update(cases[: -(-len(cases) // share)])
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def pytest_collection_finish(session):
    # Tests that look for leaks collect garbage again and again: without a walk through all tests.
    gc.collect()
    gc.freeze()


# With ATTNC_ISA set, the whole suite runs on that one.
ISAS = (_core.get_isa(),) if os.environ.get("ATTNC_ISA") else _core.isa_names()


@pytest.fixture(params=ISAS)
def isa(request):
    """Run the test once with each set of kernels that this machine can run."""
    before = _core.get_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(params=[1, 2, 5], ids="threads={}".format)
def threads(request):
    before = attnc.get_num_threads()
    attnc.set_num_threads(request.param)
    yield request.param
    attnc.set_num_threads(before)


@pytest.fixture
def rng(request):
    seed = request.config.getoption("seed")
    print(f"rng fixture: --seed {seed}")  # pytest shows this with a failure
    return np.random.default_rng(seed)

"""The handlers of XLA, called by hand: what they compute, and that they trust no program."""

import struct

import numpy as np
import pytest
from xla import call_handler

import attnc
from attnc import _core

REFUSED = "attnc: the program must fit its plan, got another"


def plan_of(name, arrays, **options):
    """The plan of a call, which may be written to."""
    words, _, saves = _core.jax_plan(name, tuple(arrays), options)
    return np.frombuffer(words, np.int64).copy(), saves


# The words of a plan that tests write to, as csrc/jax/plan.h has them.
NUMBERS = 14  # scale, slope, sink, center, sigma, softcap, dropout
SOFTCAP = NUMBERS + 5
QUERY, KEY, VALUE = 1, 2, 4
CONTEXT, STATS = 1, 8


def word(number):
    """A float as the word that it is in a plan."""
    return struct.unpack("q", struct.pack("d", number))[0]


class Calls:
    """Right calls of the four handlers, of one problem: arguments, results, attributes."""

    def __init__(self, rng):
        self.arrays = [rng.standard_normal((2, 5, 4)) for _ in range(3)]
        self.along = [rng.standard_normal((2, 5, 4)) for _ in range(3)]
        self.dcontext = rng.standard_normal((2, 5, 4))
        self.plan, saves = plan_of("dot_product_attention", self.arrays, causal=True)
        assert saves == STATS
        self.context, self.stats = np.empty((2, 5, 4)), np.empty((2, 5, 2))
        self.moved = np.empty((2, 5, 4))
        self.gradients = [np.empty((2, 5, 4)) for _ in range(3)]
        self.seconds = [np.empty((2, 5, 4)) for _ in range(3)]

    def __call__(self, name):
        a, every = self.arrays, QUERY | KEY | VALUE
        return {
            "forward": (a, [self.context, self.stats], {"save": STATS}),
            "jvp": ([*a, *self.along], [self.moved], {"moving": every}),
            "backward": ([*a, self.dcontext, self.stats], self.gradients,
                         {"save": STATS, "incoming": CONTEXT, "wanted": every}),
            "hvp": ([*a, self.dcontext, *self.along], self.seconds,
                    {"incoming": CONTEXT, "moving": every, "dincoming": 0, "wanted": every}),
        }[name]  # fmt: skip

    def run(self, name, plan=None, arguments=None, results=None, **attributes):
        """A call, with something else in it; what went wrong."""
        right, into, more = self(name)
        plan = self.plan if plan is None else plan
        return call_handler(
            f"attnc_attention_{name}", right if arguments is None else arguments,
            into if results is None else results, **{"plan": plan} | more | attributes,
        )  # fmt: skip


HANDLERS = ["forward", "jvp", "backward", "hvp"]


def test_the_bits_of_a_call_from_python(rng):
    calls = Calls(rng)
    assert [calls.run(name) for name in HANDLERS] == [None] * 4
    f, options = attnc.dot_product_attention, {"causal": True}
    context, pullback = attnc.vjp(f, *calls.arrays, **options)
    _, moved = attnc.jvp(f, calls.arrays, calls.along, **options)
    seconds = attnc.hvp(f, calls.arrays, calls.along, calls.dcontext, **options)
    np.testing.assert_array_equal(calls.context, context)
    np.testing.assert_array_equal(calls.moved, moved)
    for found, wanted in zip(calls.gradients, pullback(calls.dcontext), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for found, wanted in zip(calls.seconds, seconds, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_plan_that_is_not_aligned(rng):
    calls = Calls(rng)
    memory = np.zeros(calls.plan.nbytes + 8, np.uint8)
    start = 4 - memory.ctypes.data % 8 % 4
    odd = memory[start : start + calls.plan.nbytes].view(np.int64)
    odd[:] = calls.plan
    assert odd.ctypes.data % 8 == 4
    assert calls.run("forward", plan=odd) is None


@pytest.mark.parametrize("name", HANDLERS)
def test_programs_that_do_not_fit(name, rng):
    calls = Calls(rng)
    arguments, results, attributes = calls(name)
    for k, right in enumerate(arguments):
        for wrong in (right[:1, :, :1], right.astype(np.float32), right.astype(np.int64), right[0]):
            changed = [*arguments[:k], np.ascontiguousarray(wrong), *arguments[k + 1 :]]
            assert calls.run(name, arguments=changed).startswith(REFUSED)
    for k, right in enumerate(results):
        for wrong in (right[:, :4], np.zeros_like(right, np.float32)):
            changed = [*results[:k], np.ascontiguousarray(wrong), *results[k + 1 :]]
            assert calls.run(name, results=changed).startswith(REFUSED)
    for fewer in (arguments[:-1], [*arguments, arguments[0]], []):
        assert calls.run(name, arguments=fewer).startswith(REFUSED)
    for fewer in (results[:-1], [*results, results[0]]):
        assert calls.run(name, results=fewer).startswith(REFUSED)
    for attribute, right in attributes.items():
        for wrong in (-1, 2**62, right ^ 64, np.array([right])):
            assert calls.run(name, **{attribute: wrong}).startswith(REFUSED)


@pytest.mark.parametrize("name", ["backward", "hvp"])
def test_a_gradient_of_nothing(name, rng):
    calls = Calls(rng)
    arguments = calls(name)[0]
    fewer = [x for x in arguments if x is not calls.dcontext]
    assert calls.run(name, arguments=fewer, incoming=0).startswith(REFUSED)


@pytest.mark.parametrize("softcap", [np.nan, np.inf, -1.0, -0.5, 1e-320, 1e308])
def test_softcaps_that_python_refuses(softcap, rng):
    calls = Calls(rng)
    plan, _ = plan_of("dot_product_attention", calls.arrays, softcap=2.0)
    assert plan[SOFTCAP] == word(2.0)
    assert calls.run("forward", plan=plan) is None
    plan[SOFTCAP] = word(softcap)
    assert calls.run("forward", plan=plan) == f"{REFUSED} option"
    with pytest.raises(ValueError, match="softcap must be"):
        attnc.dot_product_attention(*calls.arrays, softcap=softcap)


@pytest.mark.parametrize("scale", [np.nan, np.inf, 1e-320, 1e305])
def test_scales_that_python_refuses(scale, rng):
    calls = Calls(rng)
    plan = calls.plan.copy()
    plan[NUMBERS] = word(scale)
    assert calls.run("forward", plan=plan) == f"{REFUSED} option"
    with pytest.raises(ValueError, match="scale must be"):
        attnc.dot_product_attention(*calls.arrays, scale=scale)


@pytest.mark.parametrize(
    "lead, fits",
    [((2**40, 0), True), ((0, 2**40), True), ((2**40, 2**40, 0), False), ((2**58, 2**58, 0), False),
     ((0, 2**58, 2**58), False), ((2**58, 0, 2**58), False), ((2**62, 0), False)],
)  # fmt: skip
def test_empty_arrays_of_sizes_that_overflow(lead, fits):
    small = np.zeros((0,) * len(lead) + (5, 4))
    lengths = np.zeros((0,) * len(lead), np.int64)
    plan, _ = plan_of("dot_product_attention", [small] * 3, key_lengths=lengths)
    plan[-len(lead) :] = lead
    whole, one = ((*lead, 5, 4), "float64"), (lead, "int32")
    found = call_handler("attnc_attention_forward", [whole] * 3 + [one], [whole], plan=plan, save=0)
    if fits:
        assert found is None
    else:
        assert found.startswith(REFUSED)


def test_names_of_options_are_strings(rng):
    x = rng.standard_normal((2, 5, 4))
    with pytest.raises(TypeError, match="jax_plan: names of options must be strings, got 1"):
        _core.jax_plan("dot_product_attention", (x, x, x), {1: 2})
    with pytest.raises(TypeError, match="jax_plan: needs the name of an attention function"):
        _core.jax_plan("dot_product_attention", [x, x, x], {})

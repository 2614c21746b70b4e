"""check: right solutions pass, wrong ones are told what is wrong with them, in one line."""

import contextlib
import inspect
import io
import pickle

import numpy as np
import pytest
from arrays import FUNCTIONS
from checks import python
from student_solutions import HOSTILE, RIGHT, WRONG, products, said, short, softmax

import attnc
from attnc.teaching import check, mistakes
from attnc.teaching._cases import EXTREME, OPTIONS, TRAITS, cases

DOT = attnc.dot_product_attention
MECHANISMS = [n for n in FUNCTIONS if n != "merge_attention"]


def test_there_are_twenty_and_more():
    assert len(WRONG) >= 20 and len(HOSTILE) >= 8 and len(RIGHT) >= 8


@pytest.mark.parametrize("function, reference, how", RIGHT, ids=[f.__name__ for f, *_ in RIGHT])
def test_right_ones_pass(function, reference, how):
    got = check(function, reference, **how)
    assert got and got.cases > 5
    assert repr(got) == f"right: {reference.__name__}"
    assert str(got).startswith(f"{function.__name__}: right in {got.cases} calls")
    assert "\n" not in str(got)


@pytest.mark.parametrize("fault, says, function, reference, how", WRONG, ids=[w[0] for w in WRONG])
def test_wrong_ones_are_named(fault, says, function, reference, how):
    line = said(function, reference, how)
    assert line is not None, "passed"
    assert says in line and line.startswith("mine: ") and "\n" not in line


@pytest.mark.parametrize("what, says, function", HOSTILE, ids=[h[0] for h in HOSTILE])
def test_hostile_ones(what, says, function):
    line = said(function, DOT, {})
    assert line is not None, "passed"
    assert says in line and "\n" not in line


# ---- every usual mistake, as if a student had made it


# What the function of a mistake takes besides the options that it needs.
TAKEN = ("mask", "causal", "scale", "query_weight", "key_weight", "return_weights")


def as_student(mistake, name):
    """A mistake as a function."""
    reference = getattr(attnc, name)
    arrays = attnc.registry.record_of(reference).required

    def mine(**given):
        del given["return_weights"]
        with np.errstate(all="ignore"):
            made = mistake(name, [given.pop(array) for array in arrays], given)
            return made.context().copy(), made.weights().copy()

    shown = inspect.signature(reference).parameters.values()
    shown = [p for p in shown if p.name in (*arrays, *TAKEN, *mistake.needs)]
    mine.__signature__ = inspect.Signature(shown)
    return mine


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_usual_mistake_is_found(name):
    reference = getattr(attnc, name)
    for mistake in mistakes.usual(name, {*inspect.signature(reference).parameters, *TRAITS}):
        line = said(as_student(mistake, name), reference, {"skip": ("heads", "float32")})
        assert line == f"mine: {mistake.__doc__}"


@pytest.mark.parametrize("name", MECHANISMS)
def test_no_mistake_at_all(name):
    every = type("Every", (mistakes.Unfused,), {"needs": OPTIONS})
    assert check(as_student(every, name), getattr(attnc, name), strict=True)


# ---- how it is called


def test_all_that_attnc_promises():
    for name in MECHANISMS:
        function = getattr(attnc, name)
        left_out = check(function, function, strict=True, seed=1).left_out
        assert {"center", "query_offsets"} < set(left_out) and "mask" not in left_out


def test_what_it_cannot_check_against():
    for reference, shown in (
        (attnc.merge_attention, "merge_attention"),
        (attnc.DotProductAttention, "DotProductAttention"),
        ("dot_product_attention", "str"),
        (short, "short"),
    ):
        says = r"^check: reference must be one of attnc\.\w+, .*attnc\.attend, got " + shown
        with pytest.raises(TypeError, match=says):
            check(short, reference)
    with pytest.raises(TypeError, match="^check: student must be a function, got NoneType"):
        check(None, DOT)


def test_what_to_leave_out():
    with pytest.raises(ValueError, match="^check: skip must be among sequence, batch.*got 'dog'"):
        check(short, DOT, skip=["dog"])
    with pytest.raises(ValueError, match="^check: skip must leave something"):
        check(short, DOT, skip=["sequence", "batch", "heads"])
    with pytest.raises(ValueError, match="^check: options must be among bias, .*got 'dog'"):
        check(short, DOT, options=["dog"])
    with pytest.raises(TypeError, match="^check: strict must be"):
        check(short, DOT, strict="yes")
    with pytest.raises(AssertionError, match="^short: it must take mask, which is not in its sig"):
        check(short, DOT, options="mask")
    assert check(short, DOT, skip="heads").cases < check(short, DOT).cases


@pytest.mark.parametrize("name", MECHANISMS)
def test_each_trait_is_tried_and_can_be_left_out(name):
    everything = name, set(inspect.signature(getattr(attnc, name)).parameters), set()
    tried = list(cases(*everything, skip=set(), strict=False, seed=0))
    wanted = set(TRAITS) - ({"zero vector"} if name != "cosine_attention" else set())
    assert {trait for case in tried for trait in case.traits} == wanted
    for trait in TRAITS:
        left = cases(*everything, skip={trait}, strict=False, seed=0)
        assert sum(trait not in case.traits for case in tried) == sum(1 for _ in left)
    assert EXTREME < set(TRAITS)


def test_what_is_printed_is_not_shown():
    def mine(query, key, value):
        print("look", query.shape)
        return short(query, key, value)

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        got = check(mine, DOT)
    assert out.getvalue() == "" and "what it prints is not shown" in str(got)


def test_a_note_of_float64_and_strictly_an_error():
    def mine(query, key, value):
        return softmax(query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])) @ value

    assert "math.sqrt keeps float32" in str(check(mine, DOT))
    with pytest.raises(AssertionError, match="dtype of the inputs, float32, got float64, for"):
        check(mine, DOT, strict=True)
    assert "float32" not in str(check(short, DOT))


def test_strict_asks_for_values_that_are_not_read():
    def mine(query, key, value, mask):
        weights = np.where(mask, products(query, key), -np.inf)
        top = weights.max(axis=-1, keepdims=True)
        weights = np.exp(weights - np.where(top == -np.inf, 0, top))
        total = weights.sum(axis=-1, keepdims=True)
        return weights / np.where(total == 0, 1, total) @ value

    assert check(mine, DOT)
    with pytest.raises(AssertionError, match=r"is nan, must be .* mask \(3, 5\)"):
        check(mine, DOT, strict=True)


def test_arguments_by_name_in_any_order_and_by_place():
    def mine(v, k, q):
        return short(q, k, v)

    def named(value, key, query):
        return short(query, key, value)

    assert check(named, DOT)
    assert said(mine, DOT, {}) is not None
    assert check(lambda *arrays: short(*arrays), DOT)
    assert check(lambda a, b, c, /, **more: short(a, b, c), DOT)


def test_methods_objects_and_lambdas():
    class Mine:
        def __call__(self, query, key, value):
            return short(query, key, value)

        def method(self, query, key, value):
            return 2 * short(query, key, value)

    assert str(check(Mine(), DOT)).startswith("Mine: right")
    assert said(Mine().method, DOT, {}).startswith("method: context[")
    assert said(lambda q, k, v: 0 * q, DOT, {}).startswith("the function: ")


def test_required_options_get_values_that_change_nothing():
    def mine(query, key, value, mask, causal, scale, key_lengths):
        Tq, Tk = query.shape[-2], key.shape[-2]
        allowed = mask & (np.arange(Tk) < np.asarray(key_lengths)[..., None, None])
        if causal:
            allowed = allowed & np.tri(Tq, Tk, Tk - Tq, bool)
        return attnc.dot_product_attention(query, key, value, mask=allowed, scale=scale)

    got = check(mine, DOT)
    assert not {"mask", "causal", "scale", "key_lengths"} & set(got.left_out)


def test_an_error_of_a_rounding_passes_and_a_little_more_does_not():
    def off(by):
        return lambda q, k, v: short(q, k, v) * q.dtype.type(1 + by)

    assert check(off(4 * np.finfo(float).eps), DOT)
    assert said(off(1e-12), DOT, {"skip": "large scores"}) is not None


def test_a_mistake_in_float32_alone():
    def mine(query, key, value):
        if query.dtype == np.float32:
            query = query.astype(np.float16).astype(np.float32)
        return short(query, key, value)

    assert said(mine, DOT, {}).endswith("value (5, 3), float32")


def test_it_is_the_same_each_time():
    def mine(query, key, value):
        return short(query, key, value) + 1

    assert said(mine, DOT, {}) == said(mine, DOT, {})


def test_the_result_prints_as_one_line_in_a_notebook():
    class Printer:
        def text(self, text):
            self.said = text

    printer = Printer()
    got = check(short, DOT)
    got._repr_pretty_(printer, False)
    assert printer.said == str(got)
    assert pickle.loads(pickle.dumps(got)).cases == got.cases


def test_stages_alone_import_neither_check_nor_puzzles():
    code = """
        import sys
        import attnc
        attnc.stages
        later = {f"attnc.teaching.{name}" for name in ("checker", "mistakes", "puzzles")}
        print(*sorted(later & set(sys.modules)), attnc.teaching.check.__name__)
    """
    assert python(code) == "check"
    with pytest.raises(AttributeError, match="^module 'attnc.teaching' has no attribute 'chek'$"):
        attnc.teaching.chek  # noqa: B018

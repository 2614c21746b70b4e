"""vjp and its pullback: what it returns, what it takes, and that asking changes no answer."""

import inspect
import itertools

import numpy as np
import pytest
from arrays import FUNCTIONS, OPTIONS, inputs, options
from checks import EVERYTHING, assert_agree, assert_same, check_vjp, evaluate, incoming

import attnc
from attnc import reference, registry

FLAGS = [
    dict.fromkeys(flags, True)
    for n in range(3)
    for flags in itertools.combinations(("return_weights", "return_lse"), n)
]
D = ("dcontext", "dweights", "dlse")
SOME_D = [names for n in range(4) for names in itertools.combinations(D, n)]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_differences(name, option, rng):
    arrays, own = inputs(name, rng)
    own |= options(option, rng)
    check_vjp(attnc.vjp, getattr(attnc, name), arrays, own)


@pytest.mark.parametrize("option", ["none", "everything"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_outputs_do_not_depend_on_the_question(name, option, dtype, isa, rng):
    """With and without weights, lse and a pullback: the same bits."""
    sizes = {"Tq": 19, "Tk": 70}
    arrays, own = inputs(name, rng, dtype, **sizes)
    own |= options(option, rng, dtype, **sizes)
    function = getattr(attnc, name)
    context, weights, lse = function(*arrays, **own, **EVERYTHING)
    answers = {"context": context, "return_weights": weights, "return_lse": lse}
    for flags in FLAGS:
        expected = tuple(answers[x] for x in ("context", *flags))
        output = function(*arrays, **own, **flags)
        again, _ = attnc.vjp(function, *arrays, **own, **flags)
        if not flags:
            assert type(output) is type(again) is np.ndarray
            output, again = (output,), (again,)
        assert_same(output, expected)
        assert_same(again, expected)


@pytest.mark.parametrize("flags", FLAGS[1:], ids=",".join)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_named_outputs(name, flags, rng):
    arrays, own = inputs(name, rng)
    output = getattr(attnc, name)(*arrays, **own, **flags)
    fields = ("context", *(flag.removeprefix("return_") for flag in flags))
    assert output._fields == fields
    assert all(x is getattr(output, field) for x, field in zip(output, fields, strict=True))
    assert "2, 5, 13" in repr(output) and str(output.context[0, 0, 0])[:6] not in repr(output)


@pytest.mark.parametrize("given", SOME_D, ids=lambda given: "+".join(given) or "nothing")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_some_incoming_gradients(name, given, isa, rng):
    """Those that are missing count as 0; but with none at all something was forgotten."""
    arrays, own = inputs(name, rng)
    own |= {**options("everything", rng), **EVERYTHING}
    output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own)
    if not given:
        with pytest.raises(TypeError, match=f"^{name}: pullback must get dcontext or .* got none"):
            pullback()
        return
    d = incoming(rng, output)
    d = {field: d[field] for field in given}
    _, expected = reference.vjp(getattr(reference, name), *arrays, **own)
    for field, gradient in vars(expected(**d)).items():
        assert_agree(getattr(pullback(**d), field), gradient, f"d{field}")


def test_pullback_takes_dcontext_first(rng):
    arrays, _ = inputs("dot_product_attention", rng)
    context, pullback = attnc.vjp(attnc.dot_product_attention, *arrays)
    dcontext = rng.standard_normal(context.shape)
    assert_same(pullback(dcontext), pullback(dcontext=dcontext))
    with pytest.raises(TypeError, match="pullback must get dcontext"):
        pullback(None)
    with pytest.raises(TypeError):
        pullback(dcontext, None)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_pullback_may_be_called_again(name, dtype, isa, rng):
    arrays, own = inputs(name, rng, dtype)
    own |= options("everything", rng, dtype)
    output, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own, **EVERYTHING)
    first, second = incoming(rng, output, dtype), incoming(rng, output, dtype)
    gradients = vars(pullback(**first))
    pullback(**second)
    assert_same(vars(pullback(**first)), gradients)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_by_position_and_by_name(name, rng):
    arrays, own = inputs(name, rng)
    bias = np.zeros((1, 1, 7))
    context, pullback = attnc.vjp(getattr(attnc, name), *arrays, **own, bias=bias, causal=True)
    gradients = pullback(context)
    required = list(inspect.signature(getattr(attnc, name)).parameters)[: len(arrays)]
    assert isinstance(gradients, tuple) and len(gradients) == len(arrays)
    for gradient, argument, field in zip(gradients, arrays, required, strict=True):
        assert gradient is getattr(gradients, field) and gradient.shape == argument.shape
    for field, argument in {**own, "bias": bias}.items():
        assert getattr(gradients, field).shape == argument.shape
    assert set(vars(gradients)) == {*required, *own, "bias"}
    with pytest.raises(AttributeError, match="no gradient of 'mask'"):
        _ = gradients.mask


def test_arguments_by_keyword(rng):
    (query, key, value), _ = inputs("dot_product_attention", rng)
    expected = attnc.dot_product_attention(query, key, value)
    assert_same(attnc.dot_product_attention(key=key, value=value, query=query), expected)
    context, pullback = attnc.vjp(attnc.dot_product_attention, query, value=value, key=key)
    assert_same(context, expected)
    _, other = attnc.vjp(attnc.dot_product_attention, query, key, value)
    assert_same(pullback(context), other(context))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "attend"])
def test_self_attention_of_one_array(name, isa, rng):
    """The same array as query, key and value: three gradients, each its own."""
    x = rng.standard_normal((2, 6, 6))
    parameters = {
        "multiplicative_attention": [rng.standard_normal((6, 6))],
        "additive_attention": [rng.standard_normal(6)],
    }.get(name, [])
    options = {"causal": True}
    d = incoming(rng, getattr(attnc, name)(x, x, x, *parameters, **EVERYTHING))
    expected = evaluate(name, [x.copy(), x.copy(), x.copy(), *parameters], options, d)
    assert_same(evaluate(name, [x, x, x, *parameters], options, d), expected)


# ---- What it refuses -----------------------------------------------------------------------------


def _pullback(**flags):
    x = np.ones((2, 3, 4))
    return attnc.vjp(attnc.dot_product_attention, x, x, x, **flags)[1]


REFUSED = [
    ({}, {"dcontext": np.ones((2, 3, 5))}, ValueError, r"dcontext must .*\(2, 3, 4\).*\(2, 3, 5\)"),
    ({}, {"dcontext": np.ones((3, 4))}, ValueError, r"dcontext must .*\(2, 3, 4\).*\(3, 4\)"),
    ({}, {"dcontext": np.ones((1, 3, 4))}, ValueError, r"dcontext must .*\(1, 3, 4\)"),
    ({}, {"dcontext": 1.0}, ValueError, r"dcontext must .*\(2, 3, 4\)"),
    ({}, {"dcontext": np.ones((2, 3, 4), complex)}, TypeError, "dcontext must .*complex"),
    ({}, {"dcontext": np.ones((2, 3, 4), int)}, TypeError, "dcontext must have a float .*int64"),
    ({}, {"dweights": np.ones((2, 3, 3))}, ValueError, "dweights.*return_weights=True"),
    ({}, {"dlse": np.ones((2, 3))}, ValueError, "dlse.*return_lse=True"),
    (EVERYTHING, {"dweights": np.ones((2, 3, 1))}, ValueError, r"dweights must .*\(2, 3, 3\)"),
    (EVERYTHING, {"dlse": np.ones((2, 3, 1))}, ValueError, r"dlse must .*\(2, 3\)"),
]


@pytest.mark.parametrize(("flags", "d", "error", "message"), REFUSED)
def test_refused_incoming_gradients(flags, d, error, message):
    with pytest.raises(error, match=message):
        _pullback(**flags)(**d)


@pytest.mark.parametrize("f", [np.matmul, lambda x: x, None, reference.attend])
def test_only_functions_of_the_package(f):
    with pytest.raises(TypeError, match="vjp: f must be a function of attnc or a layer"):
        attnc.vjp(f, np.ones((2, 3)))


OWN = [r for r in registry.records() if r.function.__module__.startswith("attnc.")]


@pytest.mark.parametrize("record", OWN, ids=lambda record: record.name)
def test_wrong_calls_are_named(record):
    """By the function, whatever computes it; also by forward mode."""
    x = np.ones((1, 3, 8))
    count = len(record.required)
    for arrays, more in (([], {}), ([x] * 40, {}), ([x] * count, {"unknown": 1})):
        runs = [
            lambda: record.function(*arrays, **more),  # noqa: B023
            lambda: attnc.vjp(record.function, *arrays, **more),  # noqa: B023
        ]
        if record.jvp is not None:
            runs.append(lambda: attnc.jvp(record.function, arrays, arrays, **more))  # noqa: B023
        for run in runs:
            with pytest.raises(TypeError, match=rf"^(jvp: )?{record.name}\b"):
                run()

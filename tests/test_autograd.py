"""attnc.autograd: every function of the registry on autograd's boxes, by every derivative."""

import inspect
import pickle
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from arrays import inputs
from calls import CALLS, call
from checks import assert_same

import attnc
from attnc import registry

autograd = pytest.importorskip("autograd")

from autograd import grad, hessian_vector_product, jacobian, make_jvp, value_and_grad  # noqa: E402
from autograd import numpy as anp  # noqa: E402
from autograd.builtins import tuple as boxed_tuple  # noqa: E402
from autograd.core import make_vjp  # noqa: E402
from autograd.extend import vspace  # noqa: E402
from autograd.test_util import check_grads  # noqa: E402
from autograd.tracer import getval  # noqa: E402

import attnc.autograd  # noqa: E402

RECORDS = {record.name: record for record in registry.records()}
RELAXED = {"straight_through": {"rng": 3}, "gumbel_softmax": {"rng": 3, "temperature": 0.7}}
ALL = [*CALLS, *((name, "one") for name in RELAXED)]
# Where differences say what the gradient is. That of straight_through is another's, on purpose; and
# where a state counts steps, its windows jump at whole numbers.
SMOOTH = [
    (name, case)
    for name, case in ALL
    if name != "straight_through" and not case.startswith("window monotonic")
]
FORWARD = [(name, case) for name, case in SMOOTH if RECORDS[name].jvp]
SECOND = [(name, case) for name, case in FORWARD if RECORDS[name].backward_jvp]


def arguments_of(name, case, rng, dtype=np.float64):
    if name in RELAXED:
        return inputs("attend", rng, dtype)[0], RELAXED[name]
    return call(name, case, rng, dtype)


@pytest.fixture(autouse=True)
def seeded():
    """autograd's checks draw from NumPy's global generator."""
    np.random.seed(0)


def bridged(name):
    return getattr(attnc.autograd, name)


def leaves_of(record, arguments, options):
    """The real arrays of a call, those in sequences one by one, and how to call with others."""
    given = dict(zip(inspect.signature(record.function).parameters, arguments, strict=False))
    given |= options
    leaves = []

    def find(x):
        if isinstance(x, list | tuple):
            for item in x:
                find(item)
        elif isinstance(x, np.ndarray):
            leaves.append(x)

    for name in record.arrays:
        find(given.get(name))

    def calling(function):
        def run(*others):
            following = iter(others)

            def replaced(x):
                if isinstance(x, list | tuple):
                    return type(x)([replaced(item) for item in x])
                return next(following) if isinstance(x, np.ndarray) else x

            found = {name: replaced(given[name]) for name in record.arrays if name in given}
            return function(**given | found)

        return run

    return leaves, calling


def real_outputs(output):
    """Those with a gradient, one by one, as autograd's tuple or alone; 0 where one is infinite."""
    if not isinstance(output, tuple):
        return finite(output)
    items = [x for item in output for x in several(item)]
    return boxed_tuple([finite(x) for x in items if x is not None and x.dtype.kind != "i"])


def finite(x):
    where = np.isfinite(getval(x))
    return x if where.all() else anp.where(where, x, x.dtype.type(0))


def several(output):
    return output if isinstance(output, list | tuple) else (output,)


def problem(name, case, rng, dtype=np.float64):
    """A function of the real arrays that returns the real outputs, and these arrays."""
    leaves, calling = leaves_of(RECORDS[name], *arguments_of(name, case, rng, dtype))
    run = calling(bridged(name))
    return (lambda *given: real_outputs(run(*given))), leaves


def all_of(leaves):
    return tuple(range(len(leaves)))


def test_all_functions_are_here():
    of_attnc = [each for each in registry.records() if each.function.__module__[:6] == "attnc."]
    names = {record.name for record in of_attnc}
    assert names == {name for name, _ in ALL} == {*attnc.autograd.__all__} - {"wrap"}
    for name in names:
        assert bridged(name).__doc__ == bridged(name).__wrapped__.__doc__
        assert name in dir(attnc.autograd)
    assert pickle.loads(pickle.dumps(bridged("gru"))) is bridged("gru")


# ---- The registry, order by order ----------------------------------------------------------------


@pytest.mark.parametrize(("name", "case"), ALL)
def test_same_bits_as_attnc(name, case, rng, dtype):
    """Outputs are those of the plain function, and gradients those of attnc.vjp."""
    record, (arguments, options) = RECORDS[name], arguments_of(name, case, rng, dtype)
    leaves, calling = leaves_of(record, arguments, options)
    output, pullback = attnc.vjp(record.function, *arguments, **options)
    plain = calling(bridged(record.name))(*leaves)
    back, boxed = make_vjp(lambda x: real_outputs(calling(bridged(record.name))(*x)), tuple(leaves))
    flat = real_outputs(output)
    for found in (real_outputs(plain), boxed):
        for x, y in zip(several(found), several(flat), strict=True):
            assert_same(x, y)
    fields = getattr(output, "_fields", None)
    names = [f"d{field}" for field in fields] if fields else record.incoming[:1]
    d, one_by_one = {}, []
    for name, item in zip(names, output if fields else [output], strict=True):
        if name in record.incoming and item is not None:
            drawn = [np.asarray(rng.standard_normal(x.shape), x.dtype) for x in several(item)]
            d[name] = tuple(drawn) if isinstance(item, tuple) else drawn[0]
            one_by_one += drawn
    gradients = pullback(**d)
    found = back(tuple(one_by_one) if fields else one_by_one[0])
    given = dict(zip(inspect.signature(record.function).parameters, arguments, strict=False))
    given |= options
    expected = [
        gradient
        for name in record.arrays
        if isinstance(given.get(name), np.ndarray | list | tuple)
        for x, gradient in zip(several(given[name]), several(gradients[name]), strict=True)
        if x is not None
    ]
    for gradient, wanted, leaf in zip(found, expected, leaves, strict=True):
        assert vspace(gradient) == vspace(leaf)
        assert_same(gradient, wanted)


@pytest.mark.parametrize(("name", "case"), SMOOTH)
def test_gradients(name, case, rng):
    f, leaves = problem(name, case, rng)
    check_grads(f, all_of(leaves), modes=["rev"], order=1)(*leaves)


@pytest.mark.parametrize(("name", "case"), FORWARD)
def test_forward_mode(name, case, rng):
    f, leaves = problem(name, case, rng)
    check_grads(f, all_of(leaves), modes=["fwd"], order=1)(*leaves)


@pytest.mark.parametrize(("name", "case"), SECOND)
def test_second_order(name, case, rng):
    """Forward and reverse mode of both."""
    f, leaves = problem(name, case, rng)
    check_grads(f, all_of(leaves), modes=["fwd", "rev"], order=2)(*leaves)


@pytest.mark.parametrize("name", ["dot_product_attention", "lstm"])
def test_second_tangents_are_linear_in_both_directions(name, rng):
    """And have their derivatives by these, in either mode."""
    f, leaves = problem(name, {"lstm": "state"}.get(name, "none one both"), rng)
    x = tuple(leaves)

    def second(u, w):
        return make_jvp(lambda x: make_jvp(lambda x: f(*x))(x)(u)[1])(x)(w)[1]

    directions = vspace(x).randn(), vspace(x).randn()
    check_grads(second, (0, 1), modes=["fwd", "rev"], order=1)(*directions)
    for a, b in zip(several(second(*directions)), several(second(*directions[::-1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


def test_second_order_with_dropout(rng):
    """The same weights are dropped in all derivatives, by an int and by a generator as it was."""
    arrays = rng.standard_normal((3, 4, 5))

    def f(*arrays):
        generator = np.random.default_rng(3)
        return attnc.autograd.dot_product_attention(*arrays, dropout=0.4, rng=generator)

    check_grads(f, (0, 1, 2), modes=["fwd", "rev"], order=2)(*arrays)


# ---- A function of one's own, with all that a record may have ------------------------------------

Mixed = namedtuple("Mixed", "product count total")


def mixed(x, pair, *, shift=None, where=None):
    """x a^2 + exp(b) + shift where it says so, how many these are, and the sum of x b."""
    a, b = pair
    product = x * a**2 + np.exp(b)
    if shift is not None:
        product = product + shift
    if where is None:
        where = np.ones(x.shape, bool)
    return Mixed(np.where(where, product, 0), np.asarray(where.sum()), np.asarray((x * b).sum()))


def mixed_forward(x, pair, *, shift=None, where=None):
    saved = x, *pair, np.ones(x.shape, bool) if where is None else where
    return mixed(x, pair, shift=shift, where=where), saved, shift


def mixed_backward(saved, shift, dproduct, dtotal):
    x, a, b, where = saved
    g = 0 if dproduct is None else np.where(where, dproduct, 0)
    h = 0 if dtotal is None else dtotal
    dshift = None if shift is None else np.asarray(np.sum(g + 0 * x))
    return g * a**2 + h * b, (2 * g * x * a, g * np.exp(b) + h * x), dshift


def given_tangents(tangents):
    a, b = tangents.get("pair") or (None, None)
    return [0 if t is None else t for t in (tangents.get("x"), a, b, tangents.get("shift"))]


def mixed_jvp(tangents, x, pair, *, shift=None, where=None):
    (a, b), (tx, ta, tb, ts) = pair, given_tangents(tangents)
    output = mixed(x, pair, shift=shift, where=where)
    product = tx * a**2 + 2 * x * a * ta + np.exp(b) * tb + ts + 0 * x
    total = np.asarray((tx * b + x * tb).sum())
    return output, Mixed(product if where is None else np.where(where, product, 0), None, total)


def mixed_backward_jvp(tangents, incoming, dincoming, x, pair, *, shift=None, where=None):
    (a, b), (tx, ta, tb, _) = pair, given_tangents(tangents)
    g, h = (0 if d is None else d for d in incoming)
    dg, dh = (0 if d is None else d for d in dincoming)
    if where is not None:
        g, dg = np.where(where, g, 0), np.where(where, dg, 0)
    dx = dg * a**2 + 2 * g * a * ta + dh * b + h * tb
    da = 2 * (dg * x * a + g * tx * a + g * x * ta)
    db = dg * np.exp(b) + g * np.exp(b) * tb + dh * x + h * tx
    return dx, (da, db), None if shift is None else np.asarray(np.sum(dg + 0 * x))


def mixed_jvp_jvp(tangents, others, x, pair, *, shift=None, where=None):
    (a, b), (tx, ta, tb, _) = pair, given_tangents(tangents)
    sx, sa, sb, _ = given_tangents(others)
    product = 2 * a * (tx * sa + sx * ta) + 2 * x * ta * sa + np.exp(b) * tb * sb + 0 * x
    total = np.asarray((tx * sb + sx * tb + 0 * x).sum())
    return Mixed(product if where is None else np.where(where, product, 0), None, total)


HOW = {
    "required": ("x", "pair"),
    "optional": ("shift",),
    "incoming": ("dproduct", "dtotal"),
    "forward": mixed_forward,
    "backward": mixed_backward,
    "fixed": ("where",),
}


@pytest.fixture
def own():
    passes = {"jvp": mixed_jvp, "backward_jvp": mixed_backward_jvp, "jvp_jvp": mixed_jvp_jvp}
    registry.register(mixed, **passes, **HOW)
    yield attnc.autograd.wrap(mixed)
    del registry._records[mixed]


@pytest.fixture
def arrays(rng):
    return [rng.standard_normal(4) for _ in range(3)]


@pytest.mark.parametrize("masked", [False, True])
def test_all_orders_of_a_function_of_ones_own(own, arrays, masked):
    where = np.array([True, False, True, True]) if masked else None

    def f(x, a, b, shift):
        return real_outputs(own(x, [a, b], shift=shift, where=where))

    one_product, one_total = (lambda *x: f(*x)[0]), (lambda x: f(x, *arrays[1:], 0.5)[1])
    shift = np.array(0.5)
    for g, leaves in (
        (f, [*arrays, shift]),
        (one_product, [*arrays, shift]),
        (one_total, arrays[:1]),
    ):
        check_grads(g, all_of(leaves), modes=["fwd", "rev"], order=2)(*leaves)


def test_what_autograd_offers(own, arrays):
    """Its functions of second order, with the answers from the formula."""
    x, a, b = arrays

    def loss(a):
        product, _, total = own(x, (a, b))
        return anp.sum(product**2) / 2 + total

    product = x * a**2 + np.exp(b)
    slope = 2 * x * a * product
    curvature = 2 * x * product + (2 * x * a) ** 2
    value, gradient = value_and_grad(loss)(a)
    np.testing.assert_allclose(value, np.sum(product**2) / 2 + np.sum(x * b))
    np.testing.assert_allclose(gradient, slope)
    np.testing.assert_allclose(jacobian(grad(loss))(a), np.diag(curvature))
    np.testing.assert_allclose(jacobian(jacobian(loss))(a), np.diag(curvature))
    np.testing.assert_allclose(hessian_vector_product(loss)(a, b), curvature * b)
    np.testing.assert_allclose(make_jvp(grad(loss))(a)(b)[1], curvature * b)
    np.testing.assert_allclose(make_jvp(loss)(a)(b)[1], slope @ b)
    along = make_jvp(lambda a: make_jvp(loss)(a)(b)[1])(a)(x)[1]
    np.testing.assert_allclose(along, np.sum(curvature * b * x))


def test_records_that_lack_something(own):
    registry.register(mixed, **HOW)
    f, x = attnc.autograd.wrap(mixed), np.ones(3)
    with pytest.raises(NotImplementedError, match="^mixed: has no forward mode.* no jvp"):
        make_jvp(lambda x: f(x, (x, x)).total)(x)(x)
    registry.register(mixed, jvp=mixed_jvp, **HOW)
    g = attnc.autograd.wrap(mixed)
    with pytest.raises(NotImplementedError, match="^mixed: has no second .* no backward_jvp"):
        jacobian(jacobian(lambda x: anp.sum(g(x, (x, x)).product)))(x)
    with pytest.raises(NotImplementedError, match="^mixed: has no forward mode of .* no jvp_jvp"):
        make_jvp(lambda x: make_jvp(lambda x: g(x, (x, x)).product)(x)(x)[1])(x)(x)
    with pytest.raises(TypeError, match="^wrap: function must be one of attnc.registry, got 'sum'"):
        attnc.autograd.wrap(np.sum)


def test_third_derivatives_raise(own, arrays):
    x, a, b = arrays

    def loss(a):
        return anp.sum(own(x, (a, b)).product)

    for f in (
        jacobian(jacobian(loss)),
        lambda a: make_jvp(grad(loss))(a)(b)[1],
        lambda a: make_jvp(lambda a: make_jvp(loss)(a)(b)[1])(a)(b)[1],
    ):
        for derivative in (lambda f: jacobian(f)(a), lambda f: make_jvp(f)(a)(b)):
            with pytest.raises(NotImplementedError, match="^mixed: has no third derivatives"):
                derivative(f)


def test_one_forward_pass_gives_a_tangent(own, arrays, monkeypatch):
    """The function is not run beside its jvp."""
    record = registry.record_of(mixed)
    monkeypatch.setitem(registry._records, mixed, record._replace(forward=None))
    x, a, b = arrays
    f = attnc.autograd.wrap(mixed)
    make_jvp(lambda x: f(x, (a, b)).product)(x)(a)


def test_one_backward_pass_gives_all_gradients(rng, monkeypatch):
    record, calls = registry.record_of(attnc.dot_product_attention), []

    def backward(*arguments):
        calls.append(arguments)
        return record.backward(*arguments)

    monkeypatch.setitem(registry._records, record.function, record._replace(backward=backward))
    f = attnc.autograd.wrap(record.function)
    grad(lambda *x: anp.sum(f(*x)), (0, 1, 2))(*rng.standard_normal((3, 2, 4)))
    assert len(calls) == 1


# ---- What goes in and comes out ------------------------------------------------------------------


def attention(*arrays, **options):
    return attnc.autograd.dot_product_attention(*arrays, **options)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_shape_and_dtype_of_every_gradient(kind, rng):
    """Also where arrays differ, and where what comes in is wider."""
    calls = ("additive_attention", "everything one"), ("lstm", "state")
    for name, case in (*calls, ("linear_cross_entropy", "bias")):
        leaves, calling = leaves_of(RECORDS[name], *call(name, case, rng, kind))
        leaves[0] = leaves[0].astype(np.float32)
        run = calling(bridged(name))

        def loss(leaves, run=run):
            output = run(*leaves)
            outputs = [x for item in several(output) for x in several(item)]
            return np.float64(2) * sum([anp.sum(x) for x in outputs])

        for gradient, leaf in zip(grad(loss)(leaves), leaves, strict=True):
            assert vspace(gradient) == vspace(leaf)


def test_numbers_have_gradients(rng):
    """A scale and a sink that are Python's numbers, which leave the dtype of the rest alone."""
    q, k, v = rng.standard_normal((3, 2, 4)).astype(np.float32)

    def loss(numbers):
        context = attention(q, k, v, scale=numbers["scale"], sink=2 * numbers["sink"])
        assert context.dtype == np.float32
        return anp.sum(context**2)

    found = grad(loss)({"scale": 0.5, "sink": -0.25})
    context, pullback = attnc.vjp(
        attnc.dot_product_attention, q, k, v, scale=np.array(0.5, "f"),
        sink=np.array(-0.5, "f"),
    )  # fmt: skip
    expected = pullback(2 * context)
    np.testing.assert_allclose(found["scale"], expected.scale, rtol=1e-6)
    np.testing.assert_allclose(found["sink"], 2 * expected.sink, rtol=1e-6)


def test_lists_tuples_and_dicts(rng):
    """Sequences of arrays as a box, as boxes, and with arrays among the boxes."""
    x = rng.standard_normal((2, 3, 4))
    W, U, b, c = (rng.standard_normal(s) for s in ((4, 9), (3, 9), (9,), (9,)))
    gru = attnc.autograd.gru

    def loss(parameters):
        return anp.sum(gru(x, parameters).outputs ** 2)

    outputs = attnc.functional.gru(x, [W, U, b, c]).outputs
    _, pullback = attnc.vjp(attnc.functional.gru, x, [W, U, b, c])
    expected = pullback(2 * outputs).parameters
    assert_same(tuple(grad(loss)([W, U, b, c])), expected)
    assert_same(grad(loss)((W, U, b, c)), expected)
    found = grad(lambda p: loss([p["W"], U, p["b"], c]))({"W": W, "b": b})
    assert_same((found["W"], found["b"]), (expected[0], expected[2]))
    assert_same(grad(lambda W: loss((W, U, b, c)))(W), expected[0])


def test_an_array_of_boxes(rng):
    """Rows, and numbers, that are computed one by one."""
    q, k, v = rng.standard_normal((3, 2, 3))

    def loss(q, rows):
        query = [rows(row) for row in q]
        return anp.sum(attention(query, k, v) ** 2)

    expected = grad(lambda q: anp.sum(attention(q, k, v) ** 2))(q)
    np.testing.assert_array_equal(grad(loss)(q, lambda row: row), expected)
    numbers = grad(loss)(q, lambda row: [row[0], row[1], row[2]])
    np.testing.assert_array_equal(numbers, expected)


def test_one_array_in_several_places(rng):
    x = rng.standard_normal((5, 4))
    context, pullback = attnc.vjp(attnc.dot_product_attention, x, x, x)
    found = grad(lambda x: anp.sum(attention(x, x, x) ** 2))(x)
    np.testing.assert_allclose(found, sum(pullback(2 * context)), rtol=1e-12)


def test_without_boxes_it_is_the_plain_function(rng):
    q, k, v = rng.standard_normal((3, 2, 4))
    assert type(attention(q, k, v)) is np.ndarray
    output = attention(key=k, value=v, query=q, return_lse=True)
    assert type(output) is type(attnc.dot_product_attention(q, k, v, return_lse=True))
    assert_same(attention(q.tolist(), k.tolist(), v), attnc.dot_product_attention(q, k, v))


def test_by_name(rng):
    q, k, v = rng.standard_normal((3, 2, 4))
    expected = grad(lambda *x: anp.sum(attention(*x) ** 2), (0, 1, 2))(q, k, v)
    found = grad(lambda k, v, q: anp.sum(attention(value=v, query=q, key=k) ** 2), (2, 0, 1))(
        k, v, q
    )
    assert_same(found, expected)


def test_named_tuples(rng):
    """Their fields are boxes, and arrays of integers, which have no gradient, are arrays."""
    scores, value = rng.standard_normal((2, 3)), rng.standard_normal((3, 4))

    def loss(scores):
        result = attnc.autograd.hard_attention(scores, value, rng=0)
        assert result._fields == ("context", "index", "log_probability", "entropy")
        assert type(result.index) is np.ndarray and "context=float64 (2, 4)" in repr(result)
        context, index, log_probability, _ = result
        return anp.sum(log_probability * value[index, 0])

    result, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=0)
    expected = pullback(None, value[result.index, 0]).scores
    np.testing.assert_array_equal(grad(loss)(scores), expected)


def test_what_is_not_asked_for_costs_nothing(rng, monkeypatch):
    """autograd's zeros for the weights are not passed on: with these nothing would be fused."""
    record, came = registry.record_of(attnc.attend), []

    def backward(saved, static, *incoming):
        came.append(incoming)
        return record.backward(saved, static, *incoming)

    monkeypatch.setitem(registry._records, record.function, record._replace(backward=backward))
    f = attnc.autograd.wrap(record.function)
    s, v = rng.standard_normal((2, 3)), rng.standard_normal((3, 4))
    flags = {"return_weights": True, "return_lse": True}
    grad(lambda s: anp.sum(f(s, v, **flags).context))(s)
    ((dcontext, dweights, dlse),) = came
    assert dcontext is not None and dweights is None and dlse is None
    nothing = grad(lambda s: 0 * anp.sum(f(s, v, **flags).context))(s)
    assert_same(nothing, np.zeros_like(s))


def test_masks_in_boxes(own, rng):
    """What has no gradient is taken out of its box: a mask among the differentiated arguments."""
    x = rng.standard_normal(4)
    where = np.array([True, False, True, True])
    found = grad(lambda x, d: anp.sum(own(x, (x, x), where=d["where"]).product))(
        x, {"where": where}
    )
    np.testing.assert_allclose(found, np.where(where, 3 * x**2 + np.exp(x), 0))


@pytest.mark.parametrize("rng_of", [lambda: None, lambda: np.random.default_rng(7), lambda: 7])
def test_dropout_is_drawn_once(rng_of):
    """The gradient is that of what was returned; a generator goes on as in the plain function."""
    ones, eye = np.ones((64, 4)), np.eye(64)
    given, same = rng_of(), rng_of()

    def f(value):
        return attention(ones, ones, value, dropout=0.5, rng=given)

    back, weights = make_vjp(f, eye)
    np.testing.assert_allclose(back(eye), weights.T, rtol=1e-6, atol=1e-9)
    assert 0.3 < np.mean(weights == 0) < 0.7
    context, tangent = make_jvp(lambda value: attention(ones, ones, value, dropout=0.5))(eye)(eye)
    np.testing.assert_allclose(tangent, context, rtol=1e-6)
    if given is not None:
        assert_same(attnc.dot_product_attention(ones, ones, eye, dropout=0.5, rng=same), weights)
    if isinstance(given, np.random.Generator):
        assert given.bit_generator.state == same.bit_generator.state


def test_a_training_step_in_autograd(rng):
    """A small model around the functions, against the same in attnc's own gradients."""
    memory, y = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 2, 3))
    parameters = {"weight": rng.standard_normal((3, 3)), "query": rng.standard_normal((2, 2, 3))}

    def loss(parameters):
        context = attnc.autograd.multiplicative_attention(
            anp.tanh(parameters["query"]), memory, memory, parameters["weight"], key_lengths=[4, 2]
        )
        return attnc.autograd.mean_squared_error(context, y)

    value, gradients = value_and_grad(loss)(parameters)
    query = np.tanh(parameters["query"])
    context, back = attnc.vjp(
        attnc.multiplicative_attention, query, memory, memory, parameters["weight"],
        key_lengths=[4, 2],
    )  # fmt: skip
    expected, back_of_loss = attnc.vjp(attnc.losses.mean_squared_error, context, y)
    dquery, _, _, dweight = back(back_of_loss()[0])
    assert value == expected
    np.testing.assert_allclose(gradients["weight"], dweight, rtol=1e-12)
    np.testing.assert_allclose(gradients["query"], dquery * (1 - query**2), rtol=1e-12)


# ---- What it refuses -----------------------------------------------------------------------------


def test_errors_are_those_of_the_function(rng):
    q, k, v = rng.standard_normal((3, 2, 4))
    for options, error in [({"scale": "x"}, TypeError), ({"key_lengths": 9}, ValueError)]:
        with pytest.raises(error) as plain:
            attnc.dot_product_attention(q, k, v, **options)
        with pytest.raises(error) as boxed:
            grad(lambda q, o=options: anp.sum(attention(q, k, v, **o)))(q)
        assert str(boxed.value) == str(plain.value)
    for arguments, options in [((q, k, v, v), {}), ((q,), {"query": q, "key": k, "value": v})]:
        with pytest.raises(TypeError, match="dot_product_attention"):
            grad(lambda q, a=arguments, o=options: anp.sum(attention(q, *a[1:], **o)))(q)
    with pytest.raises(TypeError, match="^dot_product_attention: dropout must .*"):
        grad(lambda p: anp.sum(attention(q, k, v, dropout=p)))(0.5)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("query", lambda x: attnc.dot_product_attention(x, x, x)),
        ("x", lambda x: attnc.functional.gru(x, [np.ones((4, 9))])),
        ("logits", lambda x: attnc.losses.softmax_cross_entropy(x, np.zeros(3, int))),
        ("x", lambda x: attnc.GRU(4, 3)(x)),
    ],
)
def test_plain_functions_refuse_boxes(name, plain):
    with pytest.raises(TypeError, match=f"{name} must .* an autograd box.*attnc.autograd"):
        grad(lambda x: plain(x))(np.ones((3, 4)))


def test_without_the_package():
    """The error says what to install; nothing else needs it."""
    code = "import sys; sys.modules['autograd'] = None; import attnc; {}"
    run = [sys.executable, "-c", code.format("import attnc.autograd")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert "ImportError: attnc.autograd: " in done.stderr and "pip install autograd" in done.stderr
    run[2] = code.format("attnc.dot_product_attention([[1.0]], [[1.0]], [[1.0]])")
    subprocess.run(run, check=True)
    run[2] = "import attnc, sys; assert 'autograd' not in sys.modules"
    subprocess.run(run, check=True)


# ---- Threads -------------------------------------------------------------------------------------


def test_a_thousand_calls_at_once(rng):
    """Values and gradients from many threads have the bits of those from one."""
    calls = [
        ("dot_product_attention", "everything one"),
        ("additive_attention", "none one both"),
        ("lstm", "lengths"),
        ("layer_norm", "weight"),
    ]
    problems = [problem(*each, rng, np.float32) for each in calls]

    def run(k):
        f, leaves = problems[k % len(problems)]
        leaves = tuple(leaf * np.float32(1 + k // len(problems) % 5) for leaf in leaves)
        back, output = make_vjp(lambda x: f(*x), leaves)
        return (*several(output), *back(output))

    serial = [run(k) for k in range(20)]
    with ThreadPoolExecutor(8) as pool:
        for k, found in enumerate(pool.map(run, range(1000))):
            assert_same(found, serial[k % 20])

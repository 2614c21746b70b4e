"""Transforms of torch.func over the functions on tensors, and second derivatives."""

import functools
import warnings

import numpy as np
import pytest
from calls import CALLS

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad  # noqa: E402
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from torch_calls import RECORDS, OnTensors, leaves  # noqa: E402

import attnc.torch.nn  # noqa: E402
from attnc import registry  # noqa: E402
from attnc.registry import Output, register  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
attend = attnc.torch.dot_product_attention


# ---- a function with all derivatives, to hold the bridge alone against PyTorch's own -------------


def scaled_power(x, weight, exponent=3):
    return x**exponent * weight


def _forward(x, weight, exponent=3):
    return scaled_power(x, weight, exponent), (x, weight), exponent


def _backward(saved, n, dy):
    x, weight = saved
    return dy * n * x ** (n - 1) * weight, _rows(dy * x**n)


def _jvp(tangents, x, weight, exponent=3):
    dx, dweight = (_or_zeros(tangents.get(n), a) for n, a in (("x", x), ("weight", weight)))
    moved = exponent * x ** (exponent - 1) * weight * dx + x**exponent * dweight
    return scaled_power(x, weight, exponent), moved


def _backward_jvp(tangents, incoming, dincoming, x, weight, exponent=3):
    dx, dweight = (_or_zeros(tangents.get(n), a) for n, a in (("x", x), ("weight", weight)))
    g, dg = (_or_zeros(row[0], x) for row in (incoming, dincoming))
    n = exponent
    first = n * x ** (n - 1)
    back = dg * first * weight + g * (n * (n - 1) * x ** (n - 2) * dx * weight + first * dweight)
    return back, _rows(dg * x**n + g * first * dx)


def _jvp_jvp(tangents, others, x, weight, exponent=3):
    (dx, dweight), (ex, eweight) = (
        [_or_zeros(of.get(n), a) for n, a in (("x", x), ("weight", weight))]
        for of in (tangents, others)
    )
    n = exponent
    curved = n * (n - 1) * x ** (n - 2) * weight * dx * ex
    return curved + n * x ** (n - 1) * (dx * eweight + ex * dweight)


def _rows(x):
    return x.reshape(-1, x.shape[-1]).sum(0)


def _or_zeros(x, like):
    return np.zeros_like(like) if x is None else x


register(
    scaled_power,
    required=["x", "weight"],
    incoming=["dy"],
    forward=_forward,
    backward=_backward,
    jvp=_jvp,
    backward_jvp=_backward_jvp,
    jvp_jvp=_jvp_jvp,
    outputs=lambda x, weight, exponent=3: Output(tuple(x.shape)),
    leading=["x"],
)
wrapped = attnc.torch.wrap(scaled_power)
TRANSFORMS = {
    "grad": lambda f, x, w: grad(_loss(f), (0, 1))(x, w),
    "jacrev": lambda f, x, w: jacrev(f, (0, 1))(x, w),
    "jacfwd": lambda f, x, w: jacfwd(f, (0, 1))(x, w),
    "jvp": lambda f, x, w: jvp(f, (x, w), (x + 1, w)),
    "vjp": lambda f, x, w: vjp(f, x, w)[1](x),
    "jvp of grad": lambda f, x, w: jvp(grad(_loss(f), (0, 1)), (x, w), (w + x, w)),
    "hessian": lambda f, x, w: hessian(_loss(f), (0, 1))(x, w),
    "jacrev of jacrev": lambda f, x, w: jacrev(jacrev(_loss(f), (0, 1)), (0, 1))(x, w),
    "jacrev of jacfwd": lambda f, x, w: jacrev(jacfwd(_loss(f), (0, 1)), (0, 1))(x, w),
    "jacfwd of jacfwd": lambda f, x, w: jacfwd(jacfwd(_loss(f), (0, 1)), (0, 1))(x, w),
    "jacfwd of jacfwd of all": lambda f, x, w: jacfwd(jacfwd(f))(x, w),
    "jvp of jvp": lambda f, x, w: _jvp_of_jvp(f, (x, w), (x + 1, w), (w - x, w)),
    "jvp of jvp along what moves": lambda f, x, w: jvp(
        lambda x, w: jvp(f, (x, w), (x * x, w))[1], (x, w), (w + x, w)
    ),
    "grad of jvp of jvp by a tangent": lambda f, x, w: grad(
        lambda u, v: _jvp_of_jvp(_loss(f), (x, w), (u, w), (v, w))[1], (0, 1)
    )(x + 1, x * x),
    "jvp of jvp of jvp by both tangents": lambda f, x, w: jvp(
        lambda u, v: _jvp_of_jvp(f, (x, w), (u, w), (v, w))[1], (x + 1, x * x), (w + x, x)
    ),
    "vmap of jvp of jvp": lambda f, x, w: vmap(
        lambda x: _jvp_of_jvp(f, (x, w), (x + 1, w), (w - x, w))
    )(x),
    "vmap": lambda f, x, w: vmap(f, (0, None))(x, w),
    "vmap of the last axis": lambda f, x, w: vmap(f, (1, None), 1)(x.mT, w),
    "vmap of the parameter": lambda f, x, w: vmap(f, (None, 0))(x, torch.stack([w, 2 * w])),
    "vmap of vmap": lambda f, x, w: vmap(vmap(f, (0, None)), (0, None))(torch.stack([x, -x]), w),
    "vmap of grad": lambda f, x, w: vmap(grad(_loss(f), (0, 1)), (0, None))(x, w),
    "vmap of hessian": lambda f, x, w: vmap(hessian(_loss(f)), (0, None))(x, w),
    "grad of vmap": lambda f, x, w: grad(_loss(vmap(f, (0, None))), (0, 1))(x, w),
}


def _jvp_of_jvp(f, x, u, w):
    return jvp(lambda *x: jvp(f, x, u)[1], x, w)


def _loss(f):
    return lambda *args: f(*args).sin().sum()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms(transform):
    x = torch.rand(2, 3, dtype=torch.float64) + 0.5
    weight = torch.rand(3, dtype=torch.float64)
    found = TRANSFORMS[transform](wrapped, x, weight)
    expected = TRANSFORMS[transform](lambda x, w: x**3 * w, x, weight)
    for a, b in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_second_order_of_pytorch():
    x = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(wrapped, (x, weight), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(
        wrapped, (x, weight), check_fwd_over_rev=True, check_rev_over_rev=True
    )


def test_what_goes_too_far():
    x, weight = (torch.rand(3, dtype=torch.float64) for _ in range(2))
    for third in (
        jacrev(jacrev(jacrev(_loss(wrapped)))),
        jacrev(jacfwd(jacfwd(_loss(wrapped)))),
        jacfwd(jacfwd(jacfwd(_loss(wrapped)))),
        jacfwd(jacfwd(jacrev(_loss(wrapped)))),
    ):
        with pytest.raises(NotImplementedError, match="scaled_power: there is no third derivative"):
            third(x, weight)


def test_a_record_without_it(monkeypatch):
    record = registry.record_of(scaled_power)
    monkeypatch.setitem(registry._records, scaled_power, record._replace(jvp_jvp=None))
    f, (x, weight) = attnc.torch.wrap(scaled_power), torch.rand(2, 3, dtype=torch.float64)
    with pytest.raises(NotImplementedError, match="scaled_power: there is no forward mode within"):
        jacfwd(jacfwd(_loss(f)))(x, weight)
    hessian(_loss(f))(x, weight)


# ---- every function ------------------------------------------------------------------------------

FIRST = {name: next((c for n, c in CALLS if n == name), None) for name in RECORDS}
MAPPED = [(n, c) for n, c in FIRST.items() if c is not None]
MAPPED += [("dot_product_attention", "everything two"), ("lstm", "state"), ("gru", "lengths")]
MAPPED += [("additive_attention", "center none"), ("rotary", "positions")]
MAPPED += [("attention_decoder", "key_lengths"), ("hard_attention", "index")]


@pytest.mark.parametrize("name, case", MAPPED)
def test_grad(name, case):
    """torch.func.grad has the bits of backward."""
    on = OnTensors(name, case)

    def loss(*real):
        return sum(x.sum() for x in on.of_real(*real))

    found = grad(loss, tuple(range(len(on.real))))(*on.real)
    expected = torch.autograd.grad(loss(*on.wanting().real), on.real)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("one", [False, True], ids=["all", "one"])
@pytest.mark.parametrize("name, case", MAPPED)
def test_vmap(name, case, one):
    """vmap, and gradients of every example, against a loop: of all real arrays, or of the first."""
    on = OnTensors(name, case)
    if on.options.get("dropout"):
        return  # see test_vmap_of_dropout
    real = on.real[:1] if one else on.real
    rest = on.real[len(real) :]
    many = [torch.stack([x, x * 0.75, x * 0.5]) for x in real]

    def f(*part):
        return on.of_real(*part, *rest)

    def loss(*part):
        return sum(x.sum() for x in f(*part))

    found = vmap(f)(*many)
    each = [f(*[x[n] for x in many]) for n in range(3)]
    expected = [torch.stack(x) for x in zip(*each, strict=True)]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, equal_nan=True)
    places = tuple(range(len(real)))
    found = vmap(grad(loss, places))(*many)
    each = [grad(loss, places)(*[x[n] for x in many]) for n in range(3)]
    for a, b in zip(found, [torch.stack(x) for x in zip(*each, strict=True)], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, equal_nan=True)


def count_calls(monkeypatch):
    """A list that grows with every call of the functions of arrays by Value and Gradients."""
    seen = []
    limited = attnc.torch.calls.limited

    def counted(*args):
        seen.append(args[0])
        return limited(*args)

    monkeypatch.setattr(attnc.torch.functions, "limited", counted)
    return seen


def test_vmap_is_no_loop(monkeypatch):
    seen = count_calls(monkeypatch)
    query, key = torch.randn(6, 4, 5, 8), torch.randn(5, 8)
    vmap(lambda q: attend(q, key[None], key[None]))(query)
    assert len(seen) == 1
    vmap(grad(lambda q: attend(q, key[None], key[None]).sum()))(query)
    assert len(seen) == 1 + 1 + 2  # the value, and the gradients that run it again
    seen.clear()
    weight = torch.randn(8, 8)
    vmap(lambda w: attnc.torch.multiplicative_attention(key, key, key, w))(
        weight[None].repeat(6, 1, 1)
    )
    assert len(seen) == 6  # a parameter has no axis for them


def test_lengths_may_be_mapped_too():
    x, lengths = torch.randn(4, 5, 8), torch.tensor([1, 5, 0, 3])
    found = vmap(lambda x, n: attend(x, x, x, key_lengths=n))(x, lengths)
    assert torch.equal(found, attend(x, x, x, key_lengths=lengths))
    y = torch.randn(4, 2, 5, 8)
    found = vmap(lambda x, n: attend(x, x, x, key_lengths=n))(y, lengths)
    assert torch.equal(found, attend(y, y, y, key_lengths=lengths[:, None]))


MASKS = {
    "mask": np.random.default_rng(0).random((3, 5, 5)) < 0.7,
    "key_lengths": np.array([1, 5, 3]),
    "causal_offset": np.array([0, 1, -2]),
    "slope": np.array([0.5, 1.0, 2.0]),
}


@pytest.mark.parametrize("form", ["array", "list", "reversed array", "tuple"])
@pytest.mark.parametrize("name", MASKS)
def test_what_is_no_tensor_is_the_same_for_all_examples(name, form):
    """A mask in the function that is mapped has the axes of one example."""
    x, array = torch.randn(4, 3, 5, 8, dtype=torch.float64), MASKS[name]
    if form == "list" or name == "slope":  # which has a gradient, and so is no array
        array = array.tolist()
    elif form == "tuple":
        array = tuple(array.tolist())
    elif form == "reversed array":
        array = np.ascontiguousarray(array[::-1])[::-1]
    options = {name: array, "window": (3, 0)}

    def f(x):
        return attend(x, x, x, **options)

    one_by_one = torch.stack([f(x[k]) for k in range(4)])
    assert_same_numbers(vmap(f)(x), one_by_one)
    gradients = torch.stack([grad(_loss(f))(x[k]) for k in range(4)])
    assert_same_numbers(vmap(grad(_loss(f)))(x), gradients)
    assert_same_numbers(vmap(vmap(f))(torch.stack([x, 2 * x]))[1], vmap(f)(2 * x))


@pytest.mark.parametrize("lengths", [[1, 5, 3], np.array([1, 5, 3]), 4], ids=str)
def test_lengths_that_are_no_tensor_of_recurrent_networks(lengths):
    W = [torch.randn(2, 9), torch.randn(3, 9), torch.randn(9), torch.randn(9)]
    x = torch.randn(4, 3, 5, 2)

    for given, named in (((None, lengths), {}), ((), {"lengths": lengths})):

        def f(x, given=given, named=named):
            return attnc.torch.gru(x, W, *given, **named).outputs

        assert_same_numbers(vmap(f)(x), torch.stack([f(x[k]) for k in range(4)]))


def assert_same_numbers(x, y):
    torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_vmap_of_dropout():
    x = torch.randn(1, 6, 8).expand(3, 6, 8)

    def f(x):
        return attend(x, x, x, dropout=0.5)

    with pytest.raises(RuntimeError, match="draws random numbers; call vmap with"):
        vmap(f)(x)
    different = vmap(f, randomness="different")(x)
    assert not torch.equal(different[0], different[1])
    same = vmap(f, randomness="same")(x)
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    # A key that was given is that of every example, and gradients drop what the value dropped.
    given = vmap(lambda x: attend(x, x, x, dropout=0.5, rng=3))(x)
    assert torch.equal(given[2], attend(x[0], x[0], x[0], dropout=0.5, rng=3))
    value = torch.randn(6, 8, dtype=torch.float64)
    score = torch.zeros(2, 6, dtype=torch.float64)

    def of_value(v):
        torch.manual_seed(5)
        return attnc.torch.attend(score, v, dropout=0.5)

    J = jacrev(of_value)(value)  # of a linear function
    torch.testing.assert_close(torch.einsum("tdij,ij->td", J, value), of_value(value))


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_vmap_of_dropout_in_forward_mode_of_forward_mode(randomness):
    """What is dropped there is what is dropped in the gradients, for each example."""
    x, u, w = torch.randn(3, 2, 6, 8, dtype=torch.float64)

    def f(x):
        return attend(x, x, x, dropout=0.5).sin().sum()

    def twice(x, u, w):
        return _jvp_of_jvp(f, (x,), (u,), (w,))[1]

    def over_reverse(x, u, w):
        return (jvp(grad(f), (x,), (u,))[1] * w).sum()

    found = []
    for second in (twice, over_reverse):
        torch.manual_seed(5)
        found.append(vmap(second, randomness=randomness)(x, u, w))
    torch.testing.assert_close(*found)


def test_incoming_gradients_may_be_mapped():
    """jacrev maps over them alone."""
    on = OnTensors("additive_attention", "none one both")
    x = on.real[0]

    def f(x):
        return on.of_real(x, *on.real[1:])

    found = jacrev(f)(x)
    expected = torch.autograd.functional.jacobian(f, x)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "name", [n for n, c in MAPPED if RECORDS[n].jvp and RECORDS[n].backward_jvp]
)
def test_second_order_of_transforms(name):
    """Forward over reverse, and over forward, against reverse over reverse."""
    on = OnTensors(name, FIRST[name]).wanting()
    moves = [torch.randn_like(x) for x in on.real]

    def loss(*real):
        return sum(x.sin().sum() for x in on.of_real(*real))

    places = tuple(range(len(on.real)))
    first = torch.autograd.grad(loss(*on.real), on.real, create_graph=True)
    moved = sum((a * b).sum() for a, b in zip(first, moves, strict=True))
    expected = torch.autograd.grad(moved, on.real)
    _, found = jvp(grad(loss, places), tuple(on.real), tuple(moves))
    for a, b in zip(found, expected, strict=True):
        scale = b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * max(scale, 1))
    others = [torch.randn_like(x) for x in on.real]
    along = sum((a * b).sum() for a, b in zip(expected, others, strict=True))
    real = tuple(x.detach() for x in on.real)
    _, found = _jvp_of_jvp(loss, real, tuple(moves), tuple(others))
    torch.testing.assert_close(found, along, rtol=0, atol=1e-9 * max(abs(along.item()), 1))


@pytest.mark.parametrize(
    "name, case",
    [
        ("dot_product_attention", "everything two"),
        ("multiplicative_attention", "center none"),
        ("lstm", "state"),
        ("attention_decoder", "key_lengths"),
        ("hard_attention", "index"),
    ],
)
def test_vmap_of_forward_mode_of_forward_mode(name, case):
    """Against a loop: arrays and both directions are mapped, or one direction alone."""
    on = OnTensors(name, case)
    x = [torch.stack([x, x * 0.75]) for x in on.real]
    u, w = ([torch.randn_like(a) for a in x] for _ in range(2))
    count = len(x)

    def second(*parts):
        of_parts = (parts[k * count : (k + 1) * count] for k in range(3))
        return _jvp_of_jvp(on.of_real, *of_parts)[1]

    all_of_them, still = [*x, *u, *w], [*[a[0] for a in x], *u, *[a[0] for a in w]]
    for row, axes in ((all_of_them, (0, 0, 0)), (still, (None, 0, None))):
        dims = tuple(axis for axis in axes for _ in range(count))
        found = vmap(second, dims)(*row)
        each = [
            second(*[a if d is None else a[k] for a, d in zip(row, dims, strict=True)])
            for k in range(2)
        ]
        for a, b in zip(found, map(torch.stack, zip(*each, strict=True)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, equal_nan=True)


def test_all_are_there():
    assert len(leaves(list(MAPPED))) >= 2 * 29


# ---- where a tangent, or the function itself, could get lost in silence ----


def test_forward_over_reverse_without_a_graph():
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    direction = torch.ones_like(x)

    def gradient(f):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, direction)
            (found,) = torch.autograd.grad(f(dual, dual, dual).square().sum(), x)
            return forward_ad.unpack_dual(found).tangent

    def plain(q, k, v):
        return torch.softmax(q @ k.mT / 2, -1) @ v

    torch.testing.assert_close(gradient(attnc.torch.dot_product_attention), gradient(plain))


def test_a_traced_function_computes():
    x = torch.randn(3, 5, 8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(lambda q: attnc.torch.dot_product_attention(q, q, q), (x,))
        torch.testing.assert_close(traced(2 * x), attnc.torch.dot_product_attention(*[2 * x] * 3))


def test_modules_say_what_they_do_not_go_with():
    module, x = attnc.torch.nn.GRU(4, 5).requires_grad_(False), torch.randn(2, 3, 4)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="^GRU: forward mode"):
        module(forward_ad.make_dual(x, torch.ones_like(x)))
    with pytest.raises(NotImplementedError, match="^GRU: the transforms of torch.func"):
        torch.func.grad(lambda y: module(y)[0].sum())(x)
    with warnings.catch_warnings(), pytest.raises(NotImplementedError, match="^GRU: torch.jit"):
        warnings.simplefilter("ignore")
        torch.jit.trace(module, (x,))


def test_arrays_are_checked_where_a_program_is_transformed():
    """What is made a tensor of there must be what it is elsewhere."""
    q, k, v = (torch.randn(2, 4, 8) for _ in range(3))
    masked = np.ma.masked_array(np.ones((4, 4), bool), mask=np.eye(4, dtype=bool))

    def gradient(**options):
        return grad(lambda a: attend(a, k, v, **options).sum())(q)

    for options, message in (
        ({"mask": masked}, "mask must be a plain array, got a masked array"),
        ({"key_lengths": [[2], [3, 4]]}, "key_lengths must"),
        ({"key_lengths": np.array([2, None])}, "key_lengths must"),
    ):
        for run in (gradient, functools.partial(attend, q, k, v)):
            with pytest.raises((TypeError, ValueError), match=f"dot_product_attention: {message}"):
                run(**options)


def test_a_position_with_a_gradient_is_refused():
    position = torch.arange(3.0, requires_grad=True)
    with pytest.raises(TypeError, match="rotary: position must not require a gradient"):
        attnc.torch.rotary(torch.randn(3, 4, requires_grad=True), position)

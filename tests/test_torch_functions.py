"""The functions on PyTorch tensors, run at once: values, gradients, memory, errors, threads."""

import concurrent.futures
import os

import numpy as np
import pytest
from calls import CALLS

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.testing._internal.two_tensor import TwoTensor  # noqa: E402
from torch.utils import checkpoint  # noqa: E402
from torch_calls import RECORDS, OnTensors, assert_same_bits, leaves  # noqa: E402

import attnc  # noqa: E402
import attnc.torch  # noqa: E402

ml_dtypes = pytest.importorskip("ml_dtypes")

# PyTorch compiles a part of itself the first time that forward mode is used, and says this.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
attend = attnc.torch.dot_product_attention


def random(*shape, dtype=torch.float32, grad=False):
    return torch.randn(*shape, dtype=dtype, requires_grad=grad)


@pytest.mark.parametrize("name, case", CALLS)
def test_values_and_gradients(name, case):
    """The bits of attnc, without and with a gradient."""
    on = OnTensors(name, case)
    output, pullback = attnc.vjp(on.record.function, *on.arrays, **on.options)
    found = on()
    assert type(found) is (type(output) if isinstance(output, tuple) else torch.Tensor)
    assert_same_bits(found, output)
    found = on.wanting()()
    assert_same_bits(found, output)
    real = [x for x in leaves(found) if x.is_floating_point()]
    assert all(x.requires_grad for x in real)
    incoming = [torch.randn_like(x) for x in real]
    gradients = torch.autograd.grad(real, on.real, incoming)
    each = iter(incoming)

    def arrays(value):
        if isinstance(value, tuple):
            return tuple(arrays(item) for item in value)
        return next(each).numpy() if value.is_floating_point() else None

    fields = getattr(found, "_fields", [on.record.incoming[0][1:]])
    given = arrays(found if isinstance(found, tuple) else (found,))
    known = {f"d{n}": x for n, x in zip(fields, given, strict=True) if x is not None}
    expected = vars(pullback(**known))
    wanted = [
        gradient
        for name in on.record.arrays
        for x, gradient in zip(
            leaves_and_none(dict(zip(on.record.required, on.args, strict=False)) | on.named, name),
            leaves_and_none(expected, name),
            strict=True,
        )
        if isinstance(x, torch.Tensor)
    ]
    assert_same_bits(gradients, wanted)


def leaves_and_none(given, name):
    """What is in an argument, None too; nothing where it was not given as an array."""
    value = given.get(name)
    if isinstance(value, tuple | list):
        return list(value)
    return [] if value is None or isinstance(value, float) else [value]


SMOOTH = [
    (name, case)
    for name, case in CALLS
    if name != "hard_attention" or case in ("bias", "slope", "index")
]


@pytest.mark.parametrize("name, case", SMOOTH)
def test_gradcheck(name, case):
    """PyTorch's own check against differences, along random directions."""
    on = OnTensors(name, case)
    if any(not torch.isfinite(x).all() for x in on.real) or case.startswith("window monotonic"):
        return  # a bias of -inf, and a state that counts steps: there are no differences by them
    on.wanting()
    forward = on.record.jvp is not None
    assert torch.autograd.gradcheck(
        on.of_real, on.real, fast_mode=True, check_forward_ad=forward, atol=1e-4
    )


@pytest.mark.parametrize("name", list(RECORDS))
def test_gradcheck_of_every_number(name):
    case = next((case for n, case in CALLS if n == name), None)
    if case is None:
        return  # registered by another test
    on = OnTensors(name, case).wanting()
    assert torch.autograd.gradcheck(on.of_real, on.real)


@pytest.mark.parametrize("name", list(RECORDS))
def test_second_order(name):
    case = next((case for n, case in CALLS if n == name), None)
    if case is None:
        return
    on = OnTensors(name, case).wanting()
    if on.record.jvp is None or on.record.backward_jvp is None:
        first = torch.autograd.grad(sum(x.sum() for x in on.of_real(*on.real)), on.real,
                                    create_graph=True)  # fmt: skip
        assert all(x.requires_grad for x in first)
        with pytest.raises(NotImplementedError, match=f"^{name}: there is no"):
            sum(x.sum() for x in first).backward()
        return
    assert torch.autograd.gradgradcheck(on.of_real, on.real, fast_mode=True, atol=1e-4)


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    query, key, value = (random(2, n, 8).to(dtype) for n in (3, 5, 5))
    context, lse = attend(query, key, value, return_lse=True)
    assert context.dtype == dtype
    assert lse.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    kind = ml_dtypes.bfloat16 if dtype is torch.bfloat16 else None
    arrays = [
        x.view(torch.uint16).numpy().view(kind) if kind else x.numpy() for x in (query, key, value)
    ]
    expected = attnc.dot_product_attention(*arrays)
    np.testing.assert_array_equal(context.float().numpy(), expected.astype(np.float32))
    query.requires_grad_()
    attend(query, key, value).backward(context)
    assert query.grad.dtype == dtype


def test_layouts():
    """Strides, also of 0 and of a lazy minus, are read where they are."""
    x = random(4, 6, 2, 8)
    lazy = torch.complex(x, x).conj().imag
    for y in (x.transpose(1, 2), x[:, ::2, :, 1::2], x[:1].expand(4, -1, -1, -1), lazy, -lazy):
        z = y.contiguous()
        assert torch.equal(attend(y, y, y), attend(z, z, z))
        found = y.detach().requires_grad_()
        attend(found, found, found).sum().backward()
        expected = z.detach().requires_grad_()
        attend(expected, expected, expected).sum().backward()
        assert torch.equal(found.grad, expected.grad)


def test_nothing_is_copied():
    x = random(1000, 8)
    array = attnc.torch.arrays.array_of("f", "x", x)
    assert array.ctypes.data == x.data_ptr()
    y = x.bfloat16()
    assert attnc.torch.arrays.array_of("f", "y", y).ctypes.data == y.data_ptr()


def test_what_is_written_to_before_backward():
    """Inputs and outputs that backward needs are watched, as PyTorch's own are."""
    query, key = random(2, 3, 8, grad=True), random(2, 5, 8)
    context = attend(query, key, key)
    key.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        context.sum().backward()
    mask = torch.ones(2, 3, 5, dtype=torch.bool)
    key = random(2, 5, 8)
    context = attend(query, key, key, mask=mask)
    mask.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        context.sum().backward()


@pytest.mark.parametrize("name", list(RECORDS))
def test_outputs_that_are_written_to(name):
    """Either backward does not need them, or it raises."""
    case = next((case for n, case in CALLS if n == name), None)
    if case is None:
        return
    on = OnTensors(name, case).wanting()
    expected = torch.autograd.grad(sum(2 * x.sum() for x in on.of_real(*on.real)), on.real)
    outputs = on.of_real(*on.real)
    for x in outputs:
        x.mul_(2)
    try:
        found = torch.autograd.grad(sum(x.sum() for x in outputs), on.real)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
    else:
        assert all(map(torch.equal, found, expected))


def test_saved_tensors_may_go_elsewhere():
    """All arrays reach the hooks that PyTorch calls for what is saved."""
    query, key = random(1, 3, 8, grad=True), random(1, 5, 8)
    seen = []

    def pack(x):
        seen.append(x)
        return x.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        context = attend(query, key, key)
    assert len(seen) >= 3
    context.sum().backward()
    (expected,) = torch.autograd.grad(attend(query, key, key).sum(), query)
    assert torch.equal(query.grad, expected)


def test_only_what_is_needed():
    query, key, value = random(1, 3, 8), random(1, 5, 8, grad=True), random(1, 5, 8)
    attend(query, key, value).sum().backward()
    assert query.grad is None and value.grad is None and key.grad.shape == key.shape
    with torch.no_grad():
        assert not attend(query, key, value).requires_grad


# ---- arguments -----------------------------------------------------------------------------------


def test_what_has_no_gradient_may_be_anything():
    x = random(2, 3, 5, 8)
    lengths = [[3, 4, 5], [1, 2, 0]]
    results = [
        attend(x, x, x, key_lengths=given)
        for given in (lengths, np.array(lengths), torch.tensor(lengths))
    ]
    assert all(torch.equal(results[0], y) for y in results)
    number = torch.tensor(3)
    assert torch.equal(attend(x, x, x, key_lengths=number), attend(x, x, x, key_lengths=3))


@pytest.mark.parametrize(
    "arguments, error",
    [
        (lambda x: (x.to("meta"), x, x), "query must be on the CPU, .* got device meta"),
        (lambda x: (x, x.to_sparse(), x), r"key must be a dense tensor, got layout sparse_coo"),
        (lambda x: (x, x, torch.quantize_per_tensor(x, 1.0, 0, torch.qint8)), "value must not be"),
        (lambda x: (x, x, x.to(torch.complex64)), "value must hold real numbers"),
        (lambda x: (x, x, x.to(torch.float8_e4m3fn)), "value must have a dtype that NumPy knows"),
        (lambda x: (x, x.numpy(), x), "key must be a tensor, got a NumPy array; torch.from_numpy"),
        (lambda x: (x, x, x[:, :2]), "value must have"),
        (lambda x: (x, x), "missing"),
        (lambda x: (x, x, x, x), "argument|takes"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantiz.*")
@pytest.mark.parametrize("grad", [False, True])
def test_errors(arguments, error, grad):
    args = arguments(random(1, 3, 8))
    if grad:
        args = [args[0].requires_grad_(), *args[1:]]
    with pytest.raises((TypeError, ValueError), match=f"dot_product_attention.*{error}"):
        attend(*args)


def test_no_gradient_is_lost_in_silence():
    x = random(1, 3, 8)
    with pytest.raises(TypeError, match="softcap must not require a gradient"):
        attend(x, x, x, softcap=torch.tensor(2.0, requires_grad=True))
    W = [np.ones((8, 9)), np.ones((3, 9)), np.ones(9), np.ones(9)]
    with pytest.raises(TypeError, match=r"gru: parameters\[0\] must be a tensor"):
        attnc.torch.gru(x, W)


def test_bfloat16_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    x = random(1, 3, 8).bfloat16()
    with pytest.raises(TypeError, match="query must have another dtype than bfloat16 where"):
        attend(x, x, x)


def test_wrap():
    with pytest.raises(TypeError, match="wrap: function must be one of attnc's"):
        attnc.torch.wrap(np.tanh)
    assert attnc.torch.gru.__name__ == "gru" and attnc.torch.gru.__module__ == "attnc.torch"
    assert attnc.torch.gru.__doc__.startswith("`attnc.gru` on PyTorch tensors")


SEQUENCES = {
    "tuple": tuple,
    "ParameterList": nn.ParameterList,
    "generator": iter,
    "values": lambda W: nn.ParameterDict({str(k): w for k, w in enumerate(W)}).values(),
}


@pytest.mark.parametrize("kind", SEQUENCES)
def test_sequences_of_parameters(kind):
    x, W = random(2, 5, 4), [nn.Parameter(random(*shape)) for shape in ((4, 9), (3, 9), (9,), (9,))]

    def loss(parameters):
        return attnc.torch.gru(x, parameters).outputs.square().sum()

    expected = torch.autograd.grad(loss(W), W)
    found = torch.autograd.grad(loss(SEQUENCES[kind](W)), W)
    assert all(map(torch.equal, found, expected))
    with torch.no_grad():  # also where a tensor has operators of its own, which are traced
        y = attnc.torch.gru(TwoTensor(x, x), SEQUENCES[kind](W)).outputs
        assert torch.equal(y.a, attnc.torch.gru(x, W).outputs)
    named = {str(k): w for k, w in enumerate(W)}
    for wrong in (named, nn.ParameterDict(named)):
        name = type(wrong).__name__
        with pytest.raises(TypeError, match=f"gru: parameters must be a sequence .* got {name}; p"):
            attnc.torch.gru(x, wrong)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:.*nested.*:UserWarning")
def test_nested_tensors(layout):
    x = random(1, 3, 8)
    nest = torch.nested.nested_tensor([x[0], x[0, :2]], layout=layout)
    for call, what in (
        (lambda: attend(nest, nest, nest), "dot_product_attention: query"),
        (lambda: attend(x, x, nest.detach().requires_grad_()), "dot_product_attention: value"),
        (lambda: attend(x, x, x, mask=nest), "dot_product_attention: mask"),
        (lambda: attnc.torch.gru(x, [nest]), "gru: parameters"),
        (lambda: torch.func.vmap(lambda q: attend(q, nest, q))(x[None]), "dot_.*: key"),
        (lambda: attnc.torch.nn.GRU(8, 3)(nest), "GRU: x"),
        (lambda: attnc.torch.scaled_dot_product_attention(nest, nest, nest), "scaled_dot.*: query"),
    ):
        with pytest.raises(
            TypeError, match=f"{what} must be a dense tensor, got a nested one; .*0"
        ):
            call()


def test_gradients_that_are_batched_in_the_older_way():
    x = random(1, 3, 8, grad=True)
    outputs = attnc.torch.nn.GRU(8, 3)(x).outputs
    for name, y in (("dot_product_attention", attend(x, x, x)), ("GRU", outputs)):
        for options in ({}, {"create_graph": True}):
            with pytest.raises(NotImplementedError, match=f"{name}: is_grads_batched=True.*vmap"):
                torch.autograd.grad(
                    y, x, random(4, *y.shape), is_grads_batched=True, retain_graph=True, **options
                )
    with pytest.raises(NotImplementedError, match="attention: .* vectorize=True .* jacrev"):
        torch.autograd.functional.jacobian(lambda x: attend(x, x, x), x, vectorize=True)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", list(RECORDS))
def test_wrong_calls_are_named(name, grad):
    """As the function itself does it, not by what it calls."""
    x = random(1, 3, 8, grad=grad)
    function = getattr(attnc.torch, name)
    count = len(RECORDS[name].required)
    for call in (
        function,
        lambda: function(*[x] * 40),
        lambda: function(*[x] * count, unknown=1),
    ):
        with pytest.raises(TypeError, match=f"^{name}\\b"):
            call()


def test_no_argument_is_lost_in_silence():
    """Of a function that takes one by position, and no more."""

    def double(x):
        return 2 * x

    attnc.registry.register(
        double,
        required=["x"],
        incoming=["dy"],
        forward=lambda x: (2 * x, (), None),
        backward=lambda saved, static, dy: (2 * dy,),
    )
    doubled, x = attnc.torch.wrap(double), random(3, grad=True)
    assert torch.equal(torch.autograd.grad(doubled(x).sum(), x)[0], torch.full((3,), 2.0))
    for given in (x, x.detach()):
        with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
            doubled(given, given)


# ---- random numbers, threads ---------------------------------------------------------------------


def test_dropout_draws_from_the_generator():
    x = random(1, 3, 20, 8)
    torch.manual_seed(0)
    first, second = (attend(x, x, x, dropout=0.5) for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(attend(x, x, x, dropout=0.5), first) and not torch.equal(first, second)
    before = torch.get_rng_state()
    attend(x, x, x)
    attend(x, x, x, dropout=0.5, rng=7)
    assert torch.equal(torch.get_rng_state(), before)
    own = torch.Generator().manual_seed(3)
    a = attend(x, x, x, dropout=0.5, rng=own)
    assert torch.equal(a, attend(x, x, x, dropout=0.5, rng=own.manual_seed(3)))
    expected = attnc.dot_product_attention(*[x.numpy()] * 3, dropout=0.5, rng=7)
    np.testing.assert_array_equal(attend(x, x, x, dropout=0.5, rng=7), expected)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("options", [{}, {"sample": True}, {"causal": True}], ids=str)
def test_choices_come_from_the_generator(options, grad):
    """Also without any option, as a key is drawn unless one says otherwise."""
    scores, value = random(3, 40, 50, grad=grad), random(3, 50, 4)

    def choose(**more):
        return attnc.torch.hard_attention(scores, value, **options, **more).index

    torch.manual_seed(0)
    first, second = choose(), choose()
    torch.manual_seed(0)
    assert torch.equal(choose(), first) and not torch.equal(first, second)
    state = torch.get_rng_state()
    choose(rng=3)
    choose(index=first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant):
    """What is computed twice drops the same places."""
    x = random(1, 2, 20, 8, grad=True)

    def f(x):
        return attend(x, x, x, dropout=0.3)

    torch.manual_seed(1)
    (expected,) = torch.autograd.grad(f(x).square().sum(), x)
    torch.manual_seed(1)
    y = checkpoint.checkpoint(f, x, use_reentrant=reentrant)
    y.square().sum().backward()
    assert torch.equal(x.grad, expected)


def test_autocast():
    x, W = random(2, 5, 8, grad=True), random(8, 8, grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = x @ W
        context = attend(y, y, y)
    assert context.dtype is torch.bfloat16
    context.float().sum().backward()
    assert W.grad.dtype is torch.float32 and W.grad.abs().sum() > 0


def test_threads_of_torch(monkeypatch):
    """No more than PyTorch may use; the limit is taken off again."""
    seen = []

    def spy(*args, **options):
        seen.append(attnc.get_num_threads())
        return args[0]

    before, own = torch.get_num_threads(), attnc.get_num_threads()
    attnc.set_num_threads(4)
    try:
        torch.set_num_threads(2)
        attnc.torch.calls.limited(spy, [np.ones(3)], {})
        torch.set_num_threads(8)
        attnc.torch.calls.limited(spy, [np.ones(3)], {})
        assert seen == [2, 4] and attnc.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
        attnc.set_num_threads(own)


def test_a_thousand_calls_at_once():
    """From eight threads, forward and backward, the bits of one after the other."""
    torch.manual_seed(0)
    arguments = [[random(2, n % 7 + 1, 8) for _ in range(3)] for n in range(1000)]

    def both(xs):
        xs = [x.clone().requires_grad_() for x in xs]
        y = attend(*xs, causal=True)
        return y.detach(), torch.autograd.grad(y.sum(), xs)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(both, arguments))
    for (y, gradients), xs in zip(found, arguments, strict=True):
        expected, others = both(xs)
        assert torch.equal(y, expected)
        assert all(map(torch.equal, gradients, others))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork():
    x = random(4, 64, 32, grad=True)
    expected = torch.autograd.grad(attend(x, x, x).sum(), x)[0]
    child = os.fork()
    if not child:
        same = torch.equal(torch.autograd.grad(attend(x, x, x).sum(), x)[0], expected)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

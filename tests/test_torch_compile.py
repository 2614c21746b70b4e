"""The functions on tensors where PyTorch traces a program: operators, torch.compile, export."""

import os
import shutil

import numpy as np
import pytest
from calls import CALLS

torch = pytest.importorskip("torch")

from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.utils import checkpoint  # noqa: E402
from torch_calls import OnTensors, assert_same_bits, leaves  # noqa: E402

import attnc.torch  # noqa: E402
from attnc.torch.calls import split  # noqa: E402
from attnc.torch.operators import Operators, text_of  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of PyTorch, within
]
attend = attnc.torch.dot_product_attention
FIRST = dict(reversed(CALLS))


@pytest.fixture(autouse=True)
def forget():
    torch._dynamo.reset()


def compiled(function, **options):
    return torch.compile(function, fullgraph=True, **{"backend": "aot_eager", **options})


def arguments_of(on):
    """The arguments of an operator."""
    call, tensors = split(on.record, on.args, on.named)
    return call, (tensors, *text_of(call.arguments, call.options))


@pytest.mark.parametrize("name", FIRST)
def test_opcheck(name):
    """PyTorch's own check of both operators: schema, shapes, strides, autograd, dynamic sizes."""
    on = OnTensors(name, FIRST[name]).wanting()
    call, (tensors, *rest) = arguments_of(on)
    operators = Operators.known(name)
    torch.library.opcheck(operators.value, (tensors, *rest))
    outputs = operators.value(tensors, *rest)
    incoming = [torch.randn_like(x) for x in outputs if x.is_floating_point()]
    needs = [x.requires_grad for x in tensors]
    plain = [x.detach() for x in tensors]
    torch.library.opcheck(operators.gradients, (plain, incoming, needs, *rest))


@pytest.mark.parametrize("name, case", CALLS)
def test_shapes_before_the_call(name, case):
    """What a compiler is told of the outputs is what they are; in halves dtypes differ most."""
    on = OnTensors(name, case, np.float16)
    _, arguments = arguments_of(on)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        tensors, *rest = arguments
        said = Operators.known(name).value([mode.from_tensor(x) for x in tensors], *rest)
    found = Operators.known(name).value(*arguments)
    assert len(said) == len(found)
    for x, y in zip(said, found, strict=True):
        assert (x.shape, x.dtype, x.stride()) == (y.shape, y.dtype, y.stride())


COMPILED = [
    ("dot_product_attention", "everything two"),
    ("additive_attention", "none one both"),
    ("hard_attention", "key_lengths"),
    ("lstm", "lengths"),
    ("attention_decoder", "additive bahdanau gru 2 False"),
    ("linear_cross_entropy", "ignored"),
]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name, case", COMPILED)
def test_compile(name, case, dynamic):
    """The bits of eager mode, forward and backward, in one graph."""
    on = OnTensors(name, case).wanting()
    function = compiled(on.function, dynamic=dynamic)
    expected, found = on(), function(*on.args, **on.named)
    assert type(found) is type(expected)
    assert_same_bits(found, [x.detach().numpy() for x in leaves(expected)])

    def gradients(output):
        return torch.autograd.grad(
            sum(x.sum() for x in leaves(output) if x.is_floating_point()), on.real
        )

    assert all(map(torch.equal, gradients(found), gradients(expected)))


def test_two_sizes():
    """A size that changes is a symbol, in shapes and in options, and nothing is compiled again."""

    def f(x):
        return attend(x, x, x, key_lengths=x.shape[1] - 1, causal=True).sum()

    counter = CompileCounterWithBackend("aot_eager")
    function = torch.compile(f, fullgraph=True, dynamic=True, backend=counter)
    for size in (5, 9, 13):
        x = torch.randn(2, size, 8, requires_grad=True)
        y = function(x)
        assert torch.equal(y, f(x))
        (found,) = torch.autograd.grad(y, x)
        assert torch.equal(found, torch.autograd.grad(f(x), x)[0])
    assert counter.frame_count == 1


def test_lengths_in_lists():
    """Also where vmap gives the call an axis, and where a length is a size that changes."""
    x = torch.randn(4, 3, 5, 8)

    def f(x):
        return attend(x, x, x, key_lengths=[1, x.shape[-2] - 1, 3])

    function = compiled(torch.func.vmap(f))
    assert torch.equal(function(x), attend(x, x, x, key_lengths=[[1, 4, 3]]))
    function = compiled(f, dynamic=True)
    for size in (5, 9):
        y = torch.randn(3, size, 8)
        assert torch.equal(function(y), f(y))


@pytest.mark.skipif("ATTNC_TEST_INDUCTOR" not in os.environ, reason="takes a minute")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a compiler")
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_inductor(dynamic):
    """Rows that reach the operator with other strides than the program says are read right."""

    def f(x, W):
        q, k, v = (x @ W).relu().unflatten(-1, (3, 2, 7)).permute(2, 0, 3, 1, 4)
        return attend(q[..., :5], k[..., :5], v, causal=True).square().sum()

    function = compiled(f, backend="inductor", dynamic=dynamic)
    for size in (6, 11):
        x, W = torch.randn(2, size, 8), torch.randn(8, 42, requires_grad=True)
        expected = torch.autograd.grad(f(x, W), W)
        torch.testing.assert_close(function(x, W), f(x, W), rtol=1e-4, atol=1e-4)
        found = torch.autograd.grad(function(x, W), W)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_padded_rows():
    x = torch.randn(2, 5, 11)[..., :8].requires_grad_()
    call, rest = split(attnc.torch.bridge.record_of(attnc.dot_product_attention), (x, x, x), {})
    operators = Operators.known("dot_product_attention")
    (found,) = operators.value(rest, *text_of(call.arguments, call.options))
    assert torch.equal(found, attend(x, x, x))


def test_dropout():
    """A key that the graph draws, so that a seed repeats it and backward has it."""
    x = torch.randn(1, 30, 8)

    def f(x):
        return attend(x, x, torch.eye(30)[None], dropout=0.5)

    function = compiled(f)
    torch.manual_seed(0)
    first, second = function(x), function(x)
    torch.manual_seed(0)
    assert torch.equal(function(x), first) and not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(f(x), first)
    value = torch.eye(30)[None].requires_grad_()
    y = compiled(lambda v: attend(x, x, v, dropout=0.5))(value)
    (gradient,) = torch.autograd.grad(y.sum(), value)
    torch.testing.assert_close(gradient[..., 0], y.sum(1))  # the column sums of the same weights


def test_checkpoint_in_a_graph():
    x = torch.randn(1, 20, 8, requires_grad=True)

    def f(x):
        def part(x):
            return attend(x, x, x, dropout=0.3)

        return checkpoint.checkpoint(part, x, use_reentrant=False).square().sum()

    torch.manual_seed(2)
    (expected,) = torch.autograd.grad(f(x), x)
    torch.manual_seed(2)
    (found,) = torch.autograd.grad(compiled(f)(x), x)
    assert torch.equal(found, expected)


def test_vmap_and_grad_in_a_graph():
    x = torch.randn(3, 4, 5, 8)

    def f(x):
        return torch.func.vmap(lambda y: attend(y, y, y))(x)

    assert torch.equal(compiled(f)(x), attend(x, x, x))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def forward(self, x, lengths):
        y = self.layer(x)
        context, weights = attend(y, y, y, key_lengths=lengths, return_weights=True)
        return context, weights


def test_export():
    model, size = Model(), torch.export.Dim("time", min=2, max=100)
    x, lengths = torch.randn(2, 5, 8), torch.tensor([3, 5])
    program = torch.export.export(model, (x, lengths), dynamic_shapes=({1: size}, None))
    names = [str(node.target) for node in program.graph.nodes]
    assert "attnc.dot_product_attention.default" in names
    for T in (5, 9):
        x = torch.randn(2, T, 8)
        found, expected = program.module()(x, lengths), model(x, lengths)
        assert all(map(torch.equal, found, expected))


def test_what_cannot_be_traced():
    x = torch.randn(1, 3, 8)
    with pytest.raises(Exception, match="options must be tensors, numbers, strings"):
        compiled(lambda x: attend(x, x, x, window={1, 2}))(x)


@pytest.mark.parametrize("how", ["compile", "make_fx"])
def test_forward_mode_is_not_lost(how):
    """PyTorch takes the tangent of an operator for 0."""
    x = torch.randn(2, 3, 4)

    def tangent(x):
        return torch.func.jvp(lambda x: attend(x, x, x), (x,), (x,))[1]

    def twice(x):
        return torch.func.jvp(tangent, (x,), (x,))[1]

    for f in (tangent, twice):
        traced = compiled(f) if how == "compile" else make_fx(f)
        with pytest.raises(Exception, match="dot_product_attention: has no forward mode where"):
            traced(x)
    assert tangent(x).any()

"""The table of README.md beside PyTorch and JAX, asked of all three, row by row."""

import pathlib
import re

import numpy as np
import pytest

import attnc

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
ROWS = {
    cells[0]: cells[1:]
    for cells in (
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in re.search(r"One call of each.*?\n\n(.*?)\n\n", README, re.S)[1].split("\n")[2:]
    )
}
Q, K, V = np.random.default_rng(0).standard_normal((3, 2, 4, 8))  # (heads, time, features)
SEES_ALL = np.ones((2, 4, 4), bool)


class Attnc:
    scores = {"additive_attention", "multiplicative_attention", "cosine_attention", "attend"}

    def attend(self, query, key, value, mask=None, causal=False):
        return attnc.dot_product_attention(query, key, value, mask=mask, causal=causal)


class PyTorch:
    def __init__(self):
        self.torch = pytest.importorskip("torch")
        self.function = self.torch.nn.functional.scaled_dot_product_attention

    def attend(self, query, key, value, mask=None, causal=False):
        arrays = [self.torch.tensor(x[None]) for x in (query, key, value)]
        mask = None if mask is None else self.torch.tensor(mask[None])
        return self.function(*arrays, attn_mask=mask, is_causal=causal)[0].numpy()


class Jax:
    def __init__(self):
        self.jax = pytest.importorskip("jax")

    def attend(self, query, key, value, mask=None, causal=False):
        arrays = [x.swapaxes(0, 1)[None] for x in (query, key, value)]
        mask = None if mask is None else mask[None]
        with self.jax.enable_x64(True):
            context = self.jax.nn.dot_product_attention(*arrays, mask=mask, is_causal=causal)
        return np.asarray(context)[0].swapaxes(0, 1)


COLUMNS = [Attnc, PyTorch, Jax]


def says(row, column):
    return ROWS[row][COLUMNS.index(column)]


def test_every_row_is_asked():
    source = pathlib.Path(__file__).read_text(encoding="utf-8")
    assert len(ROWS) >= 9 and all(f'"{row}"' in source for row in ROWS)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_query_without_keys(column):
    mask = SEES_ALL.copy()
    mask[:, 0] = False
    context = column().attend(Q, K, V, mask)[:, 0]
    wanted = {"context 0": 0 * V[:, 0], "the mean of all values": V.mean(axis=1)}
    said = says("a query that may attend to nothing", column)
    np.testing.assert_allclose(context, wanted[said], atol=1e-12)


@pytest.mark.parametrize("column", COLUMNS)
def test_what_is_masked(column):
    mask, value = SEES_ALL.copy(), V.copy()
    mask[..., 3], value[:, 3] = False, np.nan
    said = says("NaN in a value that is masked", column)
    spoilt = np.isnan(column().attend(Q, K, value, mask))
    assert (not spoilt.any() and said == "is not read") or (
        spoilt.all() and said == "NaN in every context"
    )


@pytest.mark.parametrize("column", COLUMNS)
def test_precision(column):
    scores = Q @ K.swapaxes(1, 2) / np.sqrt(8)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    error = np.abs(column().attend(Q, K, V) - weights @ V).max()
    assert {"in float64": error < 1e-14, "a softmax in float32": 1e-9 < error < 1e-5}[
        says("float64", column)
    ]


@pytest.mark.parametrize("column", COLUMNS)
def test_causal(column):
    last = column().attend(Q[:, :2], K, V, causal=True)
    first_key = np.allclose(last[:, 0], V[:, 0])  # the first query sees that alone
    said = says("`causal`, 2 queries and 4 keys", column)
    assert first_key == said.startswith("the first query sees the first key")
    if column is Attnc:
        assert said.startswith("the last query sees the last key; `causal_offset=0`")
        everything = attnc.dot_product_attention(Q[:, 1:2], K, V)
        np.testing.assert_allclose(last[:, 1:], everything)
        as_others = attnc.dot_product_attention(Q[:, :2], K, V, causal=True, causal_offset=0)
        np.testing.assert_allclose(as_others[:, 0], V[:, 0])


def test_other_scores_and_weights():
    assert says("other scores", Attnc) == "additive, multiplicative, cosine, your own"
    assert set(attnc.__all__) >= Attnc.scores
    assert says("the weights, too", Attnc) == "yes, with a gradient"
    (_, weights), pullback = attnc.vjp(attnc.dot_product_attention, Q, K, V, return_weights=True)
    assert pullback(dweights=weights**2).query.any()


@pytest.mark.parametrize("column", COLUMNS[1:])
def test_what_the_others_return(column):
    import inspect

    assert says("other scores", column) == says("the weights, too", column) == "no"
    peer = column()
    where = peer.jax.nn if column is Jax else peer.torch.nn.functional
    assert not any(hasattr(where, name) for name in Attnc.scores)
    if column is Jax:
        parameters = set(inspect.signature(where.dot_product_attention).parameters)
    else:
        parameters = set(re.findall(r"(\w+)=", where.scaled_dot_product_attention.__doc__))
    assert parameters and not any("weights" in name for name in parameters)


def test_gradient_of_the_log_of_the_sum():
    row = "gradient of the log of the sum"
    assert [says(row, column) for column in COLUMNS] == ["yes", "not returned", "0"]
    result, pullback = attnc.vjp(attnc.dot_product_attention, Q, K, V, return_lse=True)
    assert pullback(dlse=np.ones_like(result.lse)).query.any()
    peer = Jax()

    def lse(query):
        return peer.jax.nn.dot_product_attention(query, query, query, return_residual=True)[1].sum()

    assert not peer.jax.grad(lse)(Q.astype(np.float32)[None]).any()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of PyTorch
def test_derivatives():
    rows = "forward mode", "second order"
    for row in rows:
        assert [says(row, each) for each in COLUMNS] == ["yes", "the fused kernel raises", "yes"]
    attention = attnc.dot_product_attention
    assert attnc.jvp(attention, (Q, K, V), [Q, None, None])[1].any()
    assert attnc.hvp(attention, (Q, K, V), [Q, None, None], V).query.any()
    peer = PyTorch()
    query, key, value = (peer.torch.tensor(x[None]) for x in (Q, K, V))
    with pytest.raises(NotImplementedError, match="forward AD"):
        peer.torch.func.jvp(lambda x: peer.function(x, key, value), (query,), (query,))
    query.requires_grad_()
    loss = peer.function(query, key, value).square().sum()
    (gradient,) = peer.torch.autograd.grad(loss, query, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative for .*flash.* is not implemented"):
        gradient.square().sum().backward()


def test_derivatives_of_jax():
    jax = Jax().jax

    def loss(query):
        return (jax.nn.dot_product_attention(query, query, query) ** 2).sum()

    x = Q.astype(np.float32)[None]
    assert jax.jvp(jax.grad(loss), (x,), (x,))[1].any()


def test_needs():
    assert ROWS["needs"] == ["NumPy", "PyTorch", "JAX"]
    project = (pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dependencies = ["numpy>=1.26"]' in project

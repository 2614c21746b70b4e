"""stages: the same attention unfused, every array of it by name, with its gradient."""

import html.parser

import numpy as np
import pytest
from arrays import FUNCTIONS, OPTIONS, inputs, options
from checks import assert_agree, incoming

import attnc

STAGES = ("scores", "capped", "masked", "weights", "context")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_agrees_with_the_function(name, option, rng):
    arrays, own = inputs(name, rng)
    own |= options(option, rng)
    function = getattr(attnc, name)
    output, pullback = attnc.vjp(function, *arrays, **own, return_weights=True, return_lse=True)
    stages = attnc.stages(function, *arrays, **own)
    assert_agree(stages.context, output.context)
    assert_agree(stages.weights, output.weights)

    d = incoming(rng, output)
    expected, got = pullback(**d), stages.gradients(**d)
    for field, gradient in vars(expected).items():
        if not (name == "attend" and field == "scores"):
            assert_agree(getattr(got, field), gradient, field)


def test_what_each_stage_is(rng):
    arrays, _ = inputs("dot_product_attention", rng)
    bias = rng.standard_normal((2, 5, 7))
    s = attnc.stages(
        attnc.dot_product_attention, *arrays, scale=2, bias=bias, softcap=1.5, causal=True
    )
    query, key, value = arrays
    np.testing.assert_allclose(s.scores, 2 * query @ key.swapaxes(1, 2))
    np.testing.assert_allclose(s.capped, 1.5 * np.tanh(s.scores / 1.5))
    allowed = np.tri(5, 7, 2, bool)
    np.testing.assert_array_equal(s.masked, np.where(allowed, s.capped + bias, -np.inf))
    np.testing.assert_allclose(s.weights.sum(-1), 1)
    np.testing.assert_allclose(s.context, s.weights @ value)


@pytest.mark.parametrize("stage", ["scores", "capped", "masked", "weights"])
def test_gradient_at_a_stage_by_differences(stage, rng):
    """Computed on from that stage, in a random direction of it."""
    arrays, _ = inputs("dot_product_attention", rng)
    s = attnc.stages(attnc.dot_product_attention, *arrays, softcap=1.5, causal=True)
    dcontext, t, h = rng.standard_normal((2, 5, 13)), rng.standard_normal((2, 5, 7)), 1e-6
    allowed = np.tri(5, 7, 2, bool)

    def on_from(step):
        x = {name: getattr(s, name) for name in STAGES}
        x[stage] = x[stage] + step * t
        if stage == "scores":
            x["capped"] = 1.5 * np.tanh(x["scores"] / 1.5)
        if stage in ("scores", "capped"):
            x["masked"] = np.where(allowed, x["capped"], -np.inf)
        if stage != "weights":
            powers = np.exp(x["masked"])
            x["weights"] = powers / powers.sum(-1, keepdims=True)
        return (dcontext * (np.where(allowed, x["weights"], 0) @ arrays[2])).sum()

    numeric = (on_from(h) - on_from(-h)) / (2 * h)
    analytic = (getattr(s.gradients(dcontext), stage) * t).sum()
    assert abs(numeric - analytic) < 1e-6


def test_dropout_is_that_of_the_function(rng):
    arrays, _ = inputs("attend", rng)
    given = {"dropout": 0.5, "rng": 7}
    s = attnc.stages(attnc.attend, *arrays, **given)
    assert_agree(s.context, attnc.attend(*arrays, **given))
    drawn = attnc.stages(attnc.attend, *arrays, dropout=0.5, rng=np.random.default_rng(1))
    same = attnc.attend(*arrays, dropout=0.5, rng=np.random.default_rng(1))
    assert_agree(drawn.context, same)
    assert "dropout(w_ij)" in repr(s)


@pytest.mark.parametrize(
    ("dtype", "computed"),
    [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)],
)
def test_dtypes(dtype, computed, rng):
    arrays, _ = inputs("attend", rng, dtype)
    s = attnc.stages(attnc.attend, *arrays)
    for stage in STAGES:
        assert getattr(s, stage).dtype == computed, stage
        assert getattr(s.gradients(s.context), stage).dtype == computed, stage


class Balanced(html.parser.HTMLParser):
    """Counts that what is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("sizes", [{}, {"Tq": 0}, {"Tk": 30}, {"leads": ((), (), ())}], ids=str)
def test_tables(sizes, rng):
    arrays, own = inputs("cosine_attention", rng, **sizes)
    s = attnc.stages(attnc.cosine_attention, *arrays, **own, causal=True)
    for table in (s, s.gradients(np.ones_like(s.context))):
        text = repr(table)
        for stage in STAGES:
            assert stage in text and str(getattr(table, stage).shape) in text
        parser = Balanced()
        parser.feed(table._repr_html_())
        assert parser.open == [] and parser.seen <= {
            "table",
            "caption",
            "tr",
            "th",
            "td",
            "code",
            "br",
        }


@pytest.mark.parametrize("wrong", [attnc.vjp, attnc.merge_attention, np.tanh, 3, attnc.Linear])
def test_refuses_other_functions(wrong):
    with pytest.raises(TypeError, match="^stages: function must be one of dot_product_attention"):
        attnc.stages(wrong, np.eye(2), np.eye(2))


def test_errors_are_those_of_the_function():
    with pytest.raises(ValueError, match="^attend: value must have one row"):
        attnc.stages(attnc.attend, np.eye(2), np.eye(3))
    s = attnc.stages(attnc.attend, np.eye(2), np.eye(2))
    with pytest.raises(ValueError, match=r"gradients: dcontext must have shape \(2, 2\), got \(3"):
        s.gradients(np.eye(3))

"""The puzzles: they print, their solutions pass, and wrong ones are shown where they fail."""

import html.parser
import math

import numpy as np
import pytest
from checks import assert_unchanged, python

import attnc
from attnc.teaching import puzzles, solutions
from attnc.teaching.puzzles import _drawing, _puzzle

ALL = puzzles.all()
WRONG = []


def wrong(says):
    """A plausible solution of the puzzle of its name, and what has to be in the line."""
    return lambda solution: WRONG.append((solution.__name__, says, solution))


def softmax_of(x):
    return solutions.softmax(x)


# ---- wrong solutions


@wrong("wanted [[-inf]]")
def mask(scores, allowed):
    return scores * allowed


@wrong("for scores = [[nan nan]], allowed = [[False False]] masked is wrong: got [[nan nan]]")
def mask(scores, allowed):  # noqa: F811
    return scores + np.where(allowed, 0, -np.inf)


@wrong("masked is wrong: at [0, 1] got -0.7999999, wanted -0.8")
def mask(scores, allowed):  # noqa: F811
    return np.where(allowed, scores + 1e-7 * (scores < -0.7), -np.inf)


@wrong("it writes into scores")
def mask(scores, allowed):  # noqa: F811
    scores[~allowed] = -np.inf
    return scores


@wrong("got [[nan nan]], wanted [[0.2689 0.7311]]")
def softmax(scores):
    powers = np.exp(scores)
    return powers / powers.sum(axis=-1, keepdims=True)


@wrong("weights is wrong: at [0, 0] got 0.9999999, wanted 1")
def softmax(scores):  # noqa: F811
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / (powers.sum(axis=-1, keepdims=True) + 1e-7)


@wrong("weights must be of dtype float64, got float32")
def softmax(scores):  # noqa: F811
    return softmax_of(scores).astype(np.float32)


@wrong("weights is wrong: got [[1. 1.]]")
def softmax(scores):  # noqa: F811
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)


@wrong("for Tq = 1, Tk = 1 allowed is wrong: got [[False]], wanted [[True]]")
def causal(Tq, Tk):
    return np.arange(Tk) < np.arange(Tq)[:, None] + Tk - Tq


@wrong("for Tq = 1, Tk = 2 allowed is wrong: got [[True False]], wanted [[True True]]")
def causal(Tq, Tk):  # noqa: F811
    return np.tril(np.ones((Tq, Tk), bool))


@wrong("of dtype bool, got float64")
def causal(Tq, Tk):  # noqa: F811
    return np.tril(np.ones((Tq, Tk)), Tk - Tq)


@wrong("context is wrong")
def one_query(query, key, value):
    return softmax_of(key @ query) @ value


@wrong("of shape (1,), got a number")
def one_query(query, key, value):  # noqa: F811
    return (softmax_of(key @ query / np.sqrt(len(query)))[:, None] * value).sum()


@wrong("it raised ValueError: matmul")
def one_query(query, key, value):  # noqa: F811
    return softmax_of(query @ key / np.sqrt(len(query))) @ value


@wrong("weights is wrong")
def additive_weights(query, key, score_vector):
    return softmax_of((query[:, None] + key) @ score_vector)


@wrong("weights is wrong")
def additive_weights(query, key, score_vector):  # noqa: F811
    s = np.tanh(query[:, None] + key) @ score_vector
    return np.exp(s) / np.exp(s).sum(axis=0)


@wrong("scores is wrong")
def grouped_heads(query, key):
    return query @ np.tile(key, (len(query) // len(key), 1, 1)).swapaxes(-1, -2)


@wrong("of shape (1, 1, 1), got (1, 1, 1, 1)")
def grouped_heads(query, key):  # noqa: F811
    return query.reshape(len(key), -1, *query.shape[1:]) @ key[:, None].swapaxes(-1, -2)


@wrong("for x = [[1. 2.] [3. 4.]], heads = 2 parts is wrong: got [[[1.] [2.]]")
def split_heads(x, heads):
    return x.reshape(heads, len(x), -1)


@wrong("parts must be of shape")
def split_heads(x, heads):  # noqa: F811
    return x.reshape(len(x), heads, -1)


@wrong("padded is wrong")
def padding(rows, lengths):
    padded = np.zeros((len(lengths), lengths.max(), rows.shape[1]))
    padded[np.arange(lengths.max()) >= lengths.max() - lengths[:, None]] = rows
    return padded


@wrong("it raised ValueError")
def padding(rows, lengths):  # noqa: F811
    return rows.reshape(len(lengths), lengths.max(), -1)


@wrong("total is wrong")
def online_softmax(top, total, sums, scores, value):
    higher = np.maximum(top, scores.max(axis=1))
    powers = np.exp(scores - higher[:, None])
    return higher, total + powers.sum(axis=1), sums + powers @ value


@wrong("got [nan]")
def online_softmax(top, total, sums, scores, value):  # noqa: F811
    higher = np.maximum(top, scores.max(axis=1))
    shrink, powers = np.exp(top) / np.exp(higher), np.exp(scores - higher[:, None])
    return higher, total * shrink + powers.sum(1), sums * shrink[:, None] + powers @ value


@wrong("it must return top, total, sums, got an array of shape (1,)")
def online_softmax(top, total, sums, scores, value):  # noqa: F811
    return np.maximum(top, scores.max(axis=1))


@wrong("context is wrong")
def merge(context_a, lse_a, context_b, lse_b):
    return (context_a + context_b) / 2, np.logaddexp(lse_a, lse_b)


@wrong("context is wrong: got [[nan]]")
def merge(context_a, lse_a, context_b, lse_b):  # noqa: F811
    a, b = np.exp(lse_a)[:, None], np.exp(lse_b)[:, None]
    return (a * context_a + b * context_b) / (a + b), np.log(a + b)[:, 0]


@wrong("wanted [[0.]]")
def coverage(weights):
    return weights.cumsum(axis=0)


@wrong("coverage is wrong")
def coverage(weights):  # noqa: F811
    return weights.cumsum(axis=1) - weights


@wrong("alignment is wrong")
def monotonic(p, previous):
    return p * np.cumsum(previous)


@wrong("alignment is wrong")
def monotonic(p, previous):  # noqa: F811
    passed = np.cumprod(1 - p)
    return p * passed * np.cumsum(previous / passed)


@wrong("scores is wrong")
def relative_shift(by_distance):
    return by_distance[:, : len(by_distance)]


@wrong("scores is wrong")
def relative_shift(by_distance):  # noqa: F811
    i = np.arange(len(by_distance))
    return by_distance[i[:, None], i[:, None] - i + len(i) - 1]


@wrong("dscores is wrong")
def softmax_pullback(weights, dweights):
    return weights * (1 - weights) * dweights


@wrong("dscores is wrong")
def softmax_pullback(weights, dweights):  # noqa: F811
    return weights * (dweights - dweights.sum(axis=-1, keepdims=True))


@wrong("dquery is wrong")
def dot_product_pullback(query, key, value, dcontext):
    weights = softmax_of(query @ key.T / math.sqrt(query.shape[1]))
    ds = solutions.softmax_pullback(weights, dcontext @ value.T)
    return ds @ key, ds.T @ query / math.sqrt(query.shape[1]), weights.T @ dcontext


@wrong("dvalue is wrong")
def dot_product_pullback(query, key, value, dcontext):  # noqa: F811
    dquery, dkey, _ = solutions.dot_product_pullback(query, key, value, dcontext)
    return dquery, dkey, np.tile(dcontext.sum(axis=0), (len(key), 1))


# ---- tests


def test_there_are_fifteen():
    names = [puzzle.name for puzzle in ALL]
    assert len(set(names)) == 15
    assert all(getattr(puzzles, name) is puzzle for name, puzzle in zip(names, ALL, strict=True))
    assert all(name in puzzles.__doc__ for name in names)
    assert {name for name, _, _ in WRONG} == set(names)
    assert all(sum(other == name for other, _, _ in WRONG) >= 2 for name in names)


@pytest.mark.parametrize("puzzle", ALL, ids=lambda p: p.name)
def test_solutions_pass(puzzle):
    for seed in range(5):
        solved = puzzle.check(getattr(solutions, puzzle.name), seed=seed)
        assert solved and solved.cases >= 5 and repr(solved) == f"solved: {puzzle.name}"


@pytest.mark.parametrize("name, says, solution", WRONG, ids=[w[0] for w in WRONG])
def test_wrong_ones_fail_with_the_smallest_input(name, says, solution):
    with pytest.raises(AssertionError) as error:
        getattr(puzzles, name).check(solution)
    line = str(error.value)
    assert line.startswith(f"{name}: ") and says in line and "\n" not in line
    assert "array (" not in line, "too large an input"


@pytest.mark.parametrize("puzzle", ALL, ids=lambda p: p.name)
def test_the_specification_leaves_its_inputs_alone_and_is_right(puzzle):
    inputs = list(puzzle._inputs(np.random.default_rng(0)))
    for arguments in inputs:
        with assert_unchanged(arguments):
            puzzle._wanted(arguments)
    sizes = [_puzzle._size(arguments) for arguments in inputs]
    assert min(sizes) < sizes[0], "the example is not the smallest"
    with pytest.raises(AssertionError):
        puzzle.check(lambda *arguments: None)


def test_the_specifications_are_what_attnc_computes():
    rng = np.random.default_rng(0)
    query, key, value, dcontext = (rng.standard_normal(s) for s in ((3, 4), (5, 4), (5, 2), (3, 2)))
    _, pullback = attnc.vjp(attnc.dot_product_attention, query, key, value)
    got = puzzles.dot_product_pullback.specification(query, key, value, dcontext)
    for x, y in zip(got, pullback(dcontext), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-13)
    one = attnc.dot_product_attention(query[:1], key, value)[0]
    np.testing.assert_allclose(puzzles.one_query.specification(query[0], key, value), one)
    p, previous = rng.random(6), np.full(6, 1 / 6)
    alignment, _ = attnc.monotonic_alignment(p[None], previous)
    np.testing.assert_allclose(puzzles.monotonic.specification(p, previous), alignment[0])
    a = attnc.dot_product_attention(query, key[:2], value[:2], return_lse=True)
    b = attnc.dot_product_attention(query, key[2:], value[2:], return_lse=True)
    context, _ = puzzles.merge.specification(a[0], a[1], b[0], b[1])
    whole = attnc.dot_product_attention(query, key, value)
    np.testing.assert_allclose(context, whole, atol=1e-13)


def test_as_a_decorator():
    @puzzles.causal.check
    def first(Tq, Tk):
        return np.tri(Tq, Tk, Tk - Tq, bool)

    @puzzles.causal
    def second(Tq, Tk):
        return np.tri(Tq, Tk, Tk - Tq, bool)

    assert first(1, 2).all() and second(1, 2).all()
    assert str(first) == "solved: causal, right on 9 inputs"
    with pytest.raises(AssertionError, match="^causal: for Tq = 1, Tk = 1 allowed is wrong"):
        puzzles.causal(lambda Tq, Tk: np.zeros((Tq, Tk), bool))
    with pytest.raises(TypeError, match="^causal: solution must be a function, got int$"):
        puzzles.causal.check(3)


@pytest.mark.parametrize(
    "result, says",
    [
        (None, "it returns None: a return is missing"),
        ([[1.0]], "weights must be a NumPy array, got a list of 1"),
        (np.ones((1, 1), object), "weights must be of dtype float64, got object"),
        (np.ones((1, 1), complex), "weights must be of dtype float64, got complex128"),
        ("text", "weights must be a NumPy array, got str"),
        (np.ma.ones((1, 1)), "weights must be a NumPy array, got MaskedArray"),
        ((x for x in [1]), "weights must be a NumPy array, got generator"),
    ],
)
def test_hostile_results(result, says):
    with pytest.raises(AssertionError, match=says):
        puzzles.softmax.check(lambda scores: result)


def test_what_a_solution_prints_is_not_shown(capsys):
    @puzzles.coverage.check
    def mine(weights):
        print("look")
        return weights.cumsum(axis=0) - weights

    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("puzzle", ALL, ids=lambda p: p.name)
def test_it_prints_task_signature_and_example(puzzle):
    text = repr(puzzle)
    assert text.startswith(f"Puzzle {puzzle.name}\n") and puzzle.signature in text
    assert "In loops:" in text and "return" in text and "For example:" in text
    assert '"""' not in text and "@" not in text
    assert max(map(len, text.split("\n"))) <= 100 and len(text.split("\n")) < 75
    inputs, outputs = puzzle.example()
    assert all(f"    {name}" in text for name in (*inputs, *outputs))
    assert repr(puzzle) == text


class Markup(html.parser.HTMLParser):
    """Counts cells, and refuses what is open, or not from here."""

    def __init__(self):
        super().__init__()
        self.open, self.cells = [], 0

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "img", "iframe", "style")
        assert not any(name in ("src", "href") or name.startswith("on") for name, _ in attributes)
        self.open.append(tag)
        self.cells += tag == "td"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("puzzle", ALL, ids=lambda p: p.name)
def test_it_is_drawn_without_a_script(puzzle):
    markup = Markup()
    markup.feed(puzzle._repr_html_())
    assert markup.open == []
    inputs, outputs = puzzle.example()
    assert markup.cells == sum(np.size(x) for x in (*inputs.values(), *outputs.values()))


def test_grids():
    arrays = {"x": np.array([[True, False], [False, True]]), "y": np.array([-0.001, np.inf, 2])}
    assert _drawing.text(arrays) == (
        "    x (2, 2), # is True\n        #  .\n        .  #\n    y (3,)\n          0  inf    2"
    )
    assert "title='-0.001'" in _drawing.markup(arrays)
    assert _drawing.inline(np.zeros((10, 10))) == "array (10, 10)"


def test_puzzles_do_not_import_the_solutions():
    code = """
        import sys
        from attnc.teaching import puzzles
        print("attnc.teaching.solutions" in sys.modules, len(puzzles.all()))
    """
    assert python(code) == "False 15"


def test_what_is_true_in_a_drawing_and_code_in_a_task():
    assert "allowed (3, 4), # is True" in repr(puzzles.mask)
    assert "<code>rows</code>" in puzzles.padding._repr_html_()
    assert not any("`" in puzzle._repr_html_() for puzzle in ALL)


@pytest.mark.filterwarnings("error")
def test_a_coroutine():
    async def mask(scores, allowed):
        return scores

    with pytest.raises(AssertionError, match="^mask: it returns a coroutine: leave out async$"):
        puzzles.mask.check(mask)


@pytest.mark.parametrize("puzzle", ALL, ids=lambda p: p.name)
def test_no_zero_is_negative(puzzle):
    for arguments in puzzle._cases(0):
        for x in arguments:
            assert not (np.signbit(x) & (np.asarray(x) == 0)).any()
    assert _drawing.inline(np.array([-1e-9, -0.0, np.nan, -np.inf])) == "[0. 0. nan -inf]"

"""How stages look, printed and as HTML: words, numbers below each other, which element is shown."""

import copy
import html.parser
import pickle

import numpy as np
import pytest
from arrays import inputs

import attnc
from attnc.show._words import width
from attnc.teaching.numbers import aligned, label, lines

STAGES = ("scores", "capped", "masked", "weights", "context")


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
        assert parser.open == []
        assert parser.seen <= {"div", "table", "caption", "tr", "th", "td", "code", "br"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tables_of_far_and_broken_numbers(dtype):
    large = np.finfo(dtype).max
    scores = np.array([[0, -np.inf, 1], [large, -large, 0], [np.nan, 1, np.inf]], dtype)
    value = np.array([[np.finfo(dtype).tiny], [np.nan], [-large]], dtype)
    with np.errstate(all="raise"):
        s = attnc.stages(attnc.attend, scores, value, softcap=3.0)
        for table in (s, s.gradients(np.array([[large], [-np.inf], [0]], dtype))):
            text, page = repr(table), table._repr_html_()
            assert "nan" in text and "nan" in page
            assert max(map(len, text.splitlines())) < 80
    assert "inf" in repr(s) and "inf" in s._repr_html_()


def test_tables_of_large_arrays_are_short(rng):
    scores, value = rng.standard_normal((3, 200, 200)), rng.standard_normal((3, 200, 200))
    s = attnc.stages(attnc.attend, scores, value)
    for table in (s, s.gradients(s.context)):
        text = repr(table).splitlines()
        assert len(text) < 200 and max(map(len, text)) < 80
        page = table._repr_html_()
        assert (
            "[0, 0] of (3, 200)" not in page
            and "[0] of (3,) the first (12, 12) of (200, 200)" in page
        )
        assert len(page) < 250_000


@pytest.mark.parametrize("shape", [(0, 0), (2, 0), (0, 3), (2, 0, 3), (0, 2, 3), (2, 2, 0)])
def test_tables_of_empty_arrays(shape):
    s = attnc.stages(attnc.attend, np.zeros(shape), np.zeros((*shape[:-2], shape[-1], 4)))
    for table in (s, s.gradients(s.context)):
        assert str(shape) in repr(table) and f"<br>{shape}" in table._repr_html_()


# ---- Numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers, digits, expected",
    [
        ([[1, 0], [0, 1]], 4, ["1 0", "0 1"]),
        ([[0.25, -1]], 4, [" 0.25 -1.00"]),
        ([[1 / 3, 10]], 4, [" 0.3333 10.0000"]),
        ([[1 / 3, 10]], 1, [" 0.3 10.0"]),
        ([[1 / 3, 10]], 0, [" 0 10"]),
        ([[0.5, -1e-9]], 4, ["0.5 0.0"]),  # there is no -0.0
        ([[1e-9, 0]], 4, ["1e-09 0e+00"]),
        ([[1.25e10, -1]], 4, [" 1.25e+10 -1.00e+00"]),
        ([[np.nan, -np.inf, 2.5]], 4, [" nan -inf  2.5"]),
        ([[np.nan, np.inf]], 4, ["nan inf"]),
    ],
)
def test_numbers_stand_below_each_other(numbers, digits, expected):
    assert [" ".join(row) for row in aligned(np.array(numbers), digits)] == expected


def test_decimal_points_stand_below_each_other(rng):
    for power in (-3, 0, 3, 6):
        x = rng.standard_normal((6, 5)) * 10.0**power
        places = {text.index(".") for row in aligned(x, 4) for text in row}
        assert len(places) == 1


def test_words_are_in_one_line_and_short():
    assert label("a\nb\t") == r"a\nb\t"
    assert width(label("long" * 9)) <= 20 and label("long" * 9).endswith("…")
    assert width(label("猫" * 30)) <= 20


def test_rows_and_columns_below_words(rng):
    words = ["猫", "cat", "ねこ", "gato"]
    text = lines(rng.standard_normal((4, 4)), 4, words, words)
    assert len({width(line) for line in text}) == 1
    heads = text[0]
    for word in words:  # each ends where its numbers end
        end = width(heads[: heads.index(word) + len(word)])
        for line in text[1:]:
            there = [k for k in range(len(line)) if width(line[: k + 1]) == end]
            assert line[there[-1]].isdigit()


def test_what_has_no_room_is_left_out():
    x = np.arange(20 * 40).reshape(20, 40)
    text = lines(x, 4)
    assert len(text) == 13 and text[6].strip() == "..."
    assert all("..." in line and line.endswith(("9", "...")) for line in text)
    with np.printoptions(linewidth=400):
        assert "..." not in lines(x, 4)[0]


# ---- What is shown -------------------------------------------------------------------------------


def labelled(rng):
    (query, key, value, vector), own = inputs("additive_attention", rng, Tq=2, Tk=3)
    s = attnc.stages(attnc.additive_attention, query, key, value, vector, **own)
    return s, s.shown(queries=["le", "chat"], keys=["the", "<cat>", "猫"], at=(1, 1), digits=2)


def test_words_are_at_what_they_belong_to(rng):
    _, s = labelled(rng)
    for table in (s, s.gradients(s.context)):
        blocks = {}
        for line in repr(table).splitlines()[1:]:
            if line[0] != " ":
                name = line.split()[0]
                blocks[name] = []
            blocks[name].append(line)
        for name in ("scores", "masked", "weights"):
            head, le, chat = blocks[name][-3:]
            assert head.split() == ["the", "<cat>", "猫"]
            assert le.split()[0] == "le" and chat.split()[0] == "chat"
        assert "[1] of (2,), query 1 of 2 (chat)" in blocks["units"][1]
        assert [line.split()[0] for line in blocks["units"][2:]] == ["the", "<cat>", "猫"]
        assert [line.split()[0] for line in blocks["projected_query"][2:]] == ["le", "chat"]
        assert [line.split()[0] for line in blocks["context"][2:]] == ["le", "chat"]
        assert [line.split()[0] for line in blocks["projected_key"][2:]] == ["the", "<cat>", "猫"]
        page = table._repr_html_()
        assert "<bdi>&lt;cat&gt;</bdi>" in page and "<cat>" not in page
        assert page.count("<bdi>chat</bdi>") >= 5


def test_any_element_is_shown(rng):
    _, s = labelled(rng)
    text = repr(s.shown(at=(1, 0)))
    assert "[1] of (2,), query 0 of 2 (le)" in text
    first = repr(s.shown(at=0))
    assert "[0] of (2,)" in first and "[1] of (2,)" not in first
    assert f"{s.weights[0, 0, 0]:.2f}" in first.split("weights")[1].split("context")[0]
    assert f"{s.weights[1, 0, 0]:.2f}" in text.split("weights")[1].split("context")[0]


def test_any_head_is_shown(rng):
    layer = attnc.MultiHeadAttention(8, 4, num_kv_heads=2, dtype="float64", rng=0)
    s = attnc.stages(layer, rng.standard_normal((3, 5, 8))).shown(at=(2, 2), digits=12)
    for table in (s, s.gradients(s.output)):
        text = repr(table)
        assert "[2] of (3,), head 2 of 4" in text and "[2] of (3,), head 1 of 2" in text
        for array in (table.scores[2, 2, 0, 0], table.keys[2, 1, 0, 0], table.output[2, 0, 0]):
            assert f"{array:.12f}" in text
            assert f"{array:.12f}" in table._repr_html_()
    weight = s.gradients(s.output).query_weight[0, 2, 0]
    assert f"{weight:.12f}" in repr(s.gradients(s.output))


def test_views_share_arrays_and_are_kept(rng):
    plain, s = labelled(rng)
    assert s.weights is plain.weights and type(s) is type(plain)
    assert repr(s) != repr(plain)
    for twin in (copy.copy(s), copy.deepcopy(s), pickle.loads(pickle.dumps(s)), s.shown()):
        assert repr(twin) == repr(s) and twin._repr_html_() == s._repr_html_()
        g = twin.gradients(s.context)
        assert "chat" in repr(g)
        assert repr(pickle.loads(pickle.dumps(g))) == repr(copy.deepcopy(g)) == repr(g)


def test_lines_of_words_from_right_to_left():
    s = attnc.stages(attnc.attend, np.eye(2), np.eye(2)).shown(queries=["שלום", "عالم"])
    assert all(f"\u200e{word}\u200e  " in repr(s) for word in ("שלום", "عالم"))


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 3)])
def test_an_option_of_all_alike_has_the_words_of_none(shape, rng):
    s = attnc.stages(attnc.attend, np.zeros((4, 3)), np.eye(3), bias=rng.standard_normal(shape))
    g = s.shown(queries=["a1", "b1", "c1", "d1"], keys=["x2", "y2", "z2"]).gradients(s.context)
    lines = repr(g).split("\n")
    own = lines[[line.startswith("bias") for line in lines].index(True) + 1 :]
    assert all(line.startswith("    ") for line in own)  # it is the last of them
    own = "\n".join(own)
    assert ("d1" in own) == (shape[0] == 4) and ("z2" in own) == (shape[1] == 3)
    assert len(own.split("\n")) == shape[0] + (shape[1] == 3)
    svg = g.svg(names=["bias"])
    assert ("a1" in svg) == (shape[0] == 4) and ("x2" in svg) == (shape[1] == 3)
    assert ("a1" in g.latex(names=["bias"])) == (shape[0] == 4) and g._repr_html_()


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        ({"queries": ["a"]}, ValueError, "queries must be 2 words, one of each, got 1"),
        ({"keys": "the cat sat"}, TypeError, "keys must be a sequence of words, got 'the cat sat'"),
        ({"keys": [1, 2, 3]}, TypeError, "keys must be strings, got int"),
        ({"keys": {"a", "b", "c"}}, TypeError, "keys must be in order, got a set"),
        ({"keys": 3}, TypeError, "keys must be a sequence of words, got int"),
        ({"at": 2}, ValueError, r"at must be an index of the leading axes \(2, 2\), got \(2,\)"),
        ({"at": -1}, ValueError, "at must be an index"),
        ({"at": (0, 0, 0)}, ValueError, "at must have 2 or fewer indices"),
        ({"at": 0.5}, TypeError, "at must be"),
        ({"at": "0"}, TypeError, "at must be"),
        ({"digits": -1}, ValueError, "digits must be"),
        ({"digits": 18}, ValueError, "digits must be"),
        ({"digits": True}, TypeError, "digits must be"),
    ],
)
def test_wrong_views(wrong, error, message, rng):
    s, _ = labelled(rng)
    with pytest.raises(error, match=f"^shown: {message}"):
        s.shown(**wrong)

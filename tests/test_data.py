"""Reading pairs, vocabularies, padding, batches."""

import copy
import pickle

import numpy as np
import pytest
from checks import assert_same, assert_unchanged
from hypothesis import given
from hypothesis import strategies as st

from attnc.data import Vocabulary, batches, pad, read_pairs

# ---- read_pairs ----------------------------------------------------------------------------------


def read(tmp_path, content):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content)
    return read_pairs(path)


@pytest.mark.parametrize(
    "content",
    [
        b"Go.\tVa !\nHi.\tSalut !\n",
        b"Go.\tVa !\nHi.\tSalut !",  # no end of the last line
        b"\xef\xbb\xbfGo.\tVa !\nHi.\tSalut !\n",  # byte order mark
        b"Go.\tVa !\r\nHi.\tSalut !\r\n",  # Windows
        b"Go.\tVa !\rHi.\tSalut !\r",  # old Macintosh
        b"\n\nGo.\tVa !\n  \n\t\n\t \t\nHi.\tSalut !\n\n",  # blank lines
        b"Go.\tVa !\tCC-BY 2.0 (France)\nHi.\tSalut !\t\tmore\n",  # the columns of Tatoeba and Anki
        b" Go. \t Va !\nHi.\t  Salut !  \n",
    ],
)
def test_reads_pairs(tmp_path, content):
    assert read(tmp_path, content) == [("Go.", "Va !"), ("Hi.", "Salut !")]


def test_keeps_text_as_it_is(tmp_path):
    # Other line separators of Unicode, quotes and backslashes are text.
    pairs = [("a\u2028b\x0c\x85c", '"x\\t'), ("你好", "e\u0301"), ("你好", "e\u0301")]
    content = "\n".join("\t".join(pair) for pair in pairs).encode()
    assert read(tmp_path, content) == pairs


@pytest.mark.parametrize(
    "content, line, reason",
    [
        (b"a\tb\nno tab here\nc\td\n", 2, "found no tab; a line must be: source TAB target"),
        (b"a\tb\n\n\tempty\n", 3, "the source sentence is empty"),
        (b"a\tb\r\nempty\t\r\n", 2, "the target sentence is empty"),
        (b"a\t  \tmore\n", 1, "the target sentence is empty"),
        (
            b"a\tb\nc\td\ncaf\xe9\te\n",
            3,
            "not UTF-8 text (byte 0xe9 in position 3); save the file as",
        ),
        ("a\tb\n".encode("utf-16"), 1, "not UTF-8 text (byte 0xff in position 0)|zero byte"),
        ("a\tb\n".encode("utf-16-le"), 1, "UTF-16 must be saved as UTF-8"),
        (b"", 1, "ends without a single sentence pair"),
        (b"\n\n \n", 4, "ends without a single sentence pair"),
    ],
)
def test_wrong_file(tmp_path, content, line, reason):
    with pytest.raises(ValueError) as error:
        read(tmp_path, content)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'pairs.tsv'}, line {line}: ")
    assert any(part in message for part in reason.split("|"))
    assert "\n" not in message


def test_paths_of_all_kinds(tmp_path):
    read(tmp_path, b"a\tb\n")
    path = tmp_path / "pairs.tsv"
    for given_path in (path, str(path), bytes(path)):
        assert read_pairs(given_path) == [("a", "b")]
    path.write_bytes(b"only one\n")
    with pytest.raises(ValueError, match=rf"^{path}, line 1: found no tab"):
        read_pairs(bytes(path))


@pytest.mark.parametrize("wrong", [0, True, None, 1.5, ["pairs.tsv"], b"a\tb".splitlines])
def test_what_is_no_path(wrong):
    """0 would be the standard input."""
    with pytest.raises(TypeError, match="^read_pairs: path must be the name of a file, got "):
        read_pairs(wrong)


def test_a_folder(tmp_path):
    with pytest.raises(OSError, match=str(tmp_path)):
        read_pairs(tmp_path)


def test_loses_nothing_of_a_line(tmp_path):
    long = "x y " * 1_000_000 + "end"
    mark = "\ufeff"  # a byte order mark that is not the first of the file is text
    pairs = [(long, '"' + long), (f"{mark}a", f"b{mark}"), ("'a", '""')]
    content = "\n".join("\t".join(pair) for pair in pairs).encode()
    assert read(tmp_path, content) == pairs


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="pairs.tsv"):
        read_pairs(tmp_path / "pairs.tsv")


# ---- Vocabulary ----------------------------------------------------------------------------------


def test_vocabulary_numbers():
    v = Vocabulary(["red", "green"])
    assert (v.padding, v.start, v.end, v.unknown) == (0, 1, 2, 3)
    assert len(v) == 6
    assert "red" in v
    assert "blue" not in v
    numbers = v.encode(["green", "blue", "red"], start=True, end=True)
    assert numbers.dtype == np.intp
    assert numbers.tolist() == [1, 5, 3, 4, 2]
    assert v.decode(numbers) == ["green", "<unknown>", "red"]
    assert v.encode([]).shape == (0,)
    assert v.encode([]).dtype == np.intp


def test_decode_stops_at_the_end():
    v = Vocabulary(["red", "green"])
    assert v.decode([1, 4, 0, 5, 2, 5, 5]) == ["red", "green"]
    assert v.decode(np.array([2, 4])) == []
    for number in (6, -1):
        with pytest.raises(ValueError, match=rf"numbers must be in 0..5, got {number}"):
            v.decode([4, number])


def test_build_sorts_by_frequency_then_alphabet():
    text = [["b", "a", "c"], ["c", "b"], ["c", "d"]]
    assert Vocabulary.build(text).words == ["c", "b", "a", "d"]
    assert Vocabulary.build(text, min_count=2).words == ["c", "b"]
    assert Vocabulary.build(text, max_words=3).words == ["c", "b", "a"]
    assert Vocabulary.build(text) == Vocabulary.build(reversed(text))
    assert Vocabulary.build([]).words == []


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(WORDS, unique=True))
def test_vocabulary_round_trip_through_an_array(words):
    v = Vocabulary(words)
    again = Vocabulary(np.array(v.words, dtype=str))
    assert again == v
    assert all(type(word) is str for word in again.words)
    assert again.decode(v.encode(words, start=True, end=True)) == words


def test_vocabulary_round_trip_through_a_file(tmp_path):
    v = Vocabulary([" 年", "é", "a b", "<unknown>"])
    np.savez(tmp_path / "v.npz", words=v.words)
    with np.load(tmp_path / "v.npz", allow_pickle=False) as file:
        assert Vocabulary(file["words"]) == v


def test_vocabulary_errors():
    with pytest.raises(ValueError, match="words must be different, got 'a' twice"):
        Vocabulary(["a", "b", "a"])
    with pytest.raises(TypeError, match="words must be strings, got 3"):
        Vocabulary(["a", 3])
    with pytest.raises(TypeError, match="must be a list of strings, got 'ab'"):
        Vocabulary("ab")


def test_vocabulary_repr_and_equality():
    assert repr(Vocabulary(["a", "b"])) == "Vocabulary(['a', 'b'])"
    assert repr(Vocabulary("a b c d".split())) == "Vocabulary(['a', 'b', 'c', ...])"
    assert Vocabulary(["a"]) != Vocabulary(["b"])
    assert Vocabulary(["a"]) != ["a"]


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        3,
        b"ab",
        {"a": 4},
        {"a"},
        frozenset("a"),
        np.array("ab"),
        np.ma.array(["a", "b"]),
    ],
    ids=repr,
)
def test_words_are_a_list(wrong):
    """A set has no order: the numbers would change from run to run; a dict has more than words."""
    v = Vocabulary(["a"])
    for where, f in {"Vocabulary": Vocabulary, "Vocabulary.encode": v.encode}.items():
        with pytest.raises(TypeError, match=f"^{where}: words must be "):
            f(wrong)


@pytest.mark.parametrize("word", [3, None, b"a", 1.5, ["a"], np.array("a")], ids=repr)
def test_a_word_is_a_string(word):
    """Also one that would be unknown."""
    v = Vocabulary(["a"])
    with pytest.raises(TypeError, match="^Vocabulary: words must be strings, got "):
        Vocabulary(["b", word])
    with pytest.raises(TypeError, match="^Vocabulary.encode: words must be strings, got "):
        v.encode(["a", word])
    with pytest.raises(TypeError, match="^Vocabulary.build: words must be strings, got "):
        Vocabulary.build([["a"], ["b", word]])


def test_text_that_was_not_cut_into_words():
    """Its characters would be taken for words in silence."""
    text = "the red house " * 1000
    v = Vocabulary(["a"])
    for f, wrong in (
        (Vocabulary, text),
        (v.encode, text),
        (v.encode, np.str_("red")),
        (Vocabulary.build, text),
        (Vocabulary.build, [text]),
        (Vocabulary.build, [["a"], text]),
        (Vocabulary.build, iter([text])),
    ):
        with pytest.raises(
            TypeError, match=r"^Vocabulary\S*: .* must be .*\(use .split\(\)\)$"
        ) as error:
            f(wrong)
        assert len(str(error.value)) < 150


@pytest.mark.parametrize("wrong", [None, 3, {"a": ["b"]}, b"ab", np.ma.array([["a"]])], ids=repr)
def test_build_takes_sequences(wrong):
    with pytest.raises(
        TypeError, match="^Vocabulary.build: sequences must be (sequences of words|a plain array), "
    ):
        Vocabulary.build(wrong)
    with pytest.raises(
        TypeError, match="^Vocabulary.build: a sequence must be a (list of strings|plain array), "
    ):
        Vocabulary.build([["a"], wrong])


def test_build_and_encode_take_any_iterable():
    text = [["b", "a", "b"], ["a", "c"]]
    v = Vocabulary.build(text)
    for same in (
        iter(text),
        (iter(words) for words in text),
        map(tuple, text),
        [np.array(words) for words in text],
        [np.array(words, object) for words in text],
    ):
        assert Vocabulary.build(same) == v
    assert Vocabulary.build(np.array([["a", "b"], ["b", "c"]])).words == ["b", "a", "c"]
    assert Vocabulary.build([{"a", "b"}, {"a"}]).words == ["a", "b"]  # documents of a word
    for words in (("b", "x"), iter(["b", "x"]), np.array(["b", "x"])):
        assert v.encode(words).tolist() == [5, 3]
    assert all(type(word) is str for word in Vocabulary.build([np.array(["a"])]).words)


@pytest.mark.parametrize("name", ["min_count", "max_words"])
def test_counts_of_build(name):
    text = [["a", "b", "b", "c", "c", "c"]]
    for wrong in (1.5, 2.0, True, np.True_, "1", [1], np.array([1]), np.ma.array(1)):
        with pytest.raises(TypeError, match=f"^Vocabulary.build: {name} must be an integer of at"):
            Vocabulary.build(text, **{name: wrong})
    for wrong in (-1, np.int8(-1)):
        with pytest.raises(ValueError, match=f"^Vocabulary.build: {name} must be an integer of at"):
            Vocabulary.build(text, **{name: wrong})
    assert Vocabulary.build(text, **{name: np.uint8(2)}).words == ["c", "b"]
    assert Vocabulary.build(text, max_words=0).words == []
    assert Vocabulary.build(text, min_count=0).words == ["c", "b", "a"]
    assert Vocabulary.build(text, min_count=10**30, max_words=10**30).words == []


@pytest.mark.parametrize("name", ["start", "end"])
@pytest.mark.parametrize("wrong", [1, 0, None, "False", 1.0, np.array([True])])
def test_flags_of_encode(name, wrong):
    with pytest.raises(TypeError, match=f"^Vocabulary.encode: {name} must be True or False, got "):
        Vocabulary(["a"]).encode(["a"], **{name: wrong})


def test_decode_takes_integers():
    v = Vocabulary(["red", "green"])
    for numbers in (
        (4, 5),
        iter([4, 5]),
        np.array([4, 5], np.uint8),
        np.array([4, 5], ">i8"),
        [np.int8(4), np.array(5)],
        range(4, 6),
    ):
        assert v.decode(numbers) == ["red", "green"]
    assert v.decode([]) == v.decode(np.array([], int)) == []
    assert v.decode([4, 2, 99, -1]) == ["red"]  # what follows the end is not looked at


@pytest.mark.parametrize(
    "wrong",
    [
        *([4.0], np.array([4.0]), [4.7], [True], [4, True], np.array([True]), "4", ["4"], None),
        *([None], {4}, {4: 5}, [4j], [2**70], np.ma.array([4, 5]), [np.ma.array(4), 5], 4.0, b"4"),
    ],
    ids=repr,
)
def test_decode_refuses_what_is_no_integer(wrong):
    with pytest.raises(TypeError, match="^Vocabulary.decode: numbers must be "):
        Vocabulary(["red", "green"]).decode(wrong)


@pytest.mark.parametrize("wrong", [4, np.array(4), [[4, 5]], np.ones((2, 2), int)], ids=repr)
def test_decode_takes_one_sequence(wrong):
    with pytest.raises(ValueError, match=r"^Vocabulary.decode: numbers must have one axis \(T,\)"):
        Vocabulary(["red", "green"]).decode(wrong)


def test_decode_refuses_wrapped_numbers():
    v = Vocabulary(["red", "green"])
    with pytest.raises(ValueError, match=f"must be in 0..5, got {2**64 - 1}"):
        v.decode(np.array([2**64 - 1], np.uint64))


def test_vocabulary_does_not_change():
    v = Vocabulary(["red", "green"])
    v.words.append("blue")
    v.words[0] = "blue"
    assert v.words == ["red", "green"] and len(v) == 6 and "blue" not in v
    assert v.encode(["red", "blue"]).tolist() == [4, 3]
    assert v.decode([4, 5]) == ["red", "green"]
    with pytest.raises(AttributeError):
        v.words = ["blue"]
    words = ["red"]
    v = Vocabulary(words)
    words.append("blue")
    assert len(v) == 5 and v == Vocabulary(["red"])


def test_vocabulary_copies():
    v = Vocabulary(["red", "green"])
    for again in (copy.copy(v), copy.deepcopy(v), pickle.loads(pickle.dumps(v))):
        assert again == v and again is not v
        assert again.encode(["green", "blue"]).tolist() == [5, 3]
        assert again.decode([4, 5]) == again.words == ["red", "green"]


# ---- pad -----------------------------------------------------------------------------------------


def test_pad():
    array, lengths = pad([[5, 6, 7], [], [8]])
    assert array.tolist() == [[5, 6, 7], [0, 0, 0], [8, 0, 0]]
    assert array.dtype == lengths.dtype == np.intp
    assert lengths.tolist() == [3, 0, 1]


def test_pad_keeps_the_dtype():
    assert pad([np.ones(2, np.float32), np.ones(3, np.float32)])[0].dtype == np.float32
    assert pad([[1], np.ones(3, np.float64)])[0].dtype == np.float64
    assert pad([[1, 2]], dtype=np.uint8)[0].dtype == np.uint8
    assert pad([[], []])[0].shape == (2, 0)
    assert pad([[], []])[0].dtype == np.intp


def test_pad_vectors():
    array, lengths = pad([np.ones((2, 3)), np.ones((4, 3)), np.ones((0, 3))], padding=-1)
    assert array.shape == (3, 4, 3)
    assert lengths.tolist() == [2, 4, 0]
    for row, length in zip(array, lengths, strict=True):
        assert np.all(row[:length] == 1)
        assert np.all(row[length:] == -1)


def test_pad_errors():
    with pytest.raises(ValueError, match="at least one sequence, got none"):
        pad([])
    with pytest.raises(ValueError, match=r"axes after the first, got \(2, 3\), \(2, 4\)"):
        pad([np.ones((2, 3)), np.ones((2, 4))])


def test_pad_takes_any_iterable():
    expected = pad([[5, 6, 7], [8]])
    for same in (
        ([5, 6, 7], (8,)),
        iter([[5, 6, 7], [8]]),
        (iter(row) for row in ([5, 6, 7], [8])),
        [range(5, 8), map(int, "8")],
        {"x": [5, 6, 7], "y": [8]}.values(),
    ):
        assert_same(pad(same), expected)
    assert_same(pad(np.array([[1, 2], [3, 4]]))[0], np.array([[1, 2], [3, 4]]))


def test_pad_keeps_what_empty_sequences_say():
    array, lengths = pad([np.zeros((0, 3), np.float32)] * 2)
    assert array.shape == (2, 0, 3) and array.dtype == np.float32 and not lengths.any()
    assert pad([[], np.zeros((0, 3))])[0].shape == (2, 0, 3)
    assert pad([[], np.ones((2, 3))])[0].shape == (2, 2, 3)
    assert pad([np.array([]), [1]])[0].dtype == np.intp
    with pytest.raises(ValueError, match=r"axes after the first, got \(0, 3\), \(2, 4\)"):
        pad([np.zeros((0, 3)), np.ones((2, 4))])
    with pytest.raises(ValueError, match=r"axes after the first, got \(0, 3\), \(2,\)"):
        pad([np.zeros((0, 3)), [1, 2]])


def test_pad_bools():
    array, _ = pad([[True, True], [True]])
    assert_same(array, np.array([[True, True], [True, False]]))
    array, _ = pad([[False, True], np.array([False])], padding=True)
    assert_same(array, np.array([[False, True], [False, True]]))
    for wrong in (1, 0.0, 2, None, "False"):
        with pytest.raises(TypeError, match="^pad: padding must be True or False, got "):
            pad([[True, False]], padding=wrong)


@pytest.mark.parametrize(
    "rows",
    [
        *([np.ma.array([1, 2], mask=[0, 1])], [[1], [np.ma.array(1), 2]], [np.ma.array([])]),
        *(np.ma.array([[1, 2]]), ["ab"], [["a", "b"]], [b"ab"], [[1j]], [[None]], [None]),
        *([{1: 2}], [{1, 2}], [[[1, 2], [3]]], [[1, True]], [[0.5, False]], [[2**70]]),
        *([np.array([1], object)], [np.ones(2, "M8[s]")], [np.ones(2, np.longdouble)]),
        *([np.array([], str)], [np.array([], complex)]),
    ],
    ids=repr,
)
def test_pad_refuses_what_is_no_number(rows):
    with pytest.raises(TypeError, match=r"^pad: sequences(\[\d\])? must be "):
        pad(rows)


@pytest.mark.parametrize("wrong", ["abc", b"abc", {1: [2]}, {(1,)}, None, 3, np.array(3)], ids=repr)
def test_pad_takes_a_list(wrong):
    with pytest.raises(TypeError, match="^pad: sequences must be "):
        pad(wrong)


def test_pad_refuses_foreign_tensors():
    torch = pytest.importorskip("torch")
    for rows in ([torch.ones(2)], torch.ones(2, 2), [[torch.tensor(1), 2]]):
        with pytest.raises(
            TypeError, match=r"^pad: sequences\[0\] must be a NumPy array, got a PyTorch tensor"
        ):
            pad(rows)


def test_pad_refuses_a_number_for_a_sequence():
    for rows in ([1, 2], [np.array(1)], np.array([1, 2])):
        message = r"^pad: sequences\[0\] must have an axis .*\(one sequence alone is \[sequence\]\)"
        with pytest.raises(ValueError, match=message):
            pad(rows)


def test_pad_bfloat16_and_float8():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    narrow = np.array([1.5, 2.5], ml_dtypes.bfloat16)
    array, _ = pad([narrow, narrow[:1]], padding=-0.5)
    assert_same(array, np.array([[1.5, 2.5], [1.5, -0.5]], ml_dtypes.bfloat16))
    assert pad([narrow, np.ones(1, np.float32)])[0].dtype == np.float32
    with pytest.raises(
        TypeError, match="^pad: sequences must have a common dtype, got bfloat16, fl"
    ):
        pad([narrow, np.ones(1, np.float16)])
    assert pad([narrow, np.ones(1, np.float16)], dtype=np.float32)[0].tolist()[0] == [1.5, 2.5]
    for rows, dtype in (
        ([narrow.astype(ml_dtypes.float8_e4m3fn)], None),
        ([narrow], ml_dtypes.float8_e4m3fn),
    ):
        with pytest.raises(TypeError, match="^pad: .* must be real, got float8_e4m3fn"):
            pad(rows, dtype=dtype)
    assert pad([[255, 256]], dtype=ml_dtypes.bfloat16)[0].tolist() == [[255, 256]]
    with pytest.raises(ValueError, match=r"^pad: sequences\[0\] must fit dtype bfloat16, got 257"):
        pad([[255, 257]], dtype=ml_dtypes.bfloat16)


@pytest.mark.parametrize(
    "row, dtype",
    [
        *(([0, 255], np.uint8), ([-128, 127], np.int8), ([-5], np.int16), ([2**63], np.uint64)),
        *(([2**24, -(2**24), 2**30, 3 * 2**40], np.float32), ([2**63 - 1], np.int64)),
        *(([2**53, -(2**63), 2**62 + 2**61], np.float64), ([2048, 4096, 0], np.float16)),
        *(([1e300, np.inf, np.nan], np.float64), ([np.inf, -np.inf, np.nan, 3e38], np.float32)),
        *((np.array([2**63, 2**64 - 2**11], np.uint64), np.float64), ([1, 2], ">i4"), ([], bool)),
    ],
    ids=repr,
)
def test_pad_into_a_dtype_that_holds_the_numbers(row, dtype):
    with np.errstate(all="raise"):
        array, _ = pad([row, row[:0]], dtype=dtype)
    assert array.dtype == np.dtype(dtype)
    if np.asarray(row).dtype.kind == "f":
        assert_same(array[0], np.array(row, dtype))
    else:  # as Python's integers, which round nothing
        assert [int(x) for x in array[0]] == [int(x) for x in row]


@pytest.mark.parametrize(
    "row, dtype, lost",
    [
        *(([1, 300], np.uint8, 300), ([-1], np.uint8, -1), ([-1], np.uint64, -1)),
        *(([-129, 0], np.int8, -129), ([2**63], np.int64, 2**63), ([2**32], np.int32, 2**32)),
        *(([2**24 + 1], np.float32, 2**24 + 1), ([-(2**53) - 1], np.float64, -(2**53) - 1)),
        *(([2**63 - 1], np.float64, 2**63 - 1), ([2**64 - 1], np.float64, 2**64 - 1)),
        *(([2049], np.float16, 2049), ([65536], np.float16, 65536), ([1e39], np.float32, 1e39)),
        *(([0.5, -1e5], np.float16, -1e5), ([70000], np.uint16, 70000)),
    ],
    ids=repr,
)
def test_pad_refuses_numbers_that_a_dtype_does_not_hold(row, dtype, lost):
    with np.errstate(all="raise"), pytest.raises(ValueError) as error:
        pad([[], row], dtype=dtype)
    message = f"pad: sequences[1] must fit dtype {np.dtype(dtype)}, got {lost}"
    assert str(error.value) == message


@pytest.mark.parametrize(
    "row, dtype",
    [([1.0], int), ([0.5], np.uint8), ([True], int), ([True], float), ([1], bool), ([1.0], bool)],
    ids=repr,
)
def test_pad_refuses_a_dtype_of_another_kind(row, dtype):
    with pytest.raises(
        TypeError, match=r"^pad: sequences\[0\] must fit dtype .* \(use .astype\(\)\)"
    ):
        pad([row], dtype=dtype)


@pytest.mark.parametrize(
    "dtype",
    [object, str, "U3", complex, "M8[s]", np.longdouble, "nonsense", [("x", int)], 3],
    ids=repr,
)
def test_pad_refuses_a_dtype_that_is_none_of_numbers(dtype):
    with pytest.raises(TypeError, match="^pad: dtype must be "):
        pad([[1, 2]], dtype=dtype)


def test_pad_finds_a_common_dtype_that_holds_all():
    assert pad([np.ones(1, np.int8), np.ones(1, np.uint8)])[0].dtype == np.int16
    assert pad([np.ones(1, ">i4")])[0].dtype == np.int32
    with pytest.raises(TypeError, match="must have a common dtype, got int64, uint64"):
        pad([[1], np.array([2], np.uint64)])  # float64 to NumPy
    assert pad([[1], np.array([2], np.uint64)], dtype=int)[0].tolist() == [[1], [2]]
    for bools in ([True], np.array([False])):
        with pytest.raises(TypeError, match="must have a common dtype, got bool, int64"):
            pad([[1, 2], bools])
    with pytest.raises(
        ValueError, match=r"sequences\[1\] must fit dtype float64, got 9007199254740993"
    ):
        pad([[0.5], [2**53 + 1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.intp])
@pytest.mark.parametrize("padding", [0.5, 0.0, np.nan, True, None, "0", 1j, [0], np.ma.array(1)])
def test_padding_of_integers_is_an_integer(dtype, padding):
    with pytest.raises(TypeError, match="^pad: padding must be an integer in "):
        pad([np.ones(1, dtype), []], padding=padding)


@pytest.mark.parametrize("padding", [True, None, "0", 1j, [0.0], np.ones(2), np.ma.array(0.5)])
def test_padding_of_floats_is_a_number(padding):
    with pytest.raises(TypeError, match="^pad: padding must be a number, got "):
        pad([[0.5], []], padding=padding)


@pytest.mark.parametrize(
    "padding, dtype",
    [
        *((-1, np.uint8), (256, np.uint8), (-129, np.int8), (2**63, np.int64), (-1, np.uint64)),
        *(
            (10**400, np.float64),
            (2**24 + 1, np.float32),
            (1e39, np.float32),
            (2**70 + 1, np.float64),
        ),
        *((65520.0, np.float16), (np.int64(2**53 + 1), np.float64)),
    ],
)
def test_padding_fits_the_dtype(padding, dtype):
    with np.errstate(all="raise"), pytest.raises(ValueError, match="^pad: padding must "):
        pad([np.ones(1, dtype), []], padding=padding)


@pytest.mark.parametrize(
    "padding, dtype",
    [
        *((255, np.uint8), (np.int8(-1), np.int16), (2**64 - 1, np.uint64), (-(2**63), np.int64)),
        *((np.nan, np.float32), (-np.inf, np.float64), (2**30, np.float32), (3, np.float16)),
        *((0.1, np.float32), (np.float64(0.1), np.float16), (np.array(2), np.float64)),
    ],
)
def test_padding_is_written_as_it_is(padding, dtype):
    with np.errstate(all="raise"):
        array, _ = pad([np.ones(1, dtype), []], padding=padding)
    assert_same(array, np.array([[1], [padding]]).astype(dtype) if padding != 2**64 - 1 else array)
    assert padding != 2**64 - 1 or array[1, 0] == padding


def test_pad_leaves_its_arguments_alone():
    rows = [np.array([1, 2]), np.array([3])]
    with assert_unchanged(rows):
        array, _ = pad(rows)
        array[...] = 0


# ---- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, size", [(10, 3), (9, 3), (1, 5), (0, 4), (7, 1)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_hold_each_row_once(count, size, shuffle, rng):
    lengths = rng.integers(1, 5, count)
    parts = list(batches(lengths, size, shuffle=shuffle, rng=rng))
    assert sorted(row for rows in parts for row in rows) == list(range(count))
    assert all(1 <= len(rows) <= size for rows in parts)
    assert len(parts) == -(-count // size)
    # Like lengths together: cut at the batches, the sorted lengths come out.
    spans = sorted((lengths[rows].min(), lengths[rows].max()) for rows in parts)
    assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:], strict=False))


def test_batches_in_order():
    assert [rows.tolist() for rows in batches([9, 2, 8, 3], 2, shuffle=False)] == [[1, 3], [2, 0]]


def test_batches_shuffle_by_rng():
    lengths = np.arange(100) % 3

    def run(rng):
        return [rows.tolist() for rows in batches(lengths, 7, rng=rng)]

    assert run(3) == run(3)
    assert run(3) != run(4)
    assert run(None) != run(None)
    generator = np.random.default_rng(3)
    assert run(generator) == run(3)
    assert run(generator) != run(3)  # it has moved on: the next epoch differs


def test_batches_errors():
    # At the call, not in the loop.
    with pytest.raises(ValueError, match=r"lengths must have one axis \(N,\), got shape \(2, 2\)"):
        batches([[1, 2], [3, 4]], 2)
    with pytest.raises(ValueError, match="size must be an integer of at least 1, got 0"):
        batches([1, 2], 0)


@pytest.mark.parametrize(
    "wrong",
    [
        *([2.0], [True, False], [1, True], ["1"], [None], "12", {1, 2}, {1: 2}, [2j], None, b"1"),
        *(np.ma.array([1, 2], mask=[0, 1]), [np.ma.array(1), 2], [[1, 2], [3]]),
    ],
    ids=repr,
)
def test_batches_refuses_lengths_that_are_no_integers(wrong):
    with pytest.raises(TypeError, match="^batches: lengths must be "):
        batches(wrong, 2)


def test_batches_takes_lengths_of_any_kind():
    expected = [[1, 3], [2, 0]]
    for lengths in ((9, 2, 8, 3), iter([9, 2, 8, 3]), np.array([9, 2, 8, 3], np.uint8)):
        assert [rows.tolist() for rows in batches(lengths, 2, shuffle=False)] == expected
    assert [rows.dtype for rows in batches([9], 10**30)] == [np.intp]
    assert list(batches([], 3)) == list(batches(np.array([]), 3)) == []


@pytest.mark.parametrize("wrong", [2.0, True, np.True_, None, "2", [2], np.nan])
def test_batches_refuses_a_size_that_is_no_integer(wrong):
    with pytest.raises(TypeError, match="^batches: size must be an integer of at least 1, got "):
        batches([1, 2], wrong)


def test_batches_refuses_wrong_options():
    with pytest.raises(ValueError, match="^batches: lengths must not be negative, got -1"):
        batches([1, -1], 2)
    for wrong in (1, None, "False"):
        with pytest.raises(TypeError, match="^batches: shuffle must be True or False, got "):
            batches([1, 2], 2, shuffle=wrong)
    for shuffle in (True, False):
        for wrong in (True, 1.0, "1", np.random.RandomState(0)):
            with pytest.raises(
                TypeError, match="^batches: rng must be None, an integer or a numpy"
            ):
                batches([1, 2], 2, shuffle=shuffle, rng=wrong)
        with pytest.raises(ValueError, match="^batches: rng must not be negative, got -1"):
            batches([1, 2], 2, shuffle=shuffle, rng=-1)


# ---- bounds of batches ---------------------------------------------------------------------------


def padding_of(lengths, rows):
    """The share of a batch that is padding, measured on the array that it becomes."""
    array, held = pad([np.ones(lengths[row], np.int8) for row in rows])
    return np.mean(array == 0) if array.size else 0


LENGTHS = st.lists(st.integers(0, 40), max_size=60)


@given(
    LENGTHS,
    st.none() | st.integers(1, 10),
    st.none() | st.integers(40, 200),
    st.none() | st.floats(0, 0.9),
    st.booleans(),
)
def test_batches_keep_their_bounds(lengths, size, max_tokens, max_padding, shuffle):
    if size is None and max_tokens is None:
        size = 3
    bounds = {"max_tokens": max_tokens, "max_padding": max_padding}
    parts = list(batches(lengths, size, **bounds, shuffle=shuffle, rng=0))
    assert sorted(row for rows in parts for row in rows) == list(range(len(lengths)))
    for rows in parts:
        assert rows.dtype == np.intp
        assert 1 <= len(rows) <= (size or len(rows))
        assert max_tokens is None or len(rows) * max(lengths[row] for row in rows) <= max_tokens
        assert max_padding is None or padding_of(lengths, rows) <= max_padding
    # As large as they may be: the first sequence of the next batch has no room.
    parts = list(batches(lengths, size, **bounds, shuffle=False))
    ordered = [[lengths[row] for row in rows] for rows in parts]
    for batch, after in zip(ordered, ordered[1:], strict=False):
        more = [*batch, after[0]]
        held = len(more) * more[-1]
        assert (
            (size is not None and len(more) > size)
            or (max_tokens is not None and held > max_tokens)
            or (max_padding is not None and held - sum(more) > max_padding * held)
        )


def test_padding_of_text(rng):
    """Lengths as sentences have them: sorting alone leaves some batches half empty."""
    lengths = np.maximum(1, rng.gamma(2, 6, 5000).astype(int))

    def shares(**bounds):
        parts = list(batches(lengths, 64, **bounds, rng=0))
        held = sum(len(rows) * lengths[rows].max() for rows in parts)
        return 1 - lengths.sum() / held, max(padding_of(lengths, rows) for rows in parts)

    total, worst = shares()
    assert worst > 0.1 and total < 0.05
    total, worst = shares(max_padding=0.05)
    assert total < worst <= 0.05
    assert shares(max_padding=0.0) == (0, 0)
    # Without sorting it would be half.
    order = rng.permutation(5000)
    held = sum(64 * lengths[order[start : start + 64]].max() for start in range(0, 4992, 64))
    assert 1 - lengths[order[:4992]].sum() / held > 0.5


def test_batches_of_tokens():
    parts = list(batches([9, 2, 8, 3, 2], max_tokens=9, shuffle=False))
    assert [rows.tolist() for rows in parts] == [[1, 4, 3], [2], [0]]
    parts = list(batches([9, 2, 8, 3, 2], 2, max_tokens=9, shuffle=False))
    assert [rows.tolist() for rows in parts] == [[1, 4], [3], [2], [0]]
    assert [rows.tolist() for rows in batches([0, 0, 0], max_tokens=1, shuffle=False)] == [
        [0, 1, 2]
    ]
    assert list(batches([], max_tokens=1)) == []
    huge = np.array([2**62, 2**62], np.uint64)  # their products are computed exactly
    assert len(list(batches(huge, max_tokens=2**63))) == 1
    assert len(list(batches(huge, max_tokens=2**63 - 1))) == 2


@pytest.mark.parametrize("count, size", [(10, 3), (9, 3), (2, 5), (0, 4)])
def test_drop_last(count, size, rng):
    lengths = rng.integers(1, 50, count)
    for shuffle in (True, False):
        parts = list(batches(lengths, size, drop_last=True, shuffle=shuffle, rng=1))
        rows = [row for part in parts for row in part]
        assert [len(part) for part in parts] == [size] * (count // size)
        assert len(set(rows)) == len(rows)
    assert sorted(rows) == list(range(count // size * size))  # the last of the data set are left


def test_drop_last_drops_others_every_time():
    """Also the longest have their turn: what is left out is drawn, not what came last."""
    lengths = np.arange(10)
    generator = np.random.default_rng(0)
    dropped = [
        {*range(10)}
        - {row for rows in batches(lengths, 4, drop_last=True, rng=generator) for row in rows}
        for _ in range(50)
    ]
    assert all(len(rows) == 2 for rows in dropped)
    assert set().union(*dropped) == {*range(10)}


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({}, TypeError, "size must be an integer of at least 1, got None .or give max_tokens"),
        ({"max_padding": 0.1}, TypeError, "size must be an integer of at least 1, got None"),
        ({"max_tokens": 0}, ValueError, "max_tokens must be an integer of at least 1, got 0"),
        ({"max_tokens": 9.0}, TypeError, "max_tokens must be an integer of at least 1, got 9.0"),
        (
            {"max_tokens": 8},
            ValueError,
            "max_tokens must be at least 9, the greatest length, got 8",
        ),
        ({"size": 2, "max_padding": 1}, ValueError, "max_padding must lie in 0 <= max_padding < 1"),
        ({"size": 2, "max_padding": -0.1}, ValueError, "max_padding must lie in 0 <= max_paddin"),
        ({"size": 2, "max_padding": "0"}, TypeError, "max_padding must lie in 0 <= max_padding <"),
        ({"size": 2, "drop_last": 1}, TypeError, "drop_last must be True or False, got 1"),
        ({"max_tokens": 9, "drop_last": True}, ValueError, "drop_last must go with size alone"),
        (
            {"size": 2, "max_padding": 0.1, "drop_last": True},
            ValueError,
            "drop_last must go with size alone",
        ),
    ],
)
def test_batches_refuses_wrong_bounds(options, error, message):
    with pytest.raises(error, match=f"^batches: {message}"):
        batches([9, 2], **options)

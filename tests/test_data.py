"""Reading pairs, vocabularies, padding, batches."""

import numpy as np
import pytest
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
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        batches([1, 2], 0)

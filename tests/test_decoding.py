"""Decoding with any decoder: against all sequences there are, counts of draws, loops in Python.

The decoder here is no attention: a table says what follows the tokens so far. Its state is a cache
that grows in place, as the one of a Transformer does.
"""

import itertools

import numpy as np
import pytest
from checks import assert_agree, assert_same

import attnc

V, START, END = 4, 0, 1
DECODERS = ["greedy_decode", "sample_decode", "beam_search"]


class Cache:
    """Rows of tokens in one array, which states of several lengths share."""

    def __init__(self, rows):
        self.array, self.length = rows, rows.shape[1]

    def append(self, length, tokens):
        """The cache that has these tokens after the first `length`: this one if it ends there."""
        cache = self if self.length == length else Cache(self.array[:, :length].copy())
        cache.array = np.column_stack([cache.array[:, :length], tokens])
        cache.length += 1
        return cache


class Prepared:
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def take(self, rows):
        return Prepared(self.rows[rows])


class Table:
    """A decoder of tokens: memory and tokens so far are the seed of the scores of the next one.

    Its weights are (B, layers, heads, Tk), of numbers that say which step and row they are of.
    """

    def __init__(self, vocabulary=V, weights=True, sharpness=2.0):
        self.vocabulary, self.weights, self.sharpness = vocabulary, weights, sharpness
        self.reordered, self.taken, self.rows = [], [], []

    def scores_of(self, row, tokens):
        rng = np.random.default_rng([int(row), *map(int, tokens)])
        return self.sharpness * rng.standard_normal(self.vocabulary)

    def prepare(self, memory, key_mask=None, key_lengths=None):
        assert key_mask is None and key_lengths is None
        if memory is None or isinstance(memory, Prepared):
            return memory
        return Prepared(np.asarray(memory))

    def step(self, input, memory, state):
        B = len(input)
        if state is None:
            cache, length = Cache(np.zeros((B, 0), int)), 0
        else:
            cache, length = state
        assert cache.array.shape[0] == B
        cache = cache.append(length, input)
        self.rows.append(B)
        rows = np.zeros(B, int) if memory is None else memory.rows
        seen = cache.array[:, : length + 1]
        scores = [self.scores_of(row, each) for row, each in zip(rows, seen, strict=True)]
        weights = None
        if self.weights:
            weights = np.zeros((B, 2, 3, 5))
            weights += rows[:, None, None, None] + seen.sum(axis=1)[:, None, None, None] / 100
            weights += np.arange(30).reshape(2, 3, 5) * 1000
        return np.reshape(scores, (B, self.vocabulary)), weights, (cache, length + 1)

    def reorder(self, state, indices):
        self.reordered.append(len(indices))
        cache, length = state
        return Cache(cache.array[indices, :length]), length


def decode(function, decoder=None, memory=(1, 2, 3), **options):
    options = {"start": START, "end": END, "max_length": 4} | options
    if function == "sample_decode":
        options.setdefault("rng", 0)
    return getattr(attnc, function)(decoder or Table(), memory=memory, **options)


def logs_of(decoder, row, tokens):
    """Logarithms of the probabilities of tokens, one after the other."""
    found = []
    for t, token in enumerate(tokens):
        scores = decoder.scores_of(row, [START, *tokens[:t]])
        found.append(scores[token] - np.log(np.exp(scores).sum()))
    return found


def until_end(tokens, ends=(END,), limit=None):
    """Tokens up to the first end, and at most so many."""
    tokens = list(tokens)[:limit]
    stops = [t for t, token in enumerate(tokens) if token in ends]
    return tuple(tokens[: stops[0] + 1] if stops else tokens)


# ---- One of many ---------------------------------------------------------------------------------


def every_sequence(steps, ends=(END,), least=0):
    found = {until_end(each, ends) for each in itertools.product(range(V), repeat=steps)}
    return [each for each in found if len(each) > least or each[-1] not in ends]


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("limits, ends, least", [
    (4, END, 0), ([3, 1, 4], [END], 0), (3, [END, 3], 2), ([4, 2, 3], [2, END], 1),
])  # fmt: skip
def test_a_beam_wide_enough_finds_the_best_of_all(length_penalty, limits, ends, least):
    decoder, ends_list = Table(), np.ravel(ends).tolist()
    found = decode(
        "beam_search", decoder, end=ends, max_length=limits, min_length=least, beam_width=V**4,
        n_best=V**4, length_penalty=length_penalty, return_log_probabilities=True,
    )  # fmt: skip
    steps = found.tokens.shape[-1]
    assert steps == np.max(limits)
    for b, (row, limit) in enumerate(zip((1, 2, 3), np.broadcast_to(limits, 3), strict=True)):
        every = every_sequence(limit, ends_list, least)
        logs = {each: logs_of(decoder, row, each) for each in every}
        rank = {y: sum(logs[y]) / ((5 + len(y)) / 6) ** length_penalty for y in every}
        ranked = sorted(every, key=rank.get, reverse=True)
        filled = [(*y, *[ends_list[0]] * (steps - len(y))) for y in ranked]
        assert list(map(tuple, found.tokens[b, : len(every)].tolist())) == filled
        assert_agree(found.scores[b, : len(every)], [rank[y] for y in ranked])
        assert (found.scores[b, len(every) :] == -np.inf).all()
        for n, y in enumerate(ranked):
            assert_agree(found.log_probabilities[b, n, : len(y)], logs[y])
            assert not found.log_probabilities[b, n, len(y) :].any()
            seen = np.cumsum([START, *y[:-1]]) / 100 + row
            assert_agree(found.weights[b, n, 0, 0, : len(y), 0], seen)
            assert_agree(found.weights[b, n, 1, 2, : len(y), 4], seen + 29000)
            assert not found.weights[b, n, :, :, len(y) :].any()


@pytest.mark.parametrize("options", [
    {}, {"end": [2, END]}, {"min_length": 3}, {"max_length": [2, 5, 0]}, {"max_length": 0},
    {"logits_hook": lambda logits, tokens: logits - 5 * (np.arange(V) == 3)},
])  # fmt: skip
def test_greedy_is_the_loop_and_a_beam_of_one(options):
    decoder = Table()
    greedy = decode("greedy_decode", decoder, return_log_probabilities=True, **options)
    beam = decode("beam_search", decoder, beam_width=1, return_log_probabilities=True, **options)
    drawn = decode("sample_decode", decoder, top_k=1, return_log_probabilities=True, **options)
    assert_same(drawn, greedy)
    for name in ("tokens", "weights", "log_probabilities"):
        assert_same(getattr(beam, name)[:, 0], getattr(greedy, name))
    ends = np.ravel(options.get("end", END)).tolist()
    limits = np.broadcast_to(options.get("max_length", 4), 3)
    least, hook = options.get("min_length", 0), options.get("logits_hook", lambda x, y: x)
    for b, row in enumerate((1, 2, 3)):
        tokens, logs = [], []
        while len(tokens) < limits[b] and not (tokens and tokens[-1] in ends):
            scores = hook(decoder.scores_of(row, [START, *tokens]), tokens)
            allowed = [token for token in range(V) if token not in ends or len(tokens) >= least]
            tokens.append(max(allowed, key=lambda token: scores[token]))
            logs.append(scores[tokens[-1]] - np.log(np.exp(scores).sum()))
        n = len(tokens)
        assert greedy.tokens[b].tolist() == tokens + [ends[0]] * (greedy.tokens.shape[1] - n)
        assert_agree(greedy.log_probabilities[b, :n], np.array(logs))
        assert not greedy.log_probabilities[b, n:].any()
        assert greedy.weights[b, :, :, :n].all() and not greedy.weights[b, :, :, n:].any()
    assert_same(decode("greedy_decode", decoder, **options), greedy[:2])
    assert_same(decode("beam_search", decoder, beam_width=1, **options), beam[:3])


# ---- Draws ---------------------------------------------------------------------------------------


def counts_close(counts, probabilities):
    """Whether counts are of these probabilities, by the chi-squared statistic.

    With k degrees of freedom it exceeds k + 2 sqrt(k x) + 2 x with a probability of less than
    exp(-x): Laurent and Massart 2000, lemma 1. Those of probability 0 must not be there at all.
    """
    counts, probabilities = np.asarray(counts), np.asarray(probabilities)
    assert not counts[probabilities == 0].any()
    counts, probabilities = counts[probabilities > 0], probabilities[probabilities > 0]
    expected = counts.sum() * probabilities
    assert expected.min() > 5
    k, x = len(counts) - 1, 14  # one of a million
    return ((counts - expected) ** 2 / expected).sum() <= k + 2 * np.sqrt(k * x) + 2 * x


N = 20000


class Fixed:
    """A decoder whose scores are always the same."""

    def __init__(self, scores):
        self.scores = np.asarray(scores)

    def prepare(self, memory, key_mask, key_lengths):
        return memory

    def step(self, input, memory, state):
        return np.broadcast_to(self.scores, (len(input), len(self.scores))), None, None

    def reorder(self, state, indices):
        return None


def draw(scores, n=N, **options):
    """Tokens drawn n times from fixed scores; none of them is an end."""
    options = {"start": np.zeros(n, int), "end": [], "max_length": 1, "rng": 0} | options
    return attnc.sample_decode(Fixed(scores), **options).tokens


def softmax(scores):
    e = np.exp(scores - np.max(scores))
    return e / e.sum()


SCORES = np.array([0.3, -1.0, 1.2, 0.0, 0.8, -0.5])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_frequencies_are_probabilities(temperature, seed):
    tokens = draw(SCORES, temperature=temperature, rng=seed)
    counts = np.bincount(tokens[:, 0], minlength=6)
    assert counts_close(counts, softmax(SCORES / temperature))
    assert not counts_close(counts, softmax(SCORES / temperature * 1.3))  # it can fail


def test_frequencies_of_whole_sequences():
    """Over two steps, of which the second depends on the first, with an end in between."""
    decoder = Table(sharpness=0.5)
    tokens = attnc.sample_decode(
        decoder, memory=np.ones(N // 2, int), start=START, end=END, max_length=2, rng=3
    ).tokens
    every = sorted(every_sequence(2))
    found = [until_end(row) for row in tokens.tolist()]
    assert counts_close(
        [found.count(each) for each in every],
        [np.exp(sum(logs_of(decoder, 1, each))) for each in every],
    )


@pytest.mark.parametrize("k", [1, 2, 4, 6, 100])
def test_top_k_keeps_k(k):
    kept = np.argsort(-SCORES)[:k]
    wanted = np.zeros(6)
    wanted[kept] = softmax(SCORES[kept])
    assert counts_close(np.bincount(draw(SCORES, top_k=k)[:, 0], minlength=6), wanted)


@pytest.mark.parametrize("p", [1e-9, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("k", [None, 4])
def test_top_p_keeps_the_fewest_that_reach_it(p, k):
    order = np.argsort(-SCORES)[:k]
    probabilities = softmax(SCORES[order])
    fewest = next(n for n in range(1, 7) if probabilities[:n].sum() >= p - 1e-12)
    wanted = np.zeros(6)
    wanted[order[:fewest]] = softmax(SCORES[order[:fewest]])
    tokens = draw(SCORES, top_p=p, top_k=k)[:, 0]
    assert counts_close(np.bincount(tokens, minlength=6), wanted)


def test_top_p_stops_exactly_where_it_is_reached():
    beyond = np.nextafter(0.5, 1)  # of eight equal ones, four reach a half
    for p, kept in ((1 / 8, 1), (0.5, 4), (beyond, 5), (7 / 8, 7), (0.9, 8), (1, 8)):
        assert set(draw(np.zeros(8), top_p=p)[:, 0]) == set(range(kept)), p


def test_of_equal_scores_the_first_are_kept():
    scores = np.zeros(60)
    scores[7] = 1e-3
    for options, kept in (({"top_k": 3}, {7, 0, 1}), ({"top_p": 3 / 60 - 1e-3}, {7, 0, 1})):
        assert set(draw(scores, **options)[:, 0]) == kept


def test_infinite_scores():
    inf = np.inf
    assert set(draw([0.0, inf, 5.0, inf])[:, 0]) == {1, 3}
    counts = np.bincount(draw([-inf, 0.0, -inf, 0.0])[:, 0], minlength=4)
    assert counts_close(counts, [0, 0.5, 0, 0.5])
    assert set(draw([-inf, 0.0, 3.0, -inf], top_k=4)[:, 0]) == {1, 2}
    assert set(draw([-1.7e308, 1.7e308, 1.7e308], temperature=1e-300)[:, 0]) == {1, 2}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_scores_of_any_type(dtype):
    scores = np.array([1, 0, 2, 0], dtype)
    counts = np.bincount(draw(scores)[:, 0], minlength=4)
    assert counts_close(counts, softmax(scores.astype(float)))


def test_the_seed_alone_decides(rng):
    embedding, readout = attnc.Embedding(50, 8, rng=0), attnc.Linear(16, 50, rng=0)
    decoder = attnc.AttentionDecoder(8, 16, memory_size=6, rng=0)
    memory = rng.standard_normal((7, 5, 6))
    found = []
    for threads in (1, 2, 5):
        for seed in (0, 0, np.random.default_rng(0), 1):
            with attnc.set_num_threads(threads):
                found.append(
                    attnc.sample_decode(
                        decoder, embedding, readout, memory, start=1, end=2, max_length=20,
                        temperature=2.0, rng=seed,
                    )
                )  # fmt: skip
    for index, each in enumerate(found):
        if index % 4 < 3:
            assert_same(each, found[0])
        else:
            assert_same(each, found[3])
    assert (found[0].tokens[:, 0] != found[3].tokens[:, 0]).any()
    generator = np.random.default_rng(0)
    once = draw(SCORES, n=50, rng=generator)
    again = draw(SCORES, n=50, rng=generator)
    assert (once != again).any()  # it moves on
    assert (draw(SCORES, n=50, rng=None) != draw(SCORES, n=50, rng=None)).any()


# ---- The models of the package -------------------------------------------------------------------

MODELS = {
    "recurrent": lambda: attnc.Seq2Seq(
        20, 20, 6, 8, cell="lstm", order="luong", input_feeding=True, coverage=True, rng=0,
        dtype="float64",
    ),
    "transformer": lambda: attnc.Transformer(
        20, 20, 16, 2, encoder_layers=1, decoder_layers=2, rng=0, dtype="float64"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", [{}, {"beam_width": 3, "n_best": 2}])
def test_a_sequence_in_company_of_shorter_ones_is_as_alone(name, options, rng):
    """Also where the others have ended long before, and their states are gone."""
    model = MODELS[name]()
    for parameter in model.parameters.values():
        parameter += 0.3 * rng.standard_normal(parameter.shape)
    source, lengths = rng.integers(3, 20, (9, 6)), rng.integers(1, 7, 9)
    limits = np.array([1, 9, 1, 2, 3, 1, 5, 12, 1])
    given = {"start": START, "end": [END, 2], "min_length": 1, **options}
    whole = model.translate(source, lengths, max_length=limits, **given)
    for b in range(9):
        one = source[b : b + 1, : lengths[b]]
        alone = model.translate(one, max_length=[limits[b]], **given)
        steps = alone.tokens.shape[-1]
        assert_same(whole.tokens[b][..., :steps], alone.tokens[0])
        assert (whole.tokens[b][..., steps:] == END).all()
        assert_agree(whole.weights[b][..., :steps, : lengths[b]], alone.weights[0])
        assert not whole.weights[b][..., steps:, :].any()


# ---- Options -------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", DECODERS)
def test_rows_end_at_different_steps(function):
    """Each sequence alone gives what it gives in company."""
    options = {"top_k": 1} if function == "sample_decode" else {}
    rows = np.arange(12)
    limits = np.arange(12) % 6
    whole = decode(function, memory=rows, max_length=limits, end=[2, END], **options)
    for row, limit in zip(rows, limits, strict=True):
        alone = decode(function, memory=[row], max_length=[limit], end=[2, END], **options)
        steps = alone.tokens.shape[-1]
        assert_same(alone.tokens[0], whole.tokens[row][..., :steps])
        assert (whole.tokens[row][..., steps:] == 2).all()
        assert_same(alone.weights[0], whole.weights[row][..., :steps, :])


@pytest.mark.parametrize("function", DECODERS)
def test_no_end_at_all(function):
    tokens = decode(function, end=(), max_length=9).tokens
    assert tokens.shape[-1] == 9 and (tokens == END).any()
    with pytest.raises(ValueError, match=f"{function}: max_length must be an int where end is em"):
        decode(function, end=[], max_length=[1, 2, 3])


@pytest.mark.parametrize("function", DECODERS)
def test_nothing_to_do(function):
    for memory, limits in (((), 5), ((1, 2), 0), ((1, 2), [0, 0]), ((), [])):
        found = decode(
            function, memory=np.array(memory, int), max_length=limits,
            return_log_probabilities=True, **({"n_best": 2} if function == "beam_search" else {}),
        )  # fmt: skip
        lead = (len(memory), 2) if function == "beam_search" else (len(memory),)
        assert found.tokens.shape == found.log_probabilities.shape == (*lead, 0)
        assert found.weights.shape == (*lead, 2, 3, 0, 5)
        assert found.tokens.dtype == int


@pytest.mark.parametrize("function", DECODERS)
def test_without_weights_and_without_a_memory(function):
    """A language model: the batch is that of the first tokens."""
    decoder = Table(weights=False)
    found = decode(function, decoder, memory=None)
    assert len(found.tokens) == 1 and found.weights is None
    found = decode(function, decoder, memory=None, start=[0, 2, 3])
    assert len(found.tokens) == 3 and found.weights is None
    assert decode(function, decoder, memory=None, max_length=0).weights is None
    assert len(decode(function, decoder, memory=None, max_length=[2, 3]).tokens) == 2
    greedy = decode("greedy_decode", decoder, memory=None, start=[2])
    assert greedy.tokens[0, 0] == decoder.scores_of(0, [2]).argmax()


@pytest.mark.parametrize("function", DECODERS)
def test_a_state_goes_on_and_stays_what_it_was(function):
    decoder = Table()
    memory = decoder.prepare([1, 2])
    _, _, state = decoder.step(np.array([START, START]), memory, None)
    cache = state[0]
    found = [decode(function, decoder, memory, state=state, start=[3, 2]) for _ in range(2)]
    assert_same(*found)
    assert decoder.step(np.array([3, 3]), memory, state)[2][0] is not cache  # it has grown since
    if function == "greedy_decode":
        assert found[0].tokens[0, 0] == decoder.scores_of(1, [START, 3]).argmax()


@pytest.mark.parametrize("function", DECODERS)
def test_a_hook_sees_the_tokens_so_far(function):
    seen = []

    def no_token_twice(logits, tokens):
        seen.append(tokens.copy())
        assert logits.shape == (len(tokens), V) and logits.flags.writeable
        for row, each in zip(logits, tokens, strict=True):
            row[np.setdiff1d(each, [END])] = -np.inf
        tokens[...] = -1  # a copy: nothing is changed by it
        return logits

    tokens = decode(function, logits_hook=no_token_twice, max_length=6).tokens
    for row in tokens.reshape(-1, tokens.shape[-1]).tolist():
        kept = until_end(row)
        assert len(set(kept)) == len(kept) and kept[-1] == END
    assert [each.shape[1] for each in seen] == list(range(len(seen)))
    assert all((each >= 0).all() for each in seen)
    if function != "beam_search":
        assert_same(seen[-1], tokens[:, : len(seen) - 1])
    else:
        assert [len(each) for each in seen] == [3] + [15] * (len(seen) - 1)


def test_a_hook_changes_what_a_beam_finds():
    """A search with a rule finds the best of those sequences that keep it."""
    decoder = Table()

    def not_the_first_again(logits, tokens):
        if tokens.shape[1]:
            logits[np.arange(len(logits)), tokens[:, 0]] = -np.inf
        return logits

    found = decode(
        "beam_search", decoder, memory=[5], logits_hook=not_the_first_again, beam_width=V**4,
        n_best=V**4, length_penalty=0.0, return_log_probabilities=True,
    )  # fmt: skip
    rank = {}
    for y in every_sequence(4):
        total = 0.0
        for t, token in enumerate(y):
            scores = decoder.scores_of(5, [START, *y[:t]])
            if t:
                scores[y[0]] = -np.inf
            total += scores[token] - np.log(np.exp(scores).sum())
        if total > -np.inf:
            rank[y] = total
    ranked = sorted(rank, key=rank.get, reverse=True)
    assert [until_end(row) for row in found.tokens[0, : len(ranked)].tolist()] == ranked
    assert_agree(found.scores[0, : len(ranked)], [rank[y] for y in ranked])
    assert_agree(found.log_probabilities.sum(-1)[0, : len(ranked)], [rank[y] for y in ranked])
    assert (found.scores[0, len(ranked) :] == -np.inf).all()


def test_a_search_copies_what_it_must():
    """One row a sequence at first; no reordering where each goes on from itself, or at the end."""
    decoder = Table()
    decode("greedy_decode", decoder)
    decode("sample_decode", decoder)
    decode("beam_search", decoder, beam_width=1)
    assert not decoder.reordered and set(decoder.rows) == {3}
    decoder = Table()
    found = decode("beam_search", decoder, beam_width=3, end=(), max_length=5)
    assert decoder.rows == [3, 9, 9, 9, 9] and found.tokens.shape == (3, 1, 5)
    assert len(decoder.reordered) <= 4


@pytest.mark.parametrize(
    "function, width", [(name, 1) for name in DECODERS[:2]] + [("beam_search", 3)]
)
def test_the_decoder_is_spared_what_has_ended(function, width):
    """Once half of the sequences that it works on have ended."""
    decoder = Table()
    limits = [2, 6, 1, 1, 4, 3, 1, 7]
    options = {"beam_width": width} if width > 1 else {}
    decode(
        function,
        decoder,
        memory=range(8),
        end=[0],
        max_length=limits,
        logits_hook=no_end,
        **options,
    )
    rows = [8] + [width * n for n in (8, 4, 4, 2, 2, 1)]
    assert decoder.rows == rows


def test_what_is_spared_changes_nothing_else():
    """Neither what is drawn for those that go on, nor which row an error names."""
    options = {"memory": range(8), "end": [0], "logits_hook": no_end}
    alike = decode("sample_decode", max_length=[7] * 8, **options)
    spared = decode("sample_decode", max_length=[1, 6, 1, 1, 2, 3, 1, 7], **options)
    assert_same(spared.tokens[7], alike.tokens[7])
    assert_same(spared.tokens[1, :6], alike.tokens[1, :6])

    def fails(logits, tokens):
        if tokens.shape[1] == 5:
            logits[7] = np.nan
            logits[2] = np.nan  # of a sequence that has ended
        return no_end(logits, tokens)

    options["logits_hook"] = fails
    for function in DECODERS[:2]:
        with pytest.raises(ValueError, match="logits_hook must return numbers, got NaN in row 7 o"):
            decode(function, max_length=[1, 6, 1, 1, 2, 3, 1, 7], **options)


def no_end(logits, tokens):
    logits[:, 0] = -np.inf
    return logits


@pytest.mark.parametrize("function", DECODERS)
@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"end": [1, 4]}, ValueError, "end must lie in 0..3, the tokens that decoder.step has sc"),
        ({"end": [1, -1]}, ValueError, r"end must be tokens of 0 or more, got \[1, -1\]"),
        ({"end": [[1]]}, ValueError, r"end must be an int or a list of them, got \[\[1\]\]"),
        ({"end": [1.0]}, TypeError, "end must be"),
        ({"start": [0, 0]}, ValueError, r"start must be an int or of shape \(3,\), one for each s"),
        ({"start": [-1, 0, 0]}, ValueError, "start must be tokens of 0 or more"),
        ({"max_length": [1, 2]}, ValueError, r"max_length must be an int or of shape \(3,\), on"),
        ({"max_length": [1, -2, 3]}, ValueError, "max_length must be 0 or more, got -2"),
        ({"max_length": [1.0, 2, 3]}, TypeError, "max_length must be"),
        ({"min_length": 5}, ValueError, "min_length must be at most max_length, got 5 and 4"),
        ({"min_length": 2, "max_length": [3, 1, 3]}, ValueError, "min_length must be at most max"),
        ({"min_length": -1}, ValueError, "min_length must be an integer"),
        ({"min_length": 1.0}, TypeError, "min_length must be an integer"),
        ({"return_log_probabilities": 1}, TypeError, "return_log_probabilities must be True or F"),
        ({"logits_hook": 3}, TypeError, "logits_hook must be callable, got int"),
        (
            {"logits_hook": lambda x, t: x[:, :2]},
            ValueError,
            r"logits_hook must return the shape of logits, \(3, 4\), got \(3, 2\)",
        ),
        ({"logits_hook": lambda x, t: None}, TypeError, "what logits_hook returns must be real"),
        ({"logits_hook": lambda x, t: x > 0}, TypeError, "what logits_hook returns must be real"),
        (
            {"logits_hook": lambda x, t: x * np.nan},
            ValueError,
            "logits_hook must return numbers, got NaN in row 0 of 3",
        ),
        (
            {"logits_hook": lambda x, t: np.where(np.arange(3)[:, None] == 1, -np.inf, x)},
            ValueError,
            "logits_hook must allow a token at every step, got scores .* -inf for sequence 1$",
        ),
        (
            {
                "logits_hook": lambda x, t: np.where(np.arange(V) == END, x, -np.inf),
                "min_length": 1,
            },
            ValueError,
            r"logits_hook must allow a token .* sequence 0 \(but for an end, which min_length for",
        ),
    ],
)
def test_errors(function, options, error, message):
    with pytest.raises(error, match=f"^{function}: {message}"):
        decode(function, **options)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"temperature": 0}, ValueError, "temperature must be above 0 .greedy_decode takes the mo"),
        ({"temperature": np.inf}, ValueError, "temperature must be above 0"),
        ({"temperature": "1"}, TypeError, "temperature must be above 0"),
        ({"top_k": 0}, ValueError, "top_k must be an integer of at least 1, got 0"),
        ({"top_k": 1.0}, TypeError, "top_k must be an integer"),
        ({"top_p": 0}, ValueError, "top_p must lie in 0 < top_p <= 1, got 0"),
        ({"top_p": 1.1}, ValueError, "top_p must lie in 0 < top_p <= 1, got 1.1"),
        ({"top_p": True}, TypeError, "top_p must lie in"),
        ({"rng": -1}, ValueError, "rng must not be negative"),
        ({"rng": 0.5}, TypeError, "rng must be None, an integer or a numpy.random.Generator"),
    ],
)
def test_errors_of_sampling(options, error, message):
    with pytest.raises(error, match=f"^sample_decode: {message}"):
        decode("sample_decode", **options)


@pytest.mark.parametrize("function", DECODERS)
def test_what_a_decoder_returns_is_checked(function):
    class Wrong(Table):
        def __init__(self, change):
            super().__init__()
            self.change = change

        def step(self, input, memory, state):
            return self.change(*super().step(input, memory, state))

    for change, error, message in (
        (lambda x, w, s: (x[:, 0], w, s), ValueError, r"decoder.step must return \(3, vocab"),
        (lambda x, w, s: (x[:2], w, s), ValueError, "decoder.step must return 3 outputs, got 2"),
        (lambda x, w, s: (x * np.nan, w, s), ValueError, "decoder.step must return numbers, got"),
        (lambda x, w, s: (x, w[:2], s), ValueError, "decoder.step must return weights .3, ..., Tk"),
        (lambda x, w, s: (x, "w", s), TypeError, "the weights that decoder.step returns must be"),
        (lambda x, w, s: ("x" * 3, w, s), TypeError, "what decoder.step returns must be real"),
    ):
        with pytest.raises(error, match=f"^{function}: {message}"):
            decode(function, Wrong(change))


def test_embedding_and_readout_go_together():
    for options in ({"embedding": lambda x: x}, {"readout": lambda x: x}):
        with pytest.raises(TypeError, match="greedy_decode: .* must be a layer or callable, got N"):
            decode("greedy_decode", **options)

"""Monotonic attention as layers: energies decide where to stop, from left to right.

`MonotonicAttention` attends to the key where a query stops, `ChunkwiseAttention` to a chunk of keys
that ends there. Training takes the expectation over all ways to stop, which has gradients; decoding
may stop for good, and then looks at no key behind.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .. import functional
from ..arrays import flag, generator, like, number, quiet
from ..functional.decoder import check_choice
from ..functional.monotonic import allowed_keys
from ..gradients import Gradients, require_incoming, shows_shapes, vjp
from ..typing import Array, Bools, DType, Integers, Real, Seed
from .attention import hidden_size_of
from .base import Layer, glorot, positive

SCORES = "additive", "multiplicative", "dot", "cosine"
# Keys whose energies are taken at once where the next one to stop at is looked for; the next time
# twice as many. Single ones would cost a call each.
SCAN = 16


@shows_shapes
class MonotonicResult(NamedTuple):
    """What `MonotonicAttention` returns."""

    context: Array
    alignment: Array
    missing: Array


@shows_shapes
class ChunkwiseResult(NamedTuple):
    """What `ChunkwiseAttention` returns."""

    context: Array
    alignment: Array
    missing: Array
    weights: Array


class _Score(Layer):
    """A score function with its parameters; of a layer, which checks what it is made of.

    With `offset` it is an energy: ``score + r``, and an additive score is normalised by its vector,
    ``g v / |v| . tanh(...)``.
    """

    def __init__(self, score, query_size, key_size, hidden_size, offset, rng, dtype):
        super().__init__(dtype)
        self.score, self.is_energy = score, offset is not None
        if score == "additive":
            self.add_parameter("query_weight", glorot(rng, query_size, hidden_size))
            self.add_parameter("key_weight", glorot(rng, key_size, hidden_size))
            self.add_parameter("score_vector", glorot(rng, hidden_size, 1)[:, 0])
            self.add_parameter("score_bias", np.zeros(hidden_size))
            if self.is_energy:
                self.add_parameter("gain", hidden_size**-0.5)
        elif score == "multiplicative":
            self.add_parameter("weight", glorot(rng, query_size, key_size))
        elif score == "cosine":
            self.add_parameter("scale", 10.0)
        if self.is_energy:
            self.add_parameter("offset", offset)

    def _call(self):
        """The function, what follows query and key, and options; without the offset."""
        p = self._parameters
        if self.score == "additive":
            names = "query_weight", "key_weight", "score_bias"
            vector = p["gain"] * self._unit()[0] if self.is_energy else p["score_vector"]
            return functional.additive_scores, (vector,), {name: p[name] for name in names}
        if self.score == "multiplicative":
            return functional.multiplicative_scores, (p["weight"],), {}
        if self.score == "cosine":
            return functional.cosine_scores, (), {"scale": p["scale"]}
        return functional.dot_product_scores, (), {"scale": 1.0}

    def _unit(self):
        """v / |v| and |v|; 0 of a vector of zeros."""
        v = self._parameters["score_vector"]
        norm = np.sqrt((v * v).sum())
        return (v / norm if norm else np.zeros_like(v)), norm

    def scores(self, query, key, key_mask):
        function, parameters, options = self._call()
        scores = function(query, key, *parameters, key_mask=key_mask, **options)
        return scores + self._parameters["offset"] if self.is_energy else scores

    def _vjp(self, query, key, key_mask):
        function, parameters, options = self._call()
        scores, back = vjp(function, query, key, *parameters, key_mask=key_mask, **options)
        if self.is_energy:
            scores = scores + self._parameters["offset"]
        unit, norm = self._unit() if "gain" in self._parameters else (None, None)

        def pullback(dscores):
            """`dscores` is 0 at keys that are masked."""
            grads = back(dscores)
            for name in self._parameters:
                if name == "offset":
                    d = dscores.sum()
                elif name == "gain":
                    d = (grads.score_vector * unit).sum()
                elif name == "score_vector" and norm is not None:  # of g v / |v|: what is across v
                    d = grads.score_vector - unit * (unit * grads.score_vector).sum()
                    d = d * (self._parameters["gain"] / norm) if norm else np.zeros_like(d)
                else:
                    d = grads[name]
                self.add_gradient(name, d)
            return grads.query, grads.key

        return scores, pullback


class _Monotonic(Layer):
    """What both layers are made of and share: energies, the expectation, decisions."""

    width = 1

    def __init__(self, query_size, key_size, score, hidden_size, offset, noise, rng, dtype):
        super().__init__(dtype)
        where = type(self).__name__
        query_size, key_size = positive(self, query_size=query_size, key_size=key_size)
        check_choice(where, "score", score, SCORES)
        self.query_size, self.key_size, self.score = query_size, key_size, score
        self.hidden_size = hidden_size_of(self, hidden_size)
        self.offset = number(where, "offset", offset, "be a finite number", math.isfinite)
        self.noise = number(
            where, "noise", noise, "be a finite number, 0 or more", lambda x: 0 <= x < math.inf
        )
        self.energy = self._new_score(self.offset, rng)

    def _new_score(self, offset, rng):
        sizes = self.query_size, self.key_size, self.hidden_size or self.query_size
        return _Score(self.score, *sizes, offset, rng, self.dtype)

    def _arguments(self, query, key, value, previous, key_mask, key_lengths):
        """The arrays in the layer's dtype, and which keys may be attended to (None: all)."""
        query = self._real("query", query, ..., "Tq", self.query_size)
        key = self._real("key", key, ..., "Tk", self.key_size)
        if value is None:
            value = key
        else:
            value = self._real("value", value, *key.shape[:-1], "Dv")
        try:
            if query.ndim != key.ndim:
                raise ValueError
            lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        except ValueError:
            raise self._error(
                "key must have the leading axes (batch) of query, equal or 1, got query "
                f"{query.shape} and key {key.shape}"
            ) from None
        keys = (*lead, key.shape[-2])
        if previous is not None:
            previous = self._real("previous", previous, *keys)
        allowed = allowed_keys(type(self).__name__, keys, key_mask, key_lengths)
        return query, key, value, previous, allowed

    @quiet
    def _run(self, query, key, value, previous, key_mask, key_lengths, hard, train, rng):
        where = type(self).__name__
        hard, train = flag(where, "hard", hard), flag(where, "train", train)
        arrays = self._arguments(query, key, value, previous, key_mask, key_lengths)
        if not hard:
            return self._expected(*arrays, train=train, rng=rng)[0]
        if train:
            raise self._error(
                "hard must be False with train=True, got True: decisions have no gradient"
            )
        return self._decided(*arrays)

    # ---- training: the expectation ----

    def _expected(self, query, key, value, previous, allowed, *, train, rng):
        """The output, and the pullback to query, key, value and previous."""
        energy, energy_back = self.energy._vjp(query, key, allowed)
        if train and self.noise:
            drawn = generator(type(self).__name__, rng).standard_normal(energy.shape, self.dtype)
            energy = energy + energy.dtype.type(self.noise) * drawn
        decay = np.exp(-np.abs(energy))  # never overflows, and is exact where p is 0 or 1 nearly
        p = np.where(energy >= 0, energy.dtype.type(1), decay) / (1 + decay)
        (alignment, missing), alignment_back = vjp(
            functional.monotonic_alignment, p, previous, key_mask=allowed
        )
        scores, scores_back = self._chunk_scores(query, key, allowed, alignment)
        (context, weights), context_back = vjp(
            functional.chunkwise_attention,
            alignment,
            scores,
            value,
            self.width,
            key_mask=allowed,
            return_weights=True,
        )

        def pullback(dcontext, dalignment, dmissing, dweights):
            da = dalignment
            dquery, dkey = np.zeros_like(query), np.zeros_like(key)
            dvalue, dprevious = np.zeros_like(value), None
            if dcontext is not None or dweights is not None:
                through, dscores, dvalue = context_back(dcontext, dweights=dweights)
                da = through if da is None else through + da
                if scores_back is not None:
                    dquery, dkey = scores_back(dscores)
            grads = alignment_back(da, dmissing)
            if previous is not None:
                dprevious = grads.previous
            # dp / denergy = p (1 - p), without the difference
            denergy = grads.probability * (decay / ((1 + decay) * (1 + decay)))
            if allowed is not None:
                denergy = np.where(allowed[..., None, :], denergy, p.dtype.type(0))
            of_query, of_key = energy_back(denergy)
            return dquery + of_query, dkey + of_key, dvalue, dprevious

        return self._result(context, alignment, missing, weights), pullback

    def _chunk_scores(self, query, key, allowed, alignment):
        """Scores of the softmax within a chunk; of one key it is 1 whatever they are."""
        return alignment, None

    def _result(self, context, alignment, missing, weights):
        return MonotonicResult(context, alignment, missing)

    @quiet
    def _vjp(
        self, query, key, value=None, *, previous=None, key_mask=None, key_lengths=None,
        hard=False, train=False, rng=None,
    ):  # fmt: skip
        where = type(self).__name__
        if flag(where, "hard", hard):
            raise self._error(
                "hard must be False where gradients are wanted, got True: decisions have none"
            )
        given = query, key, value, previous
        arrays = self._arguments(*given, key_mask, key_lengths)
        output, back = self._expected(*arrays, train=flag(where, "train", train), rng=rng)
        # The caller's own: backward needs the alignment as it is.
        output = output._replace(alignment=output.alignment.copy())

        @quiet
        def pullback(dcontext=None, dalignment=None, dmissing=None, dweights=None):
            incoming = {"dcontext": dcontext, "dalignment": dalignment, "dmissing": dmissing}
            if len(output) > len(incoming):
                incoming["dweights"] = dweights
            elif dweights is not None:
                raise self._error(
                    "dweights must be None, got a gradient: the weights are the alignment; pass "
                    "dalignment"
                )
            require_incoming(where, **incoming)
            d = [
                self._incoming(name, x, output[k].shape)
                for k, (name, x) in enumerate(incoming.items())
            ]
            dquery, dkey, dvalue, dprevious = back(*d, *[None] * (4 - len(d)))
            required = {"query": like(dquery, query)}
            if value is None:
                required["key"] = like(dkey + dvalue, key)
            else:
                required["key"], required["value"] = like(dkey, key), like(dvalue, value)
            optional = {} if previous is None else {"previous": like(dprevious, previous)}
            return Gradients(required, optional)

        return output, pullback

    # ---- decoding: decisions ----

    def _decided(self, query, key, value, previous, allowed):
        """The output where every query stops for good, at the first key with p of 1/2 or more."""
        lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        (Tq, _), Tk = query.shape[-2:], key.shape[-2]
        count = math.prod(lead)
        query, key, value = (
            np.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(count, *x.shape[-2:])
            for x in (query, key, value)
        )
        if allowed is not None:
            allowed = allowed.reshape(count, Tk)
        at = self._starts(previous, count, Tk)
        context = np.zeros((count, Tq, value.shape[-1]), self.dtype)
        alignment, weights = (np.zeros((count, Tq, Tk), self.dtype) for _ in range(2))
        missing = np.zeros((count, Tq), self.dtype)
        for i in range(Tq):
            at = self._next(query[:, i : i + 1], key, allowed, at)
            rows = np.flatnonzero(at < Tk)
            missing[:, i] = at == Tk
            alignment[rows, i, at[rows]] = 1
            self._attend(
                query[rows, i : i + 1], key, value, allowed, rows, at[rows], context, weights, i
            )
        shapes = (context, alignment, missing, weights)
        return self._result(*(x.reshape(*lead, *x.shape[1:]) for x in shapes))

    def _starts(self, previous, count, Tk):
        """(count,): where the queries before stopped; Tk: nowhere."""
        if previous is None:
            return np.zeros(count, np.intp)
        rows = previous.reshape(count, Tk)
        ones = rows == 1
        if not ((rows == 0) | ones).all() or (ones.sum(-1) > 1).any():
            raise self._error(
                "previous must be a row of decisions with hard=True, a single 1 or zeros alone, "
                "got other numbers"
            )
        return np.where(ones.any(-1), ones.argmax(-1) if Tk else 0, Tk)

    def _next(self, query, key, allowed, at):
        """(count,): the first key from `at` on where a query stops; Tk: nowhere.

        Energies are taken of stretches of keys, from where the last query stopped, each twice as
        long as the one before; so of twice as many keys as it passes, and SCAN more.
        """
        Tk = key.shape[1]
        stop, rows, size = np.full_like(at, Tk), np.flatnonzero(at < Tk), SCAN
        begin = at[rows]
        while len(rows):
            index = begin[:, None] + np.arange(size)
            open_ = index < Tk
            index = np.minimum(index, Tk - 1)
            if allowed is not None:
                open_ &= allowed[rows[:, None], index]
            energy = self.energy.scores(query[rows], key[rows[:, None], index], open_)
            stops = (energy[:, 0] >= 0) & open_  # p >= 1/2
            found = stops.any(-1)
            stop[rows[found]] = begin[found] + stops[found].argmax(-1)
            begin = begin + size
            on = ~found & (begin < Tk)
            rows, begin, size = rows[on], begin[on], 2 * size
        return stop

    def _attend(self, query, key, value, allowed, rows, at, context, weights, i):
        """Query i of these rows, which stops at `at`: its context and weights, in their places."""
        context[rows, i] = value[rows, at]


class MonotonicAttention(_Monotonic):
    """Attention to one key a query, from left to right: hard in decoding, trained in expectation.

    A query goes over the keys from where the one before it stopped, and stops at key j with
    probability ``p_ij = sigmoid(e_ij)``. The energy is additive,
    ``e_ij = g v / |v| . tanh(q_i W_q + k_j W_k + b) + r``, or another score plus r. In training the
    context is the expectation over all ways to stop, `attnc.monotonic_alignment`, and noise on the
    energies makes it learn to decide; with ``hard=True`` the query stops at the first key with
    ``p_ij >= 1/2``, and looks at no key behind. So energies take linear time in decoding.

    Raffel et al. (2017), "Online and linear-time attention by enforcing monotonic alignments",
    eq. 8 to 10 and 16.

    Parameters
    ----------
    query_size, key_size : int
        Sizes of a query and of a key.
    score : {'additive', 'multiplicative', 'dot', 'cosine'}
        Dot, which is Luong's plain one, and cosine, with a learned scale, need both sizes equal.
    hidden_size : int, optional
        Hidden units of the additive score; query_size unless given.
    offset : float
        Initial r. Below 0 a query first stops at few keys, so that others are reached in the
        beginning too; the longer the memory the lower: -1 as in the paper, -4 for hundreds of keys.
    noise : float
        Standard deviation of what is added to the energies in training.
    rng : None, int or numpy.random.Generator
        Initial weights, uniform after Glorot and Bengio (2010); g starts at 1 / sqrt(hidden_size),
        b at zero.
    dtype : float32 or float64
        Of the parameters; the inputs are cast to it.

    Attributes
    ----------
    parameters : dict
        ``energy.offset``, r, and those of the score: ``energy.query_weight``,
        ``energy.key_weight``, ``energy.score_vector``, ``energy.score_bias``, ``energy.gain``;
        ``energy.weight``; none; or ``energy.scale``.

    Raises
    ------
    ValueError
        If a size is not a positive integer, a name is unknown, or options contradict each other.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attention = attnc.MonotonicAttention(query_size=4, key_size=6, hidden_size=8, rng=0)
    >>> query, memory = np.ones((2, 3, 4)), np.ones((2, 5, 6))
    >>> output, pullback = attnc.vjp(attention, query, memory, key_lengths=[5, 3], train=True)
    >>> output.context.shape, output.alignment.shape, output.missing.shape
    ((2, 3, 6), (2, 3, 5), (2, 3))
    >>> dquery, dmemory = pullback(np.ones_like(output.context))  # and adds to the gradients
    >>> first = attention(query[:, :1], memory, hard=True)
    >>> second = attention(query[:, 1:2], memory, previous=first.alignment[:, -1], hard=True)
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        score: str = "additive",
        hidden_size: int | None = None,
        offset: float = -1.0,
        noise: float = 1.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        rng = generator(type(self).__name__, rng)
        super().__init__(query_size, key_size, score, hidden_size, offset, noise, rng, dtype)

    def __call__(
        self,
        query: Real,
        key: Real,
        value: Real | None = None,
        *,
        previous: Real | None = None,
        key_mask: Bools | None = None,
        key_lengths: Integers | None = None,
        hard: bool = False,
        train: bool = False,
        rng: Seed = None,
    ) -> MonotonicResult:
        """Attend: compute, and remember nothing.

        Parameters
        ----------
        query : array_like, shape (..., Tq, query_size)
        key : array_like, shape (..., Tk, key_size)
        value : array_like, shape (..., Tk, Dv), optional
            The keys themselves unless given.
        previous : array_like, shape (..., Tk), optional
            Where the query before the first one stopped: the last row of the alignment of the call
            before, so that queries may come one at a time. All at the first key unless given.
        key_mask : array_like of bool, shape (..., Tk), optional
            True: a query may stop at this key.
        key_lengths : int or array_like of int, shape (...), optional
        hard : bool
            Decide: alignments are of 0 and 1. A query that finds no key to stop at has context 0,
            and so have all after it. Energies are then taken of the keys alone that a query passes,
            and of some behind, so that all queries together take O(Tq + Tk). There are no
            gradients.
        train : bool
            Whether to add the noise.
        rng : None, int or numpy.random.Generator
            For the noise.

        Returns
        -------
        context : ndarray, shape (..., Tq, Dv)
        alignment : ndarray, shape (..., Tq, Tk)
            Where queries stop.
        missing : ndarray, shape (..., Tq)
            The probability that a query stops nowhere: 1 less its row of the alignment.

        Raises
        ------
        TypeError, ValueError
            As `attnc.monotonic_alignment` does, naming the argument and the fix.
        """
        return self._run(query, key, value, previous, key_mask, key_lengths, hard, train, rng)


class ChunkwiseAttention(_Monotonic):
    """Attention to a chunk of keys that ends where a monotonic query stops (MoChA).

    Where queries stop is as in `MonotonicAttention`. A query that stops at key k attends by softmax
    to keys ``k - width + 1 .. k``, with scores ``u_ij`` of their own: of the same kind, with
    parameters of their own, and without the normalisation and offset of an energy. In training the
    weights are the expectation ``b_il = sum_{k=l}^{l+w-1} a_ik exp(u_il) / sum_{m=k-w+1}^{k}
    exp(u_im)``, `attnc.chunkwise_attention`.

    Chiu and Raffel (2018), "Monotonic chunkwise attention", eq. 22 and 23.

    Parameters
    ----------
    query_size, key_size : int
        Sizes of a query and of a key.
    width : int
        Keys of a chunk. 1 would be `MonotonicAttention`; a width beyond all keys is the infinite
        lookback of Arivazhagan et al. (2019).
    score : {'additive', 'multiplicative', 'dot', 'cosine'}
        Of energies and of the scores in a chunk. Dot, which is Luong's plain one, and cosine, with
        a learned scale, need both sizes equal.
    hidden_size : int, optional
        Hidden units of the additive scores; query_size unless given.
    offset : float
        Initial r of the energies; the longer the memory the lower: -1 as in the paper, -4 for
        hundreds of keys.
    noise : float
        Standard deviation of what is added to the energies in training.
    rng : None, int or numpy.random.Generator
        Initial weights, uniform after Glorot and Bengio (2010).
    dtype : float32 or float64
        Of the parameters; the inputs are cast to it.

    Attributes
    ----------
    parameters : dict
        ``energy.<name>`` as in `MonotonicAttention`, and ``chunk.<name>``, the same without gain
        and offset.

    Raises
    ------
    ValueError
        If a size is not a positive integer, a name is unknown, or options contradict each other.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> attention = attnc.ChunkwiseAttention(query_size=4, key_size=6, width=2, rng=0)
    >>> query, memory = np.ones((2, 3, 4)), np.ones((2, 5, 6))
    >>> output, pullback = attnc.vjp(attention, query, memory, key_lengths=[5, 3], train=True)
    >>> output.context.shape, output.weights.shape
    ((2, 3, 6), (2, 3, 5))
    >>> dquery, dmemory = pullback(np.ones_like(output.context))  # and adds to the gradients
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        width: int,
        *,
        score: str = "additive",
        hidden_size: int | None = None,
        offset: float = -1.0,
        noise: float = 1.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        rng = generator(type(self).__name__, rng)
        super().__init__(query_size, key_size, score, hidden_size, offset, noise, rng, dtype)
        (self.width,) = positive(self, width=width)
        self.chunk = self._new_score(None, rng)

    def __call__(
        self,
        query: Real,
        key: Real,
        value: Real | None = None,
        *,
        previous: Real | None = None,
        key_mask: Bools | None = None,
        key_lengths: Integers | None = None,
        hard: bool = False,
        train: bool = False,
        rng: Seed = None,
    ) -> ChunkwiseResult:
        """Attend: compute, and remember nothing.

        Parameters
        ----------
        query : array_like, shape (..., Tq, query_size)
        key : array_like, shape (..., Tk, key_size)
        value : array_like, shape (..., Tk, Dv), optional
            The keys themselves unless given.
        previous : array_like, shape (..., Tk), optional
            Where the query before the first one stopped: the last row of the alignment of the call
            before. All at the first key unless given.
        key_mask : array_like of bool, shape (..., Tk), optional
            True: this key may be attended to. A chunk counts others as not there.
        key_lengths : int or array_like of int, shape (...), optional
        hard : bool
            Decide where to stop, as `MonotonicAttention` does; scores are then taken of the one
            chunk alone. There are no gradients.
        train : bool
            Whether to add the noise.
        rng : None, int or numpy.random.Generator
            For the noise.

        Returns
        -------
        context : ndarray, shape (..., Tq, Dv)
        alignment : ndarray, shape (..., Tq, Tk)
            Where queries stop.
        missing : ndarray, shape (..., Tq)
            The probability that a query stops nowhere.
        weights : ndarray, shape (..., Tq, Tk)
            What each key has in the context.

        Raises
        ------
        TypeError, ValueError
            As `attnc.chunkwise_attention` does, naming the argument and the fix.
        """
        return self._run(query, key, value, previous, key_mask, key_lengths, hard, train, rng)

    def _chunk_scores(self, query, key, allowed, alignment):
        return self.chunk._vjp(query, key, allowed)

    def _result(self, context, alignment, missing, weights):
        return ChunkwiseResult(context, alignment, missing, weights)

    def _attend(self, query, key, value, allowed, rows, at, context, weights, i):
        index = at[:, None] + np.arange(1 - min(self.width, key.shape[1]), 1)
        open_ = index >= 0
        index = np.maximum(index, 0)
        if allowed is not None:
            open_ &= allowed[rows[:, None], index]
        scores = self.chunk.scores(query, key[rows[:, None], index], open_)
        output = functional.attend(
            scores, value[rows[:, None], index], key_mask=open_, return_weights=True
        )
        context[rows, i] = output.context[:, 0]
        # Keys before the first stand on it, with weights of 0.
        np.add.at(weights, (rows[:, None], i, index), output.weights[:, 0])

"""A bias of attention that is learned for each distance between query and key."""

from __future__ import annotations

import functools

import numpy as np

from ..arrays import flag, generator, integer, quiet
from ..gradients import Gradients, require_incoming
from ..typing import Array, DType, Seed
from .base import Layer, positive


class RelativePositionBias(Layer):
    """A learned bias for each head and each distance: ``bias_hij = W[bucket(j - p), h]``.

    With query i at ``p = i + offset``. Near distances have a bucket each, far ones share buckets
    whose bounds grow like powers, and from `max_distance` on all share the last: Raffel et al.
    (2020), "Exploring the limits of transfer learning with a unified text-to-text transformer"
    (T5), section 2.1. There it takes the place of other positions, one table serves all layers of
    a stack, and scores are not divided by the root of the size of a head.

    Parameters
    ----------
    num_heads : int
        H.
    buckets : int
        Number of rows of the table; even if bidirectional.
    max_distance : int
        The distance from which on all share a bucket.
    bidirectional : bool
        Whether keys ahead of the query have buckets of their own, half of them; else, as in causal
        attention, keys ahead share the bucket of distance 0.
    rng : None, int or numpy.random.Generator
        Initial W, normal with standard deviation 0.02.
    dtype : float32 or float64
        Of the table and the bias.

    Attributes
    ----------
    parameters : dict
        ``weight (buckets, num_heads)``.

    Raises
    ------
    ValueError
        If a size is not a positive integer, there are too few buckets or too many for max_distance.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> relative = attnc.RelativePositionBias(4, rng=0)
    >>> x = np.ones((2, 4, 5, 8), np.float32)
    >>> bias, back_to_table = attnc.vjp(relative, 5, 5)
    >>> context, pullback = attnc.vjp(attnc.dot_product_attention, x, x, x, bias=bias)
    >>> gradients = back_to_table(pullback(context).bias)  # adds into relative.gradients
    >>> bias.shape
    (1, 4, 5, 5)
    """

    def __init__(
        self,
        num_heads: int,
        *,
        buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        self.num_heads, self.buckets, self.max_distance = positive(
            self, num_heads=num_heads, buckets=buckets, max_distance=max_distance
        )
        self.bidirectional = flag(type(self).__name__, "bidirectional", bidirectional)
        if self.bidirectional and (self.buckets % 2 or self.buckets < 4):
            raise self._error(f"buckets must be even and at least 4, got {buckets}")
        if self.buckets < 2:
            raise self._error(f"buckets must be at least 2, got {buckets}")
        near = self._of_one_side // 2
        if self.max_distance <= near:
            raise self._error(
                f"max_distance must be above {near}, the number of buckets for one distance each, "
                f"got {max_distance}"
            )
        rng = generator(type(self).__name__, rng)
        self.add_parameter("weight", rng.normal(0, 0.02, (self.buckets, self.num_heads)))

    @property
    def _of_one_side(self) -> int:
        """How many buckets there are for keys behind the query."""
        return self.buckets // 2 if self.bidirectional else self.buckets

    def __call__(
        self, Tq: int, Tk: int, *, offset: int | None = None, train: bool = False
    ) -> Array:
        """The bias of all pairs, for the option ``bias`` of attention.

        Parameters
        ----------
        Tq, Tk : int
            Numbers of queries and keys.
        offset : int, optional
            The position of the first query among the keys, as `causal_offset` of the functions;
            ``Tk - Tq`` unless given: the last query is at the last key.
        train : bool
            Taken by every layer; makes no difference here.

        Returns
        -------
        ndarray, shape (1, num_heads, Tq, Tk)

        Raises
        ------
        TypeError
            If a size or offset is not an integer.
        ValueError
            If a size is negative.
        """
        return self._vjp(Tq, Tk, offset=offset, train=train)[0]

    @quiet
    def _vjp(self, Tq, Tk, *, offset=None, train=False):
        where = type(self).__name__
        flag(where, "train", train)
        Tq, Tk = integer(where, "Tq", Tq, 0), integer(where, "Tk", Tk, 0)
        offset = Tk - Tq if offset is None else integer(where, "offset", offset, -MOST, MOST)
        # All pairs of one j - i have one bias: column j - i + Tq - 1 of `line` (H, Tq + Tk - 1).
        ahead = np.arange(-Tq + 1, Tk) - offset
        rows = self._bucket(ahead)
        line = self._parameters["weight"].T[:, rows]
        bias = np.empty_like(line, order="C", shape=(1, self.num_heads, Tq, Tk))
        for i in range(Tq):
            bias[0, :, i] = line[:, Tq - 1 - i : Tq - 1 - i + Tk]

        @quiet
        def pullback(dbias=None):
            require_incoming(where, dbias=dbias)
            dbias = self._real("dbias", dbias, *bias.shape)
            # float64: what is summed may cancel
            dline = np.zeros_like(dbias, np.float64, order="C", shape=line.shape)
            for i in range(Tq):
                dline[:, Tq - 1 - i : Tq - 1 - i + Tk] += dbias[0, :, i]
            dweight = np.zeros_like(dline, shape=(self.buckets, self.num_heads))
            np.add.at(dweight, rows, dline.T)
            self.add_gradient("weight", dweight)
            return Gradients({})  # numbers of queries and keys have no gradient

        return bias, pullback

    def _bucket(self, ahead):
        """The buckets of keys that are so far ahead of their query."""
        count = self._of_one_side
        distance = np.abs(ahead) if self.bidirectional else np.maximum(-ahead, 0)
        bucket = np.searchsorted(_first_distances(count, self.max_distance), distance, "right") - 1
        if self.bidirectional:
            bucket[ahead > 0] += count
        return bucket


MOST = 2**60  # of an offset, so that sums with positions cannot overflow


@functools.lru_cache(maxsize=32)
def _first_distances(count, max_distance):
    """The smallest distance of each of the buckets of one side.

    With e = count // 2 buckets of one distance each, a distance n >= e has the bucket ``e +
    floor((count - e) log(n / e) / log(max_distance / e))``, or the last. So bucket e + m begins
    where ``n^(count - e) >= e^(count - e - m) max_distance^m``, in integers: a logarithm may be
    rounded to the wrong side.
    """
    e = count // 2
    far = count - e
    first = list(range(e))
    for m in range(far):
        n = max(int(e * (max_distance / e) ** (m / far)) - 1, 0)  # at most 1 below, or right
        while n**far < e ** (far - m) * max_distance**m:
            n += 1
        first.append(n)
    return np.array(first)

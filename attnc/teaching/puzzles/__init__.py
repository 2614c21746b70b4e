"""Fifteen puzzles about attention: a specification in loops, to be solved in a few lines of NumPy.

Each is an object that prints its task with a drawn example, and checks a solution:

    from attnc.teaching import puzzles

    puzzles.causal                      # the task; in a notebook with colours
    puzzles.causal.check(solution)      # or @puzzles.causal.check above it

In order: `mask`, `softmax`, `causal`, `one_query`, `additive_weights`, `grouped_heads`,
`split_heads`, `padding`, `online_softmax`, `merge`, `coverage`, `monotonic`, `relative_shift`,
`softmax_pullback`, `dot_product_pullback`. A solution of each is in `attnc.teaching.solutions`.
The manner is that of Sasha Rush's Tensor-Puzzles.
"""

from attnc.teaching.puzzles._pullbacks import dot_product_pullback as dot_product_pullback
from attnc.teaching.puzzles._pullbacks import softmax_pullback as softmax_pullback
from attnc.teaching.puzzles._puzzle import Puzzle
from attnc.teaching.puzzles._shapes import grouped_heads as grouped_heads
from attnc.teaching.puzzles._shapes import padding as padding
from attnc.teaching.puzzles._shapes import relative_shift as relative_shift
from attnc.teaching.puzzles._shapes import split_heads as split_heads
from attnc.teaching.puzzles._steps import coverage as coverage
from attnc.teaching.puzzles._steps import merge as merge
from attnc.teaching.puzzles._steps import monotonic as monotonic
from attnc.teaching.puzzles._steps import online_softmax as online_softmax
from attnc.teaching.puzzles._weights import additive_weights as additive_weights
from attnc.teaching.puzzles._weights import causal as causal
from attnc.teaching.puzzles._weights import mask as mask
from attnc.teaching.puzzles._weights import one_query as one_query
from attnc.teaching.puzzles._weights import softmax as softmax

_ALL = [
    mask,
    softmax,
    causal,
    one_query,
    additive_weights,
    grouped_heads,
    split_heads,
    padding,
    online_softmax,
    merge,
    coverage,
    monotonic,
    relative_shift,
    softmax_pullback,
    dot_product_pullback,
]


def all() -> list[Puzzle]:
    """All puzzles, in the order in which they are meant to be solved.

    Returns
    -------
    list of Puzzle

    Examples
    --------
    >>> from attnc.teaching import puzzles
    >>> len(puzzles.all())
    15
    >>> @puzzles.coverage.check
    ... def coverage(weights):
    ...     return weights.cumsum(axis=0)
    Traceback (most recent call last):
        ...
    AssertionError: coverage: for weights = [[1.]] coverage is wrong: got [[1.]], wanted [[0.]]
    >>> puzzles.coverage.check(lambda weights: weights.cumsum(axis=0) - weights)
    solved: coverage
    """
    return list(_ALL)

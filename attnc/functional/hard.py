"""Hard attention: one key a query, drawn from the weights that soft attention would give.

The context is the value of one key, so its gradient says nothing about the scores. What trains them
is the log-probability of the choice, by REINFORCE: `attnc.estimators` has baselines for it, and
estimators of other kinds.
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

import numpy as np

from attnc import _core
from attnc.functional.attention import MECHANISMS, _dropout_key, attend
from attnc.functional.options import ScoreOptions, outside, takes_options
from attnc.functional.plain import twice_by_formula
from attnc.gradients import shows_shapes
from attnc.registry import Output, record_of, register
from attnc.typing import Array, Integers, Real, Seed

__all__ = ["hard_attention"]


@shows_shapes
class HardResult(NamedTuple):
    """What `hard_attention` returns."""

    context: Array
    index: Array  # type: ignore[assignment]  # in the place of tuple's own
    log_probability: Array
    entropy: Array


def hard_attention(
    scores: Real,
    value: Real,
    *,
    rng: Seed = None,
    sample: bool = True,
    index: Integers | None = None,
    **options: Unpack[ScoreOptions],
) -> HardResult:
    """Attention to one key a query: ``value[k]`` with ``k`` drawn from ``softmax(scores)``.

    Parameters
    ----------
    scores : array_like
        ``(..., Tq, Tk)``, from any match function. A key whose score is ``-inf`` is never chosen.
    value : array_like
        ``(..., Tk, Dv)``. Leading axes are those of `scores` or 1.
    rng : None, int or numpy.random.Generator, optional
        Where the choice comes from. The same int gives the same choice for any number of threads,
        and for every dtype but where rounding moves a boundary between two keys.
    sample : bool, default True
        Draw a key; False: take the one with the largest weight, the first of equal ones.
    index : array of int, optional
        ``(..., Tq)`` with every axis, and axes of size 1 broadcast: the choice itself, to replay
        one or to enumerate all. ``-1`` where without `index` nothing could be chosen.
    mask, key_mask, key_lengths, query_lengths
        As in `attend`; masks are boolean and True where attending is allowed. What they exclude is
        never chosen.
    bias, causal, causal_offset, window, softcap, slope
        As in `attend`.
    center, sigma, renormalize
        As in `attend`. A key is drawn in proportion to softmax times Gaussian: it makes no
        difference here whether that is renormalised.
    query_offsets, key_offsets
        Refused by name, as in `attend`.

    Returns
    -------
    context : ndarray
        ``(..., Tq, Dv)``: the value of the chosen key. No other value is read.
    index : ndarray of int64
        ``(..., Tq)``: the chosen key, or -1.
    log_probability : ndarray
        ``(..., Tq)``: ``s_k - lse``, finite also where the weight is too small to be a number.
    entropy : ndarray
        ``(..., Tq)``: ``-sum_j w_j log w_j`` with ``0 log 0 = 0``, of the weights from which the
        key was drawn. It and the log-probability are float32 for float16 and bfloat16 arrays.

    Raises
    ------
    TypeError
        If an argument is not what it should be; if one of `dropout`, `sink`, `normalizer`,
        `return_weights` and `return_lse` is given, which have no meaning here.
    ValueError
        If shapes do not fit or an option is out of range; if `index` names a key that its query may
        not attend to.

    See Also
    --------
    attend : the mean of the values instead of one
    attnc.estimators : baselines, and gradients by other estimators
    attnc.HardAttention : the layer

    Notes
    -----
    Xu et al. 2015, "Show, attend and tell: neural image caption generation with visual attention",
    section 4.1 and eq. 5-11. The pullback takes ``(dcontext, dlog_probability=None,
    dentropy=None)``. `dcontext` reaches the chosen values alone, and the other two the scores
    (and `bias`, `slope` and `center`)::

        ds_j = dlog_probability (1[j = k] - w_j) - dentropy w_j (log w_j + entropy)

    So for a loss to be minimised, the mean over n samples of ``-reward``, REINFORCE is
    ``pullback(dcontext, -(reward - baseline) / n)``.

    A query that may attend to nothing has index -1, context 0, log_probability 0 and entropy 0, and
    adds nothing to any gradient. One with an allowed score of NaN or +inf has no probabilities:
    index -1, and NaN for all else; a key may still be forced, and its value is then the context.

    The number that a key is drawn by is made by Philox4x32-10 from the query's place alone:
    with the counter (0, i, n low, n high), n the C-order index into the leading axes, the first
    two words give 53 bits. Its key is made of that of the call, which drops weights elsewhere: the
    first two words at a counter of four times 2^32 - 1. The sum of the weights is taken in the
    order of the keys, and the first key is chosen at which it is above the number: so never one of
    weight 0.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> scores, value = np.log([[0.5, 0.25, 0.25]]), np.eye(3)
    >>> result = attnc.hard_attention(scores, value, index=[2])
    >>> result.context
    array([[0., 0., 1.]])
    >>> float(np.exp(result.log_probability[0]).round(4))
    0.25
    >>> result, pullback = attnc.vjp(attnc.hard_attention, scores, value, rng=0)
    >>> dscores, dvalue = pullback(np.ones((1, 3)), dlog_probability=-np.ones(1))
    """
    return HardResult(*_core.hard_attention(scores, value, *_how(sample, index, rng), **options))


takes_options(hard_attention, without=outside(ScoreOptions))


def _how(sample, index, rng):
    """What C takes: these two, and the key of the draws; a generator is left alone without any."""
    drawn = index is None and isinstance(sample, (bool, np.bool_)) and sample
    return sample, index, _dropout_key(rng) if drawn else 0


def _forward(scores, value, *, rng=None, sample=True, index=None, **options):
    how = _how(sample, index, rng)
    *outputs, kept = _core.hard_attention_saving(scores, value, *how, **options)
    return HardResult(*outputs), *MECHANISMS[attend].saved((scores, value), options, kept)


def _jvp(tangents, scores, value, *, rng=None, sample=True, index=None, **options):
    how = _how(sample, index, rng)
    output, tangent = _core.hard_attention_jvp(tangents, scores, value, *how, **options)
    return HardResult(*output), HardResult(*tangent)


_by_formula = twice_by_formula(hard_attention, lambda output: {"index": output.index})


def _jvp_jvp(*arguments, **options):
    return _by_formula(*arguments, **options)._replace(index=None)


def _backward_jvp(
    tangents, incoming, dincoming, scores, value, *, rng=None, sample=True, index=None, **options
):
    arguments = scores, value, *_how(sample, index, rng)
    of_gradients = tuple(incoming), tuple(dincoming)
    return _of_record(_core.hard_attention_hvp(tangents, *of_gradients, *arguments, **options))


def _of_record(found):
    """The gradients of the record's arrays from those that C gives: of the function's own
    arguments, three of which are no arrays, then of the options."""
    of_attend = dict(zip(_OF_ATTEND.arrays, found[:2] + found[5:], strict=True))
    return tuple(of_attend[name] for name in RECORD.arrays)


def _backward(saved, static, dcontext, dlog_probability, dentropy):
    names, rest = static
    options = dict(zip(names, saved[5:], strict=True)) | rest
    incoming = dcontext, dlog_probability, dentropy
    return _of_record(
        _core.hard_attention_backward(*incoming, *saved[:5], False, None, 0, **options)
    )


def _outputs(scores, value, **options):
    context = MECHANISMS[attend].shapes(scores, value)
    rows = context.shape[:-1]
    of = tuple(name for name in context.of if name in RECORD.arrays)
    number = Output(rows, "computed", of)
    return HardResult(context._replace(of=of), Output(rows, "integer"), number, number)


_OF_ATTEND = record_of(attend)
assert _OF_ATTEND is not None
RECORD = register(
    hard_attention,
    required=("scores", "value"),
    optional=[name for name in _OF_ATTEND.optional if name != "sink"],
    incoming=("dcontext", "dlog_probability", "dentropy"),
    forward=_forward,
    backward=_backward,
    jvp=_jvp,
    backward_jvp=_backward_jvp,
    jvp_jvp=_jvp_jvp,
    outputs=_outputs,
    fixed=("index", *_OF_ATTEND.fixed),
    leading=("index", *[name for name in _OF_ATTEND.leading if name != "sink"]),
)

"""The options that all attention functions share, named once.

`AttentionOptions` is their type; csrc/python/options.c has who reads them, and their `DEFAULTS`.
`takes_options` writes them into a function's signature.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal, TypedDict

from attnc import _core
from attnc.typing import Bools, Function, Integers, Real, Seed

__all__ = ["nearest", "outside", "takes_options", "with_common"]


class Pairs(TypedDict, total=False):
    """Options by keyword that say which pairs are allowed, and no more."""

    mask: Bools | None
    key_mask: Bools | None
    key_lengths: Integers | None
    query_lengths: Integers | None
    causal: bool
    causal_offset: Integers | None
    window: tuple[int | None, int | None] | None


class ScoreOptions(Pairs, total=False):
    """The same, and what becomes of their scores before the softmax."""

    bias: Real | None
    center: Real | None
    sigma: float | None
    renormalize: bool
    query_offsets: Integers | None
    key_offsets: Integers | None
    softcap: float | None
    slope: Real | None


class Masks(ScoreOptions, total=False):
    """Options by keyword that layers take as functions do. Without more, an array is returned."""

    sink: Real | None
    normalizer: Literal["softmax", "sparsemax", "entmax15"]


class LayerOptions(Masks, total=False):
    """Options by keyword, of every attention layer."""

    return_weights: bool
    return_lse: bool


class MasksAndDropout(Masks, total=False):
    """Options by keyword of a function that returns an array alone."""

    dropout: float
    rng: Seed


class AttentionOptions(MasksAndDropout, total=False):
    """Options by keyword, of every attention function."""

    return_weights: bool
    return_lse: bool


DEFAULTS: dict[str, Any] = _core.option_defaults()


def nearest(name: str, known: Any) -> str:
    """What an error text says of a name that is not known: the nearest that is.

    Parameters
    ----------
    name : str
    known : iterable of str

    Returns
    -------
    str
    """
    import difflib  # here, because only an error needs it

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {found[0]!r}?" if found else f"; there are {', '.join(known)}"


def nearest_argument(name: str, own: list[str]) -> str:
    """What C says of a name that an attention function has no argument of.

    Parameters
    ----------
    name : str
    own : list of str
        The function's own arguments.

    Returns
    -------
    str
    """
    return nearest(name, [*own, *DEFAULTS])


def outside(options: type) -> tuple[str, ...]:
    """The options of all functions that one of the dicts above does not have.

    Parameters
    ----------
    options : TypedDict

    Returns
    -------
    tuple of str
    """
    return tuple(name for name in DEFAULTS if name not in options.__annotations__)


def takes_options(function: Function, *, without: tuple[str, ...] = ()) -> Function:
    """Write the options into the signature of a function that takes them as ``**options``.

    Parameters
    ----------
    function : function
        Changed in place.
    without : tuple of str
        Options that it does not take.

    Returns
    -------
    function
    """
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
        for name, value in DEFAULTS.items()
        if name not in without and name not in signature.parameters
    ]
    written = signature.replace(parameters=[*own, *shared])
    function.__signature__ = written  # type: ignore[attr-defined]
    return function


def with_common(function: Function, common: dict[str, str]) -> Function:
    """Write what several functions share into the docstring of one.

    Parameters
    ----------
    function : function
        Changed in place.
    common : dict of str
        Paragraphs by name; each takes the place of a line ``{name}``.

    Returns
    -------
    function
    """
    if function.__doc__:  # there is none under python -OO
        text = inspect.cleandoc(function.__doc__)  # from Python 3.13 on the compiler does that
        for name, paragraph in common.items():
            text = text.replace("{" + name + "}\n", paragraph)
        function.__doc__ = text
    return function

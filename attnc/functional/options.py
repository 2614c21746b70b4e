"""The options that all attention functions share, named once.

`AttentionOptions` is their type, `DEFAULTS` their values where they are not given;
`takes_options` writes them into a function's signature and docstring.
"""

from __future__ import annotations

import inspect
from typing import Any, TypedDict

from attnc.typing import Bools, Function, Integers, Real, Seed

__all__ = ["complete", "nearest", "takes_options"]


class Masks(TypedDict, total=False):
    """Options by keyword that layers take as functions do. Without more, an array is returned."""

    mask: Bools | None
    key_mask: Bools | None
    key_lengths: Integers | None
    bias: Real | None
    causal: bool
    causal_offset: Integers | None
    window: tuple[int | None, int | None] | None
    softcap: float | None


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


DEFAULTS: dict[str, Any] = {
    "mask": None,
    "key_mask": None,
    "key_lengths": None,
    "bias": None,
    "causal": False,
    "causal_offset": None,
    "window": None,
    "softcap": None,
    "dropout": 0.0,
    "rng": None,
    "return_weights": False,
    "return_lse": False,
}


def complete(function: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options with the defaults of those that are missing, in the order of `DEFAULTS`.

    Parameters
    ----------
    function : str
        What the error text begins with.
    options : dict

    Returns
    -------
    dict

    Raises
    ------
    TypeError
        If there is no option of a name; the nearest one is named.
    """
    values = DEFAULTS | options
    if len(values) == len(DEFAULTS):
        return values
    unknown = next(name for name in options if name not in DEFAULTS)
    raise TypeError(f"{function}: there is no argument {unknown!r}{nearest(unknown, DEFAULTS)}")


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

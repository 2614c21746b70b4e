"""The awkward inputs of `check`: small, seeded, and each with the traits that make it awkward."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from attnc.typing import Array

__all__ = ["Case", "cases", "neutral"]

# What can be left out, and what it means.
TRAITS = {
    "sequence": "inputs without batch axes, (T, D)",
    "batch": "inputs with one batch axis, (B, T, D)",
    "heads": "inputs with two, (B, H, T, D)",
    "length 1": "one query, one key, or one feature",
    "float32": "inputs of float32",
    "large scores": "scores of which exp overflows",
    "empty rows": "queries that may attend to nothing",
    "masked nan": "NaN in keys that are masked",
    "zero vector": "a query of zeros, for the cosine",
}
# Those in which nothing but the formula counts come first.
EXTREME = {"float32", "large scores", "empty rows", "masked nan", "zero vector"}

# The options that are tried where a student's function takes them; dropout has a test of its own.
OPTIONS = (
    "mask key_mask key_lengths query_lengths causal causal_offset window bias scale softcap slope "
    "sink query_weight key_weight score_bias"
).split()

# Of which each two, and each with a bias, are also tried together.
MASKS = ("mask", "key_mask", "key_lengths", "causal")


class Case(NamedTuple):
    """One call: its arrays and options, and what is awkward about it."""

    traits: frozenset[str]
    arrays: tuple[Array, ...]
    options: dict[str, Any]


def neutral(option: str, name: str, arrays: tuple[Array, ...]) -> Any:
    """The value of an option that changes nothing, for a function that must be given it.

    Parameters
    ----------
    option, name : str
        The option, and the function of attnc.
    arrays : tuple of ndarray

    Returns
    -------
    object
    """
    lead, Tq, Tk = _sizes(name, arrays)
    values: dict[str, Any] = {
        "mask": np.ones((*lead, Tq, Tk), bool),
        "key_mask": np.ones((*lead, Tk), bool),
        "key_lengths": np.full(lead, Tk) if lead else Tk,
        "query_lengths": np.full(lead, Tq) if lead else Tq,
        "causal": False,
        "causal_offset": Tk - Tq,
        "bias": np.zeros((*lead, Tq, Tk), arrays[0].dtype),
        "scale": arrays[0].shape[-1] ** -0.5 if name == "dot_product_attention" else 1.0,
        "slope": 0.0,
        "sink": -np.inf,
        "dropout": 0.0,
        "return_weights": True,
        "return_lse": False,
    }
    return values.get(option)


def _sizes(name, arrays):
    """The leading axes, the numbers of queries and keys."""
    if name == "attend":
        return arrays[0].shape[:-2], *arrays[0].shape[-2:]
    return arrays[0].shape[:-2], arrays[0].shape[-2], arrays[1].shape[-2]


def _as(dtype, x):
    """An array of float64 in another dtype; all else as it is."""
    return x.astype(dtype) if getattr(x, "dtype", None) == np.float64 else x


class _Maker:
    """Makes cases of one function, for inputs with these leading axes."""

    def __init__(self, name, taken, required, lead, seed):
        self.name, self.taken, self.required, self.lead = name, set(taken), set(required), lead
        self.rng = np.random.Generator(np.random.Philox(seed))
        self.axes = ("sequence", "batch", "heads")[len(lead)]

    def normal(self, *shape):
        return self.rng.standard_normal(shape)

    def arrays(self, Tq, Tk, D, Dv):
        """Random ones, and the options that belong to the score."""
        lead: tuple[int, ...] = self.lead
        own: dict[str, Array] = {}
        value = self.normal(*lead, Tk, Dv)
        if self.name == "attend":
            return [self.normal(*lead, Tq, Tk), value], own
        Dk = D
        if self.name == "multiplicative_attention" and Tq != Tk:
            Dk = D + 1  # so that a weight can be used in one way only
        rest = []
        if self.name == "multiplicative_attention":
            rest = [self.normal(D, Dk) / 2]
        elif self.name == "additive_attention":
            projected = {"query_weight", "key_weight"} <= self.taken
            H = D if Tq == Tk or not projected else D + 1
            rest = [self.normal(H)]
            if projected:
                Dk = D if Tq == Tk else D + 2
                own = {"query_weight": self.normal(D, H), "key_weight": self.normal(Dk, H)}
            if "score_bias" in self.taken:
                own["score_bias"] = self.normal(H)
        query, key = self.normal(*lead, Tq, D), self.normal(*lead, Tk, Dk)
        return [query, key, value, *rest], own

    def case(self, Tq, Tk, *traits, D=4, Dv=3, dtype=np.float64, change=None, **options):
        """One, with these options; `change(arrays, options)` makes it awkward."""
        arrays, own = self.arrays(Tq, Tk, D, Dv)
        options = {**own, **options}
        if change is not None:
            change(arrays, options)
        arrays = tuple(_as(dtype, x) for x in arrays)
        for option in self.required - set(options):
            options[option] = neutral(option, self.name, arrays)
        options = {option: _as(dtype, value) for option, value in options.items()}
        return Case(frozenset({self.axes, *traits}), arrays, options)

    # ---- what makes arrays awkward

    def enlarge(self, arrays, options):
        """Make scores of some thousands."""
        if self.name == "dot_product_attention":
            arrays[0] *= 60
            arrays[1] *= 60
        elif self.name == "cosine_attention":
            options["scale"] = 3000.0
        else:
            arrays[0 if self.name == "attend" else 3] *= 3000.0

    def part(self, arrays, options):
        """Make the scores of one query some thousands larger than those of the others."""
        if self.name == "attend":
            arrays[0][..., 0, :] += 3000
        elif self.name in ("additive_attention", "cosine_attention"):
            self.enlarge(arrays, options)
        else:
            arrays[0][..., 0, :] *= 3000

    def hide(self, arrays, hidden):
        """NaN in the keys of which `hidden`, (..., Tk), is True."""
        if self.name == "attend":
            arrays[0][np.broadcast_to(hidden[..., None, :], arrays[0].shape)] = np.nan
        else:
            arrays[1][np.broadcast_to(hidden, arrays[1].shape[:-1])] = np.nan

    # ---- the cases

    def plain(self):
        yield self.case(4, 4, D=4, Dv=4)  # all sizes alike: a wrong axis raises no error
        yield self.case(3, 5)
        yield self.case(5, 3, D=7, Dv=2)  # sqrt(D) is not D / 2, as it is of 4
        yield self.case(1, 4, "length 1")
        yield self.case(4, 1, "length 1")
        yield self.case(3, 4, "length 1", D=1, Dv=1)
        yield self.case(3, 5, "float32", dtype=np.float32)
        if self.name != "cosine_attention" or "scale" in self.taken:
            yield self.case(3, 5, "large scores", change=self.enlarge)
            yield self.case(4, 5, "large scores", change=self.part)
            yield self.case(3, 5, "large scores", "float32", dtype=np.float32, change=self.enlarge)
        if self.name == "cosine_attention":

            def zero(arrays, options):
                arrays[0][..., 1, :] = 0

            yield self.case(3, 5, "zero vector", change=zero)
        if self.name == "additive_attention" and "query_weight" in self.taken:
            if not {"query_weight", "key_weight"} & self.required:
                yield self.projected()

    def projected(self):
        """Query and key are projected already."""

        def drop(arrays, options):
            size = arrays[3].shape[-1]
            arrays[0], arrays[1] = (
                self.normal(*self.lead, 3, size),
                self.normal(*self.lead, 4, size),
            )
            del options["query_weight"], options["key_weight"]

        return self.case(3, 4, change=drop)

    def mask(self, Tq, Tk):
        """Random; every query sees a key and does not see another."""
        mask = self.rng.random((*self.lead, Tq, Tk)) < 0.6
        i = np.arange(Tq)
        mask[..., i, i % (Tk - 1)] = True
        mask[..., i, i % (Tk - 1) + 1] = False
        return mask

    def lengths(self, T, least=1):
        """Shorter than T, and not the same for all of a batch."""
        count = np.arange(np.prod(self.lead, dtype=int)).reshape(self.lead)
        lengths = least + (self.rng.integers(T) + count) % (T - least)
        return lengths if self.lead else int(lengths)

    def masks(self):
        lead = self.lead
        if "mask" in self.taken:
            yield self.case(4, 4, D=4, Dv=4, mask=self.mask(4, 4))
            yield self.case(3, 5, mask=self.mask(3, 5))
            yield self.case(3, 5, "large scores", mask=self.mask(3, 5), change=self.enlarge)
            empty = self.mask(3, 4)
            empty[..., 1, :] = False
            yield self.case(3, 4, "empty rows", mask=empty)
            mask = self.mask(3, 5)
            mask[..., -1] = False
            yield self.case(
                3, 5, "masked nan", mask=mask, change=lambda a, _: self.hide(a, ~mask.any(-2))
            )
        if "key_mask" in self.taken:
            hidden = np.asarray(self.lengths(4))[..., None]  # one of the keys 1 to 3, and the last
            key_mask = (np.arange(5) != hidden) & (np.arange(5) != 4)
            yield self.case(3, 5, key_mask=key_mask)
            yield self.case(
                3, 5, "masked nan", key_mask=key_mask, change=lambda a, _: self.hide(a, ~key_mask)
            )
            yield self.case(3, 5, "empty rows", key_mask=np.zeros((*lead, 5), bool))
        if "key_lengths" in self.taken:
            lengths = self.lengths(5)
            hidden = np.arange(5) >= np.asarray(lengths)[..., None]
            yield self.case(3, 5, key_lengths=lengths)
            yield self.case(5, 5, key_lengths=self.lengths(5))
            yield self.case(
                3, 5, "masked nan", key_lengths=lengths, change=lambda a, _: self.hide(a, hidden)
            )
            none = np.zeros(lead, int) if lead else 0
            yield self.case(3, 5, "empty rows", key_lengths=none)
        if "query_lengths" in self.taken:
            yield self.case(4, 5, "empty rows", query_lengths=self.lengths(4))
        if "causal" in self.taken:
            yield self.case(4, 4, D=4, Dv=4, causal=True)
            yield self.case(3, 5, causal=True)
            yield self.case(1, 4, "length 1", causal=True)
            yield self.case(5, 3, "empty rows", causal=True)
            if "causal_offset" in self.taken:
                yield self.case(3, 5, causal=True, causal_offset=0)
                yield self.case(3, 5, causal=True, causal_offset=1)
        if "window" in self.taken:
            yield self.case(5, 5, window=(1, 2))
            yield self.case(4, 6, window=(2, 0))
            yield self.case(5, 5, window=(1, None))
        for two in itertools.combinations((*MASKS, "bias"), 2):
            if set(two) <= self.taken:
                yield self.both(*two)
        if {"window", "causal"} <= self.taken:
            yield self.case(4, 5, causal=True, window=(1, 2))

    def both(self, *two):
        """Two masks, or one and a bias: each hides a key that the other shows; no row is empty."""
        mask, key_mask = self.mask(4, 5), np.ones((*self.lead, 5), bool)
        mask[..., [0, 1, 4]], mask[..., 2], key_mask[..., 1] = True, False, False
        lengths = self.lengths(5, least=3)
        given = {"mask": mask, "key_mask": key_mask, "key_lengths": lengths, "causal": True}
        given["bias"] = self.normal(*self.lead, 4, 5)
        return self.case(4, 5, **{name: given[name] for name in two})

    def others(self):
        """Options that change the scores or the sum."""
        lead = self.lead
        bias = self.normal(*lead, 3, 5)
        given: dict[str, Any] = {
            "bias": bias,
            "scale": 0.3,
            "softcap": 1.5,
            "slope": 0.4,
            "sink": 0.7,
        }
        given = {name: value for name, value in given.items() if name in self.taken}
        for name, value in given.items():
            yield self.case(3, 5, **{name: value})
        if len(given) > 1:
            yield self.case(3, 5, **given)
        if "bias" in given:
            excluding = bias.copy()
            excluding[..., 1] = -np.inf
            yield self.case(3, 5, bias=excluding)

    def strict(self):
        """What attnc itself promises beyond that."""
        if "mask" in self.taken:
            mask = self.mask(3, 5)
            mask[..., -1] = False

            def change(arrays, options):
                arrays[1 if self.name == "attend" else 2][..., -1, :] = np.nan

            yield self.case(3, 5, "masked nan", mask=mask, change=change)
            yield self.case(3, 5, mask=mask[..., :1, :])
            yield self.case(3, 5, mask=mask[..., :, :1] | True)


def cases(
    name: str, taken: set[str], required: set[str], skip: set[str], strict: bool, seed: int
) -> Iterator[Case]:
    """The inputs for a function.

    Parameters
    ----------
    name : str
        Of the function of attnc.
    taken, required : set of str
        The options that the student's function takes, and those that it must be given.
    skip : set of str
        The traits of `TRAITS` that are left out.
    strict : bool
        Also NaN in masked values, and masks with axes of size 1.
    seed : int

    Yields
    ------
    Case
    """
    for lead in ((), (2,), (2, 3)):
        maker = _Maker(name, taken, required, lead, seed)
        kinds = [maker.plain, maker.others, maker.masks] + [maker.strict] * strict
        for kind in kinds:
            yield from (case for case in kind() if not case.traits & skip)

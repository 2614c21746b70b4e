"""Dropout in a student's function: each weight is kept and enlarged, or is 0, as often as asked.

The numbers that are drawn are the student's own, so that no result can be compared. With an
identity in the place of the values the context is the weights after dropout, and shows it all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc import reference
from attnc.teaching._calls import Student
from attnc.teaching._cases import Case, neutral

__all__ = ["dropout_fault"]

RATE, SIZE = 0.25, 64


def dropout_fault(student: Student, name: str, seed: int) -> str:
    """What is wrong with the dropout of a function that is right without.

    Parameters
    ----------
    student : Student
    name : str
        Of the function of attnc.
    seed : int

    Returns
    -------
    str
        Empty if nothing is.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    arrays = [rng.standard_normal((SIZE, 4)), rng.standard_normal((SIZE, 4)), np.eye(SIZE)]
    if name == "attend":
        arrays = [rng.standard_normal((SIZE, SIZE)), np.eye(SIZE)]
    elif name == "multiplicative_attention":
        arrays.append(rng.standard_normal((4, 4)))
    elif name == "additive_attention":
        arrays.append(rng.standard_normal(4))
    options: dict[str, Any] = {"dropout": RATE}
    if name == "additive_attention":
        own = {"query_weight", "key_weight"} & student.required
        options |= {option: np.eye(4) for option in own}
    for option in student.required - set(options):
        options[option] = neutral(option, name, tuple(arrays))
    if "rng" in student.aside:
        options["rng"] = np.random.default_rng(seed)
    plain = {n: x for n, x in options.items() if n not in ("dropout", "rng", "return_lse")}
    plain["return_weights"] = True
    right = getattr(reference, name)(*arrays, **plain).weights
    outcome = student.run(Case(frozenset({"sequence"}), tuple(arrays), options), False)
    if outcome.complaint:
        return f"{outcome.complaint}, with dropout={RATE}"
    if "context" not in outcome.stages:
        return ""
    context, weights = outcome.stages["context"], outcome.stages.get("weights")
    dropped = context == 0
    share = dropped.mean()
    if share == 0 and np.allclose(context, right):
        return "dropout is ignored"
    expected = np.where(dropped, 0, right)
    if share == 0:
        return "with dropout no weight is 0: drop weights, not scores, and each by itself"
    ratio = (context[~dropped] / right[~dropped]).mean()
    if not np.allclose(context, expected * ratio):
        if np.allclose(context.sum(axis=-1)[(~dropped).any(-1)], 1):
            return "the weights are normalised again after dropout: divide them by 1 - dropout"
        return "with dropout a weight is neither 0 nor one and the same multiple of what it was"
    for first, what in ((dropped[:1], "keys for every query"), (dropped[:, :1], "whole queries")):
        if (dropped == first).all():
            same = "the same " if what[0] == "k" else ""
            return f"with dropout {same}{what} are dropped: draw for each weight by itself"
    if abs(share - (1 - RATE)) < 0.1:
        return f"dropout={RATE} keeps that part of the weights: it must drop it"
    # Five standard deviations of the share among SIZE ** 2 draws.
    if abs(share - RATE) > 5 * (RATE * (1 - RATE)) ** 0.5 / SIZE:
        return f"dropout={RATE} drops {share:.0%} of the weights"
    if not np.isclose(ratio, 1 / (1 - RATE)):
        return (
            f"with dropout weights that are kept come out {ratio:.4g} times as large: divide them \
by 1 - dropout"
        )
    # A sum of so many weights is 0 only where the sum itself was dropped.
    arrays[1 if name == "attend" else 2] = np.ones((SIZE, SIZE))
    summed = student.run(Case(frozenset({"sequence"}), tuple(arrays), options), False)
    if (summed.stages.get("context", right) == 0).any():
        return "dropout is applied to the context: apply it to the weights, before the product \
with the values"
    if weights is not None and not np.allclose(weights, right):
        return "the weights that are returned include dropout: return those before it"
    return ""

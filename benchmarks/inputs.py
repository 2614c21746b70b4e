"""The arrays of a case: the same numbers in every process."""

from collections import namedtuple

import numpy as np

COSINE_SCALE = 10.0  # the factor of the scores in cosine attention

# `arguments` in the order of attnc's function; the gradient of the context for backward.
Inputs = namedtuple("Inputs", "arguments dcontext")


def inputs(case):
    """Random arrays for a case, with scores of about one."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape, dtype=case.dtype)

    lead = (case.B,) if case.mechanism == "additive" else (case.B, case.H)
    query, dcontext = normal(*lead, case.Tq, case.D), normal(*lead, case.Tq, case.D)
    key, value = normal(*lead, case.Tk, case.D), normal(*lead, case.Tk, case.D)
    arguments = [query, key, value]
    if case.mechanism == "additive":
        arguments.append(normal(case.D) / np.sqrt(case.D, dtype=case.dtype))
    elif case.mechanism == "multiplicative":
        arguments.append(normal(case.D, case.D) / np.array(case.D, case.dtype))
    return Inputs(arguments, dcontext)


def valid_keys(case):
    """The lengths of a case as a mask (B, 1, 1, Tk), or None; True: may be attended to."""
    if case.lengths is None:
        return None
    return (np.arange(case.Tk) < np.array(case.lengths)[:, None])[:, None, None, :]

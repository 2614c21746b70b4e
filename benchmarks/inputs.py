"""The arrays of a case: the same numbers in every process."""

from collections import namedtuple

import numpy as np

COSINE_SCALE = 10.0  # the factor of the scores in cosine attention

# `arguments` in the order of attnc's function; the gradient of the context for backward.
Inputs = namedtuple("Inputs", "arguments dcontext")


def numpy_dtype(name):
    """A dtype by its name, bfloat16 too, which another package brings."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def inputs(case):
    """Random arrays for a case, with scores of about one."""
    rng = np.random.default_rng(0)

    dtype = numpy_dtype(case.dtype)

    def normal(*shape):
        return rng.standard_normal(shape, dtype=case.computed).astype(dtype, copy=False)

    if case.recurrent:
        return recurrent_inputs(case, normal)
    if case.mechanism == "monotonic":
        energy = normal(case.B, case.Tq, case.Tk)
        return Inputs([1 / (1 + np.exp(-energy))], normal(case.B, case.Tq, case.Tk))
    if case.packed:
        rows = sum(case.lengths or [case.Tk] * case.B)
        *arguments, dcontext = (normal(rows, case.H, case.D).swapaxes(0, 1) for _ in range(4))
        return Inputs(arguments, dcontext)
    if case.transformer:
        return transformer_inputs(case, normal)
    lead = (case.B,) if case.mechanism == "additive" else (case.B, case.H)
    query, dcontext = normal(*lead, case.Tq, case.D), normal(*lead, case.Tq, case.D)
    key, value = normal(*lead, case.Tk, case.D), normal(*lead, case.Tk, case.D)
    arguments = [query, key, value]
    if case.mechanism == "additive":
        arguments.append(normal(case.D) / np.sqrt(case.D, dtype=case.dtype))
    elif case.mechanism == "multiplicative":
        arguments.append(normal(case.D, case.D) / np.array(case.D, case.dtype))
    return Inputs(arguments, dcontext)


def tangents(case):
    """Of query, key and value, None for those that have none."""
    rng = np.random.default_rng(2)
    shapes = [(case.B, case.H, rows, case.D) for rows in (case.Tq, case.Tk, case.Tk)]
    every = [rng.standard_normal(shape, dtype=case.dtype) for shape in shapes]
    return every if case.tangents == "all" else [every[0], None, None]


def local_centers(case):
    """Where the queries of local attention look, (1, 1, Tq)."""
    if case.centers == "monotonic":
        return np.arange(case.Tq, dtype=float)[None, None]
    return np.random.default_rng(1).uniform(0, case.Tk - 1, (1, 1, case.Tq))


def recurrent_inputs(case, normal):
    """x, for the decoder the memory, then parameters in the order of attnc's functions."""
    B, E, D = case.B, case.E, case.D

    def weight(*shape):
        return normal(*shape) * np.array(shape[0] ** -0.5, case.dtype)

    def cell(size):
        return [weight(size, 3 * D), weight(D, 3 * D), 0.1 * normal(3 * D), 0.1 * normal(3 * D)]

    if case.mechanism == "encoder":
        arguments = [normal(B, case.Tk, E), *cell(E), *cell(E)]
        return Inputs(arguments, normal(B, case.Tk, 2 * D))
    arguments = [normal(B, case.Tq, E), normal(B, case.Tk, D), *cell(E + D)]
    arguments += [weight(D, D), weight(D, D), weight(D)]
    return Inputs(arguments, normal(B, case.Tq, D))


def transformer_inputs(case, normal):
    """x, then parameters in the order of attnc's layers; those of whole models are their own."""
    B, T, E, H, D = case.B, case.Tk, case.E, case.H, case.D

    def weight(*shape):
        return normal(*shape) * np.array(E**-0.5, case.dtype)

    arguments = [normal(B, T, E)]
    if case.mechanism in ("multihead", "encoder_layer"):
        arguments += [weight(E, H, D), weight(E, H, D), weight(E, H, D), weight(H, D, E)]
    if case.mechanism == "encoder_layer":
        arguments += [
            weight(E, 4 * E),
            weight(4 * E, E) / 2,
            1 + 0.1 * normal(E),
            1 + 0.1 * normal(E),
        ]
    return Inputs(arguments, normal(B, T, E))


VOCABULARY = 8000  # words
CHARACTERS = 256


def sentences(case):
    """Source, its lengths, and target with start token: two thirds of Tk tokens and more; 0 is
    padding."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2 * case.Tk // 3, case.Tk + 1, case.B)
    ends = rng.integers(2 * case.Tq // 3, case.Tq + 1, case.B)
    source = rng.integers(3, VOCABULARY, (case.B, case.Tk))
    target = rng.integers(3, VOCABULARY, (case.B, case.Tq + 1))
    source[np.arange(case.Tk) >= lengths[:, None]] = 0
    target[np.arange(case.Tq + 1) > ends[:, None]] = 0
    return source, lengths, target


def offsets(case):
    """Where the sequences of a packed batch begin and end."""
    return np.append(0, np.cumsum(case.lengths or [case.Tk] * case.B))


def padded(case, x):
    """x (H, rows, D) of a packed batch as (B, H, T, D), 0 in the padding."""
    whole = np.zeros((case.B, case.H, case.Tk, x.shape[-1]), x.dtype)
    for row, part in zip(whole, np.split(x, offsets(case)[1:-1], axis=1), strict=True):
        row[:, : part.shape[1]] = part
    return whole


def trimmed(case, x):
    """Undoes `padded`."""
    counts = np.diff(offsets(case))
    return np.concatenate([row[:, :n] for row, n in zip(x, counts, strict=True)], axis=1)


def valid_keys(case):
    """The lengths of a case as a mask (B, 1, 1, Tk), or None; True: may be attended to."""
    if case.lengths is None:
        return None
    valid = (np.arange(case.Tk) < np.array(case.lengths)[:, None])[:, None, None, :]
    if case.packed and case.causal:  # a mask of both: PyTorch takes one of them
        return valid & np.tri(case.Tq, case.Tk, dtype=bool)
    return valid

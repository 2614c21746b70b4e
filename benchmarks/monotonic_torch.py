"""Monotonic alignments with PyTorch, which has none: the form that the paper gives for libraries
without a recurrence, as its authors' code has it."""

import torch


def alignments(probability):
    """(B, Tq, Tk): each query by products and sums over all keys at once.

    A query takes the one before it divided by a product of the chances to walk on, which vanishes:
    it is cut at 1e-10, and what is beyond that is lost.
    """
    ones = torch.ones_like(probability[:, :, :1])
    past = torch.cumprod(torch.cat([ones, 1 - probability[:, :, :-1]], -1), -1)
    kept, stops = past.clamp(1e-10, 1.0), probability * past
    row = torch.zeros_like(probability[:, 0])
    row[:, 0] = 1
    rows = []
    for i in range(probability.shape[1]):
        row = stops[:, i] * torch.cumsum(row / kept[:, i], -1)
        rows.append(row)
    return torch.stack(rows, 1)

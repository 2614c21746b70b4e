"""Calls of every function on tensors, as `calls` has them on arrays."""

import numpy as np
import torch
from calls import call

import attnc.torch
from attnc.registry import records

RECORDS = {record.name: record for record in records()}


def tensors(value):
    """Nested sequences of arrays with tensors in their places; all else as it is."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, tuple | list):
        return type(value)(tensors(item) for item in value)
    return value


def leaves(value):
    """Everything in nested sequences, but None."""
    if isinstance(value, tuple | list):
        return [leaf for item in value for leaf in leaves(item)]
    return [] if value is None else [value]


class OnTensors:
    """One call: the function of arrays and that of tensors, and the arguments of both."""

    def __init__(self, name, case, dtype=np.float64):
        self.record = RECORDS[name]
        self.arrays, self.options = call(name, case, np.random.default_rng(0), dtype)
        self.function = getattr(attnc.torch, name)
        self.args = tensors(self.arrays)
        self.named = {name: tensors(x) for name, x in self.options.items()}
        given = dict(zip(self.record.required, self.args, strict=False)) | self.named
        self.real = [
            x
            for name in self.record.arrays
            for x in leaves(given.get(name))
            if isinstance(x, torch.Tensor)
        ]

    def wanting(self):
        """The same, with gradients wanted of all real arrays."""
        for x in self.real:
            x.requires_grad_()
        return self

    def __call__(self):
        return self.function(*self.args, **self.named)

    def of_real(self, *real):
        """The real outputs in a row, of these in the places of the real arrays."""
        each = dict(zip(map(id, self.real), real, strict=True))

        def put(value):
            if isinstance(value, tuple | list):
                return type(value)(put(item) for item in value)
            return each.get(id(value), value)

        output = self.function(*put(self.args), **{n: put(x) for n, x in self.named.items()})
        return tuple(x for x in leaves(output) if x.is_floating_point())


def assert_same_bits(found, expected):
    """Tensors, or None, against arrays."""
    found, expected = leaves(found), leaves(expected)
    assert len(found) == len(expected)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(x.detach()), y, strict=True)

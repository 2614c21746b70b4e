"""The functions of `attnc` with tensors of PyTorch."""

import numpy as np
import torch

import attnc as _attnc
from attnc.registry import record_of as _record_of


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx, record, options, names, structure, *tensors):
        import ml_dtypes

        def arr(t):
            t = t.detach()
            return t.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if t.dtype == torch.bfloat16 else t.numpy()

        arrays = {}
        for (n, k), t in zip(names, tensors):
            if k is None:
                arrays[n] = arr(t)
            else:
                arrays.setdefault(n, []).append(arr(t))
        out, saved, static = record.forward(**arrays, **options)
        ctx.r = record, saved, static, names
        ctx.dt = [t.dtype for t in tensors]
        ctx.set_materialize_grads(False)

        def back(x):
            if isinstance(x, tuple):
                structure.append(x)
                return [z for y in x for z in back(y)]
            if x.dtype.name == "bfloat16":
                return [torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)]
            return [torch.from_numpy(x)]

        return tuple(back(out))

    @staticmethod
    def backward(ctx, *d):
        record, saved, static, names = ctx.r
        d = [None if x is None else (x.float() if x.dtype == torch.bfloat16 else x).numpy() for x in d]
        if record.name == "lstm":
            z = None if d[1] is None and d[2] is None else (d[1], d[2])
            d = [d[0], z]
        d += [None] * (len(record.incoming) - len(d))
        found = dict(zip(record.arrays, record.backward(saved, static, *d)))
        out = []
        for (n, k), dt in zip(names, ctx.dt):
            g = found[n] if k is None or found[n] is None else found[n][k]
            if g is not None and g.dtype.name == "bfloat16":
                g = g.astype(np.float32)
            out.append(None if g is None else torch.from_numpy(np.ascontiguousarray(g)).to(dt))
        return (None, None, None, None, *out)


def _bridge(f):
    record = _record_of(f)

    def run(*args, **options):
        import inspect

        bound = inspect.signature(f).bind_partial(*args)
        options = {**bound.arguments, **options}
        names, tensors = [], []
        for n in list(options):
            x = options[n]
            if n in record.arrays and x is not None and not isinstance(x, float):
                del options[n]
                if isinstance(x, (tuple, list)):
                    names += [(n, k) for k in range(len(x))]
                    tensors += x
                else:
                    names.append((n, None))
                    tensors.append(x)
            elif isinstance(x, torch.Tensor):
                options[n] = x.numpy()
        structure = []
        found = _Run.apply(record, options, names, structure, *tensors)
        if not structure:
            return found[0]
        if len(found) == 3 and record.name == "lstm":
            return structure[0]._replace(outputs=found[0], state=found[1:])
        return structure[0]._make(found)

    return run


dot_product_attention = _bridge(_attnc.dot_product_attention)
gru = _bridge(_attnc.functional.gru)
lstm = _bridge(_attnc.functional.lstm)
rnn = _bridge(_attnc.functional.rnn)

from . import nn  # noqa: E402
from .replacing import replace  # noqa: E402
from .sdpa import scaled_dot_product_attention  # noqa: E402

__all__ = ["nn", "replace", "scaled_dot_product_attention"]

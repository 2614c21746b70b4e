"""attnc's functions on PyTorch tensors, with PyTorch's differentiation.

Every function that has a record (`attnc.registry`) is here under its own name, with its own
arguments: `attnc.torch.dot_product_attention`, `attnc.torch.gru`. It takes and returns tensors on
the CPU and computes in their memory, whatever their strides; sparse and nested tensors raise by
name. Masks, lengths and offsets, which have no gradient, may be tensors, arrays or numbers; several
arrays any sequence of tensors, a `torch.nn.ParameterList` too. `wrap` does the same for a function
of your own.

- `backward`, `torch.func.grad`, `vjp`, `jvp`, `hessian`, `create_graph=True`: as far as the second
  derivative; of a function whose record has no tangents, the first, in reverse. Forward mode within
  forward mode, `torch.func.jvp` of `jvp`, is by plain formulas in NumPy, of attention too. Third
  derivatives raise by name.
- `torch.func.vmap` makes an axis of the function of the batched one. A parameter, which has no such
  axis, is the same for all; if it is batched, or its gradient is wanted for every example, the
  examples are computed one by one. The older ``is_grads_batched=True`` and ``vectorize=True`` of
  `torch.autograd` raise by name.
- `torch.compile(fullgraph=True)`, `torch.export`: by operators of a graph, with fixed or with
  dynamic sizes. Their backward pass runs the forward pass again. There, PyTorch has neither forward
  mode, which raises by name, nor second derivatives, which PyTorch refuses.
- Dropout and sampling draw their key from PyTorch's generator, so that `torch.manual_seed` and
  `torch.utils.checkpoint` repeat it; ``rng`` may be a key, a `torch.Generator` or NumPy's.
- A call takes no more threads than `torch.get_num_threads`.
"""

from __future__ import annotations

from typing import Any

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        "attnc.torch: PyTorch must be installed; pip install torch, or pip install attnc[torch]"
    ) from error

from attnc.registry import records
from attnc.torch import nn
from attnc.torch.bridge import wrap
from attnc.torch.replacing import replace
from attnc.torch.sdpa import scaled_dot_product_attention

_FUNCTIONS = [record.name for record in records()]
__all__ = ["nn", "replace", "scaled_dot_product_attention", "wrap", *_FUNCTIONS]

for _record in records():
    globals()[_record.name] = wrap(_record.function)


def __getattr__(name: str) -> Any:
    # Checkers see by it that there are more names than those written here.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

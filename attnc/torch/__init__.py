"""attnc's functions on PyTorch tensors, with PyTorch's differentiation.

Every function that has a record (`attnc.registry`) is here under its own name, with its own
arguments: `attnc.torch.dot_product_attention`, `attnc.torch.gru`. It takes and returns tensors
on the CPU and computes in their memory.
"""

from __future__ import annotations

from collections.abc import Callable
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
from attnc.torch.bridge import wrap

__all__ = ["wrap", *[record.name for record in records()]]

for _record in records():
    globals()[_record.name] = wrap(_record.function)

# These call the functions above.
from attnc.torch import nn  # noqa: E402
from attnc.torch.replacing import replace  # noqa: E402
from attnc.torch.sdpa import scaled_dot_product_attention  # noqa: E402

__all__ += ["nn", "replace", "scaled_dot_product_attention"]

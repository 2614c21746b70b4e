"""The functions of `attnc` with tensors of PyTorch."""

from . import nn

__all__ = ["nn"]

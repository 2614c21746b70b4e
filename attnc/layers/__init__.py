"""Layers: parameters and gradients by name; `attnc.vjp` differentiates them; no hidden state."""

from .attention import (
    AdditiveAttention,
    CosineAttention,
    DotProductAttention,
    MultiplicativeAttention,
    SelfAttention,
)
from .base import Layer
from .decoder import AttentionDecoder, greedy_decode
from .embedding import Embedding
from .linear import Linear
from .recurrent import GRU, LSTM, RNN

__all__ = [
    "AdditiveAttention",
    "AttentionDecoder",
    "CosineAttention",
    "DotProductAttention",
    "Embedding",
    "GRU",
    "LSTM",
    "Layer",
    "Linear",
    "MultiplicativeAttention",
    "RNN",
    "SelfAttention",
    "greedy_decode",
]

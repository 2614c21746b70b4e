"""Layers: parameters and gradients by name; `attnc.vjp` differentiates them; no hidden state."""

from .attention import (
    AdditiveAttention,
    CosineAttention,
    DotProductAttention,
    MultiplicativeAttention,
    SelfAttention,
)
from .base import Layer
from .decoder import AttentionDecoder
from .decoding import beam_search, greedy_decode, scheduled_inputs
from .embedding import Embedding
from .linear import Linear
from .recurrent import GRU, LSTM, RNN
from .seq2seq import Seq2Seq

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
    "Seq2Seq",
    "beam_search",
    "greedy_decode",
    "scheduled_inputs",
]

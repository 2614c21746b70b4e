"""Layers: parameters and gradients by name; `attnc.vjp` differentiates them; no hidden state."""

from .attention import (
    AdditiveAttention,
    CosineAttention,
    DotProductAttention,
    MultiplicativeAttention,
    SelfAttention,
)
from .base import Layer
from .compose import Dropout, Residual, Sequential
from .decoder import AttentionDecoder
from .decoding import beam_search, greedy_decode, sample_decode, scheduled_inputs
from .embedding import Embedding
from .linear import Linear
from .recurrent import GRU, LSTM, RNN
from .seq2seq import Seq2Seq

__all__ = [
    "AdditiveAttention",
    "AttentionDecoder",
    "CosineAttention",
    "DotProductAttention",
    "Dropout",
    "Embedding",
    "GRU",
    "LSTM",
    "Layer",
    "Linear",
    "MultiplicativeAttention",
    "RNN",
    "Residual",
    "SelfAttention",
    "Seq2Seq",
    "Sequential",
    "beam_search",
    "greedy_decode",
    "sample_decode",
    "scheduled_inputs",
]

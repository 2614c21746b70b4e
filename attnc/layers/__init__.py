"""Layers: parameters and gradients by name; `attnc.vjp` differentiates them; no hidden state."""

from .attention import (
    AdditiveAttention,
    CosineAttention,
    DotProductAttention,
    MultiplicativeAttention,
    SelfAttention,
)
from .base import Layer
from .cache import KVCache
from .compose import Dropout, Residual, Sequential
from .decoder import AttentionDecoder
from .decoding import beam_search, greedy_decode, sample_decode, scheduled_inputs
from .embedding import Embedding
from .feedforward import FeedForward
from .language_model import LanguageModel
from .linear import Linear
from .multihead import MultiHeadAttention
from .norm import LayerNorm, RMSNorm
from .positions import LearnedPositions, SinusoidalPositions
from .recurrent import GRU, LSTM, RNN
from .relative import RelativePositionBias
from .seq2seq import Seq2Seq
from .transformer import Transformer
from .transformer_layer import TransformerDecoderLayer, TransformerEncoderLayer
from .transformer_stack import TransformerDecoder, TransformerEncoder

__all__ = [
    "AdditiveAttention",
    "AttentionDecoder",
    "CosineAttention",
    "DotProductAttention",
    "Dropout",
    "Embedding",
    "FeedForward",
    "GRU",
    "KVCache",
    "LSTM",
    "LanguageModel",
    "Layer",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "MultiHeadAttention",
    "MultiplicativeAttention",
    "RMSNorm",
    "RNN",
    "RelativePositionBias",
    "Residual",
    "SelfAttention",
    "Seq2Seq",
    "Sequential",
    "SinusoidalPositions",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "beam_search",
    "greedy_decode",
    "sample_decode",
    "scheduled_inputs",
]

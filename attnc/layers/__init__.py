"""Layers: parameters and gradients by name; `attnc.vjp` differentiates them; no hidden state."""

from .attention import (
    AdditiveAttention,
    CosineAttention,
    DotProductAttention,
    MultiplicativeAttention,
    SelfAttention,
)
from .attention_over_attention import AttentionOverAttention
from .base import Layer
from .cache import KVCache
from .compose import Dropout, Residual, Sequential
from .convolution import Convolution2d
from .decoder import AttentionDecoder
from .decoding import beam_search, greedy_decode, sample_decode, scheduled_inputs
from .embedding import Embedding
from .feedforward import FeedForward
from .gated import AttentionOnAttention, GatedAttention
from .hard import HardAttention
from .hierarchical import HierarchicalAttention
from .image_pooling import AveragePool2d, MaxPool2d
from .language_model import LanguageModel
from .linear import Linear
from .local import LocalAttention
from .monotonic import ChunkwiseAttention, MonotonicAttention
from .multihead import MultiHeadAttention
from .norm import LayerNorm, RMSNorm
from .pooling import AttentionPooling
from .positions import LearnedPositions, SinusoidalPositions
from .recurrent import GRU, LSTM, RNN
from .regions import FeatureMap, ImageRegions
from .relative import RelativePositionBias
from .seq2seq import Seq2Seq
from .transformer import Transformer
from .transformer_layer import TransformerDecoderLayer, TransformerEncoderLayer
from .transformer_stack import TransformerDecoder, TransformerEncoder

__all__ = [
    "AdditiveAttention",
    "AttentionDecoder",
    "AttentionOnAttention",
    "AttentionOverAttention",
    "AttentionPooling",
    "AveragePool2d",
    "ChunkwiseAttention",
    "Convolution2d",
    "CosineAttention",
    "DotProductAttention",
    "Dropout",
    "Embedding",
    "FeatureMap",
    "FeedForward",
    "GRU",
    "GatedAttention",
    "HardAttention",
    "HierarchicalAttention",
    "ImageRegions",
    "KVCache",
    "LSTM",
    "LanguageModel",
    "Layer",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "LocalAttention",
    "MaxPool2d",
    "MonotonicAttention",
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

"""Layers that Keras lacks, or has in a slower way."""

from bigkeras.layers.activations import ApproximateGelu
from bigkeras.layers.attention import (
    AdditiveAttentionMap,
    CachedSelfAttention,
    CrossAttention,
    CrossAttentionMap,
    SelfAttention,
    SelfAttentionMap,
    SplitHeads,
)
from bigkeras.layers.depthwise import DepthwiseConv
from bigkeras.layers.naive_bayes import DistinctTokens, NaiveBayesEmbedding, SumOverRoot
from bigkeras.layers.normalization import MOMENTUM, BatchNorm
from bigkeras.layers.positions import LearnedPositions, SinusoidalPositions, rotate
from bigkeras.layers.recurrent import LSTM, RecurrentStep
from bigkeras.layers.scaled_bias import ScaledBias
from bigkeras.layers.sequences import (
    ClassToken,
    FirstToken,
    GatherPlaces,
    MaskedMax,
    PaddingMask,
    TokenType,
    ZeroPadded,
)
from bigkeras.layers.whitening import PatchWhitening

__all__ = [
    "LSTM",
    "MOMENTUM",
    "AdditiveAttentionMap",
    "ApproximateGelu",
    "BatchNorm",
    "CachedSelfAttention",
    "ClassToken",
    "CrossAttention",
    "CrossAttentionMap",
    "DepthwiseConv",
    "DistinctTokens",
    "FirstToken",
    "GatherPlaces",
    "LearnedPositions",
    "MaskedMax",
    "NaiveBayesEmbedding",
    "PaddingMask",
    "PatchWhitening",
    "RecurrentStep",
    "ScaledBias",
    "SelfAttention",
    "SelfAttentionMap",
    "SinusoidalPositions",
    "SplitHeads",
    "SumOverRoot",
    "TokenType",
    "ZeroPadded",
    "rotate",
]

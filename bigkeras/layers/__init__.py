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
from bigkeras.layers.latent_semantics import LatentSemantics, LearnedApart
from bigkeras.layers.naive_bayes import DistinctTokens, IdsBetween, NaiveBayesEmbedding, SumOverRoot
from bigkeras.layers.normalization import MOMENTUM, BatchNorm, noted_waits
from bigkeras.layers.one_hot_conv import EitherOrBoth, LeadingTokens, OneHotConv1D
from bigkeras.layers.positions import LearnedPositions, SinusoidalPositions, rotate
from bigkeras.layers.recurrent import LSTM, RecurrentStep, RowsAtOnce
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
from bigkeras.layers.sharded_embedding import ShardedEmbedding
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
    "EitherOrBoth",
    "FirstToken",
    "GatherPlaces",
    "IdsBetween",
    "LatentSemantics",
    "LeadingTokens",
    "LearnedApart",
    "LearnedPositions",
    "MaskedMax",
    "NaiveBayesEmbedding",
    "OneHotConv1D",
    "PaddingMask",
    "PatchWhitening",
    "RecurrentStep",
    "RowsAtOnce",
    "ScaledBias",
    "SelfAttention",
    "SelfAttentionMap",
    "ShardedEmbedding",
    "SinusoidalPositions",
    "SplitHeads",
    "SumOverRoot",
    "TokenType",
    "ZeroPadded",
    "noted_waits",
    "rotate",
]

"""Layers that Keras lacks, or has in a slower way."""

from bigkeras.layers.activations import ApproximateGelu
from bigkeras.layers.attention import CrossAttention, KeyValue, PaddingMask, SelfAttention
from bigkeras.layers.depthwise import DepthwiseConv
from bigkeras.layers.normalization import MOMENTUM, BatchNorm
from bigkeras.layers.pooling import ClassToken, MaskedMax
from bigkeras.layers.positions import LearnedPositions, SinusoidalPositions, rotate
from bigkeras.layers.scaled_bias import ScaledBias
from bigkeras.layers.whitening import PatchWhitening

__all__ = [
    "MOMENTUM",
    "ApproximateGelu",
    "BatchNorm",
    "ClassToken",
    "CrossAttention",
    "DepthwiseConv",
    "KeyValue",
    "LearnedPositions",
    "MaskedMax",
    "PaddingMask",
    "PatchWhitening",
    "ScaledBias",
    "SelfAttention",
    "SinusoidalPositions",
    "rotate",
]

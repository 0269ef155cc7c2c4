"""Layers that Keras lacks, or has in a slower way."""

from bigkeras.layers.activations import ApproximateGelu
from bigkeras.layers.depthwise import DepthwiseConv
from bigkeras.layers.normalization import MOMENTUM, BatchNorm
from bigkeras.layers.scaled_bias import ScaledBias
from bigkeras.layers.whitening import PatchWhitening

__all__ = ["MOMENTUM", "ApproximateGelu", "BatchNorm", "DepthwiseConv", "PatchWhitening", "ScaledBias"]

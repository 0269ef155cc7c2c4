"""EfficientNet B0–B7 and EfficientNet-Lite 0–4."""

import math
from dataclasses import dataclass

import keras

from bigkeras.layers import BatchNorm, DepthwiseConv
from bigkeras.models.blocks import check, classifier, known, small_stem

L = keras.layers


@dataclass(frozen=True)
class Variant:
    """How much wider and deeper than B0; the image size it is meant for; the dropout it was trained with."""

    width: float
    depth: float
    size: int
    dropout: float


VARIANTS = {
    "b0": Variant(1.0, 1.0, 224, 0.2),
    "b1": Variant(1.0, 1.1, 240, 0.2),
    "b2": Variant(1.1, 1.2, 260, 0.3),
    "b3": Variant(1.2, 1.4, 300, 0.3),
    "b4": Variant(1.4, 1.8, 380, 0.4),
    "b5": Variant(1.6, 2.2, 456, 0.4),
    "b6": Variant(1.8, 2.6, 528, 0.5),
    "b7": Variant(2.0, 3.1, 600, 0.5),
    "lite0": Variant(1.0, 1.0, 224, 0.2),
    "lite1": Variant(1.0, 1.1, 240, 0.2),
    "lite2": Variant(1.1, 1.2, 260, 0.3),
    "lite3": Variant(1.2, 1.4, 280, 0.3),
    "lite4": Variant(1.4, 1.8, 300, 0.3),
}

# (blocks, kernel size, stride, expansion, channels) of B0's stages: table 1 of the paper.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

# The authors' start: a normal distribution by the number of outputs. No object: one draws the same for every layer.
START = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"},
}
EPSILON = 1e-3


def efficientnet(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    variant: str = "b0",
    stem: str = "auto",
    stochastic_depth: float = 0.2,
    dropout: float | None = None,
) -> keras.Model:
    """An EfficientNet; `VARIANTS` says the image size that each is meant for, and its `dropout` where none is said.

    B0 has 5,288,548 trainable parameters with 1,000 classes, lite0 4,652,008. The lite variants have ReLU6 for swish,
    no squeeze and excitation, and a stem and top that do not grow.
    A block that has a shortcut is left out for an example with the probability `stochastic_depth`, times the share of
    the blocks that stand before it.
    `stem` is "large" (stride 2), "small" (stride 1) or "auto": small for images below 64 pixels.
    Raises ValueError for another variant.
    Sources: Tan & Le 2019 (arXiv 1905.11946), section 4; lite: the authors' code, efficientnet/lite.
    """
    known("variant", variant, VARIANTS)
    lite, scale = variant.startswith("lite"), VARIANTS[variant]
    dropout = scale.dropout if dropout is None else dropout
    check(input_shape=input_shape, num_classes=num_classes, dropout=dropout, smallest=8)
    if not 0 <= stochastic_depth < 1:
        raise ValueError(f"stochastic_depth={stochastic_depth}: from 0 to below 1")
    inputs = keras.Input(input_shape, name="image")
    filters = 32 if lite else scaled_channels(32, scale.width)
    strides = 1 if small_stem(stem, input_shape, below=64) else 2
    x = _conv(inputs, filters, 3, strides=strides, name="stem_conv")
    x = _norm_activation(x, lite, bn="stem_bn", name="stem")
    x = _stages(x, scale, lite, stochastic_depth)
    x = _conv(x, 1280 if lite else scaled_channels(1280, scale.width), 1, name="top_conv")
    x = _norm_activation(x, lite, bn="top_bn", name="top")
    x = L.GlobalAveragePooling2D(name="features")(x)
    outputs = classifier(x, num_classes=num_classes, dropout=dropout)
    return keras.Model(inputs, outputs, name=f"efficientnet_{variant}")


def scaled_channels(channels: int, width: float) -> int:
    """`width` times as many channels, rounded to a multiple of 8 that is not below 90 %."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def _stages(x, scale: Variant, lite: bool, stochastic_depth: float):
    counts = [math.ceil(blocks * scale.depth) for blocks, *_ in STAGES]
    if lite:  # its first and last stage do not grow
        counts[0], counts[-1] = STAGES[0][0], STAGES[-1][0]
    done = 0
    for stage, (count, (_, kernel_size, strides, expansion, channels)) in enumerate(
        zip(counts, STAGES, strict=True), start=1
    ):
        for block in range(1, count + 1):
            x = inverted_bottleneck(
                x,
                scaled_channels(channels, scale.width),
                kernel_size=kernel_size,
                strides=strides if block == 1 else 1,
                expansion=expansion,
                lite=lite,
                drop=stochastic_depth * done / sum(counts),
                name=f"stage{stage}" if block == count else f"stage{stage}_block{block}",
            )
            done += 1
    return x


def inverted_bottleneck(
    x, filters: int, *, kernel_size: int, strides: int, expansion: int, lite: bool, drop: float, name: str
):
    """Widens, convolves each channel, weighs the channels, narrows: `(batch, h/strides, w/strides, filters)`."""
    shortcut, inputs = x, x.shape[-1]
    if expansion > 1:
        x = _conv(x, expansion * inputs, 1, name=f"{name}_expand_conv")
        x = _norm_activation(x, lite, bn=f"{name}_expand_bn", name=f"{name}_expand")
    depthwise = DepthwiseConv(
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        depthwise_initializer=START,
        name=f"{name}_depthwise_conv",
    )
    x = _norm_activation(depthwise(x), lite, bn=f"{name}_depthwise_bn", name=f"{name}_depthwise")
    if not lite:
        x = squeeze_excite(x, max(1, inputs // 4), name=f"{name}_se")
    residual = strides == 1 and inputs == filters
    x = _conv(x, filters, 1, name=f"{name}_project_conv")
    x = BatchNorm(epsilon=EPSILON, name=f"{name}_project_bn" if residual else name)(x)
    if not residual:
        return x
    if drop:  # a dropout of whole examples is stochastic depth (Huang et al. 2016, arXiv 1603.09382)
        x = L.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return L.Add(name=name)([shortcut, x])


def squeeze_excite(x, width: int, *, name: str):
    """Weighs each channel by what the whole image holds (Hu et al. 2017, arXiv 1709.01507); keeps the shape."""
    channels = x.shape[-1]
    weights = L.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    weights = L.Conv2D(width, 1, activation="silu", kernel_initializer=START, name=f"{name}_reduce")(weights)
    weights = L.Conv2D(channels, 1, activation="sigmoid", kernel_initializer=START, name=f"{name}_expand")(weights)
    return L.Multiply(name=name)([x, weights])


def _conv(x, filters: int, kernel_size: int, *, strides: int = 1, name: str):
    return L.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer=START,
        name=name,
    )(x)


def _norm_activation(x, lite: bool, *, bn: str, name: str):
    x = BatchNorm(epsilon=EPSILON, name=bn)(x)
    return L.ReLU(6.0, name=name)(x) if lite else L.Activation("silu", name=name)(x)

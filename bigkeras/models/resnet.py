"""Residual networks in the two forms of the paper: for small images (CIFAR) and for ImageNet."""

import keras

from bigkeras.layers import BatchNorm
from bigkeras.models.blocks import check, classifier, conv, conv_bn_relu, small_stem

L = keras.layers

# depth: (blocks in each stage, whether they are bottlenecks): table 1 of the paper
IMAGENET_DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


def resnet(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    depth: int = 20,
    stem: str = "auto",
    dropout: float = 0.0,
) -> keras.Model:
    """A residual network; the depth chooses the form.

    18, 34, 50, 101, 152: the ImageNet form, four stages, shortcuts with a projection where the size changes; from 50 on
    bottlenecks with the stride at the 3×3 convolution ("v1.5"). ResNet-50 has 25,557,032 trainable parameters.
    Any other 6n+2 (20, 32, 44, 56, 110 …): the CIFAR form, three stages of n blocks of 16, 32 and 64 channels,
    shortcuts without parameters. ResNet-20 has 269,722 trainable parameters with ten classes.
    `stem` is "large" (7×7 of stride 2 and a maximum of stride 2), "small" (3×3) or "auto": small for the CIFAR form and
    for images below 64 pixels. Raises ValueError for another depth.
    Source: He et al. 2015 (arXiv 1512.03385), sections 3.3, 3.4 and 4.2.
    """
    check(input_shape=input_shape, num_classes=num_classes, dropout=dropout, smallest=8)
    small = small_stem(stem, input_shape, below=64)
    if depth not in IMAGENET_DEPTHS and (depth < 8 or depth % 6 != 2):
        raise ValueError(f"depth={depth}: one of {sorted(IMAGENET_DEPTHS)}, or 6n+2 such as 20, 32, 44, 56, 110")
    inputs = keras.Input(input_shape, name="image")
    if depth in IMAGENET_DEPTHS:
        x = _imagenet(inputs, *IMAGENET_DEPTHS[depth], small)
    elif stem == "large":
        raise ValueError(f"stem='large' with depth={depth}: the CIFAR form has the small stem")
    else:
        x = _cifar(inputs, blocks=(depth - 2) // 6)
    x = L.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, classifier(x, num_classes=num_classes, dropout=dropout), name=f"resnet{depth}")


def _cifar(x, blocks: int):
    x = conv_bn_relu(x, 16, 3, name="stem")
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, blocks + 1):
            name = f"stage{stage}" if block == blocks else f"stage{stage}_block{block}"
            strides = 2 if stage > 1 and block == 1 else 1
            shortcut = padded_shortcut(x, filters, strides, name) if strides > 1 else x
            x = basic_block(x, shortcut, filters, strides=strides, name=name)
    return x


def _imagenet(x, blocks: tuple[int, ...], bottleneck: bool, small: bool):
    if small:
        x = conv_bn_relu(x, 64, 3, name="stem")
    else:
        x = conv_bn_relu(x, 64, 7, strides=2, name="stem_relu")
        x = L.MaxPooling2D(3, strides=2, padding="same", name="stem")(x)
    for stage, count in enumerate(blocks, start=1):
        filters = 64 * 2 ** (stage - 1)
        width = 4 * filters if bottleneck else filters
        for block in range(1, count + 1):
            name = f"stage{stage}" if block == count else f"stage{stage}_block{block}"
            strides = 2 if stage > 1 and block == 1 else 1
            changes = strides > 1 or x.shape[-1] != width
            shortcut = projected_shortcut(x, width, strides, name) if changes else x
            function = bottleneck_block if bottleneck else basic_block
            x = function(x, shortcut, filters, strides=strides, name=name)
    return x


def basic_block(x, shortcut, filters: int, *, strides: int, name: str):
    """Two 3×3 convolutions beside the shortcut; gives `(batch, h/strides, w/strides, filters)`."""
    x = conv_bn_relu(x, filters, 3, strides=strides, name=f"{name}_1")
    x = conv(x, filters, 3, name=f"{name}_2_conv")
    x = BatchNorm(name=f"{name}_2_bn")(x)
    x = L.Add(name=f"{name}_add")([shortcut, x])
    return L.ReLU(name=name)(x)


def bottleneck_block(x, shortcut, filters: int, *, strides: int, name: str):
    """1×1, 3×3 and 1×1 convolutions beside the shortcut; gives `(batch, h/strides, w/strides, 4·filters)`."""
    x = conv_bn_relu(x, filters, 1, name=f"{name}_1")
    x = conv_bn_relu(x, filters, 3, strides=strides, name=f"{name}_2")
    x = conv(x, 4 * filters, 1, name=f"{name}_3_conv")
    x = BatchNorm(name=f"{name}_3_bn")(x)
    x = L.Add(name=f"{name}_add")([shortcut, x])
    return L.ReLU(name=name)(x)


def padded_shortcut(x, filters: int, strides: int, name: str):
    """Every second pixel, and zeros for the new channels: the paper's option A, without parameters."""
    x = L.MaxPooling2D(1, strides=strides, name=f"{name}_shortcut_pool")(x)
    new = filters - x.shape[-1]
    # "channels_first" names the last two axes as the ones to pad: here width (by nothing) and channels.
    padding = ((0, 0), (new // 2, new - new // 2))
    return L.ZeroPadding2D(padding, data_format="channels_first", name=f"{name}_shortcut")(x)


def projected_shortcut(x, filters: int, strides: int, name: str):
    """A 1×1 convolution and batch normalisation: the paper's option B."""
    x = conv(x, filters, 1, strides=strides, name=f"{name}_shortcut_conv")
    return BatchNorm(name=f"{name}_shortcut")(x)

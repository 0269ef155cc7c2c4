"""Wide residual networks: fewer layers than ResNet, of more channels."""

import keras

from bigkeras.layers import BatchNorm
from bigkeras.models.blocks import check, classifier, conv

L = keras.layers


def wide_resnet(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    depth: int = 28,
    width: int = 10,
    block_dropout: float = 0.0,
    dropout: float = 0.0,
) -> keras.Model:
    """A wide residual network for small images: three stages of (depth − 4) / 6 blocks, 16, 32 and 64 times `width`.

    WRN-28-10 has 36,479,194 trainable parameters with ten classes; the paper's others are 16-8, 22-8, 40-1, 40-4.
    Normalisation and ReLU come before each convolution. `block_dropout` is the paper's, between the two convolutions
    of a block (0.3 where it helped); `dropout` comes before the logits.
    Raises ValueError for a depth that is not 6n+4.
    Source: Zagoruyko & Komodakis 2016 (arXiv 1605.07146), section 2 and table 1.
    """
    check(input_shape=input_shape, num_classes=num_classes, dropout=dropout, smallest=8)
    if not 0 <= block_dropout < 1:
        raise ValueError(f"block_dropout={block_dropout}: from 0 to below 1")
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"depth={depth}: 6n+4, such as 10, 16, 22, 28, 40")
    if width < 1:
        raise ValueError(f"width={width}: at least 1")
    blocks = (depth - 4) // 6
    inputs = keras.Input(input_shape, name="image")
    x = conv(inputs, 16, 3, name="stem")
    for stage, filters in enumerate((16 * width, 32 * width, 64 * width), start=1):
        for block in range(1, blocks + 1):
            name = f"stage{stage}" if block == blocks else f"stage{stage}_block{block}"
            strides = 2 if stage > 1 and block == 1 else 1
            x = wide_block(x, filters, strides=strides, dropout=block_dropout, name=name)
    x = _bn_relu(x, name="top")
    x = L.GlobalAveragePooling2D(name="features")(x)
    outputs = classifier(x, num_classes=num_classes, dropout=dropout)
    return keras.Model(inputs, outputs, name=f"wide_resnet{depth}_{width}")


def wide_block(x, filters: int, *, strides: int, dropout: float, name: str):
    """Twice normalisation, ReLU and 3×3 convolution, beside the shortcut: `(batch, h/strides, w/strides, filters)`."""
    shortcut = x
    x = _bn_relu(x, name=f"{name}_1")
    if strides > 1 or shortcut.shape[-1] != filters:
        # The projection starts from the normalised input, as in the authors' code.
        shortcut = conv(x, filters, 1, strides=strides, name=f"{name}_shortcut")
    x = conv(x, filters, 3, strides=strides, name=f"{name}_1_conv")
    x = _bn_relu(x, name=f"{name}_2")
    if dropout:  # after the normalisation, whose variance would be that of dropped values
        x = L.Dropout(dropout, name=f"{name}_dropout")(x)
    x = conv(x, filters, 3, name=f"{name}_2_conv")
    return L.Add(name=name)([shortcut, x])


def _bn_relu(x, name: str):
    x = BatchNorm(name=f"{name}_bn")(x)
    return L.ReLU(name=f"{name}_relu")(x)

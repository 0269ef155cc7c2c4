"""Inception networks: GoogLeNet (v1) and Inception v3."""

import keras

from bigkeras.layers import BatchNorm
from bigkeras.models.blocks import check, classifier, conv, conv_bn_relu, known, small_stem

L = keras.layers

# Channels of the four branches: 1×1; 1×1 then 3×3; 1×1 then 5×5; pooling then 1×1. Table 1 of Szegedy et al. 2014.
GOOGLENET = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


def inception(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    variant: str = "v3",
    stem: str = "auto",
    dropout: float = 0.2,
) -> keras.Model:
    """GoogLeNet ("v1", meant for 224×224) or Inception v3 ("v3", meant for 299×299), without the auxiliary heads.

    v1 has 6,998,552 trainable parameters with 1,000 classes, those of the paper's network, with batch normalisation's
    offset in place of each bias and without the local response normalisation; v3 has 23,834,568.
    `stem` is "large", "small" (3×3 convolutions at full size, no maxima) or "auto": small for images below 75 pixels.
    The papers' dropout is 0.4 for v1 and 0.2 for v3. Raises ValueError for another variant.
    v3 is the network that its authors released, as `keras.applications.InceptionV3` is: its stem and the 5×5
    convolutions of its first modules are not those of the paper's table 1.
    Sources: Szegedy et al. 2014 (arXiv 1409.4842), table 1; Szegedy et al. 2015 (arXiv 1512.00567), section 6.
    """
    check(input_shape=input_shape, num_classes=num_classes, dropout=dropout, smallest=8)
    known("variant", variant, ("v1", "v3"))
    small = small_stem(stem, input_shape, below=75)
    inputs = keras.Input(input_shape, name="image")
    x = _v1(inputs, small) if variant == "v1" else _v3(inputs, small)
    x = L.GlobalAveragePooling2D(name="features")(x)
    outputs = classifier(x, num_classes=num_classes, dropout=dropout)
    return keras.Model(inputs, outputs, name=f"inception_{variant}")


def _v1(x, small: bool):
    if small:
        x = _unit(x, 64, 3, name="stem_1")
        x = _unit(x, 64, 1, name="stem_2")
        x = _unit(x, 192, 3, name="stem")
    else:
        x = _unit(x, 64, 7, strides=2, name="stem_1")
        x = L.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
        x = _unit(x, 64, 1, name="stem_2")
        x = _unit(x, 192, 3, name="stem_3")
        x = L.MaxPooling2D(3, strides=2, padding="same", name="stem")(x)
    for stage, modules in enumerate(GOOGLENET, start=1):
        if stage > 1:
            x = L.MaxPooling2D(3, strides=2, padding="same", name=f"stage{stage}_pool")(x)
        for index, channels in enumerate(modules, start=1):
            name = f"stage{stage}" if index == len(modules) else f"stage{stage}_module{index}"
            x = googlenet_module(x, channels, name=name)
    return x


def googlenet_module(x, channels: tuple[int, ...], *, name: str):
    """The four branches of GoogLeNet's module, joined: the same height and width."""
    one, reduce_three, three, reduce_five, five, pooled = channels
    a = _unit(x, one, 1, name=f"{name}_a")
    b = _unit(x, reduce_three, 1, name=f"{name}_b1")
    b = _unit(b, three, 3, name=f"{name}_b2")
    c = _unit(x, reduce_five, 1, name=f"{name}_c1")
    c = _unit(c, five, 5, name=f"{name}_c2")
    d = L.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_d_pool")(x)
    d = _unit(d, pooled, 1, name=f"{name}_d")
    return L.Concatenate(name=name)([a, b, c, d])


def _unit(x, filters: int, kernel_size: int, *, strides: int = 1, name: str):
    # A gain before ReLU and another convolution would be a second parameter for the same thing.
    x = conv(x, filters, kernel_size, strides=strides, name=f"{name}_conv")
    x = BatchNorm(scale=False, name=f"{name}_bn")(x)
    return L.ReLU(name=name)(x)


def _v3(x, small: bool):
    if small:
        for index, filters in enumerate((32, 32, 64, 80), start=1):
            x = conv_bn_relu(x, filters, 1 if filters == 80 else 3, name=f"stem_{index}")
        x = conv_bn_relu(x, 192, 3, name="stem")
    else:
        x = conv_bn_relu(x, 32, 3, strides=2, padding="valid", name="stem_1")
        x = conv_bn_relu(x, 32, 3, padding="valid", name="stem_2")
        x = conv_bn_relu(x, 64, 3, name="stem_3")
        x = L.MaxPooling2D(3, strides=2, name="stem_pool")(x)
        x = conv_bn_relu(x, 80, 1, name="stem_4")
        x = conv_bn_relu(x, 192, 3, padding="valid", name="stem_5")
        x = L.MaxPooling2D(3, strides=2, name="stem")(x)
    x = module_5x5(x, 32, name="stage1_module1")
    x = module_5x5(x, 64, name="stage1_module2")
    x = module_5x5(x, 64, name="stage1")
    x = reduction_3x3(x, name="stage2_reduction")
    for index, width in enumerate((128, 160, 160), start=1):
        x = module_7x7(x, width, name=f"stage2_module{index}")
    x = module_7x7(x, 192, name="stage2")
    x = reduction_7x7(x, name="stage3_reduction")
    x = module_wide(x, name="stage3_module1")
    return module_wide(x, name="stage3")


def _chain(x, units: tuple, *, name: str):
    """Convolutions one after another; a unit is (filters, kernel size)."""
    for index, (filters, kernel_size) in enumerate(units, start=1):
        x = conv_bn_relu(x, filters, kernel_size, name=f"{name}{index}")
    return x


def _pooled(x, filters: int, *, name: str):
    x = L.AveragePooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    return conv_bn_relu(x, filters, 1, name=name)


def module_5x5(x, pooled: int, *, name: str):
    """Figure 5 of the paper: 5×5 as two 3×3; gives 224 + `pooled` channels."""
    a = _chain(x, ((64, 1),), name=f"{name}_a")
    b = _chain(x, ((48, 1), (64, 5)), name=f"{name}_b")
    c = _chain(x, ((64, 1), (96, 3), (96, 3)), name=f"{name}_c")
    return L.Concatenate(name=name)([a, b, c, _pooled(x, pooled, name=f"{name}_d")])


def module_7x7(x, width: int, *, name: str):
    """Figure 6 of the paper: 7×7 as 1×7 and 7×1; gives 768 channels."""
    wide, high = (1, 7), (7, 1)
    a = _chain(x, ((192, 1),), name=f"{name}_a")
    b = _chain(x, ((width, 1), (width, wide), (192, high)), name=f"{name}_b")
    c = _chain(x, ((width, 1), (width, high), (width, wide), (width, high), (192, wide)), name=f"{name}_c")
    return L.Concatenate(name=name)([a, b, c, _pooled(x, 192, name=f"{name}_d")])


def module_wide(x, *, name: str):
    """Figure 7 of the paper: the last convolutions side by side; gives 2,048 channels."""
    a = _chain(x, ((320, 1),), name=f"{name}_a")
    b = _chain(x, ((384, 1),), name=f"{name}_b")
    c = _chain(x, ((448, 1), (384, 3)), name=f"{name}_c")
    split = [_chain(y, ((384, size),), name=f"{n}_{k}") for y, n in ((b, f"{name}_b"), (c, f"{name}_c"))
             for k, size in (("wide", (1, 3)), ("high", (3, 1)))]  # fmt: skip
    return L.Concatenate(name=name)([a, *split, _pooled(x, 192, name=f"{name}_d")])


def reduction_3x3(x, *, name: str):
    """Halves the image beside a maximum (section 5 of the paper); gives 480 channels more."""
    a = conv_bn_relu(x, 384, 3, strides=2, padding="valid", name=f"{name}_a")
    b = _chain(x, ((64, 1), (96, 3)), name=f"{name}_b")
    b = conv_bn_relu(b, 96, 3, strides=2, padding="valid", name=f"{name}_b3")
    return L.Concatenate(name=name)([a, b, L.MaxPooling2D(3, strides=2, name=f"{name}_pool")(x)])


def reduction_7x7(x, *, name: str):
    """Halves the image beside a maximum (section 5 of the paper); gives 512 channels more."""
    a = _chain(x, ((192, 1),), name=f"{name}_a")
    a = conv_bn_relu(a, 320, 3, strides=2, padding="valid", name=f"{name}_a2")
    b = _chain(x, ((192, 1), (192, (1, 7)), (192, (7, 1))), name=f"{name}_b")
    b = conv_bn_relu(b, 192, 3, strides=2, padding="valid", name=f"{name}_b4")
    return L.Concatenate(name=name)([a, b, L.MaxPooling2D(3, strides=2, name=f"{name}_pool")(x)])

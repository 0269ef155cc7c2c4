"""The blocks that several families share: each is a function `x -> x`."""

from collections.abc import Collection

import keras

from bigkeras.layers import BatchNorm

L = keras.layers


def conv(x, filters: int, kernel_size: int | tuple[int, int], *, strides: int = 1, padding: str = "same", name: str):
    """A convolution without bias, by He's start: `(batch, h, w, c)` → `(batch, h/strides, w/strides, filters)`."""
    return L.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def conv_bn_relu(
    x, filters: int, kernel_size: int | tuple[int, int], *, strides: int = 1, padding: str = "same", name: str
):
    """Convolution, batch normalisation and ReLU; the ReLU bears the name."""
    x = conv(x, filters, kernel_size, strides=strides, padding=padding, name=f"{name}_conv")
    x = BatchNorm(name=f"{name}_bn")(x)
    return L.ReLU(name=name)(x)


def classifier(x, *, num_classes: int, dropout: float):
    """From the features `(batch, width)` to float32 logits `(batch, num_classes)`, in every precision."""
    if dropout:
        x = L.Dropout(dropout, name="dropout")(x)
    return L.Dense(num_classes, dtype="float32", name="logits")(x)


def check(*, input_shape: tuple[int, ...], num_classes: int, dropout: float = 0.0, smallest: int = 1) -> None:
    """Raises ValueError where an argument that every family has is wrong; `smallest` is the least height and width."""
    if len(input_shape) != 3:
        raise ValueError(f"input_shape={input_shape}: (height, width, channels)")
    if min(input_shape[:2]) < smallest or input_shape[2] < 1:
        raise ValueError(f"input_shape={input_shape}: height and width are at least {smallest}, channels at least 1")
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes}: at least 1")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: from 0 to below 1")


def known(key: str, value: object, values: Collection) -> None:
    """Raises ValueError that names the value and the ones that would be right."""
    if value not in values:
        raise ValueError(f"{key}={value!r} is not one of {sorted(values)}")


def small_stem(stem: str, input_shape: tuple[int, ...], *, below: int) -> bool:
    """Whether the model starts at full size: "small", or "auto" for images below that many pixels."""
    known("stem", stem, ("auto", "small", "large"))
    return stem == "small" or (stem == "auto" and min(input_shape[:2]) < below)

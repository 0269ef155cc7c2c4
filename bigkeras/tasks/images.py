"""The image preprocessor: from encoded bytes to what a model takes. Used in training and chained into the artifact."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bigkeras.data.decode import decode_image, grey


@dataclass(frozen=True, kw_only=True)
class ImagePreprocessor:
    """How a picture becomes `(height, width, channels)` numbers.

    `resize` is "stretch" (the whole picture, its shape changed), "crop" (the middle, after the shorter side fits the
    size divided by `crop_fraction`) or "pad" (the whole picture on black). `mean` and `std` are per channel, of
    values in [0, 1].
    """

    height: int
    width: int
    channels: int
    resize: str = "stretch"
    crop_fraction: float = 1.0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        return self.height, self.width, self.channels

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Encoded bytes (scalar string) to uint8 pixels of the model's size; a graph function of one example."""
        return self.fit_size(decode_image(encoded, channels=self.channels))

    def fit_size(self, image: tf.Tensor) -> tf.Tensor:
        """uint8 `(…, any, any, 1 or 3)` to uint8 `(…, height, width, channels)`."""
        image, size = self.fit_channels(image), (self.height, self.width)
        if image.shape[-3:-1] == size:
            return image
        if self.resize == "pad":
            resized = _on_black(image, size)
        elif self.resize == "crop":
            resized = tf.image.resize(
                _middle(image, self.crop_fraction, self.height / self.width), size, antialias=True
            )
        else:
            resized = tf.image.resize(image, size, antialias=True)
        return tf.ensure_shape(to_uint8(resized), (*image.shape[:-3], *self.shape))

    def fit_channels(self, image: tf.Tensor) -> tf.Tensor:
        """uint8 `(…, 1 or 3)` to `(…, channels)`, as `decode_image` makes RGB of grey and grey of RGB."""
        if image.shape[-1] == self.channels:
            return image
        return tf.repeat(image, self.channels, axis=-1) if self.channels == 3 else grey(image)

    def normalise(self, pixels: tf.Tensor) -> tf.Tensor:
        """Pixels in [0, 255] `(batch, height, width, channels)` to float32 of about zero mean and unit variance."""
        mean = tf.constant(self.mean, tf.float32) * 255
        scale = 1 / (tf.constant(self.std, tf.float32) * 255)
        return (tf.cast(pixels, tf.float32) - mean) * scale

    def to_json(self) -> str:
        """JSON text; `from_json` gives an equal preprocessor."""
        return json.dumps({"kind": "image", **dataclasses.asdict(self)}, indent=2) + "\n"

    @staticmethod
    def from_json(values: dict[str, Any], directory: Path | None = None) -> "ImagePreprocessor":
        """The preprocessor of a parsed preprocessor.json, without its "kind"; no other file is needed."""
        tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return ImagePreprocessor(**tuples)


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Float pixels in about [0, 255], rounded and cut to uint8."""
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in [0, 1], of uint8 images `(n, height, width, channels)`."""
    values = np.arange(256) / 255
    # There are only 256 values: counting them is ten times faster than arithmetic on every pixel.
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])
    shares = counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    # A picture of one colour has no spread: 1/255 keeps the division finite.
    std = np.sqrt(np.maximum(shares @ values**2 - mean**2, (1 / 255) ** 2))
    return tuple(mean.round(5).tolist()), tuple(std.round(5).tolist())


def _on_black(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """`tf.image.resize_with_pad`, operation by operation, but that of a thin picture a line is left."""
    height, width = (tf.cast(tf.shape(image)[axis], tf.float32) for axis in (-3, -2))
    target_height, target_width = (tf.cast(side, tf.float32) for side in size)
    ratio = tf.maximum(width / target_width, height / target_height)
    high, wide = height / ratio, width / ratio
    fitted = [tf.maximum(1, tf.cast(tf.floor(side), tf.int32)) for side in (high, wide)]
    top = tf.maximum(0, tf.cast(tf.floor((target_height - high) / 2), tf.int32))
    left = tf.maximum(0, tf.cast(tf.floor((target_width - wide) / 2), tf.int32))
    return tf.image.pad_to_bounding_box(tf.image.resize(image, fitted, antialias=True), top, left, *size)


def _middle(image: tf.Tensor, fraction: float, ratio: float) -> tf.Tensor:
    """The largest middle part of shape height / width = `ratio`, times `fraction`, cut out of one image."""
    height, width = tf.shape(image)[-3], tf.shape(image)[-2]
    high, wide = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    part_high = tf.minimum(high, wide * ratio) * fraction
    rows = tf.maximum(1, tf.cast(tf.round(part_high), tf.int32))
    columns = tf.maximum(1, tf.cast(tf.round(part_high / ratio), tf.int32))
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[..., top : top + rows, left : left + columns, :]

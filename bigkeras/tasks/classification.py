"""Classification: what a raw image and its answer are, in training, evaluation and the artifact."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.bad import decode_or_mark, reason
from bigkeras.data.decode import decode_image
from bigkeras.data.pipeline import Batch, batches
from bigkeras.data.source import ArraySource, DataError, Source, Splits
from bigkeras.recipe import Choice, check_smoothing
from bigkeras.tasks.augmentation import EXAMPLE, check_fits, in_step, on_batch, resized_crop
from bigkeras.tasks.images import ImagePreprocessor, channel_statistics

MEMORY = 2**29  # bytes of decoded pixels that are kept instead of being decoded in every epoch
EXAMPLES = 16  # pictures that the parity gate compares
SAMPLE = 500  # files that tell size, mean and spread of a data set
RESIZED_BYTES = 2**28  # so many of arrays that are to be resized tell the same
MOST_FOUND = 224  # pixels: what files of any size are brought to where the recipe says nothing


def cross_entropy(label_smoothing: float = 0.0) -> Callable:
    """Cross entropy of logits with one-hot or mixed targets `(batch, classes)`, one value an example."""
    check_smoothing(label_smoothing)
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing, reduction="none")


def focal(gamma: float = 2.0, label_smoothing: float = 0.0) -> Callable:
    """Focal loss: examples that are already right count less (Lin et al. 2017, section 3)."""
    check_smoothing(label_smoothing)
    if gamma < 0:
        raise ValueError(f"gamma={gamma}: at least 0")
    return Focal(gamma, label_smoothing)


class Focal(keras.losses.Loss):
    """-Σ t (1 - p)^γ log p, from logits: Keras' own clips p at 1e-7, and below that an example teaches nothing."""

    def __init__(self, gamma: float, label_smoothing: float) -> None:
        super().__init__(name="focal", reduction="none")
        self.gamma, self.label_smoothing = gamma, label_smoothing

    def get_config(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "label_smoothing": self.label_smoothing}

    def call(self, targets: Any, logits: Any) -> Any:
        """One value an example; `targets` and `logits` are `(batch, classes)`."""
        smooth = self.label_smoothing
        logs = keras.ops.log_softmax(logits, axis=-1)
        away = keras.ops.maximum(1 - keras.ops.exp(logs), 1e-7)  # whose root has no slope at 0
        return -keras.ops.sum((targets * (1 - smooth) + smooth / logits.shape[-1]) * away**self.gamma * logs, -1)


LOSSES: dict[str, Callable] = {"cross_entropy": cross_entropy, "focal": focal}


@dataclass(frozen=True)
class ImageClassification:
    """A fitted task: the preprocessor, the classes and the augmentation of one run."""

    preprocessor: ImagePreprocessor
    class_names: tuple[str, ...]
    augmentation: tuple[Choice, ...]

    kind = "image"

    def __post_init__(self) -> None:
        check_fits(self.augmentation, self.preprocessor.height, self.preprocessor.width)

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model: `input_shape` and `num_classes`."""
        return {"input_shape": self.preprocessor.shape, "num_classes": len(self.class_names)}

    def dataset(
        self, source: Source, rows: tf.data.Dataset, batch_size: int, training: bool, on_bad: Callable[[int], None]
    ) -> tf.data.Dataset:
        """Batches of uint8 pixels, int32 labels and weights, augmented on the host where `training`."""
        augmentation = self.augmentation if training else ()
        cut = resized_crop(augmentation, (self.preprocessor.height, self.preprocessor.width))
        augment = on_batch(augmentation)

        def one(columns: Batch, randoms: tf.Tensor) -> Batch:
            if cut is None:
                return self.prepare(columns)
            return {"image": cut(decode_image(columns["image"], channels=self.preprocessor.channels), randoms)}

        def many(columns: Batch, randoms: tf.Tensor) -> tf.Tensor:
            image = columns["image"]
            if source.batched and cut is not None:
                image = self.preprocessor.fit_channels(image)
                pixels = tf.map_fn(lambda pair: cut(*pair), (image, randoms), fn_output_signature=tf.uint8)
                pixels = tf.ensure_shape(pixels, (None, *self.preprocessor.shape))
            else:
                pixels = self.preprocessor.fit_size(image)
            return augment(pixels, randoms)

        return batches(source, rows, batch_size, one=one, many=many, on_bad=on_bad)

    def prepare(self, columns: Batch) -> Batch:
        """The raw columns of one example as the pipeline prepares them in evaluation; fails where it would."""
        return {"image": self.preprocessor.decode(columns["image"])}

    def step_layers(self, seed: int) -> list[keras.layers.Layer]:
        """The augmentation that runs inside the train step."""
        return in_step(self.augmentation, seed)

    def normalise(self, pixels: tf.Tensor) -> tf.Tensor:
        """Pixels of a batch, as the model takes them."""
        return self.preprocessor.normalise(pixels)

    def ready(self, splits: Splits) -> Splits:
        """Small sets of files are decoded once."""
        return in_memory(splits, self)

    def opened(self, source: Source) -> Source:
        """The source itself."""
        return source

    def lengths(self, source: Source) -> None:
        """Every picture has the model's size."""

    def sample(self, source: Source, most: int) -> tf.Tensor:
        """At most `most` normalised pictures, spread over the source."""
        return self.normalise(sample_pixels(source, self.preprocessor, most if source.batched else None)[:most])

    def shown(self, source: Source, index: int) -> np.ndarray:
        """The pixels that the model saw."""
        if source.batched:
            return self.preprocessor.fit_size(source.fetch([index])["image"])[0].numpy()
        return self.preprocessor.decode(source.fetch(index)["image"]).numpy()

    def files(self, splits: Splits) -> dict[str, bytes]:
        """preprocessor.json, and some pictures as PNG."""
        images = sample_pixels(splits.validation or splits.train, self.preprocessor, EXAMPLES)
        pictures = {f"examples/{i:02d}.png": tf.io.encode_png(image).numpy() for i, image in enumerate(images)}
        return {"preprocessor.json": self.preprocessor.to_json().encode(), **pictures}


def image_classification(
    splits: Splits,
    augmentation: tuple[Choice, ...] = (),
    *,
    height: int | None = None,
    width: int | None = None,
    channels: int | None = None,
    resize: str = "stretch",
    crop_fraction: float = 1.0,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> ImageClassification:
    """The task fitted on the training split; sizes and statistics that are not given come from its images.

    Of picture files the size found is at most 224: cameras' pictures are of thousands of pixels, models are not.
    `height` or `width` alone means a square. `channels`: 1 (grey) or 3 (RGB). `resize`: "stretch" (the whole picture,
    its shape changed), "crop" (the middle, after the shorter side fits) or "pad" (the whole picture on black);
    `crop_fraction`: of "crop", the share of the shorter side that is kept, above 0, to 1. `mean` and `std`, a number
    for each channel, are of values from 0 (black) to 1, not to 255.
    """
    if resize not in ("stretch", "crop", "pad"):
        raise DataError(f"task.resize={resize!r}: stretch, crop or pad")
    for name, size in (("height", height), ("width", width)):
        if size is not None and size < 1:
            raise DataError(f"task.{name}={size}: at least 1 pixel")
    if channels not in (None, 1, 3):
        raise DataError(f"task.channels={channels}: 1 (grey) or 3 (RGB)")
    if not 0 < crop_fraction <= 1:
        raise DataError(f"task.crop_fraction={crop_fraction}: above 0, to 1")
    if crop_fraction != 1 and resize != "crop":
        raise DataError(f"task.crop_fraction={crop_fraction}: is for task.resize=crop, not for {resize}")
    if resize == "pad" and any(choice.name in EXAMPLE for choice in augmentation):
        raise DataError("task.resize=pad: random_resized_crop stretches its parts: take crop, or task.resize=stretch")
    shapes, found = survey(splits.train)
    if height is None or width is None:
        most = 2**31 if splits.train.batched else MOST_FOUND
        asked = height or width  # one side alone means a square
        height = height or asked or min(most, int(np.median(shapes[:, 0])))
        square = asked or resize != "stretch" or not splits.train.batched
        width = width or (height if square else int(np.median(shapes[:, 1])))
    if crop_fraction < 1 and splits.train.batched and tuple(shapes[0]) == (height, width):
        # These are not resized, and so not cropped, where a file that the artifact reads would be.
        raise DataError(
            f"task.crop_fraction={crop_fraction}: the images are {height}×{width} already: say a smaller size"
        )
    values = ImagePreprocessor(
        height=height, width=width, channels=channels or found, resize=resize, crop_fraction=crop_fraction
    )
    for name, given in (("mean", mean), ("std", std)):
        if given is not None and (len(given) != values.channels or (name == "std" and min(given) <= 0)):
            right = f"a number for each of {values.channels} channels" + ", above 0" * (name == "std")
            raise DataError(f"task.{name}={list(given)}: {right}")
        if given is not None and not all(0 <= value <= 1 for value in given):
            raise DataError(f"task.{name}={list(given)}: of pixels from 0 to 1: divide what is of 0 to 255 by 255")
    if mean is None or std is None:
        found_mean, found_std = channel_statistics(sample_pixels(splits.train, values))
        mean, std = mean or found_mean, std or found_std
    values = replace(values, mean=tuple(mean), std=tuple(std))
    return ImageClassification(values, splits.class_names, augmentation)


def survey(source: Source) -> tuple[np.ndarray, int]:
    """What a sample of the images is like: their `(height, width)`, int `(n, 2)`, and 1 channel if all are grey."""
    if isinstance(source, ArraySource) and "image" not in source.columns:
        raise DataError("image_classification needs pictures: data such as mnist, image_folder or image_table")
    if source.batched:
        shape = source.fetch(np.zeros(1, np.int64))["image"].shape
        return np.array([shape[1:3]]), int(shape[3])

    def look(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode_image(source.fetch(index)["image"], channels=3)
        return tf.shape(image)[:2], tf.reduce_all(image == image[..., :1])

    seen = list(_sampled(source, look))
    if not seen:
        why = reason(source, 0, lambda columns: decode_image(columns["image"], channels=3))
        raise DataError(f"none of {min(SAMPLE, len(source))} images can be read, such as {source.name(0)}: {why}")
    return np.stack([shape.numpy() for shape, _ in seen]), 1 if all(grey.numpy() for _, grey in seen) else 3


def sample_pixels(source: Source, preprocessor: ImagePreprocessor, most: int | None = None) -> np.ndarray:
    """uint8 `(n, height, width, channels)`: images spread over a source that can be read, at most `most`.

    None takes all images of a source in memory, of those that are to be resized what is not too large, and SAMPLE of
    a source of files.
    """
    if source.batched:
        sides = source.fetch(np.zeros(1, np.int64))["image"].shape[1:3]
        if most is None and tuple(sides) != (preprocessor.height, preprocessor.width):
            most = max(SAMPLE, RESIZED_BYTES // (preprocessor.height * preprocessor.width * preprocessor.channels))
            most = min(most, len(source))
        indices = _spread(len(source), most or len(source))
        parts = np.array_split(indices, -(-len(indices) // 1000))
        return np.concatenate([preprocessor.fit_size(source.fetch(p)["image"]).numpy() for p in parts])
    decoded = list(_sampled(source, lambda i: preprocessor.decode(source.fetch(i)["image"]), most or SAMPLE))
    if not decoded:
        why = reason(source, 0, lambda columns: preprocessor.decode(columns["image"]))
        raise DataError(f"none of the images can be read, such as {source.name(0)}: {why}")
    return np.stack([pixels.numpy() for pixels in decoded])


def in_memory(splits: Splits, task: ImageClassification) -> Splits:
    """The splits with small sets of files decoded once, to uint8 arrays of the model's size; what is bad is left out.

    Larger ones stay files that are read in every epoch, and so do those whose augmentation needs the whole picture.
    """
    if any(choice.name in EXAMPLE for choice in task.augmentation):
        return splits
    bad = list(splits.bad)
    train = _decoded(splits.train, task, bad)
    validation = splits.validation and _decoded(splits.validation, task, bad)
    return replace(splits, train=train, validation=validation, bad=tuple(bad))


def _decoded(source: Source, task: ImageClassification, bad: list[tuple[str, str]]) -> Source:
    size = int(np.prod(task.preprocessor.shape))
    if source.batched or len(source) * size > MEMORY:
        return source
    rows = tf.data.Dataset.range(len(source)).map(lambda index: {"index": index})
    ready = decode_or_mark(rows, lambda row: {**row, **task.prepare(source.fetch(row["index"]))}, os.cpu_count() or 2)
    images: list[np.ndarray] = []
    kept: list[int] = []
    for row in ready.batch(256).as_numpy_iterator():
        images.append(row["image"][row["valid"]])
        kept += row["index"][row["valid"]].tolist()
        bad += [(source.name(int(i)), reason(source, int(i), task.prepare)) for i in row["index"][~row["valid"]]]
    if not kept:
        raise DataError(f"none of the {len(source)} images can be read, such as {bad[-1][0]}: {bad[-1][1]}")
    return ArraySource({"image": np.concatenate(images)}, source.labels[kept], [source.name(i) for i in kept])


def _sampled(source: Source, function: Callable, most: int = SAMPLE) -> tf.data.Dataset:
    indices = _spread(len(source), most)
    return tf.data.Dataset.from_tensor_slices(indices).map(function, num_parallel_calls=4).ignore_errors()


def _spread(size: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, size - 1, min(most, size)).astype(np.int64))

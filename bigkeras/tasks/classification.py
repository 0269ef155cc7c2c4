"""Classification: what a raw image and its answer are, in training, evaluation and the artifact."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.pipeline import Batch, batches
from bigkeras.data.source import DataError, Source, Splits
from bigkeras.recipe import Choice
from bigkeras.tasks.augmentation import in_step, on_batch, resized_crop
from bigkeras.tasks.images import ImagePreprocessor, channel_statistics

SAMPLE = 2000  # images that tell size, mean and spread of a data set of files


def cross_entropy(label_smoothing: float = 0.0) -> Callable:
    """Cross entropy of logits with one-hot or mixed targets `(batch, classes)`, one value an example."""
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing, reduction="none")


def focal(gamma: float = 2.0, label_smoothing: float = 0.0) -> Callable:
    """Focal loss: examples that are already right count less (Lin et al. 2017, section 3)."""
    return keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=gamma, from_logits=True, label_smoothing=label_smoothing, reduction="none"
    )


LOSSES: dict[str, Callable] = {"cross_entropy": cross_entropy, "focal": focal}


@dataclass(frozen=True)
class ImageClassification:
    """A fitted task: the preprocessor, the classes and the augmentation of one run."""

    preprocessor: ImagePreprocessor
    class_names: tuple[str, ...]
    augmentation: tuple[Choice, ...]

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
                return {"image": self.preprocessor.decode(columns["image"])}
            from bigkeras.data.decode import decode_image

            return {"image": cut(decode_image(columns["image"], channels=self.preprocessor.channels), randoms)}

        def many(columns: Batch, randoms: tf.Tensor) -> tf.Tensor:
            image = columns["image"]
            if source.batched and cut is not None:
                pixels = tf.map_fn(lambda pair: cut(*pair), (image, randoms), fn_output_signature=tf.uint8)
                pixels = tf.ensure_shape(pixels, (None, *self.preprocessor.shape))
            else:
                pixels = self.preprocessor.fit_size(image)
            return augment(pixels, randoms)

        return batches(source, rows, batch_size, one=one, many=many, on_bad=on_bad)

    def step_layers(self, seed: int) -> list[keras.layers.Layer]:
        """The augmentation that runs inside the train step."""
        return in_step(self.augmentation, seed)

    def normalise(self, pixels: tf.Tensor) -> tf.Tensor:
        """Pixels of a batch, as the model takes them."""
        return self.preprocessor.normalise(pixels)


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
    """The task fitted on the training split; sizes and statistics that are not given come from its images."""
    if resize not in ("stretch", "crop", "pad"):
        raise DataError(f"task.resize={resize!r}: stretch, crop or pad")
    sample = sample_images(splits.train)
    first = sample[0].shape
    shapes = np.array([image.shape[:2] for image in sample])
    height = height or width or int(np.median(shapes[:, 0]))
    width = width or height if height and not width else width
    channels = channels or (1 if all(_is_grey(i) for i in sample[:200]) else first[-1])
    draft = ImagePreprocessor(height=height, width=int(width), channels=channels, resize=resize, crop_fraction=crop_fraction)
    if mean is None or std is None:
        mean, std = channel_statistics(_as_size(sample, draft, splits.train))
    values = ImagePreprocessor(**{**vars(draft), "mean": tuple(mean), "std": tuple(std)})
    return ImageClassification(values, splits.class_names, augmentation)


TASKS: dict[str, Callable] = {"image_classification": image_classification}


def sample_images(source: Source) -> list[np.ndarray]:
    """Up to SAMPLE images of a source, evenly spread, decoded at their own size; unreadable ones are left out."""
    indices = np.unique(np.linspace(0, len(source) - 1, min(SAMPLE, len(source))).astype(np.int64))
    if source.batched:
        return list(source.fetch(indices)["image"].numpy())
    from bigkeras.data.decode import decode_image

    def decode(index: tf.Tensor) -> tf.Tensor:
        return decode_image(source.fetch(index)["image"], channels=3)

    dataset = tf.data.Dataset.from_tensor_slices(indices).map(decode, num_parallel_calls=4).ignore_errors()
    images = [image.numpy() for image in dataset]
    if not images:
        raise DataError(f"{source.name(0)}: none of the images can be read")
    return images


def _is_grey(image: np.ndarray) -> bool:
    return image.shape[-1] == 1 or bool((image[..., :1] == image).all())


def _as_size(sample: list[np.ndarray], draft: ImagePreprocessor, source: Source) -> np.ndarray:
    columns = getattr(source, "columns", None)
    if columns is not None and columns["image"].shape[1:] == draft.shape:
        return columns["image"]  # all of them: exact, and as quick
    return np.stack([draft.fit_size(tf.constant(i[..., : draft.channels])).numpy() for i in sample])

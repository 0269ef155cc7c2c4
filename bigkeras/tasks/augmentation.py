"""Augmentation of images, in training only.

On the host, as functions of the pixels and an example's random numbers from the plan: `flip`, `crop`,
`random_resized_crop`. Inside the train step, on the batch: Keras' own layers, whose random state is in the checkpoint.
Keras' AugMix is not among them: it draws its operations by Python's `random` while the step is traced, so once a run.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import keras
import tensorflow as tf
from keras import ops

from bigkeras.recipe import Choice, RecipeError, check, defaults
from bigkeras.tasks.images import to_uint8


def flip(pixels: tf.Tensor, randoms: tf.Tensor) -> tf.Tensor:
    """Left and right exchanged in every second epoch; `(batch, height, width, channels)`."""
    columns = tf.range(pixels.shape[2])
    # Gathering the columns of the whole batch takes half as long as `tf.reverse` and a choice.
    chosen = tf.where(randoms[:, :1] < 0.5, columns[::-1], columns)
    return tf.gather(pixels, chosen, axis=2, batch_dims=1)


def crop(
    pixels: tf.Tensor, randoms: tf.Tensor, padding: int = 4, mode: Literal["reflect", "constant"] = "reflect"
) -> tf.Tensor:
    """Every image moved by up to `padding` pixels either way, the border filled by reflection or zeros.

    `padding` is less than the image's height and width. Keras' RandomCrop cuts the whole batch at one place, and
    RandomTranslation interpolates between pixels.
    """
    height, width = pixels.shape[1], pixels.shape[2]
    moves = tf.cast(tf.floor(randoms[:, 1:3] * (2 * padding + 1)), tf.int32)
    rows = moves[:, :1] + tf.range(height)
    if mode == "reflect":
        # By its indices: `tf.pad` takes ten times as long to reflect as to gather.
        rows = _reflected(rows - padding, height)
        wide = tf.gather(pixels, _reflected(tf.range(-padding, width + padding), width), axis=2)
    else:
        wide = tf.pad(pixels, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    high = tf.gather(wide, rows, axis=1, batch_dims=1)
    # Images that move alike are cut together: whole lines are copied instead of single pixels.
    places = tf.dynamic_partition(tf.range(tf.shape(pixels)[0]), moves[:, 1], 2 * padding + 1)
    groups = tf.dynamic_partition(high, moves[:, 1], 2 * padding + 1)
    cut = [group[:, :, left : left + width] for left, group in enumerate(groups)]
    return tf.ensure_shape(tf.dynamic_stitch(places, cut), pixels.shape)


def _reflected(places: tf.Tensor, count: int) -> tf.Tensor:
    """Places in [-count + 1, 2 · count - 2] as those in [0, count) that a mirror at either end shows."""
    return (count - 1) - tf.abs((count - 1) - tf.abs(places))


def random_resized_crop(
    image: tf.Tensor, randoms: tf.Tensor, size: tuple[int, int], minimum_area: float = 0.35
) -> tf.Tensor:
    """A part of one image, uint8 `(any, any, channels)`, of random area and shape, as `(*size, channels)`.

    The area is uniform from `minimum_area` to 1 of the picture, the ratio of its sides log-uniform from 3/4 to 4/3, or
    the nearest that the picture holds (Szegedy et al. 2014, "Going deeper with convolutions", section 6); Keras has no
    such layer.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    high, wide = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = (minimum_area + (1 - minimum_area) * randoms[3]) * high * wide
    # Within what the picture holds, so that the area stays what was drawn.
    ratio = tf.clip_by_value(tf.exp((randoms[4] * 2 - 1) * tf.math.log(4 / 3)), area / high**2, wide**2 / area)
    rows = tf.clip_by_value(tf.cast(tf.round(tf.sqrt(area / ratio)), tf.int32), 1, height)
    columns = tf.clip_by_value(tf.cast(tf.round(tf.sqrt(area * ratio)), tf.int32), 1, width)
    top = tf.cast(tf.floor(randoms[5] * tf.cast(height - rows + 1, tf.float32)), tf.int32)
    left = tf.cast(tf.floor(randoms[6] * tf.cast(width - columns + 1, tf.float32)), tf.int32)
    part = image[top : top + rows, left : left + columns]
    return to_uint8(tf.ensure_shape(tf.image.resize(part, size, antialias=True), (*size, image.shape[-1])))


BATCH: dict[str, Callable] = {"flip": flip, "crop": crop}
EXAMPLE: dict[str, Callable] = {"random_resized_crop": random_resized_crop}
LAYERS: dict[str, Callable] = {
    "rand_augment": keras.layers.RandAugment,
    "mix_up": keras.layers.MixUp,
    "cut_mix": keras.layers.CutMix,
    "random_erasing": keras.layers.RandomErasing,
    "random_flip": keras.layers.RandomFlip,
    "random_rotation": keras.layers.RandomRotation,
    "random_translation": keras.layers.RandomTranslation,
    "random_zoom": keras.layers.RandomZoom,
    "random_shear": keras.layers.RandomShear,
    "random_perspective": keras.layers.RandomPerspective,
    "random_elastic_transform": keras.layers.RandomElasticTransform,
    "random_brightness": keras.layers.RandomBrightness,
    "random_contrast": keras.layers.RandomContrast,
    "random_color_jitter": keras.layers.RandomColorJitter,
    "random_grayscale": keras.layers.RandomGrayscale,
    "random_gaussian_blur": keras.layers.RandomGaussianBlur,
    "random_sharpness": keras.layers.RandomSharpness,
}
AUGMENTATIONS = {**BATCH, **EXAMPLE, **LAYERS}
# Their arguments that the trainer gives, and those of texts'.
GIVEN = ("pixels", "image", "ids", "randoms", "size", "preprocessor", "seed", "name")


FLIPS = ("horizontal", "vertical", "horizontal_and_vertical")
MIXING = ("MixUp", "CutMix")  # the layers that change labels, too


def applied(layers: Sequence[keras.layers.Layer], pixels: Any, targets: Any, weights: Any) -> tuple[Any, Any]:
    """Pixels `(batch, height, width, channels)` and one-hot labels after Keras' layers, one after the other.

    `weights`: `(batch,)`. A picture that could not be read has none, is black and keeps its label: before it would be
    mixed into others, the first picture that counts takes its place.
    """
    for layer in layers:
        if type(layer).__name__ in MIXING:
            counts = ops.greater(weights, 0)
            rows = ops.where(counts, ops.arange(ops.shape(weights)[0]), ops.cast(ops.argmax(counts), "int32"))
            batch = {"images": ops.take(pixels, rows, axis=0), "labels": ops.take(targets, rows, axis=0)}
            mixed = layer(batch, training=True)
            pixels, targets = mixed["images"], mixed["labels"]
        else:
            pixels = layer(pixels, training=True)
    return pixels, targets


def check_augmentation(choices: Sequence[Choice]) -> None:
    """Raises RecipeError for a name or argument that is not there."""
    # A picture is cut out of one once; and the others would be drawn alike both times, as a flip that undoes itself.
    twice = [name for name in (*EXAMPLE, *BATCH) if sum(choice.name == name for choice in choices) > 1]
    if twice:
        raise RecipeError(f"augmentation {twice[0]}: stands there twice")
    for choice in choices:
        check("augmentation", choice, AUGMENTATIONS, given=GIVEN)
        area = choice.args.get("minimum_area", 1)
        if choice.name in EXAMPLE and not 0 < area <= 1:
            raise RecipeError(f"augmentation {choice.name}: minimum_area={area}: a share of the picture above 0, to 1")
        # What Keras takes and does not heed, or turns into another thing.
        mode, alpha = choice.args.get("mode", FLIPS[0]), choice.args.get("alpha", 1)
        if choice.name == "random_flip" and mode not in FLIPS:
            raise RecipeError(f"augmentation random_flip: mode={mode!r}: one of {', '.join(FLIPS)}")
        if choice.name == "mix_up" and not (isinstance(alpha, int | float) and alpha > 0):
            raise RecipeError(f"augmentation mix_up: alpha={alpha}: above 0; without it nothing is mixed")


def check_fits(choices: Sequence[Choice], height: int, width: int) -> None:
    """Raises RecipeError for a crop that moves images by more than they have."""
    for choice in choices:
        padding = choice.args.get("padding", defaults(crop)["padding"])
        if choice.name == "crop" and not 0 <= padding < min(height, width):
            raise RecipeError(f"augmentation crop: padding={padding}: from 0 to {min(height, width) - 1} pixels here")


def on_batch(choices: Sequence[Choice]) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The host's functions of a whole batch, chained."""
    functions = [partial(BATCH[c.name], **c.args) for c in choices if c.name in BATCH]

    def apply(pixels: tf.Tensor, randoms: tf.Tensor) -> tf.Tensor:
        for function in functions:
            pixels = function(pixels, randoms)
        return pixels

    return apply


def resized_crop(choices: Sequence[Choice], size: tuple[int, int]) -> Callable | None:
    """The host's function of one decoded image that replaces resizing, or None."""
    found = [c for c in choices if c.name in EXAMPLE]
    return partial(EXAMPLE[found[-1].name], size=size, **found[-1].args) if found else None


def in_step(choices: Sequence[Choice], seed: int) -> list[keras.layers.Layer]:
    """Keras' layers that run on the batch inside the train step, seeded; pixels in [0, 255]."""
    return [
        LAYERS[c.name](**_tuples(c.args), seed=seed + number, name=f"augment_{number}_{c.name}")
        for number, c in enumerate(choices)
        if c.name in LAYERS
    ]


def _tuples(args: Any) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in args.items()}

"""The image preprocessor: pictures on black."""

import numpy as np
import pytest
import tensorflow as tf

from bigkeras.tasks.images import ImagePreprocessor, _on_black

PIXELS = np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8)


def padded(size: tuple[int, int]) -> ImagePreprocessor:
    return ImagePreprocessor(height=size[0], width=size[1], channels=3, resize="pad")


@pytest.mark.parametrize("size", [(32, 32), (33, 17), (5, 64), (224, 224)])
def test_a_picture_on_black_is_tensorflows_bit_for_bit(size):
    specification = [tf.TensorSpec((None, None, 3), tf.uint8)]
    ours = tf.function(lambda image: _on_black(image, size), specification)
    theirs = tf.function(lambda image: tf.image.resize_with_pad(image, *size, antialias=True), specification)
    random = np.random.default_rng(1)
    for height, width in [*random.integers(20, 97, (15, 2)), (32, 32), (97, 20), (20, 97)]:
        part = tf.constant(PIXELS[:height, :width])
        np.testing.assert_array_equal(ours(part), theirs(part))
        np.testing.assert_array_equal(_on_black(part, size), tf.image.resize_with_pad(part, *size, antialias=True))


def test_batches_on_black_are_tensorflows_bit_for_bit():
    batch = tf.constant(PIXELS[:96].reshape(3, 32, 131, 3))
    theirs = tf.image.resize_with_pad(batch, 40, 30, antialias=True)
    np.testing.assert_array_equal(_on_black(batch, (40, 30)), theirs)


@pytest.mark.parametrize(("height", "width"), [(1, 100), (100, 1), (2, 131)])
def test_of_a_picture_that_is_thin_a_line_is_left_on_black(height, width):
    image = tf.constant(np.full((height, width, 3), 200, np.uint8))
    pixels = padded((32, 32)).fit_size(image).numpy()
    wide = width > height
    lines = (pixels if wide else pixels.transpose(1, 0, 2)).max((1, 2))
    assert lines.tolist() == [0] * 15 + [200] + [0] * 16

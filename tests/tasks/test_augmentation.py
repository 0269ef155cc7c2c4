"""What the host's augmentation does to every pixel."""

import numpy as np
import pytest
import tensorflow as tf

from bigkeras.recipe import Choice, RecipeError
from bigkeras.tasks.augmentation import check_augmentation, check_fits, crop, flip, random_resized_crop

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (40, 9, 7, 3), np.uint8)
RANDOMS = RANDOM.random((40, 8), np.float32)


@pytest.mark.parametrize(("mode", "numpy_mode"), [("reflect", "reflect"), ("constant", "constant")])
def test_a_crop_is_a_window_of_the_padded_image_at_its_random_place(mode, numpy_mode):
    padded = np.pad(PIXELS, [(0, 0), (3, 3), (3, 3), (0, 0)], mode=numpy_mode)
    tops, lefts = np.floor(RANDOMS[:, 1:3] * 7).astype(int).T
    expected = [image[t : t + 9, left : left + 7] for image, t, left in zip(padded, tops, lefts, strict=True)]
    np.testing.assert_array_equal(crop(PIXELS, RANDOMS, 3, mode), expected)


def test_a_flip_exchanges_left_and_right_of_the_images_that_are_chosen():
    chosen = RANDOMS[:, 0] < 0.5
    assert 0 < chosen.sum() < len(chosen)
    flipped = flip(PIXELS, RANDOMS)
    np.testing.assert_array_equal(flipped[chosen], PIXELS[chosen, :, ::-1])
    np.testing.assert_array_equal(flipped[~chosen], PIXELS[~chosen])


@pytest.mark.parametrize("size", [(100, 400), (480, 640), (300, 90)])
def test_what_is_cut_out_has_the_area_that_was_drawn(size):
    """A picture whose value says how much of it is cut: a ramp, of which the middle and the spread tell the part."""
    down, across = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    ramp = tf.constant(np.stack([255 * down / size[0], 255 * across / size[1]], -1).astype("uint8"))
    for draw in np.random.default_rng(0).random((40, 8)).astype("float32"):
        part = random_resized_crop(ramp, tf.constant(draw), (64, 64), 0.5).numpy().astype(float)
        covered = [np.ptp(part[..., axis]) / 255 for axis in (0, 1)]
        assert covered[0] * covered[1] == pytest.approx(0.5 + 0.5 * draw[3], abs=0.06)


def test_a_crop_that_cannot_be_is_refused():
    with pytest.raises(RecipeError, match=r"padding=7: from 0 to 6 pixels"):
        check_fits([Choice("crop", {"padding": 7})], 9, 7)
    with pytest.raises(RecipeError, match=r"reflekt.*reflect"):
        check_augmentation([Choice("crop", {"mode": "reflekt"})])
    with pytest.raises(RecipeError, match="random_resized_crop: stands there twice"):
        check_augmentation([Choice("random_resized_crop"), Choice("flip"), Choice("random_resized_crop")])
    for area in (0, 1.5, -1):
        with pytest.raises(RecipeError, match=f"random_resized_crop: minimum_area={area}: a share"):
            check_augmentation([Choice("random_resized_crop", {"minimum_area": area})])


def test_augmix_is_refused_since_its_draws_are_made_once_and_not_kept():
    with pytest.raises(RecipeError, match="augmentation 'aug_mix' is not one of"):
        check_augmentation([Choice("aug_mix")])

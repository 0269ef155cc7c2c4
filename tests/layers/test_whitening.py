"""PatchWhitening: what adapt makes of the images."""

import numpy as np
import pytest

from bigkeras.layers import PatchWhitening


def smooth_images(count=40):
    """Images in which neighbouring pixels are alike, as in photographs."""
    return np.random.default_rng(0).normal(size=(count, 8, 8, 3)).cumsum(1).cumsum(2).astype("float32")


def test_adapt_makes_the_outputs_uncorrelated_with_unit_variance():
    layer = PatchWhitening(2)
    images = smooth_images()
    assert layer(images).shape == (40, 7, 7, 24)
    layer.adapt(images)
    outputs = np.array(layer(images)).reshape(-1, 24)
    np.testing.assert_allclose(outputs[:, :12], -outputs[:, 12:], atol=1e-3)
    covariance = outputs[:, :12].T @ outputs[:, :12] / len(outputs)
    np.testing.assert_allclose(covariance, np.eye(12), atol=0.05)


def test_only_the_bias_is_trained():
    layer = PatchWhitening(2)
    layer.build((None, 8, 8, 3))
    assert [weight.name for weight in layer.trainable_weights] == ["bias"]


def test_adapt_names_images_of_a_wrong_shape():
    layer = PatchWhitening(2)
    layer.build((None, 8, 8, 3))
    with pytest.raises(ValueError, match=r"\(4, 8, 8, 1\)"):
        layer.adapt(np.zeros((4, 8, 8, 1)))

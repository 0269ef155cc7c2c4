"""A first convolution that whitens image patches, with weights from the training images' statistics."""

import keras
import numpy as np
from keras import ops

# As in the paper's code: keeps directions of almost no variance from being blown up.
SMALLEST_VARIANCE = 5e-4
ADAPT_IMAGES = 5000


@keras.saving.register_keras_serializable(package="bigkeras")
class PatchWhitening(keras.layers.Layer):
    """Projects each patch on the scaled eigenvectors of the patches' covariance, and on their negatives.

    `(batch, height, width, channels)` → `(batch, height - size + 1, width - size + 1, 2 · size² · channels)`: 24
    channels for 2×2 patches of RGB. The kernel is frozen: `adapt` computes it; before that it is random and
    orthogonal. The bias is trained. No stock layer takes a convolution's weights from data.
    Source: Jordan 2024 (arXiv 2404.00498), section 3.2, after Page 2019.
    """

    def __init__(self, patch_size: int = 2, **kwargs):
        super().__init__(**kwargs)
        if patch_size < 1:
            raise ValueError(f"patch_size={patch_size}: at least 1")
        self.patch_size = patch_size

    def build(self, input_shape) -> None:
        """Makes the frozen kernel and the trainable bias."""
        size, channels = self.patch_size, input_shape[-1]
        filters = 2 * size * size * channels
        shape = (size, size, channels, filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="orthogonal", trainable=False)
        self.bias = self.add_weight(name="bias", shape=(filters,), initializer="zeros")

    def call(self, inputs):
        """Gives `(batch, height - size + 1, width - size + 1, 2 · size² · channels)`."""
        return ops.conv(inputs, self.kernel, strides=1, padding="valid") + self.bias

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        batch, height, width, channels = input_shape
        less = self.patch_size - 1
        sizes = (None if s is None else s - less for s in (height, width))
        return (batch, *sizes, 2 * self.patch_size**2 * channels)

    def adapt(self, images) -> None:
        """Sets the kernel from normalised training images `(n, height, width, channels)`; 5,000 are enough and used.

        Raises ValueError where the images are of another rank or number of channels than the layer was built for.
        """
        images = np.asarray(images[:ADAPT_IMAGES], "float32")
        size, channels = self.patch_size, self.kernel.shape[2]
        if images.ndim != 4 or images.shape[-1] != channels or not len(images):
            raise ValueError(f"images of shape {images.shape}: adapt needs (n, height, width, {channels})")
        values, vectors = np.linalg.eigh(_patch_covariance(images, size))
        scaled = (vectors / np.sqrt(values + SMALLEST_VARIANCE))[:, ::-1]  # largest variance first
        kernel = np.concatenate([scaled, -scaled], axis=1)
        self.kernel.assign(kernel.reshape(size, size, channels, -1))

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "patch_size": self.patch_size}


def _patch_covariance(images: np.ndarray, size: int) -> np.ndarray:
    """The second moments of all patches, `(size² · channels, size² · channels)`, summed up in float64, part by part."""
    length = size * size * images.shape[-1]
    total, count = np.zeros((length, length)), 0
    for start in range(0, len(images), 500):
        windows = np.lib.stride_tricks.sliding_window_view(images[start : start + 500], (size, size), axis=(1, 2))
        # (n, h, w, channels, size, size) → rows in the order of a kernel: (size, size, channels)
        patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, length)
        total += patches.T @ patches
        count += len(patches)
    return total / count

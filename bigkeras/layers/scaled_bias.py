"""A bias that learns faster than the weights."""

import keras


@keras.saving.register_keras_serializable(package="bigkeras")
class ScaledBias(keras.layers.Layer):
    """Adds √rate times a trainable vector to the last axis: under SGD, a bias that learns `rate` times as fast.

    Keras' optimizers have one rate for all variables. Source: Jordan 2024 (arXiv 2404.00498), section 3.4, rate 64.
    """

    def __init__(self, rate: float = 64.0, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate

    def build(self, input_shape):
        """One number for each channel, zero at first."""
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")
        self.built = True

    def call(self, inputs):
        """Takes and gives `(…, channels)`."""
        return inputs + self.bias * self.rate**0.5

    def compute_output_shape(self, input_shape):
        """The input's."""
        return input_shape

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "rate": self.rate}

"""Activations that the stock layers do not offer by name."""

import keras


@keras.saving.register_keras_serializable(package="bigkeras")
class ApproximateGelu(keras.layers.Layer):
    """GELU by tanh, on any shape. `Activation("gelu")` is the exact one: slower, and ONNX has no operator for it.

    Source: Hendrycks & Gimpel 2016 (arXiv 1606.08415), section 2.
    """

    def call(self, inputs):
        """Gives the shape it takes."""
        return keras.activations.gelu(inputs, approximate=True)

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return input_shape

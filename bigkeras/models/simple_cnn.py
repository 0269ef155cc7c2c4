"""The smallest useful convolutional network."""

import keras

from bigkeras.models.blocks import check, classifier

L = keras.layers


def simple_cnn(
    *, input_shape: tuple[int, int, int], num_classes: int, filters: int = 32, width: int = 128, dropout: float = 0.0
) -> keras.Model:
    """One 3×3 convolution of `filters` channels, a 2×2 maximum, and a dense layer of `width` units.

    693,962 parameters at 28×28×1 with ten classes: a first model for a new data set, and a fast one for tests.
    Raises ValueError for images below 4 pixels.
    """
    check(input_shape=input_shape, num_classes=num_classes, dropout=dropout, smallest=4)
    inputs = keras.Input(input_shape, name="image")
    x = L.Conv2D(filters, 3, activation="relu", name="stem")(inputs)
    x = L.MaxPooling2D(2, name="stage1")(x)
    x = L.Flatten(name="flatten")(x)
    x = L.Dense(width, activation="relu", name="features")(x)
    return keras.Model(inputs, classifier(x, num_classes=num_classes, dropout=dropout), name="simple_cnn")

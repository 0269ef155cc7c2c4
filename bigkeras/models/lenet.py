"""LeNet-5."""

import keras

from bigkeras.models.blocks import check, classifier

L = keras.layers


def lenet(
    *, input_shape: tuple[int, int, int], num_classes: int, activation: str = "relu", dropout: float = 0.0
) -> keras.Model:
    """LeNet-5: two 5×5 convolutions (6 and 16 channels), each with a 2×2 maximum, then 120 and 84 units.

    61,706 parameters at 28×28×1 and at 32×32×1 with ten classes. Images below 32 pixels are padded at the first
    convolution, as the paper's 28-pixel digits were. `activation="tanh"` is nearly the paper's (a scaled one); its
    second convolution read some of the 6 channels only (table I), its pooling was a trained average and its last layer
    a radial basis function. Raises ValueError for images below 12 pixels.
    Source: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", section II.B.
    """
    check(input_shape=input_shape, num_classes=num_classes, dropout=dropout, smallest=12)
    inputs = keras.Input(input_shape, name="image")
    padding = "same" if min(input_shape[:2]) < 32 else "valid"
    x = L.Conv2D(6, 5, padding=padding, activation=activation, name="stem")(inputs)
    x = L.MaxPooling2D(2, name="stage1")(x)
    x = L.Conv2D(16, 5, activation=activation, name="stage2_conv")(x)
    x = L.MaxPooling2D(2, name="stage2")(x)
    x = L.Flatten(name="flatten")(x)
    x = L.Dense(120, activation=activation, name="hidden")(x)
    x = L.Dense(84, activation=activation, name="features")(x)
    return keras.Model(inputs, classifier(x, num_classes=num_classes, dropout=dropout), name="lenet")

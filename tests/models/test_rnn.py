"""The plain recurrent network: its function f."""

import keras
import numpy as np
import pytest

from bigkeras.models import MODELS

SIZES = {"vocabulary_size": 9, "length": 5, "num_classes": 3, "units": 4, "embedding_width": 2}
FUNCTIONS = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_the_states_follow_the_function_that_is_said(activation):
    keras.utils.set_random_seed(0)
    model = MODELS["rnn"](**SIZES, activation=activation)
    tokens = np.array([[3, 5, 8, 1]], "int32")
    (table,), (w, u, b) = (model.get_layer(name).get_weights() for name in ("embedding", "stage1"))
    state = np.zeros(4)
    for token in tokens[0]:
        state = FUNCTIONS[activation](table[token] @ w + state @ u + b)
    found = keras.Model(model.input, model.get_layer("features").output)(tokens)
    np.testing.assert_allclose(found[0], state, atol=1e-6)


def test_tanh_is_the_function_where_none_is_said_and_an_unknown_one_is_named():
    assert MODELS["rnn"](**SIZES).get_layer("stage1").activation is keras.activations.tanh
    with pytest.raises(ValueError, match="tangens"):
        MODELS["rnn"](**SIZES, activation="tangens")

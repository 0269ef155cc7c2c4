"""One tiny exported classifier, and pictures, for all tests of the apps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras.classifier_artifact import export_classifier
from bigkeras.tasks import ImagePreprocessor

LABELS = ["red", "绿", "blue"]
COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250)}


def colour_model():
    """Logits that are the mean colours: red, green and blue pictures get the class of their name."""
    inputs = keras.Input((8, 8, 3))
    means = keras.layers.GlobalAveragePooling2D(name="features")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(means))
    model.get_layer("logits").set_weights([4 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    return model


def picture(colour, size=(10, 12)):
    """uint8 `(height, width, 3)` of one colour."""
    return np.broadcast_to(np.array(COLOURS[colour], np.uint8), (*size, 3))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder of models with one, `colours`."""
    folder = tmp_path_factory.mktemp("models")
    examples = [tf.io.encode_png(picture(colour)).numpy() for colour in COLOURS]
    preprocessor = ImagePreprocessor(height=8, width=8, channels=3)
    export_classifier(colour_model(), preprocessor, LABELS, folder / "colours", examples=examples)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder: blue.png, red.jpg, ein grün.bmp (a TIFF inside nested/), notes.txt and a picture that is none."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    (folder / "nested").mkdir()
    Image.fromarray(picture("blue")).save(folder / "blue.png")
    Image.fromarray(picture("red")).save(folder / "red.jpg")
    Image.fromarray(picture("green")).save(folder / "nested" / "ein 绿.tiff")
    (folder / "notes.txt").write_text("not a picture")
    return folder

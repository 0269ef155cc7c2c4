"""The artifact: equal to the Keras model in both loaders, stored once, and never half written."""

import importlib
import json
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras.artifact import export
from bigkeras.classifier_artifact import export_classifier
from bigkeras.float32 import in_float32
from bigkeras.models import MODELS
from bigkeras.models.pretrained import copy_weights_by_name
from bigkeras.parity import ExportError, softmax
from bigkeras.placing import placed
from bigkeras.predictions import loaded_artifact

LABELS = ["cat", "犬", "a bird"]


class Halves:
    """A stand-in for the image preprocessor: 8 × 8 × 3, values about -1 to 1."""

    def decode(self, encoded):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.ensure_shape(tf.cast(tf.image.resize(image, (8, 8)), tf.uint8), (8, 8, 3))

    def normalise(self, pixels):
        return tf.cast(pixels, tf.float32) / 127.5 - 1


class OtherInGraphs(Halves):
    """A preprocessor whose graph does not do what eager execution does."""

    def normalise(self, pixels):
        values = super().normalise(pixels)
        return values if tf.executing_eagerly() else values * 1.5


def tiny_model(policy="float32", classes=3):
    """Convolution, batch normalisation with statistics that matter, dropout, and far-apart logits."""
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, name="stem", dtype=policy)(x)
    x = keras.layers.BatchNormalization(name="norm", dtype=policy)(x)
    x = keras.layers.Activation("relu", name="relu", dtype=policy)(x)
    x = keras.layers.GlobalAveragePooling2D(name="features", dtype=policy)(x)
    x = keras.layers.Dropout(0.5, name="drop", dtype=policy)(x)
    model = keras.Model(inputs, keras.layers.Dense(classes, name="logits", dtype="float32")(x))
    norm = model.get_layer("norm")
    norm.moving_mean.assign([0.3, -0.2, 0.1, 0.0])
    norm.moving_variance.assign([0.2, 0.5, 1.5, 0.1])
    return model


def pictures(count=5):
    """PNG and JPEG bytes of several sizes."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (6 + i, 9, 3), np.uint8) for i in range(count)]
    return [(tf.io.encode_jpeg if i % 2 else tf.io.encode_png)(image).numpy() for i, image in enumerate(images)]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "tiny"
    model = tiny_model()
    report = export_classifier(model, Halves(), LABELS, directory, examples=pictures(), files={"note.json": "{}"})
    return directory, model, report


def test_layout(artifact):
    directory, _, _ = artifact
    assert (directory / "1" / "saved_model.pb").is_file()
    assert (directory / "labels.txt").read_text(encoding="utf-8") == "cat\n犬\na bird\n"
    assert (directory / "1" / "assets" / "labels.txt").read_bytes() == (directory / "labels.txt").read_bytes()
    assert (directory / "note.json").read_text() == "{}"
    assert (directory / "1" / "assets.extra" / "tf_serving_warmup_requests").is_file()
    assert [path.name for path in directory.parent.iterdir()] == ["tiny"]
    # Others may read it, as whatever is made here.
    (directory.parent / "beside").mkdir()
    modes = [path.stat().st_mode & 0o777 for path in (directory, directory.parent / "beside")]
    (directory.parent / "beside").rmdir()
    assert modes[0] == modes[1]


def test_report_says_what_was_measured(artifact):
    _, model, report = artifact
    assert set(report["differences"]) == {"python", "session"}
    assert max(report["differences"].values()) <= 1e-6
    assert report["parameters"] == model.count_params()


def test_answers_are_those_of_the_keras_model_best_first(artifact):
    directory, model, _ = artifact
    images = pictures()
    loaded = tf.saved_model.load(str(directory / "1"))
    answers = loaded.signatures["serving_default"](image=tf.constant(images))
    pixels = tf.stack([Halves().decode(image) for image in images])
    expected = softmax(model(Halves().normalise(pixels), training=False).numpy())
    order = np.argsort(-expected, axis=1)
    assert answers["label"].numpy().tolist() == [[LABELS[i].encode() for i in row] for row in order]
    np.testing.assert_allclose(answers["probability"], np.take_along_axis(expected, order, 1), atol=1e-6)


def test_pixels_and_logits_signatures_agree(artifact):
    directory, _, _ = artifact
    loaded = tf.saved_model.load(str(directory / "1"))
    pixels = tf.constant(np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), np.uint8))
    probability = loaded.signatures["pixels"](pixels=pixels)["probability"].numpy()
    logits = loaded.signatures["logits"](pixels=pixels)["logits"].numpy()
    np.testing.assert_allclose(-np.sort(-softmax(logits), axis=1), probability, atol=1e-6)


def test_every_variable_is_stored_once(artifact):
    directory, model, report = artifact
    names = [name for name, _ in tf.train.list_variables(str(directory / "1" / "variables" / "variables"))]
    assert len([name for name in names if name.startswith("weights/")]) == len(model.weights) == report["variables"]
    data = sum(path.stat().st_size for path in (directory / "1" / "variables").glob("*.data*"))
    assert 4 * model.count_params() <= data < 4 * model.count_params() + 6000  # and the object graph


def test_no_function_asks_for_xla(artifact):
    directory, _, _ = artifact
    assert b"_XlaMustCompile\x12\x02(\x01" not in (directory / "1" / "saved_model.pb").read_bytes()


def test_a_mixed_precision_model_is_exported_in_float32(tmp_path):
    model = tiny_model("mixed_bfloat16")
    report = export_classifier(model, Halves(), LABELS, tmp_path / "mixed", examples=pictures())
    assert 0 < report["precision_difference"] < 0.1
    assert max(report["differences"].values()) <= 1e-6
    assert not {"DT_BFLOAT16", "DT_HALF"} & types(saved_graph(tmp_path / "mixed" / "1"))
    halved = tf.function(model).get_concrete_function(tf.TensorSpec((None, 8, 8, 3)))
    assert "DT_BFLOAT16" in types(halved.graph.as_graph_def())  # a graph that has it shows it


def saved_graph(directory):
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].graph_def


def types(graph):
    """The names of all types that the operations of a graph have."""
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return set(re.findall(r"DT_\w+", " ".join(str(node.attr) for node in nodes)))


def test_the_float32_twin_has_the_weights_and_the_answers_of_the_float32_model():
    x = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype(np.float32)
    plain, mixed = tiny_model(), tiny_model("mixed_bfloat16")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        twin = in_float32(mixed)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in twin.layers[1:]} == {"float32"}  # the input layer computes nothing
    np.testing.assert_array_equal(twin(x, training=False), plain(x, training=False))
    assert in_float32(plain) is plain


def test_constants_that_keras_makes_of_weights_are_those_of_the_weights():
    def model(dtype):
        inputs = keras.Input((3,), name="image")
        x = keras.layers.Normalization(name="normalised", dtype=dtype)(inputs)
        return keras.Model(inputs, keras.layers.Dense(2, name="logits", dtype="float32")(x))

    mixed, x = model("mixed_bfloat16"), np.array([[1.0, 2.0, 3.0], [5.0, 4.0, 1.0], [0.0, 9.0, 2.0]], np.float32)
    mixed.get_layer("normalised").adapt(x)
    copied = model("float32")
    copy_weights_by_name(mixed, copied)
    for twin in (in_float32(mixed), copied):
        values = np.asarray(twin.get_layer("normalised")(x))
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(0), 1, atol=1e-5)


def test_gate_refuses_a_graph_that_differs_and_leaves_nothing(tmp_path):
    with pytest.raises(ExportError, match=r"python loader, signature serving_default.*differs by 0\.\d+.*0\.0001"):
        export_classifier(tiny_model(), OtherInGraphs(), LABELS, tmp_path / "new", examples=pictures())
    assert list(tmp_path.iterdir()) == []


def test_gate_refuses_a_saved_model_with_other_weights(tmp_path, monkeypatch):
    save = tf.saved_model.save

    def tampered(module, *args, **kwargs):
        module.weights[0].assign_add(tf.ones_like(module.weights[0]))
        save(module, *args, **kwargs)

    monkeypatch.setattr(tf.saved_model, "save", tampered)
    with pytest.raises(ExportError, match="differs by"):
        export_classifier(tiny_model(), Halves(), LABELS, tmp_path / "new", examples=pictures())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "examples", "message"),
    [
        (LABELS[:2], None, "2 labels for a model of output shape"),
        (["a", "a", "b"], None, "label 'a': stands there twice"),
        (["a", "b\nc", "d"], None, "one line of text"),
        (LABELS, [], "no examples"),
        (LABELS, [b"nonsense"], "an example cannot be decoded"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, labels, examples, message):
    with pytest.raises(ExportError, match=message) as caught:
        export_classifier(
            tiny_model(), Halves(), labels, tmp_path / "new", examples=pictures(1) if examples is None else examples
        )
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_use_is_refused_untouched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="not empty"):
        export_classifier(tiny_model(), Halves(), LABELS, tmp_path, examples=pictures(1))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["models [1]", os.fsdecode(b"caf\xe9")])
def test_a_folder_of_any_name_is_written_and_read(tmp_path, name):
    export_classifier(tiny_model(), Halves(), LABELS, tmp_path / name / "tiny", examples=pictures(1))
    assert "logits" in loaded_artifact(tmp_path / name / "tiny").signatures
    assert [path.name for path in (tmp_path / name).iterdir()] == ["tiny"]


def test_an_empty_directory_may_be_there_and_behind_a_link(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{file}"))))
    with placed(tmp_path / "link", {"a.txt": b"a"}):
        pass
    assert synced[0] == "a.txt" and len(synced) == 2  # and then the folder, before it has its name
    assert (tmp_path / "link").is_symlink() and (tmp_path / "empty" / "a.txt").read_bytes() == b"a"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for refused in (".", tmp_path / "mounted"):
        monkeypatch.setattr(os.path, "ismount", lambda path: path.name == "mounted")
        with pytest.raises(ExportError, match="cannot be replaced; export to a name in it"):
            export("a run that is not looked at", refused)


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A run directory as the trainer leaves it."""
    run = tmp_path / "run"
    (run / "examples").mkdir(parents=True)
    tiny_model("mixed_bfloat16").save(run / "best.keras")
    (run / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    recipe = {"name": "tiny", "claim": "It is small.", "data": {"name": "none", "args": {"limit": 5}}, "epochs": 2}
    recipe |= {"task": "image_classification", "model": "lenet"}  # as somebody writes it
    (run / "recipe.json").write_text(json.dumps(recipe))
    scores = {"examples": 8, "accuracy": 0.75, "macro": {"f1": 0.7}, "loss": 0.5, "calibration_error": 0.1}
    (run / "metrics.json").write_text(json.dumps({"epochs": 2, "test flips": scores}))
    (run / "environment.json").write_text(json.dumps({"tensorflow": tf.__version__}))
    values = {"kind": "image", "height": 8, "width": 8, "channels": 3}
    (run / "preprocessor.json").write_text(json.dumps(values))
    for place, picture in enumerate(pictures(6)[::2]):
        (run / "examples" / f"{place}.png").write_bytes(picture)
    return run


def test_a_run_becomes_an_artifact_with_its_card(run_dir, tmp_path):
    report = export(run_dir, tmp_path / "tiny")
    assert report["examples"] == 3
    names = {"1", "README.md", "labels.txt", "metrics.json", "preprocessor.json", "recipe.json"}
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == names
    text = (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")
    for part in (
        "# tiny",
        "It is small.",
        "| test flips | 8 | 75.00%",
        f"bigkeras evaluate {tmp_path / 'tiny'} --average flips",
        "犬",
        f"| tensorflow | {tf.__version__} |",
    ):
        assert part in text


@pytest.mark.parametrize("missing", ["labels.txt", "best.keras", "preprocessor.json", "examples"])
def test_a_run_that_lacks_something_is_named(run_dir, tmp_path, missing):
    (run_dir / missing).rename(tmp_path / "gone")
    with pytest.raises(ExportError, match=missing):
        export(run_dir, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_a_run_without_a_model_yet_goes_on_and_an_artifact_is_none(run_dir, tmp_path):
    (run_dir / "best.keras").rename(tmp_path / "gone")
    (run_dir / "metrics.json").rename(tmp_path / "metrics.json")
    with pytest.raises(ExportError, match=f"{run_dir}: no model yet: .*, or bigkeras train {run_dir}, goes on with it"):
        export(run_dir, tmp_path / "tiny")
    (run_dir / "1").mkdir()
    (run_dir / "1" / "saved_model.pb").touch()
    with pytest.raises(ExportError, match="an exported model"):
        export(run_dir, tmp_path / "tiny")


def test_recurrent_layers_are_exported_without_the_kernels_of_one_maker(monkeypatch):
    kernels = importlib.import_module("keras.src.backend.tensorflow.rnn")
    monkeypatch.setattr(kernels, "_is_gpu_available", lambda: True)

    def graph(model):
        return str(tf.function(model).get_concrete_function(tf.TensorSpec((None, 12), tf.int32)).graph.as_graph_def())

    model = MODELS["gru"](vocabulary_size=30, length=12, num_classes=4, units=8)
    assert "CudnnRNN" in graph(model)
    assert "CudnnRNN" not in graph(in_float32(model))

"""The warm-up requests of an artifact: real messages, which its signature answers."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2

from bigkeras.warmup import FILE, gray_image, write_requests

# Of TensorFlow Serving's apis/*.proto what a request to `predict` has: (message, field, number, type).
FIELDS = [
    ("ModelSpec", "signature_name", 3, "string"),
    ("Entry", "key", 1, "string"),
    ("Entry", "value", 2, "bytes"),
    ("PredictRequest", "model_spec", 1, "ModelSpec"),
    ("PredictRequest", "inputs", 2, "Entry"),
    ("PredictLog", "request", 1, "PredictRequest"),
    ("PredictionLog", "predict_log", 6, "PredictLog"),
]


@pytest.fixture(scope="module")
def prediction_log():
    """The class of the messages, made from FIELDS."""
    file = descriptor_pb2.FileDescriptorProto(name="warmup_test.proto", package="warmup_test", syntax="proto3")
    kinds = {"string": 9, "bytes": 12}
    for name, fields in itertools.groupby(FIELDS, lambda field: field[0]):
        message = file.message_type.add(name=name)
        for _, field, number, kind in fields:
            added = message.field.add(name=field, number=number, type=kinds.get(kind, 11))
            added.label = 3 if field == "inputs" else 1
            if kind not in kinds:
                added.type_name = f".warmup_test.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("warmup_test.PredictionLog"))


def requests(prediction_log, directory):
    """(signature, inputs by name) of each request in a model's directory."""
    for record in tf.data.TFRecordDataset(str(directory / FILE)):
        message = prediction_log()
        message.ParseFromString(record.numpy())
        assert message.SerializeToString() == record  # nothing stands in it that the message does not have
        request = message.predict_log.request
        values = {entry.key: tensor_pb2.TensorProto.FromString(entry.value) for entry in request.inputs}
        yield request.model_spec.signature_name, {key: tf.make_ndarray(value) for key, value in values.items()}


@pytest.mark.parametrize("example", [b"a", b"long " * 60_000])
def test_the_requests_are_to_the_default_signature_and_hold_the_example(prediction_log, tmp_path, example):
    write_requests(tmp_path, "text", example, batches=(1, 3))
    for (signature, inputs), size in zip(requests(prediction_log, tmp_path), (1, 3), strict=True):
        assert signature == "serving_default" and inputs.keys() == {"text"}
        assert inputs["text"].tolist() == [example] * size


def test_other_signatures_are_asked_too(prediction_log, tmp_path):
    write_requests(tmp_path, "text", b"a", ("greedy", "serving_default"), batches=(1,))
    assert [signature for signature, _ in requests(prediction_log, tmp_path)] == ["greedy", "serving_default"]


def test_a_translator_may_ask_for_the_compilation_of_every_length(prediction_log, tmp_path):
    from bigkeras.data.cleaning import Pair
    from bigkeras.data.pair_splits import pair_splits
    from bigkeras.data.plan import WIDTHS
    from bigkeras.tasks import TASKS
    from bigkeras.tasks.pairs import padded
    from bigkeras.translation_artifact import compiled_requests

    pairs = [Pair(str(i), f"the red cat {i}", f"die rote Katze {i}") for i in range(40)]
    splits = pair_splits(pairs, ("en", "de"), origin="toy", validation=0, test=0, seed=0, limit_train=None)
    preprocessor = TASKS["translation"](splits, vocabulary_size=300, length=30).preprocessor
    asked = compiled_requests(preprocessor, (1, 4))
    write_requests(tmp_path, "text", b"a", batches=(1,), more=asked)
    first, *rest = requests(prediction_log, tmp_path)
    assert first[0] == "serving_default" and {signature for signature, _ in rest} == {"compiled"}
    texts = [inputs["text"] for _, inputs in rest]
    widths = [padded(preprocessor.tokenizers().source_ids(tf.constant(list(some))))[0].shape for some in texts]
    wanted = WIDTHS[: WIDTHS.index(32) + 1]
    assert [tuple(shape) for shape in widths] == [(size, width) for width in wanted for size in (1, 4)]


ROOT = Path(__file__).resolve().parents[1]
WARMED = sorted(path.parents[0] for path in (ROOT / "saved_models").glob("*/1/saved_model.pb"))


@pytest.mark.parametrize(
    "directory",
    [pytest.param(p, marks=() if p.parent.name == "digits" else pytest.mark.slow, id=p.parent.name) for p in WARMED],
)
def test_a_shipped_model_answers_its_requests(prediction_log, directory):
    """TensorFlow Serving takes no model that does not."""
    import tensorflow_text  # noqa: F401

    model, sizes = tf.saved_model.load(str(directory)), []
    for signature, inputs in requests(prediction_log, directory):
        (name,) = inputs  # a server that merges requests takes nothing beside the batch
        answers = model.signatures[signature](**{key: tf.constant(value) for key, value in inputs.items()})
        sizes.append(len(inputs[name]))
        assert all(len(answer) == sizes[-1] for answer in answers.values())
    assert set(sizes) == {1, 8}


def test_the_gray_image_is_a_picture_of_the_size():
    np.testing.assert_array_equal(tf.io.decode_image(gray_image((4, 6, 3))), np.full((4, 6, 3), 127))

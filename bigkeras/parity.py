"""The parity gate: an exported SavedModel must answer as the Keras model does, by both of TensorFlow's loaders."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.remarks import unheard

Runner = Callable[[str, str, Any], dict[str, np.ndarray]]


class ExportError(ValueError):
    """An artifact that cannot be written; one line that names the file or value and what would be right."""


def gate(
    directory: Path, labels: Sequence[str], examples: Sequence[bytes], pixels: np.ndarray, expected: np.ndarray,
    tolerance: float, names: tuple[str, str] = ("image", "pixels"),
) -> dict[str, float]:  # fmt: skip
    """Largest difference of a probability to softmax(`expected`), for each loader; ExportError above `tolerance`.

    `names`: of the raw input, `examples`, and of the prepared one, `pixels`.
    """
    raw, prepared = names
    probabilities = softmax(expected)
    encoded = np.array(list(examples), dtype=object)
    one = slice(0, 1)
    checks = [
        ("serving_default", raw, encoded, probabilities),
        ("serving_default", raw, encoded[one], probabilities[one]),
        ("serving_default", raw, encoded[:0], probabilities[:0]),
        (prepared, prepared, pixels, probabilities),
        ("logits", prepared, pixels, probabilities),
    ]
    differences: dict[str, float] = {}
    for loader, opened in (("python", python_loader), ("session", session_loader)):
        with opened(directory) as run:
            for signature, key, value, wanted in checks:
                found = _by_class(run(signature, key, value), labels)
                where = f"{loader} loader, signature {signature}, batch of {len(value)}"
                differences[loader] = max(differences.get(loader, 0.0), difference(where, found, wanted, tolerance))
    return differences


def difference(where: str, found: np.ndarray, wanted: np.ndarray, tolerance: float) -> float:
    """The largest difference; raises ExportError, that begins with `where`, for one above the tolerance or a NaN."""
    if found.shape != wanted.shape:
        raise ExportError(f"{where}: answers of shape {found.shape} instead of {wanted.shape}")
    difference = float(np.max(np.abs(found - wanted), initial=0.0))
    # Written so that NaN fails as well.
    if not difference <= tolerance:
        raise ExportError(f"{where}: a probability differs by {difference:.2g} from the Keras model's; "
                          f"at most {tolerance:.2g} is allowed")  # fmt: skip
    return difference


def _by_class(outputs: dict[str, np.ndarray], labels: Sequence[str]) -> np.ndarray:
    """Probabilities `(batch, classes)` in the order of `labels`, from answers best first or from logits."""
    if "logits" in outputs:
        return softmax(outputs["logits"])
    place = {label.encode(): index for index, label in enumerate(labels)}
    found = np.full(outputs["probability"].shape, np.nan, np.float32)
    for row, names, values in zip(found, outputs["label"], outputs["probability"], strict=True):
        if np.any(np.diff(values) > 0):
            raise ExportError(f"the answers are not sorted best first: {values}")
        if set(names) != set(place):
            raise ExportError(f"the answers name {sorted(set(names) ^ set(place))[0]!r}, or lack it")
        row[[place[name] for name in names]] = values
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits `(batch, classes)`, without TensorFlow."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@contextlib.contextmanager
def python_loader(directory: Path) -> Iterator[Runner]:
    """The way of `tf.saved_model.load`."""
    with tf.device("/CPU:0"):
        with unheard():
            loaded = tf.saved_model.load(str(directory))

        def run(signature: str, key: str, value: Any) -> dict[str, np.ndarray]:
            dtype = tf.string if value.dtype == object else value.dtype
            outputs = loaded.signatures[signature](**{key: tf.constant(value.tolist(), dtype, value.shape)})
            return {name: tensor.numpy() for name, tensor in outputs.items()}

        yield run


@contextlib.contextmanager
def session_loader(directory: Path) -> Iterator[Runner]:
    """A graph in a session of TensorFlow 1's kind, as servers and other languages run it, loaded by Python."""
    config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session, quiet():
        with unheard():
            signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(directory)).signature_def

        def run(signature: str, key: str, value: Any) -> dict[str, np.ndarray]:
            chosen = signatures[signature]
            fetches = {name: info.name for name, info in chosen.outputs.items()}
            return session.run(fetches, {chosen.inputs[key].name: value})

        yield run


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without TensorFlow's remarks on its own loaders and on where it wrote what."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def unoptimised_calls() -> Iterator[None]:
    """Marks the signatures' calls as not to be optimised on their own.

    A session that optimises graphs, as TensorFlow Serving's, takes the calls in and optimises them as ever. One that
    does not, for an app wants its first answer soon, would optimise them all the same: 2 of 4 seconds for ResNet-20.
    """
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


def sizes(directory: Path, model: keras.Model) -> dict[str, int]:
    """Parameters, stored variables and bytes; ExportError unless each weight is stored exactly once."""
    prefix = str(directory / "variables" / "variables")
    stored = [
        (name, shape) for name, shape in tf.train.list_variables(prefix) if not name.startswith(("_", "save_counter"))
    ]
    wanted = sorted(tuple(weight.shape) for weight in model.weights)
    if sorted(tuple(shape) for _, shape in stored) != wanted:
        raise ExportError(f"{len(stored)} variables would be stored for the model's {len(wanted)} weights")
    total = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return {"parameters": model.count_params(), "variables": len(stored), "bytes": total}

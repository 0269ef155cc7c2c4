"""From a trained model to the artifact: one SavedModel of raw input and finished answers, checked before it appears.

docs/artifact.md is the contract of what is written here.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from bigkeras.card import Use, card, image_use, pair_use, text_use
from bigkeras.data.fingerprint import DATA_FILE
from bigkeras.models.pretrained import renew_constants
from bigkeras.origin import UNREADABLE, first_line
from bigkeras.parity import ExportError, difference, gate, quiet, softmax
from bigkeras.predictions import loaded_model
from bigkeras.recipe import from_json
from bigkeras.run import RunError, readable, saved_version
from bigkeras.serving import Inputs, explanation, image_inputs, text_inputs
from bigkeras.tasks.pairs import PairPreprocessor
from bigkeras.tasks.text import TextPreprocessor
from bigkeras.transfer import artifact_model
from bigkeras.warmup import SENTENCE, gray_image, write_requests

TOLERANCE = 1e-4  # of a probability
# The float32 artifact of a model trained in bfloat16 is the better one; this only finds a wrong rebuilding.
PRECISION_TOLERANCE = 0.1
MOST_EXAMPLES = 16
LOW_PRECISIONS = ("bfloat16", "float16", "mixed_bfloat16", "mixed_float16")


class Preprocessor(Protocol):
    """What an export needs of a preprocessor of images: graph functions. Of texts, it takes a TextPreprocessor."""

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Encoded bytes (scalar string) to uint8 `(height, width, channels)`."""

    def normalise(self, pixels: tf.Tensor) -> tf.Tensor:
        """uint8 `(batch, height, width, channels)` to the model's float32 input."""


def export(
    run_dir: str | Path,
    directory: str | Path,
    examples: Sequence[bytes] | None = None,
    *,
    warm_compiled: Sequence[int] = (),
    beam: int | None = None,
) -> dict[str, Any]:
    """Writes the artifact of a run directory to `directory`, which must not exist or be empty; gives the report.

    `examples` are encoded images or texts for the parity gate; None takes those that the trainer left in
    `<run>/examples/`. With them an exported model is written anew, too, by its recipe and its own weights: its graph is
    then what this version makes, and its card stays. Of translators, `warm_compiled` is `export_translator`'s, and
    `beam` how many hypotheses the search follows in the place of the recipe's. Raises ExportError.
    """
    import bigkeras.models  # noqa: F401  registers the layers and initializers of the run's .keras file
    from bigkeras.tasks import load_preprocessor

    run_dir, directory = Path(run_dir), Path(directory)
    new_place(directory)  # said before the work
    exported = saved_version(run_dir) is not None
    anew = exported and examples is not None
    if (run_dir / "recipe.json").is_file() and not any(run_dir.glob("*.keras")) and not anew:
        told = "an exported model: the directory of the run that made it is needed, or examples (--examples)"
        if not exported:
            whole = (run_dir / "metrics.json").is_file()
            told = "its best.keras is gone" if whole else f"no model yet: bigkeras train {run_dir} goes on with it"
        raise ExportError(f"{run_dir}: {told}")
    texts: dict[str, str] = {n: _text(run_dir / n) for n in ("recipe.json", "preprocessor.json")}
    kind = _values(run_dir / "preprocessor.json", texts["preprocessor.json"]).get("kind")
    if kind == "masked_text":
        raise ExportError(
            f"{run_dir}: a masked language model answers nothing by itself: train a classifier from it, with "
            f"--set start_from={run_dir}, and export that"
        )
    if kind != "pairs" and (warm_compiled or beam):
        raise ExportError(f"{run_dir}: --{'warm-compiled' if warm_compiled else 'beam'}: of translators only")
    labels = [] if kind == "pairs" else _text(run_dir / "labels.txt").removesuffix("\n").split("\n")
    texts |= {name: _text(run_dir / name) for name in ("metrics.json", DATA_FILE) if (run_dir / name).is_file()}
    model = _anew(run_dir) if anew else _load_model(run_dir)
    preprocessor = load_preprocessor(run_dir)
    card_of = _text(run_dir / "README.md") if anew else _card(directory, run_dir, texts, labels, model, preprocessor)
    if isinstance(preprocessor, PairPreprocessor):
        from bigkeras.translation_artifact import export_translator

        del texts["preprocessor.json"]  # the preprocessor's own says how it searches now
        if beam and beam != preprocessor.beam:
            scored = f"the scores above are of a search with {preprocessor.beam}; `bigkeras evaluate` scores this one."
            card_of += f"\nExported with a search that follows {beam} hypotheses: {scored}\n"
            preprocessor = replace(preprocessor, beam=beam)
        if examples is None:
            sentences = _text(run_dir / "examples" / "sentences.txt").removesuffix("\n").split("\n")
            examples = [sentence.encode() for sentence in sentences]
        files = {**texts, "README.md": card_of}
        return export_translator(
            model, preprocessor, directory, examples=examples, files=files, warm_compiled=warm_compiled
        )
    if examples is None:
        ending = "txt" if isinstance(preprocessor, TextPreprocessor) else "png"
        examples = [path.read_bytes() for path in sorted(run_dir.glob(f"examples/*.{ending}"))[:MOST_EXAMPLES]]
        if not examples:
            raise ExportError(f"{run_dir}/examples: no .{ending} in it for comparing the artifact with the model")
    files = {**texts, "README.md": card_of}
    return export_classifier(model, preprocessor, labels, directory, examples=examples, files=files)


def export_classifier(
    model: keras.Model,
    preprocessor: Preprocessor | TextPreprocessor,
    labels: Sequence[str],
    directory: str | Path,
    *,
    examples: Sequence[bytes],
    tolerance: float = TOLERANCE,
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes `directory/1/`, labels.txt and `files` (name → text); gives sizes and measured differences.

    `model` gives logits `(batch, len(labels))` of what `preprocessor` makes of encoded images or of texts; whatever its
    precision, the artifact computes in float32. Before the directory gets its name it must give the Keras model's own
    probabilities on `examples`, to `tolerance`, by `tf.saved_model.load` and in a session. Raises ExportError, and then
    leaves nothing behind.
    """
    directory = Path(directory)
    new_place(directory)
    _check(model, labels, examples)
    plain = in_float32(model)
    prepared, expected = reference(plain, preprocessor, examples)
    contents = {"labels.txt": "".join(f"{label}\n" for label in labels).encode()}
    # A path in the card may be no UTF-8.
    contents |= {name: text.encode("utf-8", "backslashreplace") for name, text in (files or {}).items()}
    if isinstance(preprocessor, TextPreprocessor):
        contents |= preprocessor.files()
    with placed(directory, contents) as beside:
        inputs = _inputs(plain, preprocessor, beside)
        save(plain, inputs, labels, beside / "1", beside / "labels.txt")
        image = inputs.raw == "image"
        write_requests(beside / "1", inputs.raw, gray_image(inputs.spec.shape[1:]) if image else SENTENCE)
        report = {"examples": len(examples), "tolerance": tolerance, "directory": str(directory)}
        report["differences"] = gate(
            beside / "1", labels, examples, prepared, expected, tolerance, names=(inputs.raw, inputs.prepared)
        )
        report["precision_difference"] = _precision_difference(model, plain, inputs, prepared, expected)
        report |= sizes(beside / "1", plain)
    return report


def new_place(directory: str | Path) -> Path:
    """Where a directory to export to lies, its links followed. Raises ExportError where nothing can get that name."""
    place = Path(os.path.realpath(directory))
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ExportError(f"{directory}: there already, and not empty; export to a new directory")
    if os.path.ismount(place) or place == Path.cwd():
        raise ExportError(f"{directory}: is mounted, or where you are, and cannot be replaced; export to a name in it")
    return place


@contextlib.contextmanager
def placed(directory: Path, contents: Mapping[str, bytes]) -> Iterator[Path]:
    """A directory beside `directory` with some files in it, that gets its name when all went well, or is removed.

    Raises ExportError where it cannot be written.
    """
    place = new_place(directory)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{place.name}-", suffix=".part", dir=place.parent))
    except OSError as error:
        raise ExportError(f"{directory}: cannot be written: {error.strerror}") from None
    written = beside
    try:
        for name, data in contents.items():
            (beside / name).write_bytes(data)
        with readable(beside) as written:
            yield written
        beside.chmod(0o777 & ~_umask())  # mkdtemp keeps others out
        # An empty directory may stand there already.
        os.replace(beside, place)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise ExportError(f"{directory}: cannot be written: {error.strerror or error}") from None
        # What TensorFlow's writer raises names the file and, at its end, the system's reason.
        if isinstance(error, tf.errors.OpError) and str(written) in error.message:
            raise ExportError(f"{directory}: cannot be written: {error.message.rsplit('; ', 1)[-1]}") from None
        raise


def in_float32(model: keras.Model) -> keras.Model:
    """`model` itself if all of it computes in float32, else the same layers and weights in float32.

    Its recurrent layers do without NVIDIA's kernels, which would stand in the graph and run on no other device.
    """
    config = model.get_config()
    plain_config = _float32_config(config)
    if plain_config == config:
        return _without_cudnn(model)
    plain = type(model).from_config(plain_config)
    if [(w.path, w.shape) for w in plain.weights] != [(w.path, w.shape) for w in model.weights]:
        raise ExportError(f"model {model.name}: its float32 twin has other weights; is a layer's get_config complete?")
    plain.set_weights(model.get_weights())
    renew_constants(plain)
    return _without_cudnn(plain)


def _without_cudnn(model: keras.Model) -> keras.Model:
    for layer in model._flatten_layers():
        if hasattr(layer, "use_cudnn"):
            layer.use_cudnn = False
    return model


def reference(
    model: keras.Model, preprocessor: Preprocessor | TextPreprocessor, examples: Sequence[bytes]
) -> tuple[np.ndarray, np.ndarray]:
    """What the artifact must reproduce: pixels or token ids of the examples, and the Keras model's own logits."""
    with tf.device("/CPU:0"):
        if isinstance(preprocessor, TextPreprocessor):
            tokens = text_inputs(preprocessor).prepare(tf.constant(list(examples)))
            return tokens.numpy(), np.asarray(model(tokens, training=False), np.float32)
        try:
            pixels = tf.stack([preprocessor.decode(tf.constant(example)) for example in examples])
        except tf.errors.InvalidArgumentError as error:
            raise ExportError(f"an example cannot be decoded: {error.message.splitlines()[0]}") from None
        if tuple(pixels.shape[1:]) != model.input_shape[1:]:
            raise ExportError(
                f"the preprocessor gives {tuple(pixels.shape[1:])}, the model takes {model.input_shape[1:]}"
            )
        logits = model(preprocessor.normalise(pixels), training=False)
    return pixels.numpy(), np.asarray(logits, np.float32)


def _inputs(model: keras.Model, preprocessor: Preprocessor | TextPreprocessor, directory: Path) -> Inputs:
    if isinstance(preprocessor, TextPreprocessor):
        return text_inputs(preprocessor, directory)
    return image_inputs(preprocessor, model.input_shape[1:])


def save(model: keras.Model, inputs: Inputs, labels: Sequence[str], directory: Path, labels_file: Path) -> None:
    """Writes the SavedModel of docs/artifact.md to `directory`, unchecked."""

    def answers(logits: tf.Tensor) -> dict[str, tf.Tensor]:
        probability, order = tf.math.top_k(tf.nn.softmax(logits), k=len(labels))
        return {"label": tf.gather(tf.constant(list(labels)), order), "probability": probability}

    @tf.function(input_signature=[inputs.spec])
    def compute(prepared: tf.Tensor) -> tf.Tensor:
        # oneDNN's convolution gives a wrong shape for an empty batch (TensorFlow 2.21): one black image stands in.
        count = tf.shape(prepared)[0]
        some = tf.pad(prepared, [[0, tf.maximum(0, 1 - count)], *[[0, 0]] * (len(inputs.spec.shape) - 1)])
        return tf.cast(model(inputs.normalise(some), training=False), tf.float32)[:count]

    @tf.function(input_signature=compute.input_signature)
    def from_prepared(prepared: tf.Tensor) -> dict[str, tf.Tensor]:
        return answers(compute(prepared))

    @tf.function(input_signature=compute.input_signature)
    def to_logits(prepared: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": compute(prepared)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=inputs.raw)])
    def from_raw(raw: tf.Tensor) -> dict[str, tf.Tensor]:
        return answers(compute(inputs.prepare(raw)))

    module = tf.Module()
    # The tf.Variables, not the Keras model: held through it they are saved as copies, which the C++ loader of servers
    # does not restore.
    module.weights = [weight.value for weight in model.weights]
    module.labels = tf.saved_model.Asset(str(labels_file))
    module.held = list(inputs.held)
    signatures = {"serving_default": from_raw, inputs.prepared: from_prepared, "logits": to_logits}
    if inputs.raw == "text":
        signatures["explain"] = explanation(lambda text: tf.nn.softmax(compute(inputs.prepare(text))), labels)
    with quiet(), unoptimised_calls():
        tf.saved_model.save(module, str(directory), signatures=signatures)


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


def _check(model: keras.Model, labels: Sequence[str], examples: Sequence[bytes]) -> None:
    if not examples:
        raise ExportError("no examples: the artifact is compared with the model on at least one")
    if model.output_shape != (None, len(labels)):
        raise ExportError(f"{len(labels)} labels for a model of output shape {model.output_shape}: one label a class")
    for label in labels:
        if not label.strip() or "\n" in label or "\r" in label:
            raise ExportError(f"label {label!r}: a class name is one line of text, for labels.txt has one a line")
        if labels.count(label) > 1:
            raise ExportError(f"label {label!r}: stands there twice; an answer must name one class")


def _float32_config(value: Any, key: str = "") -> Any:
    """A Keras configuration with every dtype policy and every dtype of low precision made float32."""
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy" and value["config"]["name"] in LOW_PRECISIONS:
            return {**value, "config": {"name": "float32"}}
        return {k: _float32_config(v, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_float32_config(item) for item in value)
    return "float32" if key == "dtype" and value in LOW_PRECISIONS else value


def _precision_difference(
    model: keras.Model, plain: keras.Model, inputs: Inputs, prepared: np.ndarray, expected: np.ndarray
) -> float:
    """Largest difference of a probability between the model as trained and its float32 twin."""
    if plain is model:
        return 0.0
    with tf.device("/CPU:0"):
        logits = tf.cast(model(inputs.normalise(prepared), training=False), tf.float32)
    where = "the model as trained against its float32 twin"
    return difference(where, softmax(logits.numpy()), softmax(expected), PRECISION_TOLERANCE)


def _anew(directory: Path) -> keras.Model:
    try:
        return artifact_model(directory)
    except UNREADABLE as error:
        raise ExportError(f"{directory}: cannot be written anew: {first_line(error)}") from None


def _load_model(run_dir: Path) -> keras.Model:
    for path in (run_dir / "best.keras", run_dir / "last.keras"):
        if path.is_file():
            try:
                return loaded_model(path)
            except RunError as error:
                raise ExportError(str(error)) from None
    raise ExportError(f"{run_dir}: neither best.keras nor last.keras in it; is it a run directory, and trained?")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None


def _umask() -> int:
    """What files of this process may not be; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _values(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ExportError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ExportError(f"{path}: not a JSON object")
    return found


def _card(
    directory: Path,
    run_dir: Path,
    texts: Mapping[str, str],
    labels: Sequence[str],
    model: keras.Model,
    preprocessor: Any,
) -> str:
    from bigkeras.data import DATASETS

    place = run_dir / "environment.json"
    # One that somebody wrote says "digits" where a run says {"name": "digits", …}.
    recipe = json.loads(from_json(texts["recipe.json"], str(run_dir / "recipe.json")).to_json())
    source = DATASETS.get(recipe["data"]["name"])
    return card(
        name=directory.name,
        directory=str(directory),
        recipe=recipe,
        metrics=_values(run_dir / "metrics.json", texts.get("metrics.json", "{}")),
        environment=_values(place, _text(place)) if place.is_file() else {},
        data_notes=(source.__doc__ or "") if source else "",
        labels=labels,
        parameters=model.count_params(),
        use=_use(str(directory), model, preprocessor),
    )


def _use(place: str, model: keras.Model, preprocessor: Any) -> Use:
    if isinstance(preprocessor, PairPreprocessor):
        return pair_use(place, preprocessor.languages, preprocessor.length)
    if isinstance(preprocessor, TextPreprocessor):
        return text_use(place, preprocessor.length - len(preprocessor.frame))
    return image_use(place, model.input_shape[1:])

"""What a run writes for TensorBoard: scalars, sample answers, the confusion matrix, the graph, a profile on request.

Two runs lie beside each other, `train` and `validation`, so that TensorBoard draws both curves of a metric in one
chart. `epoch/…` counts epochs from 1, `step/…` optimizer steps. A resumed run appends a file.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras import checkpoint, pictures
from bigkeras.run import RunError
from bigkeras.signals import Log

EVERY_STEPS = 50
SAMPLES = 24
# Drawing takes about a second, as long as an epoch of a small data set.
PICTURE_SECONDS = 20.0
# The first steps hold the tracing of the graph.
PROFILE_AFTER, PROFILE_CALLS = 3, 5

Samples = tuple[np.ndarray, np.ndarray, np.ndarray]


class TensorBoardExtras(keras.callbacks.Callback):
    """Writes event files under `directory`.

    `position()` gives the optimizer steps done since the run began. `predict_samples()` gives some images, uint8
    (n, height, width, channels), their labels (n,) and probabilities (n, classes). `confusion()` gives the counts of
    the epoch's validation, (classes, classes), or None. `texts()` gives Markdown to show, or "".
    `alignments()` gives of some sentences the arguments of `pictures.alignment`. `network`: whose graph is written
    when the run begins.
    Keras' TensorBoard callback knows neither pictures nor the examples per second, counts steps by a variable of its
    own that a resumed run has lost, and draws the training graph from a function that a step of one's own lacks.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        class_names: Sequence[str],
        position: Callable[[], int],
        predict_samples: Callable[[], Samples] | None = None,
        confusion: Callable[[], np.ndarray | None] | None = None,
        texts: Callable[[], str] | None = None,
        alignments: Callable[[], Sequence[tuple]] | None = None,
        network: keras.Model | None = None,
        profile: bool = False,
        every_steps: int = EVERY_STEPS,
    ):
        super().__init__()
        self.directory, self.class_names, self.position = Path(directory), tuple(class_names), position
        self.predict_samples, self.confusion, self.network = predict_samples, confusion, network
        self.texts, self.alignments = texts, alignments
        # Where a run goes on, those of an earlier epoch may be there.
        self.translated, self.written_texts = False, texts() if texts else ""
        self.profile, self.every_steps = profile, every_steps
        self.written_at = self.calls = 0
        self.profiling = False
        self.pictured_at, self.pictured_epoch, self.epoch = -np.inf, 0, 0
        self.writers: dict[str, Any] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """The graph, when the run begins."""
        self.written_at = self.position()
        if self.network is not None and not self.written_at:
            with self._writer("train").as_default(step=0):
                write_graph(self.network)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Loss and learning rate, every so many steps; where the profile begins and ends."""
        self.calls += 1
        if self.profile:
            self._profile()
        step = self.position()
        if step - self.written_at >= self.every_steps:
            self.written_at = step
            rate = learning_rate(self.model)
            _scalars(self._writer("train"), step, {f"step/{k}": v for k, v in {**(logs or {}), **rate}.items()})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """The epoch's scalars; pictures where the last ones are old enough."""
        logs = {**learning_rate(self.model), **(logs or {})}
        train = {k: v for k, v in logs.items() if not k.startswith("val_")}
        validation = {k.removeprefix("val_"): v for k, v in logs.items() if k.startswith("val_")}
        _scalars(self._writer("train"), epoch + 1, {f"epoch/{k}": v for k, v in train.items()})
        if validation:
            _scalars(self._writer("validation"), epoch + 1, {f"epoch/{k}": v for k, v in validation.items()})
        texts = self.texts() if self.texts else ""
        # Not every epoch is translated: what an earlier one said is not this one's.
        self.translated = bool(texts) and texts != self.written_texts
        if self.translated:
            self.written_texts = texts
            with self._writer("validation").as_default(step=epoch + 1):
                tf.summary.text("translations", texts)
        self.epoch = epoch + 1
        if time.monotonic() - self.pictured_at >= PICTURE_SECONDS:
            self._pictures()
        for writer in self.writers.values():
            writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        """The last epoch's pictures; closes the files; a training shorter than the profile ends it."""
        self._stop_profile()
        if self.pictured_epoch != self.epoch:
            self._pictures()
        for writer in self.writers.values():
            writer.close()
        self.writers = {}

    def _pictures(self) -> None:
        self.pictured_epoch = self.epoch
        shown = {}
        matrix = self.confusion() if self.confusion else None
        if matrix is not None and np.any(matrix):
            shown["confusion matrix"] = pictures.confusion_matrix(matrix, self.class_names)
        if self.predict_samples:
            images, labels, probabilities = self.predict_samples()
            if len(images):
                shown["samples"] = pictures.answers(images, labels, probabilities, self.class_names)
        for number, aligned in enumerate(self.alignments() if self.alignments and self.translated else (), 1):
            shown[f"attention {number}"] = pictures.alignment(*aligned)
        if shown:
            with self._writer("validation").as_default(step=self.epoch):
                for name, figure in shown.items():
                    tf.summary.image(name, pictures.pixels(figure)[None])
            self.pictured_at = time.monotonic()

    def _writer(self, name: str) -> Any:
        if name not in self.writers:
            self.writers[name] = tf.summary.create_file_writer(os.fsencode(self.directory / name))
        return self.writers[name]

    def _profile(self) -> None:
        if self.calls == PROFILE_AFTER:
            tf.profiler.experimental.start(str(self.directory / "train"))
            self.profiling = True
        elif self.calls == PROFILE_AFTER + PROFILE_CALLS:
            self._stop_profile()

    def _stop_profile(self) -> None:
        if self.profiling:
            tf.profiler.experimental.stop()
            self.profiling = False


class Guarded(keras.callbacks.Callback):
    """A callback that writes into a run directory, and may fail: it is told, and left out where the run goes on.

    Else files that have vanished end the run with CheckpointError, and what else fails as it does anywhere.
    """

    def __init__(self, inner: keras.callbacks.Callback, directory: Path, log: Log, goes_on: bool = True):
        super().__init__()
        self.inner, self.directory, self.log, self.goes_on = inner, directory, log, goes_on

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.inner.set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        self._try(self.inner.on_train_begin, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._try(self.inner.on_train_batch_end, batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._try(self.inner.on_epoch_end, epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._try(self.inner.on_train_end, logs)

    def _try(self, hook: Callable, *arguments: Any) -> None:
        try:
            if self.goes_on:
                checkpoint.check_there(self.directory)  # or its writers would make it anew
            hook(*arguments)
        except (OSError, RunError, tf.errors.OpError) as error:
            told = f"TensorBoard: {str(error).splitlines()[0]}"
            if self.goes_on:
                self.log.say_once(f"{told}; {checkpoint.GOES_ON}")
            elif isinstance(error, tf.errors.UnknownError | tf.errors.NotFoundError):
                checkpoint.check_there(self.directory)
                raise checkpoint.CheckpointError(told) from None
            else:
                raise


def tensorboard_callbacks(control: Any) -> list[keras.callbacks.Callback]:
    """The callbacks of a run whose state a bigkeras.control.Control holds."""
    validation = control.splits.validation
    source = validation or control.splits.train
    # Texts are no pictures: those that a model was wrong about stand in the report.
    samples = Sampler(control.step, control.directory, source) if control.task.kind == "image" else None
    counted = validation is not None and control.step.confusion is not None
    return [
        TensorBoardExtras(
            control.directory / "tensorboard",
            class_names=control.splits.class_names,
            position=lambda: control.total_steps,
            predict_samples=samples,
            confusion=(lambda: control.confusion) if counted else None,
            texts=lambda: control.samples,
            alignments=control.alignments,
            network=control.step.network,
            profile=control.machine.profile,
        )
    ]


class Sampler:
    """Calling it gives a run's answers for a few images of a source, spread over it: the same ones every time."""

    def __init__(self, step: Any, run_dir: Path, source: Any):
        self.step, self.run_dir, self.source = step, run_dir, source
        self.examples: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self) -> Samples:
        if self.examples is None:
            self.examples = self._read()
        images, labels = self.examples
        if not len(images):
            return images, labels, np.zeros((0, 0))
        self.step.swap_averages()
        try:
            logits = self.step(tf.constant(images), training=False)
        finally:
            self.step.swap_averages()
        return images, labels, tf.nn.softmax(tf.cast(logits, tf.float32)).numpy()

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        from bigkeras.tasks import load_preprocessor

        preprocessor = load_preprocessor(self.run_dir)
        indices = np.unique(np.linspace(0, len(self.source) - 1, min(SAMPLES, len(self.source))).astype(np.int64))
        if self.source.batched:
            pixels = preprocessor.fit_size(self.source.fetch(indices)["image"]).numpy()
            return pixels, self.source.labels[indices]
        images, labels = [], []
        for index in indices:
            try:
                images.append(preprocessor.decode(self.source.fetch(index)["image"]).numpy())
            except (tf.errors.OpError, ValueError, OSError):
                continue  # the pipeline counts and names what cannot be read
            labels.append(self.source.labels[index])
        return np.array(images, np.uint8), np.array(labels, np.int32)


def learning_rate(model: keras.Model) -> dict[str, float]:
    """{"learning_rate": …} of the next step; empty where the optimizer has no single one."""
    try:
        return {"learning_rate": float(model.optimizer.learning_rate)}
    except (AttributeError, TypeError):
        return {}


def write_graph(network: keras.Model) -> None:
    """The network's graph of operations and, as Keras' layers, its conceptual graph; into the default writer."""
    signature = [tf.TensorSpec((1, *x.shape[1:]), x.dtype) for x in network.inputs]

    @tf.function(input_signature=signature)
    def forward(*inputs: Any) -> Any:
        return network(inputs[0] if len(inputs) == 1 else list(inputs), training=False)

    tf.summary.graph(forward.get_concrete_function().graph)
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "graph_keras_model"
    metadata.plugin_data.content = b"1"
    tf.summary.write("keras", tf.constant(network.to_json(), tf.string), metadata=metadata)


def _scalars(writer: Any, step: int, values: Mapping[str, Any]) -> None:
    with writer.as_default(step=step):
        for name, value in values.items():
            tf.summary.scalar(name, float(value))

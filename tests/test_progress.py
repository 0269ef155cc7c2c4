"""What a person sees of a run while it trains: lines, a bar, TensorBoard."""

import errno
import io
import time
from types import SimpleNamespace

import numpy as np
import pytest

from bigkeras.checkpoint import Position
from bigkeras.control import Control
from bigkeras.data.source import ArraySource, Splits
from bigkeras.data.token_pairs import TokenPairSource
from bigkeras.metrics import NO_SCORE
from bigkeras.progress import epoch_line, progress_bar
from bigkeras.recipes import RECIPES
from bigkeras.run import RunError
from bigkeras.runtime import Machine
from bigkeras.signals import Log


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def drive(bar, *, epochs=range(2), steps=range(5)):
    """Calls the hooks as Keras' fit does."""
    bar.on_train_begin()
    for epoch in epochs:
        bar.on_epoch_begin(epoch)
        for step in steps:
            bar.on_train_batch_end(step, {"loss": np.float32(0.25)})
        bar.on_epoch_end(epoch, {"loss": 0.5, "accuracy": 0.75, "val_accuracy": 0.7})
    bar.on_train_end()


def test_epoch_line_tells_all_results():
    scores = {"accuracy": 0.8, "loss": 0.5, "val_accuracy": 0.75, "val_loss": 0.61234}
    line = epoch_line(3, 10, {**scores, "learning_rate": 0.00123, "examples_per_second": 1234.5}, 2.0)
    assert line == (
        "epoch  3/10 | loss 0.5000  accuracy 0.8000 | validation: loss 0.6123  accuracy 0.7500 | "
        "learning rate 0.00123  1,234 examples/s  2.0 s"
    )


def test_epoch_line_leaves_out_what_is_not_there():
    assert epoch_line(1, 1, {"loss": 2}) == "epoch 1/1 | loss 2.0000"


def test_without_a_terminal_there_is_one_plain_line_an_epoch():
    stream = io.StringIO()
    drive(progress_bar(2, 5, 8, stream=stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 and all(line.isprintable() for line in lines)
    assert lines[1].startswith("epoch 2/2 | loss 0.5000  accuracy 0.7500 | validation: accuracy 0.7000")


def test_without_a_terminal_a_long_epoch_tells_every_minute_how_far_it_is(monkeypatch):
    clock = iter(range(0, 4000, 20))  # a step takes twenty seconds
    monkeypatch.setattr("bigkeras.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    stream = io.StringIO()
    drive(progress_bar(1, 100, 8, done=40, stream=stream), epochs=[0], steps=range(10))
    *lines, last = stream.getvalue().splitlines()
    assert len(lines) == 3 and last.startswith("epoch 1/1") and all(line.isprintable() for line in lines)
    # The second of the steps that begin with the 41st, sixty seconds after the start.
    assert lines[0] == "42 % of 100 steps | loss 0.25 | 0.27 examples/s  29:00 left"


@pytest.mark.parametrize(("value", "quiet"), [("true", True), ("1", True), ("false", False), ("", False)])
def test_ci_is_quiet_on_a_terminal_too(monkeypatch, value, quiet):
    monkeypatch.setenv("CI", value)
    assert progress_bar(2, 5, 8, stream=Terminal()).quiet is quiet


def test_on_a_terminal_one_bar_goes_over_all_epochs():
    stream = Terminal()
    drive(progress_bar(2, 5, 8, stream=stream, quiet=False))
    text = stream.getvalue()
    assert "100%" in text and "0%" in text and "examples/s" in text
    assert text.count("epoch ") == 2


def test_the_bar_says_what_it_counts():
    stream = Terminal()
    drive(progress_bar(2, 5, 8, stream=stream, quiet=False, unit="tokens"))
    assert "tokens/s" in stream.getvalue() and "examples/s" not in stream.getvalue()


def control_of(directory, labels, lengths=None, **values):
    """What stands between the steps of a run on these labels, or pairs of these lengths, with no step made."""
    source = ArraySource({"x": np.zeros(len(labels))}, labels)
    if lengths is not None:
        sides = ((np.zeros(side.sum(), np.int32), side) for side in lengths.T)
        source = TokenPairSource(*sides, source)
    task = SimpleNamespace(kind="image" if lengths is None else "pairs", lengths=lambda source: lengths)
    recipe, splits = RECIPES["digits"].override(**values), Splits(source, None, None, ("a", "b"))
    step = SimpleNamespace(steps_left=0, metrics=[])
    chief = SimpleNamespace(chief=False, by_chief=lambda look: look())
    return Control(recipe, directory, step, splits, task, Log(), [], Machine(), chief)


def test_a_resumed_run_knows_its_best_kept_epoch_what_it_could_not_read_and_whether_it_is_over(tmp_path):
    history = (
        {"epoch": 1, "val_accuracy": 0.9, "val_loss": 0.3},
        {"epoch": 2, "val_accuracy": 0.95, "val_loss": 0.2, "best_unsaved": 1.0},
        {"epoch": 3, "val_accuracy": 0.8, "val_loss": 0.5},
    )
    control = control_of(tmp_path, [0] * 20 + [1] * 10, patience=1)
    (tmp_path / "best.keras").touch()
    control.resume(Position(epoch=3, history=history, bad={"a.png": "half"}))
    assert control.best == (0.9, -0.3) and control.finished
    assert control.unreadable.noted == {"a.png": "half"} == control.unreadable.shared
    control.resume(Position(epoch=2, history=history[:2]))
    assert not control.finished
    (tmp_path / "best.keras").unlink()  # nothing is kept then, whatever was better
    control.resume(Position(epoch=3, history=history))
    assert control.best == NO_SCORE and control.finished  # so that the last one is kept
    assert ["best_unsaved" in row for row in control.position.history] == [True, True, False]
    control.resume(Position(epoch=1, history=history[:1]))
    assert control.best == NO_SCORE and "best_unsaved" in control.position.history[0]


@pytest.mark.parametrize("epochs", [3, 9])
def test_no_more_checkpoints_are_averaged_than_there_are(epochs, tmp_path):
    taken: list[int] = []
    control = control_of(tmp_path, [0] * 4, average_checkpoints=5, epochs=epochs)
    control.step.take_in = taken.append
    for epoch in range(epochs):
        control.position = Position(epoch=epoch)
        control._average()
    # The first of them takes the place of whatever stood there.
    assert taken == ([1, 2, 3] if epochs == 3 else [1] * 5 + [2, 3, 4, 5])


@pytest.mark.parametrize(
    ("values", "first", "examples"),
    [
        ({"batch_size": 128}, 0, 30),
        ({"batch_size": 16}, 1, 14),
        ({"batch_size": 16, "balance": "oversample"}, 0, 40),
        ({"batch_size": 16, "balance": "undersample"}, 0, 20),
    ],
)
def test_rates_count_examples_and_not_what_fills_the_last_batch(values, first, examples, tmp_path):
    control = control_of(tmp_path, [0] * 20 + [1] * 10, **values)
    control.began = time.monotonic() - 100_000, first
    control.on_test_begin()
    assert control.rate == pytest.approx(examples / 100_000, rel=0.01)


def test_rates_and_the_bar_of_pairs_count_tokens(tmp_path):
    control = control_of(tmp_path, [0] * 16, np.full((16, 2), 8), batch_size=64)
    control.began = time.monotonic() - 100_000, 0
    control.on_test_begin()
    assert control.rate == pytest.approx(16 * 8 / 100_000, rel=0.01)
    assert control.callbacks()[1].unit == "tokens"


def test_an_epoch_whose_steps_an_earlier_process_made_has_no_rate(tmp_path):
    control = control_of(tmp_path, [0] * 30, batch_size=16)
    control.resume(Position(epoch=1, step=2))
    control.on_test_begin()
    assert control.rate == 0


def test_another_number_of_examples_than_the_epochs_were_made_of_is_refused(tmp_path):
    """Of as many steps, too: each would hold others. Numbers of earlier versions are not known."""
    control = control_of(tmp_path, [0] * 30, batch_size=16)
    control.resume(Position(epoch=1, step=1, examples=30))
    control.resume(Position(epoch=1, step=1))
    with pytest.raises(RunError, match=r"30 training examples can be read now, before 31, and the epochs would be"):
        control.resume(Position(epoch=1, step=1, examples=31))


def test_the_bar_knows_where_a_resumed_run_goes_on():
    bar = progress_bar(3, 5, 8, done=7, quiet=False, stream=Terminal())
    bar.on_train_begin()
    bar.on_epoch_begin(1)
    assert bar.bar.n == 7 * 8
    bar.on_train_batch_end(0, {"loss": 0.1})
    assert bar.position == 8 and bar.bar.n == 8 * 8
    bar.on_epoch_begin(2)
    bar.on_train_batch_end(0, {"loss": 0.1})
    assert bar.position == 11
    bar.close()


def test_calls_of_several_steps_end_with_the_epoch():
    bar = progress_bar(1, 5, 8, quiet=False, stream=Terminal())
    bar.on_train_begin()
    bar.on_epoch_begin(0)
    for last in (1, 3, 5):
        bar.on_train_batch_end(last)
    assert bar.position == 5 and bar.bar.n == 40
    bar.close()


def test_a_run_that_breaks_off_takes_its_bar_away():
    bar = progress_bar(2, 5, 8, quiet=False, stream=Terminal())
    bar.on_train_begin()
    bar.on_train_batch_end(0, {"loss": 0.1})
    bar.close()
    bar.close()
    assert bar.bar is None


def test_a_terminal_that_is_closed_ends_no_run():
    class Closed(Terminal):
        def write(self, text):
            raise OSError(errno.EIO, "gone")

    bar = progress_bar(1, 2, 8, quiet=False, stream=Closed())
    bar.on_train_begin()
    bar.on_epoch_begin(0)
    bar.on_train_batch_end(0, {"loss": 0.1})
    bar.on_epoch_end(0, {"loss": 0.1})
    bar.on_train_end()
    assert bar.bar is None


def train_with_extras(directory, epochs=2, profile=False):
    """Trains a tiny model for 8 steps an epoch under TensorBoardExtras."""
    import keras

    from bigkeras.tensorboard import TensorBoardExtras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, x, name="tiny")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    images, labels = np.random.default_rng(0).random((32, 4, 4, 1)), np.arange(32) % 2
    samples = (images[:3] * 255).astype(np.uint8), labels[:3], np.full((3, 2), 0.5)
    extras = TensorBoardExtras(
        directory,
        class_names=("no", "yes"),
        position=lambda: int(model.optimizer.iterations.numpy()),
        predict_samples=lambda: samples,
        confusion=lambda: np.eye(2),
        network=model,
        profile=profile,
        every_steps=4,
    )
    model.fit(images, labels, 4, epochs, verbose=0, validation_data=(images, labels), callbacks=[extras])
    return model


def read_events(directory):
    """{tag: {step: tensor}} of all event files of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(directory), size_guidance={TENSORS: 0}).Reload()
    tags = events.Tags()["tensors"]
    return {tag: {e.step: make_ndarray(e.tensor_proto) for e in events.Tensors(tag)} for tag in tags}, events


def test_tensorboard_holds_scalars_pictures_and_graph(tmp_path):
    train_with_extras(tmp_path)
    train, events = read_events(tmp_path / "train")
    validation, _ = read_events(tmp_path / "validation")
    assert {"epoch/loss", "epoch/accuracy", "epoch/learning_rate", "step/loss", "step/learning_rate"} <= set(train)
    assert sorted(train["epoch/loss"]) == [1, 2]
    assert sorted(train["step/loss"]) == [4, 8, 12, 16]
    assert train["epoch/learning_rate"][1] == pytest.approx(0.01)
    assert {"epoch/loss", "epoch/accuracy", "confusion matrix", "samples"} <= set(validation)
    width, height, picture = validation["samples"][1][:3]
    assert int(width) > 100 and int(height) > 100 and picture.startswith(b"\x89PNG")
    assert events.Tags()["graph"]


def test_the_last_epoch_has_its_pictures(tmp_path):
    train_with_extras(tmp_path, epochs=3)
    validation, _ = read_events(tmp_path / "validation")
    assert sorted(validation["confusion matrix"]) == [1, 3]


def test_the_conceptual_graph_is_one_that_tensorboard_reads(tmp_path):
    import json

    from tensorboard.plugins.graph.keras_util import keras_model_to_graph_def

    train_with_extras(tmp_path, epochs=1)
    train, _ = read_events(tmp_path / "train")
    graph = keras_model_to_graph_def(json.loads(train["keras"][0].item()))
    assert any(node.name.endswith("logits") for node in graph.node)


@pytest.mark.slow
def test_a_profile_is_written_on_request(tmp_path):
    train_with_extras(tmp_path, epochs=1, profile=True)
    assert list(tmp_path.glob("train/plugins/profile/*/*.xplane.pb"))


def test_samples_are_the_same_ones_every_time_and_skip_what_cannot_be_read(tmp_path, digits_folder):
    import tensorflow as tf

    from bigkeras.data.files import load_bytes
    from bigkeras.data.source import FileSource
    from bigkeras.tasks import ImagePreprocessor
    from bigkeras.tensorboard import Sampler

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    paths = sorted(map(str, digits_folder.glob("*/0*.png")))[:5] + [str(broken)]
    (tmp_path / "preprocessor.json").write_text(
        ImagePreprocessor(height=8, width=8, channels=1, resize="stretch", mean=(0.0,), std=(1.0,)).to_json()
    )

    class Model:
        swaps = 0

        def swap_averages(self):
            self.swaps += 1

        def __call__(self, x, training):
            return tf.zeros((len(x), 10))

    model = Model()
    # As folders are read: a file that Pillow cannot read either raises an error of Python's.
    sampler = Sampler(model, tmp_path, FileSource(paths, [0, 1, 2, 3, 4, 5], transform=load_bytes))
    images, labels, probabilities = sampler()
    assert images.shape == (5, 8, 8, 1) and images.dtype == np.uint8
    assert labels.tolist() == [0, 1, 2, 3, 4]
    assert probabilities.shape == (5, 10) and np.allclose(probabilities, 0.1)
    assert sampler()[0] is images and model.swaps == 4


def test_an_optimizer_without_a_learning_rate_writes_none():
    from bigkeras.tensorboard import learning_rate

    assert learning_rate(SimpleNamespace(optimizer=None)) == {}

"""Runs: complete, interrupted, killed, diverged, refused."""

import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import psutil
import pytest
from processes import lives, surroundings, wait_for

from bigkeras import checkpoint, control, runtime, train
from bigkeras.artifact import export
from bigkeras.checkpoint import CheckpointError
from bigkeras.checks import check_data
from bigkeras.control import Diverged
from bigkeras.data.source import DataError
from bigkeras.epochs import kept
from bigkeras.evaluation import evaluate
from bigkeras.recipe import Choice, RecipeError, load
from bigkeras.recipes import RECIPES
from bigkeras.run import RunError, asked_for, note_places, opened, read_json, write_json
from bigkeras.runtime import Machine, MachineError
from bigkeras.signals import Interrupted, Log, signals
from bigkeras.step import Step
from bigkeras.train import fit

TINY = RECIPES["digits"].override(
    **{
        "epochs": 3,
        "batch_size": 256,
        "ema": 0.9,
        "augmentation": (Choice("crop", {"padding": 1}), Choice("random_erasing"), Choice("mix_up")),
        "model": Choice("simple_cnn", {"width": 8, "dropout": 0.2}),
    }
)
QUIET = Log(quiet=True)


def weights(run_dir: Path) -> list[np.ndarray]:
    return keras.models.load_model(run_dir / "last.keras", compile=False).get_weights()


def saved(run_dir: Path) -> list[np.ndarray]:
    """All that the newest checkpoint holds: weights, averages, the optimizer's and the loss scale's state."""
    with np.load(sorted((run_dir / "checkpoints").glob("*.npz"))[-1]) as data:
        return [data[name] for name in sorted(data.files) if name != "position"]


def history(run_dir: Path) -> list[dict]:
    position, _ = checkpoint.restore(run_dir / "checkpoints", NoVariables(run_dir))
    return [{k: v for k, v in row.items() if k != "examples_per_second"} for row in position.history]


class NoVariables(list):
    """Stands for a run's variables, of the right shapes, that nothing is assigned to."""

    def __init__(self, run_dir: Path):
        newest = sorted((run_dir / "checkpoints").glob("*.npz"))[-1]
        with np.load(newest) as data:
            super().__init__(Unassigned(data[n].shape) for n in sorted(data.files) if n != "position")


class Unassigned:
    def __init__(self, shape):
        self.shape = shape

    def assign(self, value):
        assert value.shape == self.shape


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    fit(TINY, run_dir, log=QUIET)
    return run_dir


def test_a_run_directory_holds_what_people_look_for(whole):
    names = {p.name for p in whole.iterdir()}
    assert names >= {
        "recipe.json", "environment.json", "preprocessor.json", "labels.txt", "bad_samples.csv", "log.csv",
        "best.keras", "last.keras", "metrics.json", "report.md", "pictures", "tensorboard", "checkpoints",
    }  # fmt: skip
    assert load(whole) == load(whole / "recipe.json")
    metrics = json.loads((whole / "metrics.json").read_text())
    assert 0 < metrics["validation"]["accuracy"] <= 1
    assert len((whole / "log.csv").read_text().splitlines()) == 4


def test_what_is_saved_and_scored_are_the_averaged_weights(whole):
    newest = sorted((whole / "checkpoints").glob("*.npz"))[-1]
    with np.load(newest) as data:
        averages = [data[name] for name in sorted(data.files) if "average_" in name]
        raw = {name.split(" ", 1)[1]: data[name] for name in data.files if " " in name}
    last = keras.models.load_model(whole / "last.keras", compile=False)
    trained = list(last.trainable_variables)
    assert len(averages) == len(trained)
    for variable, average in zip(trained, averages, strict=True):
        np.testing.assert_array_equal(variable, average)
    assert any(not np.array_equal(variable, raw[variable.path]) for variable in trained)
    best = max(history(whole), key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    scored = json.loads((whole / "metrics.json").read_text())["validation"]
    assert scored["loss"] == pytest.approx(best["val_loss"], rel=1e-4)


def test_the_recipe_of_a_run_repeats_it_bit_for_bit(whole, tmp_path):
    fit(load(whole), tmp_path / "again", log=QUIET)
    assert all(np.array_equal(a, b) for a, b in zip(weights(whole), weights(tmp_path / "again"), strict=True))
    assert history(whole) == history(tmp_path / "again")


@pytest.mark.parametrize("where", ["train", "validation"])
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(where, whole, tmp_path, monkeypatch):
    hook = {"train": "on_train_batch_end", "validation": "on_test_batch_end"}[where]
    original = getattr(control.Control, hook)

    def interrupting(self, batch, logs=None):
        if self.total_steps in (3, 8, 10) and not self.asked and self.total_steps not in seen:
            seen.append(self.total_steps)
            self.asked.append(signal.SIGTERM)
        original(self, batch, logs)

    seen: list[int] = []
    monkeypatch.setattr(control.Control, hook, interrupting)
    times = 0
    while not (tmp_path / "run" / "metrics.json").exists():
        try:
            fit(TINY, tmp_path / "run", log=QUIET)
        except Interrupted as error:
            times += 1
            assert error.signum == signal.SIGTERM
    assert times == len(seen) > 0
    assert all(np.array_equal(a, b) for a, b in zip(weights(whole), weights(tmp_path / "run"), strict=True))
    assert history(whole) == history(tmp_path / "run")
    with open(tmp_path / "run" / "log.csv", encoding="utf-8", newline="") as file:
        measured = [bool(row["examples_per_second"]) for row in csv.DictReader(file)]
    # Epoch 2 was left in its validation: all its steps were those of the process before.
    assert measured == [True, where == "train", True]


@pytest.mark.parametrize(
    "settings, machine",
    [
        # The loss scale and its count of good steps are part of what a run goes on from.
        ({"precision": "mixed_float16", "micro_batches": 2, "clip_norm": 1.0}, Machine()),
        ({"precision": "mixed_bfloat16", "consistency": 1.0, "balance": "oversample"}, Machine(steps_per_call=3)),
        pytest.param({"optimizer": "muon", "augmentation": ()}, Machine(xla=True), marks=pytest.mark.slow),
    ],
    ids=["half precision", "several steps a call", "compiled"],
)
def test_a_run_goes_on_exactly_in_every_way_of_computing(settings, machine, tmp_path, monkeypatch):
    def interrupting(self, batch, logs=None):
        if self.total_steps > 5 and not seen:
            seen.append(self.total_steps)
            self.asked.append(signal.SIGTERM)
        original(self, batch, logs)

    recipe = TINY.override(epochs=2, **settings)
    fit(recipe, tmp_path / "whole", machine=machine, log=QUIET)
    original, seen = control.Control.on_train_batch_end, []
    monkeypatch.setattr(control.Control, "on_train_batch_end", interrupting)
    with pytest.raises(Interrupted):
        fit(recipe, tmp_path / "run", machine=machine, log=QUIET)
    newest = sorted((tmp_path / "run" / "checkpoints").glob("*.npz"))[-1]
    assert 5 < int(newest.stem.removeprefix("step-")) < 10  # in the middle of the second epoch
    fit(recipe, tmp_path / "run", machine=machine, log=QUIET)
    for one, two in zip(*(saved(tmp_path / name) for name in ("whole", "run")), strict=True):
        np.testing.assert_array_equal(one, two)
    assert history(tmp_path / "whole") == history(tmp_path / "run")


def test_the_last_checkpoints_are_averaged_also_where_a_run_was_left_between_them(tmp_path, monkeypatch):
    def noted(self, count):
        after.append((count, [v.numpy() for v in self._averaged()]))
        original(self, count)

    def interrupting(self, batch, logs=None):
        # In the second epoch's last step, and in the third one's first: before each so many had been made.
        if self.total_steps in (9, 10) and self.total_steps not in seen:
            seen.append(self.total_steps)
            self.asked.append(signal.SIGTERM)
        end(self, batch, logs)

    recipe = TINY.override(ema=None, average_checkpoints=2)
    original, end = Step.take_in, control.Control.on_train_batch_end
    after: list = []
    monkeypatch.setattr(Step, "take_in", noted)
    fit(recipe, tmp_path / "whole", log=QUIET)
    assert [count for count, _ in after] == [1, 1, 2]
    newest = sorted((tmp_path / "whole" / "checkpoints").glob("*.npz"))[-1]
    with np.load(newest) as data:
        averages = [data[name] for name in sorted(data.files) if "average_" in name]
    for average, one, two in zip(averages, after[1][1], after[2][1], strict=True):
        np.testing.assert_allclose(average, (one + two) / 2, rtol=1e-6, atol=1e-7)
    kept = keras.models.load_model(tmp_path / "whole" / "last.keras", compile=False).trainable_variables
    assert all(np.array_equal(a, b) for a, b in zip(averages, kept, strict=True))

    monkeypatch.setattr(control.Control, "on_train_batch_end", interrupting)
    seen: list[int] = []
    for epoch, step in ((2, 5), (3, 1)):
        with pytest.raises(Interrupted):
            fit(recipe, tmp_path / "run", log=QUIET)
        newest = sorted((tmp_path / "run" / "checkpoints").glob("*.npz"))[-1]
        assert newest.name == f"step-{(epoch - 1) * 5 + step:08d}.npz"
    fit(recipe, tmp_path / "run", log=QUIET)
    assert all(
        np.array_equal(a, b) for a, b in zip(weights(tmp_path / "whole"), weights(tmp_path / "run"), strict=True)
    )
    assert history(tmp_path / "whole") == history(tmp_path / "run")


def test_a_run_whose_checkpoints_are_gone_keeps_its_best_model(tmp_path, monkeypatch, capsys):
    def interrupting(self, batch, logs=None):
        if self.total_steps == 6:
            self.asked.append(signal.SIGTERM)
        original(self, batch, logs)

    original = control.Control.on_train_batch_end
    monkeypatch.setattr(control.Control, "on_train_batch_end", interrupting)
    with pytest.raises(Interrupted):
        fit(TINY, tmp_path / "run", log=QUIET)
    best = (tmp_path / "run" / "best.keras").read_bytes()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    monkeypatch.undo()
    fit(TINY, tmp_path / "run")
    assert "no checkpoint to go on from: begins anew" in capsys.readouterr().err
    assert (tmp_path / "run" / "best.before.keras").read_bytes() == best


def test_a_run_without_validation_goes_on_where_it_was_left_after_an_epochs_last_step(tmp_path, monkeypatch):
    def interrupting(self, batch, logs=None):
        if not self.step.steps_left and self.position.epoch == 0:
            self.asked.append(signal.SIGTERM)
        original(self, batch, logs)

    recipe = TINY.override(**{"data.validation": 0.0, "epochs": 2})
    fit(recipe, tmp_path / "whole", log=QUIET)
    original = control.Control.on_train_batch_end
    monkeypatch.setattr(control.Control, "on_train_batch_end", interrupting)
    with pytest.raises(Interrupted):
        fit(recipe, tmp_path / "run", log=QUIET)
    monkeypatch.undo()
    assert fit(recipe, tmp_path / "run", log=QUIET)["epochs"] == 2
    assert all(
        np.array_equal(a, b) for a, b in zip(weights(tmp_path / "whole"), weights(tmp_path / "run"), strict=True)
    )
    assert history(tmp_path / "whole") == history(tmp_path / "run")


@pytest.mark.parametrize("place", ["run", "run/candidates/one"])
def test_after_a_candidate_that_was_asked_to_stop_no_other_begins(place, tmp_path, monkeypatch):
    """It is whole: a run that is no candidate ends as if nobody had asked."""

    def interrupting(self, logs=None):
        self.asked.append(signal.SIGTERM)

    monkeypatch.setattr(control.Control, "on_train_end", interrupting, raising=False)
    (tmp_path / place).mkdir(parents=True)
    recipe = TINY.override(epochs=1)
    if place == "run":
        assert fit(recipe, tmp_path / place, log=QUIET)["epochs"] == 1
        return
    with pytest.raises(Interrupted):
        fit(recipe, tmp_path / place, log=QUIET)
    assert (tmp_path / place / "metrics.json").exists()
    assert fit(recipe, tmp_path / place, log=QUIET)["epochs"] == 1


def test_an_epoch_that_is_left_at_its_end_is_shown(tmp_path, monkeypatch, capsys):
    def interrupting(self, epoch, logs=None):
        self.asked.append(signal.SIGTERM)
        original(self, epoch, logs)

    def drawn(self, logs=None):
        saved.append(len(list((tmp_path / "run" / "checkpoints").glob("*.npz"))))

    saved: list[int] = []
    original = control.Control.on_epoch_end
    monkeypatch.setattr(control.Control, "on_epoch_end", interrupting)
    monkeypatch.setattr("bigkeras.tensorboard.TensorBoardExtras.on_train_end", drawn)
    with pytest.raises(Interrupted):
        fit(TINY, tmp_path / "run", log=Log())
    assert saved[0] == 1  # before pictures, for which there may be no time
    told = capsys.readouterr().err
    assert "epoch 1/3 | " in told and "saved at epoch 2, step 0" in told and "epoch 2/3" not in told
    # TensorBoard has seen it, too.
    assert any("epoch/loss" in tags for tags in map(scalars, (tmp_path / "run" / "tensorboard").glob("*")))


def scalars(directory: Path) -> set[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return set(EventAccumulator(str(directory)).Reload().Tags()["tensors"])


def test_an_epoch_whose_validation_is_no_number_is_no_score_and_ends_no_run(tmp_path, monkeypatch):
    def spoilt(self, epoch):
        if epoch:
            return {}
        self._set_metrics([value * np.nan for value in self._metric_values()])
        return {"val_loss": float("nan"), "val_accuracy": 1.0}

    monkeypatch.setattr(control.Control, "_whole_scores", spoilt)
    fit(TINY.override(epochs=2), tmp_path / "run", log=QUIET, machine=Machine(checkpoint_seconds=0))
    told = (tmp_path / "run" / "report.md").read_text()
    assert "The best by val_accuracy is epoch 2, kept as best.keras." in told


def test_an_epoch_with_fewer_steps_than_were_done_is_refused(tmp_path):
    of_fewer = SimpleNamespace(steps=3, directory=tmp_path)
    with pytest.raises(RunError, match="5 steps of an epoch are done, and now it has 3"):
        control.Control.resume(of_fewer, checkpoint.Position(epoch=1, step=5))


def test_what_a_script_starts_beside_itself_is_not_stopped_with_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals() as asked:
            signal.raise_signal(signal.SIGINT)
        assert not asked and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_asks_to_stop_unless_nobody_wants_to_hear_of_it(ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with signals() as asked:
            for _ in range(2):  # the shell sends it, and then the system
                assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL  # or the tests would end here
                signal.raise_signal(signal.SIGHUP)
        assert asked == ([] if ignored else [signal.SIGHUP])
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_sigterm_as_from_a_launcher_takes_nothing_of_what_is_being_saved():
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with signals() as asked:
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)
        assert asked == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        with pytest.raises(KeyboardInterrupt), signals() as asked:  # of Ctrl-C, the second one does not wait
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
        assert asked == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_broken_checkpoint_is_passed_over(whole, tmp_path, monkeypatch):
    def interrupting(self, batch, logs=None):
        original(self, batch, logs)
        if self.total_steps == 7:
            raise Interrupted(signal.SIGTERM)

    original = control.Control.on_train_batch_end
    monkeypatch.setattr(control.Control, "on_train_batch_end", interrupting)
    with pytest.raises(Interrupted):
        fit(TINY, tmp_path / "run", log=QUIET, machine=Machine(checkpoint_seconds=0))
    monkeypatch.undo()
    newest = sorted((tmp_path / "run" / "checkpoints").glob("*.npz"))[-1]
    newest.write_bytes(newest.read_bytes()[:5000])
    fit(TINY, tmp_path / "run", log=QUIET)
    assert all(np.array_equal(a, b) for a, b in zip(weights(whole), weights(tmp_path / "run"), strict=True))


def test_where_all_checkpoints_are_broken_the_run_says_so_keeps_them_and_begins_anew(whole, tmp_path, monkeypatch):
    def interrupting(self, batch, logs=None):
        original(self, batch, logs)
        if self.position.step == 2:
            self.asked.append(15)

    original = control.Control.on_train_batch_end
    monkeypatch.setattr(control.Control, "on_train_batch_end", interrupting)
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        fit(TINY, run, log=QUIET, machine=Machine(checkpoint_seconds=0))
    monkeypatch.undo()
    checkpoints = sorted((run / "checkpoints").glob("*.npz"))
    for path in checkpoints:
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(OSError, match=r"no checkpoint can be read: step-.*\.npz"):
        fit(TINY, run, log=QUIET)
    assert {p.name for p in (run / "checkpoints").iterdir()} == {f"{p.name}.broken" for p in checkpoints}
    fit(TINY, run, log=QUIET)
    assert all(np.array_equal(a, b) for a, b in zip(weights(whole), weights(run), strict=True))


def test_scoring_an_unfinished_run_leaves_it_unfinished(tmp_path, monkeypatch):
    def interrupting(self, epoch, logs=None):
        original(self, epoch, logs)
        self.asked.append(15)

    original = control.Control.on_epoch_end
    monkeypatch.setattr(control.Control, "on_epoch_end", interrupting)
    with pytest.raises(Interrupted):
        fit(TINY, tmp_path / "run", log=QUIET)
    monkeypatch.undo()
    assert evaluate(tmp_path / "run", split="validation")["validation"]["examples"] > 0
    assert not (tmp_path / "run" / "metrics.json").exists()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "finish_run", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(TINY, tmp_path / "run", log=QUIET)
    monkeypatch.undo()
    assert (tmp_path / "run" / "last.keras").exists()
    evaluate(tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()
    metrics = fit(TINY, tmp_path / "run", log=QUIET)
    assert metrics["epochs"] == 3 and "validation" in metrics
    evaluate(tmp_path / "run")
    assert {"validation", "test"} <= set(json.loads((tmp_path / "run" / "metrics.json").read_text()))


def test_a_whole_run_on_two_replicas_ends_in_the_weights_of_one_device(tmp_path, capsys):
    certain = TINY.override(
        **{"epochs": 2, "augmentation": (), "optimizer": Choice("sgd"), "model.dropout": 0.0, "micro_batches": 2}
    )
    fit(certain, tmp_path / "one", log=QUIET, machine=Machine(strategy="one"))
    fit(certain, tmp_path / "two", machine=Machine(strategy="mirrored", replicas=2))
    assert "strategy mirrored, 2 replicas: a step in a call, without XLA\n" in capsys.readouterr().err
    for a, b in zip(weights(tmp_path / "one"), weights(tmp_path / "two"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        assert b == pytest.approx(a, rel=1e-4)


def test_a_finished_run_is_not_trained_again(whole):
    before = (whole / "last.keras").stat().st_mtime_ns
    metrics = fit(TINY, whole, log=QUIET)
    assert metrics == json.loads((whole / "metrics.json").read_text())
    assert (whole / "last.keras").stat().st_mtime_ns == before


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(tmp_path):
    wild = TINY.override(**{"optimizer": Choice("sgd", {"learning_rate": 1e30}), "ema": None})
    with pytest.raises(Diverged, match=r"at step \d+ of epoch 1; no weights had been saved before"):
        fit(wild, tmp_path / "none", log=QUIET)
    with pytest.raises(Diverged, match=r"at one of the steps 1 to \d+ of epoch 1; no weights"):
        fit(wild, tmp_path / "many", log=QUIET, machine=Machine(steps_per_call=4))
    slower = wild.override(**{"optimizer.learning_rate": 1e15})
    with pytest.raises(Diverged, match=r"at step \d+ of epoch 1; the last good weights"):
        fit(slower, tmp_path / "run", log=QUIET, machine=Machine(checkpoint_seconds=0))
    saved = list((tmp_path / "run" / "checkpoints").glob("*.npz"))
    assert saved
    for path in saved:
        with np.load(path) as data:
            assert all(np.isfinite(data[n]).all() for n in data.files if data[n].dtype.kind == "f")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.learning_rate": "fast"}, "optimizer.learning_rate='fast': a number"),
        ({"optimizer": Choice("sgd", {"nesterov": "no"})}, "optimizer.nesterov='no': true or false"),
        ({"optimizer": Choice("sgd", {"momentum": 2})}, "optimizer sgd: "),
        ({"schedule.warmup_epochs": -3}, "schedule.warmup_epochs=-3"),
        ({"loss.label_smoothing": 7.0}, "loss.label_smoothing=7.0: from 0 to below 1"),
        ({"augmentation": (Choice("random_rotation", {"factor": "much"}),)}, "augmentation: "),
        ({"augmentation": (Choice("random_rotation", {"factor": 0.1, "fill_mode": "mirror"}),)}, "augmentation: "),
        ({"augmentation": (Choice("random_flip", {"mode": "horisontal"}),)}, "random_flip: mode='horisontal': one of"),
        ({"augmentation": (Choice("mix_up", {"alpha": 0}),)}, "mix_up: alpha=0: above 0"),
        ({"augmentation": (Choice("mix_up", {"alpha": [0.1]}),)}, "mix_up: alpha="),
        ({"augmentation": (Choice("crop", {"padding": 1}), Choice("crop"))}, "crop: stands there twice"),
        ({"augmentation": (Choice("random_color_jitter", {"saturation_factor": 0.4}),)}, "augmentation: input must"),
        ({"task.height": -5}, "task.height=-5: at least 1"),
        ({"patience": 0}, "patience=0: at least 1"),
        ({"clip_norm": float("inf")}, "clip_norm=inf: a number above 0"),
        ({"l2": float("nan")}, "l2=nan: a number of at least 0"),
        ({"seed": -1}, "seed=-1: from 0 to 4294967295"),
        ({"seed": 2**32}, "seed=4294967296: from 0 to 4294967295"),
        ({"data.seed": -1}, "data.seed=-1: at least 0"),
        ({"patience": 2, "data.validation": 0.0}, "patience=2: needs a validation split"),
        ({"patience": 2, "monitor": "val_nothing"}, "val_nothing"),
    ],
)
def test_a_value_that_cannot_be_is_one_line(values, message, tmp_path):
    with pytest.raises((RecipeError, DataError), match=re.escape(message)) as caught:
        fit(TINY.override(**values), tmp_path / "run", log=QUIET)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"steps_per_call": 0}, "--steps-per-call 0"),
        ({"strategy": "mirrored", "replicas": 0}, "--replicas 0: at least 1"),
        ({"strategy": "mirrored", "replicas": -1}, "--replicas -1: at least 1"),
        ({"strategy": "one", "replicas": 2}, "--replicas 2: this run takes one device"),
        ({"shards": 4}, "--shards 4: is for --strategy model_parallel, on JAX; this run takes one"),
        ({"strategy": "one", "tpu": "mine"}, "--tpu mine is for --strategy tpu"),
        ({"strategy": "parameter_server", "steps_per_call": 2}, "--steps-per-call 2: parameter_server hands out one"),
        ({"strategy": "parameter_server", "xla": True}, "--xla: parameter_server compiles no step"),
        ({"strategy": "one", "xla": True}, "--xla: XLA cannot compile the augmentation mix_up"),
        ({"strategy": "mirrored", "xla": True}, "--xla: on CPUs XLA cannot add up over the replicas of mirrored"),
        ({"strategy": "multiworker", "xla": True}, "--xla: on CPUs XLA cannot add up over the replicas of multiworker"),
    ],
)
def test_what_the_machine_is_told_and_would_not_heed_is_refused(machine, message, tmp_path, monkeypatch):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind=None: [])  # GPUs, which could do more
    with pytest.raises(MachineError, match=message):
        fit(TINY, tmp_path / "run", log=QUIET, machine=Machine(**machine))


def test_precision_auto_is_the_fastest_here_and_stays_that_of_the_run(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "fastest_precision", lambda strategy: ("mixed_bfloat16", "the test says so"))
    fit(TINY.override(precision="auto", epochs=1), tmp_path / "run")
    assert load(tmp_path / "run").precision == "mixed_bfloat16"
    assert "precision mixed_bfloat16: the test says so" in capsys.readouterr().err
    # Not that of a command that learned nothing.
    (tmp_path / "mistaken").mkdir()
    (tmp_path / "mistaken" / ".lock").write_text("1\n")
    TINY.override(precision="mixed_float16").save(tmp_path / "mistaken" / "recipe.json")
    fit(TINY.override(precision="auto", epochs=1), tmp_path / "mistaken", log=QUIET)
    assert load(tmp_path / "mistaken").precision == "mixed_bfloat16"
    # A run that was begun in float32 stays in it where another precision would be faster.
    assert fit(TINY.override(precision="auto"), whole, log=QUIET) == json.loads((whole / "metrics.json").read_text())


def test_another_recipe_in_the_same_directory_is_refused(whole):
    with pytest.raises(RunError, match=r"holds a run of another recipe \(epochs: 3, asked for 4\)"):
        fit(TINY.override(epochs=4), whole, log=QUIET)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"optimizer.learning_rate": 0.5}, r"\(optimizer\.learning_rate: [\d.e-]+, asked for 0\.5\)"),
        ({"model": Choice("resnet")}, r'\(model: \{"name": '),
        ({"data.seed": 7}, r"\(data\.seed: null, asked for 7\)"),
    ],
)
def test_of_another_recipe_it_is_told_what_differs(value, told, whole):
    with pytest.raises(RunError, match=told):
        fit(TINY.override(**value), whole, log=QUIET)


def test_a_recipe_that_no_run_has_written_and_an_exported_model_stay_as_they_are(tmp_path):
    TINY.override(epochs=4).save(tmp_path / "recipe.json")
    for _ in range(2):
        with (
            pytest.raises(RunError, match=r"holds a run of another recipe \(epochs: 4, asked for 3\)"),
            opened(tmp_path, TINY),
        ):
            pass
    assert load(tmp_path).epochs == 4
    (tmp_path / "own").mkdir()
    TINY.override(precision="auto").save(tmp_path / "own" / "recipe.json")
    with opened(tmp_path / "own", TINY):
        assert load(tmp_path / "own") == TINY
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    for epochs in (3, 4):
        with pytest.raises(RunError, match="an exported model; take another --run-dir"):
            fit(TINY.override(epochs=epochs), tmp_path, log=QUIET)


def test_what_was_cut_off_of_a_runs_files_is_named(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "run" / "preprocessor.json").write_text('{"kind": "im')
    with pytest.raises(RunError, match=r"preprocessor\.json: cannot be read"):
        fit(TINY, tmp_path / "run", log=QUIET)


def test_losses_of_a_models_own_are_refused(tmp_path):
    def mine(*, input_shape, num_classes, which):
        inputs = keras.Input(input_shape, name="image")
        last = keras.layers.Dense(num_classes, name="logits", **{f"{which}_regularizer": "l2"})
        return keras.Model(inputs, last(keras.layers.Flatten()(inputs)))

    for which in ("kernel", "activity"):
        with pytest.raises(RecipeError, match="model mine: has losses of its own, as by regularizers"):
            fit(TINY.override(model=Choice("mine")), tmp_path / "run", model=partial(mine, which=which), log=QUIET)


def test_another_claim_makes_no_other_recipe(whole):
    assert fit(TINY.override(claim="measured since"), whole, log=QUIET)["epochs"] == 3


def test_what_ended_a_run_may_be_mended_before_it_goes_on(whole):
    asked = TINY.override(max_bad_fraction=0.5, on_checkpoint_error="go on")
    assert fit(asked, whole, log=QUIET)["epochs"] == 3
    assert load(whole).max_bad_fraction == 0.5
    fit(TINY, whole, log=QUIET)


def test_the_scores_of_a_run_whose_weights_were_thrown_away_are_not_another_recipes(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints")
    for name in ("best.keras", "last.keras"):
        (run / name).unlink()
    with pytest.raises(RunError, match=r"holds a run of another recipe \(epochs: 3, asked for 50\)"):
        fit(TINY.override(epochs=50), run, log=QUIET)
    assert load(run).epochs == 3


def test_a_run_goes_on_though_the_one_that_it_started_from_was_renamed(whole, tmp_path, monkeypatch):
    def leaving(self, batch, logs=None):
        if self.total_steps == 3:
            self.asked.append(signal.SIGTERM)
        original(self, batch, logs)

    origin, run = tmp_path / "origin", tmp_path / "run"
    shutil.copytree(whole, origin)
    recipe = TINY.override(start_from=str(origin), epochs=1)
    original = control.Control.on_train_batch_end
    monkeypatch.setattr(control.Control, "on_train_batch_end", leaving)
    with pytest.raises(Interrupted):
        fit(recipe, run, log=QUIET)
    monkeypatch.undo()
    renamed = origin.rename(tmp_path / "renamed")
    with pytest.raises(RecipeError, match=r"nothing is there; .*\(was it renamed"):
        fit(recipe, run, log=QUIET)
    assert fit(recipe.override(start_from=str(renamed)), run, log=QUIET)["epochs"] == 1
    assert load(run).start_from == str(origin)  # nothing tells whether another was named


def test_keras_layout_of_channels_first_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    with pytest.raises(MachineError, match="image_data_format channels_first: say channels_last"):
        fit(TINY, tmp_path / "run", log=QUIET)


def test_what_ends_a_run_is_told_in_a_line_of_its_own(tmp_path):
    ended: list[str] = []
    run = SimpleNamespace(close_bars=lambda: ended.append("bar"), save_last=lambda: ended.append("saved"))
    with pytest.raises(CheckpointError), kept(run):
        raise CheckpointError("full")
    assert ended == ["bar"]


def test_an_earlier_run_is_the_same_however_its_folder_is_named(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(whole.parent)
    with opened(tmp_path, TINY.override(start_from=whole.name)):
        (tmp_path / "best.keras").touch()
    with opened(tmp_path, TINY.override(start_from=str(whole))):
        pass
    with (
        pytest.raises(RunError, match=r"of another recipe \(start_from"),
        opened(tmp_path, TINY.override(start_from="x")),
    ):
        pass


def test_json_is_written_with_lists_of_numbers_in_a_line_and_strings_as_they_are(tmp_path):
    values = {"class [1  2]": [[1, 2.5e-7], [-3, 4]], 'a "mark" [3,\n4]': "[5   6]", "back\\": []}
    write_json(tmp_path / "x.json", values)
    assert read_json(tmp_path / "x.json") == values
    assert "[ 1, 2.5e-07 ]" in (tmp_path / "x.json").read_text()


def test_a_run_goes_on_where_what_it_learns_from_has_moved(whole, tmp_path):
    first, second = tmp_path / "first" / "run", tmp_path / "second" / "run"
    shutil.copytree(whole, first)
    data = Choice("image_folder", {"directory": str(first), "seed": 1})
    asked = TINY.override(start_from=str(first), teacher=str(first), data=data)
    with opened(tmp_path / "run", asked):
        (tmp_path / "run" / "best.keras").touch()
        write_json(tmp_path / "run" / "data.json", {"taught": {"examples": 3, "sha256": ""}})
    write_json(tmp_path / "run" / "search.json", {"asked": asdict(asked), "kept": "one"})
    moved = asked.override(start_from=str(second), teacher=str(second), **{"data.directory": str(second)})
    for _ in range(2):  # neither while the first is there
        with pytest.raises(RunError, match="of another recipe"), opened(tmp_path / "run", moved):
            pass
        shutil.copytree(first, second, dirs_exist_ok=True)
    shutil.rmtree(first)
    with (
        pytest.raises(RunError, match="of another recipe"),
        opened(tmp_path / "run", moved.override(**{"data.seed": 2})),
    ):
        pass
    with opened(tmp_path / "run", moved):
        with pytest.raises(RunError, match="its data has changed"):
            check_data(tmp_path / "run", moved, {"train": {"examples": 2, "sha256": ""}})
        assert asked_for(tmp_path / "run") == asked  # nothing is written before it is known
        check_data(tmp_path / "run", moved, {"train": {"examples": 3, "sha256": ""}})
        note_places(tmp_path / "run", moved)
        assert asked_for(tmp_path / "run") == moved and read_json(tmp_path / "run" / "search.json")["kept"] == "one"
    for origin in ("imagenet", "gone/run", str(tmp_path / "gone" / "other")):  # no folders, or of another run
        write_json(tmp_path / "run" / "search.json", {"asked": asdict(moved.override(start_from=origin))})
        with pytest.raises(RunError, match="of another recipe"), opened(tmp_path / "run", moved):
            pass
    write_json(tmp_path / "run" / "search.json", {"asked": asdict(moved)})
    # Of data that no run has noted it is not known whether it is the same.
    (tmp_path / "run" / "data.json").unlink()
    second.parent.rename(first.parent)
    with pytest.raises(RunError, match=r"of another recipe \(data"), opened(tmp_path / "run", asked):
        pass


def test_a_directory_that_was_emptied_but_for_its_locks_is_a_new_run(tmp_path):
    for name in (".lock", ".scores.lock"):
        (tmp_path / name).touch()
    with opened(tmp_path, TINY):
        assert load(tmp_path) == TINY


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"thesis\.tex is there"):
        fit(TINY, tmp_path, log=QUIET)
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["thesis.tex"]


def test_a_second_process_in_a_run_directory_is_refused(tmp_path):
    from bigkeras.run import opened

    with (
        opened(tmp_path / "run", TINY),
        pytest.raises(RunError, match=rf"process {os.getpid()} is training in it"),
    ):
        fit(TINY, tmp_path / "run", log=QUIET)


def test_a_mistake_in_the_first_command_does_not_take_the_directory(tmp_path):
    with pytest.raises(RecipeError, match="learning_rate=None"):
        fit(TINY.override(**{"optimizer.learning_rate": None}), tmp_path / "run", log=QUIET)
    fit(TINY, tmp_path / "run", log=QUIET)
    assert load(tmp_path / "run") == TINY
    with pytest.raises(RunError, match="another recipe"):
        fit(TINY.override(epochs=1), tmp_path / "run", log=QUIET)


def test_the_lock_of_another_program_keeps_its_content(tmp_path):
    (tmp_path / ".lock").write_text("theirs")
    (tmp_path / "data.txt").touch()
    with pytest.raises(RunError, match="not empty"):
        fit(TINY, tmp_path, log=QUIET)
    assert (tmp_path / ".lock").read_text() == "theirs"


def test_a_file_system_without_locks_is_not_taken_for_another_process(tmp_path, monkeypatch):
    def without_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without_locks)
    with pytest.raises(RunError, match="run: cannot be locked: No locks available"):
        fit(TINY, tmp_path / "run", log=QUIET)


def test_early_stopping_counts_epochs_without_a_better_value(tmp_path):
    still = TINY.override(
        **{"optimizer": Choice("sgd", {"learning_rate": 0.0}), "epochs": 9, "patience": 2, "ema": None}
    )
    fit(still, tmp_path / "run", log=QUIET)
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": Choice("simple_cmn")}, "model 'simple_cmn' is not one of"),
        ({"model.depht": 3}, "argument 'depht' is not one of"),
        ({"optimizer.clipnorm": 1.0}, "argument 'clipnorm' is not one of"),
        ({"augmentation": (Choice("flop"),)}, "augmentation 'flop' is not one of"),
        ({"data": Choice("minst")}, "data 'minst' is not one of"),
        ({"monitor": "val_f1"}, "monitor 'val_f1' is not one of"),
        ({"schedule.warmup_epochs": "soon"}, "schedule.warmup_epochs='soon': a number"),
    ],
)
def test_what_a_recipe_names_wrongly_is_refused_by_name(values, message, tmp_path):
    with pytest.raises(RecipeError, match=message.replace("[", r"\[")):
        fit(TINY.override(**values), tmp_path / "run", log=QUIET)


def test_a_layer_decay_of_0_trains_what_lies_above_the_stages_only(tmp_path):
    recipe = TINY.override(**{"optimizer": Choice("sgd", {"learning_rate": 0.1}), "layer_decay": 0.0, "ema": None})
    for epochs in (1, 2):
        fit(recipe.override(epochs=epochs), tmp_path / str(epochs), log=QUIET)
    one, two = (keras.models.load_model(tmp_path / name / "last.keras", compile=False) for name in ("1", "2"))
    moved = {a.path for a, b in zip(one.weights, two.weights, strict=True) if not np.array_equal(a, b)}
    assert moved == {weight.path for weight in one.weights if not weight.path.startswith(("stem", "stage"))}
    assert 0 < len(moved) < len(one.weights)


def test_what_a_run_will_not_reach_is_said(tmp_path, capsys):
    settings = {"freeze_until": "stage1", "schedule.warmup_epochs": 2.0, "epochs": 1, "ema": None}
    fit(TINY.override(**settings), tmp_path / "run")
    told = capsys.readouterr().err
    assert "freeze_until=stage1: what is frozen has learned nothing: start_from names what has" in told
    assert "schedule.warmup_epochs=2.0: is more than epochs=1: the rate stays below its height" in told


def test_a_model_of_ones_own_trains_under_its_name(tmp_path):
    def mine(*, input_shape, num_classes, units: int = 4):
        inputs = keras.Input(input_shape, name="image")
        x = keras.layers.Dense(units, name="features")(keras.layers.Flatten()(inputs))
        return keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(x))

    for name, args in (("mine", {"units": 6}), ("auto", {})):
        recipe = TINY.override(**{"model": Choice(name, args), "epochs": 1})
        fit(recipe, tmp_path / name, model=mine, log=QUIET)
        assert weights(tmp_path / name)[0].shape == (64, args.get("units", 4))
    export(tmp_path / "mine", tmp_path / "exported")
    recipe = TINY.override(**{"model": Choice("mine"), "start_from": str(tmp_path / "exported")})
    with pytest.raises(RecipeError, match="its model mine is one of your own: take its run's directory"):
        fit(recipe, tmp_path / "more", model=mine, log=QUIET)


def test_a_model_of_ones_own_for_pictures_of_any_size_is_exported(tmp_path):
    def any_size(*, input_shape, num_classes):
        inputs = keras.Input((None, None, input_shape[-1]), name="image")
        x = keras.layers.GlobalAveragePooling2D(name="features")(keras.layers.Conv2D(4, 3)(inputs))
        return keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(x))

    fit(TINY.override(**{"model": Choice("mine"), "epochs": 1}), tmp_path / "run", model=any_size, log=QUIET)
    export(tmp_path / "run", tmp_path / "exported")
    assert "brought to 8 × 8 pixels and 1 channel inside" in (tmp_path / "exported" / "README.md").read_text()


def test_layers_at_the_input_adapt_to_it_and_those_further_in_stay(tmp_path):
    def mine(*, input_shape, num_classes):
        inputs = keras.Input(input_shape, name="image")
        x = keras.layers.Normalization(name="first")(inputs)
        x = keras.layers.Normalization(name="second")(keras.layers.Rescaling(1 / 255)(x))
        return keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(keras.layers.Flatten()(x)))

    settings = {"model": Choice("mine"), "task.mean": [0.0], "task.std": [1.0], "epochs": 1}
    fit(TINY.override(**settings), tmp_path / "run", model=mine, log=QUIET)
    saved = keras.models.load_model(tmp_path / "run" / "last.keras", compile=False)
    first, second = (saved.get_layer(name).get_weights()[1] for name in ("first", "second"))
    assert 0.05 < float(first.mean()) < 0.5 and float(second.mean()) == 1


def test_keras_own_limit_of_epochs_is_told_to_be_none_of_a_run(tmp_path):
    keras.config.set_max_epochs(1)
    try:
        with pytest.raises(MachineError, match="KERAS_MAX_EPOCHS=1: unset it"):
            fit(TINY, tmp_path / "run", log=QUIET)
    finally:
        keras.config.set_max_epochs(None)


def ended(process: subprocess.Popen) -> None:
    """Ends a process, if it is still there, with those that it has begun."""
    if process.poll() is None:
        for each in (*psutil.Process(process.pid).children(recursive=True), process):
            each.kill()
    process.wait()


@pytest.mark.slow
def test_a_run_that_is_interrupted_saves_and_the_same_command_ends_it(tmp_path, request):
    recipe = tmp_path / "recipe.json"
    TINY.override(epochs=100).save(recipe)
    command = [sys.executable, "-m", "bigkeras", "train", str(recipe), "--run-dir", str(tmp_path / "run")]
    with (tmp_path / "errors").open("w") as errors:
        training = subprocess.Popen(command, env=surroundings(), stdout=subprocess.PIPE, stderr=errors)
        request.addfinalizer(lambda: ended(training))
        wait_for(training, (tmp_path / "run" / "best.keras").exists)
        training.send_signal(signal.SIGINT)
        assert training.wait() == 130
    assert "the same command goes on" in (tmp_path / "errors").read_text()
    done = history(tmp_path / "run")
    assert 0 < len(done) < 100
    subprocess.run(command, env=surroundings(), check=True, capture_output=True)
    assert len(history(tmp_path / "run")) == 100 and history(tmp_path / "run")[: len(done)] == done


def test_pictures_that_are_read_anew_in_every_epoch_train_what_those_in_memory_train(
    digits_folder, tmp_path, monkeypatch
):
    recipe = TINY.override(**{"data": Choice("image_folder", {"directory": str(digits_folder)}), "batch_size": 16})
    found = []
    for memory in (0, 2**29):
        monkeypatch.setattr("bigkeras.tasks.classification.MEMORY", memory)
        fit(recipe.override(epochs=2), tmp_path / str(memory), log=QUIET)
        found.append(weights(tmp_path / str(memory)))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


KILLS, IN_WRITE = 20, 7


def is_alive(number: int) -> bool:
    return psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_twenty_times_ends_as_one_that_was_not(tmp_path):
    generator = np.random.default_rng(0)
    recipe = tmp_path / "recipe.json"
    TINY.override(batch_size=64, epochs=6).save(recipe)  # some 120 steps, of which each life makes a few
    log = tmp_path / "run" / "checkpoints"
    kills: list[str] = []
    with lives(recipe) as (one,):
        while len(kills) < KILLS:
            before = {p.name for p in log.glob("*.npz")}
            in_write = len(kills) == IN_WRITE
            process = one.begin(tmp_path / "run", in_write=in_write)
            # One in four at any moment, of the start, too; the others when a checkpoint has come, or while one is
            # written. One life, in the middle of a checkpoint for certain, ends itself.
            early, deadline = generator.random() < 0.25, time.monotonic() + generator.uniform(0, 4)
            wanted, written = int(generator.integers(1, 3)), generator.random() < 0.5
            # The life that ends itself is waited for below.
            while not in_write and is_alive(process):
                new = {p.name for p in log.glob("*.npz")} - before
                late = len(new) >= wanted or (written and new and any(log.glob("*.part")))
                if late or (early and time.monotonic() >= deadline):
                    os.kill(process, signal.SIGKILL)
                    kills.append(", ".join(sorted(p.name for p in log.glob("*"))))
                    break
                time.sleep(0.002)
            status = one.ended()
            if in_write:
                kills.append(", ".join(sorted(p.name for p in log.glob("*"))))
            assert status == -signal.SIGKILL, f"after {len(kills)} kills, a status of {status}: {one.told()}"
        for name in ("run", "whole"):
            one.begin(tmp_path / name)
            assert one.ended() == 0, one.told()
    assert ".part" in kills[IN_WRITE] and not list(log.glob("*.part"))
    whole, run = tmp_path / "whole", tmp_path / "run"
    differences = [float(np.abs(a - b).max()) for a, b in zip(weights(whole), weights(run), strict=True)]
    assert max(differences) == 0, (differences, kills)
    assert history(whole) == history(run)

"""What a run keeps of itself: checkpoints that cannot be written, cannot be read, or are broken."""

import errno
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from bigkeras import checkpoint, control
from bigkeras.checkpoint import CheckpointError, Position
from bigkeras.data.source import DataError, FileSource, Splits
from bigkeras.recipe import Choice
from bigkeras.recipes import RECIPES
from bigkeras.runtime import Machine
from bigkeras.signals import Interrupted, Log
from bigkeras.train import fit
from bigkeras.unreadable import Unreadable, check_share

TINY = RECIPES["digits"].override(
    **{"epochs": 2, "batch_size": 512, "augmentation": (), "model": Choice("simple_cnn", {"width": 4})}
)
QUIET = Log(quiet=True)
EVERY_STEP = Machine(checkpoint_seconds=0)


def save(directory: Path, step: int) -> None:
    checkpoint.save(directory, Position(step=step), step, {"00000 weight": np.full(3, step, np.float32)})


def restored(directory: Path, **arguments) -> tuple[float, list[str]]:
    """The value of the variable that was restored, and what was passed over."""
    variable = keras.Variable(np.zeros(3, np.float32))
    _, passed_over = checkpoint.restore(directory, [variable], **arguments)
    return float(variable.numpy()[0]), passed_over


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def hooked(monkeypatch, hook: str, before) -> None:
    """Has `before(control)` called at the beginning of one of the hooks of fit."""
    original = getattr(control.Control, hook)

    def called(self, number, logs=None):
        before(self)
        original(self, number, logs)

    monkeypatch.setattr(control.Control, hook, called)


def test_what_killed_processes_left_is_removed_with_the_old_ones(tmp_path):
    for name in ("step-00000001.part", "step-00000009.part", "step-00000001.npz.broken", "step-00000002.npz.broken"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "notes.part").write_bytes(b"mine")
    for step in (3, 4, 5):
        save(tmp_path, step)
    assert names(tmp_path) == ["notes.part", "step-00000002.npz.broken", "step-00000004.npz", "step-00000005.npz"]


@pytest.mark.parametrize("content", [b"", b"PK no zip", b"cut", b"flipped"])
def test_what_is_no_checkpoint_is_renamed_and_the_one_before_loads(content, tmp_path):
    for step in (1, 2):
        save(tmp_path, step)
    newest = tmp_path / "step-00000002.npz"
    whole = newest.read_bytes()
    # One bit of a shape, such as (3,): what reads it raises an error of Python's tokenizer.
    made = {b"cut": whole[:300], b"flipped": whole.replace(b",), }", b",(, }")}
    assert made[b"flipped"] != whole
    newest.write_bytes(made.get(content, content))
    assert restored(tmp_path) == (1.0, ["step-00000002.npz"])
    assert names(tmp_path) == ["step-00000001.npz", "step-00000002.npz.broken"]


def test_variables_of_another_model_or_backend_are_told(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"holds 1 variables, and this run has 2, .* \(KERAS_BACKEND\)"):
        checkpoint.restore(tmp_path, [keras.Variable(np.zeros(3)), keras.Variable(np.zeros(2))])
    with pytest.raises(CheckpointError, match="holds 1 variables, and this run has 1, of other shapes"):
        checkpoint.restore(tmp_path, [keras.Variable(np.zeros((7, 7)))])


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_what_the_system_would_not_read_keeps_its_name(number, tmp_path, monkeypatch):
    for step in (1, 2):
        save(tmp_path, step)
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name in fails:
            raise OSError(number, "not now")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    fails = ["step-00000002.npz"]
    assert restored(tmp_path) == (1.0, ["step-00000002.npz (not now)"])
    fails = ["step-00000001.npz", "step-00000002.npz"]
    with pytest.raises(
        CheckpointError, match=r"no checkpoint can be read: step-00000002\.npz \(not now\), .*try again"
    ):
        restored(tmp_path)
    fails = []
    assert restored(tmp_path) == (2.0, [])


def test_a_worker_that_is_not_the_chief_is_told_and_touches_nothing(tmp_path):
    seen = tmp_path / "seen"
    for directory, step in ((tmp_path / "chief", 7), (seen, 9)):
        save(directory, step)
    (seen / "step-00000009.npz").write_bytes(b"half")
    good = (tmp_path / "chief" / "step-00000007.npz").read_bytes()
    told = iter([b"", good, b"the chief cannot read"])
    assert restored(seen, told=lambda mine: next(told), chief=False) == (7.0, [])
    with pytest.raises(CheckpointError, match="the chief cannot read"):
        restored(seen, told=lambda mine: next(told), chief=False)
    assert names(seen) == ["step-00000009.npz"]


def test_a_full_disk_is_one_clear_error_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    def full(file, **arrays):
        if len(list((tmp_path / "run" / "checkpoints").glob("*.npz"))) == 1:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        return savez(file, **arrays)

    savez = np.savez
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(CheckpointError, match=r"cannot be written: No space left on device; the last good"):
        fit(TINY, tmp_path / "run", log=QUIET, machine=EVERY_STEP)
    assert names(tmp_path / "run" / "checkpoints") == ["step-00000001.npz"]


def test_a_run_goes_on_without_checkpoints_and_tables_where_its_recipe_says_so(tmp_path, monkeypatch, capsys):
    def read_only(file, **arrays):
        raise OSError(30, "Read-only file system")

    def in_the_way(control):
        if control.position.epoch == 0:
            (control.directory / "bad_samples.csv").mkdir()
        else:
            (control.directory / "bad_samples.csv").rmdir()

    monkeypatch.setattr(np, "savez", read_only)
    hooked(monkeypatch, "on_epoch_end", in_the_way)
    recipe = TINY.override(on_checkpoint_error="go on")
    assert fit(recipe, tmp_path / "run", machine=EVERY_STEP)["epochs"] == 2
    told = capsys.readouterr().err
    assert "Read-only file system; the last good one stays; the training goes on" in told
    assert "bad_samples.csv: cannot be written: Is a directory; the training goes on" in told


def test_tables_that_could_not_be_written_are_written_at_the_end_of_the_run(tmp_path, monkeypatch):
    def leaving(control):
        (control.directory / "log.csv").rmdir()
        original(control)

    original = control.Control.save_last
    monkeypatch.setattr(control.Control, "save_last", leaving)
    hooked(monkeypatch, "on_epoch_end", lambda c: (c.directory / "log.csv").mkdir(exist_ok=True))
    assert fit(TINY.override(on_checkpoint_error="go on"), tmp_path / "run", log=QUIET)["epochs"] == 2
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 3


def test_a_run_directory_that_disappears_after_the_last_epoch_is_not_made_anew(tmp_path, monkeypatch):
    original = control.Control.save_last
    monkeypatch.setattr(control.Control, "save_last", lambda c: shutil.rmtree(c.directory) or original(c))
    with pytest.raises(CheckpointError, match=r"its recipe\.json is gone"):
        fit(TINY.override(on_checkpoint_error="go on"), tmp_path / "run", log=QUIET)
    assert not (tmp_path / "run").exists()


def test_a_run_directory_that_disappears_is_one_clear_error(tmp_path, monkeypatch):
    hooked(monkeypatch, "on_train_batch_end", lambda c: c.total_steps == 2 and shutil.rmtree(c.directory))
    with pytest.raises(CheckpointError, match=r"run: cannot be written: its recipe\.json is gone"):
        fit(TINY, tmp_path / "run", log=QUIET, machine=EVERY_STEP)
    assert not (tmp_path / "run").exists()


def test_a_run_that_another_process_has_begun_at_the_same_place_is_left_alone(tmp_path, monkeypatch):
    def replaced(control):
        if control.total_steps == 2:
            shutil.rmtree(control.directory)
            control.directory.mkdir()
            (control.directory / "recipe.json").write_text(TINY.to_json())
            (control.directory / ".lock").write_text("1\n")

    hooked(monkeypatch, "on_train_batch_end", replaced)
    with pytest.raises(CheckpointError, match="run: cannot be written: process 1 has begun a run there since"):
        fit(TINY, tmp_path / "run", log=QUIET, machine=EVERY_STEP)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "recipe.json"]


def test_what_tensorboard_cannot_write_ends_the_run_in_a_line(tmp_path, monkeypatch):
    import tensorflow as tf

    from bigkeras.tensorboard import TensorBoardExtras

    def gone(*_):
        raise tf.errors.UnknownError(None, None, "The events file has disappeared.")

    monkeypatch.setattr(TensorBoardExtras, "on_epoch_end", gone)
    with pytest.raises(CheckpointError, match=r"^TensorBoard: The events file has disappeared\.$"):
        fit(TINY, tmp_path / "run", log=QUIET)
    assert fit(TINY.override(on_checkpoint_error="go on"), tmp_path / "other", log=QUIET)["epochs"] == 2

    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(TensorBoardExtras, "on_epoch_end", full)  # pictures are of answers, which are computed
    with pytest.raises(tf.errors.ResourceExhaustedError):
        fit(TINY, tmp_path / "third", log=QUIET)


@pytest.mark.parametrize("choice", ["stop", "go on"])
def test_a_run_whose_directory_is_gone_when_it_is_stopped_does_not_say_that_it_was_saved(
    choice, tmp_path, monkeypatch, capsys
):
    def disappearing(control):
        if control.total_steps == 1:
            shutil.rmtree(control.directory)
            control.asked.append(signal.SIGTERM)

    hooked(monkeypatch, "on_train_batch_end", disappearing)
    with pytest.raises(CheckpointError if choice == "stop" else Interrupted):
        fit(TINY.override(on_checkpoint_error=choice), tmp_path / "run")
    told = capsys.readouterr().err
    assert "saved at" not in told
    assert ("recipe.json is gone; was the run directory moved?; the run ends without it" in told) is (choice == "go on")


def test_a_directory_that_comes_back_is_written_to_again_where_the_recipe_says_go_on(tmp_path, monkeypatch):
    run, away = tmp_path / "run", tmp_path / "away"

    def moving(control):
        if control.position.epoch == 0:
            control.best = (np.inf, np.inf)  # this epoch is not the best: tables alone are written at its end
            run.rename(away)
        else:
            assert not run.exists()
            away.rename(run)

    hooked(monkeypatch, "on_epoch_end", moving)
    assert fit(TINY.override(on_checkpoint_error="go on"), run, log=QUIET)["epochs"] == 2
    assert len((run / "log.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("stopped", [False, True])
def test_an_epoch_whose_model_could_not_be_written_is_not_taken_for_the_kept_one(stopped, tmp_path, monkeypatch):
    def full(network, path):
        asked.append(path.name)
        if path.name == "best.keras" and not failed:
            failed.append(path)
            raise CheckpointError(f"{path}: cannot be written: No space left on device")
        original(network, path)

    asked: list[str] = []
    failed: list[Path] = []
    original = checkpoint.write_model
    monkeypatch.setattr(checkpoint, "write_model", full)
    hooked(monkeypatch, "on_epoch_end", lambda c: stopped and c.position.epoch == 0 and c.asked.append(signal.SIGTERM))
    # Nothing is learned: every epoch is as good as the first.
    recipe = TINY.override(optimizer=Choice("sgd", {"learning_rate": 0.0}), on_checkpoint_error="go on")
    run = tmp_path / "run"
    if stopped:
        with pytest.raises(Interrupted):
            fit(recipe, run, log=QUIET)
    assert fit(recipe, run, log=QUIET)["epochs"] == 2 and failed
    head, first, second = (line.split(",") for line in (run / "log.csv").read_text().splitlines())
    assert (first[head.index("best_unsaved")], second[head.index("best_unsaved")]) == ("1.0", "")
    assert asked == ["best.keras", "best.keras", "last.keras"]  # the second epoch is no better, but it is kept
    report = (run / "report.md").read_text()
    assert "is epoch 2, kept as best.keras" in report and "not kept" not in report


def test_bad_samples_noted_while_a_checkpoint_is_written_change_nothing_in_it(tmp_path, monkeypatch):
    def noting(where, position, total_steps, arrays):
        bad["late.png"] = "half"
        assert position == Position(1, 2, bad={"early.png": "half"}, examples=7)

    bad = {"early.png": "half"}
    run = SimpleNamespace(
        examples=7, position=Position(1, 2, bad=bad), unreadable=SimpleNamespace(noted=bad), directory=tmp_path,
        step=SimpleNamespace(state=list), total_steps=9, _write=lambda write, then: write(),
    )  # fmt: skip
    monkeypatch.setattr(checkpoint, "save", noting)
    control.Control.save(run)
    assert "late.png" in bad


@pytest.mark.parametrize(
    ("kind", "read", "told"), [("text", 0, None), ("image", 0, "30 of 330"), ("text", 1000, "30 of 1000")]
)
def test_bad_rows_of_a_whole_table_are_a_share_of_all_its_rows(kind, read, told, tmp_path):
    bad = {f"line {number}": "no label" for number in range(30)}
    splits = Splits(range(200), range(100), range(1700), ("a", "b"), bad=tuple(bad.items()), read=read)
    with pytest.raises(DataError, match=told) if told else nullcontext():
        check_share(splits, 30, dict(bad), 0.02, tmp_path, tested=kind != "image")


def test_rows_that_name_one_picture_which_cannot_be_read_count_each(tmp_path):
    source = FileSource([str(tmp_path / name) for name in ["gone.png"] * 3 + ["a.png"] * 97], [0] * 100)
    task = SimpleNamespace(kind="image", prepare=lambda columns: columns)
    # Pictures for testing are read when they are scored, and count neither among the bad nor among all.
    run = Unreadable(Splits(source, None, range(1700), ("a", "b")), task, 0.02, tmp_path)
    run.note(source, 0)
    run.check()  # until all workers know of it
    run.learn(run.fresh())
    with pytest.raises(DataError, match="3 of 100 examples cannot be read"):
        run.check()


def test_what_workers_begin_with_is_the_chiefs():
    def made(value):
        return [
            keras.Variable(np.full(shape, value, "float32"), name=f"w{i}") for i, shape in enumerate([(3,), (2, 2)])
        ]

    chiefs, others, sent = made(1.0), made(2.0), []
    checkpoint.hand_out(chiefs, lambda data: sent.append(data) or data, chief=True)
    checkpoint.hand_out(others, lambda data: sent[0] if not data else pytest.fail("others give nothing"), chief=False)
    for one, other in zip(chiefs, others, strict=True):
        np.testing.assert_array_equal(one.numpy(), np.ones(one.shape))
        np.testing.assert_array_equal(other.numpy(), one.numpy())

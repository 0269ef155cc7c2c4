"""The command line: what a user's mistake gets is one line, a status, and nothing lost."""

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tensorflow.errors import ResourceExhaustedError

from bigkeras import commands, evaluation
from bigkeras.__main__ import main
from bigkeras.control import Control
from bigkeras.recipe import Choice, Recipe, load
from bigkeras.recipes import RECIPES
from bigkeras.run import RunError, unfinished
from bigkeras.runtime import Machine
from bigkeras.signals import shown

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "saved_models"


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A recipe that trains in a second."""
    path = tmp_path / "tiny.json"
    RECIPES["digits"].override(**{"epochs": 1, "model.filters": 4, "model.width": 8}).save(path)
    return path


def folder_recipe(tmp_path: Path, folder: Path, **values) -> Path:
    path = tmp_path / "folder.json"
    RECIPES["digits"].override(
        **{
            "data": "image_folder",
            "data.directory": str(folder),
            "epochs": 1,
            "model.filters": 4,
            "batch_size": 16,
            **values,
        }
    ).save(path)
    return path


def test_options_of_a_machine_and_the_run_directory_are_handed_on(tiny, tmp_path, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr("bigkeras.train.fit", lambda recipe, run_dir, machine: seen.append((run_dir, machine)) or {})
    monkeypatch.setattr("bigkeras.commands._summary", lambda metrics: "")
    told = "--strategy mirrored --replicas 3 --tpu t --shards 4 --steps-per-call 5 --xla --checkpoint-seconds 6"
    assert run(capsys, "train", tiny, *told.split(), "--patience-seconds", 7, "--profile")[0] == 0
    asked = Machine(
        strategy="mirrored", replicas=3, tpu="t", shards=4, steps_per_call=5, xla=True, checkpoint_seconds=6,
        patience_seconds=7, profile=True,
    )  # fmt: skip
    assert seen == [(Path("runs/digits"), asked)]
    run(capsys, "train", "mnist-cnn", "--run-dir", tmp_path / "here")
    assert seen[1] == (tmp_path / "here", Machine())
    monkeypatch.setenv("HOME", str(tmp_path))
    run(capsys, "train", "mnist-cnn", "--run-dir=~/here")
    assert seen[2] == seen[1]


def test_empty_variables_of_a_shell_and_limits_that_are_no_numbers_are_told(tiny, capsys, monkeypatch):
    rc, _, told = run(capsys, "train", tiny, "--run-dir", "")
    assert rc == 1 and told == "bigkeras: --run-dir '': a folder; is a variable of the shell empty?\n"
    monkeypatch.setenv("KERAS_MAX_EPOCHS", "")
    rc, _, told = run(capsys, "train", tiny)
    assert rc == 1 and told == "bigkeras: KERAS_MAX_EPOCHS='': no number: unset it\n"


def test_the_other_average_of_an_earlier_run_is_not_taken_over(tmp_path, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr("bigkeras.train.fit", lambda recipe, run_dir, machine: seen.append(recipe) or {})
    monkeypatch.setattr("bigkeras.commands._summary", lambda metrics: "")
    origin = tmp_path / "origin"
    origin.mkdir()
    data = Choice("text_table", {"file": "r.csv"})
    Recipe(name="o", data=data, task=Choice("text_classification"), model=Choice("lstm"), ema=0.99).save(
        origin / "recipe.json"
    )
    asked = ["train", "text-csv", "--data", "r.csv", "--set", f"start_from={origin}"]
    assert run(capsys, *asked, "--set", "average_checkpoints=5")[0] == 0
    assert (seen[0].ema, seen[0].average_checkpoints) == (None, 5)
    assert run(capsys, *asked)[0] == 0 and seen[1].ema == 0.99


def test_a_run_may_have_a_name_that_is_no_utf8(tiny, tmp_path, capsys):
    assert run(capsys, "train", tiny, "--run-dir", tmp_path / os.fsdecode(b"caf\xe9"))[0] == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_examples_are_read_in_their_encoding(encoding, tmp_path):
    (tmp_path / "e.txt").write_bytes("这个菜很好吃\r\n\r\n送餐很快\n".encode(encoding))
    options = SimpleNamespace(examples=str(tmp_path / "e.txt"), run=str(SHIPPED / "sentiment-zh"))
    assert commands._example_texts(options) == ["这个菜很好吃".encode(), "送餐很快".encode()]


def test_what_tensorflow_says_of_its_own_kernels_is_not_shown(tiny, tmp_path, run_cli):
    for command in (["train", tiny, "--run-dir", tmp_path / "run"], ["evaluate", tmp_path / "run"]):
        done = run_cli(*command)
        assert done.rc == 0 and "oneDNN" not in done.stderr and "E0000" not in done.stderr


def test_advice_of_tensorflow_to_programmers_is_not_shown():
    code = """
from bigkeras.remarks import import_tensorflow
import_tensorflow()
import tensorflow as tf
traced = tf.function(lambda x: x + 1)
for size in range(9):
    traced(tf.zeros(size))
tf.get_logger().warning("this is for users")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "this is for users" in done.stderr and "retracing" not in done.stderr


def test_list_names_every_recipe(capsys):
    status, out, _ = run(capsys, "list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(RECIPES)
    status, out, _ = run(capsys, "list", "--json")
    assert set(json.loads(out)) == set(RECIPES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "mnits"], "recipe 'mnits' is not one of digits"),
        (["train", "digits", "--set", "epoch=3"], "key 'epoch' is not one of"),
        (["train", "digits", "--set", "self=1"], "key 'self' is not one of"),
        (["train", "digits", "--set", "loss=focal", "--set", "loss.gamma=-1"], "loss focal: gamma=-1"),
        (["train", "digits", "--set", "epochs"], "--set epochs: key=value"),
        (["train", "digits", "--set", "epochs=many"], "epochs='many': a whole number"),
        (["train", "digits", "--set", "epochs=0"], "epochs=0: at least 1"),
        (["train", "digits", "--set", "precision=float8"], "precision 'float8' is not one of"),
        (["train", "digits", "--set", "batch_size=10", "--set", "micro_batches=3"], "does not divide into"),
        (["train", "digits", "--set", "model.filters=7.5"], "model.filters=7.5: a whole number"),
        (["train", "digits", "--set", "model=resnet", "--set", "model.depth=21"], "model resnet: depth=21"),
        (["train", "digits", "--strategy", "two"], "--strategy two: one of auto, one, mirrored"),
        (["train", "digits", "--data", "somewhere"], "data digits is built in and takes no place"),
        (["train", "image-folder"], "data image_folder needs directory: --data PATH"),
        (["train", "image-folder", "--data", "nowhere"], "nowhere"),
        (["train", "image-folder", "--data", "~nobody-of-this-name/x"], "not a directory, nothing is there"),
        (["train", "digits", "--set", "start_from=~nobody-of-this-name"], "nothing is there"),
        (["train", "image-folder", "--data", "."], "whose sub-folders are classes: take another --run-dir"),
        (["train", "image-table", "--data", "labels.csv"], "labels.csv"),
        (["train", "text-csv", "--data", "t.csv", "--set", "data.no_label=unknown"], "data.no_label='unknown': a list"),
        (["train", "digits", "--set", "start_from=nowhere"], "start_from=nowhere: nothing is there"),
        (["train", "image-folder", "--data", ""], "--data: an empty name"),
        (["train", "digits", "--set", "optimizer=adam", "--set", "optimizer.weight_decay=0,01"], "'0,01': a number or"),
        (["train", "digits", "--set", "optimizer=adam", "--set", "optimizer.beta_1=null"], "beta_1=None: a number"),
        (["train", "digits", "--set", 'augmentation=["random_rotation"]'], '"args": {"factor": …}'),
        (["train", "digits", "--set", "task.mean=[123.7]"], "task.mean=[123.7]: of pixels from 0 to 1"),
        (["train", "digits", "--set", "freeze_until=conv9"], "freeze_until='conv9': no such layer"),
        (["train", "digits", "--set", "consistency=1"], "consistency=1.0: nothing in model"),
        (["train", "digits", "--patience-seconds", "5"], "--patience-seconds 5: is for several workers"),
        (["train", "image-folder", "--data", "a", "--set", "data.directory=b"], "--data a and --set data.dir"),
        (["evaluate", "no-run"], "no-run: no such directory"),
        (["export", "no-run", "out"], "no-run"),
        (["export", "lite0-imagenet", "out", "--beam", "2"], "--warm-compiled, --beam and --examples are of texts"),
        (["export", "no-run", "out", "--examples", "nowhere.txt"], "nowhere.txt: No such file"),
        (
            ["export", SHIPPED / "sentiment-zh", "out", "--examples", __file__, "--beam", "2"],
            "--beam: of translators only",
        ),
        (["export", SHIPPED / "sentiment-zh", "out", "--examples", os.devnull], "null holds no text"),
        (["export", SHIPPED / "digits", "out", "--examples", __file__], "digits reads images"),
        (["train", "."], ".: no directory of a run: it has no recipe.json; a name of `bigkeras list` comes first"),
    ],
)
def test_a_mistake_gets_one_line_that_names_it(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert status == 1
    assert out == ""
    assert err.startswith("bigkeras: ")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "a JSON object"),
        ('{"name": "x"}', "lacks data, task, model"),
        ('{"nome": "x"}', "key 'nome' is not one of"),
    ],
)
def test_a_recipe_file_that_is_none_is_named(content, message, capsys, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(content)
    status, _, err = run(capsys, "train", path)
    assert status == 1
    assert str(path) in err
    assert message in err


def test_another_keras_backend_gets_one_line(run_cli):
    result = run_cli("train", "digits", KERAS_BACKEND="torch")
    assert result.rc == 1
    assert result.stderr == (
        "bigkeras: KERAS_BACKEND=torch: this command needs TensorFlow; unset it or set KERAS_BACKEND=tensorflow\n"
    )


def test_a_run_is_trained_scored_exported_and_asked(tiny, tmp_path, capsys):
    run_dir = tmp_path / "run"
    status, out, _ = run(capsys, "train", tiny, "--run-dir", run_dir, "--json")
    assert status == 0
    assert 0 < json.loads(out)["validation"]["accuracy"] <= 1
    status, out, _ = run(capsys, "evaluate", run_dir, "--json")
    test = json.loads(out)["test"]
    assert json.loads((run_dir / "metrics.json").read_text())["test"] == test
    status, _, err = run(capsys, "train", run_dir)
    assert status == 0 and f"{run_dir}: this run is complete" in err
    assert not unfinished(run_dir)
    shutil.copytree(run_dir, tmp_path / "left")
    (tmp_path / "left" / "metrics.json").unlink()
    assert unfinished(tmp_path / "left").startswith(f"{tmp_path / 'left'}: not complete: 1 of 1 epochs; the command")
    status, out, _ = run(capsys, "export", run_dir, tmp_path / "model")
    assert status == 0
    assert "both of TensorFlow's loaders" in out
    status, out, _ = run(capsys, "evaluate", tmp_path / "model", "--json")
    assert json.loads(out)["test"]["accuracy"] == test["accuracy"]
    status, out, _ = run(capsys, "evaluate", run_dir, "--average", "flips-shifts", "--json")
    assert list(json.loads(out)) == ["test flips-shifts"]
    app = [sys.executable, "-m", "apps.image_classification", run_dir / "examples", "--model", tmp_path / "model"]
    answers = subprocess.run([*app, "--json"], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert answers.returncode == 0, answers.stderr
    assert len(answers.stdout.splitlines()) == 16
    status, _, err = run(capsys, "evaluate", run_dir, "--split", "holdout")
    assert status == 1
    assert "split 'holdout' is not one of" in err


def test_a_later_run_starts_from_an_earlier_one_or_from_an_artifact(tiny, tmp_path, capsys):
    from bigkeras.transfer import artifact_model, start_from

    assert run(capsys, "train", tiny, "--run-dir", tmp_path / "first")[0] == 0
    assert run(capsys, "export", tmp_path / "first", tmp_path / "model")[0] == 0
    from bigkeras.models import MODELS

    for origin in (tmp_path / "first", tmp_path / "model", tmp_path / "first" / "best.keras"):
        network = MODELS["simple_cnn"](input_shape=(8, 8, 1), num_classes=10, filters=4, width=8)
        assert "stem" in start_from(str(origin), network)
        for mine, theirs in zip(network.get_weights(), artifact_model(tmp_path / "model").get_weights(), strict=True):
            assert np.array_equal(mine, theirs)
    more = ["--set", f"start_from={tmp_path / 'first'}", "--set", "freeze_until=features"]
    status, _, err = run(capsys, "train", tiny, "--run-dir", tmp_path / "second", *more)
    assert (status, err.count("bigkeras:")) == (0, 0)


@pytest.mark.parametrize("name", ["imagenet", "minilm", "earlier"])
def test_a_name_of_weights_goes_before_a_folder_called_the_same(name, tiny, tmp_path, capsys, monkeypatch):
    began = []
    monkeypatch.setattr("bigkeras.train.fit", lambda recipe, *_, **__: began.append(recipe.start_from) or {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert run(capsys, "train", tiny, "--set", f"start_from={name}")[0] == 0
    assert began == [str(tmp_path / name) if name == "earlier" else name]


def bomb(path: Path, side: int = 20_000) -> None:
    """A PNG of `side` × `side` white pixels, some tens of kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (side // 8)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def test_a_disk_that_takes_no_more_is_one_line_and_what_was_there_stays(tiny, tmp_path, capsys):
    """No file may grow beyond some kB: what writing meets on a full disk."""

    def limited(kilobytes: int, *arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "bigkeras", *map(str, arguments)]
        shell = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", *command]
        return subprocess.run(shell, capture_output=True, text=True, cwd=Path(__file__).parents[1])

    done = limited(10, "train", tiny, "--run-dir", tmp_path / "small")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("bigkeras: ")
    assert "cannot be written: File too large" in done.stderr and "Traceback" not in done.stderr
    assert run(capsys, "train", tiny, "--run-dir", tmp_path / "run")[0] == 0
    done = limited(10, "export", tmp_path / "run", tmp_path / "model")
    assert done.returncode == 1
    assert f"{tmp_path / 'model'}: cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"small", "run", "tiny.json"}
    assert run(capsys, "export", tmp_path / "run", tmp_path / "model")[0] == 0


def test_what_the_output_cannot_hold_is_no_traceback(monkeypatch):
    for name, command, written in (("list", "list_recipes", "5 \\u2013 6"), ("doctor", "doctor", "5 – 6")):
        held = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(held, encoding="ascii"))
        monkeypatch.setattr(f"bigkeras.commands.{command}", lambda options: print("5 – 6") or 0)
        assert main([name, *["--json"] * (name == "doctor")]) == 0
        assert held.getvalue().decode() == written + "\n"
    command = [sys.executable, "-m", "bigkeras", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stderr) == (1, "bigkeras: No space left on device\n")


def test_standard_error_that_is_closed_swallows_remarks_and_no_answers(tiny, tmp_path, capsys):
    assert run(capsys, "train", tiny, "--run-dir", tmp_path / "run")[0] == 0
    command = [sys.executable, "-m", "bigkeras", "evaluate", str(tmp_path / "run"), "--json"]
    shell = ["bash", "-c", 'exec "$@" 2>&-', "bash", *command]
    done = subprocess.run(shell, cwd=ROOT, stdout=subprocess.PIPE, timeout=300)
    assert done.returncode == 0 and json.loads(done.stdout)["test"]["examples"] > 0
    done = subprocess.run([*shell[:-2], "gone"], cwd=ROOT, stdout=subprocess.PIPE, timeout=300)
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_an_export_that_is_asked_to_end_leaves_nothing(signum, tmp_path, monkeypatch, capsys):
    def export(run, directory, *rest, **options):
        from bigkeras.placing import placed

        with placed(Path(directory), {"a.txt": b"a"}):
            assert signal.getsignal(signum) is not signal.SIG_DFL  # or the tests would end here
            signal.raise_signal(signum)
        return {}

    monkeypatch.setattr("bigkeras.artifact.export", export)
    before = signal.getsignal(signum)
    signal.signal(signum, signal.SIG_DFL)
    try:
        assert main(["export", str(tmp_path / "run"), str(tmp_path / "models" / "mine")]) == 128 + signum
        assert signal.getsignal(signum) is signal.SIG_DFL
    finally:
        signal.signal(signum, before)
    assert f"stopped by {signum.name}" in capsys.readouterr().err
    assert not any((tmp_path / "models").iterdir())


def test_names_with_ends_of_lines_make_no_lines_of_their_own():
    assert shown("a\nb\tc\x1b[0m.png: ü") == "a\\x0ab\\x09c\\x1b[0m.png: ü"


def test_scores_that_cannot_be_kept_are_shown(tiny, tmp_path, capsys, monkeypatch):
    run(capsys, "train", tiny, "--run-dir", tmp_path / "run")

    def refused(*arguments, **options):
        raise RunError("metrics.json: cannot be written: Permission denied")

    monkeypatch.setattr("bigkeras.evaluation.write_json", refused)
    status, out, err = run(capsys, "evaluate", tmp_path / "run", "--json")
    assert status == 0 and json.loads(out)["test"]["examples"] > 0
    assert "cannot be written: Permission denied: not all files of the run have these scores" in err


@pytest.mark.parametrize("begun", ["complete", "training"])
def test_scores_of_a_model_that_is_trained_on_meanwhile_are_shown_and_not_kept(
    begun, tiny, tmp_path, capsys, monkeypatch
):
    run(capsys, "train", tiny, "--run-dir", tmp_path / "run")
    model, metrics = (tmp_path / "run" / name for name in ("best.keras", "metrics.json"))
    kept = metrics.read_text()
    if begun == "training":
        metrics.unlink()
    scored = evaluation._answered

    def scored_meanwhile(*arguments):
        answers = scored(*arguments)
        metrics.write_text(kept)
        shutil.copy(model, tmp_path / "next")
        (tmp_path / "next").replace(model)
        return answers

    monkeypatch.setattr("bigkeras.evaluation._answered", scored_meanwhile)
    status, out, err = run(capsys, "evaluate", tmp_path / "run", "--json")
    assert status == 0 and json.loads(out)["test"]["examples"] > 0 and metrics.read_text() == kept
    assert ("was trained on meanwhile" if begun == "complete" else "not complete") in err


def test_files_that_are_no_pictures_by_their_name_are_told(digits_folder, tmp_path, capsys):
    shutil.copytree(digits_folder, tmp_path / "folder")
    classes = sorted((tmp_path / "folder").iterdir())
    (classes[0] / "a.heic").touch()
    (classes[0] / "b.heic").touch()
    _, _, err = run(capsys, "train", folder_recipe(tmp_path, tmp_path / "folder"), "--run-dir", tmp_path / "run")
    assert "2 left out that are no examples, the first " in err and "a.heic: not a picture, by its name" in err
    _, _, err = run(capsys, "pack", tmp_path / "folder", tmp_path / "packed")
    assert "2 left out that are no examples" in err


@pytest.mark.parametrize("memory", [0, 2**29])  # each read anew in every epoch, as those of a large set are, or once
def test_bad_pictures_are_left_out_counted_and_listed(memory, digits_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bigkeras.tasks.classification.MEMORY", memory)
    folder = tmp_path / "folder"
    shutil.copytree(digits_folder, folder)
    (folder / "3" / "空.png").write_bytes(b"")
    (folder / "4" / "half.png").write_bytes((folder / "4" / "01.png").read_bytes()[:40])
    bomb(folder / "5" / "bomb.png")
    # What a file is is said by its bytes, not by its name.
    (folder / "6" / "01.png").rename(folder / "6" / "mislabelled.jpg")
    recipe = folder_recipe(tmp_path, folder, max_bad_fraction=0.05)
    status, _, err = run(capsys, "train", recipe, "--run-dir", tmp_path / "run")
    assert status == 0, err
    listed = (tmp_path / "run" / "bad_samples.csv").read_text(encoding="utf-8")
    assert listed.splitlines()[0] == "sample,reason"
    found = {name for name in ("空.png", "half.png", "bomb.png") if name in listed}
    assert len(listed.splitlines()) - 1 == len(found) >= 1
    # Those that fell into the test split are found when that is scored.
    status, _, err = run(capsys, "evaluate", tmp_path / "run")
    assert status == 0, err
    listed = (tmp_path / "run" / "bad_samples.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(listed) == 3
    assert all(any(name in line for line in listed) for name in ("空.png", "half.png", "bomb.png"))


@pytest.mark.parametrize("memory", [0, 2**29])
def test_too_many_bad_pictures_end_the_run_and_the_first_are_named(
    memory, digits_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("bigkeras.tasks.classification.MEMORY", memory)
    folder = tmp_path / "folder"
    shutil.copytree(digits_folder, folder)
    for path in sorted((folder / "7").iterdir())[:10]:
        path.write_bytes(b"no picture at all: " + path.name.encode())  # equal ones would stand in one split
    status, _, err = run(capsys, "train", folder_recipe(tmp_path, folder), "--run-dir", tmp_path / "run")
    assert status == 1
    assert "cannot be read, more than max_bad_fraction=0.01 allows; the first: " in err
    assert ".png: " in err
    assert (tmp_path / "run" / "bad_samples.csv").exists()


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_exports_float32(precision, tiny, tmp_path, capsys):
    status, _, err = run(capsys, "train", tiny, "--run-dir", tmp_path / "run", "--set", f"precision={precision}")
    assert status == 0, err
    status, out, err = run(capsys, "export", tmp_path / "run", tmp_path / "model", "--json")
    assert status == 0, err
    told = json.loads(out)
    assert max(told["differences"].values()) < 1e-4 and told["precision_difference"] > 0
    import keras

    trained = keras.models.load_model(tmp_path / "run" / "best.keras", compile=False)
    assert trained.get_layer("stem").compute_dtype == precision.removeprefix("mixed_")


def test_a_run_that_was_left_goes_on_by_its_folder(tiny, tmp_path, capsys, monkeypatch):
    def interrupting(self, batch, logs=None):
        if self.total_steps == 1:
            self.asked.append(signal.SIGTERM)
        original(self, batch, logs)

    original = Control.on_train_batch_end
    earlier = tmp_path / "earlier"
    assert run(capsys, "train", tiny, "--run-dir", earlier)[0] == 0
    for place, settings in ((tmp_path / "plain", ()), (tmp_path / "later", ("--set", f"start_from={earlier}"))):
        monkeypatch.setattr(Control, "on_train_batch_end", interrupting)
        status, _, err = run(capsys, "train", tiny, "--run-dir", place, *settings, "--set", "epochs=2")
        assert status == 128 + signal.SIGTERM and "the same command goes on" in err
        monkeypatch.undo()
        status, _, err = run(capsys, "train", place)
        assert status == 0 and "going on at epoch 1, step 2" in err, err
        assert len((place / "log.csv").read_text().splitlines()) == 3


def test_a_pack_trains_like_its_folder(digits_folder, tmp_path, capsys):
    status, _, err = run(capsys, "pack", digits_folder, tmp_path / "packed", "--shard-megabytes", "0")
    assert status == 1 and "--shard-megabytes 0: at least 1" in err
    (tmp_path / "one" / "cat").mkdir(parents=True)
    (tmp_path / "one" / "cat" / "a.png").touch()
    status, _, err = run(capsys, "pack", tmp_path / "one", tmp_path / "none")
    assert status == 1 and "only one class, 'cat'" in err and not (tmp_path / "none").exists()
    assert run(capsys, "pack", digits_folder, tmp_path / "packed")[0] == 0
    results = []
    for name, data, place in (("a", "image_folder", digits_folder), ("b", "packed", tmp_path / "packed")):
        recipe = folder_recipe(tmp_path, place, data=data)
        status, out, err = run(capsys, "train", recipe, "--run-dir", tmp_path / name, "--json")
        assert status == 0, err
        results.append(json.loads(out)["validation"])
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--patience", "--set patience=VALUE"),
        ("--batch-size", "--set batch_size=VALUE"),
        ("--model.depth", "--set model.depth=VALUE"),
        ("--steps", "arguments: --steps 3\n"),
    ],
)
def test_an_option_is_named_whole_and_a_setting_is_told_as_one(option, told, capsys):
    with pytest.raises(SystemExit):
        main(["train", "digits", option, "3"])
    assert told in capsys.readouterr().err


def test_what_is_missing_of_a_run_is_named_and_the_folder_above_where_it_is_one(digits_folder, tmp_path, capsys):
    (tmp_path / "run" / "1").mkdir(parents=True)
    RECIPES["digits"].save(tmp_path / "run" / "recipe.json")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    assert "its best.keras is gone" in run(capsys, "evaluate", tmp_path / "run")[2]
    assert f"{tmp_path / 'run'} has one" in run(capsys, "evaluate", tmp_path / "run" / "1")[2]
    content = (tmp_path / "run" / "recipe.json").read_bytes()
    (tmp_path / "marked.json").write_bytes(b"\xef\xbb\xbf" + content)
    assert load(tmp_path / "marked.json") == RECIPES["digits"]


@pytest.mark.parametrize("named", [[], ["--run-dir"]])
def test_a_run_of_several_candidates_is_complete_however_its_folder_is_named(named, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    asked = RECIPES["text-csv"].override(**{"data.file": str(tmp_path / "t.csv")})
    (run_dir / "search.json").write_text(json.dumps({"asked": json.loads(asked.to_json())}))
    asked.override(name="kept", model="nb_ngrams").save(run_dir / "recipe.json")
    (run_dir / "best.keras").touch()
    (run_dir / "metrics.json").write_text(json.dumps({"epochs": 3}))
    status, _, err = run(capsys, "train", run_dir, *(word for option in named for word in (option, "run")))
    assert status == 0 and "this run is complete" in err


def test_too_little_memory_of_a_device_is_a_line(monkeypatch, tiny, tmp_path, capsys):
    from bigkeras import train

    def full(*arguments, **named):
        raise ResourceExhaustedError(None, None, "Graph execution error:\n\nOOM when allocating tensor with shape[8]")

    monkeypatch.setattr(train, "fit", full)
    status, _, err = run(capsys, "train", tiny, "--run-dir", tmp_path / "run")
    assert status == 1 and "a device has too little memory; in training a smaller batch_size" in err


def test_jax_that_is_not_there_is_a_line(monkeypatch, tiny, tmp_path, capsys):
    monkeypatch.setattr("bigkeras.runtime.on_jax", lambda: True)
    monkeypatch.setattr("bigkeras.runtime.find_spec", lambda name: None)
    status, _, err = run(capsys, "train", tiny, "--run-dir", tmp_path / "run")
    assert status == 1 and "KERAS_BACKEND=jax: not installed: pip install '.[jax]'" in err


def test_a_model_of_published_data_is_scored_on_a_folder_where_that_is_said(digits_folder, capsys, monkeypatch):
    model = ROOT / "saved_models" / "digits"
    status, _, err = run(capsys, "evaluate", model, "--data", digits_folder, "--split", "all")
    assert status == 1 and f"{digits_folder}: is no place of mnist" in err and "--set data=image_folder" in err
    asked = ("--data", digits_folder, "--split", "all", "--json")
    status, out, _ = run(capsys, "evaluate", model, "--set", "data=image_folder", *asked)
    assert status == 0 and json.loads(out)["all"]["examples"] == 200
    status, _, err = run(capsys, "evaluate", model, "--set", "data=text_table", *asked)
    assert status == 1 and "a model of image_classification can be scored on image_folder" in err


def test_what_a_data_set_lacks_is_told_with_what_can_be_scored(digits_folder, tmp_path, capsys):
    path = folder_recipe(tmp_path, digits_folder, **{"data.test": 0.0})
    assert run(capsys, "train", path, "--run-dir", tmp_path / "run")[0] == 0
    status, _, err = run(capsys, "evaluate", tmp_path / "run")
    assert status == 1 and "has no test split: --split validation or train scores" in err
    assert "bigkeras evaluate again --split validation" in (tmp_path / "run" / "report.md").read_text()
    run(capsys, "export", tmp_path / "run", tmp_path / "model")
    assert "The recipe's claim: " in (tmp_path / "model" / "README.md").read_text()
    (tmp_path / "model" / "labels.txt").write_text("".join(f"{i}\n" for i in range(11)))
    status, _, err = run(capsys, "evaluate", tmp_path / "model", "--split", "validation")
    assert status == 1 and "labels.txt has other names than the model gives" in err

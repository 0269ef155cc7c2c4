"""Asynchronous training with parameter servers: what it equals, what it counts, what falls and comes back."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from processes import surroundings, wait_for

from bigkeras.asynchronous import Lookout, _fetched
from bigkeras.launch import GRACE, configurations, main
from bigkeras.recipe import Choice, Recipe
from bigkeras.recipes import RECIPES
from bigkeras.signals import Log
from bigkeras.train import fit

ROOT = Path(__file__).resolve().parents[1]
RECIPE = RECIPES["digits"].override(
    **{
        "epochs": 6,
        "batch_size": 50,
        "ema": 0.9,
        "augmentation": (),
        "optimizer": Choice("sgd", {"learning_rate": 0.05}),
        "model": Choice("simple_cnn", {"width": 8, "dropout": 0.0}),
    }
)


def start(folder: Path, recipe, workers: int, servers: int, *options: str, patience: float = 60.0) -> subprocess.Popen:
    recipe.save(folder / "recipe.json")
    train = ["-m", "bigkeras", "train", str(folder / "recipe.json"), "--run-dir", str(folder / "run")]
    train += ["--checkpoint-seconds", "0", "--patience-seconds", str(patience)]
    return launch(folder, workers, servers, options, train)


def launch(folder: Path, workers: int, servers: int, options: tuple, program: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "bigkeras.launch", str(workers), "--servers", str(servers), *options]
    command += ["--logs", str(folder), "--", sys.executable, *program]
    return subprocess.Popen(command, env=surroundings())


def member(group: subprocess.Popen, job: str, index: int) -> psutil.Process:
    for process in psutil.Process(group.pid).children():
        if json.loads(process.environ()["TF_CONFIG"])["task"] == {"type": job, "index": index}:
            return process
    raise AssertionError(f"no {job} {index}")


@contextmanager
def ends_saved(group: subprocess.Popen, folder: Path) -> Iterator[None]:
    """What is asked to leave inside has the whole group saved and gone, before the launcher would kill it."""
    everyone = psutil.Process(group.pid).children()
    yield
    assert group.wait(2 * GRACE) == 128 + signal.SIGTERM  # the launcher waits that long before it kills
    assert not any(process.is_running() for process in everyone)
    assert "the same command goes on" in (folder / "chief.log").read_text()


def newest(run: Path) -> dict[str, np.ndarray]:
    """The variables of the newest checkpoint by their paths."""
    path = max((run / "checkpoints").glob("step-*.npz"))
    with np.load(path) as file:
        return {name.split(" ", 1)[-1]: file[name] for name in file.files}


def test_a_group_with_servers_has_a_chief():
    tasks = [json.loads(values["TF_CONFIG"])["task"] for values in configurations(2, 1)]
    assert [f"{task['type']} {task['index']}" for task in tasks] == ["chief 0", "worker 0", "worker 1", "ps 0"]


def test_a_fallen_worker_comes_back_alone_and_the_group_ends_with_its_chief(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("bigkeras.launch.FALLEN_GRACE", 0.2)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    program = f"""
import json, os, time
task, lives = json.loads(os.environ["TF_CONFIG"])["task"], {str(tmp_path / "lives")!r}
if task["type"] == "worker":
    open(lives, "a").write("x")
    if os.stat(lives).st_size == 1:
        os.kill(os.getpid(), 9)
while task["type"] != "chief" or not os.path.exists(lives) or os.stat(lives).st_size < 2:
    time.sleep(0.05)
"""
    try:
        assert main(["1", "--servers", "1", "--logs", str(tmp_path), "--", sys.executable, "-c", program]) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "worker 0 fell (SIGKILL)" in capfd.readouterr().err
    assert (tmp_path / "lives").read_text() == "xx"


class Remote:
    """A step whose worker is gone when its results are asked for, then there anew, without them; it is made again, or
    given up for `error`."""

    def __init__(self, error: Exception | None):
        self._error, self.asked = error, 0

    def fetch(self) -> dict[str, float]:
        self.asked += 1
        if self.asked == 1:
            raise tf.errors.UnavailableError(None, None, "Socket closed")
        if self.asked == 2:
            raise tf.errors.InvalidArgumentError(None, None, "Unable to find the relevant tensor remote_handle")
        return {"last": 0.5}


def test_a_worker_that_falls_between_a_step_and_its_results_has_the_step_made_again(monkeypatch):
    monkeypatch.setattr("bigkeras.asynchronous.POLL", 0.0)
    assert _fetched(Remote(None)) == {"last": 0.5}
    with pytest.raises(tf.errors.UnavailableError):
        _fetched(Remote(tf.errors.UnavailableError(None, None, "ps")))


def test_a_worker_that_is_at_a_step_for_too_long_is_named_once():
    cluster = {"chief": ["a:1"], "worker": ["b:1", "b:2"], "ps": ["c:1"]}
    workers = [SimpleNamespace(worker_index=i, _process_closure=lambda closure: closure()) for i in (0, 1)]
    said: list[str] = []
    lookout = Lookout(workers, cluster, [], said.append, 60.0)
    workers[0]._process_closure(lambda: None)
    workers[1]._process_closure(lambda: [lookout.name_overdue(time.monotonic() + later) for later in (59, 62, 70)])
    assert said == ["worker 1 (b:2): 62 s at one step: it, or a parameter server, hangs or is cut off"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_worker_that_is_asked_to_leave_comes_back_and_the_whole_group_saves_when_asked(tmp_path):
    group = start(tmp_path, RECIPE.override(epochs=100_000), 1, 1)
    checkpoints = tmp_path / "run" / "checkpoints"
    try:
        wait_for(group, lambda: any(checkpoints.glob("*.npz")))
        member(group, "worker", 0).terminate()
        wait_for(group, lambda: (tmp_path / "worker-0.log").read_text().count("ready") == 2)
        seen = {path.name for path in checkpoints.glob("*.npz")}
        wait_for(group, lambda: len({path.name for path in checkpoints.glob("*.npz")} - seen) == 2)
        with ends_saved(group, tmp_path):
            group.terminate()
    finally:
        group.terminate()
        group.wait(300)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_worker_that_hangs_is_named_by_the_chief_and_goes_on_when_it_can(tmp_path):
    group = start(tmp_path, RECIPE.override(epochs=100_000), 2, 1, patience=2.0)
    checkpoints, log = tmp_path / "run" / "checkpoints", tmp_path / "chief.log"
    try:
        wait_for(group, lambda: any(checkpoints.glob("*.npz")))
        hung = member(group, "worker", 1)
        address = json.loads(hung.environ()["TF_CONFIG"])["cluster"]["worker"][1]
        hung.suspend()
        wait_for(group, lambda: re.search(rf"worker 1 \({re.escape(address)}\): \d+ s at one step", log.read_text()))
        hung.resume()
        seen = {path.name for path in checkpoints.glob("*.npz")}
        wait_for(group, lambda: len({path.name for path in checkpoints.glob("*.npz")} - seen) == 2)
    finally:
        group.terminate()
        group.wait(300)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("asked", [["ps"], ["worker", "ps", "chief"]], ids=["server", "everyone"])
def test_all_is_saved_before_a_server_leaves_that_is_asked_to(asked, tmp_path):
    group = start(tmp_path, RECIPE.override(epochs=100_000), 1, 1)
    try:
        wait_for(group, lambda: any((tmp_path / "run" / "checkpoints").glob("*.npz")))
        with ends_saved(group, tmp_path):
            for process in [member(group, job, 0) for job in asked]:
                process.terminate()
    finally:
        group.terminate()
        group.wait(300)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_worker_whose_server_and_chief_are_killed_ends_in_the_weights_of_one_device(tmp_path, ending):
    # A convolution adds up in another order with other threads, and a ReLU near zero makes 1e-3 of 1e-8 in 150 steps.
    recipe = RECIPE.override(model=Choice("lstm", {"units": 16, "depth": 1}), epochs=3)
    group = ending(start(tmp_path, recipe, 1, 1, "--restarts", "2"))
    checkpoints, log = tmp_path / "run" / "checkpoints", tmp_path / "chief.log"
    wait_for(group, lambda: any(checkpoints.glob("*.npz")))
    member(group, "ps", 0).kill()
    wait_for(group, lambda: "going on at epoch" in log.read_text())
    seen = {path.name for path in checkpoints.glob("*.npz")}
    wait_for(group, lambda: {path.name for path in checkpoints.glob("*.npz")} - seen)
    member(group, "chief", 0).kill()
    assert group.wait(900) == 0
    assert log.read_text().count("going on at epoch") == 2
    fit(recipe, tmp_path / "one", log=Log(quiet=True))
    one, other = (keras.models.load_model(tmp_path / d / "last.keras", compile=False) for d in ("one", "run"))
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_step_is_lost_with_a_worker_and_all_go_on_when_a_server_falls(tmp_path, ending):
    recipe = RECIPE.override(optimizer=Choice("adam"), epochs=4)
    group = ending(start(tmp_path, recipe, 2, 1, "--restarts", "1"))
    checkpoints = tmp_path / "run" / "checkpoints"
    wait_for(group, lambda: any(checkpoints.glob("*.npz")))
    member(group, "worker", 1).kill()
    seen = {path.name for path in checkpoints.glob("*.npz")}
    wait_for(group, lambda: len({path.name for path in checkpoints.glob("*.npz")} - seen) == 2)
    member(group, "ps", 0).kill()
    assert group.wait(900) == 0
    told = (tmp_path / "chief.log").read_text()
    assert "is gone or does not answer, and the weights on it" in told, told
    assert "going on at epoch" in told, told
    # Each step that a fallen worker had begun is made again; it may have been applied before the worker fell.
    per_epoch = -(-(1797 - 2 * 270) // 50)
    counted = next(value for name, value in newest(tmp_path / "run").items() if "iteration" in name)
    assert 4 * per_epoch <= counted <= 4 * per_epoch + 2


# Trains the recipe argv[1] in argv[2], and prints on which device each part of the embedding's table lies.
SHARDED = """
import functools, sys
from bigkeras.models import MODELS
from bigkeras.recipe import load
from bigkeras.train import fit

@functools.wraps(MODELS["bag_of_ngrams"])
def model(**sizes):
    network = MODELS["bag_of_ngrams"](**sizes)
    print(*[table.value.device for table in network.get_layer("embedding").tables], flush=True)
    return network

fit(load(sys.argv[1]), sys.argv[2], model=model)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_sharded_table_lies_on_all_servers_and_learns(tmp_path, ending):
    texts, recipe, run = tmp_path / "texts.csv", tmp_path / "recipe.json", tmp_path / "run"
    rows = (f"number {i} was {'fine' if i % 2 else 'poor'},{'good' if i % 2 else 'bad'}" for i in range(200))
    texts.write_text("\n".join(["text,label", *rows]))
    Recipe(
        name="sharded",
        data=Choice("text_table", {"file": str(texts)}),
        task=Choice("text_classification", {"min_count": 1}),
        model=Choice("bag_of_ngrams", {"width": 8, "shards": 4}),
        optimizer=Choice("sgd", {"learning_rate": 1.0}),
        epochs=6,
        batch_size=16,
    ).save(recipe)
    assert ending(launch(tmp_path, 2, 2, (), ["-c", SHARDED, str(recipe), str(run)])).wait(900) == 0
    servers = re.findall(r"/job:ps/replica:0/task:(\d)", (tmp_path / "chief.log").read_text())
    assert servers == ["0", "1", "0", "1"]
    losses = [float(row["loss"]) for row in csv.DictReader((run / "log.csv").read_text().splitlines())]
    assert losses[-1] < losses[0] / 2

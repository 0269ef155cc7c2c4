"""Asynchronous training with parameter servers: what it equals, what it counts, what falls and comes back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest

from bigkeras.launch import configurations, main
from bigkeras.recipe import Choice
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


def start(folder: Path, recipe, workers: int, servers: int, *options: str) -> subprocess.Popen:
    recipe.save(folder / "recipe.json")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    train = [sys.executable, "-m", "bigkeras", "train", str(folder / "recipe.json"), "--run-dir", str(folder / "run")]
    command = [sys.executable, "-m", "bigkeras.launch", str(workers), "--servers", str(servers), *options]
    command += ["--logs", str(folder), "--", *train, "--checkpoint-seconds", "0"]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})


def member(group: subprocess.Popen, job: str, index: int) -> psutil.Process:
    for process in psutil.Process(group.pid).children():
        if json.loads(process.environ()["TF_CONFIG"])["task"] == {"type": job, "index": index}:
            return process
    raise AssertionError(f"no {job} {index}")


def wait_for(group: subprocess.Popen, condition) -> None:
    while group.poll() is None and not condition():
        time.sleep(0.05)


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
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
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


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_worker_ends_in_the_weights_of_one_device(tmp_path):
    # A convolution adds up in another order with other threads, and a ReLU near zero makes 1e-3 of 1e-8 in 150 steps.
    recipe = RECIPE.override(model=Choice("lstm", {"units": 16, "depth": 1}), epochs=3)
    assert start(tmp_path, recipe, 1, 1).wait(900) == 0
    fit(recipe, tmp_path / "one", log=Log(quiet=True))
    one, other = (keras.models.load_model(tmp_path / d / "last.keras", compile=False) for d in ("one", "run"))
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_step_is_lost_with_a_worker_and_all_go_on_when_a_server_falls(tmp_path):
    recipe = RECIPE.override(optimizer=Choice("adam"), epochs=4)
    group = start(tmp_path, recipe, 2, 1, "--restarts", "1")
    checkpoints = tmp_path / "run" / "checkpoints"
    wait_for(group, lambda: any(checkpoints.glob("*.npz")))
    member(group, "worker", 1).kill()
    seen = {path.name for path in checkpoints.glob("*.npz")}
    wait_for(group, lambda: len({path.name for path in checkpoints.glob("*.npz")} - seen) == 2)
    assert group.poll() is None, "the run was too short"
    member(group, "ps", 0).kill()
    assert group.wait(900) == 0
    told = (tmp_path / "chief.log").read_text()
    assert "is gone or does not answer, and the weights on it" in told, told
    assert "going on at epoch" in told, told
    # Each step that a fallen worker had begun is made again; it may have been applied before the worker fell.
    per_epoch = -(-(1797 - 2 * 270) // 50)
    counted = next(value for name, value in newest(tmp_path / "run").items() if "iteration" in name)
    assert 4 * per_epoch <= counted <= 4 * per_epoch + 2

"""The launcher of local workers, with commands that need no TensorFlow; and, slowly, whole trainings through faults."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest
from benchmarks.slow_worker import slow_down
from processes import surroundings, wait_for

from bigkeras.launch import GRACE, Member, _watch, configurations, main, share, visible_gpus
from bigkeras.recipe import Choice
from bigkeras.recipes import RECIPES
from bigkeras.signals import Log
from bigkeras.train import fit

ROOT = Path(__file__).resolve().parents[1]
INDEX = "import json, os, sys, time; i = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """Signal handlers as they were; and no GPUs, of which there may be fewer than workers."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def launch(folder: Path, program: str, *options: str) -> int:
    return main(["2", "--logs", str(folder), *options, "--", sys.executable, "-c", INDEX + program])


def test_every_worker_has_its_number_and_the_same_addresses():
    configured = [json.loads(values["TF_CONFIG"]) for values in configurations(3)]
    assert [c["task"] for c in configured] == [{"type": "worker", "index": i} for i in range(3)]
    assert all(c["cluster"] == configured[0]["cluster"] for c in configured)
    assert len(set(configured[0]["cluster"]["worker"])) == 3


def test_every_worker_has_a_log_of_its_own(tmp_path):
    assert launch(tmp_path, "print('I am', i)") == 0
    assert launch(tmp_path, "print('I was', i)") == 0
    for i in (0, 1):
        started, first, again, second = (tmp_path / f"worker-{i}.log").read_text().splitlines()
        assert (first, second) == (f"I am {i}", f"I was {i}")
        assert started.endswith("started") and again.endswith("started")


def test_workers_share_the_gpus_and_a_chief_has_those_that_are_left():
    gpus = visible_gpus({"CUDA_VISIBLE_DEVICES": "0, 2,GPU-5,3,-1,7"})
    assert gpus == ["0", "2", "GPU-5", "3"]
    tasks = [json.loads(values["TF_CONFIG"])["task"] for values in configurations(2, servers=1)]
    shares = {task["type"] + str(task["index"]): share(gpus, task, 2, 1) for task in tasks}
    assert shares == {
        name: {"CUDA_VISIBLE_DEVICES": seen}
        for name, seen in {"chief0": "GPU-5,3", "worker0": "0", "worker1": "2", "ps0": "-1"}.items()
    }
    assert [share(gpus[:3], task, 2, 1)["CUDA_VISIBLE_DEVICES"] for task in tasks] == ["GPU-5", "0", "2", "-1"]
    workers = [json.loads(values["TF_CONFIG"])["task"] for values in configurations(2)]
    assert [share(gpus, task, 2, 0)["CUDA_VISIBLE_DEVICES"] for task in workers] == ["0,2", "GPU-5,3"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == [] and share([], tasks[0], 2, 1) == {}


def test_more_workers_than_gpus_are_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    assert launch(tmp_path, "") == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert launch(tmp_path, "print(os.environ['CUDA_VISIBLE_DEVICES'])") == 0  # in step, so the same number for each
    assert [(tmp_path / f"worker-{i}.log").read_text().split()[-1] for i in (0, 1)] == ["4", "5"]
    assert "1 GPUs for 2 workers" in capfd.readouterr().err


def test_when_one_falls_all_are_stopped_and_its_status_is_given(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("bigkeras.launch.FALLEN_GRACE", 0.2)
    assert launch(tmp_path, "sys.exit(7) if i == 1 else time.sleep(3600)") == 7
    assert "worker 1 fell (status 7)" in capfd.readouterr().err


def test_a_fallen_group_is_started_again_as_often_as_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("bigkeras.launch.FALLEN_GRACE", 0.2)
    program = f"open({str(tmp_path)!r} + f'/lives-{{i}}', 'a').write('x'); lives = os.stat({str(tmp_path)!r} + "
    program += "f'/lives-{i}').st_size; os.kill(os.getpid(), 9) if i == 1 and lives < 3 else None"
    assert launch(tmp_path, program, "--restarts", "1") == 128 + signal.SIGKILL
    assert launch(tmp_path, program, "--restarts", "1") == 0


@pytest.mark.parametrize("wrong", [["0"], ["two"], ["2", "--restarts", "-1"]])
def test_numbers_that_cannot_be_are_refused(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*wrong, "--logs", str(tmp_path), "--", "true"])
    assert "a whole number of at least" in capsys.readouterr().err


def test_a_command_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["2", "--restarts", "3", "--logs", str(tmp_path), "--", "no-such-command"]) == 127
    assert capsys.readouterr().err == "launch_workers: no-such-command: no such command\n"


def test_a_wrong_command_line_is_not_tried_again(tmp_path):
    program = f"open({str(tmp_path)!r} + f'/lives-{{i}}', 'a').write('x'); sys.exit(2)"
    assert launch(tmp_path, program, "--restarts", "3") == 2
    lives = tmp_path / "lives-0"  # which it may not have come to
    assert not lives.exists() or lives.read_text() in ("", "x")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_the_launcher_is_asked_to_leave_every_worker_is_asked_once_and_ends(number, tmp_path, ending):
    program = f"""
import signal
os.chdir({str(tmp_path)!r})
def leave(*_):
    open(f"left-{{i}}", "a").write("x")
    sys.exit(143)
signal.signal(signal.SIGTERM, leave)
open(f"ready-{{i}}", "w").close()
time.sleep(600)
"""
    command = [sys.executable, "-m", "bigkeras.launch", "2", "--logs", str(tmp_path), "--", sys.executable, "-c"]
    # As Ctrl-C in a terminal: it goes to the launcher's whole group.
    group = ending(subprocess.Popen([*command, INDEX + program], cwd=ROOT, start_new_session=True))
    wait_for(group, lambda: len(list(tmp_path.glob("ready-*"))) == 2)
    workers = psutil.Process(group.pid).children()
    os.killpg(group.pid, number)
    assert group.wait(2 * GRACE) == 143  # the launcher waits that long before it kills
    assert not any(process.is_running() for process in workers)
    assert [(tmp_path / f"left-{i}").read_text() for i in (0, 1)] == ["x", "x"]


SAVES = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit(143)))\n"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_workers_of_a_launcher_that_is_killed_are_asked_to_leave(tmp_path):
    program = INDEX + (
        "import signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked', flush=True), sys.exit(0)))\n"
        "signal.alarm(120)\n"  # none is left behind where nobody asks
        "print('ready', os.getppid(), flush=True)\n"
        "while True: signal.pause()\n"
    )
    command = [
        sys.executable,
        "-m",
        "bigkeras.launch",
        "2",
        "--logs",
        str(tmp_path),
        "--",
        sys.executable,
        "-c",
        program,
    ]
    logs = [tmp_path / f"worker-{i}.log" for i in (0, 1)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as group:
        wait_for(group, lambda: all(log.exists() and "ready" in log.read_text() for log in logs))
        group.kill()
    deadline = time.monotonic() + 60
    while not all("asked" in log.read_text() for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_that_left_as_asked_leaves_the_others_time_to_save(tmp_path, monkeypatch):
    """All got SIGTERM, as from a scheduler: one is gone already when the launcher looks."""
    monkeypatch.setattr("bigkeras.launch.FALLEN_GRACE", 0.1)
    programs = ("import sys; sys.exit(143)", SAVES + "print('ready', flush=True); time.sleep(600)")
    processes = [subprocess.Popen([sys.executable, "-c", p], stdout=subprocess.PIPE, start_new_session=True)
                 for p in programs]  # fmt: skip
    members = [Member(f"worker {i}", process, lambda: None, False, True) for i, process in enumerate(processes)]
    try:
        processes[0].wait()
        assert processes[1].stdout.readline() == b"ready\n"
        assert _watch(members, tmp_path, [signal.SIGTERM]) == 143
        assert processes[1].returncode == 143  # not killed
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_place_for_logs_that_is_none_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["2", "--restarts", "2", "--logs", str(tmp_path / "file"), "--", "true"]) == 1
    assert capsys.readouterr().err == f"launch_workers: {tmp_path / 'file'}: File exists\n"
    (tmp_path / "logs" / "worker-1.log").mkdir(parents=True)
    assert main(["2", "--restarts", "2", "--logs", str(tmp_path / "logs"), "--", "sleep", "600"]) == 1
    assert f"launch_workers: {tmp_path / 'logs' / 'worker-1.log'}: Is a directory" in capsys.readouterr().err


def test_a_script_that_the_system_cannot_run_is_one_line(tmp_path, capsys):
    script = Path(tmp_path / "script")
    script.write_text("true\n")
    script.chmod(0o755)
    assert main(["2", "--logs", str(tmp_path / "logs"), "--", str(script)]) == 1
    assert capsys.readouterr().err == f"launch_workers: {script}: {os.strerror(8)}\n"


TINY = RECIPES["digits"].override(
    **{
        "epochs": 20,
        "batch_size": 250,
        "ema": 0.9,
        "augmentation": (),
        "optimizer": Choice("sgd", {"learning_rate": 0.05}),
        "model": Choice("simple_cnn", {"width": 8, "dropout": 0.0}),
    }
)


def worker(group: subprocess.Popen, index: int) -> psutil.Process:
    """The process of a group whose TF_CONFIG has this index."""
    for process in psutil.Process(group.pid).children():
        if json.loads(process.environ()["TF_CONFIG"])["task"]["index"] == index:
            return process
    raise AssertionError(f"no worker {index}")


def checkpoints(run_dir: Path) -> set[str]:
    return {path.name for path in (run_dir / "checkpoints").glob("*.npz")}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_workers_that_were_stopped_and_killed_end_in_the_weights_of_one_device(tmp_path, ending):
    recipe, run_dir = tmp_path / "recipe.json", tmp_path / "run"
    TINY.save(recipe)

    def start(*options: str) -> subprocess.Popen:
        train = [sys.executable, "-m", "bigkeras", "train", str(recipe), "--run-dir", str(run_dir)]
        train += ["--strategy", "multiworker", "--checkpoint-seconds", "0"]
        command = [sys.executable, "-m", "bigkeras.launch", "2", "--logs", str(tmp_path), *options, "--", *train]
        return ending(subprocess.Popen(command, env=surroundings()))

    group = start()
    wait_for(group, lambda: checkpoints(run_dir), tmp_path)
    worker(group, 1).send_signal(signal.SIGTERM)
    assert group.wait(2 * GRACE) == 128 + signal.SIGTERM
    logs = [(tmp_path / f"worker-{i}.log").read_text() for i in (0, 1)]
    assert all("the same command goes on" in log for log in logs), logs

    before = checkpoints(run_dir)
    group = start("--restarts", "1")
    wait_for(group, lambda: checkpoints(run_dir) - before, tmp_path)
    worker(group, 1).kill()
    assert group.wait(1200) == 0
    assert (tmp_path / "worker-1.log").read_text().count("going on at epoch") == 2  # the log is one of both starts

    fit(TINY, tmp_path / "one", log=Log(quiet=True))
    one, two = (keras.models.load_model(d / "last.keras", compile=False) for d in (tmp_path / "one", run_dir))
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_worker_that_is_slow_and_then_hangs_is_named_by_the_chief(tmp_path):
    recipe = tmp_path / "recipe.json"
    # Of a part of a step that takes a hundredth of a second or less, nobody is called slow.
    TINY.override(**{"epochs": 100_000, "batch_size": 50, "model.width": 32}).save(recipe)
    train = [sys.executable, "-m", "bigkeras", "train", str(recipe), "--run-dir", str(tmp_path / "run")]
    train += ["--strategy", "multiworker", "--checkpoint-seconds", "1", "--patience-seconds", "2"]
    command = [sys.executable, "-m", "bigkeras.launch", "2", "--logs", str(tmp_path), "--", *train]
    group = subprocess.Popen(command, env=surroundings())
    log, ended = tmp_path / "worker-0.log", threading.Event()
    try:
        # After an epoch all has been traced: what comes are steps.
        wait_for(group, lambda: (tmp_path / "run" / "log.csv").exists(), tmp_path)
        hung = worker(group, 1)
        address = json.loads(hung.environ()["TF_CONFIG"])["cluster"]["worker"][1]
        slowed = threading.Thread(target=slow_down, args=(hung, 0.8, ended))
        slowed.start()
        wait_for(group, lambda: f"worker 1 ({address}) is slow: " in log.read_text(), tmp_path)
        ended.set()
        slowed.join()
        assert f"worker 1 ({address}) is slow: " in log.read_text()
        hung.suspend()
        # Where the machine itself is slow, TensorFlow may have given the group up before.
        wait_for(group, lambda: group.poll() is not None or f"worker 1 ({address}) does not answer" in log.read_text())
        told = log.read_text()
        assert f"worker 1 ({address}) does not answer" in told or "worker 1 is gone" in told, told
        with suppress(psutil.NoSuchProcess):
            hung.kill()  # a stopped one would be waited for
        group.wait(60)
    finally:
        ended.set()
        group.terminate()
        group.wait(300)

"""How the launcher of workers ends: asked to leave with all of them, and where it cannot start any."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bigkeras.launch import Member, _watch, main


@pytest.fixture(autouse=True)
def handlers():
    """Signal handlers as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


SAVES = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit(143)))\n"


def test_one_that_left_as_asked_leaves_the_others_time_to_save(tmp_path, monkeypatch):
    """All got SIGTERM, as from a scheduler: one is gone already when the launcher looks."""
    monkeypatch.setattr("bigkeras.launch.FALLEN_GRACE", 0.1)
    programs = ("import sys; sys.exit(143)", SAVES + "print('ready', flush=True); time.sleep(600)")
    processes = [subprocess.Popen([sys.executable, "-c", p], stdout=subprocess.PIPE, start_new_session=True)
                 for p in programs]  # fmt: skip
    members = [Member(f"worker {i}", process, lambda: None, False, True) for i, process in enumerate(processes)]
    processes[0].wait()
    assert processes[1].stdout.readline() == b"ready\n"
    assert _watch(members, tmp_path, [signal.SIGTERM]) == 143
    assert processes[1].returncode == 143  # not killed


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

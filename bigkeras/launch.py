"""Several workers on this machine: python -m bigkeras.launch N [--restarts R] -- bigkeras train …

Every worker is a process with its own TF_CONFIG, on a free port of 127.0.0.1, and its own log. When one falls, all are
stopped; with --restarts the group is then started again, and goes on from its last checkpoint. Ctrl-C and SIGTERM are
passed on once, so that the workers save and leave.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

# Seconds that workers get to save and leave before they are killed.
GRACE = 30.0
# A group of which one has fallen cannot save any more: its collective operations wait for the fallen one.
FALLEN_GRACE = 2.0
POLL = 0.1
# How a worker ends that was asked to stop, has saved and left.
LEFT = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def main(arguments: list[str] | None = None) -> int:
    """Runs the group; gives the exit status: 0, or that of the worker that fell first."""
    options = _parser().parse_args(arguments)
    logs = Path(options.logs)
    logs.mkdir(parents=True, exist_ok=True)
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, frame: asked.append(signum))
    status = 0
    for attempt in range(options.restarts + 1):
        status = _run(options.command, options.workers, logs, asked, "w" if attempt == 0 else "a")
        # 2 is a wrong command line: no better the second time.
        if status in (0, 2) or asked:
            break
        left = options.restarts - attempt
        if left:
            _say(f"starting all {options.workers} workers again; {left} restarts were left")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch_workers", description=str(__doc__).splitlines()[0])
    parser.add_argument("workers", type=int, help="how many workers")
    parser.add_argument("--restarts", type=int, default=0, help="how often a fallen group is started again (0)")
    parser.add_argument("--logs", default="worker-logs", metavar="DIR", help="where worker-0.log … go (worker-logs)")
    parser.add_argument("command", nargs="+", help="the command, after --")
    return parser


def _run(command: list[str], count: int, logs: Path, asked: list[int], mode: str) -> int:
    """One life of the group: the exit status of the worker that fell first, or 0."""
    with ExitStack() as files:
        processes = []
        for index, environment in enumerate(configurations(count)):
            log = files.enter_context(open(logs / f"worker-{index}.log", mode, encoding="utf-8"))
            # In a session of its own, so that Ctrl-C in the terminal reaches it once, through here.
            processes.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, **environment},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        try:
            return _watch(processes, logs, asked)
        finally:
            _stop(processes, FALLEN_GRACE)


def configurations(count: int) -> list[dict[str, str]]:
    """TF_CONFIG for each worker, on ports that are free now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    cluster = {"worker": addresses}
    return [
        {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})}
        for index in range(count)
    ]


def _watch(processes: list[subprocess.Popen], logs: Path, asked: list[int]) -> int:
    """Waits until all have left, or one has fallen."""
    while True:
        for index, process in enumerate(processes):
            status = process.poll()
            if status:
                if not asked:
                    _say(f"worker {index} fell ({_spoken(status)}); its log is {logs / f'worker-{index}.log'}")
                    # The others may be leaving for the same reason: one that was asked to stop makes all save.
                    _wait(processes, GRACE if status in LEFT else FALLEN_GRACE)
                return status if status > 0 else 128 - status
        if all(process.poll() == 0 for process in processes):
            return 0
        if asked:
            _say(f"{signal.Signals(asked[0]).name}: the workers save and leave")
            return _stop(processes, GRACE) or 128 + asked[0]
        time.sleep(POLL)


def _stop(processes: list[subprocess.Popen], grace: float) -> int:
    """Asks all to leave, then kills; the largest exit status."""
    for process in processes:
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
    _wait(processes, grace)
    for index, process in enumerate(processes):
        if process.poll() is None:
            _say(f"worker {index} did not leave within {grace:g} s and is killed")
            _signal(process, signal.SIGKILL)
    return max(process.wait() for process in processes)


def _signal(process: subprocess.Popen, number: int) -> None:
    """To the worker and all that it has started: the command may be a shell's."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _wait(processes: list[subprocess.Popen], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(POLL)


def _spoken(status: int) -> str:
    return f"status {status}" if status > 0 else signal.Signals(-status).name


def _say(text: str) -> None:
    print(f"launch_workers: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

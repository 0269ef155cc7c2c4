"""Several workers on this machine: python -m bigkeras.launch N [--servers M] [--restarts R] -- bigkeras train …

Every worker is a process with its own TF_CONFIG, on a free port, and its own log. They call each other by 127.0.0.1,
but TensorFlow's servers listen on every address of the machine and do what anyone asks: on a trusted network, or behind
a firewall. When one falls, all are stopped; with --restarts the group is then started again, and goes on from its last
checkpoint. The machine's GPUs are shared out among the workers. Ctrl-C and SIGTERM are passed on once, so that the
workers save and leave.

With --servers the group is one for asynchronous training: a chief, N workers and M parameter servers. A worker that
falls comes back alone, and the others go on meanwhile; when a server or the chief falls, all are started again. The
group has done its work when the chief has.
"""

import argparse
import ctypes
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bigkeras.gpus import find_gpus

# Seconds that workers get to save and leave before they are killed.
GRACE = 30.0
# A group of which one has fallen cannot save any more: its collective operations wait for the fallen one.
FALLEN_GRACE = 2.0
POLL = 0.1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here, and not between fork and exec
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
# How often a worker of an asynchronous group comes back: more often, and something else is wrong.
RETURNS = 20
# How a worker ends that was asked to stop, has saved and left.
LEFT = (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGHUP)


def main(arguments: list[str] | None = None) -> int:
    """Runs the group; gives the exit status: 0, that of the worker that fell first, or 1 where none can be started."""
    options = _parser().parse_args(arguments)
    asked: list[int] = []
    # A terminal that is closed would leave the workers, in sessions of their own, to nobody; under nohup it may.
    hung_up = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
    for number in (signal.SIGINT, signal.SIGTERM, *hung_up):
        signal.signal(number, lambda signum, frame: asked.append(signum))
    try:
        return _lives(options, Path(options.logs), asked)
    except OSError as error:  # no place for the logs, or a command that the system cannot run
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1


def _lives(options: argparse.Namespace, logs: Path, asked: list[int]) -> int:
    """The group, begun again as often as may be: the exit status of its last life."""
    logs.mkdir(parents=True, exist_ok=True)
    status = 0
    for attempt in range(options.restarts + 1):
        status = _run(options, logs, asked)
        # 2 is a wrong command line, 127 no command at all: no better the second time.
        if status in (0, 2, 127) or asked:
            break
        left = options.restarts - attempt
        if left:
            _say(f"starting all {options.workers} workers again; {left} restarts were left")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch_workers", description=str(__doc__).splitlines()[0])
    parser.add_argument("workers", type=_at_least(1), help="how many workers")
    parser.add_argument("--servers", type=_at_least(0), default=0, help="parameter servers: trains asynchronously (0)")
    parser.add_argument("--restarts", type=_at_least(0), default=0, help="how often a fallen group begins again (0)")
    parser.add_argument("--logs", default="worker-logs", metavar="DIR", help="where worker-0.log … go (worker-logs)")
    parser.add_argument("command", nargs="+", help="the command, after --")
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: a whole number of at least {least}")
        return int(text)

    return number


@dataclass
class Member:
    """A process of the group: what it is called, what it was started with, and what it is to the group."""

    name: str
    process: subprocess.Popen
    start: Callable[[], subprocess.Popen]
    comes_back: bool  # alone, without the others
    ends: bool  # by itself, when the work is done
    returns: int = 0  # how often it has come back


def _run(options: argparse.Namespace, logs: Path, asked: list[int]) -> int:
    """One life of the group: the exit status of the worker that fell first, or 0."""
    if shutil.which(options.command[0]) is None:
        _say(f"{options.command[0]}: no such command")
        return 127
    gpus = visible_gpus(os.environ)
    if gpus and len(gpus) < options.workers:
        _say(f"{len(gpus)} GPUs for {options.workers} workers: start fewer, or say CUDA_VISIBLE_DEVICES=-1 for none")
        return 2
    members: list[Member] = []
    with ExitStack() as files:
        files.callback(_stop, members, FALLEN_GRACE)
        for environment in configurations(options.workers, options.servers):
            task = json.loads(environment["TF_CONFIG"])["task"]
            name = "chief" if task["type"] == "chief" else f"{task['type']} {task['index']}"
            # Added to: an earlier group's log may say why it fell.
            log = files.enter_context(open(_log(logs, name), "a", encoding="utf-8"))
            print(f"launch_workers, {time.strftime('%Y-%m-%d %H:%M:%S')}: started", file=log, flush=True)
            # In a session of its own, so that Ctrl-C in the terminal reaches it once, through here.
            start = partial(
                subprocess.Popen,
                options.command,
                env={**os.environ, **environment, **share(gpus, task, options.workers, options.servers)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_launcher,
            )
            alone = options.servers > 0 and task["type"] == "worker"
            members.append(Member(name, start(), start, alone, not options.servers or task["type"] == "chief"))
        return _watch(members, logs, asked)


def _end_with_launcher() -> None:
    """In a child, before its program: to be asked to leave (SIGTERM) when the launcher itself is killed, on Linux."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def configurations(workers: int, servers: int = 0) -> list[dict[str, str]]:
    """TF_CONFIG for each process, on ports that are free now; with servers there is a chief, too."""
    counts = {"chief": 1, "worker": workers, "ps": servers} if servers else {"worker": workers}
    with ExitStack() as held:
        cluster = {job: [_address(held) for _ in range(count)] for job, count in counts.items()}
    tasks = [{"type": job, "index": index} for job, count in counts.items() for index in range(count)]
    return [{"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})} for task in tasks]


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that a process with this environment sees, as CUDA_VISIBLE_DEVICES names them."""
    told = environment.get("CUDA_VISIBLE_DEVICES")
    if told is None:
        return [str(place) for place, _ in enumerate(gpu for gpu in find_gpus() if gpu.driver)]
    names = [name.strip() for name in told.split(",")]
    return list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))


def share(gpus: Sequence[str], task: Mapping[str, Any], workers: int, servers: int) -> dict[str, str]:
    """The environment that gives a process its part of the GPUs, since each takes all memory that it sees.

    Workers have the same number, as training in step needs, and with parameter servers one at most; a chief, which
    validates, has what is left.
    """
    if not gpus:
        return {}
    each, index = len(gpus) // workers, task["index"]
    each = min(each, 1) if servers else each
    parts = {"worker": gpus[index * each : (index + 1) * each], "chief": gpus[workers * each :]}
    return {"CUDA_VISIBLE_DEVICES": ",".join(parts.get(task["type"], ())) or "-1"}


def _address(held: ExitStack) -> str:
    one = held.enter_context(socket.socket())
    one.bind(("127.0.0.1", 0))
    return f"127.0.0.1:{one.getsockname()[1]}"


def _watch(members: list[Member], logs: Path, asked: list[int]) -> int:
    """Waits until all that end have left, or one has fallen that does not come back alone."""
    while True:
        for member in members:
            status = member.process.poll()
            if status and not asked:
                _say(f"{member.name} fell ({_spoken(status)}); its log is {_log(logs, member.name)}")
                # 1 and 2 are a user's mistakes, or a worker's whose chief is gone: no better the second time.
                if member.comes_back and status not in (1, 2) and member.returns < RETURNS:
                    member.process, member.returns = member.start(), member.returns + 1
                    continue
                # The others may be leaving for the same reason: one that was asked to stop makes all save.
                _wait([other for other in members if other.ends], GRACE if status in LEFT else FALLEN_GRACE)
                return _shell(status)
        if all(member.process.poll() == 0 for member in members if member.ends):
            return 0
        if asked:
            _say(f"{signal.Signals(asked[0]).name}: the workers save and leave")
            chiefs = [member for member in members if member.ends]
            status = _stop(chiefs, GRACE)
            # The others of an asynchronous group have nothing to save.
            return max(status, _stop(members, FALLEN_GRACE)) or 128 + asked[0]
        time.sleep(POLL)


def _stop(members: list[Member], grace: float) -> int:
    """Asks all to leave, then kills; the largest exit status."""
    for member in members:
        if member.process.poll() is None:
            _signal(member.process, signal.SIGTERM)
    _wait(members, grace)
    for member in members:
        if member.process.poll() is None:
            _say(f"{member.name} did not leave within {grace:g} s and is killed")
            _signal(member.process, signal.SIGKILL)
    return max((_shell(member.process.wait()) for member in members), default=0)


def _log(logs: Path, name: str) -> Path:
    return logs / f"{name.replace(' ', '-')}.log"


def _signal(process: subprocess.Popen, number: int) -> None:
    """To the worker and all that it has started: the command may be a shell's."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _wait(members: list[Member], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(member.process.poll() is None for member in members) and time.monotonic() < deadline:
        time.sleep(POLL)


def _shell(status: int) -> int:
    """As a shell has it: 128 and the signal, where one has ended the process."""
    return status if status >= 0 else 128 - status


def _spoken(status: int) -> str:
    return f"status {status}" if status > 0 else signal.Signals(-status).name


def _say(text: str) -> None:
    with suppress(OSError):  # of a terminal that was closed
        print(f"launch_workers: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Contenders as processes that take turns, and the statistics of their rounds.

A machine's speed drifts and other programs disturb it, so two programs that are measured one after the other differ
by what else was going on. Here each contender is a process that is kept alive and does a few steps in every round:
what disturbs a round disturbs all of it, and the ratio of two contenders stays.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DRAWS = 5000
QUIET = 0.05  # seconds without work that mean that a process is done


class WorkerError(RuntimeError):
    """A contender that ended, or cannot run here; the text is the last that it said."""


class Worker:
    """A process that runs `module`, which calls `serve`; it computes between `ask` and its answer only."""

    def __init__(self, module: str, options: Mapping[str, Any], environment: Mapping[str, str]):
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 -- closed with the process
        path = os.pathsep.join([str(ROOT / "scripts"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(dict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env={**os.environ, **environment, "PYTHONPATH": path.rstrip(os.pathsep)},
        )

    def answer(self) -> dict[str, Any]:
        """The next answer. Raises WorkerError if the process ends without one."""
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        raise WorkerError((errors or lines or [f"exit status {self.process.returncode}"])[-1])

    def ask(self, steps: int) -> dict[str, Any]:
        """Runs so many steps; gives "seconds", "settled", "cpu_seconds", "loss" (the mean) and "peak_mb".

        `seconds` is until the last step is done, `settled` until nothing is left to do, buffers filled too.
        """
        try:
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `answer` says why
        return self.answer()

    def close(self) -> None:
        """Ends the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.said.close()


def serve(make: Any) -> None:
    """The worker's side: `make(options)` gives `run(steps) -> mean loss`; then each line asks for so many steps."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    run = make(json.loads(sys.argv[1]))
    loss = run(2)
    until_quiet()
    print(json.dumps({"loss": loss, "peak_mb": peak_memory()}), file=answers)
    for line in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        loss = run(int(line))
        seconds = time.perf_counter() - began
        settled = until_quiet() - began
        values = {"seconds": seconds, "settled": settled, "cpu_seconds": time.process_time() - used}
        print(json.dumps({**values, "loss": loss, "peak_mb": peak_memory()}), file=answers)


def until_quiet() -> float:
    """Waits until no thread of this process works any more; gives the time when the last work was seen.

    A pipeline fills its buffers after the last step: time that its next turn would have for nothing.
    """
    last, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - last < QUIET:
        time.sleep(QUIET / 10)
        now = time.process_time()
        if now - used > QUIET / 50:
            last, used = time.perf_counter(), now
    return last


def peak_memory() -> float | None:
    """The most memory that this process has held so far, in MB (VmHWM); None where the system does not say."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    return round(int(text.split("VmHWM:")[1].split()[0]) / 1024, 1)


def rounds(workers: Mapping[str, Worker], count: int, steps: int) -> dict[str, list[dict[str, Any]]]:
    """The answers of each worker in `count` rounds; every round starts with another one."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    names = list(workers)
    for number in range(count):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            answers[name].append(workers[name].ask(steps))
    return answers


def ratio_interval(
    times: Sequence[float], reference: Sequence[float], *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """median(times) / median(reference) and its 95 % bootstrap interval, over whole rounds drawn with replacement.

    `times[i]` and `reference[i]` are of the same round, and are drawn together. Raises ValueError where there are none
    or not as many of both.
    """
    pairs = np.array([times, reference], np.float64) if len(times) == len(reference) else np.zeros((2, 0))
    if not pairs.size:
        raise ValueError(f"{len(times)} times and {len(reference)} of the reference: as many of both, at least one")
    count = pairs.shape[1]
    drawn = pairs[:, np.random.default_rng(seed).integers(0, count, (draws, count))]
    over, under = np.median(drawn, axis=2)
    low, high = np.percentile(over / under, [2.5, 97.5])
    return float(np.median(pairs[0]) / np.median(pairs[1])), float(low), float(high)

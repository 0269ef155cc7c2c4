"""Processes that tests start: where they find the checkout, waiting for what they do, and the lives of a run."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
END = 3000  # characters of what a process told that failed
# What may stand before the run directory in a line that lives.py reads.
IN_WRITE, CONFIG = "in-write ", "TF_CONFIG="


def surroundings(**more: str) -> dict[str, str]:
    """The environment, in which the checkout is found from any folder, also where bigkeras is not installed."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **more}


def wait_for(process: subprocess.Popen, condition: Callable[[], object], logs: Path | None = None) -> None:
    """Until the condition holds; fails where the process ends before, with what the `*.log` files of a folder say."""
    while not condition():
        if process.poll() is not None and not condition():
            told = [f"{log.name}:\n{log.read_text()[-END:]}" for log in (sorted(logs.glob("*.log")) if logs else [])]
            raise AssertionError("\n".join([f"it has ended with {process.poll()}", *told]))
        time.sleep(0.05)


class Lives:
    """A process that begins trainings of a recipe, each in a process of its own (tests/lives.py)."""

    def __init__(self, recipe: Path, strategy: str = "auto"):
        # One thread an operation: how several of them share a sum is TensorFlow's affair, and not what is asked here.
        threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        self.errors = recipe.with_suffix(".errors")
        with open(self.errors, "a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "lives.py"), str(recipe), strategy],
                env=surroundings(**threads), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip

    def begin(self, run: Path, config: str = "", in_write: bool = False) -> int:
        """The number of the process that trains in `run`.

        `config`: its TF_CONFIG, where it is one of several; `in_write`: it kills itself while it writes a checkpoint.
        """
        told = f"{IN_WRITE * in_write}{f'{CONFIG}{config} ' if config else ''}{run}\n"
        self.process.stdin.write(told)
        self.process.stdin.flush()
        return self._number()

    def ended(self) -> int:
        """How the process has ended that was begun last."""
        return self._number()

    def told(self) -> str:
        """What the processes have written to stderr."""
        return self.errors.read_text(errors="replace")[-END:]

    def _number(self) -> int:
        line = self.process.stdout.readline()
        assert line, self.told()
        return int(line)


@contextmanager
def lives(recipe: Path, strategy: str = "auto", count: int = 1) -> Iterator[list[Lives]]:
    """So many of them, which end with what they have begun."""
    all_of_them = [Lives(recipe, strategy) for _ in range(count)]
    try:
        yield all_of_them
    finally:
        for one in all_of_them:
            for child in psutil.Process(one.process.pid).children():
                child.kill()
            one.process.communicate()

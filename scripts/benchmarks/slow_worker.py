"""Loss against time with one slow worker, synchronous and asynchronous: ./scripts/benchmark slow-worker."""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.comparison import at_least_one, new_file, new_picture, tell
from benchmarks.interleave import ROOT, WorkerError

STRATEGIES = {"synchronous": ("multiworker", 0), "asynchronous": ("parameter_server", 1)}
RUNS = 0.05  # seconds that the slow worker runs between two pauses
Curve = list[tuple[float, float]]  # seconds since the first epoch, loss on validation


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains the recipe both ways, says when each loss was reached, and draws it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 0 <= options.share < 1:
        parser.error(f"--share {options.share:g}: at least 0, and less than 1")
    curves: dict[str, Curve] = {}
    for name, (strategy, servers) in STRATEGIES.items():
        print(f"{name}: {options.recipe}, worker 1 stopped {options.share:.0%} of the time …", file=sys.stderr)
        try:
            with tempfile.TemporaryDirectory() as folder:
                curves[name] = trained(Path(folder), options, strategy, servers)
        except WorkerError as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
            return 1
        if len(curves[name]) < options.epochs:
            print(f"{name}: ended after {len(curves[name])} epochs", file=sys.stderr)
            return 1
    lines = ["| | " + " | ".join(f"epoch {e + 1}" for e in range(options.epochs)) + " |"]
    lines.append("|---" * (options.epochs + 1) + "|")
    for name, curve in curves.items():
        cells = [f"{loss:.3f} at {seconds:.0f} s" for seconds, loss in curve]
        lines.append(f"| {' | '.join([name, *cells])} |")
    tell(lines, {"recipe": options.recipe, "share": options.share, "curves": curves}, options.json)
    if options.picture:
        draw(curves, Path(options.picture))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/benchmark slow-worker", description=__doc__)
    parser.add_argument("--recipe", default="digits", help="a recipe (%(default)s)")
    parser.add_argument("--epochs", type=at_least_one, default=6, help="how many (%(default)s)")
    parser.add_argument("--share", type=float, default=0.8, help="of the time worker 1 is stopped (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value of the recipe")
    parser.add_argument("--picture", type=new_picture, metavar="FILE.png", help="where to draw loss against time")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="where to write the curves")
    return parser


def trained(folder: Path, options: argparse.Namespace, strategy: str, servers: int) -> Curve:
    """The loss on validation at the end of each epoch, while worker 1 is stopped again and again.

    Raises WorkerError where that worker is not found.
    """
    train = [sys.executable, "-m", "bigkeras", "train", options.recipe, "--run-dir", str(folder / "run")]
    train += ["--strategy", strategy, "--set", f"epochs={options.epochs}"]
    for setting in options.set:
        train += ["--set", setting]
    launch = [sys.executable, "-m", "bigkeras.launch", "2", "--servers", str(servers), "--logs", str(folder)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    group = subprocess.Popen([*launch, "--", *train], env={**os.environ, "PYTHONPATH": path})
    log, ended, curve, began = folder / "run" / "log.csv", threading.Event(), [], 0.0
    slowed: threading.Thread | None = None
    try:
        while group.poll() is None:
            rows = list(csv.DictReader(log.open(encoding="utf-8"))) if log.exists() else []
            for row in rows[len(curve) :]:
                if "val_loss" not in row:
                    raise WorkerError(f"--recipe {options.recipe}: has no validation split: --set data.validation=0.1")
                if not curve:
                    # All have started and traced their step: now the worker is slowed, and the clock runs.
                    slowed = threading.Thread(target=slow_down, args=(worker_one(group.pid), options.share, ended))
                    began = time.monotonic()
                    slowed.start()
                curve.append((time.monotonic() - began, float(row["val_loss"])))
            time.sleep(0.05)
    finally:
        ended.set()
        if slowed:
            slowed.join()
        if group.poll() is None:
            group.terminate()
        group.wait()
    return curve


def worker_one(launcher: int) -> psutil.Process:
    """Worker 1 of a launcher's group. Raises WorkerError where it is not there: what followed were no slow worker's."""
    for process in psutil.Process(launcher).children():
        config = json.loads(process.environ().get("TF_CONFIG", "{}"))
        if config.get("task") == {"type": "worker", "index": 1}:
            return process
    raise WorkerError("worker 1, which was to be slowed, is not there")


def slow_down(process: psutil.Process, share: float, ended: threading.Event) -> None:
    """Stops a process for a share of the time, until the end."""
    try:
        while not ended.is_set():
            process.send_signal(signal.SIGSTOP)
            ended.wait(RUNS * share / (1 - share))
            process.send_signal(signal.SIGCONT)
            ended.wait(RUNS)
    except psutil.NoSuchProcess:
        return


def draw(curves: dict[str, Curve], path: Path) -> None:
    """Loss against time, a line for each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), marker="o", label=name)
    axes.set(xlabel="seconds since the first epoch", ylabel="loss on validation", title="Two workers, one of them slow")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())

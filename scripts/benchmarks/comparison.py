"""What the training benchmarks share: measuring contenders in turn, and the table that comes of it."""

import argparse
import datetime
import importlib.util
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interleave import Worker, WorkerError, ratio_interval, rounds

OURS, COMPILED = "ours", "PyTorch, compiled"
# PyTorch gives memory back to the system after every step, and asks for it again, unless told not to: up to 1.7×.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "68719476736", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Suite:
    """One benchmark: the module whose workers train, what they can train, and who they are.

    A workload has at least `batch`, `steps` (of a turn) and `shape`; `described` names it in the table, and `counted`
    says how many `units` a step sees, such as texts. `prepare` is called with a folder and the workloads that will be
    measured, before anything is.
    """

    program: str
    description: str
    module: str
    workloads: Mapping[str, Any]
    defaults: tuple[str, ...]
    contenders: tuple[str, ...]
    described: Callable[[str, Any], str]
    units: str
    counted: Callable[[Any], float] = lambda workload: workload.batch
    prepare: Callable[[Path, Sequence[Any]], None] = lambda folder, workloads: None


def run(suite: Suite, arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table and writes JSON; gives 1 where a contender does not learn or could not run."""
    options = parse(suite, arguments)
    machine = environment(options.threads)
    results, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        suite.prepare(Path(folder), [suite.workloads[model] for model in options.models])
        for model in options.models:
            for precision in options.precision:
                try:
                    results.append(measure(suite, model, precision, options, folder))
                except WorkerError as error:
                    print(f"{model} {precision}: not measured: {error}", file=sys.stderr)
                    failed = True
    report = {"environment": machine, "results": results}
    tell(markdown(suite, report), report, options.json)
    for result in results:
        for name, why in {**result["left_out"], **result["not_learning"]}.items():
            print(f"{result['model']} {result['precision']}: {name} {why}", file=sys.stderr)
    # torch.compile needs a C++ compiler, and not every machine has one.
    return 1 if failed or any(set(r["left_out"]) - {COMPILED} or r["not_learning"] for r in results) else 0


def parse(suite: Suite, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options. Leaves with exit status 2 for one that is not there."""
    parser = argparse.ArgumentParser(prog=f"scripts/benchmark {suite.program}", description=suite.description)
    parser.add_argument(
        "--models", type=names_of(suite.workloads), default=suite.defaults, help=f"of {', '.join(suite.workloads)}"
    )
    precisions = ("float32", "bfloat16")
    parser.add_argument("--precision", type=names_of(precisions), default=("float32",), help=" and ".join(precisions))
    parser.add_argument("--rounds", type=int, default=10, help="turns of every contender (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="three rounds of half the steps: is it working?")
    parser.add_argument("--without-pytorch", action="store_true", help="ours and stock Keras only")
    parser.add_argument("--threads", type=int, default=cores(), help="of every contender (all cores: %(default)s)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="where to write the times of all rounds")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads: at least 1")
    if options.quick:
        options.rounds = min(options.rounds, 3)
    return options


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def names_of(known: Sequence[str] | Mapping[str, Any]) -> Any:
    """For argparse: names parted by commas, each one of `known`."""

    def split(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return names

    return split


def new_file(text: str) -> str:
    """For argparse: where a file can be written when all is measured, which may take hours."""
    path = Path(text)
    if path.is_dir() or not os.access(path.resolve().parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: cannot be written: a file in a folder that is there is needed")
    return text


def new_picture(text: str) -> str:
    """For argparse: the same, of a picture."""
    if not text.lower().endswith((".png", ".svg", ".pdf")):
        raise argparse.ArgumentTypeError(f"{text}: a picture is written as .png, .svg or .pdf")
    return new_file(text)


def above_zero(text: str) -> float:
    """For argparse: a number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0")
    return number


def at_least_one(text: str) -> int:
    """For argparse: a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number


# ---------------------------------------------------------------------- measuring


def measure(suite: Suite, model: str, precision: str, options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """All contenders on one model: what each took in every round, and what that comes to."""
    workload = suite.workloads[model]
    steps = max(1, workload.steps // 2) if options.quick else workload.steps
    workers, first, left_out = start(suite, model, precision, options, folder)
    if not workers:
        raise WorkerError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
    try:
        print(f"{model} {precision}: {options.rounds} rounds of {steps} steps …", file=sys.stderr)
        answers = rounds(workers, options.rounds, steps)
    finally:
        for worker in workers.values():
            worker.close()
    contenders = summary(answers, first, steps)
    not_learning = {
        name: f"does not learn: loss {values['first_loss']:.3f} → {values['last_loss']:.3f}"
        for name, values in contenders.items()
        if not values["last_loss"] < values["first_loss"]
    }
    return {
        "model": model,
        "precision": precision,
        "batch": workload.batch,
        "shape": workload.shape,
        "steps": steps,
        "contenders": contenders,
        "left_out": left_out,
        "not_learning": not_learning,
    }


def start(
    suite: Suite, model: str, precision: str, options: argparse.Namespace, folder: str
) -> tuple[dict[str, Worker], dict[str, float], dict[str, str]]:
    """The workers, warm; the losses of their first steps; and why others could not start."""
    common = {"workload": model, "precision": precision, "threads": options.threads, "folder": folder}
    variables = {"OMP_NUM_THREADS": str(options.threads), "TF_CPP_MIN_LOG_LEVEL": "2"}
    workers, first, left_out = {}, {}, {}
    print(f"{model} {precision}: starting …", file=sys.stderr)
    for name in suite.contenders:
        torch = name.startswith("PyTorch")
        if not torch or not options.without_pytorch:
            allocator = ALLOCATOR if torch else {}
            workers[name] = Worker(suite.module, {**common, "contender": name}, {**variables, **allocator})
    for name, worker in list(workers.items()):
        try:
            first[name] = worker.answer()["loss"]
        except WorkerError as error:
            workers.pop(name).close()
            left_out[name] = f"is left out: {error}"
    return workers, first, left_out


def summary(
    answers: Mapping[str, Sequence[Mapping[str, Any]]], first: Mapping[str, float], steps: int
) -> dict[str, dict[str, Any]]:
    """What the rounds of each contender come to; ratios are times against ours, so above 1 is slower than ours."""
    times = {
        # The pipeline's work for its next batches belongs to the turn that used up the last ones.
        name: [a["settled" if "input" in name else "seconds"] / steps for a in of]
        for name, of in answers.items()
    }
    result = {}
    for name, of in answers.items():
        median = float(np.median(times[name]))
        ratio = ratio_interval(times[name], times[OURS]) if OURS in times else None
        result[name] = {
            "seconds_per_step": times[name],
            "median": median,
            "steps_per_second": 1 / median,
            "cpu_seconds_per_step": float(np.median([a["cpu_seconds"] for a in of])) / steps,
            "times_ours": ratio,
            "peak_mb": of[-1]["peak_mb"],
            "first_loss": first[name],
            "last_loss": float(np.mean([a["loss"] for a in of[-3:]])),  # a single batch of 16 is noisy
        }
    return result


# ---------------------------------------------------------------------- reporting


def markdown(suite: Suite, report: Mapping[str, Any]) -> list[str]:
    """The table, a row for every contender, and what it was measured on."""
    machine = report["environment"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads each; {machine['date']}; "
        f"load before {machine['load']}; {', '.join(f'{k} {v}' for k, v in machine['packages'].items())}",
        "",
        f"| model | precision | | ms a step | steps/s | {suite.units}/s | CPU ms a step | time against ours (95 %) "
        "| peak MB | loss |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in report["results"]:
        for name, values in result["contenders"].items():
            ratio = values["times_ours"]
            cells = [
                suite.described(result["model"], suite.workloads[result["model"]]),
                result["precision"],
                name,
                f"{values['median'] * 1000:.4g}",
                f"{values['steps_per_second']:.3g}",
                f"{values['steps_per_second'] * suite.counted(suite.workloads[result['model']]):,.0f}",
                f"{values['cpu_seconds_per_step'] * 1000:.4g}",
                "1" if name == OURS else f"{ratio[0]:.2f} ({ratio[1]:.2f}–{ratio[2]:.2f})" if ratio else "–",
                f"{values['peak_mb']:.0f}" if values["peak_mb"] else "–",
                f"{values['first_loss']:.2f} → {values['last_loss']:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def tell(lines: Sequence[str], report: Mapping[str, Any], file: str | None) -> None:
    """Prints the lines of a table and, if asked, writes all that was measured."""
    print("\n".join(["", *lines]))
    if file:
        Path(file).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten: {file}")


def lacking(program: str, peers: Sequence[str]) -> list[str]:
    """Which of the peers' packages are not installed; a line says what to do about it."""
    missing = [name for name in peers if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{', '.join(missing)} not installed: ./scripts/benchmark {program} does it; "
              "--without-peers goes without", file=sys.stderr)  # fmt: skip
    return missing


def environment(threads: int, names: Sequence[str] = ("tensorflow", "keras", "torch")) -> dict[str, Any]:
    """Machine, versions and date, without importing what is measured; a line says it where others are at work."""
    from importlib.metadata import PackageNotFoundError, version

    from bigkeras.runtime import _processor

    packages = {}
    for name in names:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    load = round(os.getloadavg()[0], 1)
    if load > 0.5:
        print(f"Other programs keep {load} cores busy: the times will not be this machine's.", file=sys.stderr)
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": load,
        "date": datetime.date.today().isoformat(),
        "packages": packages,
    }

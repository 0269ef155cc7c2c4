"""Answers to texts beside ONNX Runtime, and the app's first one beside a pipeline: ./scripts/benchmark predict-text."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cold_start, text_artifact
from benchmarks.comparison import cores, environment, lacking, names_of, new_file, tell
from benchmarks.interleave import ROOT, Worker, WorkerError, ratio_interval, rounds
from benchmarks.text_predictors import CONTENDERS, ONNX_RUNTIME, OURS

TOLERANCE = 1e-4  # of a probability
DEFAULTS = ("lstm", "encoder")
PEERS = ("onnxruntime", "onnx", "tf2onnx", "torch", "transformers")
TURNS = {"one": 30, "many": 1}  # calls of a turn
GOAL = 0.25


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints two tables and writes JSON; gives 1 where a contender could not run or answers differently."""
    options = parse(arguments)
    if not options.without_peers and lacking("predict-text", PEERS):
        return 1
    machine = environment(options.threads, ("tensorflow", "keras", *PEERS))
    results, failed = [], False
    for model in [options.run] if options.run else options.models:
        with tempfile.TemporaryDirectory() as folder:
            try:
                results.append(measure(model, Path(folder), options))
            except WorkerError as error:
                print(f"{model}: {error}", file=sys.stderr)
                failed = True
    if not results:
        return 1
    report = {"environment": machine, "batch": options.batch, "results": results}
    tell(markdown(report), report, options.json)
    return int(failed)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options. Leaves with exit status 2 for one that is not there."""
    parser = argparse.ArgumentParser(prog="scripts/benchmark predict-text", description=__doc__)
    known = text_artifact.MODELS
    parser.add_argument("--models", type=names_of(known), default=DEFAULTS, help=f"of {', '.join(known)}")
    parser.add_argument("--run", metavar="DIR", help="a run directory of texts instead: its own weights")
    parser.add_argument("--rounds", type=int, default=10, help="turns of every contender (%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="texts at a time, for the throughput (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="three rounds: is it working?")
    parser.add_argument("--without-peers", action="store_true", help="neither ONNX Runtime nor a pipeline")
    parser.add_argument("--threads", type=int, default=cores(), help="of every contender (all cores: %(default)s)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="where to write the times of all rounds")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.threads, options.batch) < 1:
        parser.error("--rounds, --batch and --threads: at least 1")
    if options.quick:
        options.rounds = min(options.rounds, 3)
    return options


# ---------------------------------------------------------------------- measuring


def measure(model: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One model: what is made of it, its predictors' times, and those of the first answers."""
    print(f"{model}: making the artifact …", file=sys.stderr)
    count = max(TURNS["one"] * options.rounds, options.batch)
    values = {"model": "" if options.run else model, "run": options.run, "folder": str(folder), "count": count}
    prepared = made("benchmarks.text_artifact", {**values, "batch": options.batch, "onnx": not options.without_peers})
    found: dict[str, Any] = {"model": Path(model).name, "parameters": prepared["parameters"]}
    for kind, steps in TURNS.items():
        found[kind] = predicted(kind, steps, folder, options)
    bert = None if options.without_peers else folder / "bert"
    if bert:
        vocabulary = {"parameters": prepared["parameters"], "vocabulary": prepared["vocabulary"], "folder": str(bert)}
        found["bert_parameters"] = made("benchmarks.cold_start", vocabulary)
    text = json.loads((folder / text_artifact.TEXTS).read_text(encoding="utf-8"))[0]
    print(f"{model}: {options.rounds} starts …", file=sys.stderr)
    of = cold_start.commands(folder / text_artifact.ARTIFACT, bert, text)
    found["starts"] = start_summary(cold_start.starts(of, options.rounds, options.threads))
    return found


def made(module: str, values: Mapping[str, Any]) -> Any:
    """What a module that makes something prints, run in a process that ends before anything is measured."""
    path = os.pathsep.join([str(ROOT / "scripts"), str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run([sys.executable, "-m", module, json.dumps(values)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"})  # fmt: skip
    if done.returncode:
        raise WorkerError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def predicted(kind: str, steps: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The contenders' times of calls of one kind. Raises WorkerError where one fails or answers differently."""
    variables = {"OMP_NUM_THREADS": str(options.threads), "TF_CPP_MIN_LOG_LEVEL": "2"}
    values = {"kind": kind, "folder": str(folder), "threads": options.threads, "batch": options.batch, "warm": steps}
    workers: dict[str, Worker] = {}
    try:
        for name in CONTENDERS:
            if name != ONNX_RUNTIME or not options.without_peers:
                workers[name] = Worker("benchmarks.text_predictors", {**values, "contender": name}, variables)
        first = {name: worker.answer()["probabilities"] for name, worker in workers.items()}
        differences = {name: difference(of, first[OURS]) for name, of in first.items()}
        for name, most in differences.items():
            if not most <= TOLERANCE:
                raise WorkerError(f"{name} differs by {most:.2g} of a probability from {OURS}")
        print(f"{options.rounds} rounds of {steps}, {kind} …", file=sys.stderr)
        answers = rounds(workers, options.rounds, steps)
    finally:
        for worker in workers.values():
            worker.close()
    return {name: {**of, "difference": differences[name]} for name, of in summary(answers).items()}


def difference(found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """The largest difference of a probability, over calls whose batches are alike."""
    return max(float(np.abs(np.subtract(a, b)).max()) for a, b in zip(found, wanted, strict=True))


def summary(answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Percentiles over all calls; the ratio is of the rounds' medians, against ours."""
    medians = {name: [float(np.median(a["seconds"])) for a in of] for name, of in answers.items()}
    result = {}
    for name, of in answers.items():
        seconds = [second for answer in of for second in answer["seconds"]]
        result[name] = {
            "seconds": seconds,
            "p50": float(np.percentile(seconds, 50)),
            "p99": float(np.percentile(seconds, 99)),
            "times_ours": ratio_interval(medians[name], medians[OURS]),
            "peak_mb": of[-1]["peak_mb"],
        }
    return result


def start_summary(starts: Mapping[str, Sequence[cold_start.Start]]) -> dict[str, dict[str, Any]]:
    """Medians of time and memory; `app_takes` is the app's time as a share of the other's, with its interval."""
    app = [start.seconds for start in starts[cold_start.APP]]
    return {
        name: {
            "seconds": [start.seconds for start in of],
            "median": float(np.median([start.seconds for start in of])),
            "peak_mb": float(np.median([start.peak_mb for start in of])),
            "app_takes": ratio_interval(app, [start.seconds for start in of]),
        }
        for name, of in starts.items()
    }


# ---------------------------------------------------------------------- reporting


def markdown(report: Mapping[str, Any]) -> list[str]:
    """Both tables, a row for every contender, and what they were measured on."""
    machine, batch = report["environment"], report["batch"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads each; {machine['date']}; "
        f"load before {machine['load']}; {', '.join(f'{k} {v}' for k, v in machine['packages'].items())}",
        "",
        f"| model | | p50 ms | p99 ms | p50 against ours (95 %) | texts/s at {batch} | "
        f"time at {batch} against ours (95 %) | peak MB at {batch} |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for result in report["results"]:
        for name, one in result["one"].items():
            many = result["many"][name]
            cells = [_named(result), name, f"{one['p50'] * 1000:.3g}", f"{one['p99'] * 1000:.3g}",
                     _ratio(name == OURS, one["times_ours"]), f"{batch / many['p50']:.3g}",
                     _ratio(name == OURS, many["times_ours"]), f"{many['peak_mb'] or 0:.0f}"]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| model | from start to answer | s | the app's share of it (95 %) | peak MB |",
              "|---|---|---:|---:|---:|"]  # fmt: skip
    for result in report["results"]:
        for name, of in result["starts"].items():
            low, high = min(of["seconds"]), max(of["seconds"])
            cells = [_named(result), name, f"{of['median']:.2f} ({low:.2f}–{high:.2f})",
                     _ratio(name == cold_start.APP, of["app_takes"]), f"{of['peak_mb']:.0f}"]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *map(goals, report["results"])]


def _named(result: Mapping[str, Any]) -> str:
    return f"{result['model']}, {result['parameters']:,}"


def _ratio(reference: bool, ratio: Sequence[float]) -> str:
    return "1" if reference else f"{ratio[0]:.2f} ({ratio[1]:.2f}–{ratio[2]:.2f})"


def goals(result: Mapping[str, Any]) -> str:
    """One line: whether the first answer takes a quarter of the others' time, and less memory than TensorFlow's."""
    starts = result["starts"]
    app, others = starts[cold_start.APP], {name: of for name, of in starts.items() if name != cold_start.APP}
    slow = [name for name, of in others.items() if of["app_takes"][0] > GOAL]
    large = [cold_start.PYTHON] if app["peak_mb"] >= starts[cold_start.PYTHON]["peak_mb"] else []
    if not slow + large:
        return f"{result['model']}: at most a quarter of the others' time, and less memory than {cold_start.PYTHON}."
    parts = [f"more than a quarter of the time of {' and '.join(slow)}"] if slow else []
    parts += [f"no less memory than {cold_start.PYTHON}"] if large else []
    return f"{result['model']}: missed: {'; '.join(parts)}."


if __name__ == "__main__":
    sys.exit(main())

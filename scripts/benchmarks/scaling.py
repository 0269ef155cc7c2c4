"""One training on one device, two replicas and two workers, a thread each: ./scripts/benchmark scaling."""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import above_zero, at_least_one, environment, names_of, new_file, tell
from benchmarks.interleave import Worker, WorkerError, ratio_interval, rounds
from benchmarks.scaling_contenders import ALONE, CONTENDERS, ONE, STOCK, WORKERS, exchanged

MODULE = "benchmarks.scaling_contenders"
STEPS = {"resnet20": 2, "wide-resnet": 1, "encoder": 1, "tiny-encoder": 5, "tiny": 5}
CHIPS = (1, 8, 64, 512)
# 25.6 million parameters in float32; 53 layers of batch normalisation; a step of a chip with 256 images, assumed.
RESNET50_STEP, RESNET50_BYTES, RESNET50_EXCHANGES = 0.1, 4 * 25.6e6, 3 + 2 * 53


class Group:
    """The processes of one contender, which take their turn together; the times are those of the slowest."""

    def __init__(self, contender: str, workload: str, times: int):
        from bigkeras.launch import configurations

        environments = configurations(2) if contender == WORKERS else [{}] * (2 if contender == ALONE else 1)
        common = {"TF_CPP_MIN_LOG_LEVEL": "2", "OMP_NUM_THREADS": "1"}
        options = {"contender": contender, "workload": workload, "times": times}
        self.workers = [Worker(MODULE, options, {**common, **one}) for one in environments]

    def answer(self) -> dict[str, Any]:
        """What the slowest says when all have answered."""
        answers = [worker.answer() for worker in self.workers]
        return max(answers, key=lambda answer: answer.get("seconds", 0.0))

    def ask(self, steps: int) -> dict[str, Any]:
        """So many steps of all."""
        for worker in self.workers:
            with contextlib.suppress(BrokenPipeError):  # `answer` says why
                worker.process.stdin.write(f"{steps}\n")
                worker.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """Ends all."""
        for worker in self.workers:
            worker.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints tables; gives 1 where a contender could not run."""
    options = _parser().parse_args(arguments)
    machine = environment(1, ("tensorflow", "keras"))
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items())
    lines = [f"{machine['processor']}, {machine['cores']} cores, a thread each; {machine['date']}; {packages}", ""]
    lines += ["| model | | ms a step | throughput against one device (95 %) |", "|---|---|---:|---:|"]
    report: dict[str, Any] = {"environment": machine, "batch_times": options.batch_times, "results": {}}
    predictions: list[str] = []
    for model in options.models:
        try:
            times = measured(model, options)
        except WorkerError as error:
            print(f"{model}: {error}", file=sys.stderr)
            return 1
        report["results"][model] = times
        for name, of in times.items():
            # How many times as fast: the reference's time over this one's.
            ratio, low, high = ratio_interval(times[ONE], of)
            cells = [model, name, f"{np.median(of) * 1000:.4g}", f"{ratio:.2f} ({low:.2f}–{high:.2f})"]
            lines.append(f"| {' | '.join(cells)} |")
        if STOCK in times:
            over, low, high = (value - 1 for value in ratio_interval(times[ONE], times[STOCK]))
            lines.append(f"| {model} | our step against stock `fit` | | {over:+.1%} time ({low:+.1%} to {high:+.1%}) |")
        numbers, exchanges = exchanged(model)
        predictions += predicted(model, float(np.median(times[ONE])), 4.0 * numbers, exchanges, options)
    predictions += predicted("ResNet-50", RESNET50_STEP, RESNET50_BYTES, RESNET50_EXCHANGES, options)
    lines += ["", *checkpoint_cost(options.checkpoint_model), "", *prediction_head(options), *predictions]
    tell(lines, report, options.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/benchmark scaling", description=__doc__)
    parser.add_argument("--models", type=names_of(tuple(STEPS)), default=("wide-resnet", "encoder"),
                        help="of " + ", ".join(STEPS) + " (wide-resnet,encoder)")  # fmt: skip
    parser.add_argument("--contenders", type=names_of(tuple(CONTENDERS)), default=tuple(CONTENDERS),
                        help="of " + ", ".join(CONTENDERS) + " (all)")  # fmt: skip
    parser.add_argument("--rounds", type=at_least_one, default=10, help="turns of every contender (%(default)s)")
    parser.add_argument("--batch-times", type=at_least_one, default=1,
                        help="batches so many times as large (%(default)s)")  # fmt: skip
    parser.add_argument("--checkpoint-model", choices=tuple(STEPS), default="encoder",
                        help="whose checkpoint is timed (%(default)s)")  # fmt: skip
    parser.add_argument(
        "--bandwidth", type=above_zero, default=50e9, help="prediction: bytes/s between chips (%(default)g)"
    )
    parser.add_argument("--latency", type=float, default=5e-6, help="prediction: s of a message (%(default)g)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="where to write the times of all rounds")
    return parser


def measured(model: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of a step in each round, by contender. Raises WorkerError."""
    print(f"{model}: starting …", file=sys.stderr)
    names = {CONTENDERS[key] for key in ("one", *options.contenders)}
    groups = {name: Group(name, model, options.batch_times) for name in CONTENDERS.values() if name in names}
    try:
        for group in groups.values():
            group.answer()
        print(f"{model}: {options.rounds} rounds of {STEPS[model]} steps …", file=sys.stderr)
        answers = rounds(groups, options.rounds, STEPS[model])
    finally:
        for group in groups.values():
            group.close()
    return {name: [a["seconds"] / STEPS[model] for a in of] for name, of in answers.items()}


def checkpoint_cost(model: str) -> list[str]:
    """How long a checkpoint of a model takes, and what share of a run that is at one a minute."""
    import tensorflow as tf

    from benchmarks.scaling_contenders import begun
    from bigkeras import checkpoint

    network, *_ = begun(model, tf.distribute.get_strategy())
    # SGD with momentum: a number for each weight, and one for its speed.
    variables = [*network.variables, *network.variables]
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for step in range(5):
            began = time.perf_counter()
            checkpoint.save(Path(folder), checkpoint.Position(step=step), step, checkpoint.values(variables))
            times.append(time.perf_counter() - began)
    seconds = float(np.median(times))
    size = sum(np.prod(v.shape) for v in variables) * 4 / 1e6
    share = seconds / 60
    return [
        f"A checkpoint of {model} ({size:.0f} MB) takes {seconds * 1000:.0f} ms: {share:.2%} of a run at one a minute."
    ]


def prediction_head(options: argparse.Namespace) -> list[str]:
    """What the predictions are made of: the formula, and the head of their table."""
    return [
        f"Predicted, each chip with the batch and the step of one device: t(n) = t(1) + 2(n-1)/n · bytes/bandwidth + "
        f"exchanges · 2 log2(n) · latency; {options.bandwidth:g} bytes/s, {options.latency:g} s a message. ResNet-50: "
        f"{RESNET50_STEP:g} s a step is assumed.",
        "",
        "| model | t(1), s | MB | exchanges | chips | s a step | efficiency "
        "| efficiency where the bytes are exchanged during the backward pass |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]


def predicted(name: str, step: float, size: float, exchanges: int, options: argparse.Namespace) -> list[str]:
    """What exchanging leaves of the speed of n chips, a row for each of `CHIPS`; nothing overlapping is the worst case.

    Bandwidth is that of a ring (Patarasuk & Yuan 2009), latency that of recursive halving and doubling (Thakur et al.
    2005, "Optimization of collective communication operations in MPICH", section 4.5), as short exchanges are made.
    """
    lines = []
    for chips in CHIPS:
        time_of_bytes = 2 * (chips - 1) / chips * size / options.bandwidth
        time_of_messages = exchanges * 2 * np.log2(chips) * options.latency
        total = step + time_of_bytes + time_of_messages
        # The backward pass takes two thirds of a step; gradients that are exchanged meanwhile cost nothing.
        hidden = step + max(0.0, time_of_bytes - 2 / 3 * step) + time_of_messages
        cells = [name, f"{step:.4g}", f"{size / 1e6:.1f}", str(exchanges), str(chips), f"{total:.4g}"]
        lines.append(f"| {' | '.join([*cells, f'{step / total:.1%}', f'{step / hidden:.1%}'])} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())

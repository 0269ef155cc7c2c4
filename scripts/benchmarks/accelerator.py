"""ResNet-50 and a BERT of 110 million parameters by Keras' JAX backend: ./scripts/benchmark accelerator."""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import numpy as np

from benchmarks.comparison import at_least_one, environment, names_of, new_file, tell

CLASSES = 1000
WORDS = 30_522


@dataclass(frozen=True)
class Workload:
    """A model of `MODELS`, its batch, and what a training step takes for each example.

    `flops` counts products and sums; `units` says how many of `unit` an example is.
    """

    model: str
    args: Mapping[str, Any]
    shape: tuple[int, ...]
    batch: int
    flops: float
    unit: str = "images"
    units: int = 1
    steps: int = 20


def bert_flops(depth: int, width: int, length: int) -> float:
    """Of a text: six for each parameter and token, embeddings looked up apart, and what attention does between tokens.

    Source: Chowdhery et al. 2022 (arXiv 2204.02311), appendix B.
    """
    return float(length * (6 * 12 * depth * width**2 + 12 * depth * width * length))


WORKLOADS = {
    # He et al. 2015 (arXiv 1512.03385), table 1, count 3.8e9 multiplications forward of the first version; with the
    # stride in the 3×3 convolutions it is 4.09e9. The backward pass is twice the forward one.
    "resnet50": Workload("resnet", {"depth": 50}, (224, 224, 3), 256, 3 * 2 * 4.09e9),
    "bert-base": Workload("bert", {"size": "base"}, (512,), 64, bert_flops(12, 768, 512), "tokens", 512),
    # For the tests.
    "tiny": Workload("bert", {"size": "tiny"}, (8,), 4, bert_flops(2, 128, 8), "tokens", 8, 2),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and prints a table."""
    options = _parser().parse_args(arguments)
    import jax

    machine = environment(options.threads, ("keras", "jax"))
    device = jax.devices()[0].device_kind
    if jax.default_backend() == "cpu" and set(options.models) - {"tiny"}:
        print("JAX sees no accelerator here, and on a CPU these models take hours: install JAX for yours, such as "
              "`pip install -c constraints.txt \"jax[cuda12]\"`", file=sys.stderr)  # fmt: skip
        return 1
    peak = measured_peak(options.matrix, options.rounds)
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [f"{device}; {machine['date']}; {packages}; a product of two matrices of {options.matrix}² in bfloat16: "
             f"{peak / 1e12:.4g} TFLOP/s, the peak below", "",
             "| model | parameters | batch | ms a step | units/s | TFLOP/s | share of the peak |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    report: dict[str, Any] = {"environment": machine, "device": device, "peak": peak, "results": {}}
    failed = False
    for name in options.models:
        workload = WORKLOADS[name]
        batch = options.batch or workload.batch
        try:
            parameters, times = measured(workload, batch, options.rounds)
        except Exception as error:
            from bigkeras.runtime import out_of_memory

            if not out_of_memory(error):
                raise
            print(f"{name}: too little memory for batches of {batch}: --batch takes fewer", file=sys.stderr)
            failed = True
            continue
        second = float(np.median(times))
        speed = workload.flops * batch / second
        report["results"][name] = {"parameters": parameters, "batch": batch, "seconds": times, "flops": speed}
        units = f"{workload.units * batch / second:,.4g} {workload.unit}"
        cells = [name, f"{parameters:,}", str(batch), f"{second * 1000:.4g}", units, f"{speed / 1e12:.4g}"]
        cells.append(f"{speed / peak:.1%}")
        lines.append(f"| {' | '.join(cells)} |")
    tell(lines, report, options.json)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/benchmark accelerator", description=__doc__)
    parser.add_argument("--models", type=names_of(tuple(WORKLOADS)), default=("resnet50", "bert-base"),
                        help="of " + ", ".join(WORKLOADS))  # fmt: skip
    parser.add_argument("--batch", type=at_least_one, help="examples a step (256 images, 64 texts of 512 tokens)")
    parser.add_argument(
        "--matrix", type=at_least_one, default=8192, help="the peak's matrices are so wide (%(default)s)"
    )
    parser.add_argument("--rounds", type=at_least_one, default=5,
                        help="of some steps; their median counts (%(default)s)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=new_file, metavar="FILE", help="where to write the times of all rounds")
    return parser


def measured_peak(width: int, rounds: int) -> float:
    """The most operations a second that products of square matrices in bfloat16 reach."""
    import jax

    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (width, width), "bfloat16") for key in keys)
    product = jax.jit(lambda a, b: a @ b)
    product(a, b).block_until_ready()
    best = np.inf
    for _ in range(max(rounds, 3)):
        began = time.perf_counter()
        for _ in range(4):
            last = product(a, b)
        last.block_until_ready()
        best = min(best, (time.perf_counter() - began) / 4)
    return 2 * width**3 / best


def measured(workload: Workload, batch: int, rounds: int) -> tuple[int, list[float]]:
    """The model's parameters, and seconds of a step in each round, by Keras' own fit; the first round warms up."""
    import keras

    step = begun(workload)
    x, labels = made(workload, batch)
    times: list[float] = []

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            yield x, labels

    for _ in range(rounds + 1):
        began = time.perf_counter()
        step.fit(batches(), epochs=1, steps_per_epoch=workload.steps, verbose=0)
        times.append((time.perf_counter() - began) / workload.steps)
    keras.backend.clear_session()
    return step.count_params(), times[1:]


def begun(workload: Workload) -> Any:
    """The step that `bigkeras train` makes on JAX, in mixed_bfloat16, with AdamW.

    Without its metrics and callbacks, which have the host wait for every step.
    """
    import keras

    from bigkeras import runtime
    from bigkeras.jax_step import JaxStep
    from bigkeras.models import MODELS

    keras.utils.set_random_seed(0)
    with runtime.precision("mixed_bfloat16"):
        sizes = {"input_shape": workload.shape} if workload.unit == "images" else {
            "vocabulary_size": WORDS, "length": workload.shape[0]}  # fmt: skip
        network = MODELS[workload.model](num_classes=CLASSES, **sizes, **workload.args)
        step = JaxStep(inputs=network.inputs, outputs=network.outputs)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        step.compile(optimizer=keras.optimizers.AdamW(1e-4), loss=loss)
        step.begin(network, None, micro_batches=1)
    return step


def made(workload: Workload, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """One batch from a fixed seed: pixels, float32, or ids of words, and labels."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, batch).astype(np.int32)
    if workload.unit == "images":
        return random.normal(size=(batch, *workload.shape)).astype(np.float32), labels
    return random.integers(1000, WORDS, (batch, *workload.shape)).astype(np.int32), labels


if __name__ == "__main__":
    sys.exit(main())

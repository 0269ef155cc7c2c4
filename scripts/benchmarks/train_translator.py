"""Training translators, beside PyTorch: ./scripts/benchmark train-translator."""

import sys

from benchmarks.comparison import Suite, run
from benchmarks.translator_contenders import CONTENDERS, WORKLOADS, Workload, one_batch


def described(model: str, workload: Workload) -> str:
    """A model and its batch, as the table names them."""
    return f"{model} translator, {workload.batch} × {workload.shape[0]}"


SUITE = Suite(
    program="train-translator",
    description=__doc__ or "",
    module="benchmarks.translator_contenders",
    workloads=WORKLOADS,
    defaults=("tiny", "small"),
    contenders=tuple(CONTENDERS),
    described=described,
    units="target tokens",
    counted=lambda workload: (one_batch(workload)[2] > 0).sum(),
)

if __name__ == "__main__":
    sys.exit(run(SUITE))

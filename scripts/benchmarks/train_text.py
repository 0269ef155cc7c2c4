"""Training text models, beside stock Keras' layers and PyTorch's: ./scripts/benchmark train-text."""

import sys

from benchmarks.comparison import Suite, run
from benchmarks.text_contenders import CONTENDERS, WORKLOADS, Workload


def described(model: str, workload: Workload) -> str:
    """A model and its batch, as the table names them."""
    return f"{model}, {workload.batch} × {workload.shape[0]}"


SUITE = Suite(
    program="train-text",
    description=__doc__ or "",
    module="benchmarks.text_contenders",
    workloads=WORKLOADS,
    defaults=("lstm", "encoder"),
    contenders=tuple(CONTENDERS),
    described=described,
    units="texts",
)

if __name__ == "__main__":
    sys.exit(run(SUITE))

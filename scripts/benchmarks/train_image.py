"""Training image models, beside stock Keras and PyTorch: ./scripts/benchmark train-image."""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison import Suite, run
from benchmarks.contenders import CONTENDERS, PICTURE, WORKLOADS, Workload, examples

FILES = 32


def write_pictures(folder: Path, workloads: Sequence[Workload]) -> None:
    """JPEG files of 500×375 pixels, in a sub-folder for each class, where a workload reads files."""
    from PIL import Image

    if not any(workload.files for workload in workloads):
        return
    images, labels = examples(PICTURE, FILES, spread=12.0)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{number:04d}.jpg", quality=90)


def described(model: str, workload: Workload) -> str:
    """A model and its batch, as the table names them."""
    height, width, channels = workload.shape
    return f"{model}, {workload.batch} × {height}×{width}×{channels}"


SUITE = Suite(
    program="train-image",
    description=__doc__ or "",
    module="benchmarks.contenders",
    workloads=WORKLOADS,
    defaults=("lenet", "resnet20", "efficientnet-b0"),
    contenders=tuple(CONTENDERS),
    described=described,
    units="images",
    prepare=write_pictures,
)

if __name__ == "__main__":
    sys.exit(run(SUITE))

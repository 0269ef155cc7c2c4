"""TensorFlow Datasets, wrapped: without network it fails within seconds where `tfds.load` blocks for minutes."""

import contextlib
import os
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from bigkeras.data.files import expanded
from bigkeras.data.source import DataError

# Where each data set comes from: what answers here can be downloaded.
ORIGINS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz",
    "imdb_reviews": "http://ai.stanford.edu/~amaas/data/sentiment/",
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar.html",
}
ANSWER_SECONDS = 3.0


def tfds_arrays(dataset: str, directory: Path, column: str = "image") -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """(images or texts, labels) of the train and the test split, from TFDS; it prepares the data set where it is not.

    Raises DataError where it is neither prepared below `directory` or ~/tensorflow_datasets nor can be downloaded.
    """
    builder = prepared(dataset, directory) or _prepare(dataset, directory / "tfds")
    arrays = []
    try:
        for split in ("train", "test"):
            # A batch of -1 is the whole split at once.
            whole: Any = builder.as_dataset(split=split, batch_size=-1)
            arrays.append((whole[column].numpy(), whole["label"].numpy()))
    except Exception as error:
        raise unreadable(builder.data_dir, error) from None
    return tuple(arrays)


def unreadable(folder: str | Path, error: Exception) -> DataError:
    """What is told of a set that was prepared by an older version, or in part."""
    reason = " ".join(str(error).split())[:200]
    told = f"TensorFlow Datasets cannot read what was prepared there ({type(error).__name__}: {reason})"
    return DataError(f"{folder}: {told}: move that folder away")


def prepared(dataset: str, directory: Path) -> Any:
    """The TFDS builder of a data set that was prepared before, found without network; None where there is none.

    `dataset`: its name and, after a slash, its configuration. Raises DataError where several are prepared.
    """
    for root in (directory, directory / "tfds", expanded("~/tensorflow_datasets")):
        versions = sorted(path.parent for path in (root / dataset).glob("**/dataset_info.json"))
        of_each = sorted({os.path.relpath(version.parent, root) for version in versions})
        if len(of_each) > 1 and dataset not in ORIGINS:
            raise DataError(f"{dataset}: there are {', '.join(of_each)} in {root}: name one of them")
        if versions:
            import tensorflow_datasets

            newest = max(reversed(versions), key=lambda path: [part.zfill(9) for part in path.name.split(".")])
            try:
                return tensorflow_datasets.builder_from_directory(str(newest))
            except Exception as error:
                raise unreadable(newest, error) from None
    return None


def answers(url: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether a web address answers, proxies included, decided after at most `seconds`."""
    reached: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
                reached.append(True)
        except (OSError, ValueError, urllib.error.URLError):
            reached.append(False)

    # A thread, since the timeout of a socket does not hold for the look-up of the name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(reached and reached[0])


def _prepare(dataset: str, directory: Path) -> Any:
    if not answers(ORIGINS[dataset]):
        raise DataError(f"TensorFlow Datasets cannot fetch it either: {ORIGINS[dataset]} does not answer")
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder(dataset, data_dir=str(directory))
        settings = tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
        with contextlib.redirect_stdout(sys.stderr):  # what it tells is no answer of the command's
            builder.download_and_prepare(download_config=settings)
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise DataError(f"TensorFlow Datasets could not prepare it: {type(error).__name__}: {text}") from None
    return builder

"""The classic small data sets, in memory: mnist, fashion_mnist, cifar10, digits.

The files are looked for in `directory`, else in $BIGKERAS_DATA, else in ~/.cache/bigkeras; where none of the forms is
there, TensorFlow Datasets prepares the data set below that directory.
"""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bigkeras.data import formats
from bigkeras.data.files import EXTENSIONS, expanded
from bigkeras.data.source import ArraySource, DataError, Splits
from bigkeras.data.splits import check_fractions, stratified_sample, stratified_split
from bigkeras.data.tfds import tfds_arrays

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IDX_FILES = "the four files train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-… and t10k-labels-…"
CIFAR10_FILES = "cifar10_train.npz and cifar10_test.npz (x, y), or data_batch_1.bin … _5.bin and test_batch.bin"

Reader = Callable[[Path, str, str], formats.Arrays | None]


def mnist(
    *, directory: str | None = None, validation: float = 0.1, seed: int = 0, limit_train: int | None = None
) -> Splits:
    """Handwritten digits, uint8 (28, 28, 1): 60,000 for training and 10,000 for testing.

    Origin: http://yann.lecun.com/exdb/mnist, LeCun, Cortes, Burges; no licence stated. Validation is a stratified part
    of the training images that the seed decides; 0 trains on all of them. `limit_train` trains on so many only.
    """
    train, test = _read("mnist", ("mnist",), directory, (formats.idx_arrays,), IDX_FILES)
    return _splits(train, test, DIGITS, validation, seed, limit_train)


def fashion_mnist(
    *, directory: str | None = None, validation: float = 0.1, seed: int = 0, limit_train: int | None = None
) -> Splits:
    """Pictures of clothes, uint8 (28, 28, 1): 60,000 for training and 10,000 for testing, ten kinds.

    Origin: https://github.com/zalandoresearch/fashion-mnist, MIT licence, Zalando SE. Validation is a stratified part
    of the training images that the seed decides; 0 trains on all of them. `limit_train` trains on so many only.
    """
    names = ("fashion-mnist", "fashion_mnist")
    train, test = _read("fashion_mnist", names, directory, (formats.idx_arrays,), IDX_FILES)
    return _splits(train, test, CLOTHES, validation, seed, limit_train)


def cifar10(
    *, directory: str | None = None, validation: float = 0.1, seed: int = 0, limit_train: int | None = None
) -> Splits:
    """Small colour photographs, uint8 (32, 32, 3): 50,000 for training and 10,000 for testing, ten classes.

    Origin: https://www.cs.toronto.edu/~kriz/cifar.html, Krizhevsky 2009; no licence stated. Validation is a stratified
    part of the training images that the seed decides; 0 trains on all of them. `limit_train` trains on so many only.
    """
    readers = (formats.npz_arrays, formats.batch_arrays, formats.sheet_arrays)
    names = ("cifar10", "cifar-10-batches-bin")
    train, test = _read("cifar10", names, directory, readers, CIFAR10_FILES)
    return _splits(train, test, CIFAR10, validation, seed, limit_train)


def digits(*, validation: float = 0.15, test: float = 0.15, seed: int = 0) -> Splits:
    """1,797 handwritten digits, uint8 (8, 8, 1), that come with scikit-learn: nothing is downloaded.

    Origin: UCI "Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998, CC BY 4.0; its test part. The
    17 grey levels are spread over 0 to 255. A stratified split that the seed decides: 70, 15 and 15 percent.
    """
    from sklearn.datasets import load_digits

    check_fractions(validation=validation, test=test)
    loaded = load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    whole = ArraySource({"image": images}, loaded.target, "digits")
    parts = stratified_split(whole.labels, (1 - validation - test, validation, test), seed)
    held_out, tested = (whole.take(part) if len(part) else None for part in parts[1:])
    return Splits(whole.take(parts[0]), held_out, tested, DIGITS)


def data_directory(directory: str | None = None) -> Path:
    """Where data sets lie: `directory`, else $BIGKERAS_DATA, else ~/.cache/bigkeras."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")) / "bigkeras"
    return expanded(directory or os.environ.get("BIGKERAS_DATA") or cache)


PUBLISHED = ("mnist", "fashion-mnist", "cifar10", "imdb", "tfds")  # folders of published sets, beside which lie others
ENDINGS = {"image": EXTENSIONS, "text": (".txt",)}  # not .md, in which a data set is described
MOST_LOOKED_AT = 1000  # files


def check_not_own(directory: str | None, dataset: str, kind: str) -> None:
    """Raises DataError for a place of one's own files, which a published data set would not read.

    `kind`: image or text.
    """
    root = expanded(directory or "")
    known = (*PUBLISHED, dataset)
    if directory is None or not root.exists() or any((root / name).is_dir() for name in known):
        return
    some = itertools.islice(itertools.chain(root.glob("*"), root.glob("*/*")), MOST_LOOKED_AT)
    if root.is_file() or any(path.suffix.lower() in ENDINGS[kind] for path in some):
        own = f"{kind}_table" if root.is_file() else f"{kind}_folder"
        raise DataError(
            f"{root}: is no place of {dataset}, which is what would be read: --set data={own} reads one's own files; "
            "to train on them: text-csv, image-folder and the like of `bigkeras list`"
        )


def _read(
    dataset: str, names: tuple[str, ...], directory: str | None, readers: tuple[Reader, ...], wanted: str
) -> tuple[formats.Arrays, formats.Arrays]:
    root = data_directory(directory)
    # The files may also lie right in the directory that the user names, but not among the other data sets'.
    folders = [root / name for name in names] + ([root] if directory else [])
    for folder in folders:
        for reader in readers:
            train, test = (reader(folder, names[0], split) for split in ("train", "test"))
            if train and test:
                return train, test
            if train or test:
                raise DataError(f"{folder}: has only one of the training and test files; both are needed: {wanted}")
    check_not_own(directory, dataset, "image")
    try:
        train, test = tfds_arrays(dataset, root)
        return train, test
    except DataError as error:
        raise DataError(f"{dataset} is not in {root / names[0]}: place there {wanted}; {error}") from None


def _splits(
    train: formats.Arrays,
    test: formats.Arrays,
    class_names: tuple[str, ...],
    validation: float,
    seed: int,
    limit_train: int | None,
) -> Splits:
    check_fractions(validation=validation)
    if limit_train is not None and limit_train < 1:
        raise DataError(f"limit_train={limit_train}: at least 1, or null for all")
    for name, (_, labels) in (("train", train), ("test", test)):
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
            told = f"labels from {labels.min()} to {labels.max()}, where there are {len(class_names)} classes from 0 on"
            raise DataError(f"the {name} images have {told}: another data set")
    whole = ArraySource({"image": train[0]}, train[1], "train")
    tested = ArraySource({"image": test[0]}, test[1], "test")
    if not validation and limit_train is None:
        return Splits(whole, None, tested, class_names)
    kept, held_out = stratified_split(whole.labels, (1 - validation, validation), seed)
    kept = kept[stratified_sample(whole.labels[kept], limit_train, seed)]
    return Splits(whole.take(kept), whole.take(held_out) if len(held_out) else None, tested, class_names)

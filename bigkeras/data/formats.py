"""The forms in which the classic data sets lie on disk: idx, npz, binary batches and sheets of tiles."""

import gzip
import hashlib
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from bigkeras.data.checksums import SHA256
from bigkeras.data.source import DataError

Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 (n, height, width, channels), labels (n,)

IDX_NAMES = {"train": "train", "test": "t10k"}
TILE = 32


def read_bytes(path: Path, dataset: str) -> bytes:
    """The bytes of a file of a published data set; DataError where they are not the published ones."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    known = SHA256.get(dataset, {}).get(path.name)
    if known and hashlib.sha256(data).hexdigest() != known:
        raise DataError(f"{path}: not the published file (SHA-256 differs from {known[:16]}…): fetch it again")
    return data


def idx_arrays(folder: Path, dataset: str, split: str) -> Arrays | None:
    """Images and labels of the original idx files, .gz or unpacked; None where they are not there."""
    arrays = []
    for kind, dimensions in (("images", 3), ("labels", 1)):
        stem = f"{IDX_NAMES[split]}-{kind}"
        names = (f"{stem}-idx{dimensions}-ubyte.gz", f"{stem}-idx{dimensions}-ubyte", f"{stem}.idx{dimensions}-ubyte")
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            return None
        arrays.append(read_idx(path, dataset, dimensions))
    return _fitting(folder, arrays[0][..., np.newaxis], arrays[1])


def read_idx(path: Path, dataset: str, dimensions: int) -> np.ndarray:
    """One idx file of unsigned bytes (http://yann.lecun.com/exdb/mnist): uint8 with that many dimensions."""
    data = read_bytes(path, dataset)
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: not a whole gzip file: {error}") from None
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{path}: not an idx file of bytes with {dimensions} dimensions")
    shape = tuple(np.frombuffer(data, ">u4", dimensions, 4).tolist())
    if len(data) - header != int(np.prod(shape)):
        raise DataError(f"{path}: {len(data) - header} bytes for the shape {shape}: the file is not whole")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


# What NumPy raises for a file that is none of its own, cut off or changed on the disk.
NUMPY_BROKEN = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, SyntaxError,
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


def npz_arrays(folder: Path, dataset: str, split: str) -> Arrays | None:
    """Images and labels of `<dataset>_<split>.npz` with x (n, height, width, channels) and y (n,); None without."""
    path = folder / f"{dataset}_{split}.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["x"], arrays["y"]
    except TypeError:
        raise DataError(f"{path}: not an npz file with x and y: a single array (npy)") from None
    except NUMPY_BROKEN as error:
        raise DataError(f"{path}: not a whole npz file with x and y: {error}") from None
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(f"{path}: x is {images.dtype} {images.shape}, not uint8 (n, height, width, channels)")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: y is {labels.dtype}, not whole numbers: of each image its class, from 0 on")
    return _fitting(path, images, labels.reshape(-1))


def sheet_arrays(folder: Path, dataset: str, split: str) -> Arrays | None:
    """Images and labels of lossless sheets of 32×32 tiles in row order; None where they are not there."""
    table, sheets = folder / f"{split}_labels.tsv", sorted(folder.glob(f"{split}_[0-9]*.webp"))
    if not table.is_file() or not sheets:
        return None
    lines = read_bytes(table, dataset).decode().splitlines()
    labels = np.array([int(line.split("\t")[0]) for line in lines], np.uint8)
    tiles = [_tiles(sheet, read_bytes(sheet, dataset)) for sheet in sheets]
    images = np.concatenate(tiles)[: len(labels)]
    return _fitting(folder, images, labels)


def _tiles(path: Path, data: bytes) -> np.ndarray:
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"{path}: cannot be decoded: {error}") from None
    rows, columns = pixels.shape[0] // TILE, pixels.shape[1] // TILE
    return pixels.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)


def batch_arrays(folder: Path, dataset: str, split: str) -> Arrays | None:
    """Images and labels of CIFAR-10's binary version (`data_batch_1.bin` …, `test_batch.bin`); None without."""
    paths = [folder / "test_batch.bin"] if split == "test" else [folder / f"data_batch_{i}.bin" for i in range(1, 6)]
    if not all(path.is_file() for path in paths):
        return None
    record = 1 + 3 * TILE * TILE  # the label, then the red, green and blue planes
    rows = []
    for path in paths:
        data = read_bytes(path, dataset)
        if not data or len(data) % record:
            raise DataError(f"{path}: {len(data)} bytes are not whole records of {record} bytes")
        rows.append(np.frombuffer(data, np.uint8).reshape(-1, record))
    table = np.concatenate(rows)
    images = np.ascontiguousarray(table[:, 1:].reshape(-1, 3, TILE, TILE).transpose(0, 2, 3, 1))
    return images, table[:, 0]


def _fitting(path: Path, images: np.ndarray, labels: np.ndarray) -> Arrays:
    if len(images) != len(labels) or not len(images):
        raise DataError(f"{path}: {len(images)} images and {len(labels)} labels: as many of both, and at least one")
    return images, labels

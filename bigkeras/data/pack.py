"""Packed pictures: a data set as a few ArrayRecord files instead of very many small ones."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bigkeras.data.files import expanded
from bigkeras.data.formats import NUMPY_BROKEN
from bigkeras.data.source import DataError, FileSource, Source, Splits

INDEX = "index.json"
VERSION = 1


class RecordSource:
    """Examples in ArrayRecord files, read by their number when they are fetched: {column: the record's bytes}."""

    batched = False

    def __init__(
        self,
        directory: Path,
        shards: list[str],
        records: np.ndarray,
        labels: np.ndarray,
        names: Callable[[int], str],
        column: str = "image",
    ):
        """`records`: int64 `(n,)`, numbers counted through all shards; `names` gives a record's name."""
        self.directory = Path(directory)
        self.shards = shards
        self.records = np.asarray(records, np.int64)
        self.labels = np.asarray(labels, np.int32)
        self.names = names
        self.column = column
        # Opened by the thread that reads first, and again in a forked process.
        self._opened: tuple[int, Any] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return self.names(int(self.records[index]))

    def read(self, index: int) -> bytes:
        """The bytes of one example."""
        record = int(self.records[index])
        try:
            return self._source()[record]
        except (OSError, ValueError, RuntimeError, IndexError) as error:
            raise ValueError(f"record {record} in {self.directory} cannot be read: {error}") from None

    def fetch(self, index: Any) -> dict[str, Any]:
        import tensorflow as tf

        data = tf.numpy_function(lambda i: np.array(self.read(int(i)), object), [index], tf.string)
        return {self.column: tf.ensure_shape(data, ())}

    def take(self, indices: Any) -> "RecordSource":
        """The source of some of its examples."""
        return RecordSource(
            self.directory, self.shards, self.records[indices], self.labels[indices], self.names, self.column
        )

    def _source(self) -> Any:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                from array_record.python.array_record_data_source import ArrayRecordDataSource

                paths = [str(self.directory / name) for name in self.shards]
                self._opened = (os.getpid(), ArrayRecordDataSource(paths))
            return self._opened[1]


def pack(splits: Splits, directory: str | Path, *, shard_megabytes: int = 256) -> Path:
    """Writes the splits of files as ArrayRecord shards and an index; `packed` gives the same splits.

    The bytes are those that the sources fetch: a TIFF becomes a PNG. Written beside and renamed, so that what stands
    at `directory` is whole. A broken picture is packed as it is. Raises DataError where something stands there
    already, or a file cannot be read.
    """
    target = expanded(directory)
    if target.exists():
        raise DataError(f"{target}: stands there already: name a new directory, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".part", dir=target.parent))
    whole = beside / "pack"  # mkdtemp keeps others out; who may read this one is the user's choice
    try:
        whole.mkdir()
        _write(splits, whole, shard_megabytes * 2**20)
        whole.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def packed(*, directory: str) -> Splits:
    """The splits that `pack` wrote, as `bigkeras pack` does; the examples, their order and classes are the source's.

    Raises DataError where the directory holds no index or not all of its files.
    """
    root = expanded(directory)
    try:
        index = json.loads((root / INDEX).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{root / INDEX}: cannot be read: {error.strerror}: wanted is what pack wrote") from None
    except ValueError:
        raise DataError(f"{root / INDEX}: not JSON: pack the data set again") from None
    if not isinstance(index, dict) or not {"version", "shards", "parts", "class_names"} <= index.keys():
        raise DataError(f"{root / INDEX}: not what pack wrote: pack the data set again")
    if index["version"] != VERSION:
        raise DataError(f"{root / INDEX}: version {index['version']}, not {VERSION}: pack the data set again")
    for name, size in index["shards"].items():
        found = (root / name).stat().st_size if (root / name).is_file() else None
        if found != size:
            told = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise DataError(f"{root / name}: {told}: pack the data set again")
    names = _names(root)
    sources: dict[str, RecordSource | None] = {"train": None, "validation": None, "test": None}
    start = 0
    for part in index["parts"]:
        try:
            labels = np.load(root / f"{part}_labels.npy")
        except NUMPY_BROKEN:
            raise DataError(f"{root / part}_labels.npy: missing or damaged: pack the data set again") from None
        sources[part] = RecordSource(root, list(index["shards"]), np.arange(start, start + len(labels)), labels, names)
        start += len(labels)
    if sources["train"] is None:
        raise DataError(f"{root / INDEX}: names no training part: pack the data set again")
    return Splits(sources["train"], sources["validation"], sources["test"], tuple(index["class_names"]))


def _write(splits: Splits, directory: Path, shard_bytes: int) -> None:
    from tqdm import tqdm

    parts: dict[str, Source] = {"train": splits.train}
    parts |= {k: s for k, s in (("validation", splits.validation), ("test", splits.test)) if s is not None}
    names: list[str] = []
    shards = _Shards(directory, shard_bytes)
    files = [path for source in parts.values() if isinstance(source, FileSource) for path in source.paths]
    folder = os.path.realpath(os.path.commonpath([os.path.dirname(os.fsdecode(path)) for path in files] or ["/"]))
    for part, source in parts.items():
        if source.batched:
            raise DataError(f"{source.name(0)}: arrays in memory are not packed: give a folder or a table of pictures")
        np.save(directory / f"{part}_labels.npy", np.asarray(source.labels, np.int32))
        for i in tqdm(range(len(source)), desc=f"pack {part}", unit="picture", disable=not sys.stderr.isatty()):
            shards.write(_bytes(source, i, folder))
            names.append(source.name(i))
    # Names as one blob and offsets: a million of them are mapped from the disk, not held.
    blob = [name.encode("utf-8", "backslashreplace") for name in names]
    (directory / "names.txt").write_bytes(b"".join(blob))
    np.save(directory / "names.npy", np.cumsum([0] + [len(b) for b in blob]).astype(np.int64))
    index = {"version": VERSION, "parts": list(parts), "shards": shards.close(), "class_names": splits.class_names}
    (directory / INDEX).write_text(json.dumps(index, ensure_ascii=False, indent=1), encoding="utf-8")


def _bytes(source: Source, index: int, folder: str) -> bytes:
    import tensorflow as tf

    try:
        return source.fetch(tf.constant(index, tf.int64))["image"].numpy()
    except (tf.errors.OpError, ValueError) as error:
        # A file that is not the picture it should be is packed as it is: training marks it bad, as it would the file.
        # But not what a link points at, or what lies behind one in the `folder` that holds the pictures: it may be
        # anything, and packs are passed on.
        path = Path(os.fsdecode(source.paths[index]) if isinstance(source, FileSource) else source.name(index))
        if path.is_symlink() or os.path.commonpath([folder, os.path.realpath(path)]) != folder:
            return b""
        if path.is_file() and os.access(path, os.R_OK):
            return path.read_bytes()
        from bigkeras.data.bad import short

        raise DataError(f"{source.name(index)}: cannot be packed: {short(str(error))}") from None


class _Shards:
    """Writes records to one file after another."""

    def __init__(self, directory: Path, shard_bytes: int):
        self.directory, self.shard_bytes = directory, shard_bytes
        self.names: list[str] = []
        self.writer: Any = None
        self.written = 0

    def write(self, record: bytes) -> None:
        """Appends a record; begins the next shard where this one is full."""
        from array_record.python.array_record_module import ArrayRecordWriter

        if self.writer is not None and self.written + len(record) > self.shard_bytes:
            self._end()
        if self.writer is None:
            self.names.append(f"pictures-{len(self.names):05d}.array_record")
            # One record a group: reading one example reads nothing else. Pictures are compressed already.
            self.writer = ArrayRecordWriter(str(self.directory / self.names[-1]), "group_size:1,uncompressed")
            self.written = 0
        with _told(self.directory / self.names[-1]):
            self.writer.write(record)
        self.written += len(record)

    def close(self) -> dict[str, int]:
        """The shards' names and sizes."""
        if self.writer is not None:
            self._end()
        return {name: (self.directory / name).stat().st_size for name in self.names}

    def _end(self) -> None:
        with _told(self.directory / self.names[-1]):
            self.writer.close()
        self.writer = None


def _names(root: Path) -> Callable[[int], str]:
    try:
        offsets = np.load(root / "names.npy", mmap_mode="r")
        blob = np.memmap(root / "names.txt", np.uint8, "r")
    except NUMPY_BROKEN as error:
        raise DataError(f"{root / 'names.npy'}: cannot be read: {error}: pack the data set again") from None
    return lambda record: bytes(blob[offsets[record] : offsets[record + 1]]).decode()


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raises DataError for what ArrayRecord raises where a file cannot be written, as on a full disk."""
    try:
        yield
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be written: {str(error).splitlines()[0]}") from None

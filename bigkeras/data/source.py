"""Sources: random access to raw examples, by index, inside tf.data. Nothing is decoded here."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np


class DataError(ValueError):
    """Data that cannot be used: one line that names the file, row or value and says what would be right."""


class Unsuited(DataError):
    """Data that a task cannot be fitted to; another may be."""


class Source(Protocol):
    """What every source offers; `fetch` is a graph function of an int64 index."""

    labels: np.ndarray
    batched: bool

    def __len__(self) -> int: ...
    def name(self, index: int) -> str: ...
    def fetch(self, index: Any) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Splits:
    """The parts of a data set, and lists of (name, reason): `bad` examples that could not be read, and files or pairs
    that were `ignored` since they are none. `languages`: of sentence pairs, from which to which; "" is not known.
    `found`: a line on what a source of one's own took for what. `unlabelled`: examples whose labels mean nothing.
    `read`: how many rows a file has, where some that were read well are in no split; 0 where all are.
    `labelled`: the part of `train` that has labels of its own, where a teacher's answers were added to it. `columns`:
    of a table, the names of the columns with texts and labels."""

    train: Source
    validation: Source | None
    test: Source | None
    class_names: tuple[str, ...]
    bad: tuple[tuple[str, str], ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    languages: tuple[str, str] = ("", "")
    found: str = ""
    read: int = 0
    unlabelled: "ArraySource | None" = None
    labelled: Source | None = None
    columns: tuple[str, ...] = ()


def ignored_line(splits: Splits) -> str:
    """How much was left out since it is no example, and the first of it with the reason."""
    name, why = splits.ignored[0]
    return f"{len(splits.ignored):,} left out that are no examples, the first {name}: {why}"


def left_out(splits: Splits, listed: str = "") -> list[str]:
    """Lines on what was found in data of one's own and how much of it is left out; `listed`: where all of that is."""
    lines = []
    if splits.found or splits.ignored:
        lines.append((splits.found or ignored_line(splits)) + (listed if splits.ignored else ""))
    if splits.bad:
        name, why = splits.bad[0]
        lines.append(f"{len(splits.bad):,} left out, the first {name}: {why}{listed}")
    return lines


def all_told(splits: Splits) -> Splits:
    """The same, with what was left out in `found`, too, where that says something."""
    both = splits.found and splits.ignored
    return replace(splits, found=f"{splits.found}; {ignored_line(splits)}") if both else splits


class ArraySource:
    """Examples in memory: columns of equal length, such as {"image": uint8 (n, height, width, channels)}."""

    batched = True

    def __init__(self, columns: Mapping[str, np.ndarray], labels: Sequence[int] | np.ndarray, names: Any = "example"):
        """`names`: a list with a name for every example, or one word for names such as train[17]."""
        self.columns = dict(columns)
        self.labels = np.asarray(labels, np.int32)
        self.names = names
        self._tensors: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"{self.names}[{index}]" if isinstance(self.names, str) else str(self.names[index])

    def fetch(self, index: Any) -> dict[str, Any]:
        """The columns at an index, or at many."""
        import tensorflow as tf

        if self._tensors is None:
            # On the host, and captured by reference: the graph holds no copy.
            with tf.init_scope(), tf.device("cpu"):
                self._tensors = {key: tf.constant(column) for key, column in self.columns.items()}
        return {key: tf.gather(tensor, index) for key, tensor in self._tensors.items()}

    def take(self, indices: Any) -> "ArraySource":
        """The source of some of its examples."""
        names = [self.name(i) for i in indices]
        return ArraySource({k: c[indices] for k, c in self.columns.items()}, self.labels[indices], names)


class FileSource:
    """Files, one example each: {column: the file's bytes}."""

    batched = False

    def __init__(
        self,
        paths: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        column: str = "image",
        transform: Callable[[Any], Any] | None = None,
    ):
        """`transform`: a graph function from the file's bytes to the column's value; None keeps the bytes."""
        # As bytes: a file's name need not be UTF-8.
        self.paths = np.asarray([os.fsencode(p) for p in paths], object)
        self.labels = np.asarray(labels, np.int32)
        self.column = column
        self.transform = transform
        self._tensor: Any = None

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return self.paths[index].decode("utf-8", "backslashreplace")

    def fetch(self, index: Any) -> dict[str, Any]:
        """The bytes of the file at an index, or what `transform` makes of them, under the column's name."""
        import tensorflow as tf

        if self._tensor is None:
            with tf.init_scope(), tf.device("cpu"):
                self._tensor = tf.constant(self.paths, tf.string)
        data = tf.io.read_file(tf.gather(self._tensor, index))
        return {self.column: self.transform(data) if self.transform else data}

    def take(self, indices: Any) -> "FileSource":
        """The source of some of its examples."""
        return FileSource(self.paths[indices], self.labels[indices], self.column, self.transform)


def all_learned(splits: Splits) -> Splits:
    """The splits with the validation examples among those to train on."""
    if splits.validation is None:
        return splits
    apart = replace(splits, test=None, validation=_every_pair(splits.validation))
    return replace(splits, train=joined(apart), validation=None)


def _every_pair(source: Source) -> Source:
    """Of sentences with several references, which scoring wants together, a row for each of them."""
    if not isinstance(source, ArraySource) or "references" not in source.columns:
        return source
    known = [text.split(b"\n") for text in source.columns["references"]]
    rows = np.repeat(np.arange(len(source)), [len(some) for some in known])
    pairs = source.take(rows)
    pairs.columns["target"] = np.array([text for some in known for text in some], object)
    del pairs.columns["references"]
    return pairs


def joined(splits: Splits) -> Source:
    """All examples of a data set: train, then validation, then test. Raises DataError where they cannot be joined."""
    parts = [part for part in (splits.train, splits.validation, splits.test) if part is not None and len(part)]
    if len(parts) == 1:
        return parts[0]
    labels = np.concatenate([part.labels for part in parts])
    arrays = [part for part in parts if isinstance(part, ArraySource)]
    files = [part for part in parts if isinstance(part, FileSource)]
    if len(arrays) == len(parts):
        names = [part.name(i) for part in arrays for i in range(len(part))]
        keys = [key for key in arrays[0].columns if key != "references"]
        columns = {key: np.concatenate([part.columns[key] for part in arrays]) for key in keys}
        if any("references" in part.columns for part in arrays):
            # Of a training pair one translation is known.
            known = [part.columns.get("references", part.columns["target"]) for part in arrays]
            columns["references"] = np.concatenate(known)
        return ArraySource(columns, labels, names)
    if len(files) == len(parts):
        paths = [path for part in files for path in part.paths]
        return FileSource(paths, labels, files[0].column, files[0].transform)
    raise DataError("the parts of packed data are not joined: name one of train, validation and test")

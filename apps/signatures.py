"""The signatures of a SavedModel, read from its protobuf file without TensorFlow and NumPy."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The numbers of tensorflow/core/framework/types.proto that artifacts use.
DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 7: "string", 9: "int64", 10: "bool"}
NUMBERS = {name: number for number, name in DTYPES.items()}


class ModelError(RuntimeError):
    """A SavedModel that cannot be found, loaded or run; one line that says why."""


@dataclass(frozen=True)
class Tensor:
    """A signature's input or output: its name in the graph, its dtype ("string", "float32", …) and its shape.

    `shape` holds None for a free size and is None itself where the rank is free.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """One function of a SavedModel: its inputs and outputs by name."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@contextlib.contextmanager
def readable(directory: Path) -> Iterator[Path]:
    """A path by which TensorFlow can read and write in a folder, until the context ends: a link, where its own is none.

    TensorFlow takes [ ] and \\ in the path of variables for a pattern, and no names that are not UTF-8.
    """
    whole = os.path.abspath(directory)
    if not set("[\\") & set(whole) and whole.isprintable():
        yield directory
        return
    place = tempfile.gettempdir()  # a batch system may name it so, too
    with tempfile.TemporaryDirectory(prefix="savedmodel-", dir="/tmp" if set("[\\") & set(place) else place) as folder:
        link = Path(folder, "link")
        link.symlink_to(whole, target_is_directory=True)
        yield link


def read_signatures(directory: Path) -> dict[str, Signature]:
    """The signatures in `directory/saved_model.pb`, read from the protobuf wire format without TensorFlow."""
    return read_graph(directory)[0]


def read_graph(directory: Path) -> tuple[dict[str, Signature], set[str]]:
    """The signatures, and the names of all operations that the graph and its functions use."""
    path = directory / "saved_model.pb"
    try:
        graphs = [value for field, value in fields(memoryview(path.read_bytes())) if field == 2]
        for graph in graphs:
            info = [tag for field, value in fields(graph) if field == 1 for tag in fields(value)]
            if any(field == 4 and bytes(tag) == b"serve" for field, tag in info):
                entries = [entry(value) for field, value in fields(graph) if field == 5]
                signatures = {key: _read_signature(value) for key, value in entries if not key.startswith("__")}
                definitions = [op for field, value in info if field == 2 for _, op in fields(value)]
                return signatures, {str(dict(fields(op))[1], "utf-8") for op in definitions}
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except (IndexError, KeyError, TypeError, UnicodeDecodeError):
        raise ModelError(f"{path}: damaged, or not a SavedModel") from None
    raise ModelError(f"{path}: holds no graph with the tag 'serve'")


def _read_signature(message: memoryview) -> Signature:
    tensors: dict[int, dict[str, Tensor]] = {1: {}, 2: {}}
    for field, value in fields(message):
        if field in tensors:
            key, tensor = entry(value)
            tensors[field][key] = _read_tensor(tensor)
    return Signature(tensors[1], tensors[2])


def _read_tensor(message: memoryview) -> Tensor:
    found = dict(fields(message))
    shape: list[int | None] | None = []
    for field, value in fields(found.get(3, memoryview(b""))):
        if field == 3 and value:
            shape = None
        elif field == 2 and shape is not None:
            size = dict(fields(value)).get(1, 0)
            shape.append(None if size >= 1 << 63 else size)  # -1 says "any"
    number = found.get(2, 0)
    return Tensor(str(found[1], "utf-8") if 1 in found else "", DTYPES.get(number, f"type {number}"),
                  None if shape is None else tuple(shape))  # fmt: skip


def entry(message: memoryview) -> tuple[str, memoryview]:
    """The key and the value of a protobuf map's entry."""
    found = dict(fields(message))
    return str(found.get(1, b""), "utf-8"), found.get(2, memoryview(b""))


def fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, int or memoryview) for each field of a protobuf message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(key & 7)
        if key & 7 == 2:
            size, at = _varint(message, at)
        if size is None or at + size > len(message):
            raise IndexError("not a protobuf message")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        if shift > 63:
            raise IndexError("not a protobuf message")
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def signature_named(signatures: Mapping[str, Signature], name: str) -> Signature:
    if name not in signatures:
        raise ModelError(f"signature {name!r} is not one of {', '.join(sorted(signatures))}")
    return signatures[name]


def one_line(message: str) -> str:
    """What went wrong, without the names of graph nodes and without a second line."""
    roots = re.search(r"root error\(s\) found\.\s*\(0\)\s*(?:[A-Z_]+: )?(.*)", message, re.DOTALL)
    text = re.sub(r"\{\{\w+ .*?\}\}\s*", "", roots[1] if roots else message)
    # Python TensorFlow puts the place in the program first.
    place = ("Graph execution error:", "Detected at node", "<stack traces unavailable>", " ", "\t")
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith(place)]
    line = " ".join(lines[0].split("[[")[0].split()) if lines else "no reason given"
    return re.sub(r"^assertion failed: \[([^]]*)\].*$", r"\1", line)

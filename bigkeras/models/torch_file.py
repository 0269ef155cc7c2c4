"""Reads the tensors of a PyTorch file without PyTorch, and without running what such a file could hold."""

import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

# The first value of a file of the old form (torch.save before 1.6): one pickle after another, then the storages.
MAGIC = 0x1950A86A20F9469CFC6C

# What damaged files raise.
BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, TypeError, AttributeError, IndexError, MemoryError,
    OverflowError, struct.error, AssertionError,
)  # fmt: skip

STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary, by name; the old pickled form and the zip form.

    A pickle may call any function. Here it may name an ordered dictionary, the rebuilding of a tensor and the storage
    types, nothing else: ValueError names what else it asked for, and the file. ValueError too for a file that is no
    state dictionary, or whose tensors reach beyond their storage.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            tensors, storages = _read_zip(file) if zipfile.is_zipfile(path) else _read_old(file)
        if not isinstance(tensors, dict) or not all(isinstance(t, _Tensor) for t in tensors.values()):
            raise ValueError("not a dictionary of tensors")
        arrays, told, held = {}, 0, sum(map(len, storages.values()))
        for name, tensor in tensors.items():
            arrays[str(name)] = tensor.array(storages)
            told += arrays[str(name)].nbytes
            if told > MOST_VIEWS * held:  # each is a copy
                raise ValueError(f"tensors of more than {MOST_VIEWS * held:,} bytes view storages of {held:,}")
        return arrays
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except BROKEN as e:
        raise ValueError(f"{path}: not a PyTorch state dictionary, or damaged ({type(e).__name__}: {e})") from None


MOST_VIEWS = 8  # tied weights are several views of one storage


class _Storage:
    """Where a tensor's numbers are: the key, the type of one number, how many."""

    def __init__(self, dtype: str, key: str, count: int):
        self.dtype, self.key, self.count = np.dtype(dtype), key, count


class _Tensor:
    """A view of a storage, before the storage is read: in the old form it follows the pickle."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self, storages: dict[str, bytes]) -> np.ndarray:
        """A copy of the numbers; a strided view is only made where it stays inside the storage."""
        numbers = np.frombuffer(storages[self.storage.key], self.storage.dtype)
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in steps)
        beyond = 0 not in self.shape and (last >= len(numbers) or math.prod(self.shape) > len(numbers))
        if min((self.offset, *self.shape, *self.strides)) < 0 or beyond:
            raise ValueError(f"a tensor of shape {self.shape} reaches beyond its storage of {len(numbers)} numbers")
        if 0 in self.shape:
            return np.zeros(self.shape, numbers.dtype)
        strides = tuple(stride * numbers.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides, writeable=False).copy()


def _rebuild_tensor(*args: Any) -> _Tensor:
    return _Tensor(*args)


class _TensorsOnly(pickle._Unpickler):  # type: ignore[name-defined]
    """Refuses every name but those of a state dictionary.

    Python's own, whose memo is a dictionary: of the one in C, nine bytes can ask for all memory.
    """

    def find_class(self, module: str, name: str) -> Any:
        """What the few names that a file of tensors needs stand for. Raises ValueError for any other."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise ValueError(f"refused: it asks for {module}.{name}, and a file of weights needs tensors only")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid[:5]
        if kind != "storage" or dtype not in STORAGES.values():
            raise ValueError(f"refused: a reference to {kind!r} of type {dtype!r}, not to a tensor's storage")
        return _Storage(dtype, str(key), int(count))


class _Remembering(_TensorsOnly):
    """Also remembers the storages, whose sizes the old form does not repeat."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        storage = super().persistent_load(pid)
        return self.storages.setdefault(storage.key, storage)


def _read_old(file: IO[bytes]) -> tuple[Any, dict[str, bytes]]:
    if _TensorsOnly(file).load() != MAGIC:
        raise ValueError("not a PyTorch file: the magic number is missing")
    _TensorsOnly(file).load()  # the protocol's version
    if not _TensorsOnly(file).load().get("little_endian", True):
        raise ValueError("written on a big-endian machine")
    unpickler = _Remembering(file)
    tensors = unpickler.load()
    storages = {}
    for key in _TensorsOnly(file).load():
        storage = unpickler.storages[key]
        count = int.from_bytes(_exactly(file.read, 8), "little")
        if count != storage.count:
            raise ValueError(f"a storage of {count} numbers, of which {storage.count} were told")
        storages[key] = _exactly(file.read, count * storage.dtype.itemsize)
    return tensors, storages


def _read_zip(file: IO[bytes]) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("a zip file without a data.pkl: not a PyTorch file")
        folder = names[0].removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed, as PyTorch writes none")
        with archive.open(names[0]) as pickled:
            unpickler = _Remembering(pickled)
            tensors = unpickler.load()
        return tensors, {key: archive.read(f"{folder}data/{key}") for key in unpickler.storages}


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    data = read(count)
    if len(data) != count:
        raise ValueError(f"cut short: {count} bytes expected, {len(data)} found")
    return data

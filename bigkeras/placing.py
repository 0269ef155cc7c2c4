"""Directories that appear whole, under their own name, or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import tensorflow as tf

from bigkeras.parity import ExportError
from bigkeras.run import readable


def new_place(directory: str | Path) -> Path:
    """Where a directory to export to lies, its links followed. Raises ExportError where nothing can get that name."""
    place = Path(os.path.realpath(directory))
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ExportError(f"{directory}: there already, and not empty; export to a new directory")
    if os.path.ismount(place) or place == Path.cwd():
        raise ExportError(f"{directory}: is mounted, or where you are, and cannot be replaced; export to a name in it")
    return place


@contextlib.contextmanager
def placed(directory: Path, contents: Mapping[str, bytes]) -> Iterator[Path]:
    """A directory beside `directory` with some files in it, that gets its name when all went well, or is removed.

    Raises ExportError where it cannot be written.
    """
    place = new_place(directory)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{place.name}-", suffix=".part", dir=place.parent))
    except OSError as error:
        raise ExportError(f"{directory}: cannot be written: {error.strerror}") from None
    written = beside
    try:
        for name, data in contents.items():
            (beside / name).write_bytes(data)
        with readable(beside) as written:
            yield written
        beside.chmod(0o777 & ~_umask())  # mkdtemp keeps others out
        _sync(beside)
        # An empty directory may stand there already.
        os.replace(beside, place)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise ExportError(f"{directory}: cannot be written: {error.strerror or error}") from None
        # What TensorFlow's writer raises names the file and, at its end, the system's reason.
        if isinstance(error, tf.errors.OpError) and str(written) in error.message:
            raise ExportError(f"{directory}: cannot be written: {error.message.rsplit('; ', 1)[-1]}") from None
        raise


def _sync(directory: Path) -> None:
    """Has all of it written to the disk, before a name says that it is whole."""
    for folder, _, files in os.walk(directory):
        for name in files:
            _sync_one(os.path.join(folder, name))
        with contextlib.suppress(OSError):  # shared folders and some networks' know no such thing of a folder
            _sync_one(folder)


def _sync_one(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """What files of this process may not be; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

"""Checkpoints: every variable of a run in one npz file, written beside and renamed. No pickle."""

import contextlib
import io
import json
import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigkeras.models.lora import merged
from bigkeras.run import RUN_LOCK

KEEP = 2
KEEP_BROKEN = 1
GOES_ON = "the training goes on"  # what is told of a write that fails and ends no run
# What reading bytes raises that are no checkpoint: cut off, of another kind, or changed on the disk.
BROKEN = (
    ValueError, LookupError, TypeError, EOFError, RuntimeError, OverflowError, SyntaxError,
    struct.error, zlib.error, zipfile.BadZipFile, tokenize.TokenError,
)  # fmt: skip


class CheckpointError(OSError):
    """A checkpoint that cannot be written; the last good one is still there."""


class NotFinite(ValueError):
    """Weights with NaN or infinity, which are not saved over good ones."""


@dataclass(frozen=True)
class Position:
    """Where a run stands: `step` steps of epoch `epoch` are done; `history` has a dict for every finished epoch.

    `examples`: how many the plan of its epochs was made of; 0 in checkpoints of earlier versions.
    """

    epoch: int = 0
    step: int = 0
    history: tuple[dict[str, Any], ...] = ()
    bad: dict[str, str] = field(default_factory=dict)
    examples: int = 0


def values(variables: Sequence[Any]) -> dict[str, np.ndarray]:
    """The variables' values under their numbered names. Raises NotFinite. Every worker must call it.

    Reading a metric sums it over the replicas, those of other workers too.
    """
    arrays = {f"{i:05d} {v.path}": np.asarray(v.numpy()) for i, v in enumerate(variables)}
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NotFinite(name.split(" ", 1)[1])
    return arrays


def check_there(run_dir: Path) -> None:
    """Raises CheckpointError where a run directory is gone: what were written to one made anew could not go on.

    And where another process has begun a run there since, whose checkpoints would be taken for older ones.
    """
    if not (run_dir / "recipe.json").exists():
        raise CheckpointError(f"{run_dir}: cannot be written: its recipe.json is gone; was the run directory moved?")
    holder = ""
    with contextlib.suppress(OSError):
        holder = (run_dir / RUN_LOCK).read_text(encoding="utf-8").strip()
    if holder not in ("", str(os.getpid())):
        raise CheckpointError(f"{run_dir}: cannot be written: process {holder} has begun a run there since")


def save(directory: Path, position: Position, total_steps: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes step-<total_steps>.npz, with what `values` gave, and removes what is older than the last KEEP.

    What a killed process has left half written goes, too, and of the files that were broken all but the last.
    Raises CheckpointError.
    """
    state = np.frombuffer(json.dumps(asdict(position)).encode(), np.uint8)
    path = directory / f"step-{total_steps:08d}.npz"
    beside = path.with_suffix(".part")
    try:
        directory.mkdir(exist_ok=True)
        with open(beside, "wb") as file:
            named: dict[str, Any] = {f"v{name}": array for name, array in arrays.items()}
            np.savez(file, position=state, **named)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: the checkpoint cannot be written: {error.strerror or error}; the last good one stays"
        ) from None
    old = [*_found(directory)[KEEP:], *_found(directory, ".npz.broken")[KEEP_BROKEN:], *_found(directory, ".part")]
    for path in old:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be removed: {error.strerror or error}") from None


def restore(
    directory: Path, variables: Sequence[Any], told: Callable[[bytes], bytes] = bytes, chief: bool = True
) -> tuple[Position, list[str]] | None:
    """Sets the variables from the newest checkpoint that can be read; also the names of broken ones passed over.

    The chief alone reads, and `told` gives every worker its bytes. None where there is no checkpoint. Broken ones are
    kept under another name, or they would stand in the place of the next ones. Raises CheckpointError if the variables
    are not those of the checkpoint, and, on every worker, where none can be read.
    """
    data, failed = b"", ""
    broken: list[str] = []
    if chief:
        try:
            data, broken = _newest(directory)
        except CheckpointError as error:
            failed = str(error)
    failed = told(failed.encode()).decode()
    if failed:
        raise CheckpointError(failed)
    data = told(data)
    if not data:
        return None
    position, arrays = _read(data)
    shapes = [tuple(v.shape) for v in variables]
    if [a.shape for a in arrays] != shapes:
        raise CheckpointError(
            f"{directory}: holds {len(arrays)} variables, and this run has {len(shapes)}, of other shapes: of another "
            "model, begun on Keras' other backend (KERAS_BACKEND), or by an earlier version"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return replace(position, history=tuple(position.history)), broken


def hand_out(variables: Sequence[Any], told: Callable[[bytes], bytes], chief: bool) -> None:
    """Sets the variables to the chief's values on every worker, to which `told` gives the bytes.

    What each has copied, as from another file of that name, or worked out may differ, and no step would mend it.
    """
    held, own = io.BytesIO(), values(variables)
    if chief:
        named: dict[str, Any] = {f"v{name}": array for name, array in own.items()}
        np.savez(held, **named)
    with np.load(io.BytesIO(told(held.getvalue())), allow_pickle=False) as file:
        for variable, name in zip(variables, sorted(file.files), strict=True):
            variable.assign(file[name])


def _newest(directory: Path) -> tuple[bytes, list[str]]:
    """The newest checkpoint that can be read, and what was passed over; no bytes where there is none.

    What holds no checkpoint is renamed; what the system would not read (a disk or a network that fails) is left where
    it is, since it may be good.
    """
    broken, unread = [], []
    for path in _found(directory):
        try:
            data = path.read_bytes()
        except OSError as error:
            unread.append(f"{path.name} ({error.strerror or error})")
            continue
        try:
            _read(data)
        except MemoryError:
            unread.append(f"{path.name} (too little memory, or damaged)")
            continue
        except BROKEN:
            broken.append(path.name)
            with contextlib.suppress(OSError):
                path.replace(path.with_name(f"{path.name}.broken"))
            continue
        return data, unread + broken
    if unread:
        raise CheckpointError(
            f"{directory}: no checkpoint can be read: {', '.join(unread + broken)}; try again when they can be, "
            "or move them away to begin anew"
        )
    if broken:
        raise CheckpointError(
            f"{directory}: no checkpoint can be read: {', '.join(broken)}, now kept as .broken; "
            "the same command begins anew"
        )
    return b"", []


def _read(data: bytes) -> tuple[Position, list[np.ndarray]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        position = Position(**json.loads(bytes(file["position"]).decode()))
        return position, [file[name] for name in sorted(n for n in file.files if n != "position")]


def _found(directory: Path, ending: str = ".npz") -> list[Path]:
    """Checkpoints, or what else of them has this ending, the newest first."""
    try:
        return sorted((p for p in directory.iterdir() if re.fullmatch(rf"step-\d+{ending}", p.name)), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be read: {error.strerror or error}") from None


def write_model(network: keras.Model, path: Path) -> None:
    """The network as `.keras`, written beside and renamed. Raises CheckpointError."""
    check_there(path.parent)
    beside = path.with_suffix(".part.keras")
    try:
        merged(network).save(beside)
        with open(beside, "rb") as written:
            os.fsync(written.fileno())  # before a checkpoint may name it as the best
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from None

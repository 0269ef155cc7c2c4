"""Checkpoints: every variable of a run in one npz file, written beside and renamed. No pickle."""

import contextlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

KEEP = 2


class CheckpointError(OSError):
    """A checkpoint that cannot be written; the last good one is still there."""


class NotFinite(ValueError):
    """Weights with NaN or infinity, which are not saved over good ones."""


@dataclass(frozen=True)
class Position:
    """Where a run stands: `step` steps of epoch `epoch` are done; `history` has a dict for every finished epoch."""

    epoch: int = 0
    step: int = 0
    history: tuple[dict[str, Any], ...] = ()
    bad: dict[str, str] = field(default_factory=dict)


def values(variables: Sequence[Any]) -> dict[str, np.ndarray]:
    """The variables' values under their numbered names. Raises NotFinite. Every worker must call it.

    Reading a metric sums it over the replicas, those of other workers too.
    """
    arrays = {f"{i:05d} {v.path}": np.asarray(v.numpy()) for i, v in enumerate(variables)}
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NotFinite(name.split(" ", 1)[1])
    return arrays


def save(directory: Path, position: Position, total_steps: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes step-<total_steps>.npz, with what `values` gave, and removes all but the last KEEP."""
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
    for old in _found(directory)[KEEP:]:
        old.unlink(missing_ok=True)


def restore(
    directory: Path, variables: Sequence[Any], told: Callable[[bytes], bytes] = bytes
) -> tuple[Position, list[str]] | None:
    """Sets the variables from the newest checkpoint that can be read; also the names of broken ones passed over.

    `told` gives every worker the bytes that the chief has read. None where there is no checkpoint. Broken ones are kept
    under another name, or they would stand in the place of the next ones. Raises ValueError if the variables are not
    those of the checkpoint, and CheckpointError where all are broken.
    """
    data, broken = _newest(directory)
    for name in broken:
        with contextlib.suppress(OSError):
            (directory / name).replace(directory / f"{name}.broken")
    if broken and not data:
        raise CheckpointError(
            f"{directory}: no checkpoint can be read: {', '.join(broken)}, now kept as .broken; "
            "the same command begins anew"
        )
    data = told(data)
    if not data:
        return None
    position, arrays = _read(data)
    shapes = [tuple(v.shape) for v in variables]
    if [a.shape for a in arrays] != shapes:
        raise ValueError(f"{directory}: holds {len(arrays)} variables of another model; it has {len(shapes)}")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return Position(position.epoch, position.step, tuple(position.history), position.bad), broken


def _newest(directory: Path) -> tuple[bytes, list[str]]:
    """The newest checkpoint that can be read, and the names of those passed over; no bytes where there is none."""
    broken = []
    for path in _found(directory):
        try:
            data = path.read_bytes()
            _read(data)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            broken.append(path.name)
            continue
        return data, broken
    return b"", broken


def _read(data: bytes) -> tuple[Position, list[np.ndarray]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        position = Position(**json.loads(bytes(file["position"]).decode()))
        return position, [file[name] for name in sorted(n for n in file.files if n != "position")]


def _found(directory: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if re.fullmatch(r"step-\d+\.npz", p.name)), reverse=True)

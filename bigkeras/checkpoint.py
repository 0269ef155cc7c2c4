"""Checkpoints: every variable of a run in one npz file, written beside and renamed. No pickle."""

import json
import os
import re
import zipfile
from collections.abc import Sequence
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


def save(directory: Path, position: Position, total_steps: int, variables: Sequence[Any]) -> Path:
    """Writes step-<total_steps>.npz and removes all but the last KEEP."""
    arrays = {f"{i:05d} {v.path}": np.asarray(v.numpy()) for i, v in enumerate(variables)}
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NotFinite(name.split(" ", 1)[1])
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
        beside.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: the checkpoint cannot be written: {error.strerror}; the last good one stays"
        ) from None
    for old in _found(directory)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def restore(directory: Path, variables: Sequence[Any]) -> tuple[Position, list[str]] | None:
    """Sets the variables from the newest checkpoint that can be read; also the names of broken ones passed over.

    None where there is none. Raises ValueError if the variables are not those of the checkpoint.
    """
    broken = []
    for path in _found(directory):
        try:
            with np.load(path, allow_pickle=False) as data:
                position = Position(**json.loads(bytes(data["position"]).decode()))
                arrays = [data[name] for name in sorted(n for n in data.files if n != "position")]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            broken.append(path.name)
            continue
        shapes = [tuple(v.shape) for v in variables]
        if [a.shape for a in arrays] != shapes:
            raise ValueError(f"{path}: holds {len(arrays)} variables of another model; it has {len(shapes)}")
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return Position(position.epoch, position.step, tuple(position.history), position.bad), broken
    return None


def _found(directory: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if re.fullmatch(r"step-\d+\.npz", p.name)), reverse=True)

"""Which examples a split has: so that a changed table or folder is not taken for the one that was learned from."""

import hashlib
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from bigkeras.data.source import ArraySource, Source, Splits

PARTS = ("train", "validation", "test")
DATA_FILE = "data.json"  # of a run directory: what `fingerprints` gave when it began
COLUMNS = "columns"  # there: what the columns of texts and labels are called


def fingerprints(splits: Splits, *names: str) -> dict[str, dict[str, Any]]:
    """Of every split, or of those that are named, `examples` and `sha256`; the same wherever the data lies."""
    parts = {name: getattr(splits, name) for name in names or PARTS}
    return {name: fingerprint(source) for name, source in parts.items() if source is not None}


def fingerprint(source: Source) -> dict[str, Any]:
    """How many examples a source has, and a hash of labels and values; of what is not in memory, of names."""
    seen = hashlib.sha256(np.asarray(source.labels, np.int64).tobytes())
    if isinstance(source, ArraySource):
        for key in sorted(source.columns):
            _add(seen, source.columns[key])
    else:
        paths = (PurePosixPath(source.name(i)) for i in range(len(source)))
        _add(seen, np.array(["/".join(path.parts[-2:]).encode() for path in paths], object))
    return {"examples": len(source), "sha256": seen.hexdigest()}


def other_data(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first split of `now` that `before` has otherwise, in words; "" where there is none."""
    for name, values in now.items():
        known = before.get(name)
        if known is not None and known != values:
            counts = [f"{v['examples']:,}" for v in (known, values)]
            return f"{name}: {counts[0]} examples then, {counts[1] if counts[0] != counts[1] else 'others'} now"
    return ""


def _add(seen: Any, column: np.ndarray) -> None:
    if column.dtype != object:
        seen.update(np.ascontiguousarray(column))
        return
    for value in column:
        data = value if isinstance(value, bytes) else str(value).encode()
        seen.update(len(data).to_bytes(8, "little"))
        seen.update(data)

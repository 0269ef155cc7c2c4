"""Tasks: what a raw example and an answer are."""

import json
from pathlib import Path

from bigkeras.tasks.classification import LOSSES, TASKS
from bigkeras.tasks.images import ImagePreprocessor

__all__ = ["LOSSES", "TASKS", "ImagePreprocessor", "load_preprocessor"]


def load_preprocessor(run_dir: str | Path) -> ImagePreprocessor:
    """The preprocessor of a run directory or a shipped model's folder."""
    values = json.loads((Path(run_dir) / "preprocessor.json").read_text(encoding="utf-8"))
    kinds = {"image": ImagePreprocessor}
    return kinds[values.pop("kind")].from_json(values)

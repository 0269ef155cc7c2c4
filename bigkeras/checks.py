"""What is looked at before a run trains: its recipe, its data, its directory, its workers."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bigkeras.data import DATASETS
from bigkeras.data.fingerprint import DATA_FILE, fingerprints, other_data
from bigkeras.data.source import DataError, Splits
from bigkeras.models import MODELS
from bigkeras.optimization import OPTIMIZERS, OURS, SCHEDULES
from bigkeras.recipe import Recipe, RecipeError, check, known
from bigkeras.run import RunError, read_json, write_json
from bigkeras.search import check_auto
from bigkeras.tasks import LOSSES, MODEL_ARGUMENTS, MONITORS, TASKS, check_augmentation
from bigkeras.workers import Workers

AUTO = "auto"


def check_recipe(recipe: Recipe, model: Callable | None = None) -> None:
    """Raises RecipeError for any name or argument that nothing would take."""
    check("data", recipe.data, DATASETS)
    check("task", recipe.task, TASKS, given=("splits", "augmentation"))
    if recipe.model.name == AUTO and model is None:
        check_auto(recipe)
    else:
        models = {recipe.model.name: model} if model else MODELS
        check("model", recipe.model, models, given=MODEL_ARGUMENTS)
    check("loss", recipe.loss, LOSSES[recipe.task.name])
    check("optimizer", recipe.optimizer, OPTIMIZERS, given=OURS)
    check("schedule", recipe.schedule, SCHEDULES)
    check_augmentation(recipe.task.name, recipe.augmentation)
    known("monitor", recipe.monitor, MONITORS[recipe.task.name])
    if recipe.lora and not recipe.start_from and model is None:
        raise RecipeError(f"lora={recipe.lora}: updates weights that are trained already: say start_from, too")
    if recipe.task.name in ("translation", "masked_language_model") and recipe.balance != "none":
        raise RecipeError(f"balance={recipe.balance}: {recipe.task.name} has no classes to balance")


def check_data(directory: Path, recipe: Recipe, splits: Splits) -> None:
    """Notes which examples a run has; raises RunError where it has learned from others."""
    found = fingerprints(splits)
    if recipe.teacher:
        del found["train"]  # its labels are the teacher's
    path = directory / DATA_FILE
    changed = other_data(read_json(path), found) if path.exists() else ""
    if changed and any(_learned(place) for place in (directory, *directory.glob("candidates/*"))):
        raise RunError(f"{directory}: its data has changed since it began ({changed}); take another --run-dir")
    write_json(path, found)


def _learned(directory: Path) -> bool:
    return (directory / "best.keras").exists() or any(directory.glob("checkpoints/*.npz"))


def check_alike(workers: Workers, recipe: Recipe, splits: Splits) -> None:
    """Raises an error on every worker if one of them has another recipe, or other data, than the chief."""
    labels = hashlib.sha256(np.asarray(splits.train.labels, np.int64).tobytes()).hexdigest()
    mine = [recipe.to_json(), labels]
    theirs = workers.by_chief(lambda: mine)
    differing = workers.sums([mine[0] != theirs[0], mine[1] != theirs[1]])
    if differing[0]:
        raise RecipeError(f"{differing[0]:g} of {workers.count} workers have another recipe than the chief")
    if differing[1]:
        raise DataError(f"{differing[1]:g} of {workers.count} workers have other training data than the chief")


def check_apart(recipe: Recipe, directory: Path) -> None:
    """Raises RecipeError for a run inside a folder whose sub-folders are classes: it would be one of them."""
    data = recipe.data.args.get("directory") if recipe.data.name.endswith("_folder") else None
    if data and Path(data).resolve() in (directory.resolve(), *directory.resolve().parents):
        raise RecipeError(f"{directory}: lies in {data}, whose sub-folders are classes: take another --run-dir")


def check_monitor(recipe: Recipe, splits: Splits) -> None:
    """Raises RecipeError where there is no score that could tell the best epoch, or that `patience` could wait for."""
    if splits.validation is None and recipe.patience is not None:
        made = "learn_validation=false leaves" if recipe.learn_validation else "data.validation=0.1 makes"
        raise RecipeError(f"patience={recipe.patience}: needs a validation split; --set {made} one")
    if splits.validation is not None and recipe.monitor == "val_top5_accuracy" and len(splits.class_names) <= 5:
        raise RecipeError(
            f"monitor={recipe.monitor}: is measured with more than 5 classes; there are {len(splits.class_names)}"
        )

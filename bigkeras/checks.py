"""What is looked at before a run trains: its recipe, its data, its directory, its workers."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigkeras.data import DATASETS
from bigkeras.data.files import expanded
from bigkeras.data.fingerprint import COLUMNS, DATA_FILE, PARTS, other_data
from bigkeras.data.source import DataError, Source, Splits
from bigkeras.models import MODELS
from bigkeras.optimization import OPTIMIZERS, OURS, SCHEDULES
from bigkeras.origin import origin_folder
from bigkeras.recipe import HELD_OUT, PLACES, Recipe, RecipeError, check, known, load
from bigkeras.run import EARLIER_RUNS, RunError, has_learned, read_json, same_data, unfinished, whole_data, write_json
from bigkeras.search import check_auto
from bigkeras.tasks import LOSSES, MODEL_ARGUMENTS, MONITORS, TASKS, check_augmentation
from bigkeras.tasks.task import Task
from bigkeras.workers import Workers, addresses

AUTO = "auto"
PARTING = ("seed", "validation", "test", "limit_train", *HELD_OUT)  # arguments of data


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
    if recipe.teacher_sure != Recipe.teacher_sure and (recipe.teacher is None or recipe.task.name == "translation"):
        raise RecipeError(f"teacher_sure={recipe.teacher_sure}: of a teacher of examples without labels; there is none")
    if recipe.score_every != Recipe.score_every and recipe.task.name != "translation":
        raise RecipeError(f"score_every={recipe.score_every}: of translations; {recipe.task.name} is scored each epoch")
    if recipe.back_translator and recipe.task.name != "translation":
        raise RecipeError(f"back_translator={recipe.back_translator}: for sentence pairs, not for {recipe.task.name}")
    if recipe.task.name in ("translation", "masked_language_model") and recipe.balance != "none":
        raise RecipeError(f"balance={recipe.balance}: {recipe.task.name} has no classes to balance")


Found = dict[str, dict[str, Any]]  # what `fingerprints` gives


def check_data(directory: Path, recipe: Recipe, found: Found, columns: Sequence[str] = ()) -> None:
    """Notes which examples a run has, and `columns`; raises RunError where it has learned from other examples."""
    if recipe.teacher and recipe.task.name != "translation":
        # Its labels are the teacher's: what learns from it goes on with the same ones, and scores need none.
        found = {"taught" if part == "train" else part: values for part, values in found.items()}
    path = directory / DATA_FILE
    changed = other_data(read_json(path), found) if path.exists() else ""
    if changed and has_learned(directory):
        raise RunError(
            f"{directory}: its data has changed since it began ({changed}), or this version parts it otherwise; take "
            "another --run-dir"
        )
    write_json(path, {**found, **({COLUMNS: columns} if columns else {})})


def check_kept(directory: Path, files: Mapping[str, bytes]) -> None:
    """Raises RunError where a run has learned with another vocabulary, or other statistics, than were found now."""
    for name, data in files.items() if has_learned(directory) else ():
        path = directory / name
        if name.startswith("examples/") or not path.is_file():
            continue
        try:
            alike = _alike(name, path.read_bytes(), data)
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None
        if not alike:
            raise RunError(
                f"{directory}: its {name} would be another one now, since what it starts from, a package or "
                "bigkeras has changed since it began; take another --run-dir"
            )


def _alike(name: str, before: bytes, now: bytes) -> bool:
    """Whether two versions of a file say the same; of JSON as far as both say it, and numbers to rounding."""
    if before == now or not name.endswith(".json"):
        return before == now
    one, other = json.loads(before), json.loads(now)
    if "folded" in other:
        one.setdefault("folded", True)  # what runs of before did, and did not say
    return all(_close(one[key], other[key]) for key in one.keys() & other.keys())


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return all(map(_close, one, other))
    both = isinstance(one, float) and isinstance(other, float)
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-4) if both else one == other


def known_before(recipe: Recipe, found: Found) -> list[str]:
    """Lines on earlier runs that this one learns from: one has not ended, or may know what is held out here."""
    lines = []
    held = {part: values for part, values in found.items() if part != "train"}
    for setting in EARLIER_RUNS:
        named = getattr(recipe, setting)
        folder = origin_folder(expanded(named)) if named else None
        if not folder or not (folder / "recipe.json").is_file():
            continue
        if told := unfinished(folder):
            lines.append(f"{setting}: {told}")
        earlier = load(folder)
        if not (folder / DATA_FILE).is_file():  # some shipped models have none
            if same_unparted(earlier, recipe) and not same_data(earlier, recipe):
                told = f"{setting}={named}: learned from this data, which was perhaps parted otherwise"
                lines.append(f"{told}: what it knows of what is held out here makes scores too good")
            continue
        before = read_json(folder / DATA_FILE)
        if setting != "start_from" and recipe.task.name == "translation" and not same_data(earlier, recipe):
            continue  # which is said where it is opened
        same = same_unparted(earlier, recipe) or any(before.get(part) == values for part, values in found.items())
        others = [part for part, values in held.items() if before.get(part) != values]
        if earlier.learn_validation and "validation" in held and not others:
            others = ["validation"]
        if same and others:
            told = f"{setting}={named}: learned from this data, parted otherwise"
            lines.append(f"{told}: what it knows of the {' and '.join(others)} split here makes scores too good")
    return lines


def same_unparted(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes say the same of their data but how it is parted."""
    first, second = ({k: v for k, v in whole_data(recipe).items() if k not in PARTING} for recipe in (one, other))
    return one.data.name == other.data.name and first == second


def check_alike(workers: Workers, recipe: Recipe, found: Found) -> None:
    """Raises an error on every worker if one of them has another recipe, or other data, than the chief."""
    theirs = workers.by_chief(lambda: _said(recipe))
    problem = _first_problem(workers, "another recipe than the chief" if _said(recipe) != theirs else "")
    if problem:
        raise RecipeError(problem)
    _check_same(workers, found)


def _said(recipe: Recipe) -> str:
    """What workers have to have alike: of the data and the vocabulary what they are, not where they lie."""
    settings: dict[str, Any] = {"claim": "", **{f"data.{name}": None for name in PLACES if name in recipe.data.args}}
    words = recipe.task.args.get("vocabulary")
    if isinstance(words, str):
        place = expanded(words)
        settings["task.vocabulary"] = hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else place.name
    # Paths that were made whole on each machine; what lies there is compared by `check_prepared`.
    named = {setting: getattr(recipe, setting) for setting in EARLIER_RUNS}
    settings |= {setting: Path(value).name for setting, value in named.items() if value}
    return recipe.override(**settings).to_json()


def check_left(workers: Workers, splits: Splits) -> None:
    """Raises DataError on every worker if one of them learns from other examples than the chief.

    One that cannot read a file leaves it out: it would make other steps than the others.
    """
    if workers.count > 1:  # names take a second a million
        parts = {part: getattr(splits, part) for part in ("train", "validation")}
        _check_same(workers, {part: _names_of(source) for part, source in parts.items() if source is not None})


def check_prepared(workers: Workers, task: Task, splits: Splits) -> None:
    """Raises DataError on every worker if one of them has another vocabulary, or other statistics, than the chief.

    As where the run that `start_from` names is another one there.
    """
    if workers.count == 1:
        return
    files = {name: data for name, data in task.files(splits).items() if not name.startswith("examples/")}
    said = {n: d.decode() if n.endswith(".json") else hashlib.sha256(d).hexdigest() for n, d in files.items()}
    theirs = workers.by_chief(lambda: said)
    other = [n for n in said if n not in theirs or not _alike(n, theirs[n].encode(), said[n].encode())]
    problem = _first_problem(workers, f"another {other[0]} than the chief: what does it start from?" if other else "")
    if problem:
        raise DataError(problem)


def _check_same(workers: Workers, found: Found) -> None:
    theirs = workers.by_chief(lambda: found)
    problem = ""
    for part in PARTS:
        if found.get(part) != theirs.get(part):
            mine, chiefs = (f"{values.get(part, {}).get('examples', 0):,}" for values in (found, theirs))
            problem = f"{part}: {mine} examples, and the chief {chiefs if chiefs != mine else 'others'}"
            break
    problem = _first_problem(workers, problem and f"other data than the chief ({problem})")
    if problem:
        raise DataError(problem)


def _names_of(source: Source) -> dict[str, Any]:
    """How many examples a source has, and a hash of their labels and of their names, wherever they lie.

    Not of their pixels, which another processor may round otherwise.
    """
    seen = hashlib.sha256(np.asarray(source.labels, np.int64).tobytes())
    for i in range(len(source)):
        seen.update(source.name(i).rpartition("/")[2].encode("utf-8", "backslashreplace") + b"\n")
    return {"examples": len(source), "sha256": seen.hexdigest()}


def _first_problem(workers: Workers, problem: str) -> str:
    """On every worker, what the first of them that has a problem has, and which one it is; "" where none has any."""
    having = workers.sums([float(bool(problem) and number == workers.index) for number in range(workers.count)])
    first = next((number for number, has in enumerate(having) if has), None)
    if first is None:
        return ""
    told = workers.told(problem.encode(), first).decode()
    return f"worker {first} ({addresses(workers)[first]}) has {told}"


def check_apart(recipe: Recipe, directory: Path) -> None:
    """Raises RecipeError for a run inside the folder that it learns from: it would be a class, or its report a text."""
    args, folder = recipe.data.args, recipe.data.name.endswith("_folder")
    data = args.get("directory") if folder else args.get("file") if recipe.data.name == "plain_text" else None
    if data and Path(data).resolve() in (directory.resolve(), *directory.resolve().parents):
        told = "whose sub-folders are classes" if folder else "whose text files it learns from"
        raise RecipeError(f"{directory}: lies in {data}, {told}: take another --run-dir")


def check_monitor(recipe: Recipe, splits: Splits) -> None:
    """Raises RecipeError where there is no score that could tell the best epoch, or that `patience` could wait for."""
    if splits.validation is None and recipe.patience is not None:
        made = "learn_validation=false leaves" if recipe.learn_validation else "data.validation=0.1 makes"
        raise RecipeError(f"patience={recipe.patience}: needs a validation split; --set {made} one")
    if splits.validation is not None and recipe.monitor == "val_top5_accuracy" and len(splits.class_names) <= 5:
        raise RecipeError(
            f"monitor={recipe.monitor}: is measured with more than 5 classes; there are {len(splits.class_names)}"
        )

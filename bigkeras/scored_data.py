"""Which data `evaluate` scores a model on: its own, if that has not changed, or another table, folder or file."""

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bigkeras.data import DATASETS
from bigkeras.data.files import expanded
from bigkeras.data.fingerprint import COLUMNS, DATA_FILE, fingerprints, other_data
from bigkeras.data.label_names import tidy, whole_number
from bigkeras.data.pair_splits import all_pairs
from bigkeras.data.source import ArraySource, DataError, Source, Splits, joined
from bigkeras.recipe import HELD_OUT, Recipe, RecipeError, check
from bigkeras.recipe_data import absolute_data, recipe_splits, with_data
from bigkeras.run import RunError, read_json, same_place

# Data of one's own that a model of a task can be scored on, whatever it was trained on.
OWN: dict[str, tuple[str, ...]] = {
    "image_classification": ("image_folder", "image_table", "packed"),
    "text_classification": ("text_table", "text_folder"),
    "translation": ("translation_pairs", "aligned_files", "tmx"),
    "masked_language_model": ("plain_text",),
}


def chosen_source(path: Path, recipe: Recipe, split: str, elsewhere: bool) -> tuple[Recipe, Splits, Source]:
    """The recipe, its splits and what of them is scored. `elsewhere`: at another place than the run's own data.

    Such data is split as if validation had not been learned, unless it is known. Raises RunError for no such split.
    """
    splits = recipe_splits(recipe)
    if elsewhere and recipe.learn_validation and not _is_known(path, splits):
        recipe = replace(recipe, learn_validation=False)
        splits = recipe_splits(recipe)
    source = _all(splits) if split == "all" else getattr(splits, split)
    if source is None and split == "validation" and recipe.learn_validation:
        raise RunError(f"{path}: has learned from its validation split, which says nothing of it; name another")
    if source is None or not len(source):
        there = [part for part in ("test", "validation", "train") if getattr(splits, part) is not None]
        told = f"--split {' or '.join(there)} scores, or --data OTHER --split all"
        raise RunError(f"{path}: its data, {recipe.data.name}, has no {split} split: {told}")
    return recipe, splits, source


def part_told(path: Path, recipe: Recipe, splits: Splits, split: str, source: Source) -> str:
    """Of own data that the run does not know, and of which a part alone is scored: how much that is; else nothing."""
    whole = sum(len(part or ()) for part in (splits.train, splits.validation, splits.test))
    own = recipe.data.name in OWN[recipe.task.name] and recipe.data.name != "packed"
    if split == "all" or len(source) == whole or not own or _is_known(path, splits):
        return ""
    return f"{len(source):,} of {whole:,} are scored, the {split} part; --split all scores every one"


def asked_recipe(recipe: Recipe, data: str | None, settings: Mapping[str, Any], split: str) -> Recipe:
    """The recipe on the data that is to be scored. Raises RecipeError for what is not said right."""
    for key in settings:
        if key != "data" and not key.startswith("data."):
            raise RecipeError(f"--set {key}: of a trained model, arguments of the data alone, such as data.label=stars")
    if "data" in settings:
        asked = recipe.override(data=settings["data"])
        if recipe.data.name != asked.data.name and asked.data.name not in OWN[recipe.task.name]:
            told = f"a model of {recipe.task.name} can be scored on {', '.join(OWN[recipe.task.name])}"
            raise RecipeError(f"--set data={asked.data.name}: {told}, or its own data")
        recipe = asked
        settings = {key: value for key, value in settings.items() if key != "data"}
    elsewhere = data or settings.get("data.file") or settings.get("data.directory")
    if elsewhere and "target_file" in recipe.data.args and "data.target_file" not in settings:
        raise RecipeError(f"--data {elsewhere}: of two aligned files; say --set data.target_file=FILE, too")
    if elsewhere and f"{split}_file" in recipe.data.args and f"data.{split}_file" not in settings:
        told = f"the run's {split} pairs lie in a file of their own; say --set data.{split}_file=FILE, or --split all"
        raise RecipeError(f"--data {elsewhere}: {told}")
    if elsewhere:  # the files of what was held out belong to the place before
        files = [elsewhere, *filter(None, [settings.get("data.target_file")])]
        other = "encoding" in recipe.data.args and all(map(_is_utf8, files))
        gone = (*HELD_OUT, "encoding") if other else HELD_OUT
        if split == "all":  # whatever part of its own data a row is of; null stays, where "split" is something else
            gone = (*gone, *(name for name in ("split", "split_column") if recipe.data.args.get(name) is not None))
        args = {name: value for name, value in recipe.data.args.items() if name not in gone}
        recipe = replace(recipe, data=replace(recipe.data, args=args))
    asked = absolute_data(with_data(recipe, data).override(**settings))
    check("data", asked.data, DATASETS)
    if not same_place(asked, recipe) and "limit_train" in asked.data.args and "data.limit_train" not in settings:
        # It was to make training short.
        asked = asked.override(**{"data.limit_train": None})
    return asked


def _is_utf8(path: Any) -> bool:
    """Whether a file is UTF-8 and more than ASCII: bytes in another encoding are so by hardly any chance."""
    if not isinstance(path, str):  # which is told later
        return False
    try:
        data = expanded(path).read_bytes() if expanded(path).is_file() else b""
        data.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return not data.isascii()


def with_columns(recipe: Recipe, path: Path) -> Recipe:
    """The recipe that takes a table's columns by the names that the run's had, where it does not say them itself."""
    said = "like" in recipe.data.args or {"text", "label"} <= recipe.data.args.keys()
    if recipe.data.name != "text_table" or said or not (path / DATA_FILE).is_file():
        return recipe
    names = read_json(path / DATA_FILE).get(COLUMNS)
    return recipe.override(**{"data.like": names}) if names else recipe


def _is_known(path: Path, splits: Splits) -> bool:
    """Whether these are a run's own training or test examples, wherever they lie.

    Of what it learned from a part alone, or with a teacher, those for testing tell.
    """
    before = read_json(path / DATA_FILE) if (path / DATA_FILE).is_file() else {}
    return any(before.get(part) == values for part, values in fingerprints(splits, "train", "test").items())


def is_own(path: Path, splits: Splits, split: str, other: bool, said: bool) -> bool:
    """Whether a split's examples are those of when the run began. Raises RunError if not, unless `other` may be.

    `said`: whether settings of the data were.
    """
    if not (path / DATA_FILE).is_file():
        return not other
    before = read_json(path / DATA_FILE)
    # Where the run had no such split, the others tell whether this one is taken from what it has learned.
    found = fingerprints(splits, *(() if split == "all" or split not in before else (split,)))
    changed = other_data(before, found)
    if changed and not other:
        why = "with these settings its data is other" if said else "its data has changed since it was trained"
        or_else = "" if said else ", or this version parts it otherwise"
        raise RunError(
            f"{path}: {why} ({changed}){or_else}, so that it may know what it would be tested on; --data PLACE scores "
            "it on other data"
        )
    # Of files the names alone are compared: under the same ones another place may have others.
    sure = isinstance(splits.train, ArraySource) and found.keys() <= before.keys()
    return not changed and (sure or not other)


def _all(splits: Splits) -> Source:
    pairs = isinstance(splits.train, ArraySource) and "target" in splits.train.columns
    return all_pairs(splits) if pairs else joined(splits)


def numbered(source: Source, names: tuple[str, ...], wanted: tuple[str, ...]) -> Source:
    """The source with its labels, places in `names`, as places in `wanted`.

    Raises DataError for an example of a class that is not in `wanted`: no answer to it could be right.
    """
    if names == wanted:
        return source
    numbered_as = {name: number for number, name in enumerate(wanted)}
    # Another table may write 1 as 1.0.
    whole = {whole_number(name): number for number, name in enumerate(wanted)}
    # Or True as true, or é as two signs, where only one class of the model's is written so.
    same = [tidy(name).casefold() for name in names]
    small = Counter(own := [tidy(name).casefold() for name in wanted])
    folded = {name: number for number, name in enumerate(own) if small[name] == 1}
    places = [
        numbered_as.get(name, whole.get(whole_number(name), folded.get(small_one, -1)))
        for name, small_one in zip(names, same, strict=True)
    ]
    numbers = np.array(places, np.int32)[source.labels]
    if (numbers < 0).any():
        first = int((numbers < 0).argmax())
        told = ", ".join(map(repr, wanted[:10])) + (", …" if len(wanted) > 10 else "")
        raise DataError(
            f"{source.name(first)}: class {names[source.labels[first]]!r} is none of the model's, {told}: "
            f"{(numbers < 0).sum()} of {len(numbers)} examples are of such classes"
        )
    changed = copy.copy(source)
    changed.labels = numbers
    return changed

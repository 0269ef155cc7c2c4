"""From a run directory to the artifact: one SavedModel of raw input and finished answers, checked before it appears.

docs/artifact.md is the contract of what is written here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from bigkeras.card import Use, card, image_use, pair_use, text_use
from bigkeras.classifier_artifact import export_classifier
from bigkeras.data.fingerprint import DATA_FILE
from bigkeras.origin import UNREADABLE, first_line
from bigkeras.parity import ExportError
from bigkeras.placing import new_place
from bigkeras.predictions import loaded_model
from bigkeras.recipe import defaults, from_json, load
from bigkeras.run import RunError, saved_version, without_model
from bigkeras.tasks import TASKS
from bigkeras.tasks.pairs import PairPreprocessor
from bigkeras.tasks.text import TextPreprocessor
from bigkeras.transfer import artifact_model

MOST_EXAMPLES = 16
EXPORTED_WITH = "\nExported with a search"


def export(
    run_dir: str | Path,
    directory: str | Path,
    examples: Sequence[bytes] | None = None,
    *,
    warm_compiled: Sequence[int] = (),
    beam: int | None = None,
) -> dict[str, Any]:
    """Writes the artifact of a run directory to `directory`, which must not exist or be empty; gives the report.

    `examples` are encoded images or texts for the parity gate; None takes those that the trainer left in
    `<run>/examples/`. With them an exported model is written anew, too, by its recipe and its own weights: its graph is
    then what this version makes, and its card stays. Of translators, `warm_compiled` is `export_translator`'s, and
    `beam` how many hypotheses the search follows in the place of the recipe's. Raises ExportError, and RecipeError or
    DataError for a damaged recipe.json or preprocessor.json.
    """
    import bigkeras.models  # noqa: F401  registers the layers and initializers of the run's .keras file
    from bigkeras.tasks import load_preprocessor

    run_dir, directory = Path(run_dir), Path(directory)
    new_place(directory)  # said before the work
    exported = saved_version(run_dir) is not None
    anew = exported and examples is not None
    _check_there(run_dir, exported, anew)
    texts: dict[str, str] = {n: _text(run_dir / n) for n in ("recipe.json", "preprocessor.json")}
    kind = _values(run_dir / "preprocessor.json", texts["preprocessor.json"]).get("kind")
    if kind == "masked_text":
        raise ExportError(
            f"{run_dir}: a masked language model answers nothing by itself: train a classifier from it, with "
            f"--set start_from={run_dir}, and export that"
        )
    if kind != "pairs" and (warm_compiled or beam):
        raise ExportError(f"{run_dir}: --{'warm-compiled' if warm_compiled else 'beam'}: of translators only")
    labels = [] if kind == "pairs" else _text(run_dir / "labels.txt").removesuffix("\n").split("\n")
    texts |= {name: _text(run_dir / name) for name in ("metrics.json", DATA_FILE) if (run_dir / name).is_file()}
    model = trained_model(run_dir)
    preprocessor = load_preprocessor(run_dir)
    card_of = _text(run_dir / "README.md") if anew else _card(directory, run_dir, texts, labels, model, preprocessor)
    if examples is None:
        examples = _examples(run_dir, preprocessor)
    files = {**texts, "README.md": card_of}
    if not isinstance(preprocessor, PairPreprocessor):
        return export_classifier(model, preprocessor, labels, directory, examples=examples, files=files)
    from bigkeras.translation_artifact import export_translator

    if beam:
        # What was scored is the recipe's search; an exported model may say so of another one before.
        asked = load(run_dir)
        trained = asked.task.args.get("beam", defaults(TASKS[asked.task.name])["beam"])
        files["README.md"] = files["README.md"].partition(EXPORTED_WITH)[0]
        if beam != trained:
            scored = f"the scores above are of a search with {trained}; `bigkeras evaluate` scores this one."
            files["README.md"] += f"{EXPORTED_WITH} that follows {beam} hypotheses: {scored}\n"
        preprocessor = replace(preprocessor, beam=beam)
    del files["preprocessor.json"]  # the preprocessor's own says how it searches now
    return export_translator(
        model, preprocessor, directory, examples=examples, files=files, warm_compiled=warm_compiled
    )


def _check_there(run_dir: Path, exported: bool, anew: bool) -> None:
    """Raises ExportError for a run without a model, or an exported model that is not to be written `anew`."""
    if not (run_dir / "recipe.json").is_file() or any(run_dir.glob("*.keras")) or anew:
        return
    told = "an exported model: the directory of the run that made it is needed, or examples: of texts --examples, of "
    told += "images from Python, bigkeras.artifact.export(…, examples=[…])"
    raise ExportError(f"{run_dir}: {told if exported else without_model(run_dir)}")


def _examples(run_dir: Path, preprocessor: Any) -> list[bytes]:
    """What a run has left for comparing the artifact with the model."""
    if isinstance(preprocessor, PairPreprocessor):
        sentences = _text(run_dir / "examples" / "sentences.txt").removesuffix("\n").split("\n")
        return [sentence.encode() for sentence in sentences]
    ending = "txt" if isinstance(preprocessor, TextPreprocessor) else "png"
    examples = [path.read_bytes() for path in sorted(run_dir.glob(f"examples/*.{ending}"))[:MOST_EXAMPLES]]
    if not examples:
        raise ExportError(f"{run_dir}/examples: no .{ending} in it for comparing the artifact with the model")
    return examples


def trained_model(run_dir: Path) -> keras.Model:
    """The Keras model of a run directory, or of an exported model by its recipe and its own weights.

    `bigkeras.models` must have been imported: its layers are then registered. Raises ExportError.
    """
    if saved_version(run_dir) is None:
        for path in (run_dir / "best.keras", run_dir / "last.keras"):
            if path.is_file():
                try:
                    return loaded_model(path)
                except RunError as error:
                    raise ExportError(str(error)) from None
        raise ExportError(f"{run_dir}: neither best.keras nor last.keras in it; is it a run directory, and trained?")
    try:
        return artifact_model(run_dir)
    except UNREADABLE as error:
        raise ExportError(f"{run_dir}: cannot be written anew: {first_line(error)}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None


def _values(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ExportError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ExportError(f"{path}: not a JSON object")
    return found


def _card(
    directory: Path,
    run_dir: Path,
    texts: Mapping[str, str],
    labels: Sequence[str],
    model: keras.Model,
    preprocessor: Any,
) -> str:
    from bigkeras.data import DATASETS

    place = run_dir / "environment.json"
    # One that somebody wrote says "digits" where a run says {"name": "digits", …}.
    recipe = json.loads(from_json(texts["recipe.json"], str(run_dir / "recipe.json"), of_run=True).to_json())
    source = DATASETS.get(recipe["data"]["name"])
    return card(
        name=directory.name,
        directory=str(directory),
        recipe=recipe,
        metrics=_values(run_dir / "metrics.json", texts.get("metrics.json", "{}")),
        environment=_values(place, _text(place)) if place.is_file() else {},
        data_notes=(source.__doc__ or "") if source else "",
        labels=labels,
        parameters=model.count_params(),
        use=_use(str(directory), model, preprocessor),
    )


def _use(place: str, model: keras.Model, preprocessor: Any) -> Use:
    if isinstance(preprocessor, PairPreprocessor):
        return pair_use(place, preprocessor.languages, preprocessor.length)
    if isinstance(preprocessor, TextPreprocessor):
        return text_use(place, preprocessor.length - len(preprocessor.frame))
    return image_use(place, preprocessor.shape)

"""The model card that lies beside an artifact: what a person must know before using it."""

import inspect
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bigkeras.markdown import plain, signatures

Use = tuple[str, str, str]  # what it does, the command that asks it, what it cannot
MOST_LABELS = 30  # more are left to labels.txt
MEASURED = "Measured on the run, before its model was exported. The exported one is scored by"


def card(
    *,
    name: str,
    recipe: Mapping[str, Any],
    metrics: Mapping[str, Any],
    environment: Mapping[str, Any],
    data_notes: str,
    labels: Sequence[str],
    parameters: int,
    use: Use,
    directory: str | None = None,
) -> str:
    """README.md as text, from the parsed JSON files of a run.

    `name`: that of the model's folder. `data_notes`: the data set function's docstring. `labels`: none for a
    translator. `use`: what the model does, the command that asks it, and what it answers to anything else; from
    `image_use`, `text_use` or `pair_use`. `directory`: where the model's folder is, for commands; by default in
    saved_models.
    """
    does, command, limits = use
    parts = [
        f"# {plain(name)}",
        f"The recipe's claim: {plain(recipe['claim'])}" if recipe.get("claim") else "",
        f"It says which of {len(labels)} classes {does}" if labels else does,
        _classes(labels),
        "## Use",
        f"    {command}",
        "`1/` is a SavedModel with a version number as TensorFlow Serving wants it; signatures, types and limits: "
        "docs/artifact.md of bigkeras.",
        "## Scores",
        _scores(directory or f"saved_models/{name}", metrics)
        or "Not measured: the run was not scored; `bigkeras evaluate RUN` does that.",
        "## Data",
        _table("setting", {"data": recipe["data"]["name"], **recipe["data"].get("args", {})}),
        inspect.cleandoc(data_notes),
        "## Training",
        _table(
            "setting", {"parameters": parameters, **{k: v for k, v in recipe.items() if k not in ("claim", "data")}}
        ),
        "Whole recipe: recipe.json.",
        "## Where it was trained",
        _table("what", environment) or "Not known: the run has no environment.json.",
        "## Limits",
        limits,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _classes(labels: Sequence[str]) -> str:
    more = f" … ({len(labels)}, see labels.txt)" if len(labels) > MOST_LABELS else ""
    return f"Classes: {', '.join(map(plain, labels[:MOST_LABELS]))}{more}" if labels else ""


def image_use(place: str, input_shape: Sequence[int]) -> Use:
    """For `card`, of the model at `place`: a classifier of images `(height, width, channels)`."""
    height, width, channels = input_shape
    return (
        f"an image shows. The image may have any size and is brought to {height} × {width} pixels and {channels} "
        f"channel{'s' if channels > 1 else ''} inside.",
        f"python -m apps.image_classification photo.jpg --model {shlex.quote(place)}",
        "It always names one of its classes, also for an image that shows none of them. How far its probabilities can "
        "be trusted is the calibration error, where it was scored, on images like the training data; on others nothing "
        "is known.",
    )


def pair_use(place: str, languages: tuple[str, str], length: int) -> Use:
    """For `card`, of the model at `place`: a translator that reads `length` subwords, the end with them."""
    source, target = (language or "a language that the run did not say" for language in languages)
    return (
        f"It translates sentences from {plain(source)} to {plain(target)}.",
        f'python -m apps.translation "A sentence." --model {shlex.quote(place)}',
        f"It knows the words and the kind of sentences of its training data, and translates anything else all the "
        f"same, wrongly. Each text is taken as one sentence, of which {length - 1} subwords are read; the app parts "
        "paragraphs. What stands in a language other than the source's is not recognised as such.",
    )


def text_use(place: str, length: int) -> Use:
    """For `card`, of the model at `place`: a classifier of texts of which it reads `length` tokens."""
    return (
        f"a text belongs to. The text may have any length; {length} tokens of it are read.",
        f'python -m apps.sentiment "Well done, all of it." --model {shlex.quote(place)} --explain',
        "It always names one of its classes, also for a text that belongs to none of them, or in another language. The "
        "probabilities are those of texts like the training data. Answers stand in the order of their probability; a "
        "decision threshold, where one was tuned on a validation split, stands in metrics.json, and "
        "`apps.sentiment --tuned` applies it.",
    )


def _scores(directory: str, metrics: Mapping[str, Any]) -> str:
    """A row for every split that the run was scored on, and the command that scores the exported model on it."""
    if any(isinstance(values, Mapping) and "bleu" in values for values in metrics.values()):
        return _translation_scores(directory, metrics)
    rows, commands = [], []
    for key, values in metrics.items():
        if not isinstance(values, Mapping) or "accuracy" not in values:
            continue
        low, high = values.get("accuracy_95", (values["accuracy"],) * 2)
        rows.append(
            f"| {key} | {values['examples']:,} | {values['accuracy']:.2%} ({low:.2%} to {high:.2%}) | "
            f"{values['macro']['f1']:.4f} | {values['loss']:.4f} | {values['calibration_error']:.4f} |"
        )
        split, _, average = key.partition(" ")
        options = (f" --split {split}" if split != "test" else "") + (f" --average {average}" if average else "")
        commands.append(f"    bigkeras evaluate {shlex.quote(directory)}{options}")
    if not rows:
        return ""
    head = "| split | examples | accuracy (95 % interval) | macro F1 | loss | calibration error |"
    return "\n".join([head, "|---|---:|---:|---:|---:|---:|", *rows, "", MEASURED, "", *commands])


def _translation_scores(directory: str, metrics: Mapping[str, Any]) -> str:
    rows, commands, used = [], [], {}
    for split, values in metrics.items():
        if isinstance(values, Mapping) and "bleu" in values:
            cells = (f"{values[key]:.2f}" for key in ("bleu", "bleu_lower", "chrf", "chrf_lower"))
            rows.append(f"| {split} | {values['sentences']:,} | {' | '.join(cells)} |")
            commands.append(f"    bigkeras evaluate {shlex.quote(directory)} --split {split}")
            used[split] = values["signatures"]
    head = [
        "| split | sentences | BLEU | BLEU, lower case | chrF | chrF, lower case |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*head, *rows, "", *signatures(used), "", MEASURED, "", *commands])


def _table(title: str, values: Mapping[str, Any]) -> str:
    rows = [f"| {key} | {value} |" for key, value in _flat(values)]
    return "\n".join([f"| {title} | value |", "|---|---|", *rows]) if rows else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`{"a": {"b": 1}}` → ("a.b", "1"); a list of named functions → "crop(padding=2), flip()"."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            yield prefix + key, f"{value:.6g}"
        elif isinstance(value, str | int):
            yield prefix + key, plain(str(value))
        elif isinstance(value, list) and value and all(isinstance(one, str | int) for one in value):
            yield prefix + key, plain(", ".join(map(str, value)))
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) and "name" in one for one in value):
            yield prefix + key, plain(", ".join(map(_called, value)))


def _called(choice: Mapping[str, Any]) -> str:
    """`{"name": "crop", "args": {"padding": 2}}` → "crop(padding=2)"."""
    return f"{choice['name']}({', '.join(f'{name}={value}' for name, value in choice.get('args', {}).items())})"

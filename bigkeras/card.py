"""The model card that lies beside an artifact: what a person must know before using it."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MOST_LABELS = 30  # more are left to labels.txt


def card(
    *,
    name: str,
    recipe: Mapping[str, Any],
    metrics: Mapping[str, Any],
    environment: Mapping[str, Any],
    data_notes: str,
    labels: Sequence[str],
    parameters: int,
    use: tuple[str, str, str],
) -> str:
    """README.md as text, from the parsed JSON files of a run.

    `name`: that of the model's folder. `data_notes`: the data set function's docstring. `use`: what the classes are of,
    the command that asks the model, and what it answers to anything else; from `image_use` or `text_use`.
    """
    takes, command, limits = use
    parts = [
        f"# {name}",
        recipe.get("claim", ""),
        f"It says which of {len(labels)} classes {takes}",
        "Classes: "
        + ", ".join(labels[:MOST_LABELS])
        + (f" … ({len(labels)}, see labels.txt)" * (len(labels) > MOST_LABELS)),
        "## Use",
        f"    {command}",
        "`1/` is a SavedModel with a version number as TensorFlow Serving wants it; signatures, types and limits: "
        "docs/artifact.md.",
        "## Scores",
        _scores(name, metrics) or "Not measured: the run was not scored; `bigkeras evaluate RUN` does that.",
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


def image_use(name: str, input_shape: Sequence[int]) -> tuple[str, str, str]:
    """For `card`: a classifier of images `(height, width, channels)`."""
    height, width, channels = input_shape
    return (
        f"an image shows. The image may have any size and is brought to {height} × {width} pixels and {channels} "
        f"channel{'s' if channels > 1 else ''} inside.",
        f"python -m apps.image_classification photo.jpg --model {name}",
        "It always names one of its classes, also for an image that shows none of them. The probabilities are those of "
        "images like the training data.",
    )


def text_use(name: str, length: int) -> tuple[str, str, str]:
    """For `card`: a classifier of texts of which it reads `length` tokens."""
    return (
        f"a text belongs to. The text may have any length; {length} tokens of it are read.",
        f'python -m apps.sentiment "Well done, all of it." --model {name} --explain',
        "It always names one of its classes, also for a text that belongs to none of them, or in another language. The "
        "probabilities are those of texts like the training data. Answers stand in the order of their probability; a "
        "decision threshold that was tuned on the validation split stands in metrics.json, and is not applied.",
    )


def _scores(name: str, metrics: Mapping[str, Any]) -> str:
    """A row for every split that was scored, and the command that scores it again."""
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
        commands.append(f"    bigkeras evaluate saved_models/{name}{options}")
    if not rows:
        return ""
    head = "| split | examples | accuracy (95 % interval) | macro F1 | loss | calibration error |"
    return "\n".join(
        [head, "|---|---:|---:|---:|---:|---:|", *rows, "", "Measured, with the exported model, by", "", *commands]
    )


def _table(title: str, values: Mapping[str, Any]) -> str:
    rows = [f"| {key} | {value} |" for key, value in _flat(values)]
    return "\n".join([f"| {title} | value |", "|---|---|", *rows]) if rows else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`{"a": {"b": 1}}` → ("a.b", "1"); lists of more than plain values are left to the JSON files."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            yield prefix + key, f"{value:.6g}"
        elif isinstance(value, str | int):
            yield prefix + key, str(value).replace("|", "\\|").replace("\n", " ")

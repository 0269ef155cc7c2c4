"""report.md of a run: the score first, then classes, pictures, how to do it again and where it ran."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from bigkeras import pictures
from bigkeras.data.cleaning import reasons
from bigkeras.data.fingerprint import DATA_FILE
from bigkeras.markdown import plain, table
from bigkeras.metrics import NO_SCORE, epoch_score, occurring
from bigkeras.recipe import Recipe
from bigkeras.run import is_ours, read_json, write_text

# The scores that a reader trusts most come first.
SPLITS = ("test", "validation", "train")
MOST_CLASSES = 100
MOST_PAIRS = 10
MOST_BAD = 10
TEXT_SHOWN = 300  # characters


class Predictions(Protocol):
    """`worst`: the surest mistakes, (pixels uint8 (height, width, channels) or text, label, probabilities) each."""

    @property
    def labels(self) -> Any: ...

    @property
    def probabilities(self) -> Any: ...

    @property
    def worst(self) -> Sequence[tuple[Any, int, Any]]: ...


class Task(Protocol):
    """What a report needs of a task."""

    kind: str

    @property
    def class_names(self) -> tuple[str, ...]: ...


def write_report(
    directory: str | Path,
    *,
    recipe: Recipe,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    predictions: Predictions | None,
    task: Task,
) -> Path:
    """Writes report.md and pictures/ into a run directory, each beside and renamed; gives the report's path.

    `metrics`: {split: scores of bigkeras.metrics, maybe with `accuracy_95`}, other keys are left out. `history`: the
    rows of log.csv. `predictions`: of the split scored last; None keeps the picture of mistakes that is there.
    environment.json and bad_samples.csv are read from the directory, where they are.
    """
    directory, class_names = Path(directory), task.class_names
    images = predictions is not None and task.kind == "image"
    mistakes = [_mistake(*worst) for worst in predictions.worst] if predictions is not None and images else None
    scored = {key: values for key, values in metrics.items() if isinstance(values, Mapping) and "per_class" in values}
    main = min(scored, key=rank, default=None)
    _write_pictures(directory / "pictures", scored.get(main or ""), history, class_names, mistakes)
    if predictions is not None and len(class_names) > 1:
        figure = pictures.ranking(predictions.labels, predictions.probabilities, class_names)
        pictures.save(figure, directory / "pictures" / "ranking.png")
    sections = [
        _head(recipe, scored, main),
        tried(directory),
        *([_classes(main, scored[main]), _confusions(scored[main], class_names)] if main else []),
        picture_section(directory, main),
        *([_wrong_texts(predictions, class_names)] if predictions is not None and not images else []),
    ]
    return write_sections(directory, sections, recipe, history)


def write_sections(
    directory: Path, sections: Sequence[str], recipe: Recipe, history: Sequence[Mapping[str, Any]]
) -> Path:
    """report.md of these sections and of those that every report ends with; gives its path. Raises RunError."""
    left_out = left_out_pairs if recipe.task.name == "translation" else bad_samples
    ending = [training(history, recipe), again(recipe, directory), where(directory), left_out(directory)]
    path = directory / "report.md"
    write_text(path, "\n\n".join(section for section in (*sections, *ending) if section) + "\n")
    return path


def _mistake(image: Any, label: int, probabilities: Any) -> pictures.Mistake:
    return pictures.Mistake(image, int(label), int(probabilities.argmax()), float(probabilities.max()))


def rank(split: str) -> tuple[int, str]:
    """test before validation before train, and a split as it is before "test flips" and the like."""
    first = split.split()[0]
    return (SPLITS.index(first) if first in SPLITS else len(SPLITS)), split


def _write_pictures(
    folder: Path,
    scores: Mapping[str, Any] | None,
    history: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    mistakes: Sequence[pictures.Mistake] | None,
) -> None:
    if history:
        pictures.save(pictures.curves(history), folder / "curves.png")
    if scores:
        pictures.save(pictures.confusion_matrix(scores["confusion"], class_names), folder / "confusion.png")
        pictures.save(pictures.f1_bars(scores["per_class"]), folder / "f1.png")
        bins, error = scores["reliability"], scores["calibration_error"]
        pictures.save(pictures.reliability(bins, error), folder / "reliability.png")
    if mistakes:
        pictures.save(pictures.mistakes(mistakes, class_names), folder / "mistakes.png")
    elif mistakes is not None:
        (folder / "mistakes.png").unlink(missing_ok=True)


def _head(recipe: Recipe, scored: Mapping[str, Mapping[str, Any]], main: str | None) -> str:
    lines = [f"# {plain(recipe.name)}", ""]
    if main is None:
        lines.append("Not scored: no validation split was held back. `bigkeras evaluate` scores a test split.")
    else:
        values = scored[main]
        right = values["accuracy"] * values["examples"]
        lines.append(
            f"**{values['accuracy']:.2%} of the {values['examples']:,} {main} examples are right**"
            f"{_interval(values)}: {_count(values['examples'] - round(right), 'mistake')}. Mean F1 of the classes "
            f"{values['macro']['f1']:.4f}, loss {values['loss']:.4f}."
        )
        lines += ["", _score_table(scored)]
        if "at_threshold" in values:
            lines += ["", _decision(values)]
    if recipe.claim:
        lines += ["", f"The recipe's claim: {plain(recipe.claim)}"]
    return "\n".join(lines)


def _decision(values: Mapping[str, Any]) -> str:
    at = values["at_threshold"]
    name = values["per_class"][1]["name"]
    when = "never" if at["threshold"] > 1 else f"from a probability of {at['threshold']:.3f} on"
    return (
        f"Decided for {plain(name)} {when} instead of from 0.5 on, which gave the "
        f"validation split its highest mean F1: accuracy {at['accuracy']:.4f}, mean F1 {at['macro_f1']:.4f}; of "
        f"{plain(name)} precision {at['precision']:.4f}, recall {at['recall']:.4f}, F1 {at['f1']:.4f}. "
        "Answers and all other scores are those of the likelier class."
    )


def _wrong_texts(predictions: Predictions, class_names: Sequence[str]) -> str:
    """The surest mistakes as a table: long texts by their beginning."""
    rows = [
        [shortened(text), class_names[label], f"{class_names[row.argmax()]} {row.max():.0%}"]
        for text, label, row in predictions.worst
    ]
    title = "## The surest mistakes, of the split that was scored last\n\n"
    return title + table(["text", "true", "answer"], rows) if rows else ""


def shortened(text: str) -> str:
    """A text in one line, a long one by its beginning."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + " …"


def _interval(values: Mapping[str, Any]) -> str:
    if "accuracy_95" not in values:
        return ""
    low, high = values["accuracy_95"]
    return f" (95 % interval {low:.2%} to {high:.2%})"


def _score_table(scored: Mapping[str, Mapping[str, Any]]) -> str:
    first = next(iter(scored.values()))
    macro = "macro " if len(first["per_class"]) > 2 else ""
    header = ["scored on", "examples", "accuracy", f"top {first['top_k']}", "loss", "macro F1", "calibration error"]
    rows = []
    for split in sorted(scored, key=rank):
        v = scored[split]
        row = [split, f"{v['examples']:,}", f"{v['accuracy']:.4f}", f"{v['top_k_accuracy']:.4f}", f"{v['loss']:.4f}"]
        row += [f"{v['macro']['f1']:.4f}", f"{v['calibration_error']:.4f}"]
        rows.append(row + [_number(v.get("roc_auc")), _number(v.get("average_precision"))])
    return table([*header, f"{macro}ROC AUC", f"{macro}average precision"], rows)


def _classes(split: str, scores: Mapping[str, Any]) -> str:
    per_class = scores["per_class"]
    shown = sorted(occurring(per_class), key=lambda row: row["f1"])[:MOST_CLASSES]
    if len(per_class) <= MOST_CLASSES:
        shown = per_class
    rows = [[row["name"], *(f"{row[k]:.4f}" for k in ("precision", "recall", "f1")), row["support"]] for row in shown]
    for name in ("macro", "weighted"):
        averages = (f"{scores[name][k]:.4f}" for k in ("precision", "recall", "f1"))
        rows.append([f"{name} average", *averages, scores["examples"]])
    note = (
        ""
        if len(shown) == len(per_class)
        else f"\n\nThe {len(shown)} weakest of {len(per_class)}, of those that occur; all: metrics.json."
    )
    told = table(["class", "precision", "recall", "F1", "examples"], rows)
    return f"## Classes\n\nOn the {split} split.{note}\n\n{told}"


def _confusions(scores: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """The pairs of classes that are taken for each other most often."""
    pairs = [
        (count, class_names[true], class_names[given])
        for true, row in enumerate(scores["confusion"])
        for given, count in enumerate(row)
        if count and true != given
    ]
    if not pairs:
        return ""
    pairs.sort(key=lambda pair: -pair[0])
    rows = [[true, given, count] for count, true, given in pairs[:MOST_PAIRS]]
    return "## Most frequent confusions\n\n" + table(["true", "answer", "times"], rows)


def picture_section(directory: Path, split: str | None) -> str:
    """The pictures that are there."""
    titles = {
        "curves": "Training",
        "confusion": f"Confusion matrix, {split}",
        "f1": f"F1 of each class, {split}",
        "reliability": f"Are the probabilities right? {split}",
        "ranking": "How well each class is told from the others, of the split that was scored last",
        "mistakes": "The surest mistakes, of the split that was scored last",
    }
    parts = ["## Pictures"]
    for name, title in titles.items():
        if (directory / "pictures" / f"{name}.png").exists():
            parts.append(f"### {title}\n\n![{title}](pictures/{name}.png)")
    return "\n\n".join(parts) if len(parts) > 1 else ""


def training(history: Sequence[Mapping[str, Any]], recipe: Recipe) -> str:
    """The first, the best and the last epoch."""
    if not history:
        return ""
    note = f"{len(history)} of {recipe.epochs} epochs."
    chosen = [history[-1]]
    scores = [NO_SCORE if row.get("best_unsaved") else epoch_score(row, recipe.monitor) for row in history]
    unsaved = [row for row in history if row.get("best_unsaved") and epoch_score(row, recipe.monitor) > max(scores)]
    if max(scores) > NO_SCORE:
        best = scores.index(max(scores))
        note += f" The best by {recipe.monitor} is epoch {int(float(history[best]['epoch']))}, kept as best.keras."
        chosen = [history[0], history[best], history[-1]]
    if unsaved:
        epochs = ", ".join(str(int(float(row["epoch"]))) for row in unsaved)
        note += f" Better, but not kept (it could not be written, or is gone): epoch {epochs}."
    unique = {str(row["epoch"]): row for row in chosen}
    # Not every epoch is translated, nor timed: one that another process began.
    keys = [k for k in dict.fromkeys(k for row in unique.values() for k in row) if k not in ("epoch", "best_unsaved")]
    rows = [[int(float(row["epoch"])), *(_number(row.get(key)) for key in keys)] for row in unique.values()]
    return f"## Training\n\n{note} Every epoch: log.csv.\n\n" + table(["epoch", *(_word(k) for k in keys)], rows)


def tried(directory: Path) -> str:
    """What model auto tried, if it was asked for."""
    path = directory / "search.json"
    if not path.is_file():
        return ""
    search = read_json(path)
    told = ", ".join(f"{plain(name)} {scores['accuracy']:.4f}" for name, scores in search["tried"].items())
    return f"Model auto tried several candidates and kept **{plain(search['kept'])}**; validation accuracy: {told}."


def _split(directory: Path) -> str:
    """What `evaluate` needs to be told of a run whose data has no test split."""
    path = directory / DATA_FILE
    there = read_json(path) if path.is_file() else {"test": {}}
    return "" if "test" in there else " --split validation" if "validation" in there else " --split train"


def again(recipe: Recipe, directory: Path) -> str:
    """The commands; TensorBoard's where there are files for it: on JAX none, of model auto those of what was kept."""
    search = directory / "search.json"
    curves = f"candidates/{read_json(search)['kept']}/tensorboard" if search.is_file() else "tensorboard"
    train = "bigkeras train recipe.json --run-dir again"
    own = f'bigkeras.fit(bigkeras.recipe.load("recipe.json"), "again", model={recipe.model.name})  # in Python'
    lines = [
        "## Do it again",
        "From this directory, with the versions below:",
        f"    {train if is_ours(recipe) else own}\n    bigkeras evaluate again{_split(directory)}",
        f"The whole recipe (seed {recipe.seed}, precision {recipe.precision}): recipe.json."
        + (f" The curves: `tensorboard --logdir {curves}`." if (directory / curves).is_dir() else ""),
    ]
    return "\n\n".join(lines)


def where(directory: Path) -> str:
    """What environment.json says."""
    path = directory / "environment.json"
    if not path.exists():
        return ""
    rows = list(_flat(read_json(path)))
    return "## Where it ran\n\n" + table(["what", "value"], rows)


def _flat(values: Mapping[str, Any]) -> Iterator[list[Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        elif value not in (None, "", []):
            yield [_word(key), ", ".join(map(str, value)) if isinstance(value, list) else value]


def bad_samples(directory: Path) -> str:
    """What bad_samples.csv says."""
    rows = _listed(directory)
    if rows is None:
        return ""
    if not rows:
        return "## Left out\n\nNone."
    text = f"## Left out\n\n{len(rows):,} were left out, as unreadable or no examples; all: bad_samples.csv."
    return f"{text}\n\n" + table(["sample", "reason"], rows[:MOST_BAD])


def left_out_pairs(directory: Path) -> str:
    """The same of sentence pairs, which can all be read: why they were left out of the training, and how many."""
    rows = _listed(directory)
    if rows is None:
        return ""
    if not rows:
        return "## Pairs left out\n\nNone."
    counts = reasons([why for _, why in rows]).most_common()
    text = f"## Pairs left out\n\n{len(rows):,}; all, with their numbers: bad_samples.csv."
    return f"{text}\n\n" + table(["reason", "pairs"], [[kind, f"{number:,}"] for kind, number in counts])


def _listed(directory: Path) -> list[list[str]] | None:
    """The rows of bad_samples.csv, sample and reason; None where there is none."""
    path = directory / "bad_samples.csv"
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        return [[row["sample"], row["reason"]] for row in csv.DictReader(file)]


def _number(value: Any) -> str:
    return "" if value in (None, "") else f"{float(value):.4g}"


def _word(key: str) -> str:
    return key.replace("_", " ")


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")

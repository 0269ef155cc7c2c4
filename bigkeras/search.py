"""A recipe whose model is "auto": a few candidates that suit the data, and the one that validation prefers."""

import importlib.util
import json
import math
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bigkeras.control import Diverged
from bigkeras.data.fingerprint import COLUMNS, DATA_FILE, other_data
from bigkeras.data.source import Splits, Unsuited
from bigkeras.models.pretrained import LITE0_MEAN, LITE0_STD, PACKAGE
from bigkeras.origin import PACKAGES
from bigkeras.recipe import Choice, Recipe, RecipeError, known, load
from bigkeras.report import tried
from bigkeras.run import RunError, read_json, write_bytes, write_json, write_text
from bigkeras.runtime import out_of_memory
from bigkeras.tasks import TASKS
from bigkeras.tasks.classification import survey
from bigkeras.text_search import epochs_for, missing_encoder, text_candidates

# A picture whose shorter side has at least so many pixels, in colour, is taken for a photograph.
PHOTOGRAPH = 96
# Smaller ones are enlarged: the small network halves three times.
SMALLEST = 16
# Looks at a training image that fit into some five minutes of two CPU cores: at 32×32 for the small network, at 224
# for the frozen backbone, and for the part of the backbone that is trained.
SMALL_LOOKS, FROZEN_LOOKS, TUNED_LOOKS = 150_000, 8_000, 4_000
# Of the small network's, where it stands beside the backbone: on 3,000 pictures of CIFAR-10 all of them took ten of
# sixteen minutes, and 77 % against the backbone's 88 %.
SHARE_BESIDE = 0.4
# What an auto recipe may say; all else is the candidates'.
OPEN: tuple[str, ...] = ("name", "claim", "data", "task", "model", "loss", "precision", "seed", "balance", "monitor")
OPEN += ("max_bad_fraction", "on_checkpoint_error")
KEPT = (
    "recipe.json",
    "best.keras",
    "last.keras",
    "preprocessor.json",
    "labels.txt",
    "environment.json",
    "bad_samples.csv",
    "log.csv",
)


VOCABULARIES = ("vocabulary.txt", "sentencepiece.model")
NAMED = {"text_classification": "text_cnn", "image_classification": "resnet"}  # tasks that have candidates; a model


def check_auto(recipe: Recipe, asked: Collection[str] = ()) -> None:
    """Raises RecipeError for a value that no candidate would heed: another than by default, or one `asked` for."""
    if known("task", recipe.task.name, TASKS) not in NAMED:
        raise RecipeError(f"model auto: tries models of pictures and of texts' classes; {name_a_model(recipe)}")
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name not in OPEN and (value != field.default or field.name in asked):
            raise RecipeError(f"{field.name}={_short(value)}: model auto decides it; {name_a_model(recipe)}")
    if recipe.model.args:
        raise RecipeError(f"model.{next(iter(recipe.model.args))}: model auto takes no arguments")


def has_imagenet() -> bool:
    """Whether the package with EfficientNet-Lite0's ImageNet weights is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def name_a_model(recipe: Recipe) -> str:
    """What to do where model auto cannot do it, in words."""
    others = {"translation": "transformer_translator", "masked_language_model": "bert_mlm"}
    return f"name a model, as --set model={(NAMED | others)[recipe.task.name]}"


def _short(value: Any) -> Any:
    return value.name if isinstance(value, Choice) else value


def candidates(recipe: Recipe, splits: Splits) -> list[Recipe]:
    """Concrete recipes to try, each a function of the data alone; a later one may start from an earlier one."""
    if recipe.task.name == "text_classification":
        return text_candidates(recipe, splits)
    shapes, channels = survey(splits.train)
    side = int(np.median(shapes.min(1)))
    photographs = side >= PHOTOGRAPH and channels == 3
    asked = recipe.task.args
    # The backbone knows colour pictures that are normalised as those it has learned from.
    other = asked.get("channels") == 1 or any(asked.get(name) is not None for name in ("mean", "std"))
    pretrained = channels == 3 and has_imagenet() and not other
    height, width = asked.get("height"), asked.get("width")

    def size(usual: int) -> tuple[int, int]:
        return height or width or usual, width or height or usual

    tried = []
    if not photographs or not pretrained:
        looks = SMALL_LOOKS * (SHARE_BESIDE if pretrained else 1)
        tried.append(_small(recipe, splits, size(min(max(side, SMALLEST), 64)), channels, looks))
    if pretrained:
        frozen = _frozen(recipe, splits, size(224 if photographs else 128))
        tried.append(frozen)
        tried.append(_tuned(frozen, len(splits.train)))
    return tried


def _small(recipe: Recipe, splits: Splits, size: tuple[int, int], channels: int, looks: float) -> Recipe:
    height, width = size
    epochs = epochs_for(looks * 32**2 / (height * width), len(splits.train), 15, 120)
    turned = (Choice("flip"),) if channels == 3 else ()  # a mirrored letter is another one, a mirrored cat is a cat
    return replace(
        recipe,
        name=f"{recipe.name}-small",
        claim="a small fast CNN (airbench), from scratch",
        task=Choice(recipe.task.name, {**recipe.task.args, "height": height, "width": width}),
        model=Choice("airbench", {"widths": [64, 128, 256]}),
        augmentation=(*turned, Choice("crop", {"padding": max(1, min(size) // 16)}), Choice("random_erasing")),
        optimizer=Choice("adamw", {"learning_rate": 3e-3, "weight_decay": 0.05}),
        schedule=Choice("cosine", {"warmup_epochs": 2.0}),
        ema=0.99,
        epochs=epochs,
        batch_size=min(64, _power(len(splits.train) // 8)),
    )


def _frozen(recipe: Recipe, splits: Splits, size: tuple[int, int]) -> Recipe:
    height, width = size
    looks = FROZEN_LOOKS * 224**2 / (height * width)
    statistics = {"mean": [LITE0_MEAN / 255] * 3, "std": [LITE0_STD / 255] * 3, "channels": 3}
    return replace(
        recipe,
        name=f"{recipe.name}-frozen",
        claim="EfficientNet-Lite0 with its ImageNet weights, frozen, a new last layer",
        task=Choice(recipe.task.name, {**recipe.task.args, "height": height, "width": width, **statistics}),
        model=Choice("efficientnet", {"variant": "lite0", "dropout": 0.2}),
        start_from="imagenet",
        freeze_until="features",
        augmentation=(Choice("flip"),),
        optimizer=Choice("adamw", {"learning_rate": 5e-3, "weight_decay": 0.05}),
        epochs=epochs_for(looks, len(splits.train), 4, 40),
        batch_size=min(32, _power(len(splits.train) // 8)),
    )


def _tuned(frozen: Recipe, examples: int) -> Recipe:
    pixels = frozen.task.args["height"] * frozen.task.args["width"]
    return replace(
        frozen,
        name=frozen.name.replace("-frozen", "-tuned"),
        claim="EfficientNet-Lite0 with its ImageNet weights, its last stages fine-tuned",
        start_from=frozen.name,
        freeze_until="stage5",
        augmentation=(Choice("flip"), _crop(frozen)),
        optimizer=Choice("adamw", {"learning_rate": 3e-4, "weight_decay": 0.05}),
        schedule=Choice("cosine", {"warmup_epochs": 1.0}),
        epochs=epochs_for(TUNED_LOOKS * 224**2 / pixels, examples, 2, 15),
    )


def _crop(frozen: Recipe) -> Choice:
    """Parts of the pictures; of those that are to keep their shape, shifts alone."""
    if frozen.task.args.get("resize") == "pad":
        return Choice("crop", {"padding": max(1, frozen.task.args["height"] // 16)})
    return Choice("random_resized_crop", {"minimum_area": 0.5})


def fit_best(recipe: Recipe, directory: Path, splits: Splits, fit: Any, log: Any) -> dict[str, Any]:
    """Trains the candidates under `directory`/candidates and makes `directory` the run of the best one.

    `fit(recipe, run_dir)` trains one. Says in search.json what was tried; a run that was stopped goes on. A candidate
    that the data does not suit, that diverges or that a device has too little memory for is left out; raises its error
    where there is no other.
    """
    if splits.validation is None:
        raise RunError("model auto chooses by validation, and there is no validation split; name a model instead")
    if recipe.task.name == "image_classification" and not has_imagenet():
        log.say(
            'for photographs there is more: pip install ".[imagenet]" in the checkout brings a pretrained backbone, '
            "to a new --run-dir"
        )
    if recipe.task.name == "text_classification" and (missing := missing_encoder(recipe, splits)):
        log.say(f"{missing}, to a new --run-dir")
    scores = {}
    unfit: set[str | None] = set()
    tried = candidates(recipe, splits)
    for candidate in tried:
        if candidate.start_from in unfit:
            log.say(f"candidate {candidate.name} is left out: it starts from {candidate.start_from}")
            continue
        log.say(f"candidate {candidate.name}: {candidate.claim}, {candidate.epochs} epochs")
        place = directory / "candidates" / candidate.name
        if candidate.start_from in scores:
            earlier = (directory / "candidates" / str(candidate.start_from)).resolve()
            candidate = replace(candidate, start_from=str(earlier))
        try:
            scores[candidate.name] = fit(candidate, place)["validation"]
            _check_alike(directory, place)
        except Exception as error:
            full = out_of_memory(error)
            # What is installed beside may be damaged, or of another version.
            beside = candidate.start_from in (*PACKAGES, "imagenet") and isinstance(error, RecipeError) and scores
            if not (full or beside or isinstance(error, (Unsuited, Diverged))):
                raise
            unfit.add(candidate.name)
            if all({other.name, other.start_from} & unfit for other in tried):
                raise
            log.say(f"candidate {candidate.name} is left out: {'a device has too little memory' if full else error}")
    best = preferred(scores, recipe.monitor)
    summary = {name: {"accuracy": s["accuracy"], "loss": s["loss"]} for name, s in scores.items()}
    # First this: from now on it says whose run the directory is, and recipe.json what was kept.
    write_json(directory / "search.json", {"asked": asdict(recipe), "tried": summary, "kept": best})
    _promote(directory, directory / "candidates" / best)
    # A candidate that was complete before the data moved says where it was.
    write_text(directory / "recipe.json", replace(load(directory), data=recipe.data).to_json())
    told = ", ".join(f"{name} {s['accuracy']:.4f}" for name, s in scores.items())
    log.say(f"validation accuracy: {told}; kept {best}")
    write_text(directory / "report.md", _report(directory, best))
    metrics = (directory / "candidates" / best / "metrics.json").read_text(encoding="utf-8")
    write_text(directory / "metrics.json", metrics)
    return json.loads(metrics)


def _check_alike(directory: Path, candidate: Path) -> None:
    """Raises RunError where a candidate has learned from other examples than those that the search began with."""
    noted = [place / DATA_FILE for place in (directory, candidate)]
    if not all(path.is_file() for path in noted):
        return
    parts = [{name: part for name, part in read_json(path).items() if name != COLUMNS} for path in noted]
    if changed := other_data(*parts):
        told = f"its data has changed while candidates were tried ({changed})"
        raise RunError(f"{directory}: {told}: their scores are of other examples; take another --run-dir")


def preferred(scores: Mapping[str, Mapping[str, Any]], monitor: str) -> str:
    """The candidate with the best value of `monitor`; of those that chance does not tell apart, the one of least loss.

    `scores`: validation's scores by name. Chance is one standard error: of 860 examples of which 90 % are
    right, one point. The loss weighs how sure each answer is, and so tells more with the same examples.
    """
    if monitor == "val_loss":
        return min(scores, key=lambda name: scores[name]["loss"])
    shares = {name: _share(values, monitor) for name, values in scores.items()}
    first = max(shares, key=lambda name: shares[name])
    share = shares[first]
    chance = _chance(scores[first], share, monitor)
    return min((name for name in shares if shares[name] >= share - chance), key=lambda name: scores[name]["loss"])


def _chance(values: Mapping[str, Any], share: float, monitor: str) -> float:
    """One standard error: of a share of the examples; of macro F1, of a mean of shares, each of a class's examples."""
    if monitor == "val_macro_f1":
        found = [(row["f1"], row["support"]) for row in values["per_class"] if row["support"]]
        return math.sqrt(sum(f1 * (1 - f1) / support for f1, support in found)) / len(found)
    return math.sqrt(share * (1 - share) / values["examples"])


def _share(values: Mapping[str, Any], monitor: str) -> float:
    if monitor == "val_macro_f1":
        return values["macro"]["f1"]
    return values["top_k_accuracy" if monitor == "val_top5_accuracy" else "accuracy"]


def _promote(directory: Path, best: Path) -> None:
    for name in (*KEPT, *(name for name in VOCABULARIES if (best / name).exists())):
        write_bytes(directory / name, (best / name).read_bytes())
    for name in ("examples", "pictures"):
        shutil.copytree(best / name, directory / name, dirs_exist_ok=True)


def _report(directory: Path, best: str) -> str:
    text = (directory / "candidates" / best / "report.md").read_text(encoding="utf-8")
    head, _, rest = text.replace("--logdir tensorboard", f"--logdir candidates/{best}/tensorboard").partition("\n")
    return f"{head}\n\n{tried(directory)}\n{rest}"


def _power(number: int) -> int:
    """The largest power of two up to `number`, at least 4."""
    return max(4, 2 ** int(np.log2(max(number, 1))))

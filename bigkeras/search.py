"""A recipe whose model is "auto": a few candidates that suit the data, and the one that validation prefers."""

import importlib.util
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bigkeras.data.source import Splits
from bigkeras.models.pretrained import LITE0_MEAN, LITE0_STD, PACKAGE
from bigkeras.recipe import Choice, Recipe, RecipeError
from bigkeras.run import RunError, write_json, write_text
from bigkeras.tasks.classification import survey
from bigkeras.text_search import text_candidates

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
OPEN = ("name", "claim", "data", "task", "model", "loss", "precision", "seed", "balance", "monitor", "max_bad_fraction")
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


def check_auto(recipe: Recipe) -> None:
    """Raises RecipeError for a value that the candidates would not heed."""
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name not in OPEN and value != field.default:
            raise RecipeError(f"{field.name}={value}: model auto decides it; name a model, as --set model=resnet")
    if recipe.model.args:
        raise RecipeError(f"model.{next(iter(recipe.model.args))}: model auto takes no arguments")


def has_imagenet() -> bool:
    """Whether the package with EfficientNet-Lite0's ImageNet weights is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def candidates(recipe: Recipe, splits: Splits) -> list[Recipe]:
    """Concrete recipes to try, each a function of the data alone; a later one may start from an earlier one."""
    if recipe.task.name == "text_classification":
        return text_candidates(recipe, splits)
    shapes, channels = survey(splits.train)
    side = int(np.median(shapes.min(1)))
    photographs = side >= PHOTOGRAPH and channels == 3
    pretrained = channels == 3 and has_imagenet()
    size = recipe.task.args.get("height") or recipe.task.args.get("width")
    tried = []
    if not photographs or not pretrained:
        looks = SMALL_LOOKS * (SHARE_BESIDE if pretrained else 1)
        tried.append(_small(recipe, splits, size or min(max(side, SMALLEST), 64), channels, looks))
    if pretrained:
        frozen = _frozen(recipe, splits, size or (224 if photographs else 128))
        tried.append(frozen)
        tried.append(_tuned(frozen, len(splits.train)))
    return tried


def _small(recipe: Recipe, splits: Splits, size: int, channels: int, looks: float) -> Recipe:
    epochs = _epochs(looks * 32**2 / size**2, len(splits.train), 15, 120)
    turned = (Choice("flip"),) if channels == 3 else ()  # a mirrored letter is another one, a mirrored cat is a cat
    return replace(
        recipe,
        name=f"{recipe.name}-small",
        claim="a small fast network from scratch",
        task=Choice(recipe.task.name, {**recipe.task.args, "height": size, "width": size}),
        model=Choice("airbench", {"widths": [64, 128, 256]}),
        augmentation=(*turned, Choice("crop", {"padding": max(1, size // 16)}), Choice("random_erasing")),
        optimizer=Choice("adamw", {"learning_rate": 3e-3, "weight_decay": 0.05}),
        schedule=Choice("cosine", {"warmup_epochs": 2.0}),
        ema=0.99,
        epochs=epochs,
        batch_size=min(64, _power(len(splits.train) // 8)),
    )


def _frozen(recipe: Recipe, splits: Splits, size: int) -> Recipe:
    looks = FROZEN_LOOKS * 224**2 / size**2
    statistics = {"mean": [LITE0_MEAN / 255] * 3, "std": [LITE0_STD / 255] * 3, "channels": 3}
    return replace(
        recipe,
        name=f"{recipe.name}-frozen",
        claim="EfficientNet-Lite0 with its ImageNet weights, a new last layer",
        task=Choice(recipe.task.name, {**recipe.task.args, "height": size, "width": size, **statistics}),
        model=Choice("efficientnet", {"variant": "lite0", "dropout": 0.2}),
        start_from="imagenet",
        freeze_until="features",
        augmentation=(Choice("flip"),),
        optimizer=Choice("adamw", {"learning_rate": 5e-3, "weight_decay": 0.05}),
        epochs=_epochs(looks, len(splits.train), 4, 40),
        batch_size=min(32, _power(len(splits.train) // 8)),
    )


def _tuned(frozen: Recipe, examples: int) -> Recipe:
    return replace(
        frozen,
        name=frozen.name.replace("-frozen", "-tuned"),
        claim="the frozen candidate, with its last stages trained on at a lower rate",
        start_from=frozen.name,
        freeze_until="stage5",
        augmentation=(Choice("flip"), Choice("random_resized_crop", {"minimum_area": 0.5})),
        optimizer=Choice("adamw", {"learning_rate": 3e-4, "weight_decay": 0.05}),
        schedule=Choice("cosine", {"warmup_epochs": 1.0}),
        epochs=_epochs(TUNED_LOOKS * 224**2 / frozen.task.args["height"] ** 2, examples, 2, 15),
    )


def fit_best(recipe: Recipe, directory: Path, splits: Splits, fit: Any, log: Any) -> dict[str, Any]:
    """Trains the candidates under `directory`/candidates and makes `directory` the run of the best one.

    `fit(recipe, run_dir)` trains one. Says in search.json what was tried; a run that was stopped goes on.
    """
    if splits.validation is None:
        raise RunError("model auto chooses by validation, and there is no validation split; name a model instead")
    if recipe.task.name == "image_classification" and not has_imagenet():
        log.say('for photographs there is more: pip install "bigkeras[imagenet]" brings a pretrained backbone')
    scores = {}
    tried = candidates(recipe, splits)
    for candidate in tried:
        log.say(f"candidate {candidate.name}: {candidate.claim}, {candidate.epochs} epochs")
        place = directory / "candidates" / candidate.name
        if candidate.start_from in scores:
            earlier = (directory / "candidates" / str(candidate.start_from)).resolve()
            candidate = replace(candidate, start_from=str(earlier))
        scores[candidate.name] = fit(candidate, place)["validation"]
    best = preferred(scores, recipe.monitor)
    summary = {name: {"accuracy": s["accuracy"], "loss": s["loss"]} for name, s in scores.items()}
    # First this: from now on it says whose run the directory is, and recipe.json what was kept.
    write_json(directory / "search.json", {"asked": asdict(recipe), "tried": summary, "kept": best})
    _promote(directory, directory / "candidates" / best)
    told = ", ".join(f"{name} {s['accuracy']:.4f}" for name, s in scores.items())
    log.say(f"validation accuracy: {told}; kept {best}")
    write_text(directory / "report.md", _report(directory / "candidates" / best, told, best))
    metrics = (directory / "candidates" / best / "metrics.json").read_text(encoding="utf-8")
    write_text(directory / "metrics.json", metrics)
    return json.loads(metrics)


def preferred(scores: Mapping[str, Mapping[str, Any]], monitor: str) -> str:
    """The candidate with the best value of `monitor`; of those that chance does not tell apart, the one of least loss.

    `scores`: validation's scores by name. Chance is one standard error of a share: of 860 examples of which 90 % are
    right, one point. The loss weighs how sure each answer is, and so tells more with the same examples.
    """
    if monitor == "val_loss":
        return min(scores, key=lambda name: scores[name]["loss"])
    shares = {name: _share(values, monitor) for name, values in scores.items()}
    first = max(shares, key=lambda name: shares[name])
    share = shares[first]
    chance = math.sqrt(share * (1 - share) / scores[first]["examples"])
    return min((name for name in shares if shares[name] >= share - chance), key=lambda name: scores[name]["loss"])


def _share(values: Mapping[str, Any], monitor: str) -> float:
    if monitor == "val_macro_f1":
        return values["macro"]["f1"]
    return values["top_k_accuracy" if monitor == "val_top5_accuracy" else "accuracy"]


def _promote(directory: Path, best: Path) -> None:
    for name in (*KEPT, *(name for name in VOCABULARIES if (best / name).exists())):
        shutil.copyfile(best / name, directory / name)
    for name in ("examples", "pictures"):
        shutil.copytree(best / name, directory / name, dirs_exist_ok=True)


def _report(best: Path, told: str, name: str) -> str:
    head, _, rest = (best / "report.md").read_text(encoding="utf-8").partition("\n")
    return f"{head}\n\nModel auto tried several candidates and kept **{name}**; validation accuracy: {told}.\n{rest}"


def _epochs(looks: float, examples: int, fewest: int, most: int) -> int:
    return int(np.clip(round(looks / examples), fewest, most))


def _power(number: int) -> int:
    """The largest power of two up to `number`, at least 4."""
    return max(4, 2 ** int(np.log2(max(number, 1))))

"""What each command of the command line does; each gives its exit status. TensorFlow is imported inside them only."""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigkeras.signals import json_line, leaving, shown

MOST_EXAMPLES = 100  # lines of --examples; as many sentences as a translator's run leaves


def list_recipes(options: argparse.Namespace) -> int:
    """`bigkeras list`: the recipes, each with what it reaches."""
    from bigkeras.recipes import RECIPES

    if options.json:
        print(json_line({name: json.loads(recipe.to_json()) for name, recipe in RECIPES.items()}))
        return 0
    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        print(f"{name:{width}}  {recipe.claim}")
    return 0


def settings(options: argparse.Namespace) -> int:
    """`bigkeras settings`: what a recipe can be told. Raises RecipeError."""
    from bigkeras.recipe import known, parse_setting

    asked = dict(sorted(map(parse_setting, options.set), key=lambda item: "." in item[0]))
    recipe = _recipe(options.recipe, goes_on=True).override(**asked)
    _start_tensorflow(operates=False)
    from bigkeras.models import MODELS
    from bigkeras.settings import AUTO, as_json, as_text

    if "model" in asked:  # that of a run may be one of one's own
        known("model", recipe.model.name, (*MODELS, AUTO))

    print(as_json(recipe) if options.json else "\n".join(map(shown, as_text(recipe).split("\n"))))
    return 0


AVERAGES = {"ema", "average_checkpoints"}


def train(options: argparse.Namespace) -> int:
    """`bigkeras train`: trains a recipe, or goes on with its run. Raises what `fit` raises."""
    from bigkeras.data.files import expanded
    from bigkeras.recipe import RecipeError, parse_setting
    from bigkeras.recipes import RECIPES

    if options.run_dir == "":
        raise RecipeError("--run-dir '': a folder; is a variable of the shell empty?")
    # A shell leaves --run-dir=~/runs/mine as it is.
    asked_dir = expanded(options.run_dir) if options.run_dir else None
    goes_on = not asked_dir or asked_dir.resolve() == Path(options.recipe).resolve()
    recipe = _recipe(options.recipe, goes_on)
    # A function's name first, since its arguments mean nothing to another.
    settings = dict(sorted(map(parse_setting, options.set), key=lambda item: "." in item[0]))
    asked = recipe.override(**settings)  # what cannot be is said before TensorFlow is imported
    run_dir = asked_dir or Path(options.recipe if _is_run(options.recipe) else Path("runs") / asked.name)
    from bigkeras.runtime import Machine, on_jax

    _start_tensorflow(or_jax=on_jax(), operates=False)
    from bigkeras.checks import AUTO
    from bigkeras.inheritance import absolute, continued, wired_alike
    from bigkeras.recipe_data import with_data
    from bigkeras.search import check_auto
    from bigkeras.train import fit

    # Where it starts from, and on what; the recipe that it goes on with; then what else is asked for.
    first = {
        key: v for key, v in settings.items() if key in ("start_from", "model") or key.startswith(("data", "task"))
    }
    recipe = recipe.override(**first)
    recipe = absolute(recipe, "start_from")
    recipe, before = continued(recipe), recipe
    if recipe is not before and any(settings.get(name) for name in AVERAGES):  # one excludes the run's other
        recipe = recipe.override(**dict.fromkeys(AVERAGES - settings.keys()))
    if options.recipe in RECIPES:  # of one's own `fit` takes over what it does not say
        whole = settings.get("model")
        recipe = wired_alike(recipe, whole.get("args", {}) if isinstance(whole, dict) else ())
    recipe = recipe.override(**{key: v for key, v in settings.items() if key not in first})
    _check_one_place(options.data, settings)
    if recipe.model.name == AUTO:
        check_auto(recipe, {key.partition(".")[0] for key in settings})
    machine = Machine(
        strategy=options.strategy,
        replicas=options.replicas,
        tpu=options.tpu,
        shards=options.shards,
        steps_per_call=options.steps_per_call,
        xla=options.xla,
        checkpoint_seconds=options.checkpoint_seconds,
        patience_seconds=options.patience_seconds,
        profile=options.profile,
    )
    metrics = fit(with_data(recipe, options.data), run_dir, machine=machine)
    if options.json:
        print(json_line(metrics))
    else:
        print(_summary(metrics) + f"\n{run_dir}/report.md has the details")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """`bigkeras evaluate`: prints the scores of a run or a model. Raises what `evaluation.evaluate` raises."""
    _start_tensorflow()
    from bigkeras.evaluation import evaluate
    from bigkeras.recipe import parse_setting
    from bigkeras.signals import Log

    _say_unfinished(options.path)
    settings = dict(map(parse_setting, options.set))
    _check_one_place(options.data, settings)
    metrics = evaluate(
        options.path, split=options.split, data=options.data, average=options.average, settings=settings, log=Log()
    )
    print(json_line(metrics) if options.json else _summary(metrics))
    return 0


def _check_one_place(data: str | None, settings: Mapping[str, Any]) -> None:
    """Raises RecipeError where --data and --set both say where the data lies."""
    from bigkeras.recipe import RecipeError

    both = [key for key in ("data.file", "data.directory") if data is not None and key in settings]
    if both:
        raise RecipeError(f"--data {data} and --set {both[0]}={settings[both[0]]}: one of them says where it lies")


def _example_texts(options: argparse.Namespace) -> list[bytes] | None:
    """The lines of --examples, as `export` takes them. Raises RunError for none, or for a model that reads images."""
    from bigkeras.data.encoding import decoded
    from bigkeras.data.files import expanded
    from bigkeras.run import RunError, read_json

    if not options.examples:
        return None
    told = Path(options.run, "preprocessor.json")
    if told.is_file() and read_json(told).get("kind") == "image":
        raise RunError(
            f"--examples: {options.run} reads images; from Python, bigkeras.artifact.export takes them encoded"
        )
    content, _ = decoded(expanded(options.examples).read_bytes(), options.examples)
    # A sentence may hold signs that Unicode takes for ends of lines.
    texts = [line.strip().encode() for line in re.split(r"[\r\n]+", content) if line.strip()]
    if not texts:
        raise RunError(f"--examples: {options.examples} holds no text")
    return texts[:MOST_EXAMPLES]


def export(options: argparse.Namespace) -> int:
    """`bigkeras export`: writes the artifact of a run, or a model anew. Raises what `artifact.export` raises."""
    _start_tensorflow()
    if options.run == "lite0-imagenet":
        from bigkeras.imagenet import export_lite0
        from bigkeras.recipe import RecipeError

        if options.warm_compiled or options.beam or options.examples:
            raise RecipeError("lite0-imagenet: --warm-compiled, --beam and --examples are of texts")

        with leaving():
            result = export_lite0(options.directory)
    else:
        from bigkeras.artifact import export

        _say_unfinished(options.run)
        with leaving():
            result = export(
                options.run, options.directory, _example_texts(options), warm_compiled=options.warm_compiled,
                beam=options.beam,
            )  # fmt: skip
    if options.json:
        print(json_line(result))
    elif "agreement" in result:
        print(
            f"{options.directory}: {result['parameters']:,} parameters, {result['bytes'] / 1e6:.1f} MB; both of "
            f"TensorFlow's loaders translate {result['examples']} sentences as the Keras model does"
        )
    else:
        worst = max(result["differences"].values())
        print(
            f"{options.directory}: {result['parameters']:,} parameters, {result['bytes'] / 1e6:.1f} MB; both of "
            f"TensorFlow's loaders give the Keras model's answers to {worst:.1g} on {result['examples']} examples"
        )
    return 0


def pack(options: argparse.Namespace) -> int:
    """`bigkeras pack`: a folder of images as ArrayRecord shards. Raises DataError."""
    _start_tensorflow()
    from bigkeras.data.pack import pack
    from bigkeras.data.source import DataError, left_out
    from bigkeras.recipe import Choice
    from bigkeras.recipe_data import load_splits
    from bigkeras.recipes import RECIPES

    if options.shard_megabytes < 1:
        raise DataError(f"--shard-megabytes {options.shard_megabytes}: at least 1")
    # What could not be trained on is told now, not after a million pictures.
    folder = Choice("image_folder", {"directory": options.folder})
    splits = load_splits(RECIPES["image-folder"].override(data=folder))
    for line in left_out(splits):
        print(shown(line), file=sys.stderr)
    with leaving():
        told = pack(splits, options.out, shard_megabytes=options.shard_megabytes)
    print(told)
    return 0


def doctor(options: argparse.Namespace) -> int:
    """`bigkeras doctor`: what this machine has."""
    from bigkeras.doctor import main as doctor

    return doctor(json=options.json) or 0


def _start_tensorflow(or_jax: bool = False, operates: bool = True) -> None:
    from bigkeras.remarks import begin_quietly, import_tensorflow
    from bigkeras.runtime import check_backend, check_jax, check_numbers

    check_numbers()
    if or_jax:
        check_jax()
    else:
        check_backend()
    import_tensorflow()
    if operates:  # a training makes its strategy before any operation, and what is only told needs no GPU
        begin_quietly()


def _recipe(name: str, goes_on: bool) -> Any:
    """The recipe of a name, a file or a run; of a run that `goes_on`, the one that it was begun with."""
    from bigkeras.recipe import RecipeError, load
    from bigkeras.recipes import RECIPES
    from bigkeras.run import asked_for

    if name in RECIPES:
        return RECIPES[name]
    if Path(name).is_dir() and not any(Path(name, file).exists() for file in ("recipe.json", "search.json")):
        told = "a name of `bigkeras list` comes first, and where the data is by --data"
        raise RecipeError(f"{name}: no directory of a run: it has no recipe.json; {told}")
    if goes_on and _is_run(name):
        return asked_for(Path(name))
    if name.endswith(".json") or Path(name).is_dir():
        return load(name)
    raise RecipeError(f"recipe {name!r} is not one of {', '.join(RECIPES)}, nor a recipe.json or a run directory")


def _say_unfinished(run: str) -> None:
    from bigkeras.run import unfinished

    told = unfinished(run)
    if told:
        print(shown(told), file=sys.stderr)


def _is_run(name: str) -> bool:
    """Whether a folder is named, and no recipe, that is a run directory: a shipped model does not go on."""
    from bigkeras.recipes import RECIPES
    from bigkeras.run import saved_version

    return name not in RECIPES and Path(name).is_dir() and saved_version(Path(name)) is None


def _summary(metrics: dict[str, Any]) -> str:
    """A line for every split that was scored."""
    lines = []
    for split, values in metrics.items():
        if isinstance(values, dict) and "accuracy_95" in values:
            low, high = values["accuracy_95"]
            lines.append(
                f"{split}: accuracy {values['accuracy']:.4f} (95 %: {low:.4f}–{high:.4f}), loss {values['loss']:.4f}, "
                f"macro F1 {values['macro']['f1']:.4f}, {values['examples']} examples"
            )
        elif isinstance(values, dict) and "perplexity" in values:
            lines.append(
                f"{split}: perplexity {values['perplexity']:.2f}, accuracy {values['accuracy']:.4f} of "
                f"{values['hidden_tokens']} hidden tokens in {values['examples']} texts or parts of long ones"
            )
        elif isinstance(values, dict) and "bleu" in values:
            lines.append(
                f"{split}: BLEU {values['bleu']:.2f}, chrF {values['chrf']:.2f}; in lower case "
                f"{values['bleu_lower']:.2f}, {values['chrf_lower']:.2f}; {values['sentences']} sentences "
                f"({values['signatures']['bleu']})"
            )
            if names := values.get("names"):
                lines[-1] += f"; names and numbers kept: {names['kept']} of {names['shared']}"
    return "\n".join(lines) or "trained on all examples: there are no scores of validation"

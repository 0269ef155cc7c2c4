"""The command line: list, settings, train, evaluate and more. TensorFlow is imported inside commands only."""

import argparse
import contextlib
import io
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigkeras import __version__
from bigkeras.signals import leaving, open_standard_error, shown

MOST_AT_ONCE = 1024  # sentences of a request that warms a server up
MOST_SIZES = 16  # a server takes a thousand such requests
MOST_EXAMPLES = 100  # lines of --examples; as many sentences as a translator's run leaves


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; gives the exit status: 0, 1 for what went wrong, 2 for a wrong command line."""
    open_standard_error()
    parser = make_parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "command"):
        parser.print_help()
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if isinstance(sys.stdout, io.TextIOWrapper):  # and not what a test or a notebook put there
        encoding = "utf-8" if getattr(options, "json", False) else None
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
    try:
        status = options.command(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _drop_output()
        return 1
    except Exception as error:
        if not _is_users(error):
            raise
        signum = getattr(error, "signum", None)
        with contextlib.suppress(OSError):  # a terminal that is closed
            print(f"bigkeras: {shown(_line(error))}", file=sys.stderr, flush=True)
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            _drop_output()
        return 128 + signum if signum else 1


def _drop_output() -> None:
    """What cannot be written is not tried once more at exit, of which Python would print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_users(error: Exception) -> bool:
    """Whether the error is one that says what a user can do, in one line."""
    from bigkeras.data.source import DataError
    from bigkeras.recipe import RecipeError
    from bigkeras.run import RunError
    from bigkeras.runtime import MachineError

    ours = ("ChiefError", "Diverged", "Interrupted", "LostWorker", "ExportError")
    tensorflow = ("PermissionDeniedError", "ResourceExhaustedError")  # what its own writers raise
    known = isinstance(error, (DataError, RecipeError, RunError, MachineError, OSError))
    full = _is_of_a_device(error) and "RESOURCE_EXHAUSTED" in str(error)
    return known or full or type(error).__name__ in (*ours, *tensorflow)


def _is_of_a_device(error: Exception) -> bool:
    """Whether TensorFlow or JAX raises the error where a device cannot go on."""
    return type(error).__name__ in ("ResourceExhaustedError", "XlaRuntimeError", "JaxRuntimeError")


def _line(error: Exception) -> str:
    """What an error says; of the system's own, the file and the reason; of too little memory, what needs less."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if re.search("RESOURCE_EXHAUSTED|OOM|alloca|[Oo]ut of memory", str(error)) and _is_of_a_device(error):
        return (
            "a device has too little memory; in training a smaller batch_size, more micro_batches or a smaller model "
            "need less, in a new --run-dir"
        )
    return str(error).split("\n")[0] if hasattr(error, "error_code") else str(error)


def make_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(prog="bigkeras", description="Recipes in, trained and exported Keras models out.")
    parser.add_argument("--version", action="version", version=f"bigkeras {__version__}")
    commands = parser.add_subparsers(metavar="command")

    sub = commands.add_parser("list", help="the recipes, with what each reaches")
    sub.add_argument("--json", action="store_true", help="the recipes whole, as JSON")
    sub.set_defaults(command=_list)

    sub = commands.add_parser("settings", help="all that --set can say of a recipe: keys, values, what they mean")
    sub.add_argument("recipe", help="a name of `bigkeras list`, a recipe.json, or a run directory")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value, as model=resnet")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.set_defaults(command=_settings)

    sub = commands.add_parser("train", help="train a recipe, or go on with its run")
    sub.add_argument(
        "recipe", help="a name of `bigkeras list`, a recipe.json, or a run directory: without --run-dir it goes on"
    )
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value, as model.depth=56")
    sub.add_argument("--data", metavar="PATH", help="where the data is: a folder, a table or a file of pairs")
    sub.add_argument("--run-dir", metavar="DIR", help="where the run lives (runs/NAME)")
    sub.add_argument(
        "--strategy",
        default="auto",
        help="auto, one, mirrored, multiworker, parameter_server or tpu; "
        "on JAX auto, one, data_parallel or model_parallel",
    )
    sub.add_argument("--replicas", type=int, help="how many devices mirrored takes (all GPUs, or 2 CPU devices)")
    sub.add_argument("--tpu", metavar="NAME", help="the TPU that tpu takes (the environment's, or this machine's)")
    sub.add_argument("--shards", type=int, default=2, help="how many devices model_parallel parts a layer over (2)")
    sub.add_argument("--steps-per-call", type=int, help="train steps in one call from the host (1; on a TPU 8)")
    sub.add_argument("--xla", action=argparse.BooleanOptionalAction,
                     help="compile the whole train step (on a TPU, and on one GPU where Keras would); on one device "
                     "GELU and the updates of large models are compiled in any case")  # fmt: skip
    sub.add_argument("--checkpoint-seconds", type=float, default=60.0, help="time between checkpoints (60)")
    sub.add_argument("--patience-seconds", type=float, default=60.0,
                     help="without a step, after which a worker names who holds up the others (60)")  # fmt: skip
    sub.add_argument("--profile", action="store_true", help="a profile of some steps for TensorBoard")
    sub.add_argument("--json", action="store_true", help="print the metrics as JSON")
    sub.set_defaults(command=_train)

    sub = commands.add_parser("evaluate", help="score a run or a shipped model")
    sub.add_argument("path", help="a run directory, or the folder of a shipped model")
    sub.add_argument("--split", default="test", help="test, validation, train or all (test)")
    sub.add_argument("--data", metavar="PATH", help="another place for the data")
    sub.add_argument("--set", action="append", default=[], metavar="data.KEY=VALUE",
                     help="another value of the data's, such as data.label=stars")  # fmt: skip
    sub.add_argument("--average", default="none", help="average over flips, shifts or flips-shifts (none)")
    sub.add_argument("--json", action="store_true", help="all metrics as JSON")
    sub.set_defaults(command=_evaluate)

    sub = commands.add_parser("export", help="write the SavedModel that servers and apps run")
    sub.add_argument("run", help="a run directory, or lite0-imagenet: photographs in 1,000 classes, trained already")
    sub.add_argument("directory", help="where the model's folder is written")
    sub.add_argument("--json", action="store_true", help="sizes and measured differences as JSON")
    sub.add_argument("--beam", type=int, choices=range(1, 33), metavar="N",
                     help="of a translator: so many hypotheses a search, in the place of the recipe's")  # fmt: skip
    sub.add_argument("--examples", metavar="FILE",
                     help="texts, one a line, by which the artifact is compared with the model: so an exported model, "
                     "too, is written anew, with the graph of this version")  # fmt: skip
    sub.add_argument("--warm-compiled", type=_sizes, default=(), metavar="N,N",
                     help="of a translator: a server compiles its signature compiled while it loads the model, for so "
                     "many sentences at a time in every length, such as 1,32; each takes seconds, and on CPUs the "
                     "server must be started with --xla_cpu_compilation_enabled=true")  # fmt: skip
    sub.set_defaults(command=_export)

    sub = commands.add_parser("pack", help="a folder of images as ArrayRecord shards")
    sub.add_argument("folder", help="one sub-folder per class")
    sub.add_argument("out", help="the directory that is written")
    sub.add_argument("--shard-megabytes", type=int, default=256, help="size of a file (256)")
    sub.set_defaults(command=_pack)

    sub = commands.add_parser("doctor", help="what this machine has, and what a run would take")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.set_defaults(command=_doctor)
    return parser


def _list(options: argparse.Namespace) -> int:
    from bigkeras.recipes import RECIPES

    if options.json:
        print(json.dumps({name: json.loads(recipe.to_json()) for name, recipe in RECIPES.items()}, ensure_ascii=False))
        return 0
    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        print(f"{name:{width}}  {recipe.claim}")
    return 0


def _settings(options: argparse.Namespace) -> int:
    from bigkeras.recipe import known, parse_setting

    asked = dict(sorted(map(parse_setting, options.set), key=lambda item: "." in item[0]))
    recipe = _recipe(options.recipe, goes_on=True).override(**asked)
    _start_tensorflow()
    from bigkeras.models import MODELS
    from bigkeras.settings import AUTO, as_json, as_text

    if "model" in asked:  # that of a run may be one of one's own
        known("model", recipe.model.name, (*MODELS, AUTO))
    from bigkeras.signals import shown

    print(as_json(recipe) if options.json else "\n".join(map(shown, as_text(recipe).split("\n"))))
    return 0


def _train(options: argparse.Namespace) -> int:
    from bigkeras.recipe import parse_setting
    from bigkeras.recipes import RECIPES

    goes_on = not options.run_dir or Path(options.run_dir).resolve() == Path(options.recipe).resolve()
    recipe = _recipe(options.recipe, goes_on)
    # A function's name first, since its arguments mean nothing to another.
    settings = dict(sorted(map(parse_setting, options.set), key=lambda item: "." in item[0]))
    asked = recipe.override(**settings)  # what cannot be is said before TensorFlow is imported
    run_dir = Path(options.run_dir or (options.recipe if _is_run(options.recipe) else Path("runs") / asked.name))
    from bigkeras.runtime import Machine, on_jax

    _start_tensorflow(or_jax=on_jax())
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
    recipe = continued(recipe)
    if options.recipe in RECIPES:  # one of one's own says what it wants
        whole = settings.get("model")
        recipe = wired_alike(recipe, whole.get("args", {}) if isinstance(whole, dict) else ())
    recipe = recipe.override(**{key: v for key, v in settings.items() if key not in first})
    _check_one_place(options.data, settings)
    recipe = absolute(recipe, "teacher", "back_translator", "task.vocabulary")
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
        print(json.dumps(metrics, ensure_ascii=False))
    else:
        print(_summary(metrics) + f"\n{run_dir}/report.md has the details")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
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
    print(json.dumps(metrics, ensure_ascii=False) if options.json else _summary(metrics))
    return 0


def _check_one_place(data: str | None, settings: Mapping[str, Any]) -> None:
    """Raises RecipeError where --data and --set both say where the data lies."""
    from bigkeras.recipe import RecipeError

    both = [key for key in ("data.file", "data.directory") if data is not None and key in settings]
    if both:
        raise RecipeError(f"--data {data} and --set {both[0]}={settings[both[0]]}: one of them says where it lies")


def _sizes(text: str) -> tuple[int, ...]:
    """For argparse: numbers of sentences with commas between."""
    sizes = [int(part) if part.isascii() and part.isdigit() else 0 for part in text.split(",")]
    if not all(0 < size <= MOST_AT_ONCE for size in sizes) or len(sizes) > MOST_SIZES:
        told = f"at most {MOST_SIZES} numbers from 1 to {MOST_AT_ONCE} with commas between, such as 1,32"
        raise argparse.ArgumentTypeError(f"{text!r}: {told}")
    return tuple(sizes)


def _example_texts(options: argparse.Namespace) -> list[bytes] | None:
    """The lines of --examples, as `export` takes them. Raises RunError for none, or for a model that reads images."""
    from bigkeras.run import RunError, read_json

    if not options.examples:
        return None
    told = Path(options.run, "preprocessor.json")
    if told.is_file() and read_json(told).get("kind") == "image":
        raise RunError(
            f"--examples: {options.run} reads images; from Python, bigkeras.artifact.export takes them encoded"
        )
    lines = [line.strip() for line in Path(options.examples).read_bytes().splitlines()]
    texts = [line for line in lines if line]
    if not texts:
        raise RunError(f"--examples: {options.examples} holds no text")
    return texts[:MOST_EXAMPLES]


def _export(options: argparse.Namespace) -> int:
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
        print(json.dumps(result, ensure_ascii=False))
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


def _pack(options: argparse.Namespace) -> int:
    _start_tensorflow()
    from bigkeras.data.folder import image_folder
    from bigkeras.data.pack import pack
    from bigkeras.data.source import DataError, ignored_line
    from bigkeras.signals import shown

    if options.shard_megabytes < 1:
        raise DataError(f"--shard-megabytes {options.shard_megabytes}: at least 1")
    splits = image_folder(directory=options.folder)
    if splits.ignored:
        print(shown(ignored_line(splits)), file=sys.stderr)
    with leaving():
        told = pack(splits, options.out, shard_megabytes=options.shard_megabytes)
    print(told)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from bigkeras.doctor import main as doctor

    return doctor(json=options.json) or 0


def _start_tensorflow(or_jax: bool = False) -> None:
    from bigkeras.runtime import check_backend, check_jax, import_tensorflow

    if or_jax:
        check_jax()
    else:
        check_backend()
    import_tensorflow()


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
    from bigkeras.signals import shown

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


if __name__ == "__main__":
    sys.exit(main())

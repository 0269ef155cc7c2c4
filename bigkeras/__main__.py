"""The command line: list, settings, train, evaluate and more. TensorFlow is imported inside commands only."""

import argparse
import contextlib
import dataclasses
import io
import os
import re
import signal
import sys
from typing import Any, NoReturn

from bigkeras import __version__, commands
from bigkeras.signals import open_standard_error, shown

MOST_AT_ONCE = 1024  # sentences of a request that warms a server up
MOST_SIZES = 16  # a server takes a thousand such requests


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
    from bigkeras.runtime import MachineError, out_of_memory

    ours = ("ChiefError", "Diverged", "Interrupted", "LostWorker", "ExportError")
    tensorflow = ("PermissionDeniedError", "ResourceExhaustedError")  # what its own writers raise
    known = isinstance(error, (DataError, RecipeError, RunError, MachineError, OSError, MemoryError))
    return known or out_of_memory(error) or type(error).__name__ in (*ours, *tensorflow)


def _line(error: Exception) -> str:
    """What an error says; of the system's own, the file and the reason; of too little memory, what needs less."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    from bigkeras.runtime import out_of_memory

    if isinstance(error, MemoryError):
        return "too little memory (of a table or a translation memory, which are read whole, take a part)"
    if out_of_memory(error):
        return (
            "a device has too little memory; in training a smaller batch_size, more micro_batches or a smaller model "
            "need less, in a new --run-dir"
        )
    return str(error).split("\n")[0] if hasattr(error, "error_code") else str(error)


class Parser(argparse.ArgumentParser):
    """Takes whole names of options alone, since --patience is no --patience-seconds; says how settings are written."""

    def __init__(self, **arguments: Any):
        super().__init__(**{**arguments, "allow_abbrev": False})
        self.asked: list[str] = []

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Argparse's own."""
        self.asked = sys.argv[1:] if args is None else [*args]
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Argparse's own; of a recipe's key, which is no option of `train`, how it is said."""
        from bigkeras.recipe import Recipe

        keys = {field.name for field in dataclasses.fields(Recipe)}
        names = [name.replace("-", "_") for name in re.findall(r" --([\w.-]+)", message)]
        known = [name for name in names if name.partition(".")[0] in keys]
        if known and "unrecognized" in message and self.asked[:1] == ["train"]:
            message += f"; a setting is said by --set {known[0]}=VALUE"
        super().error(message)


def make_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = Parser(prog="bigkeras", description="Recipes in, trained and exported Keras models out.")
    parser.add_argument("--version", action="version", version=f"bigkeras {__version__}")
    subs = parser.add_subparsers(metavar="command")

    sub = subs.add_parser("list", help="the recipes, with what each reaches")
    sub.add_argument("--json", action="store_true", help="the recipes whole, as JSON")
    sub.set_defaults(command=commands.list_recipes)

    sub = subs.add_parser("settings", help="all that --set can say of a recipe: keys, values, what they mean")
    sub.add_argument("recipe", help="a name of `bigkeras list`, a recipe.json, or a run directory")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value, as model=resnet")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.set_defaults(command=commands.settings)

    _add_train(subs)

    sub = subs.add_parser("evaluate", help="score a run or a shipped model")
    sub.add_argument("path", help="a run directory, or the folder of a shipped model")
    sub.add_argument("--split", default="test", help="test, validation, train or all (test)")
    sub.add_argument("--data", metavar="PATH", help="another place for the data")
    sub.add_argument("--set", action="append", default=[], metavar="data.KEY=VALUE",
                     help="another value of the data's, such as data.label=stars")  # fmt: skip
    sub.add_argument("--average", default="none", help="average over flips, shifts or flips-shifts (none)")
    sub.add_argument("--json", action="store_true", help="all metrics as JSON")
    sub.set_defaults(command=commands.evaluate)

    _add_export(subs)

    sub = subs.add_parser("pack", help="a folder of images as ArrayRecord shards")
    sub.add_argument("folder", help="one sub-folder per class")
    sub.add_argument("out", help="the directory that is written")
    sub.add_argument("--shard-megabytes", type=int, default=256, help="size of a file (256)")
    sub.set_defaults(command=commands.pack)

    sub = subs.add_parser("doctor", help="what this machine has, and what a run would take")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.set_defaults(command=commands.doctor)
    return parser


def _add_train(subs: "argparse._SubParsersAction") -> None:
    sub = subs.add_parser("train", help="train a recipe, or go on with its run")
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
    sub.set_defaults(command=commands.train)


def _add_export(subs: "argparse._SubParsersAction") -> None:
    sub = subs.add_parser("export", help="write the SavedModel that servers and apps run")
    sub.add_argument("run", help="a run directory, or lite0-imagenet: photographs in 1,000 classes, trained already")
    sub.add_argument("directory", help="where the model's folder is written")
    sub.add_argument("--json", action="store_true", help="sizes and measured differences as JSON")
    sub.add_argument("--beam", type=int, choices=range(1, 33), metavar="N",
                     help="of a translator: so many hypotheses a search, in the place of the recipe's")  # fmt: skip
    sub.add_argument("--examples", metavar="FILE",
                     help="texts, one a line; the first 100 compare the artifact with the model, so that an exported "
                     "model, too, is written anew, with the graph of this version")  # fmt: skip
    sub.add_argument("--warm-compiled", type=_sizes, default=(), metavar="N,N",
                     help="of a translator: a server compiles its signature compiled while it loads the model, for so "
                     "many sentences at a time in every length, such as 1,32; each takes seconds, and on CPUs the "
                     "server must be started with --xla_cpu_compilation_enabled=true")  # fmt: skip
    sub.set_defaults(command=commands.export)


def _sizes(text: str) -> tuple[int, ...]:
    """For argparse: numbers of sentences with commas between."""
    sizes = [int(part) if part.isascii() and part.isdigit() else 0 for part in text.split(",")]
    if not all(0 < size <= MOST_AT_ONCE for size in sizes) or len(sizes) > MOST_SIZES:
        told = f"at most {MOST_SIZES} numbers from 1 to {MOST_AT_ONCE} with commas between, such as 1,32"
        raise argparse.ArgumentTypeError(f"{text!r}: {told}")
    return tuple(sizes)


if __name__ == "__main__":
    sys.exit(main())

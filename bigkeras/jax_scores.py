"""Scores of a run on Keras' JAX backend, found by a process on TensorFlow: what decodes and reports is made there.

As a program it does in the run directory that is its first argument what the second one names.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np

from bigkeras.checkpoint import Position
from bigkeras.data.fingerprint import DATA_FILE, fingerprints, other_data
from bigkeras.data.source import ArraySource, DataError, Source
from bigkeras.evaluation import finish_run
from bigkeras.recipe import RecipeError, load
from bigkeras.run import read_json
from bigkeras.tasks import load_task
from bigkeras.translator import Translator, texts_of, validation_scores

KNOWN = ("keras", "bigkeras", "keras_hub")  # whose layers the process knows, or reads without
LOOKING = 0.5  # seconds between two looks at whether to leave
NOT_UTF8 = "surrogateescape"  # bytes that are none go through JSON and come out as they were


def own_modules(network: keras.Model) -> list[str]:
    """The modules of what a model has that is not Keras' and not of this package: the process that scores imports them.

    Layers, and functions and initialisers that they name. Raises RecipeError for those of the program itself, which it
    cannot import.
    """
    found = {(type(layer).__module__, f"layer {type(layer).__name__}") for layer in network._flatten_layers()}
    found |= set(_named_in(network.get_config()))
    own = sorted({module for module, _ in found if module.partition(".")[0] not in KNOWN})
    for _, name in sorted(each for each in found if each[0] == "__main__"):
        raise RecipeError(
            f"{name}: is of the program that runs, and what scores a run on JAX is another one: put it into a module, "
            "and import it from there"
        )
    return own


def _named_in(config: Any) -> Iterator[tuple[str, str]]:
    """Module and name of each object that a Keras configuration holds."""
    if isinstance(config, dict):
        if "class_name" in config and "registered_name" in config:
            # Of a function Keras writes no module, and its name elsewhere.
            of_function = config["class_name"] == "function"
            known = keras.saving.get_registered_object(config["config" if of_function else "registered_name"])
            if known is not None:
                kind = "function" if of_function else "layer" if issubclass(known, keras.layers.Layer) else "class"
                yield known.__module__, f"{kind} {known.__name__}"
        config = list(config.values())
    for each in config if isinstance(config, list | tuple) else ():
        yield from _named_in(each)


def finished(directory: Path, position: Position, modules: Sequence[str] = ()) -> dict[str, Any]:
    """Scores the best model and writes the report of a run that is trained; gives its metrics. Raises DataError.

    `modules`: what `own_modules` gave.
    """
    command, environment = _command(directory, "finish", modules), _on_tensorflow(modules)
    with tempfile.TemporaryFile() as errors:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                with contextlib.suppress(BrokenPipeError):  # it has ended, and said why
                    process.stdin.write(json.dumps([position.history, position.bad]) + "\n")
                    process.stdin.flush()
                # Its input stays open: the end of it tells that this process is no more.
                answer = process.stdout.read()
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            errors.seek(0)
            told = _last_line(errors.read().decode("utf-8", "replace"))
            raise DataError(f"{directory}: trained, but not scored: {told}")
    return json.loads(answer)


class TranslationScores:
    """Calling it with a saved model gives {"val_bleu": …} of a source of pairs.

    The process that translates begins at the first call, and stays for the others.
    """

    def __init__(self, directory: Path, source: Source, modules: Sequence[str] = ()):
        """`directory`: the run's, which holds the preprocessor. `modules`: what `own_modules` gave."""
        self.directory, self.source, self.modules = directory, source, modules
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self.process: Any = None

    def __call__(self, model: Path, between: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Raises DataError where the process has ended. `between`: called again and again meanwhile, as to leave."""
        try:
            if self.process is None:
                self._begin()
            self._tell(str(model.resolve()))
            while not select.select([self.process.stdout], [], [], LOOKING)[0]:
                between()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.errors.seek(0)
            why = _last_line(self.errors.read().decode("utf-8", "replace"))
            raise DataError(f"{self.directory}: the translations of the epoch cannot be scored: {why}")
        return json.loads(answer)

    def _begin(self) -> None:
        self.process = subprocess.Popen(
            _command(self.directory, "translate", self.modules), env=_on_tensorflow(self.modules), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            process_group=0,  # Ctrl-C is for the run, which saves first
        )  # fmt: skip
        columns = texts_of(self.source).columns
        self._tell({name: [text.decode("utf-8", NOT_UTF8) for text in texts] for name, texts in columns.items()})

    def _tell(self, value: Any) -> None:
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        self.errors.close()


def _command(directory: Path, what: str, modules: Sequence[str]) -> list[str]:
    return [sys.executable, "-P", "-m", "bigkeras.jax_scores", str(directory.resolve()), what, *modules]


def _on_tensorflow(modules: Sequence[str]) -> dict[str, str]:
    """The environment of a process on TensorFlow, beside JAX, which takes most of a GPU's memory.

    Where it imports modules, it looks for them where this one has found them.
    """
    root = str(Path(__file__).resolve().parents[1])
    places = [os.path.abspath(place) for place in sys.path] if modules else []
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")]), *places])
    ours = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    # TensorFlow ends the process at a flag of XLA that only JAX's version knows.
    others = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return {**others, **ours, "PYTHONPATH": path}


def _last_line(errors: str) -> str:
    return (errors.strip().splitlines() or ["its process was ended"])[-1]


# ---------------------------------------------------------------------- what runs on TensorFlow


def _finish(directory: Path, answers: TextIO) -> None:
    from bigkeras.recipe_data import load_splits

    recipe = load(directory)
    history, bad = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    splits = load_splits(recipe)
    changed = other_data(read_json(directory / DATA_FILE), fingerprints(splits, "validation"))
    if changed:
        raise DataError(f"the data has changed since the run began ({changed}), and may have been learned from")
    print(json.dumps(finish_run(directory, recipe, splits.validation, history, bad)), file=answers, flush=True)


def _end_with_input() -> None:
    """Ends this process when the one that began it has ended, however: it would write into a run that may go on."""
    sys.stdin.read()
    os._exit(1)


def _translate(directory: Path, answers: TextIO) -> None:
    """Reads the columns of a source of pairs, then the path of a model a line; writes a line of scores for each."""
    import bigkeras.models  # noqa: F401  registers the layers

    # Who asks the run to end may ask all its processes; this one ends with what it reads.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    columns = {}
    for name, texts in json.loads(sys.stdin.readline()).items():
        columns[name] = np.array([text.encode("utf-8", NOT_UTF8) for text in texts], object)
    source = ArraySource(columns, np.zeros(len(columns["source"]), np.int32))
    task = load_task(directory, ())
    translator: Translator | None = None
    for line in sys.stdin:
        network = keras.models.load_model(json.loads(line), compile=False, safe_mode=True)
        # One of them translates, whatever its weights: another would have everything traced anew.
        translator = translator or Translator(network, task.preprocessor)
        translator.network.set_weights(network.get_weights())
        print(json.dumps(validation_scores(translator, source)[0]), file=answers, flush=True)


WHAT = {"finish": _finish, "translate": _translate}

if __name__ == "__main__":
    # Open to the end: who reads it waits for that, and then closes what this process reads, which would end it.
    pipe = open(os.dup(1), "w", closefd=False)  # noqa: SIM115
    os.dup2(2, 1)  # what a module of one's own prints is no answer
    sys.stdout = sys.stderr  # and stands before what goes wrong later
    for module in sys.argv[3:]:
        importlib.import_module(module)
    WHAT[sys.argv[2]](Path(sys.argv[1]), pipe)

"""Run a SavedModel: raw input in, finished answers out, without importing TensorFlow where that can be avoided.

Two runtimes give the same answers: "c" calls TensorFlow's native library directly (an answer in one to two seconds),
"python" is TensorFlow itself (5 to 10 seconds to import), for platforms whose wheel has no such library.
"""

import importlib.util
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from apps.native import library_path, opening
from apps.remarks import without_remarks
from apps.signatures import ModelError, read_graph

if TYPE_CHECKING:
    from apps.c_api import CModel
    from apps.python_model import PythonModel

RUNTIMES = ("auto", "c", "python")
# Operations of TensorFlow Text that artifacts use, and the library of its wheel that has each.
TEXT_LIBRARIES = {
    "NormalizeUTF8": "_normalize_ops.so",
    "SentencepieceOp": "_sentencepiece_tokenizer.so",
    "FastBertNormalize": "_fast_bert_normalizer.so",
    "FastWordpieceTokenizeWithOffsets": "_fast_wordpiece_tokenizer.so",
}


def load(
    directory: str | Path,
    runtime: str = "auto",
    *,
    threads: int | None = None,
    optimise: bool = True,
    only: Collection[str] = (),
) -> "CModel | PythonModel":
    """The SavedModel in `directory`, ready to run.

    `directory` is a version (`…/1`) or the folder of versions, of which the highest number is taken. `runtime` is "c",
    "python", or "auto": C where the wheel has the library, else Python. The operations of TensorFlow Text are found.
    `threads` limits the threads of one operation, in a process' first model; with one, on a CPU and by the C runtime,
    the calling thread does all of it but what XLA has compiled, and several may call `run` at once, which is faster
    where operations are small. Without `optimise` the C runtime leaves the graph alone: the first answer comes seconds
    sooner, and many take up to three times as long (no oneDNN in this process either). `only` are the signatures that
    will be run, none for all: the C runtime leaves the others' part of the graph out, and starts so much the sooner.

    The result has `runtime` ("c" or "python"), `signatures` (name → Signature) and `run(signature, inputs)`, which
    takes `{name: array, or list of bytes}` and gives `{name: array}`; strings come as object arrays of bytes.

    Raises ModelError, and ValueError for an unknown runtime.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime {runtime!r} is not one of {', '.join(RUNTIMES)}")
    directory = version_directory(directory)
    if not (directory / "variables" / "variables.index").is_file():
        # The C++ loader takes this for a model without variables, and fails at the first answer only.
        raise ModelError(f"{directory}: cannot be loaded: lacks variables/variables.index; was it copied in part?")
    _speak_no_turkish()
    python = runtime == "python" or (runtime == "auto" and library_path() is None)
    with without_remarks():
        if python:
            from apps.python_model import PythonModel

            return PythonModel(directory, text_libraries(directory), threads, optimise)
        if not optimise:
            # oneDNN's pass over the graph is a sixth of the time to a first answer. Read when the library opens.
            os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
        with opening() as library:
            from apps.c_api import CModel

            return CModel(directory, library, text_libraries(directory), threads, optimise, only)


def _speak_no_turkish() -> None:
    """Has TensorFlow make the same small letters everywhere: by these languages' rules it makes "ı" of "I"."""
    language = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    if language[:2].lower() in ("tr", "az", "lt"):
        os.environ["LC_ALL"] = "C.UTF-8"


def text_libraries(directory: Path) -> list[Path]:
    """The libraries of TensorFlow Text that a SavedModel's graph needs, found without importing it."""
    used = read_graph(directory)[1]
    names = [library for operation, library in TEXT_LIBRARIES.items() if operation in used]
    if not names:
        return []
    spec = importlib.util.find_spec("tensorflow_text")
    folders = [Path(folder, "python", "ops") for folder in (spec.submodule_search_locations or () if spec else ())]
    found = [folder / name for name in names for folder in folders if (folder / name).is_file()]
    if len(found) < len(names):
        raise ModelError(f"{directory}: needs TensorFlow Text, which is not here: pip install tensorflow-text")
    return found


def version_directory(directory: str | Path) -> Path:
    """`directory` if it holds a SavedModel, else its sub-folder of the highest number that does."""
    directory = Path(directory)
    if (directory / "saved_model.pb").is_file():
        return directory
    versions = [d for d in directory.glob("[0-9]*") if d.name.isdecimal() and (d / "saved_model.pb").is_file()]
    if not versions:
        raise ModelError(f"{directory}: no SavedModel here: neither saved_model.pb nor a folder such as 1/ with one")
    return max(versions, key=lambda d: int(d.name))


def find_model(name: str) -> Path:
    """The folder of the model `name`: looked for among the shipped models, then as a path.

    Shipped models lie in $BIGKERAS_MODELS, in saved_models/ beside this checkout's apps/, and in ./saved_models. Raises
    ModelError that lists those there are.
    """
    here = [Path(__file__).resolve().parent.parent / "saved_models", Path("saved_models")]
    folders = [Path(folder) for folder in os.environ.get("BIGKERAS_MODELS", "").split(os.pathsep) if folder] + here
    found = [d for folder in reversed(folders) for d in sorted(folder.glob("*/"))]
    # An export that is under way, or was killed, has a name that begins with a dot.
    models = {d.name: d for d in found if not d.name.startswith(".") and _is_model(d)}
    if name in models:
        return models[name]
    if name and _is_model(Path(name)):
        return Path(name)
    if name and os.path.isfile(Path(name, "recipe.json")):
        raise ModelError(f"{name}: the directory of a run: bigkeras export {name} DIR makes a model of it, in DIR")
    if models:
        raise ModelError(f"{name}: neither a SavedModel's folder nor one of {', '.join(sorted(models))}")
    places = ", ".join(dict.fromkeys(map(str, folders)))
    raise ModelError(f"{name}: no SavedModel's folder, and no models in {places}: set BIGKERAS_MODELS")


def _is_model(directory: Path) -> bool:
    try:
        return version_directory(directory).is_dir()
    except (ModelError, OSError):  # another user's folder may not be read
        return False

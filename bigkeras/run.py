"""The run directory: who may use it, and the plain files in it."""

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bigkeras.data.files import expanded
from bigkeras.data.fingerprint import DATA_FILE
from bigkeras.recipe import PLACES, Recipe, from_json, load

RUN_LOCK, SCORES_LOCK = ".lock", ".scores.lock"
LOCKS = (RUN_LOCK, SCORES_LOCK)
# What a recipe says of itself, and what ends a run and is mended before it goes on: neither changes what is learned.
NOT_LEARNED = ("claim", "max_bad_fraction", "on_checkpoint_error")
EARLIER_RUNS = ("start_from", "teacher", "back_translator")  # settings that may name a folder, in one way or another
PATHS = (*EARLIER_RUNS, *PLACES, "vocabulary")


class RunError(ValueError):
    """A run directory that cannot be used, and what to do."""


def saved_version(directory: Path) -> Path | None:
    """The highest version of an exported model in a folder, as a server takes it; None without one."""
    names = [path.parent.name for path in directory.glob("*/saved_model.pb")]
    highest = max((name for name in names if name.isascii() and name.isdigit()), key=int, default=None)
    return None if highest is None else directory / highest


@contextlib.contextmanager
def readable(directory: Path) -> Iterator[Path]:
    """A path by which TensorFlow can read and write in a folder, until the context ends: a link, where its own is none.

    TensorFlow takes [ ] and \\ in the path of variables for a pattern, and no names that are not UTF-8.
    """
    whole = os.path.abspath(directory)
    if not set("[\\") & set(whole) and whole.isprintable():
        yield directory
        return
    place = tempfile.gettempdir()  # a batch system may name it so, too
    with tempfile.TemporaryDirectory(prefix="bigkeras-", dir="/tmp" if set("[\\") & set(place) else place) as folder:
        link = Path(folder, "link")
        link.symlink_to(whole, target_is_directory=True)
        yield link


@contextlib.contextmanager
def opened(run_dir: Path, recipe: Recipe) -> Iterator[Path]:
    """The directory, made if need be, held by this process alone, with the recipe in it.

    Raises RunError if another process holds it, another recipe has learned there, or it is not a run directory.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{run_dir}: cannot be made: {error.strerror}") from None
    if saved_version(run_dir) is not None:
        raise RunError(f"{run_dir}: an exported model; take another --run-dir")
    try:
        begun = (run_dir / RUN_LOCK).is_file() and (run_dir / RUN_LOCK).stat().st_size > 0  # by a run that got so far
        lock = open(run_dir / RUN_LOCK, "a+")  # noqa: SIM115  held below
    except OSError as error:
        raise RunError(f"{run_dir}: cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise RunError(f"{run_dir}: process {lock.read().strip() or 'unknown'} is training in it") from None
        except OSError as error:
            raise RunError(f"{run_dir}: cannot be locked: {error.strerror}") from None
        _claim(run_dir, recipe, begun)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield run_dir


@contextlib.contextmanager
def scores_held(run_dir: Path) -> Iterator[None]:
    """The scores and pictures of a run for this process alone; waits for another that writes them. Raises RunError."""
    try:
        lock = open(run_dir / SCORES_LOCK, "a")  # noqa: SIM115  held below
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise RunError(f"{run_dir}: its scores cannot be written: {error.strerror}") from None
    with lock:
        yield


def _claim(run_dir: Path, recipe: Recipe, begun: bool) -> None:
    """Writes the recipe. `begun`: by a command before, whose recipe was perhaps a mistake."""
    held, search = run_dir / "recipe.json", run_dir / "search.json"
    if held.exists():
        other = asked_for(run_dir)
        ours, theirs = json.loads(recipe.to_json()), json.loads(other.to_json())
        learned = [key for key in ours if key not in NOT_LEARNED]
        differing = [key for key in learned if _whole(key, ours[key]) != _whole(key, theirs[key])]
        # Of data that is noted, it is looked at whether it is still the same.
        movable = [key for key in differing if key != "data" or (run_dir / DATA_FILE).is_file()]
        # Of a run that has a checkpoint, its own preprocessor and weights tell whether another one was named.
        goes_on = any(run_dir.glob("checkpoints/*.npz"))
        moved = [key for key in movable if _has_moved(key, ours[key], theirs[key], goes_on, run_dir)]
        differing = [key for key in differing if key not in moved]
        # One's own recipe.json, in which something was left to the machine, or to the run that it starts from.
        precise = differing == ["precision"] and theirs["precision"] == "auto"
        continues = theirs["model"]["name"] == "auto" and theirs["start_from"] and "data" not in differing
        ours_to_replace = begun or precise or continues
        if differing and ours_to_replace and not has_learned(run_dir):  # as after a mistake in the first command
            search.unlink(missing_ok=True)
            write_text(held, recipe.to_json())
        elif differing:
            key, held_value, asked_value = _otherwise(differing[0], theirs[differing[0]], ours[differing[0]])
            raise RunError(
                f"{run_dir}: holds a run of another recipe ({key}: {_short(held_value)}, asked for "
                f"{_short(asked_value)}); take another --run-dir"
            )
        elif ours != theirs and not moved and not search.exists():
            write_text(held, recipe.to_json())
        return
    foreign = [p.name for p in run_dir.iterdir() if p.name not in LOCKS and not p.name.endswith(".part")]
    if foreign:
        raise RunError(
            f"{run_dir}: not empty and without a recipe.json ({foreign[0]} is there); take another --run-dir"
        )
    write_text(held, recipe.to_json())


def note_places(run_dir: Path, recipe: Recipe) -> None:
    """Writes into a run where its data and earlier runs lie now, once it is known that they are the same.

    Of the one that it started from that is known where the folder's name is the same.
    """
    held, search = run_dir / "recipe.json", run_dir / "search.json"
    before = asked_for(run_dir)
    if before.start_from and recipe.start_from and Path(before.start_from).name != Path(recipe.start_from).name:
        recipe = replace(recipe, start_from=before.start_from)
    if before == recipe:
        return
    if search.exists():
        write_json(search, {**read_json(search), "asked": asdict(recipe)})
    else:
        write_text(held, recipe.to_json())


def asked_for(run_dir: Path) -> Recipe:
    """The recipe that a run was begun with: where it tried several, recipe.json has the one that was kept."""
    search = run_dir / "search.json"
    if not search.exists():
        return load(run_dir)
    return from_json(json.dumps(read_json(search)["asked"]), str(search), of_run=True)


def same_data(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes say the same of their data, whichever way they name where it lies."""
    return one.data.name == other.data.name and whole_data(one) == whole_data(other)


def same_place(one: Recipe, other: Recipe) -> bool:
    """Whether the data of two recipes lies at one place, whichever way it is named."""
    first, second = ({name: _whole(name, recipe.data.args.get(name)) for name in PLACES} for recipe in (one, other))
    return first == second


def whole_data(recipe: Recipe) -> dict[str, Any]:
    """The arguments of a recipe's data, with whole paths."""
    return _whole("data", asdict(recipe.data))["args"]


def _whole(key: str, value: Any) -> Any:
    """A recipe's value with whole paths in it: runs of before may have others."""
    if key in ("data", "task"):
        return {**value, "args": {name: _whole(name, each) for name, each in value["args"].items()}}
    is_path = key in PATHS and isinstance(value, str) and value
    return str(expanded(value).resolve()) if is_path and expanded(value).exists() else value


def _otherwise(key: str, theirs: Any, ours: Any) -> tuple[str, Any, Any]:
    """What differs in two values of a recipe: of one function with other arguments, the first of these that does."""
    both = (theirs, ours)
    if all(isinstance(value, dict) for value in both) and theirs["name"] == ours["name"]:
        own, other = theirs["args"], ours["args"]
        for name in {**own, **other}:
            if _whole(name, own.get(name)) != _whole(name, other.get(name)):
                return f"{key}.{name}", own.get(name), other.get(name)
    return key, theirs, ours


def _has_moved(key: str, ours: Any, theirs: Any, goes_on: bool = False, run_dir: Path | None = None) -> bool:
    """Whether two values differ in nothing but whole paths, where nothing lies at the earlier one any more.

    Of an earlier run the folder's own name is the same: of another run nothing would be known. But where a run
    `goes_on`, the first weights are no longer asked for.
    """
    if key in ("data", "task"):
        named = set(ours["args"]) | set(theirs["args"])
        pairs = [(name, ours["args"].get(name), theirs["args"].get(name)) for name in named]
        return ours["name"] == theirs["name"] and all(
            _whole(name, own) == _whole(name, other) or _has_moved(name, own, other) for name, own, other in pairs
        )
    if key not in PATHS or not all(isinstance(value, str) and value for value in (ours, theirs)):
        return False
    now, before = expanded(ours), expanded(theirs)
    alike = key in PLACES or now.name == before.name or (key == "start_from" and goes_on)
    # Of a search that was copied, the candidate that lies beside this one is the copy of that which lay beside it.
    beside = run_dir is not None and is_candidate(run_dir) and now.resolve().parent == run_dir.resolve().parent
    copied = beside and now.name == before.name and before.parent.name == "candidates"
    return alike and before.is_absolute() and now.exists() and (copied or not before.exists())


def has_learned(run_dir: Path) -> bool:
    """Whether a run, or a candidate of it, has weights or scores that another recipe or other data would spoil."""
    places = (run_dir, *run_dir.glob("candidates/*"))
    left = ("best.keras", "last.keras", "metrics.json")
    return any(any((p / n).exists() for n in left) or any(p.glob("checkpoints/*.npz")) for p in places)


def is_candidate(run_dir: Path) -> bool:
    """Whether a run is one of those that a search tries."""
    return run_dir.absolute().parent.name == "candidates"


def write_text(path: Path, text: str) -> None:
    """Writes a text file, beside and renamed. Raises RunError where it cannot be written.

    Bytes of a path that are not UTF-8 are written as \\udce9 and the like, which JSON reads as the same path.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, beside and renamed, and the folder it lies in. Raises RunError where it cannot be written.

    One that has this content stays. A power cut leaves the one before or this one, none that is empty.
    """
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(exist_ok=True)
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


def write_json(path: Path, values: Any) -> None:
    """Writes JSON, beside and renamed; lists of numbers on one line each."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    # Strings pass by as they are: one may hold what looks like a list.
    parts = re.compile(r'"(?:[^"\\]|\\.)*"|\[[-+.\deE,\s]+\]')
    text = parts.sub(lambda part: part[0] if part[0].startswith('"') else " ".join(part[0].split()), text)
    write_text(path, text + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Writes rows as CSV, beside and renamed; a column that a row lacks stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    # Before Python 3.11.9 a carriage return, as in a file's name, is left bare and would end a row.
    quoted = csv.DictWriter(text, columns, restval="", lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for row in rows:
        (quoted if any("\r" in str(cell) for cell in row.values()) else writer).writerow(row)
    write_text(path, text.getvalue())


def model_hash(run_dir: Path) -> str | None:
    """Which model a run has: the hash of its best.keras; None without."""
    path = run_dir / "best.keras"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """The values of a JSON file. Raises RunError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None


def read_labels(directory: str | Path) -> tuple[str, ...]:
    """The class names in labels.txt, a line each, in the order of the logits; of a translator none."""
    path, told = Path(directory) / "labels.txt", Path(directory) / "preprocessor.json"
    if not path.exists() and told.is_file() and read_json(told).get("kind") == "pairs":
        return ()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    # Not splitlines: a label may hold one of the other separators that Unicode knows.
    return tuple(text.removesuffix("\n").split("\n")) if text else ()


def unfinished(directory: str | Path) -> str:
    """A line where a run has not ended, on how far it is; of one that has, and of an exported model, nothing."""
    directory = Path(directory)
    if not (directory / "log.csv").is_file() or (directory / "metrics.json").is_file():
        return ""
    with open(directory / "log.csv", encoding="utf-8", newline="") as file:
        done = sum(1 for _ in csv.DictReader(file))
    told = f"{directory}: not complete: {done} of {load(directory).epochs} epochs"
    return f"{told}; {_goes_on_by(directory)}"


def _goes_on_by(directory: Path) -> str:
    """What goes on with a run, as a clause."""
    if not is_ours(load(directory)):
        return "the same bigkeras.fit(…, model=…) in Python goes on with it"
    return f"the command that began it, or bigkeras train {shlex.quote(str(directory))}, goes on with it"


def is_ours(recipe: Recipe) -> bool:
    """Whether the command line can make a recipe's model: it knows none of one's own."""
    from bigkeras.models import MODELS  # and with it Keras

    return recipe.model.name in (*MODELS, "auto")


def check_run(run_dir: str | Path) -> Path:
    """The path, if it is a run directory with a trained model. Raises RunError."""
    run_dir = Path(run_dir)
    above = f"; {run_dir.parent} has one" if (run_dir.parent / "recipe.json").is_file() else ""
    if not run_dir.is_dir():
        raise RunError(f"{run_dir}: no such directory" if not run_dir.exists() else f"{run_dir}: no directory{above}")
    if not (run_dir / "recipe.json").exists():
        raise RunError(f"{run_dir}: not a run directory: it has no recipe.json{above}")
    if saved_version(run_dir) is not None:
        raise RunError(f"{run_dir}: an exported model: the directory of the run that made it is needed")
    if not (run_dir / "best.keras").exists():
        raise RunError(f"{run_dir}: {without_model(run_dir)}")
    return run_dir


def without_model(run_dir: Path) -> str:
    """What is told of a run that has no trained model: whether one was there, and else what goes on with it."""
    return "its best.keras is gone" if (run_dir / "metrics.json").is_file() else f"no model yet: {_goes_on_by(run_dir)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else text[:57] + "…"

"""Own pictures in folders: a sub-folder for every class."""

import contextlib
import errno
import hashlib
import os
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from bigkeras.data.files import EXTENSIONS, SPLIT_NAMES, expanded, file_splits
from bigkeras.data.label_names import alike
from bigkeras.data.source import DataError, Splits, all_told

COMPARED = 50_000  # pictures: to read more of them only to find copies takes too long


def image_folder(
    *, directory: str, validation: float = 0.1, test: float = 0.1, seed: int = 0, limit_train: int | None = None
) -> Splits:
    """Pictures below a sub-folder for every class, whose name is the class's; deeper folders belong to their class.

    Read are the names of EXTENSIONS, in any case; hidden files and others are left out, and the
    latter stand in `ignored`. Where the sub-folders are train and val (valid, validation) or test, the classes lie in
    them, and that is the split; of a part without a folder, validation is taken from train, and a test there is none.
    Else the seed decides a stratified split, in which equal files stand together, of at most COMPARED pictures. Raises
    DataError that names the folder. The order is that of the names.
    """
    paths, classes, parts, class_names, ignored = class_files(directory, EXTENSIONS, "picture")
    number = {name: i for i, name in enumerate(class_names)}
    labels = np.array([number[name] for name in classes], np.int32)
    splits = file_splits(
        paths,
        labels,
        np.array(parts),
        class_names,
        validation=validation,
        test=test,
        seed=seed,
        limit_train=limit_train,
        keys=contents(paths) if len(paths) <= COMPARED else None,
    )
    return all_told(replace(splits, ignored=(*ignored, *splits.ignored), found=remarks(splits, len(paths))))


def remarks(splits: Splits, pictures: int) -> str:
    """What is said of splits of so many pictures: of classes whose names look alike, and of more than COMPARED."""
    told = f"{pictures:,} pictures: copies among them, which may stand in several splits, are not looked for"
    return "; ".join(filter(None, (splits.found, alike(splits.class_names), told if pictures > COMPARED else "")))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # which is said where it is read
        return -1


def contents(paths: list[str]) -> list[str]:
    """A name for every file that those with the same bytes share; read are files of one length alone."""
    sizes = list(map(_size, paths))
    times = Counter(sizes)
    keys = list(paths)
    for place, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        if times[size] > 1:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                keys[place] = hashlib.file_digest(file, "sha256").hexdigest()
    return keys


Files = tuple[list[str], list[str], list[str], tuple[str, ...], list[tuple[str, str]]]


def class_files(directory: str, extensions: tuple[str, ...], what: str) -> Files:
    """The files of `image_folder`'s layouts: paths, their classes, their parts, the class names and what is ignored."""
    root = expanded(directory)
    if not root.is_dir():
        raise DataError(f"directory={directory}: not a directory" + ("" if root.exists() else ", nothing is there"))
    folders = _entries(root, "folder")
    layout = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
    # Classes may be called train and bus: a layout has a training folder and nothing but parts.
    if "train" in layout.values() and len(layout) == len(folders) and len(folders) > 1:
        roots = [(root / name, part) for name, part in layout.items()]
    elif len(folders) == 1 and "train" in layout.values():
        roots = [(root / folders[0], "train")]
    elif layout and len(layout) == len(folders) and all(_entries(root / name, "folder") for name in folders):
        roots = [(root / name, part) for name, part in layout.items()]  # held-out parts alone, which can be scored
    elif len(folders) > 1 and all(spoken := [_part_in(name) for name in folders]) and {"train"} < set(spoken):
        raise DataError(
            f"{root}: {', '.join(map(printable, folders))} look like parts of the data: call them train, validation "
            "and test, or, if they are classes, put them into one folder called train"
        )
    elif "train" in layout.values() and len(layout) > 1:
        others = ", ".join(printable(name) for name in folders if name not in layout)
        raise DataError(
            f"{root}: {', '.join(layout)} are parts of the data, and {others} none: take it away, or, if all are "
            "classes, put them into one folder called train"
        )
    else:
        roots = [(root, "")]
    paths, classes, parts, ignored = _listed(roots, extensions, what)
    return paths, classes, parts, _class_names(root, roots, paths, classes, what), ignored


def _part_in(name: str) -> str | None:
    """The part of the data that a word in a folder's name speaks of, as in training_set and test1."""
    return next((SPLIT_NAMES[word] for word in re.findall("[a-z]+", name.lower()) if word in SPLIT_NAMES), None)


def _listed(
    roots: list[tuple[Path, str]], extensions: tuple[str, ...], what: str
) -> tuple[list[str], list[str], list[str], list[tuple[str, str]]]:
    """Paths, their classes and parts, and what was left out with the reason."""
    paths: list[str] = []
    classes: list[str] = []
    parts: list[str] = []
    ignored: list[tuple[str, str]] = []
    for folder, part in roots:
        ignored += [(printable(folder / name), "in no class's folder") for name in _entries(folder, "file")]
        for name in _entries(folder, "folder"):
            if printable(name) != name:
                raise DataError(f"{printable(folder / name)}: its name, a class's, is not UTF-8: rename the folder")
            found = files_below(folder / name, extensions, what, ignored)
            if not found:
                raise DataError(
                    f"{folder / name}: the folder of class {name!r} holds no {what} "
                    f"({', '.join(e[1:] for e in extensions)}): add some or remove the folder"
                )
            paths += found
            classes += [unicodedata.normalize("NFC", name)] * len(found)  # é of one system and of another is one class
            parts += [part] * len(found)
    return paths, classes, parts, ignored


def _class_names(
    root: Path, roots: list[tuple[Path, str]], paths: list[str], classes: list[str], what: str
) -> tuple[str, ...]:
    if not paths:
        wanted = f"a sub-folder for every class, such as {root / 'cat'} and {root / 'dog'}"
        if (root / "index.json").is_file():
            wanted += "; what `bigkeras pack` has written is read by --set data=packed"
        raise DataError(f"{roots[0][0]}: no sub-folder with {what}s: wanted is {wanted}")
    return tuple(sorted(set(classes)))


def printable(path: str | Path) -> str:
    """A path as text that can be written: bytes of a name that are not UTF-8 as \\xe9 and the like."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _entries(folder: Path, kind: str) -> list[str]:
    """The names of the folders or files in a folder that are not hidden."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and _kind(e) == kind)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be listed: {error.strerror}") from None


def _kind(entry: os.DirEntry[str]) -> str:
    """folder, file, or why it is neither. Raises OSError where that cannot be seen, since it may be a whole class."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "not a file, or a link to nothing"
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return "a link in a circle"


def files_below(top: Path, extensions: tuple[str, ...], what: str, ignored: list[tuple[str, str]]) -> list[str]:
    """The files of some extensions below a folder, sorted, but hidden ones; `ignored` gets the others.

    Links to folders are followed, each folder once. Raises DataError for a folder that cannot be listed.
    """
    found: list[str] = []
    waiting, seen = [str(top)], set()
    while waiting:
        folder = waiting.pop()
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            # scandir tells files from folders without a call for each: a million files take seconds.
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    kind = _kind(entry)
                    if kind == "folder":
                        waiting.append(entry.path)
                    elif not entry.name.lower().endswith(extensions):
                        ignored.append((printable(entry.path), f"not a {what}, by its name"))
                    elif kind == "file":
                        found.append(entry.path)
                    else:
                        ignored.append((printable(entry.path), kind))
        except OSError as error:
            raise DataError(f"{error.filename or folder}: cannot be listed: {error.strerror}") from None
    found.sort()
    if found and not any(os.access(path, os.R_OK) for path in found):
        raise DataError(f"{found[0]}: may not be read, and neither may any other {what} of {top}: check permissions")
    return found

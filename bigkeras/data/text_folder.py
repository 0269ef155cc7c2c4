"""Own texts in folders: a sub-folder for every class, a text in every file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bigkeras.data.encoding import SAMPLE, decoded, decoded_as, found_encoding, says_nothing, unicode_encoding
from bigkeras.data.files import part_splits
from bigkeras.data.folder import class_files, printable
from bigkeras.data.pair_splits import text_key
from bigkeras.data.reviews import text_array
from bigkeras.data.rows import bytes_of
from bigkeras.data.source import ArraySource, DataError, Splits, all_told

TEXT_EXTENSIONS = (".txt", ".text", ".md")


def text_folder(
    *,
    directory: str,
    encoding: str | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    limit_train: int | None = None,
) -> Splits:
    """Texts below a sub-folder for every class, whose name is the class's: the layouts are those of `image_folder`.

    Read are txt, text and md, one text a file, all into memory. `encoding`: None finds it, the same for all files that
    are not UTF-8. A file that is empty or cannot be read is left out and stands in `bad`. Equal texts
    that no folder says to be of another split come to the same one. Raises DataError that names the folder.
    """
    paths, classes, parts, class_names, ignored = class_files(directory, TEXT_EXTENSIONS, "text")
    texts: list[bytes] = []
    kept: list[int] = []
    bad: list[tuple[str, str]] = []
    for place, (name, text, problem) in enumerate(read_texts(paths, encoding)):
        if problem:
            bad.append((name, problem))
        else:
            kept.append(place)
            texts.append(text)
    left = sorted({classes[i] for i in kept})
    if len(left) < len(class_names):
        lost = next(name for name in class_names if name not in left)
        raise DataError(f"{directory}: no text of class {lost!r} can be read; the first: {bad[0][0]}: {bad[0][1]}")
    number = {name: i for i, name in enumerate(class_names)}
    names = [printable(paths[i]) for i in kept]
    whole = ArraySource({"text": text_array(texts)}, [number[classes[i]] for i in kept], names)
    splits = part_splits(
        whole, np.array(parts)[kept], class_names, validation=validation, test=test, seed=seed,
        limit_train=limit_train, keys=[text_key(text.decode()) for text in texts],
    )  # fmt: skip
    return all_told(replace(splits, bad=tuple(bad), ignored=(*ignored, *splits.ignored), read=len(paths)))


def read_texts(paths: list[str], encoding: str | None) -> Iterator[tuple[str, bytes, str]]:
    """Of every file its printable name, its text in UTF-8, and why it cannot be used, or ""."""
    other = encoding or _common_encoding(paths)
    for path in paths:
        try:
            data = bytes_of(Path(path), "texts")
            clear = encoding or unicode_encoding(data)
            text, _ = decoded(data, path, encoding) if clear else decoded_as(data, path, other)
        except DataError as error:
            yield printable(path), b"", str(error).removeprefix(f"{path}: ")
            continue
        yield printable(path), text.encode(), "an empty text" if says_nothing(text) else ""


def _common_encoding(paths: list[str]) -> str:
    """That of the files which are not UTF-8: one short file alone would not tell it."""
    sample = b""
    for path in paths:
        try:
            data = Path(path).read_bytes()
        except OSError:
            continue
        if unicode_encoding(data) is None:
            sample += data + b"\n"
        if len(sample) > SAMPLE:
            break
    return found_encoding(sample)

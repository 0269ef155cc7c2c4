"""Texts without labels, to learn a language from: own ones, and the reviews of IMDb that nobody rated."""

import io
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from bigkeras.data.arrays import data_directory
from bigkeras.data.encoding import decoded
from bigkeras.data.files import expanded
from bigkeras.data.folder import files_below
from bigkeras.data.formats import read_bytes
from bigkeras.data.reviews import imdb_parts, imdb_reviews, text_array
from bigkeras.data.rows import JSON_LINES, bytes_of, is_json
from bigkeras.data.source import ArraySource, DataError, Splits, all_told
from bigkeras.data.splits import check_fractions
from bigkeras.data.text_folder import TEXT_EXTENSIONS, read_texts

IMDB_ARCHIVES = ("aclImdb_unsup.tar.xz", "aclImdb_v1.tar.gz")
TABLES = (".csv", ".tsv", ".tab", *JSON_LINES)
READ = "a text file, a text in every line, and a folder of text files"
BREAK = re.compile(rb"<br\s*/?>", re.IGNORECASE)


def plain_text(
    *,
    file: str,
    encoding: str | None = None,
    validation: float = 0.05,
    seed: int = 0,
    limit_train: int | None = None,
) -> Splits:
    """Own texts without labels: a text file with a text in every line, or a folder of text files, a text in each.

    Of a folder, txt, text and md are read, in its sub-folders, too, but no hidden ones; other files stand in `ignored`.
    Empty lines and files are left out, and of equal texts all but one. `encoding`: None finds it. `validation` is a
    part that the seed decides. Raises DataError that names the file.
    """
    path = expanded(file)
    ignored: list[tuple[str, str]] = []
    named, bad = _folder_texts(path, encoding, ignored) if path.is_dir() else _lines(path, encoding)
    if not named:
        raise DataError(f"{path}: no text in it" + (f"; {bad[0][0]}: {bad[0][1]}" if bad else ""))
    return all_told(replace(_splits(named, validation, seed, limit_train, bad), ignored=tuple(ignored)))


def imdb_unlabelled(
    *, directory: str | None = None, validation: float = 0.02, seed: int = 0, limit_train: int | None = None
) -> Splits:
    """74,000 film reviews in English without their ratings: IMDb's 50,000 unlabelled ones and those for training.

    Origin: https://ai.stanford.edu/~amaas/data/sentiment, Maas et al. 2011; no licence stated. Whatever stands in the
    test part is left out, markup and spaces aside, and of equal texts all but one. Read are aclImdb_v1.tar.gz or a
    .tar.xz of its unlabelled part in the folder imdb-unsup or imdb, and what `imdb_reviews` reads.
    """
    root = data_directory(directory)
    parts = imdb_parts(directory)
    held_out = {_letters(text) for text in parts["test"][0]}
    texts, _, names = parts["train"]
    named = [*_archived(root), *zip(names, texts, strict=True)]
    return _splits([(n, t) for n, t in named if _letters(t) not in held_out], validation, seed, limit_train, [])


def imdb_with_unlabelled(
    *, directory: str | None = None, validation: float = 0.1, seed: int = 0, limit_train: int | None = None
) -> Splits:
    """`imdb_reviews`, and for a recipe's `teacher` the 48,889 unlabelled reviews that stand in neither of its parts.

    Origin, licence and files as those of `imdb_reviews` and `imdb_unlabelled`.
    """
    splits = imdb_reviews(directory=directory, validation=validation, seed=seed, limit_train=limit_train)
    labelled = {_letters(text) for texts, _, _ in imdb_parts(directory).values() for text in texts}
    named = [(name, text) for name, text in _archived(data_directory(directory)) if _letters(text) not in labelled]
    unlabelled = _splits(named, 0.0, seed, None, []).train
    assert isinstance(unlabelled, ArraySource)
    return replace(splits, unlabelled=unlabelled)


Named = list[tuple[str, bytes]]


def _splits(named: Named, validation: float, seed: int, limit_train: int | None, bad: list[tuple[str, str]]) -> Splits:
    check_fractions(validation=validation)
    if limit_train is not None and limit_train < 1:
        raise DataError(f"limit_train={limit_train}: at least 1, or null for all")
    first: dict[bytes, str] = {}
    for name, text in named:
        first.setdefault(text, name)
    texts, names = text_array(list(first)), list(first.values())
    whole = ArraySource({"text": texts}, np.zeros(len(texts), np.int32), names)
    order = np.random.default_rng(seed).permutation(len(texts))
    held_out = round(len(texts) * validation)
    train = order[held_out:][:limit_train]
    return Splits(
        whole.take(np.sort(train)), whole.take(np.sort(order[:held_out])) if held_out else None, None, (), tuple(bad),
        read=len(named) + len(bad),
    )  # fmt: skip


def _lines(path: Path, encoding: str | None) -> tuple[Named, list[tuple[str, str]]]:
    text, _ = decoded(bytes_of(path, READ), str(path), encoding)
    begin = text.lstrip("\ufeff \t\r\n")[:1]
    if path.suffix.lower() in TABLES or (path.suffix.lower() == ".json" and begin in ("[", "{")) or is_json(path, text):
        raise DataError(f"{path}: a table, whose labels would be learned, too: write its texts into a .txt, one a line")
    # Not splitlines: it parts at signs that stand inside a text, too.
    lines = enumerate(re.split(r"\r\n|\n|\r", text), 1)
    return [(f"{path}:{number}", line.encode()) for number, line in lines if line.strip()], []


def _folder_texts(
    folder: Path, encoding: str | None, ignored: list[tuple[str, str]]
) -> tuple[Named, list[tuple[str, str]]]:
    named: Named = []
    bad: list[tuple[str, str]] = []
    for name, text, problem in read_texts(files_below(folder, TEXT_EXTENSIONS, "text", ignored), encoding):
        if problem:
            bad.append((name, problem))
        else:
            named.append((name, text))
    return named, bad


def _archived(root: Path) -> Named:
    """The unlabelled reviews of whichever archive is there."""
    places = [folder / name for folder in (root / "imdb-unsup", root / "imdb", root) for name in IMDB_ARCHIVES]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise DataError(f"imdb_unlabelled is not in {root / 'imdb'}: place there aclImdb_v1.tar.gz")
    named: Named = []
    with tarfile.open(fileobj=io.BytesIO(read_bytes(found, "imdb-unsup"))) as archive:
        for member in archive:
            if "/unsup/" in member.name and member.name.endswith(".txt"):
                named.append((member.name.partition("/")[2], archive.extractfile(member).read()))  # type: ignore[union-attr]
    return named


def _letters(text: bytes) -> bytes:
    """What is left of a text without markup, spaces and signs: equal for copies that were cleaned otherwise."""
    return re.sub(rb"[^0-9a-z\x80-\xff]+", b"", BREAK.sub(b"", text).lower())

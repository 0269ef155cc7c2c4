"""Published reviews with a label, in memory: imdb_reviews, sst2, waimai. `data/arrays.py` says where they may lie."""

import csv
import io
import re
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from bigkeras.data.arrays import check_not_own, data_directory
from bigkeras.data.files import part_splits
from bigkeras.data.formats import read_bytes
from bigkeras.data.source import ArraySource, DataError, Splits
from bigkeras.data.splits import check_fractions, stratified_sample, stratified_split
from bigkeras.data.tfds import tfds_arrays

SENTIMENT = ("negative", "positive")
NEUTRAL = 2  # of SST's five labels, from 0 for very bad to 4 for very good
IMDB_ARCHIVES = ("aclImdb_labelled.tar.xz", "aclImdb_v1.tar.gz")
IMDB_SIZE = 25_000  # reviews for training, and as many for testing
IMDB_FOLDERS = {"neg": 0, "pos": 1}
Texts = tuple[np.ndarray, np.ndarray, list[str]]  # bytes (n,), labels (n,), names


def imdb_reviews(
    *, directory: str | None = None, validation: float = 0.1, seed: int = 0, limit_train: int | None = None
) -> Splits:
    """Film reviews in English, half of them good: 24,877 for training and 25,000 for testing.

    Origin: https://ai.stanford.edu/~amaas/data/sentiment, Maas et al. 2011; no licence stated. Published are 25,000 for
    training; the 123 whose text stands in the test part, too, are left out. Validation is a stratified part of the
    training reviews that the seed decides; 0 trains on all of them. `limit_train` trains on so many only. Read are
    aclImdb_v1.tar.gz or a .tar.xz of its labelled part, unpacked or not, in the folder imdb; else TensorFlow Datasets.
    """
    found = imdb_parts(directory)
    return _published(found["train"], None, found["test"], validation, seed, limit_train)


def sst2(*, directory: str | None = None, seed: int = 0, limit_train: int | None = None) -> Splits:
    """Sentences of film reviews in English, good or bad: 6,917 for training, 872 for validation, 1,821 for testing.

    Origin: https://nlp.stanford.edu/sentiment, Socher et al. 2013; no licence stated. The published split of whole
    sentences, without three of the 6,920 for training that stand in another part, too. GLUE's data set of the same
    name trains on 67,349 phrases of them and hides the labels of its test part.
    Read are train.tsv, dev.tsv and test.tsv (sentence, tab, 0 or 1) in the folder sst2, or the published trees,
    trainDevTestTrees_PTB.zip, of which neutral sentences are left out: good or bad are 6,920 for training, too.
    """
    root = data_directory(directory)
    here = directory and any((root / name).is_file() for name in ("train.tsv", SST2_TREES))
    folder = root if here else root / "sst2"
    trees = folder / SST2_TREES
    read = _sst2_trees(trees) if trees.is_file() and not (folder / "train.tsv").is_file() else None
    parts = read or {part: _sst2_part(folder / f"{name}.tsv", part) for part, name in SST2_FILES.items()}
    return _published(parts["train"], parts["validation"], parts["test"], 0.0, seed, limit_train)


SST2_FILES = {"train": "train", "validation": "dev", "test": "test"}
SST2_TREES = "trainDevTestTrees_PTB.zip"
# What the Penn Treebank writes in the place of signs.
SIGNS = (("-LRB-", "("), ("-RRB-", ")"), ("\\/", "/"), ("\\*", "*"))


def waimai(
    *,
    directory: str | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    limit_train: int | None = None,
) -> Splits:
    """11,987 reviews of takeaway meals in Chinese: 4,000 good and 7,987 bad ones.

    Origin: https://github.com/SophonPlus/ChineseNlpCorpus, waimai_10k; no licence stated. A stratified split that the
    seed decides: 80, 10 and 10 percent. Read is waimai_10k.csv (label, review) in the folder waimai-10k.
    """
    check_fractions(validation=validation, test=test)
    root = data_directory(directory)
    name = "waimai_10k.csv"
    path = root / name if directory and (root / name).is_file() else root / "waimai-10k" / name
    if not path.is_file():
        check_not_own(directory, "waimai", "text")
        raise DataError(f"waimai: {path} is not there: place it (label,review) in {path.parent}, or say --data DIR")
    rows = list(csv.reader(io.StringIO(read_bytes(path, "waimai-10k").decode("utf-8-sig"), newline="")))[1:]
    whole = ArraySource(
        {"text": text_array([review.encode() for _, review in rows])}, [int(label) for label, _ in rows], "waimai"
    )
    return part_splits(
        whole, np.full(len(rows), ""), SENTIMENT, validation=validation, test=test, seed=seed,
        limit_train=limit_train,
    )  # fmt: skip


def imdb_parts(directory: str | None) -> dict[str, Texts]:
    """The published parts of IMDb's labelled reviews, "train" and "test", wherever they lie. Raises DataError."""
    root = data_directory(directory)
    folders = [root / "imdb", *([root] if directory else [])]
    found = next((f for f in map(_imdb_parts, folders) if f), None)
    if found is None:
        check_not_own(directory, "imdb_reviews", "text")
        try:
            arrays = tfds_arrays("imdb_reviews", root, "text")
        except DataError as error:
            raise DataError(
                f"imdb_reviews is not in {root / 'imdb'}: place there {' or '.join(IMDB_ARCHIVES)}; {error}"
            ) from None
        parts = zip(("train", "test"), arrays, strict=True)
        found = {part: (texts, labels, [f"{part}[{i}]" for i in range(len(labels))]) for part, (texts, labels) in parts}
    return found


def text_array(texts: list[bytes]) -> np.ndarray:
    """Texts as an object array `(n,)`; NumPy's own bytes type would cut zero bytes off the end."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def _published(
    train: Texts, held_out: Texts | None, test: Texts, validation: float, seed: int, limit_train: int | None
) -> Splits:
    """Splits of parts as they were published; training texts that stand in another part are left out."""
    check_fractions(validation=validation)
    if limit_train is not None and limit_train < 1:
        raise DataError(f"limit_train={limit_train}: at least 1, or null for all")
    known = set(test[0].tolist()) | set(held_out[0].tolist() if held_out else [])
    free = np.array([i for i, text in enumerate(train[0].tolist()) if text not in known])
    whole, tested = _source(train).take(free), _source(test)
    kept, second = stratified_split(whole.labels, (1 - validation, validation), seed)
    validating = _source(held_out) if held_out else whole.take(second) if len(second) else None
    kept = kept[stratified_sample(whole.labels[kept], limit_train, seed)]
    return Splits(whole.take(kept), validating, tested, SENTIMENT)


def _source(part: Texts) -> ArraySource:
    return ArraySource({"text": part[0]}, part[1], part[2])


def _imdb_parts(folder: Path) -> dict[str, Texts] | None:
    """The texts of a folder in the aclImdb layout, or of an archive of it; None where there is neither."""
    for name in IMDB_ARCHIVES:
        if (folder / name).is_file():
            data = read_bytes(folder / name, "imdb")
            texts = {}
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for member in archive:
                    folder_of, _, place = member.name.partition("/")[2].partition("/")
                    if place.endswith(".txt") and place.split("/")[0] in IMDB_FOLDERS:
                        texts[f"{folder_of}/{place}"] = archive.extractfile(member).read()  # type: ignore[union-attr]
            return _by_part(texts)
    for root in (folder, folder / "aclImdb"):
        if (root / "train" / "pos").is_dir() and (root / "test" / "pos").is_dir():
            paths = [p for label in IMDB_FOLDERS for p in root.glob(f"*/{label}/*.txt")]
            parts = _by_part({p.relative_to(root).as_posix(): p.read_bytes() for p in paths})
            for part, (found, _, _) in parts.items():
                if len(found) != IMDB_SIZE:
                    told = f"{len(found):,} reviews in neg and pos, published are {IMDB_SIZE:,}"
                    raise DataError(f"{root / part}: {told}: unpack the archive once more, or place it in {folder}")
            return parts
    return None


def _by_part(texts: dict[str, bytes]) -> dict[str, Texts]:
    parts = {}
    for part in ("train", "test"):
        names = sorted(name for name in texts if name.startswith(f"{part}/"))
        labels = np.array([IMDB_FOLDERS[name.split("/")[1]] for name in names], np.int32)
        parts[part] = (text_array([texts[name] for name in names]), labels, names)
    return parts


def _sst2_trees(path: Path) -> dict[str, Texts]:
    """The sentences of the published trees: a label from 0 to 4 before every phrase, and the whole one's first."""
    parts = {}
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path, "sst2"))) as archive:
            for part, name in SST2_FILES.items():
                texts, labels, names = [], [], []
                for number, line in enumerate(archive.read(f"trees/{name}.txt").decode().rstrip("\n").split("\n")):
                    label = int(line[1])
                    if label != NEUTRAL:
                        words = " ".join(re.findall(r"\(\d ([^()]+)\)", line))
                        for written, sign in SIGNS:
                            words = words.replace(written, sign)
                        texts.append(words.encode())
                        labels.append(int(label > NEUTRAL))
                        names.append(f"{part}[{number}]")
                parts[part] = (text_array(texts), np.array(labels, np.int32), names)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, IndexError, EOFError) as error:
        raise DataError(f"{path}: not the published trees, or damaged ({error}): fetch it again") from None
    return parts


def _sst2_part(path: Path, part: str) -> Texts:
    if not path.is_file():
        wanted = f"{SST2_TREES} of https://nlp.stanford.edu/sentiment, or train.tsv, dev.tsv and test.tsv"
        raise DataError(f"sst2: {path} is not there: place in {path.parent} {wanted}, or say --data DIR")
    lines = read_bytes(path, "sst2").decode().split("\n")
    pairs = [line.rsplit("\t", 1) for line in lines if line]
    texts = text_array([sentence.encode() for sentence, _ in pairs])
    return texts, np.array([int(label) for _, label in pairs], np.int32), [f"{part}[{i}]" for i in range(len(pairs))]

"""Published sentence pairs, in memory: multi30k, tatoeba, and the translation sets of TensorFlow Datasets.

`data/arrays.py` says where the files may lie.
"""

import gzip
import io
import zipfile
import zlib
from pathlib import Path

from bigkeras.data.arrays import data_directory
from bigkeras.data.cleaning import Pair, tidy
from bigkeras.data.files import expanded
from bigkeras.data.formats import read_bytes
from bigkeras.data.pair_splits import pair_splits, parted_splits
from bigkeras.data.source import DataError, Splits
from bigkeras.data.tfds import prepared, unreadable

MULTI30K = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
MULTI30K_LANGUAGES = ("en", "de")
TATOEBA = {"de": "deu", "zh": "cmn"}
# Tatoeba's files move on every week: those that can be had are read, whatever their checksum.
NOT_PINNED = "tatoeba"
USUAL_SHARE = 0.02  # of validation and of testing, of a set of TensorFlow Datasets without such a part


def multi30k(
    *,
    source_language: str = "en",
    target_language: str = "de",
    directory: str | None = None,
    seed: int = 0,
    limit_train: int | None = None,
) -> Splits:
    """Captions of photographs in English and German: 29,000 pairs for training, 1,014 and 1,000 (test2016) held out.

    Origin: https://github.com/multi30k/dataset, Elliott et al. 2016; for research. The published split; training pairs
    whose source is also held out are left out. Read are train.en.gz, val.en.gz, test_2016_flickr.en.gz and the same
    of .de, packed or not, in the folder multi30k.
    """
    for name in (source_language, target_language):
        if name not in MULTI30K_LANGUAGES:
            raise DataError(f"multi30k has en and de, not {name!r}")
    if source_language == target_language:
        raise DataError(f"source_language and target_language are both {source_language!r}: one is en, the other de")
    root = data_directory(directory)
    folder = root if directory and _present(root / "train.en") else root / "multi30k"
    pairs: list[Pair] = []
    for part, stem in MULTI30K.items():
        sides = [_published_lines(folder / f"{stem}.{name}") for name in (source_language, target_language)]
        if len(sides[0]) != len(sides[1]):
            told = f"{len(sides[0]):,} lines in {source_language} and {len(sides[1]):,} in {target_language}"
            raise DataError(f"multi30k: {folder / stem}: {told}: they are not the published files")
        lines = zip(*sides, strict=True)
        pairs += [Pair(f"{part}[{i}]", tidy(s), tidy(t), part) for i, (s, t) in enumerate(lines)]
    languages = (source_language, target_language)
    return pair_splits(
        pairs, languages, origin="multi30k", validation=0.0, test=0.0, seed=seed, limit_train=limit_train
    )


def tatoeba(
    *,
    target_language: str = "de",
    directory: str | None = None,
    validation: float = 0.01,
    test: float = 0.02,
    seed: int = 0,
    limit_train: int | None = None,
) -> Splits:
    """Short everyday sentences from English to German ("de", 169,197 pairs) or Chinese ("zh", 29,155 pairs).

    Origin: https://www.manythings.org/anki, sentences of https://tatoeba.org, CC BY 2.0 (France): who passes on the
    sentences names Tatoeba and their authors. The seed splits by source sentence, 97, 1 and 2 percent; held-out
    sentences are scored against all their translations. Read are deu-eng.zip or cmn-eng.zip as published, or deu.txt
    and cmn.txt, packed with gzip or not, in the folders tatoeba-deu-eng and tatoeba-cmn-eng.
    """
    if target_language not in TATOEBA:
        raise DataError(f"target_language={target_language!r}: one of {', '.join(TATOEBA)}")
    code = TATOEBA[target_language]
    root = data_directory(directory)
    folders = [root / f"tatoeba-{code}-eng", *([root] if directory else [])]
    content = next((text for text in (_tatoeba_text(folder, code) for folder in folders) if text is not None), None)
    if content is None:
        if directory and expanded(directory).is_file() and code not in Path(directory).name:
            told = f"{directory}: is no place of tatoeba, which is what would be read"
            raise DataError(f"{told}: --set data=translation_pairs reads one's own file")
        wanted = f"{code}-eng.zip of https://www.manythings.org/anki"
        raise DataError(f"tatoeba is not in {folders[0]}: place there {wanted}, or say --data DIR")
    rows = [line.split("\t") for line in content.split("\n")]
    pairs = [Pair(f"{code}.txt:{i}", tidy(row[0]), tidy(row[1])) for i, row in enumerate(rows, 1) if len(row) > 1]
    return pair_splits(
        pairs, ("en", target_language), origin="tatoeba", validation=validation, test=test, seed=seed,
        limit_train=limit_train,
    )  # fmt: skip


def tfds_translation(
    *,
    dataset: str,
    source_language: str,
    target_language: str,
    directory: str | None = None,
    validation: float = USUAL_SHARE,
    test: float = USUAL_SHARE,
    seed: int = 0,
    limit_train: int | None = None,
) -> Splits:
    """A translation set of TensorFlow Datasets by its name, such as wmt14_translate/de-en, prepared on this machine.

    Origin and licence: https://www.tensorflow.org/datasets/catalog. Its own validation and test parts are taken where
    it has them; else the seed splits by source sentence.
    """
    root = data_directory(directory)
    builder = prepared(dataset, root)
    if builder is None:
        raise DataError(
            f"{dataset} is not prepared in {root} nor in ~/tensorflow_datasets: on a machine with network, "
            f"`tfds build {dataset}` does it"
        )
    languages = (source_language, target_language)
    missing = [name for name in languages if name not in builder.info.features]
    if missing:
        raise DataError(f"{dataset} has {', '.join(builder.info.features)}, not {missing[0]!r}")
    if "train" not in builder.info.splits:
        raise DataError(f"{dataset} has {', '.join(builder.info.splits)}, and no train part to learn from")
    own = [part for part in ("validation", "test") if part in builder.info.splits]
    pairs: list[Pair] = []
    for part in ("train", *own):
        try:
            for i, row in enumerate(builder.as_dataset(split=part).as_numpy_iterator()):
                source, target = (tidy(row[name].decode("utf-8", "replace")) for name in languages)
                pairs.append(Pair(f"{part}[{i}]", source, target, part if part != "train" or len(own) == 2 else ""))
        except Exception as error:
            raise unreadable(builder.data_dir, error) from None
    return parted_splits(
        pairs, languages, own, usual=USUAL_SHARE, validation=validation, test=test, origin=dataset, seed=seed,
        limit_train=limit_train,
    )  # fmt: skip


def _present(path: Path) -> bool:
    return path.is_file() or path.with_name(path.name + ".gz").is_file()


def _published_lines(path: Path) -> list[str]:
    packed = path.with_name(path.name + ".gz")
    if not _present(path):
        raise DataError(f"multi30k: {packed} is not there: place the gzipped pairs there, or say --data DIR")
    data = read_bytes(path, "multi30k") if path.is_file() else unpacked(read_bytes(packed, "multi30k"), packed)
    try:
        return data.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"multi30k: {path}: line {line} is no UTF-8 text: fetch it again") from None


def _tatoeba_text(folder: Path, code: str) -> str | None:
    archive, plain = folder / f"{code}-eng.zip", folder / f"{code}.txt"
    if archive.is_file():
        try:
            with zipfile.ZipFile(io.BytesIO(read_bytes(archive, NOT_PINNED))) as opened:
                data = opened.read(plain.name)
        except (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError):
            raise DataError(f"{archive}: not a whole zip file with {plain.name} in it: fetch it again") from None
    elif plain.is_file():
        data = read_bytes(plain, NOT_PINNED)
    elif (packed := folder / f"{code}.txt.gz").is_file():
        data = unpacked(read_bytes(packed, NOT_PINNED), packed)
    else:
        return None
    return data.decode("utf-8-sig", "replace")


def unpacked(data: bytes, path: Path) -> bytes:
    """The content of a gzip file. Raises DataError."""
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file: {error}") from None

"""What the sources of own pictures and own texts share: parts and class names to Splits."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigkeras.data.source import ArraySource, DataError, FileSource, Splits
from bigkeras.data.splits import check_fractions, stratified_sample, stratified_split

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


USUAL_SHARE = 0.1  # of validation and of testing
FREQUENT, FEW_ALIKE = 0.02, 10  # equal examples: a share of all; so many are never too many
SPLIT = "split"  # what a table's column of them is called by default


def split_place(path: Path, names: list[str], split: str | None, setting: str) -> int | None:
    """Where a table's rows say to which split they belong; None where no column does, or none is to (`split` None).

    Raises DataError where a column of another name was asked for, by the argument `setting`, and none is called so.
    """
    if split is None:
        return None
    lower = [name.lower() for name in names]
    if split.lower() in lower:
        return names.index(split) if split in names else lower.index(split.lower())
    if split != SPLIT:
        told = ", ".join(map(repr, names))
        raise DataError(
            f"{path}: no column {split!r} among {told}: --set data.{setting}=NAME takes one of these; with null "
            "the seed decides"
        )
    return None


def expanded(path: str | Path) -> Path:
    """The path with a ~ at its beginning replaced by the home folder; where nobody has such a home, as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def load_bytes(encoded: Any) -> Any:
    """A graph function: the bytes of a file of any format as bytes that `decode_image` reads."""
    from bigkeras.data.decode import load_image

    return load_image(encoded)


def file_splits(
    paths: Sequence[str],
    labels: np.ndarray,
    parts: np.ndarray,
    class_names: tuple[str, ...],
    *,
    validation: float,
    test: float,
    seed: int,
    limit_train: int | None,
    keys: Sequence[str] | None = None,
) -> Splits:
    """Splits of picture files; see `part_splits`."""
    shares = {"validation": validation, "test": test}
    whole = FileSource(paths, labels, transform=load_bytes)
    return part_splits(whole, parts, class_names, **shares, seed=seed, limit_train=limit_train, keys=keys)


def part_splits(
    whole: ArraySource | FileSource,
    parts: np.ndarray,
    class_names: tuple[str, ...],
    *,
    validation: float,
    test: float,
    seed: int,
    limit_train: int | None,
    keys: Sequence[str] | None = None,
) -> Splits:
    """Splits of a source. `parts` holds train, validation, test or "" for every example.

    Examples of "" are split by the fractions: stratified, decided by the seed, with every class in the training part;
    those of equal `keys` come to the part of the first, or what was learned would be tested; one that is more than
    `FREQUENT` of all, and so a fifth of a part or more, is learned from, where such are not half of all. A part that
    some examples name is not filled from the others: the fraction of that part counts as 0, and an example of "" whose
    key stands in it is left out, and `ignored`. Those that the data itself has in its training part and in another,
    too, stay: `found` says how many.
    """
    labels = whole.labels
    given = set(parts) - {""}
    fractions = {"validation": 0.0 if "validation" in given else validation, "test": 0.0 if "test" in given else test}
    check_fractions(**fractions)
    asked = {"validation": validation, "test": test}
    parts = np.array(parts, dtype="U10")
    unsaid = np.flatnonzero(parts == "").tolist()
    places_held = np.flatnonzero(np.isin(parts, ("validation", "test"))).tolist()
    held = {keys[place]: str(parts[place]) for place in places_held} if keys is not None else {}
    left_out = [place for place in unsaid if keys is not None and keys[place] in held]
    # With a training folder, validation is taken from it; its examples are as free as those of no folder.
    free = np.setdiff1d(np.flatnonzero((parts == "") | (parts == "train")), np.array(left_out, np.int64))
    if "train" in given:
        fractions["test"] = 0.0
    overruled = [f"data.{n}={asked[n]:g}" for n in asked if asked[n] not in (USUAL_SHARE, fractions[n])]
    told = [f"{' and '.join(overruled)}: not heeded, since the data says its own parts"] if overruled else []
    known = [i for i in np.flatnonzero(parts == "train").tolist() if keys is not None and keys[i] in held]
    if known and keys is not None:
        example = f"{whole.name(known[0])} in {held[keys[known[0]]]}"
        told.append(f"{len(known):,} for training stand in another part, too, such as {example}: scores are too good")
    shares = (1 - sum(fractions.values()), fractions["validation"], fractions["test"])
    names = ("train", "validation", "test")
    for name, members in zip(names, stratified_split(labels[free], shares, seed), strict=True):
        parts[free[members]] = name
    for part in sorted(given - {"train"}) if "train" in given else ():
        lacking = np.setdiff1d(labels[parts == "train"], labels[parts == part])
        if len(lacking):
            told.append(f"no {class_names[lacking[0]]!r} in the {part} part")
    if keys is not None:
        first: dict[str, int] = {}
        times = Counter(keys[place] for place in free.tolist())
        often = max(FEW_ALIKE, FREQUENT * len(free))
        if 2 * sum(number for number in times.values() if number > often) > len(free):
            often = len(free)  # nothing would be left for the other parts
        for place in free.tolist():
            part = parts[first.setdefault(keys[place], place)]
            parts[place] = part if times[keys[place]] <= often else "train"
        # A class all of whose texts went elsewhere with equal ones.
        for label in np.setdiff1d(labels[free], labels[parts == "train"]):
            one = keys[free[(labels[free] == label).argmax()]]
            parts[[place for place in free.tolist() if keys[place] == one]] = "train"
    ignored = [(whole.name(i), f"the same stands in the {held[keys[i]]} part") for i in left_out if keys is not None]
    places = {name: np.flatnonzero(parts == name) for name in names}
    if limit_train is not None and limit_train < 1:
        raise DataError(f"limit_train={limit_train}: at least 1, or null for all")
    train = places["train"]
    train = train[stratified_sample(labels[train], limit_train, seed)]
    held_out, tested = (whole.take(places[name]) if len(places[name]) else None for name in ("validation", "test"))
    return Splits(whole.take(train), held_out, tested, class_names, ignored=tuple(ignored), found="; ".join(told))

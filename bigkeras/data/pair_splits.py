"""From sentence pairs to splits that share no source sentence."""

import functools
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bigkeras.data.cleaning import CONTROL, Pair, cleaned, reasons
from bigkeras.data.reviews import text_array
from bigkeras.data.source import ArraySource, DataError, Splits
from bigkeras.data.splits import check_fractions

PARTS = ("train", "validation", "test")
MOST_KINDS = 4  # of reasons, in a line
MOST_REFERENCES = 100  # of a sentence: of a corpus of subtitles "Yes." has thousands, and each makes every score slower
SPACES = re.compile(rf"(?i:<br\s*/?>)|{CONTROL.pattern}")


def pair_splits(
    pairs: Sequence[Pair],
    languages: tuple[str, str],
    *,
    origin: str,
    validation: float,
    test: float,
    seed: int,
    limit_train: int | None,
    bad: Sequence[tuple[str, str]] = (),
    ignored: Sequence[tuple[str, str]] = (),
) -> Splits:
    """Cleaned pairs as splits. Those of no part are split by the seed, all pairs of one source sentence together.

    Sources are compared in lower case, composed (NFC) and without regard to spaces. A training pair whose source stands
    in another part is left out, a validation pair whose source stands in the test part too. What is left out, here and
    by the cleaning, stands in `ignored`, and `found` says how much it is: it was read well, and counts as no damage.
    Pairs that come as validation or test ones are not cleaned. `bad`, `ignored`: what was found before.
    """
    check_fractions(validation=validation, test=test)
    if seed < 0:
        raise DataError(f"seed={seed}: 0 or more")
    if limit_train is not None and limit_train < 1:
        raise DataError(f"limit_train={limit_train}: at least 1, or null for all")
    # A published test set stays as it is.
    published = {i for i, pair in enumerate(pairs) if pair.part in PARTS[1:] and pair.source and pair.target}
    kept, left_out = cleaned([pair for i, pair in enumerate(pairs) if i not in published], languages)
    ignored, total = [*ignored, *left_out], len(pairs) + len(ignored)
    kept += [pairs[i] for i in sorted(published)]
    if not kept:
        first = f"; the first left out: {ignored[0][0]}: {ignored[0][1]}" if ignored else ""
        raise DataError(f"{origin}: no sentence pair that can be used{first}")
    keys = [source_key(pair.source) for pair in kept]
    given = _split_keys(dict.fromkeys(k for k, p in zip(keys, kept, strict=True) if not p.part), validation, test, seed)
    rows: dict[str, list[int]] = {part: [] for part in PARTS}
    for place, (key, pair) in enumerate(zip(keys, kept, strict=True)):
        rows[pair.part or given[key]].append(place)
    held = {part: {keys[i] for i in rows[part]} for part in PARTS}
    for part, others in (("train", held["validation"] | held["test"]), ("validation", held["test"])):
        ignored += [
            (kept[i].name, "its source sentence stands in another split") for i in rows[part] if keys[i] in others
        ]
        rows[part] = [i for i in rows[part] if keys[i] not in others]
    if limit_train is not None:
        chosen = np.random.default_rng(seed).permutation(len(rows["train"]))[:limit_train]
        rows["train"] = [rows["train"][i] for i in sorted(chosen)]
    if not rows["train"]:
        raise DataError(f"{origin}: {len(kept)} sentence pairs leave none to train on")
    # Of a published part each line, or unit of a memory, is a row, as for those who published scores; of the seed's a
    # sentence has all its references.
    sentences = [(pair.name, key) if pair.part else key for key, pair in zip(keys, kept, strict=True)]
    held_out, tested = (with_references(rows[part], kept, sentences) for part in PARTS[1:])
    train = pair_source([kept[i] for i in rows["train"]])
    return Splits(
        train, held_out, tested, (), bad=tuple(bad), ignored=tuple(ignored), languages=languages,
        found=told(ignored, total), read=total + len(bad),
    )  # fmt: skip


def parted_splits(
    pairs: Sequence[Pair],
    languages: tuple[str, str],
    own: Sequence[str],
    *,
    usual: float,
    validation: float,
    test: float,
    **rest: Any,
) -> Splits:
    """As `pair_splits`, of pairs that have parts of their `own`: the seed takes none of the others for these.

    `found` says where a share other than the `usual` one is not heeded for that.
    """
    asked = {"validation": validation, "test": test}
    shares: dict[str, Any] = {**asked, **dict.fromkeys(own, 0.0)}
    splits = pair_splits(pairs, languages, **shares, **rest)
    overruled = [f"data.{part}={asked[part]:g}" for part in own if asked[part] not in (usual, 0)]
    told = f"{' and '.join(overruled)}: not heeded, since the data has such a part of its own" if overruled else ""
    return replace(splits, found="; ".join(filter(None, (splits.found, told))))


def told(ignored: Sequence[tuple[str, str]], total: int) -> str:
    """A line on how many of `total` pairs are left out, and why most of them; "" for none."""
    kinds = reasons([why for _, why in ignored])
    some = "; ".join(f"{number:,}: {kind}" for kind, number in kinds.most_common(MOST_KINDS))
    more = "; …" if len(kinds) > MOST_KINDS else ""
    return f"{len(ignored):,} of {total:,} pairs are left out ({some}{more})" if ignored else ""


def pair_source(pairs: Sequence[Pair], references: Sequence[Sequence[str]] | None = None) -> ArraySource:
    """A source of the columns `source`, `target` and, where several translations are known, `references`.

    All are UTF-8; the references of a sentence stand in one string, a line each.
    """
    columns = {
        "source": text_array([pair.source.encode() for pair in pairs]),
        "target": text_array([pair.target.encode() for pair in pairs]),
    }
    if references is not None:
        columns["references"] = text_array(["\n".join(some).encode() for some in references])
    return ArraySource(columns, np.zeros(len(pairs), np.int32), [pair.name for pair in pairs])


def with_references(rows: Sequence[int], pairs: Sequence[Pair], keys: Sequence[Any]) -> ArraySource | None:
    """Each source sentence of some rows once, with its translations, at most MOST_REFERENCES; None without rows.

    Rows whose `keys` are equal are of one sentence.
    """
    groups: dict[Any, list[int]] = {}
    for row in rows:
        groups.setdefault(keys[row], []).append(row)
    references = [list(dict.fromkeys(pairs[i].target for i in group))[:MOST_REFERENCES] for group in groups.values()]
    return pair_source([pairs[group[0]] for group in groups.values()], references) if groups else None


def all_pairs(splits: Splits) -> ArraySource:
    """All sentences of a data set, each once with all its translations."""
    pairs = []
    for part in filter(None, (splits.train, splits.validation, splits.test)):
        assert isinstance(part, ArraySource)
        for i in range(len(part)):
            known = part.columns.get("references", part.columns["target"])[i].decode().split("\n")
            pairs += [Pair(part.name(i), part.columns["source"][i].decode(), target) for target in known]
    whole = with_references(range(len(pairs)), pairs, [source_key(pair.source) for pair in pairs])
    assert whole is not None
    return whole


def source_key(source: str) -> str:
    """What two sources have in common that count as the same sentence."""
    return " ".join(unicodedata.normalize("NFC", source.casefold()).split())


def text_key(text: str) -> str:
    """What two texts have in common that count as the same: what `TextPreprocessor.clean` leaves of them, and more.

    Marks without width, line breaks of HTML, control characters and the width of letters and digits make no difference.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _without_width().sub("", text))
    return source_key(SPACES.sub(" ", text))


@functools.cache
def _without_width() -> re.Pattern[str]:
    marks = (chr(sign) for sign in range(sys.maxunicode + 1) if unicodedata.category(chr(sign)) == "Cf")
    return re.compile(f"[{re.escape(''.join(marks))}\ufe00-\ufe0f]")


def _split_keys(keys: dict[str, None], validation: float, test: float, seed: int) -> dict[str, str]:
    names = list(keys)
    order = np.random.default_rng(seed).permutation(len(names))
    # At least one where a part is asked for and there is something to divide.
    sizes = [max(round(share * len(names)), int(share > 0 and len(names) > 2)) for share in (validation, test)]
    parts = (["validation"] * sizes[0] + ["test"] * sizes[1])[: len(names)]  # rounded up, they may be more
    parts += ["train"] * (len(names) - len(parts))
    return {names[place]: part for place, part in zip(order, parts, strict=True)}

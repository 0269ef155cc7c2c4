"""report.md of a run that translates: the score first, then lengths, the worst sentences and some others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bigkeras import pictures
from bigkeras.markdown import plain, signatures, table
from bigkeras.recipe import Recipe
from bigkeras.report import picture_section, rank, shortened, write_sections

WORST, RANDOM = 20, 50


class Translations(Protocol):
    """What was translated of the split that was scored last; `quality`: chrF of each sentence."""

    @property
    def sources(self) -> list[str]: ...

    @property
    def references(self) -> list[list[str]]: ...

    @property
    def translations(self) -> list[str]: ...

    @property
    def quality(self) -> np.ndarray: ...


def write_translation_report(
    directory: str | Path,
    *,
    recipe: Recipe,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    predictions: Translations | None,
) -> Path:
    """Writes report.md and pictures/curves.png into a run directory, beside and renamed; gives the report's path.

    `metrics`: {split: scores of bigkeras.translation_metrics}, other keys are left out; `history`: the rows of log.csv;
    `predictions`: of the split that was scored last.
    """
    directory = Path(directory)
    scored = {key: values for key, values in metrics.items() if isinstance(values, Mapping) and "bleu" in values}
    main = min(scored, key=rank, default=None)
    if history:
        pictures.save(pictures.curves(history), directory / "pictures" / "curves.png")
    sections = [
        _head(recipe, scored, main),
        *([_lengths(main, scored[main])] if main else []),
        *([_worst(predictions), _some(predictions)] if predictions is not None else []),
        picture_section(directory, main),
    ]
    return write_sections(directory, sections, recipe, history)


def _head(recipe: Recipe, scored: Mapping[str, Mapping[str, Any]], main: str | None) -> str:
    lines = [f"# {plain(recipe.name)}", ""]
    if main is None:
        lines.append("Not scored: no validation split was held back. `bigkeras evaluate` scores a test split.")
    else:
        values = scored[main]
        lines.append(
            f"**BLEU {values['bleu']:.2f}, chrF {values['chrf']:.2f} on the {values['sentences']:,} {main} "
            f"sentences**; {values['exact']:.1%} are word for word a reference."
        )
        if copied := values.get("names"):  # not in scores of before
            lines.append(
                f"Of {copied['shared']:,} names and numbers to copy {copied['kept']:,} stand in the translation."
            )
        names = ("bleu", "bleu_lower", "chrf", "chrf_lower")
        rows = [
            [split, scored[split]["sentences"], *(f"{scored[split][name]:.2f}" for name in names)]
            for split in sorted(scored, key=rank)
        ]
        header = ["scored on", "sentences", "BLEU", "BLEU, lower case", "chrF", "chrF, lower case"]
        told = signatures({split: scored[split]["signatures"] for split in sorted(scored, key=rank)})
        lines += ["", table(header, rows), "", *told]
    if recipe.claim:
        lines += ["", f"The recipe's claim: {plain(recipe.claim)}"]
    return "\n".join(lines)


def _lengths(split: str, values: Mapping[str, Any]) -> str:
    rows = [
        [row["length"], row["sentences"], f"{row['bleu']:.2f}", f"{row['chrf']:.2f}"] for row in values["by_length"]
    ]
    told = table(["words of the reference", "sentences", "BLEU", "chrF"], rows)
    return f"## By length\n\nOn the {split} split; words are characters where a script has no spaces.\n\n{told}"


def _worst(translations: Translations) -> str:
    order = np.argsort(translations.quality, kind="stable")[:WORST]
    return "## The worst sentences, of the split that was scored last\n\n" + _rows(translations, order)


def _some(translations: Translations) -> str:
    count = len(translations.sources)
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:RANDOM])
    return "## Some sentences, drawn at random\n\n" + _rows(translations, chosen)


def _rows(translations: Translations, places: Sequence[int] | np.ndarray) -> str:
    rows = [
        [
            shortened(translations.sources[i]),
            shortened(translations.references[i][0]),
            shortened(translations.translations[i]),
            f"{translations.quality[i]:.1f}",
        ]
        for i in places
    ]
    return table(["source", "reference", "translation", "chrF"], rows)

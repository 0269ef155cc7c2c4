"""Translations that earlier runs make of the training sentences, learned beside those that people made."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bigkeras.data.cleaning import Pair, base, cleaned
from bigkeras.data.files import expanded
from bigkeras.data.pair_splits import pair_source, source_key
from bigkeras.data.source import ArraySource, Splits, joined
from bigkeras.recipe import Recipe, RecipeError, load
from bigkeras.run import RunError, check_run, write_text
from bigkeras.tasks import load_task

SYNTHETIC = "synthetic.tsv"  # in the run's directory: source and target of each, a line
AT_ONCE = 1024  # sentences between two moves of the bar
Rows = list[tuple[str, str]]


def diversified(recipe: Recipe, splits: Splits, directory: Path, by_chief: Callable[[Callable], Any]) -> Splits:
    """Splits of sentence pairs whose training part also has what earlier runs translate of it.

    `recipe.teacher`'s translation of a source sentence makes a pair with it, and `recipe.back_translator`'s of a target
    sentence another. They are made once, by the chief, and kept in `directory`; cleaned as all pairs are, and left out
    where the source sentence is held out. Raises RecipeError for a run that is not there or does not translate so, and
    RunError where the kept ones are of other sentences.
    Source: Nguyen et al. 2020 (arXiv 1911.01986), "Data Diversification"; Kim & Rush 2016 (arXiv 1606.07947), section
    3.2, for the one, Sennrich et al. 2016 (arXiv 1511.06709) for the other.
    """
    assert isinstance(splits.train, ArraySource)
    sides = [[text.decode() for text in splits.train.columns[side]] for side in ("source", "target")]
    rows = by_chief(lambda: _kept(recipe, splits.languages, sides, directory))
    people = [Pair(splits.train.name(i), *row) for i, row in enumerate(zip(*sides, strict=True))]
    made = [Pair(f"{SYNTHETIC}:{i}", source, target) for i, (source, target) in enumerate(rows, 1)]
    clean, ignored = cleaned(people + made, splits.languages)
    new, held_out = {pair.name for pair in made}, _held_out(splits)
    learned = [pair for pair in clean if pair.name in new and source_key(pair.source) not in held_out]
    told = f"{len(learned):,} pairs translated by earlier runs are learned, too"
    if not learned:
        return replace(splits, found="; ".join(filter(None, (splits.found, told))))
    train = joined(Splits(splits.train, pair_source(learned), None, ()))
    left = tuple(item for item in ignored if item[0] in new)
    return replace(
        splits, train=train, ignored=(*splits.ignored, *left), found="; ".join(filter(None, (splits.found, told)))
    )


def _kept(
    recipe: Recipe, languages: tuple[str, str], sides: Sequence[list[str]], directory: Path
) -> list[tuple[str, str]]:
    """Source and target of each pair: read where they were made before, else made."""
    path, (sources, targets) = directory / SYNTHETIC, sides
    if path.exists():
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        rows = [(source, target) for source, _, target in (line.partition("\t") for line in lines)]
        forth = len(sources) if recipe.teacher else 0
        expected = sources[:forth] + (targets if recipe.back_translator else [])
        if [source for source, _ in rows[:forth]] + [target for _, target in rows[forth:]] != expected:
            raise RunError(f"{path}: of other sentences than the training split's; take another --run-dir")
        return rows
    rows = []
    if recipe.teacher:
        rows += zip(sources, _translated(recipe, "teacher", sources, languages), strict=True)
    if recipe.back_translator:
        back = (languages[1], languages[0])
        rows += zip(_translated(recipe, "back_translator", targets, back), targets, strict=True)
    write_text(path, "".join(f"{source}\t{target}\n" for source, target in rows))
    return rows


def _translated(recipe: Recipe, setting: str, sentences: list[str], languages: tuple[str, str]) -> list[str]:
    """What the run that a setting names makes of sentences, under a bar."""
    from bigkeras.translation_evaluation import run_translator

    named = getattr(recipe, setting)
    told = f"{setting}={named}"
    try:
        directory = check_run(expanded(named))
    except RunError as error:
        raise RecipeError(f"{setting}: {error}; it is an earlier run: train that first") from None
    task = load_task(directory, ())
    if task.kind != "pairs":
        raise RecipeError(f"{told}: that run does not translate")
    _check_direction(told, directory, task.preprocessor.languages, languages, recipe)
    translate = run_translator(directory / "best.keras", task)
    answers: list[str] = []
    # Sentences of about one length share a batch: sorted over all of them, not only over those that are done at once.
    order = np.argsort([len(sentence) for sentence in sentences], kind="stable")
    with tqdm(total=len(order), desc=told, unit=" sentences", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(order), AT_ONCE):
            some = order[start : start + AT_ONCE]
            answers += translate([sentences[i].encode() for i in some])
            bar.update(len(some))
    placed = [""] * len(order)
    for place, answer in zip(order, answers, strict=True):
        placed[place] = " ".join(answer.split())  # a tab or a break would part its line
    return placed


def _check_direction(
    told: str, directory: Path, theirs: tuple[str, str], languages: tuple[str, str], recipe: Recipe
) -> None:
    """Raises RecipeError for a run that does not translate from the one to the other of two languages."""
    earlier = load(directory)
    if earlier.task.args.get("both_directions"):
        languages = theirs if languages == theirs[::-1] else languages
    elif told.startswith("back_translator") and earlier.data == recipe.data:
        advice = "needed is one from target to source, or with task.both_directions"
        raise RecipeError(f"{told}: learned these pairs from source to target; {advice}")
    if all(languages) and all(theirs) and [base(name) for name in languages] != [base(name) for name in theirs]:
        ways = (f"from {source} to {target}" for source, target in (theirs, languages))
        raise RecipeError(f"{told}: translates {', not '.join(ways)}")


def _held_out(splits: Splits) -> set[str]:
    parts = [part for part in (splits.validation, splits.test) if isinstance(part, ArraySource)]
    return {source_key(text.decode()) for part in parts for text in part.columns["source"]}

"""Translations that earlier runs make of the training sentences, learned beside those that people made."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bigkeras.checks import same_unparted
from bigkeras.data.cleaning import Pair, base, cleaned
from bigkeras.data.files import expanded
from bigkeras.data.pair_splits import pair_source, source_key
from bigkeras.data.reviews import text_array
from bigkeras.data.source import ArraySource, Splits, joined
from bigkeras.origin import UNREADABLE, first_line
from bigkeras.recipe import Recipe, RecipeError, load
from bigkeras.run import RunError, check_run, has_learned, model_hash, read_json, same_data, write_json
from bigkeras.signals import Log, leaving
from bigkeras.tasks import load_task
from bigkeras.tasks.pairs import PairPreprocessor
from bigkeras.tasks.subwords import encoded
from bigkeras.tasks.translation import raw_pairs

# The setting that names a run, and the side of a pair that it translates.
TRANSLATED = {"teacher": "source", "back_translator": "target"}
AT_ONCE = 1024  # sentences between two moves of the bar
KEEP_SECONDS = 60  # of translating, and what was begun of the next sentences, are lost at most


def diversified(
    recipe: Recipe, splits: Splits, directory: Path, by_chief: Callable[[Callable], Any], log: Log
) -> Splits:
    """Splits of sentence pairs whose training part also has what earlier runs translate of it.

    `recipe.teacher`'s translation of a source sentence makes a pair with it, and `recipe.back_translator`'s of a target
    sentence another. They are made once, by the chief, and kept in `directory` as they come; cleaned as all pairs are,
    and left out where the source sentence is held out or longer than the earlier run reads. `labelled` of the splits
    is what people translated. Raises RecipeError for a run that is not there or does not translate so, and where no
    pair is left, and RunError where the kept ones are of other sentences than those that the run has learned.
    Source: Nguyen et al. 2020 (arXiv 1911.01986), "Data Diversification"; Kim & Rush 2016 (arXiv 1606.07947), section
    3.2, for the one, Sennrich et al. 2016 (arXiv 1511.06709) for the other.
    """
    people = raw_pairs(splits.train)
    sides = {side: [text.decode() for text in people.columns[side]] for side in TRANSLATED.values()}
    answers = by_chief(lambda: _kept(recipe, splits.languages, sides, directory, log))
    made = []
    for setting, translations in answers.items():
        told = f"{setting} {getattr(recipe, setting)}"
        rows = zip(*(sides | {"target" if setting == "teacher" else "source": translations}).values(), strict=True)
        made += [Pair(f"{told}, {people.name(i)}", source, target) for i, (source, target) in enumerate(rows)]
    known = [Pair(people.name(i), *row) for i, row in enumerate(zip(*sides.values(), strict=True))]
    clean, left_out = cleaned(known + made, splits.languages)
    held_out = {source_key(text.decode()) for part in (splits.validation, splits.test) for text in _sources(part)}
    new = {pair.name for pair in made}
    learned = [pair for pair in clean if pair.name in new]
    held = [(pair.name, "its source sentence is held out") for pair in learned if source_key(pair.source) in held_out]
    untold = {pair.name for pair in made if not (pair.source and pair.target)}
    none = "has no translation by it: longer than it reads, or none was found"
    ignored = [(name, none if name in untold else why) for name, why in left_out if name in new] + held
    learned = [pair for pair in learned if source_key(pair.source) not in held_out]
    if not learned:
        name, why = ignored[0]
        raise RecipeError(f"{name}: {why}; so with all that earlier runs translate: none can be learned from")
    log.say_once(f"{len(learned):,} of {len(made):,} pairs that earlier runs translate are learned, too")
    train = joined(Splits(people, pair_source(learned), None, ()))
    return replace(splits, train=train, labelled=people, ignored=(*splits.ignored, *ignored))


def _sources(part: Any) -> Any:
    return part.columns["source"] if isinstance(part, ArraySource) else ()


def _kept(
    recipe: Recipe, languages: tuple[str, str], sides: dict[str, list[str]], directory: Path, log: Log
) -> dict[str, list[str]]:
    """Of each setting the translations: read where they were made before, else made."""
    answers, open_runs = {}, {}
    for setting, side in TRANSLATED.items():
        named = getattr(recipe, setting)
        path = directory / f"{setting}.json"
        if not named:
            continue
        kept, model = read_json(path) if path.exists() else {}, None
        if not has_learned(directory):
            model = model_hash(expanded(named))  # before it is loaded, for that run may go on meanwhile
            kept = kept if kept.get("model") == model else {}
        elif kept and not expanded(kept["run"]).exists():
            kept = {**kept, "run": named}  # it has moved, or the recipe would be another one
        if _is_of(kept, named, sides[side]) and None not in kept["translations"]:
            answers[setting] = kept["translations"]
        elif has_learned(directory):
            raise RunError(f"{path}: not of this run's training sentences; take another --run-dir")
        else:  # both are looked at before one translates for minutes
            if not _is_of(kept, named, sides[side]):
                kept = {"run": named, "model": model, "sentences": sides[side]}
                kept["translations"] = [None] * len(sides[side])
            way = languages if setting == "teacher" else (languages[1], languages[0])
            open_runs[setting] = kept, _opened(recipe, setting, way, log)
    for setting, (kept, translate) in open_runs.items():
        named, path = getattr(recipe, setting), directory / f"{setting}.json"
        log.say(f"{setting}: {named} translates {len(kept['sentences']):,} training sentences")
        written = time.monotonic()
        try:
            with leaving():
                for _ in _translated(translate, kept, f"{setting}={named}"):
                    if time.monotonic() - written >= KEEP_SECONDS:
                        write_json(path, kept)
                        written = time.monotonic()
        finally:  # Ctrl-C and SIGTERM, too: the next run goes on from there
            write_json(path, kept)
        answers[setting] = kept["translations"]
    return {setting: answers[setting] for setting in TRANSLATED if setting in answers}


def _is_of(kept: dict[str, Any], named: str, sentences: list[str]) -> bool:
    """Whether what is kept are translations of these sentences by this run, whichever way its folder is named."""
    same = "run" in kept and expanded(kept["run"]).resolve() == expanded(named).resolve()
    return same and kept["sentences"] == sentences


def _opened(recipe: Recipe, setting: str, languages: tuple[str, str], log: Log) -> Callable:
    """The translator of the run that a setting names, from the one to the other language. Raises RecipeError."""
    from bigkeras.translation_evaluation import run_translator

    named = getattr(recipe, setting)
    told = f"{setting}={named}"
    try:
        directory = check_run(expanded(named))
    except RunError as error:
        raise RecipeError(f"{setting}: {error}; it is an earlier run: train that first") from None
    try:
        task, earlier = load_task(directory, ()), load(directory)
    except UNREADABLE as error:
        raise RecipeError(f"{told}: {first_line(error)}") from None
    if task.kind != "pairs":
        raise RecipeError(f"{told}: that run does not translate")
    theirs = task.preprocessor.languages
    wanted, given = (tuple(base(name) for name in some) for some in (languages, theirs))
    # One that learned both ways in its first epochs alone has forgotten the other.
    back = setting == "back_translator" and earlier.task.args.get("both_directions", 0) >= earlier.epochs
    same = same_data(earlier, recipe)
    if setting == "back_translator" and same_unparted(earlier, recipe) and not back:
        advice = f"needed is one from target to source, or with task.both_directions={earlier.epochs}, its epochs"
        raise RecipeError(f"{told}: learned these pairs from source to target; {advice}")
    if all(wanted) and all(given) and wanted != given and not (back and wanted == given[::-1]):
        ways = (f"from {source} to {target}" for source, target in (theirs, languages))
        raise RecipeError(f"{told}: translates {', not '.join(ways)}")
    if not same:
        log.say(f"{told}: learned from other data; what it learned of this run's held-out pairs makes scores too good")
    try:
        return _of_whole_sentences(run_translator(directory / "best.keras", task), task.preprocessor)
    except UNREADABLE as error:
        raise RecipeError(f"{told}: {first_line(error)}") from None


def _of_whole_sentences(translate: Callable, preprocessor: PairPreprocessor) -> Callable:
    """The translator, but "" for a sentence of which the run would read the beginning alone."""
    most = preprocessor.length
    # With one id more, which tells a sentence that would be cut from one that just fits.
    ids = replace(preprocessor, length=most + 1).tokenizers().source_ids

    def translate_whole(texts: list[bytes]) -> list[str]:
        fits = encoded(ids, text_array(texts))[1] <= most
        read = [text for text, whole in zip(texts, fits, strict=True) if whole]
        answers = iter(translate(read) if read else ())
        return [next(answers) if whole else "" for whole in fits]

    return translate_whole


def _translated(translate: Callable, kept: dict[str, Any], told: str) -> Iterator[None]:
    """Fills what is None in `kept["translations"]`, under a bar; pauses after every so many, so that they are kept."""
    sentences, placed = kept["sentences"], kept["translations"]
    # Sentences of about one length share a batch: sorted over all of them, not only over those that are done at once.
    order = np.argsort([len(sentence) for sentence in sentences], kind="stable")
    order = order[[placed[i] is None for i in order]]
    done = len(placed) - len(order)
    with tqdm(total=len(placed), initial=done, desc=told, unit=" sentences", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(order), AT_ONCE):
            some = order[start : start + AT_ONCE]
            for place, answer in zip(some, translate([sentences[i].encode() for i in some]), strict=True):
                placed[place] = " ".join(answer.split())
            bar.update(len(some))
            yield

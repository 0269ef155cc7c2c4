"""Translations of earlier runs as training pairs: which they are, that they are kept, and which are left out."""

import json
import shutil
from dataclasses import replace

import pytest

from bigkeras import translation_evaluation
from bigkeras.checks import check_recipe
from bigkeras.data.reviews import text_array
from bigkeras.data.source import ArraySource, DataError
from bigkeras.diversification import diversified
from bigkeras.evaluation import evaluate
from bigkeras.recipe import Choice, Recipe, RecipeError
from bigkeras.recipe_data import load_splits
from bigkeras.recipes import RECIPES
from bigkeras.run import RunError, read_json, write_json
from bigkeras.signals import Log
from bigkeras.train import fit
from bigkeras.translation_evaluation import run_translator

NUMBERS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "six": "sechs", "nine": "neun"}
QUIET = Log(quiet=True)


def alone(function):
    """What the only worker does."""
    return function()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Of 216 pairs of three numbers."""
    folder = tmp_path_factory.mktemp("pairs")
    words = [(a, b, c) for a in NUMBERS for b in NUMBERS for c in NUMBERS]
    lines = [f"{' '.join(some)}\t{' '.join(NUMBERS[word] for word in some)}\n" for some in words]
    (folder / "pairs.tsv").write_text("".join(lines), encoding="utf-8")
    languages = {"source_language": "en", "target_language": "de"}
    return Recipe(
        name="numbers",
        data=Choice("translation_pairs", {"file": str(folder / "pairs.tsv"), **languages}),
        task=Choice("translation", {"vocabulary_size": 300, "length": 24, "beam": 1}),
        model=Choice("transformer_translator", {"depth": 1, "width": 16, "num_heads": 2, "feed_forward": 32}),
        batch_size=512, epochs=1, monitor="val_bleu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """A run that has learned both ways, and next to nothing."""
    directory = tmp_path_factory.mktemp("runs") / "both"
    fit(recipe.override(**{"task.both_directions": 1}), directory, log=QUIET)
    return str(directory)


def sides(source):
    return [[text.decode() for text in source.columns[side]] for side in ("source", "target")]


def says(monkeypatch, function):
    monkeypatch.setattr(translation_evaluation, "run_translator", lambda model, task: function)


def test_a_run_learns_what_earlier_ones_translate_each_way(recipe, run, tmp_path, monkeypatch, capsys):
    says(
        monkeypatch, lambda texts: ["acht neun eins" if b"o" in texts[0] + texts[-1] else "one nine eight"] * len(texts)
    )
    asked = recipe.override(teacher=run, back_translator=run, start_from=run)
    fit(asked, tmp_path / "run")
    sources, targets = sides(load_splits(recipe).train)
    assert f"{2 * len(sources)} of {2 * len(sources)} pairs that earlier runs" in capsys.readouterr().err
    more = diversified(asked, load_splits(recipe), tmp_path / "run", alone, QUIET)
    assert sides(more.labelled) == [sources, targets]
    assert sides(more.train) == [
        sources + sources + ["one nine eight"] * len(targets),
        targets + ["acht neun eins"] * len(sources) + targets,
    ]
    found = evaluate(tmp_path / "run", split="train", report=False, log=QUIET)
    assert found["train"]["sentences"] == len(sources)


def test_they_are_what_the_run_says_and_made_once(recipe, run, tmp_path, monkeypatch):
    splits, found = load_splits(recipe), []
    monkeypatch.setattr("bigkeras.diversification.cleaned", lambda pairs, languages: (list(pairs), []))
    monkeypatch.setattr(
        translation_evaluation, "run_translator", lambda *args: found.append(run_translator(*args)) or found[-1]
    )
    asked = recipe.override(teacher=run)
    first = diversified(asked, splits, tmp_path, alone, QUIET)
    kept = json.loads((tmp_path / "teacher.json").read_text(encoding="utf-8"))
    again = found[0]([text.encode() for text in kept["sentences"]])
    assert [" ".join(text.split()) for text in again] == kept["translations"]
    assert sides(diversified(asked, splits, tmp_path, alone, QUIET).train) == sides(first.train)
    assert len(found) == 1
    # Another run, or other sentences: made anew, but not once they have been learned.
    few = replace(splits, train=splits.train.take([0, 1]))
    assert len(diversified(asked, few, tmp_path, alone, QUIET).train) == 4
    assert len(found) == 2
    (tmp_path / "best.keras").touch()
    write_json(tmp_path / "teacher.json", {**read_json(tmp_path / "teacher.json"), "run": "moved/since"})
    assert len(diversified(asked, few, tmp_path, alone, QUIET).train) == 4
    with pytest.raises(RunError, match=r"teacher\.json: not of this run's training sentences"):
        diversified(asked, splits, tmp_path, alone, QUIET)


def test_what_an_earlier_model_of_that_run_translated_is_made_anew(recipe, run, tmp_path, monkeypatch):
    earlier = shutil.copytree(run, tmp_path / "earlier")
    splits, asked = load_splits(recipe), recipe.override(teacher=str(earlier))

    def learned(answer):
        says(monkeypatch, lambda texts: [answer] * len(texts))
        return sides(diversified(asked, splits, tmp_path / "run", alone, QUIET).train)[1][-1]

    (tmp_path / "run").mkdir()
    assert learned("drei eins") == learned("zwei eins") == "drei eins"
    (earlier / "best.keras").write_bytes(b"of a later epoch")
    assert learned("zwei eins") == "zwei eins"
    (tmp_path / "run" / "best.keras").touch()
    (earlier / "best.keras").write_bytes(b"of a later one")
    assert learned("sechs") == "zwei eins"


def test_what_was_translated_before_a_stop_is_not_translated_again(recipe, run, tmp_path, monkeypatch):
    monkeypatch.setattr("bigkeras.diversification.AT_ONCE", 64)
    monkeypatch.setattr("bigkeras.diversification.KEEP_SECONDS", 0)
    seen = []

    def translate(texts):
        if len(seen) == 128:
            raise KeyboardInterrupt
        seen.extend(texts)
        return [f"drei {text.decode()}" for text in texts]

    says(monkeypatch, translate)
    splits, asked = load_splits(recipe), recipe.override(teacher=run)
    with pytest.raises(KeyboardInterrupt):
        diversified(asked, splits, tmp_path, alone, QUIET)
    seen.append(b"")  # so that it goes on
    more = diversified(asked, splits, tmp_path, alone, QUIET)
    seen.remove(b"")
    sources, _ = sides(splits.train)
    assert sorted(seen) == sorted(text.encode() for text in sources)
    assert sides(more.train)[1][len(sources) :] == [f"drei {text}" for text in sources]


def test_a_sentence_that_the_earlier_run_does_not_read_to_its_end_is_not_learned(recipe, run, tmp_path, monkeypatch):
    says(monkeypatch, lambda texts: ["zwei zwei eins"] * len(texts))
    splits = load_splits(recipe)
    long = [" ".join(["four nine"] * 12).encode(), *splits.train.columns["source"][1:]]
    columns = {**splits.train.columns, "source": text_array(long)}
    names = [splits.train.name(i) for i in range(len(long))]
    splits = replace(splits, train=ArraySource(columns, splits.train.labels, names))
    more = diversified(recipe.override(teacher=run), splits, tmp_path, alone, QUIET)
    told = "has no translation by it: longer than it reads, or none was found"
    assert (f"teacher {run}, {names[0]}", told) in more.ignored


def test_new_pairs_are_clean_and_of_no_held_out_sentence(recipe, run, tmp_path, monkeypatch):
    splits = load_splits(recipe)
    held_out = sides(splits.test)[0][0]
    known = dict(zip(*reversed(sides(splits.train)), strict=True))

    def translate(texts):
        some = ["", held_out.upper(), known[texts[2].decode()], "Two\tnine \n one"]
        return some + [""] * (len(texts) - len(some))

    says(monkeypatch, translate)
    more = diversified(recipe.override(back_translator=run), splits, tmp_path / "some", alone, QUIET)
    assert len(more.train) == len(splits.train) + 1
    assert sides(more.train)[0][-1] == "Two nine one"
    reasons = [why for name, why in more.ignored if name.startswith("back_translator")]
    assert len(reasons) == len(splits.train) - 1
    assert {"the same pair stands there before", "its source sentence is held out"} < set(reasons)
    says(monkeypatch, lambda texts: [""] * len(texts))
    with pytest.raises(
        RecipeError, match=r"^teacher .*, .*pairs\.tsv:\d+: .*; so with all that earlier runs translate"
    ):
        diversified(recipe.override(teacher=run), splits, tmp_path / "none", alone, QUIET)


def test_a_run_that_cannot_teach_is_one_line(recipe, run, tmp_path, monkeypatch):
    splits = load_splits(recipe)
    says(monkeypatch, None)  # none is asked before all are looked at

    def refused(splits=splits, **values):
        with pytest.raises(RecipeError) as error:
            diversified(recipe.override(**values), splits, tmp_path, alone, QUIET)
        return str(error.value)

    assert refused(teacher="nowhere") == "teacher: nowhere: no such directory; it is an earlier run: train that first"
    assert refused(teacher=run, back_translator="nowhere").startswith("back_translator: nowhere: no such directory")
    other = replace(splits, languages=("de", "fr"))
    assert refused(other, back_translator=run).endswith("translates from en to de, not from fr to de")
    one_way = tmp_path / "one_way"
    shutil.copytree(run, one_way)
    for ways in ({}, {"task.both_directions": 1, "epochs": 2}):
        recipe.override(**ways).save(one_way / "recipe.json")
        assert "learned these pairs from source to target; needed is" in refused(back_translator=str(one_way))
        # Parted otherwise they are the same pairs.
        parted = refused(
            back_translator=str(one_way), data=replace(recipe.data, args={**recipe.data.args, "test": 0.3})
        )
        assert "learned these pairs from source to target; needed is" in parted
    with pytest.raises(DataError, match="translation needs sentence pairs"):
        diversified(recipe.override(teacher=run), load_splits(RECIPES["digits"]), tmp_path, alone, QUIET)
    texts = recipe.override(task=Choice("text_classification"), model=Choice("lstm"), back_translator="x")
    with pytest.raises(RecipeError, match="back_translator=x: for sentence pairs, not for text_classification"):
        check_recipe(texts.override(monitor="val_accuracy"))


def test_languages_are_compared_without_their_regions(recipe, run, tmp_path, monkeypatch):
    says(monkeypatch, lambda texts: ["one nine eight"] * len(texts))
    splits = replace(load_splits(recipe), languages=("en-GB", "de_AT"))
    assert len(diversified(recipe.override(back_translator=run), splits, tmp_path, alone, QUIET).train)

"""Translations of earlier runs as training pairs: which they are, that they are kept, and which are left out."""

import shutil
from dataclasses import replace

import pytest

from bigkeras import translation_evaluation
from bigkeras.checks import check_recipe
from bigkeras.diversification import SYNTHETIC, diversified
from bigkeras.recipe import Choice, Recipe, RecipeError
from bigkeras.recipe_data import load_splits
from bigkeras.run import RunError
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


def test_a_run_learns_what_earlier_ones_translate_each_way(recipe, run, tmp_path, capsys):
    more = recipe.override(teacher=run, back_translator=run, start_from=run)
    fit(more, tmp_path / "run")
    rows = [line.split("\t") for line in (tmp_path / "run" / SYNTHETIC).read_text(encoding="utf-8").splitlines()]
    sources, targets = sides(load_splits(recipe).train)
    assert [row[0] for row in rows[: len(sources)]] == sources
    assert [row[1] for row in rows[len(sources) :]] == targets
    assert "pairs translated by earlier runs are learned, too" in capsys.readouterr().err


def test_they_are_made_once_and_are_what_the_run_says(recipe, run, tmp_path, monkeypatch):
    splits = load_splits(recipe)
    asked = recipe.override(teacher=run)
    found = []
    monkeypatch.setattr(
        translation_evaluation, "run_translator", lambda *args: found.append(run_translator(*args)) or found[-1]
    )
    first = diversified(asked, splits, tmp_path, alone)
    assert [found[0].batch, len(found)] == [64, 1]
    rows = [line.split("\t") for line in (tmp_path / SYNTHETIC).read_text(encoding="utf-8").splitlines()]
    again = found[0]([source.encode() for source, _ in rows])
    assert [" ".join(text.split()) for text in again] == [target for _, target in rows]
    says(monkeypatch, None)
    second = diversified(asked, splits, tmp_path, alone)
    assert sides(first.train) == sides(second.train)
    with pytest.raises(RunError, match=r"synthetic\.tsv: of other sentences"):
        diversified(asked, replace(splits, train=splits.train.take([0, 1])), tmp_path, alone)


def test_new_pairs_are_clean_and_of_no_held_out_sentence(recipe, run, tmp_path, monkeypatch):
    splits = load_splits(recipe)
    held_out = sides(splits.test)[0][0]
    known = dict(zip(*reversed(sides(splits.train)), strict=True))

    def translate(texts):
        given = [text.decode() for text in texts]
        return ["", held_out.upper(), known[given[2]], "Two\tnine \n one"] + [""] * (len(given) - 4)

    says(monkeypatch, translate)
    more = diversified(recipe.override(back_translator=run), splits, tmp_path, alone)
    assert len(more.train) == len(splits.train) + 1
    assert sides(more.train)[0][-1] == "Two nine one"
    assert "1 pairs translated" in more.found
    assert {reason for name, reason in more.ignored if name.startswith(SYNTHETIC)} >= {
        "the same pair stands there before"
    }
    says(monkeypatch, lambda texts: [""] * len(texts))
    none = diversified(recipe.override(teacher=run), splits, tmp_path / "..", alone)
    assert none.train is splits.train and "0 pairs translated" in none.found


def test_a_run_that_cannot_teach_is_one_line(recipe, run, tmp_path):
    splits = load_splits(recipe)
    with pytest.raises(RecipeError, match=r"^teacher: nowhere: no such directory; it is an earlier run: train that"):
        diversified(recipe.override(teacher="nowhere"), splits, tmp_path, alone)
    turned = replace(splits, languages=("de", "fr"))
    with pytest.raises(RecipeError, match=r"back_translator=.*: translates from en to de, not from fr to de$"):
        diversified(recipe.override(back_translator=run), turned, tmp_path, alone)
    one_way = tmp_path / "one_way"
    shutil.copytree(run, one_way)
    recipe.save(one_way / "recipe.json")
    with pytest.raises(RecipeError, match="learned these pairs from source to target; needed is one from target"):
        diversified(recipe.override(back_translator=str(one_way)), splits, tmp_path, alone)
    with pytest.raises(RecipeError, match="back_translator=x: for sentence pairs, not for text_classification"):
        check_recipe(
            Recipe(
                name="texts", data=Choice("sst2"), task=Choice("text_classification"), model=Choice("lstm"),
                back_translator="x",
            )
        )  # fmt: skip

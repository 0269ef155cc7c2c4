"""`bigkeras settings` tells what a recipe can be told, and nothing else."""

import dataclasses
import json

import pytest

from bigkeras.__main__ import main
from bigkeras.checks import check_recipe
from bigkeras.recipe import Recipe
from bigkeras.recipes import RECIPES
from bigkeras.settings import meanings, settings


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_told_of_a_recipe_can_be_said_to_it_and_changes_nothing(name):
    recipe = RECIPES[name]
    told = settings(recipe)
    if recipe.model.name != "auto":  # which decides some itself
        assert {field.name for field in dataclasses.fields(Recipe)} <= {one.key for one in told}
    # Names of functions first: each begins with its own arguments.
    said = {one.key: one.value for one in sorted(told, key=lambda one: "." in one.key) if "needed" not in one.takes}
    whole = recipe.override(**said)
    for one in told:
        if "needed" in one.takes:
            whole = whole.override(**{one.key: "somewhere"})
    check_recipe(whole)
    assert {one.key: one.value for one in settings(whole) if "needed" not in one.takes} == said


def test_every_key_of_a_recipe_says_what_it_means(capsys):
    assert set(meanings()) == {field.name for field in dataclasses.fields(Recipe)}
    assert main(["settings", "digits"]) == 0
    assert "lora=null    (a whole number or null)\n    | The rank of low-rank updates" in capsys.readouterr().out


def test_every_augmentation_and_way_of_preparation_is_told_with_what_it_takes():
    told = {one.key: one.about for one in settings(RECIPES["photos10"])}
    assert "crop(padding=4, mode='reflect')" in told["augmentation"] and "randoms" not in told["augmentation"]
    assert "flip()" in told["augmentation"] and "stretch" in told["task"] and "crop_fraction" in told["task"]
    texts = {one.key: one.about for one in settings(RECIPES["imdb-lstm"])}
    assert "word_dropout(rate=0.1)" in texts["augmentation"]
    for argument in (one.key.removeprefix("task.") for one in settings(RECIPES["imdb-lstm"]) if "task." in one.key):
        assert f"`{argument}`" in texts["task"], argument


def test_every_name_that_is_offered_is_taken_and_explained():
    recipe = RECIPES["mnist-lenet"]
    for one in settings(recipe):
        for name in one.takes.split(", ") if one.key in ("model", "optimizer", "schedule", "loss") else ():
            told = {each.key: each for each in settings(recipe.override(**{one.key: name}))}
            assert told[one.key].value == name and told[one.key].about


def test_another_model_has_other_settings_and_json_has_them_all(capsys):
    assert main(["settings", "mnist-lenet", "--set", "model=resnet", "--set", "model.depth=56", "--json"]) == 0
    told = {one["key"]: one for one in json.loads(capsys.readouterr().out)}
    assert told["model.depth"]["value"] == 56 and told["model.depth"]["takes"] == "a whole number"
    assert main(["settings", "mnist-lenet"]) == 0
    out = capsys.readouterr().out
    assert 'model="lenet"' in out and "model.depth" not in out and "micro_batches" in out
    assert main(["settings", "nothing"]) == 1 and "is not one of" in capsys.readouterr().err
    for wrong in ("task=foo", "model.dpeth=56", "optimizer=adma", "depth=3", "model=resent"):
        assert main(["settings", "mnist-lenet", "--set", wrong]) == 1
        assert "is not one of" in capsys.readouterr().err
    told = {one.key: one.takes for one in settings(RECIPES["mnist-lenet"].override(optimizer="sgd"))}
    assert told["optimizer.weight_decay"] == "any" and told["optimizer.nesterov"] == "true or false"
    own = settings(RECIPES["mnist-lenet"].override(model="mine"))
    assert "mine is one of your own" in next(one.takes for one in own if one.key == "model")
